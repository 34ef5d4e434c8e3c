/* SPDX-License-Identifier: Apache-2.0 */
/* test_kv.c - options of the form key=value,key,key=value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "monitor/kv.h"

static const char *const words[] = {"red", "green", NULL};

struct all {
	char text[8];
	bool flag;
	u64 uint, size, time;
	unsigned word;
	struct kv_field f[6];
};

static int parse(struct all *a, const char *text, struct err *e)
{
	*a = (struct all){.uint = 77};
	a->f[0] = (struct kv_field){.key = "text", .type = KV_TEXT, .out = a->text,
		.cap = sizeof(a->text)};
	a->f[1] = (struct kv_field){.key = "flag", .type = KV_FLAG, .out = &a->flag};
	a->f[2] = (struct kv_field){.key = "uint", .type = KV_UINT, .out = &a->uint, .min = 2,
		.max = 9};
	a->f[3] = (struct kv_field){.key = "size", .type = KV_SIZE, .out = &a->size, .min = 1};
	a->f[4] = (struct kv_field){.key = "time", .type = KV_TIME, .out = &a->time,
		.max = 1000000000};
	a->f[5] = (struct kv_field){.key = "word", .type = KV_WORD, .out = &a->word,
		.words = words};
	*e = (struct err){0};
	return kv_parse(text, a->f, ARRAY_SIZE(a->f), e);
}

static void test_each_type(void **state)
{
	struct err e;
	struct all a;

	assert_int_equal(parse(&a, "word=green,time=20ms,size=4K,uint=9,flag,text=a,,b", &e), 0);
	assert_string_equal(a.text, "a,b");
	assert_true(a.flag);
	assert_int_equal(a.uint, 9);
	assert_int_equal(a.size, 4096);
	assert_int_equal(a.time, 20000000);
	assert_int_equal(a.word, 1);
	assert_int_equal(parse(&a, "flag=off", &e), 0);
	assert_false(a.flag);
	assert_true(a.f[1].seen);
	assert_false(a.f[2].seen);
	assert_int_equal(a.uint, 77);
	assert_int_equal(parse(&a, "text=x=y", &e), 0);
	assert_string_equal(a.text, "x=y");
	assert_int_equal(parse(&a, "text=,,,", &e), -EINVAL); /* and then an empty key */
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *says;
	} t[] = {
		{"", "unknown key \"\""},
		{"colour=red", "unknown key \"colour\": text, flag, uint, size, time and word"},
		{"uint=1", "uint: \"1\" is not a number from 2 to 9"},
		{"uint=10", "uint: \"10\""},
		{"uint=3x", "uint: \"3x\""},
		{"uint", "uint: wants a value"},
		{"uint=", "uint: wants a value"},
		{"size=0", "size: is not from 1"},
		{"size=much", "size: \"much\" is not a size"},
		{"time=2s", "time: is not from 0 to 1000000000"},
		{"word=blue", "word: red or green, not \"blue\""},
		{"flag=maybe", "flag: on or off, not \"maybe\""},
		{"text=12345678", "text: is longer than 7 bytes"},
		{"uint=3,uint=4", "uint: given twice"},
		{"uint=3,", "unknown key \"\""},
	};
	struct err e;
	struct all a;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(parse(&a, t[i].text, &e), -EINVAL);
		if (!strstr(e.msg, t[i].says))
			fail_msg("\"%s\" is answered by: %s", t[i].text, e.msg);
	}
}

static void test_ids(void **state)
{
	char id[DEV_ID_MAX + 2];
	struct err e;

	assert_int_equal(dev_id_check("root_1-A", &e), 0);
	assert_int_equal(dev_id_check("", &e), -EINVAL);
	assert_int_equal(dev_id_check("a/b", &e), -EINVAL);
	assert_int_equal(dev_id_check("..", &e), -EINVAL);
	memset(id, 'x', sizeof(id));
	id[DEV_ID_MAX] = 0;
	assert_int_equal(dev_id_check(id, &e), 0);
	id[DEV_ID_MAX] = 'x';
	id[DEV_ID_MAX + 1] = 0;
	assert_int_equal(dev_id_check(id, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_type),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
