/* SPDX-License-Identifier: Apache-2.0 */
/* blake2b.h - the BLAKE2b hash (RFC 7693): cryptographic, and quick on any processor. */
#ifndef KELVIN_MONITOR_BLAKE2B_H
#define KELVIN_MONITOR_BLAKE2B_H

#include "monitor/base/types.h"

/* The @out_len (1 to 64) byte hash, without a key, of @len bytes. A gigabyte takes a second. */
void blake2b(u8 *out, size_t out_len, const void *data, size_t len);

#endif
