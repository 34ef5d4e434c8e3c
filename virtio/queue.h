/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.h - the device side of a split virtqueue (virtio 1.2, 2.7).
 *
 * Used by every device model under its device's mutex. What the guest wrote is hostile: every
 * index and address is read once, checked, and only the checked copy is used. See hostile-cases
 * Q01-Q40 for inputs and answers.
 */
#ifndef KELVIN_VIRTIO_QUEUE_H
#define KELVIN_VIRTIO_QUEUE_H

#include "memory/memory.h"
#include "monitor/base/bytes.h"

#define VQ_SIZE_MAX 256u

enum vq_result {
	VQ_OK,     /* a chain was popped */
	VQ_EMPTY,  /* nothing available */
	VQ_REJECT, /* a chain was popped but cannot be used (an address outside RAM, sum of lengths
		    * over 4 GiB): the caller pushes chain.head with length 0 */
	VQ_BAD,    /* the ring itself is broken: the device needs a reset; nothing was popped */
};

struct vq {
	/* Set up by the transport (under the device's mutex). */
	const struct mem *mem;
	u16 size;
	u16 size_max;
	bool ready;
	bool event_idx; /* VIRTIO_F_EVENT_IDX negotiated */
	bool indirect;  /* VIRTIO_F_INDIRECT_DESC negotiated */
	u64 desc_gpa, avail_gpa, used_gpa;

	/*
	 * Valid while live: vq_enable() succeeded, and no reset, FAILED or NEEDS_RESET since. On a
	 * queue that is not live pop finds nothing, and everything else does nothing.
	 */
	bool live;
	struct mem_span desc, avail, used;
	u16 next_avail; /* index of the next entry to pop */
	u16 next_used;  /* our used index: authoritative, never read back */
	u16 signalled;  /* next_used when an interrupt was last decided */
	u64 in_flight[VQ_SIZE_MAX / 64]; /* heads popped and not pushed */
	u16 in_flight_count;
	bool want;  /* the device stopped looking, and is to look again when there is more */
	bool armed; /* the driver was asked to kick, since vq_kicks_off() and the last vq_pop() */
};

struct vq_chain {
	u16 head;
	u16 out_count; /* device-readable buffers: iov[0 .. out_count) */
	u16 in_count;  /* device-writable buffers: iov[out_count .. out_count + in_count) */
	u32 out_len;   /* bytes in them, at most 4 GiB - 1 together */
	u32 in_len;
	struct iovec iov[VQ_SIZE_MAX];
};

/* Forgets everything but mem and size_max. */
void vq_reset(struct vq *q);

/*
 * Checks addresses and size, resolves the rings and makes the queue live. False (and the queue
 * unchanged) where the rings are misaligned or not in RAM (Q39, Q40).
 */
bool vq_enable(struct vq *q);

/*
 * Takes the next available chain. A driver can add chains as fast as they are taken: a drain pops
 * at most q->size of them, and then lets others have their turn (Q29).
 */
enum vq_result vq_pop(struct vq *q, struct vq_chain *ret);
/*
 * Takes back the last vq_pop(), which must be the latest and not pushed: it will be popped again.
 * Several are taken back one by one.
 */
void vq_unpop(struct vq *q, u16 head);
/* Looks again at the chain of a head in flight, as one that vq_load() brought. Never EMPTY. */
enum vq_result vq_again(struct vq *q, u16 head, struct vq_chain *ret);

/* Returns @head to the driver with @len bytes written. @head must have been popped. */
void vq_push(struct vq *q, u16 head, u32 len);
/* The same, but the driver does not see it before the next vq_push(). */
void vq_push_hidden(struct vq *q, u16 head, u32 len);

/*
 * After one or more vq_push(): whether the driver wants an interrupt for them (EVENT_IDX or
 * VIRTQ_AVAIL_F_NO_INTERRUPT).
 */
bool vq_need_interrupt(struct vq *q);

/*
 * Kick suppression. vq_kicks_off() while the device is looking anyway; vq_kicks_on() before it
 * stops looking: returns true if chains became available meanwhile, so look again. Device models
 * call virtio_want_kick() instead of the second.
 */
void vq_kicks_off(struct vq *q);
bool vq_kicks_on(struct vq *q);

/* Whether at least one chain is waiting. A broken index counts too, so that pop reports it. */
bool vq_pending(const struct vq *q);

/* Snapshot. Load checks every field like guest input and enables the queue if it was live. */
void vq_save(const struct vq *q, struct enc *out);
int vq_load(struct vq *q, struct dec *in, struct err *e);

#endif
