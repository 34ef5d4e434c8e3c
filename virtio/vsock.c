/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.c - the vsock device: how the transport, the host's listener and the timer drive it.
 *
 * Theory of operation
 *
 * Guest side: three queues, looked at by process() when the driver kicks and by the callbacks of
 * socket operations (vsock_tx.c, vsock_rx.c). Host side: a listening unix socket PATH, whose
 * clients name a guest port, and PATH_p, which is what the guest's connections to port p of the
 * host reach (vsock_conn.c, vsock_host.c). All socket I/O is on the ring.
 *
 * Trust. The guest is hostile, and so may be host clients, but only towards their own connection:
 * a connection is bounded in memory (a fixed struct, and buf_alloc bytes while its host side does
 * not read), connections are bounded in number, and nothing is retried without a pause. Whatever
 * happens to a socket ends that connection at most.
 *
 * One timer serves all deadlines. It is set to the earliest; when it fires, all connections are
 * looked through, which is cheap next to the wake-up. Deadlines that moved away are not worth a
 * system call: the timer then fires once for nothing. With no deadline there is no timer, and an
 * idle device causes no wake-ups at all.
 *
 * Reset. reset() runs on a vCPU thread, where the ring cannot be touched, so it only sets
 * reset_pending. Until the loop has closed the connections of the old life (process()), no queue
 * is looked at. Host clients still waiting for an answer go on waiting, for the new driver.
 *
 * Snapshot. Connections are not saved; saving does not disturb those of the VM that goes on. A
 * restored device tells the guest that they are gone (vsock_rx.c). The port counter is saved, so
 * that a port the guest still remembers is not used again soon.
 */
#include "virtio/vsock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "virtio/vsock_int.h"

#define CID_FIRST 3u
#define CID_ANY   UINT32_MAX
/* "_4294967295" and the NUL follow it. */
#define PATH_LEN_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295"))

static void accept_done(struct ring_op *op, int res);

void vsock_lock(struct vsock *v)
{
	pthread_mutex_lock(&v->dev.lock);
}

void vsock_unlock(struct vsock *v)
{
	/* A driver does not kick while the loop is awake. */
	if (vq_pending(&v->dev.queue[VSOCK_TXQ]))
		vsock_tx_run(v);
	vsock_rx_run(v);
	conn_reap(v);
	pthread_mutex_unlock(&v->dev.lock);
}

/* Host clients come in one by one; see accept_done(). */
static void accept_next(struct vsock *v)
{
	v->accept_op.done = accept_done;
	ring_accept(v->ring, &v->accept_op, v->listen_fd);
}

/* The timer. */

void vsock_timer(struct vsock *v, u64 due_ns)
{
	u64 now_ns;

	if (v->in_timer)
		return;
	if (v->timer_op.busy) {
		/* Too late? Its callback sets it again. */
		if (v->timer_at_ns > due_ns) {
			v->timer_at_ns = 0;
			ring_cancel(v->ring, &v->timer_op);
		}
		return;
	}
	now_ns = monotonic_ns();
	v->timer_at_ns = due_ns;
	ring_timeout(v->ring, &v->timer_op, &v->timer_ts, due_ns > now_ns ? due_ns - now_ns : 0);
}

/* Whether @due_ns has come; else it counts for the next @at_ns. */
static bool is_due(u64 due_ns, u64 now_ns, u64 *at_ns)
{
	if (due_ns && due_ns > now_ns && due_ns < *at_ns)
		*at_ns = due_ns;
	return due_ns && due_ns <= now_ns;
}

static void timer_done(struct ring_op *op, int res)
{
	struct vsock *v = container_of(op, struct vsock, timer_op);
	u64 now_ns = monotonic_ns(), at_ns = UINT64_MAX;
	struct vsock_conn *c, *next;

	vsock_lock(v);
	v->in_timer = true;
	if (is_due(v->accept_due_ns, now_ns, &at_ns)) {
		v->accept_due_ns = 0;
		accept_next(v);
	}
	if (is_due(v->gate_due_ns, now_ns, &at_ns))
		vsock_open_gate(v);
	for (c = TAILQ_FIRST(&v->conns); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->due_ns && c->due_ns <= now_ns)
			conn_timeout(c); /* which may set due_ns again, or kill it */
		is_due(c->due_ns, now_ns, &at_ns);
	}
	v->in_timer = false;
	if (at_ns != UINT64_MAX)
		vsock_timer(v, at_ns);
	vsock_unlock(v);
}

/* Host clients. */

