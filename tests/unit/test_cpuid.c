/* SPDX-License-Identifier: Apache-2.0 */
/* test_cpuid.c - the CPUID policy as tables: what a guest sees of a KVM, and where it may go on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define TSC_KHZ 2445426u
#define SUB     KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/* A KVM that offers every bit of every word that matters, on an "AuthenticAMD". */
static const struct kvm_cpuid_entry2 generous[] = {
	{.function = 0x0, .eax = 0x24, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
	{.function = 0x1, .eax = 0x00a00f11, .ebx = 0x07ff0800, .ecx = ~0u, .edx = ~0u},
	{.function = 0x2, .eax = 1},
	{.function = 0x4, .index = 0, .flags = SUB, .eax = 0xfc03c121, .ebx = 0x1c0003f},
	{.function = 0x4, .index = 3, .flags = SUB, .eax = 0xfc03c163, .ebx = 0x1c0003f},
	{.function = 0x5, .eax = 64},
	{.function = 0x6, .eax = ~0u, .ebx = 2, .ecx = 9},
	{.function = 0x7, .index = 0, .flags = SUB, .eax = 1, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
	{.function = 0x7, .index = 1, .flags = SUB, .eax = ~0u, .edx = ~0u},
	{.function = 0xa, .eax = 0x07300404},
	{.function = 0xd, .index = 0, .flags = SUB, .eax = 0x602ff, .ebx = 576, .ecx = 11008},
	{.function = 0xd, .index = 1, .flags = SUB, .eax = 0x1f, .ebx = 576},
	{.function = 0xd, .index = 2, .flags = SUB, .eax = 256, .ebx = 576},
	{.function = 0xd, .index = 3, .flags = SUB, .eax = 64, .ebx = 960},
	{.function = 0xd, .index = 9, .flags = SUB, .eax = 8, .ebx = 2688},
	{.function = 0xd, .index = 18, .flags = SUB, .eax = 8192, .ebx = 2816},
	{.function = 0x12, .index = 0, .flags = SUB, .eax = 1},
	{.function = 0x14, .index = 0, .flags = SUB, .eax = 1},
	{.function = 0x19, .eax = 1},
	{.function = 0x1d, .index = 1, .flags = SUB, .eax = 1},
	{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56,
		.edx = 0x4d},
	{.function = 0x40000001, .eax = 0x0103fefb},
	{.function = 0x80000000, .eax = 0x80000021},
	{.function = 0x80000001, .eax = 0x00a00f11, .ecx = ~0u, .edx = ~0u},
	{.function = 0x80000002, .eax = 0},
	{.function = 0x80000007, .edx = 0x100},
	{.function = 0x80000008, .eax = 0x3030, .ebx = 0x10000005, .ecx = 0x7001},
	{.function = 0x8000000a, .eax = 1, .ebx = 8},
	{.function = 0x8000001d, .index = 0, .flags = SUB, .eax = 0x4121},
	{.function = 0x8000001d, .index = 3, .flags = SUB, .eax = 0x4163},
	{.function = 0x8000001e, .eax = 77, .ebx = 0x177, .ecx = 3},
	{.function = 0x8000001f, .eax = 2},
};

static struct cpuid_table t;

static void load(unsigned vcpus)
{
	t.head = (struct kvm_cpuid2){.nent = ARRAY_SIZE(generous)};
	memcpy(t.entry, generous, sizeof(generous));
	cpuid_policy(&t, vcpus, TSC_KHZ);
}

static u32 reg(u32 leaf, u32 sub, enum cpuid_reg r)
{
	const struct kvm_cpuid_entry2 *c = cpuid_find(&t, leaf, sub);

	if (!c)
		return 0;
	return r == CPUID_EAX ? c->eax : r == CPUID_EBX ? c->ebx : r == CPUID_ECX ? c->ecx : c->edx;
}

static void test_policy_bits(void **state)
{
	static const struct {
		const char *what;
		u32 leaf, sub;
		enum cpuid_reg reg;
		unsigned bit;
		bool seen;
	} cases[] = {
		{"sse3", 1, 0, CPUID_ECX, 0, true},
		{"monitor", 1, 0, CPUID_ECX, 3, false},
		{"vmx", 1, 0, CPUID_ECX, 5, false},
		{"pcid", 1, 0, CPUID_ECX, 17, true},
		{"x2apic", 1, 0, CPUID_ECX, 21, true},
		{"tsc_deadline", 1, 0, CPUID_ECX, 24, true},
		{"osxsave", 1, 0, CPUID_ECX, 27, false},
		{"avx", 1, 0, CPUID_ECX, 28, true},
		{"hypervisor", 1, 0, CPUID_ECX, 31, true},
		{"mtrr", 1, 0, CPUID_EDX, 12, true},
		{"ds", 1, 0, CPUID_EDX, 21, false},
		{"arat", 6, 0, CPUID_EAX, 2, true},
		{"hwp", 6, 0, CPUID_EAX, 7, false},
		{"fsgsbase", 7, 0, CPUID_EBX, 0, true},
		{"sgx", 7, 0, CPUID_EBX, 2, false},
		{"mpx", 7, 0, CPUID_EBX, 14, false},
		{"avx512f", 7, 0, CPUID_EBX, 16, true},
		{"intel_pt", 7, 0, CPUID_EBX, 25, false},
		{"ospke", 7, 0, CPUID_ECX, 4, false},
		{"waitpkg", 7, 0, CPUID_ECX, 5, false},
		{"shstk", 7, 0, CPUID_ECX, 7, false},
		{"rdpid", 7, 0, CPUID_ECX, 22, true},
		{"amx_tile", 7, 0, CPUID_EDX, 24, false},
		{"spec_ctrl", 7, 0, CPUID_EDX, 26, true},
		{"avx_vnni", 7, 1, CPUID_EAX, 4, true},
		{"xstate avx", 0xd, 0, CPUID_EAX, 2, true},
		{"xstate bndregs", 0xd, 0, CPUID_EAX, 3, false},
		{"xstate tile", 0xd, 0, CPUID_EAX, 18, false},
		{"xsaves", 0xd, 1, CPUID_EAX, 3, true},
		{"xfd", 0xd, 1, CPUID_EAX, 4, false},
		{"svm", 0x80000001, 0, CPUID_ECX, 2, false},
		{"mwaitx", 0x80000001, 0, CPUID_ECX, 29, false},
		{"nx", 0x80000001, 0, CPUID_EDX, 20, true},
		{"invariant tsc", 0x80000007, 0, CPUID_EDX, 8, false},
		{"kvm-clock", 0x40000001, 0, CPUID_EAX, 3, true},
		{"msi ext dest", 0x40000001, 0, CPUID_EAX, 15, false},
		{"map gpa range", 0x40000001, 0, CPUID_EAX, 16, false},
		{"kvm-clock stable", 0x40000001, 0, CPUID_EAX, 24, true},
	};

	load(1);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		if ((reg(cases[i].leaf, cases[i].sub, cases[i].reg) >> cases[i].bit & 1) !=
		    cases[i].seen)
			fail_msg("%s should%s be seen", cases[i].what, cases[i].seen ? "" : " not");
}

/* KVM does not report what is ours to say; without the last one Linux has no kvm-clock. */
static void test_policy_adds_what_kvm_does_not_report(void **state)
{
	t.head = (struct kvm_cpuid2){.nent = ARRAY_SIZE(generous)};
	memcpy(t.entry, generous, sizeof(generous));
	cpuid_find(&t, 1, 0)->ecx &= ~(1u << 21 | 1u << 24 | 1u << 31);
	cpuid_policy(&t, 1, TSC_KHZ);
	assert_int_equal(reg(1, 0, CPUID_ECX) & (1u << 21 | 1u << 24 | 1u << 31),
		1u << 21 | 1u << 24 | 1u << 31);
}

static void test_policy_drops_leaves(void **state)
{
	static const u32 gone[] = {0x2, 0x5, 0xa, 0x12, 0x14, 0x19, 0x1d, 0x80000002, 0x80000007,
		0x8000000a, 0x8000001f};

	load(2);
	for (unsigned i = 0; i < ARRAY_SIZE(gone); i++)
		for (u32 sub = 0; sub < 2; sub++)
			assert_null(cpuid_find(&t, gone[i], sub));
	assert_null(cpuid_find(&t, 0xd, 3));
	assert_null(cpuid_find(&t, 0xd, 18));
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 2688 + 8); /* without AMX */
}

static void test_policy_timing(void **state)
{
	u64 crystal;

	load(1);
	assert_int_equal(reg(0x40000000, 0, CPUID_EAX), 0x40000010);
	assert_int_equal(reg(0x40000010, 0, CPUID_EAX), TSC_KHZ);
	assert_int_equal(reg(0x40000010, 0, CPUID_EBX), 1000000);
	crystal = reg(0x15, 0, CPUID_ECX);
	assert_int_equal(crystal * reg(0x15, 0, CPUID_EBX) / reg(0x15, 0, CPUID_EAX),
		TSC_KHZ * 1000ull);
}

static void test_policy_topology(void **state)
{
	static const struct {
		unsigned vcpus, shift;
	} cases[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {32, 5}};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned n = cases[i].vcpus, shift = cases[i].shift;

		load(n);
		assert_int_equal(reg(1, 0, CPUID_EBX) >> 16 & 0xff, n);
		assert_int_equal(reg(1, 0, CPUID_EDX) >> 28 & 1, n > 1);
		assert_int_equal(reg(0xb, 0, CPUID_EBX), 1);
		assert_int_equal(reg(0xb, 1, CPUID_EAX), shift);
		assert_int_equal(reg(0xb, 1, CPUID_EBX), n);
		assert_int_equal(reg(4, 0, CPUID_EAX) >> 14 & 0xfff, 0);
		assert_int_equal(reg(4, 3, CPUID_EAX) >> 14 & 0xfff, (1u << shift) - 1);
		assert_int_equal(reg(4, 3, CPUID_EAX) >> 26, (1u << shift) - 1);
		assert_int_equal(reg(4, 3, CPUID_EAX) & 0x3fff, 0xfc03c163 & 0x3fff);
		assert_int_equal(reg(0x8000001d, 3, CPUID_EAX) >> 14, (1u << shift) - 1);
		assert_int_equal(reg(0x80000008, 0, CPUID_ECX), shift << 12 | (n - 1));
		for (unsigned idx = 0; idx < n; idx++) {
			cpuid_set_id(&t, idx);
			assert_int_equal(reg(1, 0, CPUID_EBX) >> 24, idx);
			assert_int_equal(reg(0xb, 0, CPUID_EDX), idx);
			assert_int_equal(reg(0xb, 1, CPUID_EDX), idx);
			assert_int_equal(reg(0x8000001e, 0, CPUID_EAX), idx);
			assert_int_equal(reg(0x8000001e, 0, CPUID_EBX), idx);
			assert_int_equal(reg(0x8000001e, 0, CPUID_ECX), 0);
		}
	}
}

