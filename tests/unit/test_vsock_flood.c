/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vsock_flood.c - hostile-cases V08 to V10: too much of everything. Counted are descriptors,
 * bytes held, and what the loop is woken for (vg_run_ms()).
 */
#include "tests/lib/vsock_guest.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"
#include "virtio/vsock_int.h"

#define OP(name) VIRTIO_VSOCK_OP_##name

static struct vsock_stats stats_of(const struct vg *g)
{
	struct vsock_stats s;

	vsock_stats(g->dev, &s);
	return s;
}

static void allow_descriptors(void)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = l.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	if (l.rlim_cur < 2 * VSOCK_CONNS_MAX + 100)
		skip();
}

static void test_v08_connection_flood(void **state)
{
	static struct vg_pkt p;
	static int fd[VSOCK_CONNS_MAX];
	struct vg g = {0};
	unsigned before;
	int lfd, late;

	allow_descriptors();
	vg_init(&g);
	lfd = vg_listen(&g, 20);
	before = fd_count();
	for (u32 i = 0; i < VSOCK_CONNS_MAX; i++) {
		vg_send(&g, i, 20, OP(REQUEST), NULL, 0);
		vg_expect(&g, &p, i, 20, OP(RESPONSE));
		fd[i] = vg_accept(&g, lfd);
	}
	assert_int_equal(vsock_conn_count(g.dev), VSOCK_CONNS_MAX);
	assert_int_equal(fd_count(), before + 2 * VSOCK_CONNS_MAX);
	/* Full: the guest is refused, and so is the host. */
	for (u32 i = 0; i < 300; i++) {
		vg_send(&g, 5000 + i, 20, OP(REQUEST), NULL, 0);
		vg_expect(&g, &p, 5000 + i, 20, OP(RST));
	}
	late = vg_client(&g, "CONNECT 1\n");
	vg_read_end(&g, late);
	close(late);
	assert_int_equal(fd_count(), before + 2 * VSOCK_CONNS_MAX);
	assert_int_equal(stats_of(&g).conns_refused, 301);
	/* All are usable; then all end. */
	for (u32 i = 0; i < VSOCK_CONNS_MAX; i++)
		vg_write(fd[i], &i, sizeof(i));
	for (u32 i = 0; i < VSOCK_CONNS_MAX; i++) {
		u32 number;

		VG_UNTIL(&g, vg_recv(&g, &p));
		assert_int_equal(p.h.op, OP(RW));
		memcpy(&number, p.data, sizeof(number));
		assert_int_equal(number, p.h.dst_port);
		vg_send(&g, number, 20, OP(RST), NULL, 0);
	}
	VG_UNTIL(&g, vsock_conn_count(g.dev) == 0);
	for (u32 i = 0; i < VSOCK_CONNS_MAX; i++)
		close(fd[i]);
	vg_settle(&g);
	assert_int_equal(fd_count(), before);
	vg_assert_alive(&g);
	close(lfd);
	vg_finish(&g);
}

/* Hosts that connect and say nothing, as many as there can be. */
static void test_v08_silent_clients(void **state)
{
	static int fd[VSOCK_CONNS_MAX];
	struct vg g = {0};
	unsigned before;
	u64 begin;

	allow_descriptors();
	vg_init(&g);
	before = fd_count();
	begin = vg_now_ms();
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		fd[i] = vg_client(&g, "CONN");
		vg_turn(&g);
	}
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), VSOCK_CONNS_MAX);
	/* One timer for all of them. */
	if (vg_now_ms() - begin < VSOCK_LINGER_MS - 200)
		assert_int_equal(vg_run_ms(&g, 50), 0);
	VG_UNTIL(&g, vsock_conn_count(g.dev) == 0);
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++)
		close(fd[i]);
	assert_int_equal(fd_count(), before);
	vg_assert_alive(&g);
	vg_finish(&g);
}

