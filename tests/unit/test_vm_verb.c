/* SPDX-License-Identifier: Apache-2.0 */
/* test_vm_verb.c - options may come after operands; ages and dates read well. */
#include "monitor/vm_verb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define WORDS_MAX 12

static const struct opt_spec opts[] = {
	{"stop", NULL, "", 1},
	{"timeout", "TIME", "", 2},
	{"wait", "[TIME]", "", 3},
};

static const struct opt_parser page = {.opts = opts, .opt_count = ARRAY_SIZE(opts)};

static void test_options_first(void **state)
{
	static const struct {
		const char *name, *in[WORDS_MAX], *out[WORDS_MAX];
	} cases[] = {
		{"nothing", {"v"}, {"v"}},
		{"in order", {"v", "--stop", "id"}, {"v", "--stop", "id"}},
		{"behind", {"v", "id", "dir", "--stop"}, {"v", "--stop", "id", "dir"}},
		{"with argument", {"v", "id", "--timeout", "2s", "dir"},
			{"v", "--timeout", "2s", "id", "dir"}},
		{"shortened", {"v", "id", "--time", "2s"}, {"v", "--time", "2s", "id"}},
		{"argument with =", {"v", "id", "--timeout=2s", "dir"},
			{"v", "--timeout=2s", "id", "dir"}},
		{"optional argument", {"v", "id", "--wait", "dir"}, {"v", "--wait", "id", "dir"}},
		{"several", {"v", "a", "--stop", "b", "--timeout", "1", "c"},
			{"v", "--stop", "--timeout", "1", "a", "b", "c"}},
		{"argument missing", {"v", "a", "--timeout"}, {"v", "--timeout", "a"}},
		{"unknown", {"v", "a", "--what", "b"}, {"v", "--what", "a", "b"}},
		{"dashes end options", {"v", "a", "--", "--stop"}, {"v", "a", "--", "--stop"}},
		{"one dash is an operand", {"v", "-", "--stop"}, {"v", "--stop", "-"}},
	};
	char *argv[WORDS_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int argc = 0;

		for (; cases[i].in[argc]; argc++)
			argv[argc] = (char *)cases[i].in[argc];
		options_first(&page, argc, argv);
		for (int k = 0; k < argc; k++)
			if (strcmp(argv[k], cases[i].out[k]))
				fail_msg("%s: word %d is %s", cases[i].name, k, argv[k]);
	}
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_first),
		cmocka_unit_test(test_show_age),
		cmocka_unit_test(test_timeouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
