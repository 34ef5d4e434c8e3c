/* SPDX-License-Identifier: Apache-2.0 */
/* dial.h - connections of a jailed VM's guest to unix sockets, through the keeper (keeper.h). */
#ifndef KELVIN_MONITOR_DIAL_H
#define KELVIN_MONITOR_DIAL_H

#include "virtio/vsock.h"

struct dial;

/* @socket, to the keeper, stays the caller's. Used and destroyed by the loop thread. */
int dial_create(struct dial **ret, int socket, struct ring *ring, struct err *e);
void dial_destroy(struct dial **d); /* after the vsock device and ring_close(); NULL is fine */
struct vsock_dialer *dial_dialer(struct dial *d);

#endif
