/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_line.c - what a host client says first, and what it is answered.
 *
 *	CONNECT <port>\n        OK <hostport>\n
 *	CONNECT <port> END\n    OK <hostport>\n, with a descriptor (SCM_RIGHTS)
 *
 * The line is looked at with MSG_PEEK first, because what follows it is payload.
 *
 * END. A stream socket cannot say how it ended: the guest's last byte and a VM that was killed look
 * the same to the client, an end of file. Who asks for it gets the reading end of a pipe. One byte
 * comes through it once the guest has ended its stream in good order and all of it was passed on,
 * before the end of file does; if the pipe ends without that byte, something is missing.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "virtio/vsock_int.h"

static void line_recv(struct vsock_conn *c);

static void line_polled(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, rx_op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (c->state == CONN_LINE) {
		if (res < 0)
			conn_kill(c, false);
		else
			line_recv(c);
	}
	vsock_unlock(v);
}

static void line_poll(struct vsock_conn *c)
{
	c->rx_op.done = line_polled;
	ring_poll(c->v->ring, &c->rx_op, c->fd, POLLIN);
}

static const char *skip_space(const char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

/* Steps over @word, in any case, if it is there and a space or the end follows. */
static bool take_word(const char **p, const char *word)
{
	size_t len = strlen(word);

	if (strncasecmp(*p, word, len) != 0 || ((*p)[len] && !isspace((unsigned char)(*p)[len])))
		return false;
	*p = skip_space(*p + len);
	return true;
}

/* "CONNECT <port> [END]", the words in any case, any white space around. */
static bool parse_line(const char *p, u32 *ret_port, bool *ret_end)
{
	u64 port = 0;

	p = skip_space(p);
	if (!take_word(&p, "CONNECT") || !isdigit((unsigned char)*p))
		return false;
	while (isdigit((unsigned char)*p)) {
		port = port * 10 + (u64)(*p++ - '0');
		if (port > UINT32_MAX)
			return false;
	}
	if (*p && !isspace((unsigned char)*p))
		return false;
	p = skip_space(p);
	*ret_port = (u32)port;
	*ret_end = take_word(&p, "END");
	return *p == '\0';
}

/* Numbers are handed out in turn, so that one just freed is not met again for long. */
static u32 new_local_port(struct vsock *v, u32 peer_port)
{
	u32 port;

	do {
		port = v->next_port++;
		if (v->next_port == 2 * VSOCK_PORT_FIRST)
			v->next_port = VSOCK_PORT_FIRST;
	} while (conn_find(v, peer_port, port));
	return port;
}

static void line_complete(struct vsock_conn *c)
{
	u32 port;

	c->line[c->line_len] = '\0';
	/* A NUL inside would hide what is behind it. */
	if (strlen(c->line) != c->line_len || !parse_line(c->line, &port, &c->wants_end)) {
		conn_kill(c, false);
		return;
	}
	conn_set_ports(c, port, new_local_port(c->v, port));
	conn_poll_in(c); /* for what follows the line, and to see the client leave */
	c->give_up_ns = monotonic_ns() + c->v->wait_ms * 1000000ull;
	conn_request(c);
}

static void line_taken(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, rx_op);
	struct vsock *v = c->v;

	vsock_lock(v);
	if (c->state == CONN_LINE) {
		c->line_len = (u8)(c->line_len + c->line_take);
		if (res != c->line_take)
			conn_kill(c, false);
		else if (c->line[c->line_len - 1] == '\n')
			line_complete(c);
		else if (c->line_len == VSOCK_LINE_MAX)
			conn_kill(c, false);
		else
			line_poll(c);
	}
	vsock_unlock(v);
}

static void line_peeked(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, rx_op);
	struct vsock *v = c->v;
	char *at = c->line + c->line_len, *end;

	vsock_lock(v);
	if (c->state != CONN_LINE) {
		vsock_unlock(v);
		return;
	}
	if (res > 0) {
		end = memchr(at, '\n', (size_t)res);
		c->line_take = (u8)(end ? end + 1 - at : res);
		c->rx_op.done = line_taken;
		ring_recv(v->ring, &c->rx_op, c->fd, at, c->line_take, MSG_DONTWAIT);
	} else if (res == -EAGAIN) {
		line_poll(c);
	} else {
		conn_kill(c, false);
	}
	vsock_unlock(v);
}

static void line_recv(struct vsock_conn *c)
{
	c->rx_op.done = line_peeked;
	ring_recv(c->v->ring, &c->rx_op, c->fd, c->line + c->line_len,
		VSOCK_LINE_MAX - c->line_len, MSG_PEEK | MSG_DONTWAIT);
}

void conn_accepted(struct vsock_conn *c)
{
	conn_due(c, VSOCK_LINGER_NS);
	line_recv(c);
}

/* The answer. */

static void ok_sent(struct ring_op *op, int res)
{
	struct vsock_conn *c = container_of(op, struct vsock_conn, tx_op);
	struct vsock *v = c->v;

	vsock_lock(v);
	fd_close(&c->end_for_client); /* which has it now, or never will */
	if (conn_flows(c)) {
		if (res == (int)c->line_len)
			host_step(c);
		else
			conn_kill(c, true);
	}
	vsock_unlock(v);
}

/* Makes the pipe and lets the client's end of it travel with the answer. */
static bool attach_end(struct vsock_conn *c)
{
	struct cmsghdr *h = &c->ok.control.head;
	int fd[2];

	if (pipe2(fd, O_CLOEXEC)) /* syscalls[L]: pipe2 */
		return false;
	c->end_for_client = fd[0];
	c->end_fd = fd[1];
	c->ok.msg.msg_control = &c->ok.control;
	c->ok.msg.msg_controllen = sizeof(c->ok.control);
	*h = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(h), &fd[0], sizeof(int));
	return true;
}

void host_send_ok(struct vsock_conn *c)
{
	c->line_len = (u8)snprintf(c->line, sizeof(c->line), "OK %u\n", c->local_port);
	c->ok.iov = (struct iovec){c->line, c->line_len};
	c->ok.msg = (struct msghdr){.msg_iov = &c->ok.iov, .msg_iovlen = 1};
	if (c->wants_end && !attach_end(c)) {
		conn_kill(c, true);
		return;
	}
	c->tx_op.done = ok_sent;
	ring_sendmsg(c->v->ring, &c->tx_op, c->fd, &c->ok.msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void host_good_end(struct vsock_conn *c)
{
	static const char good = 'C';

	if (c->end_fd < 0)
		return;
	/* An empty pipe takes a byte at once; it fails where the client does not care any more. */
	while (write(c->end_fd, &good, sizeof(good)) < 0 && errno == EINTR)
		;
	fd_close(&c->end_fd);
}
