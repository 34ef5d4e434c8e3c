/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chroot_enter.c - make a directory the root of everything the process can name.
 *
 * Not chroot(2), which a process with privileges leaves again, but a mount namespace in which
 * nothing else is mounted. No path is resolved: the new root is a copy of the mount below the
 * working directory, put over it by descriptor. What the operator mounted inside comes along.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jailer/chroot_int.h"
#include "monitor/base/cleanup.h"

/* <sys/mount.h> and <linux/mount.h> do not go together in every libc. */
#define PROPAGATE_NOTHING ((1ul << 18) | (1ul << 14)) /* MS_PRIVATE | MS_REC */
#define DETACH            2                           /* MNT_DETACH */
#define RECURSIVE         0x8000u                     /* AT_RECURSIVE */

int chroot_enter(int root_fd, struct err *e)
{
	_cleanup_fd_ int tree = -1;

	/* Before the namespace: a working directory moves along, a descriptor would not. */
	if (fchdir(root_fd))
		return err_sys(e, errno, "cannot enter the jail's directory");
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS))
		return err_sys(e, errno, "cannot make namespaces (unshare)");
	if (syscall(SYS_mount, "none", "/", NULL, PROPAGATE_NOTHING, NULL))
		return err_sys(e, errno, "cannot part the mounts from the host's (MS_PRIVATE)");
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, ".",
		OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | RECURSIVE);
	if (tree < 0)
		return err_sys(e, errno, "cannot copy the jail's mount (open_tree)");
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH))
		return err_sys(e, errno, "cannot mount the jail's root (move_mount)");
	if (fchdir(tree))
		return err_sys(e, errno, "cannot enter the jail's mount");
	/* The old root ends up over the new one, and is taken off it. */
	if (syscall(SYS_pivot_root, ".", "."))
		return err_sys(e, errno, "cannot change the root (pivot_root)");
	if (syscall(SYS_umount2, ".", DETACH))
		return err_sys(e, errno, "cannot take the host's root away (umount2)");
	if (chdir("/"))
		return err_sys(e, errno, "cannot enter the new root");
	return 0;
}
