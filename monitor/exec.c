/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - see exec.h
 *
 * One poll() loop between the connection and this process's stdin, stdout and stderr. Towards the
 * guest there is one frame at a time; signals and the terminal's size go before input, and of input
 * only as much is under way as the agent has room for, so that a signal never waits behind it. From
 * the guest, a frame's bytes are written from where they were read to; until all are, no other
 * frame is read, so that a slow reader of ours slows the command down.
 */
#include "monitor/exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/sig.h"
#include "monitor/base/tree.h"
#include "monitor/guest.h"
#include "monitor/pump.h"

#define SIGNALS_TO_LEAVE 3u /* of those that are passed on: then we go, whatever the guest does */

struct client {
	const struct exec_spec *spec;
	struct frame_reader in;
	int signal_fd;
	struct termios saved;
	bool raw; /* the terminal, which is to be as in @saved again */

	/* Towards the guest. */
	u32 window; /* bytes of stdin that it has room for */
	bool stdin_end, resize;
	unsigned signals;
	u32 signal; /* to be passed on; 0: none */
	u32 off, len;
	u8 frame[FRAME_HEAD + FRAME_MAX];

	/* From the guest: [0] stdout, [1] stderr. */
	int out[2];
	bool out_sock[2];
	unsigned pend_to;
	const u8 *pend;
	u32 pend_len;

	bool ended;
	u32 status;
};

/* ---- the request ---- */

static bool put_text(struct client *c, u32 *at, const char *text)
{
	size_t n = strlen(text) + 1;

	if (n > FRAME_MAX - *at)
		return false;
	memcpy(c->frame + FRAME_HEAD + *at, text, n);
	*at += (u32)n;
	return true;
}

static void window_size(u8 p[4])
{
	struct winsize ws = {0};

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws))
		ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
	le_put(p, ws.ws_row, 2);
	le_put(p + 2, ws.ws_col, 2);
}

static int send_request(struct client *c, struct err *e)
{
	const struct exec_spec *s = c->spec;
	u8 *p = c->frame + FRAME_HEAD;
	u32 at = guest_request(p);
	bool fits;

	le_put(p + at, s->tty ? EXEC_TTY : 0, 4);
	window_size(p + at + 4);
	le_put(p + at + 8, s->argc, 2);
	le_put(p + at + 10, s->env_count, 2);
	at += 12;
	fits = put_text(c, &at, s->user) && put_text(c, &at, s->cwd);
	for (unsigned i = 0; i < s->argc && fits; i++)
		fits = put_text(c, &at, s->argv[i]);
	for (unsigned i = 0; i < s->env_count && fits; i++)
		fits = put_text(c, &at, s->env[i]);
	if (!fits)
		return err_set(e, -E2BIG,
			"the command and its environment are longer than %u bytes", FRAME_MAX);
	frame_head(c->frame, FR_EXEC, at);
	return frame_send_raw(c->in.fd, c->frame, FRAME_HEAD + at, e);
}

/* ---- the terminal and signals ---- */

static void make_raw(struct client *c)
{
	struct termios raw;

	if (!c->spec->tty || tcgetattr(STDIN_FILENO, &c->saved))
		return;
	raw = c->saved;
	cfmakeraw(&raw);
	c->raw = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void restore_terminal(struct client *c)
{
	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &c->saved);
	c->raw = false;
}

