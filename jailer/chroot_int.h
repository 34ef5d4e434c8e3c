/* SPDX-License-Identifier: Apache-2.0 */
/* chroot_int.h - shared by the files that implement chroot.h */
#ifndef KELVIN_JAILER_CHROOT_INT_H
#define KELVIN_JAILER_CHROOT_INT_H

#include <limits.h>

#include "jailer/chroot.h"

/* BASE/NAME/ID/root while it is made; all work on it goes through these descriptors. */
struct chroot_tree {
	char name[NAME_MAX + 1]; /* of the monitor's file */
	char path[PATH_MAX];     /* for messages */
	int exec_fd, base_fd;
	int name_fd, id_fd, root_fd;
	bool made_id, made_root, made_exec, made_pid; /* by us: what undoing removes */
	bool made_dev, made_run;
};

/* Opens the monitor and the base directory. Nothing is changed. */
int chroot_open(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e);

/*
 * Makes the tree. Until chroot_publish() its root is for root alone, mode 0700, so that nothing in
 * it is in reach of the uid, however far this came.
 */
int chroot_make(struct chroot_tree *t, const struct chroot_spec *spec, struct err *e);
int chroot_write_pid(struct chroot_tree *t, pid_t pid, struct err *e);
int chroot_publish(const struct chroot_tree *t, const struct chroot_spec *spec, struct err *e);

/* Removes what was made. True if all of it is gone. */
bool chroot_undo(struct chroot_tree *t, const struct chroot_spec *spec);

/* New mount, IPC and UTS namespaces; @root_fd becomes the root and nothing else is mounted. */
int chroot_enter(int root_fd, struct err *e);

#endif
