/* SPDX-License-Identifier: Apache-2.0 */
/* launch.c - see launch.h */
#include "monitor/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "jailer/jailer.h"
#include "monitor/base/agent_proto.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/sig.h"
#include "monitor/client.h"
#include "monitor/keeper.h"
#include "monitor/show.h"
#include "monitor/verb.h"
#include "monitor/vmfind.h"

#define START_LIMIT_NS 30000000000u /* for a VM to start, where nobody waits for it to be ready */
#define LAST_WORDS_NS  1000000000u /* for the keeper of one that died to say so */
#define GRACE_NS 300000000000ull /* a VM that has to end may have a snapshot to write first */
#define END_LIMIT_NS   10000000000u /* for one to end that was asked to */
/* A restored guest that is not ready so long after its start is knocked at. Most are, by then. */
#define KNOCK_NS 20000000u

/* One detached VM, as its parent sees it. */
struct child {
	char id[VM_ID_MAX + 1];
	pid_t pid;      /* 0: not known yet */
	int fd;         /* read end of its pipe, or -1 */
	int write_fd;   /* the other end; -1 where it is not ours */
	int status;     /* it ended with this one; -1: it did not say */
	char text[768]; /* what it said so far */
	size_t len;
	bool started, ready, failed;
	u64 ready_ns; /* since our main() */
	int knock_fd; /* or -1 */
	u64 knock_ns; /* when to knock; 0: not, or it was done */
};

static volatile sig_atomic_t interrupted; /* the signal that asked us to give up */

static void on_interrupt(int sig)
{
	interrupted = sig;
}

static void on_interrupts(void (*handler)(int))
{
	/* No SA_RESTART: poll() is to return. */
	sig_catch_ends(&(struct sigaction){.sa_handler = handler});
}

void random_id(char *out, size_t cap)
{
	u32 r;

	while (getrandom(&r, sizeof(r), 0) != sizeof(r))
		;
	snprintf(out, cap, "k%08x", r);
}

/* The snapshot was needed to build the VM; its memory stays mapped. */
static void close_snapshot(struct launch *l)
{
	snap_close(&l->snap);
}

/* All is open that was to be: what this process was born with goes, unless an option names it. */
static void close_inherited(const struct launch *l)
{
	const struct dev_spec *d = &l->spec.dev;

	for (unsigned i = 0; i < l->inherited.n; i++) {
		bool named = false;

		for (unsigned k = 0; k < d->net_count; k++)
			named |= d->net[k].way == NET_BY_FD && d->net[k].fd == l->inherited.fd[i];
		if (!named)
			close(l->inherited.fd[i]);
	}
}

/* Builds and runs one VM in this process. Reports through @notify_fd; returns the exit status. */
static int be_the_vm(struct launch *l, int notify_fd, bool notify_json)
{
	struct machine *m = NULL;
	struct err e;
	int status;

	if (l->detach)
		dprintf(notify_fd, "pid %d\n", host_pid());
	if (machine_create(&m, &l->spec, l->snap, notify_fd, notify_json, &e) ||
		(close_snapshot(l), close_inherited(l), machine_jail(m, &e)) ||
		machine_start(m, &e)) {
		machine_destroy(&m);
		if (l->detach)
			dprintf(notify_fd, "error %s\n", e.msg);
		else
			fail(&e);
		return 1;
	}
	/* Only now: writing wakes a reader, who would take the guest's processor. A quick guest may
	 * be ready before this. */
	if (l->detach)
		dprintf(notify_fd, "started\n");
	else if (notify_json)
		dprintf(notify_fd, "{\"event\": \"started\", \"id\": \"%s\", \"pid\": %d}\n",
			l->spec.id, machine_pid(m));
	if (machine_run(m, &e)) {
		fail(&e);
		machine_destroy(&m);
		return 1;
	}
	status = machine_finish(m);
	if (l->detach)
		dprintf(notify_fd, "ended %d\n", status);
	fflush(NULL);
	/* Closing a VM takes KVM 12 to 30 ms; ending the process does it without anybody waiting
	 * who did not ask for this process's end. syscalls[L]: exit_group */
	_exit(status);
}

/* ---- processes ---- */

#define ID_LOCKS "/run/kelvin.ids" /* of user ids */

/* One VM of this command, for the process that will be it. */
struct birth {
	struct launch *launch;
	struct child *all; /* NULL in the foreground */
	unsigned k;
	uid_t user; /* who we are, before a user namespace hides it */
	gid_t group;
};

