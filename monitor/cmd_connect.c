/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_connect.c - kelvin connect: join stdin and stdout to a guest's vsock port.
 *
 * The connection (guest.h) comes with a pipe that says at the end whether the guest's stream ended
 * in good order, or just stopped. So the exit status is worth something: 0 means that all the guest
 * said is on stdout, and that it had not left before it took all input.
 */
#include <errno.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/guest.h"
#include "monitor/pump.h"
#include "monitor/vm_verb.h"

enum { OPT_TIMEOUT = 1, OPT_WAIT };

static const struct opt_spec opts[] = {
	{"timeout", "TIME", "how long the guest may take to accept (default 10s)", OPT_TIMEOUT},
	{"wait", "TIME",
		"try again for so long where there is no such VM,\n"
		"or the guest does not listen (default: once)", OPT_WAIT},
};

/* Whether the guest ended its stream in good order; where nobody tells, one has to believe it. */
static bool ended_well(int end_fd)
{
	ssize_t n;
	char byte;

	if (end_fd < 0)
		return true;
	do
		n = read(end_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1;
}

static int join(const struct guest_port *t, int fd, int end_fd, struct err *e)
{
	bool lost;
	int r = pump(STDIN_FILENO, STDOUT_FILENO, fd, &lost, e);

	if (r)
		return r;
	if (!ended_well(end_fd))
		return err_set(e, -ECONNRESET,
			"the connection to port %u of VM \"%s\" was cut off: the guest reset it, "
			"or the VM ended", t->port, t->id);
	if (lost)
		return err_set(e, -EPIPE,
			"the guest of VM \"%s\" closed the connection before it took all input",
			t->id);
	return 0;
}

static const struct opt_parser parser = {
	.verb = "connect",
	.usage = "connect [--timeout TIME] [--wait TIME] ID PORT",
	.summary = "Joins stdin and stdout to the port PORT the guest of VM ID listens on,\n"
		   "by vsock. The end of stdin is passed on as a half close; ends when the\n"
		   "guest closes. Exits with 0 if all that the guest sent came through and\n"
		   "it took all input; else with 1, and one line on stderr that says why.",
	.examples = "  echo hello | kelvin connect web 1024\n"
		    "  kelvin connect web 1024 < request > answer\n"
		    "  kelvin connect --wait 5s web 1024     # as soon as it listens\n"
		    "  kelvin connect web 1024 < /dev/null   # only listen\n"
		    "  tar c dir | kelvin connect web 7 | tar x -C /elsewhere\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

int cmd_connect(int argc, char **argv)
{
	struct opt_parser p = parser;
	struct guest_port t = {.timeout_ns = GUEST_TIMEOUT_NS};
	u64 wait_ns = 0, port, *time;
	_cleanup_fd_ int fd = -1, end = -1;
	const char *arg;
	struct err e;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		time = id == OPT_WAIT ? &wait_ns : &t.timeout_ns;
		if (parse_time(arg, time, &e))
			return usage_error(&p, "--%s: %s", id == OPT_WAIT ? "wait" : "timeout",
				e.msg);
	}
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, argc == optind ? "which VM, and which port?"
						      : "one VM and one port, please");
	if (parse_uint(argv[optind + 1], 0, UINT32_MAX - 1, &port, &e))
		return usage_error(&p, "the port: %s", e.msg);
	t.id = argv[optind];
	t.port = (unsigned)port;
	if (guest_connect(&t, wait_ns, &fd, &end, &e) || join(&t, fd, end, &e))
		return fail(&e);
	return 0;
}