static void accept_polled(struct ring_op *op, int res)
{
	struct vsock *v = container_of(op, struct vsock, accept_op);

	vsock_lock(v);
	accept_next(v);
	vsock_unlock(v);
}

static void accept_done(struct ring_op *op, int res)
{
	struct vsock *v = container_of(op, struct vsock, accept_op);
	struct vsock_conn *c;

	vsock_lock(v);
	switch (res) {
	case -EAGAIN: /* the descriptor we were given does not block */
		v->accept_op.done = accept_polled;
		ring_poll(v->ring, &v->accept_op, v->listen_fd, POLLIN);
		break;
	case -ECONNABORTED:
	case -EINTR:
		accept_next(v);
		break;
	default:
		if (res < 0) { /* out of descriptors or memory: let others give some back */
			v->accept_due_ns = monotonic_ns() + VSOCK_BACKOFF_MAX_NS;
			vsock_timer(v, v->accept_due_ns);
			break;
		}
		c = conn_new(v, res, CONN_LINE);
		if (c)
			conn_accepted(c);
		else
			close(res);
		accept_next(v);
	}
	vsock_unlock(v);
}

/* Virtio. */

static void config_read(struct virtio_dev *d, u32 off, void *dst, u32 len)
{
	const struct virtio_vsock_config cfg = {.guest_cid = vsock_of(d)->cid};

	memcpy(dst, (const u8 *)&cfg + off, len);
}

static void reset(struct virtio_dev *d)
{
	struct vsock *v = vsock_of(d);

	v->reset_pending = true;
	v->rst_count = 0;
	vsock_open_gate(v);
	virtio_schedule(d);
}

/* Closes what a reset left behind. */
static void after_reset(struct vsock *v)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(&v->conns); c; c = next) {
		next = TAILQ_NEXT(c, all);
		conn_after_reset(c);
	}
	TAILQ_FOREACH (c, &v->dead, all)
		conn_forget_rst(c);
	v->reset_pending = false;
}

/* There is a driver: what waited for it need not wait for the timer. */
static void unpark(struct vsock *v)
{
	struct vsock_conn *c, *next;

	v->want_driver = false;
	for (c = TAILQ_FIRST(&v->conns); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->state == CONN_PARKED)
			conn_request(c);
	}
}

static void process(struct virtio_dev *d)
{
	struct vsock *v = vsock_of(d);

	if (v->reset_pending)
		after_reset(v);
	if (v->want_driver && virtio_live(d))
		unpark(v);
	vsock_event_run(v);
	vsock_tx_run(v);
	vsock_rx_run(v);
	conn_reap(v);
}

/*
 * How many connections the guest may believe in that will be gone once it is restored: all there
 * are, one that an RST not yet delivered would end, or those of a reset it was not told of yet.
 */
static u32 lost_on_restore(const struct vsock *v)
{
	if (v->count)
		return v->count;
	return v->rst_count || v->event_pending || v->gated;
}

static void save(struct virtio_dev *d, struct enc *out)
{
	const struct vsock *v = vsock_of(d);

	enc_u64(out, v->cid);
	enc_u32(out, v->next_port);
	enc_u32(out, lost_on_restore(v));
}

static int load(struct virtio_dev *d, struct dec *in, struct err *e)
{
	struct vsock *v = vsock_of(d);
	u64 cid = dec_u64(in);
	u32 next_port = dec_u32(in), count = dec_u32(in);

	if (in->bad)
		return err_set(e, -EINVAL, "ends too early");
	if (cid < CID_FIRST || cid >= CID_ANY)
		return err_set(e, -EINVAL, "guest_cid: %llu is none", (unsigned long long)cid);
	if (next_port < VSOCK_PORT_FIRST || next_port >= 2 * VSOCK_PORT_FIRST)
		return err_set(e, -EINVAL, "next_port: %u is not from %u to %u", next_port,
			VSOCK_PORT_FIRST, 2 * VSOCK_PORT_FIRST - 1);
	if (count > VSOCK_CONNS_MAX)
		return err_set(e, -EINVAL, "connections: %u of at most %u", count,
			VSOCK_CONNS_MAX);
	v->next_port = next_port;
	/*
	 * The event tells the guest that its connections are gone, and to read its CID again. Where
	 * neither changed there is nothing to tell, and nothing to wait for with new connections.
	 */
	v->event_pending = v->gated = (count || cid != v->cid) && d->queue[VSOCK_EVENTQ].live;
	return 0;
}

static void destroy(struct virtio_dev *d)
{
	struct vsock *v = vsock_of(d);

	conn_free_all(v);
	fd_close(&v->listen_fd);
	virtio_finish(d);
	free(v->path);
	free(v);
}

