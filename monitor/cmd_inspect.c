/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_inspect.c - kelvin inspect: say what is in a snapshot, a kernel file or a VM.
 *
 * A name without a '/' that is a VM's is the VM, as in all verbs; else a regular file is a kernel,
 * and an operand with a '/' in it, or a directory with a state file, a snapshot. A snapshot may be
 * hostile: snap_open() checks its structure, and what it says is printed so that a terminal cannot
 * mind.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/vm_verb.h"
#include "monitor/vmfind.h"
#include "snapshot/snapshot.h"
#include "vcpu/vm.h"

#define CELLS     64u
#define ROW       32u /* cells */
#define TEXT_MAX  8192u
#define MACHINE   "machine"

enum { OPT_JSON = 1 };

static const struct opt_spec opts[] = {
	{"json", NULL, "print everything as one object", OPT_JSON},
};

/* Where in RAM the data is: bytes of it in each of CELLS equal parts. */
struct density {
	u64 size;
	u64 cell[CELLS];
};

static u64 cell_begin(const struct density *d, unsigned i)
{
	return d->size / CELLS * i + d->size % CELLS * i / CELLS;
}

static void add_extent(struct density *d, u64 from, u64 to)
{
	for (unsigned i = 0; i < CELLS; i++) {
		u64 low = cell_begin(d, i), high = cell_begin(d, i + 1);

		low = from > low ? from : low;
		high = to < high ? to : high;
		if (low < high)
			d->cell[i] += high - low;
	}
}

/* From the holes in the memory file; on a file system without holes everything is data. */
static void measure(const struct snap *s, struct density *d)
{
	int fd = snap_mem_fd(s);
	off_t from, to = 0;

	*d = (struct density){.size = snap_mem_size(s)};
	while ((from = lseek(fd, to, SEEK_DATA)) >= 0) {
		to = lseek(fd, from, SEEK_HOLE);
		if (to <= from)
			break;
		add_extent(d, (u64)from, (u64)to);
	}
}

static unsigned percent(const struct density *d, unsigned i)
{
	u64 len = cell_begin(d, i + 1) - cell_begin(d, i);

	return len ? (unsigned)(d->cell[i] * 100 / len) : 0;
}

static void draw(const struct density *d)
{
	char bar[ROW + 1] = "", size[32];

	for (unsigned i = 0; i < CELLS; i++) {
		unsigned p = percent(d, i);

		bar[i % ROW] = p >= 75 ? '#' : p >= 25 ? '+' : d->cell[i] ? '-' : '.';
		if (i % ROW == ROW - 1)
			show_line(i < ROW ? "memory map" : "", "%-6s [%s]",
				show_size(cell_begin(d, i + 1 - ROW), size, sizeof(size)), bar);
	}
	show_line("", "one cell is %s: '.' empty, '-' some, '+' a quarter or more, '#' mostly data",
		show_size(d->size / CELLS, size, sizeof(size)));
}

/* The "machine" section as an object; NULL where it is missing or not JSON. */
static json_t *machine_section(const struct snap *s)
{
	const struct snap_section *sec;
	json_t *j;

	if (snap_find(s, MACHINE, &sec, NULL))
		return NULL;
	j = json_loadb(sec->data, sec->len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(j))
		return j;
	json_decref(j);
	return NULL;
}

/* What processor the snapshot needs; all its vCPUs are alike. */
static void cpu_text(const struct snap *s, char *out, size_t cap)
{
	const struct snap_section *sec;
	struct err e;

	if (snap_find(s, "vcpu0", &sec, &e) || vcpu_describe(sec->data, sec->len, out, cap, &e))
		snprintf(out, cap, "unknown: %s", e.msg);
}

static void print_sections(const struct snap *s)
{
	printf("\n%-*s %8s %10s %10s\n", SHOW_NAME_WIDTH, "SECTION", "VERSION", "OFFSET", "BYTES");
	for (unsigned i = 0; i < snap_section_count(s); i++) {
		const struct snap_section *sec = snap_section_at(s, i);
		char rest[64];

		snprintf(rest, sizeof(rest), "%8u %10" PRIu64 " %10zu", sec->version, sec->offset,
			sec->len);
		show_line(sec->tag, "%s", rest);
	}
}

static int print_snapshot(const struct snap *s, const char *dir, const struct density *d,
	const char *cpu)
{
	u64 size = snap_mem_size(s), data = snap_mem_data_bytes(s);
	json_auto_t *machine = machine_section(s);
	char a[32], b[32];

	show_line("snapshot", "%s%s", dir,
		snap_trusted(s) ? "" : " (not trusted: others can write it, or it is not yours)");
	show_line("created", "%s", show_date(snap_created_ns(s), a, sizeof(a)));
	show_line("memory", "%s, of it %s data (%.1f%%)", show_size(size, a, sizeof(a)),
		show_size(data, b, sizeof(b)), (double)data * 100 / (double)size);
	draw(d);
	show_line("cpu", "%s", cpu);
	if (machine) {
		printf("\n");
		show_facts(machine);
	}
	print_sections(s);
	return show_end();
}

