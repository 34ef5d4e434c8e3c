/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save.c - a machine to a snapshot directory, and what a snapshot says about its machine.
 *
 * The machine is PAUSED: vCPUs parked, devices frozen, so nothing changes while this works. The
 * loop thread collects all small state; a worker thread writes it and the memory, and syncs; the
 * loop is told by EVENT_JOB and answers. The only thing waited for before that is device I/O on
 * guest memory that the kernel has not finished.
 *
 * The worker writes to open files (save_files.c). Whoever handed them over publishes them once it
 * has the answer; where nobody did, the worker makes the directory before, and publishes it after.
 *
 * Sections: "machine" (JSON: what was asked for), "vm", "vcpu<N>", "virtio.<name>", "serial"; of a
 * pc also "chips", "cmos" and "i8042". The overlay of a disk travels as the file disk.<id>; disks
 * without one are synced, and known again at the restore by what `identity` says of them.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/log.h"
#include "monitor/machine_int.h"
#include "virtio/blk.h"

struct part {
	char tag[SNAP_TAG_MAX];
	struct enc bytes;
};

struct snapshot_job {
	struct machine *machine;
	char dir[PATH_MAX];
	bool force;
	bool handed; /* the files are there, and somebody else publishes them */
	struct save_files files;
	char *host; /* the file of that name, where we make it; owned */
	json_t **ret_info;
	machine_done done;
	void *ctx;

	bool started; /* the worker runs */
	pthread_t worker;
	struct part part[VCPU_MAX + DEVICES_MAX + 6];
	unsigned part_count;
	struct err err; /* the worker's; code 0 on success */
	u64 data_bytes, begun_ns, took_ns;
};

static struct enc *new_part(struct snapshot_job *job, const char *tag)
{
	struct part *p = &job->part[job->part_count++];

	must(job->part_count <= ARRAY_SIZE(job->part));
	must(strlen(tag) < sizeof(p->tag));
	memcpy(p->tag, tag, strlen(tag) + 1);
	return &p->bytes;
}

static void free_job(struct snapshot_job *job)
{
	for (unsigned i = 0; i < job->part_count; i++)
		enc_free(&job->part[i].bytes);
	save_files_close(&job->files);
	free(job->host);
	free(job);
}

/* The disks as they are now, with who they are. */
static json_t *disks_text(struct machine *m)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < m->spec->dev.disk_count; i++) {
		struct disk_spec *s = &m->spec->dev.disk[i];

		disk_identity(blk_disk(m->slot[i].dev), &s->identity);
		json_array_append_new(list, disk_to_json(s));
	}
	return list;
}

static json_t *nets_text(const struct machine *m)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < m->spec->dev.net_count; i++)
		json_array_append_new(list, net_to_json(&m->spec->dev.net[i]));
	return list;
}

static int save_machine_text(struct snapshot_job *job, struct err *e)
{
	const struct machine_spec *s = job->machine->spec;
	json_t *j = json_pack(
		"{s:s, s:s, s:I, s:i, s:s, s:b, s:s, s:s, s:{s:I, s:i}, s:i, s:s, s:o, s:o}", "id",
		s->id, "machine", kind_name(s->kind), "memory", (json_int_t)s->memory, "vcpus",
		(int)s->vcpus, "cpu_template", s->cpu, "console", s->console, "kernel", s->kernel,
		"cmdline", s->cmdline, "vsock", "cid", (json_int_t)s->vsock_cid, "wait_ms",
		(int)s->vsock_wait_ms, "generation",
		(int)job->machine->generation, "monitor", "kelvin " KELVIN_VERSION, "disks",
		disks_text(job->machine), "nets", nets_text(job->machine));
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	if (!text)
		return err_set(e, -EINVAL,
			"cannot describe the machine: its command line is not valid UTF-8");
	enc_bytes(new_part(job, "machine"), text, strlen(text));
	free(text);
	return 0;
}