static void test_policy_of_a_full_table_stays_inside(void **state)
{
	t.head = (struct kvm_cpuid2){.nent = CPUID_MAX};
	for (u32 i = 0; i < CPUID_MAX; i++)
		t.entry[i] = (struct kvm_cpuid_entry2){.function = 0x80001000 + i, .eax = 1};
	memcpy(t.entry, generous, sizeof(generous[0]) * 2);
	cpuid_policy(&t, 4, TSC_KHZ);
	cpuid_set_id(&t, 3);
	assert_int_equal(t.head.nent, CPUID_MAX);
}

/* ---- where a saved guest may go on ---- */

static struct cpuid_table host_table;
static struct cpuid_table kvm_table;
static unsigned asked;

static void fake_host(u32 leaf, u32 sub, u32 out[4])
{
	const struct kvm_cpuid_entry2 *c = cpuid_find(&host_table, leaf, sub);

	memset(out, 0, 4 * sizeof(out[0]));
	if (c) {
		out[0] = c->eax;
		out[1] = c->ebx;
		out[2] = c->ecx;
		out[3] = c->edx;
	}
}

static int fake_ask(void *ctx, struct cpuid_table *ret, struct err *e)
{
	asked++;
	*ret = kvm_table;
	return 0;
}

/* A saved guest of a generous KVM, and a host that has all that itself. */
static int same_host(void **state)
{
	load(1);
	host_table.head = kvm_table.head = (struct kvm_cpuid2){.nent = ARRAY_SIZE(generous)};
	memcpy(host_table.entry, generous, sizeof(generous));
	memcpy(kvm_table.entry, generous, sizeof(generous));
	asked = 0;
	return 0;
}

