/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk.c - what a block device answers to one request, sound or hostile. Tests are named after
 * the hostile catalogue (B01 to B13).
 */
#include "tests/lib/blk_guest.h"
#include "virtio/blk_int.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#define OK     VIRTIO_BLK_S_OK
#define IOERR  VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP
#define IN     VIRTIO_BLK_T_IN
#define OUT    VIRTIO_BLK_T_OUT
#define FLUSH  VIRTIO_BLK_T_FLUSH
#define GET_ID VIRTIO_BLK_T_GET_ID

static u8 pattern[BG_DATA_MAX];

static int setup(void **state)
{
	struct bg *g = calloc(1, sizeof(*g));

	must(g);
	for (unsigned i = 0; i < sizeof(pattern); i++)
		pattern[i] = (u8)(i * 31 + (i >> 8) * 7 + 1);
	bg_init(g);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct bg *g = *state;

	bg_finish(g);
	free(g);
	assert_int_equal(fake_disks_open, 0);
	return 0;
}

/* The same device and driver on a disk that differs. */
static void again(struct bg *g, struct disk *disk, u64 not_accepted)
{
	bg_finish(g);
	*g = (struct bg){0};
	bg_make_on(g, 1, disk);
	g->features = (BG_ALL | g->dev->features) & ~not_accepted;
	bg_driver(g);
	bg_settle(g);
}

/* The disk as it was when it was made. */
static void assert_untouched(struct bg *g)
{
	assert_true(fake_disk_is(g->disk, 0, g->disk->size, 0));
}

static u64 rejected(struct bg *g)
{
	struct blk_stats s;

	bg_stats(g, &s);
	return s.rejected;
}

static void test_config(void **state)
{
	struct bg *g = *state;

	assert_int_equal(bg_config32(g, 0), BG_SECTORS);
	assert_int_equal(bg_config32(g, 4), 0);
	assert_int_equal(bg_config32(g, 12), VQ_SIZE_MAX - 2);
	assert_int_equal(bg_config32(g, 20), 512);
	assert_int_equal(bg_config32(g, 36) >= 1024, 1); /* max_discard_sectors */
	assert_int_equal(bg_config32(g, 40), 64);
	assert_int_equal(bg_config32(g, 44), 1);
	assert_int_equal(bg_config32(g, 52), 64);
	assert_int_equal(bg_config32(g, 56), 1); /* write_zeroes_may_unmap */
	assert_int_equal(bg_config32(g, 60), 0);
	/* There is nothing to write. */
	drv_write(g->dev, VIRTIO_MMIO_CONFIG, 7);
	assert_int_equal(bg_config32(g, 0), BG_SECTORS);
	assert_int_equal(g->dev->features, BG_F(SEG_MAX) | BG_F(BLK_SIZE) | BG_F(FLUSH) |
		BG_F(DISCARD) | BG_F(WRITE_ZEROES));
}

static void test_write_and_read(void **state)
{
	static u8 buf[BG_DATA_MAX];
	struct bg *g = *state;
	struct blk_stats s;

	assert_int_equal(bg_do(g, OUT, 3, pattern, sizeof(pattern)), OK);
	assert_int_equal(bg_do(g, IN, 3, buf, sizeof(buf)), OK);
	assert_memory_equal(buf, pattern, sizeof(buf));
	fake_disk_get(g->disk, 3 * 512, buf, sizeof(buf));
	assert_memory_equal(buf, pattern, sizeof(buf));
	assert_true(fake_disk_is(g->disk, 0, 3 * 512, 0));
	assert_true(fake_disk_is(g->disk, 3 * 512 + sizeof(buf), 512, 0));
	assert_int_equal(bg_do(g, FLUSH, 0, NULL, 0), OK);
	bg_stats(g, &s);
	assert_int_equal(s.reads, 1);
	assert_int_equal(s.writes, 1);
	assert_int_equal(s.flushes, 1);
	assert_int_equal(s.read_bytes, sizeof(buf));
	assert_int_equal(s.write_bytes, sizeof(buf));
	assert_int_equal(s.failed + s.rejected, 0);
}

static void test_last_sector(void **state)
{
	struct bg *g = *state;
	u8 buf[1024];

	assert_int_equal(bg_do(g, OUT, BG_SECTORS - 1, pattern, 512), OK);
	assert_int_equal(bg_do(g, IN, BG_SECTORS - 2, buf, 1024), OK);
	assert_memory_equal(buf + 512, pattern, 512);
}

