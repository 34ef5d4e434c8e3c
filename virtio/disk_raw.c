/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_raw.c - requests on one file or block device.
 *
 * Theory of operation
 *
 * A request is one operation of the ring: read or write of one buffer, readv or writev of several,
 * fallocate, fdatasync. Where the kernel does less than it was asked for, or was interrupted, it
 * gets the rest to do. A file that ends too early is an error, as the guest must not see a sector
 * half read.
 *
 * Flush. fdatasync tells of a failed write-back once, and to one caller; afterwards the pages count
 * as clean although they never reached the disk. So after one failure every later flush fails as
 * well, and only one fdatasync is under way at a time: of two, one could hear of the failure and
 * the other one answer first. Those that ask meanwhile share the next one. A failed durable write
 * has heard of the failure in place of a flush too, and counts as one if there are writes that a
 * flush would have to account for; where all writes are durable each has had its own answer.
 *
 * Discard and write-zeroes are fallocate: PUNCH_HOLE, or ZERO_RANGE where the space is to stay.
 * What a file system cannot do is not asked of it again; zeroes are written then. Block devices do
 * this for whole logical blocks: what is less is left alone, or written.
 *
 * The order in everything here: the disk's own state first, then the callback, then nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory/memory.h"
#include "monitor/base/arith.h"
#include "virtio/disk_int.h"

#define RETRIES_MAX 100u /* in a row, without a byte done */
#define ZERO_BUF    65536u

/* A long run of zeroes that is written piece by piece. */
struct zero_walk {
	struct disk_op piece;
	struct disk_op *op;
	struct iovec iov[ZERO_IOVS];
};

static const u8 zeroes[ZERO_BUF] __attribute__((aligned(4096)));

static void flush_next(struct disk *d);
static void send_fallocate(struct disk_op *op);

static struct disk_op *op_of(struct ring_op *r)
{
	return container_of(r, struct disk_op, ring);
}

void raw_init(struct disk *d)
{
	hold_init(&d->ranges);
	TAILQ_INIT(&d->bounce.waiting);
	TAILQ_INIT(&d->sync_waiting);
	TAILQ_INIT(&d->sync_running);
}

void raw_end(struct disk_op *op, int res)
{
	struct disk *d = op->disk;

	if (op->extra)
		direct_end(op);
	hold_drop(&d->ranges, &op->hold);
	if (res < 0 && op->durable && res != -ECANCELED && d->writes != d->synced)
		d->failed = true;
	op->done(op, res);
}

static void end_now(struct ring_op *r, int res)
{
	raw_end(op_of(r), op_of(r)->res);
}

void raw_end_later(struct disk_op *op, int res)
{
	op->res = res;
	op->ring.done = end_now;
	ring_nop(op->disk->ring, &op->ring);
}

bool raw_again(struct disk_op *op, int res)
{
	if (res > 0)
		op->retries = 0;
	else if ((res != -EINTR && res != -EAGAIN) || op->retries++ == RETRIES_MAX)
		return false;
	return !op->cancelled;
}

/* Not all was done at once. */
static void rw_more(struct disk_op *op, int res)
{
	if (res > 0)
		op->at += (u32)res;
	must(op->at <= op->count);
	if (op->at == op->count)
		raw_end(op, 0);
	else if (raw_again(op, res))
		raw_send(op);
	else if (op->cancelled)
		raw_end(op, -ECANCELED);
	else
		raw_end(op, res < 0 ? res : -EIO);
}

static void rw_done(struct ring_op *r, int res)
{
	struct disk_op *op = op_of(r);

	if (!op->at && res == (s64)op->count && !op->hold.held)
		op->done(op, 0);
	else
		rw_more(op, res);
}

void raw_send(struct disk_op *op)
{
	struct ring *ring = op->disk->ring;
	const struct iovec *iov = op->iov;
	unsigned n = op->iov_count;
	int flags = op->durable ? RWF_DSYNC : 0, fd = op->disk->fd;
	u64 skip = op->at, off = op->off + op->at;

	while (skip && skip >= iov->iov_len) {
		skip -= iov->iov_len;
		iov++;
		n--;
	}
	op->ring.done = rw_done;
	if (n > 1 && !skip) {
		if (n > IOV_MAX)
			n = IOV_MAX;
		if (op->what == DISK_OP_READ)
			ring_readv(ring, &op->ring, fd, iov, n, off, 0);
		else
			ring_writev(ring, &op->ring, fd, iov, n, off, flags);
		return;
	}
	/* One buffer, or the rest of one. */
	if (op->what == DISK_OP_READ)
		ring_pread(ring, &op->ring, fd, (u8 *)iov->iov_base + skip,
			(unsigned)(iov->iov_len - skip), off);
	else
		ring_pwrite(ring, &op->ring, fd, (const u8 *)iov->iov_base + skip,
			(unsigned)(iov->iov_len - skip), off, flags);
}

