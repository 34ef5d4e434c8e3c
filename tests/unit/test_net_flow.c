/* SPDX-License-Identifier: Apache-2.0 */
/* test_net_flow.c - what the network device is for: frames both ways, until there is a reason. */
#include "tests/lib/net_guest.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/base/clock.h"

#ifdef __SANITIZE_THREAD__
/* Guest memory may be written while it is copied; and what the kernel reads nobody instruments. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:iov_to_host\nrace:iov_from_host\nrace:span_copy_out\n";
}
#endif

static u8 out[NG_FRAME], in[NG_FRAME];

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
		ng_host_frame(&g, 100 + i, i);
	ng_settle(&g);
	for (u32 i = 0; i < 30; i++)
		ng_expect_frame(&g, 100 + i, i);
	assert_true(g.irqs <= irqs + 6);
	ng_finish(&g);
}

static void test_to_guest(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	for (u32 i = 0; i < 300; i++) {
		ng_host_frame(&g, 14 + i * 6, i);
		ng_expect_frame(&g, 14 + i * 6, i);
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
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 256};
	u32 sent = 0, got = 0, len[1000];

	ng_make(&g, NULL);
	ng_driver(&g, 256);
	for (u32 i = 0; i < 1000; i++)
		len[i] = 14 + (i % 7 == 3 || i / 100 % 3 == 1 ? i * 7919 % 65000 : i % 1500);
	while (got < 1000) {
		while (sent < 1000 && sent < got + 40) {
			ng_host_frame(&g, len[sent], sent);
			sent++;
			if (sent % 3 == 0)
				ng_turn(&g);
		}
		ng_expect_frame(&g, len[got], got);
		got++;
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	ng_finish(&g);
}

/* Long frames, all of a sudden, that need more buffers than the ring has: each gets its own. */
static void test_burst_of_long_frames(void **state)
{
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 256};

	ng_make(&g, NULL);
	ng_driver(&g, 256);
	for (unsigned round = 0; round < 5; round++) {
		/* 1 + 2 + 4 + 8 + 16 short ones, so that 16 are read at once into a buffer each. */
		for (u32 i = 0; i < 31; i++)
			ng_host_frame(&g, 100, i);
		for (u32 i = 0; i < 30; i++)
			ng_host_frame(&g, 60000 + i, i);
		for (u32 i = 0; i < 31; i++)
			ng_expect_frame(&g, 100, i);
		for (u32 i = 0; i < 30; i++)
			ng_expect_frame(&g, 60000 + i, i);
	}
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

/* N09: the host floods, the guest has no buffers. Its kick comes after the frames, or before. */
static void test_n09_starved_then_kick(void **state)
{
	struct ng g = {.no_refill = true};
	u32 sent = 0;

	ng_make(&g, NULL);
	ng_driver(&g, 20);
	ng_settle(&g);
	for (; sent < 100; sent++)
		ng_host_frame(&g, 200, sent);
	ng_settle(&g);
	for (u32 i = 0; i < 20; i++)
		ng_expect_frame(&g, 200, i);
	/* The TAP has more, and nobody looks. */
	assert_int_equal(ng_run_ms(&g, 50), 0);
	assert_int_equal(g.n->stats.rx_starved, 1);
	assert_int_equal(g.dev->queue[0].in_flight_count, 0);
	assert_int_equal(vqb_used_flags(&g.rx[0]), 0); /* a kick, please */
	for (u32 i = 20; i < 100; i++) {
		ng_add_rx(&g, 0, 1);
		ng_expect_frame(&g, 200, i);
	}
	ng_settle(&g);
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

static void test_n09_kick_then_frames(void **state)
{
	struct ng g = {.no_refill = true};

	ng_make(&g, NULL);
	ng_driver(&g, 0);
	ng_settle(&g);
	assert_false(g.n->rx[0]->poll_op.busy); /* frames could not go anywhere */
	for (u32 i = 0; i < 50; i++) {
		ng_add_rx(&g, 0, 1);
		ng_settle(&g);
		assert_true(g.n->rx[0]->poll_op.busy);
		ng_host_frame(&g, 300, i);
		ng_expect_frame(&g, 300, i);
		ng_settle(&g);
		assert_int_equal(ng_run_ms(&g, 2), 0);
	}
	ng_finish(&g);
}

/* Frames first, before there is a driver at all. */
static void test_n09_frames_before_driver(void **state)
{
	struct ng g = {0};

	ng_make(&g, NULL);
	for (u32 i = 0; i < 10; i++)
		ng_host_frame(&g, 300, i);
	assert_true(ng_run_ms(&g, 20) <= 1);
	ng_driver(&g, 16);
	for (u32 i = 0; i < 10; i++)
		ng_expect_frame(&g, 300, i);
	ng_finish(&g);
}

/* A frame that needs more buffers than there are waits, with those behind it. */
static void half_a_frame(u64 more_features)
{
	struct ng g = {.features = NG_GSO | more_features, .offloads = NET_OFFLOADS,
		.no_refill = true};

	ng_make(&g, NULL);
	ng_driver(&g, 3);
	ng_host_frame(&g, 10000, 1);
	ng_host_frame(&g, 300, 2);
	ng_settle(&g);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ng_recv(&g, 0, NULL, in), 0);
		ng_add_rx(&g, 0, 1);
		ng_settle(&g);
	}
	ng_expect_frame(&g, 10000, 1);
	ng_add_rx(&g, 0, 1);
	ng_expect_frame(&g, 300, 2);
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

