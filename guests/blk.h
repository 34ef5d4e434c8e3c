/* SPDX-License-Identifier: Apache-2.0 */
/* blk.h - what the parts of the blk guest share: blk.c has its command line. */
#ifndef GUESTS_BLK_H
#define GUESTS_BLK_H

#include "kit/blk.h"
#include "kit/sector.h"

/* The command line, with defaults filled in. Lengths in bytes. */
struct blk_options {
	char op[16];
	u64 bs, range, count, seed, flush;
	unsigned qd;
	bool random;
};
extern struct blk_options opt;
extern struct blk disk;

struct batch;

/* One request and its buffer, for the loops that keep opt.qd of them in flight. */
struct work {
	struct blk_request r;
	struct work *next; /* in the list of those that are idle */
	u64 cycles;        /* when it was submitted */
	unsigned queue;    /* that it goes to */
	void *buffer;      /* r.data, unless it is unmap */
	struct blk_range unmap;
	struct batch *batch; /* of blk_data.c */
	u64 place;           /* of blk_soak.c */
};
/* The idle ones. work_init() makes opt.qd of them with buffers of opt.bs bytes; false: no memory. */
extern struct work *idle;
bool work_init(void);
/* Submits the first idle one, as it was filled in. */
void work_submit(void);
/* One that is done, now idle again; NULL if there is none. Waits for it if @wait and one is in
 * flight. */
struct work *work_done(bool wait);

/* Makes what was written durable, while nothing is in flight. Returns the status. */
u8 flush_now(void);

/* blk_data.c: the ops that check data. Each returns the exit status. */
int op_fill(void);
int op_verify(void);
int op_log(void);
int op_check(void);
/* blk_soak.c */
int op_soak(void);
/* blk_serve.c: does not return, unless there is no vsock. */
int op_serve(void);

#endif