static int check(struct err *e)
{
	*e = (struct err){0};
	return cpuid_check(&t, fake_host, fake_ask, NULL, e);
}

static void test_same_host_does_not_ask_kvm(void **state)
{
	struct err e;

	assert_int_equal(check(&e), 0);
	assert_int_equal(asked, 0);
}

static void test_kvms_own_features_do_not_need_the_host(void **state)
{
	struct err e;

	cpuid_find(&host_table, 1, 0)->ecx &= ~(1u << 31 | 1u << 24 | 1u << 21 | 1u << 27);
	cpuid_find(&host_table, 7, 0)->ebx &= ~(1u << 1);
	cpuid_find(&host_table, 7, 0)->edx &= ~(1u << 29);
	assert_int_equal(check(&e), 0);
	assert_int_equal(asked, 0);
}

static void test_h06_missing_feature_is_named(void **state)
{
	static const struct {
		u32 leaf, sub;
		enum cpuid_reg reg;
		unsigned bit;
		const char *name;
	} cases[] = {
		{1, 0, CPUID_ECX, 30, "rdrand"},
		{1, 0, CPUID_EDX, 26, "sse2"},
		{7, 0, CPUID_EBX, 16, "avx512f"},
		{7, 0, CPUID_ECX, 22, "rdpid"},
		{7, 0, CPUID_EDX, 4, "fsrm"},
		{7, 1, CPUID_EAX, 4, "avx_vnni"},
		{0xd, 0, CPUID_EAX, 9, "xstate pkru"},
		{0xd, 1, CPUID_EAX, 3, "xsaves"},
		{0x80000001, 0, CPUID_ECX, 6, "sse4a"},
		{0x80000001, 0, CPUID_EDX, 27, "rdtscp"},
		{0x80000008, 0, CPUID_EBX, 0, "clzero"},
		{7, 0, CPUID_EBX, 22, "cpuid 0x7.0 ebx bit 22"}, /* no name yet */
	};
	struct cpuid_table *const tables[] = {&host_table, &kvm_table};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e;

		same_host(NULL);
		for (unsigned k = 0; k < 2; k++) {
			struct kvm_cpuid_entry2 *c =
				cpuid_find(tables[k], cases[i].leaf, cases[i].sub);
			u32 *regs[] = {&c->eax, &c->ebx, &c->ecx, &c->edx};

			*regs[cases[i].reg] &= ~(1u << cases[i].bit);
		}
		assert_int_equal(check(&e), -ENOTSUP);
		assert_int_equal(asked, 1);
		assert_non_null(strstr(e.msg, cases[i].name));
	}
}

