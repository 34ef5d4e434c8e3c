/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.c - runs a program, and kills it at its Nth system call or makes that call fail.
 *
 *     step kill|ERRNO parent|child N PROGRAM ARG...
 *
 * Counts the calls of PROGRAM, or of the first process it forks ("child"; in namespaces of its own,
 * too), until that executes another program. The Nth is not made: the process is killed, or is told the number ERRNO. Exits
 * as the process does that it follows: status, or 128 + signal; 99 if there is no Nth call. Calls
 * that cannot fail are made nevertheless.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS                                                                                    \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |   \
		PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)

static int die(const char *what)
{
	perror(what);
	exit(98);
}

static int can_fail(unsigned long long nr)
{
	switch (nr) {
	case SYS_close: /* frees its descriptor, whatever it says */
	case SYS_umask:
	case SYS_getpid:
	case SYS_getuid:
	case SYS_geteuid:
	case SYS_rt_sigaction:
	case SYS_rt_sigprocmask:
	case SYS_gettid:
	case SYS_exit_group:
	case SYS_exit:
		return 0;
	default:
		return 1;
	}
}

static void let_go(pid_t pid)
{
	unsigned long child;
	int status;

	ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child);
	waitpid((pid_t)child, &status, __WALL);
	ptrace(PTRACE_DETACH, (pid_t)child, NULL, NULL);
}

/* Lets it go on to its end. */
static int end(pid_t pid)
{
	int status, sig = 0;

	for (;;) {
		ptrace(PTRACE_CONT, pid, NULL, (void *)(long)sig);
		if (waitpid(pid, &status, __WALL) != pid)
			die("waitpid");
		if (!WIFSTOPPED(status))
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		sig = status >> 16 ? 0 : WSTOPSIG(status);
		/* The first process of a pid namespace survives its own, as long as it is traced. */
		if (sig == SIGSEGV)
			sig = SIGKILL;
		if (status >> 16 && status >> 8 != (SIGTRAP | (PTRACE_EVENT_EXEC << 8)))
			let_go(pid);
	}
}

/* At the entry of the chosen call. */
static int strike(pid_t pid, const char *how)
{
	struct user_regs_struct regs;
	int status;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
		die("PTRACE_GETREGS");
	if (strcmp(how, "kill") == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, __WALL);
		return 128 + SIGKILL;
	}
	if (can_fail(regs.orig_rax)) {
		regs.orig_rax = (unsigned long long)-1;
		ptrace(PTRACE_SETREGS, pid, NULL, &regs);
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		if (waitpid(pid, &status, __WALL) < 0 || !WIFSTOPPED(status))
			die("step");
		ptrace(PTRACE_GETREGS, pid, NULL, &regs);
		regs.rax = (unsigned long long)-atoi(how);
		ptrace(PTRACE_SETREGS, pid, NULL, &regs);
	}
	return end(pid);
}

/* The first process made by @pid, which goes on by itself. */
static pid_t follow_child(pid_t pid)
{
	unsigned long child;
	int status;

	ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child);
	waitpid((pid_t)child, &status, __WALL);
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return (pid_t)child;
}

/* To be killed in the middle of prctl()s, of which there are very many, is all the same. */
static int counts(pid_t pid, const char *how, unsigned long long *last)
{
	struct user_regs_struct regs;
	int again;

	ptrace(PTRACE_GETREGS, pid, NULL, &regs);
	again = regs.orig_rax == SYS_prctl && *last == SYS_prctl;
	*last = regs.orig_rax;
	return !again || strcmp(how, "kill") != 0;
}

static int watch(pid_t pid, const char *how, int in_child, long n)
{
	unsigned long long last = 0;
	long calls = 0;
	int entry = 1, status, sig = 0, counting = !in_child;

	for (;;) {
		ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)sig);
		sig = 0;
		if (waitpid(pid, &status, __WALL) != pid)
			die("waitpid");
		if (!WIFSTOPPED(status))
			return 99;
		if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8))) {
			end(pid);
			return 99;
		}
		if (status >> 16) {
			if (in_child && !counting) {
				pid = follow_child(pid);
				counting = entry = 1;
			} else {
				let_go(pid);
			}
		} else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (entry && counting && counts(pid, how, &last) && ++calls == n)
				return strike(pid, how);
			entry = !entry;
		} else {
			sig = WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
		}
	}
}

int main(int argc, char **argv)
{
	pid_t pid;
	int status;

	if (argc < 5)
		return 98;
	pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execv(argv[4], argv + 4);
		_exit(98);
	}
	waitpid(pid, &status, 0);
	/* Past its own exec, of which there is no event yet. */
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	waitpid(pid, &status, 0);
	if (!WIFSTOPPED(status) || ptrace(PTRACE_SETOPTIONS, pid, NULL, OPTIONS))
		die("ptrace");
	return watch(pid, argv[1], strcmp(argv[2], "child") == 0, atol(argv[3]));
}
