/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - build a VM in the order KVM charges least for, boot it, and take it apart.
 *
 * KVM makes a memory slot in 0.1 ms while nothing sits on its I/O bus, and in 4..8 ms (a grace
 * period) afterwards. So: VM, all slots, irqchip, vCPUs, and only then ioeventfds.
 *
 * Interrupts: the guest programs our IOAPIC (ioapic.c). Its unmasked pins are KVM's one routing
 * table of MSIs, set anew when the guest changes a pin and once at restore. vm_irq() writes the
 * pin's irqfd, and KVM puts the message into the local APIC without waking a vCPU thread into user
 * space; the loop thread, which parses what guests write, makes no KVM call for it. KVM's own chips
 * are the exception; pc.c tells why.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "monitor/base/cleanup.h"

#define KVM_PATH          "/dev/kvm"
#define TSS_GPA           0xfffbd000ul /* three pages for KVM, where no RAM and no device is */
#define MTRR_ON_WRITEBACK 0xc06u
#define MISC_FAST_STRING  0x1801u /* and, as KVM has it, no BTS and no PEBS */

int kvm_call(int fd, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	return r;
}

const char *guest_end_name(enum guest_end why)
{
	switch (why) {
	case GUEST_RUNS:
		break;
#define X(id, name, text)                                                                          \
	case GUEST_##id:                                                                           \
		return name;
		GUEST_ENDS(X)
#undef X
	}
	return "running";
}

const char *guest_end_text(enum guest_end why)
{
	switch (why) {
	case GUEST_RUNS:
		break;
#define X(id, name, text)                                                                          \
	case GUEST_##id:                                                                           \
		return text;
		GUEST_ENDS(X)
#undef X
	}
	return "the guest runs";
}

