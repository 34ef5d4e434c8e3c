/* SPDX-License-Identifier: Apache-2.0 */
/* test_bzimage.c - packed kernels: good ones, broken ones, bombs (hostile-cases L01). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/bz_builder.h"
#include "tests/lib/load_case.h"
#include "tests/lib/pack.h"

static const enum pack all[] = {PACK_GZIP, PACK_XZ, PACK_LZ4_LEGACY, PACK_LZ4, PACK_ZSTD};

/* The default bzImage with one thing changed is refused. */
#define REFUSE_BZ(change, words)                                                                   \
	do {                                                                                       \
		struct bz_file f = bz_default(PACK_LZ4_LEGACY);                                    \
		change;                                                                            \
		refuse_bytes(f.bytes, f.len, words);                                               \
		free(f.bytes);                                                                     \
	} while (0)

static struct result load_bz(const struct bz_file *f)
{
	return load_bytes(f->bytes, f->len);
}

/* ---- what is good ---- */

static void test_every_packing(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct bz_file f = bz_default(all[i]);
		struct result r;

		new_ram(RAM);
		r = load_bz(&f);
		if (r.code)
			fail_msg("packing %zu: %s", i, r.err.msg);
		assert_segments_loaded();
		assert_int_equal(r.regs.mode, BOOT_PVH);
		assert_int_equal(r.regs.rip, ELF_PVH_ENTRY);
		assert_true(r.info.is_bzimage && !r.info.is_cached);
		assert_int_equal(r.info.packed_as, all[i]);
		free(f.bytes);
	}
}

static void test_bare_elf_of_every_packing(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];

	elf_image(&elf, image);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(all); i++) {
		enum pack how = all[i / 2];
		size_t len;
		u8 *p = i % 2 ? pack_with_size(how, image, sizeof(image), &len)
			      : pack(how, image, sizeof(image), &len);
		struct result r;

		new_ram(RAM);
		r = load_bytes(p, len);
		if (r.code)
			fail_msg("packing %zu: %s", i, r.err.msg);
		assert_segments_loaded();
		assert_false(r.info.is_bzimage);
		free(p);
	}
}

/* More than one block of lz4, more than the first step of the others. */
static void test_a_larger_kernel(void **state)
{
	struct elf_file elf = elf_default();
	const size_t len = 20u << 20;
	u8 *image = calloc(1, len);

	assert_non_null(image);
	elf_image(&elf, image);
	for (size_t i = ELF_FILE_LEN; i < len; i++)
		image[i] = (u8)(i >> 12);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		size_t n;
		u8 *p = pack_with_size(all[i], image, len, &n);
		struct bz_file f = bz_with(p, n);

		bz_put(&f, 0x260, len, 4);
		new_ram(RAM);
		assert_int_equal(load_bz(&f).code, 0);
		assert_segments_loaded();
		free(f.bytes);
		free(p);
	}
	free(image);
}

static void test_linux64_entry_of_a_bzimage(void **state)
{
	struct bz_file f = bz_default(PACK_ZSTD);
	_cleanup_fd_ int fd = bytes_memfd(f.bytes, f.len);
	struct load_case c = request(fd);
	struct result r;

	c.boot = BOOT_BY_LINUX64;
	r = load(&c);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.regs.mode, BOOT_LINUX64);
	assert_int_equal(r.regs.rip, ELF_ENTRY);
	free(f.bytes);
}

static void test_old_protocols(void **state)
{
	struct bz_file f = bz_default(PACK_GZIP);
	struct result r;

	bz_put(&f, 0x206, 0x208, 2); /* neither xloadflags nor init_size */
	bz_put(&f, 0x236, 0, 2);
	bz_put(&f, 0x260, 0, 4);
	r = load_bz(&f);
	assert_int_equal(r.code, 0);
	free(f.bytes);
}

