/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opt.c - the command line: options by one table a verb, numbers with units, errors in one line.
 *
 * The table drives getopt_long() and the --help page alike, so that the two cannot differ. Options
 * and operands may come in any order; "--" ends the options. getopt's own messages are off; ours
 * name the option the way it was written.
 */
#include "monitor/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define OPTS_MAX    40u
#define HELP_ID     0x7fff /* above every verb's ids, which are below every letter */
#define COLUMN_MAX  26     /* a wider option gets a line of its own */

/* getopt keeps its state in globals, so one table at a time is all there can be. */
static struct option longopts[OPTS_MAX + 2];

static const struct opt_spec help_spec = {"help", NULL, "show this page", HELP_ID};

static int arg_kind(const struct opt_spec *s)
{
	if (!s->arg)
		return no_argument;
	return s->arg[0] == '[' ? optional_argument : required_argument;
}

void opt_begin(struct opt_parser *p, int argc, char **argv)
{
	must(p->opt_count <= OPTS_MAX);
	memset(longopts, 0, sizeof(longopts));
	for (unsigned i = 0; i <= p->opt_count; i++) {
		const struct opt_spec *s = i < p->opt_count ? &p->opts[i] : &help_spec;

		must(s->id > 0 && (s->id < ' ' || s == &help_spec));
		longopts[i] = (struct option){s->name, arg_kind(s), NULL, s->id};
	}
	p->longopts = longopts;
	p->argc = argc;
	p->argv = argv;
	optind = 0; /* makes getopt forget what it parsed before */
	opterr = 0;
}

/* ---- --help ---- */

/* "  --memory SIZE", "  --wait-ready[=TIMEOUT]" */
static int option_text(const struct opt_spec *s, char *buf, size_t cap)
{
	switch (arg_kind(s)) {
	case required_argument: return snprintf(buf, cap, "  --%s %s", s->name, s->arg);
	case optional_argument: return snprintf(buf, cap, "  --%s[=%s", s->name, s->arg + 1);
	default: return snprintf(buf, cap, "  --%s", s->name);
	}
}

static void print_option(const struct opt_spec *s, int column)
{
	char text[128];
	int len = option_text(s, text, sizeof(text));

	if (len > column)
		printf("%s\n%*s  ", text, column, "");
	else
		printf("%-*s  ", column, text);
	for (const char *p = s->help; *p; p++) {
		putchar(*p);
		if (*p == '\n')
			printf("%*s  ", column, "");
	}
	putchar('\n');
}

/* Whether an option of the page takes a @word. */
static bool is_used(const struct opt_parser *p, const char *word)
{
	for (unsigned i = 0; i < p->opt_count; i++)
		if ((p->opts[i].arg && strstr(p->opts[i].arg, word)) ||
			strstr(p->opts[i].help, word))
			return true;
	return false;
}

static void print_units(const struct opt_parser *p)
{
	bool size = is_used(p, "SIZE"), time = is_used(p, "TIME");

	if (size || time)
		putchar('\n');
	if (size)
		puts("A SIZE is in bytes, or has a unit: 4096, 128M, 1G.");
	if (time)
		puts("A TIME is in seconds, or has a unit: 5, 250ms, 2s, 1m.");
}

_Noreturn static void show_help(const struct opt_parser *p)
{
	char text[128];
	int column = option_text(&help_spec, text, sizeof(text));

	for (unsigned i = 0; i < p->opt_count; i++) {
		int len = option_text(&p->opts[i], text, sizeof(text));

		if (len > column && len <= COLUMN_MAX)
			column = len;
	}
	printf("usage: kelvin %s\n\n%s\n\noptions:\n", p->usage, p->summary);
	for (unsigned i = 0; i < p->opt_count; i++)
		print_option(&p->opts[i], column);
	print_option(&help_spec, column);
	print_units(p);
	if (p->examples)
		printf("\nexamples:\n%s", p->examples);
	exit(fflush(stdout) ? 1 : 0);
}

/* ---- parsing ---- */

/* Names come from anywhere: bytes that a terminal acts on, or that end a line, become '?'. */
static void make_one_line(char *text)
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f ||
			(p > text && p[-1] == '\xc2' && (unsigned char)*p < 0xa0))
			*p = '?';
}

int usage_error(const struct opt_parser *p, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	make_one_line(text);
	fprintf(stderr, "kelvin %s: %s (see kelvin %s --help)\n", p->verb, text, p->verb);
	return 2;
}

int fail(const struct err *e)
{
	struct err shown = *e;

	make_one_line(shown.msg);
	fprintf(stderr, "kelvin: %s\n", shown.msg);
	return 1;
}

/* The name of the option with this id. */
static const char *name_of(const struct opt_parser *p, int id)
{
	for (unsigned i = 0; i < p->opt_count; i++)
		if (p->opts[i].id == id)
			return p->opts[i].name;
	return help_spec.name;
}

