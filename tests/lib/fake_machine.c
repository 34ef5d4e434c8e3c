/* SPDX-License-Identifier: Apache-2.0 */
/* fake_machine.c - see fake_machine.h */
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"

static void answer(machine_done done, void *ctx, const char *error)
{
	struct err e;

	if (error)
		err_set(&e, -EIO, "%s", error);
	done(ctx, error ? &e : NULL);
}

const char *life_name(enum life_state s)
{
	static const char *const names[] = {
#define X(id, name) name,
		LIFE_STATES(X)
#undef X
	};

	return names[s];
}

enum life_state machine_state(const struct machine *m)
{
	return m->state;
}

bool machine_jailed(const struct machine *m)
{
	return m->jailed;
}

struct ring *machine_ring(const struct machine *m)
{
	return m->ring;
}

void fake_paused(struct machine *m)
{
	unsigned n = m->pause_waiters;

	m->pause_waiters = 0;
	if (!m->pause_error)
		m->state = LIFE_PAUSED;
	for (unsigned i = 0; i < n; i++)
		answer(m->pause_done[i], m->pause_ctx[i], m->pause_error);
}

void machine_pause(struct machine *m, machine_done done, void *ctx)
{
	m->pauses++;
	if (m->state == LIFE_PAUSED) {
		answer(done, ctx, NULL);
		return;
	}
	must(m->pause_waiters < ARRAY_SIZE(m->pause_done));
	m->pause_done[m->pause_waiters] = done;
	m->pause_ctx[m->pause_waiters++] = ctx;
	if (!m->slow_pause)
		fake_paused(m);
}

void machine_resume(struct machine *m, machine_done done, void *ctx)
{
	m->resumes++;
	if (m->state == LIFE_SNAPSHOTTING || m->resume_error) {
		answer(done, ctx, m->resume_error ? m->resume_error : "the VM is not paused");
		return;
	}
	m->state = LIFE_RUNNING;
	answer(done, ctx, NULL);
}

void fake_written(struct machine *m)
{
	if (m->state == LIFE_SNAPSHOTTING)
		m->state = LIFE_PAUSED;
	if (!m->snapshot_error && m->snapshot_info)
		*m->snapshot_info = json_pack("{s:i, s:i, s:i}", "bytes", 134217728, "data_bytes",
			4096, "write_us", 12);
	answer(m->snapshot_done, m->snapshot_ctx, m->snapshot_error);
}

void machine_snapshot(struct machine *m, const struct snapshot_request *req, json_t **ret_info,
	machine_done done, void *ctx)
{
	if (m->state != LIFE_PAUSED) {
		answer(done, ctx, "the VM must be paused first");
		return;
	}
	m->snapshots++;
	snprintf(m->dir, sizeof(m->dir), "%s", req->dir);
	m->force = req->force;
	for (unsigned i = 0; req->file && i < req->file_count; i++, m->handed++)
		fd_close(&req->file[i].fd);
	m->state = LIFE_SNAPSHOTTING;
	m->snapshot_done = done;
	m->snapshot_ctx = ctx;
	m->snapshot_info = ret_info;
	if (!m->slow_snapshot)
		fake_written(m);
}

json_t *machine_snapshot_files(const struct machine *m)
{
	return json_pack("[s, s]", "state", "memory");
}

void machine_power_off(struct machine *m, u64 wait_ns)
{
	m->stop_wait_ns = wait_ns;
	machine_stop(m, "stop");
}

void machine_stop(struct machine *m, const char *why)
{
	m->stops++;
	snprintf(m->stop_why, sizeof(m->stop_why), "%s", why);
}

json_t *machine_instance_info(const struct machine *m)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "id", "fake", "state", "Running", "vmm_version",
		"1.2.3", "app_name", "kelvin");
}

json_t *machine_config(const struct machine *m)
{
	return json_pack("{s:{s:i, s:i}}", "machine-config", "vcpu_count", 1, "mem_size_mib", 128);
}

json_t *machine_facts(const struct machine *m)
{
	char *text = calloc(1, m->reply_padding + 1);
	json_t *j;

	must(text);
	memset(text, 'x', m->reply_padding);
	j = json_pack("{s:s, s:s}", "id", "fake", "padding", text);
	free(text);
	return j;
}

int machine_change_disk(struct machine *m, const char *id, const char *path,
	struct handed_file *image, const struct limit_config *limit, struct err *e)
{
	if (strcmp(id, "disk0") != 0)
		return err_set(e, -ENOENT, "Invalid device id: there is no disk \"%s\"", id);
	m->changes++;
	if (image) {
		m->handed++;
		fd_close(&image->fd);
	}
	snprintf(m->change_path, sizeof(m->change_path), "%s", path ? path : "");
	m->change_limit = limit ? *limit : (struct limit_config){0};
	return 0;
}

int machine_change_net(struct machine *m, const char *id, const struct limit_config *rx,
	const struct limit_config *tx, struct err *e)
{
	if (strcmp(id, "net0") != 0)
		return err_set(e, -ENOENT, "Invalid device id: there is no network \"%s\"", id);
	m->changes++;
	m->change_limit = rx ? *rx : (struct limit_config){0};
	return 0;
}
