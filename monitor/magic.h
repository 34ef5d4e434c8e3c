/* SPDX-License-Identifier: Apache-2.0 */
/*
 * magic.h - what a file is that is no kernel of ours, for people who gave the wrong one.
 */
#ifndef KELVIN_MONITOR_MAGIC_H
#define KELVIN_MONITOR_MAGIC_H

#include <stddef.h>

#define MAGIC_HEAD_LEN 64u /* bytes that are looked at, at most */

/* A phrase for messages ("a script"), or NULL where the first @len bytes are not recognised. */
const char *magic_what(const void *head, size_t len);

#endif
