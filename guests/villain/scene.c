/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scene.c - a well-formed request that cases deform, and what may come of it.
 *
 * A device only shows how it takes nonsense if the nonsense gets as far as its parser, so each case
 * starts from a request that works and changes one thing. That a device "works" afterwards is a
 * good request too, with the answer checked. A queue's own order is the clock: once a good request
 * behind a bad one is answered, the bad one has been dealt with, and nobody has to guess how long
 * to wait.
 */
#include "villain.h"

bool restart(struct scene *s, u16 size, u64 features)
{
	if (!raw_reset(&s->dev))
		return false;
	guards_check(&s->dev);
	guards_reset(&s->dev);
	if (!raw_negotiate(&s->dev, features))
		return false;
	s->q = &s->dev.q[s->aim->queue];
	return s->aim->start(s, size);
}

bool start(struct scene *s)
{
	return restart(s, SIZE, s->aim->features | F_RINGS);
}

void count_queues(struct scene *s)
{
	for (s->queues = 0; s->queues < 64; s->queues++) {
		reg_set(&s->dev, REG_QUEUE_SEL, s->queues);
		if (!reg_get(&s->dev, REG_QUEUE_NUM_MAX))
			break;
	}
}

void insert(struct scene *s, unsigned at, u64 addr, u32 len, u16 flags)
{
	memmove(&s->seg[at + 1], &s->seg[at], (s->segs - at) * sizeof(s->seg[0]));
	s->seg[at] = (struct seg){addr, len, flags};
	s->segs++;
}

bool split(struct scene *s, unsigned count)
{
	while (s->segs < count) {
		unsigned big = 0;
		struct seg *g;
		u32 half;

		for (unsigned i = 1; i < s->segs; i++) {
			if (s->seg[i].len > s->seg[big].len)
				big = i;
		}
		g = &s->seg[big];
		half = g->len / 2;
		if (!half || s->segs == SEGS)
			return complain("the case cannot make %u pieces", count);
		insert(s, big + 1, g->addr + half, g->len - half, g->flags);
		g->len = half;
	}
	return true;
}

size_t gather(const struct scene *s, void *out, size_t cap)
{
	size_t done = 0;

	for (unsigned i = 0; i < s->segs && done < cap; i++) {
		const struct seg *g = &s->seg[i];
		size_t n = g->len < cap - done ? g->len : cap - done;

		if (!(g->flags & D_WRITE))
			continue;
		memcpy((u8 *)out + done, (const void *)g->addr, n);
		done += n;
	}
	return done;
}

bool tail_untouched(const struct scene *s, size_t len)
{
	size_t at = 0;

	for (unsigned i = 0; i < s->segs; i++) {
		const struct seg *g = &s->seg[i];

		for (u32 k = 0; (g->flags & D_WRITE) && k < g->len; k++, at++) {
			if (at >= len && *(volatile u8 *)(g->addr + k) != FILL)
				return complain("%lu bytes are used, but byte %lu was written", len,
					at);
		}
	}
	return true;
}

u16 lay(struct scene *s, u16 first)
{
	u16 i = first;

	for (unsigned k = 0; k < s->segs; k++, i++) {
		const struct seg *g = &s->seg[k];
		bool last = k + 1 == s->segs;

		raw_desc(s->q, i, g->addr, g->len, g->flags | (last ? 0 : D_NEXT),
			last ? 0 : (u16)(i + 1));
	}
	return (u16)(i - 1);
}

volatile struct virtq_desc *lay_table(struct scene *s, unsigned entries)
{
	static struct virtq_desc t[SEGS];

	memset(t, 0, sizeof(t));
	for (unsigned k = 0; k < s->segs; k++) {
		const struct seg *g = &s->seg[k];
		bool last = k + 1 == s->segs;

		t[k] = (struct virtq_desc){g->addr, g->len, g->flags | (last ? 0 : D_NEXT),
			last ? 0 : (u16)(k + 1)};
	}
	return show(t, entries * sizeof(t[0]));
}

void relink(struct raw_queue *q, u16 i, u16 flags, u16 next)
{
	struct virtq_desc d = q->desc_copy[i];

	raw_desc(q, i, d.addr, d.len, flags, next);
}

bool finish(struct scene *s, u16 head)
{
	u16 got;
	u32 len;

	switch (raw_wait(&s->dev, s->q, SOON)) {
	case NOTHING:
		return complain("head %u does not come back", head);
	case BROKEN:
		return complain("NEEDS_RESET instead of head %u", head);
	case USED:
		break;
	}
	raw_take(s->q, &got, &len);
	if (got != head)
		return complain("head %u came back, not %u", got, head);
	return s->aim->answered(s, len);
}

bool good(struct scene *s)
{
	u16 head = s->q->size - 8;

	s->aim->request(s);
	lay(s, head);
	raw_post(s->q, head);
	s->aim->provoke(s);
	return finish(s, head);
}

