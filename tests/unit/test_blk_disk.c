/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_disk.c - a block device on a real file, through the kernel: every way of syncing, a file
 * that is shrunk, and resets with requests in the kernel.
 */
#include "tests/lib/blk_guest.h"

#include <fcntl.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

#define OK      VIRTIO_BLK_S_OK
#define IOERR   VIRTIO_BLK_S_IOERR
#define IN      VIRTIO_BLK_T_IN
#define OUT     VIRTIO_BLK_T_OUT
#define FLUSH   VIRTIO_BLK_T_FLUSH
#define SECTORS 4096u

struct image {
	struct bg g;
	char *dir, path[80];
	int fd; /* the test's own */
	u8 *model; /* what the guest must find */
};

static void open_device(struct image *t, enum disk_sync sync, u64 not_accepted)
{
	struct disk_config cfg = {.path = t->path, .sync = sync};
	struct err e;

	t->g = (struct bg){0};
	bg_prepare(&t->g, 2);
	if (disk_open(&t->g.disk, &cfg, t->g.ring, &e))
		fail_msg("%s", e.msg);
	bg_attach(&t->g, t->g.disk);
	t->g.features = (BG_ALL | t->g.dev->features) & ~not_accepted;
	bg_driver(&t->g);
}

static int setup(void **state)
{
	struct image *t = calloc(1, sizeof(*t));

	must(t);
	t->model = calloc(SECTORS, 512);
	must(t->model);
	t->dir = tmpdir_make();
	snprintf(t->path, sizeof(t->path), "%s/disk", t->dir);
	t->fd = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(t->fd >= 0 && !ftruncate(t->fd, SECTORS * 512));
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct image *t = *state;

	close(t->fd);
	tmpdir_remove(t->dir);
	free(t->dir);
	free(t->model);
	free(t);
	return 0;
}

static u32 rnd_state = 1;

static u32 rnd(u32 n)
{
	rnd_state = rnd_state * 1664525u + 1013904223u;
	return (rnd_state >> 8) % n;
}

/* What is under way on one queue: sectors are not touched twice at a time. */
struct under_way {
	u32 sector, count, type;
};

static bool overlaps(const struct under_way *u, u32 sector, u32 count)
{
	return u->count && sector < u->sector + u->count && u->sector < sector + count;
}

static void expect(struct image *t, unsigned q, u16 head, struct under_way *u)
{
	struct bg_place p = bg_place_of(q, head);

	assert_true(guest_is(&t->g.ram, p.status_gpa, 1, OK));
	if (u->type == IN)
		assert_memory_equal(guest_at(&t->g.ram, p.data_gpa, u->count * 512),
			t->model + u->sector * 512, u->count * 512);
	u->count = 0;
}

static void ask(struct image *t, unsigned q, struct under_way all[2][BG_SIZE])
{
	static const u32 types[] = {IN, IN, OUT, OUT, FLUSH, VIRTIO_BLK_T_WRITE_ZEROES};
	struct virtio_blk_discard_write_zeroes zeroes;
	u32 type = types[rnd(6)], count = 1 + rnd(rnd(4) ? 16 : 128), sector;
	static u8 data[BG_DATA_MAX];
	const void *from = NULL;
	u32 len = 0;
	u16 head;

	sector = rnd(SECTORS - count);
	for (unsigned i = 0; i < 2 * BG_SIZE; i++) {
		if (overlaps(&all[i / BG_SIZE][i % BG_SIZE], sector, count))
			return;
	}
	if (type == FLUSH && !(t->g.features & t->g.dev->features & BG_F(FLUSH)))
		return;
	if (type == OUT) {
		for (u32 i = 0; i < count * 512; i++)
			data[i] = (u8)rnd(256);
		memcpy(t->model + sector * 512, data, count * 512);
		from = data;
		len = count * 512;
	} else if (type == VIRTIO_BLK_T_WRITE_ZEROES) {
		zeroes = (struct virtio_blk_discard_write_zeroes){sector, count, rnd(2)};
		memset(t->model + sector * 512, 0, count * 512);
		from = &zeroes;
		len = sizeof(zeroes);
	} else if (type == IN) {
		len = count * 512;
	}
	head = bg_add(&t->g, q, type, type == IN || type == OUT ? sector : 0, from, len);
	all[q][head] = (struct under_way){sector, type == FLUSH ? 0 : count, type};
}

/* Random requests on two queues; what is read is what was written last, in the end too. */
static void workload(struct image *t, unsigned n)
{
	static struct under_way all[2][BG_SIZE];
	static u8 buf[SECTORS * 512];
	unsigned sent = 0, got = 0;
	u16 head;
	u32 len;

	while (got < n) {
		unsigned q = rnd(2);

		if (sent < n && t->g.q[q].free_count >= 3) {
			unsigned before = t->g.q[q].free_count;

			ask(t, q, all);
			sent += t->g.q[q].free_count != before;
		}
		if (!rnd(4) || sent == n)
			bg_turn(&t->g);
		while (vqb_used(&t->g.q[q], &head, &len)) {
			expect(t, q, head, &all[q][head]);
			got++;
		}
	}
	assert_int_equal(pread(t->fd, buf, sizeof(buf), 0), sizeof(buf));
	assert_memory_equal(buf, t->model, sizeof(buf));
}

