/* SPDX-License-Identifier: Apache-2.0 */
/* test_overlay_file.c - overlay files: whose they are, what they cost, and what faults do to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/overlay_fix.h"
#include "tests/lib/tmpdir.h"

#define C OVERLAY_CLUSTER

struct op {
	struct disk_op op;
	int res;
	unsigned runs;
};

static void done(struct disk_op *op, int res)
{
	struct op *o = container_of(op, struct op, op);

	o->res = res;
	o->runs++;
}

static int run(struct overlay_fix *f, struct op *o)
{
	fake_ring_drain(f->r);
	assert_int_equal(o->runs, 1);
	o->runs = 0;
	return o->res;
}

/* Writes @len bytes of @byte. */
static int put(struct overlay_fix *f, u64 off, u32 len, u8 byte, bool durable)
{
	struct op o = {.op.done = done};
	u8 *p = malloc(len);
	struct iovec iov = {p, len};
	int res;

	memset(p, byte, len);
	disk_write(f->d, &o.op, &iov, 1, off, len, durable);
	res = run(f, &o);
	free(p);
	return res;
}

static int flush(struct overlay_fix *f)
{
	struct op o = {.op.done = done};

	disk_flush(f->d, &o.op);
	return run(f, &o);
}

/* Whether all of it is @byte. */
static bool has(struct overlay_fix *f, u64 off, u32 len, u8 byte)
{
	u8 *p = overlay_fix_content(f);
	bool same = true;

	for (u32 i = 0; i < len; i++)
		same = same && p[off + i] == byte;
	free(p);
	return same;
}

static bool is_base(struct overlay_fix *f, u64 off, u32 len)
{
	u8 *p = overlay_fix_content(f);
	bool same = !memcmp(p + off, f->base_was + off, len);

	free(p);
	return same;
}

static void expect_ios(struct overlay_fix *f, unsigned reads, unsigned writes, unsigned allocs)
{
	assert_int_equal(f->r->queued[FAKE_READ], reads);
	assert_int_equal(f->r->queued[FAKE_WRITE], writes);
	assert_int_equal(f->r->queued[FAKE_FALLOCATE], allocs);
	memset(f->r->queued, 0, sizeof(f->r->queued));
}

/* What a request costs: one operation where it can be one. */
static void test_cost(void **state)
{
	struct overlay_fix *f = *state;
	struct op o = {.op.done = done};
	u8 *p = malloc(16 * C);
	struct iovec iov = {p, 16 * C};

	overlay_fix_open(f);
	disk_read(f->d, &o.op, &iov, 1, 0, 16 * C); /* all in the base */
	assert_null(o.op.extra);
	assert_int_equal(run(f, &o), 0);
	expect_ios(f, 1, 0, 0);
	assert_int_equal(put(f, 4 * C, 2 * C, 1, false), 0); /* data, map */
	expect_ios(f, 0, 2, 0);
	assert_int_equal(put(f, 4 * C + 512, C, 2, false), 0); /* there already */
	expect_ios(f, 0, 1, 0);
	assert_int_equal(put(f, 8 * C + 512, 512, 3, false), 0); /* both edges */
	expect_ios(f, 2, 2, 0);
	assert_int_equal(put(f, 8 * C + 1024, C, 4, false), 0); /* half there */
	expect_ios(f, 1, 2, 0);
	iov.iov_len = 2 * C;
	disk_read(f->d, &o.op, &iov, 1, 4 * C, 2 * C); /* all in the overlay */
	assert_null(o.op.extra);
	assert_int_equal(run(f, &o), 0);
	expect_ios(f, 1, 0, 0);
	iov.iov_len = 16 * C;
	disk_read(f->d, &o.op, &iov, 1, 0, 16 * C); /* b b b b o o b b o o b ... */
	assert_int_equal(run(f, &o), 0);
	expect_ios(f, 5, 0, 0);
	disk_discard(f->d, &o.op, 4 * C, 2 * C);
	assert_int_equal(run(f, &o), 0);
	expect_ios(f, 0, 0, 1);
	disk_discard(f->d, &o.op, 20 * C - 512, 2 * C + 1024);
	assert_int_equal(run(f, &o), 0);
	expect_ios(f, 0, 1, 1);
	assert_true(has(f, 20 * C, 2 * C, 0));
	assert_true(is_base(f, 20 * C - 512, 512) && is_base(f, 22 * C, 512));
	free(p);
}

