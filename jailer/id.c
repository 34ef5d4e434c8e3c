/* SPDX-License-Identifier: Apache-2.0 */
/*
 * id.c - user ids for VMs, one each.
 *
 * Who has id FIRST + n has the n-th byte of a file locked. The lock belongs to the open file, so it
 * is gone with the last process that has it open: nothing is to be cleaned up, ever. The search
 * begins anywhere, so that starts at the same time seldom meet, and an id that somebody just gave
 * back is not the next one's.
 */
#include "jailer/jailer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "monitor/base/cleanup.h"

/* EAGAIN where somebody has one of the @count from @n on. */
static int try_lock(int fd, u32 n, u32 count)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = n, .l_len = count};

	return fcntl(fd, F_OFD_SETLK, &l) ? errno : 0;
}

static int open_locks(const char *path, struct err *e)
{
	_cleanup_fd_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0)
		return err_sys(e, errno, "cannot open %s, which keeps the user ids of VMs", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != 0 || (st.st_mode & 022))
		return err_set(e, -EPERM,
			"%s, which keeps the user ids of VMs, must be root's own file", path);
	return fd_steal(&fd);
}

int jail_take_ids(const char *path, u32 count, uid_t *ret_first, int *ret_fd, struct err *e)
{
	_cleanup_fd_ int fd = open_locks(path, e);
	u32 n = 0, r = EAGAIN;

	if (fd < 0)
		return fd;
	if (getrandom(&n, sizeof(n), 0) != sizeof(n))
		return err_sys(e, errno, "cannot choose a user id");
	n %= JAIL_ID_COUNT;
	for (u32 tries = 0; tries < JAIL_ID_COUNT && count <= JAIL_ID_COUNT; tries++) {
		if (n + count > JAIL_ID_COUNT)
			n = 0;
		r = (u32)try_lock(fd, n, count);
		if (r != EAGAIN && r != EACCES)
			break;
		n++;
	}
	if (r == EAGAIN || r == EACCES)
		return err_set(e, -EBUSY, "there are not %u of the %u user ids for VMs free", count,
			JAIL_ID_COUNT);
	if (r)
		return err_sys(e, (int)r, "cannot lock user ids in %s", path);
	*ret_first = JAIL_ID_FIRST + n;
	*ret_fd = fd_steal(&fd);
	return 0;
}
