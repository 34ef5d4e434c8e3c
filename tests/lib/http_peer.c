/* SPDX-License-Identifier: Apache-2.0 */
/* http_peer.c - see http_peer.h */
#include "tests/lib/http_peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAR_MS 3000u

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

void peer_turn(struct ring *r, unsigned ms)
{
	u64 begin = now_ms();

	for (unsigned idle = 0; idle < 3 && now_ms() - begin <= ms;) {
		if (ring_poll_once(r) > 0) {
			idle = 0;
			continue;
		}
		idle++;
		poll(NULL, 0, 1);
	}
}

void peer_send(struct ring *r, int fd, const void *bytes, size_t len)
{
	const char *at = bytes;
	u64 begin = now_ms();

	while (len) {
		ssize_t n = send(fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			at += n;
			len -= (size_t)n;
		} else {
			must(errno == EAGAIN && now_ms() - begin < HEAR_MS);
			peer_turn(r, 1);
		}
	}
}

void peer_send_files(int fd, const void *bytes, size_t len, unsigned n)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(PEER_FILES_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)bytes, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int))};
	int file[PEER_FILES_MAX];

	must(n && n <= PEER_FILES_MAX);
	control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(n * sizeof(int))};
	for (unsigned i = 0; i < n; i++) {
		file[i] = memfd_create("peer", MFD_CLOEXEC);
		must(file[i] >= 0);
	}
	memcpy(CMSG_DATA(&control.head), file, n * sizeof(int));
	must(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)len);
	for (unsigned i = 0; i < n; i++)
		close(file[i]);
}

/* How many whole replies @h holds. A reply without Content-Length has no body. */
static unsigned count_replies(const struct heard *h)
{
	const char *at = h->text;
	unsigned n = 0;

	for (;;) {
		const char *end = strstr(at, "\r\n\r\n"), *length;
		size_t body = 0;

		if (!end)
			return n;
		length = strstr(at, "Content-Length: ");
		if (length && length < end)
			body = strtoul(length + 16, NULL, 10);
		if ((size_t)(h->text + h->len - (end + 4)) < body)
			return n;
		at = end + 4 + body;
		n++;
	}
}

void peer_hear(struct ring *r, int fd, unsigned replies, struct heard *h)
{
	u64 begin = now_ms();
	char *empty;

	memset(h, 0, sizeof(*h));
	while (now_ms() - begin < HEAR_MS && !h->closed && count_replies(h) < replies) {
		ssize_t n = recv(fd, h->text + h->len, sizeof(h->text) - 1 - h->len, MSG_DONTWAIT);

		if (n > 0)
			h->len += (size_t)n;
		else if (n == 0 || errno != EAGAIN)
			h->closed = true;
		else
			peer_turn(r, 1);
	}
	if (strncmp(h->text, "HTTP/1.1 ", 9) == 0)
		h->status = (unsigned)strtoul(h->text + 9, NULL, 10);
	empty = strstr(h->text, "\r\n\r\n");
	h->body = empty ? empty + 4 : "";
}

void peer_ask(struct ring *r, int fd, const char *request, unsigned replies, struct heard *h)
{
	peer_send(r, fd, request, strlen(request));
	peer_hear(r, fd, replies, h);
}
