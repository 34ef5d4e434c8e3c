/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_snapshot.c - kelvin snapshot: write a running VM to a directory. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

#define STOP_NS 10000000000ull

enum { OPT_STOP = 1, OPT_FORCE, OPT_JSON };

static const struct opt_spec opts[] = {
	{"stop", NULL, "end the VM once the snapshot is safe on disk", OPT_STOP},
	{"force", NULL, "replace a snapshot that is there, atomically", OPT_FORCE},
	{"json", NULL, "print what was written as an object", OPT_JSON},
};

/* The VM's monitor has another working directory. */
static int make_absolute(const char *dir, char *out, size_t cap, struct err *e)
{
	char cwd[PATH_MAX];
	size_t len;
	int n;

	if (!*dir)
		return err_set(e, -EINVAL, "the directory for the snapshot has no name");
	if (dir[0] == '/')
		n = snprintf(out, cap, "%s", dir);
	else if (getcwd(cwd, sizeof(cwd)))
		n = snprintf(out, cap, "%s/%s", cwd, dir);
	else
		return err_sys(e, errno, "cannot find the working directory");
	if (n < 0 || (size_t)n >= cap)
		return err_set(e, -ENAMETOOLONG, "the path of %.200s is too long", dir);
	for (len = strlen(out); len > 1 && out[len - 1] == '/'; len--)
		out[len - 1] = 0;
	return 0;
}

static void print_result(const char *dir, const json_t *facts)
{
	u64 bytes = (u64)json_integer_value(json_object_get(facts, "bytes"));
	u64 data = (u64)json_integer_value(json_object_get(facts, "data_bytes"));
	u64 pause_us = (u64)json_integer_value(json_object_get(facts, "pause_us"));
	const char *state = json_string_value(json_object_get(facts, "state"));
	char a[32], b[32], c[32];

	printf("snapshot %s: %s RAM, %s data", dir, show_size(bytes, a, sizeof(a)),
		show_size(data, b, sizeof(b)));
	if (pause_us)
		printf(", paused %s", show_ns(pause_us * 1000, c, sizeof(c)));
	if (state && strcmp(state, "running"))
		printf(", the VM is %s", state);
	putchar('\n');
}

/* The API words its errors as Firecracker does; here the verb says that much. */
static void plain_words(struct err *e, bool force)
{
	static const char prefix[] = "Create snapshot error: ", there[] = "exists already";
	char *p = strstr(e->msg, prefix);
	size_t len;

	if (p)
		memmove(p, p + sizeof(prefix) - 1, strlen(p + sizeof(prefix) - 1) + 1);
	len = strlen(e->msg);
	if (!force && len >= sizeof(there) - 1 && !strcmp(e->msg + len - sizeof(there) + 1, there))
		snprintf(e->msg + len, sizeof(e->msg) - len, " (--force replaces a snapshot)");
}

static int take_snapshot(const char *id, const char *dir, bool stop, bool force, bool json)
{
	char path[PATH_MAX];
	json_t *facts = NULL, *body;
	pid_t pid;
	struct err e;
	int r;

	if (make_absolute(dir, path, sizeof(path), &e))
		return fail(&e);
	vm_look(id, &pid);
	body = json_pack("{s:s, s:b, s:b}", "dir", path, "stop", stop, "force", force);
	if (!body) {
		err_set(&e, -EINVAL, "the path %.200s is not valid UTF-8", path);
		return fail(&e);
	}
	r = client_call(id, "PUT", "/kelvin/snapshot", body, 0, &facts, &e);
	json_decref(body);
	if (r) {
		plain_words(&e, force);
		return fail(&e);
	}
	if (json) {
		r = show_json(facts);
	} else {
		print_result(dir, facts);
		json_decref(facts);
		r = show_end();
	}
	if (stop && vm_wait_gone(id, pid, STOP_NS, &e))
		return fail(&e);
	return r;
}

int cmd_snapshot(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "snapshot",
		.usage = "snapshot [--stop] [--force] [--json] ID DIR",
		.summary = "Writes the VM ID (memory, processors, devices) to the new directory\n"
			   "DIR. The VM is paused meanwhile and goes on after that, unless it\n"
			   "was paused before. DIR appears only once all of it is on stable\n"
			   "storage.",
		.examples = "  kelvin snapshot web /var/tmp/web\n"
			    "  kelvin snapshot --stop web snap && kelvin restore snap\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	bool stop = false, force = false, json = false;
	const char *arg;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		stop = stop || id == OPT_STOP;
		force = force || id == OPT_FORCE;
		json = json || id == OPT_JSON;
	}
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, argc == optind ? "which VM, and where to?"
						      : "one VM and one directory, please");
	return take_snapshot(argv[optind], argv[optind + 1], stop, force, json);
}
