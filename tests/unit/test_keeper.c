/* SPDX-License-Identifier: Apache-2.0 */
/* test_keeper.c - a keeper and VMs that behave, misbehave, or die. */
#include "monitor/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/base/clock.h"
#include "monitor/machine_int.h"
#include "monitor/vmfind.h"
#include "tests/lib/tmpdir.h"

#define ID      "v"
#define KILLED  (128 + SIGKILL)

struct fix {
	char *tmp;
	char run[256], dir[300];
};

static void touch(const struct fix *f, const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static bool there(const struct fix *f, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return access(path, F_OK) == 0;
}

static int set_up(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	f->tmp = tmpdir_make();
	snprintf(f->run, sizeof(f->run), "%s/run", f->tmp);
	snprintf(f->dir, sizeof(f->dir), "%s/" ID, f->run);
	assert_int_equal(mkdir(f->run, 0700), 0);
	assert_int_equal(mkdir(f->dir, 0700), 0);
	setenv("KELVIN_RUN_DIR", f->run, 1);
	touch(f, "pid");
	touch(f, "log");
	touch(f, "api.sock");
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fix *f = *state;

	tmpdir_remove(f->tmp);
	free(f->tmp);
	free(f);
	return 0;
}

/* A keeper with a VM that is @run. Returns the exit status it would have. */
static int keep_vm(int (*run)(void *, int, const char *), const struct keeper_vm *vm)
{
	struct keeper *k;
	struct err e;

	assert_int_equal(keeper_create(&k, 1, &e), 0);
	assert_int_equal(keeper_add(k, vm, 0, run, NULL, &e), 0);
	return keeper_run(k);
}

static int keep(int (*run)(void *, int, const char *), bool detach)
{
	const struct keeper_vm vm = {.id = ID, .vsock_path = "", .detach = detach,
		.grace_ns = 20000000000ull};

	return keep_vm(run, &vm);
}

static void say(int fd, u32 verb, s32 value)
{
	struct keeper_msg m = {verb, value};

	if (send(fd, &m, sizeof(m), MSG_NOSIGNAL) != (ssize_t)sizeof(m))
		_exit(90);
}

/* In the directory of running VMs; the next call's is in the same place. */
static const char *in_run_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", getenv("KELVIN_RUN_DIR"), name);
	return path;
}

/* What a VM does when it is complete: the directory is its own, and says so. */
static void is_here(int fd, pid_t pid)
{
	int pid_fd = open(in_run_dir(ID "/pid"), O_WRONLY | O_TRUNC);
	char text[16];

	snprintf(text, sizeof(text), "%d\n", (int)pid);
	if (pid_fd < 0 || flock(pid_fd, LOCK_EX | LOCK_NB) ||
		write(pid_fd, text, strlen(text)) < 0 || keeper_here(fd, pid_fd, NULL))
		_exit(97);
	close(pid_fd);
}

/* The same of a directory whose pid file names another process. */
static void here(int fd)
{
	int lock = open("/dev/null", O_RDONLY);

	if (lock < 0 || keeper_here(fd, lock, NULL))
		_exit(97);
	close(lock);
}

/* What every VM is sent first. */
static void take_go(int fd)
{
	struct jail_void space;
	bool grouped = true;

	/* It was born into nothing, and asked for no limits. */
	if (keeper_wait(fd, &space, &grouped, NULL) || space.fd[0] >= 0 || grouped)
		_exit(96);
}

/* Nothing more is to happen to this VM than its end. */
static int wait_for_the_end(int fd)
{
	char c;

	while (recv(fd, &c, 1, 0) > 0)
		;
	sleep(20);
	return 91;
}

static int quiet(void *ctx, int fd, const char *cgroup)
{
	return 3;
}

static void test_status(void **state)
{
	struct fix *f = *state;

	assert_int_equal(keep(quiet, false), 3);
	assert_true(there(f, "pid")); /* it never said that this was its own */
}

static int takes_leave(void *ctx, int fd, const char *cgroup)
{
	is_here(fd, getpid());
	keeper_bye(fd, true, "{\"a\": 1}");
	return 5;
}

