/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - see log.h */
#include "monitor/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/clock.h"

#define WINDOW_NS 5000000000ull
#define WINDOW_LINES 10

static int log_fd = -1;

void log_to(int fd)
{
	__atomic_store_n(&log_fd, fd, __ATOMIC_RELAXED);
}

/*
 * "2026-11-23T06:50:46.685594Z". By hand, because gmtime() reads a time zone file on its first
 * call, in a process whose first milliseconds count and that may not see /etc at all.
 */
static size_t timestamp(char *out, size_t cap)
{
	struct timespec ts;
	s64 days, era, year_of_era, day_of_year, month;
	u32 day_of_era, sec;

	clock_gettime(CLOCK_REALTIME, &ts);
	/* Days to a civil date, with years that begin in March and eras of 400 years. */
	days = ts.tv_sec / 86400 + 719468;
	sec = (u32)(ts.tv_sec % 86400);
	era = days / 146097;
	day_of_era = (u32)(days - era * 146097);
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) /
		      365;
	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	month = (5 * day_of_year + 2) / 153;
	return (size_t)snprintf(out, cap, "%04lld-%02lld-%02lldT%02u:%02u:%02u.%06ldZ ",
		(long long)(year_of_era + era * 400 + (month >= 10)),
		(long long)(month < 10 ? month + 3 : month - 9),
		(long long)(day_of_year - (153 * month + 2) / 5 + 1), sec / 3600, sec / 60 % 60,
		sec % 60, ts.tv_nsec / 1000);
}

void log_line(const char *fmt, ...)
{
	int fd = __atomic_load_n(&log_fd, __ATOMIC_RELAXED);
	char line[1024];
	va_list ap;
	size_t n;
	int k;

	if (fd < 0)
		return;
	n = timestamp(line, sizeof(line));
	va_start(ap, fmt);
	k = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (k > 0)
		n += (size_t)k;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* syscalls[LV]: write */
	if (write(fd, line, n) < 0)
		return; /* a full disk must not end a VM */
}

bool log_allowed(struct log_site *site)
{
	u64 now = monotonic_ns();

	/* Two threads may race here; the worst is a line too many. */
	if (now - __atomic_load_n(&site->window_ns, __ATOMIC_RELAXED) > WINDOW_NS) {
		__atomic_store_n(&site->window_ns, now, __ATOMIC_RELAXED);
		__atomic_store_n(&site->count, 0, __ATOMIC_RELAXED);
	}
	return __atomic_fetch_add(&site->count, 1, __ATOMIC_RELAXED) < WINDOW_LINES;
}
