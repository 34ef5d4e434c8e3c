/* SPDX-License-Identifier: Apache-2.0 */
/* test_disk_fault.c - raw disks on a ring that fails, does half, and answers in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/disk_model.h"
#include "tests/lib/tmpdir.h"
#include "virtio/disk_int.h"

#define SECTORS 256u
#define SIZE    (SECTORS * DISK_SECTOR)

struct fixture {
	char *dir;
	char path[256];
	struct ring *r;
	struct disk *d;
	struct disk_model *m;
	/* For the hooks below. */
	enum fake_kind kind;
	unsigned first, last; /* which of that kind fail */
	int err;
	int mode_bits; /* of fallocate: only those with one of them fail */
};

static void make_disk(struct fixture *f, enum disk_sync sync)
{
	struct disk_config cfg = {.path = f->path, .sync = sync};
	struct err e = {0};

	model_write_base(f->m, f->path, 0);
	if (disk_open(&f->d, &cfg, f->r, &e))
		fail_msg("%s", e.msg);
	f->r->ctx = f;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->dir = tmpdir_make();
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	f->m = model_make(SECTORS);
	f->r = fake_ring_make(1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	disk_close(&f->d);
	fake_ring_free(&f->r);
	model_free(&f->m);
	tmpdir_remove(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

struct op {
	struct disk_op op;
	struct iovec iov[4];
	u8 *buf;
	int res;
	unsigned runs;
};

static void done(struct disk_op *op, int res)
{
	struct op *o = container_of(op, struct op, op);

	o->res = res;
	o->runs++;
}

/* One request and its result. */
static int run(struct fixture *f, struct op *o)
{
	unsigned runs = o->runs;

	fake_ring_drain(f->r);
	assert_int_equal(o->runs, runs + 1);
	return o->res;
}

static int fail_some(void *ctx, const struct fake_io *io)
{
	struct fixture *f = ctx;

	if (io->kind != f->kind || io->nr < f->first || io->nr > f->last)
		return 0;
	if (io->kind == FAKE_FALLOCATE && f->mode_bits && !(io->flags & f->mode_bits))
		return 0;
	return f->err;
}

static void fail_range(struct fixture *f, enum fake_kind kind, unsigned first, unsigned last, int err)
{
	f->kind = kind;
	f->first = f->r->queued[kind] + first;
	f->last = last == UINT32_MAX ? last : f->r->queued[kind] + last;
	f->err = err;
	f->r->fault = fail_some;
}

static void run_model(struct fixture *f, enum disk_sync sync, unsigned steps)
{
	make_disk(f, sync);
	model_attach(f->m, f->d, f->r);
	f->r->nuisance = 12;
	f->r->unit = 1;
	if (sync == DISK_DIRECT) {
		f->r->unit = f->d->off_align = f->d->block_size = 4096;
		f->d->mem_align = 512;
	}
	for (unsigned i = 0; i < 10; i++) {
		/* All sizes of steps: also where fallocate() can nothing. */
		f->d->no_punch = i % 3 == 1;
		f->d->no_zero_range = i % 3 == 2 || i == 7;
		model_run(f->m, steps / 10);
		model_drain(f->m);
		model_check(f->m);
	}
	for (unsigned what = 0; what < 5; what++)
		assert_true(what == DISK_OP_FLUSH && f->m->write_through ?
			!f->m->done[what] : f->m->done[what] > 20);
	if (sync == DISK_DIRECT)
		assert_int_equal(f->d->bounce.used, 0);
}

/* B13: whatever is short or interrupted, all bytes arrive once. */
static void test_model_buffered(void **state)
{
	run_model(*state, DISK_WRITEBACK, 40000);
}

static void test_model_write_through(void **state)
{
	struct fixture *f = *state;

	f->m->write_through = true;
	run_model(f, DISK_WRITEBACK, 10000);
}

static void test_model_direct(void **state)
{
	run_model(*state, DISK_DIRECT, 40000);
}

/* Most requests are aligned, so that they go past those that are not. */
static void test_model_direct_aligned(void **state)
{
	struct fixture *f = *state;

	f->m->align = 512;
	run_model(f, DISK_DIRECT, 40000);
}

/* B13: an error is the request's own, and passes. */
static void test_errors_are_passed_on(void **state)
{
	static const int errs[] = {-EIO, -ENOSPC, -EDQUOT, -EFBIG, -ENOMEM, -EPERM - 100};
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[4096];
	struct iovec iov[2] = {{buf, 1000}, {buf + 1000, 3096}};

	make_disk(f, DISK_WRITEBACK);
	for (unsigned i = 0; i < ARRAY_SIZE(errs); i++) {
		for (unsigned n = 1; n <= 2; n++) {
			iov[0].iov_len = n == 1 ? 4096 : 1000;
			fail_range(f, FAKE_READ, 0, 0, errs[i]);
			disk_read(f->d, &o.op, iov, n, 4096, 4096);
			assert_int_equal(run(f, &o), errs[i]);
			fail_range(f, FAKE_WRITE, 0, 0, errs[i]);
			disk_write(f->d, &o.op, iov, n, 4096, 4096, false);
			assert_int_equal(run(f, &o), errs[i]);
			disk_read(f->d, &o.op, iov, n, 4096, 4096);
			assert_int_equal(run(f, &o), 0);
			disk_write(f->d, &o.op, iov, n, 4096, 4096, false);
			assert_int_equal(run(f, &o), 0);
		}
		fail_range(f, FAKE_FALLOCATE, 0, 0, errs[i]);
		disk_discard(f->d, &o.op, 0, 512);
		assert_int_equal(run(f, &o), errs[i]);
		disk_discard(f->d, &o.op, 0, 512);
		assert_int_equal(run(f, &o), 0);
	}
}

/* B13: also after a part was done. */
static void test_error_after_a_part(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[4096];
	struct iovec iov = {buf, sizeof(buf)};

	make_disk(f, DISK_WRITEBACK);
	fail_range(f, FAKE_READ, 0, 0, 100);
	disk_read(f->d, &o.op, &iov, 1, 0, sizeof(buf));
	assert_true(fake_ring_step(f->r));
	assert_true(fake_ring_step(f->r));
	assert_int_equal(o.runs, 0);
	fail_range(f, FAKE_READ, 0, 0, -EIO);
	f->first = 0;
	assert_int_equal(run(f, &o), -EIO);
	assert_int_equal(o.op.at, 100);
}

static void test_gives_up_at_last(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[512];
	struct iovec iov = {buf, sizeof(buf)};

	make_disk(f, DISK_WRITEBACK);
	for (enum fake_kind kind = FAKE_READ; kind <= FAKE_FALLOCATE; kind++) {
		fail_range(f, kind, 0, UINT32_MAX, kind & 1 ? -EINTR : -EAGAIN);
		if (kind == FAKE_READ)
			disk_read(f->d, &o.op, &iov, 1, 0, sizeof(buf));
		else if (kind == FAKE_WRITE)
			disk_write(f->d, &o.op, &iov, 1, 0, sizeof(buf), false);
		else if (kind == FAKE_SYNC)
			disk_flush(f->d, &o.op);
		else
			disk_discard(f->d, &o.op, 0, sizeof(buf));
		assert_int_equal(run(f, &o), f->err);
		assert_true(f->r->queued[kind] < 200);
	}
}

/* B14 */
static void test_file_shrank(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[4096];
	struct iovec iov[2] = {{buf, 4096}, {buf + 1000, 3096}};

	for (int direct = 0; direct < 2; direct++) {
		make_disk(f, direct ? DISK_DIRECT : DISK_WRITEBACK);
		assert_int_equal(truncate(f->path, 8192 + 512), 0);
		for (unsigned n = 1; n <= 2; n++) {
			iov[0].iov_len = n == 1 ? 4096 : 1000;
			disk_read(f->d, &o.op, iov, n, 8192, 4096);
			assert_int_equal(run(f, &o), -EIO);
			disk_read(f->d, &o.op, iov, n, 65536, 4096);
			assert_int_equal(run(f, &o), -EIO);
			disk_read(f->d, &o.op, iov, n, 4096, 4096);
			assert_int_equal(run(f, &o), 0);
		}
		if (!direct) {
			assert_int_equal(disk_refresh(f->d), 8192 + 512);
			assert_int_equal(disk_size(f->d), 8192 + 512);
			assert_int_equal(truncate(f->path, SIZE + 100), 0);
			assert_int_equal(disk_refresh(f->d), SIZE);
		}
		disk_close(&f->d);
	}
}

/* G03: the third fdatasync fails; from then on all do, whatever the kernel says. */
static void test_failed_flush_is_for_ever(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[512] = {0};
	struct iovec iov = {buf, sizeof(buf)};
	struct err e = {0};

	make_disk(f, DISK_WRITEBACK);
	fail_range(f, FAKE_SYNC, 2, 2, -EIO);
	for (unsigned i = 0; i < 6; i++) {
		disk_write(f->d, &o.op, &iov, 1, 0, sizeof(buf), false);
		assert_int_equal(run(f, &o), 0);
		disk_flush(f->d, &o.op);
		assert_int_equal(run(f, &o), i < 2 ? 0 : -EIO);
	}
	assert_int_equal(f->r->queued[FAKE_SYNC], 3);
	/* Data can still be read and written, a snapshot cannot be made. */
	disk_read(f->d, &o.op, &iov, 1, 0, sizeof(buf));
	assert_int_equal(run(f, &o), 0);
	assert_int_equal(disk_sync_now(f->d, &e), -EIO);
	assert_non_null(strstr(e.msg, "an earlier flush failed"));
	disk_write_zeroes(f->d, &o.op, 0, 512, false, true);
	assert_int_equal(run(f, &o), -EIO);
	/* Opened again, it is another disk. */
	disk_close(&f->d);
	make_disk(f, DISK_WRITEBACK);
	disk_flush(f->d, &o.op);
	assert_int_equal(run(f, &o), 0);
}

static void count_syncs(void *ctx, const struct fake_io *io)
{
	struct fixture *f = ctx;
	unsigned n = 0;

	for (unsigned i = 0; i < f->r->count; i++)
		n += f->r->ios[i].kind == FAKE_SYNC;
	assert_true(n <= 1);
}

/*
 * Of many flushes at a time none answers "done" after one of them failed, and none is done by an
 * fdatasync that began before it was asked for.
 */
static void test_flushes_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct op o[8];
	unsigned failed;

	for (unsigned seed = 0; seed < 300; seed++) {
		make_disk(f, DISK_WRITEBACK);
		f->r->did = count_syncs;
		fail_range(f, FAKE_SYNC, seed % 3, seed % 3, -EIO);
		failed = f->first;
		for (unsigned i = 0; i < 8; i++) {
			o[i] = (struct op){.op.done = done};
			disk_flush(f->d, &o[i].op);
			for (u64 n = fake_ring_rand(f->r, 3); n; n--)
				fake_ring_step(f->r);
		}
		fake_ring_drain(f->r);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(o[i].runs, 1);
			assert_true(o[i].res == 0 || o[i].res == -EIO);
			assert_true(!i || o[i].res <= o[i - 1].res);
		}
		assert_true(f->r->queued[FAKE_SYNC] <= failed + 1);
		disk_close(&f->d);
	}
}

static void test_later_flush_waits_for_its_own_sync(void **state)
{
	struct fixture *f = *state;
	struct op a = {.op.done = done}, b = a, c = a;

	make_disk(f, DISK_WRITEBACK);
	f->r->in_order = true;
	disk_flush(f->d, &a.op);
	assert_true(fake_ring_step(f->r)); /* carried out, not yet told */
	disk_flush(f->d, &b.op);
	disk_flush(f->d, &c.op);
	assert_true(fake_ring_step(f->r));
	assert_int_equal(a.runs, 1);
	assert_int_equal(b.runs + c.runs, 0);
	fake_ring_drain(f->r);
	assert_int_equal(b.runs + c.runs, 2);
	assert_int_equal(f->r->queued[FAKE_SYNC], 2);
}

/* A durable write that fails has heard of what a flush would have: but only if there is something. */
static void test_failed_durable_write(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	u8 buf[512] = {0};
	struct iovec iov = {buf, sizeof(buf)};

	for (int mixed = 0; mixed < 2; mixed++) {
		make_disk(f, DISK_WRITEBACK);
		f->r->fault = NULL;
		disk_write(f->d, &o.op, &iov, 1, 0, sizeof(buf), !mixed);
		assert_int_equal(run(f, &o), 0);
		fail_range(f, FAKE_WRITE, 0, 0, -EIO);
		disk_write(f->d, &o.op, &iov, 1, 0, sizeof(buf), true);
		assert_int_equal(run(f, &o), -EIO);
		disk_write(f->d, &o.op, &iov, 1, 0, sizeof(buf), true);
		assert_int_equal(run(f, &o), 0);
		disk_flush(f->d, &o.op);
		assert_int_equal(run(f, &o), mixed ? -EIO : 0);
		disk_close(&f->d);
	}
}

static void expect_dsync(void *ctx, const struct fake_io *io)
{
	struct fixture *f = ctx;

	if (io->kind == FAKE_WRITE)
		assert_int_equal(io->flags, f->err);
}

static void test_durable_is_dsync(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	static const enum disk_sync modes[] = {DISK_WRITEBACK, DISK_DIRECT, DISK_UNSAFE};
	u8 *buf = aligned_alloc(4096, 4096);
	struct iovec one = {buf, 512}, two[2] = {{buf, 100}, {buf + 100, 412}};

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		make_disk(f, modes[i]);
		f->r->did = expect_dsync;
		for (int durable = 0; durable < 2; durable++) {
			f->err = durable && modes[i] != DISK_UNSAFE ? RWF_DSYNC : 0;
			disk_write(f->d, &o.op, &one, 1, 0, 512, durable);
			assert_int_equal(run(f, &o), 0);
			disk_write(f->d, &o.op, two, 2, 512, 512, durable);
			assert_int_equal(run(f, &o), 0);
			f->d->no_zero_range = true;
			disk_write_zeroes(f->d, &o.op, 0, 3 * 512, false, durable);
			assert_int_equal(run(f, &o), 0);
			f->d->no_zero_range = false;
			f->r->queued[FAKE_SYNC] = 0;
			disk_write_zeroes(f->d, &o.op, 0, 3 * 512, true, durable);
			assert_int_equal(run(f, &o), 0);
			assert_int_equal(f->r->queued[FAKE_SYNC], f->err != 0);
		}
		/* unsafe: a flush is nothing. */
		f->r->queued[FAKE_SYNC] = 0;
		disk_flush(f->d, &o.op);
		assert_int_equal(o.runs % 9, 8); /* never from the function that queued it */
		assert_int_equal(run(f, &o), 0);
		assert_int_equal(f->r->queued[FAKE_SYNC], modes[i] != DISK_UNSAFE);
		disk_close(&f->d);
	}
	free(buf);
}

