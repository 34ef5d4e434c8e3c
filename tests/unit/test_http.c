/* SPDX-License-Identifier: Apache-2.0 */
/* test_http.c - one connection of the API, from the side of a client that means no good. */
#include "monitor/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <fcntl.h>

#include "tests/lib/http_peer.h"
#include "tests/lib/tmpdir.h"

/* A connection whose requests are answered with an echo of what the parser made of them. */
struct fixture {
	struct ring *ring;
	struct http_conn *conn; /* NULL once it is closed */
	int client;
	bool hold;              /* do not answer */
	unsigned requests, timed;
	unsigned files;         /* that came with the last request */
	int taken;              /* the first of them, if `take`; else -1 */
	bool take;
	size_t padding;         /* bytes of an answer */
	struct heard heard;
};

static void on_request(void *ctx, struct http_conn *c, const struct http_request *r)
{
	struct fixture *f = ctx;
	char *text;

	f->requests++;
	f->files = r->file_count;
	for (unsigned i = 0; i < r->file_count; i++)
		assert_int_equal(fcntl(r->file[i], F_GETFD), FD_CLOEXEC);
	if (f->take && r->file_count) {
		f->taken = r->file[0];
		r->file[0] = -1;
	}
	if (f->hold)
		return;
	if (f->padding) {
		text = calloc(1, f->padding + 1);
		assert_non_null(text);
		memset(text, 'x', f->padding);
	} else if (asprintf(&text, "[%s %s %.*s]", r->method, r->path, (int)r->body_len,
			   r->body ? r->body : "") < 0) {
		text = NULL;
	}
	http_reply(c, 200, text);
}

static u64 clock_ns = 1000000000;

static u64 test_now_ns(void)
{
	return clock_ns;
}

/* @ns later, the owner's timer ticks. */
static void tick_after(struct fixture *f, u64 ns)
{
	clock_ns += ns;
	http_tick(f->conn);
	peer_turn(f->ring, 20);
}

static void on_timed(void *ctx)
{
	struct fixture *f = ctx;

	f->timed++;
}

static void on_closed(void *ctx, struct http_conn *c)
{
	struct fixture *f = ctx;

	f->conn = NULL;
}

static const struct http_ops ops = {
	.request = on_request,
	.timed = on_timed,
	.closed = on_closed,
	.now_ns = test_now_ns,
};

static void setup(struct fixture *f)
{
	struct err e;
	int fds[2];

	memset(f, 0, sizeof(*f));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(ring_create(&f->ring, 16, &e), 0);
	f->client = fds[1];
	assert_int_equal(http_open(&f->conn, f->ring, fds[0], &ops, f, &e), 0);
}

/* Every test ends with the client gone; the server must notice and free its side. */
static void teardown(struct fixture *f)
{
	if (f->client >= 0)
		close(f->client);
	f->client = -1;
	peer_turn(f->ring, 100);
	assert_null(f->conn);
	ring_destroy(&f->ring);
}

static void reconnect(struct fixture *f)
{
	teardown(f);
	setup(f);
}

static void ask(struct fixture *f, const char *request, unsigned replies)
{
	peer_ask(f->ring, f->client, request, replies, &f->heard);
}

static void test_reply_bytes(void **state)
{
	struct fixture f;

	setup(&f);
	ask(&f, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 1);
	assert_string_equal(f.heard.text,
		"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
		"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n[GET /a ]");
	ask(&f, "PUT /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz", 1);
	assert_string_equal(f.heard.body, "[PUT /b xyz]");
	assert_false(f.heard.closed);
	teardown(&f);
}

struct bad_case {
	const char *name, *request;
	unsigned status;
	const char *text; /* part of the reply */
};

static void run_bad_cases(const struct bad_case *cases, size_t n)
{
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i < n; i++) {
		ask(&f, cases[i].request, 1);
		if (f.heard.status != cases[i].status || !strstr(f.heard.text, cases[i].text))
			fail_msg("%s: %s", cases[i].name, f.heard.text);
		if (cases[i].status != 200) {
			assert_int_equal(f.requests, 0);
			assert_non_null(strstr(f.heard.text, "Connection: close\r\n"));
			assert_non_null(strstr(f.heard.text,
				"\\nAll previous unanswered requests will be dropped."));
			peer_hear(f.ring, f.client, 1, &f.heard);
			assert_true(f.heard.closed);
		}
		reconnect(&f);
	}
	teardown(&f);
}

