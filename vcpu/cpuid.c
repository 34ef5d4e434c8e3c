/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid.c - what processor a guest sees, and whether a saved guest finds it on this host.
 *
 * Policy at boot: take what KVM supports on this host, then
 *  - drop the leaves in `dropped` and clear the bits in `hidden`: what a machine with three
 *    devices does not have, what a snapshot could not carry, and what needs help from user space;
 *  - take out what has lost what it stands on (cpuid_deps.c);
 *  - describe one package with a core for each vCPU, APIC id = index (topology.c);
 *  - say the TSC frequency where KVM knows it, and that there is a TSC deadline timer;
 *  - leave out entries that are all zero: KVM answers zero for what is absent, and each entry
 *    given to KVM costs time.
 * Paravirtual features (leaf 0x40000001) stay as KVM offers them, but for the three that user
 * space would have to implement.
 *
 * Policy at load: CPUID is the saved one, bit for bit. It is refused unless this host is of the
 * same vendor, has at least its physical address bits, and offers every feature bit that it has in
 * the words of `words` - the bits that change what instructions or control registers a guest may
 * use.
 * Asking KVM (KVM_GET_SUPPORTED_CPUID) costs more than all the rest of a load, so the CPUID
 * instruction is asked first, apart from the bits in `always`, which KVM emulates or which describe
 * topology. Only when a bit is missing there KVM gets the last word, for it can offer what the
 * processor has not. Models, caches, leaf 0xd sizes and paravirtual bits are not compared: the
 * vendor's layout is the same, and KVM refuses registers it does not know (msr.c).
 */
#include "vcpu/vcpu_int.h"

#include <cpuid.h>
#include <sys/platform/x86.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_PV         0x40000001u
#define LEAF_TIMING     0x40000010u /* TSC kHz, APIC bus kHz; VMware's convention */
#define APIC_BUS_KHZ    1000000u    /* of KVM's local APIC timer */
#define BIT(n)          (1u << (n))

/* Leaves no guest of ours sees. */
static const struct {
	u32 first, last;
} dropped[] = {
	{0x2, 0x3},               /* cache descriptors, serial number */
	{0x5, 0x5},               /* MONITOR/MWAIT */
	{0x9, 0xa},               /* DCA, performance counters */
	{0xf, 0x10},              /* resource monitoring and allocation */
	{0x12, 0x12},             /* SGX */
	{0x14, 0x14},             /* processor trace */
	{0x17, 0x1e},             /* SoC, TLB, key locker, LBR, AMX */
	{0x23, 0x23},             /* performance counters, extended */
	{0x80000007, 0x80000007}, /* invariant TSC: on the next host it may not be; kvm-clock is */
	{0x8000000a, 0x8000000a}, /* SVM */
	{0x8000001b, 0x8000001c}, /* IBS, LWP */
	{0x8000001f, 0x80000020}, /* SEV, QoS */
	{0x80000022, 0x80000023}, /* performance counters, memory encryption */
	{0xc0000000, 0xffffffff}, /* Centaur */
};

/* Bits no guest of ours sees. */
static const struct {
	u32 leaf, sub;
	enum cpuid_reg reg;
	u32 mask;
} hidden[] = {
	/* DTES64, MONITOR, VMX, SMX, EIST, TM2, CNXT-ID, SDBG, xTPR, PDCM, DCA, OSXSAVE (KVM sets
	 * the last as CR4 says). */
	{0x1, 0, CPUID_ECX, BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(10) |
			BIT(11) | BIT(14) | BIT(15) | BIT(18) | BIT(27)},
	{0x1, 0, CPUID_EDX, BIT(21) | BIT(22) | BIT(29) | BIT(31)}, /* DS, ACPI, TM, PBE */
	{0x6, 0, CPUID_EAX, ~BIT(2)}, /* all but "the APIC timer always runs" */
	{0x6, 0, CPUID_EBX, ~0u},
	{0x6, 0, CPUID_ECX, ~0u},
	{0x6, 0, CPUID_EDX, ~0u},
	/* SGX, RDT monitoring, MPX, RDT allocation, processor trace. */
	{0x7, 0, CPUID_EBX, BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(25)},
	/* OSPKE (as OSXSAVE), WAITPKG, shadow stacks (their pointer is no MSR, and so not saved),
	 * TME, key locker, SGX launch control. */
	{0x7, 0, CPUID_ECX, BIT(4) | BIT(5) | BIT(7) | BIT(13) | BIT(23) | BIT(30)},
	/* PCONFIG, LBR, AMX. */
	{0x7, 0, CPUID_EDX, BIT(18) | BIT(19) | BIT(22) | BIT(24) | BIT(25)},
	{0x7, 1, CPUID_EAX, BIT(21) | BIT(22)}, /* AMX-FP16, HRESET */
	{0x7, 1, CPUID_EDX, BIT(8)},            /* AMX-COMPLEX */
	{0xd, 0, CPUID_EAX, BIT(3) | BIT(4) | BIT(17) | BIT(18)}, /* MPX, AMX state */
	{0xd, 1, CPUID_EAX, BIT(4)},                              /* XFD, for AMX */
	/* SVM, IBS, SKINIT, WDT, LWP, counters, counter extensions, MWAITX. */
	{0x80000001, 0, CPUID_ECX, BIT(2) | BIT(10) | BIT(12) | BIT(13) | BIT(15) | BIT(23) |
			BIT(24) | BIT(26) | BIT(28) | BIT(29)},
	/* Extended MSI destinations, page encryption hypercall, migration control. */
	{LEAF_PV, 0, CPUID_EAX, BIT(15) | BIT(16) | BIT(17)},
};

