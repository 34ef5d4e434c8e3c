/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_rx.c - frames to the guest.
 *
 * Theory of operation
 *
 * Each pair has its own queue of the TAP. Reads go straight into buffers of the guest, several in
 * one system call: a batch. None waits: a read without a frame ends with EAGAIN while it is being
 * submitted, so guest memory is never with the kernel for long. When the last read of a batch has
 * ended its frames are delivered in order, and the next batch begins. A batch with EAGAIN in it
 * found the TAP dry: then the TAP is polled, and only then. Without buffers nothing is read and
 * nothing polled: the driver is asked for a kick, and the frames wait (or are dropped) in the TAP.
 * So a flood costs a guest that does not read nothing, and an idle device nothing at all.
 *
 * How long a frame will be is not known before. A read gets buffers for the longest of late
 * (rx->expect), and behind them a piece of host memory (rx->spill) that takes what does not fit.
 * With MRG_RXBUF the spilled part is copied to more buffers of the guest; without, one chain must
 * hold the frame. A frame that finds too few buffers waits for more, with those behind it, unless
 * the driver has none left to give.
 *
 * The pool. Buffers that a read was given and did not fill lie between others that went back to the
 * guest, so they cannot be unpopped. They stay in rx->pool, in flight, for the next batch. Those at
 * its end are unpopped when the TAP is dry, so that usually nothing is in flight. What still is
 * when a snapshot is taken comes back with the queue's state: recover() looks at those heads again.
 *
 * The header is read into host memory, checked against what was negotiated (frames that were in
 * the TAP before that was told can break it; they are dropped), and then written to the guest with
 * the number of buffers. All used elements of a frame become visible at once.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/clock.h"
#include "virtio/net_int.h"

#define SPILL (NET_FRAME_MAX + 1u) /* one more: so that a longer frame shows */

static void read_done(struct ring_op *op, int res);
static void poll_done(struct ring_op *op, int res);

static struct vq *queue_of(const struct net_rx *rx)
{
	return &rx->n->dev.queue[2 * rx->index];
}

struct net_rx *net_rx_new(struct net *n, unsigned index)
{
	struct net_rx *rx = calloc(1, sizeof(*rx));

	if (!rx)
		return NULL;
	rx->spill = malloc(NET_RX_BATCH * SPILL);
	if (!rx->spill) {
		free(rx);
		return NULL;
	}
	rx->n = n;
	rx->index = index;
	rx->fd = n->backend.fds[index];
	rx->burst = 1;
	rx->poll_op.done = poll_done;
	for (unsigned i = 0; i < NET_RX_BATCH; i++) {
		rx->slot[i].op.done = read_done;
		rx->slot[i].rx = rx;
	}
	return rx;
}

void net_rx_free(struct net_rx *rx)
{
	if (!rx)
		return;
	free(rx->spill);
	free(rx);
}

static void forget(struct net_rx *rx)
{
	rx->pool_count = rx->iov_count = 0;
	rx->slots = rx->at = 0;
	rx->recover = rx->starved = false;
	rx->expect = 0;
}

void net_rx_reset(struct net_rx *rx)
{
	/* Else the last of the reads does it, which finds its epoch over. */
	if (!rx->in_kernel)
		forget(rx);
}

/* Whether the pair is in use, and its queue may be looked at. */
static bool may_run(const struct net_rx *rx)
{
	const struct net *n = rx->n;

	return net_may_run(n) && rx->index < n->pairs_used && queue_of(rx)->live;
}

/* The pool. */

static void add_buf(struct net_rx *rx, u16 seq, bool recovered)
{
	const struct vq_chain *c = &rx->n->chain;
	struct rx_buf *b = &rx->pool[rx->pool_count++];

	*b = (struct rx_buf){
		.len = c->in_len,
		.head = c->head,
		.iov_at = (u16)rx->iov_count,
		.iov_count = c->in_count,
		.seq = seq,
		.recovered = recovered,
	};
	memcpy(&rx->iov[rx->iov_count], c->iov + c->out_count, c->in_count * sizeof(struct iovec));
	rx->iov_count += c->in_count;
}

