/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer.c - write a snapshot, to files that somebody made and handed over.
 *
 * Guest RAM goes from where it is mapped straight into DIR/memory: only pages that mem_scan() says
 * may hold something are looked at (a page never populated must not become populated by being
 * saved), and of those only pages that are not all zero are written; the rest of the file is a
 * hole. A page is tested, checksummed and written while the cache still holds it, in runs of up to
 * RUN_MAX bytes. Every run is handed to the disk at once, so that the disk works while we scan and
 * the sync at the end has little left to wait for.
 *
 * The sections collect in host memory and become DIR/state at the end, when the memory map is
 * known. Nothing is durable before snap_finish(), and nothing has its final name before
 * snap_dir_commit(): dir.c has that part. A failed fsync is final, because the kernel reports a
 * lost write only once.
 *
 * No path is opened here, so this runs in a jail.
 *
 * The RAM may be a private mapping of the memory file of the very snapshot being replaced: that
 * file is only read, and its inode lives as long as the mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/crc32c.h"
#include "snapshot/snap_int.h"

#define RUN_MAX     (1u << 20)
#define START_BYTES (2u << 20) /* keeps the disk's queue full */

static const u8 zero_page[MEM_PAGE];

struct snap_writer {
	const struct sys_ops *sys;
	char *name; /* for messages */
	int state_fd, memory_fd;
	struct enc state;
	u32 section_count;
	char tag[SNAP_SECTIONS_MAX][SNAP_TAG_MAX];
	struct snap_map map;
	u8 *present; /* map.present */
	struct enc crc; /* map.crc */
	struct snap_extra extra[SNAP_FILES_MAX];
	unsigned extra_count;
};

static int fail(const struct snap_writer *w, struct err *e, int errnum, const char *what)
{
	return err_sys(e, errnum, "snapshot %.256s: %s", w->name, what);
}

int snap_create(struct snap_writer **ret, const struct sys_ops *sys, const char *name, int state_fd,
	int memory_fd, struct err *e)
{
	struct snap_writer *w = calloc(1, sizeof(*w));

	if (w)
		w->name = strdup(name);
	if (!w || !w->name) {
		free(w);
		sys->close(state_fd);
		sys->close(memory_fd);
		return err_sys(e, ENOMEM, "cannot start a snapshot");
	}
	w->sys = sys;
	w->state_fd = state_fd;
	w->memory_fd = memory_fd;
	snap_encode_begin(&w->state);
	*ret = w;
	return 0;
}

int snap_add(struct snap_writer *w, const char *tag, u16 version, const void *data, size_t len,
	struct err *e)
{
	must(w->section_count < SNAP_SECTIONS_MAX);
	must(snap_tag_ok(tag) && strcmp(tag, SNAP_MAP_TAG) != 0);
	must(len <= SNAP_STATE_MAX && w->state.len + len <= SNAP_STATE_MAX);
	for (u32 i = 0; i < w->section_count; i++)
		must(strcmp(w->tag[i], tag) != 0);
	memcpy(w->tag[w->section_count++], tag, strlen(tag) + 1);
	snap_encode_section(&w->state, tag, version, data, len);
	return w->state.oom ? fail(w, e, ENOMEM, "cannot keep a section") : 0;
}

static int write_all(const struct snap_writer *w, int fd, const void *buf, size_t len, u64 off)
{
	while (len) {
		ssize_t n = TEMP_FAILURE_RETRY(w->sys->pwrite(fd, buf, len, (off_t)off));

		if (n <= 0)
			return n ? errno : EIO;
		buf = (const u8 *)buf + n;
		len -= (size_t)n;
		off += (u64)n;
	}
	return 0;
}

/* One pass over guest RAM. */
struct copy {
	struct snap_writer *w;
	const struct mem *m;
	const u8 *may_hold; /* mem_scan()'s answer */
	struct iovec run;   /* pages with content, not written yet */
	u64 run_off;        /* of it in the file */
	u64 not_started;    /* bytes written that the disk was not told of */
};

