/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vcpu_state.c - saved VM and vCPU state as hostile bytes, without KVM: what is accepted
 * encodes to the same bytes, everything else is refused with a message.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define ENTRY_LEN    28u /* bytes of an encoded CPUID entry */
#define MSR_LEN      12u /* and of a register */
#define SAMPLE_LEAFS 3u
#define SAMPLE_MSRS  4u

static struct cpu_state sample, decoded;
static struct enc bytes;

/* A value that differs from field to field. */
static u64 next_value(void)
{
	static u64 v = 0x0123456789abcdefull;

	v = v * 6364136223846793005ull + 1442695040888963407ull;
	return v;
}

static struct kvm_segment some_segment(void)
{
	u64 v = next_value();

	return (struct kvm_segment){.base = next_value(), .limit = (u32)v,
		.selector = (u16)(v >> 32), .type = v >> 48 & 15, .present = v >> 52 & 1,
		.dpl = v >> 53 & 3, .db = v >> 55 & 1, .s = v >> 56 & 1, .l = v >> 57 & 1,
		.g = v >> 58 & 1, .avl = v >> 59 & 1, .unusable = v >> 60 & 1};
}

static void fill_sample(struct cpu_state *s)
{
	struct kvm_segment *segs[] = {&s->sregs.cs, &s->sregs.ds, &s->sregs.es, &s->sregs.fs,
		&s->sregs.gs, &s->sregs.ss, &s->sregs.tr, &s->sregs.ldt};
	u64 *regs = (u64 *)&s->regs;

	memset(s, 0, sizeof(*s));
	s->mp_state = KVM_MP_STATE_HALTED;
	for (unsigned i = 0; i < sizeof(s->regs) / sizeof(u64); i++)
		regs[i] = next_value();
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
		*segs[i] = some_segment();
	s->sregs.gdt.base = next_value();
	s->sregs.gdt.limit = 31;
	s->sregs.idt.base = next_value();
	s->sregs.idt.limit = 7;
	s->sregs.cr0 = next_value();
	s->sregs.cr3 = next_value();
	s->sregs.cr4 = next_value();
	s->sregs.efer = next_value();
	s->sregs.apic_base = next_value();
	s->debug.db[2] = next_value();
	s->debug.dr7 = next_value();
	s->has_xcr0 = true;
	s->xcr0 = 7;
	s->events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	s->events.exception.nr = 14;
	s->events.exception_payload = next_value();
	for (unsigned i = 0; i < sizeof(s->lapic.regs); i++)
		s->lapic.regs[i] = (char)next_value();
	s->xsave_len = 832;
	for (unsigned i = 0; i < s->xsave_len; i++)
		s->xsave[i] = (u8)next_value();
	s->cpuid.head.nent = SAMPLE_LEAFS;
	s->cpuid.entry[0] = (struct kvm_cpuid_entry2){.function = 0, .eax = 0xd, .ebx = 0x68747541,
		.ecx = 0x444d4163, .edx = 0x69746e65};
	s->cpuid.entry[1] = (struct kvm_cpuid_entry2){.function = 1, .eax = 0x00a00f11,
		.ecx = 1u << 28, .edx = 0x3};
	s->cpuid.entry[2] = (struct kvm_cpuid_entry2){.function = 7, .ebx = 1u << 16,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
	s->msrs.head.nmsrs = SAMPLE_MSRS;
	s->msrs.entry[0] = (struct kvm_msr_entry){.index = MSR_TSC, .data = next_value()};
	s->msrs.entry[1] = (struct kvm_msr_entry){.index = 0x174, .data = next_value()};
	s->msrs.entry[2] = (struct kvm_msr_entry){.index = 0xc0000081, .data = next_value()};
	s->msrs.entry[3] = (struct kvm_msr_entry){.index = MSR_TSC_DEADLINE, .data = 1};
}

static int fresh(void **state)
{
	fill_sample(&sample);
	enc_free(&bytes);
	cpu_state_encode(&sample, &bytes);
	assert_false(bytes.oom);
	return 0;
}

static int finish(void **state)
{
	enc_free(&bytes);
	return 0;
}

/* Bytes in a block of exactly that size, so that a sanitizer sees a read past the end. */
static int check(const u8 *data, size_t len, struct err *e)
{
	u8 *copy = malloc(len ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, data, len);
	r = vcpu_check(copy, len, e);
	free(copy);
	return r;
}

static void expect_refused(const char *why)
{
	struct err e = {0};

	assert_int_equal(check(bytes.buf, bytes.len, &e), -EINVAL);
	assert_non_null(strstr(e.msg, why));
}

/* Either refused, or the state that was read says exactly the same. */
static void expect_refused_or_same(void)
{
	struct enc again = {0};
	struct err e = {0};

	if (cpu_state_decode(&decoded, bytes.buf, bytes.len, &e)) {
		assert_true(e.msg[0]);
		return;
	}
	cpu_state_encode(&decoded, &again);
	assert_int_equal(again.len, bytes.len);
	assert_memory_equal(again.buf, bytes.buf, bytes.len);
	enc_free(&again);
}

static void test_round_trip(void **state)
{
	struct err e = {0};

	memset(&decoded, 0xaa, sizeof(decoded));
	assert_int_equal(cpu_state_decode(&decoded, bytes.buf, bytes.len, &e), 0);
	assert_memory_equal(&decoded.regs, &sample.regs, sizeof(sample.regs));
	assert_memory_equal(&decoded.sregs, &sample.sregs, sizeof(sample.sregs));
	assert_memory_equal(&decoded.debug, &sample.debug, sizeof(sample.debug));
	assert_memory_equal(&decoded.events, &sample.events, sizeof(sample.events));
	assert_memory_equal(&decoded.lapic, &sample.lapic, sizeof(sample.lapic));
	assert_memory_equal(decoded.xsave, sample.xsave, sample.xsave_len);
	assert_memory_equal(decoded.cpuid.entry, sample.cpuid.entry,
		SAMPLE_LEAFS * sizeof(sample.cpuid.entry[0]));
	assert_memory_equal(decoded.msrs.entry, sample.msrs.entry,
		SAMPLE_MSRS * sizeof(sample.msrs.entry[0]));
	expect_refused_or_same();
}

static void test_h01_truncated_at_every_byte(void **state)
{
	for (size_t len = 0; len < bytes.len; len++) {
		struct err e = {0};

		assert_int_equal(check(bytes.buf, len, &e), -EINVAL);
		assert_true(e.msg[0]);
	}
}

static void test_h01_bytes_left_over(void **state)
{
	enc_u8(&bytes, 0);
	expect_refused("left over");
}

static void test_h02_every_bit_flipped(void **state)
{
	for (size_t i = 0; i < bytes.len; i++) {
		/* All bits where there is structure; of the two bulk areas one bit a byte. */
		unsigned step = i < 700 || i > bytes.len - 100 ? 1 : 8;

		for (unsigned bit = (unsigned)i % step; bit < 8; bit += step) {
			bytes.buf[i] ^= (u8)(1u << bit);
			expect_refused_or_same();
			bytes.buf[i] ^= (u8)(1u << bit);
		}
	}
}

static void test_h02_garbage(void **state)
{
	for (unsigned round = 0; round < 2000; round++) {
		bytes.len = next_value() % 8192;
		if (bytes.len > bytes.cap)
			bytes.len = bytes.cap;
		for (size_t i = 0; i < bytes.len; i++)
			bytes.buf[i] = (u8)(next_value() >> 40);
		if (round % 2 && bytes.len >= 2) { /* past the first hurdle */
			bytes.buf[0] = (u8)(round % 20);
			bytes.buf[1] = 0;
		}
		expect_refused_or_same();
	}
}

static void put16(size_t off, u16 v)
{
	memcpy(bytes.buf + off, &v, sizeof(v));
}

static void put32(size_t off, u32 v)
{
	memcpy(bytes.buf + off, &v, sizeof(v));
}

static void test_h03_counts_out_of_range(void **state)
{
	size_t msr_count_off = bytes.len - SAMPLE_MSRS * MSR_LEN - 2;
	size_t xsave_len_off = msr_count_off - sample.xsave_len - 4;
	static const u32 lengths[] = {0, 575, 577, 16384 + 64, 1u << 31, UINT32_MAX};

	put16(0, 0);
	expect_refused("CPUID entry count");
	put16(0, CPUID_MAX + 1);
	expect_refused("CPUID entry count");
	put16(0, UINT16_MAX);
	expect_refused("CPUID entry count");
	put16(0, SAMPLE_LEAFS);
	put16(msr_count_off, MSR_MAX + 1);
	expect_refused("register count");
	put16(msr_count_off, SAMPLE_MSRS + 1);
	expect_refused("truncated");
	put16(msr_count_off, SAMPLE_MSRS - 1);
	expect_refused("left over");
	put16(msr_count_off, SAMPLE_MSRS);
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		put32(xsave_len_off, lengths[i]);
		expect_refused("XSAVE length");
	}
	put32(xsave_len_off, 16384); /* legal, but not there */
	expect_refused("truncated");
}

