/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_packet.c - V01 to V05, V10, V11: packets that say what is not so.
 *
 * What becomes of a packet is seen by the answer to the next one, which must be the next to come.
 */
#include "vs.h"

#define SHUT_SEND 2 /* flags of OP_SHUTDOWN */
#define SHUT_BOTH 3

/* Sends a header, and complains unless an RST for its ports and of its type is the answer. */
static bool reset_by(struct scene *s, const struct packet *h, const void *payload, u32 len)
{
	struct packet got;

	if (!vs_send(s, h, payload, len))
		return false;
	if (!vs_recv(s, &got, NULL, SOON))
		return complain("op %u, type %u, port %u: no answer", h->op, h->type, h->dst_port);
	return got.op == OP_RST && got.dst_port == h->src_port && got.src_port == h->dst_port &&
			got.type == h->type ? true :
		complain("op %u, type %u, port %u: answered by op %u, type %u", h->op, h->type,
			h->dst_port, got.op, got.type);
}

/* ---- V01, V02: who talks to whom ---- */

static enum verdict v01_source(struct scene *s)
{
	const u64 cids[] = {0, 1, VS_HOST, s->cid + 1, 0xffffffff, s->cid | 1ull << 32, ~0ull};

	for (unsigned i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		for (u16 op = OP_REQUEST; op <= OP_CREDIT_REQUEST; op++) {
			struct packet h = vs_header(s, op, vs_port(s), VS_PORT_NOBODY);

			h.src_cid = cids[i];
			vs_send(s, &h, NULL, 0);
		}
		if (!vs_only_answer(s))
			return FAIL;
	}
	return PASS;
}

static enum verdict v01_destination(struct scene *s)
{
	const u64 cids[] = {0, 1, s->cid + 1, 0xffffffff, VS_HOST | 1ull << 32, ~0ull};

	for (unsigned i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		struct packet h = vs_header(s, OP_REQUEST, vs_port(s), PEER_SINK);

		h.dst_cid = cids[i];
		vs_send(s, &h, NULL, 0);
		if (!vs_only_answer(s))
			return FAIL;
	}
	return PASS;
}

static enum verdict v02_ports(struct scene *s)
{
	static const u32 ports[] = {0, 1, VS_PORT_NOBODY, 0x7fffffff, 0x80000000, 0xffffffff};

	for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		struct packet h = vs_header(s, OP_REQUEST, vs_port(s), ports[i]);

		if (!reset_by(s, &h, NULL, 0))
			return FAIL;
		h = vs_header(s, OP_REQUEST, ports[i], VS_PORT_NOBODY);
		if (!reset_by(s, &h, NULL, 0))
			return FAIL;
	}
	return PASS;
}

static enum verdict v02_self(struct scene *s)
{
	struct packet h = vs_header(s, OP_REQUEST, vs_port(s), vs_port(s));

	h.dst_cid = s->cid;
	vs_send(s, &h, NULL, 0);
	vs_only_answer(s);
	return PASS;
}

/* A second REQUEST on a connection ends it; then the same ports are good again. */
static enum verdict v02_duplicate(struct scene *s)
{
	struct vs_conn c;

	for (unsigned i = 0; i < 20; i++) {
		struct packet h;

		if (!vs_open(s, &c, PEER_SINK, 65536))
			return skip("nobody listens on the host");
		vs_say(s, &c, OP_REQUEST, 0);
		if (!vs_ends(s, &c))
			return FAIL;
		h = vs_header(s, OP_REQUEST, c.port, c.peer);
		vs_send(s, &h, NULL, 0);
		if (!vs_expect(s, OP_RESPONSE, c.port, &h))
			return FAIL;
		vs_say(s, &c, OP_RST, 0);
	}
	vs_only_answer(s);
	return PASS;
}

/* ---- V03: operations and types that nobody knows ---- */

static const u16 strange_ops[] = {0, 8, 9, 0x7f, 0x100, 0x8005, 0xffff};

static enum verdict v03_op(struct scene *s)
{
	for (unsigned i = 0; i < sizeof(strange_ops) / sizeof(strange_ops[0]); i++) {
		struct packet h = vs_header(s, strange_ops[i], vs_port(s), PEER_SINK);

		if (!reset_by(s, &h, NULL, 0))
			return FAIL;
	}
	return PASS;
}

static enum verdict v03_op_open(struct scene *s)
{
	struct vs_conn c;

