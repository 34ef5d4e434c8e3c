/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_blk.c - the block device between a guest's driver and a disk, both of which the input plays:
 * requests that are right or break a rule (B01 to B15), cut into buffers anyhow; operations of the
 * disk that end in any order, with any result; limits, resets, pauses, saved state, a disk that
 * grows, shrinks or is replaced.
 *
 * Checked: a request that keeps the rules reaches the disk as the guest meant it, buffer by buffer,
 * and what the disk says reaches the guest: data, status, length. Nothing else reaches the disk
 * outside its capacity or against its nature (fuzz_disk.c). A driver without FLUSH gets durable
 * writes. Every head comes back once, at the latest when the disk is done. After a reset the device
 * works.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>

#include "tests/fuzz/fuzz_disk.h"
#include "tests/fuzz/fuzz_loop.h"
#include "virtio/blk_int.h"

#define QUEUES    3u
#define SIZE_MAX_ 16u
#define SECTORS   64u
#define NO_STATUS 0xee /* what the driver writes where the status will be */
#define DATA_MAX  4096u
#define RANGES    4u

/* Where things are in the memory that each head of a queue has. */
#define SLOT(q, head) (FZ_DATA_GPA + ((q) * SIZE_MAX_ + (head)) * 0x1400ull)
#define STATUS_AT 0x20u
#define RANGE_AT  0x40u
#define DATA_AT   0x200u
#define LOW_LEN   (FZ_DATA_GPA + (QUEUES * SIZE_MAX_ + 1) * 0x1400ull)

/* A request as the guest sees it. */
struct request {
	u32 type;
	u64 sector;
	u32 len;        /* of the data */
	u32 ranges;
	struct virtio_blk_discard_write_zeroes range[RANGES];
	bool right;     /* the driver kept the rules of requests and of chains */
	bool queued;    /* it reached the disk */
	u8 seed;        /* of the data */
};

static struct {
	struct guest_ram ram;
	struct fz_loop loop;
	struct virtio_dev *d;
	struct disk *next_disk; /* a swap was asked for */
	unsigned queues;
	struct fz_queue q[QUEUES];
	struct request req[QUEUES][SIZE_MAX_];
	bool up;      /* the driver drives, and keeps the rules of the rings */
	bool flushes; /* FLUSH was negotiated */
	bool limited;
	u8 seed;
} t;

static void raise_irq(void *ctx, unsigned line)
{
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fz_ram_init(&t.ram, (LOW_LEN + MEM_PAGE - 1) / MEM_PAGE * MEM_PAGE);
	return 0;
}

static struct disk *disk(void)
{
	return blk_disk(t.d);
}

/* What the disk is asked, and what it moves. */

/* The request whose buffers these are, or NULL. */
static struct request *owner(const struct iovec *iov, u32 at)
{
	const u8 *base = guest_at(&t.ram, 0, 1), *p = iov->iov_base;

	for (unsigned q = 0; q < t.queues; q++) {
		for (unsigned head = 0; head < SIZE_MAX_; head++) {
			if (p == base + SLOT(q, head) + at)
				return &t.req[q][head];
		}
	}
	return NULL;
}

/* Bytes of a request's data: told apart by seed and place. */
static u8 data_byte(u8 seed, u32 i)
{
	return (u8)(seed + i % 251);
}

static void disk_queued(const struct fd_entry *e)
{
	u8 *p = e->n ? e->iov->iov_base : NULL;
	struct request *r;

	fz_trace("disk gets %u at %llu len %llu%s", e->what, (unsigned long long)e->off,
		(unsigned long long)e->len, e->durable ? " durable" : "");
	if (!t.up)
		return;
	must(t.flushes || e->durable || disk()->sync == DISK_UNSAFE || e->what == FD_READ ||
		e->what == FD_FLUSH || e->what == FD_DISCARD);
	if (!e->n)
		return;
	r = owner(e->iov, DATA_AT);
	if (!r || !r->right)
		return;
	must(r->type == (e->what == FD_READ ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT));
	must(e->off == r->sector * DISK_SECTOR && e->len == r->len);
	for (unsigned i = 0; i < e->n; i++) { /* the whole of it, in order */
		must(e->iov[i].iov_base == p);
		p += e->iov[i].iov_len;
	}
	r->queued = true;
}

