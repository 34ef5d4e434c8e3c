/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_flow.c - a block device under way: several queues, requests that end in any order,
 * flushes, pauses, resets at any moment, and vCPU threads that race the loop.
 */
#include "tests/lib/blk_guest.h"
#include "virtio/blk_int.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OK    VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define IN    VIRTIO_BLK_T_IN
#define OUT   VIRTIO_BLK_T_OUT
#define FLUSH VIRTIO_BLK_T_FLUSH

static u32 rnd_state = 1;

static u32 rnd(u32 n)
{
	rnd_state = rnd_state * 1664525u + 1013904223u;
	return (rnd_state >> 8) % n;
}

static int setup_queues(void **state, unsigned queues)
{
	struct bg *g = calloc(1, sizeof(*g));

	must(g);
	bg_make(g, queues);
	g->features = BG_ALL | g->dev->features;
	bg_driver(g);
	bg_settle(g);
	*state = g;
	return 0;
}

static int setup(void **state)
{
	return setup_queues(state, 1);
}

static int setup_mq(void **state)
{
	return setup_queues(state, BG_QUEUES);
}

static int teardown(void **state)
{
	struct bg *g = *state;

	bg_finish(g);
	free(g);
	assert_int_equal(fake_disks_open, 0);
	return 0;
}

/* A sector whose every word is @seq. */
static void stamp(u8 *buf, u32 seq)
{
	for (unsigned i = 0; i < 512; i += 4)
		memcpy(buf + i, &seq, 4);
}

static u8 status_of(struct bg *g, unsigned queue, u16 head)
{
	return *(u8 *)guest_at(&g->ram, bg_place_of(queue, head).status_gpa, 1);
}

/* Many requests on all queues, ending in any order; each head comes back once, in its queue. */
static void test_queues_in_any_order(void **state)
{
	static u32 on_disk[BG_QUEUES][64], sector_of[BG_QUEUES][BG_SIZE];
	static bool writing[BG_QUEUES][BG_SIZE];
	struct bg *g = *state;
	unsigned sent = 0, got = 0, irqs = g->irqs;
	u8 buf[512];

	assert_int_equal(bg_config32(g, 32) >> 16, BG_QUEUES);
	assert_true(g->dev->features & BG_F(MQ));
	g->disk->shuffle = 5;
	while (got < 20000) {
		unsigned q = rnd(BG_QUEUES);
		u16 head;
		u32 len;

		if (sent < 20000 && g->q[q].free_count >= 3) {
			u32 sector = rnd(64);
			bool busy = false;

			for (unsigned h = 0; h < BG_SIZE; h++)
				busy |= g->q[q].chain_len[h] && sector_of[q][h] == sector;
			if (!busy) {
				bool write = rnd(2);

				stamp(buf, sent + 1);
				head = bg_add(g, q, write ? OUT : IN, q * 64 + sector,
					write ? buf : NULL, 512);
				sector_of[q][head] = sector;
				writing[q][head] = write;
				if (write)
					on_disk[q][sector] = sent + 1;
				sent++;
			}
		}
		if (!rnd(3))
			bg_turn(g);
		while (vqb_used(&g->q[q], &head, &len)) {
			got++;
			assert_int_equal(status_of(g, q, head), OK);
			assert_int_equal(len, writing[q][head] ? 1 : 513);
			stamp(buf, on_disk[q][sector_of[q][head]]);
			if (!writing[q][head])
				assert_memory_equal(buf, guest_at(&g->ram,
					bg_place_of(q, head).data_gpa, 512), 512);
		}
	}
	assert_int_equal(got, sent);
	assert_true(g->irqs > irqs);
	assert_true(g->irqs - irqs < got);
}

/* A queue of several that was never set up does not disturb. */
static void test_one_queue_of_many(void **state)
{
	struct bg *g = *state;
	u8 buf[512];

	drv_reset(g->dev);
	assert_true(drv_negotiate(g->dev, g->features));
	vqb_init(&g->q[0], &g->ram, g->q[0].desc_gpa, BG_SIZE);
	assert_true(drv_queue(g->dev, 0, &g->q[0]));
	assert_true(drv_start(g->dev));
	bg_settle(g); /* ends */
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
	drv_kick(g->dev, 3);
	bg_settle(g);
	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_STATUS), 15);
}

