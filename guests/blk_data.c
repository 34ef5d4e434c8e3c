/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_data.c - the ops of the blk guest that check whether a disk keeps what it was given.
 *
 * op=fill, op=verify: every sector of the range, see kit/sector.h; fill gives all of them sequence 0
 *   and flushes at the end.
 * op=log: writes requests of bs bytes round robin over the range; each sector has the next
 *   sequence number, from start= (1) on, so sequence S is in sector (S - 1) % (range / 512). After
 *   each flush= requests (16) that are done it flushes, with the writes of the next batch already
 *   in flight. When the flush is acknowledged it says "durable N\n": all sequences up to N are.
 *   It says so over vsock, if the command line has connect=PORT (connects to that port of the
 *   host, again if need be) or "listen" (tells who is connected to port 1024); otherwise, or where there is no vsock,
 *   on the console. Goes on until it is killed or wrote count= sequences.
 * op=check durable=N: afterwards, that each sector whose number had a sequence up to N holds the last
 *   such one or a later one of its own, and each other one nothing but zeroes or such. What is in a
 *   sector before the log must be zeroes. Sequences found beyond N are no error: they were written
 *   but not yet acknowledged; "highest" is the largest. There may be holes before it, so a log goes
 *   on with start=N+1 (at another bs=: one less or equal that is a multiple of bs / 512, plus 1).
 *
 * JSON on the console, besides guest, op, errors (of requests) and cycles:
 *	fill, verify: "sectors", "bad", and "first_bad" if there are any
 *	check: the same, "durable", "highest", "lost" (bad ones that are whole but too old)
 *	log: "durable"
 */
#include "blk.h"
#include "kit/vsock.h"

#define PORT     1024
#define ENDLESS  (~0ull)
#define TOLD_MAX 4

static u64 errors;

/* ---- going over the range ---- */

static u64 bad, first_bad, lost, highest, durable;

static void found_bad(u64 number)
{
	if (bad++ == 0 || number < first_bad)
		first_bad = number;
}

static void each_sector(const struct work *w, void (*each)(struct sector *s, u64 number))
{
	struct sector *s = w->r.data;

	for (u64 i = 0; i < opt.bs / SECTOR; i++)
		each(&s[i], w->r.sector + i);
}

/* Reads or writes all of the range; @each makes a sector before or checks it after. */
static void sweep(enum blk_type type, void (*each)(struct sector *s, u64 number))
{
	u64 places = opt.range / opt.bs;
	struct work *w;

	for (u64 issued = 0, done = 0; done < places; done++) {
		for (; idle && issued < places; issued++) {
			idle->r.type = type;
			idle->r.sector = issued * (opt.bs / SECTOR);
			if (type == BLK_OUT)
				each_sector(idle, each);
			work_submit();
			blk_kick(&disk);
		}
		w = work_done(true);
		if (w->r.status != BLK_OK)
			errors++;
		else if (type == BLK_IN)
			each_sector(w, each);
	}
}

static int report(u64 cycles, const char *more)
{
	char where[48] = "";

	if (bad)
		snprintf(where, sizeof(where), ",\"first_bad\":%lu", first_bad);
	kit_printf("{\"guest\":\"blk\",\"op\":\"%s\",\"errors\":%lu,\"cycles\":%lu,\"sectors\":%lu,"
		   "\"bad\":%lu%s%s}\n",
		opt.op, errors, cycles, opt.range / SECTOR, bad, where, more);
	return errors || bad;
}

/* ---- fill, verify ---- */

static void make(struct sector *s, u64 number)
{
	sector_make(s, number, 0, opt.seed);
}

static void verify(struct sector *s, u64 number)
{
	if (!sector_good(s, number, opt.seed))
		found_bad(number);
}

int op_fill(void)
{
	u64 start = kit_cycles();

	sweep(BLK_OUT, make);
	/* A disk without FLUSH has nothing to flush, or nobody who wants it to. */
	if (disk.dev.features & BLK_F_FLUSH)
		errors += flush_now() != BLK_OK;
	return report(kit_cycles() - start, "");
}

int op_verify(void)
{
	u64 start = kit_cycles();

	sweep(BLK_IN, verify);
	return report(kit_cycles() - start, "");
}

/* ---- check ---- */

/* The last sequence that must be in sector @number: 0 if none. */
static u64 due(u64 number)
{
	u64 sectors = opt.range / SECTOR;

	return durable > number ? durable - (durable - 1 - number) % sectors : 0;
}

static void check(struct sector *s, u64 number)
{
	if (sector_good(s, number, opt.seed) && s->sequence &&
		(s->sequence - 1) % (opt.range / SECTOR) == number) {
		if (s->sequence > highest)
			highest = s->sequence;
		if (s->sequence >= due(number))
			return;
		lost++;
	} else if (sector_zero(s)) {
		if (!due(number))
			return;
		lost++;
	}
	found_bad(number);
}

