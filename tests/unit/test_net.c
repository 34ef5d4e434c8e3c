/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net.c - the network device against drivers that are wrong or hostile, by the ids of the
 * catalogue (N01 .. N12), and against saved states that are.
 */
#include "tests/lib/net_guest.h"

#include <endian.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OFFLOADS_OUT (NET_F(CSUM) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6) | 1ull << NET_F_HOST_USO)
#define OFFLOADS_IN                                                                                \
	(NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | 1ull << NET_F_GUEST_USO4 |    \
		1ull << NET_F_GUEST_USO6)
#define AT_GPA  0x180000ull /* among the TX buffers: for chains the tests make by hand */
#define TOO_BIG (1u << 20)

#define CSUM VIRTIO_NET_HDR_F_NEEDS_CSUM
#define TCP4 VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6 VIRTIO_NET_HDR_GSO_TCPV6
#define UDP4 NET_GSO_UDP_L4

#ifdef __SANITIZE_THREAD__
/* Headers are copied while the driver may write them: that is the point; the copy counts. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:iov_to_host\nrace:span_copy_out\n";
}
#endif

static u8 out[NG_FRAME], in[NG_FRAME];

/* A header as a driver on this machine writes it. */
static struct virtio_net_hdr_v1 hdr(u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size,
	u16 csum_start, u16 csum_offset)
{
	return (struct virtio_net_hdr_v1){
		.flags = flags,
		.gso_type = gso_type,
		.hdr_len = htole16(hdr_len),
		.gso_size = htole16(gso_size),
		.csum_start = htole16(csum_start),
		.csum_offset = htole16(csum_offset),
	};
}

/* Offers a chain in the TX queue and waits until it is back; its length must be 0. */
static void tx_chain(struct ng *g, const struct vqb_buf *buf, u16 n)
{
	u16 head, got;
	u32 len;

	head = vqb_add(&g->tx[0], buf, n);
	drv_kick(g->dev, 1);
	NG_UNTIL(g, vqb_used(&g->tx[0], &got, &len));
	assert_int_equal(got, head);
	assert_int_equal(len, 0);
	ng_settle(g);
}

/* That the device still does what it is for. */
static void assert_works(struct ng *g)
{
	u32 got;

	assert_int_equal(drv_read(g->dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	ng_frame_out(out, 99, 1);
	ng_send(g, 0, NULL, out, 99);
	NG_UNTIL(g, (got = ng_host_recv(g, 0, NULL, in)) > 0);
	assert_int_equal(got, 99);
	assert_memory_equal(in, out, 99);
	ng_frame_in(out, 111, 2);
	ng_host_send(g, 0, NULL, out, 111);
	NG_UNTIL(g, (got = ng_recv(g, 0, NULL, in)) > 0);
	assert_int_equal(got, 111);
	assert_memory_equal(in, out, 111);
}

static void test_n01_short_header(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	for (u32 len = 0; len < NG_HDR + NET_ETH; len++) {
		tx_chain(&g, (struct vqb_buf[]){VQB_R(AT_GPA, len)}, 1);
		assert_int_equal(g.n->stats.tx_malformed, len + 1);
	}
	/* The same in pieces. */
	tx_chain(&g, (struct vqb_buf[]){VQB_R(AT_GPA, 7), VQB_R(AT_GPA, 0), VQB_R(AT_GPA, 4)}, 3);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 0);
	assert_works(&g);
	ng_finish(&g);
}

/* Headers in as many pieces as there are bytes are fine. */
static void test_n01_header_in_pieces(void **state)
{
	struct ng g = {0};
	struct vqb_buf buf[40];
	u32 got;

	ng_init(&g);
	ng_frame_out(out, 100, 5);
	guest_fill(&g.ram, AT_GPA, NG_HDR, 0);
	guest_write(&g.ram, AT_GPA + NG_HDR, out, 100);
	for (u32 i = 0; i < 40; i++)
		buf[i] = VQB_R(AT_GPA + i, i < 39 ? 1 : NG_HDR + 100 - 39);
	tx_chain(&g, buf, 40);
	got = ng_host_recv(&g, 0, NULL, in);
	assert_int_equal(got, 100);
	assert_memory_equal(in, out, 100);
	ng_finish(&g);
}

static void test_n02_writable(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	guest_fill(&g.ram, AT_GPA, 4096, 0xa5);
	tx_chain(&g, (struct vqb_buf[]){VQB_W(AT_GPA, 2000)}, 1);
	tx_chain(&g, (struct vqb_buf[]){VQB_R(AT_GPA, NG_HDR), VQB_W(AT_GPA + NG_HDR, 1500)}, 2);
	assert_int_equal(g.n->stats.tx_malformed, 2);
	assert_true(guest_is(&g.ram, AT_GPA, 4096, 0xa5));
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 0);
	assert_works(&g);
	ng_finish(&g);
}

