/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_race.c - T16, and Q36 in earnest: two processors at the same registers and the same rings.
 *
 * Whatever two drivers do to each other is their affair; the device may end in any state that a
 * reset gets it out of.
 */
#include "second.h"
#include "kit/measure.h"

static volatile bool stop;

/* Any register that a driver writes, with values that mean something to it now and then. */
static void scribble(const struct raw_dev *d, u64 *random)
{
	static const u16 at[] = {REG_QUEUE_SEL, REG_QUEUE_NUM, REG_QUEUE_READY, REG_QUEUE_DESC,
		REG_QUEUE_DESC + 4, REG_QUEUE_AVAIL, REG_QUEUE_USED, REG_DRIVER_FEATURES,
		REG_DRIVER_FEATURES_SEL, REG_STATUS, REG_QUEUE_NOTIFY, REG_INTERRUPT_ACK};
	static const u32 values[] = {0, 1, 2, 3, 0xb, 0xf, SIZE, QUEUE_MAX, 0x10000, 0x200000,
		0x8f, 0xffffffff};

	reg_set(d, at[random_below(random, sizeof(at) / sizeof(at[0]))],
		values[random_below(random, sizeof(values) / sizeof(values[0]))]);
	reg_get(d, REG_STATUS);
}

static void scribbler(void *arg)
{
	u64 random = 1;

	while (!stop)
		scribble(arg, &random);
}

/* Waits for the second processor to be out of the way. */
static void join(void)
{
	stop = true;
	while (!second_done())
		kit_pause();
}

static enum verdict t16_registers(struct scene *s)
{
	u64 end = kit_cycles() + 100 * TICKS_MS, random = 2;

	if (!second_start(scribbler, &s->dev))
		return skip("no second processor starts here");
	while (kit_cycles() < end)
		scribble(&s->dev, &random);
	join();
	/* It may be anywhere, with rings anywhere: what it wrote there was ours to lose. */
	raw_reset(&s->dev);
	guards_reset(&s->dev);
	return PASS;
}

/* Resets, over and over, while the other processor negotiates, sets up queues and kicks. */
static void resetter(void *arg)
{
	const struct raw_dev *d = arg;

	while (!stop) {
		reg_set(d, REG_STATUS, 0);
		for (u64 end = kit_cycles() + TICKS_MS / 5; kit_cycles() < end && !stop;)
			kit_pause();
	}
}

static enum verdict t16_resets(struct scene *s)
{
	if (!second_start(resetter, &s->dev))
		return skip("no second processor starts here");
	for (unsigned i = 0; i < 40; i++) {
		/* Complaints are of no use here: every step may find the device reset. */
		raw_try(&s->dev, s->aim->features | F_RINGS);
		guards_reset(&s->dev);
		s->q = &s->dev.q[s->aim->queue];
		s->aim->start(s, SIZE);
		s->aim->request(s);
		lay(s, 0);
		raw_post(s->q, 0);
		raw_kick(&s->dev, s->q);
		raw_wait(&s->dev, s->q, 1);
	}
	join();
	raw_reset(&s->dev);
	guards_reset(&s->dev);
	return PASS;
}

/* What the second processor changes while the device may be reading it. */
static struct mutation {
	volatile struct virtq_desc *desc;
	struct virtq_desc good;
	volatile u8 *header; /* of the request, if it has one to read */
	u32 header_len;
} mutation;

static void mutator(void *arg)
{
	struct mutation *m = arg;
	u64 random = 3;

	while (!stop) {
		u64 r = random_next(&random);

		switch (r >> 8 & 7) {
		case 0: m->desc->len = (u32)(r >> 32); break;
		case 1: m->desc->addr = r; break;
		case 2: m->desc->addr = ram_end() - (r >> 32 & 0xff); break;
		case 3: m->desc->flags = (u16)(r >> 16); break;
		case 4: m->desc->next = (u16)(r >> 16); break;
		case 5:
			if (m->header)
				m->header[(r >> 16) % m->header_len] = (u8)r;
			break;
		default:
			m->desc->addr = m->good.addr;
			m->desc->len = m->good.len;
			m->desc->flags = m->good.flags;
			m->desc->next = m->good.next;
		}
	}
}

/* A chain that is never twice the same, a few hundred times; each time in bounded time. */
static enum verdict q36_two(struct scene *s)
{
	bool first = true;
	u16 head;
	u32 len;

	for (unsigned i = 0; i < 100; i++) {
		s->aim->request(s);
		lay(s, 0);
		raw_tamper(s->q);
		mutation.desc = &s->q->desc[s->segs - 1];
		mutation.good = s->q->desc_copy[s->segs - 1];
		mutation.header = NULL;
		if (!(s->seg[0].flags & D_WRITE)) {
			show_no_more((void *)s->seg[0].addr);
			mutation.header_len = s->seg[0].len;
			mutation.header = (volatile u8 *)s->seg[0].addr;
		}
		if (first && !second_start(mutator, &mutation))
			return skip("no second processor starts here");
		first = false;
		raw_post(s->q, 0);
		s->aim->provoke(s);
		if (raw_wait(&s->dev, s->q, 5) == USED)
			raw_take(s->q, &head, &len);
		/* A chain that the device keeps, or that broke it: once more from the start. */
		raw_reset(&s->dev);
		guards_reset(&s->dev);
		raw_try(&s->dev, s->aim->features | F_RINGS);
		s->q = &s->dev.q[s->aim->queue];
		s->aim->start(s, SIZE);
	}
	join();
	raw_reset(&s->dev);
	guards_reset(&s->dev);
	return PASS;
}

const struct act acts_race[] = {
	{"T16", ON_TX, WILL_PASS, t16_registers, 0, "cpus=2"},
	{"T16.resets", ON_ALL, WILL_PASS, t16_resets, 0, "cpus=2"},
	{"Q36.two", ON_ALL, WILL_PASS, q36_two, 0, "cpus=2"},
	{0},
};
