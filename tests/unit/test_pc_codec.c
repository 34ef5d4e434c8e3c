/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_pc_codec.c - saved PIC, IOAPIC and PIT as hostile bytes, without KVM: what is accepted
 * encodes to the same bytes, everything else is refused by the name of its field.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/pc_int.h"

static struct pc_state sample, decoded;
static struct enc bytes;

static int fresh(void **state)
{
	memset(&sample, 0, sizeof(sample));
	sample.pic[0] = (struct kvm_pic_state){.last_irr = 0x21, .irr = 0x20, .imr = 0x9e,
		.isr = 1, .priority_add = 3, .irq_base = 0x20, .read_reg_select = 1,
		.init4 = 1, .elcr = 0x20, .elcr_mask = 0xf8};
	sample.pic[1] = (struct kvm_pic_state){.imr = 0xff, .irq_base = 0x28, .auto_eoi = 1,
		.init_state = 3, .elcr_mask = 0xde};
	sample.ioapic.base_address = IOAPIC_GPA;
	sample.ioapic.ioregsel = 0x1b;
	sample.ioapic.id = 5;
	sample.ioapic.irr = 0x800021;
	for (unsigned i = 0; i < GSI_COUNT; i++)
		sample.ioapic.redirtbl[i].bits = (u64)i << 56 | 0x1d0a0 | i;
	for (unsigned i = 0; i < PIT_CHANNELS; i++)
		sample.pit[i] = (struct kvm_pit_channel_state){.count = 0x10000 - i,
			.latched_count = 0xabcd, .count_latched = 3, .status = 0x36,
			.read_state = 3, .write_state = 4, .write_latch = 0x9b, .rw_mode = 3,
			.mode = i ? (u8)(i + 1) : 0xff, .gate = i != 2, .count_load_time = 123456789};
	sample.pit_flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	enc_free(&bytes);
	pc_state_encode(&sample, &bytes);
	assert_false(bytes.oom);
	return 0;
}

static int finish(void **state)
{
	enc_free(&bytes);
	return 0;
}

/* Bytes in a block of exactly that size, so that a sanitizer sees a read past the end. */
static int check(size_t len, struct err *e)
{
	u8 *copy = malloc(len ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes.buf, len < bytes.len ? len : bytes.len);
	r = vm_check_pc(copy, len, e);
	free(copy);
	return r;
}

static void test_round_trip(void **state)
{
	struct err e = {0};

	memset(&decoded, 0xaa, sizeof(decoded));
	assert_int_equal(pc_state_decode(&decoded, bytes.buf, bytes.len, &e), 0);
	assert_memory_equal(decoded.pic, sample.pic, sizeof(sample.pic));
	assert_memory_equal(&decoded.ioapic, &sample.ioapic, sizeof(sample.ioapic));
	assert_memory_equal(decoded.pit, sample.pit, sizeof(sample.pit));
	assert_int_equal(decoded.pit_flags, sample.pit_flags);
}

static void test_h01_every_length(void **state)
{
	struct err e = {0};

	for (size_t len = 0; len < bytes.len; len++) {
		e.msg[0] = 0;
		assert_int_equal(check(len, &e), -EINVAL);
		assert_non_null(strstr(e.msg, "saved interrupt chips: "));
	}
	enc_u8(&bytes, 0);
	assert_int_equal(check(bytes.len, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "wrong length"));
}

/* Sets one field, and expects to be told its chip and name. */
#define EXPECT_REFUSED(field, value, chip, name)                                                   \
	do {                                                                                       \
		struct err e_ = {0};                                                               \
                                                                                                   \
		fresh(NULL);                                                                       \
		sample.field = (value);                                                            \
		enc_free(&bytes);                                                                  \
		pc_state_encode(&sample, &bytes);                                                  \
		assert_int_equal(check(bytes.len, &e_), -EINVAL);                                  \
		assert_non_null(strstr(e_.msg, chip ": " name " is 0x"));                          \
	} while (0)

static void test_h08_pic(void **state)
{
	EXPECT_REFUSED(pic[0].priority_add, 8, "master PIC", "priority_add");
	EXPECT_REFUSED(pic[1].irq_base, 0x2c, "slave PIC", "irq_base");
	EXPECT_REFUSED(pic[0].init_state, 4, "master PIC", "init_state");
	EXPECT_REFUSED(pic[1].poll, 2, "slave PIC", "poll");
	EXPECT_REFUSED(pic[0].elcr, 0x01, "master PIC", "elcr"); /* a level timer */
	EXPECT_REFUSED(pic[0].elcr_mask, 0xff, "master PIC", "elcr_mask");
	EXPECT_REFUSED(pic[1].elcr_mask, 0xf8, "slave PIC", "elcr_mask");
}

static void test_h08_ioapic(void **state)
{
	EXPECT_REFUSED(ioapic.base_address, 0x100000, "IOAPIC", "base_address"); /* over RAM */
	EXPECT_REFUSED(ioapic.ioregsel, 0x100, "IOAPIC", "ioregsel");
	EXPECT_REFUSED(ioapic.id, 16, "IOAPIC", "id");
	EXPECT_REFUSED(ioapic.irr, 1u << 24, "IOAPIC", "irr");
	EXPECT_REFUSED(ioapic.redirtbl[23].bits, 1ull << 17, "IOAPIC", "a pin");
}

static void test_h08_pit(void **state)
{
	EXPECT_REFUSED(pit[0].count, 0x10001, "PIT", "count");
	EXPECT_REFUSED(pit[1].mode, 8, "PIT", "mode");
	EXPECT_REFUSED(pit[2].rw_mode, 4, "PIT", "rw_mode");
	EXPECT_REFUSED(pit[0].read_state, 5, "PIT", "read_state");
	EXPECT_REFUSED(pit[0].count_load_time, -1, "PIT", "the count's age");
	EXPECT_REFUSED(pit_flags, KVM_PIT_FLAGS_HPET_LEGACY, "PIT", "flags");
}

/* Each byte, each bit: refused, or what was read says exactly the same. */
static void test_h02_every_bit(void **state)
{
	for (size_t i = 0; i < bytes.len * 8; i++) {
		struct enc again = {0};
		struct err e = {0};

		bytes.buf[i / 8] ^= (u8)(1u << i % 8);
		if (pc_state_decode(&decoded, bytes.buf, bytes.len, &e)) {
			assert_true(e.msg[0]);
		} else {
			pc_state_encode(&decoded, &again);
			assert_int_equal(again.len, bytes.len);
			assert_memory_equal(again.buf, bytes.buf, bytes.len);
			enc_free(&again);
		}
		bytes.buf[i / 8] ^= (u8)(1u << i % 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h01_every_length, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h08_pic, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h08_ioapic, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h08_pit, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h02_every_bit, fresh, finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
