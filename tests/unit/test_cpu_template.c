/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cpu_template.c - levels and masks on tables of faked hosts, and where guests made with them
 * may be restored.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define TSC_KHZ 2445426u
#define SUB     KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define BIT(n)  (1u << (n))

/* A new server: AVX-512, all protections, 52 address bits. */
static const struct kvm_cpuid_entry2 rich[] = {
	{.function = 0x0, .eax = 0x20, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 0x1, .eax = 0x806f8, .ebx = 0x800, .ecx = ~0u, .edx = ~0u},
	{.function = 0x4, .index = 0, .flags = SUB, .eax = 0x4121, .ebx = 0x02c0003f},
	{.function = 0x6, .eax = BIT(2)},
	{.function = 0x7, .index = 0, .flags = SUB, .eax = 2, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
	{.function = 0x7, .index = 1, .flags = SUB, .eax = ~0u, .edx = ~0u},
	{.function = 0x7, .index = 2, .flags = SUB, .edx = 0x3f},
	{.function = 0xb, .index = 0, .flags = SUB},
	{.function = 0xd, .index = 0, .flags = SUB, .eax = 0x602e7, .ebx = 576, .ecx = 11008},
	{.function = 0xd, .index = 1, .flags = SUB, .eax = 0x1f, .ebx = 576, .ecx = 0x1800},
	{.function = 0xd, .index = 2, .flags = SUB, .eax = 256, .ebx = 576},
	{.function = 0xd, .index = 5, .flags = SUB, .eax = 64, .ebx = 1088},
	{.function = 0xd, .index = 6, .flags = SUB, .eax = 512, .ebx = 1152},
	{.function = 0xd, .index = 7, .flags = SUB, .eax = 1024, .ebx = 1664},
	{.function = 0xd, .index = 9, .flags = SUB, .eax = 8, .ebx = 2688},
	{.function = 0xd, .index = 11, .flags = SUB, .eax = 16, .ecx = 1},
	{.function = 0xd, .index = 12, .flags = SUB, .eax = 24, .ecx = 1},
	{.function = 0xd, .index = 17, .flags = SUB, .eax = 64, .ebx = 2752, .ecx = 2},
	{.function = 0xd, .index = 18, .flags = SUB, .eax = 8192, .ebx = 2816, .ecx = 6},
	{.function = 0x1f, .index = 0, .flags = SUB},
	{.function = 0x24, .index = 0, .flags = SUB, .ebx = 0x70001},
	{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56,
		.edx = 0x4d},
	{.function = 0x40000001, .eax = 0x0103fefb},
	{.function = 0x80000000, .eax = 0x80000021},
	{.function = 0x80000001, .eax = 0x806f8, .ecx = ~0u, .edx = ~0u},
	{.function = 0x80000002, .eax = 0x65746e49},
	{.function = 0x80000008, .eax = 0x3934, .ebx = ~0u},
	{.function = 0x80000021, .eax = 0x45},
};

/* One of 2009: exactly level 2 and what goes with it. Its leaf 7 would answer something else. */
static const struct kvm_cpuid_entry2 old[] = {
	{.function = 0x0, .eax = 0xb, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 0x1, .eax = 0x106a5, .ebx = 0x800, .ecx = 0x00982201, .edx = 0x0f8bfbff},
	{.function = 0x7, .index = 0, .flags = SUB},
	{.function = 0x80000000, .eax = 0x80000008},
	{.function = 0x80000001, .ecx = 0x1, .edx = 0x28100800},
	{.function = 0x80000008, .eax = 0x3028},
};

/* One of 2013: level 3, with some things besides. */
static const struct kvm_cpuid_entry2 middle[] = {
	{.function = 0x0, .eax = 0xd, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 0x1, .eax = 0x306c3, .ebx = 0x800, .ecx = 0x7ffafbff, .edx = 0xbfebfbff},
	{.function = 0x7, .index = 0, .flags = SUB, .ebx = 0x27ab},
	{.function = 0xd, .index = 0, .flags = SUB, .eax = 7, .ebx = 832, .ecx = 832},
	{.function = 0xd, .index = 1, .flags = SUB, .eax = 1},
	{.function = 0xd, .index = 2, .flags = SUB, .eax = 256, .ebx = 576},
	{.function = 0x80000000, .eax = 0x80000008},
	{.function = 0x80000001, .ecx = 0x21, .edx = 0x2c100800},
	{.function = 0x80000008, .eax = 0x302e},
};

static struct cpuid_table t, there;
static struct cpu_template tpl;

static void take(struct cpuid_table *to, const struct kvm_cpuid_entry2 *from, size_t count)
{
	to->head = (struct kvm_cpuid2){.nent = (u32)count};
	memcpy(to->entry, from, count * sizeof(*from));
}
#define TAKE(to, from) take(to, from, ARRAY_SIZE(from))

static u32 reg(u32 leaf, u32 sub, enum cpuid_reg r)
{
	return cpuid_value(&t, leaf, sub, r);
}

/* As vm_boot() does it, on what is in @t. */
static int boot(struct err *e)
{
	int r;

	*e = (struct err){0};
	r = cpu_template_apply(&t, &tpl, e);
	if (r)
		return r;
	cpuid_policy(&t, 2, TSC_KHZ);
	return cpu_template_check(&t, &tpl, e);
}

static void boot_level(enum cpu_level level)
{
	struct err e;

	TAKE(&t, rich);
	tpl = (struct cpu_template){.level = level};
	if (boot(&e))
		fail_msg("%s", e.msg);
}

static void play_host(u32 leaf, u32 sub, u32 out[4])
{
	for (unsigned r = 0; r < 4; r++)
		out[r] = cpuid_value(&there, leaf, sub, r);
}

static int play_kvm(void *ctx, struct cpuid_table *ret, struct err *e)
{
	*ret = there;
	return 0;
}

/* Whether the guest in @t, saved, can go on at @there. */
static int restore(struct err *e)
{
	*e = (struct err){0};
	return cpuid_check(&t, play_host, play_kvm, NULL, e);
}

static void test_level_2_is_exactly_that(void **state)
{
	boot_level(CPU_LEVEL_V2);
	/* sse3 ssse3 cx16 sse4_1 sse4_2 popcnt; x2apic, tsc deadline, hypervisor are KVM's. */
	assert_int_equal(reg(0x1, 0, CPUID_ECX), 0x00982201 | BIT(21) | BIT(24) | BIT(31));
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & ~(BIT(1) | BIT(6) | BIT(13)), 0);
	assert_int_equal(reg(0x7, 0, CPUID_EAX) | reg(0x7, 0, CPUID_ECX) | reg(0x7, 0, CPUID_EDX),
		0);
	assert_null(cpuid_find(&t, 0xd, 0));
	assert_null(cpuid_find(&t, 0xd, 2));
	assert_int_equal(reg(0x80000001, 0, CPUID_ECX), 0x1 | BIT(1));
	assert_int_equal(reg(0x80000001, 0, CPUID_EDX) & ~0x0183f3ffu, 0x20100800);
	assert_int_equal(reg(0x80000008, 0, CPUID_EAX), 0x3028);
	assert_int_equal(reg(0x80000008, 0, CPUID_EBX), 0);
}

