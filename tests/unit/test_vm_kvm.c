/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_kvm.c - real virtual machines with guests of a few instructions. Skipped (77) where
 * /dev/kvm cannot be opened.
 *
 * The guests start as PVH guests do: 32-bit, flat, paging off, code at CODE_GPA. Where KVM is a
 * software one that emulates ring 0 they are slow, but they run.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define CODE_GPA    0x100000ull
#define READY_GPA   0xC0000000ull
#define POWER_GPA   0xC0000004ull
#define WAIT_GPA    0xC0000008ull
#define NOTIFY_GPA  0xC0001050ull
#define COUNT_PORT  0x80u
#define NEXT_PORT   0x81u
#define DR6_SINGLE_STEP (1u << 14)
#define PATIENCE_S  20
#define PAUSES      10000u
#define NS_PER_MS   1000000ull

/* store 42 to the power doorbell; hlt */
static const u8 power_off[] = {0xc7, 0x05, 4, 0, 0, 0xc0, 42, 0, 0, 0, 0xf4};
/* read the doorbell; store what came to the power doorbell */
static const u8 read_back[] = {0xa1, 8, 0, 0, 0xc0, 0xa3, 4, 0, 0, 0xc0, 0xf4};
/* an undefined instruction, and no IDT */
static const u8 triple_fault[] = {0x0f, 0x0b};
static const u8 halt_for_good[] = {0xfa, 0xf4};          /* cli; hlt */
static const u8 idle[] = {0xfb, 0xf4, 0xeb, 0xfc};       /* sti; hlt; again */
static const u8 spin[] = {0x40, 0xeb, 0xfd};             /* inc eax; again */
/* in eax, 0x81 (gives the next number); out 0x80, eax; again */
static const u8 count[] = {0xe5, 0x81, 0xe7, 0x80, 0xeb, 0xfa};
/* inc eax; store -1 to the wait doorbell; out 0x80, eax; again */
static const u8 wait_loop[] = {0x40, 0xc7, 0x05, 8, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xe7, 0x80,
	0xeb, 0xf1};
/* store 300 ms to the wait doorbell; cli; hlt */
static const u8 wait_then_halt[] = {0xc7, 0x05, 8, 0, 0, 0xc0, 0, 0xa3, 0xe1, 0x11, 0xfa, 0xf4};
/* set the trap flag; load from the power doorbell, which takes until somebody pauses */
static const u8 step_over_load[] = {0xbc, 0, 0xf0, 0x1f, 0, 0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0,
	0x9d, 0xa1, 4, 0, 0, 0xc0, 0xeb, 0xfe};
/* enable the local APIC; IOAPIC pin 5 = vector 0x41; ready; spin */
static const u8 take_irq[] = {0xc7, 0x05, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0,
	0xc7, 0x05, 0, 0, 0xc0, 0xfe, 0x1a, 0, 0, 0,
	0xc7, 0x05, 0x10, 0, 0xc0, 0xfe, 0x41, 0, 0, 0,
	0xc7, 0x05, 0, 0, 0, 0xc0, 123, 0, 0, 0, 0xeb, 0xfe};
/* notify queue 7 of the device, then power off with 42 */
static const u8 notify[] = {0xc7, 0x05, 0x50, 0x10, 0, 0xc0, 7, 0, 0, 0,
	0xc7, 0x05, 4, 0, 0, 0xc0, 42, 0, 0, 0, 0xf4};
/* rep outsb: the four bytes at CODE_GPA to port 0x80; then power off with 42 */
static const u8 string_out[] = {0xbe, 0, 0, 0x10, 0, 0xb9, 4, 0, 0, 0, 0xba, 0x80, 0, 0, 0,
	0xf3, 0x6e, 0xc7, 0x05, 4, 0, 0, 0xc0, 42, 0, 0, 0, 0xf4};

struct world {
	struct mem *mem;
	struct vm *vm;
	pthread_mutex_t lock;
	pthread_cond_t news;
	unsigned parked, ended;
	struct end_report report;
	/* What the vCPU threads saw. */
	u32 last;         /* value written to COUNT_PORT */
	u32 given;        /* value read from NEXT_PORT */
	bool out_of_step; /* it was not one more than the one before */
	u32 readies, waits, notifies, outs;
	u8 out_bytes[16];
};

