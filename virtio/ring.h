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
void ring_destroy(struct ring **r); /* NULL is fine; ops in flight are abandoned */

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
void ring_shutdown(struct ring *r, struct ring_op *op, int fd, int how);
/* Completes with -ETIME after @ns nanoseconds; *@ts is storage that must stay alive until done. */
struct ring_time {
	long long sec;
	long long nsec;
};
void ring_timeout(struct ring *r, struct ring_op *op, struct ring_time *ts, u64 ns);
/* Asks the kernel to end @op; its callback still runs, with -ECANCELED or its result. */
void ring_cancel(struct ring *r, struct ring_op *op);

#endif
