/* SPDX-License-Identifier: Apache-2.0 */
/* blk_guest.c - see blk_guest.h */
#include "tests/lib/blk_guest.h"

#include <linux/virtio_mmio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/clock.h"

/* Not there on the real disk. */
#pragma weak fake_disk_step
#pragma weak fake_disk_new

/* Guest memory: rings, headers and status bytes, then data. */
#define RINGS_GPA    0x10000ull
#define RING_ROOM    0x4000u
#define HDR_GPA      0x80000ull
#define STATUS_GPA   0x90000ull
#define DATA_GPA     0x100000ull

u64 bg_now_ms(void)
{
	return monotonic_ns() / 1000000;
}

static void raise_irq(void *ctx, unsigned line)
{
	struct bg *g = ctx;

	__atomic_fetch_add(&g->irqs, 1, __ATOMIC_RELAXED);
}

static void kicked(struct ring_op *op, int res)
{
	struct bg *g = container_of(op, struct bg, kick_op);

	must(res == 8);
	virtio_process(g->dev);
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

static void make_ring(struct bg *g)
{
	struct err e = {0};

	if (ring_create(&g->ring, 256, &e))
		fail_msg("%s", e.msg);
}

void bg_attach(struct bg *g, struct disk *disk)
{
	struct blk_config cfg = {.id = "disk-0", .queues = g->queues, .limit = g->limit};
	struct virtio_irq irq = {raise_irq, g, 5};
	struct err e = {0};

	g->disk = disk;
	if (blk_create(&g->dev, &cfg, disk, g->ring, &g->ram.mem, irq, &e))
		fail_msg("%s", e.msg);
	virtio_attach(g->dev, g->ring);
	g->kick_op = (struct ring_op){.done = kicked};
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

void bg_prepare(struct bg *g, unsigned queues)
{
	guest_ram_init(&g->ram, BG_RAM_LEN, 0);
	g->queues = queues;
	make_ring(g);
}

void bg_make_on(struct bg *g, unsigned queues, struct disk *disk)
{
	bg_prepare(g, queues);
	bg_attach(g, disk);
}

void bg_make(struct bg *g, unsigned queues)
{
	bg_make_on(g, queues, fake_disk_new(BG_SECTORS));
}

void bg_driver(struct bg *g)
{
	assert_true(drv_negotiate(g->dev, g->features));
	for (unsigned i = 0; i < g->queues; i++) {
		vqb_init(&g->q[i], &g->ram, RINGS_GPA + RING_ROOM * (u64)i, BG_SIZE);
		assert_true(drv_queue(g->dev, i, &g->q[i]));
	}
	assert_true(drv_start(g->dev));
}

void bg_init(struct bg *g)
{
	bg_make(g, 1);
	g->features = BG_ALL | g->dev->features;
	bg_driver(g);
	bg_settle(g);
}

void bg_finish(struct bg *g)
{
	g->dev->ops->destroy(g->dev);
	ring_destroy(&g->ring);
	guest_ram_finish(&g->ram);
}

void bg_save(struct bg *g, struct enc *out)
{
	virtio_freeze(g->dev);
	BG_UNTIL(g, !g->dev->io_count);
	bg_settle(g);
	virtio_save(g->dev, out);
	assert_false(out->oom);
	virtio_thaw(g->dev);
}

int bg_restore(struct bg *g, const struct enc *saved, struct disk *disk, struct err *e)
{
	g->dev->ops->destroy(g->dev);
	ring_destroy(&g->ring);
	make_ring(g);
	bg_attach(g, disk);
	return virtio_load(g->dev, saved->buf, saved->len, e);
}

unsigned bg_turn(struct bg *g)
{
	int n = ring_poll_once(g->ring);

	assert_true(n >= 0);
	return (unsigned)n + (fake_disk_step ? fake_disk_step(g->disk) : 0);
}

/* Whether the next turn finds chains, which is no callback. */
static bool finds_chains(const struct bg *g)
{
	for (unsigned i = 0; i < g->queues; i++) {
		if (g->dev->queue[i].want && vq_pending(&g->dev->queue[i]))
			return !g->dev->frozen;
	}
	return false;
}

void bg_settle(struct bg *g)
{
	unsigned idle = 0;

	while (idle < 3)
		idle = bg_turn(g) || finds_chains(g) ? 0 : idle + 1;
}

struct bg_place bg_place_of(unsigned queue, u16 head)
{
	u64 slot = queue * BG_SIZE + head;

	return (struct bg_place){HDR_GPA + 16 * slot, DATA_GPA + BG_DATA_MAX * slot,
		STATUS_GPA + slot};
}

struct bg_place bg_place(struct bg *g, unsigned queue)
{
	const struct vqb *q = &g->q[queue];

	return bg_place_of(queue, q->free[q->free_count - 1]);
}

struct bg_place bg_header(struct bg *g, unsigned queue, u32 type, u64 sector)
{
	const struct virtio_blk_outhdr h = {.type = type, .sector = sector};
	struct bg_place p = bg_place(g, queue);

	guest_write(&g->ram, p.hdr_gpa, &h, sizeof(h));
	guest_fill(&g->ram, p.status_gpa, 1, BG_UNSET);
	return p;
}

/* As a driver does it that looks at what suppresses kicks. */
void bg_kick(struct bg *g, unsigned queue)
{
	const struct vqb *q = &g->q[queue];
	bool event_idx = g->features & VIRTIO_MASK_EVENT_IDX;

	if (event_idx ? vqb_avail_event(q) == (u16)(q->avail_idx - 1) : !vqb_used_flags(q))
		drv_kick(g->dev, queue);
}

u16 bg_chain(struct bg *g, unsigned queue, const struct vqb_buf *buf, u16 n)
{
	u16 head = vqb_add(&g->q[queue], buf, n);

	bg_kick(g, queue);
	return head;
}

u16 bg_add(struct bg *g, unsigned queue, u32 type, u64 sector, const void *data, u32 len)
{
	struct bg_place p = bg_header(g, queue, type, sector);
	struct vqb_buf buf[3] = {VQB_R(p.hdr_gpa, 16)};
	u16 n = 1;

	must(len <= BG_DATA_MAX);
	if (data && len)
		guest_write(&g->ram, p.data_gpa, data, len);
	if (len)
		buf[n++] = data ? VQB_R(p.data_gpa, len) : VQB_W(p.data_gpa, len);
	buf[n++] = VQB_W(p.status_gpa, 1);
	return bg_chain(g, queue, buf, n);
}

void bg_expect(struct bg *g, unsigned queue, u16 head, u8 status, u32 used_len)
{
	u16 got;
	u32 len;

	bg_settle(g);
	if (!vqb_used(&g->q[queue], &got, &len))
		fail_msg("head %u was not used", head);
	assert_int_equal(got, head);
	assert_int_equal(*(u8 *)guest_at(&g->ram, bg_place_of(queue, head).status_gpa, 1), status);
	assert_int_equal(len, used_len);
}

u8 bg_do(struct bg *g, u32 type, u64 sector, void *data, u32 len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	u16 head = bg_add(g, 0, type, sector, in ? NULL : data, len), got;
	struct bg_place p = bg_place_of(0, head);
	u32 used;
	u8 status;

	BG_UNTIL(g, vqb_used_waiting(&g->q[0]));
	assert_true(vqb_used(&g->q[0], &got, &used));
	assert_int_equal(got, head);
	if (in && len)
		guest_read(&g->ram, p.data_gpa, data, len);
	guest_read(&g->ram, p.status_gpa, &status, 1);
	assert_int_equal(used, status == VIRTIO_BLK_S_OK && in ? len + 1 : 1);
	return status;
}

u32 bg_config32(struct bg *g, u32 off)
{
	return drv_read(g->dev, VIRTIO_MMIO_CONFIG + off);
}

void bg_stats(struct bg *g, struct blk_stats *ret)
{
	blk_stats(g->dev, ret);
}
