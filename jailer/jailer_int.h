/* SPDX-License-Identifier: Apache-2.0 */
/* jailer_int.h - what syscalls.def, the program that reads it, and seccomp.c agree on. */
#ifndef KELVIN_JAILER_INT_H
#define KELVIN_JAILER_INT_H

#include <linux/filter.h>

#include "jailer/jailer.h"
#include "monitor/base/types.h"

/* The threads of syscalls.def, each a bit for every filter it stands for. */
enum {
	JL = 1u << JAIL_LOOP,
	JW = 1u << JAIL_WRITER,
	LN = 1u << JAIL_LOOP_NAMES,
	WN = 1u << JAIL_WRITER_NAMES,
	L = JL | LN,
	V = 1u << JAIL_VCPU,
	W = JW | WN,
};

/* An argument passes if (argument & mask) == value. */
struct filter_test {
	u64 mask, value;
};
#define EQ(v)      {UINT64_MAX, v}
#define NONE_OF(b) {b, 0}

/* Stands for the process's id, which is known when a filter is loaded. */
#define OWN_PID 0x44495021u

/* How glibc's pthread_create() makes a thread. */
#define PTHREAD_FLAGS                                                                              \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND | CLONE_THREAD |        \
		CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#define FILTER_MAX 512u /* instructions */

struct filter {
	const struct sock_filter *code;
	unsigned short len;
};
extern const struct filter filters[]; /* by enum jail_thread */

#endif