/* Linux cuts off what it has no room for. */
static void test_l01_cmdline_of_a_bzimage(void **state)
{
	static const struct {
		u32 says, has;
		const char *refusal;
	} cases[] = {
		{16, 16, NULL},
		{16, 17, "has 17 characters, with the words for devices; at most 16 fit in this"},
		{0, 4095, NULL}, /* older than 2.06 */
		{UINT32_MAX, 4095, NULL},
		{UINT32_MAX, 4096, "at most 4095 fit"},
	};
	char line[CMDLINE_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bz_file f = bz_default(PACK_GZIP);
		_cleanup_fd_ int fd = -1;
		struct load_case c;
		struct result r;

		bz_put(&f, 0x238, cases[i].says, 4);
		fd = bytes_memfd(f.bytes, f.len);
		c = request(fd);
		memset(line, 'x', sizeof(line));
		line[cases[i].has] = 0;
		c.cmdline = line;
		new_ram(RAM);
		r = load(&c);
		if (cases[i].refusal)
			assert_refused(&r, cases[i].refusal);
		else
			assert_int_equal(r.code, 0);
		free(f.bytes);
	}
}

static void test_default_command_lines(void **state)
{
	struct kernel_info linux_info = {.is_bzimage = true}, kit = {.has_kelvin = true};
	struct kernel_info elf = {.has_linux = true}, other = {.has_pvh = true};

	assert_non_null(strstr(kernel_default_cmdline(&linux_info, true), "console=ttyS0"));
	assert_null(strstr(kernel_default_cmdline(&linux_info, false), "console="));
	assert_string_equal(kernel_default_cmdline(&elf, true),
		kernel_default_cmdline(&linux_info, true));
	assert_string_equal(kernel_default_cmdline(&kit, true), "");
	assert_string_equal(kernel_default_cmdline(&other, false), "");
}

/* ---- L01: the setup header ---- */

static void test_l01_setup_header(void **state)
{
	REFUSE_BZ(bz_put(&f, 0x206, 0x207, 2), "boot protocol 2.07; 2.08 is needed");
	REFUSE_BZ(bz_put(&f, 0x206, 0, 2), "boot protocol 0.00");
	REFUSE_BZ(bz_put(&f, 0x211, 0, 1), "a zImage");
	REFUSE_BZ(bz_put(&f, 0x236, 0x7e, 2), "a Linux kernel for i386; this machine is x86-64");
	REFUSE_BZ(bz_put(&f, 0x24c, 0, 4), "a bzImage without a kernel inside");
	REFUSE_BZ(bz_put(&f, 0x248, 0, 4), "a bzImage without a kernel inside");
	REFUSE_BZ(bz_put(&f, 0x24c, 9, 4), "a kernel of only 9 bytes");
	REFUSE_BZ(bz_put(&f, 0x24c, (u32)f.len, 4), "cut short: the kernel inside needs");
	REFUSE_BZ(bz_put(&f, 0x24c, UINT32_MAX, 4), "cut short: the kernel inside needs");
	REFUSE_BZ(bz_put(&f, 0x248, UINT32_MAX, 4), "cut short: the kernel inside needs");
	REFUSE_BZ(bz_put(&f, 0x248, 0u - BZ_SETUP_LEN, 4), "cut short: the kernel inside needs");
	REFUSE_BZ(bz_put(&f, 0x1f1, 255, 1), "cut short: the kernel inside needs");
	REFUSE_BZ(bz_put(&f, 0x1f1, 0, 1), "cut short: the kernel inside needs"); /* means 4 */
	REFUSE_BZ(bz_put(&f, 0x248, BZ_PAYLOAD + 1, 4), "no packed kernel where its header says");
	REFUSE_BZ(bz_put(&f, 0x260, ELF_FILE_LEN - 1, 4), "the kernel inside says that it unpacks");
	REFUSE_BZ(bz_put(&f, 0x260, 0, 4), "the kernel inside says that it unpacks");
}

static void test_l01_bzimage_cut_anywhere(void **state)
{
	struct bz_file f = bz_default(PACK_XZ);

	for (size_t len = 0x206; len < f.len - 100; len += 13) {
		struct result r = load_bytes(f.bytes, len);

		assert_refused(&r, "guests/k: cut short");
	}
	free(f.bytes);
}

