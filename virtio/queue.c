/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.c - the device side of a split virtqueue.
 *
 * Theory of operation
 *
 * A queue is three arrays in guest RAM: descriptors (written by the driver), the avail ring (the
 * driver offers chain heads) and the used ring (we give them back). vq_enable() turns their three
 * addresses into spans once; the memory map never changes, so the spans stay good until the reset.
 *
 * Trust. The vCPUs run while we look, so all three arrays may change under our eyes. Each look at
 * the avail ring loads avail.idx once (acquire, so that the entries it announces are visible), the
 * ring entry once, and every descriptor once, by one 16-byte copy. Only the copies are checked and
 * only the copies are used. The used ring is written and never read: our own next_used counts. A
 * driver that keeps changing what it offered hurts nobody but itself.
 *
 * What can go wrong has two grades. VQ_BAD: the structure is broken (an index outside its table, a
 * loop, a head that is with us already, more entries announced than the ring holds); from there on
 * nothing the ring says means anything, so the device needs a reset. VQ_REJECT: the structure is
 * sound but the chain names memory we may not touch; the chain goes back unused.
 *
 * Limits. A chain through the ring's own table has at most queue-size descriptors, so that a loop
 * ends by counting. An indirect table may have VQ_SIZE_MAX entries whatever the queue size: the
 * specification says queue size, but drivers with small rings go past it, and nothing here needs
 * it. All in all a chain has at most VQ_SIZE_MAX descriptors, which is what vq_chain.iov holds.
 * in_flight has a bit for each head that was popped and not pushed: a head can be with us once.
 *
 * Who may look when. Threads are kept apart by the device's mutex. Between us and the driver there
 * are two races in which each side writes one word and then reads the other's; both need a full
 * fence between write and read on both sides, or each can miss what the other wrote:
 *   we write used.idx, then read used_event;   the driver writes used_event, then reads used.idx
 *   we write avail_event, then read avail.idx; the driver writes avail.idx, then reads avail_event
 */
#include "virtio/queue.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "monitor/base/arith.h"

/* Where things are in the avail and the used ring. */
#define RING_FLAGS     0u
#define RING_IDX       2u
#define AVAIL_ENTRY(i) (4u + 2u * (i))
#define USED_ENTRY(i)  (4u + 8u * (i))
/* The words behind the last entry, there only for VIRTIO_F_EVENT_IDX but always allotted. */
#define USED_EVENT(q)  AVAIL_ENTRY((u32)(q)->size)
#define AVAIL_EVENT(q) USED_ENTRY((u32)(q)->size)

static bool is_in_flight(const struct vq *q, u16 head)
{
	return q->in_flight[head / 64] >> (head % 64) & 1;
}

static void flip_in_flight(struct vq *q, u16 head)
{
	q->in_flight[head / 64] ^= 1ull << (head % 64);
}

void vq_reset(struct vq *q)
{
	*q = (struct vq){.mem = q->mem, .size_max = q->size_max};
}

static bool size_ok(const struct vq *q)
{
	return is_pow2(q->size) && q->size <= q->size_max && q->size <= VQ_SIZE_MAX;
}

/* Turns the three addresses into spans; false, and nothing changed, where that cannot be. */
static bool resolve(struct vq *q)
{
	struct mem_span desc, avail, used;

	if (!size_ok(q))
		return false;
	if (q->desc_gpa % 16 || q->avail_gpa % 2 || q->used_gpa % 4)
		return false;
	if (!mem_span(q->mem, q->desc_gpa, 16ull * q->size, &desc) ||
		!mem_span(q->mem, q->avail_gpa, USED_EVENT(q) + 2, &avail) ||
		!mem_span(q->mem, q->used_gpa, AVAIL_EVENT(q) + 2, &used))
		return false;
	q->desc = desc;
	q->avail = avail;
	q->used = used;
	return true;
}

bool vq_enable(struct vq *q)
{
	if (!resolve(q))
		return false;
	q->next_avail = q->next_used = q->signalled = 0;
	memset(q->in_flight, 0, sizeof(q->in_flight));
	q->in_flight_count = 0;
	q->live = true;
	return true;
}

/* Where a walk along a chain is. */
struct walk {
	struct mem_span table;
	u32 entries;    /* of the table */
	u32 steps_left; /* a table is left after as many steps as it has entries, or it loops */
	u16 next;
	u32 seen; /* descriptors in all */
	bool indirect;
};

/* Goes on in the indirect table that @d names. False where the driver may not do that. */
static bool enter_indirect(const struct vq *q, struct walk *w, const struct vring_desc *d)
{
	if (!q->indirect || w->indirect || d->flags & VRING_DESC_F_NEXT)
		return false;
	if (!d->len || d->len % 16 || d->len > 16 * VQ_SIZE_MAX)
		return false;
	if (!mem_span(q->mem, d->addr, d->len, &w->table))
		return false;
	w->entries = w->steps_left = d->len / 16;
	w->next = 0;
	w->indirect = true;
	return true;
}

