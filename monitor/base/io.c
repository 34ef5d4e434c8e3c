/* SPDX-License-Identifier: Apache-2.0 */
/* io.c - see io.h */
#include "monitor/base/io.h"

#include <errno.h>
#include <unistd.h>

int io_read_at(int fd, void *dst, u64 len, u64 off)
{
	for (u64 done = 0; done < len;) {
		ssize_t n = pread(fd, (u8 *)dst + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		done += (u64)n;
	}
	return 0;
}

int io_write(int fd, const void *src, u64 len)
{
	for (u64 done = 0; done < len;) {
		ssize_t n = write(fd, (const u8 *)src + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (u64)n;
	}
	return 0;
}
