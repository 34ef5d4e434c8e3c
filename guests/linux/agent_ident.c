/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_ident.c - the identity page and the doorbell, through /dev/mem.
 *
 * The page is reserved in the memory map, so that a kernel with STRICT_DEVMEM lets it be read, too;
 * the doorbell belongs to no driver, so that it may be mapped even with IO_STRICT_DEVMEM. It is
 * mapped as ordinary memory (no O_SYNC), because that is how the kernel's ACPI maps it, and a page
 * has one type; stores go to the monitor all the same. The page
 * is rewritten by the monitor while no processor runs; so what is read here is of one piece unless
 * a restore came in between, and then the generation says so. monitor/identity.c draws it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "guests/kit/doorbell.h"

#define PAGE 4096u

static const volatile struct identity *page;
static volatile u32 *door;
static u32 generation;
static bool seen;

static volatile void *map(const char *file, u64 gpa, int prot)
{
	int fd = open(file ? file : "/dev/mem",
		(prot & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd >= 0) {
		p = mmap(NULL, PAGE, prot, MAP_SHARED, fd, file ? 0 : (off_t)gpa);
		close(fd);
	}
	return p == MAP_FAILED ? NULL : p;
}

void ident_open(const char *page_file, const char *door_file)
{
	static const char magic[8] = "KELVINID";

	page = map(page_file, IDENTITY, PROT_READ);
	for (unsigned i = 0; page && i < sizeof(magic); i++)
		if (page->magic[i] != magic[i])
			page = NULL;
	if (page && (!page_file || door_file))
		door = map(door_file, DOORBELL, PROT_READ | PROT_WRITE);
}

bool ident_present(void)
{
	return page != NULL;
}

u32 ident_generation(void)
{
	return page ? page->generation : 0;
}

bool ident_changed(void)
{
	if (seen && (!page || page->generation == generation))
		return false;
	seen = true;
	generation = ident_generation();
	return true;
}

static void reseed(const u8 random[64])
{
	struct {
		struct rand_pool_info info;
		u8 bytes[64];
	} pool = {.info = {.entropy_count = 512, .buf_size = 64}};
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	memcpy(pool.bytes, random, sizeof(pool.bytes));
	ioctl(fd, RNDADDENTROPY, &pool);
	ioctl(fd, RNDRESEEDCRNG, 0); /* now, not when the kernel next thinks of it */
	close(fd);
}

int clock_step(u64 wall_ns, bool forward)
{
	struct timespec ts;
	s64 off;

	if (!wall_ns || wall_ns > INT64_MAX)
		return 0;
	clock_gettime(CLOCK_REALTIME, &ts);
	off = (s64)wall_ns - (ts.tv_sec * 1000000000ll + ts.tv_nsec);
	if (off <= (s64)CLOCK_SLACK_NS && (forward || off >= -(s64)CLOCK_SLACK_NS))
		return 0;
	ts = (struct timespec){(time_t)(wall_ns / 1000000000), (long)(wall_ns % 1000000000)};
	return clock_settime(CLOCK_REALTIME, &ts) ? -errno : 1;
}

void ident_apply(void)
{
	static struct identity copy;
	struct err e;

	if (!page)
		return;
	for (size_t i = 0; i < sizeof(copy); i++)
		((u8 *)&copy)[i] = ((const volatile u8 *)page)[i];
	reseed(copy.random);
	/* When the page was written is the least that the time can be. */
	clock_step(copy.wall_ns, true);
	if (copy.hint_len > sizeof(copy.hint))
		copy.hint_len = 0;
	net_apply(copy.hint, copy.hint_len, &e);
}

void door_ready(void)
{
	if (door)
		door[DOORBELL_READY / 4] = READY_VALUE;
}

void door_power(unsigned status)
{
	if (door)
		door[DOORBELL_POWER / 4] = status;
}