/* The name, user id and devices of the @k-th VM; in its process. */
static void be_number(struct launch *l, const struct child *c, unsigned k)
{
	struct err e;

	if (c)
		snprintf(l->spec.id, sizeof(l->spec.id), "%s", c->id);
	l->spec.jail_id = l->first_id ? l->first_id + k : 0;
	if (l->count > 1)
		dev_spec_number(&l->spec.dev, k, &e); /* was checked before */
}

static int run_born(void *ctx, int keeper_fd, const char *cgroup)
{
	const struct birth *b = ctx;
	struct launch *l = b->launch;
	struct err e;

	if (l->detach)
		on_interrupts(SIG_DFL);
	be_number(l, b->all ? &b->all[b->k] : NULL, b->k);
	l->spec.keeper_fd = keeper_fd;
	fd_close(&l->ids_fd); /* the keeper has it */
	snprintf(l->spec.cgroup, sizeof(l->spec.cgroup), "%s/%s", CGROUP_PARENT, cgroup);
	if (l->spec.born & JAIL_USER && jail_map_user(b->user, b->group, &e))
		return fail(&e);
	for (unsigned i = 0; b->all && i < l->count; i++)
		if (i != b->k)
			fd_close(&b->all[i].write_fd);
	if (b->all)
		return be_the_vm(l, b->all[b->k].write_fd, false);
	return be_the_vm(l, l->json ? STDOUT_FILENO : -1, l->json);
}

/*
 * A jailed VM, kept by this process. Root's is born into namespaces or not at all; another user's
 * kernel may not grant them, and the rest of the jail holds without.
 */
static int bear(struct keeper *k, struct launch *l, struct child *all, unsigned n, struct err *e)
{
	struct birth b = {l, all, n, geteuid(), getegid()};
	bool root = geteuid() == 0;
	struct keeper_vm vm = {
		.id = all ? all[n].id : l->spec.id,
		.vsock_path = l->spec.vsock_path,
		.limits = &l->limits,
		.limits_asked = l->limits_asked,
		.console = l->spec.console,
		.detach = l->detach,
		.json = l->json,
		.timeout_ns = l->spec.timeout_ns,
		.grace_ns = GRACE_NS,
	};
	int r;

	l->spec.born = root ? JAIL_BIRTH : JAIL_BIRTH_USER;
	if (!root && access("/proc/self/uid_map", W_OK))
		l->spec.born = 0; /* in somebody's chroot, where a user cannot be mapped */
	r = keeper_add(k, &vm, l->spec.born, run_born, &b, e);
	if (r && !root) {
		l->spec.born = 0;
		r = keeper_add(k, &vm, 0, run_born, &b, e);
	}
	if (r == -EPERM && root)
		return err_wrap(e, "the jail needs the right to make namespaces (CAP_SYS_ADMIN), "
			"--no-jail does without");
	return r;
}

static int take_ids(struct launch *l, struct err *e)
{
	if (l->first_id || geteuid() != 0) /* --jail-uid, or there is no choice */
		return 0;
	return jail_take_ids(ID_LOCKS, l->count, &l->first_id, &l->ids_fd, e);
}

static void to_the_background(void)
{
	int fd;

	setsid();
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}

/* The process that keeps all VMs of this command, in the background. */
static void keep(struct launch *l, struct child *c)
{
	struct keeper *k = NULL;
	struct err e;
	int r;

	to_the_background();
	for (unsigned i = 0; i < l->count; i++)
		fd_close(&c[i].fd);
	r = keeper_create(&k, l->count, &e);
	if (!r)
		r = take_ids(l, &e);
	for (unsigned i = 0; i < l->count; i++) {
		if (!r)
			r = bear(k, l, c, i, &e);
		if (r)
			dprintf(c[i].write_fd, "error %s\n", e.msg);
	}
	for (unsigned i = 0; i < l->count; i++)
		fd_close(&c[i].write_fd);
	/* A pipe or a lock of whoever started us would last as long as the VMs. */
	for (unsigned i = 0; i < l->inherited.n; i++)
		close(l->inherited.fd[i]);
	if (l->snap)
		close_snapshot(l);
	if (k)
		keeper_run(k);
	_exit(0);
}

