/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec.c - saved VM and vCPU state as bytes, and back.
 *
 * Every field is written by itself, little-endian, in the order of the functions below; the local
 * APIC page and the XSAVE area are laid out by the architecture and go as they are.
 *
 * Trust: bytes to decode are hostile. Decoding checks all that can be told without KVM: lengths,
 * counts, duplicates, reserved bits, enums. What is left (register values) is what a guest could
 * have set by itself, or what KVM checks. Bytes that decode encode to the same bytes again.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <string.h>

#include "monitor/base/arith.h"

#define CLOCK_MAX   (1ull << 62) /* sums of two do not wrap */
#define TSC_KHZ_MAX 100000000u
#define EVENT_FLAGS                                                                                \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |                       \
		KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |                             \
		KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

static int refuse(struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "saved CPU state: %s", what);
}

/* ---- VM ---- */

void vm_state_encode(const struct vm_state *s, struct enc *out)
{
	enc_u64(out, s->clock_ns);
	enc_u64(out, s->realtime_ns);
	enc_u32(out, s->tsc_khz);
	enc_u32(out, s->ioapic_id);
	enc_u8(out, s->ioapic_select);
	for (unsigned i = 0; i < GSI_COUNT; i++)
		enc_u64(out, s->rte[i]);
}

int vm_state_decode(struct vm_state *s, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);
	bool pins_ok = true;

	s->clock_ns = dec_u64(&d);
	s->realtime_ns = dec_u64(&d);
	s->tsc_khz = dec_u32(&d);
	s->ioapic_id = dec_u32(&d);
	s->ioapic_select = dec_u8(&d);
	for (unsigned i = 0; i < GSI_COUNT; i++) {
		s->rte[i] = dec_u64(&d);
		pins_ok &= !(s->rte[i] & ~RTE_WRITABLE);
	}
	if (!dec_done(&d))
		return err_set(e, -EINVAL, "saved VM state: wrong length %zu", len);
	if (s->clock_ns > CLOCK_MAX || s->realtime_ns > CLOCK_MAX)
		return err_set(e, -EINVAL, "saved VM state: a clock is out of range");
	if (!s->tsc_khz || s->tsc_khz > TSC_KHZ_MAX)
		return err_set(e, -EINVAL, "saved VM state: TSC of %u kHz", s->tsc_khz);
	if (s->ioapic_id & ~IOAPIC_ID_MASK || !pins_ok)
		return err_set(e, -EINVAL, "saved VM state: reserved IOAPIC bits are set");
	return 0;
}

/* ---- CPUID ---- */

static void cpuid_encode(const struct cpuid_table *t, struct enc *out)
{
	enc_u16(out, (u16)t->head.nent);
	for (u32 i = 0; i < t->head.nent; i++) {
		const struct kvm_cpuid_entry2 *c = &t->entry[i];

		enc_u32(out, c->function);
		enc_u32(out, c->index);
		enc_u32(out, c->flags);
		enc_u32(out, c->eax);
		enc_u32(out, c->ebx);
		enc_u32(out, c->ecx);
		enc_u32(out, c->edx);
	}
}

