/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8042.c - a keyboard controller with nothing connected to it.
 *
 * Kernels end a machine through it: its output port holds the processor's reset line, which the
 * commands 0xf0..0xff pulse and 0xd1 sets. The rest is as much as it takes for a driver to find the
 * controller, test it and see that no keyboard and no mouse answer. It raises no interrupts.
 */
#include "monitor/i8042.h"

#include <errno.h>

#define STATUS_FULL   0x01u /* a byte is to be read */
#define STATUS_SYSTEM 0x04u /* the self-test passed */
#define STATUS_ON     0x10u /* not locked */

#define CMD_READ_CONFIG  0x20u
#define CMD_WRITE_CONFIG 0x60u
#define CMD_SELF_TEST    0xaau
#define CMD_TEST_PORT    0xabu
#define CMD_READ_OUTPUT  0xd0u
#define CMD_WRITE_OUTPUT 0xd1u
#define CMD_PULSE        0xf0u /* to 0xff: lines whose bit is 0 go low */

#define SELF_TEST_PASSED 0x55u
#define OUTPUT_RESET     0x01u /* low resets */
#define OUTPUT_A20       0x02u
#define CONFIG_RESET     0x34u /* system flag, both devices off */

void i8042_reset(struct i8042 *k)
{
	*k = (struct i8042){.config = CONFIG_RESET};
}

u8 i8042_read(struct i8042 *k, u16 port)
{
	if (port == I8042_COMMAND_PORT)
		return (u8)(STATUS_SYSTEM | STATUS_ON | (k->full ? STATUS_FULL : 0));
	k->full = false;
	return k->out; /* again, where there is nothing new */
}

static void answer(struct i8042 *k, u8 value)
{
	k->full = true;
	k->out = value;
}

static bool command(struct i8042 *k, u8 value)
{
	k->command = 0;
	switch (value) {
	case CMD_READ_CONFIG: answer(k, k->config); break;
	case CMD_SELF_TEST: answer(k, SELF_TEST_PASSED); break;
	case CMD_TEST_PORT: answer(k, 0); break;
	case CMD_READ_OUTPUT: answer(k, OUTPUT_RESET | OUTPUT_A20); break;
	case CMD_WRITE_CONFIG:
	case CMD_WRITE_OUTPUT: k->command = value; break;
	}
	return value >= CMD_PULSE && !(value & OUTPUT_RESET);
}

bool i8042_write(struct i8042 *k, u16 port, u8 value)
{
	u8 pending = k->command;

	if (port == I8042_COMMAND_PORT)
		return command(k, value);
	k->command = 0;
	if (pending == CMD_WRITE_CONFIG)
		k->config = value;
	return pending == CMD_WRITE_OUTPUT && !(value & OUTPUT_RESET);
}

void i8042_save(const struct i8042 *k, struct enc *out)
{
	enc_u8(out, k->command);
	enc_u8(out, k->config);
	enc_u8(out, k->full);
	enc_u8(out, k->out);
}

int i8042_load(struct i8042 *k, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);
	u8 pending = dec_u8(&d), config = dec_u8(&d), full = dec_u8(&d), out = dec_u8(&d);

	if (!dec_done(&d))
		return err_set(e, -EINVAL, "the i8042's state has %zu bytes instead of 4", len);
	if (pending && pending != CMD_WRITE_CONFIG && pending != CMD_WRITE_OUTPUT)
		return err_set(e, -EINVAL, "the i8042's pending command is 0x%x", pending);
	if (full > 1)
		return err_set(e, -EINVAL, "the i8042's output buffer flag is 0x%x", full);
	*k = (struct i8042){pending, config, full, out};
	return 0;
}
