/* SPDX-License-Identifier: Apache-2.0 */
/* http_peer.h - an HTTP client that turns the server's ring while it waits, in one thread. */
#ifndef KELVIN_TESTS_HTTP_PEER_H
#define KELVIN_TESTS_HTTP_PEER_H

#include "virtio/ring.h"

#define HTTP_PEER_MAX 65536u /* bytes of a reply, or of a request a test makes */

/* What came back. */
struct heard {
	char text[HTTP_PEER_MAX]; /* everything, NUL-terminated */
	size_t len;
	unsigned status; /* of the first reply; 0: none */
	const char *body; /* what follows the first empty line */
	bool closed;      /* the server hung up */
};

/* Lets the server work for @ms milliseconds or until it has nothing to do for a moment. */
void peer_turn(struct ring *r, unsigned ms);
/* Sends all of @bytes; what the server does not take is an error of the test (abort). */
void peer_send(struct ring *r, int fd, const void *bytes, size_t len);
/* Sends @bytes in one go, with the descriptors of @n empty files that nobody else has. */
#define PEER_FILES_MAX 64u
void peer_send_files(int fd, const void *bytes, size_t len, unsigned n);
/* Reads until @replies whole replies are there, the server hangs up, or 3 s passed. */
void peer_hear(struct ring *r, int fd, unsigned replies, struct heard *h);
/* Both, for a string. */
void peer_ask(struct ring *r, int fd, const char *request, unsigned replies, struct heard *h);

#endif
