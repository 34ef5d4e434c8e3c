/* SPDX-License-Identifier: Apache-2.0 */
/* test_vsock_flow.c - what vsock is for: bytes both ways, until a reset. */
#include "tests/lib/vsock_guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/vsock_int.h"

#define OP(name)  VIRTIO_VSOCK_OP_##name
#define BULK      (8u << 20)

static struct vg_pkt p;

/* @stall: the host reads nothing every other while, so that the device must keep data. */
static void guest_to_host(bool stall)
{
	static u8 data[VSOCK_PACKET_MAX];
	struct vg g = {0};
	u32 sent = 0, got = 0, fwd = 0, alloc, turn = 0, n, port;
	bool kept = false;
	const struct vsock *v;
	int fd;

	vg_init(&g);
	v = container_of(g.dev, const struct vsock, dev);
	fd = vg_open_host(&g, 9, &port);
	alloc = VSOCK_TX_BUF_WIDE;
	while (got < BULK) {
		n = 1 + sent * 7919u % VSOCK_PACKET_MAX;
		if (n > BULK - sent)
			n = BULK - sent;
		if (n && sent + n - fwd <= alloc) {
			vg_make_bytes(data, sent, n);
			vg_send(&g, 9, port, OP(RW), data, n);
			sent += n;
		} else {
			vg_turn(&g);
		}
		kept |= TAILQ_FIRST(&v->conns)->buf_len > 0;
		while (vg_recv(&g, &p)) {
			assert_int_equal(p.h.op, OP(CREDIT_UPDATE));
			assert_int_equal(p.h.buf_alloc, alloc);
			fwd = p.h.fwd_cnt;
			assert_true(fwd <= sent);
		}
		if (!stall || turn++ / 64 % 2)
			got += vg_drain(fd, got);
	}
	assert_int_equal(sent, BULK);
	if (stall)
		assert_true(kept);
	vg_settle(&g);
	assert_null(TAILQ_FIRST(&v->conns)->buf); /* nothing is held while it is idle */
	vg_expect_none(&g);
	close(fd);
	vg_finish(&g);
}

/* Newer Linux has no more under way than its own receive buffer would hold. */
static void test_guest_that_uses_less_than_its_credit(void **state)
{
	static u8 data[VSOCK_PACKET_MAX];
	struct vg g = {0};
	u32 sent = 0, got = 0, fwd = 0, port;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	while (sent < BULK) {
		while (sent - fwd + sizeof(data) > VG_WINDOW) {
			VG_UNTIL(&g, (got += vg_drain(fd, got), vg_recv(&g, &p)));
			assert_int_equal(p.h.op, OP(CREDIT_UPDATE));
			fwd = p.h.fwd_cnt;
		}
		vg_make_bytes(data, sent, sizeof(data));
		vg_send(&g, 9, port, OP(RW), data, sizeof(data));
		sent += (u32)sizeof(data);
	}
	close(fd);
	vg_finish(&g);
}

static void test_bulk_guest_to_host(void **state)
{
	guest_to_host(false);
}

static void test_bulk_guest_to_slow_host(void **state)
{
	guest_to_host(true);
}

static void test_bulk_host_to_guest(void **state)
{
	static u8 data[30000];
	struct virtio_vsock_hdr h;
	struct vg g = {0};
	u32 sent = 0, got = 0, told = 0, packets = 0, port;
	ssize_t n;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	while (got < BULK) {
		vg_make_bytes(data, sent, sizeof(data));
		n = sent < BULK ? (ssize_t)(BULK - sent) : 0;
		if (n > (ssize_t)sizeof(data))
			n = sizeof(data);
		if (n)
			n = send(fd, data, (size_t)n, MSG_NOSIGNAL);
		if (n > 0)
			sent += (u32)n;
		vg_turn(&g);
		while (vg_recv(&g, &p)) {
			if (p.h.op == OP(CREDIT_REQUEST))
				continue;
			assert_int_equal(p.h.op, OP(RW));
			vg_check_bytes(p.data, got, p.h.len);
			got += p.h.len;
			packets++;
			assert_true(got - told <= VG_WINDOW);
		}
		if (got - told > VG_WINDOW / 2) {
			h = vg_hdr(9, port, OP(CREDIT_UPDATE));
			h.fwd_cnt = told = got;
			vg_send_hdr(&g, &h, NULL, 0);
		}
	}
	assert_int_equal(got, BULK);
	/* Buffers were filled, not sprinkled. */
	assert_true(packets < 2 * BULK / (VG_BUF - VG_HDR));
	close(fd);
	vg_finish(&g);
}

