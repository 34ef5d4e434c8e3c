/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - what the parts of the kit share and guests need not know. */
#ifndef KIT_BOOT_H
#define KIT_BOOT_H

#define KERNEL_CS    0x10
#define USER_SS      0x2b
#define USER_CS      0x33
#define TSS_SELECTOR 0x40

#define RFLAGS_RING3 0x3002 /* IOPL 3; interrupts off */
#define RFLAGS_IF    0x200

#define VECTORS         64 /* in the IDT: 32 exceptions, then interrupts */
#define VECTOR_SPURIOUS 63

#define BOOTED_BY_PVH     0
#define BOOTED_BY_LINUX64 1

#ifndef __ASSEMBLER__
/* Looks whether there is an identity page; before anything else of doorbell.h. */
void kit_doorbell_init(void);
#endif

#endif
