/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_gc.c - kelvin gc: remove what VMs left that nobody could clean up after.
 *
 * A VM's keeper removes its directory and its cgroup, however the VM ends. Where the keeper was
 * killed, too, both stay. A directory is a leftover if nobody holds the lock of its pid file
 * (vmfind.h); a cgroup if no process is in it and the keeper whose pid is in its name is gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jailer/cgroup.h"
#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

enum { OPT_DRY_RUN = 1, OPT_ENDED, OPT_JSON };

static const struct opt_spec opts[] = {
	{"dry-run", NULL, "only say what would be removed", OPT_DRY_RUN},
	{"ended", NULL, "also what kelvin ps --all lists as ended", OPT_ENDED},
	{"json", NULL, "print an array of objects: kind, name, removed, error", OPT_JSON},
};

struct sweep {
	bool dry_run, ended;
	json_t *list; /* what was found */
	bool failed;
};

static void found(struct sweep *s, const char *kind, const char *name, int r, const struct err *e)
{
	json_t *j = json_pack("{s:s, s:s, s:b}", "kind", kind, "name", name, "removed",
		!r && !s->dry_run);

	if (r)
		json_object_set_new(j, "error", json_string(e->msg));
	s->failed |= r != 0;
	json_array_append_new(s->list, j);
}

static int sweep_directories(struct sweep *s, struct err *e)
{
	char **ids;
	size_t n;
	int r = vm_list(&ids, &n, e);

	if (r)
		return r;
	for (size_t i = 0; i < n; i++) {
		enum vm_there there = vm_look(ids[i], NULL);
		struct err why;

		if (there != VM_DEAD && !(there == VM_ENDED && s->ended))
			continue;
		r = s->dry_run ? 0 : vm_sweep(ids[i], 0, &why);
		found(s, "directory", ids[i], r, &why);
	}
	vm_list_free(ids, n);
	return 0;
}

/* The pid at the end of a group's name (keeper.c) is a process, and no zombie. */
static bool keeper_lives(const char *name)
{
	const char *dot = strrchr(name, '.');
	char state;

	if (!dot)
		return true; /* not ours */
	return process_stat(dot + 1, &state, NULL) && state != 'Z' && state != 'X';
}

static int sweep_cgroups(struct sweep *s, struct err *e)
{
	struct cgroup_names names = {0};
	int r = cgroup_leftovers(&cgroup_host_real, CGROUP_PARENT, &names, e);

	if (r)
		return r;
	for (unsigned i = 0; i < names.n; i++) {
		struct err why;

		if (keeper_lives(names.v[i]))
			continue;
		r = s->dry_run ? 0 : cgroup_remove_leftover(&cgroup_host_real, CGROUP_PARENT,
			names.v[i], &why);
		found(s, "cgroup", names.v[i], r, &why);
	}
	free(names.v);
	return 0;
}

static void print(const struct sweep *s)
{
	json_t *j;
	size_t i;

	json_array_foreach(s->list, i, j) {
		const char *error = json_string_value(json_object_get(j, "error"));

		if (error)
			fprintf(stderr, "kelvin: %s\n", error);
		else
			printf("%-9s  %s%s\n", json_string_value(json_object_get(j, "kind")),
				json_string_value(json_object_get(j, "name")),
				s->dry_run ? "" : "  removed");
	}
}

int cmd_gc(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "gc",
		.usage = "gc [--dry-run] [--ended] [--json]",
		.summary = "Removes what VMs left that were killed together with the process that\n"
			   "would have cleaned up: directories of running VMs, and cgroups.",
		.examples = "  kelvin gc --dry-run\n"
			    "  kelvin gc --ended\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	struct sweep s = {.list = json_array()};
	const char *arg;
	bool json = false;
	struct err e;
	int id, r;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		s.dry_run |= id == OPT_DRY_RUN;
		s.ended |= id == OPT_ENDED;
		json |= id == OPT_JSON;
	}
	if (id < 0)
		return 2;
	if (optind < argc)
		return usage_error(&p,
			"\"%s\" is too much: kelvin kill ID removes what one VM left",
			argv[optind]);
	if (sweep_directories(&s, &e) || sweep_cgroups(&s, &e)) {
		json_decref(s.list);
		return fail(&e);
	}
	r = s.failed;
	if (json)
		return show_json(s.list) || r;
	print(&s);
	json_decref(s.list);
	return show_end() || r;
}
