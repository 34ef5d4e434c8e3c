/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices.c - make a machine's devices and give each a window, an interrupt and a place in
 * snapshots; find and change them while the machine runs.
 *
 * The order is that of the command line: disks, networks, the vsock. A guest finds device n at
 * VIRTIO_GPA + n * VIRTIO_MMIO_WINDOW with interrupt VIRTIO_GSI + n; snapshots know it by its kind
 * and number ("virtio.blk0").
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/log.h"
#include "monitor/dial.h"
#include "monitor/machine_int.h"
#include "monitor/vmfind.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/vsock.h"

#define LAST_TURNS 32u /* of the loop, for what the guest handed over last */

static void on_irq(void *ctx, unsigned line)
{
	struct machine *m = ctx;

	vm_irq(m->vm, line);
}

/* The interrupt of the device that comes next. */
static struct virtio_irq next_irq(struct machine *m)
{
	return (struct virtio_irq){.raise = on_irq, .ctx = m, .line = VIRTIO_GSI + m->device_count};
}

/* Takes over @d, which is the @number-th of its kind. */
static int add(struct machine *m, struct virtio_dev *d, const char *id, unsigned number,
	struct err *e)
{
	struct device_slot *slot = &m->slot[m->device_count];
	u64 window_gpa = VIRTIO_GPA + m->device_count * (u64)VIRTIO_MMIO_WINDOW;

	must(m->device_count < DEVICES_MAX);
	slot->machine = m;
	slot->dev = d;
	slot->id = id;
	if (d->ops->device_id == VIRTIO_ID_VSOCK)
		snprintf(slot->tag, sizeof(slot->tag), "virtio.%s", d->ops->name);
	else
		snprintf(slot->tag, sizeof(slot->tag), "virtio.%s%u", d->ops->name, number);
	virtio_attach(d, m->ring);
	m->device_count++;
	return vm_add_device(m->vm, window_gpa + VIRTIO_MMIO_NOTIFY, d->kick_fd,
		VIRTIO_GSI + m->device_count - 1, e);
}

/* The disk of a snapshot must be what it was, unless the operator named it. */
static int check_identity(const struct disk_spec *s, const struct disk *disk, struct err *e)
{
	const struct disk_identity *then = &s->identity;
	struct disk_identity now;
	const char *what = NULL;

	if (!s->has_identity)
		return 0;
	disk_identity(disk, &now);
	if (now.dev != then->dev || now.ino != then->ino)
		what = "is another file now";
	else if (now.size != then->size)
		what = "has another size now";
	else if (now.mtime_ns != then->mtime_ns)
		what = "was written since";
	if (!what)
		return 0;
	return err_set(e, -ESTALE,
		"disk \"%s\": %s %s, so the snapshot does not fit it; if it is right all the same, "
		"name it: --disk id=%s,path=%s",
		s->id, s->path, what, s->id, s->path);
}

/* Where overlays without a name lie: they may grow, so it should be on a disk. */
static const char *overlay_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && dir[0] == '/' ? dir : "/var/tmp";
}

/* @image is NULL, or the file, open, which is taken over, also on failure. */
static int open_disk(struct disk **ret, const struct disk_spec *s, struct handed_file *image,
	struct ring *ring, struct err *e)
{
	struct disk_config cfg = {
		.path = s->path,
		.overlay = s->overlay[0] ? s->overlay : NULL,
		.saved_overlay = s->saved_overlay[0] ? s->saved_overlay : NULL,
		.overlay_dir = s->is_overlaid ? overlay_dir() : NULL,
		.base_moved = s->moved || (!s->has_identity && s->saved_overlay[0]),
		.read_only = s->read_only,
		.sync = s->sync,
	};
	int r;

	if (s->unnamed)
		return err_set(e, -EINVAL,
			"disk \"%s\": %s: name the disk with --disk id=%s,path=FILE", s->id,
			s->unnamed, s->id);
	r = image ? disk_adopt(ret, &cfg, fd_steal(&image->fd), ring, e)
		  : disk_open(ret, &cfg, ring, e);
	if (r == -ENOENT && s->has_identity && access(s->path, F_OK))
		return err_set(e, r,
			"disk \"%s\": %s is not there any more; if it was moved, name it: --disk "
			"id=%s,path=FILE", s->id, s->path, s->id);
	if (r)
		return err_wrap(e, "disk \"%s\"", s->id);
	r = check_identity(s, *ret, e);
	if (r)
		disk_close(ret);
	return r;
}

