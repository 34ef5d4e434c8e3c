/* SPDX-License-Identifier: Apache-2.0 */
/* fake_disk.c - see fake_disk.h */
#include "tests/lib/fake_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/base/arith.h"

unsigned fake_disks_open;

struct disk *fake_disk_new(u64 sectors)
{
	struct disk *d = calloc(1, sizeof(*d));

	must(d);
	d->fd = memfd_create("fake-disk", MFD_CLOEXEC);
	d->size = d->next_size = sectors * DISK_SECTOR;
	d->block_size = DISK_SECTOR;
	d->can_discard = d->can_zero = true;
	must(d->fd >= 0 && !ftruncate(d->fd, (off_t)d->size));
	fake_disks_open++;
	return d;
}

void disk_close(struct disk **dp)
{
	struct disk *d = *dp;

	if (!d)
		return;
	must(!d->count);
	close(d->fd);
	free(d);
	*dp = NULL;
	fake_disks_open--;
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
	must(!ftruncate(d->fd, (off_t)d->size));
	return d->size;
}

void fake_disk_get(struct disk *d, u64 off, void *dst, u64 len)
{
	must(pread(d->fd, dst, len, (off_t)off) == (ssize_t)len);
}

void fake_disk_put(struct disk *d, u64 off, const void *src, u64 len)
{
	must(pwrite(d->fd, src, len, (off_t)off) == (ssize_t)len);
}

bool fake_disk_is(struct disk *d, u64 off, u64 len, u8 byte)
{
	u8 *buf = malloc(len);
	bool same = true;

	must(buf);
	fake_disk_get(d, off, buf, len);
	for (u64 i = 0; i < len; i++)
		same &= buf[i] == byte;
	free(buf);
	return same;
}

static void add(struct disk *d, struct disk_op *op, struct fake_entry what)
{
	must(op->done && d->count < FAKE_OPS_MAX);
	must(what.what == FAKE_FLUSH || (what.len && what.len % DISK_SECTOR == 0 &&
		what.off % DISK_SECTOR == 0 && range_ok(what.off, what.len, d->size)));
	must(!d->read_only || what.what == FAKE_READ || what.what == FAKE_FLUSH);
	for (unsigned i = 0; i < d->count; i++)
		must(d->op[i] != op);
	op->disk = d;
	op->what = (u8)what.what;
	op->off = what.off;
	op->durable = false;
	d->bytes[d->count] = what.len;
	memcpy(d->at_flush[d->count], d->now, sizeof(d->now));
	d->op[d->count++] = op;
	if (d->log_count < FAKE_LOG_MAX)
		d->log[d->log_count++] = what;
}

static void set_list(struct disk_op *op, const struct iovec *iov, unsigned n, u32 len)
{
	u64 sum = 0;

	op->iov = iov;
	op->iov_count = n;
	for (unsigned i = 0; i < n; i++) {
		must(iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	must(sum == len);
}

void disk_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len)
{
	set_list(op, iov, n, len);
	add(d, op, (struct fake_entry){FAKE_READ, off, len, false, false});
}

void disk_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len, bool durable)
{
	set_list(op, iov, n, len);
	add(d, op, (struct fake_entry){FAKE_WRITE, off, len, durable, false});
}

void disk_flush(struct disk *d, struct disk_op *op)
{
	add(d, op, (struct fake_entry){FAKE_FLUSH, 0, 0, false, false});
}

void disk_discard(struct disk *d, struct disk_op *op, u64 off, u64 len)
{
	must(d->can_discard);
	add(d, op, (struct fake_entry){FAKE_DISCARD, off, len, false, false});
}

void disk_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable)
{
	must(d->can_zero);
	add(d, op, (struct fake_entry){FAKE_ZEROES, off, len, durable, unmap});
}

void disk_cancel(struct disk *d, struct disk_op *op)
{
	unsigned i = 0;

	while (i < d->count && d->op[i] != op)
		i++;
	must(i < d->count);
	if (!d->no_cancel)
		op->durable = true; /* marks it */
}