/* A buffer that cannot hold anything goes back. */
static void reject(struct net_rx *rx, u16 head)
{
	struct virtio_dev *d = &rx->n->dev;

	vq_push(queue_of(rx), head, 0);
	virtio_used_soon(d, queue_of(rx));
	d->stats.rejected_chains++;
	rx->rejects--;
}

static bool pool_is_full(const struct net_rx *rx)
{
	return rx->pool_count == VQ_SIZE_MAX || rx->iov_count + VQ_SIZE_MAX > NET_IOV - 2;
}

/* Pops one more buffer into the pool; false where there is none, or no room for one. */
static bool pop_buf(struct net_rx *rx)
{
	struct vq *q = queue_of(rx);
	struct vq_chain *c = &rx->n->chain;

	while (!pool_is_full(rx) && rx->rejects) {
		u16 seq = q->next_avail;

		switch (vq_pop(q, c)) {
		case VQ_OK:
			if (c->in_len > rx->n->hdr_len) {
				add_buf(rx, seq, false);
				return true;
			}
			/* fallthrough */
		case VQ_REJECT:
			reject(rx, c->head);
			break;
		case VQ_EMPTY:
			return false;
		case VQ_BAD:
			virtio_fail(&rx->n->dev);
			return false;
		}
	}
	if (!rx->rejects)
		virtio_schedule(&rx->n->dev);
	return false;
}

/* Brings the heads that a snapshot left in flight back into the pool. */
static void recover(struct net_rx *rx)
{
	struct vq *q = queue_of(rx);
	struct vq_chain *c = &rx->n->chain;

	rx->recover = false;
	for (unsigned head = 0; head < q->size; head++) {
		if (!(q->in_flight[head / 64] >> (head % 64) & 1))
			continue;
		switch (vq_again(q, (u16)head, c)) {
		case VQ_OK:
			if (c->in_len > rx->n->hdr_len && !pool_is_full(rx)) {
				add_buf(rx, 0, true);
				break;
			}
			/* fallthrough */
		default:
			reject(rx, (u16)head);
			break;
		case VQ_BAD:
			virtio_fail(&rx->n->dev);
			return;
		}
	}
}

/* Forgets the buffers that the guest has back. */
static void compact(struct net_rx *rx)
{
	unsigned to = 0, iov_to = 0, at = rx->at;

	for (unsigned i = 0; i < rx->pool_count; i++) {
		struct rx_buf b = rx->pool[i];

		while (at < rx->slots && !rx->slot[at].count)
			at++;
		if (at < rx->slots && rx->slot[at].first == i)
			rx->slot[at++].first = to;
		if (b.used)
			continue;
		memmove(&rx->iov[iov_to], &rx->iov[b.iov_at], b.iov_count * sizeof(struct iovec));
		b.iov_at = (u16)iov_to;
		iov_to += b.iov_count;
		rx->pool[to++] = b;
	}
	rx->pool_count = to;
	rx->iov_count = iov_to;
}

/* Gives those buffers back to the queue that were popped last. */
static void unpop(struct net_rx *rx)
{
	struct vq *q = queue_of(rx);

	while (rx->pool_count && q->live) {
		const struct rx_buf *b = &rx->pool[rx->pool_count - 1];

		if (b->recovered || b->seq != (u16)(q->next_avail - 1))
			return;
		vq_unpop(q, b->head);
		rx->pool_count--;
		rx->iov_count -= b->iov_count;
	}
}

/* Delivering. */

/* The header as the driver may see it; false where the frame is nothing for it. */
static bool check_header(const struct net *n, struct virtio_net_hdr_v1 *h)
{
	static const struct {
		u8 gso_type;
		u64 feature;
	} gso[] = {
		{VIRTIO_NET_HDR_GSO_TCPV4, NET_F(GUEST_TSO4)},
		{VIRTIO_NET_HDR_GSO_TCPV6, NET_F(GUEST_TSO6)},
		{NET_GSO_UDP_L4, 1ull << NET_F_GUEST_USO4 | 1ull << NET_F_GUEST_USO6},
	};
	bool known = h->gso_type == VIRTIO_NET_HDR_GSO_NONE;

	if (!(n->features & NET_F(GUEST_CSUM))) {
		if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			return false;
		h->flags = 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(gso); i++)
		known |= h->gso_type == gso[i].gso_type && n->features & gso[i].feature;
	return known;
}

