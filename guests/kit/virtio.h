/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio.h - the driver's side of virtio-mmio (version 2) and of the split virtqueue.
 *
 * Devices are found by the words virtio_mmio.device=SIZE@ADDRESS:GSI of the command line. Rings are
 * looked at, not interrupted by: virtq_take() until it gives nothing and kit_look_again() says so,
 * then virtq_arm(), and if that finds nothing either, kit_wait().
 */
#ifndef KIT_VIRTIO_H
#define KIT_VIRTIO_H

#include "kit.h"

#define VIRTIO_ID_NET   1
#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_VSOCK 19

#define VIRTIO_F_INDIRECT  (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

struct virtio_dev {
	u64 base_gpa;
	u32 gsi;
	u64 features; /* agreed upon */
};

struct virtq_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};
#define VIRTQ_NEXT     1 /* desc.flags */
#define VIRTQ_WRITE    2 /* the device writes here */
#define VIRTQ_INDIRECT 4 /* a table of descriptors is here */
#define VIRTQ_SIZE_MAX 256

struct virtq_used {
	u32 id, len;
};

struct virtq {
	struct virtio_dev *dev;
	u16 index, size;
	u16 avail_next;   /* entries offered so far */
	u16 avail_told;   /* of those, published to the device */
	u16 used_seen;    /* entries taken back */
	volatile struct virtq_desc *desc;
	volatile u16 *avail; /* flags, idx, ring[size], used_event */
	volatile u16 *used;  /* flags, idx, struct virtq_used[size], avail_event */
};

/* Bytes of memory (16-byte aligned) that a queue of @size (a power of 2) takes. */
#define VIRTQ_ROUND(bytes)      (((bytes) + 15) / 16 * 16)
#define VIRTQ_DESC_BYTES(size)  ((size) * 16)
#define VIRTQ_AVAIL_BYTES(size) VIRTQ_ROUND((size) * 2 + 6)
#define VIRTQ_USED_BYTES(size)  VIRTQ_ROUND((size) * 8 + 6)
#define VIRTQ_BYTES(size) \
	(VIRTQ_DESC_BYTES(size) + VIRTQ_AVAIL_BYTES(size) + VIRTQ_USED_BYTES(size))

/* Finds device number @n, from 0, of this kind, in the order of the command line. */
bool virtio_find_nth(struct virtio_dev *d, u32 device_id, unsigned n);
/* Finds the first device of this kind. */
bool virtio_find(struct virtio_dev *d, u32 device_id);
/* Resets it and agrees on VERSION_1, EVENT_IDX (unless the command line says "noeventidx") and
 * @features, as far as offered. */
bool virtio_begin(struct virtio_dev *d, u64 features);
/* Sets up queue @index in @mem, VIRTQ_BYTES(@size) bytes. False if the device has no such queue. */
bool virtio_queue(struct virtio_dev *d, struct virtq *q, u16 index, void *mem, u16 size);
/* The driver is ready: queues live. */
void virtio_go(struct virtio_dev *d);
u8 virtio_config8(const struct virtio_dev *d, u32 off);
u16 virtio_config16(const struct virtio_dev *d, u32 off);
u32 virtio_config32(const struct virtio_dev *d, u32 off);
/* Whole, even while the device changes it (2.5.1). */
u64 virtio_config64(const struct virtio_dev *d, u32 off);
/* Has the device told of a change of its configuration since the last call? Two exits. */
bool virtio_config_changed(const struct virtio_dev *d);
/* The device has given up and wants a reset. One exit. */
bool virtio_needs_reset(const struct virtio_dev *d);
/* Reads and acknowledges the interrupt causes: only for those who take interrupts. */
void virtio_ack(const struct virtio_dev *d);

/* Fills a descriptor of an indirect table. */
void virtq_fill(volatile struct virtq_desc *desc, const volatile void *mem, u32 len, u16 flags,
	u16 next);
/* Fills descriptor @i. */
void virtq_set(struct virtq *q, u16 i, const volatile void *mem, u32 len, u16 flags, u16 next);
/* Offers the chain that starts with descriptor @head; the device sees it at the next kick. */
void virtq_offer(struct virtq *q, u16 head);
/* Publishes what was offered and notifies the device if it wants to know. */
void virtq_kick(struct virtq *q);
/* Takes back a chain the device is done with, *len bytes written; false if there is none. */
bool virtq_take(struct virtq *q, u16 *head, u32 *len);
/* Is there a chain to take back? */
bool virtq_ready(const struct virtq *q);
/* Asks for an interrupt (which ends kit_wait()) at the next used chain. True if there is one
 * already: look again instead of sleeping. */
bool virtq_arm(struct virtq *q);
/* The same for the @n-th used chain from now. */
bool virtq_arm_after(struct virtq *q, u16 n);
/* Waits until one of these queues has a chain to take back: looks, then sleeps. Only for guests
 * that have nothing else to look at meanwhile. */
void virtq_wait(struct virtq *const *queues, unsigned count);

#endif
