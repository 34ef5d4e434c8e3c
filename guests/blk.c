/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk - works on a disk: how fast it is, whether it keeps what it was given, and by command.
 *
 * Command line:
 *	op=OP        what to do:
 *	  read write rw      keeps qd requests of bs bytes in flight until count are done; rw: in turns
 *	  flush discard zeroes   the same with these requests; unmap: zeroes may make holes
 *	  id                 prints what the disk says of itself
 *	  fill verify        writes the range with sectors that say what they are (kit/sector.h), and
 *	                     checks that they are there, with the same seed=
 *	  log check soak serve    see blk_data.c, blk_soak.c and blk_serve.c (the default)
 *	bs=SIZE      bytes of a request (4K; fill, verify, check 64K; log 512)
 *	qd=N         requests in flight, over all queues (1; fill, verify, check 16; log 8)
 *	count=N      requests until the end (10000)
 *	range=SIZE   of the disk, from its start (all of it)
 *	pattern=seq|rand  where requests go (seq); seed=N chooses the random ones and the data (1)
 *	flush=N      write, rw: when N more writes are done, a flush before the next
 *	disk=N queues=N segs=N   which disk (0); how many of its queues (1); into how many pieces data
 *	             is cut (1)
 *	direct noflush   no indirect descriptors; FLUSH is not agreed upon, so that writes are durable
 *	poll nospin noeventidx   of the kit
 *
 * Ends with one line of JSON on the console and status 0, or 1 if anything was wrong with a
 * request or the data; 2: it cannot do that at all, and says why. Cycles are of the TSC;
 * percentiles are over requests, flushes that flush= puts between them left out:
 *	{"guest":"blk","op":"read","bs":4096,"qd":8,"ops":10000,"errors":0,"cycles":TOTAL,
 *	 "p50":CYCLES,"p99":CYCLES,"max":CYCLES,"flushes":0}
 */
#include "blk.h"
#include "kit/measure.h"

struct blk_options opt;
struct blk disk;
struct work *idle;

static unsigned in_flight;

/* ---- requests in flight ---- */

bool work_init(void)
{
	struct work *all = kit_pages(opt.qd * sizeof(*all));
	u8 *buffers = kit_pages(opt.qd * opt.bs);

	if (!all || !buffers)
		return false;
	/* Touched now: the first touch of a page is an exit. */
	memset(buffers, 0x5a, opt.qd * opt.bs);
	memset(all, 0, opt.qd * sizeof(*all));
	for (unsigned i = opt.qd; i-- > 0;) {
		struct work *w = &all[i];

		w->buffer = buffers + i * opt.bs;
		w->r.data = w->buffer;
		w->r.len = (u32)opt.bs;
		w->r.user = (u64)w;
		w->queue = i % disk.queue_count;
		w->next = idle;
		idle = w;
	}
	return true;
}

void work_submit(void)
{
	struct work *w = idle;

	idle = w->next;
	w->cycles = kit_cycles();
	blk_submit(&disk, w->queue, &w->r);
	in_flight++;
}

struct work *work_done(bool wait)
{
	struct blk_request *r;
	struct work *w;

	while (!(r = blk_take(&disk))) {
		if (!wait || !in_flight)
			return NULL;
		blk_kick(&disk);
		blk_wait(&disk);
	}
	in_flight--;
	w = (struct work *)r->user;
	w->next = idle;
	idle = w;
	return w;
}

u8 flush_now(void)
{
	struct blk_request r = {.type = BLK_FLUSH};

	return blk_do(&disk, &r);
}

/* ---- op=read, write, rw, flush, discard, zeroes ---- */

static struct hist latency;
static u64 errors, flushes;

/* Fills in request number @n. */
static void prepare(struct work *w, enum blk_type type, u64 n, u64 *random)
{
	u64 places = opt.range / opt.bs;
	u64 place = opt.random ? random_below(random, places) : n % places;

	w->r.type = type;
	w->r.sector = place * (opt.bs / SECTOR);
	if (type == BLK_FLUSH) {
		w->r.sector = 0;
		w->r.len = 0;
	}
	if (type == BLK_DISCARD || type == BLK_WRITE_ZEROES) {
		w->unmap.sector = w->r.sector;
		w->unmap.count = (u32)(opt.bs / SECTOR);
		w->unmap.flags = kit_flag("unmap") && type == BLK_WRITE_ZEROES ? BLK_UNMAP : 0;
		w->r.sector = 0;
		w->r.data = &w->unmap;
		w->r.len = sizeof(w->unmap);
	}
}

/* Takes back what is done, at least one; returns how many. */
static unsigned collect(void)
{
	unsigned count = 0;
	struct work *w;

	while ((w = work_done(count == 0))) {
		hist_add(&latency, kit_cycles() - w->cycles);
		if (w->r.status != BLK_OK)
			errors++;
		count++;
	}
	return count;
}

/* Keeps requests in flight until opt.count are done; every second one is of type @odd. */
static void load(enum blk_type even, enum blk_type odd)
{
	u64 random = opt.seed, batch = opt.flush ? opt.flush : ~0ull, left = batch;

	for (u64 issued = 0, done = 0; done < opt.count;) {
		for (; idle && left && issued < opt.count; issued++) {
			enum blk_type type = issued % 2 ? odd : even;

			prepare(idle, type, issued, &random);
			left -= type == BLK_OUT;
			work_submit();
		}
		blk_kick(&disk);
		done += collect();
		if (!left && done == issued) {
			errors += flush_now() != BLK_OK;
			flushes++;
			left = batch;
		}
	}
}

