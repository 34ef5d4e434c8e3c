/* SPDX-License-Identifier: Apache-2.0 */
/* disk_spec.c - disks: --disk, their part of a snapshot, and Firecracker's Drive. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/dev_spec.h"

#define BURST_NS     100000000u   /* what can be saved up, unless burst= says more */
#define BURST_MAX_NS 3600000000000u

static const char *const sync_words[] = {"writeback", "unsafe", "direct", NULL};

static int find(const struct dev_spec *d, const char *id)
{
	for (unsigned i = 0; i < d->disk_count; i++)
		if (strcmp(d->disk[i].id, id) == 0)
			return (int)i;
	return -1;
}

/* The disk that an option is about: a new one, or one of the snapshot. */
static int choose(struct dev_spec *d, const char *id, bool changes, struct disk_spec **ret,
	struct err *e)
{
	char name[DEV_ID_MAX + 1];
	struct dev_choice c = {.what = "disk", .id = id, .changes = changes,
		.count = d->disk_count, .max = DISKS_MAX};
	int r;

	snprintf(name, sizeof(name), "disk%u", d->disk_count);
	if (!id[0] && !changes)
		c.id = name;
	c.found = find(d, c.id);
	r = dev_choose(&c, e);
	if (r)
		return r;
	*ret = &d->disk[changes ? (unsigned)c.found : d->disk_count];
	if (!changes) {
		**ret = (struct disk_spec){0};
		snprintf((*ret)->id, sizeof((*ret)->id), "%s", c.id);
	}
	return 0;
}

/* Paths in a snapshot and in the API must not depend on where the command was typed. */
static void make_absolute(char *path)
{
	char *full = realpath(path, NULL), *dir;

	if (full && strlen(full) < PATH_MAX) {
		snprintf(path, PATH_MAX, "%s", full);
	} else if (!full && path[0] != '/') { /* a file to be made */
		dir = getcwd(NULL, 0);
		if (dir && strlen(dir) + strlen(path) + 2 <= PATH_MAX) {
			memmove(path + strlen(dir) + 1, path, strlen(path) + 1);
			memcpy(path, dir, strlen(dir));
			path[strlen(dir)] = '/';
		}
		free(dir);
	}
	free(full);
}

int disk_option(struct dev_spec *d, const char *text, bool changes, struct err *e)
{
	static char path[PATH_MAX], overlay[PATH_MAX];
	char id[DEV_ID_MAX + 2] = "";
	u64 ops = 0, bytes = 0, burst_ns = BURST_NS;
	bool read_only = false, moved = false;
	unsigned sync = DISK_WRITEBACK;
	struct kv_field f[] = {
		{.key = "path", .type = KV_TEXT, .out = path, .cap = sizeof(path)},
		{.key = "id", .type = KV_TEXT, .out = id, .cap = sizeof(id)},
		{.key = "ro", .type = KV_FLAG, .out = &read_only},
		{.key = "sync", .type = KV_WORD, .out = &sync, .words = sync_words},
		{.key = "overlay", .type = KV_TEXT, .out = overlay, .cap = sizeof(overlay)},
		{.key = "ops", .type = KV_UINT, .out = &ops, .min = 1},
		{.key = "bytes", .type = KV_SIZE, .out = &bytes, .min = 1},
		{.key = "burst", .type = KV_TIME, .out = &burst_ns, .min = 1,
			.max = BURST_MAX_NS},
		{.key = "moved", .type = KV_FLAG, .out = &moved},
	};
	struct disk_spec *s = NULL;
	int r = kv_parse(text, f, ARRAY_SIZE(f), e);

	if (!r)
		r = choose(d, id, changes, &s, e);
	if (r)
		return r;
	if (!changes && !f[0].seen)
		return err_set(e, -EINVAL, "path= is missing");
	if (f[7].seen && !f[5].seen && !f[6].seen)
		return err_set(e, -EINVAL, "burst goes with ops or bytes");
	if (changes && f[2].seen && read_only != s->read_only)
		return err_set(e, -EINVAL, "a restored disk stays %s: its guest knows it so",
			s->read_only ? "read-only" : "writable");
	if (f[0].seen) {
		make_absolute(path);
		memcpy(s->path, path, sizeof(s->path));
		s->unnamed = NULL;
		s->has_identity = false;
	}
	if (f[4].seen) {
		make_absolute(overlay);
		memcpy(s->overlay, overlay, sizeof(s->overlay));
		s->is_overlaid = true;
	}
	if (!changes)
		s->read_only = read_only;
	if (f[8].seen)
		s->moved = moved;
	if (f[3].seen || !changes)
		s->sync = sync;
	if (f[5].seen)
		s->limit.ops = limit_of(ops, burst_ns);
	if (f[6].seen)
		s->limit.bytes = limit_of(bytes, burst_ns);
	if (s->moved && !s->is_overlaid)
		return err_set(e, -EINVAL, "moved goes with overlay");
	if (s->read_only && s->is_overlaid)
		return err_set(e, -EINVAL, "ro and overlay exclude each other: with an overlay the "
					   "image is never written anyway");
	if (s->overlay[0] && strcmp(s->path, s->overlay) == 0)
		return err_set(e, -EINVAL, "the image cannot be its own overlay");
	r = dev_text_check(s->path, "the path", e);
	if (!r)
		r = dev_text_check(s->overlay, "the path", e);
	if (!r && !changes)
		d->disk_count++;
	return r;
}

