/* SPDX-License-Identifier: Apache-2.0 */
/* bz_builder.c - see bz_builder.h */
#include "tests/lib/bz_builder.h"

#include <stdlib.h>
#include <string.h>

#include "tests/lib/elf_builder.h"
#include "tests/lib/pack.h"

#define TAIL 100u /* what follows the payload: a signature, say */

void bz_put(struct bz_file *f, unsigned off, u32 value, unsigned len)
{
	memcpy(f->bytes + off, &value, len);
}

struct bz_file bz_with(const void *payload, size_t len)
{
	struct bz_file f = {.len = BZ_SETUP_LEN + BZ_PAYLOAD + len + TAIL};

	f.bytes = calloc(1, f.len);
	must(f.bytes);
	memcpy(f.bytes, "MZ", 2); /* an EFI program too */
	bz_put(&f, 0x1f1, BZ_SETUP_SECTS, 1);
	bz_put(&f, 0x1fe, 0xaa55, 2);
	memcpy(f.bytes + 0x202, "HdrS", 4);
	bz_put(&f, 0x206, 0x20f, 2);
	bz_put(&f, 0x211, 1, 1);
	bz_put(&f, 0x236, 0x7f, 2);
	bz_put(&f, 0x248, BZ_PAYLOAD, 4);
	bz_put(&f, 0x24c, (u32)len, 4);
	bz_put(&f, 0x260, BZ_INIT_SIZE, 4);
	memcpy(f.bytes + BZ_SETUP_LEN + BZ_PAYLOAD, payload, len);
	return f;
}

struct bz_file bz_default(enum pack how)
{
	struct elf_file elf = elf_default();
	u8 image[ELF_FILE_LEN];
	struct bz_file f;
	size_t len;
	u8 *payload;

	elf_image(&elf, image);
	payload = pack_with_size(how, image, sizeof(image), &len);
	f = bz_with(payload, len);
	free(payload);
	return f;
}
