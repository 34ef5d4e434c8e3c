/* SPDX-License-Identifier: Apache-2.0 */
/* test_disk.c - raw disks on the real ring: what is opened and refused, locks, block devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"
#include "virtio/disk.h"

#define SIZE (1u << 20)

struct fixture {
	char *dir;
	char path[256];
	struct ring *r;
	struct disk *d;
	struct err e;
	unsigned fds;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->dir = tmpdir_make();
	f->fds = fd_count();
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	if (ring_create(&f->r, 64, &f->e))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	disk_close(&f->d);
	ring_destroy(&f->r);
	assert_int_equal(fd_count(), f->fds);
	tmpdir_remove(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

static void make_file(const char *path, size_t len)
{
	u8 *p = malloc(len);

	for (size_t i = 0; i < len; i++)
		p[i] = (u8)(i / 512 * 7 + i + 1);
	file_write(path, p, len);
	free(p);
}

static int open_as(struct fixture *f, const char *path, bool read_only, enum disk_sync sync)
{
	struct disk_config cfg = {.path = path, .read_only = read_only, .sync = sync};

	f->e = (struct err){0};
	return disk_open(&f->d, &cfg, f->r, &f->e);
}

static void open_disk(struct fixture *f, enum disk_sync sync)
{
	if (open_as(f, f->path, false, sync))
		fail_msg("%s", f->e.msg);
}

struct op {
	struct disk_op op;
	int res;
	unsigned runs;
};

static void done(struct disk_op *op, int res)
{
	struct op *o = container_of(op, struct op, op);

	o->res = res;
	o->runs++;
}

static int run(struct fixture *f, struct op *o)
{
	while (!o->runs)
		assert_int_equal(ring_run(f->r), 0);
	assert_int_equal(o->runs, 1);
	o->runs = 0;
	return o->res;
}

/* One after another: all that a disk does, at odd addresses and in odd pieces. */
static void test_all_requests(void **state)
{
	struct fixture *f = *state;
	u8 *want = malloc(SIZE), *buf = malloc(SIZE + 100), *now;
	struct op o = {.op.done = done};
	size_t len;

	for (enum disk_sync sync = DISK_WRITEBACK; sync <= DISK_DIRECT; sync++) {
		struct iovec one = {buf + 3, 4096 + 512}, three[3] = {{buf + 3, 1000}, {buf + 1003, 1},
								    {buf + 1004, 4607 - 1000}};

		make_file(f->path, SIZE);
		now = file_read(f->path, &len);
		memcpy(want, now, SIZE);
		free(now);
		open_disk(f, sync);
		assert_int_equal(disk_size(f->d), SIZE);
		assert_int_equal(disk_sync(f->d), sync);
		assert_true(disk_can_discard(f->d) && disk_can_zero(f->d));
		disk_read(f->d, &o.op, &one, 1, 512, 4608);
		assert_int_equal(run(f, &o), 0);
		assert_memory_equal(buf + 3, want + 512, 4608);
		for (unsigned i = 0; i < 4608; i++)
			buf[3 + i] = want[1536 + i] = (u8)(i * 3);
		disk_write(f->d, &o.op, three, 3, 1536, 4608, sync == DISK_WRITEBACK);
		assert_int_equal(run(f, &o), 0);
		memset(buf, 0, SIZE);
		disk_read(f->d, &o.op, three, 3, 1536, 4608);
		assert_int_equal(run(f, &o), 0);
		assert_memory_equal(buf + 3, want + 1536, 4608);
		disk_flush(f->d, &o.op);
		assert_int_equal(run(f, &o), 0);
		disk_discard(f->d, &o.op, 65536, 131072);
		assert_int_equal(run(f, &o), 0);
		memset(want + 65536, 0, 131072);
		disk_write_zeroes(f->d, &o.op, 300 * 512, 512 * 37, false, true);
		assert_int_equal(run(f, &o), 0);
		memset(want + 300 * 512, 0, 512 * 37);
		one = (struct iovec){buf + 1, SIZE};
		disk_read(f->d, &o.op, &one, 1, 0, SIZE);
		assert_int_equal(run(f, &o), 0);
		assert_memory_equal(buf + 1, want, SIZE);
		assert_int_equal(disk_sync_now(f->d, &f->e), 0);
		disk_close(&f->d);
		now = file_read(f->path, &len);
		assert_int_equal(len, SIZE);
		assert_memory_equal(now, want, SIZE);
		free(now);
	}
	free(want);
	free(buf);
}

