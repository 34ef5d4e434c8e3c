/* SPDX-License-Identifier: Apache-2.0 */
/* test_loader.c - boot tables, boot choice, initrd and command line (hostile-cases L01). */
#include "monitor/kind.h"
#include "monitor/loader.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/load_case.h"

/* ---- what a good kernel gets ---- */

struct range {
	u64 gpa, len, type;
};

/* The map both protocols hand over, for @count entries of @stride bytes at @gpa. */
static void assert_map(u64 gpa, u64 count, unsigned stride)
{
	const struct range want[] = {
		{0, 0x5000, 1}, {0x5000, 0x1000, 2}, {0x6000, 0x99c00, 1}, {0x9fc00, 0x60400, 2},
		{0x100000, ram->region[0].len - 0x100000, 1},
		{0x100000000ull, ram->size - ram->region[0].len, 1}};

	assert_int_equal(count, ram->region_count == 1 ? 5 : 6);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(get(gpa + i * stride, 8), want[i].gpa);
		assert_int_equal(get(gpa + i * stride + 8, 8), want[i].len);
		assert_int_equal(get(gpa + i * stride + 16, 4), want[i].type);
	}
}

static void test_pvh_boot(void **state)
{
	struct elf_file f = elf_default();
	struct result r = load_elf(&f);

	assert_int_equal(r.code, 0);
	assert_segments_loaded();
	assert_true(r.info.has_pvh && !r.info.has_linux && !r.info.has_kelvin);
	assert_int_equal(r.info.pvh_entry, ELF_PVH_ENTRY);
	assert_int_equal(r.info.low, ELF_TEXT_GPA);
	assert_int_equal(r.info.high, ELF_DATA_GPA + ELF_DATA_MEM);
	assert_int_equal(r.regs.mode, BOOT_PVH);
	assert_int_equal(r.regs.rip, ELF_PVH_ENTRY);
	assert_int_equal(r.regs.info_gpa, GPA_PVH_INFO);
	assert_int_equal(get(0x6000, 4), 0x336ec578);
	assert_int_equal(get(0x6004, 4), 1);
	assert_int_equal(get(0x600c, 4), 0); /* modules */
	assert_int_equal(get(0x6010, 8), 0);
	assert_int_equal(get(0x6018, 8), GPA_CMDLINE);
	assert_int_equal(get(0x6020, 8), 0); /* RSDP */
	assert_map(get(0x6028, 8), get(0x6030, 4), 24);
	assert_string_equal((char *)mem_at(ram, GPA_CMDLINE, 4), "a=1");
}

/* Each page touched before the first instruction costs microseconds. */
static void test_pvh_touches_two_low_pages(void **state)
{
	struct elf_file f = elf_default();
	struct result r = load_elf(&f);

	assert_int_equal(r.code, 0);
	for (u64 gpa = 0; gpa < GPA_HIMEM; gpa += MEM_PAGE)
		assert_int_equal(zero_at(gpa, MEM_PAGE),
			gpa != GPA_PVH_INFO && gpa != GPA_CMDLINE);
}

static void assert_linux64_tables(void)
{
	const u64 zp = GPA_ZERO_PAGE;

	assert_int_equal(get(zp + 0x1fe, 2), 0xaa55);
	assert_int_equal(get(zp + 0x202, 4), 0x53726448);
	assert_int_equal(get(zp + 0x210, 1), 0xff);
	assert_int_equal(get(zp + 0x211, 1), 1);
	assert_int_equal(get(zp + 0x228, 4), GPA_CMDLINE);
	assert_int_equal(get(zp + 0x238, 4), 3);
	assert_int_equal(get(zp + 0x1ef, 1), 0); /* sentinel: Linux wipes the page when it is set */
	assert_int_equal(get(zp + 0x70, 8), 0); /* RSDP */
	assert_map(zp + 0x2d0, get(zp + 0x1e8, 1), 20);
	assert_int_equal(get(GPA_GDT + 8, 8), 0x00af9b000000ffff);
	assert_int_equal(get(GPA_GDT + 16, 8), 0x00cf93000000ffff);
}

