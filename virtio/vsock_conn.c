/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_conn.c - a connection: its life, its place in the table, its credit.
 *
 * Life. Made by a host client (LINE, then REQUEST, PARKED and REQUEST again as long as the guest
 * has no listener, then OPEN) or by the guest (CONNECTING, then OPEN). Every end goes through
 * conn_kill(): the connection is DEAD at once, its operations are cancelled, and conn_reap() frees
 * it when the last of them has come back. A dead connection that the guest must hear about keeps
 * its place in the table until the RST has found a buffer, so that no RST is ever lost; it counts
 * against VSOCK_CONNS_MAX, so a guest that takes no packets only runs out of connections.
 *
 * Credit is counted in bytes modulo 2^32 on both sides, and so is all arithmetic with it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "virtio/vsock_int.h"

static struct conn_bucket *bucket_of(struct vsock *v, u32 peer_port, u32 local_port)
{
	u32 h = (peer_port ^ (local_port << 16 | local_port >> 16)) * 2654435761u;

	return &v->bucket[(h >> 16) % VSOCK_BUCKETS];
}

struct vsock_conn *conn_find(struct vsock *v, u32 peer_port, u32 local_port)
{
	struct vsock_conn *c;

	LIST_FOREACH (c, bucket_of(v, peer_port, local_port), hash) {
		if (c->peer_port == peer_port && c->local_port == local_port)
			return c;
	}
	return NULL;
}

/* Only guests that left wait for this one: it makes room, for whoever tries again. */
static void drop_flushing(struct vsock *v)
{
	struct vsock_conn *c;

	TAILQ_FOREACH (c, &v->conns, all) {
		if (c->state == CONN_FLUSH) {
			conn_kill(c, false);
			return;
		}
	}
}

struct vsock_conn *conn_new(struct vsock *v, int fd, enum conn_state state)
{
	struct vsock_conn *c = NULL;

	if (v->count < VSOCK_CONNS_MAX)
		c = calloc(1, sizeof(*c));
	else
		drop_flushing(v);
	if (!c) {
		v->stats.conns_refused++;
		return NULL;
	}
	c->v = v;
	c->fd = fd;
	c->end_fd = c->end_for_client = -1;
	c->state = state;
	c->burst = 1;
	c->backoff_ns = VSOCK_BACKOFF_NS;
	c->buf_alloc = VSOCK_TX_BUF;
	if (v->count < VSOCK_WIDE_CONNS) {
		c->buf_alloc = VSOCK_TX_BUF_WIDE;
		if (fd >= 0)
			vsock_widen(fd, VSOCK_TX_BUF_WIDE);
	}
	TAILQ_INSERT_TAIL(&v->conns, c, all);
	v->count++;
	v->stats.conns_added++;
	return c;
}

void conn_set_ports(struct vsock_conn *c, u32 peer_port, u32 local_port)
{
	c->peer_port = peer_port;
	c->local_port = local_port;
	LIST_INSERT_HEAD(bucket_of(c->v, peer_port, local_port), c, hash);
	c->is_hashed = true;
}

static void unhash(struct vsock_conn *c)
{
	if (c->is_hashed)
		LIST_REMOVE(c, hash);
	c->is_hashed = false;
}

void conn_make_ready(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	if (c->ready_in)
		return;
	if (c->fresh_round != v->round)
		c->fresh_bytes = 0;
	c->fresh_round = v->round;
	c->ready_in = c->fresh_bytes < VSOCK_FRESH ? &v->fresh : &v->ready;
	TAILQ_INSERT_TAIL(c->ready_in, c, ready);
}

void conn_not_ready(struct vsock_conn *c)
{
	if (c->ready_in)
		TAILQ_REMOVE(c->ready_in, c, ready);
	c->ready_in = NULL;
}

void conn_pend(struct vsock_conn *c, unsigned what)
{
	c->pend |= what;
	conn_make_ready(c);
}

void conn_forget_rst(struct vsock_conn *c)
{
	c->pend = 0;
	conn_not_ready(c);
	unhash(c);
}