/* Addresses outside RAM (Q09), and a ring that is broken. */
static void test_bad_chains(void **state)
{
	struct ng g = {0};

	ng_init(&g);
	tx_chain(&g, (struct vqb_buf[]){VQB_R(g.ram.mem.size - 100, 200)}, 1);
	assert_int_equal(g.n->stats.tx_malformed, 1);
	assert_works(&g);
	vqb_set_avail_idx(&g.tx[0], (u16)(g.tx[0].avail_idx + 1000));
	drv_kick(g.dev, 1);
	ng_settle(&g);
	assert_true(drv_read(g.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	drv_reset(g.dev);
	ng_driver(&g, 32);
	assert_works(&g);
	/* The same for what frames to the guest are put in. */
	vqb_set_avail_idx(&g.rx[0], (u16)(g.rx[0].avail_idx + 1000));
	for (unsigned i = 0; i < 40; i++) {
		ng_frame_in(out, 100, i);
		ng_host_send(&g, 0, NULL, out, 100);
	}
	ng_settle(&g);
	assert_true(drv_read(g.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(ng_run_ms(&g, 20), 0);
	ng_finish(&g);
}

static const struct {
	const char *what;
	u64 features; /* besides NG_BASE */
	u8 flags, gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset;
	bool ok; /* for a frame of 200 bytes */
} headers[] = {
	{"none", 0, 0, 0, 0, 0, 0, 0, true},
	{"noise where nothing counts", 0, 0, 0, 9999, 9999, 9999, 9999, true},
	{"N03 unknown gso_type", OFFLOADS_OUT, CSUM, 2, 54, 100, 34, 16, false},
	{"N03 UFO", OFFLOADS_OUT, CSUM, VIRTIO_NET_HDR_GSO_UDP, 42, 100, 34, 6, false},
	{"N03 gso_type 0xff", OFFLOADS_OUT, CSUM, 0xff, 54, 100, 34, 16, false},
	{"N03 ECN without feature", OFFLOADS_OUT, CSUM, 0x81, 54, 100, 34, 16, false},
	{"N03 ECN alone", OFFLOADS_OUT, CSUM, 0x80, 54, 100, 34, 16, false},
	{"N03 gso_size 0", OFFLOADS_OUT, CSUM, TCP4, 54, 0, 34, 16, false},
	{"N03 gso_size 1", OFFLOADS_OUT, CSUM, TCP4, 54, 1, 34, 16, true},
	{"N03 gso_size 65535", OFFLOADS_OUT, CSUM, TCP4, 54, 65535, 34, 16, true},
	{"N03 hdr_len 0: a hint only", OFFLOADS_OUT, CSUM, TCP4, 0, 100, 34, 16, true},
	{"N03 hdr_len = frame", OFFLOADS_OUT, CSUM, TCP4, 200, 100, 34, 16, true},
	{"N03 hdr_len > frame", OFFLOADS_OUT, CSUM, TCP4, 201, 100, 34, 16, false},
	{"N03 hdr_len 65535", OFFLOADS_OUT, CSUM, TCP4, 65535, 100, 34, 16, false},
	{"N03 gso without csum", OFFLOADS_OUT, 0, TCP4, 54, 100, 34, 16, false},
	{"N04 csum at the end", OFFLOADS_OUT, CSUM, 0, 0, 0, 182, 16, true},
	{"N04 csum past the end", OFFLOADS_OUT, CSUM, 0, 0, 0, 183, 16, false},
	{"N04 csum_start past the end", OFFLOADS_OUT, CSUM, 0, 0, 0, 201, 0, false},
	{"N04 csum_start 65535", OFFLOADS_OUT, CSUM, 0, 0, 0, 65535, 0, false},
	{"N04 csum_offset 65535", OFFLOADS_OUT, CSUM, 0, 0, 0, 34, 65535, false},
	{"N04 the sum wraps 16 bits", OFFLOADS_OUT, CSUM, 0, 0, 0, 65535, 65535, false},
	{"N04 the sum wraps to 34", OFFLOADS_OUT, CSUM, 0, 0, 0, 65520, 50, false},
	{"N04 csum over the addresses", OFFLOADS_OUT, CSUM, 0, 0, 0, 13, 16, false},
	{"N05 csum", 0, CSUM, 0, 0, 0, 34, 16, false},
	{"N05 tso4", NET_F(CSUM), CSUM, TCP4, 54, 100, 34, 16, false},
	{"N05 tso4, tso6 negotiated", NET_F(CSUM) | NET_F(HOST_TSO6), CSUM, TCP4, 54, 100, 34, 16,
		false},
	{"N05 tso6", NET_F(CSUM) | NET_F(HOST_TSO4), CSUM, TCP6, 74, 100, 54, 16, false},
	{"N05 uso", NET_F(CSUM) | NET_F(HOST_TSO4), CSUM, UDP4, 42, 100, 34, 6, false},
	{"N05 tso4 negotiated without csum", NET_F(HOST_TSO4), CSUM, TCP4, 54, 100, 34, 16, false},
	{"N05 flags of the other direction are ignored", OFFLOADS_OUT, 0xfe, 0, 0, 0, 0, 0, true},
	{"csum", NET_F(CSUM), CSUM, 0, 0, 0, 34, 16, true},
	{"tso4", NET_F(CSUM) | NET_F(HOST_TSO4), CSUM, TCP4, 54, 100, 34, 16, true},
	{"tso6", NET_F(CSUM) | NET_F(HOST_TSO6), CSUM, TCP6, 74, 100, 54, 16, true},
	{"uso", NET_F(CSUM) | 1ull << NET_F_HOST_USO, CSUM, UDP4, 42, 100, 34, 6, true},
};

static void test_n03_n04_n05_headers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		struct virtio_net_hdr_v1 got, h = hdr(headers[i].flags, headers[i].gso_type,
			headers[i].hdr_len, headers[i].gso_size, headers[i].csum_start,
			headers[i].csum_offset);
		struct ng g = {.offloads = NET_OFFLOADS, .features = NG_BASE | headers[i].features};
		bool csum = headers[i].flags & CSUM;
		u32 len;

		ng_init(&g);
		ng_frame_out(out, 200, 1);
		h.num_buffers = htole16(3); /* N06 */
		ng_send(&g, 0, &h, out, 200);
		ng_settle(&g);
		assert_int_equal(ng_sent(&g, 0), 1);
		len = ng_host_recv(&g, 0, &got, in);
		if (headers[i].ok != (len == 200) || g.n->stats.tx_malformed != !headers[i].ok)
			fail_msg("%s: %u bytes came", headers[i].what, len);
		if (len) {
			assert_memory_equal(in, out, 200);
			assert_int_equal(got.num_buffers, 0);
			assert_int_equal(got.flags, headers[i].flags & CSUM);
			assert_int_equal(le16toh(got.csum_start),
				csum ? headers[i].csum_start : 0);
			assert_int_equal(le16toh(got.gso_size),
				headers[i].gso_type ? headers[i].gso_size : 0);
		}
		assert_works(&g);
		ng_finish(&g);
	}
}

/* The number of buffers is ours, wherever the header lies and whatever the TAP put there. */
static void test_n06_num_buffers(void **state)
{
	static const u32 cut[] = {0, 1, 4, 10, 11, 12, 13};
	struct virtio_net_hdr_v1 h = {.num_buffers = htole16(0x7777)}, got;
	struct ng g = {0};
	u16 head;
	u32 len;

	ng_make(&g, NULL);
	ng_driver(&g, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cut); i++) {
		guest_fill(&g.ram, AT_GPA, 4096, 0xee);
		vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(AT_GPA, cut[i]),
			VQB_W(AT_GPA + cut[i], 500 - cut[i])}, 2);
		drv_kick(g.dev, 0);
		ng_frame_in(out, 300, (u32)i);
		ng_host_send(&g, 0, &h, out, 300);
		NG_UNTIL(&g, vqb_used(&g.rx[0], &head, &len));
		assert_int_equal(len, NG_HDR + 300);
		guest_read(&g.ram, AT_GPA, &got, NG_HDR);
		assert_int_equal(le16toh(got.num_buffers), 1);
		guest_read(&g.ram, AT_GPA + NG_HDR, in, 300);
		assert_memory_equal(in, out, 300);
		assert_true(guest_is(&g.ram, AT_GPA + NG_HDR + 300, 1000, 0xee));
	}
	ng_finish(&g);
}

