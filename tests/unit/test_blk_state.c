/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_state.c - what changes a block device from outside: limits, another size, another disk,
 * saved state.
 */
#include "tests/lib/blk_guest.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/clock.h"
#include "virtio/blk_int.h"

#define OK    VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define IN    VIRTIO_BLK_T_IN
#define OUT   VIRTIO_BLK_T_OUT
#define MS    1000000ull

static int setup(void **state)
{
	struct bg *g = calloc(1, sizeof(*g));

	must(g);
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

static struct blk_stats stats(struct bg *g)
{
	struct blk_stats s;

	bg_stats(g, &s);
	return s;
}

static struct blk *blk(struct bg *g)
{
	return container_of(g->dev, struct blk, dev);
}

static unsigned used(struct bg *g, unsigned queue)
{
	unsigned n = 0;
	u16 head;
	u32 len;

	while (vqb_used(&g->q[queue], &head, &len)) {
		assert_true(guest_is(&g->ram, bg_place_of(queue, head).status_gpa, 1, OK));
		n++;
	}
	return n;
}

/* Limits. */

static void test_no_limit_no_timer(void **state)
{
	struct bg *g = *state;
	u8 buf[512];

	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	assert_false(blk(g)->timer_op.busy);
	assert_int_equal(stats(g).throttled, 0);
}

static void test_b16_ops(void **state)
{
	const struct limit_config ten = {.ops = {.size = 10, .refill_ns = 100 * MS}};
	struct bg *g = *state;
	u64 begin_ns = monotonic_ns();

	blk_set_limit(g->dev, &ten);
	for (unsigned i = 0; i < 20; i++)
		bg_add(g, 0, i % 2 ? IN : VIRTIO_BLK_T_FLUSH, 0, NULL, i % 2 ? 512 : 0);
	bg_settle(g);
	/* What was checked and had no token is back in its queue. */
	assert_true(vqb_used_waiting(&g->q[0]) >= 10);
	assert_true(vqb_used_waiting(&g->q[0]) < 20);
	assert_int_equal(g->dev->queue[0].in_flight_count, 0);
	assert_true(blk(g)->timer_op.busy);
	BG_UNTIL(g, vqb_used_waiting(&g->q[0]) == 20);
	assert_true(monotonic_ns() - begin_ns >= 100 * MS);
	assert_true(stats(g).throttled >= 1);
	assert_true(stats(g).throttled <= 20);
	bg_settle(g);
	assert_false(blk(g)->timer_op.busy);
}

/* More than a bucket holds passes, and is paid for afterwards. */
static void test_b16_bytes(void **state)
{
	const struct limit_config kib = {.bytes = {.size = 4096, .refill_ns = 10 * MS}};
	struct bg *g = *state;
	u64 begin_ns = monotonic_ns();
	static u8 buf[32768];

	blk_set_limit(g->dev, &kib);
	assert_int_equal(bg_do(g, IN, 0, buf, sizeof(buf)), OK);
	assert_true(monotonic_ns() - begin_ns < 70 * MS);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	assert_true(monotonic_ns() - begin_ns >= 70 * MS);
}

/* What is wrong with a request costs no tokens; zeroes cost what they write, discards nothing. */
static void test_b16_cost(void **state)
{
	const struct limit_config kib = {.bytes = {.size = 4096, .refill_ns = 50 * MS}};
	struct virtio_blk_discard_write_zeroes r = {0, 1024, 0};
	struct bg *g = *state;
	u64 begin_ns;
	u8 buf[512];

	blk_set_limit(g->dev, &kib);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(bg_do(g, IN, BG_SECTORS, buf, 512), IOERR);
		assert_int_equal(bg_do(g, VIRTIO_BLK_T_DISCARD, 0, &r, 16), OK);
		assert_int_equal(bg_do(g, VIRTIO_BLK_T_GET_ID, 0, buf, 20), OK);
	}
	assert_int_equal(stats(g).throttled, 0);
	r.num_sectors = 16;
	begin_ns = monotonic_ns();
	assert_int_equal(bg_do(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &r, 16), OK);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	assert_true(monotonic_ns() - begin_ns >= 50 * MS);
}

