/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - send and receive a file or a directory by the frames of agent_proto.h.
 *
 * The same code on both sides: kelvin cp, and the agent in the guest.
 */
#ifndef KELVIN_BASE_TREE_H
#define KELVIN_BASE_TREE_H

#include <sys/types.h>

#include "monitor/base/frame.h"

#define TREE_DEPTH 100u /* directories in each other */

/* One transfer. Zero it, set what is above the line; big, so not on a stack. */
struct tree {
	struct frame_reader *in; /* its fd is the connection */
	mode_t mode_mask;	 /* receiver: which bits of a mode are kept */
	/* May be NULL: called after each piece, with the bytes of the current file. */
	void (*progress)(struct tree *t, u64 done, u64 size);
	/* May be NULL: something was left out; @text is one line. */
	void (*note)(struct tree *t, const char *text);

	u64 files, dirs, links, bytes; /* what was moved */
	char path[1024];	       /* what is being moved, below the top, for messages */
	u32 path_len;
	u8 buf[FRAME_HEAD + FRAME_DATA];
};

/*
 * Sends what is at @path: a file, a directory, or a link to one of them. Links further down are
 * sent as links; devices, sockets and pipes are left out, with a note. The caller has agreed with
 * the peer on that (FR_PUT, FR_GET). An FR_ERROR the peer sends meanwhile becomes the error.
 */
int tree_send(struct tree *t, const char *path, struct err *e);

/*
 * Receives a tree. Like cp: into @dest if that is a directory, under the name @base; else as
 * @dest. @base "." is "what is in it": then @dest itself becomes the directory. A file appears
 * under its name only once it is complete, and what was there under that name is replaced, unless
 * it is no file or link. Nothing outside of @dest is touched, whatever the peer sends: names are
 * single components, and no link is followed below @dest.
 */
int tree_recv(struct tree *t, const char *dest, const char *base, struct err *e);

/* The last component of @path, without slashes at the end, in @out; "." if it has no name. */
void tree_base(const char *path, char *out, size_t cap);

/* The error that an FR_ERROR carries. Returns its code, -EREMOTEIO. *@ret_status may be NULL. */
int frame_error(const struct frame *f, u32 *ret_status, struct err *e);

#endif
