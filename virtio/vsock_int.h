/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_int.h - what the files of the vsock device share.
 *
 *   vsock.c       the device: ops, accepting, the timer, snapshot
 *   vsock_conn.c  connections: life cycle, table, credit
 *   vsock_line.c  what a host client says first (CONNECT), and its answer
 *   vsock_host.c  from a connection to its unix socket: connecting, sending, shutting down
 *   vsock_tx.c    packets from the guest (queue 1)
 *   vsock_rx.c    packets to the guest (queue 0), and the event queue (2)
 *
 * Locking. Everything here runs on the loop thread with dev->lock held, except the ring's
 * callbacks: those enter through vsock_lock() and leave through vsock_unlock(), which also sends
 * what became due to the guest and frees dead connections. So a pointer to a connection stays good
 * until then, whatever happens to it.
 */
#ifndef KELVIN_VIRTIO_VSOCK_INT_H
#define KELVIN_VIRTIO_VSOCK_INT_H

#include <linux/virtio_vsock.h>
#include <sys/queue.h>
#include <sys/un.h>

#include "virtio/vsock.h"

#define VSOCK_HOST_CID   2u
#define VSOCK_HDR        sizeof(struct virtio_vsock_hdr)
#define VSOCK_LINE_MAX   32u /* bytes of a CONNECT line, with its newline */
#define VSOCK_BUCKETS    256u
#define VSOCK_RST_MAX    128u /* unanswered packets of unknown connections */
#define VSOCK_GROUP_MAX  16u  /* packets of one system call */
#define VSOCK_GROUP_IOV  512u
#define VSOCK_TURN       VSOCK_PACKET_MAX /* bytes to the guest while others wait */
#define VSOCK_FRESH      16384u /* and out of turn, in a round */
#define VSOCK_BACKOFF_NS 1000000ull /* first wait before trying again; doubles */
#define VSOCK_BACKOFF_MAX_NS 20000000ull
#define VSOCK_LINGER_NS  (VSOCK_LINGER_MS * 1000000ull)
#define VSOCK_GATE_NS    200000000ull /* how long a restored guest may think about its reset */

enum { VSOCK_RXQ, VSOCK_TXQ, VSOCK_EVENTQ, VSOCK_QUEUES };

enum conn_state {
	CONN_LINE,       /* a host client whose CONNECT line is not complete */
	CONN_PARKED,     /* it waits for the driver, or for a listener in the guest */
	CONN_REQUEST,    /* the guest was asked and has not answered */
	CONN_CONNECTING, /* the guest's, on its way to PATH_p */
	CONN_OPEN,
	CONN_FLUSH, /* over for the guest; the host has not taken all of what it sent */
	CONN_DEAD, /* waits for its operations to end, and to tell the guest if PEND_RST */
};

/* Packets without payload that a connection owes the guest, sent lowest bit first. */
#define PEND_REQUEST    (1u << 0)
#define PEND_RESPONSE   (1u << 1)
#define PEND_RST        (1u << 2)
#define PEND_SHUTDOWN   (1u << 3)
#define PEND_CREDIT     (1u << 4)
#define PEND_CREDIT_REQ (1u << 5)

struct vsock;

TAILQ_HEAD(conn_list, vsock_conn);
LIST_HEAD(conn_bucket, vsock_conn);

struct ok_msg {
	struct msghdr msg;
	struct iovec iov;
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
};

struct vsock_conn {
	struct vsock *v;
	TAILQ_ENTRY(vsock_conn) all;   /* in v->conns, or v->dead */
	TAILQ_ENTRY(vsock_conn) ready; /* in *ready_in: v->fresh or v->ready; NULL: in neither */
	LIST_ENTRY(vsock_conn) hash;   /* in v->bucket, if is_hashed */
	enum conn_state state;
	struct conn_list *ready_in;
	bool is_hashed;
	int fd;
	u32 peer_port;  /* the guest's */
	u32 local_port; /* the host's */
	unsigned pend;  /* PEND_* */
	u64 due_ns;     /* when conn_timeout() is to be called; 0: never */
	u64 give_up_ns; /* PARKED, REQUEST, CONNECTING: when to stop trying */
	u64 backoff_ns;

