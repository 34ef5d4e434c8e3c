/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_passt.c - the network device on a stream socket: with a peer that cuts the stream in
 * pieces, stops reading, breaks the rules and goes away; and with passt itself where it is there.
 */
#include "tests/lib/net_guest.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

static u8 out[NG_FRAME], in[NG_FRAME];

/* What the peer got and did not take apart yet. */
static struct {
	u8 data[4 << 20];
	size_t len;
} peer;

static void peer_read(struct ng *g, size_t most)
{
	size_t room = sizeof(peer.data) - peer.len;
	ssize_t n = recv(g->host[0], peer.data + peer.len, most < room ? most : room, 0);

	if (n > 0)
		peer.len += (size_t)n;
}

/* The next frame from the guest, or 0. */
static u32 peer_frame(struct ng *g, void *frame)
{
	u32 len;

	if (peer.len < 4)
		return 0;
	memcpy(&len, peer.data, 4);
	len = be32toh(len);
	assert_true(len >= NET_ETH && len <= NET_FRAME_MAX);
	if (peer.len < 4 + len)
		return 0;
	memcpy(frame, peer.data + 4, len);
	peer.len -= 4 + len;
	memmove(peer.data, peer.data + 4 + len, peer.len);
	return len;
}

static void stream_init(struct ng *g)
{
	*g = (struct ng){.stream = true, .rx_size = 256};
	peer.len = 0;
	ng_make(g, NULL);
	ng_driver(g, 256);
	ng_settle(g);
}

static void test_frames(void **state)
{
	struct ng g;
	u32 len;

	stream_init(&g);
	assert_int_equal(g.dev->features & NET_OFFLOADS, 0);
	for (u32 i = 0; i < 300; i++) {
		u32 n = 14 + i * 211;

		ng_frame_out(out, n, i);
		ng_send(&g, 0, NULL, out, n);
		NG_UNTIL(&g, (peer_read(&g, 1 << 20), len = peer_frame(&g, in)) > 0);
		assert_int_equal(len, n);
		assert_memory_equal(in, out, n);
		ng_host_frame(&g, n, i);
		ng_expect_frame(&g, n, i);
	}
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	assert_int_equal(g.dev->queue[0].in_flight_count, 0);
	ng_finish(&g);
}

