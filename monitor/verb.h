/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verb.h - the verbs of the command line: one file a verb (cmd_<verb>.c), one table (main.c).
 *
 * A verb gets argv from its own name on and returns the process's exit status. Errors are one line
 * on stderr: "kelvin: what failed: why"; exit 1, or 2 for bad usage.
 */
#ifndef KELVIN_MONITOR_VERB_H
#define KELVIN_MONITOR_VERB_H

#include <getopt.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

/* X(name, one line for the overview) */
#define VERBS(X)                                                                                   \
	X(run, "boot a kernel or unikernel")                                                       \
	X(snapshot, "write a running VM to a directory")                                           \
	X(restore, "bring a snapshot back, once or many times")                                    \
	X(ps, "list VMs")                                                                          \
	X(pause, "stop a VM's processors")                                                         \
	X(resume, "let a paused VM go on")                                                         \
	X(stop, "end a VM in an orderly way")                                                      \
	X(kill, "end a VM now")                                                                    \
	X(gc, "remove what killed VMs left")                                                       \
	X(connect, "join stdin and stdout to a guest's vsock port")                                \
	X(exec, "run a command in a Linux guest")                                                  \
	X(cp, "copy files to or from a Linux guest")                                               \
	X(stats, "what a VM's devices and its loop have done")                                     \
	X(inspect, "say what is in a snapshot or a VM")                                            \
	X(verify, "check every byte of a snapshot")                                                \
	X(jailer, "start a monitor in a jail, as Firecracker's jailer does")                       \
	X(version, "print the version")

#define X(name, text) int cmd_##name(int argc, char **argv);
VERBS(X)
#undef X

/* One option of a verb, for parsing and for --help alike. */
struct opt_spec {
	const char *name; /* long name, without "--" */
	/* What --help calls its argument, and explains if it is SIZE or TIME; NULL: takes none;
	 * "[X]": optional. */
	const char *arg;
	const char *help; /* of 50 columns; \n begins another */
	int id;           /* what opt_next() returns; > 0 */
};

struct opt_parser {
	const char *verb;
	const char *usage;    /* "kelvin pause [--json] ID" without "kelvin " */
	const char *summary;  /* one or two lines */
	const char *examples; /* whole lines, each ending in \n */
	const struct opt_spec *opts;
	unsigned opt_count;
	/* private */
	struct option *longopts;
	int argc;
	char **argv;
};

/*
 * Parsing, on top of getopt_long(). opt_next() returns an option's id with *arg set, 0 at the end
 * of the options (operands begin at optind), and -1 on bad usage, after it printed one line.
 * --help is handled inside: prints the page on stdout and exits 0.
 */
void opt_begin(struct opt_parser *p, int argc, char **argv);
int opt_next(struct opt_parser *p, const char **arg);
/* Prints "kelvin VERB: <text>" and "see kelvin VERB --help"; returns 2. */
int usage_error(const struct opt_parser *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Prints "kelvin: <message>"; returns 1. */
int fail(const struct err *e);

/* "128M", "1G", "4096" -> bytes. "250ms", "2s", "1m", "5" (seconds) -> ns. Overflow is an error. */
int parse_size(const char *s, u64 *ret, struct err *e);
int parse_time(const char *s, u64 *ret_ns, struct err *e);
int parse_uint(const char *s, u64 min, u64 max, u64 *ret, struct err *e);
/* The other way, for people: "128M", "3.2M", "1.5G"; "850 us", "12.3 ms", "2.1 s". */
const char *show_size(u64 bytes, char *buf, size_t cap);
const char *show_ns(u64 ns, char *buf, size_t cap);

#endif
