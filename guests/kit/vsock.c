/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock.c - see vsock.h.
 *
 * Theory of operation
 *
 * Sizes are by vsock_setup: few and small buffers by default, many large ones for bulk.
 *
 * Receive: all buffers are always with the device; each packet is handled in place and the buffer
 * goes back. Data that event() does not consume moves to a buffer of the connection (kept), taken
 * when first needed; the credit we announce bounds it.
 *
 * Transmit: slots, each a header and room for data, which is copied in, or, where the caller's
 * data stays as it is, only pointed to by a second descriptor. The slot freed last is used next, so
 * that small traffic touches few pages, which makes a snapshot of this guest cheap to restore. The
 * last CONTROL_SLOTS slots are only for packets without data. A control packet that finds no slot
 * is remembered as a bit in the connection, so receiving never waits for transmitting, and two
 * sides cannot come to wait for each other. Large packets are published at once, small ones
 * together: the device works while we prepare the next.
 *
 * In a buffer or slot the header ends, and the data begins, on a cache line.
 *
 * A connection: FREE -> OPEN by a request to a port we listen on, or FREE -> CONNECTING -> OPEN by
 * vsock_connect(). vsock_close() makes it CLOSING: a SHUTDOWN is sent and the slot waits for the
 * peer's RST (or until the slot is needed). RST at any time: FREE. LOST: a moment inside of a
 * transport reset.
 */
#include "vsock.h"

#define RING          8 /* buffers each way by default; and events */
#define PAYLOAD       (32768u - HEAD)
#define CREDIT        (256u * 1024)
#define HEAD          64u /* bytes before the data */
#define CONTROL_SLOTS 2
#define KICK_BYTES    16384u /* data of a packet that is worth a kick of its own */
#define RESETS        16
#define PORT_FIRST    49152u

#define QUEUE_RX    0
#define QUEUE_TX    1
#define QUEUE_EVENT 2

#define TYPE_STREAM 1

enum op {
	OP_REQUEST = 1,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST,
};
#define BIT(op) (1u << (op))

#define SHUT_RECEIVE 1 /* flags of OP_SHUTDOWN */
#define SHUT_SEND    2
#define SHUT_BOTH    3

#define EVENT_TRANSPORT_RESET 0

enum state { FREE, CONNECTING, OPEN, CLOSING, LOST };

struct header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port;
	u32 len;
	u16 type, op;
	u32 flags;
	u32 buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 44, "the header of the specification");

struct listener {
	u32 port;
	struct vsock_ops ops;
};

/* Everything that small traffic touches, close together. */
static struct {
	u8 rings[3][VIRTQ_BYTES(2 * RING)] __attribute__((aligned(16)));
	u32 events[RING];
	struct virtio_dev dev;
	struct virtq rx, tx, event;
	u32 payload, credit;   /* bytes of a packet at most; that a peer may send ahead */
	unsigned slots;        /* of each direction, a power of 2 */
	u8 *rx_mem, *tx_mem;   /* slots of HEAD + payload bytes each */
	u16 *tx_free;          /* a stack */
	unsigned tx_free_count;
	u16 tx_free_few[RING]; /* where it is by default */
	u32 cid, next_port;
	unsigned conn_high; /* all in use are below */
	unsigned listener_count, reset_count;
	u8 *spare; /* kept buffers not in use: a list, its link in the first bytes */
	struct listener listeners[VSOCK_LISTENERS];
	struct vsock_conn conns[VSOCK_CONNS];
	struct header resets[RESETS]; /* RSTs for packets that belong to no connection */
} vs __attribute__((aligned(4096)));

/* ---- transmit ---- */

static u8 *slot_of(u8 *mem, unsigned i)
{
	return mem + (size_t)i * (HEAD + vs.payload);
}

static void reclaim(void)
{
	u16 slot;
	u32 len;

	while (virtq_take(&vs.tx, &slot, &len))
		vs.tx_free[vs.tx_free_count++ & (vs.slots - 1)] = slot & (u16)(vs.slots - 1);
}

/* Whether more than @reserve slots are free. */
static bool have_slot(unsigned reserve)
{
	if (vs.tx_free_count <= reserve)
		reclaim();
	return vs.tx_free_count > reserve;
}

