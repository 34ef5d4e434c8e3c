/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - one io_uring, and a callback for each operation on it. See ring.h.
 *
 * Theory of operation
 *
 * user_data of a submission is the address of its struct ring_op; a completion finds its callback
 * there. Cancel requests have user_data 0 and their completions are thrown away: what matters is
 * the completion of the operation that was cancelled.
 *
 * Queueing only writes a submission entry. ring_run() hands all of them over and waits in the same
 * system call. When the submission queue is full, the entries in it are handed over early, without
 * waiting. An old kernel can refuse that (EBUSY) until completions are taken out of a full
 * completion queue; callbacks must not run there, below the function that queues, so those
 * completions move to `stash`, where the next turn finds them before anything else.
 *
 * A turn runs the callbacks of the completions it found when it began, not of those that come
 * meanwhile, so that what the callbacks queued is handed over in time. A completion leaves the
 * queue before its callback runs: callbacks may do everything, also queue the same operation.
 */
#include "virtio/ring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#define CQ_FACTOR 4u /* completion entries for each submission entry; more wait in the kernel */

struct completion {
	struct ring_op *op;
	int res;
};

struct ring {
	struct io_uring uring;
	struct completion *stash;
	unsigned stash_len, stash_cap;
};

/* Best first. DEFER_TASKRUN (Linux 6.1) runs completions where we wait and nowhere else. */
static const unsigned setups[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_SUBMIT_ALL,
	0,
};

static int create_error(int errnum, struct err *e)
{
	switch (errnum) {
	case ENOSYS:
		return err_set(e, -ENOSYS, "cannot make an io_uring: this kernel has none");
	case EPERM:
		return err_set(e, -EPERM,
			"cannot make an io_uring: not allowed (sysctl kernel.io_uring_disabled?)");
	default:
		return err_sys(e, errnum, "cannot make an io_uring");
	}
}

int ring_create(struct ring **ret, unsigned entries, struct err *e)
{
	struct ring *r = calloc(1, sizeof(*r));
	int res = -EINVAL;

	if (!r)
		return create_error(ENOMEM, e);
	for (size_t i = 0; i < ARRAY_SIZE(setups) && res == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = setups[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
			.cq_entries = entries * CQ_FACTOR,
		};

		res = io_uring_queue_init_params(entries, &r->uring, &p);
	}
	if (res < 0) {
		free(r);
		return create_error(-res, e);
	}
	*ret = r;
	return 0;
}

void ring_destroy(struct ring **rp)
{
	struct ring *r = *rp;

	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	free(r->stash);
	free(r);
	*rp = NULL;
}

static bool take_completion(struct ring *r, struct completion *ret)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&r->uring, &cqe))
		return false;
	*ret = (struct completion){io_uring_cqe_get_data(cqe), cqe->res};
	io_uring_cqe_seen(&r->uring, cqe);
	return true;
}

/* Makes room in the completion queue without running a callback. */
static void stash_completions(struct ring *r)
{
	struct completion c;

	while (take_completion(r, &c)) {
		if (r->stash_len == r->stash_cap) {
			r->stash_cap = r->stash_cap ? 2 * r->stash_cap : 64;
			r->stash = realloc(r->stash, r->stash_cap * sizeof(*r->stash));
			must(r->stash);
		}
		r->stash[r->stash_len++] = c;
	}
}

static struct io_uring_sqe *new_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&r->uring))) {
		int res = io_uring_submit(&r->uring);

		must(res >= 0 || res == -EBUSY || res == -EAGAIN || res == -EINTR);
		if (res == -EBUSY)
			stash_completions(r);
	}
	return sqe;
}

/* A submission entry for @op, whose fields the caller has yet to fill. */
static struct io_uring_sqe *start(struct ring *r, struct ring_op *op)
{
	must(!op->busy && op->done);
	op->busy = true;
	return new_sqe(r);
}

static unsigned run_callback(struct completion c)
{
	if (!c.op)
		return 0;
	c.op->busy = false;
	c.op->done(c.op, c.res);
	return 1;
}

static unsigned run_callbacks(struct ring *r)
{
	unsigned count = 0, n = r->stash_len;
	struct completion c;

	for (unsigned i = 0; i < n; i++)
		count += run_callback(r->stash[i]);
	/* Callbacks may have added some behind those. */
	r->stash_len -= n;
	for (unsigned i = 0; i < r->stash_len; i++)
		r->stash[i] = r->stash[n + i];
	n = io_uring_cq_ready(&r->uring);
	while (n-- && take_completion(r, &c))
		count += run_callback(c);
	return count;
}

/* Which results of io_uring_enter are no failure: a signal, or the kernel short of memory. */
static bool passing(int res)
{
	return res >= 0 || res == -EINTR || res == -EAGAIN || res == -EBUSY;
}

int ring_run(struct ring *r)
{
	int res = io_uring_submit_and_wait(&r->uring, r->stash_len ? 0 : 1);

	if (!passing(res))
		return res;
	run_callbacks(r);
	return 0;
}

int ring_poll_once(struct ring *r)
{
	int res = io_uring_submit_and_get_events(&r->uring);

	if (!passing(res))
		return res;
	return (int)run_callbacks(r);
}

/* Last, because some versions of liburing clear user_data in the prep functions. */
static void finish(struct io_uring_sqe *sqe, struct ring_op *op)
{
	io_uring_sqe_set_data(sqe, op);
}

void ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned poll_mask)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_poll_add(sqe, fd, poll_mask);
	finish(sqe, op);
}

void ring_accept(struct ring *r, struct ring_op *op, int fd)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	finish(sqe, op);
}

void ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
	socklen_t len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_connect(sqe, fd, sa, len);
	finish(sqe, op);
}

void ring_read(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_read(sqe, fd, buf, len, (u64)-1); /* -1: where the file stands */
	finish(sqe, op);
}

void ring_write(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_write(sqe, fd, buf, len, (u64)-1);
	finish(sqe, op);
}

void ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_recv(sqe, fd, buf, len, flags);
	finish(sqe, op);
}

void ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_send(sqe, fd, buf, len, flags);
	finish(sqe, op);
}

void ring_recvmsg(struct ring *r, struct ring_op *op, int fd, struct msghdr *msg, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_recvmsg(sqe, fd, msg, (unsigned)flags);
	finish(sqe, op);
}

void ring_sendmsg(struct ring *r, struct ring_op *op, int fd, const struct msghdr *msg, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_sendmsg(sqe, fd, msg, (unsigned)flags);
	finish(sqe, op);
}

void ring_shutdown(struct ring *r, struct ring_op *op, int fd, int how)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_shutdown(sqe, fd, how);
	finish(sqe, op);
}

void ring_timeout(struct ring *r, struct ring_op *op, struct ring_time *ts, u64 ns)
{
	struct io_uring_sqe *sqe = start(r, op);

	_Static_assert(sizeof(*ts) == sizeof(struct __kernel_timespec), "same layout");
	ts->sec = (long long)(ns / 1000000000u);
	ts->nsec = (long long)(ns % 1000000000u);
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)ts, 0, 0);
	finish(sqe, op);
}

void ring_cancel(struct ring *r, struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->busy)
		return;
	sqe = new_sqe(r);
	io_uring_prep_cancel(sqe, op, 0);
	finish(sqe, NULL);
}