static void disk_moves(const struct fd_entry *e)
{
	struct request *r = e->n ? owner(e->iov, DATA_AT) : NULL;
	u32 at = 0;

	for (unsigned i = 0; i < e->n; i++) {
		u8 *p = e->iov[i].iov_base;

		for (size_t k = 0; k < e->iov[i].iov_len; k++, at++) {
			if (e->what == FD_READ)
				p[k] = data_byte(r ? r->seed : 0, at);
			else
				must(!t.up || !r || !r->right || p[k] == data_byte(r->seed, at));
		}
	}
}

static bool disk_works(void)
{
	return fd_end_all(disk());
}

static void meanwhile(void)
{
	disk()->hold = false;
	fd_end_all(disk());
}

/* The device. */

static void open_device(struct disk *disk, const struct limit_config *limit)
{
	struct blk_config cfg = {.id = "root", .queues = t.queues};

	if (limit)
		cfg.limit = *limit;
	must(!blk_create(&t.d, &cfg, disk, t.loop.ring, &t.ram.mem,
		(struct virtio_irq){.raise = raise_irq}, NULL));
	fz_loop_run(&t.loop, t.d);
}

static void close_device(void)
{
	disk()->hold = false;
	while (disk()->count) /* as the kernel would, before the ring is gone */
		fd_end_all(disk());
	fz_loop_end(&t.loop, NULL);
	must(!fd_open_disks);
}

static void bring_up(struct fz *f)
{
	struct fz_queue *q[QUEUES] = {NULL};
	u64 features;
	u8 how = fz_u8(f);

	t.up = false;
	drv_reset(t.d); /* a swap may wait for that */
	features = t.d->features;
	for (unsigned i = 0; i < t.queues; i++) {
		fz_queue_init(&t.q[i], &t.ram, i, (u16)(4u << fz_below(f, 3)));
		t.q[i].indirect = how & 1;
		t.q[i].event_idx = how & 2;
		q[i] = &t.q[i];
	}
	if (how & 4)
		features &= ~BLK_MASK(FLUSH);
	if (how & 8)
		features &= ~(BLK_MASK(DISCARD) | BLK_MASK(WRITE_ZEROES) | BLK_MASK(RO));
	memset(t.req, 0, sizeof(t.req));
	fz_bring_up(t.d, q, t.queues, features | VIRTIO_MASK_VERSION_1);
	t.flushes = features & BLK_MASK(FLUSH);
	t.up = true;
}

/* Requests. */

/* Breaks one thing about a request. */
static void break_request(struct fz *f, struct request *r, struct vqb_buf *buf, unsigned *n,
	unsigned what)
{
	switch (what) {
	case 1: /* B06 */
		r->type = (u32)fz_odd(f, r->type);
		break;
	case 2: /* B03, B04 */
		r->sector = fz_odd(f, disk()->size / DISK_SECTOR);
		break;
	case 3: /* B05, B11 */
		buf[*n > 2].len = 1 + fz_u16(f) % DATA_MAX;
		break;
	case 4: /* B01 */
		buf[0].len = 1 + fz_below(f, 16);
		break;
	case 5: /* B02 */
		(*n)--;
		break;
	case 6:
		buf[*n - 1].len = 1 + fz_below(f, 16);
		break;
	case 7: /* B10 */
		r->range[fz_below(f, RANGES)].num_sectors = (u32)fz_odd(f, 1);
		break;
	case 8:
		r->range[fz_below(f, RANGES)].sector = fz_odd(f, disk()->size / DISK_SECTOR);
		break;
	case 9:
		r->range[fz_below(f, RANGES)].flags = (u32)fz_odd(f, 1);
		break;
	default: /* no data */
		buf[1] = buf[*n - 1];
		*n = 2;
		break;
	}
}

