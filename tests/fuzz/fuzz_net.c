/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_net.c - the network device between a guest's driver and a TAP or a stream, both of which the
 * input plays: frames of any length with any offload in both directions, buffers of any size, what
 * a driver may not do (N01 to N12), hosts that take nothing, fail, or break the stream; limits,
 * several queue pairs, control commands, resets, pauses, saved state.
 *
 * Checked while the driver keeps the rules: a frame that arrives is one that was sent, whole, once,
 * and in the order of its queue; its header asks for nothing that was not negotiated; a merged
 * frame is visible as a whole; the device does not rest while it has both a frame and a buffer for
 * it, or a frame and a host that takes it. Always: heads come back once, and after a reset it works.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/fuzz_wire.h"
#include "virtio/net_int.h"

#define PAIRS     2u
#define QUEUES    (2u * PAIRS + 1u)
#define TX_SLOT   512u
#define RX_SLOT   2048u
#define TX_GPA(p) (FZ_DATA_GPA + (p) * FZ_QSIZE * TX_SLOT)
#define RX_GPA(p) (TX_GPA(PAIRS) + (p) * FZ_QSIZE * RX_SLOT)
#define CTRL_GPA  RX_GPA(PAIRS)
#define BIG_GPA   (CTRL_GPA + 2 * MEM_PAGE)
#define BIG_LEN   0x11000u
#define BYTES_GPA (BIG_GPA + BIG_LEN) /* of frames the guest sends, from WIRE_HEAD on */
#define LOW_LEN   (BYTES_GPA + 0x11000u)
#define NUMBERS   4096u

static const u8 mac[6] = {2, 4, 6, 8, 10, 12};

/* A frame that is on its way; found by its number. */
struct sent {
	u32 len;
	struct virtio_net_hdr_v1 hdr;
	unsigned pair;
	bool right; /* it must arrive as it is, if it does */
};

static struct {
	struct guest_ram ram;
	struct fz_loop loop;
	struct virtio_dev *d;
	struct wire wire[PAIRS];
	unsigned pairs;
	struct fz_queue q[QUEUES];
	unsigned ctrl;       /* the control queue's index, as the driver sees it */
	u64 features;        /* negotiated */
	u32 hdr_len;
	bool passt, spoof, limited;
	bool up;             /* the driver drives, and keeps the rules of the rings */
	bool dirty;          /* guest memory must be made anew */
	u32 rx_len[PAIRS][FZ_QSIZE];
	u64 rx_gpa[PAIRS][FZ_QSIZE];
	int big_pair, big_head; /* who has the big buffer; -1: nobody */
	struct sent to_guest[NUMBERS], to_host[NUMBERS];
	u32 next_in, next_out;            /* numbers */
	u32 heard[PAIRS], taken[PAIRS];   /* the last number the guest got, the host took */
} t;

static u8 frame[WIRE_HDR + WIRE_FRAME_MAX];

static void raise_irq(void *ctx, unsigned line)
{
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fz_ram_init(&t.ram, LOW_LEN);
	t.dirty = true;
	return 0;
}

static struct fz_queue *rxq(unsigned pair)
{
	return &t.q[2 * pair];
}

static struct fz_queue *txq(unsigned pair)
{
	return &t.q[2 * pair + 1];
}

static const struct net *net(void)
{
	return container_of(t.d, const struct net, dev);
}

/* The device. */

static void open_device(const struct enc *saved)
{
	struct net_config cfg = {.id = "eth", .mtu = 1500, .allow_spoof = t.spoof,
		.pairs = t.pairs};
	struct net_backend b = {.kind = t.passt ? NET_PASST : NET_TAP, .fds_count = t.pairs,
		.offloads = t.passt ? 0 : NET_OFFLOADS};

	memcpy(cfg.mac, mac, sizeof(mac));
	for (unsigned i = 0; i < t.pairs; i++) {
		wire_open(&t.wire[i], t.passt);
		b.fds[i] = t.wire[i].fd;
	}
	must(!net_create(&t.d, &cfg, &b, t.loop.ring, &t.ram.mem,
		(struct virtio_irq){.raise = raise_irq}, NULL));
	fz_loop_run(&t.loop, t.d);
	if (saved)
		must(!virtio_load(t.d, saved->buf, saved->len, NULL));
}

static void reopen_device(const struct enc *saved)
{
	fz_loop_end(&t.loop, NULL);
	fh_reset();
	fz_loop_again(&t.loop);
	open_device(saved);
}

