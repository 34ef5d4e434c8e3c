/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kcache_dir.c - the directory of the kernel cache: where it is, whether it can be trusted, and
 * what goes when it is full.
 *
 * Whoever can write the directory decides what kernels boot. So it must be owned by the user we run
 * as, and nobody else may write it; with sudo and a HOME that is still the caller's, that is not
 * so, and then there is no cache. Where nobody named one, it is made only below a directory of
 * which the same is true.
 *
 * One process writes at a time, and the others do without rather than wait: so there is never more
 * than is allowed, and a temporary file that is there while we write is one of a writer that died.
 * Only names that are ours to the last character are ever removed: an operator may name a directory
 * with other things in it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/kcache_int.h"

#define DIR_FLAGS      (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define ROOT_DIR       "/var/cache/kelvin"
#define LISTED_MAX     512u /* files looked at in one pass of cleaning up */
#define PASSES_MAX     64u

bool kcache_trusts(const struct stat *st)
{
	return st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* Whether a directory may be made at @path: its parent is ours alone. */
static bool may_make(const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX] = ".";
	struct stat st;

	if (slash == path)
		snprintf(parent, sizeof(parent), "/");
	else if (slash)
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
	return stat(parent, &st) == 0 && kcache_trusts(&st);
}

/* With @made the directory is made, one level. */
static int open_dir(const char *path, bool make, struct err *e)
{
	_cleanup_fd_ int fd = open(path, DIR_FLAGS);
	struct stat st;

	if (fd < 0 && errno == ENOENT && make) {
		if (mkdir(path, 0700) && errno != EEXIST)
			return err_sys(e, errno, "cannot make the kernel cache %s", path);
		fd = open(path, DIR_FLAGS);
	}
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "cannot open the kernel cache %s", path);
	if (!kcache_trusts(&st))
		return err_set(e, -EPERM, "the kernel cache %s is not used: it belongs to another "
			"user, or others can write it", path);
	return fd_steal(&fd);
}

/* $XDG_CACHE_HOME/kelvin and so on; -1 where there is no such place for us. */
static int open_default(void)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char parent[PATH_MAX], path[PATH_MAX];
	int n;

	if (xdg && xdg[0] == '/')
		n = snprintf(parent, sizeof(parent), "%s", xdg);
	else if (home && home[0] == '/')
		n = snprintf(parent, sizeof(parent), "%s/.cache", home);
	else if (geteuid() == 0)
		return open_dir(ROOT_DIR, may_make(ROOT_DIR), NULL);
	else
		return -1;
	if (n >= PATH_MAX || snprintf(path, sizeof(path), "%s/kelvin", parent) >= PATH_MAX)
		return -1;
	if (access(parent, F_OK) && may_make(parent))
		mkdir(parent, 0700);
	return open_dir(path, may_make(path), NULL);
}

int kcache_open(const char *where, int *ret, struct err *e)
{
	int fd;

	*ret = -1;
	if (strcmp(where, KCACHE_OFF) == 0)
		return 0;
	if (!where[0]) {
		fd = open_default();
		*ret = fd < 0 ? -1 : fd;
		return 0;
	}
	fd = open_dir(where, true, e);
	if (fd < 0)
		return fd;
	*ret = fd;
	return 0;
}

void kcache_name(char *out, const u8 *byte, size_t len, const char *suffix)
{
	must(2 * len + strlen(suffix) < KCACHE_NAME_MAX);
	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", byte[i]);
	snprintf(out + 2 * len, KCACHE_NAME_MAX - 2 * len, "%s", suffix);
}

int kcache_lock(int dir_fd)
{
	_cleanup_fd_ int fd = openat(dir_fd, LOCK_NAME,
		O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !kcache_trusts(&st))
		return -1;
	return flock(fd, LOCK_EX | LOCK_NB) ? -1 : fd_steal(&fd);
}

