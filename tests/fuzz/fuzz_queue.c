/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_queue.c - virtio/queue.c against a driver that offers chains, breaks them (Q01 to Q40), and
 * changes guest memory between the steps, and a device model that returns heads in any order.
 *
 * Checked: a chain that kept the rules is popped as it was built; every iovec is guest RAM; a head
 * is with the device once; used elements are what was pushed; positions survive save and load; a
 * saved state with bytes changed is refused or is one a queue can be in.
 */
#include <string.h>

#include "monitor/base/arith.h"
#include "tests/fuzz/fuzz.h"

#define LOW_LEN  0x20000u
#define RING_GPA 0x1000ull
#define BUF_GPA  0x10000ull
#define LONG_GPA 0xc000ull /* of an indirect table longer than others */

static struct {
	struct guest_ram ram;
	struct fz_queue fq;
	struct vq q;
	bool inside; /* the rings lie where they should, apart from each other */
	u16 held[VQ_SIZE_MAX];
	unsigned held_count;
	unsigned unpoppable; /* how many of the last of held were popped since the last push */
	/* What the driver offered, by head, as long as it keeps the rules. */
	struct {
		unsigned n, out_count;
		u64 len[2];
		struct vqb_buf buf[8];
	} offered[FZ_QSIZE];
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fz_ram_init(&t.ram, LOW_LEN);
	t.q.mem = &t.ram.mem;
	t.q.size_max = VQ_SIZE_MAX;
	return 0;
}

/* Rings of any size at a good place, or with one of the ways to be at a bad one (Q38 to Q40). */
static void set_up(struct fz *f)
{
	u16 size = (u16)(1u << fz_below(f, 6));
	u8 how = fz_u8(f);
	u64 *addr[] = {&t.q.desc_gpa, &t.q.avail_gpa, &t.q.used_gpa};
	bool ok;

	vq_reset(&t.q);
	t.held_count = t.unpoppable = 0;
	fz_queue_init(&t.fq, &t.ram, 0, size);
	t.q.event_idx = t.fq.event_idx = how & 1;
	t.q.indirect = t.fq.indirect = how & 2;
	vqb_attach(&t.fq.b, &t.q);
	t.inside = true;
	switch (fz_break(f, 6)) {
	case 0:
		break;
	case 1:
		t.q.size = (u16)fz_odd(f, size);
		t.inside = false;
		break;
	default:
		*addr[fz_below(f, 3)] = fz_odd(f, LOW_LEN - 16ull * size);
		t.inside = false;
		break;
	}
	ok = t.q.ready = vq_enable(&t.q);
	must(ok || !t.inside);
	must(ok == t.q.live);
	/* The driver does not follow to where it put the rings, so it breaks all rules. */
	t.fq.broken |= !t.inside;
	/* Positions near the wrap are as good as 0 (Q28). */
	if (ok && t.inside && how & 4) {
		u16 at = (u16)(0 - fz_below(f, 40));

		t.q.next_avail = t.q.next_used = t.q.signalled = at;
		t.fq.b.avail_idx = t.fq.b.used_seen = t.fq.kicked = at;
		vqb_publish(&t.fq.b);
		vqb_set_used_idx(&t.fq.b, at);
	}
}

static void offer(struct fz *f)
{
	unsigned n = 1 + fz_below(f, 8), out = fz_below(f, n + 1);
	struct vqb_buf buf[8];
	u64 len[2] = {0, 0};
	u16 head;

	for (unsigned i = 0; i < n; i++) {
		buf[i] = (struct vqb_buf){BUF_GPA + 0x1000 * i + fz_u8(f), 1 + fz_below(f, 2048),
			i >= out};
		len[i >= out] += buf[i].len;
	}
	if (fz_offer(f, &t.fq, buf, n, &head) == FZ_FULL)
		return;
	t.offered[head].n = n;
	t.offered[head].out_count = out;
	memcpy(t.offered[head].buf, buf, sizeof(buf));
	memcpy(t.offered[head].len, len, sizeof(len));
}

