/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_jail.c - user ids for VMs; the steps into the jail, each seen from inside. What a process in
 * there can still try is test_captive.py's.
 */
#include "jailer/jailer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/in_child.h"
#include "tests/lib/tmpdir.h"

static char *tmp, locks[256];

static int set_up(void **state)
{
	if (geteuid() != 0)
		skip();
	tmp = tmpdir_make();
	snprintf(locks, sizeof(locks), "%s/ids", tmp);
	return 0;
}

static int tear_down(void **state)
{
	tmpdir_remove(tmp);
	free(tmp);
	return 0;
}

static void test_ids_of_two_differ(void **state)
{
	uid_t a, b;
	int fd_a, fd_b;

	assert_int_equal(jail_take_ids(locks, 3, &a, &fd_a, NULL), 0);
	assert_int_equal(jail_take_ids(locks, 3, &b, &fd_b, NULL), 0);
	assert_true(a >= JAIL_ID_FIRST && a + 3 <= JAIL_ID_FIRST + JAIL_ID_COUNT);
	assert_true(a + 3 <= b || b + 3 <= a);
	close(fd_a);
	close(fd_b);
}

static void test_ids_run_out_and_come_back(void **state)
{
	struct err e;
	uid_t a, b;
	int fd, other;

	assert_int_equal(jail_take_ids(locks, JAIL_ID_COUNT, &a, &fd, NULL), 0);
	assert_int_equal(a, JAIL_ID_FIRST);
	assert_int_equal(jail_take_ids(locks, 1, &b, &other, &e), -EBUSY);
	assert_non_null(strstr(e.msg, "free"));
	close(fd);
	assert_int_equal(jail_take_ids(locks, 1, &b, &other, NULL), 0);
	close(other);
	assert_int_equal(jail_take_ids(locks, JAIL_ID_COUNT + 1, &a, &fd, &e), -EBUSY);
}

/* Who holds them may have children; the last to let go gives them back. */
static void test_ids_live_with_the_last_copy(void **state)
{
	uid_t a, b;
	int fd, copy, other;

	assert_int_equal(jail_take_ids(locks, JAIL_ID_COUNT, &a, &fd, NULL), 0);
	copy = dup(fd);
	close(fd);
	assert_int_equal(jail_take_ids(locks, 1, &b, &other, NULL), -EBUSY);
	close(copy);
	assert_int_equal(jail_take_ids(locks, 1, &b, &other, NULL), 0);
	close(other);
}

static void test_locks_must_be_roots_own(void **state)
{
	struct err e;
	uid_t a;
	int fd;

	file_write(locks, "", 0);
	assert_int_equal(chmod(locks, 0666), 0);
	assert_int_equal(jail_take_ids(locks, 1, &a, &fd, &e), -EPERM);
	assert_int_equal(unlink(locks), 0);
	assert_int_equal(symlink("/dev/null", locks), 0);
	assert_true(jail_take_ids(locks, 1, &a, &fd, &e) < 0);
	assert_int_equal(unlink(locks), 0);
	assert_int_equal(mkdir(locks, 0700), 0);
	assert_true(jail_take_ids(locks, 1, &a, &fd, &e) < 0);
}

static bool nothing_is_there(void)
{
	DIR *d = opendir("/");
	struct dirent *ent;

	/* Landlock does not even let it be read. */
	while (d && (ent = readdir(d)))
		if (ent->d_name[0] != '.')
			return false;
	return open("/etc/passwd", O_RDONLY) < 0 && open("/proc/self/status", O_RDONLY) < 0 &&
		open("..", O_RDONLY) < 0 && mkdir("/x", 0700) < 0 && chroot("/") < 0;
}

static bool nobody_answers(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(1),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	/* Landlock refuses, or there is no such network; not: nobody listens. */
	return fd < 0 || (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) && errno != ECONNREFUSED);
}

