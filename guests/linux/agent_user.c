/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_user.c - find a user in /etc/passwd and /etc/group, and become that user.
 *
 * The guest's own files, read line by line; lines that are no entries, or too long, do not count.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

#define LINE_CAP 4096u
#define FIELDS	 7u

struct lines {
	int fd;
	size_t at, len;
	char buf[4096], line[LINE_CAP];
};

/* The next line, without its end; false at the end of the file. */
static bool next_line(struct lines *l)
{
	size_t n = 0;
	ssize_t got;

	for (;;) {
		if (l->at == l->len) {
			got = l->fd >= 0 ? read(l->fd, l->buf, sizeof(l->buf)) : 0;
			if (got <= 0)
				break;
			l->at = 0;
			l->len = (size_t)got;
		}
		if (l->buf[l->at++] == '\n') {
			l->line[n < LINE_CAP ? n : 0] = 0; /* too long: an empty one */
			return true;
		}
		if (n < LINE_CAP - 1)
			l->line[n++] = l->buf[l->at - 1];
		else
			n = LINE_CAP;
	}
	if (n >= LINE_CAP)
		n = 0;
	l->line[n] = 0;
	return n > 0;
}

/* Splits the line at its colons; how many fields there are, the others are "". */
static unsigned split(char *line, char *field[FIELDS])
{
	unsigned n = 1;

	for (unsigned i = 1; i < FIELDS; i++)
		field[i] = line + strlen(line);
	field[0] = line;
	for (; *line; line++) {
		if (*line != ':')
			continue;
		*line = 0;
		if (n == FIELDS)
			break;
		field[n++] = line + 1;
	}
	return n;
}

/* A number that is an id; false if it is something else. */
static bool parse_id(const char *s, u32 *ret)
{
	u64 v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || v > UINT32_MAX / 10)
			return false;
		v = v * 10 + (u64)(*s - '0');
	}
	*ret = (u32)v;
	return v < UINT32_MAX;
}

static void lines_open(struct lines *l, const char *path)
{
	l->at = l->len = 0;
	l->fd = open(path, O_RDONLY | O_CLOEXEC);
}

static bool find_passwd(const char *name, struct user *u)
{
	static struct lines l;
	char *f[FIELDS];
	u32 want = 0, uid, gid;
	bool by_id = parse_id(name, &want), found = false;

	lines_open(&l, "/etc/passwd");
	while (!found && next_line(&l)) {
		if (split(l.line, f) < FIELDS || !parse_id(f[2], &uid) || !parse_id(f[3], &gid) ||
			(by_id ? uid != want : strcmp(f[0], name) != 0))
			continue;
		found = true;
		u->uid = uid;
		u->gid = gid;
		snprintf(u->name, sizeof(u->name), "%s", f[0]);
		snprintf(u->home, sizeof(u->home), "%s", f[5][0] ? f[5] : "/");
		snprintf(u->shell, sizeof(u->shell), "%s", f[6][0] ? f[6] : "/bin/sh");
	}
	if (l.fd >= 0)
		close(l.fd);
	if (!found && by_id) { /* nobody in particular */
		u->uid = u->gid = want;
		found = true;
	}
	return found;
}

/* Whether @name is one of the names in @list, which commas separate. */
static bool is_member(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (;; list++) {
		if (!strncmp(list, name, n) && (!list[n] || list[n] == ','))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
	}
}

/* With @want: finds that group. Without: all that the user is in. */
static bool read_groups(const char *want, struct user *u)
{
	static struct lines l;
	char *f[FIELDS];
	u32 id, gid;
	bool by_id = want && parse_id(want, &id), found = false;

	lines_open(&l, "/etc/group");
	while (!by_id && !found && next_line(&l)) {
		if (split(l.line, f) < 4 || !parse_id(f[2], &gid))
			continue;
		if (want && !strcmp(f[0], want)) {
			u->gid = gid;
			found = true;
		} else if (!want && is_member(f[3], u->name) && u->group_count < GROUPS_MAX) {
			u->groups[u->group_count++] = gid;
		}
	}
	if (by_id)
		u->gid = id;
	if (l.fd >= 0)
		close(l.fd);
	return found || by_id;
}

int user_find(const char *spec, struct user *u, struct err *e)
{
	char name[64], self[16];
	const char *group = strchr(spec, ':');
	size_t n = group ? (size_t)(group - spec) : strlen(spec);

	*u = (struct user){.home = "/", .shell = "/bin/sh", .change = *spec != 0};
	if (!*spec) {
		snprintf(self, sizeof(self), "%u", (unsigned)geteuid());
		find_passwd(self, u);
		return 0;
	}
	if (n >= sizeof(name))
		return err_set(e, -ENOENT, "the guest knows no user \"%s\"", spec);
	memcpy(name, spec, n);
	name[n] = 0;
	if (!find_passwd(name, u))
		return err_set(e, -ENOENT, "the guest knows no user \"%s\"", name);
	if (group && !read_groups(group + 1, u))
		return err_set(e, -ENOENT, "the guest knows no group \"%s\"", group + 1);
	u->groups[u->group_count++] = u->gid;
	if (!group && u->name[0])
		read_groups(NULL, u);
	return 0;
}

int user_become(const struct user *u)
{
	if (!u->change)
		return 0;
	if (setgroups(u->group_count, u->groups) || setgid(u->gid) || setuid(u->uid))
		return -errno;
	return 0;
}