/* Offers one packet to the device; the caller checked have_slot(). @keeps: @data stays as it is for
 * ever, so it is not copied. */
static void transmit(const struct header *h, const void *data, bool keeps)
{
	unsigned slot = vs.tx_free[--vs.tx_free_count];
	u8 *mem = slot_of(vs.tx_mem, slot) + HEAD, *head = mem - sizeof(*h);

	memcpy(head, h, sizeof(*h));
	if (keeps) {
		virtq_set(&vs.tx, (u16)slot, head, sizeof(*h), VIRTQ_NEXT, (u16)(slot + vs.slots));
		virtq_set(&vs.tx, (u16)(slot + vs.slots), data, h->len, 0, 0);
	} else {
		memcpy(mem, data, h->len);
		virtq_set(&vs.tx, (u16)slot, head, sizeof(*h) + h->len, 0, 0);
	}
	virtq_offer(&vs.tx, (u16)slot);
	if (h->len >= KICK_BYTES)
		virtq_kick(&vs.tx);
}

static struct header header_on(struct vsock_conn *c, enum op op, u32 flags, u32 len)
{
	c->consumed_told = c->consumed;
	return (struct header){
		.src_cid = vs.cid,
		.dst_cid = c->peer_cid,
		.src_port = c->local_port,
		.dst_port = c->peer_port,
		.len = len,
		.type = TYPE_STREAM,
		.op = (u16)op,
		.flags = flags,
		.buf_alloc = vs.credit,
		.fwd_cnt = c->consumed,
	};
}

/* Remembers to answer @h with a RST. More than RESETS at once are forgotten: a peer that sends
 * nonsense faster than we answer gets fewer answers. */
static void reset_later(const struct header *h)
{
	if (h->op == OP_RST || vs.reset_count == RESETS)
		return;
	vs.resets[vs.reset_count++] = (struct header){
		.src_cid = h->dst_cid,
		.dst_cid = h->src_cid,
		.src_port = h->dst_port,
		.dst_port = h->src_port,
		.type = h->type,
		.op = OP_RST,
	};
}

/* ---- connections ---- */

static void release_kept(struct vsock_conn *c)
{
	if (c->kept) {
		memcpy(c->kept, &vs.spare, sizeof(vs.spare));
		vs.spare = c->kept;
	}
	c->kept = NULL;
	c->kept_len = 0;
	c->packet_len = 0;
}

static u8 *take_spare(void)
{
	u8 *buffer = vs.spare;

	if (!buffer)
		return kit_pages(vs.credit);
	memcpy(&vs.spare, buffer, sizeof(vs.spare));
	return buffer;
}

/* The connection is over; tells its owner unless the owner closed it. */
static void drop(struct vsock_conn *c)
{
	bool owned = c->state != CLOSING;

	release_kept(c);
	c->state = FREE;
	if (owned && c->ops->closed)
		c->ops->closed(c);
}

/* Sends the control packets @c owes, as far as there are slots. After a RST it is gone. */
static void send_control(struct vsock_conn *c)
{
	static const u8 order[] = {OP_REQUEST, OP_RESPONSE, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST,
		OP_SHUTDOWN, OP_RST};
	struct header h;

	for (unsigned i = 0; c->control && i < sizeof(order); i++) {
		enum op op = order[i];

		if (!(c->control & BIT(op)))
			continue;
		if (!have_slot(0))
			return;
		c->control &= (u8)~BIT(op);
		h = header_on(c, op, op == OP_SHUTDOWN ? c->we_shut : 0, 0);
		transmit(&h, NULL, false);
		if (op == OP_RST)
			drop(c);
	}
}

/* Ends @c because of its peer. */
static void abort_conn(struct vsock_conn *c)
{
	c->control = BIT(OP_RST);
	c->due = false;
	c->short_room = false;
	send_control(c);
}

static struct vsock_conn *find_conn(u64 peer_cid, u32 peer_port, u32 local_port)
{
	for (unsigned i = 0; i < vs.conn_high; i++) {
		struct vsock_conn *c = &vs.conns[i];

		if (c->state != FREE && c->local_port == local_port && c->peer_port == peer_port &&
			c->peer_cid == peer_cid)
			return c;
	}
	return NULL;
}

