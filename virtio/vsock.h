/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.h - virtio-vsock (virtio 1.2, 5.10): stream sockets between the guest and unix sockets.
 *
 * Host convention (Firecracker's): connect to PATH, send "CONNECT <port>\n", read
 * "OK <hostport>\n", then bytes both ways; a guest connecting to CID 2 port p reaches the unix
 * socket PATH_p. Ours in addition: a CONNECT before the guest listens waits up to wait_ms, and who
 * sends "CONNECT <port> END\n" is told how the guest's stream ended (vsock_line.c).
 */
#ifndef KELVIN_VIRTIO_VSOCK_H
#define KELVIN_VIRTIO_VSOCK_H

#include "virtio/device.h"
#include "virtio/ring.h"

#define VSOCK_CONNS_MAX    1023u
#define VSOCK_PACKET_MAX   65536u      /* payload bytes of one packet */
#define VSOCK_TX_BUF       65536u      /* bytes held for a host peer that reads slowly, each */
#define VSOCK_TX_BUF_WIDE  1048576u    /* the same, for a connection made while few exist */
#define VSOCK_WIDE_CONNS   32u         /* few: so at most 94 MiB are held for all together */
#define VSOCK_LINGER_MS    2000u       /* request, shutdown and host CONNECT line */
#define VSOCK_PORT_FIRST   (1u << 30)  /* local ports of host-made connections: [2^30, 2^31) */

/* Who connects to unix sockets for the device, where this process cannot. */
struct vsock_dialer {
	/* Connects to PATH_@port. @op is busy until its callback has run in the loop, with a
	 * connected non-blocking socket, which is the device's then, or a negative errno. */
	void (*dial)(struct vsock_dialer *d, u32 port, struct ring_op *op);
};

struct vsock_config {
	u32 cid;          /* the guest's, >= 3 and < 2^32 - 1 */
	const char *path; /* of the listening unix socket; PATH_p must fit in sun_path too */
	int listen_fd;    /* already bound and listening; ownership passes on success */
	u32 wait_ms;      /* how long a CONNECT waits for a listener; 0 = fail at once */
	struct vsock_dialer *dialer; /* outlives the device; NULL: it connects itself */
};

/* tx is from the guest, rx is to the guest. */
struct vsock_stats {
	u64 conns_added, conns_refused, tx_packets, rx_packets, tx_bytes, rx_bytes;
	u64 dropped; /* packets that we ignored, and buffers that cannot hold a packet */
};

/*
 * Binds and listens on @path (mode 0600). Fails with EADDRINUSE, saying so, where the path exists;
 * the caller unlinks it at the end. V13.
 */
int vsock_listen(int *ret_fd, const char *path, struct err *e);

/* Makes the device. Call vsock_start() once the loop is about to run. */
int vsock_create(struct virtio_dev **ret, const struct vsock_config *cfg, struct ring *ring,
	const struct mem *mem, struct virtio_irq irq, struct err *e);
/* Begins to accept host connections. After virtio_load(), if any. Loop thread. */
void vsock_start(struct virtio_dev *d);

/*
 * The VM has ended and this process is about to: streams that the guest ended in good order and
 * that were not delivered yet are put into their sockets, as far as those take them, and nobody can
 * connect any more. Loop thread.
 */
void vsock_finish(struct virtio_dev *d);

/*
 * Room in the socket @fd for @bytes that the guest may send at once: guest and reader then wake
 * each other once for many packets. With less than asked for it is only slower.
 */
void vsock_widen(int fd, u32 bytes);

/* Connections that exist, also those not yet established. Both: loop thread. */
unsigned vsock_conn_count(const struct virtio_dev *d);
void vsock_stats(const struct virtio_dev *d, struct vsock_stats *ret);

#endif