/* Q29: more than a turn takes, with a limit that is none. All is done without another kick. */
static void test_q29_more_than_a_turn(void **state)
{
	const struct limit_config huge = {.ops = {UINT64_MAX, 1, 0}};
	const u16 fair = (BLK_BURST + BG_QUEUES) / BG_QUEUES;
	struct bg *g = *state;
	struct blk_stats s;
	unsigned sum = 0;

	blk_set_limit(g->dev, &huge);
	for (unsigned q = 0; q < BG_QUEUES; q++) {
		/* Only a status: answered at once. And the same head over and over. */
		u16 head = vqb_chain(&g->q[q], &VQB_W(bg_place(g, q).status_gpa, 1), 1);

		for (unsigned i = 0; i < BG_SIZE; i++)
			vqb_offer(&g->q[q], head);
		vqb_publish(&g->q[q]);
	}
	virtio_process(g->dev);
	/* A burst, and once more for each queue, all by turns. */
	for (unsigned q = 0; q < BG_QUEUES; q++) {
		u16 used = vqb_used_idx(&g->q[q]);

		assert_in_range(used, fair, fair + 1);
		sum += used;
	}
	assert_int_equal(sum, BLK_BURST + BG_QUEUES);
	bg_settle(g);
	bg_stats(g, &s);
	assert_int_equal(s.rejected, BG_QUEUES * BG_SIZE);
}

/* One interrupt for all that a turn has done. */
static void test_one_interrupt_a_turn(void **state)
{
	struct bg *g = *state;
	unsigned irqs = g->irqs;

	for (unsigned i = 0; i < 20; i++)
		bg_add(g, 0, IN, i, NULL, 512);
	g->disk->hold = true;
	bg_settle(g);
	g->disk->hold = false;
	bg_settle(g);
	assert_int_equal(vqb_used_waiting(&g->q[0]), 20);
	assert_int_equal(g->irqs, irqs + 1);
}

/*
 * What a flush promises, against a disk that loses all but what was flushed (G02): whatever the
 * driver saw completed when it asked for the flush is there after the flush was completed.
 */
#define MODEL_SECTORS 24u

struct model {
	u32 seen[MODEL_SECTORS];     /* newest write the driver saw completed */
	u32 promised[BG_SIZE][MODEL_SECTORS]; /* by the flush with that head */
	u32 under_way[BG_SIZE];      /* the write's number, 0: another kind */
	u32 sector[BG_SIZE];
	bool busy[MODEL_SECTORS];
};

static void model_write(struct bg *g, struct model *m, u32 seq)
{
	u32 sector = rnd(MODEL_SECTORS);
	u8 buf[512];
	u16 head;

	if (m->busy[sector])
		return;
	stamp(buf, seq);
	head = bg_add(g, 0, OUT, sector, buf, 512);
	m->under_way[head] = seq;
	m->sector[head] = sector;
	m->busy[sector] = true;
}

static void model_used(struct bg *g, struct model *m, u16 head)
{
	assert_int_equal(status_of(g, 0, head), OK);
	if (m->under_way[head]) {
		m->seen[m->sector[head]] = m->under_way[head];
		m->busy[m->sector[head]] = false;
		return;
	}
	for (u32 s = 0; s < MODEL_SECTORS; s++)
		assert_true(g->disk->stable[s] >= m->promised[head][s]);
}

static void test_flush_keeps_its_promise(void **state)
{
	static struct model m;
	struct bg *g = *state;
	unsigned flushes = 0;
	u16 head;
	u32 len;

	g->disk->shuffle = 99;
	for (u32 seq = 1; flushes < 2000; seq++) {
		if (g->q[0].free_count >= 3 && rnd(4)) {
			model_write(g, &m, seq);
		} else if (g->q[0].free_count >= 2) {
			head = bg_add(g, 0, FLUSH, 0, NULL, 0);
			m.under_way[head] = 0;
			memcpy(m.promised[head], m.seen, sizeof(m.seen));
		}
		if (!rnd(3))
			bg_turn(g);
		while (vqb_used(&g->q[0], &head, &len)) {
			flushes += !m.under_way[head];
			model_used(g, &m, head);
		}
	}
	bg_settle(g);
}

/* Paused: what is under way ends and is given back, nothing new begins; then it goes on. */
static void test_freeze_and_thaw(void **state)
{
	struct bg *g = *state;
	u16 a, b;

	g->disk->hold = true;
	a = bg_add(g, 0, IN, 0, NULL, 512);
	bg_settle(g);
	virtio_freeze(g->dev);
	b = bg_add(g, 0, IN, 1, NULL, 512);
	drv_kick(g->dev, 0);
	g->disk->hold = false;
	bg_expect(g, 0, a, OK, 513);
	assert_int_equal(g->dev->io_count, 0);
	assert_int_equal(g->disk->log_count, 1);
	assert_int_equal(vqb_used_waiting(&g->q[0]), 0);
	virtio_thaw(g->dev);
	bg_expect(g, 0, b, OK, 513);
}

