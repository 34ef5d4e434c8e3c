/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.c - turn sections into the bytes of DIR/state and back. Pure: no files, no system calls.
 *
 * The bytes to parse are hostile. The parser works on a private copy that cannot change under it,
 * takes every field through a decoder that cannot run off the end, and compares each length with
 * what is left before using it. It checks from front to back, so that a message names the first
 * thing that is wrong; the trailer's checksum over the whole file comes last and catches what the
 * sections' own checksums cannot see, such as damaged padding.
 */
#include "snapshot/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "monitor/base/arith.h"
#include "monitor/base/crc32c.h"

struct parser {
	const char *dir;
	const u8 *buf;
	size_t len;
	size_t off; /* of the next section head */
	struct err *e;
};

/* "snapshot DIR: WHAT at offset OFF: why". */
__attribute__((format(printf, 4, 5))) static int bad(const struct parser *p, const char *what,
	size_t off, const char *fmt, ...)
{
	char why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(p->e, -EINVAL, "snapshot %.256s: %s at offset %zu: %s", p->dir, what, off,
		why);
}

static int bad_section(const struct parser *p, const struct snap_section *s, const char *why)
{
	char what[32];

	snprintf(what, sizeof(what), "section %s", s->tag);
	return bad(p, what, s->offset, "%s", why);
}

bool snap_tag_ok(const char *tag)
{
	size_t n = strnlen(tag, SNAP_TAG_MAX);

	if (!n || n == SNAP_TAG_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = tag[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
			c != '.')
			return false;
	}
	return true;
}

/* What people call the machine that ELF gives this number. */
static const char *arch_name(u32 arch)
{
	switch (arch) {
	case 3:
		return "i386";
	case SNAP_ARCH:
		return "x86-64";
	case 183:
		return "aarch64";
	case 243:
		return "riscv64";
	default:
		return "an unknown architecture";
	}
}

static int parse_header(struct parser *p, u32 *count, u64 *created_ns)
{
	struct dec d = dec_from(p->buf, p->len);
	u32 format, crc, arch;
	u64 len, zero;
	u8 magic[8];

	if (p->len < SNAP_HEADER_LEN + SNAP_TRAILER_LEN)
		return bad(p, "header", 0, "the file has only %zu bytes", p->len);
	dec_bytes(&d, magic, sizeof(magic));
	if (memcmp(magic, SNAP_MAGIC, sizeof(magic)) != 0)
		return bad(p, "header", 0, "this is not a kelvin snapshot");
	format = dec_u32(&d);
	if (format > SNAP_FORMAT)
		return bad(p, "header", 8,
			"format version %u is newer than this kelvin knows (%u)", format,
			SNAP_FORMAT);
	if (format != SNAP_FORMAT)
		return bad(p, "header", 8, "there is no format version %u", format);
	crc = dec_u32(&d);
	if (crc != crc32c(0, p->buf + 16, SNAP_HEADER_LEN - 16))
		return bad(p, "header", 12, "checksum does not match");
	arch = dec_u32(&d);
	*count = dec_u32(&d);
	*created_ns = dec_u64(&d);
	len = dec_u64(&d);
	zero = dec_u64(&d);
	if (arch != SNAP_ARCH)
		return bad(p, "header", 16, "made on %s (%u), this is %s", arch_name(arch), arch,
			arch_name(SNAP_ARCH));
	if (!*count || *count > SNAP_SECTIONS_MAX + 1)
		return bad(p, "header", 20, "%u sections: must be 1 to %u", *count,
			SNAP_SECTIONS_MAX + 1);
	if (len != p->len)
		return bad(p, "header", 32, "the file has %zu bytes and says %llu", p->len,
			(unsigned long long)len);
	if (zero)
		return bad(p, "header", 40, "reserved bytes are not zero");
	p->off = SNAP_HEADER_LEN;
	return 0;
}

