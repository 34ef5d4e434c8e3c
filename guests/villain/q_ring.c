/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q_ring.c - Q26 to Q36: what the rings say, when it changes, and who is told.
 */
#include "villain.h"

/* A good request in descriptors from 0 on. */
static void lay_good(struct scene *s)
{
	s->aim->request(s);
	lay(s, 0);
}

/* ---- Q26-Q29: avail.idx ---- */

/* Announces arg more entries than were written. */
static enum verdict q26_jump(struct scene *s)
{
	lay_good(s);
	raw_tamper(s->q);
	raw_post(s->q, 0);
	s->q->avail->idx = (u16)(s->q->posted + s->arg);
	return must_break(s);
}

static enum verdict q27_backwards(struct scene *s)
{
	if (!good(s))
		return FAIL;
	raw_tamper(s->q);
	s->q->avail->idx--;
	return must_break(s);
}

/* Once around the 16-bit indices. */
static enum verdict q28_wrap(struct scene *s)
{
	const u16 batch = QUEUE_MAX / 2;
	u16 head;
	u32 len;

	if (!restart(s, QUEUE_MAX, s->aim->features | F_RINGS))
		return FAIL;
	s->aim->quick(s);
	for (u16 i = 0; i < batch; i++)
		lay(s, i * 2);
	for (u32 total = 0; total < 65536 + 2 * batch; total += batch) {
		for (u16 i = 0; i < batch; i++)
			raw_post(s->q, i * 2);
		*raw_used_event(s->q) = (u16)(s->q->posted - 1); /* one interrupt a batch */
		raw_kick(&s->dev, s->q);
		for (u16 i = 0; i < batch;) {
			if (raw_wait(&s->dev, s->q, SOON) != USED) {
				complain("stuck after %u of 65536 requests", total + i);
				return FAIL;
			}
			for (; raw_take(s->q, &head, &len); i++)
				*raw_used_event(s->q) = (u16)(s->q->posted - 1);
		}
	}
	good(s);
	return PASS;
}

/* Adds a chain for each one that comes back, without pause: one turn of the device must end, and
 * what was added must not be forgotten. */
static enum verdict q29_never_empty(struct scene *s)
{
	u64 end = kit_cycles() + 30 * TICKS_MS;
	u16 head;
	u32 len;

	s->aim->quick(s);
	for (u16 i = 0; i < SIZE / 2; i++) {
		lay(s, i * 2);
		raw_post(s->q, i * 2);
	}
	raw_kick(&s->dev, s->q);
	while (kit_cycles() < end) {
		if (raw_take(s->q, &head, &len)) {
			raw_post(s->q, head % SIZE);
			raw_kick(&s->dev, s->q);
		}
	}
	return may_break(s);
}

/* ---- Q30-Q32: heads ---- */

/* The same head twice, in one batch (arg 0) or one after the other without waiting. */
static enum verdict q30_twice(struct scene *s)
{
	lay_good(s);
	raw_post(s->q, 0);
	if (s->arg)
		s->aim->provoke(s);
	raw_post(s->q, 0);
	return may_break(s);
}

static enum verdict q31_all_the_same(struct scene *s)
{
	lay_good(s);
	for (u16 i = 0; i < SIZE; i++)
		raw_post(s->q, 0);
	return may_break(s);
}

/* Nothing we write into the used ring may matter to the device. */
static enum verdict q32_used_overwritten(struct scene *s)
{
	volatile struct raw_used *u = s->q->used;
	u64 end = kit_cycles() + SOON * TICKS_MS;

	if (!good(s) || !good(s))
		return FAIL;
	lay_good(s);
	for (u16 i = 0; i < SIZE; i++) {
		u->ring[i].id = 0xffffffff;
		u->ring[i].len = 0xffffffff;
	}
	u->flags = 0xffff;
	u->idx = 0x1234;
	raw_post(s->q, 0);
	s->aim->provoke(s);
	while (u->idx == 0x1234 && kit_cycles() < end)
		kit_wait(200000);
	if (u->idx != 3)
		complain("used.idx is %x, not the device's own count", u->idx);
	else
		finish(s, 0);
	return PASS;
}

/* ---- Q33: interrupts ---- */

/* used_event where the device stands, behind it and far ahead, over some indices. */
static enum verdict q33_used_event(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++) {
		static const u16 ahead[] = {0, (u16)-1, 1, 0x7fff, 0x8000};

		if (!told_request(s, ahead[i % 5], 0, !ahead[i % 5]))
			return FAIL;
	}
	return PASS;
}

static enum verdict q33_no_interrupt(struct scene *s)
{
	if (!restart(s, SIZE, s->aim->features | F_INDIRECT | F_VERSION_1))
		return FAIL;
	for (unsigned i = 0; i < 20; i++) {
		if (!told_request(s, 0, i % 2, !(i % 2)))
			return FAIL;
	}
	return PASS;
}

