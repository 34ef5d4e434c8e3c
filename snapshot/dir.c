/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir.c - the temporary directory of a snapshot, and how it becomes the snapshot.
 *
 * Life of a snapshot called NAME, in PARENT:
 *  1. mkdir PARENT/.NAME.tmp.PID.N and lock it (flock). The lock tells a maker at work from one
 *     that died: the kernel drops it with the process, however that ended. PID is the maker's, and
 *     so is the lock, wherever the writer is.
 *  2. Empty files are made in it; the writer fills and syncs each of them.
 *  3. fsync of the directory itself, then one rename: RENAME_NOREPLACE, or RENAME_EXCHANGE with an
 *     older snapshot when the caller forces. At no instant is there no whole snapshot called NAME
 *     if there was one before. Then fsync of PARENT.
 *  4. What the exchange put at the temporary name, the older snapshot, is removed. VMs that have
 *     its memory mapped keep the inode, and never see the new bytes.
 * A failure before the end of 3 undoes what was done; a death leaves a temporary directory that
 * nobody locks, and the next writer of the same name sweeps it.
 *
 * We delete only files whose names we write ourselves, and a directory only when that empties it:
 * whatever else somebody keeps there makes us refuse, or stays.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "snapshot/snap_int.h"

#define TMP_ATTEMPTS 64u
#define DIR_FLAGS    (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Every file a snapshot directory may hold, in this version and in those before. */
static const char *const our_files[] = {SNAP_STATE_FILE, SNAP_MEMORY_FILE, SNAP_HOST_FILE};

struct snap_dir {
	const struct sys_ops *sys;
	char *path; /* as the caller named the snapshot, for messages; owned */
	bool force; /* an older snapshot of that name may be replaced */
	int parent_fd;
	int tmp_fd; /* -1 once published; holds the lock */
	char name[NAME_MAX + 1];
	char tmp_name[NAME_MAX + 1];
};

static bool is_ours(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(our_files); i++)
		if (!strcmp(name, our_files[i]))
			return true;
	return snap_extra_name(name);
}

static int open_at(const struct snap_dir *d, int dirfd, const char *name, int flags)
{
	return (int)TEMP_FAILURE_RETRY(d->sys->openat(dirfd, name, flags, 0));
}

static void close_fd(const struct snap_dir *d, int *fd)
{
	if (*fd >= 0)
		d->sys->close(*fd);
	*fd = -1;
}

static int fail(const struct snap_dir *d, struct err *e, int errnum, const char *what)
{
	return err_sys(e, errnum, "snapshot %.256s: %s", d->path, what);
}

/* Files that travel with a snapshot have no fixed names. */
static void remove_extra(const struct snap_dir *d, int fd)
{
	int list_fd = open_at(d, fd, ".", DIR_FLAGS);
	DIR *list = list_fd < 0 ? NULL : fdopendir(list_fd);
	struct dirent *ent;

	if (!list)
		close_fd(d, &list_fd);
	while (list && (ent = readdir(list)))
		if (snap_extra_name(ent->d_name))
			(void)TEMP_FAILURE_RETRY(d->sys->unlinkat(fd, ent->d_name, 0));
	if (list)
		closedir(list);
}

/* Removes our files from the directory open at @fd, and @name if that leaves it empty. */
static void remove_dir(const struct snap_dir *d, int fd, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(our_files); i++)
		(void)TEMP_FAILURE_RETRY(d->sys->unlinkat(fd, our_files[i], 0));
	remove_extra(d, fd);
	(void)TEMP_FAILURE_RETRY(d->sys->unlinkat(d->parent_fd, name, AT_REMOVEDIR));
}

