/* SPDX-License-Identifier: Apache-2.0 */
/* snap_int.h - what an open snapshot is; for the files that read one. */
#ifndef KELVIN_SNAPSHOT_SNAP_INT_H
#define KELVIN_SNAPSHOT_SNAP_INT_H

#include "snapshot/format.h"

#define SNAP_EXTRA_TAG     "files"
#define SNAP_EXTRA_VERSION 1u
#define SNAP_EXTRA_PREFIX  "disk."

/* A file of snap_add_file(). */
struct snap_extra {
	char name[SNAP_FILE_MAX];
	u64 size, data_bytes;
	u32 crc;
};

/* extra.c */
bool snap_extra_name(const char *name);
/* Reads the file; fills data_bytes and crc. Its size is given. 0 or an errno. */
int snap_extra_sum(int fd, struct snap_extra *x);
void snap_encode_extra(struct enc *out, const struct snap_extra *x, unsigned n);
/* @x has room for SNAP_FILES_MAX. */
int snap_parse_extra(struct snap_extra *x, unsigned *ret_n, const void *buf, size_t len,
	struct err *e);

struct snap {
	char *dir;     /* as the caller named it, for messages */
	u8 *buf;       /* DIR/state; what @state points into */
	u8 *host;      /* DIR/host; NULL: none */
	size_t host_len;
	int dir_fd;    /* of DIR */
	int memory_fd; /* read-only */
	unsigned extra_count;
	struct snap_extra extra[SNAP_FILES_MAX];
	bool trusted;
	struct snap_state state;
};

#endif