static int collect(struct snapshot_job *job, struct err *e)
{
	struct machine *m = job->machine;
	const struct machine_spec *s = m->spec;
	const struct host_share share = spec_share(s);
	char tag[64];
	int r = save_machine_text(job, e);

	if (!r && !job->handed) {
		job->host = dev_host_text(&s->dev, &share);
		if (!job->host)
			r = err_sys(e, ENOMEM, "cannot hold the VM's state");
	}
	if (!r)
		r = vm_save(m->vm, new_part(job, "vm"), e);
	for (unsigned i = 0; i < m->spec->vcpus && !r; i++) {
		snprintf(tag, sizeof(tag), "vcpu%u", i);
		r = vcpu_save(m->vm, i, new_part(job, tag), e);
	}
	/* After the vCPUs: what a chip hands to one of them now is in neither, but what waits in a
	 * chip is not lost. */
	if (!r && s->kind == MACHINE_PC)
		r = vm_save_pc(m->vm, new_part(job, "chips"), e);
	if (!r && s->kind == MACHINE_PC) {
		cmos_save(&m->cmos, new_part(job, "cmos"));
		i8042_save(&m->i8042, new_part(job, "i8042"));
	}
	for (unsigned i = 0; i < m->device_count && !r; i++) {
		virtio_save(m->slot[i].dev, new_part(job, m->slot[i].tag));
	}
	if (m->serial && !r)
		serial_save(m->serial, new_part(job, "serial"));
	for (unsigned i = 0; i < job->part_count && !r; i++)
		if (job->part[i].bytes.oom)
			r = err_sys(e, ENOMEM, "cannot hold the VM's state");
	return r;
}

static int write_overlay(struct snapshot_job *job, struct snap_writer *w,
	const struct disk_spec *s, struct disk *disk, struct err *e)
{
	char name[SNAP_FILE_MAX];
	int fd, r;

	snprintf(name, sizeof(name), SAVE_DISK_FILE, s->id);
	fd = save_files_steal(&job->files, name);
	r = disk_save_overlay(disk, fd, e);
	if (!r)
		return snap_add_file(w, name, fd, e);
	fd_close(&fd);
	return r;
}

/* What the guest wrote is on stable storage; overlays are copied. The devices stand still. */
static int write_disks(struct snapshot_job *job, struct snap_writer *w, struct err *e)
{
	struct machine *m = job->machine;
	int r = 0;

	for (unsigned i = 0; i < m->spec->dev.disk_count && !r; i++) {
		const struct disk_spec *s = &m->spec->dev.disk[i];
		struct disk *disk = blk_disk(m->slot[i].dev);

		r = disk_sync_now(disk, e);
		if (!r && s->is_overlaid)
			r = write_overlay(job, w, s, disk, e);
		if (r)
			err_wrap(e, "disk \"%s\"", s->id);
	}
	return r;
}

/* All into the files, which are there. */
static int write_files(struct snapshot_job *job, struct err *e)
{
	struct snap_writer *w = NULL;
	int r = snap_create(&w, &sys_host, job->dir, save_files_steal(&job->files, SNAP_STATE_FILE),
		save_files_steal(&job->files, SNAP_MEMORY_FILE), e);

	for (unsigned i = 0; i < job->part_count && !r; i++)
		r = snap_add(w, job->part[i].tag, SNAP_VERSION, job->part[i].bytes.buf,
			job->part[i].bytes.len, e);
	if (!r)
		r = write_disks(job, w, e);
	if (!r)
		r = snap_add_memory(w, job->machine->mem, NULL, NULL, e);
	if (r) {
		snap_abort(&w);
		return r;
	}
	job->data_bytes = snap_data_bytes(w);
	return snap_finish(&w, e);
}

static int write_dir(struct snapshot_job *job, struct err *e)
{
	struct snap_dir *dir = NULL;
	int r = snap_dir_create(&dir, &sys_host, job->dir, job->force, e);

	if (!r && job->host)
		r = snap_dir_host(dir, job->host, strlen(job->host), e);
	if (!r)
		r = save_files_make(&job->files, dir, e);
	if (!r)
		r = write_files(job, e);
	if (!r)
		return snap_dir_commit(&dir, e);
	snap_dir_abort(&dir);
	return r;
}

static void *work(void *arg)
{
	struct snapshot_job *job = arg;

	enum jail_thread kind = machine_jailed(job->machine) ? JAIL_WRITER : JAIL_WRITER_NAMES;
	int r = jail_filter(kind, job->machine->spec->seccomp, &job->err);

	if (!r && job->handed)
		write_files(job, &job->err);
	else if (!r)
		write_dir(job, &job->err);
	job->took_ns = since_start_ns() - job->begun_ns;
	machine_post(job->machine, EVENT_JOB);
	return NULL;
}

