/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - put a machine together, run its event loop, take it apart.
 *
 * The order is the one KVM charges least for (see vcpu/vm.h), and everything an operator can have
 * got wrong comes before the guest's first instruction. So do the filters: each vCPU thread takes
 * its own and waits, the loop's is last, and then the guest is let go. The descriptor table is
 * sized once, while there is one thread: one that grows under two threads waits for an RCU grace
 * period.
 *
 * The loop thread owns everything but guest memory. Other threads reach it through machine_post().
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/log.h"
#include "monitor/base/sig.h"
#include "monitor/dial.h"
#include "monitor/keeper.h"
#include "monitor/machine_int.h"
#include "monitor/tables.h"

#define RING_ENTRIES  256u
#define POLL_NS       50000u /* see poll_window_ns() */
#define FD_TABLE      2048u      /* 1023 vsock connections, API, devices */
#define WORKERS_MAX   128u       /* threads besides vCPUs: the kernel's, for io_uring, and ours */
#define PROBE_MIN_NS  100000000u /* the halt probe: from 0.1 s ... */
#define PROBE_MAX_NS  2000000000u /* ... to 2 s apart, and not at all while the guest is idle */
#define CONSOLE_LIMIT (1u << 20) /* bytes of console output kept for a detached VM */

u64 since_start_ns(void)
{
	static u64 begin;

	if (!begin)
		begin = clock_ns(CLOCK_MONOTONIC);
	return clock_ns(CLOCK_MONOTONIC) - begin;
}

const char *machine_id(const struct machine *m)
{
	return m->spec->id;
}

pid_t machine_pid(const struct machine *m)
{
	return m->pid;
}

enum life_state machine_state(const struct machine *m)
{
	return m->life;
}

bool machine_jailed(const struct machine *m)
{
	return m->spec->jailed;
}

struct ring *machine_ring(const struct machine *m)
{
	return m->ring;
}

void machine_post(struct machine *m, u32 event)
{
	u64 one = 1;

	__atomic_fetch_or(&m->events, event, __ATOMIC_RELEASE);
	/* syscalls[LVW]: write */
	must(write(m->event_fd, &one, sizeof(one)) == sizeof(one));
}

/* ---- what vCPU threads call ---- */

static void on_parked(void *ctx)
{
	machine_post(ctx, EVENT_PARKED);
}

static void on_ended(void *ctx, const struct end_report *r)
{
	struct machine *m = ctx;

	m->end = *r;
	machine_post(m, EVENT_ENDED);
}

/* Before its vCPU's first instruction. */
static int on_begin(void *ctx, struct err *e)
{
	struct machine *m = ctx;

	return jail_filter(JAIL_VCPU, m->spec->seccomp, e);
}

static const struct vm_ops vm_ops = {
	.begin = on_begin,
	.mmio = bus_mmio,
	.pio = bus_pio,
	.parked = on_parked,
	.ended = on_ended,
};

static void on_serial_irq(void *ctx)
{
	struct machine *m = ctx;

	vm_irq(m->vm, SERIAL_GSI);
}

static void on_serial_output(void *ctx)
{
	machine_post(ctx, EVENT_SERIAL);
}

/* ---- the loop's own operations ---- */

static void arm_probe(struct machine *m, u64 ns)
{
	if (m->probe_op.busy || m->life != LIFE_RUNNING)
		return;
	m->probe_ns = ns;
	ring_timeout(m->ring, &m->probe_op, &m->probe_ts, ns);
}

/* Finds guests that halted for ever. Not asked again while the guest is merely idle. */
static void on_probe(struct ring_op *op, int res)
{
	struct machine *m = container_of(op, struct machine, probe_op);
	u64 next = m->probe_ns * 2 < PROBE_MAX_NS ? m->probe_ns * 2 : PROBE_MAX_NS;

	if (res == -ECANCELED || m->life != LIFE_RUNNING || m->pausing)
		return;
	switch (vm_probe_halt(m->vm)) {
	case VM_PROBE_BUSY: arm_probe(m, next); break;
	case VM_PROBE_PROBING: arm_probe(m, PROBE_MIN_NS); break;
	case VM_PROBE_IDLE: break;
	}
}

