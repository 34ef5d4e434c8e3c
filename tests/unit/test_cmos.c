/* SPDX-License-Identifier: Apache-2.0 */
/* test_cmos.c - the CMOS clock: what it tells in each format, that stores change nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/cmos.h"

#define S 1000000000ull
/* 2026-11-24 19:48:18 UTC, a Tuesday */
#define NOW (1795549698ull * S)
#define BINARY_24 0x06
#define BINARY_12 0x04
#define BCD_12    0x00

static struct cmos c;

static int fresh(void **state)
{
	cmos_reset(&c);
	return 0;
}

static u8 reg(u8 index, u64 now_ns)
{
	cmos_write(&c, 0, index);
	return cmos_read(&c, 1, now_ns);
}

static void set_reg(u8 index, u8 value)
{
	cmos_write(&c, 0, index);
	cmos_write(&c, 1, value);
}

static void expect_time(u64 now_ns, const u8 want[8])
{
	static const u8 regs[8] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32};

	for (unsigned i = 0; i < sizeof(regs); i++)
		assert_int_equal(reg(regs[i], now_ns), want[i]);
}

static void test_time_in_bcd_and_binary(void **state)
{
	static const u8 bcd[8] = {0x18, 0x48, 0x19, 0x03, 0x24, 0x11, 0x26, 0x20};
	static const u8 binary[8] = {18, 48, 19, 3, 24, 11, 26, 20};

	expect_time(NOW, bcd);
	set_reg(0x0b, BINARY_24);
	expect_time(NOW, binary);
}

static void test_twelve_hours(void **state)
{
	set_reg(0x0b, BCD_12);
	assert_int_equal(reg(0x04, NOW), 0x87);          /* 7 in the evening */
	assert_int_equal(reg(0x04, NOW - 7 * 3600 * S), 0x92); /* noon is 12 pm */
	set_reg(0x0b, BINARY_12);
	assert_int_equal(reg(0x04, NOW + 5 * 3600 * S), 12); /* midnight is 12 am */
	assert_int_equal(reg(0x04, NOW - 8 * 3600 * S), 11);
}

/* A guest that takes long to read one register after the other gets one moment. */
static void test_one_moment(void **state)
{
	u64 turn = NOW - 18 * S + 60 * S - 1; /* the last nanosecond of 19:48 */

	assert_int_equal(reg(0x0a, turn) & 0x80, 0); /* no update in progress */
	assert_int_equal(reg(0x02, turn + 2), 0x48);
	assert_int_equal(reg(0x04, turn + S / 2), 0x19);
	assert_int_equal(reg(0x02, turn + S), 0x49); /* too old */
	assert_int_equal(reg(0x00, turn), 0x59);
	assert_int_equal(reg(0x02, turn + 2), 0x48);
	assert_int_equal(reg(0x00, turn + 2), 0x00); /* the seconds are always those of now */
	assert_int_equal(reg(0x02, turn + 2), 0x49);
	assert_int_equal(reg(0x02, turn - 3600 * S), 0x48); /* the host's clock was set back */
}

static void test_status_registers(void **state)
{
	assert_int_equal(reg(0x0a, NOW), 0x26);
	assert_int_equal(reg(0x0b, NOW), 0x02);
	assert_int_equal(reg(0x0c, NOW), 0);
	assert_int_equal(reg(0x0d, NOW), 0x80);
	assert_int_equal(reg(0x8d, NOW), 0x80); /* bit 7 is the NMI's */
	assert_int_equal(cmos_read(&c, 0, NOW), 0xff);
}

static void test_stores_change_nothing(void **state)
{
	struct cmos before = c;

	for (unsigned i = 0; i < 256; i++)
		if ((i & 0x7f) != 0x0b)
			set_reg((u8)i, (u8)~i);
	set_reg(0x0b, 0xfa); /* alarm, periodic and update interrupts, "set": none of these stay */
	assert_int_equal(reg(0x0b, NOW), 0x02);
	assert_int_equal(c.format, before.format);
	assert_int_equal(reg(0x00, NOW), 0x18);
	assert_int_equal(reg(0x5a, NOW), 0);
}

static void test_round_trip(void **state)
{
	struct enc out = {0};
	struct cmos d;
	struct err e;

	set_reg(0x0b, BINARY_12);
	reg(0x04, NOW);
	cmos_save(&c, &out);
	assert_int_equal(cmos_load(&d, out.buf, out.len, &e), 0);
	assert_int_equal(d.index, 0x04);
	assert_int_equal(d.format, BINARY_12);
	assert_int_equal(cmos_read(&d, 1, NOW + 3600 * S), 8 | 0x80); /* the time it is there */
	enc_free(&out);
}

static void test_h08_hostile_state(void **state)
{
	static const u8 bad_index[] = {0x80, 0}, bad_format[] = {0, 0x12}, good[] = {0x7f, 6, 0};
	struct cmos before = c;
	struct err e;

	assert_int_equal(cmos_load(&c, bad_index, 2, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "index is 0x80"));
	assert_int_equal(cmos_load(&c, bad_format, 2, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "register B is 0x12"));
	for (size_t len = 0; len <= 3; len++)
		assert_int_equal(cmos_load(&c, good, len, &e), len == 2 ? 0 : -EINVAL);
	assert_memory_not_equal(&c, &before, sizeof(c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_time_in_bcd_and_binary, fresh),
		cmocka_unit_test_setup(test_twelve_hours, fresh),
		cmocka_unit_test_setup(test_one_moment, fresh),
		cmocka_unit_test_setup(test_status_registers, fresh),
		cmocka_unit_test_setup(test_stores_change_nothing, fresh),
		cmocka_unit_test_setup(test_round_trip, fresh),
		cmocka_unit_test_setup(test_h08_hostile_state, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