static int open_kvm(struct err *e)
{
	int fd = open(KVM_PATH, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return err_sys(e, errno, "cannot open " KVM_PATH
			" (load the module kvm_intel or kvm_amd, and switch virtualization on in "
			"the firmware)");
	if (errno == EACCES || errno == EPERM)
		return err_sys(e, errno, "cannot open " KVM_PATH
			" (be root, or join the group that owns it, mostly kvm)");
	return err_sys(e, errno, "cannot open " KVM_PATH);
}

static int add_memory(struct vm *vm, const struct mem *mem, struct err *e)
{
	for (unsigned i = 0; i < mem->region_count; i++) {
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = mem->region[i].gpa,
			.memory_size = mem->region[i].len,
			.userspace_addr = (uintptr_t)mem->region[i].hva,
		};

		if (kvm_call(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return err_sys(e, errno, "KVM_SET_USER_MEMORY_REGION of %llu bytes",
				(unsigned long long)slot.memory_size);
	}
	return 0;
}

static int add_vcpu(struct vm *vm, unsigned idx, struct err *e)
{
	struct vcpu *v = &vm->vcpu[idx];
	void *run;

	v->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, (unsigned long)idx);
	if (v->fd < 0 && errno == EINVAL && idx)
		return err_set(e, -EINVAL, "%u vCPUs: KVM on this host allows a VM no more than %u",
			vm->count, idx);
	if (v->fd < 0)
		return err_sys(e, errno, "KVM_CREATE_VCPU %u", idx);
	run = mmap(NULL, vm->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(e, errno, "mapping vCPU %u", idx);
	v->run = run;
	return 0;
}

static int add_chips(struct vm *vm, struct err *e)
{
	struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {GSI_COUNT}};

	if (vm->chips == VM_CHIPS_PC)
		return pc_create(vm, e);
	if (kvm_call(vm->vm_fd, KVM_ENABLE_CAP, &split) < 0)
		return err_sys(e, errno, "KVM_CAP_SPLIT_IRQCHIP (needs Linux 4.5 or newer)");
	return 0;
}

static int build(struct vm *vm, const struct mem *mem, struct err *e)
{
	int r;

	r = vm->kvm_fd = open_kvm(e);
	if (r < 0)
		return r;
	do {
		vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0ul); /* EINTR: any signal does */
	} while (vm->vm_fd < 0 && errno == EINTR);
	if (vm->vm_fd < 0 && errno == ENOTTY)
		return err_set(e, -ENOTTY, KVM_PATH " is not KVM: it does not know KVM_CREATE_VM");
	if (vm->vm_fd < 0)
		return err_sys(e, errno, KVM_PATH ": cannot make a VM");
	r = add_memory(vm, mem, e);
	if (r)
		return r;
	/* Processors of Intel that cannot run real mode as a guest, in which APs start, need it. */
	if (ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
		return err_sys(e, errno, "KVM_SET_TSS_ADDR");
	r = add_chips(vm, e);
	if (r)
		return r;
	r = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	if (r < (int)sizeof(struct kvm_run))
		return err_sys(e, r < 0 ? errno : EPROTO, "KVM_GET_VCPU_MMAP_SIZE");
	vm->run_len = (size_t)r;
	for (unsigned i = 0; i < vm->count; i++) {
		r = add_vcpu(vm, i, e);
		if (r)
			return r;
	}
	return 0;
}

int vm_create(struct vm **ret, const struct mem *mem, unsigned vcpus, enum vm_chips chips,
	const struct vm_ops *ops, void *ctx, struct err *e)
{
	struct vm *vm;
	int r;

	if (vcpus < 1 || vcpus > VCPU_MAX)
		return err_set(e, -EINVAL, "%u vCPUs: there can be 1 to %u", vcpus, VCPU_MAX);
	vm = calloc(1, sizeof(*vm) + vcpus * sizeof(vm->vcpu[0]));
	if (!vm)
		return err_sys(e, ENOMEM, "making a VM");
	vm->kvm_fd = vm->vm_fd = -1;
	vm->ops = ops;
	vm->ctx = ctx;
	vm->count = vcpus;
	vm->chips = chips;
	vm->want = WANT_PARK;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->turn, NULL);
	ioapic_init(&vm->ioapic);
	for (unsigned i = 0; i < GSI_COUNT; i++)
		vm->irq_fd[i] = -1;
	for (unsigned i = 0; i < vcpus; i++) {
		vm->vcpu[i].vm = vm;
		vm->vcpu[i].idx = i;
		vm->vcpu[i].fd = -1;
	}
	r = build(vm, mem, e);
	if (r)
		vm_destroy(&vm);
	else
		*ret = vm;
	return r;
}

void vm_destroy(struct vm **ref)
{
	struct vm *vm = *ref;

	*ref = NULL;
	if (!vm)
		return;
	vm_join(vm);
	for (unsigned i = 0; i < vm->count; i++) {
		struct vcpu *v = &vm->vcpu[i];

		if (v->run)
			munmap(v->run, vm->run_len);
		fd_close(&v->fd);
		free(v->cpuid);
	}
	for (unsigned i = 0; i < GSI_COUNT; i++)
		fd_close(&vm->irq_fd[i]);
	fd_close(&vm->vm_fd);
	fd_close(&vm->kvm_fd);
	ioapic_finish(&vm->ioapic);
	pthread_cond_destroy(&vm->turn);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

int vm_add_irq(struct vm *vm, unsigned gsi, struct err *e)
{
	struct kvm_irqfd irqfd = {.gsi = gsi};

	must(gsi < GSI_COUNT && vm->irq_fd[gsi] < 0);
	if (vm->chips == VM_CHIPS_PC)
		return 0; /* the pins are there */
	vm->irq_fd[gsi] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->irq_fd[gsi] < 0)
		return err_sys(e, errno, "an eventfd for interrupt %u", gsi);
	irqfd.fd = (u32)vm->irq_fd[gsi];
	if (kvm_call(vm->vm_fd, KVM_IRQFD, &irqfd) < 0)
		return err_sys(e, errno, "KVM_IRQFD for interrupt %u", gsi);
	return 0;
}

