/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host.h - a host without a kernel, for fuzzing device models at full speed.
 *
 * The program is linked with our own io_uring functions (fake_uring.c) and with socket(), close(),
 * shutdown(), send(), sendmsg(), eventfd(), read(), write(), poll(), ioctl(), clock_gettime(),
 * sched_yield(), malloc(), calloc() and pthread_cond_wait() wrapped (fake_fd.c). virtio/ring.c and
 * the device models run unchanged on top. What that gives:
 *
 *   - no system calls, so an input costs microseconds;
 *   - no chance: time, order of completions and failures are what the input says, so an input does
 *     the same each time;
 *   - every descriptor is known, so one that is leaked, closed twice or closed while the kernel
 *     has an operation on it ends the program.
 *
 * Descriptors of the fake host begin at FH_FD_FIRST; the wrapped functions leave all others to the
 * real host. One thread. What the code under test may not do is must().
 */
#ifndef KELVIN_TESTS_FAKE_HOST_H
#define KELVIN_TESTS_FAKE_HOST_H

#include <sys/uio.h>

#include "monitor/base/types.h"

#define FH_FD_FIRST 1024 /* no real one is so high, and virtio/ring.c still fixes it */
#define FH_FDS      2048u
/* A result: it cannot be done now, and the operation waits until it can. */
#define FH_WAIT     INT32_MIN

struct fh_file;

/* What a descriptor does; results are those of the system call, or -EAGAIN. */
struct fh_ops {
	/* Bytes to the device: read, recv. @off is -1 for a stream; @flags are MSG_*. */
	int (*in)(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off, unsigned flags);
	/* Bytes from the device: write, send. */
	int (*out)(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off);
	unsigned (*poll)(struct fh_file *f); /* POLL* that hold now */
	int (*ioctl)(struct fh_file *f, unsigned long request, void *arg);
	int (*sync)(struct fh_file *f);
	int (*allocate)(struct fh_file *f, int mode, u64 off, u64 len);
};

/*
 * A unix stream socket of the device; its other end is the test's to play. The peer writes
 * @line first, and then bytes of fh_byte(), so what the device reads can be checked by position.
 */
struct fh_stream {
	const char *line; /* the test's; it must stay */
	u32 line_len;
	u64 wrote;      /* bytes the peer wrote so far, with the line */
	u64 taken;      /* of those, how many the device has read */
	u64 room;       /* bytes the peer would take now */
	u64 got;        /* bytes the device sent */
	u32 hands_over; /* descriptors that go with the next bytes that the device receives */
	bool host_made; /* it came by accept, not by connect */
	bool peer_shut; /* the peer writes no more */
	bool peer_gone; /* the peer has closed */
	bool shut_rd, shut_wr; /* shutdown(2) by the device */
	int next;       /* in a listener's backlog; -1: the last */
	u32 mark;       /* free for the test */
};

struct fh_file {
	int fd;
	const struct fh_ops *ops; /* NULL: not open */
	bool nonblock;
	bool slow;         /* reads and writes wait for fh_let_go() */
	unsigned pending;  /* operations the kernel has on it */
	bool fixed;        /* it is registered with the ring */
	u64 count;         /* an eventfd's */
	int first_client;  /* a listener's backlog; -1: none */
	struct fh_stream s;
	void *ctx;         /* free for the ops */
};

/* Kinds of operations that can be made to fail. */
enum fh_op { FH_IN, FH_OUT, FH_ACCEPT, FH_CONNECT, FH_POLL, FH_SHUTDOWN, FH_SYNC,
	FH_ALLOCATE, FH_SOCKET, FH_IOCTL, FH_OP_COUNT };

/* Closes everything and starts over at second 1. */
void fh_reset(void);
/* How many descriptors are open. */
unsigned fh_open_count(void);
/* A new descriptor with these ops. */
struct fh_file *fh_open(const struct fh_ops *ops);
struct fh_file *fh_file(int fd);
bool fh_is_open(int fd);
/* Calls @fn for each open stream. */
void fh_each_stream(void (*fn)(struct fh_file *f, void *ctx), void *ctx);

int fh_listener(void);
/* A client connects; the device gets the descriptor when it accepts. -1: too many. */
int fh_client(int listener);
/* What connect() will give from now on: 0, an errno, or FH_WAIT until that changes. */
void fh_connect_result(int res);
/* Byte number @pos of any stream. */
static inline u8 fh_byte(u64 pos)
{
	return (u8)(pos % 251);
}
/* Called with what the device sends on a stream; @pos counts its bytes. May be NULL. */
extern void (*fh_sink)(struct fh_file *f, u64 pos, const u8 *data, size_t len);

/* After @skip more operations of @kind, one ends with @res; @res > 0 only makes it short. */
void fh_fault(enum fh_op kind, unsigned skip, int res);
/* The allocation after @skip others fails. */
void fh_fault_alloc(unsigned skip);
/* Operations that failed because of these two. */
unsigned fh_faults_hit(void);

/* Nothing fails any more. */
void fh_fault_none(void);

/* The clock. It also moves a little with each look, so that waits with a limit end. */
u64 fh_now_ns(void);
void fh_sleep(u64 ns);

/* Runs while something waits on a condition variable: what the loop thread would do meanwhile. */
extern void (*fh_while_waiting)(void);

/* fake_uring.c */
void fh_uring_reset(void);
/* io_uring_submit() says EBUSY while completions wait, as old kernels do when they are many. */
void fh_uring_old(bool on);
/* Grows with each operation that is submitted or completed. */
u64 fh_uring_activity(void);
/* How many operations wait for fh_let_go(), and letting go of one of them. */
unsigned fh_held(void);
void fh_let_go(unsigned which);
/* For fake_fd.c: whether a fault is due now. */
bool fh_fault_due(enum fh_op kind, int *ret_res);
extern int fh_connect_now;

#endif
