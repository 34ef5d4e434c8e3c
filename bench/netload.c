/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netload.c - the host's side of a tap: where frames for a guest come from, and pings.
 *
 *   send IF         sends 64 KiB GSO frames out through the interface, for ever: whoever serves
 *                   the tap reads them, and says how fast
 *   ping IF COUNT   64-byte frames, one at a time, each answered by whoever serves the tap
 *
 * A tap drops what does not fit into its queue, so a sender without a brake would spend a
 * processor on frames nobody gets. send keeps a window: it looks at the interface's counters of
 * frames taken (tx_packets) and lost, and rests for a moment when WINDOW are on their way. A ping
 * sleeps until its answer is there, as any program with a socket would.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_packet.h>
#include <net/if.h>

#include "frame.h"
#include "tool.h"

/* Frames on their way; a tap's queue has room for more. */
#define WINDOW 128u
/* Frames between two looks at the counters. */
#define BATCH 16u
#define REST_NS 20000l
#define STALL_NS 50000000u
/* How long a first ping waits before the next is tried, and how many are. */
#define START_US 20000
#define STARTS_MAX 250u
/* How long any later one waits. */
#define PATIENCE_US 2000000

/* With @vnet a short virtio-net header goes before each frame. */
static int open_socket(const char *name, uint16_t protocol, int vnet)
{
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(protocol),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	int one = 1;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("packet socket");
	if (addr.sll_ifindex == 0)
		die("%s", name);
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &vnet, sizeof(vnet)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("%s", name);
	return fd;
}

/* Frames that have left the interface's queue: taken by the tap's reader, or lost. */
static uint64_t frames_gone(int proc_fd, const char *name)
{
	static char text[16384];
	unsigned long long bytes, packets, errors, lost;
	ssize_t n = pread(proc_fd, text, sizeof(text) - 1, 0);
	char key[IF_NAMESIZE + 2];
	const char *line;

	if (n <= 0)
		die("/proc/net/dev");
	text[n] = '\0';
	snprintf(key, sizeof(key), "%s:", name);
	line = strstr(text, key);
	if (!line ||
	    sscanf(line + strlen(key), "%*u %*u %*u %*u %*u %*u %*u %*u %llu %llu %llu %llu",
		    &bytes, &packets, &errors, &lost) != 4) {
		errno = 0;
		die("/proc/net/dev: nothing about %s", name);
	}
	return packets + errors + lost;
}

/* Where a sender stands. */
struct window {
	const char *name;
	int proc_fd;
	uint64_t sent, gone_before; /* frames since the last resync; the counter then */
};

/* Begins to count anew: what is on its way now is forgotten. */
static void resync(struct window *w)
{
	w->sent = 0;
	w->gone_before = frames_gone(w->proc_fd, w->name);
}

/*
 * Until there is room for BATCH more. What a reader left in the queue when it closed the tap is in
 * no counter: after a time without any progress that is what is taken to have happened.
 */
static void await_room(struct window *w)
{
	struct timespec rest = { .tv_nsec = REST_NS };
	uint64_t since = now_ns(), last = 0;

	for (;;) {
		uint64_t gone = frames_gone(w->proc_fd, w->name) - w->gone_before;

		if (w->sent + BATCH <= gone + WINDOW)
			return;
		if (gone != last)
			since = now_ns();
		last = gone;
		if (now_ns() - since > STALL_NS) {
			resync(w);
			return;
		}
		nanosleep(&rest, NULL);
	}
}

__attribute__((noreturn)) static void send_bulk(const char *name)
{
	static struct bulk_frame frame;
	/* What a packet socket wants is the 10-byte header of before version 1. */
	struct iovec iov[2] = { { &frame.vnet, sizeof(struct virtio_net_hdr) },
		{ frame.data, sizeof(frame.data) } };
	int fd = open_socket(name, 0, 1);
	struct window w = {
		.name = name,
		.proc_fd = open("/proc/net/dev", O_RDONLY | O_CLOEXEC),
	};

	die_with_parent();
	prctl(PR_SET_TIMERSLACK, 1ul);
	frame_bulk(&frame);
	resync(&w);
	for (;;) {
		await_room(&w);
		for (unsigned i = 0; i < BATCH; i++)
			if (writev(fd, iov, 2) > 0)
				w.sent++;
			else if (errno != ENETDOWN && errno != ENOBUFS && errno != EAGAIN)
				die("send on %s", name);
			else
				usleep(1000); /* nobody serves the tap */
	}
}

/* One round trip in ns; 0 if there was no answer in time. */
static uint64_t ping_once(int fd, uint64_t seq)
{
	struct ping_frame frame, answer;
	uint64_t start = now_ns();

	frame_ping(&frame, seq);
	if (send(fd, &frame, sizeof(frame), 0) != (ssize_t)sizeof(frame) && errno != ENETDOWN &&
	    errno != ENOBUFS)
		die("send");
	do {
		ssize_t n = recv(fd, &answer, sizeof(answer), 0);

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n != (ssize_t)sizeof(answer))
			die("recv");
	} while (answer.seq != seq);
	return now_ns() - start;
}

static void set_patience(int fd, long us)
{
	struct timeval patience = { .tv_sec = us / 1000000, .tv_usec = us % 1000000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		die("SO_RCVTIMEO");
}

static void ping(const char *name, uint64_t count)
{
	uint64_t *ns = calloc(count, sizeof(*ns));
	int fd = open_socket(name, PING_TYPE, 0);
	uint64_t seq = 1;

	if (!ns)
		die("%s", name);
	/* Whoever is to answer may still have to start. */
	set_patience(fd, START_US);
	while (ping_once(fd, seq) == 0)
		if (++seq == STARTS_MAX)
			die("%s: nobody answers", name);
	set_patience(fd, PATIENCE_US);
	for (uint64_t i = 0; i < count; i++) {
		ns[i] = ping_once(fd, ++seq);
		if (ns[i] == 0)
			die("%s: no answer to ping %llu", name, (unsigned long long)i);
	}
	print_trips(ns, count);
	free(ns);
}

int main(int argc, char **argv)
{
	tool_name = "netload";
	if (argc == 3 && strcmp(argv[1], "send") == 0)
		send_bulk(argv[2]);
	else if (argc == 4 && strcmp(argv[1], "ping") == 0)
		ping(argv[2], number(argv[3]));
	else
		fputs("usage: netload send IF | ping IF COUNT\n", stderr);
	return argc == 4 ? 0 : 2;
}
