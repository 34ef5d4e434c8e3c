/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_int.h - what the files of vcpu/ share. Nothing outside this folder (and its unit tests)
 * includes it.
 *
 * vm.c builds, boots and takes apart; run.c is the vCPU thread; park.c starts, pauses, stops and
 * probes the threads; state.c saves and loads through KVM what codec.c encodes and checks; cpuid.c
 * and msr.c hold the policy, with cpu_template.c, cpuid_deps.c and topology.c; ioapic.c and regs.c
 * are plain data handling.
 */
#ifndef KELVIN_VCPU_INT_H
#define KELVIN_VCPU_INT_H

#include <linux/kvm.h>
#include <pthread.h>
#include <time.h>

#include "monitor/base/spin.h"
#include "vcpu/vm.h"

/* ---- CPUID (cpuid.c) ---- */

#define CPUID_MAX 256u /* KVM's own limit */

struct cpuid_table {
	struct kvm_cpuid2 head; /* head.nent entries are valid */
	struct kvm_cpuid_entry2 entry[CPUID_MAX];
};

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* Executes CPUID, or plays a host in a test. */
typedef void (*cpuid_fn)(u32 leaf, u32 sub, u32 out[4]);
void cpuid_native(u32 leaf, u32 sub, u32 out[4]);

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *t, u32 leaf, u32 sub);
/* The entry for @leaf, new and zero if there was none; NULL when the table is full. */
struct kvm_cpuid_entry2 *cpuid_make(struct cpuid_table *t, u32 leaf, u32 sub, u32 flags);
u32 *cpuid_reg_of(struct kvm_cpuid_entry2 *c, enum cpuid_reg reg);
/* 0 where there is no such leaf. */
u32 cpuid_value(struct cpuid_table *t, u32 leaf, u32 sub, enum cpuid_reg reg);
/* Filters what KVM supports into what our guests see; the same for every vCPU. */
void cpuid_policy(struct cpuid_table *t, unsigned vcpus, u32 tsc_khz);

/* Whether the bits of this register are features that a restore compares. */
bool cpuid_is_feature_word(u32 leaf, u32 sub, enum cpuid_reg reg);
/* Those of them that are no matter of the host. */
u32 cpuid_always(u32 leaf, u32 sub, enum cpuid_reg reg);
/* Adds the names of @bits to @list, after a comma if it is not empty; what does not fit is left
 * out. A bit without a name is told by its place. */
void cpuid_add_names(char *list, size_t cap, u32 leaf, u32 sub, enum cpuid_reg reg, u32 bits);

/* ---- consistency (cpuid_deps.c) ---- */

/* Takes out what stands on features that are not there; sizes of leaf 0xd follow. */
void cpuid_settle(struct cpuid_table *t);

/* ---- topology (topology.c) ---- */

/* One package of @vcpus cores, wherever CPUID tells of such things. */
void cpuid_set_topology(struct cpuid_table *t, unsigned vcpus);
/* Writes the APIC id of vCPU @idx wherever CPUID tells it. */
void cpuid_set_id(struct cpuid_table *t, unsigned idx);

/* Asks KVM what it supports; for the slow path of cpuid_check(). */
typedef int (*cpuid_ask)(void *ctx, struct cpuid_table *ret, struct err *e);
/* Whether a guest that saw @saved can go on here; -ENOTSUP names what is missing. */
int cpuid_check(struct cpuid_table *saved, cpuid_fn host, cpuid_ask ask, void *ctx, struct err *e);
/* "AuthenticAMD family 25 model 1 stepping 1: fpu, ..."; cut, with "...", to fit @cap. */
void cpuid_describe(struct cpuid_table *t, char *out, size_t cap);

/* ---- MSRs (msr.c) ---- */

#define LVT_TIMER          0x320u /* in the local APIC page */
#define LVT_MASKED         (1u << 16)
#define LVT_TIMER_MODE     (3u << 17)
#define LVT_TIMER_DEADLINE (2u << 17)
#define TIMER_COUNT        0x390u

#define MSR_MAX          512u
#define MSR_TSC          0x10u
#define MSR_ARCH_CAPS    0x10au
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_MISC_ENABLE  0x1a0u
#define MSR_MTRR_DEFTYPE 0x2ffu
#define MSR_KVM_CLOCK    0x4b564d01u

static inline u32 lapic_reg(const struct kvm_lapic_state *l, unsigned reg)
{
	u32 value;

	__builtin_memcpy(&value, l->regs + reg, sizeof(value));
	return value;
}

struct msr_list {
	u32 count;
	u32 index[MSR_MAX];
};

struct msr_table {
	struct kvm_msrs head; /* head.nmsrs entries are valid */
	struct kvm_msr_entry entry[MSR_MAX];
};

