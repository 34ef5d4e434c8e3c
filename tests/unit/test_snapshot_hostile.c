/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_snapshot_hostile.c - bad snapshots do not come back at all.
 *
 * Hostile states are made from a good one: change a field, then put right every checksum over it
 * (seal_*), so that the parser sees the field and not just a bad sum.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "monitor/base/crc32c.h"
#include "snapshot/format.h"
#include "tests/lib/snap_fix.h"
#include "tests/lib/tmpdir.h"

static void put32(u8 *p, u32 v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (u8)(v >> (8 * i));
}

static void put64(u8 *p, u64 v)
{
	put32(p, (u32)v);
	put32(p + 4, (u32)(v >> 32));
}

/* Opening fails with @code and a message that has @part in it. */
static void refused(const struct snap_fix *f, int code, const char *part)
{
	struct snap *s = NULL;
	struct err e = {0};
	int r = snap_open(&s, f->dir, &e);

	assert_null(s);
	if (r != code || !strstr(e.msg, part) || !strstr(e.msg, f->dir))
		fail_msg("got %d \"%s\", want %d \"...%s...\"", r, e.msg, code, part);
}

static void verify_fails(const char *dir, const char *part)
{
	struct err e = {0};
	struct snap *s;

	assert_int_equal(snap_open(&s, dir, &e), 0);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), -EINVAL);
	if (!strstr(e.msg, part))
		fail_msg("got \"%s\", want \"...%s...\"", e.msg, part);
	snap_close(&s);
}

/* A state file in memory, to be spoiled. */
struct raw {
	u8 *buf;
	size_t len;
	size_t head[8]; /* offsets of the section heads, the map's last */
	unsigned heads;
};

static struct raw raw_load(const struct snap_fix *f)
{
	struct raw r = {0};

	r.buf = file_read(f->state, &r.len);
	for (size_t at = SNAP_HEADER_LEN; at < r.len - SNAP_TRAILER_LEN;) {
		struct dec d = dec_from(r.buf + at + 32, 8);

		r.head[r.heads++] = at;
		at += SNAP_HEAD_LEN + (dec_u64(&d) + 7) / 8 * 8;
	}
	return r;
}

static void seal_trailer(struct raw *r)
{
	put32(r->buf + r->len - 4, crc32c(0, r->buf, r->len - 4));
}

static void seal_header(struct raw *r)
{
	put32(r->buf + 12, crc32c(0, r->buf + 16, SNAP_HEADER_LEN - 16));
	seal_trailer(r);
}

static void seal_head(struct raw *r, size_t head)
{
	put32(r->buf + head, crc32c(0, r->buf + head + 4, SNAP_HEAD_LEN - 4));
	seal_trailer(r);
}

static void seal_content(struct raw *r, size_t head)
{
	struct dec d = dec_from(r->buf + head + 32, 8);
	u64 len = dec_u64(&d);

	put32(r->buf + head + 4, crc32c(0, r->buf + head + SNAP_HEAD_LEN, len));
	seal_head(r, head);
}

/* The parser refuses the raw state, naming @part; releases it. */
static void raw_refused(struct raw *r, const char *part)
{
	struct snap_state *st = malloc(sizeof(*st));
	u8 *exact = malloc(r->len); /* so that a sanitizer sees a read past the end */
	struct err e = {0};
	int code;

	memcpy(exact, r->buf, r->len);
	code = snap_parse(st, "DIR", exact, r->len, &e);
	if (code != -EINVAL || !strstr(e.msg, part) || strncmp(e.msg, "snapshot DIR: ", 14) != 0)
		fail_msg("got %d \"%s\", want \"...%s...\"", code, e.msg, part);
	free(exact);
	free(st);
	free(r->buf);
}

static void test_h01_truncated_at_every_byte(void **state)
{
	const struct snap_fix *f = *state;
	size_t len;
	u8 *buf = file_read(f->state, &len);

	for (size_t n = 0; n < len; n++) {
		file_write(f->state, buf, n);
		refused(f, -EINVAL, n < 64 ? "bytes" : "offset 32: the file has");
	}
	file_write(f->state, buf, len);
	free(buf);
}

