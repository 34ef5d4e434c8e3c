/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_vm.c - what the routes of api_routes.def do.
 *
 * Requests of several clients may overlap: a pause while a snapshot pauses, a stop during a
 * snapshot. Each handler therefore asks the machine again in its callbacks instead of remembering
 * what it saw, and a snapshot resumes the VM only if nobody asked for a pause meanwhile (A09).
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/api_int.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"

#define CREATE_ERROR "Create snapshot error: "
#define JAILED                                                                                     \
	"this VM is jailed and sees no files of the host: use kelvin snapshot, which hands it "    \
	"open files, or start it with --no-jail"
#define STOP_WAIT_MS 10000u /* for a guest to power off */

/* ---- questions ---- */

void api_get_instance(struct api_call *c)
{
	api_answer(c, machine_instance_info(c->machine));
}

void api_get_version(struct api_call *c)
{
	json_auto_t *info = machine_instance_info(c->machine);

	api_answer(c, json_pack("{s:O}", "firecracker_version",
			      json_object_get(info, "vmm_version")));
}

void api_get_config(struct api_call *c)
{
	api_answer(c, machine_config(c->machine));
}

void api_get_machine_config(struct api_call *c)
{
	json_auto_t *config = machine_config(c->machine);

	api_answer(c, json_incref(json_object_get(config, "machine-config")));
}

void api_get_facts(struct api_call *c)
{
	api_answer(c, machine_facts(c->machine));
}

/* ---- pause, resume, stop ---- */

static void vm_changed(void *ctx, const struct err *err)
{
	struct api_call *c = ctx;

	if (err) {
		api_fault(c, "Cannot %s the VM: %s", c->pause_vm ? "pause" : "resume", err->msg);
		return;
	}
	api_hold(c, c->pause_vm);
	api_ok(c);
}

void api_patch_vm(struct api_call *c)
{
	const char *state = NULL;
	const struct api_field fields[] = {{"state", FIELD_STRING, true, &state}};

	if (!api_fields(c, fields, ARRAY_SIZE(fields)))
		return;
	c->pause_vm = strcmp(state, "Paused") == 0;
	if (c->pause_vm)
		machine_pause(c->machine, vm_changed, c);
	else if (strcmp(state, "Resumed") == 0)
		machine_resume(c->machine, vm_changed, c);
	else
		api_fault(c, API_JSON_ERROR
			"unknown variant `%.64s`, expected `Paused` or `Resumed`.",
			state);
}

/* In these two the reply is queued before the VM begins to end: teardown is slow. */

void api_put_stop(struct api_call *c)
{
	struct machine *m = c->machine;
	u64 wait_ms = STOP_WAIT_MS;
	const struct api_field fields[] = {{"wait_ms", FIELD_COUNT, false, &wait_ms}};

	if (!api_fields(c, fields, ARRAY_SIZE(fields)))
		return;
	api_ok(c);
	machine_power_off(m, (wait_ms < INT32_MAX ? wait_ms : INT32_MAX) * 1000000);
}

void api_put_kill(struct api_call *c)
{
	struct machine *m = c->machine;

	if (!api_fields(c, NULL, 0))
		return;
	api_ok(c);
	machine_stop(m, "kill");
}

/* ---- PUT /snapshot/create: Firecracker's, of a paused VM ---- */

static void created(void *ctx, const struct err *err)
{
	struct api_call *c = ctx;

	if (err)
		api_fault(c, CREATE_ERROR "%s", err->msg);
	else
		api_ok(c);
}

/* "DIR/state" -> "DIR" (malloc()ed); NULL if @path does not end in "/" @name. */
static char *dir_of(const char *path, const char *name)
{
	size_t len = strlen(path), n = strlen(name);

	if (len < n + 2 || path[len - n - 1] != '/' || strcmp(path + len - n, name))
		return NULL;
	return strndup(path, len - n - 1);
}

/*
 * Firecracker's two files are two names in our directory: DIR/state and DIR/memory. Returns 0 with
 * c->dir set, or a fault was sent.
 */
static int take_two_paths(struct api_call *c, const char *state, const char *memory)
{
	_cleanup_free_ char *other = NULL;

	c->dir = state;
	if (memory) {
		c->own_dir = dir_of(state, "state");
		other = dir_of(memory, "memory");
		c->dir = c->own_dir;
		if (!c->own_dir || !other || strcmp(c->own_dir, other)) {
			api_fault(c, CREATE_ERROR "a snapshot is a directory here: give "
					"snapshot_path DIR/state and mem_file_path DIR/memory, or "
					"only snapshot_path DIR");
			return -EINVAL;
		}
	}
	if (c->dir[0] != '/') {
		api_fault(c, CREATE_ERROR "\"%.200s\" is not an absolute path", c->dir);
		return -EINVAL;
	}
	return 0;
}

/*
 * Firecracker writes over old files, so its clients expect that; but our writer replaces the whole
 * directory, so it must hold nothing but a snapshot. True where @dir may be replaced or is absent.
 */
