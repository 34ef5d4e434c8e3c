/* SPDX-License-Identifier: Apache-2.0 */
/* fake_machine.h - a machine.h without KVM: states, and answers that come when a test says so. */
#ifndef KELVIN_TESTS_FAKE_MACHINE_H
#define KELVIN_TESTS_FAKE_MACHINE_H

#include "monitor/machine.h"

struct machine {
	enum life_state state;
	struct ring *ring;
	bool slow_pause, slow_snapshot; /* they wait for fake_paused(), fake_written() */
	const char *pause_error, *resume_error, *snapshot_error; /* NULL: it succeeds */
	size_t reply_padding; /* bytes of text in facts */

	/* What was asked for. */
	unsigned pauses, resumes, snapshots, stops;
	char dir[256];
	bool force;
	bool jailed;
	unsigned handed; /* files that were taken over */
	char stop_why[32];
	u64 stop_wait_ns;
	unsigned changes; /* of disk0 and net0 */
	char change_path[256];
	struct limit_config change_limit;

	machine_done pause_done[8];
	void *pause_ctx[8];
	unsigned pause_waiters;
	machine_done snapshot_done;
	void *snapshot_ctx;
	json_t **snapshot_info;
};

void fake_paused(struct machine *m);
void fake_written(struct machine *m);

#endif
