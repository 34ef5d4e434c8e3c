/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.c - starts one command and measures the time to a marker, without an interpreter's noise.
 *
 * The clock (CLOCK_MONOTONIC) is read right before posix_spawn() and right after the marker was
 * seen; ending and reaping the command comes after that and is on nobody's clock. One sample a
 * call: bench/run decides the order, so that subjects can be interleaved in any way.
 *
 * Markers:
 *   byte             the first byte on descriptor 3
 *   pooled           a first byte on 3 says "prepared"; after a rest the clock starts with a byte
 *                    sent to descriptor 4, and stops with the next byte on 3
 *   stdout           the first byte of standard output
 *   stdout=TEXT      the first output that holds TEXT
 *   vsock=PORT:PATH  the reply to one line sent to a guest's port through the monitor's socket
 *   exit             the command has ended
 *
 * Prints one JSON object: ns, start_ns, exit (status, or minus the signal), out (what the marker
 * was found in, or all of standard output for "exit"). The command runs in a process group of its
 * own, and the whole group is killed on a time-out or when we are told to end.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARKER_FD 3
#define GO_FD     4
#define OUT_MAX   65536u
/* A pooled VM is an old one: let KVM's grace periods end before it is asked for. */
#define POOL_REST_NS 50000000l
/* How often a socket that is not there yet is looked for. */
#define CONNECT_RETRY_NS 50000l

enum marker { MARK_BYTE, MARK_POOLED, MARK_STDOUT, MARK_VSOCK, MARK_EXIT };

struct job {
	enum marker marker;
	const char *text; /* stdout=TEXT; NULL: any byte will do */
	unsigned port;
	const char *path;
	bool leave; /* let the command end by itself instead of killing it */
	bool gets_stdin; /* give it our standard input; else it gets none */
	char **argv;
	int marker_fd; /* our ends; -1 where not used */
	int go_fd;
	int out_fd;
	uint64_t start_ns, end_ns;
	char out[OUT_MAX + 1];
	size_t out_len;
};

extern char **environ;

static struct job job = { .marker_fd = -1, .go_fd = -1, .out_fd = -1 };
static volatile pid_t child;
static volatile sig_atomic_t stopped_by;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("spawn: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (child > 0) {
		kill(-child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Time-out or told to end: without its command, whatever we wait for comes to an end too. */
static void on_signal(int sig)
{
	stopped_by = sig;
	if (child > 0)
		kill(-child, SIGKILL);
}

/* Says why the marker never came, and ends us. */
__attribute__((noreturn)) static void no_marker(void)
{
	struct timespec moment = { .tv_nsec = 5000000 };
	int status = 0;
	pid_t ended = 0;

	if (stopped_by == SIGALRM)
		die("%s: no marker in time", job.argv[0]);
	if (stopped_by)
		die("interrupted");
	/* Its output may end a little before the command itself does. */
	for (int i = 0; i < 40 && !ended; i++) {
		ended = waitpid(child, &status, WNOHANG);
		if (!ended)
			nanosleep(&moment, NULL);
	}
	if (ended == child) {
		child = 0;
		if (WIFEXITED(status))
			die("%s: exit %d before the marker", job.argv[0], WEXITSTATUS(status));
		die("%s: signal %d before the marker", job.argv[0], WTERMSIG(status));
	}
	die("%s: closed its output before the marker", job.argv[0]);
}

/* ---- starting ---- */

/* Gives the command the far end of a pipe as @fd; returns ours. */
static int give_pipe(posix_spawn_file_actions_t *actions, int fd, bool we_read, int *ret_far)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		/* Out of the way of the numbers that are given to the command. */
		int high = fcntl(ends[i], F_DUPFD_CLOEXEC, 10);

		if (high < 0)
			die("dup: %s", strerror(errno));
		close(ends[i]);
		ends[i] = high;
	}
	*ret_far = ends[we_read ? 1 : 0];
	posix_spawn_file_actions_adddup2(actions, *ret_far, fd);
	return ends[we_read ? 0 : 1];
}

