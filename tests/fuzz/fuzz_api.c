/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_api.c - the API (monitor/api*.c) and HTTP below it, with clients that the input plays, on
 * the fake machine of the unit tests (A01 to A11): requests made from what the routes know, cut
 * anywhere, several in a row, with odd headers, lengths and JSON, or bytes that mean nothing, and
 * with descriptors that a body names or does not; clients that read slowly, hang up or say nothing;
 * a machine that answers late or with an error.
 *
 * Checked: what a client gets is replies, whole, with the length they say and JSON inside; no more
 * of them than requests that it finished, and one refusal; connections are bounded; a client that
 * says nothing is sent away; at the end every descriptor is closed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/api.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/lib/fake_machine.h"

#define CLIENTS   10u
#define TEXT_MAX  70000u
#define REPLY_MAX 4096u
#define TURNS_MAX 20000u

struct client {
	int fd;            /* the server's; -1: there is none */
	u32 len;           /* bytes written or to be written */
	unsigned requests; /* of which at least the beginning is in text */
	unsigned replies;
	u32 reply_len;     /* bytes of the reply that is being received */
	char text[TEXT_MAX];
	char reply[REPLY_MAX + 1];
};

static struct {
	struct ring *ring;
	struct machine machine;
	struct api *api;
	int listener;
	struct client client[CLIENTS];
} t;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

static void turn(void)
{
	must(ring_poll_once(t.ring) >= 0);
}

static void settle(void)
{
	unsigned n = 0, idle = 0;

	while (idle < 3) {
		u64 before = fh_uring_activity();

		turn();
		idle = fh_uring_activity() == before ? idle + 1 : 0;
		must(n++ < TURNS_MAX);
	}
}

/* Replies. */

/* How many bytes the reply at the beginning of c->reply has; 0: it is not known yet. */
static size_t reply_size(const struct client *c)
{
	const char *end = strstr(c->reply, "\r\n\r\n"), *len = strstr(c->reply, "Content-Length: ");
	size_t head;

	if (!end) {
		must(c->reply_len < 512);
		return 0;
	}
	head = (size_t)(end + 4 - c->reply);
	return len && len < end ? head + strtoul(len + 16, NULL, 10) : head;
}

static void check_reply(struct client *c, size_t size)
{
	const char *body = strstr(c->reply, "\r\n\r\n") + 4;
	size_t body_len = size - (size_t)(body - c->reply);
	json_t *j;

	must(!strncmp(c->reply, "HTTP/1.1 ", 9));
	must(strspn(c->reply + 9, "0123456789") == 3);
	fz_trace("reply %.3s, %zu bytes of body", c->reply + 9, body_len);
	if (strncmp(c->reply + 9, "100", 3) != 0)
		c->replies++;
	must(c->replies <= c->requests + 1);
	if (body_len) {
		j = json_loadb(body, body_len, 0, NULL);
		must(j);
		json_decref(j);
	}
}

static struct client *client_of(int fd)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (t.client[i].fd == fd)
			return &t.client[i];
	}
	return NULL;
}

static void client_gets(struct fh_file *f, u64 pos, const u8 *data, size_t len)
{
	struct client *c = client_of(f->fd);
	size_t size;

	must(c);
	while (len) {
		size_t part = REPLY_MAX - c->reply_len;

		part = part < len ? part : len;
		must(part);
		memcpy(c->reply + c->reply_len, data, part);
		c->reply_len += (u32)part;
		c->reply[c->reply_len] = 0;
		data += part;
		len -= part;
		while ((size = reply_size(c)) && c->reply_len >= size) {
			check_reply(c, size);
			memmove(c->reply, c->reply + size, c->reply_len + 1 - size);
			c->reply_len -= (u32)size;
		}
	}
}

/* Clients. */

static struct fh_stream *stream_of(const struct client *c)
{
	return &fh_file(c->fd)->s;
}

/* Those whose connection the server closed are free for another. */
static void forget_closed(void)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (t.client[i].fd >= 0 && !fh_is_open(t.client[i].fd))
			t.client[i].fd = -1;
	}
}

static void say(struct client *c, const void *p, size_t len)
{
	if (len > TEXT_MAX - c->len)
		len = TEXT_MAX - c->len;
	memcpy(c->text + c->len, p, len);
	c->len += (u32)len;
	stream_of(c)->line_len = c->len;
}

