/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_int.h - one file or block device on the ring, which is what disks are made of.
 *
 * A struct disk is either raw, one descriptor, or has an overlay, which is made of two or three
 * raw disks (overlay_int.h). The raw_*() functions are disk.h's for a raw disk, without its checks.
 *
 * Whoever completes an op does so last: its callback may queue more, or close the disk.
 */
#ifndef KELVIN_VIRTIO_DISK_INT_H
#define KELVIN_VIRTIO_DISK_INT_H

#include "virtio/disk.h"

enum disk_what {
	DISK_OP_READ,
	DISK_OP_WRITE,
	DISK_OP_FLUSH,
	DISK_OP_DISCARD,
	DISK_OP_ZERO,
};

TAILQ_HEAD(disk_ops, disk_op);
TAILQ_HEAD(disk_holds, disk_hold);

/* Who works on which bytes: disk_hold.c. */
struct disk_ranges {
	struct disk_holds active, waiting;
	unsigned exclusive; /* how many of both are */
};

struct disk_bounce {
	struct disk_ops waiting; /* for memory */
	u64 used;                /* bytes of bounce buffers */
};

struct disk {
	struct ring *ring;
	char *path; /* for messages */
	int fd;
	bool read_only, is_block, direct;
	bool no_punch, no_zero_range; /* fallocate() said that it cannot */
	enum disk_sync sync;
	u64 size;
	u32 block_size;
	u32 mem_align, off_align; /* that O_DIRECT asks for */
	struct disk_ranges ranges; /* of writes; used with O_DIRECT only */
	struct disk_bounce bounce;

	/* One fdatasync at a time, for all that asked before it began. */
	struct ring_op sync_op;
	struct disk_ops sync_waiting, sync_running;
	u8 sync_retries;
	u64 writes;      /* that were not durable, queued so far */
	u64 sync_writes; /* the same, when the fdatasync under way was queued */
	u64 synced;      /* the same, that are on stable storage */
	bool failed;     /* a flush failed: all do */

	struct overlay *overlay;
};

/* What to open and lock; @fd is -1, or a descriptor to take over instead of opening @path. */
struct raw_config {
	const char *path;
	bool read_only;
	bool create;    /* if it is not there */
	bool any_size;  /* less than a sector is fine */
	bool no_lock;   /* the caller has one already */
	enum disk_sync sync;
	int fd;
};

/* disk_file.c */
int raw_open(struct disk **ret, const struct raw_config *cfg, struct ring *ring, struct err *e);
void raw_close(struct disk **d);
/* Looks at the length of the file and sets size and block_size. */
int raw_measure(struct disk *d, struct err *e);

/* disk_raw.c: op->disk and the rest of the op are set here, all but done. */
void raw_init(struct disk *d);
void raw_op_init(struct disk *d, struct disk_op *op, enum disk_what what, u64 off, u64 count);
void raw_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u64 len);
void raw_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u64 len, bool durable);
void raw_flush(struct disk *d, struct disk_op *op);
void raw_discard(struct disk *d, struct disk_op *op, u64 off, u64 len);
void raw_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable);
void raw_cancel(struct disk *d, struct disk_op *op);
int raw_sync_now(struct disk *d, struct err *e);

/* Sends a read or write, from op->at on, to the kernel. */
void raw_send(struct disk_op *op);
/* Ends an op: now, from a callback of the ring; or from one that comes soon. */
void raw_end(struct disk_op *op, int res);
void raw_end_later(struct disk_op *op, int res);
/* Whether an op that got @res should be tried once more. */
bool raw_again(struct disk_op *op, int res);

/* disk_direct.c */
void direct_probe(struct disk *d);
void direct_start(struct disk_op *op); /* a read or write */
void direct_end(struct disk_op *op);   /* gives back its bounce buffer, if any */

/* disk_hold.c */
void hold_init(struct disk_ranges *r);
/*
 * True: @h is held. False: h->go will be called, held, once nothing is in its way; it must not end
 * the op there and then.
 */
bool hold_take(struct disk_ranges *r, struct disk_hold *h);
/* Nothing, if it is not held. */
void hold_drop(struct disk_ranges *r, struct disk_hold *h);

/*
 * disk_lock.c: the file is shared by readers, or one's own. @look: where somebody else has it, the
 * err says who, and one that dies is waited for.
 */
int disk_lock(int fd, const char *path, bool exclusive, bool look, struct err *e);
/* Now, even if the kernel keeps the file a little longer than its descriptor. */
void disk_unlock(int fd);

/* Fills @iov with *@len zeroes, or less where they are too many. Returns how many entries. */
#define ZERO_IOVS 16u
unsigned zero_iov(struct iovec iov[ZERO_IOVS], u64 *len);

#endif
