/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mptable.c - describe processors and interrupts as Intel's MultiProcessor Specification 1.4 has
 * it; chapter 4 is meant by the numbers. ACPI says the same (acpi.c) to those who read that.
 *
 *   floating pointer   "_MP_": where the table is (4.1)
 *   header             "PCMP": addresses, lengths, sums (4.2)
 *   processors         one for each vCPU, the first one boots (4.3.1)
 *   ISA bus            number 0; interrupts are named as coming from it (4.3.2)
 *   I/O APIC           its id is the one after the processors' (4.3.3)
 *   interrupts         ISA interrupt n arrives at pin n; the timer's too, at pin 0 (4.3.4)
 *   local interrupts   LINT0 from the 8259s, LINT1 is the NMI (4.3.5)
 *
 * The guest may write over it; nothing here reads it back. A pure function: any thread.
 */
#include "monitor/mptable.h"

#include <string.h>

#include "monitor/base/bytes.h"

#define POINTER_LEN   16u
#define HEADER_LEN    44u
#define PROCESSOR_LEN 20u
#define ENTRY_LEN     8u /* of all others */
#define LEN_FOR_ALL                                                                                \
	(POINTER_LEN + HEADER_LEN + MPTABLE_VCPUS_MAX * PROCESSOR_LEN +                            \
		(2 + MPTABLE_PINS_MAX + 2) * ENTRY_LEN)
_Static_assert(LEN_FOR_ALL <= MPTABLE_LEN_MAX, "the largest table fits");

#define SPEC_1_4 4u

enum entry_type { PROCESSOR, BUS, IOAPIC, INTERRUPT, LOCAL_INTERRUPT };
enum interrupt_type { INT, NMI, SMI, EXTINT };

#define LAPIC_VERSION   0x14u
#define IOAPIC_VERSION  0x11u
#define USABLE          1u
#define BOOT_PROCESSOR  2u
#define CPU_SIGNATURE   0x600u         /* a family that has a local APIC */
#define CPU_FEATURES    (1u << 0 | 1u << 9) /* FPU, APIC */
#define ALL_LAPICS      0xffu
#define CONFORMS_TO_BUS 0u /* ISA: edges, active high */

struct out {
	u8 *buf;
	size_t len;
};

/* Appends the low @len bytes of @value. */
static void put(struct out *o, u64 value, size_t len)
{
	must(o->len + len <= MPTABLE_LEN_MAX);
	memcpy(o->buf + o->len, &value, len); /* host and guest are little-endian */
	o->len += len;
}

static void put_text(struct out *o, const char *text, size_t len)
{
	must(o->len + len <= MPTABLE_LEN_MAX);
	memcpy(o->buf + o->len, text, len);
	o->len += len;
}

static void put_pointer(struct out *o, u32 table_gpa)
{
	put_text(o, "_MP_", 4);
	put(o, table_gpa, 4);
	put(o, POINTER_LEN / 16, 1);
	put(o, SPEC_1_4, 1);
	put(o, 0, 6); /* checksum; there is a table; virtual wire mode */
	o->buf[10] = byte_checksum(o->buf, POINTER_LEN);
}

static void put_processor(struct out *o, unsigned id)
{
	put(o, PROCESSOR, 1);
	put(o, id, 1);
	put(o, LAPIC_VERSION, 1);
	put(o, USABLE | (id ? 0 : BOOT_PROCESSOR), 1);
	put(o, CPU_SIGNATURE, 4);
	put(o, CPU_FEATURES, 4);
	put(o, 0, 8);
}

static void put_interrupt(struct out *o, enum entry_type where, enum interrupt_type type,
	unsigned irq, unsigned apic, unsigned pin)
{
	put(o, where, 1);
	put(o, type, 1);
	put(o, CONFORMS_TO_BUS, 2);
	put(o, 0, 1); /* the bus */
	put(o, irq, 1);
	put(o, apic, 1);
	put(o, pin, 1);
}

/* Returns how many. */
static unsigned put_entries(struct out *o, const struct mptable_config *c)
{
	unsigned ioapic = c->vcpus;

	for (unsigned i = 0; i < c->vcpus; i++)
		put_processor(o, i);
	put(o, BUS, 1);
	put(o, 0, 1);
	put_text(o, "ISA   ", 6);
	put(o, IOAPIC, 1);
	put(o, ioapic, 1);
	put(o, IOAPIC_VERSION, 1);
	put(o, USABLE, 1);
	put(o, c->ioapic_gpa, 4);
	for (unsigned i = 0; i < c->pins; i++)
		put_interrupt(o, INTERRUPT, INT, i, ioapic, i);
	put_interrupt(o, LOCAL_INTERRUPT, EXTINT, 0, 0, 0);
	put_interrupt(o, LOCAL_INTERRUPT, NMI, 0, ALL_LAPICS, 1);
	return c->vcpus + 2 + c->pins + 2;
}

size_t mptable_build(u8 buf[MPTABLE_LEN_MAX], u32 gpa, const struct mptable_config *c)
{
	struct out o = {.buf = buf};
	u8 *table = buf + POINTER_LEN;
	unsigned entries;
	size_t len;

	must(c->vcpus >= 1 && c->vcpus <= MPTABLE_VCPUS_MAX && c->pins <= MPTABLE_PINS_MAX);
	must(gpa % 16 == 0);
	put_pointer(&o, gpa + POINTER_LEN);
	put_text(&o, "PCMP", 4);
	put(&o, 0, 2); /* length, known at the end */
	put(&o, SPEC_1_4, 1);
	put(&o, 0, 1); /* checksum */
	put_text(&o, "KELVIN  KELVINVM    ", 20);
	put(&o, 0, 6); /* no OEM table */
	put(&o, 0, 2); /* entries */
	put(&o, c->lapic_gpa, 4);
	put(&o, 0, 4); /* no extended table */
	entries = put_entries(&o, c);
	len = o.len - POINTER_LEN;
	memcpy(table + 4, &(u16){(u16)len}, 2);
	memcpy(table + 34, &(u16){(u16)entries}, 2);
	table[7] = byte_checksum(table, len);
	return o.len;
}