/* Walks the boot page tables; -1 where @gva is not mapped. */
static u64 translate(u64 gva)
{
	u64 pml4 = get(0x9000 + (gva >> 39) * 8, 8), pdpt, pd;

	if (!(pml4 & 1))
		return UINT64_MAX;
	pdpt = get((pml4 & ~0xfffull) + ((gva >> 30) & 511) * 8, 8);
	if (!(pdpt & 1))
		return UINT64_MAX;
	pd = get((pdpt & ~0xfffull) + ((gva >> 21) & 511) * 8, 8);
	assert_int_equal(pd & 0x83, 0x83);
	return (pd & ~0x1fffffull) + (gva & 0x1fffff);
}

static void test_linux64_boot(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	elf_no_notes(&f);
	elf_add_note(&f, "Linux", 0x101, "", 1);
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_segments_loaded();
	assert_true(r.info.has_linux && !r.info.has_pvh);
	assert_int_equal(r.regs.mode, BOOT_LINUX64);
	assert_int_equal(r.regs.rip, ELF_ENTRY);
	assert_int_equal(r.regs.info_gpa, GPA_ZERO_PAGE);
	assert_int_equal(r.regs.gdt_gpa, GPA_GDT);
	assert_int_equal(r.regs.idt_gpa, GPA_IDT);
	assert_int_equal(r.regs.cr3_gpa, 0x9000);
	assert_linux64_tables();
	assert_int_equal(translate(0), 0);
	assert_int_equal(translate(0x3fffffff), 0x3fffffff);
	assert_int_equal(translate(0x40000000), UINT64_MAX); /* no RAM there */
	assert_int_equal(translate(0xc0000010), 0xc0000010); /* the doorbell */
	assert_int_equal(translate(0xfee00020), 0xfee00020);
	assert_int_equal(translate(0x100000000), UINT64_MAX);
}

static void test_big_ram_is_mapped_and_listed(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	new_ram(5ull << 30);
	elf_no_notes(&f);
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_linux64_tables();
	for (u64 gva = 0x1234; gva < MEM_HIGH_GPA; gva += 1ull << 28)
		assert_int_equal(translate(gva), gva);
}

/* As Firecracker has it, and no more: Nanos puts stacks below 4 GiB where nothing is mapped. */
static void test_one_gib_is_mapped_for_a_pc(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = elf_memfd(&f);
	struct load_case req = request(fd);
	struct result r;

	new_ram(5ull << 30);
	req.boot = BOOT_BY_LINUX64;
	req.map_one_gib = true;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_linux64_tables();
	assert_int_equal(translate(0x3fffffff), 0x3fffffff);
	for (u64 gva = 1ull << 30; gva < MEM_HIGH_GPA; gva += 1ull << 28)
		assert_int_equal(translate(gva), UINT64_MAX);
}

static void test_machine_for_each_kind_of_kernel(void **state)
{
	static const struct kernel_info linux_elf = {.has_linux = true, .has_pvh = true},
		ours = {.has_kelvin = true}, packed = {.is_bzimage = true},
		other = {.has_pvh = true}, plain = {.elf_entry = 1};
	enum machine_kind k;

	assert_int_equal(kind_for_kernel(&linux_elf), MACHINE_LEAN);
	assert_int_equal(kind_for_kernel(&ours), MACHINE_LEAN);
	assert_int_equal(kind_for_kernel(&packed), MACHINE_LEAN);
	assert_int_equal(kind_for_kernel(&other), MACHINE_PC);
	assert_int_equal(kind_for_kernel(&plain), MACHINE_PC);
	assert_true(kind_from_name("pc", &k) && k == MACHINE_PC);
	assert_true(kind_from_name("auto", &k) && k == MACHINE_AUTO);
	assert_false(kind_from_name("", &k) || kind_from_name("pcs", &k));
	assert_string_equal(kind_name(MACHINE_LEAN), "lean");
}

static void test_boot_choice(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int both = elf_memfd(&f);
	struct load_case req = request(both);
	struct result r;

	req.boot = BOOT_BY_LINUX64;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.regs.mode, BOOT_LINUX64);
	req.boot = BOOT_BY_PVH;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.regs.mode, BOOT_PVH);
}

