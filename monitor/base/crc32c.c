/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.c - CRC-32C (polynomial 0x1EDC6F41, reflected, inverted before and after).
 *
 * The processor's crc32 instruction takes 8 bytes in 3 cycles, which is faster than the page cache
 * takes the same bytes; three interleaved streams would hide that latency but need a carry-less
 * multiplication to join them, and would save a millisecond on 16 MiB.
 */
#include "monitor/base/crc32c.h"

#include <string.h>
#include <sys/platform/x86.h>

#define POLY_REFLECTED 0x82F63B78u

u32 crc32c_table(u32 crc, const void *data, size_t len)
{
	const u8 *p = (const u8 *)data;
	u32 table[256]; /* made anew by each call: no state, and no host in use today needs it */

	for (u32 i = 0; i < 256; i++) {
		u32 v = i;

		for (int bit = 0; bit < 8; bit++)
			v = v & 1 ? v >> 1 ^ POLY_REFLECTED : v >> 1;
		table[i] = v;
	}
	crc = ~crc;
	for (size_t i = 0; i < len; i++)
		crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xff];
	return ~crc;
}

__attribute__((target("sse4.2"))) static u32 crc32c_sse42(u32 crc, const void *data, size_t len)
{
	const u8 *p = (const u8 *)data;
	u64 c = (u32)~crc, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		c = __builtin_ia32_crc32di(c, word);
	}
	for (; len; p++, len--)
		c = __builtin_ia32_crc32qi((u32)c, *p);
	return ~(u32)c;
}

u32 crc32c(u32 crc, const void *data, size_t len)
{
	if (CPU_FEATURE_ACTIVE(SSE4_2)) /* as glibc found out at start: CPUID may be slow */
		return crc32c_sse42(crc, data, len);
	return crc32c_table(crc, data, len);
}