static void on_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write)
{
	struct world *w = ctx;
	u32 value;

	memcpy(&value, data, sizeof(value));
	if (!write) {
		assert_int_equal(value, UINT32_MAX);
		memcpy(data, "\x07\x00\x00\x00", len);
		if (gpa == POWER_GPA) {
			__atomic_fetch_add(&w->waits, 1, __ATOMIC_SEQ_CST);
			vcpu_wait(v, UINT64_MAX);
		}
	} else if (gpa == READY_GPA) {
		__atomic_fetch_add(&w->readies, 1, __ATOMIC_SEQ_CST);
	} else if (gpa == POWER_GPA) {
		vcpu_power_off(v, (int)value);
	} else if (gpa == WAIT_GPA) {
		__atomic_fetch_add(&w->waits, 1, __ATOMIC_SEQ_CST);
		vcpu_wait(v, value == UINT32_MAX ? UINT64_MAX : value);
	} else if (gpa == NOTIFY_GPA) {
		__atomic_fetch_add(&w->notifies, 1, __ATOMIC_SEQ_CST);
	}
}

static void on_pio(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write)
{
	struct world *w = ctx;
	u32 value;

	if (!write && port == NEXT_PORT) {
		w->given++;
		memcpy(data, &w->given, len);
	}
	if (!write || port != COUNT_PORT)
		return;
	if (len == 1) {
		w->out_bytes[w->outs++ % sizeof(w->out_bytes)] = *data;
		return;
	}
	memcpy(&value, data, sizeof(value));
	w->out_of_step |= value != w->last + 1;
	__atomic_store_n(&w->last, value, __ATOMIC_SEQ_CST);
}

static void on_parked(void *ctx)
{
	struct world *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->parked++;
	pthread_cond_broadcast(&w->news);
	pthread_mutex_unlock(&w->lock);
}

static void on_ended(void *ctx, const struct end_report *r)
{
	struct world *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->ended++;
	w->report = *r;
	pthread_cond_broadcast(&w->news);
	pthread_mutex_unlock(&w->lock);
}

static const struct vm_ops ops = {
	.mmio = on_mmio, .pio = on_pio, .parked = on_parked, .ended = on_ended};

/* ---- the harness ---- */

/* A VM over 2 MiB with @code at the start, not booted. */
/* What VMs are built with. */
static enum vm_chips chips = VM_CHIPS_LEAN;

static void build(struct world *w, unsigned vcpus, const void *code, size_t len)
{
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->news, NULL);
	assert_int_equal(mem_create(&w->mem, 2 * MEM_MIN_SIZE, MEM_ANON, &e), 0);
	assert_true(mem_write(w->mem, CODE_GPA, code, len));
	if (vm_create(&w->vm, w->mem, vcpus, chips, &ops, w, &e) || vm_add_irq(w->vm, 4, &e) ||
		vm_add_irq(w->vm, 5, &e))
		fail_msg("%s", e.msg);
}

static void boot(struct world *w)
{
	const struct boot_regs regs = {.mode = BOOT_PVH, .rip = CODE_GPA, .info_gpa = 0x6000};
	struct err e = {0};

	if (vm_boot(w->vm, &regs, &e))
		fail_msg("%s", e.msg);
}

static void start(struct world *w)
{
	struct err e = {0};

	if (vm_start(w->vm, &e))
		fail_msg("%s", e.msg);
}

static void run_guest(struct world *w, unsigned vcpus, const void *code, size_t len)
{
	build(w, vcpus, code, len);
	boot(w);
	start(w);
	vm_resume(w->vm);
}
#define RUN(w, vcpus, code) run_guest(w, vcpus, code, sizeof(code))

static void finish(struct world *w)
{
	vm_destroy(&w->vm);
	mem_destroy(&w->mem);
	pthread_cond_destroy(&w->news);
	pthread_mutex_destroy(&w->lock);
}

static void sleep_ns(u64 ns)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* Waits until *@counter, which is under w->lock, reaches @value. */
static void await(struct world *w, const unsigned *counter, unsigned value)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&w->lock);
	while (*counter < value && !r)
		r = pthread_cond_timedwait(&w->news, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
	if (r)
		fail_msg("nothing happened for %d s", PATIENCE_S);
}

/* Waits until an atomic counter of a vCPU thread reaches @value. */
static void await_seen(const u32 *counter, u32 value)
{
	for (unsigned i = 0; __atomic_load_n(counter, __ATOMIC_SEQ_CST) < value; i++) {
		if (i > PATIENCE_S * 1000)
			fail_msg("nothing happened for %d s", PATIENCE_S);
		sleep_ns(NS_PER_MS);
	}
}

