/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_file.c - opens an image: what it is, how long it is, and whose.
 *
 * The path is the operator's, so symbolic links are followed. What it leads to must be a regular
 * file or a block device, which is checked before it is opened, as opening other things can have
 * effects (a watchdog) or wait (a FIFO), and again afterwards. One that comes open is made to be as
 * if it had been opened here. The content is never looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/arith.h"
#include "virtio/disk_int.h"

static int refuse_kind(const char *path, mode_t mode, struct err *e)
{
	const char *what = "a socket";

	if (S_ISREG(mode) || S_ISBLK(mode))
		return 0;
	if (S_ISDIR(mode))
		what = "a directory";
	else if (S_ISFIFO(mode))
		what = "a FIFO";
	else if (S_ISCHR(mode))
		what = "a character device";
	return err_set(e, -EINVAL, "cannot use disk %s: it is %s, not a file or block device", path,
		what);
}

static int open_image(struct disk *d, const struct raw_config *cfg, struct err *e)
{
	int flags = O_CLOEXEC | O_NOCTTY | (cfg->read_only ? O_RDONLY : O_RDWR);
	struct stat st;
	int res;

	if (!stat(cfg->path, &st)) {
		res = refuse_kind(cfg->path, st.st_mode, e);
		if (res < 0)
			return res;
	} else if (errno != ENOENT || !cfg->create) {
		return err_sys(e, errno, "cannot open disk %s", cfg->path);
	}
	flags |= cfg->create ? O_CREAT : 0;
	flags |= d->direct ? O_DIRECT : 0;
	/* Non-blocking in case that it became a FIFO meanwhile. */
	d->fd = open(cfg->path, flags | O_NONBLOCK, 0600);
	if (d->fd < 0 && errno == EINVAL && d->direct)
		return err_set(e, -EINVAL, "cannot open disk %s: its file system has no direct I/O",
			cfg->path);
	if (d->fd < 0)
		return err_sys(e, errno, "cannot open disk %s for %s", cfg->path,
			cfg->read_only ? "reading" : "reading and writing");
	/* The ring takes O_NONBLOCK to mean that reads from the disk itself are to fail.
	 * syscalls[L]: fcntl(F_SETFL) */
	if (fcntl(d->fd, F_SETFL, flags & ~(O_CREAT | O_CLOEXEC | O_NOCTTY)) < 0)
		return err_sys(e, errno, "cannot open disk %s", cfg->path);
	return 0;
}

static int adopt_image(const struct disk *d, const struct raw_config *cfg, struct err *e)
{
	int flags = fcntl(d->fd, F_GETFL), mode = flags & O_ACCMODE, res;
	struct stat st;

	if (flags < 0 || fstat(d->fd, &st) < 0)
		return err_sys(e, errno, "cannot look at disk %s", d->path);
	res = refuse_kind(d->path, st.st_mode, e);
	if (res < 0)
		return res;
	if ((flags & O_PATH) || mode == O_WRONLY || (mode == O_RDONLY && !cfg->read_only))
		return err_set(e, -EINVAL, "cannot use disk %s: it is not open for %s", d->path,
			cfg->read_only ? "reading" : "reading and writing");
	flags &= ~(O_APPEND | O_NONBLOCK | O_DIRECT);
	if (!fcntl(d->fd, F_SETFL, flags | (d->direct ? O_DIRECT : 0)))
		return 0;
	if (errno == EINVAL && d->direct)
		return err_set(e, -EINVAL, "cannot use disk %s: its file system has no direct I/O",
			d->path);
	return err_sys(e, errno, "cannot use disk %s", d->path);
}

/* The length in bytes, and what kind of file it is.
 * syscalls[L]: fstat, ioctl(BLKGETSIZE64), ioctl(BLKSSZGET) */
static int file_length(struct disk *d, u64 *len, struct err *e)
{
	unsigned block = 0;
	struct stat st;
	int res;

	if (fstat(d->fd, &st) < 0)
		return err_sys(e, errno, "cannot look at disk %s", d->path);
	res = refuse_kind(d->path, st.st_mode, e);
	if (res < 0)
		return res;
	d->is_block = S_ISBLK(st.st_mode);
	d->block_size = DISK_SECTOR;
	*len = (u64)st.st_size;
	if (!d->is_block)
		return 0;
	if (ioctl(d->fd, BLKGETSIZE64, len) < 0 || ioctl(d->fd, BLKSSZGET, &block) < 0)
		return err_sys(e, errno, "cannot tell the size of disk %s", d->path);
	if (is_pow2(block) && block > DISK_SECTOR)
		d->block_size = block;
	return 0;
}

int raw_measure(struct disk *d, struct err *e)
{
	u64 len = 0;
	int res = file_length(d, &len, e);

	if (res < 0)
		return res;
	d->size = align_down(len, DISK_SECTOR);
	if (d->direct) {
		direct_probe(d);
		d->block_size = d->off_align;
		if (d->size % d->off_align)
			return err_set(e, -EINVAL,
				"cannot use disk %s: direct I/O needs a multiple of %u bytes",
				d->path, d->off_align);
	}
	/* A last block that is not whole would be out of reach. */
	if (d->size % d->block_size)
		d->block_size = DISK_SECTOR;
	return 0;
}

int raw_open(struct disk **ret, const struct raw_config *cfg, struct ring *ring, struct err *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	int res;

	if (d) {
		d->fd = cfg->fd;
		d->path = strdup(cfg->path);
	}
	if (!d && cfg->fd >= 0)
		close(cfg->fd);
	if (!d || !d->path) {
		raw_close(&d);
		return err_sys(e, ENOMEM, "cannot open disk %s", cfg->path);
	}
	d->ring = ring;
	d->read_only = cfg->read_only;
	d->sync = cfg->sync;
	d->direct = cfg->sync == DISK_DIRECT;
	raw_init(d);
	res = cfg->fd < 0 ? open_image(d, cfg, e) : adopt_image(d, cfg, e);
	if (!res && !cfg->no_lock)
		res = disk_lock(d->fd, d->path, !d->read_only, cfg->fd < 0, e);
	if (!res)
		res = raw_measure(d, e);
	if (!res && !d->size && !cfg->any_size)
		res = err_set(e, -EINVAL, "cannot use disk %s: it is less than a sector long",
			d->path);
	if (res < 0) {
		raw_close(&d);
		return res;
	}
	ring_fix_file(ring, d->fd);
	*ret = d;
	return 0;
}

void raw_close(struct disk **dp)
{
	struct disk *d = *dp;

	if (!d)
		return;
	if (d->fd >= 0) {
		if (d->ring)
			ring_unfix_file(d->ring, d->fd);
		disk_unlock(d->fd);
		close(d->fd);
	}
	free(d->path);
	free(d);
	*dp = NULL;
}
