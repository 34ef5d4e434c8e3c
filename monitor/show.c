/* SPDX-License-Identifier: Apache-2.0 */
/* show.c - see show.h */
#include "monitor/show.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "monitor/verb.h"

#define VALUE_WIDTH (79 - SHOW_NAME_WIDTH - 1) /* in columns; one without blanks may be longer */
#define WORDS_WIDTH (VALUE_WIDTH - 2u)         /* of a list of words, before a comma */
#define DEPTH_MAX 8

int show_end(void)
{
	struct err e;

	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	err_sys(&e, errno ? errno : EIO, "cannot write to stdout");
	return fail(&e);
}

int show_json(json_t *j)
{
	struct err e;
	bool ok = j && json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0;

	json_decref(j);
	if (!ok && !ferror(stdout)) {
		err_set(&e, -EINVAL, "cannot write the answer as JSON");
		return fail(&e);
	}
	putchar('\n');
	return show_end();
}

void show_text(const char *text, int indent)
{
	for (; *text; text++) {
		unsigned char ch = (unsigned char)*text;

		if (ch == '\n' && text[1])
			printf("\n%*s", indent, "");
		else if (ch != '\n')
			putchar(ch >= 0x20 && ch < 0x7f ? ch : '?');
	}
}

/* The left column, as wide as it must be for a value to follow. */
static void show_name(const char *name, bool value)
{
	int width = 0;

	for (; *name; name++, width++)
		putchar(*name >= 0x20 && *name < 0x7f ? *name : '?');
	if (value)
		printf("%*s ", width < SHOW_NAME_WIDTH ? SHOW_NAME_WIDTH - width : 0, "");
}

/* Breaks lines at blanks, for reading. */
static void wrap(char *text)
{
	char *begin = text, *blank = NULL;

	for (char *p = text; *p; p++) {
		if (*p == '\n') {
			begin = p + 1;
			blank = NULL;
		} else if (*p == ' ') {
			blank = p;
		}
		if (blank && p - begin >= VALUE_WIDTH) {
			*blank = '\n';
			begin = blank + 1;
			blank = NULL;
		}
	}
}

void show_line(const char *name, const char *fmt, ...)
{
	char text[4200]; /* a command line fits */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	wrap(text);
	show_name(name, text[0] != 0);
	show_text(text, SHOW_NAME_WIDTH + 1);
	putchar('\n');
}

const char *show_date(u64 realtime_ns, char *buf, size_t cap)
{
	time_t t = (time_t)(realtime_ns / 1000000000u);
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, cap, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, cap, "?");
	return buf;
}

