/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - what `run` and `restore` share: make the process that is the VM, and tell the caller
 * when it runs, when it is ready, or why not.
 *
 * In the foreground this process becomes the VM. With --detach a child does, in a session of its
 * own, and this process ends as soon as the child has said "started" (or "ready", with
 * --wait-ready) through a pipe; an error comes the same way, so the operator sees it.
 */
#ifndef KELVIN_MONITOR_LAUNCH_H
#define KELVIN_MONITOR_LAUNCH_H

#include "monitor/machine_int.h"

struct launch {
	struct machine_spec spec;
	const struct snap *snap; /* NULL: boot */
	unsigned count;          /* VMs to make; more than one only with detach */
	bool detach;
	bool wait_ready;
	u64 ready_timeout_ns;
	bool json;
	/* --disk and --net as given; `devices_later`: they change those of a snapshot. */
	const char *device_arg[DISKS_MAX + NETS_MAX];
	bool device_arg_is_disk[DISKS_MAX + NETS_MAX];
	unsigned device_arg_count;
	bool devices_later;
};

/* "k" and 8 random hex digits. */
void random_id(char *out, size_t cap);

/* Returns the process's exit status; has printed what there is to say. */
int launch(struct launch *l);

#endif
