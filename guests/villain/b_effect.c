/* SPDX-License-Identifier: Apache-2.0 */
/*
 * b_effect.c - B09, B10, B15: flushes, discards, and resets while data is on its way.
 */
#include "blk.h"

struct range {
	u64 sector;
	u32 count, flags;
};

#define UNMAP 1 /* range.flags, for BLK_WRITE_ZEROES only */

/* ---- B09: flush ---- */

static enum verdict b09_flush(struct scene *s)
{
	blk_request(s, BLK_FLUSH, 0, 0, 0);
	if (!blk_ends(s, s->dev.features & BLK_F_FLUSH ? MAY_OK : MAY_ANY, "a flush"))
		return FAIL;
	blk_request(s, BLK_FLUSH, 0, SECTOR, 0);
	if (!blk_ends(s, MAY_ANY, "a flush with data to write"))
		return FAIL;
	blk_request(s, BLK_FLUSH, 0, SECTOR, D_WRITE);
	if (!blk_ends(s, MAY_ANY, "a flush with data to read"))
		return FAIL;
	blk_request(s, BLK_FLUSH, -1ull, 0, 0);
	blk_ends(s, MAY_ANY, "a flush of a sector that is not there");
	return PASS;
}

static enum verdict b09_not_agreed(struct scene *s)
{
	if (!restart(s, SIZE, (s->aim->features & ~BLK_F_FLUSH) | F_RINGS))
		return FAIL;
	blk_request(s, BLK_FLUSH, 0, 0, 0);
	blk_ends(s, MAY_ANY, "a flush that was not agreed on");
	return PASS;
}

/* Flushes among reads, all at once: each comes back, once, with its status. */
static enum verdict b09_many(struct scene *s)
{
	volatile u8 *status[10];
	u16 head;
	u32 len;

	for (u16 i = 0; i < 10; i++) {
		if (i % 3)
			blk_request(s, BLK_FLUSH, 0, 0, 0);
		else
			blk_request(s, BLK_READ, i, SECTOR, D_WRITE);
		status[i] = s->status;
		lay(s, i * 3);
		raw_post(s->q, i * 3);
	}
	raw_kick(&s->dev, s->q);
	for (u16 i = 0; i < 10; i++) {
		if (raw_wait(&s->dev, s->q, SOON) != USED) {
			complain("%u of 10 requests come back", i);
			return FAIL;
		}
		raw_take(s->q, &head, &len);
	}
	for (u16 i = 0; i < 10; i++) {
		if (*status[i] != BLK_OK)
			complain("request %u of a batch with flushes: status %u", i, *status[i]);
	}
	return PASS;
}

/* ---- B10: discard and write zeroes ---- */

/* One request with @count ranges, of which @bytes bytes are given (0: all). */
static bool ranges(struct scene *s, u32 type, const struct range *r, u32 count, u32 bytes,
	unsigned bits, const char *what)
{
	u32 len = bytes ? bytes : count * sizeof(*r);
	u8 *data = blk_request(s, type, 0, len, 0);

	if (len)
		memcpy(data, r, len);
	return blk_ends(s, bits, what);
}

static bool has(const struct scene *s, u32 type)
{
	return s->dev.features & (type == BLK_DISCARD ? BLK_F_DISCARD : BLK_F_WRITE_ZEROES);
}

/* Ranges that are none; arg is the type. The image must not change by them. */
static enum verdict b10_refused(struct scene *s)
{
	const u32 type = (u32)s->arg;
	const u64 n = s->sectors;
	const struct {
		const char *what;
		struct range r;
	} bad[] = {
		{"a range that ends behind the disk", {n - 1, 2, 0}},
		{"a range behind the disk", {n, 1, 0}},
		{"a range whose bytes wrap", {1ull << 55, 1, 0}},
		{"a range whose end wraps", {-1ull, 2, 0}},
		{"a range at the last sector there can be", {-1ull, 0xffffffff, 0}},
		{"a range of 2^32 - 1 sectors", {0, 0xffffffff, 0}},
		{"a range with unknown flags", {0, 1, 2}},
		{"a range with all flags", {0, 1, 0xffffffff}},
	};

