/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_smp_kvm.c - several vCPUs on a real KVM: those that wait for their start are paused, saved
 * and restored like others; threads have names and places; templates reach the guest. Skipped (77)
 * where /dev/kvm cannot be opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define CODE_GPA   0x100000ull
#define START_GPA  0x10000ull /* where SIPI 0x10 begins */
#define GO_PORT    0x81u
#define PATIENCE_S 20
#define CLFLUSH    (1u << 19)
#define MSR_STAR   0xc0000081u

/*
 * Reads port 0x81 until it is not 0; sends INIT and SIPI 0x10 to all others through the local APIC;
 * halts.
 */
static const u8 starter[] = {0xe5, 0x81, 0x85, 0xc0, 0x74, 0xfa,
	0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00,
	0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x10, 0x46, 0x0c, 0x00,
	0xf4, 0xeb, 0xfd};
/* Real mode: a byte to port 0x80, halt. */
static const u8 started[] = {0xb0, 0x07, 0xe6, 0x80, 0xf4, 0xeb, 0xfd};

struct world {
	struct mem *mem;
	struct vm *vm;
	/* Atomic. */
	u32 parked, asked, go;
	u32 ended; /* an enum guest_end */
	u32 seen; /* a bit for each vCPU that wrote port 0x80 */
};

static void on_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write)
{
}

static void on_pio(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write)
{
	struct world *w = ctx;
	u32 value = __atomic_load_n(&w->go, __ATOMIC_SEQ_CST);

	if (write) {
		__atomic_fetch_or(&w->seen, 1u << vcpu_index(v), __ATOMIC_SEQ_CST);
		return;
	}
	__atomic_fetch_add(&w->asked, 1, __ATOMIC_SEQ_CST);
	if (port == GO_PORT && len == sizeof(value))
		memcpy(data, &value, sizeof(value));
}

static void on_parked(void *ctx)
{
	struct world *w = ctx;

	__atomic_fetch_add(&w->parked, 1, __ATOMIC_SEQ_CST);
}

static void on_ended(void *ctx, const struct end_report *r)
{
	struct world *w = ctx;

	__atomic_store_n(&w->ended, r->why, __ATOMIC_SEQ_CST);
}

static const struct vm_ops ops = {
	.mmio = on_mmio, .pio = on_pio, .parked = on_parked, .ended = on_ended};

static void build(struct world *w, unsigned vcpus)
{
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	assert_int_equal(mem_create(&w->mem, 2 * MEM_MIN_SIZE, MEM_ANON, &e), 0);
	assert_true(mem_write(w->mem, CODE_GPA, starter, sizeof(starter)));
	assert_true(mem_write(w->mem, START_GPA, started, sizeof(started)));
	if (vm_create(&w->vm, w->mem, vcpus, VM_CHIPS_LEAN, &ops, w, &e))
		fail_msg("%s", e.msg);
}

static int boot(struct world *w, struct err *e)
{
	const struct boot_regs regs = {.mode = BOOT_PVH, .rip = CODE_GPA, .info_gpa = 0x6000};

	*e = (struct err){0};
	return vm_boot(w->vm, &regs, e);
}

static void run_guest(struct world *w)
{
	struct err e = {0};

	if (vm_start(w->vm, &e))
		fail_msg("%s", e.msg);
	vm_resume(w->vm);
}

static void finish(struct world *w)
{
	vm_destroy(&w->vm);
	mem_destroy(&w->mem);
}

/* Waits until an atomic word is @value or, a counter, more. */
static void await(const u32 *word, u32 value)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (unsigned i = 0; __atomic_load_n(word, __ATOMIC_SEQ_CST) < value; i++) {
		if (i > PATIENCE_S * 1000)
			fail_msg("nothing happened for %d s", PATIENCE_S);
		nanosleep(&ms, NULL);
	}
}

static void pause_guest(struct world *w)
{
	u32 before = w->parked; /* nobody parks now */

	vm_pause(w->vm);
	await(&w->parked, before + 1);
}

static struct cpu_state state_of[VCPU_MAX];

/* All vCPUs of @from to @to, which is fresh. Leaves what was saved in state_of. */
static void move(struct world *to, struct world *from, unsigned vcpus)
{
	struct enc vm = {0}, cpu;
	struct err e = {0};

	assert_int_equal(vm_save(from->vm, &vm, &e), 0);
	assert_int_equal(vm_load(to->vm, vm.buf, vm.len, &e), 0);
	enc_free(&vm);
	for (unsigned i = 0; i < vcpus; i++) {
		cpu = (struct enc){0};
		if (vcpu_save(from->vm, i, &cpu, &e) ||
			cpu_state_decode(&state_of[i], cpu.buf, cpu.len, &e) ||
			vcpu_load(to->vm, i, cpu.buf, cpu.len, &e))
			fail_msg("vCPU %u: %s", i, e.msg);
		enc_free(&cpu);
	}
}

