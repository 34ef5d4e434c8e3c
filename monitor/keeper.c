/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - see keeper.h
 *
 * Theory of operation
 *
 * `kelvin run` in the foreground is the keeper itself, and the VM its child. With --detach a
 * process in the background keeps all VMs of one command. It sleeps in poll(2) on a signalfd and
 * on one socket a VM.
 *
 * Trust: a VM's process may be in its guest's hands, so what comes through its socket is hostile.
 * It can choose among three things: a port number, of which the keeper makes the path itself; that
 * its own directory is to be removed, which the keeper finds by the id that it knew before the VM
 * was born; and the text of its own exit report, of which it takes at most KEEPER_TEXT_MAX bytes.
 * (In the foreground of a terminal a fourth: the bytes that are shown there; terminal.h.) A
 * message that is anything else ends the VM, and a VM that is there yet some seconds after it took
 * leave, or was told to end, is killed. Before its guest runs it gives the keeper the lock of its
 * directory: it seems alive for as long as it is, and its name is free once the keeper has seen to
 * that. Nothing the keeper does for a living VM can wait for it: its sockets are non-blocking, and
 * answers that do not fit in the socket end the VM, too. Of a dead one the cgroup may take a second
 * to be empty.
 *
 * While a VM builds itself, its keeper makes what takes long: namespaces with nothing in them,
 * where the host has none yet, and, with cgroup v1, the VM's group. The VM waits for that
 * (KEEPER_GO) before it gives up its rights.
 *
 * A VM that dies, by whatever signal, is told by its end and by nothing else. Then the keeper
 * writes the report.
 */
#include "monitor/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jailer/jailer.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/sig.h"
#include "monitor/machine_int.h"
#include "monitor/terminal.h"
#include "monitor/verb.h"
#include "monitor/vmfind.h"
#include "virtio/vsock.h"

#define VOID_DIR "/run/kelvin.void" /* the namespaces of all VMs of this host */
#define KEPT_MAX (4 << 20) /* bytes of the log, and of the console, of a VM that ended */
#define BYE_NS 3000000000ull /* a VM that took leave has this long to end, but for last words */

struct kept {
	char id[VM_ID_MAX + 1];
	char vsock_path[SOCK_PATH_MAX];
	bool vsock_elsewhere; /* that is not in the VM's directory */
	dev_t vsock_dev;      /* then: the socket that the VM made there */
	ino_t vsock_ino;
	bool detach, json;
	pid_t number; /* its pid, for ever */
	pid_t pid;  /* the same; 0: it has ended */
	int socket; /* open to the keeper's end; see hang_up() */
	bool deaf;  /* nothing is read from it any more */
	int lock_fd; /* of its pid file, until its name is free; or -1 */
	int rest[2]; /* files that stay, until it can write to them no more; or -1 */
	bool here;  /* its directory is to be removed */
	u64 kill_ns; /* when it is killed, if it is there yet; 0: never */
	u64 timeout_ns, grace_ns;
	unsigned wide; /* connections that got more room */
	int status;    /* of waitpid() */
	struct cgroup cgroup; /* n 0: none */
};

struct keeper {
	int signal_fd;
	bool only_v2;           /* a process can be born into a cgroup: then that comes first */
	struct jail_void space; /* the host's, once the first is born */
	unsigned count, limit, alive;
	struct kept *vm;
	struct pollfd *poll;
	struct terminal terminal; /* of the one in the foreground */
};

int keeper_create(struct keeper **ret, unsigned limit, struct err *e)
{
	struct keeper *k = calloc(1, sizeof(*k));
	sigset_t set;

	if (k)
		k->vm = calloc(limit, sizeof(*k->vm));
	if (k)
		k->poll = calloc(limit + 1 + TERMINAL_WAYS, sizeof(*k->poll));
	if (!k || !k->vm || !k->poll)
		return err_sys(e, ENOMEM, "cannot keep VMs"); /* the process ends */
	k->limit = limit;
	terminal_none(&k->terminal);
	k->space = JAIL_VOID_NONE;
	k->only_v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (!sig_is_ignored(SIGHUP))
		sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* of one VM, or of whoever waits for them */
	k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->signal_fd < 0)
		return err_sys(e, errno, "cannot take signals");
	*ret = k;
	return 0;
}

/*
 * The child keeps nothing of the keeper's but its own socket. Signals stay blocked: to the first
 * process of a pid namespace they would be lost, not kept, until it takes them (machine.c).
 */