/* What kind of request, and its data. Returns how many bytes of it the device reads. */
static u32 make_request(struct fz *f, struct request *r)
{
	u64 sectors = disk()->size / DISK_SECTOR;

	*r = (struct request){.right = true, .seed = ++t.seed, .sector = fz_u8(f) % sectors};
	switch (fz_below(f, 16)) {
	case 0:
		r->type = VIRTIO_BLK_T_FLUSH;
		r->sector = 0;
		return 0;
	case 1:
		r->type = VIRTIO_BLK_T_GET_ID;
		r->len = BLK_ID_MAX;
		return 0;
	case 2:
	case 3:
		r->type = fz_u8(f) & 1 ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES;
		r->ranges = 1 + fz_below(f, RANGES);
		for (unsigned i = 0; i < r->ranges; i++) {
			r->range[i].sector = fz_u8(f) % sectors;
			r->range[i].num_sectors = 1;
			if (r->type == VIRTIO_BLK_T_WRITE_ZEROES)
				r->range[i].flags = fz_u8(f) & 1;
		}
		r->len = r->ranges * (u32)sizeof(r->range[0]);
		return r->len;
	case 4 ... 9:
		r->type = VIRTIO_BLK_T_IN;
		break;
	default:
		r->type = VIRTIO_BLK_T_OUT;
		break;
	}
	r->len = DISK_SECTOR * (1 + fz_below(f, DATA_MAX / DISK_SECTOR));
	if (r->len > (sectors - r->sector) * DISK_SECTOR)
		r->len = DISK_SECTOR;
	return r->type == VIRTIO_BLK_T_OUT ? r->len : 0;
}

static void request(struct fz *f)
{
	unsigned qi = fz_below(f, t.queues), n = 2, what;
	struct fz_queue *q = &t.q[qi];
	u16 head = fz_next_head(q), got;
	u64 slot_gpa = SLOT(qi, head);
	struct request r;
	u32 out = make_request(f, &r), right_type;
	struct vqb_buf buf[3] = {VQB_R(slot_gpa, 16)};
	struct virtio_blk_outhdr h;
	u8 data[DATA_MAX], status = NO_STATUS;
	enum fz_fault fault;

	if (!q->b.free_count && !q->broken)
		return;
	if (r.len) {
		buf[1] = (struct vqb_buf){slot_gpa + (r.ranges ? RANGE_AT : DATA_AT), r.len, !out};
		n = 3;
	}
	buf[n - 1] = VQB_W(slot_gpa + STATUS_AT, 1);
	right_type = r.type;
	what = fz_break(f, 10);
	if (what)
		break_request(f, &r, buf, &n, what);
	h = (struct virtio_blk_outhdr){.type = r.type, .sector = r.sector};
	guest_write(&t.ram, slot_gpa, &h, sizeof(h));
	guest_write(&t.ram, slot_gpa + STATUS_AT, &status, 1);
	guest_write(&t.ram, slot_gpa + RANGE_AT, r.range, sizeof(r.range));
	for (u32 i = 0; i < DATA_MAX && right_type == VIRTIO_BLK_T_OUT; i++)
		data[i] = data_byte(r.seed, i);
	if (right_type == VIRTIO_BLK_T_OUT)
		guest_write(&t.ram, slot_gpa + DATA_AT, data, r.len);
	fault = fz_offer(f, q, buf, n, &got);
	if (fault == FZ_FULL)
		return;
	fz_trace("request type %u sector %llu len %u, broken %u", r.type,
		(unsigned long long)r.sector, r.len, what);
	r.right = !what && fault == FZ_FINE;
	t.req[qi][got] = r;
}

