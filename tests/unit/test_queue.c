/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_queue.c - virtio/queue.c against drivers that are right, wrong and hostile: what is in the
 * rings. Tests are named after the ids of the hostile catalogue. test_queue_race.c has the races,
 * test_queue_state.c the saved state.
 */
#include "tests/lib/queue_fixture.h"

#include <string.h>

/* A fresh queue with one chain of one descriptor. */
static enum vq_result one(struct fixture *f, u64 gpa, u32 len, u16 flags, u16 next)
{
	fresh(f, SIZE);
	vqb_set_desc(&f->b, 0, gpa, len, flags, next);
	return offer(f, 0);
}

/* The same with a good indirect table of @n descriptors, for a test to break. */
static void good_table(struct fixture *f, u16 n)
{
	for (u16 i = 0; i < n; i++)
		vqb_set_indirect(&f->b, TABLE_GPA, i, DATA_GPA + 16 * i, 16,
			i + 1 < n ? F_NEXT : 0, (u16)(i + 1));
}

/* That a bad ring changed nothing: nothing popped, nothing written. */
static void assert_untouched(const struct fixture *f)
{
	assert_int_equal(f->q.next_avail, 0);
	assert_int_equal(f->q.in_flight_count, 0);
	assert_int_equal(vqb_used_idx(&f->b), 0);
}

static void test_plain_chain(void **state)
{
	struct fixture *f = *state;
	u16 head, got;
	u32 len;
	u8 hello[5];

	guest_write(&f->ram, DATA_GPA, "hello", 5);
	head = vqb_add(&f->b, (struct vqb_buf[]){VQB_R(DATA_GPA, 2), VQB_R(DATA_GPA + 2, 3),
				      VQB_W(DATA_GPA + 64, 100)}, 3);
	assert_true(vq_pending(&f->q));
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal(f->c.head, head);
	assert_int_equal(f->c.out_count, 2);
	assert_int_equal(f->c.in_count, 1);
	assert_int_equal(f->c.out_len, 5);
	assert_int_equal(f->c.in_len, 100);
	assert_int_equal(iov_to_host(f->c.iov, f->c.out_count, 0, hello, 5), 5);
	assert_memory_equal(hello, "hello", 5);
	assert_ptr_equal(f->c.iov[2].iov_base, guest_at(&f->ram, DATA_GPA + 64, 100));
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_EMPTY);
	assert_false(vqb_used(&f->b, &got, &len));
	vq_push(&f->q, head, 77);
	assert_true(vqb_used(&f->b, &got, &len));
	assert_int_equal(got, head);
	assert_int_equal(len, 77);
}

static void test_unpop_pops_again(void **state)
{
	struct fixture *f = *state;
	u16 head = vqb_add(&f->b, &VQB_R(DATA_GPA, 8), 1);

	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_unpop(&f->q, head);
	assert_true(vq_pending(&f->q));
	assert_int_equal(f->q.in_flight_count, 0);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal(f->c.head, head);
	vq_push(&f->q, head, 0);
	assert_int_equal(vqb_used_idx(&f->b), 1);
}

/* A hidden element shows with the next one, and not before. */
static void test_push_hidden(void **state)
{
	struct fixture *f = *state;
	u16 head[3], got;
	u32 len;

	for (unsigned i = 0; i < 3; i++) {
		vqb_add(&f->b, &VQB_W(DATA_GPA, 8), 1);
		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		head[i] = f->c.head;
	}
	vq_push_hidden(&f->q, head[0], 1);
	vq_push_hidden(&f->q, head[1], 2);
	assert_int_equal(vqb_used_idx(&f->b), 0);
	vq_push(&f->q, head[2], 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(vqb_used(&f->b, &got, &len));
		assert_int_equal(got, head[i]);
		assert_int_equal(len, i + 1);
	}
	assert_int_equal(f->q.in_flight_count, 0);
}