static void refused(struct fixture *f, const char *path, int code, const char *why)
{
	for (int read_only = 0; read_only < 2; read_only++) {
		assert_int_equal(open_as(f, path, read_only, DISK_WRITEBACK), code);
		assert_null(f->d);
		assert_non_null(strstr(f->e.msg, path));
		if (!strstr(f->e.msg, why))
			fail_msg("%s", f->e.msg);
		assert_null(strchr(f->e.msg, '\n'));
	}
}

static void test_what_is_no_disk(void **state)
{
	struct fixture *f = *state;
	char path[300];

	snprintf(path, sizeof(path), "%s/none", f->dir);
	refused(f, path, -ENOENT, "No such file");
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(f, path, -EINVAL, "it is a FIFO");
	refused(f, f->dir, -EINVAL, "it is a directory");
	refused(f, "/dev/zero", -EINVAL, "it is a character device");
	file_write(f->path, "x", 0);
	refused(f, f->path, -EINVAL, "less than a sector");
	make_file(f->path, 511);
	refused(f, f->path, -EINVAL, "less than a sector");
	/* The content is never looked at. */
	file_write(f->path, "QFI\xfb", 4);
	assert_int_equal(truncate(f->path, 4096), 0);
	open_disk(f, DISK_WRITEBACK);
	assert_int_equal(disk_size(f->d), 4096);
}

static void test_size_is_whole_sectors(void **state)
{
	struct fixture *f = *state;

	make_file(f->path, 512 * 3 + 511);
	open_disk(f, DISK_WRITEBACK);
	assert_int_equal(disk_size(f->d), 512 * 3);
	assert_int_equal(disk_block_size(f->d), 512);
	assert_int_equal(truncate(f->path, 512 * 9 + 1), 0);
	assert_int_equal(disk_size(f->d), 512 * 3);
	assert_int_equal(disk_refresh(f->d), 512 * 9);
	disk_close(&f->d);
	/* O_DIRECT reaches whole blocks only. */
	if (open_as(f, f->path, false, DISK_DIRECT))
		assert_non_null(strstr(f->e.msg, "needs a multiple of"));
	else
		assert_int_equal(disk_block_size(f->d), 512);
}

static void test_links_are_followed(void **state)
{
	struct fixture *f = *state;
	struct disk_identity a, b;
	char path[300];

	make_file(f->path, 4096);
	snprintf(path, sizeof(path), "%s/link", f->dir);
	assert_int_equal(symlink("disk", path), 0);
	open_disk(f, DISK_WRITEBACK);
	disk_identity(f->d, &a);
	disk_close(&f->d);
	assert_int_equal(open_as(f, path, true, DISK_WRITEBACK), 0);
	disk_identity(f->d, &b);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_true(a.ino && a.mtime_ns && a.size == 4096);
	assert_true(disk_read_only(f->d) && !disk_can_discard(f->d) && !disk_can_zero(f->d));
	/* It holds a lock under its other name, too. */
	assert_int_equal(open_as(f, f->path, false, DISK_WRITEBACK), -EBUSY);
}

static void test_one_writer_or_many_readers(void **state)
{
	struct fixture *f = *state;
	struct disk *first, *second;

	make_file(f->path, 4096);
	open_disk(f, DISK_WRITEBACK);
	first = f->d;
	f->d = NULL;
	assert_int_equal(open_as(f, f->path, false, DISK_WRITEBACK), -EBUSY);
	assert_non_null(strstr(f->e.msg, "this VM uses it already"));
	assert_int_equal(open_as(f, f->path, true, DISK_WRITEBACK), -EBUSY);
	disk_close(&first);
	assert_int_equal(open_as(f, f->path, true, DISK_WRITEBACK), 0);
	first = f->d;
	assert_int_equal(open_as(f, f->path, true, DISK_WRITEBACK), 0);
	second = f->d;
	f->d = NULL;
	assert_int_equal(open_as(f, f->path, false, DISK_WRITEBACK), -EBUSY);
	disk_close(&first);
	assert_int_equal(open_as(f, f->path, false, DISK_WRITEBACK), -EBUSY);
	disk_close(&second);
	open_disk(f, DISK_WRITEBACK);
}

