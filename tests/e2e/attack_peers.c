/* SPDX-License-Identifier: Apache-2.0 */
/* attack_peers.c - other processes, other VMs, and what listens. See attack.h. */
#include "attack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- processes ---- */

static const char *ptrace_vm(void)
{
	return GOT_IF(ptrace(PTRACE_SEIZE, prize.vm, NULL, NULL), "another VM");
}

static const char *ptrace_keeper(void)
{
	return GOT_IF(ptrace(PTRACE_SEIZE, prize.keeper, NULL, NULL), "a keeper");
}

static const char *ptrace_low(void)
{
	for (pid_t pid = 1; pid < 64; pid++)
		if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0)
			return "a process";
	return NULL;
}

static const char *read_vm(void)
{
	char there[16], here[16];
	struct iovec local = {here, sizeof(here)}, remote = {there, sizeof(there)};

	return GOT_IF(process_vm_readv(prize.vm, &local, 1, &remote, 1, 0), "a VM's memory");
}

static const char *write_keeper(void)
{
	char there[16], here[16] = "";
	struct iovec local = {here, sizeof(here)}, remote = {there, sizeof(there)};

	return GOT_IF(process_vm_writev(prize.keeper, &local, 1, &remote, 1, 0),
		"a keeper's memory");
}

static const char *kill_vm(void)
{
	return GOT_IF(kill(prize.vm, SIGTERM), "another VM's end");
}

static const char *kill_keeper(void)
{
	return GOT_IF(kill(prize.keeper, SIGTERM), "a keeper's end");
}

static const char *kill_all(void)
{
	return GOT_IF(kill(-1, SIGCONT), "everybody's attention");
}

/*
 * The group is also the keeper's, outside of the pid namespace. We are in it, so it is no error,
 * but the first process of a namespace is not killed from inside: the test sees who is.
 */
static const char *kill_group(void)
{
	kill(0, SIGKILL);
	errno = EPERM;
	return NULL;
}

static const char *tgkill_vm(void)
{
	return GOT_IF(syscall(SYS_tgkill, prize.vm, prize.vm, SIGTERM), "another VM's end");
}

static const char *tkill_vm(void)
{
	return GOT_IF(syscall(SYS_tkill, prize.vm, SIGTERM), "another VM's end");
}

static const char *queue_vm(void)
{
	siginfo_t si = {.si_signo = SIGTERM, .si_code = SI_QUEUE};

	return GOT_IF(syscall(SYS_rt_sigqueueinfo, prize.vm, SIGTERM, &si), "another VM's end");
}

static const char *pidfd_vm(void)
{
	return GOT_IF(syscall(SYS_pidfd_open, prize.vm, 0), "a handle of another VM");
}

static const char *pidfd_low(void)
{
	for (pid_t pid = 2; pid < 256; pid++)
		if (pid != (pid_t)syscall(SYS_gettid) && syscall(SYS_pidfd_open, pid, 0) >= 0)
			return "a handle of a process";
	return NULL;
}

static const char *limit_vm(void)
{
	struct rlimit none = {0, 0};

	return GOT_IF(prlimit(prize.vm, RLIMIT_NOFILE, &none, NULL), "another VM's limits");
}

static const char *nice_vm(void)
{
	return GOT_IF(setpriority(PRIO_PROCESS, (id_t)prize.vm, 19), "another VM's priority");
}

static const char *nice_user(void)
{
	return GOT_IF(setpriority(PRIO_USER, prize.vm_uid, 19), "another VM's priority");
}

static const char *move_pages_vm(void)
{
	void *page = NULL;
	int where;

	return GOT_IF(syscall(SYS_move_pages, prize.vm, 1, &page, NULL, &where, 0),
		"where a VM's memory is");
}

static const char *compare(void)
{
	return GOT_IF(syscall(SYS_kcmp, getpid(), prize.vm, 0, 0, 0), "what another VM has open");
}

/* ---- sockets ---- */

static const char *connect_to(int family, int type, const void *sa, size_t len, const char *what)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	return fd < 0 || connect(fd, sa, (socklen_t)len) ? NULL : what;
}

static const char *tcp(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((in_port_t)prize.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	return connect_to(AF_INET, SOCK_STREAM, &sa, sizeof(sa), "a server on this host");
}

static const char *udp(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(53),
		.sin_addr.s_addr = htonl(0x08080808)};

	return connect_to(AF_INET, SOCK_DGRAM, &sa, sizeof(sa), "a route to the world");
}

static const char *listen_tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(8080)};

	return fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1)
		? NULL : "a server of its own";
}

static const char *unix_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memcpy(sa.sun_path, path, sizeof(sa.sun_path) - 1);
	return connect_to(AF_UNIX, SOCK_STREAM, &sa, sizeof(sa), "a server on this host");
}

static const char *unix_path(void)
{
	return unix_at(prize.sock);
}

static const char *unix_api(void)
{
	return unix_at(prize.api);
}

static const char *unix_abstract(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t len = strlen(prize.name);

	memcpy(sa.sun_path + 1, prize.name, len);
	return connect_to(AF_UNIX, SOCK_STREAM, &sa,
		offsetof(struct sockaddr_un, sun_path) + 1 + len, "a server on this host");
}

static const char *host_vsock(void)
{
	for (unsigned cid = VMADDR_CID_LOCAL; cid <= VMADDR_CID_HOST + 2; cid++) {
		struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = cid,
			.svm_port = (unsigned)prize.vsock};
		int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return NULL;
		if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return "a server on this host";
	}
	return NULL;
}

/* It opens; what does it show? */
static const char *netlink(void)
{
	struct {
		struct nlmsghdr head;
		char body[32];
	} ask = {.head = {.nlmsg_len = sizeof(ask), .nlmsg_type = 16 /* RTM_NEWLINK */,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE}};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr err;
		char rest[512];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		return NULL;
	errno = -answer.err.error;
	return answer.head.nlmsg_type == NLMSG_ERROR && answer.err.error ? NULL
									 : "a network interface";
}

static const char *packet(void)
{
	return GOT_IF(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "raw frames");
}

static const char *raw(void)
{
	return GOT_IF(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP), "raw packets");
}

static const char *pair(void)
{
	int fds[2];

	return GOT_IF(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "sockets of its own");
}

const struct attack attacks_on_peers[] = {
	{"ptrace-vm", ptrace_vm},
	{"ptrace-keeper", ptrace_keeper},
	{"ptrace-low", ptrace_low},
	{"process-vm-readv", read_vm},
	{"process-vm-writev", write_keeper},
	{"kill-vm", kill_vm},
	{"kill-keeper", kill_keeper},
	{"kill-all", kill_all},
	{"kill-group", kill_group},
	{"tgkill-vm", tgkill_vm},
	{"tkill-vm", tkill_vm},
	{"sigqueue-vm", queue_vm},
	{"pidfd-vm", pidfd_vm},
	{"pidfd-low", pidfd_low},
	{"prlimit-vm", limit_vm},
	{"nice-vm", nice_vm},
	{"nice-user", nice_user},
	{"move-pages-vm", move_pages_vm},
	{"kcmp", compare},
	{"tcp", tcp},
	{"udp", udp},
	{"listen", listen_tcp},
	{"unix-path", unix_path},
	{"unix-api", unix_api},
	{"unix-abstract", unix_abstract},
	{"vsock", host_vsock},
	{"netlink", netlink},
	{"packet", packet},
	{"raw", raw},
	{"socketpair", pair},
	{NULL, NULL},
};
