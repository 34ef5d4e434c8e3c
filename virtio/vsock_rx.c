/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_rx.c - packets to the guest, and the event queue.
 *
 * Theory of operation
 *
 * Nothing is queued here but intentions: two lists of the connections that have something for the
 * guest, as bits in conn->pend or as bytes that wait in the socket, and v->rst, the answers to
 * packets of unknown connections. vsock_rx_run() turns them into packets as long as the guest has
 * buffers; when it has none, it asks for a kick, and nothing moves until that comes. Sockets are
 * polled once for each time they run dry, so a host that floods a guest that does not read costs
 * nothing.
 *
 * Payload is received straight into the guest's buffers, behind the place of the header: one
 * recvmsg(2) fills as many buffers as the connection filled lately (conn->burst), within the
 * guest's credit, each of which becomes a packet. One such read is with the kernel at a time, and
 * no buffer is taken meanwhile, so those it did not fill go back to the queue in reverse order.
 * MSG_DONTWAIT makes that a moment: the read ends while it is being submitted.
 *
 * Fairness. Who has much to send waits in v->ready for turns of VSOCK_TURN bytes; a round is over
 * when everybody there has had one. In each round every connection may also send VSOCK_FRESH bytes
 * out of turn: v->fresh goes first, so that questions are not held up by bulk. A connection with no
 * other beside it sends as much as fits.
 *
 * After a restore the guest believes in connections that are gone. It is told by an event, and
 * until it has given that event's buffer back (so it has acted on it) it gets no packets: they
 * might belong to a connection which it is about to reset. A driver without an event queue cannot
 * be told, and one that does not answer is not waited for longer than VSOCK_GATE_NS.
 */
#include <endian.h>
#include <errno.h>

#include "monitor/base/clock.h"

#include "virtio/vsock_int.h"

#define EVENT_LEN sizeof(struct virtio_vsock_event)

static void group_read(struct ring_op *op, int res);

void vsock_rx_init(struct vsock *v)
{
	v->rx.op.done = group_read;
}

static struct virtio_vsock_hdr header(const struct vsock *v, u32 peer_port, u32 local_port,
	unsigned op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_HOST_CID),
		.dst_cid = htole64(v->cid),
		.src_port = htole32(local_port),
		.dst_port = htole32(peer_port),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16((u16)op),
	};
}

/* A header of @c; it also tells the guest how much the host has consumed. */
static struct virtio_vsock_hdr conn_header(struct vsock_conn *c, unsigned op)
{
	struct virtio_vsock_hdr h = header(c->v, c->peer_port, c->local_port, op);

	h.buf_alloc = htole32(c->buf_alloc);
	h.fwd_cnt = htole32(c->fwd_cnt);
	c->told_fwd_cnt = c->fwd_cnt;
	c->pend &= ~PEND_CREDIT;
	return h;
}

void vsock_rst(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	/* What a restored guest says before it knows that it was is no news. */
	if (v->gated || h->op == VIRTIO_VSOCK_OP_RST)
		return;
	if (v->rst_count == VSOCK_RST_MAX) {
		v->stats.dropped++;
		return;
	}
	v->rst[(v->rst_head + v->rst_count++) % VSOCK_RST_MAX] = (struct vsock_rst){
		.peer_port = h->src_port, .local_port = h->dst_port, .type = h->type};
}

/* Puts a packet without payload in the buffer that was popped. */
static void push_header(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	const struct vq_chain *c = &v->chain;

	must(iov_from_host(c->iov + c->out_count, c->in_count, 0, h, sizeof(*h)) == sizeof(*h));
	vq_push(&v->dev.queue[VSOCK_RXQ], c->head, sizeof(*h));
	v->stats.rx_packets++;
}

static void send_rst(struct vsock *v)
{
	const struct vsock_rst *r = &v->rst[v->rst_head];
	struct virtio_vsock_hdr h =
		header(v, r->peer_port, r->local_port, VIRTIO_VSOCK_OP_RST);

	h.type = htole16(r->type);
	push_header(v, &h);
	v->rst_head = (v->rst_head + 1) % VSOCK_RST_MAX;
	v->rst_count--;
}

