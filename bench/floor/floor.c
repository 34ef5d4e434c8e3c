/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor.c - the bare KVM calls a monitor cannot do without, in the order KVM charges least for.
 *
 * What this program needs from exec to the first guest exit is the floor that kelvin is measured
 * against: one VM, one 128 MiB slot, split irqchip, one vCPU, three ioeventfds and irqfds, CPUID,
 * registers, KVM_RUN. No devices, no thread, no event loop, no file format: nothing that could be
 * left out without leaving out a part of the machine.
 *
 *   boot      over fresh anonymous memory; CPUID is asked of KVM and given back
 *   restore   over a private mapping of a file, with CPUID known and the whole vCPU state set
 *   pooled    like restore, but all that does not depend on the snapshot was done beforehand
 *   prepare   boots once and writes the files that restore and pooled read
 *   write     what a snapshot of so many MiB cannot avoid on disk: write, fsync, rename, fsync
 *
 * Descriptor 3 gets one byte at the first guest exit: whoever started us stops the clock on it.
 * In pooled mode a byte on 3 before that says "prepared", and a byte read from 4 says "go". What
 * follows the marker (KVM takes 12..30 ms to take a young VM apart) is on nobody's clock.
 *
 * Why this order: a memory slot made after something sits on KVM's I/O bus waits for a grace
 * period (4..8 ms on Linux 6.18), one made before does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#define MARKER_FD 3
#define GO_FD     4

#define RAM_LEN      (128ul << 20)
#define CODE_GPA     0x100000ul
#define DOORBELL_GPA 0xC0000000ull
#define DEVICE_COUNT 3u
#define IOAPIC_PINS  24u
#define CPUID_MAX    256u
#define MSR_MAX      256u
#define STEP_MAX     64u

struct cpuid_table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[CPUID_MAX];
};

struct msr_table {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSR_MAX];
};

/* Written and read by this very program only, so a plain dump will do. */
struct state {
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_clock_data clock;
	struct msr_table msrs;
};

struct vm {
	int kvm_fd, vm_fd, vcpu_fd;
	struct kvm_run *run;
	uint8_t *ram;
};

/* movl $123, 0xC0000000; jmp back to it. Runs in flat 32-bit protected mode, as PVH begins. */
static const uint8_t guest_code[] = {
	0xc7, 0x05, 0x00, 0x00, 0x00, 0xc0, 0x7b, 0x00, 0x00, 0x00, 0xeb, 0xf4,
};

static struct cpuid_table cpuid;
static struct state state;

/* What each step took, for --times: the clock read after it. */
static struct {
	const char *name;
	uint64_t at_ns;
} steps[STEP_MAX];
static unsigned step_count;
static bool want_times;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("floor: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (saved)
		fprintf(stderr, ": %s", strerror(saved));
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void step(const char *name)
{
	if (!want_times || step_count == STEP_MAX)
		return;
	steps[step_count].name = name;
	steps[step_count++].at_ns = now_ns();
}

/* One KVM call that must succeed. A macro, so that the call's name is told when it does not. */
#define CALL(fd, request, arg) call(fd, request, (unsigned long)(arg), #request)

static int call(int fd, unsigned long request, unsigned long arg, const char *name)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		die("%s", name);
	step(name);
	return r;
}

static int open_in(const char *dir, const char *name, int flags)
{
	char path[4096];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		die("%s", dir);
	}
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die("%s", path);
	return fd;
}

static void read_file(const char *dir, const char *name, void *buf, size_t len)
{
	int fd = open_in(dir, name, O_RDONLY);
	ssize_t got = read(fd, buf, len);

	if (got != (ssize_t)len) {
		if (got >= 0)
			errno = EIO;
		die("%s/%s", dir, name);
	}
	close(fd);
	step(name);
}

static void write_file(const char *dir, const char *name, const void *buf, size_t len)
{
	int fd = open_in(dir, name, O_WRONLY | O_CREAT | O_TRUNC);

	errno = 0;
	if (write(fd, buf, len) != (ssize_t)len)
		die("writing %s/%s", dir, name);
	close(fd);
}

