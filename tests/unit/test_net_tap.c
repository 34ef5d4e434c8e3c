/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_tap.c - the network device on a real TAP, in a network namespace of its own. Skipped (77)
 * where one cannot be made. The host's side is a packet socket, which passes virtio headers too.
 */
#include "tests/lib/net_guest.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MSS        1448u
#define GSO_LEN    (54u + 20u * MSS) /* headers, and 20 segments */

static u8 out[NG_FRAME], in[NG_FRAME];

/* A packet socket on @name; with it frames of any kind. */
static int packet_socket(const char *name)
{
	struct sockaddr_ll sa = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	sa.sll_ifindex = (int)if_nametoindex(name);
	assert_true(sa.sll_ifindex);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Virtio headers of packet sockets have 10 bytes, in the processor's order, which is this. */
static void host_send(int fd, const struct virtio_net_hdr_v1 *h, const void *frame, u32 len)
{
	static const struct virtio_net_hdr_v1 zero;
	struct iovec iov[2] = {{(void *)(h ? h : &zero), 10}, {(void *)frame, len}};

	assert_int_equal(writev(fd, iov, 2), 10 + len);
}

static u32 host_recv(int fd, struct virtio_net_hdr_v1 *h, void *frame)
{
	struct virtio_net_hdr_v1 hdr = {0};
	struct iovec iov[2] = {{&hdr, 10}, {frame, NG_FRAME}};
	ssize_t n = readv(fd, iov, 2);

	if (h)
		*h = hdr;
	return n > 10 ? (u32)n - 10 : 0;
}

/* The last descriptor of a TAP may be closed by the kernel, some time after its ring ended. */
static void wait_gone(const char *name)
{
	for (unsigned i = 0; i < 3000 && if_nametoindex(name); i++)
		usleep(1000);
	assert_int_equal(if_nametoindex(name), 0);
}

static void open_tap(struct net_backend *b, const char *name, unsigned queues)
{
	struct err e = {0};

	wait_gone("kt0");
	if (net_tap_open(b, name, queues, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(b->fds_count, queues);
}

static void test_frames(void **state)
{
	struct net_backend b;
	struct ng g = {.backend = &b};
	u32 len;
	int fd;

	open_tap(&b, "kt%d", 1);
	assert_string_equal(b.name, "kt0");
	fd = packet_socket(b.name);
	ng_init(&g);
	for (u32 i = 0; i < 200; i++) {
		ng_frame_out(out, 60 + i, i);
		ng_send(&g, 0, NULL, out, 60 + i);
		NG_UNTIL(&g, (len = host_recv(fd, NULL, in)) > 0);
		assert_int_equal(len, 60 + i);
		assert_memory_equal(in, out, len);
		ng_frame_in(out, 70 + i, i);
		host_send(fd, NULL, out, 70 + i);
		NG_UNTIL(&g, (len = ng_recv(&g, 0, NULL, in)) > 0);
		assert_int_equal(len, 70 + i);
		assert_memory_equal(in, out, len);
	}
	/* Bursts, and a pause. */
	for (u32 i = 0; i < 50; i++) {
		ng_frame_in(out, 100, i);
		host_send(fd, NULL, out, 100);
	}
	for (u32 i = 0; i < 50; i++) {
		NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 100);
		ng_frame_in(out, 100, i);
		assert_memory_equal(in, out, 100);
	}
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	assert_int_equal(g.dev->queue[0].in_flight_count, 0);
	close(fd);
	ng_finish(&g);
	wait_gone("kt0"); /* it was made for us */
}

/* Flooded, with a guest that does not read: nothing turns, and later all that is left comes. */
static void test_n09_flood(void **state)
{
	struct net_backend b;
	struct ng g = {.backend = &b, .no_refill = true};
	u32 len;
	int fd;

	open_tap(&b, "kt0", 1);
	fd = packet_socket(b.name);
	ng_init(&g);
	ng_frame_in(out, 1000, 1);
	for (u32 i = 0; i < 100; i++)
		host_send(fd, NULL, out, 1000);
	for (u32 i = 0; i < 32; i++)
		NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 1000);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 30), 0);
	g.no_refill = false;
	ng_add_rx(&g, 0, 32);
	for (u32 i = 32; i < 100; i++) {
		NG_UNTIL(&g, (len = ng_recv(&g, 0, NULL, in)) > 0);
		assert_int_equal(len, 1000);
	}
	close(fd);
	ng_finish(&g);
}

/* A TCP segment that needs cutting, as a host with offloads makes it. */
static void tcp_frame(u8 *p, struct virtio_net_hdr_v1 *h, bool from_guest)
{
	u8 *ip = p + 14, *tcp = p + 34;

	if (from_guest)
		ng_frame_out(p, GSO_LEN, 3);
	else
		ng_frame_in(p, GSO_LEN, 3);
	p[12] = 0x08;
	p[13] = 0;
	memset(ip, 0, 40);
	ip[0] = 0x45;
	ip[2] = (GSO_LEN - 14) >> 8;
	ip[3] = (GSO_LEN - 14) & 0xff;
	ip[8] = 64;
	ip[9] = 6;
	memcpy(ip + 12, "\x0a\0\0\x01\x0a\0\0\x02", 8);
	tcp[12] = 0x50;
	tcp[13] = 0x10;
	*h = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .hdr_len = 54, .gso_size = MSS,
		.csum_start = 34, .csum_offset = 16};
}

