/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmdir.c - the directory of a running VM: /run/kelvin/ID with pid, api.sock, vsock.sock and log.
 *
 * Who owns an id is decided by a lock on the pid file, which the kernel drops when who has it dies,
 * however it dies: the VM's keeper, or without a jail the VM. A directory whose pid file nobody has
 * locked is a leftover and may be taken over. Mode 0700, sockets 0600.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/machine_int.h"
#include "monitor/vmfind.h"
#include "virtio/vsock.h"

#define TAKE_TRIES 8u /* while a VM of the same name goes away under our hands */

static int just_ending(const char *id, struct err *e)
{
	return err_set(e, -EAGAIN, "a VM called \"%s\" is just ending: try again", id);
}

pid_t host_pid(void)
{
	char text[16];
	ssize_t n = readlink("/proc/self", text, sizeof(text) - 1); /* the host's /proc */

	if (n <= 0)
		return getpid() == 1 ? 0 : getpid(); /* a namespace's first process is not that */
	text[n] = 0;
	return (pid_t)strtol(text, NULL, 10);
}

/* Opens and locks the pid file. -EBUSY: another monitor holds it. -EAGAIN: it vanished. */
static int lock_pid(struct vmdir *d, const char *id, struct err *e)
{
	const pid_t pid = host_pid();
	_cleanup_fd_ int write_fd = -1;
	struct stat st;
	char text[16];
	int n;

	/* Kept for its lock alone: nobody in the jail is to write another number there. */
	d->pid_fd = openat(d->dir_fd, "pid", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->pid_fd < 0 && errno == ENOENT)
		return just_ending(id, e);
	if (d->pid_fd < 0)
		return err_sys(e, errno, "cannot make %s/pid", d->path);
	if (flock(d->pid_fd, LOCK_EX | LOCK_NB)) {
		fd_close(&d->pid_fd);
		return err_set(e, -EBUSY, "a VM called \"%s\" is running already (%s)", id,
			d->path);
	}
	if (fstat(d->pid_fd, &st) || st.st_nlink == 0) {
		fd_close(&d->pid_fd);
		return just_ending(id, e);
	}
	if (!pid) {
		unlinkat(d->dir_fd, "pid", 0);
		fd_close(&d->pid_fd);
		return err_set(e, -ENOENT, "cannot tell the VM's pid: the jail needs /proc");
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_fd = openat(d->dir_fd, "pid", O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
	if (write_fd < 0 || write(write_fd, text, (size_t)n) != n) {
		n = err_sys(e, errno, "cannot write %s/pid", d->path);
		unlinkat(d->dir_fd, "pid", 0);
		fd_close(&d->pid_fd);
		return n;
	}
	return 0;
}

/* A unix socket at DIR/api.sock, bound through a path short enough for any id we allow. */
static int listen_api(struct vmdir *d, const char *id, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = -1;
	int r = vm_path(sa.sun_path, sizeof(sa.sun_path), id, "api.sock", e);

	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, errno, "cannot make a socket");
	/* The directory is 0700, so there is no moment in which others could connect. */
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || chmod(sa.sun_path, 0600) ||
		listen(fd, 16))
		return err_sys(e, errno, "cannot listen on %s", sa.sun_path);
	d->api_fd = fd_steal(&fd);
	return 0;
}

static int listen_vsock(struct vmdir *d, const struct machine_spec *spec, struct err *e)
{
	char path[SOCK_PATH_MAX];
	struct stat st;
	int r = vm_path(path, sizeof(path), spec->id, "vsock.sock", e);

	if (r)
		return r;
	if (!spec->vsock_path[0])
		return vsock_listen(&d->vsock_fd, path, e);
	r = vsock_listen(&d->vsock_fd, spec->vsock_path, e);
	if (r)
		return r;
	if (lstat(spec->vsock_path, &st))
		return err_sys(e, errno, "cannot find %s again", spec->vsock_path);
	memcpy(d->vsock_path, spec->vsock_path, sizeof(d->vsock_path));
	d->vsock_dev = st.st_dev;
	d->vsock_ino = st.st_ino;
	if (symlink(spec->vsock_path, path))
		return err_sys(e, errno, "cannot make %s", path);
	return 0;
}

static int open_log(struct vmdir *d, const struct machine_spec *spec, struct err *e)
{
	int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

	if (spec->log_path[0])
		d->log_fd = open(spec->log_path, flags, 0600);
	else
		d->log_fd = openat(d->dir_fd, "log", flags | O_NOFOLLOW, 0600);
	if (d->log_fd < 0)
		return err_sys(e, errno, "cannot open the log %s",
			spec->log_path[0] ? spec->log_path : d->path);
	return 0;
}

static bool on_tmpfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/*
 * Run state belongs in RAM, and /run is a tmpfs wherever an init system set it up. In a bare
 * container it can be on disk, where each of the five names a VM makes costs half a millisecond of
 * journal. There /run/kelvin becomes a link to a directory of root's own in /dev/shm. That one is
 * world-writable, so what is found there is used only if nobody else can have made it.
 */
static bool link_to_shm(const char *base)
{
	static const char shm[] = "/dev/shm/kelvin";
	struct stat st;

	if (strcmp(base, "/run/kelvin") != 0 || on_tmpfs("/run") || !on_tmpfs("/dev/shm"))
		return false;
	if (mkdir(shm, 0700) && errno != EEXIST)
		return false;
	if (lstat(shm, &st) || !S_ISDIR(st.st_mode) || st.st_uid != 0 || (st.st_mode & 077))
		return false;
	return symlink(shm, base) == 0 || errno == EEXIST;
}

static bool made(const char *path, bool *ret_fresh)
{
	*ret_fresh = mkdir(path, 0700) == 0;
	return *ret_fresh || errno == EEXIST;
}

