/* SPDX-License-Identifier: Apache-2.0 */
/* vs.h - vsock packets by hand (virtio 1.2, 5.10.6). */
#ifndef VILLAIN_VS_H
#define VILLAIN_VS_H

#include "villain.h"

#define VS_RX    0
#define VS_TX    1
#define VS_EVENT 2

#define VS_HOST        2
#define VS_STREAM      1
#define VS_RX_COUNT    16
#define VS_RX_ROOM     (4096 + sizeof(struct packet)) /* of each of our buffers */
#define VS_PORT_NOBODY 9 /* of the host: nobody listens there */
#define VS_PORT_FIRST  20000 /* ours */

enum {
	OP_REQUEST = 1,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST,
};

struct packet {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port;
	u32 len;
	u16 type, op;
	u32 flags;
	u32 buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct packet) == 44, "the header of the specification");

/* A header as a good driver would make it. */
struct packet vs_header(const struct scene *s, u16 op, u32 src_port, u32 dst_port);
/* Offers a header and @len bytes at @payload; returns the head. Does not wait. */
u16 vs_put(struct scene *s, const struct packet *h, const void *payload, u32 len);
/* Sends a header and @len bytes at @payload. Waits until the device gave the chain back;
 * false, and a complaint, if it does not. */
bool vs_send(struct scene *s, const struct packet *h, const void *payload, u32 len);
/* Gives the device @count receive buffers. */
void vs_rx_fill(struct scene *s, u16 count);
/* The next packet for us, and its payload if @data is not NULL (VS_RX_ROOM bytes). False if none
 * comes within @ms. The buffer goes back to the device. */
bool vs_recv(struct scene *s, struct packet *h, void *data, unsigned ms);
/* Waits for a packet with @op for our @port, ignoring others; complains if it does not come. */
bool vs_expect(struct scene *s, u16 op, u32 port, struct packet *h);

/* A port of ours that was not used before. */
u32 vs_port(struct scene *s);
/* Sends a good packet and complains unless the next packet that comes is its answer: so what was
 * sent before it was dropped. */
bool vs_only_answer(struct scene *s);

/* A connection to the host, from our side. */
struct vs_conn {
	u32 port, peer;
	u32 buf_alloc, fwd_cnt; /* what we say about ourselves */
	u32 sent, got;
	u32 peer_alloc, peer_fwd, peer_shut;
	bool open, dead; /* dead: an RST came */
};

/* Servers of the host that cases count on; tests/e2e/villain_host.py has them. */
#define PEER_SINK   5001 /* reads and forgets */
#define PEER_STUCK  5002 /* never reads */
#define PEER_SOURCE 5003 /* sends SOURCE_BYTES, byte i being i % 251 */
#define PEER_GAUGE  5004 /* answers a byte by a struct gauge about the monitor */
#define PEER_CLOSER 5005 /* closes when something was received */
#define SOURCE_BYTES (256u << 10)

struct gauge {
	u32 fds, rss_kib;
	u64 loop_ns; /* processor time of its event loop */
};

/* Connects; false if the host refuses (or does nothing, which is complained about elsewhere). */
bool vs_open(struct scene *s, struct vs_conn *c, u32 peer, u32 buf_alloc);
/* Sends a packet without, or with payload. */
void vs_say(struct scene *s, struct vs_conn *c, u16 op, u32 flags);
void vs_data(struct scene *s, struct vs_conn *c, const void *data, u32 len);
/* Takes note of a packet; false if it is not for @c. */
bool vs_heard(struct vs_conn *c, const struct packet *h);
/* Waits for the RST that ends @c; complains if it does not come. */
bool vs_ends(struct scene *s, struct vs_conn *c);

#endif
