/* SPDX-License-Identifier: Apache-2.0 */
/* jail_int.h - the steps of jail_enter(), each for one thread and without a way back. */
#ifndef KELVIN_JAIL_INT_H
#define KELVIN_JAIL_INT_H

#include "jailer/jailer.h"

/* Swaps the root for an empty one, in a mount namespace of our own. @mount_on is any directory. */
int jail_empty_root(const char *mount_on, struct err *e);
/* Denies all that Landlock can deny. *ret_abi: the kernel's version of it, 0 where it has none. */
int jail_landlock(int *ret_abi, struct err *e);

#endif
