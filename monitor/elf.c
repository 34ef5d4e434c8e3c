/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf.c - understand a kernel's ELF file.
 *
 * The file may be anything: cut short, made by somebody hostile, or not a kernel at all. Each
 * number is read once into host memory, checked against the file's size, the address space and
 * the other segments, and only the checked copy is used afterwards. What depends on the size of
 * the VM's RAM is checked last, by elf_check_fit(). Nothing here writes guest memory.
 *
 * The first 4 KiB are read with one system call; in the files linkers make they hold the ELF
 * header, the program headers and often the notes, so that a typical kernel costs one or two
 * reads before its segments are copied.
 *
 * Somebody who gave the wrong file is told what the file is: the common mistakes (an initrd, a
 * script, another architecture, a compression we do not know) are recognised by their magic.
 */
#include "monitor/loader_int.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "monitor/magic.h"

#define HEAD_LEN               4096u
#define NOTES_MAX              (64u << 10) /* of one note segment; Linux has half a KiB */
#define NOTE_XEN_PHYS32_ENTRY  18u         /* XEN_ELFNOTE_PHYS32_ENTRY */

/* The file being parsed, with its first bytes. */
struct kernel_file {
	int fd;
	const char *path;
	u64 size;
	u32 head_len;
	u8 head[HEAD_LEN];
};

/* ---- files that are no ELF ---- */

static int refuse_not_elf(const struct kernel_file *f, struct err *e)
{
	char bytes[4 * 3 + 1] = "";
	const char *what;

	if (!f->size)
		return err_set(e, -ENOEXEC, "%s: the file is empty", f->path);
	what = magic_what(f->head, f->head_len);
	if (what)
		return err_set(e, -ENOEXEC, "%s: not an ELF file but %s", f->path, what);
	for (u32 i = 0; i < 4 && i < f->head_len; i++)
		snprintf(bytes + 3 * i, sizeof(bytes) - 3 * i, "%02x ", f->head[i]);
	bytes[strlen(bytes) - 1] = 0;
	return err_set(e, -ENOEXEC,
		"%s: not a kernel: neither an ELF file nor a bzImage, plain or packed, but begins "
		"with bytes %s", f->path, bytes);
}

/* ---- the ELF header ---- */

static const char *machine_name(unsigned machine)
{
	static const struct {
		unsigned machine;
		const char *name;
	} names[] = {
		{EM_386, "i386"},
		{EM_AARCH64, "aarch64"},
		{EM_ARM, "arm"},
		{EM_RISCV, "riscv"},
		{EM_PPC, "powerpc"},
		{EM_PPC64, "powerpc64"},
		{EM_S390, "s390"},
		{EM_MIPS, "mips"},
		{EM_LOONGARCH, "loongarch"},
		{EM_SPARC, "sparc"},
		{EM_SPARCV9, "sparc64"},
		{EM_IA_64, "ia64"},
		{EM_BPF, "bpf"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].machine == machine)
			return names[i].name;
	return NULL;
}

static int check_machine(const struct kernel_file *f, const Elf64_Ehdr *h, struct err *e)
{
	const char *name;
	u16 machine = h->e_machine;

	/* In a file of the other byte order the number reads swapped. */
	if (h->e_ident[EI_DATA] == ELFDATA2MSB)
		machine = __builtin_bswap16(machine);
	name = machine_name(machine);
	if (name)
		return err_set(e, -ENOEXEC, "%s: a program for %s; this machine is x86-64", f->path,
			name);
	if (h->e_ident[EI_DATA] != ELFDATA2LSB)
		return err_set(e, -ENOEXEC, "%s: not a little-endian ELF file", f->path);
	if (machine != EM_X86_64)
		return err_set(e, -ENOEXEC,
			"%s: a program for machine type %u; this machine is x86-64", f->path,
			machine);
	if (h->e_ident[EI_CLASS] != ELFCLASS64)
		return err_set(e, -ENOEXEC, "%s: not a 64-bit ELF file", f->path);
	return 0;
}

