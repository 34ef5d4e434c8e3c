/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - guest RAM, and the one gate from guest addresses to host memory.
 *
 * RAM of @size bytes lies at 0 .. min(size, 3 GiB) and, what is left of it, from 4 GiB on: one or
 * two regions. The map is fixed for the life of the VM, so a pointer from the gate stays valid
 * until mem_destroy(). Threads: the map is read-only after creation; guest memory itself is shared
 * with the vCPUs and may change at any time, so every load goes through a span or a copy.
 *
 * No other folder does pointer arithmetic on guest memory (tests/ greps for it).
 */
#ifndef KELVIN_MEMORY_H
#define KELVIN_MEMORY_H

#include <sys/uio.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define MEM_PAGE     4096u
#define MEM_HUGE_PAGE (2ull << 20)
#define MEM_GAP_GPA  0xC0000000ull  /* 3 GiB: devices begin */
#define MEM_HIGH_GPA 0x100000000ull /* 4 GiB: the rest of RAM */
#define MEM_MIN_SIZE (2ull << 20)
#define MEM_MAX_SIZE (1ull << 40)
#define MEM_REGIONS  2
#define MEM_PIECES   64 /* of files that mem_map_piece() mapped */

struct mem_region {
	u64 gpa;      /* page-aligned */
	u64 len;      /* bytes, page-aligned, never 0 */
	u8 *hva;      /* where it is mapped here; for KVM and this folder only */
	u64 file_off; /* of its first byte in the linear memory image */
};

enum mem_backing {
	MEM_ANON,  /* private anonymous */
	MEM_HUGE,  /* private anonymous, pages of 2 MiB from the host's pool */
	MEM_MEMFD, /* shared memfd, so that another process can look */
	MEM_FILE,  /* private (copy-on-write) mapping of a snapshot's memory file */
};

/* A part of RAM that a file's bytes came to by mapping; offsets in the linear image. */
struct mem_piece {
	u64 off, len; /* bytes, page-aligned */
};

struct mem {
	u64 size; /* bytes of RAM in all */
	unsigned region_count;
	struct mem_region region[MEM_REGIONS];
	enum mem_backing backing;
	int fd;         /* owned; -1 for MEM_ANON and MEM_HUGE */
	int pagemap_fd; /* owned; opened early, because a jailed process has no /proc; or -1 */
	unsigned piece_count;
	struct mem_piece piece[MEM_PIECES];
};

/*
 * Makes RAM of @size bytes (a multiple of MEM_PAGE, MEM_MIN_SIZE..MEM_MAX_SIZE), all zero.
 * @backing is not MEM_FILE. The caller owns *@ret. MEM_HUGE takes a multiple of MEM_HUGE_PAGE, and
 * fails with -ENOMEM unless the pool has that much. It is reserved: no touch can fail later.
 */
int mem_create(struct mem **ret, u64 size, enum mem_backing backing, struct err *e);

/*
 * Maps @size bytes of the file @fd as RAM, copy-on-write: the file is never written, and VMs that
 * map the same file share its page cache. The descriptor is duplicated. The file must be exactly
 * @size long.
 */
int mem_map_file(struct mem **ret, int fd, u64 size, struct err *e);

/*
 * Whether the host is to give RAM pages of 2 MiB where it has them (transparent huge pages), or not
 * to. Without a call the host's own setting counts. A guest that uses much of its RAM starts
 * faster: one fault of KVM's brings 512 pages. One that touches a page here and there pays for
 * 2 MiB each. False where that has no effect: RAM that is not MEM_ANON, or a host without such
 * pages. To be called before mem_map_piece() and before RAM is used.
 */
bool mem_set_huge(const struct mem *m, bool huge);

/*
 * Puts @len bytes of the file @fd from @off on at @gpa by mapping instead of copying: the file is
 * never written, and pages nobody touches cost nothing. The file must not change afterwards: its
 * bytes are the guest's RAM, and a page that is cut off kills. What was there before is gone. To be
 * called before the VM is made, and before others hold pointers into the range.
 *
 * False, and nothing happened, where it cannot be done and the caller has to copy: RAM that is not
 * MEM_ANON, an address, offset or length that is not a multiple of MEM_PAGE, a range that is not
 * RAM, too many pieces, or a refusal of the kernel.
 */
bool mem_map_piece(struct mem *m, u64 gpa, u64 len, int fd, u64 off);

/* Unmaps and frees; *@m becomes NULL. NULL is fine. */
void mem_destroy(struct mem **m);

/* How @size bytes are split into regions, without mapping anything. Returns the region count. */
unsigned mem_layout(u64 size, struct mem_region out[MEM_REGIONS]);

/*
 * The gate. The host address of [@gpa, @gpa + @len), or NULL unless all of it lies in one region.
 * A length of 0 gives NULL.
 */
void *mem_at(const struct mem *m, u64 gpa, u64 len);

/* The same as an iovec for a system call; false (and @iov untouched) where mem_at() gives NULL. */
bool mem_iov(const struct mem *m, u64 gpa, u64 len, struct iovec *iov);

/* Copies between guest and host memory; false, and nothing copied, unless the range is RAM. */
bool mem_read(const struct mem *m, u64 gpa, void *dst, u64 len);
bool mem_write(const struct mem *m, u64 gpa, const void *src, u64 len);

/*
 * A checked piece of guest RAM that is looked at again and again (a ring). Loads and stores of
 * one naturally aligned word are single and atomic; an offset past the end is a bug of ours.
 */
struct mem_span {
	u8 *hva;
	u64 len;
};

/* False, and @s untouched, unless the range is RAM. */
bool mem_span(const struct mem *m, u64 gpa, u64 len, struct mem_span *s);

u16 span_load16(struct mem_span s, u64 off);         /* relaxed */
u16 span_load16_acquire(struct mem_span s, u64 off); /* before reading what it publishes */
u32 span_load32(struct mem_span s, u64 off);
u64 span_load64(struct mem_span s, u64 off);
void span_store16(struct mem_span s, u64 off, u16 v);
void span_store16_release(struct mem_span s, u64 off, u16 v); /* publishes what came before */
void span_store32(struct mem_span s, u64 off, u32 v);
void span_copy_out(struct mem_span s, u64 off, void *dst, u64 len); /* guest -> host, one pass */

/*
 * Copies between a host buffer and a list of guest buffers that mem_iov() gave, starting @skip
 * bytes into the list. Return how many bytes were copied (less than @len when the list ends).
 */
size_t iov_to_host(const struct iovec *iov, unsigned n, size_t skip, void *dst, size_t len);
size_t iov_from_host(const struct iovec *iov, unsigned n, size_t skip, const void *src, size_t len);

/*
 * Cuts the first @skip bytes off a list, and everything past @len more; writes the result to @out
 * (room for @n entries). Returns the number of entries written.
 */
unsigned iov_slice(const struct iovec *iov, unsigned n, size_t skip, size_t len, struct iovec *out);

/*
 * Which pages may hold something else than zeros: sets bit i of @bitmap (mem->size / MEM_PAGE
 * bits, cleared by the caller, least significant bit of byte 0 first) for page i of the linear
 * image. Never misses a page with content; may name pages that turn out to be zero. Call with the
 * vCPUs paused.
 */
int mem_scan(const struct mem *m, u8 *bitmap, struct err *e);

#endif
