/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net - works on a network card: answers, counts, floods, reflects, checks.
 *
 * Command line:
 *	mode=MODE    what to do (answer); every mode answers ARP for its address too:
 *	  answer       ICMP echo and UDP (any port but 9) go back to their sender
 *	  rx           counts what comes, until count= frames or a stop
 *	  reflect      sends each frame back with its MACs swapped, until count= or a stop
 *	  tx           sends frames as fast as it can: see net_tx.c
 *	  verify       sends UDP to an echo server and checks what comes back: see net_verify.c
 *	ip=A.B.C.D   our address: from here, else the line ip= of the identity page, else 10.0.0.2
 *	peer=A.B.C.D peermac=XX:XX:XX:XX:XX:XX   the other side (10.0.0.1; tx: a MAC that is nobody's,
 *	             verify: asks by ARP)
 *	count=N      frames until the end (tx 100000, verify 10000, others no end); frames=N is the same
 *	card=N queues=N   which card (0); pairs of queues (1)
 *	rxbuf=SIZE rxslots=N txslots=N   frame bytes of a receive buffer (4K), buffers of a queue (256),
 *	             slots to send from (64); powers of 2, at most 256
 *	nomrg nocsum notso   without MRG_RXBUF; without any offload; without segmentation offload
 *	poll nospin noeventidx   of the kit
 *
 * A UDP packet "stop" to port 9 ends every mode. The end is a line of JSON on the console:
 *	{"guest":"net","mode":"rx","frames":N,"bytes":N,"cycles":C,"errors":0,"sent":N,
 *	 "sent_bytes":N,"dropped":0,"other":N,"features":"0x..."}
 * and status 0, or 1 if there were errors; 2 if it cannot be done. frames and bytes are those
 * received for the mode (tx: sent), cycles (TSC) from the first of them to the last.
 * Where there is a vsock device, port 1024 takes lines: see net_serve.c.
 *
 * After a restore, and when the device asks for it, MAC and address are read again and announced.
 */
#include "net.h"
#include "kit/vsock.h"

#define STOP_PORT    9
#define BUDGET       64          /* frames of a queue before the next has its turn */
#define CONFIG_CYCLES 200000000  /* a busy guest looks at the configuration that often */

struct net_options opt;
struct net card;
struct net_counters seen;
bool finished, wants_room;
u64 wait_ns = KIT_FOREVER;

static const struct net_mode *mode;
static bool have_vsock;

/* ---- sending ---- */

void send_frame(unsigned pair, struct net_slot *s, u32 len)
{
	net_send(&card, pair, s, len);
	seen.sent++;
	seen.sent_bytes += len;
}

void announce(void)
{
	struct net_slot *s = net_slot(&card, 0);

	if (!s)
		return;
	send_frame(0, s, inet_arp_request(s->data, card.mac, opt.ip, opt.ip));
	seen.announced++;
}

/* Whether the device can send a frame with this header. */
static bool can_send(const struct net_header *h)
{
	switch (h->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_NONE: return true;
	case NET_GSO_TCP4: return net_has(&card, NET_F_HOST_TSO4);
	case NET_GSO_TCP6: return net_has(&card, NET_F_HOST_TSO6);
	case NET_GSO_UDP: return net_has(&card, NET_F_HOST_USO);
	}
	return false;
}

/* Copies @f into a slot, header and all; NULL if that cannot be. */
static struct net_slot *copy(const struct net_frame *f)
{
	struct net_slot *s;

	if (f->len > card.tx_len || !can_send(&f->h) || !(s = net_slot(&card, f->pair))) {
		seen.dropped++;
		return NULL;
	}
	net_copy(f, s->data);
	*s->h = f->h;
	s->h->num_buffers = 0;
	s->h->flags &= NET_H_NEEDS_CSUM;
	return s;
}

static void send_back(const struct net_frame *f, struct net_slot *s)
{
	if (!net_has(&card, NET_F_CSUM))
		inet_complete(s->h, s->data, f->len);
	send_frame(f->pair, s, f->len);
}

/* ---- modes ---- */

