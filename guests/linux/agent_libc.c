/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_libc.c - the part of a C library that the agent uses, as bare system calls.
 *
 * The agent is the first program of a small machine, so it is small and starts at once: with this
 * and the kit's memory and text functions (guests/kit/libc.c) it needs no C library. It is compiled
 * against glibc's headers, which is where the names and types are from; where glibc's idea of a
 * type is not the kernel's (sigset_t), it is mended here. The same sources link against glibc, too,
 * which is how they are tested under sanitizers.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv);
void agent_start(long *sp);

static int last_error;
char **environ;

int *__errno_location(void)
{
	return &last_error;
}

__asm__(".globl _start\n"
	"_start:	xorl %ebp, %ebp\n"
	"	movq %rsp, %rdi\n"
	"	andq $-16, %rsp\n"
	"	call agent_start\n");

__attribute__((used)) void agent_start(long *sp)
{
	char **argv = (char **)(sp + 1);

	environ = argv + sp[0] + 1;
	exit(main((int)sp[0], argv));
}

/* ---- system calls ---- */

static long sys(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if (r < 0 && r > -4096) {
		last_error = (int)-r;
		return -1;
	}
	return r;
}

#define S(name, a, b, c, d, e, f)                                                                  \
	sys(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define S0(name)		S(name, 0, 0, 0, 0, 0, 0)
#define S1(name, a)		S(name, a, 0, 0, 0, 0, 0)
#define S2(name, a, b)		S(name, a, b, 0, 0, 0, 0)
#define S3(name, a, b, c)	S(name, a, b, c, 0, 0, 0)
#define S4(name, a, b, c, d)	S(name, a, b, c, d, 0, 0)
#define S5(name, a, b, c, d, e) S(name, a, b, c, d, e, 0)

long syscall(long n, ...)
{
	va_list ap;
	long a, b, c, d;

	va_start(ap, n);
	a = va_arg(ap, long);
	b = va_arg(ap, long);
	c = va_arg(ap, long);
	d = va_arg(ap, long);
	va_end(ap);
	return sys(n, a, b, c, d, 0, 0);
}

/* Files. */

ssize_t read(int fd, void *p, size_t n)
{
	return S3(read, fd, p, n);
}

ssize_t write(int fd, const void *p, size_t n)
{
	return S3(write, fd, p, n);
}

int close(int fd)
{
	return (int)S1(close, fd);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return (int)S4(openat, dir, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return (int)S4(openat, AT_FDCWD, path, flags, mode);
}

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return (int)S3(fcntl, fd, cmd, arg);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	long arg;

	va_start(ap, request);
	arg = va_arg(ap, long);
	va_end(ap);
	return (int)S3(ioctl, fd, request, arg);
}

int dup2(int from, int to)
{
	return (int)S2(dup2, from, to);
}

int pipe2(int fd[2], int flags)
{
	return (int)S2(pipe2, fd, flags);
}

int poll(struct pollfd *p, nfds_t n, int ms)
{
	return (int)S3(poll, p, n, ms);
}

int stat(const char *path, struct stat *st)
{
	return (int)S4(newfstatat, AT_FDCWD, path, st, 0);
}

int fstat(int fd, struct stat *st)
{
	return (int)S2(fstat, fd, st);
}

int fstatat(int dir, const char *path, struct stat *st, int flags)
{
	return (int)S4(newfstatat, dir, path, st, flags);
}

int statfs(const char *path, struct statfs *st)
{
	return (int)S2(statfs, path, st);
}

ssize_t getdents64(int fd, void *p, size_t n)
{
	return S3(getdents64, fd, p, n);
}

ssize_t readlinkat(int dir, const char *path, char *out, size_t cap)
{
	return S4(readlinkat, dir, path, out, cap);
}

int mkdir(const char *path, mode_t mode)
{
	return (int)S2(mkdir, path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
	return (int)S3(mkdirat, dir, path, mode);
}

int symlinkat(const char *target, int dir, const char *path)
{
	return (int)S3(symlinkat, target, dir, path);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	return (int)S5(linkat, from_dir, from, to_dir, to, flags);
}

int unlinkat(int dir, const char *path, int flags)
{
	return (int)S3(unlinkat, dir, path, flags);
}

int unlink(const char *path)
{
	return (int)S1(unlink, path);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return (int)S4(renameat, from_dir, from, to_dir, to);
}

int fchmod(int fd, mode_t mode)
{
	return (int)S2(fchmod, fd, mode);
}

int futimens(int fd, const struct timespec ts[2])
{
	return (int)S4(utimensat, fd, NULL, ts, 0);
}

int syncfs(int fd)
{
	return (int)S1(syncfs, fd);
}

void sync(void)
{
	S0(sync);
}

int chdir(const char *path)
{
	return (int)S1(chdir, path);
}

int chroot(const char *path)
{
	return (int)S1(chroot, path);
}

mode_t umask(mode_t mode)
{
	return (mode_t)S1(umask, mode);
}

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)S(mmap, at, len, prot, flags, fd, off);
}

int mount(const char *what, const char *where, const char *type, unsigned long flags,
	const void *data)
{
	return (int)S5(mount, what, where, type, flags, data);
}

int umount2(const char *where, int flags)
{
	return (int)S2(umount2, where, flags);
}

/* Processes and signals. */

pid_t fork(void)
{
	return (pid_t)S0(fork);
}

int execve(const char *path, char *const argv[], char *const envp[])
{
	return (int)S3(execve, path, argv, envp);
}