/* Cuts a request into buffers of @hdr, @data and @tail bytes, and so on over and over. */
static u16 cut(struct bg *g, bool write, u64 sector, u32 len, u32 out_cut, u32 in_cut)
{
	struct bg_place p = bg_header(g, 0, write ? OUT : IN, sector);
	u64 gpa = p.data_gpa, out = 16 + (write ? len : 0), in = 1 + (write ? 0 : len);
	struct vqb_buf buf[BG_SIZE];
	struct virtio_blk_outhdr h = {.type = write ? OUT : IN, .sector = sector};
	u16 n = 0;

	/* All in one piece of memory, in the order of the chain. */
	guest_write(&g->ram, gpa, &h, sizeof(h));
	if (write)
		guest_write(&g->ram, gpa + 16, pattern, len);
	guest_fill(&g->ram, gpa + out, in, BG_UNSET);
	for (u32 part; out; out -= part, gpa += part) {
		part = out_cut < out ? out_cut : (u32)out;
		buf[n++] = VQB_R(gpa, part);
	}
	for (u32 part; in; in -= part, gpa += part) {
		part = in_cut < in ? in_cut : (u32)in;
		buf[n++] = VQB_W(gpa, part);
	}
	return bg_chain(g, 0, buf, n);
}

/* B01, B02: any layout of header, data and status works. */
static void test_b01_b02_any_layout(void **state)
{
	static const struct {
		u32 len, out_cut, in_cut;
	} c[] = {{512, 1u << 20, 1u << 20}, {512, 16, 512}, {512, 1, 1u << 20}, {512, 7, 1u << 20},
		{512, 12, 13}, {1024, 500, 511}, {1024, 17, 1u << 20}, {4096, 1000, 4096},
		{4096, 16, 4097}, {16384, 300, 300}, {32768, 528, 1024}};
	struct bg *g = *state;
	static u8 buf[BG_DATA_MAX];

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		for (unsigned write = 0; write < 2; write++) {
			u32 out = 16 + (write ? c[i].len : 0), in = 1 + (write ? 0 : c[i].len);
			u64 data_gpa;
			u16 head, got;
			u32 used;
			u8 status;

			if ((out - 1) / c[i].out_cut + (in - 1) / c[i].in_cut + 2 > BG_SIZE)
				continue;
			fake_disk_put(g->disk, 5 * 512, pattern + write, c[i].len);
			head = cut(g, write, 5, c[i].len, c[i].out_cut, c[i].in_cut);
			bg_settle(g);
			assert_true(vqb_used(&g->q[0], &got, &used));
			assert_int_equal(got, head);
			assert_int_equal(used, in);
			data_gpa = bg_place_of(0, head).data_gpa;
			guest_read(&g->ram, data_gpa + out + in - 1, &status, 1);
			assert_int_equal(status, OK);
			fake_disk_get(g->disk, 5 * 512, buf, c[i].len);
			assert_memory_equal(buf, pattern, c[i].len);
			if (write)
				continue;
			guest_read(&g->ram, data_gpa + 16, buf, c[i].len);
			assert_memory_equal(buf, pattern, c[i].len);
		}
	}
	assert_int_equal(rejected(g), 0);
}

/* B01: a header that is too short gets IOERR, whatever it begins with. */
static void test_b01_header_short(void **state)
{
	struct bg *g = *state;

	for (u32 len = 0; len < 16; len++) {
		struct bg_place p = bg_header(g, 0, FLUSH, 0);
		struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, len), VQB_W(p.data_gpa, 512),
			VQB_W(p.status_gpa, 1)};
		u16 head = len ? bg_chain(g, 0, buf, 3) : bg_chain(g, 0, buf + 1, 2);

		/* Without a readable buffer another place was meant. */
		bg_expect(g, 0, head, IOERR, 1);
	}
	assert_int_equal(rejected(g), 16);
	assert_int_equal(g->disk->log_count, 0);
}

/* B01: bytes behind the header of a request that reads none are not looked at. */
static void test_b01_header_oversized(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, IN, 0);
	struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, 1000), VQB_W(p.data_gpa, 512),
		VQB_W(p.status_gpa, 1)};

	bg_expect(g, 0, bg_chain(g, 0, buf, 3), OK, 513);
}

