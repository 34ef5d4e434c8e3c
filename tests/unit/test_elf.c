/* SPDX-License-Identifier: Apache-2.0 */
/* test_elf.c - kernel files that lie, are cut short, or are no kernels (hostile-cases L01). */
#include "monitor/loader.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/load_case.h"

/* The default kernel with one thing changed is refused. */
#define REFUSE(change, words)                                                                      \
	do {                                                                                       \
		struct elf_file f = elf_default();                                                 \
		change;                                                                            \
		refuse_elf(&f, words);                                                             \
	} while (0)

/* Notes whose segment says 8 are padded to 8. */
static void test_notes_aligned_to_8(void **state)
{
	struct elf_file f = elf_default();
	const u32 words[] = {4, 8, 18, 0x006e6558, ELF_PVH_ENTRY, 0};
	struct result r;

	elf_no_notes(&f);
	/* 12 + 4 bytes of header and name, 4 of content padded to 8, then the PVH note. */
	elf_add_note(&f, "GNU", 1, "1234", 4);
	memcpy(f.notes + 24, words, sizeof(words));
	f.ph[PH_NOTE].p_filesz = 24 + sizeof(words);
	f.ph[PH_NOTE].p_align = 8;
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.regs.mode, BOOT_PVH);
}

static void test_empty_segment_is_skipped(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	f.ph[PH_DATA].p_filesz = f.ph[PH_DATA].p_memsz = 0;
	f.ph[PH_DATA].p_paddr = 0;
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.info.low, ELF_TEXT_GPA);
}

static void test_bss_only_segment(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	f.ph[PH_DATA].p_filesz = 0;
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_true(zero_at(ELF_DATA_GPA, ELF_DATA_MEM));
}

/* ---- L01: the ELF header ---- */

static void test_l01_wrong_elf(void **state)
{
	REFUSE(f.eh.e_ident[EI_CLASS] = ELFCLASS32, "not a 64-bit ELF file");
	REFUSE(f.eh.e_ident[EI_CLASS] = 0, "not a 64-bit ELF file");
	REFUSE(f.eh.e_ident[EI_DATA] = ELFDATA2MSB, "not a little-endian ELF file");
	REFUSE(f.eh.e_ident[EI_DATA] = 77, "not a little-endian ELF file");
	REFUSE(f.eh.e_ident[EI_VERSION] = 0, "ELF version 0");
	REFUSE(f.eh.e_machine = EM_AARCH64, "a program for aarch64; this machine is x86-64");
	REFUSE(f.eh.e_machine = EM_RISCV, "a program for riscv");
	REFUSE(f.eh.e_machine = EM_386; f.eh.e_ident[EI_CLASS] = ELFCLASS32, "for i386");
	REFUSE(f.eh.e_machine = __builtin_bswap16(EM_S390); f.eh.e_ident[EI_DATA] = ELFDATA2MSB,
		"a program for s390");
	REFUSE(f.eh.e_machine = 0xbeef, "machine type 48879");
	REFUSE(f.eh.e_type = ET_REL, "object file");
	REFUSE(f.eh.e_type = ET_CORE, "core dump");
	REFUSE(f.eh.e_type = ET_NONE, "no type");
	REFUSE(f.eh.e_type = 0xffff, "unknown type");
	REFUSE(f.ph[PH_NOTE].p_type = PT_INTERP, "dynamically linked program");
}

static void test_l01_phdr_table(void **state)
{
	REFUSE(f.eh.e_phnum = 0, "no program headers");
	REFUSE(f.eh.e_phnum = 65, "65 program headers");
	REFUSE(f.eh.e_phnum = PN_XNUM, "65535 program headers");
	REFUSE(f.eh.e_phentsize = 0, "program headers of 0 bytes");
	REFUSE(f.eh.e_phentsize = 55, "program headers of 55 bytes");
	REFUSE(f.eh.e_phentsize = 0xffff, "program headers of 65535 bytes");
	REFUSE(f.eh.e_phoff = ELF_FILE_LEN - 1, "cut short: its program headers");
	REFUSE(f.eh.e_phoff = UINT64_MAX, "cut short: its program headers");
	REFUSE(f.eh.e_phoff = 0 - (u64)sizeof(f.ph), "cut short: its program headers");
	REFUSE(f.eh.e_phoff = INT64_MAX, "cut short: its program headers");
	REFUSE(f.ph[PH_TEXT].p_type = f.ph[PH_DATA].p_type = PT_NULL, "no loadable segment");
	REFUSE(f.ph[PH_TEXT].p_memsz = f.ph[PH_DATA].p_memsz = 0, "no loadable segment");
}

