/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h - a KVM virtual machine and its vCPU threads: every KVM ioctl is behind this header.
 *
 * Built in the order KVM charges least for: VM, memory slots, irqchip, vCPUs (vm_create),
 * then ioeventfds (vm_add_device), CPUID and registers or saved state, then threads.
 *
 * Threads: the loop thread builds, starts, pauses, saves and stops. One thread a vCPU runs
 * KVM_RUN and calls vm_ops. vm_irq() may be called by any thread. Pausing and stopping are
 * asynchronous: the loop is told through vm_ops and never waits for a vCPU.
 */
#ifndef KELVIN_VCPU_VM_H
#define KELVIN_VCPU_VM_H

#include <sched.h>

#include "memory/memory.h"
#include "monitor/base/bytes.h"
#include "vcpu/cpu_template.h"

#define VCPU_MAX      32u
#define GSI_COUNT     24u /* pins of the IOAPIC */
#define IOAPIC_GPA    0xFEC00000ull
#define LAPIC_GPA     0xFEE00000ull

struct vm;
struct vcpu;

/* Why a guest ended. X-macro: enum, name for JSON, sentence for people. */
#define GUEST_ENDS(X)                                                                              \
	X(POWER_OFF, "power-off", "the guest powered off")                                         \
	X(REBOOT, "reboot", "the guest asked for a reboot")                                        \
	X(TRIPLE_FAULT, "triple-fault", "the guest triple-faulted")                                \
	X(HALTED, "halted", "the guest halted with interrupts off, so nothing can wake it")        \
	X(KVM_INTERNAL, "kvm-internal-error", "KVM could not go on with this guest")               \
	X(FAIL_ENTRY, "fail-entry", "the processor refused the guest's state")                     \
	X(UNKNOWN_EXIT, "unknown-exit", "KVM exited for a reason kelvin does not know")            \
	X(RUN_ERROR, "run-error", "KVM_RUN failed")                                                \
	X(PANIC, "kernel-panic", "the guest's kernel panicked")                                    \
	X(STOPPED, "stopped", "stopped by the operator")

/* PANIC is never reported by this folder: whoever reads the guest's console can tell. */
enum guest_end {
	GUEST_RUNS, /* has not ended */
#define X(id, name, text) GUEST_##id,
	GUEST_ENDS(X)
#undef X
};

const char *guest_end_name(enum guest_end why); /* "triple-fault" */
const char *guest_end_text(enum guest_end why);

struct end_report {
	enum guest_end why;
	int status;        /* exit status asked for by the guest (POWER_OFF), else 0 */
	unsigned vcpu;     /* which one saw it */
	char detail[192];  /* one line: suberror, hardware reason ...; may be empty */
	char regs[1536];   /* register dump, several lines; empty for ends that were asked for */
};

/* What vCPU threads call. ctx is the one given to vm_create(). None may block for long. */
struct vm_ops {
	/* The first call of each vCPU's thread, while it is parked still: what the thread gives up
	 * before it runs a guest. An error ends the guest. May be NULL. */
	int (*begin)(void *ctx, struct err *e);
	/* An access to an address that is neither RAM nor the IOAPIC. For a read @data comes as
	 * all ones. Mandatory. */
	void (*mmio)(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write);
	/* One access to a port; string instructions come one by one. Reads come as all ones. */
	void (*pio)(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write);
	/* The last running vCPU has parked after vm_pause(): the state may be saved now. Once for
	 * each vm_pause(), unless vm_resume(), vm_stop() or the guest's end overtook it. */
	void (*parked)(void *ctx);
	/* The guest is over; called once, by the first vCPU that saw it (or by the last one to
	 * leave after vm_stop()). The others are leaving by themselves. */
	void (*ended)(void *ctx, const struct end_report *r);
};

/* What takes interrupts between the devices and the local APICs, which are KVM's. */
enum vm_chips {
	VM_CHIPS_LEAN, /* our edge-only IOAPIC, and no other timer than the local APIC's */
	VM_CHIPS_PC,   /* KVM's PIC, IOAPIC and PIT (pc.c) */
};

/*
 * Opens /dev/kvm and makes a VM over @mem with @vcpus vCPUs (1..VCPU_MAX). Errors name /dev/kvm
 * and what to do (no such device: load kvm_intel/kvm_amd; permission: group kvm).
 */
int vm_create(struct vm **ret, const struct mem *mem, unsigned vcpus, enum vm_chips chips,
	const struct vm_ops *ops, void *ctx, struct err *e);
/* Ends threads that run (kick and join), closes everything. Slow (KVM waits for grace periods):
 * answer clients first. NULL is fine. */
void vm_destroy(struct vm **vm);

/* Stores of 4 bytes to @notify_gpa signal @kick_fd without an exit; vm_irq(vm, gsi) works from
 * now on. Before vm_start(). */
int vm_add_device(struct vm *vm, u64 notify_gpa, int kick_fd, unsigned gsi, struct err *e);

/* The interrupt alone, for a device without queues. Before vm_start(). */
int vm_add_irq(struct vm *vm, unsigned gsi, struct err *e);

/* Raises edge interrupt @gsi, which was added: wakes a vCPU in vcpu_wait(), and, where the guest
 * unmasked the pin, injects it before it wakes that one. Any thread. */
void vm_irq(struct vm *vm, unsigned gsi);

/*
 * Raises edge interrupt @gsi, which need not have been added, once and slowly: it is pending in the
 * local APIC when this returns, so a vCPU that runs later takes it before its next instruction.
 * False: the guest has that pin masked, so nobody there listens. Any thread.
 */
