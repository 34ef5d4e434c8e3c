/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_snapshot_fault.c - D01, D02: whatever system call fails, or is the last of the process, the
 * name means the old snapshot, the new one, or nothing where there was nothing; all of it whole.
 *
 * The fake counts the calls of a whole snapshot, those of the directory's maker and those of the
 * writer, and spoils the k-th, the k-th and the one after it, or all from the k-th on, for each k
 * until a run makes fewer calls than that. Syncs that
 * are not spoiled do nothing, so that the sweep takes no time.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/lib/snap_fix.h"
#include "tests/lib/tmpdir.h"

#define KILLED 77

enum what { FAIL, SHORT_WRITE, KILL, INTRUDE };

static struct {
	enum what what;
	int errnum;    /* 0: the call is made all the same */
	unsigned at;   /* 0: nothing fails */
	unsigned last; /* all from @at to here are spoiled */
	unsigned calls;
	bool once;     /* a call was spoiled that nobody may repeat */
	bool promise;  /* a call was spoiled without which success must not be said */
	const char *dir;
	ino_t synced[16]; /* what was, in this order */
	unsigned sync_count;
	bool renamed; /* what comes now is the way back */
	bool no_rename_flags;
	int flock_errnum;
} fake;

static bool in_range(void)
{
	return fake.at && fake.calls >= fake.at && fake.calls <= fake.last;
}

/* Another writer of the same name comes, sweeps what it takes for dead, and goes. */
static void intrude(void)
{
	struct snap_pair p;
	struct err e = {0};

	if (snap_pair_begin(&p, &sys_host, fake.dir, true, &e))
		fail_msg("%s", e.msg);
	snap_pair_abort(&p);
}

/* Whether this call is to fail; errno is set then. */
static bool spoiled(void)
{
	fake.calls++;
	if (!in_range() || fake.what == SHORT_WRITE)
		return false;
	if (fake.what == KILL)
		_exit(KILLED);
	if (fake.what == INTRUDE)
		intrude();
	errno = fake.errnum;
	return errno != 0;
}

static int fake_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return spoiled() ? -1 : sys_host.openat(dirfd, path, flags, mode);
}

static int fake_mkdirat(int dirfd, const char *path, mode_t mode)
{
	return spoiled() ? -1 : mkdirat(dirfd, path, mode);
}

static int fake_unlinkat(int dirfd, const char *path, int flags)
{
	return spoiled() ? -1 : unlinkat(dirfd, path, flags);
}

static bool is_synced(int dir_fd, const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(dir_fd, name, &st, AT_EMPTY_PATH), 0);
	for (unsigned i = 0; i < fake.sync_count; i++)
		if (fake.synced[i] == st.st_ino)
			return true;
	return false;
}

static int fake_renameat2(int olddir, const char *old, int newdir, const char *new, unsigned flags)
{
	char path[300];

	if (spoiled())
		return -1;
	/* D03: all of it is on stable storage before it has the name. */
	if (!fake.renamed) {
		assert_true(is_synced(olddir, old));
		snprintf(path, sizeof(path), "%s/" SNAP_STATE_FILE, old);
		assert_true(is_synced(olddir, path));
		snprintf(path, sizeof(path), "%s/" SNAP_MEMORY_FILE, old);
		assert_true(is_synced(olddir, path));
		snprintf(path, sizeof(path), "%s/" SNAP_HOST_FILE, old);
		assert_true(is_synced(olddir, path));
	}
	if (fake.no_rename_flags && flags) {
		errno = EINVAL;
		return -1;
	}
	fake.renamed = true;
	return renameat2(olddir, old, newdir, new, flags);
}

static ssize_t fake_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (spoiled())
		return -1;
	if (fake.what == SHORT_WRITE && in_range())
		len = (len + 1) / 2;
	return pwrite(fd, buf, len, off);
}

static ssize_t fake_pread(int fd, void *buf, size_t len, off_t off)
{
	return spoiled() ? -1 : pread(fd, buf, len, off);
}

static int fake_ftruncate(int fd, off_t len)
{
	return spoiled() ? -1 : ftruncate(fd, len);
}

static int fake_sync(int fd)
{
	struct stat st;

	if (!spoiled()) {
		assert_int_equal(fstat(fd, &st), 0);
		fake.synced[fake.sync_count++ % ARRAY_SIZE(fake.synced)] = st.st_ino;
		return 0;
	}
	fake.once = true;
	fake.promise = true;
	return -1;
}

static int fake_fstat(int fd, struct stat *st)
{
	if (!spoiled())
		return fstat(fd, st);
	fake.once = true;
	return -1;
}

static int fake_flock(int fd, int op)
{
	if (spoiled())
		return -1;
	if (fake.flock_errnum) {
		errno = fake.flock_errnum;
		return -1;
	}
	return sys_host.flock(fd, op);
}