/* Out of order, and many at once. */
static void test_push_any_order(void **state)
{
	struct fixture *f = *state;
	u16 head[SIZE], got;
	u32 len;

	for (unsigned i = 0; i < SIZE; i++)
		vqb_add(&f->b, &VQB_W(DATA_GPA, 8), 1);
	for (unsigned i = 0; i < SIZE; i++) {
		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		head[i] = f->c.head;
	}
	for (unsigned i = SIZE; i--;)
		vq_push(&f->q, head[i], i);
	for (unsigned i = SIZE; i--;) {
		assert_true(vqb_used(&f->b, &got, &len));
		assert_int_equal(got, head[i]);
		assert_int_equal(len, i);
	}
}

static void test_dead_queue_is_empty(void **state)
{
	struct fixture *f = *state;
	u16 head = vqb_add(&f->b, &VQB_R(DATA_GPA, 8), 1);

	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vqb_add(&f->b, &VQB_R(DATA_GPA, 8), 1);
	f->q.live = false;
	guest_fill(&f->ram, RING_GPA, MEM_PAGE, 0xa5);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_EMPTY);
	assert_false(vq_pending(&f->q));
	vq_push(&f->q, head, 8);
	vq_unpop(&f->q, head);
	vq_kicks_off(&f->q);
	assert_false(vq_kicks_on(&f->q));
	assert_false(vq_need_interrupt(&f->q));
	assert_true(guest_is(&f->ram, RING_GPA, MEM_PAGE, 0xa5));
}

static void test_q01_self_loop(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(one(*state, DATA_GPA, 16, F_NEXT, 0), VQ_BAD);
	assert_untouched(*state);
	/* Also where the looping descriptor is empty. */
	assert_int_equal(one(*state, DATA_GPA, 0, F_NEXT, 0), VQ_BAD);
	/* The queue's size ends it, before the lengths come to 4 GiB (RAM as in Q15). */
	f->ram.mem.region[1].len = 1ull << 40;
	fresh(f, 1);
	vqb_set_desc(&f->b, 0, MEM_HIGH_GPA, 0x60000000, F_NEXT, 0);
	assert_int_equal(offer(f, 0), VQ_BAD);
	f->ram.mem.region[1].len = HIGH_LEN;
}

static void test_q02_two_cycle(void **state)
{
	struct fixture *f = *state;

	vqb_set_desc(&f->b, 0, DATA_GPA, 16, F_NEXT, 1);
	vqb_set_desc(&f->b, 1, DATA_GPA, 16, F_NEXT, 0);
	assert_int_equal(offer(f, 0), VQ_BAD);
	assert_untouched(f);
}

static void test_q03_chain_of_queue_size(void **state)
{
	struct fixture *f = *state;
	struct vqb_buf buf[VQ_SIZE_MAX];

	for (unsigned i = 0; i < VQ_SIZE_MAX; i++)
		buf[i] = VQB_R(DATA_GPA + i, 1);
	for (u16 size = 1; size <= VQ_SIZE_MAX; size *= 2) {
		fresh(f, size);
		vqb_add(&f->b, buf, size);
		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		assert_int_equal(f->c.out_count, size);
		assert_int_equal(f->c.out_len, size);
	}
}

static void test_q04_chain_over_queue_size(void **state)
{
	struct fixture *f = *state;

	/* All of the table, and one step more. */
	for (u16 i = 0; i < SIZE; i++)
		vqb_set_desc(&f->b, i, DATA_GPA, 16, F_NEXT, (i + 1) % SIZE);
	assert_int_equal(offer(f, 0), VQ_BAD);
	assert_untouched(f);

	/* One from the ring and VQ_SIZE_MAX from a table: more than any chain may have. */
	fresh(f, SIZE);
	good_table(f, VQ_SIZE_MAX);
	vqb_set_desc(&f->b, 0, DATA_GPA, 16, F_NEXT, 1);
	vqb_set_desc(&f->b, 1, TABLE_GPA, 16 * VQ_SIZE_MAX, F_INDIRECT, 0);
	assert_int_equal(offer(f, 0), VQ_BAD);
	assert_untouched(f);
	fresh(f, SIZE);
	vqb_set_desc(&f->b, 1, TABLE_GPA, 16 * VQ_SIZE_MAX, F_INDIRECT, 0);
	assert_int_equal(offer(f, 1), VQ_OK);
	assert_int_equal(f->c.out_count, VQ_SIZE_MAX);
}

