/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack.h - what an attacker in a monitor's process would try; for the program `captive`.
 *
 * An attack is one function. It returns what it got hold of, or NULL with errno where it was
 * denied. One that tries several things returns the first that worked. They make system calls by
 * themselves and nothing else that could fail for another reason: no malloc(), no files of libc.
 */
#ifndef KELVIN_TESTS_ATTACK_H
#define KELVIN_TESTS_ATTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct machine;

struct attack {
	const char *name;
	const char *(*run)(void);
};

extern const struct attack attacks_on_files[], attacks_on_kernel[], attacks_on_peers[],
	attacks_on_keeper[], attacks_on_clients[], attacks_by_fd[]; /* the last of each has no name */

/* What the test has laid out, and tells by environment variables KELVIN_PRIZE_*. */
struct prizes {
	char secret[256];   /* a file all may read */
	char root[256];     /* one that only root may */
	char sock[108];     /* a unix socket's path */
	char name[64];      /* an abstract one's name */
	char api[108];      /* the API of another VM */
	int port;           /* of TCP on 127.0.0.1 */
	int vsock;          /* a port of the host's vsock */
	int fd;             /* of whoever starts it: not meant for it */
	pid_t vm, keeper;   /* another VM, and the keeper of that one */
	unsigned vm_uid;
};
extern struct prizes prize;

/* The machine that is attacked from inside. */
extern struct machine *victim;

int attack_keeper_fd(void);
int attack_log_fd(void);
int attack_notify_fd(void);
struct io_uring *attack_ring(void);

/* "it" where @r is not negative, else NULL: for system calls. */
#define GOT_IF(r, it) ((r) >= 0 ? (it) : NULL)

#endif
