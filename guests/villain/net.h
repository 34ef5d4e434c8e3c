/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - frames by hand (virtio 1.2, 5.1).
 *
 * The host answers ARP for the address that ip= on the command line names; that is the one thing
 * a good frame asks for, so both directions are seen to work.
 */
#ifndef VILLAIN_NET_H
#define VILLAIN_NET_H

#include "villain.h"

#define NET_RX       0
#define NET_TX       1
#define NET_CTRL     2 /* with one pair of queues */
#define NET_RX_COUNT 16
#define NET_RX_ROOM  2048 /* of each of our buffers */

#define NET_F_CSUM      (1ull << 0)
#define NET_F_MTU       (1ull << 3)
#define NET_F_MAC       (1ull << 5)
#define NET_F_HOST_TSO4 (1ull << 11)
#define NET_F_MRG_RXBUF (1ull << 15)
#define NET_F_STATUS    (1ull << 16)
#define NET_F_CTRL_VQ   (1ull << 17)

struct net_header {
	u8 flags, gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_header) == 12, "the header of VERSION_1");

#define FRAME 60 /* bytes of an ARP request: the shortest frame there is */

/* An ARP request for the host, from @mac. */
void net_arp(const struct scene *s, u8 frame[FRAME], const u8 mac[6]);
/* Is this the answer, at most one, to such a request? @frame is what follows the header. */
bool net_is_answer(const struct scene *s, const u8 *frame, u32 len);
/* Offers header and frame on the transmit queue and kicks. Returns the head. */
u16 net_put(struct scene *s, const struct net_header *h, const void *frame, u32 len);
/* Waits for the answer to an ARP request on the receive queue, ignoring other frames. */
bool net_expect(struct scene *s, unsigned ms);

#endif
