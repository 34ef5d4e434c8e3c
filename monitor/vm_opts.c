/* SPDX-License-Identifier: Apache-2.0 */
/* vm_opts.c - see vm_opts.h */
#include "monitor/vm_opts.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_TIMEOUT_NS 10000000000u
#define WAIT_MAX_NS      3600000000000u
#define POLL_MAX_NS      1000000u
#define UID_LAST         (UINT32_MAX - 2) /* -1 is none, and -2 often nobody */

bool is_utf8(const char *text)
{
	json_auto_t *j = json_string(text);

	return j;
}

static int vsock_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	u64 cid = l->spec.vsock_cid, wait_ns = 0;
	struct kv_field f[] = {
		{.key = "cid", .type = KV_UINT, .out = &cid, .min = 3, .max = UINT32_MAX - 1},
		{.key = "path", .type = KV_TEXT, .out = l->spec.vsock_path,
			.cap = sizeof(l->spec.vsock_path)},
		{.key = "wait", .type = KV_TIME, .out = &wait_ns, .max = WAIT_MAX_NS},
	};
	struct err e = {0};

	if (kv_parse(arg, f, ARRAY_SIZE(f), &e))
		return usage_error(p, "--vsock: %s", e.msg);
	l->spec.vsock_cid = (u32)cid;
	if (f[2].seen)
		l->spec.vsock_wait_ms = (u32)(wait_ns / 1000000);
	if (f[1].seen && l->spec.vsock_path[0] != '/')
		return usage_error(p, "--vsock: path must be absolute");
	if (f[1].seen && !is_utf8(l->spec.vsock_path))
		return usage_error(p, "--vsock: path is not valid UTF-8");
	return 0;
}

static int device_opt(const struct opt_parser *p, struct launch *l, int id, const char *arg)
{
	struct err e;

	if (l->device_arg_count == ARRAY_SIZE(l->device_arg))
		return usage_error(p, "more than %zu --disk and --net",
			ARRAY_SIZE(l->device_arg));
	/* Of a restore they change what the snapshot says, which is not known yet. */
	l->device_arg[l->device_arg_count] = arg;
	l->device_arg_is_disk[l->device_arg_count++] = id == OPT_DISK;
	if (l->devices_later)
		return 0;
	if (id == OPT_DISK ? disk_option(&l->spec.dev, arg, false, &e)
			   : net_option(&l->spec.dev, arg, false, &e))
		return usage_error(p, "--%s: %s", id == OPT_DISK ? "disk" : "net", e.msg);
	return 0;
}

int vm_opts_change_devices(const struct opt_parser *p, struct launch *l)
{
	struct err e;

	for (unsigned i = 0; i < l->device_arg_count; i++) {
		bool disk = l->device_arg_is_disk[i];

		if (disk ? disk_option(&l->spec.dev, l->device_arg[i], true, &e)
			 : net_option(&l->spec.dev, l->device_arg[i], true, &e))
			return usage_error(p, "--%s: %s", disk ? "disk" : "net", e.msg);
	}
	return 0;
}

static int poll_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	struct err e;

	l->spec.poll_ns = POLL_AUTO;
	if (strcmp(arg, "off") == 0)
		l->spec.poll_ns = 0;
	else if (strcmp(arg, "auto") != 0 && parse_time(arg, &l->spec.poll_ns, &e))
		return usage_error(p, "--poll: auto, off, or a time; %s", e.msg);
	if (l->spec.poll_ns != POLL_AUTO && l->spec.poll_ns > POLL_MAX_NS)
		return usage_error(p, "--poll: at most 1ms");
	return 0;
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

static int seccomp_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	if (!jail_seccomp_from_name(arg, &l->spec.seccomp))
		return usage_error(p, "--seccomp: on, log or off, not \"%s\"", arg);
	if (l->spec.seccomp == JAIL_SECCOMP_OFF)
		fprintf(stderr, "kelvin: --seccomp=off: a guest that takes over this VM's process "
				"may make any system call\n");
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

static int uid_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	struct err e;
	u64 v;

	if (parse_uint(arg, 1, UID_LAST, &v, &e))
		return usage_error(p, "--jail-uid: %s", e.msg);
	l->first_id = (uid_t)v;
	return 0;
}

static int cgroup_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	struct err e;

	if (strcmp(arg, "none") == 0) {
		l->no_limits = true;
		return 0;
	}
	if (cgroup_parse(arg, &l->limits, &e))
		return usage_error(p, "--cgroup: %s", e.msg);
	l->limits_asked = true;
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
	case OPT_DISK:
	case OPT_NET: return device_opt(p, l, id, arg);
	case OPT_POLL: return poll_opt(p, l, arg);
	case OPT_CPU_PIN:
		if (cpu_pin_option(&l->spec.pin, arg, &e))
			return usage_error(p, "--cpu-pin: %s", e.msg);
		return 0;
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
	case OPT_NO_JAIL: l->no_jail = true; return 0;
	case OPT_JAIL_UID: return uid_opt(p, l, arg);
	case OPT_CGROUP: return cgroup_opt(p, l, arg);
	case OPT_SECCOMP: return seccomp_opt(p, l, arg);
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
	if (l->first_id && (l->no_jail || geteuid() != 0))
		return usage_error(p, "--jail-uid is for root, and for a jail");
	if (l->first_id && l->count > UID_LAST - l->first_id)
		return usage_error(p, "--jail-uid: there are not so many user ids");
	l->spec.jailed = !l->no_jail;
	if (l->limits_asked && (l->no_limits || l->no_jail))
		return usage_error(p, "--cgroup: limits are for a jail, and either none or some");
	if (!l->spec.id[0])
		random_id(l->spec.id, sizeof(l->spec.id));
	return 0;
}
