/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_stream.c - frames on a stream socket: each behind its length, 32 bits, most significant byte
 * first. It is what passt speaks, and QEMU's -netdev stream.
 *
 * Theory of operation
 *
 * There is no virtio header on the wire, so nothing that needs one is offered to the guest.
 *
 * To the guest: the stream is received into host memory (rx->spill), because frames begin and end
 * anywhere in what one system call brings. Each complete frame becomes a slot of net_rx.c without
 * buffers of its own, whose whole content is still to be copied to the guest. The socket is read
 * again only when all of them are delivered; until then the peer has to wait, which it can.
 *
 * From the guest: a batch is one sendmsg(2). Where that ends inside a frame, the rest of the frame
 * is copied (tx->rest) and sent before anything else, whatever becomes of the driver meanwhile:
 * the stream must not lose its place. The frames behind go back to the queue.
 *
 * A length that cannot be, or the end of the stream, is the end of the link.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/net_int.h"

#define PREFIX 4u /* bytes of the length */

static void received(struct ring_op *op, int res);
static void sent(struct ring_op *op, int res);
static void rest_sent(struct ring_op *op, int res);

static u32 get_length(const u8 *p)
{
	u32 len;

	memcpy(&len, p, sizeof(len));
	return be32toh(len);
}

bool net_stream_frames(struct net_rx *rx)
{
	struct net *n = rx->n;

	rx->slots = rx->at = 0;
	while (rx->slots < NET_RX_BATCH && rx->stream_end - rx->stream_at >= PREFIX) {
		const u8 *p = rx->spill + rx->stream_at;
		u32 len = get_length(p);
		struct rx_slot *s = &rx->slot[rx->slots];

		if (len > NET_FRAME_MAX) {
			rx->stream_at = rx->stream_end;
			net_link_down(n);
			break;
		}
		if (rx->stream_end - rx->stream_at - PREFIX < len)
			break;
		rx->stream_at += PREFIX + len;
		if (len < NET_ETH) {
			n->stats.rx_dropped++;
			continue;
		}
		s->hdr = (struct virtio_net_hdr_v1){0};
		s->first = s->count = s->room = 0;
		s->paid = false;
		s->tail = p + PREFIX;
		s->res = (int)len;
		rx->slots++;
	}
	return rx->slots;
}

void net_stream_receive(struct net_rx *rx)
{
	u32 left = rx->stream_end - rx->stream_at;

	memmove(rx->spill, rx->spill + rx->stream_at, left);
	rx->stream_at = 0;
	rx->stream_end = left;
	rx->stream_op.done = received;
	rx->epoch = rx->n->dev.epoch;
	rx->in_kernel = 1;
	ring_recv(rx->n->ring, &rx->stream_op, rx->fd, rx->spill + left, NET_STREAM - left,
		MSG_DONTWAIT);
}

static void received(struct ring_op *op, int res)
{
	struct net_rx *rx = container_of(op, struct net_rx, stream_op);
	struct net *n = rx->n;

	pthread_mutex_lock(&n->dev.lock);
	/* Less than there was room for: there is no more. */
	rx->dry = res <= 0 || (u32)res < NET_STREAM - rx->stream_end;
	if (res > 0)
		rx->stream_end += (u32)res;
	else if (res != -EAGAIN && res != -EINTR && res != -ENOMEM && res != -ENOBUFS)
		net_link_down(n);
	net_rx_ended(rx);
	pthread_mutex_unlock(&n->dev.lock);
}

void net_stream_send(struct net_tx *tx)
{
	const u32 front = PREFIX + NET_ETH;

	for (unsigned i = 0; i < tx->slots; i++) {
		struct tx_slot *s = &tx->slot[i];
		u8 *p = s->front + sizeof(s->front) - front; /* over the virtio header's end */
		u32 len = htobe32(s->len);

		memcpy(p, &len, sizeof(len));
		tx->iov[s->iov_at] = (struct iovec){p, front};
	}
	tx->msg = (struct msghdr){.msg_iov = tx->iov, .msg_iovlen = tx->iov_count};
	tx->stream_op.done = sent;
	tx->in_kernel = 1;
	virtio_io_begin(&tx->n->dev);
	ring_sendmsg(tx->n->ring, &tx->stream_op, tx->fd, &tx->msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Keeps what is left of the frame in @s, of which @done bytes went. False: no memory. */
static bool keep_rest(struct net_tx *tx, const struct tx_slot *s, u32 done)
{
	if (!tx->rest)
		tx->rest = malloc(PREFIX + NET_FRAME_MAX);
	if (!tx->rest)
		return false;
	tx->rest_at = 0;
	tx->rest_end = (u32)iov_to_host(&tx->iov[s->iov_at], s->iov_count, done, tx->rest,
		PREFIX + s->len - done);
	return true;
}

/* What became of each frame, when the socket took @left bytes of them all. */
static void account(struct net_tx *tx, u32 left)
{
	for (unsigned i = 0; i < tx->slots; i++) {
		struct tx_slot *s = &tx->slot[i];
		u32 whole = PREFIX + s->len;

		s->res = left ? (int)s->len : -EAGAIN;
		if (left && left < whole && !keep_rest(tx, s, left))
			net_link_down(tx->n); /* the stream has lost its place */
		left -= left < whole ? left : whole;
	}
}

static void sent(struct ring_op *op, int res)
{
	struct net_tx *tx = container_of(op, struct net_tx, stream_op);
	struct virtio_dev *d = &tx->n->dev;

	pthread_mutex_lock(&d->lock);
	virtio_io_end(d);
	tx->in_kernel = 0;
	if (res >= 0 || res == -EAGAIN) {
		account(tx, res > 0 ? (u32)res : 0);
	} else {
		for (unsigned i = 0; i < tx->slots; i++)
			tx->slot[i].res = -EPIPE;
	}
	net_tx_ended(tx);
	pthread_mutex_unlock(&d->lock);
}

bool net_stream_send_rest(struct net_tx *tx)
{
	if (tx->rest_at == tx->rest_end || !tx->n->link_up)
		return false;
	tx->stream_op.done = rest_sent;
	tx->in_kernel = 1;
	ring_send(tx->n->ring, &tx->stream_op, tx->fd, tx->rest + tx->rest_at,
		tx->rest_end - tx->rest_at, MSG_DONTWAIT | MSG_NOSIGNAL);
	return true;
}

static void rest_sent(struct ring_op *op, int res)
{
	struct net_tx *tx = container_of(op, struct net_tx, stream_op);
	struct net *n = tx->n;

	pthread_mutex_lock(&n->dev.lock);
	tx->in_kernel = 0;
	if (res > 0)
		tx->rest_at += (u32)res;
	else if (res != -EAGAIN)
		net_link_down(n);
	if (tx->rest_at < tx->rest_end && n->link_up) {
		ring_poll(n->ring, &tx->poll_op, tx->fd, POLLOUT);
	} else {
		tx->rest_at = tx->rest_end = 0;
		net_tx_run(tx);
	}
	pthread_mutex_unlock(&n->dev.lock);
}
