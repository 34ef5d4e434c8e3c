/* SPDX-License-Identifier: Apache-2.0 */
/* load_case.c - see load_case.h */
#include "tests/lib/load_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"

struct mem *ram;

void new_ram(u64 size)
{
	mem_destroy(&ram);
	assert_int_equal(mem_create(&ram, size, MEM_ANON, NULL), 0);
}

int ram_setup(void **state)
{
	new_ram(RAM);
	return 0;
}

int ram_teardown(void **state)
{
	mem_destroy(&ram);
	return 0;
}

bool zero_at(u64 gpa, u64 len)
{
	const u8 *p = mem_at(ram, gpa, len);

	assert_non_null(p);
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

void assert_ram_untouched(void)
{
	for (unsigned i = 0; i < ram->region_count; i++)
		assert_true(zero_at(ram->region[i].gpa, ram->region[i].len));
}

struct load_case request(int kernel_fd)
{
	return (struct load_case){.kernel_fd = kernel_fd, .kernel_path = "guests/k",
		.cache = "off", .initrd_fd = -1, .initrd_path = "guests/initrd", .cmdline = "a=1"};
}

struct result load(const struct load_case *c)
{
	struct kernel *k = NULL;
	struct result r = {0};
	struct load_request req;

	r.code = kernel_open(&k, c->kernel_fd, c->kernel_path, c->cache, &r.err);
	req = (struct load_request){.kernel = k, .rsdp_gpa = c->rsdp_gpa, .initrd_fd = c->initrd_fd,
		.initrd_path = c->initrd_path, .cmdline = c->cmdline, .boot = c->boot,
		.map_one_gib = c->map_one_gib};
	if (!r.code) {
		r.info = *kernel_info(k);
		r.code = kernel_load(ram, &req, &r.regs, &r.err);
	}
	assert_int_equal(r.code, r.err.code);
	kernel_close(&k);
	return r;
}

int probe(int kernel_fd, struct kernel_info *ret)
{
	struct kernel *k = NULL;
	int r = kernel_open(&k, kernel_fd, "k", "off", NULL);

	if (!r)
		*ret = *kernel_info(k);
	kernel_close(&k);
	return r;
}

struct result load_bytes(const void *p, size_t len)
{
	_cleanup_fd_ int fd = bytes_memfd(p, len);
	struct load_case req = request(fd);

	return load(&req);
}

struct result load_elf(const struct elf_file *f)
{
	_cleanup_fd_ int fd = elf_memfd(f);
	struct load_case req = request(fd);

	return load(&req);
}

void assert_refused(const struct result *r, const char *words)
{
	if (!r->code || !strstr(r->err.msg, words))
		fail_msg("expected \"%s\", got code %d \"%s\"", words, r->code, r->err.msg);
	assert_null(strchr(r->err.msg, '\n'));
	assert_ram_untouched();
}

void refuse_bytes(const void *p, size_t len, const char *words)
{
	struct result r = load_bytes(p, len);

	assert_refused(&r, words);
}

void refuse_elf(const struct elf_file *f, const char *words)
{
	struct result r = load_elf(f);

	assert_refused(&r, words);
	assert_int_equal(strncmp(r.err.msg, "guests/k: ", 10), 0);
}

void assert_segments_loaded(void)
{
	const u8 *text = mem_at(ram, ELF_TEXT_GPA, ELF_TEXT_LEN);
	const u8 *data = mem_at(ram, ELF_DATA_GPA, ELF_DATA_LEN);

	for (u64 i = 0; i < ELF_TEXT_LEN; i++)
		assert_int_equal(text[i], elf_byte(ELF_TEXT_GPA + i));
	for (u64 i = 0; i < ELF_DATA_LEN; i++)
		assert_int_equal(data[i], elf_byte(ELF_DATA_GPA + i));
	assert_true(zero_at(ELF_TEXT_GPA + ELF_TEXT_LEN, MEM_PAGE - ELF_TEXT_LEN % MEM_PAGE));
	assert_true(zero_at(ELF_DATA_GPA + ELF_DATA_LEN, ELF_DATA_MEM - ELF_DATA_LEN));
}

u64 get(u64 gpa, unsigned len)
{
	u64 v = 0;

	assert_true(mem_read(ram, gpa, &v, len));
	return v;
}
