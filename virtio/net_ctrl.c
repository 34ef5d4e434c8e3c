/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_ctrl.c - the control queue (virtio 1.2, 5.1.6.5).
 *
 * A chain is a class, a command and its data, readable, and one writable byte for the answer. We
 * know the number of queue pairs in use, the answer to an announcement, and, where any source
 * address may pass anyway, a new address. Everything else is answered with an error, which is what
 * a driver expects for commands of features that were not negotiated.
 */
#include <endian.h>
#include <string.h>

#include "virtio/net_int.h"

struct command {
	u8 class, cmd;
	u8 data[6];
	u32 len; /* of the data */
};

static bool set_pairs(struct net *n, const struct command *c)
{
	u16 pairs;

	if (c->len != sizeof(pairs) || !virtio_has(&n->dev, NET_F(MQ)))
		return false;
	memcpy(&pairs, c->data, sizeof(pairs));
	pairs = le16toh(pairs);
	return pairs >= VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN && pairs <= n->pairs &&
		net_set_pairs(n, pairs);
}

static bool set_mac(struct net *n, const struct command *c)
{
	if (c->len != sizeof(n->mac) || !virtio_has(&n->dev, NET_F(CTRL_MAC_ADDR)) ||
		c->data[0] & 1)
		return false;
	memcpy(n->mac, c->data, sizeof(n->mac));
	return true;
}

static bool execute(struct net *n, const struct command *c)
{
	switch (c->class << 8 | c->cmd) {
	case VIRTIO_NET_CTRL_MQ << 8 | VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
		return set_pairs(n, c);
	case VIRTIO_NET_CTRL_ANNOUNCE << 8 | VIRTIO_NET_CTRL_ANNOUNCE_ACK:
		if (c->len || !virtio_has(&n->dev, NET_F(GUEST_ANNOUNCE)))
			return false;
		n->announce = false;
		return true;
	case VIRTIO_NET_CTRL_MAC << 8 | VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return set_mac(n, c);
	default:
		return false;
	}
}

/* The chain in n->chain. Returns how many bytes were written to it. */
static u32 command(struct net *n)
{
	const struct vq_chain *c = &n->chain;
	const u32 front = offsetof(struct command, data);
	struct command cmd = {0};
	u8 answer;

	if (!c->in_len)
		return 0;
	if (c->out_len < front || c->out_len - front > sizeof(cmd.data)) {
		answer = VIRTIO_NET_ERR;
	} else {
		iov_to_host(c->iov, c->out_count, 0, &cmd, c->out_len);
		cmd.len = c->out_len - front;
		answer = execute(n, &cmd) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
	}
	return (u32)iov_from_host(c->iov + c->out_count, c->in_count, 0, &answer, sizeof(answer));
}

void net_ctrl_run(struct net *n)
{
	/* Behind the pairs there are for the driver: one, if it does not know of more. */
	unsigned index = 2 * (virtio_has(&n->dev, NET_F(MQ)) ? n->pairs : 1);
	struct vq *q = &n->dev.queue[index];
	unsigned budget = q->size;

	if (!virtio_has(&n->dev, NET_F(CTRL_VQ)) || !q->live)
		return;
	vq_kicks_off(q);
	while (budget) {
		enum vq_result r = vq_pop(q, &n->chain);

		if (r == VQ_BAD)
			virtio_fail(&n->dev);
		if (r == VQ_BAD || (r == VQ_EMPTY && !virtio_want_kick(&n->dev, q)))
			return;
		if (r == VQ_EMPTY)
			continue;
		vq_push(q, n->chain.head, r == VQ_OK ? command(n) : 0);
		virtio_used_soon(&n->dev, q);
		budget--;
	}
	virtio_schedule(&n->dev);
}
