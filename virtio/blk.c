/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.c - the block device: what it offers, and what drives it.
 *
 * Theory of operation
 *
 * The transport (mmio.c) is above, the disk (disk.c) below; blk_req.c carries a request from one to
 * the other and back. This file has what is not a request: config space, the turns of the loop, the
 * limits, reset, snapshot, and changes of the disk while the guest runs.
 *
 * Turns. Each turn of the loop blk_run() takes a burst of chains from each queue and starts it; the
 * disk's callbacks collect what is done, and at the end of the turn it goes to the used rings. So
 * while the kernel works on one burst the driver sees to the one before, on another processor; a
 * ring's worth at a time they would wait for each other. With a limit the queues are asked in turn
 * for one chain each, so that none starves for another's tokens. A chain without tokens goes back
 * to its queue, which is not looked at before the timer: nothing is held by a device that waits, so
 * a reset, a pause or a snapshot finds nothing special.
 *
 * Reset. reset() runs on a vCPU thread, where the ring cannot be touched. What is with the disk
 * then is cancelled by the loop (process()) and waited for by the transport. A write that was
 * cancelled may have been done, or not, or by halves: the driver gave it up.
 *
 * Read-only is what the disk is, whatever the driver acknowledged. Discard and write-zeroes are
 * offered where the disk can do them. FLUSH is not offered with DISK_UNSAFE, against the advice of
 * the specification, so that a guest does not wait for promises nobody keeps.
 *
 * Snapshot. Saved is what the guest has read from config space: capacity, block size, read-only.
 * The disk of the restored device must fit that; one that grew is announced. No request is under
 * way then, so there are no heads in flight.
 */
#include "virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/clock.h"
#include "virtio/blk_int.h"

#define ID_LEN_MAX 64u
#define CONFIG_LEN (offsetof(struct virtio_blk_config, unused1) + 3)

/* What a device with this disk offers. */
static u64 features_of(const struct disk *disk, unsigned queues)
{
	u64 f = BLK_MASK(SEG_MAX) | BLK_MASK(BLK_SIZE);

	if (disk_sync(disk) != DISK_UNSAFE)
		f |= BLK_MASK(FLUSH);
	if (queues > 1)
		f |= BLK_MASK(MQ);
	if (disk_read_only(disk))
		return f | BLK_MASK(RO);
	if (disk_can_discard(disk))
		f |= BLK_MASK(DISCARD);
	if (disk_can_zero(disk))
		f |= BLK_MASK(WRITE_ZEROES);
	return f;
}

static void config_read(struct virtio_dev *d, u32 off, void *dst, u32 len)
{
	const struct blk *b = blk_of(d);
	u32 block = disk_block_size(b->disk);
	const struct virtio_blk_config cfg = {
		.capacity = htole64(b->capacity),
		.seg_max = htole32(BLK_SEG_MAX),
		.blk_size = htole32(block),
		.num_queues = htole16((u16)d->queue_count),
		.max_discard_sectors = htole32(BLK_DISCARD_SECTORS),
		.max_discard_seg = htole32(BLK_RANGES_MAX),
		.discard_sector_alignment = htole32(block / DISK_SECTOR),
		.max_write_zeroes_sectors = htole32(BLK_ZEROES_SECTORS),
		.max_write_zeroes_seg = htole32(BLK_RANGES_MAX),
		.write_zeroes_may_unmap = disk_can_discard(b->disk),
	};

	memcpy(dst, (const u8 *)&cfg + off, len);
}

/* Limits. */

static void set_timer(struct blk *b)
{
	u64 now_ns;

	if (b->timer_op.busy) {
		/* Too late? Its callback sets it again. */
		if (b->timer_at_ns > b->due_ns) {
			b->timer_at_ns = 0;
			ring_cancel(b->ring, &b->timer_op);
		}
		return;
	}
	now_ns = monotonic_ns();
	b->timer_at_ns = b->due_ns;
	ring_timeout(b->ring, &b->timer_op, &b->timer_ts,
		b->due_ns > now_ns ? b->due_ns - now_ns : 0);
}

