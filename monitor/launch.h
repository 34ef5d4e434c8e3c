/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - what `run` and `restore` share: make the process that is the VM, and tell the caller
 * when it runs, when it is ready, or why not.
 *
 * A VM is a process in a jail, the child of one that keeps it (keeper.h). In the foreground this
 * process is the keeper. With --detach another is, in a session of its own, for all VMs of the
 * command, and this process ends as soon as each VM has said "started" (or "ready", with
 * --wait-ready) through a pipe; an error comes the same way, so the operator sees it. Without a
 * jail there is no keeper, and this process, or a child of it, becomes the VM.
 */
#ifndef KELVIN_MONITOR_LAUNCH_H
#define KELVIN_MONITOR_LAUNCH_H

#include "jailer/cgroup.h"
#include "monitor/machine_int.h"

struct launch {
	struct machine_spec spec;
	struct snap *snap;       /* NULL: boot; the process that becomes the VM closes it */
	unsigned count;          /* VMs to make; more than one only with detach */
	bool detach;
	bool wait_ready;
	u64 ready_timeout_ns;
	bool json;
	bool no_jail;
	struct cgroup_limits limits;
	bool limits_asked; /* some of them by the operator */
	bool no_limits;
	/* --disk and --net as given; `devices_later`: they change those of a snapshot. */
	const char *device_arg[DISKS_MAX + NETS_MAX];
	bool device_arg_is_disk[DISKS_MAX + NETS_MAX];
	unsigned device_arg_count;
	bool devices_later;
	uid_t first_id; /* of the first VM, in the jail; the others' follow. 0: choose, or none */
	int ids_fd;     /* holds these ids; -1 */
	struct jail_inherited inherited; /* from whoever started us */
};

/* "k" and 8 random hex digits. */
void random_id(char *out, size_t cap);

/* Returns the process's exit status; has printed what there is to say. */
int launch(struct launch *l);

#endif