static bool pay(struct net *n, struct rx_slot *s, u32 len)
{
	u64 now_ns;

	if (s->paid || !limit_is_on(&n->rx_limit))
		return true;
	now_ns = monotonic_ns();
	s->paid = limit_take(&n->rx_limit, len, now_ns);
	if (!s->paid)
		net_timer(n, limit_ready_ns(&n->rx_limit, len, now_ns));
	return s->paid;
}

/* How many bytes of a frame go into @b, as its first buffer or not. */
static u32 room_in(const struct net_rx *rx, const struct rx_buf *b, bool first)
{
	u32 room = b->len - (first ? rx->n->hdr_len : 0);

	return room < NET_FRAME_MAX ? room : NET_FRAME_MAX;
}

/* The pool's next buffer at or behind *@i that has no frame in it. */
static bool find_free(struct net_rx *rx, unsigned *i)
{
	while (*i < rx->pool_count) {
		const struct rx_buf *b = &rx->pool[*i];

		if (!b->taken && !b->used)
			return true;
		(*i)++;
	}
	return may_run(rx) && pop_buf(rx);
}

/* There is no buffer. A paused driver is not to blame. */
static void starved(struct net_rx *rx)
{
	if (may_run(rx) && !rx->starved) {
		rx->n->stats.rx_starved++;
		rx->starved = true;
	}
}

/* Whether the driver can have no more buffers: its ring has no entry left, or no descriptor. */
static bool has_all(const struct net_rx *rx)
{
	const struct vq *q = queue_of(rx);

	return q->in_flight_count >= q->size || rx->iov_count >= q->size || pool_is_full(rx);
}

enum fate { FITS, WAITS, NEVER };

/*
 * Lists the buffers for a frame of @len bytes: those it was read into, and others for the rest.
 * Buffers it does not need are free again.
 */
static enum fate gather(struct net_rx *rx, const struct rx_slot *s, u32 len, u16 *list,
	unsigned *ret_count)
{
	unsigned k = 0, free_at = 0;
	u32 room = 0;

	for (unsigned i = s->first; i < s->first + s->count; i++) {
		if (room >= len) {
			rx->pool[i].taken = false;
			continue;
		}
		room += room_in(rx, &rx->pool[i], !k);
		list[k++] = (u16)i;
	}
	while (room < len) {
		if (k && !rx->n->merge)
			return NEVER;
		if (!find_free(rx, &free_at))
			return has_all(rx) ? NEVER : WAITS;
		room += room_in(rx, &rx->pool[free_at], !k);
		list[k++] = (u16)free_at++;
	}
	*ret_count = k;
	return FITS;
}

/* Completes a frame in its buffers, and gives them to the guest. */
static void push_frame(struct net_rx *rx, struct rx_slot *s, u32 len, const u16 *list,
	unsigned count)
{
	struct net *n = rx->n;
	struct vq *q = queue_of(rx);
	u32 done = 0;

	s->hdr.num_buffers = htole16((u16)count);
	for (unsigned i = 0; i < count; i++) {
		struct rx_buf *b = &rx->pool[list[i]];
		const struct iovec *iov = &rx->iov[b->iov_at];
		u32 room = room_in(rx, b, !i), skip = i ? 0 : n->hdr_len;
		u32 part = room < len - done ? room : len - done;

		if (!i)
			iov_from_host(iov, b->iov_count, 0, &s->hdr, skip);
		if (done >= s->room)
			iov_from_host(iov, b->iov_count, skip, s->tail + (done - s->room), part);
		if (i + 1 < count)
			vq_push_hidden(q, b->head, skip + part);
		else
			vq_push(q, b->head, skip + part);
		b->taken = true;
		b->used = true;
		done += part;
	}
	n->stats.rx_frames++;
	n->stats.rx_bytes += len;
}

static void drop(struct net_rx *rx, const struct rx_slot *s)
{
	for (unsigned i = s->first; i < s->first + s->count; i++)
		rx->pool[i].taken = false;
	rx->n->stats.rx_dropped++;
}

