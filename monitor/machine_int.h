/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_int.h - what a machine is made of, shared by the files that implement machine.h.
 *
 * machine.c assembles and runs, devices.c makes its devices, life.c pauses and stops, bus.c answers
 * the vCPU threads, save.c writes and reads snapshots, save_files.c has their files, facts.c
 * describes, vmdir.c keeps /run/kelvin/ID.
 */
#ifndef KELVIN_MONITOR_MACHINE_INT_H
#define KELVIN_MONITOR_MACHINE_INT_H

#include <limits.h>
#include <pthread.h>

#include "jailer/cgroup.h"
#include "jailer/jailer.h"
#include "monitor/api.h"
#include "monitor/base/clock.h"
#include "monitor/client.h"
#include "monitor/cmos.h"
#include "monitor/cpu_pin.h"
#include "monitor/dev_spec.h"
#include "monitor/i8042.h"
#include "monitor/kind.h"
#include "monitor/loader.h"
#include "monitor/machine.h"
#include "monitor/serial.h"
#include "snapshot/snapshot.h"
#include "virtio/device.h"

#define DOORBELL_GPA    0xC0000000ull
#define DOORBELL_ACPI   0x10u         /* ACPI's registers in that page (acpi.h) */
#define VIRTIO_GPA      0xC0001000ull /* window of device n at + n * VIRTIO_MMIO_WINDOW */
#define VIRTIO_GSI      5u            /* interrupt of device n is VIRTIO_GSI + n */
#define SERIAL_GSI      4u
#define BUTTON_GSI      21u           /* ACPI: the power button was pressed */
#define GENID_GSI       22u           /* ACPI: the generation GUID is another */
#define DEVICES_MAX     16u
#define WAITERS_MAX     16u
#define SOCK_PATH_MAX   108u
#define HINT_MAX        2048u /* bytes of operator text in the identity page */
#define VSOCK_WAIT_UNSET UINT32_MAX /* machine_spec.vsock_wait_ms: take the snapshot's */
#define POLL_AUTO       UINT64_MAX /* machine_spec.poll_ns: kelvin decides */
#define SNAP_VERSION    1u    /* of every section this folder writes */

/*
 * Huge pages for RAM: auto leaves it to the host's setting, but for Linux asks for them; 2M takes
 * them from the host's pool. A restore maps its file, whatever it was.
 */
enum huge_choice { HUGE_AUTO, HUGE_THP, HUGE_OFF, HUGE_2M };

/* What the operator asked for. Plain data; filled by cmd_run.c or from a snapshot. */
struct machine_spec {
	char id[VM_ID_MAX + 1];
	u64 memory; /* bytes */
	unsigned vcpus;
	char cpu[PATH_MAX]; /* --cpu as given; after a restore, as the snapshot says */
	struct cpu_template cpu_template; /* what that means; for a boot */
	struct cpu_pin pin;
	enum machine_kind kind; /* not MACHINE_AUTO once the kernel was opened */
	bool memfd;   /* RAM in a memfd */
	enum huge_choice huge;
	bool console; /* a 16550 at 0x3f8 */
	bool detach;
	bool jailed; /* sees no files but those it has open */
	char kernel[PATH_MAX];
	char initrd[PATH_MAX]; /* empty: none */
	char kernel_cache[PATH_MAX]; /* as kcache_open() wants it */
	bool has_cmdline; /* the operator's own; else the kernel's kind decides at boot */
	char cmdline[CMDLINE_MAX];
	enum boot_choice boot;
	u32 vsock_cid;
	u32 vsock_wait_ms;
	char vsock_path[SOCK_PATH_MAX]; /* empty: vsock.sock in the VM's directory */
	char hint[HINT_MAX];
	char log_path[PATH_MAX]; /* empty: log in the VM's directory */
	u64 timeout_ns;          /* 0: none */
	enum jail_seccomp seccomp;
	u64 poll_ns;             /* how long to look before sleeping; POLL_AUTO */
	struct dev_spec dev;
	unsigned born;        /* JAIL_*: what its process was born into */
	char cgroup[CGROUP_NAME_MAX + 16]; /* where it is, if it is in one (jail.layers) */
	int keeper_fd;        /* to the keeper (keeper.h); -1: it has none */
	uid_t jail_id;        /* 0: it stays who it is */
	/* What restored it, for facts; empty after a boot. */
	char snapshot[PATH_MAX];
	bool share_known; /* its file `host` says memory, vCPUs and console, too */
};

static inline struct host_share spec_share(const struct machine_spec *spec)
{
	return (struct host_share){spec->memory, spec->vcpus, spec->console};
}

