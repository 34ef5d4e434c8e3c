/* SPDX-License-Identifier: Apache-2.0 */
/* test_save_files.c - what is accepted as the files of a snapshot, and who has them afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "monitor/machine_int.h"
#include "tests/lib/tmpdir.h"

static struct machine_spec spec;
static char *dir;

static int setup(void **state)
{
	spec.dev.disk_count = 3;
	for (unsigned i = 0; i < 3; i++)
		snprintf(spec.dev.disk[i].id, sizeof(spec.dev.disk[i].id), "d%u", i);
	spec.dev.disk[1].is_overlaid = true;
	dir = tmpdir_make();
	return 0;
}

static int teardown(void **state)
{
	tmpdir_remove(dir);
	free(dir);
	return 0;
}

/* A new file in @dir, opened again with @flags. */
static int file(int flags)
{
	static unsigned number;
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%u", dir, number++);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	fd = open(path, flags | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void good_files(struct handed_file h[3])
{
	h[0] = (struct handed_file){"memory", file(O_WRONLY)};
	h[1] = (struct handed_file){"disk.d1", file(O_RDWR)};
	h[2] = (struct handed_file){"state", file(O_RDWR)};
}

static void close_files(struct handed_file h[3])
{
	for (unsigned i = 0; i < 3; i++)
		fd_close(&h[i].fd);
}

static void test_all_in_any_order(void **state)
{
	struct handed_file h[3];
	struct save_files f;
	unsigned fds = fd_count();
	struct err e;
	int want, got;

	good_files(h);
	want = h[0].fd;
	save_files_list(&f, &spec);
	assert_int_equal(f.count, 3);
	assert_int_equal(save_files_take(&f, h, 3, &e), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(h[i].fd, -1);
	got = save_files_steal(&f, "memory");
	assert_int_equal(got, want);
	assert_int_equal(save_files_steal(&f, "memory"), -1);
	close(got);
	save_files_close(&f);
	assert_int_equal(fd_count(), fds);
}

/* Taking @h fails and says @text, and takes none. */
static void refused(struct handed_file *h, unsigned n, const char *text)
{
	unsigned fds = fd_count();
	struct save_files f;
	struct err e = {0};

	save_files_list(&f, &spec);
	assert_int_equal(save_files_take(&f, h, n, &e), -EINVAL);
	if (!strstr(e.msg, text))
		fail_msg("\"%s\" is not in: %s", text, e.msg);
	for (unsigned i = 0; i < f.count; i++)
		assert_int_equal(f.file[i].fd, -1);
	assert_int_equal(fd_count(), fds);
}

static void test_other_names(void **state)
{
	struct handed_file h[3];

	good_files(h);
	refused(h, 2, "has 3 files, not 2");
	refused(h, 0, "has 3 files, not 0");
	h[1].name = "disk.d0";
	refused(h, 3, "there is no file \"disk.d1\"");
	h[1].name = "memory";
	refused(h, 3, "there is no file \"disk.d1\"");
	close_files(h);
}

/* What the writer could not write, or somebody else would have to suffer for. */
static void test_a08_other_descriptors(void **state)
{
	int pair[2], pipes[2];
	struct {
		int fd;
		const char *text;
	} bad[] = {
		{file(O_RDONLY), "is not open for writing"},
		{file(O_WRONLY), "is not open for reading and writing"},
		{file(O_RDWR | O_APPEND), "is not open for writing"},
		{file(O_PATH), "is not open for writing"},
		{open(dir, O_RDONLY | O_DIRECTORY), "is not a regular file"},
		{open("/dev/null", O_RDWR), "is not a regular file"},
		{-1, "is not a regular file"}, {-1, "is not a regular file"},
		{file(O_RDWR), "is not empty"},
		{file(O_RDWR), "are one file"},
	};
	struct handed_file h[3];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	bad[6].fd = pair[0];
	bad[7].fd = pipes[1];
	assert_int_equal(write(bad[8].fd, "x", 1), 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		unsigned at = i % 3;

		good_files(h);
		fd_close(&h[at].fd);
		h[at].fd = bad[i].fd;
		if (i == ARRAY_SIZE(bad) - 1) {
			fd_close(&h[(at + 1) % 3].fd);
			h[(at + 1) % 3].fd = dup(bad[i].fd);
		}
		refused(h, 3, bad[i].text);
		close_files(h);
	}
	close(pair[1]);
	close(pipes[0]);
}

/* The other way: made in a directory of their own. */
static void test_made_here(void **state)
{
	unsigned fds = fd_count();
	struct snap_dir *d;
	struct save_files f;
	struct err e;
	char path[300];

	snprintf(path, sizeof(path), "%s/snap", dir);
	assert_int_equal(snap_dir_create(&d, &sys_host, path, false, &e), 0);
	save_files_list(&f, &spec);
	assert_int_equal(save_files_make(&f, d, &e), 0);
	for (unsigned i = 0; i < f.count; i++)
		assert_true(f.file[i].fd >= 0);
	save_files_close(&f);
	snap_dir_abort(&d);
	assert_int_equal(fd_count(), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_in_any_order),
		cmocka_unit_test(test_other_names),
		cmocka_unit_test(test_a08_other_descriptors),
		cmocka_unit_test(test_made_here),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
