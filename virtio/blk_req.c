/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_req.c - the requests of a block device, from the chain to the used ring.
 *
 * Theory of operation
 *
 * A chain is a header (16 bytes), data, and one status byte; only the directions and the order
 * count, not how the driver cut them into buffers (virtio 1.2, 2.7.4). So the header is the first
 * 16 readable bytes, what the device reads are the readable bytes behind it, the status byte is
 * the last writable byte, and what the device writes are the writable bytes before that.
 *
 * Trust. The header, and the ranges of a discard, are copied to the host once; the copies are
 * checked as a whole before anything is started. Data is never looked at: the disk gets iovecs into
 * guest RAM. RAM stays mapped as long as the VM, so a late completion hurts nobody.
 *
 * What is wrong with a chain is answered, best first: by a status (IOERR for what cannot be done,
 * UNSUPP for what this device does not know), by giving the head back unused where there is no
 * status byte, and by NEEDS_RESET where the ring itself is broken.
 *
 * Hot path. The request is taken from a list (last in, first out), the buffers of small requests
 * lie in it, and the disk's callback only puts it on another list. At the end of the loop's turn
 * all that were done go to the used rings under one lock, with one interrupt behind them.
 *
 * Every head is pushed exactly once, by finish(), or goes back to the queue by vq_unpop(). After a
 * reset finish() finds an older epoch and touches neither the ring nor the status byte.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/arith.h"
#include "monitor/base/clock.h"
#include "virtio/blk_int.h"

/* What is to be done with a chain. The first three are answers. */
enum verdict {
	ANSWER_OK = VIRTIO_BLK_S_OK,
	ANSWER_IOERR = VIRTIO_BLK_S_IOERR,
	ANSWER_UNSUPP = VIRTIO_BLK_S_UNSUPP,
	START, /* it is checked, the disk can have it */
};

/* How it is with a queue after a chain, or some. */
enum progress {
	QUEUE_MORE,
	QUEUE_EMPTY,
	QUEUE_STOP, /* no queue is to be looked at now: tokens are short, or a ring is broken */
};

static void op_done(struct disk_op *op, int res);
static void finish_all(struct ring_task *t);

void blk_req_init(struct blk *b, struct blk_req *pool, unsigned size)
{
	b->pool = pool;
	b->pool_size = size;
	b->finish.run = finish_all;
	STAILQ_INIT(&b->free);
	STAILQ_INIT(&b->done);
}

void blk_req_free_all(struct blk *b)
{
	for (unsigned i = 0; i < b->pool_used; i++)
		free(b->pool[i].heap);
	free(b->pool);
}

/* For the chain that was just popped from @q. There is one: heads are fewer than the pool. */
static struct blk_req *new_req(struct blk *b, const struct vq *q)
{
	struct blk_req *r = STAILQ_FIRST(&b->free);

	if (r) {
		STAILQ_REMOVE_HEAD(&b->free, link);
	} else {
		must(b->pool_used < b->pool_size);
		r = &b->pool[b->pool_used++];
		r->b = b;
		r->op.done = op_done;
	}
	r->queue = (u8)(q - b->dev.queue);
	r->head = b->chain.head;
	r->epoch = b->dev.epoch;
	r->len = r->n = r->at = 0;
	return r;
}

static void free_req(struct blk_req *r)
{
	free(r->heap);
	r->heap = NULL;
	STAILQ_INSERT_HEAD(&r->b->free, r, link);
}

/* Gives the head back with the outcome and @len bytes of data, and forgets the request. */
static void finish(struct blk_req *r, u8 status, u32 len)
{
	struct virtio_dev *d = &r->b->dev;
	struct vq *q = &d->queue[r->queue];

	if (r->epoch == d->epoch && q->live) {
		iov_from_host(&r->status, 1, 0, &status, 1);
		vq_push(q, r->head, len + 1);
		virtio_used_soon(d, q);
	}
	free_req(r);
}

/* Checking. */

/* Room for @n entries of 16 bytes. */
static bool get_room(struct blk_req *r, u32 n)
{
	_Static_assert(sizeof(struct iovec) == sizeof(struct blk_range), "either fits");
	r->iov = r->few_iov;
	if (n <= BLK_FEW)
		return true;
	r->iov = r->heap = malloc(n * sizeof(struct iovec));
	return r->heap;
}

