/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_template.h - which of the host's processor a guest is to see: a level, and masks on top.
 *
 * Plain data, filled by whoever knows what the operator wants (monitor/cpu_spec.c) and applied by
 * vm_boot(). A restored guest keeps what it was booted with: that is in its snapshot.
 */
#ifndef KELVIN_VCPU_CPU_TEMPLATE_H
#define KELVIN_VCPU_CPU_TEMPLATE_H

#include <stddef.h>

#include "monitor/base/types.h"

#define CPU_LEAVES_MAX 96u
#define CPU_MSRS_MAX   64u
#define CPU_CAPS_MAX   32u

/* Physical address bits that a guest on a level is told of, at most. */
#define CPU_LEVEL_PHYS_BITS 40u

/* The levels of the x86-64 psABI, section 3.1.1. X(id, name) */
#define CPU_LEVELS(X)                                                                              \
	X(HOST, "host")         /* all that KVM offers and kelvin lets through */                  \
	X(V2, "baseline-v2")                                                                       \
	X(V3, "baseline-v3")

enum cpu_level {
#define X(id, name) CPU_LEVEL_##id,
	CPU_LEVELS(X)
#undef X
};

/* The bits in `care` of eax, ebx, ecx and edx become those of `value`. */
struct cpu_leaf_mask {
	u32 leaf, sub;
	u32 care[4], value[4];
};

struct cpu_msr_mask {
	u32 index;
	u64 care, value;
};

struct cpu_template {
	enum cpu_level level;
	unsigned leaf_count;
	struct cpu_leaf_mask leaf[CPU_LEAVES_MAX];
	unsigned msr_count;
	struct cpu_msr_mask msr[CPU_MSRS_MAX];
	unsigned cap_count;
	u32 cap[CPU_CAPS_MAX]; /* KVM capabilities that have to be there */
};

#endif
