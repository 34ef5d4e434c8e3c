/* SPDX-License-Identifier: Apache-2.0 */
/* net_guest.c - see net_guest.h */
#include "tests/lib/net_guest.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Guest memory: rings, control buffers, then TX and RX buffers. */
#define RAM_LEN    (96ull << 20)
#define RING_GPA   0x10000ull /* 64 KiB for each ring */
#define CTRL_GPA   0xf0000ull
#define TX_GPA     0x100000ull
#define RX_GPA     0x2000000ull
#define TX_SIZE    64u
#define CTRL_SIZE  8u
#define SOCKET_BUF (4 << 20)

const u8 ng_mac[6] = {0x02, 0x4b, 0, 0, 0, 1};

u64 ng_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

static void raise_irq(void *ctx, unsigned line)
{
	struct ng *g = ctx;

	g->irqs++;
}

static void kicked(struct ring_op *op, int res)
{
	struct ng *g = container_of(op, struct ng, kick_op);

	assert_int_equal(res, 8);
	virtio_process(g->dev);
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

bool ng_no_nowait;

int ng_old_kernel(void **state)
{
	ng_no_nowait = true;
	return 0;
}

int ng_new_kernel(void **state)
{
	ng_no_nowait = false;
	return 0;
}

static void make_backend(struct ng *g, struct net_backend *b)
{
	int size = SOCKET_BUF;

	*b = (struct net_backend){.kind = g->stream ? NET_PASST : NET_TAP, .fds_count = g->pairs,
		.offloads = g->offloads, .name = "test"};
	for (unsigned i = 0; i < g->pairs; i++) {
		int type = (g->stream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_NONBLOCK, fd[2];

		assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fd), 0);
		for (unsigned k = 0; k < 2; k++)
			setsockopt(fd[k], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
		b->fds[i] = fd[0];
		g->host[i] = fd[1];
	}
}

static void make_device(struct ng *g, const struct enc *saved)
{
	struct virtio_irq irq = {raise_irq, g, 5};
	struct net_backend b;
	struct err e = {0};

	g->cfg.id = "net0";
	g->cfg.pairs = g->pairs;
	memcpy(g->cfg.mac, ng_mac, sizeof(ng_mac));
	if (g->backend)
		b = *g->backend;
	else
		make_backend(g, &b);
	b.no_nowait |= ng_no_nowait;
	if (net_create(&g->dev, &g->cfg, &b, g->ring, &g->ram.mem, irq, &e) ||
		(saved && virtio_load(g->dev, saved->buf, saved->len, &e)))
		fail_msg("%s", e.msg);
	assert_int_equal(b.fds_count, 0);
	g->n = net_of(g->dev);
	virtio_attach(g->dev, g->ring);
	net_start(g->dev);
	g->kick_op = (struct ring_op){.done = kicked};
	ring_read(g->ring, &g->kick_op, g->dev->kick_fd, &g->kick_count, 8);
}

void ng_make(struct ng *g, const struct enc *saved)
{
	struct err e = {0};

	g->pairs = g->pairs ? g->pairs : 1;
	g->features = g->features ? g->features : NG_BASE;
	g->rx_len = g->rx_len ? g->rx_len : 2048;
	g->rx_size = g->rx_size ? g->rx_size : 64;
	assert_true(g->pairs <= NG_PAIRS && g->rx_len <= NG_SLOT);
	guest_ram_init(&g->ram, RAM_LEN, 0);
	if (ring_create(&g->ring, 256, &e))
		fail_msg("%s", e.msg);
	make_device(g, saved);
}

void ng_driver(struct ng *g, unsigned rx_bufs)
{
	unsigned pairs = g->features & NET_F(MQ) ? g->pairs : 1;

	assert_true(drv_negotiate(g->dev, g->features));
	for (unsigned i = 0; i < pairs; i++) {
		vqb_init(&g->rx[i], &g->ram, RING_GPA + (2 * i) * 0x10000ull, g->rx_size);
		vqb_init(&g->tx[i], &g->ram, RING_GPA + (2 * i + 1) * 0x10000ull, TX_SIZE);
		assert_true(drv_queue(g->dev, 2 * i, &g->rx[i]));
		assert_true(drv_queue(g->dev, 2 * i + 1, &g->tx[i]));
	}
	vqb_init(&g->ctrl, &g->ram, CTRL_GPA - 0x10000, CTRL_SIZE);
	if (!g->no_ctrl)
		assert_true(drv_queue(g->dev, 2 * pairs, &g->ctrl));
	assert_true(drv_start(g->dev));
	for (unsigned i = 0; i < pairs && rx_bufs; i++)
		ng_add_rx(g, i, rx_bufs);
}

void ng_init(struct ng *g)
{
	ng_make(g, NULL);
	ng_driver(g, 32);
	ng_settle(g);
}

static void close_host(struct ng *g)
{
	for (unsigned i = 0; i < g->pairs && !g->backend; i++)
		close(g->host[i]);
}

void ng_finish(struct ng *g)
{
	ring_destroy(&g->ring);
	g->dev->ops->destroy(g->dev);
	close_host(g);
	guest_ram_finish(&g->ram);
}

void ng_save(struct ng *g, struct enc *out)
{
	ng_settle(g);
	virtio_freeze(g->dev);
	virtio_save(g->dev, out);
	assert_false(out->oom);
	virtio_thaw(g->dev);
}

void ng_restore(struct ng *g, const struct enc *saved)
{
	struct err e = {0};

	ring_destroy(&g->ring);
	g->dev->ops->destroy(g->dev);
	close_host(g);
	if (ring_create(&g->ring, 256, &e))
		fail_msg("%s", e.msg);
	make_device(g, saved);
}

unsigned ng_turn(struct ng *g)
{
	int n = ring_poll_once(g->ring);

	assert_true(n >= 0);
	g->turns += (unsigned)n;
	return (unsigned)n;
}

void ng_settle(struct ng *g)
{
	unsigned idle = 0;

	while (idle < 3)
		idle = ng_turn(g) ? 0 : idle + 1;
}

unsigned ng_run_ms(struct ng *g, unsigned ms)
{
	u64 end = ng_now_ms() + ms;
	unsigned n = 0;

	while (ng_now_ms() < end) {
		n += ng_turn(g);
		usleep(500);
	}
	return n;
}

static void frame(u8 *out, u32 len, u32 seed, const u8 dst[6], const u8 src[6])
{
	memcpy(out, dst, 6);
	memcpy(out + 6, src, 6);
	out[12] = 0x88;
	out[13] = 0xb5;
	for (u32 i = NET_ETH; i < len; i++)
		out[i] = (u8)(seed * 31 + i * 167 + (i >> 8) * 13);
}

static const u8 host_mac[6] = {0x02, 0, 0, 0, 0, 0x99};

void ng_frame_in(u8 *out, u32 len, u32 seed)
{
	frame(out, len, seed, ng_mac, host_mac);
}

void ng_frame_out(u8 *out, u32 len, u32 seed)
{
	frame(out, len, seed, host_mac, ng_mac);
}

/* Guest. */

/* Of a header, as the specification has it. */
static u32 hdr_len(const struct ng *g)
{
	return g->features & (VIRTIO_MASK_VERSION_1 | NET_F(MRG_RXBUF)) ? 12 : 10;
}

/* As a driver does it that looks at what suppresses kicks, after it added @n chains. */
static void kick_if_wanted(struct ng *g, u32 queue, const struct vqb *b, unsigned n)
{
	u16 last = (u16)(b->avail_idx - 1);
	bool wanted = g->features & VIRTIO_MASK_EVENT_IDX
		? (u16)(last - vqb_avail_event(b)) < n : !vqb_used_flags(b);

	if (wanted)
		drv_kick(g->dev, queue);
}

void ng_send(struct ng *g, unsigned pair, const struct virtio_net_hdr_v1 *h, const void *data,
	u32 len)
{
	static const struct virtio_net_hdr_v1 zero;
	struct vqb *b = &g->tx[pair];
	u32 skip = hdr_len(g);
	u64 gpa;

	ng_sent(g, pair);
	NG_UNTIL(g, (ng_sent(g, pair), b->free_count >= 1));
	gpa = TX_GPA + NG_SLOT * (u64)(pair * TX_SIZE + b->free[b->free_count - 1]);
	guest_write(&g->ram, gpa, h ? h : &zero, skip);
	if (len)
		guest_write(&g->ram, gpa + skip, data, len);
	vqb_add(b, (struct vqb_buf[]){VQB_R(gpa, skip + len)}, 1);
	kick_if_wanted(g, 2 * pair + 1, b, 1);
}

unsigned ng_sent(struct ng *g, unsigned pair)
{
	unsigned n = 0;
	u16 head;
	u32 len;

	while (vqb_used(&g->tx[pair], &head, &len)) {
		assert_int_equal(len, 0);
		n++;
	}
	return n;
}

static u64 rx_gpa(const struct ng *g, unsigned pair, u16 head)
{
	return RX_GPA + (u64)g->rx_len * (pair * (u64)VQ_SIZE_MAX + head);
}

static void add_rx_buf(struct ng *g, unsigned pair)
{
	struct vqb *b = &g->rx[pair];
	u64 gpa = rx_gpa(g, pair, b->free[b->free_count - 1]);

	vqb_add(b, (struct vqb_buf[]){VQB_W(gpa, g->rx_len)}, 1);
}

void ng_add_rx(struct ng *g, unsigned pair, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		add_rx_buf(g, pair);
	kick_if_wanted(g, 2 * pair, &g->rx[pair], n);
}

u32 ng_recv(struct ng *g, unsigned pair, struct virtio_net_hdr_v1 *h, void *data)
{
	struct virtio_net_hdr_v1 hdr = {.num_buffers = 1};
	u32 skip = hdr_len(g), total = 0, len;
	unsigned count = 1;
	u16 head;

	for (unsigned i = 0; i < count; i++, skip = 0) {
		/* The others must be there together with the first. */
		if (!vqb_used(&g->rx[pair], &head, &len)) {
			assert_int_equal(i, 0);
			return 0;
		}
		assert_true(len > skip && len <= g->rx_len);
		if (!i) {
			guest_read(&g->ram, rx_gpa(g, pair, head), &hdr, skip);
			count = skip == NG_HDR ? le16toh(hdr.num_buffers) : 1;
			assert_true(count >= 1 && (count == 1 || g->features & NET_F(MRG_RXBUF)));
		}
		guest_read(&g->ram, rx_gpa(g, pair, head) + skip, (u8 *)data + total, len - skip);
		total += len - skip;
		if (!g->no_refill)
			add_rx_buf(g, pair);
	}
	if (!g->no_refill)
		kick_if_wanted(g, 2 * pair, &g->rx[pair], count);
	if (h)
		*h = hdr;
	return total;
}

u8 ng_ctrl(struct ng *g, u8 class, u8 cmd, const void *data, u32 len)
{
	unsigned pairs = g->features & NET_F(MQ) ? g->pairs : 1;
	u8 front[2] = {class, cmd}, answer = 0xaa;
	u16 head;
	u32 used;

	guest_write(&g->ram, CTRL_GPA, front, sizeof(front));
	if (len)
		guest_write(&g->ram, CTRL_GPA + 0x100, data, len);
	guest_write(&g->ram, CTRL_GPA + 0x200, &answer, 1);
	vqb_add(&g->ctrl, (struct vqb_buf[]){VQB_R(CTRL_GPA, 2), VQB_R(CTRL_GPA + 0x100, len),
		VQB_W(CTRL_GPA + 0x200, 1)}, 3);
	drv_kick(g->dev, 2 * pairs);
	NG_UNTIL(g, vqb_used(&g->ctrl, &head, &used));
	assert_int_equal(used, 1);
	guest_read(&g->ram, CTRL_GPA + 0x200, &answer, 1);
	return answer;
}

u32 ng_config(struct ng *g, u32 off, u32 len)
{
	u32 v = 0;

	virtio_mmio_read(g->dev, VIRTIO_MMIO_CONFIG + off, &v, len);
	return v;
}

/* Host. */

void ng_host_send(struct ng *g, unsigned pair, const struct virtio_net_hdr_v1 *h,
	const void *data, u32 len)
{
	static const struct virtio_net_hdr_v1 zero;
	u32 prefix = htobe32(len);
	struct iovec iov[2] = {{(void *)(h ? h : &zero), sizeof(zero)}, {(void *)data, len}};

	if (g->stream)
		iov[0] = (struct iovec){&prefix, sizeof(prefix)};
	assert_int_equal(writev(g->host[pair], iov, 2), iov[0].iov_len + len);
}

u32 ng_host_recv(struct ng *g, unsigned pair, struct virtio_net_hdr_v1 *h, void *data)
{
	struct virtio_net_hdr_v1 hdr;
	struct iovec iov[2] = {{&hdr, sizeof(hdr)}, {data, NG_FRAME}};
	ssize_t n = readv(g->host[pair], iov, 2);

	assert_false(g->stream);
	if (n < 0) {
		assert_int_equal(errno, EAGAIN);
		return 0;
	}
	assert_true(n > (ssize_t)sizeof(hdr));
	if (h)
		*h = hdr;
	return (u32)n - (u32)sizeof(hdr);
}

void ng_host_frame(struct ng *g, u32 len, u32 seed)
{
	static u8 data[NG_FRAME];

	ng_frame_in(data, len, seed);
	ng_host_send(g, 0, NULL, data, len);
}

void ng_expect_frame(struct ng *g, u32 len, u32 seed)
{
	static u8 data[NG_FRAME], want[NG_FRAME];
	u32 got;

	NG_UNTIL(g, (got = ng_recv(g, 0, NULL, data)) > 0);
	assert_int_equal(got, len);
	ng_frame_in(want, len, seed);
	assert_memory_equal(data, want, len);
}