int op_check(void)
{
	u64 start = kit_cycles();
	char more[96];

	durable = kit_option_number("durable", 0);
	sweep(BLK_IN, check);
	snprintf(more, sizeof(more), ",\"durable\":%lu,\"highest\":%lu,\"lost\":%lu", durable, highest,
		lost);
	return report(kit_cycles() - start, more);
}

/* ---- log ---- */

static struct vsock_conn *told[TOLD_MAX], *host; /* host: the one that we made */
static bool have_vsock;
static u64 host_port;

static void listener_event(struct vsock_conn *c)
{
	size_t len;

	vsock_peek(c, &len);
	vsock_consume(c, len);
	for (unsigned i = 0; i < TOLD_MAX && !c->user[0]; i++) {
		if (!told[i]) {
			told[i] = c;
			c->user[0] = i + 1;
		}
	}
	if (vsock_eof(c) && !c->user[0])
		vsock_close(c);
}

static void listener_closed(struct vsock_conn *c)
{
	if (c->user[0])
		told[c->user[0] - 1] = NULL;
	if (c == host)
		host = NULL;
}

static const struct vsock_ops listener = {.event = listener_event, .closed = listener_closed};

static void tell(u64 sequence)
{
	char line[32];
	size_t len = (size_t)snprintf(line, sizeof(line), "durable %lu\n", sequence);

	durable = sequence;
	if (!have_vsock)
		kit_print(line, len);
	if (have_vsock && host_port && !host)
		host = vsock_connect(VSOCK_CID_HOST, (u32)host_port, &listener);
	/* Who reads too slowly misses some: the next says more. */
	for (unsigned i = 0; i < TOLD_MAX; i++) {
		if (told[i])
			vsock_send_all(told[i], line, len);
	}
}

/*
 * Batches of writes: the youngest is being written, the one before may still be in flight or being
 * flushed. A flush covers what was done before it was submitted, so it waits for all of its batch.
 */
struct batch {
	u64 left, in_flight; /* requests to submit, and to get back */
	u64 last;            /* its last sequence */
	enum { WRITING, FLUSHING, OVER } state;
};

static void start_batch(struct batch *b)
{
	b->left = opt.flush;
	b->in_flight = 0;
	b->state = WRITING;
}

static void submit_write(struct batch *b, u64 *sequence)
{
	struct sector *s = idle->r.data;
	u64 per = opt.bs / SECTOR;

	idle->r.type = BLK_OUT;
	idle->r.len = (u32)opt.bs;
	idle->r.sector = (*sequence - 1) % (opt.range / SECTOR);
	idle->batch = b;
	for (u64 i = 0; i < per; i++)
		sector_make(&s[i], idle->r.sector + i, (*sequence)++, opt.seed);
	b->last = *sequence - 1;
	b->left--;
	b->in_flight++;
	work_submit();
}

static void submit_flush(struct batch *b)
{
	idle->r.type = BLK_FLUSH;
	idle->r.len = 0;
	idle->r.sector = 0;
	idle->batch = b;
	b->state = FLUSHING;
	b->in_flight++;
	work_submit();
}

/* Moves on what belongs to the batch of a request that is done. */
static void done(const struct work *w)
{
	struct batch *b = w->batch;

	errors += w->r.status != BLK_OK;
	b->in_flight--;
	if (b->in_flight || b->left)
		return;
	if (b->state == WRITING) {
		submit_flush(b);
	} else {
		b->state = OVER;
		if (!errors)
			tell(b->last);
	}
}

static void write_log(u64 sequence, u64 end)
{
	struct batch batches[2] = {{.state = OVER}, {.state = OVER}};
	struct batch *now = &batches[0];
	struct work *w;

	start_batch(now);
	while (sequence < end && !errors) {
		if (!now->left && batches[now == batches].state == OVER) {
			now = &batches[now == batches];
			start_batch(now);
		}
		while (now->left && idle)
			submit_write(now, &sequence);
		blk_kick(&disk);
		if ((w = work_done(true)))
			done(w);
		while (have_vsock && vsock_poll())
			;
	}
	while ((w = work_done(true)))
		done(w);
}

int op_log(void)
{
	u64 first = kit_option_number("start", 1), start = kit_cycles();
	u64 count = kit_option_number("count", ENDLESS);

	if (!opt.flush)
		opt.flush = 16;
	if (opt.range < 2 * opt.flush * opt.bs || (first - 1) % (opt.bs / SECTOR)) {
		kit_printf("blk: two batches do not fit into the range, or start= is no start\n");
		return 2;
	}
	host_port = kit_option_number("connect", 0);
	have_vsock = (host_port || kit_flag("listen")) && vsock_init() &&
		     vsock_listen(PORT, &listener);
	write_log(first, count == ENDLESS ? ENDLESS : first + count);
	kit_printf("{\"guest\":\"blk\",\"op\":\"log\",\"errors\":%lu,\"cycles\":%lu,\"durable\":%lu}\n",
		errors, kit_cycles() - start, durable);
	return errors != 0;
}
