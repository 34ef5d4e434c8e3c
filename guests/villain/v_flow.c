/* SPDX-License-Identifier: Apache-2.0 */
/*
 * v_flow.c - V06 to V09: credit that lies, and more of everything than there should be.
 */
#include "vs.h"

#define SHUT_BOTH 3

static const char nobody[] = "nobody listens on the host";

/* Everything that comes for @c until a good packet, sent now, is answered. Payload is checked. */
static bool receive_all(struct scene *s, struct vs_conn *c)
{
	static u8 data[VS_RX_ROOM];
	struct packet mark = vs_header(s, OP_RW, vs_port(s), VS_PORT_NOBODY), h;

	vs_send(s, &mark, NULL, 0);
	while (vs_recv(s, &h, data, SOON)) {
		u32 at = c->got;

		if (h.op == OP_RST && h.dst_port == mark.src_port)
			return true;
		if (!vs_heard(c, &h) || h.op != OP_RW)
			continue;
		for (u32 i = 0; i < h.len; i++) {
			if (data[i] != (at + i) % 251)
				return complain("byte %u of the stream is wrong", at + i);
		}
	}
	return complain("a packet is not answered any more");
}

/* Lets the host send what it may, and complains unless that is @least to @most bytes in all. What
 * it can send is in its socket at once; but it may take several looks to bring it. */
static bool have_got(struct scene *s, struct vs_conn *c, u32 least, u32 most)
{
	u64 end = kit_cycles() + SOON * TICKS_MS;

	do {
		if (!receive_all(s, c))
			return false;
	} while (c->got < least && kit_cycles() < end);
	if (!receive_all(s, c) || c->got < least || c->got > most)
		return complain("%u bytes came where %u to %u could", c->got, least, most);
	return true;
}

/* What we say about our space: never more than that comes. */
static enum verdict v06_small(struct scene *s)
{
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SOURCE, 0))
		return skip(nobody);
	if (!have_got(s, &c, 0, 0))
		return FAIL;
	c.buf_alloc = 1;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, 1, 1))
		return FAIL;
	c.buf_alloc = 5000;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, 5000, 5000))
		return FAIL;
	/* Less than is under way. */
	c.buf_alloc = 100;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, 5000, 5000))
		return FAIL;
	c.fwd_cnt = 4950;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, 5050, 5050))
		return FAIL;
	vs_say(s, &c, OP_RST, 0);
	return PASS;
}

/* We claim to have consumed what was never sent; arg is how much more. That is not believed. */
static enum verdict v06_ahead(struct scene *s)
{
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SOURCE, 3000))
		return skip(nobody);
	if (!have_got(s, &c, 3000, 3000))
		return FAIL;
	c.fwd_cnt = 3000 + (u32)s->arg;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, 3000, 6000))
		return FAIL;
	c.fwd_cnt = c.got;
	vs_say(s, &c, OP_CREDIT_UPDATE, 0);
	if (!have_got(s, &c, c.got + 3000, c.got + 3000))
		return FAIL;
	vs_say(s, &c, OP_RST, 0);
	return PASS;
}

static enum verdict v06_max(struct scene *s)
{
	struct vs_conn c;

	if (!vs_open(s, &c, PEER_SOURCE, 0xffffffff))
		return skip(nobody);
	if (!have_got(s, &c, SOURCE_BYTES, SOURCE_BYTES))
		return FAIL;
	vs_say(s, &c, OP_SHUTDOWN, SHUT_BOTH);
	return vs_ends(s, &c) ? PASS : FAIL;
}

/* Fills what the host gave us credit for; then what it says is up. */
static bool exhaust(struct scene *s, struct vs_conn *c, const void *data, u32 step)
{
	for (unsigned n = 0; n < 200 && !c->dead; n++) {
		u32 left = c->peer_alloc - (c->sent - c->peer_fwd);

		if (!left) {
			vs_say(s, c, OP_CREDIT_REQUEST, 0);
			if (!receive_all(s, c))
				return false;
			if (c->peer_alloc == c->sent - c->peer_fwd)
				return true;
			continue;
		}
		vs_data(s, c, data, left < step ? left : step);
		if (!receive_all(s, c))
			return false;
	}
	return complain(c->dead ? "a sender within its credit is cut off" :
		"credit for a peer that never reads has no end");
}

/* One byte too many ends that connection, and no other. */
static enum verdict v07_beyond(struct scene *s)
{
	struct vs_conn c, other;
	u8 *data = give(65536, 16);

	/* In this order: what comes for one while we wait for the other is not kept. */
	if (!vs_open(s, &c, PEER_STUCK, 65536) || !vs_open(s, &other, PEER_SOURCE, 100))
		return skip(nobody);
	if (!have_got(s, &other, 100, 100) || !exhaust(s, &c, data, 65536))
		return FAIL;
	vs_data(s, &c, data, 1);
	if (!vs_ends(s, &c))
		return FAIL;
	other.fwd_cnt = 100;
	vs_say(s, &other, OP_CREDIT_UPDATE, 0);
	have_got(s, &other, 200, 200);
	return PASS;
}

/* ---- V08, V09: seen from the host, too ---- */

