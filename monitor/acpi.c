/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi.c - describe the machine in ACPI tables. Section numbers are those of ACPI 6.5.
 *
 * The tables, in the order they lie in guest RAM:
 *
 *   RSDP  the root: "RSD PTR " at a multiple of 16 (5.2.5.3); points to the XSDT
 *   XSDT  points to the FADT and the MADT (5.2.8)
 *   FADT  says what is not there: hardware-reduced ACPI (4.1), no VGA, 8042 or CMOS clock; has
 *         the registers for sleep and reset; points to the DSDT (5.2.9)
 *   MADT  a local APIC for each vCPU, and our I/O APIC, which takes all interrupts (5.2.12)
 *   DSDT  AML: one device for each virtio-mmio window, the serial port, the power button, the
 *         generation counter, the device for their events, and \_S5 (7.4.2.6)
 *
 * Hardware-reduced means that there are no fixed ACPI registers, no SCI and no FACS, so that Linux
 * looks for no PIC, PIT or PM timer either, not even where there are some (`pc`). Power-off is two
 * registers of a byte each in the doorbell page, which bus.c answers.
 *
 * Events: the Generic Event Device (5.6.9) has an interrupt for each kind; its method _EVT, given
 * the interrupt's number, notifies the device that it is about. So there is no register that says
 * what happened, and nothing to save: a pin that the guest has unmasked is one it listens on. (A
 * method _Exx for each would do, but Linux gives it an argument too many and complains.)
 *
 * The generation counter ("Virtual Machine Generation ID", Microsoft, 2012) is 16 bytes of RAM that
 * are others in each VM made from a snapshot; identity.c writes them. ADDR says where they are.
 * "VMGENCTR" is the name by which Linux knows it, from 5.18 on.
 *
 * "LNRO0005" is the _HID by which Linux knows a virtio-mmio transport. Devices are the same whether
 * a slot holds a disk or a network: what it is, the window says itself.
 *
 * Everything fits in one page, for the largest configuration too (a test builds that), because each
 * page of guest RAM that is touched before the first instruction costs time. The guest may write
 * over the tables; nothing here reads them back. Pure functions of the configuration: any thread.
 */
#include "monitor/acpi.h"

#include <string.h>

#include "monitor/aml.h"
#include "monitor/base/bytes.h"

#define HEADER_LEN   36u /* of every table but the RSDP (5.2.6) */
#define LENGTH_AT    4u
#define CHECKSUM_AT  9u
#define RSDP_LEN     36u
#define RSDP_V1_LEN  20u /* what its first checksum covers */
#define RSDP_SUM_AT  8u
#define RSDP_XSUM_AT 32u
#define XSDT_LEN     (HEADER_LEN + 2 * 8u)
#define FADT_LEN     276u
#define TABLE_ALIGN  16u

#define FADT_REVISION 6u /* .5 */
#define MADT_REVISION 6u
#define DSDT_REVISION 2u /* from 2 on, integers have 64 bits */

/* FADT, offsets (table 5.9) */
#define FADT_DSDT       40u
#define FADT_BOOT_ARCH  109u
#define FADT_FLAGS      112u
#define FADT_RESET_REG  116u
#define FADT_RESET_VAL  128u
#define FADT_MINOR      131u
#define FADT_X_DSDT     140u
#define FADT_SLEEP_CTL  244u
#define FADT_SLEEP_STS  256u
#define FADT_HYPERVISOR 268u

/* No VGA, no CMOS clock; not set: legacy devices, 8042 (table 5.11). A pc has these two. */
#define BOOT_ARCH    (1u << 2 | 1u << 5)
#define BOOT_ARCH_PC (1u << 2 | 1u << 1)
/* WBINVD works, C1 works, no fixed power or sleep button, there is a reset register, hardware-
 * reduced (table 5.10). */
#define FLAGS (1u << 0 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20)

/* What notifies say (5.6.6): a button's 0x80 is "pressed", a generation counter's "changed". */
#define NOTIFY_EVENT 0x80u

#define MADT_LAPIC   0u
#define MADT_IOAPIC  1u
#define LAPIC_USABLE 1u
#define PCAT_COMPAT  1u /* a pair of 8259s */

static const char oem_id[6] = "KELVIN";
static const char oem_table[8] = "KELVINVM";

/* ---- what all tables share ---- */