/* The stream comes in pieces of any length: one byte, most of it, several frames and a half. */
static void test_cut_anywhere(void **state)
{
	static u8 stream[200000];
	size_t len = 0, at = 0;
	u32 frames = 0, got = 0, x = 1;
	struct ng g;

	stream_init(&g);
	while (len < sizeof(stream) - 10004) {
		u32 n = 14 + frames * 7919 % (frames % 5 ? 300 : 10000), prefix = htobe32(n);

		memcpy(stream + len, &prefix, 4);
		ng_frame_in(stream + len + 4, n, frames++);
		len += 4 + n;
	}
	while (got < frames) {
		size_t n;

		x = x * 1664525 + 1013904223;
		n = x >> 30 == 0 ? 1 : (x >> 8) % 4000;
		n = n < len - at ? n : len - at;
		if (n) {
			assert_int_equal(send(g.host[0], stream + at, n, 0), n);
			at += n;
		}
		ng_turn(&g);
		while (at == len || vqb_used_waiting(&g.rx[0])) {
			ng_expect_frame(&g, 14 + got * 7919 % (got % 5 ? 300 : 10000), got);
			if (++got == frames)
				break;
		}
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

/* The peer reads a little at a time: frames go in parts, none is lost, torn or out of order. */
static void send_to_slow_peer(bool reset)
{
	u32 sent = 0, got = 0, last = 0, len, small = 4608;
	struct ng g;

	stream_init(&g);
	assert_int_equal(setsockopt(g.n->backend.fds[0], SOL_SOCKET, SO_SNDBUF, &small,
		sizeof(small)), 0);
	while (got < 400) {
		ng_sent(&g, 0);
		if (sent < 400 && g.tx[0].free_count) {
			len = 14 + sent * 7919 % 60000;
			ng_frame_out(out, len, sent);
			memcpy(out + 14, &sent, len >= 18 ? 4 : 0);
			ng_send(&g, 0, NULL, out, len);
			sent++;
		}
		ng_turn(&g);
		peer_read(&g, 1 + sent * 31 % 30000);
		if (reset && sent % 37 == 5) {
			ng_settle(&g);
			drv_reset(g.dev);
			guest_fill(&g.ram, 0x100000, 0x400000, 0x33);
			ng_driver(&g, 256);
			sent++; /* so that it happens once */
		}
		while ((len = peer_frame(&g, in))) {
			u32 number = last;

			memcpy(&number, in + 14, len >= 18 ? 4 : 0);
			if (number >= 400) /* the rest of one whose memory was gone */
				continue;
			assert_true(number >= last);
			last = number;
			got++;
			if (reset)
				continue;
			assert_int_equal(len, 14 + (got - 1) * 7919 % 60000);
			ng_frame_out(out, len, got - 1);
			assert_memory_equal(in + 18, out + 18, len > 18 ? len - 18 : 0);
		}
		if (reset && sent >= 400 && !vq_pending(&g.dev->queue[1]) && !peer.len &&
			!ng_run_ms(&g, 2))
			break;
	}
	assert_int_equal(g.dev->queue[1].in_flight_count, 0);
	assert_true(g.n->link_up);
	ng_finish(&g);
}

static void test_slow_peer(void **state)
{
	send_to_slow_peer(false);
}

static void test_slow_peer_and_resets(void **state)
{
	send_to_slow_peer(true);
}

static void *reset_once(void *arg)
{
	struct ng *g = arg;

	drv_reset(g->dev);
	ng_driver(g, 256);
	return NULL;
}

/* The reset comes while a frame is on its way that will go in part: the rest of it still goes. */
static void test_reset_in_half_a_frame(void **state)
{
	u32 small = 4608, len;
	pthread_t vcpu;
	struct ng g;

	stream_init(&g);
	assert_int_equal(setsockopt(g.n->backend.fds[0], SOL_SOCKET, SO_SNDBUF, &small,
		sizeof(small)), 0);
	ng_frame_out(out, 60000, 1);
	ng_send(&g, 0, NULL, out, 60000);
	NG_UNTIL(&g, g.dev->io_count == 1);
	assert_int_equal(pthread_create(&vcpu, NULL, reset_once, &g), 0);
	for (bool begun = false; !begun; usleep(100)) {
		pthread_mutex_lock(&g.dev->lock);
		begun = g.dev->resetting;
		pthread_mutex_unlock(&g.dev->lock);
	}
	while (pthread_tryjoin_np(vcpu, NULL))
		ng_turn(&g);
	assert_true(g.n->tx[0]->rest_end > 0);
	NG_UNTIL(&g, (peer_read(&g, 3000), len = peer_frame(&g, in)) > 0);
	assert_int_equal(len, 60000);
	assert_memory_equal(in, out, len);
	ng_frame_out(out, 333, 2);
	ng_send(&g, 0, NULL, out, 333);
	NG_UNTIL(&g, (peer_read(&g, 3000), len = peer_frame(&g, in)) > 0);
	assert_int_equal(len, 333);
	assert_memory_equal(in, out, len);
	ng_finish(&g);
}

/* A guest without buffers: the peer has to wait, and nothing turns. */
static void test_n09_starved(void **state)
{
	struct ng g = {.stream = true, .no_refill = true};
	u32 sent = 0;

	ng_make(&g, NULL);
	ng_driver(&g, 4);
	ng_settle(&g);
	for (;;) {
		struct pollfd p = {.fd = g.host[0], .events = POLLOUT};
		u32 prefix = htobe32(1000);
		struct iovec iov[2] = {{&prefix, 4}, {out, 1000}};

		ng_frame_in(out, 1000, sent);
		if (poll(&p, 1, 0) != 1 || writev(g.host[0], iov, 2) != 1004)
			break;
		sent++;
		ng_turn(&g);
	}
	assert_true(sent > 10);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	for (u32 i = 0; i < 4; i++)
		ng_expect_frame(&g, 1000, i);
	for (u32 i = 4; i < sent; i++) {
		ng_add_rx(&g, 0, 1);
		ng_expect_frame(&g, 1000, i);
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

static void test_bad_lengths(void **state)
{
	static const u32 bad[] = {NET_FRAME_MAX + 1, 0x80000000, 0xffffffff};
	u32 prefix;
	struct ng g;

	/* Too short for a frame, but the stream goes on. */
	stream_init(&g);
	for (u32 n = 0; n < NET_ETH; n++) {
		ng_frame_in(out, 14, n);
		ng_host_send(&g, 0, NULL, out, n);
	}
	ng_host_frame(&g, 100, 1);
	ng_expect_frame(&g, 100, 1);
	assert_int_equal(g.n->stats.rx_dropped, NET_ETH);
	ng_finish(&g);
	/* Too long to be true. */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		stream_init(&g);
		ng_host_frame(&g, 100, 1);
		prefix = htobe32(bad[i]);
		assert_int_equal(send(g.host[0], &prefix, 4, 0), 4);
		ng_expect_frame(&g, 100, 1);
		NG_UNTIL(&g, !(ng_config(&g, 6, 2) & VIRTIO_NET_S_LINK_UP));
		ng_settle(&g);
		assert_int_equal(ng_run_ms(&g, 10), 0);
		ng_finish(&g);
	}
}

static void test_peer_dies(void **state)
{
	struct ng g;

	stream_init(&g);
	ng_host_frame(&g, 100, 1);
	ng_settle(&g);
	ng_expect_frame(&g, 100, 1);
	close(g.host[0]);
	NG_UNTIL(&g, !(ng_config(&g, 6, 2) & VIRTIO_NET_S_LINK_UP));
	assert_true(g.dev->interrupt_status & 2);
	ng_frame_out(out, 60, 1);
	for (unsigned i = 0; i < 10; i++)
		ng_send(&g, 0, NULL, out, 60);
	ng_settle(&g);
	ng_sent(&g, 0);
	assert_int_equal(g.tx[0].free_count, g.tx[0].size);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	g.host[0] = dup(0);
	ng_finish(&g);

	/* While half a frame waits. */
	stream_init(&g);
	for (unsigned i = 0; i < 200 && !g.n->tx[0]->poll_op.busy; i++) {
		ng_frame_out(out, 60000, i);
		ng_send(&g, 0, NULL, out, 60000);
		ng_turn(&g);
	}
	assert_true(g.n->tx[0]->poll_op.busy);
	close(g.host[0]);
	NG_UNTIL(&g, (ng_sent(&g, 0), g.tx[0].free_count == g.tx[0].size));
	assert_int_equal(ng_config(&g, 6, 2), 0);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	g.host[0] = dup(0);
	ng_finish(&g);
}

static void test_snapshot(void **state)
{
	struct enc saved = {0};
	struct ng g;

	stream_init(&g);
	ng_save(&g, &saved);
	ng_restore(&g, &saved);
	ng_host_frame(&g, 200, 3);
	ng_expect_frame(&g, 200, 3);
	enc_free(&saved);
	ng_finish(&g);
}

static void expect_error(const char *path, const char *why)
{
	struct net_backend b;
	struct err e = {0};

	assert_true(net_passt_open(&b, path, &e) < 0);
	if (!strstr(e.msg, why))
		fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
}

static void test_open(void **state)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char *dir = tmpdir_make(), path[100], longest[200] = "";
	struct net_backend b = {0};
	struct ng g = {.backend = &b};
	struct err e = {0};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(path, sizeof(path), "%s/p", dir);
	memcpy(sa.sun_path, path, strlen(path));
	memset(longest, 'x', 120);
	expect_error(path, "No such file");
	expect_error("", "a path of");
	expect_error(longest, "a path of");
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	expect_error(path, "nobody listens");
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(net_passt_open(&b, path, &e), 0);
	ng_init(&g);
	g.host[0] = accept(fd, NULL, NULL);
	g.stream = true;
	ng_host_frame(&g, 200, 3);
	ng_expect_frame(&g, 200, 3);
	close(g.host[0]);
	close(fd);
	ng_finish(&g);
	unlink(path);
	tmpdir_remove(dir);
	free(dir);
}

/* Who has 192.0.2.77? passt answers for every address but the guest's. */
static u32 arp_request(u8 *p)
{
	memset(p, 0, 60);
	memset(p, 0xff, 6);
	memcpy(p + 6, ng_mac, 6);
	memcpy(p + 12, "\x08\x06\0\x01\x08\0\x06\x04\0\x01", 10);
	memcpy(p + 22, ng_mac, 6);
	memcpy(p + 28, "\xc0\0\x02\x4c", 4);
	memcpy(p + 38, "\xc0\0\x02\x4d", 4);
	return 60;
}

static void test_real_passt(void **state)
{
	struct net_backend b = {0};
	struct ng g = {.backend = &b};
	struct err e = {0};
	u32 len;

	if (net_passt_start(&b, &e)) {
		print_message("passt: %s\n", e.msg);
		skip();
	}
	ng_init(&g);
	len = arp_request(out);
	ng_send(&g, 0, NULL, out, len);
	NG_UNTIL(&g, (len = ng_recv(&g, 0, NULL, in)) > 0 && in[12] == 8 && in[13] == 6);
	assert_true(len >= 42);
	assert_memory_equal(in, ng_mac, 6);
	assert_int_equal(in[21], 2); /* a reply */
	assert_memory_equal(in + 28, out + 38, 4);
	ng_finish(&g);
}

/* What went wrong, in one line. */
static void test_passt_errors(void **state)
{
	char *dir = tmpdir_make(), path[100], *old = strdup(getenv("PATH"));
	struct net_backend b = {0};
	struct err e = {0};
	FILE *f;

	assert_int_equal(setenv("PATH", dir, 1), 0);
	assert_int_equal(net_passt_start(&b, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "not installed"));
	snprintf(path, sizeof(path), "%s/passt", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("#!/bin/sh\necho Failed to send 9 bytes to syslog >&2\n"
	      "echo 'no\troute' >&2\necho Failed to send 9 bytes >&2\nexit 3\n", f);
	fclose(f);
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(net_passt_start(&b, &e), -EIO);
	assert_non_null(strstr(e.msg, "did not start: no route"));
	assert_int_equal(setenv("PATH", old, 1), 0);
	free(old);
	unlink(path);
	tmpdir_remove(dir);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_slow_peer),
		cmocka_unit_test(test_slow_peer_and_resets),
		cmocka_unit_test(test_reset_in_half_a_frame),
		cmocka_unit_test(test_n09_starved),
		cmocka_unit_test(test_bad_lengths),
		cmocka_unit_test(test_peer_dies),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_real_passt),
		cmocka_unit_test(test_passt_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
