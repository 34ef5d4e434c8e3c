/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topology.c - CPUID's picture of the processors: one package, a core of one thread for each vCPU,
 * APIC id = index.
 *
 * It is told in several places, and operating systems read different ones, so all of them agree:
 *   leaf 0x1, 0x4           Intel's old way: numbers of addressable ids, rounded up by the reader
 *   leaf 0xb, 0x1f          levels: how far to shift an APIC id. 0x1f where the host has it
 *   0x80000008, 0x8000001e  AMD's old way: cores, width of the core id
 *   0x80000026              AMD's levels, where the host has it
 *   leaf 0x4, 0x8000001d    which cores share a cache: one and two are a core's own, three is the
 *                           package's
 * What the host says of its own levels is gone before (cpuid.c), so that none of them is left over.
 */
#include "vcpu/vcpu_int.h"

#define BIT(n)   (1u << (n))
#define TOPOEXT  BIT(22) /* 0x80000001 ecx: AMD's 0x8000001d and 0x8000001e are there */

/* Types of a level. */
#define LEVEL_THREAD     1u
#define LEVEL_CORE       2u
#define AMD_LEVEL_CORE   1u
#define AMD_LEVEL_SOCKET 4u

static unsigned ceil_log2(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

/* Bits [lo, hi] of @word become @value. */
static void field(u32 *word, unsigned hi, unsigned lo, u32 value)
{
	u32 mask = (u32)((1ull << (hi + 1)) - (1ull << lo));

	*word = (*word & ~mask) | (value << lo & mask);
}

static void set_caches(struct cpuid_table *t, unsigned vcpus)
{
	u32 last_id = (1u << ceil_log2(vcpus)) - 1;

	for (u32 i = 0; i < t->head.nent; i++) {
		struct kvm_cpuid_entry2 *c = &t->entry[i];
		unsigned level = c->eax >> 5 & 7;

		if ((c->function != 0x4 && c->function != 0x8000001d) || !(c->eax & 0x1f))
			continue;
		field(&c->eax, 25, 14, level >= 3 ? last_id : 0);
		if (c->function == 0x4)
			field(&c->eax, 31, 26, last_id);
	}
}

/* Level @n of @leaf: @count threads in one of its kind, which an id shifted by @shift tells. */
static void set_level(struct cpuid_table *t, u32 leaf, u32 n, u32 type, unsigned shift,
	unsigned count)
{
	struct kvm_cpuid_entry2 *c = cpuid_make(t, leaf, n, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);

	if (!c)
		return;
	c->eax = shift;
	c->ebx = count;
	c->ecx = type << 8 | n;
}

static void set_levels(struct cpuid_table *t, unsigned vcpus)
{
	unsigned shift = ceil_log2(vcpus);
	u32 max = cpuid_value(t, 0x0, 0, CPUID_EAX);
	u32 ext = cpuid_value(t, 0x80000000, 0, CPUID_EAX);

	for (u32 leaf = 0xb; leaf <= 0x1f && leaf <= max; leaf += 0x1f - 0xb) {
		set_level(t, leaf, 0, LEVEL_THREAD, 0, 1);
		set_level(t, leaf, 1, LEVEL_CORE, shift, vcpus);
	}
	if (ext >= 0x80000026 && ext < 0x90000000) {
		set_level(t, 0x80000026, 0, AMD_LEVEL_CORE, 0, 1);
		set_level(t, 0x80000026, 1, AMD_LEVEL_SOCKET, shift, vcpus);
	}
}

void cpuid_set_topology(struct cpuid_table *t, unsigned vcpus)
{
	struct kvm_cpuid_entry2 *c;

	c = cpuid_find(t, 0x1, 0);
	if (c) {
		field(&c->ebx, 23, 16, vcpus);
		field(&c->edx, 28, 28, vcpus > 1);
	}
	c = cpuid_find(t, 0x80000001, 0);
	if (c)
		field(&c->ecx, 1, 1, vcpus > 1);
	c = cpuid_find(t, 0x80000008, 0);
	if (c && c->ecx) /* AMD */
		field(&c->ecx, 15, 0, ceil_log2(vcpus) << 12 | (vcpus - 1));
	c = cpuid_find(t, 0x8000001e, 0);
	if (c)
		c->eax = c->ebx = c->ecx = c->edx = 0;
	set_caches(t, vcpus);
	set_levels(t, vcpus);
}

void cpuid_set_id(struct cpuid_table *t, unsigned idx)
{
	static const u32 levels[] = {0xb, 0x1f, 0x80000026};
	struct kvm_cpuid_entry2 *c = cpuid_find(t, 0x1, 0);

	if (c)
		field(&c->ebx, 31, 24, idx);
	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++)
		for (u32 sub = 0; sub < 2; sub++) {
			c = cpuid_find(t, levels[i], sub);
			if (c)
				c->edx = idx;
		}
	/* AMD: APIC id; core id, one thread a core. All zero, and left out, on other CPUs. */
	if (cpuid_value(t, 0x80000001, 0, CPUID_ECX) & TOPOEXT) {
		c = cpuid_make(t, 0x8000001e, 0, 0);
		if (c) {
			c->eax = idx;
			c->ebx = idx;
		}
	}
}