static void leave_keeper(struct keeper *k)
{
	for (unsigned i = 0; i < k->count; i++) {
		fd_close(&k->vm[i].socket);
		cgroup_close(&k->vm[i].cgroup);
	}
	fd_close(&k->signal_fd);
	jail_close_void(&k->space);
}

/* A name that nobody else has: the keeper's pid is in it, and the VM's number. */
static void cgroup_name(char out[CGROUP_NAME_MAX + 1], const struct keeper_vm *vm, unsigned number)
{
	static pid_t keeper;

	if (!keeper)
		keeper = getpid();
	snprintf(out, CGROUP_NAME_MAX + 1, "%.40s.%u.%d", vm->id, number, (int)keeper);
}

static int make_cgroup(struct kept *kept, const struct keeper_vm *vm, unsigned number,
	struct err *e)
{
	char name[CGROUP_NAME_MAX + 1];
	int r;

	if (!vm->limits || !vm->limits->n)
		return 0;
	cgroup_name(name, vm, number);
	r = cgroup_create(&cgroup_host_real, CGROUP_PARENT, name, vm->limits, &kept->cgroup, e);
	return vm->limits_asked ? r : 0;
}

#define JOIN_MAX 8u /* hierarchies that have a VM's group */

/* What goes with KEEPER_GO. */
struct parcel {
	int fd[JAIL_VOID_COUNT + JOIN_MAX];
	unsigned n;
	s32 bits;
};

/*
 * What can be done for a VM while it builds itself, which takes longer. It goes on when it has
 * heard how that went. The first descriptors of the parcel stay the keeper's.
 */
static int prepare(struct keeper *k, struct kept *kept, const struct keeper_vm *vm,
	unsigned layers, struct parcel *ret, struct err *e)
{
	int r = 0;

	if (layers && !(layers & JAIL_USER) && k->space.fd[0] < 0)
		r = jail_get_void(VOID_DIR, &k->space, e);
	if (r)
		return r;
	if (k->space.fd[0] >= 0) {
		memcpy(ret->fd, k->space.fd, sizeof(k->space.fd));
		ret->n = JAIL_VOID_COUNT;
		ret->bits |= KEEPER_HAS_VOID;
	}
	if (!k->only_v2)
		r = make_cgroup(kept, vm, k->count - 1, e);
	if (!r && kept->cgroup.n && cgroup_fd(&kept->cgroup) < 0)
		r = cgroup_join_fds(&kept->cgroup, ret->fd + ret->n, JOIN_MAX, e);
	if (r > 0)
		ret->n += (unsigned)r;
	if (kept->cgroup.n)
		ret->bits |= KEEPER_IS_GROUPED;
	return r < 0 ? r : 0;
}