/* The file is what it was outside [off, off + len), and zero or unchanged inside. */
static void check_range(struct fixture *f, u32 off, u32 len, bool zero)
{
	size_t size;
	u8 *now = file_read(f->path, &size);

	assert_int_equal(size, 16 * 512);
	for (u32 i = 0; i < size; i++) {
		if (i < off || i >= off + len)
			assert_int_equal(now[i], 0xaa);
		else if (zero)
			assert_int_equal(now[i], 0);
		else
			assert_true(now[i] == 0 || now[i] == 0xaa);
	}
	free(now);
}

/* Discard and write-zeroes: every range of a small disk, by every way there is. */
static void test_zero_never_outside(void **state)
{
	struct fixture *f = *state;
	struct disk_config cfg = {.path = f->path};
	struct op o = {.op.done = done};
	u8 full[16 * 512];

	memset(full, 0xaa, sizeof(full));
	file_write(f->path, full, sizeof(full));
	for (unsigned way = 0; way < 12; way++) {
		cfg.sync = way & 1 ? DISK_DIRECT : DISK_WRITEBACK;
		assert_int_equal(disk_open(&f->d, &cfg, f->r, NULL), 0);
		f->r->ctx = f;
		/* Both work, only ZERO_RANGE does, neither does. */
		fail_range(f, FAKE_FALLOCATE, 0, way / 2 % 3 ? UINT32_MAX : 0, -EOPNOTSUPP);
		f->first = way / 2 % 3 ? 0 : UINT32_MAX;
		f->mode_bits = way / 2 % 3 == 1 ? FALLOC_FL_PUNCH_HOLE : 0;
		for (u32 off = 0; off <= 16; off++)
			for (u32 len = 0; len <= 16 - off; len += way & 1 ? 3 : 1) {
				int fd = open(f->path, O_WRONLY);

				assert_int_equal(pwrite(fd, full, sizeof(full), 0), sizeof(full));
				close(fd);
				disk_discard(f->d, &o.op, off * 512, len * 512);
				assert_int_equal(run(f, &o), 0);
				check_range(f, off * 512, len * 512, false);
				disk_write_zeroes(f->d, &o.op, off * 512, len * 512, way / 6, false);
				assert_int_equal(run(f, &o), 0);
				check_range(f, off * 512, len * 512, true);
			}
		disk_close(&f->d);
	}
}