static void test_q05_next_outside(void **state)
{
	static const u16 next[] = {SIZE, SIZE + 1, 0x7fff, 0x8000, 0xffff};

	for (unsigned i = 0; i < ARRAY_SIZE(next); i++) {
		assert_int_equal(one(*state, DATA_GPA, 16, F_NEXT, next[i]), VQ_BAD);
		assert_untouched(*state);
	}
	/* Without NEXT it means nothing. */
	assert_int_equal(one(*state, DATA_GPA, 16, 0, 0xffff), VQ_OK);
}

static void test_q06_head_outside(void **state)
{
	static const u16 head[] = {SIZE, 0x100, 0x7fff, 0x8000, 0xffff};

	for (unsigned i = 0; i < ARRAY_SIZE(head); i++) {
		fresh(*state, SIZE);
		assert_int_equal(offer(*state, head[i]), VQ_BAD);
		assert_untouched(*state);
	}
	/* Where it is beyond the largest queue too. */
	fresh(*state, VQ_SIZE_MAX);
	assert_int_equal(offer(*state, VQ_SIZE_MAX), VQ_BAD);
	assert_untouched(*state);
}

static void test_q07_zero_length_skipped(void **state)
{
	struct fixture *f = *state;

	for (unsigned zero = 0; zero < 3; zero++) {
		struct vqb_buf buf[3];

		for (unsigned i = 0; i < 3; i++)
			buf[i] = VQB_R(DATA_GPA + 16 * i, i == zero ? 0 : 16);
		fresh(f, SIZE);
		vqb_add(&f->b, buf, 3);
		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		assert_int_equal(f->c.out_count, 2);
		assert_int_equal(f->c.out_len, 32);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(f->c.iov[i].iov_len, 16);
	}
	/* Nothing but empty ones: an empty chain, to be returned like any. */
	fresh(f, SIZE);
	vqb_add(&f->b, (struct vqb_buf[]){VQB_R(DATA_GPA, 0), VQB_W(DATA_GPA, 0)}, 2);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal(f->c.out_count + f->c.in_count, 0);
}

static void test_q08_null_and_empty(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(one(f, 0, 0, 0, 0), VQ_OK);
	assert_int_equal(f->c.out_count, 0);
	/* Guest address 0 is RAM like any other. */
	assert_int_equal(one(f, 0, 16, 0, 0), VQ_OK);
	assert_int_equal(f->c.out_count, 1);
}

/* Buffers that end or do not end in RAM: ids Q09 to Q13. */
static void test_q09_q13_buffer_addresses(void **state)
{
	static const struct {
		const char *name;
		u64 gpa;
		u32 len;
		enum vq_result want;
	} t[] = {
		{"Q09 behind low RAM", LOW_LEN, 1, VQ_REJECT},
		{"Q09 behind high RAM", MEM_HIGH_GPA + HIGH_LEN, 1, VQ_REJECT},
		{"Q09 far beyond", 1ull << 52, 16, VQ_REJECT},
		{"Q09 last address", UINT64_MAX, 1, VQ_REJECT},
		{"Q10 last byte", LOW_LEN - 1, 1, VQ_OK},
		{"Q10 up to the end", LOW_LEN - 16, 16, VQ_OK},
		{"Q10 one past the end", LOW_LEN - 16, 17, VQ_REJECT},
		{"Q10 up to the end, high", MEM_HIGH_GPA + HIGH_LEN - 16, 16, VQ_OK},
		{"Q10 one past the end, high", MEM_HIGH_GPA + HIGH_LEN - 16, 17, VQ_REJECT},
		{"Q10 all of RAM", 0, LOW_LEN, VQ_OK},
		{"Q10 more than all", 0, LOW_LEN + 1, VQ_REJECT},
		{"Q11 wraps to 0", UINT64_MAX - 15, 16, VQ_REJECT},
		{"Q11 wraps into RAM", UINT64_MAX - 15, 0x2000, VQ_REJECT},
		{"Q11 longest", DATA_GPA, UINT32_MAX, VQ_REJECT},
		{"Q12 low RAM into the hole", LOW_LEN - 1, MEM_PAGE, VQ_REJECT},
		{"Q12 hole into high RAM", MEM_HIGH_GPA - 1, 2, VQ_REJECT},
		{"Q13 own registers", 0xC0001000, 16, VQ_REJECT},
		{"Q13 doorbell", 0xC0000000, 4, VQ_REJECT},
	};
	struct fixture *f = *state;
	u16 got;
	u32 len;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		for (u16 flags = 0; flags <= F_WRITE; flags += F_WRITE) {
			enum vq_result r = one(f, t[i].gpa, t[i].len, flags, 0);

			if (r != t[i].want)
				fail_msg("%s: %d, not %d", t[i].name, r, t[i].want);
			/* Either way it is ours, and goes back once. */
			assert_int_equal(f->c.head, 0);
			assert_int_equal(f->q.in_flight_count, 1);
			if (r == VQ_REJECT)
				assert_int_equal(f->c.out_count + f->c.in_count, 0);
			vq_push(&f->q, 0, 0);
			assert_true(vqb_used(&f->b, &got, &len));
			assert_int_equal(len, 0);
			assert_int_equal(vq_pop(&f->q, &f->c), VQ_EMPTY);
		}
	}
}

