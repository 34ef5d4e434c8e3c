/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.c - what a tap costs whoever serves it: a bare program where otherwise a monitor sits.
 *
 *   write IF COUNT   writes COUNT frames of 64 KiB with a GSO header, from one warm buffer
 *   read IF COUNT    reads until it has COUNT frames, into one warm buffer; the clock starts with
 *                    the first of them. Naps when there is none: who is asleep in read() has to be
 *                    woken by the sender, and that is half of what a frame costs it
 *   reflect IF       sends every frame back with its addresses exchanged, until it is killed
 *
 * The interface is there already and is up (bench/run makes it). One system call a frame, no guest,
 * no ring, no thread: a monitor does all of this too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>

#include "../frame.h"
#include "../tool.h"

#define NAP_NS 50000l

static struct bulk_frame frame;

/* @flags: O_NONBLOCK or 0. */
static int open_tap(const char *name, int flags)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int vnet_len = VNET_LEN;
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | flags);

	if (fd < 0)
		die("/dev/net/tun");
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		die("%s", name);
	if (ioctl(fd, TUNSETVNETHDRSZ, &vnet_len) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
		die("%s: vnet header and offloads", name);
	return fd;
}

static size_t read_frame(int fd)
{
	struct timespec nap = { .tv_nsec = NAP_NS };
	ssize_t n;

	while ((n = read(fd, &frame, sizeof(frame))) < 0 && errno == EAGAIN)
		nanosleep(&nap, NULL);
	if (n <= (ssize_t)VNET_LEN)
		die("read");
	return (size_t)n;
}

static void write_frame(int fd, size_t len)
{
	if (write(fd, &frame, len) != (ssize_t)len)
		die("write");
}

static void bulk_write(int fd, uint64_t count)
{
	uint64_t start;

	frame_bulk(&frame);
	start = now_ns();
	for (uint64_t i = 0; i < count; i++)
		write_frame(fd, sizeof(frame));
	print_bulk(count, count * BULK_LEN, now_ns() - start);
}

static void bulk_read(int fd, uint64_t count)
{
	uint64_t start, bytes = 0;

	prctl(PR_SET_TIMERSLACK, 1ul);
	read_frame(fd);
	start = now_ns();
	for (uint64_t i = 0; i < count; i++)
		bytes += read_frame(fd) - VNET_LEN;
	print_bulk(count, bytes, now_ns() - start);
}

__attribute__((noreturn)) static void reflect(int fd)
{
	die_with_parent();
	for (;;) {
		size_t len = read_frame(fd);
		uint8_t *mac = frame.data;

		memmove(mac, mac + ETH_ALEN, ETH_ALEN); /* to whoever sent it */
		mac[ETH_ALEN] = 0x02;
		memset(&frame.vnet, 0, VNET_LEN);
		write_frame(fd, len);
	}
}

int main(int argc, char **argv)
{
	tool_name = "tap";
	if (argc == 4 && strcmp(argv[1], "write") == 0)
		bulk_write(open_tap(argv[2], 0), number(argv[3]));
	else if (argc == 4 && strcmp(argv[1], "read") == 0)
		bulk_read(open_tap(argv[2], O_NONBLOCK), number(argv[3]));
	else if (argc == 3 && strcmp(argv[1], "reflect") == 0)
		reflect(open_tap(argv[2], 0));
	else
		fputs("usage: tap write|read IF COUNT | reflect IF\n", stderr);
	return argc == 4 ? 0 : 2;
}
