/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_acpi.c - the ACPI tables: bytes, sums and lengths always; and, where iasl is installed, that
 * it reads every table without a complaint and compiles the DSDT back to the very same bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "monitor/acpi.h"
#include "monitor/aml.h"
#include "tests/lib/tmpdir.h"

#define GPA 0xe0000u

static u8 page[ACPI_LEN_MAX];

static const struct acpi_config plain = {
	.vcpus = 1,
	.ioapic_gpa = 0xfec00000,
	.lapic_gpa = 0xfee00000,
	.regs_gpa = 0xc0000010,
	.devices = 1,
	.window_gpa = 0xc0001000,
	.window_len = 0x1000,
	.first_gsi = 5,
	.serial_gsi = 4,
	.button_gsi = 0x15,
	.genid_gsi = 0x16,
	.genid_gpa = 0xe0ff0,
};

static u64 get(const u8 *p, size_t off, size_t len)
{
	u64 v = 0;

	memcpy(&v, p + off, len);
	return v;
}

static void assert_sum(const u8 *p, size_t len)
{
	u8 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (u8)(sum + p[i]);
	assert_int_equal(sum, 0);
}

/* The table at @gpa, whose header has been checked. */
static const u8 *table(u64 gpa, const char *signature, size_t built)
{
	const u8 *p = page + (gpa - GPA);
	size_t off = gpa - GPA, len;

	assert_in_range(gpa, GPA + 36, GPA + built - 36);
	assert_int_equal(gpa % 16, 0);
	assert_memory_equal(p, signature, 4);
	len = get(p, 4, 4);
	assert_in_range(len, 36, built - off);
	assert_sum(p, len);
	assert_memory_equal(p + 10, "KELVINKELVINVM", 14);
	return p;
}

struct tables {
	const u8 *xsdt, *fadt, *madt, *dsdt;
};

/* Builds, and follows the pointers as a guest would. */
static struct tables build(const struct acpi_config *c)
{
	struct tables t;
	size_t len;

	memset(page, 0xa5, sizeof(page));
	len = acpi_build(page, GPA, c);
	assert_in_range(len, 36, ACPI_LEN_MAX);
	for (size_t i = len; i < sizeof(page); i++)
		assert_int_equal(page[i], 0xa5);
	assert_memory_equal(page, "RSD PTR ", 8);
	assert_int_equal(page[15], 2);
	assert_int_equal(get(page, 20, 4), 36);
	assert_sum(page, 20);
	assert_sum(page, 36);
	t.xsdt = table(get(page, 24, 8), "XSDT", len);
	assert_int_equal(get(t.xsdt, 4, 4), 36 + 2 * 8);
	t.fadt = table(get(t.xsdt, 36, 8), "FACP", len);
	t.madt = table(get(t.xsdt, 44, 8), "APIC", len);
	t.dsdt = table(get(t.fadt, 140, 8), "DSDT", len);
	assert_int_equal(get(t.fadt, 40, 4), get(t.fadt, 140, 8));
	return t;
}

static void fadt_says_what_is_not_there(void **state)
{
	struct tables t = build(&plain);

	assert_int_equal(get(t.fadt, 4, 4), 276);
	assert_int_equal(t.fadt[8], 6);
	assert_int_equal(get(t.fadt, 36, 4), 0);        /* no FACS */
	assert_int_equal(get(t.fadt, 109, 2), 0x24);    /* no VGA, no RTC, no 8042 */
	assert_int_equal(get(t.fadt, 112, 4), 0x100435); /* hardware-reduced, reset register */
	for (size_t i = 46; i < 109; i++) /* no SCI, no PM registers */
		assert_int_equal(t.fadt[i], 0);
	/* Generic addresses: memory, 8 bits, byte access. */
	assert_int_equal(get(t.fadt, 244, 4), 0x01000800);
	assert_int_equal(get(t.fadt, 248, 8), plain.regs_gpa + ACPI_REG_SLEEP);
	assert_int_equal(get(t.fadt, 256, 4), 0x01000800);
	assert_int_equal(get(t.fadt, 260, 8), plain.regs_gpa + ACPI_REG_STATUS);
	assert_int_equal(get(t.fadt, 116, 4), 0x01000800);
	assert_int_equal(get(t.fadt, 120, 8), plain.regs_gpa + ACPI_REG_RESET);
	assert_int_equal(t.fadt[128], ACPI_RESET_VALUE);
}

