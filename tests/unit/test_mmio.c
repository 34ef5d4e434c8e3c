/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_mmio.c - the register window of virtio/mmio.c: every register in every state, right and
 * wrong. Tests are named after the ids of the hostile catalogue. test_mmio_life.c has resets,
 * threads and saved state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "tests/lib/fake_device.h"
#include "tests/lib/vq_builder.h"

#define RAM_LEN  0x100000u
#define DATA_GPA 0x40000u
#define ALL                                                                                        \
	(VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC | VIRTIO_MASK_EVENT_IDX | FAKE_FEATURES)

enum { R = 1, W = 2, RW = 3 };
enum { NEVER, ALWAYS, FEATURES, QUEUES, READY };

static const struct {
	const char *name;
	u32 off;
	int access, when;
} regs[] = {
#define REG(name, off, access, when) {#name, off, access, when},
#include "virtio/mmio_regs.def"
#undef REG
};

struct fixture {
	struct guest_ram ram;
	struct fake_device f;
	struct vqb b[FAKE_QUEUES];
};

static int setup(void **state)
{
	struct fixture *t = calloc(1, sizeof(*t));

	must(t);
	guest_ram_init(&t->ram, RAM_LEN, 0);
	fake_init(&t->f, &t->ram.mem);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		vqb_init(&t->b[i], &t->ram, 0x1000 + 0x8000 * i, 16);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *t = *state;

	fake_finish(&t->f);
	guest_ram_finish(&t->ram);
	free(t);
	return 0;
}

/* A driver that does everything right, up to DRIVER_OK. */
static void bring_up(struct fixture *t)
{
	assert_true(drv_negotiate(&t->f.d, ALL));
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		assert_true(drv_queue(&t->f.d, i, &t->b[i]));
	assert_true(drv_start(&t->f.d));
}

static u64 bad_accesses(struct fixture *t)
{
	return t->f.d.stats.bad_accesses;
}

/* What a driver can set up. */
struct setup_image {
	u32 status;
	u64 driver_features;
	struct vq queue[VIRTIO_QUEUES_MAX];
};

static struct setup_image image(const struct fixture *t)
{
	struct setup_image s;

	memset(&s, 0, sizeof(s));
	s.status = t->f.d.status;
	s.driver_features = t->f.d.driver_features;
	memcpy(s.queue, t->f.d.queue, sizeof(s.queue));
	return s;
}

static void assert_same(const struct fixture *t, const struct setup_image *before)
{
	struct setup_image now = image(t);

	assert_memory_equal(&now, before, sizeof(now));
}

static void test_identity(void **state)
{
	struct fixture *t = *state;

	assert_int_equal(drv_read(&t->f.d, 0x000), 0x74726976);
	assert_int_equal(drv_read(&t->f.d, 0x004), 2);
	assert_int_equal(drv_read(&t->f.d, 0x008), 42);
	assert_memory_equal(&(u32){drv_read(&t->f.d, 0x00c)}, "KLVN", 4);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_SHM_LEN_HIGH), UINT32_MAX);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_SHM_BASE_LOW), UINT32_MAX);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_SHM_BASE_HIGH), UINT32_MAX);
	for (u32 i = 0; i < 2; i++) {
		drv_write(&t->f.d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, i);
		assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_DEVICE_FEATURES),
			(u32)(ALL >> (32 * i)));
	}
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_QUEUE_NUM_MAX), VQ_SIZE_MAX);
}