/* Milestones on the way to a running guest, ns since main(). X(field) */
#define PHASES(X)                                                                                  \
	X(open)    /* arguments read, files open */                                                \
	X(memory)  /* RAM mapped, kernel loaded */                                                 \
	X(vm)      /* VM and vCPUs made */                                                         \
	X(devices) /* devices, sockets, ring */                                                    \
	X(state)   /* registers or saved state in place */                                         \
	X(jail)    /* rights given up */                                                           \
	X(running) /* first vCPU let go */                                                         \
	X(ready)   /* the guest rang ready */

struct timeline {
#define X(f) u64 f##_ns;
	PHASES(X)
#undef X
};

/* Why the monitor ends the guest, when it is not the guest's own doing. */
enum stop_reason { STOP_NONE, STOP_ASKED, STOP_KILLED, STOP_SIGNAL, STOP_TIMEOUT };

/* /run/kelvin/ID. */
struct vmdir {
	char path[SOCK_PATH_MAX];
	int dir_fd;
	int pid_fd;   /* the pid file, locked; the keeper's, once there is a jail */
	int api_fd;   /* listening; handed to the API */
	int vsock_fd; /* listening; handed to the device */
	int log_fd;
	char vsock_path[SOCK_PATH_MAX]; /* where vsock.sock points, if it is a link; else empty */
	dev_t vsock_dev;                /* what we made there */
	ino_t vsock_ino;
};

/* Nothing open. */
#define VMDIR_NONE                                                                                 \
	((struct vmdir){.dir_fd = -1, .pid_fd = -1, .api_fd = -1, .vsock_fd = -1, .log_fd = -1})

struct waiter {
	machine_done done;
	void *ctx;
};

struct device_slot {
	struct machine *machine;
	struct virtio_dev *dev;
	const char *id;         /* the operator's name for it; in the spec */
	char tag[SNAP_TAG_MAX]; /* of its section in snapshots */
	struct ring_op kick;
	u64 kick_count; /* where the eventfd is read to */
};

struct dial;

struct machine {
	struct machine_spec *spec; /* the caller's; outlives the machine */
	pid_t pid;                 /* as the host sees it */
	struct jail_report jail;
	struct dial *dial; /* to the keeper; NULL: the vsock connects itself */
	struct vmdir dir;
	struct mem *mem;
	struct vm *vm;
	struct ring *ring;
	struct api *api;
	struct serial *serial;
	struct device_slot slot[DEVICES_MAX];
	unsigned device_count;

	/* Of a pc. vCPU threads, each access under the lock. */
	pthread_mutex_t pc_lock;
	struct cmos cmos;
	struct i8042 i8042;

	enum life_state life;
	bool pausing; /* vm_pause() asked, not yet parked */
	struct waiter pause_waiter[WAITERS_MAX];
	unsigned pause_waiters;

	/* vCPU and worker threads -> loop: bits, and an eventfd to wake it. */
	u32 events;
	int event_fd;
	struct ring_op event_op;
	u64 event_count;

	cpu_set_t base_cpus; /* where threads run that nobody pinned */

	int signal_fd;
	struct ring_op signal_op;
	u8 signal_info[128]; /* struct signalfd_siginfo */

	struct ring_op timeout_op, probe_op, button_op;
	struct ring_time timeout_ts, probe_ts, button_ts;
	u64 probe_ns; /* current interval of the halt probe */

	struct snapshot_job *job; /* while SNAPSHOTTING */

	enum stop_reason stop_reason;
	int stop_signal;
	struct end_report end; /* written by the vCPU thread before EVENT_ENDED */
	char panic[160];       /* what the guest's kernel said when it panicked, or empty */
	char last_lines[2048]; /* that its console showed; empty without one */
	bool over;             /* the loop is to return */

	u8 vm_uuid[16];  /* in the identity page */
	u32 generation;
	u64 started_ns;  /* CLOCK_REALTIME */
	struct timeline time;
	u32 ready_rung;  /* atomic: the first ready was passed on */
	int notify_fd;   /* who waits for ready: a pipe, or stdout with --json; -1 */
	bool notify_json;
	u64 unmapped; /* accesses to nothing; atomic */
};

enum { EVENT_PARKED = 1, EVENT_ENDED = 2, EVENT_READY = 4, EVENT_JOB = 8, EVENT_SERIAL = 16 };

/* Any thread: tells the loop. */
void machine_post(struct machine *m, u32 event);

/* Loop thread: the guest did something, so it may halt for ever soon. */
void machine_stirred(struct machine *m);

/* ns since main() began, CLOCK_MONOTONIC. */
u64 since_start_ns(void);

/* ---- bus.c: the vCPU threads' way in ---- */
void bus_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write);
void bus_pio(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write);