static void fill(struct disk *d, u64 off, u64 len, int byte)
{
	u8 *buf = malloc(len);

	must(buf);
	memset(buf, byte, len);
	fake_disk_put(d, off, buf, len);
	free(buf);
}

/* Reads or writes the first @len bytes. */
static void copy(struct disk *d, struct disk_op *op, u64 len)
{
	u64 off = op->off;

	for (unsigned i = 0; i < op->iov_count && len; i++) {
		u64 part = op->iov[i].iov_len < len ? op->iov[i].iov_len : len;

		if (op->what == FAKE_READ)
			fake_disk_get(d, off, op->iov[i].iov_base, part);
		else
			fake_disk_put(d, off, op->iov[i].iov_base, part);
		off += part;
		len -= part;
	}
}

/* Keeps now[] and stable[]. */
static void model(struct disk *d, const struct disk_op *op, const u32 *at_flush)
{
	u32 first;

	if (op->what == FAKE_WRITE && op->off / DISK_SECTOR < FAKE_STABLE) {
		fake_disk_get(d, op->off, &first, sizeof(first));
		d->now[op->off / DISK_SECTOR] = first;
	}
	for (unsigned i = 0; op->what == FAKE_FLUSH && i < FAKE_STABLE; i++) {
		if (at_flush[i] > d->stable[i])
			d->stable[i] = at_flush[i];
	}
}

static void transfer(struct disk *d, struct disk_op *op, u64 len)
{
	switch ((enum fake_what)op->what) {
	case FAKE_READ:
	case FAKE_WRITE:
		copy(d, op, len);
		break;
	case FAKE_DISCARD:
		d->discarded += len;
		fill(d, op->off, len, 0xdd);
		break;
	case FAKE_ZEROES:
		fill(d, op->off, len, 0);
		break;
	default:
		break;
	}
}

static void complete(struct disk *d, unsigned i)
{
	struct disk_op *op = d->op[i];
	bool cancelled = op->durable;
	u64 len = d->bytes[i];
	int res = 0;
	u32 at_flush[FAKE_STABLE];

	memcpy(at_flush, d->at_flush[i], sizeof(at_flush));
	/* As the rest has it: in the order of their start, unless shuffled. */
	d->count--;
	memmove(&d->op[i], &d->op[i + 1], (d->count - i) * sizeof(d->op[0]));
	memmove(&d->bytes[i], &d->bytes[i + 1], (d->count - i) * sizeof(d->bytes[0]));
	memmove(&d->at_flush[i], &d->at_flush[i + 1], (d->count - i) * sizeof(d->at_flush[0]));
	if (cancelled)
		res = -ECANCELED;
	else if (d->fail_in && (enum fake_what)op->what == d->fail_what && !--d->fail_in)
		res = d->fail_res;
	if (!cancelled)
		transfer(d, op, res ? len / 2 : len);
	if (!res)
		model(d, op, at_flush);
	d->cancelled += cancelled;
	d->done[op->what] += !res;
	op->done(op, res);
}

/* The one to be done now; d->count where there is none. */
static unsigned choose(struct disk *d)
{
	for (unsigned i = 0; i < d->count; i++) {
		if (d->op[i]->durable)
			return i;
	}
	if (d->hold)
		return d->count;
	if (!d->shuffle)
		return 0;
	d->shuffle = d->shuffle * 1664525u + 1013904223u;
	return (d->shuffle >> 8) % d->count;
}

unsigned fake_disk_step(struct disk *d)
{
	unsigned ran = 0, want = d->count;

	if (d->shuffle && want)
		want = 1 + (d->shuffle >> 20) % want;
	while (ran < want && d->count) {
		unsigned i = choose(d);

		if (i == d->count)
			break;
		complete(d, i);
		ran++;
	}
	return ran;
}
