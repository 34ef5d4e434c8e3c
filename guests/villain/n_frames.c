/* SPDX-License-Identifier: Apache-2.0 */
/*
 * n_frames.c - N01 to N08 and N10 to N12: headers, frames and buffers.
 *
 * What a device does with a bad frame is its own affair, as long as the chain comes back and the
 * next frame goes out: so each ends with an ARP request that must be answered.
 */
#include "net.h"

#define NEEDS_CSUM 1 /* flags */

#define GSO_TCPV4 1 /* gso_type */
#define GSO_UDP   3
#define GSO_TCPV6 4
#define GSO_UDP4  5
#define GSO_ECN   0x80

#define NET_F_OFFLOADS (NET_F_CSUM | NET_F_HOST_TSO4 | 1ull << 12 | 1ull << 13)

/* Sends header and frame; the chain must come back empty. */
static bool send(struct scene *s, const struct net_header *h, const void *frame, u32 len)
{
	u16 slot = net_put(s, h, frame, len), head;
	u32 used;

	switch (raw_wait(&s->dev, s->q, SOON)) {
	case USED:
		break;
	case BROKEN:
		return complain("NEEDS_RESET for a frame of %u bytes", len);
	case NOTHING:
		return complain("a frame of %u bytes does not come back", len);
	}
	raw_take(s->q, &head, &used);
	if (head != slot || used)
		return complain("a frame of %u bytes comes back as head %u with %u bytes", len,
			head, used);
	return true;
}

/* A TCP segment as it would be sent, so that only the header in front of it is wrong. */
static void tcp_frame(const struct scene *s, u8 *frame, u32 len)
{
	static const u8 ip[20] = {0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6};

	memset(frame, 0, len);
	frame[0] = 2;
	memcpy(frame + 6, s->mac, 6);
	frame[12] = 8;
	memcpy(frame + 14, ip, sizeof(ip));
	frame[16] = (u8)((len - 14) >> 8);
	frame[17] = (u8)(len - 14);
	frame[46] = 0x50; /* data offset */
}

/* ---- N01, N02: no header ---- */

static enum verdict n01_short(struct scene *s)
{
	static const struct net_header h;

	raw_desc(s->q, 0, (u64)show(&h, sizeof(h)), (u32)s->arg, 0, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

static enum verdict n02_writable(struct scene *s)
{
	s->aim->request(s);
	s->seg[0] = (struct seg){(u64)give(12, 4), 12, D_WRITE};
	lay(s, 0);
	raw_post(s->q, 0);
	return must_break(s);
}

/* ---- N03-N06: what the header promises; arg: with the offloads agreed on ---- */

static const struct net_header lies[] = {
	{.gso_type = 0x7f},
	{.gso_type = 2, .gso_size = 100},
	{.gso_type = GSO_ECN},
	{.gso_type = 0xff, .gso_size = 0xffff, .hdr_len = 0xffff},
	{NEEDS_CSUM, GSO_TCPV4, 54, 0, 34, 16},       /* gso_size 0 */
	{NEEDS_CSUM, GSO_TCPV4, 0, 100, 34, 16},      /* hdr_len 0 */
	{NEEDS_CSUM, GSO_TCPV4, 0xffff, 100, 34, 16}, /* beyond the frame */
	{NEEDS_CSUM, GSO_TCPV4, 54, 0xffff, 34, 16},
	{NEEDS_CSUM, GSO_TCPV4, 54, 1, 34, 16},
	{NEEDS_CSUM, GSO_TCPV6, 54, 100, 34, 16}, /* of an IPv4 frame */
	{NEEDS_CSUM, GSO_UDP, 42, 100, 34, 6},
	{NEEDS_CSUM, GSO_UDP4, 42, 100, 34, 6},
	{NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 54, 100, 34, 16},
	{0, GSO_TCPV4, 54, 100, 0, 0}, /* without a checksum to do */
	{NEEDS_CSUM, 0, 0, 0, 0xffff, 0},
	{NEEDS_CSUM, 0, 0, 0, 0xffff, 0xffff},
	{NEEDS_CSUM, 0, 0, 0, 0, 0xffff},
	{NEEDS_CSUM, 0, 0, 0, 199, 0}, /* its two bytes end behind the frame */
	{NEEDS_CSUM, 0, 0, 0, 200, 0},
	{NEEDS_CSUM, 0, 0, 0, 0, 0},
	{.flags = 2},
	{.flags = 0xff},
	{.csum_start = 0xffff, .csum_offset = 0xffff, .hdr_len = 0xffff},
};

static enum verdict n03_header(struct scene *s)
{
	u8 frame[200];

	if (s->arg && !restart(s, SIZE, s->aim->features | NET_F_OFFLOADS | F_RINGS))
		return FAIL;
	tcp_frame(s, frame, sizeof(frame));
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		if (!send(s, &lies[i], frame, sizeof(frame)) || !send(s, &lies[i], frame, 20))
			return FAIL;
	}
	good(s);
	return PASS;
}

/* The device does not look at this on transmit. */
static enum verdict n06_num_buffers(struct scene *s)
{
	const struct net_header h = {.num_buffers = 0xffff};
	u8 frame[FRAME];

