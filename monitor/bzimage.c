/* SPDX-License-Identifier: Apache-2.0 */
/* bzimage.c - see bzimage.h. The file is trusted as little as a guest: hostile-cases L01. */
#include "monitor/bzimage.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "monitor/base/arith.h"

/* Offsets in the file; the "setup header" of the boot protocol. */
#define OFF_SETUP_SECTS 0x1f1 /* u8: sectors of real-mode code after the first */
#define OFF_HEADER      0x202 /* "HdrS" */
#define OFF_VERSION     0x206 /* u16 */
#define OFF_LOADFLAGS   0x211 /* u8 */
#define OFF_XLOADFLAGS  0x236 /* u16, since 2.12 */
#define OFF_CMDLINE_MAX 0x238 /* u32, since 2.06 */
#define OFF_PAYLOAD_OFF 0x248 /* u32, since 2.08, from the end of the real-mode code */
#define OFF_PAYLOAD_LEN 0x24c /* u32, since 2.08 */
#define OFF_INIT_SIZE   0x260 /* u32, since 2.10 */

#define VERSION_PAYLOAD    0x208u
#define VERSION_INIT_SIZE  0x20au
#define VERSION_XLOADFLAGS 0x20cu
#define LOADED_HIGH        0x01u /* a bzImage, not a zImage */
#define XLF_KERNEL_64      0x01u
#define SECTOR             512u
#define SETUP_SECTS_IF_0   4u

static u32 field(const u8 *head, u32 off, u32 len)
{
	u32 v = 0;

	memcpy(&v, head + off, len);
	return v;
}

bool bzimage_is(const u8 *head, size_t len)
{
	return len >= OFF_HEADER + 4 && !memcmp(head + OFF_HEADER, "HdrS", 4);
}

static int check_kind(const u8 *head, const char *path, struct bzimage *bz, struct err *e)
{
	bz->version = (u16)field(head, OFF_VERSION, 2);
	if (bz->version < VERSION_PAYLOAD)
		return err_set(e, -ENOEXEC,
			"%s: a Linux kernel of boot protocol %u.%02u; 2.08 is needed (Linux "
			"2.6.26)", path, bz->version >> 8, bz->version & 0xff);
	if (!(field(head, OFF_LOADFLAGS, 1) & LOADED_HIGH))
		return err_set(e, -ENOEXEC, "%s: a zImage, which has to be loaded low; a bzImage "
			"is needed", path);
	if (bz->version >= VERSION_XLOADFLAGS && !(field(head, OFF_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return err_set(e, -ENOEXEC, "%s: a Linux kernel for i386; this machine is x86-64",
			path);
	return 0;
}

int bzimage_parse(const u8 *head, size_t len, u64 file_size, const char *path, struct bzimage *ret,
	struct err *e)
{
	struct bzimage bz = {.init_size = UINT64_MAX};
	u64 setup_len, off;
	int r;

	if (len < BZIMAGE_HEAD_LEN)
		return err_set(e, -ENOEXEC, "%s: cut short: a Linux kernel of only %" PRIu64
			" bytes", path, file_size);
	r = check_kind(head, path, &bz, e);
	if (r)
		return r;
	setup_len = field(head, OFF_SETUP_SECTS, 1);
	setup_len = (1 + (setup_len ? setup_len : SETUP_SECTS_IF_0)) * SECTOR;
	off = field(head, OFF_PAYLOAD_OFF, 4);
	bz.payload_off = setup_len + off;
	bz.payload_len = field(head, OFF_PAYLOAD_LEN, 4);
	if (!off || !bz.payload_len)
		return err_set(e, -ENOEXEC, "%s: a bzImage without a kernel inside (payload of %"
			PRIu64 " bytes at offset %" PRIu64 ")", path, bz.payload_len, off);
	if (!range_ok(bz.payload_off, bz.payload_len, file_size))
		return err_set(e, -ENOEXEC,
			"%s: cut short: the kernel inside needs %" PRIu64 " bytes from offset %#"
			PRIx64 ", the file has %" PRIu64 " bytes", path, bz.payload_len,
			bz.payload_off, file_size);
	bz.cmdline_max = field(head, OFF_CMDLINE_MAX, 4);
	if (bz.version >= VERSION_INIT_SIZE)
		bz.init_size = field(head, OFF_INIT_SIZE, 4);
	*ret = bz;
	return 0;
}
