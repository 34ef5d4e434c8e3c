/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial.c - see dial.h
 *
 * The keeper answers in the order in which it was asked, so those who wait stand in a queue: what
 * was sent is its front, and one send and one receive are under way at most. Where the keeper is
 * gone everybody is refused.
 */
#include "monitor/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/keeper.h"

#define QUEUE_LEN 1024u /* at least VSOCK_CONNS_MAX, and a power of 2 */

struct dial {
	struct vsock_dialer dialer;
	struct ring *ring;
	int socket;
	bool closed;

	struct {
		struct ring_op *op;
		u32 port;
	} queue[QUEUE_LEN];
	unsigned head, sent, tail; /* count on; the place is the number modulo QUEUE_LEN */

	struct ring_op send_op, recv_op;
	struct keeper_msg out, in;
	struct iovec iov;
	struct msghdr msg;
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
};

static void answer(struct dial *d, int res)
{
	struct ring_op *op = d->queue[d->head++ % QUEUE_LEN].op;

	op->busy = false;
	op->done(op, res);
}

static void close_all(struct dial *d)
{
	d->closed = true;
	while (d->head != d->tail)
		answer(d, -ECONNREFUSED);
	d->sent = d->head;
}

static void go_on(struct dial *d)
{
	if (!d->send_op.busy && d->sent != d->tail) {
		d->out = (struct keeper_msg){KEEPER_DIAL, (s32)d->queue[d->sent % QUEUE_LEN].port};
		ring_send(d->ring, &d->send_op, d->socket, &d->out, sizeof(d->out), MSG_NOSIGNAL);
	}
	if (!d->recv_op.busy && d->head != d->sent) {
		d->iov = (struct iovec){&d->in, sizeof(d->in)};
		d->msg = (struct msghdr){.msg_iov = &d->iov, .msg_iovlen = 1,
			.msg_control = &d->control, .msg_controllen = sizeof(d->control)};
		ring_recvmsg(d->ring, &d->recv_op, d->socket, &d->msg, MSG_CMSG_CLOEXEC);
	}
}

static void sent(struct ring_op *op, int res)
{
	struct dial *d = container_of(op, struct dial, send_op);

	if (d->closed || res != (int)sizeof(d->out)) {
		close_all(d);
		return;
	}
	d->sent++;
	go_on(d);
}

/* The descriptor that came with the message, or -1. */
static int received_fd(struct dial *d)
{
	const struct cmsghdr *c = CMSG_FIRSTHDR(&d->msg);
	int fd = -1;

	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void received(struct ring_op *op, int res)
{
	struct dial *d = container_of(op, struct dial, recv_op);
	int fd;

	if (d->closed)
		return;
	if (res != (int)sizeof(d->in) || d->in.verb != KEEPER_DIALED) {
		close_all(d);
		return;
	}
	fd = received_fd(d);
	if (d->in.value < 0)
		answer(d, d->in.value);
	else
		answer(d, fd >= 0 ? fd : -ECONNREFUSED);
	go_on(d);
}

static void dial(struct vsock_dialer *dialer, u32 port, struct ring_op *op)
{
	struct dial *d = container_of(dialer, struct dial, dialer);

	must(!op->busy && d->tail - d->head < QUEUE_LEN);
	op->busy = true;
	d->queue[d->tail % QUEUE_LEN].op = op;
	d->queue[d->tail % QUEUE_LEN].port = port;
	d->tail++;
	/* Never from here: the caller may hold locks that the callback takes. */
	if (!d->closed)
		go_on(d);
	else if (!d->send_op.busy)
		ring_nop(d->ring, &d->send_op);
}

int dial_create(struct dial **ret, int socket, struct ring *ring, struct err *e)
{
	struct dial *d = calloc(1, sizeof(*d));

	if (!d)
		return err_sys(e, ENOMEM, "cannot make the dialer");
	d->dialer.dial = dial;
	d->ring = ring;
	d->socket = socket;
	d->send_op.done = sent;
	d->recv_op.done = received;
	*ret = d;
	return 0;
}

void dial_destroy(struct dial **d)
{
	free(*d);
	*d = NULL;
}

struct vsock_dialer *dial_dialer(struct dial *d)
{
	return &d->dialer;
}
