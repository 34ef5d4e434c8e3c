/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs.c - the registers a guest starts with, and registers as text.
 *
 * Two ways in. BOOT_LINUX64 is the 64-bit entry of the Linux boot protocol, with the register
 * values and stack that unikernels written for Firecracker have compiled in. BOOT_PVH is the entry
 * of the Xen PVH ABI: 32-bit protected mode, paging off, flat segments, ebx = start info.
 */
#include "vcpu/vcpu_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CR0_PE   (1ull << 0)
#define CR0_ET   (1ull << 4)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

#define RFLAGS_RESERVED 0x2ull
#define BOOT_STACK_GPA  0x8ff0ull
/* Where reset puts the local APIC: enabled, boot processor. */
#define APIC_BASE_BSP   (LAPIC_GPA | 0x900)

/* The first four descriptors at gdt_gpa: null, code, data, task. */
#define SEL_CODE  0x08u
#define SEL_DATA  0x10u
#define SEL_TSS   0x18u
#define GDT_LIMIT (4 * 8 - 1)
#define IDT_LIMIT 7

#define TYPE_CODE 0xbu /* execute, read, accessed */
#define TYPE_DATA 0x3u /* read, write, accessed */
#define TYPE_TSS  0xbu /* busy */
#define TYPE_LDT  0x2u

static struct kvm_segment flat(u16 selector, u8 type)
{
	return (struct kvm_segment){.limit = UINT32_MAX, .selector = selector, .type = type,
		.present = 1, .s = 1, .g = 1, .db = 1};
}

void boot_registers(const struct boot_regs *b, struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	struct kvm_segment data = flat(SEL_DATA, TYPE_DATA);

	/* By PVH there is no stack, but kernels are seen that call before they have their own. */
	*regs = (struct kvm_regs){
		.rip = b->rip, .rflags = RFLAGS_RESERVED, .rsp = BOOT_STACK_GPA};
	*sregs = (struct kvm_sregs){
		.cs = flat(SEL_CODE, TYPE_CODE),
		.ds = data, .es = data, .fs = data, .gs = data, .ss = data,
		.tr = {.limit = 0x67, .selector = SEL_TSS, .type = TYPE_TSS, .present = 1},
		.ldt = {.type = TYPE_LDT, .unusable = 1},
		.gdt = {.base = b->gdt_gpa, .limit = GDT_LIMIT},
		.idt = {.base = b->idt_gpa, .limit = IDT_LIMIT},
		.cr0 = CR0_PE | CR0_ET,
		.apic_base = APIC_BASE_BSP,
	};
	if (b->mode == BOOT_PVH) {
		regs->rbx = b->info_gpa;
		if (!b->gdt_gpa)
			sregs->gdt.limit = 0;
		if (!b->idt_gpa)
			sregs->idt.limit = 0;
		return;
	}
	regs->rsi = b->info_gpa;
	regs->rbp = BOOT_STACK_GPA;
	sregs->cs.l = 1;
	sregs->cs.db = 0;
	sregs->cr0 |= CR0_PG;
	sregs->cr3 = b->cr3_gpa;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
}

/* Appends to a text of fixed size; what does not fit is cut. */
__attribute__((format(printf, 4, 5)))
static size_t put(char *out, size_t cap, size_t at, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (at >= cap)
		return at;
	va_start(ap, fmt);
	n = vsnprintf(out + at, cap - at, fmt, ap);
	va_end(ap);
	return n < 0 ? at : at + (size_t)n;
}

void dump_registers(const struct kvm_regs *r, const struct kvm_sregs *s, char *out, size_t cap)
{
	const struct {
		const char *name;
		const struct kvm_segment *seg;
	} segs[] = {{"cs", &s->cs}, {"ss", &s->ss}, {"ds", &s->ds}, {"es", &s->es},
		{"fs", &s->fs}, {"gs", &s->gs}, {"tr", &s->tr}};
	size_t n = 0;

	n = put(out, cap, n, "rip %016llx  rflags %08llx\n", r->rip, r->rflags);
	n = put(out, cap, n, "rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx\n", r->rax, r->rbx,
		r->rcx, r->rdx);
	n = put(out, cap, n, "rsi %016llx  rdi %016llx  rbp %016llx  rsp %016llx\n", r->rsi, r->rdi,
		r->rbp, r->rsp);
	n = put(out, cap, n, "r8  %016llx  r9  %016llx  r10 %016llx  r11 %016llx\n", r->r8, r->r9,
		r->r10, r->r11);
	n = put(out, cap, n, "r12 %016llx  r13 %016llx  r14 %016llx  r15 %016llx\n", r->r12, r->r13,
		r->r14, r->r15);
	n = put(out, cap, n, "cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  cr8 %llx\n", s->cr0,
		s->cr2, s->cr3, s->cr4, s->cr8);
	n = put(out, cap, n, "efer %04llx  apic_base %08llx\n", s->efer, s->apic_base);
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		const struct kvm_segment *g = segs[i].seg;

		n = put(out, cap, n, "%s %04x base %016llx limit %08x type %x dpl %u%s%s%s%s\n",
			segs[i].name, g->selector, g->base, g->limit, g->type, g->dpl,
			g->present ? " present" : "", g->l ? " long" : "", g->db ? " big" : "",
			g->unusable ? " unusable" : "");
	}
	n = put(out, cap, n, "gdt %016llx limit %04x\n", s->gdt.base, s->gdt.limit);
	put(out, cap, n, "idt %016llx limit %04x\n", s->idt.base, s->idt.limit);
}
