/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp.c - the calling thread gives up all system calls but those that its kind needs.
 *
 * The filters are made at build time from syscalls.def (gen_filter.c). Two things are put in when
 * one is loaded: the process's own id, so that signals go to its own threads only, and, to find out
 * what is missing, "log it and go on" in place of "kill". Log mode shows with
 *
 *     sysctl kernel.printk_ratelimit=0; dmesg | grep type=1326
 *
 * What the C library does by itself, in every thread and under none of our names:
 *
 * malloc() and free():
 *   syscalls[L]: mmap, mprotect, munmap, mremap, brk, madvise(MADV_DONTNEED)
 *   syscalls[W]: mmap, mprotect, munmap, mremap, madvise(MADV_DONTNEED)
 * pthread_create(), and how a thread begins and ends:
 *   syscalls[L]: clone(PTHREAD_FLAGS), clone3, mmap, mprotect, rt_sigprocmask, futex
 *   syscalls[L]: set_robust_list, rseq - of the new thread, before it has a filter of its own
 *   syscalls[VW]: rt_sigprocmask, madvise(MADV_DONTNEED), exit
 * Locks, abort(), printf(), fdopendir():
 *   syscalls[LVW]: futex, getpid, gettid, tgkill, rt_sigprocmask, writev
 *   syscalls[LVW]: rt_sigaction(SIGABRT)
 *   syscalls[L]: ioctl(TCGETS)
 *   syscalls[V]: mmap - which fails, and need not be
 *   syscalls[LW]: fcntl(F_GETFL), fcntl(F_SETFD)
 * The kernel, to go on after a stop:
 *   syscalls[LV]: restart_syscall
 */
#include "jailer/jailer_int.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const mode_names[] = {
	[JAIL_SECCOMP_ON] = "on", [JAIL_SECCOMP_LOG] = "log", [JAIL_SECCOMP_OFF] = "off"};

const char *jail_seccomp_name(enum jail_seccomp mode)
{
	return mode_names[mode];
}

bool jail_seccomp_from_name(const char *name, enum jail_seccomp *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(mode_names); i++) {
		if (strcmp(name, mode_names[i]) == 0) {
			*ret = (enum jail_seccomp)i;
			return true;
		}
	}
	return false;
}

const char *jail_explain_death(int status)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
		return NULL;
	return "it made a system call that its filter does not allow, which the kernel's log "
	       "names; --seccomp=log lets it go on";
}

/* Puts in what is not known at build time. */
static void complete(struct sock_filter *code, unsigned len, enum jail_seccomp mode)
{
	for (unsigned i = 0; i < len; i++) {
		struct sock_filter *op = &code[i];

		if (op->code == (BPF_JMP | BPF_JEQ | BPF_K) && op->k == OWN_PID)
			op->k = (u32)getpid();
		if (mode == JAIL_SECCOMP_LOG && op->code == (BPF_RET | BPF_K) &&
			op->k == SECCOMP_RET_KILL_PROCESS)
			op->k = SECCOMP_RET_LOG;
	}
}

int jail_filter(enum jail_thread thread, enum jail_seccomp mode, struct err *e)
{
	const struct filter *f = &filters[thread];
	struct sock_filter code[FILTER_MAX];
	struct sock_fprog prog = {.len = f->len, .filter = code};

	if (mode == JAIL_SECCOMP_OFF)
		return 0;
	must(f->len <= FILTER_MAX);
	memcpy(code, f->code, f->len * sizeof(code[0]));
	complete(code, f->len, mode);
	/* syscalls[L]: seccomp - by the thread that writes a snapshot, under the loop's filter */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0u, &prog) == 0)
		return 0;
	return err_sys(e, errno, "cannot limit the system calls of the VM (seccomp%s)",
		errno == ENOSYS || errno == EINVAL ? "; this kernel has no filters: --seccomp=off"
						   : "");
}