/* Flush: nothing new in the map: one sync. Else the map between two. */
static void test_flush_cost(void **state)
{
	struct overlay_fix *f = *state;

	overlay_fix_open(f);
	assert_int_equal(flush(f), 0);
	assert_int_equal(f->r->queued[FAKE_SYNC], 1);
	assert_int_equal(flush(f), 0);
	assert_int_equal(f->r->queued[FAKE_SYNC], 2);
	put(f, 0, 512, 1, false);
	expect_ios(f, 1, 2, 0);
	assert_int_equal(flush(f), 0);
	assert_int_equal(f->r->queued[FAKE_SYNC], 2);
	assert_int_equal(f->r->queued[FAKE_WRITE], 1);
	put(f, 512, 512, 1, false);
	assert_int_equal(flush(f), 0);
	assert_int_equal(f->r->queued[FAKE_SYNC], 3);
	/* Durable: the first time data, map and flush; then a write like any other. */
	memset(f->r->queued, 0, sizeof(f->r->queued));
	put(f, C, C, 1, true);
	assert_int_equal(f->r->queued[FAKE_SYNC], 2);
	expect_ios(f, 0, 3, 0);
	put(f, C, C, 2, true);
	assert_int_equal(f->r->queued[FAKE_SYNC], 0);
	expect_ios(f, 0, 1, 0);
}

/* A durable write to what only map A knows. */
static void test_durable_after_kill(void **state)
{
	struct overlay_fix *f = *state;

	f->r->did = overlay_fix_note;
	f->r->ctx = f;
	overlay_fix_open(f);
	assert_int_equal(put(f, C, 512, 1, false), 0);
	overlay_fix_kill(f);
	overlay_fix_open(f);
	assert_true(has(f, C, 512, 1));
	assert_int_equal(put(f, C, 512, 2, true), 0);
	overlay_fix_kill(f);
	overlay_fix_power_off(f, 1);
	overlay_fix_open(f);
	assert_true(has(f, C, 512, 2) && is_base(f, C + 512, C - 512));
}

static int fail_all(void *ctx, const struct fake_io *io)
{
	return -EIO;
}

/*
 * Something is written while a flush is under way, and the power is lost @steps later. Durable: to
 * a cluster of which the flush is about to tell map B. Else: to one of which it must not yet.
 */
static void race_with_flush(struct overlay_fix *f, bool durable, unsigned steps)
{
	struct op flushed = {.op.done = done};
	bool was_flushed;
	u8 *now;

	unlink(f->top);
	f->safe->len = 0;
	memset(f->safe->bytes, 0, sizeof(f->safe->bytes));
	overlay_fix_open(f);
	assert_int_equal(flush(f), 0);
	assert_int_equal(put(f, 8 * C, C, 1, false), 0);
	f->r->hold_syncs = true;
	disk_flush(f->d, &flushed.op);
	fake_ring_drain(f->r);
	if (durable) {
		struct op written = {.op.done = done};
		struct iovec iov = {f->base_was, C};

		disk_write(f->d, &written.op, &iov, 1, 8 * C, C, true);
		fake_ring_drain(f->r);
		/* Not before the flush is: map B does not have it. */
		assert_int_equal(written.runs, 0);
		f->r->hold_syncs = false;
		assert_int_equal(run(f, &written), 0);
		steps = 0;
	} else {
		assert_int_equal(put(f, 16 * C, C, 2, false), 0);
		f->r->hold_syncs = false;
	}
	while (steps--)
		fake_ring_step(f->r);
	was_flushed = flushed.runs;
	overlay_fix_power_off(f, 2);
	/* Nothing that has not come to an end is carried out any more. */
	f->r->fault = fail_all;
	fake_ring_drain(f->r);
	f->r->fault = NULL;
	overlay_fix_kill(f);
	overlay_fix_open(f);
	now = overlay_fix_content(f);
	for (u64 at = 0; at < C; at += 512) {
		if (durable)
			assert_memory_equal(now + 8 * C + at, f->base_was + at, 512);
		else if (was_flushed)
			assert_int_equal(now[8 * C + at], 1);
		if (now[16 * C + at] != 2)
			assert_memory_equal(now + 16 * C + at, f->base_was + 16 * C + at, 512);
	}
	free(now);
	disk_close(&f->d);
}

