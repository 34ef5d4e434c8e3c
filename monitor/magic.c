/* SPDX-License-Identifier: Apache-2.0 */
/*
 * magic.c - see magic.h. Kernels of other architectures say what they are at offset 0x38 ("Boot
 * image header" of arm64 and riscv in the Linux documentation), and begin as EFI programs do.
 */
#include "monitor/magic.h"

#include <string.h>

#include "monitor/base/arith.h"

#define FOR_X86 "; this machine is x86-64"

static const struct file_magic {
	unsigned off, len;
	const char *bytes;
	const char *what;
} magics[] = {
	{0x38, 4, "ARM\x64", "a kernel image for aarch64" FOR_X86},
	{0x38, 4, "RSC\x05", "a kernel image for riscv" FOR_X86},
	{0x38, 4, "\xcd\x23\x82\x81", "a kernel image for loongarch" FOR_X86},
	{0x24, 4, "\x18\x28\x6f\x01", "a kernel image for arm" FOR_X86},
	{4, 4, "zimg", "a packed EFI kernel, which those for x86-64 are not"},
	{0, 3, "BZh", "bzip2 data; decompress it first (bunzip2)"},
	{0, 3, "\x5d\0\0", "lzma data; decompress it first (unlzma)"},
	{0, 9, "\x89LZO\0\r\n\x1a\n", "lzo data; decompress it first (lzop -d)"},
	{0, 6, "070701", "a cpio archive, which is what an initrd looks like"},
	{0, 4, "\x27\x05\x19\x56", "a U-Boot image"},
	{0, 8, "!<arch>\n", "a package or library; unpack it first (dpkg-deb -x)"},
	{0, 2, "MZ", "a Windows or EFI program"},
	{0, 2, "#!", "a script"},
};

const char *magic_what(const void *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		const struct file_magic *m = &magics[i];

		if (range_ok(m->off, m->len, len) &&
			!memcmp((const char *)head + m->off, m->bytes, m->len))
			return m->what;
	}
	return NULL;
}
