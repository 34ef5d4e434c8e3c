/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup.h - a control group for each VM: what the host lets it use of memory, tasks, processors.
 *
 * A group is PARENT/NAME below the mount point of each hierarchy that a limit needs: one for all
 * controllers with cgroup v2, one a controller with v1, or a mix of both. Limits are files, named
 * as the kernel names them. Nothing here keeps state: two processes may work under one parent.
 * All functions may block for as long as the kernel takes; cgroup_remove() sleeps besides.
 */
#ifndef KELVIN_JAILER_CGROUP_H
#define KELVIN_JAILER_CGROUP_H

#include "monitor/base/err.h"
#include "monitor/base/sys.h"
#include "monitor/base/types.h"

#define CGROUP_PARENT     "kelvin" /* unless the operator names another */
#define CGROUP_NAME_MAX   64u
#define CGROUP_FILE_MAX   63u
#define CGROUP_VALUE_MAX  255u
#define CGROUP_LIMITS_MAX 32u

/* Where cgroups are; tests have their own. */
struct cgroup_host {
	const char *root;      /* "/sys/fs/cgroup" */
	const char *mountinfo; /* "/proc/self/mountinfo", for hierarchies mounted elsewhere */
	const struct sys_ops *sys;
};

extern const struct cgroup_host cgroup_host_real;

struct cgroup_limits {
	bool no_swap; /* memory.max is a limit for swap, too, where the kernel counts that */
	unsigned n;
	struct {
		char file[CGROUP_FILE_MAX + 1];
		char value[CGROUP_VALUE_MAX + 1];
	} v[CGROUP_LIMITS_MAX + 2]; /* written in this order; the operator's and two defaults */
};

/*
 * Adds "FILE=VALUE" ("memory.max=200M"), in the place of an earlier one of that FILE. FILE is
 * CONTROLLER.NAME, and no path. memory.max, pids.max and cpu.max mean the same on v1, where they
 * become memory.limit_in_bytes, pids.max, cpu.cfs_period_us and cpu.cfs_quota_us; other names are
 * for the version that has them.
 */
int cgroup_parse(const char *text, struct cgroup_limits *l, struct err *e);

/*
 * Adds memory.max and pids.max for a VM of @ram bytes and @vcpus threads, each unless it is in @l
 * already, by its v1 name or by its v2 name; and no_swap unless @l says something about swap.
 */
void cgroup_default_limits(u64 ram, unsigned vcpus, struct cgroup_limits *l);

/* "a/b": relative, without "." and ".." and empty parts. */
int cgroup_check_parent(const char *parent, struct err *e);

/* A group that was made. Zeroed, it is none. */
struct cgroup {
	/* private */
	const struct cgroup_host *host;
	char name[CGROUP_NAME_MAX + 1];
	unsigned n;
	struct cgroup_at {
		char controller[32];
		int parent, dir; /* owned */
		bool v2;
		bool made; /* false: another controller in the same hierarchy made it */
	} at[CGROUP_LIMITS_MAX + 2];
};

/*
 * Makes @parent (where it is not there yet) and @parent/@name in each hierarchy that @l names a
 * controller of, and writes the limits. A group of that name without processes is what a VM that
 * was killed left: it is replaced; one with processes is -EEXIST. On failure the group is removed
 * again, and the message names the file and value, or the controller. No limits, no group: succeeds
 * with an empty @ret. Release with cgroup_close().
 */
int cgroup_create(const struct cgroup_host *h, const char *parent, const char *name,
	const struct cgroup_limits *l, struct cgroup *ret, struct err *e);

/*
 * The descriptor for clone3(CLONE_INTO_CGROUP), owned by @g; -1 if there is none because a
 * controller is on v1: then the child calls cgroup_join().
 */
int cgroup_fd(const struct cgroup *g);

/* Moves the calling process, which must have one thread, into the group. */
int cgroup_join(const struct cgroup *g, struct err *e);
/*
 * The same for a process that sees no cgroups: writing "0" to each of these descriptors takes the
 * writer in. Returns how many there are, at most @cap; the caller owns them. Only a process itself
 * is quick to join: putting another in takes a lock against all forks of the host.
 */
int cgroup_join_fds(const struct cgroup *g, int *ret, unsigned cap, struct err *e);

/*
 * Moves the calling process, which must have one thread, into @parent itself, which exists, of the
 * cgroup v2 hierarchy. A host with v1 alone has none: nothing is done.
 */
int cgroup_join_parent(const struct cgroup_host *h, const char *parent, struct err *e);

/* Whether the kernel killed something in the group because it reached its limit of memory. */
bool cgroup_ran_out(const struct cgroup *g);

/*
 * Removes the group, from outside it. What is still in it is killed; waits for that up to a second,
 * -EBUSY after it. The group's directory may be gone already. Closes @g.
 */
int cgroup_remove(struct cgroup *g, struct err *e);

/* Lets go of the descriptors; the group stays. Idempotent. */
void cgroup_close(struct cgroup *g);

struct cgroup_names {
	char (*v)[CGROUP_NAME_MAX + 1]; /* owned: free() */
	unsigned n;
};

/*
 * The groups below @parent without a process in any hierarchy, each once, in no order. One that is
 * just being made is among them: the caller must know which names are in use. A @parent that is
 * nowhere has none.
 */
int cgroup_leftovers(const struct cgroup_host *h, const char *parent, struct cgroup_names *ret,
	struct err *e);

/* Removes the group @parent/@name of whoever made it, in all hierarchies; kills nothing. */
int cgroup_remove_leftover(const struct cgroup_host *h, const char *parent, const char *name,
	struct err *e);

#endif