const char *show_age(u64 ms, char *buf, size_t cap)
{
	unsigned long long s = ms / 1000;

	if (s < 1)
		snprintf(buf, cap, "%llums", (unsigned long long)ms);
	else if (s < 60)
		snprintf(buf, cap, "%llus", s);
	else if (s < 3600)
		snprintf(buf, cap, "%llum%02llus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, cap, "%lluh%02llum", s / 3600, s / 60 % 60);
	else
		snprintf(buf, cap, "%llud%02lluh", s / 86400, s / 3600 % 24);
	return buf;
}

/* What an integer means follows from how its name ends, or that of the object around it. */
enum unit { PLAIN, BYTES, NS, US, MS, DATE };

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

static enum unit unit_of(const char *key, enum unit outer)
{
	if (strcmp(key, "started_ns") == 0 || strcmp(key, "created_ns") == 0)
		return DATE;
	if (ends_in(key, "_ns"))
		return NS;
	if (ends_in(key, "_us"))
		return US;
	if (ends_in(key, "_ms"))
		return MS;
	if (outer != PLAIN)
		return outer;
	if (strcmp(key, "memory") == 0 || ends_in(key, "bytes"))
		return BYTES;
	return PLAIN;
}

/* A name without its unit, which comes with the value. */
static int plain_name_len(const char *key)
{
	size_t len = strlen(key);

	if (len > 3 && (ends_in(key, "_ns") || ends_in(key, "_us") || ends_in(key, "_ms")))
		len -= 3;
	return len > 40 ? 40 : (int)len;
}

static const char *show_number(json_int_t v, enum unit unit, char *buf, size_t cap)
{
	u64 n = (u64)v;

	if (v < 0)
		unit = PLAIN;
	switch (unit) {
	case BYTES: return show_size(n, buf, cap);
	case NS: return show_ns(n, buf, cap);
	case US: return n < UINT64_MAX / 1000 ? show_ns(n * 1000, buf, cap) : "?";
	case MS: return n < 60000 ? show_ns(n * 1000000, buf, cap) : show_age(n, buf, cap);
	case DATE: return show_date(n, buf, cap);
	case PLAIN: break;
	}
	snprintf(buf, cap, "%lld", (long long)v);
	return buf;
}

static const char *show_scalar(const json_t *v, enum unit unit, char *buf, size_t cap)
{
	switch (json_typeof(v)) {
	case JSON_STRING: snprintf(buf, cap, "%s", json_string_value(v)); break;
	case JSON_INTEGER: return show_number(json_integer_value(v), unit, buf, cap);
	case JSON_REAL: snprintf(buf, cap, "%g", json_real_value(v)); break;
	case JSON_TRUE: return "yes";
	case JSON_FALSE: return "no";
	default: return "-";
	}
	return buf;
}

static void show_member(const char *key, const json_t *v, enum unit outer, int depth);

static void show_members(const json_t *v, enum unit unit, int depth)
{
	const char *key;
	json_t *member;

	/* jansson's iteration wants a mutable object, but does not change it. */
	json_object_foreach((json_t *)v, key, member)
		show_member(key, member, unit, depth);
}

static bool all_strings(const json_t *v)
{
	size_t n = json_array_size(v);

	for (size_t i = 0; i < n; i++)
		if (!json_is_string(json_array_get(v, i)))
			return false;
	return n > 0;
}

/* A rate limit that is not set (limit_spec.c), or an object of nothing else. */
static bool is_unset(const json_t *v)
{
	const char *key;
	json_t *member;

	if (!json_is_object(v))
		return false;
	if (json_object_get(v, "refill_ns"))
		return json_integer_value(json_object_get(v, "size")) == 0;
	json_object_foreach((json_t *)v, key, member)
		if (!is_unset(member))
			return false;
	return true;
}

/* A list of words, broken into lines. */
static void show_words(const char *name, const json_t *v)
{
	char text[2048];
	size_t n = 0, line = 0;

	for (size_t i = 0; i < json_array_size(v) && n < sizeof(text); i++) {
		const char *word = json_string_value(json_array_get(v, i));
		bool wraps = line + strlen(word) > WORDS_WIDTH;

		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
			i == 0 ? "" : wraps ? ",\n" : ", ", word);
		line = (wraps ? 0 : line) + strlen(word) + 2;
	}
	show_line(name, "%s", text);
}

static void show_member(const char *key, const json_t *v, enum unit outer, int depth)
{
	enum unit unit = unit_of(key, outer);
	char buf[4200], name[64];

	snprintf(name, sizeof(name), "%*s%.*s", depth * 2, "", plain_name_len(key), key);
	if (all_strings(v)) {
		show_words(name, v);
		return;
	}
	if (json_is_object(v) || json_is_array(v)) {
		if (depth >= DEPTH_MAX || is_unset(v) ||
			(json_is_array(v) && !json_array_size(v)))
			return;
		show_line(name, "%s", "");
		if (json_is_object(v))
			show_members(v, unit, depth + 1);
		for (size_t i = 0; i < json_array_size(v); i++) {
			snprintf(name, sizeof(name), "%zu", i);
			show_member(name, json_array_get(v, i), unit, depth + 1);
		}
		return;
	}
	show_line(name, "%s", show_scalar(v, unit, buf, sizeof(buf)));
}

void show_facts(const json_t *object)
{
	show_members(object, PLAIN, 0);
}
