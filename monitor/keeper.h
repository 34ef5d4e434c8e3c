/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.h - the process outside the jail that a jailed VM has, and how the two speak.
 *
 * A jailed monitor sees no files. What must still be done on the host for it is little, and its
 * parent does it: connect to PATH_port where the guest opens a vsock connection, hold the lock by
 * which the VM counts as alive, kill it if it does not end when it has to, remove its directory in
 * /run when it has ended, however that was, and tell how. See keeper.c for what it believes.
 *
 * One socket (SOCK_SEQPACKET) for each VM; a message is a struct keeper_msg, and what follows it.
 */
#ifndef KELVIN_MONITOR_KEEPER_H
#define KELVIN_MONITOR_KEEPER_H

#include <sys/types.h>

#include "jailer/cgroup.h"
#include "jailer/jailer.h"
#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define KEEPER_TEXT_MAX 16384u /* bytes of an exit report */

enum keeper_verb {
	/* From the VM. */
	KEEPER_HERE, /* the directory is this VM's: see to it when the VM is gone. With it comes the
		      * descriptor whose lock says that the VM lives. No answer. */
	KEEPER_DIAL, /* value: a port. Answered by KEEPER_DIALED, in the order of asking. */
	KEEPER_BYE,  /* value: keep the log; text: the exit report. Answered by the socket's end. */
	/* To it. */
	KEEPER_GO,     /* first, unasked. value: bits; with it, descriptors of the void, then those
			* to join a cgroup by. Or -1: text says why it cannot be */
	KEEPER_DIALED, /* value: 0 and a connected socket (SCM_RIGHTS), or a negative errno */
};

struct keeper_msg {
	u32 verb;
	s32 value;
};

/* Bits of KEEPER_GO's value. */
enum { KEEPER_HAS_VOID = 1, KEEPER_IS_GROUPED = 2 };

/* ---- outside ---- */

struct keeper;

/* What the keeper is to know of a VM. */
struct keeper_vm {
	const char *id;
	const char *vsock_path; /* empty: vsock.sock in the VM's directory */
	/* NULL: no cgroup. `limits_asked`: the operator wants them, so it is an error if there can
	 * be none. Else the VM runs without. */
	const struct cgroup_limits *limits;
	bool limits_asked;
	bool json;              /* its end is told on stdout as an event */
	bool console;           /* it reads stdin */
	bool detach;            /* its log and exit report stay where it did not end well */
	u64 timeout_ns; /* after which it has to end by itself; 0: none */
	u64 grace_ns;   /* what it has for that, or when it was told to, until it is killed */
};

/* @limit: how many VMs there will be at most. */
int keeper_create(struct keeper **ret, unsigned limit, struct err *e);
/*
 * Makes a process and runs run(ctx, socket, cgroup) in it, whose result is its exit status; the
 * process is born into the namespaces @layers (jailer.h), and @cgroup is the name of the group it
 * will be in (keeper_wait() says whether it is).
 */
int keeper_add(struct keeper *k, const struct keeper_vm *vm, unsigned layers,
	int (*run)(void *ctx, int socket, const char *cgroup), void *ctx, struct err *e);
/*
 * Serves the VMs until the last one has ended. SIGTERM and other signals that ask this process to
 * end are passed on to them; who does not end then, or by its timeout, is killed. Returns the exit
 * status of the first, or 128 + its signal. Frees @k.
 */
int keeper_run(struct keeper *k);

/* ---- inside ---- */

/* Sends KEEPER_HERE. @lock_fd: of the locked pid file; the caller closes its own. */
int keeper_here(int socket, int lock_fd, struct err *e);
/*
 * Waits for KEEPER_GO, and enters the cgroup there is for this VM: *@ret_grouped. @ret is the void,
 * to be closed by the caller, or all -1: the VM makes its own namespaces.
 */
int keeper_wait(int socket, struct jail_void *ret, bool *ret_grouped, struct err *e);
/* Takes leave: sends @json, waits until the directory is gone. Makes no other system calls than
 * send and recv, and takes no locks. */
void keeper_bye(int socket, bool keep_log, const char *json);

#endif
