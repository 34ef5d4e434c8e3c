/* SPDX-License-Identifier: Apache-2.0 */
/* agent.h - what the agent's files share. The agent is in agent.c. */
#ifndef KELVIN_LINUX_AGENT_H
#define KELVIN_LINUX_AGENT_H

#include <sys/types.h>

#include "monitor/base/frame.h"

#define WORKERS_MAX 256u /* connections at once */

/* ---- agent_ident.c: the identity page and the doorbell ---- */

/* Maps both from /dev/mem, or from files (tests). Where there is no identity page there is taken
 * to be no doorbell either, and all below does nothing. */
void ident_open(const char *page_file, const char *door_file);
bool ident_present(void);
u32 ident_generation(void);
/* True once after each restore, and the first time. One load. */
bool ident_changed(void);
/* Takes up what the page says: randomness, clock, host name, network. */
void ident_apply(void);
/* "The guest is ready." */
void door_ready(void);
/* Ends the VM with @status; returns where that is not possible. */
void door_power(unsigned status);

/* Sets the clock to @wall_ns if it is off by more than CLOCK_SLACK_NS; @forward: only forward.
 * Returns 1 if it was set, 0 if not, -errno. */
int clock_step(u64 wall_ns, bool forward);

/* ---- agent_net.c ---- */

void net_lo_up(void);
/* Does what lines "key=value" in @text say. Unknown keys are not for us. */
int net_apply(const char *text, size_t len, struct err *e);
/* Copies the value of the line "name=value" in @text; false where there is none that fits. */
bool text_line(const char *text, size_t len, const char *name, char *out, size_t cap);

/* ---- agent_init.c: being process 1 ---- */

/* Mounts, loads modules, goes to the root file system, brings lo up. */
void init_begin(void);
/* Copies the value of the kernel's word name=value; false where there is none. */
bool init_word(const char *name, char *out, size_t cap);
/* Starts what the kernel's command line asks for; 0: nothing, and then an init of the image's own
 * may have been started instead: see init_hand_over(). */
pid_t init_command(void);
/* Where kelvin.init= names the image's own init: becomes it, and goes on in a child. Returns true
 * in the child. */
bool init_hand_over(void);
_Noreturn void init_end(unsigned status, bool again);

/* ---- agent_user.c: who a command runs as ---- */

#define GROUPS_MAX 64u

struct user {
	uid_t uid;
	gid_t gid, groups[GROUPS_MAX];
	unsigned group_count;
	bool change; /* false: as the agent itself */
	char name[64], home[256], shell[256];
};

/* @spec: NAME, UID, either with :GROUP or :GID; "" is the agent's own. */
int user_find(const char *spec, struct user *u, struct err *e);
/* Becomes @u. Returns 0 or -errno. */
int user_become(const struct user *u);

/* ---- agent_serve.c, agent_exec.c: one connection, in a process of its own ---- */

/* Serves the connection @fd to its end. @step: the clock may be stepped to what the host says. */
void serve(int fd, bool step);
/* Tells the peer that its request failed, and hears it out so that it learns of it. */
void serve_fail(int fd, u32 status, const struct err *e);
/* A command; @f is the request. */
void exec_serve(struct frame_reader *in, const struct frame *f);

#endif