static void answer_frame(const struct net_frame *f, enum inet_kind kind)
{
	const struct icmp *c = (const void *)f->piece[0].data;
	struct net_slot *s;

	if (c->ip.dst != opt.ip || (kind != INET_UDP && kind != INET_ICMP) ||
		(kind == INET_ICMP && c->type != ICMP_REQUEST)) {
		seen.other++;
		return;
	}
	s = copy(f);
	if (s) {
		inet_turn(s->data, kind);
		send_back(f, s);
	}
}

static void reflect_frame(const struct net_frame *f, enum inet_kind kind)
{
	struct net_slot *s = copy(f);
	struct eth *e;
	u8 mac[6];

	(void)kind;
	if (!s)
		return;
	e = (void *)s->data;
	memcpy(mac, e->dst, sizeof(mac));
	memcpy(e->dst, e->src, sizeof(mac));
	memcpy(e->src, mac, sizeof(mac));
	send_back(f, s);
}

static const struct net_mode mode_answer = {.name = "answer", .frame = answer_frame};
static const struct net_mode mode_rx = {.name = "rx"};
static const struct net_mode mode_reflect = {.name = "reflect", .frame = reflect_frame};
static const struct net_mode *const modes[] = {
	&mode_answer, &mode_rx, &mode_reflect, &mode_tx, &mode_verify};
#define MODES (sizeof(modes) / sizeof(modes[0]))

/* ---- receiving ---- */

/* "stop" to port 9 of ours. */
static bool is_stop(const struct net_frame *f, enum inet_kind kind)
{
	const struct udp *u = (const void *)f->piece[0].data;

	return kind == INET_UDP && u->ip.dst == opt.ip && u->dst_port == be16(STOP_PORT) &&
	       f->piece[0].len >= sizeof(*u) + 4 && memcmp(u + 1, "stop", 4) == 0;
}

/* Answers if somebody asks where we are. */
static bool is_question(const struct net_frame *f, enum inet_kind kind)
{
	struct net_slot *s;
	u32 len = 0;

	if (kind != INET_ARP || !(s = net_slot(&card, f->pair)))
		return false;
	len = inet_arp_answer(f->piece[0].data, f->piece[0].len, s->data, card.mac, opt.ip);
	if (len)
		send_frame(f->pair, s, len);
	else
		net_unslot(&card, f->pair, s);
	return len != 0;
}

static void handle(const struct net_frame *f)
{
	const struct eth *e = (const void *)f->piece[0].data;
	enum inet_kind kind = INET_OTHER;

	/* Headers in pieces are not worth reading: no buffer is that small. */
	if (f->piece[0].len >= sizeof(struct tcp) || f->pieces == 1)
		kind = inet_kind(f->piece[0].data, f->len);
	if (is_question(f, kind))
		return;
	if (f->piece[0].len < sizeof(*e) || memcmp(e->dst, card.mac, sizeof(e->dst)) != 0) {
		seen.other++;
		return;
	}
	if (is_stop(f, kind)) {
		finished = true;
		return;
	}
	if (mode->sends) {
		seen.other++;
		return;
	}
	seen.last = kit_cycles();
	if (!seen.frames++)
		seen.first = seen.last;
	seen.bytes += f->len;
	if (mode->frame)
		mode->frame(f, kind);
	if (!mode->step && seen.frames == opt.frames)
		finished = true;
}

static bool receive(void)
{
	static struct net_frame f;
	bool any = false;

	for (unsigned pair = 0; pair < card.pair_count; pair++) {
		for (unsigned i = 0; i < BUDGET && net_receive(&card, pair, &f); i++) {
			handle(&f);
			net_return(&card, &f);
			any = true;
		}
	}
	return any;
}

/* ---- who we are ---- */

static void read_address(void)
{
	char text[32];

	opt.ip = 0;
	if (kit_option("ip", text, sizeof(text)) || kit_hint("ip", text, sizeof(text)))
		opt.ip = inet_parse(text);
	if (!opt.ip)
		opt.ip = inet_parse("10.0.0.2");
}

/* After a restore we may be somebody else. */
static void look_at_generation(void)
{
	static u32 generation;

	if (generation == kit_generation())
		return;
	generation = kit_generation();
	net_read_config(&card);
	read_address();
	announce();
}