/* Splits the path into the parent, which is opened, and the name. */
static int open_parent(struct snap_dir *d, struct err *e)
{
	size_t len = strlen(d->path), start;
	_cleanup_free_ char *parent = NULL;

	while (len > 1 && d->path[len - 1] == '/')
		len--;
	for (start = len; start && d->path[start - 1] != '/'; start--)
		;
	if (len == start || (len - start == 1 && d->path[start] == '.') ||
		(len - start == 2 && !strncmp(d->path + start, "..", 2)))
		return err_set(e, -EINVAL, "snapshot %.256s: this cannot be a snapshot's name",
			d->path);
	/* Room for ".NAME.tmp.PID.N". */
	if (len - start > NAME_MAX - 32)
		return fail(d, e, ENAMETOOLONG, "cannot use this name");
	memcpy(d->name, d->path + start, len - start);
	parent = start ? strndup(d->path, start) : strdup(".");
	if (!parent)
		return fail(d, e, ENOMEM, "cannot open its parent directory");
	d->parent_fd = (int)TEMP_FAILURE_RETRY(
		d->sys->openat(AT_FDCWD, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
	if (d->parent_fd < 0)
		return fail(d, e, errno, "cannot open its parent directory");
	return 0;
}

/* Whether the directory open at @fd holds our files alone; an error names the first other one.
 * syscalls[W]: getdents64, fcntl(F_GETFL), fcntl(F_SETFD) */
static int check_files(const struct snap_dir *d, int fd, bool *empty, struct err *e)
{
	int list_fd = open_at(d, fd, ".", DIR_FLAGS);
	struct dirent *ent;
	DIR *list;
	int r = 0;

	list = list_fd < 0 ? NULL : fdopendir(list_fd);
	if (!list) {
		r = fail(d, e, errno, "cannot read the directory to be replaced");
		close_fd(d, &list_fd);
		return r;
	}
	*empty = true;
	for (errno = 0; !r && (ent = readdir(list)); errno = 0) {
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, ".."))
			continue;
		*empty = false;
		if (!is_ours(ent->d_name))
			r = err_set(e, -EEXIST,
				"snapshot %.256s: holds %.64s, which is no part of a snapshot; "
				"not replaced", d->path, ent->d_name);
	}
	if (!r && errno)
		r = fail(d, e, errno, "cannot read the directory to be replaced");
	closedir(list);
	return r;
}

