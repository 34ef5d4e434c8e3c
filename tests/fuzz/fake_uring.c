/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_uring.c - io_uring without a kernel. See fake_host.h.
 *
 * Replaces the functions of liburing that virtio/ring.c calls; those that are inline in its header
 * work on the arrays we hand them. An operation that can be done is done when it is submitted, as
 * the kernel does with sockets that are ready, and its completion is posted in that order. Another
 * one is pending: each entry looks through those, oldest first. An operation of a kind that is not
 * here ends the program: add it.
 *
 * There is one ring at a time.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/fuzz/fake_host.h"

#define SQ_MAX      4096u
#define CQ_MAX      16384u
#define PENDING_MAX 8192u
#define FIXED_MAX   1024u

int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
	unsigned wait, sigset_t *mask);

struct pending {
	struct io_uring_sqe sqe;
	u64 due_ns; /* of a timeout */
	bool held;  /* until fh_let_go() */
};

static struct {
	bool alive, old;
	unsigned sq_head, sq_tail, sq_flags, sq_dropped, sq_entries, sq_mask;
	unsigned cq_head, cq_tail, cq_flags, cq_overflow, cq_entries, cq_mask;
	struct io_uring_sqe sqe[SQ_MAX];
	struct io_uring_cqe cqe[CQ_MAX];
	struct pending pending[PENDING_MAX];
	unsigned pending_count;
	struct io_uring_cqe later[CQ_MAX]; /* there was no room for them */
	unsigned later_count;
	int fixed[FIXED_MAX];
	unsigned fixed_count;
	u64 activity;
} k;

void fh_uring_reset(void)
{
	k.alive = k.old = false;
	k.pending_count = k.later_count = 0;
}

void fh_uring_old(bool on)
{
	k.old = on;
}

static unsigned pow2(unsigned n, unsigned most)
{
	unsigned p = 1;

	while (p < n && p < most)
		p *= 2;
	return p;
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
	must(!k.alive);
	if (k.old && p->flags & IORING_SETUP_R_DISABLED)
		return -EINVAL;
	k.alive = true;
	k.sq_head = k.sq_tail = k.sq_flags = k.sq_dropped = 0;
	k.cq_head = k.cq_tail = k.cq_flags = k.cq_overflow = 0;
	k.pending_count = k.later_count = 0;
	k.sq_entries = pow2(entries, SQ_MAX);
	k.cq_entries = pow2(p->flags & IORING_SETUP_CQSIZE ? p->cq_entries : 2 * entries, CQ_MAX);
	k.sq_mask = k.sq_entries - 1;
	k.cq_mask = k.cq_entries - 1;
	memset(ring, 0, sizeof(*ring));
	ring->sq = (struct io_uring_sq){.khead = &k.sq_head, .ktail = &k.sq_tail,
		.kring_mask = &k.sq_mask, .kring_entries = &k.sq_entries, .kflags = &k.sq_flags,
		.kdropped = &k.sq_dropped, .sqes = k.sqe, .ring_mask = k.sq_mask,
		.ring_entries = k.sq_entries};
	ring->cq = (struct io_uring_cq){.khead = &k.cq_head, .ktail = &k.cq_tail,
		.kring_mask = &k.cq_mask, .kring_entries = &k.cq_entries, .kflags = &k.cq_flags,
		.koverflow = &k.cq_overflow, .cqes = k.cqe, .ring_mask = k.cq_mask,
		.ring_entries = k.cq_entries};
	k.fixed_count = 0;
	ring->flags = p->flags;
	ring->features = p->features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
	ring->ring_fd = ring->enter_ring_fd = -1;
	return 0;
}

void io_uring_queue_exit(struct io_uring *ring)
{
	must(k.alive);
	for (unsigned i = 0; i < k.pending_count; i++) {
		if (k.pending[i].sqe.opcode != IORING_OP_TIMEOUT)
			fh_file(k.pending[i].sqe.fd)->pending--;
	}
	for (unsigned i = 0; i < k.fixed_count; i++) {
		if (k.fixed[i] >= 0)
			fh_file(k.fixed[i])->fixed = false;
	}
	k.alive = false;
	k.pending_count = k.later_count = 0;
}

/* Registered descriptors. */

