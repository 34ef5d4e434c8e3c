/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle.c - whether to look at rings for a while before sleeping.
 *
 * To sleep is an exit to the monitor, and to be woken costs as much again: more than a quick device
 * takes to answer. A guest that looks for some microseconds more saves both, as long as those who
 * make the answer have another processor to themselves. Where they have not, it is in their way:
 * they run only once it sleeps, each answer comes later by as long as it looked, and it looked in
 * vain. So looking must prove itself: when it failed some times in a row, the guest sleeps at
 * once for a number of times before it tries again, a larger number after each try that fails. A
 * guest with little to do ends there too, and wastes next to nothing.
 */
#include "kit.h"

#define SPIN_CYCLES 100000u /* 25 to 50 us on any processor of these years */
#define FAILURES    4u      /* in a row, and looking does not pay */
#define SKIP_FIRST  16u     /* sleeps without looking after that */
#define SKIP_MOST   512u

static enum { UNKNOWN, NEVER, ADAPT, ALWAYS } spin;
static u64 worked_at;
static bool looking;
static unsigned failures, skip, skip_next = SKIP_FIRST;

static void found_work(void)
{
	if (looking) {
		failures = 0;
		skip_next = SKIP_FIRST;
	}
	looking = false;
	worked_at = kit_cycles();
}

/* Nothing was found: is it worth looking again? */
static bool pays(void)
{
	if (skip) {
		skip--;
		return false;
	}
	if (kit_cycles() - worked_at < SPIN_CYCLES) {
		looking = true;
		return true;
	}
	if (looking && ++failures >= FAILURES) {
		skip = skip_next;
		skip_next = skip_next < SKIP_MOST ? 2 * skip_next : SKIP_MOST;
	}
	looking = false;
	return false;
}

bool kit_look_again(bool found)
{
	if (spin == UNKNOWN) {
		spin = kit_flag("nospin") ? NEVER : ADAPT;
		if (kit_flag("poll") || !kit_identity())
			spin = ALWAYS;
	}
	if (found) {
		if (spin == ADAPT)
			found_work();
		return true;
	}
	if (spin == NEVER || (spin == ADAPT && !pays()))
		return false;
	kit_check_generation();
	kit_pause();
	return true;
}
