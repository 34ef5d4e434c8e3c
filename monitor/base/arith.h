/* SPDX-License-Identifier: Apache-2.0 */
/* arith.h - arithmetic on numbers a guest or a file gave us. */
#ifndef KELVIN_BASE_ARITH_H
#define KELVIN_BASE_ARITH_H

#include "monitor/base/types.h"

/* Whether [off, off + len) lies inside [0, limit), without ever adding off and len. */
static inline bool range_ok(u64 off, u64 len, u64 limit)
{
	return off <= limit && len <= limit - off;
}

static inline bool is_pow2(u64 v)
{
	return v && !(v & (v - 1));
}

static inline u64 align_down(u64 v, u64 a)
{
	return v & ~(a - 1);
}

/* @v rounded up to a multiple of the power of two @a; the caller knows it does not wrap. */
static inline u64 align_up(u64 v, u64 a)
{
	return (v + a - 1) & ~(a - 1);
}

#endif
