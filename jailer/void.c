/* SPDX-License-Identifier: Apache-2.0 */
/*
 * void.c - namespaces with nothing in them, made by somebody who does not stay there.
 *
 * The process goes in, empties what it finds, keeps the descriptors, and comes back. Coming back to
 * a mount namespace leads to its root; where the process was chrooted, or stood elsewhere, it goes
 * there again, by descriptors that it took along.
 */
#include "jailer/jail_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"

static const struct {
	const char *name; /* below /proc/self/ns */
	int type;
} spaces[JAIL_VOID_COUNT] = {
	[JAIL_VOID_MOUNT] = {"mnt", CLONE_NEWNS},
	[JAIL_VOID_NET] = {"net", CLONE_NEWNET},
	[JAIL_VOID_IPC] = {"ipc", CLONE_NEWIPC},
	[JAIL_VOID_UTS] = {"uts", CLONE_NEWUTS},
};

void jail_close_void(struct jail_void *v)
{
	for (unsigned i = 0; i < JAIL_VOID_COUNT; i++)
		fd_close(&v->fd[i]);
}

static int open_all(struct jail_void *ret, int ns_fd, struct err *e)
{
	*ret = JAIL_VOID_NONE;
	for (unsigned i = 0; i < JAIL_VOID_COUNT; i++) {
		ret->fd[i] = openat(ns_fd, spaces[i].name, O_RDONLY | O_CLOEXEC);
		if (ret->fd[i] < 0)
			return err_sys(e, errno, "cannot open the %s namespace", spaces[i].name);
	}
	return 0;
}

static int come_back(const struct jail_void *home, int root_fd, int cwd_fd, struct err *e)
{
	for (unsigned i = 0; i < JAIL_VOID_COUNT; i++)
		if (setns(home->fd[i], spaces[i].type))
			return err_sys(e, errno, "cannot come back from the %s namespace",
				spaces[i].name);
	if (fchdir(root_fd) || chroot(".") || fchdir(cwd_fd))
		return err_sys(e, errno, "cannot come back to the directory");
	return 0;
}

int jail_make_void(struct jail_void *ret, struct err *e)
{
	_cleanup_fd_ int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fd_ int cwd_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fd_ int ns_fd = open("/proc/self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct jail_void home;
	int r;

	*ret = JAIL_VOID_NONE;
	if (root_fd < 0 || cwd_fd < 0 || ns_fd < 0)
		return err_sys(e, errno, "the jail needs /proc, and a directory to stand in");
	r = open_all(&home, ns_fd, e);
	if (!r && unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		r = err_sys(e, errno, "cannot make namespaces");
	/* On top of a directory that is certainly there. */
	if (!r)
		r = jail_empty_root("/proc", e);
	if (!r)
		r = open_all(ret, ns_fd, e);
	if (!r)
		r = come_back(&home, root_fd, cwd_fd, e);
	jail_close_void(&home);
	return r;
}