/* A free slot, or that of a connection that only waits for its peer's last word. */
static struct vsock_conn *new_conn(enum state state, u64 peer_cid, u32 peer_port, u32 local_port,
	const struct vsock_ops *ops)
{
	struct vsock_conn *c = NULL;

	for (unsigned i = 0; i < VSOCK_CONNS && !(c && c->state == FREE); i++) {
		if (vs.conns[i].state == FREE || (!c && vs.conns[i].state == CLOSING))
			c = &vs.conns[i];
	}
	if (!c)
		return NULL;
	if (c->state == CLOSING) {
		reset_later(&(struct header){
			.src_cid = c->peer_cid,
			.dst_cid = vs.cid,
			.src_port = c->peer_port,
			.dst_port = c->local_port,
			.type = TYPE_STREAM,
			.op = OP_RW,
		});
	}
	memset(c, 0, sizeof(*c));
	c->state = state;
	c->ops = ops;
	c->peer_cid = peer_cid;
	c->peer_port = peer_port;
	c->local_port = local_port;
	if (vs.conn_high <= (unsigned)(c - vs.conns))
		vs.conn_high = (unsigned)(c - vs.conns) + 1;
	return c;
}

static const struct vsock_ops *find_listener(u32 port)
{
	for (unsigned i = 0; i < vs.listener_count; i++) {
		if (vs.listeners[i].port == port)
			return &vs.listeners[i].ops;
	}
	return NULL;
}

/* How many bytes the peer has space for. */
static u32 credit(const struct vsock_conn *c)
{
	u32 in_flight = c->sent - c->peer_fwd;

	return in_flight < c->peer_alloc ? c->peer_alloc - in_flight : 0;
}

/* Keeps what event() left of the packet. */
static void keep(struct vsock_conn *c)
{
	if (!c->kept) {
		c->kept = take_spare();
		c->kept_at = 0;
		if (!c->kept) {
			abort_conn(c);
			return;
		}
	}
	if (c->kept_at + c->kept_len + c->packet_len > vs.credit) {
		memmove(c->kept, c->kept + c->kept_at, c->kept_len);
		c->kept_at = 0;
	}
	memcpy(c->kept + c->kept_at + c->kept_len, c->packet, c->packet_len);
	c->kept_len += c->packet_len;
	c->packet_len = 0;
}

static void call_event(struct vsock_conn *c)
{
	c->due = false;
	c->short_room = false;
	c->ops->event(c);
	if (c->state != OPEN)
		return;
	if (c->packet_len)
		keep(c);
	if (c->consumed - c->consumed_told >= vs.credit / 2)
		c->control |= BIT(OP_CREDIT_UPDATE);
	virtq_kick(&vs.tx);
}

/* ---- receive ---- */

static void handle_data(struct vsock_conn *c, const u8 *data, u32 len)
{
	if (c->state == CLOSING) {
		c->received += len;
		c->consumed += len;
		return;
	}
	if (c->state != OPEN || (c->peer_shut & SHUT_SEND) ||
		len > vs.credit - (c->received - c->consumed)) {
		abort_conn(c);
		return;
	}
	c->received += len;
	c->packet = data;
	c->packet_len = len;
	if (c->kept_len)
		keep(c);
	call_event(c);
}

static void handle_shutdown(struct vsock_conn *c, u32 flags)
{
	c->peer_shut |= flags & SHUT_BOTH;
	if (c->state == CLOSING && c->peer_shut == SHUT_BOTH)
		c->control = BIT(OP_RST);
	else
		c->due = true;
}

/* A packet for a connection there is. */
static void handle_on(struct vsock_conn *c, const struct header *h, const u8 *data)
{
	u32 before = credit(c);

	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (c->short_credit && credit(c) > before)
		c->due = true;
	switch (h->op) {
	case OP_RESPONSE:
		if (c->state == CONNECTING) {
			c->state = OPEN;
			c->due = true;
		} else {
			abort_conn(c);
		}
		break;
	case OP_RST:
		drop(c);
		break;
	case OP_SHUTDOWN:
		handle_shutdown(c, h->flags);
		break;
	case OP_RW:
		handle_data(c, data, h->len);
		break;
	case OP_CREDIT_UPDATE:
		break;
	case OP_CREDIT_REQUEST:
		c->control |= BIT(OP_CREDIT_UPDATE);
		break;
	default:
		abort_conn(c);
	}
}

