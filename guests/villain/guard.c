/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c - the memory a device is given, with patterns around it.
 *
 * One arena, filled with a pattern that depends on the address. Pieces are cut from its bottom with
 * a gap between any two, and each piece is noted. What the device may never change can then be
 * checked at any time: the gaps and the unused rest hold the pattern; pieces that the device may
 * only read have the sum they were shown with; descriptor tables and avail rings are as the case
 * wrote them. The last page of RAM is pattern too, because devices that round up write there.
 */
#include "villain.h"

#define ARENA  (768u << 10)
#define GAP    128u
#define PIECES 1024
#define PAGE   4096u

enum kind { GIVEN, SHOWN, LOOSE };

static struct piece {
	u64 at;
	u32 len;
	enum kind kind;
	u64 sum; /* of SHOWN */
} pieces[PIECES];

static u8 *arena;
static u64 next, last_page;
static u32 end_given; /* bytes of the last page that the device may write */
static unsigned piece_count;

static u64 pattern(u64 at)
{
	return (at ^ 0x5bd1e995c3a5c85cull) * 0x9e3779b97f4a7c15ull;
}

static void fill(u64 from, u64 to)
{
	for (; from < to; from += 8)
		*(volatile u64 *)from = pattern(from);
}

/* Complains about the first byte in [@from, @to) that is not pattern. */
static void check(u64 from, u64 to, const char *where)
{
	for (u64 at = from; at < to; at++) {
		/* Whole words are quicker. */
		while (at % 8 == 0 && at + 8 <= to && *(volatile u64 *)at == pattern(at))
			at += 8;
		if (at < to && *(volatile u8 *)at != (u8)(pattern(at & -8ull) >> (at % 8 * 8))) {
			complain("memory at %lx, %s, was written", at, where);
			return;
		}
	}
}

static u64 sum(u64 at, u32 len)
{
	u64 s = len;

	for (u32 i = 0; i < len; i++)
		s = (s ^ *(volatile u8 *)(at + i)) * 0x100000001b3ull;
	return s;
}

void guards_reset(struct raw_dev *d)
{
	if (!arena) {
		last_page = (u64)kit_pages(0) + kit_pages_left() - PAGE;
		arena = kit_pages(ARENA);
	}
	fill((u64)arena, (u64)arena + ARENA);
	fill(last_page, last_page + PAGE);
	next = (u64)arena + PAGE;
	piece_count = 0;
	end_given = 0;
	memset(d->q, 0, sizeof(d->q));
}

u64 ram_end(void)
{
	return last_page + PAGE;
}

static struct piece *cut(size_t len, size_t align, enum kind kind)
{
	u64 at = (next + GAP + align - 1) & -align;

	if (at + len + PAGE > (u64)arena + ARENA || piece_count == PIECES) {
		kit_printf("villain: a case wants more memory than there is\n");
		kit_power(FAIL);
	}
	next = at + len;
	pieces[piece_count] = (struct piece){.at = at, .len = (u32)len, .kind = kind};
	return &pieces[piece_count++];
}

void *give(size_t len, size_t align)
{
	struct piece *p = cut(len, align, GIVEN);

	return memset((void *)p->at, FILL, len);
}

void *give_end(size_t len)
{
	end_given = (u32)len;
	return memset((void *)(ram_end() - len), FILL, len);
}

void *show(const void *content, size_t len)
{
	struct piece *p = cut(len, 8, SHOWN);

	memcpy((void *)p->at, content, len);
	p->sum = sum(p->at, p->len);
	return (void *)p->at;
}

static struct piece *find(const void *mem)
{
	for (unsigned i = 0; i < piece_count; i++) {
		if (pieces[i].at == (u64)mem)
			return &pieces[i];
	}
	complain("the case names memory that it never had");
	return &pieces[0];
}

void show_again(void *mem)
{
	struct piece *p = find(mem);

	p->sum = sum(p->at, p->len);
}

void show_no_more(void *mem)
{
	find(mem)->kind = LOOSE;
}

/* Descriptors and avail entries are the driver's alone. */
static void check_rings(const struct raw_queue *q)
{
	for (u16 i = 0; i < q->size; i++) {
		struct virtq_desc d = q->desc[i];

		if (memcmp(&d, &q->desc_copy[i], sizeof(d)) != 0)
			complain("queue %u: the device wrote descriptor %u", q->index, i);
		if (q->avail->ring[i] != q->avail_copy[i])
			complain("queue %u: the device wrote avail entry %u", q->index, i);
	}
	if (q->avail->idx != q->posted)
		complain("queue %u: the device wrote avail.idx", q->index);
}

void guards_check(const struct raw_dev *d)
{
	u64 at = (u64)arena;

	for (unsigned i = 0; i < piece_count; i++) {
		check(at, pieces[i].at, "between buffers");
		at = pieces[i].at + pieces[i].len;
		if (pieces[i].kind == SHOWN && sum(pieces[i].at, pieces[i].len) != pieces[i].sum)
			complain("memory at %lx, for reading only, was written", pieces[i].at);
	}
	check(at, (u64)arena + ARENA, "behind all buffers");
	check(last_page, last_page + PAGE - end_given, "the end of RAM");
	for (unsigned i = 0; d && i < QUEUES; i++) {
		if (d->q[i].size && !d->q[i].tampered)
			check_rings(&d->q[i]);
	}
}
