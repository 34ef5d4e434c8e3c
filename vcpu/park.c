/* SPDX-License-Identifier: Apache-2.0 */
/*
 * park.c - start, pause, resume, stop, probe: everything that disturbs a vCPU thread.
 *
 * vm->want says what all threads are to do; it changes under vm->lock, with a broadcast for those
 * that park and a signal for those in the guest. Each vm_pause() opens an epoch; every thread
 * answers each epoch once, when it is parked, and the last answer calls vm_ops.parked. So a pause
 * that follows a resume before anybody woke up is answered too. WANT_LEAVE is final.
 *
 * vcpu_wait() sleeps on vm->wake_seq, a futex that vm_irq() and every request bump: it reads the
 * word, then looks for reasons not to sleep, then sleeps only if the word is still the same. While
 * that pays (spin.h) it looks at the word for a while first: then nobody needs to wake it.
 *
 * Halt detection: KVM keeps a halted vCPU inside KVM_RUN, whether or not anything can wake it. When
 * no vCPU has used CPU time lately, all are kicked and look at themselves: the guest is dead if
 * every one is halted with interrupts off, or was never started. They look only when the last one
 * has left the guest: a vCPU that halts with interrupts off may just wait for a lock (Linux does,
 * and its holder wakes it by a hypercall), so that each could be found halted at a time of its
 * own. If one is alive and has armed its timer, it may still die with nobody noticing, so it is
 * asked again. KVM's PIT, where there is one, counts as armed once it was programmed, and wakes
 * even such a vCPU where it makes NMIs.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>


#define NS_PER_S 1000000000ull
#define RFLAGS_IF (1ull << 9)
/* Less CPU time than this between two probes is no life; answering a probe takes some itself. */
#define PROBE_SLACK_NS 100000u
/* Device models run on these threads with a few KiB of buffers; sanitizers need more. */
#define STACK_LEN (512u << 10)

/* syscalls[LV]: futex */
static long futex(u32 *word, int op, u32 value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

void wake_waiters(struct vm *vm)
{
	__atomic_fetch_add(&vm->wake_seq, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vm->waiters, __ATOMIC_SEQ_CST))
		futex(&vm->wake_seq, FUTEX_WAKE, INT_MAX, NULL);
}

/* Looks whether there is reason to sleep at all. */
static bool spin_for_wake(struct vcpu *v)
{
	u32 *seq = &v->vm->wake_seq;
	bool found = false;

	if (!spin_begin(&v->spin))
		return false;
	do {
		found = __atomic_load_n(seq, __ATOMIC_ACQUIRE) != v->wake_seen ||
			!vcpu_undisturbed(v);
	} while (!found && spin_more(&v->spin));
	return found;
}

