/* SPDX-License-Identifier: Apache-2.0 */
/* attack_kernel.c - more rights, and all that the kernel has to offer. See attack.h. */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdbool.h>
#include <signal.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX    2048
#define FORKS_MAX  4096
#define EAT_MAX    (8ull << 30)
#define SESSION    (-3l) /* KEY_SPEC_SESSION_KEYRING */
#define USER_KEYS  (-4l) /* KEY_SPEC_USER_KEYRING */
#define KEY_SEARCH 10

static int status_of(pid_t pid)
{
	int status = 0;

	waitpid(pid, &status, 0);
	return status;
}

/* ---- namespaces, ids, capabilities ---- */

static const char *unshare_user(void)
{
	return GOT_IF(unshare(CLONE_NEWUSER), "a user namespace");
}

static const char *unshare_mount(void)
{
	return GOT_IF(unshare(CLONE_NEWNS), "a mount namespace");
}

static const char *unshare_net(void)
{
	return GOT_IF(unshare(CLONE_NEWNET), "a net namespace");
}

static const char *clone_with(unsigned long flags, const char *what)
{
	long pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return GOT_IF(pid, what);
}

static const char *clone_user(void)
{
	return clone_with(CLONE_NEWUSER, "a user namespace");
}

static const char *clone_pid(void)
{
	return clone_with(CLONE_NEWPID, "a pid namespace");
}

/* The capabilities one has in there: over what? */
static const char *inside_user(void)
{
	long pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(mount("none", "/", "tmpfs", 0, NULL) == 0 ||
			mount("none", "/", "proc", 0, NULL) == 0 ||
			mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0 ||
			umount2("/", MNT_DETACH) == 0 || syscall(SYS_setuid, 0) == 0 ||
			syscall(SYS_setuid, prize.vm_uid) == 0 || syscall(SYS_setns, 0, 0) == 0);
	if (pid > 0 && status_of((pid_t)pid))
		return "rights by a user namespace";
	errno = EPERM;
	return NULL;
}

static const char *clone3_user(void)
{
	struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWNS, .exit_signal = SIGCHLD};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		_exit(0);
	return GOT_IF(pid, "a user namespace");
}

static const char *set_uid(void)
{
	return GOT_IF(syscall(SYS_setuid, 0), "root");
}

static const char *set_uid_vm(void)
{
	return GOT_IF(syscall(SYS_setresuid, prize.vm_uid, prize.vm_uid, prize.vm_uid),
		"another VM's user");
}

static const char *set_gid(void)
{
	return GOT_IF(syscall(SYS_setgid, 0), "root's group");
}

static const char *set_groups(void)
{
	const gid_t group = 0;

	return GOT_IF(syscall(SYS_setgroups, 1, &group), "root's group");
}

/* Changes the calling thread's file system id only, and returns the one before. */
static const char *set_fsuid(void)
{
	syscall(SYS_setfsuid, 0);
	if (syscall(SYS_setfsuid, 0) == 0)
		return "root's files";
	errno = EPERM;
	return NULL;
}

static const char *cap_set(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {{1u << CAP_SYS_ADMIN, 1u << CAP_SYS_ADMIN, 0}};

	return GOT_IF(syscall(SYS_capset, &head, sets), "CAP_SYS_ADMIN");
}

static const char *cap_ambient(void)
{
	return GOT_IF(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0),
		"CAP_SYS_ADMIN");
}

static const char *dumpable(void)
{
	return GOT_IF(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "to be traced");
}

static const char *new_privs(void)
{
	return GOT_IF(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), "new privileges");
}

static const char *securebits(void)
{
	return GOT_IF(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), "securebits");
}

static const char *death_signal(void)
{
	return GOT_IF(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0), "to outlive its keeper's name");
}

/* ---- programs and threads ---- */

static const char *exec_shell(void)
{
	char sh[] = "/bin/sh", *argv[] = {sh, NULL};

	execv(sh, argv);
	return NULL;
}

/* ELF header, one program header, exit(42). */
static const unsigned char program[] = {
	0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0,
	64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
	1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
	0x84, 0, 0, 0, 0, 0, 0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0,
	0, 0x10, 0, 0, 0, 0, 0, 0,
	0xb8, 60, 0, 0, 0, 0xbf, 42, 0, 0, 0, 0x0f, 0x05,
};

static const char *exec_memfd(void)
{
	int fd = memfd_create("x", 0);
	char name[] = "x", *argv[] = {name, NULL};
	pid_t pid;

	if (fd < 0 || write(fd, program, sizeof(program)) != (ssize_t)sizeof(program))
		return NULL;
	pid = fork();
	if (pid == 0) {
		syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH);
		_exit(1);
	}
	if (pid > 0 && WEXITSTATUS(status_of(pid)) == 42)
		return "a program of its own";
	errno = EACCES;
	return NULL;
}

