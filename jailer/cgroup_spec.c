/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup_spec.c - limits as the operator writes them, and those a VM has when he writes none.
 *
 * A limit's file is opened below the group's directory, as root: a name is letters, digits, "_" and
 * ".", begins with its controller, and is no "cgroup.*" file, which would move processes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "jailer/cgroup_int.h"

/*
 * What a VM uses beyond its RAM. For each 4 KiB of RAM the host has 8 bytes of page table, 8 of
 * nested page table and 8 of reverse map: 3/512, of which 1/128 is the next power of two. Fixed:
 * the program and its rings (4 MiB), buffers of network queues (17 MiB a pair that a guest filled
 * with small buffers), of sockets and of a snapshot being written. What the page cache holds for
 * disks and snapshots is charged too, but given back before the limit hurts.
 */
#define OVERHEAD_FIXED (96ull << 20)
#define OVERHEAD_SHARE 128u

/*
 * Tasks beyond the vCPUs: the loop, a snapshot's writer, KVM's own thread, the process outside the
 * jail, two of passt; and io_uring's workers, which are threads of the process, made when files are
 * synced or read from a slow disk. Those are limited by the kernel to four a processor; the ones
 * that find no room here wait for the others.
 */
#define PIDS_FIXED 8u
#define PIDS_IOWQ  64u

bool cgroup_has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	while (*list) {
		size_t n = strcspn(list, ", \n");

		if (n == len && memcmp(list, word, n) == 0)
			return true;
		list += n + (list[n] != 0);
	}
	return false;
}

bool cgroup_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > CGROUP_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] <= ' ' || name[i] == '/' || name[i] == 127)
			return false;
	return true;
}

int cgroup_check_parent(const char *parent, struct err *e)
{
	const char *p = parent;

	for (;;) {
		char part[CGROUP_NAME_MAX + 1];
		size_t n = strcspn(p, "/");

		if (n > CGROUP_NAME_MAX)
			break;
		memcpy(part, p, n);
		part[n] = 0;
		if (!cgroup_name_ok(part))
			break;
		if (!p[n])
			return 0;
		p += n + 1;
	}
	return err_set(e, -EINVAL, "cgroup parent \"%.100s\": wanted NAME or NAME/NAME, without "
		"leading \"/\" or \".\"", parent);
}

static bool file_ok(const char *file, size_t len)
{
	const char *dot = memchr(file, '.', len);

	if (!dot || dot == file || len > CGROUP_FILE_MAX || file[len - 1] == '.')
		return false;
	if (strncmp(file, "cgroup.", 7) == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = file[i];

		if (c == '.' && file[i + 1] == '.')
			return false;
		if (c != '.' && c != '_' && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') &&
			!(c >= 'A' && c <= 'Z'))
			return false;
	}
	return true;
}

static int find(const struct cgroup_limits *l, const char *file)
{
	for (unsigned i = 0; i < l->n; i++)
		if (strcmp(l->v[i].file, file) == 0)
			return (int)i;
	return -1;
}

int cgroup_parse(const char *text, struct cgroup_limits *l, struct err *e)
{
	const char *eq = strchr(text, '=');
	size_t len = eq ? (size_t)(eq - text) : 0;
	char file[CGROUP_FILE_MAX + 1];
	int at;

	if (!eq || !file_ok(text, len))
		return err_set(e, -EINVAL, "cgroup limit \"%.100s\": wanted CONTROLLER.FILE=VALUE, "
			"as memory.max=200M", text);
	if (!eq[1] || strlen(eq + 1) > CGROUP_VALUE_MAX)
		return err_set(e, -EINVAL, "cgroup limit \"%.100s\": a value of 1 to %u characters "
			"is wanted", text, CGROUP_VALUE_MAX);
	for (const char *p = eq + 1; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			return err_set(e, -EINVAL, "cgroup limit \"%.*s\": a control character in "
				"its value", (int)len, text);
	memcpy(file, text, len);
	file[len] = 0;
	at = find(l, file);
	if (at < 0) {
		if (l->n >= CGROUP_LIMITS_MAX)
			return err_set(e, -E2BIG, "more than %u cgroup limits", CGROUP_LIMITS_MAX);
		at = (int)l->n++;
		memcpy(l->v[at].file, file, len + 1);
	}
	memcpy(l->v[at].value, eq + 1, strlen(eq + 1) + 1);
	return 0;
}

static void add(struct cgroup_limits *l, const char *file, u64 value)
{
	must(l->n < ARRAY_SIZE(l->v));
	snprintf(l->v[l->n].file, sizeof(l->v[0].file), "%s", file);
	snprintf(l->v[l->n].value, sizeof(l->v[0].value), "%llu", (unsigned long long)value);
	l->n++;
}

void cgroup_default_limits(u64 ram, unsigned vcpus, struct cgroup_limits *l)
{
	if (find(l, "memory.max") < 0 && find(l, "memory.limit_in_bytes") < 0)
		add(l, "memory.max", ram + ram / OVERHEAD_SHARE + OVERHEAD_FIXED);
	l->no_swap = find(l, "memory.swap.max") < 0 && find(l, "memory.memsw.limit_in_bytes") < 0;
	if (find(l, "pids.max") < 0)
		add(l, "pids.max", vcpus + PIDS_FIXED + PIDS_IOWQ);
}

/* v2's "max" is -1 on v1. */
static void put(struct cgroup_files *f, const char *file, const char *value, size_t len)
{
	if (len == 3 && memcmp(value, "max", 3) == 0) {
		value = "-1";
		len = 2;
	}
	f->v[f->n].file = file;
	memcpy(f->v[f->n].value, value, len);
	f->v[f->n].value[len] = 0;
	f->n++;
}

void cgroup_translate(const char *file, const char *value, bool v2, struct cgroup_files *ret)
{
	size_t len = strlen(value);

	ret->n = 0;
	if (!v2 && strcmp(file, "memory.max") == 0) {
		put(ret, "memory.limit_in_bytes", value, len);
	} else if (!v2 && strcmp(file, "cpu.max") == 0) {
		/* "QUOTA PERIOD" or "QUOTA"; a quota is measured against the period there is. */
		size_t quota = strcspn(value, " ");
		const char *period = value + quota + strspn(value + quota, " ");

		if (*period)
			put(ret, "cpu.cfs_period_us", period, strlen(period));
		put(ret, "cpu.cfs_quota_us", value, quota);
	} else {
		ret->n = 1;
		ret->v[0].file = file;
		memcpy(ret->v[0].value, value, len + 1);
	}
}
