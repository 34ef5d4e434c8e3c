/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.c - registers and rings by hand.
 *
 * The kit's own driver does what a driver should; this one does what it is told. It only keeps
 * book: which heads are with the device, and what was written where the device may only read, so
 * that guard.c can find what a device changed behind our back.
 *
 * Waiting is by the doorbell where there is one: it returns at the next device interrupt, so the
 * processor is free for the monitor.
 */
#include "villain.h"

u32 reg_get(const struct raw_dev *d, u32 reg)
{
	return kit_load32(d->base_gpa + reg);
}

void reg_set(const struct raw_dev *d, u32 reg, u32 value)
{
	kit_store32(d->base_gpa + reg, value);
}

void reg_set64(const struct raw_dev *d, u32 reg, u64 value)
{
	reg_set(d, reg, (u32)value);
	reg_set(d, reg + 4, (u32)(value >> 32));
}

bool raw_reset(struct raw_dev *d)
{
	u64 end = kit_cycles() + SOON * TICKS_MS;

	reg_set(d, REG_STATUS, 0);
	while (reg_get(d, REG_STATUS) != 0) {
		if (kit_cycles() > end)
			return complain("a reset does not end: status %x", reg_get(d, REG_STATUS));
	}
	return true;
}

bool raw_try(struct raw_dev *d, u64 want)
{
	if (!raw_reset(d))
		return false;
	reg_set(d, REG_STATUS, S_ACK);
	reg_set(d, REG_STATUS, S_ACK | S_DRIVER);
	reg_set(d, REG_DEVICE_FEATURES_SEL, 1);
	d->offered = (u64)reg_get(d, REG_DEVICE_FEATURES) << 32;
	reg_set(d, REG_DEVICE_FEATURES_SEL, 0);
	d->offered |= reg_get(d, REG_DEVICE_FEATURES);
	d->features = d->offered & want;
	reg_set(d, REG_DRIVER_FEATURES_SEL, 0);
	reg_set(d, REG_DRIVER_FEATURES, (u32)d->features);
	reg_set(d, REG_DRIVER_FEATURES_SEL, 1);
	reg_set(d, REG_DRIVER_FEATURES, (u32)(d->features >> 32));
	reg_set(d, REG_STATUS, S_ACK | S_DRIVER | S_FEATURES_OK);
	return reg_get(d, REG_STATUS) == (S_ACK | S_DRIVER | S_FEATURES_OK);
}

bool raw_negotiate(struct raw_dev *d, u64 want)
{
	return raw_try(d, want) ? true :
		complain("features %lx of %lx are refused", d->features, d->offered);
}

struct raw_queue *raw_rings(struct raw_dev *d, u16 index, u16 size)
{
	struct raw_queue *q = &d->q[index];

	memset(q, 0, sizeof(*q));
	q->index = index;
	q->size = size;
	q->desc = give(VIRTQ_DESC_BYTES(size), 16);
	q->avail = give(VIRTQ_AVAIL_BYTES(size), 16);
	q->used = give(VIRTQ_USED_BYTES(size), 16);
	memset((void *)q->desc, 0, VIRTQ_DESC_BYTES(size));
	memset((void *)q->avail, 0, VIRTQ_AVAIL_BYTES(size));
	memset((void *)q->used, 0, VIRTQ_USED_BYTES(size));
	return q;
}

void raw_ready(struct raw_dev *d, const struct raw_queue *q)
{
	reg_set(d, REG_QUEUE_SEL, q->index);
	reg_set(d, REG_QUEUE_NUM, q->size);
	reg_set64(d, REG_QUEUE_DESC, (u64)q->desc);
	reg_set64(d, REG_QUEUE_AVAIL, (u64)q->avail);
	reg_set64(d, REG_QUEUE_USED, (u64)q->used);
	reg_set(d, REG_QUEUE_READY, 1);
}

void raw_go(struct raw_dev *d)
{
	reg_set(d, REG_STATUS, S_ALL_OK);
}

void raw_desc(struct raw_queue *q, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	q->desc_copy[i] = (struct virtq_desc){addr, len, flags, next};
	q->desc[i].addr = addr;
	q->desc[i].len = len;
	q->desc[i].flags = flags;
	q->desc[i].next = next;
}

void raw_tamper(struct raw_queue *q)
{
	q->tampered = true;
}

void raw_post(struct raw_queue *q, u16 head)
{
	u16 at = q->posted++ % q->size;

	q->avail->ring[at] = head;
	q->avail_copy[at] = head;
	if (head < q->size)
		q->out[head]++;
	*raw_used_event(q) = (u16)(q->seen + q->ahead);
	/* All that before the index: the device may look without being kicked. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	q->avail->idx = q->posted;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool raw_take(struct raw_queue *q, u16 *head, u32 *len)
{
	const volatile struct virtq_used *e;

	if (q->used->idx == q->seen)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	e = &q->used->ring[q->seen++ % q->size];
	*head = (u16)e->id;
	*len = e->len;
	*raw_used_event(q) = (u16)(q->seen + q->ahead);
	if (e->id >= q->size || !q->out[e->id])
		complain("queue %u: head %u came back, but it is not with the device", q->index,
			e->id);
	else
		q->out[e->id]--;
	return true;
}

void raw_kick(const struct raw_dev *d, const struct raw_queue *q)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	reg_set(d, REG_QUEUE_NOTIFY, q->index);
}

void raw_kick_politely(const struct raw_dev *d, const struct raw_queue *q, u16 before)
{
	const volatile u16 *avail_event = (const volatile u16 *)&q->used->ring[q->size];

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index before looking whether to kick */
	if (d->features & F_EVENT_IDX ?
			(u16)(q->posted - *avail_event - 1) < (u16)(q->posted - before) :
			!(q->used->flags & 1))
		raw_kick(d, q);
}

volatile u16 *raw_used_event(const struct raw_queue *q)
{
	return &q->avail->ring[q->size];
}

bool raw_interrupted(const struct raw_dev *d, u32 cause, unsigned ms)
{
	u64 end = kit_cycles() + ms * TICKS_MS;

	while (!(reg_get(d, REG_INTERRUPT_STATUS) & cause)) {
		if (kit_cycles() > end)
			return false;
	}
	return true;
}

enum event raw_wait(struct raw_dev *d, const struct raw_queue *q, unsigned ms)
{
	u64 end = kit_cycles() + ms * TICKS_MS;

	do {
		if (q->used->idx != q->seen)
			return USED;
		if (reg_get(d, REG_STATUS) & S_BROKEN)
			return BROKEN;
		if (q->used->idx != q->seen)
			return USED;
		if (!ms)
			return NOTHING;
		kit_wait(200000);
	} while (kit_cycles() < end);
	return NOTHING;
}
