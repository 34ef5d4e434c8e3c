/* SPDX-License-Identifier: Apache-2.0 */
/* serial.c - see serial.h. Register names are those of the 16550 data sheet. */
#include "monitor/serial.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUT_SIZE 65536u /* power of two */
#define IN_SIZE  1024u  /* power of two */

#define IER_RDI   0x01u /* interrupt on received data */
#define IER_THRI  0x02u /* interrupt on transmitter empty */
#define LCR_DLAB  0x80u
#define LSR_DR    0x01u
#define LSR_EMPTY 0x60u /* transmitter and its holding register */
#define IIR_NONE  0x01u
#define IIR_THRI  0x02u
#define IIR_RDI   0x04u
#define IIR_FIFO  0xc0u
#define MSR_READY 0xb0u /* carrier, data set ready, clear to send */

struct serial {
	struct serial_host host;
	struct ring *ring;
	pthread_mutex_t lock;
	u8 ier, lcr, mcr, scr, dll, dlm, fcr;
	bool thr_interrupt; /* transmitter-empty is pending */
	u8 out[OUT_SIZE], in[IN_SIZE];
	u32 out_head, out_tail; /* free-running */
	u32 in_head, in_tail;
	u64 written, dropped;
	struct ring_op out_op, in_op;
	bool out_polls, in_polls; /* the op is a poll: the descriptor was opened non-blocking */
	u8 in_byte[IN_SIZE];
};

static void out_done(struct ring_op *op, int res);
static void in_done(struct ring_op *op, int res);

int serial_create(struct serial **ret, const struct serial_host *host, struct ring *ring,
	struct err *e)
{
	struct serial *s = calloc(1, sizeof(*s));

	if (!s)
		return err_sys(e, ENOMEM, "cannot make the console");
	s->host = *host;
	s->ring = ring;
	pthread_mutex_init(&s->lock, NULL);
	s->out_op.done = out_done;
	s->in_op.done = in_done;
	*ret = s;
	return 0;
}

void serial_destroy(struct serial **s)
{
	free(*s);
	*s = NULL;
}

static void raise_if(struct serial *s, bool condition)
{
	if (condition)
		s->host.raise(s->host.ctx);
}

static u8 interrupt_id(struct serial *s)
{
	u8 fifo = s->fcr & 1 ? IIR_FIFO : 0;

	if ((s->ier & IER_RDI) && s->in_head != s->in_tail)
		return fifo | IIR_RDI;
	if ((s->ier & IER_THRI) && s->thr_interrupt) {
		s->thr_interrupt = false; /* reading it acknowledges it */
		return fifo | IIR_THRI;
	}
	return fifo | IIR_NONE;
}

static void start_input(struct serial *s)
{
	u32 room = IN_SIZE - (s->in_head - s->in_tail);

	if (s->host.in_fd >= 0 && !s->in_op.busy && room)
		ring_read(s->ring, &s->in_op, s->host.in_fd, s->in_byte, room);
}

u8 serial_read(struct serial *s, u16 reg)
{
	u8 v = 0;

	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case 0:
		if (s->lcr & LCR_DLAB) {
			v = s->dll;
		} else if (s->in_head != s->in_tail) {
			v = s->in[s->in_tail++ % IN_SIZE];
			if (s->in_head == s->in_tail)
				s->host.wake(s->host.ctx); /* the loop reads more */
		}
		break;
	case 1: v = s->lcr & LCR_DLAB ? s->dlm : s->ier; break;
	case 2: v = interrupt_id(s); break;
	case 3: v = s->lcr; break;
	case 4: v = s->mcr; break;
	case 5: v = LSR_EMPTY | (s->in_head != s->in_tail ? LSR_DR : 0); break;
	case 6: v = MSR_READY; break;
	default: v = s->scr; break;
	}
	pthread_mutex_unlock(&s->lock);
	return v;
}

static void transmit(struct serial *s, u8 byte)
{
	if (s->out_head - s->out_tail == OUT_SIZE) {
		s->dropped++;
	} else {
		s->out[s->out_head++ % OUT_SIZE] = byte;
		/* A line at a time is enough for people and saves a wake-up a character. */
		if (byte == '\n' || s->out_head - s->out_tail == 1 ||
			s->out_head - s->out_tail == OUT_SIZE / 2)
			s->host.wake(s->host.ctx);
	}
	s->thr_interrupt = true;
	raise_if(s, s->ier & IER_THRI);
}

void serial_write(struct serial *s, u16 reg, u8 value)
{
	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case 0:
		if (s->lcr & LCR_DLAB)
			s->dll = value;
		else
			transmit(s, value);
		break;
	case 1:
		if (s->lcr & LCR_DLAB) {
			s->dlm = value;
			break;
		}
		s->thr_interrupt |= (value & IER_THRI) && !(s->ier & IER_THRI);
		s->ier = value & 0x0f;
		raise_if(s, ((s->ier & IER_THRI) && s->thr_interrupt) ||
				    ((s->ier & IER_RDI) && s->in_head != s->in_tail));
		break;
	case 2: s->fcr = value; break;
	case 3: s->lcr = value; break;
	case 4: s->mcr = value & 0x1f; break;
	case 7: s->scr = value; break;
	default: break; /* line and modem status are read-only */
	}
	pthread_mutex_unlock(&s->lock);
}

