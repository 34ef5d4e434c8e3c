/* SPDX-License-Identifier: Apache-2.0 */
/* irq.c - see irq.h. Local APIC by MSRs (x2APIC), from ring 0; IOAPIC by MMIO, from ring 3. */
#include "irq.h"

#define CPUID_1_ECX_X2APIC (1u << 21)

#define MSR_APIC_BASE       0x1b
#define APIC_BASE_ENABLE    0xc00 /* on, in x2APIC mode */
#define MSR_X2APIC_ID       0x802
#define MSR_X2APIC_TPR      0x808
#define MSR_X2APIC_SPURIOUS 0x80f
#define MSR_X2APIC_TIMER    0x832
#define MSR_X2APIC_LINT0    0x835
#define MSR_X2APIC_COUNT    0x838
#define MSR_X2APIC_DIVIDE   0x83e
#define SPURIOUS_ENABLE     0x100
#define LVT_MASKED          0x10000
#define DIVIDE_BY_1         0xb

#define IOAPIC        0xFEC00000
#define IOAPIC_SELECT 0x00
#define IOAPIC_WINDOW 0x10
#define IOAPIC_ENTRY  0x10 /* first register of the table, two for each pin */

static u32 apic_id;

static void wrmsr(u32 msr, u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static u64 rdmsr(u32 msr)
{
	u32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return low | (u64)high << 32;
}

/* In ring 0. */
static void enable(u64 arg, struct ring0_frame *frame)
{
	(void)arg;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
	wrmsr(MSR_X2APIC_TPR, 0);
	/* Behind LINT0 is the PIC, where there is one: nobody told it its vectors. */
	wrmsr(MSR_X2APIC_LINT0, LVT_MASKED);
	wrmsr(MSR_X2APIC_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
	wrmsr(MSR_X2APIC_DIVIDE, DIVIDE_BY_1);
	wrmsr(MSR_X2APIC_TIMER, VECTOR_TIMER);
	apic_id = (u32)rdmsr(MSR_X2APIC_ID);
	frame->rflags |= RFLAGS_IF;
}

/* In ring 0. */
static void start_timer(u64 ticks, struct ring0_frame *frame)
{
	(void)frame;
	wrmsr(MSR_X2APIC_COUNT, ticks);
}

bool kit_irq_init(void)
{
	u32 eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx & CPUID_1_ECX_X2APIC))
		return false;
	kit_ring0(enable, 0);
	return true;
}

static void ioapic(u32 reg, u32 value)
{
	kit_store32(IOAPIC + IOAPIC_SELECT, reg);
	kit_store32(IOAPIC + IOAPIC_WINDOW, value);
}

void kit_irq_device(u32 gsi, u8 vector)
{
	ioapic(IOAPIC_ENTRY + 2 * gsi + 1, apic_id << 24);
	ioapic(IOAPIC_ENTRY + 2 * gsi, vector); /* fixed, physical, high, edge, not masked */
}

void kit_irq_timer(u32 ticks)
{
	kit_ring0(start_timer, ticks);
}