static void test_h01_bytes_after_the_end(void **state)
{
	const struct snap_fix *f = *state;
	size_t len;
	u8 *buf = file_read(f->state, &len);

	buf = realloc(buf, len + 16);
	memset(buf + len, 0, 16);
	for (size_t n = 1; n <= 16; n++) {
		file_write(f->state, buf, len + n);
		refused(f, -EINVAL, "offset 32: the file has");
	}
	free(buf);
}

static void test_h02_every_bit_flipped(void **state)
{
	const struct snap_fix *f = *state;
	size_t len;
	u8 *buf = file_read(f->state, &len);

	for (size_t bit = 0; bit < len * 8; bit++) {
		buf[bit / 8] ^= (u8)(1u << (bit % 8));
		file_write(f->state, buf, len);
		refused(f, -EINVAL, "offset");
		buf[bit / 8] ^= (u8)(1u << (bit % 8));
	}
	free(buf);
}

static void test_h02_names_the_section(void **state)
{
	const struct snap_fix *f = *state;
	struct raw r = raw_load(f);

	r.buf[r.head[1] + SNAP_HEAD_LEN + 3] ^= 0x10;
	raw_refused(&r, "section vcpu0 at offset 96: checksum does not match");
	r = raw_load(f);
	r.buf[r.head[1] + 9] ^= 0x10;
	raw_refused(&r, "section head at offset 96: checksum does not match");
}

static void test_h02_memory_bits(void **state)
{
	const struct snap_fix *f = *state;
	const u64 hole = 5 * SNAP_CHUNK + 777;
	int fd = open(f->memory, O_RDWR | O_CLOEXEC);
	u8 v;

	/* In a page with data, in a zero page of a chunk with data, in the last short chunk. */
	const u64 at[] = {0, 4095, 3 * MEM_PAGE + 9, SNAP_FIX_SIZE - 1};
	const char *const where[] = {"offset 0:", "offset 0:", "offset 0:", "offset 2097152:"};

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		assert_int_equal(pread(fd, &v, 1, (off_t)at[i]), 1);
		v ^= 0x40;
		assert_int_equal(pwrite(fd, &v, 1, (off_t)at[i]), 1);
		verify_fails(f->dir, where[i]);
		v ^= 0x40;
		assert_int_equal(pwrite(fd, &v, 1, (off_t)at[i]), 1);
	}
	/* Where the map says all zero: zeros that are written are fine, anything else is not. */
	v = 0;
	assert_int_equal(pwrite(fd, &v, 1, (off_t)hole), 1);
	{
		struct err e = {0};
		struct snap *s;

		assert_int_equal(snap_open(&s, f->dir, &e), 0);
		assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
		snap_close(&s);
	}
	v = 1;
	assert_int_equal(pwrite(fd, &v, 1, (off_t)hole), 1);
	verify_fails(f->dir, "offset 328457: holds data");
	close(fd);
}

static void test_h03_section_lengths(void **state)
{
	const u64 len[] = {0, 1, 4, 6, 1u << 31, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 47};
	const struct snap_fix *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(len); i++) {
		struct raw r = raw_load(f);

		put64(r.buf + r.head[0] + 32, len[i]);
		seal_head(&r, r.head[0]);
		raw_refused(&r, "section vm at offset 48: ");
	}
}

/* As above, but the content's checksum is right for the wrong length too. */
static void test_h03_sealed_section_lengths(void **state)
{
	const struct snap_fix *f = *state;

	for (u64 len = 0; len <= 8; len++) {
		struct raw r = raw_load(f);

		if (len == 5) {
			free(r.buf);
			continue;
		}
		put64(r.buf + r.head[0] + 32, len);
		seal_content(&r, r.head[0]);
		/* Shorter leaves bytes after it; longer swallows padding, and so is only longer. */
		if (len == 0)
			raw_refused(&r, "offset 88: ");
		else if (len < 5)
			raw_refused(&r, "section vm at offset 48: bytes after its content");
		else
			free(r.buf);
	}
}