static void test_l01_phdrs_far_from_the_start(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	struct load_case req;
	struct result r;

	f.eh.e_phoff = ELF_FILE_LEN; /* past what the first read brings */
	fd = elf_memfd(&f);
	assert_int_equal(pwrite(fd, f.ph, sizeof(f.ph), ELF_FILE_LEN), sizeof(f.ph));
	req = request(fd);
	r = load(&req);
	assert_int_equal(r.code, 0);
	assert_segments_loaded();
}

/* ---- L01: segments ---- */

static void test_l01_segment_numbers(void **state)
{
	REFUSE(f.ph[PH_DATA].p_filesz = ELF_DATA_MEM + 1, "segment 1 has 0x3001 bytes in the file");
	REFUSE(f.ph[PH_TEXT].p_filesz = UINT64_MAX, "segment 0 has 0xffffffffffffffff bytes");
	REFUSE(f.ph[PH_DATA].p_offset += 1, "cut short: segment 1");
	REFUSE(f.ph[PH_DATA].p_offset = UINT64_MAX, "cut short: segment 1");
	REFUSE(f.ph[PH_DATA].p_offset = 0 - (u64)ELF_DATA_LEN, "cut short: segment 1");
	REFUSE(f.ph[PH_DATA].p_offset = 1ull << 63, "cut short: segment 1");
	REFUSE(f.ph[PH_TEXT].p_filesz = f.ph[PH_TEXT].p_memsz = 0x7fffffff, "cut short: segment 0");
	REFUSE(f.ph[PH_TEXT].p_paddr = GPA_HIMEM - 1, "segment 0 wants physical address 0xfffff");
	REFUSE(f.ph[PH_TEXT].p_paddr = 0, "linked at 1 MiB or above");
	REFUSE(f.ph[PH_DATA].p_memsz = UINT64_MAX, "runs past the end of the address space");
	REFUSE(f.ph[PH_DATA].p_paddr = UINT64_MAX, "runs past the end of the address space");
	REFUSE(f.ph[PH_DATA].p_paddr = MEM_GAP_GPA - 1, "3..4 GiB, where devices are");
	REFUSE(f.ph[PH_DATA].p_paddr = 0xfee00000, "3..4 GiB, where devices are");
	REFUSE(f.ph[PH_DATA].p_memsz = 1ull << 40, "3..4 GiB, where devices are");
}

static void test_l01_overlap(void **state)
{
	REFUSE(f.ph[PH_DATA].p_paddr = ELF_TEXT_GPA, "segment 1 (0x100000 to 0x103000) overlaps");
	REFUSE(f.ph[PH_DATA].p_paddr = ELF_TEXT_GPA + ELF_TEXT_LEN - 1, "overlaps the one at");
	REFUSE(f.ph[PH_TEXT].p_paddr = ELF_DATA_GPA + ELF_DATA_MEM - 1, "overlaps the one at");
	REFUSE(f.ph[PH_TEXT].p_memsz = ELF_DATA_GPA - ELF_TEXT_GPA + 1, "overlaps the one at");
}

static void test_l01_touching_segments_are_fine(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	f.ph[PH_TEXT].p_memsz = ELF_DATA_GPA - ELF_TEXT_GPA;
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
	assert_segments_loaded();
}

static void test_l01_ram_too_small(void **state)
{
	REFUSE(f.ph[PH_DATA].p_memsz = 0x80001, "needs at least 3 MiB of RAM, the VM has 2 MiB");
	REFUSE(f.ph[PH_DATA].p_memsz = 1ull << 30, "needs at least 1026 MiB of RAM");
	REFUSE(f.ph[PH_DATA].p_paddr = MEM_HIGH_GPA, "needs at least 3073 MiB of RAM");
	REFUSE(f.ph[PH_DATA].p_paddr = 1ull << 62, "MiB of RAM, the VM has 2 MiB");
}

static void test_l01_segment_to_the_last_byte_of_ram(void **state)
{
	struct elf_file f = elf_default();
	struct result r;

	f.ph[PH_DATA].p_memsz = RAM - ELF_DATA_GPA;
	r = load_elf(&f);
	assert_int_equal(r.code, 0);
}

