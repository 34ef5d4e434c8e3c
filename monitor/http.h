/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.h - one HTTP/1.1 connection of the API: bytes in, whole requests out, replies back.
 *
 * Knows no routes and no JSON but that of its own errors. Loop thread only; everything goes
 * through the ring and nothing blocks. See http.c for the life of a connection.
 */
#ifndef KELVIN_MONITOR_HTTP_H
#define KELVIN_MONITOR_HTTP_H

#include "virtio/ring.h"

#define HTTP_LINE_MAX    1024u      /* bytes of the request line, and of each header line */
#define HTTP_HEADERS_MAX 64u
#define HTTP_BODY_MAX    51200u
#define HTTP_FILES_MAX   16u        /* descriptors that come with one request */
#define HTTP_REPLY_MAX   (1u << 20) /* bytes of a reply's body */
#define HTTP_IDLE_NS     2000000000ull  /* between two pieces of one request */
#define HTTP_TOTAL_NS    10000000000ull /* for a whole request, and for taking a reply */
#define HTTP_LINGER_NS   1000000000ull  /* for a client to read the reply before we hang up */

struct http_conn;

struct http_request {
	const char *method; /* "GET" */
	const char *path;   /* as sent, nothing decoded; begins with '/' unless it is odd */
	const char *body;   /* not NUL-terminated; NULL: none */
	size_t body_len;
	/*
	 * Descriptors that came with its bytes (SCM_RIGHTS). What is not taken over, by putting -1
	 * in its place, is closed once the request is answered.
	 */
	int *file;
	unsigned file_count;
};

struct http_ops {
	/* A whole request. It lives until it is answered: exactly one http_reply() or http_close(),
	 * now or later; until then nothing is read from the client. */
	void (*request)(void *ctx, struct http_conn *c, const struct http_request *r);
	/* A limit on time begins to run: call http_tick() now and then, from later on. */
	void (*timed)(void *ctx);
	/* The connection is about to be freed. */
	void (*closed)(void *ctx, struct http_conn *c);
	u64 (*now_ns)(void); /* monotonic_ns() outside tests */
};

/* Takes @fd over (also on failure) and begins to read. */
int http_open(struct http_conn **ret, struct ring *ring, int fd, const struct http_ops *ops,
	void *ctx, struct err *e);
/* Answers with @body, a malloc()ed JSON text that is taken over, or without a body (NULL). */
void http_reply(struct http_conn *c, unsigned status, char *body);
/* Hangs up; @c is freed, and ops->closed called, now or once the kernel let go of it. */
void http_close(struct http_conn *c);
/* A reply is on its way. */
bool http_busy(const struct http_conn *c);

/* Whether a limit on time runs, so that http_tick() must be called now and then. */
bool http_timed(const struct http_conn *c);
/* Enforces the limits on time; may free @c. */
void http_tick(struct http_conn *c);

/* Answers "too many connections" and closes @fd, without waiting. */
void http_refuse(int fd);

#endif