static int spawn_keeper(struct launch *l, struct child *c, struct err *e)
{
	/* By fork() the thread sanitizer gives the keeper a thread, which its VMs inherit half. */
	pid_t pid = jail_fork(0, -1);

	if (pid < 0)
		return err_sys(e, errno, "cannot start a process");
	if (pid == 0)
		keep(l, c);
	for (unsigned i = 0; i < l->count; i++)
		fd_close(&c[i].write_fd);
	return 0;
}

/* Starts the VM of the child @c[@k], without a jail. */
static int spawn_free(struct launch *l, struct child *c, unsigned k, struct err *e)
{
	pid_t pid = fork();

	if (pid < 0)
		return err_sys(e, errno, "cannot start a process for the VM");
	if (pid == 0) {
		for (unsigned i = 0; i < l->count; i++)
			fd_close(&c[i].fd);
		on_interrupts(SIG_DFL);
		to_the_background();
		be_number(l, &c[k], k);
		_exit(be_the_vm(l, c[k].write_fd, false));
	}
	fd_close(&c[k].write_fd);
	return 0;
}

/* The pipes first, so that every process has those of all; then the processes. */
static int spawn_all(struct launch *l, struct child *c, struct err *e)
{
	int fds[2], r = 0;

	for (unsigned i = 0; i < l->count; i++)
		c[i].fd = c[i].write_fd = c[i].knock_fd = -1;
	for (unsigned i = 0; i < l->count; i++) {
		if (l->count == 1)
			snprintf(c[i].id, sizeof(c[i].id), "%s", l->spec.id);
		else
			snprintf(c[i].id, sizeof(c[i].id), "%.*s-%u", (int)VM_ID_MAX - 11,
				l->spec.id, i);
		if (pipe2(fds, O_CLOEXEC))
			return err_sys(e, errno, "cannot make a pipe");
		c[i].fd = fds[0];
		c[i].write_fd = fds[1];
	}
	if (l->spec.jailed)
		return spawn_keeper(l, c, e);
	for (unsigned i = 0; i < l->count && !r && !interrupted; i++)
		r = spawn_free(l, c, i, e);
	return r;
}

/* ---- what the VMs say ---- */

/* Takes the next message of a child. The pipe's end before it was ready means it ended. */
static void hear(struct child *c)
{
	ssize_t n = read(c->fd, c->text + c->len, sizeof(c->text) - 1 - c->len);
	char *eol;

	if (n <= 0) {
		fd_close(&c->fd);
		return;
	}
	c->len += (size_t)n;
	c->text[c->len] = 0;
	while ((eol = strchr(c->text, '\n'))) {
		*eol = 0;
		if (strncmp(c->text, "error ", 6) == 0) {
			memmove(c->text, c->text + 6, strlen(c->text + 6) + 1);
			c->failed = true;
			fd_close(&c->fd);
			return;
		}
		/* The first is true: it comes before the guest. */
		if (!c->pid && strncmp(c->text, "pid ", 4) == 0)
			c->pid = (pid_t)strtol(c->text + 4, NULL, 10);
		if (strncmp(c->text, "ended ", 6) == 0)
			c->status = (int)strtol(c->text + 6, NULL, 10);
		if (strcmp(c->text, "started") == 0) {
			c->started = true;
			c->knock_ns = since_start_ns() + KNOCK_NS;
		}
		if (strncmp(c->text, "ready", 5) == 0) {
			c->ready = true;
			c->ready_ns = since_start_ns();
		}
		c->len -= (size_t)(eol + 1 - c->text);
		memmove(c->text, eol + 1, c->len + 1);
	}
}

/* A quick guest can be ready before its api.sock is there: then the caller is not told yet. */
static bool is_there(const struct launch *l, const struct child *c)
{
	return !c->failed && c->started && (c->ready || !l->wait_ready);
}

static bool settled(const struct launch *l, const struct child *c)
{
	return c->failed || c->fd < 0 || is_there(l, c);
}

static u64 limit_ns(const struct launch *l)
{
	return l->ready_timeout_ns ? l->ready_timeout_ns : START_LIMIT_NS;
}

/*
 * A connection to the agent of a Linux guest, if there is one. It sleeps, and has no other way to
 * find out that it was restored; then it says that it is ready. Other guests do not listen there.
 */
