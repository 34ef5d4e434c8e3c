/* SPDX-License-Identifier: Apache-2.0 */
/* acpi.h - the ACPI tables by which a stock kernel finds its processors and devices. */
#ifndef KELVIN_MONITOR_ACPI_H
#define KELVIN_MONITOR_ACPI_H

#include "monitor/base/types.h"

#define ACPI_LEN_MAX     4080u /* of all tables together: with the GUID one page of guest RAM */
#define ACPI_GENID       4080u /* where in that page the generation GUID lies */
#define ACPI_GENID_LEN   16u
#define ACPI_RSDP        "RSD PTR " /* how the tables begin */
#define ACPI_DEVICES_MAX 16u
#define ACPI_VCPUS_MAX   32u

/* Registers of one byte each, as offsets from acpi_config.regs_gpa (ACPI 6.5, 4.8.3.6, 4.8.3.7). */
#define ACPI_REG_SLEEP  0u /* write ACPI_SLEEP_OFF: the guest powers off */
#define ACPI_REG_STATUS 1u /* reads 0: nothing ever wakes; writes do nothing */
#define ACPI_REG_RESET  2u /* write ACPI_RESET_VALUE: the guest resets */
#define ACPI_REGS       3u

#define ACPI_S5_TYPE     5u
#define ACPI_SLEEP_OFF   (ACPI_S5_TYPE << 2 | 1u << 5) /* the type, and "do it" */
#define ACPI_RESET_VALUE 1u

struct acpi_config {
	unsigned vcpus; /* 1 .. ACPI_VCPUS_MAX; APIC id = index */
	u32 ioapic_gpa, lapic_gpa;
	u64 regs_gpa; /* of the registers above */
	bool pc; /* there are 8259s, an 8042 and a CMOS clock too */
	/* virtio-mmio: window n at window_gpa + n * window_len, its interrupt first_gsi + n. */
	unsigned devices; /* 0 .. ACPI_DEVICES_MAX */
	u32 window_gpa, window_len, first_gsi;
	/* A 16550 of eight ports; port 0: none. */
	u16 serial_port;
	u32 serial_gsi;
	/* Edges: the power button was pressed; the GUID at genid_gpa is another. */
	u32 button_gsi, genid_gsi;
	u64 genid_gpa; /* a multiple of 8 */
};

/*
 * Writes the tables to @out as they are to lie at @gpa (a multiple of 16, below 4 GiB), the RSDP
 * first, where a guest finds it by scanning or by the pointer it is given. Returns their length.
 */
size_t acpi_build(u8 out[ACPI_LEN_MAX], u32 gpa, const struct acpi_config *c);

#endif