/* Starts a table; returns its offset. table_end() fills in length and checksum. */
static size_t table_begin(struct aml *t, const char signature[4], u8 revision)
{
	static const u8 zeros[TABLE_ALIGN];
	size_t at;

	aml_bytes(t, zeros, -t->len % TABLE_ALIGN);
	at = t->len;
	aml_bytes(t, signature, 4);
	aml_raw(t, 0, 4);
	aml_raw(t, revision, 1);
	aml_raw(t, 0, 1);
	aml_bytes(t, oem_id, sizeof(oem_id));
	aml_bytes(t, oem_table, sizeof(oem_table));
	aml_raw(t, 1, 4);
	aml_bytes(t, "KLVN", 4);
	aml_raw(t, 1, 4);
	return at;
}

static void table_end(struct aml *t, size_t at)
{
	u32 len = (u32)(t->len - at);

	must(!t->full);
	memcpy(t->buf + at + LENGTH_AT, &len, sizeof(len));
	t->buf[at + CHECKSUM_AT] = byte_checksum(t->buf + at, len);
}

/* ---- DSDT ---- */

static void add_virtio(struct aml *t, const struct acpi_config *c, unsigned n)
{
	static const char digits[] = "0123456789ABCDEF";
	const char name[4] = {'V', 'R', digits[n >> 4 & 15], digits[n & 15]};
	size_t dev = aml_device(t, name);
	struct aml_crs crs = {.len = 0};

	aml_name(t, "_HID");
	aml_string(t, "LNRO0005");
	aml_name(t, "_UID");
	aml_int(t, n);
	aml_name(t, "_CRS");
	crs_memory(&crs, c->window_gpa + n * c->window_len, c->window_len);
	crs_edge(&crs, c->first_gsi + n);
	aml_resources(t, &crs);
	aml_end(t, dev);
}

/* Without it Linux prints through the port but cannot open it: a pin below 16 is nobody's ISA
 * interrupt where there is no PIC. */
static void add_serial(struct aml *t, const struct acpi_config *c)
{
	size_t dev = aml_device(t, "COM1");
	struct aml_crs crs = {.len = 0};

	aml_name(t, "_HID");
	aml_eisa_id(t, "PNP0501");
	aml_name(t, "_UID");
	aml_int(t, 0);
	aml_name(t, "_CRS");
	crs_ports(&crs, c->serial_port, 8);
	crs_edge(&crs, c->serial_gsi);
	aml_resources(t, &crs);
	aml_end(t, dev);
}

static void add_button(struct aml *t)
{
	size_t dev = aml_device(t, "PWRB");

	aml_name(t, "_HID");
	aml_eisa_id(t, "PNP0C0C");
	aml_end(t, dev);
}

static void add_genid(struct aml *t, const struct acpi_config *c)
{
	size_t dev = aml_device(t, "GENC"), package;

	aml_name(t, "_HID");
	aml_string(t, "KLVN0001");
	aml_name(t, "_CID");
	aml_string(t, "VMGENCTR");
	aml_name(t, "_DDN");
	aml_string(t, "VM_Gen_Counter");
	aml_name(t, "ADDR");
	package = aml_package(t, 2);
	aml_int(t, (u32)c->genid_gpa);
	aml_int(t, c->genid_gpa >> 32);
	aml_end(t, package);
	aml_end(t, dev);
}

static void add_event(struct aml *t, u32 gsi, const char notified[4])
{
	size_t test = aml_if_arg(t, gsi);

	aml_notify(t, notified, NOTIFY_EVENT);
	aml_end(t, test);
}

/* After the devices that it notifies. */
static void add_events(struct aml *t, const struct acpi_config *c)
{
	size_t dev = aml_device(t, "EVNT"), method;
	struct aml_crs crs = {.len = 0};

	aml_name(t, "_HID");
	aml_string(t, "ACPI0013");
	aml_name(t, "_CRS");
	crs_edge(&crs, c->button_gsi);
	crs_edge(&crs, c->genid_gsi);
	aml_resources(t, &crs);
	method = aml_method(t, "_EVT");
	add_event(t, c->button_gsi, "PWRB");
	add_event(t, c->genid_gsi, "GENC");
	aml_end(t, method);
	aml_end(t, dev);
}

static size_t add_dsdt(struct aml *t, const struct acpi_config *c)
{
	size_t at = table_begin(t, "DSDT", DSDT_REVISION), scope, package;

	scope = aml_scope(t, "_SB_");
	for (unsigned i = 0; i < c->devices; i++)
		add_virtio(t, c, i);
	if (c->serial_port)
		add_serial(t, c);
	add_button(t);
	add_genid(t, c);
	add_events(t, c);
	aml_end(t, scope);
	aml_name(t, "_S5_");
	package = aml_package(t, 4);
	aml_int(t, ACPI_S5_TYPE);
	for (unsigned i = 1; i < 4; i++)
		aml_int(t, 0);
	aml_end(t, package);
	table_end(t, at);
	return at;
}

