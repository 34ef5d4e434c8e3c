/* SPDX-License-Identifier: Apache-2.0 */
/* measure.h - how samples are distributed, and numbers that look random. */
#ifndef KIT_MEASURE_H
#define KIT_MEASURE_H

#include "kit.h"

/* Counts of samples in buckets that are 1/64 of a power of 2 wide: percentiles are right to 1.6 %.
 * All zero is empty. */
#define HIST_STEPS   64
#define HIST_BUCKETS (59 * HIST_STEPS)
struct hist {
	u32 counts[HIST_BUCKETS];
	u64 samples, max;
};
void hist_add(struct hist *h, u64 value);
/* The value that @percent of the samples do not exceed; 0 where there are none. */
u64 hist_percentile(const struct hist *h, unsigned percent);

/* The next number of a sequence (splitmix64); *state may begin with anything. */
u64 random_next(u64 *state);
/* One of 0 .. @limit - 1. */
u64 random_below(u64 *state, u64 limit);

#endif