/* To a driver that takes segments of 29 KB they come whole; to one that does not, cut and summed. */
static void test_offload_to_guest(void **state)
{
	struct virtio_net_hdr_v1 h, got;
	struct net_backend b;
	struct ng g = {.backend = &b, .features = NG_GSO, .rx_size = 256};
	u32 len;
	int fd;

	open_tap(&b, "kt0", 1);
	if ((b.offloads & NG_GSO & NET_OFFLOADS) != (NG_GSO & NET_OFFLOADS))
		skip();
	fd = packet_socket(b.name);
	ng_make(&g, NULL);
	ng_driver(&g, 200);
	ng_settle(&g);
	tcp_frame(out, &h, false);
	host_send(fd, &h, out, GSO_LEN);
	NG_UNTIL(&g, (len = ng_recv(&g, 0, &got, in)) > 0 && in[12] == 8 && in[13] == 0);
	assert_int_equal(len, GSO_LEN);
	assert_int_equal(got.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(got.gso_size, MSS);
	assert_memory_equal(in + 54, out + 54, GSO_LEN - 54);

	ng_settle(&g);
	drv_reset(g.dev);
	g.features = NG_BASE;
	ng_driver(&g, 200);
	ng_settle(&g);
	host_send(fd, &h, out, GSO_LEN);
	for (u32 i = 0; i < 20; i++) {
		NG_UNTIL(&g, (len = ng_recv(&g, 0, &got, in)) > 0 && in[12] == 8 && in[13] == 0);
		assert_int_equal(len, 54 + MSS);
		assert_int_equal(got.gso_type, 0);
		assert_int_equal(got.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
		assert_memory_equal(in + 54, out + 54 + i * MSS, MSS);
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	close(fd);
	ng_finish(&g);
}

static void test_offload_from_guest(void **state)
{
	struct virtio_net_hdr_v1 h, got;
	struct net_backend b;
	struct ng g = {.backend = &b, .features = NG_GSO};
	u32 len;
	int fd;

	open_tap(&b, "kt0", 1);
	if ((b.offloads & NG_GSO & NET_OFFLOADS) != (NG_GSO & NET_OFFLOADS))
		skip();
	fd = packet_socket(b.name);
	ng_init(&g);
	tcp_frame(out, &h, true);
	ng_send(&g, 0, &h, out, GSO_LEN);
	NG_UNTIL(&g, (len = host_recv(fd, &got, in)) == GSO_LEN);
	assert_memory_equal(in, out, len);
	assert_int_equal(got.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(got.gso_size, MSS);
	ng_settle(&g);
	ng_sent(&g, 0);
	/* One that the kernel refuses comes back all the same. */
	out[12] = 0x77;
	h.csum_start = 5000;
	ng_send(&g, 0, &h, out, GSO_LEN);
	ng_settle(&g);
	assert_int_equal(ng_sent(&g, 0), 1);
	close(fd);
	ng_finish(&g);
}

/* With several queues all frames reach a driver that uses one, and one that uses all. */
static void test_pairs(void **state)
{
	struct net_backend b;
	struct ng g = {.backend = &b, .pairs = 4, .features = NG_BASE | NET_F(MQ)};
	u32 seen = 0, got;
	u16 n = 4;
	int fd;

	open_tap(&b, "kt0", 4);
	fd = packet_socket(b.name);
	ng_init(&g);
	for (u32 i = 0; i < 100; i++) {
		ng_frame_in(out, 100, i);
		out[12] = (u8)(0x80 + i); /* other flows */
		host_send(fd, NULL, out, 100);
		NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 100);
	}
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	for (u32 i = 0; i < 100; i++) {
		ng_frame_in(out, 100, i);
		/* The kernel spreads by address and protocol. */
		out[12] = 0x08;
		memset(out + 14, 0, 28);
		out[14] = 0x45;
		out[17] = 86;
		out[22] = 64;
		out[23] = 17;
		out[29] = (u8)i;
		host_send(fd, NULL, out, 100);
		got = 0;
		for (unsigned tries = 0; tries < 3000 && !got; tries++) {
			ng_turn(&g);
			for (unsigned k = 0; k < 4; k++) {
				got |= ng_recv(&g, k, NULL, in);
				seen |= got ? 1u << k : 0;
			}
		}
		assert_int_equal(got, 100);
	}
	assert_true(seen & (seen - 1)); /* more than one of them */
	for (unsigned k = 0; k < 4; k++) {
		ng_frame_out(out, 90 + k, k);
		ng_send(&g, k, NULL, out, 90 + k);
		NG_UNTIL(&g, (got = host_recv(fd, NULL, in)) == 90 + k);
		assert_memory_equal(in, out, got);
	}
	/* And back to one. */
	n = 1;
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	for (u32 i = 0; i < 50; i++) {
		out[29] = (u8)i;
		host_send(fd, NULL, out, 100);
		NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 100);
	}
	close(fd);
	ng_finish(&g);
}

static void delete_link(const char *name)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} m = {.h = {.nlmsg_len = sizeof(m), .nlmsg_type = RTM_DELLINK,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.i = {.ifi_index = (int)if_nametoindex(name)}};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char answer[1024];

	assert_int_equal(send(fd, &m, sizeof(m), 0), sizeof(m));
	assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
	close(fd);
	assert_int_equal(if_nametoindex(name), 0);
}

static void test_deleted(void **state)
{
	struct net_backend b;
	struct ng g = {.backend = &b};

	open_tap(&b, "kt0", 1);
	ng_init(&g);
	delete_link("kt0");
	ng_frame_out(out, 60, 1);
	ng_send(&g, 0, NULL, out, 60);
	NG_UNTIL(&g, !(ng_config(&g, 6, 2) & VIRTIO_NET_S_LINK_UP));
	ng_settle(&g);
	assert_int_equal(ng_sent(&g, 0), 1);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	ng_finish(&g);
}

static int make(const char *name, int flags)
{
	struct ifreq req = {.ifr_flags = (short)flags};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &req), 0);
	return fd;
}

