/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfind.h - which VMs are there, seen from outside: directories, pid files and their processes.
 *
 * There is a lock on the pid file of a VM as long as it lives, or its keeper has yet to see to what
 * it left; see vmdir.c.
 */
#ifndef KELVIN_MONITOR_VMFIND_H
#define KELVIN_MONITOR_VMFIND_H

#include <jansson.h>
#include <sys/types.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"
#include "monitor/client.h"

/* The pid in the pid file of the VM's directory open at @dir_fd; 0: none. */
pid_t vm_pid_in(int dir_fd);
/* State (a letter) and parent of process @pid; either may be NULL. False: there is none. */
bool process_stat(const char *pid, char *ret_state, pid_t *ret_parent);
/* The id of the VM whose monitor is process @pid, which lives; false: there is none. */
bool vm_by_pid(pid_t pid, char ret_id[VM_ID_MAX + 1]);

/* What a VM's directory can hold. The pid file is last: who removes it gives the name back. */
#define VM_DEVICES_FILE "devices.json" /* what it has of the host (host_spec.c) */
#define VM_FILES 7u
extern const char *const vm_files[VM_FILES];

enum vm_there {
	VM_ABSENT, /* no such directory, or none that a VM made, or not yet */
	VM_HIDDEN, /* another user's, who lets nobody look */
	VM_LIVES,  /* its monitor runs, or its keeper is just seeing to what it left */
	VM_ENDED,  /* over; its log and exit report were kept */
	VM_DEAD,   /* its monitor died without cleaning up */
};

/* *ret_pid (may be NULL) is what its pid file says, 0 if nothing. */
enum vm_there vm_look(const char *id, pid_t *ret_pid);

/*
 * How the VM @id ended, of what it or its keeper wrote: an object (the caller's) with reason,
 * status, text and console, as far as they are there. Any may be the choice of a hostile guest,
 * control characters and all. NULL: there is no report, or none that can be read.
 */
json_t *vm_exit_report(const char *id);

/* All names in run_dir() that may be VMs (vm_look() knows), sorted; release with vm_list_free(). */
int vm_list(char ***ret_ids, size_t *ret_n, struct err *e);
void vm_list_free(char **ids, size_t n);

/*
 * A handle (pidfd) on the process of VM @id, which the caller closes, and its pid. -ESRCH: it is
 * dead; -EPERM: the pid is not provably that VM's.
 */
int vm_open_process(const char *id, pid_t *ret_pid, struct err *e);

/*
 * Waits until the monitor @pid of VM @id has given the name back (which it does before its slow
 * teardown) or died. -ETIMEDOUT after @timeout_ns.
 */
int vm_wait_gone(const char *id, pid_t pid, u64 timeout_ns, struct err *e);

/* For the end of the process behind @proc, which gave its name back: a captive may only say so. It
 * is killed if that takes long. */
int vm_end_process(const char *id, int proc, pid_t pid, struct err *e);

/*
 * SIGKILL for the monitor of VM @id, if it is provably that. Returns when it is gone, and its
 * keeper has cleaned up or has had a second for that. *ret_pid (may be NULL) is its pid.
 */
int vm_kill_process(const char *id, pid_t *ret_pid, struct err *e);

/* Removes what a dead or ended VM left. -EBUSY if a monitor holds it, or the keeper of one that is
 * not @dead, the pid of a process that was seen dead, or 0. -ENOTEMPTY, and nothing is removed, if
 * there is also what no VM makes. */
int vm_sweep(const char *id, pid_t dead, struct err *e);

/* Where vsock.sock in the directory open at @dir_fd is a link to a socket that nobody listens on
 * any more, removes that socket. */
void vm_remove_linked_socket(int dir_fd);

#endif