static void test_level_3_is_exactly_that(void **state)
{
	boot_level(CPU_LEVEL_V3);
	assert_int_equal(reg(0x1, 0, CPUID_ECX) & ~(BIT(21) | BIT(24) | BIT(31)), 0x34d83201);
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & ~(BIT(1) | BIT(6) | BIT(13)), 0x128);
	assert_int_equal(reg(0x80000001, 0, CPUID_ECX), 0x21 | BIT(1));
	/* XSAVE of x87, SSE and AVX, and nothing cleverer. */
	assert_int_equal(reg(0xd, 0, CPUID_EAX), 7);
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 832);
	assert_int_equal(reg(0xd, 2, CPUID_EAX), 256);
	assert_null(cpuid_find(&t, 0xd, 1));
	for (u32 sub = 3; sub < 20; sub++)
		assert_null(cpuid_find(&t, 0xd, sub));
}

static void test_levels_keep_what_kvm_gives(void **state)
{
	static const u32 kept[] = {0x0, 0x1, 0x4, 0x6, 0xb, 0x15, 0x40000000, 0x40000001,
		0x40000010, 0x80000000, 0x80000001, 0x80000002, 0x80000008};
	static const u32 gone[] = {0x1f, 0x24, 0x80000021};

	for (enum cpu_level level = CPU_LEVEL_V2; level <= CPU_LEVEL_V3; level++) {
		boot_level(level);
		for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
			if (!cpuid_find(&t, kept[i], 0))
				fail_msg("leaf 0x%x is gone", kept[i]);
		for (unsigned i = 0; i < ARRAY_SIZE(gone); i++)
			assert_null(cpuid_find(&t, gone[i], 0));
		assert_int_equal(reg(0x0, 0, CPUID_EAX), 0x15);
		assert_int_equal(reg(0x80000000, 0, CPUID_EAX), 0x80000008);
		assert_int_equal(reg(0x40000001, 0, CPUID_EAX) & BIT(3), BIT(3)); /* kvm-clock */
		assert_int_equal(reg(0xb, 1, CPUID_EBX), 2);
		assert_int_equal(reg(0x1, 0, CPUID_EDX) >> 28 & 1, 1);
	}
}