static void test_q14_buffer_is_the_ring(void **state)
{
	struct fixture *f = *state;
	u8 ones[512];

	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(one(f, RING_GPA, sizeof(ones), F_WRITE, 0), VQ_OK);
	/* The device fills the buffer, and with it the ring: a bad ring then, and no more. */
	assert_int_equal(iov_from_host(f->c.iov, 1, 0, ones, sizeof(ones)), sizeof(ones));
	vq_push(&f->q, 0, sizeof(ones));
	assert_int_equal(f->q.next_used, 1);
	assert_int_equal(vqb_used_idx(&f->b), 1);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_BAD);
}

static void test_q15_sum_over_4g(void **state)
{
	struct fixture *f = *state;

	/* RAM is 1 MiB: 4096 of it is 4 GiB, which is more than a chain may have descriptors, so
	 * the region is made to look larger for this sum. No byte of it is touched. */
	f->ram.mem.region[1].len = 1ull << 40;
	vqb_add(&f->b, (struct vqb_buf[]){VQB_R(MEM_HIGH_GPA, 0x80000000),
			       VQB_W(MEM_HIGH_GPA, 0x7fffffff)}, 2);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal((u64)f->c.out_len + f->c.in_len, UINT32_MAX);
	vqb_add(&f->b, (struct vqb_buf[]){VQB_R(MEM_HIGH_GPA, 0x80000000),
			       VQB_W(MEM_HIGH_GPA, 0x80000000)}, 2);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_REJECT);
	assert_int_equal(f->c.out_len + f->c.in_len, 0);
	f->ram.mem.region[1].len = HIGH_LEN;
}

static void test_q16_readable_after_writable(void **state)
{
	struct fixture *f = *state;

	vqb_add(&f->b, (struct vqb_buf[]){VQB_R(DATA_GPA, 16), VQB_W(DATA_GPA, 16),
			       VQB_R(DATA_GPA, 16)}, 3);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_BAD);
	assert_untouched(f);
}

static void test_q18_indirect_not_negotiated(void **state)
{
	struct fixture *f = *state;

	good_table(f, 1);
	f->q.indirect = false;
	assert_int_equal(one(f, TABLE_GPA, 16, F_INDIRECT, 0), VQ_BAD);
	assert_untouched(f);
	f->q.indirect = true;
	assert_int_equal(one(f, TABLE_GPA, 16, F_INDIRECT, 0), VQ_OK);
}

static void test_q19_indirect_and_next(void **state)
{
	struct fixture *f = *state;

	good_table(f, 1);
	vqb_set_desc(&f->b, 1, DATA_GPA, 16, 0, 0);
	assert_int_equal(one(f, TABLE_GPA, 16, F_INDIRECT | F_NEXT, 1), VQ_BAD);
	assert_untouched(f);
}

