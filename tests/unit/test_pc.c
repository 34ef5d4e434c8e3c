/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_pc.c - KVM's own interrupt chips and PIT on the real /dev/kvm, with guests of a few
 * instructions: whether a guest that halts can still wake, and whether the chips' state survives.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vcpu/pc_int.h"

#define CODE_GPA  MEM_MIN_SIZE
#define NS_PER_MS 1000000u

/* LINT0 off, so that nothing arrives; PIC: only the timer unmasked; PIT: a rate generator that
 * counts 0x1000 down; sti; hlt; again */
static const u8 tick_then_idle[] = {0xc7, 0x05, 0x50, 3, 0xe0, 0xfe, 0, 0, 1, 0,
	0xb0, 0xfe, 0xe6, 0x21, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0, 0xe6, 0x40, 0xb0, 0x10, 0xe6, 0x40,
	0xfb, 0xf4, 0xeb, 0xfc};
/* Local APIC on, LINT0 = NMI; PIT: one shot that never fires, of which half is missing; cli; hlt */
static const u8 nmi_then_halt[] = {0xc7, 0x05, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0,
	0xc7, 0x05, 0x50, 3, 0xe0, 0xfe, 0, 4, 0, 0, 0xb0, 0x30, 0xe6, 0x43, 0xb0, 0xff, 0xe6, 0x40, 0xfa, 0xf4};
/* The same without LINT0. */
static const u8 tick_then_halt[] = {0xb0, 0x30, 0xe6, 0x43, 0xb0, 0xff, 0xe6, 0x40, 0xfa, 0xf4};
static const u8 spin[] = {0xeb, 0xfe};

struct world {
	struct mem *mem;
	struct vm *vm;
	u32 parked, ended; /* atomic */
	enum guest_end why;
};

static void on_access(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write)
{
}

static void on_port(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write)
{
}

static void on_parked(void *ctx)
{
	__atomic_store_n(&((struct world *)ctx)->parked, 1, __ATOMIC_SEQ_CST);
}

static void on_ended(void *ctx, const struct end_report *r)
{
	struct world *w = ctx;

	w->why = r->why;
	__atomic_store_n(&w->ended, 1, __ATOMIC_SEQ_CST);
}

static const struct vm_ops ops = {
	.mmio = on_access, .pio = on_port, .parked = on_parked, .ended = on_ended};

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ms * NS_PER_MS}, NULL);
}

static void build(struct world *w, const void *code, size_t len)
{
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	assert_int_equal(mem_create(&w->mem, 2 * MEM_MIN_SIZE, MEM_ANON, &e), 0);
	assert_true(mem_write(w->mem, CODE_GPA, code, len));
	if (vm_create(&w->vm, w->mem, 1, VM_CHIPS_PC, &ops, w, &e))
		fail_msg("%s", e.msg);
}

static void run(struct world *w, const void *code, size_t len)
{
	const struct boot_regs regs = {.mode = BOOT_PVH, .rip = CODE_GPA, .info_gpa = 0x6000};
	struct err e = {0};

	build(w, code, len);
	if (vm_boot(w->vm, &regs, &e) || vm_start(w->vm, &e))
		fail_msg("%s", e.msg);
	vm_resume(w->vm);
}

static void finish(struct world *w)
{
	vm_destroy(&w->vm);
	mem_destroy(&w->mem);
}

/* Whether the probe ever finds the guest idle, or ends it, within 0.4 s. */
static bool found_at_rest(struct world *w)
{
	for (unsigned i = 0; i < 40; i++) {
		if (vm_probe_halt(w->vm) == VM_PROBE_IDLE)
			return true;
		sleep_ms(10);
		if (__atomic_load_n(&w->ended, __ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

static void test_idle_with_a_timer_may_die_later(void **state)
{
	struct world w;

	run(&w, tick_then_idle, sizeof(tick_then_idle));
	assert_false(found_at_rest(&w));
	finish(&w);
}

static void test_halted_for_good_but_for_an_nmi(void **state)
{
	struct world w;

	run(&w, nmi_then_halt, sizeof(nmi_then_halt));
	assert_false(found_at_rest(&w));
	finish(&w);
	run(&w, tick_then_halt, sizeof(tick_then_halt));
	assert_true(found_at_rest(&w));
	assert_int_equal(w.ended, 1);
	assert_int_equal(w.why, GUEST_HALTED);
	finish(&w);
}

static void test_h13_saved_chips_are_the_same(void **state)
{
	struct enc first = {0}, second = {0};
	struct pc_state was, is;
	struct world a, b;
	struct err e = {0};

	run(&a, tick_then_idle, sizeof(tick_then_idle));
	sleep_ms(50);
	vm_pause(a.vm);
	while (!__atomic_load_n(&a.parked, __ATOMIC_SEQ_CST))
		sleep_ms(1);
	assert_int_equal(vm_save_pc(a.vm, &first, &e), 0);
	assert_int_equal(pc_state_decode(&was, first.buf, first.len, &e), 0);
	assert_int_equal(was.pic[0].imr, 0xfe); /* what the guest wrote */
	assert_int_equal(was.pit[0].count, 0x1000);
	assert_int_equal(was.pit[0].mode, 2);
	was.pit[0].mode = PIT_MODE_NONE; /* so that it does not tick between load and save */
	was.ioapic.id = 7;
	was.ioapic.redirtbl[9].bits = 0x1a039;
	enc_free(&first);
	pc_state_encode(&was, &first);
	build(&b, spin, sizeof(spin));
	assert_int_equal(vm_load_pc(b.vm, first.buf, first.len, &e), 0);
	assert_int_equal(vm_save_pc(b.vm, &second, &e), 0);
	assert_int_equal(pc_state_decode(&is, second.buf, second.len, &e), 0);
	for (unsigned i = 0; i < PIT_CHANNELS; i++)
		was.pit[i].count_load_time = is.pit[i].count_load_time; /* they go on */
	assert_memory_equal(&was.ioapic, &is.ioapic, sizeof(is.ioapic));
	assert_memory_equal(was.pic, is.pic, sizeof(is.pic));
	assert_memory_equal(was.pit, is.pit, sizeof(is.pit));
	assert_int_equal(was.pit_flags, is.pit_flags);
	finish(&a);
	finish(&b);
	enc_free(&first);
	enc_free(&second);
}

static void test_signal_tells_whether_the_pin_is_masked(void **state)
{
	struct enc bytes = {0};
	struct pc_state s;
	struct err e = {0};
	struct world w;

	build(&w, spin, sizeof(spin));
	assert_false(vm_signal(w.vm, 21));
	assert_int_equal(vm_save_pc(w.vm, &bytes, &e), 0);
	assert_int_equal(pc_state_decode(&s, bytes.buf, bytes.len, &e), 0);
	s.ioapic.redirtbl[21].bits = 0x39;
	enc_free(&bytes);
	pc_state_encode(&s, &bytes);
	assert_int_equal(vm_load_pc(w.vm, bytes.buf, bytes.len, &e), 0);
	assert_true(vm_signal(w.vm, 21));
	assert_false(vm_signal(w.vm, 22));
	enc_free(&bytes);
	finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_with_a_timer_may_die_later),
		cmocka_unit_test(test_halted_for_good_but_for_an_nmi),
		cmocka_unit_test(test_h13_saved_chips_are_the_same),
		cmocka_unit_test(test_signal_tells_whether_the_pin_is_masked),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
