/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay.c - copy-on-write: requests on a disk whose base is never written.
 *
 * Theory of operation
 *
 * The disk is cut into clusters of 4 KiB. The overlay file (top) has a place for each, and a bit
 * that says whether the cluster is there; where it is not, the saved overlay below has it, or the
 * base. Bits are only ever set. A request that lies in one place is passed on as it is: that is one
 * operation of the ring, and nothing is allocated. Everything else is a walk, which goes piece by
 * piece.
 *
 * Reads. A piece is what lies in one place.
 *
 * Writes to clusters that are not all in top. What is missing of the first and the last cluster is
 * read from below and written together with the data, so that whole clusters appear. The walk holds
 * its clusters for itself meanwhile (disk_hold.c): a second write to one of them would not see the
 * first one's data. Writes to clusters that are in top already need no hold: they write what the
 * guest asked for and nothing else, while a walk writes more than that only into clusters that are
 * not in top.
 *
 * Discarded and zeroed clusters become holes in top that are there, so that the base does not show.
 *
 * Two maps in the file keep the promises of disk.h.
 * Map A is for the death of this process: bits are written once the data is, and the request is
 * completed after that. It is in the page cache like the data, so it means nothing after a crash of
 * the host, and is valid only for the kernel whose boot id is in the header.
 * Map B is for the loss of power. A flush syncs the data, then writes the bits that map A had when
 * it began to map B, and syncs again. Every bit in it stands for data that is safe; since bits are
 * only set, it does not matter how much of such a write arrives. Whoever opens the overlay under
 * another kernel takes map B as it is, and makes map A the same. The first flush also syncs the
 * directory, if the file may be new in it.
 *
 * An unnamed overlay is gone with its process: it has no maps in the file, and nothing to flush.
 *
 * In memory, `map` has the bits that map A is known to have: all decisions are by it. `written` is
 * what is sent to the file: those, and bits of writes under way. Two such writes may share a byte;
 * the buffer is the live map, and the kernel does one write to a page after the other, so the later
 * one never takes back the earlier one's bit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/memory.h"
#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "virtio/overlay_int.h"

#define CLUSTER       OVERLAY_CLUSTER
#define PAGE_CLUSTERS (8u * OVERLAY_MAP_PAGE) /* that a page of a map has bits for */

struct place {
	struct disk *disk;
	u64 off;
};

struct walk {
	struct disk_op sub; /* what is under way */
	struct disk_op *op; /* what it is for; op->at bytes are done */
	struct overlay *o;
	u64 lo, hi;     /* the piece, on the disk */
	u32 head, tail; /* bytes that are added to its first and last cluster */
	u8 *edge;       /* two clusters for them */
	struct iovec one;
	struct iovec iov[]; /* for those of op and three more */
};

static void next_read(struct walk *w);
static void next_piece(struct walk *w);
static void read_edges(struct walk *w);
static void flush_begin(struct overlay *o);

static struct walk *walk_of(struct disk_op *sub)
{
	return container_of(sub, struct walk, sub);
}

static struct place find(const struct overlay *o, u64 off)
{
	u64 c = off / CLUSTER;

	if (overlay_bit(o->map, c))
		return (struct place){o->top, o->data_off + off};
	if (o->saved && overlay_bit(o->saved_map, c))
		return (struct place){o->saved, o->data_off + off};
	return (struct place){o->base, off};
}

/* Where @off is, and how many of the next @len bytes are in the same place. */
static u64 find_run(const struct overlay *o, u64 off, u64 len, struct place *p)
{
	u64 at = align_down(off, CLUSTER) + CLUSTER, end = off + len;

	*p = find(o, off);
	while (at < end && find(o, at).disk == p->disk)
		at += CLUSTER;
	return (at < end ? at : end) - off;
}

static bool all_set(const u8 *map, u64 off, u64 len)
{
	u64 c = off / CLUSTER, last = (off + len - 1) / CLUSTER;

	while (c <= last) {
		if (c % 8 == 0 && c + 7 <= last && map[c / 8] == 0xff)
			c += 8;
		else if (overlay_bit(map, c))
			c++;
		else
			return false;
	}
	return true;
}

static void set_all(u8 *map, u64 c, u64 last)
{
	while (c <= last) {
		if (c % 8 == 0 && c + 7 <= last) {
			map[c / 8] = 0xff;
			c += 8;
		} else {
			map[c / 8] |= (u8)(1u << (c % 8));
			c++;
		}
	}
}