int io_uring_register_files_sparse(struct io_uring *ring, unsigned n)
{
	must(k.alive && !k.fixed_count && n <= FIXED_MAX);
	k.fixed_count = n;
	for (unsigned i = 0; i < n; i++)
		k.fixed[i] = -1;
	return 0;
}

int io_uring_register_restrictions(struct io_uring *ring, struct io_uring_restriction *res,
	unsigned n)
{
	must(k.alive && ring->flags & IORING_SETUP_R_DISABLED);
	return 0;
}

int io_uring_enable_rings(struct io_uring *ring)
{
	must(k.alive && ring->flags & IORING_SETUP_R_DISABLED);
	return 0;
}

int io_uring_register_files_update(struct io_uring *ring, unsigned off, const int *fds, unsigned n)
{
	must(off < k.fixed_count && n == 1 && (k.fixed[off] < 0) == (*fds >= 0));
	fh_file(*fds < 0 ? k.fixed[off] : *fds)->fixed = *fds >= 0;
	k.fixed[off] = *fds;
	return 1;
}

u64 fh_uring_activity(void)
{
	return k.activity;
}

/* Completions. */

static void flush_later(void)
{
	unsigned n = 0;

	while (n < k.later_count && k.cq_tail - k.cq_head < k.cq_entries)
		k.cqe[k.cq_tail++ & k.cq_mask] = k.later[n++];
	k.later_count -= n;
	k.activity += n;
	memmove(k.later, k.later + n, k.later_count * sizeof(k.later[0]));
}

static void complete(u64 user_data, int res)
{
	must(k.later_count < CQ_MAX);
	k.activity++;
	k.later[k.later_count++] = (struct io_uring_cqe){.user_data = user_data, .res = res};
	flush_later();
}

/* Operations: each gives a result, or FH_WAIT. */

static enum fh_op kind_of(const struct io_uring_sqe *s)
{
	switch (s->opcode) {
	case IORING_OP_READ:
	case IORING_OP_READV:
	case IORING_OP_RECV:
	case IORING_OP_RECVMSG:
		return FH_IN;
	case IORING_OP_WRITE:
	case IORING_OP_WRITEV:
	case IORING_OP_SEND:
	case IORING_OP_SENDMSG:
		return FH_OUT;
	case IORING_OP_ACCEPT:
		return FH_ACCEPT;
	case IORING_OP_CONNECT:
		return FH_CONNECT;
	case IORING_OP_POLL_ADD:
		return FH_POLL;
	case IORING_OP_SHUTDOWN:
		return FH_SHUTDOWN;
	case IORING_OP_FSYNC:
		return FH_SYNC;
	case IORING_OP_FALLOCATE:
		return FH_ALLOCATE;
	default:
		return FH_OP_COUNT;
	}
}

static int do_poll(const struct io_uring_sqe *s, struct fh_file *f)
{
	unsigned is = f->ops->poll(f) & (s->poll32_events | POLLHUP | POLLERR);

	must(!s->len); /* one shot */
	return is ? (int)is : FH_WAIT;
}

static int do_accept(const struct io_uring_sqe *s, struct fh_file *l)
{
	struct fh_file *f;

	if (l->first_client < 0)
		return l->nonblock ? -EAGAIN : FH_WAIT;
	f = fh_file(l->first_client);
	l->first_client = f->s.next;
	f->s.next = -1;
	f->nonblock = s->accept_flags & SOCK_NONBLOCK;
	return f->fd;
}

static int do_shutdown(const struct io_uring_sqe *s, struct fh_file *f)
{
	f->s.shut_rd |= s->len != SHUT_WR;
	f->s.shut_wr |= s->len != SHUT_RD;
	return f->s.peer_gone ? -ENOTCONN : 0;
}

/* The buffers of a transfer. */
static unsigned buffers(const struct io_uring_sqe *s, struct iovec *one, const struct iovec **iov)
{
	const struct msghdr *m = (const struct msghdr *)(uintptr_t)s->addr;

	switch (s->opcode) {
	case IORING_OP_RECVMSG:
	case IORING_OP_SENDMSG:
		*iov = m->msg_iov;
		return (unsigned)m->msg_iovlen;
	case IORING_OP_READV:
	case IORING_OP_WRITEV:
		*iov = (const struct iovec *)(uintptr_t)s->addr;
		return s->len;
	default:
		*one = (struct iovec){(void *)(uintptr_t)s->addr, s->len};
		*iov = one;
		return 1;
	}
}