static void pause_guest(struct world *w)
{
	unsigned before = w->parked; /* nobody parks now */

	vm_pause(w->vm);
	await(w, &w->parked, before + 1);
}

static void expect_end(struct world *w, enum guest_end why)
{
	await(w, &w->ended, 1);
	if (w->report.why != why)
		fail_msg("%s (%s), expected %s\n%s", guest_end_name(w->report.why),
			w->report.detail, guest_end_name(why), w->report.regs);
}

/* ---- ends ---- */

static void test_power_off_with_a_status(void **state)
{
	struct world w;

	RUN(&w, 1, power_off);
	expect_end(&w, GUEST_POWER_OFF);
	assert_int_equal(w.report.status, 42);
	assert_string_equal(w.report.regs, "");
	assert_true(vm_cpu_time_ns(w.vm) > 0);
	finish(&w);
	assert_int_equal(w.ended, 1);
}

static void test_read_gets_what_the_handler_gave(void **state)
{
	struct world w;

	RUN(&w, 1, read_back);
	expect_end(&w, GUEST_POWER_OFF);
	assert_int_equal(w.report.status, 7);
	finish(&w);
}

static void test_string_output_comes_one_by_one(void **state)
{
	struct world w;

	RUN(&w, 1, string_out);
	expect_end(&w, GUEST_POWER_OFF);
	assert_int_equal(w.outs, 4);
	assert_memory_equal(w.out_bytes, string_out, 4);
	finish(&w);
}

static void test_triple_fault(void **state)
{
	struct world w;

	RUN(&w, 1, triple_fault);
	expect_end(&w, GUEST_TRIPLE_FAULT);
	assert_non_null(strstr(w.report.regs, "rip 0000000000100000"));
	finish(&w);
}

/* Asks until the answer is not "wait". */
static enum vm_probe probe(struct world *w)
{
	enum vm_probe r = VM_PROBE_BUSY;

	for (unsigned i = 0; i < PATIENCE_S * 100; i++) {
		bool ended;

		r = vm_probe_halt(w->vm);
		pthread_mutex_lock(&w->lock);
		ended = w->ended;
		pthread_mutex_unlock(&w->lock);
		if (r == VM_PROBE_IDLE || ended)
			break;
		sleep_ns(10 * NS_PER_MS);
	}
	return r;
}

static void test_halt_with_interrupts_off_is_the_end(void **state)
{
	for (unsigned vcpus = 1; vcpus <= 2; vcpus++) { /* the second one was never started */
		struct world w;

		RUN(&w, vcpus, halt_for_good);
		probe(&w);
		expect_end(&w, GUEST_HALTED);
		assert_non_null(strstr(w.report.regs, "rip 0000000000100002"));
		finish(&w);
	}
}

static void test_halt_with_interrupts_on_is_idle(void **state)
{
	struct world w;

	RUN(&w, 1, idle);
	assert_int_equal(probe(&w), VM_PROBE_IDLE);
	assert_int_equal(w.ended, 0);
	finish(&w);
}

static void test_sleeper_in_vcpu_wait_is_idle(void **state)
{
	struct world w;

	RUN(&w, 1, wait_loop);
	await_seen(&w.waits, 1);
	assert_int_equal(probe(&w), VM_PROBE_IDLE);
	finish(&w);
}

static void test_sleeper_with_a_deadline_may_die_later(void **state)
{
	struct world w;

	RUN(&w, 1, wait_then_halt);
	await_seen(&w.waits, 1);
	probe(&w);
	expect_end(&w, GUEST_HALTED);
	finish(&w);
}

static void test_spinning_guest_is_busy(void **state)
{
	struct world w;

	RUN(&w, 1, spin);
	sleep_ns(20 * NS_PER_MS);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(vm_probe_halt(w.vm), VM_PROBE_BUSY);
		sleep_ns(20 * NS_PER_MS);
	}
	finish(&w);
}

/* ---- pause ---- */

static void pause_often(struct world *w)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < PAUSES; i++) {
		sleep_ns((u64)rand_r(&seed) % 50000);
		pause_guest(w);
		assert_int_equal(w->ended, 0);
		vm_resume(w->vm);
	}
}

static void test_c01_pause_a_spinning_guest(void **state)
{
	struct world w;

	RUN(&w, 1, spin);
	pause_often(&w);
	finish(&w);
}

