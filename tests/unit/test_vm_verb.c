/* SPDX-License-Identifier: Apache-2.0 */
/* test_vm_verb.c - ages and dates read well; timeouts fit; threads get the
 * host's ids. */
#include "monitor/vm_verb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

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

/* As many as it names, none is looked for but those it can have. */
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
	for (unsigned i = 0; i < 40; i++) {
		const json_t *tid = json_object_get(json_array_get(list, i), "tid");
		int want = i == 1 || i == 2 ? 0 : i < 32 ? (int)getpid() : 4;

		assert_int_equal(json_integer_value(tid), want);
	}
	json_decref(facts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_show_age),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_host_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