/* Whether a write may go to top as it is, and is then as durable as it has to be. */
static bool is_plain(const struct overlay *o, u64 off, u64 len, bool durable)
{
	if (!all_set(o->map, off, len))
		return false;
	return !durable || (!o->flushing && !o->d->failed && all_set(o->durable, off, len));
}

static void start_op(struct overlay *o, struct disk_op *op, enum disk_what what, u64 off, u64 len)
{
	raw_op_init(o->d, op, what, off, len);
	op->iov = NULL;
	op->iov_count = 0;
}

/* NULL: there is no memory, and the op will end with that. */
static struct walk *walk_make(struct overlay *o, struct disk_op *op)
{
	struct walk *w = calloc(1, sizeof(*w) + (op->iov_count + 3) * sizeof(w->iov[0]));

	if (w && op->what != DISK_OP_READ &&
		posix_memalign((void **)&w->edge, CLUSTER, 2 * CLUSTER)) {
		free(w);
		w = NULL;
	}
	if (!w) {
		raw_end_later(op, -ENOMEM);
		return NULL;
	}
	w->o = o;
	w->op = op;
	op->extra = w;
	return w;
}

/* Leaves the op without a walk; it still has its hold. */
static struct disk_op *walk_free(struct walk *w)
{
	struct disk_op *op = w->op;

	free(w->edge);
	free(w);
	op->extra = NULL;
	return op;
}

static void walk_end(struct walk *w, int res)
{
	raw_end(walk_free(w), res);
}

static void read_done(struct disk_op *sub, int res)
{
	struct walk *w = walk_of(sub);
	struct disk_op *op = w->op;

	op->at += sub->count;
	if (!res && op->at < op->count && op->cancelled)
		res = -ECANCELED;
	if (res || op->at == op->count)
		walk_end(w, res);
	else
		next_read(w);
}

static void next_read(struct walk *w)
{
	struct disk_op *op = w->op;
	struct place p;
	u64 len = find_run(w->o, op->off + op->at, op->count - op->at, &p);
	unsigned n = iov_slice(op->iov, op->iov_count, op->at, len, w->iov);

	w->sub.done = read_done;
	raw_read(p.disk, &w->sub, w->iov, n, p.off, len);
}

void overlay_read(struct overlay *o, struct disk_op *op, const struct iovec *iov, unsigned n,
	u64 off, u64 len)
{
	struct place p = {o->base, off};
	struct walk *w;

	if (!len || find_run(o, off, len, &p) == len) {
		raw_read(p.disk, op, iov, n, p.off, len);
		return;
	}
	start_op(o, op, DISK_OP_READ, off, len);
	op->iov = iov;
	op->iov_count = n;
	w = walk_make(o, op);
	if (w)
		next_read(w);
}

/* All pieces are done. */
static void walk_done(struct walk *w)
{
	struct overlay *o = w->o;
	struct disk_op *op = walk_free(w);

	if (!op->durable) {
		raw_end(op, 0);
		return;
	}
	hold_drop(&o->d->ranges, &op->hold);
	TAILQ_INSERT_TAIL(&o->flush_waiting, op, link);
	flush_begin(o);
}

static void piece_done(struct disk_op *sub, int res)
{
	struct walk *w = walk_of(sub);
	struct overlay *o = w->o;

	if (res) {
		walk_end(w, res);
		return;
	}
	if (!all_set(o->map, w->lo, w->hi - w->lo)) {
		u64 first = w->lo / CLUSTER, last = (w->hi - 1) / CLUSTER;

		set_all(o->map, first, last);
		for (u64 i = first / PAGE_CLUSTERS; i <= last / PAGE_CLUSTERS; i++)
			o->page_stale[i] = 1;
	}
	w->op->at += w->hi - w->lo;
	if (w->op->at == w->op->count)
		walk_done(w);
	else if (w->op->cancelled)
		walk_end(w, -ECANCELED);
	else
		next_piece(w);
}

/* The piece's data is in top: now map A. */
static void data_done(struct disk_op *sub, int res)
{
	struct walk *w = walk_of(sub);
	struct overlay *o = w->o;
	u64 first = w->lo / CLUSTER, last = (w->hi - 1) / CLUSTER;

	if (res || !o->maps || all_set(o->map, w->lo, w->hi - w->lo)) {
		piece_done(sub, res);
		return;
	}
	set_all(o->written, first, last);
	w->one = (struct iovec){o->written + first / 8, last / 8 - first / 8 + 1};
	w->sub.done = piece_done;
	raw_write(o->maps, &w->sub, &w->one, 1, o->map_off[0] + first / 8, w->one.iov_len, false);
}

