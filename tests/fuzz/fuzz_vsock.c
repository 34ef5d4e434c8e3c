/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_vsock.c - the vsock device between a guest's driver and host programs, both of which the
 * input plays, on the fake host. The guest opens connections, answers, sends, gives credit and
 * buffers, closes, resets; the host connects, writes, reads slowly, hangs up; time passes; system
 * calls fail; the VM is paused, saved and restored in the middle. Packets are right for the state
 * of their connection unless the input breaks a field (V01 to V13).
 *
 * Checked while the driver keeps the rules: every byte arrives once and in order, in both
 * directions; credit is not exceeded; packets belong to connections; nothing is left undone when
 * the loop has nothing to do: no chain, no byte that could move. Always: heads come back once, the
 * loop comes to rest, descriptors and connections are bounded and all gone at the end, and after a
 * reset the device works.
 */
#include <errno.h>
#include <linux/virtio_vsock.h>
#include <string.h>

#include "tests/fuzz/fuzz_loop.h"
#include "virtio/vsock_int.h"

#define CID       7u
#define PAIRS     8u
#define HDR       ((u32)VSOCK_HDR)
#define UNKNOWN   UINT32_MAX

/* Guest memory behind the rings: a slot for each head, and bytes to send. */
#define TX_SLOT   512u
#define RX_SLOT   2048u
#define TX_GPA    FZ_DATA_GPA
#define RX_GPA    (TX_GPA + FZ_QSIZE * TX_SLOT)
#define EV_GPA    (RX_GPA + FZ_QSIZE * RX_SLOT)
#define BIG_GPA   (EV_GPA + MEM_PAGE)
#define BIG_LEN   0x11000u
#define BYTES_GPA (BIG_GPA + BIG_LEN)
#define BYTES_LEN 0x11000u
#define LOW_LEN   (BYTES_GPA + BYTES_LEN)

/* A connection as the guest sees it. */
struct pair {
	u32 guest_port, host_port;
	enum { FREE, ASKED, OFFERED, OPEN } state;
	u64 sent, heard;  /* bytes in either direction */
	u32 told_fwd;     /* heard, as last told to the device */
	u32 peer_fwd, peer_alloc;
	u32 window;       /* bytes that may be under way to the guest */
	unsigned shut;    /* by the guest */
};

static const int connect_results[] = {0, FH_WAIT, -EAGAIN, -ECONNREFUSED, -ENOENT};
static const u32 windows[] = {65536, 100, 3000, 65536, 0};

static struct {
	struct guest_ram ram;
	struct fz_loop loop;
	struct virtio_dev *d;
	struct fz_queue q[3];
	int listener;
	struct pair pair[PAIRS];
	u32 next_port; /* of the guest's connections */
	bool trust;    /* the driver kept the rules of the rings and its own memory */
	bool up;       /* the driver drives */
	bool events;   /* it has an event queue */
	bool dirty;    /* guest memory must be made anew */
	int big_head;  /* the RX buffer that has the big place, or -1 */
	u32 rx_len[FZ_QSIZE];
} t;

static void take_used(void);

static u8 bytes[BYTES_LEN]; /* what every guest sends; see fh_byte() */

static void raise_irq(void *ctx, unsigned line)
{
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fz_ram_init(&t.ram, LOW_LEN);
	for (u32 i = 0; i < BYTES_LEN; i++)
		bytes[i] = fh_byte(i);
	t.dirty = true;
	return 0;
}

static struct vsock *vsock(void)
{
	return container_of(t.d, struct vsock, dev);
}

static void open_device(const struct enc *saved)
{
	struct vsock_config cfg = {.cid = CID, .path = "/v", .wait_ms = 50};

	cfg.listen_fd = t.listener = fh_listener();
	must(!vsock_create(&t.d, &cfg, t.loop.ring, &t.ram.mem,
		(struct virtio_irq){raise_irq, NULL, 0}, NULL));
	fz_loop_run(&t.loop, t.d);
	if (saved)
		must(!virtio_load(t.d, saved->buf, saved->len, NULL));
}

/* Puts another device in its place; the host's programs lose their connections. */
static void reopen_device(const struct enc *saved)
{
	fz_loop_end(&t.loop, NULL);
	fh_reset();
	fz_loop_again(&t.loop);
	open_device(saved);
}

/* Connections, as the guest knows them. */

static struct pair *find_pair(u32 guest_port, u32 host_port)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		if (t.pair[i].state != FREE && t.pair[i].guest_port == guest_port &&
			t.pair[i].host_port == host_port)
			return &t.pair[i];
	}
	return NULL;
}

