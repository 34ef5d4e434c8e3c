/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_host.c - the way from a connection to its unix socket.
 *
 * What the guest sends goes straight from its memory to the socket (vsock_tx.c). Only what the
 * socket does not take is kept here, in a ring of at most buf_alloc bytes, which is what the guest
 * has credit for; the ring exists only while something is in it. While the host does not read,
 * one poll for POLLOUT is all that happens.
 *
 * conn->tx_op is used for one thing at a time: connect, the "OK" line, the poll, the send,
 * shutdown(2). After each of them host_step() finds out what is next.
 *
 * A stream that the guest ended in good order is not cut short: where the host reads slowly, the
 * guest gets its RST after VSOCK_LINGER_MS, and the rest is sent without it (CONN_FLUSH), however
 * long that takes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vsock_int.h"

#define SHUT_BOTH ((unsigned)(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))

static struct vsock_conn *conn_of(struct ring_op *op)
{
	return container_of(op, struct vsock_conn, tx_op);
}

static void connected(struct ring_op *op, int res)
{
	struct vsock_conn *c = conn_of(op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (v->dialer && res >= 0)
		c->fd = res; /* to be closed in any case */
	if (c->state == CONN_CONNECTING) {
		if (res >= 0) {
			c->state = CONN_OPEN;
			conn_due(c, 0);
			conn_pend(c, PEND_RESPONSE);
			conn_poll_in(c);
		} else if (res == -EAGAIN) { /* its backlog is full */
			conn_retry(c);
		} else {
			conn_kill(c, true);
		}
	}
	vsock_unlock(v);
}

void host_connect(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	c->tx_op.done = connected;
	if (v->dialer) {
		v->dialer->dial(v->dialer, c->local_port, &c->tx_op);
		return;
	}
	c->addr.sun_family = AF_UNIX;
	/* vsock_create() made sure that every port number fits. */
	must(snprintf(c->addr.sun_path, sizeof(c->addr.sun_path), "%s_%u", v->path,
		     c->local_port) < (int)sizeof(c->addr.sun_path));
	ring_connect(v->ring, &c->tx_op, c->fd, (const struct sockaddr *)&c->addr,
		sizeof(c->addr));
}

void vsock_widen(int fd, u32 bytes)
{
	/* syscalls[L]: setsockopt(SO_SNDBUFFORCE), setsockopt(SO_SNDBUF) */
	const int half = (int)(bytes / 2); /* which the kernel doubles, for its own needs */

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof(half)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}

bool host_is_clear(const struct vsock_conn *c)
{
	return !c->tx_op.busy && !c->buf_len && !c->host_deaf;
}

bool host_keep(struct vsock_conn *c, const struct iovec *iov, unsigned n, size_t skip, u32 len)
{
	u32 at, first;

	if (!c->buf)
		c->buf = malloc(c->buf_alloc);
	if (!c->buf)
		return false;
	must(len <= c->buf_alloc - c->buf_len); /* the credit check */
	at = (c->buf_head + c->buf_len) % c->buf_alloc;
	first = len < c->buf_alloc - at ? len : c->buf_alloc - at;
	must(iov_to_host(iov, n, skip, c->buf + at, first) == first);
	must(iov_to_host(iov, n, skip + first, c->buf, len - first) == len - first);
	c->buf_len += len;
	return true;
}

static void drop(struct vsock_conn *c, u32 n)
{
	c->buf_head = (c->buf_head + n) % c->buf_alloc;
	c->buf_len -= n;
	if (!c->buf_len) {
		free(c->buf);
		c->buf = NULL;
		c->buf_head = 0;
	}
	conn_consumed(c, n);
}

void host_deaf(struct vsock_conn *c)
{
	c->host_deaf = true;
	if (c->state == CONN_OPEN)
		conn_tell_shutdown(c, VIRTIO_VSOCK_SHUTDOWN_RCV);
}

static void kept_sent(struct ring_op *op, int res)
{
	struct vsock_conn *c = conn_of(op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (conn_flows(c)) {
		if (res > 0) {
			drop(c, (u32)res);
			if (c->state == CONN_OPEN && c->guest_shut == SHUT_BOTH)
				conn_due(c, VSOCK_LINGER_NS);
		} else if (res != -EAGAIN) {
			host_deaf(c);
		}
		host_step(c);
	}
	vsock_unlock(v);
}

static void send_kept(struct vsock_conn *c)
{
	u32 n = c->buf_alloc - c->buf_head;

	if (n > c->buf_len)
		n = c->buf_len;
	c->tx_op.done = kept_sent;
	ring_send(c->v->ring, &c->tx_op, c->fd, c->buf + c->buf_head, n,
		MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void can_send(struct ring_op *op, int res)
{
	struct vsock_conn *c = conn_of(op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (conn_flows(c)) {
		if (res < 0 || c->host_deaf) {
			host_deaf(c);
			host_step(c);
		} else if (c->buf_len) {
			send_kept(c);
		} else {
			host_step(c);
		}
	}
	vsock_unlock(v);
}

static void shutdown_done(struct ring_op *op, int res)
{
	struct vsock_conn *c = conn_of(op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (res < 0)
		conn_kill(c, true);
	else
		host_step(c);
	vsock_unlock(v);
}

void host_step(struct vsock_conn *c)
{
	struct vsock *v = c->v;
	unsigned shut = c->guest_shut;

	if (!conn_flows(c) || c->tx_op.busy || v->tx.conn == c)
		return;
	if (c->buf_len && c->host_deaf)
		drop(c, c->buf_len);
	if (!c->buf_len && shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->host_deaf)
		host_good_end(c);
	if (c->buf_len) {
		c->tx_op.done = can_send;
		ring_poll(v->ring, &c->tx_op, c->fd, POLLOUT);
	} else if (c->state == CONN_FLUSH) {
		conn_kill(c, false);
	} else if (shut == SHUT_BOTH || (shut & VIRTIO_VSOCK_SHUTDOWN_SEND && c->eof)) {
		conn_kill(c, true);
	} else if (shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->shut_wr) {
		c->shut_wr = true;
		c->tx_op.done = shutdown_done;
		ring_shutdown(v->ring, &c->tx_op, c->fd, SHUT_WR);
	} else if (shut & VIRTIO_VSOCK_SHUTDOWN_RCV && !c->shut_rd) {
		c->shut_rd = true;
		c->tx_op.done = shutdown_done;
		ring_shutdown(v->ring, &c->tx_op, c->fd, SHUT_RD);
	}
}

void host_last_words(struct vsock_conn *c)
{
	u32 first = c->buf_alloc - c->buf_head;
	struct iovec iov[2];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t sent;

	/* Not what a send that is queued will take. */
	if (c->tx_op.busy && c->tx_op.done != can_send)
		return;
	if (!conn_flows(c) || !conn_owes_host(c) || !c->buf_len)
		return;
	if (first > c->buf_len)
		first = c->buf_len;
	iov[0] = (struct iovec){c->buf + c->buf_head, first};
	iov[1] = (struct iovec){c->buf, c->buf_len - first};
	vsock_widen(c->fd, 2 * c->buf_alloc + VSOCK_TX_BUF_WIDE);
	sent = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL); /* syscalls[L]: sendmsg */
	if (sent > 0)
		drop(c, (u32)sent);
	if (!c->buf_len)
		host_good_end(c);
}
