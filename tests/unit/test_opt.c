/* SPDX-License-Identifier: Apache-2.0 */
/* test_opt.c - option parsing, the --help page, numbers with units. */
#include "monitor/verb.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#undef fail /* cmocka's; the one of verb.h is meant here */

enum { OPT_MEMORY = 1, OPT_METRICS, OPT_WAIT, OPT_JSON, OPT_LONG };

static const struct opt_spec specs[] = {
	{"memory", "SIZE", "guest RAM (default 128M)", OPT_MEMORY},
	{"metrics", "FILE", "write counters to FILE", OPT_METRICS},
	{"wait-ready", "[TIMEOUT]", "return once the guest says it is ready", OPT_WAIT},
	{"json", NULL, "print JSON", OPT_JSON},
	{"an-option-too-long-for-the-column", "ARGUMENT", "its help is on the next line", OPT_LONG},
};

static const struct opt_parser fresh = {
	.verb = "run",
	.usage = "run [options] KERNEL [-- WORDS]",
	.summary = "Boots a kernel.",
	.examples = "  kelvin run --memory 64M k\n",
	.opts = specs,
	.opt_count = sizeof(specs) / sizeof(specs[0]),
};

#define ARGV_MAX 12

/* What one command line gave: ids and arguments in order, and what was printed on stderr. */
struct parsed {
	int ids[ARGV_MAX];
	const char *args[ARGV_MAX];
	unsigned count;
	int last; /* 0 or -1 */
	int argc, first_operand;
	const char *argv[ARGV_MAX + 1];
	char text[1024];
};

/* Runs @body with descriptor @fd going to a buffer. */
struct capture {
	int fd, saved, to;
};

static struct capture capture_begin(FILE *stream)
{
	struct capture c = {.fd = fileno(stream)};

	fflush(stream);
	c.saved = dup(c.fd);
	c.to = memfd_create("capture", MFD_CLOEXEC);
	assert_true(c.saved >= 0 && c.to >= 0 && dup2(c.to, c.fd) == c.fd);
	return c;
}

static void capture_end(struct capture *c, FILE *stream, char *text, size_t cap)
{
	ssize_t n;

	fflush(stream);
	dup2(c->saved, c->fd);
	close(c->saved);
	n = pread(c->to, text, cap - 1, 0);
	assert_true(n >= 0);
	text[n] = 0;
	close(c->to);
}

static struct parsed parse(const char *const *words)
{
	struct parsed r = {.argc = 0};
	struct opt_parser p = fresh;
	struct capture c;
	const char *arg = NULL;
	int id;

