/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_verify.c - mode=verify of the net guest: nothing lost, doubled or changed on the way.
 *
 * Sends UDP packets from port= (9000) to the same port of peer=, where somebody echoes them, with
 * window= (32) of them not yet back; checks what comes back. The peer's MAC is asked for by ARP.
 * A payload is 64-bit words, little endian: "VKUDPSEQ", sequence number from 1 on, words that follow
 * from it (each x * 6364136223846793005 + 1442695040888963407 of the one before, the number
 * first), and at last the FNV-1a over the words before it. size=S bytes of payload, a multiple of 8
 * from 32 on; default: all lengths in turn up to what the MTU allows.
 *
 *	count=N      packets (10000)
 *	timeout=N    cycles after which a packet is lost (1000000000)
 *
 * Adds to the result: "packets" sent, and of these "back", "lost", "late" (came after all, when it
 * counted as lost), "doubled", "corrupt", "reordered". Lost, doubled and corrupt ones are errors.
 */
#include "net.h"

#define MAGIC      0x514553504455564bull
#define WORDS_MIN  4
#define WINDOW_MAX 1024
#define ASK_CYCLES 500000000 /* between ARP requests ... */
#define ASK_MOST   64        /* ... and then there is nobody */
#define TURN_NS    5000000   /* how long to sleep at most: timeouts are looked for */

enum { IDLE, AWAY, BACK, LOST };

/* What became of packet n is in packets[n % WINDOW_MAX]. */
static struct {
	u64 sequence, at; /* when it was sent */
	u8 state;
} packets[WINDOW_MAX];

static u64 next = 1, oldest = 1, highest, timeout, asked_at;
static unsigned window, words_most;
static struct {
	u64 back, lost, late, doubled, corrupt, reordered;
} found;

static u64 sum_of(const u64 *words, unsigned count)
{
	u64 sum = 0xcbf29ce484222325ull;

	for (unsigned i = 0; i < count; i++)
		sum = (sum ^ words[i]) * 0x100000001b3ull;
	return sum;
}

static unsigned words_for(u64 sequence)
{
	if (opt.size)
		return opt.size / 8;
	return WORDS_MIN + (unsigned)(sequence % (words_most - WORDS_MIN + 1));
}

static bool start(void)
{
	words_most = (card.mtu - 28u) / 8;
	window = (unsigned)kit_option_number("window", 32);
	timeout = kit_option_number("timeout", 1000000000);
	if (!opt.frames)
		opt.frames = 10000;
	if (!opt.port)
		opt.port = 9000;
	wait_ns = TURN_NS;
	if (!window || window > WINDOW_MAX / 2 || opt.size % 8 ||
		(opt.size && opt.size / 8 < WORDS_MIN) || opt.size / 8 > words_most) {
		kit_printf("net: size or window is nonsense\n");
		return false;
	}
	return true;
}

static void send_packet(struct net_slot *s)
{
	unsigned count = words_for(next);
	struct udp *u = (void *)s->data;
	u64 *words = (u64 *)(u + 1), x = next;
	u32 len = (u32)sizeof(struct udp) + count * 8;

	words[0] = MAGIC;
	words[1] = next;
	for (unsigned i = 2; i < count - 1; i++)
		words[i] = x = x * 6364136223846793005ull + 1442695040888963407ull;
	words[count - 1] = sum_of(words, count - 1);
	inet_ip(&u->ip, card.mac, opt.peer_mac, opt.ip, opt.peer, IP_UDP,
		len - (u32)sizeof(struct eth), (u16)next);
	u->src_port = u->dst_port = be16(opt.port);
	u->len = be16((u16)(len - sizeof(struct ip)));
	u->sum = inet_pseudo(&u->ip);
	s->h->flags = NET_H_NEEDS_CSUM;
	s->h->csum_start = sizeof(struct ip);
	s->h->csum_offset = 6;
	if (!net_has(&card, NET_F_CSUM))
		inet_complete(s->h, s->data, len);
	packets[next % WINDOW_MAX].sequence = next;
	packets[next % WINDOW_MAX].at = kit_cycles();
	packets[next % WINDOW_MAX].state = AWAY;
	next++;
	send_frame(0, s, len);
}

