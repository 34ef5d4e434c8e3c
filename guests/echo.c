/* SPDX-License-Identifier: Apache-2.0 */
/*
 * echo - vsock services to test and measure connections with.
 *
 * Port 1024: each line is answered by one line,
 *	LINE count=N generation=G random=R
 *   N counts lines since boot over all connections and goes on over snapshots; G and R (the first
 *   of the random words, 16 hex digits) are from the identity page. A line of more than LINE_MAX
 *   bytes is answered in pieces.
 * Port 1025: takes bytes until the peer is done sending, answers "bytes=N sum=S", S their 64-bit
 *   FNV-1a, and closes.
 * Port 1026: takes a line with a number N (decimal; K, M, G allowed) and sends N bytes, byte i
 *   being (i * 7 + 3) & 255, and closes.
 * All three close when the peer is done sending and has its answers.
 *
 * Command line: connect=PORT: connects to that port of the host, sends "hello from cid C\n", and
 *   answers lines there too.
 */
#include "kit/vsock.h"

#define LINE_MAX 4096
#define PATTERN  65536 /* a multiple of the pattern's period, 256 */

static u64 count;

/* ---- port 1024 and connect= ---- */

static void echo_event(struct vsock_conn *c)
{
	char answer[LINE_MAX + 96];
	const char *line;
	size_t len, whole;

	while ((whole = vsock_line(c, &line, &len, LINE_MAX))) {
		int tail;

		memcpy(answer, line, len);
		tail = snprintf(answer + len, 96, " count=%lu generation=%u random=%016lx\n", count + 1,
			kit_generation(), kit_random_word());
		if (!vsock_send_all(c, answer, len + (size_t)tail))
			return;
		count++;
		vsock_consume(c, whole);
	}
	if (vsock_eof(c))
		vsock_close(c);
}

static const struct vsock_ops echo_ops = {.event = echo_event};

static void greeting_event(struct vsock_conn *c)
{
	char hello[64];
	int len = snprintf(hello, sizeof(hello), "hello from cid %u\n", vsock_cid());

	if (vsock_send_all(c, hello, (size_t)len)) {
		c->ops = &echo_ops;
		echo_event(c);
	}
}

static const struct vsock_ops greeting_ops = {.event = greeting_event};

/* ---- port 1025: user[0] bytes, user[1] sum, user[2] whether both are begun ---- */

static u64 fnv1a(u64 sum, const u8 *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum = (sum ^ data[i]) * 0x100000001b3ull;
	return sum;
}

static void sink_event(struct vsock_conn *c)
{
	char answer[64];
	size_t len;
	const u8 *data = vsock_peek(c, &len);
	int answer_len;

	if (!c->user[2]) {
		c->user[1] = 0xcbf29ce484222325ull;
		c->user[2] = 1;
	}
	c->user[0] += len;
	c->user[1] = fnv1a(c->user[1], data, len);
	vsock_consume(c, len);
	if (!vsock_eof(c))
		return;
	answer_len = snprintf(answer, sizeof(answer), "bytes=%lu sum=%016lx\n", c->user[0],
		c->user[1]);
	if (vsock_send_all(c, answer, (size_t)answer_len))
		vsock_close(c);
}

static const struct vsock_ops sink_ops = {.event = sink_event};

/* ---- port 1026: user[0] bytes wanted, user[1] bytes sent, user[2] whether the line came ---- */

static const u8 *pattern(void)
{
	static u8 *bytes;

	if (!bytes) {
		bytes = kit_pages(PATTERN);
		for (unsigned i = 0; bytes && i < PATTERN; i++)
			bytes[i] = (u8)(i * 7 + 3);
	}
	return bytes;
}

/* Reads N; false if there is no line yet. */
static bool source_line(struct vsock_conn *c)
{
	char number[32];
	const char *line;
	size_t len, whole = vsock_line(c, &line, &len, sizeof(number) - 1);

	if (!whole)
		return false;
	memcpy(number, line, len);
	number[len] = '\0';
	vsock_consume(c, whole);
	c->user[0] = strtoul(number, NULL, 10);
	c->user[2] = 1;
	return true;
}

static void source_event(struct vsock_conn *c)
{
	const u8 *bytes = pattern();
	u64 left, at, chunk, sent;

	if (!bytes || (!c->user[2] && !source_line(c))) {
		if (!bytes || vsock_eof(c))
			vsock_close(c);
		return;
	}
	while ((left = c->user[0] - c->user[1]) > 0) {
		at = c->user[1] % 256;
		chunk = left < PATTERN - at ? left : PATTERN - at;
		sent = vsock_send(c, bytes + at, chunk);
		c->user[1] += sent;
		if (sent < chunk)
			return;
		if (vsock_deaf(c))
			break;
	}
	vsock_close(c);
}

static const struct vsock_ops source_ops = {.event = source_event};

int kit_main(void)
{
	u64 port = kit_option_number("connect", 0);

	if (!vsock_init() || !vsock_listen(1024, &echo_ops) || !vsock_listen(1025, &sink_ops) ||
		!vsock_listen(1026, &source_ops)) {
		kit_printf("echo: no vsock device, or no memory for it\n");
		return 1;
	}
	if (port)
		vsock_connect(VSOCK_CID_HOST, (u32)port, &greeting_ops);
	kit_ready();
	for (;;)
		vsock_wait();
}
