/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_tx.c - packets from the guest.
 *
 * Theory of operation
 *
 * Each chain is one packet: a header, copied to the host once and then trusted as checked here,
 * and payload, which is never looked at: sendmsg(2) takes it straight from guest memory. Packets
 * with payload for one connection that follow each other form a group and share one sendmsg. One
 * group is with the kernel at a time; the queue is not looked at until it has come back, so the
 * order of packets is kept without bookkeeping. MSG_DONTWAIT makes that a moment: the send ends
 * while it is being submitted. A packet that does not fit into the group goes back to the queue.
 *
 * Every head is pushed exactly once: at once, or when its group has come back.
 *
 * What a packet may not do: name an address that is not its own (dropped), talk about a connection
 * that does not exist (answered by RST), break a connection's rules or credit (that connection is
 * reset). Nothing in a packet can break the device; only a broken ring can.
 */
#include <endian.h>
#include <errno.h>

#include "monitor/base/cleanup.h"
#include "virtio/vsock_int.h"

#define SHUT_BOTH ((unsigned)(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))

enum verdict {
	PKT_DONE,  /* the head can be pushed */
	PKT_GROUP, /* it became part of the group */
	PKT_LATER, /* only after the group */
};

static void group_sent(struct ring_op *op, int res);

void vsock_tx_init(struct vsock *v)
{
	v->tx.op.done = group_sent;
}

/* The sender did what it may not. */
static enum verdict violation(struct vsock *v, struct vsock_conn *c,
	const struct virtio_vsock_hdr *h)
{
	v->stats.dropped++;
	if (c)
		conn_kill(c, true);
	else
		vsock_rst(v, h);
	return PKT_DONE;
}

static enum verdict request(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	_cleanup_fd_ int fd = -1;
	struct vsock_conn *c;

	if (!v->dialer) /* syscalls[L]: socket(AF_UNIX) */
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	c = v->dialer || fd >= 0 ? conn_new(v, fd, CONN_CONNECTING) : NULL;
	if (!c) {
		vsock_rst(v, h);
		return PKT_DONE;
	}
	fd_steal(&fd);
	conn_set_ports(c, h->src_port, h->dst_port);
	conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
	conn_due(c, VSOCK_LINGER_NS);
	c->give_up_ns = c->due_ns;
	host_connect(c);
	return PKT_DONE;
}

static void response(struct vsock_conn *c)
{
	c->state = CONN_OPEN;
	conn_due(c, 0);
	host_send_ok(c);
	if (c->can_read) /* else the poll is still out */
		conn_make_ready(c);
}

static void shut(struct vsock_conn *c, unsigned flags)
{
	c->guest_shut |= flags & SHUT_BOTH;
	if (c->guest_shut == SHUT_BOTH)
		conn_due(c, VSOCK_LINGER_NS);
	host_step(c);
}

/* Payload for an open connection. */
static enum verdict payload(struct vsock *v, struct vsock_conn *c,
	const struct virtio_vsock_hdr *h)
{
	struct vsock_group *g = &v->tx;
	const struct vq_chain *chain = &v->chain;

	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
		h->len > c->buf_alloc - (c->rx_cnt - c->fwd_cnt))
		return violation(v, c, h);
	c->rx_cnt += h->len;
	v->stats.tx_bytes += h->len;
	if (c->host_deaf) {
		conn_consumed(c, h->len);
		return PKT_DONE;
	}
	if (!host_is_clear(c)) {
		if (!host_keep(c, chain->iov, chain->out_count, VSOCK_HDR, h->len))
			conn_kill(c, true);
		return PKT_DONE;
	}
	g->conn = c;
	g->head[g->count++] = chain->head;
	g->iov_count += iov_slice(chain->iov, chain->out_count, VSOCK_HDR, h->len,
		&g->iov[g->iov_count]);
	g->len += h->len;
	return PKT_GROUP;
}

/* A packet of the connection @c, whose header is sound. */
static enum verdict conn_packet(struct vsock *v, struct vsock_conn *c,
	const struct virtio_vsock_hdr *h)
{
	if (c->state == CONN_REQUEST && !(c->pend & PEND_REQUEST) &&
		h->op == VIRTIO_VSOCK_OP_RESPONSE) {
		conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
		response(c);
		return PKT_DONE;
	}
	if (c->state != CONN_OPEN)
		return violation(v, c, h);
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RW:
		conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
		return h->len ? payload(v, c, h) : PKT_DONE;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
		shut(c, h->flags);
		return PKT_DONE;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		conn_pend(c, PEND_CREDIT);
		conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
		return PKT_DONE;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		conn_take_credit(c, h->buf_alloc, h->fwd_cnt);
		return PKT_DONE;
	default: /* a second REQUEST or RESPONSE, or nothing we know */
		return violation(v, c, h);
	}
}

static enum verdict rst(struct vsock_conn *c)
{
	if (c->state == CONN_DEAD)
		conn_forget_rst(c);
	else if (c->state == CONN_REQUEST && !(c->pend & PEND_REQUEST))
		conn_refused(c);
	else
		conn_gone(c);
	return PKT_DONE;
}