/* ---- life.c ---- */
void life_set(struct machine *m, enum life_state to);
void life_parked(struct machine *m);
void life_stop(struct machine *m, enum stop_reason why);
/* The guest had its time since the power button was pressed. */
void life_button_done(struct ring_op *op, int res);
/* The guest is over: looks for the reason on its console. */
void life_read_console(struct machine *m);
/* Tells every waiter that it will not happen. */
void life_fail_waiters(struct machine *m, const char *why);
/* The process's exit status and one sentence for how the VM ended. */
int life_exit_status(const struct machine *m);
void life_describe_end(const struct machine *m, char *out, size_t cap);

/* ---- devices.c ---- */
/* How many devices @spec asks for. */
unsigned devices_count(const struct machine_spec *spec);
/* Makes them, with the ring there and before vm_start(). machine_destroy() cleans up. */
int devices_create(struct machine *m, struct err *e);
/* Their saved state is in place: what the operator wants otherwise comes now. */
void devices_loaded(struct machine *m);
/* The loop is about to run. */
void devices_start(struct machine *m);
/*
 * The VM has ended, and the end may be seen before the last kick: what the guest handed over until
 * then still goes out, as far as it can at once.
 */
void devices_last_turns(struct machine *m);
/* The guest has ended: others may have its disks, before the slow part. */
void devices_release(struct machine *m);

/* ---- identity.c ---- */
/* Writes the page, and ACPI's GUID, for a fresh boot. After the tables. */
void identity_boot(struct machine *m);
/* Renews both after a restore, if what marks them is still there. With the vCPUs' state in place:
 * a guest that listens gets its interrupt. */
void identity_restore(struct machine *m);

/* ---- save_files.c ---- */
#define SAVE_DISK_FILE "disk.%s" /* of a snapshot: a disk's overlay, by id */
#define SAVE_FILES_MAX (2 + DISKS_MAX)

/* The files of one snapshot; fd is -1 where there is none yet, or none any more. */
struct save_files {
	unsigned count;
	struct save_file {
		char name[SNAP_FILE_MAX];
		int fd;
	} file[SAVE_FILES_MAX];
};
/* The names alone. */
void save_files_list(struct save_files *f, const struct machine_spec *spec);
/* Takes over @from, which must be these files, each fit to be written; all or none. */
int save_files_take(struct save_files *f, struct handed_file *from, unsigned n, struct err *e);
/* Makes them in @dir. */
int save_files_make(struct save_files *f, struct snap_dir *dir, struct err *e);
/* The descriptor of one, which becomes the caller's. */
int save_files_steal(struct save_files *f, const char *name);
void save_files_close(struct save_files *f);

/* ---- save.c ---- */
struct snapshot_job;
void save_job_finished(struct machine *m);
void save_job_retry(struct machine *m);
/* Fills memory size, vCPUs, vsock and so on from the "machine" section. */
int spec_from_snapshot(struct machine_spec *spec, const struct snap *s, struct err *e);

/* ---- vmdir.c ---- */
/* Makes the directory with all that is in it, and locks the id. Nothing is left where it fails. */
int vmdir_create(struct vmdir *d, const struct machine_spec *spec, struct err *e);
/* Writes down, for snapshots, what the VM has of the host; not after vmdir_let_go(). */
int vmdir_note_host(const struct vmdir *d, const struct machine_spec *spec, struct err *e);
/* Opens the one of a VM that lives, or that died just now, for vmdir_remove(). */
int vmdir_find(struct vmdir *d, const char *id, struct err *e);
/* Closes what leads to the host's file system. The directory cannot be removed from here then. */
void vmdir_let_go(struct vmdir *d);
/* This process's pid, as the host sees it; 0: that cannot be told. */
pid_t host_pid(void);
/* Removes what vmdir_create() made; @keep_log leaves the directory with log and exit report. */
void vmdir_remove(struct vmdir *d, bool keep_log, const char *exit_json);

/* ---- machine.c ---- */
/* Builds a VM to boot or, with @snap, to restore. Completes @spec (device words, vsock path), which
 * must outlive the machine. Cleans up after itself on failure. */
int machine_create(struct machine **ret, struct machine_spec *spec, const struct snap *snap,
	int notify_fd, bool notify_json, struct err *e);
/* Gives up all that spec->jailed takes away; nothing can be opened after that. The caller ends the
 * process where it fails. */
int machine_jail(struct machine *m, struct err *e);
/* Lets the guest go. The caller destroys the machine where this fails. */
int machine_start(struct machine *m, struct err *e);
/* Runs the loop until the guest has ended. */
int machine_run(struct machine *m, struct err *e);
/* After machine_run(): removes the directory and says how it ended. Returns the exit status. Does
 * not close the VM: that is slow, and the process is about to end anyway. */
int machine_finish(struct machine *m);
void machine_destroy(struct machine **m);

#endif
