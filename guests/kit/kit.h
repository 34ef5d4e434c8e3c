/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kit.h - a small unikernel kit: everything a guest needs that is one C file and no libc.
 *
 * Your own guest in ten lines; put it in guests/mine.c and add 'mine' to guests/meson.build:
 *
 *	#include "kit/vsock.h"
 *
 *	static void event(struct vsock_conn *c)           // data, end of data, or room to send
 *	{
 *		size_t len;
 *		const void *data = vsock_peek(c, &len);
 *		vsock_consume(c, vsock_send(c, data, len)); // echo what fits, keep the rest
 *		if (vsock_eof(c))
 *			vsock_close(c);
 *	}
 *
 *	int kit_main(void)
 *	{
 *		if (!vsock_init() || !vsock_listen(7, &(struct vsock_ops){.event = event}))
 *			return 1;
 *		kit_ready();
 *		for (;;)
 *			vsock_wait();
 *	}
 *
 * How it works. boot.S takes the machine from the PVH entry (32 bits) or the Linux 64-bit entry to
 * long mode and leaves ring 0 at once. kit_main() and all else run in ring 3, may use all ports,
 * and have memory below 4 GiB mapped one to one, devices included: under a hypervisor without
 * hardware virtualisation only ring 3 runs at full speed, and elsewhere it costs nothing. There is
 * one thread and there are no interrupts unless irq.h is asked for them: drivers look at their
 * rings and sleep by kit_wait().
 */
#ifndef KIT_KIT_H
#define KIT_KIT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "doorbell.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* The guest's own code. What it returns is the VM's exit status. */
int kit_main(void);

/* ---- libc.c: the little of a C library that is here ---- */
void *memcpy(void *dst, const void *src, size_t len);
void *memmove(void *dst, const void *src, size_t len);
void *memset(void *dst, int byte, size_t len);
void *memchr(const void *mem, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *s);
bool streq(const char *a, const char *b);
/* Base 0, 10 or 16. A K, M or G right after the number multiplies. *end is where parsing ended. */
u64 strtoul(const char *s, const char **end, int base);
/* %d %u %x %s %c %%, with 0, width, l and z. Returns the length it would have taken. */
int snprintf(char *out, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *out, size_t cap, const char *fmt, va_list ap);

/* ---- start.c: what the monitor handed over ---- */
/* Goes from word to word of the command line; start with *pos NULL. NULL at the end. The word is
 * not terminated. */
const char *kit_next_word(const char **pos, size_t *len);
/* Is @word on the command line? */
bool kit_flag(const char *word);
/* Copies the value of "name=value", cut to @cap; false where it is absent. */
bool kit_option(const char *name, char *value, size_t cap);
u64 kit_option_number(const char *name, u64 otherwise);
/* Page-aligned memory above the image, not cleared, never given back; NULL when RAM is used up. */
void *kit_pages(size_t bytes);
/* How many bytes kit_pages() can still give. */
size_t kit_pages_left(void);

/* ---- console.c: the serial console, where there is one ---- */
bool kit_has_console(void);
void kit_print(const char *text, size_t len);
void kit_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- idle.c: when to stop looking for work ---- */
/*
 * For loops that look at their rings: told whether the last look found something, says whether to
 * look again. False: nothing came for some 40 us, or waiting that long does not pay: arm the rings,
 * then kit_wait(). Command line: "nospin" never waits so, "poll" always does. Where there is no
 * doorbell to sleep by it is always "poll".
 */
bool kit_look_again(bool found);

/* ---- vectors.S: back into ring 0 for a moment ---- */
struct ring0_frame {
	u64 rip, cs, rflags, rsp, ss; /* of the caller, in ring 3; may be changed */
};
/* Calls @fn in ring 0, interrupts off. Keep it short: see boot.S. */
void kit_ring0(void (*fn)(u64 arg, struct ring0_frame *frame), u64 arg);

/* ---- single instructions ---- */
static inline void kit_outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u8 kit_inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* Device registers: one instruction each that reads or writes memory and no other register, so
 * that every hypervisor can decode it. */
static inline u32 kit_load32(u64 addr)
{
	u32 value;

	__asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(addr) : "memory");
	return value;
}

static inline void kit_store32(u64 addr, u32 value)
{
	__asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(addr) : "memory");
}

static inline void kit_store64(u64 addr, u64 value)
{
	__asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(addr) : "memory");
}

static inline u16 kit_load16(u64 addr)
{
	u16 value;

	__asm__ volatile("movw (%1), %0" : "=r"(value) : "r"(addr) : "memory");
	return value;
}

static inline u8 kit_load8(u64 addr)
{
	u8 value;

	__asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(addr) : "memory");
	return value;
}

/* The time stamp counter. Its rate is not known here: who reads the results converts. */
static inline u64 kit_cycles(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (u64)high << 32;
}

static inline void kit_pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

#endif
