/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cgroup.c - groups in trees of plain files, for v1, v2 and both; and one in the real thing.
 *
 * The plain files stand where the kernel would put them: a directory made through the table of
 * system calls gets the files of its controllers, and goes away with them unless its cgroup.procs
 * names somebody.
 */
#include "jailer/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/tmpdir.h"

static const char *const kernel_files[] = {"cgroup.procs", "tasks", "memory.limit_in_bytes",
	"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max", "cpuacct.stat",
	"cpuset.cpus", "cpuset.mems", "cgroup.subtree_control", "cgroup.kill"};

static char root[PATH_MAX / 2], table[PATH_MAX / 2];
static unsigned calls_left; /* 0: all calls work; 1: the next fails; ... */
static int fail_with;

/* Counts down to the call that fails. */
static bool fails(void)
{
	if (calls_left == 0 || --calls_left)
		return false;
	errno = fail_with;
	return true;
}

static void put_at(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static int tree_openat(int dir, const char *path, int flags, mode_t mode)
{
	return fails() ? -1 : openat(dir, path, flags, mode);
}

static int tree_mkdirat(int dir, const char *path, mode_t mode)
{
	int fd;

	if (fails() || mkdirat(dir, path, mode))
		return -1;
	fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < ARRAY_SIZE(kernel_files); i++) {
		bool v2 = faccessat(dir, "cgroup.controllers", F_OK, 0) == 0;

		if ((strcmp(kernel_files[i], "memory.max") == 0 ||
			    strcmp(kernel_files[i], "memory.swap.max") == 0 ||
			    strcmp(kernel_files[i], "cpu.max") == 0) && !v2)
			continue;
		if (strstr(kernel_files[i], "limit_in_bytes") && v2)
			continue;
		put_at(fd, kernel_files[i], "");
	}
	if (faccessat(dir, "cgroup.controllers", F_OK, 0) == 0)
		put_at(fd, "cgroup.controllers", "");
	close(fd);
	return 0;
}

/* Removing works even when calls fail, as it does in the kernel. */
static int tree_unlinkat(int dir, const char *path, int flags)
{
	int fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	assert_int_equal(flags, AT_REMOVEDIR);
	if (fd < 0)
		return -1;
	if (fstatat(fd, "cgroup.procs", &st, 0) == 0 && st.st_size) {
		close(fd);
		errno = EBUSY;
		return -1;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(kernel_files); i++)
		unlinkat(fd, kernel_files[i], 0);
	unlinkat(fd, "cgroup.controllers", 0);
	close(fd);
	return unlinkat(dir, path, flags);
}

static ssize_t tree_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return fails() ? -1 : pwrite(fd, buf, len, off);
}

static ssize_t tree_pread(int fd, void *buf, size_t len, off_t off)
{
	return fails() ? -1 : pread(fd, buf, len, off);
}

static const struct sys_ops tree_sys = {
	.openat = tree_openat,
	.mkdirat = tree_mkdirat,
	.unlinkat = tree_unlinkat,
	.pwrite = tree_pwrite,
	.pread = tree_pread,
	.fstat = fstat,
	.close = close,
};

static struct cgroup_host host = {.root = root, .mountinfo = table, .sys = &tree_sys};

static void make_dir(const char *dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, dir);
	assert_int_equal(mkdir(path, 0755), 0);
}

static void put(const char *file, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, file);
	put_at(AT_FDCWD, path, text);
}

static bool is_there(const char *file)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, file);
	return access(path, F_OK) == 0;
}

static void expect(const char *file, const char *text)
{
	char path[PATH_MAX];
	size_t len;
	char *got;

	snprintf(path, sizeof(path), "%s/%s", root, file);
	got = (char *)file_read(path, &len);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(got, text, len);
	free(got);
}

static void mount_line(FILE *f, const char *dir, const char *type, const char *options)
{
	fprintf(f, "30 20 0:9 / %s/%s rw,relatime shared:1 - %s cgroup rw,%s\n", root, dir, type,
		options);
}

