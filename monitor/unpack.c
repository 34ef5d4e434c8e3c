/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.c - undo the compression a kernel comes in.
 *
 * The work is done by the formats' own libraries; what is ours is the bounds. The input may be
 * anything. Output goes to memory of a fixed size, so that a few kilobytes which unpack to
 * terabytes end in an error and not in a full host; and because the first bytes out must be those
 * of an ELF file, most such files end after a block. Memory of the libraries is bounded too: the
 * xz dictionary by a limit given to it, the zstd window by the library's own default (128 MiB).
 *
 * lz4 comes in two framings. The one Linux kernels use is the "legacy" one: a magic number, then
 * blocks, each a 32-bit length and that many bytes, each giving 8 MiB but for the last. It has no
 * end mark, and Linux appends the size of the output in 4 bytes, which are too few for a block.
 */
#include "monitor/unpack.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "monitor/base/arith.h"
#include "monitor/magic.h"

#define FIRST_STEP   (64u << 10)  /* output before the first look at it */
#define XZ_MEMORY    (192ull << 20)
#define LEGACY_BLOCK (8u << 20)   /* output of a block of legacy lz4 */
#define LEGACY_MAGIC 4u           /* bytes */

static const struct pack_magic {
	enum pack pack;
	u32 len;
	const char *bytes, *name;
} magics[] = {
	{PACK_GZIP, 3, "\x1f\x8b\x08", "gzip"},
	{PACK_XZ, 6, "\xfd" "7zXZ\0", "xz"},
	{PACK_LZ4_LEGACY, 4, "\x02\x21\x4c\x18", "lz4"},
	{PACK_LZ4, 4, "\x04\x22\x4d\x18", "lz4"},
	{PACK_ZSTD, 4, "\x28\xb5\x2f\xfd", "zstd"},
	{PACK_UNKNOWN, 3, "BZh", "bzip2"},
	{PACK_UNKNOWN, 3, "\x5d\0\0", "lzma"},
	{PACK_UNKNOWN, 9, "\x89LZO\0\r\n\x1a\n", "lzo"},
};

static const struct pack_magic *find_magic(const void *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (len >= magics[i].len && !memcmp(head, magics[i].bytes, magics[i].len))
			return &magics[i];
	return NULL;
}

enum pack pack_detect(const void *head, size_t len)
{
	const struct pack_magic *m = find_magic(head, len);

	return m ? m->pack : PACK_NONE;
}

const char *pack_name(const void *head, size_t len)
{
	const struct pack_magic *m = find_magic(head, len);

	return m ? m->name : "no compression";
}

/* ---- the output ---- */

struct output {
	u8 *dst;
	u64 len, cap;
};

static u8 *out_at(const struct output *o)
{
	return o->dst + o->len;
}

/* How much may be written next: little before the first look, and one byte more than allowed. */
static u64 out_room(const struct output *o)
{
	u64 room = o->cap + 1 - o->len;

	return o->len < SELFMAG && room > FIRST_STEP ? FIRST_STEP : room;
}

/* Takes note of @n bytes that were written at out_at(). */
static int out_wrote(struct output *o, u64 n, struct err *e)
{
	bool looked = o->len >= SELFMAG;
	const char *what;

	o->len += n;
	if (!looked && o->len >= SELFMAG && memcmp(o->dst, ELFMAG, SELFMAG)) {
		what = magic_what(o->dst, o->len < MAGIC_HEAD_LEN ? o->len : MAGIC_HEAD_LEN);
		if (what)
			return err_set(e, -ENOEXEC, "what it unpacks to is not an ELF file but %s",
				what);
		return err_set(e, -ENOEXEC, "what it unpacks to is not an ELF file: it begins with "
			"bytes %02x %02x %02x %02x", o->dst[0], o->dst[1], o->dst[2], o->dst[3]);
	}
	if (o->len > o->cap)
		return err_set(e, -EFBIG, "it unpacks to more than the %" PRIu64 " bytes it may",
			o->cap);
	return 0;
}

static int cut_short(struct err *e)
{
	return err_set(e, -ENOEXEC, "cut short: its end is missing");
}

static int broken(struct err *e, const char *why)
{
	return err_set(e, -ENOEXEC, "damaged: %s", why ? why : "its bytes make no sense");
}

static int no_memory(struct err *e)
{
	return err_sys(e, ENOMEM, "cannot be unpacked");
}

/* ---- gzip ---- */

static int inflate_all(z_stream *z, struct output *o, struct err *e)
{
	for (;;) {
		u64 room = out_room(o);
		int z_ret, r;

		z->next_out = out_at(o);
		z->avail_out = (uInt)room; /* at most 1 GiB + 1 */
		z_ret = inflate(z, Z_NO_FLUSH);
		r = out_wrote(o, room - z->avail_out, e);
		if (r || z_ret == Z_STREAM_END)
			return r;
		if (z_ret == Z_BUF_ERROR || (z_ret == Z_OK && !z->avail_in && z->avail_out))
			return cut_short(e);
		if (z_ret == Z_MEM_ERROR)
			return no_memory(e);
		if (z_ret != Z_OK)
			return broken(e, z->msg);
	}
}

static int unpack_gzip(const struct unpack_job *job, struct output *o, u64 *used, struct err *e)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)job->src, .avail_in = (uInt)job->src_len};
	int r;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) /* 16: with a gzip header */
		return no_memory(e);
	r = inflate_all(&z, o, e);
	*used = job->src_len - z.avail_in;
	inflateEnd(&z);
	return r;
}

/* ---- xz ---- */

