/* SPDX-License-Identifier: Apache-2.0 */
/* snap_fix.c - see snap_fix.h */
#include "tests/lib/snap_fix.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "tests/lib/tmpdir.h"

void snap_fix_fill(struct mem *m, u8 seed)
{
	const u64 page[] = {0, 1, 2, 37, SNAP_FIX_SIZE / MEM_PAGE - 1};
	u8 buf[MEM_PAGE];

	for (size_t i = 0; i < ARRAY_SIZE(page); i++) {
		memset(buf, seed + (int)i, sizeof(buf));
		assert_true(mem_write(m, page[i] * MEM_PAGE, buf, sizeof(buf)));
	}
}

int snap_pair_begin(struct snap_pair *p, const struct sys_ops *sys, const char *dir, bool force,
	struct err *e)
{
	int state_fd = -1, memory_fd = -1, r;

	*p = (struct snap_pair){0};
	r = snap_dir_create(&p->dir, sys, dir, force, e);
	if (!r)
		r = snap_dir_host(p->dir, SNAP_FIX_HOST, sizeof(SNAP_FIX_HOST) - 1, e);
	if (!r)
		r = snap_dir_file(p->dir, SNAP_STATE_FILE, &state_fd, e);
	if (!r)
		r = snap_dir_file(p->dir, SNAP_MEMORY_FILE, &memory_fd, e);
	if (!r)
		return snap_create(&p->w, sys, dir, state_fd, memory_fd, e);
	if (state_fd >= 0)
		sys->close(state_fd);
	snap_dir_abort(&p->dir);
	return r;
}

int snap_pair_commit(struct snap_pair *p, struct err *e)
{
	int r = snap_finish(&p->w, e);

	assert_null(p->w);
	if (!r)
		r = snap_dir_commit(&p->dir, e);
	else
		snap_dir_abort(&p->dir);
	assert_null(p->dir);
	return r;
}

void snap_pair_abort(struct snap_pair *p)
{
	snap_abort(&p->w);
	snap_dir_abort(&p->dir);
	assert_null(p->w);
	assert_null(p->dir);
}

int snap_fix_write(const char *dir, const struct mem *m, bool force, struct err *e)
{
	struct snap_pair p;
	int r = snap_pair_begin(&p, &sys_host, dir, force, e);

	if (r)
		return r;
	assert_int_equal(snap_add(p.w, "vm", 3, "hello", 5, e), 0);
	assert_int_equal(snap_add(p.w, "vcpu0", 1, "register", 8, e), 0);
	assert_int_equal(snap_add_memory(p.w, m, NULL, NULL, e), 0);
	assert_int_equal(snap_add(p.w, "empty", 0, NULL, 0, e), 0);
	return snap_pair_commit(&p, e);
}

int snap_fix_setup(void **state)
{
	struct snap_fix *f = calloc(1, sizeof(*f));
	struct err e = {0};

	f->top = tmpdir_make();
	snprintf(f->dir, sizeof(f->dir), "%s/snap", f->top);
	snprintf(f->state, sizeof(f->state), "%s/state", f->dir);
	snprintf(f->memory, sizeof(f->memory), "%s/memory", f->dir);
	assert_int_equal(mem_create(&f->mem, SNAP_FIX_SIZE, MEM_ANON, &e), 0);
	snap_fix_fill(f->mem, 1);
	assert_int_equal(snap_fix_write(f->dir, f->mem, false, &e), 0);
	*state = f;
	return 0;
}

int snap_fix_teardown(void **state)
{
	struct snap_fix *f = *state;

	mem_destroy(&f->mem);
	tmpdir_remove(f->top);
	free(f->top);
	free(f);
	return 0;
}

void snap_fix_same(const struct snap *s, const struct mem *m)
{
	u8 got[16 * MEM_PAGE];

	for (u64 off = 0; off < m->size; off += sizeof(got)) {
		u64 len = m->size - off < sizeof(got) ? m->size - off : sizeof(got);

		assert_int_equal(pread(snap_mem_fd(s), got, len, (off_t)off), (ssize_t)len);
		assert_memory_equal(got, mem_at(m, off, len), len);
	}
}