/* Whether `state` in the directory open at @fd starts as ours does, damaged or not. */
static int check_magic(const struct snap_dir *d, int fd, struct err *e)
{
	int state = open_at(d, fd, SNAP_STATE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char magic[8];
	ssize_t n = -1;

	if (state >= 0)
		n = TEMP_FAILURE_RETRY(d->sys->pread(state, magic, sizeof(magic), 0));
	close_fd(d, &state);
	if (n != (ssize_t)sizeof(magic) || memcmp(magic, SNAP_MAGIC, sizeof(magic)) != 0)
		return err_set(e, -EEXIST,
			"snapshot %.256s: this directory is no kelvin snapshot; not replaced",
			d->path);
	return 0;
}

/*
 * Whether something has the snapshot's name already. An error unless it is a snapshot, or an empty
 * directory, and may be replaced.
 */
static int check_target(const struct snap_dir *d, bool *exists, struct err *e)
{
	bool empty = false;
	int fd = open_at(d, d->parent_fd, d->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int r;

	*exists = fd >= 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(d, e, errno, "cannot look at it");
	close_fd(d, &fd);
	if (!d->force)
		return err_set(e, -EEXIST, "snapshot %.256s: exists already", d->path);
	fd = open_at(d, d->parent_fd, d->name, DIR_FLAGS);
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return err_set(e, -EEXIST, "snapshot %.256s: is no directory; not replaced",
			d->path);
	if (fd < 0)
		return fail(d, e, errno, "cannot open the directory to be replaced");
	r = check_files(d, fd, &empty, e);
	if (!r && !empty)
		r = check_magic(d, fd, e);
	close_fd(d, &fd);
	return r;
}

/* Takes the lock of a writer at work. -1 and EWOULDBLOCK where somebody else has it. */
static int lock_dir(const struct snap_dir *d, int fd)
{
	return (int)TEMP_FAILURE_RETRY(d->sys->flock(fd, LOCK_EX | LOCK_NB));
}

/* Whether @name is a temporary directory's for the same snapshot: .NAME.tmp.PID.N */
static bool is_tmp_name(const struct snap_dir *d, const char *name)
{
	const char *digits = "0123456789.";
	size_t len = strlen(d->name);

	return name[0] == '.' && !strncmp(name + 1, d->name, len) &&
		!strncmp(name + 1 + len, ".tmp.", 5) &&
		name[len + 6] && !name[len + 6 + strspn(name + len + 6, digits)];
}

/*
 * Removes what dead writers of this name left. Where that fails nothing is lost but space, and the
 * next writer tries again.
 */
static void sweep(const struct snap_dir *d)
{
	int list_fd = open_at(d, d->parent_fd, ".", DIR_FLAGS);
	struct dirent *ent;
	DIR *list;

	list = list_fd < 0 ? NULL : fdopendir(list_fd);
	if (!list) {
		close_fd(d, &list_fd);
		return;
	}
	while ((ent = readdir(list))) {
		int fd;

		if (!is_tmp_name(d, ent->d_name))
			continue;
		fd = open_at(d, d->parent_fd, ent->d_name, DIR_FLAGS);
		if (fd >= 0 && !lock_dir(d, fd))
			remove_dir(d, fd, ent->d_name);
		close_fd(d, &fd);
	}
	closedir(list);
}

/*
 * Locks the temporary directory just made. -EAGAIN where a sweeper came between mkdir and lock:
 * then the directory is lost, or about to be.
 */
static int claim_tmp(struct snap_dir *d, struct err *e)
{
	struct stat st;

	d->tmp_fd = open_at(d, d->parent_fd, d->tmp_name, DIR_FLAGS);
	if (d->tmp_fd < 0)
		return errno == ENOENT ? -EAGAIN
				       : fail(d, e, errno, "cannot open its temporary directory");
	if (lock_dir(d, d->tmp_fd)) {
		if (errno == EWOULDBLOCK)
			return -EAGAIN;
		/* A file system without locks: nobody can sweep there, so nobody needs one. */
		if (errno != EBADF && errno != ENOLCK && errno != EOPNOTSUPP)
			return fail(d, e, errno, "cannot lock its temporary directory");
	}
	if (d->sys->fstat(d->tmp_fd, &st))
		return fail(d, e, errno, "cannot look at its temporary directory");
	return st.st_nlink ? 0 : -EAGAIN;
}

static int make_tmp(struct snap_dir *d, struct err *e)
{
	for (unsigned n = 0; n < TMP_ATTEMPTS; n++) {
		int r;

		/* Processes of different pid namespaces may share a number; N tells them apart. */
		snprintf(d->tmp_name, sizeof(d->tmp_name), ".%.*s.tmp.%d.%u", NAME_MAX - 32,
			d->name, (int)getpid(), n);
		if (TEMP_FAILURE_RETRY(d->sys->mkdirat(d->parent_fd, d->tmp_name, 0700))) {
			if (errno == EEXIST)
				continue;
			return fail(d, e, errno, "cannot make its temporary directory");
		}
		r = claim_tmp(d, e);
		if (r == -EAGAIN) {
			close_fd(d, &d->tmp_fd);
			continue;
		}
		if (r)
			(void)d->sys->unlinkat(d->parent_fd, d->tmp_name, AT_REMOVEDIR);
		return r;
	}
	return fail(d, e, EEXIST, "cannot make its temporary directory");
}

static void free_dir(struct snap_dir *d)
{
	close_fd(d, &d->tmp_fd);
	close_fd(d, &d->parent_fd);
	free(d->path);
	free(d);
}

int snap_dir_create(struct snap_dir **ret, const struct sys_ops *sys, const char *path, bool force,
	struct err *e)
{
	struct snap_dir *d = calloc(1, sizeof(*d));
	char *copy = strdup(path);
	bool exists;
	int r;

	if (!d || !copy) {
		free(d);
		free(copy);
		return err_sys(e, ENOMEM, "cannot start a snapshot");
	}
	*d = (struct snap_dir){
		.sys = sys, .path = copy, .force = force, .parent_fd = -1, .tmp_fd = -1};
	r = open_parent(d, e);
	if (!r)
		r = check_target(d, &exists, e);
	if (!r) {
		sweep(d);
		r = make_tmp(d, e);
	}
	if (r)
		free_dir(d);
	else
		*ret = d;
	return r;
}

/*
 * Makes the file @name. Its descriptor, or an error. What nobody has to read is opened for writing
 * alone, so that its pages cannot be mapped: pinned (registered with an io_uring), those of a tmpfs
 * could be written when the file is closed and unmapped long since, unseen by snap_dir_let_go().
 */
static int make_file(struct snap_dir *d, const char *name, struct err *e)
{
	int mode = snap_extra_name(name) ? O_RDWR : O_WRONLY;
	int fd = (int)TEMP_FAILURE_RETRY(d->sys->openat(d->tmp_fd, name,
		mode | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
	if (fd < 0)
		return err_sys(e, errno, "snapshot %.256s: cannot create its file %s", d->path,
			name);
	return fd;
}

int snap_dir_file(struct snap_dir *d, const char *name, int *ret_fd, struct err *e)
{
	int fd;

	/* The writer, which may have chosen the name, must not write that one. */
	if (!is_ours(name) || !strcmp(name, SNAP_HOST_FILE))
		return err_set(e, -EINVAL, "snapshot %.256s: %.64s is no part of a snapshot",
			d->path, name);
	fd = make_file(d, name, e);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int snap_dir_host(struct snap_dir *d, const char *text, size_t len, struct err *e)
{
	int fd, r = 0;

	must(len && len <= SNAP_HOST_MAX);
	fd = make_file(d, SNAP_HOST_FILE, e);
	if (fd < 0)
		return fd;
	for (size_t at = 0; at < len && !r;) {
		ssize_t n = TEMP_FAILURE_RETRY(d->sys->pwrite(fd, text + at, len - at, (off_t)at));

		if (n <= 0)
			r = fail(d, e, n ? errno : EIO, "cannot write its file host");
		else
			at += (size_t)n;
	}
	if (!r && d->sys->fsync(fd))
		r = fail(d, e, errno, "cannot sync its file host");
	if (d->sys->close(fd) && !r)
		r = fail(d, e, errno, "cannot close its file host");
	return r;
}

/* These give a lease only where their server delegated the file, so that none means nothing. */
static bool leases_tell(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_type != NFS_SUPER_MAGIC &&
		(u32)fs.f_type != CIFS_SUPER_MAGIC && (u32)fs.f_type != SMB2_SUPER_MAGIC;
}

/*
 * A read lease is refused with EAGAIN while anybody has the file open for writing: by a descriptor,
 * on its way in a message, or by a shared mapping. Other errors say that the file system has no
 * leases; there, nobody can know.
 */
int snap_dir_let_go(const struct snap_dir *d, const char *name, struct err *e)
{
	int fd = open_at(d, d->tmp_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return err_sys(e, errno, "snapshot %.256s: cannot open its file %.64s", d->path,
			name);
	/* Should somebody open it while we have the lease: the default signal would end us. */
	if (!fcntl(fd, F_SETSIG, SIGURG) && !fcntl(fd, F_SETLEASE, F_RDLCK))
		fcntl(fd, F_SETLEASE, F_UNLCK);
	else if (errno == EAGAIN && leases_tell(fd))
		r = err_set(e, -EBUSY, "snapshot %.256s: its file %.64s is open for writing",
			d->path, name);
	close_fd(d, &fd);
	return r;
}

static int rename_tmp(const struct snap_dir *d, bool exchange)
{
	return (int)TEMP_FAILURE_RETRY(d->sys->renameat2(d->parent_fd, d->tmp_name, d->parent_fd,
		d->name, exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE));
}

/* Moves the temporary directory to the final name, or swaps the two. */
static int move_in(const struct snap_dir *d, bool exchange, struct err *e)
{
	if (!rename_tmp(d, exchange))
		return 0;
	if (errno == EEXIST)
		return err_set(e, -EEXIST, "snapshot %.256s: exists already", d->path);
	if (errno != EINVAL && errno != ENOSYS)
		return fail(d, e, errno, "cannot give it its name");
	if (exchange)
		return err_set(e, -EOPNOTSUPP,
			"snapshot %.256s: this file system cannot replace a directory in one step; "
			"remove the old snapshot first", d->path);
	/* A plain rename replaces no file, and of directories only an empty one. */
	if (TEMP_FAILURE_RETRY(
		    d->sys->renameat2(d->parent_fd, d->tmp_name, d->parent_fd, d->name, 0)))
		return fail(d, e, errno, "cannot give it its name");
	return 0;
}

/* The way back from move_in(). */
static int move_out(const struct snap_dir *d, bool exchange)
{
	if (exchange)
		return rename_tmp(d, true);
	return (int)TEMP_FAILURE_RETRY(
		d->sys->renameat2(d->parent_fd, d->name, d->parent_fd, d->tmp_name, 0));
}

/* Removes the older snapshot, which the exchange left at the temporary name. */
static void remove_old(const struct snap_dir *d)
{
	int fd = open_at(d, d->parent_fd, d->tmp_name, DIR_FLAGS);

	if (fd >= 0)
		remove_dir(d, fd, d->tmp_name);
	close_fd(d, &fd);
}

/* The rename, made durable or undone. */
static int switch_name(struct snap_dir *d, bool exchange, struct err *e)
{
	int r = move_in(d, exchange, e);

	if (r || !d->sys->fsync(d->parent_fd))
		return r;
	r = fail(d, e, errno, "cannot sync its parent directory");
	/* Where there is no way back the new snapshot has the name: whole, so leave it there. */
	if (move_out(d, exchange))
		close_fd(d, &d->tmp_fd);
	return r;
}

/*
 * Gives the temporary directory its final name and makes that durable. On failure the name is what
 * it was and the temporary directory remains.
 */
static int publish(struct snap_dir *d, struct err *e)
{
	bool exchange;
	int old_fd = -1, r;

	if (d->sys->fsync(d->tmp_fd))
		return fail(d, e, errno, "cannot sync its temporary directory");
	r = check_target(d, &exchange, e);
	if (r)
		return r;
	/* Locked, the old one is not swept while we may still need it back. */
	if (exchange)
		old_fd = open_at(d, d->parent_fd, d->name, DIR_FLAGS);
	if (old_fd >= 0)
		(void)lock_dir(d, old_fd);
	r = switch_name(d, exchange, e);
	close_fd(d, &old_fd);
	if (r)
		return r;
	/* From here on it is there for good; what goes wrong with the old one is swept later. */
	close_fd(d, &d->tmp_fd);
	if (exchange)
		remove_old(d);
	return 0;
}

int snap_dir_commit(struct snap_dir **dp, struct err *e)
{
	int r = publish(*dp, e);

	snap_dir_abort(dp);
	return r;
}

void snap_dir_abort(struct snap_dir **dp)
{
	struct snap_dir *d = *dp;

	if (!d)
		return;
	if (d->tmp_fd >= 0)
		remove_dir(d, d->tmp_fd, d->tmp_name);
	free_dir(d);
	*dp = NULL;
}
