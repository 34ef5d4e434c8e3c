/* SPDX-License-Identifier: Apache-2.0 */
/* tool.h - what the small programs of bench/ share: how they end, the clock, round trips. */
#ifndef BENCH_TOOL_H
#define BENCH_TOOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The name that die() begins with; each program sets it first. */
extern const char *tool_name;

/* Ends the program with one line, errno's text behind it if there is one. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
/* For programs that run until they are killed: they do not outlive whoever started them. */
void die_with_parent(void);
/* CLOCK_MONOTONIC, in ns. */
uint64_t now_ns(void);
/* A positive decimal number, or the end of the program. */
uint64_t number(const char *text);

/* All of @len bytes, or the end of the program. */
void write_all(int fd, const void *buf, size_t len);
void read_all(int fd, void *buf, size_t len);

/* Sorts @ns[0..count) and prints one JSON object: count, p50_ns, p99_ns, max_ns. */
void print_trips(uint64_t *ns, size_t count);
/* One JSON object: count, bytes, ns. */
void print_bulk(uint64_t count, uint64_t bytes, uint64_t ns);

#endif
