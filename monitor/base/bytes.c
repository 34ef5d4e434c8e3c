/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.c - see bytes.h */
#include "monitor/base/bytes.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

void enc_free(struct enc *e)
{
	free(e->buf);
	*e = (struct enc){0};
}

void enc_bytes(struct enc *e, const void *p, size_t len)
{
	if (e->oom || !len)
		return;
	if (len > e->cap - e->len) {
		size_t cap = e->cap ? e->cap : 256;
		u8 *buf;

		while (cap - e->len < len)
			cap *= 2;
		buf = realloc(e->buf, cap);
		if (!buf) {
			e->oom = true;
			return;
		}
		e->buf = buf;
		e->cap = cap;
	}
	memcpy(e->buf + e->len, p, len);
	e->len += len;
}

void enc_u8(struct enc *e, u8 v)
{
	enc_bytes(e, &v, sizeof(v));
}

void enc_u16(struct enc *e, u16 v)
{
	v = htole16(v);
	enc_bytes(e, &v, sizeof(v));
}

void enc_u32(struct enc *e, u32 v)
{
	v = htole32(v);
	enc_bytes(e, &v, sizeof(v));
}

void enc_u64(struct enc *e, u64 v)
{
	v = htole64(v);
	enc_bytes(e, &v, sizeof(v));
}

void enc_str(struct enc *e, const char *s)
{
	size_t len = strlen(s);

	must(len <= UINT16_MAX);
	enc_u16(e, (u16)len);
	enc_bytes(e, s, len);
}

void dec_bytes(struct dec *d, void *out, size_t len)
{
	if (d->bad || len > d->left) {
		d->bad = true;
		memset(out, 0, len);
		return;
	}
	if (len)
		memcpy(out, d->p, len);
	d->p += len;
	d->left -= len;
}

u8 dec_u8(struct dec *d)
{
	u8 v;

	dec_bytes(d, &v, sizeof(v));
	return v;
}

u16 dec_u16(struct dec *d)
{
	u16 v;

	dec_bytes(d, &v, sizeof(v));
	return le16toh(v);
}

u32 dec_u32(struct dec *d)
{
	u32 v;

	dec_bytes(d, &v, sizeof(v));
	return le32toh(v);
}

u64 dec_u64(struct dec *d)
{
	u64 v;

	dec_bytes(d, &v, sizeof(v));
	return le64toh(v);
}

void dec_str(struct dec *d, char *out, size_t cap)
{
	u16 len = dec_u16(d);

	out[0] = 0;
	if (d->bad || len >= cap || len > d->left || memchr(d->p, 0, len)) {
		d->bad = true;
		return;
	}
	dec_bytes(d, out, len);
	out[len] = 0;
}