/* An answer to a request that kept the rules. */
static void check_answer(unsigned qi, u16 head, u32 len)
{
	const struct request *r = &t.req[qi][head];
	u64 slot_gpa = SLOT(qi, head);
	u8 status, data[DATA_MAX];

	guest_read(&t.ram, slot_gpa + STATUS_AT, &status, 1);
	fz_trace("answer %u len %u to type %u", status, len, r->type);
	if (!r->right)
		return;
	must(status <= VIRTIO_BLK_S_UNSUPP);
	must(len == 1 + (status || r->type == VIRTIO_BLK_T_OUT || r->ranges ? 0 : r->len));
	must(status || r->queued || r->type >= VIRTIO_BLK_T_FLUSH);
	if (status || r->type != VIRTIO_BLK_T_IN)
		return;
	guest_read(&t.ram, slot_gpa + DATA_AT, data, r->len);
	for (u32 i = 0; i < r->len; i++)
		must(data[i] == data_byte(r->seed, i));
}

static void take_used(void)
{
	u16 head;
	u32 len;

	for (unsigned i = 0; i < t.queues; i++) {
		while (fz_used(&t.q[i], &head, &len)) {
			if (t.up)
				check_answer(i, head, len);
		}
	}
}

static bool sound(void)
{
	for (unsigned i = 0; i < t.queues; i++) {
		if (t.q[i].broken)
			return false;
	}
	return true;
}

/* Nothing is left undone, and nothing counted wrong, when the loop rests. */
static void check_rest(void)
{
	const struct blk *b = blk_of(t.d);

	must(t.d->io_count == disk()->count);
	must(!b->next_disk || t.d->io_count);
	if (!t.up || !virtio_live(t.d) || !sound() || b->waiting || b->next_disk)
		return;
	for (unsigned i = 0; i < t.queues; i++)
		must(disk()->count || !t.q[i].out_count);
}

/* The operator. */

static void limit(struct fz *f)
{
	struct limit_config cfg = {0};
	u8 how = fz_u8(f);

	if (how & 1)
		cfg.ops = (struct limit_rate){1 + fz_below(f, 8), 1000000ull << fz_below(f, 12),
			fz_below(f, 4)};
	if (how & 2)
		cfg.bytes = (struct limit_rate){1 + fz_u16(f), 1000000ull << fz_below(f, 12),
			fz_u16(f)};
	t.limited = how & 3;
	blk_set_limit(t.d, &cfg);
}

/* Requests that are under way may be outside the disk now, or the disk not what they expect. */
static void forget_requests(void)
{
	for (unsigned i = 0; i < t.queues; i++) {
		for (unsigned head = 0; head < SIZE_MAX_; head++)
			t.req[i][head].right = false;
	}
}

static void change_disk(struct fz *f)
{
	struct disk *d;
	u8 how = fz_u8(f);

	fh_fault_none();
	forget_requests();
	if (how & 0x80) {
		disk()->next_size = DISK_SECTOR * (u64)(1 + fz_below(f, 2 * SECTORS));
		must(blk_resize(t.d) == disk()->size);
		return;
	}
	d = fd_new(1 + fz_below(f, 2 * SECTORS), how & 0x3f);
	if (blk_swap(t.d, d, NULL))
		disk_close(&d);
}

static void save_and_restore(struct fz *f)
{
	struct enc e = {0};
	unsigned change = fz_break(f, 16), at = fz_u16(f);
	u64 sectors;
	u8 how;

	fh_fault_none();
	virtio_freeze(t.d);
	fz_quiesce(&t.loop);
	virtio_save(t.d, &e);
	sectors = disk()->size / DISK_SECTOR + (fz_u8(f) & 1);
	how = (u8)(disk()->block_size > DISK_SECTOR) | (u8)disk()->read_only << 1 |
		(u8)!disk()->can_discard << 2 | (u8)!disk()->can_zero << 3 |
		(u8)disk()->sync << 4;
	close_device();
	fh_reset();
	fz_loop_again(&t.loop);
	open_device(fd_new(sectors, how), NULL);
	t.limited = false;
	if (change)
		fz_change(f, (u8)at, &e);
	if (virtio_load(t.d, e.buf, e.len, NULL)) {
		must(change);
		close_device();
		fh_reset();
		fz_loop_again(&t.loop);
		open_device(fd_new(sectors, how), NULL);
	}
	t.up &= !change;
	for (unsigned i = 0; i < t.queues && change; i++)
		t.q[i].broken = true;
	enc_free(&e);
}