	if (!has(s, type))
		return skip("the device does not offer that");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!ranges(s, type, &bad[i].r, 1, 0, MAY_FAIL | MAY_REFUSE, bad[i].what))
			return FAIL;
	}
	if (type == BLK_DISCARD &&
		!ranges(s, type, &(struct range){0, 1, UNMAP}, 1, 0, MAY_REFUSE, "discard with unmap"))
		return FAIL;
	return PASS;
}

/* Parts of ranges, none at all, and far too many. */
static enum verdict b10_lengths(struct scene *s)
{
	static struct range many[1024];
	const u32 type = (u32)s->arg;
	u32 most;

	if (!has(s, type))
		return skip("the device does not offer that");
	most = reg_get(&s->dev, REG_CONFIG + (type == BLK_DISCARD ? 40 : 52)); /* segments */
	for (unsigned i = 0; i < 1024; i++)
		many[i] = (struct range){blk_scratch(s), 1, 0};
	if (!ranges(s, type, many, 0, 0, MAY_FAIL | MAY_REFUSE, "no range") ||
		!ranges(s, type, many, 1, 8, MAY_FAIL | MAY_REFUSE, "half a range") ||
		!ranges(s, type, many, 2, 17, MAY_FAIL | MAY_REFUSE, "a range and a byte") ||
		(most < 1024 &&
			!ranges(s, type, many, 1024, 0, MAY_FAIL | MAY_REFUSE, "1024 ranges")))
		return FAIL;
	return PASS;
}

/* A good range in the scratch part, then a bad one. */
static enum verdict b10_mixed(struct scene *s)
{
	const u32 type = (u32)s->arg;
	const struct range two[] = {{blk_scratch(s) + 3, 2, 0}, {s->sectors - 1, 2, 0}};

	if (!has(s, type))
		return skip("the device does not offer that");
	ranges(s, type, two, 2, 0, MAY_FAIL | MAY_REFUSE, "a good and a bad range");
	return PASS;
}

/* Sectors 8 and 9 of the scratch part, and not a byte beside them. */
static enum verdict b10_exact(struct scene *s)
{
	const u32 type = (u32)s->arg;
	const u64 at = blk_scratch(s) + 8;
	const struct range r = {at, 2, 0};
	u8 *back;

	if (!has(s, type))
		return skip("the device does not offer that");
	if (!ranges(s, type, &r, 1, 0, MAY_OK, "a good range"))
		return FAIL;
	back = blk_request(s, BLK_READ, at - 1, 4 * SECTOR, D_WRITE);
	if (!blk_ends(s, MAY_OK, "a read"))
		return FAIL;
	blk_content(back, at - 1, SECTOR);
	blk_content(back + 3 * SECTOR, at + 2, SECTOR);
	for (u32 i = SECTOR; type == BLK_WRITE_ZEROES && i < 3 * SECTOR; i++) {
		if (back[i])
			complain("byte %u of a zeroed range is not zero", i - SECTOR);
	}
	return PASS;
}

/* ---- B15: a reset finds requests with the kernel ---- */

#define COUNT  10
#define CHUNK  (32u << 10)
#define POISON 0x77
#define WRITTEN 0x3c

static bool is_all(const volatile u8 *mem, size_t len, u8 byte)
{
	for (size_t i = 0; i < len; i++) {
		if (mem[i] != byte)
			return false;
	}
	return true;
}

/* Large reads, a reset after arg microseconds; then the buffers are ours again. */
static enum verdict b15_reads(struct scene *s)
{
	volatile u8 *data[COUNT], *status[COUNT];

