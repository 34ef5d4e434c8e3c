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
 * completions move to `stash`, where the next turn finds them before anything else. There it finds
 * what was done at once, without the kernel's queues, too.
 *
 * A turn runs the callbacks of the completions it found when it began, not of those that come
 * meanwhile, so that what the callbacks queued is handed over in time. A completion leaves the
 * queue before its callback runs: callbacks may do everything, also queue the same operation. Last
 * come the turn's tasks: what is done once for many completions, as an interrupt.
 *
 * Sleeping. Before it sleeps the loop looks for a while, if that pays (spin.h): at the completion
 * queue and at what is watched (the guest's rings), by loads from memory alone.
 *
 * A busy loop, which has completions in each turn, looks once a turn, so that what is watched does
 * not starve; and before the tasks, so that those see to what was found as well.
 *
 * before_sleep() of the watches asks to be woken (the guest is told to kick). It comes after what
 * was queued was handed over and did not complete at once, as reads from the page cache do: a busy
 * loop never asks for kicks.
 */
#include "virtio/ring.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>

#include "monitor/base/spin.h"

#define FIXED_MAX 128u  /* descriptors that the kernel keeps looked up */
#define FD_MAX    4096u /* those below can be among them */
#define CQ_FACTOR 4u /* completion entries for each submission entry; more wait in the kernel */

struct completion {
	struct ring_op *op;
	int res;
};

struct ring {
	struct io_uring uring;
	struct completion *stash;
	unsigned stash_len, stash_cap;
	LIST_HEAD(, ring_watch) watches;
	STAILQ_HEAD(, ring_task) tasks;
	struct spin spin;
	struct ring_stats stats;
	bool closed;
	u8 slot_of[FD_MAX]; /* of the fixed files + 1; 0: none */
	u8 slot_used[FIXED_MAX];
};

/*
 * Best first. DEFER_TASKRUN (Linux 6.1) runs completions where we wait and nowhere else. A ring
 * that begins disabled (5.10) can be restricted.
 */
static const unsigned setups[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
		IORING_SETUP_R_DISABLED,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
	IORING_SETUP_R_DISABLED,
	0,
};

/* What the functions below queue, and nothing else. */
static const u8 opcodes[] = {
	IORING_OP_NOP,
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_FSYNC,
	IORING_OP_POLL_ADD,
	IORING_OP_SENDMSG,
	IORING_OP_RECVMSG,
	IORING_OP_TIMEOUT,
	IORING_OP_ACCEPT,
	IORING_OP_ASYNC_CANCEL,
	IORING_OP_CONNECT,
	IORING_OP_FALLOCATE,
	IORING_OP_READ,
	IORING_OP_WRITE,
	IORING_OP_SEND,
	IORING_OP_RECV,
	IORING_OP_SHUTDOWN,
};

/*
 * From now on the kernel refuses every other operation, and all that could be registered but
 * descriptors: system calls by way of the ring are not seen by the process's filters. False where
 * the kernel is too old.
 */
static bool restrict_ring(struct ring *r)
{
	struct io_uring_restriction res[ARRAY_SIZE(opcodes) + 2] = {
		{.opcode = IORING_RESTRICTION_REGISTER_OP,
			.register_op = IORING_REGISTER_FILES_UPDATE},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(opcodes); i++)
		res[i + 2] = (struct io_uring_restriction){
			.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = opcodes[i]};
	return !io_uring_register_restrictions(&r->uring, res, ARRAY_SIZE(res));
}

/* What has to be done before anything is queued, and cannot be done any more after it. */
static int enable(struct ring *r)
{
	r->stats.fixed_files = !io_uring_register_files_sparse(&r->uring, FIXED_MAX);
	if (!(r->uring.flags & IORING_SETUP_R_DISABLED))
		return 0;
	r->stats.restricted = restrict_ring(r);
	return io_uring_enable_rings(&r->uring);
}

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
	res = enable(r);
	if (res < 0) {
		io_uring_queue_exit(&r->uring);
		free(r);
		return create_error(-res, e);
	}
	LIST_INIT(&r->watches);
	STAILQ_INIT(&r->tasks);
	r->stats.setup_flags = r->uring.flags & ~(IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE);
	*ret = r;
	return 0;
}

void ring_close(struct ring *r)
{
	if (r && !r->closed)
		io_uring_queue_exit(&r->uring);
	if (r)
		r->closed = true;
}

