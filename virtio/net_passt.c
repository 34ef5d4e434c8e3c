/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_passt.c - passt: a network for the guest without privileges on the host. See passt(1).
 *
 * Theory of operation
 *
 * passt is a process that speaks Ethernet with the guest on a unix socket and uses ordinary sockets
 * of its own user on the other side. It can be there already (net_passt_open()) or be started for
 * one VM (net_passt_start()). Then it inherits one end of a socket pair, goes to the background
 * when it is ready, and ends when our end is closed: there is nothing to look after. The process
 * that was started ends at that moment, with what went wrong on its standard error if anything did.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "virtio/net_int.h"

#define START_MS  5000u /* how long passt may take to be ready */
#define FD_THERE  3     /* its end of the socket pair, in passt */
#define FD_THERE_TEXT "3"
#define MESSAGE   1024u

extern char **environ;

int net_passt_open(struct net_backend *ret, const char *path, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = -1;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, -EINVAL, "passt socket %.40s: a path of 1 to %zu bytes, please",
			path, sizeof(sa.sun_path) - 1);
	memcpy(sa.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, errno, "cannot make a unix socket");
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		if (errno == ECONNREFUSED)
			return err_set(e, -ECONNREFUSED,
				"cannot connect to passt at %s: nobody listens there", path);
		return err_sys(e, errno, "cannot connect to passt at %s", path);
	}
	*ret = (struct net_backend){.kind = NET_PASST, .fds_count = 1, .fds = {fd_steal(&fd)}};
	snprintf(ret->name, sizeof(ret->name), "%.60s", path);
	return 0;
}

/* Reads what passt says until it closes @fd, or for START_MS. False where it did not close it. */
static bool listen_to(int fd, char message[MESSAGE])
{
	u64 end_ns = monotonic_ns() + START_MS * 1000000ull, now_ns;
	size_t len = 0;

	while ((now_ns = monotonic_ns()) < end_ns) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char more[MESSAGE];
		ssize_t n;

		if (poll(&p, 1, (int)((end_ns - now_ns) / 1000000 + 1)) <= 0)
			continue;
		n = read(fd, more, sizeof(more));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			message[len] = 0;
			return true;
		}
		/* The last of it is what counts. */
		if ((size_t)n >= MESSAGE - len) {
			memmove(message, message + len / 2, len - len / 2);
			len -= len / 2;
			n = (size_t)n < MESSAGE - 1 - len ? n : (ssize_t)(MESSAGE - 1 - len);
		}
		memcpy(message + len, more, (size_t)n);
		len += (size_t)n;
	}
	return false;
}

/* The last line of @message that says something; it is cut there. */
static const char *last_line(char *message)
{
	const char *found = "it does not say why";

	for (char *p = message; *p; p++)
		*p = *p < ' ' && *p != '\n' ? ' ' : *p;
	for (char *line = message, *end; line && *line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = 0;
		/* What old versions say where there is no system logger. */
		if (*line && strncmp(line, "Failed to send", 14) != 0)
			found = line;
	}
	return found;
}

static int spawn(pid_t *ret, int socket_fd, int error_fd, struct err *e)
{
	char name[] = "passt", quiet[] = "--quiet", fd_option[] = "--fd", fd_text[] = FD_THERE_TEXT;
	char *argv[] = {name, quiet, fd_option, fd_text, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int r;

	sigemptyset(&none);
	must(!posix_spawnattr_init(&attr) && !posix_spawn_file_actions_init(&actions));
	/* It is to end by the usual signals, whatever we do with them. */
	r = posix_spawnattr_setsigmask(&attr, &none);
	r = r ? r : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	r = r ? r : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
	r = r ? r : posix_spawn_file_actions_adddup2(&actions, 0, 1);
	r = r ? r : posix_spawn_file_actions_adddup2(&actions, error_fd, 2);
	r = r ? r : posix_spawn_file_actions_adddup2(&actions, socket_fd, FD_THERE);
	r = r ? r : posix_spawnp(ret, name, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	if (r == ENOENT)
		return err_set(e, -ENOENT,
			"cannot start passt: it is not installed (package passt)");
	return r ? err_sys(e, r, "cannot start passt") : 0;
}

/* Waits until passt is in the background. */
static int wait_ready(pid_t pid, int error_fd, struct err *e)
{
	char message[MESSAGE];
	bool closed = listen_to(error_fd, message);
	int status, r;

	if (!closed)
		kill(pid, SIGKILL);
	do {
		r = waitpid(pid, &status, 0);
	} while (r < 0 && errno == EINTR);
	if (!closed)
		return err_set(e, -ETIMEDOUT, "passt was not ready in %u ms", START_MS);
	if (r < 0)
		return err_sys(e, errno, "cannot wait for passt");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return err_set(e, -EIO, "passt did not start: %.300s", last_line(message));
	return 0;
}

int net_passt_start(struct net_backend *ret, struct err *e)
{
	_cleanup_fd_ int ours = -1, its = -1, error_read = -1, error_write = -1;
	int pair[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, errno, "cannot make a socket pair for passt");
	ours = pair[0];
	its = pair[1];
	if (pipe2(pair, O_CLOEXEC))
		return err_sys(e, errno, "cannot make a pipe for passt");
	error_read = pair[0];
	error_write = pair[1];
	/* Ours only: passt sets its own end as it likes. */
	if (fcntl(ours, F_SETFL, O_NONBLOCK))
		return err_sys(e, errno, "passt");
	r = spawn(&pid, its, error_write, e);
	if (r)
		return r;
	fd_close(&error_write);
	r = wait_ready(pid, error_read, e);
	if (r)
		return r;
	*ret = (struct net_backend){.kind = NET_PASST, .fds_count = 1, .fds = {fd_steal(&ours)},
		.name = "passt"};
	return 0;
}
