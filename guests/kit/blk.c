/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.c - see blk.h.
 *
 * Each slot of a queue has a header, a status byte and a chain of descriptors of its own: header,
 * pieces of the data, status. With indirect descriptors the chain lies in the slot's table and the
 * ring's descriptor number = slot points there; without, the chain is a stretch of the ring's own
 * descriptors. The parts that never change are written once.
 */
#include "blk.h"

/* Places in the configuration (5.2.4). */
#define CONFIG_CAPACITY 0
#define CONFIG_BLK_SIZE 20
#define CONFIG_QUEUES   34

#define CHAIN_MAX (BLK_SEGS + 2)

struct blk_slot {
	u32 type, reserved; /* the header */
	u64 sector;
	volatile u8 status;
	struct blk_request *request;
	volatile struct virtq_desc *chain;
	u16 first; /* number that chain[0] has in its table */
	struct virtq_desc table[] __attribute__((aligned(16)));
};
#define HEADER_LEN 16

/* Whole cache lines, so that a status byte has no neighbours. */
static size_t slot_len(const struct blk *b)
{
	size_t len = sizeof(struct blk_slot) + (b->segs + 2) * sizeof(struct virtq_desc);

	return (len + 63) & -64ull;
}

static struct blk_slot *slot_at(const struct blk *b, const struct blk_queue *bq, unsigned i)
{
	return (struct blk_slot *)((u64)bq->slots + i * slot_len(b));
}

static bool indirect(const struct blk *b)
{
	return b->dev.features & VIRTIO_F_INDIRECT;
}

static void start_slot(struct blk *b, struct blk_queue *bq, u16 i)
{
	struct blk_slot *s = slot_at(b, bq, i);

	s->reserved = 0;
	s->request = NULL;
	s->first = indirect(b) ? 0 : (u16)(i * (b->segs + 2));
	s->chain = indirect(b) ? s->table : bq->q.desc + s->first;
	virtq_fill(&s->chain[0], s, HEADER_LEN, VIRTQ_NEXT, (u16)(s->first + 1));
	bq->free[i] = (u16)(b->depth - 1 - i);
}

/* Rings of a power of 2 that hold all slots. */
static bool start_queue(struct blk *b, u16 index)
{
	struct blk_queue *bq = &b->queues[index];
	unsigned want = indirect(b) ? b->depth : b->depth * (b->segs + 2);
	u16 size = 4;
	void *ring;

	while (size < want)
		size *= 2;
	ring = kit_pages(VIRTQ_BYTES(size));
	bq->free = kit_pages(b->depth * sizeof(*bq->free));
	bq->slots = kit_pages(b->depth * slot_len(b));
	if (!ring || !bq->free || !bq->slots || size > VIRTQ_SIZE_MAX ||
		!virtio_queue(&b->dev, &bq->q, index, ring, size))
		return false;
	for (u16 i = 0; i < b->depth; i++)
		start_slot(b, bq, i);
	bq->free_count = (u16)b->depth;
	return true;
}

bool blk_init(struct blk *b, const struct blk_setup *setup)
{
	u64 features = BLK_F_RO | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_MQ | BLK_F_DISCARD |
		       BLK_F_WRITE_ZEROES | (setup->direct ? 0 : VIRTIO_F_INDIRECT);

	b->queue_count = setup->queues ? setup->queues : 1;
	b->depth = setup->depth ? setup->depth : 1;
	b->segs = setup->segs ? setup->segs : 1;
	if (b->queue_count > BLK_QUEUES || b->depth > BLK_DEPTH || b->segs > BLK_SEGS)
		return false;
	if (!virtio_find_nth(&b->dev, VIRTIO_ID_BLOCK, setup->nth) ||
		!virtio_begin(&b->dev, features & ~setup->without))
		return false;
	if (!(b->dev.features & BLK_F_MQ))
		b->queue_count = 1;
	else if (b->queue_count > virtio_config16(&b->dev, CONFIG_QUEUES))
		b->queue_count = virtio_config16(&b->dev, CONFIG_QUEUES);
	for (u16 i = 0; i < b->queue_count; i++) {
		if (!start_queue(b, i))
			return false;
	}
	b->block_size = b->dev.features & BLK_F_BLK_SIZE ?
				virtio_config32(&b->dev, CONFIG_BLK_SIZE) : 512;
	virtio_go(&b->dev);
	return true;
}