static void test_a01_content_length(void **state)
{
	static const struct bad_case cases[] = {
		{"absent", "PUT /x HTTP/1.1\r\n\r\n", 200, "[PUT /x ]"},
		{"zero", "PUT /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200, "[PUT /x ]"},
		{"negative", "PUT /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "Invalid"},
		{"empty", "PUT /x HTTP/1.1\r\nContent-Length: \r\n\r\n", 400, "Invalid"},
		{"not a number", "PUT /x HTTP/1.1\r\nContent-Length: 12a\r\n\r\n", 400, "Invalid"},
		{"2^31", "PUT /x HTTP/1.1\r\nContent-Length: 2147483648\r\n\r\n", 400,
			"Request payload with size 2147483648 is larger than the limit of 51200"},
		{"2^64", "PUT /x HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", 400,
			"Invalid"},
		{"2^64 - 1", "PUT /x HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", 400,
			"Invalid"},
		{"limit + 1", "PUT /x HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", 400, "51201"},
		{"two", "PUT /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400,
			"Invalid"},
	};

	run_bad_cases(cases, ARRAY_SIZE(cases));
}

static void test_a01_body_at_limit(void **state)
{
	static char request[HTTP_BODY_MAX + 128];
	struct fixture f;
	int n;

	setup(&f);
	n = snprintf(request, sizeof(request), "PUT /x HTTP/1.1\r\nContent-Length: %u\r\n\r\n",
		HTTP_BODY_MAX);
	memset(request + n, 'b', HTTP_BODY_MAX);
	peer_send(f.ring, f.client, request, (size_t)n + HTTP_BODY_MAX);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 200);
	assert_int_equal(strlen(f.heard.body), HTTP_BODY_MAX + strlen("[PUT /x ]"));
	teardown(&f);
}

static void test_a01_body_shorter_or_longer(void **state)
{
	struct fixture f;

	/* Shorter: the request is never complete, so it is never acted upon. */
	setup(&f);
	ask(&f, "PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", 0);
	peer_turn(f.ring, 20);
	assert_int_equal(f.requests, 0);
	reconnect(&f);
	/* Longer: the rest is the next request, and it is not one. */
	ask(&f, "PUT /x HTTP/1.1\r\nContent-Length: 1\r\n\r\na\x01\x02", 2);
	assert_int_equal(f.requests, 1);
	assert_non_null(strstr(f.heard.text, "[PUT /x a]HTTP/1.1 400 "));
	teardown(&f);
}

static void test_a02_chunked(void **state)
{
	static const struct bad_case cases[] = {
		{"chunked", "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501,
			"Transfer-Encoding is not supported"},
		{"gzip", "PUT /x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501,
			"Transfer-Encoding is not supported"},
		{"both",
			"PUT /x HTTP/1.1\r\nContent-Length: 1\r\n"
			"Transfer-Encoding: chunked\r\n\r\n",
			400, "Invalid"},
	};

	run_bad_cases(cases, ARRAY_SIZE(cases));
}

static void test_a03_byte_at_a_time(void **state)
{
	static const char request[] = "PUT /slow HTTP/1.1\r\nA: b\r\nContent-Length: 2\r\n\r\nhi";
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i + 1 < sizeof(request); i++) {
		peer_send(f.ring, f.client, request + i, 1);
		peer_turn(f.ring, 1);
	}
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_string_equal(f.heard.body, "[PUT /slow hi]");
	assert_true(f.timed > 0);
	teardown(&f);
}

/* Fills @line with "<begin>xxxx<end>" of exactly @len bytes. */
static void long_line(char *line, size_t len, const char *begin, const char *end)
{
	memset(line, 'x', len);
	memcpy(line, begin, strlen(begin));
	memcpy(line + len - strlen(end), end, strlen(end));
	line[len] = 0;
}

static void test_a03_line_limits(void **state)
{
	char line[2048], request[4096];
	struct fixture f;

	setup(&f);
	for (int over = 0; over < 2; over++) {
		long_line(line, HTTP_LINE_MAX + (size_t)over, "GET /", " HTTP/1.1\r\n");
		snprintf(request, sizeof(request), "%s\r\n", line);
		ask(&f, request, 1);
		assert_int_equal(f.heard.status, over ? 400 : 200);
		reconnect(&f);
		long_line(line, HTTP_LINE_MAX + (size_t)over, "Header: ", "\r\n");
		snprintf(request, sizeof(request), "GET / HTTP/1.1\r\n%s\r\n", line);
		ask(&f, request, 1);
		assert_int_equal(f.heard.status, over ? 400 : 200);
		reconnect(&f);
	}
	teardown(&f);
}

