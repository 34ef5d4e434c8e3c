/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_cpu.c - CPU templates: the JSON of a --cpu file (cpu_spec.c), and what it does to the CPUID
 * of a host that is always the same (vcpu/cpu_template.c, cpuid.c, cpuid_deps.c). Each record adds
 * a mask, most of them good; some break it, and some change bytes of the finished text.
 *
 * Checked: numbers are within the tables they go into, and no bit is set that the mask does not
 * say; a refusal has a reason; what passes all checks shows the guest each bit that was to be set,
 * and a table that is still one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "monitor/cpu_spec.h"
#include "tests/fuzz/fuzz.h"
#include "vcpu/vcpu_int.h"

#define TEXT_MAX 65536u
#define VCPUS    4u

static struct {
	char text[TEXT_MAX + 512];
	size_t len;
	unsigned in_list;
	const char *list; /* the member that is open; NULL: none */
	struct cpuid_table host, guest;
} t;

/* An AMD processor of level 3, as KVM tells of it. */
static const struct kvm_cpuid_entry2 host[] = {
	{0x0, 0, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65, {0}},
	{0x1, 0, 0, 0xa00f11, 0x800, 0xfffa3203, 0x178bfbff, {0}},
	{0x6, 0, 0, 0x4, 0, 0, 0, {0}},
	{0x7, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0, 0x219c97a9, 0x40069c, 0x10, {0}},
	{0xd, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0x207, 0x988, 0x988, 0, {0}},
	{0xd, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0xf, 0x348, 0x1800, 0, {0}},
	{0xd, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0x100, 0x240, 0, 0, {0}},
	{0xd, 9, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0x8, 0x980, 0, 0, {0}},
	{0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d, {0}},
	{0x40000001, 0, 0, 0x1007efb, 0, 0, 0, {0}},
	{0x80000000, 0, 0, 0x80000021, 0x68747541, 0x444d4163, 0x69746e65, {0}},
	{0x80000001, 0, 0, 0xa00f11, 0x40000000, 0x4003f3, 0x2fd3fbff, {0}},
	{0x80000008, 0, 0, 0x3030, 0x111ed205, 0x6007, 0, {0}},
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	t.host.head.nent = ARRAY_SIZE(host);
	memcpy(t.host.entry, host, sizeof(host));
	return 0;
}

__attribute__((format(printf, 1, 2))) static void add(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	t.len += (size_t)vsnprintf(t.text + t.len, sizeof(t.text) - t.len, fmt, ap);
	va_end(ap);
	must(t.len < sizeof(t.text));
}

/* The next item goes into the list @name. */
static void in_list(const char *name)
{
	if (t.list != name) {
		add("%s%s\"%s\":[", t.list ? "]" : "", t.list ? "," : "", name);
		t.list = name;
		t.in_list = 0;
	}
	if (t.in_list++)
		add(",");
}

static void add_number(struct fz *f, u64 good)
{
	switch (fz_break(f, 24)) {
	case 0:
		add("\"0x%llx\"", (unsigned long long)good);
		break;
	case 1 ... 8:
		add("\"%llu\"", (unsigned long long)fz_odd(f, good));
		break;
	case 9 ... 16:
		add("\"0x%llx\"", (unsigned long long)fz_odd(f, good));
		break;
	case 17:
		add("%llu", (unsigned long long)good);
		break;
	case 18:
		add("\"0b%u\"", fz_u8(f));
		break;
	case 19:
		add("\"0x\"");
		break;
	default:
		add("null");
	}
}

static void add_bitmap(struct fz *f, unsigned bits)
{
	unsigned odd = fz_break(f, 16), n = fz_u8(f) & 1 ? bits : fz_below(f, bits + 1);
	u64 care = fz_u64(f), value = fz_u64(f);

	if (odd == 1)
		n = bits + 1;
	add("\"%s", odd == 2 ? "0x" : odd == 3 ? "" : "0b");
	while (n--)
		add("%s%c", n % 8 == 7 && odd > 10 ? "_" : "",
			odd == 4 && n == 3 ? '2' : !(care >> (n & 63) & 1) ? 'x'
			: value >> (n & 63) & 1 ? '1' : '0');
	add("\"");
}

