/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chroot.c - the jailer, step by step.
 *
 *  1. no descriptors but 0-2, and none of those a directory
 *  2. the operator's files: the monitor, the base, the network namespace
 *  3. the cgroup with its limits; the tree (chroot_tree.c), which the uid cannot reach
 *  4. network namespace; into the cgroup; mount, IPC and UTS namespaces, the tree as root
 *  5. with --daemonize or --new-pid-ns a child, which waits for its pid file
 *  6. the pid file; the root directory is given to the uid: the jail is complete
 *  7. umask 077, rlimits, no_new_privs, keyring, ids, capabilities; exec with an empty environment
 *
 * Killed before 6, it leaves a directory that only root can enter and no process. A step that fails
 * ends it, with the tree removed. After 7 has begun it can only say what is left.
 *
 * There is no parent-death signal: Firecracker's jailer has none, its starters end before the VM
 * does, and to a starter with threads it would come when the thread ends.
 */
#include "jailer/chroot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jailer/chroot_int.h"
#include "jailer/jailer.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"

#define FIXED_ARGS 9u

/* What the steps hand on. */
struct jailing {
	const struct chroot_spec *spec;
	struct chroot_tree tree;
	struct cgroup group;
	int netns_fd, null_fd;
	u64 cpu_us;  /* of processes before this one */
	bool joined;   /* the cgroup */
};

static u64 cpu_us(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000;
}

static int check_standard(struct err *e)
{
	static const char *const names[] = {"stdin", "stdout", "stderr"};
	struct stat st;

	for (int fd = 0; fd < 3; fd++) {
		if (fstat(fd, &st))
			return err_sys(e, errno, "cannot look at %s", names[fd]);
		if (S_ISDIR(st.st_mode))
			return err_set(e, -EISDIR, "%s is a directory, which would be a way out of "
				"the jail", names[fd]);
	}
	return 0;
}

