/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_kernel.h - what the two targets for kernel files share: an ELF file to be changed, and the
 * way of a file through kernel_open() and kernel_load(), with what must hold at its end.
 */
#ifndef KELVIN_TESTS_FUZZ_KERNEL_H
#define KELVIN_TESTS_FUZZ_KERNEL_H

#include "tests/fuzz/fuzz.h"
#include "tests/lib/elf_builder.h"

/* An ELF file on its way: elf_default(), then changed. */
struct fz_elf {
	struct elf_file elf;
	u8 bytes[ELF_FILE_LEN];
	size_t len;
	bool changed;
};

void fz_elf_begin(struct fz_elf *k);
/* Breaks, by one record, what is said in the headers or notes (L01). */
void fz_elf_headers(struct fz *f, struct fz_elf *k);
/* After all of these: makes the bytes. */
void fz_elf_make(struct fz_elf *k);
/* Then, by one record: any bytes, and the length. */
void fz_elf_bytes(struct fz *f, struct fz_elf *k);

/*
 * Loads the file by the choices in @how (boot protocol, RAM, initrd, command line). It is refused
 * with one line and no byte written, or loaded within RAM; with @good it must load, and whole.
 */
void fz_load(u8 how, const u8 *bytes, size_t len, bool good);

#endif