void vcpu_wait(struct vcpu *v, u64 ns)
{
	struct vm *vm = v->vm;
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
	u32 timed = ns != UINT64_MAX;
	u64 begin_ns;
	u32 seq;

	if (ns > v->spin.max_ns && spin_for_wake(v)) {
		v->wake_seen = __atomic_load_n(&vm->wake_seq, __ATOMIC_SEQ_CST);
		return;
	}
	__atomic_fetch_add(&vm->timed_waiters, timed, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&vm->waiters, 1, __ATOMIC_SEQ_CST);
	seq = __atomic_load_n(&vm->wake_seq, __ATOMIC_SEQ_CST);
	if (seq == v->wake_seen && ns && vcpu_undisturbed(v)) {
		begin_ns = monotonic_ns();
		futex(&vm->wake_seq, FUTEX_WAIT, seq, &ts);
		spin_slept(&v->spin, monotonic_ns() - begin_ns);
		seq = __atomic_load_n(&vm->wake_seq, __ATOMIC_SEQ_CST);
	}
	v->wake_seen = seq;
	__atomic_fetch_sub(&vm->waiters, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_sub(&vm->timed_waiters, timed, __ATOMIC_SEQ_CST);
}

/* ---- CPU time ---- */

static u64 cpu_time_ns(const struct vcpu *v)
{
	u64 ns = 0;

	if (__atomic_load_n(&v->tid, __ATOMIC_ACQUIRE))
		ns = clock_ns(v->cpu_clock); /* 0 if it has just gone */
	return ns ? ns : __atomic_load_n(&v->cpu_final_ns, __ATOMIC_ACQUIRE);
}

u64 vcpu_time_ns(const struct vm *vm, unsigned idx)
{
	must(idx < vm->count);
	return cpu_time_ns(&vm->vcpu[idx]);
}

int vcpu_tid(const struct vm *vm, unsigned idx)
{
	must(idx < vm->count);
	return __atomic_load_n(&vm->vcpu[idx].tid, __ATOMIC_ACQUIRE);
}

u64 vm_cpu_time_ns(const struct vm *vm)
{
	u64 ns = 0;

	for (unsigned i = 0; i < vm->count; i++)
		ns += cpu_time_ns(&vm->vcpu[i]);
	return ns;
}

/* ---- requests: called by anybody, under vm->lock ---- */

/* After the request was stored (run.c tells why). */
static void kick(struct vcpu *v)
{
	if (!v->tid)
		return;
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	/* syscalls[LV]: tgkill, getpid */
	syscall(SYS_tgkill, getpid(), v->tid, SIGRTMIN);
}

static void set_want(struct vm *vm, enum want want)
{
	__atomic_store_n(&vm->want, want, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&vm->turn);
	if (want == WANT_RUN)
		return;
	wake_waiters(vm);
	for (unsigned i = 0; i < vm->count; i++)
		kick(&vm->vcpu[i]);
}

void vm_set_affinity(struct vm *vm, unsigned idx, const cpu_set_t *cpus)
{
	must(idx < vm->count);
	vm->vcpu[idx].cpus = *cpus;
	vm->vcpu[idx].has_cpus = true;
}

static int start_thread(struct vcpu *v)
{
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_LEN);
	r = v->has_cpus ? pthread_attr_setaffinity_np(&attr, sizeof(v->cpus), &v->cpus) : 0;
	if (!r)
		r = pthread_create(&v->thread, &attr, vcpu_thread, v);
	v->started = !r;
	pthread_attr_destroy(&attr);
	return r;
}

int vm_start(struct vm *vm, struct err *e)
{
	sigset_t all, before;
	int r = kick_install(e);

	if (r)
		return r;
	/* Signals are the loop's business; a vCPU thread takes none but the kick. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a memory file cut short under us; whoever looks is told */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < vm->count && !r; i++)
		r = start_thread(&vm->vcpu[i]);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r ? err_sys(e, r, "starting a vCPU thread") : 0;
}

void vm_set_poll(struct vm *vm, u64 max_ns)
{
	for (unsigned i = 0; i < vm->count; i++)
		vm->vcpu[i].spin.max_ns = max_ns;
}

void vm_resume(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->want == WANT_PARK)
		set_want(vm, WANT_RUN);
	pthread_mutex_unlock(&vm->lock);
}

void vm_pause(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->want != WANT_LEAVE) {
		vm->epoch++;
		vm->parked = 0;
		set_want(vm, WANT_PARK);
	}
	pthread_mutex_unlock(&vm->lock);
}

void vm_stop(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->want != WANT_LEAVE)
		set_want(vm, WANT_LEAVE);
	pthread_mutex_unlock(&vm->lock);
}

void vm_join(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->ended = true;
	set_want(vm, WANT_LEAVE);
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->count; i++) {
		if (vm->vcpu[i].started)
			pthread_join(vm->vcpu[i].thread, NULL);
		vm->vcpu[i].started = false;
	}
}

enum vm_probe vm_probe_halt(struct vm *vm)
{
	enum vm_probe r = VM_PROBE_IDLE;
	bool busy = false;

