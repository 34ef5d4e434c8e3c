/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_resume.c - kelvin resume: let a paused VM go on. */
#include "monitor/vm_verb.h"

static int resume_vm(const char *id, u64 timeout_ns, struct err *e)
{
	json_auto_t *body = json_pack("{s:s}", "state", "Resumed");

	return client_call(id, "PATCH", "/vm", body, timeout_ms(timeout_ns), NULL, e);
}

static const struct each_verb verb = {
	.name = "resume",
	.usage = "resume [--json] [--timeout TIME] ID...",
	.summary = "Lets paused VMs go on. Resuming a running VM does nothing.",
	.examples = "  kelvin resume web\n",
	.timeout_help = "how long to wait for a VM (default 10s)",
	.timeout_ns = 10000000000ull,
	.act = resume_vm,
};

int cmd_resume(int argc, char **argv)
{
	return run_each(&verb, argc, argv);
}
