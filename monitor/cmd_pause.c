/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_pause.c - kelvin pause: stop a VM's processors. */
#include "monitor/vm_verb.h"

static int pause_vm(const char *id, u64 timeout_ns, struct err *e)
{
	json_auto_t *body = json_pack("{s:s}", "state", "Paused");

	return client_call(id, "PATCH", "/vm", body, timeout_ms(timeout_ns), NULL, e);
}

static const struct each_verb verb = {
	.name = "pause",
	.usage = "pause [--json] [--timeout TIME] ID...",
	.summary = "Stops the processors of running VMs; their memory, devices and connections\n"
		   "stay. Returns when they stand still. Pausing a paused VM does nothing.",
	.examples = "  kelvin pause web\n"
		    "  kelvin pause web db && kelvin ps\n",
	.timeout_help = "how long to wait for a VM (default 10s)",
	.timeout_ns = 10000000000ull,
	.act = pause_vm,
};

int cmd_pause(int argc, char **argv)
{
	return run_each(&verb, argc, argv);
}
