/* SPDX-License-Identifier: Apache-2.0 */
/* overlay_fix.c - see overlay_fix.h */
#include "tests/lib/overlay_fix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

void overlay_fix_boot(struct overlay_fix *f)
{
	char id[40];

	snprintf(id, sizeof(id), "00000000-1111-2222-3333-%012u\n", ++f->boots);
	file_write(f->boot, id, strlen(id));
}

int overlay_fix_setup(void **state)
{
	struct overlay_fix *f = calloc(1, sizeof(*f));

	f->dir = tmpdir_make();
	snprintf(f->base, sizeof(f->base), "%s/base", f->dir);
	snprintf(f->top, sizeof(f->top), "%s/top", f->dir);
	snprintf(f->saved, sizeof(f->saved), "%s/saved", f->dir);
	snprintf(f->boot, sizeof(f->boot), "%s/boot", f->dir);
	overlay_boot_file = f->boot;
	overlay_fix_boot(f);
	f->cfg = (struct disk_config){.path = f->base, .overlay = f->top};
	f->m = model_make(OVERLAY_FIX_SECTORS);
	model_write_base(f->m, f->base, 100);
	f->base_was = file_read(f->base, &f->base_len);
	f->r = fake_ring_make(7);
	f->r->unit = 1;
	f->safe = mmap(NULL, sizeof(*f->safe), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(f->safe != MAP_FAILED);
	*state = f;
	return 0;
}

int overlay_fix_teardown(void **state)
{
	struct overlay_fix *f = *state;
	size_t len;
	u8 *now = file_read(f->base, &len);

	disk_close(&f->d);
	assert_int_equal(len, f->base_len);
	assert_memory_equal(now, f->base_was, len);
	free(now);
	free(f->base_was);
	munmap(f->safe, sizeof(*f->safe));
	fake_ring_free(&f->r);
	model_free(&f->m);
	tmpdir_remove(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

void overlay_fix_open(struct overlay_fix *f)
{
	struct err e = {0};

	if (disk_open(&f->d, &f->cfg, f->r, &e))
		fail_msg("%s", e.msg);
	model_attach(f->m, f->d, f->r);
}

void overlay_fix_kill(struct overlay_fix *f)
{
	/* What closing would do for a disk that was not killed, it does not for one that failed. */
	f->d->failed = true;
	disk_close(&f->d);
}

void overlay_fix_note(void *ctx, const struct fake_io *io)
{
	struct overlay_fix *f = ctx;
	struct stat st, top;
	u64 from = 0, to;

	if ((io->kind != FAKE_SYNC && !(io->kind == FAKE_WRITE && (io->flags & RWF_DSYNC))) ||
		io->res < 0)
		return;
	must(!fstat(io->fd, &st) && !stat(f->top, &top));
	if (S_ISDIR(st.st_mode))
		return;
	must(st.st_ino == top.st_ino && (u64)st.st_size <= OVERLAY_FIX_LEN);
	to = (u64)st.st_size;
	if (io->kind == FAKE_WRITE) {
		from = io->off;
		to = io->off + (u64)io->res;
	}
	must(pread(io->fd, f->safe->bytes + from, to - from, (off_t)from) == (ssize_t)(to - from));
	f->safe->len = (u64)st.st_size;
}

void overlay_fix_power_off(struct overlay_fix *f, unsigned odds)
{
	size_t len, sector;
	u8 *now;
	int fd;

	if (access(f->top, F_OK) < 0)
		return;
	now = file_read(f->top, &len);
	assert_true(len <= OVERLAY_FIX_LEN);
	/* Nothing was ever synced: maybe it has no length yet. */
	if (!f->safe->len && (odds == 1 || fake_ring_rand(f->r, 3) == 0))
		len = 0;
	for (sector = 0; sector < len; sector += DISK_SECTOR)
		if (fake_ring_rand(f->r, odds) == 0)
			memcpy(now + sector, f->safe->bytes + sector, DISK_SECTOR);
	memcpy(f->safe->bytes, now, len);
	f->safe->len = len;
	/* In place: some file systems sync what is written after a truncate. */
	fd = open(f->top, O_WRONLY | O_CLOEXEC);
	must(fd >= 0 && pwrite(fd, now, len, 0) == (ssize_t)len && !ftruncate(fd, (off_t)len));
	close(fd);
	free(now);
	overlay_fix_boot(f);
}

struct whole {
	struct disk_op op;
	bool done;
};

static void whole_done(struct disk_op *op, int res)
{
	assert_int_equal(res, 0);
	container_of(op, struct whole, op)->done = true;
}

u8 *overlay_fix_content(struct overlay_fix *f)
{
	u8 *p = malloc(OVERLAY_FIX_SECTORS * DISK_SECTOR);
	struct whole w = {.op.done = whole_done};
	struct iovec iov = {p, OVERLAY_FIX_SECTORS * DISK_SECTOR};

	disk_read(f->d, &w.op, &iov, 1, 0, OVERLAY_FIX_SECTORS * DISK_SECTOR);
	fake_ring_drain(f->r);
	assert_true(w.done);
	return p;
}

void overlay_fix_save(struct overlay_fix *f, const char *name)
{
	struct err e = {0};
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	if (disk_save_overlay(f->d, fd, &e))
		fail_msg("%s", e.msg);
	close(fd);
}