static void test_n07_frame_lengths(void **state)
{
	static const struct {
		u32 len;
		bool ok;
	} cases[] = {
		{0, false}, {1, false}, {13, false}, {14, true}, {15, true}, {60, true},
		{1514, true}, {1518, true}, {9014, true}, {65535, true}, {65549, true},
		{NET_FRAME_MAX - 1, true}, {NET_FRAME_MAX, true}, {NET_FRAME_MAX + 1, false},
		{2 * NET_FRAME_MAX, false}, {TOO_BIG, false}, {48u << 20, false},
	};
	u8 *big = malloc(TOO_BIG);
	struct ng g = {0};
	u64 bad = 0;

	ng_init(&g);
	ng_frame_out(big, TOO_BIG, 3);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		u32 len = cases[i].len, write = len < TOO_BIG ? len : TOO_BIG;

		guest_fill(&g.ram, AT_GPA, NG_HDR, 0);
		if (write)
			guest_write(&g.ram, AT_GPA + NG_HDR, big, write);
		tx_chain(&g, (struct vqb_buf[]){VQB_R(AT_GPA, NG_HDR + len)}, 1);
		bad += !cases[i].ok;
		assert_int_equal(g.n->stats.tx_malformed, bad);
		assert_int_equal(ng_host_recv(&g, 0, NULL, in), cases[i].ok ? len : 0);
		if (cases[i].ok)
			assert_memory_equal(in, big, len);
	}
	free(big);
	ng_finish(&g);
}