static void test_workload(void **state)
{
	static const struct {
		enum disk_sync sync;
		u64 not_accepted;
		unsigned n;
	} c[] = {{DISK_WRITEBACK, 0, 4000}, {DISK_WRITEBACK, BG_F(FLUSH), 500},
		{DISK_UNSAFE, 0, 4000}, {DISK_DIRECT, 0, 1000}, {DISK_DIRECT, BG_F(FLUSH), 300}};
	struct image *t = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		open_device(t, c[i].sync, c[i].not_accepted);
		workload(t, c[i].n);
		bg_finish(&t->g);
	}
}

/* B14: the file is shrunk behind our back. What is gone is an error, the rest works. */
static void test_b14_file_shrinks(void **state)
{
	struct image *t = *state;
	static u8 buf[4096];

	open_device(t, DISK_WRITEBACK, 0);
	assert_int_equal(ftruncate(t->fd, 10 * 512 + 100), 0);
	assert_int_equal(bg_do(&t->g, IN, 0, buf, 4096), OK);
	assert_int_equal(bg_do(&t->g, IN, 8, buf, 4096), IOERR);
	assert_int_equal(bg_do(&t->g, IN, 2000, buf, 4096), IOERR);
	assert_int_equal(bg_do(&t->g, IN, 9, buf, 512), OK);
	assert_int_equal(bg_config32(&t->g, 0), SECTORS);
	assert_int_equal(blk_resize(t->g.dev), 10 * 512);
	assert_int_equal(bg_config32(&t->g, 0), 10);
	assert_int_equal(bg_do(&t->g, IN, 10, buf, 512), IOERR);
	bg_finish(&t->g);
}

/* The same while zeroes are being written, piece by piece: tmpfs has no other way. */
static void test_b14_shrinks_under_zeroes(void **state)
{
	const struct virtio_blk_discard_write_zeroes all = {0, 1u << 17, 0};
	struct image *t = *state;
	u16 head;

	close(t->fd);
	snprintf(t->path, sizeof(t->path), "/dev/shm/kelvin-test-%d", getpid());
	t->fd = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(t->fd >= 0);
	assert_int_equal(ftruncate(t->fd, 64 << 20), 0);
	open_device(t, DISK_WRITEBACK, 0);
	unlink(t->path);
	head = bg_add(&t->g, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, &all, sizeof(all));
	bg_turn(&t->g); /* a piece or two of the 64 MiB: on a busy machine more turns do all */
	assert_int_equal(vqb_used_waiting(&t->g.q[0]), 0);
	assert_int_equal(ftruncate(t->fd, 512), 0);
	assert_int_equal(blk_resize(t->g.dev), 512);
	BG_UNTIL(&t->g, vqb_used_waiting(&t->g.q[0])); /* the kernel's workers take their time */
	bg_expect(&t->g, 0, head, IOERR, 1);
	assert_int_equal(bg_do(&t->g, FLUSH, 0, NULL, 0), OK);
	bg_finish(&t->g);
}

struct vcpu {
	struct bg *g;
	pthread_t thread;
	bool done;
};

static void *resets(void *arg)
{
	struct vcpu *v = arg;
	struct bg *g = v->g;
	static u8 data[BG_DATA_MAX];

	for (unsigned i = 0; i < 200; i++) {
		unsigned n = rnd(20);
		u8 *p;

		bg_driver(g);
		while (n--) {
			unsigned q = rnd(2);

			if (rnd(3))
				bg_add(g, q, IN, rnd(SECTORS - 128), NULL, 65536);
			else
				bg_add(g, q, OUT, rnd(SECTORS - 128), data, 65536);
			if (!rnd(8))
				bg_add(g, q, FLUSH, 0, NULL, 0);
		}
		if (i % 2)
			usleep(rnd(300));
		drv_reset(g->dev);
		/* The driver has its memory for itself now. */
		p = guest_at(&g->ram, bg_place_of(0, 0).data_gpa, 8u << 20);
		memset(p, 0xa5, 8u << 20);
		if (i % 16 == 0)
			usleep(500);
		must(p[0] == 0xa5 && !memcmp(p, p + 1, (8u << 20) - 1));
	}
	__atomic_store_n(&v->done, true, __ATOMIC_RELEASE);
	virtio_schedule(g->dev);
	return NULL;
}

/* B15: requests in the kernel when the driver resets. */
static void test_b15_resets(void **state)
{
	static const enum disk_sync sync[] = {DISK_WRITEBACK, DISK_DIRECT};
	struct image *t = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(sync); i++) {
		struct vcpu v = {.g = &t->g};

		open_device(t, sync[i], 0);
		must(!pthread_create(&v.thread, NULL, resets, &v));
		while (!__atomic_load_n(&v.done, __ATOMIC_ACQUIRE))
			must(!ring_run(t->g.ring));
		pthread_join(v.thread, NULL);
		assert_int_equal(t->g.dev->io_count, 0);
		bg_driver(&t->g);
		assert_int_equal(pread(t->fd, t->model, SECTORS * 512, 0), SECTORS * 512);
		workload(t, 200);
		bg_finish(&t->g);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_workload),
		T(test_b14_file_shrinks),
		T(test_b14_shrinks_under_zeroes),
		T(test_b15_resets),
	};

	return cmocka_run_group_tests_name("blk_disk", tests, NULL, NULL);
}