/* FAILED with requests under way: they end, the ring is not touched, a reset brings it back. */
static void test_failed_under_way(void **state)
{
	struct bg *g = *state;
	u8 buf[512];

	g->disk->hold = true;
	bg_add(g, 0, IN, 0, NULL, 512);
	bg_add(g, 0, VIRTIO_BLK_T_GET_ID, 0, NULL, 20);
	bg_settle(g);
	assert_int_equal(vqb_used_idx(&g->q[0]), 1);
	drv_write(g->dev, VIRTIO_MMIO_STATUS, 15 | VIRTIO_CONFIG_S_FAILED);
	g->disk->hold = false;
	bg_settle(g);
	assert_int_equal(g->dev->io_count, 0);
	assert_int_equal(vqb_used_idx(&g->q[0]), 1);
	bg_driver(g);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
}

/* The vCPU's side of a reset waits; the loop's side is this thread. */
struct vcpu {
	struct bg *g;
	void (*run)(struct vcpu *v);
	u32 rnd;
	bool done;
	pthread_t thread;
};

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;

	v->run(v);
	__atomic_store_n(&v->done, true, __ATOMIC_RELEASE);
	virtio_schedule(v->g->dev);
	return NULL;
}

static void vcpu_start(struct vcpu *v, struct bg *g, void (*run)(struct vcpu *))
{
	*v = (struct vcpu){.g = g, .run = run, .rnd = rnd(1u << 20)};
	must(!pthread_create(&v->thread, NULL, vcpu_main, v));
}

static bool vcpu_done(struct vcpu *v)
{
	return __atomic_load_n(&v->done, __ATOMIC_ACQUIRE);
}

/* A turn that sleeps where there is nothing to do, as the monitor's loop does. */
static void loop_turn(struct bg *g)
{
	if (fake_disk_step(g->disk))
		must(ring_poll_once(g->ring) >= 0);
	else
		must(!ring_run(g->ring));
}

static u32 vcpu_rnd(struct vcpu *v)
{
	v->rnd = v->rnd * 1664525u + 1013904223u;
	return v->rnd >> 8;
}

static unsigned io_count(struct bg *g)
{
	unsigned n;

	pthread_mutex_lock(&g->dev->lock);
	n = g->dev->io_count;
	pthread_mutex_unlock(&g->dev->lock);
	return n;
}

static bool resetting(struct bg *g)
{
	bool r;

	pthread_mutex_lock(&g->dev->lock);
	r = g->dev->resetting;
	pthread_mutex_unlock(&g->dev->lock);
	return r;
}

static void reset_once(struct vcpu *v)
{
	drv_reset(v->g->dev);
	must(!drv_read(v->g->dev, VIRTIO_MMIO_STATUS));
}

/* B15: the loop cancels what can be cancelled, and the reset waits for the rest. */
static void test_b15_reset_cancels(void **state)
{
	struct bg *g = *state;
	struct vcpu v;

	g->disk->hold = true;
	for (unsigned i = 0; i < 10; i++)
		bg_add(g, 0, i % 2 ? IN : VIRTIO_BLK_T_FLUSH, i, NULL, i % 2 ? 512 : 0);
	bg_settle(g);
	assert_int_equal(io_count(g), 10);
	vcpu_start(&v, g, reset_once);
	while (!vcpu_done(&v))
		loop_turn(g);
	pthread_join(v.thread, NULL);
	assert_int_equal(g->disk->cancelled, 10);
	assert_int_equal(g->disk->count, 0);
	assert_int_equal(vqb_used_idx(&g->q[0]), 0);
}

/* B15: a kernel that does not cancel is waited for; then nothing is written any more. */
static void test_b15_reset_waits(void **state)
{
	struct bg *g = *state;
	struct bg_place p;
	struct vcpu v;
	u16 head;

	g->disk->hold = g->disk->no_cancel = true;
	head = bg_add(g, 0, IN, 0, NULL, 512);
	p = bg_place_of(0, head);
	bg_settle(g);
	vcpu_start(&v, g, reset_once);
	for (unsigned i = 0; i < 50; i++) {
		bg_turn(g);
		usleep(200);
		assert_false(vcpu_done(&v));
	}
	assert_int_equal(io_count(g), 1);
	g->disk->hold = false;
	while (!vcpu_done(&v))
		loop_turn(g);
	pthread_join(v.thread, NULL);
	assert_true(guest_is(&g->ram, p.status_gpa, 1, BG_UNSET));
	assert_int_equal(vqb_used_idx(&g->q[0]), 0);
}

