/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_mmio_life.c - virtio/mmio.c over time: kicks and turns of the loop, resets with I/O in
 * flight, two vCPUs at once, freezing, saved state. Tests are named after the hostile catalogue.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "tests/lib/fake_device.h"
#include "tests/lib/vq_builder.h"

#define RAM_LEN   0x100000u
#define RINGS_GPA 0x8000u
#define RINGS_LEN 0x18000u
#define DATA_GPA  0x40000u
#define ALL       (VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC | VIRTIO_MASK_EVENT_IDX)

struct fixture {
	struct guest_ram ram;
	struct fake_device f;
	struct vqb b[FAKE_QUEUES];
};

static void new_rings(struct fixture *t)
{
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		vqb_init(&t->b[i], &t->ram, RINGS_GPA + 0x8000 * i, 16);
}

static int setup(void **state)
{
	struct fixture *t = calloc(1, sizeof(*t));

	must(t);
	guest_ram_init(&t->ram, RAM_LEN, 0);
	fake_init(&t->f, &t->ram.mem);
	new_rings(t);
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

static void bring_up(struct fixture *t)
{
	must(drv_negotiate(&t->f.d, ALL));
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		must(drv_queue(&t->f.d, i, &t->b[i]));
	must(drv_start(&t->f.d));
}

static void add(struct fixture *t, unsigned queue)
{
	vqb_add(&t->b[queue], &VQB_W(DATA_GPA, 64), 1);
}

/* A driver that offers a chain anew as soon as it was used. */
static void refill(struct fake_device *f, struct vq *q, struct vq_chain *c)
{
	struct fixture *t = container_of(f, struct fixture, f);

	if (q == &f->d.queue[0]) {
		vqb_offer(&t->b[0], c->head ? 0 : 1);
		vqb_publish(&t->b[0]);
	}
}

static void test_q29_index_moves_during_drain(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	vqb_set_desc(&t->b[0], 0, DATA_GPA, 8, 0, 0);
	vqb_set_desc(&t->b[0], 1, DATA_GPA, 8, 0, 0);
	vqb_offer(&t->b[0], 0);
	vqb_publish(&t->b[0]);
	t->f.on_chain = refill;
	for (unsigned turn = 1; turn <= 5; turn++) {
		assert_true(fake_kicked(&t->f));
		virtio_process(&t->f.d);
		/* A turn ends after one ring's worth, and the next is asked for. */
		assert_int_equal(t->f.chains, 16 * turn);
	}
	assert_true(fake_kicked(&t->f));
}

static void test_q34_kick_storm(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	fake_loop(&t->f);
	for (unsigned i = 0; i < 1000000; i++)
		drv_kick(&t->f.d, i % FAKE_QUEUES);
	/* However many, they are one turn; and one that finds nothing makes no interrupt. */
	assert_int_equal(fake_loop(&t->f), 1);
	assert_int_equal(t->f.raised, 0);
	assert_int_equal(t->f.d.stats.kicks, 1);
}

static void test_kick_before_driver_ok(void **state)
{
	struct fixture *t = *state;

	must(drv_negotiate(&t->f.d, ALL));
	must(drv_queue(&t->f.d, 0, &t->b[0]));
	add(t, 0);
	drv_kick(&t->f.d, 0);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 0);
	assert_int_equal(vqb_used_idx(&t->b[0]), 0);
	/* Not forgotten: DRIVER_OK looks by itself. */
	must(drv_start(&t->f.d));
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 1);
}

static void test_bad_ring_stops_the_device(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	fake_loop(&t->f);
	add(t, 1);
	vqb_set_avail_idx(&t->b[1], 1000);
	add(t, 2);
	drv_kick(&t->f.d, 1);
	fake_loop(&t->f);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_STATUS), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(drv_read(&t->f.d, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(t->f.raised, 1);
	assert_int_equal(t->f.d.stats.needs_reset, 1);
	/* No ring is looked at any more, the good ones neither. */
	guest_fill(&t->ram, RINGS_GPA, RINGS_LEN, 0xa5);
	drv_kick(&t->f.d, 2);
	fake_loop(&t->f);
	assert_true(guest_is(&t->ram, RINGS_GPA, RINGS_LEN, 0xa5));
	assert_int_equal(t->f.chains, 0);
	assert_int_equal(t->f.raised, 1);
	new_rings(t);
	bring_up(t);
	add(t, 2);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 1);
}

