/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.h - block requests by hand (virtio 1.2, 5.2).
 *
 * The host's image holds blk_word(i) as its i-th 64-bit word, so that any sector can be checked.
 * Cases may write the last quarter of the disk, and nothing else: the host compares.
 */
#ifndef VILLAIN_BLK_H
#define VILLAIN_BLK_H

#include "villain.h"

#define BLK_READ         0
#define BLK_WRITE        1
#define BLK_FLUSH        4
#define BLK_GET_ID       8
#define BLK_DISCARD      11
#define BLK_WRITE_ZEROES 13

#define BLK_F_RO           (1ull << 5)
#define BLK_F_FLUSH        (1ull << 9)
#define BLK_F_MQ           (1ull << 12)
#define BLK_F_DISCARD      (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

#define BLK_OK     0
#define BLK_IOERR  1
#define BLK_UNSUPP 2

#define SECTOR 512u

struct blk_header {
	u32 type, reserved;
	u64 sector;
};

static inline u64 blk_word(u64 index)
{
	return (index + 1) * 0x9e3779b97f4a7c15ull;
}

/* The first sector that cases may write. */
u64 blk_scratch(const struct scene *s);
/* Makes s->seg a request: the header, @len bytes for data (D_WRITE in @flags: the device writes
 * them), the status byte. Returns the data. */
u8 *blk_request(struct scene *s, u32 type, u64 sector, u32 len, u16 flags);
/* Does @data hold what the image has from @sector on? Else complains. */
bool blk_content(const void *data, u64 sector, u32 len);
#define MAY_OK     (1u << BLK_OK)
#define MAY_FAIL   (1u << BLK_IOERR)
#define MAY_REFUSE (1u << BLK_UNSUPP)
#define MAY_ANY    (MAY_OK | MAY_FAIL | MAY_REFUSE)
/* Offers s->seg at descriptor 0, kicks and waits; complains unless it comes back with a status that
 * is one of @allowed. @what is for the complaint. */
bool blk_ends(struct scene *s, unsigned allowed, const char *what);

#endif
