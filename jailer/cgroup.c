/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup.c - makes a group, fills it, takes it away.
 *
 * On the way of every VM's start: for memory and pids some twenty system calls. Groups are reached
 * by descriptors of their directories, so that what is mounted over /sys/fs/cgroup later, or hidden
 * by a pivot_root, does not matter to whoever made them.
 *
 * v2 wants each controller switched on in all groups above (cgroup.subtree_control), and no process
 * in a group with controllers switched on below it. v1's cpuset wants processors and memory nodes
 * named before a process may enter: they are taken from the group above.
 */
#include "jailer/cgroup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* Waits of 0.1, 0.2 ... 25.6 ms and then as many of those as make a second. */
#define REMOVE_WAIT_NS     100000l
#define REMOVE_WAIT_MAX_NS 25600000l
#define REMOVE_TRIES       46u

static int write_file(const struct sys_ops *sys, int dir, const char *file, const char *value)
{
	int fd = sys->openat(dir, file, O_WRONLY | O_TRUNC | O_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = sys->pwrite(fd, value, strlen(value), 0) < 0 ? -errno : 0;
	sys->close(fd);
	return r;
}

static const char *hint(int r)
{
	if (r == -EROFS)
		return " (cgroups are mounted read-only here: in a container?)";
	if (r == -EACCES || r == -EPERM)
		return " (wanted: root, or a parent that was delegated to this user)";
	if (r == -EBUSY)
		return " (processes live there; cgroup v2 wants them below it)";
	return "";
}

static int enable(const struct sys_ops *sys, int dir, const char *controller, const char *where,
	struct err *e)
{
	char word[40];
	int r;

	snprintf(word, sizeof(word), "+%s", controller);
	r = write_file(sys, dir, "cgroup.subtree_control", word);
	return r ? err_sys(e, -r, "cannot switch cgroup controller %s on in %s%s", controller,
		where, hint(r)) : 0;
}

/* A new cpuset is empty. The same again does no harm. */
static int inherit_cpuset(const struct sys_ops *sys, int from, int to, struct err *e)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		char now[1024], above[1024];
		int r = cgroup_read(sys, to, files[i], now, sizeof(now));

		if (r == 0 && now[0] && now[0] != '\n')
			continue;
		r = r ? r : cgroup_read(sys, from, files[i], above, sizeof(above));
		r = r ? r : write_file(sys, to, files[i], above);
		if (r)
			return err_sys(e, -r, "cannot pass %s on to a new cgroup", files[i]);
	}
	return 0;
}

/* Makes what is missing of the path, and on v2 switches the controller on all the way. */
static int make_parents(const struct sys_ops *sys, int root, const char *path,
	const struct cgroup_at *at, int *ret, struct err *e)
{
	int cur = sys->openat(root, ".", DIR_FLAGS, 0);
	const char *p = path;
	int r = 0;

	if (cur < 0)
		r = err_sys(e, errno, "cannot open the root of cgroup %s", at->controller);
	while (r == 0 && *p) {
		size_t n = strcspn(p, "/");
		char part[CGROUP_NAME_MAX + 1];
		int next = -1;

		memcpy(part, p, n);
		part[n] = 0;
		p += n + (p[n] == '/');
		r = at->v2 ? enable(sys, cur, at->controller, "the groups above", e) : 0;
		if (r == 0 && sys->mkdirat(cur, part, 0755) && errno != EEXIST)
			r = err_sys(e, errno, "cannot make the cgroup %s for %s%s", path,
				at->controller, hint(-errno));
		if (r == 0 && (next = sys->openat(cur, part, DIR_FLAGS, 0)) < 0)
			r = err_sys(e, errno, "cannot open the cgroup %s for %s", path,
				at->controller);
		if (r == 0 && !at->v2 && strcmp(at->controller, "cpuset") == 0)
			r = inherit_cpuset(sys, cur, next, e);
		sys->close(cur);
		cur = next;
	}
	if (r == 0 && at->v2)
		r = enable(sys, cur, at->controller, path, e);
	if (r && cur >= 0)
		sys->close(cur);
	else
		*ret = cur;
	return r;
}

static int open_parent(const struct cgroup_host *h, const char *path, struct cgroup_at *at,
	struct err *e)
{
	const struct sys_ops *sys = h->sys;
	char on[512];
	int root, r = cgroup_locate(h, at->controller, &root, &at->v2, e);

	if (r)
		return r;
	/* As a rule it is there, and the controller is on in it and so in all above. */
	at->parent = sys->openat(root, path, DIR_FLAGS, 0);
	if (at->parent >= 0 && at->v2 &&
		(cgroup_read(sys, at->parent, "cgroup.subtree_control", on, sizeof(on)) ||
			!cgroup_has_word(on, at->controller))) {
		sys->close(at->parent);
		at->parent = -1;
	}
	if (at->parent < 0)
		r = make_parents(sys, root, path, at, &at->parent, e);
	sys->close(root);
	return r;
}

