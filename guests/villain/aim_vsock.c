/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aim_vsock.c - cases aimed at a vsock device, at its transmit or at its receive queue.
 *
 * The request is a packet for a connection that does not exist: the device must answer it with an
 * RST. Nobody is needed on the host for that, and both queues take part: aimed at transmit, the
 * chain with the packet is what cases deform; aimed at receive, the chain for the answer.
 */
#include "vs.h"

#define TX_SIZE    16
#define EVENT_SIZE 4
#define PAYLOAD    64 /* of the request, so that there is something to cut up */

static u8 *rx_buffer[VS_RX_COUNT];
static struct packet *tx_header[QUEUE_MAX / 2]; /* one for each slot of two descriptors */

u32 vs_port(struct scene *s)
{
	if (s->port < VS_PORT_FIRST)
		s->port = VS_PORT_FIRST;
	return s->port++;
}

struct packet vs_header(const struct scene *s, u16 op, u32 src_port, u32 dst_port)
{
	return (struct packet){
		.src_cid = s->cid,
		.dst_cid = VS_HOST,
		.src_port = src_port,
		.dst_port = dst_port,
		.type = VS_STREAM,
		.op = op,
		.buf_alloc = 65536,
	};
}

/* ---- packets by good chains ---- */

u16 vs_put(struct scene *s, const struct packet *h, const void *payload, u32 len)
{
	struct raw_queue *q = &s->dev.q[VS_TX];
	u16 slot = q->posted % (q->size / 2) * 2;
	struct packet *mem = tx_header[slot / 2];

	if (!mem)
		mem = tx_header[slot / 2] = show(h, sizeof(*h));
	*mem = *h;
	show_again(mem);
	raw_desc(q, slot, (u64)mem, sizeof(*h), len ? D_NEXT : 0, len ? slot + 1 : 0);
	if (len)
		raw_desc(q, slot + 1, (u64)payload, len, 0, 0);
	raw_post(q, slot);
	raw_kick(&s->dev, q);
	return slot;
}

bool vs_send(struct scene *s, const struct packet *h, const void *payload, u32 len)
{
	struct raw_queue *q = &s->dev.q[VS_TX];
	u16 slot = vs_put(s, h, payload, len), head;
	u32 used;

	if (raw_wait(&s->dev, q, SOON) != USED)
		return complain("a packet is not taken");
	raw_take(q, &head, &used);
	return head == slot && !used ? true : complain("a packet comes back wrong");
}

void vs_rx_fill(struct scene *s, u16 count)
{
	struct raw_queue *q = &s->dev.q[VS_RX];

	for (u16 i = 0; i < count; i++) {
		rx_buffer[i] = give(VS_RX_ROOM, 16);
		raw_desc(q, i, (u64)rx_buffer[i], VS_RX_ROOM, D_WRITE, 0);
		raw_post(q, i);
	}
	raw_kick(&s->dev, q);
}

bool vs_recv(struct scene *s, struct packet *h, void *data, unsigned ms)
{
	struct raw_queue *q = &s->dev.q[VS_RX];
	u16 head;
	u32 len;

	if (raw_wait(&s->dev, q, ms) != USED)
		return false;
	raw_take(q, &head, &len);
	if (head >= VS_RX_COUNT || len < sizeof(*h) || len > VS_RX_ROOM)
		return complain("receive buffer %u comes back with %u bytes", head, len);
	memcpy(h, rx_buffer[head], sizeof(*h));
	if (h->len != len - sizeof(*h))
		complain("a packet says %u bytes, and has %lu", h->len, len - sizeof(*h));
	if (data)
		memcpy(data, rx_buffer[head] + sizeof(*h), len - sizeof(*h));
	for (u32 i = len; i < VS_RX_ROOM; i++) {
		if (rx_buffer[head][i] != FILL)
			return complain("byte %u of a packet of %u was written", i, len);
	}
	memset(rx_buffer[head], FILL, len);
	raw_post(q, head);
	raw_kick(&s->dev, q);
	if (h->src_cid != VS_HOST || h->dst_cid != s->cid)
		return complain("a packet from %lu to %lu", h->src_cid, h->dst_cid);
	return true;
}

bool vs_expect(struct scene *s, u16 op, u32 port, struct packet *h)
{
	while (vs_recv(s, h, NULL, SOON)) {
		if (h->dst_port == port && h->op == op)
			return true;
	}
	return complain("no packet with op %u for port %u", op, port);
}

bool vs_only_answer(struct scene *s)
{
	struct packet h = vs_header(s, OP_RW, vs_port(s), VS_PORT_NOBODY), got;

	if (!vs_send(s, &h, NULL, 0))
		return false;
	if (!vs_recv(s, &got, NULL, SOON))
		return complain("a packet is not answered");
	return got.op == OP_RST && got.dst_port == h.src_port ? true :
		complain("a packet was answered that must be dropped: op %u, port %u", got.op,
			got.dst_port);
}

/* ---- connections ---- */

bool vs_open(struct scene *s, struct vs_conn *c, u32 peer, u32 buf_alloc)
{
	struct packet h;

	memset(c, 0, sizeof(*c));
	c->port = vs_port(s);
	c->peer = peer;
	c->buf_alloc = buf_alloc;
	vs_say(s, c, OP_REQUEST, 0);
	while (!c->open && !c->dead && vs_recv(s, &h, NULL, SOON))
		vs_heard(c, &h);
	return c->open;
}

