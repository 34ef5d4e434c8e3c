/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen_filter.c - a program of the build: turns syscalls.def into filters.c, one BPF program for
 * each kind of thread, so that the monitor loads one by a single system call, without libseccomp.
 *
 * libseccomp sorts the calls into a binary tree: the kernel runs a filter once for each call there
 * is when it is loaded, which costs more than all else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jailer/jailer_int.h"

enum kind { CALL, ONLY, FAIL };

struct rule {
	enum kind kind;
	int nr;
	const char *name;
	unsigned threads;
	unsigned arg;
	struct filter_test test;
	int errnum;
};

static const struct rule rules[] = {
#define CALL(n, t, why) {.kind = CALL, .nr = SCMP_SYS(n), .name = #n, .threads = t},
#define ONLY(n, t, a, c, why)                                                                      \
	{.kind = ONLY, .nr = SCMP_SYS(n), .name = #n, .threads = t, .arg = a, .test = c},
#define FAIL(n, t, e, why)                                                                         \
	{.kind = FAIL, .nr = SCMP_SYS(n), .name = #n, .threads = t, .errnum = e},
#include "jailer/syscalls.def"
#undef CALL
#undef ONLY
#undef FAIL
};

_Noreturn static void die(const char *what, const char *name, int res)
{
	fprintf(stderr, "gen_filter: %s %s: error %d\n", what, name, res);
	exit(1);
}

static void add(scmp_filter_ctx ctx, const struct rule *r)
{
	struct scmp_arg_cmp cmp = SCMP_CMP(r->arg, SCMP_CMP_MASKED_EQ, r->test.mask, r->test.value);
	uint32_t action = r->kind == FAIL ? SCMP_ACT_ERRNO((uint32_t)r->errnum) : SCMP_ACT_ALLOW;
	int res;

	if (r->test.mask == UINT64_MAX)
		cmp = SCMP_CMP(r->arg, SCMP_CMP_EQ, r->test.value);
	res = seccomp_rule_add_exact_array(ctx, action, r->nr, r->kind == ONLY, &cmp);
	if (res)
		die("rule for", r->name, res);
}

static void write_filter(const char *name, unsigned thread)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	FILE *file = tmpfile();
	struct sock_filter op;
	int res;

	if (!ctx || !file)
		die("out of", "memory", 0);
	res = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	res = res ? res : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (res)
		die("libseccomp is too old for", name, res);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].threads & thread)
			add(ctx, &rules[i]);
	res = seccomp_export_bpf(ctx, fileno(file));
	if (res)
		die("cannot make", name, res);
	printf("static const struct sock_filter %s[] = {\n", name);
	rewind(file);
	while (fread(&op, sizeof(op), 1, file) == 1)
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", op.code, op.jt, op.jf, op.k);
	printf("};\n\n");
	fclose(file);
	seccomp_release(ctx);
}

int main(void)
{
	printf("/* Made by gen_filter from syscalls.def. */\n#include \"jailer/jailer_int.h\"\n\n");
	write_filter("loop", JL);
	write_filter("vcpu", V);
	write_filter("writer", JW);
	write_filter("loop_names", LN);
	write_filter("writer_names", WN);
	printf("#define FILTER(f) {f, sizeof(f) / sizeof(f[0])}\n"
	       "const struct filter filters[] = {\n"
	       "\t[JAIL_LOOP] = FILTER(loop),\n"
	       "\t[JAIL_VCPU] = FILTER(vcpu),\n"
	       "\t[JAIL_WRITER] = FILTER(writer),\n"
	       "\t[JAIL_LOOP_NAMES] = FILTER(loop_names),\n"
	       "\t[JAIL_WRITER_NAMES] = FILTER(writer_names),\n"
	       "};\n");
	return 0;
}
