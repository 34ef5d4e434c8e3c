/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_tx.c - frames from the guest.
 *
 * Theory of operation
 *
 * Frames are written in batches, many in one system call and one batch at a time, so their order
 * is kept. No write waits: it ends, maybe with EAGAIN, while it is being submitted. Payload goes to
 * the kernel straight from guest memory and is never looked at here. What decides something is
 * copied first and the copy is what is sent: the virtio header, as checked, and the Ethernet
 * header with the source address. A driver that changes them meanwhile changes nothing.
 *
 * When the host takes no more, the frames from there on go back to the queue (vq_unpop()), and the
 * descriptor is polled. So nothing is in flight while we wait, and a reset or a snapshot at that
 * moment finds nothing to do. The same goes for a frame that the rate limit holds up. A frame with
 * EAGAIN before one that was taken after all is lost: networks may lose frames but should not
 * reorder them.
 *
 * Every head is pushed exactly once, with its batch or, if its frame is dropped, when no batch is
 * under way before it. Frames are dropped, and counted, for what a driver may not do: a header that
 * is too short, asks for what was not negotiated, or points outside the frame; a frame too short or
 * too long; an address that is not the device's own.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/clock.h"
#include "virtio/net_int.h"

#define MAC_AT 6u /* of the source, in an Ethernet header */

enum verdict {
	TX_DONE,  /* the head can be pushed */
	TX_SEND,  /* it became part of the batch */
	TX_LATER, /* back to the queue */
};

static void write_done(struct ring_op *op, int res);
static void poll_done(struct ring_op *op, int res);

static struct vq *queue_of(const struct net_tx *tx)
{
	return &tx->n->dev.queue[2 * tx->index + 1];
}

struct net_tx *net_tx_new(struct net *n, unsigned index)
{
	struct net_tx *tx = calloc(1, sizeof(*tx));

	if (!tx)
		return NULL;
	tx->n = n;
	tx->index = index;
	tx->fd = n->backend.fds[index];
	tx->burst = NET_TX_BATCH;
	tx->poll_op.done = poll_done;
	for (unsigned i = 0; i < NET_TX_BATCH; i++) {
		tx->slot[i].op.done = write_done;
		tx->slot[i].tx = tx;
	}
	return tx;
}

void net_tx_free(struct net_tx *tx)
{
	if (!tx)
		return;
	free(tx->rest);
	free(tx);
}

static void forget(struct net_tx *tx)
{
	tx->slots = tx->iov_count = 0;
}

void net_tx_reset(struct net_tx *tx)
{
	if (!tx->in_kernel)
		forget(tx);
}

/* What the host is told about a frame of @len bytes; false where the driver may not ask that. */
static bool check_header(const struct net *n, struct virtio_net_hdr_v1 *h, u32 len)
{
	u32 csum_start = le16toh(h->csum_start), csum_offset = le16toh(h->csum_offset);
	bool csum = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	u64 needs = 0;

	switch (h->gso_type) {
	case VIRTIO_NET_HDR_GSO_NONE:
		h->hdr_len = h->gso_size = 0;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		needs = NET_F(HOST_TSO4);
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		needs = NET_F(HOST_TSO6);
		break;
	case NET_GSO_UDP_L4:
		needs = 1ull << NET_F_HOST_USO;
		break;
	default:
		return false;
	}
	if (needs && (!csum || !h->gso_size || le16toh(h->hdr_len) > len))
		return false;
	if (csum && (csum_start < NET_ETH || csum_start + csum_offset + 2 > len))
		return false;
	if (!csum)
		h->csum_start = h->csum_offset = 0;
	needs |= csum ? NET_F(CSUM) : 0;
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->num_buffers = 0;
	return (n->features & needs) == needs;
}