/* A hierarchy for each of four controllers, and the mount table. */
static void tree_v1(void)
{
	static const char *const controllers[] = {"memory", "pids", "cpu", "cpuset"};
	FILE *f = fopen(table, "we");

	for (unsigned i = 0; i < ARRAY_SIZE(controllers); i++) {
		char file[64];

		make_dir(controllers[i]);
		snprintf(file, sizeof(file), "%s/cgroup.procs", controllers[i]);
		put(file, "1\n");
		mount_line(f, controllers[i], "cgroup", controllers[i]);
	}
	put("cpuset/cpuset.cpus", "0-3\n");
	put("cpuset/cpuset.mems", "0\n");
	fclose(f);
}

static void tree_v2(void)
{
	FILE *f = fopen(table, "we");

	put("cgroup.procs", "1\n");
	put("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
	put("cgroup.subtree_control", "");
	mount_line(f, ".", "cgroup2", "nsdelegate");
	fclose(f);
}

static int setup(void **state)
{
	char *dir = tmpdir_make();

	snprintf(root, sizeof(root), "%s", dir);
	snprintf(table, sizeof(table), "%s.mounts", dir);
	put_at(AT_FDCWD, table, "");
	calls_left = 0;
	*state = dir;
	return 0;
}

static int teardown(void **state)
{
	tmpdir_remove((char *)*state);
	unlink(table);
	free(*state);
	return 0;
}

static struct cgroup_limits limits_of(const char *const *text, unsigned n)
{
	struct cgroup_limits l = {0};
	struct err e = {0};

	for (unsigned i = 0; i < n; i++)
		if (cgroup_parse(text[i], &l, &e))
			fail_msg("%s", e.msg);
	return l;
}

#define LIMITS(...)                                                                                \
	limits_of((const char *const[]){__VA_ARGS__},                                              \
		ARRAY_SIZE(((const char *const[]){__VA_ARGS__})))

static void test_parse(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M", "pids.max=64", "cpu.max=50000 100000",
		"cpuset.cpus=0-3", "hugetlb.2MB.max=0", "memory.max=max", "io.max=8:0 rbps=1");

	assert_int_equal(l.n, 6);
	assert_string_equal(l.v[0].file, "memory.max");
	assert_string_equal(l.v[0].value, "max"); /* the last word, in the first place */
	assert_string_equal(l.v[2].value, "50000 100000");
	assert_string_equal(l.v[5].value, "8:0 rbps=1");
}

static void test_parse_hostile(void **state)
{
	static const char *const bad[] = {"", "=", "memory.max", "memory.max=", "=1", ".=1", "a=1",
		"tasks=1", ".max=1", "memory.=1", "cgroup.procs=1", "cgroup.kill=1",
		"memory..max=1", "../memory.max=1", "memory.max/../../x=1", "memory/x.max=1",
		"/memory.max=1", "memory. max=1", "memory.max\n=1", "memory.max=1\n2",
		"memory.max=\x7f", "release_agent=/bin/sh", "m\xc3\xa9m.max=1",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b=1"};
	struct cgroup_limits l = {0};
	char text[2000], file[32];
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		e.code = 0;
		if (cgroup_parse(bad[i], &l, &e) != -EINVAL || e.code != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
	}
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	memcpy(text, "a.b=", 4);
	assert_int_equal(cgroup_parse(text, &l, &e), -EINVAL);
	text[4 + CGROUP_VALUE_MAX] = 0;
	assert_int_equal(l.n, 0);
	assert_int_equal(cgroup_parse(text, &l, &e), 0);
	for (unsigned i = 1; i < CGROUP_LIMITS_MAX; i++) {
		snprintf(file, sizeof(file), "c%u.max=1", i);
		assert_int_equal(cgroup_parse(file, &l, &e), 0);
	}
	assert_int_equal(cgroup_parse("more.max=1", &l, &e), -E2BIG);
	cgroup_default_limits(1, 1, &l); /* has its room nevertheless */
	assert_int_equal(l.n, CGROUP_LIMITS_MAX + 2);
}

static void test_parents(void **state)
{
	static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.b",
		"a b", "a\nb",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	const struct cgroup_limits none = {0};
	struct cgroup g;
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct cgroup_names names;

		if (cgroup_check_parent(bad[i], &e) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		assert_int_equal(cgroup_create(&host, bad[i], "web", &none, &g, &e), -EINVAL);
		assert_int_equal(cgroup_leftovers(&host, bad[i], &names, &e), -EINVAL);
		assert_int_equal(cgroup_remove_leftover(&host, "kelvin", bad[i], &e), -EINVAL);
		assert_int_equal(cgroup_create(&host, "kelvin", bad[i], &none, &g, &e), -EINVAL);
	}
	assert_int_equal(cgroup_check_parent("a", &e), 0);
	assert_int_equal(cgroup_check_parent("system.slice/kelvin.service/vm", &e), 0);
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &none, &g, &e), 0);
	assert_int_equal(cgroup_fd(&g), -1);
	assert_int_equal(cgroup_join(&g, &e), 0);
	assert_int_equal(cgroup_remove(&g, &e), 0);
}

