/* SPDX-License-Identifier: Apache-2.0 */
/*
 * second.c - starts a second processor by INIT and SIPI.
 *
 * It gets what the first one has: descriptor tables, page tables, control registers. Only the task
 * register is left out, because nothing is to enter ring 0 there: an exception on that processor
 * ends the VM as a triple fault.
 */
#include "second.h"

#define TRAMPOLINE 0x8000 /* a page below 1 MiB that monitors leave alone */
#define PAGE       4096

#define MSR_APIC_BASE    0x1b
#define APIC_BASE_ENABLE 0xc00 /* on, in x2APIC mode */
#define MSR_X2APIC_ICR   0x830
#define MSR_EFER         0xc0000080
#define ICR_INIT         0x4500
#define ICR_STARTUP      0x4600
#define SECOND_ID        1ull

#define CPUID_1_ECX_X2APIC (1u << 21)
#define EFER_LMA           (1u << 10) /* set by the processor itself */

/* As second_entry.S knows it. */
struct values {
	u8 gdt[10], idt[10];
	u32 padding;
	u64 cr3, cr4, efer, cr0;
} __attribute__((packed));

extern u8 second_entry[], second_entry_end[], second_values[];
void second_main(void);

struct values second_ready;
static void (*second_fn)(void *arg);
static void *second_arg;
static volatile bool alive, done;

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
static void read_values(u64 arg, struct ring0_frame *frame)
{
	struct values *v = &second_ready;

	(void)arg;
	(void)frame;
	__asm__ volatile("sgdt %0" : "=m"(v->gdt));
	__asm__ volatile("sidt %0" : "=m"(v->idt));
	__asm__ volatile("movq %%cr3, %0" : "=r"(v->cr3));
	__asm__ volatile("movq %%cr4, %0" : "=r"(v->cr4));
	__asm__ volatile("movq %%cr0, %0" : "=r"(v->cr0));
	v->efer = rdmsr(MSR_EFER) & ~EFER_LMA;
}

/* In ring 0. */
static void send(u64 icr, struct ring0_frame *frame)
{
	(void)frame;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
	wrmsr(MSR_X2APIC_ICR, SECOND_ID << 32 | icr);
}

/* Entered by the iretq in second_entry.S. */
void second_main(void)
{
	alive = true;
	second_fn(second_arg);
	done = true;
	for (;;)
		kit_pause();
}

bool second_start(void (*fn)(void *arg), void *arg)
{
	u8 *page = (u8 *)TRAMPOLINE;
	u32 eax = 1, ebx, ecx = 0, edx;
	u64 end;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if (!(ecx & CPUID_1_ECX_X2APIC))
		return false;
	second_fn = fn;
	second_arg = arg;
	kit_ring0(read_values, 0);
	memcpy(page, second_entry, (size_t)(second_entry_end - second_entry));
	memcpy(page + (second_values - second_entry), &second_ready, sizeof(second_ready));
	kit_ring0(send, ICR_INIT);
	kit_ring0(send, ICR_STARTUP | TRAMPOLINE / PAGE);
	end = kit_cycles() + 500 * TICKS_MS;
	while (!alive && kit_cycles() < end)
		kit_pause();
	return alive;
}

bool second_done(void)
{
	return done;
}