json_t *disk_to_json(const struct disk_spec *s)
{
	const struct disk_identity *i = &s->identity;

	return json_pack("{s:s, s:s, s:b, s:b, s:s, s:o, s:[I, I, I, I]}", "id", s->id, "path",
		s->path, "ro", s->read_only, "overlay", s->is_overlaid, "sync",
		sync_words[s->sync], "limit", limit_to_json(&s->limit), "identity",
		(json_int_t)i->dev, (json_int_t)i->ino, (json_int_t)i->size,
		(json_int_t)i->mtime_ns);
}

int disk_from_json(struct disk_spec *s, json_t *j, struct err *e)
{
	json_int_t dev, ino, size, mtime;
	const char *id, *path, *sync;
	json_error_t je;
	int ro, overlaid, r;
	unsigned w = 0;

	*s = (struct disk_spec){0};
	if (json_unpack_ex(j, &je, 0, "{s:s, s:s, s:b, s:b, s:s, s:[I, I, I, I]}", "id", &id,
		    "path", &path, "ro", &ro, "overlay", &overlaid, "sync", &sync, "identity",
		    &dev, &ino, &size, &mtime))
		return err_set(e, -EINVAL, "disks: %s", je.text);
	while (sync_words[w] && strcmp(sync_words[w], sync))
		w++;
	r = dev_id_check(id, e);
	if (r || !sync_words[w] || strlen(path) >= sizeof(s->path) || (ro && overlaid))
		return r ? r : err_set(e, -EINVAL, "disks: %s makes no sense", id);
	snprintf(s->id, sizeof(s->id), "%s", id);
	snprintf(s->path, sizeof(s->path), "%s", path);
	s->read_only = ro;
	s->is_overlaid = overlaid;
	s->sync = w;
	s->has_identity = true;
	s->identity = (struct disk_identity){(u64)dev, (u64)ino, (u64)size, (u64)mtime};
	return limit_from_json(&s->limit, json_object_get(j, "limit"), e);
}

json_t *disk_to_drive(const struct disk_spec *s)
{
	json_t *limiter = limit_to_limiter(&s->limit);

	return json_pack("{s:s, s:b, s:n, s:s, s:b, s:s, s:o, s:s}", "drive_id", s->id,
		"is_root_device", 0, "partuuid", "cache_type",
		s->sync == DISK_UNSAFE ? "Unsafe" : "Writeback", "is_read_only", s->read_only,
		"path_on_host", s->path, "rate_limiter", limiter ? limiter : json_null(),
		"io_engine", "Async");
}
