/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_int.h - what the files of the network device share.
 *
 *   net.c        the device: ops, features, the timer, the link, snapshot
 *   net_ctrl.c   the control queue
 *   net_rx.c     frames to the guest
 *   net_tx.c     frames from the guest
 *   net_tap.c    opening a TAP and telling it what was negotiated
 *   net_passt.c  connecting to passt, or starting it
 *   net_stream.c frames on a stream socket, as passt wants them
 *
 * To the data path a TAP is any descriptor that gives one frame, behind a virtio header of 12
 * bytes, for one readv(2), takes one for one writev(2), and says EAGAIN rather than wait. Tests
 * use socket pairs.
 *
 * Locking. Everything here runs on the loop thread with dev->lock held, except net.c's ops and
 * the ring's callbacks, which take the lock.
 */
#ifndef KELVIN_VIRTIO_NET_INT_H
#define KELVIN_VIRTIO_NET_INT_H

#include <linux/virtio_net.h>

#include "virtio/net.h"

/* Newer than the headers of some distributions. */
#define NET_F_GUEST_USO4 54u
#define NET_F_GUEST_USO6 55u
#define NET_F_HOST_USO   56u
#define NET_GSO_UDP_L4   5u

#define NET_F(name) (1ull << VIRTIO_NET_F_##name)
/* What only a back end with virtio headers can do. */
#define NET_OFFLOADS                                                                               \
	(NET_F(CSUM) | NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) |                 \
		NET_F(HOST_TSO4) | NET_F(HOST_TSO6) | 1ull << NET_F_GUEST_USO4 |                   \
		1ull << NET_F_GUEST_USO6 | 1ull << NET_F_HOST_USO)

#define NET_ETH       14u    /* bytes of an Ethernet header: the shortest frame */
#define NET_FRAME_MAX 65554u /* with its header, a VLAN tag and 64 KiB */
#define NET_HDR       sizeof(struct virtio_net_hdr_v1)
#define NET_RX_BATCH  16u    /* reads of one system call */
#define NET_TX_BATCH  32u    /* the same for writes */
#define NET_IOV       1024u  /* buffers of a batch: the most that one system call takes */
#define NET_STREAM    (2u * (4u + NET_FRAME_MAX)) /* a frame always fits behind a part of one */

struct net;

/* A buffer the guest gave us. */
struct rx_buf {
	u32 len;
	u16 head;
	u16 iov_at, iov_count; /* in rx->iov */
	u16 seq;       /* of its entry in the avail ring */
	bool recovered; /* seq is not known */
	bool taken;    /* a frame lies in it */
	bool used;     /* the guest has it back */
};

/* A read, then the frame that came of it. */
struct rx_slot {
	struct ring_op op;
	struct net_rx *rx;
	struct virtio_net_hdr_v1 hdr;
	unsigned first, count; /* its buffers in rx->pool */
	u32 room;       /* for the frame, in them; what is longer goes to tail */
	const u8 *tail;
	int res;        /* of the read; later the length of the frame */
	bool paid;      /* by the rate limit */
};

struct net_rx {
	struct net *n;
	unsigned index; /* of the pair */
	int fd;
	u32 epoch;           /* in which the reads began */
	unsigned in_kernel;  /* reads under way */
	bool dry;            /* the host had no frame when asked last */
	bool recover;        /* heads are in flight that a snapshot brought */
	bool starved;        /* a frame waits for buffers, or the next read does */
	struct ring_op poll_op;

	/* Buffers held, in the order in which they were popped. */
	struct rx_buf pool[VQ_SIZE_MAX];
	struct iovec iov[NET_IOV];
	unsigned pool_count, iov_count;

	/* Reads under way, or frames that are not delivered yet: from `at` on. */
	struct rx_slot slot[NET_RX_BATCH];
	unsigned slots, at;
	unsigned next;     /* pool entry for the next read */
	unsigned burst;    /* how many reads to try at once */
	u32 expect;        /* how long the longest frames were lately */
	unsigned rejects;  /* how many more bad buffers this turn takes */
	struct iovec read_iov[NET_IOV + 2 * NET_RX_BATCH];
	unsigned read_iov_count;
	u8 *spill;         /* NET_FRAME_MAX + 1 bytes for each slot; a stream: what was received */
	struct ring_op stream_op;
	u32 stream_at, stream_end;
};

