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
#include "vcpu/vm.h"

enum { OPT_JSON = 1, OPT_TIMEOUT, OPT_WAIT };

unsigned timeout_ms(u64 ns)
{
	u64 ms = ns / 1000000;

	if (ms < 1)
		return 1;
	return ms > INT32_MAX ? INT32_MAX : (unsigned)ms;
}

/* The thread of process @pid that is called @name; 0: there is none. */
static int find_thread(int pid, const char *name)
{
	char path[64], comm[32];
	struct dirent *ent;
	int found = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && !found && (ent = readdir(d))) {
		_cleanup_fd_ int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "%.20s/comm", ent->d_name);
		fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, comm, sizeof(comm) - 1);
		if (n <= 0)
			continue;
		comm[n - 1] = 0; /* a line */
		if (strcmp(comm, name) == 0)
			found = (int)strtol(ent->d_name, NULL, 10);
	}
	if (d)
		closedir(d);
	return found;
}

void name_host_threads(json_t *facts)
{
	int pid = (int)json_integer_value(json_object_get(facts, "pid"));
	json_t *t;
	size_t i;

	json_array_foreach(json_object_get(facts, "threads"), i, t) {
		const char *name = json_string_value(json_object_get(t, "name"));

		if (i >= VCPU_MAX)
			break; /* its own words: nobody is to look for all that it can name */
		if (name)
			json_object_set_new(t, "tid", json_integer(find_thread(pid, name)));
	}
}

int ask_facts(const char *id, json_t **ret, struct err *e)
{
	int r = client_call(id, "GET", "/kelvin/facts", NULL, ANSWER_MS, ret, e);

	if (!r)
		name_host_threads(*ret);
	return r;
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
