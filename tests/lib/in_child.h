/* SPDX-License-Identifier: Apache-2.0 */
/* in_child.h - for tests of what cannot be undone: each case in a process of its own. */
#ifndef KELVIN_TESTS_IN_CHILD_H
#define KELVIN_TESTS_IN_CHILD_H

#include <stdbool.h>

/* Runs @body in a child: its result, which is the verdict, or 128 + the signal it died of. */
int in_child(int (*body)(void));

/* Whether the kernel's description of this thread holds @line, with its \n before and after. */
bool status_has(const char *line);

#endif