/* Longer than one run of zeroes can be. */
static void test_long_zeroes(void **state)
{
	struct fixture *f = *state;
	struct disk_config cfg = {.path = f->path};
	struct op o = {.op.done = done};
	u32 size = 5u << 20;
	u8 *full = malloc(size), *now;
	size_t len;

	memset(full, 0xaa, size);
	file_write(f->path, full, size);
	assert_int_equal(disk_open(&f->d, &cfg, f->r, NULL), 0);
	f->d->no_zero_range = true;
	disk_write_zeroes(f->d, &o.op, 512, size - 1024, false, false);
	assert_int_equal(run(f, &o), 0);
	memset(full + 512, 0, size - 1024);
	now = file_read(f->path, &len);
	assert_int_equal(len, size);
	assert_memory_equal(now, full, size);
	/* Ended early between two pieces. */
	disk_write_zeroes(f->d, &o.op, 0, size, false, false);
	assert_true(fake_ring_step(f->r));
	disk_cancel(f->d, &o.op);
	assert_int_equal(run(f, &o), -ECANCELED);
	free(now);
	free(full);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct op o[6];
	u8 *buf = aligned_alloc(4096, 8192);
	struct iovec iov = {buf + 1, 4096};

	for (unsigned seed = 0; seed < 400; seed++) {
		make_disk(f, seed & 1 ? DISK_DIRECT : DISK_WRITEBACK);
		for (unsigned i = 0; i < 6; i++)
			o[i] = (struct op){.op.done = done};
		disk_read(f->d, &o[0].op, &iov, 1, 0, 4096);
		disk_write(f->d, &o[1].op, &iov, 1, 512, 4096, false);
		disk_write(f->d, &o[2].op, &iov, 1, 1024, 4096, true);
		disk_flush(f->d, &o[3].op);
		disk_discard(f->d, &o[4].op, 4096, 4096);
		disk_write_zeroes(f->d, &o[5].op, 512, 1024, true, true);
		for (u64 n = fake_ring_rand(f->r, 12); n; n--)
			fake_ring_step(f->r);
		for (unsigned i = 0; i < 6; i++)
			if (!o[i].runs)
				disk_cancel(f->d, &o[i].op);
		fake_ring_drain(f->r);
		for (unsigned i = 0; i < 6; i++) {
			assert_int_equal(o[i].runs, 1);
			assert_true(o[i].res == 0 || o[i].res == -ECANCELED);
		}
		disk_flush(f->d, &o[3].op);
		fake_ring_drain(f->r);
		assert_int_equal(o[3].res, 0); /* a cancelled write is no failed flush */
		disk_close(&f->d);
	}
	free(buf);
}