/* The other way: what no guest could take is dropped, and what comes after it arrives. */
static void test_n07_frames_to_guest(void **state)
{
	static const u32 bad[] = {1, 13, NET_FRAME_MAX + 1, NET_FRAME_MAX + 60};
	struct ng g = {.features = NG_BASE | OFFLOADS_IN, .offloads = NET_OFFLOADS, .rx_size = 256};

	ng_make(&g, NULL);
	ng_driver(&g, 200);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ng_frame_in(out, bad[i] < 14 ? 14 : bad[i], 1);
		ng_host_send(&g, 0, NULL, out, bad[i]);
		assert_works(&g);
		assert_int_equal(g.n->stats.rx_dropped, i + 1);
	}
	for (u32 len = NET_FRAME_MAX - 1; len <= NET_FRAME_MAX; len++) {
		u32 got;

		ng_frame_in(out, len, 1);
		ng_host_send(&g, 0, NULL, out, len);
		NG_UNTIL(&g, (got = ng_recv(&g, 0, NULL, in)) > 0);
		assert_int_equal(got, len);
		assert_memory_equal(in, out, len);
	}
	ng_finish(&g);
}

static void test_n08_rx_buffers(void **state)
{
	struct ng g = {0};
	u16 head, bad[6];
	u32 len;

	ng_make(&g, NULL);
	ng_driver(&g, 0);
	bad[0] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(AT_GPA, 0)}, 1);
	bad[1] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(AT_GPA, 1)}, 1);
	bad[2] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(AT_GPA, 11)}, 1);
	bad[3] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(AT_GPA, 12)}, 1);
	bad[4] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_R(AT_GPA, 2000)}, 1);
	bad[5] = vqb_add(&g.rx[0], (struct vqb_buf[]){VQB_W(g.ram.mem.size, 2000)}, 1);
	guest_fill(&g.ram, AT_GPA, 4096, 0xee);
	ng_frame_in(out, 300, 1);
	ng_host_send(&g, 0, NULL, out, 300);
	drv_kick(g.dev, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		NG_UNTIL(&g, vqb_used(&g.rx[0], &head, &len));
		assert_int_equal(head, bad[i]);
		assert_int_equal(len, 0);
	}
	assert_true(guest_is(&g.ram, AT_GPA, 4096, 0xee));
	assert_int_equal(g.dev->stats.rejected_chains, 6);
	/* The frame has waited for a good one. */
	ng_add_rx(&g, 0, 1);
	NG_UNTIL(&g, ng_recv(&g, 0, NULL, in) == 300);
	assert_works(&g);
	ng_finish(&g);
}

/* A frame over the smallest buffers there can be. */
static void test_n08_tiny_buffers(void **state)
{
	struct ng g = {.rx_len = 13};
	u32 got;

	ng_make(&g, NULL);
	ng_driver(&g, 64);
	ng_frame_in(out, 1 + 63 * 13, 1);
	ng_host_send(&g, 0, NULL, out, 1 + 63 * 13);
	NG_UNTIL(&g, (got = ng_recv(&g, 0, NULL, in)) > 0);
	assert_int_equal(got, 1 + 63 * 13);
	assert_memory_equal(in, out, got);
	/* One byte more than all buffers of the ring can hold is dropped, not waited for. */
	ng_host_send(&g, 0, NULL, out, 2 + 63 * 13);
	ng_frame_in(out, 100, 2);
	ng_host_send(&g, 0, NULL, out, 100);
	NG_UNTIL(&g, (got = ng_recv(&g, 0, NULL, in)) > 0);
	assert_int_equal(got, 100);
	assert_memory_equal(in, out, got);
	assert_int_equal(g.n->stats.rx_dropped, 1);
	ng_finish(&g);
}