static int open_inputs(struct jailing *j, struct err *e)
{
	const struct chroot_spec *spec = j->spec;
	int r = chroot_open(&j->tree, spec, e);

	if (r)
		return r;
	if (spec->netns) {
		j->netns_fd = open(spec->netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (j->netns_fd < 0)
			return err_sys(e, errno, "cannot open the network namespace %s",
				spec->netns);
	}
	if (spec->daemonize) {
		j->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (j->null_fd < 0)
			return err_sys(e, errno, "cannot open /dev/null");
	}
	return 0;
}

static int make_all(struct jailing *j, struct err *e)
{
	const struct chroot_spec *spec = j->spec;
	const char *parent = spec->parent ? spec->parent : j->tree.name;
	int r = 0;

	if (spec->limits.n)
		r = cgroup_create(&cgroup_host_real, parent, spec->id, &spec->limits, &j->group, e);
	return r ? r : chroot_make(&j->tree, spec, e);
}

static int enter_all(struct jailing *j, struct err *e)
{
	const struct chroot_spec *spec = j->spec;
	int r = 0;

	if (spec->netns && setns(j->netns_fd, CLONE_NEWNET))
		return err_sys(e, errno, "cannot enter the network namespace %s", spec->netns);
	j->joined = true;
	if (spec->limits.n)
		r = cgroup_join(&j->group, e);
	else if (spec->join_parent)
		r = cgroup_join_parent(&cgroup_host_real, spec->parent, e);
	return r ? r : chroot_enter(j->tree.root_fd, e);
}

/* Returns on failure. @report_fd, if it is none, is told that exec is next. */
static int exec_monitor(const struct jailing *j, int report_fd, struct err *e)
{
	const struct chroot_spec *spec = j->spec;
	char path[NAME_MAX + 2], start[24], start_cpu[24], parent_cpu[24];
	char *none[] = {NULL};
	unsigned n = 0, i = 0;
	char **argv;
	int r;

	while (spec->extra[n])
		n++;
	argv = (char **)calloc(FIXED_ARGS + n + 1, sizeof(*argv));
	if (!argv)
		return err_set(e, -ENOMEM, "no memory for arguments");
	snprintf(path, sizeof(path), "/%s", j->tree.name);
	snprintf(start, sizeof(start), "%llu", (unsigned long long)spec->start_us);
	snprintf(start_cpu, sizeof(start_cpu), "%llu", (unsigned long long)spec->start_cpu_us);
	snprintf(parent_cpu, sizeof(parent_cpu), "%llu",
		(unsigned long long)(j->cpu_us + cpu_us()));
	argv[i++] = path;
	argv[i++] = (char *)"--id";
	argv[i++] = (char *)spec->id;
	argv[i++] = (char *)"--start-time-us";
	argv[i++] = start;
	argv[i++] = (char *)"--start-time-cpu-us";
	argv[i++] = start_cpu;
	argv[i++] = (char *)"--parent-cpu-time-us";
	argv[i++] = parent_cpu;
	must(i == FIXED_ARGS);
	memcpy(argv + i, spec->extra, n * sizeof(*argv));
	r = report_fd >= 0 && write(report_fd, "", 1) != 1 ? errno : 0;
	if (r == 0) {
		execve(path, argv, none);
		r = errno;
	}
	free(argv);
	return err_sys(e, r, "cannot execute %s in %s (is it static? and no script?)", path,
		j->tree.path);
}

/* From here on without a way back. Returns on failure. */
static int become_monitor(const struct jailing *j, int report_fd, struct err *e)
{
	const struct chroot_spec *spec = j->spec;
	int r;

	umask(077);
	if (spec->daemonize && setsid() < 0)
		return err_sys(e, errno, "cannot make a session (setsid)");
	if (spec->daemonize)
		for (int fd = 0; fd < 3; fd++)
			if (dup2(j->null_fd, fd) != fd)
				return err_sys(e, errno, "cannot detach from the terminal (dup2)");
	r = jail_rlimits(&spec->rlimits, e);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		r = err_sys(e, errno, "cannot give up gaining privileges (no_new_privs)");
	r = r ? r : jail_drop_keyring(e);
	r = r ? r : jail_drop_ids(spec->uid, spec->gid, e);
	r = r ? r : jail_drop_caps(e);
	return r ? r : exec_monitor(j, report_fd, e);
}

static int complete(struct jailing *j, pid_t pid, struct err *e)
{
	int r = chroot_write_pid(&j->tree, pid, e);

	return r ? r : chroot_publish(&j->tree, j->spec, e);
}

/* The child: waits until the jail is complete, then becomes the monitor; or says why not. */
_Noreturn static void be_child(struct jailing *j, int go_fd, int report_fd)
{
	struct err e = {0};
	char go;

	if (read(go_fd, &go, 1) != 1)
		_exit(1); /* the parent gave up, or is gone */
	become_monitor(j, report_fd, &e);
	if (write(report_fd, e.msg, strlen(e.msg)) < 0)
		_exit(2);
	_exit(1);
}

/*
 * Until the child has become the monitor, which closes the pipe, or failed: it writes a NUL before
 * it tries, and what went wrong, if anything did.
 */
static int await_exec(int report_fd, struct err *e)
{
	char text[sizeof(e->msg)] = {0};
	size_t len = 0;
	ssize_t n;

	while ((n = read(report_fd, text + len, sizeof(text) - 1 - len)) != 0) {
		if (n > 0)
			len += (size_t)n;
		else if (errno != EINTR)
			return err_sys(e, errno, "cannot learn what became of the monitor");
	}
	if (len == 1 && !text[0])
		return 0;
	if (!len)
		return err_set(e, -ECHILD, "the process that was to be the monitor has ended");
	return err_set(e, -ECHILD, "%s", text[0] ? text : text + 1);
}

static int start_child(struct jailing *j, struct err *e)
{
	_cleanup_fd_ int go_in = -1, go_out = -1, report_in = -1, report_out = -1;
	int go[2], report[2], r;
	pid_t pid;

	if (pipe2(go, O_CLOEXEC))
		return err_sys(e, errno, "cannot make a pipe");
	go_in = go[0];
	go_out = go[1];
	if (pipe2(report, O_CLOEXEC))
		return err_sys(e, errno, "cannot make a pipe");
	report_in = report[0];
	report_out = report[1];
	if (j->spec->new_pid_ns && unshare(CLONE_NEWPID))
		return err_sys(e, errno, "cannot make a pid namespace (unshare)");
	j->cpu_us = cpu_us();
	pid = fork();
	if (pid < 0)
		return err_sys(e, errno, "cannot start a process (fork)");
	if (pid == 0) {
		close(go_out);
		close(report_in);
		be_child(j, go_in, report_out);
	}
	signal(SIGPIPE, SIG_IGN); /* the child may be gone */
	fd_close(&report_out);
	r = complete(j, pid, e);
	if (r == 0 && write(go_out, "g", 1) != 1)
		r = err_sys(e, errno, "cannot let the monitor go");
	fd_close(&go_out);
	r = r ? r : await_exec(report_in, e);
	if (r)
		waitpid(pid, NULL, 0);
	return r;
}

static int run_steps(struct jailing *j, struct err *e)
{
	int r = jail_close_inherited(NULL, 0, e);

	r = r ? r : check_standard(e);
	r = r ? r : open_inputs(j, e);
	r = r ? r : make_all(j, e);
	r = r ? r : enter_all(j, e);
	if (r)
		return r;
	if (j->spec->daemonize || j->spec->new_pid_ns)
		return start_child(j, e);
	r = complete(j, getpid(), e);
	return r ? r : become_monitor(j, -1, e);
}

int chroot_run(const struct chroot_spec *spec, struct err *e)
{
	struct jailing j = {.spec = spec, .netns_fd = -1, .null_fd = -1};
	int r;

	umask(0); /* while the tree is made, with the modes that are written there */
	r = jail_check_id(spec->id, e);
	r = r ? r : run_steps(&j, e);
	if (r == 0)
		return 0;
	/* One that we are in stays, empty: the next of that name replaces it. */
	if (!j.joined)
		cgroup_remove(&j.group, NULL);
	if (!chroot_undo(&j.tree, spec))
		err_wrap(e, "%s is left", j.tree.path);
	return r;
}