/* Two writes to two sectors of one block, which is read and written back: both stay. */
static void test_neighbours_in_a_block(void **state)
{
	struct fixture *f = *state;
	u8 *a = aligned_alloc(4096, 4096), *b = aligned_alloc(4096, 4096), *now;
	struct iovec va = {a + 8, 512}, vb = {b, 4096};
	struct op oa = {.op.done = done}, ob = oa;
	size_t len;

	for (unsigned seed = 0; seed < 300; seed++) {
		make_disk(f, DISK_DIRECT);
		f->d->off_align = 4096;
		memset(a, (int)seed + 1, 4096);
		memset(b, (int)seed + 2, 4096);
		vb.iov_len = seed & 1 ? 512 : 4096; /* also one that is aligned */
		disk_write(f->d, &oa.op, &va, 1, seed & 1 ? 512 : 8192 - 512, 512, false);
		if (seed & 2)
			fake_ring_step(f->r);
		disk_write(f->d, &ob.op, &vb, 1, seed & 1 ? 1024 : 8192, (u32)vb.iov_len, false);
		fake_ring_drain(f->r);
		assert_int_equal(oa.res | ob.res, 0);
		now = file_read(f->path, &len);
		assert_memory_equal(now + (seed & 1 ? 512 : 8192 - 512), a, 512);
		assert_memory_equal(now + (seed & 1 ? 1024 : 8192), b, vb.iov_len);
		free(now);
		disk_close(&f->d);
	}
	free(a);
	free(b);
}