static void test_c01_pause_a_guest_that_does_io(void **state)
{
	struct world w;
	u32 before;

	RUN(&w, 1, count);
	pause_often(&w);
	pause_guest(&w);
	before = w.last;
	sleep_ns(5 * NS_PER_MS);
	assert_int_equal(w.last, before); /* parked is parked */
	assert_false(w.out_of_step);      /* no access was lost or done twice */
	assert_true(before > PAUSES / 10);
	finish(&w);
}

static void test_c01_pause_a_guest_that_sleeps(void **state)
{
	struct world w;

	RUN(&w, 1, wait_loop);
	pause_often(&w);
	assert_false(w.out_of_step);
	finish(&w);
}

static void test_c01_pause_an_idle_guest_of_two(void **state)
{
	struct world w;

	RUN(&w, 2, idle);
	pause_often(&w);
	finish(&w);
}

static void test_c01_resume_before_anybody_parked(void **state)
{
	struct world w;
	unsigned parked;

	RUN(&w, 2, count);
	for (unsigned i = 0; i < 1000; i++) {
		vm_pause(w.vm);
		vm_resume(w.vm);
		vm_pause(w.vm);
		await(&w, &w.parked, 1);
		pthread_mutex_lock(&w.lock);
		w.parked = 0;
		pthread_mutex_unlock(&w.lock);
		vm_resume(w.vm);
	}
	/* Twice in a row is answered twice. */
	pause_guest(&w);
	pause_guest(&w);
	parked = w.parked;
	sleep_ns(5 * NS_PER_MS);
	assert_int_equal(w.parked, parked);
	assert_false(w.out_of_step);
	finish(&w);
}

static void test_c05_stop_while_paused_and_twice(void **state)
{
	struct world w;

	RUN(&w, 2, count);
	pause_guest(&w);
	vm_stop(w.vm);
	vm_stop(w.vm);
	expect_end(&w, GUEST_STOPPED);
	vm_pause(w.vm);
	vm_resume(w.vm);
	sleep_ns(5 * NS_PER_MS);
	assert_int_equal(w.parked, 1);
	assert_int_equal(w.ended, 1);
	finish(&w);
}

static void test_c05_stop_in_every_state(void **state)
{
	static const struct {
		const void *code;
		size_t len;
	} guests[] = {{spin, sizeof(spin)}, {idle, sizeof(idle)}, {wait_loop, sizeof(wait_loop)}};
	struct world w;

	for (unsigned i = 0; i < ARRAY_SIZE(guests); i++) {
		run_guest(&w, 1, guests[i].code, guests[i].len);
		sleep_ns(5 * NS_PER_MS);
		vm_stop(w.vm);
		expect_end(&w, GUEST_STOPPED);
		finish(&w);
		assert_int_equal(w.ended, 1);
	}
	build(&w, 1, spin, sizeof(spin)); /* never resumed */
	boot(&w);
	start(&w);
	vm_stop(w.vm);
	expect_end(&w, GUEST_STOPPED);
	finish(&w);
	RUN(&w, 2, spin); /* destroyed while it runs: nobody is told */
	finish(&w);
	assert_int_equal(w.ended, 0);
}

/* ---- devices and interrupts ---- */

static void test_notification_makes_no_exit(void **state)
{
	struct world w;
	struct err e = {0};
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	u64 n = 0;

	build(&w, 1, notify, sizeof(notify));
	assert_int_equal(vm_add_device(w.vm, NOTIFY_GPA, fd, 6, &e), 0);
	boot(&w);
	start(&w);
	vm_resume(w.vm);
	expect_end(&w, GUEST_POWER_OFF);
	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 1);
	assert_int_equal(w.notifies, 0);
	finish(&w);
	close(fd);
}

static void save(struct world *w, struct enc *vm, struct enc *cpu)
{
	struct err e = {0};

	*vm = *cpu = (struct enc){0};
	if (vm_save(w->vm, vm, &e) || vcpu_save(w->vm, 0, cpu, &e))
		fail_msg("%s", e.msg);
}

static void test_interrupt_reaches_the_local_apic(void **state)
{
	static struct cpu_state s;
	struct world w;
	struct enc vm, cpu;
	struct err e = {0};

	RUN(&w, 1, take_irq);
	await_seen(&w.readies, 1);
	vm_irq(w.vm, 4); /* still masked */
	vm_irq(w.vm, 5);
	pause_guest(&w);
	save(&w, &vm, &cpu);
	assert_int_equal(cpu_state_decode(&s, cpu.buf, cpu.len, &e), 0);
	/* IRR: vector 0x41 is bit 1 of the third word. */
	assert_int_equal(lapic_reg(&s.lapic, 0x220), 2);
	finish(&w);
	enc_free(&vm);
	enc_free(&cpu);
}