/* Another VM is known by its id. */
static void name_owner(const struct disk_spec *s, struct err *e)
{
	long pid = s->overlay[0] ? disk_owner(s->overlay) : 0;
	size_t n = strlen(e->msg);
	char id[VM_ID_MAX + 1];

	if (!pid)
		pid = disk_owner(s->path);
	if (pid && vm_by_pid((pid_t)pid, id))
		snprintf(e->msg + n, sizeof(e->msg) - n, " (VM \"%s\")", id);
}

static int add_disk(struct machine *m, unsigned n, struct err *e)
{
	const struct disk_spec *s = &m->spec->dev.disk[n];
	struct blk_config cfg = {.id = s->id, .queues = m->spec->vcpus, .limit = s->limit};
	struct virtio_dev *d;
	struct disk *disk;
	int r = open_disk(&disk, s, NULL, m->ring, e);

	if (r == -EBUSY)
		name_owner(s, e);
	if (r)
		return r;
	r = blk_create(&d, &cfg, disk, m->ring, m->mem, next_irq(m), e);
	if (r) {
		disk_close(&disk);
		return r;
	}
	return add(m, d, s->id, n, e);
}

static int open_net(struct net_backend *ret, const struct net_spec *s, struct err *e)
{
	const char *unnamed = s->unnamed;
	int r;

	if (!unnamed && s->way == NET_BY_FD && s->fd < 0)
		unnamed = "it was a descriptor when the snapshot was made";
	if (unnamed)
		return err_set(e, -EINVAL,
			"network \"%s\": %s: name it with --net id=%s,tap=NAME or fd=N", s->id,
			unnamed, s->id);
	switch (s->way) {
	case NET_BY_TAP: r = net_tap_open(ret, s->tap, s->queues, e); break;
	case NET_BY_FD: r = net_tap_from_fd(ret, s->fd, e); break;
	case NET_BY_PASST: r = net_passt_open(ret, s->sock, e); break;
	default: r = net_passt_start(ret, e);
	}
	return r ? err_wrap(e, "network \"%s\"", s->id) : 0;
}

static int add_net(struct machine *m, unsigned n, struct err *e)
{
	const struct net_spec *s = &m->spec->dev.net[n];
	struct net_config cfg = {
		.id = s->id,
		.mtu = s->mtu,
		.allow_spoof = s->allow_spoof,
		.pairs = s->queues,
		.rx = s->rx,
		.tx = s->tx,
	};
	struct net_backend backend;
	struct virtio_dev *d;
	int r = open_net(&backend, s, e);

	if (r)
		return r;
	memcpy(cfg.mac, s->mac, sizeof(cfg.mac));
	r = net_create(&d, &cfg, &backend, m->ring, m->mem, next_irq(m), e);
	if (r) {
		net_backend_close(&backend);
		return r;
	}
	return add(m, d, s->id, n, e);
}

static int add_vsock(struct machine *m, struct err *e)
{
	struct vsock_config cfg = {
		.cid = m->spec->vsock_cid,
		.path = m->spec->vsock_path,
		.listen_fd = m->dir.vsock_fd,
		.wait_ms = m->spec->vsock_wait_ms,
		.dialer = m->dial ? dial_dialer(m->dial) : NULL,
	};
	struct virtio_dev *d;
	int r = vsock_create(&d, &cfg, m->ring, m->mem, next_irq(m), e);

	if (r)
		return r;
	m->dir.vsock_fd = -1;
	return add(m, d, "vsock", 0, e);
}

unsigned devices_count(const struct machine_spec *spec)
{
	return spec->dev.disk_count + spec->dev.net_count + 1;
}

int devices_create(struct machine *m, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < m->spec->dev.disk_count && !r; i++)
		r = add_disk(m, i, e);
	for (unsigned i = 0; i < m->spec->dev.net_count && !r; i++)
		r = add_net(m, i, e);
	return r ? r : add_vsock(m, e);
}

void devices_loaded(struct machine *m)
{
	for (unsigned i = 0; i < m->spec->dev.net_count; i++)
		if (m->spec->dev.net[i].has_mac)
			net_set_mac(m->slot[m->spec->dev.disk_count + i].dev,
				m->spec->dev.net[i].mac);
}

static void on_kick(struct ring_op *op, int res)
{
	struct device_slot *slot = container_of(op, struct device_slot, kick);

	if (res == -ECANCELED)
		return;
	ring_read(slot->machine->ring, op, slot->dev->kick_fd, &slot->kick_count,
		sizeof(slot->kick_count));
	virtio_process(slot->dev);
	machine_stirred(slot->machine);
}