	pthread_mutex_lock(&vm->lock);
	if (vm->want != WANT_RUN)
		goto out;
	r = VM_PROBE_PROBING;
	if (vm->probe_left)
		goto out;
	for (unsigned i = 0; i < vm->count; i++) {
		struct vcpu *v = &vm->vcpu[i];
		u64 used = cpu_time_ns(v);

		if (used - v->probed_ns > PROBE_SLACK_NS) {
			v->probed_ns = used;
			busy = true;
		}
	}
	if (busy || (vm->probed && vm->probe_timer) ||
		__atomic_load_n(&vm->timed_waiters, __ATOMIC_SEQ_CST)) {
		vm->probed = false;
		r = VM_PROBE_BUSY;
		goto out;
	}
	if (vm->probed || __atomic_load_n(&vm->waiters, __ATOMIC_SEQ_CST)) {
		r = VM_PROBE_IDLE;
		goto out;
	}
	vm->probe_left = vm->probe_inside = vm->count;
	vm->probe_dead = 0;
	vm->probe_timer = false;
	vm->halted.why = GUEST_RUNS;
	for (unsigned i = 0; i < vm->count; i++) {
		__atomic_store_n(&vm->vcpu[i].probe, 1, __ATOMIC_SEQ_CST);
		kick(&vm->vcpu[i]);
	}
	/* One that was just about to sleep, and not yet in the call that the kick interrupts. */
	wake_waiters(vm);
out:
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- the vCPU thread's side ---- */

void vcpu_name(unsigned idx, char out[VCPU_NAME_MAX])
{
	snprintf(out, VCPU_NAME_MAX, "kelvin-vcpu%u", idx);
}

void vcpu_hello(struct vcpu *v)
{
	struct vm *vm = v->vm;
	char name[VCPU_NAME_MAX];

	vcpu_name(v->idx, name);
	prctl(PR_SET_NAME, name);
	pthread_mutex_lock(&vm->lock);
	pthread_getcpuclockid(pthread_self(), &v->cpu_clock);
	__atomic_store_n(&v->tid, gettid(), __ATOMIC_RELEASE);
	pthread_mutex_unlock(&vm->lock);
}

enum prospect {
	MAY_WAKE,    /* idle until an interrupt */
	WILL_WAKE,   /* runs, or has armed its timer */
	HALTED,      /* with interrupts off */
	NOT_STARTED, /* waits for what only another vCPU can give */
};

static bool timer_armed(struct vcpu *v, const struct kvm_lapic_state *lapic)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} deadline = {.head = {.nmsrs = 1}, .entry = {.index = MSR_TSC_DEADLINE}};
	u32 lvt = lapic_reg(lapic, LVT_TIMER);

	if (lvt & LVT_MASKED)
		return false;
	if ((lvt & LVT_TIMER_MODE) != LVT_TIMER_DEADLINE)
		return lapic_reg(lapic, TIMER_COUNT);
	/* syscalls[V]: ioctl(KVM_GET_MSRS) */
	return kvm_call(v->fd, KVM_GET_MSRS, &deadline) == 1 && deadline.entry.data;
}

static enum prospect prospect(struct vcpu *v)
{
	bool pc = v->vm->chips == VM_CHIPS_PC;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp;
	struct kvm_regs regs;