/* False where the frame has to wait. */
static bool deliver(struct net_rx *rx, struct rx_slot *s)
{
	struct virtio_dev *d = &rx->n->dev;
	u16 list[VQ_SIZE_MAX];
	unsigned count = 0;
	u32 len = (u32)s->res;
	enum fate fate = NEVER;

	if (!pay(rx->n, s, len))
		return false;
	if (s->room < len)
		compact(rx);
	do {
		fate = gather(rx, s, len, list, &count);
	} while (fate == WAITS && may_run(rx) && virtio_want_kick(d, queue_of(rx)) && rx->rejects);
	switch (fate) {
	case FITS:
		push_frame(rx, s, len, list, count);
		virtio_used_soon(d, queue_of(rx));
		break;
	case NEVER:
		drop(rx, s);
		break;
	case WAITS:
		starved(rx);
		return false;
	}
	rx->starved = false;
	return true;
}

/* Delivers what was read; false where something has to wait. */
static bool deliver_all(struct net_rx *rx)
{
	while (rx->at < rx->slots) {
		if (!deliver(rx, &rx->slot[rx->at]))
			return false;
		rx->at++;
	}
	if (rx->slots)
		compact(rx);
	rx->slots = rx->at = 0;
	return true;
}

/* Reading. */

/* Makes the next slot from the pool, and from the queue if that is too little. */
static bool add_slot(struct net_rx *rx)
{
	struct rx_slot *s = &rx->slot[rx->slots];
	u32 want = rx->n->merge ? rx->expect : 0;

	s->first = rx->next;
	s->count = s->room = 0;
	s->paid = false;
	while (!s->count || s->room < want) {
		const struct rx_buf *b = &rx->pool[rx->next];

		if (rx->next == rx->pool_count && !pop_buf(rx))
			break;
		s->room += room_in(rx, b, !s->count);
		s->count++;
		rx->next++;
	}
	/* What is there must do for the first; others wait until there is enough for them. */
	if (!s->count || (rx->slots && s->room < want)) {
		rx->next = s->first;
		return false;
	}
	if (s->room > NET_FRAME_MAX)
		s->room = NET_FRAME_MAX;
	rx->slots++;
	return true;
}

static void start_read(struct net_rx *rx, struct rx_slot *s, unsigned index)
{
	struct iovec *v = &rx->read_iov[rx->read_iov_count];
	u8 *spill = rx->spill + (size_t)index * SPILL;
	unsigned k = 0;
	u32 left = s->room;

	v[k++] = (struct iovec){&s->hdr, sizeof(s->hdr)};
	for (unsigned i = 0; i < s->count; i++) {
		const struct rx_buf *b = &rx->pool[s->first + i];

		u32 room = room_in(rx, b, !i), skip = i ? 0 : rx->n->hdr_len;

		k += iov_slice(&rx->iov[b->iov_at], b->iov_count, skip, left, &v[k]);
		left -= left < room ? left : room;
	}
	v[k++] = (struct iovec){spill, SPILL - s->room};
	s->tail = spill;
	rx->read_iov_count += k;
	virtio_io_begin(&rx->n->dev);
	if (rx->n->backend.no_nowait)
		ring_readv_at_once(rx->n->ring, &s->op, rx->fd, v, k);
	else
		ring_readv(rx->n->ring, &s->op, rx->fd, v, k, (u64)-1, RWF_NOWAIT);
}

static void start_batch(struct net_rx *rx)
{
	struct net *n = rx->n;
	struct vq *q = queue_of(rx);

	vq_kicks_off(q);
	rx->next = 0;
	do {
		while (rx->slots < rx->burst && add_slot(rx))
			;
	} while (!rx->slots && virtio_want_kick(&n->dev, q) && rx->rejects);
	if (!rx->slots) {
		starved(rx);
		return;
	}
	rx->starved = false;
	rx->read_iov_count = 0;
	rx->epoch = n->dev.epoch;
	rx->in_kernel = rx->slots;
	for (unsigned i = 0; i < rx->slots; i++)
		start_read(rx, &rx->slot[i], i);
}