/* The same with good lines, for a port where nobody listens: what is asked again is bounded. */
static void test_v08_parked_clients(void **state)
{
	enum { CLIENTS = 300, MS = 400 };
	static struct vg_pkt p;
	struct vg g = {.wait_ms = MS};
	unsigned asked = 0, before;
	int fd[CLIENTS];
	u64 begin;

	allow_descriptors();
	vg_init(&g);
	before = fd_count();
	begin = vg_now_ms();
	for (unsigned i = 0; i < CLIENTS; i++)
		fd[i] = vg_client(&g, "CONNECT 9\n");
	while (vsock_conn_count(g.dev) || vg_now_ms() < begin + MS / 2) {
		vg_turn(&g);
		while (vg_recv(&g, &p)) {
			assert_int_equal(p.h.op, OP(REQUEST));
			vg_send(&g, 9, p.h.src_port, OP(RST), NULL, 0);
			asked++;
		}
		assert_true(vg_now_ms() < begin + 20 * MS);
	}
	/* Some 5 times while the pause grows to VSOCK_BACKOFF_MAX_NS, and then each time after it. */
	assert_in_range(asked, CLIENTS, CLIENTS * (6 + (vg_now_ms() - begin) / 20));
	for (unsigned i = 0; i < CLIENTS; i++) {
		vg_read_end(&g, fd[i]);
		close(fd[i]);
	}
	assert_int_equal(fd_count(), before);
	vg_finish(&g);
}

static void test_v09_host_never_reads(void **state)
{
	static struct vg_pkt p;
	static u8 data[VSOCK_PACKET_MAX];
	struct virtio_vsock_hdr h = vg_hdr(10, 20, OP(RW));
	const struct vsock *v;
	u32 used = 0;
	struct vg g = {0};
	int fd;

	vg_init(&g);
	v = container_of(g.dev, const struct vsock, dev);
	fd = vg_open_guest(&g, 10, 20);
	h.len = sizeof(data);
	/* As much as credit allows: a window more than the kernel's socket takes. */
	for (u32 fwd = 0; used - fwd + h.len <= VSOCK_TX_BUF_WIDE; used += h.len) {
		vg_send_hdr(&g, &h, data, h.len);
		vg_settle(&g);
		while (vg_recv(&g, &p))
			fwd = p.h.fwd_cnt;
	}
	assert_true(TAILQ_FIRST(&v->conns)->buf_len > 0);
	assert_true(TAILQ_FIRST(&v->conns)->buf_len <= VSOCK_TX_BUF_WIDE);
	assert_int_equal(vg_run_ms(&g, 100), 0);
	/* Others are not disturbed. */
	vg_assert_alive(&g);
	/* It goes away with all that unread: the guest hears of it, and nothing spins. */
	close(fd);
	vg_expect(&g, &p, 10, 20, OP(RST));
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	vg_assert_alive(&g);
	vg_finish(&g);
}

static u64 bytes_held(const struct vsock *v)
{
	const struct vsock_conn *c;
	u64 n = 0;

	TAILQ_FOREACH (c, &v->conns, all)
		n += c->buf_len;
	return n;
}

/* A hundred hosts that never read, each with all that the guest has credit for. */
static void test_v09_bytes_held_are_bounded(void **state)
{
	enum { HOSTS = 100 };
	const u64 most = VSOCK_WIDE_CONNS * VSOCK_TX_BUF_WIDE +
			 (HOSTS - VSOCK_WIDE_CONNS) * VSOCK_TX_BUF;
	const struct vsock *v;
	struct vg g = {0};
	int fd[HOSTS];
	size_t heap;

	vg_init(&g);
	v = container_of(g.dev, const struct vsock, dev);
	for (u32 i = 0; i < HOSTS; i++)
		fd[i] = vg_open_guest(&g, 100 + i, 20);
	heap = mallinfo2().uordblks + mallinfo2().hblkhd;
	for (u32 i = 0; i < HOSTS; i++)
		vg_fill(&g, 100 + i, 20, i < VSOCK_WIDE_CONNS ? VSOCK_TX_BUF_WIDE : VSOCK_TX_BUF);
	assert_in_range(bytes_held(v), most / 2, most);
	heap = mallinfo2().uordblks + mallinfo2().hblkhd - heap;
	assert_true(heap <= most + HOSTS * 8192);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	/* Gone with the hosts. */
	for (u32 i = 0; i < HOSTS; i++)
		close(fd[i]);
	vg_settle(&g);
	assert_int_equal(bytes_held(v), 0);
	vg_finish(&g);
}

