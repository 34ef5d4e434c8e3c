/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.S - from either entry point to kit_start() in ring 3.
 *
 * Ring 0 code may be emulated (some 2 million instructions a second, and not every instruction is
 * known) where the hypervisor has no hardware to use. So everything that could be computed here is
 * a table made by the assembler or the linker, and ring 0 is about twenty instructions.
 *
 * Entered with interrupts off, either
 *   kit_entry32: PVH: protected mode without paging, EBX = start info; or
 *   kit_entry64: Linux 64-bit boot protocol: long mode, RSI = zero page.
 * A guest may put its own code in front: define the symbol and jump to kit_boot32 or kit_boot64
 * with those registers unchanged.
 */
	.file "boot.S"
#include "doorbell.h"
#include "boot.h"

#define CR0_VALUE 0x80000033 /* PG NE ET MP PE */
#define CR4_VALUE 0x620      /* PAE OSFXSR OSXMMEXCPT: SSE works, though the kit does not use it */
#define MSR_EFER  0xc0000080
#define EFER_LME  0x100

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 8, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad kit_entry32

	.section .note.kelvin, "a", @note
	.balign 4
	.long 7, 4, 1
	.asciz "kelvin"
	.balign 4
	.long 1				/* layout of this note */

	.section .text.boot, "ax", @progbits
	.weak kit_entry32
	.globl kit_boot32
	.code32
kit_entry32:
kit_boot32:
	movl	$CR4_VALUE, %eax
	movl	%eax, %cr4
	movl	$page_root, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	movl	$EFER_LME, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$CR0_VALUE, %eax
	movl	%eax, %cr0
	lgdt	gdt_pointer
	movl	%ebx, %esi
	movl	$BOOTED_BY_PVH, %edi
	ljmp	$KERNEL_CS, $to_ring3

	.weak kit_entry64
	.globl kit_boot64
	.code64
kit_entry64:
kit_boot64:
	movl	$CR4_VALUE, %eax
	movq	%rax, %cr4
	movl	$page_root, %eax
	movq	%rax, %cr3
	movl	$CR0_VALUE, %eax
	movq	%rax, %cr0
	lgdt	gdt_pointer
	movl	$BOOTED_BY_LINUX64, %edi
	/* The old code segment stays in use until the iretq. */
to_ring3:
	lidt	idt_pointer
	movl	$TSS_SELECTOR, %eax
	ltr	%ax
	/* Data segments that ring 3 may not have are emptied by the iretq itself. */
	movl	$start_frame, %esp
	iretq

	.section .data.boot, "aw", @progbits
	.balign 16
start_frame:				/* what the iretq pops */
	.quad	kit_start
	.quad	USER_CS
	.quad	RFLAGS_RING3
	.quad	user_stack_end - 8	/* as after a call */
	.quad	USER_SS

	/* User selectors are Linux's: a hypervisor may want those to run ring 3 natively. Accessed
	 * bits are set so that loading a selector writes nothing. */
	.balign 8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* 0x08 code, 32 bits */
	.quad	0x00af9b000000ffff	/* 0x10 code, 64 bits */
	.quad	0x00cf93000000ffff	/* 0x18 data */
	.quad	0x00cffb000000ffff	/* 0x20 user code, 32 bits */
	.quad	0x00cff3000000ffff	/* 0x28 user data */
	.quad	0x00affb000000ffff	/* 0x30 user code, 64 bits */
	.quad	0
	.word	tss_limit, tss_15_0	/* 0x40 TSS; kit.ld splits its address */
	.byte	tss_23_16, 0x89, 0, tss_31_24
	.quad	0
gdt_end:

	.balign 8
	.globl tss
tss:
	.long	0
	.quad	ring0_stack_end		/* rsp0 */
	.fill	88, 1, 0
	.word	0, tss_bitmap		/* where the I/O bitmap is: all zero, all ports open */

	.balign 8
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.balign 8
idt_pointer:
	.word	VECTORS * 16 - 1
	.quad	idt

	/* Page tables: 4 GiB one to one, 2 MiB pages, for ring 3. The accessed and dirty bits are
	 * set so that the processor never writes here and the pages stay clean. */
	.balign 4096
	.globl page_root
page_root:
	.quad	page_3 + 0x27
	.fill	511, 8, 0
page_3:
	.quad	page_2 + 0x27, page_2 + 0x1027, page_2 + 0x2027, page_2 + 0x3027
	.fill	508, 8, 0
page_2:
	.set	at, 0
	.rept	2048
	.quad	at + 0xe7
	.set	at, at + 0x200000
	.endr

	/* The bitmap says what IOPL 3 says already; hypervisors that emulate ring 0 know only this. */
	.section .bss.ports, "aw", @nobits
	.globl io_bitmap
io_bitmap:
	.fill	8192 + 1

	.section .bss.stacks, "aw", @nobits
	.balign 16
	.fill	2048
	.globl ring0_stack_end
ring0_stack_end:
	.fill	2048
	.globl fault_stack_end
fault_stack_end:
	.fill	12288
user_stack_end:

	.section .note.GNU-stack, "", @progbits
