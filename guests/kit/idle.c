/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle.c - how long to look at rings before sleeping.
 *
 * To sleep is an exit to the monitor, and to be woken costs as much again: several times what a
 * quick device takes to answer. So after work was done the rings are looked at for some microseconds
 * more. A guest that has nothing to do spins no longer than that, once.
 */
#include "kit.h"

#define SPIN_CYCLES 100000 /* 25 to 50 us on any processor of these years */

bool kit_look_again(bool found)
{
	static enum { UNKNOWN, NEVER, SOME, ALWAYS } spin;
	static u64 worked_at;

	if (spin == UNKNOWN) {
		spin = kit_flag("nospin") ? NEVER : SOME;
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
