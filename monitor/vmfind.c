/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfind.c - see vmfind.h
 *
 * A pid file alone proves nothing: pids are used again. What proves that a monitor lives is the
 * lock on the file. Of a jailed VM its keeper has that, who lets go of it before the pid can be
 * another's (keeper.c); else the VM itself. What proves that a process is that monitor is that it,
 * or its parent, has this very file open, or the credential that the kernel gives for its listening
 * socket, as a captive may have outlived its keeper. The lock is probed only where the pid exists,
 * so that looking never gets in the way of a VM that is just taking its name.
 */
#include "monitor/vmfind.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/io.h"
#include "monitor/keeper.h"

#define DIR_CAP     512u
#define REPORT_MAX  (KEEPER_TEXT_MAX + 1) /* bytes of exit.json: with the end of its line */
#define KILL_WAIT   60000 /* ms for the kernel to end a killed process: its RAM may be much */
#define LEAVE_WAIT  1000 /* ms for one that was told to end, and whose name is free */
#define SWEEP_WAIT  1000 /* ms for the keeper of a killed one */
#define YOUNG_S     2    /* a pid file without a pid this new is being written */

const char *const vm_files[VM_FILES] = {"api.sock", "vsock.sock", "log", "exit.json", "console",
	VM_DEVICES_FILE, "pid"};

/* ---- looking ---- */

static pid_t read_pid(int fd)
{
	char text[16] = "";
	char *end;
	long v;

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return 0;
	v = strtol(text, &end, 10);
	return v > 0 && v <= INT_MAX && (*end == '\n' || !*end) ? (pid_t)v : 0;
}

static bool is_locked(int fd)
{
	if (flock(fd, LOCK_SH | LOCK_NB) == 0) {
		flock(fd, LOCK_UN);
		return false;
	}
	return errno == EWOULDBLOCK;
}

static bool is_young(int fd)
{
	struct timespec now;
	struct stat st;

	clock_gettime(CLOCK_REALTIME, &now);
	return fstat(fd, &st) == 0 && now.tv_sec - st.st_mtim.tv_sec < YOUNG_S;
}