/* Data that the disk gets, from or to the chain's buffers. */
static enum verdict check_data(struct blk *b, struct blk_req *r, u64 sector)
{
	const struct vq_chain *c = &b->chain;
	bool write = r->kind == BLK_WRITE;

	r->len = write ? c->out_len - BLK_HDR : c->in_len - 1;
	if (!r->len || r->len % DISK_SECTOR ||
		!range_ok(sector, r->len / DISK_SECTOR, b->capacity))
		return ANSWER_IOERR;
	if (!get_room(r, write ? c->out_count : c->in_count))
		return ANSWER_IOERR;
	r->off = sector * DISK_SECTOR;
	if (write)
		r->n = iov_slice(c->iov, c->out_count, BLK_HDR, r->len, r->iov);
	else
		r->n = iov_slice(c->iov + c->out_count, c->in_count, 0, r->len, r->iov);
	return START;
}

/* One range; 5.2.6.2 says which flags are UNSUPP. */
static enum verdict check_range(const struct blk *b, const struct blk_req *r,
	const struct blk_range *g)
{
	u32 max = r->kind == BLK_DISCARD ? BLK_DISCARD_SECTORS : BLK_ZEROES_SECTORS;
	u32 flags = r->kind == BLK_DISCARD ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (g->flags & ~flags)
		return ANSWER_UNSUPP;
	if (!g->count || g->count > max || !range_ok(g->sector, g->count, b->capacity))
		return ANSWER_IOERR;
	return START;
}

/* Copies and checks the ranges of a discard or write-zeroes request. */
static enum verdict check_ranges(struct blk *b, struct blk_req *r)
{
	struct virtio_blk_discard_write_zeroes wire;
	const struct vq_chain *c = &b->chain;
	u32 len = c->out_len - BLK_HDR;
	enum verdict v = START;

	if (!len || len % sizeof(wire) || len / sizeof(wire) > BLK_RANGES_MAX)
		return ANSWER_IOERR;
	if (!get_room(r, (u32)(len / sizeof(wire))))
		return ANSWER_IOERR;
	for (r->n = 0; r->n < len / sizeof(wire) && v == START; r->n++) {
		struct blk_range *g = &r->range[r->n];

		iov_to_host(c->iov, c->out_count, BLK_HDR + r->n * sizeof(wire), &wire,
			sizeof(wire));
		g->sector = le64toh(wire.sector);
		g->count = le32toh(wire.num_sectors);
		g->flags = le32toh(wire.flags);
		v = check_range(b, r, g);
	}
	return v;
}

/* Writes as much of the serial as there is room for. */
static enum verdict get_id(struct blk *b, struct blk_req *r)
{
	const struct vq_chain *c = &b->chain;

	r->len = c->in_len - 1 < BLK_ID_MAX ? c->in_len - 1 : BLK_ID_MAX;
	iov_from_host(c->iov + c->out_count, c->in_count, 0, b->serial, r->len);
	return ANSWER_OK;
}

static bool offers(const struct blk *b, u64 feature)
{
	return b->dev.features & feature;
}

/* Reads the header in b->chain, which has a status byte, and says what is to be done. */
static enum verdict check(struct blk *b, struct blk_req *r)
{
	const struct vq_chain *c = &b->chain;
	struct virtio_blk_outhdr h;
	bool read_only = disk_read_only(b->disk);

