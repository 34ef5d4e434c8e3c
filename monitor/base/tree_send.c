/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_send.c - send a file or a directory (tree.h).
 *
 * A file is read to its end, whatever size it claimed: files in /proc say 0. One that fails in the
 * middle ends the transfer without FR_FILE_END, so that the receiver throws away what it has.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/tree_int.h"

#define NAMES_CAP 4096u /* bytes of directory entries read at once; on the stack, once a level */

u32 tree_enter(struct tree *t, const char *name)
{
	u32 before = t->path_len;
	size_t len = strlen(name);

	/* Only for messages: what does not fit is left out. */
	if (len + 2 <= sizeof(t->path) - before) {
		if (before)
			t->path[t->path_len++] = '/';
		memcpy(t->path + t->path_len, name, len + 1);
		t->path_len += (u32)len;
	}
	return before;
}

void tree_leave(struct tree *t, u32 len)
{
	t->path_len = len;
	t->path[len] = 0;
}

void tree_base(const char *path, char *out, size_t cap)
{
	size_t end = strlen(path), begin;

	while (end && path[end - 1] == '/')
		end--;
	for (begin = end; begin && path[begin - 1] != '/'; begin--)
		;
	if (begin == end || end - begin >= cap ||
		(end - begin == 2 && !memcmp(path + begin, "..", 2)))
		snprintf(out, cap, ".");
	else
		snprintf(out, end - begin + 1, "%s", path + begin);
}

int frame_error(const struct frame *f, u32 *ret_status, struct err *e)
{
	if (f->len < 5)
		return err_set(e, -EPROTO, "the peer failed, and does not say why");
	if (ret_status)
		*ret_status = (u32)le_get(f->p, 4);
	return err_set(e, -EREMOTEIO, "%s", (const char *)f->p + 4);
}

/* The receiver says nothing before the end, unless it fails. */
static int look_for_error(struct tree *t, struct err *e)
{
	struct frame f;
	int r = frame_read(t->in, &f, e);

	if (r <= 0)
		return r;
	if (f.type == FR_ERROR)
		return frame_error(&f, NULL, e);
	return err_set(e, -EPROTO, "an answer that does not belong there");
}

/* Where sending failed because the receiver had left, it may have said why. */
static int why_gone(struct tree *t, int r, struct err *e)
{
	struct err other;
	struct frame f;

	if (r == -EPIPE && !frame_wait(t->in, 1000, &f, &other) && f.type == FR_ERROR)
		return frame_error(&f, NULL, e);
	return r;
}

static int send_entry(struct tree *t, u8 type, const struct stat *st, const char *name,
	const char *target, struct err *e)
{
	u8 *p = t->buf;
	size_t at = 0;

	if (type != FR_LINK) {
		le_put(p, st->st_mode & 07777, 4);
		le_put(p + 4, (u64)(st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec), 8);
		at = 12;
	}
	if (type == FR_FILE) {
		le_put(p + 12, (u64)st->st_size, 8);
		at = 20;
	}
	at += (size_t)snprintf((char *)p + at, 256, "%s", name) + 1;
	if (type == FR_LINK)
		at += (size_t)snprintf((char *)p + at, 4097, "%s", target) + 1;
	return frame_send(t->in->fd, type, p, (u32)at, e);
}

static int send_data(struct tree *t, int fd, u64 size, struct err *e)
{
	u64 total = 0;
	u8 end[8];
	ssize_t n;
	int r;

	for (;;) {
		n = read(fd, t->buf + FRAME_HEAD, FRAME_DATA);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "cannot read %s", t->path);
		if (n == 0)
			break;
		frame_head(t->buf, FR_DATA, (u32)n);
		r = frame_send_raw(t->in->fd, t->buf, FRAME_HEAD + (size_t)n, e);
		if (!r)
			r = look_for_error(t, e);
		if (r)
			return r;
		total += (u64)n;
		t->bytes += (u64)n;
		if (t->progress)
			t->progress(t, total, size);
	}
	le_put(end, total, 8);
	return frame_send(t->in->fd, FR_FILE_END, end, 8, e);
}

