/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - read and write the frames of agent_proto.h on a stream socket.
 *
 * Used by kelvin and by the agent in the guest, and each distrusts the other. No allocation.
 */
#ifndef KELVIN_BASE_FRAME_H
#define KELVIN_BASE_FRAME_H

#include "monitor/base/agent_proto.h"
#include "monitor/base/err.h"
#include "monitor/base/types.h"

/* A frame that was read; @p is valid until the next read and has a NUL behind its @len bytes. */
struct frame {
	u8 type;
	u32 len;
	u8 *p;
};

/* What has come of a frame so far. Zero it and set @fd; big, so not on a stack. */
struct frame_reader {
	int fd;
	u32 have;
	u8 buf[FRAME_HEAD + FRAME_MAX + 1];
};

/*
 * Reads on without blocking. 1: *@ret is a frame. 0: there is more to come. -ECONNRESET: the peer
 * has left. -EPROTO: what came is no frame of this version.
 */
int frame_read(struct frame_reader *r, struct frame *ret, struct err *e);
/* The same, but waits for at most @timeout_ms (-1: for ever), then -ETIMEDOUT. 0: a frame. */
int frame_wait(struct frame_reader *r, int timeout_ms, struct frame *ret, struct err *e);

/* Writes a head for @len bytes. */
void frame_head(u8 head[FRAME_HEAD], u8 type, u32 len);
/* Sends @len bytes as they are; waits as long as it takes. -EPIPE: the peer has left. */
int frame_send_raw(int fd, const void *p, size_t len, struct err *e);
/* Sends one frame. */
int frame_send(int fd, u8 type, const void *p, u32 len, struct err *e);

/* The text at *@at, a part of @f; steps over it. NULL where none is left. */
const char *frame_text(const struct frame *f, u32 *at);

/* Little-endian numbers of @n bytes. The caller knows that they are there. */
static inline u64 le_get(const u8 *p, unsigned n)
{
	u64 v = 0;

	while (n-- > 0)
		v = v << 8 | p[n];
	return v;
}

static inline void le_put(u8 *p, u64 v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (u8)(v >> 8 * i);
}

#endif
