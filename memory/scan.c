/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.c - find the pages that may hold something, so that a snapshot reads only those.
 *
 * A page of a private mapping is one of: never touched (anonymous: zero; file: the file's bytes, or
 * zero in a hole), or ours (present or swapped out, and anonymous). The kernel's page map tells
 * the second kind, SEEK_DATA the holes of the file. mincore() would not do: it calls a page that
 * was swapped out absent. Pieces of files in anonymous RAM hold something as a whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory/memory.h"
#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_PRESENT (1ull << 63)
#define PM_SWAPPED (1ull << 62)
#define PM_ENTRIES 8192u /* 64 KiB of page map for 32 MiB of RAM a read */

static void mark(u8 *bitmap, u64 page)
{
	bitmap[page / 8] |= (u8)(1u << (page % 8));
}

static int mark_ours(const struct mem *m, u8 *bitmap, struct err *e)
{
	_cleanup_free_ u64 *entry = malloc(PM_ENTRIES * sizeof(*entry));
	u64 first = (u64)(uintptr_t)m->region[0].hva / MEM_PAGE;
	u64 pages = m->size / MEM_PAGE;

	if (!entry)
		return err_sys(e, ENOMEM, "cannot scan guest RAM");
	if (m->pagemap_fd < 0) {
		/* There was no page map to open. */
		for (u64 i = 0; i < pages; i++)
			mark(bitmap, i);
		return 0;
	}
	for (u64 at = 0; at < pages;) {
		u64 n = pages - at < PM_ENTRIES ? pages - at : PM_ENTRIES;
		/* syscalls[W]: pread64 */
		ssize_t got = pread(m->pagemap_fd, entry, n * 8, (off_t)((first + at) * 8));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 8)
			return err_sys(e, got < 0 ? errno : EIO, "cannot read /proc/self/pagemap");
		n = (u64)got / 8;
		for (u64 i = 0; i < n; i++)
			if (entry[i] & (PM_PRESENT | PM_SWAPPED))
				mark(bitmap, at + i);
		at += n;
	}
	return 0;
}

/* syscalls[W]: lseek */
static int mark_file_data(const struct mem *m, u8 *bitmap, struct err *e)
{
	off_t at = 0;

	while ((u64)at < m->size) {
		off_t data = lseek(m->fd, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0; /* only a hole is left */
		if (data < 0)
			return err_sys(e, errno, "cannot find the data in the memory file");
		hole = lseek(m->fd, data, SEEK_HOLE);
		if (hole < 0)
			return err_sys(e, errno, "cannot find the holes in the memory file");
		for (u64 p = (u64)data / MEM_PAGE;
			p < align_up((u64)hole, MEM_PAGE) / MEM_PAGE && p < m->size / MEM_PAGE; p++)
			mark(bitmap, p);
		at = hole;
	}
	return 0;
}

/* The page map does not tell pages of a mapped file that nobody touched yet. */
static void mark_pieces(const struct mem *m, u8 *bitmap)
{
	for (unsigned i = 0; i < m->piece_count; i++) {
		u64 first = m->piece[i].off / MEM_PAGE;

		for (u64 p = 0; p < m->piece[i].len / MEM_PAGE; p++)
			mark(bitmap, first + p);
	}
}

int mem_scan(const struct mem *m, u8 *bitmap, struct err *e)
{
	/* The page map of a shared mapping knows only what this process touched. */
	if (m->fd >= 0) {
		int r = mark_file_data(m, bitmap, e);

		if (r)
			return r;
	}
	mark_pieces(m, bitmap);
	return mark_ours(m, bitmap, e);
}