/* Sleeps until the interrupt comes, many times: one that is lost costs two seconds. */
static enum verdict q33_sleep(struct scene *s)
{
	if (!kit_identity())
		return skip("nobody wakes us by interrupts here");
	for (unsigned i = 0; i < 100; i++) {
		u64 begin = kit_cycles();

		s->aim->request(s);
		lay(s, 0);
		raw_post(s->q, 0);
		s->aim->provoke(s);
		while (s->q->used->idx == s->q->seen)
			kit_wait(2000000000);
		if (kit_cycles() - begin > 1000 * TICKS_MS)
			complain("an interrupt was lost");
		if (!finish(s, 0))
			return FAIL;
	}
	return PASS;
}

/* Kicks only where the device asks for one: a wish that comes too late is a request that hangs.
 * The pauses in between find it awake, falling asleep and asleep. */
static enum verdict q33_polite(struct scene *s)
{
	u64 features = s->aim->features | F_RINGS;

	if (s->arg && !restart(s, SIZE, features & ~F_EVENT_IDX))
		return FAIL;
	for (unsigned i = 0; i < 300; i++) {
		u16 before = s->q->posted;

		s->aim->request(s);
		lay(s, 0);
		raw_post(s->q, 0);
		raw_kick_politely(&s->dev, s->q, before);
		if (!finish(s, 0))
			return FAIL;
		for (u64 end = kit_cycles() + i % 25 * TICKS_MS / 100; kit_cycles() < end;)
			;
	}
	return PASS;
}

/* ---- Q34, Q35: kicks ---- */

static enum verdict q34_storm(struct scene *s)
{
	for (unsigned i = 0; i < 5000; i++)
		reg_set(&s->dev, REG_QUEUE_NOTIFY, i % s->queues);
	good(s);
	return PASS;
}

static enum verdict q35_no_such_queue(struct scene *s)
{
	const u32 values[] = {s->queues, 8, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
		0xffffffff, s->aim->queue | 0x10000, s->aim->queue | 0x80000000};

	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		reg_set(&s->dev, REG_QUEUE_NOTIFY, values[i]);
		if (reg_get(&s->dev, REG_STATUS) != S_ALL_OK)
			complain("notifying queue %x changes the status", values[i]);
	}
	good(s);
	return PASS;
}

/* ---- Q36: memory that changes while it is looked at ---- */

/* One of two descriptors, both good, by turns as fast as can be. */
static enum verdict q36_mutated(struct scene *s)
{
	volatile struct virtq_desc *d;
	unsigned last;
	u64 other;
	u16 head;
	u32 len;

	s->aim->request(s);
	last = s->segs - 1;
	lay(s, 0);
	raw_tamper(s->q);
	d = &s->q->desc[last];
	other = (u64)give(s->seg[last].len, 8);
	for (unsigned n = 0; n < 200; n++) {
		raw_post(s->q, 0);
		s->aim->provoke(s);
		for (unsigned i = 0; i < 3000 && s->q->used->idx == s->q->seen; i++) {
			d->addr = other;
			d->flags ^= 8; /* reserved */
			d->addr = s->seg[last].addr;
		}
		switch (raw_wait(&s->dev, s->q, SOON)) {
		case BROKEN:
			return broken(s);
		case NOTHING:
			complain("a request does not come back");
			return FAIL;
		case USED:
			raw_take(s->q, &head, &len);
		}
		if (head)
			complain("head %u comes back", head);
		if (complained())
			return FAIL;
	}
	return PASS;
}

const struct act acts_ring[] = {
	{"Q26.1", ON_ALL, WILL_REJECT, q26_jump, SIZE},
	{"Q26.half", ON_ALL, WILL_REJECT, q26_jump, 0x8000},
	{"Q27", ON_ALL, WILL_REJECT, q27_backwards},
	{"Q28", ON_TX, WILL_PASS, q28_wrap},
	{"Q29", ON_TX, WILL_PASS, q29_never_empty},
	{"Q30.batch", ON_ALL, MAY_REJECT, q30_twice, 0},
	{"Q30.flight", ON_ALL, MAY_REJECT, q30_twice, 1},
	{"Q31", ON_ALL, MAY_REJECT, q31_all_the_same},
	{"Q32", ON_ALL, WILL_PASS, q32_used_overwritten},
	{"Q33.event", ON_TX, WILL_PASS, q33_used_event},
	{"Q33.flags", ON_TX, WILL_PASS, q33_no_interrupt},
	{"Q33.sleep", ON_ALL, WILL_PASS, q33_sleep},
	{"Q33.kick", ON_TX, WILL_PASS, q33_polite, 0},
	{"Q33.kickflag", ON_TX, WILL_PASS, q33_polite, 1},
	{"Q34", ON_ALL, WILL_PASS, q34_storm},
	{"Q35", ON_TX, WILL_PASS, q35_no_such_queue},
	{"Q36", ON_ALL, MAY_REJECT, q36_mutated},
	{0},
};