/* B02: without a place for the status the head goes back, and nothing is done. */
static void test_b02_no_status(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, OUT, 0);
	struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, 16), VQB_R(p.data_gpa, 512),
		VQB_R(p.status_gpa, 1)};
	struct vqb_buf empty[] = {VQB_R(0, 0)};
	struct vqb_buf zero[] = {VQB_R(p.hdr_gpa, 16), VQB_R(p.data_gpa, 512),
		VQB_W(p.status_gpa, 0)};

	guest_fill(&g->ram, p.data_gpa, 512, 0xff);
	bg_expect(g, 0, bg_chain(g, 0, buf, 3), BG_UNSET, 0);
	bg_expect(g, 0, bg_chain(g, 0, zero, 3), BG_UNSET, 0);
	bg_expect(g, 0, bg_chain(g, 0, empty, 1), BG_UNSET, 0);
	assert_int_equal(rejected(g), 3);
	assert_untouched(g);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_STATUS), 15);
}

/* B02: of a status buffer that is too long only the last byte is written. */
static void test_b02_long_status(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, OUT, 0);
	struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, 16), VQB_R(p.data_gpa, 512),
		VQB_W(p.data_gpa + 4096, 100)};
	u16 head, got;
	u32 used;

	guest_fill(&g->ram, p.data_gpa + 4096, 101, BG_UNSET);
	head = bg_chain(g, 0, buf, 3);
	bg_settle(g);
	assert_true(vqb_used(&g->q[0], &got, &used));
	assert_int_equal(got, head);
	assert_int_equal(used, 1);
	assert_true(guest_is(&g->ram, p.data_gpa + 4096, 99, BG_UNSET));
	assert_true(guest_is(&g->ram, p.data_gpa + 4096 + 99, 1, OK));
	assert_true(guest_is(&g->ram, p.data_gpa + 4096 + 100, 1, BG_UNSET));
}

/* B03, B04: nothing outside the disk, and nothing of a request that reaches beyond it. */
static void test_b03_b04_capacity(void **state)
{
	static const struct {
		u64 sector;
		u32 len;
	} c[] = {
		{BG_SECTORS, 512},
		{BG_SECTORS - 1, 1024},
		{BG_SECTORS - 100, 101 * 512},
		{BG_SECTORS + 1, 512},
		{1ull << 55, 512},          /* sector * 512 wraps to 0 */
		{(1ull << 55) - 1, 1024},
		{1ull << 63, 512},
		{UINT64_MAX, 512},          /* sector + 1 wraps */
		{UINT64_MAX - 1, 1024},
		{UINT64_MAX / 512, 512},
	};
	struct bg *g = *state;
	u8 buf[BG_DATA_MAX];

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		assert_int_equal(bg_do(g, OUT, c[i].sector, pattern, c[i].len), IOERR);
		assert_int_equal(bg_do(g, IN, c[i].sector, buf, c[i].len), IOERR);
	}
	assert_int_equal(rejected(g), 2 * ARRAY_SIZE(c));
	assert_int_equal(g->disk->log_count, 0);
	assert_untouched(g);
}

/* B04: descriptors that are small each, but too many together. */
static void test_b04_sum_past_capacity(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, OUT, BG_SECTORS - 60);
	struct vqb_buf buf[BG_SIZE] = {VQB_R(p.hdr_gpa, 16)};

	guest_fill(&g->ram, p.data_gpa, BG_DATA_MAX, 0xff);
	for (u16 i = 1; i < BG_SIZE - 1; i++)
		buf[i] = VQB_R(p.data_gpa, 512);
	buf[BG_SIZE - 1] = VQB_W(p.status_gpa, 1);
	bg_expect(g, 0, bg_chain(g, 0, buf, BG_SIZE), IOERR, 1);
	assert_untouched(g);
	bg_header(g, 0, OUT, BG_SECTORS - 62);
	bg_expect(g, 0, bg_chain(g, 0, buf, BG_SIZE), OK, 1);
	assert_true(fake_disk_is(g->disk, (BG_SECTORS - 62) * 512, 62 * 512, 0xff));
}

/* B05, B11. */
static void test_b05_b11_length(void **state)
{
	static const u32 len[] = {0, 1, 511, 513, 1000, 4095, 4097};
	struct bg *g = *state;
	u8 buf[8192];

	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		assert_int_equal(bg_do(g, IN, 0, buf, len[i]), IOERR);
		assert_int_equal(bg_do(g, OUT, 0, pattern, len[i]), IOERR);
	}
	assert_int_equal(g->disk->log_count, 0);
}