static void mark(void)
{
	if (write(MARKER_FD, "", 1) != 1)
		die("descriptor 3");
	step("marker");
}

/* ---- the machine ---- */

static void *map_ram(void *where, int flags, int fd)
{
	void *p = mmap(where, RAM_LEN, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE | flags, fd, 0);

	if (p == MAP_FAILED)
		die("mapping guest memory");
	step("mmap RAM");
	return p;
}

static void *map_memory_file(void *where, const char *dir)
{
	int fd = open_in(dir, "memory", O_RDONLY);
	void *p = map_ram(where, where ? MAP_FIXED : 0, fd);

	close(fd);
	return p;
}

static void add_devices(struct vm *vm)
{
	for (unsigned i = 0; i < DEVICE_COUNT; i++) {
		struct kvm_ioeventfd kick = {
			.addr = DOORBELL_GPA + 0x1000u * (i + 1) + 0x50,
			.len = 4,
			.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		};
		struct kvm_irqfd irq = { .gsi = 5 + i };
		int irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (kick.fd < 0 || irq_fd < 0)
			die("eventfd");
		irq.fd = (uint32_t)irq_fd;
		step("eventfds");
		CALL(vm->vm_fd, KVM_IOEVENTFD, &kick);
		CALL(vm->vm_fd, KVM_IRQFD, &irq);
	}
}

/* All that comes before CPUID. @ram was mapped by the caller. */
static void build(struct vm *vm, void *ram)
{
	struct kvm_userspace_memory_region slot = {
		.memory_size = RAM_LEN,
		.userspace_addr = (uintptr_t)ram,
	};
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { IOAPIC_PINS },
	};
	int run_len;

	vm->ram = ram;
	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		die("/dev/kvm");
	step("open /dev/kvm");
	vm->vm_fd = CALL(vm->kvm_fd, KVM_CREATE_VM, 0);
	CALL(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
	CALL(vm->vm_fd, KVM_ENABLE_CAP, &split);
	vm->vcpu_fd = CALL(vm->vm_fd, KVM_CREATE_VCPU, 0);
	run_len = CALL(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->run = mmap(NULL, (size_t)run_len, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED)
		die("mapping the vCPU");
	step("mmap vCPU");
	add_devices(vm);
}

static void set_supported_cpuid(struct vm *vm)
{
	cpuid.head.nent = CPUID_MAX;
	CALL(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid);
	CALL(vm->vcpu_fd, KVM_SET_CPUID2, &cpuid);
}

/* Flat 32-bit protected mode with paging off: what the PVH ABI asks for. */
static void set_boot_regs(struct vm *vm)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 0x8, .type = 0xb,
		.present = 1, .db = 1, .s = 1, .g = 1,
	};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 0x10, .type = 0x3,
		.present = 1, .db = 1, .s = 1, .g = 1,
	};
	struct kvm_segment tss = { .limit = 0x67, .selector = 0x18, .type = 0xb, .present = 1 };
	struct kvm_sregs sregs = {
		.cs = code, .ds = data, .es = data, .fs = data, .gs = data, .ss = data,
		.tr = tss, .ldt = { .type = 0x2, .present = 1 },
		.cr0 = 0x11, /* protected mode, extension type */
		.apic_base = 0xfee00900, /* where reset puts it: enabled, boot processor */
	};
	struct kvm_regs regs = { .rip = CODE_GPA, .rflags = 0x2 };

	CALL(vm->vcpu_fd, KVM_SET_SREGS, &sregs);
	CALL(vm->vcpu_fd, KVM_SET_REGS, &regs);
}

/* Runs to the guest's store to the doorbell. */
static void run_to_doorbell(struct vm *vm)
{
	struct kvm_run *run = vm->run;

	CALL(vm->vcpu_fd, KVM_RUN, 0);
	if (run->exit_reason != KVM_EXIT_MMIO || run->mmio.phys_addr != DOORBELL_GPA) {
		errno = 0;
		die("the guest exited for reason %u instead of ringing", run->exit_reason);
	}
}

