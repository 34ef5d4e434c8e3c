/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_life.c - T09 to T11 and T15: the status, features, and resets.
 */
#include "villain.h"

/* ---- T09: the status ---- */

#define S0 0
#define S1 S_ACK
#define S2 (S_ACK | S_DRIVER)
#define S3 (S_ACK | S_DRIVER | S_FEATURES_OK)

/* Where the driver may go, besides 0 and FAILED: one bit at a time, in order. */
static u32 next_status(u32 from)
{
	switch (from) {
	case S0: return S1;
	case S1: return S2;
	case S2: return S3;
	case S3: return S_ALL_OK;
	}
	return from;
}

/* To the status @to by the legal steps. */
static bool walk_to(struct scene *s, u32 to)
{
	u32 at = 0;

	if (!raw_reset(&s->dev))
		return false;
	for (; at != (to & ~(u32)S_FAILED); at = next_status(at))
		reg_set(&s->dev, REG_STATUS, next_status(at));
	if (to & S_FAILED)
		reg_set(&s->dev, REG_STATUS, to);
	return reg_get(&s->dev, REG_STATUS) == to ? true : complain("status %x cannot be reached",
		to);
}

/* Writes every value there is in the state arg: what is no step must change nothing. */
static enum verdict t09_matrix(struct scene *s)
{
	const u32 from = (u32)s->arg;

	if (!walk_to(s, from))
		return FAIL;
	for (u32 v = 1; v < 256; v++) {
		bool step = v == from ||
			    (!(from & S_FAILED) &&
				    (v == next_status(from) || v == (from | S_FAILED)));
		u32 got;

		reg_set(&s->dev, REG_STATUS, v);
		got = reg_get(&s->dev, REG_STATUS);
		if (got != (step ? v : from))
			complain("from status %x, writing %x gives %x", from, v, got);
		if (complained() || (got != from && !walk_to(s, from)))
			return FAIL;
	}
	/* Bits that a byte does not hold. */
	for (u32 v = 0x100; v; v <<= 1) {
		reg_set(&s->dev, REG_STATUS, v | from);
		if (reg_get(&s->dev, REG_STATUS) != from)
			complain("from status %x, writing %x counts", from, v | from);
	}
	return PASS;
}

/* FAILED by the driver: the rings are left alone until a reset. */
static enum verdict t09_failed(struct scene *s)
{
	if (!good(s))
		return FAIL;
	reg_set(&s->dev, REG_STATUS, S_ALL_OK | S_FAILED);
	s->aim->request(s);
	lay(s, 0);
	raw_post(s->q, 0);
	s->aim->provoke(s);
	kit_wait(300000);
	if (s->q->used->idx != s->q->seen)
		complain("a device with FAILED takes requests");
	return PASS;
}

/* ---- T10, T11: features ---- */

static void write_features(const struct raw_dev *d, u64 features)
{
	reg_set(d, REG_DRIVER_FEATURES_SEL, 0);
	reg_set(d, REG_DRIVER_FEATURES, (u32)features);
	reg_set(d, REG_DRIVER_FEATURES_SEL, 1);
	reg_set(d, REG_DRIVER_FEATURES, (u32)(features >> 32));
}

static enum verdict t10_not_offered(struct scene *s)
{
	const u64 offered = s->dev.offered;
	struct raw_dev *d = &s->dev;

	for (unsigned bit = 0; bit < 64; bit++) {
		if (offered >> bit & 1)
			continue;
		reg_set(d, REG_STATUS, 0);
		reg_set(d, REG_STATUS, S1);
		reg_set(d, REG_STATUS, S2);
		write_features(d, F_VERSION_1 | 1ull << bit);
		reg_set(d, REG_STATUS, S3);
		if (reg_get(d, REG_STATUS) & S_FEATURES_OK)
			complain("feature %u is not offered, and accepted", bit);
		/* A second, better try is the driver's right. */
		write_features(d, F_VERSION_1);
		reg_set(d, REG_STATUS, S3);
		if (reg_get(d, REG_STATUS) != S3)
			complain("after feature %u nothing is accepted", bit);
		if (complained())
			return FAIL;
	}
	return PASS;
}

/* After FEATURES_OK they are what they are: here without INDIRECT, so a table is an error. */
static enum verdict t11_frozen(struct scene *s)
{
	volatile struct virtq_desc *t;

