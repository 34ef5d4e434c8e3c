/* SPDX-License-Identifier: Apache-2.0 */
/* cache_case.h - a kernel file and a cache directory of a test's own, and loading one by the other. */
#ifndef KELVIN_TESTS_CACHE_CASE_H
#define KELVIN_TESTS_CACHE_CASE_H

#include "tests/lib/load_case.h"

#define TRAILER_LEN 104u /* of an entry; the boot id is in its last 40 bytes */

extern char *dir;                 /* everything below is in there; removed after each test */
extern char cache[256], file[256]; /* tests may name others */
int cache_setup(void **state);
int cache_teardown(void **state);

/* The default bzImage as a file. */
void make_kernel(enum pack how);
struct result load_file(void);
/* Loads it, and fails unless it came whole and by way of the cache, or not. */
void assert_loads(bool cached);

/* The path of a file in the cache whose name ends in @suffix; NULL if there is none. */
char *path_of(const char *suffix);
unsigned count_of(const char *suffix);
/* The path of the one entry there has to be. */
char *entry_path(void);

#endif
