/* SPDX-License-Identifier: Apache-2.0 */
/* vm_verb.c - see vm_verb.h */
#include "monitor/vm_verb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPT_JSON = 1, OPT_TIMEOUT, OPT_WAIT };

unsigned timeout_ms(u64 ns)
{
	u64 ms = ns / 1000000;

	if (ms < 1)
		return 1;
	return ms > INT32_MAX ? INT32_MAX : (unsigned)ms;
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
