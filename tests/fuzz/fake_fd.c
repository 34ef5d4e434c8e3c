/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_fd.c - descriptors, the clock and the C library calls of the fake host. See fake_host.h.
 *
 * The linker sends each call of a wrapped function here (--wrap), also those of the fuzzer's own
 * runtime; what is not about a descriptor of ours goes on to the real one.
 */
#include "tests/fuzz/fake_host.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define START_NS       1000000000ull
#define LOOK_NS        1000u
#define WAIT_TURNS_MAX 10000u

int __real_close(int fd);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
int __real_shutdown(int fd, int how);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __real_write(int fd, const void *buf, size_t len);
int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __real_ioctl(int fd, unsigned long request, ...);
int __real_sched_yield(void);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
void *__real_malloc(size_t len);
void *__real_calloc(size_t n, size_t len);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);

int __wrap_socket(int domain, int type, int protocol);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_close(int fd);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int __wrap_shutdown(int fd, int how);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_sched_yield(void);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t n, size_t len);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);

void (*fh_sink)(struct fh_file *f, u64 pos, const u8 *data, size_t len);
void (*fh_while_waiting)(void);
int fh_connect_now;

static struct fh_file files[FH_FDS];
static unsigned files_top; /* none at or above it was used since the reset */
static unsigned open_count;
static u64 now_ns;         /* 0: the fake host is not in use, and the clock is the real one */
static struct {
	bool armed;
	unsigned skip;
	int res;
} faults[FH_OP_COUNT];
static struct {
	bool armed;
	unsigned skip;
} alloc_fault;
static unsigned faults_hit;
static unsigned turns;     /* taken while something waited, since the reset */

void fh_reset(void)
{
	memset(files, 0, files_top * sizeof(files[0]));
	fh_fault_none();
	files_top = open_count = faults_hit = turns = 0;
	fh_connect_now = 0;
	now_ns = START_NS;
	fh_uring_reset();
}

unsigned fh_open_count(void)
{
	return open_count;
}

static bool is_ours(int fd)
{
	return fd >= FH_FD_FIRST && fd < FH_FD_FIRST + (int)FH_FDS;
}

bool fh_is_open(int fd)
{
	return is_ours(fd) && files[fd - FH_FD_FIRST].ops;
}

struct fh_file *fh_file(int fd)
{
	must(is_ours(fd));
	must(files[fd - FH_FD_FIRST].ops);
	return &files[fd - FH_FD_FIRST];
}

/* The lowest free number, as POSIX has it. */
struct fh_file *fh_open(const struct fh_ops *ops)
{
	unsigned i = 0;

	while (i < FH_FDS && files[i].ops)
		i++;
	if (i == FH_FDS)
		return NULL;
	if (i == files_top)
		files_top++;
	files[i] = (struct fh_file){.fd = FH_FD_FIRST + (int)i, .ops = ops, .first_client = -1};
	files[i].s.next = -1;
	open_count++;
	return &files[i];
}

/* Failures that were ordered. */

void fh_fault(enum fh_op kind, unsigned skip, int res)
{
	faults[kind].armed = true;
	faults[kind].skip = skip;
	faults[kind].res = res;
}

bool fh_fault_due(enum fh_op kind, int *ret_res)
{
	if (!faults[kind].armed || faults[kind].skip--)
		return false;
	faults[kind].armed = false;
	faults_hit++;
	*ret_res = faults[kind].res;
	return true;
}

void fh_fault_alloc(unsigned skip)
{
	alloc_fault.armed = true;
	alloc_fault.skip = skip;
}

void fh_fault_none(void)
{
	memset(faults, 0, sizeof(faults));
	alloc_fault.armed = false;
}

unsigned fh_faults_hit(void)
{
	return faults_hit;
}

static bool alloc_fails(void)
{
	if (!alloc_fault.armed || alloc_fault.skip--)
		return false;
	alloc_fault.armed = false;
	faults_hit++;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t len)
{
	return alloc_fails() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t n, size_t len)
{
	return alloc_fails() ? NULL : __real_calloc(n, len);
}

/* Time. */

u64 fh_now_ns(void)
{
	return now_ns;
}