static void test_all_start_by_init_and_sipi(void **state)
{
	static const unsigned counts[] = {2, 3, VCPU_MAX};

	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		struct world w;
		struct err e;

		build(&w, counts[i]);
		assert_int_equal(boot(&w, &e), 0);
		w.go = 1;
		run_guest(&w);
		await(&w.seen, (u32)((1ull << counts[i]) - 2)); /* all but the first */
		finish(&w);
	}
}

/* They sit in KVM_RUN without a guest to be in; a pause gets its answer all the same. */
static void test_c01_pause_those_that_wait_for_their_start(void **state)
{
	struct world w;
	struct err e;

	build(&w, 4);
	assert_int_equal(boot(&w, &e), 0);
	run_guest(&w);
	await(&w.asked, 1);
	for (unsigned i = 0; i < 500; i++) {
		pause_guest(&w);
		vm_resume(w.vm);
	}
	assert_int_equal(w.seen, 0);
	__atomic_store_n(&w.go, 1, __ATOMIC_SEQ_CST);
	await(&w.seen, 0xe);
	for (unsigned i = 0; i < 500; i++) {
		pause_guest(&w);
		vm_resume(w.vm);
	}
	finish(&w);
}

static void test_those_that_wait_are_saved_waiting(void **state)
{
	struct world a, b;
	struct err e;

	build(&a, 4);
	assert_int_equal(boot(&a, &e), 0);
	run_guest(&a);
	await(&a.asked, 1);
	pause_guest(&a);
	build(&b, 4);
	move(&b, &a, 4);
	finish(&a);
	assert_int_equal(state_of[0].mp_state, KVM_MP_STATE_RUNNABLE);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(state_of[i].mp_state, KVM_MP_STATE_UNINITIALIZED);
	run_guest(&b);
	await(&b.asked, 1);
	assert_int_equal(b.seen, 0);
	__atomic_store_n(&b.go, 1, __ATOMIC_SEQ_CST);
	await(&b.seen, 0xe);
	/* And the same once more: now they have halted. */
	pause_guest(&b);
	build(&a, 4);
	move(&a, &b, 4);
	finish(&b);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(state_of[i].mp_state, KVM_MP_STATE_HALTED);
	finish(&a);
}

/* Between INIT and SIPI. */
static void test_one_that_got_only_init_waits_on(void **state)
{
	struct kvm_mp_state got = {.mp_state = KVM_MP_STATE_INIT_RECEIVED};
	struct world a, b;
	struct err e;

	build(&a, 2);
	assert_int_equal(boot(&a, &e), 0);
	if (kvm_call(a.vm->vcpu[1].fd, KVM_SET_MP_STATE, &got) < 0)
		fail_msg("KVM_SET_MP_STATE: %s", strerror(errno));
	build(&b, 2);
	move(&b, &a, 2);
	finish(&a);
	assert_int_equal(state_of[1].mp_state, KVM_MP_STATE_INIT_RECEIVED);
	assert_int_equal(kvm_call(b.vm->vcpu[1].fd, KVM_GET_MP_STATE, &got), 0);
	assert_int_equal(got.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	b.go = 1;
	run_guest(&b);
	await(&b.seen, 2);
	pause_guest(&b);
	finish(&b);
}

/* All are asked, and look when the last one is out of the guest. */
static void test_halt_of_all_is_found_of_some_is_not(void **state)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	struct world w;
	struct err e;

	build(&w, 4);
	assert_int_equal(boot(&w, &e), 0);
	run_guest(&w);
	await(&w.asked, 1);
	for (unsigned i = 0; i < 300; i++) {
		enum vm_probe p = vm_probe_halt(w.vm);

		assert_int_not_equal(p, VM_PROBE_IDLE); /* the first one goes round and round */
		nanosleep(&ms, NULL);
	}
	assert_int_equal(w.ended, GUEST_RUNS);
	__atomic_store_n(&w.go, 1, __ATOMIC_SEQ_CST);
	await(&w.seen, 0xe);
	for (unsigned i = 0; i < PATIENCE_S * 1000; i++) {
		if (__atomic_load_n(&w.ended, __ATOMIC_SEQ_CST))
			break;
		vm_probe_halt(w.vm);
		nanosleep(&ms, NULL);
	}
	assert_int_equal(w.ended, GUEST_HALTED);
	finish(&w);
}

/* Probes and pauses meet in all orders; neither waits for the other for ever. */
static void test_c01_probes_and_pauses_at_once(void **state)
{
	struct world w;
	struct err e;

	build(&w, 3);
	assert_int_equal(boot(&w, &e), 0);
	run_guest(&w);
	for (unsigned i = 0; i < 2000; i++) {
		vm_probe_halt(w.vm);
		if (i % 3 == 0) {
			pause_guest(&w);
			vm_resume(w.vm);
		}
	}
	vm_probe_halt(w.vm);
	finish(&w); /* amid a probe */
}

/* ---- threads ---- */

