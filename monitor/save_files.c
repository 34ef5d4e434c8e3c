/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save_files.c - the files a snapshot is written to: which ones, and where they come from.
 *
 * Either somebody hands them over, open, and sees to their directory (kelvin snapshot does), or
 * this process makes them (a client that knows only paths, and a VM that is not jailed). What is
 * handed over is looked at: the writer counts on regular files that are empty, each another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "monitor/base/cleanup.h"
#include "monitor/machine_int.h"

static void add(struct save_files *f, const char *name)
{
	struct save_file *file = &f->file[f->count++];

	must(f->count <= ARRAY_SIZE(f->file));
	snprintf(file->name, sizeof(file->name), "%s", name);
	file->fd = -1;
}

void save_files_list(struct save_files *f, const struct machine_spec *spec)
{
	char name[SNAP_FILE_MAX];

	f->count = 0;
	add(f, SNAP_STATE_FILE);
	add(f, SNAP_MEMORY_FILE);
	for (unsigned i = 0; i < spec->dev.disk_count; i++) {
		if (!spec->dev.disk[i].is_overlaid)
			continue;
		snprintf(name, sizeof(name), SAVE_DISK_FILE, spec->dev.disk[i].id);
		add(f, name);
	}
}

void save_files_close(struct save_files *f)
{
	for (unsigned i = 0; i < f->count; i++)
		fd_close(&f->file[i].fd);
}

int save_files_steal(struct save_files *f, const char *name)
{
	for (unsigned i = 0; i < f->count; i++)
		if (!strcmp(f->file[i].name, name))
			return fd_steal(&f->file[i].fd);
	must(!"a file of the list");
	return -1;
}

/* A disk's file is read once it is written, for its checksum; the others need no reader. */
static int check_file(const struct handed_file *f, struct stat *st, struct err *e)
{
	bool read_too = strcmp(f->name, SNAP_STATE_FILE) && strcmp(f->name, SNAP_MEMORY_FILE);
	int flags = fcntl(f->fd, F_GETFL); /* syscalls[L]: fcntl(F_GETFL) */
	int mode = flags & O_ACCMODE;

	if (flags < 0 || fstat(f->fd, st))
		return err_sys(e, errno, "cannot look at the file \"%.80s\"", f->name);
	if (!S_ISREG(st->st_mode))
		return err_set(e, -EINVAL, "\"%.80s\" is not a regular file", f->name);
	if ((mode != O_RDWR && (read_too || mode != O_WRONLY)) || (flags & (O_APPEND | O_PATH)))
		return err_set(e, -EINVAL,
			"the file \"%.80s\" is not open for %swriting anywhere in it", f->name,
			read_too ? "reading and " : "");
	if (st->st_size)
		return err_set(e, -EINVAL, "the file \"%.80s\" is not empty", f->name);
	return 0;
}

static struct handed_file *find(struct handed_file *from, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(from[i].name, name))
			return &from[i];
	return NULL;
}

int save_files_take(struct save_files *f, struct handed_file *from, unsigned n, struct err *e)
{
	struct stat st[SAVE_FILES_MAX];
	struct handed_file *h;
	int r;

	if (n != f->count)
		return err_set(e, -EINVAL, "a snapshot of this VM has %u files, not %u", f->count,
			n);
	for (unsigned i = 0; i < f->count; i++) {
		h = find(from, n, f->file[i].name);
		if (!h)
			return err_set(e, -EINVAL, "there is no file \"%s\"", f->file[i].name);
		r = check_file(h, &st[i], e);
		if (r)
			return r;
		for (unsigned k = 0; k < i; k++)
			if (st[k].st_dev == st[i].st_dev && st[k].st_ino == st[i].st_ino)
				return err_set(e, -EINVAL, "\"%s\" and \"%s\" are one file",
					f->file[k].name, f->file[i].name);
	}
	for (unsigned i = 0; i < f->count; i++)
		f->file[i].fd = fd_steal(&find(from, n, f->file[i].name)->fd);
	return 0;
}

int save_files_make(struct save_files *f, struct snap_dir *dir, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < f->count && !r; i++)
		r = snap_dir_file(dir, f->file[i].name, &f->file[i].fd, e);
	return r;
}