static void test_n09_half_a_frame(void **state)
{
	half_a_frame(0);
}

/* Here a kick is asked for anew after each buffer that was too little. */
static void test_n09_half_a_frame_event_idx(void **state)
{
	half_a_frame(VIRTIO_MASK_EVENT_IDX);
}

/* Two descriptors a buffer: half a ring of them is all there can be, and no frame waits for more. */
static void test_n09_more_than_all(void **state)
{
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 16};
	u16 head;
	u32 len;

	ng_make(&g, NULL);
	ng_driver(&g, 0);
	for (u32 i = 0; i < 8; i++) {
		u64 gpa = 0x180000 + i * 0x1000;

		vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(gpa, 12), VQB_W(gpa + 12, 500)}, 2);
	}
	drv_kick(g.dev, 0);
	ng_host_frame(&g, 7 * 512 + 501, 1);
	ng_host_frame(&g, 7 * 512 + 500, 2);
	for (u32 i = 0; i < 8; i++) {
		NG_UNTIL(&g, vqb_used(&g.rx[0], &head, &len));
		assert_int_equal(len, 512);
	}
	assert_int_equal(g.n->stats.rx_dropped, 1);
	ng_finish(&g);
}

/* The host takes no more. How many frames went, with others still in the queue. */
static u32 block(struct ng *g, u32 len)
{
	u32 sent = 0;

	while (!g->n->tx[0]->poll_op.busy) {
		ng_frame_out(out, len, sent);
		ng_send(g, 0, NULL, out, len);
		sent++;
		ng_turn(g);
	}
	for (unsigned i = 0; i < 20; i++) {
		ng_frame_out(out, len, sent);
		ng_send(g, 0, NULL, out, len);
		sent++;
	}
	ng_settle(g);
	assert_true(vq_pending(&g->dev->queue[1]));
	assert_int_equal(g->dev->queue[1].in_flight_count, 0);
	assert_int_equal(ng_run_ms(g, 20), 0);
	return sent;
}

static void test_host_takes_no_more(void **state)
{
	struct ng g = {0};
	u32 sent, got;

	ng_init(&g);
	sent = block(&g, 60000);
	for (u32 i = 0; i < sent; i++) {
		NG_UNTIL(&g, (got = ng_host_recv(&g, 0, NULL, in)) > 0);
		assert_int_equal(got, 60000);
		ng_frame_out(out, 60000, i);
		assert_memory_equal(in, out, got);
	}
	ng_settle(&g);
	ng_sent(&g, 0);
	assert_int_equal(g.tx[0].free_count, g.tx[0].size);
	assert_int_equal(g.n->stats.tx_frames, sent);
	assert_int_equal(g.n->stats.tx_dropped, 0);
	ng_finish(&g);
}

