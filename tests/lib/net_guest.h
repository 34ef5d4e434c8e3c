/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_guest.h - a network device on a real ring, with a guest's driver, and socket pairs that stand
 * in for the queues of a TAP: each packet is a virtio header of 12 bytes and a frame.
 *
 * One thread: the test plays guest and host by turns, and ng_turn() lets the loop run in between.
 * What cannot go wrong in a correct program is asserted here, with the caller's test failing.
 */
#ifndef KELVIN_TESTS_NET_GUEST_H
#define KELVIN_TESTS_NET_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/lib/vq_builder.h"
#include "virtio/net_int.h"

#define NG_PAIRS   4u
#define NG_SLOT    0x11000u /* bytes of guest memory for each buffer */
#define NG_HDR     ((u32)NET_HDR)
#define NG_FRAME   (NET_FRAME_MAX + 64u) /* room for a frame, and for one too long */
/* What a modern driver accepts, besides what it finds. */
#define NG_BASE    (VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC | NET_F(MAC) |               \
	NET_F(STATUS) | NET_F(MRG_RXBUF) | NET_F(CTRL_VQ))
/* The same with long frames. */
#define NG_GSO     (NG_BASE | NET_F(CSUM) | NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) |                \
	NET_F(GUEST_TSO6) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6))

struct ng {
	/* To be set before ng_make(). */
	unsigned pairs;      /* 0: one */
	struct net_config cfg; /* mac, id and pairs are filled in */
	u64 offloads;        /* of the back end */
	bool stream;         /* one stream socket, as passt's */
	struct net_backend *backend; /* a real one; there are no host[] then */
	/* To be set before ng_driver(). */
	u64 features;        /* 0: NG_BASE */
	u32 rx_len;          /* bytes of an RX buffer with header; 0: 2048 */
	u16 rx_size;         /* of the RX ring; 0: 64 */
	bool no_ctrl;        /* the control queue is not set up */
	bool no_refill;      /* used RX buffers stay out */

	struct guest_ram ram;
	struct vqb rx[NG_PAIRS], tx[NG_PAIRS], ctrl;
	struct ring *ring;
	struct virtio_dev *dev;
	struct net *n;       /* the same, from inside */
	int host[NG_PAIRS];  /* the host's ends */
	struct ring_op kick_op;
	u64 kick_count;
	unsigned irqs;       /* raised so far */
	unsigned turns;      /* callbacks run so far */
};

extern const u8 ng_mac[6]; /* the device's */

/*
 * Whether the back end is one of a kernel without RWF_NOWAIT for TAPs. NG_BOTH(t) is two tests for
 * cmocka: t as it is, and for such a kernel.
 */
extern bool ng_no_nowait;
int ng_old_kernel(void **state);
int ng_new_kernel(void **state);
#define NG_BOTH(t) cmocka_unit_test(t), {#t "_no_nowait", t, ng_old_kernel, ng_new_kernel, NULL}

/* Memory, ring and device; no driver yet. @saved: what ng_save() gave, or NULL. */
void ng_make(struct ng *g, const struct enc *saved);
/* The driver: all queues, @rx_bufs buffers in each RX ring, DRIVER_OK. */
void ng_driver(struct ng *g, unsigned rx_bufs);
/* ng_make() and ng_driver() with 32 RX buffers, and some turns. */
void ng_init(struct ng *g);
void ng_finish(struct ng *g);
/* Freezes the device, saves it, thaws it. */
void ng_save(struct ng *g, struct enc *out);
/* Puts another device in the place of the one there, in the same guest memory. */
void ng_restore(struct ng *g, const struct enc *saved);

unsigned ng_turn(struct ng *g);
void ng_settle(struct ng *g);
unsigned ng_run_ms(struct ng *g, unsigned ms);
u64 ng_now_ms(void);
#define NG_UNTIL(g, cond)                                                                          \
	do {                                                                                       \
		u64 end_ = ng_now_ms() + 10000;                                                    \
		while (!(cond)) {                                                                  \
			if (ng_now_ms() > end_)                                                    \
				fail_msg("never: %s", #cond);                                      \
			ng_turn(g);                                                                \
		}                                                                                  \
	} while (0)

/* A frame of @len bytes to the device's address, or from it; the rest follows from @seed. */
void ng_frame_in(u8 *out, u32 len, u32 seed);
void ng_frame_out(u8 *out, u32 len, u32 seed);

/* Guest. */
/* Sends a frame from one buffer, behind @h (NULL: zeros). Does not turn. Kicks. */
void ng_send(struct ng *g, unsigned pair, const struct virtio_net_hdr_v1 *h, const void *frame,
	u32 len);
/* Takes used TX elements back; returns how many. */
unsigned ng_sent(struct ng *g, unsigned pair);
/* Takes the next frame, if there is one; returns its length or 0. @h may be NULL. */
u32 ng_recv(struct ng *g, unsigned pair, struct virtio_net_hdr_v1 *h, void *frame);
void ng_add_rx(struct ng *g, unsigned pair, unsigned n);
/* A control command; returns the answer. */
u8 ng_ctrl(struct ng *g, u8 class, u8 cmd, const void *data, u32 len);
u32 ng_config(struct ng *g, u32 off, u32 len);

/* Host. */
void ng_host_send(struct ng *g, unsigned pair, const struct virtio_net_hdr_v1 *h,
	const void *frame, u32 len);
/* ng_frame_in() for pair 0, and its arrival in the guest. */
void ng_host_frame(struct ng *g, u32 len, u32 seed);
void ng_expect_frame(struct ng *g, u32 len, u32 seed);
/* What came, or 0. Does not turn. */
u32 ng_host_recv(struct ng *g, unsigned pair, struct virtio_net_hdr_v1 *h, void *frame);

#endif
