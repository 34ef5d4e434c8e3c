/* SPDX-License-Identifier: Apache-2.0 */
/* exec.h - the host's side of a command that a guest's agent runs (agent_proto.h). */
#ifndef KELVIN_MONITOR_EXEC_H
#define KELVIN_MONITOR_EXEC_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

struct exec_spec {
	bool tty;		 /* a terminal for the command; ours becomes raw, if stdin is one */
	const char *user, *cwd;	 /* "": the guest's defaults */
	char *const *argv;	 /* argc of them, at least one */
	unsigned argc;
	const char *const *env;  /* "NAME=VALUE" */
	unsigned env_count;
};

/*
 * Runs the command over @fd, a fresh connection to the agent, which stays the caller's. stdin,
 * stdout and stderr are this process's; SIGINT, SIGTERM and SIGQUIT are passed on, and the third of
 * them ends the wait. *@ret_status is the verb's exit status where this returns 0; where it fails,
 * too (1, or 126 and 127 where the command cannot be run).
 */
int exec_run(int fd, const struct exec_spec *spec, int *ret_status, struct err *e);

#endif