static void test_kvm_may_emulate_what_the_host_lacks(void **state)
{
	struct err e;

	cpuid_find(&host_table, 7, 0)->ecx &= ~(1u << 2); /* umip */
	assert_int_equal(check(&e), 0);
	assert_int_equal(asked, 1);
}

static void test_feature_the_guest_never_saw_is_not_needed(void **state)
{
	struct err e;

	cpuid_find(&t, 7, 0)->ebx &= ~(1u << 16);
	cpuid_find(&host_table, 7, 0)->ebx &= ~(1u << 16);
	assert_int_equal(check(&e), 0);
	assert_int_equal(asked, 0);
}

static void test_leaf_above_the_hosts_maximum_counts_as_absent(void **state)
{
	struct err e;

	cpuid_find(&host_table, 0, 0)->eax = 6; /* its leaf 7 answers something else */
	kvm_table.head.nent = 2;
	assert_int_equal(check(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "fsgsbase"));
}

static void test_h06_other_vendor(void **state)
{
	struct kvm_cpuid_entry2 *id = cpuid_find(&host_table, 0, 0);
	struct err e;

	id->ebx = 0x756e6547;
	id->ecx = 0x6c65746e;
	id->edx = 0x49656e69;
	assert_int_equal(check(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "AuthenticAMD"));
	assert_non_null(strstr(e.msg, "GenuineIntel"));
}

static void test_h06_fewer_address_bits(void **state)
{
	struct err e;

	cpuid_find(&host_table, 0x80000008, 0)->eax = 0x3027;
	assert_int_equal(check(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "48 physical address bits"));
}

static void test_long_list_of_misses_is_cut(void **state)
{
	struct err e;

	host_table.head.nent = kvm_table.head.nent = 1;
	cpuid_find(&t, 0x80000008, 0)->eax = 0;
	assert_int_equal(check(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "pni, pclmulqdq"));
	assert_string_equal(e.msg + strlen(e.msg) - 4, " ...");
}

static void test_no_leaf_0(void **state)
{
	struct err e;

	t.head.nent = 0;
	assert_int_equal(check(&e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy_bits),
		cmocka_unit_test(test_policy_adds_what_kvm_does_not_report),
		cmocka_unit_test(test_policy_drops_leaves),
		cmocka_unit_test(test_policy_timing),
		cmocka_unit_test(test_policy_topology),
		cmocka_unit_test(test_policy_of_a_full_table_stays_inside),
		cmocka_unit_test_setup(test_same_host_does_not_ask_kvm, same_host),
		cmocka_unit_test_setup(test_kvms_own_features_do_not_need_the_host, same_host),
		cmocka_unit_test_setup(test_h06_missing_feature_is_named, same_host),
		cmocka_unit_test_setup(test_kvm_may_emulate_what_the_host_lacks, same_host),
		cmocka_unit_test_setup(test_feature_the_guest_never_saw_is_not_needed, same_host),
		cmocka_unit_test_setup(
			test_leaf_above_the_hosts_maximum_counts_as_absent, same_host),
		cmocka_unit_test_setup(test_h06_other_vendor, same_host),
		cmocka_unit_test_setup(test_h06_fewer_address_bits, same_host),
		cmocka_unit_test_setup(test_long_list_of_misses_is_cut, same_host),
		cmocka_unit_test_setup(test_no_leaf_0, same_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