/* A guest that gives buffers back 32 at a time, and credit for what came, counted by connection. */
struct taker {
	u32 first_port, got[24];
	u64 total;
	unsigned buffers;
};

static bool take(struct vg *g, struct taker *t)
{
	struct virtio_vsock_hdr h;
	u32 i;

	if (!vg_recv(g, &p))
		return false;
	if (++t->buffers % 32 == 0)
		vg_add_rx(g, 32);
	i = p.h.src_port - t->first_port;
	assert_true(i < ARRAY_SIZE(t->got));
	if (p.h.op != OP(RW) && p.h.op != OP(CREDIT_REQUEST))
		fail_msg("op %u", p.h.op);
	t->got[i] += p.h.len;
	t->total += p.h.len;
	h = vg_hdr(9, p.h.src_port, OP(CREDIT_UPDATE));
	h.fwd_cnt = t->got[i];
	if (p.h.op == OP(CREDIT_REQUEST) || t->got[i] % (VG_WINDOW / 4) < p.h.len)
		vg_send_hdr(g, &h, NULL, 0);
	return true;
}

/*
 * 20 hosts that send as fast as they can, and one that asks a question now and then: they share
 * evenly, and the question waits for what is in the guest's buffers and one turn, not for all.
 */
static void test_fair_between_connections(void **state)
{
	enum { BUSY = 20, QUESTIONS = 200 };
	static u8 data[100000];
	struct vg g = {0};
	struct taker t = {0};
	u32 port, most = 0, least = UINT32_MAX;
	int fd[BUSY + 1];

	vg_init(&g);
	for (u32 i = 0; i <= BUSY; i++) {
		fd[i] = vg_open_host(&g, 9, &port);
		t.first_port = t.first_port ? t.first_port : port;
	}
	g.no_refill = true;
	for (u32 asked = 0; asked < QUESTIONS; asked++) {
		u64 before;

		for (u32 i = 0; i < BUSY; i++)
			send(fd[i], data, sizeof(data), MSG_NOSIGNAL);
		for (u32 i = 0; i < asked % 50; i++) {
			vg_turn(&g);
			take(&g, &t);
		}
		before = t.total;
		vg_write(fd[BUSY], "?", 1);
		VG_UNTIL(&g, (take(&g, &t), t.got[BUSY] > asked));
		if (t.total - before > 64 * VG_BUF + 2 * VSOCK_PACKET_MAX)
			fail_msg("question %u came after %llu bytes", asked,
				(unsigned long long)(t.total - before));
	}
	for (u32 i = 0; i < BUSY; i++) {
		most = t.got[i] > most ? t.got[i] : most;
		least = t.got[i] < least ? t.got[i] : least;
	}
	assert_true(least > VSOCK_PACKET_MAX);
	if (most > 2 * least)
		fail_msg("one got %u bytes, another %u", most, least);
	for (u32 i = 0; i <= BUSY; i++)
		close(fd[i]);
	vg_finish(&g);
}

static void test_idle_costs_nothing(void **state)
{
	struct vg g = {0};
	unsigned irqs;
	u32 port[20];
	int fd[20];

	vg_init(&g);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = vg_open_host(&g, 9, &port[i]);
	vg_settle(&g);
	irqs = g.irqs;
	assert_int_equal(vg_run_ms(&g, 200), 0);
	assert_int_equal(g.irqs, irqs);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	vg_finish(&g);
}

