/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault - rings ready (not with ready=no), then dies in the way the command line says:
 *
 *	how=power status=N   powers off with status N
 *	how=return status=N  returns N from kit_main(): the same
 *	how=triple-fault     an exception without an IDT
 *	how=halt             cli; hlt in ring 0: never wakes
 *	how=ud               ud2: the kit powers off with 206
 *	how=pf               a store above 4 GiB, which is not mapped: 214
 *	how=gp               a privileged instruction in ring 3: 213
 *	how=de               a division by zero: 200
 *	how=ring0-ud         ud2 in ring 0: 206
 *	how=panic            says what Linux says when it panics, and then does as triple-fault
 *	how=panic-power      says that too, and powers off with 0
 *	how=reset-acpi       writes ACPI's reset register; 9 if that does nothing
 *	how=reset-port       0xfe to port 0x64, the keyboard controller's reset; 9 if that does nothing
 *	how=reset-cf9        6 to port 0xcf9, the chipset's reset; 9 if that does nothing
 *	how=spin             computes for ever
 *	how=wait             sleeps for ever
 *	how=hole             loads and stores where nothing is: 0 if loads give all ones, else 1
 *	how=ports            reads a port where nothing is: 0 if it gives all ones, else 1
 *	how=run-hole         runs code where no memory is: KVM gives up (internal error)
 *	how=storm            rings the doorbell for ever
 * Anything else: powers off with 2.
 */
#include "kit/kit.h"

#define HOLE       0xD0000000ull
#define ACPI_RESET 0xC0000012ull

static void halt(u64 arg, struct ring0_frame *frame)
{
	(void)arg;
	(void)frame;
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void triple_fault(u64 arg, struct ring0_frame *frame)
{
	static const u8 none[10];

	(void)arg;
	(void)frame;
	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}

static void invalid(u64 arg, struct ring0_frame *frame)
{
	(void)arg;
	(void)frame;
	__asm__ volatile("ud2");
}

static __attribute__((noreturn)) int do_power(void)
{
	kit_power((unsigned)kit_option_number("status", 0));
}

static int do_return(void)
{
	return (int)kit_option_number("status", 0);
}

static int do_triple_fault(void)
{
	kit_ring0(triple_fault, 0);
	return 9;
}

static int do_halt(void)
{
	kit_ring0(halt, 0);
	return 9;
}

static int do_ud(void)
{
	__asm__ volatile("ud2");
	return 9;
}

static int do_pf(void)
{
	kit_store32(0x123456789000ull, 1);
	return 9;
}

static int do_gp(void)
{
	__asm__ volatile("movq %%rax, %%cr3" : : "a"(0));
	return 9;
}

static int do_de(void)
{
	__asm__ volatile("divl %%ecx" : : "a"(1), "d"(0), "c"(0));
	return 9;
}

static int do_ring0_ud(void)
{
	kit_ring0(invalid, 0);
	return 9;
}

/* Resets may take a moment to be carried out by another thread. */
static int after_reset(void)
{
	for (unsigned i = 0; i < 20; i++)
		kit_wait(10000000);
	return 9;
}

static int do_panic(void)
{
	kit_printf("[    0.1] Kernel panic - not syncing: played\n[    0.2] Call Trace:\n");
	return do_triple_fault();
}

static int do_panic_power(void)
{
	kit_printf("Kernel panic - not syncing: played\n");
	return 0;
}

static int do_reset_acpi(void)
{
	*(volatile u8 *)ACPI_RESET = 1;
	return after_reset();
}

static int do_reset_port(void)
{
	kit_outb(0x64, 0xfe);
	return after_reset();
}

static int do_reset_cf9(void)
{
	kit_outb(0xcf9, 6);
	return after_reset();
}

static __attribute__((noreturn)) int do_spin(void)
{
	for (;;)
		__asm__ volatile("" : : : "memory");
}

static __attribute__((noreturn)) int do_wait(void)
{
	for (;;)
		kit_wait(KIT_FOREVER);
}

static int do_hole(void)
{
	kit_store32(HOLE, 0x12345678);
	return kit_load32(HOLE) != 0xffffffff;
}

static int do_run_hole(void)
{
	((void (*)(void))HOLE)();
	return 1;
}

static int do_ports(void)
{
	return kit_inb(0x2345) != 0xff;
}

static __attribute__((noreturn)) int do_storm(void)
{
	for (;;)
		kit_ready();
}

static const struct {
	const char *name;
	int (*run)(void);
} ways[] = {
	{"power", do_power},
	{"return", do_return},
	{"triple-fault", do_triple_fault},
	{"halt", do_halt},
	{"ud", do_ud},
	{"pf", do_pf},
	{"gp", do_gp},
	{"de", do_de},
	{"ring0-ud", do_ring0_ud},
	{"panic", do_panic},
	{"panic-power", do_panic_power},
	{"reset-acpi", do_reset_acpi},
	{"reset-port", do_reset_port},
	{"reset-cf9", do_reset_cf9},
	{"spin", do_spin},
	{"wait", do_wait},
	{"hole", do_hole},
	{"run-hole", do_run_hole},
	{"ports", do_ports},
	{"storm", do_storm},
};

int kit_main(void)
{
	char how[32] = "", ready[8] = "";

	kit_option("how", how, sizeof(how));
	kit_option("ready", ready, sizeof(ready));
	kit_printf("fault: %s\n", how);
	if (memcmp(ready, "no", 3) != 0)
		kit_ready();
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		size_t len = strlen(ways[i].name) + 1;

		if (memcmp(how, ways[i].name, len) == 0)
			return ways[i].run();
	}
	return 2;
}
