/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_stop.c - kelvin stop: end a VM in an orderly way, by its power button if it has one. */
#include <errno.h>

#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

static u64 wait_ns = 10000000000ull;

static int stop_vm(const char *id, u64 timeout_ns, struct err *e)
{
	unsigned answer_ms = timeout_ms(timeout_ns);
	json_auto_t *body = json_pack("{s:I}", "wait_ms",
		wait_ns ? (json_int_t)timeout_ms(wait_ns) : 0);
	pid_t pid;
	int r;

	vm_look(id, &pid);
	r = client_call(id, "PUT", "/kelvin/stop", body,
		answer_ms < ANSWER_MS ? answer_ms : ANSWER_MS, NULL, e);
	if (r && r != -EPIPE) /* it ended by itself, meanwhile */
		return r;
	return vm_wait_gone(id, pid,
		timeout_ns < UINT64_MAX - wait_ns ? timeout_ns + wait_ns : UINT64_MAX, e);
}

static const struct each_verb verb = {
	.name = "stop",
	.usage = "stop [--json] [--wait TIME] [--timeout TIME] ID...",
	.summary = "Ends VMs in an orderly way. A guest that has a driver for its power button\n"
		   "(Linux: ACPI) has it pressed and may power itself off; any other guest, and\n"
		   "one that takes too long, is ended. What devices have in flight is finished.\n"
		   "Returns when each has ended and its id is free again.",
	.examples = "  kelvin stop web\n"
		    "  kelvin stop --wait 1m database\n"
		    "  kelvin stop --timeout 30s web || kelvin kill web\n",
	.timeout_help = "how long a VM may take to end once it has to (default 10s)",
	.timeout_ns = 10000000000ull,
	.wait_ns = &wait_ns,
	.wait_help = "how long a guest may take to power off after its button\n"
		     "was pressed (default 10s; 0: do not press it)",
	.act = stop_vm,
};

int cmd_stop(int argc, char **argv)
{
	return run_each(&verb, argc, argv);
}
