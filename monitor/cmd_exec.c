/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_exec.c - kelvin exec: run a command in a Linux guest that has the agent. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/exec.h"
#include "monitor/guest.h"
#include "monitor/vm_verb.h"

#define ENV_MAX 256u

enum { OPT_TTY = 1, OPT_NO_TTY, OPT_ENV, OPT_CWD, OPT_USER, OPT_TIMEOUT, OPT_WAIT };

static const struct opt_spec opts[] = {
	{"tty", NULL, "give the command a terminal (default: if stdin and\nstdout are terminals)",
		OPT_TTY},
	{"no-tty", NULL, "give it none", OPT_NO_TTY},
	{"env", "NAME[=VALUE]", "set a variable, or pass ours on; repeatable", OPT_ENV},
	{"cwd", "DIR", "where to run it (default: the user's home)", OPT_CWD},
	{"user", "USER[:GROUP]", "who runs it, by name or number (default: root)", OPT_USER},
	{"timeout", "TIME", "how long the agent may take to accept (default 10s)", OPT_TIMEOUT},
	{"wait", "TIME", "try again for so long where there is no such VM,\nor no agent yet",
		OPT_WAIT},
};

static const struct opt_parser parser = {
	.verb = "exec",
	.usage = "exec [options] ID -- COMMAND [ARG]...",
	.summary = "Runs COMMAND in the Linux guest of VM ID, through the agent in it (see\n"
		   "guests/linux). stdin, stdout and stderr are passed through, the exit\n"
		   "status is the command's, 128 + the number of the signal that ended it,\n"
		   "127 or 126 if it cannot be run, or 1, with a line on stderr, if kelvin\n"
		   "fails. SIGINT, SIGTERM and SIGQUIT are passed on; the third ends the wait.\n"
		   "A command whose exec is killed, or that is cut off, gets SIGHUP. What it\n"
		   "leaves in the background goes on, but is no longer heard.",
	.examples = "  kelvin exec web -- uname -a\n"
		    "  kelvin exec web -- sh                       # a terminal, if we have one\n"
		    "  kelvin exec web -- tar c /etc | tar t\n"
		    "  kelvin exec --user nobody --env A=1 --cwd /srv web -- ./job < in > out\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

struct options {
	struct exec_spec spec;
	const char *env[ENV_MAX];
	u64 timeout_ns, wait_ns;
	bool tty, no_tty;
};

/* "NAME=VALUE" as it is; of "NAME" ours, if we have it. Kept for the life of the process. */
static int add_env(const struct opt_parser *p, struct options *o, const char *arg)
{
	size_t n = strcspn(arg, "=");
	const char *value;
	char *own;

	if (!n)
		return usage_error(p, "--env: \"%s\" has no name", arg);
	if (o->spec.env_count == ENV_MAX)
		return usage_error(p, "--env: more than %u variables", ENV_MAX);
	if (!arg[n]) {
		value = getenv(arg);
		if (!value)
			return 0;
		if (asprintf(&own, "%s=%s", arg, value) < 0)
			return usage_error(p, "--env: out of memory");
		arg = own;
	}
	o->env[o->spec.env_count++] = arg;
	return 0;
}

static int take_option(const struct opt_parser *p, struct options *o, int id, const char *arg)
{
	struct err e;

	switch (id) {
	case OPT_TTY: o->tty = true; return 0;
	case OPT_NO_TTY: o->no_tty = true; return 0;
	case OPT_ENV: return add_env(p, o, arg);
	case OPT_CWD: o->spec.cwd = arg; return 0;
	case OPT_USER: o->spec.user = arg; return 0;
	case OPT_TIMEOUT:
	case OPT_WAIT:
		if (parse_time(arg, id == OPT_WAIT ? &o->wait_ns : &o->timeout_ns, &e))
			return usage_error(p, "--%s: %s", id == OPT_WAIT ? "wait" : "timeout",
				e.msg);
		return 0;
	default: return 2;
	}
}

static bool has_term(const struct options *o)
{
	for (unsigned i = 0; i < o->spec.env_count; i++)
		if (!strncmp(o->env[i], "TERM=", 5))
			return true;
	return false;
}

static int run(const struct opt_parser *p, const char *id, struct options *o)
{
	_cleanup_fd_ int fd = -1;
	struct err e;
	int status;

	o->spec.tty = o->tty || (!o->no_tty && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
	if (o->spec.tty && !has_term(o) && add_env(p, o, "TERM"))
		return 2;
	o->spec.env = o->env;
	if (guest_agent(id, o->timeout_ns, o->wait_ns, &fd, &e))
		return fail(&e);
	if (exec_run(fd, &o->spec, &status, &e)) {
		err_wrap(&e, "VM \"%s\"", id);
		fail(&e);
	}
	return status;
}

int cmd_exec(int argc, char **argv)
{
	struct opt_parser p = parser;
	struct options o = {.spec = {.user = "", .cwd = ""}, .timeout_ns = GUEST_TIMEOUT_NS};
	const char *arg;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		if (take_option(&p, &o, id, arg))
			return 2;
	if (id < 0)
		return 2;
	if (argc - optind < 2)
		return usage_error(&p, argc == optind ? "which VM, and which command?"
						      : "which command?");
	if (o.tty && o.no_tty)
		return usage_error(&p, "--tty and --no-tty exclude each other");
	o.spec.argv = argv + optind + 1;
	o.spec.argc = (unsigned)(argc - optind - 1);
	return run(&p, argv[optind], &o);
}