static void test_a03_header_count(void **state)
{
	char request[4096];
	struct fixture f;

	setup(&f);
	for (unsigned over = 0; over < 2; over++) {
		int n = snprintf(request, sizeof(request), "GET / HTTP/1.1\r\n");

		for (unsigned i = 0; i < HTTP_HEADERS_MAX + over; i++)
			n += snprintf(request + n, sizeof(request) - (size_t)n, "H%u: v\r\n", i);
		snprintf(request + n, sizeof(request) - (size_t)n, "\r\n");
		ask(&f, request, 1);
		assert_int_equal(f.heard.status, over ? 400 : 200);
		reconnect(&f);
	}
	teardown(&f);
}

/* Bytes that belong to no line we count must not be endless either. */
static void test_a03_head_never_ends(void **state)
{
	static const char *const endless[] = {"\r\n", "GET / HTTP/1.1\r\nA:", NULL};
	static char spaces[4096];
	struct fixture f;

	setup(&f);
	memset(spaces, ' ', sizeof(spaces));
	for (size_t i = 0; endless[i]; i++) {
		unsigned sent = 0;

		if (i == 0)
			for (size_t k = 0; k < sizeof(spaces); k++)
				spaces[k] = k % 2 ? '\n' : '\r';
		else
			memset(spaces, ' ', sizeof(spaces));
		peer_send(f.ring, f.client, endless[i], strlen(endless[i]));
		for (; sent < 17; sent++) { /* 68 KiB: more than we allow, less than the parser does */
			if (send(f.client, spaces, sizeof(spaces),
				    MSG_NOSIGNAL | MSG_DONTWAIT) <= 0)
				break;
			peer_turn(f.ring, 2);
		}
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_int_equal(f.heard.status, 400);
		assert_int_equal(f.requests, 0);
		reconnect(&f);
	}
	teardown(&f);
}

static void test_a03_half_close(void **state)
{
	struct fixture f;

	setup(&f);
	peer_send(f.ring, f.client, "GET /a HTTP/1.1\r\n\r\n", 19);
	shutdown(f.client, SHUT_WR);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_string_equal(f.heard.body, "[GET /a ]");
	teardown(&f);
	/* In the middle of a request: nothing to answer. */
	setup(&f);
	peer_send(f.ring, f.client, "GET /a HT", 9);
	shutdown(f.client, SHUT_WR);
	peer_turn(f.ring, 20);
	assert_null(f.conn);
	assert_int_equal(f.requests, 0);
	teardown(&f);
}

static void test_a03_client_vanishes_before_reply(void **state)
{
	struct fixture f;

	setup(&f);
	f.hold = true;
	peer_send(f.ring, f.client, "GET /a HTTP/1.1\r\n\r\n", 19);
	peer_turn(f.ring, 20);
	assert_int_equal(f.requests, 1);
	close(f.client);
	f.client = -1;
	peer_turn(f.ring, 20);
	assert_non_null(f.conn); /* the request still needs it */
	http_reply(f.conn, 200, strdup("{}"));
	teardown(&f);
}

static void test_a03_client_does_not_read(void **state)
{
	struct fixture f;

	setup(&f);
	f.padding = HTTP_REPLY_MAX;
	peer_send(f.ring, f.client, "GET /a HTTP/1.1\r\n\r\n", 19);
	peer_turn(f.ring, 20);
	assert_true(http_busy(f.conn));
	tick_after(&f, HTTP_TOTAL_NS);
	assert_non_null(f.conn);
	tick_after(&f, 1);
	for (unsigned i = 0; i < 100 && f.conn; i++) /* the kernel lets go of what it was sending */
		peer_turn(f.ring, 20);
	assert_null(f.conn);
	teardown(&f);
}

static void test_a03_silent_in_a_request(void **state)
{
	struct fixture f;

	/* Connected and silent: no limit. */
	setup(&f);
	assert_false(http_timed(f.conn));
	tick_after(&f, 1000 * HTTP_TOTAL_NS);
	assert_non_null(f.conn);
	peer_send(f.ring, f.client, "GET /a", 6);
	peer_turn(f.ring, 20);
	assert_true(http_timed(f.conn));
	tick_after(&f, HTTP_IDLE_NS);
	assert_false(http_busy(f.conn));
	tick_after(&f, 1);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 408);
	assert_int_equal(f.requests, 0);
	/* The reply is read, but the client does not hang up: we do. */
	assert_true(http_timed(f.conn));
	tick_after(&f, HTTP_LINGER_NS);
	assert_non_null(f.conn);
	tick_after(&f, 1);
	assert_null(f.conn);
	teardown(&f);
}