/* A hint to the kernel. Where it does nothing, the sync at commit does all the work. */
static void start_writing(struct copy *c)
{
	/* syscalls[W]: sync_file_range */
	(void)sync_file_range(c->w->memory_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	c->not_started = 0;
}

static int flush_run(struct copy *c)
{
	int r;

	if (!c->run.iov_len)
		return 0;
	r = write_all(c->w, c->w->memory_fd, c->run.iov_base, c->run.iov_len, c->run_off);
	if (r)
		return r;
	c->not_started += c->run.iov_len;
	c->run.iov_len = 0;
	if (c->not_started >= START_BYTES)
		start_writing(c);
	return 0;
}

/* Appends the page at @gpa to the run, after writing the run if the page does not continue it. */
static int add_page(struct copy *c, u64 gpa, u64 off)
{
	if (c->run.iov_len && c->run_off + c->run.iov_len == off && c->run.iov_len < RUN_MAX) {
		c->run.iov_len += MEM_PAGE;
	} else {
		int r = flush_run(c);
		bool is_ram;

		if (r)
			return r;
		is_ram = mem_iov(c->m, gpa, MEM_PAGE, &c->run);
		must(is_ram);
		c->run_off = off;
	}
	c->w->map.data_bytes += MEM_PAGE;
	return 0;
}

/* One chunk: @off is its place in the file, @gpa in guest RAM. Returns 0 or an errno. */
static int copy_chunk(struct copy *c, u64 gpa, u64 off, u64 len)
{
	bool data = false;
	u32 crc = 0;

	for (u64 at = 0; at < len; at += MEM_PAGE) {
		const void *page = zero_page;

		if (snap_bit(c->may_hold, (off + at) / MEM_PAGE)) {
			page = mem_at(c->m, gpa + at, MEM_PAGE);
			if (memcmp(page, zero_page, MEM_PAGE) != 0) {
				int r = add_page(c, gpa + at, off + at);

				if (r)
					return r;
				data = true;
			}
		}
		crc = crc32c(crc, page, MEM_PAGE);
	}
	if (data) {
		u64 i = off / SNAP_CHUNK;

		c->w->present[i / 8] |= (u8)(1u << (i % 8));
		enc_u32(&c->w->crc, crc);
	}
	return 0;
}

/* Whether any page of the chunk at @off may hold something. */
static bool chunk_may_hold(const u8 *may_hold, u64 off, u64 len)
{
	for (u64 at = 0; at < len; at += MEM_PAGE)
		if (snap_bit(may_hold, (off + at) / MEM_PAGE))
			return true;
	return false;
}

static int copy_memory(struct copy *c, void (*progress)(void *ctx, u64 done, u64 total), void *ctx)
{
	for (unsigned i = 0; i < c->m->region_count; i++) {
		const struct mem_region *reg = &c->m->region[i];
		int r;

		for (u64 at = 0; at < reg->len; at += SNAP_CHUNK) {
			u64 len = reg->len - at < SNAP_CHUNK ? reg->len - at : SNAP_CHUNK;
			u64 off = reg->file_off + at;

			if (progress && off % RUN_MAX == 0)
				progress(ctx, off, c->m->size);
			if (!chunk_may_hold(c->may_hold, off, len))
				continue;
			r = copy_chunk(c, reg->gpa + at, off, len);
			if (r)
				return r;
		}
		/* The next region is next in the file, but elsewhere in guest RAM. */
		r = flush_run(c);
		if (r)
			return r;
	}
	start_writing(c);
	if (progress)
		progress(ctx, c->m->size, c->m->size);
	return 0;
}

int snap_add_memory(struct snap_writer *w, const struct mem *m,
	void (*progress)(void *ctx, u64 done, u64 total), void *ctx, struct err *e)
{
	u64 chunks = snap_chunk_count(m->size);
	_cleanup_free_ u8 *may_hold = calloc(1, m->size / MEM_PAGE / 8 + 1);
	struct copy c = {.w = w, .m = m, .may_hold = may_hold};
	int r;

	must(!w->present);
	w->present = calloc(1, snap_bitmap_len(chunks));
	if (!may_hold || !w->present)
		return fail(w, e, ENOMEM, "cannot map guest RAM");
	w->map = (struct snap_map){.size = m->size, .chunk_count = chunks, .present = w->present};
	if (TEMP_FAILURE_RETRY(w->sys->ftruncate(w->memory_fd, (off_t)m->size)))
		return fail(w, e, errno, "cannot size its memory file");
	r = mem_scan(m, may_hold, e);
	if (r) {
		err_wrap(e, "snapshot %.256s", w->name);
		return r;
	}
	r = copy_memory(&c, progress, ctx);
	if (r)
		return fail(w, e, r, "cannot write its memory file");
	if (w->crc.oom)
		return fail(w, e, ENOMEM, "cannot map guest RAM");
	return 0;
}

u64 snap_data_bytes(const struct snap_writer *w)
{
	return w->map.data_bytes;
}

int snap_add_file(struct snap_writer *w, const char *name, int fd, struct err *e)
{
	struct snap_extra *x = &w->extra[w->extra_count];
	struct stat st;
	int r;

	must(snap_extra_name(name) && w->extra_count < SNAP_FILES_MAX);
	r = w->sys->fstat(fd, &st) ? errno : 0;
	if (!r) {
		memcpy(x->name, name, strlen(name) + 1);
		x->size = (u64)st.st_size;
		r = snap_extra_sum(fd, x);
	}
	if (w->sys->close(fd) && !r)
		r = errno;
	if (r)
		return fail(w, e, r, "cannot read a file that is to travel with it");
	w->extra_count++;
	return 0;
}

/* Completes the bytes of DIR/state in w->state. */
static int finish_state(struct snap_writer *w, struct err *e)
{
	struct enc map = {0}, extra = {0};
	int r = 0;

	if (w->extra_count) {
		snap_encode_extra(&extra, w->extra, w->extra_count);
		r = extra.oom ? fail(w, e, ENOMEM, "cannot encode its state")
			      : snap_add(w, SNAP_EXTRA_TAG, SNAP_EXTRA_VERSION, extra.buf,
					extra.len, e);
		enc_free(&extra);
	}
	if (r)
		return r;
	w->map.crc = w->crc.buf;
	w->map.crc_len = w->crc.len;
	snap_encode_map(&map, &w->map);
	if (map.oom)
		w->state.oom = true;
	else
		snap_encode_section(&w->state, SNAP_MAP_TAG, SNAP_MAP_VERSION, map.buf, map.len);
	enc_free(&map);
	snap_encode_end(&w->state, w->section_count + 1, clock_ns(CLOCK_REALTIME));
	if (w->state.oom)
		return fail(w, e, ENOMEM, "cannot encode its state");
	/* The sections fitted; only the checksums of a huge guest's memory get us here. */
	if (w->state.len > SNAP_STATE_MAX)
		return fail(w, e, EFBIG, "guest RAM holds too much data for one snapshot");
	return 0;
}

/* Syncs and closes *@fd; 0 or an errno. The descriptor is closed either way. */
static int sync_close(const struct snap_writer *w, int *fd, int (*sync)(int fd))
{
	int r = sync(*fd) ? errno : 0;

	if (w->sys->close(fd_steal(fd)) && !r)
		r = errno;
	return r;
}

static int write_files(struct snap_writer *w, struct err *e)
{
	int r = finish_state(w, e), memory_r;

	if (r)
		return r;
	r = write_all(w, w->state_fd, w->state.buf, w->state.len, 0);
	if (r)
		return fail(w, e, r, "cannot write its state file");
	/*
	 * Both are written, then both synced: a journalling file system commits once. The order
	 * between the two means nothing as long as neither has the final name.
	 */
	memory_r = sync_close(w, &w->memory_fd, w->sys->fdatasync);
	r = sync_close(w, &w->state_fd, w->sys->fsync);
	if (memory_r)
		return fail(w, e, memory_r, "cannot sync its memory file");
	if (r)
		return fail(w, e, r, "cannot sync its state file");
	return 0;
}

int snap_finish(struct snap_writer **wp, struct err *e)
{
	int r;

	must((*wp)->present);
	r = write_files(*wp, e);
	snap_abort(wp);
	return r;
}

void snap_abort(struct snap_writer **wp)
{
	struct snap_writer *w = *wp;

	if (!w)
		return;
	if (w->state_fd >= 0)
		w->sys->close(w->state_fd);
	if (w->memory_fd >= 0)
		w->sys->close(w->memory_fd);
	enc_free(&w->state);
	enc_free(&w->crc);
	free(w->present);
	free(w->name);
	free(w);
	*wp = NULL;
}