static void start(void)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int far[2] = { -1, -1 };
	pid_t pid;
	int r;

	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_init(&actions);
	if (!job.gets_stdin)
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (job.marker == MARK_BYTE || job.marker == MARK_POOLED)
		job.marker_fd = give_pipe(&actions, MARKER_FD, true, &far[0]);
	if (job.marker == MARK_POOLED)
		job.go_fd = give_pipe(&actions, GO_FD, false, &far[1]);
	if (job.marker == MARK_STDOUT) {
		job.out_fd = give_pipe(&actions, 1, true, &far[0]);
	} else if (job.marker == MARK_EXIT) {
		/* Not a pipe: a daemon that keeps it open would keep us waiting. */
		job.out_fd = memfd_create("stdout", MFD_CLOEXEC);
		posix_spawn_file_actions_adddup2(&actions, job.out_fd, 1);
	} else {
		posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	}

	job.start_ns = now_ns();
	r = posix_spawnp(&pid, job.argv[0], &actions, &attr, job.argv, environ);
	if (r)
		die("%s: %s", job.argv[0], strerror(r));
	child = pid;
	if (stopped_by) /* in the instant before we knew whom to kill */
		kill(-pid, SIGKILL);
	for (int i = 0; i < 2; i++)
		if (far[i] >= 0)
			close(far[i]);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
}

/* ---- waiting ---- */

static void read_byte(int fd)
{
	char byte;
	ssize_t r;

	do {
		r = read(fd, &byte, 1);
	} while (r < 0 && errno == EINTR);
	if (r != 1)
		no_marker();
}

static void wait_pooled(void)
{
	struct timespec rest = { .tv_nsec = POOL_REST_NS };

	read_byte(job.marker_fd);
	nanosleep(&rest, NULL);
	job.start_ns = now_ns();
	if (write(job.go_fd, "", 1) != 1)
		no_marker();
	read_byte(job.marker_fd);
	job.end_ns = now_ns();
}

/* Reads more of @fd behind what is already in job.out; false at the end. */
static bool read_more(int fd)
{
	ssize_t r;

	if (job.out_len == OUT_MAX)
		die("%s: too much output before the marker", job.argv[0]);
	do {
		r = read(fd, job.out + job.out_len, OUT_MAX - job.out_len);
	} while (r < 0 && errno == EINTR);
	if (r <= 0)
		return false;
	job.out_len += (size_t)r;
	job.out[job.out_len] = '\0';
	return true;
}

static void wait_stdout(void)
{
	size_t text_len = job.text ? strlen(job.text) : 0;

	do {
		if (!read_more(job.out_fd))
			no_marker();
	} while (job.text && !memmem(job.out, job.out_len, job.text, text_len));
	job.end_ns = now_ns();
}

static bool child_lives(void)
{
	siginfo_t info = { .si_pid = 0 };

	return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0;
}

/* Connects as soon as the monitor listens. */
static int connect_socket(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timespec pause = { .tv_nsec = CONNECT_RETRY_NS };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(job.path) >= sizeof(addr.sun_path))
		die("%s: not a usable socket path", job.path);
	memcpy(addr.sun_path, job.path, strlen(job.path));
	prctl(PR_SET_TIMERSLACK, 1ul);
	while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if ((errno != ENOENT && errno != ECONNREFUSED && errno != EINTR) || stopped_by ||
		    !child_lives())
			no_marker();
		nanosleep(&pause, NULL);
	}
	return fd;
}

/* Sends @line and reads one line back into job.out. */
static void ask(int fd, const char *line)
{
	size_t len = strlen(line);

	job.out_len = 0;
	if (send(fd, line, len, MSG_NOSIGNAL) != (ssize_t)len)
		no_marker();
	do {
		if (!read_more(fd))
			no_marker();
	} while (!memchr(job.out, '\n', job.out_len));
}

static void wait_vsock(void)
{
	char line[32];
	int fd = connect_socket();

	snprintf(line, sizeof(line), "CONNECT %u\n", job.port);
	ask(fd, line);
	if (strncmp(job.out, "OK ", 3) != 0)
		die("%s: no OK to CONNECT", job.path);
	ask(fd, "ping\n");
	job.end_ns = now_ns();
	close(fd);
}

