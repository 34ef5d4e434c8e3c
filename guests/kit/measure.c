/* SPDX-License-Identifier: Apache-2.0 */
/* measure.c - see measure.h. */
#include "measure.h"

/* Values below HIST_STEPS have a bucket each; above, the top 7 bits choose. */
static unsigned bucket_of(u64 value)
{
	unsigned shift = value < HIST_STEPS ? 0 : 57 - (unsigned)__builtin_clzll(value);

	return shift * HIST_STEPS + (unsigned)(value >> shift);
}

/* The largest value in bucket @i. */
static u64 bucket_end(unsigned i)
{
	unsigned shift = i < HIST_STEPS ? 0 : i / HIST_STEPS - 1;

	return ((u64)(i - shift * HIST_STEPS + 1) << shift) - 1;
}

void hist_add(struct hist *h, u64 value)
{
	h->counts[bucket_of(value)]++;
	h->samples++;
	if (value > h->max)
		h->max = value;
}

u64 hist_percentile(const struct hist *h, unsigned percent)
{
	u64 rank = (h->samples * percent + 99) / 100, seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->counts[i];
		if (h->counts[i] && seen >= rank)
			return bucket_end(i) < h->max ? bucket_end(i) : h->max;
	}
	return 0;
}

u64 random_next(u64 *state)
{
	u64 x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

u64 random_below(u64 *state, u64 limit)
{
	return (u64)((unsigned __int128)random_next(state) * limit >> 64);
}
