/* SPDX-License-Identifier: Apache-2.0 */
/* test_base.c - errors, checked arithmetic, the log, cleanup and the system call table. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/err.h"
#include "monitor/base/io.h"
#include "monitor/base/log.h"
#include "monitor/base/sys.h"

static void test_err_set_and_wrap(void **state)
{
	struct err e = {0};

	assert_int_equal(err_set(&e, -EINVAL, "disk %s: bad size %d", "root", 7), -EINVAL);
	assert_int_equal(e.code, -EINVAL);
	assert_string_equal(e.msg, "disk root: bad size 7");
	assert_int_equal(err_wrap(&e, "cannot start %s", "vm1"), -EINVAL);
	assert_string_equal(e.msg, "cannot start vm1: disk root: bad size 7");
	assert_int_equal(err_sys(&e, ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_int_equal(e.code, -ENOENT);
	assert_string_equal(e.msg, "cannot open x: No such file or directory");
}

static void test_err_may_be_null(void **state)
{
	assert_int_equal(err_set(NULL, -EPERM, "x"), -EPERM);
	assert_int_equal(err_sys(NULL, ENOMEM, "x"), -ENOMEM);
	assert_true(err_wrap(NULL, "x") < 0);
}

static void test_err_long_messages_are_cut(void **state)
{
	char big[2000];
	struct err e = {0};

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	err_set(&e, -EINVAL, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_sys(&e, EIO, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_set(&e, -EINVAL, "inner");
	err_wrap(&e, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	for (int i = 0; i < 300; i++)
		err_wrap(&e, "again");
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(strncmp(e.msg, "again: again: ", 14), 0);
}

static void test_must_ends_the_process(void **state)
{
	const struct rlimit no_core = {0, 0};
	int fds[2], status;
	char msg[200] = "";
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], 2);
		must(fds[0] == -12345);
		_exit(0);
	}
	close(fds[1]);
	assert_true(read(fds[0], msg, sizeof(msg) - 1) > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(strstr(msg, "kelvin: bug: "));
	assert_non_null(strstr(msg, "fds[0] == -12345 does not hold"));
	close(fds[0]);
}

static void test_range_ok(void **state)
{
	static const struct {
		u64 off, len, limit;
		bool ok;
	} tab[] = {
		{0, 0, 0, true},
		{0, 1, 0, false},
		{1, 0, 0, false},
		{0, 10, 10, true},
		{1, 10, 10, false},
		{10, 0, 10, true},
		{11, 0, 10, false},
		{UINT64_MAX, 1, 10, false},
		{1, UINT64_MAX, 10, false},
		{UINT64_MAX, UINT64_MAX, 10, false},
		{UINT64_MAX - 1, 1, UINT64_MAX, true},
		{UINT64_MAX - 1, 2, UINT64_MAX, false},
		{0, UINT64_MAX, UINT64_MAX, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(tab); i++)
		assert_int_equal(range_ok(tab[i].off, tab[i].len, tab[i].limit), tab[i].ok);
}

static void test_powers_and_alignment(void **state)
{
	assert_false(is_pow2(0));
	assert_true(is_pow2(1));
	assert_true(is_pow2(1ull << 63));
	assert_false(is_pow2(3));
	assert_false(is_pow2(UINT64_MAX));
	assert_int_equal(align_down(4095, 4096), 0);
	assert_int_equal(align_down(8191, 4096), 4096);
	assert_int_equal(align_up(0, 4096), 0);
	assert_int_equal(align_up(1, 4096), 4096);
	assert_int_equal(align_up(4096, 4096), 4096);
	assert_true(align_up(UINT64_MAX - 4095, 4096) == UINT64_MAX - 4095);
}

static size_t log_read(int fd, char *buf, size_t cap)
{
	ssize_t n = read(fd, buf, cap - 1);

	buf[n > 0 ? n : 0] = 0;
	return n > 0 ? (size_t)n : 0;
}

static void test_log_lines(void **state)
{
	char buf[4096], big[3000];
	int fds[2];
	size_t n;

	log_line("goes nowhere");
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	log_to(fds[1]);
	log_line("vm %d is up", 3);
	n = log_read(fds[0], buf, sizeof(buf));
	/* 2026-11-03T10:20:30.123456Z vm 3 is up */
	assert_string_equal(buf + 28, "vm 3 is up\n");
	assert_int_equal(n, 28 + 11);
	assert_true(buf[10] == 'T' && buf[19] == '.' && buf[26] == 'Z');
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_line("%s", big);
	n = log_read(fds[0], buf, sizeof(buf));
	assert_true(n > 500 && n <= 1024);
	assert_int_equal(buf[n - 1], '\n');
	assert_int_equal(buf[n - 2], 'x');
	log_to(-1);
	log_line("goes nowhere");
	assert_int_equal(log_read(fds[0], buf, sizeof(buf)), 0);
	close(fds[0]);
	close(fds[1]);
}

