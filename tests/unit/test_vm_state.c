/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_state.c - real virtual machines that run no instruction: how many vCPUs there can be,
 * what clocks and interrupts a restored one begins with. Skipped (77) where /dev/kvm cannot be
 * opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vcpu/vcpu_int.h"

#define NS_PER_MS 1000000ull
#define AWAY_NS   (3600 * 1000 * NS_PER_MS)
#define LATE_NS   (10 * 1000 * NS_PER_MS) /* a test may take this long */

#define SIGNAL_GSI  21u
#define VECTOR      0x52u
#define LAPIC_SVR   0xf0u
#define SVR_ENABLED 0x1ffu
#define LAPIC_IRR   0x200u

struct world {
	struct mem *mem;
	struct vm *vm;
	struct enc vm_bytes, cpu_bytes;
};

static const struct vm_ops ops = {0}; /* no vCPU ever runs */

static void build(struct world *w)
{
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	assert_int_equal(mem_create(&w->mem, 2 * MEM_MIN_SIZE, MEM_ANON, &e), 0);
	if (vm_create(&w->vm, w->mem, 1, VM_CHIPS_LEAN, &ops, w, &e))
		fail_msg("%s", e.msg);
}

static void save(struct world *w)
{
	struct err e = {0};

	enc_free(&w->vm_bytes);
	enc_free(&w->cpu_bytes);
	w->vm_bytes = w->cpu_bytes = (struct enc){0};
	if (vm_save(w->vm, &w->vm_bytes, &e) || vcpu_save(w->vm, 0, &w->cpu_bytes, &e))
		fail_msg("%s", e.msg);
}

static void finish(struct world *w)
{
	vm_destroy(&w->vm);
	mem_destroy(&w->mem);
	enc_free(&w->vm_bytes);
	enc_free(&w->cpu_bytes);
}

/* The state of a VM that has just been booted. */
static void fresh(struct vm_state *vm, struct cpu_state *cpu)
{
	const struct boot_regs regs = {.mode = BOOT_PVH, .rip = 0x100000, .info_gpa = 0x6000};
	struct err e = {0};
	struct world w;

	build(&w);
	if (vm_boot(w.vm, &regs, &e))
		fail_msg("%s", e.msg);
	save(&w);
	assert_int_equal(vm_state_decode(vm, w.vm_bytes.buf, w.vm_bytes.len, &e), 0);
	assert_int_equal(cpu_state_decode(cpu, w.cpu_bytes.buf, w.cpu_bytes.len, &e), 0);
	finish(&w);
}

/* A new VM with that state. */
static void load(struct world *w, const struct vm_state *vm, const struct cpu_state *cpu)
{
	struct err e = {0};

	build(w);
	vm_state_encode(vm, &w->vm_bytes);
	cpu_state_encode(cpu, &w->cpu_bytes);
	if (vm_load(w->vm, w->vm_bytes.buf, w->vm_bytes.len, &e) ||
		vcpu_load(w->vm, 0, w->cpu_bytes.buf, w->cpu_bytes.len, &e))
		fail_msg("%s", e.msg);
}

static void saved_again(struct world *w, struct vm_state *vm, struct cpu_state *cpu)
{
	struct err e = {0};

	save(w);
	assert_int_equal(vm_state_decode(vm, w->vm_bytes.buf, w->vm_bytes.len, &e), 0);
	assert_int_equal(cpu_state_decode(cpu, w->cpu_bytes.buf, w->cpu_bytes.len, &e), 0);
}

/* A software KVM gives all guests the host's TSC, whatever is set. */
static bool tsc_can_be_set(void)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head = {.nmsrs = 1}, .entry = {.index = MSR_TSC, .data = 1ull << 60}};
	struct world w;
	bool can;

	build(&w);
	can = kvm_call(w.vm->vcpu[0].fd, KVM_SET_MSRS, &m) == 1 &&
		kvm_call(w.vm->vcpu[0].fd, KVM_GET_MSRS, &m) == 1 && m.entry.data >= 1ull << 60;
	finish(&w);
	return can;
}

static void assert_ticks(const struct vm_state *vm, struct cpu_state *from, struct cpu_state *to,
	u64 away_ms)
{
	u64 ticks = msr_find(&to->msrs, MSR_TSC)->data - msr_find(&from->msrs, MSR_TSC)->data;

	if (tsc_can_be_set())
		assert_in_range(ticks / vm->tsc_khz, away_ms, away_ms + LATE_NS / NS_PER_MS);
	else
		print_message("the TSC cannot be set here\n");
}