/* As many processes as there can be. They end with us, at the latest. */
static const char *fork_bomb(void)
{
	unsigned n = 0;
	pid_t pid = 0;

	while (n < FORKS_MAX && (pid = fork()) > 0)
		n++;
	if (pid == 0) {
		for (;;)
			pause();
	}
	return n < 200 ? NULL : "more processes than it may have";
}

static int idle(void *arg)
{
	return 0;
}

static const char *thread(void)
{
	static char stack[16384] __attribute__((aligned(16)));

	return GOT_IF(clone(idle, stack + sizeof(stack), CLONE_VM | CLONE_FS | CLONE_FILES |
				CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL),
		"a thread of its own");
}

/* ---- limits and priorities ---- */

static const char *more_files(void)
{
	struct rlimit more = {65536, 65536};

	return GOT_IF(setrlimit(RLIMIT_NOFILE, &more), "more descriptors");
}

static const char *more_processes(void)
{
	struct rlimit more = {65536, 65536};

	return GOT_IF(setrlimit(RLIMIT_NPROC, &more), "more processes");
}

static const char *core_dumps(void)
{
	struct rlimit more = {1 << 20, 1 << 20};

	return GOT_IF(setrlimit(RLIMIT_CORE, &more), "core dumps");
}

static const char *real_time(void)
{
	struct sched_param p = {.sched_priority = 50};

	return GOT_IF(sched_setscheduler(0, SCHED_FIFO, &p), "a processor for itself");
}

static const char *nice_up(void)
{
	return GOT_IF(setpriority(PRIO_PROCESS, 0, -20), "a higher priority");
}

static const char *io_priority(void)
{
	return GOT_IF(syscall(SYS_ioprio_set, 1, 0, 1 << 13), "real-time I/O");
}

static const char *affinity(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	return GOT_IF(sched_setaffinity(0, sizeof(set), &set), "a choice of processors");
}

/* Ends by the kernel's hand, where there is a memory cgroup. */
static const char *eat_memory(void)
{
	for (size_t n = 0; n < EAT_MAX; n += 1 << 20) {
		char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (p == MAP_FAILED)
			return NULL;
		memset(p, 1, 1 << 20);
	}
	return "8 GiB of memory";
}

static const char *lock_memory(void)
{
	return GOT_IF(mlockall(MCL_CURRENT | MCL_FUTURE), "memory that cannot be swapped");
}

/* ---- the machine ---- */

static const char *restart(void)
{
	return GOT_IF(reboot(RB_DISABLE_CAD), "the host's power");
}

static const char *load_module(void)
{
	return GOT_IF(syscall(SYS_init_module, program, sizeof(program), ""), "the kernel");
}

static const char *load_kernel(void)
{
	return GOT_IF(syscall(SYS_kexec_load, 0ul, 0ul, NULL, 0ul), "the next kernel");
}

static const char *io_level(void)
{
	return GOT_IF(iopl(3), "all ports");
}

static const char *io_ports(void)
{
	return GOT_IF(ioperm(0x70, 2, 1), "the clock's ports");
}

static const char *host_name(void)
{
	return GOT_IF(sethostname("x", 1), "a host name");
}

static const char *set_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return GOT_IF(syscall(SYS_clock_settime, CLOCK_REALTIME, &now), "the time");
}

static const char *set_day(void)
{
	struct timeval now;

	gettimeofday(&now, NULL);
	return GOT_IF(syscall(SYS_settimeofday, &now, NULL), "the time");
}

static const char *adjust_clock(void)
{
	struct timex t = {.modes = ADJ_FREQUENCY};

	return GOT_IF(adjtimex(&t), "the clock's speed");
}

static const char *account(void)
{
	return GOT_IF(acct(NULL), "accounting");
}

static const char *clear_log(void)
{
	return GOT_IF(syscall(SYS_syslog, 5, NULL, 0), "the kernel's log");
}

/* ---- interfaces of the kernel ---- */

static const char *load_bpf(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8,
		.max_entries = 1};

	return GOT_IF(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)), "bpf");
}

static const char *perf(pid_t pid, bool kernel, const char *what)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr),
		.config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = !kernel, .exclude_hv = 1};

	return GOT_IF(syscall(SYS_perf_event_open, &attr, pid, pid < 0 ? 0 : -1, -1, 0), what);
}

static const char *perf_kernel(void)
{
	return perf(0, true, "counters of the kernel");
}

static const char *perf_all(void)
{
	return perf(-1, false, "counters of everybody");
}

static const char *perf_vm(void)
{
	return perf(prize.vm, false, "counters of another VM");
}

