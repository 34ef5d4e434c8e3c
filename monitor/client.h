/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - what verbs use to find running VMs and to talk to their api.sock.
 *
 * VMs live under run_dir()/ID/: api.sock, vsock.sock, pid, log.
 */
#ifndef KELVIN_MONITOR_CLIENT_H
#define KELVIN_MONITOR_CLIENT_H

#include <jansson.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define VM_ID_MAX        64u
#define CLIENT_FILES_MAX 16u

/* /run/kelvin for root, else $XDG_RUNTIME_DIR/kelvin; $KELVIN_RUN_DIR replaces both. */
int run_dir(char *out, size_t cap, struct err *e);
/* 1 to VM_ID_MAX of [A-Za-z0-9_.-], not beginning with '.' or '-' (J01). */
int vm_id_check(const char *id, struct err *e);
/* run_dir()/ID/NAME; fails if it does not fit @cap. @name may be NULL for the directory. */
int vm_path(char *out, size_t cap, const char *id, const char *name, struct err *e);

/* Connects to the socket @name of VM @id. Errors as of client_call(); -EAGAIN: it is too busy. */
int client_connect(int *ret_fd, const char *id, const char *name, struct err *e);

/* The process at the other end of a connection, when it listened; 0: none that is known. */
pid_t client_peer(int fd);

/*
 * One request to VM @id. @body may be NULL; *ret_reply (owned by the caller) is NULL where the
 * reply has no body. A reply of status >= 400 becomes an error (-EREMOTEIO) with its fault_message.
 * An unknown id (-ENOENT), a VM that died, so that nobody listens (-ECONNREFUSED), and a timeout
 * (-ETIMEDOUT) each have their own message. @timeout_ms 0: none.
 */
int client_call(const char *id, const char *method, const char *path, json_t *body,
	unsigned timeout_ms, json_t **ret_reply, struct err *e);

/*
 * For several requests on one connection, or with descriptors: client_dial() connects to VM @id's
 * api.sock, and waits while it is busy; client_ask() is client_call() on @fd, with the @file_count
 * descriptors of @files, which stay the caller's. After an error the connection is of no use, but
 * for -EREMOTEIO.
 */
int client_dial(int *ret_fd, const char *id, struct err *e);
struct client_request {
	const char *id; /* for messages */
	const char *method, *path;
	json_t *body;
	const int *files; /* at most CLIENT_FILES_MAX; the body says what they are */
	unsigned file_count;
	unsigned timeout_ms;
	/* NULL, or asked when they are over: how many there are by now, from the beginning. */
	unsigned (*timeout_now)(const void *ctx);
	const void *ctx;
};
int client_ask(int fd, const struct client_request *q, json_t **ret_reply, struct err *e);

/*
 * The same GET to @n VMs at once, with one time limit for all. ret_reply[i] (owned by the caller)
 * is NULL where VM i did not answer, and ret_err[i] says why.
 */
void client_get_each(const char *const *ids, size_t n, const char *path, unsigned timeout_ms,
	json_t **ret_reply, struct err *ret_err);

#endif