static void test_right_driver(void **state)
{
	struct fixture *t = *state;
	u16 head, got;
	u32 len;

	bring_up(t);
	assert_int_equal(t->f.activated, 1);
	assert_int_equal(bad_accesses(t), 0);
	/* DRIVER_OK makes the loop look once, for what was there before. */
	assert_int_equal(fake_loop(&t->f), 1);
	head = vqb_add(&t->b[1], (struct vqb_buf[]){VQB_R(DATA_GPA, 9), VQB_W(DATA_GPA, 11)}, 2);
	drv_kick(&t->f.d, 1);
	assert_int_equal(fake_loop(&t->f), 1);
	assert_int_equal(t->f.chains, 1);
	assert_int_equal(t->f.raised, 1);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
	drv_write(&t->f.d, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	assert_true(vqb_used(&t->b[1], &got, &len));
	assert_int_equal(got, head);
	assert_int_equal(len, 11);
	assert_true(t->f.d.queue[0].event_idx && t->f.d.queue[0].indirect);
}

static void test_without_optional_features(void **state)
{
	struct fixture *t = *state;

	assert_true(drv_negotiate(&t->f.d, VIRTIO_MASK_VERSION_1));
	assert_false(t->f.d.queue[0].event_idx || t->f.d.queue[0].indirect);
	assert_true(virtio_has(&t->f.d, VIRTIO_MASK_VERSION_1));
	assert_false(virtio_has(&t->f.d, VIRTIO_MASK_VERSION_1 | 1));
}

/* Accesses of @len at @off do nothing, read 0 and are counted. */
static void assert_refused(struct fixture *t, u32 off, unsigned len)
{
	static const u8 zeros[8];
	struct setup_image before = image(t);
	u64 bad = bad_accesses(t);
	u8 buf[8];

	memset(buf, 0xff, sizeof(buf));
	virtio_mmio_write(&t->f.d, off, buf, len);
	virtio_mmio_read(&t->f.d, off, buf, len);
	assert_memory_equal(buf, zeros, len);
	assert_int_equal(bad_accesses(t), bad + 2);
	assert_same(t, &before);
}

static void test_t01_wrong_width(void **state)
{
	static const unsigned len[] = {1, 2, 3, 5, 6, 7, 8};
	struct fixture *t = *state;

	bring_up(t);
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		for (unsigned k = 0; k < ARRAY_SIZE(len); k++)
			assert_refused(t, regs[i].off, len[k]);
	}
}

static void test_t02_misaligned(void **state)
{
	struct fixture *t = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		for (u32 off = 1; off < 4; off++) {
			if (regs[i].off + off + 4 <= VIRTIO_MMIO_CONFIG)
				assert_refused(t, regs[i].off + off, 4);
		}
	}
	/* From the last register into config space, and out of the window. */
	assert_refused(t, 0x0fe, 4);
	assert_refused(t, VIRTIO_MMIO_WINDOW - 2, 4);
	assert_refused(t, VIRTIO_MMIO_WINDOW - 1, 8);
	assert_refused(t, VIRTIO_MMIO_WINDOW + 4, 4);
}

static void test_t03_undefined_offset(void **state)
{
	struct fixture *t = *state;
	unsigned undefined = 0;

	for (u32 off = 0; off < VIRTIO_MMIO_CONFIG; off += 4) {
		bool defined = false;

		for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
			defined |= regs[i].off == off;
		if (defined)
			continue;
		assert_refused(t, off, 4);
		undefined++;
	}
	assert_int_equal(undefined, 64 - ARRAY_SIZE(regs));
	assert_refused(t, 0x0c0, 4); /* QueueReset: not offered */
}

static void test_t04_wrong_direction(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		struct setup_image before = image(t);
		u64 bad = bad_accesses(t);
		u32 value = drv_read(&t->f.d, regs[i].off);

		if (!(regs[i].access & R)) {
			assert_int_equal(value, 0);
			assert_int_equal(bad_accesses(t), bad + 1);
		} else if (!(regs[i].access & W)) {
			drv_write(&t->f.d, regs[i].off, ~value);
			assert_int_equal(drv_read(&t->f.d, regs[i].off), value);
			assert_int_equal(bad_accesses(t), bad + 1);
		}
		assert_same(t, &before);
	}
}

static void test_t05_queue_sel_outside(void **state)
{
	static const u32 sel[] = {FAKE_QUEUES, VIRTIO_QUEUES_MAX, 0x100, 0xffff, 0x10000,
		UINT32_MAX};
	struct fixture *t = *state;

	assert_true(drv_negotiate(&t->f.d, ALL));
	for (unsigned s = 0; s < ARRAY_SIZE(sel); s++) {
		struct setup_image before = image(t);

		drv_write(&t->f.d, VIRTIO_MMIO_QUEUE_SEL, sel[s]);
		assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_QUEUE_READY), 0);
		for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
			if (regs[i].when == QUEUES || regs[i].when == READY)
				drv_write(&t->f.d, regs[i].off, 1);
		}
		assert_same(t, &before);
	}
}

