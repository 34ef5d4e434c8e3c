/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_lock.c - who may use an image, and who does.
 *
 * An open file description lock over the whole file: it goes away with the descriptor, however the
 * process ends, and works on block devices and over NFS. Its owner has no process id as far as
 * fcntl() knows, so for the message the owner is looked for in /proc: whoever has the same file
 * open and a lock on that descriptor. That needs permission, a process to be still there, and a
 * /proc, which a VM at work has not.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "virtio/disk_int.h"

#define FDINFO_MAX 2048u
#define RETRIES    200u
#define RETRY_NS   5000000
#define OURSELVES  (-1l)

static bool has_lock(int fdinfo_dir, const char *name)
{
	_cleanup_fd_ int fd = openat(fdinfo_dir, name, O_RDONLY | O_CLOEXEC);
	char text[FDINFO_MAX];
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = 0;
	return strstr(text, "lock:") != NULL;
}

/* Whether the process with the directory @pid in /proc has a lock on the file @want. */
static bool is_owner(int proc, const char *pid, const struct stat *want)
{
	_cleanup_fd_ int info = -1;
	char path[64];
	struct dirent *ent;
	struct stat st;
	bool found = false;
	DIR *fds;
	int fd;

	snprintf(path, sizeof(path), "%.20s/fdinfo", pid);
	info = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds = fd < 0 ? NULL : fdopendir(fd);
	if (!fds) {
		fd_close(&fd);
		return false;
	}
	while (info >= 0 && !found && (ent = readdir(fds)))
		found = ent->d_name[0] != '.' && !fstatat(dirfd(fds), ent->d_name, &st, 0) &&
			st.st_dev == want->st_dev && st.st_ino == want->st_ino &&
			has_lock(info, ent->d_name);
	closedir(fds);
	return found;
}

/*
 * The process that has the file @want locked; 0: not known. We have another pid in /proc than in
 * our namespace, so we do not go by that.
 * syscalls[L]: openat, getdents64, newfstatat, fstat, read, close
 */
static long find_owner(const struct stat *want)
{
	DIR *proc = opendir("/proc");
	struct dirent *ent;
	long pid = 0;

	if (!proc)
		return 0;
	if (is_owner(dirfd(proc), "self", want))
		pid = OURSELVES;
	while (!pid && (ent = readdir(proc)))
		if (isdigit((unsigned char)ent->d_name[0]) &&
			is_owner(dirfd(proc), ent->d_name, want))
			pid = strtol(ent->d_name, NULL, 10);
	closedir(proc);
	return pid;
}

/*
 * A process that was killed keeps its lock for the moment that the kernel needs to end its I/O:
 * where nobody can be found who has it, it is worth waiting for.
 */
static bool take_lock(int fd, const struct flock *want, bool look, long *ret_pid)
{
	const struct timespec pause = {.tv_nsec = RETRY_NS};
	struct flock lock;
	struct stat st;

	*ret_pid = 0;
	for (unsigned i = 0; i < (look ? RETRIES : 1) && !*ret_pid; i++) {
		if (i)
			nanosleep(&pause, NULL); /* syscalls[L]: clock_nanosleep */
		lock = *want;
		/* syscalls[L]: fcntl(F_OFD_SETLK) */
		if (!fcntl(fd, F_OFD_SETLK, &lock))
			return true;
		if (errno != EAGAIN && errno != EACCES)
			return false;
		*ret_pid = look && !fstat(fd, &st) ? find_owner(&st) : 0;
	}
	errno = EAGAIN;
	return false;
}

int disk_lock(int fd, const char *path, bool exclusive, bool look, struct err *e)
{
	struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
	const char *use = exclusive ? "write" : "read";
	long pid;

	if (take_lock(fd, &lock, look, &pid))
		return 0;
	if (errno != EAGAIN)
		return err_sys(e, errno, "cannot lock disk %s", path);
	if (pid == OURSELVES)
		return err_set(e, -EBUSY,
			"cannot %s disk %s: it is given twice: this VM uses it already", use, path);
	if (pid)
		return err_set(e, -EBUSY, "cannot %s disk %s: process %ld has it locked", use, path,
			pid);
	return err_set(e, -EBUSY, "cannot %s disk %s: another process has it locked", use, path);
}

long disk_owner(const char *path)
{
	struct stat st;
	long pid = stat(path, &st) ? 0 : find_owner(&st);

	return pid == OURSELVES ? 0 : pid;
}

void disk_unlock(int fd)
{
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	fcntl(fd, F_OFD_SETLK, &lock);
}
