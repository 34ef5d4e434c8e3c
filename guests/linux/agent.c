/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c - kelvin's agent in a Linux guest: runs commands and moves files for the host, and tells
 * the guest who it is. As process 1 it is the guest's init, too.
 *
 * Theory of operation. This process listens on vsock port AGENT_PORT and does no more than accept,
 * fork and reap; each connection is served by a process of its own, with memory of its own that is
 * bounded by its static buffers. A worker that meets a malformed frame, a full disk or a client
 * that has vanished ends, and everything it held ends with it. Only the host (CID 2) is served.
 *
 * After a restore (or as a clone) the guest must not go on as the one it was copied from. The
 * identity page has a generation, which this process compares, by one load, at each event that a
 * restore brings about: a connection, a worker that ended (its connection was reset), a change of
 * a network interface (virtio-net is asked to announce itself), a uevent (newer kernels send one
 * for VMGenID). There is no timer: an idle guest stays idle. If it changed: 64 random bytes go to
 * the kernel's generator, a clock that is behind is stepped, the network gets the address of the
 * hints, and the ready register is rung again.
 *
 * `kelvin stop` presses the power button: process 1 then ends what runs, syncs, and powers off.
 *
 * kelvin's words on the kernel's command line, for process 1:
 *	kelvin.root=DEV		mount it and go on there; kelvin.rootfstype=T; "ro"
 *	kelvin.init=PATH	the image's own init becomes process 1, the agent serves beside it
 *	kelvin.run="TEXT"	run it by /bin/sh, then power off with its status
 *	-- COMMAND ARGS		the same without a shell
 *
 * Hints (--hint, and FR_NET): address=A.B.C.D/N, gateway=, mac=, mtu=, hostname=, dns=.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYSTEMD_RTMIN
#define SYSTEMD_RTMIN 34 /* glibc's SIGRTMIN: what `systemctl poweroff` counts from */
#endif

struct agent {
	bool init;
	bool step;     /* the next host's clock is worth more than ours */
	bool rang;     /* ready, at least once */
	pid_t command; /* whose end is the VM's */
	int listen_fd, signal_fd, link_fd, event_fd, button_fd;
	pid_t worker[WORKERS_MAX];
};

struct options {
	const char *unix_path, *page_file, *door_file;
};

/* ---- sockets ---- */

static int listen_unix(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	unlink(path);
	if (fd >= 0 && !bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) && !listen(fd, 128))
		return fd;
	return -errno;
}

static int listen_vsock(void)
{
	struct sockaddr_vm sa = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
		.svm_port = AGENT_PORT};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && !bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) && !listen(fd, 128))
		return fd;
	return -errno;
}

