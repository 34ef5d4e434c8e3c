/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h - explicit little-endian encoding, the only way state reaches a file.
 *
 * An encoder is a growing byte buffer. A decoder walks bytes somebody else wrote: a read past the
 * end returns zeros and makes the decoder bad for good, so that a parser reads all its fields and
 * asks dec_ok() once, before it trusts any of them.
 */
#ifndef KELVIN_BASE_BYTES_H
#define KELVIN_BASE_BYTES_H

#include "monitor/base/types.h"

struct enc {
	u8 *buf; /* owned; release with enc_free() */
	size_t len;
	size_t cap;
	bool oom; /* an allocation failed: the content is incomplete */
};

void enc_free(struct enc *e); /* idempotent */
void enc_u8(struct enc *e, u8 v);
void enc_u16(struct enc *e, u16 v);
void enc_u32(struct enc *e, u32 v);
void enc_u64(struct enc *e, u64 v);
void enc_bytes(struct enc *e, const void *p, size_t len);
/* A u16 length and then that many bytes, without the NUL. @s must be shorter than 64 KiB. */
void enc_str(struct enc *e, const char *s);

/* The byte that makes the sum of @len bytes 0, if it was 0 itself: of a PC's tables. */
static inline u8 byte_checksum(const u8 *p, size_t len)
{
	u8 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (u8)(sum + p[i]);
	return (u8)-sum;
}

struct dec {
	const u8 *p;
	size_t left;
	bool bad;
};

static inline struct dec dec_from(const void *p, size_t len)
{
	return (struct dec){.p = (const u8 *)p, .left = len};
}

u8 dec_u8(struct dec *d);
u16 dec_u16(struct dec *d);
u32 dec_u32(struct dec *d);
u64 dec_u64(struct dec *d);
/* Copies @len bytes, or zeros when they are not there. */
void dec_bytes(struct dec *d, void *out, size_t len);
/* Reads an enc_str() into @out of @cap bytes with a NUL; bad if it does not fit or holds a NUL. */
void dec_str(struct dec *d, char *out, size_t cap);
/* Nothing was missing and nothing is left over. */
static inline bool dec_done(const struct dec *d)
{
	return !d->bad && d->left == 0;
}

#endif