static void test_h05_duplicates(void **state)
{
	put32(bytes.len - 2 * MSR_LEN, 0x174);
	expect_refused("same register twice");
	put32(bytes.len - 2 * MSR_LEN, 0xc0000081);
	put32(2 + ENTRY_LEN, 0); /* leaf 1 becomes leaf 0 */
	expect_refused("same CPUID entry twice");
}

static void test_h08_legal_digest_hostile_fields(void **state)
{
	size_t mp_off = 2 + SAMPLE_LEAFS * ENTRY_LEN;
	size_t cs_attr_off = mp_off + 4 + 18 * 8 + 14;
	size_t xcr0_off = mp_off + 4 + 18 * 8 + 8 * 18 + 20 + 7 * 8 + 4 * 8 + 6 * 8;
	size_t events_off = xcr0_off + 9;

	put32(2 + 8, 6); /* stateful CPUID: gone from KVM */
	expect_refused("CPUID flags");
	put32(2 + 8, 0);
	put32(mp_off, 99);
	expect_refused("run state");
	put32(mp_off, KVM_MP_STATE_HALTED);
	put32(cs_attr_off, 1u << 17);
	expect_refused("segment attributes");
	put32(cs_attr_off, 0);
	bytes.buf[xcr0_off] = 2;
	expect_refused("XCR0");
	bytes.buf[xcr0_off] = 0; /* none, but a value */
	expect_refused("XCR0");
	bytes.buf[xcr0_off] = 1;
	put32(events_off, 1u << 6);
	expect_refused("event flags");
	put32(events_off, 0);
	put32(bytes.len - 4 * MSR_LEN, MSR_TSC_DEADLINE); /* swap the first and the last */
	put32(bytes.len - MSR_LEN, MSR_TSC);
	expect_refused("TSC after its deadline");
}

