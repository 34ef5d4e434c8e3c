/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_opt.c - the command line: getopt by a verb's table (opt.c), the options `run` and `restore`
 * share (vm_opts.c), and what is in their values (kv.c, disk_spec.c, net_spec.c, limit_spec.c,
 * dev_spec.c, cpu_pin.c). An input is a list of words, each made from a table of options and of
 * parts that mean something to them, with a byte changed here and there.
 *
 * Checked: a refusal is one line on stderr without a control byte, and nothing else prints; what is
 * accepted has ids that are ids and differ, numbers in range and paths that end; disks and networks
 * come back from a snapshot's JSON as they went in, and the API can tell them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/vm_opts.h"
#include "tests/fuzz/fuzz.h"

#define WORDS_MAX 40u
#define WORD_MAX  600u
#define SAID_MAX  4096u

static const struct opt_spec opts[] = {
	{"disk", "path=F,KEYS", "a disk", OPT_DISK},
	{"net", "KEYS", "a network", OPT_NET},
	VM_OPTS,
};

static const char *const disk_parts[] = {"path=/a", "path=b.img", "path=%d", "id=disk0", "id=d-1",
	"ro", "ro=off", "sync=unsafe", "sync=direct", "sync=writeback", "overlay=o%d", "overlay=/o",
	"ops=1", "ops=18446744073709551615", "bytes=1K", "bytes=16777215T", "burst=1h", "burst=1ns",
	"moved", "moved=off", "x,,y", "path=a,,b", "path=", "id=", "path=\xff\xfe", "sync=none",
	"ops=0", "bytes=1E", "burst=2h", "ro=maybe"};
static const char *const net_parts[] = {"tap=t0", "tap=vm%d", "fd=3", "passt=/s%d", "user",
	"user=off", "id=net0", "id=n_1", "mac=02:00:00:00:00:01", "mac=random", "mac=01:00:00:00:00:0",
	"mac=0:0:0:0:0:0", "mtu=1500", "mtu=68", "mtu=65535", "queues=16", "queues=2", "spoof",
	"rx-bytes=1M", "tx-bytes=1G", "rx-frames=1", "tx-frames=18446744073709551615", "burst=1us",
	"burst=1h", "tap=0123456789abcdef", "queues=17"};
static const char *const vsock_parts[] = {"cid=3", "cid=4294967294", "cid=2", "path=/v", "path=v",
	"wait=1s", "wait=2h", "wait=0", "path=/\xc3\x28"};
static const char *const pin_parts[] = {"0", "0-3", "1-0", "loop=1", "0-31", "5", "4294967295",
	"loop=", "1-", "0-40"};
static const char *const times[] = {"1s", "250ms", "0", "1m", "18446744073709551615h", "1ns", "5",
	"off", "auto", "1us", "-1", "2ms", " 1"};
static const char *const texts[] = {"web", "a.b", "k=v", "k=v\nx", "=", "..", "", "a/b", "-x",
	"/var/log/x", "0123456789012345678901234567890123456789012345678901234567890123456789"};

struct value {
	const char *const *part;
	unsigned count;
	unsigned most; /* parts in one value */
};

#define VALUE(parts, most) {parts, ARRAY_SIZE(parts), most}

static struct {
	struct launch launch;
	char word[WORDS_MAX][WORD_MAX];
	char *argv[WORDS_MAX + 1];
	int argc;
	char said[SAID_MAX];
	size_t said_len;
	FILE *sink;
} t;

static ssize_t hear(void *ctx, const char *p, size_t n)
{
	size_t room = SAID_MAX - t.said_len;

	memcpy(t.said + t.said_len, p, n < room ? n : room);
	t.said_len += n < room ? n : room;
	return (ssize_t)n;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	t.sink = fopencookie(NULL, "w", (cookie_io_functions_t){.write = hear});
	must(t.sink);
	setvbuf(t.sink, NULL, _IONBF, 0);
	return 0;
}

