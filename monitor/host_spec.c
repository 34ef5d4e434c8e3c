/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_spec.c - what of the host a VM has, in words that its guest cannot choose.
 *
 * A snapshot's section "machine" is written by the VM's process, which may be in its guest's hands
 * by then; the snapshot all the same belongs to whoever took it, often root, so a restore would
 * open whatever that section names, with root's rights. Therefore the names are written down
 * before the guest runs, to devices.json in the VM's directory, out of the jail's reach; whoever
 * takes a snapshot copies that to the file `host` in it; and a restore opens what "machine" names
 * only where `host` says the same of the device. What "machine" alone says can but make it fail.
 *
 *	{"memory", "vcpus", "console",
 *	 "disks": [{"id", "path", "ro", "overlay"}, ...],
 *	 "nets": [{"id", "way", "tap", "sock"}, ...]}
 *
 * The first three, which snapshots from before do not have, cannot be named again at a restore, so
 * they must agree: limits of the VM's cgroup come from them, and a console is the operator's own.
 *
 * A disk that got another file from outside since is not known here, so it must be named. What the
 * VM's process enforces itself, limits and addresses, is not here: taken over, it would not.
 */
#include <errno.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/dev_spec.h"

static const char *const disk_keys[] = {"id", "path", "ro", "overlay", NULL};
static const char *const net_keys[] = {"id", "way", "tap", "sock", NULL};

/* @j with only @keys left; takes @j over. */
static json_t *only(json_t *j, const char *const *keys)
{
	json_t *out = json_object();

	for (; *keys; keys++)
		json_object_set(out, *keys, json_object_get(j, *keys));
	json_decref(j);
	return out;
}

static json_t *share_to_json(const struct host_share *share)
{
	return json_pack("{s:I, s:I, s:b}", "memory", (json_int_t)share->memory, "vcpus",
		(json_int_t)share->vcpus, "console", share->console);
}

char *dev_host_text(const struct dev_spec *d, const struct host_share *share)
{
	json_auto_t *disks = json_array(), *nets = json_array(), *j = share_to_json(share);

	for (unsigned i = 0; i < d->disk_count; i++)
		json_array_append_new(disks, only(disk_to_json(&d->disk[i]), disk_keys));
	for (unsigned i = 0; i < d->net_count; i++)
		json_array_append_new(nets, only(net_to_json(&d->net[i]), net_keys));
	if (json_object_set(j, "disks", disks) || json_object_set(j, "nets", nets))
		return NULL;
	return json_dumps(j, JSON_COMPACT);
}

static int check_list(const json_t *list, const char *what, const char *format, struct err *e)
{
	json_error_t je;
	json_t *item;
	size_t i;

	if (!json_is_array(list))
		return err_set(e, -EINVAL, "file host: there is no list of %s", what);
	json_array_foreach(list, i, item)
		if (json_unpack_ex(item, &je, JSON_VALIDATE_ONLY, format, "id",
			    what[0] == 'd' ? "path" : "way", what[0] == 'd' ? "ro" : "tap",
			    what[0] == 'd' ? "overlay" : "sock"))
			return err_set(e, -EINVAL, "file host: entry %zu of %s is none", i, what);
	return 0;
}

/* *ret is the caller's. */
static int parse(json_t **ret, const void *text, size_t len, struct err *e)
{
	json_auto_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	int r;

	if (!j)
		return err_set(e, -EINVAL, "file host: not JSON");
	r = check_list(json_object_get(j, "disks"), "disks", "{s:s, s:s, s:b, s:b}", e);
	if (!r)
		r = check_list(json_object_get(j, "nets"), "nets", "{s:s, s:s, s:s, s:s}", e);
	if (!r)
		*ret = json_incref(j);
	return r;
}

int dev_host_check(const void *text, size_t len, struct err *e)
{
	json_auto_t *j = NULL;

	return parse(&j, text, len, e);
}

static json_t *find(const json_t *list, const char *id)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
		if (!strcmp(json_string_value(json_object_get(item, "id")), id))
			return item;
	return NULL;
}

static const char not_known[] = "the snapshot's file host, which says what a restore may open, "
				"does not know what the snapshot names";

static int vouch_for_disk(struct disk_spec *s, const json_t *list, struct err *e)
{
	const json_t *host = find(list, s->id);

	if (host && (json_is_true(json_object_get(host, "ro")) != s->read_only ||
			    json_is_true(json_object_get(host, "overlay")) != s->is_overlaid))
		return err_set(e, -EINVAL,
			"disk \"%s\": file host says otherwise whether it is written", s->id);
	if (!host || strcmp(json_string_value(json_object_get(host, "path")), s->path) != 0)
		s->unnamed = not_known;
	return 0;
}

static void vouch_for_net(struct net_spec *s, const json_t *list)
{
	const json_t *host = find(list, s->id);
	json_auto_t *named = only(net_to_json(s), net_keys);

	if (!host || !json_equal(host, named))
		s->unnamed = not_known;
}

static int vouch_for_share(const struct host_share *share, const json_t *host, bool *ret_known,
	struct err *e)
{
	json_auto_t *named = share_to_json(share);
	const char *key;
	json_t *value;

	if (!named)
		return err_sys(e, ENOMEM, "cannot compare file host");
	*ret_known = true;

	json_object_foreach(named, key, value) {
		const json_t *known = json_object_get(host, key);

		*ret_known &= known != NULL;
		if (known && !json_equal(known, value))
			return err_set(e, -EINVAL,
				"file host says otherwise about the VM's %s", key);
	}
	return 0;
}

int dev_host_vouch(struct dev_spec *d, const struct host_share *share, const void *text, size_t len,
	bool trusted, bool *ret_known, struct err *e)
{
	const char *why = NULL;
	json_auto_t *j = NULL;
	int r = text ? parse(&j, text, len, e) : 0;

	*ret_known = false;
	if (!trusted)
		why = "the snapshot is not yours alone, so what it names does not count";
	else if (!text)
		why = "the snapshot has no file host, which says what a restore may open (kelvin "
		      "wrote none once)";
	if (!r && !why)
		r = vouch_for_share(share, j, ret_known, e);
	for (unsigned i = 0; i < d->disk_count && !r; i++) {
		d->disk[i].unnamed = why;
		if (!why)
			r = vouch_for_disk(&d->disk[i], json_object_get(j, "disks"), e);
		if (d->disk[i].unnamed)
			d->disk[i].path[0] = 0;
	}
	for (unsigned i = 0; i < d->net_count && !r; i++) {
		d->net[i].unnamed = why;
		if (!why)
			vouch_for_net(&d->net[i], json_object_get(j, "nets"));
	}
	return r;
}