void raw_op_init(struct disk *d, struct disk_op *op, enum disk_what what, u64 off, u64 count)
{
	must(range_ok(off, count, d->size));
	op->disk = d;
	op->what = (u8)what;
	op->retries = 0;
	op->durable = op->unmap = op->cancelled = false;
	op->off = off;
	op->at = 0;
	op->count = count;
	op->extra = NULL;
}

static void rw_start(struct disk_op *op, const struct iovec *iov, unsigned n)
{
	u64 sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	must(sum == op->count);
	op->iov = iov;
	op->iov_count = n;
	if (!op->count)
		raw_end_later(op, 0);
	else if (op->disk->direct)
		direct_start(op);
	else
		raw_send(op);
}

void raw_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u64 len)
{
	raw_op_init(d, op, DISK_OP_READ, off, len);
	rw_start(op, iov, n);
}

void raw_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u64 len, bool durable)
{
	raw_op_init(d, op, DISK_OP_WRITE, off, len);
	op->durable = durable && d->sync != DISK_UNSAFE;
	d->writes += !op->durable;
	rw_start(op, iov, n);
}

/* Ends all of @list. The list is the caller's own: a callback may end the disk. */
static void end_all(struct disk_ops *list, int res)
{
	struct disk_op *op;

	while ((op = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, op, link);
		raw_end(op, res);
	}
}

static void flush_done(struct ring_op *r, int res)
{
	struct disk *d = container_of(r, struct disk, sync_op);
	struct disk_ops list = TAILQ_HEAD_INITIALIZER(list);

	if ((res == -EINTR || res == -EAGAIN) && d->sync_retries++ < RETRIES_MAX) {
		ring_fdatasync(d->ring, &d->sync_op, d->fd);
		return;
	}
	if (res < 0)
		d->failed = true;
	else
		d->synced = d->sync_writes;
	if (d->failed) {
		if (res >= 0)
			res = -EIO;
		TAILQ_CONCAT(&d->sync_running, &d->sync_waiting, link);
	}
	TAILQ_CONCAT(&list, &d->sync_running, link);
	flush_next(d);
	end_all(&list, res);
}

/* Begins an fdatasync for all that wait for one, if none is under way. */
static void flush_next(struct disk *d)
{
	if (d->sync_op.busy || TAILQ_EMPTY(&d->sync_waiting))
		return;
	TAILQ_CONCAT(&d->sync_running, &d->sync_waiting, link);
	d->sync_writes = d->writes;
	d->sync_retries = 0;
	d->sync_op.done = flush_done;
	ring_fdatasync(d->ring, &d->sync_op, d->fd);
}

static void flush_add(struct disk_op *op)
{
	struct disk *d = op->disk;

	if (d->failed) {
		raw_end_later(op, -EIO);
		return;
	}
	TAILQ_INSERT_TAIL(&d->sync_waiting, op, link);
	flush_next(d);
}

void raw_flush(struct disk *d, struct disk_op *op)
{
	raw_op_init(d, op, DISK_OP_FLUSH, 0, 0);
	if (d->sync == DISK_UNSAFE || d->read_only)
		raw_end_later(op, 0);
	else
		flush_add(op);
}

int raw_sync_now(struct disk *d, struct err *e)
{
	if (d->read_only)
		return 0;
	if (d->failed)
		return err_set(e, -EIO, "cannot sync disk %s: an earlier flush failed", d->path);
	while (fdatasync(d->fd) < 0) {
		if (errno == EINTR)
			continue;
		d->failed = true;
		return err_sys(e, errno, "cannot sync disk %s", d->path);
	}
	d->synced = d->writes;
	return 0;
}

unsigned zero_iov(struct iovec iov[ZERO_IOVS], u64 *len)
{
	u64 left = *len;
	unsigned n = 0;

	for (; left && n < ZERO_IOVS; n++) {
		iov[n].iov_base = (void *)(uintptr_t)zeroes;
		iov[n].iov_len = left < ZERO_BUF ? left : ZERO_BUF;
		left -= iov[n].iov_len;
	}
	*len -= left;
	return n;
}