/* QueueNum @size, then the rest of a good queue: whether it came ready. */
static bool ready_with(struct fixture *t, u32 size)
{
	struct virtio_dev *d = &t->f.d;

	assert_true(drv_negotiate(d, ALL));
	drv_write(d, VIRTIO_MMIO_QUEUE_NUM, 16);
	drv_write(d, VIRTIO_MMIO_QUEUE_NUM, size);
	drv_write(d, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
	drv_write(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x3000);
	drv_write(d, VIRTIO_MMIO_QUEUE_USED_LOW, 0x4000);
	drv_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
	return drv_read(d, VIRTIO_MMIO_QUEUE_READY);
}

static void test_t06_queue_num(void **state)
{
	static const u32 bad[] = {0, 3, 6, 255, 257, 512, 0x8000, 0x10000, 0x10001, 0x10010,
		0x80000000, UINT32_MAX};
	struct fixture *t = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(ready_with(t, bad[i]));
		assert_true(t->f.d.status & VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_false(drv_start(&t->f.d));
	}
	for (u32 size = 1; size <= VQ_SIZE_MAX; size *= 2)
		assert_true(ready_with(t, size));
	assert_int_equal(t->f.activated, 0);
}

static void test_t07_queue_ready(void **state)
{
	static const u32 odd[] = {2, 3, 0x100, 0x10000, 0x80000001, UINT32_MAX};
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;
	struct setup_image before;

	/* No addresses: guest address 0 is RAM, but there is no size. */
	assert_true(drv_negotiate(d, ALL));
	drv_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_true(d->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* Nobody is told before DRIVER_OK. */
	assert_int_equal(t->f.raised, 0);

	assert_true(drv_negotiate(d, ALL));
	assert_true(drv_queue(d, 0, &t->b[0]));
	before = image(t);
	drv_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++)
		drv_write(d, VIRTIO_MMIO_QUEUE_READY, odd[i]);
	assert_same(t, &before);
	/* Ready means frozen ... */
	drv_write(d, VIRTIO_MMIO_QUEUE_NUM, 8);
	drv_write(d, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x2000);
	assert_same(t, &before);
	/* ... until it is taken back. */
	drv_write(d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_QUEUE_READY), 0);
	drv_write(d, VIRTIO_MMIO_QUEUE_NUM, 8);
	assert_int_equal(d->queue[0].size, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++)
		drv_write(d, VIRTIO_MMIO_QUEUE_READY, odd[i]);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_QUEUE_READY), 0);
}

/* Queue registers outside their time; after DRIVER_OK it is the bug of CVE-2026-5747. */
static void test_t08_queue_registers_out_of_time(void **state)
{
	static const u32 value[] = {0, 1, 2, 8, 256, 0x8000, 0x1000, UINT32_MAX};
	struct fixture *t = *state;

	for (unsigned stage = 0; stage < 5; stage++) {
		struct setup_image before;

		drv_reset(&t->f.d);
		if (stage >= 1)
			drv_write(&t->f.d, VIRTIO_MMIO_STATUS, 1);
		if (stage >= 2)
			drv_write(&t->f.d, VIRTIO_MMIO_STATUS, 3);
		if (stage == 3)
			bring_up(t);
		if (stage == 4) {
			/* With queues that were not set up and must stay so. */
			assert_true(drv_negotiate(&t->f.d, ALL));
			assert_true(drv_queue(&t->f.d, 0, &t->b[0]));
			assert_true(drv_start(&t->f.d));
		}
		before = image(t);
		for (u32 sel = 0; sel < FAKE_QUEUES; sel++) {
			drv_write(&t->f.d, VIRTIO_MMIO_QUEUE_SEL, sel);
			for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
				if (regs[i].when != QUEUES && regs[i].when != READY)
					continue;
				for (unsigned v = 0; v < ARRAY_SIZE(value); v++)
					drv_write(&t->f.d, regs[i].off, value[v]);
			}
		}
		assert_same(t, &before);
	}
}

/* Brings the device into @status, which is one it can be in. */
static void reach(struct fixture *t, u32 status)
{
	static const u32 path[] = {1, 3, 11};
	struct virtio_dev *d = &t->f.d;

	drv_reset(d);
	drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(path) && (status & path[i]) == path[i]; i++) {
		drv_write(d, VIRTIO_MMIO_STATUS, path[i]);
		drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	}
	if (status & VIRTIO_CONFIG_S_DRIVER_OK)
		drv_write(d, VIRTIO_MMIO_STATUS, 15);
	if (status & VIRTIO_CONFIG_S_NEEDS_RESET) {
		pthread_mutex_lock(&d->lock);
		virtio_fail(d);
		pthread_mutex_unlock(&d->lock);
	}
	if (status & VIRTIO_CONFIG_S_FAILED)
		drv_write(d, VIRTIO_MMIO_STATUS, status);
	if (drv_read(d, VIRTIO_MMIO_STATUS) != status)
		fail_msg("status 0x%x is not reached", status);
}