void fh_sleep(u64 ns)
{
	now_ns += ns;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	if (!now_ns) /* else all clocks show the same */
		return __real_clock_gettime(clock, ts);
	now_ns += LOOK_NS;
	*ts = (struct timespec){(time_t)(now_ns / 1000000000u), (long)(now_ns % 1000000000u)};
	return 0;
}

int __wrap_sched_yield(void)
{
	if (!now_ns)
		return __real_sched_yield();
	now_ns += LOOK_NS;
	return 0;
}

/*
 * A vCPU thread waits for the loop. There is one thread only, so the loop's work is done here, in
 * place of the sleep; it must come to an end.
 */
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{

	if (!fh_while_waiting)
		return __real_pthread_cond_wait(c, m);
	must(turns++ < WAIT_TURNS_MAX);
	pthread_mutex_unlock(m);
	fh_while_waiting();
	pthread_mutex_lock(m);
	return 0;
}

/* Event counters. */

static int event_in(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off, unsigned flags)
{
	must(n == 1 && iov->iov_len >= sizeof(f->count));
	if (!f->count)
		return -EAGAIN;
	memcpy(iov->iov_base, &f->count, sizeof(f->count));
	f->count = 0;
	return sizeof(f->count);
}

static int event_out(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off)
{
	u64 add;

	must(n == 1 && iov->iov_len == sizeof(add));
	memcpy(&add, iov->iov_base, sizeof(add));
	must(!__builtin_add_overflow(f->count, add, &f->count));
	return sizeof(add);
}

static unsigned event_poll(struct fh_file *f)
{
	return POLLOUT | (f->count ? POLLIN : 0u);
}

static const struct fh_ops event_ops = {.in = event_in, .out = event_out, .poll = event_poll};

/* Streams. */

/* Fills @len bytes at @dst with what the peer wrote, from byte @pos on. */
static void stream_bytes(const struct fh_stream *s, u64 pos, u8 *dst, size_t len)
{
	for (size_t i = 0; i < len; i++, pos++)
		dst[i] = pos < s->line_len ? (u8)s->line[pos] : fh_byte(pos - s->line_len);
}

static int stream_in(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off,
	unsigned flags)
{
	struct fh_stream *s = &f->s;
	u64 pos = s->taken;

	if (s->shut_rd)
		return 0;
	if (pos == s->wrote && !s->peer_shut)
		return -EAGAIN;
	for (unsigned i = 0; i < n && pos < s->wrote; i++) {
		u64 len = s->wrote - pos < iov[i].iov_len ? s->wrote - pos : iov[i].iov_len;

		stream_bytes(s, pos, iov[i].iov_base, len);
		pos += len;
	}
	off = pos - s->taken;
	if (!(flags & MSG_PEEK))
		s->taken = pos;
	return (int)off;
}

static int stream_out(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off)
{
	struct fh_stream *s = &f->s;
	u64 begin = s->got;

	if (s->peer_gone || s->shut_wr)
		return -EPIPE;
	if (!s->room)
		return -EAGAIN;
	for (unsigned i = 0; i < n && s->room; i++) {
		u64 len = s->room < iov[i].iov_len ? s->room : iov[i].iov_len;

		if (fh_sink)
			fh_sink(f, s->got, iov[i].iov_base, len);
		s->got += len;
		s->room -= len;
	}
	return (int)(s->got - begin);
}

static unsigned stream_poll(struct fh_file *f)
{
	const struct fh_stream *s = &f->s;
	unsigned is = 0;

	if (s->wrote > s->taken || s->peer_shut || s->shut_rd)
		is |= POLLIN;
	if (s->peer_shut || s->shut_rd)
		is |= POLLRDHUP;
	if (s->room || s->peer_gone || s->shut_wr)
		is |= POLLOUT;
	if (s->peer_gone || (s->peer_shut && s->shut_wr))
		is |= POLLHUP;
	return is;
}

static const struct fh_ops stream_ops = {.in = stream_in, .out = stream_out, .poll = stream_poll};

void fh_each_stream(void (*fn)(struct fh_file *f, void *ctx), void *ctx)
{
	for (unsigned i = 0; i < files_top; i++) {
		if (files[i].ops == &stream_ops)
			fn(&files[i], ctx);
	}
}

static unsigned listener_poll(struct fh_file *f)
{
	return f->first_client >= 0 ? POLLIN : 0;
}