/* Taking a limit away, or making it tighter, works at once. */
static void test_b16_change(void **state)
{
	const struct limit_config never = {.ops = {.size = 1, .refill_ns = UINT64_MAX}};
	const struct limit_config huge = {.ops = {UINT64_MAX, 1, UINT64_MAX},
		.bytes = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	const struct limit_config quick = {.ops = {.size = 1, .refill_ns = 5 * MS}};
	const struct limit_config none = {0};
	struct bg *g = *state;

	blk_set_limit(g->dev, &never);
	for (unsigned i = 0; i < 15; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_settle(g);
	assert_int_equal(used(g, 0), 1);
	/* The timer that was set for the end of time comes earlier. */
	blk_set_limit(g->dev, &quick);
	BG_UNTIL(g, vqb_used_waiting(&g->q[0]) >= 5);
	assert_true(vqb_used_waiting(&g->q[0]) < 14);
	blk_set_limit(g->dev, &never);
	bg_settle(g);
	blk_set_limit(g->dev, &none);
	bg_settle(g);
	assert_int_equal(used(g, 0), 14);
	blk_set_limit(g->dev, &huge);
	for (unsigned i = 0; i < 15; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_settle(g);
	assert_int_equal(used(g, 0), 15);
}

/* Queues get their tokens in turn, also where one asks for much. */
static void test_b16_fair(void **state)
{
	const struct limit_config c = {.ops = {.size = 4, .refill_ns = 4 * MS}};
	unsigned got[BG_QUEUES] = {0}, all = 0;
	struct bg *g = *state;

	bg_finish(g);
	*g = (struct bg){0};
	bg_make(g, BG_QUEUES);
	g->features = BG_ALL | g->dev->features;
	bg_driver(g);
	bg_settle(g);
	blk_set_limit(g->dev, &c);
	while (all < 80) {
		for (unsigned q = 0; q < BG_QUEUES; q++) {
			/* Those that end are asked for again: no queue ever runs dry. */
			while (g->q[q].free_count >= 10)
				bg_add(g, q, IN, 0, NULL, 512 << q);
		}
		bg_turn(g);
		for (unsigned q = 0; q < BG_QUEUES; q++) {
			unsigned n = used(g, q);

			got[q] += n;
			all += n;
		}
	}
	for (unsigned q = 1; q < BG_QUEUES; q++)
		assert_in_range(got[q], got[0] - 1, got[0] + 1);
}

/* A driver cannot shake a limit off by a reset; nothing of the old life is done after it. */
static void test_b16_reset(void **state)
{
	const struct limit_config one = {.ops = {.size = 1, .refill_ns = 30 * MS}};
	struct bg *g = *state;
	u64 begin_ns = monotonic_ns();
	u8 buf[512];

	blk_set_limit(g->dev, &one);
	for (unsigned i = 0; i < 10; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_settle(g);
	assert_int_equal(g->disk->log_count, 1);
	bg_driver(g); /* nothing is under way, so it does not wait */
	bg_settle(g);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(bg_do(g, IN, 9, buf, 512), OK);
		assert_true(monotonic_ns() - begin_ns >= i * 30 * MS);
	}
	assert_int_equal(g->disk->log_count, 4);
}

/* What needs no tokens does not wait in a new life for what waited in the old one. */
static void test_b16_reset_forgets(void **state)
{
	const struct limit_config never = {.ops = {.size = 1, .refill_ns = UINT64_MAX}};
	struct bg *g = *state;
	u8 buf[20];

	blk_set_limit(g->dev, &never);
	bg_add(g, 0, IN, 0, NULL, 512);
	bg_add(g, 0, IN, 0, NULL, 512);
	bg_settle(g);
	assert_true(blk(g)->waiting);
	bg_driver(g);
	assert_int_equal(bg_do(g, VIRTIO_BLK_T_GET_ID, 0, buf, 20), OK);
}

static void test_b16_freeze(void **state)
{
	const struct limit_config one = {.ops = {.size = 1, .refill_ns = 5 * MS}};
	struct bg *g = *state;
	u64 begin_ns;

	blk_set_limit(g->dev, &one);
	for (unsigned i = 0; i < 4; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_settle(g);
	virtio_freeze(g->dev);
	begin_ns = monotonic_ns();
	while (monotonic_ns() - begin_ns < 20 * MS)
		bg_turn(g);
	assert_true(g->disk->log_count < 4);
	assert_false(blk(g)->timer_op.busy);
	virtio_thaw(g->dev);
	BG_UNTIL(g, g->disk->log_count == 4);
}

/* Another size. */

static void test_resize(void **state)
{
	struct bg *g = *state;
	u32 generation = drv_read(g->dev, VIRTIO_MMIO_CONFIG_GENERATION);
	unsigned irqs = g->irqs;
	u8 buf[1024];

	assert_int_equal(blk_resize(g->dev), BG_SECTORS * 512);
	assert_int_equal(g->irqs, irqs);
	g->disk->next_size = (BG_SECTORS + 8) * 512;
	assert_int_equal(bg_do(g, OUT, BG_SECTORS, buf, 512), IOERR);
	irqs = g->irqs;
	assert_int_equal(blk_resize(g->dev), (BG_SECTORS + 8) * 512);
	assert_int_equal(g->irqs, irqs + 1);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG,
		VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_CONFIG_GENERATION), generation + 1);
	assert_int_equal(bg_config32(g, 0), BG_SECTORS + 8);
	assert_int_equal(bg_do(g, OUT, BG_SECTORS + 7, buf, 512), OK);
	assert_int_equal(bg_do(g, OUT, BG_SECTORS + 7, buf, 1024), IOERR);
	g->disk->next_size = 512;
	blk_resize(g->dev);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	assert_int_equal(bg_do(g, IN, 0, buf, 1024), IOERR);
	/* Without a driver there is nobody to tell. */
	drv_reset(g->dev);
	irqs = g->irqs;
	g->disk->next_size = 1024;
	blk_resize(g->dev);
	assert_int_equal(g->irqs, irqs);
	assert_int_equal(bg_config32(g, 0), 2);
}

/* The disk shrinks between two ranges of a request. */
static void test_shrink_between_ranges(void **state)
{
	const struct virtio_blk_discard_write_zeroes r[] = {{0, 1, 0}, {BG_SECTORS - 1, 1, 0}};
	struct bg *g = *state;
	u16 head;

	g->disk->hold = true;
	head = bg_add(g, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, sizeof(r));
	bg_settle(g);
	g->disk->next_size = 512;
	blk_resize(g->dev);
	g->disk->hold = false;
	bg_expect(g, 0, head, IOERR, 1);
	assert_int_equal(g->disk->log_count, 1);
}

/* Another disk. */

static void test_swap(void **state)
{
	struct disk *disk = fake_disk_new(BG_SECTORS * 2);
	struct bg *g = *state;
	unsigned irqs = g->irqs;
	struct err e;
	u8 buf[512];

	memset(buf, 0x42, 512);
	fake_disk_put(disk, 5 * 512, buf, 512);
	assert_int_equal(blk_swap(g->dev, disk, &e), 0);
	assert_ptr_equal(blk_disk(g->dev), disk);
	g->disk = disk;
	assert_int_equal(fake_disks_open, 1);
	assert_int_equal(g->irqs, irqs + 1);
	assert_int_equal(bg_config32(g, 0), BG_SECTORS * 2);
	memset(buf, 0, 512);
	assert_int_equal(bg_do(g, IN, 5, buf, 512), OK);
	assert_int_equal(buf[0], 0x42);
	assert_int_equal(bg_do(g, OUT, BG_SECTORS * 2 - 1, buf, 512), OK);
}

/* What is under way ends on the old disk; what comes meanwhile is for the new one. */
static void test_swap_drains(void **state)
{
	struct disk *other = fake_disk_new(BG_SECTORS), *third = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;
	struct disk *first = g->disk;
	struct err e;
	u16 a, b;

	first->hold = true;
	a = bg_add(g, 0, IN, 1, NULL, 512);
	bg_settle(g);
	assert_int_equal(blk_swap(g->dev, other, &e), 0);
	b = bg_add(g, 0, IN, 2, NULL, 512);
	drv_kick(g->dev, 0);
	bg_settle(g);
	assert_ptr_equal(blk_disk(g->dev), first);
	assert_int_equal(first->count, 1);
	assert_int_equal(other->count, 0);
	assert_int_equal(blk_swap(g->dev, third, &e), -EBUSY);
	disk_close(&third);
	first->hold = false;
	fake_disk_step(first);
	g->disk = other;
	bg_expect(g, 0, a, OK, 513);
	bg_expect(g, 0, b, OK, 513);
	assert_int_equal(other->log_count, 1);
	assert_int_equal(other->log[0].off, 1024);
	assert_int_equal(fake_disks_open, 1);
}

/* A swap that waits is not lost by a pause, nor with the device. */
static void test_swap_waits_then_device_goes(void **state)
{
	struct bg *g = *state;
	struct err e;

	g->disk->hold = true;
	bg_add(g, 0, IN, 1, NULL, 512);
	bg_settle(g);
	assert_int_equal(blk_swap(g->dev, fake_disk_new(1), &e), 0);
	virtio_freeze(g->dev);
	bg_settle(g);
	assert_int_equal(fake_disks_open, 2);
	g->disk->count = 0; /* the ring is gone */
}

static void test_swap_refused(void **state)
{
	struct disk *disk = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;
	struct err e;
	u8 buf[512];

	disk->can_discard = false;
	assert_int_equal(blk_swap(g->dev, disk, &e), -EINVAL);
	assert_string_equal(e.msg, "the guest uses what the new disk cannot do: discard");
	disk->can_zero = false;
	disk->sync = DISK_UNSAFE;
	assert_int_equal(blk_swap(g->dev, disk, &e), -EINVAL);
	assert_string_equal(e.msg,
		"the guest uses what the new disk cannot do: flush discard write-zeroes");
	/* A driver that does not use them does not mind. */
	g->features &= ~(BG_F(FLUSH) | BG_F(DISCARD) | BG_F(WRITE_ZEROES));
	bg_driver(g);
	assert_int_equal(blk_swap(g->dev, disk, &e), 0);
	g->disk = disk;
	assert_int_equal(g->dev->features, BG_F(SEG_MAX) | BG_F(BLK_SIZE));
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
}

static void test_swap_read_only(void **state)
{
	struct disk *ro = fake_disk_new(BG_SECTORS), *rw = fake_disk_new(BG_SECTORS);
	struct bg *g = *state;
	struct err e;
	u8 buf[512];

	ro->read_only = true;
	bg_finish(g);
	*g = (struct bg){0};
	bg_make_on(g, 1, ro);
	g->features = BG_ALL | g->dev->features;
	bg_driver(g);
	assert_int_equal(blk_swap(g->dev, rw, &e), -EINVAL);
	assert_int_equal(strncmp(e.msg, "the disk is read-only", 21), 0);
	rw->read_only = true;
	assert_int_equal(blk_swap(g->dev, rw, &e), 0);
	g->disk = rw;
	assert_int_equal(bg_do(g, OUT, 0, buf, 512), IOERR);
}

/* Saved state. */

#define AT_OWN (40 + 66) /* the device's part: capacity, block size, read-only */

static void test_save_and_load(void **state)
{
	struct bg *g = *state;
	struct enc out = {0}, out2 = {0};
	struct err e = {0};
	u8 buf[512];
	u16 a, b;

	/* One that is under way ends before; one that nobody kicked for is found again. */
	g->disk->hold = true;
	a = bg_add(g, 0, IN, 1, NULL, 512);
	bg_settle(g);
	virtio_freeze(g->dev);
	b = bg_add(g, 0, IN, 2, NULL, 512);
	g->disk->hold = false;
	bg_save(g, &out);
	assert_int_equal(out.len, AT_OWN + 13);
	assert_int_equal(bg_restore(g, &out, fake_disk_new(BG_SECTORS), &e), 0);
	bg_expect(g, 0, a, OK, 513);
	bg_expect(g, 0, b, OK, 513);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_CONFIG_GENERATION), 0);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	bg_save(g, &out2);
	assert_int_equal(out2.len, out.len);
	enc_free(&out);
	enc_free(&out2);
}

