/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c - check every byte of a snapshot's memory.
 *
 * snap_open() has checked the state; here each chunk of DIR/memory is read and compared with the
 * memory map: a chunk with data by its checksum, a chunk without by being a hole or all zero.
 * Reading is by pread(), never through a mapping, so a file that shrinks meanwhile is an error and
 * not a SIGBUS.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/crc32c.h"
#include "snapshot/snap_int.h"

struct verify {
	const struct snap *s;
	u8 *buf; /* SNAP_CHUNK bytes */
	struct err *e;
};

static int bad(const struct verify *v, u64 off, const char *why)
{
	return err_set(v->e, -EINVAL, "snapshot %.256s: memory at offset %llu: %s", v->s->dir,
		(unsigned long long)off, why);
}

static int read_chunk(const struct verify *v, u64 off, u64 len)
{
	for (u64 at = 0; at < len;) {
		ssize_t n = TEMP_FAILURE_RETRY(pread(v->s->memory_fd, v->buf + at, len - at,
			(off_t)(off + at)));

		if (n < 0)
			return err_sys(v->e, errno,
				"snapshot %.256s: memory at offset %llu: cannot read", v->s->dir,
				(unsigned long long)(off + at));
		if (!n)
			return bad(v, off + at, "the file ends here");
		at += (u64)n;
	}
	return 0;
}

static int check_zero(const struct verify *v, u64 off, u64 len)
{
	int r = read_chunk(v, off, len);

	if (r)
		return r;
	for (u64 i = 0; i < len; i++)
		if (v->buf[i])
			return bad(v, off + i, "holds data that the memory map does not know");
	return 0;
}

/* Where the file next has data at or after @off; @off itself where the file system cannot tell. */
static u64 next_data(const struct verify *v, u64 off)
{
	off_t data = lseek(v->s->memory_fd, (off_t)off, SEEK_DATA);

	if (data >= 0)
		return (u64)data;
	return errno == ENXIO ? UINT64_MAX : off;
}

static int check_chunks(const struct verify *v, void (*progress)(void *ctx, u64 done, u64 total),
	void *ctx)
{
	const struct snap_map *map = &v->s->state.map;
	struct dec crc = dec_from(map->crc, map->crc_len);
	u64 data_off = next_data(v, 0);

	for (u64 i = 0; i < map->chunk_count; i++) {
		u64 off = i * SNAP_CHUNK;
		u64 len = map->size - off < SNAP_CHUNK ? map->size - off : SNAP_CHUNK;
		int r = 0;

		if (data_off < off)
			data_off = next_data(v, off);
		if (snap_bit(map->present, i)) {
			r = read_chunk(v, off, len);
			if (!r && crc32c(0, v->buf, len) != dec_u32(&crc))
				r = bad(v, off, "checksum of the 64 KiB from here does not match");
		} else if (data_off < off + len) {
			r = check_zero(v, off, len);
		}
		if (r)
			return r;
		if (progress)
			progress(ctx, off + len, map->size);
	}
	return 0;
}

static int check_extra(const struct snap *s, const struct snap_extra *want, struct err *e)
{
	_cleanup_fd_ int fd = openat(s->dir_fd, want->name,
		O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct snap_extra x = *want;
	int r = fd < 0 ? errno : snap_extra_sum(fd, &x);

	if (r)
		return err_sys(e, r, "snapshot %.256s: file %s: cannot read", s->dir, want->name);
	if (x.crc != want->crc || x.data_bytes != want->data_bytes)
		return err_set(e, -EINVAL, "snapshot %.256s: file %s: its checksum does not match",
			s->dir, want->name);
	return 0;
}

int snap_verify(const struct snap *s, void (*progress)(void *ctx, u64 done, u64 total), void *ctx,
	struct err *e)
{
	_cleanup_free_ u8 *buf = malloc(SNAP_CHUNK);
	struct verify v = {.s = s, .buf = buf, .e = e};
	struct stat st;
	int r;

	if (!buf)
		return err_sys(e, ENOMEM, "snapshot %.256s: cannot verify", s->dir);
	r = check_chunks(&v, progress, ctx);
	if (r)
		return r;
	if (fstat(s->memory_fd, &st))
		return err_sys(e, errno, "snapshot %.256s: cannot look at its memory", s->dir);
	if ((u64)st.st_size != s->state.map.size)
		return err_set(e, -EINVAL, "snapshot %.256s: memory changed its size", s->dir);
	for (unsigned i = 0; i < s->extra_count && !r; i++)
		r = check_extra(s, &s->extra[i], e);
	return r;
}
