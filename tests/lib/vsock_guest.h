/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_guest.h - a vsock device on a real ring, with a guest's driver and host sockets around it.
 *
 * One thread: the test plays guest and host by turns, and vg_turn() lets the loop run in between.
 * What cannot go wrong in a correct program is asserted here, with the caller's test failing.
 */
#ifndef KELVIN_TESTS_VSOCK_GUEST_H
#define KELVIN_TESTS_VSOCK_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/virtio_vsock.h>

#include "tests/lib/vq_builder.h"
#include "virtio/vsock.h"

#define VG_CID     7u
#define VG_BUF     4096u /* bytes of an RX buffer, with the header */
#define VG_WINDOW  262144u /* the credit the guest gives, unless told otherwise */
#define VG_HDR     ((u32)sizeof(struct virtio_vsock_hdr))

struct vg {
	struct guest_ram ram;
	struct vqb rx, tx, ev;
	struct ring *ring;
	struct virtio_dev *dev;
	char *dir, path[80];
	struct ring_op kick_op;
	u64 kick_count;
	unsigned irqs;    /* raised so far */
	unsigned turns;   /* callbacks run so far */
	u32 wait_ms;      /* for vg_make(); 0 unless set before */
	bool no_refill;   /* used RX buffers stay out */
	bool no_events;   /* vg_driver() does not set up the event queue */
	bool no_rx;       /* nor the RX queue */
	bool event_idx;   /* vg_driver() accepts EVENT_IDX */
};

struct vg_pkt {
	struct virtio_vsock_hdr h;
	u32 used_len; /* as the device said */
	u8 data[VSOCK_PACKET_MAX];
};

/* Memory, ring and device; no driver yet. @saved: what vg_save() gave, or NULL. */
void vg_make(struct vg *g, const struct enc *saved);
/* The driver: three queues, @rx_bufs RX buffers, 4 event buffers, DRIVER_OK. */
void vg_driver(struct vg *g, unsigned rx_bufs);
/* vg_make() and vg_driver() with 64 RX buffers. */
void vg_init(struct vg *g);
void vg_finish(struct vg *g);
/* Freezes the device, saves it, thaws it. */
void vg_save(struct vg *g, struct enc *out);
/* Puts another device in the place of the one there, in the same guest memory. */
void vg_restore(struct vg *g, const struct enc *saved);

/* One turn of the loop, without waiting. Returns how many callbacks ran. */
unsigned vg_turn(struct vg *g);
/* Turns until nothing happens any more. */
void vg_settle(struct vg *g);
/* Turns for @ms; returns how many callbacks ran. */
unsigned vg_run_ms(struct vg *g, unsigned ms);
/* Turns until @cond holds, for 3 s at most. */
#define VG_UNTIL(g, cond)                                                                          \
	do {                                                                                       \
		u64 end_ = vg_now_ms() + 3000;                                                     \
		while (!(cond)) {                                                                  \
			if (vg_now_ms() > end_)                                                    \
				fail_msg("never: %s", #cond);                                      \
			vg_turn(g);                                                                \
		}                                                                                  \
	} while (0)
u64 vg_now_ms(void);

/* Guest. */
struct virtio_vsock_hdr vg_hdr(u32 guest_port, u32 host_port, unsigned op);
/* Sends a packet; h->len is sent as it is, whatever @len. Turns while the queue is full. */
void vg_send_hdr(struct vg *g, const struct virtio_vsock_hdr *h, const void *data, u32 len);
void vg_send(struct vg *g, u32 guest_port, u32 host_port, unsigned op, const void *data, u32 len);
/* Takes the next packet, if there is one, and offers its buffer again. */
bool vg_recv(struct vg *g, struct vg_pkt *p);
/* Turns until a packet comes, which must be @op for these ports. */
void vg_expect(struct vg *g, struct vg_pkt *p, u32 guest_port, u32 host_port, unsigned op);
/* Settles; no packet must have come. */
void vg_expect_none(struct vg *g);
void vg_add_rx(struct vg *g, unsigned n);
/* One more RX buffer, whose first 60 bytes are a descriptor each. */
void vg_add_rx_crumbs(struct vg *g);
/* Takes the next event, if there is one. */
bool vg_event(struct vg *g, u32 *ret_id);
void vg_add_event(struct vg *g, u32 len);

void vg_shutdown(struct vg *g, u32 guest_port, u32 host_port, u32 flags);
/*
 * Sends the test's stream to a host that does not read, until a window is full; returns how many
 * bytes that were.
 */
u32 vg_fill(struct vg *g, u32 guest_port, u32 host_port, u32 window);

/* The test's stream, from its byte @from on. */
void vg_make_bytes(u8 *out, u32 from, u32 len);
void vg_check_bytes(const u8 *data, u32 from, u32 len);
/* Reads and checks what is there at place @at of it; returns how much. */
u32 vg_drain(int fd, u32 at);

/* Host. */
int vg_listen(struct vg *g, u32 port);          /* PATH_port, as a service would */
int vg_client(struct vg *g, const char *line);  /* connects to PATH and sends @line */
int vg_accept(struct vg *g, int listen_fd);     /* turns until somebody connected */
void vg_write(int fd, const void *data, size_t len);
/* Turns until @len bytes have been read. */
void vg_read(struct vg *g, int fd, void *data, size_t len);
/* Turns until the stream ends (or is reset); nothing may come before. */
void vg_read_end(struct vg *g, int fd);
bool vg_readable(int fd);

/* A whole connection. Host-made: returns the client's socket. */
int vg_open_host(struct vg *g, u32 guest_port, u32 *ret_host_port);
/* Guest-made: returns the service's socket. */
int vg_open_guest(struct vg *g, u32 guest_port, u32 host_port);

/* The device still works: a connection can be made, and carries bytes both ways. */
void vg_assert_alive(struct vg *g);

#endif
