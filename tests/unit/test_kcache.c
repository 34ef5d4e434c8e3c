/* SPDX-License-Identifier: Apache-2.0 */
/* test_kcache.c - kept kernels: found again, mapped, never trusted when others could write them. */
#include "monitor/kcache.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/cache_case.h"
#include "tests/lib/pack.h"
#include "tests/lib/tmpdir.h"

static void test_second_boot_is_mapped(void **state)
{
	make_kernel(PACK_LZ4_LEGACY);
	assert_loads(true); /* unpacked, kept, and what was kept is mapped */
	assert_int_equal(count_of(".vmlinux"), 1);
	assert_loads(true);
	assert_int_equal(count_of(".vmlinux"), 1);
}

static void test_same_kernel_elsewhere(void **state)
{
	make_kernel(PACK_XZ);
	assert_loads(true);
	snprintf(file, sizeof(file), "%s/copy", dir);
	make_kernel(PACK_XZ);
	assert_loads(true);
	assert_int_equal(count_of(".vmlinux"), 1);
	make_kernel(PACK_ZSTD); /* another file content, so another key */
	assert_loads(true);
	assert_int_equal(count_of(".vmlinux"), 2);
}

static void test_off(void **state)
{
	make_kernel(PACK_GZIP);
	snprintf(cache, sizeof(cache), "off");
	assert_loads(false);
	assert_int_equal(dir_count(dir, ""), 1);
}

/* Guest writes stay in the guest. */
static void test_entries_are_never_written(void **state)
{
	size_t before_len, after_len;
	u8 *before, *after;

	make_kernel(PACK_LZ4);
	assert_loads(true);
	before = file_read(entry_path(), &before_len);
	assert_loads(true);
	memset(mem_at(ram, ELF_TEXT_GPA, ELF_TEXT_LEN), 0xaa, ELF_TEXT_LEN);
	after = file_read(entry_path(), &after_len);
	assert_int_equal(before_len, after_len);
	assert_memory_equal(before, after, before_len);
	free(before);
	free(after);
	assert_loads(true);
}

/* ---- the shortcut by a file's identity ---- */

static struct stat old_stat(void)
{
	struct stat st;

	assert_int_equal(stat(file, &st), 0);
	st.st_mtim.tv_sec -= 3600;
	st.st_ctim.tv_sec -= 3600;
	return st;
}

static void test_recall(void **state)
{
	struct kcache_key key, got;
	_cleanup_fd_ int fd = -1;
	struct stat st, other;

	make_kernel(PACK_GZIP);
	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	kcache_key("abc", 3, &key);
	st = old_stat();
	assert_false(kcache_recall(fd, &st, &got));
	kcache_learn(fd, &st, &key);
	assert_true(kcache_recall(fd, &st, &got));
	assert_memory_equal(&key, &got, sizeof(key));
#define ELSE(change)                                                                               \
	other = st;                                                                                \
	change;                                                                                    \
	assert_false(kcache_recall(fd, &other, &got))
	ELSE(other.st_dev++);
	ELSE(other.st_ino++);
	ELSE(other.st_size++);
	ELSE(other.st_mtim.tv_nsec ^= 1);
	ELSE(other.st_ctim.tv_nsec ^= 1);
	ELSE(other.st_ctim.tv_sec++);
}

static void test_fresh_files_are_not_remembered(void **state)
{
	struct kcache_key key;
	_cleanup_fd_ int fd = -1;
	struct stat st;

	make_kernel(PACK_GZIP);
	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	kcache_key("abc", 3, &key);
	assert_int_equal(stat(file, &st), 0);
	kcache_learn(fd, &st, &key);
	assert_false(kcache_recall(fd, &st, &key));
	st.st_mtim.tv_sec -= 3600; /* set back by hand; the change time tells */
	kcache_learn(fd, &st, &key);
	assert_false(kcache_recall(fd, &st, &key));
	assert_int_equal(dir_count(cache, ""), 0);
}

static void test_l01_damaged_record(void **state)
{
	struct kcache_key key;
	_cleanup_fd_ int fd = -1;
	char *path;
	u8 *bytes;
	size_t len;
	struct stat st;

	make_kernel(PACK_GZIP);
	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	kcache_key("abc", 3, &key);
	st = old_stat();
	kcache_learn(fd, &st, &key);
	path = path_of(".source");
	assert_non_null(path);
	bytes = file_read(path, &len);
	for (size_t i = 0; i < len; i++) {
		bytes[i] ^= 1;
		file_write(path, bytes, len);
		assert_false(kcache_recall(fd, &st, &key));
		bytes[i] ^= 1;
	}
	file_write(path, bytes, len - 1);
	assert_false(kcache_recall(fd, &st, &key));
	file_write(path, bytes, len);
	assert_true(kcache_recall(fd, &st, &key));
	free(bytes);
}

