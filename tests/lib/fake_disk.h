/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_disk.h - the functions of virtio/disk.h over a memfd, with everything that can go wrong.
 *
 * Linked instead of virtio/disk.c. Operations wait in a list until fake_disk_step(), which the
 * test's loop calls once a turn; their transfers happen then, as late as a kernel may do them. The
 * test decides in which order they are done, how many in a step, and which of them fail. Every rule
 * of disk.h for the caller is checked: breaking one ends the program.
 */
#ifndef KELVIN_TESTS_FAKE_DISK_H
#define KELVIN_TESTS_FAKE_DISK_H

#include "virtio/disk.h"

#define FAKE_OPS_MAX 1024u
#define FAKE_LOG_MAX 4096u
#define FAKE_STABLE  64u

enum fake_what { FAKE_READ, FAKE_WRITE, FAKE_FLUSH, FAKE_DISCARD, FAKE_ZEROES, FAKE_KINDS };

/* What was asked of the disk, in this order. */
struct fake_entry {
	enum fake_what what;
	u64 off, len;
	bool durable, unmap;
};

struct disk {
	int fd;
	u64 size, next_size; /* the second is what disk_refresh() will find */
	u32 block_size;
	bool read_only, can_discard, can_zero;
	enum disk_sync sync;

	bool hold;         /* nothing is done at all */
	bool no_cancel;    /* disk_cancel() does nothing; else what it names is done next */
	u32 shuffle;       /* not 0: in random order, a random number each step */
	enum fake_what fail_what;
	unsigned fail_in;  /* 1: the next of that kind fails, 2: the one after it, ... 0: none */
	int fail_res;      /* by this, after half of it was transferred */

	unsigned count;    /* under way */
	struct disk_op *op[FAKE_OPS_MAX];
	u64 bytes[FAKE_OPS_MAX]; /* of that op */
	unsigned log_count;      /* at most FAKE_LOG_MAX are kept */
	struct fake_entry log[FAKE_LOG_MAX];
	unsigned done[FAKE_KINDS]; /* without error */
	unsigned cancelled;
	u64 discarded;     /* bytes; discards write 0xdd */

	/* The first word of the first sectors: now, and what a loss of power would leave. A flush
	 * makes stable what was written when it was started, and not a word more. */
	u32 now[FAKE_STABLE], stable[FAKE_STABLE];
	u32 at_flush[FAKE_OPS_MAX][FAKE_STABLE];
};

/* Open disks, to see that none leaks. */
extern unsigned fake_disks_open;

/* A writeback disk of @sectors sectors, all zero, which can discard and zero. */
struct disk *fake_disk_new(u64 sectors);
/* Does what is to be done in this turn. Returns how many callbacks ran. */
unsigned fake_disk_step(struct disk *d);
/* The bytes on the disk. */
void fake_disk_get(struct disk *d, u64 off, void *dst, u64 len);
void fake_disk_put(struct disk *d, u64 off, const void *src, u64 len);
/* Whether @len bytes at @off all are @byte. */
bool fake_disk_is(struct disk *d, u64 off, u64 len, u8 byte);

#endif