static void look_at_config(void)
{
	if (!virtio_config_changed(&card.dev))
		return;
	net_read_config(&card);
	if (net_has(&card, NET_F_GUEST_ANNOUNCE) && (net_status(&card) & NET_S_ANNOUNCE)) {
		announce();
		net_kick(&card);
		net_ack_announce(&card);
	}
}

/* ---- the loop ---- */

static void run(void)
{
	u64 looked = kit_cycles();
	bool woken = false;

	while (!finished) {
		bool any = receive();

		look_at_generation();
		if (mode->step)
			any |= mode->step();
		net_kick(&card);
		if (have_vsock)
			any |= vsock_poll();
		if ((woken && !any) || kit_cycles() - looked > CONFIG_CYCLES) {
			look_at_config();
			looked = kit_cycles();
		}
		woken = false;
		if (kit_look_again(any))
			continue;
		any = net_arm(&card, wants_room);
		if (!(have_vsock && vsock_arm()) && !any) {
			kit_wait(wait_ns);
			woken = true;
		}
	}
}

static bool read_mac(const char *text, u8 mac[6])
{
	for (unsigned i = 0; i < 6; i++) {
		const char *end;
		u64 byte = strtoul(text, &end, 16);

		if (end != text + 2 || *end != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (u8)byte;
		text = end + 1;
	}
	return true;
}

static bool read_options(void)
{
	char text[32] = "10.0.0.1";

	if (!kit_option("mode", opt.mode, sizeof(opt.mode)))
		memcpy(opt.mode, "answer", sizeof("answer"));
	for (unsigned i = 0; i < MODES; i++) {
		if (streq(modes[i]->name, opt.mode))
			mode = modes[i];
	}
	read_address();
	kit_option("peer", text, sizeof(text));
	opt.peer = inet_parse(text);
	opt.have_peer_mac = kit_option("peermac", text, sizeof(text));
	opt.frames = kit_option_number("count", kit_option_number("frames", 0));
	opt.size = (u32)kit_option_number("size", 0);
	opt.gso = (u32)kit_option_number("gso", 0);
	opt.port = (u16)kit_option_number("port", 0);
	opt.udp = kit_flag("udp");
	if (!mode)
		kit_printf("net: no mode=%s\n", opt.mode);
	return mode && opt.peer && (!opt.have_peer_mac || read_mac(text, opt.peer_mac));
}

static bool start_card(void)
{
	struct net_setup setup = {
		.nth = (unsigned)kit_option_number("card", 0),
		.pairs = (unsigned)kit_option_number("queues", 1),
		.rx_slots = (unsigned)kit_option_number("rxslots", 256),
		.tx_slots = (unsigned)kit_option_number("txslots", 64),
		.rx_len = (u32)kit_option_number("rxbuf", 4096),
		.tx_len = NET_FRAME_MAX,
	};

	if (kit_flag("nomrg"))
		setup.without |= NET_F_MRG_RXBUF;
	if (kit_flag("nocsum"))
		setup.without |= NET_F_CSUM | NET_F_GUEST_CSUM;
	if (kit_flag("notso"))
		setup.without |= NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_USO |
				 NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_USO4 |
				 NET_F_GUEST_USO6;
	return setup.rx_len >= 1536 && net_init(&card, &setup);
}

static void report(void)
{
	char more[256] = "";

	if (mode->report)
		mode->report(more, sizeof(more));
	kit_printf("{\"guest\":\"net\",\"mode\":\"%s\",\"frames\":%lu,\"bytes\":%lu,\"cycles\":%lu,"
		   "\"errors\":%lu,\"sent\":%lu,\"sent_bytes\":%lu,\"dropped\":%lu,\"other\":%lu,"
		   "\"features\":\"0x%lx\"%s}\n",
		mode->name, seen.frames, seen.bytes, seen.last - seen.first,
		seen.errors + card.broken, seen.sent, seen.sent_bytes, seen.dropped, seen.other,
		card.dev.features, more);
}

int kit_main(void)
{
	if (!read_options())
		return 2;
	if (!start_card()) {
		kit_printf("net: no such card, or it cannot be used so\n");
		return 2;
	}
	have_vsock = serve_init();
	if (mode->start && !mode->start())
		return 2;
	announce();
	net_kick(&card);
	kit_ready();
	run();
	report();
	return seen.errors + card.broken != 0;
}