static void test_write_during_flush(void **state)
{
	struct overlay_fix *f = *state;

	f->r->did = overlay_fix_note;
	f->r->ctx = f;
	for (unsigned i = 0; i < 10; i++) {
		race_with_flush(f, true, 0);
		for (unsigned steps = 0; steps < 8; steps++)
			race_with_flush(f, false, steps);
	}
}

/* Closed without a flush and booted anew, nothing is missing. */
static void test_close_settles(void **state)
{
	struct overlay_fix *f = *state;

	for (enum disk_sync sync = DISK_WRITEBACK; sync <= DISK_UNSAFE; sync++) {
		f->cfg.sync = sync;
		overlay_fix_open(f);
		put(f, sync * 10 * C, 512, 7, false);
		disk_close(&f->d);
		overlay_fix_boot(f);
		overlay_fix_open(f);
		assert_true(has(f, sync * 10 * C, 512, 7));
		disk_close(&f->d);
	}
}

/* A process that ends gives its locks up first, and does not touch the file any more. */
static void test_release(void **state)
{
	struct overlay_fix *f = *state;
	struct disk *old;

	overlay_fix_open(f);
	put(f, 0, 512, 1, false);
	disk_release(f->d);
	old = f->d;
	overlay_fix_open(f);
	put(f, 8 * C, 512, 2, false);
	assert_int_equal(disk_sync_now(f->d, NULL), 0);
	disk_close(&old);
	overlay_fix_kill(f);
	overlay_fix_boot(f);
	overlay_fix_open(f);
	assert_true(has(f, 0, 512, 1) && has(f, 8 * C, 512, 2));
}

static void refused(struct overlay_fix *f, const char *why)
{
	struct err e = {0};

	assert_int_equal(disk_open(&f->d, &f->cfg, f->r, &e), -EINVAL);
	assert_null(f->d);
	if (!strstr(e.msg, why) || !strstr(e.msg, f->top))
		fail_msg("%s", e.msg);
}

static void test_of_another_base(void **state)
{
	struct overlay_fix *f = *state;
	char copy[300];

	overlay_fix_open(f);
	put(f, 0, 512, 9, false);
	disk_close(&f->d);
	/* A copy: another inode. Allowed if the operator says so, and from then on. */
	snprintf(copy, sizeof(copy), "%s/copy", f->dir);
	file_write(copy, f->base_was, f->base_len);
	f->cfg.path = copy;
	refused(f, "its inode differs");
	f->cfg.base_moved = true;
	overlay_fix_open(f);
	assert_true(has(f, 0, 512, 9));
	disk_close(&f->d);
	f->cfg.base_moved = false;
	overlay_fix_open(f);
	disk_close(&f->d);
	/* Written to behind our back. */
	file_write(copy, f->base_was, f->base_len);
	refused(f, "its time of the last change differs");
	/* Of another length: never. */
	f->cfg.base_moved = true;
	file_write(copy, f->base_was, f->base_len - 512);
	refused(f, "belongs to a base of 513536 bytes");
}

static void test_no_overlay(void **state)
{
	struct overlay_fix *f = *state;
	static const size_t lens[] = {1, 100, 511, 512, 4095, 4096, 4097, 100000};
	u8 *p = calloc(1, 100000), *now;
	size_t len;

	p[50] = 'x';
	for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
		file_write(f->top, p, lens[i]);
		refused(f, "it is no overlay");
		now = file_read(f->top, &len);
		assert_int_equal(len, lens[i]);
		assert_memory_equal(now, p, len);
		free(now);
	}
	free(p);
	f->cfg.read_only = true;
	unlink(f->top);
	assert_int_equal(disk_open(&f->d, &f->cfg, f->r, NULL), -ENOENT);
	assert_int_equal(access(f->top, F_OK), -1);
	file_write(f->top, "", 0);
	refused(f, "it is no overlay");
}