static const struct fh_ops listener_ops = {.poll = listener_poll};

int fh_listener(void)
{
	return fh_open(&listener_ops)->fd;
}

int fh_client(int listener)
{
	struct fh_file *l = fh_file(listener), *f = fh_open(&stream_ops);
	int *at = &l->first_client;

	if (!f)
		return -1;
	f->s.host_made = true;
	while (*at >= 0)
		at = &fh_file(*at)->s.next;
	*at = f->fd;
	return f->fd;
}

void fh_connect_result(int res)
{
	fh_connect_now = res;
}

/* The C library. */

int __wrap_socket(int domain, int type, int protocol)
{
	struct fh_file *f;
	int res;

	must(now_ns && domain == AF_UNIX && (type & 0xff) == SOCK_STREAM && type & SOCK_CLOEXEC);
	f = fh_fault_due(FH_SOCKET, &res) ? NULL : fh_open(&stream_ops);
	if (!f) {
		errno = EMFILE;
		return -1;
	}
	f->nonblock = type & SOCK_NONBLOCK;
	return f->fd;
}

int __wrap_eventfd(unsigned count, int flags)
{
	struct fh_file *f = fh_open(&event_ops);

	must(f && flags & EFD_CLOEXEC);
	f->count = count;
	f->nonblock = flags & EFD_NONBLOCK;
	return f->fd;
}

int __wrap_close(int fd)
{
	struct fh_file *f;
	int next;

	if (!is_ours(fd))
		return __real_close(fd);
	f = fh_file(fd);
	must(!f->pending && !f->fixed);
	/* Those who were not accepted go with their listener. */
	for (int i = f->first_client; i >= 0; i = next) {
		next = fh_file(i)->s.next;
		fh_file(i)->ops = NULL;
		open_count--;
	}
	f->ops = NULL;
	open_count--;
	return 0;
}

/* Negative results become -1 and errno. */
static ssize_t libc_result(int res)
{
	if (res >= 0)
		return res;
	errno = -res;
	return -1;
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	struct iovec iov = {buf, len};
	int res;

	if (!is_ours(fd))
		return __real_read(fd, buf, len);
	res = fh_file(fd)->ops->in(fh_file(fd), &iov, 1, (u64)-1, 0);
	must(res != -EAGAIN || fh_file(fd)->nonblock); /* there is nobody who would end the wait */
	return libc_result(res);
}

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	struct iovec iov = {(void *)buf, len};

	if (!is_ours(fd))
		return __real_write(fd, buf, len);
	return libc_result(fh_file(fd)->ops->out(fh_file(fd), &iov, 1, (u64)-1));
}

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
	must(flags & MSG_NOSIGNAL);
	return is_ours(fd) ? __wrap_write(fd, buf, len) : __real_send(fd, buf, len, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct fh_file *f = is_ours(fd) ? fh_file(fd) : NULL;

	must(flags & MSG_NOSIGNAL);
	if (!f)
		return __real_sendmsg(fd, msg, flags);
	must(f->nonblock || flags & MSG_DONTWAIT);
	return libc_result(f->ops->out(f, msg->msg_iov, (unsigned)msg->msg_iovlen, (u64)-1));
}

int __wrap_shutdown(int fd, int how)
{
	if (!is_ours(fd))
		return __real_shutdown(fd, how);
	fh_file(fd)->s.shut_rd |= how != SHUT_WR;
	fh_file(fd)->s.shut_wr |= how != SHUT_RD;
	return 0;
}

int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
	unsigned is;

	if (n != 1 || !is_ours(p->fd))
		return __real_poll(p, n, timeout);
	must(!timeout);
	is = fh_file(p->fd)->ops->poll(fh_file(p->fd));
	p->revents = (short)(is & ((unsigned)p->events | POLLHUP | POLLERR));
	return p->revents != 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int res;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!is_ours(fd))
		return __real_ioctl(fd, request, arg);
	if (fh_fault_due(FH_IOCTL, &res))
		return (int)libc_result(res);
	if (!fh_file(fd)->ops->ioctl)
		return (int)libc_result(-ENOTTY);
	return (int)libc_result(fh_file(fd)->ops->ioctl(fh_file(fd), request, arg));
}