/* Signals become readable. One that whoever started us wanted to be ignored stays so. */
static int open_signals(const struct exec_spec *s, struct err *e)
{
	static const int sigs[] = {SIGINT, SIGTERM, SIGQUIT, SIGWINCH};
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		if (!sig_is_ignored(sigs[i]) && (sigs[i] != SIGWINCH || s->tty))
			sigaddset(&set, sigs[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd >= 0 ? fd : err_sys(e, errno, "cannot take signals");
}

static void take_signals(struct client *c)
{
	struct signalfd_siginfo si;

	while (read(c->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGWINCH) {
			c->resize = true;
			continue;
		}
		c->signal = si.ssi_signo;
		if (++c->signals < SIGNALS_TO_LEAVE)
			continue;
		c->ended = true;
		c->status = 128 + si.ssi_signo;
	}
}

/* ---- towards the guest ---- */

static void set_frame(struct client *c, u8 type, u32 len)
{
	frame_head(c->frame, type, len);
	c->off = 0;
	c->len = FRAME_HEAD + len;
}

static bool wants_stdin(const struct client *c)
{
	return !c->len && !c->stdin_end && c->window;
}

static int read_stdin(struct client *c, struct err *e)
{
	size_t room = c->window < FRAME_DATA ? c->window : FRAME_DATA;
	ssize_t n = read(STDIN_FILENO, c->frame + FRAME_HEAD, room);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* A terminal that has gone is the end of it. */
	if (n < 0 && errno == EIO && c->raw)
		n = 0;
	if (n < 0)
		return err_sys(e, errno, "cannot read stdin");
	c->stdin_end = n == 0;
	c->window -= (u32)n;
	set_frame(c, n ? FR_STDIN : FR_STDIN_END, (u32)n);
	return 0;
}

/* What goes before input. */
static void next_frame(struct client *c)
{
	u8 *p = c->frame + FRAME_HEAD;

	if (c->len)
		return;
	if (c->signal) {
		le_put(p, c->signal, 4);
		c->signal = 0;
		set_frame(c, FR_SIGNAL, 4);
	} else if (c->resize) {
		window_size(p);
		c->resize = false;
		set_frame(c, FR_RESIZE, 4);
	}
}

/* Sends what there is to send, as far as it can be sent. */
static int flush(struct client *c, struct err *e)
{
	for (;;) {
		ssize_t n;

		next_frame(c);
		if (!c->len)
			return 0;
		n = send(c->in.fd, c->frame + c->off, c->len - c->off, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0 && errno != EPIPE && errno != ECONNRESET)
			return err_sys(e, errno, "cannot write to the guest");
		if (n < 0) {
			/* The command may have ended; what it said is there to be read. */
			c->off = c->len = 0;
			c->stdin_end = true;
			return 0;
		}
		c->off += (u32)n;
		if (c->off == c->len)
			c->off = c->len = 0;
	}
}

/* ---- from the guest ---- */

static int write_out(struct client *c, struct err *e)
{
	unsigned i = c->pend_to;
	ssize_t n;

	if (!c->pend_len)
		return 0;
	n = c->out_sock[i] ? send(c->out[i], c->pend, c->pend_len, MSG_DONTWAIT)
			   : write(c->out[i], c->pend, c->pend_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return err_sys(e, errno, "cannot write %s", i ? "stderr" : "stdout");
	c->pend += n;
	c->pend_len -= (u32)n;
	return 0;
}

static int take_frame(struct client *c, const struct frame *f, struct err *e)
{
	u32 n = f->len == 4 ? (u32)le_get(f->p, 4) : 0;

	switch (f->type) {
	case FR_STDOUT:
	case FR_STDERR:
		c->pend_to = f->type == FR_STDERR;
		c->pend = f->p;
		c->pend_len = f->len;
		return 0;
	case FR_STDIN_ACK:
		if (f->len != 4 || n > STDIN_WINDOW - c->window)
			break;
		c->window += n;
		return 0;
	case FR_EXIT:
		if (f->len != 4)
			break;
		c->ended = true;
		c->status = n & 255;
		return 0;
	case FR_ERROR: return frame_error(f, &c->status, e);
	default: break;
	}
	return err_set(e, -EPROTO, "the agent said something unknown");
}

static int read_guest(struct client *c, struct err *e)
{
	struct frame f;
	int r = 0;

	while (!r && !c->ended && !c->pend_len) {
		r = frame_read(&c->in, &f, e);
		if (r == -ECONNRESET)
			return err_set(e, r, "the connection was cut off before the command ended");
		if (r <= 0)
			return r;
		r = take_frame(c, &f, e);
		if (!r)
			r = write_out(c, e);
	}
	return r;
}

/* ---- the loop ---- */

static int turn(struct client *c, struct err *e)
{
	struct pollfd p[] = {
		{c->in.fd, (short)((c->pend_len ? 0 : POLLIN) | (c->len ? POLLOUT : 0)), 0},
		{c->signal_fd, POLLIN, 0},
		{wants_stdin(c) ? STDIN_FILENO : -1, POLLIN, 0},
		{c->pend_len ? c->out[c->pend_to] : -1, POLLOUT, 0},
	};
	int r = 0;

	if (!p[0].events)
		p[0].fd = -1; /* a hangup would be reported again and again */
	if (poll(p, ARRAY_SIZE(p), -1) < 0)
		return errno == EINTR ? 0 : err_sys(e, errno, "cannot wait for the guest");
	if (p[1].revents)
		take_signals(c);
	if (p[3].revents)
		r = write_out(c, e);
	if (!r)
		r = read_guest(c, e);
	next_frame(c);
	if (!r && !c->ended && p[2].revents && wants_stdin(c))
		r = read_stdin(c, e);
	return r ? r : flush(c, e);
}

static int begin(struct client *c, struct err *e)
{
	struct frame f;
	int r = send_request(c, e);

	if (!r)
		r = frame_wait(&c->in, -1, &f, e);
	if (r)
		return r;
	if (f.type == FR_ERROR)
		return frame_error(&f, &c->status, e);
	if (f.type != FR_OK)
		return err_set(e, -EPROTO, "the agent said something unknown");
	return 0;
}

static int open_outs(struct client *c, struct err *e)
{
	c->out[0] = pump_open_out(STDOUT_FILENO, &c->out_sock[0]);
	if (c->out[0] < 0)
		return err_sys(e, errno, "cannot write stdout");
	c->out[1] = pump_open_out(STDERR_FILENO, &c->out_sock[1]);
	return c->out[1] < 0 ? err_sys(e, errno, "cannot write stderr") : 0;
}

static int run(struct client *c, struct err *e)
{
	int r = open_outs(c, e);

	if (!r)
		r = begin(c, e);
	if (r)
		return r;
	c->signal_fd = open_signals(c->spec, e);
	if (c->signal_fd < 0)
		return c->signal_fd;
	make_raw(c);
	while (!r && !c->ended)
		r = turn(c, e);
	restore_terminal(c);
	return r;
}

int exec_run(int fd, const struct exec_spec *spec, int *ret_status, struct err *e)
{
	struct client *c = calloc(1, sizeof(*c));
	int r;

	*ret_status = 1;
	if (!c)
		return err_sys(e, ENOMEM, "cannot make buffers");
	c->spec = spec;
	c->in.fd = fd;
	c->window = STDIN_WINDOW;
	c->signal_fd = c->out[0] = c->out[1] = -1;
	c->status = 1;
	r = run(c, e);
	*ret_status = (int)(c->status & 255);
	if (r && !*ret_status)
		*ret_status = 1;
	fd_close(&c->signal_fd);
	fd_close(&c->out[0]);
	fd_close(&c->out[1]);
	free(c);
	return r;
}
