/* SPDX-License-Identifier: Apache-2.0 */
/* test_cpu_spec.c - CPU templates as files: what they mean, and what is wrong with bad ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/cpu_spec.h"
#include "tests/lib/tmpdir.h"

static struct cpu_template t;

static int parse(const char *text, struct err *e)
{
	json_error_t je;
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &je);
	int r;

	if (!j)
		fail_msg("the test's own JSON: %s", je.text);
	*e = (struct err){0};
	r = cpu_config_from_json(&t, j, e);
	json_decref(j);
	return r;
}

static void test_whole_file(void **state)
{
	struct err e;

	assert_int_equal(parse("{\"kvm_capabilities\": [\"56\", \"!121\", \"0x8a\"],"
		"\"cpuid_modifiers\": [{\"leaf\": \"0x7\", \"subleaf\": \"0b1\", \"flags\": 1,"
		"\"modifiers\": [{\"register\": \"ebx\", \"bitmap\": "
		"\"0bxxxx_xxxx_xxxx_xxx0_xxxx_xxxx_xx1x_xxxx\"},"
		"{\"register\": \"edx\", \"bitmap\": \"0b10\"}]},"
		"{\"leaf\": \"2147483649\", \"subleaf\": \"0\", \"flags\": 0, \"modifiers\": []}],"
		"\"msr_modifiers\": [{\"addr\": \"0x10a\", \"bitmap\": \"0b1x0\"}]}", &e), 0);
	assert_int_equal(t.level, CPU_LEVEL_HOST);
	assert_int_equal(t.cap_count, 2);
	assert_int_equal(t.cap[0], 56);
	assert_int_equal(t.cap[1], 0x8a);
	assert_int_equal(t.leaf_count, 2);
	assert_int_equal(t.leaf[0].leaf, 7);
	assert_int_equal(t.leaf[0].sub, 1);
	assert_int_equal(t.leaf[0].care[0], 0);
	assert_int_equal(t.leaf[0].care[1], 1u << 16 | 1u << 5);
	assert_int_equal(t.leaf[0].value[1], 1u << 5);
	assert_int_equal(t.leaf[0].care[3], 3);
	assert_int_equal(t.leaf[0].value[3], 2);
	assert_int_equal(t.leaf[1].leaf, 0x80000001);
	assert_int_equal(t.msr_count, 1);
	assert_int_equal(t.msr[0].index, 0x10a);
	assert_int_equal(t.msr[0].care, 5);
	assert_int_equal(t.msr[0].value, 4);
}

static void test_full_width(void **state)
{
	struct err e;

	assert_int_equal(parse("{\"msr_modifiers\": [{\"addr\": \"0xffffffff\", \"bitmap\": "
		"\"0b1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0\"}]}", &e), 0);
	assert_true(t.msr[0].care == (1ull << 63 | 1));
	assert_true(t.msr[0].value == 1ull << 63);
	assert_int_equal(parse("{}", &e), 0);
	assert_int_equal(parse("{\"reg_modifiers\": [], \"vcpu_features\": null, "
			       "\"cpuid_modifiers\": []}", &e), 0);
}

/* A leaf with @inside among its members, for the table below. */
#define LEAF(inside) "{\"cpuid_modifiers\": [{" inside "}]}"
#define GOOD "\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": 0, "
#define MSR(inside) "{\"msr_modifiers\": [{\"addr\": \"1\", \"bitmap\": \"0b0\"}, {" inside "}]}"

