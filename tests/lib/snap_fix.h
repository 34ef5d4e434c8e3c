/* SPDX-License-Identifier: Apache-2.0 */
/* snap_fix.h - a cmocka fixture: guest RAM with a little in it, and a good snapshot of it. */
#ifndef KELVIN_TESTS_SNAP_FIX_H
#define KELVIN_TESTS_SNAP_FIX_H

#include "snapshot/snapshot.h"

#define SNAP_FIX_SIZE (MEM_MIN_SIZE + 3 * MEM_PAGE) /* 33 chunks, the last one short */

struct snap_fix {
	char *top;     /* the test's own directory */
	char dir[256]; /* the snapshot in it */
	char state[300];
	char memory[300];
	struct mem *mem;
};

int snap_fix_setup(void **state);
int snap_fix_teardown(void **state);

/*
 * Writes pages 0..2, one in the middle of a chunk and the last of all; leaves the others alone.
 * @seed tells one content from another.
 */
void snap_fix_fill(struct mem *m, u8 seed);

/* The whole way from snap_create() to snap_commit() with three sections: vm, vcpu0, empty. */
int snap_fix_write(const char *dir, const struct mem *m, bool force, struct err *e);

/* The snapshot's memory is what @m holds. */
void snap_fix_same(const struct snap *s, const struct mem *m);

#endif