static int check_header(const struct kernel_file *f, const Elf64_Ehdr *h, struct err *e)
{
	static const char *const types[] = {"has no type", "is an object file (not linked yet)",
		"", "", "is a core dump"};
	int r = check_machine(f, h, e);

	if (r)
		return r;
	if (h->e_ident[EI_VERSION] != EV_CURRENT)
		return err_set(e, -ENOEXEC, "%s: ELF version %u is unknown", f->path,
			h->e_ident[EI_VERSION]);
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_set(e, -ENOEXEC, "%s: not a kernel: the file %s", f->path,
			h->e_type < ARRAY_SIZE(types) ? types[h->e_type] : "is of unknown type");
	if (!h->e_phnum)
		return err_set(e, -ENOEXEC, "%s: no program headers, so nothing to load", f->path);
	if (h->e_phentsize != sizeof(Elf64_Phdr))
		return err_set(e, -ENOEXEC, "%s: program headers of %u bytes instead of %zu",
			f->path, h->e_phentsize, sizeof(Elf64_Phdr));
	if (h->e_phnum > KERNEL_SEGS_MAX)
		return err_set(e, -ENOEXEC, "%s: %u program headers; at most %u are supported",
			f->path, h->e_phnum, KERNEL_SEGS_MAX);
	if (!range_ok(h->e_phoff, (u64)h->e_phnum * sizeof(Elf64_Phdr), f->size))
		return err_set(e, -ENOEXEC,
			"%s: cut short: its program headers should be at offset %#" PRIx64
			", the file has %" PRIu64 " bytes", f->path, h->e_phoff, f->size);
	return 0;
}

/* Reads a checked range of the file, without a system call where the head holds it. */
static int read_part(const struct kernel_file *f, u64 off, void *dst, u64 len, struct err *e)
{
	if (range_ok(off, len, f->head_len)) {
		memcpy(dst, f->head + off, len);
		return 0;
	}
	return read_exactly(f->fd, f->path, off, dst, len, e);
}

/* ---- segments ---- */

static int check_segment(const struct kernel_file *f, unsigned idx, const Elf64_Phdr *p,
	struct err *e)
{
	u64 end;

	if (p->p_filesz > p->p_memsz)
		return err_set(e, -ENOEXEC,
			"%s: segment %u has %#" PRIx64 " bytes in the file but %#" PRIx64
			" in memory", f->path, idx, p->p_filesz, p->p_memsz);
	if (!range_ok(p->p_offset, p->p_filesz, f->size))
		return err_set(e, -ENOEXEC,
			"%s: cut short: segment %u needs %#" PRIx64 " bytes from offset %#" PRIx64
			", the file has %" PRIu64 " bytes", f->path, idx, p->p_filesz, p->p_offset,
			f->size);
	if (p->p_paddr < GPA_HIMEM)
		return err_set(e, -ENOEXEC,
			"%s: segment %u wants physical address %#" PRIx64
			"; kernels must be linked at 1 MiB or above", f->path, idx, p->p_paddr);
	if (__builtin_add_overflow(p->p_paddr, p->p_memsz, &end))
		return err_set(e, -ENOEXEC,
			"%s: segment %u at %#" PRIx64 " with %#" PRIx64
			" bytes runs past the end of the address space", f->path, idx, p->p_paddr,
			p->p_memsz);
	if (p->p_paddr < MEM_HIGH_GPA && end > MEM_GAP_GPA)
		return err_set(e, -ENOEXEC,
			"%s: segment %u (%#" PRIx64 " to %#" PRIx64
			") reaches into 3..4 GiB, where devices are", f->path, idx, p->p_paddr,
			end);
	return 0;
}

