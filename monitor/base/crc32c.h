/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c.h - the Castagnoli checksum of what is stored in files. */
#ifndef KELVIN_BASE_CRC32C_H
#define KELVIN_BASE_CRC32C_H

#include "monitor/base/types.h"

/*
 * CRC32C of @len bytes. @crc is 0, or what an earlier call gave for the bytes just before: the
 * result is then that of both pieces together.
 */
u32 crc32c(u32 crc, const void *data, size_t len);

/* The same from a table, for hosts without the instruction; here so that a test can compare. */
u32 crc32c_table(u32 crc, const void *data, size_t len);

#endif