static struct value value_of(const struct opt_spec *o)
{
	switch (o->id) {
	case OPT_DISK:
		return (struct value)VALUE(disk_parts, 5);
	case OPT_NET:
		return (struct value)VALUE(net_parts, 5);
	case OPT_VSOCK:
		return (struct value)VALUE(vsock_parts, 3);
	case OPT_CPU_PIN:
		return (struct value)VALUE(pin_parts, 4);
	case OPT_POLL:
	case OPT_WAIT_READY:
	case OPT_TIMEOUT:
		return (struct value)VALUE(times, 1);
	default:
		return (struct value)VALUE(texts, 1);
	}
}

static void make_value(struct fz *f, const struct value *v, char *out, size_t cap)
{
	unsigned n = 1 + fz_below(f, v->most);
	size_t at = 0;

	for (unsigned i = 0; i < n; i++) {
		at += (size_t)snprintf(out + at, cap - at, "%s%s", i ? "," : "",
			v->part[fz_below(f, v->count)]);
		must(at < cap);
	}
	switch (fz_break(f, 32)) {
	case 1 ... 16:
		if (at)
			out[fz_u8(f) % at] = (char)fz_u8(f);
		break;
	case 17 ... 24: /* a number of any size behind it */
		snprintf(out + at, cap - at, "%llu", (unsigned long long)fz_odd(f, 1));
		break;
	case 25 ... 28: /* longer than anything it goes into */
		memset(out + at, 'y', cap - at - 1);
		out[cap - 1] = 0;
		break;
	default:
		break;
	}
}

static void add_word(const char *word)
{
	/* --help ends the process, as it should. */
	if (t.argc == (int)WORDS_MAX || !strncmp(word, "--he", 4))
		return;
	snprintf(t.word[t.argc], WORD_MAX, "%s", word);
	t.argv[t.argc] = t.word[t.argc];
	t.argv[++t.argc] = NULL;
}

static void make_option(struct fz *f)
{
	const struct opt_spec *o = &opts[fz_below(f, ARRAY_SIZE(opts))];
	struct value v = value_of(o);
	char value[WORD_MAX / 2] = "", word[WORD_MAX];
	unsigned how = fz_break(f, 40);
	int len = (int)strlen(o->name);

	make_value(f, &v, value, sizeof(value));
	if (how && how <= 8) /* an abbreviation */
		len = 1 + fz_u8(f) % len;
	if (o->arg && (how == 9 || (fz_u8(f) & 1 && o->arg[0] != '['))) {
		snprintf(word, sizeof(word), "--%.*s", len, o->name);
		add_word(word);
		if (how != 9)
			add_word(value);
		return;
	}
	snprintf(word, sizeof(word), o->arg || how == 10 ? "--%.*s=%s" : "--%.*s", len, o->name,
		value);
	if (how > 10 && how <= 20)
		word[fz_u8(f) % (strlen(word) + 1)] = (char)fz_u8(f);
	add_word(how == 21 ? value : how == 22 ? "--" : how == 23 ? "-abc" : word);
}

/* Nothing, or one line for people. */
static void check_said(int r)
{
	must(!t.said_len == !r);
	if (!r)
		return;
	must(t.said_len < SAID_MAX && t.said[t.said_len - 1] == '\n');
	for (size_t i = 0; i + 1 < t.said_len; i++)
		must((u8)t.said[i] >= ' ' && t.said[i] != 0x7f);
}

static void check_rates(const struct limit_config *was, const struct limit_config *is)
{
	must(was->ops.size == is->ops.size && was->ops.refill_ns == is->ops.refill_ns);
	must(was->bytes.size == is->bytes.size && was->bytes.refill_ns == is->bytes.refill_ns);
	must(!was->ops.size || was->ops.refill_ns);
	must(!was->bytes.size || was->bytes.refill_ns);
}

static void check_disk(const struct disk_spec *s)
{
	static struct disk_spec back;
	json_t *j = disk_to_json(s), *drive = disk_to_drive(s);
	struct err e;

	must(j && drive);
	must(!disk_from_json(&back, j, &e));
	must(!strcmp(s->id, back.id) && !strcmp(s->path, back.path));
	must(s->read_only == back.read_only && s->is_overlaid == back.is_overlaid);
	must(s->sync == back.sync && !(s->read_only && s->is_overlaid));
	check_rates(&s->limit, &back.limit);
	json_decref(j);
	json_decref(drive);
}