	for (unsigned i = 0; i < sizeof(strange_ops) / sizeof(strange_ops[0]); i++) {
		if (!vs_open(s, &c, PEER_SINK, 65536))
			return skip("nobody listens on the host");
		vs_say(s, &c, strange_ops[i], 0);
		if (!vs_ends(s, &c))
			return FAIL;
	}
	return PASS;
}

static enum verdict v03_type(struct scene *s)
{
	static const u16 types[] = {0, 2 /* SEQPACKET, not agreed on */, 3, 0x100, 0xffff};

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		for (u16 op = OP_REQUEST; op <= OP_CREDIT_REQUEST; op++) {
			struct packet h = vs_header(s, op, vs_port(s), PEER_SINK);

			h.type = types[i];
			if (op == OP_RST) {
				vs_send(s, &h, NULL, 0);
				vs_only_answer(s);
			} else {
				reset_by(s, &h, NULL, 0);
			}
			if (complained())
				return FAIL;
		}
	}
	return PASS;
}

/* ---- V04: lengths ---- */

static const u32 lies[] = {11, 100, 0xffff, 0x10000, 0x10001, 0x7fffffff, 0xffffffd4, 0xffffffff};
static const u8 ten[10] = {0};

static enum verdict v04_len(struct scene *s)
{
	void *payload = show(ten, sizeof(ten));

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct packet h = vs_header(s, OP_RW, vs_port(s), VS_PORT_NOBODY);

		h.len = lies[i];
		if (!reset_by(s, &h, payload, sizeof(ten)) || !reset_by(s, &h, NULL, 0))
			return FAIL;
	}
	return PASS;
}

static enum verdict v04_len_open(struct scene *s)
{
	void *payload = show(ten, sizeof(ten));
	struct vs_conn c;

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct packet h;

		if (!vs_open(s, &c, PEER_SINK, 65536))
			return skip("nobody listens on the host");
		h = vs_header(s, OP_RW, c.port, c.peer);
		h.len = lies[i];
		vs_send(s, &h, payload, sizeof(ten));
		if (!vs_ends(s, &c))
			return FAIL;
	}
	return PASS;
}

/* More than 64 KiB, all of it there; and bytes behind what len says, which do not count. */
static enum verdict v04_big(struct scene *s)
{
	u8 *mem = give(0x10001, 16);
	struct packet h;
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SINK, 65536))
		return skip("nobody listens on the host");
	h = vs_header(s, OP_RW, c.port, c.peer);
	h.len = 5;
	vs_send(s, &h, mem, 1000);
	h.len = 0;
	vs_send(s, &h, mem, 1000);
	vs_data(s, &c, mem, 0x10000);
	vs_data(s, &c, mem, 0x10001);
	return vs_ends(s, &c) ? PASS : FAIL;
}

/* ---- V05: at the wrong moment ---- */

static enum verdict v05_no_connection(struct scene *s)
{
	for (u16 op = OP_RESPONSE; op <= OP_CREDIT_REQUEST; op++) {
		struct packet h = vs_header(s, op, vs_port(s), PEER_SINK);

		if (op == OP_RST)
			continue;
		h.flags = SHUT_BOTH;
		if (!reset_by(s, &h, NULL, 0))
			return FAIL;
	}
	return PASS;
}

static enum verdict v05_after_shutdown(struct scene *s)
{
	void *payload = show(ten, sizeof(ten));
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_STUCK, 65536))
		return skip("nobody listens on the host");
	vs_say(s, &c, OP_SHUTDOWN, SHUT_SEND);
	vs_data(s, &c, payload, sizeof(ten));
	return vs_ends(s, &c) ? PASS : FAIL;
}

/* Request and data in one batch: no RESPONSE can have come. */
static enum verdict v05_before_response(struct scene *s)
{
	struct packet h = vs_header(s, OP_REQUEST, vs_port(s), PEER_SINK);
	void *payload = show(ten, sizeof(ten));
	struct raw_queue *q = s->q;
	void *request = show(&h, sizeof(h)), *data;
	u16 head;
	u32 len;

	h.op = OP_RW;
	h.len = sizeof(ten);
	data = show(&h, sizeof(h));
	raw_desc(q, 0, (u64)request, sizeof(h), 0, 0);
	raw_desc(q, 1, (u64)data, sizeof(h), D_NEXT, 2);
	raw_desc(q, 2, (u64)payload, sizeof(ten), 0, 0);
	raw_post(q, 0);
	raw_post(q, 1);
	raw_kick(&s->dev, q);
	if (!vs_expect(s, OP_RST, h.src_port, &h))
		return FAIL;
	while (raw_take(q, &head, &len))
		;
	vs_only_answer(s);
	return PASS;
}

