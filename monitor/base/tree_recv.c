/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_recv.c - receive a file or a directory (tree.h). The sender is not trusted.
 *
 * There is a stack of open directories; each name is looked up in the top one, never by a path, and
 * never through a link. So the worst a sender can do is to fill the destination.
 *
 * A file gets its name once its sender has said how long it is and that is what came. Until then it
 * has none (O_TMPFILE), so that even a receiver that is killed leaves nothing behind; where the
 * file system cannot do that, it has one of its own beside its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/io.h"
#include "monitor/base/tree_int.h"

struct level {
	int fd;
	bool made; /* by us: gets the mode that was sent, once all is in it */
	mode_t mode;
	s64 mtime_ns;
	u32 path_len; /* of the parent */
};

struct receiver {
	struct tree *t;
	struct level level[TREE_DEPTH + 1]; /* [0]: where the top goes */
	unsigned depth;
	char top[256]; /* the name of the top; "" is level[0] itself */
	bool slash;    /* @dest ended with one: it must be a directory */
	bool done;     /* the top is complete */
};

static void receiver_finish(struct receiver *r)
{
	for (unsigned i = 0; i <= r->depth; i++)
		fd_close(&r->level[i].fd);
}

static int top_dir(const struct receiver *r)
{
	return r->level[r->depth].fd;
}

/* Opens the directory the top goes into, and finds the name it gets. */
static int place_top(struct receiver *r, const char *dest, const char *base, struct err *e)
{
	char dir[4096];
	struct stat st;
	size_t len = strlen(dest), cut;

	if (!len || len >= sizeof(dir))
		return err_set(e, -EINVAL, "the destination has no name, or too long a one");
	memcpy(dir, dest, len + 1);
	if (!stat(dest, &st) && S_ISDIR(st.st_mode)) {
		snprintf(r->top, sizeof(r->top), "%s", strcmp(base, ".") ? base : "");
	} else {
		for (; len > 1 && dir[len - 1] == '/'; r->slash = true)
			dir[--len] = 0;
		tree_base(dir, r->top, sizeof(r->top));
		if (!strcmp(r->top, "."))
			return err_set(e, -ENOENT, "%s is no directory", dest);
		cut = len - strlen(r->top);
		if (!cut)
			snprintf(dir, sizeof(dir), ".");
		else
			dir[cut] = 0;
	}
	r->level[0].fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->level[0].fd < 0)
		return err_sys(e, errno, "cannot open the directory %s", dir);
	return 0;
}

/* The name of an entry: its own, checked, or that of the top. */
static int entry_name(struct receiver *r, const char *sent, const char **ret, struct err *e)
{
	if (!sent || r->done)
		return err_set(e, -EPROTO, "an entry that makes no sense");
	if (!r->depth) {
		*ret = r->top;
		return 0;
	}
	if (!*sent || strlen(sent) > 255 || strchr(sent, '/') || !strcmp(sent, ".") ||
		!strcmp(sent, ".."))
		return err_set(e, -EPROTO, "a name that is not one: \"%s\"", sent);
	*ret = sent;
	return 0;
}

static struct timespec from_ns(s64 ns)
{
	s64 sec = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		rest += 1000000000;
		sec--;
	}
	return (struct timespec){sec, rest};
}

static void set_times(int fd, s64 mtime_ns)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_NOW}, from_ns(mtime_ns)};

	futimens(fd, ts); /* a file system that cannot keep it is no failure */
}

/* Takes FR_DATA until FR_FILE_END, which must agree with what came. */
static int take_data(struct receiver *r, int fd, u64 size, struct err *e)
{
	u64 total = 0;
	struct frame f;
	int n;

	for (;;) {
		n = frame_wait(r->t->in, -1, &f, e);
		if (n)
			return n;
		if (f.type == FR_ERROR)
			return frame_error(&f, NULL, e);
		if (f.type == FR_FILE_END && f.len == 8)
			break;
		if (f.type != FR_DATA)
			return err_set(e, -EPROTO, "something else in the middle of a file");
		n = io_write(fd, f.p, f.len);
		if (n)
			return err_sys(e, -n, "cannot write %s", r->t->path);
		total += f.len;
		r->t->bytes += f.len;
		if (r->t->progress)
			r->t->progress(r->t, total, size);
	}
	if (le_get(f.p, 8) != total)
		return err_set(e, -EPROTO, "%s came incomplete", r->t->path);
	return 0;
}

/* A file that is being received. */
struct incoming {
	int fd;
	bool named;	 /* it has the name @temp */
	char name[256];	 /* the one it is to have */
	char temp[64];
	mode_t mode;
	s64 mtime_ns;
};

