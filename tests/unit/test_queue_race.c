/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_queue_race.c - virtio/queue.c while the driver acts at the same time: event suppression
 * (Q33: every order of steps of a small model, and two real threads), memory that changes under
 * our eyes (Q36, Q37).
 */
#include "tests/lib/queue_fixture.h"

#include <pthread.h>
#include <sched.h>

#ifdef __SANITIZE_THREAD__
/* A descriptor is copied while the driver may write it: that is the point; the copy counts. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:span_copy_out\n";
}
#endif

/* Whether stepping from @old to @new passes entry @event: said the long way. */
static bool passes(u16 old, u16 new, u16 event)
{
	for (u16 i = old; i != new; i++) {
		if (i == event)
			return true;
	}
	return false;
}

static void test_q33_used_event_exhaustive(void **state)
{
	static const u16 start[] = {0, 1, 0x7ffc, 0xfff8, 0xffff};
	struct fixture *f = *state;

	f->q.event_idx = true;
	for (unsigned s = 0; s < ARRAY_SIZE(start); s++) {
		for (u16 step = 0; step <= SIZE; step++) {
			u16 new = start[s] + step;

			for (u32 event = 0; event <= 0xffff; event++) {
				f->q.signalled = start[s];
				f->q.next_used = new;
				vqb_set_used_event(&f->b, (u16)event);
				if (vq_need_interrupt(&f->q) !=
					passes(start[s], new, (u16)event))
					fail_msg("old %u new %u event %u", start[s], new, event);
				if (f->q.signalled != new)
					fail_msg("decision not recorded");
			}
		}
	}
}

static void test_q33_no_interrupt_flag(void **state)
{
	struct fixture *f = *state;
	u16 head = vqb_add(&f->b, &VQB_W(DATA_GPA, 16), 1);

	assert_false(vq_need_interrupt(&f->q));
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_push(&f->q, head, 0);
	vqb_set_avail_flags(&f->b, VRING_AVAIL_F_NO_INTERRUPT);
	assert_false(vq_need_interrupt(&f->q));
	assert_int_equal(offer(f, head), VQ_OK);
	vq_push(&f->q, head, 0);
	vqb_set_avail_flags(&f->b, 0);
	assert_true(vq_need_interrupt(&f->q));
	assert_false(vq_need_interrupt(&f->q));
}

/*
 * A driver that waits for @b's used elements as the specification tells it to, one step a call.
 * It sleeps only after it looked once more.
 */
struct waiting_driver {
	unsigned seen;
	bool asleep;
	u8 step;
};

static void driver_waits(struct fixture *f, struct waiting_driver *d)
{
	u16 head;
	u32 len;

	if (d->asleep)
		return;
	switch (d->step) {
	case 0:
		while (vqb_used(&f->b, &head, &len))
			d->seen++;
		break;
	case 1:
		vqb_set_used_event(&f->b, f->b.used_seen);
		break;
	case 2:
		d->asleep = !vqb_used_waiting(&f->b);
		break;
	}
	d->step = (d->step + 1) % 3;
}

/* Every order of 14 steps of the two sides, over the wrap of the index: no interrupt is lost. */
static void test_q33_no_lost_interrupt(void **state)
{
	struct fixture *f = *state;

	f->q.event_idx = true;
	for (u32 order = 0; order < 1 << 14; order++) {
		struct waiting_driver d = {0};
		unsigned pushed = 0;
		bool push_next = true;

		fresh(f, 4);
		f->q.next_avail = f->q.next_used = f->q.signalled = 0xfffe;
		f->b.used_seen = 0xfffe;
		vqb_set_used_idx(&f->b, 0xfffe);
		vqb_set_avail_idx(&f->b, 0xfffe);
		vqb_set_used_event(&f->b, 0xfffe);
		for (unsigned i = 0; i < 4; i++)
			vqb_add(&f->b, &VQB_W(DATA_GPA, 16), 1);
		for (unsigned i = 0; i < 14 + 8; i++) {
			/* Behind the given order the device ends its work. */
			if (i < 14 && order >> i & 1) {
				driver_waits(f, &d);
			} else if (push_next && pushed < 4) {
				assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
				vq_push(&f->q, f->c.head, 0);
				pushed++;
				push_next = false;
			} else if (!push_next) {
				if (vq_need_interrupt(&f->q))
					d.asleep = false;
				push_next = true;
			}
		}
		for (unsigned i = 0; i < 12; i++)
			driver_waits(f, &d);
		if (pushed != 4 || d.seen != 4)
			fail_msg("order 0x%x: %u of %u seen", order, d.seen, pushed);
	}
}

