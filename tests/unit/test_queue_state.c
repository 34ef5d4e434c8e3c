/* SPDX-License-Identifier: Apache-2.0 */
/* test_queue_state.c - saving and loading virtio/queue.c; what is loaded is hostile. */
#include "tests/lib/queue_fixture.h"

#include <string.h>

/* Saved state: where its fields are. */
#define AT_SIZE       0
#define AT_READY      2
#define AT_LIVE       3
#define AT_DESC       4
#define AT_AVAIL      12
#define AT_USED       20
#define AT_NEXT_AVAIL 28
#define AT_NEXT_USED  30
#define AT_SIGNALLED  32
#define AT_FLIGHT     34
#define STATE_LEN     66

static void test_save_and_load(void **state)
{
	struct fixture *f = *state;
	struct enc out = {0};
	struct vq r = {.mem = &f->ram.mem, .size_max = VQ_SIZE_MAX, .indirect = true};
	struct dec in;
	u16 held;

	f->q.ready = true;
	for (unsigned i = 0; i < 3; i++)
		vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	held = f->c.head;
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_push(&f->q, f->c.head, 3);
	vq_save(&f->q, &out);
	assert_int_equal(out.len, STATE_LEN);
	in = dec_from(out.buf, out.len);
	assert_int_equal(vq_load(&r, &in, NULL), 0);
	assert_true(dec_done(&in));
	vq_kicks_on(&f->q); /* as the load did */
	assert_memory_equal(&r, &f->q, sizeof(r));
	/* It goes on where the other stopped. */
	assert_int_equal(vq_pop(&r, &f->c), VQ_OK);
	vq_push(&r, held, 0);
	assert_int_equal(vqb_used_idx(&f->b), 2);
	enc_free(&out);
}

/* A device that kept heads over a snapshot looks at their chains again, with the same distrust. */
static void test_look_again(void **state)
{
	struct fixture *f = *state;
	struct enc out = {0};
	struct dec in;
	u16 head;

	f->q.ready = true;
	head = vqb_add(&f->b, (struct vqb_buf[]){VQB_R(DATA_GPA, 16), VQB_W(DATA_GPA, 8)}, 2);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_save(&f->q, &out);
	in = dec_from(out.buf, out.len);
	assert_int_equal(vq_load(&f->q, &in, NULL), 0);
	memset(&f->c, 0, sizeof(f->c));
	assert_int_equal(vq_again(&f->q, head, &f->c), VQ_OK);
	assert_int_equal(f->c.head, head);
	assert_int_equal(f->c.out_len, 16);
	assert_int_equal(f->c.in_len, 8);
	check_chain(f);
	vqb_set_desc(&f->b, head, LOW_LEN, 16, 0, 0);
	assert_int_equal(vq_again(&f->q, head, &f->c), VQ_REJECT);
	vqb_set_desc(&f->b, head, DATA_GPA, 16, F_NEXT, head);
	assert_int_equal(vq_again(&f->q, head, &f->c), VQ_BAD);
	assert_int_equal(f->q.in_flight_count, 1);
	vq_push(&f->q, head, 0);
	assert_int_equal(vqb_used_idx(&f->b), 1);
	enc_free(&out);
}

/* The driver saw "no kicks, please" and went quiet; nobody may believe that after a load. */
static void test_load_asks_for_kicks(void **state)
{
	struct fixture *f = *state;
	struct enc out = {0};
	struct dec in;

	f->q.ready = true;
	vq_kicks_off(&f->q);
	assert_int_equal(vqb_used_flags(&f->b), VRING_USED_F_NO_NOTIFY);
	vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_push(&f->q, f->c.head, 0);
	vq_save(&f->q, &out);
	in = dec_from(out.buf, out.len);
	assert_int_equal(vq_load(&f->q, &in, NULL), 0);
	assert_int_equal(vqb_used_flags(&f->b), 0);
	f->q.event_idx = true;
	assert_int_equal(vqb_avail_event(&f->b), 0);
	in = dec_from(out.buf, out.len);
	assert_int_equal(vq_load(&f->q, &in, NULL), 0);
	assert_int_equal(vqb_avail_event(&f->b), 1);
	enc_free(&out);
}

static void test_load_hostile(void **state)
{
	static const struct {
		const char *names;
		unsigned at, len;
		u64 value;
	} t[] = {
		{"size", AT_SIZE, 2, 0}, {"size", AT_SIZE, 2, 7}, {"size", AT_SIZE, 2, 512},
		{"size", AT_SIZE, 2, 0xffff}, {"ready", AT_READY, 1, 0}, {"ready", AT_READY, 1, 2},
		{"ready", AT_LIVE, 1, 2}, {"ready", AT_LIVE, 1, 255},
		{"position", AT_LIVE, 1, 0}, {"rings", AT_DESC, 8, 0x1001},
		{"rings", AT_DESC, 8, LOW_LEN}, {"rings", AT_AVAIL, 8, UINT64_MAX},
		{"rings", AT_AVAIL, 8, LOW_LEN - 2}, {"rings", AT_USED, 8, 0xC0001000},
		{"in_flight", AT_NEXT_AVAIL, 2, 0}, {"in_flight", AT_NEXT_USED, 2, 7},
		{"in_flight", AT_FLIGHT, 8, 0}, {"in_flight", AT_FLIGHT, 8, UINT64_MAX},
		{"in_flight", AT_FLIGHT, 8, 1ull << SIZE}, {"in_flight", AT_FLIGHT + 24, 8, 1},
	};
	struct fixture *f = *state;
	struct enc out = {0};
	struct vq r, before;
	struct err e;
	u8 bytes[STATE_LEN];

	f->q.ready = true;
	vqb_add(&f->b, &VQB_R(DATA_GPA, 16), 1);
	assert_int_equal(vq_pop(&f->q, &f->c), VQ_OK);
	vq_save(&f->q, &out);
	r = before = (struct vq){.mem = &f->ram.mem, .size_max = VQ_SIZE_MAX};
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct dec in = dec_from(bytes, sizeof(bytes));

		memcpy(bytes, out.buf, sizeof(bytes));
		memcpy(bytes + t[i].at, &t[i].value, t[i].len);
		if (!vq_load(&r, &in, &e))
			fail_msg("case %u was loaded", i);
		if (strncmp(e.msg, t[i].names, strlen(t[i].names)))
			fail_msg("case %u: \"%s\" does not name %s", i, e.msg, t[i].names);
		assert_memory_equal(&r, &before, sizeof(r));
	}
	for (size_t len = 0; len < STATE_LEN; len++) {
		struct dec in = dec_from(out.buf, len);

		assert_true(vq_load(&r, &in, &e) < 0);
		assert_memory_equal(&r, &before, sizeof(r));
	}
	enc_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		QUEUE_TEST(test_save_and_load),
		QUEUE_TEST(test_look_again),
		QUEUE_TEST(test_load_asks_for_kicks),
		QUEUE_TEST(test_load_hostile),
	};

	return cmocka_run_group_tests_name("queue_state", tests, NULL, NULL);
}
