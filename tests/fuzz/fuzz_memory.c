/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_memory.c - the gate from guest addresses to host memory (memory/memory.c), and the lists of
 * buffers it gives: any address, any length, on RAM of one region and of two.
 *
 * Checked against arithmetic that cannot overflow and copies byte by byte: what lies in one region
 * comes through, at its place; nothing else does, and then nothing was written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory.h"
#include "tests/fuzz/fuzz.h"

#define SMALL    (MEM_MIN_SIZE + MEM_PAGE)
#define FILE_LEN MEM_MIN_SIZE
#define BIG      (MEM_GAP_GPA + MEM_MIN_SIZE)
#define COPY     512u
#define NEAR     (1u << 20)
#define IOVS     8u
#define IOV_LEN  40u

static struct {
	struct mem *small, *big;
	int file; /* FILE_LEN, the first page of 0x5a */
	u8 here[COPY], there[COPY], host[IOVS * IOV_LEN + 8], buf[IOVS][IOV_LEN];
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	u8 page[MEM_PAGE];

	must(!mem_create(&t.small, SMALL, MEM_ANON, NULL));
	must(!mem_create(&t.big, BIG, MEM_MEMFD, NULL));
	t.file = memfd_create("fuzz", MFD_CLOEXEC);
	memset(page, 0x5a, sizeof(page));
	must(t.file >= 0 && write(t.file, page, sizeof(page)) == (ssize_t)sizeof(page));
	must(!ftruncate(t.file, FILE_LEN));
	return 0;
}

/* The region that has all of it, by 128 bits. */
static const struct mem_region *region_of(const struct mem *m, u64 gpa, u64 len)
{
	for (unsigned i = 0; i < m->region_count; i++) {
		const struct mem_region *r = &m->region[i];

		if (len && gpa >= r->gpa &&
			(unsigned __int128)gpa + len <= (unsigned __int128)r->gpa + r->len)
			return r;
	}
	return NULL;
}

/* Few pages are ever touched, so that a long run does not fill the host. */
static bool is_near_end(const struct mem_region *r, u64 gpa)
{
	return gpa - r->gpa < NEAR || r->gpa + r->len - gpa < NEAR;
}

static u64 some_gpa(struct fz *f, const struct mem *m)
{
	const struct mem_region *r = &m->region[fz_u8(f) % m->region_count];

	switch (fz_below(f, 4)) {
	case 0:
		return r->gpa + fz_u32(f) % NEAR;
	case 1:
		return r->gpa + r->len - fz_u16(f) % 1024;
	case 2:
		return fz_odd(f, r->gpa);
	default:
		return fz_odd(f, r->gpa + r->len);
	}
}

static void spans(struct fz *f, const struct mem *m, u64 gpa, u64 len, const u8 *hva)
{
	struct mem_span s = {NULL, 0};
	u64 off, v = fz_u64(f), back = 0;

	must(mem_span(m, gpa, len, &s) == (hva != NULL));
	must(s.hva == hva && s.len == (hva ? len : 0));
	if (!hva || gpa % 8 || len < 8)
		return;
	off = fz_u64(f) % ((len < COPY ? len : COPY) / 8) * 8;
	span_store32(s, off, (u32)v);
	span_store16(s, off + 4, (u16)(v >> 32));
	span_store16_release(s, off + 6, (u16)(v >> 48));
	must(span_load64(s, off) == v && span_load32(s, off + 4) == (u32)(v >> 32));
	must(span_load16(s, off) == (u16)v && span_load16_acquire(s, off + 2) == (u16)(v >> 16));
	span_copy_out(s, off, &back, sizeof(back));
	must(back == v);
}

static void gate(struct fz *f)
{
	const struct mem *m = fz_u8(f) & 1 ? t.big : t.small;
	u64 gpa = some_gpa(f, m), len = fz_u8(f) & 3 ? fz_u16(f) % COPY : fz_odd(f, m->size);
	const struct mem_region *r = region_of(m, gpa, len);
	const u8 *hva = r ? r->hva + (gpa - r->gpa) : NULL;
	struct iovec iov = {NULL, 7};
	u8 byte = fz_u8(f);

	fz_trace("%llx + %llx: %s", (unsigned long long)gpa, (unsigned long long)len, r ? "in" : "out");
	must(mem_at(m, gpa, len) == hva);
	must(mem_iov(m, gpa, len, &iov) == (hva != NULL));
	must(iov.iov_base == hva && iov.iov_len == (hva ? len : 7));
	if (r && !is_near_end(r, gpa))
		return;
	spans(f, m, gpa, len, hva);
	if (len > COPY)
		return;
	memset(t.here, byte, COPY);
	memset(t.there, (u8)~byte, COPY);
	must(mem_write(m, gpa, t.here, len) == (hva != NULL));
	must(mem_read(m, gpa, t.there, len) == (hva != NULL));
	for (unsigned i = 0; i < COPY; i++)
		must(t.there[i] == (u8)(hva && i < len ? byte : ~byte));
}

