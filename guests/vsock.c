/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock - connections at full speed: so little is done with the bytes that the host's side is what
 * is measured. All ports close when the peer is done sending and has its answer.
 *
 *	5000  takes bytes; at the end answers "bytes=N\n"
 *	5001  takes a line with a number N (decimal; K, M, G allowed), sends N bytes without touching
 *	      them: byte i is (i * 7 + 3) & 255
 *	5002  sends back what comes: round trips
 *	5003  as 5000, but answers "bytes=N sum=S\n", S their 64-bit FNV-1a, 16 hex digits
 *	5004  as 5001, but the bytes are copied into the packets
 *	5005  sends back what comes, bulk both ways at once; the last byte, then the end of data
 *
 * Command line:
 *	send=PORT   instead of all that: connects to that port of the host, sends 1 MiB like port 5001,
 *	      closes, and powers off the moment the device has it
 *	slots=N payload=SIZE credit=SIZE   packets on the way in each direction (64), bytes of one
 *	      (64K), bytes a peer may send ahead (1M)
 *	poll nospin noeventidx   of the kit: poll never sleeps
 */
#include "kit/vsock.h"

#define PATTERN  (1024 * 1024u) /* a multiple of the pattern's period, 256 */
#define LINE_MAX 31
#define PORT     5000

#define FNV_BASIS 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

static u8 *pattern;

/* ---- sinks: user[0] bytes, user[1] sum ---- */

static void answer(struct vsock_conn *c, const char *text, int len)
{
	if (vsock_send_all(c, text, (size_t)len))
		vsock_close(c);
}

static void count_event(struct vsock_conn *c)
{
	char text[64];
	size_t len;

	vsock_peek(c, &len);
	c->user[0] += len;
	vsock_consume(c, len);
	if (vsock_eof(c))
		answer(c, text, snprintf(text, sizeof(text), "bytes=%lu\n", c->user[0]));
}

static void sum_event(struct vsock_conn *c)
{
	char text[64];
	size_t len;
	const u8 *data = vsock_peek(c, &len);
	u64 sum = c->user[1] ^ FNV_BASIS; /* user[1] begins with 0 */

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ data[i]) * FNV_PRIME;
	c->user[0] += len;
	c->user[1] = sum ^ FNV_BASIS;
	vsock_consume(c, len);
	if (vsock_eof(c))
		answer(c, text,
			snprintf(text, sizeof(text), "bytes=%lu sum=%016lx\n", c->user[0], sum));
}

/* ---- sources: user[0] bytes wanted, user[1] bytes sent, user[2] whether the line came ---- */

typedef size_t send_fn(struct vsock_conn *c, const void *data, size_t len);

/* Reads N; false if there is no line yet. */
static bool source_line(struct vsock_conn *c)
{
	char number[LINE_MAX + 1] = "";
	const char *line;
	size_t len, whole = vsock_line(c, &line, &len, LINE_MAX);

	if (!whole)
		return false;
	memcpy(number, line, len);
	vsock_consume(c, whole);
	c->user[0] = strtoul(number, NULL, 10);
	c->user[2] = 1;
	return true;
}

static void source(struct vsock_conn *c, send_fn *send)
{
	u64 left;

	if (!c->user[2] && !source_line(c)) {
		if (vsock_eof(c))
			vsock_close(c);
		return;
	}
	while ((left = c->user[0] - c->user[1]) > 0 && !vsock_deaf(c)) {
		u64 at = c->user[1] % 256, chunk = left < PATTERN - at ? left : PATTERN - at;
		size_t sent = send(c, pattern + at, chunk);

		c->user[1] += sent;
		if (sent < chunk)
			return;
	}
	vsock_close(c);
}

static void constant_event(struct vsock_conn *c)
{
	source(c, vsock_send_constant);
}

static void copied_event(struct vsock_conn *c)
{
	source(c, vsock_send);
}

/* ---- echoes ---- */

static void echo_event(struct vsock_conn *c)
{
	size_t len;
	const void *data = vsock_peek(c, &len);

	if (len)
		vsock_consume(c, vsock_send(c, data, len)); /* what does not fit is kept */
	if (vsock_eof(c))
		vsock_close(c);
}

/* ---- send=PORT: user[1] bytes sent ---- */

static bool all_sent;

static void send_event(struct vsock_conn *c)
{
	c->user[1] += vsock_send(c, pattern + c->user[1], PATTERN - c->user[1]);
	if (c->user[1] < PATTERN)
		return;
	vsock_close(c);
	all_sent = true;
}

static int send_and_leave(u32 port)
{
	static const struct vsock_ops ops = {.event = send_event};

	if (!vsock_connect(VSOCK_CID_HOST, port, &ops))
		return 1;
	while (!all_sent)
		vsock_wait();
	vsock_poll(); /* hands over the end of the stream, and does not wait for an answer */
	return 0;
}

/* ---- */

static bool start(void)
{
	static const struct vsock_ops ops[] = {{.event = count_event}, {.event = constant_event},
		{.event = echo_event}, {.event = sum_event}, {.event = copied_event},
		{.event = echo_event}};
	struct vsock_setup setup = {
		.slots = (unsigned)kit_option_number("slots", 64),
		.payload = (u32)kit_option_number("payload", VSOCK_PAYLOAD_MAX),
		.credit = (u32)kit_option_number("credit", 1024 * 1024),
	};

	pattern = kit_pages(PATTERN);
	if (!pattern || !vsock_init_for(&setup))
		return false;
	for (unsigned i = 0; i < PATTERN; i++)
		pattern[i] = (u8)(i * 7 + 3);
	for (u32 i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (!vsock_listen(PORT + i, &ops[i]))
			return false;
	}
	return true;
}

int kit_main(void)
{
	if (!start()) {
		kit_printf("vsock: no vsock device, or not the memory for such sizes\n");
		return 1;
	}
	if (kit_option_number("send", 0))
		return send_and_leave((u32)kit_option_number("send", 0));
	kit_ready();
	for (;;)
		vsock_wait();
}