static void test_q20_nested_indirect(void **state)
{
	struct fixture *f = *state;

	vqb_set_indirect(&f->b, TABLE_GPA, 0, TABLE_GPA + 64, 16, F_INDIRECT, 0);
	vqb_set_indirect(&f->b, TABLE_GPA + 64, 0, DATA_GPA, 16, 0, 0);
	assert_int_equal(one(f, TABLE_GPA, 16, F_INDIRECT, 0), VQ_BAD);
	assert_untouched(f);
	/* A table that is its own content. */
	vqb_set_indirect(&f->b, TABLE_GPA, 0, TABLE_GPA, 16, F_INDIRECT, 0);
	assert_int_equal(one(f, TABLE_GPA, 16, F_INDIRECT, 0), VQ_BAD);
}

static void test_q21_indirect_length(void **state)
{
	static const u32 len[] = {0, 1, 15, 17, 31, 16 * VQ_SIZE_MAX + 16, 16 * 65536, 0xfffffff0,
		UINT32_MAX};
	struct fixture *f = *state;

	good_table(f, VQ_SIZE_MAX);
	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		assert_int_equal(one(f, TABLE_GPA, len[i], F_INDIRECT, 0), VQ_BAD);
		assert_untouched(f);
	}
	/* Also where the whole entries alone would be good. */
	good_table(f, 1);
	assert_int_equal(one(f, TABLE_GPA, 31, F_INDIRECT, 0), VQ_BAD);
	good_table(f, VQ_SIZE_MAX);
	/* Longer than the queue is fine as long as a chain can hold it. */
	assert_int_equal(one(f, TABLE_GPA, 16 * VQ_SIZE_MAX, F_INDIRECT, 0), VQ_OK);
	assert_int_equal(f->c.out_count, VQ_SIZE_MAX);
	/* Shorter than the chain in it is not. */
	assert_int_equal(one(f, TABLE_GPA, 16 * 100, F_INDIRECT, 0), VQ_BAD);
}

static void test_q22_indirect_straddles_end(void **state)
{
	struct fixture *f = *state;

	vqb_set_indirect(&f->b, LOW_LEN - 32, 0, DATA_GPA, 16, 0, 0);
	assert_int_equal(one(f, LOW_LEN - 32, 32, F_INDIRECT, 0), VQ_OK);
	assert_int_equal(one(f, LOW_LEN - 32, 48, F_INDIRECT, 0), VQ_BAD);
	assert_untouched(f);
	assert_int_equal(one(f, LOW_LEN, 16, F_INDIRECT, 0), VQ_BAD);
	assert_int_equal(one(f, UINT64_MAX - 15, 32, F_INDIRECT, 0), VQ_BAD);
}

static void test_q23_indirect_loop(void **state)
{
	struct fixture *f = *state;

	vqb_set_indirect(&f->b, TABLE_GPA, 0, DATA_GPA, 16, F_NEXT, 1);
	vqb_set_indirect(&f->b, TABLE_GPA, 1, DATA_GPA, 16, F_NEXT, 0);
	assert_int_equal(one(f, TABLE_GPA, 32, F_INDIRECT, 0), VQ_BAD);
	assert_untouched(f);
	vqb_set_indirect(&f->b, TABLE_GPA, 1, DATA_GPA, 16, F_NEXT, 0xffff);
	assert_int_equal(one(f, TABLE_GPA, 32, F_INDIRECT, 0), VQ_BAD);
}

static void test_q24_two_indirects(void **state)
{
	struct fixture *f = *state;

	good_table(f, 1);
	/* One in front of the table is what the specification allows ... */
	vqb_set_desc(&f->b, 1, TABLE_GPA, 16, F_INDIRECT, 0);
	vqb_set_desc(&f->b, 0, DATA_GPA, 8, F_NEXT, 1);
	assert_int_equal(offer(f, 0), VQ_OK);
	assert_int_equal(f->c.out_count, 2);
	assert_int_equal(f->c.out_len, 24);
	/* ... a table in front is not. */
	fresh(f, SIZE);
	vqb_set_desc(&f->b, 1, TABLE_GPA, 16, F_INDIRECT, 0);
	vqb_set_desc(&f->b, 0, TABLE_GPA, 16, F_INDIRECT | F_NEXT, 1);
	assert_int_equal(offer(f, 0), VQ_BAD);
	assert_untouched(f);
}

