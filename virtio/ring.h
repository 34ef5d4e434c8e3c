/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - the VM's one io_uring: operations with a completion callback.
 *
 * All functions are called by the loop thread (the one that made the ring; do not fork after).
 * An operation is a struct ring_op embedded in whatever owns it; it must stay alive until its
 * callback has run. Callbacks run from ring_run(), never from the function that queued the
 * operation, and may queue more. Submission is batched: everything queued by the callbacks of one
 * turn goes to the kernel in one io_uring_enter together with the wait. A callback must not call
 * ring_run() or ring_poll_once().
 */
#ifndef KELVIN_VIRTIO_RING_H
#define KELVIN_VIRTIO_RING_H

#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

struct ring;

struct ring_op {
	/* @res is the system call's result or a negative errno. The op is free again here. */
	void (*done)(struct ring_op *op, int res);
	bool busy; /* queued or in the kernel; kept by the ring */
};

/* The kernel features in use (SINGLE_ISSUER, DEFER_TASKRUN) are probed, best first. */
int ring_create(struct ring **ret, unsigned entries, struct err *e);
/*
 * Abandons what is in flight. After that only ring_unfix_file(), ring_remove_watch() and
 * ring_destroy() may be called: owners of operations can so be freed between the two. NULL is fine.
 */
void ring_close(struct ring *r);
void ring_destroy(struct ring **r); /* closes it too; NULL is fine */

/*
 * Submits what is queued, waits for at least one completion, runs the callbacks. 0, also when a
 * signal came instead of a completion; -errno when the ring itself failed.
 */
int ring_run(struct ring *r);
/* The same without waiting. Returns how many callbacks ran, or -errno. */
int ring_poll_once(struct ring *r);

/*
 * Only for MSG_DONTWAIT, or a descriptor that is O_NONBLOCK, does an operation end with -EAGAIN;
 * else the ring waits until it can be done.
 */
void ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned poll_mask); /* one-shot */
void ring_accept(struct ring *r, struct ring_op *op, int fd); /* CLOEXEC | NONBLOCK */
void ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
	socklen_t len); /* @sa must stay alive until done */
void ring_read(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len);
void ring_write(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len);
void ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len, int flags);
void ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len, int flags);
/* @msg and what it points to must stay alive until done. */
void ring_recvmsg(struct ring *r, struct ring_op *op, int fd, struct msghdr *msg, int flags);
void ring_sendmsg(struct ring *r, struct ring_op *op, int fd, const struct msghdr *msg, int flags);
/* At @off of a file. @iov (and what it points to) must stay alive until done. @flags: RWF_*. */
void ring_readv(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags);
void ring_writev(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov, unsigned n,
	u64 off, int flags);
/*
 * The same for a descriptor that is O_NONBLOCK and of a driver for which the kernel has no
 * RWF_NOWAIT: the call is made here and now, and the callback hears of it in the next turn. -EAGAIN
 * where it would have to wait, which ring_readv() without flags does.
 */
void ring_readv_at_once(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov,
	unsigned n);
void ring_writev_at_once(struct ring *r, struct ring_op *op, int fd, const struct iovec *iov,
	unsigned n);
void ring_pread(struct ring *r, struct ring_op *op, int fd, void *buf, unsigned len, u64 off);
void ring_pwrite(struct ring *r, struct ring_op *op, int fd, const void *buf, unsigned len,
	u64 off, int flags);
void ring_fdatasync(struct ring *r, struct ring_op *op, int fd);
void ring_fallocate(struct ring *r, struct ring_op *op, int fd, int mode, u64 off, u64 len);
void ring_shutdown(struct ring *r, struct ring_op *op, int fd, int how);
/* Completes with -ETIME after @ns nanoseconds; *@ts is storage that must stay alive until done. */
struct ring_time {
	long long sec;
	long long nsec;
};
void ring_timeout(struct ring *r, struct ring_op *op, struct ring_time *ts, u64 ns);
/* Completes with 0 at once: for what must end in a callback and needs no kernel. */
void ring_nop(struct ring *r, struct ring_op *op);
/* Asks the kernel to end @op; its callback still runs, with -ECANCELED or its result. */
void ring_cancel(struct ring *r, struct ring_op *op);

/*
 * Tells the kernel that @fd will be used again and again, so that it looks it up once. Where the
 * kernel cannot, nothing changes. Undo it before @fd is closed, and with no operation under way.
 */
void ring_fix_file(struct ring *r, int fd);
void ring_unfix_file(struct ring *r, int fd);

/* Something the loop looks at besides completions, as long as it is awake. */
struct ring_watch {
	/* Cheap, called often. Does the work it finds; true if there was any. */
	bool (*look)(struct ring_watch *w);
	/* The loop is about to sleep: arrange to be woken. True if there was work, which it did. */
	bool (*before_sleep)(struct ring_watch *w);
	LIST_ENTRY(ring_watch) link;
};
void ring_add_watch(struct ring *r, struct ring_watch *w);
void ring_remove_watch(struct ring_watch *w);

/* Something to be done once, at the end of this turn, however often it was asked for. */
struct ring_task {
	void (*run)(struct ring_task *t);
	bool queued;
	STAILQ_ENTRY(ring_task) link;
};
void ring_at_end(struct ring *r, struct ring_task *t);

/*
 * How long the loop goes on looking before it sleeps, at most: the wake-up of a sleeping thread
 * costs more than a short wait. 0: not at all. It only does while that pays, see ring.c.
 */
void ring_set_poll(struct ring *r, u64 max_ns);

struct ring_stats {
	u64 turns, sleeps;
	u64 polls, poll_hits; /* times the loop looked before sleeping, and found something */
	u64 poll_ns;          /* spent looking */
	unsigned setup_flags; /* IORING_SETUP_* in use */
	bool fixed_files;
	bool restricted; /* to the operations above; else the kernel cannot */
};
void ring_stats(const struct ring *r, struct ring_stats *ret);
/* How it was set up, for people: "restricted, single-issuer, defer-taskrun, taskrun-flag". */
void ring_describe(const struct ring *r, char *out, size_t cap);

#endif
