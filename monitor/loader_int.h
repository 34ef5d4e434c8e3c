/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader_int.h - what the loader's files share: a parsed kernel, a placed initrd, the memory map.
 *
 * The order is always: parse the kernel, check everything against RAM, only then write.
 */
#ifndef KELVIN_MONITOR_LOADER_INT_H
#define KELVIN_MONITOR_LOADER_INT_H

#include "monitor/loader.h"

#define KERNEL_SEGS_MAX 64u

/* One loadable segment. Where it lies in the file and in memory has been checked. */
struct kernel_seg {
	u64 file_off, file_len;
	u64 gpa, mem_len; /* mem_len >= file_len, never 0; what is past the file's part is zeros */
};

struct kernel_image {
	struct kernel_info info;
	unsigned seg_count; /* at least 1; no two overlap */
	struct kernel_seg seg[KERNEL_SEGS_MAX];
};

/* What kernel_open() makes. */
struct kernel {
	int fd; /* an ELF file; owned */
	const char *path;
	struct kernel_image img;
};

/* The command line and the initrd, once they have been checked and placed; the ACPI tables. */
struct boot_extras {
	const char *cmdline;
	u64 rsdp_gpa; /* 0: there are none */
	bool map_one_gib;
	u64 initrd_gpa, initrd_len; /* length 0: there is none */
};

/* What the guest is told about its physical memory; PVH and e820 use the same numbers. */
enum map_type { MAP_RAM = 1, MAP_RESERVED = 2 };
struct map_entry {
	u64 gpa, len;
	enum map_type type;
};
#define MAP_ENTRIES_MAX 6u

/* ---- elf.c ---- */
/* Reads and checks everything in the file that does not depend on the VM. */
int elf_parse(int fd, const char *path, struct kernel_image *ret, struct err *e);
/* Whether the byte at @gpa comes from the kernel's file: where it does not, no code can be. */
bool elf_has_code_at(const struct kernel_image *img, u64 gpa);
/* Whether each segment lies in RAM; the message says how much RAM the kernel needs. */
int elf_check_fit(const struct kernel_image *img, const struct mem *m, const char *path,
	struct err *e);

/* ---- pvh.c, linux64.c: the boot tables, and the registers that go with them ---- */
void pvh_setup(const struct mem *m, const struct kernel_image *img, const struct boot_extras *x,
	struct boot_regs *regs);
void linux64_setup(const struct mem *m, const struct kernel_image *img, const struct boot_extras *x,
	struct boot_regs *regs);

/* ---- loader.c ---- */
/* Fills @out, sorted by address; returns the number of entries. */
unsigned memory_map(const struct mem *m, struct map_entry out[MAP_ENTRIES_MAX]);
/* Writes a boot table. These lie below 1 MiB, so in RAM of any size: failing is a bug. */
void put_table(const struct mem *m, u64 gpa, const void *src, u64 len);
/* pread() of exactly @len bytes, past signals and short reads. */
int read_exactly(int fd, const char *path, u64 off, void *dst, u64 len, struct err *e);

/* For messages: bytes as MiB, rounded up. */
static inline u64 mib_up(u64 bytes)
{
	return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

#endif
