/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - a network card (virtio 1.2, 5.1): frames in and out, on one pair of queues or several.
 *
 * Receive: net_receive() gives a frame where it lies, in one buffer or (MRG_RXBUF) several;
 * net_return() gives the buffers back. Send: net_slot() gives a free slot, the caller puts header
 * and frame there, net_send() offers it. Both reach the device by net_kick(). Before sleeping:
 * net_arm().
 */
#ifndef KIT_NET_H
#define KIT_NET_H

#include "virtio.h"

#define NET_PAIRS      4
#define NET_PIECES     64    /* receive buffers that one frame may need */
#define NET_FRAME_MAX  65550 /* 64 KiB of IP packet and the Ethernet header */
#define NET_FRAME_ETH  1514  /* without segmentation offload, at the usual MTU */
#define NET_BROKEN     9     /* exit status of a guest whose card gives back what it has not got */

#define NET_F_CSUM           (1ull << 0)
#define NET_F_GUEST_CSUM     (1ull << 1)
#define NET_F_MTU            (1ull << 3)
#define NET_F_MAC            (1ull << 5)
#define NET_F_GUEST_TSO4     (1ull << 7)
#define NET_F_GUEST_TSO6     (1ull << 8)
#define NET_F_HOST_TSO4      (1ull << 11)
#define NET_F_HOST_TSO6      (1ull << 12)
#define NET_F_MRG_RXBUF      (1ull << 15)
#define NET_F_STATUS         (1ull << 16)
#define NET_F_CTRL_VQ        (1ull << 17)
#define NET_F_GUEST_ANNOUNCE (1ull << 21)
#define NET_F_MQ             (1ull << 22)
#define NET_F_GUEST_USO4     (1ull << 54)
#define NET_F_GUEST_USO6     (1ull << 55)
#define NET_F_HOST_USO       (1ull << 56)

#define NET_S_LINK_UP  1 /* bits of net_status() */
#define NET_S_ANNOUNCE 2

struct net_header {
	u8 flags; /* NET_H_* */
	u8 gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset;
	u16 num_buffers; /* received frames; 0 when sending */
};
_Static_assert(sizeof(struct net_header) == 12, "the header of VERSION_1");
#define NET_H_NEEDS_CSUM 1
#define NET_H_DATA_VALID 2
#define NET_GSO_NONE     0
#define NET_GSO_TCP4     1
#define NET_GSO_TCP6     4
#define NET_GSO_UDP      5
#define NET_GSO_ECN      0x80

/* A received frame. */
struct net_frame {
	struct net_header h;
	u32 len; /* in all */
	unsigned pair, pieces;
	struct {
		u8 *data;
		u32 len;
		u16 slot;
	} piece[NET_PIECES];
};

/* Room for a frame to be sent. data[-12 .. -1] is the header. */
struct net_slot {
	struct net_header *h; /* zeroed by net_slot() */
	u8 *data;             /* as many bytes as tx_len said */
	u64 user;             /* yours; 0 at first, kept while the slot goes round */
};

struct net_setup {
	unsigned nth;            /* which card, from 0 */
	unsigned pairs;          /* of queues, at most what the device has (1) */
	unsigned rx_slots;       /* receive buffers for each pair, a power of 2 */
	unsigned tx_slots;       /* the same for sending */
	u32 rx_len, tx_len;      /* bytes of a frame each holds; rx_len grows to what is required */
	u64 without;             /* features not to agree on */
};

struct net_pair {
	struct virtq rx, tx;
	u8 *rx_mem;
	struct net_slot *slots;
	u16 *free; /* a stack: the one freed last is used next */
	u16 free_count;
};

struct net {
	struct virtio_dev dev;
	struct virtq ctrl;
	unsigned pair_count, rx_slots, tx_slots;
	u32 rx_len, tx_len, rx_stride; /* header included in the last */
	u8 mac[6];
	u16 mtu; /* 1500 if the device does not say */
	u64 broken; /* frames whose buffers were not all there, or too short */
	struct net_pair pairs[NET_PAIRS];
};

/* Finds and starts a card. False: not there, or it or memory cannot do this. */
bool net_init(struct net *n, const struct net_setup *setup);
static inline bool net_has(const struct net *n, u64 feature)
{
	return n->dev.features & feature;
}
/* Reads MAC and MTU anew: they may be others after a restore. Some exits. */
void net_read_config(struct net *n);
/* NET_S_* bits; the link is up where the device does not say. One exit. */
u16 net_status(const struct net *n);
/* Tells the device that its announcement was made. False if it does not take that. */
bool net_ack_announce(struct net *n);

/* The next frame of pair @pair; false if there is none. */
bool net_receive(struct net *n, unsigned pair, struct net_frame *f);
void net_return(struct net *n, const struct net_frame *f);
/* All of a frame in one place, of at least f->len bytes. */
void net_copy(const struct net_frame *f, u8 *to);

/* A free slot, no longer free; NULL if there is none. */
struct net_slot *net_slot(struct net *n, unsigned pair);
/* Gives the slot back unused. */
void net_unslot(struct net *n, unsigned pair, struct net_slot *s);
/* Sends @len bytes of frame in @s, which is free again when the device is done with it. */
void net_send(struct net *n, unsigned pair, struct net_slot *s, u32 len);
/* Frames sent and not done. Takes back those that are. */
unsigned net_in_flight(struct net *n, unsigned pair);

void net_kick(struct net *n);
/* Asks for an interrupt when a frame comes, and if @room when half of what is being sent is done.
 * True if there is something already. */
bool net_arm(struct net *n, bool room);

#endif
