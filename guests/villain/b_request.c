/* SPDX-License-Identifier: Apache-2.0 */
/*
 * b_request.c - B01 to B08, B11, B12: requests that are not what they seem.
 *
 * Only cases marked "writes" may change the image, and only its last quarter; the host compares.
 */
#include "blk.h"

static const struct seg *last_seg(const struct scene *s)
{
	return &s->seg[s->segs - 1];
}

/* ---- B01, B02: header and status ---- */

/* The request without its header, or with arg bytes of it. */
static enum verdict b01_short(struct scene *s)
{
	s->aim->request(s);
	s->seg[0].len = (u32)s->arg;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

static enum verdict b01_split(struct scene *s)
{
	s->aim->request(s);
	for (u32 i = 15; i > 0; i--)
		insert(s, 1, s->seg[0].addr + i, 1, 0);
	s->seg[0].len = 1;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

/* Header and data of a write in one descriptor, and that cut in the middle of both. */
static enum verdict b01_one_piece(struct scene *s)
{
	struct blk_header h = {.type = BLK_WRITE, .sector = blk_scratch(s)};
	u8 both[sizeof(h) + SECTOR];
	u8 *back;

	memcpy(both, &h, sizeof(h));
	memset(both + sizeof(h), 0x3c, SECTOR);
	s->status = give(1, 1);
	s->seg[0] = (struct seg){(u64)show(both, sizeof(both)), sizeof(both), 0};
	s->seg[1] = (struct seg){(u64)s->status, 1, D_WRITE};
	s->segs = 2;
	if (s->arg) {
		insert(s, 1, s->seg[0].addr + s->arg, sizeof(both) - (u32)s->arg, 0);
		s->seg[0].len = (u32)s->arg;
	}
	if (!blk_ends(s, MAY_OK, "a write in one piece"))
		return FAIL;
	back = blk_request(s, BLK_READ, blk_scratch(s), SECTOR, D_WRITE);
	if (blk_ends(s, MAY_OK, "a read") && memcmp(back, both + sizeof(h), SECTOR) != 0)
		complain("what was written is not there");
	return PASS;
}

/* A read with more readable bytes than a header. */
static enum verdict b01_oversized(struct scene *s)
{
	u8 *data = blk_request(s, BLK_READ, 5, SECTOR, D_WRITE);
	static const u8 more[16] = "behind the heade";

	insert(s, 1, (u64)show(more, sizeof(more)), sizeof(more), 0);
	if (blk_ends(s, MAY_OK | MAY_FAIL, "a read with a long header") && *s->status == BLK_OK)
		blk_content(data, 5, SECTOR);
	return PASS;
}

static enum verdict b02_no_status(struct scene *s)
{
	s->aim->request(s);
	s->segs = (unsigned)s->arg;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

/* No data, and a status of no byte. */
static enum verdict b02_empty_status(struct scene *s)
{
	blk_request(s, BLK_FLUSH, 0, 0, 0);
	s->seg[1].len = 0;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

/* The status is the last byte, whatever is in front of it. */
static enum verdict b02_long_status(struct scene *s)
{
	u8 *status = give(4, 4);

	blk_request(s, (u32)s->arg, 3, 0, 0);
	s->seg[1] = (struct seg){(u64)status, 4, D_WRITE};
	s->status = status + 3;
	if (!blk_ends(s, MAY_ANY, "a request with a status of 4 bytes"))
		return FAIL;
	if (status[0] != FILL || status[1] != FILL || status[2] != FILL)
		complain("bytes in front of the status were written");
	return PASS;
}

/* ---- B03-B05: where and how much ---- */

static enum verdict b03_sector(struct scene *s)
{
	const u32 type = (u32)s->arg;
	const u64 sectors[] = {s->sectors, s->sectors - 1, s->sectors + 1, 1ull << 32, 1ull << 54,
		1ull << 55, (1ull << 55) + 1, 1ull << 63, -1ull, -2ull};

	for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		/* Two sectors, so that the last one of the disk is a case, too. */
		u8 *data = blk_request(s, type, sectors[i], 2 * SECTOR,
			type == BLK_READ ? D_WRITE : 0);

