/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vectors.S - the IDT and what happens in ring 0 when something arrives.
 *
 * Exceptions: the guest is broken. Its return frame is rewritten so that the iretq goes to
 * kit_fault() in ring 3, on a stack of its own, which reports and powers off.
 * Interrupts: counted in kit_irqs[vector] and acknowledged, no more; ring 3 looks at the counters.
 * One #UD is not an error: the ud2 in kit_ring0() is how ring 3 calls a function in ring 0. (An
 * exception is the one way in that every hypervisor can do: int and syscall are not.)
 */
	.file "vectors.S"
#include "doorbell.h"
#include "boot.h"

#define MSR_X2APIC_EOI 0x80b

	.section .text.vectors, "ax", @progbits
	/* One stub of 16 bytes a vector. All leave: vector, error code, return frame. */
	.balign VECTORS * 16
	.globl vectors
vectors:
	.set	n, 0
	.rept	VECTORS
	.balign	16
	.if	n >= 32
	pushq	$0
	pushq	$n
	jmp	interrupt
	.else
	/* 8, 10..14, 17, 21, 29, 30 come with an error code. */
	.if	((0x60227d00 >> n) & 1) == 0
	pushq	$0
	.endif
	pushq	$n
	.if	n == 6
	jmp	invalid_opcode
	.else
	jmp	fault
	.endif
	.endif
	.set	n, n + 1
	.endr
	.balign	16

invalid_opcode:
	cmpq	$ring0_gate, 16(%rsp)
	jne	fault
	addq	$16, %rsp
	addq	$2, (%rsp)		/* go on after the ud2 */
	movq	%rdi, %rax
	movq	%rsi, %rdi
	movq	%rsp, %rsi
	subq	$8, %rsp		/* the frame is 5 words: align for the call */
	call	*%rax
	addq	$8, %rsp
	iretq

fault:
	popq	%rdi			/* kit_fault(vector, error, rip, cr2, rsp) */
	popq	%rsi
	movq	(%rsp), %rdx
	movq	%cr2, %rcx
	movq	24(%rsp), %r8
	cmpl	$0, faulted
	jne	give_up
	movl	$1, faulted
	movq	$kit_fault, (%rsp)
	movq	$USER_CS, 8(%rsp)
	movq	$RFLAGS_RING3, 16(%rsp)
	movq	$fault_stack_end - 8, 24(%rsp)
	movq	$USER_SS, 32(%rsp)
	iretq

give_up:				/* a fault in kit_fault() */
	movl	$DOORBELL, %eax
	movl	$255, DOORBELL_POWER(%rax)
1:	cli
	hlt
	jmp	1b

interrupt:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	movl	24(%rsp), %eax
	incl	kit_irqs(,%rax,4)
	cmpl	$VECTOR_SPURIOUS, %eax	/* has nothing to acknowledge */
	je	1f
	movl	$MSR_X2APIC_EOI, %ecx
	xorl	%eax, %eax
	xorl	%edx, %edx
	wrmsr
1:	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq

	.section .text.kit_ring0, "ax", @progbits
	.globl kit_ring0
kit_ring0:
ring0_gate:
	ud2
	ret

	.section .data.idt, "aw", @progbits
	.balign 16
	.globl idt
idt:
	.set	n, 0
	.rept	VECTORS
	.word	vectors_15_0 + n * 16, KERNEL_CS, 0x8e00, vectors_31_16
	.quad	0
	.set	n, n + 1
	.endr

	.section .bss.vectors, "aw", @nobits
	.balign 4
	.globl kit_irqs
kit_irqs:
	.fill	VECTORS * 4
faulted:
	.fill	4

	.section .note.GNU-stack, "", @progbits