pid_t vm_pid_in(int dir_fd)
{
	_cleanup_fd_ int fd = openat(dir_fd, "pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? 0 : read_pid(fd);
}

static int open_pid_file(const char *id, int flags, struct err *e)
{
	char path[DIR_CAP];
	int fd, r = vm_path(path, sizeof(path), id, "pid", e);

	if (r)
		return r;
	fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 ? fd : err_sys(e, errno, "cannot open %s", path);
}

static bool is_vm_file(const char *name)
{
	for (size_t i = 0; i < VM_FILES; i++)
		if (strcmp(vm_files[i], name) == 0)
			return true;
	return false;
}

/* What the host's services listen on for a guest, in the directory of its VM. */
static bool is_service(const char *name)
{
	return strncmp(name, "vsock.sock_", 11) == 0;
}

/* Counts what is in a directory: what VMs make, and all else but services. One that cannot be read
 * has both. */
static void count_files(int dir_fd, size_t *ret_ours, size_t *ret_others)
{
	int fd = openat(dir_fd, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	*ret_ours = *ret_others = !d;
	while (d && (ent = readdir(d)))
		if (is_vm_file(ent->d_name))
			++*ret_ours;
		else if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..") &&
			!is_service(ent->d_name))
			++*ret_others;
	if (d)
		closedir(d);
	else
		fd_close(&fd);
}

/* Of a directory without a pid file. */
static enum vm_there look_at_rest(int dir_fd)
{
	size_t ours, others;

	if (faccessat(dir_fd, "exit.json", F_OK, 0) == 0)
		return VM_ENDED;
	count_files(dir_fd, &ours, &others);
	return ours && !others ? VM_DEAD : VM_ABSENT;
}

bool process_stat(const char *pid, char *ret_state, pid_t *ret_parent)
{
	char path[64], text[256];
	_cleanup_fd_ int fd = -1;
	const char *end;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%.12s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	end = strrchr(text, ')'); /* "PID (NAME) STATE PARENT ..." */
	if (!end || !end[1] || !end[2])
		return false;
	if (ret_state)
		*ret_state = end[2];
	if (ret_parent)
		*ret_parent = (pid_t)strtol(end + 3, NULL, 10);
	return true;
}

enum vm_there vm_look(const char *id, pid_t *ret_pid)
{
	_cleanup_fd_ int dir = -1, fd = -1;
	char path[DIR_CAP];
	pid_t pid;

	if (ret_pid)
		*ret_pid = 0;
	if (vm_path(path, sizeof(path), id, NULL, NULL))
		return VM_ABSENT;
	dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return errno == EACCES ? VM_HIDDEN : VM_ABSENT;
	fd = openat(dir, "pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return look_at_rest(dir);
	pid = read_pid(fd);
	if (ret_pid)
		*ret_pid = pid;
	if (!pid)
		return is_young(fd) ? VM_LIVES : VM_DEAD;
	if (kill(pid, 0) && errno == ESRCH)
		return VM_DEAD;
	return is_locked(fd) ? VM_LIVES : VM_DEAD;
}

/* ---- how one ended ---- */

/* The file as JSON, of whatever kind and size it may be; NULL where it is no report's. */
static json_t *load_report(const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	_cleanup_free_ char *text = malloc(REPORT_MAX);
	struct stat st;

	if (fd < 0 || !text || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
		st.st_size > REPORT_MAX || io_read_at(fd, text, (u64)st.st_size, 0))
		return NULL;
	return json_loadb(text, (size_t)st.st_size, JSON_REJECT_DUPLICATES, NULL);
}

static bool is_status(const json_t *v)
{
	return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= 255;
}

json_t *vm_exit_report(const char *id)
{
	static const char *const keys[] = {"reason", "status", "text", "console"};
	json_auto_t *left = NULL;
	char path[DIR_CAP];
	json_t *ret;

	if (vm_path(path, sizeof(path), id, "exit.json", NULL))
		return NULL;
	left = load_report(path);
	ret = json_is_object(left) ? json_object() : NULL;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		json_t *v = json_object_get(left, keys[i]);

		if (strcmp(keys[i], "status") == 0 ? is_status(v) : json_is_string(v))
			json_object_set(ret, keys[i], v);
	}
	return ret;
}

/* ---- listing ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void vm_list_free(char **ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(ids[i]);
	free(ids);
}

static int add_name(char ***ids, size_t *n, size_t *cap, const char *name)
{
	if (*n == *cap) {
		size_t more = *cap ? *cap * 2 : 64;
		char **grown = reallocarray(*ids, more, sizeof(char *));

		if (!grown)
			return -ENOMEM;
		*ids = grown;
		*cap = more;
	}
	(*ids)[*n] = strdup(name);
	if (!(*ids)[*n])
		return -ENOMEM;
	(*n)++;
	return 0;
}

int vm_list(char ***ret_ids, size_t *ret_n, struct err *e)
{
	size_t n = 0, cap = 0;
	char base[DIR_CAP];
	char **ids = NULL;
	struct dirent *ent;
	DIR *d;
	int r = run_dir(base, sizeof(base), e);

	if (r)
		return r;
	d = opendir(base);
	if (!d && errno != ENOENT)
		return err_sys(e, errno, "cannot list the VMs in %s", base);
	while (d && !r && (ent = readdir(d)))
		if (vm_id_check(ent->d_name, NULL) == 0 &&
			(ent->d_type == DT_DIR || ent->d_type == DT_UNKNOWN))
			r = add_name(&ids, &n, &cap, ent->d_name);
	if (d)
		closedir(d);
	if (r) {
		vm_list_free(ids, n);
		return err_sys(e, -r, "cannot list the VMs in %s", base);
	}
	if (n)
		qsort(ids, n, sizeof(*ids), by_name);
	*ret_ids = ids;
	*ret_n = n;
	return 0;
}

bool vm_by_pid(pid_t pid, char ret_id[VM_ID_MAX + 1])
{
	bool found = false;
	char **ids;
	size_t n;

	if (vm_list(&ids, &n, NULL))
		return false;
	for (size_t i = 0; i < n && !found; i++) {
		_cleanup_fd_ int fd = open_pid_file(ids[i], O_RDONLY, NULL);

		found = fd >= 0 && read_pid(fd) == pid && is_locked(fd);
		if (found)
			snprintf(ret_id, VM_ID_MAX + 1, "%s", ids[i]);
	}
	vm_list_free(ids, n);
	return found;
}

/* ---- ending ---- */

/* SIGKILL for the process behind @proc; waits until it is gone. */
static int kill_process(const char *id, int proc, pid_t pid, struct err *e)
{
	struct pollfd p = {.fd = proc, .events = POLLIN};

	if (pidfd_send_signal(proc, SIGKILL, NULL, 0) && errno != ESRCH)
		return err_sys(e, errno, "cannot kill process %d of VM \"%s\"", (int)pid, id);
	if (poll(&p, 1, KILL_WAIT) <= 0)
		return err_set(e, -ETIMEDOUT, "process %d of VM \"%s\" was killed but does not end",
			(int)pid, id);
	return 0;
}

int vm_end_process(const char *id, int proc, pid_t pid, struct err *e)
{
	struct pollfd p = {.fd = proc, .events = POLLIN};

	return poll(&p, 1, LEAVE_WAIT) > 0 ? 0 : kill_process(id, proc, pid, e);
}

int vm_wait_gone(const char *id, pid_t pid, u64 timeout_ns, struct err *e)
{
	u64 begin = monotonic_ns();
	pid_t now;

	for (int pause_ms = 1; vm_look(id, &now) == VM_LIVES && now == pid;) {
		if (monotonic_ns() - begin >= timeout_ns)
			return err_set(e, -ETIMEDOUT,
				"VM \"%s\" (pid %d) was asked to end but still runs "
				"(kelvin kill %s ends it at once)",
				id, (int)pid, id);
		poll(NULL, 0, pause_ms);
		pause_ms = pause_ms < 16 ? pause_ms * 2 : 16;
	}
	return 0;
}

/* Whether @pid is the process that listens on the VM's api.sock. */
static bool listens(const char *id, pid_t pid)
{
	_cleanup_fd_ int fd = -1;

	return client_connect(&fd, id, "api.sock", NULL) == 0 && client_peer(fd) == pid;
}

/* Whether process @pid has the file @pid_fd open. */
static bool has_open(pid_t pid, int pid_fd)
{
	struct stat want, st;
	char path[64];
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = fstat(pid_fd, &want) ? NULL : opendir(path);
	if (!d)
		return false;
	for (struct dirent *ent = readdir(d); ent && !found; ent = readdir(d))
		found = ent->d_name[0] != '.' && fstatat(dirfd(d), ent->d_name, &st, 0) == 0 &&
			st.st_dev == want.st_dev && st.st_ino == want.st_ino;
	closedir(d);
	return found;
}

/* 0: none that can be seen. */
static pid_t parent_of(pid_t pid)
{
	char text[16];
	pid_t parent;

	snprintf(text, sizeof(text), "%d", (int)pid);
	return process_stat(text, NULL, &parent) ? parent : 0;
}

int vm_open_process(const char *id, pid_t *ret_pid, struct err *e)
{
	_cleanup_fd_ int pid_fd = open_pid_file(id, O_RDONLY, e), proc = -1;
	pid_t pid, keeper;

	*ret_pid = 0;
	if (pid_fd < 0)
		return pid_fd;
	pid = read_pid(pid_fd);
	if (pid <= 0)
		return err_set(e, -EINVAL, "the pid file of VM \"%s\" holds no pid", id);
	/* First the handle, then the proof, so that the proof is about the handle's process. */
	proc = pidfd_open(pid, 0);
	if (proc < 0)
		return err_sys(e, errno, "cannot reach process %d", (int)pid);
	keeper = parent_of(pid);
	if (keeper == getpid()) /* who has it open by now */
		keeper = 0;
	if (!has_open(pid, pid_fd) && !(keeper && has_open(keeper, pid_fd)) && !listens(id, pid))
		return err_set(e, -EPERM,
			"process %d is not provably the monitor of VM \"%s\", so it was not killed",
			(int)pid, id);
	*ret_pid = pid;
	return fd_steal(&proc);
}

int vm_kill_process(const char *id, pid_t *ret_pid, struct err *e)
{
	pid_t pid;
	_cleanup_fd_ int proc = vm_open_process(id, &pid, e);
	int r;

	if (ret_pid)
		*ret_pid = pid;
	if (proc < 0)
		return proc == -ESRCH ? 0 : proc;
	r = kill_process(id, proc, pid, e);
	if (!r)
		vm_wait_gone(id, pid, SWEEP_WAIT * 1000000ull, NULL);
	return r;
}

/* Whether @sa is a socket that nobody listens on any more. */
static bool is_dead_socket(const struct sockaddr_un *sa)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	return fd >= 0 && lstat(sa->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) && errno == ECONNREFUSED;
}