struct tx_slot {
	struct ring_op op;
	struct net_tx *tx;
	u16 head;
	u16 iov_at, iov_count; /* in tx->iov */
	u32 len;               /* of the frame */
	int res;
	/* The guest's virtio header and Ethernet header, as checked. */
	u8 front[sizeof(struct virtio_net_hdr_v1) + NET_ETH];
};

struct net_tx {
	struct net *n;
	unsigned index;
	int fd;
	u32 epoch;
	unsigned in_kernel;
	struct ring_op poll_op; /* the host takes no more for now */

	struct tx_slot slot[NET_TX_BATCH];
	unsigned slots;
	unsigned burst;
	struct iovec iov[NET_IOV];
	unsigned iov_count;

	/* A stream: one operation for the batch, and what is left of a frame that went in part. */
	struct ring_op stream_op;
	struct msghdr msg;
	u8 *rest;
	u32 rest_at, rest_end;
};

struct net {
	struct virtio_dev dev;
	struct ring *ring;
	struct net_backend backend;
	unsigned pairs;      /* there are */
	unsigned pairs_used; /* by the driver */
	bool attached[NET_PAIRS_MAX]; /* TAP queues */
	u8 mac[6];
	u16 mtu;
	bool allow_spoof;
	bool started;   /* net_start() */
	bool configure; /* features or pairs_used changed: the back end is to be told */
	bool restored;  /* by virtio_load(): announce when started */
	bool link_up;
	bool announce;  /* the driver is to announce itself */

	/* As negotiated; see configure(). */
	u64 features;    /* NET_OFFLOADS in use */
	u64 told;        /* the same as the back end knows it */
	unsigned hdr_len; /* bytes of a header in guest buffers */
	bool merge;      /* MRG_RXBUF */

	struct limit rx_limit, tx_limit;
	struct ring_op timer_op;
	struct ring_time timer_ts;
	u64 timer_at_ns; /* what it was set to; 0: it is being cancelled */
	u64 due_ns;      /* what it should be set to; 0: nothing waits */
	bool in_timer;

	struct net_rx *rx[NET_PAIRS_MAX];
	struct net_tx *tx[NET_PAIRS_MAX];
	struct vq_chain chain; /* the one just popped */
	struct net_stats stats;
};

static inline struct net *net_of(struct virtio_dev *d)
{
	return container_of(d, struct net, dev);
}

/* net.c */
/* Whether queues may be looked at. */
bool net_may_run(const struct net *n);
/* Runs the queues again at @due_ns or before. */
void net_timer(struct net *n, u64 due_ns);
/* The back end is gone. */
void net_link_down(struct net *n);
/* Uses @pairs from now on. False where the TAP refuses. */
bool net_set_pairs(struct net *n, unsigned pairs);

/* net_ctrl.c */
void net_ctrl_run(struct net *n);

/* net_rx.c */
struct net_rx *net_rx_new(struct net *n, unsigned index); /* NULL: no memory */
void net_rx_free(struct net_rx *rx);
void net_rx_run(struct net_rx *rx);
/* The driver reset the device: its buffers are void. Any thread. */
void net_rx_reset(struct net_rx *rx);
/* The last operation that was with the kernel has ended: goes on. */
void net_rx_ended(struct net_rx *rx);

/* net_tx.c */
struct net_tx *net_tx_new(struct net *n, unsigned index);
void net_tx_free(struct net_tx *tx);
void net_tx_run(struct net_tx *tx);
void net_tx_reset(struct net_tx *tx);
/* The last operation has ended, and slot->res is what became of each frame: goes on. */
void net_tx_ended(struct net_tx *tx);

/* net_stream.c */
/* Makes slots of the frames that were received; false where none is complete. */
bool net_stream_frames(struct net_rx *rx);
void net_stream_receive(struct net_rx *rx);
/* Sends the batch; net_tx_ended() follows. */
void net_stream_send(struct net_tx *tx);
/* Sends what is left of a frame; false where nothing is. net_tx_run() follows. */
bool net_stream_send_rest(struct net_tx *tx);

/* net_tap.c */
/* Tells the TAP what the guest can take: @features of NET_OFFLOADS. */
void net_tap_set_offloads(int fd, u64 features);
bool net_tap_attach(int fd, bool attach);

#endif