	r.argv[r.argc++] = "run";
	while (words[r.argc - 1]) {
		r.argv[r.argc] = words[r.argc - 1];
		r.argc++;
	}
	c = capture_begin(stderr);
	opt_begin(&p, r.argc, (char **)r.argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		r.ids[r.count] = id;
		r.args[r.count++] = arg;
	}
	capture_end(&c, stderr, r.text, sizeof(r.text));
	r.last = id;
	r.first_operand = optind;
	return r;
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void assert_bad(const struct parsed *r, const char *line)
{
	assert_int_equal(r->last, -1);
	assert_string_equal(r->text, line);
}

static void test_options_and_operands(void **state)
{
	struct parsed r = PARSE("--memory", "64M", "--json", "--metrics=f", "kernel", "x");

	assert_int_equal(r.last, 0);
	assert_int_equal(r.count, 3);
	assert_int_equal(r.ids[0], OPT_MEMORY);
	assert_string_equal(r.args[0], "64M");
	assert_int_equal(r.ids[1], OPT_JSON);
	assert_null(r.args[1]);
	assert_int_equal(r.ids[2], OPT_METRICS);
	assert_string_equal(r.args[2], "f");
	assert_string_equal(r.argv[r.first_operand], "kernel");
	assert_string_equal(r.text, "");
}

static void test_nothing_to_parse(void **state)
{
	struct parsed r = parse((const char *const[]){NULL});

	assert_int_equal(r.last, 0);
	assert_int_equal(r.count, 0);
	assert_int_equal(r.first_operand, r.argc);
}

static void test_options_after_operands(void **state)
{
	struct parsed r = PARSE("id", "--json", "dir", "--memory", "1M", "-", "--wait-ready");

	assert_int_equal(r.last, 0);
	assert_int_equal(r.count, 3);
	assert_string_equal(r.args[1], "1M");
	assert_string_equal(r.argv[r.first_operand], "id");
	assert_string_equal(r.argv[r.first_operand + 1], "dir");
	assert_string_equal(r.argv[r.first_operand + 2], "-");
	r = PARSE("id", "--nonsense", "x");
	assert_bad(&r, "kelvin run: unknown option --nonsense (see kelvin run --help)\n");
}

static void test_double_dash_ends_the_options(void **state)
{
	struct parsed r = PARSE("--json", "--", "--memory");

	assert_int_equal(r.last, 0);
	assert_int_equal(r.count, 1);
	assert_string_equal(r.argv[r.first_operand], "--memory");
}

static void test_optional_argument(void **state)
{
	struct parsed r = PARSE("--wait-ready", "--wait-ready=250ms", "k");

	assert_int_equal(r.count, 2);
	assert_null(r.args[0]);
	assert_string_equal(r.args[1], "250ms");
	assert_string_equal(r.argv[r.first_operand], "k");
}

static void test_abbreviation(void **state)
{
	struct parsed r = PARSE("--mem", "64M", "--j");

	assert_int_equal(r.last, 0);
	assert_int_equal(r.ids[0], OPT_MEMORY);
	assert_int_equal(r.ids[1], OPT_JSON);
}

static void test_ambiguous_abbreviation(void **state)
{
	struct parsed r = PARSE("--json", "--me=64M");

	assert_int_equal(r.count, 1);
	assert_bad(&r, "kelvin run: option --me may mean --memory, --metrics "
		"(see kelvin run --help)\n");
}

static void test_unknown_option(void **state)
{
	struct parsed r = PARSE("--memory", "1M", "--colour=red", "k");

	assert_bad(&r, "kelvin run: unknown option --colour (see kelvin run --help)\n");
	r = PARSE("-m", "64M");
	assert_bad(&r, "kelvin run: unknown option -m: options have long names "
		"(see kelvin run --help)\n");
	r = PARSE("-json");
	assert_bad(&r, "kelvin run: unknown option -json: options have long names "
		"(see kelvin run --help)\n");
	r = PARSE("--=1");
	assert_bad(&r, "kelvin run: unknown option -- (see kelvin run --help)\n");
	r = PARSE("--%s%n");
	assert_bad(&r, "kelvin run: unknown option --%s%n (see kelvin run --help)\n");
}

static void test_missing_argument(void **state)
{
	struct parsed r = PARSE("--json", "--mem");

	assert_bad(&r, "kelvin run: option --memory needs an argument (see kelvin run --help)\n");
}

static void test_argument_not_wanted(void **state)
{
	struct parsed r = PARSE("--json=1");

	assert_bad(&r, "kelvin run: option --json takes no argument (see kelvin run --help)\n");
}

/* getopt keeps its place in globals: a second parse must begin anew. */
static void test_parses_twice(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct parsed r = PARSE("--json", "--memory", "1M", "k");

		assert_int_equal(r.count, 2);
		assert_string_equal(r.argv[r.first_operand], "k");
	}
}

static void test_help_page(void **state)
{
	const char *argv[] = {"run", "--json", "--help", "--nonsense", NULL};
	struct capture c = capture_begin(stdout);
	char text[2048];
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct opt_parser p = fresh;
		const char *arg;

		opt_begin(&p, 4, (char **)argv);
		while (opt_next(&p, &arg) > 0)
			;
		_exit(99); /* --help did not end the process */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	capture_end(&c, stdout, text, sizeof(text));
	assert_int_equal(status, 0);
	assert_string_equal(text,
		"usage: kelvin run [options] KERNEL [-- WORDS]\n"
		"\n"
		"Boots a kernel.\n"
		"\n"
		"options:\n"
		"  --memory SIZE           guest RAM (default 128M)\n"
		"  --metrics FILE          write counters to FILE\n"
		"  --wait-ready[=TIMEOUT]  return once the guest says it is ready\n"
		"  --json                  print JSON\n"
		"  --an-option-too-long-for-the-column ARGUMENT\n"
		"                          its help is on the next line\n"
		"  --help                  show this page\n"
		"\n"
		"A SIZE is in bytes, or has a unit: 4096, 128M, 1G.\n"
		"A TIME is in seconds, or has a unit: 5, 250ms, 2s, 1m.\n"
		"\n"
		"examples:\n"
		"  kelvin run --memory 64M k\n");
}

static void test_fail_and_usage_error(void **state)
{
	struct capture c = capture_begin(stderr);
	struct err e;
	char text[256];
	int failed, misused;

	err_set(&e, -EIO, "cannot do it: %d%%", 7);
	failed = fail(&e);
	misused = usage_error(&fresh, "need a %s", "KERNEL");
	capture_end(&c, stderr, text, sizeof(text));
	assert_int_equal(failed, 1);
	assert_int_equal(misused, 2);
	assert_string_equal(text, "kelvin: cannot do it: 7%\n"
		"kelvin run: need a KERNEL (see kelvin run --help)\n");
}

/* ---- numbers ---- */

