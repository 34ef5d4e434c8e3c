/* SPDX-License-Identifier: Apache-2.0 */
/* tmpdir.h - a directory of its own for each test, and what tests ask about files. */
#ifndef KELVIN_TESTS_TMPDIR_H
#define KELVIN_TESTS_TMPDIR_H

#include <stddef.h>

/* Makes an empty directory; the caller frees the name after tmpdir_remove(). */
char *tmpdir_make(void);
/* Removes it with everything in it. */
void tmpdir_remove(const char *dir);

/* Entries of @dir whose names start with @prefix ("" for all, . and .. apart). */
unsigned dir_count(const char *dir, const char *prefix);
/* Descriptors this process has open. */
unsigned fd_count(void);

/* The whole file, and its length; the caller frees it. */
unsigned char *file_read(const char *path, size_t *len);
/* Makes the file hold exactly these bytes. */
void file_write(const char *path, const void *data, size_t len);

#endif
