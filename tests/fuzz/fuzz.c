/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.c - see fuzz.h */
#include "tests/fuzz/fuzz.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/arith.h"

#define BUFS_MAX 16u

/* Decisions. */

void fz_begin(struct fz *f, const u8 *data, size_t len)
{
	*f = (struct fz){.next = data, .left = len};
}

bool fz_step(struct fz *f)
{
	size_t n = f->left < FZ_REC ? f->left : FZ_REC;

	if (!n || f->steps++ == FZ_STEPS_MAX)
		return false;
	memset(f->rec, 0, FZ_REC);
	memcpy(f->rec, f->next, n);
	f->next += n;
	f->left -= n;
	f->at = 0;
	f->seed = 0;
	for (unsigned i = 0; i < FZ_REC; i++)
		f->seed = (f->seed ^ f->rec[i]) * 0x100000001b3ull;
	return true;
}

u8 fz_u8(struct fz *f)
{
	if (f->at < FZ_REC)
		return f->rec[f->at++];
	f->seed = f->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u8)(f->seed >> 56);
}

u16 fz_u16(struct fz *f)
{
	u16 low = fz_u8(f);

	return (u16)(low | fz_u8(f) << 8);
}

u32 fz_u32(struct fz *f)
{
	u32 low = fz_u16(f);

	return low | (u32)fz_u16(f) << 16;
}

u64 fz_u64(struct fz *f)
{
	u64 low = fz_u32(f);

	return low | (u64)fz_u32(f) << 32;
}

u32 fz_below(struct fz *f, u32 n)
{
	return (n <= 256 ? fz_u8(f) : fz_u32(f)) % n;
}

unsigned fz_break(struct fz *f, unsigned n)
{
	u8 v = fz_u8(f);

	return v >= 256 - n ? 256u - v : 0;
}

u64 fz_odd(struct fz *f, u64 good)
{
	switch (fz_below(f, 12)) {
	case 0:
		return 0;
	case 1:
		return good + 1;
	case 2:
		return good - 1;
	case 3:
		return fz_u8(f);
	case 4:
		return UINT64_MAX - fz_u8(f);
	case 5:
		return UINT32_MAX - (u64)fz_u8(f);
	case 6:
		return 1ull << (fz_u8(f) % 64);
	case 7:
		return (1ull << (fz_u8(f) % 64)) - 1;
	case 8:
		return good ^ 1ull << (fz_u8(f) % 64);
	case 9:
		return fz_u16(f);
	case 10:
		return fz_u32(f);
	default:
		return fz_u64(f);
	}
}

/* A little-endian number in the place of what is there. */
static void put_number(struct enc *e, size_t at, u64 v, unsigned n)
{
	for (unsigned i = 0; i < n && at + i < e->len; i++)
		e->buf[at + i] = (u8)(v >> (8 * i));
}

void fz_change(struct fz *f, u8 how, struct enc *e)
{
	size_t at = fz_u16(f) % e->len;

	switch (how % 8) {
	case 0:
	case 1:
		e->buf[at] ^= (u8)(1 + fz_below(f, 255));
		break;
	case 2:
		put_number(e, at & ~3ull, fz_odd(f, e->len), 4);
		break;
	case 3: /* a length, a count or a size, where there are such */
		put_number(e, (at & ~7ull) + 4 * fz_below(f, 2), fz_odd(f, e->len), 4);
		break;
	case 4:
		e->len = at + 1;
		break;
	case 5:
		for (unsigned n = fz_u8(f); n--;)
			enc_u8(e, fz_u8(f));
		break;
	case 6: /* one piece in the place of another */
		memmove(e->buf + at, e->buf + fz_u16(f) % e->len / 2, (e->len - at) / 2);
		break;
	default:
		put_number(e, at, fz_u8(f) & 1 ? fz_odd(f, 1) : fz_u8(f), 1 + fz_below(f, 8));
	}
}

