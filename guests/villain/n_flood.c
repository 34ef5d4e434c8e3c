/* SPDX-License-Identifier: Apache-2.0 */
/*
 * n_flood.c - N09: the host sends as fast as it can, and buffers are few.
 *
 * The wake-up that is easily lost: the last buffer was used, the device stops looking at the tap,
 * and just then the driver adds buffers. Whoever comes first, frames must flow again.
 */
#include "net.h"

/* Takes @count filled buffers and gives none back; false, and a complaint, if they do not come. */
static bool take(struct scene *s, u16 count, unsigned round)
{
	u16 head;
	u32 len;

	while (count > 0) {
		if (raw_wait(&s->dev, s->q, SOON) != USED)
			return complain("round %u: nothing is received any more", round);
		for (; raw_take(s->q, &head, &len); count--) {
			if (len < sizeof(struct net_header) || len > NET_RX_ROOM)
				return complain("a frame of %u bytes", len);
		}
	}
	return true;
}

/* A few buffers, all used; then a few more, after arg microseconds. */
static enum verdict n09_starved(struct scene *s)
{
	const u16 few = 4;

	for (u16 i = 0; i < few; i++)
		raw_desc(s->q, i, (u64)give(NET_RX_ROOM, 16), NET_RX_ROOM, D_WRITE, 0);
	for (unsigned round = 0; round < 300; round++) {
		u16 count = (u16)(1 + round % few), before = s->q->posted;

		for (u64 end = kit_cycles() + s->arg * TICKS_MS / 1000; kit_cycles() < end;)
			;
		for (u16 i = 0; i < count; i++)
			raw_post(s->q, i);
		raw_kick_politely(&s->dev, s->q, before);
		if (!take(s, count, round))
			return FAIL;
	}
	return PASS;
}

/* Nothing is received for a while. What waits is the host's to keep, or to drop. */
static enum verdict n09_pause(struct scene *s)
{
	for (unsigned i = 0; i < 3; i++) {
		for (u64 end = kit_cycles() + 50 * TICKS_MS; kit_cycles() < end;)
			kit_wait(50000000);
		for (u16 k = 0; k < SIZE; k++) {
			raw_desc(s->q, k, (u64)give(NET_RX_ROOM, 16), NET_RX_ROOM, D_WRITE, 0);
			raw_post(s->q, k);
		}
		raw_kick(&s->dev, s->q);
		if (!take(s, SIZE, i))
			return FAIL;
	}
	return PASS;
}

/* Without EVENT_IDX, whose flags are another way to lose a wake-up. */
static enum verdict n09_flags(struct scene *s)
{
	if (!restart(s, SIZE, s->aim->features | F_INDIRECT | F_VERSION_1))
		return FAIL;
	return n09_starved(s);
}

const struct act acts_flood[] = {
	{"N09.now", ON_NET_RX, WILL_PASS, n09_starved, 0, "flood"},
	{"N09.soon", ON_NET_RX, WILL_PASS, n09_starved, 100, "flood"},
	{"N09.flags", ON_NET_RX, WILL_PASS, n09_flags, 0, "flood"},
	{"N09.pause", ON_NET_RX, WILL_PASS, n09_pause, 0, "flood"},
	{0},
};