/* B06: also what is known, with a bit too many (a barrier, a SCSI command). */
static void test_b06_type(void **state)
{
	static const u32 type[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 64, 256, 0x80000000,
		0x80000001, 0x80000004, 0x10000, UINT32_MAX};
	struct bg *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(type); i++)
		assert_int_equal(bg_do(g, type[i], 0, pattern, 512), UNSUPP);
	assert_int_equal(rejected(g), ARRAY_SIZE(type));
	assert_int_equal(g->disk->log_count, 0);
}

/* A request of ranges, as discard and write-zeroes are. */
struct range {
	u64 sector;
	u32 count, flags;
};

static u8 do_ranges(struct bg *g, u32 type, const struct range *r, unsigned n)
{
	_Static_assert(sizeof(*r) == sizeof(struct virtio_blk_discard_write_zeroes), "wire");
	return bg_do(g, type, 0, (void *)(uintptr_t)r, n * (u32)sizeof(*r));
}

/* B07: whatever the driver acknowledged. */
static void test_b07_read_only(void **state)
{
	static const u64 drop[] = {0, BG_F(RO)};
	static const struct range r = {0, 1, 0};
	struct bg *g = *state;
	u8 buf[512];

	for (unsigned i = 0; i < ARRAY_SIZE(drop); i++) {
		struct disk *disk = fake_disk_new(BG_SECTORS);

		disk->read_only = true;
		again(g, disk, drop[i]);
		assert_int_equal(g->dev->features,
			BG_F(SEG_MAX) | BG_F(BLK_SIZE) | BG_F(FLUSH) | BG_F(RO));
		assert_int_equal(bg_do(g, OUT, 0, pattern, 512), IOERR);
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, &r, 1), IOERR);
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), IOERR);
		assert_int_equal(g->disk->log_count, 0);
		assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
		assert_int_equal(bg_do(g, FLUSH, 0, NULL, 0), OK);
	}
}

/* B08 */
static void test_b08_get_id(void **state)
{
	static const u8 want[20] = "disk-0";
	static const u32 len[] = {0, 1, 5, 19, 20, 21, 512};
	struct bg *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		struct bg_place p = bg_place(g, 0);
		u32 n = len[i] < 20 ? len[i] : 20;
		u8 got[512];
		u16 head;

		guest_fill(&g->ram, p.data_gpa, 512, 0x77);
		head = bg_add(g, 0, GET_ID, 0, NULL, len[i]);
		bg_expect(g, 0, head, OK, n + 1);
		guest_read(&g->ram, p.data_gpa, got, sizeof(got));
		assert_memory_equal(got, want, n);
		assert_true(guest_is(&g->ram, p.data_gpa + n, 512 - n, 0x77));
	}
}

/* B09 */
static void test_b09_flush(void **state)
{
	struct bg *g = *state;
	u16 a, b;

	/* Data and a sector mean nothing. */
	assert_int_equal(bg_do(g, FLUSH, 77, pattern, 700), OK);
	g->disk->hold = true;
	a = bg_add(g, 0, FLUSH, 0, NULL, 0);
	b = bg_add(g, 0, FLUSH, 0, NULL, 0);
	bg_settle(g);
	assert_int_equal(g->disk->count, 2);
	assert_int_equal(vqb_used_waiting(&g->q[0]), 0);
	g->disk->hold = false;
	bg_expect(g, 0, a, OK, 1);
	bg_expect(g, 0, b, OK, 1);
	assert_untouched(g);
}

/* B09, and what a driver without FLUSH is promised: each write is durable by itself. */
static void test_b09_flush_not_negotiated(void **state)
{
	static const struct range r = {8, 8, 0};
	struct bg *g = *state;

	assert_int_equal(bg_do(g, OUT, 0, pattern, 512), OK);
	assert_false(g->disk->log[0].durable);
	again(g, fake_disk_new(BG_SECTORS), BG_F(FLUSH));
	assert_int_equal(bg_do(g, OUT, 0, pattern, 512), OK);
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), OK);
	assert_true(g->disk->log[0].durable);
	assert_true(g->disk->log[1].durable);
	assert_int_equal(bg_do(g, FLUSH, 0, NULL, 0), OK);
	assert_int_equal(g->disk->done[FAKE_FLUSH], 1);
}

/* DISK_UNSAFE: no promise is offered, and none is made. */
static void test_b09_unsafe(void **state)
{
	struct disk *disk = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;

	disk->sync = DISK_UNSAFE;
	again(g, disk, 0);
	assert_false(g->dev->features & BG_F(FLUSH));
	assert_int_equal(bg_do(g, OUT, 0, pattern, 512), OK);
	assert_false(g->disk->log[0].durable);
	assert_int_equal(bg_do(g, FLUSH, 0, NULL, 0), UNSUPP);
	assert_int_equal(g->disk->log_count, 1);
}