/* Tells the VM to go on, or, with @why, that it cannot. One that is dead does not mind. */
static void let_go(struct kept *kept, const struct parcel *p, const struct err *why)
{
	struct keeper_msg m = {KEEPER_GO, why ? -1 : p->bits};
	struct iovec iov[] = {
		{&m, sizeof(m)},
		{(void *)(uintptr_t)(why ? why->msg : NULL), why ? strlen(why->msg) : 0},
	};
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(p->fd))];
	} control = {.hdr = {.cmsg_len = CMSG_LEN(p->n * sizeof(int)), .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	if (!why && p->n) {
		memcpy(CMSG_DATA(&control.hdr), p->fd, p->n * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(p->n * sizeof(int));
	}
	if (sendmsg(kept->socket, &msg, MSG_NOSIGNAL) < 0)
		kill(kept->pid, SIGKILL); /* it would wait for ever */
	for (unsigned i = p->bits & KEEPER_HAS_VOID ? JAIL_VOID_COUNT : 0; i < p->n; i++)
		close(p->fd[i]);
}

static void end_vm(struct kept *v)
{
	if (v->pid)
		kill(v->pid, SIGKILL);
}

static void end_within(struct kept *v, u64 ns)
{
	u64 at = monotonic_ns() + ns;

	if (!v->kill_ns || at < v->kill_ns)
		v->kill_ns = at;
}

/* Its process. The keeper's is left to itself by it. */
static pid_t bear(struct keeper *k, struct kept *kept, const struct keeper_vm *vm, unsigned layers,
	int (*run)(void *ctx, int socket, const char *cgroup), void *ctx, int pair[2])
{
	char name[CGROUP_NAME_MAX + 1];
	pid_t pid;

	cgroup_name(name, vm, k->count);
	pid = jail_fork(layers, kept->cgroup.n ? cgroup_fd(&kept->cgroup) : -1);
	if (pid)
		return pid;
	close(pair[0]);
	if (!vm->detach)
		terminal_leave(&k->terminal);
	cgroup_close(&kept->cgroup);
	leave_keeper(k);
	/* A group of its own: what the terminal sends to the keeper's comes by the keeper, and what
	 * a captive sends to its own goes nowhere. */
	setpgid(0, 0);
	_exit(run(ctx, pair[1], name));
}

int keeper_add(struct keeper *k, const struct keeper_vm *vm, unsigned layers,
	int (*run)(void *ctx, int socket, const char *cgroup), void *ctx, struct err *e)
{
	struct kept *kept = &k->vm[k->count];
	const struct timespec moment = {.tv_nsec = 1};
	struct parcel parcel = {.n = 0};
	int pair[2], r = 0;
	struct err why = {0};

	must(k->count < k->limit);
	*kept = (struct kept){.detach = vm->detach, .json = vm->json, .lock_fd = -1,
		.rest = {-1, -1}, .timeout_ns = vm->timeout_ns, .grace_ns = vm->grace_ns,
		.vsock_elsewhere = vm->vsock_path[0]};
	snprintf(kept->id, sizeof(kept->id), "%s", vm->id);
	if (vm->vsock_path[0])
		snprintf(kept->vsock_path, sizeof(kept->vsock_path), "%s", vm->vsock_path);
	else
		r = vm_path(kept->vsock_path, sizeof(kept->vsock_path), vm->id, "vsock.sock", e);
	if (!r && k->only_v2)
		r = make_cgroup(kept, vm, k->count, e);
	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		r = err_sys(e, errno, "cannot make a socket pair");
		cgroup_remove(&kept->cgroup, NULL);
		return r;
	}
	kept->socket = pair[0];
	if (!vm->detach)
		r = terminal_open(&k->terminal, vm->console, e);
	if (!r)
		kept->pid = bear(k, kept, vm, layers, run, ctx, pair);
	if (!r && kept->pid < 0)
		r = err_sys(e, errno, "cannot start a process for the VM");
	close(pair[1]);
	if (r) {
		close(pair[0]);
		cgroup_remove(&kept->cgroup, NULL);
		terminal_close(&k->terminal);
		return r;
	}
	terminal_keep(&k->terminal);
	kept->number = kept->pid;
	k->count++;
	k->alive++;
	/* The child waits for this processor, as often as not, and is the one in a hurry. Who wakes
	 * from a sleep, however short, is given an idle one; who yields stays where he is. */
	nanosleep(&moment, NULL);
	r = prepare(k, kept, vm, layers, &parcel, &why);
	let_go(kept, &parcel, r ? &why : NULL);
	return 0;
}

/* ---- serving ---- */

static void keep_file(struct kept *v, unsigned i, int dir_fd, const char *name)
{
	v->rest[i] = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* What a VM wrote in its time counted for its cgroup. What stays is the host's, so it is little. */
static void cut(int *fd)
{
	struct stat st;

	/* To the size that it has, too: there may be blocks behind that. */
	if (*fd >= 0 && fstat(*fd, &st) == 0 && S_ISREG(st.st_mode))
		(void)!ftruncate(*fd, st.st_size < KEPT_MAX ? st.st_size : KEPT_MAX);
	fd_close(fd);
}

/*
 * Removes the VM's directory, or all but log and report; then its name is free. Unless another VM
 * has that already: `kelvin kill` does not wait for a keeper that was stopped.
 */
static void remove_dir(struct kept *v, bool keep_log, const char *json)
{
	struct vmdir d;

	v->here = false;
	if (vmdir_find(&d, v->id, NULL) == 0 && vm_pid_in(d.dir_fd) == v->number) {
		if (v->vsock_ino) {
			memcpy(d.vsock_path, v->vsock_path, sizeof(d.vsock_path));
			d.vsock_dev = v->vsock_dev;
			d.vsock_ino = v->vsock_ino;
		}
		if (keep_log) {
			keep_file(v, 0, d.dir_fd, "log");
			keep_file(v, 1, d.dir_fd, "console");
		}
		vmdir_remove(&d, keep_log, json);
	}
	fd_close(&d.dir_fd);
	fd_close(&v->lock_fd);
}

/* Said before its guest ran: what it made is what it should have made. */
static void take_over(struct kept *v, int lock_fd)
{
	struct stat st;

	v->here = true;
	v->lock_fd = lock_fd;
	if (v->timeout_ns && v->timeout_ns < UINT64_MAX / 2)
		end_within(v, v->timeout_ns + v->grace_ns);
	if (v->vsock_elsewhere && !lstat(v->vsock_path, &st)) {
		v->vsock_dev = st.st_dev;
		v->vsock_ino = st.st_ino;
	}
}

static ssize_t send_with_fd(int socket, struct keeper_msg *m, int fd, int flags)
{
	struct iovec iov = {m, sizeof(*m)};
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.hdr = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.hdr), &fd, sizeof(fd));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	return sendmsg(socket, &msg, flags | MSG_NOSIGNAL);
}