	if (iov_to_host(c->iov, c->out_count, 0, &h, sizeof(h)) != sizeof(h))
		return ANSWER_IOERR;
	switch (le32toh(h.type)) {
	case VIRTIO_BLK_T_IN:
		r->kind = BLK_READ;
		return check_data(b, r, le64toh(h.sector));
	case VIRTIO_BLK_T_OUT:
		r->kind = BLK_WRITE;
		return read_only ? ANSWER_IOERR : check_data(b, r, le64toh(h.sector));
	case VIRTIO_BLK_T_FLUSH:
		/* Also where it was not negotiated: that writes are durable then is no reason. */
		r->kind = BLK_FLUSH;
		return offers(b, BLK_MASK(FLUSH)) ? START : ANSWER_UNSUPP;
	case VIRTIO_BLK_T_GET_ID:
		r->kind = BLK_GET_ID;
		return get_id(b, r);
	case VIRTIO_BLK_T_DISCARD:
		r->kind = BLK_DISCARD;
		if (read_only)
			return ANSWER_IOERR;
		return offers(b, BLK_MASK(DISCARD)) ? check_ranges(b, r) : ANSWER_UNSUPP;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		r->kind = BLK_ZEROES;
		if (read_only)
			return ANSWER_IOERR;
		return offers(b, BLK_MASK(WRITE_ZEROES)) ? check_ranges(b, r) : ANSWER_UNSUPP;
	default:
		return ANSWER_UNSUPP;
	}
}

/* Starting and finishing. */

/* A driver that cannot flush is promised that what was written stays. */
static bool write_through(const struct blk *b)
{
	return !virtio_has(&b->dev, BLK_MASK(FLUSH)) && disk_sync(b->disk) != DISK_UNSAFE;
}

static void start_range(struct blk_req *r)
{
	const struct blk_range *g = &r->range[r->at];
	u64 off = g->sector * DISK_SECTOR, len = (u64)g->count * DISK_SECTOR;
	struct disk *disk = r->b->disk;

	if (r->kind == BLK_DISCARD)
		disk_discard(disk, &r->op, off, len);
	else
		disk_write_zeroes(disk, &r->op, off, len,
			g->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, r->durable);
}

/* Hands a request, or its next range, to the disk. */
static void start(struct blk_req *r)
{
	struct disk *disk = r->b->disk;

	r->with_disk = true;
	switch (r->kind) {
	case BLK_READ:
		disk_read(disk, &r->op, r->iov, r->n, r->off, r->len);
		break;
	case BLK_WRITE:
		disk_write(disk, &r->op, r->iov, r->n, r->off, r->len, r->durable);
		break;
	case BLK_FLUSH:
		disk_flush(disk, &r->op);
		break;
	default:
		start_range(r);
		break;
	}
}

static void op_done(struct disk_op *op, int res)
{
	struct blk_req *r = container_of(op, struct blk_req, op);

	r->with_disk = false;
	r->res = res;
	STAILQ_INSERT_TAIL(&r->b->done, r, link);
	ring_at_end(r->b->ring, &r->b->finish);
}

static void account(struct blk_stats *s, const struct blk_req *r)
{
	if (r->res) {
		s->failed++;
		return;
	}
	switch (r->kind) {
	case BLK_READ:
		s->reads++;
		s->read_bytes += r->len;
		break;
	case BLK_WRITE:
		s->writes++;
		s->write_bytes += r->len;
		break;
	case BLK_FLUSH: s->flushes++; break;
	case BLK_DISCARD: s->discards++; break;
	default: s->zeroes++; break;
	}
}

/* Goes on with the next range, if there is one. The disk may have shrunk since the check. */
static bool next_range(struct blk_req *r)
{
	if (r->res || (r->kind != BLK_DISCARD && r->kind != BLK_ZEROES) || ++r->at == r->n ||
		r->epoch != r->b->dev.epoch)
		return false;
	if (!range_ok(r->range[r->at].sector, r->range[r->at].count, r->b->capacity)) {
		r->res = -EIO;
		return false;
	}
	start(r);
	return true;
}

/* The disk is done with a request, or with one of its ranges. */
static void done(struct blk_req *r)
{
	struct virtio_dev *d = &r->b->dev;

	if (next_range(r))
		return;
	account(&r->b->stats, r);
	finish(r, r->res ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK,
		r->kind == BLK_READ && !r->res ? r->len : 0);
	virtio_io_end(d);
}

/* The turn is over: what the disk has done becomes visible. */
static void finish_all(struct ring_task *t)
{
	struct blk *b = container_of(t, struct blk, finish);
	struct blk_req *r;

	pthread_mutex_lock(&b->dev.lock);
	while ((r = STAILQ_FIRST(&b->done))) {
		STAILQ_REMOVE_HEAD(&b->done, link);
		done(r);
	}
	if (!b->dev.io_count)
		blk_drained(b);
	pthread_mutex_unlock(&b->dev.lock);
}