/* The driver goes away while the host takes nothing. */
/* Frames that are dropped between others come back once, and those in their turn. */
static void test_n03_dropped_between_blocked(void **state)
{
	const struct virtio_net_hdr_v1 bad = {.gso_type = 0x7f};
	struct ng g = {0};
	u32 sent = 0;

	ng_init(&g);
	while (!g.n->tx[0]->poll_op.busy) {
		for (unsigned i = 0; i < 8; i++, sent++) {
			ng_frame_out(out, 60000, sent);
			ng_send(&g, 0, sent % 2 ? &bad : NULL, out, 60000);
		}
		ng_turn(&g);
	}
	for (u32 i = 0; i < sent; i += 2) {
		NG_UNTIL(&g, ng_host_recv(&g, 0, NULL, in) == 60000);
		ng_frame_out(out, 60000, i);
		assert_memory_equal(in, out, 60000);
	}
	ng_settle(&g);
	ng_sent(&g, 0);
	assert_int_equal(g.tx[0].free_count, g.tx[0].size);
	assert_int_equal(g.n->stats.tx_frames, sent / 2);
	assert_int_equal(g.n->stats.tx_malformed, sent / 2);
	ng_finish(&g);
}

static void test_reset_while_blocked(void **state)
{
	struct ng g = {0};
	u32 got = 0;

	ng_init(&g);
	block(&g, 60000);
	drv_reset(g.dev);
	ng_settle(&g);
	guest_fill(&g.ram, 0x100000, 0x1000000, 0x55); /* where the frames were */
	ng_driver(&g, 16);
	ng_frame_out(out, 77, 7);
	ng_send(&g, 0, NULL, out, 77);
	ng_settle(&g);
	/* The frames of the old life end, then comes the new one's. */
	while (got != 77) {
		NG_UNTIL(&g, (got = ng_host_recv(&g, 0, NULL, in)) > 0);
		assert_true(got == 60000 || got == 77);
	}
	assert_memory_equal(in, out, 77);
	ng_finish(&g);
}

static void test_snapshot_while_blocked(void **state)
{
	struct ng g = {0};
	struct enc saved = {0};
	u32 sent, waiting, got;

	ng_init(&g);
	sent = block(&g, 60000);
	ng_sent(&g, 0);
	waiting = g.tx[0].size - g.tx[0].free_count;
	ng_save(&g, &saved);
	ng_restore(&g, &saved);
	/* What the host had not taken goes to the new one. */
	for (u32 i = sent - waiting; i < sent; i++) {
		NG_UNTIL(&g, (got = ng_host_recv(&g, 0, NULL, in)) > 0);
		ng_frame_out(out, 60000, i);
		assert_int_equal(got, 60000);
		assert_memory_equal(in, out, got);
	}
	ng_settle(&g);
	assert_int_equal(ng_sent(&g, 0), waiting);
	enc_free(&saved);
	ng_finish(&g);
}

/* Rate limits. */

static void test_limit_ops_to_host(void **state)
{
	struct ng g = {.cfg.tx.ops = {.size = 5, .refill_ns = 50000000}};
	u32 got = 0;
	u64 begin;

	ng_init(&g);
	begin = ng_now_ms();
	for (u32 i = 0; i < 20; i++) {
		ng_frame_out(out, 100, i);
		ng_send(&g, 0, NULL, out, 100);
	}
	ng_settle(&g);
	while (ng_host_recv(&g, 0, NULL, in))
		got++;
	assert_true(got >= 5 && got < 20);
	assert_int_equal(g.dev->queue[1].in_flight_count, 0);
	for (; got < 20; got++) {
		NG_UNTIL(&g, ng_host_recv(&g, 0, NULL, in) > 0);
		ng_frame_out(out, 100, got);
		assert_memory_equal(in, out, 100);
	}
	/* 15 frames at 100 a second. */
	assert_true(ng_now_ms() - begin >= 140);
	assert_true(g.n->tx_limit.throttled > 0);
	ng_run_ms(&g, 60);
	assert_int_equal(ng_run_ms(&g, 100), 0); /* no timer goes on */
	ng_finish(&g);
}

static void test_limit_bytes_to_guest(void **state)
{
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 256,
		.cfg.rx.bytes = {.size = 40000, .refill_ns = 40000000}};
	struct limit_config none = {0};
	u64 begin;

	ng_make(&g, NULL);
	ng_driver(&g, 256);
	begin = ng_now_ms();
	for (u32 i = 0; i < 20; i++)
		ng_host_frame(&g, 10000, i);
	for (u32 i = 0; i < 16; i++)
		ng_expect_frame(&g, 10000, i);
	/* 120000 bytes at 1000 a millisecond. */
	assert_true(ng_now_ms() - begin >= 115);
	assert_true(g.n->rx_limit.throttled > 0);
	/* Something larger than the bucket passes too. */
	ng_host_frame(&g, 60000, 9);
	for (u32 i = 16; i < 20; i++)
		ng_expect_frame(&g, 10000, i);
	ng_expect_frame(&g, 60000, 9);
	/* Lifting the limit ends the wait. */
	limit_init(&g.n->rx_limit, &(struct limit_config){.ops = {1, 3600000000000ull, 0}},
		monotonic_ns());
	g.n->rx_limit.ops.tokens = 0;
	ng_host_frame(&g, 500, 1);
	ng_run_ms(&g, 20);
	assert_int_equal(ng_recv(&g, 0, NULL, in), 0);
	net_set_limits(g.dev, &none, &none);
	ng_expect_frame(&g, 500, 1);
	assert_int_equal(g.n->stats.rx_dropped, 0);
	ng_finish(&g);
}

