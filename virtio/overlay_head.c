/* SPDX-License-Identifier: Apache-2.0 */
/* overlay_head.c - the first bytes of an overlay file; overlay_int.h draws them. */
#include <errno.h>
#include <string.h>

#include "virtio/overlay_int.h"

#define VERSION 1u

static const char magic[] = "kelvinov";

/* FNV-1a: against accidents. */
static u64 checksum(const u8 *p, size_t len)
{
	u64 sum = 0xcbf29ce484222325u;

	while (len--)
		sum = (sum ^ *p++) * 0x100000001b3u;
	return sum;
}

static void put_identity(struct enc *out, const struct disk_identity *id)
{
	enc_u64(out, id->dev);
	enc_u64(out, id->ino);
	enc_u64(out, id->size);
	enc_u64(out, id->mtime_ns);
}

static struct disk_identity get_identity(struct dec *in)
{
	struct disk_identity id;

	id.dev = dec_u64(in);
	id.ino = dec_u64(in);
	id.size = dec_u64(in);
	id.mtime_ns = dec_u64(in);
	return id;
}

void overlay_head_encode(const struct overlay_head *h, u8 ret[OVERLAY_HEAD_LEN])
{
	struct enc out = {0};

	enc_bytes(&out, magic, 8);
	enc_u32(&out, VERSION);
	enc_u32(&out, OVERLAY_CLUSTER);
	put_identity(&out, &h->base);
	put_identity(&out, &h->saved);
	enc_bytes(&out, h->boot, sizeof(h->boot));
	if (!out.oom)
		enc_u64(&out, checksum(out.buf, out.len));
	must(!out.oom && out.len == OVERLAY_HEAD_LEN);
	memcpy(ret, out.buf, OVERLAY_HEAD_LEN);
	enc_free(&out);
}

int overlay_head_decode(struct overlay_head *h, const u8 p[OVERLAY_HEAD_LEN], struct err *e)
{
	struct dec in = dec_from(p, OVERLAY_HEAD_LEN);
	u32 version, cluster;
	char seen[8];

	dec_bytes(&in, seen, sizeof(seen));
	if (memcmp(seen, magic, sizeof(seen)) != 0)
		return err_set(e, -EINVAL, "it is no overlay");
	version = dec_u32(&in);
	if (version != VERSION)
		return err_set(e, -EINVAL, "it is of version %u, not %u", version, VERSION);
	cluster = dec_u32(&in);
	h->base = get_identity(&in);
	h->saved = get_identity(&in);
	dec_bytes(&in, h->boot, sizeof(h->boot));
	if (dec_u64(&in) != checksum(p, OVERLAY_HEAD_LEN - 8) || cluster != OVERLAY_CLUSTER ||
		h->boot[sizeof(h->boot) - 1])
		return err_set(e, -EINVAL, "its header is damaged");
	return 0;
}