/* Fits the packet into the group that is being made, if there is one? */
static bool fits(const struct vsock *v, const struct vsock_conn *c,
	const struct virtio_vsock_hdr *h)
{
	const struct vsock_group *g = &v->tx;

	return !g->count ||
		(c == g->conn && c->state == CONN_OPEN && h->op == VIRTIO_VSOCK_OP_RW &&
			g->count < VSOCK_GROUP_MAX &&
			g->iov_count + v->chain.out_count <= VSOCK_GROUP_IOV);
}

/* Copies the header; false where there is none. */
static bool get_header(const struct vq_chain *chain, struct virtio_vsock_hdr *h)
{
	if (iov_to_host(chain->iov, chain->out_count, 0, h, sizeof(*h)) != sizeof(*h))
		return false;
	*h = (struct virtio_vsock_hdr){
		.src_cid = le64toh(h->src_cid),
		.dst_cid = le64toh(h->dst_cid),
		.src_port = le32toh(h->src_port),
		.dst_port = le32toh(h->dst_port),
		.len = le32toh(h->len),
		.type = le16toh(h->type),
		.op = le16toh(h->op),
		.flags = le32toh(h->flags),
		.buf_alloc = le32toh(h->buf_alloc),
		.fwd_cnt = le32toh(h->fwd_cnt),
	};
	return true;
}

/* The packet in v->chain. */
static enum verdict packet(struct vsock *v)
{
	struct virtio_vsock_hdr h;
	struct vsock_conn *c;

	if (!get_header(&v->chain, &h) || h.src_cid != v->cid || h.dst_cid != VSOCK_HOST_CID) {
		v->stats.dropped++;
		return PKT_DONE;
	}
	if (h.type != VIRTIO_VSOCK_TYPE_STREAM)
		return violation(v, NULL, &h);
	c = conn_find(v, h.src_port, h.dst_port);
	if (!fits(v, c, &h))
		return PKT_LATER;
	v->stats.tx_packets++;
	if (h.len > v->chain.out_len - VSOCK_HDR || h.len > VSOCK_PACKET_MAX)
		return violation(v, c, &h);
	if (h.op == VIRTIO_VSOCK_OP_RST)
		return c ? rst(c) : PKT_DONE;
	if (c && (c->state == CONN_DEAD || c->state == CONN_FLUSH)) /* its RST is under way */
		return PKT_DONE;
	if (c)
		return conn_packet(v, c, &h);
	if (h.op == VIRTIO_VSOCK_OP_REQUEST)
		return request(v, &h);
	return violation(v, NULL, &h);
}

static void send_group(struct vsock *v)
{
	struct vsock_group *g = &v->tx;

	g->epoch = v->dev.epoch;
	g->msg = (struct msghdr){.msg_iov = g->iov, .msg_iovlen = g->iov_count};
	virtio_io_begin(&v->dev);
	ring_sendmsg(v->ring, &g->op, g->conn->fd, &g->msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What the socket did with the payload of an open connection. */
static void account(struct vsock_group *g, int res)
{
	struct vsock_conn *c = g->conn;
	u32 n = res > 0 ? (u32)res : 0;

	if (res < 0 && res != -EAGAIN) {
		host_deaf(c);
		n = g->len; /* dropped */
	}
	if (n)
		conn_consumed(c, n);
	if (n < g->len && !host_keep(c, g->iov, g->iov_count, n, g->len - n))
		conn_kill(c, true);
}

static void group_sent(struct ring_op *op, int res)
{
	struct vsock *v = container_of(op, struct vsock, tx.op);
	struct vsock_group *g = &v->tx;
	struct vsock_conn *c = g->conn;
	struct vq *q = &v->dev.queue[VSOCK_TXQ];

	vsock_lock(v);
	virtio_io_end(&v->dev);
	if (conn_flows(c))
		account(g, res);
	if (g->epoch == v->dev.epoch) {
		for (unsigned i = 0; i < g->count; i++)
			vq_push(q, g->head[i], 0);
		virtio_used_soon(&v->dev, q);
	}
	g->conn = NULL;
	g->count = g->iov_count = g->len = 0;
	host_step(c);
	vsock_tx_run(v);
	vsock_unlock(v);
}

/* Takes the next chain; false when the queue is not to be looked at any more for now. */
static bool next(struct vsock *v, struct vq *q)
{
	switch (vq_pop(q, &v->chain)) {
	case VQ_OK:
		switch (packet(v)) {
		case PKT_DONE:
			vq_push(q, v->chain.head, 0);
			break;
		case PKT_GROUP:
			break;
		case PKT_LATER:
			vq_unpop(q, v->chain.head);
			return false;
		}
		return true;
	case VQ_REJECT:
		v->stats.dropped++;
		vq_push(q, v->chain.head, 0);
		return true;
	case VQ_BAD:
		virtio_fail(&v->dev);
		return false;
	case VQ_EMPTY:
		break;
	}
	/* While a group is on its way the queue is looked at again anyway. */
	if (v->tx.count || !virtio_want_kick(&v->dev, q))
		return false;
	vq_kicks_off(q);
	return true;
}

void vsock_tx_run(struct vsock *v)
{
	struct vq *q = &v->dev.queue[VSOCK_TXQ];
	unsigned budget = q->size;

	if (v->tx.conn || v->reset_pending || !virtio_live(&v->dev))
		return;
	vq_kicks_off(q);
	while (next(v, q)) {
		if (!--budget) {
			virtio_schedule(&v->dev);
			break;
		}
	}
	if (v->tx.count)
		send_group(v);
	virtio_used_soon(&v->dev, q);
}
