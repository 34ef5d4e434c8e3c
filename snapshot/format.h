/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - DIR/state, byte by byte. All numbers are little-endian; "zero" must be zero.
 *
 *   header, 48 bytes
 *      0   8  magic "KELVSNAP"
 *      8   4  format version: 1. Another version may lay out everything below differently
 *     12   4  CRC32C of bytes 16..47
 *     16   4  architecture, as ELF numbers machines: 62 is x86-64
 *     20   4  number of sections, the memory map included
 *     24   8  when it was made: CLOCK_REALTIME, ns
 *     32   8  length of the whole file
 *     40   8  zero
 *
 *   then each section: 40 bytes of head, its content, zeros up to a multiple of 8
 *      0   4  CRC32C of bytes 4..39 of this head
 *      4   4  CRC32C of the content
 *      8  16  tag: 1..15 of a-z 0-9 - _ . and then zeros; no tag appears twice
 *     24   2  version of the content
 *     26   2  flags: zero
 *     28   4  zero
 *     32   8  length of the content
 *
 *   the section "memory", version 1: the map of DIR/memory; always the last one
 *      0   8  bytes of RAM, which is the length of DIR/memory
 *      8   4  chunk size: 65536 (the last chunk may be shorter)
 *     12   4  zero
 *     16   8  bytes of RAM in pages that are not all zero
 *     24   n  one bit a chunk, bit 0 of byte 0 first: 1 = holds data, 0 = is all zero;
 *             n is a multiple of 8, the bits past the last chunk are zero
 *   24+n  4k  CRC32C of each of the k chunks that hold data
 *
 *   trailer, 16 bytes
 *      0   8  magic "KELVEND" and a zero byte
 *      8   4  zero
 *     12   4  CRC32C of every byte of the file before this field
 *
 * A checksum stands before the bytes it covers, the trailer's apart: a CRC over bytes that are
 * followed by their own CRC would come out the same whatever the bytes are.
 */
#ifndef KELVIN_SNAPSHOT_FORMAT_H
#define KELVIN_SNAPSHOT_FORMAT_H

#include "monitor/base/bytes.h"
#include "snapshot/snapshot.h"

#define SNAP_MAGIC         "KELVSNAP"
#define SNAP_END_MAGIC     "KELVEND"
#define SNAP_FORMAT        1u
#define SNAP_ARCH          62u
#define SNAP_HEADER_LEN    48u
#define SNAP_HEAD_LEN      40u
#define SNAP_TRAILER_LEN   16u
#define SNAP_MAP_HEAD_LEN  24u
#define SNAP_MAP_TAG       "memory"
#define SNAP_MAP_VERSION   1u

/* The memory map, after parsing; the pointers lead into the bytes that were parsed. */
struct snap_map {
	u64 size;
	u64 data_bytes;
	u64 chunk_count;
	const u8 *present; /* bit a chunk */
	const u8 *crc;     /* little-endian u32 for each chunk whose bit is set */
	size_t crc_len;    /* bytes of those */
};

static inline u64 snap_chunk_count(u64 mem_size)
{
	return mem_size / SNAP_CHUNK + (mem_size % SNAP_CHUNK != 0);
}

/* Bytes of the present bitmap. */
static inline u64 snap_bitmap_len(u64 chunks)
{
	return (chunks + 63) / 64 * 8;
}

static inline bool snap_bit(const u8 *bitmap, u64 i)
{
	return bitmap[i / 8] >> (i % 8) & 1;
}

/* What DIR/state says, once all of it has been checked. */
struct snap_state {
	u64 created_ns;
	unsigned section_count; /* without the memory map */
	struct snap_section section[SNAP_SECTIONS_MAX];
	struct snap_map map;
};

/*
 * Checks all @len bytes of a state file and fills *@ret, whose pointers lead into @buf. @dir is
 * for messages. Nothing in *@ret is to be used unless this returned 0.
 */
int snap_parse(struct snap_state *ret, const char *dir, const void *buf, size_t len,
	struct err *e);

/* Whether @tag can name a section. */
bool snap_tag_ok(const char *tag);

/* Writers, in this order: begin, section for each section (the map last), end. */
void snap_encode_begin(struct enc *out);
void snap_encode_section(struct enc *out, const char *tag, u16 version, const void *data,
	size_t len);
void snap_encode_end(struct enc *out, u32 section_count, u64 created_ns);

/* The content of the "memory" section. */
void snap_encode_map(struct enc *out, const struct snap_map *map);

#endif
