/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_guest.h - a block device on a real ring and a fake disk, with a guest's driver around it.
 *
 * One thread: the test plays the guest, and bg_turn() lets the loop run in between. What cannot go
 * wrong in a correct program is asserted here, with the caller's test failing.
 *
 * Each head of a queue has a place of its own in guest memory for header, data and status, so
 * requests may be under way side by side. A test of the real disk does not link fake_disk.c and
 * begins with bg_prepare().
 */
#ifndef KELVIN_TESTS_BLK_GUEST_H
#define KELVIN_TESTS_BLK_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "tests/lib/fake_disk.h"
#include "tests/lib/vq_builder.h"
#include "virtio/blk.h"

#define BG_RAM_LEN  (64ull << 20)
#define BG_QUEUES   8u
#define BG_SIZE     64u      /* entries of a queue */
#define BG_SECTORS  2048u    /* of the disk: 1 MiB */
#define BG_DATA_MAX 0x10000u /* bytes of data of one request */
#define BG_UNSET    0xeeu    /* in a status byte before the device writes it */

#define BG_F(name)  (1ull << VIRTIO_BLK_F_##name)
#define BG_ALL      (VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC | VIRTIO_MASK_EVENT_IDX)

struct bg {
	struct guest_ram ram;
	struct vqb q[BG_QUEUES];
	struct ring *ring;
	struct disk *disk; /* owned by the device */
	struct virtio_dev *dev;
	struct ring_op kick_op;
	u64 kick_count;
	unsigned irqs; /* raised so far; atomic */
	unsigned queues;
	u64 features; /* what bg_driver() accepts */
	struct limit_config limit;
};

/* Memory, ring, a new disk and a device with @queues queues; no driver yet. */
void bg_make(struct bg *g, unsigned queues);
/* The same with this disk. */
void bg_make_on(struct bg *g, unsigned queues, struct disk *disk);
/* The same in two steps: memory and ring, then the device. */
void bg_prepare(struct bg *g, unsigned queues);
void bg_attach(struct bg *g, struct disk *disk);
/* The driver: all queues, g->features, DRIVER_OK. */
void bg_driver(struct bg *g);
/* bg_make() and bg_driver() with one queue and all that is offered. */
void bg_init(struct bg *g);
void bg_finish(struct bg *g);
/* Freezes, waits for what is under way, saves, thaws. */
void bg_save(struct bg *g, struct enc *out);
/* Another device, on @disk, in the place of the one there. Returns what virtio_load() did. */
int bg_restore(struct bg *g, const struct enc *saved, struct disk *disk, struct err *e);

/* One turn of the loop and one step of the disk, without waiting. */
unsigned bg_turn(struct bg *g);
/* Turns until nothing happens any more. */
void bg_settle(struct bg *g);
/* Turns until @cond holds, for 3 s at most. */
#define BG_UNTIL(g, cond)                                                                          \
	do {                                                                                       \
		u64 end_ = bg_now_ms() + 3000;                                                     \
		while (!(cond)) {                                                                  \
			if (bg_now_ms() > end_)                                                    \
				fail_msg("never: %s", #cond);                                      \
			bg_turn(g);                                                                \
		}                                                                                  \
	} while (0)
u64 bg_now_ms(void);

/* Where the next chain of this queue has its header, data and status. */
struct bg_place {
	u64 hdr_gpa, data_gpa, status_gpa;
};
struct bg_place bg_place(struct bg *g, unsigned queue);
struct bg_place bg_place_of(unsigned queue, u16 head);
/* Writes a header, and BG_UNSET where the status will be, for the next chain. */
struct bg_place bg_header(struct bg *g, unsigned queue, u32 type, u64 sector);
/* Offers any chain and kicks if the device wants it. */
u16 bg_chain(struct bg *g, unsigned queue, const struct vqb_buf *buf, u16 n);
/* Header, @len bytes of data (from @data if the device is to read it), status. */
u16 bg_add(struct bg *g, unsigned queue, u32 type, u64 sector, const void *data, u32 len);
void bg_kick(struct bg *g, unsigned queue);

/* Settles; the next used element must be @head with this status and length. */
void bg_expect(struct bg *g, unsigned queue, u16 head, u8 status, u32 used_len);
/* bg_add() and waiting for its end on queue 0. Returns the status; @data is read or written. */
u8 bg_do(struct bg *g, u32 type, u64 sector, void *data, u32 len);
u32 bg_config32(struct bg *g, u32 off);
void bg_stats(struct bg *g, struct blk_stats *ret);

#endif