static void test_acpi_is_pointed_to(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int both = elf_memfd(&f);
	struct load_case req = request(both);
	struct result r;

	req.rsdp_gpa = GPA_ACPI;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_int_equal(get(GPA_PVH_INFO + 0x20, 8), 0xe0000);
	req.boot = BOOT_BY_LINUX64;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_int_equal(get(GPA_ZERO_PAGE + 0x70, 8), 0xe0000);
}

static void test_boot_by_pvh_needs_the_note(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	struct load_case req;
	struct result r;

	elf_no_notes(&f);
	fd = elf_memfd(&f);
	req = request(fd);
	req.boot = BOOT_BY_PVH;
	r = load(&req);
	assert_refused(&r, "guests/k: has no PVH entry point");
}

static void test_probe(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	struct kernel_info info;
	u32 entry32 = (u32)ELF_PVH_ENTRY;

	elf_no_notes(&f);
	elf_add_note(&f, "kelvin", 1, NULL, 0);
	elf_add_note(&f, "Xen", 6, "linux", 6);
	elf_add_note(&f, "Xen", 18, &entry32, 4);
	fd = elf_memfd(&f);
	assert_int_equal(probe(fd, &info), 0);
	assert_true(info.has_kelvin && info.has_pvh && !info.has_linux);
	assert_int_equal(info.pvh_entry, ELF_PVH_ENTRY);
	assert_int_equal(info.elf_entry, ELF_ENTRY);
}

/* ---- L01: initrd and command line ---- */

/* An initrd of @len bytes, each 0x5a. */
static int initrd_memfd(u64 len)
{
	static u8 bytes[RAM];

	memset(bytes, 0x5a, len);
	return bytes_memfd(bytes, len);
}

static struct result load_initrd(const struct elf_file *f, u64 len)
{
	_cleanup_fd_ int kernel = elf_memfd(f), initrd = initrd_memfd(len);
	struct load_case req = request(kernel);

	req.initrd_fd = initrd;
	return load(&req);
}

static void assert_initrd_at(u64 gpa, u64 len)
{
	const u8 *p = mem_at(ram, gpa, len);

	assert_non_null(p);
	assert_int_equal(p[0], 0x5a);
	assert_memory_equal(p, p + 1, len - 1);
	if (gpa + len < RAM)
		assert_int_not_equal(p[len], 0x5a);
	assert_int_not_equal(*(p - 1), 0x5a);
}

static void test_initrd_goes_to_the_top(void **state)
{
	struct elf_file f = elf_default();
	struct result r = load_initrd(&f, 5000);

	assert_int_equal(r.code, 0);
	assert_segments_loaded();
	assert_initrd_at(RAM - 8192, 5000);
	assert_int_equal(get(0x600c, 4), 1);
	assert_int_equal(get(get(0x6010, 8), 8), RAM - 8192);
	assert_int_equal(get(get(0x6010, 8) + 8, 8), 5000);
	assert_int_equal(get(get(0x6010, 8) + 16, 8), 0);

	new_ram(RAM);
	elf_no_notes(&f);
	r = load_initrd(&f, 8192);
	assert_int_equal(r.code, 0);
	assert_initrd_at(RAM - 8192, 8192);
	assert_int_equal(get(GPA_ZERO_PAGE + 0x218, 4), RAM - 8192);
	assert_int_equal(get(GPA_ZERO_PAGE + 0x21c, 4), 8192);
}

/* Between the segments there is more room than above them: 0x101234..0x180000. */
static void test_initrd_below_a_segment(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	f.ph[PH_DATA].p_paddr = 0x1e0800;
	f.ph[PH_DATA].p_memsz = 0x10000;
	r = load_initrd(&f, 0xe0000 - 0x2000);
	assert_int_equal(r.code, 0);
	assert_initrd_at(0x102000, 0xe0000 - 0x2000);
}

static void test_l01_initrd_too_large(void **state)
{
	const u64 most = ELF_DATA_GPA - 0x102000; /* the largest gap is between the segments */
	struct elf_file f = elf_default();
	struct result r = load_initrd(&f, most + 1);

	assert_refused(&r, "guests/initrd: the initrd of 1 MiB does not fit in 2 MiB of RAM "
		"beside the kernel; at least 3 MiB are needed");
	r = load_initrd(&f, RAM);
	assert_refused(&r, "guests/initrd: the initrd of 2 MiB does not fit");
	r = load_initrd(&f, most);
	assert_int_equal(r.code, 0);
	assert_segments_loaded();
	assert_initrd_at(0x102000, most);
}