static void test_defaults(void **state)
{
	struct cgroup_limits l = {0};
	struct cgroup_limits set = LIMITS("memory.limit_in_bytes=1G", "pids.max=7");

	cgroup_default_limits(128ull << 20, 2, &l);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.v[0].file, "memory.max");
	assert_true(strtoull(l.v[0].value, NULL, 10) > 128ull << 20);
	assert_string_equal(l.v[1].file, "pids.max");
	assert_true(strtoull(l.v[1].value, NULL, 10) > 2);
	cgroup_default_limits(128ull << 20, 2, &set);
	assert_int_equal(set.n, 2);
}

static void test_v1(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M", "pids.max=64", "cpu.max=50000 100000",
		"cpuset.cpus=1");
	unsigned fds = fd_count();
	struct cgroup g;
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin/vms", "web", &l, &g, &e), 0);
	assert_int_equal(cgroup_fd(&g), -1);
	expect("memory/kelvin/vms/web/memory.limit_in_bytes", "200M");
	expect("pids/kelvin/vms/web/pids.max", "64");
	expect("cpu/kelvin/vms/web/cpu.cfs_quota_us", "50000");
	expect("cpu/kelvin/vms/web/cpu.cfs_period_us", "100000");
	expect("cpuset/kelvin/cpuset.cpus", "0-3\n");
	expect("cpuset/kelvin/vms/cpuset.mems", "0\n");
	expect("cpuset/kelvin/vms/web/cpuset.cpus", "1");
	expect("cpuset/kelvin/vms/web/cpuset.mems", "0\n");
	assert_int_equal(cgroup_join(&g, &e), 0);
	expect("memory/kelvin/vms/web/tasks", "0");
	expect("cpuset/kelvin/vms/web/tasks", "0");
	assert_int_equal(cgroup_remove(&g, &e), 0);
	assert_false(is_there("memory/kelvin/vms/web"));
	assert_false(is_there("cpuset/kelvin/vms/web"));
	assert_true(is_there("cpuset/kelvin/vms"));
	assert_int_equal(fd_count(), fds);
}

static void test_swap(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M"), own = LIMITS("memory.swap.max=1G");
	struct cgroup g;
	struct err e;

	cgroup_default_limits(1, 1, &l);
	cgroup_default_limits(1, 1, &own);
	assert_true(l.no_swap && !own.no_swap);
	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("memory/kelvin/web/memory.memsw.limit_in_bytes", "200M");
	assert_int_equal(cgroup_remove(&g, &e), 0);
}

static void test_swap_v2(void **state)
{
	struct cgroup_limits l = {0};
	struct cgroup g;
	struct err e;

	cgroup_default_limits(1, 1, &l);
	tree_v2();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("kelvin/web/memory.swap.max", "0");
	assert_int_equal(cgroup_remove(&g, &e), 0);
}