/* Makes a transfer short: writes the first @most bytes of @iov to @out. */
static unsigned shorten(const struct iovec *iov, unsigned n, size_t most, struct iovec *out)
{
	unsigned i;

	for (i = 0; i < n && most; i++) {
		out[i] = iov[i];
		if (out[i].iov_len > most)
			out[i].iov_len = most;
		most -= out[i].iov_len;
	}
	return i;
}

/* The descriptors of a recvmsg that brought @res bytes; the kernel closes what does not fit. */
static void hand_over(struct msghdr *m, struct fh_file *f, int res)
{
	static const struct fh_ops file_ops = {0};
	size_t room = m->msg_control && m->msg_controllen > CMSG_LEN(0)
		? (m->msg_controllen - CMSG_LEN(0)) / sizeof(int) : 0;
	size_t n = res > 0 ? f->s.hands_over : 0;
	struct cmsghdr *h = m->msg_control;

	m->msg_flags = n > room ? MSG_CTRUNC : 0;
	m->msg_controllen = 0;
	if (res > 0)
		f->s.hands_over = 0;
	n = n < room ? n : room;
	if (!n)
		return;
	*h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(n * sizeof(int))};
	for (size_t i = 0; i < n; i++)
		memcpy(CMSG_DATA(h) + i * sizeof(int), &fh_open(&file_ops)->fd, sizeof(int));
	m->msg_controllen = h->cmsg_len;
}

static int do_transfer(const struct io_uring_sqe *s, struct fh_file *f, int most)
{
	static struct iovec less[1024];
	bool file = s->opcode == IORING_OP_READ || s->opcode == IORING_OP_READV ||
		s->opcode == IORING_OP_WRITE || s->opcode == IORING_OP_WRITEV;
	unsigned flags = file ? 0 : s->msg_flags;
	const struct iovec *iov;
	struct iovec one;
	unsigned n = buffers(s, &one, &iov);
	int res;

	must(n <= ARRAY_SIZE(less));
	if (most > 0) {
		n = shorten(iov, n, (size_t)most, less);
		iov = less;
	}
	if (kind_of(s) == FH_IN)
		res = f->ops->in(f, iov, n, file ? s->off : (u64)-1, flags);
	else
		res = f->ops->out(f, iov, n, file ? s->off : (u64)-1);
	if (s->opcode == IORING_OP_RECVMSG)
		hand_over((struct msghdr *)(uintptr_t)s->addr, f, res);
	if (res != -EAGAIN || f->nonblock || flags & MSG_DONTWAIT)
		return res;
	return file && s->rw_flags & RWF_NOWAIT ? -EAGAIN : FH_WAIT;
}

static int execute(const struct io_uring_sqe *s)
{
	struct fh_file *f = fh_file(s->fd);
	enum fh_op kind = kind_of(s);
	int most = 0;

	must(kind != FH_OP_COUNT && !s->flags);
	if (fh_fault_due(kind, &most) && most < 0)
		return most;
	switch (kind) {
	case FH_ACCEPT:
		return do_accept(s, f);
	case FH_CONNECT:
		return fh_connect_now;
	case FH_POLL:
		return do_poll(s, f);
	case FH_SHUTDOWN:
		return do_shutdown(s, f);
	case FH_SYNC:
		return f->ops->sync(f);
	case FH_ALLOCATE:
		return f->ops->allocate(f, (int)s->len, s->off, s->addr);
	default:
		return do_transfer(s, f, most);
	}
}

/* Pending operations. */

static void pend(const struct io_uring_sqe *s, u64 due_ns, bool held)
{
	must(k.pending_count < PENDING_MAX);
	k.pending[k.pending_count++] =
		(struct pending){.sqe = *s, .due_ns = due_ns, .held = held};
	if (!due_ns)
		fh_file(s->fd)->pending++;
}

static void unpend(unsigned i, int res)
{
	struct pending p = k.pending[i];

	memmove(&k.pending[i], &k.pending[i + 1],
		(--k.pending_count - i) * sizeof(k.pending[0]));
	if (!p.due_ns)
		fh_file(p.sqe.fd)->pending--;
	complete(p.sqe.user_data, res);
}