static int json_snapshot(const struct snap *s, const char *dir, const struct density *d,
	const char *cpu)
{
	json_t *sections = json_array(), *map = json_array(), *machine = machine_section(s);

	for (unsigned i = 0; i < snap_section_count(s); i++) {
		const struct snap_section *sec = snap_section_at(s, i);

		json_array_append_new(sections,
			json_pack("{s:s, s:i, s:I, s:I}", "tag", sec->tag, "version",
				(int)sec->version, "offset", (json_int_t)sec->offset, "bytes",
				(json_int_t)sec->len));
	}
	for (unsigned i = 0; i < CELLS; i++)
		json_array_append_new(map, json_integer(percent(d, i)));
	return show_json(json_pack("{s:s, s:I, s:b, s:I, s:I, s:s, s:o, s:o, s:o}", "dir", dir,
		"created_ns", (json_int_t)snap_created_ns(s), "trusted", snap_trusted(s), "memory",
		(json_int_t)snap_mem_size(s), "data_bytes",
		(json_int_t)snap_mem_data_bytes(s), "cpu", cpu, "machine",
		machine ? machine : json_null(), "sections", sections,
		"density_percent", map));
}

static int inspect_snapshot(const char *dir, bool json)
{
	char cpu[TEXT_MAX] = "";
	struct snap *s = NULL;
	struct density d;
	struct err e;
	int r;

	if (snap_open(&s, dir, &e)) {
		if (!strstr(e.msg, dir))
			err_wrap(&e, "snapshot %s", dir);
		return fail(&e);
	}
	measure(s, &d);
	cpu_text(s, cpu, sizeof(cpu));
	r = json ? json_snapshot(s, dir, &d, cpu) : print_snapshot(s, dir, &d, cpu);
	snap_close(&s);
	return r;
}

/* What is left to say of VM @id, which has ended. */
static json_t *ended_facts(const char *id)
{
	json_auto_t *report = vm_exit_report(id);
	json_t *j = json_pack("{s:s, s:s}", "id", id, "state", "ended");
	char dir[4096];

	json_object_update(j, report);
	if (vm_path(dir, sizeof(dir), id, NULL, NULL) == 0)
		json_object_set_new(j, "dir", json_string(dir));
	return j;
}

static int inspect_vm(const char *id, bool json)
{
	json_t *facts = NULL;
	struct err e;

	if (vm_look(id, NULL) == VM_ENDED)
		facts = ended_facts(id);
	else if (ask_facts(id, &facts, &e))
		return fail(&e);
	if (json)
		return show_json(facts);
	show_facts(facts);
	json_decref(facts);
	return show_end();
}

static bool is_vm(const char *operand)
{
	enum vm_there there = strchr(operand, '/') ? VM_ABSENT : vm_look(operand, NULL);

	return there != VM_ABSENT && there != VM_HIDDEN;
}

static bool is_snapshot(const char *operand)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/state", operand);

	return strchr(operand, '/') ||
		(n > 0 && (size_t)n < sizeof(path) && access(path, F_OK) == 0);
}

static bool is_file(const char *operand)
{
	struct stat st;

	return stat(operand, &st) == 0 && S_ISREG(st.st_mode);
}

int cmd_inspect(int argc, char **argv)
{
	struct opt_parser p = {
		.verb = "inspect",
		.usage = "inspect [--json] DIR|KERNEL|ID",
		.summary = "Says what is in the snapshot DIR, how the kernel file KERNEL would\n"
			   "boot and with which default words, or everything known of the VM ID,\n"
			   "also how it ended.\n"
			   "A name without a '/' is the VM of that name, if there is one: ./web\n"
			   "is the file or directory. A regular file is a kernel; a directory\n"
			   "that holds a state file, or else what has a '/' in it, a snapshot.",
		.examples = "  kelvin inspect web\n"
			    "  kelvin inspect ./snap\n"
			    "  kelvin inspect /boot/vmlinuz\n"
			    "  kelvin inspect --json web | jq .devices\n",
		.opts = opts,
		.opt_count = ARRAY_SIZE(opts),
	};
	const char *arg;
	bool json = false;
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		json = true;
	if (id < 0)
		return 2;
	if (argc - optind != 1)
		return usage_error(&p, argc == optind ? "which snapshot, kernel or VM?"
						      : "one snapshot, kernel or VM, please");
	if (is_vm(argv[optind]))
		return inspect_vm(argv[optind], json);
	if (is_file(argv[optind]))
		return inspect_kernel(argv[optind], json);
	if (is_snapshot(argv[optind]))
		return inspect_snapshot(argv[optind], json);
	return inspect_vm(argv[optind], json); /* which says that there is none */
}
