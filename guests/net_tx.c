/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_tx.c - mode=tx of the net guest: frames to the host as fast as they go.
 *
 *	count=N      frames (100000)
 *	size=S       bytes of each, Ethernet header included (1514; with gso= the most there can be)
 *	gso=S        the host or the card is to cut them into segments of S bytes; where that cannot be
 *	             negotiated they are plain frames of at most 1514 bytes
 *	udp          UDP, not TCP; port=N to this port (9)
 *
 * Adds "gso" and "size", as they were used, to the result. TCP frames look like one connection's
 * data: sequence numbers go up; nobody is expected to listen. Checksums are left to the card where
 * it takes them. The frame is put into a slot once: what is measured is the way out, not this guest.
 */
#include "net.h"

#define BATCH 8 /* frames for each kick: the device begins while we prepare more */

#define GSO_MOST 65535 /* of IP packet */

static u16 headers; /* bytes before the payload */

static bool start(void)
{
	static const u8 nobody[6] = {0x02, 0, 0, 0, 0, 0xfe};

	headers = opt.udp ? sizeof(struct udp) : sizeof(struct tcp);
	if (!net_has(&card, opt.udp ? NET_F_HOST_USO : NET_F_HOST_TSO4))
		opt.gso = 0;
	if (!opt.gso && (!opt.size || opt.size > card.mtu + sizeof(struct eth)))
		opt.size = card.mtu + (u32)sizeof(struct eth);
	else if (opt.gso && (!opt.size || opt.size > GSO_MOST + sizeof(struct eth)))
		opt.size = GSO_MOST + (u32)sizeof(struct eth);
	if (opt.size < headers) {
		kit_printf("net: size=%u leaves no room for headers\n", opt.size);
		return false;
	}
	if (!opt.have_peer_mac)
		memcpy(opt.peer_mac, nobody, sizeof(nobody));
	if (!opt.frames)
		opt.frames = 100000;
	if (!opt.port)
		opt.port = 9;
	wants_room = true;
	return true;
}

/* The frame for a slot, with a checksum that covers only the pseudo header. */
static void build(u8 *frame)
{
	u32 len = opt.size - (u32)sizeof(struct eth);
	struct tcp *t = (void *)frame;
	struct udp *u = (void *)frame;

	memset(frame, 0, headers);
	for (u32 i = headers; i < opt.size; i++)
		frame[i] = (u8)(i * 7 + 3);
	inet_ip(&t->ip, card.mac, opt.peer_mac, opt.ip, opt.peer, opt.udp ? IP_UDP : IP_TCP, len, 1);
	u->src_port = u->dst_port = be16(opt.port);
	if (opt.udp) {
		u->len = be16((u16)(len - 20));
		u->sum = inet_pseudo(&u->ip);
	} else {
		t->off = 5 << 4;
		t->flags = 0x10; /* ACK */
		t->window = 0xffff;
		t->sum = inet_pseudo(&t->ip);
	}
}

static void send_one(unsigned pair, struct net_slot *s)
{
	struct tcp *t = (void *)s->data;

	s->h->flags = NET_H_NEEDS_CSUM;
	s->h->csum_start = sizeof(struct ip);
	s->h->csum_offset = opt.udp ? 6 : 16;
	if (opt.gso && opt.size > headers + opt.gso) {
		s->h->gso_type = opt.udp ? NET_GSO_UDP : NET_GSO_TCP4;
		s->h->gso_size = (u16)opt.gso;
		s->h->hdr_len = headers;
	}
	if (!s->user)
		build(s->data);
	if (!net_has(&card, NET_F_CSUM)) {
		if (!s->user)
			inet_complete(s->h, s->data, opt.size);
		s->h->flags = 0;
	} else if (!opt.udp) {
		t->seq = be32((u32)seen.frames * (opt.size - headers));
	}
	s->user = 1;
	send_frame(pair, s, opt.size);
	seen.frames++;
	seen.bytes += opt.size;
}

static bool step(void)
{
	unsigned pair = (unsigned)(seen.frames / BATCH % card.pair_count), i = 0;
	struct net_slot *s;

	if (!seen.frames)
		seen.first = kit_cycles();
	for (; i < BATCH && seen.frames < opt.frames && (s = net_slot(&card, pair)); i++)
		send_one(pair, s);
	if (seen.frames < opt.frames)
		return i > 0;
	for (pair = 0; pair < card.pair_count; pair++) {
		if (net_in_flight(&card, pair))
			return i > 0;
	}
	seen.last = kit_cycles();
	finished = true;
	return true;
}

static void report(char *text, size_t cap)
{
	snprintf(text, cap, ",\"size\":%u,\"gso\":%u", opt.size, opt.gso);
}

const struct net_mode mode_tx = {
	.name = "tx", .sends = true, .start = start, .step = step, .report = report};
