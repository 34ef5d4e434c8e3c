/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c - see disk.h: the functions devices call, passed on to the file or to the overlay.
 */
#include "virtio/disk.h"

#include <sys/stat.h>

#include "monitor/base/arith.h"
#include "virtio/overlay_int.h"

int disk_open(struct disk **ret, const struct disk_config *cfg, struct ring *ring, struct err *e)
{
	struct raw_config raw = {
		.path = cfg->path,
		.read_only = cfg->read_only,
		.sync = cfg->sync,
		.fd = -1,
	};

	if (cfg->overlay || cfg->saved_overlay || cfg->overlay_dir)
		return overlay_open(ret, cfg, ring, e);
	return raw_open(ret, &raw, ring, e);
}

int disk_adopt(struct disk **ret, const struct disk_config *cfg, int fd, struct ring *ring,
	struct err *e)
{
	struct raw_config raw = {
		.path = cfg->path,
		.read_only = cfg->read_only,
		.sync = cfg->sync,
		.fd = fd,
	};

	must(!cfg->overlay && !cfg->saved_overlay && !cfg->overlay_dir);
	return raw_open(ret, &raw, ring, e);
}

void disk_close(struct disk **d)
{
	if (*d && (*d)->overlay)
		overlay_close(*d);
	raw_close(d);
}

u64 disk_size(const struct disk *d)
{
	return d->size;
}

u32 disk_block_size(const struct disk *d)
{
	return d->block_size;
}

bool disk_read_only(const struct disk *d)
{
	return d->read_only;
}

bool disk_can_discard(const struct disk *d)
{
	return !d->read_only && !(d->overlay ? d->overlay->top : d)->no_punch;
}

bool disk_can_zero(const struct disk *d)
{
	const struct disk *top = d->overlay ? d->overlay->top : d;

	return !d->read_only && !(top->no_punch && top->no_zero_range);
}

enum disk_sync disk_sync(const struct disk *d)
{
	return d->sync;
}

u64 disk_refresh(struct disk *d)
{
	u64 old = d->size;

	if (d->overlay) /* has a place for each cluster that there was, and no other */
		return d->size;
	if (raw_measure(d, NULL) < 0)
		d->size = old;
	return d->size;
}

void disk_read(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len)
{
	if (d->overlay) {
		must(range_ok(off, len, d->size));
		overlay_read(d->overlay, op, iov, n, off, len);
	} else {
		raw_read(d, op, iov, n, off, len);
	}
}

void disk_write(struct disk *d, struct disk_op *op, const struct iovec *iov, unsigned n, u64 off,
	u32 len, bool durable)
{
	must(!d->read_only);
	if (d->overlay) {
		must(range_ok(off, len, d->size));
		overlay_write(d->overlay, op, iov, n, off, len, durable);
	} else {
		raw_write(d, op, iov, n, off, len, durable);
	}
}

void disk_flush(struct disk *d, struct disk_op *op)
{
	if (d->overlay)
		overlay_flush(d->overlay, op);
	else
		raw_flush(d, op);
}

void disk_discard(struct disk *d, struct disk_op *op, u64 off, u64 len)
{
	must(!d->read_only);
	if (d->overlay) {
		must(range_ok(off, len, d->size));
		overlay_discard(d->overlay, op, off, len);
	} else {
		raw_discard(d, op, off, len);
	}
}

void disk_write_zeroes(struct disk *d, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable)
{
	must(!d->read_only);
	if (d->overlay) {
		must(range_ok(off, len, d->size));
		overlay_write_zeroes(d->overlay, op, off, len, unmap, durable);
	} else {
		raw_write_zeroes(d, op, off, len, unmap, durable);
	}
}

void disk_cancel(struct disk *d, struct disk_op *op)
{
	if (d->overlay)
		overlay_cancel(d->overlay, op);
	else
		raw_cancel(d, op);
}

void disk_identity(const struct disk *d, struct disk_identity *ret)
{
	struct stat st = {0};

	if (d->overlay) {
		disk_identity(d->overlay->base, ret);
		return;
	}
	*ret = (struct disk_identity){.size = d->size};
	if (fstat(d->fd, &st) < 0)
		return;
	if (d->is_block) {
		ret->dev = st.st_rdev;
		return;
	}
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	ret->mtime_ns = (u64)st.st_mtim.tv_sec * 1000000000u + (u64)st.st_mtim.tv_nsec;
}

int disk_sync_now(struct disk *d, struct err *e)
{
	return d->overlay ? overlay_sync_now(d->overlay, e) : raw_sync_now(d, e);
}

int disk_save_overlay(struct disk *d, int fd, struct err *e)
{
	must(d->overlay);
	return overlay_save(d->overlay, fd, e);
}

void disk_release(struct disk *d)
{
	if (d->overlay)
		overlay_release(d->overlay);
	else
		disk_unlock(d->fd);
}
