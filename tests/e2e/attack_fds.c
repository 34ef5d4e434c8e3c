/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack_fds.c - what the monitor has open, used for what it was not meant for; and "report", which
 * looks whether the jail is whole. See attack.h.
 */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX 2048
#define LOG_MAX (2ull << 30)

/* ---- the ring ---- */

static const char *on_ring(struct io_uring_sqe *from, const char *what)
{
	struct io_uring *ring = attack_ring();
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int r;

	if (!sqe)
		return NULL;
	*sqe = *from;
	sqe->user_data = 0; /* which the loop throws away */
	r = io_uring_submit_and_wait(ring, 1);
	if (r >= 0)
		r = io_uring_peek_cqe(ring, &cqe);
	if (r >= 0)
		r = cqe->res;
	errno = r < 0 ? -r : 0;
	return GOT_IF(r, what);
}

static const char *ring_open(void)
{
	struct io_uring_sqe sqe = {0};

	io_uring_prep_openat(&sqe, AT_FDCWD, prize.secret, O_RDONLY, 0);
	return on_ring(&sqe, "a file by its ring");
}

static const char *ring_socket(void)
{
	struct io_uring_sqe sqe = {0};

	io_uring_prep_socket(&sqe, AF_INET, SOCK_STREAM, 0, 0);
	return on_ring(&sqe, "a socket by its ring");
}

static const char *ring_command(void)
{
	struct io_uring_sqe sqe = {.opcode = IORING_OP_URING_CMD, .fd = attack_keeper_fd()};

	return on_ring(&sqe, "a command by its ring");
}

static const char *ring_splice(void)
{
	struct io_uring_sqe sqe = {0};

	io_uring_prep_splice(&sqe, attack_log_fd(), 0, attack_notify_fd(), 0, 1, 0);
	return on_ring(&sqe, "a splice by its ring");
}

static const char *ring_personality(void)
{
	struct io_uring_sqe sqe = {.opcode = IORING_OP_NOP, .personality = 1};

	return on_ring(&sqe, "another's rights by its ring");
}

static const char *ring_unlink(void)
{
	struct io_uring_sqe sqe = {0};

	io_uring_prep_unlinkat(&sqe, AT_FDCWD, prize.secret, 0);
	return on_ring(&sqe, "a file's end by its ring");
}

static const char *ring_lift(void)
{
	struct io_uring_restriction res = {.opcode = IORING_RESTRICTION_SQE_OP,
		.sqe_op = IORING_OP_OPENAT};

	return GOT_IF(syscall(SYS_io_uring_register, attack_ring()->ring_fd,
		IORING_REGISTER_RESTRICTIONS, &res, 1), "more opcodes");
}

static const char *ring_workers(void)
{
	unsigned max[2] = {1000, 1000};

	return GOT_IF(syscall(SYS_io_uring_register, attack_ring()->ring_fd,
		IORING_REGISTER_IOWQ_MAX_WORKERS, max, 2), "more workers");
}

/* ---- files and devices that are open ---- */

/* Numbers of frames tell which memory to hammer. */
static const char *frames(void)
{
	static volatile char page[4096] __attribute__((aligned(4096)));
	uint64_t entry = 0;

	page[0] = 1;
	for (int fd = 3; fd < FDS_MAX; fd++)
		if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / 4096 * 8)) ==
				(ssize_t)sizeof(entry) &&
			(entry >> 63) && (entry & ((1ull << 55) - 1)))
			return "where its memory is in the host's";
	errno = EPERM;
	return NULL;
}

/* So that a verb takes another process for this VM: into whatever could be its pid file. The VM goes
 * on. */
static const char *write_pid_file(const char *text)
{
	struct stat st;

	for (int fd = 3; fd < FDS_MAX; fd++)
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size < 12 &&
			pwrite(fd, text, strlen(text), 0) > 0)
			return "its pid file";
	return NULL;
}

static const char *pid_file(void)
{
	char text[16];

	snprintf(text, sizeof(text), "%d\n", prize.vm);
	return write_pid_file(text);
}

/* The same by the pipe on which a detached VM tells how it starts. */
static const char *pid_told(void)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "pid %d\n", prize.vm);

	return GOT_IF(write(attack_notify_fd(), text, (size_t)n), "its starter's ear");
}

static const char *pid_file_says_all(void)
{
	return write_pid_file("-1\n\n\n\n\n\n");
}

static const char *inherited(void)
{
	char byte;

	return GOT_IF(pread(prize.fd, &byte, 1, 0), "what its starter had open");
}

static const char *inherited_dir(void)
{
	return GOT_IF(openat(prize.fd, "etc/passwd", O_RDONLY | O_CLOEXEC),
		"files by a descriptor of its starter");
}