static void handle_packet(const struct header *h, const u8 *data)
{
	const struct vsock_ops *ops;
	struct vsock_conn *c;

	if (h->dst_cid != vs.cid)
		return;
	c = h->type == TYPE_STREAM ? find_conn(h->src_cid, h->src_port, h->dst_port) : NULL;
	if (c) {
		handle_on(c, h, data);
		return;
	}
	ops = h->type == TYPE_STREAM && h->op == OP_REQUEST ? find_listener(h->dst_port) : NULL;
	if (ops)
		c = new_conn(OPEN, h->src_cid, h->src_port, h->dst_port, ops);
	if (!c) {
		reset_later(h);
		return;
	}
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	c->control = BIT(OP_RESPONSE);
	c->due = true;
}

static bool receive(void)
{
	struct header h;
	bool any = false;
	u16 slot;
	u32 len;

	while (virtq_take(&vs.rx, &slot, &len)) {
		const u8 *mem;

		slot &= (u16)(vs.slots - 1);
		mem = slot_of(vs.rx_mem, slot) + HEAD;
		memcpy(&h, mem - sizeof(h), sizeof(h));
		if (len >= sizeof(h) && len <= sizeof(h) + vs.payload && h.len <= len - sizeof(h))
			handle_packet(&h, mem);
		virtq_offer(&vs.rx, slot);
		virtq_kick(&vs.rx);
		any = true;
	}
	return any;
}

/* All connections died with the machine this memory was copied from. */
static void transport_reset(void)
{
	vs.cid = virtio_config32(&vs.dev, 0);
	vs.reset_count = 0;
	/* Marked first: closed() may make new ones. */
	for (unsigned i = 0; i < vs.conn_high; i++) {
		if (vs.conns[i].state == CLOSING)
			drop(&vs.conns[i]);
		else if (vs.conns[i].state != FREE)
			vs.conns[i].state = LOST;
	}
	for (unsigned i = 0; i < vs.conn_high; i++) {
		if (vs.conns[i].state == LOST)
			drop(&vs.conns[i]);
	}
}

static bool take_events(void)
{
	bool any = false;
	u16 slot;
	u32 len;

	while (virtq_take(&vs.event, &slot, &len)) {
		u32 id = vs.events[slot % RING];

		if (len >= sizeof(id) && id == EVENT_TRANSPORT_RESET)
			transport_reset();
		/* Given back after the reset is done: the device may wait for that. */
		virtq_offer(&vs.event, slot % RING);
		any = true;
	}
	virtq_kick(&vs.event);
	return any;
}

/* ---- what the guest calls ---- */

static void start_rings(void)
{
	for (u16 i = 0; i < vs.slots; i++) {
		virtq_set(&vs.rx, i, slot_of(vs.rx_mem, i) + HEAD - sizeof(struct header),
			(u32)sizeof(struct header) + vs.payload, VIRTQ_WRITE, 0);
		virtq_offer(&vs.rx, i);
		vs.tx_free[i] = (u16)(vs.slots - 1 - i);
	}
	for (u16 i = 0; i < RING; i++) {
		virtq_set(&vs.event, i, &vs.events[i], sizeof(vs.events[i]), VIRTQ_WRITE, 0);
		virtq_offer(&vs.event, i);
	}
	vs.tx_free_count = vs.slots;
	virtio_go(&vs.dev);
	virtq_kick(&vs.rx);
	virtq_kick(&vs.event);
}

/* Memory for more than the few slots that are always here. */
static bool enlarge(void *rings[2])
{
	rings[0] = kit_pages(VIRTQ_BYTES(vs.slots));
	rings[1] = kit_pages(VIRTQ_BYTES(2 * vs.slots));
	vs.tx_free = kit_pages(vs.slots * sizeof(*vs.tx_free));
	return rings[0] && rings[1] && vs.tx_free;
}