/* Copies the headers of the frame in n->chain to @s. Not to be sent? Then where to count it. */
static u64 *take_headers(struct net *n, struct tx_slot *s)
{
	const struct vq_chain *c = &n->chain;
	struct virtio_net_hdr_v1 h = {0};
	u8 raw[NET_HDR + NET_ETH], *eth = raw + n->hdr_len;

	if (c->out_len < n->hdr_len + NET_ETH || c->out_len - n->hdr_len > NET_FRAME_MAX)
		return &n->stats.tx_malformed;
	s->len = c->out_len - n->hdr_len;
	iov_to_host(c->iov, c->out_count, 0, raw, n->hdr_len + NET_ETH);
	memcpy(&h, raw, n->hdr_len);
	if (!check_header(n, &h, s->len))
		return &n->stats.tx_malformed;
	if (!n->allow_spoof && memcmp(eth + MAC_AT, n->mac, sizeof(n->mac)) != 0)
		return &n->stats.tx_spoofed;
	memcpy(s->front, &h, sizeof(h));
	memcpy(s->front + sizeof(h), eth, NET_ETH);
	return n->link_up ? NULL : &n->stats.tx_dropped;
}

static bool pay(struct net *n, u32 len)
{
	u64 now_ns;

	if (!limit_is_on(&n->tx_limit))
		return true;
	now_ns = monotonic_ns();
	if (limit_take(&n->tx_limit, len, now_ns))
		return true;
	net_timer(n, limit_ready_ns(&n->tx_limit, len, now_ns));
	return false;
}

/*
 * A frame that is not to be sent, or a chain that is none. Behind a batch it waits for that to end:
 * if some of the batch must go back to the queue, nothing may have left the queue behind it.
 */
static enum verdict drop_frame(const struct net_tx *tx, u64 *count)
{
	if (tx->slots)
		return TX_LATER;
	(*count)++;
	return TX_DONE;
}

/* The frame in n->chain. */
static enum verdict frame(struct net_tx *tx)
{
	struct net *n = tx->n;
	const struct vq_chain *c = &n->chain;
	struct tx_slot *s = &tx->slot[tx->slots];
	u64 *drop = take_headers(n, s);

	if (drop)
		return drop_frame(tx, drop);
	if (!pay(n, s->len))
		return TX_LATER;
	s->head = c->head;
	s->iov_at = (u16)tx->iov_count;
	tx->iov[tx->iov_count++] = (struct iovec){s->front, sizeof(s->front)};
	tx->iov_count += iov_slice(c->iov, c->out_count, n->hdr_len + NET_ETH, s->len - NET_ETH,
		&tx->iov[tx->iov_count]);
	s->iov_count = (u16)(tx->iov_count - s->iov_at);
	tx->slots++;
	return TX_SEND;
}

/* Takes the next chain; false when the queue is not to be looked at any more for now. */
static bool next(struct net_tx *tx)
{
	struct net *n = tx->n;
	struct vq *q = queue_of(tx);
	enum verdict v = TX_DONE;

	if (tx->slots == tx->burst || tx->iov_count + 1 + VQ_SIZE_MAX > NET_IOV)
		return false;
	switch (vq_pop(q, &n->chain)) {
	case VQ_OK:
		v = frame(tx);
		break;
	case VQ_REJECT:
		v = drop_frame(tx, &n->stats.tx_malformed);
		break;
	case VQ_BAD:
		virtio_fail(&n->dev);
		return false;
	case VQ_EMPTY:
		/* While a batch is on its way the queue is looked at again anyway. */
		return !tx->slots && virtio_want_kick(&n->dev, q);
	}
	if (v == TX_LATER) {
		vq_unpop(q, n->chain.head);
		return false;
	}
	if (v == TX_DONE) {
		vq_push(q, n->chain.head, 0);
		virtio_used_soon(&n->dev, q);
	}
	return true;
}

static void send_batch(struct net_tx *tx)
{
	struct net *n = tx->n;

	tx->epoch = n->dev.epoch;
	if (n->backend.kind == NET_PASST) {
		net_stream_send(tx);
		return;
	}
	tx->in_kernel = tx->slots;
	for (unsigned i = 0; i < tx->slots; i++) {
		struct tx_slot *s = &tx->slot[i];

		virtio_io_begin(&n->dev);
		if (n->backend.no_nowait)
			ring_writev_at_once(n->ring, &s->op, tx->fd, &tx->iov[s->iov_at],
				s->iov_count);
		else
			ring_writev(n->ring, &s->op, tx->fd, &tx->iov[s->iov_at], s->iov_count,
				(u64)-1, RWF_NOWAIT);
	}
}

