/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmos.c - an MC146818 that tells the time (UTC) and does nothing else.
 *
 * The registers of the date and the time follow the host's clock at every read, so there is nothing
 * to save of them, and after a restore the guest reads the time that it is. Format bits of register
 * B work (BCD or binary, 12 or 24 hours); all other stores are dropped: the guest cannot set the
 * clock, arm its alarm or its periodic interrupt, or keep bytes here.
 *
 * An update is never in progress. Instead a read of register A, which is how one asks for that, and
 * a read of the seconds, take the time; the other registers tell that same time as long as it is
 * younger than a second. So a guest that reads one register after the other gets one moment,
 * however long each exit takes it.
 */
#include "monitor/cmos.h"

#include <errno.h>
#include <time.h>

#define NS_PER_S 1000000000ull

#define REG_SECONDS 0x00u
#define REG_MINUTES 0x02u
#define REG_HOURS   0x04u
#define REG_WEEKDAY 0x06u /* 1 is Sunday */
#define REG_DAY     0x07u
#define REG_MONTH   0x08u
#define REG_YEAR    0x09u
#define REG_A       0x0au
#define REG_B       0x0bu
#define REG_D       0x0du
#define REG_CENTURY 0x32u

#define A_DIVIDER  0x26u /* 32768 Hz, as PCs have it; bit 7, update in progress, is 0 */
#define B_24_HOURS 0x02u
#define B_BINARY   0x04u
#define D_VALID    0x80u
#define HOUR_PM    0x80u
#define INDEX_MASK 0x7fu /* bit 7 of the index port would mask NMIs */

void cmos_reset(struct cmos *c)
{
	*c = (struct cmos){.format = B_24_HOURS};
}

static u8 encoded(const struct cmos *c, int value)
{
	return (u8)(c->format & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static u8 hours(const struct cmos *c, int hour)
{
	if (c->format & B_24_HOURS)
		return encoded(c, hour);
	return (u8)(encoded(c, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static u8 time_register(struct cmos *c, u64 now_ns)
{
	struct tm tm;
	time_t t;

	if (c->index == REG_SECONDS || !c->latched || now_ns - c->latch_ns >= NS_PER_S)
		c->latch_ns = now_ns;
	c->latched = true;
	t = (time_t)(c->latch_ns / NS_PER_S);
	gmtime_r(&t, &tm);
	switch (c->index) {
	case REG_SECONDS: return encoded(c, tm.tm_sec < 60 ? tm.tm_sec : 59);
	case REG_MINUTES: return encoded(c, tm.tm_min);
	case REG_HOURS: return hours(c, tm.tm_hour);
	case REG_WEEKDAY: return encoded(c, tm.tm_wday + 1);
	case REG_DAY: return encoded(c, tm.tm_mday);
	case REG_MONTH: return encoded(c, tm.tm_mon + 1);
	case REG_YEAR: return encoded(c, tm.tm_year % 100);
	}
	return encoded(c, (tm.tm_year + 1900) / 100); /* REG_CENTURY */
}

u8 cmos_read(struct cmos *c, u16 off, u64 now_ns)
{
	if (!off)
		return UINT8_MAX; /* the index cannot be read back */
	switch (c->index) {
	case REG_SECONDS:
	case REG_MINUTES:
	case REG_HOURS:
	case REG_WEEKDAY:
	case REG_DAY:
	case REG_MONTH:
	case REG_YEAR:
	case REG_CENTURY: return time_register(c, now_ns);
	case REG_A:
		c->latched = true;
		c->latch_ns = now_ns;
		return A_DIVIDER;
	case REG_B: return c->format;
	case REG_D: return D_VALID;
	}
	return 0; /* C, no interrupt came; alarm; memory */
}

void cmos_write(struct cmos *c, u16 off, u8 value)
{
	if (!off)
		c->index = value & INDEX_MASK;
	else if (c->index == REG_B)
		c->format = value & (B_24_HOURS | B_BINARY);
}

void cmos_save(const struct cmos *c, struct enc *out)
{
	enc_u8(out, c->index);
	enc_u8(out, c->format);
}

int cmos_load(struct cmos *c, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);
	u8 index = dec_u8(&d), format = dec_u8(&d);

	if (!dec_done(&d))
		return err_set(e, -EINVAL, "the CMOS clock's state has %zu bytes instead of 2",
			len);
	if (index & ~INDEX_MASK)
		return err_set(e, -EINVAL, "the CMOS clock's index is 0x%x", index);
	if (format & ~(B_24_HOURS | B_BINARY))
		return err_set(e, -EINVAL, "the CMOS clock's register B is 0x%x", format);
	*c = (struct cmos){.index = index, .format = format};
	return 0;
}
