/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - the Ethernet frames that bench/ sends. */
#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

#include <linux/ip.h>
#include <linux/tcp.h>

#include "frame.h"

/* Locally administered. bench/run gives the guest's card the first, the second is nobody's. */
static const uint8_t to_mac[ETH_ALEN] = { 0x02, 0x4b, 0x56, 0x00, 0x00, 0x01 };
static const uint8_t from_mac[ETH_ALEN] = { 0x02, 0x4b, 0x56, 0x00, 0x00, 0x02 };

static uint16_t ip_checksum(const struct iphdr *ip)
{
	const uint8_t *p = (const uint8_t *)ip;
	uint32_t sum = 0;

	for (unsigned i = 0; i < sizeof(*ip); i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

void frame_bulk(struct bulk_frame *f)
{
	struct ethhdr eth = { .h_proto = htons(ETH_P_IP) };
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = htons(BULK_LEN - ETH_HLEN),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = htonl(0xc0000201), /* 192.0.2.1, for documentation only */
		.daddr = htonl(0xc0000202),
	};
	struct tcphdr tcp = {
		.source = htons(5001), .dest = htons(5001), .doff = 5, .ack = 1,
		.window = htons(0xffff),
	};

	memset(f, 0x5a, sizeof(*f));
	f->vnet = (struct virtio_net_hdr_v1){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = sizeof(eth) + sizeof(ip) + sizeof(tcp),
		.gso_size = BULK_MSS,
		.csum_start = sizeof(eth) + sizeof(ip),
		.csum_offset = offsetof(struct tcphdr, check),
	};
	memcpy(eth.h_dest, to_mac, ETH_ALEN);
	memcpy(eth.h_source, from_mac, ETH_ALEN);
	ip.check = ip_checksum(&ip);
	memcpy(f->data, &eth, sizeof(eth));
	memcpy(f->data + sizeof(eth), &ip, sizeof(ip));
	memcpy(f->data + sizeof(eth) + sizeof(ip), &tcp, sizeof(tcp));
}

void frame_ping(struct ping_frame *f, uint64_t seq)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->dst, to_mac, ETH_ALEN);
	memcpy(f->src, from_mac, ETH_ALEN);
	f->type = htons(PING_TYPE);
	f->seq = seq;
}