/* ---- the others ---- */

static size_t add_madt(struct aml *t, const struct acpi_config *c)
{
	size_t at = table_begin(t, "APIC", MADT_REVISION);

	aml_raw(t, c->lapic_gpa, 4);
	aml_raw(t, c->pc ? PCAT_COMPAT : 0, 4);
	for (unsigned i = 0; i < c->vcpus; i++) {
		aml_raw(t, MADT_LAPIC | 8u << 8, 2);
		aml_raw(t, i, 1); /* processor's _UID */
		aml_raw(t, i, 1); /* APIC id */
		aml_raw(t, LAPIC_USABLE, 4);
	}
	aml_raw(t, MADT_IOAPIC | 12u << 8, 2);
	aml_raw(t, 0, 2); /* its id, as it reads after reset */
	aml_raw(t, c->ioapic_gpa, 4);
	aml_raw(t, 0, 4); /* its first GSI */
	table_end(t, at);
	return at;
}

static void put(u8 *table, size_t off, u64 value, size_t len)
{
	memcpy(table + off, &value, len);
}

/* A register of one byte in memory (5.2.3.2, Generic Address Structure). */
static void put_register(u8 *table, size_t off, u64 gpa)
{
	put(table, off, 0x01000800, 4); /* memory, 8 bits, at bit 0, accessed by bytes */
	put(table, off + 4, gpa, 8);
}

static size_t add_fadt(struct aml *t, const struct acpi_config *c, u64 dsdt_gpa)
{
	size_t at = table_begin(t, "FACP", FADT_REVISION);
	u8 f[FADT_LEN] = {0};

	put(f, FADT_DSDT, dsdt_gpa, 4);
	put(f, FADT_BOOT_ARCH, c->pc ? BOOT_ARCH_PC : BOOT_ARCH, 2);
	put(f, FADT_FLAGS, FLAGS, 4);
	put_register(f, FADT_RESET_REG, c->regs_gpa + ACPI_REG_RESET);
	put(f, FADT_RESET_VAL, ACPI_RESET_VALUE, 1);
	put(f, FADT_MINOR, 5, 1);
	put(f, FADT_X_DSDT, dsdt_gpa, 8);
	put_register(f, FADT_SLEEP_CTL, c->regs_gpa + ACPI_REG_SLEEP);
	put_register(f, FADT_SLEEP_STS, c->regs_gpa + ACPI_REG_STATUS);
	memcpy(f + FADT_HYPERVISOR, oem_table, 8);
	aml_bytes(t, f + HEADER_LEN, FADT_LEN - HEADER_LEN);
	table_end(t, at);
	return at;
}

static size_t add_xsdt(struct aml *t, u64 fadt_gpa, u64 madt_gpa)
{
	size_t at = table_begin(t, "XSDT", 1);

	aml_raw(t, fadt_gpa, 8);
	aml_raw(t, madt_gpa, 8);
	table_end(t, at);
	return at;
}

/* Version 2, without an RSDT for those who know only version 1. */
static void write_rsdp(u8 *out, u64 xsdt_gpa)
{
	memset(out, 0, RSDP_LEN);
	memcpy(out, ACPI_RSDP, 8);
	memcpy(out + 9, oem_id, sizeof(oem_id));
	put(out, 15, 2, 1);
	put(out, 20, RSDP_LEN, 4);
	put(out, 24, xsdt_gpa, 8);
	out[RSDP_SUM_AT] = byte_checksum(out, RSDP_V1_LEN);
	out[RSDP_XSUM_AT] = byte_checksum(out, RSDP_LEN);
}

size_t acpi_build(u8 out[ACPI_LEN_MAX], u32 gpa, const struct acpi_config *c)
{
	struct aml t = {.buf = out, .cap = ACPI_LEN_MAX, .len = RSDP_LEN};
	size_t dsdt, madt, fadt, xsdt;

	must(c->vcpus >= 1 && c->vcpus <= ACPI_VCPUS_MAX && c->devices <= ACPI_DEVICES_MAX);
	must(gpa % TABLE_ALIGN == 0 && c->genid_gpa % 8 == 0);
	dsdt = add_dsdt(&t, c);
	madt = add_madt(&t, c);
	fadt = add_fadt(&t, c, gpa + dsdt);
	xsdt = add_xsdt(&t, gpa + fadt, gpa + madt);
	write_rsdp(out, gpa + xsdt);
	return t.len;
}
