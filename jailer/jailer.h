/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jailer.h - what a VM process gives up before it runs a guest.
 *
 * Today: no new privileges, no memory dumps, no group or world access to files it makes, no
 * descriptors of its parent. It still runs as its caller, sees the whole file system and may make
 * any system call (README.md).
 */
#ifndef KELVIN_JAILER_H
#define KELVIN_JAILER_H

#include "monitor/base/err.h"

/*
 * For the whole process and all it starts, without a way back: exec gains no privileges
 * (no_new_privs), no core dumps, new files are for the owner only (umask 077); for the process
 * alone: not dumpable, so that others of the same user can neither trace it nor read its guest's
 * memory. The last also makes its /proc/self belong to root: open what is needed there before.
 * Call before threads are made.
 */
int jail_harden(struct err *e);

/*
 * Closes every descriptor but 0, 1, 2 and the @n in @keep, which must be open (the operator named
 * them). Call first of all, before descriptors of our own exist.
 */
int jail_close_inherited(const int *keep, unsigned n, struct err *e);

#endif
