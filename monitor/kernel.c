/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.c - from the file an operator names to an ELF file that can be loaded.
 *
 * An ELF file is taken as it is. A bzImage, or an ELF file packed as a whole, is unpacked here, on
 * the host, into a memfd. The guest's own decompressor would take several times as long, and its
 * work would be done again by each boot; ours can be kept (kcache.c), and what is kept can be
 * mapped into the guest instead of copied, as the bytes of an operator's file cannot: that file may
 * change while the guest runs.
 *
 * The packed bytes are read into memory of ours first, so what is hashed, checked and unpacked is
 * the same. Linux appends the size of the unpacked kernel in 4 bytes, which lz4 and xz as Linux
 * uses them would not otherwise tell: it must agree. What is unpacked is kept only after it was
 * understood as a kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "monitor/bzimage.h"
#include "monitor/kcache.h"
#include "monitor/loader_int.h"
#include "monitor/unpack.h"

#define HEAD_LEN   1024u
#define PACKED_MAX (256ull << 20) /* bytes of a packed kernel */

/* A packed kernel in the file. */
struct packed {
	int fd;
	const char *path;
	struct stat st; /* before anything was read */
	u64 off, len;   /* where in the file */
	u64 limit;      /* most bytes it may unpack to */
	u64 init_size;  /* of a bzImage; else UINT64_MAX */
	u32 cmdline_max; /* of a bzImage; else 0 */
	enum pack pack;
	u8 *bytes; /* owned; NULL until they are read */
	struct kcache_key key;
};

/* Where the unpacked bytes go: a memfd, mapped. */
struct room {
	int fd;
	u8 *at;
	u64 len; /* mapped */
};

/* ---- finding it ---- */

static int find_payload(struct packed *p, const u8 *head, size_t len, struct err *e)
{
	u8 magic[PACK_HEAD_LEN];
	struct bzimage bz;
	int r = bzimage_parse(head, len, (u64)p->st.st_size, p->path, &bz, e);

	if (r)
		return r;
	p->off = bz.payload_off;
	p->len = bz.payload_len;
	p->init_size = bz.init_size;
	p->cmdline_max = bz.cmdline_max;
	if (p->len <= sizeof(magic))
		return err_set(e, -ENOEXEC, "%s: a bzImage with a kernel of only %" PRIu64
			" bytes inside", p->path, p->len);
	r = read_exactly(p->fd, p->path, p->off, magic, sizeof(magic), e);
	if (r)
		return r;
	p->pack = pack_detect(magic, sizeof(magic));
	if (p->pack == PACK_UNKNOWN)
		return err_set(e, -ENOEXEC, "%s: the kernel inside is packed with %s; gzip, xz, "
			"lz4 and zstd can be unpacked", p->path, pack_name(magic, sizeof(magic)));
	if (p->pack == PACK_NONE)
		return err_set(e, -ENOEXEC, "%s: a bzImage with no packed kernel where its header "
			"says (offset %#" PRIx64 ")", p->path, p->off);
	return 0;
}

/* Leaves p->pack at PACK_NONE where the file is not a packed kernel. */
static int find_packed(struct packed *p, struct kernel_info *info, struct err *e)
{
	u8 head[HEAD_LEN];
	size_t len;
	int r;

	if (fstat(p->fd, &p->st))
		return err_sys(e, errno, "%s: cannot look at the kernel file", p->path);
	if (!S_ISREG(p->st.st_mode))
		return 0; /* elf_parse() refuses it */
	len = p->st.st_size < HEAD_LEN ? (size_t)p->st.st_size : HEAD_LEN;
	r = read_exactly(p->fd, p->path, 0, head, len, e);
	if (r)
		return r;
	p->limit = UNPACK_MAX;
	p->init_size = UINT64_MAX;
	info->is_bzimage = bzimage_is(head, len);
	if (info->is_bzimage) {
		r = find_payload(p, head, len, e);
	} else {
		p->len = (u64)p->st.st_size;
		p->pack = pack_detect(head, len);
		if (p->pack == PACK_UNKNOWN)
			p->pack = PACK_NONE;
	}
	if (!r && p->pack != PACK_NONE && p->len > PACKED_MAX)
		r = err_set(e, -EFBIG, "%s: a packed kernel of %" PRIu64 " MiB; at most %" PRIu64
			" are unpacked", p->path, mib_up(p->len), (u64)PACKED_MAX >> 20);
	return r;
}