static void knock(struct child *c)
{
	char line[32];
	int n = snprintf(line, sizeof(line), "CONNECT %u\n", AGENT_PORT);

	c->knock_ns = 0;
	if (client_connect(&c->knock_fd, c->id, "vsock.sock", NULL) ||
		send(c->knock_fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		fd_close(&c->knock_fd);
}

/* Knocks where it is time to. Returns when it will be next, at the latest @deadline_ns. */
static u64 knock_at(const struct launch *l, struct child *c, unsigned n, u64 now, u64 deadline_ns)
{
	for (unsigned i = 0; i < n && l->snap && l->wait_ready; i++) {
		if (!c[i].knock_ns || settled(l, &c[i]))
			continue;
		if (c[i].knock_ns <= now)
			knock(&c[i]);
		else if (c[i].knock_ns < deadline_ns)
			deadline_ns = c[i].knock_ns;
	}
	return deadline_ns;
}

/* Hears all children until each is settled or the time is up. */
static void wait_for_children(const struct launch *l, struct child *c, unsigned n)
{
	struct pollfd *pfd = calloc(n, sizeof(*pfd));
	u64 now = since_start_ns(), limit = limit_ns(l);
	u64 deadline = limit < UINT64_MAX - now ? now + limit : UINT64_MAX, next;

	must(pfd);
	for (;; now = since_start_ns()) {
		unsigned waiting = 0;

		for (unsigned i = 0; i < n; i++) {
			pfd[i] = (struct pollfd){.fd = settled(l, &c[i]) ? -1 : c[i].fd,
				.events = POLLIN};
			waiting += pfd[i].fd >= 0;
		}
		if (!waiting || now >= deadline || interrupted)
			break;
		next = knock_at(l, c, n, now, deadline);
		if (poll(pfd, n, (int)((next - now) / 1000000) + 1) < 0 && errno != EINTR)
			break;
		for (unsigned i = 0; i < n; i++)
			if (pfd[i].fd >= 0 && pfd[i].revents)
				hear(&c[i]);
	}
	free(pfd);
}

/* One that says it failed, or says nothing more, and yet lives, is not to be trusted with that. */
static void make_sure_it_is_gone(const struct child *c)
{
	if (vm_wait_gone(c->id, c->pid, LAST_WORDS_NS, NULL))
		vm_kill_process(c->id, NULL, NULL);
}

/* Asks the VM to end, and waits for that. */
static void end_children(struct child *c, unsigned n)
{
	u64 deadline = since_start_ns() + END_LIMIT_NS, now;

	for (unsigned i = 0; i < n; i++) {
		struct pollfd p = {.fd = c[i].fd, .events = POLLIN};

		while (c[i].fd >= 0 && poll(&p, 1, 0) > 0)
			hear(&c[i]); /* those that ended meanwhile, whose pids may be others' */
		if (c[i].fd >= 0 && c[i].pid)
			kill(c[i].pid, SIGTERM);
	}
	for (unsigned i = 0; i < n; i++) {
		while (c[i].fd >= 0 && (now = since_start_ns()) < deadline) {
			struct pollfd p = {.fd = c[i].fd, .events = POLLIN};
			bool knew = c[i].pid;

			if (poll(&p, 1, (int)((deadline - now) / 1000000) + 1) > 0)
				hear(&c[i]);
			if (!knew && c[i].pid && c[i].fd >= 0)
				kill(c[i].pid, SIGTERM);
		}
		if (c[i].pid)
			make_sure_it_is_gone(&c[i]);
	}
}

/* The operator gave up waiting: then none of the VMs is wanted. */
static int give_up(struct child *c, unsigned n)
{
	end_children(c, n);
	fprintf(stderr, "kelvin: interrupted, so %s ended\n",
		n == 1 ? "the VM was" : "all VMs of this command were");
	return 128 + interrupted;
}

/* How a VM ended before anybody waited for that: from what it left, or by its exit status. */
static void explain_end(const struct child *c, struct err *e)
{
	json_auto_t *left = NULL;
	char dir[256];
	const char *why;

	left = vm_exit_report(c->id);
	why = json_string_value(json_object_get(left, "text"));
	if (why && vm_path(dir, sizeof(dir), c->id, NULL, NULL) == 0)
		err_set(e, -ECHILD,
			"VM \"%s\" ended before it was ready: %s (see %s; kelvin kill %s removes "
			"it)",
			c->id, why, dir, c->id);
	else if (c->status >= 0)
		err_set(e, -ECHILD, "VM \"%s\" ended before it was ready, with status %d", c->id,
			c->status);
	else
		err_set(e, -ECHILD, "VM \"%s\" died before it was ready", c->id);
}

static int report_failure(const struct launch *l, struct child *c)
{
	char limit[32];
	struct err e;

	if (c->pid && (c->failed || c->fd < 0))
		make_sure_it_is_gone(c);
	if (c->failed && l->count > 1) {
		err_set(&e, -ECHILD, "%s: %s", c->id, c->text);
	} else if (c->failed) {
		err_set(&e, -ECHILD, "%s", c->text);
	} else if (c->fd < 0) {
		explain_end(c, &e);
	} else {
		end_children(c, 1);
		err_set(&e, -ETIMEDOUT, "VM \"%s\" was not %s within %s, so it was ended", c->id,
			c->started ? "ready" : "running",
			show_ns(limit_ns(l), limit, sizeof(limit)));
	}
	return fail(&e);
}

static int report(const struct launch *l, struct child *c)
{
	char us[32];

	fd_close(&c->knock_fd);
	if (!is_there(l, c))
		return report_failure(l, c);
	if (l->json) {
		printf("{\"id\": \"%s\", \"pid\": %d", c->id, c->pid);
		if (l->wait_ready)
			printf(", \"ready_us\": %llu", (unsigned long long)(c->ready_ns / 1000));
		printf("}\n");
	} else if (l->wait_ready) {
		printf("%s  ready in %s\n", c->id, show_ns(c->ready_ns, us, sizeof(us)));
	} else {
		printf("%s\n", c->id);
	}
	return 0;
}

static int by_time(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static void summary(const struct child *c, unsigned n)
{
	u64 *ns = calloc(n, sizeof(*ns));
	char a[32], b[32], d[32];
	unsigned k = 0;

	must(ns);
	for (unsigned i = 0; i < n; i++)
		if (c[i].ready)
			ns[k++] = c[i].ready_ns;
	if (k) {
		qsort(ns, k, sizeof(*ns), by_time);
		fprintf(stderr, "%u of %u ready: first %s, median %s, all %s\n", k, n,
			show_ns(ns[0], a, sizeof(a)),
			show_ns(ns[k / 2], b, sizeof(b)),
			show_ns(ns[k - 1], d, sizeof(d)));
	}
	free(ns);
}

/* A pipe for each clone; a limit that cannot be raised shows when a pipe cannot be made. */
static void raise_fd_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

static int launch_detached(struct launch *l)
{
	struct child *c = calloc(l->count, sizeof(*c));
	struct err e;
	int status = 0;

	must(c);
	for (unsigned i = 0; i < l->count; i++)
		c[i].status = -1;
	on_interrupts(on_interrupt);
	raise_fd_limit();
	if (spawn_all(l, c, &e)) {
		status = fail(&e);
		end_children(c, l->count);
		free(c);
		return status;
	}
	wait_for_children(l, c, l->count);
	if (interrupted) {
		status = give_up(c, l->count);
		free(c);
		return status;
	}
	for (unsigned i = 0; i < l->count; i++)
		status |= report(l, &c[i]);
	status |= show_end();
	if (l->count > 1 && l->wait_ready && !l->json)
		summary(c, l->count);
	free(c);
	return status;
}

/* This process keeps the VM, and ends as it does. */
static int launch_kept(struct launch *l)
{
	struct keeper *k;
	struct err e;

	if (keeper_create(&k, 1, &e) || take_ids(l, &e) || bear(k, l, NULL, 0, &e))
		return fail(&e);
	close_snapshot(l);
	return keeper_run(k);
}

int launch(struct launch *l)
{
	if (l->count > 1)
		l->detach = true;
	l->spec.detach = l->detach;
	l->spec.keeper_fd = l->ids_fd = -1;
	if (!l->spec.jailed)
		fprintf(stderr, "kelvin: warning: --no-jail: whoever gets out of the guest can do "
			"all that %s can\n", geteuid() ? "you" : "root");
	if (l->spec.jailed && !l->no_limits && (geteuid() == 0 || l->limits_asked))
		cgroup_default_limits(l->spec.memory, l->spec.vcpus, &l->limits);
	if (l->detach)
		return launch_detached(l);
	if (l->spec.jailed)
		return launch_kept(l);
	return be_the_vm(l, l->json ? STDOUT_FILENO : -1, l->json);
}
