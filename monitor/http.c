/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.c - see http.h
 *
 * Theory of operation. A connection does one thing at a time, so it needs one ring operation:
 *
 *   READING -> WAITING -> SENDING -> READING ...       the owner answers in WAITING
 *   READING -> CONTINUING -> READING                   "100-continue" for a client that asked
 *   READING -> SENDING -> LINGERING -> gone            what is not HTTP gets an answer, too
 *
 * Pipelined requests stay in the input buffer until the one before is answered. A client that goes
 * away while its request is WAITING is noticed when the reply is sent, so the owner never holds a
 * dangling pointer. After an error the rest of what the client says is read and thrown away for a
 * moment: closing at once would turn its unread reply into a broken pipe.
 *
 * Descriptors belong to the request whose bytes come first in the read that brings them: who hands
 * some over has its earlier requests answered first. They are closed with the request, whether it
 * was answered, refused, or never completed. While the connection lingers the kernel throws away
 * what comes, descriptors too.
 *
 * Trust: none. http_parser splits the bytes; every length is bounded here before anything is kept.
 * Per connection at most IN_MAX + HTTP_LINE_MAX + HTTP_BODY_MAX + HTTP_REPLY_MAX bytes are held,
 * and HTTP_FILES_MAX descriptors.
 */
#include "monitor/http.h"

#include <errno.h>
#include <http_parser.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "monitor/base/cleanup.h"

#define IN_MAX     2048u
#define HEAD_MAX   ((HTTP_HEADERS_MAX + 1) * HTTP_LINE_MAX) /* all lines, and what is around them */
#define REPLY_HEAD 256u
#define WORD_MAX   24u /* of a header's name or value that we look at */

#define COMMON_HEADERS "Server: Firecracker API\r\nConnection: %s\r\n"

enum state { READING, CONTINUING, WAITING, SENDING, LINGERING };

/* The first bytes of a header's name or value: enough to know the few we care for. */
struct word {
	char text[WORD_MAX];
	size_t len;
};

struct http_conn {
	struct ring *ring;
	struct ring_op op;
	int fd;
	const struct http_ops *ops;
	void *ctx;
	enum state state;
	bool dying;       /* free it when the op is done */
	bool expired;     /* a limit on time was reached; the op is being cancelled */
	bool close_after; /* the reply that is being sent is the last */
	u64 begun_ns;     /* of the request or reply; 0: nothing begun */
	u64 moved_ns;     /* when bytes last moved */

	char in[IN_MAX];
	size_t in_off, in_len;
	struct iovec in_iov;
	struct msghdr in_msg;
	union {
		struct cmsghdr head; /* for its alignment */
		char space[CMSG_SPACE(HTTP_FILES_MAX * sizeof(int))];
	} in_control;

	/* The request being read. */
	http_parser parser;
	size_t head_len, line_len;
	unsigned header_count;
	struct word name, value;
	bool in_value, want_continue, encoded;
	bool head_done, complete;
	unsigned bad_status; /* why a parser callback gave up; 0: it did not */
	char bad_text[128];
	char url[HTTP_LINE_MAX + 1];
	size_t url_len;
	char *body;
	size_t body_len, body_cap;
	int file[HTTP_FILES_MAX];
	unsigned file_count;
	bool too_many_files;

	char *out;
	size_t out_off, out_len;
};

static void close_files(struct http_conn *c)
{
	while (c->file_count)
		fd_close(&c->file[--c->file_count]);
	c->too_many_files = false;
}

static void conn_free(struct http_conn *c)
{
	c->ops->closed(c->ctx, c);
	close_files(c);
	fd_close(&c->fd);
	free(c->body);
	free(c->out);
	free(c);
}

void http_close(struct http_conn *c)
{
	if (c->op.busy) {
		if (!c->dying && !c->expired)
			ring_cancel(c->ring, &c->op);
		c->dying = true;
		return;
	}
	conn_free(c);
}