/* B15: a discard of many ranges ends with the range that a reset found it at. */
static void test_b15_reset_between_ranges(void **state)
{
	struct virtio_blk_discard_write_zeroes r[64];
	struct bg *g = *state;
	struct vcpu v;

	for (unsigned i = 0; i < 64; i++)
		r[i] = (struct virtio_blk_discard_write_zeroes){i * 8, 8, 0};
	g->disk->hold = g->disk->no_cancel = true;
	bg_add(g, 0, VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r));
	bg_settle(g);
	vcpu_start(&v, g, reset_once);
	while (!resetting(g))
		usleep(100);
	g->disk->hold = false;
	while (!vcpu_done(&v))
		loop_turn(g);
	pthread_join(v.thread, NULL);
	assert_int_equal(g->disk->log_count, 1);
}

#define WATCHED_GPA 0x10000u
#define WATCHED_LEN (BG_RAM_LEN - WATCHED_GPA)

static void some_requests(struct vcpu *v)
{
	static const u8 data[4096];
	struct bg *g = v->g;
	unsigned n = vcpu_rnd(v) % 60;

	while (n--) {
		unsigned q = vcpu_rnd(v) % g->queues;
		u32 sector = vcpu_rnd(v) % (BG_SECTORS - 8);

		if (g->q[q].free_count < 3)
			continue;
		switch (vcpu_rnd(v) % 4) {
		case 0: bg_add(g, q, OUT, sector, data, 4096); break;
		case 1: bg_add(g, q, FLUSH, 0, NULL, 0); break;
		default: bg_add(g, q, IN, sector, NULL, 4096); break;
		}
	}
}

static void thousand_resets(struct vcpu *v)
{
	struct bg *g = v->g;

	for (unsigned i = 0; i < 1000; i++) {
		void *watched = guest_at(&g->ram, WATCHED_GPA, WATCHED_LEN);

		bg_driver(g);
		some_requests(v);
		/* Half of them after the loop had time to begin, half of them at any moment. */
		if (i % 2)
			usleep(vcpu_rnd(v) % 200);
		for (unsigned spin = vcpu_rnd(v) % 5000; spin; spin--)
			__asm__ volatile("pause");
		some_requests(v);
		reset_once(v);
		must(!io_count(g));
		/* From here on any touch of the old rings, and any late transfer, is noticed. */
		must(!mprotect(watched, WATCHED_LEN, PROT_NONE));
		drv_kick(g->dev, 0);
		if (i % 16 == 0)
			usleep(300);
		must(!mprotect(watched, WATCHED_LEN, PROT_READ | PROT_WRITE));
	}
}

/* B15, T15: resets at any moment, with requests that end in any order. */
static void test_b15_thousand_resets(void **state)
{
	struct bg *g = *state;
	struct vcpu v;
	u8 buf[512];

	g->disk->shuffle = 3;
	vcpu_start(&v, g, thousand_resets);
	while (!vcpu_done(&v)) {
		/* A slow disk, now and then. */
		g->disk->hold = rnd(4);
		loop_turn(g);
	}
	g->disk->hold = false;
	pthread_join(v.thread, NULL);
	assert_int_equal(g->dev->io_count, 0);
	assert_true(g->disk->cancelled > 100);
	bg_driver(g);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(bg_do(g, IN, i, buf, 512), OK);
}

/* A driver that sleeps until it is interrupted, with @depth requests under way at a time. */
static void sleeper(struct vcpu *v)
{
	struct bg *g = v->g;
	struct vqb *q = &g->q[0];
	unsigned depth = 1, out = 0;
	u16 head;
	u32 len;

	for (unsigned got = 0; got < 3000;) {
		unsigned seen = __atomic_load_n(&g->irqs, __ATOMIC_ACQUIRE);

		while (out < depth) {
			bg_add(g, 0, IN, vcpu_rnd(v) % BG_SECTORS, NULL, 512);
			out++;
		}
		depth = 1 + vcpu_rnd(v) % 16;
		vqb_set_used_event(q, q->used_seen);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!vqb_used_waiting(q)) {
			while (__atomic_load_n(&g->irqs, __ATOMIC_ACQUIRE) == seen)
				usleep(10);
		}
		while (vqb_used(q, &head, &len)) {
			got++;
			out--;
		}
	}
}

