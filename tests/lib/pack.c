/* SPDX-License-Identifier: Apache-2.0 */
/* pack.c - see pack.h */
#include "tests/lib/pack.h"

#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define BLOCK (8u << 20)

static size_t pack_gzip(const u8 *src, size_t len, u8 *out, size_t cap)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)len,
		.next_out = out, .avail_out = (uInt)cap};

	must(deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	must(deflate(&z, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_legacy(const u8 *src, size_t len, u8 *out, size_t cap)
{
	size_t n = 4;

	memcpy(out, "\x02\x21\x4c\x18", 4);
	for (size_t at = 0; at < len; at += BLOCK) {
		size_t part = len - at < BLOCK ? len - at : BLOCK;
		int k = LZ4_compress_default((const char *)src + at, (char *)out + n + 4, (int)part,
			(int)(cap - n - 4));

		must(k > 0);
		memcpy(out + n, &k, 4);
		n += 4 + (size_t)k;
	}
	return n;
}

u8 *pack(enum pack how, const void *src, size_t len, size_t *ret_len)
{
	size_t cap = len + len / 64 + 4096;
	u8 *out = malloc(cap);

	must(out);
	*ret_len = 0;
	switch (how) {
	case PACK_GZIP: *ret_len = pack_gzip(src, len, out, cap); break;
	case PACK_XZ:
		must(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, src, len, out, ret_len,
			     cap) == LZMA_OK);
		break;
	case PACK_LZ4_LEGACY: *ret_len = pack_legacy(src, len, out, cap); break;
	case PACK_LZ4: *ret_len = LZ4F_compressFrame(out, cap, src, len, NULL); break;
	case PACK_ZSTD: *ret_len = ZSTD_compress(out, cap, src, len, 1); break;
	case PACK_NONE:
	case PACK_UNKNOWN: must(false);
	}
	must(*ret_len && *ret_len < cap - 4);
	return out;
}

u8 *pack_with_size(enum pack how, const void *src, size_t len, size_t *ret_len)
{
	u8 *out = pack(how, src, len, ret_len);
	u32 size = (u32)len;

	if (how == PACK_GZIP) /* it is there already */
		return out;
	memcpy(out + *ret_len, &size, sizeof(size));
	*ret_len += sizeof(size);
	return out;
}