/* Adds the buffer of @d to the chain. An empty one counts for the order and is then dropped. */
static enum vq_result add_buffer(const struct vq *q, struct vq_chain *c, const struct vring_desc *d,
	bool *writable_seen)
{
	u64 total = (u64)c->out_len + c->in_len + d->len;
	bool writable = d->flags & VRING_DESC_F_WRITE;

	if (*writable_seen && !writable)
		return VQ_BAD;
	*writable_seen |= writable;
	if (!d->len)
		return VQ_OK;
	if (total > UINT32_MAX)
		return VQ_REJECT;
	if (!mem_iov(q->mem, d->addr, d->len, &c->iov[c->out_count + c->in_count]))
		return VQ_REJECT;
	if (writable) {
		c->in_count++;
		c->in_len += d->len;
	} else {
		c->out_count++;
		c->out_len += d->len;
	}
	return VQ_OK;
}

/* Follows the chain from c->head and fills @c. */
static enum vq_result walk_chain(const struct vq *q, struct vq_chain *c)
{
	struct walk w = {.table = q->desc, .entries = q->size, .steps_left = q->size,
		.next = c->head};
	bool writable_seen = false;
	struct vring_desc d;
	enum vq_result r;

	for (;;) {
		if (!w.steps_left-- || w.next >= w.entries)
			return VQ_BAD;
		span_copy_out(w.table, 16ull * w.next, &d, sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (!enter_indirect(q, &w, &d))
				return VQ_BAD;
			continue;
		}
		if (++w.seen > VQ_SIZE_MAX)
			return VQ_BAD;
		r = add_buffer(q, c, &d, &writable_seen);
		if (r != VQ_OK)
			return r;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return VQ_OK;
		w.next = d.next;
	}
}

/* The chain that begins at @head, which is sound. */
static enum vq_result get_chain(const struct vq *q, u16 head, struct vq_chain *ret)
{
	enum vq_result r;

	ret->head = head;
	ret->out_count = ret->in_count = 0;
	ret->out_len = ret->in_len = 0;
	r = walk_chain(q, ret);
	if (r == VQ_REJECT) {
		ret->out_count = ret->in_count = 0;
		ret->out_len = ret->in_len = 0;
	}
	return r;
}

enum vq_result vq_pop(struct vq *q, struct vq_chain *ret)
{
	u16 waiting, head;
	enum vq_result r;

	if (!q->live)
		return VQ_EMPTY;
	waiting = (u16)(span_load16_acquire(q->avail, RING_IDX) - q->next_avail);
	if (!waiting)
		return VQ_EMPTY;
	if (waiting > q->size)
		return VQ_BAD;
	head = span_load16(q->avail, AVAIL_ENTRY(q->next_avail & (q->size - 1u)));
	if (head >= q->size || is_in_flight(q, head))
		return VQ_BAD;
	r = get_chain(q, head, ret);
	if (r == VQ_BAD)
		return r;
	flip_in_flight(q, head);
	q->in_flight_count++;
	q->next_avail++;
	q->armed = false; /* with EVENT_IDX, for the chain that we have now */
	return r;
}

/* Clears the mark of a head that the device model gives up; it can only be one it popped. */
static void leave_flight(struct vq *q, u16 head)
{
	must(head < q->size && is_in_flight(q, head));
	flip_in_flight(q, head);
	q->in_flight_count--;
}

void vq_unpop(struct vq *q, u16 head)
{
	if (!q->live)
		return;
	leave_flight(q, head);
	q->next_avail--;
}

enum vq_result vq_again(struct vq *q, u16 head, struct vq_chain *ret)
{
	if (!q->live)
		return VQ_BAD;
	must(head < q->size && is_in_flight(q, head));
	return get_chain(q, head, ret);
}

void vq_push_hidden(struct vq *q, u16 head, u32 len)
{
	u64 off;

	if (!q->live)
		return;
	leave_flight(q, head);
	off = USED_ENTRY(q->next_used & (q->size - 1u));
	span_store32(q->used, off, head);
	span_store32(q->used, off + 4, len);
	q->next_used++;
}

void vq_push(struct vq *q, u16 head, u32 len)
{
	if (!q->live)
		return;
	vq_push_hidden(q, head, len);
	span_store16_release(q->used, RING_IDX, q->next_used);
}