void conn_kill(struct vsock_conn *c, bool rst)
{
	struct vsock *v = c->v;

	if (c->state == CONN_DEAD)
		return;
	if (c->state == CONN_FLUSH) /* it knows, or its RST is on the way */
		rst = c->pend & PEND_RST;
	c->state = CONN_DEAD;
	c->due_ns = 0;
	conn_forget_rst(c);
	if (rst) {
		conn_set_ports(c, c->peer_port, c->local_port);
		conn_pend(c, PEND_RST);
	}
	TAILQ_REMOVE(&v->conns, c, all);
	TAILQ_INSERT_TAIL(&v->dead, c, all);
	ring_cancel(v->ring, &c->rx_op);
	ring_cancel(v->ring, &c->tx_op);
}

void conn_flush(struct vsock_conn *c, bool rst)
{
	c->state = CONN_FLUSH;
	c->due_ns = 0;
	conn_forget_rst(c);
	if (rst) {
		conn_set_ports(c, c->peer_port, c->local_port);
		conn_pend(c, PEND_RST);
	}
	host_step(c);
}

/* The end is told before the stream ends. */
static void release(struct vsock_conn *c)
{
	fd_close(&c->end_for_client);
	fd_close(&c->end_fd);
	fd_close(&c->fd);
	free(c->buf);
	c->buf = NULL;
}

void conn_reap(struct vsock *v)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(&v->dead); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->rx_op.busy || c->tx_op.busy || v->rx.conn == c || v->tx.conn == c)
			continue;
		release(c);
		if (c->pend)
			continue;
		TAILQ_REMOVE(&v->dead, c, all);
		v->count--;
		free(c);
	}
}

static void free_list(struct conn_list *l)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(l); c; c = next) {
		next = TAILQ_NEXT(c, all);
		release(c);
		free(c);
	}
}

void conn_free_all(struct vsock *v)
{
	free_list(&v->conns);
	free_list(&v->dead);
}

void conn_due(struct vsock_conn *c, u64 ns)
{
	c->due_ns = 0;
	if (ns) {
		c->due_ns = monotonic_ns() + ns;
		vsock_timer(c->v, c->due_ns);
	}
}

void conn_retry(struct vsock_conn *c)
{
	u64 now_ns = monotonic_ns();
	u64 left_ns = c->give_up_ns > now_ns ? c->give_up_ns - now_ns : 1;

	conn_due(c, c->backoff_ns < left_ns ? c->backoff_ns : left_ns);
	c->backoff_ns *= 2;
	if (c->backoff_ns > VSOCK_BACKOFF_MAX_NS)
		c->backoff_ns = VSOCK_BACKOFF_MAX_NS;
}

bool conn_owes_host(const struct vsock_conn *c)
{
	return c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->host_deaf &&
		(c->buf_len || c->end_fd >= 0);
}

void conn_timeout(struct vsock_conn *c)
{
	bool late = monotonic_ns() >= c->give_up_ns;

	c->due_ns = 0;
	switch (c->state) {
	case CONN_LINE:
		conn_kill(c, false);
		break;
	case CONN_PARKED:
		if (late)
			conn_kill(c, false);
		else
			conn_request(c);
		break;
	case CONN_REQUEST:
		conn_kill(c, !(c->pend & PEND_REQUEST));
		break;
	case CONN_CONNECTING:
		if (late || c->tx_op.busy)
			conn_kill(c, true);
		else
			host_connect(c);
		break;
	case CONN_OPEN: /* a shutdown that nobody answers */
		if (conn_owes_host(c))
			conn_flush(c, true);
		else
			conn_kill(c, true);
		break;
	case CONN_FLUSH:
	case CONN_DEAD:
		break;
	}
}

/* Asking the guest. */

void conn_request(struct vsock_conn *c)
{
	u64 now_ns = monotonic_ns();
	u64 left_ns = c->give_up_ns > now_ns ? c->give_up_ns - now_ns : 0;

	if (virtio_live(&c->v->dev) && !c->v->reset_pending) {
		c->state = CONN_REQUEST;
		conn_pend(c, PEND_REQUEST);
		conn_due(c, left_ns > VSOCK_LINGER_NS ? left_ns : VSOCK_LINGER_NS);
	} else if (left_ns) {
		c->state = CONN_PARKED;
		c->v->want_driver = true;
		conn_due(c, left_ns);
	} else {
		conn_kill(c, false);
	}
}

