/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup_int.h - shared by the files that implement cgroup.h */
#ifndef KELVIN_JAILER_CGROUP_INT_H
#define KELVIN_JAILER_CGROUP_INT_H

#include "jailer/cgroup.h"

/* What a limit is called on the host: up to two files, in the order to write them. */
struct cgroup_files {
	unsigned n;
	struct {
		const char *file;
		char value[CGROUP_VALUE_MAX + 1];
	} v[2];
};

void cgroup_translate(const char *file, const char *value, bool v2, struct cgroup_files *ret);

/* One component of a path below a hierarchy. */
bool cgroup_name_ok(const char *name);

/* Opens the directory where @controller's hierarchy is mounted. The caller owns the descriptor. */
int cgroup_locate(const struct cgroup_host *h, const char *controller, int *ret, bool *v2,
	struct err *e);

/* The root of v2, with or without controllers; the caller owns it. False: not mounted. */
bool cgroup_open_v2(const struct cgroup_host *h, int *ret);

/* Calls @fn with the path of each mounted hierarchy until it fails; its result is the result. */
int cgroup_each_mount(const struct cgroup_host *h, int (*fn)(void *ctx, const char *path, bool v2,
	const char *controllers), void *ctx, struct err *e);

/* Whether @list ("cpu,memory" or "cpu memory\n") has @word. */
bool cgroup_has_word(const char *list, const char *word);

/* The first bytes of a file with a NUL; 0 or -errno. */
int cgroup_read(const struct sys_ops *sys, int dir, const char *file, char *buf, size_t cap);

#endif
