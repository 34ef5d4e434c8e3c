/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_pin.h - which host processors run a VM's threads: --cpu-pin. */
#ifndef KELVIN_MONITOR_CPU_PIN_H
#define KELVIN_MONITOR_CPU_PIN_H

#include "monitor/base/err.h"
#include "vcpu/vm.h"

/* What the operator asked for. Plain data; all zero: nothing. Not kept in snapshots. */
struct cpu_pin {
	unsigned count;     /* of cpu[]; 0: the vCPUs run where the process may */
	u32 cpu[VCPU_MAX];  /* of vCPU i: cpu[i % count] */
	bool has_loop;
	u32 loop;           /* the main thread, and the helpers it starts */
};

/* "0-3", "0,2,4-6", "loop=7", and these together: "0-3,loop=7". */
int cpu_pin_option(struct cpu_pin *ret, const char *arg, struct err *e);

/*
 * Before any thread: tries each processor, which needs no guessing of what a cpuset allows, and
 * leaves the calling thread, the loop, on its own if it is to have one. *@ret_base is where
 * threads without a pin run. Refuses a list longer than @vcpus.
 */
int cpu_pin_try(const struct cpu_pin *p, unsigned vcpus, cpu_set_t *ret_base, struct err *e);
/* Where the vCPUs run. Before vm_start(). */
void cpu_pin_vcpus(const struct cpu_pin *p, unsigned vcpus, const cpu_set_t *base, struct vm *vm);

/* Whether the loop has a processor that no vCPU needs, so that it may look before it sleeps. */
bool cpu_pin_spares_one(const struct cpu_pin *p, unsigned vcpus, const cpu_set_t *base);

#endif
