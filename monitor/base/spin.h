/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spin.h - whether to look for a while before sleeping, and for how long.
 *
 * Waking a thread on another processor takes tens of microseconds, more than most of what a loop or
 * a vCPU waits for. Looking for so long instead is worth its processor time only where things
 * happen quickly: a sleep that lasted longer than the window switches looking off, and one that
 * ended within the window switches it on again. So who is idle sleeps without looking, at most one
 * window is wasted for each sleep, and no timer is needed. Between two looks the processor is
 * offered to whoever waits for it; when somebody took it, there is no looking for SPIN_BACKOFF_NS.
 *
 *	if (spin_begin(s))
 *		do {
 *			look();
 *		} while (nothing was there && spin_more(s));
 *	if (nothing was there) {
 *		sleep;
 *		spin_slept(s, how long);
 *	}
 */
#ifndef KELVIN_BASE_SPIN_H
#define KELVIN_BASE_SPIN_H

#include <sched.h>

#include "monitor/base/clock.h"

#define SPIN_GAP_NS     50000u /* between two looks: somebody else ran */
#define SPIN_BACKOFF_NS 1000000u

struct spin {
	u64 max_ns; /* the window; 0: never look */
	bool pays;  /* looking pays at present */
	u64 not_before_ns;
	u64 begin_ns, last_ns;
};

static inline bool spin_begin(struct spin *s)
{
	if (!s->pays || !s->max_ns)
		return false;
	s->begin_ns = s->last_ns = monotonic_ns();
	return s->begin_ns >= s->not_before_ns;
}

static inline bool spin_more(struct spin *s)
{
	u64 then_ns = s->last_ns;

	sched_yield(); /* syscalls[LV]: sched_yield */
	s->last_ns = monotonic_ns();
	if (s->last_ns - then_ns > SPIN_GAP_NS)
		s->not_before_ns = s->last_ns + SPIN_BACKOFF_NS;
	return s->last_ns - s->begin_ns < s->max_ns && s->last_ns >= s->not_before_ns;
}

static inline void spin_slept(struct spin *s, u64 ns)
{
	s->pays = ns <= s->max_ns;
}

#endif
