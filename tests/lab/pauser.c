/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pauser.c - pauses and resumes a VM so often that starting a program each time would be too slow.
 *
 *   API_SOCKET HZ SECONDS
 *
 * Says at its end how often it did, and how long the slowest pause and resume took together. One
 * that comes late is done at once, and the ones missed meanwhile are not made up for.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/tool.h"

#define NS_PER_S 1000000000u

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		die("%s is too long for a socket", path);
	memcpy(addr.sun_path, path, strlen(path));
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("%s", path);
	return fd;
}

/* PATCH /vm, on the connection that is kept. */
static void bring_to(int fd, const char *state)
{
	char text[512];
	size_t len = 0;
	ssize_t got;
	int n = snprintf(text, sizeof(text),
		"PATCH /vm HTTP/1.1\r\nContent-Length: %zu\r\n\r\n{\"state\":\"%s\"}",
		strlen(state) + strlen("{\"state\":\"\"}"), state);

	write_all(fd, text, (size_t)n);
	do {
		got = read(fd, text + len, sizeof(text) - 1 - len);
		len += got > 0 ? (size_t)got : 0;
		text[len] = '\0';
	} while (got > 0 && !strstr(text, "\r\n\r\n"));
	errno = got < 0 ? errno : 0;
	if (strncmp(text, "HTTP/1.1 204 ", 13) != 0)
		die("%s: %s", state, text);
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

int main(int argc, char **argv)
{
	uint64_t period, begin, end, at, now, slowest = 0;
	unsigned count = 0;
	int fd;

	tool_name = "pauser";
	if (argc != 4)
		die("API_SOCKET HZ SECONDS");
	fd = connect_to(argv[1]);
	period = NS_PER_S / number(argv[2]);
	now = begin = at = now_ns();
	end = begin + number(argv[3]) * NS_PER_S;
	while (now < end) {
		uint64_t due = at + period;

		at = now > due ? now : due;
		sleep_until(at);
		now = now_ns();
		bring_to(fd, "Paused");
		bring_to(fd, "Resumed");
		count++;
		if (now_ns() - now > slowest)
			slowest = now_ns() - now;
		now = now_ns();
	}
	printf("%u pauses in %" PRIu64 " ms, the slowest of %" PRIu64 " us\n", count,
		(now - begin) / 1000000, slowest / 1000);
	return 0;
}
