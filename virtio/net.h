/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - virtio-net (virtio 1.2, 5.1): an Ethernet interface for the guest.
 *
 * Behind it is a TAP device (net_tap.c) or a passt process (net_passt.c). Offers CSUM, GUEST_CSUM,
 * HOST_ and GUEST_ TSO4, TSO6 and USO as far as the back end can, MAC, MTU, STATUS, MRG_RXBUF,
 * CTRL_VQ, MQ (with more than one queue pair) and GUEST_ANNOUNCE.
 */
#ifndef KELVIN_VIRTIO_NET_H
#define KELVIN_VIRTIO_NET_H

#include "virtio/device.h"
#include "virtio/limit.h"
#include "virtio/ring.h"

#define NET_PAIRS_MAX 16u /* queue pairs; and the control queue */
#define NET_MTU_MIN   68u
#define NET_MTU_MAX   65535u

enum net_kind { NET_TAP, NET_PASST };

struct net_backend {
	enum net_kind kind;
	u64 offloads;             /* it can do: 1 << VIRTIO_NET_F_* of both directions */
	bool no_nowait;           /* the kernel has no RWF_NOWAIT for a TAP (before Linux 6.4) */
	unsigned fds_count;       /* 1 .. NET_PAIRS_MAX; passt: 1 */
	int fds[NET_PAIRS_MAX];   /* owned by whoever holds the struct */
	char name[64];            /* of the interface or the socket, for messages */
};

/* Fills *@ret with @queues descriptors of the TAP @name, which is made if it is not there. */
int net_tap_open(struct net_backend *ret, const char *name, unsigned queues, struct err *e);
/* The same for a TAP that was opened by somebody else; takes over @fd (closed on failure too). */
int net_tap_from_fd(struct net_backend *ret, int fd, struct err *e);
/* Connects to passt's (or another's that speaks QEMU's stream protocol) unix socket. */
int net_passt_open(struct net_backend *ret, const char *path, struct err *e);
/* Starts passt and connects to it; it ends when the connection does. Error where not installed. */
int net_passt_start(struct net_backend *ret, struct err *e);
void net_backend_close(struct net_backend *b);

struct net_config {
	const char *id;      /* [A-Za-z0-9_-], 1 .. 64 */
	u8 mac[6];           /* a unicast address */
	u16 mtu;             /* NET_MTU_MIN .. NET_MTU_MAX; 0: not told */
	bool allow_spoof;    /* frames from source MACs other than its own pass */
	unsigned pairs;      /* <= backend.fds_count */
	struct limit_config rx, tx; /* rx: to the guest */
};

struct net_stats {
	u64 rx_frames, rx_bytes, tx_frames, tx_bytes;
	u64 rx_dropped, tx_dropped, tx_malformed, tx_spoofed;
	u64 rx_starved;  /* times there was no buffer */
	u64 rx_throttled, tx_throttled;
};

/* Makes the device; the back end is its own on success. */
int net_create(struct virtio_dev **ret, const struct net_config *cfg, struct net_backend *backend,
	struct ring *ring, const struct mem *mem, struct virtio_irq irq, struct err *e);
/* Begins to take frames from the host. After virtio_load(), if any. Loop thread. */
void net_start(struct virtio_dev *d);
/*
 * After virtio_load() and before net_start(): another MAC than the saved one, for a clone. It is in
 * config space, and net_start() interrupts for it. A driver that does not look there again (Linux)
 * goes on with the old one; its frames are then dropped as spoofed, unless that is allowed.
 */
void net_set_mac(struct virtio_dev *d, const u8 mac[6]);
/* Loop thread. */
void net_stats(const struct virtio_dev *d, struct net_stats *ret);
void net_set_limits(struct virtio_dev *d, const struct limit_config *rx,
	const struct limit_config *tx);

#endif
