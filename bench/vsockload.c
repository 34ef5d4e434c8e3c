/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsockload.c - the host's side of a guest's vsock port, through the monitor's unix socket.
 *
 *   PATH send BYTES CHUNK   to port 5000, which takes them all and then says how many it got
 *   PATH recv BYTES CHUNK   from port 5001, which is asked for so many
 *   PATH ping COUNT LEN     LEN bytes to port 5002 and back, one at a time
 *
 * The clock runs from the first byte until the far end has said that it got the last one, or until
 * we have it. Reads and writes are of CHUNK bytes at most, and sleep when they must.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tool.h"

#define PORT_SINK   5000
#define PORT_SOURCE 5001
#define PORT_ECHO   5002

/* One line, without its end, as a string. */
static void read_line(int fd, char *line, size_t cap)
{
	size_t len = 0;

	do {
		read_all(fd, line + len, 1);
	} while (line[len] != '\n' && ++len + 1 < cap);
	line[len] = '\0';
}

static int connect_port(const char *path, unsigned port)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 5 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[64];

	if (strlen(path) >= sizeof(addr.sun_path))
		die("%s is too long for a socket", path);
	memcpy(addr.sun_path, path, strlen(path));
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		die("%s", path);
	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	write_all(fd, line, strlen(line));
	read_line(fd, line, sizeof(line));
	errno = 0;
	if (strncmp(line, "OK ", 3) != 0)
		die("CONNECT %u: '%s'", port, line);
	return fd;
}

static void bulk_send(int fd, uint64_t bytes, char *chunk, size_t chunk_len)
{
	uint64_t start = now_ns();
	char line[64], expected[64];

	for (uint64_t left = bytes; left;) {
		size_t len = left < chunk_len ? left : chunk_len;

		write_all(fd, chunk, len);
		left -= len;
	}
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
	read_line(fd, line, sizeof(line));
	snprintf(expected, sizeof(expected), "bytes=%" PRIu64, bytes);
	errno = 0;
	if (strcmp(line, expected) != 0)
		die("the far end says '%s' after %s", line, expected);
	print_bulk(1, bytes, now_ns() - start);
}

static void bulk_recv(int fd, uint64_t bytes, char *chunk, size_t chunk_len)
{
	uint64_t start = now_ns();
	char line[32];

	snprintf(line, sizeof(line), "%" PRIu64 "\n", bytes);
	write_all(fd, line, strlen(line));
	for (uint64_t left = bytes; left;) {
		ssize_t n = read(fd, chunk, left < chunk_len ? left : chunk_len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ECONNRESET;
		if (n <= 0)
			die("%" PRIu64 " bytes short", left);
		left -= (uint64_t)n;
	}
	print_bulk(1, bytes, now_ns() - start);
}

static void ping(int fd, uint64_t count, char *buf, size_t len)
{
	uint64_t *ns = calloc(count, sizeof(*ns));

	if (!ns)
		die("%" PRIu64 " pings", count);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t start = now_ns();

		write_all(fd, buf, len);
		read_all(fd, buf, len);
		ns[i] = now_ns() - start;
	}
	print_trips(ns, count);
	free(ns);
}

int main(int argc, char **argv)
{
	uint64_t count, len;
	char *buf;

	tool_name = "vsockload";
	if (argc != 5) {
		fputs("usage: vsockload PATH send BYTES CHUNK | recv BYTES CHUNK | ping COUNT LEN\n",
			stderr);
		return 2;
	}
	count = number(argv[3]);
	len = number(argv[4]);
	buf = calloc(1, len);
	if (!buf)
		die("%" PRIu64 " bytes", len);
	if (strcmp(argv[2], "send") == 0)
		bulk_send(connect_port(argv[1], PORT_SINK), count, buf, len);
	else if (strcmp(argv[2], "recv") == 0)
		bulk_recv(connect_port(argv[1], PORT_SOURCE), count, buf, len);
	else if (strcmp(argv[2], "ping") == 0)
		ping(connect_port(argv[1], PORT_ECHO), count, buf, len);
	free(buf);
	return 0;
}