static void test_failed_stops_the_device(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	fake_loop(&t->f);
	drv_write(&t->f.d, VIRTIO_MMIO_STATUS, 15 | VIRTIO_CONFIG_S_FAILED);
	add(t, 0);
	drv_kick(&t->f.d, 0);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 0);
}

static void test_frozen(void **state)
{
	struct fixture *t = *state;

	bring_up(t);
	fake_loop(&t->f);
	virtio_freeze(&t->f.d);
	add(t, 0);
	drv_kick(&t->f.d, 0);
	virtio_schedule(&t->f.d);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 0);
	assert_false(virtio_live(&t->f.d));
	virtio_thaw(&t->f.d);
	assert_int_equal(fake_loop(&t->f), 1);
	assert_int_equal(t->f.chains, 1);
}

/* Nothing of the old rings may be read or written: any touch faults. */
static void rings_access(struct fixture *t, int prot)
{
	must(!mprotect(guest_at(&t->ram, RINGS_GPA, RINGS_LEN), RINGS_LEN, prot));
}

/* With a ring the loop looks by itself, and the driver kicks only where it sleeps. */
static void test_kicks_are_asked_for_before_sleep(void **state)
{
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;
	struct ring *r = NULL;

	assert_int_equal(ring_create(&r, 8, NULL), 0);
	virtio_attach(d, r);
	bring_up(t);
	fake_loop(&t->f);
	t->f.processed = 0;
	/* The models wait for all queues, but nobody has told the driver. */
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		assert_true(d->queue[i].want && !d->queue[i].armed);
	assert_int_equal(vqb_avail_event(&t->b[0]), 0);
	add(t, 0);
	assert_true(d->watch.look(&d->watch));
	assert_int_equal(t->f.chains, 1);
	assert_int_equal(vqb_used_idx(&t->b[0]), 1);
	assert_false(d->watch.look(&d->watch));
	assert_int_equal(vqb_avail_event(&t->b[0]), 0);
	/* One that comes on the way to sleep is found by the last look. */
	add(t, 0);
	assert_true(d->watch.before_sleep(&d->watch));
	assert_int_equal(vqb_used_idx(&t->b[0]), 2);
	assert_false(d->watch.before_sleep(&d->watch));
	assert_int_equal(vqb_avail_event(&t->b[0]), 2);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		assert_true(d->queue[i].armed);
	ring_destroy(&r);
	d->ring = NULL;
}

/* Without a ring to look again, the driver is asked for a kick, or the loop for another turn. */
static void test_q33_look_again_without_ring(void **state)
{
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;

	must(drv_negotiate(d, VIRTIO_MASK_VERSION_1));
	must(drv_queue(d, 0, &t->b[0]));
	must(drv_start(d));
	fake_loop(&t->f);
	vq_kicks_off(&d->queue[0]);
	virtio_look_again(d, &d->queue[0]);
	assert_int_equal(vqb_used_flags(&t->b[0]), 0);
	assert_false(fake_kicked(&t->f));
	vq_kicks_off(&d->queue[0]);
	add(t, 0);
	virtio_look_again(d, &d->queue[0]);
	assert_true(fake_kicked(&t->f));
}

/* A model that does not want a queue any more is not asked again and again. */
static void test_a_full_queue_nobody_wants(void **state)
{
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;
	struct ring *r = NULL;
	unsigned before;

	assert_int_equal(ring_create(&r, 8, NULL), 0);
	virtio_attach(d, r);
	bring_up(t);
	fake_loop(&t->f);
	t->f.deaf = true;
	add(t, 1);
	before = t->f.processed;
	assert_true(d->watch.look(&d->watch));
	for (unsigned i = 0; i < 100; i++) {
		assert_false(d->watch.look(&d->watch));
		assert_false(d->watch.before_sleep(&d->watch));
	}
	assert_int_equal(t->f.processed, before + 1);
	ring_destroy(&r);
	d->ring = NULL;
}

static void test_watch_of_a_frozen_device(void **state)
{
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;
	struct ring *r = NULL;

	assert_int_equal(ring_create(&r, 8, NULL), 0);
	virtio_attach(d, r);
	bring_up(t);
	fake_loop(&t->f);
	virtio_freeze(d);
	add(t, 0);
	assert_false(d->watch.look(&d->watch));
	assert_false(d->watch.before_sleep(&d->watch));
	assert_int_equal(vqb_used_idx(&t->b[0]), 0);
	virtio_thaw(d);
	fake_loop(&t->f);
	assert_int_equal(vqb_used_idx(&t->b[0]), 1);
	ring_destroy(&r);
	d->ring = NULL;
}

