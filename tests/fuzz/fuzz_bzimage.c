/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_bzimage.c - packed kernels (L01): bzimage.c, kernel.c and unpack.c with the libraries behind
 * it. The first record says how to pack and to load. Those after it change the ELF file inside, as
 * long as their first byte is small; then the packed bytes; then the header around them.
 *
 * What an input may cost is bounded: what is unpacked by the sizes that the file tells, which come
 * from one record here, and what libraries take by unpack.c. The time-out and the limit on memory
 * that the fuzzer runs under tell if not.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_kernel.h"
#include "tests/lib/bz_builder.h"
#include "tests/lib/pack.h"

#define PAYLOAD_MAX (ELF_FILE_LEN + 8192u)
#define SIZE_MAX_LOG 25u /* of what a header promises: 32 MiB */
#define BZ_HEADER_END 0x268u

static struct {
	struct fz_elf elf;
	u8 payload[PAYLOAD_MAX];
	size_t len;
	bool changed;
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

static void pack_it(enum pack how, bool bare)
{
	size_t len;
	u8 *p;

	fz_elf_make(&t.elf);
	p = bare ? pack(how, t.elf.bytes, t.elf.len, &len)
		 : pack_with_size(how, t.elf.bytes, t.elf.len, &len);
	must(len <= sizeof(t.payload));
	memcpy(t.payload, p, len);
	t.len = len;
	free(p);
}

/* A sequence of the record's own bytes put into the stream: a block, a header, a length. */
static void splice(struct fz *f, size_t at)
{
	size_t n = 1 + fz_below(f, 12);

	if (t.len + n > sizeof(t.payload))
		return;
	memmove(t.payload + at + n, t.payload + at, t.len - at);
	for (size_t i = 0; i < n; i++)
		t.payload[at + i] = fz_u8(f);
	t.len += n;
}

static void change_payload(struct fz *f)
{
	size_t at = fz_below(f, 4) ? fz_below(f, 64) : fz_u16(f);
	u32 v;

	t.changed = true;
	at %= t.len;
	switch (fz_below(f, 8)) {
	case 0:
	case 1: t.payload[at] ^= (u8)(1 + fz_below(f, 255)); break;
	case 2: t.payload[at] = fz_u8(f); break;
	case 3: t.len = at + 1; break;
	case 4: splice(f, at); break;
	case 5: splice(f, t.len); break;
	case 6: /* a number: the size behind it, a length of a block */
		v = (u32)fz_odd(f, ELF_FILE_LEN);
		at = fz_below(f, 2) || t.len < 8 ? at : t.len - 4;
		memcpy(t.payload + at, &v, t.len - at < 4 ? t.len - at : 4);
		break;
	default: /* one piece in the place of another */
		memmove(t.payload + at, t.payload + fz_u16(f) % t.len / 2, (t.len - at) / 2);
	}
}

static void change_header(struct fz *f, struct bz_file *bz)
{
	t.changed = true;
	switch (fz_below(f, 10)) {
	case 0: bz_put(bz, 0x1f1, fz_u8(f), 1); break;
	case 1: bz_put(bz, 0x206, fz_below(f, 2) ? 0x200 + fz_below(f, 32) : fz_u16(f), 2); break;
	case 2: bz_put(bz, 0x211, fz_u8(f), 1); break;
	case 3: bz_put(bz, 0x236, fz_u8(f), 2); break;
	case 4: bz_put(bz, 0x248, (u32)fz_odd(f, BZ_PAYLOAD), 4); break;
	case 5: bz_put(bz, 0x24c, (u32)fz_odd(f, t.len), 4); break;
	case 6: bz_put(bz, 0x260, fz_u32(f) >> (32 - SIZE_MAX_LOG + fz_below(f, 8)), 4); break;
	case 7: bz_put(bz, 0x1fe, fz_u16(f), 2); break;
	case 8: bz->len = 1 + fz_u16(f) % bz->len; break;
	default: bz_put(bz, fz_below(f, BZ_HEADER_END), fz_u8(f), 1);
	}
}

/* What a record is about: its first byte tells, and is used up by that. */
enum about { ABOUT_ELF, ABOUT_PAYLOAD, ABOUT_HEADER };

static enum about about(struct fz *f)
{
	u8 v = fz_u8(f);

	return v < 0x30 ? ABOUT_ELF : v & 0x40 ? ABOUT_HEADER : ABOUT_PAYLOAD;
}

/* The rest of the input, which begins in the middle of a record if @more. */
static void load_packed(struct fz *f, u8 how, enum about a, bool more, bool bare)
{
	struct bz_file bz;

	while (more && (bare || a != ABOUT_HEADER)) {
		change_payload(f);
		more = fz_step(f);
		a = more ? about(f) : a;
	}
	if (bare) {
		fz_load(how, t.payload, t.len, !t.changed && !t.elf.changed);
		return;
	}
	bz = bz_with(t.payload, t.len);
	while (more) {
		change_header(f, &bz);
		more = bz.len >= BZ_HEADER_END && fz_step(f);
		if (more)
			about(f);
	}
	fz_load(how, bz.bytes, bz.len, !t.changed && !t.elf.changed);
	free(bz.bytes);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static const enum pack packs[] = {PACK_GZIP, PACK_XZ, PACK_LZ4_LEGACY, PACK_LZ4, PACK_ZSTD};
	enum pack pack_how;
	enum about a = ABOUT_ELF;
	bool bare, more;
	struct fz f;
	u8 how;

	t.changed = false;
	fz_begin(&f, data, len);
	fz_step(&f);
	how = fz_u8(&f);
	pack_how = packs[fz_below(&f, ARRAY_SIZE(packs))];
	bare = fz_below(&f, 4) == 3;
	fz_elf_begin(&t.elf);
	for (more = fz_step(&f); more; more = fz_step(&f)) {
		a = about(&f);
		if (a != ABOUT_ELF)
			break;
		fz_elf_headers(&f, &t.elf);
	}
	pack_it(pack_how, bare);
	load_packed(&f, how, a, more, bare);
	return 0;
}
