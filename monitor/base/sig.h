/* SPDX-License-Identifier: Apache-2.0 */
/* sig.h - signals. */
#ifndef KELVIN_MONITOR_BASE_SIG_H
#define KELVIN_MONITOR_BASE_SIG_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "monitor/base/types.h"

/* As whoever started us wants it: nohup, or a shell without job control. */
static inline bool sig_is_ignored(int sig)
{
	struct sigaction sa;

	return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

/* For all that ask a command to end, but for those that are ignored. */
static inline void sig_catch_ends(const struct sigaction *sa)
{
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		if (!sig_is_ignored(sigs[i]))
			sigaction(sigs[i], sa, NULL);
}

#endif
