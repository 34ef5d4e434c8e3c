/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.h - virtio-blk (virtio 1.2, 5.2): a disk for the guest.
 *
 * Offers RO, BLK_SIZE, SEG_MAX, FLUSH (not with DISK_UNSAFE), DISCARD, WRITE_ZEROES and MQ. A
 * driver without FLUSH gets write-through: each write is on stable storage before it is completed.
 */
#ifndef KELVIN_VIRTIO_BLK_H
#define KELVIN_VIRTIO_BLK_H

#include "virtio/device.h"
#include "virtio/disk.h"
#include "virtio/limit.h"

#define BLK_ID_MAX 20u /* bytes of the serial that GET_ID tells, without a NUL */

struct blk_config {
	const char *id;  /* [A-Za-z0-9_-], 1 .. 64; GET_ID tells its first BLK_ID_MAX bytes */
	unsigned queues; /* 1 .. VIRTIO_QUEUES_MAX */
	struct limit_config limit;
};

struct blk_stats {
	u64 reads, writes, flushes, discards, zeroes;
	u64 read_bytes, write_bytes;
	u64 failed, rejected, throttled;
};

/* Makes the device; the disk is its own on success. */
int blk_create(struct virtio_dev **ret, const struct blk_config *cfg, struct disk *disk,
	struct ring *ring, const struct mem *mem, struct virtio_irq irq, struct err *e);
struct disk *blk_disk(const struct virtio_dev *d);
/* Loop thread. */
void blk_stats(const struct virtio_dev *d, struct blk_stats *ret);
void blk_set_limit(struct virtio_dev *d, const struct limit_config *cfg);
/*
 * Looks at the disk's size again, tells the guest by a config interrupt if it changed. Returns the
 * size in bytes.
 */
u64 blk_resize(struct virtio_dev *d);
/*
 * Puts another disk in the place of this one, once no request is under way, and tells the guest;
 * the old one is closed then. The new one must be read-only if the old one was, and offer what was
 * negotiated (-EINVAL otherwise, and -EBUSY while an earlier swap waits).
 */
int blk_swap(struct virtio_dev *d, struct disk *disk, struct err *e);

#endif
