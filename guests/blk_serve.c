/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_serve.c - the disk by command: op=serve.
 *
 * Lines on vsock port 1024, each answered by one line, "ok ..." or "error STATUS ..." (1 IOERR,
 * 2 UNSUPP). Numbers are decimal or 0x; sectors have 512 bytes and may be any number at a time.
 *	read SECTOR N               "ok SUM", the 64-bit FNV-1a of the bytes, 16 hex digits
 *	write SECTOR N SEED         sectors as in kit/sector.h, their sequence 0
 *	verify SECTOR N SEED        that they are there; "error data SECTOR", the first that is not
 *	flush
 *	discard SECTOR N
 *	zeroes SECTOR N [unmap]     "unmap" lets the disk make a hole
 *	capacity                    "ok SECTORS", read from the device now
 *	id                          "ok ID"
 *	features                    "ok 0xHEX", what was agreed upon
 *	ping                        "ok GENERATION", of the identity page
 */
#include "blk.h"
#include "kit/vsock.h"

#define LINE_MAX 128
#define PORT     1024

/* One command, its arguments, and where the answer goes. */
struct command {
	char line[LINE_MAX + 1];
	u64 arg[3];
	unsigned args;
	bool unmap;
	char *answer;
	size_t cap;
};

static int say_status(const struct command *c, u8 status)
{
	return status == BLK_OK ? snprintf(c->answer, c->cap, "ok\n") :
				  snprintf(c->answer, c->cap, "error %u\n", status);
}

/* One request of the disk. @data is read or written in place. */
static u8 request(enum blk_type type, u64 sector, void *data, u64 len)
{
	struct blk_request r = {.type = type, .sector = sector, .data = data, .len = (u32)len};

	return blk_do(&disk, &r);
}

/* Goes over the command's sectors, a buffer at a time. @each fills the buffer before a write or
 * looks at it after a read, and returns false to stop. */
static u8 sweep(struct command *c, enum blk_type type,
	bool (*each)(struct command *c, u8 *data, u64 sector, u64 count))
{
	u64 sector = c->arg[0], left = c->arg[1], most = opt.bs / SECTOR;
	u8 *data = idle->r.data;

	while (left > 0) {
		u64 count = left < most ? left : most;
		u8 status;

		if (type == BLK_OUT)
			each(c, data, sector, count);
		status = request(type, sector, data, count * SECTOR);
		if (status != BLK_OK)
			return status;
		if (type == BLK_IN && !each(c, data, sector, count))
			break;
		sector += count;
		left -= count;
	}
	return BLK_OK;
}

static u64 sum, bad_sector;
static bool bad;

static bool each_read(struct command *c, u8 *data, u64 sector, u64 count)
{
	(void)c;
	(void)sector;
	for (u64 i = 0; i < count * SECTOR; i++)
		sum = (sum ^ data[i]) * 0x100000001b3ull;
	return true;
}

static bool each_write(struct command *c, u8 *data, u64 sector, u64 count)
{
	for (u64 i = 0; i < count; i++)
		sector_make((struct sector *)(data + i * SECTOR), sector + i, 0, c->arg[2]);
	return true;
}

static bool each_verify(struct command *c, u8 *data, u64 sector, u64 count)
{
	for (u64 i = 0; i < count && !bad; i++) {
		bad = !sector_good((struct sector *)(data + i * SECTOR), sector + i, c->arg[2]);
		bad_sector = sector + i;
	}
	return !bad;
}

static int do_read(struct command *c)
{
	u8 status;

	sum = 0xcbf29ce484222325ull;
	status = sweep(c, BLK_IN, each_read);
	return status == BLK_OK ? snprintf(c->answer, c->cap, "ok %016lx\n", sum) :
				  say_status(c, status);
}

static int do_write(struct command *c)
{
	return say_status(c, sweep(c, BLK_OUT, each_write));
}

static int do_verify(struct command *c)
{
	u8 status;

	bad = false;
	status = sweep(c, BLK_IN, each_verify);
	return bad ? snprintf(c->answer, c->cap, "error data %lu\n", bad_sector) :
		     say_status(c, status);
}

static int do_flush(struct command *c)
{
	return say_status(c, flush_now());
}

static int do_range(struct command *c, enum blk_type type)
{
	struct blk_range range = {.sector = c->arg[0], .count = (u32)c->arg[1],
		.flags = c->unmap ? BLK_UNMAP : 0};

	return say_status(c, request(type, 0, &range, sizeof(range)));
}

static int do_discard(struct command *c)
{
	return do_range(c, BLK_DISCARD);
}

static int do_zeroes(struct command *c)
{
	return do_range(c, BLK_WRITE_ZEROES);
}

static int do_capacity(struct command *c)
{
	return snprintf(c->answer, c->cap, "ok %lu\n", blk_capacity(&disk));
}

static int do_id(struct command *c)
{
	char id[BLK_ID_LEN + 1] = "";
	u8 status = request(BLK_GET_ID, 0, id, BLK_ID_LEN);

	return status == BLK_OK ? snprintf(c->answer, c->cap, "ok %s\n", id) :
				  say_status(c, status);
}

static int do_features(struct command *c)
{
	return snprintf(c->answer, c->cap, "ok 0x%lx\n", disk.dev.features);
}

static int do_ping(struct command *c)
{
	return snprintf(c->answer, c->cap, "ok %u\n", kit_generation());
}

static const struct {
	const char *name;
	unsigned args;
	int (*run)(struct command *c);
} commands[] = {
	{"read", 2, do_read},
	{"write", 3, do_write},
	{"verify", 3, do_verify},
	{"flush", 0, do_flush},
	{"discard", 2, do_discard},
	{"zeroes", 2, do_zeroes},
	{"capacity", 0, do_capacity},
	{"id", 0, do_id},
	{"features", 0, do_features},
	{"ping", 0, do_ping},
};

/* Takes the line apart in place; leaves its first word in it. */
static void parse(struct command *c)
{
	char *s = c->line;

	while (*s && *s != ' ')
		s++;
	while (*s == ' ') {
		const char *end;

		*s++ = '\0';
		c->unmap |= streq(s, "unmap");
		if (c->args == 3 || *s < '0' || *s > '9')
			return;
		c->arg[c->args++] = strtoul(s, &end, 0);
		s = c->line + (end - c->line);
	}
}

/* Returns the length of the answer. */
static int execute(struct command *c)
{
	parse(c);
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (streq(c->line, commands[i].name) && c->args == commands[i].args)
			return commands[i].run(c);
	}
	return snprintf(c->answer, c->cap, "error what\n");
}

static void event(struct vsock_conn *conn)
{
	const char *from;
	size_t len, whole;

	while ((whole = vsock_line(conn, &from, &len, LINE_MAX))) {
		char answer[LINE_MAX];
		struct command c = {.answer = answer, .cap = sizeof(answer)};

		memcpy(c.line, from, len);
		vsock_consume(conn, whole);
		/* Answers are few and short: one that finds no room is not worth keeping. */
		vsock_send_all(conn, answer, (size_t)execute(&c));
	}
	if (vsock_eof(conn))
		vsock_close(conn);
}

int op_serve(void)
{
	if (!vsock_init() || !vsock_listen(PORT, &(struct vsock_ops){.event = event})) {
		kit_printf("blk: no vsock device to serve on\n");
		return 2;
	}
	for (;;)
		vsock_wait();
}
