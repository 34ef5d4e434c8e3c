/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load_case.h - one case of the loader's tests: a kernel, guest RAM, and what came of it.
 *
 * A refusal is checked three ways: that there is one, that its message (of one line) holds the
 * words an operator needs, and that not one byte of guest RAM was written.
 */
#ifndef KELVIN_TESTS_LOAD_CASE_H
#define KELVIN_TESTS_LOAD_CASE_H

#include "monitor/loader.h"
#include "tests/lib/elf_builder.h"

#define RAM (2ull << 20)

/* What there is to load, and how. */
struct load_case {
	int kernel_fd;
	const char *kernel_path, *cache;
	int initrd_fd;
	const char *initrd_path, *cmdline;
	u64 rsdp_gpa;
	enum boot_choice boot;
	bool map_one_gib;
};

struct result {
	int code;
	struct err err;
	struct boot_regs regs;
	struct kernel_info info;
};

/* RAM bytes of guest memory, made anew for each test. */
extern struct mem *ram;
int ram_setup(void **state);
int ram_teardown(void **state);
/* Fresh memory of another size. */
void new_ram(u64 size);

/* Whether all these bytes are zero. */
bool zero_at(u64 gpa, u64 len);
/* A little-endian number of @len bytes. */
u64 get(u64 gpa, unsigned len);

/* For "guests/k", without an initrd and a kernel cache, command line "a=1". */
struct load_case request(int kernel_fd);
struct result load(const struct load_case *req);
struct result load_bytes(const void *p, size_t len);
/* Only looks; returns what kernel_open() did. */
int probe(int kernel_fd, struct kernel_info *ret);
struct result load_elf(const struct elf_file *f);

void assert_refused(const struct result *r, const char *words);
void refuse_bytes(const void *p, size_t len, const char *words);
/* Refused, and the message names the kernel. */
void refuse_elf(const struct elf_file *f, const char *words);
void assert_ram_untouched(void);
/* The segments of elf_default() are in place, and what follows them is zero. */
void assert_segments_loaded(void);

#endif