void fz_trace(const char *fmt, ...)
{
	static int on = -1;
	va_list ap;

	if (on < 0)
		on = getenv("FZ_TRACE") != NULL;
	if (!on)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* An address of interest: in RAM, at its ends, in the hole, anywhere. */
static u64 odd_gpa(struct fz *f, const struct guest_ram *ram, u32 len)
{
	u64 end = ram->mem.region[0].len;

	switch (fz_below(f, 8)) {
	case 0:
		return end - len;
	case 1:
		return end - len + 1;
	case 2:
		return end;
	case 3:
		return MEM_HIGH_GPA + ram->mem.region[1].len - len + fz_below(f, 2);
	case 4:
		return MEM_HIGH_GPA - 1;
	case 5:
		return 0 - (u64)len + fz_below(f, 2);
	case 6:
		return fz_below(f, (u32)end);
	default:
		return fz_odd(f, end);
	}
}

/* Guest memory and rings. */

void fz_ram_init(struct guest_ram *ram, u64 low_len)
{
	guest_ram_init(ram, low_len, FZ_HIGH_LEN);
}

void fz_ram_clear(struct guest_ram *ram)
{
	for (unsigned i = 0; i < ram->mem.region_count; i++)
		guest_fill(ram, ram->mem.region[i].gpa, ram->mem.region[i].len, 0);
}

void fz_queue_init(struct fz_queue *q, struct guest_ram *ram, unsigned index, u16 size)
{
	must(index < FZ_QUEUES && size <= FZ_QSIZE);
	q->index = index;
	q->broken = false;
	memset(q->out, 0, sizeof(q->out));
	memset(q->odd, 0, sizeof(q->odd));
	q->out_count = q->kicked = 0;
	vqb_init(&q->b, ram, FZ_RING_GPA + MEM_PAGE * index, size);
}

u16 fz_next_head(const struct fz_queue *q)
{
	return q->b.free_count ? q->b.free[q->b.free_count - 1] : 0;
}

static u64 table_of(const struct fz_queue *q, u16 head)
{
	return FZ_TABLE_GPA + (q->index * FZ_QSIZE + head) * 16ull * FZ_TABLE_MAX;
}

/* Cuts some of the buffers in two. */
static unsigned cut(struct fz *f, const struct vqb_buf *buf, unsigned n, struct vqb_buf *out)
{
	unsigned count = 0;
	u8 which = fz_u8(f);

	must(2 * n <= BUFS_MAX);
	for (unsigned i = 0; i < n; i++) {
		u32 at = which & 1u << i && buf[i].len > 1 ? 1 + fz_u16(f) % (buf[i].len - 1) : 0;

		out[count] = buf[i];
		if (at) {
			out[count++].len = at;
			out[count] = (struct vqb_buf){buf[i].gpa + at, buf[i].len - at,
				buf[i].device_writes};
		}
		count++;
	}
	return count;
}

/* Faults of a chain. Those before SOUND_END leave the ring sound. */
enum fault {
	NONE,
	ADDR_BEYOND,  /* Q09, Q11, Q12 */
	LEN_HUGE,     /* Q15 */
	LEN_ZERO,     /* Q07 */
	SOUND_END,
	ADDR_ANY,     /* Q10, Q14 */
	SELF_LOOP,    /* Q01 */
	NEXT_ANY,     /* Q02, Q05 */
	FLIP_WRITE,   /* Q16 */
	FLAGS_ANY,    /* Q25 */
	MADE_INDIRECT, /* Q18-Q20, Q24 */
	TABLE_LEN,    /* Q21 */
	TABLE_ADDR,   /* Q22 */
	HEAD_ANY,     /* Q06 */
	HEAD_TWICE,   /* Q30, Q31 */
	INDEX_JUMP,   /* Q26, Q27 */
	LEN_ANY,
	FAULTS,
};

/* A chain that was written, as far as the faults need it. */
struct chain {
	struct fz_queue *q;
	u16 head;
	bool indirect;
	unsigned n;
	const struct vqb_buf *buf;
};

/* Writes descriptor @i of the chain anew. */
static void rewrite(const struct chain *c, unsigned i, u64 gpa, u32 len, u16 flags, u16 next)
{
	if (c->indirect)
		vqb_set_indirect(&c->q->b, table_of(c->q, c->head), (u16)i, gpa, len, flags, next);
	else
		vqb_set_desc(&c->q->b, c->q->b.chain[c->head][i], gpa, len, flags, next);
}

static void break_descriptor(struct fz *f, const struct chain *c, enum fault fault)
{
	struct vqb *b = &c->q->b;
	unsigned i = fz_below(f, c->n);
	u64 gpa = c->buf[i].gpa;
	u32 len = c->buf[i].len;
	u16 self = c->indirect ? (u16)i : b->chain[c->head][i], next = 0;
	u16 flags = c->buf[i].device_writes ? VRING_DESC_F_WRITE : 0;

	if (i + 1 < c->n) {
		flags |= VRING_DESC_F_NEXT;
		next = c->indirect ? (u16)(i + 1) : b->chain[c->head][i + 1];
	}
	switch (fault) {
	case ADDR_BEYOND:
		gpa = b->ram->mem.region[0].len - fz_below(f, len + 1) + 1;
		break;
	case LEN_HUGE:
		len = UINT32_MAX - fz_below(f, 1 << 20);
		break;
	case LEN_ZERO:
		len = 0;
		break;
	case ADDR_ANY:
		gpa = odd_gpa(f, b->ram, len);
		break;
	case SELF_LOOP:
		flags |= VRING_DESC_F_NEXT;
		next = self;
		break;
	case NEXT_ANY:
		flags |= VRING_DESC_F_NEXT;
		next = (u16)fz_odd(f, c->indirect ? c->n : b->size);
		break;
	case FLIP_WRITE:
		flags ^= VRING_DESC_F_WRITE;
		break;
	case FLAGS_ANY:
		flags = fz_u16(f);
		break;
	case MADE_INDIRECT:
		flags |= VRING_DESC_F_INDIRECT;
		break;
	default:
		len = (u32)fz_odd(f, len);
		break;
	}
	rewrite(c, i, gpa, len, flags, next);
}

/* Faults that are not about one buffer. */
static void break_ring(struct fz *f, const struct chain *c, enum fault fault)
{
	struct vqb *b = &c->q->b;
	u64 table_gpa = table_of(c->q, c->head);

	switch (fault) {
	case TABLE_LEN:
		vqb_set_desc(b, c->head, table_gpa, (u32)fz_odd(f, 16ull * c->n),
			VRING_DESC_F_INDIRECT, 0);
		break;
	case TABLE_ADDR:
		vqb_set_desc(b, c->head, odd_gpa(f, b->ram, 16 * c->n), 16 * c->n,
			VRING_DESC_F_INDIRECT, 0);
		break;
	case HEAD_ANY:
		vqb_offer(b, (u16)fz_odd(f, b->size));
		break;
	case HEAD_TWICE:
		vqb_offer(b, c->head);
		break;
	default:
		b->avail_idx = (u16)(b->avail_idx + fz_odd(f, b->size));
		break;
	}
}

static enum fz_fault apply(struct fz *f, const struct chain *c, enum fault fault)
{
	if (fault == NONE)
		return FZ_FINE;
	if (fault >= TABLE_LEN && fault < LEN_ANY)
		break_ring(f, c, fault);
	else
		break_descriptor(f, c, fault);
	return fault < SOUND_END ? FZ_ODD : FZ_BROKEN;
}

/* A driver that broke the ring and goes on forgets what it has out. */
static void forget(struct fz_queue *q)
{
	struct vqb *b = &q->b;

	for (b->free_count = 0; b->free_count < b->size; b->free_count++)
		b->free[b->free_count] = (u16)(b->size - 1 - b->free_count);
	memset(b->chain_len, 0, sizeof(b->chain_len));
	memset(q->out, 0, sizeof(q->out));
	q->out_count = 0;
}

enum fz_fault fz_offer(struct fz *f, struct fz_queue *q, const struct vqb_buf *buf, unsigned n,
	u16 *ret_head)
{
	struct vqb_buf piece[BUFS_MAX];
	unsigned count = cut(f, buf, n, piece);
	u8 how = fz_u8(f);
	enum fault fault = (enum fault)fz_break(f, FAULTS - 1);
	struct chain c = {.q = q, .indirect = q->indirect && how & 1, .n = count, .buf = piece};
	enum fz_fault r;

	if (fault == SOUND_END)
		fault = NONE;
	if (q->broken && q->b.free_count < count)
		forget(q);
	if (q->b.free_count < (c.indirect ? 1 : count))
		return FZ_FULL;
	c.head = fz_next_head(q);
	if (c.indirect)
		vqb_chain_indirect(&q->b, table_of(q, c.head), piece, (u16)count);
	else
		vqb_chain(&q->b, piece, (u16)count);
	vqb_offer(&q->b, c.head);
	r = apply(f, &c, fault);
	vqb_publish(&q->b);
	q->out_count += !q->out[c.head];
	q->out[c.head] = true;
	q->odd[c.head] = r != FZ_FINE;
	q->broken |= r == FZ_BROKEN;
	fz_trace("offer queue %u head %u: %u buffers, fault %u", q->index, c.head, count, fault);
	*ret_head = c.head;
	return r;
}

bool fz_used(struct fz_queue *q, u16 *ret_head, u32 *ret_len)
{
	if (q->broken || !q->b.ram || !vqb_used_waiting(&q->b))
		return false;
	must(vqb_used_waiting(&q->b) <= q->out_count);
	must(vqb_used(&q->b, ret_head, ret_len));
	must(q->out[*ret_head]);
	q->out[*ret_head] = false;
	q->out_count--;
	return true;
}

void fz_kick(struct virtio_dev *d, struct fz_queue *q)
{
	u16 new = q->b.avail_idx, old = q->kicked;
	bool wanted = new != old && !vqb_used_flags(&q->b);

	if (q->event_idx)
		wanted = (u16)(new - vqb_avail_event(&q->b) - 1) < (u16)(new - old);
	q->kicked = new;
	if (wanted || q->broken)
		drv_kick(d, q->index);
}

void fz_scribble(struct fz *f, struct fz_queue *q, unsigned queues)
{
	struct fz_queue *victim = &q[fz_below(f, queues)];
	struct vqb *b = &victim->b;
	u64 at_gpa = b->desc_gpa + fz_u16(f) % (b->used_gpa + 6 + 8 * b->size - b->desc_gpa);
	u64 v = fz_odd(f, b->size);

	if (fz_below(f, 4) == 0) {
		at_gpa = fz_below(f, (u32)b->ram->mem.region[0].len) & ~7ull;
		for (unsigned i = 0; i < queues; i++)
			q[i].broken = true;
	}
	victim->broken = true;
	guest_write(b->ram, at_gpa & ~1ull, &v, 2);
}

/* Devices. */

void fz_bring_up(struct virtio_dev *d, struct fz_queue *q[], unsigned n, u64 features)
{
	for (unsigned i = 0; i < n; i++) {
		if (q[i] && q[i]->indirect)
			features |= VIRTIO_MASK_INDIRECT_DESC;
		if (q[i] && q[i]->event_idx)
			features |= VIRTIO_MASK_EVENT_IDX;
	}
	drv_reset(d);
	must(!d->status && !d->io_count);
	must(drv_negotiate(d, features));
	for (unsigned i = 0; i < n; i++) {
		if (q[i])
			must(drv_queue(d, q[i]->index, &q[i]->b));
	}
	must(drv_start(d));
}

static const u16 offsets[] = {
#define REG(name, off, access, when) off,
#include "virtio/mmio_regs.def"
#undef REG
};

/* A value for register @off that means something there. */
static u64 reg_value(struct fz *f, u64 off)
{
	static const u8 status[] = {0, 1, 3, 11, 15, 0x80, 0x83, 0x8f, 0x40, 0x4f, 7, 0xff};

	switch (off) {
	case VIRTIO_MMIO_STATUS:
		return status[fz_below(f, ARRAY_SIZE(status))];
	case VIRTIO_MMIO_QUEUE_SEL:
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		return fz_below(f, FZ_QUEUES + 1);
	case VIRTIO_MMIO_QUEUE_NUM:
		return 1ull << fz_below(f, 17);
	case VIRTIO_MMIO_QUEUE_READY:
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		return fz_below(f, 3);
	case VIRTIO_MMIO_DRIVER_FEATURES:
		return fz_u32(f) & 0x30000021;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		return FZ_RING_GPA + fz_u16(f) % (FZ_QUEUES * MEM_PAGE);
	default:
		return fz_below(f, 4);
	}
}

void fz_mmio_access(struct fz *f, struct virtio_dev *d)
{
	u64 off = offsets[fz_below(f, ARRAY_SIZE(offsets))];
	bool write = fz_u8(f) & 1;
	unsigned len = 4;
	u64 v;

	switch (fz_break(f, 24)) {
	case 0:
		break;
	case 1: /* T01 */
	case 2:
		len = 1 + fz_below(f, 8);
		break;
	case 3: /* T02, T03 */
		off = fz_below(f, VIRTIO_MMIO_WINDOW);
		break;
	case 4:
		off = fz_below(f, VIRTIO_MMIO_WINDOW);
		len = 1 + fz_below(f, 8);
		break;
	default: /* T14 */
		off = VIRTIO_MMIO_CONFIG + fz_below(f, 64);
		len = 1 + fz_below(f, 8);
		break;
	}
	v = reg_value(f, off);
	if (fz_break(f, 32))
		v = fz_odd(f, v);
	if (write)
		virtio_mmio_write(d, off, &v, len);
	else
		virtio_mmio_read(d, off, &v, len);
}

void fz_check_dev(const struct virtio_dev *d)
{
	must(!d->resetting);
	must(d->status || !d->io_count);
	must(!(d->interrupt_status & ~(u32)(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG)));
	for (unsigned i = 0; i < d->queue_count; i++) {
		const struct vq *q = &d->queue[i];
		unsigned in_flight = 0;

		for (unsigned w = 0; w < ARRAY_SIZE(q->in_flight); w++)
			in_flight += (unsigned)__builtin_popcountll(q->in_flight[w]);
		must(!q->live || in_flight == q->in_flight_count);
		must(!q->live || q->in_flight_count == (u16)(q->next_avail - q->next_used));
		must(!q->live || (is_pow2(q->size) && q->in_flight_count <= q->size));
		must(!q->live || d->status == 15);
	}
}
