/* SPDX-License-Identifier: Apache-2.0 */
/* kcache_int.h - what the cache's files share: names in its directory, whom to trust. */
#ifndef KELVIN_MONITOR_KCACHE_INT_H
#define KELVIN_MONITOR_KCACHE_INT_H

#include "monitor/kcache.h"

#define KCACHE_NAME_MAX 96u
#define KERNEL_SUFFIX   ".vmlinux"
#define RECORD_SUFFIX   ".source"
#define TEMP_PREFIX     ".tmp-"
#define LOCK_NAME       ".lock"
#define RECORDS_MAX     64u
#define RECORD_HASH_LEN 16u /* bytes in a record's name */

/* Ours, and nobody else can write it. */
bool kcache_trusts(const struct stat *st);

/* "<hex><suffix>" into @out of KCACHE_NAME_MAX bytes. */
void kcache_name(char *out, const u8 *byte, size_t len, const char *suffix);

/*
 * Becomes the one process that writes here, until the descriptor is closed or the process dies; -1
 * if another one does so now, or if nobody can. Never waits.
 */
int kcache_lock(int dir_fd);

/* The writer's: a new file under a name nobody else uses; -1 and errno. */
int kcache_temp(int dir_fd, char out[KCACHE_NAME_MAX]);
/* Gives it its name, or removes it where @ok is false. Returns whether it is there now. */
bool kcache_publish(int dir_fd, const char *temp, const char *name, bool ok);

/* A regular file of ours that nobody else can write, of @min to @max bytes; -1: there is none. */
int kcache_open_file(int dir_fd, const char *name, int flags, u64 min, u64 max, struct stat *st);

/*
 * The writer's: removes what is too much, the longest unused first, with room for @incoming bytes
 * more (0: no kernel is coming), and what writers that died have left.
 */
void kcache_prune(int dir_fd, u64 incoming);

#endif