static const char *perf_own(void)
{
	return perf(0, false, "counters of itself");
}

static const char *user_fault(void)
{
	return GOT_IF(syscall(SYS_userfaultfd, 0), "faults of the kernel");
}

static const char *user_fault_own(void)
{
	return GOT_IF(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */), "its own faults");
}

static const char *find_key(void)
{
	return GOT_IF(syscall(SYS_keyctl, KEY_SEARCH, SESSION, "user", "kelvin-prize", 0),
		"a key of whoever started it");
}

static const char *add_key(void)
{
	return GOT_IF(syscall(SYS_add_key, "user", "x", "x", 1, USER_KEYS), "a key of its own");
}

static const char *share_memory(void)
{
	return GOT_IF(shmget(0x6b656c76, 4096, IPC_CREAT | 0666), "shared memory of its own");
}

static const char *find_shared(void)
{
	return GOT_IF(shmget(0x6b656c77, 0, 0), "shared memory of the host");
}

static const char *queue(void)
{
	return GOT_IF(syscall(SYS_msgget, 1, IPC_CREAT | 0666), "a queue of its own");
}

static const char *semaphore(void)
{
	return GOT_IF(syscall(SYS_semget, 1, 1, IPC_CREAT | 0666), "a semaphore of its own");
}

static const char *posix_queue(void)
{
	return GOT_IF(syscall(SYS_mq_open, "x", O_RDWR | O_CREAT, 0600, NULL), "a queue of its own");
}

static const char *new_ring(void)
{
	struct io_uring_params p = {0};

	return GOT_IF(syscall(SYS_io_uring_setup, 8, &p), "a ring of its own");
}

static const char *new_memfd(void)
{
	return GOT_IF(memfd_create("x", 0), "a file in memory");
}

static const char *map_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : "code of its own";
}

static const char *change_code(void)
{
	static char page[8192] __attribute__((aligned(4096)));

	return GOT_IF(mprotect(page, 4096, PROT_READ | PROT_EXEC), "code of its own");
}

static const char *persona(void)
{
	return GOT_IF(personality(ADDR_NO_RANDOMIZE), "addresses that are known");
}

static const char *new_kvm(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (ioctl(fd, KVM_CREATE_VM, 0) >= 0)
			return "a VM of its own";
	return NULL;
}

const struct attack attacks_on_kernel[] = {
	{"unshare-user", unshare_user},
	{"unshare-mount", unshare_mount},
	{"unshare-net", unshare_net},
	{"clone-user", clone_user},
	{"clone-pid", clone_pid},
	{"clone3-user", clone3_user},
	{"inside-user", inside_user},
	{"setuid", set_uid},
	{"setuid-vm", set_uid_vm},
	{"setgid", set_gid},
	{"setgroups", set_groups},
	{"setfsuid", set_fsuid},
	{"capset", cap_set},
	{"cap-ambient", cap_ambient},
	{"dumpable", dumpable},
	{"no-new-privs", new_privs},
	{"securebits", securebits},
	{"pdeathsig", death_signal},
	{"execve", exec_shell},
	{"execveat-memfd", exec_memfd},
	{"fork-bomb", fork_bomb},
	{"thread", thread},
	{"rlimit-nofile", more_files},
	{"rlimit-nproc", more_processes},
	{"rlimit-core", core_dumps},
	{"sched-fifo", real_time},
	{"nice-up", nice_up},
	{"ioprio", io_priority},
	{"affinity", affinity},
	{"eat-memory", eat_memory},
	{"mlockall", lock_memory},
	{"reboot", restart},
	{"init-module", load_module},
	{"kexec", load_kernel},
	{"iopl", io_level},
	{"ioperm", io_ports},
	{"sethostname", host_name},
	{"clock-settime", set_clock},
	{"settimeofday", set_day},
	{"adjtimex", adjust_clock},
	{"acct", account},
	{"syslog", clear_log},
	{"bpf", load_bpf},
	{"perf-kernel", perf_kernel},
	{"perf-all", perf_all},
	{"perf-vm", perf_vm},
	{"perf-own", perf_own},
	{"userfaultfd", user_fault},
	{"userfaultfd-own", user_fault_own},
	{"session-key", find_key},
	{"add-key", add_key},
	{"shmget", share_memory},
	{"shmget-host", find_shared},
	{"msgget", queue},
	{"semget", semaphore},
	{"mq-open", posix_queue},
	{"io-uring-setup", new_ring},
	{"memfd", new_memfd},
	{"mmap-exec", map_code},
	{"mprotect-exec", change_code},
	{"personality", persona},
	{"kvm-create-vm", new_kvm},
	{NULL, NULL},
};
