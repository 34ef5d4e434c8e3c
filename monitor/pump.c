/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pump.c - two pipes of PUMP_BUF bytes, moved by one poll() loop.
 *
 * Each direction ends by itself. A direction that cannot go on must not stop the other one: what is
 * written to may be read slowly, by somebody who first wants to be rid of what he has to say. So
 * nothing here writes where it could block, as far as the kernel lets us: sockets are written with
 * MSG_DONTWAIT, a pipe is opened anew with O_NONBLOCK, for us alone. Terminals and files are
 * written as they are.
 */
#include "monitor/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/io.h"

#define PUMP_BUF 262144u

struct way {
	int in, out;
	bool to_peer;
	bool out_sock; /* @out is a socket */
	bool in_end;   /* nothing more comes */
	bool out_end;  /* the end was passed on, or nobody takes more */
	bool lost;     /* something was not taken */
	size_t off, len;
	char buf[PUMP_BUF];
};

static bool wants_read(const struct way *w)
{
	return !w->in_end && !w->out_end && w->len == 0;
}

static bool wants_write(const struct way *w)
{
	return !w->out_end && w->len > 0;
}

static int fill(struct way *w, bool *lost, struct err *e)
{
	ssize_t n = w->to_peer ? read(w->in, w->buf, PUMP_BUF)
			       : recv(w->in, w->buf, PUMP_BUF, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0 && errno == ECONNRESET && !w->to_peer) {
		*lost = true; /* it closed with some of ours unread; all it said came before */
		n = 0;
	}
	if (n < 0)
		return err_sys(e, errno, "cannot read %s", w->to_peer ? "stdin" : "from the guest");
	w->off = 0;
	w->len = (size_t)n;
	w->in_end = n == 0;
	return 0;
}

/* Nobody takes more at the other end. */
static void give_up(struct way *w)
{
	w->lost = w->lost || w->len > 0;
	w->out_end = true;
}

static int drain(struct way *w, struct err *e)
{
	ssize_t n = w->out_sock ? send(w->out, w->buf + w->off, w->len, MSG_NOSIGNAL | MSG_DONTWAIT)
				: write(w->out, w->buf + w->off, w->len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0 && w->to_peer && (errno == EPIPE || errno == ECONNRESET)) {
		give_up(w); /* but what it still has to say is passed on */
		return 0;
	}
	if (n < 0)
		return err_sys(e, errno, "cannot write %s", w->to_peer ? "to the guest" : "stdout");
	w->off += (size_t)n;
	w->len -= (size_t)n;
	return 0;
}

/* Passes the end on, once everything before it was. */
static void pass_end(struct way *w)
{
	if (!w->in_end || w->len || w->out_end)
		return;
	w->out_end = true;
	if (w->to_peer)
		shutdown(w->out, SHUT_WR);
}

/* Moves what can be moved in one direction. */
static int move(struct way *w, short in_events, short out_events, bool *lost, struct err *e)
{
	int r = 0;

	if (wants_read(w) && in_events)
		r = fill(w, lost, e);
	/* Straight on with what came: it mostly fits. Only where writing cannot block, though. */
	if (!r && wants_write(w) && (out_events || w->out_sock))
		r = drain(w, e);
	pass_end(w);
	return r;
}

static int run(struct way *up, struct way *down, int sock, struct err *e)
{
	while (!up->out_end || !down->out_end) {
		struct pollfd p[3] = {
			{.fd = sock, .events = (short)((wants_read(down) ? POLLIN : 0) |
						     (wants_write(up) ? POLLOUT : 0))},
			{.fd = wants_read(up) ? up->in : -1, .events = POLLIN},
			{.fd = wants_write(down) ? down->out : -1, .events = POLLOUT},
		};
		bool gone;
		int r;

		/* A hangup is always reported: once it is known, only ask when there is something
		 * to do about it. */
		if (up->out_end && !p[0].events)
			p[0].fd = -1;
		if (poll(p, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, errno, "cannot wait for the guest");
		}
		/* Hung up both ways: what it sent is still there to read, but it takes no more. */
		gone = p[0].revents & (POLLHUP | POLLERR);
		r = move(down, p[0].revents & (POLLIN | POLLHUP | POLLERR), p[2].revents,
			&up->lost, e);
		if (r)
			return r;
		if (gone)
			give_up(up);
		r = move(up, p[1].revents, p[0].revents & POLLOUT, &up->lost, e);
		if (r)
			return r;
	}
	return 0;
}

int pump_open_out(int out, bool *ret_sock)
{
	struct stat st = {0};

	fstat(out, &st);
	*ret_sock = S_ISSOCK(st.st_mode);
	return S_ISFIFO(st.st_mode) ? io_reopen(out, O_WRONLY) : fcntl(out, F_DUPFD_CLOEXEC, 0);
}

int pump(int in, int out, int sock, bool *ret_lost, struct err *e)
{
	_cleanup_free_ struct way *up = calloc(1, sizeof(*up));
	_cleanup_free_ struct way *down = calloc(1, sizeof(*down));
	_cleanup_fd_ int own = -1;
	int r;

	if (!up || !down)
		return err_sys(e, ENOMEM, "cannot make buffers");
	own = pump_open_out(out, &down->out_sock);
	if (own < 0)
		return err_sys(e, errno, "cannot write stdout");
	up->to_peer = up->out_sock = true;
	up->in = in;
	up->out = down->in = sock;
	down->out = own;
	r = run(up, down, sock, e);
	*ret_lost = up->lost;
	return r;
}
