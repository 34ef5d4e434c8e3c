/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.c - first C code: finds command line and RAM, runs kit_main(), reports faults.
 *
 * What the monitor left in low memory (boot information, command line) is used where it lies:
 * kit_pages() only gives memory above the image.
 */
#include "kit.h"
#include "boot.h"

#define RAM_END_MAX 0xC0000000ull /* above are devices, and then memory that is not mapped */
#define PAGE        4096ull

/* PVH's hvm_start_info and its memory map. */
struct pvh_info {
	u32 magic, version, flags, module_count;
	u64 modules_gpa, cmdline_gpa, rsdp_gpa;
	u64 map_gpa; /* from version 1 */
	u32 map_count, reserved;
};
struct pvh_range {
	u64 start, len;
	u32 type, reserved;
};

/* Places in Linux's zero page. */
#define ZP_CMDLINE_HIGH 0x0c8
#define ZP_E820_COUNT   0x1e8
#define ZP_CMDLINE      0x228
#define ZP_E820         0x2d0
struct e820_range {
	u64 start, len;
	u32 type;
} __attribute__((packed));

#define RANGE_RAM 1

extern u8 kit_image_end[];

_Noreturn void kit_start(u64 booted_by, u64 info_gpa);
_Noreturn void kit_fault(u64 vector, u64 error, u64 rip, u64 cr2, u64 rsp);

static const char *cmdline = "";
static u64 pages_next, pages_end;

/* The range that holds the image is where kit_pages() takes from. */
static void add_range(u64 start, u64 len, u32 type)
{
	u64 end = start + len;

	if (type != RANGE_RAM || start > pages_next || end <= pages_next)
		return;
	pages_end = end < RAM_END_MAX ? end : RAM_END_MAX;
}

static void read_pvh(const struct pvh_info *info)
{
	const struct pvh_range *r = (const void *)info->map_gpa;

	if (info->cmdline_gpa)
		cmdline = (const char *)info->cmdline_gpa;
	for (u32 i = 0; info->version >= 1 && i < info->map_count; i++)
		add_range(r[i].start, r[i].len, r[i].type);
}

static void read_zero_page(u64 page_gpa)
{
	const struct e820_range *r = (const void *)(page_gpa + ZP_E820);
	u64 text = kit_load32(page_gpa + ZP_CMDLINE) |
		   (u64)kit_load32(page_gpa + ZP_CMDLINE_HIGH) << 32;
	u8 count = *(const u8 *)(page_gpa + ZP_E820_COUNT);

	if (text)
		cmdline = (const char *)text;
	for (unsigned i = 0; i < count; i++)
		add_range(r[i].start, r[i].len, r[i].type);
}

/* Entered by the iretq in boot.S, in ring 3. */
_Noreturn void kit_start(u64 booted_by, u64 info_gpa)
{
	pages_next = ((u64)kit_image_end + PAGE - 1) & -PAGE;
	pages_end = pages_next;
	kit_doorbell_init();
	if (booted_by == BOOTED_BY_PVH)
		read_pvh((const struct pvh_info *)info_gpa);
	else
		read_zero_page(info_gpa);
	kit_power((unsigned)kit_main());
}

/* Entered by an iretq in vectors.S, in ring 3, on its own stack. */
_Noreturn void kit_fault(u64 vector, u64 error, u64 rip, u64 cr2, u64 rsp)
{
	kit_printf("fault: vector %lu error %lx rip %lx rsp %lx cr2 %lx\n", vector, error, rip, rsp,
		cr2);
	kit_power(200 + (unsigned)vector);
}

const char *kit_next_word(const char **pos, size_t *len)
{
	const char *s = *pos ? *pos : cmdline, *word;

	while (*s == ' ' || *s == '\t' || *s == '\n')
		s++;
	word = s;
	while (*s && *s != ' ' && *s != '\t' && *s != '\n')
		s++;
	*pos = s;
	*len = (size_t)(s - word);
	return *len ? word : NULL;
}

bool kit_flag(const char *word)
{
	size_t want = strlen(word), len;
	const char *pos = NULL, *w;

	while ((w = kit_next_word(&pos, &len))) {
		if (len == want && memcmp(w, word, len) == 0)
			return true;
	}
	return false;
}

bool kit_option(const char *name, char *value, size_t cap)
{
	size_t name_len = strlen(name), len;
	const char *pos = NULL, *w;

	while ((w = kit_next_word(&pos, &len))) {
		if (len <= name_len || memcmp(w, name, name_len) != 0 || w[name_len] != '=')
			continue;
		len -= name_len + 1;
		if (len > cap - 1)
			len = cap - 1;
		memcpy(value, w + name_len + 1, len);
		value[len] = '\0';
		return true;
	}
	return false;
}

u64 kit_option_number(const char *name, u64 otherwise)
{
	char value[32];

	return kit_option(name, value, sizeof(value)) ? strtoul(value, NULL, 0) : otherwise;
}

void *kit_pages(size_t bytes)
{
	void *pages = (void *)pages_next;

	if (bytes > kit_pages_left())
		return NULL;
	pages_next += (bytes + PAGE - 1) & -PAGE;
	return pages;
}

size_t kit_pages_left(void)
{
	return (pages_end & -PAGE) - pages_next;
}
