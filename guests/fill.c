/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill - dirties memory with a pattern and checks later that it is all still there.
 *
 * Command line:
 *	mib=N   how much (1), out of the RAM below 3 GiB
 *	seed=S  other seeds, other patterns (0)
 *	check   verify once, then power off: 0 good, 1 bad; for monitors without vsock
 * Then rings ready and, where there is a vsock device, serves port 1024, line by line:
 *	verify    answered "ok N" or "bad ADDRESS"
 *	fill S    fills again with seed S; answered "filled N"
 */
#include "kit/vsock.h"

#define MIB      (1024 * 1024ull)
#define LINE_MAX 64

static u64 *memory;
static u64 mib, seed;

/* A word that depends on its address: a page that ends up in another place is found out. */
static u64 word_at(const u64 *at)
{
	u64 x = ((u64)at + seed) * 0x9e3779b97f4a7c15ull;

	return x ^ x >> 32;
}

static void fill(void)
{
	for (u64 m = 0; m < mib; m++) {
		u64 *words = memory + m * MIB / 8;

		kit_check_generation();
		for (u64 i = 0; i < MIB / 8; i++)
			words[i] = word_at(&words[i]);
	}
}

/* The first word that is not as filled, or NULL. */
static const u64 *first_bad(void)
{
	for (u64 m = 0; m < mib; m++) {
		const volatile u64 *words = memory + m * MIB / 8;

		kit_check_generation();
		for (u64 i = 0; i < MIB / 8; i++) {
			if (words[i] != word_at((const u64 *)&words[i]))
				return (const u64 *)&words[i];
		}
	}
	return NULL;
}

/* One command; returns the length of the answer. */
static int answer(const char *line, char *text, size_t cap)
{
	const u64 *bad;

	if (memcmp(line, "fill ", 5) == 0) {
		seed = strtoul(line + 5, NULL, 0);
		fill();
		return snprintf(text, cap, "filled %lu\n", mib);
	}
	if (memcmp(line, "verify", 7) != 0)
		return snprintf(text, cap, "what?\n");
	bad = first_bad();
	return bad ? snprintf(text, cap, "bad 0x%lx\n", (u64)bad) :
		     snprintf(text, cap, "ok %lu\n", mib);
}

static void event(struct vsock_conn *c)
{
	const char *from;
	size_t len, whole;

	while ((whole = vsock_line(c, &from, &len, LINE_MAX - 8))) {
		char line[LINE_MAX] = "", text[64];

		memcpy(line, from, len);
		vsock_consume(c, whole);
		/* Answers are few and short: one that finds no room is not worth keeping. */
		vsock_send_all(c, text, (size_t)answer(line, text, sizeof(text)));
	}
	if (vsock_eof(c))
		vsock_close(c);
}

int kit_main(void)
{
	bool have_vsock = vsock_init() && vsock_listen(1024, &(struct vsock_ops){.event = event});

	mib = kit_option_number("mib", 1);
	seed = kit_option_number("seed", 0);
	if (mib > kit_pages_left() / MIB) {
		kit_printf("fill: only %zu MiB left\n", kit_pages_left() / (size_t)MIB);
		return 2;
	}
	memory = kit_pages(mib * MIB);
	fill();
	kit_ready();
	if (kit_flag("check")) {
		const u64 *bad = first_bad();

		kit_printf(bad ? "bad 0x%lx\n" : "ok %lu\n", bad ? (u64)bad : mib);
		return bad != NULL;
	}
	while (have_vsock)
		vsock_wait();
	for (;;)
		kit_wait(KIT_FOREVER);
}
