/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_model.h - what a disk must hold, and a guest that makes work for it at random.
 *
 * Every sector written says which sector it is and which write it belongs to. So whatever is found
 * in a sector tells whether it may be there: now, after the process was killed, or after the power
 * was lost. Several requests are under way at a time, never two to one sector, often several to
 * one block. What the model knows is in shared memory: it outlives a child that is killed. What is
 * wrong ends the process (must()), with a line on stderr.
 */
#ifndef KELVIN_TESTS_DISK_MODEL_H
#define KELVIN_TESTS_DISK_MODEL_H

#include "tests/lib/fake_ring.h"
#include "virtio/disk.h"

#define MODEL_OPS      12u
#define MODEL_SECTORS  96u   /* of one request, at most */
#define MODEL_IOVS     7u

/* What is known of a sector. Numbers are of writes; 0 is what was there in the beginning. */
struct model_sector {
	u32 now;     /* the last write that was completed */
	u32 queued;  /* the last that was begun */
	u32 floor;   /* must be found after a loss of power: this or a later one */
	u32 zeroed;  /* the last that wrote zeroes, or may have (discard) */
	bool zero;   /* `now` wrote zeroes */
	bool loose;  /* discarded since */
};

struct model_op {
	struct disk_op op;
	struct disk_model *m;
	bool busy;
	u8 what; /* of enum disk_what */
	bool durable;
	u32 nr, sector, count;
	struct iovec iov[MODEL_IOVS];
	unsigned iov_count;
	u8 *buf;   /* with room to be misaligned in */
	u32 *seen; /* flush: `now` of all sectors when it was queued */
};

struct disk_model {
	struct disk *d;
	struct ring *r;
	u32 sectors;
	bool write_through; /* writes are durable, nobody flushes */
	bool flush_often;
	unsigned align;     /* of buffers and their parts; 1: none */
	struct model_sector *s;
	bool *busy;
	u32 *next; /* number of the next write */
	unsigned done[5]; /* by what */
	struct model_op ops[MODEL_OPS];
};

struct disk_model *model_make(u32 sectors);
void model_free(struct disk_model **m);
/* The beginning: writes it to @path, with holes, and makes the file @extra bytes longer. */
void model_write_base(const struct disk_model *m, const char *path, u32 extra);
void model_attach(struct disk_model *m, struct disk *d, struct ring *r);
/* Does @n things: queues a request, or steps the ring. */
void model_run(struct disk_model *m, unsigned n);
/* Nothing is under way afterwards. */
void model_drain(struct disk_model *m);
/* All sectors are what they must be, nothing being under way. */
void model_check(struct disk_model *m);
/*
 * The same after a crash, in which what was under way may be done or not; @power: what was not
 * flushed, too. From now on the disk holds what was found.
 */
void model_check_crashed(struct disk_model *m, bool power);

/* What write @nr puts into @sector. */
void model_fill(u8 *p, u32 sector, u32 nr);

#endif