/* Never idle for long, and never done. */
static void test_a03_request_too_slow(void **state)
{
	struct fixture f;

	setup(&f);
	peer_send(f.ring, f.client, "GET /", 5);
	peer_turn(f.ring, 20);
	for (unsigned i = 0; i < HTTP_TOTAL_NS / HTTP_IDLE_NS; i++) {
		tick_after(&f, HTTP_IDLE_NS);
		assert_false(http_busy(f.conn));
		peer_send(f.ring, f.client, "a", 1);
		peer_turn(f.ring, 20);
	}
	tick_after(&f, 1);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 408);
	teardown(&f);
}

static void test_a03_no_limit_while_we_work(void **state)
{
	struct fixture f;

	setup(&f);
	f.hold = true;
	peer_send(f.ring, f.client, "GET /a HTTP/1.1\r\n\r\n", 19);
	peer_turn(f.ring, 20);
	assert_false(http_timed(f.conn));
	tick_after(&f, 1000 * HTTP_TOTAL_NS);
	http_reply(f.conn, 204, NULL);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 204);
	teardown(&f);
}

static void test_a04_pipelined(void **state)
{
	struct fixture f;

	setup(&f);
	ask(&f,
		"GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
		"GET /3 HTTP/1.1\r\n\r\n",
		3);
	assert_int_equal(f.requests, 3);
	assert_non_null(strstr(f.heard.text, "[GET /1 ]HTTP/1.1 200"));
	assert_non_null(strstr(f.heard.text, "[PUT /2 ok]HTTP/1.1 200"));
	assert_non_null(strstr(f.heard.text, "[GET /3 ]"));
	/* One at a time: the second waits for the first's answer. */
	f.hold = true;
	f.requests = 0;
	peer_send(f.ring, f.client, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", 38);
	peer_turn(f.ring, 20);
	assert_int_equal(f.requests, 1);
	f.hold = false;
	http_reply(f.conn, 204, NULL);
	peer_hear(f.ring, f.client, 2, &f.heard);
	assert_int_equal(f.requests, 2);
	teardown(&f);
}

static void test_a04_odd_requests(void **state)
{
	static const struct bad_case cases[] = {
		{"HTTP/0.9", "GET /\r\n\r\n", 400, "Unsupported HTTP version"},
		{"HTTP/2", "GET / HTTP/2.0\r\n\r\n", 400, "Unsupported HTTP version"},
		{"method", "FROB / HTTP/1.1\r\n\r\n", 400, "Unsupported HTTP method"},
		{"known method", "POST / HTTP/1.1\r\n\r\n", 400, "Unsupported HTTP method"},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\n\r\n", 400, "Unsupported HTTP method"},
		{"lower case", "get / HTTP/1.1\r\n\r\n", 400, "Unsupported HTTP method"},
		{"TLS", "\x16\x03\x01\x02", 400, "Unsupported HTTP method"},
		{"header name", "GET / HTTP/1.1\r\nA(: c\r\n\r\n", 400, "Invalid"},
		{"lone CR", "GET / HTTP/1.1\rA: c\r\n\r\n", 400, "Invalid"},
		{"LF only", "GET /lf HTTP/1.1\nA: c\n\n", 200, "[GET /lf ]"},
		{"blank lines first", "\r\n\r\nGET /b HTTP/1.1\r\n\r\n", 200, "[GET /b ]"},
		{"nothing is decoded", "GET /a/%2e%2e/../b HTTP/1.1\r\n\r\n", 200,
			"[GET /a/%2e%2e/../b ]"},
		{"upgrade", "GET /u HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200,
			"[GET /u ]"},
	};

	run_bad_cases(cases, ARRAY_SIZE(cases));
}

static void test_a04_nul(void **state)
{
	static const char *const parts[] = {
		"GET /a\0b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n"};
	static const size_t lens[] = {21, 26};
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		peer_send(f.ring, f.client, parts[i], lens[i]);
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_int_equal(f.heard.status, 400);
		assert_int_equal(f.requests, 0);
		reconnect(&f);
	}
	teardown(&f);
}

