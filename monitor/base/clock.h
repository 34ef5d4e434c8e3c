/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h - the host's clocks in nanoseconds. */
#ifndef KELVIN_BASE_CLOCK_H
#define KELVIN_BASE_CLOCK_H

#include <time.h>

#include "monitor/base/types.h"

/* 0 for a clock that is not there (any more), as that of a thread which ended.
 * syscalls[LVW]: clock_gettime - of a thread; for the rest the vDSO does, where it can */
static inline u64 clock_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

static inline u64 monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

#endif