static void test_n10_no_control_queue(void **state)
{
	struct ng g = {.no_ctrl = true};

	ng_init(&g);
	for (u32 q = 2; q < 40; q++)
		drv_kick(g.dev, q);
	drv_kick(g.dev, 0xffff);
	drv_kick(g.dev, 0xffffffff);
	assert_works(&g);
	ng_finish(&g);

	/* There, but the feature was not negotiated: not looked at. */
	g = (struct ng){.features = NG_BASE & ~NET_F(CTRL_VQ)};
	ng_init(&g);
	vqb_add(&g.ctrl, (struct vqb_buf[]){VQB_R(AT_GPA, 2), VQB_W(AT_GPA + 16, 1)}, 2);
	drv_kick(g.dev, 2);
	ng_settle(&g);
	assert_int_equal(vqb_used_waiting(&g.ctrl), 0);
	assert_works(&g);
	ng_finish(&g);
}

static void test_n10_control_queue_abuse(void **state)
{
	static const struct {
		u32 out_len, in_len, used;
	} chains[] = {{0, 0, 0}, {0, 1, 1}, {1, 1, 1}, {2, 0, 0}, {2, 1, 1}, {2, 4096, 1},
		{8, 1, 1}, {9, 1, 1}, {0x100000, 1, 1}};
	static const u8 junk[6];
	struct ng g = {.features = NG_BASE | NET_F(GUEST_ANNOUNCE)};
	u16 head;
	u32 len;
	u8 answer;

	ng_init(&g);
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		guest_fill(&g.ram, AT_GPA, 4096, 0);
		guest_fill(&g.ram, AT_GPA + 0x200000, 16, 0xaa);
		vqb_add(&g.ctrl, (struct vqb_buf[]){VQB_R(AT_GPA, chains[i].out_len),
			VQB_W(AT_GPA + 0x200000, chains[i].in_len)}, 2);
		drv_kick(g.dev, 2);
		NG_UNTIL(&g, vqb_used(&g.ctrl, &head, &len));
		assert_int_equal(len, chains[i].used);
		guest_read(&g.ram, AT_GPA + 0x200000, &answer, 1);
		assert_int_equal(answer, len ? VIRTIO_NET_ERR : 0xaa);
	}
	/* Every class and command; only the acknowledgement is one that was negotiated. */
	for (unsigned c = 0; c < 256; c++) {
		for (unsigned cmd = 0; cmd < 8; cmd++) {
			bool ack = c == VIRTIO_NET_CTRL_ANNOUNCE && !cmd;

			assert_int_equal(ng_ctrl(&g, (u8)c, (u8)cmd, junk, 0), !ack);
			assert_int_equal(ng_ctrl(&g, (u8)c, (u8)cmd, junk, 6), VIRTIO_NET_ERR);
		}
	}
	assert_works(&g);
	ng_finish(&g);
}

static void test_n11_spoofed_source(void **state)
{
	static const u8 group[6] = {0x01, 0, 0x5e, 0, 0, 1};
	struct ng g = {0};

	ng_init(&g);
	for (unsigned bit = 0; bit < 48; bit++) {
		ng_frame_out(out, 60, 1);
		out[6 + bit / 8] ^= (u8)(1u << bit % 8);
		ng_send(&g, 0, NULL, out, 60);
	}
	ng_frame_out(out, 60, 1);
	memcpy(out + 6, group, 6);
	ng_send(&g, 0, NULL, out, 60);
	ng_settle(&g);
	assert_int_equal(ng_sent(&g, 0), 49);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 0);
	assert_int_equal(g.n->stats.tx_spoofed, 49);
	/* Destinations are the host's business. */
	ng_frame_out(out, 60, 1);
	memset(out, 0xff, 6);
	ng_send(&g, 0, NULL, out, 60);
	ng_settle(&g);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 60);
	/* Its address is not the guest's to choose. */
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6),
		VIRTIO_NET_ERR);
	ng_finish(&g);
}

