/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vq_builder.h - the driver's side of a virtqueue, for tests of the device's side.
 *
 * Three layers, each usable alone:
 *
 *   guest_ram   guest memory in a memfd, with a PROT_NONE page right before and right after each
 *               region: an overrun by one byte faults, also without a sanitizer. Gives a
 *               `struct mem` for the code under test.
 *   vqb         a split ring in that memory as a driver sees it: builds chains, makes them
 *               available, takes used elements back. What a correct driver never does is possible
 *               through the vqb_set_*() functions, which write any value at any place.
 *   drv         the same driver's talk to the register window: negotiate, set up queues, reset.
 *
 * A typical test:
 *
 *	struct guest_ram ram;
 *	struct vqb b;
 *	struct vq q = {.mem = &ram.mem, .size_max = VQ_SIZE_MAX};
 *
 *	guest_ram_init(&ram, 1 << 20, 0);
 *	vqb_init(&b, &ram, 0x1000, 8);
 *	vqb_attach(&b, &q);                  (or drv_queue(&dev, 0, &b) for a whole device)
 *	assert_true(vq_enable(&q));
 *	head = vqb_add(&b, (struct vqb_buf[]){VQB_R(0x8000, 44), VQB_W(0x9000, 512)}, 2);
 *	... device runs ...
 *	assert_true(vqb_used(&b, &head, &len));
 *	guest_ram_finish(&ram);
 *
 * All loads and stores of ring fields are atomic, so the driver's side may run in its own thread.
 * A mistake in the use of this library ends the program.
 */
#ifndef KELVIN_TESTS_VQ_BUILDER_H
#define KELVIN_TESTS_VQ_BUILDER_H

#include <linux/virtio_ring.h>

#include "virtio/device.h"

/* Guest RAM. */

struct guest_ram {
	struct mem mem; /* hand &ram.mem to the code under test */
	u8 *guard[MEM_REGIONS];
};

/*
 * RAM of @low_len bytes at 0 and, if @high_len is not 0, @high_len bytes at MEM_HIGH_GPA; both
 * multiples of MEM_PAGE. All zero.
 */
void guest_ram_init(struct guest_ram *ram, u64 low_len, u64 high_len);
void guest_ram_finish(struct guest_ram *ram);
/* The test's own pointer to guest bytes; the range must be RAM. */
void *guest_at(struct guest_ram *ram, u64 gpa, u64 len);
void guest_write(struct guest_ram *ram, u64 gpa, const void *src, u64 len);
void guest_read(struct guest_ram *ram, u64 gpa, void *dst, u64 len);
/* Sets @len bytes to @byte, for instance to poison what must not be read any more. */
void guest_fill(struct guest_ram *ram, u64 gpa, u64 len, u8 byte);
/* Whether @len bytes all are @byte still. */
bool guest_is(struct guest_ram *ram, u64 gpa, u64 len, u8 byte);

/* A split ring. */

struct vqb {
	struct guest_ram *ram;
	u16 size;
	u64 desc_gpa, avail_gpa, used_gpa;
	u64 end_gpa;    /* first byte behind the used ring, rounded up to a page */
	u16 avail_idx;  /* as published by vqb_publish(); entries offered count here at once */
	u16 used_seen;  /* used elements taken so far */
	u16 free_count; /* descriptors not in a chain */
	u16 free[VQ_SIZE_MAX];
	u16 chain_len[VQ_SIZE_MAX];               /* of the chain with this head */
	u16 chain[VQ_SIZE_MAX][VQ_SIZE_MAX];      /* its descriptors */
};

/* One buffer of a chain. */
struct vqb_buf {
	u64 gpa;
	u32 len;
	bool device_writes;
};
#define VQB_R(gpa_, len_) ((struct vqb_buf){(gpa_), (len_), false})
#define VQB_W(gpa_, len_) ((struct vqb_buf){(gpa_), (len_), true})

/*
 * Lays out descriptors, avail ring and used ring of @size entries one after the other, each with
 * the alignment the specification asks for, from @gpa (page-aligned) to b->end_gpa, and zeroes
 * them. @size is a power of two, at most VQ_SIZE_MAX.
 */
void vqb_init(struct vqb *b, struct guest_ram *ram, u64 gpa, u16 size);
/* The same, with the parts where the test wants them; nothing is zeroed. */
void vqb_init_at(struct vqb *b, struct guest_ram *ram, u64 desc_gpa, u64 avail_gpa, u64 used_gpa,
	u16 size);
/* Copies addresses and size to @q, for a following vq_enable(). */
void vqb_attach(const struct vqb *b, struct vq *q);

/* Takes free descriptors, writes a chain of @n >= 1 buffers, returns its head. Not yet offered. */
u16 vqb_chain(struct vqb *b, const struct vqb_buf *buf, u16 n);
/* The same through an indirect table that is written at @table_gpa (@n * 16 bytes). */
u16 vqb_chain_indirect(struct vqb *b, u64 table_gpa, const struct vqb_buf *buf, u16 n);
/* Puts @head in the next entry of the avail ring; the device cannot see it yet. */
void vqb_offer(struct vqb *b, u16 head);
/* Shows all that was offered: stores avail.idx with release. */
void vqb_publish(struct vqb *b);
/* vqb_chain(), vqb_offer(), vqb_publish(). Returns the head. */
u16 vqb_add(struct vqb *b, const struct vqb_buf *buf, u16 n);

/*
 * Takes the next used element, and gives the descriptors of its chain back to the free ones.
 * False when the device has used nothing since.
 */
bool vqb_used(struct vqb *b, u16 *ret_head, u32 *ret_len);
/* How many used elements wait to be taken. */
u16 vqb_used_waiting(const struct vqb *b);
u16 vqb_used_idx(const struct vqb *b);   /* used.idx as the device wrote it */
u16 vqb_used_flags(const struct vqb *b); /* VRING_USED_F_NO_NOTIFY: the device wants no kicks */
u16 vqb_avail_event(const struct vqb *b);

/* Any value anywhere: what a correct driver does not do, and event suppression, which it does. */
void vqb_set_desc(struct vqb *b, u16 i, u64 gpa, u32 len, u16 flags, u16 next);
void vqb_set_avail_idx(struct vqb *b, u16 idx); /* the ring's and ours */
void vqb_set_avail_flags(struct vqb *b, u16 flags);
void vqb_set_avail_entry(struct vqb *b, u16 slot, u16 head);
void vqb_set_used_event(struct vqb *b, u16 event);
void vqb_set_used_idx(struct vqb *b, u16 idx); /* scribbles on what belongs to the device */
/* Writes one descriptor of an indirect table. */
void vqb_set_indirect(struct vqb *b, u64 table_gpa, u16 i, u64 gpa, u32 len, u16 flags, u16 next);

/* The register window, by the offsets and 32-bit accesses a driver uses. */

u32 drv_read(struct virtio_dev *d, u32 off);
void drv_write(struct virtio_dev *d, u32 off, u32 value);
/* Status 0, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. Whether the device kept FEATURES_OK. */
bool drv_negotiate(struct virtio_dev *d, u64 features);
/* Programs queue @index with the ring of @b and makes it ready. Whether QueueReady reads 1. */
bool drv_queue(struct virtio_dev *d, unsigned index, const struct vqb *b);
/* Adds DRIVER_OK. Whether it reads back without NEEDS_RESET. */
bool drv_start(struct virtio_dev *d);
/* QueueNotify by a plain register write, as if no ioeventfd were there. */
void drv_kick(struct virtio_dev *d, u32 index);
void drv_reset(struct virtio_dev *d);

#endif