static void test_q25_all_flags(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(one(f, DATA_GPA, 16, 0xffff, 0), VQ_BAD);
	assert_untouched(f);
	assert_int_equal(one(f, DATA_GPA, 16, 0xffff & ~(F_NEXT | F_INDIRECT), 0), VQ_OK);
	assert_int_equal(f->c.in_count, 1);
	/* WRITE says nothing on the descriptor that names a table. */
	good_table(f, 1);
	assert_int_equal(one(f, TABLE_GPA, 16, 0xffff & ~F_NEXT, 0), VQ_OK);
	assert_int_equal(f->c.out_count, 1);
}

static void test_q26_q27_avail_idx_jumps(void **state)
{
	static const struct {
		u16 idx;
		enum vq_result want;
	} t[] = {{SIZE + 1, VQ_BAD}, {0x8000, VQ_BAD}, {65535, VQ_BAD}, {65535 - SIZE, VQ_BAD},
		{SIZE, VQ_OK}, {1, VQ_OK}, {0, VQ_EMPTY}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		fresh(f, SIZE);
		vqb_set_desc(&f->b, 0, DATA_GPA, 16, 0, 0);
		vqb_set_avail_idx(&f->b, t[i].idx);
		assert_int_equal(vq_pending(&f->q), t[i].want != VQ_EMPTY);
		assert_int_equal(vq_pop(&f->q, &f->c), t[i].want);
	}
	/* Back by one after real work. */
	fresh(f, SIZE);
	vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vqb_set_avail_idx(&f->b, 0);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_BAD);
	assert_int_equal(f->q.next_avail, 1);
}

static void test_q28_index_wraps(void **state)
{
	struct fixture *f = *state;
	u16 head, got;
	u32 len;

	for (u32 i = 0; i < 70000; i++) {
		struct vqb_buf buf[] = {VQB_R(DATA_GPA, 4), VQB_W(DATA_GPA, 4)};

		head = vqb_add(&f->b, buf, 2);
		if (vq_pop(&f->q, &f->c) != VQ_OK || f->c.head != head)
			fail_msg("pop %u", i);
		vq_push(&f->q, head, i);
		if (!vqb_used(&f->b, &got, &len) || got != head || len != i)
			fail_msg("push %u", i);
	}
	assert_int_equal(f->q.next_avail, (u16)70000);
	assert_int_equal(f->q.next_used, (u16)70000);
}

static void test_q30_duplicate_head(void **state)
{
	struct fixture *f = *state;

	/* In one batch. */
	vqb_set_desc(&f->b, 3, DATA_GPA, 16, 0, 0);
	vqb_offer(&f->b, 3);
	vqb_offer(&f->b, 3);
	vqb_publish(&f->b);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_BAD);
	assert_int_equal(f->q.in_flight_count, 1);
	/* Later, while in flight. */
	fresh(f, SIZE);
	vqb_set_desc(&f->b, 3, DATA_GPA, 16, 0, 0);
	assert_int_equal(offer(f, 3), VQ_OK);
	assert_int_equal(offer(f, 3), VQ_BAD);
	/* Once given back it may come again. */
	vq_push(&f->q, 3, 0);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	/* A rejected one is in flight too. */
	assert_int_equal(one(f, LOW_LEN, 16, 0, 0), VQ_REJECT);
	assert_int_equal(offer(f, 0), VQ_BAD);
}

static void test_q31_all_entries_same_head(void **state)
{
	struct fixture *f = *state;

	vqb_set_desc(&f->b, 0, DATA_GPA, 16, 0, 0);
	for (u16 i = 0; i < SIZE; i++)
		vqb_offer(&f->b, 0);
	vqb_publish(&f->b);
	/* A device that answers each at once can serve them all. */
	for (u16 i = 0; i < SIZE; i++) {
		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		vq_push(&f->q, 0, i);
	}
	assert_int_equal(vqb_used_idx(&f->b), SIZE);
	/* One that does not sees the second as broken. */
	for (u16 i = 0; i < SIZE; i++)
		vqb_offer(&f->b, 0);
	vqb_publish(&f->b);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_BAD);
}