/* Whether the driver's rings are as they should be. */
static bool sound(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		if (t.q[i].broken)
			return false;
	}
	return true;
}

static void choose_features(struct fz *f)
{
	u64 drop = 0;
	u8 how = fz_u8(f);

	t.features = t.d->features | VIRTIO_MASK_VERSION_1;
	if (how & 1)
		drop |= NET_F(MRG_RXBUF);
	if (how & 2)
		drop |= NET_OFFLOADS & ~(NET_F(CSUM) | NET_F(GUEST_CSUM));
	if (how & 4)
		drop |= NET_F(GUEST_CSUM) | NET_F(HOST_TSO4);
	if (how & 8)
		drop |= NET_F(MQ);
	if (how & 16)
		drop |= NET_F(CTRL_VQ);
	if ((how & 0xe0) == 0xe0) /* N12 */
		drop |= VIRTIO_MASK_VERSION_1;
	t.features &= ~drop;
	t.hdr_len = t.features & (NET_F(MRG_RXBUF) | VIRTIO_MASK_VERSION_1) ? NET_HDR : 10;
}

static void bring_up(struct fz *f)
{
	struct fz_queue *q[QUEUES] = {NULL};
	bool mq;
	u8 how = fz_u8(f);

	drv_reset(t.d);
	choose_features(f);
	mq = t.features & NET_F(MQ);
	t.ctrl = mq ? 2 * t.pairs : 2;
	if (t.dirty) {
		wire_make(frame, 0, WIRE_FRAME_MAX);
		guest_write(&t.ram, BYTES_GPA, frame, WIRE_FRAME_MAX);
		t.dirty = false;
	}
	memset(t.q, 0, sizeof(t.q));
	for (unsigned i = 0; i <= t.ctrl; i++) {
		fz_queue_init(&t.q[i], &t.ram, i, (u16)(4u << fz_below(f, 4)));
		t.q[i].indirect = how & 1;
		t.q[i].event_idx = how & 2;
		if (i < t.ctrl || t.features & NET_F(CTRL_VQ))
			q[i] = &t.q[i];
	}
	t.big_head = -1;
	fz_bring_up(t.d, q, QUEUES, t.features);
	t.up = true;
}

/* How many pairs the driver drives. */
static unsigned pairs(void)
{
	return t.ctrl / 2;
}

/* To the guest. */

static void add_rx(struct fz *f)
{
	unsigned pair = fz_below(f, PAIRS) % pairs();
	struct fz_queue *q = rxq(pair);
	u16 head = fz_next_head(q), got;
	u64 gpa = RX_GPA(pair) + (u64)head * RX_SLOT;
	u32 len = fz_u8(f) & 1 ? RX_SLOT : t.hdr_len + 1 + fz_u16(f) % (RX_SLOT - t.hdr_len);
	enum fz_fault r;

	if (fz_u8(f) % 4 == 3 && t.big_head < 0) {
		gpa = BIG_GPA;
		len = BIG_LEN;
	}
	if (fz_break(f, 8)) /* N08 */
		len = 1 + fz_below(f, t.hdr_len);
	r = fz_offer(f, q, (struct vqb_buf[]){VQB_W(gpa, len)}, 1, &got);
	if (r == FZ_FULL)
		return;
	if (gpa == BIG_GPA) {
		t.big_pair = (int)pair;
		t.big_head = got;
	}
	t.rx_len[pair][got] = len;
	t.rx_gpa[pair][got] = gpa;
	t.dirty |= r != FZ_FINE;
	t.up &= r != FZ_BROKEN;
}

static u32 odd_length(struct fz *f)
{
	switch (fz_below(f, 8)) { /* N07 */
	case 0:
		return 13 + fz_below(f, 2);
	case 1:
		return NET_FRAME_MAX + fz_below(f, 2);
	case 2:
	case 3:
		return WIRE_HEAD + fz_u16(f) % (NET_FRAME_MAX - WIRE_HEAD);
	default:
		return WIRE_HEAD + fz_u16(f) % 1500;
	}
}

/* A header with an offload, as one side may send it to the other; or not. */
static struct virtio_net_hdr_v1 make_header(struct fz *f, u32 len)
{
	static const u8 gso[] = {VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
		VIRTIO_NET_HDR_GSO_TCPV6, NET_GSO_UDP_L4};
	struct virtio_net_hdr_v1 h = {0};
	u8 what = fz_u8(f);