void devices_start(struct machine *m)
{
	for (unsigned i = 0; i < m->device_count; i++) {
		struct device_slot *slot = &m->slot[i];

		slot->kick.done = on_kick;
		ring_fix_file(m->ring, slot->dev->kick_fd);
		ring_read(m->ring, &slot->kick, slot->dev->kick_fd, &slot->kick_count,
			sizeof(slot->kick_count));
		if (slot->dev->ops->device_id == VIRTIO_ID_VSOCK)
			vsock_start(slot->dev);
		if (slot->dev->ops->device_id == VIRTIO_ID_NET)
			net_start(slot->dev);
		/* After a restore: a notification may have come before the snapshot. */
		virtio_process(slot->dev);
	}
}

void devices_last_turns(struct machine *m)
{
	for (unsigned i = 0; i < m->device_count; i++)
		virtio_process(m->slot[i].dev);
	for (unsigned i = 0; i < LAST_TURNS && ring_poll_once(m->ring) > 0; i++)
		;
	for (unsigned i = 0; i < m->device_count; i++)
		if (m->slot[i].dev->ops->device_id == VIRTIO_ID_VSOCK)
			vsock_finish(m->slot[i].dev);
}

void devices_release(struct machine *m)
{
	for (unsigned i = 0; i < m->spec->dev.disk_count && i < m->device_count; i++) {
		struct virtio_dev *d = m->slot[i].dev;

		pthread_mutex_lock(&d->lock);
		if (!d->io_count)
			disk_release(blk_disk(d));
		pthread_mutex_unlock(&d->lock);
	}
}

static struct virtio_dev *find(struct machine *m, u32 device_id, const char *id)
{
	for (unsigned i = 0; i < m->device_count; i++)
		if (m->slot[i].dev->ops->device_id == device_id && !strcmp(m->slot[i].id, id))
			return m->slot[i].dev;
	return NULL;
}

/* Another file in the place of the disk's, or the same one, looked at again. */
static int change_path(struct machine *m, struct virtio_dev *d, struct disk_spec *s,
	const char *path, struct handed_file *image, struct err *e)
{
	struct disk_spec next = *s;
	struct disk *disk;
	int r;

	if (!image && !strcmp(path, s->path)) {
		u64 size = blk_resize(d);

		log_line("disk %s: %llu bytes", s->id, (unsigned long long)size);
		return 0;
	}
	if (strlen(path) >= sizeof(next.path))
		return err_set(e, -ENAMETOOLONG, "the path is too long");
	if (s->is_overlaid)
		return err_set(e, -EINVAL, "a disk with an overlay keeps its image");
	if (!image && m->spec->jailed)
		return err_set(e, -EACCES,
			"this VM is jailed and sees no files of the host: hand it an open one "
			"(\"files\": [\"path_on_host\"]), or start it with --no-jail");
	snprintf(next.path, sizeof(next.path), "%s", path);
	next.has_identity = false;
	r = open_disk(&disk, &next, image, m->ring, e);
	if (r)
		return r;
	r = blk_swap(d, disk, e);
	if (r) {
		disk_close(&disk);
		return err_wrap(e, "disk \"%s\"", s->id);
	}
	*s = next;
	if (vmdir_note_host(&m->dir, m->spec, e))
		log_line("%s", e->msg); /* a restore will ask for its name */
	log_line("disk %s: now %s", s->id, s->path);
	return 0;
}

int machine_change_disk(struct machine *m, const char *id, const char *path,
	struct handed_file *image, const struct limit_config *limit, struct err *e)
{
	struct virtio_dev *d = find(m, VIRTIO_ID_BLOCK, id);
	struct disk_spec *s = NULL;
	int r;

	for (unsigned i = 0; i < m->spec->dev.disk_count; i++)
		if (!strcmp(m->spec->dev.disk[i].id, id))
			s = &m->spec->dev.disk[i];
	if (!d || !s)
		return err_set(e, -ENOENT, "Invalid device id: there is no disk \"%s\"", id);
	r = path ? change_path(m, d, s, path, image, e) : 0;
	if (!r && limit) {
		s->limit = *limit;
		blk_set_limit(d, limit);
	}
	return r;
}

int machine_change_net(struct machine *m, const char *id, const struct limit_config *rx,
	const struct limit_config *tx, struct err *e)
{
	struct virtio_dev *d = find(m, VIRTIO_ID_NET, id);
	struct net_spec *s = NULL;

	for (unsigned i = 0; i < m->spec->dev.net_count; i++)
		if (!strcmp(m->spec->dev.net[i].id, id))
			s = &m->spec->dev.net[i];
	if (!d || !s)
		return err_set(e, -ENOENT, "Invalid device id: there is no network \"%s\"", id);
	if (rx)
		s->rx = *rx;
	if (tx)
		s->tx = *tx;
	net_set_limits(d, &s->rx, &s->tx);
	return 0;
}
