/* SPDX-License-Identifier: Apache-2.0 */
/* test_i8042.c - the keyboard controller: what resets, what does not, what a driver's probe gets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/i8042.h"

#define DATA I8042_DATA_PORT
#define CMD  I8042_COMMAND_PORT
#define FULL 0x01

static struct i8042 k;

static int fresh(void **state)
{
	i8042_reset(&k);
	return 0;
}

static u8 asked(u8 command)
{
	assert_false(i8042_write(&k, CMD, command));
	assert_int_equal(i8042_read(&k, CMD) & FULL, FULL);
	return i8042_read(&k, DATA);
}

static void test_reset_by_pulse(void **state)
{
	for (unsigned cmd = 0; cmd < 256; cmd++) {
		bool resets = cmd >= 0xf0 && !(cmd & 1);

		i8042_reset(&k);
		assert_int_equal(i8042_write(&k, CMD, (u8)cmd), resets);
	}
}

static void test_reset_by_output_port(void **state)
{
	assert_int_equal(asked(0xd0) & 1, 1);
	assert_false(i8042_write(&k, CMD, 0xd1));
	assert_false(i8042_write(&k, DATA, 0x03)); /* A20 on, no reset */
	assert_false(i8042_write(&k, DATA, 0xfe)); /* for the keyboard */
	assert_false(i8042_write(&k, CMD, 0xd1));
	assert_true(i8042_write(&k, DATA, 0x02));
}

static void test_what_a_driver_asks(void **state)
{
	assert_int_equal(i8042_read(&k, CMD) & FULL, 0);
	assert_int_equal(asked(0xaa), 0x55);
	assert_int_equal(asked(0xab), 0);
	assert_int_equal(i8042_read(&k, CMD) & FULL, 0);
	assert_false(i8042_write(&k, CMD, 0x60));
	assert_false(i8042_write(&k, DATA, 0x74));
	assert_int_equal(asked(0x20), 0x74);
	/* The operand belongs to the last command only. */
	assert_false(i8042_write(&k, CMD, 0x60));
	assert_false(i8042_write(&k, CMD, 0xad));
	assert_false(i8042_write(&k, DATA, 0x11));
	assert_int_equal(asked(0x20), 0x74);
}

static void test_round_trip(void **state)
{
	struct enc out = {0};
	struct i8042 other;
	struct err e;

	i8042_write(&k, CMD, 0xaa);
	i8042_write(&k, CMD, 0xd1);
	i8042_save(&k, &out);
	assert_int_equal(i8042_load(&other, out.buf, out.len, &e), 0);
	assert_int_equal(i8042_read(&other, CMD) & FULL, FULL);
	assert_int_equal(i8042_read(&other, DATA), 0x55);
	assert_true(i8042_write(&other, DATA, 0));
	enc_free(&out);
}

static void test_h08_hostile_state(void **state)
{
	static const u8 bad_command[] = {0xfe, 0, 0, 0}, bad_flag[] = {0, 0, 2, 0};
	static const u8 good[] = {0xd1, 0xff, 1, 0xff, 0};
	struct err e;

	assert_int_equal(i8042_load(&k, bad_command, 4, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "pending command is 0xfe"));
	assert_int_equal(i8042_load(&k, bad_flag, 4, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "output buffer flag is 0x2"));
	for (size_t len = 0; len <= sizeof(good); len++)
		assert_int_equal(i8042_load(&k, good, len, &e), len == 4 ? 0 : -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_reset_by_pulse, fresh),
		cmocka_unit_test_setup(test_reset_by_output_port, fresh),
		cmocka_unit_test_setup(test_what_a_driver_asks, fresh),
		cmocka_unit_test_setup(test_round_trip, fresh),
		cmocka_unit_test_setup(test_h08_hostile_state, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