static void test_h03_header_length_and_count(void **state)
{
	const u64 len[] = {0, 1, 1u << 31, UINT64_MAX};
	const u32 count[] = {0, 1u << 31, UINT32_MAX, SNAP_SECTIONS_MAX + 2};
	const struct snap_fix *f = *state;
	struct raw r;

	for (size_t i = 0; i < ARRAY_SIZE(len); i++) {
		r = raw_load(f);
		put64(r.buf + 32, len[i]);
		seal_header(&r);
		raw_refused(&r, "header at offset 32: ");
	}
	for (size_t i = 0; i < ARRAY_SIZE(count); i++) {
		r = raw_load(f);
		put32(r.buf + 20, count[i]);
		seal_header(&r);
		raw_refused(&r, "header at offset 20: ");
	}
	r = raw_load(f);
	put32(r.buf + 20, r.heads + 1);
	seal_header(&r);
	raw_refused(&r, "section memory at offset 184: is not the last section");
	/* The last head is announced, and only some bytes of it are there. */
	for (size_t left = 0; left < SNAP_HEAD_LEN; left++) {
		r = raw_load(f);
		r.len = r.head[r.heads - 1] + left + SNAP_TRAILER_LEN;
		put64(r.buf + 32, r.len);
		seal_header(&r);
		raw_refused(&r, "section head at offset 184: the file ends inside it");
	}
	r = raw_load(f);
	put32(r.buf + 20, 1);
	seal_header(&r);
	raw_refused(&r, "section vm at offset 48: the last section must be memory");
}

static void test_h03_state_too_big(void **state)
{
	const struct snap_fix *f = *state;

	assert_int_equal(truncate(f->state, SNAP_STATE_MAX + 1), 0);
	refused(f, -EINVAL, "state has 16777217 bytes");
}

/* Puts the section at head @b where that at @a is and the other way round. */
static struct raw swap_sections(const struct raw *r, unsigned a, unsigned b)
{
	struct raw out = {.buf = malloc(r->len), .len = r->len};
	size_t at = r->head[0];

	memcpy(out.buf, r->buf, r->len);
	for (unsigned i = 0; i < r->heads; i++) {
		unsigned k = i == a ? b : i == b ? a : i;
		size_t end = k + 1 < r->heads ? r->head[k + 1] : r->len - SNAP_TRAILER_LEN;

		memcpy(out.buf + at, r->buf + r->head[k], end - r->head[k]);
		at += end - r->head[k];
	}
	return out;
}

static void test_h05_swapped_sections(void **state)
{
	const struct snap_fix *f = *state;
	struct raw r = raw_load(f), swapped;
	struct snap_state *st = malloc(sizeof(*st));
	struct err e = {0};

	/* Unsealed it is damage; sealed it is another order of the same sections. */
	swapped = swap_sections(&r, 0, 1);
	raw_refused(&swapped, "checksum of the whole file");
	swapped = swap_sections(&r, 0, 1);
	seal_trailer(&swapped);
	assert_int_equal(snap_parse(st, "DIR", swapped.buf, swapped.len, &e), 0);
	assert_string_equal(st->section[0].tag, "vcpu0");
	assert_string_equal(st->section[1].tag, "vm");
	free(swapped.buf);
	swapped = swap_sections(&r, 0, 3);
	seal_trailer(&swapped);
	raw_refused(&swapped, "section memory at offset 48: is not the last section");
	free(r.buf);
	free(st);
}

static void test_h05_duplicate_sections(void **state)
{
	const struct snap_fix *f = *state;
	struct raw r = raw_load(f);

	memcpy(r.buf + r.head[1] + 8, r.buf + r.head[0] + 8, SNAP_TAG_MAX);
	seal_head(&r, r.head[1]);
	raw_refused(&r, "section vm at offset 96: a section of this name came before");
}

static void test_h05_bad_names(void **state)
{
	static const char tags[][SNAP_TAG_MAX] = {"", "Vm", "v m", "v\n", "v/m", "v\0m", "\xff",
		{'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'}};
	const struct snap_fix *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
		struct raw r = raw_load(f);

		memcpy(r.buf + r.head[0] + 8, tags[i], SNAP_TAG_MAX);
		seal_head(&r, r.head[0]);
		raw_refused(&r, "name");
	}
}

