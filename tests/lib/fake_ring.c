/* SPDX-License-Identifier: Apache-2.0 */
/* fake_ring.c - see fake_ring.h */
#include "tests/lib/fake_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/memory.h"

struct ring *fake_ring_make(u64 seed)
{
	struct ring *r = calloc(1, sizeof(*r));

	must(r);
	r->seed = seed * 2654435761u + 88172645463325252u;
	return r;
}

void fake_ring_free(struct ring **r)
{
	must(!(*r)->count);
	for (unsigned i = 0; i < FAKE_FD_MAX; i++)
		must(!(*r)->fixed[i]);
	free((*r)->ios);
	free(*r);
	*r = NULL;
}

u64 fake_ring_rand(struct ring *r, u64 below)
{
	r->seed ^= r->seed << 13;
	r->seed ^= r->seed >> 7;
	r->seed ^= r->seed << 17;
	return (r->seed >> 11) % below;
}

static int nuisance(struct ring *r, const struct fake_io *io)
{
	u64 dice = fake_ring_rand(r, r->nuisance);

	if (dice == 0 && io->kind != FAKE_NOP)
		return -EINTR;
	if (dice == 1 && io->kind != FAKE_NOP)
		return -EAGAIN;
	if (dice < 4 && (io->kind == FAKE_READ || io->kind == FAKE_WRITE) && io->len > r->unit)
		return (int)((1 + fake_ring_rand(r, io->len / r->unit)) * r->unit);
	return 0;
}

static void carry_out(struct ring *r, struct fake_io *io)
{
	struct iovec cut[IOV_MAX];
	const struct iovec *iov = io->iov ? io->iov : &io->one;
	unsigned n = io->iov ? io->iov_count : 1;
	ssize_t res = r->fault ? r->fault(r->ctx, io) : 0;

	if (!res && r->nuisance)
		res = nuisance(r, io);
	io->carried_out = true;
	if (io->cancelled)
		res = -ECANCELED;
	if (res >= 0 && (io->kind == FAKE_READ || io->kind == FAKE_WRITE)) {
		if (res) {
			n = iov_slice(iov, n, 0, (size_t)res, cut);
			iov = cut;
		}
		res = io->kind == FAKE_READ ?
			preadv(io->fd, iov, (int)n, (off_t)io->off) :
			pwritev(io->fd, iov, (int)n, (off_t)io->off);
	} else if (!res && io->kind == FAKE_FALLOCATE) {
		res = fallocate(io->fd, io->flags, (off_t)io->off, (off_t)io->len);
	}
	io->res = res == -1 ? -errno : (int)res;
	if (r->did)
		r->did(r->ctx, io);
}

static bool is_held(const struct ring *r, const struct fake_io *io)
{
	return r->hold_syncs && io->kind == FAKE_SYNC && io->carried_out;
}

/* What to go on with; NULL: nothing. */
static struct fake_io *pick(struct ring *r)
{
	unsigned first = r->in_order || !r->count ? 0 : (unsigned)fake_ring_rand(r, r->count);

	for (unsigned i = 0; i < r->count; i++)
		if (!is_held(r, &r->ios[(first + i) % r->count]))
			return &r->ios[(first + i) % r->count];
	return NULL;
}

bool fake_ring_step(struct ring *r)
{
	struct fake_io *io = pick(r), done;

	if (!io)
		return false;
	if (!io->carried_out) {
		carry_out(r, io);
		return true;
	}
	done = *io;
	r->count--;
	if (r->in_order)
		memmove(io, io + 1, (size_t)(r->ios + r->count - io) * sizeof(*io));
	else
		*io = r->ios[r->count];
	done.op->busy = false;
	done.op->done(done.op, done.res);
	return true;
}

void fake_ring_drain(struct ring *r)
{
	while (fake_ring_step(r))
		;
}

static struct fake_io *add(struct ring *r, struct ring_op *op, enum fake_kind kind, int fd)
{
	struct fake_io *io;

	must(!op->busy && op->done);
	op->busy = true;
	if (r->count == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 16;
		r->ios = realloc(r->ios, r->cap * sizeof(*r->ios));
		must(r->ios);
	}
	io = &r->ios[r->count++];
	*io = (struct fake_io){.kind = kind, .op = op, .fd = fd, .nr = r->queued[kind]++};
	return io;
}

static void add_rw(struct ring *r, struct ring_op *op, enum fake_kind kind, int fd,
	const struct iovec *iov, unsigned n, u64 off, int flags)
{
	struct fake_io *io = add(r, op, kind, fd);

	must(n <= IOV_MAX);
	io->iov = iov;
	io->iov_count = n;
	for (unsigned i = 0; i < n; i++)
		io->len += iov[i].iov_len;
	io->off = off;
	io->flags = flags;
}

static void add_one(struct ring *r, struct ring_op *op, enum fake_kind kind, int fd, void *buf,
	unsigned len, u64 off, int flags)
{
	struct fake_io *io = add(r, op, kind, fd);

	io->one = (struct iovec){buf, len};
	io->len = len;
	io->off = off;
	io->flags = flags;
}

void ring_readv(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags)
{
	add_rw(r, op, FAKE_READ, fd, iov, n, off, flags);
}

void ring_writev(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags)
{
	add_rw(r, op, FAKE_WRITE, fd, iov, n, off, flags);
}

void ring_pread(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len, u64 off)
{
	add_one(r, op, FAKE_READ, fd, buf, len, off, 0);
}

void ring_pwrite(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len,
	u64 off, int flags)
{
	add_one(r, op, FAKE_WRITE, fd, (void *)(uintptr_t)buf, len, off, flags);
}

void ring_fdatasync(struct ring *r, struct ring_op *op, int fd)
{
	add(r, op, FAKE_SYNC, fd);
}

void ring_fallocate(struct ring *r, struct ring_op *op, int fd, int mode, u64 off, u64 len)
{
	struct fake_io *io = add(r, op, FAKE_FALLOCATE, fd);

	io->flags = mode;
	io->off = off;
	io->len = len;
}

void ring_nop(struct ring *r, struct ring_op *op)
{
	add(r, op, FAKE_NOP, -1);
}

void ring_cancel(struct ring *r, struct ring_op *op)
{
	for (unsigned i = 0; i < r->count; i++)
		if (r->ios[i].op == op && r->ios[i].kind != FAKE_NOP)
			r->ios[i].cancelled = true;
}

void ring_fix_file(struct ring *r, int fd)
{
	must(fd < FAKE_FD_MAX && !r->fixed[fd]);
	r->fixed[fd] = true;
}

void ring_unfix_file(struct ring *r, int fd)
{
	r->fixed[fd] = false;
}