void conn_refused(struct vsock_conn *c)
{
	if (monotonic_ns() >= c->give_up_ns) {
		conn_kill(c, false);
		return;
	}
	c->state = CONN_PARKED;
	conn_retry(c);
}

void conn_gone(struct vsock_conn *c)
{
	if (c->state == CONN_FLUSH)
		conn_forget_rst(c);
	else if (c->state == CONN_OPEN && conn_owes_host(c))
		conn_flush(c, false);
	else
		conn_kill(c, false);
}

void conn_after_reset(struct vsock_conn *c)
{
	switch (c->state) {
	case CONN_LINE:
	case CONN_PARKED:
		break;
	case CONN_REQUEST:
		c->pend = 0;
		conn_not_ready(c);
		conn_request(c);
		break;
	default:
		conn_gone(c);
	}
}

/* To the guest. */

static void socket_ready(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, rx_op);
	struct vsock *v = c->v;

	vsock_lock(v);
	c->can_read = true;
	switch (c->state) {
	case CONN_OPEN:
		if (res < 0)
			conn_kill(c, true);
		else
			conn_make_ready(c);
		break;
	case CONN_REQUEST: /* not accepted yet: it may have sent something, or left */
	case CONN_PARKED:
		if (res < 0 || res & (POLLHUP | POLLERR))
			conn_kill(c, c->state == CONN_REQUEST && !(c->pend & PEND_REQUEST));
		break;
	default:
		break;
	}
	vsock_unlock(v);
}

void conn_poll_in(struct vsock_conn *c)
{
	c->can_read = false;
	c->rx_op.done = socket_ready;
	ring_poll(c->v->ring, &c->rx_op, c->fd, POLLIN);
}

/* The socket is at its end: did the host only finish writing, or is it gone? */
static void end_polled(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, rx_op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (c->state == CONN_OPEN) {
		conn_tell_shutdown(c, VIRTIO_VSOCK_SHUTDOWN_SEND);
		if (res < 0 || res & (POLLHUP | POLLERR))
			host_deaf(c);
		host_step(c);
	}
	vsock_unlock(v);
}

void conn_at_end(struct vsock_conn *c)
{
	c->can_read = false;
	c->eof = true;
	c->rx_op.done = end_polled;
	ring_poll(c->v->ring, &c->rx_op, c->fd, POLLIN);
}

bool conn_has_data(const struct vsock_conn *c)
{
	return c->state == CONN_OPEN && c->can_read &&
		!(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

void conn_tell_shutdown(struct vsock_conn *c, unsigned flags)
{
	const unsigned both = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;

	if ((c->our_shut | flags) == c->our_shut)
		return;
	c->our_shut |= flags;
	conn_pend(c, PEND_SHUTDOWN);
	if (c->our_shut == both)
		conn_due(c, VSOCK_LINGER_NS);
}

/* Credit. */

u32 conn_credit(const struct vsock_conn *c)
{
	u32 in_flight = c->tx_cnt - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

void conn_take_credit(struct vsock_conn *c, u32 buf_alloc, u32 fwd_cnt)
{
	c->peer_buf_alloc = buf_alloc;
	/* It cannot have consumed more than it got; where it says so, its last word stands. */
	if (fwd_cnt - c->peer_fwd_cnt <= c->tx_cnt - c->peer_fwd_cnt)
		c->peer_fwd_cnt = fwd_cnt;
	if (!conn_credit(c))
		return;
	c->asked_credit = false;
	if (conn_has_data(c))
		conn_make_ready(c);
}

void conn_consumed(struct vsock_conn *c, u32 n)
{
	/* Newer Linux has no more under way than its own buffer would hold, whatever it may. */
	u32 window = c->peer_buf_alloc < c->buf_alloc ? c->peer_buf_alloc : c->buf_alloc;

	c->fwd_cnt += n;
	/* Half of the window keeps a guest busy while the update is under way. */
	if (c->state == CONN_OPEN && c->rx_cnt - c->told_fwd_cnt > window / 2)
		conn_pend(c, PEND_CREDIT);
}