static void test_h06_versions_and_architectures(void **state)
{
	const struct snap_fix *f = *state;
	struct raw r = raw_load(f);

	put32(r.buf + 8, 2);
	seal_trailer(&r);
	raw_refused(&r, "format version 2 is newer than this kelvin knows (1)");
	r = raw_load(f);
	put32(r.buf + 8, 0);
	seal_trailer(&r);
	raw_refused(&r, "there is no format version 0");
	r = raw_load(f);
	put32(r.buf + 16, 183);
	seal_header(&r);
	raw_refused(&r, "made on aarch64 (183), this is x86-64");
	r = raw_load(f);
	put32(r.buf + 16, 0);
	seal_header(&r);
	raw_refused(&r, "made on an unknown architecture");
	r = raw_load(f);
	r.buf[0] = 'k';
	seal_trailer(&r);
	raw_refused(&r, "this is not a kelvin snapshot");
}

static void test_h06_reserved_bytes(void **state)
{
	const struct snap_fix *f = *state;

	for (size_t at = 40; at < 48; at++) {
		struct raw r = raw_load(f);

		r.buf[at] = 1;
		seal_header(&r);
		raw_refused(&r, "header at offset 40: reserved");
	}
	for (size_t at = 26; at < 32; at++) {
		struct raw r = raw_load(f);

		r.buf[r.head[0] + at] = 1;
		seal_head(&r, r.head[0]);
		raw_refused(&r, "section vm at offset 48: reserved");
	}
	for (size_t back = 5; back <= 16; back++) {
		struct raw r = raw_load(f);

		r.buf[r.len - back] ^= 0x20;
		seal_trailer(&r);
		raw_refused(&r, "this is not the end of a snapshot");
	}
}

static void test_h07_memory_file_of_another_size(void **state)
{
	const off_t size[] = {0, SNAP_FIX_SIZE - 1, SNAP_FIX_SIZE + 1, 2 * SNAP_FIX_SIZE};
	const struct snap_fix *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(size); i++) {
		assert_int_equal(truncate(f->memory, size[i]), 0);
		refused(f, -EINVAL, "section memory says 2109440");
	}
}

static void test_h07_memory_file_of_another_snapshot(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	char other[600], dir[300];

	snprintf(dir, sizeof(dir), "%s/other", f->top);
	snprintf(other, sizeof(other), "%s/memory", dir);
	snap_fix_fill(f->mem, 100);
	assert_int_equal(snap_fix_write(dir, f->mem, false, &e), 0);
	assert_int_equal(rename(other, f->memory), 0);
	verify_fails(f->dir, "memory at offset 0: checksum");
	/* All holes. */
	assert_int_equal(truncate(f->memory, 0), 0);
	assert_int_equal(truncate(f->memory, SNAP_FIX_SIZE), 0);
	verify_fails(f->dir, "memory at offset 0: checksum");
}

static void test_h07_files_that_are_no_files(void **state)
{
	const struct snap_fix *f = *state;
	const char *const file[] = {f->state, f->memory};
	char real[300];

	snprintf(real, sizeof(real), "%s/real", f->top);
	for (size_t i = 0; i < ARRAY_SIZE(file); i++) {
		assert_int_equal(rename(file[i], real), 0);
		refused(f, -ENOENT, "cannot open its file");
		assert_int_equal(symlink(real, file[i]), 0);
		refused(f, -ELOOP, "is a symbolic link");
		assert_int_equal(unlink(file[i]), 0);
		assert_int_equal(mkfifo(file[i], 0600), 0);
		refused(f, -EINVAL, "is no regular file"); /* and does not wait for a writer */
		assert_int_equal(unlink(file[i]), 0);
		assert_int_equal(mkdir(file[i], 0700), 0);
		refused(f, -EINVAL, "is no regular file");
		assert_int_equal(rmdir(file[i]), 0);
		assert_int_equal(rename(real, file[i]), 0);
	}
}