/* Two VMs: the message names the other one; when it is killed, the image is free. */
static void test_who_has_it_locked(void **state)
{
	struct fixture *f = *state;
	char want[64], c;
	int fds[2], status;
	pid_t pid;

	make_file(f->path, 4096);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		struct disk_config cfg = {.path = f->path};
		struct ring *r = NULL;
		struct disk *d = NULL;

		if (ring_create(&r, 8, NULL) || disk_open(&d, &cfg, r, NULL))
			_exit(1);
		_exit(write(fds[1], "x", 1) == 1 ? pause() : 1);
	}
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_int_equal(open_as(f, f->path, false, DISK_WRITEBACK), -EBUSY);
	snprintf(want, sizeof(want), "process %d has it locked", (int)pid);
	if (!strstr(f->e.msg, want))
		fail_msg("%s", f->e.msg);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* Its ring may outlive it for a moment. */
	for (unsigned i = 0; i < 1000 && open_as(f, f->path, false, DISK_WRITEBACK); i++)
		usleep(1000);
	assert_non_null(f->d);
	close(fds[0]);
	close(fds[1]);
}

/* G01 in small: what was answered is in the file when the process is killed there and then. */
static void test_killed_after_a_write(void **state)
{
	struct fixture *f = *state;
	u8 buf[512], *now;
	size_t len;
	int status;
	pid_t pid;

	make_file(f->path, 4096);
	memset(buf, 0x5a, sizeof(buf));
	pid = fork();
	if (!pid) {
		struct disk_config cfg = {.path = f->path};
		struct iovec iov = {buf, 512};
		struct op o = {.op.done = done};
		struct ring *r = NULL;
		struct disk *d = NULL;

		if (ring_create(&r, 8, NULL) || disk_open(&d, &cfg, r, NULL))
			_exit(1);
		disk_write(d, &o.op, &iov, 1, 1024, 512, false);
		while (!o.runs)
			ring_run(r);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	now = file_read(f->path, &len);
	assert_memory_equal(now + 1024, buf, 512);
	free(now);
}

/* Many at once, each in its place. */
static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	struct op *o = calloc(256, sizeof(*o));
	struct iovec *iov = calloc(256, sizeof(*iov));
	u8 *buf = aligned_alloc(4096, 256 * 4096), *now;
	unsigned left;
	size_t len;

	make_file(f->path, SIZE);
	now = file_read(f->path, &len);
	for (int direct = 0; direct < 2; direct++) {
		open_disk(f, direct ? DISK_DIRECT : DISK_WRITEBACK);
		memset(buf, 0, 256 * 4096);
		for (unsigned i = 0; i < 256; i++) {
			o[i] = (struct op){.op.done = done};
			iov[i] = (struct iovec){buf + i * 4096, 4096};
			disk_read(f->d, &o[i].op, &iov[i], 1, i * 4096, 4096);
		}
		do {
			assert_int_equal(ring_run(f->r), 0);
			left = 256;
			for (unsigned i = 0; i < 256; i++)
				left -= o[i].runs;
		} while (left);
		for (unsigned i = 0; i < 256; i++)
			assert_int_equal(o[i].res, 0);
		assert_memory_equal(buf, now, SIZE);
		disk_close(&f->d);
	}
	free(now);
	free(buf);
	free(iov);
	free(o);
}

