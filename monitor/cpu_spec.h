/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_spec.h - which processor the operator wants a guest to see: --cpu and its files. */
#ifndef KELVIN_MONITOR_CPU_SPEC_H
#define KELVIN_MONITOR_CPU_SPEC_H

#include <jansson.h>

#include "monitor/base/err.h"
#include "vcpu/cpu_template.h"

/* "host", "baseline-v2", "baseline-v3", or a file of masks. Errors name what is wrong in it. */
int cpu_option(struct cpu_template *ret, const char *arg, struct err *e);

/*
 * Firecracker's CpuConfig, x86 part. Untrusted in form: unknown members, and those for arm, are
 * refused by name; a number or bitmap that does not parse by its place.
 */
int cpu_config_from_json(struct cpu_template *ret, const json_t *j, struct err *e);

#endif