bool vsock_init_for(const struct vsock_setup *setup)
{
	void *rings[2] = {vs.rings[0], vs.rings[1]};

	vs.slots = setup->slots ? setup->slots : RING;
	vs.payload = setup->payload ? setup->payload : PAYLOAD;
	vs.credit = setup->credit ? setup->credit : CREDIT;
	vs.tx_free = vs.tx_free_few;
	if (vs.slots > RING && !enlarge(rings))
		return false;
	if (!virtio_find(&vs.dev, VIRTIO_ID_VSOCK) || !virtio_begin(&vs.dev, 0) ||
		!virtio_queue(&vs.dev, &vs.rx, QUEUE_RX, rings[0], (u16)vs.slots) ||
		!virtio_queue(&vs.dev, &vs.tx, QUEUE_TX, rings[1], (u16)(2 * vs.slots)) ||
		!virtio_queue(&vs.dev, &vs.event, QUEUE_EVENT, vs.rings[2], RING))
		return false;
	vs.rx_mem = kit_pages((size_t)vs.slots * (HEAD + vs.payload));
	vs.tx_mem = kit_pages((size_t)vs.slots * (HEAD + vs.payload));
	if (!vs.rx_mem || !vs.tx_mem)
		return false;
	vs.cid = virtio_config32(&vs.dev, 0);
	vs.next_port = PORT_FIRST;
	start_rings();
	return true;
}

bool vsock_init(void)
{
	return vsock_init_for(&(struct vsock_setup){0});
}

u32 vsock_cid(void)
{
	return vs.cid;
}

const struct virtio_dev *vsock_device(void)
{
	return &vs.dev;
}

bool vsock_listen(u32 port, const struct vsock_ops *ops)
{
	if (vs.listener_count == VSOCK_LISTENERS || find_listener(port))
		return false;
	vs.listeners[vs.listener_count++] = (struct listener){.port = port, .ops = *ops};
	return true;
}

struct vsock_conn *vsock_connect(u32 peer_cid, u32 peer_port, const struct vsock_ops *ops)
{
	struct vsock_conn *c;

	do {
		if (++vs.next_port < PORT_FIRST)
			vs.next_port = PORT_FIRST;
	} while (find_conn(peer_cid, peer_port, vs.next_port));
	c = new_conn(CONNECTING, peer_cid, peer_port, vs.next_port, ops);
	if (c) {
		c->control = BIT(OP_REQUEST);
		send_control(c);
		virtq_kick(&vs.tx);
	}
	return c;
}

const u8 *vsock_peek(struct vsock_conn *c, size_t *len)
{
	*len = c->kept_len ? c->kept_len : c->packet_len;
	return c->kept_len ? c->kept + c->kept_at : c->packet;
}

void vsock_consume(struct vsock_conn *c, size_t len)
{
	if (c->kept_len) {
		c->kept_at += (u32)len;
		c->kept_len -= (u32)len;
		if (!c->kept_len)
			c->kept_at = 0;
	} else {
		c->packet += len;
		c->packet_len -= (u32)len;
	}
	c->consumed += (u32)len;
}

size_t vsock_recv(struct vsock_conn *c, void *data, size_t cap)
{
	size_t len;
	const u8 *from = vsock_peek(c, &len);

	if (len > cap)
		len = cap;
	memcpy(data, from, len);
	vsock_consume(c, len);
	return len;
}

size_t vsock_line(struct vsock_conn *c, const char **line, size_t *len, size_t max)
{
	size_t have;
	const char *text = (const char *)vsock_peek(c, &have);
	const char *end = memchr(text, '\n', have <= max ? have : max + 1);

	*line = text;
	if (end) {
		*len = (size_t)(end - text);
		return *len + 1;
	}
	if (have <= max && !(c->peer_shut & SHUT_SEND))
		return 0;
	*len = have <= max ? have : max;
	return *len;
}

bool vsock_eof(const struct vsock_conn *c)
{
	return (c->peer_shut & SHUT_SEND) && !c->kept_len && !c->packet_len;
}

bool vsock_deaf(const struct vsock_conn *c)
{
	return c->peer_shut & SHUT_RECEIVE;
}

