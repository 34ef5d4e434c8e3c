/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linux64.c - tell a guest about its machine by Linux's 64-bit boot protocol.
 *
 * The kernel is entered at its ELF entry point in long mode, with a zero page (struct boot_params
 * of the Linux documentation, "The Linux/x86 Boot Protocol" and "zero-page"), a GDT and page
 * tables that map the first 4 GiB one to one. RAM is zero when a VM is new, so only what is not
 * zero is written; the IDT, for one, is left as it is.
 *
 * Of the 4 GiB, only the gigabytes that hold RAM and the one that holds the devices are mapped:
 * each costs a page of guest RAM to describe. Devices must be reachable before the guest has page
 * tables of its own, because a unikernel may never make any.
 *
 * Not so in a pc (map_one_gib): Firecracker maps the first GiB and nothing else, and a kernel that
 * was built for it may put its own pages where it expects to find no mapping (Nanos has its stacks
 * below 4 GiB).
 */
#include "monitor/loader_int.h"

#include <string.h>

/* Offsets in the zero page. */
#define ZP_RSDP           0x070 /* u64 */
#define ZP_E820_COUNT     0x1e8 /* u8 */
#define ZP_BOOT_FLAG      0x1fe /* u16 */
#define ZP_HEADER         0x202 /* u32, "HdrS" */
#define ZP_VERSION        0x206 /* u16 */
#define ZP_LOADER_TYPE    0x210 /* u8 */
#define ZP_LOAD_FLAGS     0x211 /* u8 */
#define ZP_INITRD_GPA     0x218 /* u32 */
#define ZP_INITRD_LEN     0x21c /* u32 */
#define ZP_CMDLINE_GPA    0x228 /* u32 */
#define ZP_KERNEL_ALIGN   0x230 /* u32 */
#define ZP_CMDLINE_LEN    0x238 /* u32 */
#define ZP_E820           0x2d0 /* entries of E820_LEN bytes: u64 start, u64 length, u32 type */
#define E820_LEN          20
#define ZP_USED           (ZP_E820 + MAP_ENTRIES_MAX * E820_LEN)

#define BOOT_FLAG         0xaa55u
#define HEADER_MAGIC      0x53726448u /* "HdrS" */
#define PROTOCOL_VERSION  0x020cu
#define LOADER_UNDEFINED  0xffu
#define LOADED_HIGH       0x01u
#define KERNEL_ALIGN      (16u << 20)

#define PTE_PRESENT_RW    0x03ull
#define PTE_LARGE         0x80ull /* a 2 MiB page */
#define PT_ENTRIES        512u
#define PT_LEN            (PT_ENTRIES * 8u)
#define LARGE_LEN         (2ull << 20)
#define GIB               (1ull << 30)
#define GPA_PDPT          (GPA_PAGE_TABLE + PT_LEN)
#define GPA_PD            (GPA_PAGE_TABLE + 2ull * PT_LEN) /* of gigabyte n: + n * PT_LEN */

/* Null, 64-bit code (selector 0x08), data (0x10), TSS (0x18): each flat. */
static const u64 gdt[] = {0, 0x00af9b000000ffffull, 0x00cf93000000ffffull, 0x008f8b000000ffffull};
_Static_assert(GPA_GDT + sizeof(gdt) <= GPA_IDT, "the GDT ends before the IDT");

static void put(u8 *page, u32 off, u64 value, size_t len)
{
	memcpy(page + off, &value, len); /* host and guest are little-endian */
}

static void write_zero_page(const struct mem *m, const struct boot_extras *x)
{
	struct map_entry map[MAP_ENTRIES_MAX];
	unsigned n = memory_map(m, map);
	u8 page[ZP_USED] = {0};

	put(page, ZP_RSDP, x->rsdp_gpa, 8);
	put(page, ZP_E820_COUNT, n, 1);
	put(page, ZP_BOOT_FLAG, BOOT_FLAG, 2);
	put(page, ZP_HEADER, HEADER_MAGIC, 4);
	put(page, ZP_VERSION, PROTOCOL_VERSION, 2);
	put(page, ZP_LOADER_TYPE, LOADER_UNDEFINED, 1);
	put(page, ZP_LOAD_FLAGS, LOADED_HIGH, 1);
	put(page, ZP_INITRD_GPA, x->initrd_gpa, 4); /* below 3 GiB */
	put(page, ZP_INITRD_LEN, x->initrd_len, 4);
	put(page, ZP_CMDLINE_GPA, GPA_CMDLINE, 4);
	put(page, ZP_KERNEL_ALIGN, KERNEL_ALIGN, 4);
	put(page, ZP_CMDLINE_LEN, strlen(x->cmdline), 4);
	for (unsigned i = 0; i < n; i++) {
		u32 off = ZP_E820 + i * E820_LEN;

		put(page, off, map[i].gpa, 8);
		put(page, off + 8, map[i].len, 8);
		put(page, off + 16, map[i].type, 4);
	}
	put_table(m, GPA_ZERO_PAGE, page, sizeof(page));
}

static void write_page_tables(const struct mem *m, bool map_one_gib)
{
	u64 pml4 = GPA_PDPT | PTE_PRESENT_RW;
	u64 pdpt[4] = {0}, pd[PT_ENTRIES];

	for (u64 gib = 0; gib < ARRAY_SIZE(pdpt); gib++) {
		if (map_one_gib ? gib > 0
				: gib * GIB >= m->region[0].len && gib != MEM_GAP_GPA / GIB)
			continue;
		for (u64 i = 0; i < PT_ENTRIES; i++)
			pd[i] = (gib * GIB + i * LARGE_LEN) | PTE_LARGE | PTE_PRESENT_RW;
		put_table(m, GPA_PD + gib * PT_LEN, pd, sizeof(pd));
		pdpt[gib] = (GPA_PD + gib * PT_LEN) | PTE_PRESENT_RW;
	}
	put_table(m, GPA_PDPT, pdpt, sizeof(pdpt));
	put_table(m, GPA_PAGE_TABLE, &pml4, sizeof(pml4));
}

void linux64_setup(const struct mem *m, const struct kernel_image *img, const struct boot_extras *x,
	struct boot_regs *regs)
{
	write_zero_page(m, x);
	write_page_tables(m, x->map_one_gib);
	put_table(m, GPA_GDT, gdt, sizeof(gdt));
	*regs = (struct boot_regs){.mode = BOOT_LINUX64, .rip = img->info.elf_entry,
		.info_gpa = GPA_ZERO_PAGE, .gdt_gpa = GPA_GDT, .idt_gpa = GPA_IDT,
		.cr3_gpa = GPA_PAGE_TABLE};
}