/* As /proc/cpuinfo and glibc see it: all that the psABI's table has, nothing that it has not. */
static void test_h06_what_a_host_lacks_of_a_level_is_named(void **state)
{
	static const struct {
		u32 leaf;
		enum cpuid_reg reg;
		unsigned bit;
		bool v2;
		const char *name;
	} cases[] = {
		{0x1, CPUID_ECX, 20, true, "sse4_2"},     {0x1, CPUID_ECX, 13, true, "cx16"},
		{0x1, CPUID_ECX, 23, true, "popcnt"},     {0x80000001, CPUID_ECX, 0, true, "lahf_lm"},
		{0x1, CPUID_ECX, 9, true, "ssse3"},       {0x1, CPUID_EDX, 26, true, "sse2"},
		{0x1, CPUID_ECX, 28, false, "avx"},       {0x1, CPUID_ECX, 29, false, "f16c"},
		{0x1, CPUID_ECX, 12, false, "fma"},       {0x1, CPUID_ECX, 22, false, "movbe"},
		{0x7, CPUID_EBX, 5, false, "avx2"},       {0x7, CPUID_EBX, 8, false, "bmi2"},
		{0x80000001, CPUID_ECX, 5, false, "abm"}, {0xd, CPUID_EAX, 2, false, "xstate avx"},
		{0x1, CPUID_ECX, 26, false, "xsave"},     {0x7, CPUID_EBX, 3, false, "bmi1"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		for (enum cpu_level level = CPU_LEVEL_V2; level <= CPU_LEVEL_V3; level++) {
			bool needed = cases[i].v2 || level == CPU_LEVEL_V3;
			struct err e;

			TAKE(&t, rich);
			*cpuid_reg_of(cpuid_find(&t, cases[i].leaf, 0), cases[i].reg) &=
				~BIT(cases[i].bit);
			tpl = (struct cpu_template){.level = level};
			assert_int_equal(boot(&e), needed ? -ENOTSUP : 0);
			if (!needed)
				continue;
			assert_non_null(strstr(e.msg, cases[i].name));
			assert_non_null(strstr(e.msg, level == CPU_LEVEL_V2 ? "baseline-v2"
									     : "baseline-v3"));
		}
}

/* ---- restores ---- */

static void test_h06_level_2_goes_on_on_a_poorer_host(void **state)
{
	struct err e;

	boot_level(CPU_LEVEL_V2);
	TAKE(&there, old);
	if (restore(&e))
		fail_msg("%s", e.msg);
	/* One without a mask does not. */
	boot_level(CPU_LEVEL_HOST);
	cpuid_find(&t, 0x80000008, 0)->eax = 0x3028;
	assert_int_equal(restore(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "pclmulqdq"));
	assert_non_null(strstr(e.msg, "avx"));
}

static void test_h06_level_3_goes_on_where_level_3_is(void **state)
{
	struct err e;

	boot_level(CPU_LEVEL_V3);
	TAKE(&there, middle);
	if (restore(&e))
		fail_msg("%s", e.msg);
	TAKE(&there, old);
	assert_int_equal(restore(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "avx2"));
}

static void test_level_boots_and_goes_back(void **state)
{
	struct err e;

	TAKE(&t, middle);
	tpl = (struct cpu_template){.level = CPU_LEVEL_V3};
	assert_int_equal(boot(&e), 0);
	TAKE(&there, rich);
	assert_int_equal(restore(&e), 0);
	assert_int_equal(reg(0x0, 0, CPUID_EAX), 0xd);
}

/* ---- masks ---- */

static struct cpu_leaf_mask *mask(u32 leaf, u32 sub)
{
	struct cpu_leaf_mask *m = &tpl.leaf[tpl.leaf_count++];

	*m = (struct cpu_leaf_mask){.leaf = leaf, .sub = sub};
	return m;
}

static void clear_bit(u32 leaf, u32 sub, enum cpuid_reg r, unsigned bit)
{
	mask(leaf, sub)->care[r] = BIT(bit);
}

static void set_bit(u32 leaf, u32 sub, enum cpuid_reg r, unsigned bit)
{
	struct cpu_leaf_mask *m = mask(leaf, sub);

	m->care[r] = m->value[r] = BIT(bit);
}

static int on_rich(void **state)
{
	TAKE(&t, rich);
	tpl = (struct cpu_template){.level = CPU_LEVEL_HOST};
	return 0;
}

static void test_what_stands_on_a_masked_feature_goes_too(void **state)
{
	struct err e;

	clear_bit(0x1, 0, CPUID_ECX, 28); /* avx */
	assert_int_equal(boot(&e), 0);
	assert_int_equal(reg(0x1, 0, CPUID_ECX) & (BIT(12) | BIT(28) | BIT(29)), 0);
	assert_int_equal(reg(0x1, 0, CPUID_ECX) & BIT(26), BIT(26)); /* xsave stays */
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & (BIT(5) | BIT(16) | BIT(17) | BIT(30)), 0);
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & BIT(8), BIT(8)); /* bmi2 stays */
	assert_int_equal(reg(0x7, 0, CPUID_ECX) & (BIT(9) | BIT(11)), 0);
	assert_int_equal(reg(0xd, 0, CPUID_EAX), BIT(0) | BIT(1) | BIT(9));
	assert_null(cpuid_find(&t, 0xd, 2));
	assert_null(cpuid_find(&t, 0xd, 7));
	assert_int_equal(reg(0xd, 9, CPUID_EAX), 8);
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 2696); /* protection keys keep their place */
}