/* The most urgent packet without payload that @c owes. */
static void send_pending(struct vsock_conn *c)
{
	static const u16 op_of[] = {VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE,
		VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_OP_CREDIT_UPDATE,
		VIRTIO_VSOCK_OP_CREDIT_REQUEST};
	unsigned bit = (unsigned)__builtin_ctz(c->pend);
	struct virtio_vsock_hdr h = conn_header(c, op_of[bit]);

	if (op_of[bit] == VIRTIO_VSOCK_OP_SHUTDOWN)
		h.flags = htole32(c->our_shut);
	push_header(c->v, &h);
	c->pend &= ~(1u << bit);
	if (c->state == CONN_DEAD || c->state == CONN_FLUSH)
		conn_forget_rst(c);
}

/* Payload. */

/* Adds the buffer that was popped to the read, for at most @most bytes of payload. */
static void add_buf(struct vsock *v, u32 most)
{
	struct vsock_group *g = &v->rx;
	const struct vq_chain *c = &v->chain;
	const struct iovec *in = c->iov + c->out_count;
	struct rx_buf *b = &v->rx_buf[g->count];

	b->room = c->in_len - (u32)VSOCK_HDR;
	if (b->room > VSOCK_PACKET_MAX)
		b->room = VSOCK_PACKET_MAX;
	if (b->room > most)
		b->room = most;
	b->hdr_count = iov_slice(in, c->in_count, 0, VSOCK_HDR, b->hdr);
	g->iov_count +=
		iov_slice(in, c->in_count, VSOCK_HDR, b->room, &g->iov[g->iov_count]);
	g->len += b->room;
	g->head[g->count++] = c->head;
}

/*
 * Pops one more buffer for a read that has some. A buffer that is no good must wait, because what
 * lies before it could not go back to the queue any more.
 */
static bool pop_more(struct vsock *v)
{
	struct vq *q = &v->dev.queue[VSOCK_RXQ];

	switch (vq_pop(q, &v->chain)) {
	case VQ_OK:
		if (v->chain.in_len > VSOCK_HDR)
			return true;
		vq_unpop(q, v->chain.head);
		return false;
	case VQ_REJECT:
		vq_unpop(q, v->chain.head);
		return false;
	case VQ_BAD: /* the next look finds the same, with nothing under way */
	case VQ_EMPTY:
		break;
	}
	return false;
}

/* Whether no other connection waits for its turn. */
static bool is_alone(const struct vsock_conn *c)
{
	const struct vsock *v = c->v;

	return !TAILQ_NEXT(c, ready) && (c->ready_in == &v->ready || TAILQ_EMPTY(&v->ready));
}

/* How many bytes the connection may send now, while others wait. */
static u32 begin_turn(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	if (c->ready_in == &v->fresh)
		return VSOCK_FRESH - c->fresh_bytes;
	if (!c->turn_left) {
		v->round += c->turn_round == v->round; /* it had one in this round: that is over */
		c->turn_round = v->round;
		c->turn_left = VSOCK_TURN;
	}
	return c->turn_left;
}

/* The guest was sent @n bytes; whether the connection's turn goes on. */
static bool end_turn(struct vsock_conn *c, u32 n, bool more)
{
	if (c->ready_in == &c->v->fresh) {
		c->fresh_bytes += n;
		return false;
	}
	c->turn_left -= n < c->turn_left ? n : c->turn_left;
	/* Crumbs are not worth a read. */
	if (!more || c->turn_left < VSOCK_TURN / 4)
		c->turn_left = 0;
	return c->turn_left;
}

