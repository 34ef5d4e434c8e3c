/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_int.h - what blk.c (the device) and blk_req.c (its requests) share.
 *
 * Everything here belongs to the loop thread and is used under dev->lock, with two exceptions:
 * reset() and config_read() run on a vCPU thread (under the lock), and a disk's callback takes no
 * lock at all: it only moves its request to the list `done`, which nobody but the loop touches.
 */
#ifndef KELVIN_VIRTIO_BLK_INT_H
#define KELVIN_VIRTIO_BLK_INT_H

#include <linux/virtio_blk.h>
#include <sys/queue.h>

#include "virtio/blk.h"

#define BLK_MASK(name) (1ull << VIRTIO_BLK_F_##name)

#define BLK_HDR              ((u32)sizeof(struct virtio_blk_outhdr))
#define BLK_SEG_MAX          (VQ_SIZE_MAX - 2u) /* header and status are descriptors too */
#define BLK_RANGES_MAX       64u                /* of one discard or write-zeroes request */
#define BLK_DISCARD_SECTORS  (1u << 22)         /* of one range: 2 GiB */
#define BLK_ZEROES_SECTORS   (1u << 17)         /* 64 MiB: the disk may have to write them */
#define BLK_BURST            4u                 /* chains of a queue taken in one turn */
#define BLK_BURST_BYTES      65536u             /* and not one more once they have so much data */
#define BLK_FEW              5u                 /* buffers a request holds without malloc() */

enum blk_kind { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZEROES, BLK_GET_ID };

/* A range of a discard or write-zeroes request: a host copy, checked. */
struct blk_range {
	u64 sector;
	u32 count; /* sectors */
	u32 flags; /* VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP */
};

/* A chain of the driver's from when it was popped until its head is pushed. */
struct blk_req {
	struct disk_op op;
	STAILQ_ENTRY(blk_req) link; /* in blk.done, or in blk.free */
	struct blk *b;
	u32 epoch; /* dev.epoch when it was popped */
	u16 head;
	u8 queue;
	u8 kind;   /* enum blk_kind */
	bool with_disk;   /* started, and the callback has not run */
	bool durable;
	int res;          /* of the disk, once done */
	u32 len;          /* bytes of data */
	u64 off;          /* bytes into the disk */
	struct iovec status; /* the one byte the driver reads the outcome from */
	u32 n;            /* entries of iov or range */
	u32 at;           /* the range that is being worked on */
	union {
		struct iovec *iov; /* read and write; into guest RAM */
		struct blk_range *range;
	};
	void *heap; /* where iov or range is if few is too small; owned */
	union {
		struct iovec few_iov[BLK_FEW];
		struct blk_range few_range[BLK_FEW];
	};
};

STAILQ_HEAD(blk_list, blk_req);

struct blk {
	struct virtio_dev dev;
	struct ring *ring;
	struct disk *disk;
	struct disk *next_disk; /* waits until no request is under way; no chain is taken then */
	u64 capacity;           /* sectors; never more than the disk has */
	char serial[BLK_ID_MAX];

	struct blk_req *pool; /* one for each head there can be */
	unsigned pool_size;
	unsigned pool_used;   /* those before were used at least once */
	struct blk_list free; /* of those; last in, first out, to stay in the cache */
	struct blk_list done; /* those the disk is done with, until the turn ends */
	struct ring_task finish;

	unsigned turn; /* the queue to be looked at first */
	u64 taken;     /* bytes of data of the chains of this burst */
	bool cancel;   /* reset() happened with requests under way */

	struct limit limit;
	bool limited;
	bool waiting;  /* a chain went back to its queue, until due_ns */
	u64 due_ns;
	struct ring_op timer_op;
	struct ring_time timer_ts;
	u64 timer_at_ns; /* what it was set to; 0: it is being cancelled */

	struct blk_stats stats;
	struct vq_chain chain; /* the one just popped */
};

static inline struct blk *blk_of(struct virtio_dev *d)
{
	return container_of(d, struct blk, dev);
}

/* blk.c */
/* Chains wait for tokens until @due_ns. */
void blk_wait_until(struct blk *b, u64 due_ns);
/* No request is under way any more, which a swap may wait for. */
void blk_drained(struct blk *b);

/* blk_req.c */
void blk_req_init(struct blk *b, struct blk_req *pool, unsigned size);
/* The ring is gone or idle. */
void blk_req_free_all(struct blk *b);
/* Takes and starts what the queues have; see "Turns" in blk.c. Does nothing where it must not. */
void blk_run(struct blk *b);
/* Asks the disk to end what is under way. */
void blk_cancel_all(struct blk *b);

#endif