static void timer_done(struct ring_op *op, int res)
{
	struct blk *b = container_of(op, struct blk, timer_op);

	pthread_mutex_lock(&b->dev.lock);
	if (b->waiting && monotonic_ns() < b->due_ns) {
		set_timer(b);
	} else if (b->waiting) {
		b->waiting = false;
		blk_run(b);
	}
	pthread_mutex_unlock(&b->dev.lock);
}

void blk_wait_until(struct blk *b, u64 due_ns)
{
	b->waiting = true;
	b->due_ns = due_ns;
	set_timer(b);
}

void blk_set_limit(struct virtio_dev *d, const struct limit_config *cfg)
{
	struct blk *b = blk_of(d);

	pthread_mutex_lock(&d->lock);
	limit_init(&b->limit, cfg, monotonic_ns());
	b->limited = limit_is_on(&b->limit);
	b->waiting = false;
	blk_run(b);
	pthread_mutex_unlock(&d->lock);
}

/* The disk. */

static void swap(struct blk *b)
{
	struct virtio_dev *d = &b->dev;

	disk_close(&b->disk);
	b->disk = b->next_disk;
	b->next_disk = NULL;
	b->capacity = disk_size(b->disk) / DISK_SECTOR;
	d->features = features_of(b->disk, d->queue_count);
	virtio_config_changed(d);
	blk_run(b);
}

void blk_drained(struct blk *b)
{
	if (b->next_disk)
		swap(b);
}

int blk_swap(struct virtio_dev *d, struct disk *disk, struct err *e)
{
	struct blk *b = blk_of(d);
	u64 lost = 0;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	if (d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		lost = d->driver_features & d->features & ~features_of(disk, d->queue_count);
	if (b->next_disk) {
		r = err_set(e, -EBUSY, "another disk is about to be put in already");
	} else if (disk_read_only(b->disk) && !disk_read_only(disk)) {
		r = err_set(e, -EINVAL, "the disk is read-only, and so must be the new one");
	} else if (lost) {
		r = err_set(e, -EINVAL, "the guest uses what the new disk cannot do:%s%s%s",
			lost & BLK_MASK(FLUSH) ? " flush" : "",
			lost & BLK_MASK(DISCARD) ? " discard" : "",
			lost & BLK_MASK(WRITE_ZEROES) ? " write-zeroes" : "");
	} else {
		b->next_disk = disk;
		if (!d->io_count)
			swap(b);
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

u64 blk_resize(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);
	u64 size;

	pthread_mutex_lock(&d->lock);
	size = disk_refresh(b->disk);
	if (b->capacity != size / DISK_SECTOR) {
		b->capacity = size / DISK_SECTOR;
		virtio_config_changed(d);
	}
	pthread_mutex_unlock(&d->lock);
	return size;
}

struct disk *blk_disk(const struct virtio_dev *d)
{
	return container_of(d, const struct blk, dev)->disk;
}

void blk_stats(const struct virtio_dev *d, struct blk_stats *ret)
{
	*ret = container_of(d, const struct blk, dev)->stats;
}

/* Virtio. */

static void reset(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);

	b->waiting = false;
	if (d->io_count) {
		b->cancel = true;
		virtio_schedule(d);
	}
}

static void process(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);

	if (b->cancel) {
		b->cancel = false;
		if (d->resetting)
			blk_cancel_all(b);
	}
	blk_run(b);
}

static void save(struct virtio_dev *d, struct enc *out)
{
	const struct blk *b = blk_of(d);

	enc_u64(out, b->capacity);
	enc_u32(out, disk_block_size(b->disk));
	enc_u8(out, disk_read_only(b->disk));
}

