/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vsock.c - hostile-cases V01 to V13 against a whole device with real sockets; V08 to
 * V10 are in test_vsock_flood.c.
 */
#include "tests/lib/vsock_guest.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
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

static void test_v01_foreign_cid(void **state)
{
	static const u64 bad[] = {0, 1, 2, 3, VG_CID + 1, UINT32_MAX, VG_CID | 1ull << 32,
		UINT64_MAX};
	struct vg g = {0};
	u64 dropped;

	vg_init(&g);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtio_vsock_hdr h = vg_hdr(1, 2, OP(REQUEST));

		dropped = stats_of(&g).dropped;
		h.src_cid = bad[i];
		vg_send_hdr(&g, &h, NULL, 0);
		h.src_cid = VG_CID;
		h.dst_cid = bad[i] == 2 ? VG_CID : bad[i];
		vg_send_hdr(&g, &h, NULL, 0);
		vg_expect_none(&g);
		assert_int_equal(stats_of(&g).dropped, dropped + 2);
	}
	vg_assert_alive(&g);
	vg_finish(&g);
}

static void test_v02_odd_ports_and_duplicates(void **state)
{
	static const u32 port[] = {0, UINT32_MAX, VSOCK_PORT_FIRST};
	static struct vg_pkt p;
	struct vg g = {0};
	int fd;

	vg_init(&g);
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++) {
		vg_send(&g, port[i], port[i], OP(REQUEST), NULL, 0);
		vg_expect(&g, &p, port[i], port[i], OP(RST));
		fd = vg_open_guest(&g, port[i], port[i]);
		vg_send(&g, port[i], port[i], OP(REQUEST), NULL, 0);
		vg_expect(&g, &p, port[i], port[i], OP(RST));
		vg_read_end(&g, fd);
		close(fd);
	}
	/* Twice before there can be an answer. */
	fd = vg_listen(&g, 20);
	vg_send(&g, 10, 20, OP(REQUEST), NULL, 0);
	vg_send(&g, 10, 20, OP(REQUEST), NULL, 0);
	vg_expect(&g, &p, 10, 20, OP(RST));
	vg_expect_none(&g);
	close(fd);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	vg_assert_alive(&g);
	vg_finish(&g);
}

static void test_v03_unknown_op_and_type(void **state)
{
	static const u16 op[] = {0, 8, 0x100, 0xffff}, type[] = {0, 2, 3, 0xffff};
	static struct vg_pkt p;
	struct vg g = {0};
	int fd;

	vg_init(&g);
	for (unsigned i = 0; i < ARRAY_SIZE(op); i++) {
		vg_send(&g, 10, 20, op[i], NULL, 0);
		vg_expect(&g, &p, 10, 20, OP(RST));
		fd = vg_open_guest(&g, 10, 20);
		vg_send(&g, 10, 20, op[i], NULL, 0);
		vg_expect(&g, &p, 10, 20, OP(RST));
		vg_read_end(&g, fd);
		close(fd);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(type); i++) {
		struct virtio_vsock_hdr h = vg_hdr(10, 20, OP(REQUEST));

		h.type = type[i];
		vg_send_hdr(&g, &h, NULL, 0);
		vg_expect(&g, &p, 10, 20, OP(RST));
		assert_int_equal(p.h.type, type[i]);
		/* An RST is never answered. */
		h.op = OP(RST);
		vg_send_hdr(&g, &h, NULL, 0);
	}
	vg_expect_none(&g);
	vg_assert_alive(&g);
	vg_finish(&g);
}

/* Sends a packet as these buffers. */
static void send_chain(struct vg *g, const struct vqb_buf *buf, u16 n)
{
	u16 head;
	u32 len;

	while (vqb_used(&g->tx, &head, &len))
		;
	vqb_add(&g->tx, buf, n);
	drv_kick(g->dev, 1);
	vg_settle(g);
	assert_true(vqb_used(&g->tx, &head, &len));
	assert_int_equal(len, 0);
}