static void zero_piece(struct zero_walk *w)
{
	struct disk_op *op = w->op;
	u64 len = op->count - op->at;
	unsigned n = zero_iov(w->iov, &len);

	raw_write(op->disk, &w->piece, w->iov, n, op->off + op->at, len, op->durable);
}

/* The disk may have shrunk since the request came in: what is left must not make it grow again. */
static bool is_inside(const struct disk_op *op)
{
	return range_ok(op->off, op->count, op->disk->size);
}

static void zero_piece_done(struct disk_op *piece, int res)
{
	struct zero_walk *w = container_of(piece, struct zero_walk, piece);
	struct disk_op *op = w->op;

	op->at += piece->count;
	if (!res && op->cancelled)
		res = -ECANCELED;
	if (!res && op->at < op->count) {
		if (is_inside(op)) {
			zero_piece(w);
			return;
		}
		res = -EIO;
	}
	free(w);
	op->extra = NULL;
	raw_end(op, res);
}

/* Each piece takes a hold of its own, so that long runs do not keep others waiting. */
static void write_zeroes(struct disk_op *op)
{
	struct zero_walk *w = is_inside(op) ? calloc(1, sizeof(*w)) : NULL;

	hold_drop(&op->disk->ranges, &op->hold);
	if (!w) {
		raw_end_later(op, is_inside(op) ? -ENOMEM : -EIO);
		return;
	}
	w->op = op;
	w->piece.done = zero_piece_done;
	op->extra = w;
	zero_piece(w);
}

/* How to do @op; 0: not by fallocate(). */
static int fallocate_mode(const struct disk_op *op)
{
	const struct disk *d = op->disk;

	if (d->is_block && ((op->off | op->count) & (d->block_size - 1)))
		return 0;
	if (op->unmap && !d->no_punch)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	if (op->what == DISK_OP_ZERO && !d->no_zero_range)
		return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	return 0;
}

static bool cannot(int res)
{
	return res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL;
}

static void fallocate_done(struct ring_op *r, int res)
{
	struct disk_op *op = op_of(r);
	struct disk *d = op->disk;

	if (res && raw_again(op, res)) {
		send_fallocate(op);
	} else if (res && op->cancelled) {
		raw_end(op, -ECANCELED);
	} else if (cannot(res)) {
		if (fallocate_mode(op) & FALLOC_FL_PUNCH_HOLE)
			d->no_punch = true;
		else
			d->no_zero_range = true;
		send_fallocate(op);
	} else if (!res && op->durable) {
		hold_drop(&d->ranges, &op->hold);
		flush_add(op);
	} else {
		raw_end(op, res);
	}
}

static void send_fallocate(struct disk_op *op)
{
	struct disk *d = op->disk;
	int mode = fallocate_mode(op);

	op->ring.done = fallocate_done;
	if (mode)
		ring_fallocate(d->ring, &op->ring, d->fd, mode, op->off, op->count);
	else if (op->what == DISK_OP_DISCARD)
		raw_end_later(op, 0);
	else
		write_zeroes(op);
}

static void fallocate_go(struct disk_hold *h)
{
	send_fallocate(container_of(h, struct disk_op, hold));
}

static void fallocate_start(struct disk_op *op)
{
	if (!op->count) {
		raw_end_later(op, 0);
		return;
	}
	op->hold.lo = op->off;
	op->hold.hi = op->off + op->count;
	op->hold.exclusive = false;
	op->hold.go = fallocate_go;
	if (!op->disk->direct || hold_take(&op->disk->ranges, &op->hold))
		send_fallocate(op);
}

void raw_discard(struct disk *d, struct disk_op *op, u64 off, u64 len)
{
	u64 unit = d->is_block ? d->block_size : DISK_SECTOR, first, end;

	must(range_ok(off, len, d->size));
	first = align_up(off, unit);
	end = align_down(off + len, unit);
	raw_op_init(d, op, DISK_OP_DISCARD, first < end ? first : 0, first < end ? end - first : 0);
	op->unmap = true;
	d->writes++;
	fallocate_start(op);
}

void raw_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable)
{
	raw_op_init(d, op, DISK_OP_ZERO, off, len);
	op->durable = durable && d->sync != DISK_UNSAFE;
	op->unmap = unmap;
	d->writes += !op->durable;
	fallocate_start(op);
}

void raw_cancel(struct disk *d, struct disk_op *op)
{
	op->cancelled = true;
	if (op->what == DISK_OP_ZERO && op->extra)
		raw_cancel(d, &((struct zero_walk *)op->extra)->piece);
	else
		ring_cancel(d->ring, &op->ring);
}
