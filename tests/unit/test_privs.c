/* SPDX-License-Identifier: Apache-2.0 */
/* test_privs.c - ids, capabilities and limits given up, seen through /proc and by trying. */
#include "jailer/privs.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/in_child.h"

#define UID 4321u
#define GID 8765u

static int drop_all(void)
{
	struct err e;

	if (jail_drop_ids(UID, GID, &e) || jail_drop_caps(&e))
		return 1;
	if (!status_has("\nUid:\t4321\t4321\t4321\t4321\n") ||
		!status_has("\nGid:\t8765\t8765\t8765\t8765\n"))
		return 2;
	if (!status_has("\nGroups:\t \n") && !status_has("\nGroups:\t\n"))
		return 3;
	if (!status_has("\nCapInh:\t0000000000000000\n") ||
		!status_has("\nCapPrm:\t0000000000000000\n") ||
		!status_has("\nCapEff:\t0000000000000000\n"))
		return 4;
	if (!status_has("\nCapBnd:\t0000000000000000\n") ||
		!status_has("\nCapAmb:\t0000000000000000\n"))
		return 5;
	if (setresuid(0, 0, 0) != -1 || setgroups(0, NULL) != -1 ||
		mknod("/tmp/kelvin-privs", S_IFCHR, makedev(1, 3)) != -1)
		return 6;
	return prctl(PR_GET_KEEPCAPS) == 0 ? 0 : 7;
}

/* Root keeps its number here and nothing else. */
static int drop_caps_of_root(void)
{
	struct err e;

	if (jail_drop_ids(0, 0, &e) || jail_drop_caps(&e))
		return 1;
	if (!status_has("\nCapPrm:\t0000000000000000\n") ||
		!status_has("\nCapBnd:\t0000000000000000\n"))
		return 2;
	if (chown("/proc/self", 1, 1) != -1 || setresuid(5, 5, 5) != -1)
		return 3;
	return 0;
}

/* Who has nothing to drop may call it; the bounding set is not his to change. */
static int drop_again(void)
{
	struct err e;

	if (jail_drop_ids(UID, GID, &e) || jail_drop_caps(&e) || jail_drop_caps(&e))
		return 1;
	if (jail_drop_ids(UID, GID, &e) != -EPERM)
		return 2;
	return strcmp(e.msg, "cannot leave the supplementary groups (setgroups): "
			     "Operation not permitted") ? 3 : 0;
}

static int limit_all(void)
{
	const struct jail_rlimits l = {.nofile = 64, .fsize = 4096, .nproc = JAIL_RLIM_KEEP};
	const struct jail_rlimits more = {.nofile = UINT64_MAX - 1, .fsize = JAIL_RLIM_KEEP,
		.nproc = JAIL_RLIM_KEEP};
	struct rlimit before, r;
	struct err e;

	if (getrlimit(RLIMIT_NPROC, &before) || jail_rlimits(&l, &e))
		return 1;
	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur != 64 || r.rlim_max != 64)
		return 2;
	if (getrlimit(RLIMIT_FSIZE, &r) || r.rlim_cur != 4096 || r.rlim_max != 4096)
		return 3;
	if (getrlimit(RLIMIT_CORE, &r) || r.rlim_cur || r.rlim_max)
		return 4;
	if (getrlimit(RLIMIT_NPROC, &r) || r.rlim_max != before.rlim_max)
		return 5;
	if (jail_rlimits(&more, &e) != -EPERM)
		return 6;
	return strncmp(e.msg, "cannot set RLIMIT_NOFILE to ", 28) ? 7 : 0;
}

static void as_root(int (*body)(void))
{
	if (geteuid() != 0 || !status_has("\nSeccomp:\t0\n"))
		skip();
	assert_int_equal(in_child(body), 0);
}

static void test_drop(void **state)
{
	as_root(drop_all);
}

static void test_drop_root(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip(); /* the sanitizer's own thread keeps its capabilities */
#endif
	as_root(drop_caps_of_root);
}

static void test_drop_again(void **state)
{
	as_root(drop_again);
}

static void test_limits(void **state)
{
	assert_int_equal(in_child(limit_all), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_drop_root),
		cmocka_unit_test(test_drop_again),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests_name("privs", tests, NULL, NULL);
}
