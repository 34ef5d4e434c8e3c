/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_guest.c - see vsock_guest.h */
#include "tests/lib/vsock_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

/* Guest memory: three rings, then buffers. */
#define RAM_LEN   (24ull << 20)
#define RX_GPA    0x10000ull
#define TX_GPA    0x20000ull
#define EV_GPA    0x30000ull
#define RXBUF_GPA 0x100000ull
#define EVBUF_GPA 0x40000ull
#define TXBUF_GPA 0x400000ull
#define RX_SIZE   256u
#define TX_SIZE   64u
#define EV_SIZE   8u
#define TX_SLOT   0x11000u

u64 vg_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

static void raise_irq(void *ctx, unsigned line)
{
	struct vg *g = ctx;

	g->irqs++;
}

static void kicked(struct ring_op *op, int res)
{
	struct vg *g = container_of(op, struct vg, kick_op);

	assert_int_equal(res, 8);
	virtio_process(g->dev);
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

static void make_device(struct vg *g, const struct enc *saved)
{
	struct vsock_config cfg = {.cid = VG_CID, .path = g->path, .wait_ms = g->wait_ms};
	struct virtio_irq irq = {raise_irq, g, 5};
	struct err e = {0};

	if (vsock_listen(&cfg.listen_fd, g->path, &e) ||
		vsock_create(&g->dev, &cfg, g->ring, &g->ram.mem, irq, &e) ||
		(saved && virtio_load(g->dev, saved->buf, saved->len, &e)))
		fail_msg("%s", e.msg);
	virtio_attach(g->dev, g->ring);
	vsock_start(g->dev);
	g->kick_op = (struct ring_op){.done = kicked};
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

void vg_make(struct vg *g, const struct enc *saved)
{
	struct err e = {0};

	guest_ram_init(&g->ram, RAM_LEN, 0);
	g->dir = tmpdir_make();
	snprintf(g->path, sizeof(g->path), "%s/v", g->dir);
	if (ring_create(&g->ring, 256, &e))
		fail_msg("%s", e.msg);
	make_device(g, saved);
}

void vg_driver(struct vg *g, unsigned rx_bufs)
{
	vqb_init(&g->rx, &g->ram, RX_GPA, RX_SIZE);
	vqb_init(&g->tx, &g->ram, TX_GPA, TX_SIZE);
	vqb_init(&g->ev, &g->ram, EV_GPA, EV_SIZE);
	assert_true(drv_negotiate(g->dev, VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC |
		(g->event_idx ? VIRTIO_MASK_EVENT_IDX : 0)));
	if (!g->no_rx)
		assert_true(drv_queue(g->dev, 0, &g->rx));
	assert_true(drv_queue(g->dev, 1, &g->tx));
	if (!g->no_events)
		assert_true(drv_queue(g->dev, 2, &g->ev));
	assert_true(drv_start(g->dev));
	for (unsigned i = 0; i < 4 && !g->no_events; i++)
		vg_add_event(g, 4);
	vg_add_rx(g, rx_bufs);
}

void vg_init(struct vg *g)
{
	vg_make(g, NULL);
	vg_driver(g, 64);
	vg_settle(g);
}

void vg_finish(struct vg *g)
{
	ring_destroy(&g->ring);
	g->dev->ops->destroy(g->dev);
	guest_ram_finish(&g->ram);
	tmpdir_remove(g->dir);
	free(g->dir);
}

void vg_save(struct vg *g, struct enc *out)
{
	vg_settle(g);
	virtio_freeze(g->dev);
	virtio_save(g->dev, out);
	assert_false(out->oom);
	virtio_thaw(g->dev);
}

void vg_restore(struct vg *g, const struct enc *saved)
{
	struct err e = {0};

	ring_destroy(&g->ring);
	g->dev->ops->destroy(g->dev);
	assert_int_equal(unlink(g->path), 0);
	if (ring_create(&g->ring, 256, &e))
		fail_msg("%s", e.msg);
	make_device(g, saved);
}

unsigned vg_turn(struct vg *g)
{
	int n = ring_poll_once(g->ring);

	assert_true(n >= 0);
	g->turns += (unsigned)n;
	return (unsigned)n;
}

void vg_settle(struct vg *g)
{
	unsigned idle = 0;

	while (idle < 3)
		idle = vg_turn(g) ? 0 : idle + 1;
}

unsigned vg_run_ms(struct vg *g, unsigned ms)
{
	u64 end = vg_now_ms() + ms;
	unsigned n = 0;

	while (vg_now_ms() < end) {
		n += vg_turn(g);
		usleep(500);
	}
	return n;
}

/* Guest. */

/* As a driver does it that looks at what suppresses kicks, after it added one chain. */
static void kick_if_wanted(struct vg *g, u32 queue, const struct vqb *b)
{
	bool wanted = g->event_idx ? vqb_avail_event(b) == (u16)(b->avail_idx - 1)
				   : !vqb_used_flags(b);

	if (wanted)
		drv_kick(g->dev, queue);
}

static void add_rx_buf(struct vg *g)
{
	u64 slot = g->rx.free[g->rx.free_count - 1];

	vqb_add(&g->rx, (struct vqb_buf[]){VQB_W(RXBUF_GPA + slot * VG_BUF, VG_BUF)}, 1);
}

void vg_add_rx_crumbs(struct vg *g)
{
	u64 gpa = RXBUF_GPA + (u64)g->rx.free[g->rx.free_count - 1] * VG_BUF;
	struct vqb_buf buf[61];

	for (u32 i = 0; i < 60; i++)
		buf[i] = VQB_W(gpa + i, 1);
	buf[60] = VQB_W(gpa + 60, VG_BUF - 60);
	vqb_add(&g->rx, buf, 61);
	drv_kick(g->dev, 0);
}

void vg_add_rx(struct vg *g, unsigned n)
{
	while (n--)
		add_rx_buf(g);
	drv_kick(g->dev, 0);
}

struct virtio_vsock_hdr vg_hdr(u32 guest_port, u32 host_port, unsigned op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = VG_CID,
		.dst_cid = 2,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = (u16)op,
		.buf_alloc = VG_WINDOW,
	};
}

static void recycle_tx(struct vg *g)
{
	u16 head;
	u32 len;

	while (vqb_used(&g->tx, &head, &len))
		assert_int_equal(len, 0);
}

void vg_send_hdr(struct vg *g, const struct virtio_vsock_hdr *h, const void *data, u32 len)
{
	u64 gpa;

	recycle_tx(g);
	VG_UNTIL(g, (recycle_tx(g), g->tx.free_count > 0));
	gpa = TXBUF_GPA + TX_SLOT * (u64)g->tx.free[g->tx.free_count - 1];
	guest_write(&g->ram, gpa, h, sizeof(*h));
	if (len)
		guest_write(&g->ram, gpa + sizeof(*h), data, len);
	vqb_add(&g->tx, (struct vqb_buf[]){VQB_R(gpa, VG_HDR + len)}, 1);
	kick_if_wanted(g, 1, &g->tx);
}

void vg_send(struct vg *g, u32 guest_port, u32 host_port, unsigned op, const void *data, u32 len)
{
	struct virtio_vsock_hdr h = vg_hdr(guest_port, host_port, op);

	h.len = len;
	vg_send_hdr(g, &h, data, len);
}

bool vg_recv(struct vg *g, struct vg_pkt *p)
{
	u16 head;
	u64 gpa;

	if (!vqb_used(&g->rx, &head, &p->used_len))
		return false;
	gpa = RXBUF_GPA + (u64)head * VG_BUF;
	assert_true(p->used_len >= VG_HDR && p->used_len <= VG_BUF);
	guest_read(&g->ram, gpa, &p->h, VG_HDR);
	assert_int_equal(p->used_len, VG_HDR + p->h.len);
	assert_int_equal(p->h.src_cid, 2);
	assert_int_equal(p->h.dst_cid, VG_CID);
	if (p->h.len)
		guest_read(&g->ram, gpa + VG_HDR, p->data, p->h.len);
	if (!g->no_refill) {
		add_rx_buf(g);
		kick_if_wanted(g, 0, &g->rx);
	}
	return true;
}

void vg_expect(struct vg *g, struct vg_pkt *p, u32 guest_port, u32 host_port, unsigned op)
{
	VG_UNTIL(g, vg_recv(g, p));
	assert_int_equal(p->h.op, op);
	assert_int_equal(p->h.dst_port, guest_port);
	assert_int_equal(p->h.src_port, host_port);
}

void vg_expect_none(struct vg *g)
{
	struct vg_pkt p;

	vg_settle(g);
	if (vg_recv(g, &p))
		fail_msg("a packet came: op %u", p.h.op);
}

/* The stream of the tests: every byte depends on its place. */

static u8 byte_at(u32 i)
{
	return (u8)(i * 167 + (i >> 8) * 13 + (i >> 16) * 7);
}

void vg_make_bytes(u8 *out, u32 from, u32 len)
{
	for (u32 i = 0; i < len; i++)
		out[i] = byte_at(from + i);
}

void vg_check_bytes(const u8 *data, u32 from, u32 len)
{
	for (u32 i = 0; i < len; i++) {
		if (data[i] != byte_at(from + i))
			fail_msg("byte %u is wrong", from + i);
	}
}

u32 vg_drain(int fd, u32 at)
{
	static u8 buf[100000];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (n <= 0)
		return 0;
	vg_check_bytes(buf, at, (u32)n);
	return (u32)n;
}

/* Host. */

static int unix_socket(const char *path, bool listens)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	assert_true(fd >= 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (listens) {
		assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(listen(fd, SOMAXCONN), 0);
	} else {
		assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	}
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

int vg_listen(struct vg *g, u32 port)
{
	char path[108];

	snprintf(path, sizeof(path), "%s_%u", g->path, port);
	return unix_socket(path, true);
}

int vg_client(struct vg *g, const char *line)
{
	int fd = unix_socket(g->path, false);

	vg_write(fd, line, strlen(line));
	return fd;
}

int vg_accept(struct vg *g, int listen_fd)
{
	int fd = -1;

	VG_UNTIL(g, (fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
	return fd;
}

void vg_write(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

void vg_read(struct vg *g, int fd, void *data, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = -1;

		VG_UNTIL(g, (n = recv(fd, (u8 *)data + got, len - got, 0)) >= 0);
		if (n <= 0)
			fail_msg("the stream ended after %zu of %zu bytes", got, len);
		got += (size_t)n;
	}
}

void vg_read_end(struct vg *g, int fd)
{
	ssize_t n = -1;
	char c;

	VG_UNTIL(g, (n = recv(fd, &c, 1, 0)) >= 0 || errno == ECONNRESET);
	assert_true(n <= 0);
}

bool vg_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

int vg_open_host(struct vg *g, u32 guest_port, u32 *ret_host_port)
{
	char line[32], want[32], got[32] = "";
	struct vg_pkt *p = malloc(sizeof(*p));
	int fd;

	snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	fd = vg_client(g, line);
	VG_UNTIL(g, vg_recv(g, p));
	assert_int_equal(p->h.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(p->h.dst_port, guest_port);
	*ret_host_port = p->h.src_port;
	free(p);
	vg_send(g, guest_port, *ret_host_port, VIRTIO_VSOCK_OP_RESPONSE, NULL, 0);
	snprintf(want, sizeof(want), "OK %u\n", *ret_host_port);
	vg_read(g, fd, got, strlen(want));
	assert_string_equal(got, want);
	return fd;
}

int vg_open_guest(struct vg *g, u32 guest_port, u32 host_port)
{
	struct vg_pkt *p = malloc(sizeof(*p));
	int lfd = vg_listen(g, host_port), fd;
	char path[108];

	vg_send(g, guest_port, host_port, VIRTIO_VSOCK_OP_REQUEST, NULL, 0);
	fd = vg_accept(g, lfd);
	vg_expect(g, p, guest_port, host_port, VIRTIO_VSOCK_OP_RESPONSE);
	close(lfd);
	snprintf(path, sizeof(path), "%s_%u", g->path, host_port);
	unlink(path);
	free(p);
	return fd;
}

void vg_shutdown(struct vg *g, u32 guest_port, u32 host_port, u32 flags)
{
	struct virtio_vsock_hdr h = vg_hdr(guest_port, host_port, VIRTIO_VSOCK_OP_SHUTDOWN);

	h.flags = flags;
	vg_send_hdr(g, &h, NULL, 0);
}

u32 vg_fill(struct vg *g, u32 guest_port, u32 host_port, u32 window)
{
	static u8 data[VSOCK_PACKET_MAX];
	static struct vg_pkt p;
	u32 sent = 0, fwd = 0;

	while (sent - fwd + sizeof(data) <= window) {
		vg_make_bytes(data, sent, sizeof(data));
		vg_send(g, guest_port, host_port, VIRTIO_VSOCK_OP_RW, data, sizeof(data));
		sent += (u32)sizeof(data);
		vg_settle(g);
		while (vg_recv(g, &p)) {
			assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd = p.h.fwd_cnt;
		}
	}
	return sent;
}

bool vg_event(struct vg *g, u32 *ret_id)
{
	u16 head;
	u32 len;
	u64 gpa;

	if (!vqb_used(&g->ev, &head, &len))
		return false;
	assert_int_equal(len, 4);
	gpa = EVBUF_GPA + 8ull * head;
	guest_read(&g->ram, gpa, ret_id, 4);
	return true;
}

void vg_add_event(struct vg *g, u32 len)
{
	u64 slot = g->ev.free[g->ev.free_count - 1];

	vqb_add(&g->ev, (struct vqb_buf[]){VQB_W(EVBUF_GPA + 8 * slot, len)}, 1);
	kick_if_wanted(g, 2, &g->ev);
}

void vg_assert_alive(struct vg *g)
{
	static struct vg_pkt p;
	char got[4];
	u32 port;
	int fd;

	assert_false(g->dev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	fd = vg_open_host(g, 4321, &port);
	vg_write(fd, "ping", 4);
	vg_expect(g, &p, 4321, port, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.h.len, 4);
	assert_memory_equal(p.data, "ping", 4);
	vg_send(g, 4321, port, VIRTIO_VSOCK_OP_RW, "pong", 4);
	vg_read(g, fd, got, 4);
	assert_memory_equal(got, "pong", 4);
	vg_send(g, 4321, port, VIRTIO_VSOCK_OP_RST, NULL, 0);
	vg_read_end(g, fd);
	close(fd);
	vg_settle(g);
}