u64 blk_capacity(const struct blk *b)
{
	return virtio_config64(&b->dev, CONFIG_CAPACITY);
}

/* Cuts the data into pieces of whole sectors, as far as it is long enough. */
static u16 fill_data(const struct blk *b, struct blk_slot *s, const struct blk_request *r)
{
	bool in = r->type == BLK_IN || r->type == BLK_GET_ID;
	u16 flags = VIRTQ_NEXT | (in ? VIRTQ_WRITE : 0), at = 1;
	u32 piece = r->len, done = 0;

	if (b->segs > 1 && r->len > 512)
		piece = (r->len / 512 + b->segs - 1) / b->segs * 512;
	for (; done < r->len; at++, done += piece) {
		u32 len = r->len - done < piece ? r->len - done : piece;

		virtq_fill(&s->chain[at], (u8 *)r->data + done, len, flags,
			(u16)(s->first + at + 1));
	}
	return at;
}

bool blk_submit(struct blk *b, unsigned queue, struct blk_request *r)
{
	struct blk_queue *bq = &b->queues[queue];
	struct blk_slot *s;
	u16 i, end;

	if (!bq->free_count)
		return false;
	i = bq->free[--bq->free_count];
	s = slot_at(b, bq, i);
	s->type = r->type;
	s->sector = r->sector;
	s->status = BLK_PENDING;
	s->request = r;
	end = fill_data(b, s, r);
	virtq_fill(&s->chain[end], &s->status, 1, VIRTQ_WRITE, 0);
	if (indirect(b))
		virtq_set(&bq->q, i, s->table, (end + 1u) * (u32)sizeof(struct virtq_desc),
			VIRTQ_INDIRECT, 0);
	virtq_offer(&bq->q, indirect(b) ? i : s->first);
	return true;
}

void blk_kick(struct blk *b)
{
	for (unsigned i = 0; i < b->queue_count; i++)
		virtq_kick(&b->queues[i].q);
}

/* The device says it is done with the chain at @head. */
static struct blk_request *finish(struct blk *b, struct blk_queue *bq, u16 head, u32 len)
{
	u16 i = indirect(b) ? head : (u16)(head / (b->segs + 2));
	struct blk_slot *s = slot_at(b, bq, i);
	struct blk_request *r;

	if (i >= b->depth || !s->request) {
		kit_printf("blk: queue %u gave back %u, which it did not have\n", bq->q.index, head);
		kit_power(BLK_BROKEN);
	}
	r = s->request;
	s->request = NULL;
	r->status = s->status;
	r->used = len;
	bq->free[bq->free_count++] = i;
	return r;
}

struct blk_request *blk_take(struct blk *b)
{
	u16 head;
	u32 len;

	for (unsigned i = 0; i < b->queue_count; i++) {
		struct blk_queue *bq = &b->queues[i];

		if (virtq_take(&bq->q, &head, &len))
			return finish(b, bq, head, len);
	}
	return NULL;
}

void blk_wait(struct blk *b)
{
	struct virtq *queues[BLK_QUEUES];

	for (unsigned i = 0; i < b->queue_count; i++)
		queues[i] = &b->queues[i].q;
	virtq_wait(queues, b->queue_count);
}

u8 blk_do(struct blk *b, struct blk_request *r)
{
	if (!blk_submit(b, 0, r))
		return BLK_IOERR;
	blk_kick(b);
	while (blk_take(b) != r)
		blk_wait(b);
	return r->status;
}