/* cpu and cpuacct, and all of v2: in one hierarchy there is one group. */
static bool made_already(const struct cgroup *g, const struct cgroup_at *at)
{
	struct stat mine, other;

	if (g->n == 0 || g->host->sys->fstat(at->parent, &mine))
		return false;
	for (unsigned i = 0; i < g->n; i++)
		if (g->at[i].made && g->host->sys->fstat(g->at[i].parent, &other) == 0 &&
			mine.st_dev == other.st_dev && mine.st_ino == other.st_ino)
			return true;
	return false;
}

static int make_group(struct cgroup *g, struct cgroup_at *at, const char *parent, struct err *e)
{
	const struct sys_ops *sys = g->host->sys;
	int r = 0;

	if (!made_already(g, at)) {
		r = sys->mkdirat(at->parent, g->name, 0755) ? -errno : 0;
		if (r == -EEXIST && sys->unlinkat(at->parent, g->name, AT_REMOVEDIR) == 0)
			r = sys->mkdirat(at->parent, g->name, 0755) ? -errno : 0;
		if (r == -EEXIST)
			return err_set(e, r, "the cgroup %s/%s exists for %s, with processes in it",
				parent, g->name, at->controller);
		if (r)
			return err_sys(e, -r, "cannot make the cgroup %s/%s for %s%s", parent,
				g->name, at->controller, hint(r));
		at->made = true;
	}
	at->dir = sys->openat(at->parent, g->name, DIR_FLAGS, 0);
	if (at->dir < 0)
		return err_sys(e, errno, "cannot open the cgroup %s/%s for %s", parent, g->name,
			at->controller);
	if (at->made && !at->v2 && strcmp(at->controller, "cpuset") == 0)
		r = inherit_cpuset(sys, at->parent, at->dir, e);
	return r;
}

/* The group in @controller's hierarchy, made at the first limit that needs it. */
static int get_group(struct cgroup *g, const char *parent, const char *file,
	const struct cgroup_at **ret, struct err *e)
{
	size_t len = strcspn(file, ".");
	struct cgroup_at *at = &g->at[g->n];
	int r;

	if (len >= sizeof(at->controller))
		return err_set(e, -EINVAL, "no cgroup controller is called %.*s", (int)len, file);
	for (unsigned i = 0; i < g->n; i++)
		if (strlen(g->at[i].controller) == len &&
			memcmp(g->at[i].controller, file, len) == 0) {
			*ret = &g->at[i];
			return 0;
		}
	*at = (struct cgroup_at){.parent = -1, .dir = -1};
	memcpy(at->controller, file, len);
	r = open_parent(g->host, parent, at, e);
	if (r)
		return r;
	r = make_group(g, at, parent, e);
	g->n++; /* in part or whole, cgroup_remove() knows what to do */
	*ret = at;
	return r;
}

static int write_limit(const struct cgroup *g, const struct cgroup_at *at, const char *file,
	const char *value, struct err *e)
{
	struct cgroup_files f;

	cgroup_translate(file, value, at->v2, &f);
	for (unsigned i = 0; i < f.n; i++) {
		int r = write_file(g->host->sys, at->dir, f.v[i].file, f.v[i].value);

		if (r == -ENOENT)
			return err_set(e, r, "cgroup %s (v%d) has no file %s here", at->controller,
				at->v2 ? 2 : 1, f.v[i].file);
		if (r)
			return err_sys(e, -r, "the kernel refuses the cgroup limit %s=%s",
				file, value); /* as it was asked for */
	}
	return 0;
}

/* v1 counts memory and swap together, so that limit is the one of memory again. */
static int deny_swap(const struct cgroup *g, const struct cgroup_limits *l, struct err *e)
{
	const struct cgroup_at *at = NULL;
	const char *memory = NULL;
	int r = 0;

	for (unsigned i = 0; i < g->n; i++)
		if (strcmp(g->at[i].controller, "memory") == 0)
			at = &g->at[i];
	for (unsigned i = 0; i < l->n; i++)
		if (strcmp(l->v[i].file, "memory.max") == 0 ||
			strcmp(l->v[i].file, "memory.limit_in_bytes") == 0)
			memory = l->v[i].value;
	if (at && at->v2)
		r = write_limit(g, at, "memory.swap.max", "0", e);
	else if (at && memory && strcmp(memory, "max") != 0)
		r = write_limit(g, at, "memory.memsw.limit_in_bytes", memory, e);
	return r == -ENOENT || r == -EOPNOTSUPP ? 0 : r;
}

int cgroup_create(const struct cgroup_host *h, const char *parent, const char *name,
	const struct cgroup_limits *l, struct cgroup *ret, struct err *e)
{
	struct cgroup g = {.host = h};
	int r = cgroup_check_parent(parent, e);

	if (r)
		return r;
	if (!cgroup_name_ok(name))
		return err_set(e, -EINVAL, "\"%.100s\" is no name for a cgroup", name);
	memcpy(g.name, name, strlen(name) + 1);
	for (unsigned i = 0; r == 0 && i < l->n; i++) {
		const struct cgroup_at *at = NULL;

		r = get_group(&g, parent, l->v[i].file, &at, e);
		r = r ? r : write_limit(&g, at, l->v[i].file, l->v[i].value, e);
	}
	if (r == 0 && l->no_swap)
		r = deny_swap(&g, l, e);
	if (r) {
		cgroup_remove(&g, NULL);
		return r;
	}
	*ret = g;
	return 0;
}

