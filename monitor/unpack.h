/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.h - undo the compression a kernel comes in: gzip, xz, lz4 (both framings), zstd.
 */
#ifndef KELVIN_MONITOR_UNPACK_H
#define KELVIN_MONITOR_UNPACK_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

enum pack { PACK_NONE, PACK_GZIP, PACK_XZ, PACK_LZ4_LEGACY, PACK_LZ4, PACK_ZSTD, PACK_UNKNOWN };

#define PACK_HEAD_LEN 9u /* bytes pack_detect() looks at, at most */

/*
 * What the first @len bytes say; PACK_NONE: no compression known here, PACK_UNKNOWN: one that is
 * recognised but not undone (bzip2, lzma, lzo).
 */
enum pack pack_detect(const void *head, size_t len);
/* For messages: "gzip" and so on, "bzip2" for PACK_UNKNOWN's members. @head as above. */
const char *pack_name(const void *head, size_t len);

struct unpack_job {
	enum pack pack; /* one of those that can be undone */
	const u8 *src;  /* host memory nobody else writes */
	u64 src_len;
	u8 *dst; /* room for @cap + 1 bytes, which may be touched only as far as there is output */
	u64 cap; /* more output than that is refused; at most UNPACK_MAX */
};

#define UNPACK_MAX (1ull << 30) /* bytes; a kernel with all its debug data stays below */

/*
 * Undoes the first stream or frame in @src. What it holds must be an ELF file: after the first
 * bytes anything else is refused. Fills *@ret_len with the bytes written and *@ret_used with the
 * bytes of @src that were read; what follows them is the caller's business. A message does not
 * name the file. Any thread; keeps nothing.
 */
int unpack(const struct unpack_job *job, u64 *ret_len, u64 *ret_used, struct err *e);

#endif