static int load(struct virtio_dev *d, struct dec *in, struct err *e)
{
	struct blk *b = blk_of(d);
	u64 capacity = dec_u64(in);
	u32 block = dec_u32(in);
	u8 read_only = dec_u8(in);

	if (in->bad)
		return err_set(e, -EINVAL, "ends too early");
	if (capacity > b->capacity)
		return err_set(e, -EINVAL, "capacity: %llu sectors, but the disk has only %llu",
			(unsigned long long)capacity, (unsigned long long)b->capacity);
	if (block != disk_block_size(b->disk))
		return err_set(e, -EINVAL, "block_size: %u, but that of the disk is %u", block,
			disk_block_size(b->disk));
	if (read_only != disk_read_only(b->disk))
		return err_set(e, -EINVAL, "read_only: %u, but that of the disk is %u", read_only,
			disk_read_only(b->disk));
	for (unsigned i = 0; i < d->queue_count; i++) {
		if (d->queue[i].in_flight_count)
			return err_set(e, -EINVAL, "in_flight: %u heads in queue %u",
				d->queue[i].in_flight_count, i);
	}
	if (capacity < b->capacity) {
		/* As virtio_config_changed(), but there is nobody yet to interrupt: the first turn
		 * does that. */
		d->config_generation++;
		if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
			d->interrupt_status |= VIRTIO_MMIO_INT_CONFIG;
	}
	/* The queues may hold what nobody kicks for any more. */
	virtio_schedule(d);
	return 0;
}

static void destroy(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);

	blk_req_free_all(b);
	disk_close(&b->next_disk);
	disk_close(&b->disk);
	virtio_finish(d);
	free(b);
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.device_id = VIRTIO_ID_BLOCK,
	.queue_count = 1,
	.config_read = config_read,
	.config_len = CONFIG_LEN,
	.reset = reset,
	.process = process,
	.save = save,
	.load = load,
	.destroy = destroy,
};

static int check_config(const struct blk_config *cfg, struct err *e)
{
	size_t len = strlen(cfg->id);
	size_t good = strspn(cfg->id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789_-");

	if (!len || len > ID_LEN_MAX || good != len)
		return err_set(e, -EINVAL,
			"disk id \"%.70s\": must be 1 to %u letters, digits, - or _", cfg->id,
			ID_LEN_MAX);
	if (!cfg->queues || cfg->queues > VIRTIO_QUEUES_MAX)
		return err_set(e, -EINVAL, "disk %s: %u queues; must be 1 to %u", cfg->id,
			cfg->queues, VIRTIO_QUEUES_MAX);
	return 0;
}

static void init(struct blk *b, const struct blk_config *cfg, struct disk *disk, struct ring *ring)
{
	size_t len = strlen(cfg->id);

	b->ring = ring;
	b->disk = disk;
	b->capacity = disk_size(disk) / DISK_SECTOR;
	memcpy(b->serial, cfg->id, len < BLK_ID_MAX ? len : BLK_ID_MAX);
	b->timer_op.done = timer_done;
	b->dev.queue_count = cfg->queues;
	b->dev.features = features_of(disk, cfg->queues);
	limit_init(&b->limit, &cfg->limit, monotonic_ns());
	b->limited = limit_is_on(&b->limit);
}

int blk_create(struct virtio_dev **ret, const struct blk_config *cfg, struct disk *disk,
	struct ring *ring, const struct mem *mem, struct virtio_irq irq, struct err *e)
{
	unsigned size = cfg->queues * VQ_SIZE_MAX;
	struct blk_req *pool;
	struct blk *b;
	int r = check_config(cfg, e);

	if (r)
		return r;
	/* Zeroed pages that are not touched before that many requests are under way. */
	pool = calloc(size, sizeof(*pool));
	b = calloc(1, sizeof(*b));
	if (!pool || !b)
		r = err_sys(e, ENOMEM, "disk %s", cfg->id);
	else
		r = virtio_init(&b->dev, &blk_ops, mem, irq, e);
	if (r) {
		free(pool);
		free(b);
		return r;
	}
	blk_req_init(b, pool, size);
	init(b, cfg, disk, ring);
	*ret = &b->dev;
	return 0;
}
