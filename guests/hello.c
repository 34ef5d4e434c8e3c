/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello - says hello on the console, if there is one, rings ready and powers off.
 *
 * Command line: status=N, the exit status (0).
 * Without an identity page (QEMU), the benchmark is told by the debug exit port instead.
 */
#include "kit/kit.h"

int kit_main(void)
{
	kit_printf("hello from kelvin's kit\n");
	kit_ready();
	if (!kit_identity())
		kit_outb(DEBUG_EXIT_PORT, READY_VALUE);
	return (int)kit_option_number("status", 0);
}