void ring_destroy(struct ring **rp)
{
	struct ring *r = *rp;

	if (!r)
		return;
	while (!LIST_EMPTY(&r->watches))
		ring_remove_watch(LIST_FIRST(&r->watches));
	ring_close(r);
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

static void stash(struct ring *r, struct completion c)
{
	if (r->stash_len == r->stash_cap) {
		r->stash_cap = r->stash_cap ? 2 * r->stash_cap : 64;
		r->stash = realloc(r->stash, r->stash_cap * sizeof(*r->stash));
		must(r->stash);
	}
	r->stash[r->stash_len++] = c;
}

/* Makes room in the completion queue without running a callback. */
static void stash_completions(struct ring *r)
{
	struct completion c;

	while (take_completion(r, &c))
		stash(r, c);
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

static void run_tasks(struct ring *r)
{
	struct ring_task *t;

	while ((t = STAILQ_FIRST(&r->tasks))) {
		STAILQ_REMOVE_HEAD(&r->tasks, link);
		t->queued = false;
		t->run(t);
	}
}

static bool has_completions(const struct ring *r)
{
	return r->stash_len || io_uring_cq_ready(&r->uring);
}

/* Whether the kernel has completions that it will post when asked for them. */
static bool has_task_work(const struct ring *r)
{
	return __atomic_load_n(r->uring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN;
}

static bool look_at_watches(struct ring *r)
{
	struct ring_watch *w;
	bool found = false;

	LIST_FOREACH (w, &r->watches, link)
		found |= w->look(w);
	return found;
}

static bool ask_for_wakeup(struct ring *r)
{
	struct ring_watch *w;
	bool found = false;

	LIST_FOREACH (w, &r->watches, link)
		found |= w->before_sleep(w);
	return found;
}

/* Looks until there is something to do; false where the window passed in vain. */
static bool poll_window(struct ring *r)
{
	bool found;

	if (!spin_begin(&r->spin))
		return false;
	r->stats.polls++;
	do {
		found = look_at_watches(r) || has_completions(r) || has_task_work(r);
	} while (!found && spin_more(&r->spin));
	r->stats.poll_hits += found;
	r->stats.poll_ns += r->spin.last_ns - r->spin.begin_ns;
	return found;
}

/* Sleeps until there is a completion. */
static int sleep_on(struct ring *r)
{
	u64 begin_ns = monotonic_ns();
	int res = io_uring_submit_and_wait(&r->uring, 1);

	r->stats.sleeps++;
	spin_slept(&r->spin, monotonic_ns() - begin_ns);
	return res;
}

/* One turn, up to its tasks. syscalls[L]: io_uring_enter */
static int turn(struct ring *r, bool may_sleep)
{
	int res = 0;

	if (io_uring_sq_ready(&r->uring) ||
		(!has_completions(r) && (has_task_work(r) || !may_sleep)))
		res = io_uring_submit_and_get_events(&r->uring);
	if (passing(res) && !has_completions(r)) {
		if (may_sleep && poll_window(r)) {
			/* What a watch found was done; completions are for now. */
			if (!has_completions(r) && has_task_work(r))
				res = io_uring_get_events(&r->uring);
		} else if (!ask_for_wakeup(r) && may_sleep) {
			res = sleep_on(r);
		}
	}
	if (!passing(res))
		return res;
	res = (int)run_callbacks(r);
	if (res)
		look_at_watches(r);
	run_tasks(r);
	return res;
}

int ring_run(struct ring *r)
{
	int res;

	r->stats.turns++;
	res = turn(r, true);
	return res < 0 ? res : 0;
}

int ring_poll_once(struct ring *r)
{
	return turn(r, false);
}

void ring_add_watch(struct ring *r, struct ring_watch *w)
{
	LIST_INSERT_HEAD(&r->watches, w, link);
}

void ring_remove_watch(struct ring_watch *w)
{
	if (w->link.le_prev) /* NULL: the ring is gone */
		LIST_REMOVE(w, link);
	w->link.le_prev = NULL;
}

void ring_at_end(struct ring *r, struct ring_task *t)
{
	if (!t->queued)
		STAILQ_INSERT_TAIL(&r->tasks, t, link);
	t->queued = true;
}

void ring_set_poll(struct ring *r, u64 max_ns)
{
	r->spin = (struct spin){.max_ns = max_ns};
}

void ring_stats(const struct ring *r, struct ring_stats *ret)
{
	*ret = r->stats;
}

void ring_describe(const struct ring *r, char *out, size_t cap)
{
	static const struct {
		unsigned flag;
		const char *name;
	} t[] = {
		{IORING_SETUP_SINGLE_ISSUER, "single-issuer"},
		{IORING_SETUP_DEFER_TASKRUN, "defer-taskrun"},
		{IORING_SETUP_COOP_TASKRUN, "coop-taskrun"},
		{IORING_SETUP_TASKRUN_FLAG, "taskrun-flag"},
		{IORING_SETUP_SUBMIT_ALL, "submit-all"},
	};
	size_t at;

	at = (size_t)snprintf(out, cap, r->stats.restricted ? "restricted" : "unrestricted");
	for (size_t i = 0; i < ARRAY_SIZE(t) && at < cap; i++)
		if (r->stats.setup_flags & t[i].flag)
			at += (size_t)snprintf(out + at, cap - at, ", %s", t[i].name);
}

void ring_fix_file(struct ring *r, int fd)
{
	unsigned slot = 0;

	if (!r->stats.fixed_files || fd < 0 || fd >= (int)FD_MAX || r->slot_of[fd])
		return;
	while (slot < FIXED_MAX && r->slot_used[slot])
		slot++;
	if (slot == FIXED_MAX)
		return;
	/* syscalls[L]: io_uring_register(IORING_REGISTER_FILES_UPDATE) */
	if (io_uring_register_files_update(&r->uring, slot, &fd, 1) != 1)
		return;
	r->slot_used[slot] = 1;
	r->slot_of[fd] = (u8)(slot + 1);
}

void ring_unfix_file(struct ring *r, int fd)
{
	unsigned slot;
	int none = -1;

	if (fd < 0 || fd >= (int)FD_MAX || !r->slot_of[fd])
		return;
	slot = r->slot_of[fd] - 1u;
	must(r->closed || io_uring_register_files_update(&r->uring, slot, &none, 1) == 1);
	r->slot_used[slot] = 0;
	r->slot_of[fd] = 0;
}

/* Last, because some versions of liburing clear fields in the prep functions. */
static void finish(const struct ring *r, struct io_uring_sqe *sqe, struct ring_op *op)
{
	io_uring_sqe_set_data(sqe, op);
	if (op && sqe->fd >= 0 && sqe->fd < (int)FD_MAX && r->slot_of[sqe->fd] &&
		sqe->opcode != IORING_OP_TIMEOUT) {
		sqe->fd = r->slot_of[sqe->fd] - 1;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
}

void ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned poll_mask)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_poll_add(sqe, fd, poll_mask);
	finish(r, sqe, op);
}

void ring_accept(struct ring *r, struct ring_op *op, int fd)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	finish(r, sqe, op);
}

void ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
	socklen_t len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_connect(sqe, fd, sa, len);
	finish(r, sqe, op);
}

