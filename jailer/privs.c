/* SPDX-License-Identifier: Apache-2.0 */
/* privs.c - see privs.h. The capability sets are asked for after they were set, not assumed. */
#include "jailer/privs.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_WORDS _LINUX_CAPABILITY_U32S_3

int jail_rlimits(const struct jail_rlimits *l, struct err *e)
{
	const struct {
		int resource;
		u64 value;
		const char *name;
	} limits[] = {
		{RLIMIT_CORE, 0, "RLIMIT_CORE"},
		{RLIMIT_NOFILE, l->nofile, "RLIMIT_NOFILE"},
		{RLIMIT_FSIZE, l->fsize, "RLIMIT_FSIZE"},
		{RLIMIT_NPROC, l->nproc, "RLIMIT_NPROC"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct rlimit r = {limits[i].value, limits[i].value};

		if (limits[i].value != JAIL_RLIM_KEEP && setrlimit(limits[i].resource, &r))
			return err_sys(e, errno, "cannot set %s to %llu", limits[i].name,
				(unsigned long long)limits[i].value);
	}
	return 0;
}

int jail_drop_keyring(struct err *e)
{
	/* A kernel may have been built without keys. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		return err_sys(e, errno, "cannot leave the session's keyring (keyctl)");
	return 0;
}

int jail_drop_ids(uid_t uid, gid_t gid, struct err *e)
{
	uid_t u[3];
	gid_t g[3];

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
		return err_sys(e, errno, "cannot prepare to change ids (PR_SET_KEEPCAPS)");
	if (setgroups(0, NULL))
		return err_sys(e, errno, "cannot leave the supplementary groups (setgroups)");
	if (setresgid(gid, gid, gid))
		return err_sys(e, errno, "cannot become group %u (setresgid)", gid);
	if (setresuid(uid, uid, uid))
		return err_sys(e, errno, "cannot become user %u (setresuid)", uid);
	if (getresuid(&u[0], &u[1], &u[2]) || getresgid(&g[0], &g[1], &g[2]))
		return err_sys(e, errno, "cannot read the ids back");
	for (unsigned i = 0; i < 3; i++)
		if (u[i] != uid || g[i] != gid)
			return err_set(e, -EPERM, "still user %u and group %u after the change",
				u[i], g[i]);
	if (getgroups(0, NULL) != 0)
		return err_set(e, -EPERM, "still in supplementary groups after leaving them");
	return 0;
}

static int caps_get(struct __user_cap_data_struct *sets)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};

	return (int)syscall(SYS_capget, &head, sets);
}

static int caps_set(const struct __user_cap_data_struct *sets)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};

	return (int)syscall(SYS_capset, &head, sets);
}

/* The kernel has as many capabilities as it tells about. */
static int drop_bounding(struct err *e)
{
	struct __user_cap_data_struct sets[CAP_WORDS];

	if (caps_get(sets))
		return err_sys(e, errno, "cannot read capabilities (capget)");
	if (!(sets[0].permitted & (1u << CAP_SETPCAP)))
		return 0;
	sets[0].effective |= 1u << CAP_SETPCAP; /* a change of ids cleared it */
	if (caps_set(sets))
		return err_sys(e, errno, "cannot use CAP_SETPCAP (capset)");
	for (int cap = 0; cap < 32 * CAP_WORDS; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) {
			if (errno == EINVAL && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) < 0)
				break;
			return err_sys(e, errno, "cannot drop capability %d (PR_CAPBSET_DROP)",
				cap);
		}
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
			return err_set(e, -EPERM, "capability %d is still in the bounding set",
				cap);
	}
	return 0;
}

int jail_drop_caps(struct err *e)
{
	struct __user_cap_data_struct sets[CAP_WORDS] = {0};
	int r = drop_bounding(e);

	if (r)
		return r;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return err_sys(e, errno, "cannot drop ambient capabilities");
	if (caps_set(sets))
		return err_sys(e, errno, "cannot drop capabilities (capset)");
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))
		return err_sys(e, errno, "cannot drop capabilities (PR_SET_KEEPCAPS)");
	if (caps_get(sets))
		return err_sys(e, errno, "cannot read capabilities back (capget)");
	for (unsigned i = 0; i < CAP_WORDS; i++)
		if (sets[i].effective | sets[i].permitted | sets[i].inheritable)
			return err_set(e, -EPERM, "capabilities are left after dropping them");
	return 0;
}
