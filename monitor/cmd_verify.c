/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_verify.c - kelvin verify: check every byte of a snapshot. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "monitor/show.h"
#include "monitor/base/clock.h"
#include "monitor/cmos.h"
#include "monitor/dev_spec.h"
#include "monitor/i8042.h"
#include "monitor/verb.h"
#include "monitor/vm_verb.h"
#include "snapshot/snapshot.h"
#include "vcpu/vm.h"

#define SHOW_EVERY_NS 100000000ull

enum { OPT_JSON = 1 };

static const struct opt_spec opts[] = {
	{"json", NULL, "print the verdict as an object", OPT_JSON},
};

/* A line that is drawn over and over; a check that is over in no time never shows it. */
struct progress {
	u64 shown_ns;
	bool shown;
};

static void show_progress(void *ctx, u64 done, u64 total)
{
	struct progress *progress = ctx;
	u64 now = monotonic_ns();
	char a[32], b[32];

	if (now - progress->shown_ns < SHOW_EVERY_NS)
		return;
	*progress = (struct progress){now, true};
	fprintf(stderr, "\r%3u%% of %s, %s checked \033[K",
		total ? (unsigned)((double)done * 100 / (double)total) : 100,
		show_size(total, a, sizeof(a)), show_size(done, b, sizeof(b)));
}

/* The sections whose content somebody here can judge without a VM. */
static int check_section(const struct snap_section *s, struct err *e)
{
	struct cmos cmos;
	struct i8042 i8042;
	int r = 0;

	if (strcmp(s->tag, "vm") == 0)
		r = vm_check(s->data, s->len, e);
	else if (strncmp(s->tag, "vcpu", 4) == 0)
		r = vcpu_check(s->data, s->len, e);
	else if (strcmp(s->tag, "chips") == 0)
		r = vm_check_pc(s->data, s->len, e);
	else if (strcmp(s->tag, "cmos") == 0)
		r = cmos_load(&cmos, s->data, s->len, e);
	else if (strcmp(s->tag, "i8042") == 0)
		r = i8042_load(&i8042, s->data, s->len, e);
	if (r)
		err_wrap(e, "section %s at offset %" PRIu64, s->tag, s->offset);
	return r;
}

static int check_all(const struct snap *s, struct err *e)
{
	bool tty = isatty(STDERR_FILENO);
	const void *host;
	size_t host_len;
	struct progress progress = {.shown_ns = monotonic_ns()};
	int r = 0;

	for (unsigned i = 0; i < snap_section_count(s) && !r; i++)
		r = check_section(snap_section_at(s, i), e);
	host = snap_host(s, &host_len);
	if (!r && host)
		r = dev_host_check(host, host_len, e);
	if (!r)
		r = snap_verify(s, tty ? show_progress : NULL, &progress, e);
	if (progress.shown)
		fputs("\r\033[K", stderr);
	return r;
}

static int report(const struct snap *s, const char *dir, u64 took_ns, bool json)
{
	u64 bytes = snap_mem_size(s), data = snap_mem_data_bytes(s);
	unsigned sections = snap_section_count(s);
	char a[32], b[32], c[32];

	if (json)
		return show_json(json_pack("{s:s, s:b, s:I, s:I, s:i, s:I}", "dir", dir, "ok", 1,
			"bytes", (json_int_t)bytes, "data_bytes", (json_int_t)data, "sections",
			(int)sections, "took_us", (json_int_t)(took_ns / 1000)));
	printf("ok %s: %s RAM, %s data, %u sections, checked in %s\n", dir,
		show_size(bytes, a, sizeof(a)), show_size(data, b, sizeof(b)), sections,
		show_ns(took_ns, c, sizeof(c)));
	return show_end();
}

int cmd_verify(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "verify",
		.usage = "verify [--json] DIR",
		.summary = "Reads every byte of the snapshot DIR and checks it: the state's\n"
			   "sections, what they hold, and the checksum of each piece of memory.\n"
			   "Exits with 1, naming the first bad place, if anything is wrong.",
		.examples = "  kelvin verify /var/tmp/web\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	const char *arg, *dir;
	struct snap *s = NULL;
	bool json = false;
	struct err e;
	u64 begin;
	int id, r;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		json = true;
	if (id < 0)
		return 2;
	if (argc - optind != 1)
		return usage_error(&p, argc == optind ? "which snapshot?" : "one snapshot, please");
	dir = argv[optind];
	begin = monotonic_ns();
	r = snap_open(&s, dir, &e);
	if (!r)
		r = check_all(s, &e);
	if (r) {
		if (!strstr(e.msg, dir))
			err_wrap(&e, "snapshot %s", dir);
		if (json)
			show_json(json_pack("{s:s, s:b, s:s}", "dir", dir, "ok", 0, "error",
				e.msg));
		r = fail(&e);
	} else {
		r = report(s, dir, monotonic_ns() - begin, json);
	}
	snap_close(&s);
	return r;
}