static void push_soon(struct fixture *t, unsigned queue)
{
	struct vq *q = &t->f.d.queue[queue];

	add(t, queue);
	pthread_mutex_lock(&t->f.d.lock);
	must(vq_pop(q, &t->f.chain) == VQ_OK);
	vq_push(q, t->f.chain.head, 0);
	virtio_used_soon(&t->f.d, q);
	pthread_mutex_unlock(&t->f.d.lock);
}

static void test_one_interrupt_a_turn(void **state)
{
	struct fixture *t = *state;
	struct ring *r = NULL;

	assert_int_equal(ring_create(&r, 8, NULL), 0);
	virtio_attach(&t->f.d, r);
	must(drv_negotiate(&t->f.d, VIRTIO_MASK_VERSION_1));
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		must(drv_queue(&t->f.d, i, &t->b[i]));
	must(drv_start(&t->f.d));
	fake_loop(&t->f);
	t->f.raised = 0;
	for (unsigned i = 0; i < 5; i++)
		push_soon(t, i % 2);
	assert_int_equal(t->f.raised, 0);
	assert_int_equal(ring_poll_once(r), 0);
	assert_int_equal(t->f.raised, 1);
	assert_int_equal(ring_poll_once(r), 0);
	assert_int_equal(t->f.raised, 1);
	/* Void after a reset. */
	push_soon(t, 0);
	drv_write(&t->f.d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(ring_poll_once(r), 0);
	assert_int_equal(t->f.raised, 1);
	ring_destroy(&r);
	t->f.d.ring = NULL;
}

static void test_t15_reset_in_negotiation(void **state)
{
	static const u32 path[] = {1, 3, 11, 15};
	struct fixture *t = *state;

	for (unsigned stop = 0; stop <= ARRAY_SIZE(path); stop++) {
		drv_reset(&t->f.d);
		for (unsigned i = 0; i < stop; i++) {
			drv_write(&t->f.d, VIRTIO_MMIO_STATUS, path[i]);
			drv_write(&t->f.d, VIRTIO_MMIO_DRIVER_FEATURES, 1);
			if (path[i] == 11)
				must(drv_queue(&t->f.d, 1, &t->b[1]));
		}
		t->f.d.interrupt_status = 3;
		drv_reset(&t->f.d);
		drv_reset(&t->f.d);
		assert_int_equal(t->f.d.status, 0);
		assert_int_equal(t->f.d.interrupt_status, 0);
		assert_int_equal(t->f.d.driver_features, 0);
		assert_int_equal(t->f.d.queue_sel, 0);
		for (unsigned i = 0; i < FAKE_QUEUES; i++) {
			const struct vq want = {.mem = &t->ram.mem, .size_max = VQ_SIZE_MAX};

			assert_memory_equal(&t->f.d.queue[i], &want, sizeof(want));
		}
	}
}

/* The loop in its own thread: turns, and completion of what is held. */
struct loop {
	struct fixture *t;
	pthread_t thread;
	bool stop;
};

static void *loop_run(void *arg)
{
	struct loop *l = arg;
	u64 n;

	while (!__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE)) {
		must(read(l->t->f.d.kick_fd, &n, sizeof(n)) == sizeof(n));
		virtio_process(&l->t->f.d);
		fake_complete(&l->t->f);
	}
	return NULL;
}

static void loop_start(struct loop *l, struct fixture *t)
{
	*l = (struct loop){.t = t};
	must(!pthread_create(&l->thread, NULL, loop_run, l));
}

static void loop_end(struct loop *l)
{
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	virtio_schedule(&l->t->f.d);
	pthread_join(l->thread, NULL);
}

