/* SPDX-License-Identifier: Apache-2.0 */
/* second.h - a second processor. */
#ifndef VILLAIN_SECOND_H
#define VILLAIN_SECOND_H

#include "villain.h"

/*
 * Starts the processor with APIC id 1 and runs @fn there, in ring 3, with a stack of its own and
 * no interrupts; it must not fault and must not use what waits or allocates. When @fn returns the
 * processor spins. False where there is no such processor. Once in the life of a VM.
 */
bool second_start(void (*fn)(void *arg), void *arg);
/* Whether @fn has returned. */
bool second_done(void);

#endif