	if (!restart(s, SIZE, s->aim->features | F_EVENT_IDX | F_VERSION_1))
		return FAIL;
	write_features(&s->dev, s->dev.offered);
	write_features(&s->dev, ~0ull);
	s->aim->request(s);
	t = lay_table(s, s->segs);
	raw_desc(s->q, 0, (u64)t, s->segs * 16, D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* And they do not go away either. */
static enum verdict t11_kept(struct scene *s)
{
	volatile struct virtq_desc *t;

	write_features(&s->dev, 0);
	s->aim->request(s);
	t = lay_table(s, s->segs);
	raw_desc(s->q, 0, (u64)t, s->segs * 16, D_INDIRECT, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

/* ---- T15: resets ---- */

/* From every step of a negotiation. */
static enum verdict t15_negotiating(struct scene *s)
{
	static const u32 from[] = {S0, S1, S2, S3, S_ALL_OK, S_FAILED, S3 | S_FAILED};

	for (unsigned i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		if (!walk_to(s, from[i]) || !start(s) || !good(s))
			return FAIL;
	}
	/* Queues ready, DRIVER_OK never came. */
	if (!raw_negotiate(&s->dev, s->aim->features | F_RINGS))
		return FAIL;
	for (u16 i = 0; i < s->queues && i < QUEUES; i++)
		raw_ready(&s->dev, raw_rings(&s->dev, i, SIZE));
	if (!raw_reset(&s->dev) || !raw_reset(&s->dev) || !start(s))
		return FAIL;
	good(s);
	return PASS;
}

static enum verdict t15_cycles(struct scene *s)
{
	for (unsigned i = 0; i < 1000; i++) {
		reg_set(&s->dev, REG_STATUS, 0);
		reg_set(&s->dev, REG_STATUS, S1);
	}
	for (unsigned i = 0; i < 40; i++) {
		if (!start(s) || !good(s))
			return FAIL;
		raw_kick(&s->dev, s->q);
	}
	return PASS;
}

#define POISON 0x77

static void poison(volatile void *mem, size_t len)
{
	memset((void *)mem, POISON, len);
}

static void check_poison(const volatile void *mem, size_t len, const char *what)
{
	for (size_t i = 0; i < len; i++) {
		if (((const volatile u8 *)mem)[i] != POISON) {
			complain("%s was written after a reset", what);
			return;
		}
	}
}

/* Many requests are offered, the device is reset at once or after arg microseconds, and from then
 * on everything it knew belongs to us alone. */
static enum verdict t15_in_flight(struct scene *s)
{
	struct raw_queue q;
	struct seg mem[SIZE];
	unsigned n = 0;

	for (u16 at = 0; at + 4 < SIZE; at += 4) {
		s->aim->request(s);
		lay(s, at);
		raw_post(s->q, at);
		for (unsigned i = 0; i < s->segs; i++) {
			if (s->seg[i].flags & D_WRITE && n < SIZE)
				mem[n++] = s->seg[i];
		}
	}
	raw_tamper(s->q);
	q = *s->q;
	s->aim->provoke(s);
	for (u64 end = kit_cycles() + s->arg * TICKS_MS / 1000; kit_cycles() < end;)
		;
	if (!raw_reset(&s->dev))
		return WEDGED;
	poison(q.desc, VIRTQ_DESC_BYTES(SIZE));
	poison(q.avail, VIRTQ_AVAIL_BYTES(SIZE));
	poison(q.used, VIRTQ_USED_BYTES(SIZE));
	for (unsigned i = 0; i < n; i++)
		poison((void *)mem[i].addr, mem[i].len);
	for (u16 i = 0; i < s->queues; i++)
		reg_set(&s->dev, REG_QUEUE_NOTIFY, i);
	kit_wait(2000000);
	raw_negotiate(&s->dev, s->aim->features | F_RINGS);
	reg_set(&s->dev, REG_QUEUE_NOTIFY, s->aim->queue);
	kit_wait(2000000);
	check_poison(q.desc, VIRTQ_DESC_BYTES(SIZE), "the descriptor table");
	check_poison(q.avail, VIRTQ_AVAIL_BYTES(SIZE), "the avail ring");
	check_poison(q.used, VIRTQ_USED_BYTES(SIZE), "the used ring");
	for (unsigned i = 0; i < n; i++)
		check_poison((void *)mem[i].addr, mem[i].len, "a buffer");
	return PASS;
}

const struct act acts_life[] = {
	{"T09.0", ON_TX, WILL_PASS, t09_matrix, S0},
	{"T09.ack", ON_TX, WILL_PASS, t09_matrix, S1},
	{"T09.driver", ON_TX, WILL_PASS, t09_matrix, S2},
	{"T09.features", ON_TX, WILL_PASS, t09_matrix, S3},
	{"T09.ok", ON_TX, WILL_PASS, t09_matrix, S_ALL_OK},
	{"T09.gaveup", ON_TX, WILL_PASS, t09_matrix, S_ALL_OK | S_FAILED},
	{"T09.failed", ON_ALL, WILL_PASS, t09_failed},
	{"T10", ON_TX, WILL_PASS, t10_not_offered},
	{"T11.frozen", ON_ALL, WILL_REJECT, t11_frozen},
	{"T11.kept", ON_ALL, WILL_PASS, t11_kept},
	{"T15.negotiating", ON_ALL, WILL_PASS, t15_negotiating},
	{"T15.cycles", ON_ALL, WILL_PASS, t15_cycles},
	{"T15.now", ON_ALL, WILL_PASS, t15_in_flight, 0},
	{"T15.soon", ON_ALL, WILL_PASS, t15_in_flight, 40},
	{"T15.later", ON_ALL, WILL_PASS, t15_in_flight, 120},
	{0},
};
