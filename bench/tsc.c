/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc.c - how fast the time-stamp counter ticks, in kHz, against CLOCK_MONOTONIC.
 *
 * A guest counts in these ticks: no monitor here scales them. Each reading of the clock is put
 * between two of the counter, and the closest of some such pairs is taken.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#include "tool.h"

#define SPAN_NS 200000000l
#define TRIES   50

struct moment {
	uint64_t tsc, ns;
};

static struct moment look(void)
{
	uint64_t closest = ~0ull;
	struct moment best = { 0 };

	for (int i = 0; i < TRIES; i++) {
		uint64_t before = __rdtsc(), ns = now_ns(), after = __rdtsc();

		if (after - before < closest) {
			closest = after - before;
			best = (struct moment){ .tsc = before + (after - before) / 2, .ns = ns };
		}
	}
	return best;
}

int main(void)
{
	struct timespec span = { .tv_nsec = SPAN_NS };
	struct moment first = look(), last;

	nanosleep(&span, NULL);
	last = look();
	printf("%llu\n", (unsigned long long)((double)(last.tsc - first.tsc) * 1e6 /
				 (double)(last.ns - first.ns)));
	return 0;
}
