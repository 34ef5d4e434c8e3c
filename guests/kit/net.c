/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.c - see net.h.
 *
 * A receive buffer and a slot to send from are one descriptor each: 12 bytes of header, then the
 * frame. Descriptor number = buffer or slot number. Sending is a stack of free slots, so that small
 * traffic touches few pages; done ones are looked for only when it is empty.
 */
#include "net.h"

/* Places in the configuration (5.1.4). */
#define CONFIG_MAC    0
#define CONFIG_STATUS 6
#define CONFIG_PAIRS  8
#define CONFIG_MTU    10

#define CTRL_ANNOUNCE     3 /* classes and commands of the control queue (5.1.6.5) */
#define CTRL_ANNOUNCE_ACK 0
#define CTRL_MQ           4
#define CTRL_MQ_PAIRS_SET 0
#define CTRL_RING         4

#define HEADER ((u32)sizeof(struct net_header))

#define FEATURES \
	(NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MTU | NET_F_MAC | NET_F_GUEST_TSO4 | \
		NET_F_GUEST_TSO6 | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_MRG_RXBUF | \
		NET_F_STATUS | NET_F_CTRL_VQ | NET_F_GUEST_ANNOUNCE | NET_F_MQ | \
		NET_F_GUEST_USO4 | NET_F_GUEST_USO6 | NET_F_HOST_USO)
/* Features that want others (5.1.3.1). */
#define WANT_GUEST_CSUM \
	(NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_USO4 | NET_F_GUEST_USO6)
#define WANT_CSUM    (NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_USO)
#define WANT_CTRL_VQ (NET_F_GUEST_ANNOUNCE | NET_F_MQ)

/* ---- starting ---- */

static u64 wanted(u64 without)
{
	u64 f = FEATURES & ~without;

	if (!(f & NET_F_GUEST_CSUM))
		f &= ~WANT_GUEST_CSUM;
	if (!(f & NET_F_CSUM))
		f &= ~WANT_CSUM;
	if (!(f & NET_F_CTRL_VQ))
		f &= ~WANT_CTRL_VQ;
	return f;
}

static void *ring(unsigned size)
{
	return kit_pages(VIRTQ_BYTES(size));
}

static bool start_rx(struct net *n, struct net_pair *p, u16 index)
{
	void *mem = ring(n->rx_slots);

	p->rx_mem = kit_pages((size_t)n->rx_slots * n->rx_stride);
	if (!mem || !p->rx_mem || !virtio_queue(&n->dev, &p->rx, index, mem, (u16)n->rx_slots))
		return false;
	for (u16 i = 0; i < n->rx_slots; i++) {
		virtq_set(&p->rx, i, p->rx_mem + (size_t)i * n->rx_stride, n->rx_len + HEADER,
			VIRTQ_WRITE, 0);
		virtq_offer(&p->rx, i);
	}
	return true;
}

static bool start_tx(struct net *n, struct net_pair *p, u16 index)
{
	u32 stride = (n->tx_len + HEADER + 63) & -64u;
	u8 *mem = kit_pages((size_t)n->tx_slots * stride);
	void *queue = ring(n->tx_slots);

	p->slots = kit_pages(n->tx_slots * sizeof(*p->slots));
	p->free = kit_pages(n->tx_slots * sizeof(*p->free));
	if (!mem || !queue || !p->slots || !p->free ||
		!virtio_queue(&n->dev, &p->tx, index, queue, (u16)n->tx_slots))
		return false;
	for (u16 i = 0; i < n->tx_slots; i++) {
		u8 *at = mem + (size_t)i * stride;

		p->slots[i] = (struct net_slot){.h = (void *)at, .data = at + HEADER};
		p->free[i] = (u16)(n->tx_slots - 1 - i);
	}
	p->free_count = (u16)n->tx_slots;
	return true;
}

