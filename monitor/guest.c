/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.c - connect to a port of a guest: see guest.h
 *
 * The VM's vsock socket is asked for the port by a line; after its answer the socket is the
 * connection. The line can also ask for END (virtio/vsock_line.c): a pipe that says at the end
 * whether the guest's stream ended in good order.
 */
#include "monitor/guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/frame.h"
#include "monitor/vm_verb.h"

#define ANSWER_MAX 32u /* bytes of "OK <hostport>\n" */
#define RETRY_NS   20000000ull
#define SEND_ROOM  524288 /* bytes of the socket's buffer, which the kernel doubles */

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
static int shake_hands(int fd, const struct guest_port *t, int *end_fd, struct err *e)
{
	char line[ANSWER_MAX];
	struct err why;
	_cleanup_fd_ int unasked = -1;
	int n = snprintf(line, sizeof(line), end_fd ? "CONNECT %u END\n" : "CONNECT %u\n", t->port);

	if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return err_sys(e, errno, "cannot talk to the vsock of VM \"%s\"", t->id);
	n = read_line(fd, line, end_fd ? end_fd : &unasked, later(t->timeout_ns), &why);
	if (n == -ETIMEDOUT)
		return err_set(e, n, "the guest of VM \"%s\" did not answer on port %u in time",
			t->id, t->port);
	if (n == 0)
		return err_set(e, -ECONNREFUSED,
			"the guest of VM \"%s\" does not listen on port %u%s", t->id, t->port,
			t->port == AGENT_PORT
				? ": exec and cp need kelvin's agent in it (see guests/linux)"
				: "");
	if (n < 0 || strncmp(line, "OK ", 3))
		return err_set(e, -EPROTO, "the vsock of VM \"%s\" answered something unknown",
			t->id);
	return 0;
}

static int connect_once(const struct guest_port *t, int *ret_fd, int *ret_end, struct err *e)
{
	const int room = SEND_ROOM;
	_cleanup_fd_ int fd = -1, end = -1;
	int r = client_connect(&fd, t->id, "vsock.sock", e);

	if (r)
		return r;
	/* More on its way means fewer wake-ups; it works with less. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	r = shake_hands(fd, t, ret_end ? &end : NULL, e);
	if (r)
		return r;
	*ret_fd = fd_steal(&fd);
	if (ret_end)
		*ret_end = fd_steal(&end);
	return 0;
}

/* A guest that stands still answers as little as one that does not listen. */
static int explain_silence(const char *id, int r, struct err *e)
{
	json_auto_t *facts = NULL;
	const char *state;

	if (client_call(id, "GET", "/kelvin/facts", NULL, ANSWER_MS, &facts, NULL))
		return r;
	state = json_string_value(json_object_get(facts, "state"));
	if (state && strcmp(state, "paused") == 0)
		return err_set(e, r, "VM \"%s\" is paused (kelvin resume %s)", id, id);
	if (state && strcmp(state, "snapshotting") == 0)
		return err_set(e, r, "VM \"%s\" stands still: a snapshot of it is being written",
			id);
	return r;
}

int guest_connect(const struct guest_port *t, u64 wait_ns, int *ret_fd, int *ret_end, struct err *e)
{
	u64 deadline_ns = later(wait_ns);

	for (;;) {
		int r = connect_once(t, ret_fd, ret_end, e);
		u64 now = monotonic_ns();

		if ((r == -ECONNREFUSED && now >= deadline_ns) || r == -ETIMEDOUT)
			return explain_silence(t->id, r, e);
		if ((r != -ENOENT && r != -ECONNREFUSED && r != -EAGAIN) || now >= deadline_ns)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
	}
}

int guest_agent(const char *id, u64 timeout_ns, u64 wait_ns, int *ret_fd, struct err *e)
{
	const struct guest_port t = {.id = id, .port = AGENT_PORT, .timeout_ns = timeout_ns};
	int r = guest_connect(&t, wait_ns, ret_fd, NULL, e);

	if (r == -ECONNREFUSED || r == -ETIMEDOUT)
		return err_wrap(e, "cannot reach the agent");
	return r;
}

u32 guest_request(u8 *p)
{
	le_put(p, clock_ns(CLOCK_REALTIME), 8);
	return 8;
}
