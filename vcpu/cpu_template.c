/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_template.c - a guest's processor by level and by masks.
 *
 * A level makes guests alike on all hosts of a vendor that have it, so that a snapshot of one can
 * be restored on any other: what is left is exactly the level's instructions, what every 64-bit
 * processor has, and what KVM gives a guest by itself (local APIC, paravirtual features). Leaves
 * that tell of anything else are gone, and address widths are small enough for all. Protections of
 * a kernel against itself (SMEP ...) and speculation controls belong to no level and go, too. Model
 * numbers, names and caches stay the host's: nothing is refused for them.
 *
 * Masks come on top, from a file: CPUID bits set or cleared, registers changed. They work on what
 * KVM supports, before the policy of cpuid.c, which has the last word on topology and timing. Each
 * bit that is to be set must exist: one that KVM does not offer, or that this program hides from
 * every guest, is refused by name. A guest that sees a bit nothing stands behind faults on it, and
 * its snapshot could not be restored even here.
 *
 * Runs on the thread that boots the VM, before any vCPU runs.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n) (1u << (n))
/* What AMD repeats of leaf 1 edx in 0x80000001 edx. */
#define AMD_REPEATED 0x0183f3ffu

/* What a level needs, and what may stay with it. What a feature word has besides goes. */
static const struct {
	u32 leaf, sub;
	enum cpuid_reg reg;
	u32 v2, v3; /* needed; v3 is on top of v2 */
	u32 stays;
} rows[] = {
	/* sse3, ssse3, cx16, sse4_1, sse4_2, popcnt; fma, movbe, xsave, avx, f16c; KVM's own. */
	{0x1, 0, CPUID_ECX, BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23),
		BIT(12) | BIT(22) | BIT(26) | BIT(28) | BIT(29), BIT(21) | BIT(24) | BIT(31)},
	/* fpu, tsc, msr, pae, cx8, apic, pge, cmov, mmx, fxsr, sse, sse2; what 64-bit CPUs have. */
	{0x1, 0, CPUID_EDX, BIT(0) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(13) |
			BIT(15) | BIT(23) | BIT(24) | BIT(25) | BIT(26), 0,
		BIT(1) | BIT(2) | BIT(3) | BIT(7) | BIT(11) | BIT(12) | BIT(14) | BIT(16) |
			BIT(17) | BIT(19) | BIT(28)},
	{0x6, 0, CPUID_EAX, 0, 0, BIT(2)}, /* arat: KVM's own */
	/* bmi1, avx2, bmi2; KVM's tsc_adjust, and two that tell of something missing. */
	{0x7, 0, CPUID_EBX, 0, BIT(3) | BIT(5) | BIT(8), BIT(1) | BIT(6) | BIT(13)},
	{0x7, 0, CPUID_ECX, 0, 0, 0},
	{0x7, 0, CPUID_EDX, 0, 0, 0},
	{0x7, 0, CPUID_EAX, 0, 0, 0}, /* its number of subleaves */
	{0xd, 0, CPUID_EAX, 0, BIT(0) | BIT(1) | BIT(2), 0}, /* x87, sse, avx */
	{0xd, 0, CPUID_EDX, 0, 0, 0},
	/* lahf_lm; abm, whose lzcnt it is. */
	{0x80000001, 0, CPUID_ECX, BIT(0), BIT(5), BIT(1)},
	/* syscall, nx, lm. */
	{0x80000001, 0, CPUID_EDX, BIT(11) | BIT(20) | BIT(29), 0, AMD_REPEATED},
	{0x80000001, 0, CPUID_EBX, 0, 0, 0},
	{0x80000008, 0, CPUID_EBX, 0, 0, 0},
	{0x80000008, 0, CPUID_EDX, 0, 0, 0},
};

/* The leaves that guests on a level have. */
static bool level_has(u32 leaf, u32 sub)
{
	switch (leaf) {
	case 0x0:
	case 0x1:
	case 0x4:
	case 0x6:
	case 0xb:
	case 0x80000000:
	case 0x80000001:
	case 0x80000002: /* to 4: the name */
	case 0x80000003:
	case 0x80000004:
	case 0x80000005: /* and 6: caches */
	case 0x80000006:
	case 0x80000008:
		return true;
	case 0x7:
		return sub == 0;
	case 0xd:
		return sub == 0 || sub == 2;
	default:
		return leaf >= 0x40000000 && leaf < 0x50000000;
	}
}

static void at_most(struct cpuid_table *t, u32 leaf, u32 max)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, leaf, 0);

	if (c && c->eax > max)
		c->eax = max;
}

static void set_address_bits(struct cpuid_table *t)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, 0x80000008, 0);
	u32 bits;

	if (!c)
		return;
	bits = c->eax & 0xff;
	c->eax = (bits < CPU_LEVEL_PHYS_BITS ? bits : CPU_LEVEL_PHYS_BITS) | 48u << 8;
}

static const char *level_name(enum cpu_level level)
{
	static const char *const names[] = {
#define X(id, name) name,
		CPU_LEVELS(X)
#undef X
	};

	return names[level];
}