	if (what & 1 && len > 64) {
		h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		h.csum_start = 34;
		h.csum_offset = 16;
		h.gso_type = gso[what >> 1 & 3];
		h.gso_size = h.gso_type ? 1448 : 0;
		h.hdr_len = h.gso_type ? 54 : 0;
	}
	switch (fz_break(f, 16)) { /* N03 to N06 */
	case 1:
		h.gso_type = fz_u8(f);
		break;
	case 2:
		h.gso_size = (u16)fz_odd(f, h.gso_size);
		break;
	case 3:
		h.hdr_len = (u16)fz_odd(f, len);
		break;
	case 4:
		h.csum_start = (u16)fz_odd(f, len);
		break;
	case 5:
		h.csum_offset = (u16)fz_odd(f, len);
		break;
	case 6:
		h.flags = fz_u8(f);
		break;
	case 7:
		h.num_buffers = fz_u16(f);
		break;
	default:
		break;
	}
	return h;
}

/* Whether a header asks for nothing but what @f says, one way or the other. */
static bool allowed(const struct virtio_net_hdr_v1 *h, u64 csum, u64 tso4, u64 tso6, u64 uso)
{
	u64 needs = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? csum : 0;

	switch (h->gso_type) {
	case VIRTIO_NET_HDR_GSO_NONE:
		break;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		needs |= csum | tso4;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		needs |= csum | tso6;
		break;
	case NET_GSO_UDP_L4:
		needs |= csum | uso;
		break;
	default:
		return false;
	}
	return (t.features & needs) == needs;
}

static void host_sends(struct fz *f)
{
	unsigned pair = fz_below(f, t.pairs);
	u32 number = t.next_in % NUMBERS;
	struct wire_frame w = {.number = t.next_in, .len = odd_length(f)};

	if (t.wire[pair].ended)
		return;
	if (t.passt && (w.len < NET_ETH || w.len > NET_FRAME_MAX) && !fz_break(f, 64))
		w.len = 60;
	if (!t.passt)
		w.hdr = make_header(f, w.len);
	if (!wire_put(&t.wire[pair], &w))
		return;
	fz_trace("host sends %u on %u, len %u, gso %u", w.number, pair, w.len, w.hdr.gso_type);
	t.to_guest[number] = (struct sent){w.len, w.hdr, pair, true};
	t.next_in++;
}

/* A frame the guest got, behind its header. */
static void guest_gets(unsigned pair, const u8 *data, u32 len)
{
	struct virtio_net_hdr_v1 h = {0};
	const struct sent *s;
	u32 number;

	must(len >= t.hdr_len + NET_ETH);
	memcpy(&h, data, t.hdr_len);
	data += t.hdr_len;
	len -= t.hdr_len;
	if (len < WIRE_HEAD)
		return;
	number = wire_number(data);
	fz_trace("guest gets %u on %u, len %u", number, pair, len);
	s = &t.to_guest[number % NUMBERS];
	must(number < t.next_in && t.next_in - number < NUMBERS);
	must(s->right && s->pair == pair && s->len == len && wire_is(data, number, len));
	must(t.heard[pair] < number + 1);
	t.heard[pair] = number + 1;
	must(h.gso_type == s->hdr.gso_type && h.gso_size == s->hdr.gso_size);
	must(allowed(&h, NET_F(GUEST_CSUM), NET_F(GUEST_TSO4), NET_F(GUEST_TSO6), 0));
	must(h.gso_type != NET_GSO_UDP_L4 ||
		t.features & (1ull << NET_F_GUEST_USO4 | 1ull << NET_F_GUEST_USO6));
}

/* One used buffer; returns how many bytes of it were written to @out. */
static u32 take_buffer(unsigned pair, u8 *out, u32 room, bool *odd)
{
	u16 head;
	u32 len;

	must(fz_used(rxq(pair), &head, &len));
	if ((int)pair == t.big_pair && head == t.big_head)
		t.big_head = -1;
	*odd |= rxq(pair)->odd[head];
	must(len <= t.rx_len[pair][head] || *odd);
	if (len > room)
		len = room;
	if (!*odd && len)
		guest_read(&t.ram, t.rx_gpa[pair][head], out, len);
	return len;
}

