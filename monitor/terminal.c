/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.c - see terminal.h
 *
 * Nothing here waits, for the keeper has more to do: pipes do not block, nor does the terminal,
 * which is opened anew for that. It is read where poll() says there is a line. In the background
 * that would take it from the job in front: the caller stops first (terminal_is_others()), as the
 * kernel makes any reader.
 */
#include "monitor/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/io.h"

#define STUCK_MS 1000

/* The VM's end blocks or not as it likes; ours does not. */
static int make_pipe(int *vm_end, int *our_end, bool vm_reads, struct err *e)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return err_sys(e, errno, "cannot make a pipe");
	*vm_end = fds[vm_reads ? 0 : 1];
	*our_end = fds[vm_reads ? 1 : 0];
	return fcntl(*our_end, F_SETFL, O_NONBLOCK) ? err_sys(e, errno, "cannot set up a pipe") : 0;
}

static int open_in(struct terminal *t, bool reads, struct err *e)
{
	struct terminal_way *w = &t->way[STDIN_FILENO];
	int r = make_pipe(&t->vm[STDIN_FILENO], &w->to, true, e);

	if (reads)
		w->from = io_reopen(STDIN_FILENO, O_RDONLY);
	else
		fd_close(&w->to); /* which is the end of the VM's input */
	return r;
}

static int open_out(struct terminal *t, int fd, struct err *e)
{
	struct terminal_way *w = &t->way[fd];
	int r = make_pipe(&t->vm[fd], &w->from, false, e);

	w->to = io_reopen(fd, O_WRONLY);
	return r;
}

void terminal_none(struct terminal *t)
{
	for (unsigned i = 0; i < TERMINAL_WAYS; i++) {
		t->vm[i] = t->way[i].from = t->way[i].to = -1;
		t->way[i].len = 0;
	}
}

int terminal_open(struct terminal *t, bool reads, struct err *e)
{
	int r = 0;

	if (isatty(STDIN_FILENO))
		r = open_in(t, reads, e);
	for (int fd = STDOUT_FILENO; !r && fd <= STDERR_FILENO; fd++)
		if (isatty(fd))
			r = open_out(t, fd, e);
	if (r)
		terminal_close(t);
	return r;
}

static void end_way(struct terminal_way *w)
{
	fd_close(&w->from);
	fd_close(&w->to);
	w->len = 0;
}

void terminal_close(struct terminal *t)
{
	terminal_keep(t);
	for (unsigned i = 0; i < TERMINAL_WAYS; i++)
		end_way(&t->way[i]);
}

void terminal_keep(struct terminal *t)
{
	for (unsigned i = 0; i < TERMINAL_WAYS; i++)
		fd_close(&t->vm[i]);
}

void terminal_leave(struct terminal *t)
{
	/* The process stays in the session, and is to find no terminal there. */
	_cleanup_fd_ int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);

	if (tty >= 0)
		ioctl(tty, TIOCNOTTY);
	for (int fd = 0; fd < (int)TERMINAL_WAYS; fd++)
		if (t->vm[fd] >= 0)
			dup2(t->vm[fd], fd);
	terminal_close(t);
}

void terminal_wants(const struct terminal *t, struct pollfd *p)
{
	for (unsigned i = 0; i < TERMINAL_WAYS; i++) {
		const struct terminal_way *w = &t->way[i];

		p[i] = w->len ? (struct pollfd){.fd = w->to, .events = POLLOUT}
			      : (struct pollfd){.fd = w->from, .events = POLLIN};
	}
}

bool terminal_is_others(const struct terminal *t, const struct pollfd *p)
{
	const struct terminal_way *w = &t->way[STDIN_FILENO];
	pid_t front;

	if (!p[STDIN_FILENO].revents || w->len || w->from < 0)
		return false;
	front = tcgetpgrp(STDIN_FILENO);
	return front > 0 && front != getpgrp();
}

static void move(struct terminal_way *w)
{
	ssize_t n;

	if (!w->len) {
		n = read(w->from, w->buf, sizeof(w->buf));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) { /* Ctrl-D, nobody writes any more, or EIO: the terminal is gone */
			end_way(w);
			return;
		}
		w->off = 0;
		w->len = (size_t)n;
	}
	n = write(w->to, w->buf + w->off, w->len);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		end_way(w);
	} else if (n > 0) {
		w->off += (size_t)n;
		w->len -= (size_t)n;
	}
}

void terminal_move(struct terminal *t, const struct pollfd *p)
{
	for (unsigned i = 0; i < TERMINAL_WAYS; i++)
		if (p[i].fd >= 0 && p[i].revents)
			move(&t->way[i]);
}

void terminal_finish(struct terminal *t)
{
	for (unsigned i = STDOUT_FILENO; i < TERMINAL_WAYS; i++) {
		struct terminal_way *w = &t->way[i];
		struct pollfd p[TERMINAL_WAYS];

		do {
			terminal_wants(t, p);
			if (p[i].fd < 0 || poll(&p[i], 1, w->len ? STUCK_MS : 0) <= 0)
				break;
			move(w);
		} while (w->from >= 0);
	}
	terminal_close(t);
}

bool terminal_stop_job(int sig)
{
	const struct timespec now = {0};
	sigset_t set, cont, old;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	sigprocmask(SIG_BLOCK, &cont, &old); /* so that it can be seen: it continues all the same */
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* stops here */
	sig = sigtimedwait(&cont, NULL, &now);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return sig == SIGCONT;
}
