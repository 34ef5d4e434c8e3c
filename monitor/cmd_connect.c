/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_connect.c - kelvin connect: join stdin and stdout to a guest's vsock port.
 *
 * The VM's vsock socket is asked for the port by a line; after its answer the socket is the
 * connection. The line also asks for END (virtio/vsock_line.c): a pipe that says at the end whether
 * the guest's stream ended in good order, or just stopped. So the exit status is worth something:
 * 0 means that all the guest said is on stdout, and that it had not left before it took all input.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/pump.h"
#include "monitor/vm_verb.h"

#define ANSWER_MAX 32u /* bytes of "OK <hostport>\n" */
#define TIMEOUT_NS 10000000000ull
#define RETRY_NS   20000000ull
#define SEND_ROOM  524288 /* bytes of the socket's buffer, which the kernel doubles */

enum { OPT_TIMEOUT = 1, OPT_WAIT };

static const struct opt_spec opts[] = {
	{"timeout", "TIME", "how long the guest may take to accept (default 10s)", OPT_TIMEOUT},
	{"wait", "TIME",
		"try again for so long where there is no such VM,\n"
		"or the guest does not listen (default: once)", OPT_WAIT},
};

struct target {
	const char *id;
	unsigned port;
	u64 timeout_ns;
};

static u64 later(u64 ns)
{
	u64 now = monotonic_ns();

	return ns < UINT64_MAX - now ? now + ns : UINT64_MAX;
}

/* recv() of one byte of the answer; the descriptor that came with it, if any, goes to *@end_fd. */
static ssize_t recv_byte(int fd, char *byte, int *end_fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
		h->cmsg_len == CMSG_LEN(sizeof(int)) && *end_fd < 0)
		memcpy(end_fd, CMSG_DATA(h), sizeof(int));
	return n;
}

/* Reads the answer's line and nothing that comes after it. Returns its length, 0 if refused. */
static int read_line(int fd, char *line, int *end_fd, u64 deadline_ns, struct err *e)
{
	for (size_t n = 0; n + 1 < ANSWER_MAX;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		u64 now = monotonic_ns(), left_ms;
		ssize_t k;

		if (now >= deadline_ns)
			return err_set(e, -ETIMEDOUT, "no answer");
		left_ms = (deadline_ns - now + 999999) / 1000000;
		if (poll(&p, 1, left_ms < 1000000 ? (int)left_ms : 1000000) <= 0)
			continue;
		k = recv_byte(fd, line + n, end_fd);
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

/* -ECONNREFUSED: the guest does not listen. */
static int shake_hands(int fd, const struct target *t, int *end_fd, struct err *e)
{
	char line[ANSWER_MAX];
	struct err why;
	int n = snprintf(line, sizeof(line), "CONNECT %u END\n", t->port);

	if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return err_sys(e, errno, "cannot talk to the vsock of VM \"%s\"", t->id);
	n = read_line(fd, line, end_fd, later(t->timeout_ns), &why);
	if (n == -ETIMEDOUT)
		return err_set(e, n, "the guest of VM \"%s\" did not answer on port %u in time",
			t->id, t->port);
	if (n == 0)
		return err_set(e, -ECONNREFUSED,
			"the guest of VM \"%s\" does not listen on port %u", t->id, t->port);
	if (n < 0 || strncmp(line, "OK ", 3))
		return err_set(e, -EPROTO, "the vsock of VM \"%s\" answered something unknown",
			t->id);
	return 0;
}

static int connect_once(const struct target *t, int *ret_fd, int *ret_end, struct err *e)
{
	const int room = SEND_ROOM;
	_cleanup_fd_ int fd = -1, end = -1;
	int r = client_connect(&fd, t->id, "vsock.sock", e);

	if (r)
		return r;
	/* More on its way means fewer wake-ups; it works with less. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	r = shake_hands(fd, t, &end, e);
	if (r)
		return r;
	*ret_fd = fd_steal(&fd);
	*ret_end = fd_steal(&end);
	return 0;
}

/* Tries again until @deadline_ns what time may mend. */
static int connect_until(const struct target *t, u64 deadline_ns, int *ret_fd, int *ret_end,
	struct err *e)
{
	for (;;) {
		int r = connect_once(t, ret_fd, ret_end, e);
		u64 now = monotonic_ns();

		if ((r != -ENOENT && r != -ECONNREFUSED && r != -EAGAIN) || now >= deadline_ns)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
	}
}

/* Whether the guest ended its stream in good order; where nobody tells, one has to believe it. */
static bool ended_well(int end_fd)
{
	ssize_t n;
	char byte;

	if (end_fd < 0)
		return true;
	do
		n = read(end_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1;
}

static int join(const struct target *t, int fd, int end_fd, struct err *e)
{
	bool lost;
	int r = pump(STDIN_FILENO, STDOUT_FILENO, fd, &lost, e);

	if (r)
		return r;
	if (!ended_well(end_fd))
		return err_set(e, -ECONNRESET,
			"the connection to port %u of VM \"%s\" was cut off: the guest reset it, "
			"or the VM ended", t->port, t->id);
	if (lost)
		return err_set(e, -EPIPE,
			"the guest of VM \"%s\" closed the connection before it took all input",
			t->id);
	return 0;
}

static const struct opt_parser parser = {
	.verb = "connect",
	.usage = "connect [--timeout TIME] [--wait TIME] ID PORT",
	.summary = "Joins stdin and stdout to the port PORT the guest of VM ID listens on,\n"
		   "by vsock. The end of stdin is passed on as a half close; ends when the\n"
		   "guest closes. Exits with 0 if all that the guest sent came through and\n"
		   "it took all input; else with 1, and one line on stderr that says why.",
	.examples = "  echo hello | kelvin connect web 1024\n"
		    "  kelvin connect web 1024 < request > answer\n"
		    "  kelvin connect --wait 5s web 1024     # as soon as it listens\n"
		    "  kelvin connect web 1024 < /dev/null   # only listen\n"
		    "  tar c dir | kelvin connect web 7 | tar x -C /elsewhere\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

int cmd_connect(int argc, char **argv)
{
	struct opt_parser p = parser;
	struct target t = {.timeout_ns = TIMEOUT_NS};
	u64 wait_ns = 0, port, *time;
	_cleanup_fd_ int fd = -1, end = -1;
	const char *arg;
	struct err e;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		time = id == OPT_WAIT ? &wait_ns : &t.timeout_ns;
		if (parse_time(arg, time, &e))
			return usage_error(&p, "--%s: %s", id == OPT_WAIT ? "wait" : "timeout",
				e.msg);
	}
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, argc == optind ? "which VM, and which port?"
						      : "one VM and one port, please");
	if (parse_uint(argv[optind + 1], 0, UINT32_MAX - 1, &port, &e))
		return usage_error(&p, "the port: %s", e.msg);
	t.id = argv[optind];
	t.port = (unsigned)port;
	if (connect_until(&t, later(wait_ns), &fd, &end, &e) || join(&t, fd, end, &e))
		return fail(&e);
	return 0;
}
