/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init.c - /init of the Linux guest of bench/run linux.
 *
 * Its first act is one byte to the serial port, without a driver: one exit says that the kernel is
 * up, under whatever monitor. Then it is a guest that answers: each byte that arrives on ttyS0
 * gets one back, by the kernel's driver and its interrupt. No C library, which would only add
 * pages to unpack and to touch.
 */
#include <asm/termbits.h>
#include <asm/termios.h>
#include <fcntl.h>
#include <linux/time_types.h>
#include <sys/syscall.h>

#define COM1  0x3f8
#define UP    "R" /* bench/linux/sample.sh waits for these */
#define REPLY "A"

static long call(long n, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

static void be_raw(long tty)
{
	struct termios t;

	if (call(SYS_ioctl, tty, TCGETS, (long)&t))
		return;
	t.c_iflag = 0;
	t.c_oflag = 0;
	t.c_lflag = 0;
	t.c_cflag |= CREAD | CLOCAL;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	call(SYS_ioctl, tty, TCSETS, (long)&t);
}

__attribute__((noreturn, used)) static void begin(void)
{
	struct __kernel_timespec second = {.tv_sec = 1};
	long tty;
	char c;

	call(SYS_ioperm, COM1, 1, 1);
	__asm__ volatile("outb %0, %1" : : "a"((unsigned char)UP[0]), "d"((unsigned short)COM1));
	tty = call(SYS_open, (long)"/dev/ttyS0", O_RDWR | O_NOCTTY, 0);
	if (tty >= 0)
		be_raw(tty);
	for (;;) {
		if (tty < 0 || call(SYS_read, tty, (long)&c, 1) != 1)
			call(SYS_nanosleep, (long)&second, 0, 0);
		else
			call(SYS_write, tty, (long)REPLY, 1);
	}
}

/* The kernel enters with a stack pointer that is a multiple of 16; a function expects 8 more. */
__asm__(".globl _start\n_start:\n\tcall begin\n");