/* ---- unpacking it ---- */

static int read_packed(struct packed *p, struct err *e)
{
	p->bytes = malloc(p->len);
	if (!p->bytes)
		return err_sys(e, ENOMEM, "%s: cannot hold the packed kernel", p->path);
	return read_exactly(p->fd, p->path, p->off, p->bytes, p->len, e);
}

/* The size Linux appended: it bounds the work, and tells that all is there. */
static int bound_by_size(struct packed *p, struct err *e)
{
	u32 size;

	if (p->init_size == UINT64_MAX)
		return 0;
	memcpy(&size, p->bytes + p->len - sizeof(size), sizeof(size));
	if (size > UNPACK_MAX || size > p->init_size)
		return err_set(e, -ENOEXEC, "%s: the kernel inside says that it unpacks to %u "
			"bytes; at most %" PRIu64 " are possible", p->path, size,
			p->init_size < UNPACK_MAX ? p->init_size : (u64)UNPACK_MAX);
	p->limit = size;
	return 0;
}

static int check_end(const struct packed *p, u64 out_len, u64 used, struct err *e)
{
	u64 left = p->len - used;
	u32 size;

	/* A gzip stream ends with its size itself. */
	if (left == 0)
		return 0;
	if (left != sizeof(size))
		return err_set(e, -ENOEXEC, "%s: %" PRIu64 " bytes of something else follow the "
			"packed kernel", p->path, left);
	memcpy(&size, p->bytes + used, sizeof(size));
	if (size != out_len)
		return err_set(e, -ENOEXEC, "%s: damaged: the packed kernel has %" PRIu64
			" bytes and should have %u", p->path, out_len, size);
	return 0;
}

static int make_room(struct room *r, u64 limit, const char *path, struct err *e)
{
	r->len = align_up(limit + 1, MEM_PAGE);
	r->fd = memfd_create("vmlinux", MFD_CLOEXEC);
	if (r->fd < 0 || ftruncate(r->fd, (off_t)r->len))
		return err_sys(e, errno, "%s: no memory to unpack it to", path);
	r->at = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->fd, 0);
	if (r->at == MAP_FAILED) {
		r->at = NULL;
		return err_sys(e, errno, "%s: no memory to unpack it to", path);
	}
	return 0;
}

static void free_room(struct room *r)
{
	if (r->at)
		munmap(r->at, r->len);
	fd_close(&r->fd);
}

static int unpack_into(struct room *room, const struct packed *p, u64 *ret_len, struct err *e)
{
	struct unpack_job job = {.pack = p->pack, .src = p->bytes, .src_len = p->len,
		.dst = room->at, .cap = p->limit};
	u64 used;
	int r = unpack(&job, ret_len, &used, e);

	if (r)
		return err_wrap(e, "%s: its %s data", p->path, pack_name(p->bytes, p->len));
	r = check_end(p, *ret_len, used, e);
	if (!r && ftruncate(room->fd, (off_t)*ret_len))
		r = err_sys(e, errno, "%s: cannot unpack it", p->path);
	return r;
}

/* ---- with and without the cache ---- */

/* For messages about what came out of the file. */
static int parse_inside(struct kernel *k, int fd, const char *path, struct err *e)
{
	struct kernel_info was = k->img.info;
	char name[256];
	int r;

	snprintf(name, sizeof(name), "%.200s: the kernel inside it", path);
	r = elf_parse(fd, name, &k->img, e);
	k->img.info.is_bzimage = was.is_bzimage;
	k->img.info.packed_as = was.packed_as;
	k->img.info.cmdline_max = was.cmdline_max;
	return r;
}

