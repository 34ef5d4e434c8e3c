/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inet.h - as much of Ethernet, ARP, IPv4, ICMP and UDP (RFC 894, 826, 791, 792, 768) as it takes to
 * be found and to be asked. Frames are bytes in one piece; numbers in headers are big endian.
 */
#ifndef KIT_INET_H
#define KIT_INET_H

#include "net.h"

struct eth {
	u8 dst[6], src[6];
	u16 type; /* ETH_* */
} __attribute__((packed));
#define ETH_IP  0x0800
#define ETH_ARP 0x0806

struct arp {
	struct eth eth;
	u16 hardware, protocol; /* 1, ETH_IP */
	u8 hardware_len, protocol_len;
	u16 op; /* ARP_* */
	u8 sender_mac[6];
	u32 sender_ip;
	u8 target_mac[6];
	u32 target_ip;
} __attribute__((packed));
#define ARP_REQUEST 1
#define ARP_REPLY   2

struct ip {
	struct eth eth;
	u8 version_len, tos;
	u16 len, id, fragment;
	u8 ttl, protocol;
	u16 sum;
	u32 src, dst;
} __attribute__((packed));
#define IP_ICMP 1
#define IP_TCP  6
#define IP_UDP  17

struct icmp {
	struct ip ip;
	u8 type, code;
	u16 sum;
} __attribute__((packed));
#define ICMP_REPLY   0
#define ICMP_REQUEST 8

struct udp {
	struct ip ip;
	u16 src_port, dst_port, len, sum;
} __attribute__((packed));

struct tcp {
	struct ip ip;
	u16 src_port, dst_port;
	u32 seq, ack;
	u8 off, flags;
	u16 window, sum, urgent;
} __attribute__((packed));

static inline u16 be16(u16 x)
{
	return __builtin_bswap16(x);
}
static inline u32 be32(u32 x)
{
	return __builtin_bswap32(x);
}

/* One's complement sum of @len bytes, added to @sum, folded to 16 bits, not inverted; in the byte
 * order of the bytes. */
u16 inet_sum(const void *data, size_t len, u16 sum);
/* "10.0.0.2" to big endian; 0 if it is not that. */
u32 inet_parse(const char *text);

/* What a frame is, as far as this file can use it: right lengths, no IP options, no fragments. */
enum inet_kind { INET_OTHER, INET_ARP, INET_ICMP, INET_UDP };
enum inet_kind inet_kind(const u8 *frame, u32 len);

/* Is @f an ARP request for @ip? Then makes the answer at @to (42 bytes); returns its length or 0. */
u32 inet_arp_answer(const u8 *frame, u32 len, u8 *to, const u8 mac[6], u32 ip);
/* An ARP request at @to for @target; for our own address it is an announcement (RFC 5227). */
u32 inet_arp_request(u8 *to, const u8 mac[6], u32 ip, u32 target);
/*
 * Turns a UDP packet or an ICMP echo request round, in place: it goes back to its sender. Checksums
 * stay right, also a partial one that somebody is still to complete.
 */
void inet_turn(u8 *frame, enum inet_kind kind);
/* Ethernet and IP header at @to for a packet of @len bytes in all, sum included. */
void inet_ip(struct ip *to, const u8 src_mac[6], const u8 dst_mac[6], u32 src, u32 dst, u8 protocol,
	u32 len, u16 id);
/* The sum over the pseudo header of @p, what a partial checksum begins with. */
u16 inet_pseudo(const struct ip *p);
/* Completes the checksum that @h says is wanted (NEEDS_CSUM) and takes the wish out of @h. False: it
 * lies outside of the frame. */
bool inet_complete(struct net_header *h, u8 *frame, u32 len);

#endif