_Noreturn void _exit(int status)
{
	for (;;)
		S1(exit_group, status);
}

_Noreturn void exit(int status)
{
	_exit(status);
}

_Noreturn void abort(void)
{
	_exit(134);
}

pid_t waitpid(pid_t pid, int *status, int flags)
{
	return (pid_t)S4(wait4, pid, status, flags, NULL);
}

int kill(pid_t pid, int sig)
{
	return (int)S2(kill, pid, sig);
}

pid_t setsid(void)
{
	return (pid_t)S0(setsid);
}

pid_t getpid(void)
{
	return (pid_t)S0(getpid);
}

uid_t geteuid(void)
{
	return (uid_t)S0(geteuid);
}

int setuid(uid_t uid)
{
	return (int)S1(setuid, uid);
}

int setgid(gid_t gid)
{
	return (int)S1(setgid, gid);
}

int setgroups(size_t n, const gid_t *list)
{
	return (int)S2(setgroups, n, list);
}

int sigemptyset(sigset_t *set)
{
	memset(set, 0, sizeof(*set));
	return 0;
}

int sigaddset(sigset_t *set, int sig)
{
	set->__val[0] |= 1ul << (sig - 1);
	return 0;
}

/* The kernel's set is 8 bytes, which are the first 8 of glibc's. */
int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return (int)S4(rt_sigprocmask, how, set, old, 8);
}

int signalfd(int fd, const sigset_t *set, int flags)
{
	return (int)S4(signalfd4, fd, set, 8, flags);
}

/* SIG_IGN and SIG_DFL only: a handler would need a way back. */
__sighandler_t signal(int sig, __sighandler_t handler)
{
	struct {
		__sighandler_t handler;
		unsigned long flags, restorer, mask;
	} act = {.handler = handler};

	return S4(rt_sigaction, sig, &act, NULL, 8) ? SIG_ERR : SIG_DFL;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	return (int)S2(clock_gettime, clock, ts);
}

int clock_settime(clockid_t clock, const struct timespec *ts)
{
	return (int)S2(clock_settime, clock, ts);
}

int nanosleep(const struct timespec *ts, struct timespec *left)
{
	return (int)S2(nanosleep, ts, left);
}

int sethostname(const char *name, size_t len)
{
	return (int)S2(sethostname, name, len);
}

int reboot(int what)
{
	return (int)S4(reboot, 0xfee1dead, 672274793, what, NULL);
}

/* Sockets. */

int socket(int domain, int type, int protocol)
{
	return (int)S3(socket, domain, type, protocol);
}

int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	return (int)S3(bind, fd, sa, len);
}

int listen(int fd, int backlog)
{
	return (int)S2(listen, fd, backlog);
}

int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	return (int)S4(accept4, fd, sa, len, flags);
}

int shutdown(int fd, int how)
{
	return (int)S2(shutdown, fd, how);
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
	return S(recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
	return S(sendto, fd, p, n, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return S3(sendmsg, fd, msg, flags);
}

/* ---- text, besides what the kit has ---- */

FILE *stderr;

int fprintf(FILE *f, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	(void)f;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = n < (int)sizeof(text) ? n : (int)sizeof(text) - 1;
	return (int)write(STDERR_FILENO, text, (size_t)n);
}

int strcmp(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (; n && *a && *a == *b; n--, a++, b++)
		;
	return n ? (unsigned char)*a - (unsigned char)*b : 0;
}

char *strchr(const char *s, int c)
{
	for (; *s != (char)c; s++)
		if (!*s)
			return NULL;
	return (char *)(unsigned long)s;
}

char *strstr(const char *s, const char *what)
{
	size_t n = strlen(what);

	for (; strncmp(s, what, n); s++)
		if (!*s)
			return NULL;
	return (char *)(unsigned long)s;
}

/* Those that a host is likely to be told; the words are Linux's. */
char *strerror(int code)
{
	static const struct {
		int code;
		const char *text;
	} list[] = {
		{EPERM, "Operation not permitted"}, {ENOENT, "No such file or directory"},
		{EIO, "Input/output error"}, {ENXIO, "No such device or address"},
		{E2BIG, "Argument list too long"}, {ENOEXEC, "Exec format error"},
		{ENOMEM, "Cannot allocate memory"}, {EACCES, "Permission denied"},
		{EBUSY, "Device or resource busy"}, {EEXIST, "File exists"},
		{EXDEV, "Invalid cross-device link"}, {ENODEV, "No such device"},
		{ENOTDIR, "Not a directory"}, {EISDIR, "Is a directory"},
		{EINVAL, "Invalid argument"}, {EMFILE, "Too many open files"},
		{ETXTBSY, "Text file busy"}, {EFBIG, "File too large"},
		{ENOSPC, "No space left on device"}, {EROFS, "Read-only file system"},
		{EMLINK, "Too many links"}, {ENAMETOOLONG, "File name too long"},
		{ENOSYS, "Function not implemented"}, {ENOTEMPTY, "Directory not empty"},
		{ELOOP, "Too many levels of symbolic links"}, {EDQUOT, "Disk quota exceeded"},
		{EAGAIN, "Resource temporarily unavailable"}, {ESTALE, "Stale file handle"},
		{EAFNOSUPPORT, "Address family not supported by protocol"},
		{EADDRINUSE, "Address already in use"}, {ENETUNREACH, "Network is unreachable"},
	};
	static char other[32];

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		if (list[i].code == code)
			return (char *)(unsigned long)list[i].text;
	snprintf(other, sizeof(other), "error %d", code);
	return other;
}
