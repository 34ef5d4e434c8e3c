/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_state.c - see fuzz_state.h */
#include "tests/fuzz/fuzz_state.h"

#include "monitor/base/arith.h"
#include "monitor/base/crc32c.h"
#include "snapshot/format.h"

void fz_put32(struct enc *e, size_t at, u32 v)
{
	for (unsigned i = 0; i < 4 && at + i < e->len; i++)
		e->buf[at + i] = (u8)(v >> (8 * i));
}

void fz_mend_state(struct enc *e)
{
	size_t at = SNAP_HEADER_LEN, end;

	if (e->len < SNAP_HEADER_LEN + SNAP_TRAILER_LEN)
		return;
	fz_put32(e, 12, crc32c(0, e->buf + 16, SNAP_HEADER_LEN - 16));
	end = e->len - SNAP_TRAILER_LEN;
	while (at < end && end - at >= SNAP_HEAD_LEN) {
		struct dec d = dec_from(e->buf + at + 32, 8);
		u64 len = dec_u64(&d);

		if (len <= end - at - SNAP_HEAD_LEN)
			fz_put32(e, at + 4, crc32c(0, e->buf + at + SNAP_HEAD_LEN, (size_t)len));
		fz_put32(e, at, crc32c(0, e->buf + at + 4, SNAP_HEAD_LEN - 4));
		if (len > end - at - SNAP_HEAD_LEN)
			break;
		at = (size_t)align_up(at + SNAP_HEAD_LEN + len, 8);
	}
	fz_put32(e, e->len - 4, crc32c(0, e->buf, e->len - 4));
}