static void test_leave(void **state)
{
	struct fix *f = *state;
	char path[512], text[64] = "";
	int fd;

	assert_int_equal(keep(takes_leave, true), 5);
	assert_true(there(f, "log") && there(f, "exit.json"));
	assert_false(there(f, "pid") || there(f, "api.sock"));
	snprintf(path, sizeof(path), "%s/exit.json", f->dir);
	fd = open(path, O_RDONLY);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_string_equal(text, "{\"a\": 1}\n");
}

/* In the foreground nothing is kept, whatever the VM says. */
static void test_leave_in_the_foreground(void **state)
{
	struct fix *f = *state;

	assert_int_equal(keep(takes_leave, false), 5);
	assert_int_equal(access(f->dir, F_OK), -1);
}

static int dies(void *ctx, int fd, const char *cgroup)
{
	is_here(fd, getpid());
	raise(SIGKILL);
	return 0;
}

static void test_death(void **state)
{
	struct fix *f = *state;

	assert_int_equal(keep(dies, true), KILLED);
	assert_true(there(f, "log") && there(f, "exit.json"));
	assert_false(there(f, "pid"));
}

static int ends_without_leave(void *ctx, int fd, const char *cgroup)
{
	is_here(fd, getpid());
	return 7;
}

static void test_end_without_leave(void **state)
{
	struct fix *f = *state;

	assert_int_equal(keep(ends_without_leave, true), 7);
	assert_int_equal(access(f->dir, F_OK), -1);
}

static int leaves_anothers(void *ctx, int fd, const char *cgroup)
{
	is_here(fd, getppid());
	keeper_bye(fd, false, NULL);
	return 6;
}

/* The name was free for a moment, and is another VM's now. */
static void test_directory_of_another(void **state)
{
	struct fix *f = *state;

	assert_int_equal(keep(leaves_anothers, false), 6);
	assert_true(there(f, "pid") && there(f, "api.sock"));
}

static int dials_too_early(void *ctx, int fd, const char *cgroup)
{
	say(fd, KEEPER_DIAL, 1);
	return wait_for_the_end(fd);
}

static int leaves_too_early(void *ctx, int fd, const char *cgroup)
{
	say(fd, KEEPER_BYE, 0);
	return wait_for_the_end(fd);
}

static int is_here_twice(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	here(fd);
	return wait_for_the_end(fd);
}

static int is_here_without_a_lock(void *ctx, int fd, const char *cgroup)
{
	say(fd, KEEPER_HERE, 0);
	return wait_for_the_end(fd);
}

static int says_nonsense(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	say(fd, 0x7fffffff, -1);
	return wait_for_the_end(fd);
}

static int answers_itself(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	say(fd, KEEPER_DIALED, 0);
	return wait_for_the_end(fd);
}

static int says_half(void *ctx, int fd, const char *cgroup)
{
	if (send(fd, "abc", 3, 0) != 3)
		return 90;
	return wait_for_the_end(fd);
}

static int does_not_listen(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	for (int i = 0; i < 100000; i++)
		say(fd, KEEPER_DIAL, 1234);
	return wait_for_the_end(fd);
}

static void test_misbehaviour_ends_the_vm(void **state)
{
	int (*const bad[])(void *, int, const char *) = {dials_too_early, leaves_too_early,
		is_here_twice, is_here_without_a_lock, says_nonsense, answers_itself, says_half,
		does_not_listen};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(keep(bad[i], false), KILLED);
}

/* The descriptor that came with an answer of @want, or -1. */
static int answered(int fd, s32 want)
{
	struct keeper_msg m;
	struct iovec iov = {&m, sizeof(m)};
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control)};
	int got = -1;

	if (recvmsg(fd, &msg, 0) != (ssize_t)sizeof(m) || m.verb != KEEPER_DIALED ||
		m.value != want)
		_exit(92);
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	return got;
}

static int dials(void *ctx, int fd, const char *cgroup)
{
	char text[6] = "";
	int sock;

	take_go(fd);
	here(fd);
	say(fd, KEEPER_DIAL, 77);
	say(fd, KEEPER_DIAL, 78);
	say(fd, KEEPER_DIAL, -1); /* port 2^32 - 1 */
	sock = answered(fd, 0);
	if (sock < 0 || answered(fd, -ENOENT) != -1 || answered(fd, -ENOENT) != -1)
		return 93;
	if (!(fcntl(sock, F_GETFL) & O_NONBLOCK) || write(sock, "hello", 5) != 5)
		return 94;
	fcntl(sock, F_SETFL, 0);
	if (read(sock, text, 5) != 5 || strcmp(text, "world") != 0)
		return 95;
	keeper_bye(fd, false, NULL);
	return 0;
}

