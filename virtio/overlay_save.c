/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_save.c - copies an overlay, for a snapshot.
 *
 * The copy stands alone over the base: what this disk has only in the saved overlay below its own
 * goes into it, too. Where the file system can share blocks between files it does, and nothing is
 * read; holes stay holes. Only map B is written, and no boot id, so that whoever opens it takes
 * that map, under any kernel. No requests are under way, so the maps in memory are what counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "virtio/overlay_int.h"

#define COPY_BUF (256u << 10)

/* Read and write, where the kernel cannot copy between the two files. Aligned, for O_DIRECT. */
static int copy_by_hand(int from, int to, u64 off, u64 len)
{
	_cleanup_free_ u8 *buf = aligned_alloc(OVERLAY_CLUSTER, COPY_BUF);
	int res = buf ? 0 : -ENOMEM;

	while (!res && len) {
		u64 n = len < COPY_BUF ? len : COPY_BUF;

		res = overlay_pread(from, buf, n, off);
		if (!res)
			res = overlay_pwrite(to, buf, n, off);
		off += n;
		len -= n;
	}
	return res;
}

static int copy_range(int from, int to, u64 off, u64 len)
{
	while (len) {
		off_t in = (off_t)off, out = (off_t)off;
		/* syscalls[W]: copy_file_range */
		ssize_t n = copy_file_range(from, &in, to, &out, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return copy_by_hand(from, to, off, len);
		off += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

/* All that is no hole in [@off, @end), to the same place; both are multiples of a cluster. */
static int copy_data(int from, int to, u64 off, u64 end)
{
	int res = 0;

	while (!res && off < end) {
		off_t data = lseek(from, (off_t)off, SEEK_DATA), hole;
		u64 next;

		if (data < 0 && errno == ENXIO)
			return 0;
		hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return copy_range(from, to, off, end - off);
		if ((u64)data >= end)
			break;
		/* Small blocks have small holes, but O_DIRECT wants whole clusters. */
		off = align_down((u64)data, OVERLAY_CLUSTER);
		next = align_up((u64)hole, OVERLAY_CLUSTER);
		next = next < end ? next : end;
		res = copy_range(from, to, off, next - off);
		off = next;
	}
	return res;
}

/* What is only in the saved overlay. */
static int copy_saved(const struct overlay *o, int to)
{
	u64 c = 0, first;
	int res = 0;

	while (!res && c < o->clusters) {
		for (first = c; c < o->clusters; c++)
			if (!overlay_bit(o->saved_map, c) || overlay_bit(o->map, c))
				break;
		if (c > first)
			res = copy_data(o->saved->fd, to, o->data_off + first * OVERLAY_CLUSTER,
				o->data_off + c * OVERLAY_CLUSTER);
		c++;
	}
	return res;
}

/* A cloned map B has less than this, if anything. */
static int write_map(const struct overlay *o, int to)
{
	static const u8 empty[OVERLAY_MAP_PAGE];
	u8 page[OVERLAY_MAP_PAGE];
	int res = 0;

	for (u64 at = 0; !res && at < o->map_len; at += sizeof(page)) {
		for (unsigned i = 0; i < sizeof(page); i++)
			page[i] = o->map[at + i] | (o->saved ? o->saved_map[at + i] : 0);
		if (memcmp(page, empty, sizeof(page)) != 0)
			res = overlay_pwrite(to, page, sizeof(page), o->map_off[1] + at);
	}
	return res;
}

static int copy_all(const struct overlay *o, int to)
{
	u64 end = o->data_off + o->clusters * OVERLAY_CLUSTER;
	struct overlay_head h = {0};
	u8 head[OVERLAY_HEAD_LEN];
	int res = 0;

	disk_identity(o->base, &h.base);
	overlay_head_encode(&h, head);
	/* syscalls[W]: ioctl(FICLONE), ftruncate, fsync */
	if (ioctl(to, FICLONE, o->top->fd) < 0) {
		if (ftruncate(to, (off_t)end) < 0)
			return -errno;
		res = copy_data(o->top->fd, to, o->data_off, end);
	}
	if (!res && o->saved)
		res = copy_saved(o, to);
	if (!res)
		res = write_map(o, to);
	if (!res)
		res = overlay_pwrite(to, head, sizeof(head), 0);
	if (!res && fsync(to) < 0)
		res = -errno;
	return res;
}

int overlay_save(const struct overlay *o, int fd, struct err *e)
{
	int res = copy_all(o, fd);

	return res < 0 ? err_sys(e, -res, "cannot copy overlay %s", o->top->path) : 0;
}