static void test_interrupt_ends_vcpu_wait(void **state)
{
	struct world w;

	RUN(&w, 1, wait_loop);
	for (u32 i = 1; i <= 1000; i++) {
		vm_irq(w.vm, 5);
		await_seen(&w.last, i); /* at least one wait ended for each interrupt */
	}
	finish(&w);
}

/* ---- save and load ---- */

static void load(struct world *w, const struct enc *vm, const struct enc *cpu)
{
	struct err e = {0};

	if (vm_load(w->vm, vm->buf, vm->len, &e) || vcpu_load(w->vm, 0, cpu->buf, cpu->len, &e))
		fail_msg("%s", e.msg);
}

static void copy_memory(struct world *to, const struct world *from)
{
	static u8 page[MEM_PAGE];

	for (u64 gpa = 0; gpa < 2 * MEM_MIN_SIZE; gpa += MEM_PAGE) {
		assert_true(mem_read(from->mem, gpa, page, MEM_PAGE));
		assert_true(mem_write(to->mem, gpa, page, MEM_PAGE));
	}
}

static void test_saved_guest_goes_on_elsewhere(void **state)
{
	struct world a, b;
	struct enc vm, cpu;

	RUN(&a, 1, count);
	for (unsigned generation = 0; generation < 20; generation++) {
		u32 last, given;

		await_seen(&a.last, 10);
		pause_guest(&a);
		last = a.last;
		given = a.given;
		save(&a, &vm, &cpu);
		build(&b, 1, "", 1);
		copy_memory(&b, &a);
		load(&b, &vm, &cpu);
		finish(&a);
		assert_false(a.out_of_step);
		b.last = last; /* the very next value must come */
		b.given = given;
		start(&b);
		vm_resume(b.vm);
		await_seen(&b.last, last + 10);
		vm_stop(b.vm);
		expect_end(&b, GUEST_STOPPED);
		assert_false(b.out_of_step);
		finish(&b);
		enc_free(&vm);
		enc_free(&cpu);
		RUN(&a, 1, count);
	}
	finish(&a);
}

static void test_h13_save_of_a_loaded_guest_is_the_same(void **state)
{
	static struct cpu_state first, second;
	struct world a, b;
	struct enc vm, cpu, vm2, cpu2;
	struct err e = {0};
	u64 before, after;

	build(&a, 1, spin, sizeof(spin));
	boot(&a); /* never ran: its registers are not in KVM yet */
	save(&a, &vm, &cpu);
	build(&b, 1, spin, sizeof(spin));
	load(&b, &vm, &cpu);
	save(&b, &vm2, &cpu2);
	assert_int_equal(cpu_state_decode(&first, cpu.buf, cpu.len, &e), 0);
	assert_int_equal(cpu_state_decode(&second, cpu2.buf, cpu2.len, &e), 0);
	before = msr_find(&first.msrs, MSR_TSC)->data;
	after = msr_find(&second.msrs, MSR_TSC)->data;
	assert_true(after > before); /* time went on, and nothing else changed */
	msr_find(&second.msrs, MSR_TSC)->data = before;
	enc_free(&cpu2);
	cpu2 = (struct enc){0};
	cpu_state_encode(&second, &cpu2);
	assert_int_equal(cpu.len, cpu2.len);
	assert_memory_equal(cpu.buf, cpu2.buf, cpu.len);
	assert_int_equal(first.regs.rip, CODE_GPA);
	finish(&a);
	finish(&b);
	enc_free(&vm);
	enc_free(&vm2);
	enc_free(&cpu);
	enc_free(&cpu2);
}

static void test_fast_strings_are_on(void **state)
{
	static struct cpu_state s;
	struct world w;
	struct enc vm, cpu;
	struct err e = {0};

	build(&w, 1, spin, sizeof(spin));
	boot(&w);
	save(&w, &vm, &cpu);
	assert_int_equal(cpu_state_decode(&s, cpu.buf, cpu.len, &e), 0);
	assert_int_equal(msr_find(&s.msrs, MSR_MISC_ENABLE)->data & 1, 1);
	finish(&w);
	enc_free(&vm);
	enc_free(&cpu);
}