/* The same for kicks: the driver adds, then decides by avail_event; the device sleeps. */
static void check_kicks(struct fixture *f, u32 order)
{
	bool dev_asleep = false, decide = false;
	unsigned added = 0, popped = 0;
	u8 step = 0;

	fresh(f, 4);
	f->q.next_avail = f->q.next_used = 0xfffe;
	vqb_set_avail_idx(&f->b, 0xfffe);
	assert_false(vq_kicks_on(&f->q));
	for (unsigned i = 0; i < 14 + 8 + 12; i++) {
		bool driver = i < 14 ? order >> i & 1 : i < 14 + 8;

		if (driver && decide) {
			u16 new = f->b.avail_idx;

			decide = false;
			if (f->q.event_idx ? passes(new - 1, new, vqb_avail_event(&f->b))
					   : !(vqb_used_flags(&f->b) & VRING_USED_F_NO_NOTIFY))
				dev_asleep = false;
		} else if (driver && added < 4) {
			vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
			added++;
			decide = true;
		} else if (!driver && !dev_asleep) {
			if (step == 0)
				vq_kicks_off(&f->q);
			while (step == 1 && vq_pop(&f->q, &f->c) == VQ_OK)
				popped++;
			if (step == 2)
				dev_asleep = !vq_kicks_on(&f->q);
			step = (step + 1) % 3;
		}
	}
	if (added != 4 || popped != 4)
		fail_msg("order 0x%x: %u of %u popped", order, popped, added);
}

static void test_q33_no_lost_kick(void **state)
{
	struct fixture *f = *state;

	for (u32 order = 0; order < 1 << 14; order++) {
		f->q.event_idx = true;
		check_kicks(f, order);
		f->q.event_idx = false;
		check_kicks(f, order);
	}
}

/*
 * The same race between two real processors. In each round both sides write one word and then read
 * the other's, as close together as two threads get. Each may miss the other; not both. Without
 * a fence of queue.c both do, in an optimised build in nearly every run (sanitizers slow the
 * device's side down too much for it).
 */
struct duel {
	struct fixture *f;
	u32 round;       /* the main thread began; atomic */
	u32 answered;    /* the other thread ended; atomic */
	bool device_saw; /* what the device learned in this round */
	bool (*device)(struct fixture *f);
};

#define DUEL_ROUNDS 100000u

static void wait_for(const u32 *word, u32 value)
{
	for (unsigned spins = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; spins++) {
		if (spins > 10000)
			sched_yield();
	}
}

