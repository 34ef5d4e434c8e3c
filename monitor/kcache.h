/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kcache.h - unpacked kernels, kept so that the next boot maps one instead of unpacking it again.
 *
 * Everything here is a convenience: where the cache cannot be used, kernels boot all the same. One
 * directory, any number of processes at once. See kcache.c for how it stays trustworthy.
 */
#ifndef KELVIN_MONITOR_KCACHE_H
#define KELVIN_MONITOR_KCACHE_H

#include <sys/stat.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define KCACHE_ENTRIES   8u            /* kernels kept */
#define KCACHE_BYTES     (512ull << 20) /* of all of them */
#define KCACHE_ENTRY_MAX (256ull << 20) /* larger ones are not kept */
#define KCACHE_OFF       "off"

#define KCACHE_KEY_LEN   32u

/* Names a kernel: a hash of its packed bytes. */
struct kcache_key {
	u8 byte[KCACHE_KEY_LEN];
};

/*
 * Opens the cache @where: a directory, made if need be; empty: $XDG_CACHE_HOME/kelvin or
 * $HOME/.cache/kelvin, or /var/cache/kelvin for a root without HOME; KCACHE_OFF: none. Sets
 * *@ret to a descriptor the caller closes, or to -1 where there is no cache. A directory that
 * cannot be used, or that others can write, is an error if it was named and no cache if it was not.
 */
int kcache_open(const char *where, int *ret, struct err *e);

void kcache_key(const void *packed, size_t len, struct kcache_key *ret);

/*
 * The key of the file that @st describes, as kcache_learn() was told it: false if it is not known,
 * or if the file has changed since.
 */
bool kcache_recall(int dir_fd, const struct stat *st, struct kcache_key *ret);
/* @st was taken before the file was read. Files that changed a moment ago are not remembered. */
void kcache_learn(int dir_fd, const struct stat *st, const struct kcache_key *key);

/*
 * The unpacked kernel of @key, an ELF file with a few bytes of ours behind it: a descriptor the
 * caller owns, or -1. Nobody changes the file as long as the cache's owner behaves. Marks it used.
 */
int kcache_get(int dir_fd, const struct kcache_key *key);
/*
 * Keeps @len bytes as the unpacked kernel of @key; others go if there are too many. False where
 * that cannot be done now: another process is at it, or the disk is full.
 */
bool kcache_put(int dir_fd, const struct kcache_key *key, const void *elf, u64 len);

#endif
