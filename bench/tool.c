/* SPDX-License-Identifier: Apache-2.0 */
/* tool.c - what the small programs of bench/ share: how they end, the clock, round trips. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

const char *tool_name = "tool";

void die(const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "%s: ", tool_name);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (saved)
		fprintf(stderr, ": %s", strerror(saved));
	fputc('\n', stderr);
	exit(1);
}

void die_with_parent(void)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		die("PR_SET_PDEATHSIG");
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t number(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || value == 0) {
		errno = 0;
		die("'%s' is not a number above 0", text);
	}
	return value;
}

void write_all(int fd, const void *buf, size_t len)
{
	const char *at = buf;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("write");
		at += n;
		len -= (size_t)n;
	}
}

void read_all(int fd, void *buf, size_t len)
{
	char *at = buf;

	while (len) {
		ssize_t n = read(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ECONNRESET;
		if (n <= 0)
			die("read");
		at += n;
		len -= (size_t)n;
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Nearest rank, as bench/run does it. */
static uint64_t rank(const uint64_t *sorted, size_t count, size_t percent)
{
	size_t at = (count * percent + 99) / 100;

	return sorted[at ? at - 1 : 0];
}

void print_trips(uint64_t *ns, size_t count)
{
	qsort(ns, count, sizeof(*ns), compare);
	printf("{\"count\": %zu, \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64
	       ", \"max_ns\": %" PRIu64 "}\n",
		count, rank(ns, count, 50), rank(ns, count, 99), ns[count - 1]);
}

void print_bulk(uint64_t count, uint64_t bytes, uint64_t ns)
{
	printf("{\"count\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"ns\": %" PRIu64 "}\n", count,
		bytes, ns);
}