/* The longest piece that waits and lies in one run. */
static u32 next_piece(const struct serial *s, const u8 **p)
{
	u32 at = s->out_tail % OUT_SIZE, n = s->out_head - s->out_tail;

	*p = s->out + at;
	return n < OUT_SIZE - at ? n : OUT_SIZE - at;
}

/* Output past the limit, or that nobody will ever take, is dropped. */
static void drop_output(struct serial *s)
{
	s->dropped += s->out_head - s->out_tail;
	s->out_tail = s->out_head;
}

void serial_flush(struct serial *s)
{
	const u8 *p;
	u32 n;

	pthread_mutex_lock(&s->lock);
	start_input(s);
	if (s->host.out_limit && s->written >= s->host.out_limit)
		drop_output(s);
	n = next_piece(s, &p);
	if (n && !s->out_op.busy)
		ring_write(s->ring, &s->out_op, s->host.out_fd, p, n);
	pthread_mutex_unlock(&s->lock);
}

static void out_done(struct ring_op *op, int res)
{
	struct serial *s = container_of(op, struct serial, out_op);
	bool polled = s->out_polls;

	pthread_mutex_lock(&s->lock);
	s->out_polls = !polled && res == -EAGAIN;
	if (s->out_polls) {
		ring_poll(s->ring, op, s->host.out_fd, POLLOUT);
	} else if (polled) {
		; /* writable, or so broken that writing tells */
	} else if (res > 0) {
		s->out_tail += (u32)res;
		s->written += (u32)res;
	} else if (res != -EINTR && res != -ECANCELED) {
		drop_output(s); /* the reader is gone */
	}
	pthread_mutex_unlock(&s->lock);
	if (res != -ECANCELED)
		serial_flush(s);
}

static void in_done(struct ring_op *op, int res)
{
	struct serial *s = container_of(op, struct serial, in_op);
	bool polled = s->in_polls;

	pthread_mutex_lock(&s->lock);
	s->in_polls = !polled && res == -EAGAIN;
	for (int i = 0; i < res && !polled; i++)
		s->in[s->in_head++ % IN_SIZE] = s->in_byte[i];
	if (s->in_polls)
		ring_poll(s->ring, op, s->host.in_fd, POLLIN);
	else if (!polled && res <= 0 && res != -EINTR)
		s->host.in_fd = -1; /* end of input */
	start_input(s);
	raise_if(s, res > 0 && !polled && (s->ier & IER_RDI));
	pthread_mutex_unlock(&s->lock);
}

void serial_start(struct serial *s)
{
	serial_flush(s);
}

void serial_drain(struct serial *s)
{
	const u8 *p;
	u32 n;

	for (int i = 0; i < 100 && s->out_op.busy; i++)
		if (ring_poll_once(s->ring) <= 0)
			poll(NULL, 0, 1); /* syscalls[L]: poll */
	pthread_mutex_lock(&s->lock);
	while (!s->out_op.busy && (n = next_piece(s, &p))) {
		struct pollfd pfd = {.fd = s->host.out_fd, .events = POLLOUT};
		ssize_t k;

		if (poll(&pfd, 1, 100) <= 0)
			break;
		/* A pipe that is ready takes this much without making us wait for its reader. */
		k = write(s->host.out_fd, p, n < PIPE_BUF ? n : PIPE_BUF);
		if (k <= 0)
			break;
		s->out_tail += (u32)k;
	}
	pthread_mutex_unlock(&s->lock);
}

u64 serial_dropped(const struct serial *s)
{
	return __atomic_load_n(&s->dropped, __ATOMIC_RELAXED);
}

size_t serial_tail(struct serial *s, char *out, size_t cap)
{
	u32 n;

	pthread_mutex_lock(&s->lock);
	n = s->out_head < OUT_SIZE ? s->out_head : OUT_SIZE; /* it wraps after 4 GiB: then less */
	if (n > cap)
		n = (u32)cap;
	for (u32 i = 0; i < n; i++)
		out[i] = (char)s->out[(s->out_head - n + i) % OUT_SIZE];
	pthread_mutex_unlock(&s->lock);
	return n;
}

void serial_save(struct serial *s, struct enc *out)
{
	const u8 regs[] = {s->ier, s->lcr, s->mcr, s->scr, s->dll, s->dlm, s->fcr,
		s->thr_interrupt};

	enc_bytes(out, regs, sizeof(regs));
}

int serial_load(struct serial *s, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);

	s->ier = dec_u8(&d) & 0x0f;
	s->lcr = dec_u8(&d);
	s->mcr = dec_u8(&d) & 0x1f;
	s->scr = dec_u8(&d);
	s->dll = dec_u8(&d);
	s->dlm = dec_u8(&d);
	s->fcr = dec_u8(&d);
	s->thr_interrupt = dec_u8(&d) & 1;
	if (!dec_done(&d))
		return err_set(e, -EINVAL, "the console's state has %zu bytes instead of 8", len);
	return 0;
}