static void test_expect_continue(void **state)
{
	struct fixture f;

	setup(&f);
	ask(&f, "PUT /x HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n", 1);
	assert_string_equal(f.heard.text,
		"HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n");
	ask(&f, "hi", 1);
	assert_string_equal(f.heard.body, "[PUT /x hi]");
	/* Body and head in one piece: no need to ask for it. */
	ask(&f, "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nho", 1);
	assert_string_equal(f.heard.body, "[PUT /x ho]");
	/* Too large: refused before the client sends it. */
	ask(&f, "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 60000\r\n\r\n", 1);
	assert_int_equal(f.heard.status, 400);
	teardown(&f);
}

static void test_connection_close(void **state)
{
	static const char *const requests[] = {
		"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n", "GET /c HTTP/1.0\r\n\r\n"};
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		ask(&f, requests[i], 1);
		assert_non_null(strstr(f.heard.text, "Connection: close\r\n"));
		assert_string_equal(f.heard.body, "[GET /c ]");
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_true(f.heard.closed);
		reconnect(&f);
	}
	teardown(&f);
}

static void test_reply_is_bounded(void **state)
{
	struct fixture f;

	setup(&f);
	f.padding = HTTP_REPLY_MAX + 1;
	ask(&f, "GET / HTTP/1.1\r\n\r\n", 1);
	assert_int_equal(f.heard.status, 400);
	assert_non_null(strstr(f.heard.body, "longer than the limit"));
	teardown(&f);
}

/* A body too large, all of it sent before anybody reads: the client must still get its answer. */
static void test_refused_while_sending(void **state)
{
	static char body[100000];
	struct fixture f;

	setup(&f);
	memset(body, 'b', sizeof(body));
	peer_send(f.ring, f.client, "PUT /x HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", 44);
	peer_send(f.ring, f.client, body, sizeof(body));
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 400);
	assert_false(f.heard.closed);
	teardown(&f);
}

/* Descriptors are the request's, and go with it unless they are taken over. */
static void test_files_of_a_request(void **state)
{
	static const char get[] = "GET /a HTTP/1.1\r\n\r\n";
	struct fixture f;
	unsigned fds;

	setup(&f);
	fds = fd_count();
	for (unsigned n = 1; n <= HTTP_FILES_MAX; n++) {
		peer_send_files(f.client, get, sizeof(get) - 1, n);
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_string_equal(f.heard.body, "[GET /a ]");
		assert_int_equal(f.files, n);
		assert_int_equal(fd_count(), fds);
	}
	ask(&f, get, 1);
	assert_int_equal(f.files, 0);
	f.take = true;
	peer_send_files(f.client, get, sizeof(get) - 1, 3);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(fd_count(), fds + 1);
	close(f.taken);
	f.take = false;
	/* With each byte one, until the request is complete. */
	for (unsigned i = 0; i < 15; i++) {
		peer_send_files(f.client, get + i, 1, 1);
		peer_turn(f.ring, 1);
	}
	assert_int_equal(fd_count(), fds + 15);
	ask(&f, get + 15, 1);
	assert_int_equal(f.files, 15);
	assert_int_equal(fd_count(), fds);
	/* While the request is being worked on, and after its client has gone. */
	f.hold = true;
	peer_send_files(f.client, get, sizeof(get) - 1, 4);
	peer_turn(f.ring, 20);
	assert_int_equal(fd_count(), fds + 4);
	close(f.client);
	f.client = -1;
	http_reply(f.conn, 200, strdup("{}"));
	teardown(&f);
	assert_int_equal(fd_count(), fds - 3); /* the socket pair, and the ring */
}