/* ---- entries that are not whole ---- */

static void test_l01_damaged_entry(void **state)
{
	size_t len;
	u8 *bytes;

	make_kernel(PACK_GZIP);
	assert_loads(true);
	bytes = file_read(entry_path(), &len);
	for (size_t cut = 0; cut < len; cut += cut < 200 ? 1 : 997) {
		file_write(entry_path(), bytes, len - 1 - cut);
		assert_loads(true); /* unpacked and kept anew */
	}
	for (size_t at = len - TRAILER_LEN; at < len; at++) {
		u8 was = bytes[at];

		bytes[at] ^= 1;
		file_write(entry_path(), bytes, len);
		assert_loads(true);
		bytes[at] = was;
	}
	free(bytes);
}

/* An entry of an earlier boot of the host is checked, and once only. */
static void test_entry_of_an_earlier_boot(void **state)
{
	size_t len, now_len;
	u8 *bytes, *now;

	make_kernel(PACK_GZIP);
	assert_loads(true);
	bytes = file_read(entry_path(), &len);
	memset(bytes + len - 40, '0', 36);
	file_write(entry_path(), bytes, len);
	assert_loads(true);
	now = file_read(entry_path(), &now_len);
	assert_int_equal(len, now_len);
	assert_memory_equal(bytes, now, len - 40);
	assert_memory_not_equal(bytes, now, len); /* stamped */
	free(now);

	bytes[ELF_TEXT_OFF + 100] ^= 1; /* what a crash lost */
	file_write(entry_path(), bytes, len);
	assert_loads(true);
	free(bytes);
}

/* A byte that changed in an entry of this boot is noticed by the file's modification time. */
static void test_l01_changed_entry(void **state)
{
	struct stat st, now;
	size_t len;
	u8 *bytes;

	make_kernel(PACK_GZIP);
	assert_loads(true);
	assert_int_equal(stat(entry_path(), &st), 0);
	assert_loads(true);
	assert_int_equal(stat(entry_path(), &now), 0);
	assert_true(now.st_ino == st.st_ino && now.st_mtim.tv_sec == st.st_mtim.tv_sec);
	assert_int_equal(now.st_mtim.tv_nsec, 0);

	bytes = file_read(entry_path(), &len);
	for (size_t at = ELF_TEXT_OFF; at < ELF_TEXT_OFF + ELF_TEXT_LEN; at += 1000) {
		bytes[at] ^= 1;
		file_write(entry_path(), bytes, len);
		assert_loads(true); /* unpacked and kept anew */
		bytes[at] ^= 1;
	}

	/* Written, but with what it had: checked, and not again. */
	assert_int_equal(stat(entry_path(), &st), 0);
	file_write(entry_path(), bytes, len);
	assert_loads(true);
	assert_int_equal(stat(entry_path(), &now), 0);
	assert_true(now.st_ino == st.st_ino);
	assert_int_equal(now.st_mtim.tv_nsec, 0);
	free(bytes);
}

/* ---- whom to trust ---- */

static void test_l01_others_can_write(void **state)
{
	struct result r;

	make_kernel(PACK_GZIP);
	assert_int_equal(mkdir(cache, 0700), 0);
	assert_int_equal(chmod(cache, 0770), 0);
	r = load_file();
	assert_refused(&r, "is not used: it belongs to another user, or others can write it");
	assert_int_equal(chmod(cache, 0702), 0);
	r = load_file();
	assert_refused(&r, "is not used");
	if (geteuid() == 0) {
		assert_int_equal(chmod(cache, 0700), 0);
		assert_int_equal(chown(cache, 12345, 12345), 0);
		r = load_file();
		assert_refused(&r, "is not used");
		assert_int_equal(chown(cache, 0, 0), 0);
	}
}

static void test_l01_entry_others_can_write(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct kcache_key key;
	char other[600], name[600];
	struct stat st;

	make_kernel(PACK_GZIP);
	assert_loads(true);
	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	kcache_key("no", 2, &key);
	assert_int_equal(kcache_get(fd, &key), -1);

	assert_int_equal(chmod(entry_path(), 0622), 0);
	assert_loads(true); /* replaced by one of ours */
	snprintf(other, sizeof(other), "%s/link", dir);
	snprintf(name, sizeof(name), "%s", entry_path());
	assert_int_equal(link(name, other), 0);
	assert_loads(true);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(symlink(other, name), 0);
	assert_loads(true);
	assert_int_equal(lstat(name, &st), 0);
	assert_true(S_ISREG(st.st_mode) && st.st_nlink == 1);
}

