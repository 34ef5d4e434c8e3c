/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privs.h - giving up what the kernel grants a process: ids, capabilities, resources.
 *
 * For a process with one thread: the system calls here act on the calling thread, and threads that
 * exist already would keep what they have. The order is rlimits, keyring, ids, capabilities. There
 * is no way back, and half done is not undone: whoever gets an error must end the process.
 */
#ifndef KELVIN_JAILER_PRIVS_H
#define KELVIN_JAILER_PRIVS_H

#include <sys/types.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define JAIL_RLIM_KEEP UINT64_MAX /* leave as inherited */

struct jail_rlimits {
	u64 nofile; /* descriptors */
	u64 fsize;  /* bytes of a file it writes */
	u64 nproc;  /* threads of the user id, all its processes together */
};

/* Both the soft and the hard limits; core dumps are switched off besides. */
int jail_rlimits(const struct jail_rlimits *l, struct err *e);

/*
 * A session keyring of its own, empty: whoever was in the old one could read what the login has put
 * there (tickets, disk keys), whatever its ids are. Call before jail_drop_ids(), so that it is not
 * of the new user's quota.
 */
int jail_drop_keyring(struct err *e);

/*
 * No supplementary groups, and real, effective, saved and file-system ids are @uid and @gid, which
 * is read back. The permitted capabilities stay, for jail_drop_caps(), which must follow. The
 * kernel clears PR_SET_PDEATHSIG and the dumpable flag here.
 */
int jail_drop_ids(uid_t uid, gid_t gid, struct err *e);

/*
 * Ambient, effective, permitted and inheritable sets become empty, and so does the bounding set,
 * which is read back. A process that may not change its bounding set (no CAP_SETPCAP) keeps it:
 * with no_new_privs nothing in it can be had.
 */
int jail_drop_caps(struct err *e);

#endif
