/* SPDX-License-Identifier: Apache-2.0 */
/* inet.c - see inet.h. */
#include "inet.h"

static u16 fold(u64 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)sum;
}

u16 inet_sum(const void *data, size_t len, u16 start)
{
	const u8 *p = data;
	u64 sum = start;

	for (; len >= 4; len -= 4, p += 4)
		sum += *(const u32 *)p;
	if (len >= 2) {
		sum += *(const u16 *)p;
		p += 2;
	}
	return fold(sum + (len & 1 ? *p : 0));
}

u32 inet_parse(const char *s)
{
	u32 ip = 0;

	for (unsigned i = 0; i < 4; i++) {
		const char *end;
		u64 n = strtoul(s, &end, 10);

		if (end == s || n > 255 || *end != (i < 3 ? '.' : '\0'))
			return 0;
		ip |= (u32)n << (8 * i);
		s = end + 1;
	}
	return ip;
}

/* The lengths of an IP packet must fit into the frame, and its header be the plain one. */
static bool ip_good(const struct ip *p, u32 len, u32 least)
{
	u32 total = be16(p->len);

	return len >= least && p->version_len == 0x45 && total >= least - sizeof(struct eth) &&
	       total <= len - sizeof(struct eth) && !(p->fragment & be16(0x3fff));
}

enum inet_kind inet_kind(const u8 *frame, u32 len)
{
	const struct ip *p = (const void *)frame;
	const struct udp *u = (const void *)frame;

	if (len < sizeof(struct eth))
		return INET_OTHER;
	if (p->eth.type == be16(ETH_ARP))
		return len >= sizeof(struct arp) ? INET_ARP : INET_OTHER;
	if (p->eth.type != be16(ETH_IP) || len < sizeof(*p))
		return INET_OTHER;
	if (p->protocol == IP_ICMP && ip_good(p, len, sizeof(struct icmp)))
		return INET_ICMP;
	if (p->protocol == IP_UDP && ip_good(p, len, sizeof(*u)))
		return INET_UDP;
	return INET_OTHER;
}

/* @target_mac NULL: to everyone, because nobody knows it. */
static u32 arp(u8 *to, const u8 mac[6], u32 ip, u16 op, const u8 *target_mac, u32 target_ip)
{
	static const u8 everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unknown[6];
	struct arp *a = (void *)to;

	memcpy(a->eth.dst, target_mac ? target_mac : everyone, 6);
	memcpy(a->eth.src, mac, 6);
	a->eth.type = be16(ETH_ARP);
	a->hardware = be16(1);
	a->protocol = be16(ETH_IP);
	a->hardware_len = 6;
	a->protocol_len = 4;
	a->op = be16(op);
	memcpy(a->sender_mac, mac, 6);
	a->sender_ip = ip;
	memcpy(a->target_mac, target_mac ? target_mac : unknown, 6);
	a->target_ip = target_ip;
	return sizeof(*a);
}

u32 inet_arp_answer(const u8 *frame, u32 len, u8 *to, const u8 mac[6], u32 ip)
{
	const struct arp *a = (const void *)frame;

	if (inet_kind(frame, len) != INET_ARP || a->op != be16(ARP_REQUEST) || a->target_ip != ip)
		return 0;
	return arp(to, mac, ip, ARP_REPLY, a->sender_mac, a->sender_ip);
}

u32 inet_arp_request(u8 *to, const u8 mac[6], u32 ip, u32 target)
{
	return arp(to, mac, ip, ARP_REQUEST, NULL, target);
}

void inet_turn(u8 *frame, enum inet_kind kind)
{
	struct udp *u = (void *)frame;
	struct icmp *c = (void *)frame;
	u32 ip = u->ip.src;
	u8 mac[6];

	memcpy(mac, u->ip.eth.src, 6);
	memcpy(u->ip.eth.src, u->ip.eth.dst, 6);
	memcpy(u->ip.eth.dst, mac, 6);
	u->ip.src = u->ip.dst;
	u->ip.dst = ip;
	if (kind == INET_UDP) {
		u16 port = u->src_port;

		u->src_port = u->dst_port;
		u->dst_port = port;
	} else {
		c->type = ICMP_REPLY;
		c->sum = fold((u32)c->sum + ICMP_REQUEST); /* the sum is inverted */
	}
}

void inet_ip(struct ip *to, const u8 src_mac[6], const u8 dst_mac[6], u32 src, u32 dst, u8 protocol,
	u32 len, u16 id)
{
	memcpy(to->eth.dst, dst_mac, 6);
	memcpy(to->eth.src, src_mac, 6);
	to->eth.type = be16(ETH_IP);
	to->version_len = 0x45;
	to->tos = 0;
	to->len = be16((u16)len);
	to->id = be16(id);
	to->fragment = be16(0x4000); /* do not */
	to->ttl = 64;
	to->protocol = protocol;
	to->sum = 0;
	to->src = src;
	to->dst = dst;
	to->sum = (u16)~inet_sum(&to->version_len, sizeof(*to) - sizeof(to->eth), 0);
}

u16 inet_pseudo(const struct ip *p)
{
	u16 len = (u16)(be16(p->len) - (sizeof(*p) - sizeof(p->eth)));

	return inet_sum(&p->src, 8, fold((u64)be16(p->protocol) + be16(len)));
}

bool inet_complete(struct net_header *h, u8 *frame, u32 len)
{
	u16 *field;

	if (!(h->flags & NET_H_NEEDS_CSUM))
		return true;
	if (h->csum_start > len || len - h->csum_start < 2 ||
		h->csum_offset > len - h->csum_start - 2)
		return false;
	field = (u16 *)(frame + h->csum_start + h->csum_offset);
	/* The field holds the sum of the pseudo header: it is summed up with the rest. */
	*field = (u16)~inet_sum(frame + h->csum_start, len - h->csum_start, 0);
	if (!*field)
		*field = 0xffff;
	h->flags &= (u8)~NET_H_NEEDS_CSUM;
	return true;
}