/* The specification in words: bits come one at a time in order, FAILED any time, none goes. */
static u32 status_after(u32 status, u32 v)
{
	u32 added = v & ~status;

	if (!v)
		return 0;
	if (status & ~v || v > 0xff)
		return status;
	if (added == VIRTIO_CONFIG_S_FAILED)
		return v;
	if (status & (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET))
		return status;
	if ((status == 0 && added == 1) || (status == 1 && added == 2) ||
		(status == 3 && added == 8) || (status == 11 && added == 4))
		return v;
	return status;
}

static void test_t09_status_matrix(void **state)
{
	static const u32 states[] = {0, 1, 3, 11, 15, 0x4b, 0x4f, 0x80, 0x81, 0x83, 0x8b, 0x8f,
		0xcb, 0xcf};
	static const u32 high[] = {0, 0x100, 0x80000000};
	struct fixture *t = *state;

	for (unsigned s = 0; s < ARRAY_SIZE(states); s++) {
		reach(t, states[s]);
		for (u32 v = 0; v < 0x100 * ARRAY_SIZE(high); v++) {
			u32 value = (v & 0xff) | high[v >> 8];
			u32 want = status_after(states[s], value);

			drv_write(&t->f.d, VIRTIO_MMIO_STATUS, value);
			if (drv_read(&t->f.d, VIRTIO_MMIO_STATUS) != want)
				fail_msg("0x%x, written 0x%x: 0x%x", states[s], value,
					t->f.d.status);
			if (want != states[s])
				reach(t, states[s]);
		}
	}
}

static void test_t10_unoffered_features(void **state)
{
	struct fixture *t = *state;

	for (unsigned bit = 0; bit < 64; bit++) {
		bool offered = ALL >> bit & 1;

		if (drv_negotiate(&t->f.d, VIRTIO_MASK_VERSION_1 | 1ull << bit) != offered)
			fail_msg("bit %u", bit);
		assert_int_equal(t->f.d.status, offered ? 11 : 3);
	}
	/* A driver that was refused may take the bit back and try again. */
	assert_false(drv_negotiate(&t->f.d, 1ull << 1));
	drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	drv_write(&t->f.d, VIRTIO_MMIO_STATUS, 11);
	assert_int_equal(t->f.d.status, 11);
}

static void test_t11_features_frozen(void **state)
{
	static const u32 frozen[] = {0, 1, 11, 15, 0x83, 0x8b};
	struct fixture *t = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(frozen); i++) {
		u64 before;

		reach(t, frozen[i]);
		before = t->f.d.driver_features;
		for (u32 sel = 0; sel < 2; sel++) {
			drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, sel);
			drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES, 0xffffffff);
		}
		assert_int_equal(t->f.d.driver_features, before);
	}
}

static void test_t12_features_sel(void **state)
{
	static const u32 sel[] = {2, 3, 31, 32, 0xffff, 0x80000000, 0x80000001, UINT32_MAX};
	struct fixture *t = *state;

	reach(t, 3);
	for (unsigned i = 0; i < ARRAY_SIZE(sel); i++) {
		u64 before = t->f.d.driver_features;

		drv_write(&t->f.d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel[i]);
		assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_DEVICE_FEATURES), 0);
		drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, sel[i]);
		drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES, 0xffffffff);
		assert_int_equal(t->f.d.driver_features, before);
	}
}