void vs_say(struct scene *s, struct vs_conn *c, u16 op, u32 flags)
{
	struct packet h = vs_header(s, op, c->port, c->peer);

	h.flags = flags;
	h.buf_alloc = c->buf_alloc;
	h.fwd_cnt = c->fwd_cnt;
	vs_send(s, &h, NULL, 0);
}

void vs_data(struct scene *s, struct vs_conn *c, const void *data, u32 len)
{
	struct packet h = vs_header(s, OP_RW, c->port, c->peer);

	h.len = len;
	h.buf_alloc = c->buf_alloc;
	h.fwd_cnt = c->fwd_cnt;
	c->sent += len;
	vs_send(s, &h, data, len);
}

bool vs_heard(struct vs_conn *c, const struct packet *h)
{
	if (h->dst_port != c->port || h->src_port != c->peer)
		return false;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	switch (h->op) {
	case OP_RESPONSE: c->open = true; break;
	case OP_RST: c->open = false; c->dead = true; break;
	case OP_SHUTDOWN: c->peer_shut |= h->flags; break;
	case OP_RW: c->got += h->len; break;
	}
	return true;
}

bool vs_ends(struct scene *s, struct vs_conn *c)
{
	struct packet h;

	while (!c->dead && vs_recv(s, &h, NULL, SOON))
		vs_heard(c, &h);
	return c->dead ? true : complain("no RST for port %u", c->port);
}

/* ---- the aims ---- */

static bool start_vsock(struct scene *s, u16 size)
{
	struct raw_dev *d = &s->dev;

	memset(tx_header, 0, sizeof(tx_header));
	s->cid = reg_get(d, REG_CONFIG);
	raw_ready(d, raw_rings(d, VS_RX, s->aim->queue == VS_RX ? size : VS_RX_COUNT));
	raw_ready(d, raw_rings(d, VS_TX, s->aim->queue == VS_TX ? size : TX_SIZE));
	raw_ready(d, raw_rings(d, VS_EVENT, EVENT_SIZE));
	raw_go(d);
	if (s->aim->queue == VS_TX)
		vs_rx_fill(s, VS_RX_COUNT);
	return true;
}

static void request_tx(struct scene *s)
{
	struct packet h = vs_header(s, OP_RW, vs_port(s), VS_PORT_NOBODY);
	u8 payload[PAYLOAD];

	memset(payload, 0x5a, sizeof(payload));
	h.len = sizeof(payload);
	s->seg[0] = (struct seg){(u64)show(&h, sizeof(h)), sizeof(h), 0};
	s->seg[1] = (struct seg){(u64)show(payload, sizeof(payload)), sizeof(payload), 0};
	s->segs = 2;
}

/* An RST for a connection that does not exist. */
static void quick(struct scene *s)
{
	struct packet h = vs_header(s, OP_RST, vs_port(s), VS_PORT_NOBODY);

	s->seg[0] = (struct seg){(u64)show(&h, sizeof(h)), sizeof(h), 0};
	s->segs = 1;
}

static void provoke_tx(struct scene *s)
{
	raw_kick(&s->dev, s->q);
}

static bool answered_tx(struct scene *s, u32 len)
{
	struct packet h;

	if (len)
		return complain("%u bytes are used of a chain that has none to write", len);
	if (!vs_expect(s, OP_RST, s->port - 1, &h))
		return false;
	return h.src_port == VS_PORT_NOBODY && h.type == VS_STREAM && !h.len ? true :
		complain("the RST is wrong: from port %u, type %u, %u bytes", h.src_port, h.type,
			h.len);
}

static bool refused_tx(struct scene *s, u32 len)
{
	(void)s;
	return !len ? true : complain("a bad chain comes back with %u bytes", len);
}

static void request_rx(struct scene *s)
{
	s->seg[0] = (struct seg){(u64)give(1024, 16), 1024, D_WRITE};
	s->segs = 1;
}

static void provoke_rx(struct scene *s)
{
	struct packet h = vs_header(s, OP_RW, vs_port(s), VS_PORT_NOBODY);
	u16 head;
	u32 len;

	while (raw_take(&s->dev.q[VS_TX], &head, &len))
		;
	raw_kick(&s->dev, s->q);
	vs_put(s, &h, NULL, 0);
}

static bool answered_rx(struct scene *s, u32 len)
{
	struct packet h;

	if (len != sizeof(h) || gather(s, &h, sizeof(h)) != sizeof(h))
		return complain("%u bytes are used for an RST", len);
	/* A bad chain before may have left the RST of an earlier packet. */
	if (h.op != OP_RST || h.src_cid != VS_HOST || h.dst_cid != s->cid ||
		h.src_port != VS_PORT_NOBODY || h.dst_port < VS_PORT_FIRST || h.dst_port >= s->port)
		return complain("no RST: op %u, from %lu:%u", h.op, h.src_cid, h.src_port);
	return tail_untouched(s, len);
}

const struct aim aim_vsock = {
	.name = "vsock",
	.bit = ON_VSOCK,
	.device_id = VIRTIO_ID_VSOCK,
	.queue = VS_TX,
	.start = start_vsock,
	.request = request_tx,
	.quick = quick,
	.provoke = provoke_tx,
	.answered = answered_tx,
	.refused = refused_tx,
};

const struct aim aim_vsock_rx = {
	.name = "vsock-rx",
	.bit = ON_VSOCK_RX,
	.device_id = VIRTIO_ID_VSOCK,
	.queue = VS_RX,
	.start = start_vsock,
	.request = request_rx,
	.provoke = provoke_rx,
	.answered = answered_rx,
	.refused = refused_tx,
};