/* Reaps the command; its exit status, or minus the signal that ended it. */
static int reap(void)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			die("wait: %s", strerror(errno));
	child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int wait_exit(void)
{
	int status = reap();
	ssize_t r;

	job.end_ns = now_ns();
	if (stopped_by)
		die("%s: %s", job.argv[0], stopped_by == SIGALRM ? "no end in time" : "interrupted");
	r = pread(job.out_fd, job.out, OUT_MAX, 0);
	job.out_len = r > 0 ? (size_t)r : 0;
	return status;
}

/* After the marker: ends the command, unless it is to end by itself, and reaps it. */
static int finish(void)
{
	char sink[4096];

	if (!job.leave)
		kill(-child, SIGKILL);
	else if (job.marker == MARK_STDOUT)
		while (read(job.out_fd, sink, sizeof(sink)) > 0)
			;
	return reap();
}

/* ---- talking ---- */

static void print_result(int status)
{
	printf("{\"ns\": %llu, \"start_ns\": %llu, \"exit\": %d, \"out\": \"",
	       (unsigned long long)(job.end_ns - job.start_ns), (unsigned long long)job.start_ns,
	       status);
	for (size_t i = 0; i < job.out_len; i++) {
		unsigned char c = (unsigned char)job.out[i];

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	puts("\"}");
}

__attribute__((noreturn)) static void usage(void)
{
	fputs("usage: spawn [--leave] [--stdin] [--timeout SECONDS] MARKER -- COMMAND [ARG]...\n"
	      "MARKER: byte | pooled | stdout[=TEXT] | vsock=PORT:PATH | exit\n"
	      "--stdin: the command reads our standard input\n"
	      "--leave: let the command end by itself after the marker; else it is killed\n",
	      stderr);
	exit(2);
}

static void parse_marker(char *s)
{
	char *rest;

	if (strcmp(s, "byte") == 0) {
		job.marker = MARK_BYTE;
	} else if (strcmp(s, "pooled") == 0) {
		job.marker = MARK_POOLED;
	} else if (strcmp(s, "exit") == 0) {
		job.marker = MARK_EXIT;
	} else if (strcmp(s, "stdout") == 0) {
		job.marker = MARK_STDOUT;
	} else if (strncmp(s, "stdout=", 7) == 0 && s[7]) {
		job.marker = MARK_STDOUT;
		job.text = s + 7;
	} else if (strncmp(s, "vsock=", 6) == 0) {
		job.marker = MARK_VSOCK;
		job.port = (unsigned)strtoul(s + 6, &rest, 10);
		if (*rest != ':' || !rest[1])
			usage();
		job.path = rest + 1;
	} else {
		usage();
	}
}

static unsigned parse_args(int argc, char **argv)
{
	unsigned timeout_s = 10;
	int i = 1;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--leave") == 0)
			job.leave = true;
		else if (strcmp(argv[i], "--stdin") == 0)
			job.gets_stdin = true;
		else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc)
			timeout_s = (unsigned)strtoul(argv[++i], NULL, 10);
		else
			usage();
	}
	if (i + 2 >= argc || strcmp(argv[i + 1], "--") != 0 || timeout_s == 0)
		usage();
	parse_marker(argv[i]);
	job.argv = argv + i + 2;
	return timeout_s;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	unsigned timeout_s = parse_args(argc, argv);
	int status;

	sigaction(SIGALRM, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	alarm(timeout_s);
	start();
	switch (job.marker) {
	case MARK_BYTE:
		read_byte(job.marker_fd);
		job.end_ns = now_ns();
		break;
	case MARK_POOLED:
		wait_pooled();
		break;
	case MARK_STDOUT:
		wait_stdout();
		break;
	case MARK_VSOCK:
		wait_vsock();
		break;
	case MARK_EXIT:
		break;
	}
	status = job.marker == MARK_EXIT ? wait_exit() : finish();
	print_result(status);
	return 0;
}