/* Chains that wait for tokens are still in the queue. */
static void test_save_throttled(void **state)
{
	const struct limit_config never = {.ops = {.size = 1, .refill_ns = UINT64_MAX}};
	struct bg *g = *state;
	struct enc out = {0};
	struct err e = {0};

	blk_set_limit(g->dev, &never);
	for (unsigned i = 0; i < 10; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_settle(g);
	bg_save(g, &out);
	assert_int_equal(used(g, 0), 1);
	assert_int_equal(bg_restore(g, &out, fake_disk_new(BG_SECTORS), &e), 0);
	bg_settle(g);
	assert_int_equal(used(g, 0), 9);
	enc_free(&out);
}

/* The disk grew while the guest was away: it is told. */
static void test_load_on_larger_disk(void **state)
{
	struct bg *g = *state;
	struct enc out = {0};
	struct err e = {0};
	unsigned irqs;

	bg_save(g, &out);
	irqs = g->irqs;
	assert_int_equal(bg_restore(g, &out, fake_disk_new(BG_SECTORS + 1), &e), 0);
	assert_int_equal(g->irqs, irqs);
	bg_settle(g);
	assert_int_equal(g->irqs, irqs + 1);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_CONFIG_GENERATION), 1);
	assert_int_equal(bg_config32(g, 0), BG_SECTORS + 1);
	enc_free(&out);
}