static int op_load(enum blk_type even, enum blk_type odd)
{
	u64 start = kit_cycles();

	load(even, odd);
	start = kit_cycles() - start;
	kit_printf("{\"guest\":\"blk\",\"op\":\"%s\",\"bs\":%lu,\"qd\":%u,\"ops\":%lu,"
		   "\"errors\":%lu,\"cycles\":%lu,\"p50\":%lu,\"p99\":%lu,\"max\":%lu,"
		   "\"flushes\":%lu}\n",
		opt.op, opt.bs, opt.qd, opt.count, errors, start,
		hist_percentile(&latency, 50), hist_percentile(&latency, 99), latency.max, flushes);
	return errors != 0;
}

static int op_read(void)
{
	return op_load(BLK_IN, BLK_IN);
}

static int op_write(void)
{
	return op_load(BLK_OUT, BLK_OUT);
}

static int op_rw(void)
{
	return op_load(BLK_IN, BLK_OUT);
}

static int op_flush(void)
{
	return op_load(BLK_FLUSH, BLK_FLUSH);
}

static int op_discard(void)
{
	return op_load(BLK_DISCARD, BLK_DISCARD);
}

static int op_zeroes(void)
{
	return op_load(BLK_WRITE_ZEROES, BLK_WRITE_ZEROES);
}

/* ---- the rest ---- */

static int op_id(void)
{
	char id[BLK_ID_LEN + 1] = "";
	struct blk_request r = {.type = BLK_GET_ID, .data = id, .len = BLK_ID_LEN};
	u8 status = blk_do(&disk, &r);

	kit_printf("{\"guest\":\"blk\",\"op\":\"id\",\"id\":\"%s\",\"errors\":%u,\"sectors\":%lu,"
		   "\"block_size\":%u,\"queues\":%u,\"features\":\"0x%lx\"}\n",
		id, status != BLK_OK, blk_capacity(&disk), disk.block_size, disk.queue_count,
		disk.dev.features);
	return status != BLK_OK;
}

static const struct {
	const char *name;
	int (*run)(void);
	unsigned bs, qd;
} ops[] = {
	{"read", op_read, 4096, 1},
	{"write", op_write, 4096, 1},
	{"rw", op_rw, 4096, 1},
	{"flush", op_flush, 4096, 1},
	{"discard", op_discard, 4096, 1},
	{"zeroes", op_zeroes, 4096, 1},
	{"id", op_id, 4096, 1},
	{"fill", op_fill, 65536, 16},
	{"verify", op_verify, 65536, 16},
	{"log", op_log, 512, 8},
	{"check", op_check, 65536, 16},
	{"soak", op_soak, 4096, 8},
	{"serve", op_serve, 65536, 1},
};
#define OPS (sizeof(ops) / sizeof(ops[0]))

static unsigned find_op(void)
{
	unsigned i = 0;

	if (!kit_option("op", opt.op, sizeof(opt.op)))
		memcpy(opt.op, "serve", sizeof("serve"));
	while (i < OPS && !streq(ops[i].name, opt.op))
		i++;
	return i;
}

static bool start_disk(void)
{
	struct blk_setup setup = {
		.nth = (unsigned)kit_option_number("disk", 0),
		.queues = (unsigned)kit_option_number("queues", 1),
		.segs = (unsigned)kit_option_number("segs", 1),
		.direct = kit_flag("direct"),
		.without = kit_flag("noflush") ? BLK_F_FLUSH : 0,
	};

	setup.depth = setup.queues ? (opt.qd + setup.queues - 1) / setup.queues : opt.qd;
	return blk_init(&disk, &setup);
}

static bool read_options(unsigned op)
{
	char pattern[8] = "seq";
	u64 size;

	opt.bs = kit_option_number("bs", ops[op].bs);
	opt.qd = (unsigned)kit_option_number("qd", ops[op].qd);
	opt.count = kit_option_number("count", 10000);
	opt.seed = kit_option_number("seed", 1);
	opt.flush = kit_option_number("flush", 0);
	kit_option("pattern", pattern, sizeof(pattern));
	opt.random = streq(pattern, "rand");
	if (!opt.qd || !opt.bs || opt.bs % SECTOR || (!opt.random && !streq(pattern, "seq"))) {
		kit_printf("blk: qd, bs or pattern is nonsense\n");
		return false;
	}
	if (!start_disk()) {
		kit_printf("blk: no such disk, or it cannot be used so\n");
		return false;
	}
	size = blk_capacity(&disk) * SECTOR;
	opt.range = kit_option_number("range", size);
	if (opt.range > size)
		opt.range = size;
	opt.range -= opt.range % opt.bs;
	if (!opt.range || !work_init()) {
		kit_printf("blk: the range is shorter than bs, or no memory for qd * bs\n");
		return false;
	}
	return true;
}

int kit_main(void)
{
	unsigned op = find_op();

	if (op == OPS) {
		kit_printf("blk: no op=%s\n", opt.op);
		return 2;
	}
	if (!read_options(op))
		return 2;
	kit_ready();
	return ops[op].run();
}