static void test_t15_thousand_resets(void **state)
{
	struct fixture *t = *state;
	struct loop l;

	t->f.hold = true;
	loop_start(&l, t);
	for (unsigned i = 0; i < 1000; i++) {
		new_rings(t);
		bring_up(t);
		for (unsigned k = 0; k < 16; k++)
			add(t, k % FAKE_QUEUES);
		drv_kick(&t->f.d, 0);
		/* Resets come at any point of the work. */
		for (unsigned spin = 0; spin < i * 10; spin++)
			__asm__ volatile("pause");
		drv_reset(&t->f.d);
		must(!drv_read(&t->f.d, VIRTIO_MMIO_STATUS));
		rings_access(t, PROT_NONE);
		drv_kick(&t->f.d, 0);
		drv_kick(&t->f.d, 2);
		if (i % 16 == 0)
			usleep(100);
		pthread_mutex_lock(&t->f.d.lock);
		must(!t->f.d.io_count);
		pthread_mutex_unlock(&t->f.d.lock);
		rings_access(t, PROT_READ | PROT_WRITE);
	}
	loop_end(&l);
	assert_int_equal(t->f.d.epoch, 2000); /* bring_up() begins with a reset */
	assert_int_equal(t->f.activated, 1000);
}

static void *reset_thread(void *arg)
{
	struct fixture *t = arg;

	drv_reset(&t->f.d);
	return NULL;
}

static bool resetting(struct fixture *t)
{
	bool r;

	pthread_mutex_lock(&t->f.d.lock);
	r = t->f.d.resetting;
	pthread_mutex_unlock(&t->f.d.lock);
	return r;
}