/* News of group 1 (links, or uevents); -1 where the kernel has none. */
static int hear(int protocol)
{
	struct sockaddr_nl sa = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

	if (fd >= 0 && bind(fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int open_signals(void)
{
	static const int sigs[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPWR,
		SYSTEMD_RTMIN + 3, SYSTEMD_RTMIN + 4, SYSTEMD_RTMIN + 5};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaddset(&set, sigs[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/*
 * The power button, as the first input device: a VM of kelvin has no other. -1 where the kernel has
 * no driver for it; then a stop of the VM is not an orderly one.
 */
static int open_button(void)
{
	return open("/dev/input/event0", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

/* ---- events ---- */

static void take_button(struct agent *a)
{
	struct input_event ev;
	ssize_t n;

	while ((n = read(a->button_fd, &ev, sizeof(ev))) == sizeof(ev))
		if (ev.type == EV_KEY && ev.code == KEY_POWER && ev.value)
			init_end(0, false);
	if (n < 0 && errno == EAGAIN)
		return;
	close(a->button_fd); /* its driver was removed */
	a->button_fd = -1;
}

static void look_at_identity(struct agent *a)
{
	if (!ident_changed())
		return;
	ident_apply();
	a->step = a->rang; /* at a boot the kernel has just been told the time */
	if (a->listen_fd >= 0)
		door_ready();
	a->rang = true;
}

static void drain(int fd)
{
	char junk[4096];

	while (recv(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
}

static unsigned exit_status(int status)
{
	return WIFSIGNALED(status) ? 128u + (unsigned)WTERMSIG(status)
				   : (unsigned)WEXITSTATUS(status);
}

static void reap(struct agent *a)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < WORKERS_MAX; i++)
			if (a->worker[i] == pid)
				a->worker[i] = 0;
		if (pid == a->command)
			init_end(exit_status(status), false);
	}
}

static void take_signals(struct agent *a)
{
	struct signalfd_siginfo si;

	while (read(a->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap(a);
		else if (!a->init && (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT))
			_exit(0);
		else if (a->init)
			/* busybox's reboot says SIGTERM, control-alt-delete SIGINT. */
			init_end(0, si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT ||
					    si.ssi_signo == SYSTEMD_RTMIN + 5);
	}
}

/* Process 1 does not come back from here: it has no caller. */
static void begin_worker(struct agent *a, int fd, unsigned slot)
{
	pid_t pid = fork();

	if (pid < 0) {
		struct err e;

		err_sys(&e, errno, "the guest cannot make a process");
		/* Not heard out: that could take its time, and there is nobody else. */
		frame_send(fd, FR_ERROR, "\1\0\0\0out of processes", 20, &e);
		return;
	}
	if (pid > 0) {
		a->worker[slot] = pid;
		return;
	}
	close(a->listen_fd);
	close(a->signal_fd);
	close(a->link_fd);
	close(a->event_fd);
	close(a->button_fd);
	serve(fd, a->step);
	_exit(0);
}

static void take_connections(struct agent *a)
{
	struct sockaddr_vm sa;
	socklen_t len = sizeof(sa);
	unsigned slot = 0;
	int fd;

	while ((fd = accept4(a->listen_fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC)) >= 0) {
		look_at_identity(a);
		while (slot < WORKERS_MAX && a->worker[slot])
			slot++;
		/* A user of the guest could come over a loopback transport. */
		if (len >= sizeof(sa) && sa.svm_family == AF_VSOCK && sa.svm_cid != VMADDR_CID_HOST)
			;
		else if (slot == WORKERS_MAX)
			frame_send(fd, FR_ERROR, "\1\0\0\0too many connections", 24, NULL);
		else
			begin_worker(a, fd, slot);
		a->step = false;
		close(fd);
		len = sizeof(sa);
	}
}

static _Noreturn void loop(struct agent *a)
{
	for (;;) {
		struct pollfd p[] = {{.fd = a->listen_fd, .events = POLLIN},
			{.fd = a->signal_fd, .events = POLLIN},
			{.fd = a->link_fd, .events = POLLIN},
			{.fd = a->event_fd, .events = POLLIN},
			{.fd = a->button_fd, .events = POLLIN}};

		if (poll(p, ARRAY_SIZE(p), -1) <= 0)
			continue;
		if (p[2].revents)
			drain(a->link_fd);
		if (p[3].revents)
			drain(a->event_fd);
		look_at_identity(a);
		if (p[1].revents)
			take_signals(a);
		if (p[4].revents)
			take_button(a);
		if (p[0].revents)
			take_connections(a);
	}
}

/* ---- the way in ---- */

static int usage(void)
{
	fprintf(stderr, "usage: agent --serve   (or as process 1 of a guest: kelvin's init)\n");
	return 2;
}

static bool read_options(int argc, char **argv, struct options *o)
{
	bool serve_only = false;

	for (int i = 1; i < argc; i++) {
		const char **text = !strcmp(argv[i], "--unix")	     ? &o->unix_path
				    : !strcmp(argv[i], "--identity") ? &o->page_file
				    : !strcmp(argv[i], "--doorbell") ? &o->door_file
								     : NULL;

		if (!strcmp(argv[i], "--serve"))
			serve_only = true;
		else if (text && i + 1 < argc)
			*text = argv[++i]; /* for tests */
		else
			return false;
	}
	return serve_only;
}

int main(int argc, char **argv)
{
	static struct agent a = {.listen_fd = -1, .link_fd = -1, .event_fd = -1,
		.button_fd = -1};
	struct options o = {0};

	a.init = getpid() == 1;
	if (!a.init && !read_options(argc, argv, &o))
		return usage();
	if (a.init)
		init_begin();
	ident_open(o.page_file, o.door_file);
	if (a.init && init_hand_over())
		a.init = false;
	a.signal_fd = open_signals();
	a.listen_fd = o.unix_path ? listen_unix(o.unix_path) : listen_vsock();
	if (a.listen_fd < 0) {
		fprintf(stderr, "agent: cannot listen: %s\n", strerror(-a.listen_fd));
		if (!a.init)
			return 1;
		a.listen_fd = -1;
	}
	if (ident_present()) {
		a.link_fd = hear(NETLINK_ROUTE);
		a.event_fd = hear(NETLINK_KOBJECT_UEVENT);
	}
	look_at_identity(&a);
	if (a.init) {
		a.button_fd = open_button();
		a.command = init_command();
	}
	loop(&a);
}
