/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_cmdline.c - the words a kernel gets where the operator gave none.
 *
 * Linux gets those without which it waits for hardware that is not there, or for ever after a
 * panic: `panic=-1` ends the VM at once, `reboot=a` is ACPI's reset register (a kernel that could
 * be on EFI asks that first, and then the BIOS), `8250.nr_uarts` says how many serial ports there
 * are to probe, `cryptomgr.notests` leaves self-tests out that nobody here reads. No console is
 * named unless there is one: each character of it is an exit. Unikernels read words as they like,
 * so they get none.
 */
#include "monitor/loader.h"

#define LINUX_WORDS "panic=-1 reboot=a cryptomgr.notests "

const char *kernel_default_cmdline(const struct kernel_info *info, bool console)
{
	if (!kernel_is_linux(info))
		return "";
	return console ? LINUX_WORDS "8250.nr_uarts=1 console=ttyS0"
		       : LINUX_WORDS "8250.nr_uarts=0";
}
