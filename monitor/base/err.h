/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - the error object for failures of the host or the operator.
 *
 * A function that can fail takes `struct err *e` last and returns 0 or a negative errno. On
 * failure it fills the object through one of the makers below, each of which returns the code, so
 * that `return err_set(e, -EINVAL, ...)` is the whole error path. On success the object is left
 * alone. No allocation, no printing: the caller decides who reads the message.
 *
 * What a guest does wrong is never an `err` (see enum vq_result), and what we do wrong is must().
 */
#ifndef KELVIN_BASE_ERR_H
#define KELVIN_BASE_ERR_H

struct err {
	int code; /* negative errno; 0 while nothing failed */
	char msg[512];
};

/* Sets the message. Returns @code, which must be negative. @e may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Sets the message to "<text>: <strerror(errnum)>". @errnum is positive. Returns -@errnum. */
int err_sys(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " before the message that is there. Returns the code that is there. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
