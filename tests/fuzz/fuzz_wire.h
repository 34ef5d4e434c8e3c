/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_wire.h - the host's end of network devices on the fake host: queues of a TAP, or a stream as
 * passt has it, with frames that can be told apart.
 *
 * Every frame of either direction is, from byte 14 on, its number (32 bits, little-endian), then
 * fh_byte() of each place. So a frame that arrives says which one it is, and whether it is whole.
 */
#ifndef KELVIN_TESTS_FUZZ_WIRE_H
#define KELVIN_TESTS_FUZZ_WIRE_H

#include <linux/virtio_net.h>

#include "tests/fuzz/fake_host.h"

#define WIRE_FRAMES    64u     /* that wait in a TAP queue */
#define WIRE_HDR       ((u32)sizeof(struct virtio_net_hdr_v1))
#define WIRE_HEAD      18u     /* bytes of addresses, type and number */
#define WIRE_FRAME_MAX 65600u  /* longer than any that is allowed */
#define WIRE_STREAM    400000u

struct wire_frame {
	struct virtio_net_hdr_v1 hdr; /* not on a stream */
	u32 number, len;
};

struct wire {
	int fd;
	bool stream;
	/* To the device. */
	struct wire_frame frame[WIRE_FRAMES];
	unsigned first, count;
	u8 *bytes;        /* of a stream; WIRE_STREAM of them at most */
	u32 bytes_at, bytes_end;
	bool ended;       /* the stream */
	/* From the device. */
	u64 room;         /* frames, or bytes of a stream, that it takes now */
	u8 part[WIRE_FRAME_MAX + 64];
	u32 part_len;     /* of a frame that came in part */
	bool attached;    /* a TAP queue */
};

/* Makes @w anew. */
void wire_open(struct wire *w, bool stream);
/* Puts a frame on its way to the device; false where there is no room. */
bool wire_put(struct wire *w, const struct wire_frame *f);
/* Puts bytes into a stream. */
void wire_put_bytes(struct wire *w, const void *p, u32 len);
/* Writes frame @number of @len bytes to @out; the addresses are the target's. */
void wire_make(u8 *out, u32 number, u32 len);
/* Whether @p is frame @number and whole; the addresses are not looked at. */
bool wire_is(const u8 *p, u32 number, u32 len);
/* The number of a frame. */
u32 wire_number(const u8 *p);
/* Whether anything is on its way to the device. */
bool wire_waits(const struct wire *w);
/* Called with each frame the device sends; @h is NULL on a stream. */
extern void (*wire_took)(struct wire *w, const struct virtio_net_hdr_v1 *h, const u8 *frame,
	u32 len);

#endif
