/* SPDX-License-Identifier: Apache-2.0 */
/* test_life.c - the legal edges of a machine's life, all of them and no others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "monitor/machine.h"
#include "monitor/base/types.h"

static void test_every_edge(void **state)
{
	static const struct {
		enum life_state from, to;
	} legal[] = {
		{LIFE_NEW, LIFE_CONFIGURED},
		{LIFE_CONFIGURED, LIFE_RUNNING},
		{LIFE_RUNNING, LIFE_PAUSED},
		{LIFE_PAUSED, LIFE_RUNNING},
		{LIFE_PAUSED, LIFE_SNAPSHOTTING},
		{LIFE_SNAPSHOTTING, LIFE_PAUSED},
		{LIFE_NEW, LIFE_STOPPED},
		{LIFE_CONFIGURED, LIFE_STOPPED},
		{LIFE_RUNNING, LIFE_STOPPED},
		{LIFE_PAUSED, LIFE_STOPPED},
		{LIFE_SNAPSHOTTING, LIFE_STOPPED},
	};

	for (unsigned from = 0; from <= LIFE_COUNT; from++)
		for (unsigned to = 0; to <= LIFE_COUNT; to++) {
			bool want = false;

			for (size_t i = 0; i < ARRAY_SIZE(legal); i++)
				want |= legal[i].from == from && legal[i].to == to;
			assert_int_equal(life_may(from, to), want);
		}
}

static void test_every_state_has_a_name_of_its_own(void **state)
{
	for (unsigned a = 0; a < LIFE_COUNT; a++)
		for (unsigned b = 0; b < a; b++)
			assert_string_not_equal(life_name(a), life_name(b));
	assert_string_equal(life_name(LIFE_COUNT), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_edge),
		cmocka_unit_test(test_every_state_has_a_name_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
