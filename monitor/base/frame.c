/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - see frame.h */
#include "monitor/base/frame.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

/* Checks a head that is complete. The length of what follows, or -EPROTO. */
static int check_head(const u8 *head, struct err *e)
{
	u32 len = (u32)le_get(head + 4, 4);

	if (head[1] != AGENT_VERSION)
		return err_set(e, -EPROTO, "protocol version %u, but this one speaks %u", head[1],
			AGENT_VERSION);
	if (le_get(head + 2, 2) || len > FRAME_MAX)
		return err_set(e, -EPROTO, "something that is no frame");
	return (int)len;
}

int frame_read(struct frame_reader *r, struct frame *ret, struct err *e)
{
	u32 want = FRAME_HEAD;
	ssize_t n;
	int len;

	for (;;) {
		if (r->have >= FRAME_HEAD) {
			len = check_head(r->buf, e);
			if (len < 0)
				return len;
			want = FRAME_HEAD + (u32)len;
		}
		if (r->have >= FRAME_HEAD && r->have == want)
			break;
		n = recv(r->fd, r->buf + r->have, want - r->have, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0 && errno != ECONNRESET && errno != EPIPE)
			return err_sys(e, errno, "cannot read from the peer");
		if (n <= 0)
			return err_set(e, -ECONNRESET, "the connection ended");
		r->have += (u32)n;
	}
	r->buf[want] = 0;
	r->have = 0;
	*ret = (struct frame){r->buf[0], want - FRAME_HEAD, r->buf + FRAME_HEAD};
	return 1;
}

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int frame_wait(struct frame_reader *r, int timeout_ms, struct frame *ret, struct err *e)
{
	long long end = now_ms() + timeout_ms, left;
	struct pollfd p = {.fd = r->fd, .events = POLLIN};
	int n;

	for (;;) {
		n = frame_read(r, ret, e);
		if (n)
			return n < 0 ? n : 0;
		left = timeout_ms < 0 ? -1 : end - now_ms();
		if (timeout_ms >= 0 && left <= 0)
			return err_set(e, -ETIMEDOUT, "no answer in time");
		poll(&p, 1, (int)left);
	}
}

void frame_head(u8 head[FRAME_HEAD], u8 type, u32 len)
{
	head[0] = type;
	head[1] = AGENT_VERSION;
	le_put(head + 2, 0, 2);
	le_put(head + 4, len, 4);
}

static int send_all(int fd, struct iovec *iov, size_t n, struct err *e)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t sent;

	while (msg.msg_iovlen) {
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
			continue;
		}
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
			return err_set(e, -EPIPE, "the connection ended");
		if (sent < 0)
			return err_sys(e, errno, "cannot write to the peer");
		for (; msg.msg_iovlen && (size_t)sent >= msg.msg_iov->iov_len; msg.msg_iovlen--)
			sent -= (ssize_t)msg.msg_iov++->iov_len;
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + sent;
			msg.msg_iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

int frame_send_raw(int fd, const void *p, size_t len, struct err *e)
{
	return send_all(fd, &(struct iovec){(void *)(uintptr_t)p, len}, 1, e);
}

int frame_send(int fd, u8 type, const void *p, u32 len, struct err *e)
{
	u8 head[FRAME_HEAD];
	struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)p, len}};

	must(len <= FRAME_MAX);
	frame_head(head, type, len);
	return send_all(fd, iov, len ? 2 : 1, e);
}

const char *frame_text(const struct frame *f, u32 *at)
{
	const char *text = (const char *)f->p + *at;
	const char *end = *at < f->len ? memchr(text, 0, f->len - *at) : NULL;

	if (!end)
		return NULL;
	*at += (u32)(end - text) + 1;
	return text;
}
