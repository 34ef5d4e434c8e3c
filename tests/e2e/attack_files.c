/* SPDX-License-Identifier: Apache-2.0 */
/* attack_files.c - files, directories, devices, mounts; by path and by descriptor. See attack.h. */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS_MAX    2048
#define MS_NOTHING 0ul
#define DETACH     2

static const char *open_secret(void)
{
	return GOT_IF(open(prize.secret, O_RDONLY | O_CLOEXEC), "a file");
}

static const char *open_root(void)
{
	return GOT_IF(open(prize.root, O_RDWR | O_CLOEXEC), "root's file");
}

static const char *open_relative(void)
{
	return GOT_IF(open("../../../../../../etc/passwd", O_RDONLY | O_CLOEXEC), "passwd");
}

static const char *openat_up(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (openat(fd, "..", O_RDONLY | O_CLOEXEC) >= 0 ||
			openat(fd, "x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0)
			return "what is beside an open file";
	errno = ENOTDIR;
	return NULL;
}

static const char *openat2_root(void)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC};
	long fd = syscall(SYS_openat2, AT_FDCWD, "/proc/1/root", &how, sizeof(how));

	return GOT_IF(fd, "a root");
}

static const char *proc_mem(void)
{
	return GOT_IF(open("/proc/self/mem", O_RDWR | O_CLOEXEC), "its own memory");
}

static const char *proc_one(void)
{
	return GOT_IF(open("/proc/1/environ", O_RDONLY | O_CLOEXEC), "init's environment");
}

static const char *sysrq(void)
{
	return GOT_IF(open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC), "sysrq");
}

static const char *list_root(void)
{
	char entries[1024];
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return NULL;
	n = syscall(SYS_getdents64, fd, entries, sizeof(entries));
	if (n > 48) /* more than "." and ".." */
		return "names of files";
	errno = ENOENT;
	return NULL;
}

static const char *create(void)
{
	return GOT_IF(open("/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), "a file of its own");
}

static const char *open_tmpfile(void)
{
	return GOT_IF(open("/", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "a nameless file");
}

static const char *make_dir(void)
{
	return GOT_IF(mkdir("/x", 0700), "a directory");
}

static const char *make_link(void)
{
	return GOT_IF(symlink("/", "/x"), "a link");
}

static const char *mknod_mem(void)
{
	return GOT_IF(mknod("/mem", S_IFCHR | 0600, makedev(1, 1)), "all memory");
}

static const char *mknod_kvm(void)
{
	return GOT_IF(mknod("/kvm", S_IFCHR | 0600, makedev(10, 232)), "kvm");
}

static const char *mknod_disk(void)
{
	return GOT_IF(mknod("/disk", S_IFBLK | 0600, makedev(254, 0)), "the host's disk");
}

static const char *read_status(void)
{
	struct stat st;

	return GOT_IF(stat(prize.secret, &st), "that a file exists");
}

static const char *change_mode(void)
{
	return GOT_IF(chmod(prize.secret, 0777), "a file's mode");
}

static const char *change_root_mode(void)
{
	return GOT_IF(chmod("/", 0777), "the root's mode");
}

static const char *change_owner(void)
{
	return GOT_IF(chown(prize.root, getuid(), getgid()), "root's file");
}

static const char *cut(void)
{
	return GOT_IF(truncate(prize.secret, 0), "a file's content");
}

static const char *remove_file(void)
{
	return GOT_IF(unlink(prize.secret), "a file's end");
}

static const char *move(void)
{
	return GOT_IF(rename(prize.secret, prize.root), "a file's name");
}

static const char *mount_tmpfs(void)
{
	return GOT_IF(syscall(SYS_mount, "none", "/", "tmpfs", MS_NOTHING, NULL), "a mount");
}

static const char *mount_proc(void)
{
	return GOT_IF(syscall(SYS_mount, "none", "/", "proc", MS_NOTHING, NULL), "/proc");
}

static const char *unmount(void)
{
	return GOT_IF(syscall(SYS_umount2, "/", DETACH), "what is below the root");
}

static const char *pivot(void)
{
	return GOT_IF(syscall(SYS_pivot_root, ".", "."), "another root");
}

static const char *change_root(void)
{
	return GOT_IF(chroot("/"), "another root");
}

static const char *fs_open(void)
{
	return GOT_IF(syscall(SYS_fsopen, "tmpfs", 0), "a file system");
}

static const char *tree_open(void)
{
	return GOT_IF(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE), "a copy of a mount");
}

static const char *mount_move(void)
{
	return GOT_IF(syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/", 0), "a mount");
}

static const char *mount_attr(void)
{
	struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};

	return GOT_IF(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof(attr)),
		"a root to write to");
}

static const char *swap_on(void)
{
	return GOT_IF(syscall(SYS_swapon, "/x", 0), "swap");
}

static const char *by_handle(void)
{
	struct {
		struct file_handle h;
		unsigned char bytes[8];
	} h = {.h = {.handle_bytes = 8, .handle_type = 1}, .bytes = {2}};

	for (int fd = 0; fd < FDS_MAX; fd++)
		if (syscall(SYS_open_by_handle_at, fd, &h, O_RDONLY) >= 0)
			return "a file by its number";
	return NULL;
}

static const char *watch_files(void)
{
	return GOT_IF(syscall(SYS_fanotify_init, 0, 0), "news of others' files");
}

static const char *change_dir(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (fchdir(fd) == 0)
			return "a directory";
	return NULL;
}

static const char *set_ns(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (setns(fd, 0) == 0)
			return "a namespace";
	return NULL;
}

const struct attack attacks_on_files[] = {
	{"open", open_secret},
	{"open-root", open_root},
	{"open-relative", open_relative},
	{"openat-up", openat_up},
	{"openat2", openat2_root},
	{"proc-mem", proc_mem},
	{"proc-1", proc_one},
	{"sysrq", sysrq},
	{"list-root", list_root},
	{"create", create},
	{"tmpfile", open_tmpfile},
	{"mkdir", make_dir},
	{"symlink", make_link},
	{"mknod-mem", mknod_mem},
	{"mknod-kvm", mknod_kvm},
	{"mknod-disk", mknod_disk},
	{"stat", read_status},
	{"chmod", change_mode},
	{"chmod-root", change_root_mode},
	{"chown", change_owner},
	{"truncate", cut},
	{"unlink", remove_file},
	{"rename", move},
	{"mount-tmpfs", mount_tmpfs},
	{"mount-proc", mount_proc},
	{"umount", unmount},
	{"pivot-root", pivot},
	{"chroot", change_root},
	{"fsopen", fs_open},
	{"open-tree", tree_open},
	{"move-mount", mount_move},
	{"mount-setattr", mount_attr},
	{"swapon", swap_on},
	{"open-by-handle", by_handle},
	{"fanotify", watch_files},
	{"fchdir", change_dir},
	{"setns", set_ns},
	{NULL, NULL},
};