struct holder {
	struct disk_hold h;
	bool went;
};

static void went(struct disk_hold *h)
{
	container_of(h, struct holder, h)->went = true;
}

static bool take(struct disk_ranges *r, struct holder *h, u64 lo, u64 hi, bool exclusive)
{
	*h = (struct holder){.h = {.lo = lo, .hi = hi, .exclusive = exclusive, .go = went}};
	return hold_take(r, &h->h);
}

/* Who waits is not overtaken by those that come later and could go at once. */
static void test_holds_in_order(void **state)
{
	struct disk_ranges r;
	struct holder a, b, c, d;

	hold_init(&r);
	assert_true(take(&r, &a, 0, 10, false));
	assert_true(take(&r, &b, 5, 15, false));
	assert_false(take(&r, &c, 12, 20, true));
	assert_false(take(&r, &d, 19, 30, false));
	hold_drop(&r, &a.h);
	assert_false(c.went || d.went);
	hold_drop(&r, &b.h);
	assert_true(c.went && !d.went);
	assert_true(take(&r, &a, 20, 21, false)); /* beside it */
	hold_drop(&r, &c.h);
	assert_true(d.went);
	assert_true(take(&r, &b, 0, 30, false));
	assert_false(take(&r, &c, 0, 1, true));
	hold_drop(&r, &a.h);
	hold_drop(&r, &d.h);
	hold_drop(&r, &b.h);
	assert_true(c.went && c.h.held);
	hold_drop(&r, &c.h);
	hold_drop(&r, &c.h); /* not held any more: nothing */
	assert_true(TAILQ_EMPTY(&r.active) && TAILQ_EMPTY(&r.waiting) && !r.exclusive);
}

