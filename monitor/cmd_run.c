/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_run.c - kelvin run: boot a kernel or unikernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/cpu_spec.h"
#include "monitor/vm_opts.h"

enum { OPT_MEMORY = OPT_OWN, OPT_CPUS, OPT_INITRD, OPT_CONSOLE, OPT_BOOT, OPT_MEMFD,
	OPT_KERNEL_CACHE, OPT_CPU, OPT_MACHINE, OPT_HUGE };

#define DISK_KEYS                                                                                  \
	"ro, sync=writeback|unsafe|direct, id=ID,\n"                                               \
	"overlay=F (is written instead of the image), moved\n"                                     \
	"(the image is a copy of the overlay's),\n"                                                \
	"ops=N and bytes=SIZE a second, burst=TIME (as much\n"                                     \
	"of these as may be saved up: 100ms)"
#define NET_KEYS                                                                                   \
	"tap=NAME, fd=N (an open TAP), passt=SOCK or user\n"                                       \
	"(starts passt); id=ID, mac=M|random, mtu=N,\n"                                            \
	"queues=N, spoof, rx-bytes=SIZE, tx-bytes=SIZE,\n"                                         \
	"rx-frames=N, tx-frames=N (a second), burst=TIME"

static const struct opt_spec opts[] = {
	{"memory", "SIZE", "guest RAM (default 128M)", OPT_MEMORY},
	{"cpus", "N", "vCPUs, 1 to 32 (default 1)", OPT_CPUS},
	{"cpu", "MODEL",
		"what the guest sees of the processor: host (the\n"
		"default), baseline-v2 or baseline-v3 (the levels\n"
		"of x86-64, the same on every host of a vendor),\n"
		"or FILE of masks as Firecracker's cpu-config",
		OPT_CPU},
	{"initrd", "FILE", "initial RAM disk", OPT_INITRD},
	{"console", NULL,
		"a serial console at port 0x3f8 on stdin and stdout\n"
		"(--json: on stderr; --detach: the VM's file console)",
		OPT_CONSOLE},
	{"boot", "auto|pvh|linux64", "protocol (auto: PVH if the kernel has a note)",
		OPT_BOOT},
	{"disk", "path=F,KEYS", "a disk, repeatable; KEYS:\n" DISK_KEYS, OPT_DISK},
	{"net", "KEYS", "a network, repeatable; KEYS:\n" NET_KEYS, OPT_NET},
	{"kernel-cache", "off|DIR",
		"where unpacked kernels are kept for the next boot\n"
		"(default $XDG_CACHE_HOME/kelvin or ~/.cache/kelvin)",
		OPT_KERNEL_CACHE},
	{"machine", "auto|lean|pc",
		"pc has KVM's PIC, IOAPIC and PIT, a CMOS clock and\n"
		"an MP table besides (default auto: lean for Linux\n"
		"and kit guests, pc for all others)",
		OPT_MACHINE},
	{"huge", "auto|thp|off|2M",
		"transparent huge pages for guest RAM: yes, no, or\n"
		"(auto) yes for Linux and else the host's setting;\n"
		"2M: all of RAM from the host's pool of huge pages",
		OPT_HUGE},
	{"memfd", NULL, "guest RAM in a memfd, for other processes to map", OPT_MEMFD},
	VM_OPTS,
};