static void test_by_descriptor(void **state)
{
	static const struct {
		int flags;
		const char *why;
	} bad[] = {
		{IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "is a TUN, not a TAP"},
		{IFF_TAP | IFF_NO_PI, "without IFF_VNET_HDR"},
		{IFF_TAP | IFF_VNET_HDR, "and IFF_NO_PI"},
	};
	struct net_backend b;
	struct ng g = {.backend = &b};
	struct err e = {0};
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = make("kt1", bad[i].flags);
		if (net_tap_from_fd(&b, fd, &e) != -EINVAL)
			fail_msg("opened; should not: %s", bad[i].why);
		if (!strstr(e.msg, bad[i].why))
			fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].why);
		assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
	}
	fd = open("/dev/net/tun", O_RDWR);
	assert_true(net_tap_from_fd(&b, fd, &e) < 0);
	assert_non_null(strstr(e.msg, "attached to no TAP"));
	assert_true(net_tap_from_fd(&b, open("/dev/null", O_RDWR), &e) < 0);
	assert_non_null(strstr(e.msg, "is no TAP"));
	assert_true(net_tap_from_fd(&b, 999, &e) < 0);
	assert_non_null(strstr(e.msg, "not open"));

	fd = make("kt1", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	assert_int_equal(net_tap_from_fd(&b, fd, &e), 0);
	assert_string_equal(b.name, "kt1");
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ng_init(&g);
	ng_finish(&g);
}

static void expect_error(const char *name, unsigned queues, const char *why)
{
	struct net_backend b = {0};
	struct err e = {0};

	if (!net_tap_open(&b, name, queues, &e))
		fail_msg("%s was opened", name);
	if (!strstr(e.msg, why))
		fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
	assert_int_equal(b.fds_count, 0);
}

static void test_errors(void **state)
{
	struct net_backend b;
	int fd, status;
	pid_t pid;

	expect_error("", 1, "no name");
	expect_error("sixteen-bytes-xx", 1, "no name");
	expect_error("a/b", 1, "no name");
	expect_error("kt0", 0, "queues");
	expect_error("kt0", 17, "queues");
	expect_error("lo", 1, "is no TAP");
	open_tap(&b, "kt0", 1);
	expect_error("kt0", 1, "in use");
	expect_error("kt0", 2, "without multi_queue");
	net_backend_close(&b);
	open_tap(&b, "kt0", 2);
	expect_error("kt0", 1, "made with multi_queue");
	net_backend_close(&b);
	fd = make("kt0", IFF_TUN | IFF_NO_PI);
	expect_error("kt0", 1, "is a TUN");
	close(fd);
	/* Somebody who may not. */
	pid = fork();
	if (!pid) {
		struct err e = {0};

		if (setresuid(65534, 65534, 65534))
			_exit(2);
		_exit(net_tap_open(&b, "kt0", 1, &e) < 0 && strstr(e.msg, "not allowed") ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		NG_BOTH(test_frames),
		NG_BOTH(test_n09_flood),
		NG_BOTH(test_offload_to_guest),
		NG_BOTH(test_offload_from_guest),
		NG_BOTH(test_pairs),
		NG_BOTH(test_deleted),
		cmocka_unit_test(test_by_descriptor),
		cmocka_unit_test(test_errors),
	};
	struct net_backend b;
	struct err e;
	int fd;

	/* With a /sys that shows it; and without the frames that IPv6 sends on its own. */
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("sysfs", "/sys", "sysfs", 0, NULL) || net_tap_open(&b, "kt0", 1, &e)) {
		printf("skipped: no TAP in a network namespace of our own\n");
		return 77;
	}
	net_backend_close(&b);
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
	if (fd >= 0 && write(fd, "1", 1) == 1)
		close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
