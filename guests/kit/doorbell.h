/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doorbell.h - what a guest can tell the monitor, and how it learns who it is.
 *
 * The doorbell is a page of MMIO: a store to it is a message. The identity page is plain RAM that
 * the monitor fills before the first instruction of a boot, restore or clone. Where there is no
 * identity page (another monitor runs us) there is taken to be no doorbell either.
 *
 * The constants are for assembly too.
 */
#ifndef KIT_DOORBELL_H
#define KIT_DOORBELL_H

#define DOORBELL       0xC0000000
#define DOORBELL_READY 0x00 /* 32 bits: READY_VALUE */
#define DOORBELL_POWER 0x04 /* 32 bits: exit status */
#define DOORBELL_WAIT  0x08 /* 64 bits: nanoseconds */
#define READY_VALUE    123

#define IDENTITY           0x5000
#define IDENTITY_MAGIC_LO  0x564c454b /* "KELV" */
#define IDENTITY_MAGIC_HI  0x44494e49 /* "INID" */

#define DEBUG_EXIT_PORT 0xf4 /* QEMU's isa-debug-exit: exits with (value << 1) | 1 */

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct identity {
	char magic[8];
	uint32_t layout;     /* 1 */
	uint32_t generation; /* restores this memory has lived through */
	uint64_t wall_ns;    /* wall clock when it was written */
	uint64_t reserved;
	uint8_t id[16];
	uint8_t random[64]; /* fresh ones for every boot, restore and clone */
	uint32_t hint_len;
	char hint[3980]; /* operator text, hint_len bytes of it */
};
_Static_assert(sizeof(struct identity) == 4096, "the identity page is one page");

/* The identity page, or NULL where there is none. The monitor rewrites it at a restore. */
const volatile struct identity *kit_identity(void);
/* The generation now; 0 without an identity page. */
uint32_t kit_generation(void);
/* Copies the value of the line "name=value" of the operator's text, cut to @cap; false where there
 * is none. The text may be another after a restore. */
bool kit_hint(const char *name, char *value, size_t cap);
/* The first of the random words; 0 without an identity page. */
uint64_t kit_random_word(void);

/* "The guest is ready": what --wait-ready and the benchmarks wait for. */
void kit_ready(void);
/*
 * Rings ready again if this memory was restored since the last call. kit_wait() and vsock_poll()
 * do it, before anything else, so that the time of a restore can be seen from outside; call it
 * in loops that do neither. Returns true if so.
 */
bool kit_check_generation(void);

#define KIT_FOREVER (~0ull) /* the monitor need not look after a guest that waits so */
/*
 * Sleeps until a device has raised an interrupt since the last wait, or @ns nanoseconds passed.
 * May return early. Where nobody offers this it spins for some microseconds.
 */
void kit_wait(uint64_t ns);

/* Stops the VM with @status (0..255). */
_Noreturn void kit_power(unsigned status);
#endif
#endif