void vm_remove_linked_socket(int dir_fd)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	ssize_t n = readlinkat(dir_fd, "vsock.sock", sa.sun_path, sizeof(sa.sun_path));

	if (n > 0 && (size_t)n < sizeof(sa.sun_path) && sa.sun_path[0] == '/' &&
		is_dead_socket(&sa))
		unlink(sa.sun_path);
}

int vm_sweep(const char *id, pid_t dead, struct err *e)
{
	_cleanup_fd_ int dir = -1, lock = -1;
	size_t ours, others;
	char path[DIR_CAP];
	struct stat st;
	int r = vm_path(path, sizeof(path), id, NULL, e);

	if (r)
		return r;
	dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return errno == ENOENT ? 0 : err_sys(e, errno, "cannot open %s", path);
	count_files(dir, &ours, &others);
	if (others)
		return err_set(e, -ENOTEMPTY,
			"%s holds files that are no VM's: nothing in it was removed", path);
	lock = open_pid_file(id, O_RDWR | O_CREAT, e);
	if (lock < 0)
		return lock == -ENOENT ? 0 : lock; /* somebody else was quicker */
	/* The keeper of one that is dead may be stopped. What it does later, it does to its own. */
	if ((flock(lock, LOCK_EX | LOCK_NB) && !(dead && read_pid(lock) == dead)) ||
		fstat(lock, &st) || st.st_nlink == 0)
		return err_set(e, -EBUSY, "VM \"%s\" is in use again", id);
	vm_remove_linked_socket(dir);
	for (size_t i = 0; i < VM_FILES; i++)
		unlinkat(dir, vm_files[i], 0);
	/* It stays for services that listen there. */
	if (rmdir(path) && errno != ENOENT && errno != ENOTEMPTY)
		return err_sys(e, errno, "cannot remove %s", path);
	return 0;
}