/* Hosts that leave in the middle of it: the guest hears of each, and what it sends then is gone. */
static void test_v09_hosts_leave_while_the_guest_sends(void **state)
{
	static struct vg_pkt p;
	static u8 data[30000];
	struct vg g = {0};
	int fd;

	vg_init(&g);
	for (unsigned i = 0; i < 100; i++) {
		bool told = false;

		fd = vg_open_guest(&g, 10, 20);
		for (unsigned k = 0; k < 8; k++) {
			if (k == i % 8)
				close(fd);
			vg_send(&g, 10, 20, OP(RW), data, sizeof(data));
			for (unsigned turns = 0; turns < i % 3; turns++)
				vg_turn(&g);
		}
		vg_settle(&g);
		while (vg_recv(&g, &p))
			told |= p.h.op == OP(SHUTDOWN) || p.h.op == OP(RST);
		assert_true(told);
		vg_send(&g, 10, 20, OP(RST), NULL, 0);
		vg_settle(&g);
		while (vg_recv(&g, &p))
			;
		assert_int_equal(vsock_conn_count(g.dev), 0);
	}
	assert_int_equal(vg_run_ms(&g, 50), 0);
	vg_assert_alive(&g);
	vg_finish(&g);
}

static void test_v10_rst_storm_and_port_reuse(void **state)
{
	static struct vg_pkt p;
	struct vg g = {0};
	unsigned got = 0;
	int fd;

	vg_make(&g, NULL);
	vg_driver(&g, 0);
	/* RSTs are not answered; what is answered is bounded while the guest takes nothing. */
	for (u32 i = 0; i < 2000; i++)
		vg_send(&g, i, 20, OP(RST), NULL, 0);
	for (u32 i = 0; i < 2000; i++)
		vg_send(&g, i, 20, OP(RW), "x", 1);
	vg_settle(&g);
	assert_int_equal(vg_run_ms(&g, 20), 0);
	vg_add_rx(&g, 200);
	vg_settle(&g);
	while (vg_recv(&g, &p)) {
		assert_int_equal(p.h.op, OP(RST));
		got++;
	}
	assert_int_equal(got, VSOCK_RST_MAX);
	/* Requests that fail, with no buffer for their RSTs: none is lost. */
	g.no_refill = true;
	vg_settle(&g);
	while (vqb_used_waiting(&g.rx))
		vg_recv(&g, &p);
	for (u32 i = 0; i < 2000; i++)
		vg_send(&g, i, 21, OP(REQUEST), NULL, 0);
	g.no_refill = false;
	for (u32 i = 0; i < 1000; i++) {
		VG_UNTIL(&g, vg_recv(&g, &p));
		assert_int_equal(p.h.op, OP(RST));
		assert_int_equal(p.h.src_port, 21);
	}
	vg_settle(&g);
	while (vg_recv(&g, &p) || vg_turn(&g))
		;
	assert_int_equal(vsock_conn_count(g.dev), 0);
	/* The same ports, again and again. */
	for (unsigned i = 0; i < 50; i++) {
		fd = vg_open_guest(&g, 10, 20);
		vg_send(&g, 10, 20, OP(RST), NULL, 0);
		vg_read_end(&g, fd);
		close(fd);
	}
	vg_assert_alive(&g);
	vg_finish(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v08_connection_flood),
		cmocka_unit_test(test_v08_silent_clients),
		cmocka_unit_test(test_v08_parked_clients),
		cmocka_unit_test(test_v09_host_never_reads),
		cmocka_unit_test(test_v09_bytes_held_are_bounded),
		cmocka_unit_test(test_v09_hosts_leave_while_the_guest_sends),
		cmocka_unit_test(test_v10_rst_storm_and_port_reuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
