/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q_place.c - Q38 to Q40: rings where rings cannot be, or where others are.
 */
#include "villain.h"

enum part { DESC, AVAIL, USED_RING };

/* Negotiates and lays out the rings of the deformed queue, but tells the device nothing. */
static struct raw_queue *begin(struct scene *s)
{
	if (!raw_negotiate(&s->dev, s->aim->features | F_RINGS))
		return NULL;
	return raw_rings(&s->dev, s->aim->queue, SIZE);
}

/* Tells the device about @q with one part at @at instead, and expects that it says no. */
static enum verdict refuse_at(struct scene *s, const struct raw_queue *q, enum part part, u64 at)
{
	static const u32 regs[] = {REG_QUEUE_DESC, REG_QUEUE_AVAIL, REG_QUEUE_USED};
	struct raw_dev *d = &s->dev;
	u32 status;

	reg_set(d, REG_QUEUE_SEL, q->index);
	reg_set(d, REG_QUEUE_NUM, q->size);
	reg_set64(d, REG_QUEUE_DESC, (u64)q->desc);
	reg_set64(d, REG_QUEUE_AVAIL, (u64)q->avail);
	reg_set64(d, REG_QUEUE_USED, (u64)q->used);
	reg_set64(d, regs[part], at);
	reg_set(d, REG_QUEUE_READY, 1);
	raw_go(d);
	status = reg_get(d, REG_STATUS);
	raw_kick(d, q);
	kit_wait(300000);
	if (q->used->idx)
		complain("used.idx moved in a ring that was not offered");
	return status & (S_BROKEN | S_FAILED) || !reg_get(d, REG_QUEUE_READY) ? REJECT : PASS;
}

/* arg: the part, and by how much it is off. */
static enum verdict q39_misaligned(struct scene *s)
{
	struct raw_queue *q = begin(s);
	enum part part = s->arg >> 8;
	u64 at;

	if (!q)
		return FAIL;
	at = part == DESC ? (u64)q->desc : part == AVAIL ? (u64)q->avail : (u64)q->used;
	return refuse_at(s, q, part, at + (s->arg & 0xff));
}

static enum verdict place_all(struct scene *s, u64 at)
{
	enum verdict v = PASS;

	for (enum part part = DESC; part <= USED_RING; part++) {
		struct raw_queue *q = begin(s);

		if (!q)
			return FAIL;
		v = refuse_at(s, q, part, at);
		if (v != REJECT)
			return v;
	}
	return v;
}

/* All but the last 16 bytes of each part would be in RAM. */
static enum verdict q40_past_end(struct scene *s)
{
	return place_all(s, ram_end() - VIRTQ_AVAIL_BYTES(SIZE) + 16);
}

static enum verdict q40_at(struct scene *s)
{
	return place_all(s, s->arg);
}

static enum verdict q40_registers(struct scene *s)
{
	return place_all(s, s->dev.base_gpa);
}

/* ---- Q38: rings on top of each other ---- */

/* All queues of the device on the same rings. */
static enum verdict q38_shared(struct scene *s)
{
	struct raw_dev *d = &s->dev;
	struct raw_queue *q = begin(s);

	if (!q)
		return FAIL;
	for (u16 i = 0; i < s->queues; i++) {
		struct raw_queue alias = *q;

		alias.index = i;
		raw_ready(d, &alias);
	}
	raw_go(d);
	raw_tamper(q);
	s->aim->request(s);
	lay(s, 0);
	q->posted = 0;
	raw_post(q, 0);
	for (u16 i = 0; i < s->queues; i++)
		reg_set(d, REG_QUEUE_NOTIFY, i);
	return raw_wait(d, q, 50) == BROKEN ? broken(s) : PASS;
}

/* The three parts of one queue in the same place. */
static enum verdict q38_parts(struct scene *s)
{
	struct raw_dev *d = &s->dev;
	struct raw_queue *q = begin(s);
	volatile u16 *word;

	if (!q)
		return FAIL;
	q->avail = (volatile struct raw_avail *)q->desc;
	q->used = (volatile struct raw_used *)q->desc;
	raw_tamper(q);
	raw_ready(d, q);
	raw_go(d);
	word = (volatile u16 *)q->desc;
	for (unsigned i = 0; i < 200; i++) {
		word[1] = (u16)(word[1] + i % 3);
		word[2 + i % SIZE] = (u16)(i % SIZE);
		raw_kick(d, q);
		if (reg_get(d, REG_STATUS) & S_BROKEN)
			return broken(s);
	}
	return PASS;
}

const struct act acts_place[] = {
	{"Q38.shared", ON_ALL, MAY_REJECT, q38_shared},
	{"Q38.parts", ON_ALL, MAY_REJECT, q38_parts},
	{"Q39.desc", ON_TX, WILL_REJECT, q39_misaligned, DESC << 8 | 8},
	{"Q39.avail", ON_TX, WILL_REJECT, q39_misaligned, AVAIL << 8 | 1},
	{"Q39.used", ON_TX, WILL_REJECT, q39_misaligned, USED_RING << 8 | 2},
	{"Q40.past", ON_TX, WILL_REJECT, q40_past_end},
	{"Q40.hole", ON_TX, WILL_REJECT, q40_at, 0xD0000000},
	{"Q40.registers", ON_TX, WILL_REJECT, q40_registers},
	{"Q40.high", ON_TX, WILL_REJECT, q40_at, 0xffffffff00200000},
	{"Q40.top", ON_TX, WILL_REJECT, q40_at, 0xfffffffffffffff0},
	{0},
};
