/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.h - write and read snapshot directories. Knows no devices: it stores named sections.
 *
 * DIR/state   header, sections {tag, version, length, CRC32C}, memory map, trailer; all explicit
 *             little-endian (format.h draws it byte by byte)
 * DIR/memory  the linear RAM image, page-aligned, holes for zero pages, exactly mem->size long
 * DIR/disk.*  what a caller adds: overlays of disks
 * DIR/host    text of whoever makes the directory, not of the writer; may be missing
 *
 * A snapshot is written to a temporary directory beside DIR, synced, and published by one rename.
 * A reader sees the old one, the new one or none. Two objects do that: struct snap_dir makes the
 * directory, its files and its name; struct snap_writer fills the files, through descriptors alone.
 * They may be in two processes: then a jailed one writes a snapshot, and sees no directory.
 *
 * What a file says is hostile: snap_open() checks everything, or fails naming the section and
 * offset, before the caller sees any of it.
 *
 * Threads: one thread at a time per object.
 */
#ifndef KELVIN_SNAPSHOT_H
#define KELVIN_SNAPSHOT_H

#include "memory/memory.h"
#include "monitor/base/err.h"
#include "monitor/base/sys.h"

#define SNAP_TAG_MAX      16u          /* bytes of a tag, NUL included: "vcpu0", "vsock0" */
#define SNAP_SECTIONS_MAX 128u
#define SNAP_STATE_MAX    (16u << 20)  /* bytes of DIR/state */
#define SNAP_CHUNK        65536u       /* bytes of memory under one CRC32C */

#define SNAP_FILE_MAX     80u          /* bytes of the name of such a file, NUL included */
#define SNAP_FILES_MAX    16u

#define SNAP_STATE_FILE   "state"
#define SNAP_MEMORY_FILE  "memory"
#define SNAP_HOST_FILE    "host"
#define SNAP_HOST_MAX     (1u << 20) /* bytes of it */

/*
 * The directory, for whoever may make one: a temporary one with empty files in it, and a name for
 * it once they are written and synced.
 */
struct snap_dir;

/*
 * Starts a snapshot at @path. EEXIST where that exists and not @force; parents must exist. Sweeps
 * temporary directories that dead makers left for the same name. @sys is &sys_host outside tests.
 */
int snap_dir_create(struct snap_dir **ret, const struct sys_ops *sys, const char *path, bool force,
	struct err *e);
/*
 * Makes an empty file in it: SNAP_STATE_FILE or SNAP_MEMORY_FILE, to be written only, or "disk."
 * and something, to be written and read (-EINVAL otherwise). The descriptor is the caller's.
 */
int snap_dir_file(struct snap_dir *d, const char *name, int *ret_fd, struct err *e);
/* Writes the file "host" in it, and syncs it. @len is from 1 to SNAP_HOST_MAX. */
int snap_dir_host(struct snap_dir *d, const char *text, size_t len, struct err *e);
/*
 * Whether nobody has its file @name open for writing, or mapped so: -EBUSY where somebody has. 0
 * also where the file system cannot tell.
 */
int snap_dir_let_go(const struct snap_dir *d, const char *name, struct err *e);
/* Its files are synced. On success the snapshot is on stable storage. Frees *@d either way. */
int snap_dir_commit(struct snap_dir **d, struct err *e);
/* Removes everything that was made. NULL is fine. */
void snap_dir_abort(struct snap_dir **d);

/* The files, for whoever has the VM: opens nothing. */
struct snap_writer;

/*
 * Starts to write a snapshot called @name (in messages) to these two files, which are regular,
 * empty and open for writing. They are taken over, also on failure.
 */
int snap_create(struct snap_writer **ret, const struct sys_ops *sys, const char *name, int state_fd,
	int memory_fd, struct err *e);
/* Adds a section; copies @data. Tags are unique. Bad order or size is a bug of ours (must). */
int snap_add(struct snap_writer *w, const char *tag, u16 version, const void *data, size_t len,
	struct err *e);
/*
 * Writes guest RAM, once; the vCPUs and whoever else writes it stand still until this returns.
 * progress(ctx, done, total) may be NULL.
 */
int snap_add_memory(struct snap_writer *w, const struct mem *m,
	void (*progress)(void *ctx, u64 done, u64 total), void *ctx, struct err *e);
/*
 * Another file, called "disk." and something: the caller has written and synced it. It is read
 * here, and taken over, also on failure.
 */
int snap_add_file(struct snap_writer *w, const char *name, int fd, struct err *e);
/*
 * Writes what is left, syncs and closes. On success the files are on stable storage, for whoever
 * made them to give them a name. Frees *@w either way.
 */
int snap_finish(struct snap_writer **w, struct err *e);
/* Gives up: what was written means nothing. NULL is fine. */
void snap_abort(struct snap_writer **w);
/* Bytes of memory in pages that are not all zero, after snap_add_memory(). */
u64 snap_data_bytes(const struct snap_writer *w);

struct snap;

/* Opens and checks @dir: header, every section's checksum, the map, memory's length. */
int snap_open(struct snap **ret, const char *dir, struct err *e);
void snap_close(struct snap **s); /* NULL is fine */

struct snap_section {
	char tag[SNAP_TAG_MAX];
	u16 version;
	u64 offset; /* in DIR/state, for messages */
	const void *data;
	size_t len;
};
unsigned snap_section_count(const struct snap *s);
const struct snap_section *snap_section_at(const struct snap *s, unsigned i);
/* The section called @tag; -ENOENT, naming it, if it is not there. */
int snap_find(const struct snap *s, const char *tag, const struct snap_section **ret,
	struct err *e);
u64 snap_mem_size(const struct snap *s);
u64 snap_mem_data_bytes(const struct snap *s); /* of it, in pages that are not all zero */
int snap_mem_fd(const struct snap *s);         /* read-only; stays the snapshot's */
/* -ENOENT, naming it, where there is no file @name of snap_add_file(). */
int snap_has_file(const struct snap *s, const char *name, struct err *e);
/* What the file "host" holds, *ret_len bytes, which stay the snapshot's; NULL: there is none. */
const void *snap_host(const struct snap *s, size_t *ret_len);
u64 snap_created_ns(const struct snap *s);     /* CLOCK_REALTIME */
bool snap_trusted(const struct snap *s); /* owned by us or root and writable by nobody else */

/* Reads every byte of memory and of added files and checks each chunk. The error names the first
 * bad offset, or file. */
int snap_verify(const struct snap *s, void (*progress)(void *ctx, u64 done, u64 total), void *ctx,
	struct err *e);

#endif
