/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_int.h - a disk of two or three layers: base, maybe a saved overlay, and the one on top.
 *
 * The overlay file, all numbers little-endian; overlay.c says what the maps mean:
 *
 *      0  8  magic "kelvinov"
 *      8  4  version, 1
 *     12  4  bytes of a cluster, 4096
 *     16 32  the base: dev, ino, size, mtime_ns (struct disk_identity)
 *     48 32  the saved overlay below, likewise; all 0: none
 *     80 40  boot id of the kernel for which map A is valid, NUL-padded; all 0: none
 *    120  8  FNV-1a of bytes 0..119
 *   4096  m  map A: bit c % 8 of byte c / 8 says that cluster c is here; m is whole pages
 * 4096+m  m  map B
 *  +2m  ...  the clusters, each at its place, with holes
 */
#ifndef KELVIN_VIRTIO_OVERLAY_INT_H
#define KELVIN_VIRTIO_OVERLAY_INT_H

#include "virtio/disk_int.h"

#define OVERLAY_CLUSTER  4096u
#define OVERLAY_HEAD     4096u
#define OVERLAY_MAP_PAGE 4096u /* maps are written to the file in such pieces, at most */

struct overlay {
	struct disk *d;                 /* whose overlay this is */
	struct disk *base, *saved, *top; /* saved may be NULL */
	struct disk *maps; /* top's file, without O_DIRECT; NULL: unnamed, its maps are not kept */
	u64 clusters, map_len; /* map_len: bytes, whole pages */
	u64 map_off[2];        /* of A and B in the file */
	u64 data_off;          /* the same in all overlays of one base */

	u8 *map;       /* clusters that are in top, and map A in the file says so */
	u8 *saved_map; /* in saved */
	u8 *written;   /* map A as it is or is just being written: has all of map */
	u8 *durable;   /* map B, as of the last flush or the one under way: map has all of it */
	u8 *page_stale; /* pages of map that have more than durable has */
	u8 *page_todo;  /* pages of durable that the flush under way has to write */
	u64 pages;

	bool flushing;
	struct disk_ops flush_waiting, flush_running;
	struct disk_op flush_op;
	u64 flush_page;
	bool flush_wrote;
	struct iovec flush_iov;
};

static inline bool overlay_bit(const u8 *map, u64 cluster)
{
	return map[cluster / 8] >> (cluster % 8) & 1;
}

/* overlay_file.c */
int overlay_open(struct disk **ret, const struct disk_config *cfg, struct ring *ring,
	struct err *e);
void overlay_close(struct disk *d); /* all but @d itself */
void overlay_release(struct overlay *o);
int overlay_sync_now(struct overlay *o, struct err *e);
/* All of it, or a negative errno. */
int overlay_pread(int fd, void *buf, u64 len, u64 off);
int overlay_pwrite(int fd, const void *buf, u64 len, u64 off);
/* Where the running kernel's boot id is; tests put another one there. */
extern const char *overlay_boot_file;

/* overlay_save.c */
int overlay_save(const struct overlay *o, int fd, struct err *e);

/* overlay_head.c */
struct overlay_head {
	struct disk_identity base, saved;
	char boot[40];
};
#define OVERLAY_HEAD_LEN 128u
void overlay_head_encode(const struct overlay_head *h, u8 out[OVERLAY_HEAD_LEN]);
/* Fails with a reason that fits behind "overlay F: ". */
int overlay_head_decode(struct overlay_head *h, const u8 in[OVERLAY_HEAD_LEN], struct err *e);

/* overlay.c: as disk.h's. */
void overlay_init(struct overlay *o);
void overlay_read(struct overlay *o, struct disk_op *op, const struct iovec *iov, unsigned n,
	u64 off, u64 len);
void overlay_write(struct overlay *o, struct disk_op *op, const struct iovec *iov, unsigned n,
	u64 off, u64 len, bool durable);
void overlay_flush(struct overlay *o, struct disk_op *op);
void overlay_discard(struct overlay *o, struct disk_op *op, u64 off, u64 len);
void overlay_write_zeroes(struct overlay *o, struct disk_op *op, u64 off, u64 len, bool unmap,
	bool durable);
void overlay_cancel(struct overlay *o, struct disk_op *op);
/* Puts the pages of map that are stale into durable, and marks them in page_todo. */
void overlay_collect(struct overlay *o);

#endif
