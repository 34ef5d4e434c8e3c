/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kcache_dir.c - the cache's directory: bounded whatever is in it, whoever dies while writing
 * it, and a convenience only where it is full, read-only or nowhere (hostile-cases L01).
 */
#include "monitor/kcache_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/cache_case.h"
#include "tests/lib/tmpdir.h"

#define NOBODY 12345

static int open_cache(void)
{
	int fd;

	assert_int_equal(kcache_open(cache, &fd, NULL), 0);
	assert_true(fd >= 0);
	return fd;
}

static void put(int fd, u32 n)
{
	static u8 elf[4096];
	struct kcache_key key;

	kcache_key(&n, sizeof(n), &key);
	assert_true(kcache_put(fd, &key, elf, sizeof(elf)));
}

/* ---- bounds ---- */

/* A file of that name and size, last used @ago seconds ago. */
static void plant(const char *name, off_t len, time_t ago)
{
	struct timespec t[2] = {{.tv_sec = time(NULL) - ago}, {.tv_sec = time(NULL) - ago}};
	char path[600];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", cache, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, len), 0);
	assert_int_equal(futimens(fd, t), 0);
	close(fd);
}

static void plant_kernel(unsigned n, off_t len, time_t ago)
{
	char name[KCACHE_NAME_MAX];

	snprintf(name, sizeof(name), "%064x.vmlinux", n);
	plant(name, len, ago);
}

static void test_bytes_are_bounded(void **state)
{
	_cleanup_fd_ int fd = open_cache();

	for (unsigned i = 0; i < 4; i++)
		plant_kernel(i, 200 << 20, 100 + i);
	put(fd, 1);
	assert_int_equal(count_of(".vmlinux"), 3); /* two of 200 MiB, and the new one */
	assert_int_equal(count_of("0000.vmlinux"), 1);
	assert_int_equal(count_of("0001.vmlinux"), 1);
}

/* More files than one pass looks at. */
static void test_many_files(void **state)
{
	_cleanup_fd_ int fd = open_cache();
	char name[KCACHE_NAME_MAX];

	for (unsigned i = 0; i < 1200; i++) {
		snprintf(name, sizeof(name), "%032x.source", i);
		plant(name, 80, i);
	}
	for (unsigned i = 0; i < 20; i++)
		plant_kernel(i, 4096, i);
	put(fd, 1);
	assert_int_equal(count_of(".vmlinux"), KCACHE_ENTRIES);
	assert_int_equal(count_of(".source"), RECORDS_MAX);
}

/* One kernel, copied for each VM: records are bounded though nothing is unpacked. */
static void test_records_are_bounded(void **state)
{
	_cleanup_fd_ int fd = open_cache();
	struct kcache_key key;
	struct stat st = {.st_size = 1};

	kcache_key("abc", 3, &key);
	for (unsigned i = 0; i < 3 * RECORDS_MAX; i++) {
		st.st_ino = i;
		kcache_learn(fd, &st, &key);
	}
	assert_int_equal(count_of(".source"), RECORDS_MAX + 1);
	assert_true(kcache_recall(fd, &st, &key));
}

/* An operator may name a directory with other things in it. */
static void test_other_names_stay(void **state)
{
	static const char *const names[] = {"mine.vmlinux", "mine.source", ".tmp-mine", "keep-me",
		".tmp-0123456789abcdeg", ".tmp-0123456789abcdef0", ".vmlinux", ".source",
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeX.vmlinux",
		"0123456789abcdef0123456789abcdef.source.bak"};
	_cleanup_fd_ int fd = open_cache();
	char path[600];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		plant(names[i], 300 << 20, 100000);
	for (u32 i = 0; i < 2 * KCACHE_ENTRIES; i++)
		put(fd, i);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", cache, names[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
	assert_int_equal(count_of(".vmlinux"), KCACHE_ENTRIES + 3);
}

/* ---- writers ---- */

static void test_writers_do_not_wait(void **state)
{
	int fd, lock;

	make_kernel(PACK_GZIP);
	fd = open_cache();
	lock = kcache_lock(fd);
	assert_true(lock >= 0);
	assert_loads(false); /* somebody writes: this one does without */
	assert_int_equal(count_of(".vmlinux"), 0);
	assert_int_equal(kcache_lock(fd), -1);
	close(lock);
	assert_loads(true);
	close(fd);
}

/* What a writer left that died is gone with the next one. */
static void test_dead_writers_files(void **state)
{
	_cleanup_fd_ int fd = open_cache();

	plant(".tmp-0123456789abcdef", 100 << 20, 0);
	put(fd, 1);
	assert_int_equal(count_of(".tmp-0123456789abcdef"), 0);
	assert_int_equal(count_of(".vmlinux"), 1);
}

/* Loads for ever; now and then it makes the cache forget. Ends with 1 when a kernel comes wrong. */
static __attribute__((noreturn)) void load_for_ever(unsigned who)
{
	for (unsigned i = 0;; i++) {
		struct result r = load_file();
		const u8 *text = mem_at(ram, ELF_TEXT_GPA, ELF_TEXT_LEN);
		char *entry;

		for (u64 b = 0; b < ELF_TEXT_LEN; b++)
			if (r.code || text[b] != elf_byte(ELF_TEXT_GPA + b))
				_exit(1);
		entry = (who + i) % 3 ? NULL : path_of(".vmlinux");
		if (entry)
			unlink(entry);
	}
}