static int apply_level(struct cpuid_table *t, enum cpu_level level, struct err *e)
{
	char missing[256] = "";

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct kvm_cpuid_entry2 *c = cpuid_find(t, rows[i].leaf, rows[i].sub);
		u32 need = rows[i].v2 | (level == CPU_LEVEL_V3 ? rows[i].v3 : 0);
		u32 has = c ? *cpuid_reg_of(c, rows[i].reg) : 0;

		cpuid_add_names(missing, sizeof(missing), rows[i].leaf, rows[i].sub, rows[i].reg,
			need & ~has);
		if (c)
			*cpuid_reg_of(c, rows[i].reg) = has & (need | rows[i].stays);
	}
	if (missing[0])
		return err_set(e, -ENOTSUP, "this host's CPU, as KVM offers it, is not %s: it "
			"lacks %s", level_name(level), missing);
	for (u32 i = 0; i < t->head.nent; i++) {
		struct kvm_cpuid_entry2 *c = &t->entry[i];

		if (!level_has(c->function, c->index))
			c->eax = c->ebx = c->ecx = c->edx = 0; /* and so left out, later */
	}
	at_most(t, 0x0, 0x15);
	at_most(t, 0x80000000, 0x80000008);
	set_address_bits(t);
	return 0;
}

/* One register of one mask. What is set beyond KVM's offer is added to the names in @missing. */
static void apply_mask(struct kvm_cpuid_entry2 *c, const struct cpu_leaf_mask *m,
	enum cpuid_reg reg, char *missing, size_t cap)
{
	u32 *value = cpuid_reg_of(c, reg), before = *value;

	*value = (before & ~m->care[reg]) | m->value[reg];
	if (cpuid_is_feature_word(m->leaf, m->sub, reg))
		cpuid_add_names(missing, cap, m->leaf, m->sub, reg, *value & ~before &
			~cpuid_always(m->leaf, m->sub, reg));
}

static int apply_masks(struct cpuid_table *t, const struct cpu_template *tpl, struct err *e)
{
	char missing[256] = "";

	for (unsigned i = 0; i < tpl->leaf_count; i++) {
		const struct cpu_leaf_mask *m = &tpl->leaf[i];
		struct kvm_cpuid_entry2 *c = cpuid_find(t, m->leaf, m->sub);
		struct kvm_cpuid_entry2 absent = {.function = m->leaf, .index = m->sub};
		struct kvm_cpuid_entry2 was = c ? *c : absent;

		for (unsigned reg = 0; reg < 4; reg++)
			apply_mask(c ? c : &absent, m, reg, missing, sizeof(missing));
		if (missing[0])
			continue;
		if (absent.eax || absent.ebx || absent.ecx || absent.edx)
			return err_set(e, -ENOTSUP, "the CPU template sets bits of CPUID leaf "
				"0x%x.%u, which KVM on this host does not have", m->leaf, m->sub);
		if (c && !m->leaf && (c->ebx != was.ebx || c->ecx != was.ecx || c->edx != was.edx))
			return err_set(e, -ENOTSUP, "the CPU template changes the vendor in CPUID "
				"leaf 0x0");
	}
	if (missing[0])
		return err_set(e, -ENOTSUP, "the CPU template sets what KVM on this host does not "
			"offer: %s", missing);
	return 0;
}

int cpu_template_apply(struct cpuid_table *t, const struct cpu_template *tpl, struct err *e)
{
	int r = tpl->level == CPU_LEVEL_HOST ? 0 : apply_level(t, tpl->level, e);

	return r ? r : apply_masks(t, tpl, e);
}

int cpu_template_check(struct cpuid_table *t, const struct cpu_template *tpl, struct err *e)
{
	char missing[256] = "";

	for (unsigned i = 0; i < tpl->leaf_count; i++) {
		const struct cpu_leaf_mask *m = &tpl->leaf[i];

		for (unsigned reg = 0; reg < 4; reg++)
			if (cpuid_is_feature_word(m->leaf, m->sub, reg))
				cpuid_add_names(missing, sizeof(missing), m->leaf, m->sub, reg,
					m->value[reg] & ~cpuid_value(t, m->leaf, m->sub, reg) &
					~cpuid_always(m->leaf, m->sub, reg));
	}
	if (missing[0])
		return err_set(e, -ENOTSUP, "the CPU template sets what no guest of kelvin's can "
			"have, or what needs something it lacks: %s", missing);
	return 0;
}

int cpu_template_caps(int kvm_fd, const struct cpu_template *tpl, struct err *e)
{
	for (unsigned i = 0; i < tpl->cap_count; i++)
		if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)tpl->cap[i]) <= 0)
			return err_set(e, -ENOTSUP, "the CPU template wants KVM capability %u, "
				"which this host's KVM does not have", tpl->cap[i]);
	return 0;
}

static bool is_listed(const struct msr_list *list, u32 index)
{
	for (u32 i = 0; i < list->count; i++)
		if (list->index[i] == index)
			return true;
	return false;
}

int cpu_template_msrs(int vcpu_fd, const struct msr_list *list, const struct cpu_template *tpl,
	struct err *e)
{
	for (unsigned i = 0; i < tpl->msr_count; i++) {
		const struct cpu_msr_mask *m = &tpl->msr[i];
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} io = {.head = {.nmsrs = 1}, .entry = {.index = m->index}};

		/* One that KVM does not list would be lost in a snapshot. */
		if (!is_listed(list, m->index) || kvm_call(vcpu_fd, KVM_GET_MSRS, &io) != 1)
			return err_set(e, -ENOTSUP, "the CPU template changes register 0x%x, which "
				"KVM on this host does not have for this guest", m->index);
		io.entry.data = (io.entry.data & ~m->care) | m->value;
		if (kvm_call(vcpu_fd, KVM_SET_MSRS, &io) != 1)
			return err_set(e, -ENOTSUP, "the CPU template changes register 0x%x: KVM "
				"on this host refuses to set it to 0x%llx", m->index,
				(unsigned long long)io.entry.data);
	}
	return 0;
}
