/* SPDX-License-Identifier: Apache-2.0 */
/* vm_opts.c - see vm_opts.h */
#include "monitor/vm_opts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READY_TIMEOUT_NS 10000000000u

bool is_utf8(const char *text)
{
	json_auto_t *j = json_string(text);

	return j;
}

/* cid=N,path=SOCK,wait=T in any order. */
static int vsock_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	char *copy = strdup(arg), *word, *save = NULL;
	struct err e = {0};
	int r = 0;

	must(copy);
	for (word = strtok_r(copy, ",", &save); word && !r; word = strtok_r(NULL, ",", &save)) {
		u64 v = 0;

		if (strncmp(word, "cid=", 4) == 0) {
			r = parse_uint(word + 4, 3, UINT32_MAX - 1, &v, &e);
			if (r)
				err_wrap(&e, "cid");
			l->spec.vsock_cid = (u32)v;
		} else if (strncmp(word, "wait=", 5) == 0) {
			r = parse_time(word + 5, &v, &e);
			if (r)
				err_wrap(&e, "wait");
			else if (v / 1000000 > 3600000)
				r = err_set(&e, -1, "wait is at most one hour");
			l->spec.vsock_wait_ms = (u32)(v / 1000000);
		} else if (strncmp(word, "path=", 5) == 0) {
			if (strlen(word + 5) >= sizeof(l->spec.vsock_path))
				r = err_set(&e, -1, "path is longer than %zu bytes, the limit for "
						    "unix sockets",
					sizeof(l->spec.vsock_path) - 1);
			else if (word[5] != '/')
				r = err_set(&e, -1, "path must be absolute");
			else if (!is_utf8(word + 5))
				r = err_set(&e, -1, "path is not valid UTF-8");
			else
				snprintf(l->spec.vsock_path, sizeof(l->spec.vsock_path), "%s",
					word + 5);
		} else {
			r = err_set(&e, -1, "unknown key in \"%s\": cid, path and wait are known",
				word);
		}
	}
	free(copy);
	return r ? usage_error(p, "--vsock: %s", e.msg) : 0;
}

static int hint_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	size_t n = strlen(l->spec.hint);

	if (!strchr(arg, '=') || strchr(arg, '\n'))
		return usage_error(p, "--hint wants KEY=VALUE on one line, not \"%s\"", arg);
	if (n + strlen(arg) + 2 > sizeof(l->spec.hint))
		return usage_error(p, "--hint: all hints together are longer than %u bytes",
			HINT_MAX - 1);
	snprintf(l->spec.hint + n, sizeof(l->spec.hint) - n, "%s\n", arg);
	return 0;
}

static int time_opt(const struct opt_parser *p, const char *name, const char *arg, u64 *ret)
{
	struct err e;

	if (parse_time(arg, ret, &e))
		return usage_error(p, "--%s: %s", name, e.msg);
	if (!*ret)
		return usage_error(p, "--%s: must be more than 0", name);
	return 0;
}

int vm_opt(const struct opt_parser *p, struct launch *l, int id, const char *arg)
{
	struct err e;

	switch (id) {
	case OPT_ID:
		if (vm_id_check(arg, &e))
			return usage_error(p, "--id: %s", e.msg);
		snprintf(l->spec.id, sizeof(l->spec.id), "%s", arg);
		return 0;
	case OPT_VSOCK: return vsock_opt(p, l, arg);
	case OPT_HINT: return hint_opt(p, l, arg);
	case OPT_DETACH: l->detach = true; return 0;
	case OPT_WAIT_READY:
		l->wait_ready = true;
		return arg ? time_opt(p, "wait-ready", arg, &l->ready_timeout_ns) : 0;
	case OPT_TIMEOUT: return time_opt(p, "timeout", arg, &l->spec.timeout_ns);
	case OPT_LOG:
		if (strlen(arg) >= sizeof(l->spec.log_path))
			return usage_error(p, "--log: the path is too long");
		snprintf(l->spec.log_path, sizeof(l->spec.log_path), "%s", arg);
		return 0;
	case OPT_JSON: l->json = true; return 0;
	default: must(false);
	}
	return 2;
}

int vm_opts_finish(const struct opt_parser *p, struct launch *l)
{
	if (l->wait_ready && !l->detach)
		return usage_error(p, "--wait-ready goes with --detach");
	if (l->wait_ready && !l->ready_timeout_ns)
		l->ready_timeout_ns = READY_TIMEOUT_NS;
	if (!l->spec.id[0])
		random_id(l->spec.id, sizeof(l->spec.id));
	return 0;
}