static int add_segment(const struct kernel_file *f, struct kernel_image *img, unsigned idx,
	const Elf64_Phdr *p, struct err *e)
{
	int r = check_segment(f, idx, p, e);
	u64 end;

	if (r)
		return r;
	end = p->p_paddr + p->p_memsz;
	for (unsigned i = 0; i < img->seg_count; i++) {
		const struct kernel_seg *s = &img->seg[i];

		if (p->p_paddr < s->gpa + s->mem_len && s->gpa < end)
			return err_set(e, -ENOEXEC,
				"%s: segment %u (%#" PRIx64 " to %#" PRIx64
				") overlaps the one at %#" PRIx64, f->path, idx, p->p_paddr, end,
				s->gpa);
	}
	img->seg[img->seg_count++] = (struct kernel_seg){.file_off = p->p_offset,
		.file_len = p->p_filesz, .gpa = p->p_paddr, .mem_len = p->p_memsz};
	if (p->p_paddr < img->info.low)
		img->info.low = p->p_paddr;
	if (end > img->info.high)
		img->info.high = end;
	return 0;
}

bool elf_has_code_at(const struct kernel_image *img, u64 gpa)
{
	for (unsigned i = 0; i < img->seg_count; i++)
		if (gpa >= img->seg[i].gpa && gpa - img->seg[i].gpa < img->seg[i].file_len)
			return true;
	return false;
}

int elf_check_fit(const struct kernel_image *img, const struct mem *m, const char *path,
	struct err *e)
{
	/* What lies above the 3..4 GiB hole needs that much less RAM than its address says. */
	u64 hole = img->info.high > MEM_HIGH_GPA ? MEM_HIGH_GPA - MEM_GAP_GPA : 0;

	for (unsigned i = 0; i < img->seg_count; i++)
		if (!mem_at(m, img->seg[i].gpa, img->seg[i].mem_len))
			return err_set(e, -ENOMEM,
				"%s: needs at least %" PRIu64 " MiB of RAM, the VM has %" PRIu64
				" MiB", path, mib_up(img->info.high - hole), m->size >> 20);
	return 0;
}

/* ---- notes ---- */

static bool note_is(const u8 *name, u32 name_len, const char *want)
{
	return name_len == strlen(want) + 1 && !memcmp(name, want, name_len);
}

static int use_note(const struct kernel_file *f, struct kernel_info *info, const Elf64_Nhdr *n,
	const u8 *name, const u8 *desc, struct err *e)
{
	if (note_is(name, n->n_namesz, "Linux"))
		info->has_linux = true;
	if (note_is(name, n->n_namesz, "kelvin"))
		info->has_kelvin = true;
	if (!note_is(name, n->n_namesz, "Xen") || n->n_type != NOTE_XEN_PHYS32_ENTRY)
		return 0;
	/* A machine word of the kernel: 8 bytes from Linux, 4 from those who read the name. */
	if (n->n_descsz != 4 && n->n_descsz != 8)
		return err_set(e, -ENOEXEC, "%s: its PVH note holds %u bytes instead of 4 or 8",
			f->path, n->n_descsz);
	info->pvh_entry = 0;
	memcpy(&info->pvh_entry, desc, n->n_descsz);
	info->has_pvh = true;
	return 0;
}

/* Walks the @len bytes of a note segment. Names and contents are padded to @align. */
static int walk_notes(const struct kernel_file *f, struct kernel_info *info, const u8 *notes,
	u64 len, u64 align, struct err *e)
{
	u64 off = 0;

	while (range_ok(off, sizeof(Elf64_Nhdr), len)) {
		u64 name_off = off + sizeof(Elf64_Nhdr), desc_off;
		Elf64_Nhdr n;
		int r;

		/* Offsets stay small: each is at most @len plus two 32-bit lengths. */
		memcpy(&n, notes + off, sizeof(n));
		desc_off = align_up(name_off + n.n_namesz, align);
		if (!range_ok(name_off, n.n_namesz, len) ||
		    (n.n_descsz && !range_ok(desc_off, n.n_descsz, len)))
			return err_set(e, -ENOEXEC,
				"%s: broken ELF notes: one with %u bytes of name and %u of content "
				"does not fit its segment of %" PRIu64 " bytes", f->path,
				n.n_namesz, n.n_descsz, len);
		r = use_note(f, info, &n, notes + name_off, notes + desc_off, e);
		if (r)
			return r;
		off = align_up(desc_off + n.n_descsz, align);
	}
	return 0;
}