static void test_v04_lengths(void **state)
{
	static const u32 len[] = {5, VSOCK_PACKET_MAX + 1, 0x80000000, UINT32_MAX - 43, UINT32_MAX};
	static struct vg_pkt p;
	struct virtio_vsock_hdr h;
	struct vqb_buf piece[VG_HDR];
	struct vg g = {0};
	int fd;

	vg_init(&g);
	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		fd = vg_open_guest(&g, 10, 20);
		h = vg_hdr(10, 20, OP(RW));
		h.len = len[i];
		vg_send_hdr(&g, &h, "1234", 4);
		vg_expect(&g, &p, 10, 20, OP(RST));
		vg_read_end(&g, fd);
		close(fd);
	}
	/* More payload than the packet says is no harm. */
	fd = vg_open_guest(&g, 10, 20);
	h.len = 2;
	vg_send_hdr(&g, &h, "1234", 4);
	vg_read(&g, fd, p.data, 2);
	vg_settle(&g);
	assert_false(vg_readable(fd));
	/* Chains that are no packet: too short, nothing readable, outside RAM, wrapping. */
	h = vg_hdr(10, 20, OP(RST));
	guest_write(&g.ram, 0x50000, &h, sizeof(h));
	send_chain(&g, (struct vqb_buf[]){VQB_R(0x50000, 43)}, 1);
	send_chain(&g, (struct vqb_buf[]){VQB_W(0x50000, 44)}, 1);
	send_chain(&g, (struct vqb_buf[]){VQB_R(0x50000, 44), VQB_R(0x7ff00000, 8)}, 2);
	send_chain(&g, (struct vqb_buf[]){VQB_R(UINT64_MAX - 43, 44)}, 1);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	/* The header byte by byte. */
	for (unsigned i = 0; i < VG_HDR; i++)
		piece[i] = VQB_R(0x50000 + i, 1);
	send_chain(&g, piece, VG_HDR);
	vg_read_end(&g, fd);
	close(fd);
	vg_assert_alive(&g);
	vg_finish(&g);
}

/* RX buffers whose header and payload lie in many descriptors. */
static void test_v04_buffers_in_crumbs(void **state)
{
	static struct vg_pkt p;
	struct vg g = {.no_refill = true};
	u8 data[3 * VG_BUF];
	u32 port, got = 0;
	int fd;

	vg_make(&g, NULL);
	vg_driver(&g, 1);
	fd = vg_open_host(&g, 9, &port);
	vg_settle(&g);
	vg_make_bytes(data, 0, sizeof(data));
	vg_write(fd, data, sizeof(data));
	for (unsigned i = 0; i < 4; i++)
		vg_add_rx_crumbs(&g);
	while (got < sizeof(data)) {
		vg_expect(&g, &p, 9, port, OP(RW));
		vg_check_bytes(p.data, got, p.h.len);
		got += p.h.len;
	}
	close(fd);
	vg_finish(&g);
}

static void test_v05_payload_out_of_place(void **state)
{
	static struct vg_pkt p;
	struct virtio_vsock_hdr h = vg_hdr(10, 20, OP(SHUTDOWN));
	struct vg g = {0};
	int fd, lfd;

	vg_init(&g);
	/* No connection. */
	vg_send(&g, 10, 20, OP(RW), "x", 1);
	vg_expect(&g, &p, 10, 20, OP(RST));
	/* After the guest's own shutdown. */
	fd = vg_open_guest(&g, 10, 20);
	h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	vg_send_hdr(&g, &h, NULL, 0);
	vg_read_end(&g, fd);
	vg_send(&g, 10, 20, OP(RW), "x", 1);
	vg_expect(&g, &p, 10, 20, OP(RST));
	close(fd);
	/* Instead of an answer to a request. */
	fd = vg_client(&g, "CONNECT 10\n");
	VG_UNTIL(&g, vg_recv(&g, &p));
	vg_send(&g, 10, p.h.src_port, OP(RW), "x", 1);
	vg_expect(&g, &p, 10, p.h.src_port, OP(RST));
	vg_read_end(&g, fd);
	close(fd);
	/* In the same breath as the request, so before its answer. */
	lfd = vg_listen(&g, 20);
	vg_send(&g, 10, 20, OP(REQUEST), NULL, 0);
	vg_send(&g, 10, 20, OP(RW), "x", 1);
	vg_expect(&g, &p, 10, 20, OP(RST));
	close(lfd);
	/* An answer that nobody asked for. */
	vg_send(&g, 10, 20, OP(RESPONSE), NULL, 0);
	vg_expect(&g, &p, 10, 20, OP(RST));
	vg_assert_alive(&g);
	vg_finish(&g);
}