/* However many, bounce buffers stay below their limit, and all get their turn. */
static void test_bounce_memory_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct op *o = calloc(64, sizeof(*o));
	u8 *buf = malloc(SIZE);
	struct iovec iov = {buf + 1, SIZE / 2};
	u64 max = 0;

	make_disk(f, DISK_DIRECT);
	for (unsigned round = 0; round < 3; round++) {
		if (round == 1)
			fail_range(f, FAKE_READ, 3, 20, -EIO);
		for (unsigned i = 0; i < 64; i++) {
			o[i] = (struct op){.op.done = done};
			disk_read(f->d, &o[i].op, &iov, 1, 512, SIZE / 2);
		}
		while (fake_ring_step(f->r))
			max = f->d->bounce.used > max ? f->d->bounce.used : max;
		for (unsigned i = 0; i < 64; i++)
			assert_int_equal(o[i].runs, 1);
		assert_int_equal(f->d->bounce.used, 0);
	}
	assert_true(max > 2u << 20 && max <= 4u << 20);
	free(buf);
	free(o);
}

struct closer {
	struct disk_op op;
	struct fixture *f;
};

static void close_it(struct disk_op *op, int res)
{
	struct fixture *f = container_of(op, struct closer, op)->f;

	disk_close(&f->d);
}

