/* SPDX-License-Identifier: Apache-2.0 */
/* sys.c - the real system calls behind sys.h */
#include "monitor/base/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static int host_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return openat(dirfd, path, flags, mode);
}

/* syscalls[W]: openat, mkdirat, unlinkat, renameat2, pread64, pwrite64, ftruncate
 * syscalls[W]: fdatasync, fsync, fstat, newfstatat, flock, close - as written by a snapshot */
const struct sys_ops sys_host = {
	.openat = host_openat,
	.mkdirat = mkdirat,
	.unlinkat = unlinkat,
	.renameat2 = renameat2,
	.pwrite = pwrite,
	.pread = pread,
	.ftruncate = ftruncate,
	.fdatasync = fdatasync,
	.fsync = fsync,
	.fstat = fstat,
	.flock = flock,
	.close = close,
};
