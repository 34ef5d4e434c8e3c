/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_connect.c - kelvin connect: join stdin and stdout to a guest's vsock port.
 *
 * Two pipes of 64 KiB, moved by one poll() loop. Each direction ends by itself: the end of stdin is
 * passed on as a half close, and what the guest still says after that is printed; the guest's half
 * close leaves our way to it open. When the guest is gone altogether the rest of what it said is
 * printed and the verb ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/vm_verb.h"

#define BUF_SIZE   65536u
#define ANSWER_MAX 32u /* bytes of "OK <hostport>\n" */
#define TIMEOUT_NS 10000000000ull

enum { OPT_TIMEOUT = 1 };

static const struct opt_spec opts[] = {
	{"timeout", "TIME", "how long the guest may take to accept (default 10s)", OPT_TIMEOUT},
};

/* ---- the handshake ---- */

/* Reads the answer's line and nothing that comes after it. Returns its length, 0 if refused. */
static int read_line(int fd, char *line, u64 deadline_ns, struct err *e)
{
	for (size_t n = 0; n + 1 < ANSWER_MAX;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		u64 now = monotonic_ns();
		ssize_t k;

		if (now >= deadline_ns)
			return err_set(e, -ETIMEDOUT, "no answer");
		if (poll(&p, 1, (int)((deadline_ns - now + 999999) / 1000000)) <= 0)
			continue;
		k = recv(fd, line + n, 1, 0);
		if (k < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (k <= 0)
			return 0;
		if (line[n] == '\n') {
			line[n] = 0;
			return (int)n;
		}
		n++;
	}
	return err_set(e, -EPROTO, "a line that is too long");
}

static int shake_hands(int fd, const char *id, unsigned port, u64 timeout_ns, struct err *e)
{
	char line[ANSWER_MAX];
	struct err why;
	int n = snprintf(line, sizeof(line), "CONNECT %u\n", port);
	u64 now = monotonic_ns();
	u64 end = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;

	if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return err_sys(e, errno, "cannot talk to the vsock of VM \"%s\"", id);
	n = read_line(fd, line, end, &why);
	if (n == -ETIMEDOUT)
		return err_set(e, n, "the guest of VM \"%s\" did not answer on port %u in time", id,
			port);
	if (n == 0)
		return err_set(e, -ECONNREFUSED,
			"the guest of VM \"%s\" does not listen on port %u", id, port);
	if (n < 0 || strncmp(line, "OK ", 3))
		return err_set(e, -EPROTO, "the vsock of VM \"%s\" answered something unknown", id);
	return 0;
}

/* ---- the pump ---- */

struct way {
	int in, out;
	bool in_sock, out_sock;
	bool in_end;  /* nothing more comes */
	bool out_end; /* the end was passed on, or nobody takes more */
	bool lost;    /* something was not taken */
	size_t off, len;
	char buf[BUF_SIZE];
};

static bool wants_read(const struct way *w)
{
	return !w->in_end && !w->out_end && w->len == 0;
}

static bool wants_write(const struct way *w)
{
	return !w->out_end && w->len > 0;
}

static int fill(struct way *w, struct err *e)
{
	ssize_t n = w->in_sock ? recv(w->in, w->buf, BUF_SIZE, MSG_DONTWAIT)
			       : read(w->in, w->buf, BUF_SIZE);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0 && errno == ECONNRESET)
		n = 0; /* gone; what it said before that was read before that */
	if (n < 0)
		return err_sys(e, errno, "cannot read %s", w->in_sock ? "from the guest" : "stdin");
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
	if (n < 0 && w->out_sock && (errno == EPIPE || errno == ECONNRESET)) {
		give_up(w); /* but print what it still has to say */
		return 0;
	}
	if (n < 0)
		return err_sys(e, errno, "cannot write %s",
			w->out_sock ? "to the guest" : "stdout");
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
	if (w->out_sock)
		shutdown(w->out, SHUT_WR);
}

/* Moves what can be moved in one direction. */
static int move(struct way *w, short in_events, short out_events, struct err *e)
{
	int r = 0;

	if (wants_read(w) && in_events)
		r = fill(w, e);
	/* Straight on with what came: it mostly fits. Only where writing cannot block, though. */
	if (!r && wants_write(w) && (out_events || w->out_sock))
		r = drain(w, e);
	pass_end(w);
	return r;
}

static int pump(struct way *up, struct way *down, int fd, struct err *e)
{
	while (!up->out_end || !down->out_end) {
		struct pollfd p[3] = {
			{.fd = fd, .events = (short)((wants_read(down) ? POLLIN : 0) |
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
		r = move(down, p[0].revents & (POLLIN | POLLHUP | POLLERR), p[2].revents, e);
		if (r)
			return r;
		if (gone)
			give_up(up);
		r = move(up, p[1].revents, p[0].revents & POLLOUT, e);
		if (r)
			return r;
	}
	if (up->lost)
		return err_set(e, -EPIPE,
			"the guest closed the connection before it took all input");
	return 0;
}

/*
 * A pipe whose reader is slow must not stop the other direction, but O_NONBLOCK on stdout would be
 * seen by everybody who shares it: open the pipe anew, for us alone. Other kinds are used as is.
 */
static int open_stdout(void)
{
	struct stat st;
	int fd = -1;

	if (fstat(STDOUT_FILENO, &st) == 0 && S_ISFIFO(st.st_mode))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 ? fd : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
}

static int join(int fd, struct err *e)
{
	struct way *up = calloc(1, sizeof(*up)), *down = calloc(1, sizeof(*down));
	_cleanup_fd_ int out = open_stdout();
	int r;

	if (!up || !down) {
		r = err_sys(e, ENOMEM, "cannot make buffers");
	} else if (out < 0) {
		r = err_sys(e, errno, "cannot write stdout");
	} else {
		up->in = STDIN_FILENO;
		up->out = down->in = fd;
		up->out_sock = down->in_sock = true;
		down->out = out;
		r = pump(up, down, fd, e);
	}
	free(up);
	free(down);
	return r;
}

int cmd_connect(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "connect",
		.usage = "connect [--timeout TIME] ID PORT",
		.summary = "Joins stdin and stdout to the port PORT the guest of VM ID listens\n"
			   "on, by vsock. The end of stdin is passed on as a half close; ends\n"
			   "when the guest closes.",
		.examples = "  echo hello | kelvin connect web 1024\n"
			    "  kelvin connect web 1024 < request > answer\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	u64 timeout_ns = TIMEOUT_NS, port;
	_cleanup_fd_ int fd = -1;
	const char *arg;
	struct err e;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		if (parse_time(arg, &timeout_ns, &e))
			return usage_error(&p, "--timeout: %s", e.msg);
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, argc == optind ? "which VM, and which port?"
						      : "one VM and one port, please");
	if (parse_uint(argv[optind + 1], 0, UINT32_MAX - 1, &port, &e))
		return usage_error(&p, "the port: %s", e.msg);
	if (client_connect(&fd, argv[optind], "vsock.sock", &e) ||
		shake_hands(fd, argv[optind], (unsigned)port, timeout_ns, &e) || join(fd, &e))
		return fail(&e);
	return 0;
}
