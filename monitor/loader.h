/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader.h - put a kernel, its initrd, its command line and the boot tables into guest RAM.
 *
 * The kernel file is trusted as little as a guest: every number in it is checked against the file
 * and against RAM before anything is written (hostile-cases L).
 */
#ifndef KELVIN_MONITOR_LOADER_H
#define KELVIN_MONITOR_LOADER_H

#include "memory/memory.h"
#include "monitor/unpack.h"
#include "vcpu/vm.h"

/* Guest physical places (design: "The machine a guest sees"). */
#define GPA_GDT          0x500ull
#define GPA_IDT          0x520ull
#define GPA_IDENTITY     0x5000ull
#define GPA_PVH_INFO     0x6000ull
#define GPA_ZERO_PAGE    0x7000ull
#define GPA_PAGE_TABLE   0x9000ull /* PML4, then PDPT at 0xa000, PD from 0xb000 */
#define GPA_CMDLINE      0x20000ull
#define GPA_MPTABLE      0x9fc00ull /* the last KiB that a PC has below 640 KiB */
#define GPA_ACPI         0xe0000ull
#define GPA_RESET_VECTOR 0xffff0ull
#define GPA_HIMEM        0x100000ull /* kernels may not reach below */
#define CMDLINE_MAX      4096u       /* bytes, NUL included */

enum boot_choice { BOOT_CHOOSE, BOOT_BY_PVH, BOOT_BY_LINUX64 };

struct kernel_info {
	bool has_pvh;       /* a XEN_ELFNOTE_PHYS32_ENTRY note */
	bool has_linux;     /* a note named "Linux" */
	bool has_kelvin;    /* a note named "kelvin": one of our own guests */
	bool is_bzimage;    /* the file is one; the rest is about the kernel inside */
	bool is_cached;     /* what was unpacked comes from the kernel cache */
	enum pack packed_as;
	u32 cmdline_max;    /* characters it reads of its command line; 0: it does not say */
	u64 pvh_entry, elf_entry;
	u64 low, high;      /* guest physical bounds of the loaded segments */
};

/* Linux, and not a guest of our kit that has its note, too. */
static inline bool kernel_is_linux(const struct kernel_info *k)
{
	return !k->has_kelvin && (k->is_bzimage || k->has_linux);
}

/* A kernel file that was understood, unpacked if need be. Nothing is loaded yet. */
struct kernel;

/*
 * Opens the kernel in @fd, which stays the caller's: an ELF file, a bzImage, or an ELF file packed
 * with gzip, xz, lz4 or zstd. @path is for messages and must outlive *@ret. @cache says where
 * unpacked kernels are kept (kcache_open()). Main thread.
 */
int kernel_open(struct kernel **ret, int fd, const char *path, const char *cache, struct err *e);
void kernel_close(struct kernel **k); /* NULL is fine; *@k becomes NULL */
const struct kernel_info *kernel_info(const struct kernel *k);

/*
 * The words such a kernel gets where the operator gave none; a constant, empty for all but Linux.
 */
const char *kernel_default_cmdline(const struct kernel_info *info, bool console);

struct load_request {
	const struct kernel *kernel;
	int initrd_fd;           /* -1: none */
	const char *initrd_path;
	const char *cmdline;     /* complete, device words included; ASCII */
	enum boot_choice boot;
	bool map_one_gib; /* by the Linux 64-bit protocol, instead of 4 GiB (linux64.c) */
	u64 rsdp_gpa; /* of the ACPI tables; 0: there are none */
};

/*
 * Loads everything and fills @regs for vm_boot(). On failure RAM may hold part of it: the VM is
 * not to be started. Main thread, before the VM is made: parts of RAM may be mapped anew.
 */
int kernel_load(struct mem *m, const struct load_request *req, struct boot_regs *regs,
	struct err *e);

#endif