/* A driver that sets up no RX queue can be told nothing, and that is no reason to keep trying. */
static void test_no_rx_queue(void **state)
{
	struct vg g = {.no_rx = true};

	vg_make(&g, NULL);
	vg_driver(&g, 0);
	vg_run_ms(&g, 20);
	vg_send(&g, 9, 10, OP(RW), NULL, 0); /* of no connection: an RST is due */
	vg_run_ms(&g, 20);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	vg_finish(&g);
}

/* A flood for a guest that takes nothing: no work, no memory, and all of it comes later. */
static void test_no_rx_buffers(void **state)
{
	static u8 data[65536];
	struct vg g = {0};
	u32 got = 0, port;
	ssize_t n;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_make_bytes(data, 0, sizeof(data));
	g.no_refill = true;
	n = send(fd, data, sizeof(data), MSG_NOSIGNAL);
	assert_true(n > 0);
	vg_settle(&g);
	while (vqb_used_waiting(&g.rx)) {
		assert_true(vg_recv(&g, &p));
		vg_check_bytes(p.data, got, p.h.len);
		got += p.h.len;
		vg_settle(&g);
	}
	while (send(fd, data, sizeof(data), MSG_NOSIGNAL) > 0)
		;
	vg_settle(&g);
	while (vg_recv(&g, &p))
		got += p.h.len;
	vg_settle(&g);
	while (vg_recv(&g, &p))
		got += p.h.len;
	assert_int_equal(vg_run_ms(&g, 50), 0);
	/* The kick for new buffers is asked for, and enough. */
	g.no_refill = false;
	assert_int_equal(vqb_used_flags(&g.rx), 0);
	vg_add_rx(&g, 4);
	vg_expect(&g, &p, 9, port, OP(RW));
	close(fd);
	vg_finish(&g);
}

/* Kicks are not missed with EVENT_IDX either, where the driver's wish is an index. */
static void test_event_idx(void **state)
{
	struct vg g = {.event_idx = true};
	char got[8];
	u32 port;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	for (u32 i = 0; i < 1000; i++) {
		vg_write(fd, &i, sizeof(i));
		vg_expect(&g, &p, 9, port, OP(RW));
		assert_memory_equal(p.data, &i, sizeof(i));
		vg_send(&g, 9, port, OP(RW), &i, sizeof(i));
		vg_read(&g, fd, got, sizeof(i));
		assert_memory_equal(got, &i, sizeof(i));
	}
	close(fd);
	vg_finish(&g);
}

static void test_reset_closes_connections(void **state)
{
	struct vg g = {.wait_ms = 1000};
	u32 port;
	int open, waiting, early;

	vg_init(&g);
	open = vg_open_host(&g, 9, &port);
	waiting = vg_client(&g, "CONNECT 10\n");
	vg_expect(&g, &p, 10, port + 1, OP(REQUEST));
	early = vg_client(&g, "CONN");
	vg_settle(&g);
	for (unsigned i = 0; i < 3; i++) {
		drv_reset(g.dev);
		vg_settle(&g);
	}
	vg_read_end(&g, open);
	assert_int_equal(vsock_conn_count(g.dev), 2);
	/* Those that the old driver did not accept are for the new one. */
	vg_driver(&g, 64);
	vg_expect(&g, &p, 10, port + 1, OP(REQUEST));
	vg_write(early, "ECT 11\n", 7);
	vg_expect(&g, &p, 11, port + 2, OP(REQUEST));
	/* A reset that the loop sees only after the new driver is up. */
	drv_reset(g.dev);
	vg_driver(&g, 64);
	vg_settle(&g);
	vg_expect(&g, &p, 10, port + 1, OP(REQUEST));
	vg_expect(&g, &p, 11, port + 2, OP(REQUEST));
	vg_expect_none(&g);
	close(open);
	close(waiting);
	close(early);
	vg_finish(&g);
}

static void *reset_again_and_again(void *arg)
{
	struct vg *g = arg;

	for (unsigned i = 0; i < 300; i++) {
		drv_reset(g->dev);
		vg_driver(g, 64);
		usleep(i % 7 * 100);
	}
	return NULL;
}