static void test_l01_other_payloads(void **state)
{
	const struct {
		char bytes[20]; /* 16 are used */
		const char *words;
	} bad[] = {
		{"BZh91AY&SY1234567", "the kernel inside is packed with bzip2; gzip, xz, lz4 and"},
		{"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff", "packed with lzma"},
		{"\x89LZO\0\r\n\x1a\n\0\0\0\0\0\0", "packed with lzo"},
		{"hello, this is text", "no packed kernel where its header says"},
		{"\x7f" "ELF with nothing", "no packed kernel where its header says"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct bz_file f = bz_with(bad[i].bytes, 16);

		refuse_bytes(f.bytes, f.len, bad[i].words);
		free(f.bytes);
	}
}

/* ---- L01: what is packed ---- */

/* A payload cut anywhere, its length told right: the format's end is missing. */
static void test_l01_payload_cut_anywhere(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];

	elf_image(&elf, image);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		size_t len;
		u8 *p = pack(all[i], image, sizeof(image), &len);

		for (size_t n = 10; n < len; n += 1 + len / 40) {
			struct result r = load_bytes(p, n);

			assert_refused(&r, "guests/k: ");
		}
		for (size_t n = 0; n < 16; n++) {
			struct result r = load_bytes(p, n);

			assert_refused(&r, "guests/k: ");
		}
		free(p);
	}
}

/* A bit wrong anywhere: refused by a checksum, or by the size; only lz4 has neither inside. */
static void test_l01_payload_damaged(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];

	elf_image(&elf, image);
	for (size_t i = 0; i < 2; i++) { /* gzip and xz have checksums */
		size_t len;
		u8 *p = pack(all[i], image, sizeof(image), &len);

		for (size_t n = 20; n < len; n += 1 + len / 40) {
			struct result r;

			p[n] ^= 0x10;
			r = load_bytes(p, len);
			assert_refused(&r, "guests/k: ");
			p[n] ^= 0x10;
		}
		free(p);
	}
}

static void test_l01_wrong_size_behind(void **state)
{
	for (size_t i = 1; i < ARRAY_SIZE(all); i++) {
		struct bz_file f = bz_default(all[i]);
		size_t end = BZ_SETUP_LEN + BZ_PAYLOAD;
		u32 len;

		memcpy(&len, f.bytes + 0x24c, 4);
		bz_put(&f, (unsigned)(end + len - 4), ELF_FILE_LEN + 1, 4);
		refuse_bytes(f.bytes, f.len, "bytes and should have");
		bz_put(&f, (unsigned)(end + len - 4), ELF_FILE_LEN - 1, 4);
		refuse_bytes(f.bytes, f.len, "unpacks to more than the");
		bz_put(&f, (unsigned)(end + len - 4), 0xffffffff, 4);
		refuse_bytes(f.bytes, f.len, "says that it unpacks to 4294967295 bytes");
		bz_put(&f, 0x24c, len + 7, 4);
		refuse_bytes(f.bytes, f.len, "guests/k: ");
		free(f.bytes);
	}
}

static void test_l01_something_behind(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];

	elf_image(&elf, image);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		size_t len;
		u8 *p = pack(all[i], image, sizeof(image), &len);
		struct result r;

		p = realloc(p, len + 100);
		assert_non_null(p);
		memset(p + len, 0xee, 100);
		r = load_bytes(p, len + 100);
		/* Legacy lz4 has no end: what follows is read as a block. */
		assert_refused(&r, all[i] == PACK_LZ4_LEGACY ? "a block has an impossible length"
							     : "100 bytes of something else follow");
		free(p);
	}
}

/* A gigabyte and more of zeros in little: the first bytes tell that it is no kernel. */
static void test_l01_bomb(void **state)
{
	const size_t len = 64u << 20;
	u8 *zeros = calloc(1, len);

	assert_non_null(zeros);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		size_t n;
		u8 *p = pack(all[i], zeros, len, &n);

		refuse_bytes(p, n, "not an ELF file: it begins with bytes 00 00 00 00");
		free(p);
	}
	free(zeros);
}

