/* SPDX-License-Identifier: Apache-2.0 */
/* tree_int.h - what the two directions of a tree share. */
#ifndef KELVIN_BASE_TREE_INT_H
#define KELVIN_BASE_TREE_INT_H

#include "monitor/base/tree.h"

/* Adds a component to t->path. Returns the length before, for tree_leave(). */
u32 tree_enter(struct tree *t, const char *name);
void tree_leave(struct tree *t, u32 len);

#endif