/* ---- state ---- */

static void set_msrs(int vcpu_fd)
{
	int done = CALL(vcpu_fd, KVM_SET_MSRS, &state.msrs);

	if (done != (int)state.msrs.head.nmsrs) {
		errno = 0;
		die("MSR 0x%x was refused: run `floor prepare` again",
		    state.msrs.entry[done].index);
	}
}

/* Extended state before what depends on it; LAPIC before MSRs: the TSC deadline is one of them. */
static void set_state(struct vm *vm)
{
	CALL(vm->vm_fd, KVM_SET_CLOCK, &state.clock);
	CALL(vm->vcpu_fd, KVM_SET_MP_STATE, &state.mp);
	CALL(vm->vcpu_fd, KVM_SET_REGS, &state.regs);
	CALL(vm->vcpu_fd, KVM_SET_SREGS, &state.sregs);
	CALL(vm->vcpu_fd, KVM_SET_XCRS, &state.xcrs);
	CALL(vm->vcpu_fd, KVM_SET_XSAVE, &state.xsave);
	CALL(vm->vcpu_fd, KVM_SET_LAPIC, &state.lapic);
	set_msrs(vm->vcpu_fd);
	CALL(vm->vcpu_fd, KVM_SET_VCPU_EVENTS, &state.events);
}

/* Every MSR of KVM's list that it lets us read and write back, one by one. */
static void save_msrs(struct vm *vm)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[1024];
	} list = { .head.nmsrs = 1024 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one;
	unsigned count = 0;

	CALL(vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, &list);
	for (unsigned i = 0; i < list.head.nmsrs && count < MSR_MAX; i++) {
		memset(&one, 0, sizeof(one));
		one.head.nmsrs = 1;
		one.entry.index = list.index[i];
		if (ioctl(vm->vcpu_fd, KVM_GET_MSRS, &one) != 1)
			continue;
		if (ioctl(vm->vcpu_fd, KVM_SET_MSRS, &one) != 1)
			continue;
		state.msrs.entry[count++] = one.entry;
	}
	state.msrs.head.nmsrs = count;
}

static void save_state(struct vm *vm)
{
	CALL(vm->vm_fd, KVM_GET_CLOCK, &state.clock);
	state.clock.flags = 0; /* KVM says more than it takes back */
	CALL(vm->vcpu_fd, KVM_GET_MP_STATE, &state.mp);
	CALL(vm->vcpu_fd, KVM_GET_REGS, &state.regs);
	CALL(vm->vcpu_fd, KVM_GET_SREGS, &state.sregs);
	CALL(vm->vcpu_fd, KVM_GET_XCRS, &state.xcrs);
	CALL(vm->vcpu_fd, KVM_GET_XSAVE, &state.xsave);
	CALL(vm->vcpu_fd, KVM_GET_LAPIC, &state.lapic);
	CALL(vm->vcpu_fd, KVM_GET_VCPU_EVENTS, &state.events);
	save_msrs(vm);
}

/* ---- modes ---- */

static void boot(struct vm *vm)
{
	build(vm, map_ram(NULL, MAP_ANONYMOUS, -1));
	memcpy(vm->ram + CODE_GPA, guest_code, sizeof(guest_code));
	step("guest code");
	set_supported_cpuid(vm);
	set_boot_regs(vm);
	run_to_doorbell(vm);
}

static void restore(struct vm *vm, const char *dir)
{
	read_file(dir, "cpuid", &cpuid, sizeof(cpuid));
	read_file(dir, "state", &state, sizeof(state));
	build(vm, map_memory_file(NULL, dir));
	CALL(vm->vcpu_fd, KVM_SET_CPUID2, &cpuid);
	set_state(vm);
	run_to_doorbell(vm);
}

