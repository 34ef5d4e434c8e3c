/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_loop.h - one device on a ring of the fake host, as the monitor's loop would run it. */
#ifndef KELVIN_TESTS_FUZZ_LOOP_H
#define KELVIN_TESTS_FUZZ_LOOP_H

#include "tests/fuzz/fake_host.h"
#include "tests/fuzz/fuzz.h"

struct fz_loop {
	struct ring *ring;
	struct virtio_dev *d;
	bool attached;  /* the ring looks at the queues; decided before fz_loop_run() */
	bool sleeps;    /* turns may sleep, and look for a while before */
	bool in_turn;
	bool (*work)(void);      /* what a back end does once a turn, if anything; may be NULL */
	void (*meanwhile)(void); /* what else goes on while a vCPU waits in a reset; may be NULL */
};

/* Makes the ring. What it is like is decided by the record of the present step. */
void fz_loop_init(struct fz_loop *l, struct fz *f);
/* The same as at the last time, for a VM that is restored. */
void fz_loop_again(struct fz_loop *l);
/* Begins with the device, which was made with that ring. */
void fz_loop_run(struct fz_loop *l, struct virtio_dev *d);
/* One turn. Whether anything happened. */
bool fz_turn(struct fz_loop *l);
/* Turns until nothing happens any more, which must come soon. */
void fz_settle(struct fz_loop *l);
/* Turns until no I/O on guest memory is under way, as before a snapshot. */
void fz_quiesce(struct fz_loop *l);
/* Ends the ring and destroys the device; with @destroy, else by ops->destroy. */
void fz_loop_end(struct fz_loop *l, void (*destroy)(struct virtio_dev *d));

/* Orders a failure of one of the @n @kinds of operations; @short_too: or a short transfer. */
void fz_fail(struct fz *f, const enum fh_op *kinds, unsigned n, bool short_too);

#endif
