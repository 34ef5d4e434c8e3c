/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harden.c - the measures that cost next to nothing and are always on.
 *
 * Each is one system call on the process itself: no privileges are needed, nothing on the host is
 * changed, and together they take a few microseconds.
 */
#include "jailer/jailer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/types.h"

int jail_harden(struct err *e)
{
	const struct rlimit none = {0, 0};

	/* A guest that took over this process must not gain by starting a setuid program. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_sys(e, errno, "cannot give up gaining privileges (no_new_privs)");
	/* Guest memory must not end in a core file, nor be read by others of the same user. */
	if (setrlimit(RLIMIT_CORE, &none))
		return err_sys(e, errno, "cannot switch core dumps off (RLIMIT_CORE)");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return err_sys(e, errno, "cannot protect the process's memory (PR_SET_DUMPABLE)");
	/* Sockets and logs are for the owner only. */
	umask(077);
	return 0;
}

/* The smallest kept descriptor from @from on, or INT_MAX. */
static int next_kept(const int *keep, unsigned n, int from)
{
	int best = INT_MAX;

	for (unsigned i = 0; i < n; i++)
		if (keep[i] >= from && keep[i] < best)
			best = keep[i];
	return best;
}

int jail_note_inherited(struct jail_inherited *ret, struct err *e)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *ent;
	int r = 0;

	ret->n = 0;
	if (!d)
		return 0; /* in a chroot; whoever made that saw to descriptors, too */
	while (!r && (ent = readdir(d))) {
		int fd = (int)strtol(ent->d_name, NULL, 10);

		if (fd <= STDERR_FILENO || fd == dirfd(d))
			continue;
		if (ret->n == ARRAY_SIZE(ret->fd))
			r = err_set(e, -EMFILE, "more than %zu descriptors were open at the start",
				ARRAY_SIZE(ret->fd));
		else
			ret->fd[ret->n++] = fd;
	}
	closedir(d);
	return r;
}

int jail_close_inherited(const int *keep, unsigned n, struct err *e)
{
	int from = 3;

	for (unsigned i = 0; i < n; i++)
		if (fcntl(keep[i], F_GETFD) < 0)
			return err_sys(e, errno, "descriptor %d was not handed to this process",
				keep[i]);
	for (;;) {
		int kept = next_kept(keep, n, from);

		if (kept > from && close_range((unsigned)from, (unsigned)kept - 1, 0))
			return err_sys(e, errno,
				"cannot close inherited descriptors (close_range)");
		if (kept == INT_MAX)
			return 0;
		from = kept + 1;
	}
}
