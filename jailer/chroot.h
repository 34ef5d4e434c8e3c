/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chroot.h - Firecracker's jailer: starts a monitor in a directory of its own, without privileges.
 *
 * For `kelvin jailer` only. The jail of kelvin's own VMs is another: it has no files at all.
 */
#ifndef KELVIN_JAILER_CHROOT_H
#define KELVIN_JAILER_CHROOT_H

#include "jailer/cgroup.h"
#include "jailer/privs.h"

#define JAIL_ID_MAX 64u

/* What the operator asked for. Paths are his, and may have symbolic links. */
struct chroot_spec {
	const char *id;        /* as jail_check_id() wants it */
	const char *exec_file; /* of the monitor */
	const char *base;      /* an existing directory */
	const char *netns;     /* NULL: stay in this one */
	const char *parent;    /* of the cgroup; NULL: named as the monitor */
	uid_t uid;
	gid_t gid;
	bool daemonize, new_pid_ns;
	bool join_parent; /* without limits: enter @parent itself, on cgroup v2 */
	struct cgroup_limits limits;
	struct jail_rlimits rlimits;
	char *const *extra; /* arguments for the monitor, NULL at the end */
	u64 start_us, start_cpu_us; /* CLOCK_MONOTONIC and CPU time when this process began */
};

/* 1 to 64 of [A-Za-z0-9-], and no "-" in front. */
int jail_check_id(const char *id, struct err *e);

/*
 * Makes the jail and becomes the monitor in it, in this process, which has one thread. With
 * daemonize or new_pid_ns the monitor is a child, and 0 is returned when it runs. On failure what
 * was made is removed again, so long as this process has the privileges for it; the message says
 * if not. Closes all descriptors but 0-2, moves the process between namespaces: whoever calls this
 * has nothing else to do.
 */
int chroot_run(const struct chroot_spec *spec, struct err *e);

#endif
