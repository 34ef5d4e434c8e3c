/* SPDX-License-Identifier: Apache-2.0 */
/* i8042.h - the keyboard controller of a PC, for its reset line. */
#ifndef KELVIN_MONITOR_I8042_H
#define KELVIN_MONITOR_I8042_H

#include "monitor/base/bytes.h"
#include "monitor/base/err.h"

#define I8042_DATA_PORT    0x60u
#define I8042_COMMAND_PORT 0x64u
#define I8042_RESET        0xfeu /* the command everybody uses: pulse the reset line */

/* Plain data; one thread at a time. */
struct i8042 {
	u8 command; /* waits for its operand on the data port; 0: none does */
	u8 config;
	bool full; /* @out is to be read */
	u8 out;
};

void i8042_reset(struct i8042 *k);
u8 i8042_read(struct i8042 *k, u16 port);
/* True: the guest resets the machine. */
bool i8042_write(struct i8042 *k, u16 port, u8 value);

void i8042_save(const struct i8042 *k, struct enc *out);
/* @data is hostile: refused, or all of it is taken. */
int i8042_load(struct i8042 *k, const void *data, size_t len, struct err *e);

#endif