#define LAYERS (JAIL_PID | JAIL_MOUNT | JAIL_IPC | JAIL_UTS | JAIL_ROOT | JAIL_NET | JAIL_ID | JAIL_CAPS)

/* 0, or the number of what is not as it should be. */
static int look_around(const struct jail_report *r)
{
	struct rlimit lim;
	int sig;

	if (getuid() != JAIL_ID_FIRST + 5 || getegid() != JAIL_ID_FIRST + 5 || getpid() != 1)
		return 3;
	if (setuid(0) == 0 || setgid(0) == 0)
		return 4;
	if (!nothing_is_there())
		return 5;
	if (!nobody_answers())
		return 6;
	if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_max != 64)
		return 7;
	if (getrlimit(RLIMIT_CORE, &lim) || lim.rlim_max != 0)
		return 8;
	if (prctl(PR_GET_PDEATHSIG, &sig) || sig != SIGKILL || prctl(PR_GET_DUMPABLE) ||
		!prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
		return 9;
	if (getenv("KELVIN_SECRET") || environ)
		return 10;
	if (kill(-1, 0) == 0)
		return 11;
	return (r->layers & LAYERS) == LAYERS ? 0 : 12;
}

/* @born: into a pid namespace, with a void to go to; or into all, to be emptied. */
static void enter(unsigned born, const struct jail_void *space)
{
	const struct jail_plan plan = {.born = born, .space = space, .id = JAIL_ID_FIRST + 5,
		.mount_on = tmp, .nofile = 64, .nproc = 10};
	struct jail_report report;
	int status;
	pid_t pid;

	setenv("KELVIN_SECRET", "1", 1);
	pid = jail_fork(born, -1);
	if (pid < 0 && errno == EPERM)
		skip(); /* a container that may not make namespaces */
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(jail_enter(&plan, &report, NULL) ? 2 : look_around(&report));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_string_equal(getenv("KELVIN_SECRET"), "1");
}

#define BORN_INTO_ALL (JAIL_BIRTH | JAIL_MOUNT | JAIL_IPC | JAIL_UTS)

static void test_all_of_it(void **state)
{
	enter(BORN_INTO_ALL, NULL);
}

static const char *const names[] = {"mnt", "net", "ipc", "uts"}; /* by JAIL_VOID_* */

static ino_t where(const char *name)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static char kept[256]; /* the directory of a void */

static int set_up_void(void **state)
{
	int r = set_up(state);

	snprintf(kept, sizeof(kept), "%s/void", tmp);
	return r;
}

static int tear_down_void(void **state)
{
	while (umount2(kept, MNT_DETACH) == 0)
		;
	return tear_down(state);
}

static void get_void(struct jail_void *ret)
{
	if (jail_get_void(kept, ret, NULL) == -EPERM)
		skip(); /* a container that may not make namespaces */
}

/* Who makes the void is where it was before, also if that is somebody's chroot. */
static void test_a_void(void **state)
{
	ino_t before[ARRAY_SIZE(names)];
	unsigned fds = fd_count();
	struct jail_void space;
	char cwd[256], now[256];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		before[i] = where(names[i]);
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	get_void(&space);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(where(names[i]), before[i]);
		assert_int_not_equal(inode(space.fd[i]), before[i]);
	}
	assert_non_null(getcwd(now, sizeof(now)));
	assert_string_equal(now, cwd);
	enter(JAIL_BIRTH, &space);
	enter(JAIL_BIRTH, &space); /* it is for several */
	jail_close_void(&space);
	assert_int_equal(fd_count(), fds);
}

/* Whether a second caller is given the void that the first had. */
static bool same_again(const struct jail_void *first)
{
	struct jail_void again;
	bool same = true;

	get_void(&again);
	for (size_t i = 0; i < JAIL_VOID_COUNT; i++)
		same &= inode(again.fd[i]) == inode(first->fd[i]);
	enter(JAIL_BIRTH, &again);
	jail_close_void(&again);
	return same;
}