static void add_leaf(struct fz *f)
{
	static const char *const regs[] = {"eax", "ebx", "ecx", "edx"};
	unsigned which = fz_below(f, ARRAY_SIZE(host)), odd = fz_break(f, 16);
	unsigned n = 1 + fz_below(f, 4), first = fz_u8(f);

	in_list("cpuid_modifiers");
	add("{\"leaf\":");
	add_number(f, host[which].function);
	add(",\"subleaf\":");
	add_number(f, host[which].index);
	if (odd != 1)
		add(",\"flags\":%d", odd == 2 ? 8 : odd == 3 ? -1 : (int)host[which].flags);
	if (odd == 4)
		add(",\"more\":1");
	add(",\"modifiers\":[");
	for (unsigned i = 0; i < n; i++) {
		add("%s{\"register\":\"%s\",\"bitmap\":", i ? "," : "",
			odd == 5 ? "rax" : regs[(first + (odd == 6 ? 0 : i)) % 4]);
		add_bitmap(f, 32);
		add("%s}", odd == 7 ? ",\"x\":[]" : "");
	}
	add("]}");
}

static void add_item(struct fz *f)
{
	static const char *const others[] = {"reg_modifiers", "vcpu_features", "unknown"};
	u8 what = fz_u8(f);

	switch (what % 8) {
	default:
		add_leaf(f);
		break;
	case 4:
	case 5:
		in_list("msr_modifiers");
		add("{\"addr\":");
		add_number(f, 0x10a);
		add(",\"bitmap\":");
		add_bitmap(f, 64);
		add("}");
		break;
	case 6:
		in_list("kvm_capabilities");
		add("\"%s%u\"", fz_u8(f) & 1 ? "!" : "", fz_u8(f));
		break;
	case 7:
		in_list(fz_u8(f) < 224 ? "kvm_capabilities" : others[what % 3]);
		add_number(f, 56);
	}
}

static void change(struct fz *f)
{
	size_t at = fz_u16(f) % t.len;

	if (fz_u8(f) & 1)
		t.text[at] = (char)fz_u8(f);
	else
		t.len = at + 1;
}

static void check_template(const struct cpu_template *c)
{
	must(c->leaf_count <= CPU_LEAVES_MAX && c->msr_count <= CPU_MSRS_MAX);
	must(c->cap_count <= CPU_CAPS_MAX && c->level <= CPU_LEVEL_V3);
	for (unsigned i = 0; i < c->leaf_count; i++)
		for (unsigned r = 0; r < 4; r++)
			must(!(c->leaf[i].value[r] & ~c->leaf[i].care[r]));
	for (unsigned i = 0; i < c->msr_count; i++)
		must(!(c->msr[i].value & ~c->msr[i].care));
}

/* As vm_boot() goes about it. */
static void apply(const struct cpu_template *c)
{
	struct err e = {0};
	int r;

	t.guest = t.host;
	r = cpu_template_apply(&t.guest, c, &e);
	if (!r) {
		cpuid_policy(&t.guest, VCPUS, 2000000);
		r = cpu_template_check(&t.guest, c, &e);
	}
	must(!r == !e.msg[0]);
	if (r)
		return;
	must(t.guest.head.nent && t.guest.head.nent <= CPUID_MAX);
	for (u32 i = 0; i < t.guest.head.nent; i++)
		for (u32 k = 0; k < i; k++)
			must(t.guest.entry[i].function != t.guest.entry[k].function ||
				t.guest.entry[i].index != t.guest.entry[k].index);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	static const char *const levels[] = {"host", "baseline-v2", "baseline-v3"};
	static struct cpu_template c;
	struct err e = {0};
	unsigned items = 0;
	struct fz f;
	json_t *j;
	u8 how;

	fz_begin(&f, data, len);
	fz_step(&f);
	how = fz_u8(&f);
	must(!cpu_option(&c, levels[how % 3], &e));
	if (how & 0x80)
		apply(&c);
	t.len = 0;
	t.list = NULL;
	add("{");
	while (t.len < TEXT_MAX - 8192 && items < (how & 0x3fu) + 1 && fz_step(&f) && ++items)
		add_item(&f);
	add("%s}", t.list ? "]" : "");
	while (fz_step(&f))
		change(&f);
	fz_trace("%.*s", (int)t.len, t.text);
	j = json_loadb(t.text, t.len, JSON_REJECT_DUPLICATES, NULL);
	if (!j)
		return 0;
	if (!cpu_config_from_json(&c, j, &e)) {
		check_template(&c);
		c.level = how % 3;
		apply(&c);
	} else {
		must(e.msg[0]);
	}
	json_decref(j);
	return 0;
}