int cgroup_fd(const struct cgroup *g)
{
	for (unsigned i = 0; i < g->n; i++)
		if (!g->at[i].v2)
			return -1;
	return g->n ? g->at[0].dir : -1;
}

/*
 * v1's "tasks" moves a thread: the same for a process of one. Moving a process takes a lock
 * against all forks of the host, which waits for an RCU grace period: 1-20 ms instead of 20 us.
 */
int cgroup_join_fds(const struct cgroup *g, int *ret, unsigned cap, struct err *e)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->n; i++) {
		const char *file = g->at[i].v2 ? "cgroup.procs" : "tasks";

		if (!g->at[i].made)
			continue;
		must(n < cap);
		ret[n] = g->host->sys->openat(g->at[i].dir, file, O_WRONLY | O_CLOEXEC, 0);
		if (ret[n] < 0) {
			int r = -errno;

			while (n)
				g->host->sys->close(ret[--n]);
			return err_sys(e, -r, "cannot enter the cgroup %s for %s%s", g->name,
				g->at[i].controller, hint(r));
		}
		n++;
	}
	return (int)n;
}

int cgroup_join(const struct cgroup *g, struct err *e)
{
	for (unsigned i = 0; i < g->n; i++) {
		const char *file = g->at[i].v2 ? "cgroup.procs" : "tasks";
		int r = g->at[i].made ? write_file(g->host->sys, g->at[i].dir, file, "0") : 0;

		if (r)
			return err_sys(e, -r, "cannot enter the cgroup %s for %s%s", g->name,
				g->at[i].controller, hint(r));
	}
	return 0;
}

int cgroup_join_parent(const struct cgroup_host *h, const char *parent, struct err *e)
{
	int root, dir = -1, r = cgroup_check_parent(parent, e);

	if (r || !cgroup_open_v2(h, &root))
		return r;
	dir = h->sys->openat(root, parent, DIR_FLAGS, 0);
	r = dir < 0 ? -errno : write_file(h->sys, dir, "cgroup.procs", "0");
	if (r)
		err_sys(e, -r, "cannot enter the cgroup %s%s", parent, hint(r));
	if (dir >= 0)
		h->sys->close(dir);
	h->sys->close(root);
	return r;
}

bool cgroup_ran_out(const struct cgroup *g)
{
	static const char word[] = "oom_kill ";
	char text[512], *at;

	for (unsigned i = 0; i < g->n; i++) {
		const char *file = g->at[i].v2 ? "memory.events" : "memory.oom_control";

		if (strcmp(g->at[i].controller, "memory") != 0 ||
			cgroup_read(g->host->sys, g->at[i].dir, file, text, sizeof(text)))
			continue;
		at = strstr(text, word);
		return at && strtoul(at + strlen(word), NULL, 10);
	}
	return false;
}

/* v2 kills a group as one; on v1 each process that is in it now, which the caller repeats. */
static void kill_all(const struct sys_ops *sys, const struct cgroup_at *at)
{
	char procs[4096], *p = procs;

	if (at->v2 && write_file(sys, at->dir, "cgroup.kill", "1") == 0)
		return;
	if (cgroup_read(sys, at->dir, "cgroup.procs", procs, sizeof(procs)))
		return;
	for (char *end; *p; p = end + (*end == '\n')) {
		long pid = strtol(p, &end, 10);

		if (end == p || *end != '\n') /* cut off */
			break;
		if (pid > 0)
			kill((pid_t)pid, SIGKILL);
	}
}

static int remove_one(const struct cgroup *g, const struct cgroup_at *at, struct err *e)
{
	struct timespec wait = {.tv_nsec = REMOVE_WAIT_NS};

	for (unsigned i = 0;; i++) {
		if (g->host->sys->unlinkat(at->parent, g->name, AT_REMOVEDIR) == 0 ||
			errno == ENOENT)
			return 0;
		if (errno != EBUSY || i == REMOVE_TRIES)
			return err_sys(e, errno, "cannot remove the cgroup %s for %s", g->name,
				at->controller);
		if (at->dir >= 0)
			kill_all(g->host->sys, at);
		nanosleep(&wait, NULL);
		if (wait.tv_nsec < REMOVE_WAIT_MAX_NS)
			wait.tv_nsec *= 2;
	}
}

int cgroup_remove(struct cgroup *g, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < g->n; i++)
		if (g->at[i].made) {
			int one = remove_one(g, &g->at[i], r ? NULL : e);

			r = r ? r : one;
		}
	cgroup_close(g);
	return r;
}

void cgroup_close(struct cgroup *g)
{
	for (unsigned i = 0; i < g->n; i++) {
		if (g->at[i].parent >= 0)
			g->host->sys->close(g->at[i].parent);
		if (g->at[i].dir >= 0)
			g->host->sys->close(g->at[i].dir);
	}
	g->n = 0;
}