/* The fields of a section head at p->off; *@crc is the content's checksum. */
static int parse_head(struct parser *p, struct snap_section *s, u32 *crc, u64 *len)
{
	size_t left = p->len - SNAP_TRAILER_LEN - p->off;
	const u8 *head = p->buf + p->off;
	struct dec d = dec_from(head, left);
	u32 head_crc = dec_u32(&d), zero;
	u16 flags;

	*crc = dec_u32(&d);
	dec_bytes(&d, s->tag, sizeof(s->tag));
	s->version = dec_u16(&d);
	flags = dec_u16(&d);
	zero = dec_u32(&d);
	*len = dec_u64(&d);
	s->offset = p->off;
	if (d.bad)
		return bad(p, "section head", p->off, "the file ends inside it");
	if (head_crc != crc32c(0, head + 4, SNAP_HEAD_LEN - 4))
		return bad(p, "section head", p->off, "checksum does not match");
	if (!snap_tag_ok(s->tag))
		return bad(p, "section head", p->off + 8, "this is not a section's name");
	for (size_t i = strlen(s->tag); i < sizeof(s->tag); i++)
		if (s->tag[i])
			return bad_section(p, s, "bytes after its name are not zero");
	if (flags || zero)
		return bad_section(p, s, "reserved bytes are not zero");
	return 0;
}

static int parse_section(struct parser *p, struct snap_section *s)
{
	static const u8 zeros[8];
	size_t left, pad;
	u64 len;
	u32 crc;
	int r = parse_head(p, s, &crc, &len);

	if (r)
		return r;
	p->off += SNAP_HEAD_LEN;
	left = p->len - SNAP_TRAILER_LEN - p->off;
	if (len > left)
		return bad_section(p, s, "its content goes past the end of the file");
	s->data = p->buf + p->off;
	s->len = (size_t)len;
	if (crc != crc32c(0, s->data, s->len))
		return bad_section(p, s, "checksum does not match");
	p->off += s->len;
	pad = (size_t)align_up(p->off, 8) - p->off;
	if (pad > left - s->len || memcmp(p->buf + p->off, zeros, pad) != 0)
		return bad_section(p, s, "bytes after its content are not zero");
	p->off += pad;
	return 0;
}

/* How many bits are set, or UINT64_MAX where one stands past the last chunk. */
static u64 count_present(const u8 *bitmap, u64 chunks)
{
	u64 words = snap_bitmap_len(chunks) / 8, n = 0, w = 0;

	for (u64 i = 0; i < words; i++) {
		struct dec d = dec_from(bitmap + i * 8, 8);

		w = dec_u64(&d);
		n += (u64)__builtin_popcountll(w);
	}
	return chunks % 64 && w >> (chunks % 64) ? UINT64_MAX : n;
}

static int parse_map(struct parser *p, const struct snap_section *s, struct snap_map *map)
{
	struct dec d = dec_from(s->data, s->len);
	u64 bitmap_len, present;
	u32 chunk, zero;

	if (s->version != SNAP_MAP_VERSION)
		return bad_section(p, s, "unknown version");
	map->size = dec_u64(&d);
	chunk = dec_u32(&d);
	zero = dec_u32(&d);
	map->data_bytes = dec_u64(&d);
	if (d.bad)
		return bad_section(p, s, "too short");
	if (map->size < MEM_MIN_SIZE || map->size > MEM_MAX_SIZE || map->size % MEM_PAGE)
		return bad_section(p, s, "impossible amount of RAM");
	if (chunk != SNAP_CHUNK)
		return bad_section(p, s, "unknown chunk size");
	if (zero)
		return bad_section(p, s, "reserved bytes are not zero");
	map->chunk_count = snap_chunk_count(map->size);
	bitmap_len = snap_bitmap_len(map->chunk_count);
	if (d.left < bitmap_len)
		return bad_section(p, s, "too short for that much RAM");
	map->present = d.p;
	map->crc = d.p + bitmap_len;
	map->crc_len = d.left - bitmap_len;
	present = count_present(map->present, map->chunk_count);
	if (present == UINT64_MAX)
		return bad_section(p, s, "marks chunks past the end of RAM");
	if (map->crc_len != present * sizeof(u32))
		return bad_section(p, s, "not one checksum for each chunk with data");
	if (map->data_bytes % MEM_PAGE || map->data_bytes > map->size ||
		map->data_bytes < present * MEM_PAGE || map->data_bytes > present * SNAP_CHUNK)
		return bad_section(p, s, "impossible amount of data");
	return 0;
}