static void test_log_limited(void **state)
{
	struct log_site other = {0};
	char buf[65536];
	unsigned lines = 0;
	int fds[2];

	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	log_to(fds[1]);
	for (int i = 0; i < 1000; i++)
		log_limited("guest did %d", i);
	log_to(-1);
	log_read(fds[0], buf, sizeof(buf));
	for (const char *p = buf; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 10);
	/* Another site has a budget of its own, and a new window a new one. */
	for (int i = 0; i < 10; i++)
		assert_true(log_allowed(&other));
	assert_false(log_allowed(&other));
	other.window_ns -= 5000000001ull;
	assert_true(log_allowed(&other));
	close(fds[0]);
	close(fds[1]);
}

static int open_null(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void test_cleanup(void **state)
{
	int raw, kept;

	{
		_cleanup_fd_ int fd = open_null();
		_cleanup_fd_ int none = -1;
		_cleanup_free_ char *p = malloc(10);

		assert_true(fd >= 0 && none < 0 && p);
		raw = fd;
	}
	assert_int_equal(fcntl(raw, F_GETFD), -1);
	{
		_cleanup_fd_ int fd = open_null();

		kept = fd_steal(&fd);
		assert_int_equal(fd, -1);
	}
	assert_true(fcntl(kept, F_GETFD) >= 0);
	errno = ERANGE;
	fd_close(&kept);
	fd_close(&kept);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(kept, -1);
}

/* Every entry is there and is the call it is named after. */
static void test_sys_host(void **state)
{
	char dir[] = "/tmp/kelvin-test-XXXXXX", got[8];
	const struct sys_ops *s = &sys_host;
	struct stat st;
	int dirfd, fd;

	assert_non_null(mkdtemp(dir));
	dirfd = s->openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	assert_true(dirfd >= 0);
	assert_int_equal(s->mkdirat(dirfd, "a", 0700), 0);
	assert_int_equal(s->renameat2(dirfd, "a", dirfd, "b", 1), 0);
	assert_int_equal(s->unlinkat(dirfd, "b", AT_REMOVEDIR), 0);
	fd = s->openat(dirfd, "f", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(s->pwrite(fd, "1234", 4, 4), 4);
	assert_int_equal(s->pread(fd, got, 8, 0), 8);
	assert_memory_equal(got, "\0\0\0\0" "1234", 8);
	assert_int_equal(s->ftruncate(fd, 5), 0);
	assert_int_equal(s->fdatasync(fd), 0);
	assert_int_equal(s->fsync(fd), 0);
	assert_int_equal(s->flock(fd, 2), 0);
	assert_int_equal(s->fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 5);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(s->close(fd), 0);
	assert_int_equal(s->close(fd), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(s->unlinkat(dirfd, "f", 0), 0);
	s->close(dirfd);
	assert_int_equal(rmdir(dir), 0);
}

static void wake(int sig)
{
}

/* Signals make the writes to a pipe short, or fail. */
static void test_io(void **state)
{
	static char out[1 << 18], in[sizeof(out)];
	int fd = memfd_create("io", MFD_CLOEXEC), p[2];
	int status;
	pid_t child;

	memset(out, 'x', sizeof(out));
	assert_int_equal(io_write(fd, "abc", 3), 0);
	assert_int_equal(io_read_at(fd, in, 2, 1), 0);
	assert_memory_equal(in, "bc", 2);
	assert_int_equal(io_read_at(fd, in, 3, 1), -ENODATA);
	assert_int_equal(io_read_at(fd, in, 0, 9), 0);
	close(fd);
	assert_int_equal(io_write(fd, "abc", 3), -EBADF);
	assert_int_equal(io_read_at(fd, in, 1, 0), -EBADF);

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(io_read_at(p[0], in, 1, 0), -ESPIPE);
	child = fork();
	if (child == 0) {
		sigaction(SIGALRM, &(struct sigaction){.sa_handler = wake}, NULL);
		setitimer(ITIMER_REAL, &(struct itimerval){{0, 1000}, {0, 1000}}, NULL);
		_exit(io_write(p[1], out, sizeof(out)) != 0);
	}
	close(p[1]);
	for (size_t n = 0; n < sizeof(in);) {
		ssize_t r = read(p[0], in + n, sizeof(in) - n);

		assert_true(r > 0); /* else it ended before all was written */
		usleep(3000);
		n += (size_t)r;
	}
	assert_memory_equal(in, out, sizeof(in));
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	close(p[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_set_and_wrap),
		cmocka_unit_test(test_err_may_be_null),
		cmocka_unit_test(test_err_long_messages_are_cut),
		cmocka_unit_test(test_must_ends_the_process),
		cmocka_unit_test(test_range_ok),
		cmocka_unit_test(test_powers_and_alignment),
		cmocka_unit_test(test_log_lines),
		cmocka_unit_test(test_log_limited),
		cmocka_unit_test(test_cleanup),
		cmocka_unit_test(test_sys_host),
		cmocka_unit_test(test_io),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
