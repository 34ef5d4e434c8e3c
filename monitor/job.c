/* SPDX-License-Identifier: Apache-2.0 */
/* job.c - see job.h */
#include "monitor/job.h"

#include <signal.h>
#include <unistd.h>

bool job_is_in_background(void)
{
	pid_t front = tcgetpgrp(STDIN_FILENO);

	return front > 0 && front != getpgrp();
}

void job_stop(int sig)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, &old); /* stops here */
	sigprocmask(SIG_SETMASK, &old, NULL);
}