static void test_n11_spoofing_allowed(void **state)
{
	static const u8 mac[6] = {0x02, 1, 2, 3, 4, 5}, group[6] = {0x03, 1, 2, 3, 4, 5};
	struct ng g = {.cfg.allow_spoof = true, .features = NG_BASE | NET_F(CTRL_MAC_ADDR)};

	ng_init(&g);
	ng_frame_out(out, 60, 1);
	memcpy(out + 6, mac, 6);
	ng_send(&g, 0, NULL, out, 60);
	ng_settle(&g);
	assert_int_equal(ng_host_recv(&g, 0, NULL, in), 60);
	assert_memory_equal(in, out, 60);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6),
		VIRTIO_NET_ERR);
	assert_int_equal(ng_ctrl(&g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6),
		VIRTIO_NET_OK);
	assert_int_equal(ng_config(&g, 5, 1), 5);
	ng_finish(&g);
}

/* A driver that changes headers while they are looked at sends nothing that was not checked. */
static void *flip_headers(void *arg)
{
	struct ng *g = arg;
	u8 *p = guest_at(&g->ram, AT_GPA, NG_HDR + 60);

	for (u8 v = 0; !__atomic_load_n(&g->no_refill, __ATOMIC_RELAXED); v++) {
		__atomic_store_n(p, v & 1 ? CSUM : 0, __ATOMIC_RELAXED);
		__atomic_store_n(p + 1, v & 2 ? 0x77 : 0, __ATOMIC_RELAXED);
		__atomic_store_n(p + 7, v & 4 ? 0xff : 0, __ATOMIC_RELAXED);
		__atomic_store_n(p + NG_HDR + 6, v & 8 ? 0x66 : ng_mac[0], __ATOMIC_RELAXED);
	}
	return NULL;
}

static void test_n11_double_fetch(void **state)
{
	struct ng g = {.features = NG_BASE | NET_F(CSUM), .offloads = NET_OFFLOADS};
	struct virtio_net_hdr_v1 h;
	unsigned came = 0;
	pthread_t vcpu;
	u32 len;

	ng_init(&g);
	ng_frame_out(out, 60, 1);
	guest_fill(&g.ram, AT_GPA, NG_HDR, 0);
	guest_write(&g.ram, AT_GPA + 6, "\x22\0\x10", 3);
	guest_write(&g.ram, AT_GPA + NG_HDR, out, 60);
	assert_int_equal(pthread_create(&vcpu, NULL, flip_headers, &g), 0);
	for (unsigned i = 0; i < 20000; i++) {
		tx_chain(&g, (struct vqb_buf[]){VQB_R(AT_GPA, NG_HDR + 60)}, 1);
		len = ng_host_recv(&g, 0, &h, in);
		if (!len)
			continue;
		came++;
		assert_int_equal(len, 60);
		assert_memory_equal(in + 6, ng_mac, 6);
		assert_int_equal(h.gso_type, 0);
		if (h.flags)
			assert_true(le16toh(h.csum_start) < 60);
	}
	__atomic_store_n(&g.no_refill, true, __ATOMIC_RELAXED);
	pthread_join(vcpu, NULL);
	assert_true(came && g.n->stats.tx_spoofed && g.n->stats.tx_malformed);
	assert_int_equal(came + g.n->stats.tx_spoofed + g.n->stats.tx_malformed, 20000);
	ng_finish(&g);
}

/* Whatever is negotiated, both sides agree where a frame begins. */
static void test_n12_all_feature_mixes(void **state)
{
	static const u64 bit[] = {VIRTIO_MASK_VERSION_1, NET_F(MRG_RXBUF), NET_F(CSUM),
		NET_F(GUEST_CSUM), NET_F(HOST_TSO4), NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6),
		NET_F(CTRL_VQ), NET_F(MAC) | NET_F(STATUS), 1ull << NET_F_HOST_USO, NET_F(MQ)};

	for (unsigned mix = 0; mix < 1u << ARRAY_SIZE(bit); mix++) {
		struct ng g = {.pairs = 2, .offloads = NET_OFFLOADS, .rx_size = 8,
			.rx_len = 512};
		u32 hdr_len = mix & 3 ? 12 : 10;
		u64 gpa;

		g.features = VIRTIO_MASK_INDIRECT_DESC;
		for (unsigned i = 0; i < ARRAY_SIZE(bit); i++)
			g.features |= mix >> i & 1 ? bit[i] : 0;
		ng_make(&g, NULL);
		ng_driver(&g, 8);
		ng_settle(&g);
		assert_int_equal(g.n->hdr_len, hdr_len);
		assert_works(&g);
		/* The first used buffer of all: the frame begins behind the header. */
		gpa = 0x2000000ull;
		guest_read(&g.ram, gpa + hdr_len, in, 6);
		assert_memory_equal(in, ng_mac, 6);
		ng_finish(&g);
	}
}