/* Delivers, then goes on reading or waits for the TAP. */
static void go_on(struct net_rx *rx)
{
	bool stream = rx->n->backend.kind == NET_PASST;

	do {
		if (!deliver_all(rx))
			return;
		if (rx->dry || !may_run(rx))
			unpop(rx);
		if (!may_run(rx) || !rx->n->link_up)
			return;
	} while (stream && net_stream_frames(rx));
	if (!rx->n->link_up)
		return;
	if (rx->dry)
		ring_poll(rx->n->ring, &rx->poll_op, rx->fd, POLLIN);
	else if (stream)
		net_stream_receive(rx);
	else
		start_batch(rx);
}

void net_rx_ended(struct net_rx *rx)
{
	rx->in_kernel = 0;
	rx->rejects = queue_of(rx)->size;
	if (rx->epoch == rx->n->dev.epoch)
		go_on(rx);
	else
		forget(rx);
}

void net_rx_run(struct net_rx *rx)
{
	if (!may_run(rx) || rx->in_kernel || rx->poll_op.busy)
		return;
	rx->rejects = queue_of(rx)->size;
	if (rx->recover)
		recover(rx);
	go_on(rx);
}

static void poll_done(struct ring_op *op, int res)
{
	struct net_rx *rx = container_of(op, struct net_rx, poll_op);

	pthread_mutex_lock(&rx->n->dev.lock);
	rx->dry = false;
	net_rx_run(rx);
	pthread_mutex_unlock(&rx->n->dev.lock);
}

/* Whether a read that ended so says that there will be no more frames. */
static bool is_end(int res)
{
	return !res || (res < 0 && res != -EAGAIN && res != -EINTR && res != -ENOMEM &&
			       res != -ENOBUFS);
}

/* Whether a read brought a frame for the guest; then `res` becomes its length. */
static bool take_frame(struct net_rx *rx, struct rx_slot *s)
{
	if (s->res <= 0)
		return false;
	s->res -= (int)NET_HDR;
	if (s->res < (int)NET_ETH || s->res > (int)NET_FRAME_MAX || !check_header(rx->n, &s->hdr)) {
		rx->n->stats.rx_dropped++;
		return false;
	}
	for (unsigned i = s->first; i < s->first + s->count; i++)
		rx->pool[i].taken = true;
	return true;
}

/* The op stays where it is: it names its slot. */
static void move_slot(struct rx_slot *to, const struct rx_slot *from)
{
	if (to == from)
		return;
	to->hdr = from->hdr;
	to->first = from->first;
	to->count = from->count;
	to->room = from->room;
	to->tail = from->tail;
	to->res = from->res;
	to->paid = from->paid;
}

/* Sorts out what a batch brought: slots with a frame stay, in order. */
static void sort_batch(struct net_rx *rx)
{
	unsigned frames = 0;
	u32 longest = 0, decayed = rx->expect - rx->expect / 4;
	bool end = false;

	rx->dry = false;
	for (unsigned i = 0; i < rx->slots; i++) {
		struct rx_slot *s = &rx->slot[i];

		end |= is_end(s->res);
		rx->dry |= s->res <= 0;
		if (!take_frame(rx, s))
			continue;
		longest = (u32)s->res > longest ? (u32)s->res : longest;
		move_slot(&rx->slot[frames++], s);
	}
	if (frames)
		rx->expect = longest > decayed ? longest : decayed;
	rx->burst = rx->dry ? frames + 1 : 2 * rx->slots;
	if (rx->burst > NET_RX_BATCH)
		rx->burst = NET_RX_BATCH;
	rx->slots = frames;
	rx->at = 0;
	if (end)
		net_link_down(rx->n);
}

static void read_done(struct ring_op *op, int res)
{
	struct rx_slot *s = container_of(op, struct rx_slot, op);
	struct net_rx *rx = s->rx;
	struct virtio_dev *d = &rx->n->dev;

	pthread_mutex_lock(&d->lock);
	virtio_io_end(d);
	s->res = res;
	if (--rx->in_kernel == 0) {
		if (rx->epoch == d->epoch)
			sort_batch(rx);
		net_rx_ended(rx);
	}
	pthread_mutex_unlock(&d->lock);
}