static void test_h08_hostile_memory_map(void **state)
{
	static const struct {
		size_t off;
		u64 value;
		const char *part;
	} tab[] = {
		{0, 0, "impossible amount of RAM"},
		{0, SNAP_FIX_SIZE + 1, "impossible amount of RAM"},
		{0, UINT64_MAX - 4095, "impossible amount of RAM"},
		{0, MEM_MAX_SIZE + MEM_PAGE, "impossible amount of RAM"},
		{0, MEM_MAX_SIZE, "too short for that much RAM"},
		{0, MEM_MIN_SIZE, "marks chunks past the end"},
		{8, 0, "unknown chunk size"},
		{8, 4096, "unknown chunk size"},
		{8, SNAP_CHUNK | 1ull << 32, "reserved"},
		{16, 0, "impossible amount of data"},
		{16, 5 * MEM_PAGE + 1, "impossible amount of data"},
		{16, UINT64_MAX - 4095, "impossible amount of data"},
		{16, 49 * MEM_PAGE, "impossible amount of data"},
		{24, 0, "not one checksum for each chunk"},
		{24, UINT32_MAX, "not one checksum for each chunk"},
		{24, 1ull << 33 | 3, "marks chunks past the end"},
		{24, 1ull << 63 | 3, "marks chunks past the end"},
	};
	const struct snap_fix *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(tab); i++) {
		struct raw r = raw_load(f);
		size_t head = r.head[r.heads - 1];

		put64(r.buf + head + SNAP_HEAD_LEN + tab[i].off, tab[i].value);
		seal_content(&r, head);
		raw_refused(&r, tab[i].part);
	}
}

static void test_h08_map_version_and_size(void **state)
{
	const struct snap_fix *f = *state;

	for (u64 len = 0; len < 24 + 8 + 3 * 4; len += 4) {
		struct raw r = raw_load(f);
		size_t head = r.head[r.heads - 1];

		put64(r.buf + head + 32, len);
		seal_content(&r, head);
		raw_refused(&r, "at offset");
	}
	{
		struct raw r = raw_load(f);
		size_t head = r.head[r.heads - 1];

		r.buf[head + 24] = 2;
		seal_head(&r, head);
		raw_refused(&r, "unknown version");
	}
}

static void test_h09_state_changes_after_open(void **state)
{
	const struct snap_fix *f = *state;
	const struct snap_section *sec;
	struct err e = {0};
	struct snap *s;

	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(truncate(f->state, 0), 0);
	assert_int_equal(snap_find(s, "vcpu0", &sec, &e), 0);
	assert_memory_equal(sec->data, "register", 8);
	snap_close(&s);
}

static void test_h09_memory_shrinks_or_grows_after_open(void **state)
{
	const off_t size[] = {0, SNAP_CHUNK, SNAP_FIX_SIZE - 1, SNAP_FIX_SIZE + MEM_PAGE};
	const char *const part[] = {"offset 0: the file ends", "offset 131072: ", "the file ends",
		"changed its size"};
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s;

	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	for (size_t i = ARRAY_SIZE(size); i-- > 0;) {
		assert_int_equal(truncate(f->memory, size[i]), 0);
		assert_int_equal(snap_verify(s, NULL, NULL, &e), -EINVAL);
		if (!strstr(e.msg, part[i]))
			fail_msg("got \"%s\", want \"...%s...\"", e.msg, part[i]);
	}
	snap_close(&s);
}

#define T(name) cmocka_unit_test_setup_teardown(name, snap_fix_setup, snap_fix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_h01_truncated_at_every_byte),
		T(test_h01_bytes_after_the_end),
		T(test_h02_every_bit_flipped),
		T(test_h02_names_the_section),
		T(test_h02_memory_bits),
		T(test_h03_section_lengths),
		T(test_h03_sealed_section_lengths),
		T(test_h03_header_length_and_count),
		T(test_h03_state_too_big),
		T(test_h05_swapped_sections),
		T(test_h05_duplicate_sections),
		T(test_h05_bad_names),
		T(test_h06_versions_and_architectures),
		T(test_h06_reserved_bytes),
		T(test_h07_memory_file_of_another_size),
		T(test_h07_memory_file_of_another_snapshot),
		T(test_h07_files_that_are_no_files),
		T(test_h08_hostile_memory_map),
		T(test_h08_map_version_and_size),
		T(test_h09_state_changes_after_open),
		T(test_h09_memory_shrinks_or_grows_after_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
