/* SPDX-License-Identifier: Apache-2.0 */
/*
 * birth.c - the process of a VM, born into namespaces of its own.
 *
 * One clone3() instead of fork() and unshare(): a process can be put into a new pid namespace only
 * at its birth, and into a cgroup without a wait only then.
 *
 * glibc does not know of this child. It has one thread, so no lock can be held by another, and it
 * never asks glibc for its thread id; apart from that the two processes are alike.
 */
#include "jailer/jailer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"

static const struct {
	unsigned layer;
	u64 flag;
} namespaces[] = {
	{JAIL_PID, CLONE_NEWPID},
	{JAIL_MOUNT, CLONE_NEWNS},
	{JAIL_IPC, CLONE_NEWIPC},
	{JAIL_UTS, CLONE_NEWUTS},
	{JAIL_USER, CLONE_NEWUSER},
};

static pid_t born(u64 flags, int cgroup_fd)
{
	struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};

	if (cgroup_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (u64)cgroup_fd;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

pid_t jail_fork(unsigned layers, int cgroup_fd)
{
	u64 flags = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(namespaces); i++)
		if (layers & namespaces[i].layer)
			flags |= namespaces[i].flag;
	return born(flags, cgroup_fd);
}

static int write_map(const char *path, const char *text, struct err *e)
{
	_cleanup_fd_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(text);

	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		return err_sys(e, errno, "cannot map the user into its namespace (%s)", path);
	return 0;
}

int jail_map_user(uid_t uid, gid_t gid, struct err *e)
{
	char map[64];
	int r = write_map("/proc/self/setgroups", "deny", e);

	snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
	r = r ? r : write_map("/proc/self/uid_map", map, e);
	snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
	return r ? r : write_map("/proc/self/gid_map", map, e);
}
