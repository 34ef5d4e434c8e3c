/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.h - what a block device keeps its sectors in: a raw file or block device, maybe as the
 * untouched base below a copy-on-write overlay. All I/O is on the ring.
 *
 * Bytes in, bytes out: this layer knows nothing of virtio. Everything is called by the loop thread
 * unless said otherwise. The caller checks ranges against disk_size() (disk.c must() that they are
 * inside) and keeps buffers and the op alive until the callback. Data is never parsed.
 *
 * What is promised: a write that was completed survives the end of this process; a flush that was
 * completed means that all writes completed before it was queued survive the loss of power. Once a
 * flush has failed, the kernel may have dropped pages, so every later flush fails too (until the
 * disk is opened again). Writes outside the ranges asked for never happen, discard included.
 */
#ifndef KELVIN_VIRTIO_DISK_H
#define KELVIN_VIRTIO_DISK_H

#include "monitor/base/bytes.h"
#include "virtio/ring.h"

#define DISK_SECTOR 512u

enum disk_sync {
	DISK_WRITEBACK, /* page cache; a flush is fdatasync */
	DISK_UNSAFE,    /* page cache; a flush does nothing, and is not offered to the guest */
	DISK_DIRECT,    /* O_DIRECT, unaligned requests bounce; a flush is fdatasync */
};

struct disk_config {
	const char *path;    /* of the image, or of the base below the overlay */
	const char *overlay; /* NULL: none. A file that is made if it is not there; the base is then
			      * opened read-only, with a shared lock */
	/* Of disk_save_overlay(): lies between base and overlay, read-only, with a shared lock. */
	const char *saved_overlay;
	/* Where an unnamed overlay goes, which is gone with the disk; used if overlay is NULL. */
	const char *overlay_dir;
	/* Base and saved overlay may be copies: their dev, ino and mtime are not those of old. */
	bool base_moved;
	bool read_only;
	enum disk_sync sync;
};

struct disk;

/*
 * Opens and locks (an OFD lock: exclusive for writing, shared for read-only) the file or block
 * device; its length is taken once, rounded down to whole sectors. The format is never probed.
 * Errors say what to do: which process has it locked where that can be known, not a file or block
 * device, less than a sector, the overlay belongs to another base.
 */
int disk_open(struct disk **ret, const struct disk_config *cfg, struct ring *ring, struct err *e);
/*
 * The same for a file or block device that is open, and is taken over, also on failure; cfg->path
 * is its name in messages, and there is no overlay. It opens nothing, and waits for nobody.
 */
int disk_adopt(struct disk **ret, const struct disk_config *cfg, int fd, struct ring *ring,
	struct err *e);
/*
 * The process that has the image @path locked, which disk_open() refused with -EBUSY; 0: us, or
 * nobody knows.
 */
long disk_owner(const char *path);
/*
 * No op is under way; the ring is still there. NULL is fine. A named overlay to which something
 * was written since the last flush is synced, which may take a while.
 */
void disk_close(struct disk **d);
/*
 * Gives the locks up, for a process that ends: the kernel takes a while to close a ring, and the
 * files it holds. No op is under way, and none follows.
 */
void disk_release(struct disk *d);

u64 disk_size(const struct disk *d); /* bytes, a multiple of DISK_SECTOR */
/* The unit (bytes) in which I/O is cheap: logical block size, 512 where nothing is known. */
u32 disk_block_size(const struct disk *d);
bool disk_read_only(const struct disk *d);
bool disk_can_discard(const struct disk *d); /* discard frees space (punch hole, BLKDISCARD) */
bool disk_can_zero(const struct disk *d);    /* write-zeroes is better than writing zeroes */
enum disk_sync disk_sync(const struct disk *d);
/* Looks at the file again: its size may have changed. Returns the new size. */
u64 disk_refresh(struct disk *d);

/* A range of bytes that an op works on, see disk_hold.c. */
struct disk_hold {
	u64 lo, hi;
	bool exclusive, held;
	void (*go)(struct disk_hold *h);
	TAILQ_ENTRY(disk_hold) link;
};

/*
 * One request. @done gets 0, or a negative errno (EIO also where the file ends too early); all
 * bytes were transferred or the request failed. Callbacks run from the ring, never from the
 * function that queued the request. Several may be under way, in no order.
 */
struct disk_op {
	void (*done)(struct disk_op *op, int res);
	/* The rest belongs to the disk; all zero before the first use, then left alone. */
	struct disk *disk;
	struct ring_op ring;
	u8 what, retries;
	bool durable, unmap, cancelled;
	int res;                 /* of an op whose end was put off */
	u64 off, at, count;      /* bytes done, of count */
	const struct iovec *iov; /* the caller's */
	unsigned iov_count;
	struct disk_hold hold;   /* keeps what conflicts with this one apart from it */
	TAILQ_ENTRY(disk_op) link;
	void *extra;             /* bounce buffer, overlay walk */
};

/*
 * @iov (@n entries, @len bytes in all) must stay alive until done: it may point into guest RAM.
 * @off and @len are multiples of DISK_SECTOR, buffers need not be. @durable: complete only once it
 * is on stable storage (RWF_DSYNC), for a guest that cannot flush.
 */
void disk_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len);
void disk_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len, bool durable);
void disk_flush(struct disk *d, struct disk_op *op);
/* Discarded sectors read as anything, later. Space is freed where it can be; 0 where it cannot. */
void disk_discard(struct disk *d, struct disk_op *op, u64 off, u64 len);
/* Afterwards the range reads as zeroes. @unmap: space may be freed. */
void disk_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable);
/* Asks the kernel to end it early; its callback still runs. */
void disk_cancel(struct disk *d, struct disk_op *op);

/* Which file this is, as far as can be known without reading it; for snapshots. */
struct disk_identity {
	u64 dev, ino, size, mtime_ns; /* of a block device: rdev, 0, size, 0 */
};
void disk_identity(const struct disk *d, struct disk_identity *ret);

/*
 * Waits until everything written is on stable storage. Any thread, while no op is under way; may
 * take long: snapshots call it from their worker.
 */
int disk_sync_now(struct disk *d, struct err *e);
/*
 * Copies the overlay's data (sparse stays sparse) to the empty file @fd, which is open for writing
 * and stays the caller's, and syncs it, under the same conditions. The disk has an overlay.
 */
int disk_save_overlay(struct disk *d, int fd, struct err *e);

#endif