/* Counts what has been away for too long. */
static void look_for_lost(u64 now)
{
	for (; oldest < next; oldest++) {
		unsigned i = oldest % WINDOW_MAX;

		if (packets[i].state == AWAY) {
			if ((int64_t)(now - packets[i].at) < (int64_t)timeout)
				return;
			packets[i].state = LOST;
			found.lost++;
			seen.errors++;
		}
	}
}

static bool ask(u64 now)
{
	static unsigned asked;
	struct net_slot *s;

	if (asked_at && now - asked_at < ASK_CYCLES)
		return false;
	if (asked++ == ASK_MOST) {
		kit_printf("net: nobody answers for peer=\n");
		seen.errors++;
		finished = true;
	}
	s = net_slot(&card, 0);
	if (s)
		send_frame(0, s, inet_arp_request(s->data, card.mac, opt.ip, opt.peer));
	asked_at = now;
	return true;
}

static bool step(void)
{
	u64 now = kit_cycles();
	struct net_slot *s;
	bool any = false;

	if (!opt.have_peer_mac)
		return ask(now);
	look_for_lost(now);
	while (next <= opt.frames && next - oldest < window && (s = net_slot(&card, 0))) {
		send_packet(s);
		any = true;
	}
	finished |= oldest > opt.frames;
	return any;
}

/* A payload of @len bytes in one piece. */
static void check(const u64 *words, u32 len)
{
	u64 sequence = len >= WORDS_MIN * 8 ? words[1] : 0;
	unsigned i = sequence % WINDOW_MAX, count = len / 8;

	if (len % 8 || count < WORDS_MIN || words[0] != MAGIC ||
		words[count - 1] != sum_of(words, count - 1) || count != words_for(sequence) ||
		!sequence || sequence >= next) {
		found.corrupt++;
		seen.errors++;
	} else if (packets[i].sequence != sequence || packets[i].state == BACK) {
		found.doubled++; /* or so late that it is forgotten */
		seen.errors++;
	} else {
		if (packets[i].state == LOST) {
			found.late++;
			found.lost--;
			seen.errors--;
		}
		found.back++;
		packets[i].state = BACK;
		found.reordered += sequence < highest;
		if (sequence > highest)
			highest = sequence;
	}
}

static void frame(const struct net_frame *f, enum inet_kind kind)
{
	static u8 whole[2048];
	const struct udp *u = (const void *)whole;
	const struct arp *a = (const void *)whole;

	if (f->len > sizeof(whole)) {
		seen.other++;
		return;
	}
	net_copy(f, whole);
	if (kind == INET_ARP && a->op == be16(ARP_REPLY) && a->sender_ip == opt.peer) {
		memcpy(opt.peer_mac, a->sender_mac, sizeof(opt.peer_mac));
		opt.have_peer_mac = true;
	} else if (kind == INET_UDP && u->ip.dst == opt.ip && u->dst_port == be16(opt.port) &&
		   be16(u->len) >= 8 && be16(u->len) <= f->len - sizeof(struct ip)) {
		check((const u64 *)(u + 1), be16(u->len) - 8u);
	} else {
		seen.other++;
	}
}

static void report(char *text, size_t cap)
{
	snprintf(text, cap,
		",\"packets\":%lu,\"back\":%lu,\"lost\":%lu,\"late\":%lu,\"doubled\":%lu,"
		"\"corrupt\":%lu,\"reordered\":%lu",
		next - 1, found.back, found.lost, found.late, found.doubled, found.corrupt,
		found.reordered);
}

const struct net_mode mode_verify = {
	.name = "verify", .start = start, .frame = frame, .step = step, .report = report};