/* What waits in one direction does not disturb what waits in the other. */
static void test_limits_wait_quietly(void **state)
{
	struct ng g = {.cfg.rx.ops = {.size = 1, .refill_ns = 300000000},
		.cfg.tx.ops = {.size = 1, .refill_ns = 600000000}};

	ng_init(&g);
	for (u32 i = 0; i < 3; i++) {
		ng_host_frame(&g, 100, i);
		ng_frame_out(out, 100, i);
		ng_send(&g, 0, NULL, out, 100);
	}
	ng_settle(&g);
	ng_run_ms(&g, 500);
	assert_in_range(g.n->rx_limit.throttled, 1, 20);
	assert_in_range(g.n->tx_limit.throttled, 1, 20);
	ng_expect_frame(&g, 100, 0);
	ng_expect_frame(&g, 100, 1);
	ng_finish(&g);
}

static void test_limited_and_reset(void **state)
{
	struct ng g = {.cfg.rx.ops = {.size = 1, .refill_ns = 20000000},
		.cfg.tx.ops = {.size = 1, .refill_ns = 20000000}};

	ng_init(&g);
	for (u32 i = 0; i < 5; i++) {
		ng_host_frame(&g, 100, i);
		ng_frame_out(out, 100, i);
		ng_send(&g, 0, NULL, out, 100);
	}
	ng_settle(&g);
	drv_reset(g.dev);
	ng_driver(&g, 16);
	ng_run_ms(&g, 100);
	NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 100);
	ng_finish(&g);
}

/* Races with a vCPU. */

static void *reset_again_and_again(void *arg)
{
	struct ng *g = arg;

	for (unsigned i = 0; i < 300; i++) {
		drv_reset(g->dev);
		ng_driver(g, 32);
		for (unsigned k = 0; k < 4; k++) {
			vqb_add(&g->tx[0], (struct vqb_buf[]){VQB_R(0x100000, 100)}, 1);
			drv_kick(g->dev, 1);
		}
		usleep(i % 7 * 100);
	}
	return NULL;
}

static void test_reset_races_with_io(void **state)
{
	struct ng g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .no_refill = true};
	pthread_t vcpu;

	ng_init(&g);
	ng_frame_out(out, 88, 1);
	guest_fill(&g.ram, 0x100000, 12, 0);
	guest_write(&g.ram, 0x100000 + 12, out, 88);
	assert_int_equal(pthread_create(&vcpu, NULL, reset_again_and_again, &g), 0);
	for (u32 i = 0; pthread_tryjoin_np(vcpu, NULL); i++) {
		struct iovec iov[2] = {{(u8[12]){0}, 12}, {out, i % 3 ? 100 : 9000}};

		ng_frame_in(out, 9000, i);
		if (writev(g.host[0], iov, 2) < 0)
			assert_int_equal(errno, EAGAIN);
		ng_turn(&g);
		while (recv(g.host[0], in, sizeof(in), 0) > 0)
			;
	}
	ng_settle(&g); /* the loop is us: nobody else would end what is under way */
	drv_reset(g.dev);
	g.no_refill = false;
	ng_driver(&g, 32);
	/* What is left of the flood, then a frame of now. */
	for (unsigned idle = 0; idle < 3; idle++) {
		ng_settle(&g);
		while (ng_recv(&g, 0, NULL, in))
			idle = 0;
	}
	ng_host_frame(&g, 321, 5);
	ng_expect_frame(&g, 321, 5);
	ng_finish(&g);
}

