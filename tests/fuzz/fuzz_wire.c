/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_wire.c - see fuzz_wire.h */
#include "tests/fuzz/fuzz_wire.h"

#include <endian.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "memory/memory.h"

#define PREFIX 4u

void (*wire_took)(struct wire *w, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len);

/* What every frame is but for its number. */
static const u8 *any_frame(void)
{
	static u8 bytes[WIRE_FRAME_MAX];

	if (bytes[1])
		return bytes;
	memset(bytes, 0x20, 14);
	for (u32 i = WIRE_HEAD; i < WIRE_FRAME_MAX; i++)
		bytes[i] = fh_byte(i);
	return bytes;
}

void wire_make(u8 *out, u32 number, u32 len)
{
	u32 le = htole32(number);

	memcpy(out, any_frame(), len);
	if (len > 14)
		memcpy(out + 14, &le, len - 14 < 4 ? len - 14 : 4);
}

u32 wire_number(const u8 *p)
{
	u32 le;

	memcpy(&le, p + 14, sizeof(le));
	return le32toh(le);
}

bool wire_is(const u8 *p, u32 number, u32 len)
{
	return len >= WIRE_HEAD && wire_number(p) == number &&
		!memcmp(p + WIRE_HEAD, any_frame() + WIRE_HEAD, len - WIRE_HEAD);
}

bool wire_waits(const struct wire *w)
{
	return w->stream ? w->bytes_end > w->bytes_at : w->count;
}

static struct wire *wire_of(struct fh_file *f)
{
	return f->ctx;
}

/* A TAP queue: one frame, with its header, for each read and write. */

static int tap_in(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off, unsigned flags)
{
	static u8 data[WIRE_HDR + WIRE_FRAME_MAX];
	struct wire *w = wire_of(f);
	const struct wire_frame *fr = &w->frame[w->first % WIRE_FRAMES];

	if (!w->count)
		return -EAGAIN;
	memcpy(data, &fr->hdr, WIRE_HDR);
	wire_make(data + WIRE_HDR, fr->number, fr->len);
	w->first++;
	w->count--;
	/* What does not fit is lost. */
	return (int)iov_from_host(iov, n, 0, data, WIRE_HDR + fr->len);
}

static int tap_out(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off)
{
	static u8 data[WIRE_HDR + WIRE_FRAME_MAX];
	struct wire *w = wire_of(f);
	u32 len;

	if (!w->room)
		return -EAGAIN;
	len = (u32)iov_to_host(iov, n, 0, data, sizeof(data));
	must(len > WIRE_HDR && len < sizeof(data));
	w->room--;
	wire_took(w, (const struct virtio_net_hdr_v1 *)data, data + WIRE_HDR, len - WIRE_HDR);
	return (int)len;
}

static unsigned wire_poll(struct fh_file *f)
{
	const struct wire *w = wire_of(f);

	return (wire_waits(w) || w->ended ? POLLIN : 0u) | (w->room || w->ended ? POLLOUT : 0u) |
		(w->ended ? POLLHUP : 0u);
}

static int tap_ioctl(struct fh_file *f, unsigned long request, void *arg)
{
	struct wire *w = wire_of(f);
	const struct ifreq *req = arg;

	if (request == TUNSETOFFLOAD)
		return 0;
	must(request == TUNSETQUEUE);
	must((req->ifr_flags == IFF_ATTACH_QUEUE) != w->attached);
	w->attached = req->ifr_flags == IFF_ATTACH_QUEUE;
	return 0;
}

static const struct fh_ops tap_ops = {
	.in = tap_in, .out = tap_out, .poll = wire_poll, .ioctl = tap_ioctl};

/* A stream: frames behind their lengths. */

static int stream_in(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off,
	unsigned flags)
{
	struct wire *w = wire_of(f);
	size_t done;

	if (!wire_waits(w))
		return w->ended ? 0 : -EAGAIN;
	done = iov_from_host(iov, n, 0, w->bytes + w->bytes_at, w->bytes_end - w->bytes_at);
	w->bytes_at += (u32)done;
	if (w->bytes_at == w->bytes_end)
		w->bytes_at = w->bytes_end = 0;
	return (int)done;
}

/* Takes the frames that are complete out of w->part. */
static void parse(struct wire *w)
{
	u32 len, whole;

	while (w->part_len >= PREFIX) {
		memcpy(&len, w->part, sizeof(len));
		len = be32toh(len);
		must(len >= 14 && len <= WIRE_FRAME_MAX);
		whole = PREFIX + len;
		if (w->part_len < whole)
			return;
		wire_took(w, NULL, w->part + PREFIX, len);
		memmove(w->part, w->part + whole, w->part_len - whole);
		w->part_len -= whole;
	}
}

static int stream_out(struct fh_file *f, const struct iovec *iov, unsigned n, u64 off)
{
	struct wire *w = wire_of(f);
	size_t done = 0, part;

	if (w->ended)
		return -EPIPE;
	if (!w->room)
		return -EAGAIN;
	do { /* in pieces, so that a whole batch need not fit into part */
		part = sizeof(w->part) - w->part_len;
		part = iov_to_host(iov, n, done, w->part + w->part_len,
			part < w->room ? part : w->room);
		w->part_len += (u32)part;
		w->room -= part;
		done += part;
		parse(w);
	} while (part && w->room);
	return (int)done;
}

static const struct fh_ops stream_ops = {.in = stream_in, .out = stream_out, .poll = wire_poll};

void wire_open(struct wire *w, bool stream)
{
	struct fh_file *f = fh_open(stream ? &stream_ops : &tap_ops);
	u8 *bytes = w->bytes;

	must(f);
	if (!bytes)
		bytes = malloc(WIRE_STREAM);
	must(bytes);
	w->fd = f->fd;
	w->stream = stream;
	w->bytes = bytes;
	w->first = w->count = w->bytes_at = w->bytes_end = w->part_len = 0;
	w->ended = false;
	w->attached = true;
	w->room = UINT64_MAX;
	f->ctx = w;
}

void wire_put_bytes(struct wire *w, const void *p, u32 len)
{
	if (len > WIRE_STREAM - w->bytes_end)
		len = WIRE_STREAM - w->bytes_end;
	memcpy(w->bytes + w->bytes_end, p, len);
	w->bytes_end += len;
}

bool wire_put(struct wire *w, const struct wire_frame *f)
{
	static u8 data[WIRE_FRAME_MAX];
	u32 len = htobe32(f->len);

	must(f->len <= WIRE_FRAME_MAX);
	if (w->stream) {
		if (f->len + PREFIX > WIRE_STREAM - w->bytes_end)
			return false;
		wire_make(data, f->number, f->len);
		wire_put_bytes(w, &len, sizeof(len));
		wire_put_bytes(w, data, f->len);
		return true;
	}
	if (w->count == WIRE_FRAMES)
		return false;
	w->frame[(w->first + w->count++) % WIRE_FRAMES] = *f;
	return true;
}
