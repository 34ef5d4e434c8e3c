/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.c - fill the tables of acpi.c and mptable.c with what this machine has, and put them into
 * low memory that the memory map says is reserved. Read by guests only.
 */
#include "monitor/tables.h"

#include "monitor/acpi.h"
#include "monitor/machine_int.h"
#include "monitor/mptable.h"

_Static_assert(DEVICES_MAX <= ACPI_DEVICES_MAX && VCPU_MAX <= ACPI_VCPUS_MAX, "described");
_Static_assert(VIRTIO_GSI + DEVICES_MAX <= BUTTON_GSI && GENID_GSI < GSI_COUNT, "apart");
_Static_assert(VCPU_MAX <= MPTABLE_VCPUS_MAX && GSI_COUNT <= MPTABLE_PINS_MAX, "described");
_Static_assert(GPA_MPTABLE + MPTABLE_LEN_MAX <= GPA_ACPI, "apart");

/* These lie below 1 MiB, so in RAM of any size. */
static void put(const struct machine *m, u64 gpa, const void *src, size_t len)
{
	bool written = mem_write(m->mem, gpa, src, len);

	must(written);
}

static void write_acpi(const struct machine *m)
{
	struct acpi_config c = {
		.vcpus = m->spec->vcpus,
		.ioapic_gpa = (u32)IOAPIC_GPA,
		.lapic_gpa = (u32)LAPIC_GPA,
		.regs_gpa = DOORBELL_GPA + DOORBELL_ACPI,
		.pc = m->spec->kind == MACHINE_PC,
		.devices = devices_count(m->spec),
		.window_gpa = (u32)VIRTIO_GPA,
		.window_len = VIRTIO_MMIO_WINDOW,
		.first_gsi = VIRTIO_GSI,
		.serial_port = m->spec->console ? SERIAL_PORT : 0,
		.serial_gsi = SERIAL_GSI,
		.button_gsi = BUTTON_GSI,
		.genid_gsi = GENID_GSI,
		.genid_gpa = GPA_ACPI + ACPI_GENID,
	};
	u8 tables[ACPI_LEN_MAX];

	put(m, GPA_ACPI, tables, acpi_build(tables, GPA_ACPI, &c));
}

static void write_mptable(const struct machine *m)
{
	struct mptable_config c = {
		.vcpus = m->spec->vcpus,
		.pins = GSI_COUNT,
		.ioapic_gpa = (u32)IOAPIC_GPA,
		.lapic_gpa = (u32)LAPIC_GPA,
	};
	u8 table[MPTABLE_LEN_MAX];

	put(m, GPA_MPTABLE, table, mptable_build(table, GPA_MPTABLE, &c));
}

/*
 * Where a PC begins after a reset, and where Linux jumps that knows no other way to reboot: asks
 * the keyboard controller for one (bus.c).
 */
static void write_reset_vector(const struct machine *m)
{
	/* mov al, 0xfe; out 0x64, al; hlt */
	static const u8 code[] = {0xb0, I8042_RESET, 0xe6, I8042_COMMAND_PORT, 0xf4};

	put(m, GPA_RESET_VECTOR, code, sizeof(code));
}

void tables_write(const struct machine *m, const struct kernel_info *kernel)
{
	write_acpi(m);
	if (kernel_is_linux(kernel))
		write_reset_vector(m);
	if (m->spec->kind == MACHINE_PC)
		write_mptable(m);
}