/* No kick and no interrupt is lost, or this does not end. */
static void test_q33_nothing_is_lost(void **state)
{
	struct bg *g = *state;

	for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
		struct vcpu v;

		g->features = (BG_ALL | g->dev->features) &
			~(event_idx ? 0 : VIRTIO_MASK_EVENT_IDX);
		bg_driver(g);
		bg_settle(g);
		ring_set_poll(g->ring, event_idx ? 50000 : 0);
		vcpu_start(&v, g, sleeper);
		while (!vcpu_done(&v))
			loop_turn(g);
		pthread_join(v.thread, NULL);
		bg_settle(g);
	}
}

/* A vCPU that writes what a confused driver might, as fast as it can. */
static void confused(struct vcpu *v)
{
	static const u32 off[] = {VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_NUM,
		VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_STATUS,
		VIRTIO_MMIO_STATUS, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_INTERRUPT_ACK,
		VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_CONFIG,
		VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_CONFIG + 20,
		VIRTIO_MMIO_CONFIG + 36, VIRTIO_MMIO_CONFIG_GENERATION};
	static const u32 value[] = {0, 1, 3, 11, 15, 15, 8, 16, 256, 0x10000, 0x10800, UINT32_MAX,
		1, 3, 11, 15};

	for (unsigned i = 0; i < 20000; i++) {
		drv_write(v->g->dev, off[vcpu_rnd(v) % 16], value[vcpu_rnd(v) % 16]);
		drv_read(v->g->dev, off[vcpu_rnd(v) % 16]);
	}
}

/* One that drives the device as it should be, in between. */
static void sane(struct vcpu *v)
{
	for (unsigned i = 0; i < 300; i++) {
		bg_driver(v->g);
		some_requests(v);
		reset_once(v);
	}
}

/* What an operator does meanwhile. */
static void operate(struct bg *g, unsigned i)
{
	static const struct limit_config tight = {.ops = {4, 1000000, 0}}, none;
	struct blk_stats s;

	g->disk->next_size = (BG_SECTORS - i % 3) * (u64)DISK_SECTOR;
	if (i % 7 == 0 && !g->disk->count)
		blk_resize(g->dev);
	if (i % 50 == 0)
		blk_set_limit(g->dev, i % 100 ? &none : &tight);
	bg_stats(g, &s);
}

static void race(struct bg *g, struct vcpu *v, unsigned n)
{
	bool all = false;
	u8 buf[512];

	g->disk->shuffle = 3;
	for (unsigned i = 0; !all; i++) {
		loop_turn(g);
		operate(g, i);
		all = true;
		for (unsigned k = 0; k < n; k++)
			all &= vcpu_done(&v[k]);
	}
	for (unsigned k = 0; k < n; k++)
		pthread_join(v[k].thread, NULL);
	blk_set_limit(g->dev, &(struct limit_config){0});
	bg_settle(g);
	bg_driver(g);
	assert_int_equal(bg_do(g, IN, 0, buf, 512), OK);
}

/* T16: two vCPUs and the loop. */
static void test_t16_confused_vcpus(void **state)
{
	struct bg *g = *state;
	struct vcpu v[2];

	for (unsigned k = 0; k < 2; k++)
		vcpu_start(&v[k], g, confused);
	race(g, v, 2);
}

static void test_sane_vcpu_and_operator(void **state)
{
	struct bg *g = *state;
	struct vcpu v;

	vcpu_start(&v, g, sane);
	race(g, &v, 1);
}

#define T(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TM(name) cmocka_unit_test_setup_teardown(name, setup_mq, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TM(test_queues_in_any_order),
		TM(test_one_queue_of_many),
		TM(test_q29_more_than_a_turn),
		T(test_one_interrupt_a_turn),
		T(test_flush_keeps_its_promise),
		T(test_freeze_and_thaw),
		T(test_failed_under_way),
		T(test_b15_reset_cancels),
		T(test_b15_reset_waits),
		T(test_b15_reset_between_ranges),
		TM(test_b15_thousand_resets),
		T(test_q33_nothing_is_lost),
		TM(test_t16_confused_vcpus),
		TM(test_sane_vcpu_and_operator),
	};

	return cmocka_run_group_tests_name("blk_flow", tests, NULL, NULL);
}