/* One command on the control queue; true if the device took it. */
static bool command(struct net *n, u8 class, u8 cmd, const void *data, u32 len)
{
	struct virtq *queue = &n->ctrl;
	u8 head[2] = {class, cmd};
	volatile u8 ack = 0xff;
	u16 done;
	u32 used;

	virtq_set(&n->ctrl, 0, head, sizeof(head), VIRTQ_NEXT, len ? 1 : 2);
	virtq_set(&n->ctrl, 1, data, len, VIRTQ_NEXT, 2);
	virtq_set(&n->ctrl, 2, &ack, 1, VIRTQ_WRITE, 0);
	virtq_offer(&n->ctrl, 0);
	virtq_kick(&n->ctrl);
	while (!virtq_take(&n->ctrl, &done, &used))
		virtq_wait(&queue, 1);
	return ack == 0;
}

/* The control queue is behind the last pair that the device has. */
static bool start_ctrl(struct net *n, u16 max_pairs)
{
	void *mem = ring(CTRL_RING);

	return mem && virtio_queue(&n->dev, &n->ctrl, (u16)(2 * max_pairs), mem, CTRL_RING);
}

/* What the specification asks of buffers where frames are not spread over several (5.1.6.3.1). */
static void choose_lengths(struct net *n, const struct net_setup *setup)
{
	n->rx_len = setup->rx_len;
	n->tx_len = setup->tx_len;
	if (!net_has(n, NET_F_MRG_RXBUF)) {
		u32 least = net_has(n, WANT_GUEST_CSUM) ? NET_FRAME_MAX : n->mtu + 14u;

		if (n->rx_len < least)
			n->rx_len = least;
	}
	n->rx_stride = (n->rx_len + HEADER + 63) & -64u;
}

bool net_init(struct net *n, const struct net_setup *setup)
{
	u16 max_pairs = 1, pairs;

	if (!virtio_find_nth(&n->dev, VIRTIO_ID_NET, setup->nth) ||
		!virtio_begin(&n->dev, wanted(setup->without)))
		return false;
	if (net_has(n, NET_F_MQ))
		max_pairs = virtio_config16(&n->dev, CONFIG_PAIRS);
	pairs = (u16)(setup->pairs < max_pairs ? setup->pairs : max_pairs);
	if (!pairs || pairs > NET_PAIRS)
		return false;
	n->pair_count = pairs;
	n->rx_slots = setup->rx_slots;
	n->tx_slots = setup->tx_slots;
	net_read_config(n);
	choose_lengths(n, setup);
	for (u16 i = 0; i < pairs; i++) {
		if (!start_rx(n, &n->pairs[i], (u16)(2 * i)) ||
			!start_tx(n, &n->pairs[i], (u16)(2 * i + 1)))
			return false;
	}
	if (net_has(n, NET_F_CTRL_VQ) && !start_ctrl(n, max_pairs))
		return false;
	virtio_go(&n->dev);
	net_kick(n);
	return pairs == 1 || command(n, CTRL_MQ, CTRL_MQ_PAIRS_SET, &pairs, sizeof(pairs));
}

/* ---- configuration ---- */

void net_read_config(struct net *n)
{
	for (u32 i = 0; net_has(n, NET_F_MAC) && i < sizeof(n->mac); i++)
		n->mac[i] = virtio_config8(&n->dev, CONFIG_MAC + i);
	n->mtu = net_has(n, NET_F_MTU) ? virtio_config16(&n->dev, CONFIG_MTU) : 1500;
}

u16 net_status(const struct net *n)
{
	return net_has(n, NET_F_STATUS) ? virtio_config16(&n->dev, CONFIG_STATUS) : NET_S_LINK_UP;
}

bool net_ack_announce(struct net *n)
{
	return net_has(n, NET_F_CTRL_VQ) && command(n, CTRL_ANNOUNCE, CTRL_ANNOUNCE_ACK, NULL, 0);
}

/* ---- receive ---- */

static void broken(const struct virtq *q, u16 slot)
{
	kit_printf("net: queue %u gave back %u, which it did not have\n", q->index, slot);
	kit_power(NET_BROKEN);
}