/* The overlay on the real ring: neighbours at the same time, half of them durable. */
static void test_overlay(void **state)
{
	struct fixture *f = *state;
	struct op *o = calloc(300, sizeof(*o)), whole = {.op.done = done};
	struct iovec *iov = calloc(300, sizeof(*iov)), all;
	u8 *base, *want, *got = malloc(SIZE), *data = malloc(300 * 512);
	struct disk_config cfg = {.path = f->path};
	char top[300];
	size_t len;

	snprintf(top, sizeof(top), "%s/top", f->dir);
	cfg.overlay = top;
	make_file(f->path, SIZE);
	base = file_read(f->path, &len);
	want = file_read(f->path, &len);
	for (unsigned i = 0; i < 300; i++) {
		memset(data + i * 512, (int)i | 1, 512);
		memset(want + i * 1024, (int)i | 1, 512);
		o[i].op.done = done;
		iov[i] = (struct iovec){data + i * 512, 512};
	}
	for (cfg.sync = DISK_WRITEBACK; cfg.sync <= DISK_DIRECT; cfg.sync += 2) {
		unlink(top);
		if (disk_open(&f->d, &cfg, f->r, &f->e))
			fail_msg("%s", f->e.msg);
		for (unsigned i = 0; i < 300; i++)
			disk_write(f->d, &o[i].op, &iov[i], 1, i * 1024, 512, i & 1);
		disk_flush(f->d, &whole.op);
		for (unsigned i = 0; i < 300; i++)
			assert_int_equal(run(f, &o[i]), 0);
		assert_int_equal(run(f, &whole), 0);
		for (int again = 0; again < 2; again++) {
			memset(got, 0, SIZE);
			all = (struct iovec){got, SIZE};
			disk_read(f->d, &whole.op, &all, 1, 0, SIZE);
			assert_int_equal(run(f, &whole), 0);
			assert_memory_equal(got, want, SIZE);
			disk_close(&f->d);
			assert_int_equal(disk_open(&f->d, &cfg, f->r, &f->e), 0);
		}
		disk_close(&f->d);
	}
	free(got);
	got = file_read(f->path, &len);
	assert_memory_equal(got, base, SIZE);
	free(got);
	free(want);
	free(base);
	free(data);
	free(iov);
	free(o);
}

static int adopt(struct fixture *f, int fd, bool read_only, enum disk_sync sync)
{
	struct disk_config cfg = {.path = "handed over", .read_only = read_only, .sync = sync};

	f->e = (struct err){0};
	return disk_adopt(&f->d, &cfg, fd, f->r, &f->e);
}

/* A file that somebody else opened is used as if it had been opened here. */
static void test_adopted(void **state)
{
	struct fixture *f = *state;
	struct op o = {.op.done = done};
	char data[512] = "handed";
	struct iovec iov = {data, sizeof(data)};
	int fd, twin;

	make_file(f->path, SIZE);
	fd = open(f->path, O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC);
	twin = dup(fd);
	assert_int_equal(adopt(f, fd, false, DISK_WRITEBACK), 0);
	assert_int_equal(fcntl(twin, F_GETFL) & (O_APPEND | O_NONBLOCK | O_DIRECT), 0);
	disk_write(f->d, &o.op, &iov, 1, 512, 512, false);
	assert_int_equal(run(f, &o), 0);
	assert_int_equal(disk_refresh(f->d), SIZE);
	assert_int_equal(pread(twin, data, 512, 512), 512);
	assert_string_equal(data, "handed");
	/* Locked for writing, while the disk lives: nobody is waited for. */
	assert_int_equal(adopt(f, open(f->path, O_RDWR | O_CLOEXEC), false, DISK_WRITEBACK), -EBUSY);
	assert_non_null(strstr(f->e.msg, "another process has it locked"));
	disk_close(&f->d);
	close(twin);
	assert_int_equal(adopt(f, open(f->path, O_RDONLY | O_CLOEXEC), true, DISK_DIRECT), 0);
	disk_close(&f->d);
}

static void test_adopted_is_checked(void **state)
{
	struct fixture *f = *state;
	const char *text = "is not open for";
	int pipes[2];

	make_file(f->path, SIZE);
	assert_int_equal(adopt(f, open(f->path, O_RDONLY | O_CLOEXEC), false, DISK_WRITEBACK), -EINVAL);
	assert_non_null(strstr(f->e.msg, text));
	assert_int_equal(adopt(f, open(f->path, O_WRONLY | O_CLOEXEC), true, DISK_WRITEBACK), -EINVAL);
	assert_non_null(strstr(f->e.msg, text));
	assert_int_equal(adopt(f, open(f->path, O_PATH | O_CLOEXEC), true, DISK_WRITEBACK), -EINVAL);
	assert_non_null(strstr(f->e.msg, text));
	assert_int_equal(adopt(f, open("/dev/null", O_RDWR | O_CLOEXEC), false, DISK_UNSAFE), -EINVAL);
	assert_non_null(strstr(f->e.msg, "a character device"));
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(adopt(f, pipes[0], true, DISK_WRITEBACK), -EINVAL);
	assert_non_null(strstr(f->e.msg, "a FIFO"));
	close(pipes[1]);
	assert_int_equal(truncate(f->path, 100), 0);
	assert_int_equal(adopt(f, open(f->path, O_RDWR | O_CLOEXEC), false, DISK_WRITEBACK), -EINVAL);
	assert_non_null(strstr(f->e.msg, "less than a sector"));
}