/* DISK_DIRECT without FLUSH: past the page cache is not on the platter. */
static void test_b09_direct_is_durable(void **state)
{
	struct disk *disk = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;

	disk->sync = DISK_DIRECT;
	again(g, disk, BG_F(FLUSH));
	assert_int_equal(bg_do(g, OUT, 0, pattern, 512), OK);
	assert_true(g->disk->log[0].durable);
}

/* B10: what is refused is refused as a whole. */
static void test_b10_bad_ranges(void **state)
{
	const u32 max_discard = bg_config32(*state, 36), max_zeroes = bg_config32(*state, 48);
	const struct {
		struct range r;
		u8 discard, zeroes;
	} c[] = {
		{{0, 0, 0}, IOERR, IOERR},
		{{0, BG_SECTORS + 1, 0}, IOERR, IOERR},
		{{BG_SECTORS, 1, 0}, IOERR, IOERR},
		{{BG_SECTORS - 1, 2, 0}, IOERR, IOERR},
		{{UINT64_MAX, 1, 0}, IOERR, IOERR},
		{{UINT64_MAX - 1, 3, 0}, IOERR, IOERR},
		{{1ull << 55, 8, 0}, IOERR, IOERR},
		{{0, UINT32_MAX, 0}, IOERR, IOERR},
		{{0, max_discard + 1, 0}, IOERR, IOERR},
		{{0, max_zeroes + 1, 0}, IOERR, IOERR},
		{{0, 1, 2}, UNSUPP, UNSUPP},
		{{0, 1, 1u << 31}, UNSUPP, UNSUPP},
		{{0, 1, 3}, UNSUPP, UNSUPP},
		{{0, 1, UINT32_MAX}, UNSUPP, UNSUPP},
	};
	static const struct range unmap = {0, 1, 1};
	struct bg *g = *state;
	struct range r[3] = {{0, 1, 0}, {0}, {8, 1, 0}};

	fake_disk_put(g->disk, 0, pattern, 16 * 512);
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		r[1] = c[i].r;
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, r + 1, 1), c[i].discard);
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, r, 3), c[i].discard);
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, r + 1, 1), c[i].zeroes);
		assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, r, 3), c[i].zeroes);
	}
	/* 5.2.6.2: unmap is for write-zeroes only. */
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, &unmap, 1), UNSUPP);
	assert_int_equal(g->disk->log_count, 0);
}

/* B10: none, too many, a part of one. */
static void test_b10_count(void **state)
{
	static struct range r[66];
	struct bg *g = *state;
	static const u32 type[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	static const u32 len[] = {0, 1, 8, 15, 17, 31, 65 * 16, 66 * 16};

	for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = (struct range){i * 3, 2, 0};
	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		for (unsigned t = 0; t < 2; t++)
			assert_int_equal(bg_do(g, type[t], 0, r, len[i]), IOERR);
	}
	assert_int_equal(g->disk->log_count, 0);
}

/* B10: what is within the disk, but more than was said to be the most. */
static void test_b10_max(void **state)
{
	struct bg *g = *state;
	struct range r = {0};

	again(g, fake_disk_new(1u << 23), 0);
	r.count = bg_config32(g, 36) + 1;
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, &r, 1), IOERR);
	r.count = bg_config32(g, 48) + 1;
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), IOERR);
	assert_int_equal(g->disk->log_count, 0);
	r.count--;
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), OK);
}

/* B10: every range and nothing else, one after another. */
static void test_b10_ranges(void **state)
{
	static struct range r[64];
	struct bg *g = *state;
	struct blk_stats s;

	for (unsigned n = 1; n <= ARRAY_SIZE(r); n += n < 8 ? 1 : 28) {
		static const u8 want[2] = {0xdd, 0};

		for (unsigned t = 0; t < 2; t++) {
			g->disk->log_count = 0;
			for (u64 off = 0; off < g->disk->size; off += sizeof(pattern))
				fake_disk_put(g->disk, off, pattern, sizeof(pattern));
			for (unsigned i = 0; i < n; i++)
				r[i] = (struct range){(n - 1 - i) * 32 + 5, 1 + i % 8, t && i % 2};
			assert_int_equal(do_ranges(g, t ? VIRTIO_BLK_T_WRITE_ZEROES
							: VIRTIO_BLK_T_DISCARD, r, n), OK);
			assert_int_equal(g->disk->log_count, n);
			for (unsigned i = 0; i < n; i++) {
				u64 off = r[i].sector * 512, len = r[i].count * 512;

				assert_int_equal(g->disk->log[i].off, off);
				assert_int_equal(g->disk->log[i].unmap, r[i].flags);
				assert_true(fake_disk_is(g->disk, off, len, want[t]));
				fake_disk_put(g->disk, off, pattern + off % sizeof(pattern), len);
			}
			for (u64 off = 0; off < g->disk->size; off += sizeof(pattern)) {
				static u8 buf[sizeof(pattern)];

				fake_disk_get(g->disk, off, buf, sizeof(buf));
				assert_memory_equal(buf, pattern, sizeof(buf));
			}
		}
	}
	bg_stats(g, &s);
	assert_true(s.discards && s.discards == s.zeroes);
	assert_int_equal(s.failed + s.rejected, 0);
}