static void test_t15_reset_waits_for_io(void **state)
{
	struct fixture *t = *state;
	struct virtio_dev *d = &t->f.d;
	pthread_t vcpu;

	t->f.hold = true;
	bring_up(t);
	add(t, 0);
	add(t, 0);
	fake_loop(&t->f);
	assert_int_equal(d->io_count, 2);
	must(!pthread_create(&vcpu, NULL, reset_thread, t));
	while (!resetting(t))
		usleep(100);
	/* The loop gets in, and is told to cancel; another vCPU sees a device that is not there
	 * yet, cannot change it, and does not wait. */
	assert_true(fake_kicked(&t->f));
	virtio_process(d);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_STATUS), 15);
	drv_reset(d);
	drv_write(d, VIRTIO_MMIO_STATUS, 1);
	drv_write(d, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_STATUS), 15);
	assert_false(virtio_live(d));
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		assert_false(d->queue[i].live);
	assert_int_equal(d->epoch, 2);
	rings_access(t, PROT_NONE);
	fake_complete(&t->f);
	pthread_join(vcpu, NULL);
	assert_int_equal(drv_read(d, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(t->f.resets, 2);
	assert_int_equal(t->f.raised, 0);
	rings_access(t, PROT_READ | PROT_WRITE);
}

/* A vCPU that writes what a confused driver might, as fast as it can. */
struct vcpu {
	struct fixture *t;
	u32 rnd;
};

static void *vcpu_run(void *arg)
{
	static const u32 off[] = {VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_NUM,
		VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH,
		VIRTIO_MMIO_STATUS, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_INTERRUPT_ACK,
		VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_CONFIG + 8,
		VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW, 0x0c, 0x60, 0xfc};
	static const u32 value[] = {0, 1, 3, 11, 15, 2, 8, 16, 256, RINGS_GPA, RINGS_GPA + 0x800,
		UINT32_MAX, 1, 3, 11, 15};
	struct vcpu *v = arg;

	for (unsigned i = 0; i < 20000; i++) {
		v->rnd = v->rnd * 1664525u + 1013904223u;
		drv_write(&v->t->f.d, off[v->rnd >> 28], value[v->rnd >> 24 & 15]);
		drv_read(&v->t->f.d, off[v->rnd >> 20 & 15]);
	}
	return NULL;
}

static void test_t16_two_vcpus_race(void **state)
{
	struct fixture *t = *state;
	struct vcpu v[2] = {{t, 1}, {t, 77}};
	pthread_t thread[2];
	struct loop l;

	loop_start(&l, t);
	for (unsigned i = 0; i < 2; i++)
		must(!pthread_create(&thread[i], NULL, vcpu_run, &v[i]));
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	/* Whatever it came to, a reset makes it a working device. */
	drv_reset(&t->f.d);
	loop_end(&l);
	fake_loop(&t->f);
	t->f.chains = 0;
	new_rings(t);
	bring_up(t);
	add(t, 1);
	fake_loop(&t->f);
	assert_int_equal(t->f.chains, 1);
}

/* A live device with one chain waiting that nobody kicked for, and an interrupt not yet acked. */
static struct enc saved(struct fixture *t)
{
	struct enc out = {0};

	bring_up(t);
	add(t, 0);
	fake_loop(&t->f);
	virtio_config_changed(&t->f.d);
	add(t, 0);
	vqb_set_used_event(&t->b[0], 1);
	t->f.state = 55;
	virtio_freeze(&t->f.d);
	virtio_save(&t->f.d, &out);
	must(!out.oom);
	return out;
}

static void test_save_and_load(void **state)
{
	struct fixture *t = *state;
	struct enc out = saved(t);
	struct fake_device *r = malloc(sizeof(*r));

	must(r);
	fake_init(r, &t->ram.mem);
	assert_int_equal(virtio_load(&r->d, out.buf, out.len, NULL), 0);
	assert_int_equal(r->state, 55);
	assert_true(virtio_live(&r->d));
	assert_memory_equal(r->d.queue, t->f.d.queue, sizeof(r->d.queue));
	assert_int_equal(r->d.driver_features, ALL);
	assert_int_equal(r->d.config_generation, 1);
	assert_int_equal(r->activated, 0);
	/* The first turn finds the chain that came without a kick, and the interrupt is raised
	 * again: the first may have been lost on the way. */
	virtio_schedule(&r->d);
	assert_int_equal(r->raised, 0);
	fake_loop(r);
	assert_int_equal(r->chains, 1);
	assert_int_equal(r->raised, 2);
	assert_int_equal(vqb_used_idx(&t->b[0]), 2);
	virtio_schedule(&r->d);
	fake_loop(r);
	assert_int_equal(r->raised, 2);
	fake_finish(r);
	free(r);
	enc_free(&out);
}

/* Every state a device can be in goes out and comes back as it was. */
static void test_save_in_every_state(void **state)
{
	static const u32 path[] = {1, 3, 11, 15};
	struct fixture *t = *state;

	for (unsigned stop = 0; stop <= ARRAY_SIZE(path); stop++) {
		for (unsigned end = 0; end < 5; end++) {
			struct enc a = {0}, b = {0};

			drv_reset(&t->f.d);
			for (unsigned i = 0; i < stop; i++) {
				drv_write(&t->f.d, VIRTIO_MMIO_STATUS, path[i]);
				if (path[i] == 11)
					must(drv_queue(&t->f.d, 1, &t->b[1]));
			}
			if (end & 1)
				virtio_fail(&t->f.d);
			if (end & 2)
				drv_write(&t->f.d, VIRTIO_MMIO_STATUS, t->f.d.status | 0x80);
			if (end == 4)
				drv_reset(&t->f.d);
			virtio_save(&t->f.d, &a);
			drv_reset(&t->f.d);
			assert_int_equal(virtio_load(&t->f.d, a.buf, a.len, NULL), 0);
			virtio_save(&t->f.d, &b);
			assert_int_equal(a.len, b.len);
			assert_memory_equal(a.buf, b.buf, a.len);
			enc_free(&a);
			enc_free(&b);
		}
	}
}

/* Where the fields are: the transport's, then 66 bytes a queue, then the device's. */
#define AT_ID         0
#define AT_QUEUES     4
#define AT_STATUS     8
#define AT_INTERRUPTS 12
#define AT_FEATURES   32
#define AT_QUEUE(i)   (40u + 66u * (i))
#define AT_STATE      AT_QUEUE(FAKE_QUEUES)

/* That a device that refused a state is as new. */
static void assert_fresh(const struct fake_device *r)
{
	assert_int_equal(r->d.status, 0);
	assert_int_equal(r->d.interrupt_status, 0);
	assert_int_equal(r->d.driver_features, 0);
	assert_false(r->d.restored);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		assert_false(r->d.queue[i].ready || r->d.queue[i].live);
}

static void test_load_hostile(void **state)
{
	static const struct {
		const char *names;
		unsigned at, len;
		u64 value;
	} c[] = {
		{"fake: device_id", AT_ID, 4, 2},
		{"fake: queue_count", AT_QUEUES, 4, 2},
		{"fake: queue_count", AT_QUEUES, 4, UINT32_MAX},
		{"fake: status", AT_STATUS, 4, 2},
		{"fake: status", AT_STATUS, 4, 7},
		{"fake: status", AT_STATUS, 4, 0x1f},
		{"fake: status", AT_STATUS, 4, 0x40},
		{"fake: status", AT_STATUS, 4, 0x10f},
		{"fake: interrupt_status", AT_INTERRUPTS, 4, 4},
		{"fake: driver_features", AT_FEATURES, 8, 1ull << 32 | 1ull << 1},
		{"fake: driver_features", AT_FEATURES, 8, UINT64_MAX},
		/* Live queues of a device that is not. */
		{"fake: queue 0: ready", AT_STATUS, 4, 0},
		{"fake: queue 0: ready", AT_STATUS, 4, 3},
		{"fake: queue 0: live", AT_STATUS, 4, 11},
		{"fake: queue 0: live", AT_STATUS, 4, 0x4f},
		{"fake: queue 0: live", AT_STATUS, 4, 0x8f},
		/* A device that is live, with a queue that is not. */
		{"fake: queue 1: live", AT_QUEUE(1) + 3, 1, 0},
		{"fake: queue 2: size", AT_QUEUE(2), 2, 0},
		{"fake: queue 2: rings", AT_QUEUE(2) + 4, 8, UINT64_MAX - 15},
		{"fake: state", AT_STATE, 4, 100},
	};
	struct fixture *t = *state;
	struct enc out = saved(t);
	struct fake_device *r = malloc(sizeof(*r));
	struct err e;
	u8 *bytes = malloc(out.len + 1);

	must(r && bytes);
	fake_init(r, &t->ram.mem);
	assert_int_equal(out.len, AT_STATE + 4);
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		memcpy(bytes, out.buf, out.len);
		memcpy(bytes + c[i].at, &c[i].value, c[i].len);
		if (!virtio_load(&r->d, bytes, out.len, &e))
			fail_msg("case %u was loaded", i);
		if (strncmp(e.msg, c[i].names, strlen(c[i].names)))
			fail_msg("case %u: \"%s\" does not name %s", i, e.msg, c[i].names);
		assert_fresh(r);
	}
	for (size_t len = 0; len < out.len; len++) {
		assert_int_equal(virtio_load(&r->d, out.buf, len, &e), -EINVAL);
		assert_fresh(r);
	}
	memcpy(bytes, out.buf, out.len);
	bytes[out.len] = 0;
	assert_int_equal(virtio_load(&r->d, bytes, out.len + 1, &e), -EINVAL);
	assert_string_equal(e.msg, "fake: length: bytes left over");
	assert_fresh(r);
	fake_finish(r);
	free(r);
	free(bytes);
	enc_free(&out);
}