/* Edges and data together. */
static void write_piece(struct walk *w)
{
	const struct disk_op *op = w->op;
	u64 len = w->hi - w->lo;
	unsigned n = 0;

	if (w->head)
		w->iov[n++] = (struct iovec){w->edge, w->head};
	if (op->what == DISK_OP_WRITE)
		n += iov_slice(op->iov, op->iov_count, 0, len, w->iov + n);
	else
		n += zero_iov(w->iov + n, &len);
	must(len == w->hi - w->lo);
	if (w->tail)
		w->iov[n++] = (struct iovec){w->edge + CLUSTER, w->tail};
	w->sub.done = data_done;
	raw_write(w->o->top, &w->sub, w->iov, n, w->o->data_off + w->lo - w->head,
		w->head + len + w->tail, false);
}

static void tail_done(struct disk_op *sub, int res)
{
	if (res)
		walk_end(walk_of(sub), res);
	else
		write_piece(walk_of(sub));
}

static void read_edge(struct walk *w, u8 *buf, u64 off, u32 len)
{
	struct place p = find(w->o, off);

	w->one = (struct iovec){buf, len};
	raw_read(p.disk, &w->sub, &w->one, 1, p.off, len);
}

static void read_tail(struct walk *w)
{
	w->sub.done = tail_done;
	if (w->tail)
		read_edge(w, w->edge + CLUSTER, w->hi, w->tail);
	else
		write_piece(w);
}

static void head_done(struct disk_op *sub, int res)
{
	if (res)
		walk_end(walk_of(sub), res);
	else
		read_tail(walk_of(sub));
}

static void read_edges(struct walk *w)
{
	u64 size = w->o->d->size, up = align_up(w->hi, CLUSTER);

	w->head = w->tail = 0;
	if (!overlay_bit(w->o->map, w->lo / CLUSTER))
		w->head = (u32)(w->lo % CLUSTER);
	if (!overlay_bit(w->o->map, (w->hi - 1) / CLUSTER))
		w->tail = (u32)((up < size ? up : size) - w->hi);
	w->sub.done = head_done;
	if (w->head)
		read_edge(w, w->edge, w->lo - w->head, w->head);
	else
		read_tail(w);
}

/* A write is one piece. Zeroes are up to three: what is no whole cluster is written. */
static void next_piece(struct walk *w)
{
	struct disk_op *op = w->op;
	u64 end = op->off + op->count, up;

	w->lo = op->off + op->at;
	w->hi = end;
	if (op->what == DISK_OP_WRITE) {
		read_edges(w);
		return;
	}
	if (end != w->o->d->size)
		w->hi = align_down(end, CLUSTER);
	up = align_up(w->lo, CLUSTER);
	if (w->lo == up && w->hi > w->lo) {
		w->sub.done = data_done;
		raw_write_zeroes(w->o->top, &w->sub, w->o->data_off + w->lo, w->hi - w->lo,
			op->unmap, false);
		return;
	}
	w->hi = w->lo != up && up < end ? up : end;
	read_edges(w);
}

static void walk_go(struct disk_hold *h)
{
	struct disk_op *op = container_of(h, struct disk_op, hold);

	if (op->cancelled)
		raw_end_later(walk_free(op->extra), -ECANCELED);
	else
		next_piece(op->extra);
}

/* Begins a walk that writes, once it has its clusters for itself. */
static void write_start(struct overlay *o, struct disk_op *op)
{
	if (!walk_make(o, op))
		return;
	op->hold.lo = align_down(op->off, CLUSTER);
	op->hold.hi = align_up(op->off + op->count, CLUSTER);
	op->hold.exclusive = true;
	op->hold.go = walk_go;
	if (hold_take(&o->d->ranges, &op->hold))
		walk_go(&op->hold);
}

void overlay_write(struct overlay *o, struct disk_op *op, const struct iovec *iov, unsigned n,
	u64 off, u64 len, bool durable)
{
	durable = durable && o->maps && o->d->sync != DISK_UNSAFE;
	if (!len || is_plain(o, off, len, durable)) {
		raw_write(o->top, op, iov, n, o->data_off + off, len, durable);
		return;
	}
	start_op(o, op, DISK_OP_WRITE, off, len);
	op->iov = iov;
	op->iov_count = n;
	op->durable = durable;
	write_start(o, op);
}

