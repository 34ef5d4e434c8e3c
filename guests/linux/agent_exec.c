/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_exec.c - run a command for the host: its stdin, stdout, stderr, terminal and end.
 *
 * One poll() loop between the connection and the command's pipes, or its terminal. What is under
 * way is bounded: one frame towards the host, and STDIN_WINDOW bytes towards the command, which is
 * all the host may send before it hears that some were used up. So the connection can always be
 * read, and a signal never waits behind input that nobody takes; and where the host does not read,
 * neither do we, and the command waits.
 *
 * The end. It is over when the command ended, and all that was in its pipes then has been sent.
 * What it left behind in the background goes on without us. When the host vanishes, the command's
 * process group gets SIGHUP, and what has not ended GRACE_MS later, SIGKILL.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define GRACE_MS   5000
#define TTY_END_MS 1000 /* for a terminal's last words to get through the kernel */
#define ARGS_MAX   4096u
#define ENV_OWN	   6u
#define TERM_EOF   4 /* control-D */
#define PATH_WORD  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct request {
	u32 flags;
	u16 rows, columns, argc, envc;
	const char *user, *cwd;
	char *argv[ARGS_MAX + 1], *env[ARGS_MAX + ENV_OWN + 1];
};

/* The command's side of what connects it to us. */
struct ends {
	int in, out, err;
};

struct session {
	struct frame_reader *in;
	pid_t pid;
	bool tty, exited, stdin_end, protocol_error;
	bool err_first; /* stdout and stderr take turns */
	u32 status;
	int signal_fd, in_fd, out_fd, err_fd; /* -1: closed */
	long out_left, err_left;	      /* after the end: what is still to be passed on */
	u32 ring_at, ring_len, ack;
	u32 frame_off, frame_len; /* of what is being sent */
	u8 ring[STDIN_WINDOW];
	u8 frame[FRAME_HEAD + FRAME_DATA];
};

static struct request req;
static struct session session;

/* ---- the request ---- */

static bool take_texts(const struct frame *f, u32 *at, unsigned n, char **list)
{
	for (unsigned i = 0; i < n; i++) {
		list[i] = (char *)(uintptr_t)frame_text(f, at);
		if (!list[i])
			return false;
	}
	list[n] = NULL;
	return true;
}

static int parse(const struct frame *f, struct request *r, struct err *e)
{
	u32 at = 20;

	if (f->len < at)
		return err_set(e, -EPROTO, "a request that is too short");
	r->flags = (u32)le_get(f->p + 8, 4);
	r->rows = (u16)le_get(f->p + 12, 2);
	r->columns = (u16)le_get(f->p + 14, 2);
	r->argc = (u16)le_get(f->p + 16, 2);
	r->envc = (u16)le_get(f->p + 18, 2);
	if (!r->argc || r->argc > ARGS_MAX || r->envc > ARGS_MAX || r->flags & ~EXEC_TTY)
		return err_set(e, -EPROTO, "a command that makes no sense");
	r->user = frame_text(f, &at);
	r->cwd = r->user ? frame_text(f, &at) : NULL;
	if (!r->cwd || !take_texts(f, &at, r->argc, r->argv) ||
		!take_texts(f, &at, r->envc, r->env) || at != f->len)
		return err_set(e, -EPROTO, "a command that makes no sense");
	return 0;
}

static const char *env_get(const struct request *r, const char *name)
{
	size_t n = strlen(name);

	for (char *const *p = r->env; *p; p++)
		if (!strncmp(*p, name, n) && (*p)[n] == '=')
			return *p + n + 1;
	return NULL;
}

/* What every command gets, unless the request has it. */
static void add_env(struct request *r, const struct user *u)
{
	static char path[] = PATH_WORD, home[300], shell[300], user[80], logname[80];
	static char *const words[] = {path, home, shell, user, logname};

	snprintf(home, sizeof(home), "HOME=%s", u->home);
	snprintf(shell, sizeof(shell), "SHELL=%s", u->shell);
	snprintf(user, sizeof(user), "USER=%s", u->name);
	snprintf(logname, sizeof(logname), "LOGNAME=%s", u->name);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		char name[16];
		size_t n = (size_t)(strchr(words[i], '=') - words[i]);

		memcpy(name, words[i], n);
		name[n] = 0;
		if (!words[i][n + 1] || env_get(r, name))
			continue;
		r->env[r->envc++] = words[i];
		r->env[r->envc] = NULL;
	}
}

