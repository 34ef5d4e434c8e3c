/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.h - the operator's terminal, and a VM in the foreground that must not have it.
 *
 * Whoever has a terminal open can read what is typed for others, and type for them. So where
 * stdin, stdout or stderr is one, a jailed VM gets pipes in its place and the keeper, an ordinary
 * process of the operator's job, moves the bytes. What is no terminal the VM has itself.
 */
#ifndef KELVIN_MONITOR_TERMINAL_H
#define KELVIN_MONITOR_TERMINAL_H

#include <poll.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define TERMINAL_WAYS 3u /* in, out, error */

struct terminal {
	int vm[TERMINAL_WAYS]; /* what the VM gets as 0, 1 and 2; -1: it keeps what is there */
	struct terminal_way {
		int from, to; /* -1, both: there is nothing to move (any more) */
		size_t off, len;
		char buf[4096];
	} way[TERMINAL_WAYS];
};

/* Nothing, which may be given to all of these. */
void terminal_none(struct terminal *t);
/* @t is none. @reads: the VM reads stdin; else its stdin is empty. Owned: terminal_close(). */
int terminal_open(struct terminal *t, bool reads, struct err *e);
void terminal_close(struct terminal *t);

/* In the VM's process: takes what it gets, and lets go of the rest and of the terminal itself. */
void terminal_leave(struct terminal *t);
/* In the keeper's, once the VM's is there: only that has its ends now. */
void terminal_keep(struct terminal *t);

/* What to wait for; @p has TERMINAL_WAYS places. */
void terminal_wants(const struct terminal *t, struct pollfd *p);
/* Whether what came is for the job in front, and this one is in the background. */
bool terminal_is_others(const struct terminal *t, const struct pollfd *p);
/* Moves what can be moved without a wait. */
void terminal_move(struct terminal *t, const struct pollfd *p);
/* The VM is over: shows all that it said, unless the terminal takes nothing for a second. */
void terminal_finish(struct terminal *t);

/*
 * Stops the calling process by @sig (SIGTSTP, SIGTTIN), which may be blocked, until somebody
 * continues it. False: it did not stop, for nobody would have continued it (an orphaned job).
 */
bool terminal_stop_job(int sig);

#endif