__attribute__((format(printf, 2, 3))) static void say_f(struct client *c, const char *fmt, ...)
{
	char line[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say(c, line, strlen(line));
}

static struct client *some_client(struct fz *f)
{
	struct client *c = &t.client[fz_below(f, CLIENTS)];

	if (c->fd >= 0)
		return c;
	c->fd = fh_client(t.listener);
	must(c->fd >= 0);
	c->len = c->requests = c->replies = c->reply_len = 0;
	c->reply[0] = 0;
	stream_of(c)->line = c->text;
	stream_of(c)->room = 1u << 30;
	return c;
}

static const struct {
	const char *method, *path;
} routes[] = {
#define ROUTE(method, path, handler, states) {#method, path},
#include "monitor/api_routes.def"
#undef ROUTE
	{"GET", "/nothing"}, {"DELETE", "/vm"}, {"PUT", "/vm/config"},
};

static const char *const bodies[] = {
	"{\"state\":\"Paused\"}", "{\"state\":\"Resumed\"}",
	"{\"snapshot_path\":\"/nowhere/s/state\",\"mem_file_path\":\"/nowhere/s/memory\"}",
	"{\"snapshot_type\":\"Full\",\"snapshot_path\":\"/nowhere/s\"}",
	"{\"dir\":\"/nowhere/s\",\"force\":true,\"stop\":false}",
	"{\"dir\":\"/nowhere/s\",\"stop\":true}",
	"{\"drive_id\":\"disk0\",\"path_on_host\":\"/nowhere/d\"}",
	"{\"drive_id\":\"disk0\",\"rate_limiter\":{\"bandwidth\":{\"size\":1000,"
	"\"refill_time\":100}}}",
	"{\"iface_id\":\"net0\",\"rx_rate_limiter\":{\"ops\":{\"size\":1,\"one_time_burst\":2,"
	"\"refill_time\":3}}}",
	"{}",
	"{\"dir\":\"/nowhere/s\",\"files\":[\"state\",\"memory\"],\"stop\":true}",
	"{\"dir\":\"/nowhere/s\",\"files\":[\"state\",\"memory\"]}",
	"{\"drive_id\":\"disk0\",\"path_on_host\":\"/d\",\"files\":[\"path_on_host\"]}",
};

static const char *const values[] = {"-1", "18446744073709551616", "1e400", "\"\\ud800\"", "null",
	"[[[[[[[[[[]]]]]]]]]]", "\"\"", "true", "{\"size\":0}", "NaN", "1.5", "\"\\u0000\""};

/* A body: one of those a route wants, or with a value in it that it does not. */
static void make_body(struct fz *f, char *out, size_t cap)
{
	const char *good = bodies[fz_below(f, ARRAY_SIZE(bodies))];
	const char *colon = strchr(good, ':');
	unsigned what = fz_break(f, 24);

	snprintf(out, cap, "%s", good);
	if (!what)
		return;
	if (what < 12 && colon) { /* A05, A06 */
		snprintf(out, cap, "%.*s%s}", (int)(colon + 1 - good), good, values[what]);
	} else if (what < 16) { /* a field twice, or one more */
		snprintf(out, cap, "{\"x\":1,%s", good + 1);
	} else if (what < 20) {
		out[fz_u8(f) % (strlen(out) + 1)] = (char)fz_u8(f);
	} else {
		snprintf(out, cap, "%s%s", good, good);
	}
}

static void request(struct fz *f)
{
	struct client *c = some_client(f);
	unsigned r = fz_below(f, ARRAY_SIZE(routes)), odd;
	const char *star = strchr(routes[r].path, '*');
	bool has_body = routes[r].method[0] == 'P';
	char body[512] = "";

	if (c->len > TEXT_MAX - 4096)
		return;
	c->requests++;
	if (has_body)
		make_body(f, body, sizeof(body));
	odd = fz_break(f, 24);
	say_f(c, "%s %.*s%s", routes[r].method,
		(int)(star ? star - routes[r].path : (long)strlen(routes[r].path)), routes[r].path,
		star ? fz_u8(f) & 1 ? "disk0" : "net0" : "");
	for (unsigned n = odd == 12 || odd == 13 ? fz_u8(f) % 40 : 0; n--;)
		say(c, "/////////////////////////////////////////////////////", 53);
	say_f(c, " HTTP/1.1\r\n");
	if (odd == 1 || odd == 2) /* A02 */
		say_f(c, "Transfer-Encoding: chunked\r\n");
	if (odd == 3)
		say_f(c, "Connection: close\r\n");
	if (odd == 4 || odd == 5)
		say_f(c, "Expect: 100-continue\r\n");
	if (odd == 6) { /* A03 */
		for (unsigned n = fz_u8(f) % 70; n--;)
			say_f(c, "X-%u: %.*s\r\n", n, fz_u8(f), "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
	}
	if (odd == 7) /* A01 */
		say_f(c, "Content-Length: %lld\r\n", (long long)fz_odd(f, strlen(body)));
	else if (odd == 8)
		say_f(c, "Content-Length: %zu\r\nContent-Length: 3\r\n", strlen(body));
	else if (has_body || odd == 9)
		say_f(c, "Content-Length: %zu\r\n", strlen(body));
	if (odd == 10) {
		for (unsigned n = fz_u8(f) % 24; n--;)
			say(c, "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", 53);
	}
	say_f(c, odd == 11 ? "\n\n%s" : "\r\n%s", body);
	if (odd >= 14 && odd < 18)
		stream_of(c)->hands_over += odd < 17 ? odd - 13 : fz_u8(f) % 20;
	fz_trace("request %s %s %s, odd %u", routes[r].method, routes[r].path, body, odd);
	/* All of it goes at once, or some, with the rest behind it. */
	stream_of(c)->wrote = fz_break(f, 64) ? c->len - fz_u8(f) % c->len : c->len;
}

static void client_acts(struct fz *f)
{
	struct client *c = some_client(f);
	struct fh_stream *s = stream_of(c);
	u8 bytes[8];

	switch (fz_below(f, 8)) {
	case 0:
		s->peer_shut = true;
		break;
	case 1:
		s->peer_shut = s->peer_gone = true;
		break;
	case 2:
		s->room = fz_u8(f);
		break;
	case 3:
		s->room += fz_u16(f);
		break;
	case 4:
	case 5:
		s->wrote += fz_u8(f);
		if (s->wrote > c->len)
			s->wrote = c->len;
		break;
	case 6:
		if (!fz_break(f, 64))
			break;
		c->requests += 8;
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = fz_u8(f);
		say(c, bytes, sizeof(bytes));
		/* fallthrough */
	default:
		s->wrote = c->len;
	}
	/* What is not written any more was never said. */
	if (s->peer_shut)
		s->line_len = c->len = (u32)s->wrote;
}

/* The machine is done with what it was asked for. */
static void machine_ends(void)
{
	if (t.machine.pause_waiters)
		fake_paused(&t.machine);
	if (t.machine.state == LIFE_SNAPSHOTTING)
		fake_written(&t.machine);
}

static void machine_acts(struct fz *f)
{
	struct machine *m = &t.machine;

	switch (fz_below(f, 8)) {
	case 0:
		m->slow_pause = fz_u8(f) & 1;
		break;
	case 1:
		m->slow_snapshot = fz_u8(f) & 1;
		break;
	case 2:
		m->pause_error = fz_u8(f) & 1 ? "no" : NULL;
		break;
	case 3:
		m->snapshot_error = fz_u8(f) & 1 ? "disk full" : NULL;
		break;
	case 4:
		m->resume_error = fz_u8(f) & 1 ? "no" : NULL;
		break;
	case 5:
		m->reply_padding = fz_u8(f) * 8u;
		break;
	default:
		machine_ends();
	}
}

static void host_fails(struct fz *f)
{
	static const enum fh_op kinds[] = {FH_IN, FH_OUT, FH_ACCEPT, FH_POLL};

	fz_fail(f, kinds, ARRAY_SIZE(kinds), true);
}

static void step(struct fz *f)
{
	u8 what = fz_u8(f);

	switch (what % 16) {
	default:
		request(f);
		break;
	case 8 ... 10:
		client_acts(f);
		break;
	case 11:
	case 12:
		machine_acts(f);
		break;
	case 13:
		host_fails(f);
		break;
	case 14:
		fh_sleep(1000000ull << fz_below(f, 14));
		break;
	case 15:
		turn();
		break;
	}
	if (!(what & 0x80))
		settle();
	forget_closed();
}

/* Silence ends every connection but those that wait for the machine. */
static void check_quiet(void)
{
	fh_fault_none();
	t.machine.slow_pause = t.machine.slow_snapshot = false;
	machine_ends();
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (t.client[i].fd >= 0)
			stream_of(&t.client[i])->peer_shut = true;
	}
	for (unsigned n = 0; n < 40 && fh_open_count() > 1; n++) {
		settle();
		fh_sleep(1000000000);
	}
	settle();
	must(fh_open_count() == 1); /* the listener */
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;

	fh_reset();
	fh_sink = client_gets;
	for (unsigned i = 0; i < CLIENTS; i++)
		t.client[i].fd = -1;
	fz_begin(&f, data, len);
	must(!ring_create(&t.ring, 64, NULL));
	t.machine = (struct machine){.state = LIFE_RUNNING, .ring = t.ring};
	t.listener = fh_listener();
	must(!api_create(&t.api, &t.machine, t.listener, NULL));
	while (fz_step(&f))
		step(&f);
	check_quiet();
	api_destroy(&t.api);
	ring_destroy(&t.ring);
	must(!fh_open_count());
	return 0;
}