static void test_l01_initrd_of_absurd_size(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int kernel = elf_memfd(&f), initrd = initrd_memfd(1);
	struct load_case req = request(kernel);
	struct result r;

	assert_int_equal(ftruncate(initrd, INT64_MAX & ~4095ll), 0);
	req.initrd_fd = initrd;
	r = load(&req);
	assert_refused(&r, "does not fit below 3 GiB beside the kernel");
}

static void test_l01_initrd_not_a_file(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int kernel = elf_memfd(&f), dir = open("/", O_RDONLY | O_CLOEXEC);
	struct load_case req = request(kernel);
	struct result r = load_initrd(&f, 0);

	assert_refused(&r, "guests/initrd: the initrd is empty");
	req.initrd_fd = dir;
	r = load(&req);
	assert_refused(&r, "guests/initrd: the initrd is not a regular file");
}

static void test_l01_cmdline(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = elf_memfd(&f);
	struct load_case req = request(fd);
	char line[CMDLINE_MAX + 1];
	struct result r;

	memset(line, 'x', sizeof(line));
	line[CMDLINE_MAX] = 0;
	req.cmdline = line;
	r = load(&req);
	assert_refused(&r, "has 4096 characters, with the words for devices; at most 4095 fit");
	req.cmdline = "quiet na\xc3\xafve";
	r = load(&req);
	assert_refused(&r, "holds byte 0xc3 at position 9");
	req.cmdline = "one\ntwo";
	r = load(&req);
	assert_refused(&r, "holds byte 0x0a at position 4");
	req.cmdline = "\x7f";
	r = load(&req);
	assert_refused(&r, "holds byte 0x7f at position 1");

	line[CMDLINE_MAX - 1] = 0;
	req.cmdline = line;
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_string_equal((char *)mem_at(ram, GPA_CMDLINE, CMDLINE_MAX), line);
	assert_true(zero_at(GPA_CMDLINE + CMDLINE_MAX, MEM_PAGE));
}

/* A vmlinux: what Linux would cut off is refused. */
static void test_l01_cmdline_of_linux(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	char line[2048 + 1];
	struct load_case req;
	struct result r;

	elf_add_note(&f, "Linux", 0x101, "", 0);
	fd = elf_memfd(&f);
	req = request(fd);
	memset(line, 'x', sizeof(line));
	line[2048] = 0;
	req.cmdline = line;
	r = load(&req);
	assert_refused(&r, "has 2048 characters, with the words for devices; at most 2047 fit in");
	line[2047] = 0;
	r = load(&req);
	assert_int_equal(r.code, 0);
}

/* What follows a NUL is not part of the line and never reaches the guest. */
static void test_l01_cmdline_nul(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = elf_memfd(&f);
	struct load_case req = request(fd);

	req.cmdline = "abc\0secret";
	assert_int_equal(load(&req).code, 0);
	assert_string_equal((char *)mem_at(ram, GPA_CMDLINE, 4), "abc");
	assert_true(zero_at(GPA_CMDLINE + 3, 100));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, ram_setup, ram_teardown)
	const struct CMUnitTest tests[] = {
		T(test_pvh_boot),
		T(test_pvh_touches_two_low_pages),
		T(test_linux64_boot),
		T(test_one_gib_is_mapped_for_a_pc),
		T(test_machine_for_each_kind_of_kernel),
		T(test_big_ram_is_mapped_and_listed),
		T(test_boot_choice),
		T(test_acpi_is_pointed_to),
		T(test_boot_by_pvh_needs_the_note),
		T(test_probe),
		T(test_initrd_goes_to_the_top),
		T(test_initrd_below_a_segment),
		T(test_l01_initrd_too_large),
		T(test_l01_initrd_of_absurd_size),
		T(test_l01_initrd_not_a_file),
		T(test_l01_cmdline),
		T(test_l01_cmdline_of_linux),
		T(test_l01_cmdline_nul),
	};

	return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
