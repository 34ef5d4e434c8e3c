/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_stats.c - kelvin stats: what a VM's devices and its loop have done. */
#include <inttypes.h>
#include <string.h>

#include "monitor/vm_verb.h"
#include "monitor/show.h"
#include "monitor/verb.h"

#define ANSWER_MS 2000u

enum { OPT_JSON = 1 };

static const struct opt_spec opts[] = {
	{"json", NULL, "print every counter as JSON", OPT_JSON},
};

static const struct opt_parser page = {
	.verb = "stats",
	.usage = "stats [--json] ID",
	.summary = "Says what the devices of the VM ID have done since it started, and how\n"
		   "its event loop works: which io_uring features this kernel has, how often\n"
		   "it slept, and how often looking before sleeping (--poll) paid.",
	.examples = "  kelvin stats web\n"
		    "  kelvin stats --json web | jq '.devices[] | select(.id == \"disk0\")'\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

static u64 number(const json_t *j, const char *key)
{
	return (u64)json_integer_value(json_object_get(j, key));
}

/* What a device calls the bytes to the guest and from it, and what went wrong. */
static const struct {
	const char *name, *to_guest, *from_guest;
	const char *bad[4];
} kinds[] = {
	{"blk", "read_bytes", "write_bytes", {"failed", "rejected"}},
	{"net", "rx_bytes", "tx_bytes", {"rx_dropped", "tx_dropped", "tx_malformed", "tx_spoofed"}},
	{"vsock", "rx_bytes", "tx_bytes", {"conns_refused", "dropped"}},
};

static void print_device(const json_t *d)
{
	const char *name = json_string_value(json_object_get(d, "name"));
	const char *id = json_string_value(json_object_get(d, "id"));
	u64 to = 0, from = 0, bad = number(d, "needs_reset");
	char a[32], b[32], line[160];

	for (size_t i = 0; name && i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(kinds[i].name, name))
			continue;
		to = number(d, kinds[i].to_guest);
		from = number(d, kinds[i].from_guest);
		for (size_t k = 0; k < ARRAY_SIZE(kinds[i].bad) && kinds[i].bad[k]; k++)
			bad += number(d, kinds[i].bad[k]);
	}
	snprintf(line, sizeof(line), "%-6s %10" PRIu64 " %10" PRIu64 " %9s %9s %8" PRIu64,
		name ? name : "?", number(d, "kicks"), number(d, "interrupts"),
		show_size(to, a, sizeof(a)), show_size(from, b, sizeof(b)), bad);
	show_line(id ? id : "?", "%s", line);
}

static void print_thread(const json_t *t)
{
	const json_t *pin = json_object_get(t, "pinned_to");
	const char *name = json_string_value(json_object_get(t, "name"));
	char time[32], cpu[24] = "any";

	if (pin)
		snprintf(cpu, sizeof(cpu), "%" PRIu64, (u64)json_integer_value(pin));
	show_line(name ? name : "?", "%8" PRIu64 " %12s %10s", number(t, "tid"),
		show_ns(number(t, "cpu_ms") * 1000000, time, sizeof(time)), cpu);
}

static void print_ring(const json_t *r)
{
	const char *setup = json_string_value(json_object_get(r, "setup"));
	u64 polls = number(r, "polls"), hits = number(r, "poll_hits");
	char text[32];

	printf("\n");
	show_line("io_uring", "%s%s", setup ? setup : "?",
		json_is_true(json_object_get(r, "fixed_files")) ? ", fixed-files" : "");
	show_line("turns", "%" PRIu64 ", slept %" PRIu64 " times", number(r, "turns"),
		number(r, "sleeps"));
	show_line("looked", "%" PRIu64 " times before sleeping, found work %" PRIu64
			    " times, in %s",
		polls, hits, show_ns(number(r, "poll_us") * 1000, text, sizeof(text)));
}

int cmd_stats(int argc, char **argv)
{
	struct opt_parser p = page;
	json_auto_t *facts = NULL;
	const char *arg;
	bool json = false;
	struct err e;
	json_t *d;
	size_t i;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		json = true;
	if (id < 0)
		return 2;
	if (argc - optind != 1)
		return usage_error(&p, argc == optind ? "which VM?" : "one VM, please");
	if (ask_facts(argv[optind], &facts, &e))
		return fail(&e);
	if (json)
		return show_json(json_pack("{s:O, s:O, s:O, s:O}", "id",
			json_object_get(facts, "id"), "threads", json_object_get(facts, "threads"),
			"devices", json_object_get(facts, "devices"), "ring",
			json_object_get(facts, "ring")));
	show_line("DEVICE", "%-6s %10s %10s %9s %9s %8s", "KIND", "KICKS", "INTERRUPTS",
		"TO GUEST", "FROM IT", "BAD");
	json_array_foreach(json_object_get(facts, "devices"), i, d)
		print_device(d);
	printf("\n");
	show_line("THREAD", "%8s %12s %10s", "TID", "TIME", "PROCESSOR");
	json_array_foreach(json_object_get(facts, "threads"), i, d)
		print_thread(d);
	print_ring(json_object_get(facts, "ring"));
	return show_end();
}
