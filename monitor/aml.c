/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml.c - see aml.h
 *
 * AML is a byte code whose terms are an opcode, for some a length, then names and values. The
 * length (PkgLength, 20.2.4) counts everything from its own first byte to the term's end, and takes
 * itself one to four bytes: how many depends on what follows. So a term is begun without one, and
 * when it ends, what was written moves up to make room. The outer term ends after the inner ones,
 * and its place lies before theirs, so no place that is still open moves. Terms are short here.
 *
 * Every encoding is the shortest there is, the one iasl writes too: a test compiles what it
 * disassembled and wants the same bytes back.
 */
#include "monitor/aml.h"

#include <string.h>

/* 20.3, opcodes. */
#define OP_ZERO    0x00u
#define OP_ONE     0x01u
#define OP_NAME    0x08u
#define OP_BYTE    0x0au
#define OP_WORD    0x0bu
#define OP_DWORD   0x0cu
#define OP_STRING  0x0du
#define OP_QWORD   0x0eu
#define OP_SCOPE   0x10u
#define OP_BUFFER  0x11u
#define OP_PACKAGE 0x12u
#define OP_METHOD  0x14u
#define OP_EXT     0x5bu
#define OP_DEVICE  0x82u /* after OP_EXT */
#define OP_ARG0    0x68u
#define OP_NOTIFY  0x86u
#define OP_LEQUAL  0x93u
#define OP_IF      0xa0u

#define NAME_LEN   4u
#define LENGTH_MAX 4u /* bytes of a PkgLength */

void aml_bytes(struct aml *a, const void *src, size_t len)
{
	if (a->full || len > a->cap - a->len) {
		a->full = true;
		return;
	}
	if (len)
		memcpy(a->buf + a->len, src, len);
	a->len += len;
}

void aml_raw(struct aml *a, u64 value, size_t len)
{
	aml_bytes(a, &value, len); /* this host is little-endian x86 */
}

/* ---- terms with a length ---- */

/* 20.2.4: up to 63 in one byte; else four bits in the first, which counts the bytes after it. */
static size_t encode_length(u8 out[LENGTH_MAX], size_t content)
{
	size_t n = 1;

	while (n < LENGTH_MAX && content + n >= (n == 1 ? 64u : 1u << (8 * n - 4)))
		n++;
	content += n;
	if (n == 1) {
		out[0] = (u8)content;
		return 1;
	}
	out[0] = (u8)((n - 1) << 6 | (content & 15));
	for (size_t i = 1; i < n; i++)
		out[i] = (u8)(content >> (8 * i - 4));
	return n;
}

void aml_end(struct aml *a, size_t at)
{
	u8 length[LENGTH_MAX];
	size_t n;

	if (a->full)
		return;
	must(at <= a->len);
	n = encode_length(length, a->len - at);
	if (n > a->cap - a->len) {
		a->full = true;
		return;
	}
	memmove(a->buf + at + n, a->buf + at, a->len - at);
	memcpy(a->buf + at, length, n);
	a->len += n;
}

size_t aml_scope(struct aml *a, const char name[4])
{
	size_t at;

	aml_raw(a, OP_SCOPE, 1);
	at = a->len;
	aml_bytes(a, name, NAME_LEN);
	return at;
}

size_t aml_device(struct aml *a, const char name[4])
{
	size_t at;

	aml_raw(a, OP_EXT | OP_DEVICE << 8, 2);
	at = a->len;
	aml_bytes(a, name, NAME_LEN);
	return at;
}

/* Its flags: one argument, may run while it runs already. */
size_t aml_method(struct aml *a, const char name[4])
{
	size_t at;

	aml_raw(a, OP_METHOD, 1);
	at = a->len;
	aml_bytes(a, name, NAME_LEN);
	aml_raw(a, 1, 1);
	return at;
}

size_t aml_if_arg(struct aml *a, u64 value)
{
	size_t at;

	aml_raw(a, OP_IF, 1);
	at = a->len;
	aml_raw(a, OP_LEQUAL | OP_ARG0 << 8, 2);
	aml_int(a, value);
	return at;
}

size_t aml_package(struct aml *a, u8 elements)
{
	size_t at;

	aml_raw(a, OP_PACKAGE, 1);
	at = a->len;
	aml_raw(a, elements, 1);
	return at;
}

void aml_buffer(struct aml *a, const void *src, size_t len)
{
	size_t at;

	aml_raw(a, OP_BUFFER, 1);
	at = a->len;
	aml_int(a, len);
	aml_bytes(a, src, len);
	aml_end(a, at);
}

/* ---- names and values ---- */

void aml_name(struct aml *a, const char name[4])
{
	aml_raw(a, OP_NAME, 1);
	aml_bytes(a, name, NAME_LEN);
}

void aml_notify(struct aml *a, const char name[4], u8 value)
{
	aml_raw(a, OP_NOTIFY, 1);
	aml_bytes(a, name, NAME_LEN);
	aml_int(a, value);
}

void aml_int(struct aml *a, u64 value)
{
	size_t len = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;

	if (value <= 1) {
		aml_raw(a, value ? OP_ONE : OP_ZERO, 1);
		return;
	}
	aml_raw(a, len == 1 ? OP_BYTE : len == 2 ? OP_WORD : len == 4 ? OP_DWORD : OP_QWORD, 1);
	aml_raw(a, value, len);
}

void aml_string(struct aml *a, const char *s)
{
	aml_raw(a, OP_STRING, 1);
	aml_bytes(a, s, strlen(s) + 1);
}

static u32 hex_digit(char c)
{
	return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, the most significant byte first. */
void aml_eisa_id(struct aml *a, const char id[7])
{
	u32 value = 0;

	for (unsigned i = 0; i < 3; i++)
		value = value << 5 | (u32)(id[i] - 'A' + 1);
	for (unsigned i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	aml_int(a, __builtin_bswap32(value));
}

/* ---- resources ---- */

static void crs_put(struct aml_crs *c, u64 value, size_t len)
{
	must(len <= AML_CRS_MAX - c->len);
	memcpy(c->buf + c->len, &value, len);
	c->len += len;
}

/* 6.4.3.4 */
void crs_memory(struct aml_crs *c, u32 gpa, u32 len)
{
	crs_put(c, 0x86, 1);
	crs_put(c, 9, 2); /* bytes that follow */
	crs_put(c, 1, 1); /* writeable */
	crs_put(c, gpa, 4);
	crs_put(c, len, 4);
}

/* 6.4.2.5 */
void crs_ports(struct aml_crs *c, u16 port, u8 count)
{
	crs_put(c, 0x47, 1);
	crs_put(c, 1, 1); /* decodes 16 bits */
	crs_put(c, port, 2); /* lowest and highest base */
	crs_put(c, port, 2);
	crs_put(c, 1, 1); /* alignment */
	crs_put(c, count, 1);
}

/* 6.4.3.6 */
void crs_edge(struct aml_crs *c, u32 gsi)
{
	crs_put(c, 0x89, 1);
	crs_put(c, 6, 2);    /* bytes that follow */
	crs_put(c, 0x03, 1); /* a consumer; an edge, active high, not shared */
	crs_put(c, 1, 1);    /* one number */
	crs_put(c, gsi, 4);
}

/* 6.4.2.9: an end tag whose checksum is 0 needs none. */
void aml_resources(struct aml *a, const struct aml_crs *c)
{
	struct aml_crs whole = *c;

	crs_put(&whole, 0x79, 2);
	aml_buffer(a, whole.buf, whole.len);
}
