/* SPDX-License-Identifier: Apache-2.0 */
/*
 * void.c - namespaces with nothing in them, made by somebody who does not stay there.
 *
 * The process goes in, empties what it finds, keeps the descriptors, and comes back. Coming back to
 * a mount namespace leads to its root; where the process was chrooted, or stood elsewhere, it goes
 * there again, by descriptors that it took along.
 *
 * Nobody who is in there without capabilities can leave anything for the next: the file system is
 * read-only and full, the network has no way in or out, and ipc has no room for a single object.
 * So one void does for all VMs of a host. It is made once and kept as `ip netns` keeps its own, by
 * mounts: of the four namespaces on files of a directory, which is mounted on itself because a
 * mount namespace can only be put where nobody else is shown it.
 */
#include "jailer/jail_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
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

/*
 * No System V object and no message queue can be made in this ipc namespace, not even with its
 * files. A kernel without one of them has nothing to forbid. False: the host does not let us.
 */
static bool close_ipc(void)
{
	static const struct {
		const char *path, *value;
	} limits[] = {
		{"/proc/sys/kernel/shmmni", "0"},
		{"/proc/sys/kernel/msgmni", "0"},
		{"/proc/sys/kernel/sem", "0 0 0 0"},
		{"/proc/sys/fs/mqueue/queues_max", "0"},
	};
	bool ok = true;

	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		_cleanup_fd_ int fd = open(limits[i].path, O_WRONLY | O_CLOEXEC);
		size_t len = strlen(limits[i].value);

		if (fd >= 0)
			ok &= write(fd, limits[i].value, len) == (ssize_t)len;
		else
			ok &= errno == ENOENT;
	}
	return ok;
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

/* @ret_closed: no VM can leave anything in there, so it may be kept. */
static int make(struct jail_void *ret, bool *ret_closed, struct err *e)
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
	*ret_closed = !r && close_ipc();
	/* On top of a directory that is certainly there. */
	if (!r)
		r = jail_empty_root("/proc", e);
	if (!r)
		r = open_all(ret, ns_fd, e);
	if (!r)
		r = come_back(&home, root_fd, cwd_fd, e);
	jail_close_void(&home);
	if (r)
		jail_close_void(ret);
	return r;
}

/* ---- one for all commands ---- */

/* Root's own directory, or -1. */
static int open_dir(const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || st.st_uid != 0 || (st.st_mode & 022))
		return -1;
	return fd_steal(&fd);
}

/* What somebody has kept there. Files on which nothing is mounted are no namespaces. */
static bool open_kept(const char *path, struct jail_void *ret)
{
	_cleanup_fd_ int dir = open_dir(path);

	*ret = JAIL_VOID_NONE;
	for (unsigned i = 0; i < JAIL_VOID_COUNT; i++) {
		if (dir >= 0)
			ret->fd[i] = openat(dir, spaces[i].name,
				O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (ret->fd[i] < 0 || ioctl(ret->fd[i], NS_GET_NSTYPE) != spaces[i].type) {
			jail_close_void(ret);
			return false;
		}
	}
	return true;
}

static bool keep_one(const char *path, const char *name, int ns_fd)
{
	char from[32], to[PATH_MAX];
	_cleanup_fd_ int fd = -1;

	snprintf(from, sizeof(from), "/proc/self/fd/%d", ns_fd);
	if (snprintf(to, sizeof(to), "%s/%s", path, name) >= (int)sizeof(to))
		return false;
	fd = open(to, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd >= 0 && mount(from, to, NULL, MS_BIND, NULL) == 0;
}

/*
 * Who is about to start a VM does not wait for others who do the same: it does without keeping. All
 * or nothing is kept, also where somebody died half way, or where we are in a copy of a mount
 * namespace, which lacks the mount namespaces of the original.
 */
static void keep(const char *path, struct jail_void *v)
{
	_cleanup_fd_ int dir = -1;
	struct jail_void other;
	bool ok;

	if (mkdir(path, 0700) && errno != EEXIST)
		return;
	dir = open_dir(path);
	if (dir < 0 || flock(dir, LOCK_EX | LOCK_NB))
		return;
	if (open_kept(path, &other)) { /* since we looked */
		jail_close_void(v);
		*v = other;
		return;
	}
	for (unsigned i = 0; i < 16 && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0; i++)
		;
	ok = mount(path, path, NULL, MS_BIND, NULL) == 0 &&
		mount(NULL, path, NULL, MS_PRIVATE, NULL) == 0;
	for (unsigned i = 0; ok && i < JAIL_VOID_COUNT; i++)
		ok = keep_one(path, spaces[i].name, v->fd[i]);
	if (!ok)
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

int jail_get_void(const char *path, struct jail_void *ret, struct err *e)
{
	bool closed = false;
	int r;

	if (open_kept(path, ret))
		return 0;
	r = make(ret, &closed, e);
	if (!r && closed)
		keep(path, ret);
	return r;
}