/* Without MRG_RXBUF a chain holds a frame, or it does not. */
static void test_no_merge(void **state)
{
	struct ng g = {.features = NG_BASE & ~NET_F(MRG_RXBUF), .rx_len = 512};
	struct virtio_net_hdr_v1 h;
	u32 got;

	ng_init(&g);
	ng_frame_in(out, 501, 1);
	ng_host_send(&g, 0, NULL, out, 501);
	ng_settle(&g);
	assert_int_equal(ng_recv(&g, 0, NULL, in), 0);
	assert_int_equal(g.n->stats.rx_dropped, 1);
	ng_frame_in(out, 500, 2);
	ng_host_send(&g, 0, NULL, out, 500);
	NG_UNTIL(&g, (got = ng_recv(&g, 0, &h, in)) > 0);
	assert_int_equal(got, 500);
	assert_memory_equal(in, out, 500);
	assert_int_equal(le16toh(h.num_buffers), 1);
	ng_settle(&g);
	assert_int_equal(g.dev->queue[0].in_flight_count, 0);
	ng_finish(&g);
}

/* What the TAP had from before the driver said what it can take. */
static void test_frames_not_negotiated(void **state)
{
	struct ng g = {.features = NG_BASE | NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4),
		.offloads = NET_OFFLOADS};
	struct virtio_net_hdr_v1 h[] = {hdr(CSUM, TCP6, 74, 100, 54, 16),
		hdr(CSUM, UDP4, 42, 100, 34, 6), hdr(CSUM, 3, 42, 100, 34, 6),
		hdr(CSUM, TCP4, 54, 100, 34, 16), hdr(VIRTIO_NET_HDR_F_DATA_VALID, 0, 0, 0, 0, 0)};
	struct virtio_net_hdr_v1 got;

	ng_init(&g);
	ng_frame_in(out, 300, 1);
	for (size_t i = 0; i < ARRAY_SIZE(h); i++)
		ng_host_send(&g, 0, &h[i], out, 300);
	for (size_t i = 3; i < ARRAY_SIZE(h); i++) {
		NG_UNTIL(&g, ng_recv(&g, 0, &got, in) == 300);
		h[i].num_buffers = htole16(1);
		assert_memory_equal(&got, &h[i], NG_HDR);
	}
	assert_int_equal(g.n->stats.rx_dropped, 3);
	ng_finish(&g);

	g = (struct ng){.offloads = NET_OFFLOADS};
	ng_init(&g);
	for (size_t i = 0; i < ARRAY_SIZE(h); i++)
		ng_host_send(&g, 0, &h[i], out, 300);
	NG_UNTIL(&g, ng_recv(&g, 0, &got, in) == 300);
	assert_int_equal(got.flags, 0);
	assert_int_equal(g.n->stats.rx_dropped, 4);
	ng_finish(&g);
}

/* Saved states. */

static void expect_refused(struct ng *g, const struct enc *saved, const char *why)
{
	struct virtio_irq irq = g->dev->irq;
	struct net_config cfg = g->cfg;
	struct virtio_dev *d;
	struct net_backend b = {.kind = NET_TAP, .fds_count = g->pairs, .name = "test",
		.offloads = g->offloads};
	struct err e = {0};

	for (unsigned i = 0; i < g->pairs; i++)
		b.fds[i] = dup(g->host[i]);
	assert_int_equal(net_create(&d, &cfg, &b, g->ring, &g->ram.mem, irq, &e), 0);
	if (!virtio_load(d, saved->buf, saved->len, &e))
		fail_msg("loaded; should be refused: %s", why);
	if (!strstr(e.msg, why))
		fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
	d->ops->destroy(d);
}

static void test_hostile_state(void **state)
{
	/* Bytes from the end: mac 6, mtu 2, pairs 2, pairs_used 2, flags 1. */
	static const struct {
		unsigned from_end;
		u8 value;
		const char *why;
	} cases[] = {{13, 0x03, "mac"}, {7, 1, "mtu"}, {5, 9, "pairs"}, {5, 0, "pairs"},
		{3, 0, "pairs_used"}, {3, 3, "pairs_used"}, {2, 1, "pairs_used"}, {1, 4, "flags"},
		{1, 0x80, "flags"}};
	struct ng g = {.pairs = 2, .features = NG_BASE | NET_F(MQ)};
	struct enc saved = {0};

	ng_init(&g);
	ng_save(&g, &saved);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		u8 *p = &saved.buf[saved.len - cases[i].from_end], was = *p;

		*p = cases[i].value;
		expect_refused(&g, &saved, cases[i].why);
		*p = was;
	}
	for (size_t len = 0; len < saved.len; len++) {
		struct enc part = {.buf = saved.buf, .len = len};

		expect_refused(&g, &part, "");
	}
	ng_restore(&g, &saved);
	assert_works(&g);
	enc_free(&saved);
	ng_finish(&g);
}