/* Eight at once, killed at any moment: nobody gets a wrong kernel, and the cache stays usable. */
static void test_l01_writers_are_killed(void **state)
{
	enum { N = 8, KILLS = 200 };
	pid_t pid[N] = {0};

	make_kernel(PACK_ZSTD);
	close(open_cache());
	for (unsigned i = 0; i < N + KILLS; i++) {
		pid_t *p = &pid[i % N];
		int status;

		if (*p) {
			usleep(500 + i * 7919 % 3000);
			kill(*p, SIGKILL);
			assert_int_equal(waitpid(*p, &status, 0), *p);
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		}
		*p = i < KILLS ? fork() : 0;
		assert_true(*p >= 0);
		if (i < KILLS && *p == 0)
			load_for_ever(i);
	}
	assert_true(count_of(".vmlinux") <= 1);
	assert_loads(true);
	put(open_cache(), 1); /* the next writer cleans up */
	assert_int_equal(dir_count(cache, ".tmp-"), 0);
}

/* ---- where it cannot be written ---- */

/* Runs @body in a process with mounts of its own; skips where that is not allowed. */
static void apart(void (*body)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
			_exit(77);
		body();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* In there a failure has to end the process: cmocka's own would go on in the child. */
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static bool loads(bool cached)
{
	struct result r = load_file();

	return !r.code && r.info.is_cached == cached && get(ELF_TEXT_GPA, 1) == elf_byte(ELF_TEXT_GPA);
}

static void full_disk(void)
{
	CHECK(!mkdir(cache, 0700));
	CHECK(!mount("none", cache, "tmpfs", 0, "size=12k,mode=0700"));
	for (unsigned i = 0; i < 3; i++) {
		CHECK(loads(false));
		CHECK(count_of(".vmlinux") == 0 && dir_count(cache, ".tmp-") == 0);
	}
	CHECK(!mount("none", cache, "tmpfs", MS_REMOUNT, "size=1m"));
	CHECK(loads(true));
}

static void read_only(void)
{
	char name[256];

	CHECK(!mkdir(cache, 0700));
	CHECK(!mount("none", cache, "tmpfs", 0, "size=1m,mode=0700"));
	CHECK(loads(true));
	CHECK(!mount("none", cache, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL));
	CHECK(loads(true)); /* what is there can be used */
	make_kernel(PACK_XZ);
	CHECK(loads(false));
	CHECK(count_of(".vmlinux") == 1);
	snprintf(name, sizeof(name), "%s", cache);
	snprintf(cache, sizeof(cache), "%.240s/sub", name);
	CHECK(load_file().code == -EROFS); /* named, and cannot be made */
}

static void nowhere(void)
{
	int fd = 0;

	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	CHECK(!mount("none", "/var/cache", "tmpfs", 0, "size=1m,mode=0755"));
	CHECK(!kcache_open("", &fd, NULL) && fd >= 0); /* root has a place without HOME */
	CHECK(!access("/var/cache/kelvin", F_OK));
	CHECK(!seteuid(NOBODY));
	CHECK(!kcache_open("", &fd, NULL) && fd == -1); /* others have none */
	setenv("XDG_CACHE_HOME", "not/absolute", 1);
	CHECK(!kcache_open("", &fd, NULL) && fd == -1);
	setenv("HOME", "/root", 1); /* of somebody else, as under sudo */
	CHECK(!kcache_open("", &fd, NULL) && fd == -1);
	snprintf(cache, sizeof(cache), "%s", "");
	CHECK(loads(false));
}

static void test_l01_full_disk(void **state)
{
	make_kernel(PACK_GZIP);
	apart(full_disk);
}

static void test_read_only_cache(void **state)
{
	make_kernel(PACK_GZIP);
	apart(read_only);
}

static void test_no_home(void **state)
{
	make_kernel(PACK_GZIP);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(file, 0644), 0);
	if (geteuid() != 0)
		skip();
	apart(nowhere);
}

/* ---- links in directories others can write ---- */

static void test_l01_linked_cache(void **state)
{
	char real[270], lock[300], victim[300];
	struct result r;
	size_t len;
	u8 *bytes;

	make_kernel(PACK_GZIP);
	snprintf(real, sizeof(real), "%s/real", dir);
	assert_int_equal(symlink(real, cache), 0);
	r = load_file(); /* to nothing */
	assert_refused(&r, "cannot open the kernel cache");
	assert_int_equal(access(real, F_OK), -1);
	assert_int_equal(mkdir(real, 0700), 0);
	assert_loads(true); /* to a directory of ours: an operator's own link */

	/* The lock is no way to have a file of ours opened or made elsewhere. */
	snprintf(lock, sizeof(lock), "%s/.lock", real);
	snprintf(victim, sizeof(victim), "%s/victim", dir);
	assert_int_equal(unlink(lock), 0);
	assert_int_equal(unlink(entry_path()), 0);
	file_write(victim, "v", 1);
	assert_int_equal(symlink(victim, lock), 0);
	assert_loads(false);
	bytes = file_read(victim, &len);
	assert_int_equal(len, 1);
	free(bytes);
	assert_int_equal(unlink(victim), 0);
	assert_loads(false);
	assert_int_equal(access(victim, F_OK), -1);

	if (geteuid() == 0) {
		assert_int_equal(chown(real, NOBODY, NOBODY), 0);
		r = load_file();
		assert_refused(&r, "belongs to another user");
		assert_int_equal(chown(real, 0, 0), 0);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)
	const struct CMUnitTest tests[] = {
		T(test_bytes_are_bounded),
		T(test_many_files),
		T(test_records_are_bounded),
		T(test_other_names_stay),
		T(test_writers_do_not_wait),
		T(test_dead_writers_files),
		T(test_l01_writers_are_killed),
		T(test_l01_full_disk),
		T(test_read_only_cache),
		T(test_no_home),
		T(test_l01_linked_cache),
	};

	return cmocka_run_group_tests_name("kcache_dir", tests, NULL, NULL);
}
