/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c - text out of the first serial port, if the machine has one.
 *
 * Most machines have none, and a port access is an exit to the monitor: one read of the line
 * status says "absent" (all ones); only a port that answers is looked at more closely.
 */
#include "kit.h"

#define UART         0x3f8
#define UART_FCR     (UART + 2)
#define UART_LSR     (UART + 5)
#define UART_SCRATCH (UART + 7)
#define FCR_ENABLE   0x01
#define LSR_EMPTY    0x20 /* the transmitter takes UART_FIFO bytes now */
#define UART_FIFO    16
#define TRIES        10000

bool kit_has_console(void)
{
	static enum { UNKNOWN, ABSENT, PRESENT } console;

	if (console == UNKNOWN) {
		console = ABSENT;
		if (kit_inb(UART_LSR) != 0xff) {
			kit_outb(UART_SCRATCH, 0x5a);
			if (kit_inb(UART_SCRATCH) == 0x5a) {
				kit_outb(UART_FCR, FCR_ENABLE);
				console = PRESENT;
			}
		}
	}
	return console == PRESENT;
}

void kit_print(const char *text, size_t len)
{
	if (!kit_has_console())
		return;
	while (len > 0) {
		size_t count = len < UART_FIFO ? len : UART_FIFO;

		len -= count;
		for (unsigned i = 0; i < TRIES && !(kit_inb(UART_LSR) & LSR_EMPTY); i++)
			kit_pause();
		/* One instruction, so that the hypervisor may take it as one exit. */
		__asm__ volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(UART) : "memory");
	}
}

void kit_printf(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (!kit_has_console())
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	kit_print(line, strlen(line));
}