static void madt_names_each_vcpu_and_the_ioapic(void **state)
{
	struct acpi_config c = plain;

	for (c.vcpus = 1; c.vcpus <= ACPI_VCPUS_MAX; c.vcpus++) {
		struct tables t = build(&c);
		const u8 *p = t.madt + 44;

		assert_int_equal(get(t.madt, 4, 4), 44 + c.vcpus * 8 + 12);
		assert_int_equal(get(t.madt, 36, 4), 0xfee00000);
		assert_int_equal(get(t.madt, 40, 4), 0);
		for (unsigned i = 0; i < c.vcpus; i++, p += 8)
			assert_int_equal(get(p, 0, 8), 1ull << 32 | i << 24 | i << 16 | 0x0800);
		assert_int_equal(get(p, 0, 4), 0x0c01);
		assert_int_equal(get(p, 4, 4), 0xfec00000);
		assert_int_equal(get(p, 8, 4), 0);
	}
}

static const u8 one_device[] = {
	0x10, 0x41, 0x0f, '_', 'S', 'B', '_',       /* Scope (_SB_) */
	0x5b, 0x82, 0x3a, 'V', 'R', '0', '0',       /* Device (VR00) */
	0x08, '_', 'H', 'I', 'D', 0x0d, 'L', 'N', 'R', 'O', '0', '0', '0', '5', 0,
	0x08, '_', 'U', 'I', 'D', 0x00,
	0x08, '_', 'C', 'R', 'S', 0x11, 0x1a, 0x0a, 0x17,
	0x86, 9, 0, 1, 0x00, 0x10, 0x00, 0xc0, 0x00, 0x10, 0x00, 0x00,
	0x89, 6, 0, 3, 1, 5, 0, 0, 0,
	0x79, 0,
	0x5b, 0x82, 0x0f, 'P', 'W', 'R', 'B', /* Device (PWRB): PNP0C0C */
	0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0c, 0x0c,
	0x5b, 0x82, 0x47, 0x04, 'G', 'E', 'N', 'C', /* Device (GENC) */
	0x08, '_', 'H', 'I', 'D', 0x0d, 'K', 'L', 'V', 'N', '0', '0', '0', '1', 0,
	0x08, '_', 'C', 'I', 'D', 0x0d, 'V', 'M', 'G', 'E', 'N', 'C', 'T', 'R', 0,
	0x08, '_', 'D', 'D', 'N', 0x0d, 'V', 'M', '_', 'G', 'e', 'n', '_', 'C', 'o', 'u', 'n', 't',
	'e', 'r', 0,
	0x08, 'A', 'D', 'D', 'R', 0x12, 0x08, 2, 0x0c, 0xf0, 0x0f, 0x0e, 0, 0, /* low, high half */
	0x5b, 0x82, 0x43, 0x05, 'E', 'V', 'N', 'T', /* Device (EVNT) */
	0x08, '_', 'H', 'I', 'D', 0x0d, 'A', 'C', 'P', 'I', '0', '0', '1', '3', 0,
	0x08, '_', 'C', 'R', 'S', 0x11, 0x17, 0x0a, 0x14,
	0x89, 6, 0, 3, 1, 0x15, 0, 0, 0,
	0x89, 6, 0, 3, 1, 0x16, 0, 0, 0,
	0x79, 0,
	0x14, 0x20, '_', 'E', 'V', 'T', 1,
	0xa0, 0x0c, 0x93, 0x68, 0x0a, 0x15, 0x86, 'P', 'W', 'R', 'B', 0x0a, 0x80, /* pressed */
	0xa0, 0x0c, 0x93, 0x68, 0x0a, 0x16, 0x86, 'G', 'E', 'N', 'C', 0x0a, 0x80, /* changed */
	0x08, '_', 'S', '5', '_', 0x12, 0x07, 4, 0x0a, 5, 0, 0, 0, /* Name (_S5_, ...) */
};

