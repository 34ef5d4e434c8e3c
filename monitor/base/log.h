/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - the VM's log: one line an event, time first, written with one write(2).
 *
 * Only monitor/ logs; the libraries below it return errors or count. Any thread may log. Guest
 * bytes never go in raw. A site that a guest can reach uses log_limited().
 */
#ifndef KELVIN_BASE_LOG_H
#define KELVIN_BASE_LOG_H

#include "monitor/base/types.h"

/* Lines go to @fd from now on (default: nowhere). The descriptor stays the caller's. */
void log_to(int fd);

void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct log_site {
	u64 window_ns; /* start of the current 5 s window, CLOCK_MONOTONIC */
	u32 count;     /* lines in it */
};

/* Whether @site may still log in this window: 10 lines in 5 s. */
bool log_allowed(struct log_site *site);

/* A line of which a guest can cause as many as it likes. */
#define log_limited(...)                                                                           \
	do {                                                                                       \
		static struct log_site site_;                                                      \
		if (log_allowed(&site_))                                                           \
			log_line(__VA_ARGS__);                                                     \
	} while (0)

#endif