static void test_l01_cannot_be_made(void **state)
{
	struct result r;

	make_kernel(PACK_GZIP);
	snprintf(cache, sizeof(cache), "%s/no/cache", dir);
	r = load_file();
	assert_refused(&r, "cannot make the kernel cache");
	snprintf(cache, sizeof(cache), "%s", file);
	r = load_file();
	assert_refused(&r, "cannot open the kernel cache");
}

static void test_default_places(void **state)
{
	_cleanup_fd_ int fd = -1, none = -1;
	char path[300];

	setenv("XDG_CACHE_HOME", dir, 1);
	assert_int_equal(kcache_open("", &fd, NULL), 0);
	assert_true(fd >= 0);
	snprintf(path, sizeof(path), "%s/kelvin", dir);
	assert_int_equal(access(path, F_OK), 0);

	unsetenv("XDG_CACHE_HOME");
	setenv("HOME", dir, 1);
	fd_close(&fd);
	assert_int_equal(kcache_open("", &fd, NULL), 0);
	snprintf(path, sizeof(path), "%s/.cache/kelvin", dir);
	assert_int_equal(access(path, F_OK), 0);

	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(kcache_open("", &none, NULL), 0);
	assert_int_equal(none, -1);
	setenv("HOME", "/nowhere", 1);
	assert_int_equal(kcache_open("", &none, NULL), 0);
	assert_int_equal(none, -1);
}

/* ---- bounds ---- */

static void put_sized(int fd, u32 n, u64 len)
{
	u8 *p = calloc(1, len);
	struct kcache_key key;

	assert_non_null(p);
	kcache_key(&n, sizeof(n), &key);
	assert_true(kcache_put(fd, &key, p, len));
	free(p);
}

static bool has(int fd, u32 n)
{
	_cleanup_fd_ int entry = -1;
	struct kcache_key key;

	kcache_key(&n, sizeof(n), &key);
	entry = kcache_get(fd, &key);
	return entry >= 0;
}

static void test_the_longest_unused_go(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct kcache_key key;

	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	for (u32 i = 0; i < KCACHE_ENTRIES; i++) {
		put_sized(fd, i, 4096);
		usleep(5000); /* times of files tick in jiffies */
	}
	assert_true(has(fd, 0)); /* used: now 1 is the oldest */
	usleep(5000);
	put_sized(fd, 100, 4096);
	assert_int_equal(count_of(".vmlinux"), KCACHE_ENTRIES);
	assert_true(has(fd, 0) && has(fd, 100) && !has(fd, 1) && has(fd, 2));

	kcache_key("x", 1, &key);
	assert_false(kcache_put(fd, &key, "small", 5));
}

/* Many processes, one kernel, an empty cache: each gets the kernel, one entry stays. */
static void test_concurrent_writers(void **state)
{
	enum { N = 8 };
	pid_t pid[N];

	make_kernel(PACK_ZSTD);
	for (unsigned i = 0; i < N; i++) {
		pid[i] = fork();
		assert_true(pid[i] >= 0);
		if (pid[i] == 0) {
			for (unsigned k = 0; k < 5; k++) {
				struct result r = load_file();
				char *entry;
				const u8 *text = mem_at(ram, ELF_TEXT_GPA, ELF_TEXT_LEN);

				for (u64 b = 0; b < ELF_TEXT_LEN; b++)
					if (r.code || text[b] != elf_byte(ELF_TEXT_GPA + b))
						_exit(1);
				entry = path_of(".vmlinux");
				if (i % 2 && entry)
					unlink(entry);
			}
			_exit(0);
		}
	}
	for (unsigned i = 0; i < N; i++) {
		int status;

		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	assert_int_equal(dir_count(cache, ".tmp-"), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)
	const struct CMUnitTest tests[] = {
		T(test_second_boot_is_mapped),
		T(test_same_kernel_elsewhere),
		T(test_off),
		T(test_entries_are_never_written),
		T(test_recall),
		T(test_fresh_files_are_not_remembered),
		T(test_l01_damaged_record),
		T(test_l01_damaged_entry),
		T(test_entry_of_an_earlier_boot),
		T(test_l01_changed_entry),
		T(test_l01_others_can_write),
		T(test_l01_entry_others_can_write),
		T(test_l01_cannot_be_made),
		T(test_default_places),
		T(test_the_longest_unused_go),
		T(test_concurrent_writers),
	};

	return cmocka_run_group_tests_name("kcache", tests, NULL, NULL);
}
