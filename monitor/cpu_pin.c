/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_pin.c - --cpu-pin: vCPU i on the i-th processor of a list, the loop on one of its own.
 *
 * A list shorter than the vCPUs begins again, so that "0" puts all of them on one processor; a
 * longer one is a mistake. Whether a processor is online and allowed only the kernel knows (cpusets
 * are no part of a thread's affinity), so it is asked by doing it, while there is one thread.
 */
#include "monitor/cpu_pin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/verb.h"

static int add_range(struct cpu_pin *p, const char *part, struct err *e)
{
	char *dash = strchr(part, '-');
	u64 first, last;

	if (dash)
		*dash++ = 0;
	if (parse_uint(part, 0, CPU_SETSIZE - 1, &first, e))
		return e->code;
	last = first;
	if (dash && parse_uint(dash, first, CPU_SETSIZE - 1, &last, e))
		return e->code;
	for (u64 cpu = first; cpu <= last; cpu++) {
		if (p->count == VCPU_MAX)
			return err_set(e, -E2BIG, "more than %u processors", VCPU_MAX);
		p->cpu[p->count++] = (u32)cpu;
	}
	return 0;
}

static int set_loop(struct cpu_pin *p, const char *value, struct err *e)
{
	u64 cpu;

	if (p->has_loop)
		return err_set(e, -EINVAL, "loop= comes twice");
	if (parse_uint(value, 0, CPU_SETSIZE - 1, &cpu, e))
		return err_wrap(e, "loop");
	p->has_loop = true;
	p->loop = (u32)cpu;
	return 0;
}

int cpu_pin_option(struct cpu_pin *ret, const char *arg, struct err *e)
{
	_cleanup_free_ char *copy = strdup(arg);
	struct cpu_pin p = {0};
	char *rest = copy, *part;
	int r = 0;

	must(copy);
	while (!r && (part = strsep(&rest, ",")))
		r = strncmp(part, "loop=", 5) == 0 ? set_loop(&p, part + 5, e)
						   : add_range(&p, part, e);
	if (!r)
		*ret = p;
	return r;
}

static void one_cpu(cpu_set_t *set, u32 cpu)
{
	CPU_ZERO(set);
	CPU_SET(cpu, set);
}

static int try_cpu(u32 cpu, const char *who, struct err *e)
{
	cpu_set_t set;

	one_cpu(&set, cpu);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		return 0;
	if (errno == EINVAL)
		return err_set(e, -EINVAL, "--cpu-pin: %s cannot run on processor %u: there is "
			"none of that number, it is offline, or not allowed here", who, cpu);
	return err_sys(e, errno, "--cpu-pin: %s on processor %u", who, cpu);
}

int cpu_pin_try(const struct cpu_pin *p, unsigned vcpus, cpu_set_t *ret_base, struct err *e)
{
	char who[16];
	int r = 0;

	if (sched_getaffinity(0, sizeof(*ret_base), ret_base))
		return err_sys(e, errno, "cannot tell which processors this process may use");
	if (!p->count && !p->has_loop)
		return 0;
	if (p->count > vcpus)
		return err_set(e, -EINVAL, "--cpu-pin names %u processors, but there %s %u vCPU%s",
			p->count, vcpus == 1 ? "is" : "are", vcpus, vcpus == 1 ? "" : "s");
	for (unsigned i = 0; i < p->count && !r; i++) {
		snprintf(who, sizeof(who), "vCPU %u", i);
		r = try_cpu(p->cpu[i], who, e);
	}
	if (!r && p->has_loop)
		return try_cpu(p->loop, "the event loop", e);
	if (sched_setaffinity(0, sizeof(*ret_base), ret_base) && !r)
		return err_sys(e, errno, "cannot go back to the processors from before");
	return r;
}

void cpu_pin_vcpus(const struct cpu_pin *p, unsigned vcpus, const cpu_set_t *base, struct vm *vm)
{
	cpu_set_t set = *base;

	if (!p->count && !p->has_loop)
		return;
	for (unsigned i = 0; i < vcpus; i++) {
		if (p->count)
			one_cpu(&set, p->cpu[i % p->count]);
		vm_set_affinity(vm, i, &set);
	}
}

bool cpu_pin_spares_one(const struct cpu_pin *p, unsigned vcpus, const cpu_set_t *base)
{
	cpu_set_t loop = *base, taken;

	CPU_ZERO(&taken);
	if (p->has_loop)
		one_cpu(&loop, p->loop);
	for (unsigned i = 0; i < p->count; i++)
		CPU_SET(p->cpu[i], &taken);
	if (!p->count) {
		/* The vCPUs roam over what the loop leaves them. */
		if (!p->has_loop)
			return CPU_COUNT(base) > (int)vcpus;
		return CPU_COUNT(base) - (CPU_ISSET(p->loop, base) ? 1 : 0) >= (int)vcpus;
	}
	/* vCPUs that share a processor must not look either. */
	if (CPU_COUNT(&taken) < (int)vcpus)
		return false;
	CPU_AND(&taken, &taken, &loop);
	return CPU_COUNT(&loop) > CPU_COUNT(&taken);
}
