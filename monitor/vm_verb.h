/* SPDX-License-Identifier: Apache-2.0 */
/* vm_verb.h - what the verbs that talk to running VMs share. */
#ifndef KELVIN_MONITOR_VM_VERB_H
#define KELVIN_MONITOR_VM_VERB_H

#include "monitor/client.h"
#include "monitor/show.h"
#include "monitor/verb.h"

/* For one short request to a VM whose loop is alive. */
#define ANSWER_MS 2000u

/* A verb that does one thing to each of several VMs: pause, resume, stop, kill. */
struct each_verb {
	const char *name, *usage, *summary, *examples;
	const char *timeout_help;
	u64 timeout_ns; /* default of --timeout */
	/* NULL, or the verb has --wait, which is put here. */
	u64 *wait_ns;
	const char *wait_help;
	/* Does it to VM @id. Returns 0 or an error. */
	int (*act)(const char *id, u64 timeout_ns, struct err *e);
};

/* Parses --json, --timeout and IDs; acts on each; returns the exit status. */
int run_each(const struct each_verb *v, int argc, char **argv);

/* In @facts, what VM @id told of itself, the pid becomes that of its pid file, or none: a VM in its
 * guest's hands could name any process. */
void name_host_pid(const char *id, json_t *facts);
/*
 * A monitor in a pid namespace knows its threads by ids that nobody else knows: they are replaced
 * by those that process "pid" of @facts has for threads of these names, and 0. At most VCPU_MAX
 * threads are left.
 */
void name_host_threads(json_t *facts);
/* All that VM @id tells of itself, with its process and threads as the host knows them. */
int ask_facts(const char *id, json_t **ret, struct err *e);

/* `inspect` of a kernel file. Returns the exit status. */
int inspect_kernel(const char *path, bool json);

/* @ns as a timeout for client_call(): at least 1 ms. */
unsigned timeout_ms(u64 ns);

#endif