void machine_stirred(struct machine *m)
{
	arm_probe(m, PROBE_MAX_NS);
}

static void on_timeout(struct ring_op *op, int res)
{
	struct machine *m = container_of(op, struct machine, timeout_op);

	if (res == -ETIME)
		life_stop(m, STOP_TIMEOUT);
}

static void on_signal(struct ring_op *op, int res)
{
	struct machine *m = container_of(op, struct machine, signal_op);
	struct signalfd_siginfo info;

	if (res != (int)sizeof(info))
		return;
	memcpy(&info, m->signal_info, sizeof(info));
	m->stop_signal = (int)info.ssi_signo;
	log_line("signal %d from process %u", m->stop_signal, info.ssi_pid);
	life_stop(m, STOP_SIGNAL);
	ring_read(m->ring, op, m->signal_fd, m->signal_info, sizeof(m->signal_info));
}

static void log_lines(char *text)
{
	char *line, *save = NULL;

	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		log_line("  %s", line);
}

static void log_end(const struct machine *m)
{
	char regs[sizeof(m->end.regs)], last[sizeof(m->last_lines)], text[512];

	life_describe_end(m, text, sizeof(text));
	log_line("ended: %s", text);
	memcpy(regs, m->end.regs, sizeof(regs));
	log_lines(regs);
	if (m->end.why != GUEST_PANIC)
		return;
	memcpy(last, m->last_lines, sizeof(last));
	log_lines(last);
}

static void on_event(struct ring_op *op, int res)
{
	struct machine *m = container_of(op, struct machine, event_op);
	u32 events = __atomic_exchange_n(&m->events, 0, __ATOMIC_ACQUIRE);

	if (res == -ECANCELED)
		return;
	ring_read(m->ring, op, m->event_fd, &m->event_count, sizeof(m->event_count));
	if (events & EVENT_READY)
		log_line("ready after %llu us", (unsigned long long)(m->time.ready_ns / 1000));
	if (events & EVENT_SERIAL)
		serial_flush(m->serial);
	if (events & EVENT_PARKED)
		life_parked(m);
	if (events & EVENT_JOB)
		save_job_finished(m);
	if ((events & EVENT_ENDED) && m->life != LIFE_STOPPED) {
		life_set(m, LIFE_STOPPED);
		life_fail_waiters(m, "the VM has ended");
		life_read_console(m);
		log_end(m);
		m->over = true;
	}
}

/* ---- assembly ---- */

/*
 * Room for all descriptors this VM can ever have, while there is one thread: growing the table
 * later, with vCPU threads running, costs 12 to 24 ms of waiting for RCU.
 */
static int presize_fd_table(struct err *e)
{
	struct rlimit lim;
	int fd, last;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return err_sys(e, errno, "cannot read the limit on open files");
	if (lim.rlim_cur < FD_TABLE) {
		lim.rlim_cur = lim.rlim_max < FD_TABLE ? lim.rlim_max : FD_TABLE;
		if (setrlimit(RLIMIT_NOFILE, &lim))
			return err_sys(e, errno, "cannot raise the limit on open files");
	}
	last = (int)(lim.rlim_cur < FD_TABLE ? lim.rlim_cur : FD_TABLE) - 1;
	fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, last);
	if (fd >= 0)
		close(fd);
	return 0; /* with stdin closed the table just grows later */
}

/* For the handler. */
static struct machine *the_machine;
static pthread_t main_thread;

