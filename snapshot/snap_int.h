/* SPDX-License-Identifier: Apache-2.0 */
/* snap_int.h - what an open snapshot is; for the files that read one. */
#ifndef KELVIN_SNAPSHOT_SNAP_INT_H
#define KELVIN_SNAPSHOT_SNAP_INT_H

#include "snapshot/format.h"

struct snap {
	char *dir;     /* as the caller named it, for messages */
	u8 *buf;       /* DIR/state; what @state points into */
	int memory_fd; /* read-only */
	bool trusted;
	struct snap_state state;
};

#endif