static void start_read(struct vsock_conn *c)
{
	struct vsock *v = c->v;
	struct vsock_group *g = &v->rx;
	u32 most = conn_credit(c), share = begin_turn(c);

	if (!is_alone(c) && most > share)
		most = share;
	do {
		add_buf(v, most - g->len);
	} while (g->count < c->burst && g->len < most &&
		g->iov_count + VQ_SIZE_MAX <= VSOCK_GROUP_IOV && pop_more(v));
	g->conn = c;
	g->epoch = v->dev.epoch;
	g->msg = (struct msghdr){.msg_iov = g->iov, .msg_iovlen = g->iov_count};
	virtio_io_begin(&v->dev);
	ring_recvmsg(v->ring, &g->op, c->fd, &g->msg, MSG_DONTWAIT);
}

/* Makes packets of the @len bytes that were read, returns how many; gives other buffers back. */
static unsigned push_payload(struct vsock *v, struct vsock_conn *c, u32 len)
{
	struct vq *q = &v->dev.queue[VSOCK_RXQ];
	struct vsock_group *g = &v->rx;
	unsigned used = 0;

	for (; len; used++) {
		const struct rx_buf *b = &v->rx_buf[used];
		struct virtio_vsock_hdr h = conn_header(c, VIRTIO_VSOCK_OP_RW);
		u32 part = len < b->room ? len : b->room;

		h.len = htole32(part);
		must(iov_from_host(b->hdr, b->hdr_count, 0, &h, sizeof(h)) == sizeof(h));
		vq_push(q, g->head[used], (u32)sizeof(h) + part);
		c->tx_cnt += part;
		v->stats.rx_bytes += part;
		v->stats.rx_packets++;
		len -= part;
	}
	for (unsigned i = g->count; i-- > used;)
		vq_unpop(q, g->head[i]);
	virtio_used_soon(&v->dev, q);
	return used;
}

/* Where an open connection goes after a read that gave @res and filled @used buffers. */
static void after_read(struct vsock_conn *c, int res, unsigned used)
{
	struct vsock_group *g = &c->v->rx;
	bool more = res > 0 && (u32)res == g->len;

	if (!end_turn(c, res > 0 ? (u32)res : 0, more))
		conn_not_ready(c);
	if (more || c->pend)
		conn_make_ready(c);
	if (more) {
		c->burst = 2 * c->burst < VSOCK_GROUP_MAX ? 2 * c->burst : VSOCK_GROUP_MAX;
	} else if (res > 0 || res == -EAGAIN) {
		c->burst = used ? used : 1;
		conn_poll_in(c);
	} else if (res == 0) {
		conn_at_end(c);
	} else {
		conn_kill(c, true);
	}
}

static void group_read(struct ring_op *op, int res)
{
	struct vsock *v = container_of(op, struct vsock, rx.op);
	struct vsock_group *g = &v->rx;
	struct vsock_conn *c = g->conn;
	unsigned used = 0;
	bool open;

	vsock_lock(v);
	virtio_io_end(&v->dev);
	open = c->state == CONN_OPEN;
	if (g->epoch == v->dev.epoch)
		used = push_payload(v, c, open && res > 0 ? (u32)res : 0);
	if (open)
		after_read(c, res, used);
	g->conn = NULL;
	g->count = g->iov_count = g->len = 0;
	vsock_unlock(v);
}

/* Choosing what to send. */

/* Whose turn it is, if it has something for the guest. */
static struct vsock_conn *first(const struct vsock *v)
{
	return TAILQ_EMPTY(&v->fresh) ? TAILQ_FIRST(&v->ready) : TAILQ_FIRST(&v->fresh);
}

/* Whether there is a packet to send, for v->rst or the first() connection. */
static bool has_work(struct vsock *v)
{
	struct vsock_conn *c;

	if (v->rst_count)
		return true;
	while ((c = first(v))) {
		if (!c->pend && conn_has_data(c) && !conn_credit(c) && !c->asked_credit) {
			c->asked_credit = true;
			c->pend |= PEND_CREDIT_REQ;
		}
		if (c->pend || (conn_has_data(c) && conn_credit(c)))
			return true;
		conn_not_ready(c);
	}
	return false;
}