static void test_l01_entry_outside(void **state)
{
#define REFUSE64(change, words) REFUSE(elf_no_notes(&f); change, words)
	REFUSE64(f.eh.e_entry = 0, "ELF entry point 0 is not at");
	REFUSE64(f.eh.e_entry = ELF_TEXT_GPA - 1, "entry point 0xfffff is not at");
	REFUSE64(f.eh.e_entry = ELF_TEXT_GPA + ELF_TEXT_LEN, "is not at the physical address");
	REFUSE64(f.eh.e_entry = ELF_DATA_GPA + ELF_DATA_LEN, "is not at the physical address");
	REFUSE64(f.eh.e_entry = 0xffffffff81000000, "0xffffffff81000000 is not at");
}

static struct elf_file with_pvh_entry(u64 entry)
{
	struct elf_file f = elf_default();

	elf_no_notes(&f);
	elf_add_note(&f, "Xen", 18, &entry, 8);
	return f;
}

static void test_l01_pvh_entry_outside(void **state)
{
	const u64 bad[] = {0, ELF_TEXT_GPA - 1, ELF_TEXT_GPA + ELF_TEXT_LEN, UINT64_MAX,
		ELF_PVH_ENTRY + (1ull << 32)};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct elf_file f = with_pvh_entry(bad[i]);

		refuse_elf(&f, "PVH entry point");
	}
}

static void test_l01_entry_above_4g(void **state)
{
	struct elf_file f = with_pvh_entry(MEM_HIGH_GPA + 4);

	f.ph[PH_TEXT].p_paddr = MEM_HIGH_GPA;
	refuse_elf(&f, "is above 4 GiB, where 32-bit code cannot be");
	elf_no_notes(&f);
	f.eh.e_entry = MEM_HIGH_GPA;
	refuse_elf(&f, "is above 4 GiB, which the boot page tables do not map");
}

/* ---- L01: notes ---- */

static void set_note_words(struct elf_file *f, u32 name_len, u32 desc_len)
{
	memcpy(f->notes, &name_len, 4);
	memcpy(f->notes + 4, &desc_len, 4);
}