		if (!blk_ends(s, MAY_FAIL, "a request beyond the end"))
			return FAIL;
		for (u32 k = 0; k < 2 * SECTOR; k++) {
			if (data[k] != FILL) {
				complain("a refused read wrote its buffer");
				return FAIL;
			}
		}
	}
	return PASS;
}

/* Each segment alone would be fine; together they reach behind the end. */
static enum verdict b04_sum(struct scene *s)
{
	const u32 type = (u32)s->arg, count = 8;
	u16 flags = type == BLK_READ ? D_WRITE : 0;
	u8 *data = blk_request(s, type, s->sectors - count / 2, SECTOR, flags);

	for (u32 i = 1; i < count; i++)
		insert(s, 1, (u64)data, SECTOR, flags);
	blk_ends(s, MAY_FAIL, "segments that sum past the end");
	return PASS;
}

static enum verdict b05_length(struct scene *s)
{
	static const u32 lens[] = {1, 16, 511, 513, 1023};
	const u32 type = (u32)s->arg;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		blk_request(s, type, 7, lens[i], type == BLK_READ ? D_WRITE : 0);
		if (!blk_ends(s, MAY_FAIL, "a request of part of a sector"))
			return FAIL;
	}
	return PASS;
}

/* Pieces that are no sectors, of a whole that is. */
static enum verdict b05_pieces(struct scene *s)
{
	s->aim->request(s);
	split(s, 9);
	lay(s, 0);
	raw_post(s->q, 0);
	return must_work(s, 0);
}

/* ---- B06-B08: what is asked for ---- */

static enum verdict b06_type(struct scene *s)
{
	static const u32 types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 0x55, 0x100, 0x10000,
		0x7fffffff, 0x80000000, 0x80000001, 0x80000004, 0xffffffff};

	for (unsigned i = 0; i < 2 * sizeof(types) / sizeof(types[0]); i++) {
		blk_request(s, types[i / 2], 0, SECTOR, i % 2 ? D_WRITE : 0);
		if (!blk_ends(s, MAY_REFUSE, "a request of an unknown type"))
			return FAIL;
	}
	return PASS;
}

/* arg: whether the driver accepts F_RO; the disk is read-only all the same. */
static enum verdict b07_read_only(struct scene *s)
{
	static const u32 types[] = {BLK_WRITE, BLK_DISCARD, BLK_WRITE_ZEROES};

	if (!(s->dev.offered & BLK_F_RO))
		return skip("the disk is not read-only");
	if (!s->arg && !restart(s, SIZE, (s->aim->features & ~BLK_F_RO) | F_RINGS))
		return FAIL;
	for (unsigned i = 0; i < 3; i++) {
		static const u8 segment[16] = {1, [8] = 1}; /* one sector, sector 1 */
		u8 *data = blk_request(s, types[i], 1, i ? sizeof(segment) : SECTOR, 0);

		memcpy(data, segment, sizeof(segment));
		if (!blk_ends(s, i ? MAY_FAIL | MAY_REFUSE : MAY_FAIL, "a write to a read-only disk"))
			return FAIL;
	}
	good(s);
	return PASS;
}

static enum verdict b08_get_id(struct scene *s)
{
	static const u32 lens[] = {20, 1, 10, 19, 21, 64, 512};
	u8 id[20];

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		u8 *data = blk_request(s, BLK_GET_ID, 0, lens[i], D_WRITE);
		u32 n = lens[i] < 20 ? lens[i] : 20;

		if (!blk_ends(s, lens[i] == 20 ? MAY_OK : MAY_ANY, "GET_ID"))
			return FAIL;
		if (i == 0)
			memcpy(id, data, sizeof(id));
		if (*s->status == BLK_OK && memcmp(data, id, n) != 0)
			complain("GET_ID into %u bytes gives another id", lens[i]);
		for (u32 k = 20; k < lens[i]; k++) {
			if (data[k] != FILL && data[k] != 0)
				complain("GET_ID into %u bytes writes byte %u", lens[i], k);
		}
	}
	blk_request(s, BLK_GET_ID, 0, 0, 0);
	blk_ends(s, MAY_ANY, "GET_ID without a buffer");
	return PASS;
}