	/* To the guest. */
	struct ring_op rx_op; /* the CONNECT line, then POLLIN */
	bool can_read;        /* the socket had something, and the guest has not got it yet */
	bool eof;             /* the host will write no more */
	bool asked_credit;
	u32 fresh_round, fresh_bytes; /* bytes it got out of turn in that round */
	u32 turn_round;       /* when its last turn began */
	u32 turn_left;        /* bytes; 0: it has none */
	unsigned burst;       /* RX buffers to take for the next read */
	u32 tx_cnt;           /* bytes the guest was sent */
	u32 peer_fwd_cnt;     /* bytes the guest says it consumed */
	u32 peer_buf_alloc;

	/* From the guest. */
	struct ring_op tx_op; /* connect, "OK", POLLOUT, flush, shutdown: one at a time */
	u8 *buf;              /* ring of buf_alloc bytes, only while something is in it */
	u32 buf_head, buf_len;
	u32 buf_alloc;     /* our credit */
	u32 rx_cnt;        /* bytes the guest sent */
	u32 fwd_cnt;       /* bytes the host took */
	u32 told_fwd_cnt;  /* fwd_cnt as the guest knows it */
	unsigned guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_* by the guest */
	unsigned our_shut;   /* the same, by us */
	bool shut_rd, shut_wr; /* done on the socket */
	bool host_deaf;        /* the host does not read any more */
	bool wants_end;        /* the host asked to be told how the stream ended */
	int end_fd;            /* by this pipe; -1: no, or it was told */
	int end_for_client;    /* its other end, while it is under way; -1 */

	union {
		struct {
			char line[VSOCK_LINE_MAX + 1]; /* CONNECT, later OK */
			u8 line_len, line_take;
			struct ok_msg ok;
		};
		struct sockaddr_un addr; /* CONNECTING */
	};
};

/* Payload on its way between one socket and several buffers of the guest, by one system call. */
struct vsock_group {
	struct ring_op op;
	struct vsock_conn *conn; /* NULL: none under way */
	u32 epoch;
	unsigned count;    /* chains */
	unsigned iov_count;
	u32 len;           /* bytes in iov */
	struct msghdr msg;
	u16 head[VSOCK_GROUP_MAX];
	struct iovec iov[VSOCK_GROUP_IOV];
};

/* A buffer the guest gave us, as long as a read into it is under way. */
struct rx_buf {
	u32 room; /* for payload */
	unsigned hdr_count;
	struct iovec hdr[VSOCK_HDR]; /* where the header goes: in the worst case byte by byte */
};

struct vsock_rst {
	u32 peer_port, local_port;
	u16 type;
};

struct vsock {
	struct virtio_dev dev;
	struct ring *ring;
	char *path;
	struct vsock_dialer *dialer; /* NULL: we connect ourselves */
	u32 cid;
	u32 wait_ms;
	u32 next_port; /* of the next host-made connection */

	struct conn_list conns; /* all but the dead */
	struct conn_list dead;
	/* Those with something for the guest, maybe; see vsock_rx.c. */
	struct conn_list fresh, ready;
	u32 round;
	struct conn_bucket bucket[VSOCK_BUCKETS];
	unsigned count; /* connections, with the dead: one descriptor each */

	int listen_fd;
	struct ring_op accept_op;
	u64 accept_due_ns; /* accepting failed: when to try again; 0: not waiting */

	struct ring_op timer_op;
	struct ring_time timer_ts;
	u64 timer_at_ns; /* what it was set to; 0: it is being cancelled */

	struct vsock_rst rst[VSOCK_RST_MAX];
	unsigned rst_head, rst_count;

	bool reset_pending; /* reset() happened, process() has not seen it */
	bool want_driver;   /* connections are parked until the device is live */
	bool in_timer;      /* the timer's callback runs, and will set it again */
	bool event_pending; /* a restored guest is to be told that its connections are gone */
	bool gated;         /* it was not, or it did not answer yet: send it nothing */
	unsigned gate_left; /* event buffers that were left when it was told */
	u64 gate_due_ns;

	struct vsock_group rx, tx;
	struct rx_buf rx_buf[VSOCK_GROUP_MAX];
	struct vq_chain chain; /* the one just popped */
	struct vsock_stats stats;
};

static inline struct vsock *vsock_of(struct virtio_dev *d)
{
	return container_of(d, struct vsock, dev);
}

/* vsock.c */
void vsock_lock(struct vsock *v);
void vsock_unlock(struct vsock *v);
/* Makes sure that the timer fires at @due_ns or before. */
void vsock_timer(struct vsock *v, u64 due_ns);