static void serve(int listen_fd)
{
	char text[6] = "";
	int fd = accept(listen_fd, NULL, NULL);

	if (read(fd, text, 5) == 5 && !strcmp(text, "hello") && write(fd, "world", 5) == 5)
		_exit(0);
	_exit(1);
}

static void test_dial(void **state)
{
	struct fix *f = *state;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), status;
	pid_t pid;

	assert_true(snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/vsock.sock_77", f->dir) <
		(int)sizeof(sa.sun_path));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 4), 0);
	pid = fork();
	if (pid == 0)
		serve(fd);
	close(fd);
	assert_int_equal(keep(dials, false), 0);
	/* The keeper may have reaped it. */
	if (waitpid(pid, &status, 0) == pid)
		assert_int_equal(status, 0);
}

static int has_its_keeper_signalled(void *ctx, int fd, const char *cgroup)
{
	sigset_t none;

	/* The keepers of the cases before this one left theirs blocked in the one process. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	here(fd);
	kill(getppid(), SIGTERM);
	return wait_for_the_end(fd);
}

static void test_signals_are_passed_on(void **state)
{
	assert_int_equal(keep(has_its_keeper_signalled, false), 128 + SIGTERM);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* None of the signals' business: they stay blocked. */
static int will_not_end(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	kill(getppid(), SIGTERM);
	sleep(20);
	return 0;
}

static int just_runs(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	sleep(20);
	return 0;
}

static int leaves_and_stays(void *ctx, int fd, const char *cgroup)
{
	here(fd);
	say(fd, KEEPER_BYE, 0);
	sleep(20);
	return 0;
}

static void test_who_has_to_end_does(void **state)
{
	struct keeper_vm vm = {.id = ID, .vsock_path = "", .grace_ns = 200000000};
	u64 begin = monotonic_ns();

	assert_int_equal(keep_vm(will_not_end, &vm), 128 + SIGKILL);
	vm.timeout_ns = 100000000;
	assert_int_equal(keep_vm(just_runs, &vm), 128 + SIGKILL);
	assert_true(monotonic_ns() - begin >= 500000000);
	vm.timeout_ns = 0;
	assert_int_equal(keep_vm(leaves_and_stays, &vm), 128 + SIGKILL);
	assert_true(monotonic_ns() - begin < 15000000000ull);
}

/* Fills its log when the keeper has let it go: so that it shows in its size, or so that it does not. */
static int fills(int fd, int mode)
{
	int log = open(in_run_dir(ID "/log"), O_WRONLY);

	is_here(fd, getpid());
	take_go(fd);
	keeper_bye(fd, true, "{}");
	return fallocate(log, mode, 0, 16 << 20) ? 92 : 0;
}

static int leaves_and_fills(void *ctx, int fd, const char *cgroup)
{
	return fills(fd, 0);
}

static int leaves_and_hides(void *ctx, int fd, const char *cgroup)
{
	return fills(fd, FALLOC_FL_KEEP_SIZE);
}

static void test_what_stays_is_little(void **state)
{
	struct fix *f = *state;
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/" ID "/log", f->run);
	assert_int_equal(keep(leaves_and_fills, true), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 4 << 20);
	assert_int_equal(truncate(path, 0), 0);
	touch(f, "pid");
	assert_int_equal(keep(leaves_and_hides, true), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size == 0 && st.st_blocks < 100);
}

static int open_beside(const char *name, int flags)
{
	return open(in_run_dir(name), flags | O_CREAT, 0600);
}

/* Sends a file that it has locked to the keeper, for want of a better place. */
static int leaves_a_lock(void *ctx, int fd, const char *cgroup)
{
	int file = open_beside("disk", O_RDWR);

	here(fd);
	if (flock(file, LOCK_EX | LOCK_NB) || keeper_here(fd, file, NULL))
		return 94;
	close(file);
	close(open_beside("sent", O_WRONLY));
	return wait_for_the_end(fd);
}

static int wants_that_lock(void *ctx, int fd, const char *cgroup)
{
	int file = open_beside("disk", O_RDWR);

	here(fd);
	for (int i = 0; i < 500 && access(in_run_dir("sent"), F_OK); i++)
		usleep(10000);
	for (int i = 0; i < 500; i++) {
		if (flock(file, LOCK_EX | LOCK_NB) == 0) {
			close(open_beside("got", O_WRONLY));
			break;
		}
		usleep(10000);
	}
	return 0;
}

static void test_nothing_stays_in_a_dead_vms_socket(void **state)
{
	struct keeper_vm vm = {.id = ID, .vsock_path = "", .grace_ns = 20000000000ull};
	struct fix *f = *state;
	struct keeper *k;
	char path[512];
	struct err e;

	assert_int_equal(keeper_create(&k, 2, &e), 0);
	assert_int_equal(keeper_add(k, &vm, 0, leaves_a_lock, NULL, &e), 0);
	assert_int_equal(keeper_add(k, &vm, 0, wants_that_lock, NULL, &e), 0);
	assert_int_equal(keeper_run(k), 128 + SIGKILL);
	snprintf(path, sizeof(path), "%s/got", f->run);
	assert_int_equal(access(path, F_OK), 0);
}

/* The lock is the keeper's: the VM can neither let go of it nor outlive it. */
static int lets_go_of_all(void *ctx, int fd, const char *cgroup)
{
	pid_t pid = 0;

	is_here(fd, getpid());
	for (int i = 3; i < 100; i++)
		if (i != fd)
			close(i);
	for (int i = 0; i < 10; i++) {
		if (vm_look(ID, &pid) != VM_LIVES || pid != getpid())
			return 91;
		usleep(10000);
	}
	return 0;
}

static void test_the_lock_is_the_keepers(void **state)
{
	assert_int_equal(keep(lets_go_of_all, false), 0);
	assert_int_equal(vm_look(ID, NULL), VM_ABSENT);
}

/* A connection whose end takes 8 s, as nobody reads what was sent. */
static int slow_to_close(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct linger linger = {.l_onoff = 1, .l_linger = 8};
	socklen_t len = sizeof(sa);
	int door = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	static char much[1 << 20];

	if (bind(door, (struct sockaddr *)&sa, len) || listen(door, 1) ||
		getsockname(door, (struct sockaddr *)&sa, &len) ||
		connect(fd, (struct sockaddr *)&sa, len) || accept(door, NULL, NULL) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)))
		_exit(94);
	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	return fd;
}

