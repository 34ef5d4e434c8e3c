/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kind.c - which machine a kernel gets.
 *
 * Linux and our own guests find all they need in the lean machine, and it is the faster one. Any
 * other kernel was built against what other monitors have: KVM's interrupt chips and timer, and a
 * clock in CMOS. The notes of an ELF file tell them apart; a bzImage is always Linux.
 */
#include "monitor/kind.h"

#include <string.h>

static const char *const names[] = {
	[MACHINE_AUTO] = "auto", [MACHINE_LEAN] = "lean", [MACHINE_PC] = "pc"};

const char *kind_name(enum machine_kind k)
{
	must((unsigned)k < ARRAY_SIZE(names));
	return names[k];
}

bool kind_from_name(const char *name, enum machine_kind *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum machine_kind)i;
			return true;
		}
	}
	return false;
}

enum machine_kind kind_for_kernel(const struct kernel_info *k)
{
	return k->has_kelvin || kernel_is_linux(k) ? MACHINE_LEAN : MACHINE_PC;
}
