/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extra.c - files that travel with a snapshot beside state and memory: the overlays of disks.
 *
 * Somebody else writes such a file into the writer's directory; it is read once here, for a
 * checksum, and listed in the section "files" with its length, so that a reader knows what must be
 * there. The checksum covers the pieces that are not all zero, each with its place, so that holes
 * and zeroes are the same and holes need not be read. All numbers are little-endian:
 *
 *	0  4  number of files, 1 ..
 *	then for each
 *	0  2  length of the name; the name
 *	   8  length of the file
 *	   8  bytes in pieces (of SNAP_CHUNK) that are not all zero
 *	   4  CRC32C of these: the place (8 bytes), then the piece
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/crc32c.h"
#include "snapshot/snap_int.h"

bool snap_extra_name(const char *name)
{
	size_t n = strlen(SNAP_EXTRA_PREFIX);

	return !strncmp(name, SNAP_EXTRA_PREFIX, n) && name[n] && !strchr(name, '/') &&
		strlen(name) < SNAP_FILE_MAX;
}

static bool is_zero(const u8 *p, size_t len)
{
	return !p[0] && memcmp(p, p + 1, len - 1) == 0;
}

/* Adds the piece at @off; 0 or an errno. The last piece may be short. */
static int add_piece(int fd, u64 off, u8 *buf, struct snap_extra *x)
{
	u64 want = x->size - off < SNAP_CHUNK ? x->size - off : SNAP_CHUNK, got = 0;
	u8 place[8];

	while (got < want) {
		ssize_t n = TEMP_FAILURE_RETRY(pread(fd, buf + got, want - got,
			(off_t)(off + got)));

		if (n <= 0)
			return n ? errno : EIO;
		got += (u64)n;
	}
	if (is_zero(buf, want))
		return 0;
	for (unsigned i = 0; i < 8; i++)
		place[i] = (u8)(off >> (8 * i));
	x->crc = crc32c(crc32c(x->crc, place, sizeof(place)), buf, want);
	x->data_bytes += want;
	return 0;
}

int snap_extra_sum(int fd, struct snap_extra *x)
{
	_cleanup_free_ u8 *buf = malloc(SNAP_CHUNK);
	u64 off = 0;

	if (!buf)
		return ENOMEM;
	x->crc = 0;
	x->data_bytes = 0;
	while (off < x->size) {
		off_t data = lseek(fd, (off_t)off, SEEK_DATA);
		int r;

		if (data < 0 && errno == ENXIO)
			break;
		if (data > (off_t)off)
			off = (u64)data - (u64)data % SNAP_CHUNK;
		r = add_piece(fd, off, buf, x);
		if (r)
			return r;
		off += SNAP_CHUNK;
	}
	return 0;
}

void snap_encode_extra(struct enc *out, const struct snap_extra *x, unsigned n)
{
	enc_u32(out, n);
	for (unsigned i = 0; i < n; i++) {
		enc_str(out, x[i].name);
		enc_u64(out, x[i].size);
		enc_u64(out, x[i].data_bytes);
		enc_u32(out, x[i].crc);
	}
}

int snap_parse_extra(struct snap_extra *x, unsigned *ret_n, const void *buf, size_t len,
	struct err *e)
{
	struct dec in = dec_from(buf, len);
	u32 n = dec_u32(&in);

	if (!n || n > SNAP_FILES_MAX)
		return err_set(e, -EINVAL, "count: %u is not from 1 to %u", n, SNAP_FILES_MAX);
	for (u32 i = 0; i < n; i++) {
		dec_str(&in, x[i].name, sizeof(x[i].name));
		x[i].size = dec_u64(&in);
		x[i].data_bytes = dec_u64(&in);
		x[i].crc = dec_u32(&in);
		if (in.bad)
			return err_set(e, -EINVAL, "length: file %u ends too early", i);
		if (!snap_extra_name(x[i].name))
			return err_set(e, -EINVAL, "name: file %u has none that is allowed", i);
		if (x[i].size > INT64_MAX || x[i].data_bytes > x[i].size)
			return err_set(e, -EINVAL, "size: %s cannot be so long", x[i].name);
		for (u32 k = 0; k < i; k++)
			if (!strcmp(x[k].name, x[i].name))
				return err_set(e, -EINVAL, "name: %s appears twice", x[i].name);
	}
	if (!dec_done(&in))
		return err_set(e, -EINVAL, "length: bytes left over");
	*ret_n = n;
	return 0;
}
