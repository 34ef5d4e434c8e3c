/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvh.c - tell a guest about its machine by the PVH boot protocol.
 *
 * The start info, the memory map and the module list share one page, because each page of guest
 * RAM touched before the first instruction costs microseconds. Neither page tables nor a GDT are
 * needed: the guest starts in flat 32-bit mode with its segment registers already loaded.
 *
 * The layouts are those of Xen's public header hvm/start_info.h, version 1.
 */
#include "monitor/loader_int.h"

#define START_MAGIC   0x336ec578u
#define START_VERSION 1u

struct start_info {
	u32 magic, version;
	u32 flags, module_count;
	u64 modules_gpa;
	u64 cmdline_gpa;
	u64 rsdp_gpa;
	u64 map_gpa;
	u32 map_count, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "layout of hvm_start_info");

struct start_map {
	u64 gpa, len;
	u32 type, reserved;
};
_Static_assert(sizeof(struct start_map) == 24, "layout of hvm_memmap_table_entry");

struct start_module {
	u64 gpa, len;
	u64 cmdline_gpa, reserved;
};
_Static_assert(sizeof(struct start_module) == 32, "layout of hvm_modlist_entry");

/* What is written at GPA_PVH_INFO. */
struct start_page {
	struct start_info info;
	struct start_map map[MAP_ENTRIES_MAX];
	struct start_module initrd;
};
_Static_assert(sizeof(struct start_page) <= MEM_PAGE, "one page");

void pvh_setup(const struct mem *m, const struct kernel_image *img, const struct boot_extras *x,
	struct boot_regs *regs)
{
	struct start_page page = {
		.info = {.magic = START_MAGIC, .version = START_VERSION,
			.cmdline_gpa = GPA_CMDLINE, .rsdp_gpa = x->rsdp_gpa,
			.map_gpa = GPA_PVH_INFO + offsetof(struct start_page, map)},
	};
	struct map_entry map[MAP_ENTRIES_MAX];

	page.info.map_count = memory_map(m, map);
	for (u32 i = 0; i < page.info.map_count; i++)
		page.map[i] = (struct start_map){map[i].gpa, map[i].len, map[i].type, 0};
	if (x->initrd_len) {
		page.info.module_count = 1;
		page.info.modules_gpa = GPA_PVH_INFO + offsetof(struct start_page, initrd);
		page.initrd = (struct start_module){.gpa = x->initrd_gpa, .len = x->initrd_len};
	}
	put_table(m, GPA_PVH_INFO, &page, sizeof(page));
	*regs = (struct boot_regs){
		.mode = BOOT_PVH, .rip = img->info.pvh_entry, .info_gpa = GPA_PVH_INFO};
}
