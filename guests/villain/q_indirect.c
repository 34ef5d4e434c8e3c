/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q_indirect.c - Q18 to Q24: chains in indirect tables.
 *
 * Descriptor 0 of the ring names a table that holds the aim's request; cases deform one or the
 * other. Tables are shown to the device, so one that writes into them is found out.
 */
#include "villain.h"

/* The request in a table of its own; descriptor 0 points there. */
static volatile struct virtq_desc *request(struct scene *s)
{
	volatile struct virtq_desc *t;

	s->aim->request(s);
	t = lay_table(s, s->segs);
	raw_desc(s->q, 0, (u64)t, s->segs * 16, D_INDIRECT, 0);
	return t;
}

/* What all others deform, as it should be. */
static enum verdict q18_control(struct scene *s)
{
	request(s);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

static enum verdict q18_not_agreed(struct scene *s)
{
	if (!restart(s, SIZE, s->aim->features | F_EVENT_IDX | F_VERSION_1))
		return FAIL;
	request(s);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q19_indirect_and_next(struct scene *s)
{
	request(s);
	raw_desc(s->q, 1, (u64)give(16, 16), 16, D_WRITE, 0);
	relink(s->q, 0, D_INDIRECT | D_NEXT, 1);
	raw_post(s->q, 0);
	return must_break(s);
}

/* The table's last entry names another table. */
static enum verdict q20_nested(struct scene *s)
{
	volatile struct virtq_desc *inner = request(s), *outer;
	struct virtq_desc d = {(u64)inner, s->segs * 16, D_INDIRECT, 0};

	outer = show(&d, sizeof(d));
	raw_desc(s->q, 0, (u64)outer, sizeof(d), D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* The length of the table; arg is the length. */
static enum verdict q21_length(struct scene *s)
{
	volatile struct virtq_desc *t = request(s);

	raw_desc(s->q, 0, (u64)t, (u32)s->arg, D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* arg entries, all of them used. */
static enum verdict q21_entries(struct scene *s)
{
	u64 features = s->aim->features | F_RINGS;
	volatile struct virtq_desc *t;

	if (!restart(s, QUEUE_MAX, features))
		return FAIL;
	s->aim->request(s);
	while (s->segs < s->arg) {
		const struct seg *g = &s->seg[s->segs - 1];

		insert(s, s->segs, g->flags & D_WRITE ? (u64)give(8, 8) : g->addr, 8, g->flags);
	}
	t = lay_table(s, s->segs);
	raw_desc(s->q, 0, (u64)t, s->segs * 16, D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* The table begins arg bytes before the end of RAM and goes on behind it. */
static enum verdict q22_straddles(struct scene *s)
{
	request(s);
	give_end(32);
	memset((void *)(ram_end() - 32), 0, 32);
	raw_desc(s->q, 0, ram_end() - s->arg, 48, D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q23_loop(struct scene *s)
{
	volatile struct virtq_desc *t = request(s);
	u16 last = (u16)(s->segs - 1);

	t[last].flags |= D_NEXT;
	t[last].next = last;
	show_again((void *)t);
	raw_post(s->q, 0);
	return must_break(s);
}

/* An entry leads out of its table. */
static enum verdict q23_leaves(struct scene *s)
{
	volatile struct virtq_desc *t = request(s);
	u16 last = (u16)(s->segs - 1);

	t[last].flags |= D_NEXT;
	t[last].next = (u16)(last + 1);
	show_again((void *)t);
	raw_post(s->q, 0);
	return must_break(s);
}

/* A plain descriptor that leads to an indirect one is fine; what that leads to is not. */
static enum verdict q24_two_tables(struct scene *s)
{
	volatile struct virtq_desc *t = request(s);

	raw_desc(s->q, 1, (u64)t, s->segs * 16, D_INDIRECT, 0);
	relink(s->q, 0, D_INDIRECT | D_NEXT, 1);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q24_after_plain(struct scene *s)
{
	volatile struct virtq_desc *t;

	s->aim->request(s);
	if (s->segs == 1)
		split(s, 2);
	t = lay_table(s, s->segs);
	raw_desc(s->q, 0, s->seg[0].addr, s->seg[0].len, s->seg[0].flags | D_NEXT, 1);
	raw_desc(s->q, 1, (u64)(t + 1), (s->segs - 1) * 16, D_INDIRECT, 0);
	for (unsigned i = 1; i + 1 < s->segs; i++)
		t[i].next--;
	show_again((void *)t);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

const struct act acts_indirect[] = {
	{"Q18.agreed", ON_ALL, WILL_PASS, q18_control},
	{"Q18", ON_ALL, WILL_REJECT, q18_not_agreed},
	{"Q19", ON_ALL, WILL_REJECT, q19_indirect_and_next},
	{"Q20", ON_ALL, WILL_REJECT, q20_nested},
	{"Q21.0", ON_ALL, WILL_REJECT, q21_length, 0},
	{"Q21.8", ON_ALL, WILL_REJECT, q21_length, 8},
	{"Q21.24", ON_ALL, WILL_REJECT, q21_length, 24},
	{"Q21.more", ON_ALL, WILL_REJECT, q21_entries, QUEUE_MAX + 1},
	{"Q21.huge", ON_ALL, WILL_REJECT, q21_length, 0xfffffff0},
	{"Q22.1", ON_ALL, WILL_REJECT, q22_straddles, 16},
	{"Q22.part", ON_ALL, WILL_REJECT, q22_straddles, 8},
	{"Q22.beyond", ON_ALL, WILL_REJECT, q22_straddles, 0},
	{"Q23.loop", ON_ALL, WILL_REJECT, q23_loop},
	{"Q23.leaves", ON_ALL, WILL_REJECT, q23_leaves},
	{"Q24", ON_ALL, WILL_REJECT, q24_two_tables},
	{"Q24.plain", ON_ALL, WILL_PASS, q24_after_plain},
	{0},
};
