/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_ring.h - virtio/ring.h for file I/O without io_uring: in any order, and with faults.
 *
 * A program that links this does not get virtio/ring.c. What is queued stays queued until
 * fake_ring_step(), which does one thing, chosen at random: carry out an operation that was queued
 * (with the real system call, but nothing is really synced), or run the callback of one that was
 * carried out. So everything that a kernel may reorder is reordered, and a seed repeats it.
 */
#ifndef KELVIN_TESTS_FAKE_RING_H
#define KELVIN_TESTS_FAKE_RING_H

#include "virtio/ring.h"

#define FAKE_FD_MAX 256

enum fake_kind {
	FAKE_READ,
	FAKE_WRITE,
	FAKE_SYNC,
	FAKE_FALLOCATE,
	FAKE_NOP,
	FAKE_KINDS
};

struct fake_io {
	enum fake_kind kind;
	struct ring_op *op;
	int fd, flags; /* RWF_*, or the mode of fallocate() */
	u64 off, len;
	unsigned nr; /* how many of this kind came before */
	/* What follows is the fake's own. */
	struct iovec one;
	const struct iovec *iov;
	unsigned iov_count;
	bool carried_out, cancelled;
	int res;
};

struct ring {
	u64 seed;
	bool in_order;
	bool hold_syncs; /* they are carried out, but nobody is told */
	/*
	 * Asked before an operation is carried out. Nonzero is its result instead: a negative errno,
	 * or a number of bytes that it is cut down to. NULL: none fail.
	 */
	int (*fault)(void *ctx, const struct fake_io *io);
	/* Told after it was; @io->res is the result. May be NULL. */
	void (*did)(void *ctx, const struct fake_io *io);
	void *ctx;
	/* One of so many operations is interrupted, is to be tried again, or does only a part of
	 * its work, a multiple of `unit` bytes. 0: none. */
	unsigned nuisance, unit;
	struct fake_io *ios;
	unsigned count, cap;
	unsigned queued[FAKE_KINDS]; /* since the beginning */
	bool fixed[FAKE_FD_MAX];     /* files */
};

struct ring *fake_ring_make(u64 seed);
void fake_ring_free(struct ring **r); /* nothing is queued */
/* False if there is nothing to do. */
bool fake_ring_step(struct ring *r);
/* Until then. */
void fake_ring_drain(struct ring *r);
u64 fake_ring_rand(struct ring *r, u64 below);

#endif