static void test_q32_used_ring_overwritten(void **state)
{
	struct fixture *f = *state;

	for (u16 i = 0; i < 3; i++) {
		u16 head = vqb_add(&f->b, &VQB_W(DATA_GPA, 16), 1);

		assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
		guest_fill(&f->ram, f->b.used_gpa, 4 + 8 * SIZE, 0xff);
		vq_push(&f->q, head, 5);
		assert_int_equal(vqb_used_idx(&f->b), i + 1);
	}
	vqb_set_used_idx(&f->b, 0x1234);
	assert_false(vq_pending(&f->q));
	assert_int_equal(f->q.next_used, 3);
}

static void test_q38_rings_overlap(void **state)
{
	struct fixture *f = *state;
	unsigned popped = 0;
	u32 rnd = 7;

	/* All three at one place: what we write is what we read next. */
	vqb_init_at(&f->b, &f->ram, RING_GPA, RING_GPA, RING_GPA, SIZE);
	for (unsigned i = 0; i < 20000; i++) {
		u8 *ring = guest_at(&f->ram, RING_GPA, 16 * SIZE);

		for (unsigned k = 0; k < 16 * SIZE; k++) {
			rnd = rnd * 1664525u + 1013904223u;
			ring[k] = rnd >> 24 & (k % 2 ? 0 : 7);
		}
		vq_reset(&f->q);
		f->q.indirect = true;
		vqb_attach(&f->b, &f->q);
		assert_true(vq_enable(&f->q));
		for (unsigned k = 0; k < SIZE; k++) {
			enum vq_result r = vq_pop(&f->q, &f->c);

			if (r == VQ_BAD || r == VQ_EMPTY)
				break;
			check_chain(f);
			popped++;
			vq_push(&f->q, f->c.head, rnd);
			vq_need_interrupt(&f->q);
			vq_kicks_on(&f->q);
		}
		assert_int_equal(f->q.in_flight_count, 0);
	}
	assert_true(popped > 1000);
}

/* vq_enable() with these addresses. */
static bool enable_at(struct fixture *f, u64 desc, u64 avail, u64 used, u16 size)
{
	vq_reset(&f->q);
	f->q.desc_gpa = desc;
	f->q.avail_gpa = avail;
	f->q.used_gpa = used;
	f->q.size = size;
	if (vq_enable(&f->q))
		return f->q.live;
	assert_false(f->q.live);
	assert_null(f->q.desc.hva);
	return false;
}

static void test_q39_misaligned(void **state)
{
	struct fixture *f = *state;

	assert_true(enable_at(f, 0x1000, 0x2000, 0x3000, SIZE));
	for (u64 off = 1; off < 16; off++)
		assert_false(enable_at(f, 0x1000 + off, 0x2000, 0x3000, SIZE));
	assert_true(enable_at(f, 0x1010, 0x2002, 0x3004, SIZE));
	assert_false(enable_at(f, 0x1000, 0x2001, 0x3000, SIZE));
	for (u64 off = 1; off < 4; off++)
		assert_false(enable_at(f, 0x1000, 0x2000, 0x3000 + off, SIZE));
}

static void test_q40_rings_outside_ram(void **state)
{
	static const u32 need[3] = {16 * SIZE, 6 + 2 * SIZE, 6 + 8 * SIZE};
	static const u32 align[3] = {16, 2, 4};
	struct fixture *f = *state;

	for (unsigned part = 0; part < 3; part++) {
		u64 last = (LOW_LEN - need[part]) / align[part] * align[part];
		const u64 bad[] = {last + align[part], LOW_LEN, 0xC0000000, MEM_HIGH_GPA - 16,
			MEM_HIGH_GPA + HIGH_LEN, 0x1000 | 1ull << 63, 0x1000 | 1ull << 33,
			UINT64_MAX & ~15ull};
		u64 at[3] = {0x1000, 0x2000, 0x3000};

		at[part] = last;
		assert_true(enable_at(f, at[0], at[1], at[2], SIZE));
		at[part] = MEM_HIGH_GPA;
		assert_true(enable_at(f, at[0], at[1], at[2], SIZE));
		for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
			at[part] = bad[i];
			assert_false(enable_at(f, at[0], at[1], at[2], SIZE));
		}
	}
}