/* v2's words for "none", and a quota without a period. */
static void test_v1_max(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=max", "pids.max=max", "cpu.max=max");
	struct cgroup g;
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("memory/kelvin/web/memory.limit_in_bytes", "-1");
	expect("pids/kelvin/web/pids.max", "max");
	expect("cpu/kelvin/web/cpu.cfs_quota_us", "-1");
	expect("cpu/kelvin/web/cpu.cfs_period_us", "");
	cgroup_close(&g);
	cgroup_close(&g);
	assert_true(is_there("cpu/kelvin/web"));
}

/* cpu and cpuacct in one hierarchy, by two names. */
static void test_v1_together(void **state)
{
	struct cgroup_limits l = LIMITS("cpu.max=5000", "cpuacct.stat=0", "cpuacct.usage=0");
	struct cgroup g;
	struct err e;
	char link[PATH_MAX];

	tree_v1();
	snprintf(link, sizeof(link), "%s/cpuacct", root);
	assert_int_equal(symlink("cpu", link), 0);
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -ENOENT);
	assert_string_equal(e.msg, "cgroup cpuacct (v1) has no file cpuacct.usage here");
	assert_false(is_there("cpu/kelvin/web")); /* undone */
	l.n = 2;
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("cpu/kelvin/web/cpu.cfs_quota_us", "5000");
	expect("cpu/kelvin/web/cpuacct.stat", "0");
	assert_int_equal(cgroup_remove(&g, &e), 0);
}

static void test_v2(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M", "pids.max=64", "cpu.max=50000 100000");
	unsigned fds = fd_count();
	struct stat fd_st, dir_st;
	char path[PATH_MAX];
	struct cgroup g;
	struct err e;

	tree_v2();
	assert_int_equal(cgroup_create(&host, "a/b", "web", &l, &g, &e), 0);
	expect("a/b/web/memory.max", "200M");
	expect("a/b/web/pids.max", "64");
	expect("a/b/web/cpu.max", "50000 100000");
	expect("a/cgroup.subtree_control", "+cpu"); /* the last that was written */
	expect("a/b/cgroup.subtree_control", "+cpu");
	expect("cgroup.subtree_control", "+cpu");
	expect("a/b/web/cgroup.subtree_control", "");
	assert_int_equal(fstat(cgroup_fd(&g), &fd_st), 0);
	snprintf(path, sizeof(path), "%s/a/b/web", root);
	assert_int_equal(stat(path, &dir_st), 0);
	assert_int_equal(fd_st.st_ino, dir_st.st_ino);
	assert_int_equal(cgroup_remove(&g, &e), 0);
	assert_int_equal(cgroup_fd(&g), -1);
	assert_false(is_there("a/b/web"));
	assert_int_equal(fd_count(), fds);
}

/* What is on already is not written again. */
static void test_v2_enabled(void **state)
{
	struct cgroup_limits l = LIMITS("pids.max=64");
	struct cgroup g;
	struct err e;

	tree_v2();
	assert_int_equal(cgroup_create(&host, "a", "one", &l, &g, &e), 0);
	cgroup_close(&g);
	put("cgroup.subtree_control", "");
	put("a/cgroup.subtree_control", "memory pids\n");
	assert_int_equal(cgroup_create(&host, "a", "two", &l, &g, &e), 0);
	cgroup_close(&g);
	expect("cgroup.subtree_control", "");
	expect("a/cgroup.subtree_control", "memory pids\n");
}

/* Without limits: into a group that somebody else made; v1 has no such thing. */
static void test_join_parent(void **state)
{
	unsigned fds = fd_count();
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_join_parent(&host, "a", &e), 0);
	tree_v2();
	assert_int_equal(cgroup_join_parent(&host, "a", &e), -ENOENT);
	assert_string_equal(e.msg, "cannot enter the cgroup a: No such file or directory");
	assert_int_equal(cgroup_join_parent(&host, "../a", &e), -EINVAL);
	make_dir("a");
	put("a/cgroup.procs", "");
	assert_int_equal(cgroup_join_parent(&host, "a", &e), 0);
	expect("a/cgroup.procs", "0");
	assert_int_equal(fd_count(), fds);
}

