/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.c - from a process that may do what its user may to one that may only run its guest.
 *
 * Theory of operation
 *
 * The process has opened all it will need (files, devices, sockets, KVM) and has one thread. It was
 * born into a new pid namespace (birth.c), and for a user other than root into a user namespace, in
 * which it has capabilities to spend here. What follows only takes away, in an order in which each
 * step still has the rights it needs:
 *
 *  1. the file systems: an empty root (root.c)
 *  2. the network, ipc and uts: namespaces with nothing in them; open taps and sockets go on
 *  3. resource limits, and the keys of the session
 *  4. the ids, for ones that nobody else has (root only)
 *  5. all capabilities
 *  6. gaining privileges, core dumps, being traced (harden.c)
 *  7. its life without its keeper
 *  8. files and signals once more, by Landlock
 *  9. the environment, which may hold what is the operator's alone
 *
 * System calls come after that (seccomp filters), one filter for each kind of thread. Whatever
 * cannot be done is an error and the guest never runs, but for two things: namespaces for a user
 * whose kernel does not grant them, and Landlock in a kernel without. `kelvin inspect` tells.
 */
#include "jailer/jail_int.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "jailer/privs.h"

/* Into namespaces that somebody else has emptied. The last takes the root along. */
static int enter_void(const struct jail_void *v, struct jail_report *ret, struct err *e)
{
	if (setns(v->fd[JAIL_VOID_NET], CLONE_NEWNET) ||
		setns(v->fd[JAIL_VOID_IPC], CLONE_NEWIPC) ||
		setns(v->fd[JAIL_VOID_UTS], CLONE_NEWUTS) ||
		setns(v->fd[JAIL_VOID_MOUNT], CLONE_NEWNS))
		return err_sys(e, errno, "cannot leave the host's namespaces (setns)");
	ret->layers |= JAIL_MOUNT | JAIL_NET | JAIL_IPC | JAIL_UTS | JAIL_ROOT;
	return 0;
}

/* Empties those that it was born into. */
static int make_own(const struct jail_plan *plan, struct jail_report *ret, struct err *e)
{
	int r = jail_empty_root(plan->mount_on, e);

	if (!r && unshare(CLONE_NEWNET))
		r = err_sys(e, errno, "cannot leave the host's network");
	ret->layers |= JAIL_ROOT | JAIL_NET;
	return r;
}

/*
 * Whether RLIMIT_NPROC is of this VM alone: of a user id that no other has, or of a user in a user
 * namespace. Before Linux 5.14 the latter counted all that the user runs on the host.
 */
static bool counted_alone(const struct jail_plan *plan)
{
	unsigned major, minor;
	struct utsname name;

	if (plan->id || !(plan->born & JAIL_USER))
		return plan->id;
	return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
		(major > 5 || (major == 5 && minor >= 14));
}

static int give_up_rights(const struct jail_plan *plan, struct jail_report *ret, struct err *e)
{
	struct rlimit now = {0};
	const struct jail_rlimits limits = {
		.nofile = getrlimit(RLIMIT_NOFILE, &now) || now.rlim_max > plan->nofile
			? plan->nofile : now.rlim_max,
		.fsize = JAIL_RLIM_KEEP,
		.nproc = counted_alone(plan) ? plan->nproc : JAIL_RLIM_KEEP,
	};
	int r = jail_rlimits(&limits, e);

	if (!r)
		ret->layers |= JAIL_LIMITS;
	if (!r)
		r = jail_drop_keyring(e);
	if (!r && plan->id) {
		r = jail_drop_ids(plan->id, plan->id, e);
		ret->layers |= JAIL_ID;
	}
	if (!r)
		r = jail_drop_caps(e);
	if (!r)
		ret->layers |= JAIL_CAPS;
	return r;
}

/* Overwritten, because the strings stay where the kernel put them. */
static void forget_environment(void)
{
	for (char **p = environ; p && *p; p++)
		explicit_bzero(*p, strlen(*p));
	clearenv();
}

int jail_enter(const struct jail_plan *plan, struct jail_report *ret, struct err *e)
{
	int r = 0;

	*ret = (struct jail_report){.layers = plan->born};
	if (plan->space)
		r = enter_void(plan->space, ret, e);
	else if (plan->born & JAIL_MOUNT)
		r = make_own(plan, ret, e);
	if (!r)
		r = give_up_rights(plan, ret, e);
	if (!r)
		r = jail_harden(e);
	/* After the ids were changed, which clears it. */
	if (!r && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		r = err_sys(e, errno, "cannot tie the VM's life to its keeper's");
	ret->layers |= JAIL_HARDENED | JAIL_DIES;
	if (!r)
		r = jail_landlock(&ret->landlock, e);
	if (!r && ret->landlock)
		ret->layers |= JAIL_LANDLOCK;
	forget_environment();
	ret->uid = getuid();
	ret->gid = getgid();
	return r;
}