/* The feature words a saved guest is held against. Names are the kernel's. */
struct word {
	u32 leaf, sub;
	enum cpuid_reg reg;
	u32 always; /* on every host that runs KVM, or not a matter of the host */
	const char *names[32];
};

static const struct word words[] = {
	/* x2apic, tsc_deadline and hypervisor are KVM's own. */
	{0x1, 0, CPUID_ECX, BIT(21) | BIT(24) | BIT(27) | BIT(31),
		{"pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl", "vmx", "smx", "est", "tm2",
			"ssse3", "cid", "sdbg", "fma", "cx16", "xtpr", "pdcm", NULL, "pcid", "dca",
			"sse4_1", "sse4_2", "x2apic", "movbe", "popcnt", "tsc_deadline_timer",
			"aes", "xsave", "osxsave", "avx", "f16c", "rdrand", "hypervisor"}},
	{0x1, 0, CPUID_EDX, BIT(28), /* ht: topology */
		{"fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", NULL, "sep",
			"mtrr", "pge", "mca", "cmov", "pat", "pse36", "pn", "clflush", NULL, "dts",
			"acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe"}},
	/* tsc_adjust is KVM's own; fdp_excptn_only and zero_fcs_fds tell of something missing. */
	{0x7, 0, CPUID_EBX, BIT(1) | BIT(6) | BIT(13),
		{"fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2", "fdp_excptn_only", "smep",
			"bmi2", "erms", "invpcid", "rtm", "cqm", "zero_fcs_fds", "mpx", "rdt_a",
			"avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", NULL,
			"clflushopt", "clwb", "intel_pt", "avx512pf", "avx512er", "avx512cd",
			"sha_ni", "avx512bw", "avx512vl"}},
	{0x7, 0, CPUID_ECX, BIT(4) | 0x1fu << 17, /* ospke; a number for MPX */
		{"prefetchwt1", "avx512vbmi", "umip", "pku", "ospke", "waitpkg", "avx512_vbmi2",
			"shstk", "gfni", "vaes", "vpclmulqdq", "avx512_vnni", "avx512_bitalg",
			"tme", "avx512_vpopcntdq", NULL, "la57", NULL, NULL, NULL, NULL, NULL,
			"rdpid", "kl", "bus_lock_detect", "cldemote", NULL, "movdiri", "movdir64b",
			"enqcmd", "sgx_lc", "pks"}},
	{0x7, 0, CPUID_EDX, BIT(29), /* arch_capabilities: KVM's own */
		{[2] = "avx512_4vnniw", "avx512_4fmaps", "fsrm", "uintr",
			[8] = "avx512_vp2intersect", "srbds_ctrl", "md_clear", "rtm_always_abort",
			[14] = "serialize", "hybrid_cpu", "tsxldtrk", [18] = "pconfig", "arch_lbr",
			"ibt", [22] = "amx_bf16", "avx512_fp16", "amx_tile", "amx_int8",
			"spec_ctrl", "intel_stibp", "flush_l1d", "arch_capabilities",
			"core_capabilities", "spec_ctrl_ssbd"}},
	{0x7, 1, CPUID_EAX, 0,
		{"sha512", "sm3", "sm4", NULL, "avx_vnni", "avx512_bf16", NULL, "cmpccxadd",
			[10] = "fzrm", "fsrs", "fsrc", [17] = "fred", "lkgs", "wrmsrns",
			[21] = "amx_fp16", "hreset", "avx_ifma", [26] = "lam"}},
	{0x7, 1, CPUID_EDX, 0,
		{[4] = "avx_vnni_int8", "avx_ne_convert", [8] = "amx_complex",
			[10] = "avx_vnni_int16", [14] = "prefetchiti", [19] = "avx10"}},
	{0xd, 0, CPUID_EAX, 0,
		{"xstate x87", "xstate sse", "xstate avx", "xstate bndregs", "xstate bndcsr",
			"xstate opmask", "xstate zmm_hi256", "xstate hi16_zmm", "xstate pt",
			"xstate pkru"}},
	{0xd, 1, CPUID_EAX, 0, {"xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd"}},
	{0x80000001, 0, CPUID_ECX, BIT(1), /* cmp_legacy: topology */
		{"lahf_lm", "cmp_legacy", "svm", "extapic", "cr8_legacy", "abm", "sse4a",
			"misalignsse", "3dnowprefetch", "osvw", "ibs", "xop", "skinit", "wdt", NULL,
			"lwp", "fma4", "tce", NULL, NULL, NULL, "tbm", "topoext", "perfctr_core",
			"perfctr_nb", NULL, "bpext", "ptsc", "perfctr_llc", "mwaitx"}},
	{0x80000001, 0, CPUID_EDX, 0x0183f3ff, /* AMD repeats leaf 1 there */
		{[11] = "syscall", [19] = "mp", "nx", [22] = "mmxext", [25] = "fxsr_opt", "pdpe1gb",
			"rdtscp", [29] = "lm", "3dnowext", "3dnow"}},
	{0x80000008, 0, CPUID_EBX, 0xfu << 16, /* hints on speculation control */
		{"clzero", "irperf", "xsaveerptr", [4] = "rdpru", [9] = "wbnoinvd",
			[12] = "amd_ibpb", [14] = "amd_ibrs", "amd_stibp",
			[24] = "amd_ssbd", "virt_ssbd", "amd_ssb_no", [28] = "amd_psfd"}},
};