/* The kernel closes the descriptor even when it reports an error. */
static int fake_close(int fd)
{
	bool written = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;

	close(fd);
	if (!spoiled())
		return 0;
	fake.once = true;
	fake.promise |= written;
	return -1;
}

static const struct sys_ops fake_sys = {
	.openat = fake_openat,
	.mkdirat = fake_mkdirat,
	.unlinkat = fake_unlinkat,
	.renameat2 = fake_renameat2,
	.pwrite = fake_pwrite,
	.pread = fake_pread,
	.ftruncate = fake_ftruncate,
	.fdatasync = fake_sync,
	.fsync = fake_sync,
	.fstat = fake_fstat,
	.flock = fake_flock,
	.close = fake_close,
};

static struct mem *old_mem, *new_mem;

static int group_setup(void **state)
{
	struct err e = {0};

	/* Thousands of small files: in memory, where there is such a place. */
	if (!access("/dev/shm", W_OK))
		setenv("TMPDIR", "/dev/shm", 0);
	assert_int_equal(mem_create(&old_mem, SNAP_FIX_SIZE, MEM_ANON, &e), 0);
	assert_int_equal(mem_create(&new_mem, SNAP_FIX_SIZE, MEM_ANON, &e), 0);
	snap_fix_fill(old_mem, 1);
	snap_fix_fill(new_mem, 100);
	return 0;
}

static int group_teardown(void **state)
{
	mem_destroy(&old_mem);
	mem_destroy(&new_mem);
	return 0;
}

static int save(const char *dir, const struct mem *m, bool force, struct err *e)
{
	struct snap_pair p;
	int r;

	fake.sync_count = 0;
	fake.renamed = false;
	r = snap_pair_begin(&p, &fake_sys, dir, force, e);
	if (r)
		return r;
	r = snap_add(p.w, "vm", 1, "content", 7, e);
	if (!r)
		r = snap_add_memory(p.w, m, NULL, NULL, e);
	if (!r)
		return snap_pair_commit(&p, e);
	snap_pair_abort(&p);
	return r;
}