static int brings_what_is_slow_to_close(void *ctx, int fd, const char *cgroup)
{
	int slow = slow_to_close();

	here(fd);
	kill(getppid(), SIGSTOP); /* so that it is the last who has it */
	keeper_here(fd, slow, NULL);
	close(slow);
	kill(getppid(), SIGCONT);
	return wait_for_the_end(fd);
}

/* The same, with something unread: then the keeper is told of that first. */
static int leaves_what_is_slow_to_close(void *ctx, int fd, const char *cgroup)
{
	int slow = slow_to_close();

	here(fd);
	say(fd, KEEPER_DIAL, 1234);
	usleep(100000);
	kill(getppid(), SIGSTOP);
	keeper_here(fd, slow, NULL);
	close(slow);
	close(fd);
	kill(getppid(), SIGCONT);
	sleep(20);
	return 0;
}

static void test_no_descriptor_holds_the_keeper_up(void **state)
{
	u64 begin = monotonic_ns();

	assert_int_equal(keep(brings_what_is_slow_to_close, false), 128 + SIGKILL);
	assert_int_equal(keep(leaves_what_is_slow_to_close, false), 128 + SIGKILL);
	assert_true(monotonic_ns() - begin < 6000000000ull);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_status),
		T(test_leave),
		T(test_leave_in_the_foreground),
		T(test_death),
		T(test_end_without_leave),
		T(test_directory_of_another),
		T(test_misbehaviour_ends_the_vm),
		T(test_dial),
		T(test_signals_are_passed_on),
		T(test_who_has_to_end_does),
		T(test_what_stays_is_little),
		T(test_nothing_stays_in_a_dead_vms_socket),
		T(test_the_lock_is_the_keepers),
		T(test_no_descriptor_holds_the_keeper_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
