/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_snapshot.c - snapshots come back as they were, and take a name only as they may. What
 * hostile files do is in test_snapshot_hostile.c, what failing system calls do in
 * test_snapshot_fault.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "monitor/base/crc32c.h"
#include "snapshot/format.h"
#include "tests/lib/snap_fix.h"
#include "tests/lib/tmpdir.h"

static void test_crc32c(void **state)
{
	u8 buf[300];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (u8)(i * 7);
	assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
	assert_int_equal(crc32c_table(0, "123456789", 9), 0xE3069283);
	assert_int_equal(crc32c(0, buf, 0), 0);
	for (size_t len = 0; len < sizeof(buf); len++) {
		u32 whole = crc32c(0, buf, len);

		assert_int_equal(whole, crc32c_table(0, buf, len));
		assert_int_equal(whole, crc32c(crc32c(0, buf, len / 3), buf + len / 3,
			len - len / 3));
	}
}

static void test_h13_round_trip(void **state)
{
	const struct snap_fix *f = *state;
	const struct snap_section *sec;
	struct err e = {0};
	struct timespec now;
	struct snap *s;
	struct stat st;

	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(snap_section_count(s), 3);
	assert_string_equal(snap_section_at(s, 0)->tag, "vm");
	assert_int_equal(snap_find(s, "vm", &sec, &e), 0);
	assert_int_equal(sec->version, 3);
	assert_int_equal(sec->offset, SNAP_HEADER_LEN);
	assert_int_equal(sec->len, 5);
	assert_memory_equal(sec->data, "hello", 5);
	assert_int_equal(snap_find(s, "vcpu0", &sec, &e), 0);
	assert_memory_equal(sec->data, "register", 8);
	assert_int_equal(snap_find(s, "empty", &sec, &e), 0);
	assert_int_equal(sec->len, 0);
	/* The map is the format's own business. */
	assert_int_equal(snap_find(s, "memory", &sec, &e), -ENOENT);
	assert_int_equal(snap_find(s, "vcpu1", &sec, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "section vcpu1 is missing"));

	assert_int_equal(snap_mem_size(s), SNAP_FIX_SIZE);
	assert_int_equal(snap_mem_data_bytes(s), 5 * MEM_PAGE);
	clock_gettime(CLOCK_REALTIME, &now);
	assert_in_range(snap_created_ns(s), ((u64)now.tv_sec - 60) * 1000000000u,
		((u64)now.tv_sec + 1) * 1000000000u);
	snap_fix_same(s, f->mem);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	assert_true(snap_trusted(s));
	assert_int_equal(fstat(snap_mem_fd(s), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true((u64)st.st_blocks * 512 < SNAP_FIX_SIZE / 2); /* zero pages are holes */
	assert_int_equal(stat(f->dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(dir_count(f->top, ""), 1);
	assert_int_equal(dir_count(f->dir, ""), 3);
	snap_close(&s);
	assert_null(s);
	snap_close(&s);
}

/* RAM on both sides of the hole for devices: neighbours in the file, not in guest RAM. */
static void test_round_trip_two_regions(void **state)
{
	const struct snap_fix *f = *state;
	u8 low[MEM_PAGE], high[MEM_PAGE], got[2 * MEM_PAGE];
	struct err e = {0};
	char dir[300];
	struct mem *m;
	struct snap *s;

	snprintf(dir, sizeof(dir), "%s/big", f->top);
	memset(low, 0xaa, sizeof(low));
	memset(high, 0xbb, sizeof(high));
	assert_int_equal(mem_create(&m, MEM_GAP_GPA + MEM_MIN_SIZE, MEM_ANON, &e), 0);
	assert_true(mem_write(m, MEM_GAP_GPA - MEM_PAGE, low, sizeof(low)));
	assert_true(mem_write(m, MEM_HIGH_GPA, high, sizeof(high)));
	assert_int_equal(snap_fix_write(dir, m, false, &e), 0);
	mem_destroy(&m);
	assert_int_equal(snap_open(&s, dir, &e), 0);
	assert_int_equal(snap_mem_data_bytes(s), 2 * MEM_PAGE);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	assert_int_equal(pread(snap_mem_fd(s), got, sizeof(got), MEM_GAP_GPA - MEM_PAGE),
		(ssize_t)sizeof(got));
	assert_memory_equal(got, low, MEM_PAGE);
	assert_memory_equal(got + MEM_PAGE, high, MEM_PAGE);
	snap_close(&s);
}

static void count_progress(void *ctx, u64 done, u64 total)
{
	u64 *last = ctx;

	assert_true(done >= *last && done <= total && total == SNAP_FIX_SIZE);
	*last = done;
}

static void test_progress_reaches_the_end(void **state)
{
	const struct snap_fix *f = *state;
	struct snap_pair p;
	struct err e = {0};
	struct snap *s;
	char dir[300];
	u64 last = 0;

	snprintf(dir, sizeof(dir), "%s/other", f->top);
	assert_int_equal(snap_pair_begin(&p, &sys_host, dir, false, &e), 0);
	assert_int_equal(snap_add_memory(p.w, f->mem, count_progress, &last, &e), 0);
	assert_int_equal(last, SNAP_FIX_SIZE);
	assert_int_equal(snap_data_bytes(p.w), 5 * MEM_PAGE);
	snap_pair_abort(&p);
	snap_pair_abort(&p);
	assert_int_equal(dir_count(f->top, ""), 1);
	last = 0;
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(snap_verify(s, count_progress, &last, &e), 0);
	assert_int_equal(last, SNAP_FIX_SIZE);
	snap_close(&s);
}

static void test_h10_open_twice(void **state)
{
	const struct snap_fix *f = *state;
	unsigned fds = fd_count();
	struct snap *a, *b;
	struct err e = {0};

	assert_int_equal(snap_open(&a, f->dir, &e), 0);
	assert_int_equal(snap_open(&b, f->dir, &e), 0);
	assert_int_not_equal(snap_mem_fd(a), snap_mem_fd(b));
	snap_close(&a);
	snap_fix_same(b, f->mem);
	snap_close(&b);
	assert_int_equal(fd_count(), fds);
}

/* A clone of a snapshot is saved over the very snapshot it is mapped from. */
static void test_h12_replace_own_backing(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s, *again;
	struct mem *clone;
	u8 got[MEM_PAGE];

	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(mem_map_file(&clone, snap_mem_fd(s), snap_mem_size(s), &e), 0);
	assert_true(mem_write(clone, 9 * MEM_PAGE, "new", 3));
	assert_int_equal(snap_fix_write(f->dir, clone, true, &e), 0);
	/* The new one has the clone's memory, the old inode is as it was, the mapping works. */
	assert_int_equal(snap_open(&again, f->dir, &e), 0);
	assert_int_equal(snap_verify(again, NULL, NULL, &e), 0);
	snap_fix_same(again, clone);
	snap_fix_same(s, f->mem);
	assert_int_equal(snap_mem_data_bytes(again), 6 * MEM_PAGE);
	assert_int_equal(pread(snap_mem_fd(s), got, 3, 9 * MEM_PAGE), 3);
	assert_memory_equal(got, "\0\0\0", 3);
	assert_int_equal(dir_count(f->top, ""), 1);
	snap_close(&again);
	snap_close(&s);
	mem_destroy(&clone);
}

static void test_trust(void **state)
{
	const struct snap_fix *f = *state;
	const char *const path[] = {f->dir, f->state, f->memory};
	const mode_t bad[] = {0020, 0002, 0022};
	struct err e = {0};
	struct snap *s;

	for (size_t i = 0; i < ARRAY_SIZE(path); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
			assert_int_equal(chmod(path[i], 0700 | bad[k]), 0);
			assert_int_equal(snap_open(&s, f->dir, &e), 0);
			assert_false(snap_trusted(s));
			snap_close(&s);
		}
		assert_int_equal(chmod(path[i], 0755), 0);
		if (geteuid() == 0) {
			assert_int_equal(chown(path[i], 12345, (gid_t)-1), 0);
			assert_int_equal(snap_open(&s, f->dir, &e), 0);
			assert_false(snap_trusted(s));
			snap_close(&s);
			assert_int_equal(chown(path[i], 0, (gid_t)-1), 0);
		}
	}
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_true(snap_trusted(s));
	snap_close(&s);
}

/* snap_dir_create() fails with @code, names @part, and leaves nothing behind. */
static void create_refused(const struct snap_fix *f, const char *dir, bool force, int code,
	const char *part)
{
	unsigned fds = fd_count(), entries = dir_count(f->top, "");
	struct snap_dir *d = NULL;
	struct err e = {0};
	int r = snap_dir_create(&d, &sys_host, dir, force, &e);

	assert_null(d);
	if (r != code || !strstr(e.msg, part))
		fail_msg("got %d \"%s\", want %d \"...%s...\"", r, e.msg, code, part);
	assert_int_equal(fd_count(), fds);
	assert_int_equal(dir_count(f->top, ""), entries);
}

static void test_create_refuses_names(void **state)
{
	const struct snap_fix *f = *state;
	char path[600], name[300];

	create_refused(f, "", false, -EINVAL, "cannot be");
	create_refused(f, "/", true, -EINVAL, "cannot be");
	create_refused(f, ".", true, -EINVAL, "cannot be");
	snprintf(path, sizeof(path), "%s/..", f->top);
	create_refused(f, path, true, -EINVAL, "cannot be");
	snprintf(path, sizeof(path), "%s/none/x", f->top);
	create_refused(f, path, false, -ENOENT, "parent");
	memset(name, 'n', 250);
	name[250] = 0;
	snprintf(path, sizeof(path), "%s/%s", f->top, name);
	create_refused(f, path, false, -ENAMETOOLONG, "name");
}

static void test_create_accepts_slashes_and_relative_names(void **state)
{
	const struct snap_fix *f = *state;
	char path[600], *old = getcwd(NULL, 0);
	struct err e = {0};

	snprintf(path, sizeof(path), "%s//slash//", f->top);
	assert_int_equal(snap_fix_write(path, f->mem, false, &e), 0);
	assert_int_equal(chdir(f->top), 0);
	assert_int_equal(snap_fix_write("rel", f->mem, false, &e), 0);
	assert_int_equal(chdir(old), 0);
	free(old);
	assert_int_equal(dir_count(f->top, "slash"), 1);
	assert_int_equal(dir_count(f->top, "rel"), 1);
	assert_int_equal(dir_count(f->top, "."), 0);
}

static void test_force_replaces_only_snapshots(void **state)
{
	const struct snap_fix *f = *state;
	char path[600], link[600];
	struct err e = {0};

	create_refused(f, f->dir, false, -EEXIST, "exists already");
	/* A directory with something else in it. */
	snprintf(path, sizeof(path), "%s/notes", f->dir);
	file_write(path, "x", 1);
	create_refused(f, f->dir, true, -EEXIST, "holds notes");
	assert_int_equal(unlink(path), 0);
	/* A directory whose only file is called as ours is. */
	snprintf(path, sizeof(path), "%s/foreign", f->top);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(snap_fix_write(path, f->mem, true, &e), 0); /* empty: nothing to lose */
	snprintf(path, sizeof(path), "%s/foreign/state", f->top);
	file_write(path, "my diary", 8);
	snprintf(path, sizeof(path), "%s/foreign", f->top);
	create_refused(f, path, true, -EEXIST, "no kelvin snapshot");
	/* A file; a link to a snapshot. */
	snprintf(path, sizeof(path), "%s/file", f->top);
	file_write(path, "x", 1);
	create_refused(f, path, true, -EEXIST, "is no directory");
	snprintf(link, sizeof(link), "%s/link", f->top);
	assert_int_equal(symlink(f->dir, link), 0);
	create_refused(f, link, true, -EEXIST, "is no directory");
}

/* What somebody puts into the old snapshot while the new one is being made is kept too. */
static void test_force_looks_again_at_commit(void **state)
{
	const struct snap_fix *f = *state;
	struct snap_pair p;
	struct err e = {0};
	char path[600];

	assert_int_equal(snap_pair_begin(&p, &sys_host, f->dir, true, &e), 0);
	assert_int_equal(snap_add_memory(p.w, f->mem, NULL, NULL, &e), 0);
	snprintf(path, sizeof(path), "%s/notes", f->dir);
	file_write(path, "x", 1);
	assert_int_equal(snap_pair_commit(&p, &e), -EEXIST);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(dir_count(f->top, ""), 1);
}

static void test_force_replaces_a_damaged_snapshot(void **state)
{
	const struct snap_fix *f = *state;
	struct err e = {0};
	struct snap *s;

	assert_int_equal(truncate(f->state, 20), 0);
	assert_int_equal(unlink(f->memory), 0);
	assert_int_equal(snap_fix_write(f->dir, f->mem, true, &e), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	snap_fix_same(s, f->mem);
	snap_close(&s);
	assert_int_equal(dir_count(f->top, ""), 1);
}

/* Two writers of one name: neither sweeps the other, the first to commit wins. */
static void test_d05_two_writers(void **state)
{
	const struct snap_fix *f = *state;
	struct snap_pair a, b;
	struct err e = {0};
	struct snap *s;
	char dir[300];

	snprintf(dir, sizeof(dir), "%s/both", f->top);
	assert_int_equal(snap_pair_begin(&a, &sys_host, dir, false, &e), 0);
	assert_int_equal(snap_pair_begin(&b, &sys_host, dir, false, &e), 0);
	assert_int_equal(dir_count(f->top, ".both.tmp."), 2);
	assert_int_equal(snap_add_memory(a.w, f->mem, NULL, NULL, &e), 0);
	assert_int_equal(snap_add_memory(b.w, f->mem, NULL, NULL, &e), 0);
	assert_int_equal(snap_pair_commit(&b, &e), 0);
	assert_int_equal(snap_pair_commit(&a, &e), -EEXIST);
	assert_non_null(strstr(e.msg, "exists already"));
	assert_int_equal(snap_open(&s, dir, &e), 0);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	snap_close(&s);
	assert_int_equal(dir_count(f->top, "."), 0);
}

/* The sweep takes our dead directories of this name, and nothing else. */
static void test_sweep(void **state)
{
	const char *const dead[] = {".snap.tmp.1.0", ".snap.tmp.77.12"};
	const char *const kept[] = {".snap.tmp.x", ".snap.tmp.", ".snapper.tmp.1.0", "snap.tmp.1.0",
		".other.tmp.1.0"};
	const struct snap_fix *f = *state;
	struct snap_dir *d;
	struct err e = {0};
	char path[600];

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->top, kept[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(dead); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->top, dead[i]);
		assert_int_equal(mkdir(path, 0700), 0);
		snprintf(path, sizeof(path), "%s/%s/memory", f->top, dead[i]);
		file_write(path, "x", 1);
	}
	/* Dead, but somebody keeps a file in it. */
	snprintf(path, sizeof(path), "%s/.snap.tmp.5.0", f->top);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/.snap.tmp.5.0/notes", f->top);
	file_write(path, "x", 1);
	assert_int_equal(snap_dir_create(&d, &sys_host, f->dir, true, &e), 0);
	snap_dir_abort(&d);
	for (size_t i = 0; i < ARRAY_SIZE(dead); i++)
		assert_int_equal(dir_count(f->top, dead[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		assert_true(dir_count(f->top, kept[i]) >= 1);
	assert_int_equal(access(path, F_OK), 0);
}

/* A name that came from somebody else makes no file elsewhere, or one that nobody would remove. */
static void test_files_by_name(void **state)
{
	static const char *const good[] = {"state", "memory", "disk.a"};
	static const char *const bad[] = {"", ".", "..", "thesis", "disk.", "disk./x", "../disk.a",
		"/tmp/disk.a", "state/x", "disk.a/../../x", "host"};
	const struct snap_fix *f = *state;
	unsigned fds = fd_count();
	struct snap_dir *d;
	struct err e = {0};
	char dir[300];
	int fd = -1;

	snprintf(dir, sizeof(dir), "%s/other", f->top);
	assert_int_equal(snap_dir_create(&d, &sys_host, dir, false, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(snap_dir_file(d, bad[i], &fd, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "is no part of a snapshot"));
		assert_int_equal(fd, -1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(snap_dir_file(d, good[i], &fd, &e), 0);
		close(fd);
		fd = -1;
		assert_int_equal(snap_dir_file(d, good[i], &fd, &e), -EEXIST);
		assert_non_null(strstr(e.msg, good[i]));
	}
	snap_dir_abort(&d);
	assert_null(d);
	snap_dir_abort(&d);
	assert_int_equal(fd_count(), fds);
	assert_int_equal(dir_count(f->top, ""), 1);
}

/* Whoever got its files, and says that they are written, may have kept a way to write them. */
static void test_open_for_writing(void **state)
{
	const struct snap_fix *f = *state;
	unsigned fds = fd_count();
	struct snap_dir *d;
	struct err e = {0};
	char dir[300];
	int fd, again;
	void *p;

	snprintf(dir, sizeof(dir), "%s/other", f->top);
	assert_int_equal(snap_dir_create(&d, &sys_host, dir, false, &e), 0);
	/* What needs no reader cannot be mapped, so that nobody can pin its pages. */
	assert_int_equal(snap_dir_file(d, "memory", &fd, &e), 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(snap_dir_let_go(d, "memory", &e), -EBUSY);
	assert_non_null(strstr(e.msg, "memory is open for writing"));
	close(fd);
	assert_int_equal(snap_dir_let_go(d, "memory", &e), 0);
	assert_int_equal(snap_dir_file(d, "disk.a", &fd, &e), 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	again = dup(fd);
	close(fd);
	assert_int_equal(snap_dir_let_go(d, "disk.a", &e), -EBUSY);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	close(again);
	assert_int_equal(snap_dir_let_go(d, "disk.a", &e), -EBUSY);
	munmap(p, 4096);
	assert_int_equal(snap_dir_let_go(d, "disk.a", &e), 0);
	assert_int_equal(snap_dir_let_go(d, "disk.a", &e), 0);
	assert_int_equal(snap_dir_let_go(d, "state", &e), -ENOENT);
	snap_dir_abort(&d);
	assert_int_equal(fd_count(), fds);
}

/* What whoever makes the directory wrote there, next to what the writer did. */
static void test_host_file(void **state)
{
	const struct snap_fix *f = *state;
	char path[300];
	struct err e = {0};
	struct snap *s;
	size_t len;

	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_int_equal(sizeof(SNAP_FIX_HOST) - 1, (snap_host(s, &len), len));
	assert_memory_equal(snap_host(s, &len), SNAP_FIX_HOST, len);
	assert_int_equal(snap_verify(s, NULL, NULL, &e), 0);
	snap_close(&s);
	snprintf(path, sizeof(path), "%s/host", f->dir);
	assert_int_equal(chmod(path, 0622), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_false(snap_trusted(s));
	snap_close(&s);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "file host has 0 bytes"));
	assert_int_equal(truncate(path, SNAP_HOST_MAX + 1), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("state", path), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), -ELOOP);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(snap_open(&s, f->dir, &e), 0);
	assert_null(snap_host(s, &len));
	assert_true(snap_trusted(s));
	snap_close(&s);
	/* It goes with the rest when another takes the name. */
	assert_int_equal(snap_fix_write(f->dir, f->mem, true, &e), 0);
	assert_int_equal(snap_fix_write(f->dir, f->mem, true, &e), 0);
	assert_int_equal(dir_count(f->top, ""), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, snap_fix_setup, snap_fix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c),
		T(test_h13_round_trip),
		T(test_round_trip_two_regions),
		T(test_progress_reaches_the_end),
		T(test_h10_open_twice),
		T(test_h12_replace_own_backing),
		T(test_trust),
		T(test_create_refuses_names),
		T(test_create_accepts_slashes_and_relative_names),
		T(test_force_replaces_only_snapshots),
		T(test_force_looks_again_at_commit),
		T(test_force_replaces_a_damaged_snapshot),
		T(test_d05_two_writers),
		T(test_sweep),
		T(test_files_by_name),
		T(test_host_file),
		T(test_open_for_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