bool vq_need_interrupt(struct vq *q)
{
	u16 old = q->signalled;
	u16 event;

	if (!q->live || q->next_used == old)
		return false;
	q->signalled = q->next_used;
	/* used.idx must be visible before we read what the driver asked for. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return !(span_load16(q->avail, RING_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
	/* Whether used.idx stepped past @event since the last decision; all modulo 2^16. */
	event = span_load16(q->avail, USED_EVENT(q));
	return (u16)(q->next_used - event - 1) < (u16)(q->next_used - old);
}

void vq_kicks_off(struct vq *q)
{
	q->want = q->armed = false;
	/* With EVENT_IDX the driver is silent by itself once it is past the last avail_event. */
	if (q->live && !q->event_idx)
		span_store16(q->used, RING_FLAGS, VRING_USED_F_NO_NOTIFY);
}

bool vq_kicks_on(struct vq *q)
{
	if (!q->live)
		return false;
	q->armed = true;
	if (q->event_idx)
		span_store16(q->used, AVAIL_EVENT(q), q->next_avail);
	else
		span_store16(q->used, RING_FLAGS, 0);
	/* The wish must be visible before we look for what came without a kick. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vq_pending(q);
}

bool vq_pending(const struct vq *q)
{
	return q->live && span_load16_acquire(q->avail, RING_IDX) != q->next_avail;
}

void vq_save(const struct vq *q, struct enc *out)
{
	/* A queue that is not live has no position in its rings. */
	static const struct vq none;
	const struct vq *pos = q->live ? q : &none;

	enc_u16(out, q->size);
	enc_u8(out, q->ready);
	enc_u8(out, q->live);
	enc_u64(out, q->desc_gpa);
	enc_u64(out, q->avail_gpa);
	enc_u64(out, q->used_gpa);
	enc_u16(out, pos->next_avail);
	enc_u16(out, pos->next_used);
	enc_u16(out, pos->signalled);
	for (unsigned i = 0; i < ARRAY_SIZE(q->in_flight); i++)
		enc_u64(out, pos->in_flight[i]);
}

/* Checks the position in the rings that came with @q, and counts the heads in flight. */
static int check_position(struct vq *q, struct err *e)
{
	bool outside = false;

	q->in_flight_count = 0;
	for (unsigned head = 0; head < VQ_SIZE_MAX; head++) {
		if (!is_in_flight(q, (u16)head))
			continue;
		outside |= head >= q->size;
		q->in_flight_count++;
	}
	if (!q->live) {
		if (q->next_avail || q->next_used || q->signalled || q->in_flight_count)
			return err_set(e, -EINVAL, "position: set, but the queue is not live");
		return 0;
	}
	if (outside)
		return err_set(e, -EINVAL, "in_flight: names a head beyond the queue's size %u",
			q->size);
	if (q->in_flight_count != (u16)(q->next_avail - q->next_used))
		return err_set(e, -EINVAL,
			"in_flight: %u heads, but next_avail %u and next_used %u",
			q->in_flight_count, q->next_avail, q->next_used);
	return 0;
}

int vq_load(struct vq *q, struct dec *in, struct err *e)
{
	struct vq n = {.mem = q->mem, .size_max = q->size_max, .event_idx = q->event_idx,
		.indirect = q->indirect};
	u8 ready, live;
	int r;

	n.size = dec_u16(in);
	ready = dec_u8(in);
	live = dec_u8(in);
	n.desc_gpa = dec_u64(in);
	n.avail_gpa = dec_u64(in);
	n.used_gpa = dec_u64(in);
	n.next_avail = dec_u16(in);
	n.next_used = dec_u16(in);
	n.signalled = dec_u16(in);
	for (unsigned i = 0; i < ARRAY_SIZE(n.in_flight); i++)
		n.in_flight[i] = dec_u64(in);
	if (in->bad)
		return err_set(e, -EINVAL, "ends too early");
	if (ready > 1 || live > ready)
		return err_set(e, -EINVAL, "ready: %u with live %u", ready, live);
	if ((n.size || live) && !size_ok(&n))
		return err_set(e, -EINVAL, "size: %u is not a power of two up to %u", n.size,
			n.size_max);
	n.ready = ready;
	n.live = live;
	r = check_position(&n, e);
	if (r)
		return r;
	if (live && !resolve(&n))
		return err_set(e, -EINVAL,
			"rings: 0x%llx 0x%llx 0x%llx of size %u are not in RAM or not aligned",
			(unsigned long long)n.desc_gpa, (unsigned long long)n.avail_gpa,
			(unsigned long long)n.used_gpa, n.size);
	*q = n;
	/*
	 * The wish for kicks in guest RAM may be from a moment when the device was looking anyway.
	 * Left so, the driver would never kick again, once it stands past it (FC#5969).
	 */
	vq_kicks_on(q);
	return 0;
}