/* What the name means now: the RAM of a whole snapshot, or NULL where there is none. */
static const struct mem *meaning(const char *dir)
{
	const struct snap_section *sec;
	struct err e = {0};
	struct snap *s;
	u8 first;

	if (access(dir, F_OK))
		return NULL;
	if (snap_open(&s, dir, &e))
		fail_msg("%s", e.msg);
	if (snap_verify(s, NULL, NULL, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(snap_find(s, "vm", &sec, &e), 0);
	assert_int_equal(pread(snap_mem_fd(s), &first, 1, 0), 1);
	snap_fix_same(s, first == 1 ? old_mem : new_mem);
	snap_close(&s);
	return first == 1 ? old_mem : new_mem;
}

/* A directory with the old snapshot in it, if there is to be one. */
static char *prepare(char *dir, size_t cap, bool had_old)
{
	char *top = tmpdir_make();
	struct err e = {0};

	snprintf(dir, cap, "%s/snap", top);
	fake.dir = dir;
	fake.at = 0;
	if (had_old && save(dir, old_mem, false, &e))
		fail_msg("%s", e.msg);
	return top;
}

/* The next writer sweeps what is left of the one before it. */
static void check_swept(const char *top, const char *dir)
{
	struct snap_pair p;
	struct err e = {0};

	fake.at = 0;
	if (snap_pair_begin(&p, &fake_sys, dir, true, &e))
		fail_msg("%s", e.msg);
	snap_pair_abort(&p);
	assert_int_equal(dir_count(top, "."), 0);
}

static ino_t inode_of(const char *dir, const char *name)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static void check_result(const char *dir, int r, bool had_old, const struct err *e)
{
	const struct mem *is = meaning(dir);

	if (!r) {
		assert_ptr_equal(is, new_mem);
		assert_false(fake.promise);
		/* The name last of all. */
		assert_int_equal(fake.sync_count, 5);
		assert_int_equal(fake.synced[4], inode_of(dir, ".."));
		return;
	}
	assert_non_null(strstr(e->msg, dir));
	assert_int_equal(e->code, r);
	/* When the way back fails too, the new one may have to stay: whole, as meaning() saw. */
	if (fake.last == fake.at || is != new_mem)
		assert_ptr_equal(is, had_old ? old_mem : NULL);
	/* These alone are no reason to fail. */
	assert_true(fake.what != SHORT_WRITE);
	assert_true(fake.errnum != EINTR || fake.once);
	assert_true(fake.errnum != 0);
}

/* Spoils call after call of a save, @burst of them at a time; returns how many calls there are. */
static unsigned sweep(enum what what, int errnum, unsigned burst, bool had_old)
{
	unsigned failed = 0;

	for (unsigned k = 1;; k++) {
		unsigned fds = fd_count(), calls;
		struct err e = {0};
		char dir[256];
		char *top = prepare(dir, sizeof(dir), had_old);
		int r;

		fake.what = what;
		fake.errnum = errnum;
		fake.once = false;
		fake.promise = false;
		fake.calls = 0;
		fake.at = k;
		fake.last = burst < UINT_MAX ? k + burst - 1 : UINT_MAX;
		r = save(dir, new_mem, had_old, &e);
		calls = fake.calls;
		failed += r != 0;
		check_result(dir, r, had_old, &e);
		assert_int_equal(fd_count(), fds);
		check_swept(top, dir);
		tmpdir_remove(top);
		free(top);
		if (calls < k) { /* all went well, the whole way */
			assert_int_equal(r, 0);
			assert_int_equal(failed > 0, errnum != 0);
			return calls;
		}
	}
}

static void both_sweeps(enum what what, int errnum, unsigned burst)
{
	assert_true(sweep(what, errnum, burst, false) > 20);
	assert_true(sweep(what, errnum, burst, true) > 35);
}

static void test_d01_eio(void **state)
{
	both_sweeps(FAIL, EIO, 1);
	both_sweeps(FAIL, EIO, 2);
	both_sweeps(FAIL, EIO, UINT_MAX);
}

static void test_d01_enospc(void **state)
{
	both_sweeps(FAIL, ENOSPC, 1);
	both_sweeps(FAIL, ENOSPC, UINT_MAX);
}

static void test_d01_eintr(void **state)
{
	both_sweeps(FAIL, EINTR, 1);
	both_sweeps(FAIL, EINTR, 2);
}

static void test_d01_short_write(void **state)
{
	both_sweeps(SHORT_WRITE, 0, 1);
	both_sweeps(SHORT_WRITE, 0, UINT_MAX);
}

/* Another writer's sweep, before any call: it takes nothing that is still needed. */
static void test_d05_swept_at_every_call(void **state)
{
	both_sweeps(INTRUDE, 0, 1);
	both_sweeps(INTRUDE, EIO, 1);
}

static void kill_sweep(bool had_old)
{
	bool seen_old = false, seen_new = false;

	for (unsigned k = 1;; k++) {
		char dir[256];
		char *top = prepare(dir, sizeof(dir), had_old);
		const struct mem *is;
		struct err e = {0};
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid) {
			fake.what = KILL;
			fake.calls = 0;
			fake.at = fake.last = k;
			_exit(save(dir, new_mem, had_old, &e) ? 1 : 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		is = meaning(dir);
		assert_true(is == new_mem || is == (had_old ? old_mem : NULL));
		seen_new |= is == new_mem;
		seen_old |= is != new_mem;
		/* Once it has the name it keeps it. */
		assert_true(!seen_new || is == new_mem);
		check_swept(top, dir);
		tmpdir_remove(top);
		free(top);
		if (WEXITSTATUS(status) != KILLED) {
			assert_int_equal(WEXITSTATUS(status), 0);
			break;
		}
	}
	assert_true(seen_old && seen_new);
}

static void test_d02_killed_at_every_call(void **state)
{
	kill_sweep(false);
	kill_sweep(true);
}

static void test_no_rename_flags(void **state)
{
	struct err e = {0};
	char dir[256];
	char *top;

	fake.no_rename_flags = true;
	top = prepare(dir, sizeof(dir), false);
	assert_int_equal(save(dir, old_mem, false, &e), 0);
	assert_ptr_equal(meaning(dir), old_mem);
	/* No way to replace it in one step: say so and leave it. */
	assert_int_equal(save(dir, new_mem, true, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.msg, "remove the old snapshot first"));
	assert_ptr_equal(meaning(dir), old_mem);
	assert_int_equal(dir_count(top, "."), 0);
	fake.no_rename_flags = false;
	tmpdir_remove(top);
	free(top);
}

static void test_no_file_locks(void **state)
{
	const int errnum[] = {EBADF, ENOLCK, EOPNOTSUPP};

	for (size_t i = 0; i < ARRAY_SIZE(errnum); i++) {
		struct err e = {0};
		char dir[256];
		char *top;

		fake.flock_errnum = errnum[i];
		top = prepare(dir, sizeof(dir), true);
		assert_int_equal(save(dir, new_mem, true, &e), 0);
		assert_ptr_equal(meaning(dir), new_mem);
		assert_int_equal(dir_count(top, "."), 0);
		tmpdir_remove(top);
		free(top);
	}
	fake.flock_errnum = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_d01_eio),
		cmocka_unit_test(test_d01_enospc),
		cmocka_unit_test(test_d01_eintr),
		cmocka_unit_test(test_d01_short_write),
		cmocka_unit_test(test_d05_swept_at_every_call),
		cmocka_unit_test(test_d02_killed_at_every_call),
		cmocka_unit_test(test_no_rename_flags),
		cmocka_unit_test(test_no_file_locks),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