/*
 * Where this host is a VM itself, CPUID traps and costs microseconds each time. glibc read most
 * leaves at start and keeps them.
 */
void cpuid_native(u32 leaf, u32 sub, u32 out[4])
{
	static const struct {
		u32 leaf, sub, index;
	} kept[] = {
		{0x1, 0, CPUID_INDEX_1},
		{0x7, 0, CPUID_INDEX_7},
		{0x7, 1, CPUID_INDEX_7_ECX_1},
		{0xd, 1, CPUID_INDEX_D_ECX_1},
		{0x80000001, 0, CPUID_INDEX_80000001},
		{0x80000008, 0, CPUID_INDEX_80000008},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
		if (kept[i].leaf == leaf && kept[i].sub == sub) {
			memcpy(out, __x86_get_cpuid_feature_leaf(kept[i].index)->cpuid_array,
				4 * sizeof(out[0]));
			return;
		}
	__cpuid_count(leaf, sub, out[0], out[1], out[2], out[3]);
}

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *t, u32 leaf, u32 sub)
{
	for (u32 i = 0; i < t->head.nent; i++)
		if (t->entry[i].function == leaf && t->entry[i].index == sub)
			return &t->entry[i];
	return NULL;
}

u32 *cpuid_reg_of(struct kvm_cpuid_entry2 *c, enum cpuid_reg reg)
{
	switch (reg) {
	case CPUID_EAX:
		return &c->eax;
	case CPUID_EBX:
		return &c->ebx;
	case CPUID_ECX:
		return &c->ecx;
	default:
		return &c->edx;
	}
}

u32 cpuid_value(struct cpuid_table *t, u32 leaf, u32 sub, enum cpuid_reg reg)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, leaf, sub);

	return c ? *cpuid_reg_of(c, reg) : 0;
}

/* ---- boot ---- */

struct kvm_cpuid_entry2 *cpuid_make(struct cpuid_table *t, u32 leaf, u32 sub, u32 flags)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, leaf, sub);

	if (!c && t->head.nent < CPUID_MAX) {
		c = &t->entry[t->head.nent++];
		*c = (struct kvm_cpuid_entry2){.function = leaf, .index = sub};
	}
	if (c)
		c->flags = flags;
	return c;
}

static bool is_dropped(const struct kvm_cpuid_entry2 *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(dropped); i++)
		if (c->function >= dropped[i].first && c->function <= dropped[i].last)
			return true;
	/* Levels of topology: of the host, so made anew. */
	return c->function == 0xb || c->function == 0x1f || c->function == 0x80000026;
}

