/* SPDX-License-Identifier: Apache-2.0 */
/* pump.h - moves bytes both ways between standard descriptors and a stream socket. */
#ifndef KELVIN_MONITOR_PUMP_H
#define KELVIN_MONITOR_PUMP_H

#include "monitor/base/err.h"
#include "monitor/base/types.h"

/*
 * From @in to @sock and from @sock to @out, until both ways have ended. The end of @in is passed on
 * as a half close; when the peer takes no more, the rest of @in is left alone. None of the three is
 * closed, and no flag of @in or @out is changed, because others may share them; @sock may block or
 * not. *@ret_lost: the peer went before it took all that was read from @in.
 *
 * Fails where reading @in or writing @out does, named "stdin" and "stdout" in the message.
 */
int pump(int in, int out, int sock, bool *ret_lost, struct err *e);

/*
 * A descriptor of our own for writing to @out, which does not block where that can be had without
 * changing what others share: a pipe is opened anew. *@ret_sock: write it by send(), with
 * MSG_DONTWAIT. -1 and errno on failure.
 */
int pump_open_out(int out, bool *ret_sock);

#endif