static void check_net(const struct net_spec *s)
{
	static struct net_spec back;
	json_t *j = net_to_json(s), *iface = net_to_interface(s);
	struct err e;

	must(j && iface);
	must(!net_from_json(&back, j, &e));
	must(!strcmp(s->id, back.id) && !strcmp(s->tap, back.tap) && !strcmp(s->sock, back.sock));
	must(s->way == back.way && !memcmp(s->mac, back.mac, 6) && !(s->mac[0] & 1));
	must(s->mtu == back.mtu && s->queues == back.queues && s->allow_spoof == back.allow_spoof);
	check_rates(&s->rx, &back.rx);
	check_rates(&s->tx, &back.tx);
	json_decref(j);
	json_decref(iface);
}

static void check_devices(const struct dev_spec *d)
{
	must(d->disk_count <= DISKS_MAX && d->net_count <= NETS_MAX);
	for (unsigned i = 0; i < d->disk_count; i++) {
		must(!dev_id_check(d->disk[i].id, NULL));
		for (unsigned k = 0; k < i; k++)
			must(strcmp(d->disk[i].id, d->disk[k].id) != 0);
		check_disk(&d->disk[i]);
	}
	for (unsigned i = 0; i < d->net_count; i++) {
		must(!dev_id_check(d->net[i].id, NULL));
		for (unsigned k = 0; k < i; k++)
			must(strcmp(d->net[i].id, d->net[k].id) != 0);
		check_net(&d->net[i]);
	}
}

static int parse(const struct opt_parser *page, struct launch *l)
{
	struct opt_parser p = *page;
	const char *arg;
	int id, r;

	opt_begin(&p, t.argc, t.argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		r = vm_opt(&p, l, id, arg);
		if (r)
			return r;
	}
	if (id < 0)
		return 2;
	must(optind <= t.argc);
	r = vm_opts_finish(&p, l);
	return r || !l->devices_later ? r : vm_opts_change_devices(&p, l);
}

static void check_accepted(struct launch *l)
{
	struct dev_spec *d = &l->spec.dev;
	struct err e;

	must(!vm_id_check(l->spec.id, &e));
	must(strlen(l->spec.hint) < sizeof(l->spec.hint) && l->spec.pin.count <= VCPU_MAX);
	must(!l->spec.vsock_cid || (l->spec.vsock_cid > 2 && l->spec.vsock_cid < UINT32_MAX));
	must(!l->wait_ready || (l->detach && l->ready_timeout_ns));
	check_devices(d);
	if (!dev_spec_number(d, 12, &e))
		check_devices(d);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static const struct opt_parser page = {.verb = "run", .usage = "run", .summary = "",
		.opts = opts, .opt_count = ARRAY_SIZE(opts)};
	struct launch *l = &t.launch;
	FILE *real = stderr;
	struct fz f;
	u8 how;
	int r;

	memset(l, 0, sizeof(*l));
	t.argc = 0;
	t.said_len = 0;
	fz_begin(&f, data, len);
	fz_step(&f);
	how = fz_u8(&f);
	l->devices_later = how & 1;
	if (l->devices_later) { /* those of a snapshot */
		must(!disk_option(&l->spec.dev, "path=/a,overlay=/o", false, NULL));
		if (how & 2)
			must(!disk_option(&l->spec.dev, "path=/b,ro", false, NULL));
		if (how & 4)
			must(!net_option(&l->spec.dev, "tap=t0", false, NULL));
		if (how & 8)
			must(!net_option(&l->spec.dev, "user", false, NULL));
	}
	add_word("run");
	while (fz_step(&f))
		make_option(&f);
	for (int i = 0; i < t.argc; i++)
		fz_trace("word %s", t.argv[i]);
	stderr = t.sink;
	r = parse(&page, l);
	stderr = real;
	fz_trace("%d: %.*s", r, (int)t.said_len, t.said);
	check_said(r);
	if (!r)
		check_accepted(l);
	return 0;
}