void blk_cancel_all(struct blk *b)
{
	for (unsigned i = 0; i < b->pool_used; i++) {
		if (b->pool[i].with_disk)
			disk_cancel(b->disk, &b->pool[i].op);
	}
}

/* Taking. */

/* What a request costs in tokens: discards move no data. */
static u64 cost(const struct blk_req *r)
{
	u64 bytes = r->len;

	for (u32 i = 0; r->kind == BLK_ZEROES && i < r->n; i++)
		bytes += (u64)r->range[i].count * DISK_SECTOR;
	return bytes;
}

/* Whether there are tokens for it; else when to try again has been arranged. */
static bool admit(struct blk *b, const struct blk_req *r)
{
	u64 now_ns, bytes;

	if (!b->limited)
		return true;
	now_ns = monotonic_ns();
	bytes = cost(r);
	if (limit_take(&b->limit, bytes, now_ns))
		return true;
	b->stats.throttled++;
	blk_wait_until(b, limit_ready_ns(&b->limit, bytes, now_ns));
	return false;
}

/* A chain that has no place for a status. */
static void give_back(struct blk *b, struct vq *q)
{
	b->stats.rejected++;
	vq_push(q, b->chain.head, 0);
	virtio_used_soon(&b->dev, q);
}

/* The chain in b->chain. */
static enum progress take(struct blk *b, struct vq *q)
{
	const struct vq_chain *c = &b->chain;
	const struct iovec *last;
	struct blk_req *r;
	enum verdict v;

	if (!c->in_len) {
		give_back(b, q);
		return QUEUE_MORE;
	}
	r = new_req(b, q);
	last = &c->iov[c->out_count + c->in_count - 1];
	iov_slice(last, 1, last->iov_len - 1, 1, &r->status);
	v = check(b, r);
	if (v != START) {
		b->stats.rejected += v != ANSWER_OK;
		finish(r, (u8)v, v == ANSWER_OK ? r->len : 0);
		return QUEUE_MORE;
	}
	if (!admit(b, r)) {
		vq_unpop(q, c->head);
		free_req(r);
		return QUEUE_STOP;
	}
	b->taken += r->len;
	r->durable = write_through(b);
	virtio_io_begin(&b->dev);
	start(r);
	return QUEUE_MORE;
}

/* Takes up to @burst chains. */
static enum progress drain(struct blk *b, struct vq *q, unsigned burst)
{
	enum progress p = QUEUE_MORE;

	vq_kicks_off(q);
	b->taken = 0;
	while (p == QUEUE_MORE && burst && b->taken < BLK_BURST_BYTES) {
		switch (vq_pop(q, &b->chain)) {
		case VQ_OK:
			p = take(b, q);
			burst--;
			break;
		case VQ_REJECT:
			give_back(b, q);
			burst--;
			break;
		case VQ_BAD:
			virtio_fail(&b->dev);
			return QUEUE_STOP;
		case VQ_EMPTY:
			if (!virtio_want_kick(&b->dev, q))
				return QUEUE_EMPTY;
			vq_kicks_off(q);
			break;
		}
	}
	if (p == QUEUE_MORE)
		virtio_look_again(&b->dev, q);
	return p;
}

void blk_run(struct blk *b)
{
	struct virtio_dev *d = &b->dev;
	unsigned burst = b->limited ? 1 : BLK_BURST;
	unsigned visits = b->limited ? BLK_BURST + d->queue_count : d->queue_count;
	unsigned idle = 0;

	if (b->waiting || b->next_disk || !virtio_live(d))
		return;
	while (visits-- && idle < d->queue_count) {
		switch (drain(b, &d->queue[b->turn], burst)) {
		case QUEUE_STOP: return; /* with the same queue, later */
		case QUEUE_MORE: idle = 0; break;
		case QUEUE_EMPTY: idle++; break;
		}
		b->turn = (b->turn + 1) % d->queue_count;
	}
}