bool vm_signal(struct vm *vm, unsigned gsi);

/* How vCPU 0 starts. Everything not named is zero or the architecture's reset value. */
enum boot_mode {
	BOOT_PVH,     /* 32-bit protected mode, flat, paging off, EBX = info (PVH ABI) */
	BOOT_LINUX64, /* 64-bit, page tables at 0x9000, GDT at 0x500, RSI = info (boot protocol) */
};
struct boot_regs {
	enum boot_mode mode;
	u64 rip;
	u64 info_gpa; /* PVH start info, or the zero page */
	u64 gdt_gpa, idt_gpa;
	u64 cr3_gpa; /* BOOT_LINUX64 only */
};
/* What vm_boot() shows of the processor; @t outlives it. Default: what the host has. */
void vm_set_cpu(struct vm *vm, const struct cpu_template *t);
/* CPUID by template and policy (see cpuid.c), reset MSRs, registers. Refuses by name what the
 * template wants and the host lacks. The tables are in guest RAM already. */
int vm_boot(struct vm *vm, const struct boot_regs *r, struct err *e);

/* How long vcpu_wait() looks, at most, before it sleeps; 0 (the default): not. Before vm_start() */
void vm_set_poll(struct vm *vm, u64 max_ns);
/* The processors that vCPU @idx may run on; default: those of whoever starts it. Before
 * vm_start(). */
void vm_set_affinity(struct vm *vm, unsigned idx, const cpu_set_t *cpus);
/* Threads, named as vcpu_name() says; the vCPUs begin parked. No descriptor may be opened in bulk
 * after this. */
int vm_start(struct vm *vm, struct err *e);
void vm_resume(struct vm *vm);  /* parked -> running; may come before vm_start() */
void vm_pause(struct vm *vm);   /* running -> parked; vm_ops.parked says when */
/* any -> leaving, for good; vm_ops.ended says when, if vm_start() was called */
void vm_stop(struct vm *vm);

/* ---- for vm_ops.mmio, on the vCPU's own thread ---- */
/* Sleeps until a device raised an interrupt since this vCPU's last wait, @ns passed, or the vCPU is
 * to park or leave. May return early. */
void vcpu_wait(struct vcpu *v, u64 ns);
/* Ends the guest: GUEST_POWER_OFF with @status. */
void vcpu_power_off(struct vcpu *v, int status);
/* Ends the guest: GUEST_REBOOT. */
void vcpu_reboot(struct vcpu *v);
unsigned vcpu_index(const struct vcpu *v);

/*
 * Asks whether the guest can ever run again. Loop thread. IDLE: every vCPU sleeps but can be woken
 * (or sits in vcpu_wait()): no need to ask again until something happens. BUSY: some vCPU used CPU
 * time since the last probe, or will when the timer it has armed fires. PROBING: the vCPUs have
 * been asked; if all of them halted with interrupts off, the guest ends with GUEST_HALTED, else ask
 * again later.
 */
enum vm_probe { VM_PROBE_BUSY, VM_PROBE_IDLE, VM_PROBE_PROBING };
enum vm_probe vm_probe_halt(struct vm *vm);

/* CPU time all vCPU threads used, ns. */
u64 vm_cpu_time_ns(const struct vm *vm);
/* Of one thread: its CPU time in ns, its id (0: none yet, or none any more), its name. */
u64 vcpu_time_ns(const struct vm *vm, unsigned idx);
int vcpu_tid(const struct vm *vm, unsigned idx);
#define VCPU_NAME_MAX 16u /* with the 0 at its end; the kernel's own limit */
void vcpu_name(unsigned idx, char out[VCPU_NAME_MAX]);
/* "AuthenticAMD family 25 model 1 stepping 1": what the guest sees. Cut to fit @cap. */
void vm_cpu_model(const struct vm *vm, char *out, size_t cap);

/*
 * State. All vCPUs parked (or never started). vm_save() writes the VM's part (kvm-clock, IOAPIC)
 * and each vCPU's (CPUID, registers, MSRs, XSAVE, LAPIC, events, mp_state) in one blob each.
 */
int vm_save(struct vm *vm, struct enc *out, struct err *e);
int vcpu_save(struct vm *vm, unsigned idx, struct enc *out, struct err *e);
/* KVM's interrupt chips and PIT; of a VM with VM_CHIPS_PC, after its vCPUs. */
int vm_save_pc(struct vm *vm, struct enc *out, struct err *e);
/*
 * Loads into a VM fresh from vm_create() (no vm_boot()). @data is hostile: everything is parsed and
 * checked before the first ioctl. vcpu_load() refuses, naming the feature ("avx512f"), state made
 * on a CPU that had what this host lacks.
 * Order: vm_load(), then vcpu_load() for each, vm_load_pc() where there are these chips (what they
 * have pending goes to the local APICs at once), then vm_start().
 */
int vm_load(struct vm *vm, const void *data, size_t len, struct err *e);
int vcpu_load(struct vm *vm, unsigned idx, const void *data, size_t len, struct err *e);
int vm_load_pc(struct vm *vm, const void *data, size_t len, struct err *e);
/* Only parses and checks, without a VM: for inspect and verify. */
int vm_check(const void *data, size_t len, struct err *e);
int vm_check_pc(const void *data, size_t len, struct err *e);
int vcpu_check(const void *data, size_t len, struct err *e);

/* A readable list, cut to fit @cap, of what CPU a saved vCPU needs: "AuthenticAMD family 25
 * ..." and feature names. */
int vcpu_describe(const void *data, size_t len, char *out, size_t cap, struct err *e);

#endif