static void disk_acts(struct fz *f)
{
	static const int results[] = {0, 0, 0, -EIO, -ENOSPC, -EOPNOTSUPP, -EINTR, -ECANCELED};

	switch (fz_below(f, 4)) {
	case 0:
		disk()->hold = true;
		break;
	case 1:
		disk()->hold = false;
		break;
	default:
		fd_end(disk(), fz_u8(f), results[fz_below(f, ARRAY_SIZE(results))]);
		break;
	}
}

static void guest_step(struct fz *f, unsigned what)
{
	switch (what) {
	default:
		for (unsigned n = 1 + fz_below(f, 3); n--;)
			request(f);
		for (unsigned i = 0; i < t.queues; i++)
			fz_kick(t.d, &t.q[i]);
		break;
	case 13:
		vqb_set_used_event(&t.q[0].b, (u16)(t.q[0].b.used_seen + fz_below(f, 4)));
		break;
	case 14:
		if (fz_break(f, 32))
			fz_scribble(f, t.q, t.queues);
		t.up = sound();
		break;
	}
}

static void step(struct fz *f)
{
	u8 what = fz_u8(f);

	fz_trace("step %u%s", what % 32, what & 0x80 ? ", no turn" : "");
	switch (what % 32) {
	case 0 ... 14:
		if (t.up)
			guest_step(f, what % 32);
		t.up &= sound();
		break;
	case 15 ... 20:
		disk_acts(f);
		break;
	case 21:
		limit(f);
		break;
	case 22:
		fh_sleep(1000000ull << fz_below(f, 14));
		break;
	case 23:
		change_disk(f);
		break;
	case 24:
		save_and_restore(f);
		break;
	case 25:
		virtio_freeze(t.d);
		break;
	case 26:
		virtio_thaw(t.d);
		break;
	case 27:
		fz_mmio_access(f, t.d);
		t.up = false;
		break;
	case 28:
		bring_up(f);
		break;
	case 29:
		fh_fault_alloc(fz_below(f, 4));
		forget_requests();
		break;
	default:
		fz_turn(&t.loop);
	}
	if (!(what & 0x80)) {
		fz_settle(&t.loop);
		take_used();
		check_rest();
	}
}

/* The device answers a driver that did nothing wrong yet. */
static void check_works(void)
{
	static const struct limit_config none;
	struct fz f = {0};

	fh_fault_none();
	virtio_thaw(t.d);
	disk()->hold = false;
	bring_up(&f);
	blk_set_limit(t.d, &none);
	fz_settle(&t.loop);
	f.rec[0] = f.rec[1] = 0; /* a flush, then a read */
	request(&f);
	f = (struct fz){.rec = {0, 0, 4}};
	request(&f);
	fz_kick(t.d, &t.q[0]);
	fz_settle(&t.loop);
	take_used();
	must(t.d->status == 15 && !t.q[0].out_count);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;

	fh_reset();
	fz_ram_clear(&t.ram);
	memset(t.q, 0, sizeof(t.q));
	memset(t.req, 0, sizeof(t.req));
	fd_queued = disk_queued;
	fd_moves = disk_moves;
	fz_begin(&f, data, len);
	fz_step(&f);
	t.loop.meanwhile = meanwhile;
	t.loop.work = disk_works;
	fz_loop_init(&t.loop, &f);
	t.queues = 1 + fz_below(&f, QUEUES);
	t.limited = t.up = false;
	open_device(fd_new(1 + fz_below(&f, 2 * SECTORS), fz_u8(&f)), NULL);
	if (!(fz_u8(&f) & 1))
		bring_up(&f);
	while (fz_step(&f)) {
		step(&f);
		fz_check_dev(t.d);
		must(!(t.d->status & VIRTIO_CONFIG_S_NEEDS_RESET) || !t.up || !sound());
	}
	check_works();
	close_device();
	return 0;
}