static void test_state_that_is_masked_takes_its_feature(void **state)
{
	struct err e;

	clear_bit(0xd, 0, CPUID_EAX, 6); /* one of the three that AVX-512 needs */
	clear_bit(0xd, 0, CPUID_EAX, 9);
	assert_int_equal(boot(&e), 0);
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & BIT(16), 0);
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & BIT(5), BIT(5)); /* avx2 stays */
	assert_int_equal(reg(0x7, 0, CPUID_ECX) & BIT(3), 0);
	assert_int_equal(reg(0xd, 0, CPUID_EAX), 7);
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 832);
}

static void test_no_xsave_no_leaf_d(void **state)
{
	struct err e;

	clear_bit(0x1, 0, CPUID_ECX, 26);
	assert_int_equal(boot(&e), 0);
	for (u32 sub = 0; sub < 20; sub++)
		assert_null(cpuid_find(&t, 0xd, sub));
	assert_int_equal(reg(0x1, 0, CPUID_ECX) & BIT(28), 0);
	assert_int_equal(reg(0x7, 0, CPUID_ECX) & BIT(3), 0);
}

static void test_all_of_a_host_is_left_as_it_is(void **state)
{
	struct err e;

	assert_int_equal(boot(&e), 0);
	assert_int_equal(reg(0xd, 0, CPUID_EAX), 0x2e7); /* but for AMX, by policy */
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & BIT(16), BIT(16));
	assert_int_equal(reg(0xd, 11, CPUID_EAX), 16); /* supervisor state, in leaf d.1 ecx */
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 2696);
}

static void test_mask_of_plain_numbers(void **state)
{
	struct err e;

	*mask(0x1, 0) = (struct cpu_leaf_mask){.leaf = 1, .care = {~0u}, .value = {0x306f2}};
	assert_int_equal(boot(&e), 0);
	assert_int_equal(reg(0x1, 0, CPUID_EAX), 0x306f2);
}

