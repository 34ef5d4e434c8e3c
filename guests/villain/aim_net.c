/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aim_net.c - cases aimed at a network device, at its transmit or at its receive queue.
 *
 * The request is an ARP request for the host's address; the answer has to come in. Other frames
 * may come at any time and are ignored.
 */
#include "net.h"

#define TX_SIZE 16

static u8 *rx_buffer[NET_RX_COUNT];
static u8 host_ip[4] = {10, 0, 2, 2}, my_ip[4];

static void read_ip(void)
{
	char text[32];
	const char *p = text;

	for (unsigned i = 0; kit_option("ip", text, sizeof(text)) && i < 4; i++) {
		host_ip[i] = (u8)strtoul(p, &p, 10);
		p += *p == '.';
	}
	memcpy(my_ip, host_ip, 4);
	my_ip[3]++;
}

void net_arp(const struct scene *s, u8 frame[FRAME], const u8 mac[6])
{
	static const u8 fixed[8] = {0, 1, 8, 0, 6, 4, 0, 1}; /* Ethernet, IPv4, a request */

	(void)s;
	memset(frame, 0, FRAME);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	frame[12] = 8;
	frame[13] = 6;
	memcpy(frame + 14, fixed, sizeof(fixed));
	memcpy(frame + 22, mac, 6);
	memcpy(frame + 28, my_ip, 4);
	memcpy(frame + 38, host_ip, 4);
}

bool net_is_answer(const struct scene *s, const u8 *frame, u32 len)
{
	return len >= 42 && memcmp(frame, s->mac, 6) == 0 && frame[12] == 8 && frame[13] == 6 &&
	       frame[20] == 0 && frame[21] == 2 && memcmp(frame + 28, host_ip, 4) == 0;
}

u16 net_put(struct scene *s, const struct net_header *h, const void *frame, u32 len)
{
	struct raw_queue *q = &s->dev.q[NET_TX];
	u16 slot = q->posted % (q->size / 2) * 2;

	raw_desc(q, slot, (u64)show(h, sizeof(*h)), sizeof(*h), len ? D_NEXT : 0,
		len ? slot + 1 : 0);
	if (len)
		raw_desc(q, slot + 1, (u64)show(frame, len), len, 0, 0);
	raw_post(q, slot);
	raw_kick(&s->dev, q);
	return slot;
}

static void rx_fill(struct scene *s)
{
	struct raw_queue *q = &s->dev.q[NET_RX];

	for (u16 i = 0; i < NET_RX_COUNT; i++) {
		rx_buffer[i] = give(NET_RX_ROOM, 16);
		raw_desc(q, i, (u64)rx_buffer[i], NET_RX_ROOM, D_WRITE, 0);
		raw_post(q, i);
	}
	raw_kick(&s->dev, q);
}

bool net_expect(struct scene *s, unsigned ms)
{
	struct raw_queue *q = &s->dev.q[NET_RX];
	u64 end = kit_cycles() + ms * TICKS_MS;
	bool found = false;
	u16 head;
	u32 len;

	while (!found && kit_cycles() < end && raw_wait(&s->dev, q, ms) == USED) {
		raw_take(q, &head, &len);
		if (head >= NET_RX_COUNT || len < sizeof(struct net_header) || len > NET_RX_ROOM)
			return complain("receive buffer %u comes back with %u bytes", head, len);
		found = net_is_answer(s, rx_buffer[head] + sizeof(struct net_header),
			len - sizeof(struct net_header));
		for (u32 i = len; i < NET_RX_ROOM; i++) {
			if (rx_buffer[head][i] != FILL)
				return complain("byte %u of a frame of %u was written", i, len);
		}
		memset(rx_buffer[head], FILL, len);
		raw_post(q, head);
		raw_kick(&s->dev, q);
	}
	return found;
}

/* ---- the aims ---- */

static bool start_net(struct scene *s, u16 size)
{
	struct raw_dev *d = &s->dev;

	read_ip();
	for (unsigned i = 0; i < 6; i++)
		s->mac[i] = *(volatile u8 *)(d->base_gpa + REG_CONFIG + i);
	raw_ready(d, raw_rings(d, NET_RX, s->aim->queue == NET_RX ? size : NET_RX_COUNT));
	raw_ready(d, raw_rings(d, NET_TX, s->aim->queue == NET_TX ? size : TX_SIZE));
	raw_go(d);
	if (s->aim->queue == NET_TX)
		rx_fill(s);
	return true;
}