static void test_load_refused(void **state)
{
	static const struct {
		const char *names;
		unsigned at, len;
		u64 value;
	} c[] = {
		{"blk: capacity: 2049 sectors", AT_OWN, 8, BG_SECTORS + 1},
		{"blk: capacity", AT_OWN, 8, UINT64_MAX},
		{"blk: block_size: 4096", AT_OWN + 8, 4, 4096},
		{"blk: block_size: 0", AT_OWN + 8, 4, 0},
		{"blk: read_only: 1", AT_OWN + 12, 1, 1},
		{"blk: read_only: 255", AT_OWN + 12, 1, 255},
		{"blk: driver_features", 32, 8, BG_F(RO)},
		{"blk: driver_features", 32, 8, BG_F(CONFIG_WCE)},
		{"blk: queue_count", 4, 4, 2},
		{"blk: device_id", 0, 4, VIRTIO_ID_NET},
	};
	struct bg *g = *state;
	struct enc out = {0};
	struct err e;
	u8 *bytes;

	bg_save(g, &out);
	bytes = malloc(out.len + 1);
	must(bytes);
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		struct enc bad = out;

		memcpy(bytes, out.buf, out.len);
		memcpy(bytes + c[i].at, &c[i].value, c[i].len);
		bad.buf = bytes;
		assert_int_equal(bg_restore(g, &bad, fake_disk_new(BG_SECTORS), &e), -EINVAL);
		if (strncmp(e.msg, c[i].names, strlen(c[i].names)))
			fail_msg("case %u: \"%s\" does not name %s", i, e.msg, c[i].names);
		bg_settle(g);
	}
	for (size_t len = 0; len <= out.len + 1; len++) {
		struct enc bad = out;

		if (len == out.len)
			continue;
		memcpy(bytes, out.buf, out.len);
		bad.buf = bytes;
		bad.len = len;
		assert_int_equal(bg_restore(g, &bad, fake_disk_new(BG_SECTORS), &e), -EINVAL);
	}
	free(bytes);
	enc_free(&out);
}

