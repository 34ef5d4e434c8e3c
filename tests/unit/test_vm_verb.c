/* SPDX-License-Identifier: Apache-2.0 */
/* test_vm_verb.c - ages and dates read well; timeouts fit; threads are the VM's own, with the
 * host's ids. */
#include "monitor/vm_verb.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/tmpdir.h"
#include "vcpu/vm.h"

static void test_show_age(void **state)
{
	static const struct {
		u64 ms;
		const char *text;
	} cases[] = {
		{0, "0ms"}, {999, "999ms"}, {1000, "1s"}, {59999, "59s"}, {60000, "1m00s"},
		{3599999, "59m59s"}, {3600000, "1h00m"}, {86399999, "23h59m"}, {86400000, "1d00h"},
		{UINT64_MAX, "213503982334d14h"},
	};
	char buf[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(show_age(cases[i].ms, buf, sizeof(buf)), cases[i].text);
	assert_string_equal(show_date(1000000000000000000ull, buf, sizeof(buf)),
		"2001-09-09 01:46:40 UTC");
}

static void test_timeouts(void **state)
{
	assert_int_equal(timeout_ms(0), 1);
	assert_int_equal(timeout_ms(999999), 1);
	assert_int_equal(timeout_ms(2000000000), 2000);
	assert_int_equal(timeout_ms(UINT64_MAX), INT32_MAX);
}

/* As many as it names, none is there but those it can have. */
static void test_host_threads(void **state)
{
	json_t *list = json_array(), *facts;
	char name[32] = "";
	FILE *f = fopen("/proc/self/comm", "r");

	assert_non_null(f);
	assert_non_null(fgets(name, sizeof(name), f));
	fclose(f);
	name[strcspn(name, "\n")] = 0;
	for (unsigned i = 0; i < 40; i++)
		json_array_append_new(list, json_pack("{s:s, s:i}", "name", name, "tid", 4));
	json_array_set_new(list, 1, json_pack("{s:s, s:i}", "name", "no such thread", "tid", 4));
	json_array_set_new(list, 2, json_string("no object"));
	facts = json_pack("{s:i, s:o}", "pid", (int)getpid(), "threads", list);
	name_host_threads(facts);
	assert_int_equal(json_array_size(list), VCPU_MAX);
	for (unsigned i = 0; i < VCPU_MAX; i++) {
		const json_t *tid = json_object_get(json_array_get(list, i), "tid");
		int want = i == 1 || i == 2 ? 0 : (int)getpid();

		assert_int_equal(json_integer_value(tid), want);
	}
	json_decref(facts);
}

/* What VM "x", played by a child called "cpu 0", tells of itself; its pid file has our pid. */
static pid_t play_vm(const char *facts)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char path[256], buf[4096];
	pid_t pid;
	FILE *f;
	int fd;

	assert_int_equal(vm_path(path, sizeof(path), "x", NULL, NULL), 0);
	mkdir(path, 0700);
	assert_int_equal(vm_path(path, sizeof(path), "x", "pid", NULL), 0);
	f = fopen(path, "w");
	fprintf(f, "%d\n", (int)getpid());
	fclose(f);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(vm_path(sa.sun_path, sizeof(sa.sun_path), "x", "api.sock", NULL), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 16), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int c;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		c = accept(fd, NULL, NULL);
		dprintf(c, "HTTP/1.1 200 \r\nContent-Length: %zu\r\n\r\n%s", strlen(facts), facts);
		while (recv(c, buf, sizeof(buf), 0) > 0)
			;
		_exit(0);
	}
	close(fd);
	return pid;
}

/* A VM in its guest's hands names the threads that it likes, of the process that it likes. */
static void test_threads_are_its_own(void **state)
{
	char *base = tmpdir_make(), facts[65536];
	json_t *j = NULL, *list, *t;
	struct err e;
	pid_t pid;
	int n;
	size_t i;

	setenv("KELVIN_RUN_DIR", base, 1);
	prctl(PR_SET_NAME, "cpu 0");
	n = sprintf(facts, "{\"pid\":%d,\"threads\":[7,{\"name\":[]},{\"name\":\"none\",\"tid\":1}",
		(int)getppid());
	for (i = 0; i < 1000; i++)
		n += sprintf(facts + n, ",{\"name\":\"cpu 0\"}");
	sprintf(facts + n, "]}");
	pid = play_vm(facts);
	assert_int_equal(ask_facts("x", &j, &e), 0);
	assert_int_equal(json_integer_value(json_object_get(j, "pid")), getpid());
	list = json_object_get(j, "threads");
	assert_int_equal(json_array_size(list), VCPU_MAX);
	json_array_foreach(list, i, t)
		assert_int_equal(json_integer_value(json_object_get(t, "tid")),
			i < 3 ? 0 : getpid());
	json_decref(j);
	waitpid(pid, NULL, 0);
	tmpdir_remove(base);
	free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_show_age),
		cmocka_unit_test(test_threads_are_its_own),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_host_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