static int xz_failed(lzma_ret ret, struct err *e)
{
	switch (ret) {
	case LZMA_BUF_ERROR: return cut_short(e);
	case LZMA_MEM_ERROR: return no_memory(e);
	case LZMA_MEMLIMIT_ERROR:
		return err_set(e, -ENOEXEC, "its dictionary is too large: unpacking may take %u "
			"MiB of memory", (unsigned)(XZ_MEMORY >> 20));
	case LZMA_OPTIONS_ERROR: return broken(e, "it uses a filter this xz library lacks");
	case LZMA_DATA_ERROR: return broken(e, "its contents do not match their checksum");
	default: return broken(e, NULL);
	}
}

static int unpack_xz(const struct unpack_job *job, struct output *o, u64 *used, struct err *e)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret ret = lzma_stream_decoder(&s, XZ_MEMORY, 0);
	int r = ret == LZMA_OK ? 0 : no_memory(e);

	s.next_in = job->src;
	s.avail_in = job->src_len;
	while (!r && ret != LZMA_STREAM_END) {
		u64 room = out_room(o);

		s.next_out = out_at(o);
		s.avail_out = room;
		ret = lzma_code(&s, LZMA_FINISH);
		r = out_wrote(o, room - s.avail_out, e);
		if (!r && ret != LZMA_OK && ret != LZMA_STREAM_END)
			r = xz_failed(ret, e);
	}
	*used = job->src_len - s.avail_in;
	lzma_end(&s);
	return r;
}

/* ---- zstd ---- */

static int unpack_zstd(const struct unpack_job *job, struct output *o, u64 *used, struct err *e)
{
	ZSTD_inBuffer in = {.src = job->src, .size = job->src_len};
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	size_t left = 1;
	int r = ctx ? 0 : no_memory(e);

	while (!r && left) {
		ZSTD_outBuffer out = {.dst = out_at(o), .size = out_room(o)};

		left = ZSTD_decompressStream(ctx, &out, &in);
		if (ZSTD_isError(left))
			r = broken(e, ZSTD_getErrorName(left));
		else
			r = out_wrote(o, out.pos, e);
		if (!r && left && in.pos == in.size && out.pos < out.size)
			r = cut_short(e);
	}
	*used = in.pos;
	ZSTD_freeDCtx(ctx);
	return r;
}

/* ---- lz4 ---- */

static int unpack_lz4(const struct unpack_job *job, struct output *o, u64 *used, struct err *e)
{
	const LZ4F_decompressOptions_t opt = {.stableDst = 1};
	LZ4F_dctx *ctx = NULL;
	size_t left = 1;
	u64 at = 0;
	int r = LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)) ? no_memory(e)
										   : 0;

	while (!r && left) {
		u64 room = out_room(o);
		size_t out = room, in = job->src_len - at;

		left = LZ4F_decompress(ctx, out_at(o), &out, job->src + at, &in, &opt);
		if (LZ4F_isError(left)) {
			r = broken(e, LZ4F_getErrorName(left));
			break;
		}
		at += in;
		r = out_wrote(o, out, e);
		if (!r && left && at == job->src_len && out < room)
			r = cut_short(e);
	}
	*used = at;
	LZ4F_freeDecompressionContext(ctx);
	return r;
}

static int unpack_legacy_block(const struct unpack_job *job, u64 at, u32 len, struct output *o,
	struct err *e)
{
	u64 room = o->cap + 1 - o->len;
	int n;

	if (room > LEGACY_BLOCK)
		room = LEGACY_BLOCK;
	n = LZ4_decompress_safe((const char *)job->src + at, (char *)out_at(o), (int)len,
		(int)room);
	if (n < 0 && room < LEGACY_BLOCK)
		return out_wrote(o, room, e); /* no room is the likely reason: too much */
	if (n < 0)
		return broken(e, "a block does not unpack");
	return out_wrote(o, (u64)n, e);
}

static int unpack_lz4_legacy(const struct unpack_job *job, struct output *o, u64 *used,
	struct err *e)
{
	u64 at = LEGACY_MAGIC;
	int r = 0;

	must(job->src_len >= at); /* pack_detect() saw it */
	/* 4 bytes or less at the end are no block. */
	while (!r && job->src_len - at > sizeof(u32)) {
		u32 len;

		memcpy(&len, job->src + at, sizeof(len));
		at += sizeof(len);
		if (!len || len > (u32)LZ4_COMPRESSBOUND(LEGACY_BLOCK))
			return broken(e, "a block has an impossible length");
		if (!range_ok(at, len, job->src_len))
			return cut_short(e);
		r = unpack_legacy_block(job, at, len, o, e);
		at += len;
	}
	*used = at;
	return r;
}

int unpack(const struct unpack_job *job, u64 *ret_len, u64 *ret_used, struct err *e)
{
	struct output o = {.dst = job->dst, .cap = job->cap};
	u64 used = 0;
	int r = 0;

	must(job->cap <= UNPACK_MAX && job->src_len <= UNPACK_MAX);
	switch (job->pack) {
	case PACK_GZIP: r = unpack_gzip(job, &o, &used, e); break;
	case PACK_XZ: r = unpack_xz(job, &o, &used, e); break;
	case PACK_LZ4_LEGACY: r = unpack_lz4_legacy(job, &o, &used, e); break;
	case PACK_LZ4: r = unpack_lz4(job, &o, &used, e); break;
	case PACK_ZSTD: r = unpack_zstd(job, &o, &used, e); break;
	case PACK_NONE:
	case PACK_UNKNOWN: must(false);
	}
	if (!r && o.len < SELFMAG)
		r = err_set(e, -ENOEXEC, "it unpacks to only %" PRIu64 " bytes", o.len);
	if (r)
		return r;
	*ret_len = o.len;
	*ret_used = used;
	return 0;
}