int vm_add_device(struct vm *vm, u64 notify_gpa, int kick_fd, unsigned gsi, struct err *e)
{
	struct kvm_ioeventfd kick = {.addr = notify_gpa, .len = 4, .fd = kick_fd};

	must(gsi < GSI_COUNT);
	if (kvm_call(vm->vm_fd, KVM_IOEVENTFD, &kick) < 0)
		return err_sys(e, errno, "KVM_IOEVENTFD at 0x%llx", (unsigned long long)notify_gpa);
	return vm_add_irq(vm, gsi, e);
}

int vm_set_routes(struct vm *vm)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[GSI_COUNT];
	} t = {.head = {0}};
	int r;

	/* Held over the call, so that of two vCPUs that change pins the last one sets all. */
	pthread_mutex_lock(&vm->ioapic.lock);
	for (u32 gsi = 0; gsi < GSI_COUNT; gsi++) {
		struct kvm_irq_routing_entry *route = &t.entry[t.head.nr];

		if (!ioapic_msi(&vm->ioapic, gsi, &route->u.msi))
			continue;
		route->gsi = gsi;
		route->type = KVM_IRQ_ROUTING_MSI;
		t.head.nr++;
	}
	/* syscalls[V]: ioctl(KVM_SET_GSI_ROUTING) */
	r = kvm_call(vm->vm_fd, KVM_SET_GSI_ROUTING, &t);
	pthread_mutex_unlock(&vm->ioapic.lock);
	return r;
}

void vm_irq(struct vm *vm, unsigned gsi)
{
	u64 one = 1;

	if (vm->chips == VM_CHIPS_PC) {
		pc_pulse(vm, gsi);
		wake_waiters(vm);
		return;
	}
	must(gsi < GSI_COUNT && vm->irq_fd[gsi] >= 0);
	/* A message nobody takes (a vector below 16, an absent APIC) is the guest's own doing. KVM
	 * empties the eventfd as it is written, so it is never full. syscalls[LV]: write */
	if (!ioapic_masked(&vm->ioapic, gsi))
		must(write(vm->irq_fd[gsi], &one, sizeof(one)) == sizeof(one));
	wake_waiters(vm);
}

bool vm_signal(struct vm *vm, unsigned gsi)
{
	struct kvm_irq_routing_msi route;
	struct kvm_msi msi = {0};

	must(gsi < GSI_COUNT);
	if (vm->chips == VM_CHIPS_PC) {
		if (!pc_signal(vm, gsi))
			return false;
		wake_waiters(vm);
		return true;
	}
	if (!ioapic_msi(&vm->ioapic, gsi, &route))
		return false;
	msi.address_lo = route.address_lo;
	msi.address_hi = route.address_hi;
	msi.data = route.data;
	/* Refused where nobody takes it (vm_irq() tells when), which is the guest's own doing.
	 * syscalls[L]: ioctl(KVM_SIGNAL_MSI) */
	(void)kvm_call(vm->vm_fd, KVM_SIGNAL_MSI, &msi);
	wake_waiters(vm);
	return true;
}

/* ---- boot ---- */

int vm_supported_cpuid(struct vm *vm, struct cpuid_table *ret, struct err *e)
{
	ret->head = (struct kvm_cpuid2){.nent = CPUID_MAX};
	if (kvm_call(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, ret) < 0)
		return err_sys(e, errno, "KVM_GET_SUPPORTED_CPUID");
	return 0;
}

int vm_host_tsc(struct vm *vm, struct err *e)
{
	int khz = ioctl(vm->vm_fd, KVM_GET_TSC_KHZ, 0ul); /* ten times faster than on a vCPU */

	if (khz <= 0)
		khz = ioctl(vm->vcpu[0].fd, KVM_GET_TSC_KHZ, 0ul); /* before Linux 5.19 */
	if (khz <= 0)
		return err_sys(e, khz ? errno : EPROTO, "KVM_GET_TSC_KHZ");
	vm->tsc_khz = (u32)khz;
	return 0;
}