/* Makes the VM's directory, and the one above it where that is missing. One may be there already:
 * then it is not fresh. */
static int make_dir(const char *path, bool *ret_fresh, struct err *e)
{
	char base[SOCK_PATH_MAX];
	int r;

	if (made(path, ret_fresh))
		return 0;
	if (errno == ENOENT) {
		r = run_dir(base, sizeof(base), e);
		if (r)
			return r;
		if (!link_to_shm(base) && mkdir(base, 0755) && errno != EEXIST)
			return err_sys(e, errno,
				"cannot make %s (set KELVIN_RUN_DIR to use another place)", base);
		if (made(path, ret_fresh))
			return 0;
	}
	return err_sys(e, errno, "cannot make %s", path);
}

/* The directory, made and locked. -EAGAIN where it vanished meanwhile, with the VM that had it. */
static int take_dir(struct vmdir *d, const char *id, bool *ret_fresh, struct err *e)
{
	int r = make_dir(d->path, ret_fresh, e);

	if (r)
		return r;
	d->dir_fd = open(d->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (d->dir_fd >= 0)
		r = lock_pid(d, id, e);
	else
		r = errno == ENOENT ? just_ending(id, e)
				    : err_sys(e, errno, "cannot open %s", d->path);
	if (r) {
		fd_close(&d->dir_fd);
		rmdir(d->path); /* it is in use, or empty and of no use to anybody */
	}
	return r;
}

static void remove_leftovers(struct vmdir *d)
{
	vm_remove_linked_socket(d->dir_fd);
	for (unsigned i = 0; i + 1 < VM_FILES; i++)
		unlinkat(d->dir_fd, vm_files[i], 0);
}

int vmdir_create(struct vmdir *d, const struct machine_spec *spec, struct err *e)
{
	bool fresh = false;
	int r;

	*d = VMDIR_NONE;
	r = vm_path(d->path, sizeof(d->path), spec->id, NULL, e);
	if (r)
		return r;
	for (unsigned i = 0; i < TAKE_TRIES; i++) {
		r = take_dir(d, spec->id, &fresh, e);
		if (r != -EAGAIN)
			break;
	}
	if (r)
		return r;
	if (!fresh)
		remove_leftovers(d); /* of a dead VM of this name */
	r = listen_vsock(d, spec, e);
	if (!r)
		r = open_log(d, spec, e);
	if (!r)
		r = listen_api(d, spec->id, e);
	if (r)
		vmdir_remove(d, false, NULL);
	return r;
}

int vmdir_note_host(const struct vmdir *d, const struct machine_spec *spec, struct err *e)
{
	const struct host_share share = spec_share(spec);
	_cleanup_free_ char *text = NULL;
	_cleanup_fd_ int fd = -1;
	size_t len;

	if (d->dir_fd < 0)
		return 0;
	text = dev_host_text(&spec->dev, &share);
	if (!text)
		return err_sys(e, ENOMEM, "cannot write %s/" VM_DEVICES_FILE, d->path);
	len = strlen(text);
	unlinkat(d->dir_fd, VM_DEVICES_FILE, 0);
	fd = openat(d->dir_fd, VM_DEVICES_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && write(fd, text, len) == (ssize_t)len)
		return 0;
	err_sys(e, errno, "cannot write %s/" VM_DEVICES_FILE, d->path);
	unlinkat(d->dir_fd, VM_DEVICES_FILE, 0);
	return e->code;
}

int vmdir_find(struct vmdir *d, const char *id, struct err *e)
{
	int r;

	*d = VMDIR_NONE;
	r = vm_path(d->path, sizeof(d->path), id, NULL, e);
	if (r)
		return r;
	d->dir_fd = open(d->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (d->dir_fd < 0)
		return err_sys(e, errno, "cannot open %s", d->path);
	return 0;
}

void vmdir_let_go(struct vmdir *d)
{
	fd_close(&d->dir_fd);
	fd_close(&d->pid_fd); /* whoever has it can unlock it */
	d->vsock_path[0] = 0;
}

static void write_exit_report(struct vmdir *d, const char *json)
{
	_cleanup_fd_ int fd = openat(d->dir_fd, "exit.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, json, strlen(json)) < 0 || write(fd, "\n", 1) < 0)
		return; /* the log says it too */
}

/* Somebody may have removed our socket and made one of his own there. */
static void remove_vsock(struct vmdir *d)
{
	struct stat st;

	if (d->vsock_path[0] && lstat(d->vsock_path, &st) == 0 && st.st_dev == d->vsock_dev &&
		st.st_ino == d->vsock_ino)
		unlink(d->vsock_path);
	d->vsock_path[0] = 0;
}

/* syscalls[L]: unlinkat, unlink, rmdir, newfstatat, openat, write, close */
void vmdir_remove(struct vmdir *d, bool keep_log, const char *exit_json)
{
	remove_vsock(d); /* while we have the id: the next VM may want the same path */
	if (d->dir_fd >= 0) {
		if (keep_log && exit_json)
			write_exit_report(d, exit_json);
		for (unsigned i = 0; i < VM_FILES; i++) {
			if (keep_log && (strcmp(vm_files[i], "log") == 0 ||
						strcmp(vm_files[i], "exit.json") == 0 ||
						strcmp(vm_files[i], "console") == 0))
				continue;
			unlinkat(d->dir_fd, vm_files[i], 0);
		}
		if (!keep_log)
			rmdir(d->path);
	}
	fd_close(&d->api_fd);
	fd_close(&d->vsock_fd);
	fd_close(&d->log_fd);
	fd_close(&d->pid_fd);
	fd_close(&d->dir_fd);
}