/* The kernel opens the way out of a TAP a while after somebody opened the TAP: until then answers
 * are lost. */
static void warm(struct scene *s)
{
	static const struct net_header h;
	struct raw_queue *tx = &s->dev.q[NET_TX];
	u64 end = kit_cycles() + SOON * TICKS_MS;
	u8 frame[FRAME];
	u16 head;
	u32 len;

	if (s->aim->queue == NET_RX)
		rx_fill(s);
	net_arp(s, frame, s->mac);
	do {
		while (raw_take(tx, &head, &len))
			;
		net_put(s, &h, frame, FRAME);
	} while (!net_expect(s, 20) && kit_cycles() < end);
}

static void request_tx(struct scene *s)
{
	static const struct net_header h;
	u8 frame[FRAME];

	net_arp(s, frame, s->mac);
	s->seg[0] = (struct seg){(u64)show(&h, sizeof(h)), sizeof(h), 0};
	s->seg[1] = (struct seg){(u64)show(frame, FRAME), FRAME, 0};
	s->segs = 2;
}

/* A frame that nobody answers: of a type for experiments, to nobody. */
static void quick(struct scene *s)
{
	u8 packet[sizeof(struct net_header) + FRAME] = {0};
	u8 *frame = packet + sizeof(struct net_header);

	frame[0] = 2;
	memcpy(frame + 6, s->mac, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	s->seg[0] = (struct seg){(u64)show(packet, sizeof(packet)), sizeof(packet), 0};
	s->segs = 1;
}

static void provoke_tx(struct scene *s)
{
	raw_kick(&s->dev, s->q);
}

static bool answered_tx(struct scene *s, u32 len)
{
	if (len)
		return complain("%u bytes are used of a chain that has none to write", len);
	return net_expect(s, SOON) ? true : complain("no answer to an ARP request");
}

static bool refused(struct scene *s, u32 len)
{
	(void)s;
	return !len ? true : complain("a bad chain comes back with %u bytes", len);
}

static void request_rx(struct scene *s)
{
	s->seg[0] = (struct seg){(u64)give(NET_RX_ROOM, 16), NET_RX_ROOM, D_WRITE};
	s->segs = 1;
}

static void provoke_rx(struct scene *s)
{
	static const struct net_header h;
	u8 frame[FRAME];
	u16 head;
	u32 len;

	while (raw_take(&s->dev.q[NET_TX], &head, &len))
		;
	net_arp(s, frame, s->mac);
	raw_kick(&s->dev, s->q);
	net_put(s, &h, frame, FRAME);
}

static bool answered_rx(struct scene *s, u32 len)
{
	u8 got[NET_RX_ROOM];
	size_t n = gather(s, got, sizeof(got));

	if (len < sizeof(struct net_header) || len > n)
		return complain("%u bytes are used of %lu", len, n);
	if (kit_flag("flood"))
		return true;
	if (!net_is_answer(s, got + sizeof(struct net_header), len - sizeof(struct net_header)))
		return complain("a frame of %u bytes is not the answer", len);
	return tail_untouched(s, len);
}

const struct aim aim_net = {
	.name = "net",
	.bit = ON_NET,
	.device_id = VIRTIO_ID_NET,
	.queue = NET_TX,
	.features = NET_F_MAC | NET_F_STATUS,
	.start = start_net,
	.request = request_tx,
	.warm = warm,
	.quick = quick,
	.provoke = provoke_tx,
	.answered = answered_tx,
	.refused = refused,
};

const struct aim aim_net_rx = {
	.name = "net-rx",
	.bit = ON_NET_RX,
	.device_id = VIRTIO_ID_NET,
	.queue = NET_RX,
	.features = NET_F_MAC | NET_F_STATUS,
	.start = start_net,
	.request = request_rx,
	.warm = warm,
	.provoke = provoke_rx,
	.answered = answered_rx,
	.refused = refused,
};