static const char *fill_log(void)
{
	static char block[1 << 20];

	for (size_t n = 0; n < LOG_MAX; n += sizeof(block))
		if (write(attack_log_fd(), block, sizeof(block)) < 0)
			return NULL;
	return "2 GiB of /run";
}

/* Who has it can read what is typed for others, in the background. */
static const char *find_terminal(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (isatty(fd))
			return "a terminal";
	return GOT_IF(open("/dev/tty", O_RDWR), "a terminal by name");
}

static const char *type_for_shell(void)
{
	static const char line[] = "echo typed by the guest\n";

	for (const char *p = line; *p; p++)
		if (ioctl(STDIN_FILENO, TIOCSTI, p))
			return NULL;
	return "the terminal's input";
}

/* The leader of a session may make a terminal its own, and who leads no group may be that. */
static const char *take_terminal(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
		_exit(type_for_shell() != NULL);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
		!WEXITSTATUS(status)) {
		errno = EPERM;
		return NULL;
	}
	return "the terminal's input";
}

static const char *paste_for_shell(void)
{
	char subcode = 3; /* TIOCL_PASTESEL */

	return GOT_IF(ioctl(STDIN_FILENO, TIOCLINUX, &subcode), "the console's input");
}

static const char *other_tap(void)
{
	struct ifreq r = {.ifr_name = "kelvin-x", .ifr_flags = IFF_TAP | IFF_NO_PI};

	for (int fd = 0; fd < FDS_MAX; fd++)
		if (ioctl(fd, TUNSETIFF, &r) == 0)
			return "a tap of its own";
	return NULL;
}

static const char *own_signals(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (fcntl(fd, F_SETOWN, prize.vm) == 0)
			return "signals for another VM";
	return NULL;
}

/* ---- the jail, seen from inside; with --seccomp=log ---- */

static bool landlocked(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 && errno == EACCES;
}

static bool has_caps(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {0};

	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) ||
			prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0))
			return true;
	return syscall(SYS_capget, &head, sets) || sets[0].effective || sets[0].permitted ||
		sets[0].inheritable || sets[1].effective || sets[1].permitted ||
		sets[1].inheritable;
}

static bool has_limits(void)
{
	struct rlimit files, core, processes;

	return !getrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_CORE, &core) &&
		!getrlimit(RLIMIT_NPROC, &processes) && files.rlim_max <= 2048 && !core.rlim_max &&
		processes.rlim_max < 1000;
}

static bool is_nobody(void)
{
	uid_t u[3];
	gid_t g[3];

	if (syscall(SYS_getresuid, &u[0], &u[1], &u[2]) ||
		syscall(SYS_getresgid, &g[0], &g[1], &g[2]))
		return false;
	for (unsigned i = 0; i < 3; i++)
		if (u[i] < 0x70000000 || u[i] != u[0] || g[i] != u[0])
			return false;
	return syscall(SYS_getgroups, 0, NULL) == 0;
}

static bool has_host_net(void)
{
	struct ifreq r = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r) || (r.ifr_flags & IFF_UP);
}

static const char *missing(void)
{
	bool vcpu = syscall(SYS_gettid) != getpid();
	int sig = 0;

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2)
		return "no filter";
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return "new privileges";
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		return "to be traced";
	if (!vcpu && (prctl(PR_GET_PDEATHSIG, &sig, 0, 0, 0) || sig != SIGKILL))
		return "to outlive its keeper";
	if (getpid() != 1)
		return "the host's processes";
	if (!is_nobody())
		return "its user";
	if (has_caps())
		return "capabilities";
	if (!has_limits())
		return "no limits";
	if (has_host_net())
		return "the host's network";
	if (access("/proc", F_OK) == 0 || access("/etc", F_OK) == 0)
		return "the host's files";
	/* In the main thread the filter answers this one. */
	if (vcpu && !landlocked())
		return "no Landlock";
	errno = EPERM;
	return NULL;
}

/* Twice: where calls are made to fail, one of these can be the one. */
static const char *report(void)
{
	const char *what = missing();

	return what ? missing() : NULL;
}

const struct attack attacks_by_fd[] = {
	{"ring-openat", ring_open},
	{"ring-socket", ring_socket},
	{"ring-command", ring_command},
	{"ring-splice", ring_splice},
	{"ring-personality", ring_personality},
	{"ring-unlink", ring_unlink},
	{"ring-lift", ring_lift},
	{"ring-workers", ring_workers},
	{"pagemap", frames},
	{"pid-file", pid_file},
	{"pid-file-all", pid_file_says_all},
	{"pid-told", pid_told},
	{"inherited", inherited},
	{"inherited-dir", inherited_dir},
	{"fill-log", fill_log},
	{"tty-find", find_terminal},
	{"tiocsti", type_for_shell},
	{"tiocsctty", take_terminal},
	{"tioclinux", paste_for_shell},
	{"tunsetiff", other_tap},
	{"setown", own_signals},
	{"report", report},
	{NULL, NULL},
};
