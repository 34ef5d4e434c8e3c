/* SPDX-License-Identifier: Apache-2.0 */
/* kv.c - see kv.h */
#include "monitor/kv.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/verb.h"

#define LIST_MAX 384u

int dev_id_check(const char *id, struct err *e)
{
	size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");

	if (!n || id[n] || n > DEV_ID_MAX)
		return err_set(e, -EINVAL, "id \"%.80s\": 1 to %u letters, digits, _ and -", id,
			DEV_ID_MAX);
	return 0;
}

static int unknown_key(const char *key, const struct kv_field *fields, unsigned n, struct err *e)
{
	char list[LIST_MAX] = "";
	size_t at = 0;

	for (unsigned i = 0; i < n && at < sizeof(list); i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s",
			!i ? "" : i + 1 == n ? " and " : ", ", fields[i].key);
	return err_set(e, -EINVAL, "unknown key \"%.40s\": %s are known", key, list);
}

static int in_range(const struct kv_field *f, u64 v, struct err *e)
{
	if (v < f->min || (f->max && v > f->max))
		return err_set(e, -EINVAL, "is not from %llu to %llu", (unsigned long long)f->min,
			(unsigned long long)f->max);
	*(u64 *)f->out = v;
	return 0;
}

static int take_word(const struct kv_field *f, const char *value, struct err *e)
{
	char list[LIST_MAX] = "";
	size_t at = 0;

	for (unsigned i = 0; f->words[i]; i++) {
		if (strcmp(f->words[i], value) == 0) {
			*(unsigned *)f->out = i;
			return 0;
		}
		if (at < sizeof(list))
			at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s",
				!i ? "" : f->words[i + 1] ? ", " : " or ", f->words[i]);
	}
	return err_set(e, -EINVAL, "%s, not \"%.40s\"", list, value);
}

static int take_flag(const struct kv_field *f, const char *value, struct err *e)
{
	bool on = !value || strcmp(value, "on") == 0;

	if (!on && strcmp(value, "off") != 0)
		return err_set(e, -EINVAL, "on or off, not \"%.40s\"", value);
	*(bool *)f->out = on;
	return 0;
}

static int take_value(const struct kv_field *f, const char *value, struct err *e)
{
	u64 v;
	int r;

	if (f->type == KV_FLAG)
		return take_flag(f, value, e);
	if (!value || !*value)
		return err_set(e, -EINVAL, "wants a value");
	switch (f->type) {
	case KV_TEXT:
		if (strlen(value) >= f->cap)
			return err_set(e, -EINVAL, "is longer than %zu bytes", f->cap - 1);
		memcpy(f->out, value, strlen(value) + 1);
		return 0;
	case KV_UINT:
		return parse_uint(value, f->min, f->max ? f->max : UINT64_MAX, f->out, e);
	case KV_SIZE:
		r = parse_size(value, &v, e);
		return r ? r : in_range(f, v, e);
	case KV_TIME:
		r = parse_time(value, &v, e);
		return r ? r : in_range(f, v, e);
	case KV_WORD: return take_word(f, value, e);
	case KV_FLAG: break;
	}
	return 0;
}

static int take_part(char *part, struct kv_field *fields, unsigned n, struct err *e)
{
	char *value = strchr(part, '=');

	if (value)
		*value++ = 0;
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(fields[i].key, part) != 0)
			continue;
		if (fields[i].seen)
			return err_set(e, -EINVAL, "%s: given twice", part);
		fields[i].seen = true;
		return take_value(&fields[i], value, e) ? err_wrap(e, "%s", part) : 0;
	}
	return unknown_key(part, fields, n, e);
}

int kv_parse(const char *text, struct kv_field *fields, unsigned n, struct err *e)
{
	_cleanup_free_ char *copy = strdup(text);
	char *in = copy, *out = copy, *part = copy;
	int r = 0;

	must(copy);
	for (unsigned i = 0; i < n; i++)
		fields[i].seen = false;
	/* Parts are cut, and ",," becomes ",", in place. */
	for (; !r; in++) {
		if (in[0] == ',' && in[1] == ',') {
			*out++ = *in++;
		} else if (!*in || *in == ',') {
			bool last = !*in;

			*out = 0;
			r = take_part(part, fields, n, e);
			if (last)
				break;
			part = out = in + 1;
		} else {
			*out++ = *in;
		}
	}
	return r;
}
