/* SPDX-License-Identifier: Apache-2.0 */
/* aim_blk.c - cases aimed at a block device. The request is a read of one sector. */
#include "blk.h"

u64 blk_scratch(const struct scene *s)
{
	return s->sectors / 4 * 3;
}

u8 *blk_request(struct scene *s, u32 type, u64 sector, u32 len, u16 flags)
{
	struct blk_header h = {.type = type, .sector = sector};
	u8 *data = len ? give(len, 16) : NULL;

	s->status = give(1, 1);
	s->segs = 0;
	s->seg[s->segs++] = (struct seg){(u64)show(&h, sizeof(h)), sizeof(h), 0};
	if (len)
		s->seg[s->segs++] = (struct seg){(u64)data, len, flags};
	s->seg[s->segs++] = (struct seg){(u64)s->status, 1, D_WRITE};
	return data;
}

bool blk_content(const void *data, u64 sector, u32 len)
{
	const volatile u64 *word = data;

	for (u32 i = 0; i < len / 8; i++) {
		if (word[i] != blk_word(sector * SECTOR / 8 + i))
			return complain("sector %lu has other content at byte %u",
				sector + i / (SECTOR / 8), i * 8 % SECTOR);
	}
	return true;
}

bool blk_ends(struct scene *s, unsigned allowed, const char *what)
{
	u8 status;
	u16 head;
	u32 len;

	lay(s, 0);
	raw_post(s->q, 0);
	raw_kick(&s->dev, s->q);
	switch (raw_wait(&s->dev, s->q, SOON)) {
	case USED:
		break;
	case BROKEN:
		return complain("%s: NEEDS_RESET", what);
	case NOTHING:
		return complain("%s does not come back", what);
	}
	raw_take(s->q, &head, &len);
	status = *s->status;
	if (!len || status > BLK_UNSUPP || !(allowed >> status & 1))
		return complain("%s: status %u, %u bytes used", what, status, len);
	return !complained();
}

/* ---- the aim ---- */

static bool start_blk(struct scene *s, u16 size)
{
	struct raw_dev *d = &s->dev;

	s->sectors = reg_get(d, REG_CONFIG) | (u64)reg_get(d, REG_CONFIG + 4) << 32;
	raw_ready(d, raw_rings(d, 0, size));
	raw_go(d);
	return true;
}

static void request(struct scene *s)
{
	s->sector = (s->sector + 1) % blk_scratch(s);
	blk_request(s, BLK_READ, s->sector, SECTOR, D_WRITE);
}

/* Of a type that nobody knows. */
static void quick(struct scene *s)
{
	blk_request(s, 0x55, 0, 0, 0);
}

static void provoke(struct scene *s)
{
	raw_kick(&s->dev, s->q);
}

static bool answered(struct scene *s, u32 len)
{
	u8 got[SECTOR + 1] __attribute__((aligned(8)));

	if (len != sizeof(got) || gather(s, got, sizeof(got)) != sizeof(got))
		return complain("%u bytes are used for a read of one sector", len);
	if (got[SECTOR] != BLK_OK)
		return complain("status %u for a good read", got[SECTOR]);
	return blk_content(got, s->sector, SECTOR) && tail_untouched(s, len);
}

static bool refused(struct scene *s, u32 len)
{
	if (len && *s->status != BLK_IOERR && *s->status != BLK_UNSUPP)
		return complain("a bad request comes back with %u bytes, status %u", len,
			*s->status);
	return true;
}

const struct aim aim_blk = {
	.name = "blk",
	.bit = ON_BLK,
	.device_id = VIRTIO_ID_BLOCK,
	.features = BLK_F_RO | BLK_F_FLUSH | BLK_F_DISCARD | BLK_F_WRITE_ZEROES,
	.start = start_blk,
	.request = request,
	.quick = quick,
	.provoke = provoke,
	.answered = answered,
	.refused = refused,
};