/* Back to PAUSED (unless the VM ended meanwhile), and the answer. */
static void finish(struct snapshot_job *job)
{
	struct machine *m = job->machine;
	bool ok = job->err.code == 0;

	m->job = NULL;
	if (m->life == LIFE_SNAPSHOTTING)
		life_set(m, LIFE_PAUSED);
	if (ok && job->ret_info)
		*job->ret_info = json_pack("{s:s, s:I, s:I, s:I}", "dir", job->dir, "bytes",
			(json_int_t)m->mem->size, "data_bytes", (json_int_t)job->data_bytes,
			"write_us", (json_int_t)(job->took_ns / 1000));
	if (ok)
		log_line("snapshot %s: written", job->dir);
	else
		log_line("%s", job->err.msg);
	if (job->done)
		job->done(job->ctx, ok ? NULL : &job->err);
	free_job(job);
}

static bool devices_idle(struct machine *m)
{
	bool idle = true;

	for (unsigned i = 0; i < m->device_count; i++) {
		struct virtio_dev *d = m->slot[i].dev;

		pthread_mutex_lock(&d->lock);
		idle = idle && d->io_count == 0;
		pthread_mutex_unlock(&d->lock);
	}
	return idle;
}

void save_job_retry(struct machine *m)
{
	struct snapshot_job *job = m->job;
	int r;

	if (!job || job->started || !devices_idle(m))
		return;
	if (collect(job, &job->err)) {
		finish(job);
		return;
	}
	r = pthread_create(&job->worker, NULL, work, job);
	if (r) {
		err_sys(&job->err, r, "cannot start the thread that writes the snapshot");
		finish(job);
		return;
	}
	job->started = true;
}

void save_job_finished(struct machine *m)
{
	struct snapshot_job *job = m->job;

	if (!job || !job->started)
		return;
	pthread_join(job->worker, NULL);
	finish(job);
}

json_t *machine_snapshot_files(const struct machine *m)
{
	json_t *list = json_array();
	struct save_files files;

	save_files_list(&files, m->spec);
	for (unsigned i = 0; i < files.count; i++)
		json_array_append_new(list, json_string(files.file[i].name));
	return list;
}

static int prepare(struct snapshot_job **ret, struct machine *m, const struct snapshot_request *req,
	struct err *e)
{
	struct snapshot_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job || strlen(req->dir) >= sizeof(job->dir)) {
		free(job);
		return err_set(e, -ENAMETOOLONG, "cannot prepare a snapshot in %.200s", req->dir);
	}
	job->machine = m;
	job->force = req->force;
	job->handed = req->file != NULL;
	job->begun_ns = since_start_ns();
	snprintf(job->dir, sizeof(job->dir), "%s", req->dir);
	save_files_list(&job->files, m->spec);
	r = job->handed ? save_files_take(&job->files, req->file, req->file_count, e) : 0;
	if (r)
		free_job(job);
	else
		*ret = job;
	return r;
}

void machine_snapshot(struct machine *m, const struct snapshot_request *req, json_t **ret_info,
	machine_done done, void *ctx)
{
	struct snapshot_job *job;
	struct err e;

	if (m->life != LIFE_PAUSED) {
		err_set(&e, -EBUSY, "the VM must be paused first (it is %s)", life_name(m->life));
		done(ctx, &e);
		return;
	}
	if (prepare(&job, m, req, &e)) {
		done(ctx, &e);
		return;
	}
	job->ret_info = ret_info;
	job->done = done;
	job->ctx = ctx;
	m->job = job;
	life_set(m, LIFE_SNAPSHOTTING);
	save_job_retry(m);
}

/* One string of the "machine" section, refused when it does not fit. */
static int copy_text(char *out, size_t cap, const char *text, const char *what, struct err *e)
{
	if (strlen(text) >= cap)
		return err_set(e, -EINVAL, "section machine: %s is too long", what);
	snprintf(out, cap, "%s", text);
	return 0;
}

/* The rest of @spec is there. */
static int devices_from_json(struct machine_spec *spec, const json_t *j, const struct snap *s,
	struct err *e)
{
	const struct host_share share = spec_share(spec);
	json_t *disks = json_object_get(j, "disks"), *nets = json_object_get(j, "nets"), *item;
	struct dev_spec *d = &spec->dev;
	const void *host;
	size_t i, host_len;
	int r = 0;