/* Every buffer is guest memory, and the sums are right. */
static void check_chain(const struct vq_chain *c)
{
	u64 len[2] = {0, 0};

	must(c->out_count + c->in_count <= VQ_SIZE_MAX);
	for (unsigned i = 0; i < c->out_count + c->in_count; i++) {
		const u8 *p = c->iov[i].iov_base;
		bool inside = false;

		for (unsigned r = 0; r < t.ram.mem.region_count; r++) {
			const struct mem_region *m = &t.ram.mem.region[r];

			inside |= p >= m->hva && c->iov[i].iov_len <= m->len &&
				p + c->iov[i].iov_len <= m->hva + m->len;
		}
		must(inside && c->iov[i].iov_len);
		len[i >= c->out_count] += c->iov[i].iov_len;
	}
	must(len[0] == c->out_len && len[1] == c->in_len);
	must(c->head < t.q.size);
}

/* The chain is what the driver built, byte for byte. */
static void check_same(const struct vq_chain *c)
{
	const struct iovec *iov = c->iov;
	size_t at = 0;

	must(c->out_len == t.offered[c->head].len[0] && c->in_len == t.offered[c->head].len[1]);
	for (unsigned i = 0; i < t.offered[c->head].n; i++) {
		const struct vqb_buf *b = &t.offered[c->head].buf[i];

		for (u32 done = 0; done < b->len;) {
			must((u8 *)iov->iov_base + at ==
				(u8 *)guest_at(&t.ram, b->gpa, b->len) + done);
			must(iov->iov_len - at <= b->len - done);
			done += (u32)(iov->iov_len - at);
			iov++;
		}
	}
	must(iov == c->iov + c->out_count + c->in_count);
}

/* How many chains the ring says are waiting. */
static u16 waiting_now(void)
{
	u16 idx;

	if (!t.q.live)
		return 0;
	guest_read(&t.ram, t.q.avail_gpa + 2, &idx, sizeof(idx));
	must(vq_pending(&t.q) == (idx != t.q.next_avail));
	return (u16)(idx - t.q.next_avail);
}

static void pop(unsigned most)
{
	static struct vq_chain c;

	for (unsigned i = 0; i < most; i++) {
		u16 waiting = waiting_now();
		enum vq_result r = vq_pop(&t.q, &c);

		must((r == VQ_EMPTY) == !waiting);
		must(waiting <= t.q.size || r == VQ_BAD);
		must(t.fq.broken || r != VQ_BAD);
		if (r == VQ_EMPTY || r == VQ_BAD)
			return;
		for (unsigned h = 0; h < t.held_count; h++)
			must(t.held[h] != c.head);
		t.held[t.held_count++] = c.head;
		t.unpoppable++;
		check_chain(&c);
		if (t.fq.broken)
			continue;
		must(t.fq.out[c.head]);
		must(r == VQ_OK || t.fq.odd[c.head]);
		if (!t.fq.odd[c.head])
			check_same(&c);
	}
}

/*
 * A chain of up to 31 descriptors of the ring, then up to 256 and one of an indirect table: more
 * than 256 in all are too many.
 */
static void long_chain(struct fz *f)
{
	static struct vq_chain c;
	struct vqb *b = &t.fq.b;
	unsigned direct = fz_below(f, b->size), n = 224 + fz_below(f, 34);
	enum vq_result r;

	if (t.fq.broken || !t.q.indirect || b->free_count < b->size || waiting_now())
		return;
	for (u16 i = 0; i < direct; i++)
		vqb_set_desc(b, i, BUF_GPA + i, 1, VRING_DESC_F_NEXT, i + 1);
	vqb_set_desc(b, (u16)direct, LONG_GPA, 16 * n, VRING_DESC_F_INDIRECT, 0);
	for (u16 i = 0; i < n; i++)
		vqb_set_indirect(b, LONG_GPA, i, BUF_GPA + i, 1, i + 1u < n ? VRING_DESC_F_NEXT : 0,
			i + 1);
	vqb_offer(b, 0);
	vqb_publish(b);
	r = vq_pop(&t.q, &c);
	must(r == (n <= VQ_SIZE_MAX && direct + n <= VQ_SIZE_MAX ? VQ_OK : VQ_BAD));
	t.fq.broken = r == VQ_BAD;
	if (r == VQ_BAD)
		return;
	check_chain(&c);
	must(c.out_len == direct + n);
	vq_unpop(&t.q, 0);
	b->avail_idx--;
	vqb_publish(b);
}