/* Every bit of the header: refused, or (map A's boot id) no matter. A file cut short: refused. */
static void test_damaged(void **state)
{
	struct overlay_fix *f = *state;
	size_t len;
	u8 *was;

	overlay_fix_open(f);
	put(f, 0, 512, 9, false);
	disk_close(&f->d);
	was = file_read(f->top, &len);
	for (unsigned bit = 0; bit < OVERLAY_HEAD_LEN * 8; bit++) {
		was[bit / 8] ^= (u8)(1u << bit % 8);
		file_write(f->top, was, len);
		refused(f, bit < 64 ? "it is no overlay" : bit < 96 ? "it is of version" : "damaged");
		was[bit / 8] ^= (u8)(1u << bit % 8);
	}
	file_write(f->top, was, len);
	for (size_t cut = 1; cut < len; cut += cut < 8192 ? 511 : 40000) {
		if (len - cut == OVERLAY_HEAD)
			continue;
		assert_int_equal(truncate(f->top, (off_t)(len - cut)), 0);
		refused(f, len - cut < OVERLAY_HEAD ? "it is no overlay" : "it is too short");
	}
	free(was);
}

/* Whoever dies while making the file leaves something to go on with. */
static void test_half_made(void **state)
{
	struct overlay_fix *f = *state;
	size_t len, full;
	u8 *was;

	overlay_fix_open(f);
	disk_close(&f->d);
	was = file_read(f->top, &full);
	for (int i = 0; i < 4; i++) {
		/* Empty; header only; length only; as much as a header of nothing. */
		if (i == 1)
			file_write(f->top, was, OVERLAY_HEAD);
		else
			file_write(f->top, "", 0);
		if (i >= 2)
			assert_int_equal(truncate(f->top, i == 2 ? (off_t)full : OVERLAY_HEAD), 0);
		overlay_fix_open(f);
		model_check(f->m);
		disk_close(&f->d);
		free(file_read(f->top, &len));
		assert_int_equal(len, full);
	}
	free(was);
}

static void test_who_shares(void **state)
{
	struct overlay_fix *f = *state;
	struct disk_config raw = {.path = f->base}, other = {.path = f->base};
	struct disk *d = NULL, *second = NULL;
	char path[300];
	struct err e;

	overlay_fix_open(f);
	/* The overlay is one's own, the base is everybody's who only reads it. */
	assert_int_equal(disk_open(&d, &f->cfg, f->r, &e), -EBUSY);
	assert_non_null(strstr(e.msg, f->top));
	assert_int_equal(disk_open(&d, &raw, f->r, &e), -EBUSY);
	raw.read_only = true;
	assert_int_equal(disk_open(&d, &raw, f->r, &e), 0);
	snprintf(path, sizeof(path), "%s/other", f->dir);
	other.overlay = path;
	assert_int_equal(disk_open(&second, &other, f->r, &e), 0);
	disk_close(&second);
	disk_close(&d);
	disk_close(&f->d);
	other.overlay = f->base; /* over itself */
	assert_int_equal(disk_open(&d, &other, f->r, &e), -EBUSY);
}

static void test_read_only(void **state)
{
	struct overlay_fix *f = *state;
	struct disk *other;
	size_t a_len, b_len;
	u8 *a, *b;

	overlay_fix_open(f);
	put(f, 512, 512, 5, false);
	disk_close(&f->d);
	a = file_read(f->top, &a_len);
	f->cfg.read_only = true;
	for (int i = 0; i < 2; i++) {
		overlay_fix_open(f);
		other = f->d;
		overlay_fix_open(f); /* readers share */
		assert_true(has(f, 512, 512, 5) && disk_read_only(f->d));
		assert_false(disk_can_discard(f->d) || disk_can_zero(f->d));
		assert_int_equal(flush(f), 0);
		disk_close(&other);
		disk_close(&f->d);
		overlay_fix_boot(f);
	}
	b = file_read(f->top, &b_len);
	assert_int_equal(a_len, b_len);
	assert_memory_equal(a, b, a_len);
	free(a);
	free(b);
}

static u64 blocks(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_blocks * 512;
}

