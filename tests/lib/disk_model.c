/* SPDX-License-Identifier: Apache-2.0 */
/* disk_model.c - see disk_model.h */
#include "tests/lib/disk_model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory.h"
#include "virtio/disk_int.h"

#define WORDS (DISK_SECTOR / 8u)

static u64 mix(u64 v)
{
	v = (v ^ (v >> 31)) * 0x9e3779b97f4a7c15u;
	v = (v ^ (v >> 29)) * 0xbf58476d1ce4e5b9u;
	return v ^ (v >> 32);
}

void model_fill(u8 *p, u32 sector, u32 nr)
{
	u64 word = (u64)sector << 32 | nr;

	for (u64 i = 0; i < WORDS; i++) {
		memcpy(p + i * 8, &word, 8);
		word = mix(((u64)sector << 32 | nr) + i + 1);
	}
}

static bool is_zero(const u8 *p)
{
	for (unsigned i = 0; i < DISK_SECTOR; i++)
		if (p[i])
			return false;
	return true;
}

/* A third of the beginning is zeroes. */
static bool base_is_zero(u32 sector)
{
	return mix(sector / 5) % 3 == 0;
}

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

struct disk_model *model_make(u32 sectors)
{
	struct disk_model *m = calloc(1, sizeof(*m));

	must(m);
	m->sectors = sectors;
	m->align = 1;
	m->s = shared(sectors * sizeof(*m->s));
	m->next = shared(sizeof(*m->next));
	*m->next = 1;
	m->busy = calloc(sectors, sizeof(*m->busy));
	must(m->busy);
	for (u32 i = 0; i < sectors; i++)
		m->s[i].zero = base_is_zero(i);
	for (unsigned i = 0; i < MODEL_OPS; i++) {
		struct model_op *o = &m->ops[i];

		o->m = m;
		o->buf = aligned_alloc(4096, MODEL_SECTORS * DISK_SECTOR + 4096);
		o->seen = calloc(sectors, sizeof(*o->seen));
		must(o->buf && o->seen);
	}
	return m;
}

void model_free(struct disk_model **mp)
{
	struct disk_model *m = *mp;

	for (unsigned i = 0; i < MODEL_OPS; i++) {
		free(m->ops[i].buf);
		free(m->ops[i].seen);
	}
	munmap(m->s, m->sectors * sizeof(*m->s));
	munmap(m->next, sizeof(*m->next));
	free(m->busy);
	free(m);
	*mp = NULL;
}

void model_write_base(const struct disk_model *m, const char *path, u32 extra)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	u8 p[DISK_SECTOR];

	must(fd >= 0 && !ftruncate(fd, (off_t)m->sectors * DISK_SECTOR + extra));
	for (u32 i = 0; i < m->sectors; i++) {
		if (base_is_zero(i))
			continue;
		model_fill(p, i, 0);
		must(pwrite(fd, p, sizeof(p), (off_t)i * DISK_SECTOR) == (ssize_t)sizeof(p));
	}
	close(fd);
}

void model_attach(struct disk_model *m, struct disk *d, struct ring *r)
{
	m->d = d;
	m->r = r;
	must(disk_size(d) == (u64)m->sectors * DISK_SECTOR);
}

/* What is in a sector: the number of a write, or zeroes, or neither. */
struct found {
	bool zero, good;
	u32 nr;
};

static struct found look(const u8 *p, u32 sector)
{
	struct found f = {.zero = is_zero(p)};
	u8 want[DISK_SECTOR];
	u64 word;

	memcpy(&word, p, 8);
	f.nr = (u32)word;
	model_fill(want, sector, f.nr);
	f.good = f.zero || !memcmp(p, want, sizeof(want));
	return f;
}

static void wrong(const struct disk_model *m, u32 sector, struct found f, const char *when)
{
	const struct model_sector *s = &m->s[sector];

	fprintf(stderr,
		"%s: sector %u has %s %u; now %u queued %u floor %u zeroed %u zero %d loose %d\n",
		when, sector, f.zero ? "zeroes" : f.good ? "write" : "garbage", f.nr, s->now,
		s->queued, s->floor, s->zeroed, s->zero, s->loose);
	must(!"the disk holds what it must not");
}