static void test_parse_size(void **state)
{
	static const struct {
		const char *s;
		u64 v;
	} good[] = {
		{"0", 0}, {"4096", 4096}, {"1K", 1024}, {"128M", 128ull << 20}, {"1g", 1ull << 30},
		{"2T", 2ull << 40}, {"18446744073709551615", UINT64_MAX},
		{"16777215T", 16777215ull << 40}, {"007", 7}};
	static const char *const bad[] = {"", "M", "-1", "+1", " 1", "1 ", "1MB", "1.5G", "0x10",
		"18446744073709551616", "16777216T", "99999999999999999999999", "1M1", "1Q"};
	u64 v = 42;
	struct err e;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_size(good[i].s, &v, NULL), 0);
		assert_int_equal(v, good[i].v);
	}
	v = 42;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_size(bad[i], &v, &e), -EINVAL);
		assert_int_equal(v, 42);
	}
	assert_string_equal(e.msg, "\"1Q\" is not a size (such as 128M, 1G, or 4096, which is bytes)");
}

static void test_parse_time(void **state)
{
	static const struct {
		const char *s;
		u64 ns;
	} good[] = {
		{"0", 0}, {"5", 5000000000}, {"250ms", 250000000}, {"2s", 2000000000},
		{"1m", 60000000000}, {"3us", 3000}, {"9ns", 9}, {"1h", 3600000000000},
		{"18446744073s", 18446744073000000000ull}};
	static const char *const bad[] = {"", "ms", "-1s", "1.5s", "1 s", "2d", "18446744074s",
		"5124096h", "1sm"};
	u64 v = 42;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_time(good[i].s, &v, NULL), 0);
		assert_int_equal(v, good[i].ns);
	}
	v = 42;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_time(bad[i], &v, NULL), -EINVAL);
	assert_int_equal(v, 42);
}

static void test_parse_uint(void **state)
{
	static const char *const bad[] = {"", "0", "33", "1x", "-1", "0x1", "4294967297",
		"18446744073709551617"};
	struct err e;
	u64 v = 42;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_uint(bad[i], 1, 32, &v, &e), -EINVAL);
	assert_int_equal(v, 42);
	parse_uint("33", 1, 32, &v, &e);
	assert_string_equal(e.msg, "\"33\" is not a number from 1 to 32");
	assert_int_equal(parse_uint("1", 1, 32, &v, &e), 0);
	assert_int_equal(v, 1);
	assert_int_equal(parse_uint("32", 1, 32, &v, &e), 0);
	assert_int_equal(v, 32);
	assert_int_equal(parse_uint("18446744073709551615", 0, UINT64_MAX, &v, &e), 0);
	assert_int_equal(v, UINT64_MAX);
}

static void test_show_size(void **state)
{
	static const struct {
		u64 bytes;
		const char *s;
	} cases[] = {
		{0, "0"}, {1023, "1023"}, {1024, "1K"}, {1536, "1.5K"}, {128ull << 20, "128M"},
		{3355443, "3.2M"}, {1610612736, "1.5G"}, {1048575, "1.0M"}, {1 << 20, "1M"},
		{1023ull << 10, "1023K"}, {3ull << 40, "3T"}, {UINT64_MAX, "16.0E"}};
	char buf[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(show_size(cases[i].bytes, buf, sizeof(buf)), cases[i].s);
}

static void test_show_ns(void **state)
{
	static const struct {
		u64 ns;
		const char *s;
	} cases[] = {
		{0, "0 ns"}, {999, "999 ns"}, {1000, "1.0 us"}, {850000, "850 us"},
		{999499, "999 us"}, {999500, "1.0 ms"}, {12300000, "12.3 ms"},
		{99949999, "99.9 ms"},
		{99950000, "100 ms"}, {2100000000, "2.1 s"}, {999600000, "1.0 s"},
		{7200000000000, "7200 s"}};
	char buf[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(show_ns(cases[i].ns, buf, sizeof(buf)), cases[i].s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_and_operands),
		cmocka_unit_test(test_nothing_to_parse),
		cmocka_unit_test(test_options_after_operands),
		cmocka_unit_test(test_double_dash_ends_the_options),
		cmocka_unit_test(test_optional_argument),
		cmocka_unit_test(test_abbreviation),
		cmocka_unit_test(test_ambiguous_abbreviation),
		cmocka_unit_test(test_unknown_option),
		cmocka_unit_test(test_missing_argument),
		cmocka_unit_test(test_argument_not_wanted),
		cmocka_unit_test(test_parses_twice),
		cmocka_unit_test(test_help_page),
		cmocka_unit_test(test_fail_and_usage_error),
		cmocka_unit_test(test_parse_size),
		cmocka_unit_test(test_parse_time),
		cmocka_unit_test(test_parse_uint),
		cmocka_unit_test(test_show_size),
		cmocka_unit_test(test_show_ns),
	};

	return cmocka_run_group_tests_name("opt", tests, NULL, NULL);
}