/* getopt says '?' both for an unknown long option and for an ambiguous abbreviation. */
static void explain_unknown(const struct opt_parser *p, const char *word)
{
	int len = (int)strcspn(word, "=");
	char candidates[256] = "";
	size_t used = 0;

	for (const struct option *o = p->longopts; o->name && len > 2; o++) {
		if (strncmp(o->name, word + 2, (size_t)len - 2))
			continue;
		used += (size_t)snprintf(candidates + used, sizeof(candidates) - used, "%s--%s",
			used ? ", " : "", o->name);
		if (used >= sizeof(candidates))
			break;
	}
	if (used)
		usage_error(p, "option %.*s may mean %s", len, word, candidates);
	else
		usage_error(p, "unknown option %.*s", len, word);
}

static void explain_bad_option(const struct opt_parser *p, int code, const char *word)
{
	if (code == ':')
		usage_error(p, "option --%s needs an argument", name_of(p, optopt));
	else if (optopt > ' ' && optopt <= '~')
		usage_error(p, "unknown option %s: options have long names", word);
	else if (optopt)
		usage_error(p, "option --%s takes no argument", name_of(p, optopt));
	else
		explain_unknown(p, word);
}

int opt_next(struct opt_parser *p, const char **arg)
{
	int id = getopt_long(p->argc, p->argv, ":", p->longopts, NULL);

	if (id == -1)
		return 0;
	if (id == HELP_ID)
		show_help(p);
	if (id == '?' || id == ':') {
		/* In the middle of "-abc", getopt has not moved on yet. */
		bool inside = optind < p->argc && p->argv[optind][0] == '-' && optopt &&
			      p->argv[optind][1] == optopt;

		explain_bad_option(p, id, p->argv[optind - !inside]);
		return -1;
	}
	*arg = optarg;
	return id;
}

/* ---- numbers ---- */

/* Reads decimal digits; *end is what follows them. False: no digit, or more than a u64 holds. */
static bool read_digits(const char *s, u64 *ret, const char **end)
{
	u64 v = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (u64)(*s - '0'), &v))
			return false;
	*ret = v;
	*end = s;
	return true;
}

struct unit {
	const char *name;
	u64 factor;
};

/* A number and one of the @n units; the one named "" is what a bare number means. */
static bool parse_unit(const char *s, const struct unit *units, size_t n, u64 *ret)
{
	const char *suffix;
	u64 v;

	if (!read_digits(s, &v, &suffix))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strcasecmp(suffix, units[i].name))
			return !__builtin_mul_overflow(v, units[i].factor, ret);
	return false;
}

int parse_size(const char *s, u64 *ret, struct err *e)
{
	static const struct unit units[] = {
		{"", 1}, {"K", 1ull << 10}, {"M", 1ull << 20}, {"G", 1ull << 30},
		{"T", 1ull << 40}};
	u64 v;

	if (!parse_unit(s, units, ARRAY_SIZE(units), &v))
		return err_set(e, -EINVAL,
			"\"%s\" is not a size (such as 128M, 1G, or 4096, which is bytes)", s);
	*ret = v;
	return 0;
}

int parse_time(const char *s, u64 *ret_ns, struct err *e)
{
	static const struct unit units[] = {
		{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {"", 1000000000},
		{"m", 60000000000}, {"h", 3600000000000}};
	u64 v;

	if (!parse_unit(s, units, ARRAY_SIZE(units), &v))
		return err_set(e, -EINVAL,
			"\"%s\" is not a time (such as 250ms, 1m, or 2, which is seconds)", s);
	*ret_ns = v;
	return 0;
}

int parse_uint(const char *s, u64 min, u64 max, u64 *ret, struct err *e)
{
	const char *end;
	u64 v;

	if (!read_digits(s, &v, &end) || *end || v < min || v > max)
		return err_set(e, -EINVAL, "\"%s\" is not a number from %" PRIu64 " to %" PRIu64, s,
			min, max);
	*ret = v;
	return 0;
}

const char *show_size(u64 bytes, char *buf, size_t cap)
{
	static const char letters[] = " KMGTPE";
	unsigned i = 0;
	u64 unit = 1;

	/* Just below the next unit, one decimal would round to "1024.0K": take the next unit. */
	while (i < sizeof(letters) - 2 && bytes >= unit * 1024 - unit / 20) {
		unit <<= 10;
		i++;
	}
	if (!i)
		snprintf(buf, cap, "%" PRIu64, bytes);
	else if (bytes % unit == 0)
		snprintf(buf, cap, "%" PRIu64 "%c", bytes / unit, letters[i]);
	else
		snprintf(buf, cap, "%.1f%c", (double)bytes / (double)unit, letters[i]);
	return buf;
}

const char *show_ns(u64 ns, char *buf, size_t cap)
{
	static const struct unit units[] = {{"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
	size_t i = 0;
	double v;

	if (ns < 1000) {
		snprintf(buf, cap, "%" PRIu64 " ns", ns);
		return buf;
	}
	/* 999.5 and up would show as "1000". */
	while (i + 1 < ARRAY_SIZE(units) && ns >= units[i + 1].factor - units[i].factor / 2)
		i++;
	v = (double)ns / (double)units[i].factor;
	snprintf(buf, cap, v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[i].name);
	return buf;
}