int kcache_temp(int dir_fd, char out[KCACHE_NAME_MAX])
{
	u64 r;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		return -1;
	snprintf(out, KCACHE_NAME_MAX, TEMP_PREFIX "%016llx", (unsigned long long)r);
	return openat(dir_fd, out, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

bool kcache_publish(int dir_fd, const char *temp, const char *name, bool ok)
{
	if (ok && renameat(dir_fd, temp, dir_fd, name) == 0)
		return true;
	unlinkat(dir_fd, temp, 0);
	return false;
}

int kcache_open_file(int dir_fd, const char *name, int flags, u64 min, u64 max, struct stat *st)
{
	_cleanup_fd_ int fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st) || !S_ISREG(st->st_mode) || !kcache_trusts(st))
		return -1;
	if (st->st_nlink > 1 || (u64)st->st_size < min || (u64)st->st_size > max)
		return -1;
	return fd_steal(&fd);
}

/* ---- cleaning up ---- */

struct listed {
	char name[KCACHE_NAME_MAX];
	bool is_kernel;
	u64 bytes;
	struct timespec used;
};

/* @digits hexadecimal ones between @prefix and @suffix, and nothing else. */
static bool is_name(const char *name, const char *prefix, size_t digits, const char *suffix)
{
	size_t skip = strlen(prefix);

	return strncmp(name, prefix, skip) == 0 &&
	       strspn(name + skip, "0123456789abcdef") == digits &&
	       strcmp(name + skip + digits, suffix) == 0;
}

static bool list_one(int dir_fd, const char *name, struct listed *l)
{
	bool temp = is_name(name, TEMP_PREFIX, 2 * sizeof(u64), "");
	struct stat st;

	l->is_kernel = is_name(name, "", 2 * KCACHE_KEY_LEN, KERNEL_SUFFIX);
	if (!l->is_kernel && !temp && !is_name(name, "", 2 * RECORD_HASH_LEN, RECORD_SUFFIX))
		return false;
	if (temp) {
		unlinkat(dir_fd, name, 0); /* its writer died */
		return false;
	}
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	must(strlen(name) < sizeof(l->name));
	memcpy(l->name, name, strlen(name) + 1);
	l->bytes = (u64)st.st_size;
	l->used = l->is_kernel ? st.st_atim : st.st_mtim;
	return true;
}

static int newest_first(const void *a, const void *b)
{
	const struct listed *x = a, *y = b;

	if (x->used.tv_sec != y->used.tv_sec)
		return x->used.tv_sec < y->used.tv_sec ? 1 : -1;
	return x->used.tv_nsec < y->used.tv_nsec ? 1 : x->used.tv_nsec > y->used.tv_nsec ? -1 : 0;
}

static void drop_excess(int dir_fd, const struct listed *l, unsigned n, u64 incoming)
{
	unsigned kernels = incoming ? 1 : 0, records = 0;
	u64 bytes = incoming;

	for (unsigned i = 0; i < n; i++) {
		bool drop;

		if (l[i].is_kernel) {
			bytes += l[i].bytes;
			drop = ++kernels > KCACHE_ENTRIES || bytes > KCACHE_BYTES;
		} else {
			drop = ++records > RECORDS_MAX;
		}
		if (drop)
			unlinkat(dir_fd, l[i].name, 0);
	}
}

/* Fills @l with as many files of ours as fit; returns how many. */
static unsigned list_all(int dir_fd, struct listed *l)
{
	int fd = openat(dir_fd, ".", DIR_FLAGS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;
	unsigned n = 0;

	if (!dir) {
		fd_close(&fd);
		return 0;
	}
	while (n < LISTED_MAX && (ent = readdir(dir)))
		n += list_one(dir_fd, ent->d_name, &l[n]);
	closedir(dir);
	return n;
}

void kcache_prune(int dir_fd, u64 incoming)
{
	_cleanup_free_ struct listed *l = calloc(LISTED_MAX, sizeof(*l));
	unsigned n = LISTED_MAX;

	/* A full list means that there may be more than were looked at. */
	for (unsigned i = 0; l && n == LISTED_MAX && i < PASSES_MAX; i++) {
		n = list_all(dir_fd, l);
		qsort(l, n, sizeof(*l), newest_first);
		drop_excess(dir_fd, l, n, incoming);
	}
}