/* The reads are queued, not submitted, when the reset comes. */
static void test_reset_in_flight(void **state)
{
	struct ng g = {0};
	pthread_t vcpu;

	ng_init(&g);
	ng_host_frame(&g, 100, 1);
	NG_UNTIL(&g, g.dev->io_count > 0);
	g.no_refill = true;
	assert_int_equal(pthread_create(&vcpu, NULL, reset_again_and_again, &g), 0);
	while (pthread_tryjoin_np(vcpu, NULL))
		ng_turn(&g);
	assert_int_equal(g.dev->stats.needs_reset, 0);
	ng_finish(&g);
}

/* A driver in its own thread, with every byte of every frame checked on both sides. */
struct traffic {
	struct ng g;
	u32 frames, got;
};

static void *drive(void *arg)
{
	struct traffic *t = arg;
	struct ng *g = &t->g;
	static u8 frame[NG_FRAME], want[NG_FRAME];
	u32 sent = 0, len;
	u16 head;

	while (sent < t->frames || t->got < t->frames) {
		u64 gpa = 0x100000;

		while (vqb_used(&g->tx[0], &head, &len))
			;
		if (sent < t->frames && g->tx[0].free_count) {
			len = 60 + sent * 7919 % 3000;
			gpa += (u64)NG_SLOT * g->tx[0].free[g->tx[0].free_count - 1];
			ng_frame_out(frame, len, sent);
			guest_fill(&g->ram, gpa, 12, 0);
			guest_write(&g->ram, gpa + 12, frame, len);
			vqb_add(&g->tx[0], (struct vqb_buf[]){VQB_R(gpa, 12 + len)}, 1);
			if (!vqb_used_flags(&g->tx[0]))
				drv_kick(g->dev, 1);
			sent++;
		}
		len = ng_recv(g, 0, NULL, frame);
		if (len) {
			assert_int_equal(len, 60 + t->got * 7919 % 30000);
			ng_frame_in(want, len, t->got);
			assert_memory_equal(frame, want, len);
			t->got++;
		} else {
			usleep(10);
		}
	}
	return NULL;
}

static void test_driver_in_a_thread(void **state)
{
	struct traffic t = {.g = {.features = NG_GSO, .offloads = NET_OFFLOADS, .rx_size = 128},
		.frames = 3000};
	struct ng *g = &t.g;
	u32 sent = 0, got = 0, len;
	pthread_t vcpu;

	ng_make(g, NULL);
	ng_driver(g, 128);
	ng_settle(g);
	assert_int_equal(pthread_create(&vcpu, NULL, drive, &t), 0);
	while (pthread_tryjoin_np(vcpu, NULL)) {
		if (sent < t.frames) {
			struct iovec iov[2] = {{(u8[12]){0}, 12}, {out, 60 + sent * 7919 % 30000}};

			ng_frame_in(out, (u32)iov[1].iov_len, sent);
			sent += writev(g->host[0], iov, 2) > 0;
		}
		ng_turn(g);
		len = ng_host_recv(g, 0, NULL, in);
		if (len) {
			assert_int_equal(len, 60 + got * 7919 % 3000);
			ng_frame_out(out, len, got);
			assert_memory_equal(in, out, len);
			got++;
		}
	}
	while (got < t.frames) {
		NG_UNTIL(g, (len = ng_host_recv(g, 0, NULL, in)) > 0);
		got++;
	}
	assert_int_equal(t.got, t.frames);
	assert_int_equal(g->n->stats.rx_dropped + g->n->stats.tx_dropped, 0);
	ng_finish(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		NG_BOTH(test_to_host),
		NG_BOTH(test_batches),
		NG_BOTH(test_to_guest),
		NG_BOTH(test_merge),
		NG_BOTH(test_burst_of_long_frames),
		NG_BOTH(test_n09_starved_then_kick),
		NG_BOTH(test_n09_kick_then_frames),
		NG_BOTH(test_n09_frames_before_driver),
		NG_BOTH(test_n09_half_a_frame),
		NG_BOTH(test_n09_more_than_all),
		NG_BOTH(test_n09_half_a_frame_event_idx),
		NG_BOTH(test_host_takes_no_more),
		NG_BOTH(test_n03_dropped_between_blocked),
		NG_BOTH(test_reset_while_blocked),
		NG_BOTH(test_snapshot_while_blocked),
		NG_BOTH(test_limit_ops_to_host),
		NG_BOTH(test_limit_bytes_to_guest),
		NG_BOTH(test_limits_wait_quietly),
		NG_BOTH(test_limited_and_reset),
		NG_BOTH(test_reset_races_with_io),
		NG_BOTH(test_reset_in_flight),
		NG_BOTH(test_driver_in_a_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