int msr_list_get(int kvm_fd, struct msr_list *ret, struct err *e);
/* Reads all of @list that this vCPU has; the TSC deadline comes last. */
int msr_read_all(int vcpu_fd, const struct msr_list *list, struct msr_table *ret, struct err *e);
/*
 * Takes what @list does not have out of @t; refuses, with its number, a register whose value would
 * so be lost.
 */
int msr_check(struct msr_table *t, const struct msr_list *list, struct err *e);
/* Sets them in order. Uses @t up. */
int msr_write_all(int vcpu_fd, struct msr_table *t, struct err *e);
struct kvm_msr_entry *msr_find(struct msr_table *t, u32 index);
/* Takes @index out, if it is in. */
void msr_forget(struct msr_table *t, u32 index);

/* ---- what an operator wants of the processor (cpu_template.c); -ENOTSUP names what is not here */

/* Before cpuid_policy(): @t is what KVM supports. */
int cpu_template_apply(struct cpuid_table *t, const struct cpu_template *tpl, struct err *e);
/* After it: whether what was to be set is still there. */
int cpu_template_check(struct cpuid_table *t, const struct cpu_template *tpl, struct err *e);
int cpu_template_caps(int kvm_fd, const struct cpu_template *tpl, struct err *e);
/* Changes the registers of a vCPU that has its CPUID. */
int cpu_template_msrs(int vcpu_fd, const struct msr_list *list, const struct cpu_template *tpl,
	struct err *e);

/* ---- IOAPIC (ioapic.c) ---- */

#define IOAPIC_LEN     0x1000u
#define IOAPIC_ID_MASK 0x0f000000u
#define RTE_MASKED     (1ull << 16)
/* Vector, delivery and destination mode, polarity, trigger, mask, destination. */
#define RTE_WRITABLE   0xff0000000001afffull

struct ioapic {
	pthread_mutex_t lock; /* for writers */
	u32 id;
	u8 select;
	u64 rte[GSI_COUNT]; /* atomic: vm_irq() looks at the mask without the lock */
};

void ioapic_init(struct ioapic *io);
void ioapic_finish(struct ioapic *io);
/* One access of a vCPU at @off into the window; for a read @data holds all ones. True where it
 * changed what a pin sends: the routes are to be set anew. */
bool ioapic_mmio(struct ioapic *io, u64 off, u8 *data, unsigned len, bool write);
bool ioapic_masked(const struct ioapic *io, unsigned gsi);
/* The message that an edge on @gsi sends; false while the pin is masked. */
bool ioapic_msi(const struct ioapic *io, unsigned gsi, struct kvm_irq_routing_msi *ret);

/* ---- saved state (codec.c): plain data, no KVM calls ---- */

#define XSAVE_MIN   576u /* legacy area and header */
#define XSAVE_PLAIN 4096u
#define XSAVE_MAX   16384u

struct vm_state {
	u64 clock_ns;    /* kvm-clock */
	u64 realtime_ns; /* CLOCK_REALTIME at the same moment */
	u32 tsc_khz;
	u32 ioapic_id;
	u8 ioapic_select;
	u64 rte[GSI_COUNT];
};

struct cpu_state {
	u32 mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debug;
	bool has_xcr0;
	u64 xcr0;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	u32 xsave_len;
	u8 xsave[XSAVE_MAX] __attribute__((aligned(64)));
	struct cpuid_table cpuid;
	struct msr_table msrs;
};

void vm_state_encode(const struct vm_state *s, struct enc *out);
int vm_state_decode(struct vm_state *s, const void *data, size_t len, struct err *e);
void cpu_state_encode(const struct cpu_state *s, struct enc *out);
int cpu_state_decode(struct cpu_state *s, const void *data, size_t len, struct err *e);

/* ---- registers (regs.c) ---- */

void boot_registers(const struct boot_regs *b, struct kvm_regs *regs, struct kvm_sregs *sregs);
void dump_registers(const struct kvm_regs *r, const struct kvm_sregs *s, char *out, size_t cap);

/* ---- the machine (vm.c, run.c, park.c) ---- */

/* What the vCPU threads are to do. LEAVE is final. */
enum want { WANT_PARK, WANT_RUN, WANT_LEAVE };

struct vcpu {
	struct vm *vm;
	unsigned idx;
	int fd;
	struct kvm_run *run;
	struct cpuid_table *cpuid; /* what was set; cut to its entries. NULL before boot or load */
	pthread_t thread;
	bool started; /* thread is valid and not joined */
	bool has_cpus; /* it is to run on: */
	cpu_set_t cpus;

	/* Under vm->lock. */
	int tid;        /* also read atomically; 0: no thread (yet, or any more) */
	u32 acked;      /* vm->epoch of the last pause it has answered */
	u64 probed_ns;  /* CPU time at its last answer to, or look by, a probe */