/* Keeps what is neither dropped nor all zero. */
static void compact(struct cpuid_table *t)
{
	u32 kept = 0;

	for (u32 i = 0; i < t->head.nent; i++) {
		const struct kvm_cpuid_entry2 *c = &t->entry[i];

		if (!is_dropped(c) && (c->eax || c->ebx || c->ecx || c->edx))
			t->entry[kept++] = *c;
	}
	t->head.nent = kept;
}

static void set_timing(struct cpuid_table *t, u32 tsc_khz)
{
	struct kvm_cpuid_entry2 *c = cpuid_find(t, 0x1, 0);

	/* x2APIC and TSC deadline are part of KVM's local APIC. That there is a hypervisor, whose
	 * leaves are worth reading, KVM leaves to us to say. */
	if (c)
		c->ecx |= BIT(21) | BIT(24) | BIT(31);
	if (!tsc_khz)
		return;
	if (cpuid_value(t, 0x0, 0, CPUID_EAX) >= 0x15) {
		/* TSC = crystal * ebx / eax; Linux takes the crystal for the APIC timer's clock. */
		c = cpuid_make(t, 0x15, 0, 0);
		if (c) {
			c->eax = APIC_BUS_KHZ;
			c->ebx = tsc_khz;
			c->ecx = APIC_BUS_KHZ * 1000u;
		}
	}
	c = cpuid_find(t, LEAF_HYPERVISOR, 0);
	if (!c)
		return;
	c->eax = LEAF_TIMING;
	c = cpuid_make(t, LEAF_TIMING, 0, 0);
	if (c) {
		c->eax = tsc_khz;
		c->ebx = APIC_BUS_KHZ;
	}
}

void cpuid_policy(struct cpuid_table *t, unsigned vcpus, u32 tsc_khz)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hidden); i++) {
		struct kvm_cpuid_entry2 *c = cpuid_find(t, hidden[i].leaf, hidden[i].sub);

		if (c)
			*cpuid_reg_of(c, hidden[i].reg) &= ~hidden[i].mask;
	}
	cpuid_settle(t);
	compact(t);
	cpuid_set_topology(t, vcpus);
	set_timing(t, tsc_khz);
}

/* ---- load ---- */

/* A list of names in a text of fixed size; too long a list ends in "...". */
struct names {
	char *buf;
	size_t cap, len;
	bool full;
};

__attribute__((format(printf, 2, 3))) static void add(struct names *n, const char *fmt, ...)
{
	va_list ap;
	int len;

	if (n->full)
		return;
	va_start(ap, fmt);
	len = vsnprintf(n->buf + n->len, n->cap - n->len, fmt, ap);
	va_end(ap);
	if (len < 0 || (size_t)len >= n->cap - n->len) {
		n->buf[n->len] = 0;
		n->full = true;
		return;
	}
	n->len += (size_t)len;
}

static void add_bits(struct names *n, const struct word *w, u32 bits)
{
	static const char *const regs[] = {"eax", "ebx", "ecx", "edx"};

	for (unsigned b = 0; b < 32; b++) {
		if (!(bits & BIT(b)))
			continue;
		if (w->names[b])
			add(n, "%s%s", n->len ? ", " : "", w->names[b]);
		else
			add(n, "%scpuid 0x%x.%u %s bit %u", n->len ? ", " : "", w->leaf, w->sub,
				regs[w->reg], b);
	}
}

static const struct word *find_word(u32 leaf, u32 sub, enum cpuid_reg reg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].leaf == leaf && words[i].sub == sub && words[i].reg == reg)
			return &words[i];
	return NULL;
}

bool cpuid_is_feature_word(u32 leaf, u32 sub, enum cpuid_reg reg)
{
	return find_word(leaf, sub, reg);
}

u32 cpuid_always(u32 leaf, u32 sub, enum cpuid_reg reg)
{
	const struct word *w = find_word(leaf, sub, reg);

	return w ? w->always : 0;
}

void cpuid_add_names(char *list, size_t cap, u32 leaf, u32 sub, enum cpuid_reg reg, u32 bits)
{
	const struct word none = {.leaf = leaf, .sub = sub, .reg = reg};
	const struct word *w = find_word(leaf, sub, reg);
	struct names n = {.buf = list, .cap = cap, .len = strlen(list)};

	add_bits(&n, w ? w : &none, bits);
}

static void vendor_of(u32 ebx, u32 ecx, u32 edx, char out[13])
{
	const u32 words_in_order[3] = {ebx, edx, ecx};

	memcpy(out, words_in_order, 12);
	for (unsigned i = 0; i < 12; i++)
		if (out[i] < ' ' || out[i] > '~')
			out[i] = '?';
	out[12] = 0;
}

