/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_kernel.c - see fuzz_kernel.h */
#include "tests/fuzz/fuzz_kernel.h"

#include <string.h>
#include <unistd.h>

#include "monitor/loader.h"

#define RAM_LEN (2ull << 20)

void fz_elf_begin(struct fz_elf *k)
{
	k->elf = elf_default();
	k->changed = false;
}

static void change_header(struct fz *f, Elf64_Ehdr *h)
{
	switch (fz_below(f, 8)) {
	case 0: h->e_phoff = fz_odd(f, h->e_phoff); break;
	case 1: h->e_phnum = (u16)fz_odd(f, h->e_phnum); break;
	case 2: h->e_entry = fz_odd(f, h->e_entry); break;
	case 3: h->e_phentsize = (u16)fz_odd(f, h->e_phentsize); break;
	case 4: h->e_type = (u16)fz_below(f, 5); break;
	case 5: h->e_machine = (u16)fz_odd(f, h->e_machine); break;
	case 6: h->e_ident[fz_below(f, EI_NIDENT)] = fz_u8(f); break;
	default: h->e_entry = ELF_DATA_GPA + fz_u16(f);
	}
}

static void change_segment(struct fz *f, Elf64_Phdr *p)
{
	switch (fz_below(f, 8)) {
	case 0: p->p_offset = fz_odd(f, p->p_offset); break;
	case 1: p->p_filesz = fz_odd(f, p->p_filesz); break;
	case 2: p->p_memsz = fz_odd(f, p->p_memsz); break;
	case 3: p->p_paddr = fz_odd(f, p->p_paddr); break;
	case 4: p->p_align = fz_odd(f, p->p_align); break;
	case 5: p->p_type = fz_below(f, 8); break;
	case 6: /* moved, whole */
		p->p_paddr = fz_below(f, 512) * MEM_PAGE + fz_below(f, 2) * fz_u16(f);
		break;
	default: /* its end where the file ends, or just past it */
		p->p_filesz = ELF_FILE_LEN - p->p_offset + fz_below(f, 2);
		p->p_memsz = p->p_filesz + fz_u16(f) * (u64)fz_below(f, 64);
	}
}

static void add_note(struct fz *f, struct elf_file *e)
{
	static const char *const names[] = {"Xen", "Linux", "kelvin", "GNU", "Xe", "XenX", ""};
	static const u8 lens[] = {8, 4, 0, 1, 16, 7, 9, 32};
	u8 desc[32];

	if (e->ph[PH_NOTE].p_filesz > sizeof(e->notes) - 64)
		return;
	for (unsigned i = 0; i < sizeof(desc); i++)
		desc[i] = i < 3 ? fz_u8(f) : 0; /* an address in low RAM, mostly */
	elf_add_note(e, names[fz_below(f, ARRAY_SIZE(names))], fz_below(f, 8) ? 18 : fz_u32(f),
		desc, lens[fz_below(f, ARRAY_SIZE(lens))]);
}

/* Overwrites a number in the notes: a length that lies, mostly. */
static void change_note(struct fz *f, struct elf_file *e)
{
	u32 v = (u32)fz_odd(f, 8), at = fz_below(f, sizeof(e->notes) / 4) * 4;

	if (at < e->ph[PH_NOTE].p_filesz)
		memcpy(e->notes + at, &v, sizeof(v));
}

void fz_elf_headers(struct fz *f, struct fz_elf *k)
{
	k->changed = true;
	switch (fz_below(f, 8)) {
	case 0:
	case 1: change_header(f, &k->elf.eh); break;
	case 2:
	case 3: change_segment(f, &k->elf.ph[fz_below(f, PH_COUNT)]); break;
	case 4: add_note(f, &k->elf); break;
	case 5: change_note(f, &k->elf); break;
	case 6: elf_no_notes(&k->elf); break;
	default: k->elf.ph[fz_below(f, PH_COUNT)] = k->elf.ph[fz_below(f, PH_COUNT)];
	}
}

void fz_elf_make(struct fz_elf *k)
{
	elf_image(&k->elf, k->bytes);
	k->len = sizeof(k->bytes);
}

void fz_elf_bytes(struct fz *f, struct fz_elf *k)
{
	u32 within = fz_below(f, 4) ? ELF_NOTE_OFF + 256 : ELF_FILE_LEN;
	u32 n = fz_below(f, 8);

	k->changed = true;
	if (!fz_below(f, 4))
		k->len = 1 + fz_below(f, fz_below(f, 2) ? ELF_FILE_LEN : 1024);
	while (n--)
		k->bytes[fz_below(f, within)] = fz_u8(f);
}

/* ---- loading ---- */

static void check_loaded(const struct mem *m, const struct kernel_info *i,
	const struct boot_regs *regs)
{
	must(i->low < i->high && i->low >= GPA_HIMEM);
	must(mem_at(m, i->low, 1) && mem_at(m, i->high - 1, 1));
	must(regs->rip >= i->low && regs->rip < i->high);
	must(regs->mode == BOOT_PVH || regs->mode == BOOT_LINUX64);
	must(mem_at(m, regs->info_gpa, 1));
}

static void check_whole(const struct mem *m)
{
	const u8 *text = mem_at(m, ELF_TEXT_GPA, ELF_TEXT_LEN);
	const u8 *data = mem_at(m, ELF_DATA_GPA, ELF_DATA_MEM);

	for (u64 i = 0; i < ELF_TEXT_LEN; i++)
		must(text[i] == elf_byte(ELF_TEXT_GPA + i));
	for (u64 i = 0; i < ELF_DATA_MEM; i++)
		must(data[i] == (i < ELF_DATA_LEN ? elf_byte(ELF_DATA_GPA + i) : 0));
}

static void check_untouched(const struct mem *m)
{
	const u8 *p = mem_at(m, 0, RAM_LEN);

	must(!p[0] && !memcmp(p, p + 1, RAM_LEN - 1));
}

static int open_and_load(struct mem *m, const struct load_request *choice, int fd,
	struct kernel_info *info, struct boot_regs *regs, struct err *e)
{
	struct load_request req = *choice;
	struct kernel *k = NULL;
	int r = kernel_open(&k, fd, "kernel", "off", e);

	if (r)
		return r;
	*info = *kernel_info(k);
	req.kernel = k;
	r = kernel_load(m, &req, regs, e);
	kernel_close(&k);
	return r;
}

void fz_load(u8 how, const u8 *bytes, size_t len, bool good)
{
	static const char *const words[] = {"", "console=ttyS0 quiet"};
	int fd = bytes_memfd(bytes, len), initrd_fd = how & 4 ? bytes_memfd("initrd", 6) : -1;
	struct load_request choice = {.initrd_fd = initrd_fd, .initrd_path = "initrd",
		.cmdline = words[how >> 3 & 1], .boot = (enum boot_choice)(how % 4 % 3)};
	struct kernel_info info;
	struct boot_regs regs;
	struct err e = {0};
	struct mem *m;
	int r;

	must(!mem_create(&m, RAM_LEN, MEM_ANON, &e));
	r = open_and_load(m, &choice, fd, &info, &regs, &e);
	fz_trace("load: %d %s", r, r ? e.msg : "");
	if (r) {
		must(!good && r == e.code && e.msg[0] && !strchr(e.msg, '\n'));
		must(!strncmp(e.msg, "kernel: ", 8) || !strncmp(e.msg, "initrd: ", 8));
		check_untouched(m);
	} else {
		check_loaded(m, &info, &regs);
		if (good)
			check_whole(m);
	}
	mem_destroy(&m);
	close(fd);
	if (initrd_fd >= 0)
		close(initrd_fd);
}
