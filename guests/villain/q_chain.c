/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q_chain.c - Q01 to Q17 and Q25: chains of descriptors in the ring's own table.
 *
 * Each takes the aim's request, which lies in descriptors 0 to last, and deforms it.
 */
#include "villain.h"

#define FAR  (1ull << 40) /* beyond any RAM and any device */
#define HOLE 0xC0000000ull

/* The request in descriptors from 0 on; returns the last. */
static u16 request(struct scene *s)
{
	s->aim->request(s);
	return lay(s, 0);
}

static u16 flags_of(const struct raw_queue *q, u16 i)
{
	return q->desc_copy[i].flags;
}

/* ---- Q01-Q06: where a chain leads ---- */

static enum verdict q01_self_loop(struct scene *s)
{
	u16 last = request(s);

	relink(s->q, last, flags_of(s->q, last) | D_NEXT, last);
	raw_post(s->q, 0);
	return must_break(s);
}

/* Without descriptors that may not follow each other: a loop is the only thing wrong. */
static enum verdict q02_two_cycle(struct scene *s)
{
	u16 last = request(s), flags = flags_of(s->q, last);
	u16 more = (u16)(last + 1);

	raw_desc(s->q, more, s->seg[last].addr, s->seg[last].len, flags | D_NEXT, last);
	relink(s->q, last, flags | D_NEXT, more);
	raw_post(s->q, 0);
	return must_break(s);
}

/* A queue's worth of descriptors; arg is the size of the queue. */
static enum verdict q03_longest(struct scene *s)
{
	u64 features = s->aim->features | F_RINGS;

	if (s->arg != SIZE && !restart(s, (u16)s->arg, features))
		return FAIL;
	s->aim->request(s);
	if (!split(s, (unsigned)s->arg))
		return FAIL;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

/* All descriptors of the table and then the first again: one more than the queue's size. */
static enum verdict q04_one_more(struct scene *s)
{
	u16 last;

