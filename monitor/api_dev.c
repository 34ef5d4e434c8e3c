/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_dev.c - the routes that change devices of a running VM: Firecracker's PATCH /drives/ID and
 * PATCH /network-interfaces/ID.
 *
 * A drive's path_on_host may be another file, which takes the place of the old one, or the same
 * one, which is then looked at again for its size. The client may hand the file over, open: then it
 * is called path_on_host, in "files" and for people. Limits take effect at once.
 */
#include <string.h>

#include "monitor/api_int.h"
#include "monitor/dev_spec.h"

/* False after a fault was sent. @key names the id in the body, which repeats that of the path. */
static bool id_repeats(struct api_call *c, const char *id)
{
	if (!strcmp(id, c->id))
		return true;
	api_fault(c, "The id from the path [%s] does not match the id from the body [%.64s]!",
		c->id, id);
	return false;
}

/* A limiter of the body, if it is there: then *@ret is set to @l, filled. False after a fault. */
static bool take_limiter(struct api_call *c, const char *key, struct limit_config *l,
	const struct limit_config **ret)
{
	const json_t *j = json_object_get(c->body, key);
	struct err e;

	*ret = NULL;
	if (!j)
		return true;
	*l = (struct limit_config){0};
	*ret = l;
	if (!limit_from_limiter(l, j, &e))
		return true;
	api_fault(c, API_JSON_ERROR "%s: %s.", key, e.msg);
	return false;
}

void api_patch_drive(struct api_call *c)
{
	const char *id = NULL, *path = NULL;
	json_t *limiter = NULL;
	bool handed = false;
	const struct api_field fields[] = {
		{"drive_id", FIELD_STRING, true, &id},
		{"path_on_host", FIELD_STRING, false, &path},
		{"rate_limiter", FIELD_OBJECT, false, &limiter},
		{"files", FIELD_FILES, false, &handed},
	};
	const struct limit_config *limit;
	struct limit_config l;
	struct err e;

	if (!api_fields(c, fields, ARRAY_SIZE(fields)) || !id_repeats(c, id) ||
		!take_limiter(c, "rate_limiter", &l, &limit))
		return;
	if (handed && (!path || c->file_count != 1 || strcmp(c->file[0].name, "path_on_host")))
		api_fault(c, "Drive config error: the one file to hand over is `path_on_host`");
	else if (path && path[0] != '/')
		api_fault(c, "Drive config error: \"%.200s\" is not an absolute path", path);
	else if (machine_change_disk(c->machine, id, path, handed ? c->file : NULL, limit, &e))
		api_fault(c, "Drive config error: %s", e.msg);
	else
		api_ok(c);
}

void api_patch_interface(struct api_call *c)
{
	const char *id = NULL;
	json_t *rx_json = NULL, *tx_json = NULL;
	const struct api_field fields[] = {
		{"iface_id", FIELD_STRING, true, &id},
		{"rx_rate_limiter", FIELD_OBJECT, false, &rx_json},
		{"tx_rate_limiter", FIELD_OBJECT, false, &tx_json},
	};
	const struct limit_config *rx, *tx;
	struct limit_config r, t;
	struct err e;

	if (!api_fields(c, fields, ARRAY_SIZE(fields)) || !id_repeats(c, id) ||
		!take_limiter(c, "rx_rate_limiter", &r, &rx) ||
		!take_limiter(c, "tx_rate_limiter", &t, &tx))
		return;
	if (machine_change_net(c->machine, id, rx, tx, &e))
		api_fault(c, "Network config error: %s", e.msg);
	else
		api_ok(c);
}
