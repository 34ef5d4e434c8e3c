/* SPDX-License-Identifier: Apache-2.0 */
/*
 * landlock.c - no file is opened any more, by whatever path or descriptor of a directory.
 *
 * Landlock asks for no privileges, so this holds too where namespaces could not be had; where they
 * were, it is a second lock on the same door. What is open stays usable. The kernel's interface has
 * grown: each version adds rights that can be denied, and asking an old kernel for new ones fails.
 */
#include "jailer/jail_int.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"

/* From <linux/landlock.h>, of which distributions have old versions. */
struct ruleset_attr {
	u64 handled_access_fs, handled_access_net, scoped;
};
#define CREATE_RULESET_VERSION 1u
#define NET_ALL                3u /* TCP: bind, connect */
#define SCOPED_ALL             3u /* abstract unix sockets, signals */

/* How many rights to files version i + 1 knows. */
static const unsigned fs_rights[] = {13, 14, 15, 15, 16};

static int abi_version(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
}

int jail_landlock(int *ret_abi, struct err *e)
{
	int abi = abi_version();
	unsigned known = (unsigned)ARRAY_SIZE(fs_rights), last;
	struct ruleset_attr attr = {0};
	_cleanup_fd_ int fd = -1;

	*ret_abi = 0;
	if (abi < 1 && (errno == ENOSYS || errno == EOPNOTSUPP))
		return 0; /* not in this kernel, or switched off: said by the report */
	if (abi < 1)
		return err_sys(e, errno, "cannot ask for Landlock's version");
	last = (unsigned)abi < known ? (unsigned)abi - 1 : known - 1;
	attr.handled_access_fs = (1u << fs_rights[last]) - 1;
	attr.handled_access_net = abi >= 4 ? NET_ALL : 0;
	attr.scoped = abi >= 6 ? SCOPED_ALL : 0;
	/* No rule is added: all that is handled is denied. */
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0))
		return err_sys(e, errno, "cannot deny access to files (Landlock version %d)", abi);
	*ret_abi = abi;
	return 0;
}
