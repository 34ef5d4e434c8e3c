/* SPDX-License-Identifier: Apache-2.0 */
/* dir_int.h - the temporary directory of a writer, and how it becomes the snapshot. */
#ifndef KELVIN_SNAPSHOT_DIR_INT_H
#define KELVIN_SNAPSHOT_DIR_INT_H

#include <limits.h>

#include "monitor/base/err.h"
#include "monitor/base/sys.h"
#include "monitor/base/types.h"

struct snap_dir {
	const struct sys_ops *sys;
	char *path; /* as the caller named the snapshot, for messages; owned */
	bool force; /* an older snapshot of that name may be replaced */
	int parent_fd;
	int tmp_fd; /* -1 once published or discarded; holds the lock */
	char name[NAME_MAX + 1];
	char tmp_name[NAME_MAX + 1];
};

/* Fills *@d: refuses a name that is taken, sweeps, makes and locks the temporary directory. */
int snap_dir_create(struct snap_dir *d, const struct sys_ops *sys, const char *path, bool force,
	struct err *e);

/*
 * Gives the temporary directory, whose files are synced, its final name and makes that durable.
 * On failure the name is what it was and the temporary directory remains to be discarded.
 */
int snap_dir_publish(struct snap_dir *d, struct err *e);

/* Removes the temporary directory if there is one, closes everything. Fine on a zeroed *@d. */
void snap_dir_discard(struct snap_dir *d);

#endif
