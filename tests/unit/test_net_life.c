/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_life.c - what becomes of a network device besides moving frames: pauses, snapshots,
 * announcements, a back end that goes away, queue pairs that come and go.
 */
#include "tests/lib/net_guest.h"

#include <string.h>
#include <unistd.h>

static u8 out[NG_FRAME], in[NG_FRAME];

/* Snapshots. */

static void test_paused(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	virtio_freeze(g.dev);
	for (u32 i = 0; i < 10; i++)
		ng_host_frame(&g, 100, i);
	ng_frame_out(out, 80, 1);
	ng_send(&g, 0, NULL, out, 80);
	ng_run_ms(&g, 20);
	assert_int_equal(vqb_used_waiting(&g.rx[0]), 0);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 0);
	assert_int_equal(g.dev->io_count, 0);
	virtio_thaw(g.dev);
	for (u32 i = 0; i < 10; i++)
		ng_expect_frame(&g, 100, i);
	NG_UNTIL(&g, ng_host_recv(&g, 0, NULL, in) == 80);
	ng_finish(&g);
}

/* Paused with reads on their way: what they bring arrives, then nothing moves. */
static void test_paused_in_flight(void **state)
{
	struct ng g = {0};
	struct enc saved = {0};

	ng_init(&g);
	for (u32 i = 0; i < 10; i++)
		ng_host_frame(&g, 100, i);
	NG_UNTIL(&g, g.dev->io_count > 0);
	virtio_freeze(g.dev);
	NG_UNTIL(&g, g.dev->io_count == 0);
	ng_run_ms(&g, 10);
	virtio_save(g.dev, &saved);
	virtio_thaw(g.dev);
	for (u32 i = 0; i < 10; i++)
		ng_expect_frame(&g, 100, i);
	enc_free(&saved);
	ng_finish(&g);
}

/*
 * Long frames leave buffers in flight that were not filled. They come back with the snapshot, each
 * once, wherever the device goes on.
 */
static void test_snapshot_with_buffers_held(void **state)
{
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 256,
		.no_refill = true};
	struct enc saved = {0};
	unsigned held = 0;
	u32 got, total = 0;
	u16 head;

	ng_make(&g, NULL);
	ng_driver(&g, 256);
	for (u32 round = 0; round < 40 && !held; round++) {
		for (u32 i = 0; i < 6; i++)
			ng_host_frame(&g, i % 2 ? 20000 : 100, i);
		for (u32 i = 0; i < 6; i++)
			ng_expect_frame(&g, i % 2 ? 20000 : 100, i);
		ng_settle(&g);
		held = g.dev->queue[0].in_flight_count;
		if (!held)
			ng_add_rx(&g, 0, g.rx[0].free_count);
	}
	assert_true(held > 0);
	ng_save(&g, &saved);
	for (unsigned round = 0; round < 2; round++) {
		u16 used_seen = g.rx[0].used_seen, free_count = g.rx[0].free_count;

		ng_restore(&g, &saved);
		ng_settle(&g);
		assert_int_equal(g.dev->queue[0].in_flight_count, held);
		/* Every buffer is filled, the held ones too. */
		total = 0;
		for (u32 i = 0; g.rx[0].free_count < g.rx[0].size; i++) {
			ng_host_frame(&g, 100, i);
			NG_UNTIL(&g, vqb_used(&g.rx[0], &head, &got));
			assert_int_equal(got, 112);
			total++;
		}
		assert_int_equal(total, g.rx[0].size - free_count);
		assert_int_equal(g.dev->queue[0].in_flight_count, 0);
		if (round)
			break;
		/* Guest memory as it was, for the second clone. */
		g.rx[0].used_seen = used_seen;
		while (g.rx[0].free_count > free_count) {
			u16 h = g.rx[0].free[--g.rx[0].free_count];

			g.rx[0].chain_len[h] = 1;
			g.rx[0].chain[h][0] = h;
		}
		vqb_set_used_idx(&g.rx[0], used_seen);
	}
	enc_free(&saved);
	ng_finish(&g);
}

static void test_announce(void **state)
{
	struct ng g = {.features = NG_BASE | NET_F(GUEST_ANNOUNCE)};
	static const u8 mac[6] = {2, 9, 9, 9, 9, 9};
	struct enc saved = {0};
	unsigned irqs;

	ng_init(&g);
	assert_int_equal(ng_config(&g, 6, 2), VIRTIO_NET_S_LINK_UP);
	ng_save(&g, &saved);
	irqs = g.irqs;
	ng_restore(&g, &saved);
	ng_settle(&g);
	assert_true(g.irqs > irqs);
	assert_true(g.dev->interrupt_status & 2);
	assert_int_equal(ng_config(&g, 6, 2), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_ANNOUNCE, 0, NULL, 0), VIRTIO_NET_OK);
	assert_int_equal(ng_config(&g, 6, 2), VIRTIO_NET_S_LINK_UP);
	/* A clone gets an address of its own. */
	net_set_mac(g.dev, mac);
	assert_int_equal(ng_config(&g, 5, 1), 9);
	ng_frame_out(out, 60, 1);
	ng_send(&g, 0, NULL, out, 60);
	memcpy(out + 6, mac, 6);
	ng_send(&g, 0, NULL, out, 60);
	ng_settle(&g);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 60);
	assert_memory_equal(in + 6, mac, 6);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 0);
	/* Not to a driver that does not know of it. */
	enc_free(&saved);
	ng_finish(&g);
	g = (struct ng){0};
	saved = (struct enc){0};
	ng_init(&g);
	ng_save(&g, &saved);
	ng_restore(&g, &saved);
	assert_int_equal(ng_config(&g, 6, 2), VIRTIO_NET_S_LINK_UP);
	enc_free(&saved);
	ng_finish(&g);
}