	net_arp(s, frame, s->mac);
	if (send(s, &h, frame, FRAME) && !net_expect(s, SOON))
		complain("a frame with num_buffers is not sent");
	return PASS;
}

/* Many small buffers: the answer needs some, and says how many. arg is the size of each. */
static enum verdict n06_merged(struct scene *s)
{
	const u32 room = (u32)s->arg;
	u8 *buffer[SIZE], whole[SIZE * 64];
	struct net_header h;
	u16 head, count = 0;
	u32 len, total = 0;

	if (!(s->dev.offered & NET_F_MRG_RXBUF))
		return skip("the device does not merge buffers");
	if (!restart(s, SIZE, s->aim->features | NET_F_MRG_RXBUF | F_RINGS))
		return FAIL;
	for (u16 i = 0; i < SIZE; i++) {
		buffer[i] = give(room, 4);
		raw_desc(s->q, i, (u64)buffer[i], room, D_WRITE, 0);
		raw_post(s->q, i);
	}
	s->aim->provoke(s);
	do {
		if (raw_wait(&s->dev, s->q, SOON) != USED) {
			complain("%u buffers come back with %u bytes", count, total);
			return FAIL;
		}
		raw_take(s->q, &head, &len);
		if (head != count || len > room) {
			complain("buffer %u comes back with %u bytes", head, len);
			return FAIL;
		}
		memcpy(whole + total, buffer[head], len);
		total += len;
		count++;
		memcpy(&h, whole, sizeof(h));
	} while (total < sizeof(h) || count < h.num_buffers);
	if (h.num_buffers != count || !net_is_answer(s, whole + sizeof(h), total - sizeof(h)))
		complain("%u buffers, %u bytes: not the answer", h.num_buffers, total);
	return PASS;
}

/* ---- N07: sizes ---- */

static enum verdict n07_sizes(struct scene *s)
{
	static const u32 sizes[] = {0, 1, 6, 13, 14, 15, 59, 60, 1514, 1515, 1518, 9000, 65535,
		65536, 65549, 65550};
	static const struct net_header h;
	u8 *frame = kit_pages(1 << 17);

	memset(frame, 0, 1 << 17);
	tcp_frame(s, frame, 1000);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (!send(s, &h, frame, sizes[i]))
			return FAIL;
	}
	good(s);
	return PASS;
}

/* arg KiB in one chain. */
static enum verdict n07_huge(struct scene *s)
{
	u32 piece = 65536;

	s->aim->request(s);
	s->seg[1] = (struct seg){(u64)give(piece, 16), piece, 0};
	while (s->segs - 1 < s->arg / 64)
		insert(s, 1, s->seg[1].addr, piece, 0);
	if (!restart(s, QUEUE_MAX, s->aim->features | F_RINGS))
		return FAIL;
	lay(s, 0);
	raw_post(s->q, 0);
	return must_refuse(s, 0);
}

/* ---- N08: receive buffers that hold nothing; arg: bytes, or -1 for a readable one ---- */

static enum verdict n08_buffer(struct scene *s)
{
	u32 room = s->arg == -1ull ? 2048 : (u32)s->arg;
	u16 head;
	u32 len;

