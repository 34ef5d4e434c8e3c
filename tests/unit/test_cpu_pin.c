/* SPDX-License-Identifier: Apache-2.0 */
/* test_cpu_pin.c - lists of processors: as text, as the kernel takes them, and what they leave. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/cpu_pin.h"

/* Plays vcpu/: notes what it is told. */
static cpu_set_t told[VCPU_MAX];
static unsigned told_count;

void vm_set_affinity(struct vm *vm, unsigned idx, const cpu_set_t *cpus)
{
	told[idx] = *cpus;
	told_count++;
}

static struct cpu_pin p;

static int take(const char *text, struct err *e)
{
	*e = (struct err){0};
	return cpu_pin_option(&p, text, e);
}

static void test_lists(void **state)
{
	static const struct {
		const char *text;
		unsigned count;
		u32 cpu[6];
		int loop;
	} cases[] = {
		{"0", 1, {0}, -1},
		{"0-3", 4, {0, 1, 2, 3}, -1},
		{"0,2,4", 3, {0, 2, 4}, -1},
		{"7,1-2,7", 4, {7, 1, 2, 7}, -1}, /* in this order, also twice */
		{"5-5", 1, {5}, -1},
		{"loop=3", 0, {0}, 3},
		{"1-2,loop=0", 2, {1, 2}, 0},
		{"loop=1023,1023", 1, {1023}, 1023},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e;

		if (take(cases[i].text, &e))
			fail_msg("%s: %s", cases[i].text, e.msg);
		assert_int_equal(p.count, cases[i].count);
		assert_memory_equal(p.cpu, cases[i].cpu, p.count * sizeof(p.cpu[0]));
		assert_int_equal(p.has_loop, cases[i].loop >= 0);
		if (p.has_loop)
			assert_int_equal(p.loop, cases[i].loop);
	}
}

static void test_bad_lists(void **state)
{
	static const char *const cases[] = {"", ",", "1,", ",1", "a", "1-", "-1", "3-1", "1-2-3",
		"1024", "0-1024", "99999999999999999999", "0-32", "0 1", "loop=", "loop=x",
		"loop=1,loop=1", "loop=0-1", "0x1", "vcpus=1"};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e;

		p.count = 77;
		if (!take(cases[i], &e))
			fail_msg("accepted: \"%s\"", cases[i]);
		assert_true(e.msg[0]);
		assert_int_equal(p.count, 77);
	}
}

static cpu_set_t mask(unsigned first, unsigned count)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = first; i < first + count; i++)
		CPU_SET(i, &set);
	return set;
}

static void test_short_list_begins_again(void **state)
{
	cpu_set_t base = mask(0, 8);
	struct err e;

	assert_int_equal(take("4,6", &e), 0);
	told_count = 0;
	cpu_pin_vcpus(&p, 5, &base, NULL);
	assert_int_equal(told_count, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(CPU_COUNT(&told[i]), 1);
		assert_true(CPU_ISSET(i % 2 ? 6 : 4, &told[i]));
	}
}

/* Else the threads would inherit the loop's processor. */
static void test_vcpus_roam_where_only_the_loop_is_pinned(void **state)
{
	cpu_set_t base = mask(0, 8);
	struct err e;

	assert_int_equal(take("loop=2", &e), 0);
	told_count = 0;
	cpu_pin_vcpus(&p, 2, &base, NULL);
	assert_int_equal(told_count, 2);
	assert_true(CPU_EQUAL(&told[0], &base) && CPU_EQUAL(&told[1], &base));
	p = (struct cpu_pin){0};
	told_count = 0;
	cpu_pin_vcpus(&p, 2, &base, NULL);
	assert_int_equal(told_count, 0);
}

static void test_trying(void **state)
{
	cpu_set_t before, base, after;
	struct err e = {0};
	unsigned cpu = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	while (!CPU_ISSET(cpu, &before))
		cpu++;
	p = (struct cpu_pin){.count = 2, .cpu = {cpu, cpu}};
	assert_int_equal(cpu_pin_try(&p, 2, &base, &e), 0);
	assert_true(CPU_EQUAL(&base, &before));
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&after, &before));

	p.cpu[1] = CPU_SETSIZE - 1; /* no machine that runs tests has it */
	assert_int_equal(cpu_pin_try(&p, 2, &base, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "vCPU 1 cannot run on processor 1023"));
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&after, &before));

	p.cpu[1] = cpu;
	assert_int_equal(cpu_pin_try(&p, 1, &base, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "names 2 processors, but there is 1 vCPU"));

	p = (struct cpu_pin){.has_loop = true, .loop = cpu};
	assert_int_equal(cpu_pin_try(&p, 1, &base, &e), 0);
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_int_equal(CPU_COUNT(&after), 1);
	assert_true(CPU_ISSET(cpu, &after));
	assert_true(CPU_EQUAL(&base, &before));
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static void test_who_may_look_before_sleeping(void **state)
{
	static const struct {
		const char *pin;
		unsigned vcpus, host;
		bool spare;
	} cases[] = {
		{NULL, 1, 1, false},      {NULL, 1, 2, true},       {NULL, 2, 2, false},
		{"0", 1, 2, true},        {"0-1", 2, 2, false},     {"0-1", 2, 3, true},
		{"0", 2, 4, false}, /* two vCPUs on one: none of them may look */
		{"0,loop=0", 1, 4, false}, {"0,loop=1", 1, 4, true}, {"0-1,loop=1", 2, 4, false},
		{"loop=0", 1, 1, false},  {"loop=0", 1, 2, true},   {"loop=0", 2, 2, false},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		cpu_set_t base = mask(0, cases[i].host);
		struct err e;

		p = (struct cpu_pin){0};
		if (cases[i].pin)
			assert_int_equal(take(cases[i].pin, &e), 0);
		if (cpu_pin_spares_one(&p, cases[i].vcpus, &base) != cases[i].spare)
			fail_msg("%s, %u vCPUs, %u processors", cases[i].pin ? cases[i].pin : "-",
				cases[i].vcpus, cases[i].host);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_short_list_begins_again),
		cmocka_unit_test(test_vcpus_roam_where_only_the_loop_is_pinned),
		cmocka_unit_test(test_trying),
		cmocka_unit_test(test_who_may_look_before_sleeping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
