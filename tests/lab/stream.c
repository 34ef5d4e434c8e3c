/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - checked traffic between a guest and its host: one TCP connection, and datagrams.
 *
 *   drive PEER PORT   on the host: waits for the guest's connection, sends, looks at what comes back
 *   echo PEER PORT    in the guest: sends everything back, until the connection ends
 *
 * Every byte follows from its place, so none has to be kept. Of TCP all must come back, in order. A
 * datagram may be lost or overtaken; one that is damaged or comes twice is an error. The driver says
 * twice a second how much came back. SIGTERM makes it send no more, and end when it has everything.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/tool.h"

#define CHUNK       16384u
#define FLIGHT_MAX  (64u << 10) /* TCP bytes that are under way */
#define DATAGRAM_NS 4000000u     /* from one to the next */
#define DATAGRAM    1400u        /* bytes, at most */
#define DATAGRAMS   (1u << 20)   /* in all, at most */
#define SAY_NS      500000000u
#define PATIENCE_NS 60000000000u /* for the connection, and for the last byte */

static volatile sig_atomic_t ending;

static void on_term(int sig)
{
	(void)sig;
	ending = 1;
}

static uint8_t byte_at(uint64_t place)
{
	return (uint8_t)((place * 0x9e3779b97f4a7c15u) >> 56);
}

static void fill(uint8_t *p, size_t len, uint64_t place)
{
	for (size_t i = 0; i < len; i++)
		p[i] = byte_at(place + i);
}

static void check(const uint8_t *p, size_t len, uint64_t place, const char *what)
{
	errno = 0;
	for (size_t i = 0; i < len; i++)
		if (p[i] != byte_at(place + i))
			die("%s: byte %" PRIu64 " came back as %#x, not %#x", what, place + i, p[i],
				byte_at(place + i));
}

static struct sockaddr_in address(const char *text, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(port))};

	if (text && inet_pton(AF_INET, text, &a.sin_addr) != 1)
		die("'%s' is no address", text);
	return a;
}

static int datagrams(const struct sockaddr_in *peer)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = peer->sin_port};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) ||
		connect(fd, (const struct sockaddr *)peer, sizeof(*peer)))
		die("datagrams");
	return fd;
}

/* ---- the guest's side ---- */

static void echo(const struct sockaddr_in *peer)
{
	static uint8_t buf[4 * CHUNK];
	uint64_t bytes = 0, count = 0;
	int udp = datagrams(peer), tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct pollfd p[2] = {{.fd = tcp, .events = POLLIN}, {.fd = udp, .events = POLLIN}};

	if (tcp < 0 || connect(tcp, (const struct sockaddr *)peer, sizeof(*peer)))
		die("connect");
	for (;;) {
		ssize_t n;

		if (poll(p, 2, -1) < 0)
			die("poll");
		n = p[1].revents ? recv(udp, buf, sizeof(buf), MSG_DONTWAIT) : 0;
		if (n > 0 && send(udp, buf, (size_t)n, MSG_DONTWAIT) == n)
			count++;
		if (!p[0].revents)
			continue;
		n = recv(tcp, buf, sizeof(buf), 0);
		if (n < 0)
			die("the connection");
		if (n == 0)
			break;
		write_all(tcp, buf, (size_t)n);
		bytes += (uint64_t)n;
	}
	printf("sent %" PRIu64 " bytes and %" PRIu64 " datagrams back\n", bytes, count);
}

/* ---- the host's side ---- */

struct drive {
	int tcp, udp;
	uint64_t sent, back;     /* bytes of TCP */
	uint64_t next;           /* number of the next datagram */
	uint64_t sent_n, back_n; /* how many were sent, and came back */
	bool heard[DATAGRAMS];   /* by number: it came back */
};

static size_t datagram_len(uint64_t n)
{
	return sizeof(n) + n * 37 % (DATAGRAM - sizeof(n));
}

