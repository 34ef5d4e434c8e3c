/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - map guest RAM and turn guest addresses into host addresses. See memory.h. */
#include "memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"

unsigned mem_layout(u64 size, struct mem_region out[MEM_REGIONS])
{
	u64 low = size < MEM_GAP_GPA ? size : MEM_GAP_GPA;

	out[0] = (struct mem_region){.gpa = 0, .len = low};
	if (size == low)
		return 1;
	out[1] = (struct mem_region){.gpa = MEM_HIGH_GPA, .len = size - low, .file_off = low};
	return 2;
}

/*
 * Maps the image where huge pages begin, as guest addresses begin at 0: only a huge page that is
 * one to both can be one in the guest's page tables too. What is too much at both ends goes again.
 */
static u8 *map_aligned(u64 size, int fd, int flags)
{
	u8 *room = mmap(NULL, size + MEM_HUGE_PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	u64 skip;

	if (room == MAP_FAILED)
		return MAP_FAILED;
	skip = align_up((uintptr_t)room, MEM_HUGE_PAGE) - (uintptr_t)room;
	if (skip)
		munmap(room, skip);
	munmap(room + skip + size, MEM_HUGE_PAGE - skip);
	return room + skip;
}

/* Maps the linear image once and hands out its parts: one VMA is enough for both regions. */
static int map_all(struct mem *m, int fd, int flags, struct err *e)
{
	u8 *base;

	if (m->backing != MEM_HUGE)
		flags |= MAP_NORESERVE;
	if (m->backing == MEM_ANON)
		base = map_aligned(m->size, fd, flags);
	else
		base = mmap(NULL, m->size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (base == MAP_FAILED && m->backing == MEM_HUGE && errno == ENOMEM)
		return err_set(e, -ENOMEM,
			"guest RAM wants %llu pages of 2 MiB, and the host's pool has fewer free: "
			"raise /proc/sys/vm/nr_hugepages",
			(unsigned long long)(m->size / MEM_HUGE_PAGE));
	if (base == MAP_FAILED)
		return err_sys(e, errno, "cannot map %llu MiB of guest RAM%s",
			(unsigned long long)(m->size >> 20),
			m->backing == MEM_HUGE ? " in pages of 2 MiB" : "");
	m->region_count = mem_layout(m->size, m->region);
	for (unsigned i = 0; i < m->region_count; i++)
		m->region[i].hva = base + m->region[i].file_off;
	return 0;
}

/*
 * What the page map tells depends on who opened it. Without CAP_SYS_ADMIN numbers of page frames
 * are zero, and whoever takes over this process later does not learn which memory of the host is
 * next to the guest's.
 */
static int open_pagemap(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct had[_LINUX_CAPABILITY_U32S_3], less[_LINUX_CAPABILITY_U32S_3];
	int fd;

	if (syscall(SYS_capget, &head, had))
		return -1;
	memcpy(less, had, sizeof(less));
	less[0].effective &= ~(1u << CAP_SYS_ADMIN);
	if (syscall(SYS_capset, &head, less))
		return -1;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (syscall(SYS_capset, &head, had))
		fd_close(&fd);
	return fd;
}

static int new_mem(struct mem **ret, u64 size, enum mem_backing backing, struct err *e)
{
	struct mem *m;

	if (size < MEM_MIN_SIZE || size > MEM_MAX_SIZE || size % MEM_PAGE)
		return err_set(e, -EINVAL,
			"guest RAM of %llu bytes: must be a multiple of 4096 from %lluM to %lluG",
			(unsigned long long)size, MEM_MIN_SIZE >> 20, MEM_MAX_SIZE >> 30);
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_sys(e, ENOMEM, "cannot describe guest RAM");
	m->size = size;
	m->backing = backing;
	m->fd = -1;
	m->pagemap_fd = open_pagemap();
	*ret = m;
	return 0;
}

int mem_create(struct mem **ret, u64 size, enum mem_backing backing, struct err *e)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	struct mem *m;
	int r;

	must(backing != MEM_FILE);
	if (backing == MEM_HUGE && size % MEM_HUGE_PAGE)
		return err_set(e, -EINVAL, "guest RAM of %llu bytes: must be a multiple of 2M to "
			"be in pages of that", (unsigned long long)size);
	r = new_mem(&m, size, backing, e);
	if (r)
		return r;
	if (backing == MEM_HUGE)
		flags |= MAP_HUGETLB | MAP_HUGE_2MB;
	if (backing == MEM_MEMFD) {
		flags = MAP_SHARED;
		m->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (m->fd < 0 || ftruncate(m->fd, (off_t)size)) {
			r = err_sys(e, errno, "cannot make a memfd of %llu MiB for guest RAM",
				(unsigned long long)(size >> 20));
			mem_destroy(&m);
			return r;
		}
	}
	r = map_all(m, m->fd, flags, e);
	if (r) {
		mem_destroy(&m);
		return r;
	}
	*ret = m;
	return 0;
}

int mem_map_file(struct mem **ret, int fd, u64 size, struct err *e)
{
	struct stat st;
	struct mem *m;
	int r;

	if (fstat(fd, &st))
		return err_sys(e, errno, "cannot look at the memory file");
	if ((u64)st.st_size != size)
		return err_set(e, -EINVAL, "the memory file has %llu bytes instead of %llu",
			(unsigned long long)st.st_size, (unsigned long long)size);
	r = new_mem(&m, size, MEM_FILE, e);
	if (r)
		return r;
	m->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (m->fd < 0)
		r = err_sys(e, errno, "cannot keep the memory file open");
	else
		r = map_all(m, m->fd, MAP_PRIVATE, e);
	if (r) {
		mem_destroy(&m);
		return r;
	}
	*ret = m;
	return 0;
}

bool mem_set_huge(const struct mem *m, bool huge)
{
	return m->backing == MEM_ANON && madvise(m->region[0].hva, m->size,
		huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0;
}

bool mem_map_piece(struct mem *m, u64 gpa, u64 len, int fd, u64 off)
{
	u8 *at = mem_at(m, gpa, len);

	if (!at || m->backing != MEM_ANON || m->piece_count == MEM_PIECES)
		return false;
	if (gpa % MEM_PAGE || len % MEM_PAGE || off % MEM_PAGE)
		return false;
	if (mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		    (off_t)off) == MAP_FAILED)
		return false;
	m->piece[m->piece_count++] =
		(struct mem_piece){.off = (u64)(at - m->region[0].hva), .len = len};
	return true;
}

void mem_destroy(struct mem **mp)
{
	struct mem *m = *mp;

	if (!m)
		return;
	if (m->region_count)
		munmap(m->region[0].hva, m->size);
	fd_close(&m->fd);
	fd_close(&m->pagemap_fd);
	free(m);
	*mp = NULL;
}

void *mem_at(const struct mem *m, u64 gpa, u64 len)
{
	if (!len)
		return NULL;
	for (unsigned i = 0; i < m->region_count; i++) {
		const struct mem_region *r = &m->region[i];

		if (gpa >= r->gpa && range_ok(gpa - r->gpa, len, r->len))
			return r->hva + (gpa - r->gpa);
	}
	return NULL;
}

bool mem_iov(const struct mem *m, u64 gpa, u64 len, struct iovec *iov)
{
	void *p = mem_at(m, gpa, len);

	if (!p)
		return false;
	*iov = (struct iovec){.iov_base = p, .iov_len = len};
	return true;
}

bool mem_read(const struct mem *m, u64 gpa, void *dst, u64 len)
{
	const void *p = mem_at(m, gpa, len);

	if (!p)
		return false;
	memcpy(dst, p, len);
	return true;
}

bool mem_write(const struct mem *m, u64 gpa, const void *src, u64 len)
{
	void *p = mem_at(m, gpa, len);

	if (!p)
		return false;
	memcpy(p, src, len);
	return true;
}

bool mem_span(const struct mem *m, u64 gpa, u64 len, struct mem_span *s)
{
	u8 *p = mem_at(m, gpa, len);

	if (!p)
		return false;
	*s = (struct mem_span){.hva = p, .len = len};
	return true;
}

/* A checked, naturally aligned place in a span. */
static void *span_at(struct mem_span s, u64 off, u64 len)
{
	void *p = s.hva + off;

	must(range_ok(off, len, s.len));
	must((uintptr_t)p % len == 0);
	return p;
}

u16 span_load16(struct mem_span s, u64 off)
{
	return __atomic_load_n((u16 *)span_at(s, off, 2), __ATOMIC_RELAXED);
}

u16 span_load16_acquire(struct mem_span s, u64 off)
{
	return __atomic_load_n((u16 *)span_at(s, off, 2), __ATOMIC_ACQUIRE);
}

u32 span_load32(struct mem_span s, u64 off)
{
	return __atomic_load_n((u32 *)span_at(s, off, 4), __ATOMIC_RELAXED);
}

u64 span_load64(struct mem_span s, u64 off)
{
	return __atomic_load_n((u64 *)span_at(s, off, 8), __ATOMIC_RELAXED);
}

void span_store16(struct mem_span s, u64 off, u16 v)
{
	__atomic_store_n((u16 *)span_at(s, off, 2), v, __ATOMIC_RELAXED);
}

void span_store16_release(struct mem_span s, u64 off, u16 v)
{
	__atomic_store_n((u16 *)span_at(s, off, 2), v, __ATOMIC_RELEASE);
}

void span_store32(struct mem_span s, u64 off, u32 v)
{
	__atomic_store_n((u32 *)span_at(s, off, 4), v, __ATOMIC_RELAXED);
}

void span_copy_out(struct mem_span s, u64 off, void *dst, u64 len)
{
	must(range_ok(off, len, s.len));
	memcpy(dst, s.hva + off, len);
}

unsigned iov_slice(const struct iovec *iov, unsigned n, size_t skip, size_t len, struct iovec *out)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t part = iov[i].iov_len;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part -= skip;
		if (part > len)
			part = len;
		out[k++] = (struct iovec){.iov_base = (u8 *)iov[i].iov_base + skip,
			.iov_len = part};
		len -= part;
		skip = 0;
	}
	return k;
}

/* Copies between @host and the list, whichever way. */
static size_t iov_copy(const struct iovec *iov, unsigned n, size_t skip, u8 *host, size_t len,
	bool to_host)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		struct iovec part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		iov_slice(&iov[i], 1, skip, len - done, &part);
		if (to_host)
			memcpy(host + done, part.iov_base, part.iov_len);
		else
			memcpy(part.iov_base, host + done, part.iov_len);
		done += part.iov_len;
		skip = 0;
	}
	return done;
}

size_t iov_to_host(const struct iovec *iov, unsigned n, size_t skip, void *dst, size_t len)
{
	return iov_copy(iov, n, skip, dst, len, true);
}

size_t iov_from_host(const struct iovec *iov, unsigned n, size_t skip, const void *src, size_t len)
{
	return iov_copy(iov, n, skip, (u8 *)(uintptr_t)src, len, false);
}
