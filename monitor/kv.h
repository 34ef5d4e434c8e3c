/* SPDX-License-Identifier: Apache-2.0 */
/* kv.h - options of the form key=value,key,key=value, read by a table. */
#ifndef KELVIN_MONITOR_KV_H
#define KELVIN_MONITOR_KV_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

/* What a key's value is, and what `out` points to. */
enum kv_type {
	KV_TEXT, /* char[cap] */
	KV_FLAG, /* bool; "key" alone is true, "key=on" and "key=off" too */
	KV_UINT, /* u64, from min to max */
	KV_SIZE, /* u64 bytes: 4096, 128M; from min to max */
	KV_TIME, /* u64 ns: 250ms, 2s; from min to max */
	KV_WORD, /* unsigned: the index of the value in `words` */
};

struct kv_field {
	const char *key;
	enum kv_type type;
	void *out;               /* left alone where the key is absent */
	u64 min, max;            /* max 0: no limit */
	size_t cap;              /* KV_TEXT */
	const char *const *words; /* KV_WORD; ends with NULL */
	bool seen;               /* set by kv_parse() */
};

/*
 * Reads @text; a comma in a value is written ",,". Each key at most once. Errors name the key and
 * what it takes, an unknown key is answered by the list of known ones.
 */
int kv_parse(const char *text, struct kv_field *fields, unsigned n, struct err *e);

/* [A-Za-z0-9_-], 1 to 64 of them: names of disks and networks. */
#define DEV_ID_MAX 64u
int dev_id_check(const char *id, struct err *e);

#endif
