/* SPDX-License-Identifier: Apache-2.0 */
/* test_vmfind.c - which VMs are there, and that only a VM's own monitor is ever killed. */
#include "monitor/vmfind.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/client.h"
#include "tests/lib/tmpdir.h"

static char *base;

static int setup(void **state)
{
	base = tmpdir_make();
	return setenv("KELVIN_RUN_DIR", base, 1);
}

static int teardown(void **state)
{
	tmpdir_remove(base);
	free(base);
	return 0;
}

static void path_of(char *out, size_t cap, const char *id, const char *name)
{
	assert_int_equal(vm_path(out, cap, id, name, NULL), 0);
}

static void make_vm(const char *id)
{
	char path[256];

	path_of(path, sizeof(path), id, NULL);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void put_file(const char *id, const char *name, const char *text)
{
	char path[256];

	path_of(path, sizeof(path), id, name);
	file_write(path, text, strlen(text));
}

static void put_pid(const char *id, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d\n", (int)pid);
	put_file(id, "pid", text);
}

/* A process that holds the lock on the VM's pid file, as a monitor does. */
static pid_t start_monitor(const char *id)
{
	char path[256], byte;
	int fds[2];
	pid_t pid;

	put_file(id, "pid", "");
	path_of(path, sizeof(path), id, "pid");
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || dprintf(fd, "%d\n", getpid()) < 0)
			_exit(1);
		if (write(fds[1], "k", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static void end_process(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void test_look(void **state)
{
	pid_t child, seen;

	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
	assert_int_equal(vm_look("../x", NULL), VM_ABSENT);
	make_vm("x");
	assert_int_equal(vm_look("x", NULL), VM_ABSENT); /* at its birth, or its end */
	put_file("x", "log", "");
	assert_int_equal(vm_look("x", NULL), VM_DEAD);
	put_file("x", "exit.json", "{}");
	assert_int_equal(vm_look("x", NULL), VM_ENDED);
	child = start_monitor("x");
	assert_int_equal(vm_look("x", &seen), VM_LIVES);
	assert_int_equal(seen, child);
	end_process(child);
	assert_int_equal(vm_look("x", NULL), VM_DEAD);
}

/* What somebody put among the VMs is none, and nothing in it is touched. */
static void test_directories_that_are_no_vms(void **state)
{
	char path[256];
	struct err e;

	make_vm("x");
	put_file("x", "state", "a snapshot's");
	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
	put_file("x", "log", "of something else");
	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
	assert_int_equal(vm_sweep("x", 0, &e), -ENOTEMPTY);
	path_of(path, sizeof(path), "x", "log");
	assert_int_equal(access(path, F_OK), 0);
	path_of(path, sizeof(path), "x", "pid");
	assert_int_equal(access(path, F_OK), -1);
	/* One that has a VM's pid file is a VM's, whatever its guest may have put there. */
	put_pid("x", 1);
	assert_int_equal(vm_look("x", NULL), VM_DEAD);
}

/* The pid is somebody's, but nobody holds the lock: that process is not the monitor. */
static void test_pid_used_again(void **state)
{
	make_vm("x");
	put_pid("x", getpid());
	assert_int_equal(vm_look("x", NULL), VM_DEAD);
}

static void test_by_pid(void **state)
{
	char id[VM_ID_MAX + 1] = "";
	pid_t child;

	assert_false(vm_by_pid(getpid(), id));
	make_vm("a");
	make_vm("x");
	child = start_monitor("x");
	put_pid("a", getpid()); /* of one that died: the pid was used again */
	assert_false(vm_by_pid(getpid(), id));
	assert_true(vm_by_pid(child, id));
	assert_string_equal(id, "x");
	end_process(child);
	assert_false(vm_by_pid(child, id));
}

static void test_odd_pid_files(void **state)
{
	static const char *const texts[] = {"0\n", "-1\n", "abc\n", "12x\n",
		"99999999999999999999\n"};
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char path[256];
	pid_t pid;

	make_vm("x");
	path_of(path, sizeof(path), "x", "pid");
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		put_file("x", "pid", texts[i]);
		/* Young: it may be a VM that is just being made. */
		assert_int_equal(vm_look("x", &pid), VM_LIVES);
		assert_int_equal(pid, 0);
		assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
		assert_int_equal(vm_look("x", &pid), VM_DEAD);
	}
}

static const char *said(const json_t *report, const char *key)
{
	return json_string_value(json_object_get(report, key));
}

static void test_exit_report(void **state)
{
	json_t *j;

	assert_null(vm_exit_report("x"));
	assert_null(vm_exit_report("../x"));
	make_vm("x");
	assert_null(vm_exit_report("x"));
	put_file("x", "exit.json",
		"{\"event\": \"exit\", \"id\": \"y\", \"reason\": \"reboot\", \"status\": 191, "
		"\"text\": \"t\", \"console\": \"c\"}");
	j = vm_exit_report("x");
	assert_int_equal(json_object_size(j), 4);
	assert_string_equal(said(j, "reason"), "reboot");
	assert_int_equal(json_integer_value(json_object_get(j, "status")), 191);
	assert_string_equal(said(j, "text"), "t");
	assert_string_equal(said(j, "console"), "c");
	json_decref(j);
	put_file("x", "exit.json",
		"{\"reason\": [], \"status\": 256, \"text\": {}, \"state\": \"running\"}");
	j = vm_exit_report("x");
	assert_true(json_is_object(j) && json_object_size(j) == 0);
	json_decref(j);
}

/* Whatever a VM leaves in that place, nobody waits for it, follows it, or reads it for long. */
static void test_exit_reports_that_are_none(void **state)
{
	static const char *const texts[] = {"", "{", "[]", "17", "\"text\"", "\xff\xfe",
		"{\"a\": 1} x", "{\"text\": \"a\", \"text\": \"b\"}"};
	char path[256], other[256], big[20000] = "{\"text\": \"";

	make_vm("x");
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		put_file("x", "exit.json", texts[i]);
		assert_null(vm_exit_report("x"));
	}
	memset(big + strlen(big), 'a', sizeof(big) - strlen(big) - 3);
	memcpy(big + sizeof(big) - 3, "\"}", 3);
	put_file("x", "exit.json", big);
	assert_null(vm_exit_report("x"));
	path_of(path, sizeof(path), "x", "exit.json");
	path_of(other, sizeof(other), "x", "other");
	put_file("x", "other", "{\"text\": \"secret\"}");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(other, path), 0);
	assert_null(vm_exit_report("x"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(vm_exit_report("x"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_null(vm_exit_report("x"));
}

static void test_list(void **state)
{
	char **ids;
	struct err e;
	size_t n;

	make_vm("b");
	make_vm("a");
	make_vm("c");
	put_file("a", "../no-directory", "");
	assert_int_equal(vm_list(&ids, &n, &e), 0);
	assert_int_equal(n, 3);
	assert_string_equal(ids[0], "a");
	assert_string_equal(ids[1], "b");
	assert_string_equal(ids[2], "c");
	vm_list_free(ids, n);
	setenv("KELVIN_RUN_DIR", "/nonexistent", 1);
	assert_int_equal(vm_list(&ids, &n, &e), 0);
	assert_int_equal(n, 0);
	vm_list_free(ids, n);
}

static void test_kill_monitor(void **state)
{
	struct err e;
	pid_t child;
	int status;

	make_vm("x");
	child = start_monitor("x");
	assert_int_equal(vm_wait_gone("x", child, 5000000, &e), -ETIMEDOUT);
	assert_int_equal(vm_sweep("x", 0, &e), -EBUSY);
	assert_int_equal(vm_kill_process("x", NULL, &e), 0);
	assert_int_equal(waitpid(child, &status, WNOHANG), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(vm_wait_gone("x", child, 5000000, &e), 0);
	assert_int_equal(vm_sweep("x", 0, &e), 0);
	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
	assert_int_equal(vm_sweep("x", 0, &e), 0);
}

/* A process that has nothing to do with the VM, but the pid in its file. */
static void test_no_bystander_is_killed(void **state)
{
	struct err e;
	int status;
	pid_t child;

	make_vm("x");
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	put_pid("x", child);
	assert_int_equal(vm_kill_process("x", NULL, &e), -EPERM);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	end_process(child);
	/* Gone already: fine. */
	assert_int_equal(vm_kill_process("x", NULL, &e), 0);
}

static void test_sweep_removes_only_ours(void **state)
{
	char path[256], kept[256];
	struct err e;

	make_vm("x");
	put_file("x", "log", "l");
	put_file("x", "exit.json", "{}");
	put_file("x", "thesis", "t");
	assert_int_equal(vm_sweep("x", 0, &e), -ENOTEMPTY);
	assert_int_equal(vm_look("x", NULL), VM_ENDED);
	path_of(path, sizeof(path), "x", "log");
	assert_int_equal(access(path, F_OK), 0);
	path_of(path, sizeof(path), "x", "thesis");
	assert_int_equal(unlink(path), 0);
	/* What a service of the host listens on is its own. */
	put_file("x", "vsock.sock_53", "");
	assert_int_equal(vm_sweep("x", 0, &e), 0);
	path_of(path, sizeof(path), "x", "vsock.sock_53");
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
	assert_int_equal(unlink(path), 0);
	/* A vsock.sock that points at a file which is no socket: the file stays. */
	put_file("x", "../kept", "k");
	path_of(kept, sizeof(kept), "kept", NULL);
	path_of(path, sizeof(path), "x", "vsock.sock");
	assert_int_equal(symlink(kept, path), 0);
	assert_int_equal(vm_sweep("x", 0, &e), 0);
	assert_int_equal(access(kept, F_OK), 0);
	assert_int_equal(vm_look("x", NULL), VM_ABSENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directories_that_are_no_vms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pid_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_by_pid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_pid_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exit_report, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exit_reports_that_are_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill_monitor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_bystander_is_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sweep_removes_only_ours, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
