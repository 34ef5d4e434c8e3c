/* SPDX-License-Identifier: Apache-2.0 */
/* io.c - see io.h */
#include "monitor/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

int io_reopen(int fd, int flags)
{
	char path[32];
	int ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ret = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return ret >= 0 ? ret : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}
