/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_topology.c - the processors as an operating system finds them in CPUID, read back by each
 * way there is: old and new, Intel's and AMD's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define TSC_KHZ 2445426u
#define SUB     KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define TOPOEXT (1u << 22)

/* A server of Intel's with 2 threads a core, 40 cores and dies; an old KVM repeats its levels. */
static const struct kvm_cpuid_entry2 intel[] = {
	{.function = 0x0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 0x1, .eax = 0x606a6, .ebx = 0x2d800800, .ecx = 0x77fefbff, .edx = 0xbfebfbff},
	{.function = 0x4, .index = 0, .flags = SUB, .eax = 0xfc004121, .ebx = 0x02c0003f},
	{.function = 0x4, .index = 1, .flags = SUB, .eax = 0xfc004122, .ebx = 0x01c0003f},
	{.function = 0x4, .index = 2, .flags = SUB, .eax = 0xfc01c143, .ebx = 0x04c0003f},
	{.function = 0x4, .index = 3, .flags = SUB, .eax = 0xfc1fc163, .ebx = 0x03c0003f},
	{.function = 0xb, .index = 0, .flags = SUB, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 45},
	{.function = 0xb, .index = 1, .flags = SUB, .eax = 7, .ebx = 80, .ecx = 0x201, .edx = 45},
	{.function = 0x1f, .index = 0, .flags = SUB, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 45},
	{.function = 0x1f, .index = 1, .flags = SUB, .eax = 5, .ebx = 40, .ecx = 0x201, .edx = 45},
	{.function = 0x1f, .index = 2, .flags = SUB, .eax = 7, .ebx = 80, .ecx = 0x502, .edx = 45},
	{.function = 0x80000000, .eax = 0x80000008},
	{.function = 0x80000001, .ecx = 0x121, .edx = 0x2c100800},
	{.function = 0x80000008, .eax = 0x392e},
};

/* One of AMD's, with 32 threads and levels of its own. */
static const struct kvm_cpuid_entry2 amd[] = {
	{.function = 0x0, .eax = 0x10, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
	{.function = 0x1, .eax = 0xa10f11, .ebx = 0x11200800, .ecx = 0x76fa320b, .edx = 0x178bfbff},
	{.function = 0xb, .index = 0, .flags = SUB, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 17},
	{.function = 0xb, .index = 1, .flags = SUB, .eax = 5, .ebx = 32, .ecx = 0x201, .edx = 17},
	{.function = 0x80000000, .eax = 0x80000028},
	{.function = 0x80000001, .ecx = 0x75c237ff, .edx = 0x2fd3fbff},
	{.function = 0x80000008, .eax = 0x3034, .ebx = 0x791ef257, .ecx = 0x501f},
	{.function = 0x8000001d, .index = 0, .flags = SUB, .eax = 0x4121, .ebx = 0x1c0003f},
	{.function = 0x8000001d, .index = 1, .flags = SUB, .eax = 0x4122, .ebx = 0x1c0003f},
	{.function = 0x8000001d, .index = 2, .flags = SUB, .eax = 0x4143, .ebx = 0x1c0003f},
	{.function = 0x8000001d, .index = 3, .flags = SUB, .eax = 0x3c163, .ebx = 0x3c0003f},
	{.function = 0x8000001e, .eax = 17, .ebx = 0x108, .ecx = 0x100},
	{.function = 0x80000026, .index = 0, .flags = SUB, .eax = 0x40000001, .ebx = 2,
		.ecx = 0x100, .edx = 17},
	{.function = 0x80000026, .index = 1, .flags = SUB, .eax = 4, .ebx = 16, .ecx = 0x201,
		.edx = 17},
	{.function = 0x80000026, .index = 2, .flags = SUB, .eax = 4, .ebx = 16, .ecx = 0x302,
		.edx = 17},
	{.function = 0x80000026, .index = 3, .flags = SUB, .eax = 5, .ebx = 32, .ecx = 0x403,
		.edx = 17},
};

static const struct host {
	const char *name;
	const struct kvm_cpuid_entry2 *entry;
	u32 count;
	u32 levels[2]; /* leaves that tell levels */
	u32 caches;    /* the leaf that tells caches */
	bool is_amd;
} hosts[] = {
	{"Intel", intel, ARRAY_SIZE(intel), {0xb, 0x1f}, 0x4, false},
	{"AMD", amd, ARRAY_SIZE(amd), {0xb, 0x80000026}, 0x8000001d, true},
};

static const unsigned counts[] = {1, 2, 3, 8, 32};

static struct cpuid_table t;
static const struct host *host;
static unsigned vcpus;

static u32 reg(u32 leaf, u32 sub, enum cpuid_reg r)
{
	return cpuid_value(&t, leaf, sub, r);
}

/* The smallest shift that leaves nothing of all ids below @n. */
static unsigned bits_for(unsigned n)
{
	unsigned bits = 0;

	while ((n - 1) >> bits)
		bits++;
	return bits;
}

/* Runs @check for each host and number of vCPUs. */
static void for_all(void (*check)(void))
{
	for (unsigned h = 0; h < ARRAY_SIZE(hosts); h++)
		for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
			host = &hosts[h];
			vcpus = counts[i];
			t.head = (struct kvm_cpuid2){.nent = host->count};
			memcpy(t.entry, host->entry, host->count * sizeof(t.entry[0]));
			cpuid_policy(&t, vcpus, TSC_KHZ);
			check();
		}
}

