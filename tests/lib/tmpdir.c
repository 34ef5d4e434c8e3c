/* SPDX-License-Identifier: Apache-2.0 */
/* tmpdir.c - see tmpdir.h */
#include "tests/lib/tmpdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/types.h"

char *tmpdir_make(void)
{
	const char *base = getenv("TMPDIR");
	char *dir;

	must(asprintf(&dir, "%s/kelvin-test-XXXXXX", base ? base : "/tmp") > 0);
	must(mkdtemp(dir));
	return dir;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

void tmpdir_remove(const char *dir)
{
	must(!nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS));
}

unsigned dir_count(const char *dir, const char *prefix)
{
	DIR *list = opendir(dir);
	struct dirent *ent;
	unsigned n = 0;

	must(list);
	while ((ent = readdir(list)))
		if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0 &&
			!strncmp(ent->d_name, prefix, strlen(prefix)))
			n++;
	closedir(list);
	return n;
}

unsigned fd_count(void)
{
	/* The listing itself has one open. */
	return dir_count("/proc/self/fd", "") - 1;
}

unsigned char *file_read(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *data;
	struct stat st;

	must(fd >= 0 && !fstat(fd, &st));
	*len = (size_t)st.st_size;
	data = malloc(*len ? *len : 1);
	must(data && read(fd, data, *len) == (ssize_t)*len);
	close(fd);
	return data;
}

void file_write(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	close(fd);
}
