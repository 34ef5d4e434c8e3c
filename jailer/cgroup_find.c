/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_find.c - where hierarchies are mounted, and groups that nobody lives in.
 *
 * Starting a VM looks where all distributions mount them: v2 on the root, v1 in a directory a
 * controller, and v2 beside v1 in "unified"; each is known by the files that only the kernel puts
 * there. A few opens tell, however many mounts a host has. Only if that fails is the mount table
 * read, for hosts that mount them elsewhere. Collecting leftovers always reads the table.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jailer/cgroup_int.h"
#include "monitor/base/cleanup.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

const struct cgroup_host cgroup_host_real = {
	.root = "/sys/fs/cgroup",
	.mountinfo = "/proc/self/mountinfo",
	.sys = &sys_host,
};

int cgroup_read(const struct sys_ops *sys, int dir, const char *file, char *buf, size_t cap)
{
	int fd = sys->openat(dir, file, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	n = sys->pread(fd, buf, cap - 1, 0);
	r = n < 0 ? -errno : 0;
	sys->close(fd);
	buf[n < 0 ? 0 : n] = 0;
	return r;
}

static bool has_controller(const struct sys_ops *sys, int dir, const char *file, const char *name)
{
	char list[512];

	return cgroup_read(sys, dir, file, list, sizeof(list)) == 0 && cgroup_has_word(list, name);
}

static bool is_group(const struct sys_ops *sys, int dir)
{
	int fd = sys->openat(dir, "cgroup.procs", O_PATH | O_CLOEXEC, 0);

	if (fd >= 0)
		sys->close(fd);
	return fd >= 0;
}

/* A mount point's text, in which the kernel writes space, tab, newline and \ as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
}

/* "id parent dev root POINT options... - TYPE source OPTIONS" */
static bool parse_mount(char *line, char **point, char **type, char **options)
{
	char *dash = strstr(line, " - ");
	char *save, *p = line;

	if (!dash)
		return false;
	*dash = 0;
	for (unsigned i = 0; i < 4 && p; i++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	*point = p ? strtok_r(p, " ", &save) : NULL;
	*type = strtok_r(dash + 3, " ", &save);
	(void)strtok_r(NULL, " ", &save);
	*options = strtok_r(NULL, " \n", &save);
	return *point && *type && *options;
}

int cgroup_each_mount(const struct cgroup_host *h, int (*fn)(void *ctx, const char *path, bool v2,
	const char *controllers), void *ctx, struct err *e)
{
	FILE *f = fopen(h->mountinfo, "re");
	_cleanup_free_ char *line = NULL;
	char *point, *type, *options;
	size_t cap = 0;
	int r = 0;

	if (!f)
		return err_sys(e, errno, "cannot read the mount table %s", h->mountinfo);
	while (r == 0 && getline(&line, &cap, f) > 0) {
		if (!parse_mount(line, &point, &type, &options))
			continue;
		unescape(point);
		if (strcmp(type, "cgroup2") == 0)
			r = fn(ctx, point, true, "");
		else if (strcmp(type, "cgroup") == 0)
			r = fn(ctx, point, false, options);
	}
	fclose(f);
	return r;
}

struct search {
	const struct cgroup_host *h;
	const char *controller;
	int fd;
	bool v2;
};

static int look_at_mount(void *ctx, const char *path, bool v2, const char *controllers)
{
	struct search *s = (struct search *)ctx;
	int fd;

	if (!v2 && !cgroup_has_word(controllers, s->controller))
		return 0;
	fd = s->h->sys->openat(AT_FDCWD, path, DIR_FLAGS, 0);
	if (fd < 0)
		return 0;
	if (v2 && !has_controller(s->h->sys, fd, "cgroup.controllers", s->controller)) {
		s->h->sys->close(fd);
		return 0;
	}
	s->fd = fd;
	s->v2 = v2;
	return 1;
}

/* The usual places. Returns the descriptor, or -1. */
static int look_below(const struct sys_ops *sys, int root, const char *controller, bool *v2)
{
	int fd;

	*v2 = true;
	if (has_controller(sys, root, "cgroup.controllers", controller))
		return sys->openat(root, ".", DIR_FLAGS, 0);
	*v2 = false;
	fd = sys->openat(root, controller, DIR_FLAGS, 0);
	if (fd >= 0 && is_group(sys, fd))
		return fd;
	if (fd >= 0)
		sys->close(fd);
	*v2 = true;
	fd = sys->openat(root, "unified", DIR_FLAGS, 0);
	if (fd >= 0 && has_controller(sys, fd, "cgroup.controllers", controller))
		return fd;
	if (fd >= 0)
		sys->close(fd);
	return -1;
}

int cgroup_locate(const struct cgroup_host *h, const char *controller, int *ret, bool *v2,
	struct err *e)
{
	struct search s = {.h = h, .controller = controller, .fd = -1};
	int root = h->sys->openat(AT_FDCWD, h->root, DIR_FLAGS, 0);

	if (root >= 0) {
		s.fd = look_below(h->sys, root, controller, &s.v2);
		h->sys->close(root);
	}
	if (s.fd < 0)
		cgroup_each_mount(h, look_at_mount, &s, NULL);
	if (s.fd < 0)
		return err_set(e, -ENOENT, "cgroup controller %s is not mounted: neither below %s "
			"nor elsewhere by %s", controller, h->root, h->mountinfo);
	*ret = s.fd;
	*v2 = s.v2;
	return 0;
}

static int take_v2(void *ctx, const char *path, bool v2, const char *controllers)
{
	struct search *s = (struct search *)ctx;

	s->fd = v2 ? s->h->sys->openat(AT_FDCWD, path, DIR_FLAGS, 0) : -1;
	return s->fd >= 0;
}

bool cgroup_open_v2(const struct cgroup_host *h, int *ret)
{
	struct search s = {.h = h, .fd = -1};

	cgroup_each_mount(h, take_v2, &s, NULL);
	*ret = s.fd;
	return s.fd >= 0;
}

/* A name found below a parent in some hierarchy, and whether processes are in it in any. */
struct found {
	char name[CGROUP_NAME_MAX + 1];
	bool busy;
};

struct collect {
	const struct cgroup_host *h;
	const char *parent;
	struct found *v;
	unsigned n;
	bool oom;
};

static void collect_one(struct collect *c, const char *name, bool busy)
{
	struct found *v;

	for (unsigned i = 0; i < c->n; i++)
		if (strcmp(c->v[i].name, name) == 0) {
			c->v[i].busy |= busy;
			return;
		}
	v = (struct found *)realloc(c->v, (c->n + 1) * sizeof(*v));
	if (!v) {
		c->oom = true;
		return;
	}
	c->v = v;
	memcpy(v[c->n].name, name, strlen(name) + 1);
	v[c->n++].busy = busy;
}

static int open_parent(const struct sys_ops *sys, const char *mount, const char *parent)
{
	int root = sys->openat(AT_FDCWD, mount, DIR_FLAGS, 0);
	int fd = root < 0 ? -1 : sys->openat(root, parent, DIR_FLAGS, 0);

	if (root >= 0)
		sys->close(root);
	return fd;
}

static int collect_mount(void *ctx, const char *path, bool v2, const char *controllers)
{
	struct collect *c = (struct collect *)ctx;
	int fd = open_parent(c->h->sys, path, c->parent);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!d) {
		if (fd >= 0)
			c->h->sys->close(fd);
		return 0;
	}
	while ((entry = readdir(d))) {
		char file[sizeof(entry->d_name) + sizeof("/cgroup.procs")], procs[32];
		int r;

		if (entry->d_type != DT_DIR || !cgroup_name_ok(entry->d_name))
			continue;
		snprintf(file, sizeof(file), "%s/cgroup.procs", entry->d_name);
		r = cgroup_read(c->h->sys, fd, file, procs, sizeof(procs));
		if (r != -ENOENT) /* removed meanwhile */
			collect_one(c, entry->d_name, r < 0 || procs[0]);
	}
	closedir(d);
	return 0;
}

int cgroup_leftovers(const struct cgroup_host *h, const char *parent, struct cgroup_names *ret,
	struct err *e)
{
	struct collect c = {.h = h, .parent = parent};
	int r = cgroup_check_parent(parent, e);

	ret->v = NULL;
	ret->n = 0;
	r = r ? r : cgroup_each_mount(h, collect_mount, &c, e);
	if (r == 0 && c.n && !c.oom) {
		ret->v = (char (*)[CGROUP_NAME_MAX + 1])malloc(c.n * sizeof(*ret->v));
		c.oom = !ret->v;
	}
	if (c.oom)
		r = err_set(e, -ENOMEM, "no memory to list cgroups");
	for (unsigned i = 0; ret->v && i < c.n; i++)
		if (!c.v[i].busy)
			memcpy(ret->v[ret->n++], c.v[i].name, sizeof(*ret->v));
	free(c.v);
	return r;
}

struct removal {
	const struct cgroup_host *h;
	const char *parent, *name;
	struct err *e;
};

static int remove_in_mount(void *ctx, const char *path, bool v2, const char *controllers)
{
	struct removal *rm = (struct removal *)ctx;
	int fd = open_parent(rm->h->sys, path, rm->parent);
	int r = 0;

	if (fd < 0)
		return 0;
	if (rm->h->sys->unlinkat(fd, rm->name, AT_REMOVEDIR) && errno != ENOENT)
		r = err_sys(rm->e, errno, "cannot remove the cgroup %s/%s/%s", path, rm->parent,
			rm->name);
	rm->h->sys->close(fd);
	return r;
}

int cgroup_remove_leftover(const struct cgroup_host *h, const char *parent, const char *name,
	struct err *e)
{
	struct removal rm = {.h = h, .parent = parent, .name = name, .e = e};
	int r = cgroup_check_parent(parent, e);

	if (r)
		return r;
	if (!cgroup_name_ok(name))
		return err_set(e, -EINVAL, "\"%.100s\" is no name of a cgroup", name);
	return cgroup_each_mount(h, remove_in_mount, &rm, e);
}