void overlay_write_zeroes(struct overlay *o, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable)
{
	durable = durable && o->maps && o->d->sync != DISK_UNSAFE;
	if (!len || is_plain(o, off, len, durable)) {
		raw_write_zeroes(o->top, op, o->data_off + off, len, unmap, durable);
		return;
	}
	start_op(o, op, DISK_OP_ZERO, off, len);
	op->unmap = unmap;
	op->durable = durable;
	write_start(o, op);
}

/* Whole clusters only: less would need room instead of freeing it. */
void overlay_discard(struct overlay *o, struct disk_op *op, u64 off, u64 len)
{
	u64 end = off + len == o->d->size ? off + len : align_down(off + len, CLUSTER);

	if (len && is_plain(o, off, len, false)) {
		raw_discard(o->top, op, o->data_off + off, len);
		return;
	}
	off = align_up(off, CLUSTER);
	start_op(o, op, DISK_OP_DISCARD, off < end ? off : 0, off < end ? end - off : 0);
	op->unmap = true;
	if (op->count && !o->top->no_punch)
		write_start(o, op);
	else
		raw_end_later(op, 0);
}

void overlay_cancel(struct overlay *o, struct disk_op *op)
{
	struct walk *w = op->extra;

	if (op->disk != o->d) {
		raw_cancel(op->disk, op);
		return;
	}
	op->cancelled = true;
	if (w && w->sub.disk)
		raw_cancel(w->sub.disk, &w->sub);
}

void overlay_collect(struct overlay *o)
{
	for (u64 i = 0; i < o->pages; i++) {
		if (!o->page_stale[i])
			continue;
		memcpy(o->durable + i * OVERLAY_MAP_PAGE, o->map + i * OVERLAY_MAP_PAGE,
			OVERLAY_MAP_PAGE);
		o->page_stale[i] = 0;
		o->page_todo[i] = 1;
	}
}

static void flush_end(struct overlay *o, int res)
{
	struct disk_ops list = TAILQ_HEAD_INITIALIZER(list);
	struct disk_op *op;

	if (res < 0)
		o->d->failed = true;
	o->flushing = false;
	TAILQ_CONCAT(&list, &o->flush_running, link);
	if (o->d->failed) {
		TAILQ_CONCAT(&list, &o->flush_waiting, link);
		res = res < 0 ? res : -EIO;
	}
	flush_begin(o);
	while ((op = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, op, link);
		raw_end(op, res);
	}
}

static void maps_synced(struct disk_op *sub, int res)
{
	flush_end(container_of(sub, struct overlay, flush_op), res);
}

/* Writes the next page of map B. */
static void flush_page(struct disk_op *sub, int res)
{
	struct overlay *o = container_of(sub, struct overlay, flush_op);
	u64 at;

	while (!res && o->flush_page < o->pages && !o->page_todo[o->flush_page])
		o->flush_page++;
	if (res || (o->flush_page == o->pages && !o->flush_wrote)) {
		flush_end(o, res);
	} else if (o->flush_page == o->pages) {
		sub->done = maps_synced;
		raw_flush(o->top, sub);
	} else {
		o->page_todo[o->flush_page] = 0;
		o->flush_wrote = true;
		at = o->flush_page * OVERLAY_MAP_PAGE;
		o->flush_iov = (struct iovec){o->durable + at, OVERLAY_MAP_PAGE};
		raw_write(o->maps, sub, &o->flush_iov, 1, o->map_off[1] + at, OVERLAY_MAP_PAGE,
			false);
	}
}

static void flush_data(struct overlay *o)
{
	o->flush_page = 0;
	o->flush_wrote = false;
	o->flush_op.done = flush_page;
	raw_flush(o->top, &o->flush_op);
}

/* For all that wait. Those that come later wait for the next one. */
static void flush_begin(struct overlay *o)
{
	if (o->flushing || TAILQ_EMPTY(&o->flush_waiting))
		return;
	o->flushing = true;
	TAILQ_CONCAT(&o->flush_running, &o->flush_waiting, link);
	overlay_collect(o);
	flush_data(o);
}

void overlay_flush(struct overlay *o, struct disk_op *op)
{
	start_op(o, op, DISK_OP_FLUSH, 0, 0);
	if (o->d->failed) {
		raw_end_later(op, -EIO);
	} else if (!o->maps || o->d->sync == DISK_UNSAFE || o->d->read_only) {
		raw_end_later(op, 0);
	} else {
		TAILQ_INSERT_TAIL(&o->flush_waiting, op, link);
		flush_begin(o);
	}
}

void overlay_init(struct overlay *o)
{
	TAILQ_INIT(&o->flush_waiting);
	TAILQ_INIT(&o->flush_running);
}
