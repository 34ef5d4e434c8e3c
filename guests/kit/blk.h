/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.h - a disk (virtio 1.2, 5.2), requests in flight on one queue or several.
 *
 * A request belongs to the caller, stays where it is until blk_take() gives it back, and its data
 * is read or written in place. blk_submit() until it has no room, blk_kick(), blk_take() until
 * there is nothing, blk_wait(). For one request at a time: blk_do().
 */
#ifndef KIT_BLK_H
#define KIT_BLK_H

#include "virtio.h"

#define BLK_QUEUES 8
#define BLK_DEPTH  256 /* requests in flight on one queue */
#define BLK_SEGS   32  /* pieces a request's data may be cut into */
#define BLK_ID_LEN 20
#define BLK_BROKEN 9   /* exit status of a guest whose disk gives back what it does not have */

#define BLK_F_RO           (1ull << 5)
#define BLK_F_BLK_SIZE     (1ull << 6)
#define BLK_F_FLUSH        (1ull << 9)
#define BLK_F_MQ           (1ull << 12)
#define BLK_F_DISCARD      (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

enum blk_type { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11,
	BLK_WRITE_ZEROES = 13 };
enum blk_status { BLK_OK, BLK_IOERR, BLK_UNSUPP, BLK_PENDING = 0xff };

/* The data of BLK_DISCARD and BLK_WRITE_ZEROES. */
struct blk_range {
	u64 sector;
	u32 count; /* of sectors */
	u32 flags; /* BLK_UNMAP: zeroes may become a hole */
};
#define BLK_UNMAP 1

struct blk_request {
	u32 type;   /* enum blk_type */
	u32 len;    /* of data, bytes */
	u64 sector; /* where, in units of 512 bytes */
	void *data;
	u8 status;  /* enum blk_status, once it is done */
	u32 used;   /* bytes that the device says it wrote, its status included */
	u64 user;   /* yours */
};

struct blk_slot; /* of blk.c */

struct blk_queue {
	struct virtq q;
	struct blk_slot *slots; /* depth of them */
	u16 *free;              /* a stack of slots that hold no request */
	u16 free_count;
};

struct blk {
	struct virtio_dev dev;
	unsigned queue_count, depth, segs;
	u32 block_size; /* 512 if the device does not say */
	struct blk_queue queues[BLK_QUEUES];
};

/* How to start a disk; 0 where not said otherwise. */
struct blk_setup {
	unsigned nth;     /* which disk, from 0 */
	unsigned queues;  /* wanted; at least 1 (default), at most what the device has */
	unsigned depth;   /* requests in flight on each queue (1) */
	unsigned segs;    /* pieces of nearly the same size that data is cut into (1) */
	bool direct;      /* no indirect descriptors: depth * (segs + 2) <= VIRTQ_SIZE_MAX */
	u64 without;      /* features not to agree on */
};

/* Finds and starts a disk. False: not there, or it or memory cannot do this. */
bool blk_init(struct blk *b, const struct blk_setup *setup);
/* The size now, in sectors: read from the device. Eight exits. */
u64 blk_capacity(const struct blk *b);
/* Puts @r into queue @queue, for the next kick; false if that is full. */
bool blk_submit(struct blk *b, unsigned queue, struct blk_request *r);
void blk_kick(struct blk *b);
/* A request that is done, from any queue; NULL if none is. */
struct blk_request *blk_take(struct blk *b);
/* Waits until blk_take() has something. */
void blk_wait(struct blk *b);
/* All of the above for one request, where nothing else is in flight. Returns its status. */
u8 blk_do(struct blk *b, struct blk_request *r);

#endif