static void test_bad_files_are_refused_by_place(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"[]", "not an object"},
		{"{\"cpuid_modifier\": []}", "\"cpuid_modifier\" is not known"},
		{"{\"reg_modifiers\": [{}]}", "reg_modifiers[0]: is for arm"},
		{"{\"vcpu_features\": [{\"index\": 0}]}", "vcpu_features[0]: is for arm"},
		{"{\"cpuid_modifiers\": {}}", "cpuid_modifiers is not an array"},
		{"{\"cpuid_modifiers\": [1]}", "cpuid_modifiers[0]: is not an object"},
		{LEAF("\"subleaf\": \"0\", \"flags\": 0, \"modifiers\": []"), "leaf is missing"},
		{LEAF("\"leaf\": 1, \"subleaf\": \"0\", \"flags\": 0"), "leaf is missing, or not"},
		{LEAF("\"leaf\": \"1\", \"flags\": 0, \"modifiers\": []"), "subleaf is missing"},
		{LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"modifiers\": []"), "flags is missing"},
		{LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": 8"), "flags is missing, or"},
		{LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": -1"), "flags is missing, or"},
		{LEAF(GOOD "\"x\": 0"), "\"x\" is not known"},
		{"{\"cpuid_modifiers\": [{\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": 0}]}",
			"modifiers is missing"},
		{LEAF("\"leaf\": \"\", \"subleaf\": \"0\""), "leaf \"\" is not a number"},
		{LEAF("\"leaf\": \"0x\", \"subleaf\": \"0\""), "leaf \"0x\" is not a number"},
		{LEAF("\"leaf\": \"0x1g\", \"subleaf\": \"0\""), "is not a number"},
		{LEAF("\"leaf\": \"0b2\", \"subleaf\": \"0\""), "is not a number"},
		{LEAF("\"leaf\": \"-1\", \"subleaf\": \"0\""), "is not a number"},
		{LEAF("\"leaf\": \"0x100000000\", \"subleaf\": \"0\""), "is not a number"},
		{LEAF("\"leaf\": \"99999999999999999999999\", \"subleaf\": \"0\""), "not a number"},
		{LEAF(GOOD "\"modifiers\": [{\"register\": \"rax\", \"bitmap\": \"0b1\"}]"),
			"cpuid_modifiers[0]: modifiers[0]: register \"rax\""},
		{LEAF(GOOD "\"modifiers\": [{\"register\": \"eax\"}]"), "bitmap is missing"},
		{LEAF(GOOD "\"modifiers\": [{\"bitmap\": \"0b1\"}]"), "register is missing"},
		{LEAF(GOOD "\"modifiers\": [{\"register\": \"eax\", \"bitmap\": \"0b1\"},"
			   "{\"register\": \"eax\", \"bitmap\": \"0b0\"}]"),
			"modifiers[1]: register eax comes twice"},
		{LEAF(GOOD "\"modifiers\": [{\"register\": \"eax\", \"bitmap\": "
			   "\"0bx00000000000000000000000000000000\"}]"),
			"more than 32 bits"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"1x\""), "msr_modifiers[1]: bitmap \"1x\" does"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"0b\""), "is empty"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"0b_\""), "is empty"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"0b2\""), "'2' is none of"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"0b1X\""), "'X' is none of"},
		{MSR("\"addr\": \"2\", \"bitmap\": \"\""), "does not begin"},
		{MSR("\"addr\": \"2\", \"bitmap\": 7"), "bitmap is missing, or not a string"},
		{MSR("\"bitmap\": \"0b1\""), "addr is missing"},
		{"{\"kvm_capabilities\": [56]}", "kvm_capabilities[0]: is not a capability"},
		{"{\"kvm_capabilities\": [\"1\", \"!\"]}", "kvm_capabilities[1]: is not"},
		{"{\"kvm_capabilities\": [\"!!1\"]}", "is not a capability"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e;

		t.level = CPU_LEVEL_V3;
		if (!parse(cases[i].text, &e))
			fail_msg("accepted: %s", cases[i].text);
		if (!strstr(e.msg, cases[i].says))
			fail_msg("\"%s\" is not in \"%s\"", cases[i].says, e.msg);
		assert_int_equal(t.level, CPU_LEVEL_V3); /* untouched */
	}
}

static void test_limits(void **state)
{
	struct err e;
	json_t *j = json_object(), *list = json_array();

	json_object_set_new(j, "kvm_capabilities", list);
	for (unsigned i = 0; i < CPU_CAPS_MAX; i++)
		json_array_append_new(list, json_string("1"));
	assert_int_equal(cpu_config_from_json(&t, j, &e), 0);
	assert_int_equal(t.cap_count, CPU_CAPS_MAX);
	json_array_append_new(list, json_string("1"));
	assert_int_equal(cpu_config_from_json(&t, j, &e), -E2BIG);
	json_decref(j);
	for (unsigned extra = 0; extra < 2; extra++) {
		j = json_object();
		list = json_array();
		json_object_set_new(j, "cpuid_modifiers", list);
		for (unsigned i = 0; i < CPU_LEAVES_MAX + extra; i++)
			json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:[]}", "leaf", "1",
				"subleaf", "0", "flags", 0, "modifiers"));
		assert_int_equal(cpu_config_from_json(&t, j, &e), extra ? -E2BIG : 0);
		json_decref(j);
	}
}

static void test_option(void **state)
{
	char *dir = tmpdir_make(), path[300];
	struct err e;
	FILE *f;

	assert_int_equal(cpu_option(&t, "baseline-v2", &e), 0);
	assert_int_equal(t.level, CPU_LEVEL_V2);
	assert_int_equal(cpu_option(&t, "baseline-v3", &e), 0);
	assert_int_equal(t.level, CPU_LEVEL_V3);
	assert_int_equal(cpu_option(&t, "host", &e), 0);
	assert_int_equal(t.level, CPU_LEVEL_HOST);
	assert_int_equal(cpu_option(&t, "baseline-v1", &e), -ENOENT);
	assert_non_null(strstr(e.msg, "baseline-v2, baseline-v3"));
	assert_true(cpu_option(&t, dir, &e) < 0);
	snprintf(path, sizeof(path), "%s/t.json", dir);
	assert_int_equal(cpu_option(&t, path, &e), -ENOENT);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(cpu_option(&t, path, &e), -EINVAL); /* and does not wait */
	unlink(path);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("{\"kvm_capabilities\":\n [\"7\"", f);
	fclose(f);
	assert_int_equal(cpu_option(&t, path, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "is not JSON: line 2"));
	f = fopen(path, "a");
	assert_non_null(f);
	fputs("]}", f);
	fclose(f);
	assert_int_equal(cpu_option(&t, path, &e), 0);
	assert_int_equal(t.cap[0], 7);
	assert_int_equal(truncate(path, 2 << 20), 0);
	assert_int_equal(cpu_option(&t, path, &e), -EINVAL);
	tmpdir_remove(dir);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_file),
		cmocka_unit_test(test_full_width),
		cmocka_unit_test(test_bad_files_are_refused_by_place),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
