/* SPDX-License-Identifier: Apache-2.0 */
/*
 * panic.h - what the end of a guest's console tells about the guest's end.
 *
 * Pure functions of what a guest printed, which is hostile: output is cut to fit and holds nothing
 * but printable ASCII. Any thread.
 */
#ifndef KELVIN_MONITOR_PANIC_H
#define KELVIN_MONITOR_PANIC_H

#include "monitor/base/types.h"

/*
 * Finds the last line by which Linux says that it panics, and why; it may have a time before it.
 * True: it is in @out, without the time.
 */
bool panic_find(const char *text, size_t len, char *out, size_t cap);

/* The last @lines lines that are not empty, each with its newline. */
void panic_last_lines(const char *text, size_t len, unsigned lines, char *out, size_t cap);

#endif