static void test_threads_have_names_and_places(void **state)
{
	cpu_set_t base, set;
	struct world w;
	struct err e;
	unsigned last = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(base), &base), 0);
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &base))
			last = i;
	build(&w, 12);
	assert_int_equal(boot(&w, &e), 0);
	CPU_ZERO(&set);
	CPU_SET(last, &set);
	for (unsigned i = 0; i < 12; i += 2)
		vm_set_affinity(w.vm, i, &set);
	run_guest(&w);
	for (unsigned i = 0; i < 12; i++) {
		char path[64], name[32] = "", want[VCPU_NAME_MAX];
		cpu_set_t got;
		FILE *f;

		await((const u32 *)&w.vm->vcpu[i].tid, 1);
		vcpu_name(i, want);
		snprintf(path, sizeof(path), "/proc/self/task/%d/comm", vcpu_tid(w.vm, i));
		f = fopen(path, "r");
		assert_non_null(f);
		assert_int_equal(fscanf(f, "%31s", name), 1);
		fclose(f);
		assert_string_equal(name, want);
		assert_int_equal(sched_getaffinity(vcpu_tid(w.vm, i), sizeof(got), &got), 0);
		assert_true(CPU_EQUAL(&got, i % 2 ? &base : &set));
	}
	finish(&w);
}

/* ---- templates ---- */

static struct cpu_template tpl;

static int boot_with(struct world *w, struct err *e)
{
	build(w, 2);
	vm_set_cpu(w->vm, &tpl);
	return boot(w, e);
}

static void test_masked_bit_is_gone_from_all_and_stays_so(void **state)
{
	struct world a, b;
	struct err e;

	tpl = (struct cpu_template){.leaf_count = 1,
		.leaf = {{.leaf = 1, .care = {[CPUID_EDX] = CLFLUSH}}}};
	if (boot_with(&a, &e))
		fail_msg("%s", e.msg);
	build(&b, 2);
	move(&b, &a, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(cpuid_value(&state_of[i].cpuid, 1, 0, CPUID_EDX) & CLFLUSH, 0);
		assert_int_equal(cpuid_value(b.vm->vcpu[i].cpuid, 1, 0, CPUID_EDX) & CLFLUSH, 0);
	}
	finish(&a);
	finish(&b);
}

static void test_register_is_changed_on_all(void **state)
{
	struct world a, b;
	struct err e;

	tpl = (struct cpu_template){.msr_count = 1,
		.msr = {{.index = MSR_STAR, .care = 0xffull << 32, .value = 0x23ull << 32}}};
	if (boot_with(&a, &e))
		fail_msg("%s", e.msg);
	build(&b, 2);
	move(&b, &a, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_true(msr_find(&state_of[i].msrs, MSR_STAR)->data == 0x23ull << 32);
	finish(&a);
	finish(&b);
}

static void test_unknown_register_is_refused_by_number(void **state)
{
	struct world w;
	struct err e;

	tpl = (struct cpu_template){.msr_count = 1, .msr = {{.index = 0xdeadbeef, .care = 1}}};
	assert_int_equal(boot_with(&w, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "0xdeadbeef"));
	finish(&w);
}

static void test_capability_that_is_not_there(void **state)
{
	struct world w;
	struct err e;

	tpl = (struct cpu_template){.cap_count = 1, .cap = {KVM_CAP_IRQCHIP}};
	assert_int_equal(boot_with(&w, &e), 0);
	finish(&w);
	tpl.cap[tpl.cap_count++] = 987654;
	assert_int_equal(boot_with(&w, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "987654"));
	finish(&w);
}

/* KVM reads it out of the host; it belongs to a feature the guest was not told of. */
static void test_no_arch_capabilities_without_their_bit(void **state)
{
	struct world a, b;
	struct err e;
	bool told;

	tpl = (struct cpu_template){.leaf_count = 1,
		.leaf = {{.leaf = 7, .care = {[CPUID_EDX] = 1u << 29}}}};
	assert_int_equal(boot_with(&a, &e), 0);
	build(&b, 2);
	move(&b, &a, 2);
	told = cpuid_value(&state_of[0].cpuid, 7, 0, CPUID_EDX) & 1u << 29;
	assert_false(told);
	assert_null(msr_find(&state_of[0].msrs, MSR_ARCH_CAPS));
	finish(&a);
	finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_start_by_init_and_sipi),
		cmocka_unit_test(test_c01_pause_those_that_wait_for_their_start),
		cmocka_unit_test(test_those_that_wait_are_saved_waiting),
		cmocka_unit_test(test_one_that_got_only_init_waits_on),
		cmocka_unit_test(test_halt_of_all_is_found_of_some_is_not),
		cmocka_unit_test(test_c01_probes_and_pauses_at_once),
		cmocka_unit_test(test_threads_have_names_and_places),
		cmocka_unit_test(test_masked_bit_is_gone_from_all_and_stays_so),
		cmocka_unit_test(test_register_is_changed_on_all),
		cmocka_unit_test(test_unknown_register_is_refused_by_number),
		cmocka_unit_test(test_capability_that_is_not_there),
		cmocka_unit_test(test_no_arch_capabilities_without_their_bit),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