	s->aim->request(s);
	if (!split(s, SIZE))
		return FAIL;
	last = lay(s, 0);
	relink(s->q, last, flags_of(s->q, last) | D_NEXT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q05_next(struct scene *s)
{
	u16 last = request(s);

	relink(s->q, last, flags_of(s->q, last) | D_NEXT, (u16)s->arg);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q06_head(struct scene *s)
{
	request(s);
	raw_post(s->q, (u16)s->arg);
	return must_break(s);
}

/* ---- Q07-Q15: what a descriptor names ---- */

enum place { FIRST, MIDDLE, LAST };

/* Empty descriptors count for nothing. In front of a readable part they are readable. */
static enum verdict q07_empty(struct scene *s)
{
	u64 addr = s->arg & 4 ? 0 : (u64)give(16, 16);
	unsigned at;

	s->aim->request(s);
	at = (s->arg & 3) == FIRST ? 0 : (s->arg & 3) == LAST ? s->segs : 1;
	if (at == 1 && s->segs == 1)
		split(s, 2);
	insert(s, at, addr, 0, s->seg[at ? at - 1 : 0].flags);
	lay(s, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

/* Moves the first or last segment of the request to @addr, as it is or with @len bytes. */
static enum verdict q_bad_address(struct scene *s, enum place place, u64 addr, u32 len)
{
	struct seg *g;

	s->aim->request(s);
	g = &s->seg[place == FIRST ? 0 : s->segs - 1];
	g->addr = addr;
	if (len)
		g->len = len;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

static enum verdict q09_beyond(struct scene *s)
{
	return q_bad_address(s, (enum place)s->arg, ram_end() + (1 << 20), 0);
}

static enum verdict q09_far(struct scene *s)
{
	return q_bad_address(s, (enum place)s->arg, FAR, 0);
}

/* The last segment ends with RAM: fine. */
static enum verdict q10_at_end(struct scene *s)
{
	struct seg *g;
	void *at;

	s->aim->request(s);
	g = &s->seg[s->segs - 1];
	at = give_end(g->len);
	if (!(g->flags & D_WRITE))
		memcpy(at, (const void *)g->addr, g->len);
	if (s->status && g->addr == (u64)s->status)
		s->status = at;
	g->addr = (u64)at;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

static enum verdict q10_past_end(struct scene *s)
{
	return q_bad_address(s, LAST, ram_end() - 16, 17);
}

static enum verdict q11_wraps(struct scene *s)
{
	return q_bad_address(s, (enum place)s->arg, -16ull, 64);
}

/* From the end of low RAM into the hole where devices are; arg is the length. */
static enum verdict q12_hole(struct scene *s)
{
	if (ram_end() != HOLE)
		return skip("RAM does not reach to 3 GiB");
	return q_bad_address(s, LAST, HOLE - 4096, (u32)s->arg);
}

/* The device's own registers; arg is the offset. */
static enum verdict q13_registers(struct scene *s)
{
	return q_bad_address(s, LAST, s->dev.base_gpa + s->arg, 4);
}

/* The buffer is the ring itself. What comes of it is the driver's affair. */
static enum verdict q14_ring(struct scene *s)
{
	volatile void *part;
	struct seg *g;

	/* So large that each of its parts has room for the whole buffer. */
	if (!restart(s, QUEUE_MAX, s->aim->features | F_RINGS))
		return FAIL;
	part = s->arg == 0 ? s->q->desc : s->arg == 1 ? (volatile void *)s->q->avail : s->q->used;
	s->aim->request(s);
	g = &s->seg[s->segs > 1 ? 1 : 0];
	g->addr = (u64)part;
	if (g->len > 512)
		g->len = 512;
	if (g->flags & D_WRITE)
		raw_tamper(s->q);
	lay(s, 0);
	raw_post(s->q, 0);
	s->aim->provoke(s);
	/* A device that has overwritten its own ring may have nothing more to say. */
	return raw_wait(&s->dev, s->q, 50) == BROKEN ? broken(s) : PASS;
}

/* More than 4 GiB in one chain, of memory that is there. */
static enum verdict q15_sum(struct scene *s)
{
	const u32 big = (u32)(ram_end() - (2 << 20));

	if (!restart(s, QUEUE_MAX, s->aim->features | F_RINGS))
		return FAIL;
	s->aim->request(s);
	for (u64 sum = 0; sum <= UINT32_MAX; sum += big)
		insert(s, 1, 2 << 20, big, s->seg[s->segs > 1 ? 1 : 0].flags);
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

/* ---- Q16, Q17, Q25: what a descriptor says it is ---- */

static enum verdict q16_order(struct scene *s)
{
	static const u8 text[16] = "after the writes";

	s->aim->request(s);
	insert(s, s->segs, (u64)give(16, 16), 16, D_WRITE);
	insert(s, s->segs, (u64)show(text, sizeof(text)), sizeof(text), 0);
	lay(s, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* Everything the device is to read it may only write, and the other way round. */
static enum verdict q17_direction(struct scene *s)
{
	s->aim->request(s);
	for (unsigned i = 0; i < s->segs; i++) {
		bool writable = s->seg[i].flags & D_WRITE;

		if (s->segs > 1 && writable != (s->arg == D_WRITE))
			continue;
		s->seg[i].addr = (u64)give(s->seg[i].len, 8);
		s->seg[i].flags ^= D_WRITE;
	}
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

static enum verdict q25_all_flags(struct scene *s)
{
	request(s);
	relink(s->q, 0, 0xffff, 1);
	raw_post(s->q, 0);
	return must_break(s);
}

static enum verdict q25_reserved_flags(struct scene *s)
{
	u16 last = request(s);

	for (u16 i = 0; i <= last; i++)
		relink(s->q, i, flags_of(s->q, i) | 0xfff8, s->q->desc_copy[i].next);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

const struct act acts_chain[] = {
	{"Q01", ON_ALL, WILL_REJECT, q01_self_loop},
	{"Q02", ON_ALL, WILL_REJECT, q02_two_cycle},
	{"Q03", ON_ALL, WILL_PASS, q03_longest, SIZE},
	{"Q03.long", ON_BLK | ON_NET_RX | ON_VSOCK_RX, WILL_PASS, q03_longest, QUEUE_MAX},
	{"Q04", ON_ALL, WILL_REJECT, q04_one_more},
	{"Q05.size", ON_ALL, WILL_REJECT, q05_next, SIZE},
	{"Q05.max", ON_ALL, WILL_REJECT, q05_next, 0xffff},
	{"Q06.size", ON_ALL, WILL_REJECT, q06_head, SIZE},
	{"Q06.max", ON_ALL, WILL_REJECT, q06_head, 0xffff},
	{"Q07.first", ON_ALL, WILL_PASS, q07_empty, FIRST},
	{"Q07.middle", ON_ALL, WILL_PASS, q07_empty, MIDDLE},
	{"Q07.last", ON_ALL, WILL_PASS, q07_empty, LAST},
	{"Q08.first", ON_ALL, WILL_PASS, q07_empty, FIRST | 4},
	{"Q08.middle", ON_ALL, WILL_PASS, q07_empty, MIDDLE | 4},
	{"Q08.last", ON_ALL, WILL_PASS, q07_empty, LAST | 4},
	{"Q09.first", ON_ALL, WILL_PASS, q09_beyond, FIRST},
	{"Q09.last", ON_ALL, WILL_PASS, q09_beyond, LAST},
	{"Q09.far", ON_ALL, WILL_PASS, q09_far, LAST},
	{"Q10.end", ON_ALL, WILL_PASS, q10_at_end},
	{"Q10.past", ON_ALL, WILL_PASS, q10_past_end},
	{"Q11.first", ON_ALL, WILL_PASS, q11_wraps, FIRST},
	{"Q11.last", ON_ALL, WILL_PASS, q11_wraps, LAST},
	{"Q12.into", ON_ALL, WILL_PASS, q12_hole, 8192, "memory=4G"},
	{"Q12.over", ON_ALL, WILL_PASS, q12_hole, 0x40002000, "memory=4G"},
	{"Q13.notify", ON_ALL, WILL_PASS, q13_registers, REG_QUEUE_NOTIFY},
	{"Q13.config", ON_ALL, WILL_PASS, q13_registers, REG_CONFIG},
	{"Q14.desc", ON_ALL, MAY_REJECT, q14_ring, 0},
	{"Q14.avail", ON_ALL, MAY_REJECT, q14_ring, 1},
	{"Q14.used", ON_ALL, MAY_REJECT, q14_ring, 2},
	{"Q15", ON_ALL, WILL_PASS, q15_sum},
	{"Q16", ON_ALL, WILL_REJECT, q16_order},
	{"Q17.in", ON_ALL, WILL_PASS, q17_direction, 0},
	{"Q17.out", ON_BLK, WILL_PASS, q17_direction, D_WRITE},
	{"Q25.all", ON_ALL, WILL_REJECT, q25_all_flags},
	{"Q25.reserved", ON_ALL, WILL_PASS, q25_reserved_flags},
	{0},
};