/* A RESPONSE nobody asked for, on an open connection. */
static enum verdict v05_response(struct scene *s)
{
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SINK, 65536))
		return skip("nobody listens on the host");
	vs_say(s, &c, OP_RESPONSE, 0);
	return vs_ends(s, &c) ? PASS : FAIL;
}

/* ---- V10, V11 ---- */

static enum verdict v10_storm(struct scene *s)
{
	const u16 batch = SIZE / 2;
	u16 head;
	u32 len;

	s->aim->quick(s);
	for (u16 i = 0; i < batch; i++)
		lay(s, i);
	for (unsigned n = 0; n < 300; n++) {
		for (u16 i = 0; i < batch; i++)
			raw_post(s->q, i);
		raw_kick(&s->dev, s->q);
		for (u16 i = 0; i < batch;) {
			if (raw_wait(&s->dev, s->q, SOON) != USED) {
				complain("RSTs are not taken any more");
				return FAIL;
			}
			for (; raw_take(s->q, &head, &len); i++)
				;
		}
	}
	vs_only_answer(s);
	return PASS;
}

/* The same two ports again and again, ended by us. */
static enum verdict v10_reuse(struct scene *s)
{
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SINK, 65536))
		return skip("nobody listens on the host");
	for (unsigned i = 0; i < 200; i++) {
		struct packet h;

		vs_say(s, &c, OP_RST, 0);
		vs_say(s, &c, OP_REQUEST, 0);
		if (!vs_recv(s, &h, NULL, SOON) || h.op != OP_RESPONSE || h.dst_port != c.port) {
			complain("round %u: op %u instead of a RESPONSE", i, h.op);
			return FAIL;
		}
	}
	vs_say(s, &c, OP_RST, 0);
	vs_only_answer(s);
	return PASS;
}

/* Event buffers too short for an event, readable, or nowhere. */
static enum verdict v11_events(struct scene *s)
{
	struct raw_queue *q = &s->dev.q[VS_EVENT];

	raw_desc(q, 0, (u64)give(1, 1), 1, D_WRITE, 0);
	raw_desc(q, 1, (u64)give(3, 1), 3, D_WRITE, 0);
	raw_desc(q, 2, (u64)show(ten, 4), 4, 0, 0);
	raw_desc(q, 3, ram_end(), 4, D_WRITE, 0);
	for (u16 i = 0; i < 4; i++)
		raw_post(q, i);
	raw_kick(&s->dev, q);
	good(s);
	return PASS;
}

const struct act acts_packet[] = {
	{"V01.from", ON_VSOCK, WILL_PASS, v01_source},
	{"V01.to", ON_VSOCK, WILL_PASS, v01_destination},
	{"V02.ports", ON_VSOCK, WILL_PASS, v02_ports},
	{"V02.self", ON_VSOCK, WILL_PASS, v02_self},
	{"V02.duplicate", ON_VSOCK, WILL_PASS, v02_duplicate, 0, "peers"},
	{"V03.op", ON_VSOCK, WILL_PASS, v03_op},
	{"V03.open", ON_VSOCK, WILL_PASS, v03_op_open, 0, "peers"},
	{"V03.type", ON_VSOCK, WILL_PASS, v03_type},
	{"V04.len", ON_VSOCK, WILL_PASS, v04_len},
	{"V04.open", ON_VSOCK, WILL_PASS, v04_len_open, 0, "peers"},
	{"V04.big", ON_VSOCK, WILL_PASS, v04_big, 0, "peers"},
	{"V05.none", ON_VSOCK, WILL_PASS, v05_no_connection},
	{"V05.shutdown", ON_VSOCK, WILL_PASS, v05_after_shutdown, 0, "peers"},
	{"V05.early", ON_VSOCK, WILL_PASS, v05_before_response, 0, "peers"},
	{"V05.response", ON_VSOCK, WILL_PASS, v05_response, 0, "peers"},
	{"V10.storm", ON_VSOCK, WILL_PASS, v10_storm},
	{"V10.reuse", ON_VSOCK, WILL_PASS, v10_reuse, 0, "peers"},
	{"V11", ON_VSOCK, WILL_PASS, v11_events},
	{0},
};