bool told_request(struct scene *s, u16 ahead, u16 flags, bool want)
{
	u16 head;
	u32 len;

	if (raw_take(s->q, &head, &len))
		return complain("a chain comes back that was not sent");
	s->aim->request(s);
	lay(s, 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		struct raw_queue *q = &s->dev.q[i];

		if (!q->size)
			continue;
		/* The other queues are not to tell us anything. */
		q->ahead = q == s->q ? ahead : (u16)-1;
		*raw_used_event(q) = (u16)(q->seen + q->ahead);
		q->avail->flags = q == s->q ? flags : 1;
	}
	reg_set(&s->dev, REG_INTERRUPT_ACK, INT_USED);
	raw_post(s->q, 0);
	raw_kick(&s->dev, s->q);
	for (u64 end = kit_cycles() + SOON * TICKS_MS; s->q->used->idx == s->q->seen;) {
		if (kit_cycles() > end)
			return complain("a request does not come back");
	}
	/* It may come a while after the used index: devices collect them. */
	if (raw_interrupted(&s->dev, INT_USED, want ? SOON : 1) != want)
		return complain("%s, used_event %u, used.idx %u, flags %u",
			want ? "no interrupt" : "an interrupt nobody wants",
			*raw_used_event(s->q), s->q->used->idx, flags);
	return finish(s, 0);
}

enum verdict broken(struct scene *s)
{
	struct raw_dev *d = &s->dev;
	u16 before[QUEUES];

	if (!raw_interrupted(d, INT_CONFIG, SOON))
		complain("NEEDS_RESET without a configuration interrupt");
	for (unsigned i = 0; i < QUEUES; i++) {
		if (!d->q[i].size)
			continue;
		raw_tamper(&d->q[i]);
		d->q[i].avail->idx++;
		before[i] = d->q[i].used->idx; /* after the line above: rings may overlap */
		raw_kick(d, &d->q[i]);
	}
	kit_wait(300000);
	if (!(reg_get(d, REG_STATUS) & S_BROKEN))
		complain("NEEDS_RESET went away by itself");
	for (unsigned i = 0; i < QUEUES; i++) {
		if (d->q[i].size && d->q[i].used->idx != before[i])
			complain("queue %u: used.idx moved after NEEDS_RESET", i);
	}
	return REJECT;
}

enum verdict must_break(struct scene *s)
{
	s->aim->provoke(s);
	switch (raw_wait(&s->dev, s->q, SOON)) {
	case BROKEN:
		return broken(s);
	case USED: /* it took something that has no meaning: not what we want, but it lives */
		return PASS;
	case NOTHING:
		break;
	}
	complain("the device neither returns a broken chain nor says NEEDS_RESET");
	return FAIL;
}

enum verdict must_refuse(struct scene *s, u16 head)
{
	u16 got;
	u32 len;

	s->aim->provoke(s);
	switch (raw_wait(&s->dev, s->q, SOON)) {
	case BROKEN:
		return broken(s);
	case NOTHING:
		complain("a bad chain never comes back");
		return FAIL;
	case USED:
		break;
	}
	raw_take(s->q, &got, &len);
	if (got != head)
		complain("head %u came back, not %u", got, head);
	if (s->aim->refused(s, len))
		good(s);
	return PASS;
}

enum verdict must_work(struct scene *s, u16 head)
{
	s->aim->provoke(s);
	if (raw_wait(&s->dev, s->q, SOON) == BROKEN)
		return broken(s);
	finish(s, head);
	return PASS;
}

/* How many chains of the deformed queue are with the device. */
static unsigned outstanding(const struct scene *s)
{
	unsigned sum = 0;

	for (u16 i = 0; i < s->q->size; i++)
		sum += s->q->out[i];
	return sum;
}

enum verdict may_break(struct scene *s)
{
	u64 end = kit_cycles() + SOON * TICKS_MS;
	unsigned waiting;
	enum event e;
	u16 head;
	u32 len;

	s->aim->provoke(s);
	do {
		/* What is sent must come back; receive buffers need not. */
		bool due = s->aim->bit & ON_TX && outstanding(s);

		e = raw_wait(&s->dev, s->q, due ? SOON : 30);
		if (e == USED)
			raw_take(s->q, &head, &len);
	} while (e == USED && kit_cycles() < end);
	if (e == BROKEN)
		return broken(s);
	if (e == USED) {
		complain("the device returns chains for ever");
		return FAIL;
	}
	waiting = outstanding(s);
	if (!waiting) {
		good(s);
	} else if (s->aim->bit & ON_TX) {
		complain("%u chains did not come back", waiting);
	} else { /* buffers that nothing was received into yet */
		s->aim->provoke(s);
		e = raw_wait(&s->dev, s->q, SOON);
		if (e == BROKEN)
			return broken(s);
		if (e == NOTHING)
			complain("nothing is received any more");
	}
	return PASS;
}