static int parse_trailer(struct parser *p)
{
	size_t at = p->len - SNAP_TRAILER_LEN;
	struct dec d = dec_from(p->buf + at, SNAP_TRAILER_LEN);
	u32 zero, crc;
	u8 magic[8];

	if (p->off != at)
		return bad(p, "trailer", at, "%zu bytes before it belong to no section",
			at - p->off);
	dec_bytes(&d, magic, sizeof(magic));
	zero = dec_u32(&d);
	crc = dec_u32(&d);
	if (memcmp(magic, SNAP_END_MAGIC, sizeof(magic)) != 0 || zero)
		return bad(p, "trailer", at, "this is not the end of a snapshot");
	if (crc != crc32c(0, p->buf, p->len - 4))
		return bad(p, "trailer", at + 12, "checksum of the whole file does not match");
	return 0;
}

int snap_parse(struct snap_state *ret, const char *dir, const void *buf, size_t len, struct err *e)
{
	struct parser p = {.dir = dir, .buf = (const u8 *)buf, .len = len, .e = e};
	struct snap_section map;
	u32 count = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = parse_header(&p, &count, &ret->created_ns);
	if (r)
		return r;
	for (u32 i = 0; i + 1 < count; i++) {
		struct snap_section *s = &ret->section[i];

		r = parse_section(&p, s);
		if (r)
			return r;
		if (!strcmp(s->tag, SNAP_MAP_TAG))
			return bad_section(&p, s, "is not the last section");
		for (u32 k = 0; k < i; k++)
			if (!strcmp(s->tag, ret->section[k].tag))
				return bad_section(&p, s, "a section of this name came before");
		ret->section_count++;
	}
	r = parse_section(&p, &map);
	if (r)
		return r;
	if (strcmp(map.tag, SNAP_MAP_TAG) != 0)
		return bad_section(&p, &map, "the last section must be " SNAP_MAP_TAG);
	r = parse_map(&p, &map, &ret->map);
	return r ? r : parse_trailer(&p);
}

void snap_encode_begin(struct enc *out)
{
	static const u8 zeros[SNAP_HEADER_LEN];

	/* The header is filled in by snap_encode_end(). */
	enc_bytes(out, zeros, sizeof(zeros));
}

void snap_encode_section(struct enc *out, const char *tag, u16 version, const void *data,
	size_t len)
{
	static const u8 zeros[8];
	char name[SNAP_TAG_MAX] = {0};
	size_t head = out->len;
	u32 crc;

	must(snap_tag_ok(tag));
	memcpy(name, tag, strlen(tag));
	enc_u32(out, 0);
	enc_u32(out, crc32c(0, data, len));
	enc_bytes(out, name, sizeof(name));
	enc_u16(out, version);
	enc_u16(out, 0);
	enc_u32(out, 0);
	enc_u64(out, len);
	if (out->oom)
		return;
	crc = crc32c(0, out->buf + head + 4, SNAP_HEAD_LEN - 4);
	for (unsigned i = 0; i < 4; i++)
		out->buf[head + i] = (u8)(crc >> (8 * i));
	enc_bytes(out, data, len);
	enc_bytes(out, zeros, (size_t)align_up(len, 8) - len);
}

void snap_encode_end(struct enc *out, u32 section_count, u64 created_ns)
{
	struct enc rest = {0}, header = {0};

	enc_u32(&rest, SNAP_ARCH);
	enc_u32(&rest, section_count);
	enc_u64(&rest, created_ns);
	enc_u64(&rest, out->len + SNAP_TRAILER_LEN);
	enc_u64(&rest, 0);
	enc_bytes(&header, SNAP_MAGIC, 8);
	enc_u32(&header, SNAP_FORMAT);
	enc_u32(&header, rest.oom ? 0 : crc32c(0, rest.buf, rest.len));
	enc_bytes(&header, rest.buf, rest.len);
	enc_bytes(out, SNAP_END_MAGIC, 8);
	enc_u32(out, 0);
	if (rest.oom || header.oom || out->oom) {
		out->oom = true;
	} else {
		memcpy(out->buf, header.buf, SNAP_HEADER_LEN);
		enc_u32(out, crc32c(0, out->buf, out->len));
	}
	enc_free(&rest);
	enc_free(&header);
}

void snap_encode_map(struct enc *out, const struct snap_map *map)
{
	enc_u64(out, map->size);
	enc_u32(out, SNAP_CHUNK);
	enc_u32(out, 0);
	enc_u64(out, map->data_bytes);
	enc_bytes(out, map->present, (size_t)snap_bitmap_len(map->chunk_count));
	enc_bytes(out, map->crc, map->crc_len);
}