static void check_sector(const struct disk_model *m, const u8 *p, u32 sector)
{
	const struct model_sector *s = &m->s[sector];
	struct found f = look(p, sector);

	if (f.zero ? !s->zero && !s->loose : !f.good || s->zero || f.nr != s->now)
		wrong(m, sector, f, "check");
}

static void check_crashed_sector(struct disk_model *m, const u8 *p, u32 sector, bool power)
{
	struct model_sector *s = &m->s[sector];
	u32 floor = power ? s->floor : s->now;
	struct found f = look(p, sector);
	bool old_zero = !floor && base_is_zero(sector);

	if (f.zero) {
		if (!(s->zeroed && s->zeroed >= floor) && !old_zero && (power || !s->zero))
			wrong(m, sector, f, "crash");
		s->now = s->zeroed;
	} else {
		if (!f.good || f.nr > s->queued || f.nr < floor || (!f.nr && base_is_zero(sector)))
			wrong(m, sector, f, "crash");
		s->now = f.nr;
	}
	s->zero = f.zero;
	s->queued = s->now;
	if (power)
		s->zeroed = f.zero ? s->now : 0;
	s->loose = false;
	if (power)
		s->floor = s->now;
}

static void op_done(struct disk_op *op, int res)
{
	struct model_op *o = container_of(op, struct model_op, op);
	struct disk_model *m = o->m;

	must(o->busy && !res);
	o->busy = false;
	m->done[o->what]++;
	for (u32 i = o->sector; i < o->sector + o->count; i++) {
		struct model_sector *s = &m->s[i];

		m->busy[i] = false;
		if (o->what == DISK_OP_READ) {
			u8 p[DISK_SECTOR];

			must(iov_to_host(o->iov, o->iov_count, (i - o->sector) * DISK_SECTOR, p,
				     DISK_SECTOR) == DISK_SECTOR);
			check_sector(m, p, i);
		} else if (o->what == DISK_OP_DISCARD) {
			s->loose = true;
		} else {
			s->now = o->nr;
			s->zero = o->what == DISK_OP_ZERO;
			s->loose = false;
			if (o->durable)
				s->floor = o->nr;
		}
	}
	if (o->what != DISK_OP_FLUSH)
		return;
	for (u32 i = 0; i < m->sectors; i++)
		if (o->seen[i] > m->s[i].floor)
			m->s[i].floor = o->seen[i];
}

/* Cuts o->buf into buffers. */
static void cut(struct model_op *o, u32 len)
{
	struct disk_model *m = o->m;
	unsigned n = 1 + (unsigned)fake_ring_rand(m->r, MODEL_IOVS);
	u8 *p = o->buf + fake_ring_rand(m->r, 4096 / m->align) * m->align;
	u32 left = len, part;

	o->iov_count = 0;
	while (left) {
		part = (u32)fake_ring_rand(m->r, left / m->align + 1) * m->align;
		if (o->iov_count + 1 == n)
			part = left;
		o->iov[o->iov_count++] = (struct iovec){p, part};
		p += part;
		left -= part;
	}
}

static bool pick_range(struct disk_model *m, struct model_op *o)
{
	u32 max = fake_ring_rand(m->r, 3) ? 9 : MODEL_SECTORS;

	o->count = 1 + (u32)fake_ring_rand(m->r, max);
	if (fake_ring_rand(m->r, 4) == 0)
		o->count = (o->count + 7) & ~7u;
	o->sector = (u32)fake_ring_rand(m->r, m->sectors);
	if (fake_ring_rand(m->r, 4) == 0)
		o->sector &= ~7u;
	if (o->count > MODEL_SECTORS)
		o->count = MODEL_SECTORS;
	if (o->sector + o->count > m->sectors)
		o->count = m->sectors - o->sector;
	for (u32 i = o->sector; i < o->sector + o->count; i++)
		if (m->busy[i])
			return false;
	return true;
}

