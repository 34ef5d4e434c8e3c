/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sys.h - the system calls that durable code makes, as a table tests can replace.
 *
 * Each behaves like the call it is named after: -1 and errno on failure.
 */
#ifndef KELVIN_BASE_SYS_H
#define KELVIN_BASE_SYS_H

#include <sys/stat.h>
#include <sys/types.h>

struct sys_ops {
	int (*openat)(int dirfd, const char *path, int flags, mode_t mode);
	int (*mkdirat)(int dirfd, const char *path, mode_t mode);
	int (*unlinkat)(int dirfd, const char *path, int flags);
	int (*renameat2)(int olddir, const char *old, int newdir, const char *new, unsigned flags);
	ssize_t (*pwrite)(int fd, const void *buf, size_t len, off_t off);
	ssize_t (*pread)(int fd, void *buf, size_t len, off_t off);
	int (*ftruncate)(int fd, off_t len);
	int (*fdatasync)(int fd);
	int (*fsync)(int fd);
	int (*fstat)(int fd, struct stat *st);
	int (*flock)(int fd, int op);
	int (*close)(int fd);
};

/* The real ones. */
extern const struct sys_ops sys_host;

#endif