static const struct opt_parser page = {
	.verb = "run",
	.usage = "run [options] KERNEL [-- command line for the guest]",
	.summary = "Boots KERNEL in a VM of its own: an ELF64 file, plain or packed with gzip,\n"
		   "xz, lz4 or zstd, or a bzImage (a distribution's vmlinuz).\n"
		   "Without \"--\" Linux gets the words\n"
		   "  panic=-1 reboot=a cryptomgr.notests 8250.nr_uarts=0\n"
		   "(with --console: ... 8250.nr_uarts=1 console=ttyS0), and other kernels get\n"
		   "nothing. What follows \"--\" takes the place of that.\n"
		   "In the foreground it ends with the guest's exit status (a kit guest that\n"
		   "faults: 200 + vector), or with 1 if the VM could not be made, 191 if the\n"
		   "guest asked for a reboot, 192 timeout, 193 triple fault, 194 halted for ever,\n"
		   "195 KVM internal error, 196 entry refused, 197 unknown exit, 198 KVM_RUN\n"
		   "failed, 199 its kernel panicked (which only its console tells: --console),\n"
		   "137 killed, 128+n ended by signal n.",
	.examples = "  kelvin run hello.elf -- status=3\n"
		    "  kelvin run --detach --wait-ready --id web echo.elf\n"
		    "  kelvin run --console --memory 256M --timeout 5s hello.elf\n"
		    "  kelvin run --console --memory 256M --initrd initrd.img /boot/vmlinuz\n"
		    "  kelvin run --net tap=tap0,mtu=9000 --disk path=a.img,overlay=b net.elf\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

static int copy_path(const struct opt_parser *p, char *out, const char *path, const char *what)
{
	char *full = realpath(path, NULL);
	/* A missing file is reported when it is opened, by the name the operator typed. */
	int n = snprintf(out, PATH_MAX, "%s", full ? full : path);

	free(full);
	if (n >= PATH_MAX)
		return usage_error(p, "the path of the %s is too long", what);
	if (!is_utf8(out))
		return usage_error(p, "the path of the %s is not valid UTF-8, so the API could not "
				      "tell it", what);
	return 0;
}

static int huge_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	static const char *const names[] = {
		[HUGE_AUTO] = "auto", [HUGE_THP] = "thp", [HUGE_OFF] = "off",
		[HUGE_2M] = "2M"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(arg, names[i]) == 0) {
			l->spec.huge = (enum huge_choice)i;
			return 0;
		}
	}
	return usage_error(p, "--huge: auto, thp, off or 2M, not \"%s\"", arg);
}

static int memory_opt(const struct opt_parser *p, struct launch *l, const char *arg)
{
	bool bare = strspn(arg, "0123456789") == strlen(arg);
	struct err e;
	u64 v;

	if (parse_size(arg, &v, &e))
		return usage_error(p, "--memory: %s", e.msg);
	if (bare && v < MEM_MIN_SIZE && v << 20 >= MEM_MIN_SIZE && v << 20 <= MEM_MAX_SIZE)
		return usage_error(p, "--memory %s is %s bytes: did you mean %sM?", arg, arg, arg);
	if (v < MEM_MIN_SIZE || v > MEM_MAX_SIZE || v % MEM_PAGE)
		return usage_error(p, "--memory %s: guest RAM is from %lluM to %lluG, in steps "
			"of 4K", arg, MEM_MIN_SIZE >> 20, MEM_MAX_SIZE >> 30);
	l->spec.memory = v;
	return 0;
}