static void test_v06_credit_math(void **state)
{
	struct vsock v = {0};
	struct vsock_conn c = {.v = &v, .state = CONN_OPEN};

	TAILQ_INIT(&v.fresh);
	TAILQ_INIT(&v.ready);
	conn_take_credit(&c, 100, 0);
	assert_int_equal(conn_credit(&c), 100);
	c.tx_cnt = 60;
	assert_int_equal(conn_credit(&c), 40);
	conn_take_credit(&c, 30, 0); /* shrinks below what is on its way */
	assert_int_equal(conn_credit(&c), 0);
	conn_take_credit(&c, 30, 50);
	assert_int_equal(conn_credit(&c), 20);
	conn_take_credit(&c, 30, 61); /* more than it got: 50 stands */
	assert_int_equal(conn_credit(&c), 20);
	conn_take_credit(&c, 30, 49); /* backwards */
	assert_int_equal(conn_credit(&c), 20);
	conn_take_credit(&c, UINT32_MAX, 60);
	assert_int_equal(conn_credit(&c), UINT32_MAX);
	conn_take_credit(&c, 0, 60);
	assert_int_equal(conn_credit(&c), 0);
	/* Across the wrap of all counters. */
	c.tx_cnt = c.peer_fwd_cnt = UINT32_MAX - 9;
	conn_take_credit(&c, 100, UINT32_MAX - 9);
	c.tx_cnt += 30;
	assert_int_equal(conn_credit(&c), 70);
	conn_take_credit(&c, 100, 15);
	assert_int_equal(conn_credit(&c), 95);
	conn_take_credit(&c, 100, 21);
	assert_int_equal(conn_credit(&c), 95);
	/* Our own: an update is due when more than half of the window is unannounced. */
	c.buf_alloc = 1000;
	c.rx_cnt = 490;
	c.fwd_cnt = c.told_fwd_cnt = UINT32_MAX - 9;
	c.peer_buf_alloc = 2000; /* at least as much as ours */
	conn_consumed(&c, 500);
	assert_int_equal(c.pend, 0);
	c.rx_cnt = 491;
	conn_consumed(&c, 1);
	assert_int_equal(c.pend, PEND_CREDIT);
}

static void test_v06_no_credit_no_data(void **state)
{
	static struct vg_pkt p;
	struct virtio_vsock_hdr h = vg_hdr(10, 20, OP(CREDIT_UPDATE));
	struct vg g = {0};
	u32 got = 0;
	int fd;

	vg_init(&g);
	fd = vg_open_guest(&g, 10, 20);
	h.buf_alloc = 0;
	vg_send_hdr(&g, &h, NULL, 0);
	vg_settle(&g);
	vg_write(fd, "0123456789", 10);
	vg_expect(&g, &p, 10, 20, OP(CREDIT_REQUEST)); /* once, not in a loop */
	vg_expect_none(&g);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	for (h.buf_alloc = 3; got < 10; h.buf_alloc += 3) {
		vg_send_hdr(&g, &h, NULL, 0);
		vg_expect(&g, &p, 10, 20, OP(RW));
		assert_int_equal(p.h.len, got < 9 ? 3 : 1);
		assert_memory_equal(p.data, &"0123456789"[got], p.h.len);
		got += p.h.len;
		if (got < 10)
			vg_expect(&g, &p, 10, 20, OP(CREDIT_REQUEST));
	}
	vg_expect_none(&g);
	close(fd);
	vg_finish(&g);
}

