/* SPDX-License-Identifier: Apache-2.0 */
/* sig.h - signals. */
#ifndef KELVIN_MONITOR_BASE_SIG_H
#define KELVIN_MONITOR_BASE_SIG_H

#include <signal.h>
#include <stdbool.h>

/* As whoever started us wants it: nohup, or a shell without job control. */
static inline bool sig_is_ignored(int sig)
{
	struct sigaction sa;

	return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

#endif