static int own_opt(const struct opt_parser *p, struct launch *l, int id, const char *arg)
{
	struct err e;
	u64 v;

	switch (id) {
	case OPT_MEMORY: return memory_opt(p, l, arg);
	case OPT_CPUS:
		if (parse_uint(arg, 1, VCPU_MAX, &v, &e))
			return usage_error(p, "--cpus: %s", e.msg);
		l->spec.vcpus = (unsigned)v;
		return 0;
	case OPT_CPU:
		if (cpu_option(&l->spec.cpu_template, arg, &e))
			return usage_error(p, "--cpu: %s", e.msg);
		if (l->spec.cpu_template.level != CPU_LEVEL_HOST || strcmp(arg, "host") == 0) {
			snprintf(l->spec.cpu, sizeof(l->spec.cpu), "%s", arg);
			return 0;
		}
		return copy_path(p, l->spec.cpu, arg, "CPU template");
	case OPT_INITRD: return copy_path(p, l->spec.initrd, arg, "initrd");
	case OPT_CONSOLE: l->spec.console = true; return 0;
	case OPT_MACHINE:
		if (!kind_from_name(arg, &l->spec.kind))
			return usage_error(p, "--machine: auto, lean or pc, not \"%s\"", arg);
		return 0;
	case OPT_MEMFD: l->spec.memfd = true; return 0;
	case OPT_KERNEL_CACHE:
		if (!arg[0] || strlen(arg) >= sizeof(l->spec.kernel_cache))
			return usage_error(p, "--kernel-cache: off or a directory");
		snprintf(l->spec.kernel_cache, sizeof(l->spec.kernel_cache), "%s", arg);
		return 0;
	case OPT_HUGE: return huge_opt(p, l, arg);
	case OPT_BOOT:
		if (strcmp(arg, "auto") == 0)
			l->spec.boot = BOOT_CHOOSE;
		else if (strcmp(arg, "pvh") == 0)
			l->spec.boot = BOOT_BY_PVH;
		else if (strcmp(arg, "linux64") == 0)
			l->spec.boot = BOOT_BY_LINUX64;
		else
			return usage_error(p, "--boot: auto, pvh or linux64, not \"%s\"", arg);
		return 0;
	default: return vm_opt(p, l, id, arg);
	}
}

/* The words after "--", joined by blanks. */
static int guest_words(const struct opt_parser *p, struct launch *l, int argc, char **argv)
{
	char *line = l->spec.cmdline;
	size_t cap = sizeof(l->spec.cmdline), n = 0;

	for (int i = 0; i < argc; i++) {
		size_t len = strlen(argv[i]);

		if (n + len + 2 > cap)
			return usage_error(p, "the guest's command line is longer than %zu bytes",
				cap - 1);
		n += (size_t)snprintf(line + n, cap - n, "%s%s", n ? " " : "", argv[i]);
	}
	return 0;
}

static int check_memory(const struct opt_parser *p, const struct machine_spec *s)
{
	if (s->cpu_template.level != CPU_LEVEL_HOST &&
	    s->memory > 1ull << (CPU_LEVEL_PHYS_BITS - 1))
		return usage_error(p, "--memory: with --cpu %s at most %lluG, for guests see %u "
			"address bits", s->cpu, (1ull << (CPU_LEVEL_PHYS_BITS - 1)) >> 30,
			CPU_LEVEL_PHYS_BITS);
	if (s->huge == HUGE_2M && s->memfd)
		return usage_error(p, "--huge 2M does not go with --memfd");
	return 0;
}

int cmd_run(int argc, char **argv)
{
	static struct launch l;
	struct opt_parser p = page;
	const char *arg;
	struct err e;
	int id, r, own = 1; /* words of ours: those before "--" */

	l.count = 1;
	l.spec.memory = 128u << 20;
	l.spec.vcpus = 1;
	snprintf(l.spec.cpu, sizeof(l.spec.cpu), "host");
	l.spec.vsock_cid = 3;
	l.spec.vsock_wait_ms = 1000;
	l.spec.poll_ns = POLL_AUTO;
	while (own < argc && strcmp(argv[own], "--") != 0)
		own++;
	if (jail_note_inherited(&l.inherited, &e))
		return fail(&e);
	opt_begin(&p, own, argv);
	while ((id = opt_next(&p, &arg)) > 0) {
		r = own_opt(&p, &l, id, arg);
		if (r)
			return r;
	}
	if (id < 0)
		return 2;
	if (optind == own)
		return usage_error(&p, "which kernel?");
	if (own - optind > 1)
		return usage_error(&p, "unexpected \"%s\": words for the guest come after --",
			argv[optind + 1]);
	r = copy_path(&p, l.spec.kernel, argv[optind], "kernel");
	if (r)
		return r;
	r = check_memory(&p, &l.spec);
	if (r)
		return r;
	l.spec.has_cmdline = own < argc;
	if (own < argc)
		r = guest_words(&p, &l, argc - own - 1, argv + own + 1);
	if (!r)
		r = vm_opts_finish(&p, &l);
	return r ? r : launch(&l);
}
