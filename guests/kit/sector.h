/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sector.h - 512 bytes that say what they are: a block that is lost, old, torn, or in the wrong
 * place gives itself away.
 *
 * All words are 64 bits, little endian. The sum is FNV-1a over the 63 words before it, a word at a
 * time: sum = 0xcbf29ce484222325; for each word: sum = (sum ^ word) * 0x100000001b3. The filling is
 * words x, each x * 6364136223846793005 + 1442695040888963407 of the one before; before the first
 * is number ^ sequence << 20 ^ seed << 40.
 */
#ifndef KIT_SECTOR_H
#define KIT_SECTOR_H

#include "kit.h"

#define SECTOR       512u
#define SECTOR_MAGIC 0x524f544345534b56ull /* "VKSECTOR" */

struct sector {
	u64 magic;
	u64 number;   /* where on the disk it belongs, in sectors */
	u64 sequence; /* which write it was */
	u64 seed;     /* of the run that wrote it */
	u64 filling[59];
	u64 sum;
};
_Static_assert(sizeof(struct sector) == SECTOR, "a sector is a sector");

void sector_make(struct sector *s, u64 number, u64 sequence, u64 seed);
/* Whether @s is whole and was made for @number with @seed. Its sequence is for the caller to judge. */
bool sector_good(const struct sector *s, u64 number, u64 seed);
/* Nothing but zeroes? */
bool sector_zero(const struct sector *s);

#endif