static void take_rx(unsigned pair)
{
	struct virtio_net_hdr_v1 h = {0};
	bool odd = false;
	u32 len;

	while (!rxq(pair)->broken && rxq(pair)->b.ram && vqb_used_waiting(&rxq(pair)->b)) {
		len = take_buffer(pair, frame, sizeof(frame), &odd);
		if (odd) /* its place is not known, nor what belongs to it */
			t.up = false;
		if (!len || !t.up)
			continue;
		memcpy(&h, frame, t.hdr_len);
		if (t.hdr_len < NET_HDR)
			h.num_buffers = 1;
		must(h.num_buffers == 1 || t.features & NET_F(MRG_RXBUF));
		must(h.num_buffers && vqb_used_waiting(&rxq(pair)->b) >= h.num_buffers - 1u);
		for (unsigned i = 1; i < h.num_buffers; i++)
			len += take_buffer(pair, frame + len, (u32)sizeof(frame) - len, &odd);
		t.up &= !odd;
		if (t.up)
			guest_gets(pair, frame, len);
	}
}

/* From the guest. */

static void guest_sends(struct fz *f)
{
	unsigned pair = fz_below(f, PAIRS) % pairs();
	struct fz_queue *q = txq(pair);
	u16 head = fz_next_head(q), got;
	u64 gpa = TX_GPA(pair) + (u64)head * TX_SLOT;
	struct sent s = {.len = odd_length(f), .pair = pair, .right = true};
	u32 number = t.next_out;
	struct vqb_buf buf[2] = {VQB_R(gpa, t.hdr_len + WIRE_HEAD)};
	enum fz_fault r;

	if (!q->b.free_count && !q->broken)
		return;
	s.hdr = make_header(f, s.len);
	wire_make(frame, number, WIRE_HEAD);
	memcpy(frame + 6, mac, sizeof(mac));
	if (fz_break(f, 16)) { /* N11 */
		frame[6 + fz_below(f, 6)] ^= 1;
		s.right = t.spoof;
	}
	guest_write(&t.ram, gpa, &s.hdr, t.hdr_len);
	guest_write(&t.ram, gpa + t.hdr_len, frame, WIRE_HEAD);
	if (s.len < WIRE_HEAD)
		buf[0].len = t.hdr_len + s.len;
	else if (s.len > WIRE_HEAD)
		buf[1] = VQB_R(BYTES_GPA + WIRE_HEAD, s.len - WIRE_HEAD);
	if (fz_break(f, 8)) { /* N01 */
		buf[0].len = 1 + fz_below(f, t.hdr_len);
		s.right = false;
	}
	r = fz_offer(f, q, buf, buf[1].len ? 2 : 1, &got);
	if (r == FZ_FULL)
		return;
	s.right &= r == FZ_FINE;
	t.dirty |= r != FZ_FINE;
	t.up &= r != FZ_BROKEN;
	t.to_host[number % NUMBERS] = s;
	t.next_out++;
}

static void host_gets(struct wire *w, const struct virtio_net_hdr_v1 *h, const u8 *data, u32 len)
{
	unsigned pair = (unsigned)(w - t.wire);
	const struct sent *s;
	u32 number;

	must(len >= NET_ETH && len <= NET_FRAME_MAX);
	must(t.spoof || !t.up || !memcmp(data + 6, mac, sizeof(mac)));
	if (!t.up || len < WIRE_HEAD)
		return;
	number = wire_number(data);
	fz_trace("host gets %u on %u, len %u", number, pair, len);
	s = &t.to_host[number % NUMBERS];
	if (!s->right)
		return;
	must(number < t.next_out && s->pair == pair && s->len == len && wire_is(data, number, len));
	must(t.taken[pair] < number + 1);
	t.taken[pair] = number + 1;
	if (!h)
		return;
	must(h->gso_type == s->hdr.gso_type && !(h->flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM));
	must(allowed(h, NET_F(CSUM), NET_F(HOST_TSO4), NET_F(HOST_TSO6), 1ull << NET_F_HOST_USO));
	must(!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
		(u32)h->csum_start + h->csum_offset + 2 <= len);
	must(!h->gso_type || (h->gso_size && h->hdr_len <= len));
}

/* Control commands. */