static void send_to(struct kept *v, enum keeper_verb verb, s32 value, int fd)
{
	struct keeper_msg m = {verb, value};

	if (send_with_fd(v->socket, &m, fd, MSG_DONTWAIT) >= 0)
		return;
	if (fd >= 0 && errno != EAGAIN && errno != EPIPE)
		send_to(v, verb, -errno, -1); /* this user has too many under way */
	else if (errno != EPIPE)
		end_vm(v); /* it asks and does not listen */
}

/*
 * Room for the first connections that are under way, as the device itself has it: it may not make
 * any. The VM does not tell when one has ended, so the number is what the kernel holds at most.
 */
static void widen(struct kept *v, int fd)
{
	if (v->wide++ < VSOCK_WIDE_CONNS)
		vsock_widen(fd, VSOCK_TX_BUF_WIDE);
}

/* A connection for the guest: with the rights of whoever started the VM. */
static void dial(struct kept *v, u32 port)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = -1;
	int n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s_%u", v->vsock_path, port);
	int r = 0;

	if (n < 0 || n >= (int)sizeof(sa.sun_path))
		r = -ENAMETOOLONG;
	if (!r)
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!r && (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa))))
		r = -errno;
	if (r)
		fd_close(&fd);
	else
		widen(v, fd);
	send_to(v, KEEPER_DIALED, r, fd);
}

/*
 * The socket is not closed: that would close descriptors that were sent and not taken, and closing
 * a stranger's can wait for years (SO_LINGER). The end of a process does not wait.
 */
static void hang_up(struct kept *v)
{
	shutdown(v->socket, SHUT_RDWR);
	v->deaf = true;
}

/* For the same reason a message with descriptors is not even dropped. */
static bool brings_descriptors(const struct kept *v)
{
	struct msghdr msg = {0};
	ssize_t n = recvmsg(v->socket, &msg, MSG_DONTWAIT | MSG_PEEK);

	/* It ended without reading all that it was sent: what it said is still there. */
	if (n < 0 && errno == ECONNRESET)
		n = recvmsg(v->socket, &msg, MSG_DONTWAIT | MSG_PEEK);
	return n >= 0 && (msg.msg_flags & MSG_CTRUNC);
}

/* One message, and the descriptor that comes with KEEPER_HERE, or -1. */
static ssize_t receive(struct kept *v, void *buf, size_t len, int *ret_fd)
{
	struct iovec iov = {buf, len};
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	*ret_fd = -1;
	if (!v->here) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	n = recvmsg(v->socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n > 0 && msg.msg_controllen && CMSG_FIRSTHDR(&msg))
		memcpy(ret_fd, CMSG_DATA(&control.hdr), sizeof(*ret_fd));
	return n;
}

static void hear(struct kept *v)
{
	static struct {
		struct keeper_msg m;
		char text[KEEPER_TEXT_MAX + 1];
	} got;
	_cleanup_fd_ int fd = -1;
	ssize_t n;

	if (v->here && brings_descriptors(v)) {
		end_vm(v);
		hang_up(v);
		return;
	}
	n = receive(v, &got, sizeof(got) - 1, &fd);
	if (n < 0 && errno == ECONNRESET)
		n = receive(v, &got, sizeof(got) - 1, &fd);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(v);
		return;
	}
	if (n < (ssize_t)sizeof(got.m)) {
		end_vm(v);
		return;
	}
	((char *)&got)[n] = 0;
	if (got.m.verb == KEEPER_HERE && fd >= 0) {
		take_over(v, fd_steal(&fd));
	} else if (got.m.verb == KEEPER_DIAL && v->here) {
		dial(v, (u32)got.m.value);
	} else if (got.m.verb == KEEPER_BYE && v->here) {
		v->kill_ns = monotonic_ns() + (v->detach ? BYE_NS : v->grace_ns);
		remove_dir(v, got.m.value && v->detach, got.text);
		hang_up(v); /* which is the answer */
	} else {
		end_vm(v);
	}
}