static const struct virtio_ops vsock_ops = {
	.name = "vsock",
	.device_id = VIRTIO_ID_VSOCK,
	.queue_count = VSOCK_QUEUES,
	.config_read = config_read,
	.config_len = sizeof(struct virtio_vsock_config),
	.reset = reset,
	.process = process,
	.save = save,
	.load = load,
	.destroy = destroy,
};

static int check_path(const char *path, struct err *e)
{
	size_t len = strlen(path);

	if (!len)
		return err_set(e, -EINVAL, "the vsock socket needs a path");
	if (len > PATH_LEN_MAX)
		return err_set(e, -ENAMETOOLONG,
			"the vsock path %.40s... has %zu bytes; at most %zu leave room for the "
			"_PORT of the guest's connections",
			path, len, PATH_LEN_MAX);
	return 0;
}

int vsock_create(struct virtio_dev **ret, const struct vsock_config *cfg, struct ring *ring,
	const struct mem *mem, struct virtio_irq irq, struct err *e)
{
	struct vsock *v;
	int r = check_path(cfg->path, e);

	if (r)
		return r;
	if (cfg->cid < CID_FIRST || cfg->cid == CID_ANY)
		return err_set(e, -EINVAL, "vsock cid %u: must be from %u to %u", cfg->cid,
			CID_FIRST, CID_ANY - 1);
	v = calloc(1, sizeof(*v));
	if (!v || !(v->path = strdup(cfg->path))) {
		free(v);
		return err_sys(e, ENOMEM, "vsock");
	}
	r = virtio_init(&v->dev, &vsock_ops, mem, irq, e);
	if (r) {
		free(v->path);
		free(v);
		return r;
	}
	v->ring = ring;
	v->cid = cfg->cid;
	v->wait_ms = cfg->wait_ms;
	v->next_port = VSOCK_PORT_FIRST;
	v->listen_fd = cfg->listen_fd;
	v->dialer = cfg->dialer;
	v->timer_op.done = timer_done;
	TAILQ_INIT(&v->conns);
	TAILQ_INIT(&v->dead);
	TAILQ_INIT(&v->fresh);
	TAILQ_INIT(&v->ready);
	vsock_tx_init(v);
	vsock_rx_init(v);
	*ret = &v->dev;
	return 0;
}

void vsock_start(struct virtio_dev *d)
{
	struct vsock *v = vsock_of(d);

	vsock_lock(v);
	accept_next(v);
	vsock_unlock(v);
	/* After a restore the queues may hold what nobody kicks for any more. */
	virtio_schedule(d);
}

void vsock_finish(struct virtio_dev *d)
{
	struct vsock *v = vsock_of(d);
	struct vsock_conn *c;

	vsock_lock(v);
	TAILQ_FOREACH (c, &v->conns, all)
		host_last_words(c);
	shutdown(v->listen_fd, SHUT_RDWR); /* others may have the path now */
	vsock_unlock(v);
}

unsigned vsock_conn_count(const struct virtio_dev *d)
{
	return container_of(d, const struct vsock, dev)->count;
}

void vsock_stats(const struct virtio_dev *d, struct vsock_stats *ret)
{
	*ret = container_of(d, const struct vsock, dev)->stats;
}

static int bind_error(int errnum, const char *path, struct err *e)
{
	struct stat st;

	if (errnum == EADDRINUSE && !lstat(path, &st) && S_ISLNK(st.st_mode))
		return err_set(e, -EADDRINUSE,
			"cannot make the vsock socket %s: there is a symbolic link, which is not "
			"followed", path);
	if (errnum == EADDRINUSE)
		return err_set(e, -EADDRINUSE, "cannot make the vsock socket %s: it exists already",
			path);
	if (errnum == ENOENT)
		return err_set(e, -ENOENT,
			"cannot make the vsock socket %s: its directory does not exist", path);
	return err_sys(e, errnum, "cannot make the vsock socket %s", path);
}

int vsock_listen(int *ret_fd, const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = -1;
	int r = check_path(path, e);

	if (r)
		return r;
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, errno, "cannot make a unix socket");
	/* The file bind() makes inherits this mode, so it is never open to more. */
	if (fchmod(fd, 0600))
		return err_sys(e, errno, "cannot set the mode of a unix socket");
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)))
		return bind_error(errno, path, e);
	if (listen(fd, SOMAXCONN)) {
		r = err_sys(e, errno, "cannot listen on the vsock socket %s", path);
		unlink(path);
		return r;
	}
	*ret_fd = fd_steal(&fd);
	return 0;
}
