/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_snapshot.c - the parser of DIR/state (H01 to H11). The input says which sections there are
 * and what is in them; then it changes bytes anywhere, cuts and appends, and makes the checksums
 * right again, or not: so the checks behind the checksums are reached too.
 *
 * Checked: what was not changed is parsed, to the same sections; what is accepted lies inside the
 * bytes and keeps the promises of format.h, whatever was changed.
 */
#include <stdlib.h>
#include <string.h>

#include "snapshot/format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_state.h"

#define SECTIONS 6u
#define DATA_MAX 200u
#define CHUNKS   100u

static const char *const tags[] = {"vm", "vcpu0", "vsock", "a", "fifteen.letters", "0"};

struct made {
	const char *tag;
	u16 version;
	size_t len;
	u8 data[DATA_MAX];
};

static struct {
	struct made made[SECTIONS];
	unsigned count;
	struct snap_map map;
	u8 present[CHUNKS / 8 + 8];
	u8 crc[CHUNKS * 4];
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

/* The map: RAM of some size, of which some chunks have data. */
static void make_map(struct fz *f)
{
	u64 chunks = MEM_MIN_SIZE / SNAP_CHUNK + fz_below(f, 64), present = 0;

	t.map.size = chunks * SNAP_CHUNK - MEM_PAGE * (u64)fz_below(f, 16);
	if (t.map.size < MEM_MIN_SIZE)
		t.map.size = MEM_MIN_SIZE;
	t.map.chunk_count = snap_chunk_count(t.map.size);
	memset(t.present, 0, sizeof(t.present));
	for (u64 i = 0; i < t.map.chunk_count; i++) {
		if (fz_u8(f) & 1) {
			t.present[i / 8] |= (u8)(1u << (i % 8));
			present++;
		}
	}
	t.map.present = t.present;
	t.map.crc = t.crc;
	t.map.crc_len = present * sizeof(u32);
	t.map.data_bytes = present * MEM_PAGE * (1 + fz_below(f, 16));
	if (t.map.data_bytes > t.map.size)
		t.map.data_bytes = present * MEM_PAGE;
}

static void make_section(struct fz *f)
{
	struct made *m = &t.made[t.count];

	if (t.count == SECTIONS)
		return;
	m->tag = tags[t.count++];
	m->version = fz_u16(f);
	m->len = fz_below(f, DATA_MAX + 1);
	for (size_t i = 0; i < m->len; i++)
		m->data[i] = fz_u8(f);
}

static void encode(struct enc *out)
{
	struct enc map = {0};

	snap_encode_begin(out);
	for (unsigned i = 0; i < t.count; i++)
		snap_encode_section(out, t.made[i].tag, t.made[i].version, t.made[i].data,
			t.made[i].len);
	snap_encode_map(&map, &t.map);
	snap_encode_section(out, SNAP_MAP_TAG, SNAP_MAP_VERSION, map.buf, map.len);
	snap_encode_end(out, t.count + 1, 12345);
	must(!out->oom && !map.oom);
	enc_free(&map);
}

static void check_same(const struct snap_state *s)
{
	must(s->section_count == t.count && s->created_ns == 12345);
	for (unsigned i = 0; i < t.count; i++) {
		must(!strcmp(s->section[i].tag, t.made[i].tag));
		must(s->section[i].version == t.made[i].version);
		must(s->section[i].len == t.made[i].len);
		must(!memcmp(s->section[i].data, t.made[i].data, t.made[i].len));
	}
	must(s->map.size == t.map.size && s->map.data_bytes == t.map.data_bytes);
	must(!memcmp(s->map.present, t.present, (size_t)snap_bitmap_len(t.map.chunk_count)));
}

static void check_inside(const u8 *buf, size_t len, const void *p, u64 n)
{
	const u8 *at = p;

	must(!n || (at >= buf && n <= len && (size_t)(at - buf) <= len - n));
}

/* What the rest of kelvin relies on, once the parser said yes. */
static void check_sound(const struct snap_state *s, const u8 *buf, size_t len)
{
	u64 present = 0;

	must(s->section_count <= SNAP_SECTIONS_MAX);
	for (unsigned i = 0; i < s->section_count; i++) {
		must(snap_tag_ok(s->section[i].tag));
		check_inside(buf, len, s->section[i].data, s->section[i].len);
		for (unsigned k = 0; k < i; k++)
			must(strcmp(s->section[i].tag, s->section[k].tag) != 0);
	}
	must(s->map.size >= MEM_MIN_SIZE && s->map.size <= MEM_MAX_SIZE);
	must(s->map.size % MEM_PAGE == 0);
	must(s->map.chunk_count == snap_chunk_count(s->map.size));
	check_inside(buf, len, s->map.present, snap_bitmap_len(s->map.chunk_count));
	for (u64 i = 0; i < s->map.chunk_count; i++)
		present += snap_bit(s->map.present, i);
	must(s->map.crc_len == 4 * present && s->map.data_bytes <= s->map.size);
	check_inside(buf, len, s->map.crc, s->map.crc_len);
}

static void change(struct fz *f, struct enc *e)
{
	u8 how = fz_u8(f);

	if (how % 8 == 7)
		fz_put32(e, 32, (u32)e->len); /* the file's length, as it is now */
	else
		fz_change(f, how, e);
	if (!(how & 0x80))
		fz_mend_state(e);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct enc e = {0};
	struct snap_state s;
	bool changed = false;
	struct err err;
	struct fz f;
	u8 *copy;

	t.count = 0;
	fz_begin(&f, data, len);
	fz_step(&f);
	make_map(&f);
	for (unsigned n = f.rec[FZ_REC - 1] % SECTIONS; n-- && fz_step(&f);)
		make_section(&f);
	encode(&e);
	for (; fz_step(&f); changed = true)
		change(&f, &e);
	/* Of just this length, so that a look past the end shows. */
	copy = malloc(e.len);
	must(copy);
	memcpy(copy, e.buf, e.len);
	if (!snap_parse(&s, "dir", copy, e.len, &err)) {
		check_sound(&s, copy, e.len);
		if (!changed)
			check_same(&s);
	} else {
		must(changed);
	}
	free(copy);
	enc_free(&e);
	return 0;
}