/* Any bytes: refused, or loaded into a device that then runs without harm. */
static void test_load_any_bytes(void **state)
{
	struct fixture *t = *state;
	struct enc out = saved(t);
	struct fake_device *r = malloc(sizeof(*r));
	unsigned loaded = 0, refused = 0;

	must(r);
	for (size_t at = 0; at < out.len; at++) {
		static const u8 flip[] = {0x01, 0x02, 0x08, 0x10, 0x80, 0xff};
		u8 was = out.buf[at];

		for (unsigned i = 0; i < ARRAY_SIZE(flip); i++) {
			fake_init(r, &t->ram.mem);
			out.buf[at] = was ^ flip[i];
			if (virtio_load(&r->d, out.buf, out.len, NULL)) {
				assert_fresh(r);
				refused++;
			} else {
				virtio_schedule(&r->d);
				for (unsigned n = 0; n < 4 && fake_kicked(r); n++)
					virtio_process(&r->d);
				drv_reset(&r->d);
				loaded++;
			}
			fake_finish(r);
		}
		out.buf[at] = was;
	}
	assert_true(loaded && refused);
	free(r);
	enc_free(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_q29_index_moves_during_drain),
		T(test_q34_kick_storm),
		T(test_kick_before_driver_ok),
		T(test_bad_ring_stops_the_device),
		T(test_failed_stops_the_device),
		T(test_frozen),
		T(test_kicks_are_asked_for_before_sleep),
		T(test_q33_look_again_without_ring),
		T(test_a_full_queue_nobody_wants),
		T(test_watch_of_a_frozen_device),
		T(test_one_interrupt_a_turn),
		T(test_t15_reset_in_negotiation),
		T(test_t15_thousand_resets),
		T(test_t15_reset_waits_for_io),
		T(test_t16_two_vcpus_race),
		T(test_save_and_load),
		T(test_save_in_every_state),
		T(test_load_hostile),
		T(test_load_any_bytes),
	};

	return cmocka_run_group_tests_name("mmio_life", tests, NULL, NULL);
}
