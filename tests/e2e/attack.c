/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack.c - a monitor that its guest has taken over; with attack_*.c, and linked with --wrap.
 *
 * `captive` is kelvin, and jails itself as kelvin does. Then attacker's code runs in its process:
 * at the guest's first access to a device, in the thread of that vCPU (bus_mmio()), or in the
 * main thread, before its loop (machine_run()). Both come after the filters. Told by environment
 * variables:
 *
 *   KELVIN_ATTACK         the name of the attack
 *   KELVIN_ATTACK_THREAD  vcpu, loop or both
 *   KELVIN_PRIZE_*        what there is to be had (attack.h)
 *
 * A thread says on stderr "attack NAME THREAD: begins" and then either "GOT it" or "denied by
 * EPERM". The VM goes on. `captive attacks` lists them all.
 */
#include "attack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/machine_int.h"

int __real_machine_run(struct machine *m, struct err *e);
int __wrap_machine_run(struct machine *m, struct err *e);
void __real_bus_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write);
void __wrap_bus_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write);

static const struct attack *const tables[] = {attacks_on_files, attacks_on_kernel,
	attacks_on_peers, attacks_on_keeper, attacks_on_clients, attacks_by_fd};

struct prizes prize;
struct machine *victim;
static const struct attack *chosen;
static bool by_vcpu, by_loop;

int attack_keeper_fd(void)
{
	return victim->spec->keeper_fd;
}

int attack_log_fd(void)
{
	return victim->dir.log_fd;
}

int attack_notify_fd(void)
{
	return victim->notify_fd;
}

/* The first member of a struct ring (virtio/ring.c). */
struct io_uring *attack_ring(void)
{
	return (struct io_uring *)(void *)victim->ring;
}

static void copy(char *to, size_t cap, const char *name)
{
	const char *value = getenv(name);

	snprintf(to, cap, "%s", value ? value : "");
}

static int number(const char *name)
{
	const char *value = getenv(name);

	return value ? (int)strtol(value, NULL, 10) : 0;
}

static void list(void)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct attack *a = tables[t]; a->name; a++)
			printf("%s\n", a->name);
	exit(0);
}

/* Before main(): a VM's environment need not outlast its start. */
__attribute__((constructor)) static void read_environment(int argc, char **argv)
{
	const char *name = getenv("KELVIN_ATTACK"), *thread = getenv("KELVIN_ATTACK_THREAD");

	if (argc > 1 && strcmp(argv[1], "attacks") == 0)
		list();
	copy(prize.secret, sizeof(prize.secret), "KELVIN_PRIZE_SECRET");
	copy(prize.root, sizeof(prize.root), "KELVIN_PRIZE_ROOT");
	copy(prize.sock, sizeof(prize.sock), "KELVIN_PRIZE_SOCK");
	copy(prize.name, sizeof(prize.name), "KELVIN_PRIZE_NAME");
	copy(prize.api, sizeof(prize.api), "KELVIN_PRIZE_API");
	prize.port = number("KELVIN_PRIZE_PORT");
	prize.vsock = number("KELVIN_PRIZE_VSOCK");
	prize.fd = number("KELVIN_PRIZE_FD");
	prize.vm = number("KELVIN_PRIZE_VM");
	prize.keeper = number("KELVIN_PRIZE_KEEPER");
	prize.vm_uid = (unsigned)number("KELVIN_PRIZE_VM_UID");
	by_vcpu = thread && strcmp(thread, "loop") != 0;
	by_loop = thread && strcmp(thread, "vcpu") != 0;
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct attack *a = tables[t]; name && a->name; a++)
			if (strcmp(a->name, name) == 0)
				chosen = a;
}

/* No dprintf(), which asks where in the file it is: a vCPU thread may only write. */
static void tell(const char *thread, const char *verdict, const char *what)
{
	char line[160];
	int n = snprintf(line, sizeof(line), "attack %s %s: %s%s\n", chosen->name, thread, verdict,
		what);

	if (write(STDERR_FILENO, line, (size_t)n) != n)
		_exit(98);
}

static void attack(const char *thread)
{
	const char *got;

	if (!chosen)
		return;
	tell(thread, "begins", "");
	errno = 0;
	got = chosen->run();
	tell(thread, got ? "GOT " : "denied by ", got ? got : strerrorname_np(errno));
}

void __wrap_bus_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write)
{
	static unsigned done;

	if (by_vcpu && !__atomic_exchange_n(&done, 1, __ATOMIC_ACQ_REL)) {
		victim = ctx;
		attack("vcpu");
	}
	__real_bus_mmio(ctx, v, gpa, data, len, write);
}

int __wrap_machine_run(struct machine *m, struct err *e)
{
	if (by_loop) {
		victim = m;
		attack("loop");
	}
	return __real_machine_run(m, e);
}
