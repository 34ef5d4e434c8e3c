/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader.c - open a snapshot and answer questions about it.
 *
 * This is on the way to a restored VM's first instruction: one read of DIR/state, one pass over it,
 * and DIR/memory is opened and measured but not read. The state is read into host memory rather
 * than mapped, so that nobody can change or cut it once it has been checked. Its owner is hostile:
 * links are not followed, and a FIFO or a device in a file's place neither blocks nor is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "snapshot/snap_int.h"

#define FILE_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* Owned by us or root, and nobody else may write. */
static bool is_trusted(const struct stat *st)
{
	return (st->st_uid == 0 || st->st_uid == geteuid()) && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* Opens the regular file @name of the snapshot; the caller owns the result, -errno on failure. */
static int open_file(struct snap *s, int dirfd, const char *name, struct stat *st, struct err *e)
{
	_cleanup_fd_ int fd = openat(dirfd, name, FILE_FLAGS);

	if (fd < 0 && errno == ELOOP)
		return err_set(e, -ELOOP, "snapshot %.256s: file %s is a symbolic link", s->dir,
			name);
	if (fd < 0 || fstat(fd, st))
		return err_sys(e, errno, "snapshot %.256s: cannot open its file %s", s->dir, name);
	if (!S_ISREG(st->st_mode))
		return err_set(e, -EINVAL, "snapshot %.256s: file %s is no regular file", s->dir,
			name);
	s->trusted = s->trusted && is_trusted(st);
	return fd_steal(&fd);
}

/* All of the file @name, @len bytes long, into *ret, which is the snapshot's. */
static int read_all(const struct snap *s, u8 **ret, int fd, const char *name, size_t len,
	struct err *e)
{
	*ret = malloc(len);
	if (!*ret)
		return err_sys(e, ENOMEM, "snapshot %.256s: cannot read its %s", s->dir, name);
	for (size_t at = 0; at < len;) {
		ssize_t n = TEMP_FAILURE_RETRY(pread(fd, *ret + at, len - at, (off_t)at));

		if (n < 0)
			return err_sys(e, errno, "snapshot %.256s: cannot read its %s", s->dir,
				name);
		if (!n)
			return err_set(e, -EINVAL,
				"snapshot %.256s: %s ended at offset %zu while it was read", s->dir,
				name, at);
		at += (size_t)n;
	}
	return 0;
}

static int load_state(struct snap *s, int dirfd, struct err *e)
{
	struct stat st;
	_cleanup_fd_ int fd = open_file(s, dirfd, SNAP_STATE_FILE, &st, e);
	int r;

	if (fd < 0)
		return fd;
	if (!st.st_size || st.st_size > SNAP_STATE_MAX)
		return err_set(e, -EINVAL,
			"snapshot %.256s: state has %lld bytes: must be 1 to %u", s->dir,
			(long long)st.st_size, SNAP_STATE_MAX);
	r = read_all(s, &s->buf, fd, SNAP_STATE_FILE, (size_t)st.st_size, e);
	return r ? r : snap_parse(&s->state, s->dir, s->buf, (size_t)st.st_size, e);
}

static int open_memory(struct snap *s, int dirfd, struct err *e)
{
	struct stat st;
	int fd = open_file(s, dirfd, SNAP_MEMORY_FILE, &st, e);

	if (fd < 0)
		return fd;
	s->memory_fd = fd;
	if ((u64)st.st_size != s->state.map.size)
		return err_set(e, -EINVAL,
			"snapshot %.256s: memory has %lld bytes, section " SNAP_MAP_TAG
			" says %llu",
			s->dir, (long long)st.st_size, (unsigned long long)s->state.map.size);
	return 0;
}

/* What whoever made the directory wrote there; content is for the caller to judge. */
static int load_host(struct snap *s, struct err *e)
{
	struct err why;
	struct stat st;
	_cleanup_fd_ int fd = open_file(s, s->dir_fd, SNAP_HOST_FILE, &st, &why);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0) {
		*e = why;
		return fd;
	}
	if (!st.st_size || st.st_size > SNAP_HOST_MAX)
		return err_set(e, -EINVAL,
			"snapshot %.256s: file host has %lld bytes: must be 1 to %u", s->dir,
			(long long)st.st_size, SNAP_HOST_MAX);
	s->host_len = (size_t)st.st_size;
	return read_all(s, &s->host, fd, SNAP_HOST_FILE, s->host_len, e);
}

