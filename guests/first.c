/* SPDX-License-Identifier: Apache-2.0 */
/*
 * first - rings ready with its very first instructions, then powers off.
 *
 * Measures from the start of a process to the first guest instruction: the store is the first
 * instruction of the PVH entry. (By the Linux entry it comes after our page tables are in
 * use: not every monitor's tables reach the doorbell.)
 *
 * Command line:
 *	status=N  the exit status (0)
 *	stay      do not power off: spin, and ring ready again whenever the identity page shows a new
 *	          generation. That measures from restore to first instruction.
 * Without an identity page (QEMU), the benchmark is told by the debug exit port instead.
 */
#include "kit/kit.h"

#define STRING(x) #x
#define VALUE(x)  STRING(x)

__asm__(".section .text.boot, \"ax\", @progbits\n"
	".globl kit_entry32, kit_entry64\n"
	".code32\n"
	"kit_entry32:\n"
	"	movl $" VALUE(READY_VALUE) ", " VALUE(DOORBELL) "\n"
	"	cmpl $" VALUE(IDENTITY_MAGIC_LO) ", " VALUE(IDENTITY) "\n"
	"	je kit_boot32\n"
	"	movb $" VALUE(READY_VALUE) ", %al\n"
	"	outb %al, $" VALUE(DEBUG_EXIT_PORT) "\n"
	"	jmp kit_boot32\n"
	".code64\n"
	"kit_entry64:\n"
	"	movl $page_root, %eax\n"
	"	movq %rax, %cr3\n"
	"	movl $" VALUE(DOORBELL) ", %eax\n"
	"	movl $" VALUE(READY_VALUE) ", (%rax)\n"
	"	cmpl $" VALUE(IDENTITY_MAGIC_LO) ", " VALUE(IDENTITY) "\n"
	"	je kit_boot64\n"
	"	movb $" VALUE(READY_VALUE) ", %al\n"
	"	outb %al, $" VALUE(DEBUG_EXIT_PORT) "\n"
	"	jmp kit_boot64\n"
	".text\n");

int kit_main(void)
{
	if (!kit_flag("stay"))
		return (int)kit_option_number("status", 0);
	for (;;) {
		kit_check_generation();
		kit_pause();
	}
}