/* A loop device over f->path, with blocks of @block bytes; -1 where there are none. */
static int loop_make(struct fixture *f, unsigned block, char path[64])
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1, back, nr;
	struct loop_config cfg = {.block_size = block, .info.lo_flags = LO_FLAGS_AUTOCLEAR};

	nr = ctl < 0 ? -1 : ioctl(ctl, LOOP_CTL_GET_FREE);
	if (ctl >= 0)
		close(ctl);
	if (nr < 0)
		return -1;
	snprintf(path, 64, "/dev/loop%d", nr);
	back = open(f->path, O_RDWR | O_CLOEXEC);
	cfg.fd = (u32)back;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &cfg) < 0) {
		close(fd);
		fd = -1;
	}
	close(back);
	return fd;
}

static void test_block_device(void **state)
{
	struct fixture *f = *state;
	u8 *want = malloc(SIZE), *got = aligned_alloc(4096, SIZE);
	struct op o = {.op.done = done};
	struct iovec iov = {got, SIZE};
	struct disk_identity id;
	char path[64];

	for (unsigned i = 0; i < 4; i++) {
		unsigned block = i & 1 ? 4096 : 512;
		int fd;

		make_file(f->path, SIZE);
		fd = loop_make(f, block, path);
		if (fd < 0) {
			free(want);
			free(got);
			skip();
		}
		assert_int_equal(open_as(f, path, false, i & 2 ? DISK_DIRECT : DISK_WRITEBACK), 0);
		assert_int_equal(disk_size(f->d), SIZE);
		assert_int_equal(disk_block_size(f->d), block);
		disk_identity(f->d, &id);
		assert_true(id.dev && !id.ino && !id.mtime_ns && id.size == SIZE);
		disk_read(f->d, &o.op, &iov, 1, 0, SIZE);
		assert_int_equal(run(f, &o), 0);
		memcpy(want, got, SIZE);
		/* Not whole blocks: a discard leaves the rest alone, zeroes are written. */
		disk_discard(f->d, &o.op, 512 * 3, 512 * 20);
		assert_int_equal(run(f, &o), 0);
		if (block == 512)
			memset(want + 512 * 3, 0, 512 * 20);
		else
			memset(want + 4096, 0, 4096);
		disk_write_zeroes(f->d, &o.op, 512 * 81, 512 * 9, true, false);
		assert_int_equal(run(f, &o), 0);
		memset(want + 512 * 81, 0, 512 * 9);
		disk_write_zeroes(f->d, &o.op, 65536, 65536, i & 2, true);
		assert_int_equal(run(f, &o), 0);
		memset(want + 65536, 0, 65536);
		disk_flush(f->d, &o.op);
		assert_int_equal(run(f, &o), 0);
		disk_read(f->d, &o.op, &iov, 1, 0, SIZE);
		assert_int_equal(run(f, &o), 0);
		if (block == 4096) /* what was discarded may be anything */
			memcpy(want + 4096, got + 4096, 4096 * 2);
		assert_memory_equal(got, want, SIZE);
		disk_close(&f->d);
		close(fd);
	}
	free(want);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_all_requests),
		T(test_what_is_no_disk),
		T(test_size_is_whole_sectors),
		T(test_links_are_followed),
		T(test_one_writer_or_many_readers),
		T(test_who_has_it_locked),
		T(test_killed_after_a_write),
		T(test_many_at_once),
		T(test_overlay),
		T(test_adopted),
		T(test_adopted_is_checked),
		T(test_block_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