/* memory on v1, pids on a v2 beside it. */
static void test_hybrid(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M", "hugetlb.max=1", "io.max=5");
	struct cgroup g;
	struct err e;

	tree_v1();
	make_dir("unified");
	put("unified/cgroup.controllers", "hugetlb\n");
	put("unified/cgroup.subtree_control", "");
	l.n = 2;
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -ENOENT);
	assert_string_equal(e.msg, "cgroup hugetlb (v2) has no file hugetlb.max here");
	assert_false(is_there("memory/kelvin/web"));
	assert_true(is_there("unified/kelvin"));
	expect("unified/kelvin/cgroup.subtree_control", "+hugetlb");
	l.n = 3;
	memmove(&l.v[1], &l.v[2], sizeof(l.v[1]));
	l.n = 2;
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "cgroup controller io is not mounted"));
	assert_false(is_there("memory/kelvin/web"));
}

/* Not where distributions mount them: the table tells, spaces and all. */
static void test_mounted_elsewhere(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1", "pids.max=1");
	struct cgroup g;
	struct err e;
	FILE *f = fopen(table, "we");

	make_dir("far away");
	make_dir("second");
	put("second/cgroup.controllers", "pids\n");
	put("second/cgroup.subtree_control", "");
	fprintf(f, "garbage\n1 2 3 - cgroup\n - \n1 2 0:1 / /nowhere rw - cgroup cgroup rw,memory\n");
	mount_line(f, "far\\040away", "cgroup", "cpu,memory");
	mount_line(f, "second", "cgroup2", "");
	fclose(f);
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("far away/kelvin/web/memory.limit_in_bytes", "1");
	expect("second/kelvin/web/pids.max", "1");
	assert_int_equal(cgroup_remove(&g, &e), 0);
	assert_false(is_there("far away/kelvin/web"));
}

/* J08: no cgroups at all, read-only, no permission, refused; each one line, nothing left. */
static void test_errors(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=200M");
	static const struct {
		int errnum;
		const char *text;
	} mkdir_errors[] = {
		{EROFS, "cannot make the cgroup kelvin for memory (cgroups are mounted read-only "
			"here: in a container?): Read-only file system"},
		{EACCES, "cannot make the cgroup kelvin for memory (wanted: root, or a parent that "
			 "was delegated to this user): Permission denied"},
	};
	struct cgroup g;
	struct err e;

	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "cgroup controller memory is not mounted"));
	make_dir("memory"); /* a directory, but no cgroup */
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -ENOENT);
	assert_false(is_there("memory/kelvin"));
	put("memory/cgroup.procs", "");
	for (unsigned i = 0; i < ARRAY_SIZE(mkdir_errors); i++) {
		calls_left = 7; /* root, no v2, memory, procs, no parent, ".", mkdir */
		fail_with = mkdir_errors[i].errnum;
		assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e),
			-mkdir_errors[i].errnum);
		assert_string_equal(e.msg, mkdir_errors[i].text);
	}
	calls_left = 12; /* the write */
	fail_with = EINVAL;
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), -EINVAL);
	assert_string_equal(e.msg, "the kernel refuses the cgroup limit "
		"memory.max=200M: Invalid argument");
	assert_false(is_there("memory/kelvin/web"));
}

/* Every system call fails once: no group is left, no descriptor either, and it says why. */
static void sweep(const char *group)
{
	struct cgroup_limits l = LIMITS("memory.max=1", "pids.max=2", "cpuset.cpus=0");
	unsigned fds = fd_count(), n = 1, failed = 0;
	struct cgroup g;
	struct err e;

	for (;; n++) {
		e.msg[0] = 0;
		calls_left = n;
		fail_with = EIO;
		if (cgroup_create(&host, "kelvin", "web", &l, &g, &e) == 0) {
			bool all = calls_left;

			calls_left = 0;
			assert_int_equal(cgroup_remove(&g, &e), 0);
			if (all)
				break;
		} else {
			failed++;
			assert_true(e.msg[0] && strlen(e.msg) < 200);
		}
		calls_left = 0;
		assert_false(is_there(group));
		assert_int_equal(fd_count(), fds);
	}
	assert_true(failed > 10);
}

