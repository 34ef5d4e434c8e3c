/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_limit.c - token buckets (B16) against an independent model.
 *
 * The model is one signed number: the level in units of 1/refill_ns of a token, to which each
 * nanosecond adds `size`. Every state that small buckets can reach is visited, and everything is
 * done in each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/limit.h"

#define STATES_MAX 4096u
#define TAKE_MAX   7u
#define STEP_MAX   4u

struct model {
	s64 level, burst;
};

static s64 at_most(s64 v, s64 max)
{
	return v < max ? v : max;
}

static s64 floor_div(s64 a, s64 b)
{
	return a / b - (a % b < 0);
}

static void model_pass(struct model *m, const struct limit_rate *r, u64 ns)
{
	m->level = at_most(m->level + (s64)(ns * r->size), (s64)(r->size * r->refill_ns));
}

static bool model_take(struct model *m, const struct limit_rate *r, s64 n)
{
	s64 whole = floor_div(m->level, (s64)r->refill_ns);
	s64 rest;

	if (n == 0)
		return true;
	if (whole < 0)
		return false;
	if (whole + m->burst < n && whole < (s64)r->size)
		return false;
	rest = n - at_most(n, whole);
	rest = at_most(rest, m->burst);
	m->burst -= rest;
	m->level -= (n - rest) * (s64)r->refill_ns;
	return true;
}

static void check_same(const struct limit_bucket *b, const struct model *m)
{
	s64 refill = (s64)b->rate.refill_ns;

	assert_true(b->tokens <= b->rate.size && b->burst <= b->rate.burst);
	assert_true(b->frac < b->rate.refill_ns);
	assert_true(!b->debt || (!b->tokens && !b->burst));
	assert_int_equal(((s64)b->tokens - (s64)b->debt) * refill + (s64)b->frac, m->level);
	assert_int_equal(b->burst, m->burst);
}

/* As much as before can be taken, though what the burst lent may lie in the bucket now. */
static void check_undone(const struct limit_bucket *b, const struct model *m)
{
	struct model same = {m->level + (m->burst - (s64)b->burst) * (s64)b->rate.refill_ns,
		(s64)b->burst};

	check_same(b, &same);
}

struct node {
	struct limit l;
	struct model m;
};

struct walk {
	struct limit_rate rate;
	bool is_bytes; /* which of the two buckets it is about; ops takes only 1 */
	struct node nodes[STATES_MAX];
	unsigned count;
};

static struct limit_bucket *bucket(const struct walk *w, struct limit *l)
{
	return w->is_bytes ? &l->bytes : &l->ops;
}

static void add_node(struct walk *w, const struct node *n)
{
	for (unsigned i = 0; i < w->count; i++)
		if (!memcmp(&w->nodes[i].m, &n->m, sizeof(n->m)))
			return;
	assert_true(w->count < STATES_MAX);
	w->nodes[w->count++] = *n;
}

/* Takes @n from @from after @ns, and compares everything with the model. */
static void try_take(struct walk *w, const struct node *from, u64 n, u64 ns)
{
	struct node next = *from, undo;
	struct limit_bucket *b = bucket(w, &next.l);
	u64 now = b->at_ns + ns, bytes = w->is_bytes ? n : 5, throttled = next.l.throttled;
	u64 ready = limit_ready_ns(&next.l, bytes, now);
	bool taken = limit_take(&next.l, bytes, now);

	model_pass(&next.m, &w->rate, ns);
	undo.m = next.m;
	assert_int_equal(taken, model_take(&next.m, &w->rate, (s64)n));
	assert_int_equal(taken, ready <= now);
	assert_int_equal(next.l.throttled, throttled + !taken);
	check_same(b, &next.m);
	add_node(w, &next);
	if (taken) {
		undo.l = next.l;
		limit_give_back(&undo.l, bytes);
		check_undone(bucket(w, &undo.l), &undo.m);
		return;
	}
	/* Not a nanosecond earlier than it said, and no later. */
	undo = next;
	assert_false(limit_take(&undo.l, bytes, ready - 1));
	assert_true(limit_take(&undo.l, bytes, ready));
}

static unsigned explore(struct walk *w)
{
	const u64 begin = 1000;
	struct limit_config cfg = {0};
	struct node first = {.m = {(s64)(w->rate.size * w->rate.refill_ns), (s64)w->rate.burst}};

	*(w->is_bytes ? &cfg.bytes : &cfg.ops) = w->rate;
	limit_init(&first.l, &cfg, begin);
	assert_true(limit_is_on(&first.l));
	w->count = 0;
	add_node(w, &first);
	for (unsigned i = 0; i < w->count; i++)
		for (u64 n = w->is_bytes ? 0 : 1; n <= (w->is_bytes ? TAKE_MAX : 1); n++)
			for (u64 ns = 0; ns <= STEP_MAX; ns++)
				try_take(w, &w->nodes[i], n, ns);
	return w->count;
}

/* B16 */
static void test_all_small_buckets(void **state)
{
	struct walk *w = calloc(1, sizeof(*w));
	unsigned states = 0;

	for (u64 size = 1; size <= 5; size++)
		for (u64 refill = 1; refill <= 6; refill++)
			for (u64 burst = 0; burst <= 3; burst++)
				for (int is_bytes = 0; is_bytes < 2; is_bytes++) {
					w->rate = (struct limit_rate){size, refill, burst};
					w->is_bytes = is_bytes;
					states += explore(w);
				}
	assert_true(states > 2000);
	free(w);
}