	for (u16 i = 0; i < COUNT; i++) {
		data[i] = blk_request(s, BLK_READ, i * 16, CHUNK, D_WRITE);
		status[i] = s->status;
		lay(s, i * 3);
		raw_post(s->q, i * 3);
	}
	raw_kick(&s->dev, s->q);
	for (u64 end = kit_cycles() + s->arg * TICKS_MS / 1000; kit_cycles() < end;)
		;
	if (!raw_reset(&s->dev))
		return WEDGED;
	for (u16 i = 0; i < COUNT; i++) {
		memset((void *)data[i], POISON, CHUNK);
		*status[i] = POISON;
	}
	kit_wait(5000000);
	for (u16 i = 0; i < COUNT; i++) {
		if (!is_all(data[i], CHUNK, POISON) || *status[i] != POISON)
			complain("a buffer was written after a reset");
	}
	return PASS;
}

/* Large writes, a reset, and then other bytes in the buffers: those must not get to the disk. */
static enum verdict b15_writes(struct scene *s)
{
	const u64 at = blk_scratch(s);
	u8 *data = NULL, *back;

	for (u16 i = 0; i < COUNT; i++) {
		if (!data) {
			data = blk_request(s, BLK_WRITE, at, CHUNK, 0);
			memset(data, WRITTEN, CHUNK);
		} else {
			blk_request(s, BLK_WRITE, at, 0, 0);
			insert(s, 1, (u64)data, CHUNK, 0);
		}
		lay(s, i * 3);
		raw_post(s->q, i * 3);
	}
	raw_kick(&s->dev, s->q);
	for (u64 end = kit_cycles() + s->arg * TICKS_MS / 1000; kit_cycles() < end;)
		;
	if (!raw_reset(&s->dev))
		return WEDGED;
	memset(data, POISON, CHUNK);
	kit_wait(5000000);
	if (!start(s))
		return FAIL;
	back = blk_request(s, BLK_READ, at, CHUNK, D_WRITE);
	if (!blk_ends(s, MAY_OK, "a read"))
		return FAIL;
	for (u32 i = 0; i < CHUNK; i++) {
		u8 before = (u8)(blk_word((at * SECTOR + i) / 8) >> (i % 8 * 8));

		if (back[i] != WRITTEN && back[i] != before) {
			complain("byte %u on the disk was in memory after the reset only", i);
			break;
		}
	}
	return PASS;
}

const struct act acts_effect[] = {
	{"B09", ON_BLK, WILL_PASS, b09_flush},
	{"B09.unacked", ON_BLK, WILL_PASS, b09_not_agreed},
	{"B09.many", ON_BLK, WILL_PASS, b09_many},
	{"B10.discard", ON_BLK, WILL_PASS, b10_refused, BLK_DISCARD},
	{"B10.zeroes", ON_BLK, WILL_PASS, b10_refused, BLK_WRITE_ZEROES},
	{"B10.discardlen", ON_BLK, WILL_PASS, b10_lengths, BLK_DISCARD},
	{"B10.zeroeslen", ON_BLK, WILL_PASS, b10_lengths, BLK_WRITE_ZEROES},
	{"B10.discardmix", ON_BLK, WILL_PASS, b10_mixed, BLK_DISCARD, "writes"},
	{"B10.zeroesmix", ON_BLK, WILL_PASS, b10_mixed, BLK_WRITE_ZEROES, "writes"},
	{"B10.discarded", ON_BLK, WILL_PASS, b10_exact, BLK_DISCARD, "writes"},
	{"B10.zeroed", ON_BLK, WILL_PASS, b10_exact, BLK_WRITE_ZEROES, "writes"},
	{"B15.reads", ON_BLK, WILL_PASS, b15_reads, 0},
	{"B15.readssoon", ON_BLK, WILL_PASS, b15_reads, 60},
	{"B15.readslater", ON_BLK, WILL_PASS, b15_reads, 200},
	{"B15.writes", ON_BLK, WILL_PASS, b15_writes, 0, "writes"},
	{"B15.writessoon", ON_BLK, WILL_PASS, b15_writes, 60, "writes"},
	{"B15.writeslater", ON_BLK, WILL_PASS, b15_writes, 200, "writes"},
	{0},
};