/* A disk of 64 GiB: holes stay holes, in the copy too. */
static void test_sparse(void **state)
{
	struct overlay_fix *f = *state;
	u64 size = 64ull << 30, far = 63ull << 30;
	struct op o = {.op.done = done};
	struct iovec iov;
	char big[300], copy[300];
	u8 p[512];

	snprintf(big, sizeof(big), "%s/big", f->dir);
	snprintf(copy, sizeof(copy), "%s/copy", f->dir);
	file_write(big, "", 0);
	assert_int_equal(truncate(big, (off_t)size), 0);
	f->cfg.path = big;
	assert_int_equal(disk_open(&f->d, &f->cfg, f->r, NULL), 0);
	put(f, far + 512, 512, 1, false);
	put(f, C, 4 * C, 2, false);
	assert_int_equal(disk_sync_now(f->d, NULL), 0);
	assert_in_range(blocks(f->top), 5 * C, 100000);
	overlay_fix_save(f, "copy");
	assert_in_range(blocks(copy), 5 * C, 100000);
	disk_write_zeroes(f->d, &o.op, 2 * C, 1u << 30, true, false);
	assert_int_equal(run(f, &o), 0);
	disk_discard(f->d, &o.op, C, C);
	assert_int_equal(run(f, &o), 0);
	assert_int_equal(disk_sync_now(f->d, NULL), 0);
	assert_in_range(blocks(f->top), C, 200000);
	disk_close(&f->d);
	f->cfg.overlay = copy;
	assert_int_equal(disk_open(&f->d, &f->cfg, f->r, NULL), 0);
	iov = (struct iovec){p, 512};
	disk_read(f->d, &o.op, &iov, 1, far + 512, 512);
	assert_int_equal(run(f, &o), 0);
	assert_int_equal(p[0] + p[511], 2);
}

struct fault {
	enum fake_kind kind;
	unsigned nr;
	int err;
};

static int fail_one(void *ctx, const struct fake_io *io)
{
	const struct fault *fault = ctx;

	return io->kind == fault->kind && io->nr == fault->nr ? fault->err : 0;
}

/* One write, and its k-th operation fails: it fails, and nothing but its own bytes may change. */
static void sweep_write(struct overlay_fix *f, enum fake_kind kind, bool zero, bool durable)
{
	struct fault fault = {.kind = kind, .err = -ENOSPC};
	u64 off = 10 * C + 512;
	u32 len = 3 * C;
	bool failed = true;

	for (unsigned k = 0; failed; k++) {
		struct op o = {.op.done = done};
		u8 *now;

		assert_true(k < 20);
		unlink(f->top);
		f->cfg.sync = DISK_WRITEBACK;
		overlay_fix_open(f);
		f->r->ctx = &fault;
		f->r->fault = fail_one;
		fault.nr = f->r->queued[kind] + k;
		if (zero) {
			disk_write_zeroes(f->d, &o.op, off, len, true, durable);
			failed = run(f, &o) != 0;
		} else {
			failed = put(f, off, len, 0xee, durable) != 0;
		}
		f->r->fault = NULL;
		for (int again = 0; again < 2; again++) {
			now = overlay_fix_content(f);
			for (u32 i = 0; i < OVERLAY_FIX_SECTORS * DISK_SECTOR; i++) {
				u8 new = zero ? 0 : 0xee;
				bool in = i >= off && i < off + len;

				if (!in || (now[i] != new && failed))
					assert_int_equal(now[i], f->base_was[i]);
				else
					assert_int_equal(now[i], new);
			}
			free(now);
			overlay_fix_kill(f);
			if (!again)
				overlay_fix_open(f);
		}
	}
}

static void test_faults(void **state)
{
	struct overlay_fix *f = *state;

	sweep_write(f, FAKE_WRITE, false, false);
	sweep_write(f, FAKE_READ, false, false);
	sweep_write(f, FAKE_WRITE, true, false);
	sweep_write(f, FAKE_READ, true, false);
	sweep_write(f, FAKE_FALLOCATE, true, false);
	sweep_write(f, FAKE_SYNC, false, true);
	sweep_write(f, FAKE_WRITE, false, true);
}

/* G03: whichever operation of a flush fails, it and all later ones do. */
static void test_failed_flush(void **state)
{
	struct overlay_fix *f = *state;
	struct err e;

	for (unsigned k = 0; k < 3; k++) {
		struct fault fault = {.kind = k < 2 ? FAKE_SYNC : FAKE_WRITE, .err = -EIO};

		unlink(f->top);
		overlay_fix_open(f);
		put(f, 0, C, 1, false);
		f->r->ctx = &fault;
		f->r->fault = fail_one;
		fault.nr = f->r->queued[fault.kind] + (k < 2 ? k : 0);
		assert_int_equal(flush(f), -EIO);
		f->r->fault = NULL;
		assert_int_equal(flush(f), -EIO);
		assert_int_equal(put(f, 512, 512, 2, true), -EIO);
		assert_int_equal(put(f, 0, C, 3, false), 0);
		assert_int_equal(disk_sync_now(f->d, &e), -EIO);
		disk_close(&f->d);
		overlay_fix_open(f);
		assert_true(has(f, 0, C, 3));
		assert_int_equal(flush(f), 0);
		disk_close(&f->d);
	}
}