/* However a request with descriptors ends, they are closed. */
static void test_a01_files_of_bad_requests(void **state)
{
	static const char *const bad[] = {"\x01\x02", "PUT /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "GET / HTTP/0.9\r\n\r\n"};
	static const char get[] = "GET /a HTTP/1.1\r\n\r\n";
	struct fixture f;
	unsigned fds;

	setup(&f);
	fds = fd_count();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		peer_send_files(f.client, bad[i], strlen(bad[i]), 5);
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_true(f.heard.status >= 400);
		assert_int_equal(fd_count(), fds);
		/* More while it lingers. */
		peer_send_files(f.client, get, sizeof(get) - 1, 5);
		peer_turn(f.ring, 20);
		assert_int_equal(fd_count(), fds);
		reconnect(&f);
	}
	/* Too many at once, or one after the other. */
	for (unsigned i = 0; i < 2; i++) {
		if (i)
			peer_send_files(f.client, get, 4, HTTP_FILES_MAX);
		peer_turn(f.ring, 20);
		peer_send_files(f.client, get + 4 * i, sizeof(get) - 1 - 4 * i,
			i ? 1 : HTTP_FILES_MAX + 1);
		peer_hear(f.ring, f.client, 1, &f.heard);
		assert_int_equal(f.heard.status, 400);
		assert_non_null(strstr(f.heard.text, "Too many file descriptors"));
		assert_int_equal(fd_count(), fds);
		reconnect(&f);
	}
	/* Never complete: the client hangs up, or time is up. */
	peer_send_files(f.client, get, 4, 5);
	peer_turn(f.ring, 20);
	assert_int_equal(fd_count(), fds + 5);
	reconnect(&f);
	assert_int_equal(fd_count(), fds);
	peer_send_files(f.client, get, 4, 5);
	peer_turn(f.ring, 20);
	tick_after(&f, HTTP_IDLE_NS + 1);
	peer_hear(f.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 408);
	assert_int_equal(fd_count(), fds);
	assert_int_equal(f.requests, 0);
	teardown(&f);
}

static struct fixture *to_close;

static void close_it(struct ring_op *op, int res)
{
	http_close(to_close->conn);
}

/* They are there when the connection is closed, in a read whose end is not known yet. */
static void test_a03_files_of_the_last_read(void **state)
{
	struct ring_op op = {.done = close_it};
	unsigned fds = fd_count();
	struct fixture f = {.client = -1};
	struct err e;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer_send_files(pair[1], "GET /", 5, 5);
	assert_int_equal(ring_create(&f.ring, 16, &e), 0);
	to_close = &f;
	ring_nop(f.ring, &op);
	assert_int_equal(http_open(&f.conn, f.ring, pair[0], &ops, &f, &e), 0);
	peer_turn(f.ring, 20);
	assert_null(f.conn);
	assert_int_equal(f.requests, 0);
	ring_destroy(&f.ring);
	close(pair[1]);
	assert_int_equal(fd_count(), fds);
}

/* What comes in one read with the end of another request is that one's. */
static void test_a04_files_of_pipelined_requests(void **state)
{
	static const char get[] = "GET /a HTTP/1.1\r\n\r\n";
	struct fixture f;
	unsigned fds;

	setup(&f);
	fds = fd_count();
	f.hold = true;
	assert_int_equal(send(f.client, get, sizeof(get) - 1, 0), sizeof(get) - 1);
	peer_send_files(f.client, get, sizeof(get) - 1, 3);
	peer_turn(f.ring, 20);
	assert_int_equal(f.requests, 1);
	assert_int_equal(fd_count(), fds + f.files);
	f.hold = false;
	http_reply(f.conn, 200, strdup("{}"));
	peer_hear(f.ring, f.client, 2, &f.heard);
	assert_int_equal(f.requests, 2);
	assert_int_equal(fd_count(), fds);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reply_bytes),
		cmocka_unit_test(test_a01_content_length),
		cmocka_unit_test(test_a01_body_at_limit),
		cmocka_unit_test(test_a01_body_shorter_or_longer),
		cmocka_unit_test(test_a02_chunked),
		cmocka_unit_test(test_a03_byte_at_a_time),
		cmocka_unit_test(test_a03_line_limits),
		cmocka_unit_test(test_a03_header_count),
		cmocka_unit_test(test_a03_head_never_ends),
		cmocka_unit_test(test_a03_half_close),
		cmocka_unit_test(test_a03_client_vanishes_before_reply),
		cmocka_unit_test(test_a03_client_does_not_read),
		cmocka_unit_test(test_a03_silent_in_a_request),
		cmocka_unit_test(test_a03_request_too_slow),
		cmocka_unit_test(test_a03_no_limit_while_we_work),
		cmocka_unit_test(test_a04_pipelined),
		cmocka_unit_test(test_a04_odd_requests),
		cmocka_unit_test(test_a04_nul),
		cmocka_unit_test(test_expect_continue),
		cmocka_unit_test(test_connection_close),
		cmocka_unit_test(test_reply_is_bounded),
		cmocka_unit_test(test_refused_while_sending),
		cmocka_unit_test(test_files_of_a_request),
		cmocka_unit_test(test_a01_files_of_bad_requests),
		cmocka_unit_test(test_a03_files_of_the_last_read),
		cmocka_unit_test(test_a04_files_of_pipelined_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