/* The VM's process died without a word. */
static void tell_death(struct kept *v)
{
	const char *why = jail_explain_death(v->status);
	int sig = WTERMSIG(v->status);
	char text[256], json[512];

	if (sig == SIGKILL && cgroup_ran_out(&v->cgroup))
		why = "it needed more memory than its cgroup allows (--cgroup memory.max)";
	snprintf(text, sizeof(text), "its monitor was killed by signal %d (%s)%s%s", sig,
		strsignal(sig), why ? ": " : "", why ? why : "");
	snprintf(json, sizeof(json),
		"{\"event\": \"exit\", \"id\": \"%s\", \"reason\": \"killed\", \"status\": %d, "
		"\"text\": \"%s\"}",
		v->id, 128 + sig, text);
	if (v->here)
		remove_dir(v, v->detach, json);
	if (!v->detach && v->json)
		printf("%s\n", json);
	else if (!v->detach)
		fprintf(stderr, "kelvin: %s: %s\n", v->id, text);
}

/*
 * Closes what it sent and nobody took, for the sake of those who want its disks, while others live:
 * in a process that ends, see hang_up().
 */
static void close_by_heir(const struct keeper *k, struct kept *v)
{
	pid_t heir = k->alive > 1 ? jail_fork(0, -1) : -1;

	if (heir == 0) {
		poll(NULL, 0, 1000);
		_exit(0);
	}
	if (heir < 0)
		return;
	fd_close(&v->socket);
	kill(heir, SIGKILL);
}

/* Its pid is its own yet. */
static void bury(struct keeper *k, struct kept *v)
{
	if (!v->here && !v->deaf)
		hear(v); /* it may have been here */
	terminal_finish(&k->terminal);
	if (WIFSIGNALED(v->status))
		tell_death(v);
	else if (v->here)
		remove_dir(v, false, NULL);
	fd_close(&v->lock_fd);
	cut(&v->rest[0]);
	cut(&v->rest[1]);
	hang_up(v);
	close_by_heir(k, v);
}

static void reap(struct keeper *k)
{
	siginfo_t si = {0};

	/* A pid that is in the file of a locked directory is never another process's. */
	while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid) {
		struct kept *v = NULL;
		int status;

		for (unsigned i = 0; i < k->count && !v; i++)
			v = k->vm[i].pid == si.si_pid ? &k->vm[i] : NULL;
		if (v) {
			v->status = si.si_code == CLD_EXITED ? W_EXITCODE(si.si_status, 0)
							     : W_EXITCODE(0, si.si_status);
			bury(k, v);
		}
		waitpid(si.si_pid, &status, 0);
		if (v) {
			v->pid = 0;
			k->alive--;
			cgroup_remove(&v->cgroup, NULL); /* or kelvin gc */
		}
		si.si_pid = 0;
	}
}

static void signal_all(const struct keeper *k, int sig)
{
	for (unsigned i = 0; i < k->count; i++)
		if (k->vm[i].pid)
			kill(k->vm[i].pid, sig);
}

/* Ctrl-Z, or it would take what is typed for the job in front. */
static bool stop(struct keeper *k, int sig)
{
	u64 begin = monotonic_ns();
	bool stopped;

	signal_all(k, SIGSTOP);
	stopped = terminal_stop_job(sig);
	signal_all(k, SIGCONT);
	for (unsigned i = 0; i < k->count; i++)
		if (k->vm[i].kill_ns)
			k->vm[i].kill_ns += monotonic_ns() - begin;
	return stopped;
}

static void on_signals(struct keeper *k)
{
	struct signalfd_siginfo si;

	while (read(k->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGCHLD) {
			reap(k);
			continue;
		}
		if (si.ssi_signo == SIGTSTP) {
			stop(k, SIGTSTP);
			continue;
		}
		signal_all(k, (int)si.ssi_signo);
		for (unsigned i = 0; i < k->count; i++)
			end_within(&k->vm[i], k->vm[i].grace_ns);
	}
}

static void end_overdue(struct keeper *k)
{
	u64 now = monotonic_ns();

	for (unsigned i = 0; i < k->count; i++)
		if (k->vm[i].kill_ns && k->vm[i].kill_ns <= now) {
			end_vm(&k->vm[i]);
			k->vm[i].kill_ns = 0;
		}
}