static int accept_one(const char *port)
{
	struct sockaddr_in own = address(NULL, port);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), got;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		bind(fd, (struct sockaddr *)&own, sizeof(own)) || listen(fd, 1))
		die("port %s", port);
	if (poll(&p, 1, PATIENCE_NS / 1000000) != 1)
		die("nobody connects");
	got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (got < 0)
		die("accept");
	close(fd);
	return got;
}

static void take_tcp(struct drive *d)
{
	static uint8_t buf[4 * CHUNK];
	ssize_t n = recv(d->tcp, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		die("the connection ends after %" PRIu64 " of %" PRIu64 " bytes", d->back, d->sent);
	check(buf, (size_t)n, d->back, "TCP");
	d->back += (uint64_t)n;
}

static void give_tcp(struct drive *d)
{
	uint8_t buf[CHUNK];
	ssize_t n;

	fill(buf, sizeof(buf), d->sent);
	n = send(d->tcp, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		die("the connection");
	d->sent += n > 0 ? (uint64_t)n : 0;
}

/* Errors are the network's way of saying that it lost one. */
static void take_udp(struct drive *d)
{
	uint8_t buf[2 * DATAGRAM];
	uint64_t n;
	ssize_t len = recv(d->udp, buf, sizeof(buf), MSG_DONTWAIT);

	if (len < 0)
		return;
	memcpy(&n, buf, sizeof(n));
	errno = 0;
	if ((size_t)len < sizeof(n) || n >= d->next || (size_t)len != datagram_len(n))
		die("a datagram of %zd bytes comes back that was not sent", len);
	if (d->heard[n])
		die("datagram %" PRIu64 " comes back twice", n);
	check(buf + sizeof(n), (size_t)len - sizeof(n), n * DATAGRAM, "datagrams");
	d->heard[n] = true;
	d->back_n++;
}

static void give_udp(struct drive *d)
{
	uint8_t buf[DATAGRAM];
	size_t len = datagram_len(d->next);

	memcpy(buf, &d->next, sizeof(d->next));
	fill(buf + sizeof(d->next), len - sizeof(d->next), d->next * DATAGRAM);
	d->next++;
	if (send(d->udp, buf, len, MSG_DONTWAIT) == (ssize_t)len)
		d->sent_n++;
}

static void say(const struct drive *d)
{
	printf("back %" PRIu64 " bytes of %" PRIu64 " and %" PRIu64 " datagrams of %" PRIu64 "\n",
		d->back, d->sent, d->back_n, d->sent_n);
	fflush(stdout);
}

static void drive(struct drive *d)
{
	struct pollfd p[2] = {{.fd = d->tcp}, {.fd = d->udp, .events = POLLIN}};
	uint64_t said = 0, gave = 0, ends = 0;

	while (!ending || d->back < d->sent) {
		uint64_t now = now_ns();
		bool room = !ending && d->sent - d->back < FLIGHT_MAX;

		if (ending && !ends)
			ends = now + PATIENCE_NS;
		if (ends && now > ends)
			die("only %" PRIu64 " of %" PRIu64 " bytes came back", d->back, d->sent);
		if (now - said >= SAY_NS) {
			say(d);
			said = now;
		}
		if (!ending && d->next < DATAGRAMS && now - gave >= DATAGRAM_NS) {
			give_udp(d);
			gave = now;
		}
		p[0].events = (short)(POLLIN | (room ? POLLOUT : 0));
		if (poll(p, 2, DATAGRAM_NS / 1000000) < 0 && errno != EINTR)
			die("poll");
		if (p[0].revents & ~POLLOUT)
			take_tcp(d);
		if (p[0].revents & POLLOUT)
			give_tcp(d);
		if (p[1].revents)
			take_udp(d);
	}
	say(d);
}

int main(int argc, char **argv)
{
	static struct drive d;
	struct sockaddr_in peer;

	tool_name = "stream";
	if (argc != 4)
		die("drive|echo PEER PORT");
	peer = address(argv[2], argv[3]);
	if (strcmp(argv[1], "echo") == 0) {
		echo(&peer);
		return 0;
	}
	signal(SIGTERM, on_term);
	d.udp = datagrams(&peer);
	d.tcp = accept_one(argv[3]);
	drive(&d);
	return 0;
}
