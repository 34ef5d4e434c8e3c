/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_disk.c - see fuzz_disk.h */
#include "tests/fuzz/fuzz_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/arith.h"

unsigned fd_open_disks;
void (*fd_queued)(const struct fd_entry *e);
void (*fd_moves)(const struct fd_entry *e);

struct disk *fd_new(u64 sectors, u8 how)
{
	struct disk *d = calloc(1, sizeof(*d));

	must(d && sectors);
	d->size = d->next_size = sectors * DISK_SECTOR;
	d->block_size = how & 1 ? 4096 : DISK_SECTOR;
	d->read_only = how & 2;
	d->can_discard = !(how & 4);
	d->can_zero = !(how & 8);
	d->sync = (enum disk_sync)(how >> 4 & 3) % 3;
	fd_open_disks++;
	return d;
}

bool fd_end(struct disk *d, unsigned which, int res)
{
	struct fd_entry e;

	if (!d->count)
		return false;
	which %= d->count;
	e = d->entry[which];
	memmove(&d->entry[which], &d->entry[which + 1],
		(--d->count - which) * sizeof(d->entry[0]));
	if (e.cancelled)
		res = -ECANCELED;
	if (!res && fd_moves)
		fd_moves(&e);
	e.op->disk = NULL;
	e.op->done(e.op, res);
	return true;
}

unsigned fd_end_all(struct disk *d)
{
	unsigned n = 0;

	while (!d->hold && fd_end(d, 0, 0))
		n++;
	return n;
}

static void queue(struct disk *d, struct fd_entry e)
{
	must(!e.op->disk && e.op->done && d->count < FD_OPS);
	must(e.off % DISK_SECTOR == 0 && e.len % DISK_SECTOR == 0);
	must(range_ok(e.off, e.len, d->size));
	must(e.what == FD_FLUSH || e.len);
	must(!d->read_only || e.what == FD_READ || e.what == FD_FLUSH);
	e.op->disk = d;
	d->entry[d->count++] = e;
	if (fd_queued)
		fd_queued(&e);
}

static void transfer(struct disk *d, struct fd_entry e)
{
	u64 len = 0;

	for (unsigned i = 0; i < e.n; i++) {
		must(e.iov[i].iov_len);
		len += e.iov[i].iov_len;
	}
	must(len == e.len);
	queue(d, e);
}

void disk_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len)
{
	transfer(d, (struct fd_entry){FD_READ, op, iov, n, off, len, false, false, false});
}

void disk_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len, bool durable)
{
	transfer(d, (struct fd_entry){FD_WRITE, op, iov, n, off, len, durable, false, false});
}

void disk_flush(struct disk *d, struct disk_op *op)
{
	queue(d, (struct fd_entry){.what = FD_FLUSH, .op = op});
}

void disk_discard(struct disk *d, struct disk_op *op, u64 off, u64 len)
{
	must(d->can_discard);
	queue(d, (struct fd_entry){.what = FD_DISCARD, .op = op, .off = off, .len = len});
}

void disk_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable)
{
	must(d->can_zero);
	queue(d, (struct fd_entry){.what = FD_ZEROES, .op = op, .off = off, .len = len,
		.durable = durable, .unmap = unmap});
}

void disk_cancel(struct disk *d, struct disk_op *op)
{
	for (unsigned i = 0; i < d->count; i++)
		d->entry[i].cancelled |= d->entry[i].op == op;
}

void disk_close(struct disk **dp)
{
	if (!*dp)
		return;
	must(!(*dp)->count);
	free(*dp);
	*dp = NULL;
	fd_open_disks--;
}

u64 disk_size(const struct disk *d)
{
	return d->size;
}

u32 disk_block_size(const struct disk *d)
{
	return d->block_size;
}

bool disk_read_only(const struct disk *d)
{
	return d->read_only;
}

bool disk_can_discard(const struct disk *d)
{
	return d->can_discard;
}

bool disk_can_zero(const struct disk *d)
{
	return d->can_zero;
}

enum disk_sync disk_sync(const struct disk *d)
{
	return d->sync;
}

u64 disk_refresh(struct disk *d)
{
	d->size = d->next_size;
	return d->size;
}
