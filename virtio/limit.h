/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limit.h - token buckets: how many operations and bytes a device may do, and when it may go on.
 *
 * A bucket holds up to `size` tokens and is filled by `rate` tokens a second; a burst is extra
 * tokens that are there once, at the beginning, and never come back. Whoever wants to do something
 * takes tokens first; where there are too few it waits until limit_ready_ns(). Something larger
 * than the bucket passes when the bucket is full, and puts it into debt. No threads, no system
 * calls: the caller passes the time (CLOCK_MONOTONIC, ns) and arms a timer of its own.
 */
#ifndef KELVIN_VIRTIO_LIMIT_H
#define KELVIN_VIRTIO_LIMIT_H

#include "monitor/base/bytes.h"
#include "monitor/base/err.h"
#include "monitor/base/types.h"

/* What an operator asks for. All zero: no limit. */
struct limit_rate {
	u64 size;      /* tokens in a full bucket; 0: this bucket limits nothing */
	u64 refill_ns; /* in which an empty bucket becomes full; 0 with size 0 only */
	u64 burst;     /* extra tokens, once */
};

struct limit_config {
	struct limit_rate ops, bytes;
};

struct limit_bucket {
	struct limit_rate rate;
	u64 tokens;   /* there now, at `at_ns` */
	u64 debt;     /* tokens owed by something larger than the bucket */
	u64 burst;    /* left of it */
	u64 at_ns;    /* when tokens was brought up to date */
	u64 frac;     /* of a token, earned until then; in 1/refill_ns */
};

struct limit {
	struct limit_bucket ops, bytes;
	u64 throttled; /* how often limit_take() said no */
};

/* Full buckets, nothing throttled. Also to change a limit while it is in use. */
void limit_init(struct limit *l, const struct limit_config *cfg, u64 now_ns);
/* Whether anything is limited. */
bool limit_is_on(const struct limit *l);
/* Takes one operation of @bytes bytes, from both buckets or from neither. */
bool limit_take(struct limit *l, u64 bytes, u64 now_ns);
/* Gives back what limit_take() took for something that was not done after all. */
void limit_give_back(struct limit *l, u64 bytes);
/* When limit_take() of @bytes may succeed; @now_ns or earlier if it may already. */
u64 limit_ready_ns(const struct limit *l, u64 bytes, u64 now_ns);

#endif