static int cancel(u64 user_data)
{
	for (unsigned i = 0; i < k.pending_count; i++) {
		if (k.pending[i].sqe.user_data != user_data)
			continue;
		if (k.pending[i].held) /* it is under way: it ends when it ends */
			return -EALREADY;
		unpend(i, -ECANCELED);
		return 0;
	}
	return -ENOENT;
}

/* Work on files takes its time, if the file says so. */
static bool is_slow(const struct io_uring_sqe *s)
{
	enum fh_op kind = kind_of(s);

	return fh_file(s->fd)->slow &&
		(kind == FH_IN || kind == FH_OUT || kind == FH_SYNC || kind == FH_ALLOCATE);
}

static void submit_one(struct io_uring_sqe *s)
{
	const struct __kernel_timespec *ts;
	int res;

	k.activity++;
	if (s->flags & IOSQE_FIXED_FILE) {
		must((unsigned)s->fd < k.fixed_count && k.fixed[s->fd] >= 0);
		s->fd = k.fixed[s->fd];
		s->flags &= (u8)~IOSQE_FIXED_FILE;
	}
	switch (s->opcode) {
	case IORING_OP_NOP:
		complete(s->user_data, 0);
		return;
	case IORING_OP_ASYNC_CANCEL:
		must(!s->cancel_flags);
		complete(s->user_data, cancel(s->addr));
		return;
	case IORING_OP_TIMEOUT:
		must(!s->timeout_flags && !s->off);
		ts = (const struct __kernel_timespec *)(uintptr_t)s->addr;
		pend(s, fh_now_ns() + (u64)ts->tv_sec * 1000000000u + (u64)ts->tv_nsec, false);
		return;
	default:
		break;
	}
	if (is_slow(s)) {
		pend(s, 0, true);
		return;
	}
	res = execute(s);
	if (res == FH_WAIT)
		pend(s, 0, false);
	else
		complete(s->user_data, res);
}

/* Ends what can be done by now. */
static void progress(void)
{
	for (unsigned i = 0; i < k.pending_count;) {
		struct pending *p = &k.pending[i];
		int res = FH_WAIT;

		if (p->due_ns)
			res = fh_now_ns() >= p->due_ns ? -ETIME : FH_WAIT;
		else if (!p->held)
			res = execute(&p->sqe);
		if (res == FH_WAIT)
			i++;
		else
			unpend(i, res);
	}
}

unsigned fh_held(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k.pending_count; i++)
		n += k.pending[i].held;
	return n;
}

void fh_let_go(unsigned which)
{
	for (unsigned i = 0; i < k.pending_count; i++) {
		if (k.pending[i].held && !which--) {
			int res = execute(&k.pending[i].sqe);

			unpend(i, res == FH_WAIT ? -EAGAIN : res);
			return;
		}
	}
}

/* Entering. */

static int submit_all(struct io_uring *ring)
{
	int n = 0;

	if (k.old && k.later_count)
		return -EBUSY;
	for (; ring->sq.sqe_head != ring->sq.sqe_tail; n++) {
		/* The kernel is done with the entry before it does the operation. */
		struct io_uring_sqe s = k.sqe[ring->sq.sqe_head++ & k.sq_mask];

		k.sq_head = ring->sq.sqe_head;
		submit_one(&s);
	}
	return n;
}

int io_uring_submit(struct io_uring *ring)
{
	return submit_all(ring);
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
	int n = submit_all(ring);

	flush_later();
	progress();
	return n;
}

int io_uring_get_events(struct io_uring *ring)
{
	flush_later();
	progress();
	return 0;
}

/* A sleep that nothing will end is ended by a signal. */
int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
	int n = io_uring_submit_and_get_events(ring);

	return n >= 0 && k.cq_tail - k.cq_head < wait_nr ? -EINTR : n;
}

int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
	unsigned wait, sigset_t *mask)
{
	must(!submit && !wait);
	flush_later();
	*cqe = k.cq_tail == k.cq_head ? NULL : &k.cqe[k.cq_head & k.cq_mask];
	return *cqe ? 0 : -EAGAIN;
}
