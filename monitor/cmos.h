/* SPDX-License-Identifier: Apache-2.0 */
/* cmos.h - the clock of a PC at ports 0x70 and 0x71. */
#ifndef KELVIN_MONITOR_CMOS_H
#define KELVIN_MONITOR_CMOS_H

#include "monitor/base/bytes.h"
#include "monitor/base/err.h"

#define CMOS_PORT  0x70u /* the index; the next one is the data */
#define CMOS_PORTS 2u

/* Plain data; one thread at a time. */
struct cmos {
	u8 index; /* which register the data port shows */
	u8 format; /* the bits of register B that a guest may set */
	/* What the last read of register A or of the seconds saw; not saved. */
	bool latched;
	u64 latch_ns;
};

void cmos_reset(struct cmos *c);
/* One byte at CMOS_PORT + @off. @now_ns is the wall clock (CLOCK_REALTIME). */
u8 cmos_read(struct cmos *c, u16 off, u64 now_ns);
void cmos_write(struct cmos *c, u16 off, u8 value);

void cmos_save(const struct cmos *c, struct enc *out);
/* @data is hostile: refused, or all of it is taken. */
int cmos_load(struct cmos *c, const void *data, size_t len, struct err *e);

#endif