static bool read_gauge(struct scene *s, struct vs_conn *g, struct gauge *ret)
{
	static u8 data[VS_RX_ROOM];
	void *byte = show("?", 1);
	struct packet h;

	vs_data(s, g, byte, 1);
	while (vs_recv(s, &h, data, SOON)) {
		if (!vs_heard(g, &h) || h.op != OP_RW)
			continue;
		if (h.len != sizeof(*ret))
			break;
		memcpy(ret, data, sizeof(*ret));
		return true;
	}
	return complain("the gauge does not answer");
}

#define FLOOD 1100 /* more than the host's limit */

/* More connections than there can be. Each must be answered, and the rest go on. */
static enum verdict v08_flood(struct scene *s)
{
	unsigned opened = 0, refused = 0;
	struct gauge before, full, after;
	u32 first = 0x10000;
	struct vs_conn g;
	struct packet h;

	if (!vs_open(s, &g, PEER_GAUGE, 65536))
		return skip(nobody);
	if (!read_gauge(s, &g, &before))
		return FAIL;
	for (u32 i = 0; i < FLOOD; i++) {
		h = vs_header(s, OP_REQUEST, first + i, PEER_STUCK);
		vs_send(s, &h, NULL, 0);
		while (opened + refused < i + 1 && vs_recv(s, &h, NULL, i + 1 < FLOOD ? 0 : SOON)) {
			opened += h.op == OP_RESPONSE;
			refused += h.op == OP_RST;
		}
	}
	if (opened + refused != FLOOD || !refused || opened < FLOOD / 2)
		complain("of %u requests %u were opened, %u refused", FLOOD, opened, refused);
	if (!read_gauge(s, &g, &full))
		return FAIL;
	if (full.fds > before.fds + opened + 8 || full.rss_kib > before.rss_kib + 8192)
		complain("%u connections: %u descriptors, %u KiB", opened, full.fds, full.rss_kib);
	for (u32 i = 0; i < FLOOD; i++) {
		h = vs_header(s, OP_RST, first + i, PEER_STUCK);
		vs_send(s, &h, NULL, 0);
	}
	vs_only_answer(s);
	if (read_gauge(s, &g, &after) && after.fds > before.fds + 8)
		complain("%u descriptors are left of %u connections", after.fds, opened);
	return PASS;
}

/* Full of bytes for a host that never reads: that costs memory within credit, and no time. */
static enum verdict v09_stuck(struct scene *s)
{
	struct gauge before, after;
	struct vs_conn g, c[4];
	u8 *data = give(65536, 16);

	if (!vs_open(s, &g, PEER_GAUGE, 65536))
		return skip(nobody);
	for (unsigned i = 0; i < 4; i++) {
		if (!vs_open(s, &c[i], PEER_STUCK, 65536))
			return skip(nobody);
		if (!exhaust(s, &c[i], data, 65536))
			return FAIL;
	}
	if (!read_gauge(s, &g, &before))
		return FAIL;
	for (u64 end = kit_cycles() + 200 * TICKS_MS; kit_cycles() < end;)
		kit_wait(100000000);
	if (!read_gauge(s, &g, &after))
		return FAIL;
	if (after.loop_ns - before.loop_ns > 20000000)
		complain("the loop ran for %lu ns with nothing to do",
			after.loop_ns - before.loop_ns);
	for (unsigned i = 0; i < 4; i++) {
		vs_say(s, &c[i], OP_SHUTDOWN, SHUT_BOTH);
		vs_say(s, &c[i], OP_RST, 0);
	}
	return PASS;
}

/* The host closes while we send. */
static enum verdict v09_closes(struct scene *s)
{
	u8 *data = give(65536, 16);
	struct vs_conn c;

	for (unsigned i = 0; i < 20; i++) {
		if (!vs_open(s, &c, PEER_CLOSER, 65536))
			return skip(nobody);
		for (unsigned n = 0; n < 4; n++)
			vs_data(s, &c, data, 16384);
		while (!c.dead && (c.peer_shut & SHUT_BOTH) != SHUT_BOTH) {
			if (!receive_all(s, &c))
				return FAIL;
		}
		vs_say(s, &c, OP_RST, 0);
	}
	return PASS;
}

const struct act acts_flow[] = {
	{"V06.small", ON_VSOCK, WILL_PASS, v06_small, 0, "peers"},
	{"V06.ahead", ON_VSOCK, WILL_PASS, v06_ahead, 1, "peers"},
	{"V06.far", ON_VSOCK, WILL_PASS, v06_ahead, 0x7fffffff, "peers"},
	{"V06.back", ON_VSOCK, WILL_PASS, v06_ahead, 0xffffffff, "peers"},
	{"V06.max", ON_VSOCK, WILL_PASS, v06_max, 0, "peers"},
	{"V07", ON_VSOCK, WILL_PASS, v07_beyond, 0, "peers"},
	{"V08", ON_VSOCK, WILL_PASS, v08_flood, 0, "peers fds=1100"},
	{"V09.stuck", ON_VSOCK, WILL_PASS, v09_stuck, 0, "peers"},
	{"V09.closes", ON_VSOCK, WILL_PASS, v09_closes, 0, "peers"},
	{0},
};