/* Vendor and address width; also tells the highest basic leaf of the host. */
static int check_model(struct cpuid_table *saved, cpuid_fn host, u32 *ret_max, struct err *e)
{
	struct kvm_cpuid_entry2 *id = cpuid_find(saved, 0x0, 0);
	char here[13], there[13];
	u32 r[4], bits;

	host(0x0, 0, r);
	*ret_max = r[CPUID_EAX];
	vendor_of(r[CPUID_EBX], r[CPUID_ECX], r[CPUID_EDX], here);
	if (!id)
		return err_set(e, -EINVAL, "the saved CPU has no CPUID leaf 0");
	vendor_of(id->ebx, id->ecx, id->edx, there);
	if (id->ebx != r[CPUID_EBX] || id->ecx != r[CPUID_ECX] || id->edx != r[CPUID_EDX])
		return err_set(e, -ENOTSUP, "the state was saved on a CPU by %s, this host's is by "
			"%s", there, here);
	bits = cpuid_value(saved, 0x80000008, 0, CPUID_EAX) & 0xff;
	if (!bits)
		return 0;
	host(0x80000008, 0, r);
	if (bits > (r[CPUID_EAX] & 0xff))
		return err_set(e, -ENOTSUP, "the saved CPU has %u physical address bits, this "
			"host's has %u", bits, r[CPUID_EAX] & 0xff);
	return 0;
}

/*
 * KVM's last word on the bits in @missing. Apart from cpuid_check(), whose stack stays small: a
 * load mostly does not come here.
 */
static __attribute__((noinline)) int check_supported(u32 *missing, cpuid_ask ask, void *ctx,
	struct err *e)
{
	struct cpuid_table supported;
	char list[256] = "";
	struct names n = {.buf = list, .cap = sizeof(list)};
	u32 any = 0;
	int r = ask(ctx, &supported, e);

	if (r)
		return r;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		const struct word *w = &words[i];

		missing[i] &= ~cpuid_value(&supported, w->leaf, w->sub, w->reg);
		any |= missing[i];
		add_bits(&n, w, missing[i]);
	}
	if (!any)
		return 0;
	return err_set(e, -ENOTSUP, "this host's CPU lacks what the saved one had: %s%s", list,
		n.full ? " ..." : "");
}

int cpuid_check(struct cpuid_table *saved, cpuid_fn host, cpuid_ask ask, void *ctx, struct err *e)
{
	u32 missing[ARRAY_SIZE(words)], any = 0, max, r[4] = {0}, leaf = ~0u, sub = ~0u;
	int err = check_model(saved, host, &max, e);

	if (err)
		return err;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		const struct word *w = &words[i];
		u32 need = cpuid_value(saved, w->leaf, w->sub, w->reg) & ~w->always;

		missing[i] = 0;
		if (!need)
			continue;
		if (w->leaf != leaf || w->sub != sub) {
			leaf = w->leaf;
			sub = w->sub;
			if (leaf > max && leaf < LEAF_HYPERVISOR)
				memset(r, 0, sizeof(r));
			else
				host(leaf, sub, r);
		}
		missing[i] = need & ~r[w->reg];
		any |= missing[i];
	}
	return any ? check_supported(missing, ask, ctx, e) : 0;
}

void cpuid_describe(struct cpuid_table *t, char *out, size_t cap)
{
	static const char cut[] = " ...";
	struct names n = {.buf = out, .cap = cap > sizeof(cut) ? cap - sizeof(cut) + 1 : 0};
	u32 sig = cpuid_value(t, 0x1, 0, CPUID_EAX), family = sig >> 8 & 15, model = sig >> 4 & 15;
	char vendor[13];
	size_t head;

	if (cap)
		out[0] = 0;
	if (!n.cap)
		return;
	vendor_of(cpuid_value(t, 0, 0, CPUID_EBX), cpuid_value(t, 0, 0, CPUID_ECX),
		cpuid_value(t, 0, 0, CPUID_EDX), vendor);
	if (family == 6 || family == 15)
		model |= sig >> 12 & 0xf0;
	if (family == 15)
		family += sig >> 20 & 0xff;
	add(&n, "%s family %u model %u stepping %u", vendor, family, model, sig & 15);
	head = n.len;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		add_bits(&n, &words[i], ~words[i].always &
			cpuid_value(t, words[i].leaf, words[i].sub, words[i].reg));
	if (n.len > head)
		out[head] = ':'; /* the first separator was a comma */
	if (n.full)
		memcpy(out + n.len, cut, sizeof(cut));
}