static void test_mask_on_top_of_a_level(void **state)
{
	struct err e;

	tpl.level = CPU_LEVEL_V3;
	clear_bit(0x7, 0, CPUID_EBX, 8);
	assert_int_equal(boot(&e), 0);
	assert_int_equal(reg(0x7, 0, CPUID_EBX) & (BIT(3) | BIT(5) | BIT(8)), BIT(3) | BIT(5));
}

static void test_setting_what_kvm_lacks_is_refused_by_name(void **state)
{
	struct err e;

	cpuid_find(&t, 7, 0)->ebx &= ~(BIT(18) | BIT(19));
	set_bit(0x7, 0, CPUID_EBX, 18);
	set_bit(0x7, 0, CPUID_EBX, 19);
	set_bit(0x7, 0, CPUID_EBX, 5); /* is there */
	assert_int_equal(boot(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "rdseed, adx"));
	assert_null(strstr(e.msg, "avx2"));
}

static void test_setting_what_is_hidden_from_all_is_refused_by_name(void **state)
{
	struct err e;

	set_bit(0x1, 0, CPUID_ECX, 5);
	assert_int_equal(boot(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "vmx"));
	on_rich(NULL);
	set_bit(0x7, 0, CPUID_EBX, 16);
	clear_bit(0x1, 0, CPUID_ECX, 28);
	assert_int_equal(boot(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "avx512f"));
}

static void test_leaf_that_is_not_there(void **state)
{
	struct err e;

	clear_bit(0x14, 0, CPUID_EBX, 0); /* nothing to clear */
	assert_int_equal(boot(&e), 0);
	assert_null(cpuid_find(&t, 0x14, 0));
	on_rich(NULL);
	set_bit(0x14, 1, CPUID_EBX, 0);
	assert_int_equal(boot(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "leaf 0x14.1"));
}

static void test_other_vendor_is_refused(void **state)
{
	struct err e;

	*mask(0, 0) = (struct cpu_leaf_mask){.care = {0, ~0u}, .value = {0, 0x68747541}};
	assert_int_equal(boot(&e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "vendor"));
}

static void test_bits_that_are_no_matter_of_the_host_may_be_named(void **state)
{
	struct err e;

	cpuid_find(&t, 1, 0)->ecx &= ~BIT(31);
	set_bit(0x1, 0, CPUID_ECX, 31);
	set_bit(0x1, 0, CPUID_ECX, 27); /* osxsave: as CR4 says */
	assert_int_equal(boot(&e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_level_2_is_exactly_that),
		cmocka_unit_test(test_level_3_is_exactly_that),
		cmocka_unit_test(test_levels_keep_what_kvm_gives),
		cmocka_unit_test(test_h06_what_a_host_lacks_of_a_level_is_named),
		cmocka_unit_test(test_h06_level_2_goes_on_on_a_poorer_host),
		cmocka_unit_test(test_h06_level_3_goes_on_where_level_3_is),
		cmocka_unit_test(test_level_boots_and_goes_back),
		cmocka_unit_test_setup(test_what_stands_on_a_masked_feature_goes_too, on_rich),
		cmocka_unit_test_setup(test_state_that_is_masked_takes_its_feature, on_rich),
		cmocka_unit_test_setup(test_no_xsave_no_leaf_d, on_rich),
		cmocka_unit_test_setup(test_all_of_a_host_is_left_as_it_is, on_rich),
		cmocka_unit_test_setup(test_mask_of_plain_numbers, on_rich),
		cmocka_unit_test_setup(test_mask_on_top_of_a_level, on_rich),
		cmocka_unit_test_setup(test_setting_what_kvm_lacks_is_refused_by_name, on_rich),
		cmocka_unit_test_setup(test_setting_what_is_hidden_from_all_is_refused_by_name,
			on_rich),
		cmocka_unit_test_setup(test_leaf_that_is_not_there, on_rich),
		cmocka_unit_test_setup(test_other_vendor_is_refused, on_rich),
		cmocka_unit_test_setup(
			test_bits_that_are_no_matter_of_the_host_may_be_named, on_rich),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
