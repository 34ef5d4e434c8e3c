/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial.h - a 16550 at port 0x3f8, only with --console: what the guest prints, and reads.
 *
 * Registers are touched by vCPU threads, host descriptors by the loop; one mutex between them.
 * Both directions are bounded: output nobody takes is dropped and counted (S01), input waits on
 * the host side until the guest reads (S02).
 */
#ifndef KELVIN_MONITOR_SERIAL_H
#define KELVIN_MONITOR_SERIAL_H

#include "monitor/base/bytes.h"
#include "monitor/base/err.h"
#include "virtio/ring.h"

#define SERIAL_PORT  0x3f8u
#define SERIAL_PORTS 8u

struct serial;

struct serial_host {
	int out_fd;    /* where output goes; stays the caller's */
	int in_fd;     /* where input comes from, or -1 */
	u64 out_limit; /* bytes to write at most, 0: no limit */
	void (*wake)(void *ctx);  /* have the loop call serial_flush(); any thread */
	void (*raise)(void *ctx); /* the interrupt line; any thread */
	void *ctx;
};

int serial_create(struct serial **ret, const struct serial_host *host, struct ring *ring,
	struct err *e);
void serial_destroy(struct serial **s);

/* vCPU threads. @reg 0..7. */
u8 serial_read(struct serial *s, u16 reg);
void serial_write(struct serial *s, u16 reg, u8 value);

/* Loop thread. */
void serial_start(struct serial *s); /* begins to read input */
void serial_flush(struct serial *s); /* begins to write what waits */
/* At the end: writes what is left, for at most 100 ms. */
void serial_drain(struct serial *s);
u64 serial_dropped(const struct serial *s);
/* Copies the last bytes, at most @cap, that the guest printed. Returns how many. */
size_t serial_tail(struct serial *s, char *out, size_t cap);

void serial_save(struct serial *s, struct enc *out);
int serial_load(struct serial *s, const void *data, size_t len, struct err *e);

#endif
