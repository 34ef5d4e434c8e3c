/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_mmio.c - virtio/mmio.c as a vCPU sees it: a stream of accesses of any kind to the register
 * window, with chains, kicks, turns of the loop, pauses, saves and loads in between. On the fake
 * device of the unit tests, which can hold chains as if the kernel worked on them, and on the
 * vsock device, whose host side stays silent.
 *
 * Checked after each step: the status moved along an edge of the specification; queue registers
 * change only between FEATURES_OK and DRIVER_OK; only config bytes that are writable changed; a
 * sound ring never stops the device; saved state loads and saves again as the same bytes; a reset
 * ends, and afterwards all is as new and works.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_loop.h"
#include "tests/lib/fake_device.h"
#include "virtio/vsock.h"

#define LOW_LEN   0x16000u
#define NEEDS     ((u32)VIRTIO_CONFIG_S_NEEDS_RESET)
#define FAILED    ((u32)VIRTIO_CONFIG_S_FAILED)

static struct {
	struct guest_ram ram;
	struct fz_queue q[FAKE_QUEUES];
	struct fz_loop loop;
	struct fake_device fake;
	struct virtio_dev *d; /* fake.d, or a vsock device */
	bool is_vsock;
	bool rings_known;     /* the queues of the device are those of q */
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fz_ram_init(&t.ram, LOW_LEN);
	return 0;
}

static void raise_irq(void *ctx, unsigned line)
{
}

/* The kernel ends what it has of the fake device. */
static void meanwhile(void)
{
	if (!t.is_vsock)
		fake_complete(&t.fake);
}

static void open_device(void)
{
	struct vsock_config cfg = {.cid = 5, .path = "/v"};

	t.rings_known = false;
	if (t.is_vsock) {
		cfg.listen_fd = fh_listener();
		must(!vsock_create(&t.d, &cfg, t.loop.ring, &t.ram.mem,
			(struct virtio_irq){.raise = raise_irq}, NULL));
	} else {
		fake_init(&t.fake, &t.ram.mem);
		t.d = &t.fake.d;
	}
	fz_loop_run(&t.loop, t.d);
	if (t.is_vsock)
		vsock_start(t.d);
}

static void reopen_device(void)
{
	fz_loop_end(&t.loop, t.is_vsock ? NULL : virtio_finish);
	fh_reset();
	fz_loop_again(&t.loop);
	open_device();
}

static void bring_up(struct fz *f)
{
	struct fz_queue *q[FAKE_QUEUES] = {NULL};
	u8 how = fz_u8(f);

	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		fz_queue_init(&t.q[i], &t.ram, i, (u16)(1u << fz_below(f, 6)));
		t.q[i].indirect = how & 1;
		t.q[i].event_idx = how & 2;
		if (!(how & 8u << i) || t.is_vsock)
			q[i] = &t.q[i];
		else
			t.q[i].broken = true; /* nobody will answer */
	}
	fz_bring_up(t.d, q, FAKE_QUEUES, t.d->features | VIRTIO_MASK_VERSION_1);
	t.rings_known = true;
}

static void add_chain(struct fz *f)
{
	struct fz_queue *q = &t.q[fz_below(f, FAKE_QUEUES)];
	struct vqb_buf buf[4];
	unsigned n = 1 + fz_below(f, 4), out = fz_below(f, n + 1);
	u16 head;

	if (!t.rings_known)
		return;
	for (unsigned i = 0; i < n; i++)
		buf[i] = (struct vqb_buf){FZ_DATA_GPA + fz_u8(f) * 32u, 1 + fz_u8(f), i >= out};
	if (fz_offer(f, q, buf, n, &head) != FZ_FULL)
		fz_kick(t.d, q);
}

/* Whether all rings are as a driver should keep them. */
static bool sound(void)
{
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		if (t.q[i].broken)
			return false;
	}
	return t.rings_known;
}

/* What the loop does when it has time, and what the driver then finds. */
static void look(void)
{
	u16 head;
	u32 len;

	fz_settle(&t.loop);
	for (unsigned i = 0; i < FAKE_QUEUES && t.rings_known; i++) {
		while (fz_used(&t.q[i], &head, &len))
			;
		/* The fake device returns all it was offered, unless it is to hold it. */
		must(t.is_vsock || t.fake.hold || t.fake.held_count || !sound() ||
			!virtio_live(t.d) || !t.q[i].out_count);
	}
}

