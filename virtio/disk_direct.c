/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_direct.c - O_DIRECT: requests that are not aligned, and keeping them from each other.
 *
 * The kernel wants file offsets and lengths to be multiples of one number, and addresses of
 * another. A request that is goes straight to the file. Any other goes through a bounce buffer, in
 * chunks: a read takes the blocks around it; a write that does not begin and end on block
 * boundaries reads the blocks, changes its part and writes them back. While it does so it holds
 * those blocks for itself (disk_hold.c), so that no other write to them is undone.
 *
 * Memory for bounce buffers is bounded: a request that would need more waits for another to end,
 * in order. It holds its blocks by then, and so do those it waits for, so there is always one that
 * can go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/memory.h"
#include "monitor/base/arith.h"
#include "virtio/disk_int.h"

#define CHUNK_MAX   (256u << 10)
#define BOUNCE_MAX  (4u << 20) /* bytes a disk */
#define ALIGN_GUESS 4096u      /* where the kernel does not say */

struct bounce {
	u8 *buf;
	u32 size;
	u64 lo;        /* where in the file the chunk begins */
	u32 len, done; /* of the chunk, of the transfer under way */
	bool writing;
};

/* struct statx, up to the two fields that older headers do not have. */
struct statx_dio {
	u32 mask;
	u8 skip[0x94];
	u32 mem_align, offset_align;
	u8 rest[256 - 0xa0];
};

#define STATX_DIO 0x2000u

void direct_probe(struct disk *d)
{
	struct statx_dio sx = {0};
	u32 guess = d->is_block ? d->block_size : ALIGN_GUESS;

	_Static_assert(sizeof(sx) == 256, "as struct statx");
	d->mem_align = d->off_align = guess;
	if (syscall(SYS_statx, d->fd, "", AT_EMPTY_PATH, STATX_DIO, &sx) < 0)
		return;
	if (!(sx.mask & STATX_DIO) || !is_pow2(sx.mem_align) || !is_pow2(sx.offset_align))
		return;
	if (sx.offset_align > CHUNK_MAX || sx.mem_align > CHUNK_MAX)
		return;
	d->mem_align = sx.mem_align;
	d->off_align = sx.offset_align < DISK_SECTOR ? DISK_SECTOR : sx.offset_align;
}

static bool edges_aligned(const struct disk_op *op)
{
	return !((op->off | op->count) & (op->disk->off_align - 1));
}

static bool buffers_aligned(const struct disk_op *op)
{
	const struct disk *d = op->disk;

	for (unsigned i = 0; i < op->iov_count; i++)
		if (((uintptr_t)op->iov[i].iov_base & (d->mem_align - 1)) ||
			(op->iov[i].iov_len & (d->off_align - 1)))
			return false;
	return true;
}

static void bounce_done(struct ring_op *r, int res);

/* The chunk's transfer, or what is left of it. */
static void chunk_send(struct disk_op *op)
{
	struct bounce *b = op->extra;
	struct disk *d = op->disk;

	op->ring.done = bounce_done;
	if (b->writing)
		ring_pwrite(d->ring, &op->ring, d->fd, b->buf + b->done, b->len - b->done,
			b->lo + b->done, op->durable ? RWF_DSYNC : 0);
	else
		ring_pread(d->ring, &op->ring, d->fd, b->buf + b->done, b->len - b->done,
			b->lo + b->done);
}

/* How many of the request's bytes the chunk has, and where in it they begin. */
static u32 chunk_part(const struct disk_op *op, u32 *skip)
{
	const struct bounce *b = op->extra;
	u64 pos = op->off + op->at, end = op->off + op->count;

	*skip = (u32)(pos - b->lo);
	return (u32)((end < b->lo + b->len ? end : b->lo + b->len) - pos);
}

/* The request's part of the chunk is in place: write it. */
static void chunk_write(struct disk_op *op)
{
	struct bounce *b = op->extra;
	u32 skip, n = chunk_part(op, &skip);

	must(iov_to_host(op->iov, op->iov_count, op->at, b->buf + skip, n) == n);
	b->writing = true;
	b->done = 0;
	chunk_send(op);
}

