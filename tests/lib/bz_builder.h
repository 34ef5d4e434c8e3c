/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bz_builder.h - bzImages made in memory, right or wrong in any field.
 *
 * Start from bz_default(), break what the test is about in the header bytes, and load
 * bytes[0 .. len).
 */
#ifndef KELVIN_TESTS_BZ_BUILDER_H
#define KELVIN_TESTS_BZ_BUILDER_H

#include "monitor/unpack.h"

#define BZ_SETUP_SECTS 3u
#define BZ_SETUP_LEN   (512u * (1 + BZ_SETUP_SECTS))
#define BZ_PAYLOAD     0x150u /* from there */
#define BZ_INIT_SIZE   0x10000u

struct bz_file {
	u8 *bytes; /* the test frees it */
	size_t len;
};

/* With elf_default() inside, packed by @how and with Linux's size behind it. */
struct bz_file bz_default(enum pack how);
/* With any payload. */
struct bz_file bz_with(const void *payload, size_t len);
/* Overwrites a field of the setup header. */
void bz_put(struct bz_file *f, unsigned off, u32 value, unsigned len);

#endif