static void command(struct fz *f)
{
	static const u8 known[][2] = {{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET},
		{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK},
		{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET}, {0, 0}};
	static const u8 lens[] = {2, 0, 6, 1};
	struct fz_queue *q = &t.q[t.ctrl];
	unsigned which = fz_below(f, ARRAY_SIZE(known));
	u8 cmd[2 + 8] = {known[which][0], known[which][1], (u8)fz_below(f, PAIRS + 2)};
	u32 len = lens[which];
	u16 head = fz_next_head(q), got;
	u64 gpa = CTRL_GPA + 64u * head;

	if (!(t.features & NET_F(CTRL_VQ)) || !q->b.free_count)
		return;
	if (which == 2) /* not an address, or the one it has */
		memcpy(cmd + 2, mac, sizeof(mac));
	switch (fz_break(f, 16)) {
	case 1:
		len = fz_below(f, 9);
		break;
	case 2:
		cmd[fz_below(f, 2)] = fz_u8(f);
		break;
	case 3:
		cmd[2] = fz_u8(f);
		break;
	default:
		break;
	}
	if (which == 2)
		memcpy(cmd + 2, mac, sizeof(mac));
	cmd[9] = 0xee;
	guest_write(&t.ram, gpa, cmd, sizeof(cmd));
	t.up &= fz_offer(f, q, (struct vqb_buf[]){VQB_R(gpa, 2 + len % 9), VQB_W(gpa + 32, 1)}, 2,
			&got) != FZ_BROKEN;
}

/* The loop rests. */

static void check_rest(void)
{
	const struct net *n = net();

	must(!t.d->io_count);
	if (!t.up || !virtio_live(t.d) || !sound() || t.limited || fh_faults_hit() || !n->link_up)
		return;
	for (unsigned i = 0; i < n->pairs_used && i < pairs(); i++) {
		must(!t.wire[i].room || !txq(i)->out_count);
		/* The device knows of each buffer that it took. */
		must(t.d->queue[2 * i].in_flight_count == n->rx[i]->pool_count);
		must(!wire_waits(&t.wire[i]) || !vq_pending(&t.d->queue[2 * i]));
	}
	must(!(t.features & NET_F(CTRL_VQ)) || !t.q[t.ctrl].out_count);
}

static void take_used(void)
{
	u16 head;
	u32 len;

	for (unsigned i = 0; i < pairs(); i++) {
		take_rx(i);
		while (fz_used(txq(i), &head, &len))
			must(!len);
	}
	while (t.ctrl && fz_used(&t.q[t.ctrl], &head, &len))
		must(len == 1 || t.q[t.ctrl].odd[head]);
}

/* The host and the operator. */

static void host_acts(struct fz *f)
{
	struct wire *w = &t.wire[fz_below(f, t.pairs)];
	u8 bytes[8];

	switch (fz_below(f, 8)) {
	case 0:
		w->room = 0;
		break;
	case 1:
		w->room += fz_u16(f);
		break;
	case 2:
		w->room = w->stream ? fz_u16(f) % 3000 : fz_below(f, 40);
		break;
	case 3:
		if (!w->stream || !fz_break(f, 64))
			break;
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = fz_u8(f);
		wire_put_bytes(w, bytes, sizeof(bytes));
		for (u32 i = 0; i < NUMBERS; i++)
			t.to_guest[i].right &= !w->stream; /* whatever comes of it */
		break;
	case 4:
		w->ended = w->stream && fz_break(f, 64);
		break;
	default:
		w->room = UINT64_MAX;
	}
}

static void host_fails(struct fz *f)
{
	static const enum fh_op kinds[] = {FH_IN, FH_OUT, FH_POLL, FH_IOCTL};

	if (fz_below(f, 8) == 7)
		fh_fault_alloc(fz_below(f, 4));
	else
		fz_fail(f, kinds, ARRAY_SIZE(kinds), t.passt);
}

static void limit(struct fz *f)
{
	struct limit_config cfg[2] = {{{0}}};
	u8 how = fz_u8(f);

	for (unsigned i = 0; i < 2; i++) {
		if (how & 1u << i)
			cfg[i].ops = (struct limit_rate){1 + fz_below(f, 8),
				1000000ull << fz_below(f, 12), fz_below(f, 4)};
		if (how & 4u << i)
			cfg[i].bytes = (struct limit_rate){1 + fz_u16(f),
				1000000ull << fz_below(f, 12), fz_u16(f)};
	}
	t.limited = how & 15;
	net_set_limits(t.d, &cfg[0], &cfg[1]);
}