/* The back end goes away: the driver is told, its frames come back, nothing turns. */
static void test_link_down(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	close(g.host[0]);
	NG_UNTIL(&g, !(ng_config(&g, 6, 2) & VIRTIO_NET_S_LINK_UP));
	assert_true(g.dev->interrupt_status & 2);
	for (unsigned i = 0; i < 100; i++) {
		ng_frame_out(out, 60, i);
		ng_send(&g, 0, NULL, out, 60);
	}
	ng_settle(&g);
	ng_sent(&g, 0);
	assert_int_equal(g.tx[0].free_count, g.tx[0].size);
	assert_int_equal(g.n->stats.tx_dropped, 100);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	g.host[0] = dup(0);
	ng_finish(&g);
}

/* Several queue pairs. */

static void test_pairs(void **state)
{
	struct ng g = {.pairs = 4, .features = NG_BASE | NET_F(MQ)};
	u16 n;
	u32 got;

	ng_init(&g);
	assert_int_equal(ng_config(&g, 8, 2), 4);
	/* One to begin with. */
	ng_frame_in(out, 100, 1);
	ng_host_send(&g, 1, NULL, out, 100);
	ng_settle(&g);
	assert_int_equal(ng_recv(&g, 1, NULL, in), 0);
	for (n = 0; n <= 6; n++) {
		u8 answer = ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2);

		assert_int_equal(answer, n < 1 || n > 4 ? VIRTIO_NET_ERR : VIRTIO_NET_OK);
	}
	n = 0x8000;
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_ERR);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 1), VIRTIO_NET_ERR);
	NG_UNTIL(&g, ng_recv(&g, 1, NULL, in) == 100);
	/* What comes by queue i of the TAP goes to pair i, and back. */
	for (unsigned i = 0; i < 40; i++) {
		ng_frame_in(out, 100 + i, i);
		ng_host_send(&g, i % 4, NULL, out, 100 + i);
		NG_UNTIL(&g, (got = ng_recv(&g, i % 4, NULL, in)) > 0);
		assert_int_equal(got, 100 + i);
		assert_memory_equal(in, out, got);
		ng_frame_out(out, 200 + i, i);
		ng_send(&g, i % 4, NULL, out, 200 + i);
		NG_UNTIL(&g, (got = ng_host_recv(&g, i % 4, NULL, in)) > 0);
		assert_memory_equal(in, out, got);
	}
	/* Two fewer: what comes to them waits. */
	n = 2;
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	ng_frame_in(out, 100, 1);
	ng_host_send(&g, 3, NULL, out, 100);
	ng_run_ms(&g, 10);
	assert_int_equal(ng_recv(&g, 3, NULL, in), 0);
	n = 4;
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	NG_UNTIL(&g, ng_recv(&g, 3, NULL, in) == 100);
	ng_finish(&g);
}

static void test_pairs_saved(void **state)
{
	struct ng g = {.pairs = 3, .features = NG_BASE | NET_F(MQ)};
	struct enc saved = {0};
	u16 n = 3;

	ng_init(&g);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	ng_save(&g, &saved);
	ng_restore(&g, &saved);
	ng_frame_in(out, 100, 1);
	ng_host_send(&g, 2, NULL, out, 100);
	NG_UNTIL(&g, ng_recv(&g, 2, NULL, in) == 100);
	/* A driver begins with one again. */
	ng_settle(&g);
	drv_reset(g.dev);
	ng_driver(&g, 8);
	ng_host_send(&g, 2, NULL, out, 100);
	ng_run_ms(&g, 10);
	assert_int_equal(ng_recv(&g, 2, NULL, in), 0);
	enc_free(&saved);
	ng_finish(&g);
}

/* Without MQ there is one pair, and the control queue is the third. */
static void test_pairs_unknown_to_driver(void **state)
{
	struct ng g = {.pairs = 4, .features = NG_BASE | NET_F(GUEST_ANNOUNCE)};

	ng_init(&g);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_ANNOUNCE, 0, NULL, 0), VIRTIO_NET_OK);
	ng_host_frame(&g, 100, 1);
	ng_expect_frame(&g, 100, 1);
	ng_finish(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_paused_in_flight),
		cmocka_unit_test(test_snapshot_with_buffers_held),
		cmocka_unit_test(test_announce),
		cmocka_unit_test(test_link_down),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_pairs_saved),
		cmocka_unit_test(test_pairs_unknown_to_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