static void test_t13_interrupt_ack(void **state)
{
	struct fixture *t = *state;

	t->f.d.interrupt_status = 3;
	drv_write(&t->f.d, VIRTIO_MMIO_INTERRUPT_ACK, 0xfffffffc);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
	drv_write(&t->f.d, VIRTIO_MMIO_INTERRUPT_ACK, 0xfffffffd);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
	drv_write(&t->f.d, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
	drv_write(&t->f.d, VIRTIO_MMIO_INTERRUPT_ACK, 2);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void test_t14_config_space(void **state)
{
	struct fixture *t = *state;
	u8 buf[8], want[8];

	for (u32 off = 0; off < FAKE_CONFIG_LEN + 12; off++) {
		for (unsigned len = 1; len <= 8; len++) {
			for (unsigned i = 0; i < 8; i++)
				want[i] = off + i < FAKE_CONFIG_LEN && i < len ?
					(u8)(0xa0 + off + i) : i < len ? 0 : 0xee;
			memset(buf, 0xee, sizeof(buf));
			virtio_mmio_read(&t->f.d, VIRTIO_MMIO_CONFIG + off, buf, len);
			assert_memory_equal(buf, want, sizeof(buf));
		}
	}
	memset(buf, 0x11, sizeof(buf));
	for (u32 off = 0; off < FAKE_CONFIG_LEN + 12; off++) {
		if (off != 8)
			virtio_mmio_write(&t->f.d, VIRTIO_MMIO_CONFIG + off, buf, 8);
	}
	for (u32 i = 0; i < FAKE_CONFIG_LEN; i++)
		assert_int_equal(t->f.config[i], 0xa0 + i);
	virtio_mmio_write(&t->f.d, VIRTIO_MMIO_CONFIG + 8, buf, 4);
	assert_int_equal(t->f.config[8], 0x11);
	assert_int_equal(t->f.config[11], 0x11);
	virtio_mmio_write(&t->f.d, VIRTIO_MMIO_WINDOW - 1, buf, 8);
}

static void test_t14_config_generation(void **state)
{
	struct fixture *t = *state;
	u32 generation = drv_read(&t->f.d, VIRTIO_MMIO_CONFIG_GENERATION);

	/* Stable while nothing changes; a driver that is not there yet hears nothing. */
	for (u32 i = 0; i < FAKE_CONFIG_LEN; i += 4)
		drv_read(&t->f.d, VIRTIO_MMIO_CONFIG + i);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	virtio_config_changed(&t->f.d);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_CONFIG_GENERATION), generation + 1);
	assert_int_equal(t->f.raised, 0);
	bring_up(t);
	virtio_config_changed(&t->f.d);
	assert_int_equal(t->f.raised, 1);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
}

static void test_q35_notify_outside(void **state)
{
	static const u32 index[] = {FAKE_QUEUES, VIRTIO_QUEUES_MAX, 0xffff, 0x10000, 0x80000000,
		UINT32_MAX};
	struct fixture *t = *state;

	bring_up(t);
	fake_loop(&t->f);
	for (unsigned i = 0; i < ARRAY_SIZE(index); i++) {
		drv_kick(&t->f.d, index[i]);
		assert_false(fake_kicked(&t->f));
	}
	assert_int_equal(bad_accesses(t), ARRAY_SIZE(index));
	drv_kick(&t->f.d, FAKE_QUEUES - 1);
	assert_true(fake_kicked(&t->f));
}

static void test_q39_q40_bad_rings_refused(void **state)
{
	struct fixture *t = *state;
	struct vqb b = t->b[0];

	assert_true(drv_negotiate(&t->f.d, ALL));
	assert_true(drv_queue(&t->f.d, 1, &t->b[1]));
	b.used_gpa = 1ull << 40 | 0x3000;
	assert_false(drv_queue(&t->f.d, 0, &b));
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_STATUS), 11 | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_false(drv_start(&t->f.d));
	assert_int_equal(t->f.activated, 0);
	vqb_add(&t->b[1], &VQB_R(DATA_GPA, 8), 1);
	drv_kick(&t->f.d, 1);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 0);
	/* A reset, and all is well. */
	bring_up(t);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_identity),
		T(test_right_driver),
		T(test_without_optional_features),
		T(test_t01_wrong_width),
		T(test_t02_misaligned),
		T(test_t03_undefined_offset),
		T(test_t04_wrong_direction),
		T(test_t05_queue_sel_outside),
		T(test_t06_queue_num),
		T(test_t07_queue_ready),
		T(test_t08_queue_registers_out_of_time),
		T(test_t09_status_matrix),
		T(test_t10_unoffered_features),
		T(test_t11_features_frozen),
		T(test_t12_features_sel),
		T(test_t13_interrupt_ack),
		T(test_t14_config_space),
		T(test_t14_config_generation),
		T(test_q35_notify_outside),
		T(test_q39_q40_bad_rings_refused),
	};

	return cmocka_run_group_tests_name("mmio", tests, NULL, NULL);
}