static void test_v07_beyond_credit(void **state)
{
	static struct vg_pkt p;
	static u8 data[VSOCK_PACKET_MAX];
	struct vg g = {0};
	unsigned sent = 0;
	int fd;

	vg_init(&g);
	fd = vg_open_guest(&g, 10, 20); /* which never reads */
	do {
		vg_send(&g, 10, 20, OP(RW), data, sizeof(data));
		vg_settle(&g);
		assert_true(++sent < 100);
		while (vg_recv(&g, &p) && p.h.op == OP(CREDIT_UPDATE))
			;
	} while (p.h.op != OP(RST));
	/* What the kernel's socket held, and one window more. */
	assert_true(sent * sizeof(data) > VSOCK_TX_BUF_WIDE);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	vg_assert_alive(&g);
	close(fd);
	vg_finish(&g);
}

static void test_v11_short_event_buffer(void **state)
{
	struct enc saved = {0};
	struct vg g = {.no_events = true};
	u16 head;
	u32 len, id, port;
	int fd;

	vg_make(&g, NULL);
	/* Event buffers of 3 bytes, then one that is good. */
	vg_driver(&g, 64);
	assert_true(drv_negotiate(g.dev, VIRTIO_MASK_VERSION_1));
	vqb_init(&g.rx, &g.ram, g.rx.desc_gpa, g.rx.size);
	vqb_init(&g.tx, &g.ram, g.tx.desc_gpa, g.tx.size);
	assert_true(drv_queue(g.dev, 0, &g.rx) && drv_queue(g.dev, 1, &g.tx));
	assert_true(drv_queue(g.dev, 2, &g.ev));
	vg_add_event(&g, 3);
	vg_add_event(&g, 1);
	vg_add_event(&g, 4);
	assert_true(drv_start(g.dev));
	vg_add_rx(&g, 64);
	fd = vg_open_host(&g, 10, &port);
	vg_save(&g, &saved);
	vg_restore(&g, &saved);
	vg_settle(&g);
	close(fd);
	assert_true(vqb_used(&g.ev, &head, &len));
	assert_int_equal(len, 0);
	assert_true(vqb_used(&g.ev, &head, &len));
	assert_int_equal(len, 0);
	assert_true(vg_event(&g, &id));
	assert_int_equal(id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	vg_add_event(&g, 4);
	vg_assert_alive(&g);
	enc_free(&saved);
	vg_finish(&g);
}

static void v12_snapshot(bool event_idx)
{
	static struct vg_pkt p;
	struct vg g = {.event_idx = event_idx, .wait_ms = 1000};
	struct enc saved = {0};
	u32 port, id;
	char got[5];
	int fd, late;

	vg_init(&g);
	fd = vg_open_host(&g, 10, &port);
	assert_int_equal(port, VSOCK_PORT_FIRST);
	/* A snapshot with packets in the queue that nobody has looked at yet. */
	vg_settle(&g);
	virtio_freeze(g.dev);
	vg_send(&g, 10, port, OP(RW), "hello", 5);
	vg_send(&g, 77, 88, OP(RW), "lost", 4);
	vg_settle(&g);
	virtio_save(g.dev, &saved);
	/* The VM goes on, and so do its connections. */
	virtio_thaw(g.dev);
	vg_read(&g, fd, got, 5);
	assert_memory_equal(got, "hello", 5);
	vg_expect(&g, &p, 77, 88, OP(RST));
	vg_write(fd, "there", 5);
	vg_expect(&g, &p, 10, port, OP(RW));
	close(fd);
	vg_finish(&g);

	/* Another VM from the same state; its memory is that at the time of saving, made anew. */
	g = (struct vg){.event_idx = event_idx, .wait_ms = 1000};
	vg_init(&g);
	fd = vg_open_host(&g, 10, &port);
	enc_free(&saved);
	vg_save(&g, &saved);
	vg_send(&g, 10, port, OP(RW), "old", 3);
	vg_send(&g, 77, 88, OP(RW), "old", 3);
	vg_restore(&g, &saved);
	vg_read_end(&g, fd);
	close(fd);
	late = vg_client(&g, "CONNECT 10\n");
	vg_settle(&g);
	/* The event is there, and before the guest has answered it nothing else is. */
	assert_true(vg_event(&g, &id));
	assert_int_equal(id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	assert_false(vg_event(&g, &id));
	vg_expect_none(&g);
	assert_int_equal(vqb_used_waiting(&g.tx), 2); /* taken, without an RST for each */
	assert_false(g.dev->watch.look(&g.dev->watch)); /* and the loop can sleep */
	vg_add_event(&g, 4);
	/* Its listeners live on, and the port is a new one. */
	vg_expect(&g, &p, 10, port + 1, OP(REQUEST));
	vg_send(&g, 10, port + 1, OP(RESPONSE), NULL, 0);
	vg_read(&g, late, got, 3);
	assert_memory_equal(got, "OK ", 3);
	/* From now on an unknown connection is answered as ever. */
	vg_send(&g, 10, port, OP(RW), "old", 3);
	vg_expect(&g, &p, 10, port, OP(RST));
	close(late);
	enc_free(&saved);
	vg_finish(&g);
}

static void test_v12_snapshot(void **state)
{
	v12_snapshot(false);
}

static void test_v12_snapshot_event_idx(void **state)
{
	v12_snapshot(true);
}

static void test_v12_guest_without_events(void **state)
{
	static struct vg_pkt p;
	struct enc saved = {0};
	struct vg g = {.no_events = true};
	u64 begin;
	u32 port;
	int fd, old;

	/* Cannot be told, so it is not waited for. */
	vg_init(&g);
	vg_save(&g, &saved);
	vg_restore(&g, &saved);
	vg_assert_alive(&g);
	vg_finish(&g);
	enc_free(&saved);

	/* Takes the event and does not answer: is waited for, but not for ever. */
	g = (struct vg){0};
	vg_init(&g);
	old = vg_open_host(&g, 10, &port);
	vg_save(&g, &saved);
	begin = vg_now_ms();
	vg_restore(&g, &saved);
	close(old);
	fd = vg_client(&g, "CONNECT 10\n");
	VG_UNTIL(&g, vg_recv(&g, &p));
	assert_true(vg_now_ms() - begin >= VSOCK_GATE_NS / 1000000 - 1);
	close(fd);
	vg_finish(&g);
	enc_free(&saved);
}

/* Nobody lost anything: no event, and a new connection does not wait for an answer to one. */
static void test_v12_without_connections(void **state)
{
	static struct vg_pkt p;
	struct enc saved = {0};
	struct vg g = {0};
	u32 port, id;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 10, &port);
	vg_send(&g, 10, port, OP(RST), NULL, 0);
	vg_read_end(&g, fd);
	close(fd);
	vg_settle(&g);
	vg_save(&g, &saved);
	vg_restore(&g, &saved);
	fd = vg_client(&g, "CONNECT 10\n");
	vg_expect(&g, &p, 10, port + 1, OP(REQUEST));
	assert_false(vg_event(&g, &id));
	close(fd);
	enc_free(&saved);
	vg_finish(&g);
}

static void test_v12_hostile_state(void **state)
{
	static const struct {
		u64 cid;
		u32 next_port, count;
		const char *says;
	} bad[] = {
		{2, VSOCK_PORT_FIRST, 0, "vsock: guest_cid: 2 is none"},
		{UINT32_MAX, VSOCK_PORT_FIRST, 0, "guest_cid"},
		{1ull << 40, VSOCK_PORT_FIRST, 0, "guest_cid"},
		{7, VSOCK_PORT_FIRST - 1, 0, "next_port"},
		{7, 2 * VSOCK_PORT_FIRST, 0, "next_port"},
		{7, VSOCK_PORT_FIRST, VSOCK_CONNS_MAX + 1, "connections"},
	};
	struct enc good = {0};
	struct vg g = {0};
	struct err e;

	vg_make(&g, NULL);
	virtio_save(g.dev, &good);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct enc copy = {0};

		enc_bytes(&copy, good.buf, good.len - 16);
		enc_u64(&copy, bad[i].cid);
		enc_u32(&copy, bad[i].next_port);
		enc_u32(&copy, bad[i].count);
		e = (struct err){0};
		assert_int_equal(virtio_load(g.dev, copy.buf, copy.len, &e), -EINVAL);
		assert_non_null(strstr(e.msg, bad[i].says));
		enc_free(&copy);
	}
	for (size_t len = good.len - 16; len < good.len; len++)
		assert_int_equal(virtio_load(g.dev, good.buf, len, &e), -EINVAL);
	/* The CID of the restored VM is what the operator says, whatever was saved. */
	good.buf[good.len - 16] = 99;
	assert_int_equal(virtio_load(g.dev, good.buf, good.len, &e), 0);
	assert_int_equal(drv_read(g.dev, 0x100), VG_CID);
	enc_free(&good);
	vg_finish(&g);
}

