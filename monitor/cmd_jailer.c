/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_jailer.c - kelvin jailer, or a link to kelvin called "jailer": Firecracker's command line.
 *
 * The options are Firecracker's, letter by letter, so that scripts and SDKs written for its jailer
 * work; what they do is in jailer/chroot.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jailer/chroot.h"
#include "monitor/base/clock.h"
#include "monitor/verb.h"

#define NOFILE_DEFAULT 2048u
#define ID_MAX         UINT32_MAX /* the largest uid and gid is one below: (uid_t)-1 means none */

enum {
	OPT_ID = 1,
	OPT_EXEC_FILE,
	OPT_UID,
	OPT_GID,
	OPT_BASE,
	OPT_NETNS,
	OPT_DAEMONIZE,
	OPT_NEW_PID_NS,
	OPT_CGROUP,
	OPT_CGROUP_VERSION,
	OPT_PARENT_CGROUP,
	OPT_RESOURCE_LIMIT,
	OPT_VERSION
};

#define BIT(id)  (1u << (id))
#define REQUIRED (BIT(OPT_ID) | BIT(OPT_EXEC_FILE) | BIT(OPT_UID) | BIT(OPT_GID))
#define REPEATED (BIT(OPT_CGROUP) | BIT(OPT_RESOURCE_LIMIT))

static const struct opt_spec opts[] = {
	{"id", "ID", "1 to 64 letters, digits and \"-\"; names the jail", OPT_ID},
	{"exec-file", "FILE", "the monitor: a static program; copied into the jail",
		OPT_EXEC_FILE},
	{"uid", "N", "the user it runs as", OPT_UID},
	{"gid", "N", "the group it runs as", OPT_GID},
	{"chroot-base-dir", "DIR", "where jails are made (default /srv/jailer)", OPT_BASE},
	{"netns", "FILE", "enter this network namespace, as /run/netns/NAME", OPT_NETNS},
	{"daemonize", NULL, "a session of its own, /dev/null for stdin, stdout\n"
		"and stderr; returns when the monitor runs", OPT_DAEMONIZE},
	{"new-pid-ns", NULL, "a pid namespace of its own; returns when it runs", OPT_NEW_PID_NS},
	{"cgroup", "FILE=VALUE", "a limit, as memory.max=256M; may be repeated", OPT_CGROUP},
	{"cgroup-version", "N", "1 or 2; the host's is found by itself. 2 without\n"
		"--cgroup: enter the parent cgroup", OPT_CGROUP_VERSION},
	{"parent-cgroup", "NAME", "where the cgroup is made (default: the file's name)",
		OPT_PARENT_CGROUP},
	{"resource-limit", "NAME=N", "fsize=BYTES, or no-file=N (default 2048);\n"
		"may be repeated", OPT_RESOURCE_LIMIT},
	{"version", NULL, "print the version", OPT_VERSION},
};