static void test_faults_v1(void **state)
{
	tree_v1();
	sweep("memory/kelvin/web");
	assert_false(is_there("pids/kelvin/web"));
	assert_false(is_there("cpuset/kelvin/web"));
}

static void test_faults_v2(void **state)
{
	tree_v2();
	sweep("kelvin/web");
}

static void test_exists(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1", "pids.max=1");
	struct cgroup g, again;
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	cgroup_close(&g);
	put("memory/kelvin/web/memory.limit_in_bytes", "old");
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	expect("memory/kelvin/web/memory.limit_in_bytes", "1");
	put("pids/kelvin/web/cgroup.procs", "12\n");
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &again, &e), -EEXIST);
	assert_string_equal(e.msg,
		"the cgroup kelvin/web exists for pids, with processes in it");
	cgroup_close(&g);
}

/* Names without processes anywhere; one of whose groups was removed already counts, too. */
static void test_leftovers(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1", "pids.max=1");
	static const char *const names[] = {"dead", "alive", "half"};
	struct cgroup_names left;
	unsigned fds = fd_count();
	struct cgroup g;
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_leftovers(&host, "kelvin", &left, &e), 0);
	assert_int_equal(left.n, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(cgroup_create(&host, "kelvin", names[i], &l, &g, &e), 0);
		cgroup_close(&g);
	}
	put("pids/kelvin/alive/cgroup.procs", "5\n");
	assert_int_equal(cgroup_leftovers(&host, "kelvin", &left, &e), 0);
	assert_int_equal(left.n, 2);
	for (unsigned i = 0; i < left.n; i++) {
		assert_string_not_equal(left.v[i], "alive");
		assert_int_equal(cgroup_remove_leftover(&host, "kelvin", left.v[i], &e), 0);
		assert_int_equal(cgroup_remove_leftover(&host, "kelvin", left.v[i], &e), 0);
	}
	free(left.v);
	assert_false(is_there("memory/kelvin/dead") || is_there("pids/kelvin/half"));
	assert_int_equal(cgroup_remove_leftover(&host, "kelvin", "alive", &e), -EBUSY);
	assert_true(is_there("pids/kelvin/alive"));
	assert_int_equal(fd_count(), fds);
}

/* One that lives in the group and one that was killed there; removal kills what is left. */
static void test_v1_kill(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1");
	struct cgroup g;
	struct err e;
	char procs[32];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	snprintf(procs, sizeof(procs), "0\n%d\n", (int)pid);
	put("memory/kelvin/web/cgroup.procs", procs);
	assert_int_equal(cgroup_remove(&g, &e), -EBUSY); /* the file still names it */
	assert_string_equal(e.msg,
		"cannot remove the cgroup web for memory: Device or resource busy");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_v2_kill(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1");
	struct cgroup g;
	struct err e;

	tree_v2();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	put("kelvin/web/cgroup.procs", "1\n"); /* not killed one by one */
	assert_int_equal(cgroup_remove(&g, &e), -EBUSY);
	expect("kelvin/web/cgroup.kill", "1");
}

static void test_ran_out(void **state)
{
	struct cgroup_limits l = LIMITS("pids.max=7", "memory.max=1"), none = {0};
	struct cgroup g;
	struct err e;

	tree_v1();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	assert_false(cgroup_ran_out(&g)); /* no such file in an old kernel */
	put("memory/kelvin/web/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
	assert_false(cgroup_ran_out(&g));
	put("memory/kelvin/web/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
	assert_true(cgroup_ran_out(&g));
	cgroup_close(&g);
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &none, &g, &e), 0);
	assert_false(cgroup_ran_out(&g));
}

static void test_ran_out_v2(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=1");
	struct cgroup g;
	struct err e;

	tree_v2();
	assert_int_equal(cgroup_create(&host, "kelvin", "web", &l, &g, &e), 0);
	put("kelvin/web/memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 0\n");
	assert_false(cgroup_ran_out(&g));
	put("kelvin/web/memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n");
	assert_true(cgroup_ran_out(&g));
	cgroup_close(&g);
}

static u64 now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000 + (u64)t.tv_nsec / 1000;
}