/* Returns some head, and looks at what that wrote. */
static void push(struct fz *f)
{
	unsigned i = fz_below(f, VQ_SIZE_MAX);
	u32 len = fz_u32(f), elem[2];
	u64 at_gpa;
	u16 head, idx, next = t.q.next_used;

	if (!t.held_count)
		return;
	i %= t.held_count;
	head = t.held[i];
	memmove(&t.held[i], &t.held[i + 1], (--t.held_count - i) * sizeof(t.held[0]));
	t.unpoppable = 0;
	vq_push(&t.q, head, len);
	must(t.q.next_used == (u16)(next + 1));
	at_gpa = t.q.used_gpa + 4 + 8ull * (next & (t.q.size - 1u));
	guest_read(&t.ram, at_gpa, elem, sizeof(elem));
	guest_read(&t.ram, t.q.used_gpa + 2, &idx, sizeof(idx));
	must(elem[0] == head && elem[1] == len && idx == t.q.next_used);
}

static void unpop(void)
{
	if (!t.unpoppable)
		return;
	t.unpoppable--;
	vq_unpop(&t.q, t.held[--t.held_count]);
}

static void take_used(void)
{
	u16 head;
	u32 len;

	while (fz_used(&t.fq, &head, &len))
		;
}

/* Save and load give the same queue; what else loads is a queue too. */
static void save_and_load(struct fz *f)
{
	struct vq other = {.mem = &t.ram.mem, .size_max = VQ_SIZE_MAX,
		.event_idx = t.q.event_idx, .indirect = t.q.indirect};
	static struct vq_chain c;
	struct enc a = {0}, b = {0};
	struct dec d;
	unsigned at = fz_below(f, 128);

	vq_save(&t.q, &a);
	d = dec_from(a.buf, a.len);
	if (fz_u8(f) & 1) {
		a.buf[at % a.len] ^= (u8)(1 + fz_below(f, 255));
		if (!vq_load(&other, &d, NULL)) {
			must(other.in_flight_count <= VQ_SIZE_MAX);
			if (vq_pop(&other, &c) == VQ_OK)
				vq_push(&other, c.head, 1);
			t.fq.broken = true; /* those two share the rings */
		}
	} else {
		/* A queue that was never live may have a size that is not loaded. */
		must(!vq_load(&other, &d, NULL) || !t.q.live);
		vq_save(&other, &b);
		must(!t.q.live || (a.len == b.len && !memcmp(a.buf, b.buf, a.len)));
	}
	enc_free(&a);
	enc_free(&b);
}

static void suppress(struct fz *f)
{
	switch (fz_below(f, 5)) {
	case 0:
		vq_kicks_off(&t.q);
		break;
	case 1:
		must(vq_kicks_on(&t.q) == vq_pending(&t.q));
		break;
	case 2:
		vqb_set_used_event(&t.fq.b, (u16)(t.fq.b.used_seen + fz_below(f, 4)));
		break;
	case 3:
		vqb_set_avail_flags(&t.fq.b, (u16)fz_below(f, 2));
		break;
	default:
		vq_need_interrupt(&t.q);
		must(!vq_need_interrupt(&t.q)); /* nothing was pushed since */
	}
}

static void step(struct fz *f)
{
	switch (fz_u8(f) % 16) {
	case 0:
		set_up(f);
		break;
	case 1:
	case 2:
	case 3:
	case 4:
		offer(f);
		break;
	case 5:
	case 6:
	case 7:
		pop(1 + fz_below(f, 4));
		break;
	case 8:
	case 9:
	case 10:
		push(f);
		break;
	case 11:
		unpop();
		break;
	case 12:
		take_used();
		break;
	case 13:
		suppress(f);
		break;
	case 14:
		save_and_load(f);
		break;
	default:
		if (fz_break(f, 32))
			fz_scribble(f, &t.fq, 1);
		else if (fz_u8(f) & 1)
			long_chain(f);
		else
			pop(VQ_SIZE_MAX);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;

	fz_ram_clear(&t.ram);
	fz_begin(&f, data, len);
	fz_step(&f);
	set_up(&f);
	while (fz_step(&f))
		step(&f);
	/* Whatever happened: with rings that are sound again all works. */
	memset(&f, 0, sizeof(f));
	set_up(&f);
	offer(&f);
	pop(1);
	must(t.held_count == 1);
	push(&f);
	take_used();
	must(!t.fq.out_count);
	return 0;
}
