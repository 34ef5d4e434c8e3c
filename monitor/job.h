/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - a VM in the foreground is a job of the operator's shell, and its keeper sees to that.
 *
 * The VM's process has given up the terminal (jail_drop_terminal()), so the kernel no longer stops
 * it where a job would be: it is pid 1 of its namespace, to which Ctrl-Z means nothing, and it may
 * read a terminal that another job has. The keeper still is an ordinary process of the job.
 */
#ifndef KELVIN_MONITOR_JOB_H
#define KELVIN_MONITOR_JOB_H

#include "monitor/base/types.h"

/* Whether stdin is the terminal of this session, and another job has it now. */
bool job_is_in_background(void);

/*
 * Stops the calling process by @sig (SIGTSTP, SIGTTIN), which may be blocked, until somebody
 * continues it: at once where nobody would, for the kernel stops no orphaned job.
 */
void job_stop(int sig);

#endif