/* Is there room for one data packet of @len bytes? Else event() comes when there may be. */
static bool have_room(struct vsock_conn *c, size_t len)
{
	if (c->control & BIT(OP_RESPONSE) || !have_slot(CONTROL_SLOTS)) {
		c->short_room = true;
		return false;
	}
	if (credit(c) < len) {
		if (!c->short_credit)
			c->control |= BIT(OP_CREDIT_REQUEST);
		c->short_credit = true; /* asked once until there is enough again */
		return false;
	}
	c->short_credit = false;
	return true;
}

/* A piece that is worth a packet: not every few bytes of credit make one. */
static size_t worth(const struct vsock_conn *c, size_t len)
{
	size_t most = vs.payload < c->peer_alloc ? vs.payload : c->peer_alloc;
	size_t least = most > 2 ? most / 2 : 1;

	return len < least ? len : least;
}

static size_t send(struct vsock_conn *c, const u8 *data, size_t len, bool keeps)
{
	size_t done = 0;

	if (c->state != OPEN || (c->we_shut & SHUT_SEND))
		return 0;
	if (vsock_deaf(c))
		return len; /* nobody wants it: gone, as it would be a moment later */
	while (done < len && have_room(c, worth(c, len - done))) {
		size_t count = len - done;
		struct header h;

		if (count > vs.payload)
			count = vs.payload;
		if (count > credit(c))
			count = credit(c);
		h = header_on(c, OP_RW, 0, (u32)count);
		transmit(&h, data + done, keeps);
		c->sent += (u32)count;
		done += count;
	}
	return done;
}

size_t vsock_send(struct vsock_conn *c, const void *data, size_t len)
{
	return send(c, data, len, false);
}

size_t vsock_send_constant(struct vsock_conn *c, const void *data, size_t len)
{
	return send(c, data, len, true);
}

bool vsock_send_all(struct vsock_conn *c, const void *data, size_t len)
{
	if (len > vs.payload || c->state != OPEN || (c->we_shut & SHUT_SEND))
		return false;
	return vsock_deaf(c) || (have_room(c, len) && vsock_send(c, data, len) == len);
}

void vsock_shutdown(struct vsock_conn *c)
{
	c->we_shut |= SHUT_SEND;
	c->control |= BIT(OP_SHUTDOWN);
}

void vsock_close(struct vsock_conn *c)
{
	bool opened = c->state == OPEN;

	release_kept(c);
	c->state = CLOSING;
	c->we_shut = SHUT_BOTH;
	c->due = false;
	c->short_room = false;
	if (opened && c->peer_shut != SHUT_BOTH)
		c->control = (u8)((c->control & BIT(OP_RESPONSE)) | BIT(OP_SHUTDOWN));
	else
		c->control = BIT(OP_RST);
}

/* What connection @c owes or is owed; true if there was something. */
static bool serve(struct vsock_conn *c)
{
	bool any = c->control != 0;

	send_control(c);
	if (c->state == OPEN && (c->due || (c->short_room && have_slot(CONTROL_SLOTS)))) {
		call_event(c);
		send_control(c);
		any = true;
	}
	if (c->state == OPEN && c->peer_shut == SHUT_BOTH && vsock_eof(c) && !c->due)
		abort_conn(c);
	return any;
}

bool vsock_poll(void)
{
	bool any = kit_check_generation();

	any |= take_events();
	any |= receive();
	for (; vs.reset_count > 0 && have_slot(0); any = true)
		transmit(&vs.resets[--vs.reset_count], NULL, false);
	for (unsigned i = 0; i < vs.conn_high; i++) {
		if (vs.conns[i].state != FREE)
			any |= serve(&vs.conns[i]);
	}
	virtq_kick(&vs.tx);
	return any;
}

bool vsock_arm(void)
{
	bool waits_for_slot = vs.reset_count > 0, more;

	for (unsigned i = 0; i < vs.conn_high; i++) {
		const struct vsock_conn *c = &vs.conns[i];

		if (c->state != FREE && (c->control || c->short_room))
			waits_for_slot = true;
	}
	more = virtq_arm(&vs.rx);
	more |= virtq_arm(&vs.event);
	if (waits_for_slot)
		more |= virtq_arm(&vs.tx);
	return more;
}

void vsock_wait(void)
{
	if (!kit_look_again(vsock_poll()) && !vsock_arm())
		kit_wait(KIT_FOREVER);
}
