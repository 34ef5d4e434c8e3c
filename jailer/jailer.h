/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jailer.h - what a VM process gives up before it runs a guest.
 *
 * In the order of a VM's life: jail_note_inherited() first of all; jail_fork() makes the process;
 * it opens all it will ever need, and then jail_enter() takes the rest away. Everything here is for
 * a process with one thread.
 */
#ifndef KELVIN_JAILER_H
#define KELVIN_JAILER_H

#include <sys/types.h>

#include "monitor/base/err.h"
#include "monitor/base/types.h"

/* What can be in force, for whom it is told. X(name, bit, text) */
#define JAIL_LAYERS(X)                                                                             \
	X(USER, 0x01, "user namespace")                                                            \
	X(PID, 0x02, "pid namespace")                                                              \
	X(MOUNT, 0x04, "mount namespace")                                                          \
	X(IPC, 0x08, "ipc namespace")                                                              \
	X(UTS, 0x10, "uts namespace")                                                              \
	X(NET, 0x20, "net namespace")                                                              \
	X(ROOT, 0x40, "empty root")                                                                \
	X(ID, 0x80, "own user id")                                                                 \
	X(CAPS, 0x100, "no capabilities")                                                          \
	X(LANDLOCK, 0x200, "landlock")                                                             \
	X(LIMITS, 0x400, "resource limits")                                                        \
	X(DIES, 0x800, "dies with its keeper")                                                     \
	X(HARDENED, 0x1000, "no new privileges or core dumps")                                    \
	X(CGROUP, 0x2000, "cgroup limits")

enum jail_layer {
#define X(name, bit, text) JAIL_##name = bit,
	JAIL_LAYERS(X)
#undef X
};

/* What a process is born into: as root, who has a void (below), and as any user. */
#define JAIL_BIRTH      ((unsigned)JAIL_PID)
#define JAIL_BIRTH_USER ((unsigned)(JAIL_USER | JAIL_PID | JAIL_MOUNT | JAIL_IPC | JAIL_UTS))

/* The kinds of threads of a VM process. */
enum jail_thread {
	JAIL_LOOP,   /* the main thread: the event loop */
	JAIL_VCPU,   /* one that runs a vCPU */
	JAIL_WRITER, /* one that writes a snapshot; made by the loop */
	/* The same of a VM that is not jailed: they find files by name, too. */
	JAIL_LOOP_NAMES,
	JAIL_WRITER_NAMES,
};

/* What happens at a system call that a thread has no business with. */
enum jail_seccomp {
	JAIL_SECCOMP_ON,  /* the process is killed (SIGSYS) */
	JAIL_SECCOMP_LOG, /* the kernel's log has it; the call is made */
	JAIL_SECCOMP_OFF, /* the call is made */
};
const char *jail_seccomp_name(enum jail_seccomp mode); /* "log" */
bool jail_seccomp_from_name(const char *name, enum jail_seccomp *ret);

/* How a process died that waitpid() says @status of, if it was its filter; else NULL. */
const char *jail_explain_death(int status);

/*
 * Leaves the calling thread, and those that it makes later, the system calls of syscalls.def for
 * that kind of thread, without a way back. After jail_harden(); the process's id must not change
 * after it.
 */
int jail_filter(enum jail_thread thread, enum jail_seccomp mode, struct err *e);

/*
 * The descriptors from 3 on that are open now, at the start: of whoever started us. Those that no
 * option names have no business in a jail, but paths such as /dev/fd/5 need them until all is open.
 */
struct jail_inherited {
	int fd[256];
	unsigned n;
};
int jail_note_inherited(struct jail_inherited *ret, struct err *e);

/*
 * Closes every descriptor but 0, 1, 2 and the @n in @keep, which must be open (the operator named
 * them). Call first of all, before descriptors of our own exist.
 */
int jail_close_inherited(const int *keep, unsigned n, struct err *e);

/*
 * fork() into new namespaces (of @layers, those that are ones) and into the cgroup (v2) open at
 * @cgroup_fd, if that is not -1. -1 and errno on failure.
 */
pid_t jail_fork(unsigned layers, int cgroup_fd);

/* The first act of a child in a user namespace: it stays @uid and @gid. */
int jail_map_user(uid_t uid, gid_t gid, struct err *e);

/*
 * @count user and group ids, in a row, that no other VM on this host has, from a range that nobody
 * else uses. They are ours as long as *@ret_fd, or a copy of it, is open: the kernel takes them
 * back however we end. For root. @path is a file for the locks, made where it is missing.
 */
int jail_take_ids(const char *path, u32 count, uid_t *ret_first, int *ret_fd, struct err *e);
#define JAIL_ID_FIRST 0x70000000u /* above all that systemd and containers give out */
#define JAIL_ID_COUNT 0x10000u

/*
 * Namespaces in which there is nothing: an empty, read-only file system, no network, no ipc, no
 * name. Because nobody in them can put anything there, VMs can share them. Making them takes longer
 * than all the rest of a jail.
 */
enum { JAIL_VOID_MOUNT, JAIL_VOID_NET, JAIL_VOID_IPC, JAIL_VOID_UTS, JAIL_VOID_COUNT };
struct jail_void {
	int fd[JAIL_VOID_COUNT]; /* -1: none */
};
#define JAIL_VOID_NONE ((struct jail_void){{-1, -1, -1, -1}})
/*
 * The void of this host, which is kept in the directory @path and made where it is missing; where
 * it cannot be kept, one for the caller alone. For root, with one thread; the caller is afterwards
 * where it was.
 */
int jail_get_void(const char *path, struct jail_void *ret, struct err *e);
void jail_close_void(struct jail_void *v);

struct jail_plan {
	unsigned born;        /* layers the process has from jail_fork() */
	uid_t id;             /* JAIL_ID_*; 0: it stays who it is */
	const struct jail_void *space; /* NULL: it makes its own of what it was born into */
	const char *mount_on; /* a directory, for JAIL_MOUNT: where the new root is put at first */
	u64 nofile, nproc;    /* descriptors; threads, where they are counted for this VM alone */
};

struct jail_report {
	unsigned layers; /* JAIL_*: in force */
	uid_t uid;
	gid_t gid;
	int landlock; /* version, 0: none */
};

/*
 * Takes away all that @plan and the kernel allow to take away. Everything needed is open; the rest
 * can be opened never more. On failure the process is half jailed and must end.
 */
int jail_enter(const struct jail_plan *plan, struct jail_report *ret, struct err *e);

/*
 * What costs nothing and is always on, jail or not: exec gains no privileges (no_new_privs), no
 * core dumps, new files are for the owner only (umask 077), and others of the same user can neither
 * trace the process nor read its memory (not dumpable). The last also makes its /proc/self belong
 * to root. Call before threads are made.
 */
int jail_harden(struct err *e);

#endif
