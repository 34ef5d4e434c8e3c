/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_ps.c - kelvin ps: list VMs.
 *
 * All VMs are asked at once, with one short time limit, so that a hundred take as long as one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/machine.h"
#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

#define ASK_MS     1000u
#define REASON_MAX 20

enum { OPT_ALL = 1, OPT_JSON };

static const struct opt_spec opts[] = {
	{"all", NULL,
		"also detached VMs that ended with a status other than 0,\n"
		"unasked, and how they ended",
		OPT_ALL},
	{"json", NULL, "print an array with everything known of each VM", OPT_JSON},
};

/* One VM: what it said, or what can be seen from outside: {id, state, pid} or its report. NULL
 * where there is none, or, which is counted, none that can be seen. */
static json_t *describe(const char *id, json_t *facts, size_t *hidden)
{
	static const char *const states[] = {
		[VM_LIVES] = "silent",
		[VM_ENDED] = "ended",
		[VM_DEAD] = "dead",
	};
	json_auto_t *report = NULL;
	enum vm_there there;
	pid_t pid;
	json_t *j;

	/* A VM speaks for itself, but not as another, and whoever speaks lives. */
	if (json_is_object(facts)) {
		json_object_set_new(facts, "id", json_string(id));
		name_host_pid(id, facts);
		if (!life_is_name(json_string_value(json_object_get(facts, "state"))))
			json_object_set_new(facts, "state", json_string("unclear"));
		return facts;
	}
	json_decref(facts);
	there = vm_look(id, &pid);
	*hidden += there == VM_HIDDEN;
	if (!states[there])
		return NULL;
	j = json_pack("{s:s, s:s}", "id", id, "state", states[there]);
	if (pid && there == VM_LIVES)
		json_object_set_new(j, "pid", json_integer(pid));
	if (there == VM_ENDED) {
		report = vm_exit_report(id);
		json_object_update(j, report);
	}
	return j;
}

static bool has_state(const json_t *vm, const char *state)
{
	const char *s = json_string_value(json_object_get(vm, "state"));

	return s && strcmp(s, state) == 0;
}

static int collect(bool all, json_t **ret, size_t *ret_hidden, struct err *e)
{
	size_t n, hidden = 0;
	char **ids;
	json_t *list, **reply;
	struct err *errs;
	int r = vm_list(&ids, &n, e);

	if (r)
		return r;
	list = json_array();
	reply = calloc(n + 1, sizeof(*reply));
	errs = calloc(n + 1, sizeof(*errs));
	if (list && reply && errs) {
		client_get_each((const char *const *)ids, n, "/kelvin/facts", ASK_MS, reply, errs);
		for (size_t i = 0; i < n; i++) {
			json_t *vm = describe(ids[i], reply[i], &hidden);

			if (vm && (all || !has_state(vm, "ended")))
				json_array_append(list, vm);
			json_decref(vm);
		}
		*ret = list;
		*ret_hidden = hidden;
	} else {
		json_decref(list);
		r = err_set(e, -ENOMEM, "out of memory");
	}
	free(reply);
	free(errs);
	vm_list_free(ids, n);
	return r;
}

/* A member as text for a column; "-" where the VM did not say. */
static const char *number(const json_t *vm, const char *key, char *buf, size_t cap)
{
	const json_t *v = json_object_get(vm, key);
	u64 n = (u64)json_integer_value(v);

	if (!json_is_integer(v))
		return "-";
	if (strcmp(key, "memory") == 0)
		return show_size(n, buf, cap);
	if (strcmp(key, "uptime_ms") == 0)
		return show_age(n, buf, cap);
	snprintf(buf, cap, "%llu", (unsigned long long)n);
	return buf;
}

/* A word of its own choice is not for the terminal to obey. */
static const char *word(const json_t *vm, const char *key)
{
	const char *s = json_string_value(json_object_get(vm, key));

	for (const char *p = s; p && *p; p++)
		if (*p <= ' ' || *p > '~')
			return "?";
	return s ? s : "-";
}

/* "  reason (status)" of one that ended. */
static void print_end(const json_t *vm)
{
	char status[32];

	if (has_state(vm, "ended"))
		printf("  %.*s (%s)", REASON_MAX, word(vm, "reason"),
			number(vm, "status", status, sizeof(status)));
}

static void print_table(const json_t *list, bool all)
{
	char cpus[32], memory[32], uptime[32], pid[32];
	size_t dead = 0;
	int width = 8;

	for (size_t i = 0; i < json_array_size(list); i++) {
		int len = (int)strlen(word(json_array_get(list, i), "id"));

		width = len > width && len <= (int)VM_ID_MAX ? len : width;
	}
	printf("%-*s  %-12s %4s %8s %8s %8s%s\n", width, "ID", "STATE", "CPUS", "MEMORY", "UPTIME",
		"PID", all ? "  END" : "");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *vm = json_array_get(list, i);

		printf("%-*s  %-12s %4s %8s %8s %8s", width, word(vm, "id"), word(vm, "state"),
			number(vm, "vcpus", cpus, sizeof(cpus)),
			number(vm, "memory", memory, sizeof(memory)),
			number(vm, "uptime_ms", uptime, sizeof(uptime)),
			number(vm, "pid", pid, sizeof(pid)));
		print_end(vm);
		putchar('\n');
		dead += has_state(vm, "dead");
	}
	fflush(stdout);
	if (dead)
		fprintf(stderr, "kelvin: %zu %s dead: kelvin kill ID removes what %s left\n", dead,
			dead == 1 ? "VM is" : "VMs are", dead == 1 ? "it" : "they");
}

int cmd_ps(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "ps",
		.usage = "ps [--all] [--json]",
		.summary = "Lists VMs by id: for root those in /run/kelvin, for others those in\n"
			   "$XDG_RUNTIME_DIR/kelvin; KELVIN_RUN_DIR replaces both. A VM is\n"
			   "\"dead\" if its monitor died without cleaning up, and \"silent\" if\n"
			   "its monitor does not answer.",
		.examples = "  kelvin ps\n"
			    "  kelvin ps --json | jq -r '.[].id'\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	bool all = false, json = false;
	json_t *list = NULL, *vm;
	const char *arg;
	struct err e;
	size_t i, hidden;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		all = all || id == OPT_ALL;
		json = json || id == OPT_JSON;
	}
	if (id < 0)
		return 2;
	if (optind < argc)
		return usage_error(&p, "\"%s\" is too much: kelvin inspect ID tells about one VM",
			argv[optind]);
	if (collect(all, &list, &hidden, &e))
		return fail(&e);
	if (hidden)
		fprintf(stderr, "kelvin: %zu %s of another user cannot be seen\n", hidden,
			hidden == 1 ? "VM" : "VMs");
	if (json) {
		json_array_foreach(list, i, vm)
			name_host_threads(vm);
		return show_json(list);
	}
	print_table(list, all);
	json_decref(list);
	return show_end();
}
