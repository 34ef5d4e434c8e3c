/* SPDX-License-Identifier: Apache-2.0 */
/* test_harden.c - each measure, seen from outside through /proc and by trying. */
#include "jailer/jailer.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/in_child.h"

#include "monitor/base/types.h"

static int harden_all(void)
{
	struct rlimit core;

	umask(022);
	if (status_has("\nNoNewPrivs:\t1\n"))
		return 77; /* already so: the test would prove nothing */
	if (prctl(PR_GET_DUMPABLE) != 1)
		return 77;
	if (jail_harden(NULL))
		return 1;
	if (!status_has("\nNoNewPrivs:\t1\n"))
		return 2;
	if (!status_has("\nUmask:\t0077\n"))
		return 3;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return 4;
	if (getrlimit(RLIMIT_CORE, &core) || core.rlim_cur || core.rlim_max)
		return 5;
	return jail_harden(NULL) ? 6 : 0; /* twice does no harm */
}

static void test_harden(void **state)
{
	int verdict = in_child(harden_all);

	if (verdict == 77)
		skip();
	assert_int_equal(verdict, 0);
}

#define FIRST_FD 20
#define LAST_FD  40

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* Opens FIRST_FD..LAST_FD and one far above. */
static bool open_many(void)
{
	for (int fd = FIRST_FD; fd <= LAST_FD; fd++)
		if (dup2(0, fd) != fd)
			return false;
	return dup2(0, 900) == 900;
}

static int close_but(const int *keep, unsigned n)
{
	if (!open_many())
		return 1;
	if (jail_close_inherited(keep, n, NULL))
		return 2;
	for (int fd = 0; fd < 1000; fd++) {
		bool wanted = fd <= 2;

		for (unsigned i = 0; i < n; i++)
			wanted |= keep[i] == fd;
		if (is_open(fd) != wanted)
			return 3;
	}
	return 0;
}

static int close_all(void)
{
	return close_but(NULL, 0);
}

/* Not sorted, one named twice, neighbours, a standard one, the highest. */
static int close_some(void)
{
	const int keep[] = {33, 20, 21, 33, 1, 900};

	return close_but(keep, ARRAY_SIZE(keep));
}

static int keep_one_not_open(void)
{
	const int keep[] = {21, 500};
	struct err e;

	if (!open_many())
		return 1;
	if (jail_close_inherited(keep, ARRAY_SIZE(keep), &e) != -EBADF)
		return 2;
	if (strcmp(e.msg, "descriptor 500 was not handed to this process: Bad file descriptor"))
		return 3;
	return is_open(22) ? 0 : 4; /* refused before anything was closed */
}

static int keep_negative(void)
{
	const int keep[] = {-1};

	return jail_close_inherited(keep, 1, NULL) == -EBADF ? 0 : 1;
}

static void test_close_inherited(void **state)
{
	assert_int_equal(in_child(close_all), 0);
	assert_int_equal(in_child(close_some), 0);
	assert_int_equal(in_child(keep_one_not_open), 0);
	assert_int_equal(in_child(keep_negative), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_harden),
		cmocka_unit_test(test_close_inherited),
	};

	return cmocka_run_group_tests_name("harden", tests, NULL, NULL);
}