static struct pair *new_pair(u32 guest_port, u32 host_port)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		struct pair *p = &t.pair[i];

		if (p->state == FREE) {
			*p = (struct pair){.guest_port = guest_port, .host_port = host_port,
				.window = windows[host_port % ARRAY_SIZE(windows)]};
			return p;
		}
	}
	return NULL;
}

static void forget_pairs(void)
{
	memset(t.pair, 0, sizeof(t.pair));
}

/*
 * What a host program gets on a stream: on one that it made first "OK <port>\n". A stream can
 * outlive the driver that sent on it; if that one broke the rules, s->mark says UNKNOWN.
 */
static void check_host_bytes(struct fh_file *f, u64 pos, const u8 *data, size_t len)
{
	struct fh_stream *s = &f->s;

	fz_trace("host %d gets %zu bytes at %llu: %u..", f->fd, len, (unsigned long long)pos,
		data[0]);
	for (size_t i = 0; i < len && s->mark != UNKNOWN; i++) {
		if (s->host_made && !s->mark) {
			must(pos + i < VSOCK_LINE_MAX);
			s->mark = data[i] == '\n' ? (u32)(pos + i + 1) : 0;
		} else if (t.trust) {
			must(data[i] == fh_byte(pos + i - s->mark));
		}
	}
}

/* The driver. */

static void mark_unknown(struct fh_file *f, void *ctx)
{
	f->s.mark = UNKNOWN;
}

static void bring_up(struct fz *f)
{
	struct fz_queue *q[3] = {NULL};
	u8 how = fz_u8(f);

	forget_pairs();
	if (!t.trust)
		fh_each_stream(mark_unknown, NULL);
	for (unsigned i = 0; i < 3; i++) {
		fz_queue_init(&t.q[i], &t.ram, i, (u16)(4u << fz_below(f, 4)));
		t.q[i].indirect = how & 1;
		t.q[i].event_idx = how & 2;
		q[i] = &t.q[i];
	}
	t.events = !(how & 4);
	if (!t.events)
		q[VSOCK_EVENTQ] = NULL;
	if (t.dirty) {
		guest_write(&t.ram, BYTES_GPA, bytes, BYTES_LEN);
		t.dirty = false;
	}
	t.big_head = -1;
	t.trust = true;
	fz_bring_up(t.d, q, 3, VIRTIO_MASK_VERSION_1);
	t.up = true;
}

/* The ring, or memory that others look at, is not what it should be any more. */
static void broke(enum fz_fault r)
{
	if (r == FZ_BROKEN) {
		t.trust = false;
		t.dirty = true;
	}
}

static void add_rx(struct fz *f)
{
	struct fz_queue *q = &t.q[VSOCK_RXQ];
	u16 head = fz_next_head(q), got;
	u32 len = HDR + 1 + fz_u16(f) % (RX_SLOT - HDR);
	u64 gpa = RX_GPA + (u64)head * RX_SLOT;
	enum fz_fault r;

	if (fz_u8(f) % 8 == 7 && t.big_head < 0) {
		gpa = BIG_GPA;
		len = BIG_LEN;
	}
	if (fz_break(f, 8)) /* V: too small for a packet */
		len = 1 + fz_below(f, HDR);
	r = fz_offer(f, q, (struct vqb_buf[]){VQB_W(gpa, len)}, 1, &got);
	if (r == FZ_FULL)
		return;
	if (gpa == BIG_GPA)
		t.big_head = got;
	t.rx_len[got] = len;
	broke(r);
}

static void add_event(struct fz *f)
{
	u16 head = fz_next_head(&t.q[VSOCK_EVENTQ]), got;
	u32 len = fz_break(f, 16) ? 1 + fz_below(f, 8) : 4; /* V11 */

	if (t.events)
		broke(fz_offer(f, &t.q[VSOCK_EVENTQ],
			(struct vqb_buf[]){VQB_W(EV_GPA + 8u * head, len)}, 1, &got));
}

static struct virtio_vsock_hdr header(const struct pair *p, unsigned op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = p->guest_port,
		.dst_port = p->host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = (u16)op,
		.buf_alloc = p->window,
		.fwd_cnt = (u32)p->heard,
	};
}