static void test_describe(void **state)
{
	struct err e = {0};
	char text[256], tiny[24];

	assert_int_equal(vcpu_describe(bytes.buf, bytes.len, text, sizeof(text), &e), 0);
	assert_string_equal(text,
		"AuthenticAMD family 25 model 1 stepping 1: avx, fpu, vme, avx512f");
	assert_int_equal(vcpu_describe(bytes.buf, bytes.len, tiny, sizeof(tiny), &e), 0);
	assert_string_equal(tiny + strlen(tiny) - 4, " ...");
	assert_int_equal(vcpu_describe(bytes.buf, 10, text, sizeof(text), &e), -EINVAL);
}

/* ---- the VM's part ---- */

static void encode_vm(const struct vm_state *s)
{
	enc_free(&bytes);
	vm_state_encode(s, &bytes);
}

static void test_vm_state(void **state)
{
	struct vm_state s = {.clock_ns = 1, .realtime_ns = 2, .tsc_khz = 2445426,
		.ioapic_id = 0x01000000, .ioapic_select = 0x10}, back;
	struct enc again = {0};
	struct err e = {0};

	s.rte[5] = 0x0300000000000941;
	encode_vm(&s);
	assert_int_equal(vm_state_decode(&back, bytes.buf, bytes.len, &e), 0);
	vm_state_encode(&back, &again);
	assert_int_equal(again.len, bytes.len);
	assert_memory_equal(again.buf, bytes.buf, bytes.len);
	enc_free(&again);
	for (size_t len = 0; len < bytes.len; len++)
		assert_int_equal(vm_check(bytes.buf, len, &e), -EINVAL);
	enc_u8(&bytes, 0);
	assert_int_equal(vm_check(bytes.buf, bytes.len, &e), -EINVAL);
}

static void test_h08_vm_state_hostile_fields(void **state)
{
	const struct vm_state good = {.tsc_khz = 1000000};
	struct vm_state bad[7];
	struct err e = {0};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].clock_ns = UINT64_MAX;
	bad[1].realtime_ns = UINT64_MAX;
	bad[2].tsc_khz = 0;
	bad[3].tsc_khz = UINT32_MAX;
	bad[4].ioapic_id = 1;
	bad[5].rte[23] = 1ull << 12;
	bad[6].rte[0] = 1ull << 40;
	encode_vm(&good);
	assert_int_equal(vm_check(bytes.buf, bytes.len, &e), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		encode_vm(&bad[i]);
		assert_int_equal(vm_check(bytes.buf, bytes.len, &e), -EINVAL);
	}
}

