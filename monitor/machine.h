/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.h - one virtual machine: assembled, run by the event loop, and taken apart.
 *
 * Everything here is called by the loop thread. Requests that need the vCPUs to stop first finish
 * later, through a callback, on the loop thread too.
 */
#ifndef KELVIN_MONITOR_MACHINE_H
#define KELVIN_MONITOR_MACHINE_H

#include <jansson.h>

#include "memory/memory.h"
#include "monitor/base/err.h"
#include "vcpu/vm.h"
#include "virtio/limit.h"
#include "virtio/ring.h"

/* Life cycle: the legal edges are a table in life.c. */
#define LIFE_STATES(X)                                                                             \
	X(NEW, "new")                                                                              \
	X(CONFIGURED, "configured")                                                                \
	X(RUNNING, "running")                                                                      \
	X(PAUSED, "paused")                                                                        \
	X(SNAPSHOTTING, "snapshotting")                                                            \
	X(STOPPED, "stopped")

enum life_state {
#define X(id, name) LIFE_##id,
	LIFE_STATES(X)
#undef X
	LIFE_COUNT
};
const char *life_name(enum life_state s);
bool life_is_name(const char *name); /* one of those; NULL is none */
bool life_may(enum life_state from, enum life_state to);

struct machine;

/* @err is NULL on success; it and what it says live until the callback returns. */
typedef void (*machine_done)(void *ctx, const struct err *err);

enum life_state machine_state(const struct machine *m);
pid_t machine_pid(const struct machine *m); /* as the host sees it */
const char *machine_id(const struct machine *m);
struct ring *machine_ring(const struct machine *m);

/* Pausing a paused machine and resuming a running one succeed and do nothing. */
void machine_pause(struct machine *m, machine_done done, void *ctx);
void machine_resume(struct machine *m, machine_done done, void *ctx);

/* A file that a client opened and handed over. */
struct handed_file {
	const char *name; /* what it is for */
	int fd;           /* becomes -1 where it is taken over */
};

/* Whether it sees no files of the host, so that all that it is to use must be handed over. */
bool machine_jailed(const struct machine *m);

struct snapshot_request {
	const char *dir; /* absolute; copied */
	bool force;      /* replace what is there, atomically */
	/*
	 * NULL: @dir is made, and published when it is whole. Else its files, those of
	 * machine_snapshot_files(), empty and open for reading and writing: they are written and
	 * synced, @dir is only what messages call it, and @force means nothing.
	 */
	struct handed_file *file;
	unsigned file_count;
};
/*
 * Writes a snapshot of a PAUSED machine (-EBUSY otherwise; machine_pause() first). The bulk is
 * done by a worker thread; @done runs on the loop thread once it is on stable storage. *ret_info,
 * if not NULL, is set to a new object (bytes, data_bytes, write_us) before a successful @done.
 */
void machine_snapshot(struct machine *m, const struct snapshot_request *req, json_t **ret_info,
	machine_done done, void *ctx);
/* The names of the files that one has now: an array. */
json_t *machine_snapshot_files(const struct machine *m);

/*
 * Changes the disk @id: another @path (the same path: its size is looked at again) and another
 * @limit; NULL leaves each as it is. With @image, which is taken over where that succeeds, @path is
 * only what the file is called. The guest is told by a config interrupt.
 */
int machine_change_disk(struct machine *m, const char *id, const char *path,
	struct handed_file *image, const struct limit_config *limit, struct err *e);
/* Changes the limits of the network @id; NULL leaves one as it is. */
int machine_change_net(struct machine *m, const char *id, const struct limit_config *rx,
	const struct limit_config *tx, struct err *e);

/*
 * Presses the power button of a running guest that listens for it, and ends the guest if it has not
 * powered off @wait_ns later. Any other guest, and with 0, is ended at once.
 */
void machine_power_off(struct machine *m, u64 wait_ns);

/* Ends the guest; the loop ends once the vCPUs left. @why is for the log and the exit report. */
void machine_stop(struct machine *m, const char *why);

/* Facts for GET /, GET /vm/config and `ps`/`inspect`; the caller owns the object. */
json_t *machine_instance_info(const struct machine *m); /* {id, state, vmm_version, app_name} */
json_t *machine_config(const struct machine *m);        /* Firecracker's VmConfig, plus "kelvin" */
json_t *machine_facts(const struct machine *m);         /* ours: pid, uptime, counters ... */

#endif
