/* SPDX-License-Identifier: Apache-2.0 */
/* mptable.h - the table in which kernels from before ACPI find processors and interrupts. */
#ifndef KELVIN_MONITOR_MPTABLE_H
#define KELVIN_MONITOR_MPTABLE_H

#include "monitor/base/types.h"

#define MPTABLE_LEN_MAX   1024u
#define MPTABLE_VCPUS_MAX 32u
#define MPTABLE_PINS_MAX  24u

struct mptable_config {
	unsigned vcpus; /* 1 .. MPTABLE_VCPUS_MAX; APIC id = index */
	unsigned pins;  /* of the I/O APIC, up to MPTABLE_PINS_MAX; pin n takes ISA interrupt n */
	u32 ioapic_gpa, lapic_gpa;
};

/*
 * Writes the floating pointer and the table after it to @out as they are to lie at @gpa, a multiple
 * of 16 in the last KiB below 640 KiB, where kernels look. Returns their length.
 */
size_t mptable_build(u8 out[MPTABLE_LEN_MAX], u32 gpa, const struct mptable_config *c);

#endif
