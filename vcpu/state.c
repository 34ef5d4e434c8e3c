/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.c - a VM's and a vCPU's state, out of KVM and back in.
 *
 * Every call on a vCPU costs microseconds, so what a fresh vCPU has anyway is not set again: run
 * state, XCR0, debug registers and events when they are as after reset. General registers go in
 * with the first KVM_RUN (KVM_SYNC_X86_REGS) instead of by a call of their own.
 *
 * The order of a load, each line because the next depends on it:
 *   CPUID            decides which registers and bits exist
 *   run state, SREGS the APIC base and CR4.OSXSAVE
 *   XCR0, XSAVE      XSAVE may hold what XCR0 allows
 *   local APIC       in the mode that the APIC base says; the timer's mode
 *   MSRs             TSC, then the TSC deadline, which needs the timer's mode
 *   registers, events setting registers forgets a pending exception
 *
 * Time: the guest's clocks go on as if it had run on. To kvm-clock and to the TSC the time since
 * the save is added, by the host's CLOCK_REALTIME, so that the wall clock of a guest is right after
 * a restore, whichever of the two it counts by (it keeps the difference to the wall clock itself),
 * and the two still agree. TSC deadlines are absolute, so those that have passed meanwhile fire at
 * once. The local APIC's own timer counts down from where it stood. Time never goes backward: where
 * the host's clock is behind the save's, nothing is added. KVM_KVMCLOCK_CTRL (park.c) tells the
 * guest's watchdogs that they were not run.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"

#define NS_PER_S         1000000000ull
#define XCR0_RESET       1u
#define DR6_RESET        0xffff0ff0ull
#define DR7_RESET        0x400ull
#define TSC_TOLERANCE_PPM 250u
#define CPUID_7_EDX_ARCH_CAPS (1u << 29)

/* ---- save ---- */

int vm_save(struct vm *vm, struct enc *out, struct err *e)
{
	struct kvm_clock_data clock = {0};
	struct vm_state s = {.tsc_khz = vm->tsc_khz};

	/* syscalls[L]: ioctl(KVM_GET_CLOCK) */
	if (kvm_call(vm->vm_fd, KVM_GET_CLOCK, &clock) < 0)
		return err_sys(e, errno, "KVM_GET_CLOCK");
	s.clock_ns = clock.clock;
	s.realtime_ns = clock.flags & KVM_CLOCK_REALTIME ? clock.realtime
							 : clock_ns(CLOCK_REALTIME);
	s.ioapic_id = vm->ioapic.id;
	s.ioapic_select = vm->ioapic.select;
	memcpy(s.rte, vm->ioapic.rte, sizeof(s.rte));
	vm_state_encode(&s, out);
	return out->oom ? err_sys(e, ENOMEM, "saving the VM's state") : 0;
}

/*
 * A deadline that has passed reads as 0 although its interrupt may not have reached the local APIC
 * yet. Such a timer is saved as due now: at worst the guest gets one interrupt too many, and
 * without it a guest that waits for this very tick would sleep for ever.
 */