void net_tx_run(struct net_tx *tx)
{
	struct vq *q = queue_of(tx);
	unsigned budget = q->size;

	if (!net_may_run(tx->n) || tx->index >= tx->n->pairs_used || !q->live || tx->in_kernel ||
		tx->poll_op.busy)
		return;
	vq_kicks_off(q);
	while (next(tx)) {
		if (!--budget) {
			virtio_schedule(&tx->n->dev);
			break;
		}
	}
	if (tx->slots)
		send_batch(tx);
}

static void poll_done(struct ring_op *op, int res)
{
	struct net_tx *tx = container_of(op, struct net_tx, poll_op);

	pthread_mutex_lock(&tx->n->dev.lock);
	if (!net_stream_send_rest(tx))
		net_tx_run(tx);
	pthread_mutex_unlock(&tx->n->dev.lock);
}

/* Frames from @from on go back to the queue. */
static void unpop_from(struct net_tx *tx, unsigned from)
{
	struct net *n = tx->n;

	while (tx->slots > from) {
		const struct tx_slot *s = &tx->slot[--tx->slots];

		vq_unpop(queue_of(tx), s->head);
		if (limit_is_on(&n->tx_limit))
			limit_give_back(&n->tx_limit, s->len);
	}
}

/* Returns the first @count frames of the batch. */
static void push_sent(struct net_tx *tx, unsigned count)
{
	struct net *n = tx->n;

	for (unsigned i = 0; i < count; i++) {
		const struct tx_slot *s = &tx->slot[i];

		if (s->res < 0) {
			n->stats.tx_dropped++;
		} else {
			n->stats.tx_frames++;
			n->stats.tx_bytes += s->len;
		}
		vq_push(queue_of(tx), s->head, 0);
	}
	if (count)
		virtio_used_soon(&n->dev, queue_of(tx));
}

static void batch_done(struct net_tx *tx)
{
	struct net *n = tx->n;
	unsigned sent = tx->slots;
	bool blocked = tx->rest_at < tx->rest_end;

	/* From here on all said EAGAIN. */
	while (sent && tx->slot[sent - 1].res == -EAGAIN)
		sent--;
	for (unsigned i = 0; i < tx->slots; i++) {
		blocked |= tx->slot[i].res == -EAGAIN;
		if (tx->slot[i].res == -EBADFD || tx->slot[i].res == -EPIPE)
			net_link_down(n);
	}
	unpop_from(tx, sent);
	push_sent(tx, sent);
	forget(tx);
	if (blocked) {
		tx->burst = 1;
		ring_poll(n->ring, &tx->poll_op, tx->fd, POLLOUT);
		return;
	}
	tx->burst = 2 * tx->burst < NET_TX_BATCH ? 2 * tx->burst : NET_TX_BATCH;
	net_tx_run(tx);
}

void net_tx_ended(struct net_tx *tx)
{
	if (tx->epoch == tx->n->dev.epoch) {
		batch_done(tx);
		return;
	}
	forget(tx);
	/* Half a frame of the old life must not stay so. */
	if (tx->rest_at < tx->rest_end)
		ring_poll(tx->n->ring, &tx->poll_op, tx->fd, POLLOUT);
}

static void write_done(struct ring_op *op, int res)
{
	struct tx_slot *s = container_of(op, struct tx_slot, op);
	struct net_tx *tx = s->tx;
	struct virtio_dev *d = &tx->n->dev;

	pthread_mutex_lock(&d->lock);
	virtio_io_end(d);
	s->res = res;
	if (--tx->in_kernel == 0)
		net_tx_ended(tx);
	pthread_mutex_unlock(&d->lock);
}
