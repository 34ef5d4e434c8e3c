/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - the vCPU thread: enter the guest, answer its accesses, tell why it ended.
 *
 * The loop in vcpu_thread() asks vcpu_attend() (park.c) before each entry whether it may run, must
 * park, or must leave. Somebody who wants it out of the guest says what he wants (vm->want,
 * v->probe), then sets immediate_exit, then sends SIGRTMIN to the thread, in this order. The thread
 * clears immediate_exit, then looks what is wanted, then enters. No kick is lost:
 *   - set before the clear: the request was stored still earlier, and the look sees it;
 *   - set after the clear: KVM_RUN finds it and returns EINTR at once;
 *   - set after KVM_RUN looked: the signal comes while the thread is in KVM_RUN, which returns.
 * The handler has nothing to do; it is there so that the signal interrupts.
 *
 * An access that we answered is completed by KVM on the next entry. State read before that would
 * lack it, so before the thread parks it enters once more with immediate_exit set, which completes
 * the access and runs no instruction.
 *
 * Trust: struct kvm_run is written by KVM, apart from immediate_exit, and is trusted as the kernel
 * is; addresses, ports and data in it are the guest's.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* syscalls[LVW]: rt_sigreturn */
static void on_kick(int sig)
{
}

int kick_install(struct err *e)
{
	struct sigaction sa = {.sa_handler = on_kick}; /* no SA_RESTART: calls are to return */

	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGRTMIN, &sa, NULL) < 0)
		return err_sys(e, errno, "the vCPU signal");
	return 0;
}

/* ---- the end ---- */

void vcpu_report(struct vcpu *v, enum guest_end why, struct end_report *r)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	*r = (struct end_report){.why = why, .vcpu = v->idx};
	/* syscalls[V]: ioctl(KVM_GET_REGS), ioctl(KVM_GET_SREGS) */
	if (why == GUEST_POWER_OFF)
		r->status = v->status;
	else if (why != GUEST_REBOOT && !kvm_call(v->fd, KVM_GET_REGS, &regs) &&
		 !kvm_call(v->fd, KVM_GET_SREGS, &sregs))
		dump_registers(&regs, &sregs, r->regs, sizeof(r->regs));
}

__attribute__((format(printf, 3, 4)))
static bool end(struct vcpu *v, enum guest_end why, const char *fmt, ...)
{
	struct end_report r;
	va_list ap;

	vcpu_report(v, why, &r);
	va_start(ap, fmt);
	vsnprintf(r.detail, sizeof(r.detail), fmt, ap);
	va_end(ap);
	guest_over(v, &r);
	return false;
}

static bool end_internal(struct vcpu *v)
{
	const struct kvm_run *run = v->run;
	char data[128] = "";
	size_t n = 0;

	for (u32 i = 0; i < run->internal.ndata && i < ARRAY_SIZE(run->internal.data) &&
	     n < sizeof(data) - 20; i++)
		n += (size_t)snprintf(data + n, sizeof(data) - n, " %llx", run->internal.data[i]);
	return end(v, GUEST_KVM_INTERNAL, "suberror %u%s%s", run->internal.suberror,
		n ? ", data" : "", data);
}

static bool end_system_event(struct vcpu *v)
{
	u32 type = v->run->system_event.type;

	if (type == KVM_SYSTEM_EVENT_SHUTDOWN || type == KVM_SYSTEM_EVENT_RESET)
		return end(v, type == KVM_SYSTEM_EVENT_RESET ? GUEST_REBOOT : GUEST_POWER_OFF,
			"%s", "");
	return end(v, GUEST_UNKNOWN_EXIT, "%s, system event %u",
		type == KVM_SYSTEM_EVENT_CRASH ? "the guest says it crashed" : "unknown", type);
}

void vcpu_power_off(struct vcpu *v, int status)
{
	v->asked = GUEST_POWER_OFF;
	v->status = status;
}

void vcpu_reboot(struct vcpu *v)
{
	v->asked = GUEST_REBOOT;
}