/* H08: heads that would be in flight for ever. */
static void test_load_with_heads_in_flight(void **state)
{
	struct bg *g = *state;
	struct enc out = {0};
	struct err e;

	bg_add(g, 0, IN, 0, NULL, 512);
	bg_save(g, &out);
	/* next_avail 1, next_used 0, head 0 in flight. */
	out.buf[40 + 28] = 1;
	out.buf[40 + 30] = 0;
	out.buf[40 + 32] = 0;
	out.buf[40 + 34] = 1;
	assert_int_equal(bg_restore(g, &out, fake_disk_new(BG_SECTORS), &e), -EINVAL);
	assert_string_equal(e.msg, "blk: in_flight: 1 heads in queue 0");
	enc_free(&out);
}

/* Any bytes: refused, or loaded into a device that then runs without harm. */
static void test_load_any_bytes(void **state)
{
	static const u8 flip[] = {0x01, 0x02, 0x08, 0x10, 0x80, 0xff};
	unsigned loaded = 0, refused = 0;
	struct bg *g = *state;
	struct enc out = {0};

	for (unsigned i = 0; i < 5; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	bg_save(g, &out);
	for (size_t at = 0; at < out.len; at++) {
		u8 was = out.buf[at];

		for (unsigned i = 0; i < ARRAY_SIZE(flip); i++) {
			out.buf[at] = was ^ flip[i];
			if (bg_restore(g, &out, fake_disk_new(BG_SECTORS), NULL)) {
				refused++;
				continue;
			}
			loaded++;
			for (unsigned n = 0; n < 5; n++)
				bg_turn(g);
			while (g->dev->io_count)
				bg_turn(g);
			drv_reset(g->dev);
		}
		out.buf[at] = was;
	}
	assert_true(loaded && refused);
	enc_free(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_no_limit_no_timer),
		T(test_b16_ops),
		T(test_b16_bytes),
		T(test_b16_cost),
		T(test_b16_change),
		T(test_b16_fair),
		T(test_b16_reset),
		T(test_b16_reset_forgets),
		T(test_b16_freeze),
		T(test_resize),
		T(test_shrink_between_ranges),
		T(test_swap),
		T(test_swap_drains),
		T(test_swap_waits_then_device_goes),
		T(test_swap_refused),
		T(test_swap_read_only),
		T(test_save_and_load),
		T(test_save_throttled),
		T(test_load_on_larger_disk),
		T(test_load_refused),
		T(test_load_with_heads_in_flight),
		T(test_load_any_bytes),
	};

	return cmocka_run_group_tests_name("blk_state", tests, NULL, NULL);
}