static bool may_replace(const char *dir)
{
	static const char *const ours[] = {".", "..", "state", "memory", "memory.zst",
		"working-set"};
	DIR *d = opendir(dir); /* syscalls[L]: openat, fstat, getdents64, close */
	struct dirent *ent;
	bool clean = true;

	if (!d)
		return errno == ENOENT;
	while (clean && (ent = readdir(d))) {
		bool known = strncmp(ent->d_name, "disk.", 5) == 0;

		for (unsigned i = 0; i < ARRAY_SIZE(ours); i++)
			known = known || strcmp(ent->d_name, ours[i]) == 0;
		clean = known;
	}
	closedir(d);
	return clean;
}

void api_put_snapshot_create(struct api_call *c)
{
	const char *state = NULL, *memory = NULL, *type = "Full";
	const struct api_field fields[] = {
		{"snapshot_type", FIELD_STRING, false, &type},
		{"snapshot_path", FIELD_STRING, true, &state},
		{"mem_file_path", FIELD_STRING, false, &memory},
	};
	struct snapshot_request req = {.force = true};

	if (!api_fields(c, fields, ARRAY_SIZE(fields)))
		return;
	if (strcmp(type, "Full") && strcmp(type, "Diff")) {
		api_fault(c, API_JSON_ERROR
			"unknown variant `%.64s`, expected `Full` or `Diff`.",
			type);
		return;
	}
	if (strcmp(type, "Diff") == 0) {
		api_fault(c, CREATE_ERROR "snapshot_type Diff is not supported: use Full");
		return;
	}
	if (take_two_paths(c, state, memory))
		return;
	if (machine_jailed(c->machine)) {
		api_fault(c, CREATE_ERROR JAILED);
		return;
	}
	if (machine_state(c->machine) != LIFE_PAUSED) {
		api_fault(c, CREATE_ERROR "save/restore unavailable while running: pause the VM "
				"first");
		return;
	}
	if (!may_replace(c->dir)) {
		api_fault(c, CREATE_ERROR "%.200s is there and is not a snapshot", c->dir);
		return;
	}
	req.dir = c->dir;
	machine_snapshot(c->machine, &req, NULL, created, c);
}

/*
 * ---- PUT /kelvin/snapshot: pause, snapshot, and back to how it was (or stop) ----
 *
 * With "files" the client has made the directory and hands its files over, and publishes it after
 * the answer. "stop" then leaves the VM paused, for the client to end it when the snapshot has its
 * name; a client that hangs up before that has lost the snapshot, so the VM goes on.
 */

void api_get_snapshot(struct api_call *c)
{
	api_answer(c, json_pack("{s:o}", "files", machine_snapshot_files(c->machine)));
}

static void answer_snapshot(struct api_call *c)
{
	struct machine *m = c->machine;
	bool stop = c->stop && !c->handed && !c->err.code;
	json_t *facts = c->info;

	if (c->err.code) {
		api_fault(c, CREATE_ERROR "%s", c->err.msg);
		return;
	}
	c->info = NULL;
	if (!facts)
		facts = json_object();
	json_object_set_new(facts, "dir", json_string(c->dir));
	json_object_set_new(facts, "state",
		json_string(stop ? "stopped" : life_name(machine_state(m))));
	json_object_set_new(facts, "pause_us",
		json_integer((json_int_t)(c->paused_ns / 1000)));
	if (c->stop && c->handed && c->was_running)
		api_resume_on_hangup(c);
	api_answer(c, facts);
	if (stop)
		machine_stop(m, "stop");
}

/* A VM that cannot go on says so in the state of the answer: the snapshot itself is what it is. */
static void snapshot_resumed(void *ctx, const struct err *err)
{
	struct api_call *c = ctx;

	if (c->was_running)
		c->paused_ns = monotonic_ns() - c->pause_begun_ns;
	answer_snapshot(c);
}

static void snapshot_written(void *ctx, const struct err *err)
{
	struct api_call *c = ctx;
	bool resume = c->was_running && !api_held(c) && (err || !c->stop);

	if (err)
		c->err = *err;
	if (resume)
		machine_resume(c->machine, snapshot_resumed, c);
	else
		snapshot_resumed(c, NULL);
}

static void snapshot_paused(void *ctx, const struct err *err)
{
	struct api_call *c = ctx;
	struct snapshot_request req = {
		.dir = c->dir,
		.force = c->force,
		.file = c->handed ? c->file : NULL,
		.file_count = c->file_count,
	};

	if (err) {
		api_fault(c, CREATE_ERROR "the VM does not pause: %s", err->msg);
		return;
	}
	machine_snapshot(c->machine, &req, &c->info, snapshot_written, c);
}

void api_put_snapshot(struct api_call *c)
{
	const struct api_field fields[] = {
		{"dir", FIELD_STRING, true, &c->dir},
		{"files", FIELD_FILES, false, &c->handed},
		{"force", FIELD_BOOL, false, &c->force},
		{"stop", FIELD_BOOL, false, &c->stop},
	};

	if (!api_fields(c, fields, ARRAY_SIZE(fields)))
		return;
	if (c->dir[0] != '/') {
		api_fault(c, CREATE_ERROR "\"%.200s\" is not an absolute path", c->dir);
		return;
	}
	if (!c->handed && machine_jailed(c->machine)) {
		api_fault(c, CREATE_ERROR JAILED);
		return;
	}
	c->was_running = machine_state(c->machine) == LIFE_RUNNING;
	c->pause_begun_ns = monotonic_ns();
	machine_pause(c->machine, snapshot_paused, c);
}
