/* SPDX-License-Identifier: Apache-2.0 */
/* kind.h - the two machines a guest can be given (README, "Two machines"). */
#ifndef KELVIN_MONITOR_KIND_H
#define KELVIN_MONITOR_KIND_H

#include "monitor/loader.h"

enum machine_kind {
	MACHINE_AUTO, /* the kernel decides; not a machine */
	MACHINE_LEAN, /* what Linux and our own guests want */
	MACHINE_PC,   /* besides: PIC, PIT, CMOS clock, keyboard controller's reset, MP table */
};

/* "auto", "lean" or "pc"; constant. */
const char *kind_name(enum machine_kind k);
/* False: @name is none of the three. */
bool kind_from_name(const char *name, enum machine_kind *ret);
/* What MACHINE_AUTO means for such a kernel: lean or pc. */
enum machine_kind kind_for_kernel(const struct kernel_info *k);

#endif
