/* SPDX-License-Identifier: Apache-2.0 */
/* io.h - reading and writing all of a range, past signals and short calls; or without a wait. */
#ifndef KELVIN_BASE_IO_H
#define KELVIN_BASE_IO_H

#include "monitor/base/types.h"

/*
 * pread() of exactly @len bytes at @off, in bytes. Returns 0, -errno, or -ENODATA where the file
 * ends before that; what @dst then holds is undefined.
 */
int io_read_at(int fd, void *dst, u64 len, u64 off);

/*
 * write() of exactly @len bytes to @fd, which is a file or blocks. Returns 0 or -errno; part may
 * have been written then.
 */
int io_write(int fd, const void *src, u64 len);

/*
 * Opens anew, by @flags (O_RDONLY, O_WRONLY), what @fd is open of, so that O_NONBLOCK is of a
 * description of our own and not of everybody's who has it. A copy of @fd, which may block, where
 * that cannot be; -1 and errno if there cannot be one either. The caller's.
 */
int io_reopen(int fd, int flags);

#endif