int vcpu_set_cpuid(struct vcpu *v, const struct cpuid_table *t, struct err *e)
{
	size_t len = sizeof(t->head) + t->head.nent * sizeof(t->entry[0]);
	struct cpuid_table *copy = malloc(len);

	if (!copy)
		return err_sys(e, ENOMEM, "CPUID of vCPU %u", v->idx);
	memcpy(copy, t, len);
	if (kvm_call(v->fd, KVM_SET_CPUID2, copy) < 0) {
		free(copy);
		return err_sys(e, errno, "KVM_SET_CPUID2");
	}
	v->cpuid = copy;
	return 0;
}

void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *regs)
{
	v->run->s.regs.regs = *regs;
	v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
}

/*
 * What firmware would have done: MTRRs on, all memory write-back; fast string instructions on.
 * Linux does without PAT, or (on Intel) without ERMS, if it does not find it so, and that is all
 * that is lost should KVM refuse.
 */
static void set_boot_msrs(struct vcpu *v)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} m = {.head = {.nmsrs = 2},
		.entry = {{.index = MSR_MTRR_DEFTYPE, .data = MTRR_ON_WRITEBACK},
			{.index = MSR_MISC_ENABLE, .data = MISC_FAST_STRING}}};

	(void)kvm_call(v->fd, KVM_SET_MSRS, &m);
}

void vm_set_cpu(struct vm *vm, const struct cpu_template *t)
{
	vm->cpu = t;
}

/* What all vCPUs of @vm see, but for their ids. */
static int make_cpuid(struct vm *vm, struct cpuid_table *t, struct err *e)
{
	int r = vm_supported_cpuid(vm, t, e);

	if (!r)
		r = vm_host_tsc(vm, e);
	if (!r && vm->cpu)
		r = cpu_template_caps(vm->kvm_fd, vm->cpu, e);
	if (!r && vm->cpu)
		r = cpu_template_apply(t, vm->cpu, e);
	if (r)
		return r;
	cpuid_policy(t, vm->count, vm->tsc_khz);
	return vm->cpu ? cpu_template_check(t, vm->cpu, e) : 0;
}

static int set_template_msrs(struct vm *vm, struct err *e)
{
	struct msr_list list;
	int r;

	if (!vm->cpu || !vm->cpu->msr_count)
		return 0;
	r = msr_list_get(vm->kvm_fd, &list, e);
	for (unsigned i = 0; i < vm->count && !r; i++)
		r = cpu_template_msrs(vm->vcpu[i].fd, &list, vm->cpu, e);
	return r;
}

int vm_boot(struct vm *vm, const struct boot_regs *b, struct err *e)
{
	struct cpuid_table t;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	int r = make_cpuid(vm, &t, e);

	for (unsigned i = 0; i < vm->count && !r; i++) {
		struct vcpu *v = &vm->vcpu[i];

		cpuid_set_id(&t, i);
		r = vcpu_set_cpuid(v, &t, e);
		set_boot_msrs(v);
	}
	if (!r)
		r = set_template_msrs(vm, e);
	if (r)
		return r;
	boot_registers(b, &regs, &sregs);
	if (kvm_call(vm->vcpu[0].fd, KVM_SET_SREGS, &sregs) < 0)
		return err_sys(e, errno, "KVM_SET_SREGS");
	vcpu_set_regs(&vm->vcpu[0], &regs);
	return 0;
}

void vm_cpu_model(const struct vm *vm, char *out, size_t cap)
{
	char text[128] = "";
	int len;

	if (vm->vcpu[0].cpuid)
		cpuid_describe(vm->vcpu[0].cpuid, text, sizeof(text));
	len = (int)strcspn(text, ":");
	snprintf(out, cap, "%.*s", len, text);
}

unsigned vcpu_index(const struct vcpu *v)
{
	return v->idx;
}
