/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_restore.c - kelvin restore: bring a snapshot back, once or many times. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/vm_opts.h"

#define COUNT_MAX 10000u

enum { OPT_COUNT = OPT_OWN };

static const struct opt_spec opts[] = {
	{"count", "N", "N clones, named ID-0 to ID-(N-1), with --detach", OPT_COUNT},
	{"disk", "id=ID,KEYS", "changes a disk; KEYS: path=F and those of run", OPT_DISK},
	{"net", "id=ID,KEYS", "changes a network; KEYS: those of run, all but\nmtu and queues",
		OPT_NET},
	VM_OPTS,
};

static const struct opt_parser page = {
	.verb = "restore",
	.usage = "restore [options] DIR",
	.summary = "Starts a VM from the snapshot DIR. Its memory is mapped copy-on-write, so\n"
		   "clones share the page cache and DIR is never written. Each clone gets a new\n"
		   "generation, id and randomness before its first instruction. Exit statuses\n"
		   "are those of kelvin run.",
	.examples = "  kelvin restore /var/tmp/echo\n"
		    "  kelvin restore --detach --wait-ready --id web2 /var/tmp/echo\n"
		    "  kelvin restore --count 100 --wait-ready /var/tmp/echo\n"
		    "  kelvin restore --count 4 --net tap=vm%d,mac=random /var/tmp/web\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

/* A VM that was taken over may want to be restored with the operator's terminal. */
static int check_console(const struct launch *l, const char *dir, struct err *e)
{
	if (!l->spec.console || l->spec.share_known || l->detach ||
		(!isatty(STDIN_FILENO) && !isatty(STDOUT_FILENO)))
		return 0;
	return err_set(e, -EPERM,
		"snapshot %s: it has a console, but its file host does not say so, or is not yours "
		"alone: --detach keeps it from your terminal", dir);
}

int cmd_restore(int argc, char **argv)
{
	static struct launch l;
	struct opt_parser p = page;
	struct snap *s;
	const char *arg;
	struct err e;
	u64 v;
	int id, r;

	l.count = 1;
	l.spec.vsock_wait_ms = VSOCK_WAIT_UNSET;
	l.spec.poll_ns = POLL_AUTO;
	l.devices_later = true;
	if (jail_note_inherited(&l.inherited, &e))
		return fail(&e);
	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		if (id != OPT_COUNT) {
			r = vm_opt(&p, &l, id, arg);
			if (r)
				return r;
			continue;
		}
		if (parse_uint(arg, 1, COUNT_MAX, &v, &e))
			return usage_error(&p, "--count: %s", e.msg);
		l.count = (unsigned)v;
		l.detach = true;
	}
	if (id < 0)
		return 2;
	if (argc - optind != 1)
		return usage_error(&p, argc == optind ? "which snapshot?" : "one snapshot, please");
	if (l.count > 1 && l.spec.vsock_path[0])
		return usage_error(&p,
			"--vsock path= names one socket, but --count makes many VMs");
	if (l.count > 1 && l.spec.log_path[0])
		return usage_error(&p, "--log names one file, but --count makes many VMs");
	r = vm_opts_finish(&p, &l);
	if (r)
		return r;
	if (l.count > 1 && strlen(l.spec.id) > VM_ID_MAX - 6)
		return usage_error(&p, "--id is too long to number %u clones with it", l.count);
	if (snap_open(&s, argv[optind], &e))
		return fail(&e);
	if (!realpath(argv[optind], l.spec.snapshot))
		snprintf(l.spec.snapshot, sizeof(l.spec.snapshot), "%s", argv[optind]);
	if (spec_from_snapshot(&l.spec, s, &e)) {
		err_wrap(&e, "snapshot %s", argv[optind]);
		return fail(&e);
	}
	if (check_console(&l, argv[optind], &e))
		return fail(&e);
	r = vm_opts_change_devices(&p, &l);
	if (r)
		return r;
	if (l.count > 1) {
		static struct dev_spec numbered;

		numbered = l.spec.dev;
		if (dev_spec_number(&numbered, 0, &e))
			return fail(&e);
	}
	l.snap = s;
	return launch(&l);
}
