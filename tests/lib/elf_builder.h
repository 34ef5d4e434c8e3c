/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_builder.h - ELF kernels made in memory, right or wrong in any field.
 *
 * Start from elf_default(), break what the test is about, and take elf_file(): a memfd with the
 * headers, the notes and the segments at the offsets the program headers name.
 */
#ifndef KELVIN_TESTS_ELF_BUILDER_H
#define KELVIN_TESTS_ELF_BUILDER_H

#include <elf.h>

#include "monitor/base/types.h"

#define ELF_TEXT_GPA   0x100000ull
#define ELF_TEXT_OFF   0x1000u
#define ELF_TEXT_LEN   0x1234u
#define ELF_DATA_GPA   0x180000ull
#define ELF_DATA_OFF   0x3000u
#define ELF_DATA_LEN   0x801u
#define ELF_DATA_MEM   0x3000u
#define ELF_NOTE_OFF   0x200u
#define ELF_PVH_ENTRY  0x100010ull
#define ELF_ENTRY      0x100020ull
#define ELF_FILE_LEN   (ELF_DATA_OFF + ELF_DATA_LEN)

enum { PH_TEXT, PH_DATA, PH_NOTE, PH_COUNT };

struct elf_file {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[PH_COUNT];
	u8 notes[512]; /* ph[PH_NOTE].p_filesz of them are used */
	u64 file_len;  /* what lies past it is cut off */
};

/* Two segments, a PVH note; byte i of a segment's content is elf_byte(gpa + i). */
struct elf_file elf_default(void);
static inline u8 elf_byte(u64 gpa)
{
	return (u8)(gpa * 7 + gpa / 256 + 1);
}

/* Appends a note to the note segment, padded to 4. */
void elf_add_note(struct elf_file *f, const char *name, u32 type, const void *desc, u32 desc_len);
/* Drops the notes made so far. */
void elf_no_notes(struct elf_file *f);

/* The bytes of the whole file, f->file_len not minded. */
void elf_image(const struct elf_file *f, u8 out[ELF_FILE_LEN]);
/* The file as a memfd; the caller closes it. */
int elf_memfd(const struct elf_file *f);
/* Any bytes as a memfd. */
int bytes_memfd(const void *p, size_t len);

#endif