/* vsock_conn.c */
/* NULL when there are too many, or no memory. Owns @fd on success. */
struct vsock_conn *conn_new(struct vsock *v, int fd, enum conn_state state);
struct vsock_conn *conn_find(struct vsock *v, u32 peer_port, u32 local_port);
void conn_set_ports(struct vsock_conn *c, u32 peer_port, u32 local_port);
/* Ends the connection; with @rst the guest is told, if it does not know. */
void conn_kill(struct vsock_conn *c, bool rst);
/* Frees the dead whose operations have ended. */
void conn_reap(struct vsock *v);
/* The device is going: frees everything. No operation is with the kernel. */
void conn_free_all(struct vsock *v);
/* Calls conn_timeout() some time after @ns from now. 0: never. */
void conn_due(struct vsock_conn *c, u64 ns);
void conn_timeout(struct vsock_conn *c);
/* Calls conn_timeout() when it is time to try again, or to give up. */
void conn_retry(struct vsock_conn *c);
void conn_pend(struct vsock_conn *c, unsigned what);
/* There is something for the guest. The connection keeps the place it has, if it has one. */
void conn_make_ready(struct vsock_conn *c);
void conn_not_ready(struct vsock_conn *c);
/* RST delivered, or not needed any more. */
void conn_forget_rst(struct vsock_conn *c);
/* The guest is done with the connection in good order: what it sent still goes to the host. */
void conn_flush(struct vsock_conn *c, bool rst);
/* The guest ended its stream in good order, and some of it, or the word of its end, is here. */
bool conn_owes_host(const struct vsock_conn *c);
/* The socket may be written to. */
static inline bool conn_flows(const struct vsock_conn *c)
{
	return c->state == CONN_OPEN || c->state == CONN_FLUSH;
}
/* Asks the guest now, if there is a driver; else waits, or gives up. */
void conn_request(struct vsock_conn *c);
/* The guest has no listener: waits and asks again, or gives up. */
void conn_refused(struct vsock_conn *c);
/* The guest knows nothing of the connection any more. */
void conn_gone(struct vsock_conn *c);
/* The driver reset the device. */
void conn_after_reset(struct vsock_conn *c);
/* Waits for the socket to have something; then sets can_read. */
void conn_poll_in(struct vsock_conn *c);
/* A read found the end of the stream. */
void conn_at_end(struct vsock_conn *c);
/* We will not send (VIRTIO_VSOCK_SHUTDOWN_SEND) or not take (RCV) any more. */
void conn_tell_shutdown(struct vsock_conn *c, unsigned flags);
/* How many bytes the guest takes now. */
u32 conn_credit(const struct vsock_conn *c);
/* Whether the guest could be given bytes, if it has credit. */
bool conn_has_data(const struct vsock_conn *c);
/* Takes over what a header says about credit. */
void conn_take_credit(struct vsock_conn *c, u32 buf_alloc, u32 fwd_cnt);
/* The host took @n bytes; tells the guest if that matters to it. */
void conn_consumed(struct vsock_conn *c, u32 n);

/* vsock_line.c */
/* Begins with the CONNECT line. */
void conn_accepted(struct vsock_conn *c);
/* The guest accepted. */
void host_send_ok(struct vsock_conn *c);
/* The guest's stream has ended and all of it was passed on: tells a client that asked. */
void host_good_end(struct vsock_conn *c);

/* vsock_host.c */
/* A connection of the guest to PATH_p. */
void host_connect(struct vsock_conn *c);
/* Whether payload may go straight to the socket. */
bool host_is_clear(const struct vsock_conn *c);
/* Keeps @len bytes at @skip of a list of guest buffers for later. False: no memory. */
bool host_keep(struct vsock_conn *c, const struct iovec *iov, unsigned n, size_t skip, u32 len);
/* Sends what was kept, then shuts down or ends, whatever is due. */
void host_step(struct vsock_conn *c);
/* The host reads no more: what it was to get is dropped. */
void host_deaf(struct vsock_conn *c);
/* The VM is ending: sends now what was kept of a stream that has ended, as far as can be. */
void host_last_words(struct vsock_conn *c);

/* vsock_tx.c */
void vsock_tx_init(struct vsock *v);
void vsock_tx_run(struct vsock *v);

/* vsock_rx.c */
void vsock_rx_init(struct vsock *v);
void vsock_rx_run(struct vsock *v);
/* The guest was told about its reset, or cannot be: from now on it gets packets. */
void vsock_open_gate(struct vsock *v);
void vsock_event_run(struct vsock *v);
/* An RST for a packet of no connection. */
void vsock_rst(struct vsock *v, const struct virtio_vsock_hdr *h);

#endif
