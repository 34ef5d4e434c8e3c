/* SPDX-License-Identifier: Apache-2.0 */
/* show.h - facts on stdout, for people and for programs. What came from a file or a VM is made
 * harmless for a terminal first. */
#ifndef KELVIN_MONITOR_SHOW_H
#define KELVIN_MONITOR_SHOW_H

#include <jansson.h>
#include <stdio.h>

#include "monitor/base/types.h"

#define SHOW_NAME_WIDTH 20 /* of the left column */

/* Prints @j (taken over; NULL is out of memory) as JSON. Returns the exit status. */
int show_json(json_t *j);
/* Prints an object as aligned "name  value" lines, members of members indented, without what is
 * empty and rate limits that are not set. */
void show_facts(const json_t *object);
/* One such line; @fmt makes the value, which is wrapped at blanks so that 79 columns do. */
void show_line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Text with bytes that a terminal might act on replaced; each line after the first is indented. */
void show_text(const char *text, int indent);
/* "2026-11-23 06:22:09 UTC" */
const char *show_date(u64 realtime_ns, char *buf, size_t cap);
/* "850 ms", "42s", "1h02m", "3d04h" */
const char *show_age(u64 ms, char *buf, size_t cap);
/* Flushes stdout; 1, with a message, if what was printed did not get there. */
int show_end(void);

#endif
