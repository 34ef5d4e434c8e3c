/* SPDX-License-Identifier: Apache-2.0 */
/* test_ioapic.c - the edge-only I/O APIC: registers, hostile accesses, the messages of its pins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

static struct ioapic io;

static int fresh(void **state)
{
	ioapic_init(&io);
	return 0;
}

static int finish(void **state)
{
	ioapic_finish(&io);
	return 0;
}

static void put(u64 off, u32 value)
{
	u8 data[8];

	memcpy(data, &value, sizeof(value));
	ioapic_mmio(&io, off, data, 4, true);
}

static u32 get(u64 off)
{
	u8 data[8];
	u32 value;

	memset(data, 0xff, sizeof(data));
	ioapic_mmio(&io, off, data, 4, false);
	memcpy(&value, data, sizeof(value));
	return value;
}

static bool changes(u8 reg, u32 value)
{
	u8 data[8];

	put(0x00, reg);
	memcpy(data, &value, sizeof(value));
	return ioapic_mmio(&io, 0x10, data, 4, true);
}

static void put_reg(u8 reg, u32 value)
{
	put(0x00, reg);
	put(0x10, value);
}

static u32 get_reg(u8 reg)
{
	put(0x00, reg);
	return get(0x10);
}

static void test_reset_values(void **state)
{
	struct kvm_irq_routing_msi msi;

	assert_int_equal(get_reg(0), 0);
	assert_int_equal(get_reg(1), 0x00170011);
	assert_int_equal(get_reg(2), 0);
	for (unsigned pin = 0; pin < GSI_COUNT; pin++) {
		assert_int_equal(get_reg((u8)(0x10 + 2 * pin)), 0x10000);
		assert_int_equal(get_reg((u8)(0x11 + 2 * pin)), 0);
		assert_false(ioapic_msi(&io, pin, &msi));
	}
}

static void test_id_keeps_four_bits_and_shows_in_arbitration(void **state)
{
	put_reg(0, 0xffffffff);
	assert_int_equal(get_reg(0), 0x0f000000);
	assert_int_equal(get_reg(2), 0x0f000000);
}

static void test_read_only_registers_stay(void **state)
{
	put_reg(1, 0);
	put_reg(2, 0x05000000);
	assert_int_equal(get_reg(1), 0x00170011);
	assert_int_equal(get_reg(2), 0);
}

static void test_entries_keep_only_writable_bits(void **state)
{
	put_reg(0x10, 0xffffffff);
	put_reg(0x11, 0xffffffff);
	assert_int_equal(get_reg(0x10), 0x0001afff); /* not delivery status, not remote IRR */
	assert_int_equal(get_reg(0x11), 0xff000000);
}

static void test_pin_sends_what_was_programmed(void **state)
{
	struct kvm_irq_routing_msi msi;

	put_reg(0x10 + 2 * 5 + 1, 0x03000000);  /* destination 3 */
	put_reg(0x10 + 2 * 5, 0x0000a941);      /* level, low, logical, lowest priority, 0x41 */
	assert_true(ioapic_msi(&io, 5, &msi));
	assert_int_equal(msi.address_lo, 0xfee03004);
	assert_int_equal(msi.address_hi, 0);
	assert_int_equal(msi.data, 0x141); /* an edge: bit 15 is clear */
	assert_false(ioapic_msi(&io, 4, &msi));
	assert_false(ioapic_msi(&io, 6, &msi));
	assert_int_equal(get_reg(0x10 + 2 * 5), 0xa941);
	put_reg(0x10 + 2 * 5, 0x00010041);
	assert_false(ioapic_msi(&io, 5, &msi));
}

static void test_registers_that_are_not_there(void **state)
{
	for (unsigned reg = 3; reg < 256; reg++) {
		if (reg >= 0x10 && reg < 0x10 + 2 * GSI_COUNT)
			continue;
		put_reg((u8)reg, 0x12345678);
		assert_int_equal(get_reg((u8)reg), 0xffffffff);
	}
	for (unsigned pin = 0; pin < GSI_COUNT; pin++)
		assert_int_equal(io.rte[pin], RTE_MASKED);
	assert_int_equal(io.id, 0);
}

static void test_odd_sizes_and_offsets_do_nothing(void **state)
{
	put(0x00, 0x10);
	for (u64 off = 0; off < IOAPIC_LEN; off++) {
		for (unsigned len = 1; len <= 8; len++) {
			u8 data[8] = {0}, ones[8];

			if (len == 4 && (off == 0x00 || off == 0x10))
				continue;
			ioapic_mmio(&io, off, data, len, true);
			memset(data, 0xff, sizeof(data));
			memset(ones, 0xff, sizeof(ones));
			ioapic_mmio(&io, off, data, len, false);
			assert_memory_equal(data, ones, sizeof(ones));
		}
	}
	assert_int_equal(io.select, 0x10);
	assert_int_equal(io.rte[0], RTE_MASKED);
}

/* Only what changes a message that can be sent is worth a call of KVM. */
static void test_says_when_routes_change(void **state)
{
	assert_false(changes(0x00, 0x03000000));
	assert_false(changes(0x10 + 2 * 5 + 1, 0x01000000)); /* masked before and after */
	assert_false(changes(0x10 + 2 * 5, 0x00010041));
	assert_true(changes(0x10 + 2 * 5, 0x00000041));
	assert_false(changes(0x10 + 2 * 5, 0x00000041));
	assert_true(changes(0x10 + 2 * 5 + 1, 0x02000000));
	assert_true(changes(0x10 + 2 * 5, 0x00010041));
	assert_false(changes(0x10 + 2 * 24, 0));
	assert_true(ioapic_masked(&io, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_says_when_routes_change, fresh, finish),
		cmocka_unit_test_setup_teardown(test_reset_values, fresh, finish),
		cmocka_unit_test_setup_teardown(
			test_id_keeps_four_bits_and_shows_in_arbitration, fresh, finish),
		cmocka_unit_test_setup_teardown(test_read_only_registers_stay, fresh, finish),
		cmocka_unit_test_setup_teardown(
			test_entries_keep_only_writable_bits, fresh, finish),
		cmocka_unit_test_setup_teardown(test_pin_sends_what_was_programmed, fresh, finish),
		cmocka_unit_test_setup_teardown(test_registers_that_are_not_there, fresh, finish),
		cmocka_unit_test_setup_teardown(
			test_odd_sizes_and_offsets_do_nothing, fresh, finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
