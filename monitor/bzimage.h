/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzimage.h - find the compressed kernel in a bzImage.
 *
 * By "The Linux/x86 Boot Protocol" of the Linux documentation. A bzImage that is an EFI program
 * too (all that distributions ship are) is read the same way.
 */
#ifndef KELVIN_MONITOR_BZIMAGE_H
#define KELVIN_MONITOR_BZIMAGE_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define BZIMAGE_HEAD_LEN 0x268u /* bytes of the file that are looked at */

struct bzimage {
	u16 version; /* of the boot protocol, 0x20c is 2.12 */
	u64 payload_off, payload_len; /* in the file; checked against its size */
	u32 cmdline_max; /* characters, NUL not counted; 0: it does not say */
	u64 init_size; /* RAM the unpacked kernel needs, bytes; UINT64_MAX: it does not say */
};

/* Whether the first @len bytes are those of a bzImage, good or bad. */
bool bzimage_is(const u8 *head, size_t len);

/* Understands the header of a file of @file_size bytes. @path is for messages. */
int bzimage_parse(const u8 *head, size_t len, u64 file_size, const char *path, struct bzimage *ret,
	struct err *e);

#endif
