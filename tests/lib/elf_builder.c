/* SPDX-License-Identifier: Apache-2.0 */
/* elf_builder.c - see elf_builder.h */
#include "tests/lib/elf_builder.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/base/arith.h"

void elf_add_note(struct elf_file *f, const char *name, u32 type, const void *desc, u32 desc_len)
{
	Elf64_Nhdr n = {.n_namesz = (u32)strlen(name) + 1, .n_descsz = desc_len, .n_type = type};
	u64 at = f->ph[PH_NOTE].p_filesz;
	u64 desc_at = align_up(at + sizeof(n) + n.n_namesz, 4);

	must(align_up(desc_at + desc_len, 4) <= sizeof(f->notes));
	memcpy(f->notes + at, &n, sizeof(n));
	memcpy(f->notes + at + sizeof(n), name, n.n_namesz);
	if (desc_len)
		memcpy(f->notes + desc_at, desc, desc_len);
	f->ph[PH_NOTE].p_filesz = align_up(desc_at + desc_len, 4);
}

void elf_no_notes(struct elf_file *f)
{
	memset(f->notes, 0, sizeof(f->notes));
	f->ph[PH_NOTE].p_filesz = 0;
}

struct elf_file elf_default(void)
{
	struct elf_file f = {
		.eh = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
			.e_entry = ELF_ENTRY, .e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = PH_COUNT},
		.ph = {{.p_type = PT_LOAD, .p_offset = ELF_TEXT_OFF, .p_paddr = ELF_TEXT_GPA,
			.p_filesz = ELF_TEXT_LEN, .p_memsz = ELF_TEXT_LEN},
			{.p_type = PT_LOAD, .p_offset = ELF_DATA_OFF, .p_paddr = ELF_DATA_GPA,
			.p_filesz = ELF_DATA_LEN, .p_memsz = ELF_DATA_MEM},
			{.p_type = PT_NOTE, .p_offset = ELF_NOTE_OFF, .p_align = 4}},
		.file_len = ELF_FILE_LEN,
	};
	u64 entry = ELF_PVH_ENTRY;

	memcpy(f.eh.e_ident, ELFMAG, SELFMAG);
	f.eh.e_ident[EI_CLASS] = ELFCLASS64;
	f.eh.e_ident[EI_DATA] = ELFDATA2LSB;
	f.eh.e_ident[EI_VERSION] = EV_CURRENT;
	elf_add_note(&f, "GNU", 3, "01234567890123456789", 20);
	elf_add_note(&f, "Xen", 18, &entry, sizeof(entry));
	return f;
}

int bytes_memfd(const void *p, size_t len)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, p, len) == (ssize_t)len);
	return fd;
}

void elf_image(const struct elf_file *f, u8 out[ELF_FILE_LEN])
{
	memset(out, 0, ELF_FILE_LEN);
	memcpy(out, &f->eh, sizeof(f->eh));
	memcpy(out + sizeof(f->eh), f->ph, sizeof(f->ph));
	memcpy(out + ELF_NOTE_OFF, f->notes, sizeof(f->notes));
	for (u64 i = 0; i < ELF_TEXT_LEN; i++)
		out[ELF_TEXT_OFF + i] = elf_byte(ELF_TEXT_GPA + i);
	for (u64 i = 0; i < ELF_DATA_LEN; i++)
		out[ELF_DATA_OFF + i] = elf_byte(ELF_DATA_GPA + i);
}

int elf_memfd(const struct elf_file *f)
{
	u8 image[ELF_FILE_LEN];

	elf_image(f, image);
	must(f->file_len <= sizeof(image));
	return bytes_memfd(image, f->file_len);
}