static void test_a_void_is_kept(void **state)
{
	unsigned fds = fd_count();
	struct jail_void first;

	get_void(&first);
	assert_true(same_again(&first));
	assert_true(same_again(&first));
	jail_close_void(&first);
	assert_int_equal(fd_count(), fds);
}

/* Somebody died while keeping it: then all of it is made anew. */
static void test_half_a_void_is_none(void **state)
{
	struct jail_void first;
	char path[300];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		get_void(&first);
		snprintf(path, sizeof(path), "%s/%s", kept, names[i]);
		assert_int_equal(umount2(path, MNT_DETACH), 0);
		assert_false(same_again(&first));
		jail_close_void(&first);
	}
}

/* Namespaces of the wrong kind, and directories that somebody else can write, are not believed. */
static void test_a_void_must_be_roots_own(void **state)
{
	struct jail_void first;
	char path[300];

	assert_int_equal(mkdir(kept, 0700), 0);
	assert_int_equal(chown(kept, 1, 1), 0);
	get_void(&first);
	assert_false(same_again(&first));
	jail_close_void(&first);
	assert_int_equal(chown(kept, 0, 0), 0);
	assert_int_equal(chmod(kept, 0777), 0);
	get_void(&first);
	assert_false(same_again(&first));
	jail_close_void(&first);
	assert_int_equal(chmod(kept, 0700), 0);
	get_void(&first);
	assert_true(same_again(&first));
	snprintf(path, sizeof(path), "%s/net", kept);
	assert_int_equal(mount("/proc/self/ns/uts", path, NULL, MS_BIND, NULL), 0);
	assert_false(same_again(&first));
	jail_close_void(&first);
}

static struct jail_void to_fill;

static int leave_things(void)
{
	int bad = setns(to_fill.fd[JAIL_VOID_IPC], CLONE_NEWIPC) != 0;

	bad |= (shmget(IPC_PRIVATE, 1, IPC_CREAT | 0600) >= 0) << 1;
	bad |= (msgget(IPC_PRIVATE, IPC_CREAT | 0600) >= 0) << 2;
	bad |= (semget(IPC_PRIVATE, 1, IPC_CREAT | 0600) >= 0) << 3;
	bad |= (setuid(JAIL_ID_FIRST) != 0) << 4; /* root may go beyond the limit of queues */
	bad |= (syscall(SYS_mq_open, "left", O_CREAT | O_RDWR, 0600, NULL) >= 0) << 5;
	return bad;
}

/* What one VM leaves in there, the next would find. */
static void test_nothing_can_be_left_in_a_void(void **state)
{
	get_void(&to_fill);
	assert_int_equal(in_child(leave_things), 0);
	jail_close_void(&to_fill);
}

static void test_a_jail_that_cannot_be_is_an_error(void **state)
{
	const struct jail_plan plan = {.born = BORN_INTO_ALL, .id = JAIL_ID_FIRST,
		.mount_on = "/no/such/place", .nofile = 64, .nproc = 10};
	struct jail_report report;
	struct err e = {0};
	int status;
	pid_t pid = jail_fork(BORN_INTO_ALL, -1);

	if (pid < 0 && errno == EPERM)
		skip();
	if (pid == 0)
		_exit(jail_enter(&plan, &report, &e) && strstr(e.msg, "/no/such/place") ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define V(f) cmocka_unit_test_setup_teardown(f, set_up_void, tear_down_void)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ids_of_two_differ),
		T(test_ids_run_out_and_come_back),
		T(test_ids_live_with_the_last_copy),
		T(test_locks_must_be_roots_own),
		T(test_all_of_it),
		V(test_a_void),
		V(test_a_void_is_kept),
		V(test_half_a_void_is_none),
		V(test_a_void_must_be_roots_own),
		V(test_nothing_can_be_left_in_a_void),
		T(test_a_jail_that_cannot_be_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