/* B10, B13: the first range that fails ends the request. */
static void test_b10_range_fails(void **state)
{
	static const struct range r[] = {{0, 1, 0}, {2, 1, 0}, {4, 1, 0}};
	struct bg *g = *state;

	g->disk->fail_what = FAKE_DISCARD;
	g->disk->fail_in = 2;
	g->disk->fail_res = -EIO;
	assert_int_equal(do_ranges(g, VIRTIO_BLK_T_DISCARD, r, 3), IOERR);
	assert_int_equal(g->disk->log_count, 2);
}

/* What the disk cannot do is not offered, and unknown. */
static void test_b10_not_offered(void **state)
{
	static const struct range r = {0, 1, 0};
	struct disk *disk = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;

	disk->can_discard = disk->can_zero = false;
	again(g, disk, 0);
	assert_int_equal(g->dev->features, BG_F(SEG_MAX) | BG_F(BLK_SIZE) | BG_F(FLUSH));
	assert_int_equal(bg_do(g, VIRTIO_BLK_T_DISCARD, 0, (void *)(uintptr_t)&r, 16), UNSUPP);
	assert_int_equal(bg_do(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, (void *)(uintptr_t)&r, 16), UNSUPP);
}

/* B12: as many descriptors as there can be, in the ring and in an indirect table. */
static void test_b12_max_chain(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, IN, 0);
	static struct vqb_buf buf[VQ_SIZE_MAX] = {0};
	u32 n = 0, sum = 0;
	u16 head;

	fake_disk_put(g->disk, 0, pattern, 62 * 1024);
	buf[n++] = VQB_R(p.hdr_gpa, 16);
	while (n < BG_SIZE - 1) {
		buf[n++] = VQB_W(p.data_gpa + sum, 1024);
		sum += 1024;
	}
	buf[n++] = VQB_W(p.status_gpa, 1);
	bg_expect(g, 0, bg_chain(g, 0, buf, (u16)n), OK, sum + 1);
	assert_memory_equal(guest_at(&g->ram, p.data_gpa, sum), pattern, sum);

	guest_fill(&g->ram, p.data_gpa, sizeof(pattern), 0);
	p = bg_header(g, 0, IN, 0);
	buf[0] = VQB_R(p.hdr_gpa, 16);
	for (n = 1, sum = 0; n < VQ_SIZE_MAX - 1; n++, sum += 128)
		buf[n] = VQB_W(p.data_gpa + sum, 128);
	/* 254 buffers of 128 bytes are 63.5 sectors: the last is longer. */
	buf[n - 1].len += 256;
	sum += 256;
	buf[n++] = VQB_W(p.status_gpa, 1);
	assert_int_equal(sum, 64 * 512);
	head = vqb_chain_indirect(&g->q[0], 0x1f00000, buf, (u16)n);
	vqb_offer(&g->q[0], head);
	vqb_publish(&g->q[0]);
	bg_kick(g, 0);
	bg_expect(g, 0, head, OK, sum + 1);
	assert_memory_equal(guest_at(&g->ram, p.data_gpa, sum), pattern, sum);
}

