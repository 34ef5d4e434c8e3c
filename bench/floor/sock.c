/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sock.c - what a unix stream socket costs: a bare program where otherwise a monitor and a guest
 * sit. It listens on PATH, and after "CONNECT PORT" it does what the vsock guest does there:
 *
 *   5000  takes bytes until their end, then answers bytes=N
 *   5001  reads a line with a number and sends so many bytes
 *   5002  sends back what it gets
 *
 * CHUNK is how much it reads or writes at a time. One connection after the other, for ever.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../tool.h"

static char *chunk;
static size_t chunk_len;

/* One short line, byte by byte: nothing behind it is taken. False at the end of the data. */
static bool read_line(int fd, char *line, size_t cap)
{
	size_t len = 0;

	while (len + 1 < cap) {
		if (read(fd, line + len, 1) != 1)
			return false;
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return true;
}

static void sink(int fd)
{
	unsigned long long total = 0;
	char line[32];
	ssize_t n;

	while ((n = read(fd, chunk, chunk_len)) > 0)
		total += (unsigned long long)n;
	snprintf(line, sizeof(line), "bytes=%llu\n", total);
	write_all(fd, line, strlen(line));
}

static void source(int fd)
{
	char line[32];
	uint64_t left;

	if (!read_line(fd, line, sizeof(line)))
		return;
	for (left = number(line); left;) {
		ssize_t n = write(fd, chunk, left < chunk_len ? left : chunk_len);

		if (n <= 0)
			return;
		left -= (uint64_t)n;
	}
}

static void echo(int fd)
{
	ssize_t n;

	while ((n = read(fd, chunk, chunk_len)) > 0)
		write_all(fd, chunk, (size_t)n);
}

static void serve(int fd)
{
	char line[32];

	if (!read_line(fd, line, sizeof(line)))
		return;
	write_all(fd, "OK 1\n", 5);
	if (strcmp(line, "CONNECT 5000") == 0)
		sink(fd);
	else if (strcmp(line, "CONNECT 5001") == 0)
		source(fd);
	else if (strcmp(line, "CONNECT 5002") == 0)
		echo(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener, fd;

	tool_name = "sock";
	if (argc != 3 || strlen(argv[1]) >= sizeof(addr.sun_path)) {
		fputs("usage: sock PATH CHUNK\n", stderr);
		return 2;
	}
	die_with_parent();
	chunk_len = number(argv[2]);
	chunk = calloc(1, chunk_len);
	memcpy(addr.sun_path, argv[1], strlen(argv[1]));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!chunk || listener < 0 ||
	    bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 8) < 0)
		die("%s", argv[1]);
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		serve(fd);
		close(fd);
	}
	die("accept");
}