	raw_desc(s->q, 0, (u64)give(2048, 16), room, s->arg == -1ull ? 0 : D_WRITE, 0);
	raw_post(s->q, 0);
	for (unsigned i = 0; i < 3; i++) {
		s->aim->provoke(s);
		s->aim->request(s);
		lay(s, (u16)(1 + i));
		raw_post(s->q, (u16)(1 + i));
		s->aim->provoke(s);
		while (raw_wait(&s->dev, s->q, 100) == USED) {
			raw_take(s->q, &head, &len);
			if (head == 0 && len > (s->arg == -1ull ? 0 : room))
				complain("a buffer of %u bytes comes back with %u", room, len);
			if (head && len)
				return PASS; /* received, after all */
		}
	}
	complain("nothing is received any more");
	return FAIL;
}

static enum verdict n08_merged(struct scene *s)
{
	if (!restart(s, SIZE, s->aim->features | NET_F_MRG_RXBUF | F_RINGS))
		return FAIL;
	return n08_buffer(s);
}

/* ---- N10-N12 ---- */

/* No control queue was agreed on, so whatever is behind the first pair does nothing. */
static enum verdict n10_no_control(struct scene *s)
{
	for (u32 i = 2; i < 40; i++) {
		reg_set(&s->dev, REG_QUEUE_NOTIFY, i);
		if (reg_get(&s->dev, REG_STATUS) != S_ALL_OK)
			complain("notifying queue %u changes the status", i);
	}
	good(s);
	return PASS;
}

/* The same with a control queue that was set up all the same: nobody looks at it. */
static enum verdict n10_not_agreed(struct scene *s)
{
	struct raw_dev *d = &s->dev;
	struct raw_queue *c;

	if (s->queues <= NET_CTRL)
		return skip("the device has no control queue");
	if (!raw_negotiate(d, s->aim->features | F_RINGS))
		return FAIL;
	guards_reset(d);
	s->q = &d->q[s->aim->queue];
	c = raw_rings(d, NET_CTRL, 16);
	raw_ready(d, c);
	s->aim->start(s, SIZE);
	/* Too late to agree now. */
	reg_set(d, REG_DRIVER_FEATURES_SEL, 0);
	reg_set(d, REG_DRIVER_FEATURES, (u32)(d->features | NET_F_CTRL_VQ));
	raw_desc(c, 0, (u64)show("\0\1", 2), 2, 0, 0);
	raw_post(c, 0);
	raw_kick(d, c);
	if (!good(s))
		return FAIL;
	if (c->used->idx)
		complain("a control queue that was not agreed on works");
	return PASS;
}

/* Commands that are none: all are answered, with an error or not at all. */
static enum verdict n10_commands(struct scene *s)
{
	static const struct {
		u8 bytes[24];
		u8 len, room; /* for the answer */
	} commands[] = {
		{{0x7f, 0}, 2, 1},
		{{0xff, 0xff}, 2, 1},
		{{4, 0}, 0, 1}, /* nothing of a command for the number of queues, or parts of it */
		{{4, 0}, 1, 1},
		{{4, 0}, 2, 0},
		{{4, 0}, 2, 1},
		{{4, 0, 1}, 3, 1},
		{{4, 0, 0, 0}, 4, 1}, /* no queues, and many */
		{{4, 0, 0xff, 0xff}, 4, 1},
		{{4, 0, 0, 0x80}, 4, 1},
		{{4, 0, 1, 0, 0}, 5, 1},
		{{1, 1, 1, 0, 0, 0, 0, 1}, 8, 1}, /* a group address, and a short one */
		{{1, 1, 2, 0, 0, 0, 0}, 7, 1},
		{{3, 0, 1}, 3, 1},
		{{0, 0}, 24, 1},
		{{2, 0, 1, 0}, 4, 8},
	};
	struct raw_dev *d = &s->dev;
	struct raw_queue *c;
	u16 head;
	u32 len;

	if (!(d->offered & NET_F_CTRL_VQ))
		return skip("the device has no control queue");
	if (!raw_negotiate(d, s->aim->features | NET_F_CTRL_VQ | F_RINGS))
		return FAIL;
	guards_reset(d);
	s->q = &d->q[s->aim->queue];
	c = raw_rings(d, NET_CTRL, 16);
	raw_ready(d, c);
	s->aim->start(s, SIZE);
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		u8 *answer = give(8, 1);

