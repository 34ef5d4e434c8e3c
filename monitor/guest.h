/* SPDX-License-Identifier: Apache-2.0 */
/* guest.h - connections of verbs to ports of a guest. */
#ifndef KELVIN_MONITOR_GUEST_H
#define KELVIN_MONITOR_GUEST_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

#define GUEST_TIMEOUT_NS 10000000000ull /* for the guest to accept, where nothing else is said */

struct guest_port {
	const char *id; /* of the VM */
	unsigned port;
	u64 timeout_ns; /* for the guest to accept */
};

/*
 * Connects to @t; tries again for @wait_ns where there is no such VM yet, or nobody listens.
 * *ret_fd does not block. *ret_end (NULL: not wanted) is a pipe from which a byte can be read once
 * the guest's stream has ended in good order, or -1 where the VM offers none. -ECONNREFUSED: the
 * guest does not listen.
 */
int guest_connect(const struct guest_port *t, u64 wait_ns, int *ret_fd, int *ret_end,
	struct err *e);

/* Connects to the agent (agent_proto.h) in VM @id, which may take @timeout_ns to accept. */
int guest_agent(const char *id, u64 timeout_ns, u64 wait_ns, int *ret_fd, struct err *e);
/* Puts what each request to the agent begins with at @p. Returns where it ends: 8. */
u32 guest_request(u8 *p);

#endif