static const struct opt_parser proto = {
	.verb = "jailer",
	.usage = "jailer --id ID --exec-file FILE --uid N --gid N [...] [-- ARG...]",
	.summary = "Starts a monitor by Firecracker's rules: in DIR/FILE/ID/root as its root\n"
		   "directory, as another user, without capabilities. It gets --id, its start\n"
		   "times, and then each ARG. For kelvin's own VMs there is no need of it.",
	.examples = "  kelvin jailer --id web --exec-file /usr/bin/firecracker --uid 4001 \\\n"
		    "      --gid 4001 --cgroup memory.max=256M -- --config-file vm.json\n"
		    "  kelvin jailer --id k --exec-file build/monitor/kelvin --uid 4002 \\\n"
		    "      --gid 4002 --daemonize -- run echo.elf  # put into the root before\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

static int parse_resource(const char *arg, struct jail_rlimits *l, struct err *e)
{
	const char *eq = strchr(arg, '=');
	size_t len = eq ? (size_t)(eq - arg) : 0;

	if (len == 5 && memcmp(arg, "fsize", len) == 0)
		return parse_uint(eq + 1, 0, INT64_MAX, &l->fsize, e);
	if (len == 7 && memcmp(arg, "no-file", len) == 0)
		return parse_uint(eq + 1, 0, UINT32_MAX, &l->nofile, e);
	return err_set(e, -EINVAL, "wanted fsize=N or no-file=N, got \"%s\"", arg);
}

static int parse_id(const char *arg, u32 *ret, struct err *e)
{
	u64 v;
	int r = parse_uint(arg, 0, ID_MAX - 1, &v, e);

	if (r == 0)
		*ret = (u32)v;
	return r;
}

static int take_option(struct chroot_spec *s, int id, const char *arg, struct err *e)
{
	u64 v = 0;
	int r = 0;

	switch (id) {
	case OPT_ID:
		s->id = arg;
		return jail_check_id(arg, e);
	case OPT_EXEC_FILE: s->exec_file = arg; break;
	case OPT_UID: return parse_id(arg, &s->uid, e);
	case OPT_GID: return parse_id(arg, &s->gid, e);
	case OPT_BASE: s->base = arg; break;
	case OPT_NETNS: s->netns = arg; break;
	case OPT_DAEMONIZE: s->daemonize = true; break;
	case OPT_NEW_PID_NS: s->new_pid_ns = true; break;
	case OPT_CGROUP: return cgroup_parse(arg, &s->limits, e);
	case OPT_CGROUP_VERSION:
		r = parse_uint(arg, 1, 2, &v, e);
		s->join_parent = v == 2;
		break;
	case OPT_PARENT_CGROUP:
		s->parent = arg;
		return cgroup_check_parent(arg, e);
	case OPT_RESOURCE_LIMIT: return parse_resource(arg, &s->rlimits, e);
	default: break;
	}
	return r;
}

/* What comes behind "--", if that is there; getopt sorts its operands so that others look alike. */
static int words_behind(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--") == 0)
			return argc - i - 1;
	return 0;
}

static int missing(const struct opt_parser *p, u32 seen)
{
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (REQUIRED & ~seen & BIT(opts[i].id))
			return usage_error(p, "--%s is missing", opts[i].name);
	return 0;
}

int cmd_jailer(int argc, char **argv)
{
	struct chroot_spec spec = {
		.base = "/srv/jailer",
		.rlimits = {NOFILE_DEFAULT, JAIL_RLIM_KEEP, JAIL_RLIM_KEEP},
		.start_us = monotonic_ns() / 1000,
		.start_cpu_us = clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000,
	};
	struct opt_parser p = proto;
	int id, behind = words_behind(argc, argv);
	const char *arg;
	struct err e;
	u32 seen = 0;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		if (seen & BIT(id) & ~REPEATED)
			return usage_error(&p, "--%s is there twice", opts[id - 1].name);
		seen |= BIT(id);
		if (take_option(&spec, id, arg, &e))
			return usage_error(&p, "--%s: %s", opts[id - 1].name, e.msg);
	}
	if (id < 0)
		return 2;
	if (seen & BIT(OPT_VERSION)) {
		printf("Jailer v%s\n", KELVIN_VERSION);
		return fflush(stdout) ? 1 : 0;
	}
	if (missing(&p, seen))
		return 2;
	if (argc - optind != behind)
		return usage_error(&p, "arguments for the monitor come behind \"--\"");
	spec.join_parent = spec.join_parent && spec.parent && !spec.limits.n;
	spec.extra = argv + optind;
	if (geteuid() != 0)
		return fail((err_set(&e, -EPERM, "the jailer must be started by root"), &e));
	if (spec.uid == 0 || spec.gid == 0)
		fprintf(stderr, "kelvin: warning: the monitor will be root in its jail, though "
				"without capabilities\n");
	return chroot_run(&spec, &e) ? fail(&e) : 0;
}