/* ---- the child ---- */

/* Runs argv[0], looked for in PATH. Returns -errno. */
static int run(struct request *r)
{
	const char *name = r->argv[0], *dir = env_get(r, "PATH"), *end;
	char path[4096];
	int denied = 0;

	if (strchr(name, '/') || !dir) {
		execve(name, r->argv, r->env);
		return -errno;
	}
	for (; dir; dir = *end ? end + 1 : NULL) {
		size_t n;

		end = strchr(dir, ':');
		end = end ? end : dir + strlen(dir);
		n = (size_t)(end - dir);
		if (!n || n + strlen(name) + 2 > sizeof(path))
			continue;
		memcpy(path, dir, n);
		snprintf(path + n, sizeof(path) - n, "/%s", name);
		execve(path, r->argv, r->env);
		if (errno != ENOENT && errno != ENOTDIR)
			denied = errno;
	}
	return denied ? -denied : -ENOENT;
}

/* What failed goes back through @fd: a letter and the errno. */
static _Noreturn void child_fail(int fd, u8 what, int code)
{
	u8 p[5] = {what};

	le_put(p + 1, (u32)-code, 4);
	if (write(fd, p, sizeof(p)) != sizeof(p))
		_exit(126);
	_exit(127);
}

static _Noreturn void child(struct request *r, const struct user *u, const struct ends *end, int fd)
{
	const int from[3] = {end->in, end->out, end->err};
	sigset_t none;
	int n;

	setsid();
	if (r->flags & EXEC_TTY)
		ioctl(end->in, TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		dup2(from[i], i); /* none of them is below 3 */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	umask(022);
	n = user_become(u);
	if (n)
		child_fail(fd, 'u', n);
	if (chdir(*r->cwd ? r->cwd : u->home) && (*r->cwd || chdir("/")))
		child_fail(fd, 'd', -errno);
	child_fail(fd, 'x', run(r));
}

/* ---- making it ---- */

static int open_tty(const struct request *r, struct session *s, struct ends *end)
{
	struct winsize ws = {.ws_row = r->rows ? r->rows : 24,
		.ws_col = r->columns ? r->columns : 80};
	int unlock = 0, number, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	char path[32];

	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCGPTN, &number))
		return -errno;
	snprintf(path, sizeof(path), "/dev/pts/%d", number);
	end->in = end->out = end->err = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (end->in < 0)
		return -errno;
	ioctl(master, TIOCSWINSZ, &ws);
	s->out_fd = master;
	s->in_fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	return 0;
}

static int open_pipes(struct session *s, struct ends *end)
{
	int p[3][2];

	for (int i = 0; i < 3; i++)
		if (pipe2(p[i], O_CLOEXEC))
			return -errno;
	end->in = p[0][0];
	end->out = p[1][1];
	end->err = p[2][1];
	s->in_fd = p[0][1];
	s->out_fd = p[1][0];
	s->err_fd = p[2][0];
	return 0;
}

