/* SPDX-License-Identifier: Apache-2.0 */
/* frame.h - the Ethernet frames that bench/ sends, with the virtio-net header a tap wants. */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include <stdint.h>

#include <linux/if_ether.h>
#include <linux/virtio_net.h>

/* The header of a version 1 device: 12 bytes. */
#define VNET_LEN sizeof(struct virtio_net_hdr_v1)

#define BULK_MSS 1448u
/* As many whole segments as fit into one IPv4 packet of 64 KiB. */
#define BULK_LEN (ETH_HLEN + 20u + 20u + 45u * BULK_MSS)

#define PING_LEN  64u
#define PING_TYPE 0x88b5 /* "local experimental": no stack answers to it */

struct bulk_frame {
	struct virtio_net_hdr_v1 vnet;
	uint8_t data[BULK_LEN];
} __attribute__((packed));

struct ping_frame {
	uint8_t dst[ETH_ALEN], src[ETH_ALEN];
	uint16_t type; /* big endian */
	uint64_t seq;
	uint8_t rest[PING_LEN - ETH_HLEN - 8];
} __attribute__((packed));

/* An IPv4 TCP segment to be cut by whoever cannot take it whole, for the guest's card. */
void frame_bulk(struct bulk_frame *f);
/* A frame of PING_TYPE with number @seq, for the guest's card. */
void frame_ping(struct ping_frame *f, uint64_t seq);

#endif
