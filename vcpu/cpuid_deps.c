/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid_deps.c - what hangs on what in CPUID: after bits were taken out, the rest must make sense.
 *
 * A guest that is told of AVX-512 but not of its registers' place in the XSAVE area, or the other
 * way round, does one thing or the other wrong. So whatever a policy, a level or a file of masks
 * takes out takes along what stands on it, and the sizes that leaf 0xd tells are of what is left.
 * (KVM computes those that depend on XCR0 itself, when the guest asks.)
 */
#include "vcpu/vcpu_int.h"

#define BIT(n)   (1u << (n))
#define AVX512_STATE (BIT(5) | BIT(6) | BIT(7)) /* of leaf 0xd */

struct bits {
	u32 leaf, sub;
	enum cpuid_reg reg;
	u32 mask;
};

#define XSAVE   {0x1, 0, CPUID_ECX, BIT(26)}
#define AVX     {0x1, 0, CPUID_ECX, BIT(28)}
#define AVX2    {0x7, 0, CPUID_EBX, BIT(5)}
#define AVX512F {0x7, 0, CPUID_EBX, BIT(16)}
#define PKU     {0x7, 0, CPUID_ECX, BIT(3)}
#define STATE(mask) {0xd, 0, CPUID_EAX, mask}

/* Without all bits of the first, those of the second go. From the ground up. */
static const struct {
	struct bits base, above;
} deps[] = {
	{XSAVE, STATE(~0u)},
	{XSAVE, {0xd, 0, CPUID_EDX, ~0u}},
	{XSAVE, {0xd, 1, CPUID_EAX, ~0u}},
	{XSAVE, {0xd, 1, CPUID_ECX, ~0u}},
	{XSAVE, {0xd, 1, CPUID_EDX, ~0u}},
	{STATE(BIT(2)), AVX},
	{AVX, STATE(BIT(2))},
	{AVX, {0x1, 0, CPUID_ECX, BIT(12) | BIT(29)}}, /* fma, f16c */
	{AVX, AVX2},
	{AVX, {0x7, 0, CPUID_ECX, BIT(9) | BIT(10)}}, /* vaes, vpclmulqdq */
	{AVX, {0x7, 1, CPUID_EAX, BIT(0) | BIT(1) | BIT(2) | BIT(4) | BIT(23)}},
	{AVX, {0x7, 1, CPUID_EDX, BIT(4) | BIT(5) | BIT(10) | BIT(19)}},
	{AVX, {0x80000001, 0, CPUID_ECX, BIT(11) | BIT(16)}}, /* xop, fma4 */
	{AVX2, AVX512F},
	{STATE(AVX512_STATE), AVX512F},
	{AVX512F, STATE(AVX512_STATE)},
	{AVX512F, {0x7, 0, CPUID_EBX, BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) |
			BIT(31)}},
	{AVX512F, {0x7, 0, CPUID_ECX, BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)}},
	{AVX512F, {0x7, 0, CPUID_EDX, BIT(2) | BIT(3) | BIT(8) | BIT(23)}},
	{AVX512F, {0x7, 1, CPUID_EAX, BIT(5)}},
	{AVX512F, {0x7, 1, CPUID_EDX, BIT(19)}},
	{STATE(BIT(9)), PKU},
	{PKU, STATE(BIT(9))},
};

static void take_out(struct cpuid_table *t, const struct bits *b)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, b->leaf, b->sub);

	if (c)
		*cpuid_reg_of(c, b->reg) &= ~b->mask;
}

/* Leaf 0xd tells of the components that are left, and of the largest area they need. */
static void set_xsave(struct cpuid_table *t)
{
	u64 user = cpuid_value(t, 0xd, 0, CPUID_EAX);
	u64 any = user | (u64)cpuid_value(t, 0xd, 0, CPUID_EDX) << 32 |
		cpuid_value(t, 0xd, 1, CPUID_ECX);
	struct kvm_cpuid_entry2 *head = cpuid_find(t, 0xd, 0);
	u32 size = XSAVE_MIN;

	for (u32 i = 0; i < t->head.nent; i++) {
		struct kvm_cpuid_entry2 *c = &t->entry[i];

		if (c->function != 0xd || (any && c->index < 2))
			continue;
		if (c->index >= 63 || !(any >> c->index & 1))
			c->eax = c->ebx = c->ecx = c->edx = 0;
		else if (user >> c->index & 1 && c->eax + c->ebx > size)
			size = c->eax + c->ebx;
	}
	if (head && head->ecx)
		head->ecx = size;
}

void cpuid_settle(struct cpuid_table *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(deps); i++) {
		const struct bits *base = &deps[i].base;

		if (~cpuid_value(t, base->leaf, base->sub, base->reg) & base->mask)
			take_out(t, &deps[i].above);
	}
	set_xsave(t);
}