static void test_no_limit(void **state)
{
	struct limit_config cfg = {0};
	struct limit l;

	limit_init(&l, &cfg, 5);
	assert_false(limit_is_on(&l));
	for (int i = 0; i < 100; i++)
		assert_true(limit_take(&l, UINT64_MAX, 5));
	limit_give_back(&l, UINT64_MAX);
	assert_int_equal(limit_ready_ns(&l, UINT64_MAX, 5), 5);
	assert_int_equal(l.throttled, 0);
}

/* From both buckets or from neither. */
static void test_both_or_neither(void **state)
{
	struct limit_config cfg = {.ops = {2, 1000, 0}, .bytes = {100, 1000, 0}};
	struct limit l;

	limit_init(&l, &cfg, 0);
	assert_true(limit_take(&l, 60, 0));
	assert_false(limit_take(&l, 60, 0));
	assert_int_equal(l.ops.tokens, 1);
	assert_int_equal(l.bytes.tokens, 40);
	assert_int_equal(limit_ready_ns(&l, 60, 0), 200);
	assert_true(limit_take(&l, 40, 0));
	assert_false(limit_take(&l, 0, 0));
	assert_int_equal(limit_ready_ns(&l, 0, 0), 500);
	/* The later of the two decides. */
	assert_int_equal(limit_ready_ns(&l, 80, 0), 800);
	assert_int_equal(limit_ready_ns(&l, 10, 0), 500);
	assert_int_equal(l.throttled, 2);
}

/* B16: every combination of extreme numbers, with time that jumps to the end and back. */
static void test_extreme_values(void **state)
{
	static const u64 v[] = {1, 2, 3, 1000000007, (u64)1 << 32, INT64_MAX, (u64)1 << 63,
		UINT64_MAX - 1, UINT64_MAX};
	struct limit l;

	for (unsigned i = 0; i < 9 * 9 * 9 * 9; i++) {
		struct limit_rate rate = {v[i % 9], v[i / 9 % 9], v[i / 81 % 9]};
		struct limit_config cfg = {.bytes = rate};
		u64 n = v[i / 729], ready;

		limit_init(&l, &cfg, 0);
		assert_true(limit_take(&l, n, 0)); /* the bucket is full: all passes */
		for (unsigned k = 0; k < 9; k++) {
			ready = limit_ready_ns(&l, n, v[k]);
			if (limit_take(&l, n, v[k]))
				assert_true(ready <= v[k]);
			else
				assert_true(ready > v[k] || ready == UINT64_MAX);
			assert_true(l.bytes.tokens <= rate.size && l.bytes.burst <= rate.burst);
			assert_true(!l.bytes.debt || (!l.bytes.tokens && !l.bytes.burst));
			assert_true(l.bytes.debt <= UINT64_MAX - rate.size);
		}
		/* Back in time: nothing is earned, and nothing breaks. */
		limit_take(&l, n, 0);
		assert_int_equal(l.bytes.at_ns, UINT64_MAX);
		limit_give_back(&l, n);
		assert_true(l.bytes.tokens <= rate.size && l.bytes.burst <= rate.burst);
	}
}

static u64 rand_state = 88172645463325252u;

static u64 rnd(u64 below)
{
	rand_state ^= rand_state << 13;
	rand_state ^= rand_state >> 7;
	rand_state ^= rand_state << 17;
	return rand_state % below;
}

/* However time is cut into pieces, what passes is bucket + burst + rate * time + one request. */
static void test_long_run_rate(void **state)
{
	for (unsigned run = 0; run < 200; run++) {
		struct limit_rate rate = {1 + rnd(1000000), 1 + rnd(100000000), rnd(1000000)};
		struct limit_config cfg = {.bytes = rate};
		u64 now = 12345, begin = now, sum = 0, max = 1 + rnd(2 * rate.size), n;
		unsigned __int128 earned;
		struct limit l;

		limit_init(&l, &cfg, now);
		for (unsigned i = 0; i < 2000; i++) {
			n = 1 + rnd(max);
			if (limit_take(&l, n, now))
				sum += n;
			else if (rnd(2))
				now = limit_ready_ns(&l, n, now);
			now += rnd(4) ? rnd(3) : rnd(1 + rate.refill_ns / 64);
		}
		earned = (unsigned __int128)(now - begin) * rate.size / rate.refill_ns;
		assert_true(sum <= rate.size + rate.burst + earned + max);
		assert_true(l.bytes.debt <= max);
	}
}

/* Once means once. */
static void test_burst_never_comes_back(void **state)
{
	struct limit_config cfg = {.bytes = {10, 10, 100}};
	struct limit l;

	limit_init(&l, &cfg, 0);
	assert_true(limit_take(&l, 110, 0));
	assert_false(limit_take(&l, 1, 0));
	assert_false(limit_take(&l, 11, 9));
	assert_true(limit_take(&l, 10, 1000000));
	assert_false(limit_take(&l, 1, 1000000));
	assert_int_equal(l.bytes.burst, 0);
	/* A new limit, a new burst. */
	limit_init(&l, &cfg, 1000000);
	assert_true(limit_take(&l, 110, 1000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_small_buckets),
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_both_or_neither),
		cmocka_unit_test(test_extreme_values),
		cmocka_unit_test(test_long_run_rate),
		cmocka_unit_test(test_burst_never_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