/* A list of buffers, filled with their places in it; its length. */
static size_t make_list(struct fz *f, struct iovec *iov, unsigned *n)
{
	size_t sum = 0;

	*n = fz_below(f, IOVS + 1);
	for (unsigned i = 0; i < *n; i++) {
		iov[i] = (struct iovec){t.buf[i], fz_below(f, IOV_LEN + 1)};
		for (size_t k = 0; k < iov[i].iov_len; k++)
			t.buf[i][k] = (u8)sum++;
	}
	return sum;
}

static void lists(struct fz *f)
{
	struct iovec iov[IOVS], out[IOVS];
	unsigned n, cut;
	size_t sum = make_list(f, iov, &n), skip = fz_u8(f), len = fz_u8(f), want, at = 0;

	len = len < IOVS * IOV_LEN ? len : IOVS * IOV_LEN;
	if (fz_break(f, 8))
		skip = (size_t)fz_odd(f, sum);
	want = skip >= sum ? 0 : len < sum - skip ? len : sum - skip;
	memset(t.host, 0xee, sizeof(t.host));
	must(iov_to_host(iov, n, skip, t.host, len) == want);
	for (size_t i = 0; i < sizeof(t.host); i++)
		must(t.host[i] == (i < want ? (u8)(skip + i) : 0xee));
	cut = iov_slice(iov, n, skip, len, out);
	must(cut <= n);
	for (unsigned i = 0; i < cut; i++) {
		for (size_t k = 0; k < out[i].iov_len; k++)
			must(((u8 *)out[i].iov_base)[k] == (u8)(skip + at++));
	}
	must(at == want);
	memset(t.host, 0xdd, sizeof(t.host));
	must(iov_from_host(iov, n, skip, t.host, len) == want);
	at = 0;
	for (unsigned i = 0; i < n; i++) {
		for (size_t k = 0; k < iov[i].iov_len; k++, at++)
			must(t.buf[i][k] == (at >= skip && at - skip < want ? 0xdd : (u8)at));
	}
}

/* Pages of the host's pool, of which there may be none. */
static void make_huge(u64 size)
{
	struct mem *m = NULL;
	struct err e = {0};
	int r = mem_create(&m, size, MEM_HUGE, &e);

	must(!r == (m != NULL) && !r == !e.msg[0]);
	must(size % MEM_HUGE_PAGE || size < MEM_MIN_SIZE || size > MEM_MAX_SIZE
		? r == -EINVAL : !r || r == -ENOMEM);
	mem_destroy(&m);
	mem_destroy(&m); /* there is none any more */
}

/* A file as RAM: of @size or not. */
static void map_file(u64 size)
{
	struct mem *m = NULL;
	struct err e = {0};
	bool ok = size == FILE_LEN;

	must(!mem_map_file(&m, t.file, size, &e) == ok && (m != NULL) == ok && !e.msg[0] == ok);
	mem_destroy(&m);
	must(mem_map_file(&m, -1, size, &e) == -EBADF);
}

/* RAM of any size, and pieces of a file in it. */
static void make(struct fz *f)
{
	u64 size = fz_u8(f) & 1 ? MEM_MIN_SIZE + MEM_PAGE * (u64)fz_u8(f) : fz_odd(f, MEM_MIN_SIZE);
	bool ok = size >= MEM_MIN_SIZE && size <= MEM_MAX_SIZE && size % MEM_PAGE == 0;
	enum mem_backing backing = fz_u8(f) & 1 ? MEM_ANON : MEM_MEMFD;
	struct mem *m = NULL;
	struct err e = {0};
	u64 gpa, len;
	u8 byte = 0;

	map_file(fz_u8(f) & 1 ? FILE_LEN : size);
	if (ok && size > 64 << 20)
		return; /* the host may not have so much */
	if (fz_u8(f) < 32)
		make_huge(size);
	must(!mem_create(&m, size, backing, &e) == ok && (m != NULL) == ok);
	must(ok || e.msg[0]);
	if (!ok)
		return;
	must(m->region[0].len == size && m->region_count == 1);
	mem_set_huge(m, fz_u8(f) & 1);
	gpa = fz_u8(f) & 1 ? MEM_PAGE * (u64)fz_u16(f) : fz_odd(f, size);
	len = fz_u8(f) & 3 ? MEM_PAGE : fz_odd(f, MEM_PAGE);
	ok = backing == MEM_ANON && len && !(gpa % MEM_PAGE) && !(len % MEM_PAGE) &&
		region_of(m, gpa, len);
	must(mem_map_piece(m, gpa, len, t.file, 0) == ok && m->piece_count == ok);
	if (ok)
		must(mem_read(m, gpa, &byte, 1) && byte == 0x5a);
	must(!mem_map_piece(m, gpa, len, -1, 0));
	mem_destroy(&m);
	must(!m);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;

	fz_begin(&f, data, len);
	while (fz_step(&f)) {
		u8 what = fz_u8(&f);

		if (what % 16 < 9)
			gate(&f);
		else if (what % 16 < 15)
			lists(&f);
		else
			make(&f);
	}
	return 0;
}
