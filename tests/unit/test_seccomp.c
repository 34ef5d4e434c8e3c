/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_seccomp.c - the filters, call by call, against the table they were made from: what a thread
 * has no business with kills the process, whatever it is; pinned arguments too.
 *
 * Each call is made in a child of its own, which takes the filter first. An allowed call is made
 * only where its arguments are pinned, and then with one that is not: that is what must kill.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jailer/jailer_int.h"

#define NR_MAX      450u /* calls that are tried: all there are up to Linux 6.5 */
#define CALLS_MAX   60u  /* what a thread may have at most; a vCPU thread fewer */
#define VCPU_MAX    15u
#define NOT_PINNED  0x5eaf00d7u /* has every bit that a mask of ours looks at, and no request has it */
#define X32_BIT     0x40000000u

_Noreturn void __chk_fail(void); /* glibc's, which fortified code calls */

enum kind { CALL, ONLY, FAIL };

struct row {
	enum kind kind;
	unsigned nr;
	const char *name;
	unsigned threads, arg;
	struct filter_test test;
	int errnum;
};

static const struct row rows[] = {
#define CALL(n, t, why) {.kind = CALL, .nr = SYS_##n, .name = #n, .threads = t},
#define ONLY(n, t, a, c, why)                                                                      \
	{.kind = ONLY, .nr = SYS_##n, .name = #n, .threads = t, .arg = a, .test = c},
#define FAIL(n, t, e, why) {.kind = FAIL, .nr = SYS_##n, .name = #n, .threads = t, .errnum = e},
#include "jailer/syscalls.def"
#undef CALL
#undef ONLY
#undef FAIL
};

static const struct {
	enum jail_thread thread;
	const char *name;
} all[] = {
	{JAIL_LOOP, "loop"},
	{JAIL_VCPU, "vcpu"},
	{JAIL_WRITER, "writer"},
	{JAIL_LOOP_NAMES, "loop_names"},
	{JAIL_WRITER_NAMES, "writer_names"},
};

/* The first row of @thread for call @nr, or NULL. */
static const struct row *find(enum jail_thread thread, unsigned nr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].nr == nr && rows[i].threads & 1u << thread)
			return &rows[i];
	return NULL;
}

/* Makes one call under a filter, in a child. Returns the child's status as waitpid() has it; where
 * the call returned, its errno is the exit status. */
static int try(enum jail_thread thread, enum jail_seccomp mode, unsigned nr, const long arg[6])
{
	struct err e;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (jail_harden(&e) || jail_filter(thread, mode, &e))
			_exit(254);
		errno = 0;
		syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
		/* Not every kind of thread may end the process in good order. */
		syscall(SYS_exit, errno);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static bool is_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

/* All that is not in the table kills; what is to fail fails, and the process lives. */
static void forbidden(enum jail_thread thread)
{
	static const long none[6];

	for (unsigned nr = 0; nr <= NR_MAX; nr++) {
		const struct row *row = find(thread, nr);
		int status;

		/* The kernel lets uretprobe and uprobe pass by all filters: they do something only in
		 * code that it wrote itself. */
		if ((row && row->kind != FAIL) || nr == 335 || nr == 336)
			continue;
		status = try(thread, JAIL_SECCOMP_ON, nr, none);
		if (!row && !is_killed(status))
			fail_msg("call %u is not killed: status 0x%x", nr, status);
		if (row && (!WIFEXITED(status) || WEXITSTATUS(status) != row->errnum))
			fail_msg("%s does not fail as it should: status 0x%x", row->name, status);
	}
}

/* A row lets @thread make call @nr with any arguments; only what sanitizers do is pinned besides. */
static bool is_open(enum jail_thread thread, unsigned nr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].nr == nr && rows[i].kind == CALL && rows[i].threads & 1u << thread)
			return true;
	return false;
}

/* A pinned argument of another value kills, and so do its upper 32 bits. */
static void pinned(enum jail_thread thread)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		long arg[6] = {-1, -1, -1, -1, -1, -1};

		if (r->kind != ONLY || !(r->threads & 1u << thread))
			continue;
#ifdef SANITIZED
		if (is_open(thread, r->nr))
			continue;
#else
		assert_false(is_open(thread, r->nr));
#endif
		arg[r->arg] = NOT_PINNED;
		if (!is_killed(try(thread, JAIL_SECCOMP_ON, r->nr, arg)))
			fail_msg("%s(... 0x%x ...) is not killed", r->name, NOT_PINNED);
		if (r->test.mask != UINT64_MAX)
			continue;
		arg[r->arg] = (long)(r->test.value | 1ull << 32);
		if (!is_killed(try(thread, JAIL_SECCOMP_ON, r->nr, arg)))
			fail_msg("%s(... 0x%lx ...) is not killed", r->name, arg[r->arg]);
	}
}

/* One test each, by enum jail_thread in *state. */
static void test_forbidden(void **state)
{
	forbidden(*(const enum jail_thread *)*state);
}

static void test_pinned(void **state)
{
	pinned(*(const enum jail_thread *)*state);
}

/* Pinned arguments with the value that is allowed get as far as the kernel. */
static void test_allowed_values_pass(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];
		long arg[6] = {-1, -1, -1, -1, -1, -1};

		/* clone would make a thread with no stack. */
		if (r->kind != ONLY || !(r->threads & LN) || r->nr == SYS_clone)
			continue;
		arg[r->arg] = (long)r->test.value;
		if (r->test.mask == UINT64_MAX && r->test.value == OWN_PID)
			continue;
		if (is_killed(try(JAIL_LOOP_NAMES, JAIL_SECCOMP_ON, r->nr, arg)))
			fail_msg("%s(... 0x%lx ...) is killed", r->name, arg[r->arg]);
	}
}

