/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_disk.h - virtio/disk.h without a file: each operation waits until the input lets it end, in
 * any order, with any result. Linked in place of virtio/disk.c.
 *
 * What disk.h asks of its caller is must(): ranges inside the disk, whole sectors, buffers that
 * hold what is moved, no writing to a read-only disk, no operation twice. No data is kept: what a
 * read gives is made up, and told to the target, which knows what each buffer is for.
 */
#ifndef KELVIN_TESTS_FUZZ_DISK_H
#define KELVIN_TESTS_FUZZ_DISK_H

#include "virtio/disk.h"

#define FD_OPS 256u

enum fd_what { FD_READ, FD_WRITE, FD_FLUSH, FD_DISCARD, FD_ZEROES };

struct fd_entry {
	enum fd_what what;
	struct disk_op *op;
	const struct iovec *iov;
	unsigned n;
	u64 off, len;
	bool durable, unmap;
	bool cancelled;
};

struct disk {
	u64 size, next_size; /* the second is what disk_refresh() will find */
	u32 block_size;
	bool read_only, can_discard, can_zero;
	enum disk_sync sync;
	bool hold;           /* nothing ends */
	unsigned count;
	struct fd_entry entry[FD_OPS];
};

/* A disk of @sectors; @how has a bit for each property that differs from the usual. */
struct disk *fd_new(u64 sectors, u8 how);
/* Ends the operation @which (modulo how many there are) with @res. False where there is none. */
bool fd_end(struct disk *d, unsigned which, int res);
/* Ends all, unless they are held. Returns how many. */
unsigned fd_end_all(struct disk *d);
/* Open disks. */
extern unsigned fd_open_disks;
/* Called when an operation is queued, and when its transfer happens (the target fills buffers). */
extern void (*fd_queued)(const struct fd_entry *e);
extern void (*fd_moves)(const struct fd_entry *e);

#endif