static void expect_listen_error(const char *path, int code, const char *says)
{
	struct err e = {0};
	int fd = -1;

	assert_int_equal(vsock_listen(&fd, path, &e), code);
	assert_int_equal(fd, -1);
	if (!strstr(e.msg, says) || strchr(e.msg, '\n'))
		fail_msg("%s", e.msg);
}

static void test_v13_paths(void **state)
{
	char *dir = tmpdir_make(), path[200], target[200];
	struct vsock_config cfg = {.cid = 3, .path = path, .listen_fd = -1};
	struct virtio_dev *d = NULL;
	struct err e = {0};
	struct stat st;
	mode_t mask = umask(0);
	int fd;

	snprintf(path, sizeof(path), "%s/v", dir);
	assert_int_equal(vsock_listen(&fd, path, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	umask(mask);
	close(fd);
	expect_listen_error(path, -EADDRINUSE, "exists already");
	snprintf(path, sizeof(path), "%s/link", dir);
	snprintf(target, sizeof(target), "%s/elsewhere", dir);
	assert_int_equal(symlink(target, path), 0);
	expect_listen_error(path, -EADDRINUSE, "symbolic link");
	assert_int_equal(lstat(target, &st), -1);
	snprintf(path, sizeof(path), "%s/none/v", dir);
	expect_listen_error(path, -ENOENT, "directory does not exist");
	expect_listen_error("", -EINVAL, "needs a path");
	/* As long as can be, and one more. */
	snprintf(path, sizeof(path), "%s/", dir);
	memset(path + strlen(path), 'x', sizeof(path) - strlen(path));
	path[96] = '\0';
	assert_int_equal(vsock_listen(&fd, path, &e), 0);
	close(fd);
	path[96] = 'x';
	path[97] = '\0';
	expect_listen_error(path, -ENAMETOOLONG, "at most 96 leave room for the _PORT");
	assert_int_equal(vsock_create(&d, &cfg, NULL, NULL, (struct virtio_irq){0}, &e),
		-ENAMETOOLONG);
	path[96] = '\0';
	for (unsigned i = 0; i < 4; i++) {
		cfg.cid = (u32[]){0, 1, 2, UINT32_MAX}[i];
		assert_int_equal(vsock_create(&d, &cfg, NULL, NULL, (struct virtio_irq){0}, &e),
			-EINVAL);
		assert_non_null(strstr(e.msg, "must be from 3 to 4294967294"));
	}
	tmpdir_remove(dir);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v01_foreign_cid),
		cmocka_unit_test(test_v02_odd_ports_and_duplicates),
		cmocka_unit_test(test_v03_unknown_op_and_type),
		cmocka_unit_test(test_v04_lengths),
		cmocka_unit_test(test_v04_buffers_in_crumbs),
		cmocka_unit_test(test_v05_payload_out_of_place),
		cmocka_unit_test(test_v06_credit_math),
		cmocka_unit_test(test_v06_no_credit_no_data),
		cmocka_unit_test(test_v07_beyond_credit),
		cmocka_unit_test(test_v11_short_event_buffer),
		cmocka_unit_test(test_v12_snapshot),
		cmocka_unit_test(test_v12_snapshot_event_idx),
		cmocka_unit_test(test_v12_guest_without_events),
		cmocka_unit_test(test_v12_without_connections),
		cmocka_unit_test(test_v12_hostile_state),
		cmocka_unit_test(test_v13_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