/* B13: a disk's error is the request's. The VM lives, and the next request too. */
static void test_b13_disk_errors(void **state)
{
	static const int res[] = {-EIO, -ENOSPC, -EINTR, -EAGAIN, -ENOMEM, -EFBIG, -ECANCELED};
	static const struct range r = {0, 8, 0};
	static const u8 type[] = {IN, OUT, FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	static u8 buf[4096];
	struct bg *g = *state;
	struct blk_stats s;

	for (unsigned i = 0; i < ARRAY_SIZE(res); i++) {
		for (unsigned t = 0; t < ARRAY_SIZE(type); t++) {
			void *data = t < 2 ? buf : (void *)(uintptr_t)&r;
			u32 len = t < 2 ? 4096 : t == 2 ? 0 : 16;

			g->disk->fail_what = (enum fake_what)t;
			g->disk->fail_in = 1;
			g->disk->fail_res = res[i];
			assert_int_equal(bg_do(g, type[t], 0, data, len), IOERR);
			assert_int_equal(bg_do(g, type[t], 0, data, len), OK);
		}
	}
	bg_stats(g, &s);
	assert_int_equal(s.failed, ARRAY_SIZE(res) * ARRAY_SIZE(type));
	assert_int_equal(s.reads, ARRAY_SIZE(res));
	assert_int_equal(s.zeroes, ARRAY_SIZE(res));
	assert_int_equal(g->dev->io_count, 0);
}

/* Q09, Q11, Q15: a chain with an address outside RAM goes back unused. */
static void test_q09_bad_address(void **state)
{
	static const struct {
		u64 gpa;
		u32 len;
	} c[] = {{1ull << 40, 512}, {UINT64_MAX - 10, 512}, {BG_RAM_LEN - 100, 512},
		{MEM_GAP_GPA, 512}, {0, UINT32_MAX}};
	struct bg *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		struct bg_place p = bg_header(g, 0, IN, 0);
		struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, 16), VQB_W(c[i].gpa, c[i].len),
			VQB_W(p.status_gpa, 1)};

		bg_expect(g, 0, bg_chain(g, 0, buf, 3), BG_UNSET, 0);
	}
	assert_int_equal(rejected(g), ARRAY_SIZE(c));
}

/* Q10, Q14: up to the end of RAM, and where the ring lies itself: no harm but the guest's. */
static void test_q10_q14_odd_places(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, IN, 0);
	struct vqb_buf buf[] = {VQB_R(p.hdr_gpa, 16), VQB_W(BG_RAM_LEN - 512, 512),
		VQB_W(p.status_gpa, 1)};
	u16 head;

	fake_disk_put(g->disk, 0, pattern, 512);
	bg_expect(g, 0, bg_chain(g, 0, buf, 3), OK, 513);
	assert_memory_equal(guest_at(&g->ram, BG_RAM_LEN - 512, 512), pattern, 512);
	/* The descriptor table of the queue is overwritten while the request is under way. */
	bg_header(g, 0, IN, 1);
	buf[1].gpa = g->q[0].desc_gpa;
	head = bg_chain(g, 0, buf, 3);
	bg_expect(g, 0, head, OK, 513);
}

/* Q17: a header that is writable, a status that is readable. */
static void test_q17_directions(void **state)
{
	struct bg *g = *state;
	struct bg_place p = bg_header(g, 0, IN, 0);
	struct vqb_buf buf[] = {VQB_W(p.hdr_gpa, 16), VQB_W(p.data_gpa, 512),
		VQB_W(p.status_gpa, 1)};

	bg_expect(g, 0, bg_chain(g, 0, buf, 3), IOERR, 1);
	assert_int_equal(g->disk->log_count, 0);
}

/* N: the structure itself is broken. What was under way ends; a reset brings it all back. */
static void test_q01_bad_ring(void **state)
{
	struct bg *g = *state;
	u8 buf[512];

	g->disk->hold = true;
	bg_add(g, 0, IN, 0, NULL, 512);
	bg_settle(g);
	vqb_set_desc(&g->q[0], 60, 0x80000, 16, VRING_DESC_F_NEXT, 60);
	vqb_offer(&g->q[0], 60);
	vqb_publish(&g->q[0]);
	drv_kick(g->dev, 0);
	bg_settle(g);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_STATUS), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	g->disk->hold = false;
	bg_settle(g);
	assert_int_equal(g->dev->io_count, 0);
	assert_int_equal(vqb_used_idx(&g->q[0]), 0);
	bg_driver(g);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
}

/* 2.5: the header is read once. What the guest writes later changes nothing. */
static void test_header_is_copied(void **state)
{
	struct bg *g = *state;
	struct virtio_blk_outhdr h = {.type = OUT, .sector = UINT64_MAX};
	struct bg_place p = bg_place(g, 0);
	u16 head;

	fake_disk_put(g->disk, 0, pattern, 512);
	g->disk->hold = true;
	head = bg_add(g, 0, IN, 0, NULL, 512);
	bg_settle(g);
	guest_write(&g->ram, p.hdr_gpa, &h, sizeof(h));
	guest_fill(&g->ram, g->q[0].desc_gpa, 16 * BG_SIZE, 0xff);
	g->disk->hold = false;
	bg_expect(g, 0, head, OK, 513);
	assert_memory_equal(guest_at(&g->ram, p.data_gpa, 512), pattern, 512);
}

