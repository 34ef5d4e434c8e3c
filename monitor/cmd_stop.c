/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_stop.c - kelvin stop: end a VM in an orderly way. */
#include <errno.h>

#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

static int stop_vm(const char *id, u64 timeout_ns, struct err *e)
{
	unsigned answer_ms = timeout_ms(timeout_ns);
	json_auto_t *body = json_object();
	pid_t pid;
	int r;

	vm_look(id, &pid);
	r = client_call(id, "PUT", "/kelvin/stop", body,
		answer_ms < ANSWER_MS ? answer_ms : ANSWER_MS, NULL, e);
	if (r && r != -EPIPE) /* it ended by itself, meanwhile */
		return r;
	return vm_wait_gone(id, pid, timeout_ns, e);
}

static const struct each_verb verb = {
	.name = "stop",
	.usage = "stop [--json] [--timeout TIME] ID...",
	.summary = "Ends VMs in an orderly way: what their devices have in flight is finished.\n"
		   "Returns when each has ended and its id is free again.",
	.examples = "  kelvin stop web\n"
		    "  kelvin stop --timeout 30s web || kelvin kill web\n",
	.timeout_help = "how long a VM may take to end (default 10s)",
	.timeout_ns = 10000000000ull,
	.act = stop_vm,
};

int cmd_stop(int argc, char **argv)
{
	return run_each(&verb, argc, argv);
}
