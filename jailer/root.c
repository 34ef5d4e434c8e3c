/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root.c - a root directory with nothing in it.
 *
 * An empty, read-only tmpfs takes the place of the host's file systems, which are then let go of:
 * no path leads anywhere, and no descriptor may be left that does (the tests look).
 */
#include "jailer/jail_int.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The kernel's first root, an initial RAM disk, cannot be swapped for another. The empty directory
 * is put over it instead, and made the root: with no capability and no descriptor that leads below,
 * nobody gets there.
 */
static int cover_root(struct err *e)
{
	if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		return err_sys(e, errno, "cannot make the empty directory the root");
	return 0;
}

int jail_empty_root(const char *mount_on, struct err *e)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	/* What we mount stays ours, and what the host mounts later is not shown here. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return err_sys(e, errno, "cannot make the mounts private");
	if (mount("kelvin-jail", mount_on, "tmpfs", flags, "mode=555,size=4k,nr_inodes=2"))
		return err_sys(e, errno, "cannot mount an empty root on %s", mount_on);
	if (chdir(mount_on))
		return err_sys(e, errno, "cannot enter the empty root");
	/* The old root is stacked below the new one, at the same place, and taken off there. */
	if (syscall(SYS_pivot_root, ".", "."))
		return errno == EINVAL ? cover_root(e) : err_sys(e, errno,
			"cannot make the empty directory the root (pivot_root)");
	if (umount2(".", MNT_DETACH) || chdir("/"))
		return err_sys(e, errno, "cannot let go of the host's file systems");
	return 0;
}
