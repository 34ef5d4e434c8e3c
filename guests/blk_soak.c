/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_soak.c - op=soak of the blk guest: everything at once, against a model of the disk in memory.
 *
 * The range is blocks of bs bytes. Requests go to random blocks that no other is at work on: reads,
 * which must find what the model says, writes, zeroes, discards and flushes, qd at a time (8), until
 * count are done (no end without count=). It lasts over pauses and snapshots, as long as the disk
 * goes with the guest. The disk's content before does not matter: all blocks are written first.
 *
 * Where there is vsock, port 1024 takes lines: "stats" is answered by "ok ops=N bad=B errors=E
 * generation=G", "stop" by "ok" and the end. The result is that of blk.c's fill, and "ops".
 */
#include "blk.h"
#include "kit/measure.h"
#include "kit/vsock.h"

#define LINE_MAX 32
#define PORT     1024

/* What a block holds. A discarded one holds what it did, or zeroes. */
struct block {
	u32 sequence; /* of its sectors; 0: zeroes */
	bool discarded, busy;
};

static struct block *blocks;
static u64 places, random, ops, bad, errors, first_bad;
static u32 sequence;
static bool have_vsock, stopped;

/* Looks at what a read brought. */
static void compare(const struct work *w)
{
	const struct block *b = &blocks[w->place];
	const struct sector *s = w->r.data;

	for (u64 i = 0; i < opt.bs / SECTOR; i++) {
		u64 number = w->place * (opt.bs / SECTOR) + i;
		bool zero = sector_zero(&s[i]);

		if (b->sequence ? sector_good(&s[i], number, opt.seed) &&
					  s[i].sequence == b->sequence : zero)
			continue;
		if (b->discarded && zero)
			continue;
		if (!bad++)
			first_bad = number;
	}
}

static void write_block(struct work *w, struct block *b)
{
	struct sector *s = w->r.data;

	b->sequence = ++sequence;
	b->discarded = false;
	w->r.type = BLK_OUT;
	for (u64 i = 0; i < opt.bs / SECTOR; i++)
		sector_make(&s[i], w->r.sector + i, b->sequence, opt.seed);
}

static void unmap_block(struct work *w, struct block *b, enum blk_type type)
{
	w->unmap.sector = w->r.sector;
	w->unmap.count = (u32)(opt.bs / SECTOR);
	w->unmap.flags = type == BLK_WRITE_ZEROES && random_below(&random, 2) ? BLK_UNMAP : 0;
	w->r.type = type;
	w->r.sector = 0;
	w->r.data = &w->unmap;
	w->r.len = sizeof(w->unmap);
	if (type == BLK_WRITE_ZEROES)
		b->sequence = 0;
	else
		b->discarded = true;
}

/* Fills in a request for block @w->place. */
static void prepare(struct work *w, bool first)
{
	struct block *b = &blocks[w->place];
	u64 dice = random_below(&random, 32);

	b->busy = true;
	w->r.sector = w->place * (opt.bs / SECTOR);
	w->r.data = w->buffer;
	w->r.len = (u32)opt.bs;
	if (first || dice < 14)
		write_block(w, b);
	else if (dice == 14 && (disk.dev.features & BLK_F_WRITE_ZEROES))
		unmap_block(w, b, BLK_WRITE_ZEROES);
	else if (dice == 15 && (disk.dev.features & BLK_F_DISCARD))
		unmap_block(w, b, BLK_DISCARD);
	else
		w->r.type = BLK_IN;
	if (dice == 16 && !first) {
		w->r.type = BLK_FLUSH;
		w->r.sector = 0;
		w->r.len = 0;
	}
}

static void collect(const struct work *w)
{
	blocks[w->place].busy = false;
	ops++;
	if (w->r.status != BLK_OK)
		errors++;
	else if (w->r.type == BLK_IN)
		compare(w);
}

/* @n requests; one for each block in turn if @first. */
static void work(u64 n, bool first)
{
	struct work *w;

	for (u64 issued = 0, done = 0; done < n && !(stopped && done == issued);) {
		for (; idle && issued < n && !stopped; issued++) {
			do {
				idle->place = first ? issued : random_below(&random, places);
			} while (blocks[idle->place].busy);
			prepare(idle, first);
			work_submit();
		}
		blk_kick(&disk);
		for (w = work_done(true); w; w = work_done(false)) {
			collect(w);
			done++;
		}
		while (have_vsock && vsock_poll())
			;
	}
}

static void event(struct vsock_conn *c)
{
	const char *line;
	size_t len, whole;

	while ((whole = vsock_line(c, &line, &len, LINE_MAX))) {
		char text[128];
		int text_len = snprintf(text, sizeof(text), "ok\n");

		if (len == 5 && memcmp(line, "stats", 5) == 0)
			text_len = snprintf(text, sizeof(text),
				"ok ops=%lu bad=%lu errors=%lu generation=%u\n", ops, bad, errors,
				kit_generation());
		else if (len == 4 && memcmp(line, "stop", 4) == 0)
			stopped = true;
		vsock_consume(c, whole);
		vsock_send_all(c, text, (size_t)text_len);
	}
	if (vsock_eof(c))
		vsock_close(c);
}

int op_soak(void)
{
	u64 start = kit_cycles();
	char where[48] = "";

	places = opt.range / opt.bs;
	random = opt.seed;
	blocks = kit_pages(places * sizeof(*blocks));
	if (!blocks || places < 2 * opt.qd) {
		kit_printf("blk: range= is too long for this memory, or too short for qd=\n");
		return 2;
	}
	memset(blocks, 0, places * sizeof(*blocks));
	have_vsock = vsock_init() && vsock_listen(PORT, &(struct vsock_ops){.event = event});
	work(places, true);
	work(kit_option_number("count", ~0ull), false);
	if (bad)
		snprintf(where, sizeof(where), ",\"first_bad\":%lu", first_bad);
	kit_printf("{\"guest\":\"blk\",\"op\":\"soak\",\"errors\":%lu,\"cycles\":%lu,\"sectors\":%lu,"
		   "\"bad\":%lu%s,\"ops\":%lu}\n",
		errors, kit_cycles() - start, opt.range / SECTOR, bad, where, ops);
	return errors || bad;
}