/* Both clocks a guest can count by go on as if the VM had run on. */
static void clocks_go_on(void **state)
{
	static struct cpu_state cpu, later;
	struct vm_state vm, then;
	struct world w;

	fresh(&vm, &cpu);
	vm.realtime_ns -= AWAY_NS; /* as if saved an hour ago */
	load(&w, &vm, &cpu);
	saved_again(&w, &then, &later);
	assert_in_range(then.clock_ns - vm.clock_ns, AWAY_NS, AWAY_NS + LATE_NS);
	assert_ticks(&vm, &cpu, &later, AWAY_NS / NS_PER_MS);
	finish(&w);
}

/* The host's clock was set back since the save: the guest's do not follow it. */
static void clocks_do_not_go_back(void **state)
{
	static struct cpu_state cpu, later;
	struct vm_state vm, then;
	struct world w;

	fresh(&vm, &cpu);
	vm.realtime_ns += AWAY_NS;
	load(&w, &vm, &cpu);
	saved_again(&w, &then, &later);
	assert_in_range(then.clock_ns - vm.clock_ns, 0, LATE_NS);
	assert_ticks(&vm, &cpu, &later, 0);
	finish(&w);
}

static void a_masked_pin_is_not_signalled(void **state)
{
	static struct cpu_state cpu;
	struct vm_state vm;
	struct world w;

	fresh(&vm, &cpu);
	load(&w, &vm, &cpu);
	assert_false(vm_signal(w.vm, SIGNAL_GSI));
	saved_again(&w, &vm, &cpu);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(lapic_reg(&cpu.lapic, LAPIC_IRR + i * 16), 0);
	finish(&w);
}

/* Pending in the local APIC, though no irqfd was made and no vCPU ran. */
static void a_signal_waits_for_the_first_instruction(void **state)
{
	static struct cpu_state cpu;
	const u32 svr = SVR_ENABLED;
	struct vm_state vm;
	struct world w;

	fresh(&vm, &cpu);
	vm.rte[SIGNAL_GSI] = VECTOR; /* unmasked, physical, to APIC 0 */
	memcpy(cpu.lapic.regs + LAPIC_SVR, &svr, sizeof(svr));
	load(&w, &vm, &cpu);
	assert_true(vm_signal(w.vm, SIGNAL_GSI));
	saved_again(&w, &vm, &cpu);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(lapic_reg(&cpu.lapic, LAPIC_IRR + i * 16),
			i == VECTOR / 32 ? 1u << VECTOR % 32 : 0);
	finish(&w);
}

/* ---- how many vCPUs ---- */

static void bad_counts_are_refused(void **state)
{
	struct mem *mem;
	struct vm *vm = NULL;
	struct err e = {0};

	assert_int_equal(mem_create(&mem, MEM_MIN_SIZE, MEM_ANON, &e), 0);
	assert_int_equal(vm_create(&vm, mem, 0, VM_CHIPS_LEAN, &ops, NULL, &e), -EINVAL);
	assert_int_equal(
		vm_create(&vm, mem, VCPU_MAX + 1, VM_CHIPS_LEAN, &ops, NULL, &e), -EINVAL);
	assert_null(vm);
	vm_destroy(&vm);
	mem_destroy(&mem);
}

/* From now on this process has a KVM that makes two vCPUs a VM. */
static void allow_two(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_CREATE_VCPU, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(f), .filter = f};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(3);
}

static void more_than_kvm_allows_is_one_line(void **state)
{
	struct err e = {0};
	struct vm *vm = NULL;
	struct mem *mem;
	int status;
	pid_t pid;

	assert_int_equal(mem_create(&mem, MEM_MIN_SIZE, MEM_ANON, &e), 0);
	pid = fork();
	if (pid == 0) {
		allow_two();
		if (vm_create(&vm, mem, 3, VM_CHIPS_LEAN, &ops, NULL, &e) != -EINVAL || vm)
			_exit(1);
		_exit(strcmp(e.msg, "3 vCPUs: KVM on this host allows a VM no more than 2") ? 2 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	mem_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clocks_go_on),
		cmocka_unit_test(clocks_do_not_go_back),
		cmocka_unit_test(a_masked_pin_is_not_signalled),
		cmocka_unit_test(a_signal_waits_for_the_first_instruction),
		cmocka_unit_test(bad_counts_are_refused),
		cmocka_unit_test(more_than_kvm_allows_is_one_line),
	};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		printf("skipped: /dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