static void test_cancel(void **state)
{
	struct overlay_fix *f = *state;
	struct op o[8];
	u8 *buf = malloc(8 * C);
	struct iovec iov = {buf, 3 * C};

	memset(buf, 1, 8 * C);
	for (unsigned seed = 0; seed < 400; seed++) {
		unlink(f->top);
		f->cfg.sync = seed & 1 ? DISK_UNSAFE : DISK_WRITEBACK;
		overlay_fix_open(f);
		for (unsigned i = 0; i < 8; i++)
			o[i] = (struct op){.op.done = done};
		disk_write(f->d, &o[0].op, &iov, 1, 512, 3 * C, false);
		disk_write(f->d, &o[1].op, &iov, 1, 2 * C + 512, 3 * C, true);
		disk_read(f->d, &o[2].op, &iov, 1, 0, 3 * C);
		disk_flush(f->d, &o[3].op);
		disk_discard(f->d, &o[4].op, 5 * C, 5 * C);
		disk_write_zeroes(f->d, &o[5].op, 512, 6 * C, seed & 2, true);
		disk_read(f->d, &o[6].op, &iov, 1, 2 * C, 3 * C);
		disk_flush(f->d, &o[7].op);
		for (u64 n = fake_ring_rand(f->r, 40); n; n--)
			fake_ring_step(f->r);
		for (unsigned i = 0; i < 8; i++)
			if (!o[i].runs)
				disk_cancel(f->d, &o[i].op);
		fake_ring_drain(f->r);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(o[i].runs, 1);
			assert_true(o[i].res == 0 || o[i].res == -ECANCELED);
		}
		assert_true(TAILQ_EMPTY(&f->d->ranges.active) && TAILQ_EMPTY(&f->d->ranges.waiting));
		assert_int_equal(flush(f), 0);
		overlay_fix_kill(f);
	}
	free(buf);
}

static void test_empty_requests(void **state)
{
	struct overlay_fix *f = *state;
	u64 end = OVERLAY_FIX_SECTORS * DISK_SECTOR;
	struct op o = {.op.done = done};

	overlay_fix_open(f);
	disk_read(f->d, &o.op, NULL, 0, end, 0);
	assert_int_equal(run(f, &o), 0);
	disk_write(f->d, &o.op, NULL, 0, end, 0, true);
	assert_int_equal(run(f, &o), 0);
	disk_discard(f->d, &o.op, end, 0);
	assert_int_equal(run(f, &o), 0);
	disk_write_zeroes(f->d, &o.op, end, 0, true, true);
	assert_int_equal(run(f, &o), 0);
	disk_discard(f->d, &o.op, 512, 1024); /* no whole cluster */
	assert_int_equal(run(f, &o), 0);
	model_check(f->m);
	/* The last cluster is less than one. */
	disk_discard(f->d, &o.op, end / C * C, end % C);
	assert_int_equal(run(f, &o), 0);
	assert_true(has(f, end / C * C, end % C, 0));
}

static void test_save_errors(void **state)
{
	struct overlay_fix *f = *state;
	int fd = open(f->base, O_RDONLY | O_CLOEXEC);
	struct err e;

	overlay_fix_open(f);
	put(f, 0, C, 1, false);
	assert_int_equal(disk_save_overlay(f->d, -1, &e), -EBADF);
	assert_non_null(strstr(e.msg, "cannot copy overlay"));
	/* One that is not for writing. */
	assert_true(disk_save_overlay(f->d, fd, &e) < 0);
	assert_non_null(strstr(e.msg, f->top));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, overlay_fix_setup, overlay_fix_teardown)
		T(test_cost),
		T(test_flush_cost),
		T(test_durable_after_kill),
		T(test_write_during_flush),
		T(test_close_settles),
		T(test_release),
		T(test_of_another_base),
		T(test_no_overlay),
		T(test_damaged),
		T(test_half_made),
		T(test_who_shares),
		T(test_read_only),
		T(test_sparse),
		T(test_faults),
		T(test_failed_flush),
		T(test_cancel),
		T(test_empty_requests),
		T(test_save_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