/* Breaks one field of a header. Nothing is promised for the connection then. */
static void break_header(struct fz *f, struct virtio_vsock_hdr *h, unsigned field)
{
	switch (field) {
	case 1: /* V01 */
		h->src_cid = fz_odd(f, CID);
		break;
	case 2:
		h->dst_cid = fz_odd(f, 2);
		break;
	case 3: /* V02 */
		h->src_port = (u32)fz_odd(f, h->src_port);
		break;
	case 4:
		h->dst_port = (u32)fz_odd(f, h->dst_port);
		break;
	case 5: /* V03 */
		h->type = (u16)fz_odd(f, h->type);
		break;
	case 6:
		h->op = (u16)fz_below(f, 12);
		break;
	case 7: /* V04 */
		h->len = (u32)fz_odd(f, h->len);
		break;
	case 8: /* V06 */
		h->buf_alloc = (u32)fz_odd(f, h->buf_alloc);
		break;
	case 9:
		h->fwd_cnt = (u32)fz_odd(f, h->fwd_cnt);
		break;
	default:
		h->flags = fz_u8(f);
		break;
	}
}

/* A packet: header and @len bytes from @pos of the bytes there are, in one buffer or more. */
static bool guest_send(struct fz *f, struct pair *p, struct virtio_vsock_hdr h, u64 pos, u32 len)
{
	struct fz_queue *q = &t.q[VSOCK_TXQ];
	u16 head = fz_next_head(q), got;
	u64 gpa = TX_GPA + (u64)head * TX_SLOT;
	unsigned field = fz_break(f, 10);
	bool close = len <= TX_SLOT - HDR && fz_u8(f) & 1;
	struct vqb_buf buf[2] = {VQB_R(gpa, HDR), VQB_R(BYTES_GPA + pos % 251, len)};
	enum fz_fault r;

	if (!q->b.free_count && !q->broken)
		return false;
	h.len = len;
	if (field)
		break_header(f, &h, field);
	guest_write(&t.ram, gpa, &h, HDR);
	if (close && len) {
		guest_write(&t.ram, gpa + HDR, bytes + pos % 251, len);
		buf[0].len += len;
	}
	r = fz_offer(f, q, buf, len && !close ? 2 : 1, &got);
	if (r == FZ_FULL)
		return false;
	fz_trace("guest sends %u->%u op %u len %u, broken %u", h.src_port, h.dst_port, h.op, h.len,
		field);
	if (field || r == FZ_ODD)
		t.trust = false;
	broke(r);
	p->told_fwd = h.fwd_cnt;
	return true;
}

