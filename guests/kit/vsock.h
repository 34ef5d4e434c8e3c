/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.h - stream connections between this guest and its host (virtio 1.2, 5.10).
 *
 * One thread, nothing blocks. A guest listens or connects with a table of callbacks; then it calls
 * vsock_wait() for ever, which calls ops->event(c) whenever connection c may have something new: it
 * was opened, data came, the peer is done sending, or there is room to send again after a send
 * that was cut short. event() looks with vsock_peek() and friends; what it does not consume stays
 * and is offered again, and the peer is slowed down by the credit it gets back.
 *
 * When the machine is restored from a snapshot all connections are gone (closed() is called); the
 * listeners stay.
 */
#ifndef KIT_VSOCK_H
#define KIT_VSOCK_H

#include "virtio.h"

#define VSOCK_CID_HOST  2
#define VSOCK_CONNS     64
#define VSOCK_LISTENERS 8

struct vsock_conn;

struct vsock_ops {
	void (*event)(struct vsock_conn *c);
	/* The peer or a restore ended the connection; not called after vsock_close(). Optional. */
	void (*closed)(struct vsock_conn *c);
};

struct vsock_conn {
	u64 user[4]; /* yours; 0 at first */

	/* The rest belongs to vsock.c. */
	const struct vsock_ops *ops;
	u8 state;
	u8 control;      /* packets to be sent as soon as there is room: bits 1 << op */
	u8 peer_shut;    /* what the peer said it will not do any more */
	u8 we_shut;
	bool due;        /* event() is to be called */
	bool short_room; /* a send was cut because the transmit queue was full ... */
	bool short_credit; /* ... or because the peer has no space */
	u32 local_port, peer_port;
	u64 peer_cid;
	u32 peer_alloc, peer_fwd; /* the peer's space, and what it has consumed of what we sent */
	u32 sent;
	u32 received, consumed, consumed_told;
	const u8 *packet; /* what just came, still in the receive buffer; only inside event() */
	u32 packet_len;
	u8 *kept; /* earlier bytes not consumed: kept[kept_at .. kept_at + kept_len) */
	u32 kept_at, kept_len;
};

/* Sizes; 0: the default, which is small. */
struct vsock_setup {
	unsigned slots; /* packets on the way in each direction: a power of 2 from 8 to 128 (8) */
	u32 payload;    /* bytes of data in a packet, a multiple of 64, up to 64 KiB (32 KiB - 64) */
	u32 credit;     /* bytes a peer may send ahead of event(); a connection whose event() leaves
			 * some has a buffer of that size (256 KiB) */
};
#define VSOCK_PAYLOAD_MAX 65536u

/* Finds and starts the device; false where there is none, or not the memory. */
bool vsock_init_for(const struct vsock_setup *setup);
bool vsock_init(void);
/* This guest's address. */
u32 vsock_cid(void);
/* The device's interrupt line; for those who take interrupts. */
const struct virtio_dev *vsock_device(void);

/* Takes connections to @port. @ops is copied. */
bool vsock_listen(u32 port, const struct vsock_ops *ops);
/* Begins a connection; event() follows when it is open, closed() if refused. NULL: none free. */
struct vsock_conn *vsock_connect(u32 peer_cid, u32 peer_port, const struct vsock_ops *ops);

/* The bytes received and not consumed; valid until the next call with this connection. */
const u8 *vsock_peek(struct vsock_conn *c, size_t *len);
void vsock_consume(struct vsock_conn *c, size_t len);
/* Copies and consumes up to @cap bytes. */
size_t vsock_recv(struct vsock_conn *c, void *data, size_t cap);
/*
 * The next line, without its newline; returns how much to consume for it, 0 if there is no whole
 * line yet. Lines longer than @max come in pieces; the last one needs no newline at the end.
 */
size_t vsock_line(struct vsock_conn *c, const char **line, size_t *len, size_t max);
/* The peer sends no more and everything was consumed. */
bool vsock_eof(const struct vsock_conn *c);
/* The peer takes no more data: sending is of no use. */
bool vsock_deaf(const struct vsock_conn *c);

/* Sends what there is room for now; returns how much. */
size_t vsock_send(struct vsock_conn *c, const void *data, size_t len);
/* The same for data that never changes and stays where it is: it is not copied. */
size_t vsock_send_constant(struct vsock_conn *c, const void *data, size_t len);
/* All or nothing, for messages of a few KiB. */
bool vsock_send_all(struct vsock_conn *c, const void *data, size_t len);
/* No more data from us. */
void vsock_shutdown(struct vsock_conn *c);
/* Ends the connection after what was sent; @c is not ours afterwards. */
void vsock_close(struct vsock_conn *c);

/* Does what there is to do; false if there was nothing. */
bool vsock_poll(void);
/* Before sleeping: asks the device for an interrupt. True if there is work already. */
bool vsock_arm(void);
/* vsock_poll(), and sleeps when there is nothing to do. May return early. */
void vsock_wait(void);

#endif