/* A device that swaps disks closes the old one from the last callback. */
static void test_callback_closes(void **state)
{
	struct fixture *f = *state;
	struct closer c = {.op.done = close_it, .f = f};
	u8 buf[1000];
	struct iovec iov = {buf + 1, 512};

	for (unsigned i = 0; i < 12; i++) {
		make_disk(f, i & 1 ? DISK_DIRECT : DISK_WRITEBACK);
		f->d->no_zero_range = i >= 10;
		if (i / 2 == 0)
			disk_read(f->d, &c.op, &iov, 1, 0, 512);
		else if (i / 2 == 1)
			disk_write(f->d, &c.op, &iov, 1, 0, 512, true);
		else if (i / 2 == 2)
			disk_flush(f->d, &c.op);
		else if (i / 2 == 3)
			disk_discard(f->d, &c.op, 0, 512);
		else
			disk_write_zeroes(f->d, &c.op, 0, 512, false, true);
		fake_ring_drain(f->r);
		assert_null(f->d);
	}
}

/* Nothing to do is done, too, and not at once. */
static void test_empty_requests(void **state)
{
	struct fixture *f = *state;
	struct op o[4];

	make_disk(f, DISK_WRITEBACK);
	for (unsigned i = 0; i < 4; i++)
		o[i] = (struct op){.op.done = done};
	disk_read(f->d, &o[0].op, NULL, 0, SIZE, 0);
	disk_write(f->d, &o[1].op, NULL, 0, SIZE, 0, true);
	disk_discard(f->d, &o[2].op, SIZE, 0);
	disk_write_zeroes(f->d, &o[3].op, SIZE, 0, true, true);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(o[i].runs, 0);
	fake_ring_drain(f->r);
	for (unsigned i = 0; i < 4; i++)
		assert_true(o[i].runs == 1 && !o[i].res);
	assert_int_equal(f->r->queued[FAKE_NOP], 4);
}

/* More buffers than one system call takes. */
static void test_many_buffers(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	struct iovec *iov = calloc(3000, sizeof(*iov));
	u8 *buf = malloc(SIZE);

	make_disk(f, DISK_WRITEBACK);
	for (unsigned i = 0; i < 2560; i++)
		iov[i] = (struct iovec){buf + i * 50, 50};
	disk_read(f->d, &o.op, iov, 2560, 512, 128000);
	assert_int_equal(run(f, &o), 0);
	assert_int_equal(f->r->queued[FAKE_READ], 3);
	free(buf);
	free(iov);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_model_buffered),
		T(test_model_write_through),
		T(test_model_direct),
		T(test_model_direct_aligned),
		T(test_errors_are_passed_on),
		T(test_error_after_a_part),
		T(test_gives_up_at_last),
		T(test_file_shrank),
		T(test_failed_flush_is_for_ever),
		T(test_flushes_at_a_time),
		T(test_later_flush_waits_for_its_own_sync),
		T(test_failed_durable_write),
		T(test_durable_is_dsync),
		T(test_zero_never_outside),
		T(test_long_zeroes),
		T(test_cancel),
		T(test_neighbours_in_a_block),
		cmocka_unit_test(test_holds_in_order),
		T(test_bounce_memory_is_bounded),
		T(test_callback_closes),
		T(test_empty_requests),
		T(test_many_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