static void dont_block(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int explain(const u8 p[5], const struct request *r, u32 *status, struct err *e)
{
	int code = (int)le_get(p + 1, 4);

	*status = p[0] == 'x' && code != ENOENT ? 126 : p[0] == 'x' ? 127 : 1;
	if (p[0] == 'u')
		return err_sys(e, code, "cannot become the user \"%s\"", r->user);
	if (p[0] == 'd')
		return err_sys(e, code, "cannot go to the directory \"%s\"", r->cwd);
	return err_sys(e, code, "cannot run \"%s\"", r->argv[0]);
}

/* Starts the command; *status is the verb's, where that fails. */
static int start(struct request *r, struct session *s, u32 *status, struct err *e)
{
	static struct user u;
	struct ends end = {-1, -1, -1};
	int said[2], n;
	u8 p[5];

	*status = 1;
	n = user_find(r->user, &u, e);
	if (n)
		return n;
	add_env(r, &u);
	n = s->tty ? open_tty(r, s, &end) : open_pipes(s, &end);
	if (n || pipe2(said, O_CLOEXEC))
		return err_sys(e, n ? -n : errno, "cannot make a %s", s->tty ? "terminal" : "pipe");
	s->pid = fork();
	if (s->pid < 0)
		return err_sys(e, errno, "cannot make a process");
	if (!s->pid)
		child(r, &u, &end, said[1]);
	close(said[1]);
	close(end.in);
	if (!s->tty) {
		close(end.out);
		close(end.err);
	}
	/* Closed by a command that runs. */
	do
		n = (int)read(said[0], p, sizeof(p));
	while (n < 0 && errno == EINTR);
	close(said[0]);
	if (n == sizeof(p))
		return explain(p, r, status, e);
	dont_block(s->in_fd);
	dont_block(s->out_fd);
	dont_block(s->err_fd);
	return 0;
}

/* ---- from the host ---- */

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool take_stdin(struct session *s, const struct frame *f)
{
	if (s->stdin_end || f->len > STDIN_WINDOW - s->ring_len)
		return false;
	for (u32 done = 0; done < f->len;) {
		u32 at = (s->ring_at + s->ring_len) % STDIN_WINDOW, n = f->len - done;

		n = n < STDIN_WINDOW - at ? n : STDIN_WINDOW - at;
		memcpy(s->ring + at, f->p + done, n);
		s->ring_len += n;
		done += n;
	}
	return true;
}

static bool take_frame(struct session *s, const struct frame *f)
{
	struct winsize ws = {0};

	switch (f->type) {
	case FR_STDIN: return take_stdin(s, f);
	case FR_STDIN_END:
		s->stdin_end = true;
		return f->len == 0;
	case FR_RESIZE:
		if (f->len != 4)
			return false;
		ws.ws_row = (u16)le_get(f->p, 2);
		ws.ws_col = (u16)le_get(f->p + 2, 2);
		if (s->tty && s->out_fd >= 0)
			ioctl(s->out_fd, TIOCSWINSZ, &ws);
		return true;
	case FR_SIGNAL:
		if (f->len != 4 || le_get(f->p, 4) < 1 || le_get(f->p, 4) > 64)
			return false;
		if (!s->exited)
			kill(-s->pid, (int)le_get(f->p, 4));
		return true;
	default: return false;
	}
}

/* False: the host has left, or makes no sense. */
static bool read_host(struct session *s)
{
	struct frame f;
	int r;

	while ((r = frame_read(s->in, &f, NULL)) > 0) {
		if (!take_frame(s, &f)) {
			s->protocol_error = true;
			return false;
		}
	}
	if (r == -EPROTO)
		s->protocol_error = true;
	return r == 0;
}

/* ---- to the command ---- */

static void used(struct session *s, u32 n)
{
	s->ring_at = (s->ring_at + n) % STDIN_WINDOW;
	s->ring_len -= n;
	s->ack += n;
}

static void feed(struct session *s)
{
	static const u8 eof = TERM_EOF;

	while (s->ring_len && s->in_fd >= 0) {
		u32 n = STDIN_WINDOW - s->ring_at;
		ssize_t k;

		n = n < s->ring_len ? n : s->ring_len;
		k = write(s->in_fd, s->ring + s->ring_at, n);
		if (k < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (k < 0)
			shut(&s->in_fd); /* it takes no more */
		else
			used(s, (u32)k);
	}
	if (s->in_fd < 0) {
		used(s, s->ring_len); /* so that the host need not keep it */
	} else if (s->stdin_end) {
		if (s->tty && write(s->in_fd, &eof, 1) < 0 && errno == EAGAIN)
			return;
		shut(&s->in_fd);
	}
}

/* ---- to the host ---- */

static void put_frame(struct session *s, u8 type, u32 len)
{
	frame_head(s->frame, type, len);
	s->frame_off = 0;
	s->frame_len = FRAME_HEAD + len;
}

/* Reads a pipe of the command into the frame. @left: how much there is after the end, -1 before. */
static void collect(struct session *s, int *fd, long *left, u8 type)
{
	size_t want = FRAME_DATA;
	ssize_t n;

	if (*fd < 0 || s->frame_len)
		return;
	if (*left >= 0 && (size_t)*left < want)
		want = (size_t)*left;
	n = want ? read(*fd, s->frame + FRAME_HEAD, want) : 0;
	if (n < 0 && (errno == EINTR || (errno == EAGAIN && *left < 0)))
		return;
	if (n <= 0) {
		shut(fd);
		return;
	}
	if (*left >= 0)
		*left -= n;
	put_frame(s, type, (u32)n);
}

static bool ack_due(const struct session *s)
{
	return s->ack && (s->ack >= STDIN_WINDOW / 4 || !s->ring_len);
}

/* Sends what there is to send. False: the host has left. */
static bool flush(struct session *s)
{
	ssize_t n;

	for (;;) {
		if (!s->frame_len && ack_due(s)) {
			le_put(s->frame + FRAME_HEAD, s->ack, 4);
			s->ack = 0;
			put_frame(s, FR_STDIN_ACK, 4);
		}
		if (!s->frame_len)
			return true;
		n = send(s->in->fd, s->frame + s->frame_off, s->frame_len - s->frame_off,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		s->frame_off += (u32)n;
		if (s->frame_off == s->frame_len)
			s->frame_off = s->frame_len = 0;
	}
}

/* ---- the end ---- */

static long in_pipe(int fd)
{
	int n = 0;

	return fd < 0 || ioctl(fd, FIONREAD, &n) ? 0 : n;
}

static void reap(struct session *s)
{
	struct signalfd_siginfo si;
	int status;

	while (read(s->signal_fd, &si, sizeof(si)) > 0)
		;
	if (s->exited || waitpid(s->pid, &status, WNOHANG) != s->pid)
		return;
	s->exited = true;
	s->status = WIFSIGNALED(status) ? 128u + (u32)WTERMSIG(status) : (u32)WEXITSTATUS(status);
	if (!s->tty) { /* a terminal says itself when it is empty */
		s->out_left = in_pipe(s->out_fd);
		s->err_left = in_pipe(s->err_fd);
	}
}

static void hang_up(struct session *s)
{
	struct pollfd p = {.fd = s->signal_fd, .events = POLLIN};
	struct err e;

	if (!s->exited) {
		kill(-s->pid, SIGHUP);
		kill(-s->pid, SIGCONT);
	}
	shut(&s->in_fd);
	shut(&s->out_fd);
	shut(&s->err_fd);
	if (s->protocol_error) {
		err_set(&e, -EPROTO, "something that does not belong to a command");
		serve_fail(s->in->fd, 1, &e);
	}
	close(s->in->fd);
	for (int i = 0; i < 10 && !s->exited; i++) {
		poll(&p, 1, GRACE_MS / 10);
		reap(s);
	}
	if (!s->exited)
		kill(-s->pid, SIGKILL);
}

static void finish(struct session *s)
{
	u8 p[4];

	le_put(p, s->status, 4);
	if (!frame_send(s->in->fd, FR_EXIT, p, 4, NULL))
		shutdown(s->in->fd, SHUT_WR);
}

/* ---- the loop ---- */

static int timeout(const struct session *s)
{
	return s->exited && s->tty ? TTY_END_MS : -1;
}

static void shuffle(struct session *s)
{
	struct pollfd p[] = {
		{s->in->fd, (short)(POLLIN | (s->frame_len ? POLLOUT : 0)), 0},
		{s->signal_fd, POLLIN, 0},
		{s->ring_len || s->stdin_end ? s->in_fd : -1, POLLOUT, 0},
		{s->frame_len ? -1 : s->out_fd, POLLIN, 0},
		{s->frame_len ? -1 : s->err_fd, POLLIN, 0},
	};

	if (poll(p, ARRAY_SIZE(p), timeout(s)) == 0)
		shut(&s->out_fd); /* something in the background holds the terminal */
}

static void session_run(struct session *s)
{
	for (;;) {
		if (!read_host(s)) {
			hang_up(s);
			return;
		}
		reap(s);
		feed(s);
		s->err_first = !s->err_first;
		if (s->err_first)
			collect(s, &s->err_fd, &s->err_left, FR_STDERR);
		collect(s, &s->out_fd, &s->out_left, FR_STDOUT);
		collect(s, &s->err_fd, &s->err_left, FR_STDERR);
		if (!flush(s)) {
			hang_up(s);
			return;
		}
		if (!s->frame_len && s->exited && s->out_fd < 0 && s->err_fd < 0)
			break;
		if (!s->exited || s->frame_len || s->tty)
			shuffle(s);
	}
	finish(s);
}

void exec_serve(struct frame_reader *in, const struct frame *f)
{
	struct session *s = &session;
	struct err e = {0};
	sigset_t set;
	u32 status = 1;
	int r = parse(f, &req, &e);

	*s = (struct session){0};
	s->in = in;
	s->in_fd = s->out_fd = s->err_fd = -1;
	s->out_left = s->err_left = -1;
	s->tty = req.flags & EXEC_TTY;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!r)
		r = start(&req, s, &status, &e);
	if (r)
		serve_fail(in->fd, status, &e);
	else if (!frame_send(in->fd, FR_OK, NULL, 0, NULL))
		session_run(s);
	else
		hang_up(s);
}
