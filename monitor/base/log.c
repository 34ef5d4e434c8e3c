/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h */
#include "monitor/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WINDOW_NS 5000000000ull
#define WINDOW_LINES 10

static int log_fd = -1;

void log_to(int fd)
{
	__atomic_store_n(&log_fd, fd, __ATOMIC_RELAXED);
}

void log_line(const char *fmt, ...)
{
	int fd = __atomic_load_n(&log_fd, __ATOMIC_RELAXED);
	char line[1024];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	size_t n;
	int k;

	if (fd < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%06ldZ ", ts.tv_nsec / 1000);
	va_start(ap, fmt);
	k = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (k > 0)
		n += (size_t)k;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(fd, line, n) < 0)
		return; /* a full disk must not end a VM */
}

bool log_allowed(struct log_site *site)
{
	struct timespec ts;
	u64 now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
	/* Two threads may race here; the worst is a line too many. */
	if (now - __atomic_load_n(&site->window_ns, __ATOMIC_RELAXED) > WINDOW_NS) {
		__atomic_store_n(&site->window_ns, now, __ATOMIC_RELAXED);
		__atomic_store_n(&site->count, 0, __ATOMIC_RELAXED);
	}
	return __atomic_fetch_add(&site->count, 1, __ATOMIC_RELAXED) < WINDOW_LINES;
}