/* A vCPU resets all the time, while the loop moves data of connections it has. */
static void test_reset_races_with_io(void **state)
{
	static u8 data[20000];
	struct vg g = {.wait_ms = 1000};
	pthread_t vcpu;
	u32 port;
	int fd;

	vg_init(&g);
	assert_int_equal(pthread_create(&vcpu, NULL, reset_again_and_again, &g), 0);
	for (unsigned i = 0; pthread_tryjoin_np(vcpu, NULL); i++) {
		fd = vg_client(&g, "CONNECT 9\n");
		vg_turn(&g);
		if (i % 50 == 0)
			vg_settle(&g);
		send(fd, data, sizeof(data), MSG_NOSIGNAL);
		vg_turn(&g);
		close(fd);
		usleep(50);
	}
	vg_settle(&g);
	drv_reset(g.dev);
	vg_driver(&g, 64);
	VG_UNTIL(&g, (vg_recv(&g, &p) ? vg_send(&g, p.h.dst_port, p.h.src_port, OP(RST), NULL, 0)
				      : (void)0, vsock_conn_count(g.dev) == 0));
	fd = vg_open_host(&g, 9, &port);
	close(fd);
	vg_finish(&g);
}

static void test_reset_in_flight(void **state)
{
	static u8 data[4000];
	struct vg g = {0};
	pthread_t vcpu;
	u32 port;
	int fd;

	/* The read into the guest's buffers is queued, not submitted, when the reset comes. */
	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_settle(&g);
	vg_write(fd, data, sizeof(data));
	VG_UNTIL(&g, g.dev->io_count == 1);
	assert_int_equal(pthread_create(&vcpu, NULL, reset_again_and_again, &g), 0);
	while (pthread_tryjoin_np(vcpu, NULL))
		vg_turn(&g);
	vg_read_end(&g, fd);
	close(fd);
	vg_finish(&g);
}

static void test_paused(void **state)
{
	struct vg g = {.wait_ms = 1000};
	u32 port;
	u16 used;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_settle(&g);
	virtio_freeze(g.dev);
	used = vqb_used_idx(&g.rx);
	vg_write(fd, "data", 4);
	vg_settle(&g);
	assert_int_equal(vg_run_ms(&g, 30), 0);
	assert_int_equal(vqb_used_idx(&g.rx), used); /* its memory stands still */
	virtio_thaw(g.dev);
	vg_expect(&g, &p, 9, port, OP(RW));
	assert_int_equal(p.h.len, 4);
	close(fd);
	vg_finish(&g);
}

/* Ends while everything is under way: nothing leaks, nothing is used after it is freed. */
static void test_destroy_in_the_middle(void **state)
{
	static u8 data[VSOCK_PACKET_MAX];
	struct vg g = {.wait_ms = 1000};
	int fd[4];
	u32 port;

	vg_init(&g);
	fd[0] = vg_open_host(&g, 9, &port);
	fd[1] = vg_open_guest(&g, 30, 40);
	fd[2] = vg_client(&g, "CONNECT 10\n");
	fd[3] = vg_client(&g, "CON");
	vg_settle(&g);
	for (unsigned i = 0; i < 10; i++)
		vg_send(&g, 30, 40, OP(RW), data, sizeof(data));
	vg_write(fd[0], data, 5000);
	vg_turn(&g);
	vg_finish(&g);
	for (unsigned i = 0; i < 4; i++)
		close(fd[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_that_uses_less_than_its_credit),
		cmocka_unit_test(test_bulk_guest_to_host),
		cmocka_unit_test(test_bulk_guest_to_slow_host),
		cmocka_unit_test(test_bulk_host_to_guest),
		cmocka_unit_test(test_fair_between_connections),
		cmocka_unit_test(test_idle_costs_nothing),
		cmocka_unit_test(test_no_rx_queue),
		cmocka_unit_test(test_no_rx_buffers),
		cmocka_unit_test(test_event_idx),
		cmocka_unit_test(test_reset_closes_connections),
		cmocka_unit_test(test_reset_races_with_io),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_destroy_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