/* The files that travel with it: all must be there, as long as they were. */
static int check_extra(struct snap *s, struct err *e)
{
	const struct snap_section *sec;
	int r;

	if (snap_find(s, SNAP_EXTRA_TAG, &sec, NULL))
		return 0;
	if (sec->version != SNAP_EXTRA_VERSION)
		r = err_set(e, -EINVAL, "version %u, known is %u", sec->version,
			SNAP_EXTRA_VERSION);
	else
		r = snap_parse_extra(s->extra, &s->extra_count, sec->data, sec->len, e);
	if (r)
		return err_wrap(e, "snapshot %.256s: section %s at offset %llu", s->dir, sec->tag,
			(unsigned long long)sec->offset);
	for (unsigned i = 0; i < s->extra_count; i++) {
		const struct snap_extra *x = &s->extra[i];
		struct stat st;
		int fd = open_file(s, s->dir_fd, x->name, &st, e);

		if (fd < 0)
			return fd;
		close(fd);
		if ((u64)st.st_size != x->size)
			return err_set(e, -EINVAL,
				"snapshot %.256s: file %s has %lld bytes, section %s says %llu",
				s->dir, x->name, (long long)st.st_size, sec->tag,
				(unsigned long long)x->size);
	}
	return 0;
}

int snap_has_file(const struct snap *s, const char *name, struct err *e)
{
	for (unsigned i = 0; i < s->extra_count; i++)
		if (!strcmp(s->extra[i].name, name))
			return 0;
	return err_set(e, -ENOENT, "snapshot %.256s: file %s is missing", s->dir, name);
}

int snap_open(struct snap **ret, const char *dir, struct err *e)
{
	_cleanup_fd_ int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct snap *s;
	struct stat st;
	int r;

	if (dirfd < 0 || fstat(dirfd, &st))
		return err_sys(e, errno, "cannot open snapshot %.256s", dir);
	s = calloc(1, sizeof(*s));
	if (s)
		s->dir = strdup(dir);
	if (!s || !s->dir) {
		free(s);
		return err_sys(e, ENOMEM, "cannot open snapshot %.256s", dir);
	}
	s->memory_fd = -1;
	s->dir_fd = fd_steal(&dirfd);
	s->trusted = is_trusted(&st);
	r = load_state(s, s->dir_fd, e);
	if (!r)
		r = open_memory(s, s->dir_fd, e);
	if (!r)
		r = check_extra(s, e);
	if (!r)
		r = load_host(s, e);
	if (r) {
		snap_close(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void snap_close(struct snap **sp)
{
	struct snap *s = *sp;

	if (!s)
		return;
	fd_close(&s->memory_fd);
	fd_close(&s->dir_fd);
	free(s->buf);
	free(s->host);
	free(s->dir);
	free(s);
	*sp = NULL;
}

unsigned snap_section_count(const struct snap *s)
{
	return s->state.section_count;
}

const struct snap_section *snap_section_at(const struct snap *s, unsigned i)
{
	must(i < s->state.section_count);
	return &s->state.section[i];
}

int snap_find(const struct snap *s, const char *tag, const struct snap_section **ret,
	struct err *e)
{
	for (unsigned i = 0; i < s->state.section_count; i++) {
		if (!strcmp(s->state.section[i].tag, tag)) {
			*ret = &s->state.section[i];
			return 0;
		}
	}
	return err_set(e, -ENOENT, "snapshot %.256s: section %s is missing", s->dir, tag);
}

u64 snap_mem_size(const struct snap *s)
{
	return s->state.map.size;
}

u64 snap_mem_data_bytes(const struct snap *s)
{
	return s->state.map.data_bytes;
}

int snap_mem_fd(const struct snap *s)
{
	return s->memory_fd;
}

const void *snap_host(const struct snap *s, size_t *ret_len)
{
	*ret_len = s->host_len;
	return s->host;
}

u64 snap_created_ns(const struct snap *s)
{
	return s->state.created_ns;
}

bool snap_trusted(const struct snap *s)
{
	return s->trusted;
}