static void queue_flush(struct model_op *o)
{
	o->what = DISK_OP_FLUSH;
	o->sector = o->count = 0;
	for (u32 i = 0; i < o->m->sectors; i++)
		o->seen[i] = o->m->s[i].now;
	disk_flush(o->m->d, &o->op);
}

static void queue_write(struct model_op *o)
{
	struct disk_model *m = o->m;
	u8 p[DISK_SECTOR];

	for (u32 i = 0; i < o->count; i++) {
		model_fill(p, o->sector + i, o->nr);
		must(iov_from_host(o->iov, o->iov_count, i * DISK_SECTOR, p, DISK_SECTOR) ==
			DISK_SECTOR);
	}
	disk_write(m->d, &o->op, o->iov, o->iov_count, (u64)o->sector * DISK_SECTOR,
		o->count * DISK_SECTOR, o->durable);
}

static void queue_one(struct model_op *o)
{
	struct disk_model *m = o->m;
	u64 dice = fake_ring_rand(m->r, 100), off, len;

	if (dice >= (m->flush_often ? 80 : 95) && !m->write_through) {
		o->busy = true;
		queue_flush(o);
		return;
	}
	if (!pick_range(m, o))
		return;
	o->busy = true;
	o->what = dice < 35 ? DISK_OP_READ : dice < (m->flush_often ? 70 : 82) ? DISK_OP_WRITE :
		dice < (m->flush_often ? 75 : 88) ? DISK_OP_DISCARD : DISK_OP_ZERO;
	o->durable = m->write_through && o->what != DISK_OP_DISCARD;
	off = (u64)o->sector * DISK_SECTOR;
	len = (u64)o->count * DISK_SECTOR;
	o->nr = o->what == DISK_OP_READ ? 0 : (*m->next)++;
	for (u32 i = o->sector; i < o->sector + o->count; i++) {
		m->busy[i] = true;
		if (o->nr)
			m->s[i].queued = o->nr;
		if (o->what == DISK_OP_ZERO || o->what == DISK_OP_DISCARD)
			m->s[i].zeroed = o->nr;
	}
	cut(o, (u32)len);
	if (o->what == DISK_OP_READ)
		disk_read(m->d, &o->op, o->iov, o->iov_count, off, (u32)len);
	else if (o->what == DISK_OP_WRITE)
		queue_write(o);
	else if (o->what == DISK_OP_DISCARD)
		disk_discard(m->d, &o->op, off, len);
	else
		disk_write_zeroes(m->d, &o->op, off, len, fake_ring_rand(m->r, 2), o->durable);
}

void model_run(struct disk_model *m, unsigned n)
{
	while (n--) {
		struct model_op *o = &m->ops[fake_ring_rand(m->r, MODEL_OPS)];

		if (fake_ring_rand(m->r, 3) == 0 && !o->busy) {
			o->op.done = op_done;
			queue_one(o);
		} else {
			fake_ring_step(m->r);
		}
	}
}

void model_drain(struct disk_model *m)
{
	fake_ring_drain(m->r);
	for (unsigned i = 0; i < MODEL_OPS; i++)
		must(!m->ops[i].busy);
}

struct whole {
	struct disk_op op;
	bool done;
};

static void whole_done(struct disk_op *op, int res)
{
	must(!res);
	container_of(op, struct whole, op)->done = true;
}

static u8 *read_all(struct disk_model *m)
{
	u32 len = m->sectors * DISK_SECTOR;
	struct whole w = {.op.done = whole_done};
	u8 *p = aligned_alloc(4096, (len + 4095) & ~4095u);
	struct iovec iov = {p, len};

	must(p);
	disk_read(m->d, &w.op, &iov, 1, 0, len);
	fake_ring_drain(m->r);
	must(w.done);
	return p;
}

void model_check(struct disk_model *m)
{
	u8 *p = read_all(m);

	for (u32 i = 0; i < m->sectors; i++)
		check_sector(m, p + (size_t)i * DISK_SECTOR, i);
	free(p);
}

void model_check_crashed(struct disk_model *m, bool power)
{
	u8 *p = read_all(m);

	for (u32 i = 0; i < m->sectors; i++)
		check_crashed_sector(m, p + (size_t)i * DISK_SECTOR, i, power);
	free(p);
}