/* Rings in the last bytes of RAM: a look behind them meets the guard page. */
static void test_q40_rings_at_the_very_end(void **state)
{
	struct fixture *f = *state;

	for (unsigned part = 0; part < 3; part++) {
		u64 at[3] = {0x1000, 0x2000, 0x3000};
		static const u32 need[3] = {16 * 256, 6 + 2 * 256, 8 + 8 * 256};

		at[part] = LOW_LEN - need[part];
		vqb_init_at(&f->b, &f->ram, at[0], at[1], at[2], 256);
		for (unsigned i = 0; i < 3; i++)
			guest_fill(&f->ram, at[i], need[i] - (i == 2 ? 2 : 0), 0);
		assert_true(enable_at(f, at[0], at[1], at[2], 256));
		f->q.event_idx = true;
		for (unsigned i = 0; i < 600; i++) {
			u16 head = vqb_add(&f->b, &VQB_R(DATA_GPA, 1), 1);
			u32 len;

			assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
			vq_push(&f->q, head, 1);
			vq_need_interrupt(&f->q);
			vq_kicks_on(&f->q);
			assert_true(vqb_used(&f->b, &head, &len));
		}
	}
}

static void test_sizes(void **state)
{
	static const u16 bad[] = {0, 3, 5, 255, 257, 512, 0x8000, 0xffff};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(enable_at(f, 0x1000, 0x4000, 0x5000, bad[i]));
	for (u16 size = 1; size <= 256; size *= 2)
		assert_true(enable_at(f, 0x1000, 0x4000, 0x5000, size));
	f->q.size_max = 64;
	assert_true(enable_at(f, 0x1000, 0x4000, 0x5000, 64));
	assert_false(enable_at(f, 0x1000, 0x4000, 0x5000, 128));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		QUEUE_TEST(test_plain_chain),
		QUEUE_TEST(test_unpop_pops_again),
		QUEUE_TEST(test_push_hidden),
		QUEUE_TEST(test_push_any_order),
		QUEUE_TEST(test_dead_queue_is_empty),
		QUEUE_TEST(test_q01_self_loop),
		QUEUE_TEST(test_q02_two_cycle),
		QUEUE_TEST(test_q03_chain_of_queue_size),
		QUEUE_TEST(test_q04_chain_over_queue_size),
		QUEUE_TEST(test_q05_next_outside),
		QUEUE_TEST(test_q06_head_outside),
		QUEUE_TEST(test_q07_zero_length_skipped),
		QUEUE_TEST(test_q08_null_and_empty),
		QUEUE_TEST(test_q09_q13_buffer_addresses),
		QUEUE_TEST(test_q14_buffer_is_the_ring),
		QUEUE_TEST(test_q15_sum_over_4g),
		QUEUE_TEST(test_q16_readable_after_writable),
		QUEUE_TEST(test_q18_indirect_not_negotiated),
		QUEUE_TEST(test_q19_indirect_and_next),
		QUEUE_TEST(test_q20_nested_indirect),
		QUEUE_TEST(test_q21_indirect_length),
		QUEUE_TEST(test_q22_indirect_straddles_end),
		QUEUE_TEST(test_q23_indirect_loop),
		QUEUE_TEST(test_q24_two_indirects),
		QUEUE_TEST(test_q25_all_flags),
		QUEUE_TEST(test_q26_q27_avail_idx_jumps),
		QUEUE_TEST(test_q28_index_wraps),
		QUEUE_TEST(test_q30_duplicate_head),
		QUEUE_TEST(test_q31_all_entries_same_head),
		QUEUE_TEST(test_q32_used_ring_overwritten),
		QUEUE_TEST(test_q38_rings_overlap),
		QUEUE_TEST(test_q39_misaligned),
		QUEUE_TEST(test_q40_rings_outside_ram),
		QUEUE_TEST(test_q40_rings_at_the_very_end),
		QUEUE_TEST(test_sizes),
	};

	return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