/* ---- accesses ---- */

/* Whether to go on after vm_ops answered an access. */
static bool answered(struct vcpu *v)
{
	v->io_pending = true;
	return v->asked ? end(v, v->asked, "%s", "") : true;
}

static bool on_mmio(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct kvm_run *run = v->run;
	u64 gpa = run->mmio.phys_addr;
	u8 data[sizeof(run->mmio.data)];
	unsigned len = run->mmio.len;
	bool write = run->mmio.is_write;

	must(len <= sizeof(data));
	if (write)
		memcpy(data, run->mmio.data, sizeof(data));
	else
		memset(data, 0xff, sizeof(data));
	if (vm->chips == VM_CHIPS_PC || gpa - IOAPIC_GPA >= IOAPIC_LEN)
		vm->ops->mmio(vm->ctx, v, gpa, data, len, write);
	else if (ioapic_mmio(&vm->ioapic, gpa - IOAPIC_GPA, data, len, write) &&
		 vm_set_routes(vm) < 0)
		return end(v, GUEST_RUN_ERROR, "KVM_SET_GSI_ROUTING: %s", strerror(errno));
	if (!write)
		memcpy(run->mmio.data, data, len);
	return answered(v);
}

static bool on_pio(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct kvm_run *run = v->run;
	u8 *data = (u8 *)run + run->io.data_offset;
	unsigned len = run->io.size;
	bool write = run->io.direction == KVM_EXIT_IO_OUT;

	if (!write)
		memset(data, 0xff, (size_t)len * run->io.count);
	for (u32 i = 0; i < run->io.count; i++, data += len)
		vm->ops->pio(vm->ctx, v, run->io.port, data, len, write);
	return answered(v);
}

/* ---- the loop ---- */

static bool on_exit_reason(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		return on_mmio(v);
	case KVM_EXIT_IO:
		return on_pio(v);
	case KVM_EXIT_INTR:
	case KVM_EXIT_IOAPIC_EOI: /* of a level interrupt, which we have none of */
		return true;
	case KVM_EXIT_HLT: /* the local APIC is KVM's, so it would not ask us to wait */
		return end(v, GUEST_HALTED, "KVM handed the halt to user space");
	case KVM_EXIT_SHUTDOWN:
		return end(v, GUEST_TRIPLE_FAULT, "%s", "");
	case KVM_EXIT_INTERNAL_ERROR:
		return end_internal(v);
	case KVM_EXIT_FAIL_ENTRY:
		return end(v, GUEST_FAIL_ENTRY, "hardware reason 0x%llx",
			run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_SYSTEM_EVENT:
		return end_system_event(v);
	}
	return end(v, GUEST_UNKNOWN_EXIT, "KVM exit reason %u", run->exit_reason);
}

static bool enter(struct vcpu *v)
{
	int r = ioctl(v->fd, KVM_RUN, 0ul); /* syscalls[V]: ioctl(KVM_RUN) */

	v->io_pending = false;
	if (r >= 0)
		return on_exit_reason(v);
	if (errno == EINTR || errno == EAGAIN) /* EAGAIN: a secondary vCPU got its start */
		return true;
	return end(v, GUEST_RUN_ERROR, "KVM_RUN: %s", strerrordesc_np(errno));
}

static bool begin(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct err e;

	return !vm->ops->begin || !vm->ops->begin(vm->ctx, &e) ||
		end(v, GUEST_RUN_ERROR, "%s", e.msg);
}

void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	sigset_t kick;
	bool go;

	sigemptyset(&kick);
	sigaddset(&kick, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	vcpu_hello(v);
	go = begin(v) && vcpu_attend(v); /* a restored one tells kvm-clock before its first entry */
	while (go) {
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (!vcpu_undisturbed(v)) {
			if (!v->io_pending) {
				go = vcpu_attend(v);
				continue; /* look again: a kick may have come meanwhile */
			}
			__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		}
		go = enter(v);
	}
	vcpu_leave(v);
	return NULL;
}