/* ---- registers ---- */

static void test_boot_registers_linux64(void **state)
{
	const struct boot_regs b = {.mode = BOOT_LINUX64, .rip = 0x1000000, .info_gpa = 0x7000,
		.gdt_gpa = 0x500, .idt_gpa = 0x520, .cr3_gpa = 0x9000};
	struct kvm_regs r;
	struct kvm_sregs s;

	boot_registers(&b, &r, &s);
	assert_int_equal(r.rip, 0x1000000);
	assert_int_equal(r.rsi, 0x7000);
	assert_int_equal(r.rsp, 0x8ff0);
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cr0 & 0x80000001, 0x80000001);
	assert_int_equal(s.cr3, 0x9000);
	assert_int_equal(s.cr4, 0x20);
	assert_int_equal(s.efer, 0x500);
	assert_int_equal(s.gdt.base, 0x500);
	assert_int_equal(s.gdt.limit, 31);
	assert_true(s.cs.l && !s.cs.db && s.cs.selector == 8);
}

static void test_boot_registers_pvh(void **state)
{
	const struct boot_regs b = {.mode = BOOT_PVH, .rip = 0x100000, .info_gpa = 0x6000};
	struct kvm_regs r;
	struct kvm_sregs s;

	boot_registers(&b, &r, &s);
	assert_int_equal(r.rip, 0x100000);
	assert_int_equal(r.rbx, 0x6000);
	assert_int_equal(r.rsp, 0x8ff0); /* Nanos calls before it sets one */
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cr0, 0x11);
	assert_int_equal(s.cr4, 0);
	assert_int_equal(s.efer, 0);
	assert_true(s.cs.db && !s.cs.l && s.cs.limit == UINT32_MAX && s.cs.base == 0);
	assert_true(s.ds.db && s.ds.limit == UINT32_MAX && s.ds.type == 3);
	assert_true(s.tr.type == 0xb && s.tr.limit == 0x67);
}

static void test_registers_kvm_does_not_list_are_never_set(void **state)
{
	static const struct msr_list list = {.count = 3, .index = {0x174, 0x10, 0x6e0}};
	static struct msr_table t = {.head = {.nmsrs = 5}, .entry = {
		{.index = 0x10, .data = 7},
		{.index = 0x1b, .data = 0},        /* not listed, but nothing is lost with it */
		{.index = 0x345, .data = 0x2000},  /* of a PMU the guest never saw */
		{.index = 0x174, .data = 0},
		{.index = 0x6e0, .data = 9}}};
	struct err e = {0};

	assert_int_equal(msr_check(&t, &list, &e), 0);
	assert_int_equal(t.head.nmsrs, 3);
	assert_int_equal(t.entry[0].index, 0x10);
	assert_int_equal(t.entry[1].index, 0x174);
	assert_int_equal(t.entry[2].index, 0x6e0);
	t.entry[1].index = 0x1b;
	t.entry[1].data = 1;
	assert_int_equal(msr_check(&t, &list, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "0x1b"));
}

static void test_register_dump_fits(void **state)
{
	struct end_report r;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	char tail[] = "idt ffffffffffffffff limit ffff\n";

	memset(&regs, 0xff, sizeof(regs));
	memset(&sregs, 0xff, sizeof(sregs));
	dump_registers(&regs, &sregs, r.regs, sizeof(r.regs));
	assert_string_equal(r.regs + strlen(r.regs) - strlen(tail), tail);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h01_truncated_at_every_byte, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h01_bytes_left_over, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h02_every_bit_flipped, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h02_garbage, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h03_counts_out_of_range, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h05_duplicates, fresh, finish),
		cmocka_unit_test_setup_teardown(
			test_h08_legal_digest_hostile_fields, fresh, finish),
		cmocka_unit_test_setup_teardown(test_describe, fresh, finish),
		cmocka_unit_test_setup_teardown(test_vm_state, fresh, finish),
		cmocka_unit_test_setup_teardown(test_h08_vm_state_hostile_fields, fresh, finish),
		cmocka_unit_test(test_boot_registers_linux64),
		cmocka_unit_test(test_boot_registers_pvh),
		cmocka_unit_test(test_registers_kvm_does_not_list_are_never_set),
		cmocka_unit_test(test_register_dump_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
