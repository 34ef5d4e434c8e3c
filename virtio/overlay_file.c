/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_file.c - opens, makes and closes the layers of a disk with an overlay.
 *
 * An overlay belongs to one base, and to the saved overlay it was begun on, if any: over others its
 * clusters would be garbage. Their length must always be the same; device, inode and time of the
 * last change as well, unless the operator says that they are copies.
 *
 * A new file gets its header first and its length afterwards, so that whoever dies in between
 * leaves something that can be gone on with: an empty file, or one that is too short and has a
 * header. Two that make it at the same time meet at its lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "virtio/overlay_int.h"

const char *overlay_boot_file = "/proc/sys/kernel/random/boot_id";

/* What is asked for, and what was found out so far. */
struct opening {
	const struct disk_config *cfg;
	struct overlay *o;
	struct ring *ring;
	struct overlay_head now; /* what the header should say */
	bool made;               /* the file is new */
	bool same_boot;          /* map A is valid */
};

static void read_boot(char boot[40])
{
	_cleanup_fd_ int fd = open(overlay_boot_file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	memset(boot, 0, 40);
	n = fd < 0 ? -1 : read(fd, boot, 39);
	/* Not known: then no map A is ever valid. */
	if (n < 16)
		memset(boot, 0, 40);
}

/* syscalls[LW]: pread64, pwrite64 */
int overlay_pread(int fd, void *buf, u64 len, u64 off)
{
	u8 *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

int overlay_pwrite(int fd, const void *buf, u64 len, u64 off)
{
	const u8 *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

/* Reads what is no hole; @buf is zero before. */
static int read_map(int fd, u8 *buf, u64 len, u64 off)
{
	off_t at = (off_t)off, end = (off_t)(off + len), hole;
	int res = 0;

	while (!res && at < end) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			return 0;
		hole = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
		if (hole < 0)
			return overlay_pread(fd, buf, len, off);
		if (at >= end)
			break;
		hole = hole < end ? hole : end;
		res = overlay_pread(fd, buf + ((u64)at - off), (u64)(hole - at), (u64)at);
		at = hole;
	}
	return res;
}

static void lay_out(struct overlay *o, u64 size)
{
	o->clusters = align_up(size, OVERLAY_CLUSTER) / OVERLAY_CLUSTER;
	o->map_len = align_up((o->clusters + 7) / 8, OVERLAY_MAP_PAGE);
	o->pages = o->map_len / OVERLAY_MAP_PAGE;
	o->map_off[0] = OVERLAY_HEAD;
	o->map_off[1] = OVERLAY_HEAD + o->map_len;
	o->data_off = OVERLAY_HEAD + 2 * o->map_len;
}

static u64 file_len(const struct overlay *o)
{
	return o->data_off + o->clusters * OVERLAY_CLUSTER;
}

static int same_file(const struct disk_identity *was, const struct disk_identity *is,
	const char *path, bool moved, struct err *e)
{
	const char *what = NULL;

	if (was->size != is->size)
		return err_set(e, -EINVAL, "it belongs to a base of %llu bytes, and %s has %llu",
			(unsigned long long)was->size, path, (unsigned long long)is->size);
	if (was->dev != is->dev)
		what = "device";
	else if (was->ino != is->ino)
		what = "inode";
	else if (was->mtime_ns != is->mtime_ns)
		what = "time of the last change";
	if (!what || moved)
		return 0;
	return err_set(e, -EINVAL,
		"it belongs to another file than %s (its %s differs); say moved if that is a copy",
		path, what);
}

/* Both headers were read: does this one belong to the layers there are? */
static int check_layers(const struct opening *g, const struct overlay_head *was, bool top,
	struct err *e)
{
	const struct disk_config *cfg = g->cfg;
	int res = same_file(&was->base, &g->now.base, cfg->path, cfg->base_moved, e);

	if (res || !top)
		return res;
	if (was->saved.size && !g->now.saved.size)
		return err_set(e, -EINVAL, "it was begun on a saved overlay, which is not given");
	if (!was->saved.size && g->now.saved.size)
		return err_set(e, -EINVAL, "it was not begun on a saved overlay");
	return same_file(&was->saved, &g->now.saved, cfg->saved_overlay, cfg->base_moved, e);
}

/* Reads a header that is there. */
static int read_head(const struct disk *file, struct overlay_head *h, struct err *e)
{
	_cleanup_free_ u8 *page = aligned_alloc(OVERLAY_HEAD, OVERLAY_HEAD);
	int res;

	if (!page)
		return err_sys(e, ENOMEM, "cannot read it");
	if (file->size < OVERLAY_HEAD)
		return err_set(e, -EINVAL, "it is no overlay");
	res = overlay_pread(file->fd, page, OVERLAY_HEAD, 0);
	if (res < 0)
		return err_sys(e, -res, "cannot read it");
	return overlay_head_decode(h, page, e);
}

static int write_head(const struct overlay *o, const struct overlay_head *h, struct err *e)
{
	u8 page[OVERLAY_HEAD] = {0};
	int res;

	overlay_head_encode(h, page);
	res = overlay_pwrite(o->maps->fd, page, sizeof(page), 0);
	return res < 0 ? err_sys(e, -res, "cannot write its header") : 0;
}

static int open_saved(struct opening *g, struct err *e)
{
	struct raw_config raw = {
		.path = g->cfg->saved_overlay,
		.read_only = true,
		.sync = g->cfg->sync == DISK_DIRECT ? DISK_DIRECT : DISK_WRITEBACK,
		.fd = -1,
	};
	struct overlay *o = g->o;
	struct overlay_head h;
	int res = raw_open(&o->saved, &raw, g->ring, e), fd;

	if (res < 0)
		return res;
	res = read_head(o->saved, &h, e);
	if (!res)
		res = check_layers(g, &h, false, e);
	if (!res && h.saved.size)
		res = err_set(e, -EINVAL, "it needs a saved overlay itself");
	if (!res && o->saved->size < file_len(o))
		res = err_set(e, -EINVAL, "it is too short");
	if (res < 0)
		return err_wrap(e, "cannot use overlay %s", g->cfg->saved_overlay);
	o->saved_map = aligned_alloc(OVERLAY_MAP_PAGE, o->map_len);
	if (!o->saved_map)
		return err_sys(e, ENOMEM, "cannot read overlay %s", g->cfg->saved_overlay);
	memset(o->saved_map, 0, o->map_len);
	fd = o->saved->fd;
	res = read_map(fd, o->saved_map, o->map_len,
		o->map_off[!(h.boot[0] && !memcmp(h.boot, g->now.boot, sizeof(h.boot)))]);
	if (res < 0)
		return err_sys(e, -res, "cannot read overlay %s", g->cfg->saved_overlay);
	disk_identity(o->saved, &g->now.saved);
	return 0;
}

static int open_unnamed(struct opening *g, struct err *e)
{
	const char *dir = g->cfg->overlay_dir;
	int direct = g->cfg->sync == DISK_DIRECT ? O_DIRECT : 0;
	struct raw_config raw = {.path = "(unnamed overlay)", .any_size = true, .no_lock = true};
	char *name;

	must(dir);
	raw.sync = g->cfg->sync;
	raw.fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | direct, 0600);
	if (raw.fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		if (asprintf(&name, "%s/.kelvin-overlay-XXXXXX", dir) < 0)
			return err_sys(e, ENOMEM, "cannot make an overlay in %s", dir);
		raw.fd = mkostemp(name, O_CLOEXEC | direct);
		if (raw.fd >= 0)
			unlink(name);
		free(name);
	}
	if (raw.fd < 0)
		return err_sys(e, errno, "cannot make an overlay in %s", dir);
	if (ftruncate(raw.fd, (off_t)file_len(g->o)) < 0) {
		int errnum = errno;

		fd_close(&raw.fd);
		return err_sys(e, errnum, "cannot make an overlay in %s", dir);
	}
	return raw_open(&g->o->top, &raw, g->ring, e);
}

/* Another descriptor of top's file, without O_DIRECT. */
static int open_maps(struct opening *g, struct err *e)
{
	struct overlay *o = g->o;
	struct raw_config raw = {
		.path = g->cfg->overlay,
		.read_only = g->cfg->read_only,
		.any_size = true,
		.no_lock = true,
		.fd = -1,
	};
	struct disk_identity a, b;
	int res;

	if (!o->top->direct) {
		o->maps = o->top;
		return 0;
	}
	res = raw_open(&o->maps, &raw, g->ring, e);
	if (res < 0)
		return res;
	disk_identity(o->top, &a);
	disk_identity(o->maps, &b);
	if (a.dev != b.dev || a.ino != b.ino)
		return err_set(e, -EBUSY, "cannot open overlay %s: it was replaced meanwhile",
			g->cfg->overlay);
	return 0;
}

/* A new file, or the rest of making one. */
static int make_file(struct opening *g, struct err *e)
{
	struct overlay *o = g->o;
	int res;

	if (g->made) {
		if (ftruncate(o->maps->fd, 0) < 0)
			return err_sys(e, errno, "cannot empty it");
		res = write_head(o, &g->now, e);
		if (res < 0)
			return res;
		g->same_boot = true;
	}
	if (ftruncate(o->maps->fd, (off_t)file_len(o)) < 0)
		return err_sys(e, errno, "cannot give it its size");
	res = raw_measure(o->maps, e);
	return res < 0 ? res : raw_measure(o->top, e);
}

/* Map B is what counts: map A becomes the same, and valid. */
static int take_over(struct opening *g, struct err *e)
{
	struct overlay *o = g->o;

	for (u64 at = 0; at < o->map_len; at += OVERLAY_MAP_PAGE) {
		int res;

		if (!memcmp(o->written + at, o->durable + at, OVERLAY_MAP_PAGE))
			continue;
		memcpy(o->written + at, o->durable + at, OVERLAY_MAP_PAGE);
		if (o->d->read_only)
			continue;
		res = overlay_pwrite(o->maps->fd, o->written + at, OVERLAY_MAP_PAGE,
			o->map_off[0] + at);
		if (res < 0)
			return err_sys(e, -res, "cannot write its map");
	}
	return o->d->read_only ? 0 : write_head(o, &g->now, e);
}

static bool is_empty(const u8 *map, u64 len)
{
	return !map[0] && !memcmp(map, map + 1, len - 1);
}

static int load_maps(struct opening *g, struct err *e)
{
	struct overlay *o = g->o;
	int res = 0;

	if (!g->made) {
		res = read_map(o->maps->fd, o->written, o->map_len, o->map_off[0]);
		if (!res)
			res = read_map(o->maps->fd, o->durable, o->map_len, o->map_off[1]);
		if (res < 0)
			return err_sys(e, -res, "cannot read its map");
	}
	if (!g->same_boot)
		res = take_over(g, e);
	if (res < 0)
		return res;
	for (u64 i = 0, at = 0; i < o->pages; i++, at += OVERLAY_MAP_PAGE) {
		/* Memory for what is empty is not touched. */
		if (memcmp(o->map + at, o->written + at, OVERLAY_MAP_PAGE) != 0)
			memcpy(o->map + at, o->written + at, OVERLAY_MAP_PAGE);
		o->page_stale[i] = memcmp(o->map + at, o->durable + at, OVERLAY_MAP_PAGE) != 0;
	}
	return 0;
}

/* A loss of power can leave the length without the header. Then no flush was ever completed. */
static bool was_never_synced(const struct overlay *o, u64 len)
{
	static const u8 zeroes[OVERLAY_HEAD_LEN];
	u8 head[OVERLAY_HEAD_LEN];

	return (len == OVERLAY_HEAD || len == file_len(o)) &&
	       !overlay_pread(o->maps->fd, head, sizeof(head), 0) &&
	       !memcmp(head, zeroes, sizeof(head));
}

/* The file is open: is it the right one, and what is in it? */
static int load_top(struct opening *g, struct err *e)
{
	struct overlay *o = g->o;
	struct overlay_head h;
	struct stat st;
	int res = 0;

	if (fstat(o->maps->fd, &st) < 0)
		return err_sys(e, errno, "cannot look at it");
	g->made = !o->d->read_only && (!st.st_size || was_never_synced(o, (u64)st.st_size));
	if (!g->made) {
		res = read_head(o->maps, &h, e);
		if (!res)
			res = check_layers(g, &h, true, e);
		if (res < 0)
			return res;
		g->same_boot = h.boot[0] && !memcmp(h.boot, g->now.boot, sizeof(h.boot));
		/* A copy was taken for the file that it belongs to: it does from now on. */
		if (g->same_boot && g->cfg->base_moved && !o->d->read_only)
			res = write_head(o, &g->now, e);
	}
	if (!res && !o->d->read_only && (g->made || o->maps->size == OVERLAY_HEAD))
		res = make_file(g, e);
	if (!res && o->maps->size < file_len(o))
		res = err_set(e, -EINVAL, "it is too short");
	return res < 0 ? res : load_maps(g, e);
}

/* The directory learns the file's name for good, before anything in it counts: later this process
 * may see no directories. Once it held a flush the file has been through this. */
static int sync_name(const struct opening *g, struct err *e)
{
	const struct overlay *o = g->o;
	_cleanup_free_ char *path = NULL;
	_cleanup_fd_ int fd = -1;

	if (o->d->read_only || o->d->sync == DISK_UNSAFE || !is_empty(o->durable, o->map_len))
		return 0;
	path = strdup(g->cfg->overlay);
	if (!path)
		return err_sys(e, ENOMEM, "cannot sync its directory");
	fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL)) /* EINVAL: has no such thing */
		return err_sys(e, errno, "cannot sync its directory");
	return 0;
}

