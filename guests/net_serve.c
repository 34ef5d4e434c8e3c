/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_serve.c - the net guest by command: lines on vsock port 1024, each answered by one line.
 *	stats     "ok frames=N bytes=N sent=N sent_bytes=N other=N dropped=N errors=N announced=N"
 *	who       "ok mac=XX:XX:XX:XX:XX:XX ip=A.B.C.D mtu=N status=N features=0xHEX"
 *	announce  "ok", after a gratuitous ARP
 *	stop      "ok"; the mode ends, as with the packet
 *	ping      "ok GENERATION", of the identity page
 */
#include "net.h"
#include "kit/vsock.h"

#define LINE_MAX 64
#define PORT     1024

static int stats(char *text, size_t cap)
{
	return snprintf(text, cap,
		"ok frames=%lu bytes=%lu sent=%lu sent_bytes=%lu other=%lu dropped=%lu errors=%lu "
		"announced=%lu\n",
		seen.frames, seen.bytes, seen.sent, seen.sent_bytes, seen.other, seen.dropped,
		seen.errors + card.broken, seen.announced);
}

static int who(char *text, size_t cap)
{
	const u8 *m = card.mac, *ip = (const u8 *)&opt.ip;

	net_read_config(&card);
	return snprintf(text, cap,
		"ok mac=%02x:%02x:%02x:%02x:%02x:%02x ip=%u.%u.%u.%u mtu=%u status=%u "
		"features=0x%lx\n",
		m[0], m[1], m[2], m[3], m[4], m[5], ip[0], ip[1], ip[2], ip[3], card.mtu,
		net_status(&card), card.dev.features);
}

static int execute(const char *line, char *text, size_t cap)
{
	if (streq(line, "stats"))
		return stats(text, cap);
	if (streq(line, "who"))
		return who(text, cap);
	if (streq(line, "ping"))
		return snprintf(text, cap, "ok %u\n", kit_generation());
	if (streq(line, "announce")) {
		announce();
		net_kick(&card);
	} else if (streq(line, "stop")) {
		finished = true;
	} else {
		return snprintf(text, cap, "error what\n");
	}
	return snprintf(text, cap, "ok\n");
}

static void event(struct vsock_conn *c)
{
	const char *from;
	size_t len, whole;

	while ((whole = vsock_line(c, &from, &len, LINE_MAX - 1))) {
		char line[LINE_MAX] = "", text[256];

		memcpy(line, from, len);
		vsock_consume(c, whole);
		vsock_send_all(c, text, (size_t)execute(line, text, sizeof(text)));
	}
	if (vsock_eof(c))
		vsock_close(c);
}

bool serve_init(void)
{
	return vsock_init() && vsock_listen(PORT, &(struct vsock_ops){.event = event});
}
