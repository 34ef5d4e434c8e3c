/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_mptable.c - the MP table read as a kernel reads it: the pointer found by its signature and
 * sum, the header, and entry after entry by the lengths of the specification (1.4, chapter 4).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/mptable.h"

#define GPA  0x9fc00u
#define PINS 24u

static u8 buf[MPTABLE_LEN_MAX];

static u64 get(const u8 *p, size_t len)
{
	u64 v = 0;

	memcpy(&v, p, len);
	return v;
}

static u8 sum(const u8 *p, size_t len)
{
	u8 s = 0;

	while (len--)
		s = (u8)(s + *p++);
	return s;
}

/* What the entries said. */
struct seen {
	unsigned processors, buses, ioapics, interrupts, locals;
};

static const u8 *read_entry(const u8 *p, unsigned vcpus, struct seen *s)
{
	switch (p[0]) {
	case 0: /* processor */
		assert_int_equal(p[1], s->processors);
		assert_int_equal(p[3], s->processors ? 1 : 3); /* usable; the first one boots */
		assert_int_equal(get(p + 8, 4) & 0x201, 0x201); /* FPU, APIC */
		s->processors++;
		return p + 20;
	case 1: /* bus */
		assert_memory_equal(p + 1, "\0ISA   ", 7);
		s->buses++;
		return p + 8;
	case 2: /* I/O APIC: an id of its own, usable */
		assert_int_equal(p[1], vcpus);
		assert_int_equal(p[3], 1);
		assert_int_equal(get(p + 4, 4), 0xfec00000);
		s->ioapics++;
		return p + 8;
	case 3: /* ISA interrupt n at pin n, edge and high as the bus has it */
		assert_int_equal(p[1], 0);
		assert_int_equal(get(p + 2, 2), 0);
		assert_int_equal(p[4], 0);
		assert_int_equal(p[5], s->interrupts);
		assert_int_equal(p[6], vcpus);
		assert_int_equal(p[7], s->interrupts);
		s->interrupts++;
		return p + 8;
	case 4: /* LINT0 the 8259s' (3), on the first processor; LINT1 the NMI (1), on all */
		assert_int_equal(p[1], s->locals ? 1 : 3);
		assert_int_equal(p[6], s->locals ? 0xff : 0);
		assert_int_equal(p[7], s->locals);
		s->locals++;
		return p + 8;
	}
	fail_msg("entry of type %u", p[0]);
	return NULL;
}

static void check(unsigned vcpus)
{
	struct mptable_config c = {vcpus, PINS, 0xfec00000, 0xfee00000};
	struct seen s = {0};
	const u8 *table = buf + 16, *p = table + 44;
	size_t len;

	memset(buf, 0xa5, sizeof(buf));
	len = mptable_build(buf, GPA, &c);
	assert_in_range(len, 60, MPTABLE_LEN_MAX);
	assert_memory_equal(buf, "_MP_", 4);
	assert_int_equal(get(buf + 4, 4), GPA + 16);
	assert_int_equal(buf[8], 1); /* in units of 16 bytes */
	assert_int_equal(buf[9], 4);
	assert_int_equal(sum(buf, 16), 0);
	assert_int_equal(buf[11], 0); /* there is a table */
	assert_memory_equal(table, "PCMP", 4);
	assert_int_equal(get(table + 4, 2), len - 16);
	assert_int_equal(sum(table, len - 16), 0);
	assert_memory_equal(table + 8, "KELVIN  KELVINVM    ", 20);
	assert_int_equal(get(table + 36, 4), 0xfee00000);
	for (unsigned n = (unsigned)get(table + 34, 2); n; n--)
		p = read_entry(p, vcpus, &s);
	assert_ptr_equal(p, buf + len);
	assert_int_equal(s.processors, vcpus);
	assert_int_equal(s.buses, 1);
	assert_int_equal(s.ioapics, 1);
	assert_int_equal(s.interrupts, PINS);
	assert_int_equal(s.locals, 2);
	for (size_t i = len; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xa5);
}

static void test_every_number_of_processors(void **state)
{
	for (unsigned vcpus = 1; vcpus <= MPTABLE_VCPUS_MAX; vcpus++)
		check(vcpus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_number_of_processors)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