static int open_top(struct opening *g, struct err *e)
{
	struct raw_config raw = {
		.path = g->cfg->overlay,
		.read_only = g->cfg->read_only,
		.create = !g->cfg->read_only,
		.any_size = true,
		.sync = g->cfg->sync,
		.fd = -1,
	};
	struct overlay *o = g->o;
	int res;

	if (!g->cfg->overlay)
		return open_unnamed(g, e);
	res = raw_open(&o->top, &raw, g->ring, e);
	if (res < 0)
		return res;
	if (o->top->is_block)
		return err_set(e, -EINVAL, "cannot use overlay %s: it is a block device",
			g->cfg->overlay);
	res = open_maps(g, e);
	if (res < 0)
		return res;
	res = load_top(g, e);
	if (!res)
		res = sync_name(g, e);
	return res < 0 ? err_wrap(e, "cannot use overlay %s", g->cfg->overlay) : 0;
}

static bool alloc_maps(struct overlay *o, bool named)
{
	o->map = calloc(1, o->map_len);
	o->page_stale = calloc(1, o->pages);
	o->page_todo = calloc(1, o->pages);
	if (named) {
		o->written = calloc(1, o->map_len);
		o->durable = calloc(1, o->map_len);
	}
	return o->map && o->page_stale && o->page_todo && (!named || (o->written && o->durable));
}