/* Any bytes at all: refused, or a device that works or breaks; but never we. */
static void mutant(struct ng *g, const u8 *state, size_t len)
{
	struct net_backend b = {.kind = NET_TAP, .fds_count = g->pairs, .name = "test"};
	struct virtio_dev *d;
	struct ring *ring;

	for (unsigned i = 0; i < g->pairs; i++)
		b.fds[i] = dup(g->host[i]);
	assert_int_equal(ring_create(&ring, 64, NULL), 0);
	assert_int_equal(net_create(&d, &g->cfg, &b, ring, &g->ram.mem, g->dev->irq, NULL), 0);
	if (!virtio_load(d, state, len, NULL)) {
		net_start(d);
		for (unsigned i = 0; i < 4; i++) {
			virtio_process(d);
			assert_true(ring_poll_once(ring) >= 0);
		}
	}
	ring_destroy(&ring);
	d->ops->destroy(d);
}

static void test_mutated_state(void **state)
{
	struct ng g = {.pairs = 2, .features = NG_BASE | NET_F(MQ)};
	struct enc saved = {0};
	u32 x = 12345;

	ng_init(&g);
	ng_frame_in(out, 200, 1);
	ng_save(&g, &saved);
	for (unsigned i = 0; i < 2000; i++) {
		u8 *copy = malloc(saved.len);

		memcpy(copy, saved.buf, saved.len);
		for (unsigned k = 0; k < 1 + i % 3; k++) {
			x = x * 1664525 + 1013904223;
			copy[(x >> 8) % saved.len] ^= (u8)(1u << (x >> 28) % 8);
		}
		mutant(&g, copy, saved.len);
		free(copy);
	}
	enc_free(&saved);
	ng_finish(&g);
}

/* What an operator can get wrong. */
static void test_config_errors(void **state)
{
	static const struct {
		struct net_config cfg;
		const char *why;
	} cases[] = {
		{{.id = "a", .pairs = 1, .mac = {1, 2, 3, 4, 5, 6}}, "mac 01:02:03:04:05:06"},
		{{.id = "a", .pairs = 1}, "mac 00:"},
		{{.id = "a", .pairs = 1, .mac = {2}, .mtu = 67}, "mtu 67"},
		{{.id = "a", .pairs = 0, .mac = {2}}, "0 queue pairs"},
		{{.id = "a", .pairs = 3, .mac = {2}}, "3 queue pairs"},
	};
	struct ng g = {0};

	ng_init(&g);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct net_backend b = {.kind = NET_TAP, .fds_count = 2, .fds = {-1, -1}};
		struct virtio_dev *d;
		struct err e = {0};

		assert_true(net_create(&d, &cases[i].cfg, &b, g.ring, &g.ram.mem, g.dev->irq, &e) <
			0);
		if (!strstr(e.msg, cases[i].why))
			fail_msg("\"%s\" does not say \"%s\"", e.msg, cases[i].why);
		assert_int_equal(b.fds_count, 2);
	}
	ng_finish(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_n01_short_header),
		cmocka_unit_test(test_n01_header_in_pieces),
		cmocka_unit_test(test_n02_writable),
		cmocka_unit_test(test_bad_chains),
		cmocka_unit_test(test_n03_n04_n05_headers),
		cmocka_unit_test(test_n06_num_buffers),
		cmocka_unit_test(test_n07_frame_lengths),
		cmocka_unit_test(test_n07_frames_to_guest),
		cmocka_unit_test(test_n08_rx_buffers),
		cmocka_unit_test(test_n08_tiny_buffers),
		cmocka_unit_test(test_n10_no_control_queue),
		cmocka_unit_test(test_n10_control_queue_abuse),
		cmocka_unit_test(test_n11_spoofed_source),
		cmocka_unit_test(test_n11_spoofing_allowed),
		cmocka_unit_test(test_n11_double_fetch),
		cmocka_unit_test(test_n12_all_feature_mixes),
		cmocka_unit_test(test_no_merge),
		cmocka_unit_test(test_frames_not_negotiated),
		cmocka_unit_test(test_hostile_state),
		cmocka_unit_test(test_mutated_state),
		cmocka_unit_test(test_config_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