/* Saves, and puts another device with that state in the place of this one. */
static void save_and_load(struct fz *f)
{
	struct enc a = {0}, b = {0};
	bool change = fz_u8(f) & 1, known = t.rings_known, ok;
	unsigned at = fz_u16(f);

	virtio_freeze(t.d);
	fz_quiesce(&t.loop);
	virtio_save(t.d, &a);
	reopen_device();
	if (change)
		fz_change(f, (u8)at, &a);
	ok = !virtio_load(t.d, a.buf, a.len, NULL);
	must(ok || change);
	if (ok) {
		virtio_save(t.d, &b);
		/* The vsock device may forget here whom it cannot tell of lost connections. */
		must(change || t.is_vsock || (a.len == b.len && !memcmp(a.buf, b.buf, a.len)));
		/* What was changed may be where the rings are. */
		t.rings_known = known && !change;
		virtio_thaw(t.d);
	} else {
		must(!t.d->status);
		reopen_device();
	}
	enc_free(&a);
	enc_free(&b);
}

/* Accesses, with the promises about each kept in mind. */
static void access_checked(struct fz *f)
{
	u32 old = t.d->status, new;
	u8 config[FAKE_CONFIG_LEN];
	struct vq was[FAKE_QUEUES];

	memcpy(was, t.d->queue, sizeof(was));
	memcpy(config, t.fake.config, sizeof(config));
	fz_mmio_access(f, t.d);
	new = t.d->status;
	must(!new || (new & old) == old);           /* only a reset takes bits away */
	must(!(new & ~old & ~0x8fu) || new & NEEDS); /* and those are all there are */
	must(!(old & FAILED) || !new || new == old);
	for (unsigned i = 0; i < FAKE_QUEUES && new; i++) {
		const struct vq *a = &was[i], *b = &t.d->queue[i];
		bool same = a->size == b->size && a->desc_gpa == b->desc_gpa &&
			a->avail_gpa == b->avail_gpa && a->used_gpa == b->used_gpa &&
			a->ready == b->ready;

		must(same || old == 11); /* FEATURES_OK */
		t.q[i].broken |= !same;
	}
	if (!new || new & (FAILED | NEEDS))
		t.rings_known = false;
	if (!t.is_vsock) {
		memset(config + 8, 0, 4);
		memset(t.fake.config + 8, 0, 4);
		must(!memcmp(config, t.fake.config, sizeof(config)));
	}
}

static void step(struct fz *f)
{
	u8 what = fz_u8(f);

	switch (what % 32) {
	case 0:
		bring_up(f);
		break;
	case 1 ... 5:
		add_chain(f);
		break;
	case 6:
	case 7:
		fz_turn(&t.loop);
		break;
	case 8:
		t.fake.hold = !t.is_vsock && fz_u8(f) & 1;
		break;
	case 9:
		if (!t.is_vsock)
			fake_complete(&t.fake);
		break;
	case 10:
		virtio_freeze(t.d);
		break;
	case 11:
	case 12:
		virtio_thaw(t.d);
		break;
	case 13:
		save_and_load(f);
		break;
	case 14:
		if (t.rings_known && fz_break(f, 64))
			fz_scribble(f, t.q, FAKE_QUEUES);
		break;
	case 15:
		virtio_config_changed(t.d);
		break;
	case 16: /* the next step of a driver that brings the device up by hand */
		drv_write(t.d, VIRTIO_MMIO_STATUS,
			(u32[]){1, 3, 11, 15}[__builtin_popcount(t.d->status & 15) & 3]);
		break;
	case 17: /* and of one that programs a queue */
		fz_queue_init(&t.q[0], &t.ram, 0, 8);
		drv_queue(t.d, 0, &t.q[0].b);
		t.q[0].broken = true;
		break;
	default:
		access_checked(f);
	}
	if (!(what & 0x80))
		look();
}

/* After a reset everything works, whatever was before. */
static void check_works(void)
{
	struct fz f = {0};

	virtio_thaw(t.d);
	t.fake.hold = false;
	bring_up(&f);
	must(t.d->status == 15);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		add_chain(&f);
	look();
	must(t.d->status == 15);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;
	u32 needs_reset;

	fh_reset();
	fz_ram_clear(&t.ram);
	memset(t.q, 0, sizeof(t.q));
	fz_begin(&f, data, len);
	fz_step(&f);
	t.is_vsock = fz_u8(&f) % 4 == 3;
	t.loop.meanwhile = meanwhile;
	fz_loop_init(&t.loop, &f);
	open_device();
	if (fz_u8(&f) & 1)
		bring_up(&f);
	while (fz_step(&f)) {
		needs_reset = t.d->status & NEEDS;
		step(&f);
		fz_check_dev(t.d);
		must(needs_reset || !(t.d->status & NEEDS) || !sound());
		if (t.d->status & NEEDS)
			t.rings_known = false;
	}
	check_works();
	fz_loop_end(&t.loop, t.is_vsock ? NULL : virtio_finish);
	return 0;
}
