/* SPDX-License-Identifier: Apache-2.0 */
/* sector.c - see sector.h. */
#include "sector.h"

#define FNV_BASIS 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

#define FILLINGS (sizeof(((struct sector *)0)->filling) / sizeof(u64))

static u64 sum_of(const struct sector *s)
{
	const u64 *words = (const u64 *)s;
	u64 sum = FNV_BASIS;

	while (words < &s->sum)
		sum = (sum ^ *words++) * FNV_PRIME;
	return sum;
}

void sector_make(struct sector *s, u64 number, u64 sequence, u64 seed)
{
	u64 x = number ^ sequence << 20 ^ seed << 40;

	s->magic = SECTOR_MAGIC;
	s->number = number;
	s->sequence = sequence;
	s->seed = seed;
	for (unsigned i = 0; i < FILLINGS; i++)
		s->filling[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
	s->sum = sum_of(s);
}

bool sector_good(const struct sector *s, u64 number, u64 seed)
{
	return s->magic == SECTOR_MAGIC && s->number == number && s->seed == seed &&
	       s->sum == sum_of(s);
}

bool sector_zero(const struct sector *s)
{
	const u64 *words = (const u64 *)s;
	u64 any = 0;

	for (unsigned i = 0; i < SECTOR / sizeof(u64); i++)
		any |= words[i];
	return any == 0;
}