static int open_incoming(struct receiver *r, struct incoming *in, struct err *e)
{
	int dir = top_dir(r);

	snprintf(in->temp, sizeof(in->temp), ".kelvin-cp.%u", (unsigned)getpid());
	unlinkat(dir, in->temp, 0);
	in->fd = openat(dir, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
	in->named = in->fd < 0;
	if (in->named)
		in->fd = openat(dir, in->temp,
			O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return in->fd < 0 ? err_sys(e, errno, "cannot make %s", r->t->path) : 0;
}

/* Gives a complete file its name, in place of what has it. */
static int give_name(struct receiver *r, struct incoming *in)
{
	char self[32];
	int dir = top_dir(r);

	if (!in->named) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", in->fd);
		if (!linkat(AT_FDCWD, self, dir, in->name, AT_SYMLINK_FOLLOW))
			return 0;
		if (errno != EEXIST ||
			linkat(AT_FDCWD, self, dir, in->temp, AT_SYMLINK_FOLLOW))
			return -errno;
		in->named = true;
	}
	return renameat(dir, in->temp, dir, in->name) ? -errno : 0;
}

static int finish_file(struct receiver *r, struct incoming *in, struct err *e)
{
	struct stat st;
	int n;

	if (fchmod(in->fd, in->mode & r->t->mode_mask))
		return err_sys(e, errno, "cannot set the mode of %s", r->t->path);
	set_times(in->fd, in->mtime_ns);
	if (!fstatat(top_dir(r), in->name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode) &&
		!S_ISLNK(st.st_mode))
		return err_set(e, -EEXIST, "%s is there already, and no file", r->t->path);
	n = give_name(r, in);
	return n ? err_sys(e, -n, "cannot make %s", r->t->path) : 0;
}

static int take_file(struct receiver *r, const struct frame *f, struct err *e)
{
	struct incoming in = {.fd = -1, .mode = (mode_t)le_get(f->p, 4),
		.mtime_ns = (s64)le_get(f->p + 4, 8)};
	u64 size = le_get(f->p + 12, 8);
	const char *name;
	u32 at = 20, before;
	int n = entry_name(r, frame_text(f, &at), &name, e);

	if (n)
		return n;
	before = tree_enter(r->t, name);
	if (!*name || (!r->depth && r->slash))
		return err_set(e, -ENOTDIR, "a file cannot take the place of a directory");
	snprintf(in.name, sizeof(in.name), "%s", name); /* its frame will be overwritten */
	n = open_incoming(r, &in, e);
	if (!n)
		n = take_data(r, in.fd, size, e);
	if (!n)
		n = finish_file(r, &in, e);
	if (n && in.named)
		unlinkat(top_dir(r), in.temp, 0);
	fd_close(&in.fd);
	if (n)
		return n;
	r->t->files++;
	r->done = !r->depth;
	tree_leave(r->t, before);
	return 0;
}

static int take_dir(struct receiver *r, const struct frame *f, struct err *e)
{
	const char *name;
	u32 at = 12, before;
	struct level *l;
	int n = entry_name(r, frame_text(f, &at), &name, e);
	int parent = top_dir(r);

	if (n)
		return n;
	before = tree_enter(r->t, name);
	if (r->depth == TREE_DEPTH)
		return err_set(e, -ELOOP, "%s is too deep", r->t->path);
	l = &r->level[r->depth + 1];
	*l = (struct level){.mode = (mode_t)le_get(f->p, 4), .mtime_ns = (s64)le_get(f->p + 4, 8),
		.path_len = before};
	l->made = *name && !mkdirat(parent, name, 0700);
	if (*name && !l->made && errno != EEXIST)
		return err_sys(e, errno, "cannot make the directory %s", r->t->path);
	l->fd = openat(parent, *name ? name : ".",
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (l->fd < 0)
		return err_sys(e, errno, "cannot open the directory %s", r->t->path);
	r->depth++;
	r->t->dirs++;
	return 0;
}

static int take_up(struct receiver *r, struct err *e)
{
	struct level *l = &r->level[r->depth];

	if (!r->depth)
		return err_set(e, -EPROTO, "the end of a directory that never began");
	if (l->made) {
		set_times(l->fd, l->mtime_ns);
		if (fchmod(l->fd, l->mode & r->t->mode_mask))
			return err_sys(e, errno, "cannot set the mode of %s", r->t->path);
	}
	tree_leave(r->t, l->path_len);
	fd_close(&l->fd);
	r->done = --r->depth == 0;
	return 0;
}

static int take_link(struct receiver *r, const struct frame *f, struct err *e)
{
	const char *name, *target;
	u32 at = 0, before;
	struct stat st;
	int n = entry_name(r, frame_text(f, &at), &name, e);

	if (n)
		return n;
	target = frame_text(f, &at);
	if (!target || !*target || !r->depth)
		return err_set(e, -EPROTO, "a link that makes no sense");
	before = tree_enter(r->t, name);
	if (!fstatat(top_dir(r), name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISDIR(st.st_mode))
		unlinkat(top_dir(r), name, 0);
	if (symlinkat(target, top_dir(r), name))
		return err_sys(e, errno, "cannot make the link %s", r->t->path);
	r->t->links++;
	tree_leave(r->t, before);
	return 0;
}

static int take_entry(struct receiver *r, const struct frame *f, struct err *e)
{
	switch (f->type) {
	case FR_FILE:
		if (f->len > 20)
			return take_file(r, f, e);
		break;
	case FR_DIR:
		if (f->len > 12)
			return take_dir(r, f, e);
		break;
	case FR_UP: return take_up(r, e);
	case FR_LINK: return take_link(r, f, e);
	case FR_NOTE:
		if (r->t->note)
			r->t->note(r->t, (const char *)f->p);
		return 0;
	case FR_ERROR: return frame_error(f, NULL, e);
	default: break;
	}
	return err_set(e, -EPROTO, "something that is no part of a tree");
}

static int take_all(struct receiver *r, struct err *e)
{
	struct frame f;
	int n;

	for (;;) {
		n = frame_wait(r->t->in, -1, &f, e);
		if (n)
			return n;
		if (f.type == FR_TREE_END && r->done)
			return 0;
		n = take_entry(r, &f, e);
		if (n)
			return n;
	}
}

int tree_recv(struct tree *t, const char *dest, const char *base, struct err *e)
{
	struct receiver r = {.t = t};
	int n;

	for (unsigned i = 0; i < ARRAY_SIZE(r.level); i++)
		r.level[i].fd = -1;
	tree_leave(t, 0);
	if (!*base || strlen(base) > 255 || strchr(base, '/') || !strcmp(base, ".."))
		return err_set(e, -EPROTO, "a source without a name");
	n = place_top(&r, dest, base, e);
	if (!n)
		n = take_all(&r, e);
	receiver_finish(&r);
	return n;
}
