/* SPDX-License-Identifier: Apache-2.0 */
/* vm_verb.c - see vm_verb.h */
#include "monitor/vm_verb.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "monitor/base/cleanup.h"
#include "monitor/vmfind.h"
#include "vcpu/vm.h"

enum { OPT_JSON = 1, OPT_TIMEOUT, OPT_WAIT };

unsigned timeout_ms(u64 ns)
{
	u64 ms = ns / 1000000;

	if (ms < 1)
		return 1;
	return ms > INT32_MAX ? INT32_MAX : (unsigned)ms;
}

/* Tells those of @list that are called as the thread @tid of the directory open at @dir. */
static void name_thread(json_t *list, int dir, const char *tid)
{
	char path[64], comm[32];
	_cleanup_fd_ int fd = -1;
	json_t *t;
	ssize_t n;
	size_t i;

	snprintf(path, sizeof(path), "%.20s/comm", tid);
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, comm, sizeof(comm) - 1);
	if (n <= 0)
		return;
	comm[n - 1] = 0; /* a line */
	json_array_foreach(list, i, t) {
		const char *name = json_string_value(json_object_get(t, "name"));

		if (name && strcmp(name, comm) == 0)
			json_object_set_new(t, "tid", json_integer(strtol(tid, NULL, 10)));
	}
}

void name_host_pid(const char *id, json_t *facts)
{
	pid_t pid;

	vm_look(id, &pid);
	if (pid)
		json_object_set_new(facts, "pid", json_integer(pid));
	else
		json_object_del(facts, "pid");
}

void name_host_threads(json_t *facts)
{
	int pid = (int)json_integer_value(json_object_get(facts, "pid"));
	json_t *list = json_object_get(facts, "threads"), *t;
	char path[64];
	struct dirent *ent;
	size_t i;
	DIR *d;

	while (json_array_size(list) > VCPU_MAX) /* it cannot have them */
		json_array_remove(list, json_array_size(list) - 1);
	json_array_foreach(list, i, t)
		json_object_set_new(t, "tid", json_integer(0));
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (ent = readdir(d)))
		name_thread(list, dirfd(d), ent->d_name);
	if (d)
		closedir(d);
}

int ask_facts(const char *id, json_t **ret, struct err *e)
{
	int r = client_call(id, "GET", "/kelvin/facts", NULL, ANSWER_MS, ret, e);

	if (r)
		return r;
	name_host_pid(id, *ret);
	name_host_threads(*ret);
	return 0;
}

static json_t *outcome(const char *id, const struct err *e, int r)
{
	json_t *j = json_pack("{s:s, s:b}", "id", id, "ok", r == 0);

	if (j && r)
		json_object_set_new(j, "error", json_string(e->msg));
	return j;
}

int run_each(const struct each_verb *v, int argc, char **argv)
{
	const struct opt_spec opts[] = {
		{"timeout", "TIME", v->timeout_help, OPT_TIMEOUT},
		{"json", NULL, "print one object a VM: id, ok, error", OPT_JSON},
		{"wait", "TIME", v->wait_help, OPT_WAIT}, /* last: not all verbs have it */
	};
	struct opt_parser p = {
		.verb = v->name,
		.usage = v->usage,
		.summary = v->summary,
		.examples = v->examples,
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts) - !v->wait_ns,
	};
	u64 timeout_ns = v->timeout_ns;
	bool json = false;
	json_t *list;
	const char *arg;
	struct err e = {0};
	int id, r, status = 0;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		if (id == OPT_JSON)
			json = true;
		else if (id == OPT_WAIT && parse_time(arg, v->wait_ns, &e))
			return usage_error(&p, "--wait: %s", e.msg);
		else if (id == OPT_TIMEOUT && parse_time(arg, &timeout_ns, &e))
			return usage_error(&p, "--timeout: %s", e.msg);
	}
	if (id < 0)
		return 2;
	if (optind == argc)
		return usage_error(&p, "which VM?");
	list = json_array();
	for (int i = optind; i < argc; i++) {
		r = v->act(argv[i], timeout_ns, &e);
		if (r)
			status = fail(&e);
		json_array_append_new(list, outcome(argv[i], &e, r));
	}
	if (json)
		return show_json(list) ? 1 : status;
	json_decref(list);
	return status;
}
