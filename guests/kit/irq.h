/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irq.h - device interrupts for guests that want them. The handler in ring 0 only counts and
 * acknowledges; the guest looks at kit_irqs[vector] from ring 3.
 */
#ifndef KIT_IRQ_H
#define KIT_IRQ_H

#include "kit.h"
#include "boot.h"

#define VECTOR_TIMER  32
#define VECTOR_DEVICE 33 /* the first for kit_irq_device() */

/* Interrupts taken since boot, by vector. */
extern volatile u32 kit_irqs[VECTORS];

/* Turns on the local APIC (x2APIC mode) and interrupts. False if the processor has no x2APIC. */
bool kit_irq_init(void);
/* Routes @gsi through the IOAPIC to @vector: edge triggered, unmasked, to this processor. */
void kit_irq_device(u32 gsi, u8 vector);
/* One interrupt at VECTOR_TIMER after @ticks of the local APIC timer. */
void kit_irq_timer(u32 ticks);

#endif