	/* syscalls[V]: ioctl(KVM_GET_MP_STATE), ioctl(KVM_GET_REGS), ioctl(KVM_GET_LAPIC) */
	if (kvm_call(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return WILL_WAKE;
	if (mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return NOT_STARTED;
	if (mp.mp_state != KVM_MP_STATE_HALTED || kvm_call(v->fd, KVM_GET_REGS, &regs) < 0 ||
	    kvm_call(v->fd, KVM_GET_LAPIC, &lapic) < 0)
		return WILL_WAKE;
	if (!(regs.rflags & RFLAGS_IF))
		return pc && pc_wakes_halted(&lapic) && pc_ticks(v->vm) ? WILL_WAKE : HALTED;
	return timer_armed(v, &lapic) || (pc && pc_ticks(v->vm)) ? WILL_WAKE : MAY_WAKE;
}

/* Waits until no vCPU is in the guest. False: somebody wants them to park or leave, which those who
 * did not come yet do first. */
static bool meet(struct vm *vm)
{
	bool all;

	pthread_mutex_lock(&vm->lock);
	if (--vm->probe_inside == 0)
		pthread_cond_broadcast(&vm->turn);
	while (vm->probe_inside && vm->want == WANT_RUN)
		pthread_cond_wait(&vm->turn, &vm->lock);
	all = !vm->probe_inside;
	pthread_mutex_unlock(&vm->lock);
	return all;
}

/* Answers a probe. The last answer, if all say dead, ends the guest. */
static void answer_probe(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct end_report r;
	enum prospect p = meet(vm) ? prospect(v) : WILL_WAKE;
	bool over;

	if (p == HALTED)
		vcpu_report(v, GUEST_HALTED, &r);
	pthread_mutex_lock(&vm->lock);
	__atomic_store_n(&v->probe, 0, __ATOMIC_SEQ_CST);
	v->probed_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	if (p == HALTED && !vm->halted.why)
		vm->halted = r;
	vm->probe_dead += p >= HALTED;
	vm->probe_timer |= p == WILL_WAKE;
	over = --vm->probe_left == 0 && vm->probe_dead == vm->count && vm->halted.why;
	if (!vm->probe_left)
		vm->probed = !over;
	pthread_mutex_unlock(&vm->lock);
	if (over)
		guest_over(v, &vm->halted);
}

bool vcpu_attend(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool leave;

	if (__atomic_load_n(&v->probe, __ATOMIC_SEQ_CST))
		answer_probe(v);
	pthread_mutex_lock(&vm->lock);
	while (vm->want == WANT_PARK) {
		v->clock_paused |= vm->epoch != 0;
		if (v->acked != vm->epoch) {
			v->acked = vm->epoch;
			if (++vm->parked < vm->count)
				continue;
			pthread_mutex_unlock(&vm->lock);
			vm->ops->parked(vm->ctx);
			pthread_mutex_lock(&vm->lock);
			continue;
		}
		pthread_cond_wait(&vm->turn, &vm->lock);
	}
	leave = vm->want == WANT_LEAVE;
	pthread_mutex_unlock(&vm->lock);
	if (v->clock_paused && !leave) {
		/* Tells the guest's watchdogs who was late. Fails without kvm-clock.
		 * syscalls[V]: ioctl(KVM_KVMCLOCK_CTRL) */
		(void)ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0ul);
		v->clock_paused = false;
	}
	return !leave;
}

void guest_over(struct vcpu *v, const struct end_report *r)
{
	struct vm *vm = v->vm;
	bool first;

	pthread_mutex_lock(&vm->lock);
	first = !vm->ended;
	vm->ended = true;
	if (vm->want != WANT_LEAVE)
		set_want(vm, WANT_LEAVE);
	pthread_mutex_unlock(&vm->lock);
	if (first)
		vm->ops->ended(vm->ctx, r);
}

void vcpu_leave(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool tell;

	pthread_mutex_lock(&vm->lock);
	__atomic_store_n(&v->cpu_final_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID), __ATOMIC_RELEASE);
	__atomic_store_n(&v->tid, 0, __ATOMIC_RELEASE);
	tell = ++vm->left == vm->count && !vm->ended;
	vm->ended |= tell;
	pthread_mutex_unlock(&vm->lock);
	if (tell)
		vm->ops->ended(vm->ctx, &(struct end_report){.why = GUEST_STOPPED, .vcpu = v->idx});
}