static void save_and_restore(struct fz *f)
{
	struct enc e = {0};
	bool change = fz_break(f, 16);
	unsigned at = fz_u16(f);

	fh_fault_none();
	virtio_freeze(t.d);
	fz_quiesce(&t.loop);
	virtio_save(t.d, &e);
	must(!e.oom);
	t.limited = false;
	if (!change) {
		reopen_device(&e);
	} else { /* it may be refused; if not, the driver knows nothing about the device */
		fz_change(f, (u8)at, &e);
		reopen_device(NULL);
		if (virtio_load(t.d, e.buf, e.len, NULL))
			reopen_device(NULL);
		t.up = false;
		t.dirty = true;
		for (unsigned i = 0; i < QUEUES; i++)
			t.q[i].broken = true;
	}
	enc_free(&e);
	if (fz_u8(f) & 1)
		net_set_mac(t.d, mac);
	net_start(t.d);
}

static void guest_step(struct fz *f, unsigned what)
{
	switch (what) {
	case 0 ... 5:
		for (unsigned n = 1 + fz_below(f, 4); n-- && t.up;)
			add_rx(f);
		break;
	case 6 ... 12:
		for (unsigned n = 1 + fz_below(f, 3); n-- && t.up;)
			guest_sends(f);
		break;
	case 13:
		command(f);
		break;
	case 14:
		if (fz_break(f, 32)) {
			fz_scribble(f, t.q, t.ctrl);
			t.up = false;
			t.dirty = true;
		}
		break;
	default:
		take_used();
		break;
	}
	for (unsigned i = 0; i <= t.ctrl; i++) {
		if (i < t.ctrl || t.features & NET_F(CTRL_VQ))
			fz_kick(t.d, &t.q[i]);
	}
}

static void step(struct fz *f)
{
	u8 what = fz_u8(f);

	fz_trace("step %u%s", what % 32, what & 0x80 ? ", no turn" : "");
	switch (what % 32) {
	case 0 ... 15:
		if (t.up)
			guest_step(f, what % 32);
		break;
	case 16 ... 20:
		for (unsigned n = 1 + fz_below(f, 4); n--;)
			host_sends(f);
		break;
	case 21:
	case 22:
		host_acts(f);
		break;
	case 23:
		host_fails(f);
		break;
	case 24:
		limit(f);
		break;
	case 25:
		fh_sleep(1000000ull << fz_below(f, 14));
		break;
	case 26:
		save_and_restore(f);
		break;
	case 27:
		virtio_freeze(t.d);
		break;
	case 28:
		virtio_thaw(t.d);
		break;
	case 29:
		fz_mmio_access(f, t.d);
		t.up = false;
		break;
	case 30:
		bring_up(f);
		break;
	default:
		fz_turn(&t.loop);
	}
	if (!(what & 0x80)) {
		fz_settle(&t.loop);
		if (t.up)
			take_used();
		check_rest();
	}
}

/* The device takes a frame of a driver that did nothing wrong yet. */
static void check_works(void)
{
	static const struct limit_config none;
	struct fz f = {.rec = {0, 4}};

	fh_fault_none();
	virtio_thaw(t.d);
	for (unsigned i = 0; i < t.pairs; i++)
		t.wire[i].room = UINT64_MAX;
	net_set_limits(t.d, &none, &none);
	bring_up(&f);
	fz_settle(&t.loop);
	guest_sends(&f);
	must(t.up && txq(0)->out_count == 1);
	fz_kick(t.d, txq(0));
	fz_settle(&t.loop);
	take_used();
	must(t.d->status == 15 && !txq(0)->out_count);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;
	u8 how;

	fh_reset();
	if (t.dirty)
		fz_ram_clear(&t.ram);
	memset(t.q, 0, sizeof(t.q));
	memset(t.heard, 0, sizeof(t.heard));
	memset(t.taken, 0, sizeof(t.taken));
	t.next_in = t.next_out = t.ctrl = 0;
	t.limited = t.up = false;
	wire_took = host_gets;
	fz_begin(&f, data, len);
	fz_step(&f);
	fz_loop_init(&t.loop, &f);
	how = fz_u8(&f);
	t.passt = how & 1;
	t.pairs = t.passt || how & 2 ? 1 : PAIRS;
	t.spoof = how & 4;
	open_device(NULL);
	net_start(t.d);
	if (!(how & 8))
		bring_up(&f);
	while (fz_step(&f)) {
		step(&f);
		fz_check_dev(t.d);
		must(!(t.d->status & VIRTIO_CONFIG_S_NEEDS_RESET) || !t.up || !sound());
	}
	check_works();
	fz_loop_end(&t.loop, NULL);
	return 0;
}
