/* SPDX-License-Identifier: Apache-2.0 */
/*
 * second_entry.S - what a processor that was just started runs: from real mode to second_main() in
 * ring 3. Copied to a page below 1 MiB; what the first processor uses (descriptor tables, page
 * tables, control registers) is put behind it by second.c.
 */
	.file "second_entry.S"
#include "kit/boot.h"

#define MSR_EFER 0xc0000080

	.section .text.second, "ax", @progbits
	.globl second_entry, second_entry_end, second_values
	.code16
second_entry:
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	movw	$(second_values - second_entry), %bx
	lgdtl	(%bx)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $second_32
	.balign 8
second_values:
	.fill	10			/* GDT */
	.fill	10			/* IDT */
	.fill	4			/* padding */
	.fill	8 * 4			/* CR3, CR4, EFER, CR0 */
second_entry_end:

	.code32
second_32:
	movl	$0x18, %eax
	movl	%eax, %ds
	movl	second_ready + 32, %eax
	movl	%eax, %cr4
	movl	second_ready + 24, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	movl	second_ready + 40, %eax
	xorl	%edx, %edx
	wrmsr
	movl	second_ready + 48, %eax
	movl	%eax, %cr0
	ljmp	$KERNEL_CS, $second_64
	.code64
second_64:
	lidt	second_ready + 10
	movl	$second_frame, %esp
	iretq

	.section .data.second, "aw", @progbits
	.balign 16
second_frame:
	.quad	second_main
	.quad	USER_CS
	.quad	RFLAGS_RING3
	.quad	second_stack_end - 8
	.quad	USER_SS

	.section .bss.second, "aw", @nobits
	.balign 16
	.fill	16384
second_stack_end:

	.section .note.GNU-stack, "", @progbits