static bool take_cached(struct kernel *k, int cache_fd, const struct packed *p)
{
	_cleanup_fd_ int fd = kcache_get(cache_fd, &p->key);

	if (fd < 0 || parse_inside(k, fd, p->path, NULL))
		return false;
	k->fd = fd_steal(&fd);
	k->img.info.is_cached = true;
	return true;
}

/* The file was not changed while it was read: its key may be remembered. */
static void learn(int cache_fd, const struct packed *p)
{
	struct stat now;

	if (fstat(p->fd, &now) == 0 && now.st_mtim.tv_nsec == p->st.st_mtim.tv_nsec &&
		now.st_ctim.tv_nsec == p->st.st_ctim.tv_nsec &&
		now.st_ctim.tv_sec == p->st.st_ctim.tv_sec && now.st_size == p->st.st_size)
		kcache_learn(cache_fd, &p->st, &p->key);
}

static int unpack_anew(struct kernel *k, int cache_fd, const struct packed *p, struct err *e)
{
	struct room room = {.fd = -1};
	u64 len = 0;
	int r = make_room(&room, p->limit, p->path, e);

	if (!r)
		r = unpack_into(&room, p, &len, e);
	if (!r)
		r = parse_inside(k, room.fd, p->path, e);
	if (!r && cache_fd >= 0 && kcache_put(cache_fd, &p->key, room.at, len)) {
		learn(cache_fd, p);
		take_cached(k, cache_fd, p); /* then its pages can be shared and mapped */
	}
	if (!r && k->fd < 0)
		k->fd = fd_steal(&room.fd);
	free_room(&room);
	return r;
}

static int open_packed(struct kernel *k, struct packed *p, const char *cache, struct err *e)
{
	_cleanup_fd_ int cache_fd = -1;
	int r = kcache_open(cache, &cache_fd, e);

	if (r)
		return r;
	if (cache_fd >= 0 && kcache_recall(cache_fd, &p->st, &p->key) &&
		take_cached(k, cache_fd, p))
		return 0;
	r = read_packed(p, e);
	if (!r)
		r = bound_by_size(p, e);
	if (r)
		return r;
	if (cache_fd >= 0) {
		kcache_key(p->bytes, p->len, &p->key);
		if (take_cached(k, cache_fd, p)) {
			learn(cache_fd, p);
			return 0;
		}
	}
	return unpack_anew(k, cache_fd, p, e);
}

static int open_any(struct kernel *k, const char *cache, struct err *e)
{
	struct packed p = {.fd = k->fd, .path = k->path};
	_cleanup_fd_ int file_fd = -1;
	int r = find_packed(&p, &k->img.info, e);

	if (r || p.pack == PACK_NONE)
		return r ? r : elf_parse(k->fd, k->path, &k->img, e);
	file_fd = fd_steal(&k->fd);
	k->img.info.packed_as = p.pack;
	k->img.info.cmdline_max = p.cmdline_max;
	r = open_packed(k, &p, cache, e);
	free(p.bytes);
	return r;
}

int kernel_open(struct kernel **ret, int fd, const char *path, const char *cache, struct err *e)
{
	struct kernel *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_sys(e, ENOMEM, "%s: cannot open it", path);
	k->path = path;
	k->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (k->fd < 0)
		r = err_sys(e, errno, "%s: cannot keep it open", path);
	else
		r = open_any(k, cache, e);
	if (r) {
		kernel_close(&k);
		return r;
	}
	*ret = k;
	return 0;
}

void kernel_close(struct kernel **kp)
{
	struct kernel *k = *kp;

	if (!k)
		return;
	fd_close(&k->fd);
	free(k);
	*kp = NULL;
}

const struct kernel_info *kernel_info(const struct kernel *k)
{
	return &k->img.info;
}