static void dsdt_of_one_device(void **state)
{
	struct tables t = build(&plain);

	assert_int_equal(t.dsdt[8], 2);
	assert_int_equal(get(t.dsdt, 4, 4), 36 + sizeof(one_device));
	assert_memory_equal(t.dsdt + 36, one_device, sizeof(one_device));
}

static void every_size_fits_the_page(void **state)
{
	struct acpi_config c = plain;

	c.serial_port = 0x3f8;
	c.vcpus = ACPI_VCPUS_MAX;
	for (c.devices = 0; c.devices <= ACPI_DEVICES_MAX; c.devices++)
		build(&c);
}

/* ---- AML ---- */

static struct aml writer(u8 *buf, size_t cap)
{
	return (struct aml){.buf = buf, .cap = cap};
}

static void integers_are_as_short_as_can_be(void **state)
{
	static const struct {
		u64 value;
		size_t len;
		u8 op;
	} cases[] = {{0, 1, 0}, {1, 1, 1}, {2, 2, 0x0a}, {255, 2, 0x0a}, {256, 3, 0x0b},
		{65535, 3, 0x0b}, {65536, 5, 0x0c}, {UINT32_MAX, 5, 0x0c},
		{1ull << 32, 9, 0x0e}, {UINT64_MAX, 9, 0x0e}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		u8 buf[16];
		struct aml a = writer(buf, sizeof(buf));

		aml_int(&a, cases[i].value);
		assert_false(a.full);
		assert_int_equal(a.len, cases[i].len);
		assert_int_equal(buf[0], cases[i].op);
		if (a.len > 1)
			assert_int_equal(get(buf, 1, a.len - 1), cases[i].value);
	}
}

/* Each side of the places where a length takes another byte. */
static void lengths_take_one_to_four_bytes(void **state)
{
	static const struct {
		size_t content;
		unsigned bytes;
	} cases[] = {{0, 1}, {62, 1}, {63, 2}, {4093, 2}, {4094, 3}, {1048572, 3}, {1048573, 4}};
	size_t cap = 1048573 + 16;
	u8 *buf = calloc(1, cap);

	assert_non_null(buf);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml a = writer(buf, cap);
		size_t at = a.len, len;

		a.len += cases[i].content;
		aml_end(&a, at);
		assert_false(a.full);
		assert_int_equal(a.len, cases[i].content + cases[i].bytes);
		assert_int_equal(buf[0] >> 6, cases[i].bytes - 1);
		len = cases[i].bytes == 1 ? buf[0] & 63u : buf[0] & 15u;
		for (unsigned b = 1; b < cases[i].bytes; b++)
			len |= (size_t)buf[b] << (8 * b - 4);
		assert_int_equal(len, a.len);
	}
	free(buf);
}

static void what_does_not_fit_is_told(void **state)
{
	struct aml_crs crs = {.len = 0};
	u8 whole[128], part[128];
	struct aml a = writer(whole, sizeof(whole));
	size_t need;

	crs_memory(&crs, 1, 2);
	for (size_t cap = sizeof(whole);; cap = need - 1) {
		size_t scope, dev;

		memset(part, 0xa5, sizeof(part));
		a = writer(part, cap);
		scope = aml_scope(&a, "_SB_");
		dev = aml_device(&a, "DEV0");
		aml_name(&a, "_CRS");
		aml_resources(&a, &crs);
		aml_end(&a, dev);
		aml_end(&a, scope);
		for (size_t i = cap; i < sizeof(part); i++)
			assert_int_equal(part[i], 0xa5);
		if (a.full)
			break;
		assert_int_equal(cap, sizeof(whole));
		need = a.len;
	}
}

static void eisa_ids_are_packed(void **state)
{
	u8 buf[8];
	struct aml a = writer(buf, sizeof(buf));

	aml_eisa_id(&a, "PNP0501");
	assert_int_equal(a.len, 5);
	assert_int_equal(get(buf, 0, 5), 0x0105d0410cull);
}