bool http_busy(const struct http_conn *c)
{
	return c->state == SENDING && !c->dying;
}

/* ---- parser callbacks ---- */

/* Gives up on the request: returns what makes the parser stop (1 and 2 can mean something else). */
static int bad(struct http_conn *c, unsigned status, const char *text)
{
	c->bad_status = status;
	snprintf(c->bad_text, sizeof(c->bad_text), "%s", text);
	return -1;
}

static int on_url(http_parser *p, const char *at, size_t len)
{
	struct http_conn *c = p->data;
	const char *method = http_method_str(p->method);
	/* "METHOD " before it and " HTTP/1.1\r\n" after it are part of the line. */
	size_t max = HTTP_LINE_MAX - strlen(method) - 1 - 11;

	if (len > max - c->url_len)
		return bad(c, 400, "Invalid URI: the request line is longer than 1024 bytes.");
	memcpy(c->url + c->url_len, at, len);
	c->url_len += len;
	return 0;
}

static void word_add(struct word *w, const char *at, size_t len)
{
	size_t room = sizeof(w->text) - 1 - w->len;

	/* What is cut off here is longer than every word we know, so it stays unknown. */
	if (len > room)
		len = room;
	memcpy(w->text + w->len, at, len);
	w->len += len;
	w->text[w->len] = 0;
}

static bool word_is(const struct word *w, const char *text)
{
	return strcasecmp(w->text, text) == 0;
}

/* A header's line is complete. */
static void take_header(struct http_conn *c)
{
	if (word_is(&c->name, "expect") && word_is(&c->value, "100-continue"))
		c->want_continue = true;
	if (word_is(&c->name, "transfer-encoding"))
		c->encoded = true;
	c->name = c->value = (struct word){0};
	c->in_value = false;
}

static int grow_line(struct http_conn *c, size_t len)
{
	if (len > HTTP_LINE_MAX - 4 - c->line_len) /* ": " and CR LF */
		return bad(c, 400, "Invalid header. Reason: a line is longer than 1024 bytes.");
	c->line_len += len;
	return 0;
}

static int on_header_field(http_parser *p, const char *at, size_t len)
{
	struct http_conn *c = p->data;

	if (c->in_value)
		take_header(c);
	if (!c->name.len) {
		c->line_len = 0;
		if (++c->header_count > HTTP_HEADERS_MAX)
			return bad(c, 400, "Invalid header. Reason: more than 64 headers.");
	}
	word_add(&c->name, at, len);
	return grow_line(c, len);
}

static int on_header_value(http_parser *p, const char *at, size_t len)
{
	struct http_conn *c = p->data;

	c->in_value = true;
	word_add(&c->value, at, len);
	return grow_line(c, len);
}

static int on_headers_complete(http_parser *p)
{
	struct http_conn *c = p->data;
	u64 len = p->flags & F_CONTENTLENGTH ? p->content_length : 0;
	char text[128];

	take_header(c);
	c->head_done = true;
	p->upgrade = 0; /* offers of another protocol are declined by ignoring them */
	if (p->http_major != 1 || p->http_minor > 1)
		return bad(c, 400, "Invalid HTTP Version: Unsupported HTTP version.");
	if (p->method != HTTP_GET && p->method != HTTP_PUT && p->method != HTTP_PATCH &&
		p->method != HTTP_DELETE)
		return bad(c, 400, "Invalid HTTP Method: Unsupported HTTP method.");
	if (c->encoded)
		return bad(c, 501, "Transfer-Encoding is not supported: send a Content-Length.");
	if (len > HTTP_BODY_MAX) {
		snprintf(text, sizeof(text),
			"Request payload with size %llu is larger than the limit of %u allowed by "
			"server.",
			(unsigned long long)len, HTTP_BODY_MAX);
		return bad(c, 400, text);
	}
	if (len) {
		c->body = malloc(len);
		if (!c->body)
			return bad(c, 400, "Out of memory.");
		c->body_cap = len;
	}
	return 0;
}