static void pooled(struct vm *vm, const char *dir)
{
	char go;

	read_file(dir, "cpuid", &cpuid, sizeof(cpuid));
	build(vm, map_ram(NULL, MAP_ANONYMOUS, -1));
	CALL(vm->vcpu_fd, KVM_SET_CPUID2, &cpuid);
	mark();
	errno = 0;
	if (read(GO_FD, &go, 1) != 1)
		die("descriptor 4");
	step("go");
	read_file(dir, "state", &state, sizeof(state));
	map_memory_file(vm->ram, dir);
	set_state(vm);
	run_to_doorbell(vm);
}

static void prepare(const char *dir)
{
	struct vm vm;
	int fd;

	boot(&vm);
	vm.run->immediate_exit = 1; /* completes the store, so that the saved RIP is past it */
	if (ioctl(vm.vcpu_fd, KVM_RUN, 0) == 0 || errno != EINTR)
		die("completing the guest's store");
	save_state(&vm);
	write_file(dir, "cpuid", &cpuid, sizeof(cpuid));
	write_file(dir, "state", &state, sizeof(state));

	fd = open_in(dir, "memory", O_WRONLY | O_CREAT | O_TRUNC);
	if (ftruncate(fd, RAM_LEN) < 0 ||
	    pwrite(fd, guest_code, sizeof(guest_code), CODE_GPA) != sizeof(guest_code))
		die("writing %s/memory", dir);
	close(fd);
	printf("%u CPUID entries, %u MSRs\n", cpuid.head.nent, state.msrs.head.nmsrs);
}

static void write_synced(const char *dir, unsigned long mib)
{
	static uint8_t chunk[1 << 20];
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (dir_fd < 0)
		die("%s", dir);
	memset(chunk, 0x5a, sizeof(chunk));
	fd = open_in(dir, "floor.new", O_WRONLY | O_CREAT | O_TRUNC);
	for (unsigned long i = 0; i < mib; i++)
		if (write(fd, chunk, sizeof(chunk)) != sizeof(chunk))
			die("writing %s/floor.new", dir);
	if (fsync(fd) < 0 || renameat(dir_fd, "floor.new", dir_fd, "floor.data") < 0 ||
	    fsync(dir_fd) < 0)
		die("publishing %s/floor.data", dir);
}

static void write_times(const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s", path);
	fputc('[', f);
	for (unsigned i = 0; i < step_count; i++)
		fprintf(f, "%s[\"%s\", %llu]", i ? ",\n " : "", steps[i].name,
			(unsigned long long)steps[i].at_ns);
	fputs("]\n", f);
	if (fclose(f) != 0)
		die("%s", path);
}

__attribute__((noreturn)) static void usage(void)
{
	fputs("usage: floor [--times FILE] boot | restore DIR | pooled DIR\n"
	      "       floor prepare DIR\n"
	      "       floor write DIR MIB\n"
	      "Descriptor 3 gets a byte at the first guest exit (write: when the data is on disk).\n",
	      stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	const char *times = NULL;
	const char *mode, *dir;
	struct vm vm;

	if (argc > 2 && strcmp(argv[1], "--times") == 0) {
		times = argv[2];
		argc -= 2;
		argv += 2;
		want_times = true;
	}
	step("main");
	mode = argc > 1 ? argv[1] : "";
	dir = argc > 2 ? argv[2] : NULL;
	if (argc == 3 && strcmp(mode, "prepare") == 0) {
		prepare(dir);
		return 0;
	}
	if (argc == 2 && strcmp(mode, "boot") == 0)
		boot(&vm);
	else if (argc == 3 && strcmp(mode, "restore") == 0)
		restore(&vm, dir);
	else if (argc == 3 && strcmp(mode, "pooled") == 0)
		pooled(&vm, dir);
	else if (argc == 4 && strcmp(mode, "write") == 0)
		write_synced(dir, strtoul(argv[3], NULL, 10));
	else
		usage();
	mark();
	if (times)
		write_times(times);
	return 0;
}
