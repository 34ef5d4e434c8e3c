/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot_extra.c - files that travel with a snapshot, and what hostile lists of them get. */
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

#include "snapshot/snap_int.h"
#include "tests/lib/snap_fix.h"
#include "tests/lib/tmpdir.h"

#define NAME "disk.root"
#define FAR  (5u * SNAP_CHUNK + 100)
#define LEN  (8u * SNAP_CHUNK + 10)

/* A file of @p with something at its start, in a piece far behind, and in its short last piece. */
static void add_file(const struct snap_pair *p, const char *name)
{
	struct err e = {0};
	int fd;

	assert_int_equal(snap_dir_file(p->dir, name, &fd, &e), 0);
	assert_int_equal(ftruncate(fd, LEN), 0);
	assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
	assert_int_equal(pwrite(fd, "far", 3, FAR), 3);
	assert_int_equal(pwrite(fd, "end", 3, LEN - 3), 3);
	assert_int_equal(snap_add_file(p->w, name, fd, &e), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* The fixture's snapshot once more, with two files. */
static void write_with_files(const struct snap_fix *f, bool abort)
{
	struct snap_pair p;
	struct err e = {0};

	assert_int_equal(snap_pair_begin(&p, &sys_host, f->dir, true, &e), 0);
	assert_int_equal(snap_add(p.w, "vm", 1, "x", 1, &e), 0);
	add_file(&p, NAME);
	add_file(&p, "disk.two");
	assert_int_equal(snap_add_memory(p.w, f->mem, NULL, NULL, &e), 0);
	if (abort)
		snap_pair_abort(&p);
	else
		assert_int_equal(snap_pair_commit(&p, &e), 0);
}

static char *path_of(const struct snap_fix *f, const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static void refused(const struct snap_fix *f, const char *text)
{
	struct snap *s = NULL;
	struct err e = {0};
	int r = snap_open(&s, f->dir, &e);

	if (!r) {
		r = snap_verify(s, NULL, NULL, &e);
		snap_close(&s);
	}
	assert_true(r < 0);
	if (!strstr(e.msg, text))
		fail_msg("\"%s\" is not in: %s", text, e.msg);
}

static void test_round_trip(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s;

	write_with_files(f, false);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(snap_has_file(s, NAME, &e), 0);
	assert_int_equal(snap_has_file(s, "disk.two", &e), 0);
	assert_int_equal(snap_has_file(s, "disk.three", &e), -ENOENT);
	assert_non_null(strstr(e.msg, "disk.three is missing"));
	assert_int_equal(s->extra[0].size, LEN);
	assert_int_equal(s->extra[0].data_bytes, 2 * SNAP_CHUNK + LEN % SNAP_CHUNK);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	assert_true(snap_trusted(s));
	snap_close(&s);
	/* And it can be replaced by one without. */
	assert_int_equal(snap_fix_write(f->dir, f->mem, true, &e), 0);
	assert_int_equal(access(path_of(f, NAME), F_OK), -1);
	assert_int_equal(dir_count(f->top, ""), 1);
}

static void test_abort_removes_them(void **state)
{
	const struct snap_fix *f = *state;

	write_with_files(f, true);
	assert_int_equal(dir_count(f->top, ""), 1);
	assert_int_equal(access(f->state, F_OK), 0);
}

/* Holes and zeroes are the same, and anything else is found. */
static void test_damage(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s;
	size_t len;
	u8 *data;

	write_with_files(f, false);
	data = file_read(path_of(f, NAME), &len);
	file_write(path_of(f, NAME), data, len);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	snap_close(&s);
	for (size_t at = 0; at < len; at += SNAP_CHUNK / 2 + 1) {
		data[at] ^= 1;
		file_write(path_of(f, NAME), data, len);
		refused(f, "file " NAME ": its checksum does not match");
		data[at] ^= 1;
	}
	/* The same bytes in another place. */
	memmove(data + SNAP_CHUNK, data, SNAP_CHUNK);
	memset(data, 0, SNAP_CHUNK);
	file_write(path_of(f, NAME), data, len);
	refused(f, "its checksum does not match");
	file_write(path_of(f, NAME), data, len - 1);
	refused(f, "file " NAME " has");
	free(data);
	unlink(path_of(f, NAME));
	refused(f, NAME);
	assert_int_equal(symlink("two", path_of(f, NAME)), 0);
	refused(f, "is a symbolic link");
	unlink(path_of(f, NAME));
	assert_int_equal(mkfifo(path_of(f, NAME), 0600), 0);
	refused(f, "is no regular file");
}

static void test_trust_counts_them_in(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s;

	write_with_files(f, false);
	assert_int_equal(chmod(path_of(f, NAME), 0666), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_false(snap_trusted(s));
	snap_close(&s);
}

/* Lists that a forger made; the file's own checksums would fit. */
static void test_hostile_lists(void **state)
{
	static const char *const names[] = {"state", "memory", "disk.", "disk.a/b", "../disk.a", "",
		"disk.a"};
	struct snap_extra x[SNAP_FILES_MAX];
	struct err e = {0};
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		bool good = i == ARRAY_SIZE(names) - 1;
		struct enc out = {0};
		struct snap_extra one = {.size = 10, .data_bytes = 10};

		memcpy(one.name, names[i], strlen(names[i]) + 1);
		snap_encode_extra(&out, &one, 1);
		assert_int_equal(snap_parse_extra(x, &n, out.buf, out.len, &e), good ? 0 : -EINVAL);
		for (size_t cut = 0; good && cut < out.len; cut++)
			assert_int_equal(snap_parse_extra(x, &n, out.buf, cut, &e), -EINVAL);
		enc_u8(&out, 0);
		assert_int_equal(snap_parse_extra(x, &n, out.buf, out.len, &e), -EINVAL);
		enc_free(&out);
	}
	for (u64 size = 0; size < 2; size++) {
		struct snap_extra bad = {.name = "disk.a", .size = size ? UINT64_MAX : 0,
			.data_bytes = 1};
		struct enc out = {0};

		snap_encode_extra(&out, &bad, 1);
		assert_int_equal(snap_parse_extra(x, &n, out.buf, out.len, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "size:"));
		enc_free(&out);
	}
	for (u32 count = 0; count < 2; count++) {
		u8 bytes[4] = {count ? 17 : 0};

		assert_int_equal(snap_parse_extra(x, &n, bytes, 4, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "count:"));
	}
}

static void test_twice_the_same_name(void **state)
{
	struct snap_extra two[2] = {{.name = "disk.a"}, {.name = "disk.a"}}, x[SNAP_FILES_MAX];
	struct err e = {0};
	struct enc out = {0};
	unsigned n;

	snap_encode_extra(&out, two, 2);
	assert_int_equal(snap_parse_extra(x, &n, out.buf, out.len, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "appears twice"));
	enc_free(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, snap_fix_setup, snap_fix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_round_trip),
		T(test_abort_removes_them),
		T(test_damage),
		T(test_trust_counts_them_in),
		cmocka_unit_test(test_hostile_lists),
		cmocka_unit_test(test_twice_the_same_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