static int on_body(http_parser *p, const char *at, size_t len)
{
	struct http_conn *c = p->data;

	must(len <= c->body_cap - c->body_len);
	memcpy(c->body + c->body_len, at, len);
	c->body_len += len;
	return 0;
}

/* What follows belongs to the next request: stop here. */
static int on_message_complete(http_parser *p)
{
	struct http_conn *c = p->data;

	c->complete = true;
	c->close_after = !http_should_keep_alive(p);
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings callbacks = {
	.on_url = on_url,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

/* ---- moving bytes ---- */

static void on_io(struct ring_op *op, int res);

static bool is_output(const struct http_conn *c)
{
	return c->state == SENDING || c->state == CONTINUING;
}

static void start_io(struct http_conn *c)
{
	c->op.done = on_io;
	if (is_output(c)) {
		ring_send(c->ring, &c->op, c->fd, c->out + c->out_off, c->out_len - c->out_off,
			MSG_NOSIGNAL);
		return;
	}
	if (c->state == LINGERING) {
		ring_recv(c->ring, &c->op, c->fd, c->in, sizeof(c->in), 0);
		return;
	}
	c->in_iov = (struct iovec){c->in, sizeof(c->in)};
	c->in_msg = (struct msghdr){
		.msg_iov = &c->in_iov,
		.msg_iovlen = 1,
		.msg_control = &c->in_control,
		.msg_controllen = sizeof(c->in_control),
	};
	ring_recvmsg(c->ring, &c->op, c->fd, &c->in_msg, MSG_CMSG_CLOEXEC);
}

/* The descriptors of the read that is done are the request's from here on. */
static void keep_files(struct http_conn *c)
{
	struct cmsghdr *h;

	/* The kernel closed what did not fit. */
	c->too_many_files |= (c->in_msg.msg_flags & MSG_CTRUNC) != 0;
	for (h = CMSG_FIRSTHDR(&c->in_msg); h; h = CMSG_NXTHDR(&c->in_msg, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (c->file_count < HTTP_FILES_MAX) {
				c->file[c->file_count++] = fd;
				continue;
			}
			c->too_many_files = true;
			fd_close(&fd);
		}
	}
}

/* From here on time counts. */
static void start_clock(struct http_conn *c)
{
	c->begun_ns = c->moved_ns = c->ops->now_ns();
	c->ops->timed(c->ctx);
}

static void forget_output(struct http_conn *c)
{
	free(c->out);
	c->out = NULL;
	c->out_off = c->out_len = 0;
}

/* Begins a new request; what is left in the input buffer is its first part. */
static void next_request(struct http_conn *c)
{
	c->state = READING;
	c->begun_ns = 0;
	c->head_len = c->line_len = c->url_len = 0;
	c->header_count = 0;
	c->name = c->value = (struct word){0};
	c->in_value = c->want_continue = c->encoded = c->head_done = c->complete = false;
	c->bad_status = 0;
	close_files(c);
	free(c->body);
	c->body = NULL;
	c->body_len = c->body_cap = 0;
	http_parser_init(&c->parser, HTTP_REQUEST);
	c->parser.data = c;
}

/* Sends @head and @body_len bytes of @body. */
static void send_out(struct http_conn *c, const char *head, const char *body, size_t body_len)
{
	size_t head_len = strlen(head);

	forget_output(c);
	c->out = malloc(head_len + body_len);
	if (!c->out) {
		http_close(c);
		return;
	}
	memcpy(c->out, head, head_len);
	if (body_len)
		memcpy(c->out + head_len, body, body_len);
	c->out_len = head_len + body_len;
	start_clock(c);
	start_io(c);
}

void http_reply(struct http_conn *c, unsigned status, char *body)
{
	static const char too_long[] =
		"{\"fault_message\":\"The reply is longer than the limit.\"}";
	const char *what = body ? body : "";
	size_t len = strlen(what);
	char head[REPLY_HEAD];
	int n;

	must(c->state == WAITING || c->state == READING);
	if (len > HTTP_REPLY_MAX) {
		status = 400;
		what = too_long;
		len = sizeof(too_long) - 1;
	}
	/* No reason phrase, but the space before it: what Firecracker's clients know. */
	n = snprintf(head, sizeof(head), "HTTP/1.1 %u \r\n" COMMON_HEADERS, status,
		c->close_after ? "close" : "keep-alive");
	if (len)
		n += snprintf(head + n, sizeof(head) - (size_t)n,
			"Content-Type: application/json\r\nContent-Length: %zu\r\n", len);
	snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	c->state = SENDING;
	send_out(c, head, what, len);
	free(body);
}

/* Answers what is not a request, and hangs up after that. */
static void refuse(struct http_conn *c, unsigned status, const char *text)
{
	char full[256];
	json_t *j;

	close_files(c);
	snprintf(full, sizeof(full),
		"%s\nAll previous unanswered requests will be dropped.", text);
	j = json_pack("{s:s}", "error", full);
	c->close_after = true;
	http_reply(c, status, j ? json_dumps(j, 0) : NULL);
	json_decref(j);
}

static void refuse_parse(struct http_conn *c)
{
	enum http_errno error = HTTP_PARSER_ERRNO(&c->parser);
	char text[128];

	if (c->bad_status) {
		refuse(c, c->bad_status, c->bad_text);
		return;
	}
	switch (error) {
	case HPE_INVALID_METHOD:
		refuse(c, 400, "Invalid HTTP Method: Unsupported HTTP method.");
		return;
	case HPE_INVALID_VERSION:
		refuse(c, 400, "Invalid HTTP Version: Unsupported HTTP version.");
		return;
	case HPE_INVALID_TRANSFER_ENCODING:
		refuse(c, 501, "Transfer-Encoding is not supported: send a Content-Length.");
		return;
	default:
		snprintf(text, sizeof(text), "Invalid request: %s.",
			http_errno_description(error));
		refuse(c, 400, text);
	}
}

static void dispatch(struct http_conn *c)
{
	struct http_request r = {
		.method = http_method_str(c->parser.method),
		.path = c->url,
		.body = c->body,
		.body_len = c->body_len,
		.file = c->file,
		.file_count = c->file_count,
	};

	c->url[c->url_len] = 0;
	c->state = WAITING;
	c->ops->request(c->ctx, c, &r);
}

/* Goes on with what is in the input buffer; asks for more where it ends. */
static void parse(struct http_conn *c)
{
	size_t n;

	while (c->in_off < c->in_len) {
		if (!c->begun_ns)
			start_clock(c);
		n = http_parser_execute(&c->parser, &callbacks, c->in + c->in_off,
			c->in_len - c->in_off);
		c->in_off += n;
		if (!c->head_done)
			c->head_len += n;
		if (c->complete) {
			dispatch(c);
			return; /* the owner may have closed it */
		}
		if (HTTP_PARSER_ERRNO(&c->parser) != HPE_OK) {
			refuse_parse(c);
			return;
		}
		if (c->head_len > HEAD_MAX) {
			refuse(c, 400, "Invalid request: the headers are too long.");
			return;
		}
	}
	c->in_off = c->in_len = 0;
	if (c->want_continue && c->head_done) {
		char head[REPLY_HEAD];

		c->want_continue = false;
		c->state = CONTINUING;
		snprintf(head, sizeof(head), "HTTP/1.1 100 \r\n" COMMON_HEADERS "\r\n",
			"keep-alive");
		send_out(c, head, NULL, 0);
		return;
	}
	start_io(c);
}

static void on_sent(struct http_conn *c, int res)
{
	if (res <= 0) {
		conn_free(c); /* the client is gone */
		return;
	}
	c->out_off += (size_t)res;
	if (c->out_off < c->out_len) {
		start_io(c);
		return;
	}
	forget_output(c);
	if (c->state == CONTINUING) {
		c->state = READING;
		start_io(c);
	} else if (c->close_after) {
		c->state = LINGERING;
		start_clock(c);
		shutdown(c->fd, SHUT_WR); /* syscalls[L]: shutdown */
		start_io(c);
	} else {
		next_request(c);
		parse(c);
	}
}

static void on_received(struct http_conn *c, int res)
{
	if (res <= 0) {
		conn_free(c);
		return;
	}
	if (c->state == LINGERING) {
		start_io(c);
		return;
	}
	c->in_off = 0;
	c->in_len = (size_t)res;
	if (c->too_many_files)
		refuse(c, 400, "Too many file descriptors came with the request.");
	else
		parse(c);
}

/* A limit on time was reached, and the op it waited for is over. */
static void on_expired(struct http_conn *c)
{
	c->expired = false;
	if (c->state == READING)
		refuse(c, 408, "The request took too long.");
	else
		conn_free(c);
}

static bool is_over(struct http_conn *c)
{
	if (c->dying)
		conn_free(c);
	else if (c->expired)
		on_expired(c);
	else
		return false;
	return true;
}

static void on_ready(struct ring_op *op, int res)
{
	struct http_conn *c = container_of(op, struct http_conn, op);

	if (is_over(c))
		return;
	if (res < 0)
		conn_free(c);
	else
		start_io(c);
}

static void on_io(struct ring_op *op, int res)
{
	struct http_conn *c = container_of(op, struct http_conn, op);

	if (res > 0 && c->state == READING)
		keep_files(c);
	if (is_over(c))
		return;
	if (res == -EAGAIN) { /* a kernel that does not wait on non-blocking sockets */
		op->done = on_ready;
		ring_poll(c->ring, op, c->fd, is_output(c) ? POLLOUT : POLLIN);
		return;
	}
	if (res == -EINTR) {
		start_io(c);
		return;
	}
	if (res > 0 && c->state != LINGERING)
		c->moved_ns = c->ops->now_ns();
	if (is_output(c))
		on_sent(c, res);
	else
		on_received(c, res);
}

/* ---- time ---- */

bool http_timed(const struct http_conn *c)
{
	return c->state != WAITING && c->begun_ns && !c->dying && !c->expired;
}

void http_tick(struct http_conn *c)
{
	u64 now_ns = c->ops->now_ns();
	bool late;

	if (!http_timed(c))
		return;
	if (c->state == READING)
		late = now_ns > c->begun_ns + HTTP_TOTAL_NS || now_ns > c->moved_ns + HTTP_IDLE_NS;
	else if (c->state == LINGERING)
		late = now_ns > c->begun_ns + HTTP_LINGER_NS;
	else
		late = now_ns > c->moved_ns + HTTP_TOTAL_NS;
	if (!late)
		return;
	c->expired = true;
	ring_cancel(c->ring, &c->op);
}

/* ---- begin and end ---- */

int http_open(struct http_conn **ret, struct ring *ring, int fd, const struct http_ops *ops,
	void *ctx, struct err *e)
{
	struct http_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		fd_close(&fd);
		return err_sys(e, ENOMEM, "cannot serve an API client");
	}
	c->ring = ring;
	c->fd = fd;
	c->ops = ops;
	c->ctx = ctx;
	next_request(c);
	start_io(c);
	*ret = c;
	return 0;
}

void http_refuse(int fd)
{
	static const char text[] =
		"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
		"Content-Length: 40\r\n\r\n"
		"{ \"error\": \"Too many open connections\" }";

	/* A fresh socket has room for it; a client that is gone already needs no answer. */
	/* syscalls[L]: sendto */
	(void)!send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	fd_close(&fd);
}
