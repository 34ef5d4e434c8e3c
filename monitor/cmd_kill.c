/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_kill.c - kelvin kill: end a VM now, whatever state it or its monitor is in.
 *
 * First by its API; a monitor that does not answer gets SIGKILL. What a dead VM left is removed.
 */
#include <errno.h>
#include <stdio.h>

#include "monitor/base/cleanup.h"
#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"

static int kill_hard(const char *id, struct err *e)
{
	pid_t pid;
	int r = vm_kill_process(id, &pid, e);

	if (r)
		return r;
	fprintf(stderr, "kelvin: VM \"%s\" did not answer: its monitor was ended by SIGKILL\n", id);
	return vm_sweep(id, pid, e);
}

static int kill_vm(const char *id, u64 timeout_ns, struct err *e)
{
	json_auto_t *body = json_object();
	_cleanup_fd_ int proc = -1;
	enum vm_there there;
	pid_t pid;
	int r = vm_id_check(id, e);

	if (r)
		return r;
	there = vm_look(id, NULL);
	if (there == VM_DEAD)
		vm_kill_process(id, NULL, NULL); /* or it lives, and its keeper does not */
	if (there == VM_DEAD || there == VM_ENDED)
		return vm_sweep(id, 0, e);
	proc = vm_open_process(id, &pid, NULL);
	r = client_call(id, "PUT", "/kelvin/kill", body, timeout_ms(timeout_ns), NULL, e);
	if (there != VM_LIVES)
		return r;
	if ((r && r != -EPIPE) || vm_wait_gone(id, pid, timeout_ns, e))
		r = vm_look(id, NULL) == VM_LIVES ? kill_hard(id, e) : vm_sweep(id, 0, e);
	else
		r = 0;
	/* A captive may only have said that it ends. */
	return r || proc < 0 ? r : vm_end_process(id, proc, pid, e);
}

static const struct each_verb verb = {
	.name = "kill",
	.usage = "kill [--json] [--timeout TIME] ID...",
	.summary = "Ends VMs now. A VM whose monitor does not answer is ended by SIGKILL, and\n"
		   "what it left in the directory of running VMs is removed; so is what VMs left\n"
		   "that died or ended before.",
	.examples = "  kelvin kill web\n"
		    "  kelvin ps --json | jq -r '.[].id' | xargs -r kelvin kill    # all\n"
		    "  kelvin gc                          # only what dead VMs left\n",
	.timeout_help = "how long to wait before SIGKILL (default 2s)",
	.timeout_ns = 2000000000ull,
	.act = kill_vm,
};

int cmd_kill(int argc, char **argv)
{
	return run_each(&verb, argc, argv);
}
