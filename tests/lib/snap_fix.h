/* SPDX-License-Identifier: Apache-2.0 */
/* snap_fix.h - a cmocka fixture: guest RAM with a little in it, and a good snapshot of it. */
#ifndef KELVIN_TESTS_SNAP_FIX_H
#define KELVIN_TESTS_SNAP_FIX_H

#include "snapshot/snapshot.h"

#define SNAP_FIX_SIZE (MEM_MIN_SIZE + 3 * MEM_PAGE) /* 33 chunks, the last one short */

#define SNAP_FIX_HOST "what the host says"

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

/* Both halves of a snapshot in one process: the directory, and the writer of its files. */
struct snap_pair {
	struct snap_dir *dir;
	struct snap_writer *w;
};

/* snap_dir_create(), the file host, the other two, snap_create(). Nothing is left where it fails. */
int snap_pair_begin(struct snap_pair *p, const struct sys_ops *sys, const char *dir, bool force,
	struct err *e);
/* snap_finish(), and snap_dir_commit() if that went well. */
int snap_pair_commit(struct snap_pair *p, struct err *e);
void snap_pair_abort(struct snap_pair *p);

/* The whole way with three sections: vm, vcpu0, empty. */
int snap_fix_write(const char *dir, const struct mem *m, bool force, struct err *e);

/* The snapshot's memory is what @m holds. */
void snap_fix_same(const struct snap *s, const struct mem *m);

#endif