static int send_file(struct tree *t, int fd, const struct stat *st, const char *name, struct err *e)
{
	int r = send_entry(t, FR_FILE, st, name, NULL, e);

	if (!r && t->progress)
		t->progress(t, 0, (u64)st->st_size);
	if (!r)
		r = send_data(t, fd, (u64)st->st_size, e);
	t->files += !r;
	return r;
}

static int send_link(struct tree *t, int dir, const char *name, struct err *e)
{
	char target[4096];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);

	if (n < 0)
		return err_sys(e, errno, "cannot read the link %s", t->path);
	target[n] = 0;
	t->links++;
	return send_entry(t, FR_LINK, NULL, name, target, e);
}

static int send_dir(struct tree *t, int fd, const struct stat *st, const char *name,
	unsigned depth, struct err *e);

static void note(struct tree *t, const char *why)
{
	char text[1200];

	snprintf(text, sizeof(text), "%s is left out: %s", t->path, why);
	if (t->note)
		t->note(t, text);
	else
		frame_send(t->in->fd, FR_NOTE, text, (u32)strlen(text), NULL);
}

/* What an entry of a directory is, and all below it. */
static int send_any(struct tree *t, int dir, const char *name, unsigned depth, struct err *e)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : err_sys(e, errno, "cannot look at %s", t->path);
	if (S_ISLNK(st.st_mode))
		return send_link(t, dir, name, e);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		note(t, "it is no file, directory or link");
		return 0;
	}
	/* O_NONBLOCK: it may have become a pipe since. */
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, errno, "cannot open %s", t->path);
	if (S_ISDIR(st.st_mode))
		return send_dir(t, fd, &st, name, depth, e);
	return send_file(t, fd, &st, name, e);
}

static int send_names(struct tree *t, int fd, unsigned depth, struct err *e)
{
	_Alignas(struct dirent64) char names[NAMES_CAP];
	int r = 0;

	for (;;) {
		ssize_t n = getdents64(fd, names, sizeof(names));

		if (n < 0)
			return err_sys(e, errno, "cannot list %s", t->path);
		if (n == 0)
			return 0;
		for (ssize_t at = 0; at < n && !r;) {
			const struct dirent64 *d = (const void *)(names + at);
			u32 before;

			at += d->d_reclen;
			if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
				continue;
			before = tree_enter(t, d->d_name);
			r = send_any(t, fd, d->d_name, depth + 1, e);
			tree_leave(t, before);
		}
		if (r)
			return r;
	}
}

static int send_dir(struct tree *t, int fd, const struct stat *st, const char *name,
	unsigned depth, struct err *e)
{
	int r;

	if (depth >= TREE_DEPTH)
		return err_set(e, -ELOOP, "%s is more than %u directories deep", t->path,
			TREE_DEPTH);
	r = send_entry(t, FR_DIR, st, name, NULL, e);
	if (!r)
		r = send_names(t, fd, depth, e);
	if (!r)
		r = look_for_error(t, e);
	t->dirs += !r;
	return r ? r : frame_send(t->in->fd, FR_UP, NULL, 0, e);
}

int tree_send(struct tree *t, const char *path, struct err *e)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;
	char name[256];
	int r;

	tree_base(path, name, sizeof(name));
	tree_leave(t, 0);
	tree_enter(t, path);
	if (stat(path, &st))
		return err_sys(e, errno, "cannot look at %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(e, -EINVAL, "%s is no file and no directory", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_sys(e, errno, "cannot open %s", path);
	r = S_ISDIR(st.st_mode) ? send_dir(t, fd, &st, name, 0, e)
				: send_file(t, fd, &st, name, e);
	if (!r)
		r = frame_send(t->in->fd, FR_TREE_END, NULL, 0, e);
	return why_gone(t, r, e);
}
