/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_elf.c - ELF kernels that lie (L01): elf.c and the loader behind it. The first record says
 * how to load; each one after it breaks something in the headers and notes, or, in the second half
 * of the values of its first byte, bytes of the finished file.
 */
#include "tests/fuzz/fuzz_kernel.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static struct fz_elf k;
	bool made = false;
	struct fz f;
	u8 how;

	fz_begin(&f, data, len);
	fz_step(&f);
	how = fz_u8(&f);
	fz_elf_begin(&k);
	while (fz_step(&f)) {
		bool bytes = fz_u8(&f) & 0x80;

		if (bytes && !made)
			fz_elf_make(&k);
		made |= bytes;
		if (made)
			fz_elf_bytes(&f, &k);
		else
			fz_elf_headers(&f, &k);
	}
	if (!made)
		fz_elf_make(&k);
	fz_load(how, k.bytes, k.len, !k.changed);
	return 0;
}
