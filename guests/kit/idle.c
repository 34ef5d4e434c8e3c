/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle.c - how long to look at rings before sleeping.
 *
 * To sleep is an exit to the monitor, and to be woken costs as much again: more than a quick device
 * takes to answer. A guest that looks for some microseconds more is told sooner, if all who have
 * to do with the answer have a processor to themselves. Where they have not, the guest is in their
 * way: with two processors, and a guest, its monitor and a client that all take their turns, each
 * round trip becomes longer by as long as the guest looks. The monitor looks too before it lets a
 * vCPU sleep, and can yield; so by default we do not.
 */
#include "kit.h"

#define SPIN_CYCLES 100000 /* 25 to 50 us on any processor of these years */

static bool spin_preferred;

void kit_prefer_spin(void)
{
	spin_preferred = true;
}

bool kit_look_again(bool found)
{
	static enum { UNKNOWN, NEVER, SOME, ALWAYS } spin;
	static u64 worked_at;

	if (spin == UNKNOWN) {
		spin = (spin_preferred || kit_flag("spin")) && !kit_flag("nospin") ? SOME : NEVER;
		if (kit_flag("poll") || !kit_identity())
			spin = ALWAYS;
	}
	if (found) {
		if (spin == SOME)
			worked_at = kit_cycles();
		return true;
	}
	if (spin == NEVER || (spin == SOME && kit_cycles() - worked_at >= SPIN_CYCLES))
		return false;
	kit_check_generation();
	kit_pause();
	return true;
}