/* A process may signal its own threads, as abort() does, and nobody else's. */
static void test_signals_stay_inside(void **state)
{
	long parent[6] = {getpid(), getpid(), 0};
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		if (jail_harden(NULL) || jail_filter(JAIL_VCPU, JAIL_SECCOMP_ON, NULL))
			_exit(254);
		abort();
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_true(is_killed(try(JAIL_LOOP, JAIL_SECCOMP_ON, SYS_tgkill, parent)));
	assert_true(is_killed(try(JAIL_VCPU, JAIL_SECCOMP_ON, SYS_tgkill, parent)));
}

/* What the C library finds out about itself (a stack that was smashed, a heap) it still tells. */
static void test_last_words(void **state)
{
	static const enum jail_thread threads[] = {JAIL_LOOP, JAIL_VCPU, JAIL_WRITER};

	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
		char text[256] = "";
		int fd[2], status;
		pid_t pid;

		assert_int_equal(pipe(fd), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			dup2(fd[1], STDERR_FILENO);
			if (jail_harden(NULL) || jail_filter(threads[i], JAIL_SECCOMP_ON, NULL))
				_exit(254);
			__chk_fail();
		}
		close(fd[1]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		assert_true(read(fd[0], text, sizeof(text) - 1) > 0);
		assert_non_null(strstr(text, "buffer overflow detected"));
		close(fd[0]);
	}
}

/* A vCPU asks for the time of day where it must not read a file: machine_start() has it read. */
static void test_time_of_day(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct tm tm;
		time_t t = 0;

		tzset();
		if (jail_harden(NULL) || jail_filter(JAIL_VCPU, JAIL_SECCOMP_ON, NULL))
			_exit(254);
		syscall(SYS_exit, !gmtime_r(&t, &tm));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* The x32 way in: the same numbers with a bit set. */
static void test_x32_is_refused(void **state)
{
	static const long none[6];

	assert_true(is_killed(try(JAIL_LOOP, JAIL_SECCOMP_ON, SYS_getpid | X32_BIT, none)));
	assert_true(is_killed(try(JAIL_VCPU, JAIL_SECCOMP_ON, SYS_getpid | X32_BIT, none)));
}

/* The 32-bit way in: getpid of i386 is 20, which is writev here. */
static int by_int80(enum jail_thread thread)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		long nr = 20;

		if (jail_harden(NULL) || jail_filter(thread, JAIL_SECCOMP_ON, NULL))
			_exit(254);
		__asm__ volatile("int $0x80" : "+a"(nr) : : "memory", "r8", "r9", "r10", "r11");
		syscall(SYS_exit, 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_other_architecture_is_refused(void **state)
{
	int status = by_int80(JAIL_LOOP);

	assert_true(WIFSIGNALED(status)); /* SIGSEGV where the kernel has no 32-bit calls */
	assert_true(WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV);
}

static void test_modes(void **state)
{
	static const long none[6];
	enum jail_seccomp mode = JAIL_SECCOMP_ON;
	int status = try(JAIL_LOOP, JAIL_SECCOMP_LOG, SYS_getppid, none);

	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	status = try(JAIL_LOOP, JAIL_SECCOMP_OFF, SYS_getppid, none);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(is_killed(try(JAIL_LOOP, JAIL_SECCOMP_ON, SYS_getppid, none)));
	assert_true(jail_seccomp_from_name("log", &mode));
	assert_int_equal(mode, JAIL_SECCOMP_LOG);
	assert_false(jail_seccomp_from_name("maybe", &mode));
	assert_string_equal(jail_seccomp_name(JAIL_SECCOMP_OFF), "off");
}

static unsigned count(enum jail_thread thread)
{
	unsigned n = 0;

	for (unsigned nr = 0; nr <= NR_MAX; nr++) {
		const struct row *r = find(thread, nr);

		n += r && r->kind != FAIL;
	}
	return n;
}

static void test_counts(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		print_message("# %s: %u system calls, %u instructions\n", all[i].name,
			count(all[i].thread), filters[all[i].thread].len);
#ifndef SANITIZED
		assert_in_range(count(all[i].thread), 1,
			all[i].thread == JAIL_VCPU ? VCPU_MAX : CALLS_MAX);
#endif
	}
	/* The writer begins under the loop's filter: what that one forbids it never gets. */
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if ((rows[i].threads & JW && !find(JAIL_LOOP, rows[i].nr)) ||
			(rows[i].threads & WN && !find(JAIL_LOOP_NAMES, rows[i].nr)))
			fail_msg("%s is for W, but not for L", rows[i].name);
}

#define OTHERS 8 /* tests that are not one for each filter */

int main(void)
{
	struct CMUnitTest tests[2 * ARRAY_SIZE(all) + OTHERS] = {
		cmocka_unit_test(test_allowed_values_pass),
		cmocka_unit_test(test_signals_stay_inside),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_time_of_day),
		cmocka_unit_test(test_x32_is_refused),
		cmocka_unit_test(test_other_architecture_is_refused),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_counts),
	};
	char name[2 * ARRAY_SIZE(all)][40];

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(all); i++) {
		bool pins = i % 2;

		snprintf(name[i], sizeof(name[i]), "test_%s_%s", all[i / 2].name,
			pins ? "pinned" : "forbidden");
		tests[i + OTHERS] = (struct CMUnitTest){.name = name[i],
			.test_func = pins ? test_pinned : test_forbidden,
			.initial_state = (void *)(uintptr_t)&all[i / 2].thread};
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