/* ---- iasl ---- */

/* Runs iasl in @dir; returns its exit status, and what it printed in @out. 127: not installed. */
static int iasl(const char *dir, const char *option, const char *file, char *out, size_t cap)
{
	int fds[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		if (chdir(dir))
			_exit(126);
		execlp("iasl", "iasl", option, file, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while ((n = read(fds[0], out + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void put_file(const char *dir, const char *name, const u8 *table)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file_write(path, table, get(table, 4, 4));
}

/* iasl reads @table and finds nothing to say against it. */
static void read_by_iasl(const char *dir, const char *name, const u8 *table)
{
	char out[16384];

	put_file(dir, name, table);
	assert_int_equal(iasl(dir, "-d", name, out, sizeof(out)), 0);
	if (strstr(out, "rror") || strstr(out, "arning") || strstr(out, "hecksum"))
		fail_msg("iasl on %s:\n%s", name, out);
}

static void dsdt_compiles_back(const char *dir, const u8 *dsdt)
{
	char out[16384], path[256];
	size_t len = get(dsdt, 4, 4), got;
	u8 *back;

	if (iasl(dir, "-f", "dsdt.dsl", out, sizeof(out)) ||
		!strstr(out, "0 Errors, 0 Warnings, 0 Remarks"))
		fail_msg("iasl:\n%s", out);
	snprintf(path, sizeof(path), "%s/dsdt.aml", dir);
	back = file_read(path, &got);
	assert_int_equal(got, len);
	assert_memory_equal(back + 36, dsdt + 36, len - 36);
	free(back);
}

static void iasl_agrees(void **state)
{
	static const unsigned devices[] = {0, 1, 2, ACPI_DEVICES_MAX};
	char *dir = tmpdir_make(), out[4096];

	if (iasl(dir, "-v", "", out, sizeof(out)) == 127) {
		tmpdir_remove(dir);
		free(dir);
		print_message("iasl is not installed (acpica-tools)\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		struct acpi_config c = plain;
		struct tables t;

		c.devices = devices[i];
		c.vcpus = i ? (unsigned)i * 10 : 1;
		c.serial_port = i & 1 ? 0x3f8 : 0;
		t = build(&c);
		read_by_iasl(dir, "xsdt.dat", t.xsdt);
		read_by_iasl(dir, "facp.dat", t.fadt);
		read_by_iasl(dir, "apic.dat", t.madt);
		read_by_iasl(dir, "dsdt.dat", t.dsdt);
		dsdt_compiles_back(dir, t.dsdt);
	}
	tmpdir_remove(dir);
	free(dir);
}

/* What a pc has besides is told; the rest stays as it is. */
static void a_pc_says_what_it_has(void **state)
{
	struct acpi_config c = plain;
	struct tables t = build(&c);
	u64 flags = get(t.fadt, 112, 4);

	assert_int_equal(get(t.fadt, 109, 2), 1u << 2 | 1u << 5); /* no VGA, no CMOS clock */
	assert_int_equal(get(t.madt, 40, 4), 0);
	c.pc = true;
	t = build(&c);
	assert_int_equal(get(t.fadt, 109, 2), 1u << 1 | 1u << 2); /* an 8042, no VGA */
	assert_int_equal(get(t.madt, 40, 4), 1);                 /* a pair of 8259s */
	assert_int_equal(get(t.fadt, 112, 4), flags);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fadt_says_what_is_not_there),
		cmocka_unit_test(madt_names_each_vcpu_and_the_ioapic),
		cmocka_unit_test(a_pc_says_what_it_has),
		cmocka_unit_test(dsdt_of_one_device),
		cmocka_unit_test(every_size_fits_the_page),
		cmocka_unit_test(integers_are_as_short_as_can_be),
		cmocka_unit_test(lengths_take_one_to_four_bytes),
		cmocka_unit_test(what_does_not_fit_is_told),
		cmocka_unit_test(eisa_ids_are_packed),
		cmocka_unit_test(iasl_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