static void test_l01_hostile_notes(void **state)
{
	const u32 bad[][2] = {
		{UINT32_MAX, 0}, {UINT32_MAX, UINT32_MAX}, {4, UINT32_MAX}, {4, UINT32_MAX - 3},
		{UINT32_MAX - 11, 4}, {0x80000000, 0x80000000}, {4, 0x400}, {0x400, 4}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		REFUSE(set_note_words(&f, bad[i][0], bad[i][1]), "broken ELF notes");
	REFUSE(f.ph[PH_NOTE].p_filesz -= 1, "broken ELF notes");
	REFUSE(f.ph[PH_NOTE].p_offset = ELF_FILE_LEN, "cut short: its notes");
	REFUSE(f.ph[PH_NOTE].p_offset = UINT64_MAX, "cut short: its notes");
	REFUSE(f.ph[PH_NOTE].p_filesz = UINT64_MAX, "cut short: its notes");
}

static void test_l01_notes_too_large(void **state)
{
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	struct load_case req;
	struct result r;

	f.ph[PH_NOTE].p_filesz = 65537;
	fd = elf_memfd(&f);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	req = request(fd);
	r = load(&req);
	assert_refused(&r, "65537 bytes of ELF notes");
}

static void test_l01_pvh_note_of_wrong_size(void **state)
{
	const u32 sizes[] = {0, 3, 5, 7, 9, 16};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		REFUSE(elf_no_notes(&f); elf_add_note(&f, "Xen", 18, "0123456789abcdef", sizes[i]),
			"bytes instead of 4 or 8");
}

/* A note of another owner, or of ours with another type, is not an entry point. */
static void test_l01_note_names_are_exact(void **state)
{
	const char *names[] = {"Xe", "Xen ", "xen", "XenX", ""};
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = -1;
	struct kernel_info info;
	u64 entry = ELF_PVH_ENTRY;

	elf_no_notes(&f);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		elf_add_note(&f, names[i], 18, &entry, 8);
	elf_add_note(&f, "Xen", 17, &entry, 8);
	elf_add_note(&f, "Linu", 18, &entry, 8);
	fd = elf_memfd(&f);
	assert_int_equal(probe(fd, &info), 0);
	assert_false(info.has_pvh || info.has_linux || info.has_kelvin);
}

/* ---- L01: the file ---- */

static void test_l01_truncated_anywhere(void **state)
{
	struct elf_file f = elf_default();

	for (u64 len = 0; len < ELF_FILE_LEN; len += len < 1100 ? 1 : 97) {
		f.file_len = len;
		refuse_elf(&f, len ? (len < 4 ? "not a kernel: neither" : "cut short") : "empty");
	}
	f.file_len = ELF_FILE_LEN - 1;
	refuse_elf(&f, "cut short: segment 1");
}

static void test_l01_other_files(void **state)
{
	u8 efi[0x400] = "MZ";
	u8 arm[0x100] = {0};

	memcpy(arm + 0x38, "ARM\x64", 4);
	refuse_bytes(efi, sizeof(efi), "not an ELF file but a Windows or EFI program");
	refuse_bytes(arm, sizeof(arm), "kernel image for aarch64");
	memcpy(arm + 0x38, "RSC\x05", 4);
	refuse_bytes(arm, sizeof(arm), "kernel image for riscv; this machine is x86-64");
	memcpy(efi + 4, "zimg", 4);
	refuse_bytes(efi, sizeof(efi), "not an ELF file but a packed EFI kernel");
	refuse_bytes("!<arch>\ndebian", 14, "a package or library");
	refuse_bytes("BZh91AY", 7, "bzip2 data");
	refuse_bytes("\x5d\0\0\x80\0", 5, "lzma data");
	refuse_bytes("\x89LZO\0\r\n\x1a\n", 9, "lzo data");
	refuse_bytes("070701000", 9, "a cpio archive");
	refuse_bytes("#!/bin/sh\n", 10, "a script");
	refuse_bytes("hello", 5, "but begins with bytes 68 65 6c 6c");
	refuse_bytes("h", 1, "but begins with bytes 68");
	refuse_bytes("", 0, "the file is empty");
}

static void test_l01_not_a_file(void **state)
{
	_cleanup_fd_ int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fd_ int dev = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct load_case req = request(dir);
	struct result r = load(&req);

	assert_refused(&r, "guests/k: a directory");
	req.kernel_fd = dev;
	r = load(&req);
	assert_refused(&r, "guests/k: a pipe, socket or device");
	req.kernel_fd = -1;
	r = load(&req);
	assert_refused(&r, "Bad file descriptor");
}

/* A sysfs file claims 4096 bytes and has fewer: the same as one cut short while it is read. */
static void test_l01_file_shrinks(void **state)
{
	_cleanup_fd_ int fd = open("/sys/kernel/mm/transparent_hugepage/enabled",
		O_RDONLY | O_CLOEXEC);
	struct load_case req = request(fd);
	struct result r;

	if (fd < 0)
		skip();
	r = load(&req);
	assert_refused(&r, "guests/k: became shorter while it was read");
}

/*
 * Every byte of the headers and notes, set to values that hurt: the loader says yes or no, and
 * what it says yes to has its entry in RAM.
 */
static void test_l01_every_header_byte(void **state)
{
	const u8 values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	struct elf_file f = elf_default();
	_cleanup_fd_ int fd = elf_memfd(&f);
	struct load_case req = request(fd);
	unsigned accepted = 0;

	for (u64 off = 0; off < ELF_NOTE_OFF + f.ph[PH_NOTE].p_filesz; off++) {
		u8 old;

		assert_int_equal(pread(fd, &old, 1, (off_t)off), 1);
		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			struct result r;

			assert_int_equal(pwrite(fd, &values[i], 1, (off_t)off), 1);
			r = load(&req);
			if (r.code) {
				assert_ram_untouched();
				continue;
			}
			assert_non_null(mem_at(ram, r.regs.rip, 1));
			accepted++;
			new_ram(RAM);
		}
		assert_int_equal(pwrite(fd, &old, 1, (off_t)off), 1);
	}
	assert_true(accepted > 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, ram_setup, ram_teardown)
	const struct CMUnitTest tests[] = {
		T(test_notes_aligned_to_8),
		T(test_empty_segment_is_skipped),
		T(test_bss_only_segment),
		T(test_l01_wrong_elf),
		T(test_l01_phdr_table),
		T(test_l01_phdrs_far_from_the_start),
		T(test_l01_segment_numbers),
		T(test_l01_overlap),
		T(test_l01_touching_segments_are_fine),
		T(test_l01_ram_too_small),
		T(test_l01_segment_to_the_last_byte_of_ram),
		T(test_l01_entry_outside),
		T(test_l01_pvh_entry_outside),
		T(test_l01_entry_above_4g),
		T(test_l01_hostile_notes),
		T(test_l01_notes_too_large),
		T(test_l01_pvh_note_of_wrong_size),
		T(test_l01_note_names_are_exact),
		T(test_l01_truncated_anywhere),
		T(test_l01_other_files),
		T(test_l01_not_a_file),
		T(test_l01_file_shrinks),
		T(test_l01_every_header_byte),
	};

	return cmocka_run_group_tests_name("elf", tests, NULL, NULL);
}