static int open_layers(struct opening *g, struct err *e)
{
	struct raw_config raw = {
		.path = g->cfg->path,
		.read_only = true,
		.sync = g->cfg->sync == DISK_DIRECT ? DISK_DIRECT : DISK_WRITEBACK,
		.fd = -1,
	};
	struct overlay *o = g->o;
	int res = raw_open(&o->base, &raw, g->ring, e);

	if (res < 0)
		return res;
	o->d->size = o->base->size;
	lay_out(o, o->base->size);
	disk_identity(o->base, &g->now.base);
	read_boot(g->now.boot);
	if (!alloc_maps(o, g->cfg->overlay))
		return err_sys(e, ENOMEM, "cannot open disk %s", g->cfg->path);
	if (g->cfg->saved_overlay)
		res = open_saved(g, e);
	if (!res)
		res = open_top(g, e);
	if (res < 0)
		return res;
	o->d->block_size = o->base->block_size > o->top->block_size ? o->base->block_size :
								      o->top->block_size;
	if (o->d->size % o->d->block_size)
		o->d->block_size = DISK_SECTOR;
	return 0;
}

int overlay_open(struct disk **ret, const struct disk_config *cfg, struct ring *ring,
	struct err *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	struct overlay *o = calloc(1, sizeof(*o));
	struct opening g = {.cfg = cfg, .o = o, .ring = ring};
	int res;

	if (!d || !o) {
		free(d);
		free(o);
		return err_sys(e, ENOMEM, "cannot open disk %s", cfg->path);
	}
	raw_init(d);
	overlay_init(o);
	o->d = d;
	d->fd = -1;
	d->ring = ring;
	d->overlay = o;
	d->read_only = cfg->read_only;
	d->sync = cfg->sync;
	res = open_layers(&g, e);
	if (res < 0) {
		disk_close(&d);
		return res;
	}
	*ret = d;
	return 0;
}

