/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_loop.c - see fuzz_loop.h */
#include "tests/fuzz/fuzz_loop.h"

#include <errno.h>

#define TURNS_MAX 5000u
#define WINDOW_NS 4000u

static struct fz_loop *running; /* whose device may wait for I/O */

static void make_ring(struct fz_loop *l, unsigned entries)
{
	must(!ring_create(&l->ring, entries, NULL));
	if (l->sleeps)
		ring_set_poll(l->ring, WINDOW_NS);
}

void fz_loop_init(struct fz_loop *l, struct fz *f)
{
	static const u16 entries[] = {64, 64, 64, 2, 4, 8, 256, 1};
	u8 how = fz_u8(f);

	l->d = NULL;
	l->in_turn = false;
	l->attached = !(how & 1);
	l->sleeps = how & 2;
	fh_uring_old(how & 4);
	make_ring(l, entries[how >> 5]);
}

void fz_loop_again(struct fz_loop *l)
{
	make_ring(l, 64);
}

/* A vCPU waits in a reset until I/O in flight has ended, so the loop takes turns. */
static void while_waiting(void)
{
	must(running && running->d->resetting && !running->in_turn);
	while (fh_held())
		fh_let_go(0);
	if (running->meanwhile)
		running->meanwhile();
	fz_turn(running);
}

void fz_loop_run(struct fz_loop *l, struct virtio_dev *d)
{
	l->d = d;
	if (l->attached)
		virtio_attach(d, l->ring);
	running = l;
	fh_while_waiting = while_waiting;
}

bool fz_turn(struct fz_loop *l)
{
	u64 *kicks = &fh_file(l->d->kick_fd)->count, before = fh_uring_activity();
	bool kicked = *kicks, worked = false;

	l->in_turn = true;
	if (l->work)
		worked = l->work();
	if (kicked) {
		*kicks = 0;
		virtio_process(l->d);
	}
	if (l->sleeps)
		must(!ring_run(l->ring));
	else
		must(ring_poll_once(l->ring) >= 0);
	l->in_turn = false;
	return kicked || worked || fh_uring_activity() != before;
}

/* Whether a ring that is awake finds something to do for the device. */
static bool look(struct fz_loop *l)
{
	return l->attached && l->d->watch.look(&l->d->watch);
}

void fz_settle(struct fz_loop *l)
{
	unsigned n = 0, idle = 0;

	/* What a look at the queues found is seen at the next turn; if it always finds something,
	 * the loop never sleeps. */
	while (idle < 3) {
		bool active = fz_turn(l);

		idle = look(l) || active ? 0 : idle + 1;
		must(n++ < TURNS_MAX);
	}
}

void fz_quiesce(struct fz_loop *l)
{
	unsigned n = 0;

	while (l->d->io_count) {
		while (fh_held())
			fh_let_go(0);
		if (l->meanwhile)
			l->meanwhile();
		fz_turn(l);
		must(n++ < TURNS_MAX);
	}
}

void fz_loop_end(struct fz_loop *l, void (*destroy)(struct virtio_dev *d))
{
	fh_while_waiting = NULL;
	running = NULL;
	ring_close(l->ring);
	(destroy ? destroy : l->d->ops->destroy)(l->d);
	ring_destroy(&l->ring);
	must(!fh_open_count());
}

void fz_fail(struct fz *f, const enum fh_op *kinds, unsigned n, bool short_too)
{
	static const int errors[] = {-EINTR, -ECONNRESET, -ENOMEM, -EPIPE, -EMFILE, -ECONNABORTED,
		-EAGAIN, -ENOBUFS, -EIO, -EBADFD, -EINVAL};
	enum fh_op kind = kinds[fz_below(f, n)];
	unsigned skip = fz_below(f, 4);
	int res = errors[fz_below(f, ARRAY_SIZE(errors))];

	if (short_too && (kind == FH_IN || kind == FH_OUT) && fz_u8(f) & 1)
		res = 1 + fz_u8(f);
	if (kind == FH_POLL && res == -EAGAIN)
		return; /* a poll waits instead */
	fz_trace("failure of kind %u with %d after %u", kind, res, skip);
	fh_fault(kind, skip, res);
}