static int read_notes(const struct kernel_file *f, struct kernel_info *info, const Elf64_Phdr *p,
	struct err *e)
{
	_cleanup_free_ u8 *notes = NULL;
	int r;

	if (!range_ok(p->p_offset, p->p_filesz, f->size))
		return err_set(e, -ENOEXEC,
			"%s: cut short: its notes should be at offset %#" PRIx64
			", the file has %" PRIu64 " bytes", f->path, p->p_offset, f->size);
	if (p->p_filesz > NOTES_MAX)
		return err_set(e, -ENOEXEC,
			"%s: %" PRIu64 " bytes of ELF notes; at most %u are read", f->path,
			p->p_filesz, NOTES_MAX);
	if (!p->p_filesz)
		return 0;
	notes = malloc(p->p_filesz);
	if (!notes)
		return err_sys(e, ENOMEM, "%s: cannot read its notes", f->path);
	r = read_part(f, p->p_offset, notes, p->p_filesz, e);
	if (r)
		return r;
	return walk_notes(f, info, notes, p->p_filesz, p->p_align == 8 ? 8 : 4, e);
}

/* ---- the whole file ---- */

static int open_file(struct kernel_file *f, struct err *e)
{
	struct stat st;

	if (fstat(f->fd, &st))
		return err_sys(e, errno, "%s: cannot look at the kernel file", f->path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: %s, not a kernel file", f->path,
			S_ISDIR(st.st_mode) ? "a directory" : "a pipe, socket or device");
	f->size = (u64)st.st_size;
	f->head_len = f->size < HEAD_LEN ? (u32)f->size : HEAD_LEN;
	return read_exactly(f->fd, f->path, 0, f->head, f->head_len, e);
}

static int parse_headers(const struct kernel_file *f, struct kernel_image *img, struct err *e)
{
	Elf64_Phdr ph[KERNEL_SEGS_MAX];
	Elf64_Ehdr h;
	int r;

	if (f->head_len < SELFMAG || memcmp(f->head, ELFMAG, SELFMAG))
		return refuse_not_elf(f, e);
	if (f->head_len < sizeof(h))
		return err_set(e, -ENOEXEC, "%s: cut short: an ELF file of only %" PRIu64 " bytes",
			f->path, f->size);
	memcpy(&h, f->head, sizeof(h));
	r = check_header(f, &h, e);
	if (!r)
		r = read_part(f, h.e_phoff, ph, (u64)h.e_phnum * sizeof(*ph), e);
	img->info.elf_entry = h.e_entry;
	for (unsigned i = 0; !r && i < h.e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD && ph[i].p_memsz)
			r = add_segment(f, img, i, &ph[i], e);
		else if (ph[i].p_type == PT_NOTE)
			r = read_notes(f, &img->info, &ph[i], e);
		else if (ph[i].p_type == PT_INTERP)
			r = err_set(e, -ENOEXEC,
				"%s: a dynamically linked program of an operating system, "
				"not a kernel", f->path);
	}
	return r;
}

int elf_parse(int fd, const char *path, struct kernel_image *ret, struct err *e)
{
	struct kernel_file f = {.fd = fd, .path = path};
	int r = open_file(&f, e);

	if (r)
		return r;
	ret->info = (struct kernel_info){.low = UINT64_MAX};
	ret->seg_count = 0;
	r = parse_headers(&f, ret, e);
	if (r)
		return r;
	if (!ret->seg_count)
		return err_set(e, -ENOEXEC, "%s: no loadable segment, so nothing to load", path);
	if (ret->info.has_pvh && !elf_has_code_at(ret, ret->info.pvh_entry))
		return err_set(e, -ENOEXEC,
			"%s: its PVH entry point %#" PRIx64 " is not in any loaded segment", path,
			ret->info.pvh_entry);
	if (ret->info.has_pvh && ret->info.pvh_entry > UINT32_MAX)
		return err_set(e, -ENOEXEC, "%s: its PVH entry point %#" PRIx64
			" is above 4 GiB, where 32-bit code cannot be", path, ret->info.pvh_entry);
	return 0;
}