/* Takes the next buffer that can hold a packet; false where there is none now. */
static bool pop_buf(struct vsock *v, unsigned *budget)
{
	struct vq *q = &v->dev.queue[VSOCK_RXQ];

	while (*budget) {
		(*budget)--;
		switch (vq_pop(q, &v->chain)) {
		case VQ_OK:
			if (v->chain.in_len > VSOCK_HDR)
				return true;
			/* fallthrough */
		case VQ_REJECT:
			v->stats.dropped++;
			vq_push(q, v->chain.head, 0);
			break;
		case VQ_EMPTY:
			if (!virtio_want_kick(&v->dev, q))
				return false;
			vq_kicks_off(q);
			break;
		case VQ_BAD:
			virtio_fail(&v->dev);
			return false;
		}
	}
	virtio_schedule(&v->dev);
	return false;
}

void vsock_rx_run(struct vsock *v)
{
	struct vq *q = &v->dev.queue[VSOCK_RXQ];
	unsigned budget = q->size;

	if (v->rx.conn || v->gated || v->reset_pending || !virtio_live(&v->dev) || !q->live ||
		!has_work(v))
		return;
	vq_kicks_off(q);
	do {
		struct vsock_conn *c = first(v);

		if (!pop_buf(v, &budget))
			break;
		if (v->rst_count)
			send_rst(v);
		else if (c->pend)
			send_pending(c);
		else
			start_read(c);
	} while (!v->rx.conn && has_work(v));
	virtio_used_soon(&v->dev, q);
}

/* The event queue. */

void vsock_open_gate(struct vsock *v)
{
	v->gated = v->event_pending = false;
	v->gate_due_ns = 0;
}

/*
 * How many event buffers the guest has out; arranges for a kick when it adds one. At once, because
 * to a ring that looks at a queue it wants, those that stay in it would be news in every turn.
 */
static unsigned event_buffers(struct vsock *v)
{
	struct vq *q = &v->dev.queue[VSOCK_EVENTQ];
	u16 head[VQ_SIZE_MAX];
	unsigned n = 0;

	do {
		enum vq_result r = vq_pop(q, &v->chain);

		if (r == VQ_BAD)
			virtio_fail(&v->dev);
		if (r == VQ_OK || r == VQ_REJECT)
			head[n++] = v->chain.head;
	} while (n < q->size && vq_kicks_on(q));
	for (unsigned i = n; i-- > 0;)
		vq_unpop(q, head[i]);
	return n;
}

/* Tells the guest that its connections are gone; false where it has no buffer for that. */
static bool send_event(struct vsock *v)
{
	const struct virtio_vsock_event ev = {
		.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
	struct vq *q = &v->dev.queue[VSOCK_EVENTQ];
	const struct vq_chain *c = &v->chain;
	bool sent = false;

	for (unsigned i = 0; i < q->size && !sent; i++) {
		enum vq_result r = vq_pop(q, &v->chain);

		if (r == VQ_BAD)
			virtio_fail(&v->dev);
		if (r == VQ_BAD || r == VQ_EMPTY)
			break;
		sent = iov_from_host(c->iov + c->out_count, c->in_count, 0, &ev,
			       c->in_len < EVENT_LEN ? 0 : EVENT_LEN) == EVENT_LEN;
		if (!sent)
			v->stats.dropped++;
		vq_push(q, c->head, sent ? EVENT_LEN : 0);
	}
	virtio_used_soon(&v->dev, q);
	return sent;
}

void vsock_event_run(struct vsock *v)
{
	if (!v->gated || v->reset_pending || !virtio_live(&v->dev))
		return;
	if (!v->dev.queue[VSOCK_EVENTQ].live) {
		vsock_open_gate(v);
		return;
	}
	if (!v->gate_due_ns) {
		v->gate_due_ns = monotonic_ns() + VSOCK_GATE_NS;
		vsock_timer(v, v->gate_due_ns);
	}
	if (v->event_pending) {
		v->event_pending = !send_event(v);
		v->gate_left = event_buffers(v);
	} else if (event_buffers(v) > v->gate_left) {
		vsock_open_gate(v);
	}
}