static int cpuid_decode(struct cpuid_table *t, struct dec *d, struct err *e)
{
	u16 n = dec_u16(d);

	if (!n || n > CPUID_MAX)
		return refuse(e, "CPUID entry count out of range");
	t->head = (struct kvm_cpuid2){.nent = n};
	for (u16 i = 0; i < n; i++) {
		struct kvm_cpuid_entry2 *c = &t->entry[i];

		*c = (struct kvm_cpuid_entry2){.function = dec_u32(d)};
		c->index = dec_u32(d);
		c->flags = dec_u32(d);
		c->eax = dec_u32(d);
		c->ebx = dec_u32(d);
		c->ecx = dec_u32(d);
		c->edx = dec_u32(d);
		if (c->flags & ~KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
			return refuse(e, "unknown CPUID flags");
		for (u16 j = 0; j < i; j++)
			if (t->entry[j].function == c->function && t->entry[j].index == c->index)
				return refuse(e, "the same CPUID entry twice");
	}
	return 0;
}

/* ---- registers ---- */

/* The general registers are one array of u64 in the kernel's structure, in this order. */
#define REGS(X)                                                                                    \
	X(rax) X(rbx) X(rcx) X(rdx) X(rsi) X(rdi) X(rsp) X(rbp) X(r8) X(r9) X(r10) X(r11) X(r12)   \
	X(r13) X(r14) X(r15) X(rip) X(rflags)
#define SEGMENTS(X) X(cs) X(ds) X(es) X(fs) X(gs) X(ss) X(tr) X(ldt)
#define CONTROLS(X) X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(efer) X(apic_base)

/* Attributes in one word, as VMX and SVM have them, and bit 16: unusable. */
static void segment_encode(const struct kvm_segment *s, struct enc *out)
{
	enc_u64(out, s->base);
	enc_u32(out, s->limit);
	enc_u16(out, s->selector);
	enc_u32(out, (u32)((s->type & 15) | (s->s & 1) << 4 | (s->dpl & 3) << 5 |
		(s->present & 1) << 7 | (s->avl & 1) << 12 | (s->l & 1) << 13 |
		(s->db & 1) << 14 | (s->g & 1) << 15 | (s->unusable & 1) << 16));
}

static bool segment_decode(struct kvm_segment *s, struct dec *d)
{
	u32 a;

	*s = (struct kvm_segment){.base = dec_u64(d)};
	s->limit = dec_u32(d);
	s->selector = dec_u16(d);
	a = dec_u32(d);
	s->type = a & 15;
	s->s = a >> 4 & 1;
	s->dpl = a >> 5 & 3;
	s->present = a >> 7 & 1;
	s->avl = a >> 12 & 1;
	s->l = a >> 13 & 1;
	s->db = a >> 14 & 1;
	s->g = a >> 15 & 1;
	s->unusable = a >> 16 & 1;
	return !(a & ~0x1f0ffu);
}

static void regs_encode(const struct cpu_state *s, struct enc *out)
{
#define X(f) enc_u64(out, s->regs.f);
	REGS(X)
#undef X
#define X(f) segment_encode(&s->sregs.f, out);
	SEGMENTS(X)
#undef X
	enc_u64(out, s->sregs.gdt.base);
	enc_u16(out, s->sregs.gdt.limit);
	enc_u64(out, s->sregs.idt.base);
	enc_u16(out, s->sregs.idt.limit);
#define X(f) enc_u64(out, s->sregs.f);
	CONTROLS(X)
#undef X
	for (unsigned i = 0; i < ARRAY_SIZE(s->sregs.interrupt_bitmap); i++)
		enc_u64(out, s->sregs.interrupt_bitmap[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(s->debug.db); i++)
		enc_u64(out, s->debug.db[i]);
	enc_u64(out, s->debug.dr6);
	enc_u64(out, s->debug.dr7);
	enc_u8(out, s->has_xcr0);
	enc_u64(out, s->xcr0);
}

static int regs_decode(struct cpu_state *s, struct dec *d, struct err *e)
{
	bool segments_ok = true;
	u8 has_xcr0;

#define X(f) s->regs.f = dec_u64(d);
	REGS(X)
#undef X
	s->sregs = (struct kvm_sregs){0};
#define X(f) segments_ok &= segment_decode(&s->sregs.f, d);
	SEGMENTS(X)
#undef X
	s->sregs.gdt.base = dec_u64(d);
	s->sregs.gdt.limit = dec_u16(d);
	s->sregs.idt.base = dec_u64(d);
	s->sregs.idt.limit = dec_u16(d);
#define X(f) s->sregs.f = dec_u64(d);
	CONTROLS(X)
#undef X
	for (unsigned i = 0; i < ARRAY_SIZE(s->sregs.interrupt_bitmap); i++)
		s->sregs.interrupt_bitmap[i] = dec_u64(d);
	s->debug = (struct kvm_debugregs){0};
	for (unsigned i = 0; i < ARRAY_SIZE(s->debug.db); i++)
		s->debug.db[i] = dec_u64(d);
	s->debug.dr6 = dec_u64(d);
	s->debug.dr7 = dec_u64(d);
	has_xcr0 = dec_u8(d);
	s->has_xcr0 = has_xcr0;
	s->xcr0 = dec_u64(d);
	if (!segments_ok)
		return refuse(e, "reserved segment attributes are set");
	if (has_xcr0 > 1 || (!has_xcr0 && s->xcr0))
		return refuse(e, "bad XCR0");
	return 0;
}

/* ---- events ---- */

#define EVENTS8(X)                                                                                 \
	X(exception.injected) X(exception.nr) X(exception.has_error_code) X(exception.pending)     \
	X(interrupt.injected) X(interrupt.nr) X(interrupt.soft) X(interrupt.shadow)                \
	X(nmi.injected) X(nmi.pending) X(nmi.masked)                                               \
	X(smi.smm) X(smi.pending) X(smi.smm_inside_nmi) X(smi.latched_init)                        \
	X(triple_fault.pending) X(exception_has_payload)

static void events_encode(const struct kvm_vcpu_events *v, struct enc *out)
{
	enc_u32(out, v->flags);
#define X(f) enc_u8(out, v->f);
	EVENTS8(X)
#undef X
	enc_u32(out, v->exception.error_code);
	enc_u32(out, v->sipi_vector);
	enc_u64(out, v->exception_payload);
}

static int events_decode(struct kvm_vcpu_events *v, struct dec *d, struct err *e)
{
	*v = (struct kvm_vcpu_events){.flags = dec_u32(d)};
#define X(f) v->f = dec_u8(d);
	EVENTS8(X)
#undef X
	v->exception.error_code = dec_u32(d);
	v->sipi_vector = dec_u32(d);
	v->exception_payload = dec_u64(d);
	if (v->flags & ~EVENT_FLAGS)
		return refuse(e, "unknown event flags");
	return 0;
}

/* ---- the rest ---- */

static void msrs_encode(const struct msr_table *t, struct enc *out)
{
	enc_u16(out, (u16)t->head.nmsrs);
	for (u32 i = 0; i < t->head.nmsrs; i++) {
		enc_u32(out, t->entry[i].index);
		enc_u64(out, t->entry[i].data);
	}
}

static int msrs_decode(struct msr_table *t, struct dec *d, struct err *e)
{
	u16 n = dec_u16(d);
	bool deadline = false;

	if (n > MSR_MAX)
		return refuse(e, "register count out of range");
	t->head = (struct kvm_msrs){.nmsrs = n};
	for (u16 i = 0; i < n; i++) {
		struct kvm_msr_entry *m = &t->entry[i];

		*m = (struct kvm_msr_entry){.index = dec_u32(d)};
		m->data = dec_u64(d);
		for (u16 j = 0; j < i; j++)
			if (t->entry[j].index == m->index)
				return refuse(e, "the same register twice");
		if (m->index == MSR_TSC && deadline)
			return refuse(e, "the TSC after its deadline");
		deadline |= m->index == MSR_TSC_DEADLINE;
	}
	return 0;
}

static bool mp_state_ok(u32 s)
{
	return s == KVM_MP_STATE_RUNNABLE || s == KVM_MP_STATE_UNINITIALIZED ||
		s == KVM_MP_STATE_INIT_RECEIVED || s == KVM_MP_STATE_HALTED ||
		s == KVM_MP_STATE_SIPI_RECEIVED;
}

void cpu_state_encode(const struct cpu_state *s, struct enc *out)
{
	cpuid_encode(&s->cpuid, out);
	enc_u32(out, s->mp_state);
	regs_encode(s, out);
	events_encode(&s->events, out);
	enc_bytes(out, s->lapic.regs, sizeof(s->lapic.regs));
	enc_u32(out, s->xsave_len);
	enc_bytes(out, s->xsave, s->xsave_len);
	msrs_encode(&s->msrs, out);
}

int cpu_state_decode(struct cpu_state *s, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);
	int r = cpuid_decode(&s->cpuid, &d, e);

	if (r)
		return r;
	s->mp_state = dec_u32(&d);
	if (!d.bad && !mp_state_ok(s->mp_state))
		return refuse(e, "unknown run state");
	r = regs_decode(s, &d, e);
	if (!r)
		r = events_decode(&s->events, &d, e);
	if (r)
		return r;
	dec_bytes(&d, s->lapic.regs, sizeof(s->lapic.regs));
	s->xsave_len = dec_u32(&d);
	if (s->xsave_len < XSAVE_MIN || s->xsave_len > XSAVE_MAX || s->xsave_len % 64)
		return refuse(e, d.bad ? "truncated" : "bad XSAVE length");
	dec_bytes(&d, s->xsave, s->xsave_len);
	r = msrs_decode(&s->msrs, &d, e);
	if (r)
		return r;
	return dec_done(&d) ? 0 : refuse(e, d.bad ? "truncated" : "bytes left over");
}

int vm_check(const void *data, size_t len, struct err *e)
{
	struct vm_state s;

	return vm_state_decode(&s, data, len, e);
}