/* One more buffer of @f, the header in its first @skip bytes. */
static bool take_piece(struct net *n, struct net_frame *f, u32 skip)
{
	struct virtq *q = &n->pairs[f->pair].rx;
	u16 slot;
	u32 len;

	if (!virtq_take(q, &slot, &len))
		return false;
	if (slot >= n->rx_slots)
		broken(q, slot);
	f->piece[f->pieces].slot = slot;
	f->piece[f->pieces].data = n->pairs[f->pair].rx_mem + (size_t)slot * n->rx_stride + skip;
	f->piece[f->pieces].len = len < skip ? 0 : len - skip;
	f->len += f->piece[f->pieces].len;
	f->pieces++;
	return len >= skip;
}

bool net_receive(struct net *n, unsigned pair, struct net_frame *f)
{
	bool good;

	for (;;) {
		f->pair = pair;
		f->pieces = 0;
		f->len = 0;
		good = take_piece(n, f, HEADER);
		if (!f->pieces)
			return false;
		memcpy(&f->h, f->piece[0].data - HEADER, HEADER);
		if (!net_has(n, NET_F_MRG_RXBUF))
			f->h.num_buffers = 1;
		while (good && f->pieces < f->h.num_buffers)
			good = f->pieces < NET_PIECES && take_piece(n, f, 0);
		if (good && f->h.num_buffers && f->len)
			return true;
		n->broken++;
		net_return(n, f);
	}
}

void net_return(struct net *n, const struct net_frame *f)
{
	for (unsigned i = 0; i < f->pieces; i++)
		virtq_offer(&n->pairs[f->pair].rx, f->piece[i].slot);
}

void net_copy(const struct net_frame *f, u8 *to)
{
	for (unsigned i = 0; i < f->pieces; i++) {
		memcpy(to, f->piece[i].data, f->piece[i].len);
		to += f->piece[i].len;
	}
}

/* ---- send ---- */

static void reclaim(struct net *n, struct net_pair *p)
{
	u16 slot;
	u32 len;

	while (virtq_take(&p->tx, &slot, &len)) {
		if (slot >= n->tx_slots || p->free_count == n->tx_slots)
			broken(&p->tx, slot);
		p->free[p->free_count++] = slot;
	}
}

struct net_slot *net_slot(struct net *n, unsigned pair)
{
	struct net_pair *p = &n->pairs[pair];
	struct net_slot *s;

	if (!p->free_count)
		reclaim(n, p);
	if (!p->free_count)
		return NULL;
	s = &p->slots[p->free[--p->free_count]];
	memset(s->h, 0, sizeof(*s->h));
	return s;
}

void net_unslot(struct net *n, unsigned pair, struct net_slot *s)
{
	struct net_pair *p = &n->pairs[pair];

	p->free[p->free_count++] = (u16)(s - p->slots);
}

void net_send(struct net *n, unsigned pair, struct net_slot *s, u32 len)
{
	struct net_pair *p = &n->pairs[pair];
	u16 i = (u16)(s - p->slots);

	virtq_set(&p->tx, i, s->h, len + HEADER, 0, 0);
	virtq_offer(&p->tx, i);
}

unsigned net_in_flight(struct net *n, unsigned pair)
{
	reclaim(n, &n->pairs[pair]);
	return n->tx_slots - n->pairs[pair].free_count;
}

/* ---- both ---- */

void net_kick(struct net *n)
{
	for (unsigned i = 0; i < n->pair_count; i++) {
		virtq_kick(&n->pairs[i].rx);
		virtq_kick(&n->pairs[i].tx);
	}
}

bool net_arm(struct net *n, bool room)
{
	bool more = false;

	for (unsigned i = 0; i < n->pair_count; i++) {
		struct net_pair *p = &n->pairs[i];
		u16 out = (u16)(n->tx_slots - p->free_count);

		more |= virtq_arm(&p->rx);
		if (room && out)
			more |= virtq_arm_after(&p->tx, (u16)(out / 2 + 1));
	}
	return more;
}