/* How many ms away that is for the next, or -1, for poll(2). */
static int until_overdue(const struct keeper *k)
{
	u64 now = monotonic_ns(), next = UINT64_MAX;

	for (unsigned i = 0; i < k->count; i++)
		if (k->vm[i].pid && k->vm[i].kill_ns && k->vm[i].kill_ns < next)
			next = k->vm[i].kill_ns;
	if (next == UINT64_MAX)
		return -1;
	if (next <= now)
		return 0;
	return next - now < 3600000000000ull ? (int)((next - now) / 1000000) + 1 : 3600000;
}

int keeper_run(struct keeper *k)
{
	struct pollfd *typed; /* and shown: of the terminal */
	int status;

	jail_close_void(&k->space); /* all are born */
	while (k->alive) {
		int wait_ms = until_overdue(k);

		k->poll[0] = (struct pollfd){.fd = k->signal_fd, .events = POLLIN};
		for (unsigned i = 0; i < k->count; i++)
			k->poll[i + 1] = (struct pollfd){
				.fd = k->vm[i].deaf ? -1 : k->vm[i].socket, .events = POLLIN};
		typed = &k->poll[k->count + 1];
		terminal_wants(&k->terminal, typed);
		if (poll(k->poll, k->count + 1 + TERMINAL_WAYS, wait_ms) < 0 && errno != EINTR)
			break;
		if (terminal_is_others(&k->terminal, typed) && stop(k, SIGTTIN))
			continue; /* who knows what is still there */
		terminal_move(&k->terminal, typed);
		/* Before the signals: what a VM said comes before its death. */
		for (unsigned i = 0; i < k->count; i++)
			if (k->poll[i + 1].revents)
				hear(&k->vm[i]);
		if (k->poll[0].revents)
			on_signals(k);
		end_overdue(k); /* after what they said: this process may have been stopped */
	}
	status = k->count ? k->vm[0].status : 0;
	fd_close(&k->signal_fd);
	free(k->vm);
	free(k->poll);
	free(k);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- inside ---- */

int keeper_here(int socket, int lock_fd, struct err *e)
{
	if (send_with_fd(socket, &(struct keeper_msg){KEEPER_HERE, 0}, lock_fd, 0) < 0)
		return err_sys(e, errno, "cannot reach the keeper");
	return 0;
}

/* Writes to the descriptors of a cgroup, and closes them. */
static int join_by(int *fd, unsigned n, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!r && write(fd[i], "0", 1) != 1)
			r = err_sys(e, errno, "cannot enter the VM's cgroup");
		close(fd[i]);
	}
	return r;
}

int keeper_wait(int socket, struct jail_void *ret, bool *ret_grouped, struct err *e)
{
	struct {
		struct keeper_msg m;
		char text[sizeof(e->msg)];
	} got = {0};
	struct iovec iov = {&got, sizeof(got) - 1};
	int fd[JAIL_VOID_COUNT + JOIN_MAX];
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(fd))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control)};
	unsigned count = 0, used = 0;
	ssize_t n;

	*ret = JAIL_VOID_NONE;
	do
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < (ssize_t)sizeof(got.m) || got.m.verb != KEEPER_GO)
		return err_set(e, -ECONNRESET, "the keeper is gone");
	if (got.m.value < 0)
		return err_set(e, -EPERM, "%s", got.text);
	if (CMSG_FIRSTHDR(&msg)) {
		count = (unsigned)((control.hdr.cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fd, CMSG_DATA(&control.hdr), count * sizeof(int));
	}
	if (got.m.value & KEEPER_HAS_VOID) {
		must(count >= JAIL_VOID_COUNT);
		memcpy(ret->fd, fd, sizeof(ret->fd));
		used = JAIL_VOID_COUNT;
	}
	*ret_grouped = got.m.value & KEEPER_IS_GROUPED;
	return join_by(fd + used, count - used, e);
}

void keeper_bye(int socket, bool keep_log, const char *json)
{
	struct keeper_msg m = {KEEPER_BYE, keep_log};
	size_t len = json ? strlen(json) : 0;
	struct iovec iov[] = {
		{&m, sizeof(m)},
		{(void *)(uintptr_t)json, len < KEEPER_TEXT_MAX ? len : 0},
	};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	/* syscalls[L]: sendmsg, recvfrom */
	if (sendmsg(socket, &msg, MSG_NOSIGNAL) < 0)
		return; /* it died, and so will we */
	/* Connections that were asked for come before the end, maybe, and are of no use now. */
	while ((n = recv(socket, &m, sizeof(m), 0)) > 0 || (n < 0 && errno == EINTR))
		;
}
