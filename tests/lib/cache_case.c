/* SPDX-License-Identifier: Apache-2.0 */
/* cache_case.c - see cache_case.h */
#include "tests/lib/cache_case.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/cleanup.h"
#include "tests/lib/bz_builder.h"
#include "tests/lib/tmpdir.h"

char *dir;
char cache[256], file[256];

int cache_setup(void **state)
{
	dir = tmpdir_make();
	snprintf(cache, sizeof(cache), "%s/cache", dir);
	snprintf(file, sizeof(file), "%s/vmlinuz", dir);
	return ram_setup(state);
}

int cache_teardown(void **state)
{
	tmpdir_remove(dir);
	free(dir);
	return ram_teardown(state);
}

void make_kernel(enum pack how)
{
	struct bz_file f = bz_default(how);

	file_write(file, f.bytes, f.len);
	free(f.bytes);
}

struct result load_file(void)
{
	_cleanup_fd_ int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct load_case c = request(fd);

	c.cache = cache;
	new_ram(RAM);
	return load(&c);
}

void assert_loads(bool cached)
{
	struct result r = load_file();

	if (r.code)
		fail_msg("%s", r.err.msg);
	assert_int_equal(r.info.is_cached, cached);
	assert_int_equal(ram->piece_count > 0, cached);
	assert_segments_loaded();
}

/* How many names end in @suffix; the path of one of them goes to @path. */
static unsigned find(const char *suffix, char *path, size_t cap)
{
	DIR *list = opendir(cache);
	struct dirent *ent;
	unsigned n = 0;

	assert_non_null(list);
	while ((ent = readdir(list))) {
		size_t len = strlen(ent->d_name), k = strlen(suffix);

		if (len < k || strcmp(ent->d_name + len - k, suffix) != 0)
			continue;
		snprintf(path, cap, "%s/%s", cache, ent->d_name);
		n++;
	}
	closedir(list);
	return n;
}

char *path_of(const char *suffix)
{
	static char path[600];

	return find(suffix, path, sizeof(path)) ? path : NULL;
}

unsigned count_of(const char *suffix)
{
	char path[600];

	return find(suffix, path, sizeof(path));
}

char *entry_path(void)
{
	char *path = path_of(".vmlinux");

	assert_non_null(path);
	return path;
}