static void keep_due_timer(struct cpu_state *s)
{
	struct kvm_msr_entry *deadline = msr_find(&s->msrs, MSR_TSC_DEADLINE);
	struct kvm_msr_entry *tsc = msr_find(&s->msrs, MSR_TSC);
	u32 lvt = lapic_reg(&s->lapic, LVT_TIMER);

	if (deadline && tsc && !deadline->data && !(lvt & LVT_MASKED) &&
	    (lvt & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE)
		deadline->data = tsc->data;
}

/* syscalls[L]: ioctl(KVM_CHECK_EXTENSION), ioctl(KVM_GET_XSAVE2), ioctl(KVM_GET_XSAVE) */
static int read_xsave(struct vcpu *v, struct cpu_state *s, struct err *e)
{
	int need = ioctl(v->vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	u32 len = XSAVE_PLAIN;

	if (need > (int)XSAVE_MAX)
		return err_set(e, -ENOTSUP, "this host's XSAVE area has %d bytes", need);
	if (need > (int)len)
		len = (u32)align_up((u64)need, 64);
	memset(s->xsave, 0, len);
	if (kvm_call(v->fd, need > 0 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave) < 0)
		return err_sys(e, errno, "KVM_GET_XSAVE");
	while (len > XSAVE_MIN && !s->xsave[len - 1] &&
	       !memcmp(s->xsave + len - 64, s->xsave + len - 63, 63))
		len -= 64; /* zeros: what is missing loads as zeros */
	s->xsave_len = len;
	return 0;
}

/*
 * syscalls[L]: ioctl(KVM_GET_MP_STATE), ioctl(KVM_GET_REGS), ioctl(KVM_GET_SREGS)
 * syscalls[L]: ioctl(KVM_GET_DEBUGREGS), ioctl(KVM_GET_VCPU_EVENTS), ioctl(KVM_GET_LAPIC)
 * syscalls[L]: ioctl(KVM_GET_XCRS)
 */
static int read_cpu(struct vcpu *v, struct cpu_state *s, struct err *e)
{
	const struct {
		unsigned long request;
		void *to;
		const char *name;
	} reads[] = {
		{KVM_GET_SREGS, &s->sregs, "KVM_GET_SREGS"},
		{KVM_GET_DEBUGREGS, &s->debug, "KVM_GET_DEBUGREGS"},
		{KVM_GET_VCPU_EVENTS, &s->events, "KVM_GET_VCPU_EVENTS"},
		{KVM_GET_LAPIC, &s->lapic, "KVM_GET_LAPIC"},
	};
	struct kvm_mp_state mp;
	struct kvm_xcrs xcrs = {0};

	/* First: getting it makes KVM act on a pending INIT or SIPI, which changes the rest. */
	if (kvm_call(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return err_sys(e, errno, "KVM_GET_MP_STATE");
	s->mp_state = mp.mp_state;
	if (v->run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
		s->regs = v->run->s.regs.regs; /* never ran: KVM does not have them yet */
	else if (kvm_call(v->fd, KVM_GET_REGS, &s->regs) < 0)
		return err_sys(e, errno, "KVM_GET_REGS");
	for (unsigned i = 0; i < ARRAY_SIZE(reads); i++)
		if (kvm_call(v->fd, reads[i].request, reads[i].to) < 0)
			return err_sys(e, errno, "%s", reads[i].name);
	if (kvm_call(v->fd, KVM_GET_XCRS, &xcrs) < 0)
		return err_sys(e, errno, "KVM_GET_XCRS");
	s->has_xcr0 = xcrs.nr_xcrs > 0;
	s->xcr0 = s->has_xcr0 ? xcrs.xcrs[0].value : 0;
	return read_xsave(v, s, e);
}

int vcpu_save(struct vm *vm, unsigned idx, struct enc *out, struct err *e)
{
	_cleanup_free_ struct cpu_state *s = malloc(sizeof(*s));
	struct vcpu *v = &vm->vcpu[idx];
	struct msr_list list;
	int r;

	must(idx < vm->count && v->cpuid);
	if (!s)
		return err_sys(e, ENOMEM, "saving vCPU %u", idx);
	s->cpuid.head = v->cpuid->head;
	memcpy(s->cpuid.entry, v->cpuid->entry, v->cpuid->head.nent * sizeof(s->cpuid.entry[0]));
	r = read_cpu(v, s, e);
	if (!r)
		r = msr_list_get(vm->kvm_fd, &list, e);
	if (!r)
		r = msr_read_all(v->fd, &list, &s->msrs, e);
	if (r) {
		err_wrap(e, "saving vCPU %u", idx);
		return r;
	}
	keep_due_timer(s);
	/* KVM reads out what its host offers, also for a guest that was not told of it. */
	if (!(cpuid_value(&s->cpuid, 0x7, 0, CPUID_EDX) & CPUID_7_EDX_ARCH_CAPS))
		msr_forget(&s->msrs, MSR_ARCH_CAPS);
	cpu_state_encode(s, out);
	return out->oom ? err_sys(e, ENOMEM, "saving vCPU %u", idx) : 0;
}

/* ---- load ---- */

static bool tsc_close(u32 a, u32 b)
{
	u64 diff = a > b ? a - b : b - a;

	return diff * 1000000u <= (u64)b * TSC_TOLERANCE_PPM;
}

/* KVM adds the time since the save if it can (Linux 5.16): then no moment lies between. */
static int set_clock(struct vm *vm, const struct vm_state *s, struct err *e)
{
	struct kvm_clock_data clock = {.clock = s->clock_ns, .flags = KVM_CLOCK_REALTIME,
		.realtime = s->realtime_ns};
	u64 now = clock_ns(CLOCK_REALTIME);

	vm->away_ns = now > s->realtime_ns ? now - s->realtime_ns : 0;
	if (kvm_call(vm->vm_fd, KVM_SET_CLOCK, &clock) == 0)
		return 0;
	clock = (struct kvm_clock_data){.clock = s->clock_ns + vm->away_ns};
	if (kvm_call(vm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return err_sys(e, errno, "KVM_SET_CLOCK");
	return 0;
}

/* The TSC as if it had counted on since the save. */
static void advance_tsc(const struct vm *vm, struct cpu_state *s)
{
	struct kvm_msr_entry *tsc = msr_find(&s->msrs, MSR_TSC);

	if (tsc)
		tsc->data += (u64)((unsigned __int128)vm->away_ns * vm->tsc_khz / 1000000u);
}

int vm_load(struct vm *vm, const void *data, size_t len, struct err *e)
{
	struct vm_state s;
	bool routed = false;
	int r = vm_state_decode(&s, data, len, e);

	if (!r)
		r = vm_host_tsc(vm, e);
	if (r)
		return r;
	vm->tsc_scaled = !tsc_close(s.tsc_khz, vm->tsc_khz);
	vm->tsc_khz = s.tsc_khz;
	r = set_clock(vm, &s, e);
	if (r)
		return r;
	vm->ioapic.id = s.ioapic_id;
	vm->ioapic.select = s.ioapic_select;
	memcpy(vm->ioapic.rte, s.rte, sizeof(s.rte));
	for (unsigned i = 0; i < GSI_COUNT; i++)
		routed |= !ioapic_masked(&vm->ioapic, i);
	if (routed && vm_set_routes(vm) < 0)
		return err_sys(e, errno, "KVM_SET_GSI_ROUTING");
	vm->wake_seq++; /* an interrupt may have come before the save: no first wait sleeps */
	return 0;
}

static int ask_supported(void *ctx, struct cpuid_table *ret, struct err *e)
{
	return vm_supported_cpuid(ctx, ret, e);
}

static bool events_idle(const struct kvm_vcpu_events *v)
{
	return !v->exception.injected && !v->exception.pending && !v->interrupt.injected &&
		!v->interrupt.shadow && !v->nmi.injected && !v->nmi.pending && !v->nmi.masked &&
		!v->smi.smm && !v->smi.pending && !v->smi.latched_init && !v->triple_fault.pending;
}

/* One KVM_SET_* call; says which one failed. */
static int set(struct vcpu *v, unsigned long request, void *arg, const char *name, struct err *e)
{
	if (kvm_call(v->fd, request, arg) < 0)
		return err_sys(e, errno, "%s", name);
	return 0;
}

static int write_xsave(struct vcpu *v, struct cpu_state *s, struct err *e)
{
	u32 len = s->xsave_len;

	if (len > XSAVE_PLAIN &&
	    ioctl(v->vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) < (int)len)
		return err_set(e, -ENOTSUP, "the saved XSAVE area has %u bytes, which is more than "
			"this host's", len);
	if (len < XSAVE_PLAIN)
		memset(s->xsave + len, 0, XSAVE_PLAIN - len);
	return set(v, KVM_SET_XSAVE, s->xsave, "KVM_SET_XSAVE", e);
}

/* From CPUID to XSAVE. */
static int write_mode(struct vcpu *v, struct cpu_state *s, struct err *e)
{
	struct kvm_mp_state mp = {.mp_state = s->mp_state};
	u32 mp_reset = v->idx ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
	int r = vcpu_set_cpuid(v, &s->cpuid, e);

	if (!r && v->vm->tsc_scaled &&
	    ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)v->vm->tsc_khz) < 0)
		return err_sys(e, errno, "the saved guest's TSC runs at %u kHz, this host's does "
			"not, and KVM cannot scale it", v->vm->tsc_khz);
	if (!r && s->mp_state != mp_reset)
		r = set(v, KVM_SET_MP_STATE, &mp, "KVM_SET_MP_STATE", e);
	if (!r)
		r = set(v, KVM_SET_SREGS, &s->sregs, "KVM_SET_SREGS", e);
	if (!r && s->has_xcr0 && s->xcr0 != XCR0_RESET)
		r = set(v, KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS", e);
	if (!r)
		r = write_xsave(v, s, e);
	return r;
}

static int write_rest(struct vcpu *v, struct cpu_state *s, struct err *e)
{
	const struct kvm_debugregs *d = &s->debug;
	struct kvm_msr_entry *clock = msr_find(&s->msrs, MSR_KVM_CLOCK);
	int r;

	v->clock_paused = clock && clock->data & 1; /* before the table is used up */
	r = set(v, KVM_SET_LAPIC, &s->lapic, "KVM_SET_LAPIC", e);
	if (!r)
		r = msr_write_all(v->fd, &s->msrs, e);
	if (!r && events_idle(&s->events) && (s->mp_state == KVM_MP_STATE_RUNNABLE ||
		s->mp_state == KVM_MP_STATE_HALTED)) {
		vcpu_set_regs(v, &s->regs);
	} else if (!r) {
		r = set(v, KVM_SET_REGS, &s->regs, "KVM_SET_REGS", e);
		if (!r)
			r = set(v, KVM_SET_VCPU_EVENTS, &s->events, "KVM_SET_VCPU_EVENTS", e);
	}
	if (!r && (d->db[0] || d->db[1] || d->db[2] || d->db[3] || d->dr7 & ~DR7_RESET ||
		(d->dr6 && d->dr6 != DR6_RESET)))
		r = set(v, KVM_SET_DEBUGREGS, &s->debug, "KVM_SET_DEBUGREGS", e);
	return r;
}

int vcpu_load(struct vm *vm, unsigned idx, const void *data, size_t len, struct err *e)
{
	_cleanup_free_ struct cpu_state *s = malloc(sizeof(*s));
	struct vcpu *v = &vm->vcpu[idx];
	struct msr_list list;
	int r;

	must(idx < vm->count && !v->cpuid);
	if (!s)
		return err_sys(e, ENOMEM, "loading vCPU %u", idx);
	r = cpu_state_decode(s, data, len, e);
	if (!r)
		r = cpuid_check(&s->cpuid, cpuid_native, ask_supported, vm, e);
	if (!r)
		r = msr_list_get(vm->kvm_fd, &list, e);
	if (!r)
		r = msr_check(&s->msrs, &list, e);
	if (!r) {
		advance_tsc(vm, s);
		r = write_mode(v, s, e);
	}
	if (!r)
		r = write_rest(v, s, e);
	if (r)
		err_wrap(e, "vCPU %u", idx);
	return r;
}

int vcpu_check(const void *data, size_t len, struct err *e)
{
	_cleanup_free_ struct cpu_state *s = malloc(sizeof(*s));

	return s ? cpu_state_decode(s, data, len, e) : err_sys(e, ENOMEM, "checking a vCPU");
}

int vcpu_describe(const void *data, size_t len, char *out, size_t cap, struct err *e)
{
	_cleanup_free_ struct cpu_state *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return err_sys(e, ENOMEM, "describing a vCPU");
	r = cpu_state_decode(s, data, len, e);
	if (!r)
		cpuid_describe(&s->cpuid, out, cap);
	return r;
}
