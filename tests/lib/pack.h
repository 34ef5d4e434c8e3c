/* SPDX-License-Identifier: Apache-2.0 */
/* pack.h - compressed data for tests, made by the formats' own libraries. */
#ifndef KELVIN_TESTS_PACK_H
#define KELVIN_TESTS_PACK_H

#include "monitor/unpack.h"

/* Packs @len bytes; sets *@ret_len. The caller frees the result. */
u8 *pack(enum pack how, const void *src, size_t len, size_t *ret_len);
/* The same with the 4 bytes Linux appends: how long it is unpacked. */
u8 *pack_with_size(enum pack how, const void *src, size_t len, size_t *ret_len);

#endif