/* The pages of map B that are to be written, without the ring. */
static int write_durable(struct overlay *o, bool *wrote)
{
	for (u64 i = 0; i < o->pages; i++) {
		u64 at = i * OVERLAY_MAP_PAGE;
		int res;

		if (!o->page_todo[i])
			continue;
		res = overlay_pwrite(o->maps->fd, o->durable + at, OVERLAY_MAP_PAGE,
			o->map_off[1] + at);
		if (res < 0)
			return res;
		o->page_todo[i] = 0;
		*wrote = true;
	}
	return 0;
}

static int sync_all(struct overlay *o, struct err *e)
{
	bool wrote = false;
	int res;

	overlay_collect(o);
	res = raw_sync_now(o->top, e);
	if (res < 0)
		return res;
	res = write_durable(o, &wrote);
	if (res < 0)
		return err_sys(e, -res, "cannot write overlay %s", o->top->path);
	return wrote ? raw_sync_now(o->top, e) : 0;
}

int overlay_sync_now(struct overlay *o, struct err *e)
{
	int res;

	if (!o->maps || o->d->read_only)
		return 0;
	if (o->d->failed)
		return err_set(e, -EIO, "cannot sync overlay %s: an earlier flush failed",
			o->top->path);
	res = sync_all(o, e);
	if (res < 0)
		o->d->failed = true;
	return res;
}

/* What was never flushed must not be lost with the next boot: it was no crash. */
static void settle(struct overlay *o)
{
	bool wrote = false, stale = false;

	if (!o->maps || o->d->read_only || o->d->failed)
		return;
	for (u64 i = 0; i < o->pages; i++)
		stale |= o->page_stale[i] != 0;
	if (!stale)
		return;
	if (o->d->sync != DISK_UNSAFE) {
		overlay_sync_now(o, NULL);
		return;
	}
	overlay_collect(o);
	write_durable(o, &wrote);
}

/* Whoever has the lock next must find both maps as they will stay. */
void overlay_release(struct overlay *o)
{
	settle(o);
	disk_unlock(o->top->fd);
	disk_unlock(o->base->fd);
	if (o->saved)
		disk_unlock(o->saved->fd);
}

void overlay_close(struct disk *d)
{
	struct overlay *o = d->overlay;

	settle(o);
	if (o->maps != o->top)
		raw_close(&o->maps);
	raw_close(&o->top);
	raw_close(&o->saved);
	raw_close(&o->base);
	free(o->map);
	free(o->saved_map);
	free(o->written);
	free(o->durable);
	free(o->page_stale);
	free(o->page_todo);
	free(o);
	d->overlay = NULL;
}
