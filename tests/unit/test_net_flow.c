/* SPDX-License-Identifier: Apache-2.0 */
/* test_net_flow.c - what the network device is for: frames both ways, until there is a reason. */
#include "tests/lib/net_guest.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GSO_ALL  (NG_BASE | NET_F(CSUM) | NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) |                  \
	NET_F(GUEST_TSO6) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6))

static u8 out[NG_FRAME], in[NG_FRAME];

/* Sends the @seed-th frame of @len bytes from the host. */
static void host_frame(struct ng *g, u32 len, u32 seed)
{
	ng_frame_in(out, len, seed);
	ng_host_send(g, 0, NULL, out, len);
}

static void expect_frame(struct ng *g, u32 len, u32 seed)
{
	u32 got;

	NG_UNTIL(g, (got = ng_recv(g, 0, NULL, in)) > 0);
	assert_int_equal(got, len);
	ng_frame_in(out, len, seed);
	assert_memory_equal(in, out, len);
}

static void test_to_host(void **state)
{
	struct ng g = {0};
	u32 got;

	ng_init(&g);
	for (u32 i = 0; i < 300; i++) {
		u32 len = 14 + i * 5;

		ng_frame_out(out, len, i);
		ng_send(&g, 0, NULL, out, len);
		NG_UNTIL(&g, (got = ng_host_recv(&g, 0, NULL, in)) > 0);
		assert_int_equal(got, len);
		assert_memory_equal(in, out, len);
	}
	ng_settle(&g);
	ng_sent(&g, 0);
	assert_int_equal(g.tx[0].free_count, g.tx[0].size);
	assert_int_equal(g.n->stats.tx_frames, 300);
	ng_finish(&g);
}

/* Many frames in one turn: in order, and with one interrupt. */
static void test_batches(void **state)
{
	struct ng g = {0};
	unsigned irqs;
	u32 got;

	ng_init(&g);
	irqs = g.irqs;
	for (u32 i = 0; i < 30; i++) {
		ng_frame_out(out, 100 + i, i);
		ng_send(&g, 0, NULL, out, 100 + i);
	}
	ng_settle(&g);
	for (u32 i = 0; i < 30; i++) {
		got = ng_host_recv(&g, 0, NULL, in);
		ng_frame_out(out, 100 + i, i);
		assert_int_equal(got, 100 + i);
		assert_memory_equal(in, out, got);
	}
	assert_int_equal(g.irqs, irqs + 1);
	for (u32 i = 0; i < 30; i++)
		host_frame(&g, 100 + i, i);
	ng_settle(&g);
	for (u32 i = 0; i < 30; i++)
		expect_frame(&g, 100 + i, i);
	assert_true(g.irqs <= irqs + 6);
	ng_finish(&g);
}

static void test_to_guest(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	for (u32 i = 0; i < 300; i++) {
		host_frame(&g, 14 + i * 6, i);
		expect_frame(&g, 14 + i * 6, i);
	}
	ng_settle(&g);
	/* Nothing is held while it is idle. */
	assert_int_equal(g.dev->queue[0].in_flight_count, 0);
	assert_int_equal(ng_run_ms(&g, 30), 0);
	ng_finish(&g);
}

/* Long and short frames in any order, with as many buffers as each needs. */
static void test_merge(void **state)
{
	struct ng g = {.features = GSO_ALL, .offloads = NET_OFFLOADS, .rx_size = 256};
	u32 sent = 0, got = 0, len[1000];

	ng_make(&g, NULL);
	ng_driver(&g, 256);
	for (u32 i = 0; i < 1000; i++)
		len[i] = 14 + (i % 7 == 3 || i / 100 % 3 == 1 ? i * 7919 % 65000 : i % 1500);
	while (got < 1000) {
		while (sent < 1000 && sent < got + 40) {
			host_frame(&g, len[sent], sent);
			sent++;
			if (sent % 3 == 0)
				ng_turn(&g);
		}
		expect_frame(&g, len[got], got);
		got++;
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	ng_finish(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_to_host),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_to_guest),
		cmocka_unit_test(test_merge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