static void test_pending_exception_is_not_lost(void **state)
{
	static struct cpu_state s;
	struct world a, b;
	struct enc vm, cpu;
	struct err e = {0};

	RUN(&a, 1, step_over_load);
	await_seen(&a.waits, 1);
	pause_guest(&a);
	save(&a, &vm, &cpu);
	assert_int_equal(cpu_state_decode(&s, cpu.buf, cpu.len, &e), 0);
	assert_int_equal(s.events.exception.nr, 1);
	assert_int_equal(s.debug.dr6 & DR6_SINGLE_STEP, DR6_SINGLE_STEP);
	build(&b, 1, "", 1);
	copy_memory(&b, &a);
	load(&b, &vm, &cpu);
	finish(&a);
	start(&b);
	vm_resume(b.vm);
	expect_end(&b, GUEST_TRIPLE_FAULT); /* it has no IDT; without the exception it spins */
	finish(&b);
	enc_free(&vm);
	enc_free(&cpu);
}

static void test_h06_unknown_register_is_refused_by_number(void **state)
{
	static struct cpu_state s;
	struct world a, b;
	struct enc vm, cpu;
	struct err e = {0};

	build(&a, 1, spin, sizeof(spin));
	boot(&a);
	save(&a, &vm, &cpu);
	assert_int_equal(cpu_state_decode(&s, cpu.buf, cpu.len, &e), 0);
	s.msrs.entry[s.msrs.head.nmsrs++] = (struct kvm_msr_entry){.index = 0xdeadbeef, .data = 1};
	enc_free(&cpu);
	cpu_state_encode(&s, &cpu);
	build(&b, 1, spin, sizeof(spin));
	assert_int_equal(vm_load(b.vm, vm.buf, vm.len, &e), 0);
	assert_int_equal(vcpu_load(b.vm, 0, cpu.buf, cpu.len, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "0xdeadbeef"));
	finish(&a);
	finish(&b);
	enc_free(&vm);
	enc_free(&cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_off_with_a_status),
		cmocka_unit_test(test_read_gets_what_the_handler_gave),
		cmocka_unit_test(test_string_output_comes_one_by_one),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_halt_with_interrupts_off_is_the_end),
		cmocka_unit_test(test_halt_with_interrupts_on_is_idle),
		cmocka_unit_test(test_sleeper_in_vcpu_wait_is_idle),
		cmocka_unit_test(test_sleeper_with_a_deadline_may_die_later),
		cmocka_unit_test(test_spinning_guest_is_busy),
		cmocka_unit_test(test_c01_pause_a_spinning_guest),
		cmocka_unit_test(test_c01_pause_a_guest_that_does_io),
		cmocka_unit_test(test_c01_pause_a_guest_that_sleeps),
		cmocka_unit_test(test_c01_pause_an_idle_guest_of_two),
		cmocka_unit_test(test_c01_resume_before_anybody_parked),
		cmocka_unit_test(test_c05_stop_while_paused_and_twice),
		cmocka_unit_test(test_c05_stop_in_every_state),
		cmocka_unit_test(test_notification_makes_no_exit),
		cmocka_unit_test(test_interrupt_reaches_the_local_apic),
		cmocka_unit_test(test_interrupt_ends_vcpu_wait),
		cmocka_unit_test(test_saved_guest_goes_on_elsewhere),
		cmocka_unit_test(test_h13_save_of_a_loaded_guest_is_the_same),
		cmocka_unit_test(test_fast_strings_are_on),
		cmocka_unit_test(test_pending_exception_is_not_lost),
		cmocka_unit_test(test_h06_unknown_register_is_refused_by_number),
	};
	/* Those that KVM's own chips could make a difference to. */
	const struct CMUnitTest with_pc[] = {
		cmocka_unit_test(test_power_off_with_a_status),
		cmocka_unit_test(test_halt_with_interrupts_off_is_the_end),
		cmocka_unit_test(test_halt_with_interrupts_on_is_idle),
		cmocka_unit_test(test_c01_pause_an_idle_guest_of_two),
		cmocka_unit_test(test_c05_stop_in_every_state),
		cmocka_unit_test(test_interrupt_reaches_the_local_apic),
		cmocka_unit_test(test_interrupt_ends_vcpu_wait),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r;

	if (fd < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	close(fd);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	chips = VM_CHIPS_PC;
	return cmocka_run_group_tests_name("pc", with_pc, NULL, NULL) || r;
}