		raw_desc(c, 0, (u64)show(commands[i].bytes, 24), commands[i].len, D_NEXT, 1);
		raw_desc(c, 1, (u64)answer, commands[i].room, D_WRITE, 0);
		raw_post(c, 0);
		raw_kick(d, c);
		if (raw_wait(d, c, SOON) != USED) {
			complain("command %u is not answered", i);
			return FAIL;
		}
		raw_take(c, &head, &len);
		if (len > commands[i].room || (len && answer[0] != 1))
			complain("command %u: answer %u, %u bytes", i, answer[0], len);
	}
	good(s);
	return PASS;
}

/* Frames that claim to be from somebody else do not get out. */
static enum verdict n11_spoofed(struct scene *s)
{
	static const struct net_header h;
	u8 frame[FRAME], mac[6];

	for (unsigned i = 0; i < 4; i++) {
		memcpy(mac, s->mac, 6);
		if (i < 3)
			mac[i * 2] ^= 4;
		else
			memset(mac, 0xff, 6);
		net_arp(s, frame, s->mac);
		memcpy(frame + 6, mac, 6);
		if (!send(s, &h, frame, FRAME))
			return FAIL;
		if (net_expect(s, 20)) {
			complain("a frame with a foreign source was sent");
			return FAIL;
		}
	}
	good(s);
	return PASS;
}

/* Every combination of up to 6 of the features that may change headers. */
static enum verdict n12_features(struct scene *s)
{
	static const u64 bits[] = {NET_F_CSUM, 1ull << 1 /* GUEST_CSUM */, NET_F_MRG_RXBUF,
		NET_F_HOST_TSO4, 1ull << 7 /* GUEST_TSO4 */, F_EVENT_IDX};

	for (unsigned set = 0; set < 64; set++) {
		u64 want = F_VERSION_1 | NET_F_MAC;

		for (unsigned i = 0; i < 6; i++)
			want |= set >> i & 1 ? bits[i] : 0;
		guards_check(&s->dev);
		if (!raw_reset(&s->dev))
			return FAIL;
		guards_reset(&s->dev);
		if (!raw_try(&s->dev, want))
			continue; /* it may insist on what a feature needs */
		s->q = &s->dev.q[s->aim->queue];
		s->aim->start(s, SIZE);
		if (!good(s) || !good(s))
			return FAIL;
	}
	return PASS;
}

const struct act acts_frames[] = {
	{"N01.1", ON_NET, WILL_PASS, n01_short, 1},
	{"N01.11", ON_NET, WILL_PASS, n01_short, 11},
	{"N01.only", ON_NET, WILL_PASS, n01_short, 12},
	{"N02", ON_NET, WILL_REJECT, n02_writable},
	{"N03", ON_NET, WILL_PASS, n03_header, 1},
	{"N05", ON_NET, WILL_PASS, n03_header, 0},
	{"N06.tx", ON_NET, WILL_PASS, n06_num_buffers},
	{"N06.13", ON_NET_RX, WILL_PASS, n06_merged, 13},
	{"N06.40", ON_NET_RX, WILL_PASS, n06_merged, 40},
	{"N07", ON_NET, WILL_PASS, n07_sizes},
	{"N07.1M", ON_NET, WILL_PASS, n07_huge, 1024},
	{"N07.15M", ON_NET, WILL_PASS, n07_huge, 15 << 10},
	{"N08.0", ON_NET_RX, WILL_PASS, n08_buffer, 0},
	{"N08.1", ON_NET_RX, WILL_PASS, n08_buffer, 1},
	{"N08.11", ON_NET_RX, WILL_PASS, n08_buffer, 11},
	{"N08.12", ON_NET_RX, WILL_PASS, n08_buffer, 12},
	{"N08.merged", ON_NET_RX, WILL_PASS, n08_merged, 12},
	{"N08.readable", ON_NET_RX, WILL_PASS, n08_buffer, -1ull},
	{"N10", ON_NET, WILL_PASS, n10_no_control},
	{"N10.unacked", ON_NET, WILL_PASS, n10_not_agreed},
	{"N10.commands", ON_NET, WILL_PASS, n10_commands},
	{"N11", ON_NET, WILL_PASS, n11_spoofed},
	{"N12", ON_NET, WILL_PASS, n12_features},
	{0},
};
