/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_queue_race.c - virtio/queue.c while the driver acts at the same time: event suppression
 * (Q33: every order of steps of a small model, and two real threads), memory that changes under
 * our eyes (Q36, Q37).
 */
#include "tests/lib/queue_fixture.h"

#include <pthread.h>

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

/* The same race between two real processors: without the fences this hangs sooner or later. */
struct ping {
	struct fixture *f;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool kicked, interrupted;
};

#define PING_CHAINS 20000u

static void ping_signal(struct ping *p, bool *flag)
{
	pthread_mutex_lock(&p->lock);
	*flag = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

static void ping_sleep(struct ping *p, bool *flag)
{
	pthread_mutex_lock(&p->lock);
	while (!*flag)
		pthread_cond_wait(&p->wake, &p->lock);
	*flag = false;
	pthread_mutex_unlock(&p->lock);
}

static void *ping_device(void *arg)
{
	struct ping *p = arg;
	struct vq *q = &p->f->q;
	unsigned done = 0;

	while (done < PING_CHAINS) {
		while (vq_pop(q, &p->f->c) == VQ_OK) {
			vq_push(q, p->f->c.head, 0);
			done++;
			if (vq_need_interrupt(q))
				ping_signal(p, &p->interrupted);
		}
		if (done < PING_CHAINS && !vq_kicks_on(q))
			ping_sleep(p, &p->kicked);
	}
	return NULL;
}

static void test_q33_two_processors(void **state)
{
	struct ping p = {.f = *state, .lock = PTHREAD_MUTEX_INITIALIZER,
		.wake = PTHREAD_COND_INITIALIZER};
	struct vqb *b = &p.f->b;
	unsigned added = 0, seen = 0;
	pthread_t t;
	u16 head;
	u32 len;

	p.f->q.event_idx = true;
	assert_int_equal(pthread_create(&t, NULL, ping_device, &p), 0);
	while (seen < PING_CHAINS) {
		while (added < PING_CHAINS && b->free_count) {
			u16 old = b->avail_idx;

			vqb_add(b, &VQB_R(DATA_GPA, 16), 1);
			added++;
			if (passes(old, b->avail_idx, vqb_avail_event(b)))
				ping_signal(&p, &p.kicked);
		}
		while (vqb_used(b, &head, &len))
			seen++;
		if (b->free_count && added < PING_CHAINS)
			continue;
		vqb_set_used_event(b, b->used_seen);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (seen < PING_CHAINS && !vqb_used_waiting(b))
			ping_sleep(&p, &p.interrupted);
	}
	pthread_join(t, NULL);
	assert_int_equal(seen, PING_CHAINS);
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

static void test_q36_descriptors_mutate(void **state)
{
	struct fixture *f = *state;
	struct mutator m = {.f = f};
	unsigned result[4] = {0};
	pthread_t t;
	u16 head;
	u32 len;

	assert_int_equal(pthread_create(&t, NULL, mutate, &m), 0);
	for (unsigned i = 0; i < 100000; i++) {
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
	assert_true(result[VQ_OK] && result[VQ_REJECT] && result[VQ_BAD]);
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
		QUEUE_TEST(test_q33_two_processors),
		QUEUE_TEST(test_q34_spurious_kicks),
		QUEUE_TEST(test_q36_descriptors_mutate),
		QUEUE_TEST(test_q37_index_loads_whole),
	};

	return cmocka_run_group_tests_name("queue_race", tests, NULL, NULL);
}