static void chunk_start(struct disk_op *op)
{
	struct bounce *b = op->extra;
	u64 align = op->disk->off_align, end = align_up(op->off + op->count, align);
	u32 skip;

	b->lo = align_down(op->off + op->at, align);
	b->len = end - b->lo < b->size ? (u32)(end - b->lo) : b->size;
	b->done = 0;
	b->writing = false;
	if (op->what == DISK_OP_WRITE && chunk_part(op, &skip) == b->len)
		chunk_write(op);
	else
		chunk_send(op);
}

static void chunk_end(struct disk_op *op)
{
	struct bounce *b = op->extra;
	u32 skip, n = chunk_part(op, &skip);

	if (op->what == DISK_OP_READ)
		must(iov_from_host(op->iov, op->iov_count, op->at, b->buf + skip, n) == n);
	op->at += n;
	if (op->at == op->count)
		raw_end(op, 0);
	else if (op->cancelled)
		raw_end(op, -ECANCELED);
	else
		chunk_start(op);
}

static void bounce_done(struct ring_op *r, int res)
{
	struct disk_op *op = container_of(r, struct disk_op, ring);
	struct bounce *b = op->extra;

	if (res > 0)
		b->done += (u32)res;
	must(b->done <= b->len);
	if (b->done < b->len && raw_again(op, res))
		chunk_send(op);
	else if (b->done < b->len)
		raw_end(op, op->cancelled ? -ECANCELED : res < 0 ? res : -EIO);
	else if (op->what == DISK_OP_WRITE && !b->writing)
		chunk_write(op);
	else
		chunk_end(op);
}

/* Takes memory and begins; false where there is none for it now. */
static bool bounce_start(struct disk_op *op)
{
	struct disk_bounce *all = &op->disk->bounce;
	u64 align = op->disk->off_align;
	u64 span = align_up(op->off + op->count, align) - align_down(op->off, align);
	u32 size = span < CHUNK_MAX ? (u32)span : CHUNK_MAX;
	size_t mem_align = op->disk->mem_align > ALIGN_GUESS ? op->disk->mem_align : ALIGN_GUESS;
	struct bounce *b;

	if (all->used + size > BOUNCE_MAX)
		return false;
	b = calloc(1, sizeof(*b));
	if (!b || posix_memalign((void **)&b->buf, mem_align, size)) {
		free(b);
		raw_end_later(op, -ENOMEM);
		return true;
	}
	b->size = size;
	all->used += size;
	op->extra = b;
	chunk_start(op);
	return true;
}

void direct_end(struct disk_op *op)
{
	struct disk_bounce *all = &op->disk->bounce;
	struct bounce *b = op->extra;
	struct disk_op *w;

	all->used -= b->size;
	free(b->buf);
	free(b);
	op->extra = NULL;
	while ((w = TAILQ_FIRST(&all->waiting))) {
		TAILQ_REMOVE(&all->waiting, w, link);
		if (bounce_start(w))
			continue;
		TAILQ_INSERT_HEAD(&all->waiting, w, link);
		break;
	}
}

static void start(struct disk_op *op)
{
	struct disk_bounce *all = &op->disk->bounce;

	if (op->cancelled)
		raw_end_later(op, -ECANCELED);
	else if (edges_aligned(op) && buffers_aligned(op))
		raw_send(op);
	else if (!TAILQ_EMPTY(&all->waiting) || !bounce_start(op))
		TAILQ_INSERT_TAIL(&all->waiting, op, link);
}

static void start_held(struct disk_hold *h)
{
	start(container_of(h, struct disk_op, hold));
}

void direct_start(struct disk_op *op)
{
	u64 align = op->disk->off_align;

	if (op->what == DISK_OP_WRITE) {
		op->hold.lo = align_down(op->off, align);
		op->hold.hi = align_up(op->off + op->count, align);
		op->hold.exclusive = !edges_aligned(op);
		op->hold.go = start_held;
		if (!hold_take(&op->disk->ranges, &op->hold))
			return;
	}
	start(op);
}
