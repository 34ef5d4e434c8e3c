/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.h - the HTTP server on a VM's api.sock.
 *
 * HTTP/1.1 with Firecracker's paths, fields, status codes and error bodies; our additions are
 * under /kelvin/. Runs on the loop thread through the ring, never blocks; limits are in api.c.
 */
#ifndef KELVIN_MONITOR_API_H
#define KELVIN_MONITOR_API_H

#include "monitor/machine.h"

struct api;

/* Serves @m on @listen_fd (bound, listening; ownership passes). Begins to accept at once. */
int api_create(struct api **ret, struct machine *m, int listen_fd, struct err *e);
/* Closes everything. Replies already queued are sent first, for at most 100 ms. NULL is fine. */
void api_destroy(struct api **a);
/* Whether a reply is still on its way to a client. */
bool api_busy(const struct api *a);

#endif