/* The natural next packet of an open connection. */
static void send_open(struct fz *f, struct pair *p, unsigned what)
{
	struct virtio_vsock_hdr h = header(p, VIRTIO_VSOCK_OP_RW);
	u32 credit = p->peer_alloc - (u32)(p->sent - p->peer_fwd), len = 0;
	u16 want = fz_u16(f);

	switch (what) {
	default:
		if (p->shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
			return;
		len = want & 1 ? want : want % 600;
		if (len > credit && fz_break(f, 64)) /* V07 */
			t.trust = false;
		else if (len > credit)
			len = credit;
		break;
	case 8:
	case 9:
		h.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
		break;
	case 10:
		h.op = VIRTIO_VSOCK_OP_CREDIT_REQUEST;
		break;
	case 11:
		h.op = VIRTIO_VSOCK_OP_SHUTDOWN;
		h.flags = 1 + want % 3;
		break;
	case 12:
		h.op = VIRTIO_VSOCK_OP_RST;
		break;
	}
	if (!guest_send(f, p, h, p->sent, len))
		return;
	p->sent += len;
	if (h.op == VIRTIO_VSOCK_OP_SHUTDOWN)
		p->shut |= h.flags;
	if (h.op == VIRTIO_VSOCK_OP_RST)
		p->state = FREE;
}

/* More than the device keeps for a host that does not read (V07, V09). */
static void send_bulk(struct fz *f, struct pair *p)
{
	unsigned n = VSOCK_TX_BUF_WIDE / 65000 + 2;

	while (n-- && p->state == OPEN && !(p->shut & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		u32 credit = p->peer_alloc - (u32)(p->sent - p->peer_fwd);

		if (credit < 65000)
			t.trust = false;
		if (guest_send(f, p, header(p, VIRTIO_VSOCK_OP_RW), p->sent, 65000))
			p->sent += 65000;
		fz_kick(t.d, &t.q[VSOCK_TXQ]);
		fz_settle(&t.loop);
		take_used();
	}
}

static void guest_packet(struct fz *f)
{
	unsigned i = fz_below(f, PAIRS), what = fz_below(f, 13);
	struct pair *p = &t.pair[i];

	switch (p->state) {
	case FREE:
		if (fz_break(f, 32)) /* V10: the device may still have to say something of it */
			t.trust = false;
		else
			t.next_port++;
		*p = (struct pair){.guest_port = t.next_port, .host_port = 50 + i % 4,
			.window = windows[fz_below(f, ARRAY_SIZE(windows))]};
		if (guest_send(f, p, header(p, VIRTIO_VSOCK_OP_REQUEST), 0, 0))
			p->state = ASKED;
		break;
	case ASKED: /* V02, V05: the answer is not here yet */
		if (what == 12 && guest_send(f, p, header(p, VIRTIO_VSOCK_OP_RST), 0, 0))
			p->state = FREE;
		break;
	case OFFERED:
		if (what == 12) {
			if (guest_send(f, p, header(p, VIRTIO_VSOCK_OP_RST), 0, 0))
				p->state = FREE;
		} else if (guest_send(f, p, header(p, VIRTIO_VSOCK_OP_RESPONSE), 0, 0)) {
			p->state = OPEN;
		}
		break;
	case OPEN:
		if (fz_break(f, 12))
			send_bulk(f, p);
		else
			send_open(f, p, what);
		break;
	}
}

/* What the device sends. */

static void check_payload(struct pair *p, u64 gpa, u32 len)
{
	const u8 *data = len ? guest_at(&t.ram, gpa, len) : NULL;

	must(p->state == OPEN);
	for (u32 i = 0; i < len; i++)
		must(data[i] == fh_byte(p->heard + i));
	p->heard += len;
	must((u32)(p->heard - p->told_fwd) <= p->window);
}

/* A packet, while the driver keeps the rules. */
static void take_packet(const struct virtio_vsock_hdr *h, u64 gpa)
{
	struct pair *p = find_pair(h->dst_port, h->src_port);

	fz_trace("guest gets %u->%u op %u len %u", h->src_port, h->dst_port, h->op, h->len);
	must(h->src_cid == 2 && h->dst_cid == CID && h->type == VIRTIO_VSOCK_TYPE_STREAM);
	if (h->op == VIRTIO_VSOCK_OP_REQUEST) {
		must(!p && h->src_port >= VSOCK_PORT_FIRST);
		p = new_pair(h->dst_port, h->src_port);
		if (p)
			p->state = OFFERED;
	}
	if (!p) /* the guest gave it up, and that is still on its way */
		return;
	p->peer_alloc = h->buf_alloc;
	p->peer_fwd = h->fwd_cnt;
	switch (h->op) {
	case VIRTIO_VSOCK_OP_REQUEST:
		break;
	case VIRTIO_VSOCK_OP_RESPONSE:
		must(p->state == ASKED);
		p->state = OPEN;
		break;
	case VIRTIO_VSOCK_OP_RW:
		check_payload(p, gpa, h->len);
		break;
	case VIRTIO_VSOCK_OP_RST:
		p->state = FREE;
		break;
	default:
		must(h->op <= VIRTIO_VSOCK_OP_CREDIT_REQUEST && !h->len);
		break;
	}
}

static void take_rx(void)
{
	struct virtio_vsock_hdr h;
	u16 head;
	u32 len;

	while (fz_used(&t.q[VSOCK_RXQ], &head, &len)) {
		u64 gpa = head == t.big_head ? BIG_GPA : RX_GPA + (u64)head * RX_SLOT;

		must(len <= t.rx_len[head] || t.q[VSOCK_RXQ].odd[head]);
		if (head == t.big_head)
			t.big_head = -1;
		if (!len) {
			must(t.rx_len[head] <= HDR || t.q[VSOCK_RXQ].odd[head]);
			continue;
		}
		guest_read(&t.ram, gpa, &h, HDR);
		if (t.q[VSOCK_RXQ].odd[head])
			t.trust = false; /* its place is not known */
		must(!t.trust || len == HDR + h.len);
		if (t.trust)
			take_packet(&h, gpa + HDR);
	}
}

static void take_used(void)
{
	u16 head;
	u32 len;

	take_rx();
	while (fz_used(&t.q[VSOCK_TXQ], &head, &len))
		must(!len);
	while (fz_used(&t.q[VSOCK_EVENTQ], &head, &len)) {
		must(len == 4 || !len);
		for (unsigned i = 0; i < PAIRS && len; i++) { /* a transport reset */
			if (t.pair[i].state == OPEN)
				t.pair[i].state = FREE;
		}
	}
}

/* Nothing that could be done was left undone. */
static void check_rest(void)
{
	struct vsock *v = vsock();
	struct vsock_conn *c;
	bool rx = false;

	must(v->count <= VSOCK_CONNS_MAX && !t.d->io_count);
	/* Host programs come in at once, unless the host is out of something. */
	must(fh_file(t.listener)->first_client < 0 || v->accept_due_ns);
	if (!t.up || !virtio_live(t.d) || t.q[VSOCK_RXQ].broken || t.q[VSOCK_TXQ].broken)
		return;
	must(!t.q[VSOCK_TXQ].out_count); /* each was looked at, and came back */
	for (unsigned i = 0; i < FZ_QSIZE; i++)
		rx |= t.q[VSOCK_RXQ].out[i];
	if (!rx || v->gated)
		rx = false;
	must(!rx || (!v->rst_count && TAILQ_EMPTY(&v->ready)));
	TAILQ_FOREACH (c, &v->conns, all) {
		const struct fh_stream *s = &fh_file(c->fd)->s;

		if (c->state != CONN_OPEN)
			continue;
		must(c->buf_len <= c->buf_alloc);
		must(!c->buf_len || !s->room);
		/* Nobody has anything more to say. */
		must(!(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && c->eof) || c->buf_len);
		must(!rx || s->taken == s->wrote || !conn_credit(c) ||
			c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV || fh_faults_hit());
	}
	TAILQ_FOREACH (c, &v->dead, all)
		must(c->fd < 0 && !c->buf);
}

/* Host programs. */

static const char *const lines[] = {"CONNECT 1024\n", "CONNECT 1025\n", "CONNECT 1\n",
	"connect  4294967295 \n", "CONNECT 4294967296\n", "CONNECT\n", "HELLO\n", "CONNECT 1024",
	"CONNECT 00000000000000000000001024\n", "\n", "CONNECT 1024 END\n", "CONNECT 1025 end \n",
	"CONNECT 1024 ENDS\n"};

static void host_connects(struct fz *f)
{
	int fd = fh_client(t.listener);
	const char *line = lines[fz_u8(f) & 1 ? fz_below(f, ARRAY_SIZE(lines)) : 0];
	struct fh_stream *s;

	if (fd < 0)
		return;
	s = &fh_file(fd)->s;
	s->line_len = (u32)strlen(line);
	s->line = line;
	s->wrote = fz_break(f, 16) ? fz_below(f, s->line_len + 1) : s->line_len;
	s->room = 100000;
}

struct choice {
	unsigned left;
	struct fh_file *f;
};

static void choose(struct fh_file *f, void *ctx)
{
	struct choice *c = ctx;

	if (!c->left--)
		c->f = f;
}

static void count_streams(struct fh_file *f, void *ctx)
{
	(*(unsigned *)ctx)++;
}

static void host_acts(struct fz *f)
{
	struct choice c = {0};
	unsigned n = 0;
	struct fh_stream *s;

	fh_each_stream(count_streams, &n);
	if (!n)
		return;
	c.left = fz_u8(f) % n;
	fh_each_stream(choose, &c);
	s = &c.f->s;
	switch (fz_below(f, 12)) {
	case 0:
		s->peer_shut = true;
		break;
	case 1:
		s->peer_shut = s->peer_gone = true;
		break;
	case 2:
	case 3:
	case 4:
		s->room += fz_u16(f);
		break;
	case 5:
		s->room = fz_u8(f);
		break;
	default:
		if (!s->peer_shut)
			s->wrote += fz_u8(f) & 1 ? fz_u16(f) : fz_u8(f);
	}
}

static void host_fails(struct fz *f)
{
	static const enum fh_op kinds[] = {FH_IN, FH_OUT, FH_ACCEPT, FH_CONNECT, FH_POLL,
		FH_SHUTDOWN, FH_SOCKET};

	if (fz_below(f, 8) == 7)
		fh_fault_alloc(fz_below(f, 4));
	else
		fz_fail(f, kinds, ARRAY_SIZE(kinds), true);
}

/* The whole VM. */

static void save_and_restore(struct fz *f)
{
	struct enc e = {0};
	bool change = fz_break(f, 16);
	unsigned at = fz_u16(f);
	struct err err;

	fh_fault_none();
	virtio_freeze(t.d);
	fz_quiesce(&t.loop);
	virtio_save(t.d, &e);
	must(!e.oom);
	if (change)
		fz_change(f, (u8)at, &e);
	if (!change) { /* the guest learns of it by an event, or by the answers it gets */
		reopen_device(&e);
	} else { /* it may be refused; if not, the driver knows nothing about the device */
		reopen_device(NULL);
		if (virtio_load(t.d, e.buf, e.len, &err))
			reopen_device(NULL);
		t.trust = t.up = false;
		t.dirty = true;
		for (unsigned i = 0; i < 3; i++)
			t.q[i].broken = true;
	}
	vsock_start(t.d);
	enc_free(&e);
}

static void sleep_some(struct fz *f)
{
	static const u64 ms[] = {0, 1, 5, 20, 60, 200, 500, 2000, 2001, 5000};

	fh_sleep(ms[fz_below(f, ARRAY_SIZE(ms))] * 1000000);
}

static void guest_step(struct fz *f, unsigned what)
{
	switch (what) {
	case 0 ... 9:
		guest_packet(f);
		fz_kick(t.d, &t.q[VSOCK_TXQ]);
		break;
	case 10 ... 12:
		for (unsigned n = 1 + fz_below(f, 8); n--;)
			add_rx(f);
		fz_kick(t.d, &t.q[VSOCK_RXQ]);
		break;
	case 13:
		add_event(f);
		if (t.events)
			fz_kick(t.d, &t.q[VSOCK_EVENTQ]);
		break;
	case 14:
		if (fz_break(f, 32)) {
			fz_scribble(f, t.q, 3);
			broke(FZ_BROKEN);
		}
		break;
	default:
		take_used();
		break;
	}
}

static void step(struct fz *f)
{
	u8 what = fz_u8(f);

	fz_trace("step %u%s", what % 32, what & 0x80 ? ", no turn" : "");
	switch (what % 32) {
	case 0 ... 15:
		if (t.up)
			guest_step(f, what % 32);
		break;
	case 16:
	case 17:
		host_connects(f);
		break;
	case 18 ... 21:
		host_acts(f);
		break;
	case 22:
	case 23:
		sleep_some(f);
		break;
	case 24:
		fh_connect_result(connect_results[fz_below(f, ARRAY_SIZE(connect_results))]);
		break;
	case 25:
		host_fails(f);
		break;
	case 26:
		save_and_restore(f);
		break;
	case 27:
	case 28:
		(what % 32 == 27 ? virtio_freeze : virtio_thaw)(t.d);
		break;
	case 29:
		fz_mmio_access(f, t.d);
		t.up = false; /* who knows */
		break;
	case 30:
		if (fz_u8(f) & 1)
			drv_reset(t.d);
		bring_up(f);
		break;
	default:
		fz_turn(&t.loop);
	}
	if (!(what & 0x80)) {
		fz_settle(&t.loop);
		if (t.up)
			take_used();
		check_rest();
	}
}

/* The device answers a driver that did nothing wrong yet. */
static void check_works(void)
{
	struct fz f = {0};
	struct pair p = {.guest_port = 5, .host_port = 6};

	fh_fault_none();
	virtio_thaw(t.d);
	bring_up(&f);
	fz_settle(&t.loop);
	add_rx(&f);
	fz_kick(t.d, &t.q[VSOCK_RXQ]);
	must(guest_send(&f, &p, header(&p, VIRTIO_VSOCK_OP_RW), 0, 1));
	fz_kick(t.d, &t.q[VSOCK_TXQ]);
	fz_settle(&t.loop);
	must(t.d->status == 15 && !t.q[VSOCK_TXQ].b.used_seen);
	take_used();
	must(!t.q[VSOCK_TXQ].out_count && !t.q[VSOCK_RXQ].out_count); /* an RST came */
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	struct fz f;

	fh_reset();
	fh_sink = check_host_bytes;
	if (t.dirty)
		fz_ram_clear(&t.ram);
	memset(t.pair, 0, sizeof(t.pair));
	t.next_port = 2000;
	fz_begin(&f, data, len);
	fz_step(&f);
	fz_loop_init(&t.loop, &f);
	open_device(NULL);
	vsock_start(t.d);
	t.up = t.trust = false;
	memset(t.q, 0, sizeof(t.q));
	if (!(fz_u8(&f) & 1))
		bring_up(&f);
	while (fz_step(&f)) {
		step(&f);
		fz_check_dev(t.d);
		must(!(t.d->status & 0x40) || !t.up || t.q[0].broken || t.q[1].broken ||
			t.q[2].broken);
	}
	check_works();
	vsock_finish(t.d); /* what is left for the host's programs */
	fz_loop_end(&t.loop, NULL);
	return 0;
}