static void *duel_device(void *arg)
{
	struct duel *d = arg;

	for (u32 round = 1; round <= DUEL_ROUNDS; round++) {
		wait_for(&d->round, round);
		d->device_saw = d->device(d->f);
		__atomic_store_n(&d->answered, round, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Runs @driver against @device; @between prepares each round, alone. */
static void duel(struct fixture *f, bool (*device)(struct fixture *),
	bool (*driver)(struct fixture *), void (*between)(struct fixture *))
{
	struct duel d = {.f = f, .device = device};
	pthread_t t;

	/* The words fought over must not share a cache line: that would order them. */
	vqb_init_at(&f->b, &f->ram, 0x1000, 0x2000, 0x3000, SIZE);
	vq_reset(&f->q);
	f->q.event_idx = true;
	vqb_attach(&f->b, &f->q);
	assert_true(vq_enable(&f->q));
	assert_int_equal(pthread_create(&t, NULL, duel_device, &d), 0);
	for (u32 round = 1; round <= DUEL_ROUNDS; round++) {
		bool driver_saw;

		between(f);
		__atomic_store_n(&d.round, round, __ATOMIC_RELEASE);
		/* A varying delay, so that the sides meet in every order. */
		for (unsigned i = 0; i < round % 2048; i++)
			__asm__ volatile("");
		driver_saw = driver(f);
		wait_for(&d.answered, round);
		must(driver_saw || d.device_saw);
	}
	pthread_join(t, NULL);
}

static void one_in_flight(struct fixture *f)
{
	u16 head;
	u32 len;

	while (vqb_used(&f->b, &head, &len))
		;
	vqb_set_used_event(&f->b, f->b.used_seen - 100);
	vqb_add(&f->b, &VQB_W(DATA_GPA, 16), 1);
	must(vq_pop(&f->q, &f->c) == VQ_OK);
}

static bool push_and_decide(struct fixture *f)
{
	vq_push(&f->q, f->c.head, 0);
	return vq_need_interrupt(&f->q);
}

static bool ask_and_look(struct fixture *f)
{
	vqb_set_used_event(&f->b, f->b.used_seen);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vqb_used_waiting(&f->b);
}

static void test_q33_two_processors_interrupt(void **state)
{
	duel(*state, push_and_decide, ask_and_look, one_in_flight);
}

static void all_taken(struct fixture *f)
{
	u16 head;
	u32 len;

	while (vq_pop(&f->q, &f->c) == VQ_OK)
		vq_push(&f->q, f->c.head, 0);
	while (vqb_used(&f->b, &head, &len))
		;
}

static bool ask_for_kicks(struct fixture *f)
{
	return vq_kicks_on(&f->q);
}

static bool add_and_decide(struct fixture *f)
{
	u16 old = f->b.avail_idx;

	vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
	return passes(old, f->b.avail_idx, vqb_avail_event(&f->b));
}

static void test_q33_two_processors_kick(void **state)
{
	duel(*state, ask_for_kicks, add_and_decide, all_taken);
}

static void test_q34_spurious_kicks(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 1000000; i++) {
		if (vq_pop(&f->q, &f->c) != VQ_EMPTY)
			fail_msg("look %u", i);
	}
	assert_int_equal(f->q.next_avail, 0);
	assert_int_equal(vqb_used_idx(&f->b), 0);
}

struct mutator {
	struct fixture *f;
	bool stop;
};

/* Writes anything plausible, and not, over the descriptors and an indirect table. */
static void *mutate(void *arg)
{
	static const u64 gpa[] = {DATA_GPA, DATA_GPA + 64, LOW_LEN - 8, LOW_LEN, UINT64_MAX - 4,
		TABLE_GPA, MEM_HIGH_GPA, 0xC0001000};
	static const u32 len[] = {0, 1, 16, 32, 64, 4096, 0x10000, UINT32_MAX};
	static const u16 flags[] = {0, F_NEXT, F_WRITE, F_WRITE | F_NEXT, F_INDIRECT, F_NEXT, 0,
		F_INDIRECT | F_NEXT};
	struct mutator *m = arg;
	u32 rnd = 1;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		rnd = rnd * 1664525u + 1013904223u;
		vqb_set_desc(&m->f->b, rnd >> 29, gpa[rnd >> 26 & 7], len[rnd >> 23 & 7],
			flags[rnd >> 20 & 7], rnd >> 16 & 15);
		vqb_set_indirect(&m->f->b, TABLE_GPA, rnd >> 14 & 3, gpa[rnd >> 11 & 7],
			len[rnd >> 8 & 7], flags[rnd >> 17 & 7], rnd >> 5 & 7);
	}
	return NULL;
}

/* On a busy machine the mutator may not run for a while, and then nothing comes of it. */
static bool seen_all(const unsigned result[4])
{
	return result[VQ_OK] && result[VQ_REJECT] && result[VQ_BAD];
}

static void test_q36_descriptors_mutate(void **state)
{
	struct fixture *f = *state;
	struct mutator m = {.f = f};
	unsigned result[4] = {0};
	pthread_t t;
	u16 head;
	u32 len;

	assert_int_equal(pthread_create(&t, NULL, mutate, &m), 0);
	for (unsigned i = 0; i < 100000 || (!seen_all(result) && i < 100000000); i++) {
		enum vq_result r = offer(f, i % SIZE);

		result[r]++;
		if (r == VQ_BAD) {
			/* What a reset does, without losing the mutator. */
			vqb_set_avail_idx(&f->b, f->q.next_avail);
			continue;
		}
		check_chain(f);
		vq_push(&f->q, f->c.head, f->c.in_len);
		must(vqb_used(&f->b, &head, &len) && head == i % SIZE);
		must(f->q.in_flight_count == 0);
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_int_equal(result[VQ_EMPTY], 0);
	assert_true(seen_all(result));
}

/* Flips avail.idx between 0x00ff and 0x0100: half of each is neither. */
static void *flip_idx(void *arg)
{
	struct mutator *m = arg;
	u16 idx = 0x00ff;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		idx ^= 0x01ff;
		vqb_set_avail_idx(&m->f->b, idx);
	}
	return NULL;
}

static void test_q37_index_loads_whole(void **state)
{
	struct fixture *f = *state;
	struct mutator m = {.f = f};
	pthread_t t;

	vqb_set_desc(&f->b, 0, DATA_GPA, 16, 0, 0);
	f->q.next_avail = f->q.next_used = 0x00ff;
	vqb_set_avail_idx(&f->b, 0x00ff);
	assert_int_equal(pthread_create(&t, NULL, flip_idx, &m), 0);
	for (unsigned i = 0; i < 200000; i++) {
		enum vq_result r = vq_pop(&f->q, &f->c);

		must(r == VQ_OK || r == VQ_EMPTY);
		if (r == VQ_OK)
			vq_unpop(&f->q, f->c.head);
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_int_equal(f->q.next_avail, 0x00ff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		QUEUE_TEST(test_q33_used_event_exhaustive),
		QUEUE_TEST(test_q33_no_interrupt_flag),
		QUEUE_TEST(test_q33_no_lost_interrupt),
		QUEUE_TEST(test_q33_no_lost_kick),
		QUEUE_TEST(test_q33_two_processors_interrupt),
		QUEUE_TEST(test_q33_two_processors_kick),
		QUEUE_TEST(test_q34_spurious_kicks),
		QUEUE_TEST(test_q36_descriptors_mutate),
		QUEUE_TEST(test_q37_index_loads_whole),
	};

	return cmocka_run_group_tests_name("queue_race", tests, NULL, NULL);
}