	/* Older snapshots know neither. */
	if (json_array_size(disks) > DISKS_MAX || json_array_size(nets) > NETS_MAX)
		return err_set(e, -EINVAL, "section machine: too many devices");
	json_array_foreach(disks, i, item) {
		struct disk_spec *disk = &d->disk[i];
		char name[SNAP_FILE_MAX];

		r = disk_from_json(disk, item, e);
		if (r)
			return err_wrap(e, "section machine");
		snprintf(name, sizeof(name), SAVE_DISK_FILE, disk->id);
		if (disk->is_overlaid) {
			r = snap_has_file(s, name, e);
			if (r)
				return r;
			if (snprintf(disk->saved_overlay, PATH_MAX, "%s/%s", spec->snapshot,
				    name) >= PATH_MAX)
				return err_set(e, -ENAMETOOLONG, "its path is too long");
		}
	}
	d->disk_count = (unsigned)json_array_size(disks);
	json_array_foreach(nets, i, item) {
		r = net_from_json(&d->net[i], item, e);
		if (r)
			return err_wrap(e, "section machine");
	}
	d->net_count = (unsigned)json_array_size(nets);
	host = snap_host(s, &host_len);
	return dev_host_vouch(d, &share, host, host_len, snap_trusted(s), &spec->share_known, e);
}

int spec_from_snapshot(struct machine_spec *spec, const struct snap *s, struct err *e)
{
	const char *kernel, *cmdline;
	/* Of older snapshots, which say neither. */
	const char *cpu = "host", *kind = kind_name(MACHINE_LEAN);
	const struct snap_section *sec;
	json_int_t memory, cid;
	int vcpus, console, wait_ms, r;
	json_error_t je;
	json_t *j;

	r = snap_find(s, "machine", &sec, e);
	if (r)
		return r;
	j = json_loadb(sec->data, sec->len, JSON_REJECT_DUPLICATES, &je);
	if (!j)
		return err_set(e, -EINVAL, "section machine: not JSON: %s", je.text);
	if (json_unpack_ex(j, &je, 0, "{s:I, s:i, s?s, s:b, s:s, s:s, s:{s:I, s:i}, s?s}", "memory",
		    &memory, "vcpus", &vcpus, "cpu_template", &cpu, "console", &console,
		    "kernel", &kernel, "cmdline", &cmdline, "vsock", "cid", &cid, "wait_ms",
		    &wait_ms, "machine", &kind)) {
		json_decref(j);
		return err_set(e, -EINVAL, "section machine: %s", je.text);
	}
	if ((u64)memory != snap_mem_size(s))
		r = err_set(e, -EINVAL,
			"section machine: memory of %lld bytes, but the map has %llu",
			(long long)memory, (unsigned long long)snap_mem_size(s));
	else if (vcpus < 1 || vcpus > (int)VCPU_MAX)
		r = err_set(e, -EINVAL, "section machine: %d vCPUs", vcpus);
	else if (cid < 3 || cid >= UINT32_MAX || wait_ms < 0)
		r = err_set(e, -EINVAL, "section machine: vsock cid %lld", (long long)cid);
	else if (!kind_from_name(kind, &spec->kind) || spec->kind == MACHINE_AUTO)
		r = err_set(e, -EINVAL, "section machine: there is no machine \"%.32s\"", kind);
	spec->memory = (u64)memory;
	spec->vcpus = (unsigned)vcpus;
	spec->console = console;
	if (!r)
		r = copy_text(spec->kernel, sizeof(spec->kernel), kernel, "kernel", e);
	if (!r)
		r = copy_text(spec->cmdline, sizeof(spec->cmdline), cmdline, "cmdline", e);
	if (!r)
		r = copy_text(spec->cpu, sizeof(spec->cpu), cpu, "cpu_template", e);
	if (!r)
		r = devices_from_json(spec, j, s, e);
	json_decref(j);
	if (r)
		return r;
	if (!spec->vsock_cid)
		spec->vsock_cid = (u32)cid;
	if (spec->vsock_wait_ms == VSOCK_WAIT_UNSET)
		spec->vsock_wait_ms = (u32)wait_ms;
	return 0;
}