	/* Its own thread, or the loop's while it is parked. */
	bool io_pending;   /* an access was answered; KVM completes it on the next entry */
	bool clock_paused; /* tell kvm-clock before the next entry */
	struct spin spin; /* in vcpu_wait() */
	u32 wake_seen;     /* vm->wake_seq at its last vcpu_wait() */
	enum guest_end asked; /* what the guest asked for: GUEST_RUNS, POWER_OFF or REBOOT */
	int status;           /* with POWER_OFF */

	/* Atomic. */
	u32 probe; /* asked to say whether it can ever run again */
	u64 cpu_final_ns;
	clockid_t cpu_clock; /* set before tid */
};

struct vm {
	int kvm_fd, vm_fd;
	size_t run_len; /* of the mapping of struct kvm_run */
	const struct vm_ops *ops;
	void *ctx;
	unsigned count;
	const struct cpu_template *cpu; /* for vm_boot(); the caller's, or NULL: all of the host */
	enum vm_chips chips;
	u32 tsc_khz;
	bool tsc_scaled; /* tsc_khz is not the host's: vcpu_load() sets it */
	u64 away_ns;     /* restored: how long ago the save was */
	struct ioapic ioapic; /* with VM_CHIPS_PC only its lock: for pc_pulse() */
	int irq_fd[GSI_COUNT]; /* irqfd of a pin, or -1 */

	pthread_mutex_t lock;
	pthread_cond_t turn; /* want or epoch changed */
	u32 want;            /* written under lock, read atomically */
	u32 epoch;           /* counts vm_pause() */
	unsigned parked;     /* vCPUs that answered this epoch */
	unsigned left;       /* threads that ended */
	bool ended;          /* vm_ops.ended was called or must not be */
	unsigned probe_inside; /* asked, and not out of the guest yet */
	unsigned probe_left; /* answers outstanding */
	unsigned probe_dead; /* answers that said "never again" */
	bool probe_timer;    /* an answer said "when my timer fires" */
	struct end_report halted; /* of the first vCPU that said it halted for good */
	bool probed;         /* the last probe found the guest alive */

	/* Atomic: what vcpu_wait() sleeps on. */
	u32 wake_seq;
	u32 waiters;
	u32 timed_waiters; /* those of them that wake up by themselves */

	struct vcpu vcpu[];
};

/* ---- KVM's own chips (pc.c) ---- */
int pc_create(struct vm *vm, struct err *e);
/* An edge on the pins of @gsi: it is in a local APIC, or pending in a chip, when this returns. */
void pc_pulse(struct vm *vm, unsigned gsi);
/* vm_signal() without its waking of waiters. */
bool pc_signal(struct vm *vm, unsigned gsi);
/* Whether the PIT may still raise an interrupt by itself; true where that cannot be known. */
bool pc_ticks(struct vm *vm);
/* Whether the PIT may wake a vCPU that halted with interrupts off: it can be made an NMI. */
bool pc_wakes_halted(const struct kvm_lapic_state *lapic);

/* ioctl() that goes on after a signal. */
int kvm_call(int fd, unsigned long request, void *arg);
/* Gives KVM the messages of all unmasked pins. Any thread. */
int vm_set_routes(struct vm *vm);
/* What KVM supports on this host. Takes KVM 0.3..0.5 ms. */
int vm_supported_cpuid(struct vm *vm, struct cpuid_table *ret, struct err *e);
/* Sets vm->tsc_khz to the host's. */
int vm_host_tsc(struct vm *vm, struct err *e);
/* Sets CPUID and keeps a copy for vcpu_save(). */
int vcpu_set_cpuid(struct vcpu *v, const struct cpuid_table *t, struct err *e);
/* Leaves the registers where KVM takes them from on the next entry: saves a call. Only for a vCPU
 * that runs or halts: one that waits for its start would be overwritten after it. */
void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *regs);

/* The vCPU thread. */
void *vcpu_thread(void *arg);
/* Puts the handler of the kick signal in place. */
int kick_install(struct err *e);

/* park.c, called by the vCPU thread. True: enter the guest; false: leave. */
bool vcpu_attend(struct vcpu *v);
/* Nothing is asked of this vCPU but to run. */
static inline bool vcpu_undisturbed(const struct vcpu *v)
{
	return __atomic_load_n(&v->vm->want, __ATOMIC_SEQ_CST) == WANT_RUN &&
		!__atomic_load_n(&v->probe, __ATOMIC_SEQ_CST);
}
void vcpu_hello(struct vcpu *v);
void vcpu_leave(struct vcpu *v);
/* The guest ended: tells vm_ops, if this is the first to say so, and makes all threads leave. */
void guest_over(struct vcpu *v, const struct end_report *r);
/* Fills @r with the registers; v's own thread. */
void vcpu_report(struct vcpu *v, enum guest_end why, struct end_report *r);
/* Asks all threads to leave without vm_ops.ended, and joins them. */
void vm_join(struct vm *vm);
/* Ends every sleep in vcpu_wait(). */
void wake_waiters(struct vm *vm);

#endif