/* As an operating system reads levels: until one that is no level. */
static void check_levels(void)
{
	for (unsigned l = 0; l < 2; l++) {
		u32 leaf = host->levels[l], sub = 0, shift = 0, count = 0;
		bool ids_differ = true;

		for (; reg(leaf, sub, CPUID_ECX) >> 8 & 0xff; sub++) {
			assert_int_equal(reg(leaf, sub, CPUID_ECX) & 0xff, sub);
			assert_true((reg(leaf, sub, CPUID_EAX) & 0x1f) >= shift);
			assert_true((reg(leaf, sub, CPUID_EBX) & 0xffff) >= count);
			shift = reg(leaf, sub, CPUID_EAX) & 0x1f;
			count = reg(leaf, sub, CPUID_EBX) & 0xffff;
			if (sub == 0) /* one thread a core */
				ids_differ = shift == 0 && count == 1;
		}
		assert_int_equal(sub, 2); /* none of the host's levels is left */
		assert_true(ids_differ);
		assert_int_equal(count, vcpus);
		assert_int_equal(shift, bits_for(vcpus));
		assert_int_equal(reg(leaf, 0, CPUID_EAX) >> 5, 0); /* no kinds of cores */
	}
}

static void test_levels_make_one_package_of_cores(void **state)
{
	for_all(check_levels);
}

static void check_ids(void)
{
	u32 seen = 0;

	for (unsigned idx = 0; idx < vcpus; idx++) {
		cpuid_set_id(&t, idx);
		assert_int_equal(reg(0x1, 0, CPUID_EBX) >> 24, idx);
		for (unsigned l = 0; l < 2; l++)
			for (u32 sub = 0; sub < 2; sub++)
				assert_int_equal(reg(host->levels[l], sub, CPUID_EDX), idx);
		/* The same package for all. */
		assert_int_equal(idx >> reg(host->levels[1], 1, CPUID_EAX), 0);
		seen |= 1u << idx;
		if (!host->is_amd) {
			assert_null(cpuid_find(&t, 0x8000001e, 0));
			continue;
		}
		assert_int_equal(reg(0x8000001e, 0, CPUID_EAX), idx);
		assert_int_equal(reg(0x8000001e, 0, CPUID_EBX), idx); /* core; one thread in it */
		assert_int_equal(reg(0x8000001e, 0, CPUID_ECX), 0);   /* node 0 of one */
	}
	assert_int_equal(seen, vcpus == 32 ? ~0u : (1u << vcpus) - 1);
}

static void test_ids_are_indexes_everywhere(void **state)
{
	for_all(check_ids);
}

static void check_old_ways(void)
{
	assert_int_equal(reg(0x1, 0, CPUID_EBX) >> 16 & 0xff, vcpus);
	assert_int_equal(reg(0x1, 0, CPUID_EDX) >> 28 & 1, vcpus > 1);
	assert_int_equal(reg(0x80000001, 0, CPUID_ECX) >> 1 & 1, vcpus > 1);
	if (host->is_amd) {
		assert_int_equal((reg(0x80000008, 0, CPUID_ECX) & 0xff) + 1, vcpus);
		assert_int_equal(reg(0x80000008, 0, CPUID_ECX) >> 12 & 0xf, bits_for(vcpus));
		return;
	}
	assert_int_equal(reg(0x80000008, 0, CPUID_ECX), 0);
	/* Cores a package by leaf 4, threads by leaf 1: threads a core come out as one. */
	for (u32 sub = 0; sub < 4; sub++)
		assert_int_equal((reg(0x4, sub, CPUID_EAX) >> 26) + 1, 1u << bits_for(vcpus));
}

static void test_old_ways_say_the_same(void **state)
{
	for_all(check_old_ways);
}

static void check_caches(void)
{
	for (u32 sub = 0; sub < 4; sub++) {
		u32 eax = reg(host->caches, sub, CPUID_EAX);
		unsigned sharing = (eax >> 14 & 0xfff) + 1, level = eax >> 5 & 7;

		assert_true(eax & 0x1f);
		/* Who shares it, by the shift that the number gives. */
		assert_int_equal(bits_for(sharing), level == 3 ? bits_for(vcpus) : 0);
		assert_true(reg(host->caches, sub, CPUID_EBX));
	}
	assert_int_equal(reg(host->caches, 4, CPUID_EAX) & 0x1f, 0);
}

static void test_caches_are_shared_by_all_or_nobody(void **state)
{
	for_all(check_caches);
}

static void test_no_levels_beyond_what_the_host_has(void **state)
{
	t.head = (struct kvm_cpuid2){.nent = ARRAY_SIZE(intel)};
	memcpy(t.entry, intel, sizeof(intel));
	t.entry[0].eax = 0x1e;
	cpuid_policy(&t, 4, TSC_KHZ);
	assert_null(cpuid_find(&t, 0x1f, 0));
	assert_non_null(cpuid_find(&t, 0xb, 1));
	assert_null(cpuid_find(&t, 0x80000026, 0));
	t.head = (struct kvm_cpuid2){.nent = ARRAY_SIZE(amd)};
	memcpy(t.entry, amd, sizeof(amd));
	cpuid_find(&t, 0x80000000, 0)->eax = 0x80000021;
	cpuid_policy(&t, 4, TSC_KHZ);
	assert_null(cpuid_find(&t, 0x80000026, 0));
	assert_null(cpuid_find(&t, 0x1f, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels_make_one_package_of_cores),
		cmocka_unit_test(test_ids_are_indexes_everywhere),
		cmocka_unit_test(test_old_ways_say_the_same),
		cmocka_unit_test(test_caches_are_shared_by_all_or_nobody),
		cmocka_unit_test(test_no_levels_beyond_what_the_host_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