/* No other thread may remove files. Its handler interrupts whatever the main one waits for. */
static void hand_over_to_main(int sig)
{
	static u32 forever;

	/* syscalls[VW]: tgkill, getpid, futex */
	syscall(SYS_tgkill, getpid(), getpid(), sig);
	for (;;)
		syscall(SYS_futex, &forever, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

/* Removes the VM's directory, or has it removed. */
static void leave_dir(struct machine *m, bool keep_log, const char *json)
{
	if (m->jail.layers)
		keeper_bye(m->spec->keeper_fd, keep_log, json);
	vmdir_remove(&m->dir, m->spec->detach && keep_log, json);
}

/*
 * RAM that is mapped from a file can fail to be read: the file was cut, or its disk has died. The
 * code that met it cannot go on, so the process ends here, in order. Only system calls that take
 * no locks are made.
 */
static void on_bus_error(int sig)
{
	static const char text[] = "a page of RAM cannot be read: the snapshot's memory file or "
				   "the cached kernel was cut, or its disk failed";
	struct machine *m = the_machine;
	char json[512];

	if (!pthread_equal(pthread_self(), main_thread))
		hand_over_to_main(sig);
	log_line("ended: %s", text);
	snprintf(json, sizeof(json),
		"{\"event\": \"exit\", \"id\": \"%s\", \"reason\": \"bus-error\", "
		"\"status\": %d, \"text\": \"%s\"}",
		m->spec->id, 128 + sig, text);
	leave_dir(m, m->life != LIFE_NEW, json);
	dprintf(STDERR_FILENO, "kelvin: %s: %s\n", m->spec->id, text);
	_exit(128 + sig);
}

/*
 * Signals that ask for something arrive as bytes to read: no handler, so no lock a handler could
 * wait for.
 */
static int take_signals(struct machine *m, struct err *e)
{
	struct sigaction bus = {.sa_handler = on_bus_error};
	sigset_t set;

	the_machine = m;
	main_thread = pthread_self();
	sigaction(SIGBUS, &bus, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (!sig_is_ignored(SIGHUP))
		sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	return m->signal_fd < 0 ? err_sys(e, errno, "cannot take signals") : 0;
}

static int add_serial(struct machine *m, struct err *e)
{
	struct serial_host host = {
		.out_fd = m->notify_json ? STDERR_FILENO : STDOUT_FILENO, /* which has JSON */
		.in_fd = m->spec->detach ? -1 : STDIN_FILENO,
		.wake = on_serial_output,
		.raise = on_serial_irq,
		.ctx = m,
	};

	if (!m->spec->console)
		return 0;
	if (vm_add_irq(m->vm, SERIAL_GSI, e))
		return e->code;
	if (m->spec->detach) {
		host.out_fd = openat(m->dir.dir_fd, "console",
			O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		host.out_limit = CONSOLE_LIMIT;
		if (host.out_fd < 0)
			return err_sys(e, errno, "cannot make %s/console", m->dir.path);
	}
	return serial_create(&m->serial, &host, m->ring, e);
}

/*
 * How long the loop and waiting vCPUs look before they sleep. With a processor left over for the
 * loop that is worth it; without, it would only keep the vCPUs from running.
 */
static u64 poll_window_ns(const struct machine *m)
{
	const struct machine_spec *spec = m->spec;

	if (spec->poll_ns != POLL_AUTO)
		return spec->poll_ns;
	return cpu_pin_spares_one(&spec->pin, spec->vcpus, &m->base_cpus) ? POLL_NS : 0;
}

static int add_devices(struct machine *m, struct err *e)
{
	int r = ring_create(&m->ring, RING_ENTRIES, e);

	if (r)
		return r;
	if (m->spec->keeper_fd >= 0)
		r = dial_create(&m->dial, m->spec->keeper_fd, m->ring, e);
	if (r)
		return r;
	ring_set_poll(m->ring, poll_window_ns(m));
	vm_set_poll(m->vm, poll_window_ns(m));
	r = devices_create(m, e);
	return r ? r : add_serial(m, e);
}

/* The words a guest without ACPI finds its devices by, before any "--" of a Linux command line. */
static int announce_devices(struct machine_spec *spec, unsigned count, struct err *e)
{
	char *user_end = strstr(spec->cmdline, " -- ");
	char tail[CMDLINE_MAX] = "";
	size_t n;

	if (user_end) {
		snprintf(tail, sizeof(tail), "%s", user_end);
		*user_end = 0;
	}
	n = strlen(spec->cmdline);
	for (unsigned i = 0; i < count; i++) {
		int k = snprintf(spec->cmdline + n, sizeof(spec->cmdline) - n,
			"%svirtio_mmio.device=4K@0x%llx:%u", n ? " " : "",
			(unsigned long long)(VIRTIO_GPA + i * (u64)VIRTIO_MMIO_WINDOW),
			VIRTIO_GSI + i);

		n += (size_t)k;
		if (n + strlen(tail) >= sizeof(spec->cmdline))
			return err_set(e, -E2BIG, "the command line and the words that announce "
				"%u devices on it are longer than %u bytes", count,
				CMDLINE_MAX - 1);
	}
	snprintf(spec->cmdline + n, sizeof(spec->cmdline) - n, "%s", tail);
	return 0;
}

static int open_input(int *ret, const char *path, const char *what, struct err *e)
{
	*ret = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return *ret < 0 ? err_sys(e, errno, "cannot open the %s %s", what, path) : 0;
}

/* Linux uses most of what it touches; a unikernel's few pages are not worth 2 MiB each. */
static void choose_huge(const struct machine *m, const struct kernel_info *k)
{
	enum huge_choice huge = m->spec->huge;

	if (huge == HUGE_OFF || huge == HUGE_THP || kernel_is_linux(k))
		mem_set_huge(m->mem, huge != HUGE_OFF); /* without them it is only slower */
}

/* RAM with a kernel in it. */
static int load_kernel(struct machine *m, struct boot_regs *regs, struct err *e)
{
	struct machine_spec *s = m->spec;
	_cleanup_fd_ int kernel_fd = -1, initrd_fd = -1;
	struct kernel *kernel = NULL;
	struct load_request req;
	int r = open_input(&kernel_fd, s->kernel, "kernel", e);

	if (!r && s->initrd[0])
		r = open_input(&initrd_fd, s->initrd, "initrd", e);
	if (!r)
		r = kernel_open(&kernel, kernel_fd, s->kernel, s->kernel_cache, e);
	if (!r && s->kind == MACHINE_AUTO)
		s->kind = kind_for_kernel(kernel_info(kernel));
	if (!r && !s->has_cmdline)
		snprintf(s->cmdline, sizeof(s->cmdline), "%s",
			kernel_default_cmdline(kernel_info(kernel), s->console));
	if (!r)
		r = announce_devices(s, devices_count(s), e);
	if (!r)
		r = mem_create(&m->mem, s->memory, s->memfd ? MEM_MEMFD
			: s->huge == HUGE_2M ? MEM_HUGE : MEM_ANON, e);
	req = (struct load_request){
		.kernel = kernel,
		.initrd_fd = initrd_fd,
		.initrd_path = s->initrd,
		.cmdline = s->cmdline,
		.boot = s->boot,
		.map_one_gib = s->kind == MACHINE_PC,
		.rsdp_gpa = GPA_ACPI,
	};
	if (!r) {
		choose_huge(m, kernel_info(kernel));
		r = kernel_load(m->mem, &req, regs, e);
	}
	if (!r) {
		tables_write(m, kernel_info(kernel));
		identity_boot(m);
	}
	kernel_close(&kernel);
	return r;
}

static int load_section(const struct snap *s, const char *tag, const struct snap_section **ret,
	struct err *e)
{
	int r = snap_find(s, tag, ret, e);

	if (!r && (*ret)->version != SNAP_VERSION)
		return err_set(e, -EINVAL, "section %s at offset %llu: version %u, known is %u",
			tag, (unsigned long long)(*ret)->offset, (*ret)->version, SNAP_VERSION);
	return r;
}

/* What only a pc has. After the vCPUs (vm.h). */
static int load_pc(struct machine *m, const struct snap *s, struct err *e)
{
	const struct snap_section *sec;
	int r = load_section(s, "chips", &sec, e);

	if (!r && vm_load_pc(m->vm, sec->data, sec->len, e))
		r = err_wrap(e, "section chips");
	if (!r)
		r = load_section(s, "cmos", &sec, e);
	if (!r && cmos_load(&m->cmos, sec->data, sec->len, e))
		r = err_wrap(e, "section cmos");
	if (!r)
		r = load_section(s, "i8042", &sec, e);
	if (!r && i8042_load(&m->i8042, sec->data, sec->len, e))
		r = err_wrap(e, "section i8042");
	return r;
}

static int load_state(struct machine *m, const struct snap *s, struct err *e)
{
	const struct snap_section *sec;
	char tag[64];
	int r = load_section(s, "vm", &sec, e);

	if (!r)
		r = vm_load(m->vm, sec->data, sec->len, e);
	for (unsigned i = 0; i < m->spec->vcpus && !r; i++) {
		snprintf(tag, sizeof(tag), "vcpu%u", i);
		r = load_section(s, tag, &sec, e);
		if (!r && vcpu_load(m->vm, i, sec->data, sec->len, e))
			r = err_wrap(e, "section %s", tag);
	}
	if (!r && m->spec->kind == MACHINE_PC)
		r = load_pc(m, s, e);
	for (unsigned i = 0; i < m->device_count && !r; i++) {
		r = load_section(s, m->slot[i].tag, &sec, e);
		if (!r && virtio_load(m->slot[i].dev, sec->data, sec->len, e))
			r = err_wrap(e, "section %s", m->slot[i].tag);
	}
	if (!r)
		devices_loaded(m);
	if (m->serial && !r) {
		r = load_section(s, "serial", &sec, e);
		if (!r)
			r = serial_load(m->serial, sec->data, sec->len, e);
	}
	return r;
}

static int build(struct machine *m, const struct snap *snap, struct err *e)
{
	struct boot_regs regs;
	int r = presize_fd_table(e);

	if (!r)
		r = take_signals(m, e);
	if (!r)
		r = cpu_pin_try(&m->spec->pin, m->spec->vcpus, &m->base_cpus, e);
	if (!r) {
		m->event_fd = eventfd(0, EFD_CLOEXEC);
		if (m->event_fd < 0)
			r = err_sys(e, errno, "cannot make an eventfd");
	}
	m->time.open_ns = since_start_ns();
	if (!r)
		r = snap ? mem_map_file(&m->mem, snap_mem_fd(snap), snap_mem_size(snap), e)
			 : load_kernel(m, &regs, e);
	m->time.memory_ns = since_start_ns();
	if (!r)
		r = vm_create(&m->vm, m->mem, m->spec->vcpus,
			m->spec->kind == MACHINE_PC ? VM_CHIPS_PC : VM_CHIPS_LEAN, &vm_ops, m, e);
	m->time.vm_ns = since_start_ns();
	if (!r)
		r = vmdir_create(&m->dir, m->spec, e);
	if (!r)
		r = vmdir_note_host(&m->dir, m->spec, e);
	if (r)
		return r;
	cpu_pin_vcpus(&m->spec->pin, m->spec->vcpus, &m->base_cpus, m->vm);
	vm_set_cpu(m->vm, &m->spec->cpu_template);
	if (!m->spec->vsock_path[0])
		r = vm_path(m->spec->vsock_path, sizeof(m->spec->vsock_path), m->spec->id,
			"vsock.sock", e);
	if (!r)
		r = add_devices(m, e);
	m->time.devices_ns = since_start_ns();
	if (!r)
		r = snap ? load_state(m, snap, e) : vm_boot(m->vm, &regs, e);
	if (!r && snap)
		identity_restore(m);
	m->time.state_ns = since_start_ns();
	if (!r)
		r = api_create(&m->api, m, m->dir.api_fd, e);
	if (r)
		return r;
	m->dir.api_fd = -1;
	log_to(m->dir.log_fd);
	return 0;
}

int machine_create(struct machine **ret, struct machine_spec *spec, const struct snap *snap,
	int notify_fd, bool notify_json, struct err *e)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_sys(e, ENOMEM, "cannot make a machine");
	m->spec = spec;
	m->dir = VMDIR_NONE;
	m->pid = host_pid();
	m->event_fd = m->signal_fd = -1;
	pthread_mutex_init(&m->pc_lock, NULL);
	cmos_reset(&m->cmos);
	i8042_reset(&m->i8042);
	m->notify_fd = notify_fd;
	m->notify_json = notify_json;
	m->event_op.done = on_event;
	m->signal_op.done = on_signal;
	m->timeout_op.done = on_timeout;
	m->probe_op.done = on_probe;
	m->button_op.done = life_button_done;
	r = build(m, snap, e);
	if (r) {
		machine_destroy(&m);
		return r;
	}
	life_set(m, LIFE_CONFIGURED);
	*ret = m;
	return 0;
}

static void start_operations(struct machine *m)
{
	ring_read(m->ring, &m->event_op, m->event_fd, &m->event_count, sizeof(m->event_count));
	ring_read(m->ring, &m->signal_op, m->signal_fd, m->signal_info, sizeof(m->signal_info));
	devices_start(m);
	if (m->serial)
		serial_start(m->serial);
	if (m->spec->timeout_ns)
		ring_timeout(m->ring, &m->timeout_op, &m->timeout_ts, m->spec->timeout_ns);
}

/* What libraries read from files on their first call. */
static void read_once(const struct machine *m)
{
	json_object_seed(0);
	if (m->spec->kind == MACHINE_PC)
		tzset(); /* gmtime_r() of the CMOS clock */
}

int machine_jail(struct machine *m, struct err *e)
{
	const struct machine_spec *s = m->spec;
	struct pollfd keeper = {.fd = s->keeper_fd, .events = POLLIN};
	struct jail_void space;
	struct jail_plan plan = {
		.born = s->born,
		.id = s->jail_id,
		.mount_on = m->dir.path,
		.nofile = FD_TABLE,
		.nproc = s->vcpus + WORKERS_MAX,
	};
	bool grouped = false;
	int r;

	if (!s->jailed)
		return jail_harden(e);
	r = keeper_here(s->keeper_fd, m->dir.pid_fd, e);
	if (!r) {
		vmdir_let_go(&m->dir); /* it is the keeper's now, whatever comes */
		r = keeper_wait(s->keeper_fd, &space, &grouped, e);
	}
	if (r)
		return err_wrap(e, "the jail");
	plan.space = space.fd[0] >= 0 ? &space : NULL;
	r = jail_enter(&plan, &m->jail, e);
	jail_close_void(&space);
	/* It may have died before this process was tied to it. It has nothing to say now. */
	if (!r && poll(&keeper, 1, 0) > 0)
		r = err_set(e, -EPIPE, "the keeper is gone");
	if (r)
		return err_wrap(e, "the jail");
	if (grouped)
		m->jail.layers |= JAIL_CGROUP;
	m->time.jail_ns = since_start_ns();
	return 0;
}

int machine_start(struct machine *m, struct err *e)
{
	int r;

	m->started_ns = clock_ns(CLOCK_REALTIME);
	life_set(m, LIFE_RUNNING);
	/* The threads take their filters while this one takes its own. */
	r = vm_start(m->vm, e);
	read_once(m);
	if (!r)
		r = jail_filter(machine_jailed(m) ? JAIL_LOOP : JAIL_LOOP_NAMES, m->spec->seccomp,
			e);
	if (r)
		return r;
	m->time.running_ns = since_start_ns();
	vm_resume(m->vm);
	return 0;
}

int machine_run(struct machine *m, struct err *e)
{
	int r;

	log_line("%s %s, machine %s, %llu MiB, %u vCPU, pid %d",
		m->spec->snapshot[0] ? "restored" : "booted",
		m->spec->snapshot[0] ? m->spec->snapshot : m->spec->kernel,
		kind_name(m->spec->kind), (unsigned long long)(m->spec->memory >> 20),
		m->spec->vcpus, m->pid);
	start_operations(m);
	arm_probe(m, PROBE_MIN_NS);
	while (!m->over || m->job) {
		r = ring_run(m->ring);
		if (r < 0)
			return err_sys(e, -r, "the event loop failed");
		save_job_retry(m);
	}
	devices_last_turns(m);
	return 0;
}

static json_t *exit_event(const struct machine *m, const char *why)
{
	const char *reason = m->end.why == GUEST_STOPPED ? "stopped" : guest_end_name(m->end.why);
	const char *console = m->end.why == GUEST_PANIC ? m->last_lines : NULL;

	return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s*}", "event", "exit", "id", m->spec->id,
		"reason", reason, "status", life_exit_status(m), "text", why, "console", console);
}

/* Not well, and nobody asked for it: then whoever finds a detached VM gone is told why. */
static bool worth_a_report(const struct machine *m)
{
	bool asked = m->stop_reason == STOP_ASKED || m->stop_reason == STOP_KILLED ||
		m->stop_reason == STOP_SIGNAL;

	return life_exit_status(m) && !(asked && m->end.why == GUEST_STOPPED);
}

int machine_finish(struct machine *m)
{
	bool failed = m->end.why != GUEST_POWER_OFF && m->end.why != GUEST_STOPPED;
	char why[512];
	char *json;
	json_t *event;

	life_describe_end(m, why, sizeof(why));
	event = exit_event(m, why);
	json = event ? json_dumps(event, 0) : NULL;
	json_decref(event);
	if (m->serial)
		serial_drain(m->serial);
	log_to(-1);
	/* The name is free and the answer out before the slow part: the kernel does it at exit. */
	devices_release(m);
	leave_dir(m, worth_a_report(m), json);
	for (int i = 0; i < 20 && m->api && api_busy(m->api); i++)
		if (ring_poll_once(m->ring) <= 0)
			poll(NULL, 0, 1); /* syscalls[L]: poll */
	if (m->notify_json && m->notify_fd >= 0 && json)
		dprintf(m->notify_fd, "%s\n", json);
	if (!m->spec->detach && !m->notify_json && (failed || m->stop_reason == STOP_TIMEOUT))
		fprintf(stderr, "kelvin: %s: %s\n%s", m->spec->id, why, m->end.regs);
	free(json);
	return life_exit_status(m);
}

void machine_destroy(struct machine **mp)
{
	struct machine *m = *mp;

	if (!m)
		return;
	log_to(-1);
	vmdir_remove(&m->dir, false, NULL);
	vm_destroy(&m->vm);
	api_destroy(&m->api);
	ring_close(m->ring);
	for (unsigned i = 0; i < m->device_count; i++)
		m->slot[i].dev->ops->destroy(m->slot[i].dev);
	dial_destroy(&m->dial);
	ring_destroy(&m->ring);
	serial_destroy(&m->serial);
	mem_destroy(&m->mem);
	fd_close(&m->event_fd);
	fd_close(&m->signal_fd);
	pthread_mutex_destroy(&m->pc_lock);
	free(m);
	*mp = NULL;
}