void ring_read(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_read(sqe, fd, buf, len, (u64)-1); /* -1: where the file stands */
	finish(r, sqe, op);
}

void ring_write(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_write(sqe, fd, buf, len, (u64)-1);
	finish(r, sqe, op);
}

void ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_recv(sqe, fd, buf, len, flags);
	finish(r, sqe, op);
}

void ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_send(sqe, fd, buf, len, flags);
	finish(r, sqe, op);
}

void ring_recvmsg(struct ring *r, struct ring_op *op, int fd, struct msghdr *msg, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_recvmsg(sqe, fd, msg, (unsigned)flags);
	finish(r, sqe, op);
}

void ring_sendmsg(struct ring *r, struct ring_op *op, int fd, const struct msghdr *msg, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_sendmsg(sqe, fd, msg, (unsigned)flags);
	finish(r, sqe, op);
}

void ring_readv(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_readv2(sqe, fd, iov, n, off, flags);
	finish(r, sqe, op);
}

void ring_writev(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_writev2(sqe, fd, iov, n, off, flags);
	finish(r, sqe, op);
}

/*
 * Ends an operation that needed no submission; @res as a system call gives it.
 * syscalls[L]: readv, writev
 */
static void end_at_once(struct ring *r, struct ring_op *op, ssize_t res)
{
	must(!op->busy && op->done);
	op->busy = true;
	stash(r, (struct completion){op, res < 0 ? -errno : (int)res});
}

void ring_readv_at_once(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov,
	unsigned n)
{
	end_at_once(r, op, readv(fd, iov, (int)n));
}

void ring_writev_at_once(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov,
	unsigned n)
{
	end_at_once(r, op, writev(fd, iov, (int)n));
}

void ring_pread(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len, u64 off)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_read(sqe, fd, buf, len, off);
	finish(r, sqe, op);
}

void ring_pwrite(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len,
	u64 off, int flags)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_write(sqe, fd, buf, len, off);
	sqe->rw_flags = flags;
	finish(r, sqe, op);
}

void ring_fdatasync(struct ring *r, struct ring_op *op, int fd)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	finish(r, sqe, op);
}

void ring_fallocate(struct ring *r, struct ring_op *op, int fd, int mode, u64 off, u64 len)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_fallocate(sqe, fd, mode, (off_t)off, (off_t)len);
	finish(r, sqe, op);
}

void ring_shutdown(struct ring *r, struct ring_op *op, int fd, int how)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_shutdown(sqe, fd, how);
	finish(r, sqe, op);
}

void ring_timeout(struct ring *r, struct ring_op *op, struct ring_time *ts, u64 ns)
{
	struct io_uring_sqe *sqe = start(r, op);

	_Static_assert(sizeof(*ts) == sizeof(struct __kernel_timespec), "same layout");
	ts->sec = (long long)(ns / 1000000000u);
	ts->nsec = (long long)(ns % 1000000000u);
	io_uring_prep_timeout(sqe, (struct __kernel_timespec *)ts, 0, 0);
	finish(r, sqe, op);
}

void ring_nop(struct ring *r, struct ring_op *op)
{
	struct io_uring_sqe *sqe = start(r, op);

	io_uring_prep_nop(sqe);
	finish(r, sqe, op);
}

void ring_cancel(struct ring *r, struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->busy)
		return;
	sqe = new_sqe(r);
	io_uring_prep_cancel(sqe, op, 0);
	finish(r, sqe, NULL);
}