/* Q29: a turn takes a burst, and the next one goes on without a kick. */
static void test_q29_burst(void **state)
{
	struct bg *g = *state;

	g->disk->hold = true;
	for (unsigned i = 0; i < 21; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	virtio_process(g->dev);
	assert_int_equal(g->disk->count, BLK_BURST);
	bg_settle(g);
	assert_int_equal(g->disk->count, 21);
	g->disk->hold = false;
	bg_settle(g);
	assert_int_equal(vqb_used_waiting(&g->q[0]), 21);
}

/* So it does where requests are large. */
static void test_q29_burst_of_bytes(void **state)
{
	struct bg *g = *state;

	g->disk->hold = true;
	for (unsigned i = 0; i < 5; i++)
		bg_add(g, 0, IN, i, NULL, i ? 65536 : 512);
	virtio_process(g->dev);
	assert_int_equal(g->disk->count, 2);
	bg_settle(g);
	assert_int_equal(g->disk->count, 5);
	g->disk->hold = false;
	bg_settle(g);
}

/* Q29, Q31: a whole ring of one head, which is answered at once and so may come again. */
static void test_q29_q31_same_head(void **state)
{
	struct bg *g = *state;
	u16 head = vqb_chain(&g->q[0], &VQB_W(bg_place(g, 0).status_gpa, 1), 1);

	for (unsigned i = 0; i < BG_SIZE; i++)
		vqb_offer(&g->q[0], head);
	vqb_publish(&g->q[0]);
	virtio_process(g->dev);
	assert_int_equal(rejected(g), BLK_BURST);
	bg_settle(g);
	assert_int_equal(rejected(g), BG_SIZE);
	assert_int_equal(vqb_used_idx(&g->q[0]), BG_SIZE);
}

static void test_create_errors(void **state)
{
	static const struct {
		struct blk_config cfg;
		const char *msg;
	} c[] = {
		{{"", 1, {{0}}}, "disk id"},
		{{"a b", 1, {{0}}}, "disk id"},
		{{"\xc3\xa4", 1, {{0}}}, "disk id"},
		{{"12345678901234567890123456789012345678901234567890123456789012345", 1, {{0}}},
			"disk id"},
		{{"a", 0, {{0}}}, "disk a: 0 queues"},
		{{"a", VIRTIO_QUEUES_MAX + 1, {{0}}}, "disk a: 34 queues"},
		{{"a", UINT32_MAX, {{0}}}, "disk a"},
	};
	struct bg *g = *state;
	struct virtio_dev *d;
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		assert_int_equal(blk_create(&d, &c[i].cfg, g->disk, g->ring, &g->ram.mem,
			(struct virtio_irq){0}, &e), -EINVAL);
		assert_int_equal(strncmp(e.msg, c[i].msg, strlen(c[i].msg)), 0);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config),
		T(test_write_and_read),
		T(test_last_sector),
		T(test_b01_b02_any_layout),
		T(test_b01_header_short),
		T(test_b01_header_oversized),
		T(test_b02_no_status),
		T(test_b02_long_status),
		T(test_b03_b04_capacity),
		T(test_b04_sum_past_capacity),
		T(test_b05_b11_length),
		T(test_b06_type),
		T(test_b07_read_only),
		T(test_b08_get_id),
		T(test_b09_flush),
		T(test_b09_flush_not_negotiated),
		T(test_b09_unsafe),
		T(test_b09_direct_is_durable),
		T(test_b10_bad_ranges),
		T(test_b10_count),
		T(test_b10_max),
		T(test_b10_ranges),
		T(test_b10_range_fails),
		T(test_b10_not_offered),
		T(test_b12_max_chain),
		T(test_b13_disk_errors),
		T(test_q09_bad_address),
		T(test_q10_q14_odd_places),
		T(test_q17_directions),
		T(test_q01_bad_ring),
		T(test_header_is_copied),
		T(test_q29_burst),
		T(test_q29_burst_of_bytes),
		T(test_q29_q31_same_head),
		T(test_create_errors),
	};

	return cmocka_run_group_tests_name("blk", tests, NULL, NULL);
}