/* ---- B11, B12 ---- */

static enum verdict b11_no_data(struct scene *s)
{
	static const u32 types[] = {BLK_READ, BLK_WRITE};

	for (unsigned i = 0; i < 2; i++) {
		blk_request(s, types[i], 0, 0, 0);
		if (!blk_ends(s, MAY_OK | MAY_FAIL, "a request without data"))
			return FAIL;
	}
	return PASS;
}

/* As many segments as a chain can have, in the ring or in a table (arg). */
static enum verdict b12_longest(struct scene *s)
{
	const u32 count = QUEUE_MAX - 2, bytes = count * SECTOR;
	u8 *data;

	if (!restart(s, QUEUE_MAX, s->aim->features | F_RINGS))
		return FAIL;
	data = blk_request(s, BLK_READ, 0, bytes, D_WRITE);
	for (u32 i = count - 1; i > 0; i--)
		insert(s, 2, (u64)data + i * SECTOR, SECTOR, D_WRITE);
	s->seg[1].len = SECTOR;
	if (s->arg) {
		volatile struct virtq_desc *t = lay_table(s, s->segs);
		u32 used;
		u16 head;

		raw_desc(s->q, 0, (u64)t, s->segs * 16, D_INDIRECT, 0);
		raw_post(s->q, 0);
		raw_kick(&s->dev, s->q);
		if (raw_wait(&s->dev, s->q, SOON) != USED)
			complain("the longest chain in a table does not come back");
		else
			raw_take(s->q, &head, &used);
		if (*s->status != BLK_OK)
			complain("the longest chain in a table: status %u", *s->status);
	} else {
		blk_ends(s, MAY_OK, "the longest chain");
	}
	if (!complained() && last_seg(s)->len == 1)
		blk_content(data, 0, bytes);
	return PASS;
}

const struct act acts_request[] = {
	{"B01.none", ON_BLK, WILL_PASS, b01_short, 0},
	{"B01.short", ON_BLK, WILL_PASS, b01_short, 8},
	{"B01.15", ON_BLK, WILL_PASS, b01_short, 15},
	{"B01.split", ON_BLK, WILL_PASS, b01_split},
	{"B01.one", ON_BLK, WILL_PASS, b01_one_piece, 0, "writes"},
	{"B01.cut", ON_BLK, WILL_PASS, b01_one_piece, 9, "writes"},
	{"B01.over", ON_BLK, WILL_PASS, b01_oversized},
	{"B02.none", ON_BLK, WILL_PASS, b02_no_status, 1},
	{"B02.zero", ON_BLK, WILL_PASS, b02_empty_status},
	{"B02.flush", ON_BLK, WILL_PASS, b02_long_status, BLK_FLUSH},
	{"B02.read", ON_BLK, WILL_PASS, b02_long_status, BLK_READ},
	{"B02.unknown", ON_BLK, WILL_PASS, b02_long_status, 0x55},
	{"B03.read", ON_BLK, WILL_PASS, b03_sector, BLK_READ},
	{"B03.write", ON_BLK, WILL_PASS, b03_sector, BLK_WRITE},
	{"B04.read", ON_BLK, WILL_PASS, b04_sum, BLK_READ},
	{"B04.write", ON_BLK, WILL_PASS, b04_sum, BLK_WRITE},
	{"B05.read", ON_BLK, WILL_PASS, b05_length, BLK_READ},
	{"B05.write", ON_BLK, WILL_PASS, b05_length, BLK_WRITE},
	{"B05.pieces", ON_BLK, WILL_PASS, b05_pieces},
	{"B06", ON_BLK, WILL_PASS, b06_type},
	{"B07.ro", ON_BLK, WILL_PASS, b07_read_only, 1, "ro"},
	{"B07.unacked", ON_BLK, WILL_PASS, b07_read_only, 0, "ro"},
	{"B08", ON_BLK, WILL_PASS, b08_get_id},
	{"B11", ON_BLK, WILL_PASS, b11_no_data},
	{"B12.ring", ON_BLK, WILL_PASS, b12_longest, 0},
	{"B12.table", ON_BLK, WILL_PASS, b12_longest, 1},
	{0},
};
