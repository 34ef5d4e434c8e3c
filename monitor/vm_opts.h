/* SPDX-License-Identifier: Apache-2.0 */
/* vm_opts.h - the options that `run` and `restore` have in common, and how they are read. */
#ifndef KELVIN_MONITOR_VM_OPTS_H
#define KELVIN_MONITOR_VM_OPTS_H

#include "monitor/launch.h"
#include "monitor/verb.h"

/* Ids of common options; a verb's own begin at OPT_OWN. */
enum { OPT_ID = 1, OPT_VSOCK, OPT_HINT, OPT_DETACH, OPT_WAIT_READY, OPT_TIMEOUT, OPT_LOG, OPT_JSON,
	OPT_DISK, OPT_NET, OPT_POLL, OPT_CPU_PIN, OPT_NO_JAIL, OPT_JAIL_UID, OPT_CGROUP,
	OPT_SECCOMP, OPT_OWN };

/* Rows for the verb's opt_spec table. */
#define VM_OPTS                                                                                    \
	{"id", "ID", "name of the VM (default: made up)", OPT_ID},                                 \
	{"vsock", "cid=N,path=SOCK,wait=TIME",                                                     \
		"guest CID (3), absolute path of the host socket\n"                                \
		"(vsock.sock in the VM's directory), how long a\n"                                 \
		"CONNECT waits for a listener (1s)",                                               \
		OPT_VSOCK},                                                                        \
	{"poll", "auto|off|TIME",                                                                  \
		"how long to look for work before sleeping (auto:\n"                              \
		"50us if there are more processors than vCPUs)",                                   \
		OPT_POLL},                                                                         \
	{"cpu-pin", "LIST,loop=N",                                                                 \
		"vCPU i on the i-th of these processors (\"0-3\"; too\n"                          \
		"short a list begins again), the event loop on N",                                 \
		OPT_CPU_PIN},                                                                      \
	{"hint", "KEY=VALUE", "text for the guest's identity page, repeatable", OPT_HINT},         \
	{"detach", NULL,                                                                           \
		"run in the background; print the id and return\n"                                \
		"(if it ends badly: kelvin ps --all)",                                             \
		OPT_DETACH},                                                                       \
	{"wait-ready", "[TIME]", "with --detach: return once it is ready (10s)",           \
		OPT_WAIT_READY},                                                                   \
	{"timeout", "TIME", "end the VM after this time (exit status 192)", OPT_TIMEOUT},          \
	{"seccomp", "on|log|off",                                                                  \
		"at a system call that the VM has no business with:\n"                            \
		"kill it (on, the default), tell the kernel's log,\n"                             \
		"or nothing",                                                                      \
		OPT_SECCOMP},                                                                      \
	{"log", "FILE", "append the VM's log there", OPT_LOG},                                     \
	{"no-jail", NULL, "leave the VM's process all rights of its user", OPT_NO_JAIL},           \
	{"jail-uid", "N",                                                                          \
		"as root: user and group id of the VM's process\n"                                \
		"(clones: N, N+1, ...; default: free ones)",                                       \
		OPT_JAIL_UID},                                                                     \
	{"cgroup", "FILE=VALUE|none",                                                              \
		"a limit, repeatable: memory.max=200M, pids.max=64,\n"                            \
		"cpu.max=\"50000 100000\" ... (default, as root:\n"                               \
		"memory and pids by the VM's size, and no swap;\n"                                 \
		"none: no group)",                                                                 \
		OPT_CGROUP},                                                                       \
	{"json", NULL, "facts and events as JSON, one object a line", OPT_JSON}

/* Whether the API, which speaks JSON, can tell @text. */
bool is_utf8(const char *text);

/* Takes one common option into @l. Returns 0, or 2 after it printed what is wrong. */
int vm_opt(const struct opt_parser *p, struct launch *l, int id, const char *arg);

/* After a snapshot's devices are known: applies --disk and --net to them. Same return. */
int vm_opts_change_devices(const struct opt_parser *p, struct launch *l);

/* After all options: defaults, and checks across options. Same return. */
int vm_opts_finish(const struct opt_parser *p, struct launch *l);

#endif