/* In the kernel's own: the limit holds, a joined process is in it, it goes away with its process. */
static void test_real(void **state)
{
	struct cgroup_limits l = LIMITS("memory.max=64M", "pids.max=3");
	char name[32];
	struct cgroup_names left;
	struct cgroup g;
	struct err e;
	int status, forks = 0;
	u64 begin = now_us(), made, joined;
	pid_t pid;

	snprintf(name, sizeof(name), "test-%d", (int)getpid());
	if (cgroup_create(&cgroup_host_real, "kelvin-test", name, &l, &g, &e)) {
		print_message("skipped: %s\n", e.msg);
		skip();
	}
	made = now_us();
	pid = fork();
	if (pid == 0) {
		begin = now_us();
		if (cgroup_join(&g, &e))
			_exit(100);
		joined = now_us();
		fprintf(stderr, "joined in %d us\n", (int)(joined - begin));
		while (forks < 10 && (pid = fork()) > 0)
			forks++;
		if (pid != 0)
			_exit(forks);
		pause();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 2); /* itself is the third */
	print_message("made in %d us\n", (int)(made - begin));
	assert_int_equal(cgroup_leftovers(&cgroup_host_real, "kelvin-test", &left, &e), 0);
	for (unsigned i = 0; i < left.n; i++)
		assert_string_not_equal(left.v[i], name); /* its children live */
	free(left.v);
	assert_int_equal(cgroup_remove(&g, &e), 0);    /* and die */
	assert_int_equal(cgroup_remove_leftover(&cgroup_host_real, "kelvin-test", name, &e), 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	rmdir("/sys/fs/cgroup/memory/kelvin-test");
	rmdir("/sys/fs/cgroup/pids/kelvin-test");
	rmdir("/sys/fs/cgroup/kelvin-test");
}

/* Born in a group of v2: hugetlb is the controller that hosts with v1 have there, too. */
static void test_real_v2(void **state)
{
	struct cgroup_limits l = LIMITS("hugetlb.2MB.max=0");
	char name[32], line[64];
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD};
	struct cgroup g;
	struct err e;
	int status;
	pid_t pid;

	snprintf(name, sizeof(name), "test-%d", (int)getpid());
	snprintf(line, sizeof(line), "0::/kelvin-test/%s\n", name);
	if (cgroup_create(&cgroup_host_real, "kelvin-test", name, &l, &g, &e)) {
		print_message("skipped: %s\n", e.msg);
		skip();
	}
	if (cgroup_fd(&g) < 0) {
		assert_int_equal(cgroup_remove(&g, &e), 0);
		skip();
	}
	args.cgroup = (u64)cgroup_fd(&g);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	assert_true(pid >= 0);
	if (pid == 0) {
		char text[4096];
		ssize_t len = read(open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC), text,
			sizeof(text));

		if (len > 0 && memmem(text, (size_t)len, line, strlen(line)))
			pause();
		_exit(1);
	}
	assert_int_equal(cgroup_remove_leftover(&cgroup_host_real, "kelvin-test", name, &e), -EBUSY);
	usleep(50000); /* for it to look */
	assert_int_equal(cgroup_remove(&g, &e), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	rmdir("/sys/fs/cgroup/unified/kelvin-test");
	rmdir("/sys/fs/cgroup/kelvin-test");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_parse),
		CASE(test_parse_hostile),
		CASE(test_parents),
		CASE(test_defaults),
		CASE(test_swap),
		CASE(test_swap_v2),
		CASE(test_v1),
		CASE(test_v1_max),
		CASE(test_v1_together),
		CASE(test_v2),
		CASE(test_v2_enabled),
		CASE(test_join_parent),
		CASE(test_hybrid),
		CASE(test_mounted_elsewhere),
		CASE(test_errors),
		CASE(test_faults_v1),
		CASE(test_faults_v2),
		CASE(test_exists),
		CASE(test_leftovers),
		CASE(test_v1_kill),
		CASE(test_v2_kill),
		CASE(test_ran_out),
		CASE(test_ran_out_v2),
		CASE(test_real),
		CASE(test_real_v2),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