/* The same behind the head of a kernel: the bound of the bzImage stops it. */
static void test_l01_bomb_with_a_head(void **state)
{
	const size_t len = 64u << 20;
	struct elf_file elf = elf_default();
	u8 *image = calloc(1, len);

	assert_non_null(image);
	elf_image(&elf, image);
	for (size_t i = 1; i < ARRAY_SIZE(all); i++) {
		size_t n;
		u8 *p = pack_with_size(all[i], image, len, &n);
		const u32 said = ELF_FILE_LEN;
		struct bz_file f;

		memcpy(p + n - 4, &said, 4);
		f = bz_with(p, n);
		refuse_bytes(f.bytes, f.len, "unpacks to more than the 14337 bytes it may");
		free(f.bytes);
		free(p);
	}
	free(image);
}

/* Of 1.1 GiB: more than is unpacked of any file. Legacy lz4, whose blocks can be repeated. */
static void test_l01_bomb_beyond_a_gigabyte(void **state)
{
	const size_t block = 8u << 20;
	struct elf_file elf = elf_default();
	u8 *image = calloc(1, block), *bomb;
	size_t first, n, len;
	u8 *a, *b;

	assert_non_null(image);
	b = pack(PACK_LZ4_LEGACY, image, block, &n);
	elf_image(&elf, image);
	a = pack(PACK_LZ4_LEGACY, image, block, &first);
	len = first + 140 * (n - 4);
	bomb = malloc(len);
	assert_non_null(bomb);
	memcpy(bomb, a, first);
	for (size_t i = 0; i < 140; i++)
		memcpy(bomb + first + i * (n - 4), b + 4, n - 4);
	refuse_bytes(bomb, len, "unpacks to more than the 1073741824 bytes it may");
	free(bomb);
	free(a);
	free(b);
	free(image);
}

static void test_l01_xz_dictionary(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];
	size_t len;
	u8 *p;

	elf_image(&elf, image);
	p = pack(PACK_XZ, image, sizeof(image), &len);
	/* Any change of the header is caught by its own checksum, a huge dictionary among them. */
	p[16] = 40;
	refuse_bytes(p, len, "its xz data: damaged");
	free(p);
}

static void test_l01_kernel_inside_is_bad(void **state)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];
	struct bz_file f;
	size_t len;
	u8 *p;

	elf.eh.e_machine = EM_386;
	elf.eh.e_ident[EI_CLASS] = ELFCLASS32;
	elf_image(&elf, image);
	p = pack_with_size(PACK_ZSTD, image, sizeof(image), &len);
	f = bz_with(p, len);
	refuse_bytes(f.bytes, f.len, "guests/k: the kernel inside it: a program for i386");
	free(f.bytes);
	free(p);

	p = pack(PACK_ZSTD, image, 100, &len);
	refuse_bytes(p, len, "guests/k: the kernel inside it: ");
	free(p);
	p = pack(PACK_GZIP, "\x7f" "EL", 3, &len);
	refuse_bytes(p, len, "it unpacks to only 3 bytes");
	free(p);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, ram_setup, ram_teardown)
	const struct CMUnitTest tests[] = {
		T(test_every_packing),
		T(test_bare_elf_of_every_packing),
		T(test_a_larger_kernel),
		T(test_linux64_entry_of_a_bzimage),
		T(test_l01_cmdline_of_a_bzimage),
		T(test_old_protocols),
		T(test_default_command_lines),
		T(test_l01_setup_header),
		T(test_l01_bzimage_cut_anywhere),
		T(test_l01_other_payloads),
		T(test_l01_payload_cut_anywhere),
		T(test_l01_payload_damaged),
		T(test_l01_wrong_size_behind),
		T(test_l01_something_behind),
		T(test_l01_bomb),
		T(test_l01_bomb_with_a_head),
		T(test_l01_bomb_beyond_a_gigabyte),
		T(test_l01_xz_dictionary),
		T(test_l01_kernel_inside_is_bad),
	};

	return cmocka_run_group_tests_name("bzimage", tests, NULL, NULL);
}
