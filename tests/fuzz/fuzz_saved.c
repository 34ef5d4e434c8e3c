/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_saved.c - what is in the sections of a snapshot (H05, H06): VM and vCPU state, KVM's chips,
 * the PC's small devices, the list of files, the JSON of disks and networks; and the header of an
 * overlay and what the host says of names (host_spec.c), which come from files as well. The first
 * record says which; the ones after it change bytes of a good one.
 *
 * Checked: a good one is accepted; what is accepted, whatever was changed, encodes to the same bytes
 * again, so nothing in it was overlooked; a refusal has a reason.
 */
#include <stdlib.h>
#include <string.h>

#include "monitor/cmos.h"
#include "monitor/dev_spec.h"
#include "monitor/i8042.h"
#include "snapshot/snap_int.h"
#include "tests/fuzz/fuzz.h"
#include "vcpu/pc_int.h"
#include "virtio/overlay_int.h"

static union {
	struct vm_state vm;
	struct cpu_state cpu;
	struct pc_state pc;
	struct cmos cmos;
	struct i8042 i8042;
	struct overlay_head head;
	struct snap_extra extra[SNAP_FILES_MAX];
} s;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

/* Each codec: a good sample, and there and back again. */

static void vm_sample(struct enc *out)
{
	vm_state_encode(&(struct vm_state){.clock_ns = 1, .realtime_ns = 2, .tsc_khz = 2000000,
		.ioapic_id = 0x1000000, .rte = {RTE_MASKED, 0xff0000000000a1ffull}}, out);
}

static int vm_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	int r = vm_state_decode(&s.vm, p, len, e);

	if (!r)
		vm_state_encode(&s.vm, out);
	return r;
}

static void cpu_sample(struct enc *out)
{
	struct cpu_state *c = &s.cpu;

	memset(c, 0, sizeof(*c));
	c->mp_state = KVM_MP_STATE_HALTED;
	c->sregs.cs = (struct kvm_segment){.type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	c->has_xcr0 = true;
	c->xcr0 = 7;
	c->events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	c->xsave_len = 832;
	c->cpuid.head.nent = 3;
	c->cpuid.entry[0].eax = 0xd;
	c->cpuid.entry[1] = (struct kvm_cpuid_entry2){.function = 1, .eax = 0xa00f11};
	c->cpuid.entry[2] = (struct kvm_cpuid_entry2){.function = 7,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
	c->msrs.head.nmsrs = 3;
	c->msrs.entry[0].index = MSR_TSC;
	c->msrs.entry[1].index = 0x174;
	c->msrs.entry[2].index = MSR_TSC_DEADLINE;
	cpu_state_encode(c, out);
}

static int cpu_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	int r = cpu_state_decode(&s.cpu, p, len, e);

	if (!r)
		cpu_state_encode(&s.cpu, out);
	return r;
}

static void pc_sample(struct enc *out)
{
	memset(&s.pc, 0, sizeof(s.pc));
	s.pc.pic[0].elcr_mask = 0xf8;
	s.pc.pic[1].elcr_mask = 0xde;
	s.pc.ioapic.base_address = 0xfec00000;
	for (unsigned i = 0; i < PIT_CHANNELS; i++)
		s.pc.pit[i] = (struct kvm_pit_channel_state){.count = 0x10000, .mode = 3, .gate = 1};
	pc_state_encode(&s.pc, out);
}

static int pc_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	int r = pc_state_decode(&s.pc, p, len, e);

	if (!r)
		pc_state_encode(&s.pc, out);
	return r;
}

static void cmos_sample(struct enc *out)
{
	cmos_reset(&s.cmos);
	cmos_save(&s.cmos, out);
}

static int cmos_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	int r = cmos_load(&s.cmos, p, len, e);

	if (!r)
		cmos_save(&s.cmos, out);
	return r;
}

static void i8042_sample(struct enc *out)
{
	i8042_reset(&s.i8042);
	i8042_save(&s.i8042, out);
}

static int i8042_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	int r = i8042_load(&s.i8042, p, len, e);

	if (!r)
		i8042_save(&s.i8042, out);
	return r;
}

static void head_sample(struct enc *out)
{
	u8 bytes[OVERLAY_HEAD_LEN];

	s.head = (struct overlay_head){.base = {1, 2, 3, 4}, .boot = "a-boot-id"};
	overlay_head_encode(&s.head, bytes);
	enc_bytes(out, bytes, sizeof(bytes));
}

static int head_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	u8 bytes[OVERLAY_HEAD_LEN] = {0};
	int r;

	/* It is always so long: whoever reads it made sure. */
	memcpy(bytes, p, len < sizeof(bytes) ? len : sizeof(bytes));
	r = overlay_head_decode(&s.head, bytes, e);
	if (r)
		return r;
	overlay_head_encode(&s.head, bytes);
	enc_bytes(out, bytes, sizeof(bytes));
	return 0;
}

static void extra_sample(struct enc *out)
{
	s.extra[0] = (struct snap_extra){.name = "disk.disk0", .size = 1 << 20, .data_bytes = 4096};
	s.extra[1] = (struct snap_extra){.name = "disk.d-1", .size = 5, .data_bytes = 5, .crc = 7};
	snap_encode_extra(out, s.extra, 2);
}

static int extra_again(const u8 *p, size_t len, struct enc *out, struct err *e)
{
	unsigned n;
	int r = snap_parse_extra(s.extra, &n, p, len, e);

	if (!r)
		snap_encode_extra(out, s.extra, n);
	return r;
}

/* ---- JSON: there and back twice must agree ---- */

static void add_json(struct enc *out, json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);

	must(text);
	enc_bytes(out, text, strlen(text));
	free(text);
	json_decref(j);
}

static void disk_sample(struct enc *out)
{
	static struct disk_spec d;

	d = (struct disk_spec){.id = "disk0", .path = "/a", .is_overlaid = true,
		.limit = {.ops = limit_of(100, 1000000000)}, .identity = {1, 2, 3, 4}};
	add_json(out, disk_to_json(&d));
}

static void net_sample(struct enc *out)
{
	static struct net_spec n;

	n = (struct net_spec){.id = "net0", .tap = "tap0", .mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500,
		.queues = 1, .rx = {.bytes = limit_of(1 << 20, 100000000)}};
	add_json(out, net_to_json(&n));
}

static int disk_json(json_t *j, json_t **ret, struct err *e)
{
	static struct disk_spec d;
	int r = disk_from_json(&d, j, e);

	if (!r)
		json_decref(disk_to_drive(&d));
	*ret = r ? NULL : disk_to_json(&d);
	return r;
}

static int net_json(json_t *j, json_t **ret, struct err *e)
{
	static struct net_spec n;
	int r = net_from_json(&n, j, e);

	if (!r)
		json_decref(net_to_interface(&n));
	*ret = r ? NULL : net_to_json(&n);
	return r;
}

/* A machine that the host knows. */
static struct dev_spec *known_devices(void)
{
	static struct dev_spec d;

	d.disk_count = d.net_count = 1;
	d.disk[0] = (struct disk_spec){.id = "disk0", .path = "/a", .is_overlaid = true};
	d.net[0] = (struct net_spec){.id = "net0", .tap = "tap0"};
	return &d;
}

static const struct host_share known_share = {128 << 20, 1, false};

static void host_sample(struct enc *out)
{
	char *text = dev_host_text(known_devices(), &known_share);

	must(text);
	enc_bytes(out, text, strlen(text));
	free(text);
}

/* The file `host`: what it says of names counts, or it does not; nothing comes back. */
static int host_json(json_t *j, json_t **ret, struct err *e)
{
	struct dev_spec *d = known_devices();
	char *text = json_dumps(j, 0);
	bool known;
	int r;

	must(text);
	r = dev_host_vouch(d, &known_share, text, strlen(text), true, &known, e);
	must(r || !d->disk[0].path[0] == !!d->disk[0].unnamed);
	*ret = r ? NULL : json_incref(j);
	free(text);
	return r;
}

static void again_json(const u8 *p, size_t len, int (*again)(json_t *, json_t **, struct err *),
	bool changed)
{
	json_t *j = json_loadb((const char *)p, len, JSON_REJECT_DUPLICATES, NULL), *one, *two;
	struct err e = {0};
	int r;

	must(j || changed);
	if (!j)
		return;
	r = again(j, &one, &e);
	must(!r == !e.msg[0] && (!r || changed));
	if (!r) {
		must(one && !again(one, &two, &e) && two && json_equal(one, two));
		json_decref(one);
		json_decref(two);
	}
	json_decref(j);
}

static const struct {
	void (*sample)(struct enc *out);
	int (*again)(const u8 *p, size_t len, struct enc *out, struct err *e);
	int (*json)(json_t *j, json_t **ret, struct err *e);
} kinds[] = {
	{vm_sample, vm_again, NULL},       {cpu_sample, cpu_again, NULL},
	{pc_sample, pc_again, NULL},       {cmos_sample, cmos_again, NULL},
	{i8042_sample, i8042_again, NULL}, {head_sample, head_again, NULL},
	{extra_sample, extra_again, NULL}, {disk_sample, NULL, disk_json},
	{net_sample, NULL, net_json},      {host_sample, NULL, host_json},
};

/* What was accepted is all there is in these bytes. */
static void check(unsigned kind, const u8 *p, size_t len, bool changed)
{
	struct enc out = {0};
	struct err e = {0};
	int r = kinds[kind].again(p, len, &out, &e);

	fz_trace("kind %u, %zu bytes: %d %s", kind, len, r, e.msg);
	must(!r == !e.msg[0] && (!r || changed));
	if (!r && kinds[kind].sample == head_sample)
		must(out.len == OVERLAY_HEAD_LEN && !memcmp(out.buf, p, len < 128 ? len : 128));
	else if (!r)
		must(out.len == len && !memcmp(out.buf, p, len));
	enc_free(&out);
}

/* The overlay's own checksum, FNV-1a, made right again. */
static void mend_head(struct enc *e)
{
	u64 sum = 0xcbf29ce484222325u;

	for (unsigned i = 0; i < OVERLAY_HEAD_LEN - 8; i++)
		sum = (sum ^ e->buf[i]) * 0x100000001b3u;
	for (unsigned i = 0; i < 8; i++)
		e->buf[OVERLAY_HEAD_LEN - 8 + i] = (u8)(sum >> (8 * i));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	bool changed = false;
	struct enc e = {0};
	unsigned kind;
	struct fz f;
	u8 *copy;

	fz_begin(&f, data, len);
	fz_step(&f);
	kind = fz_below(&f, ARRAY_SIZE(kinds));
	kinds[kind].sample(&e);
	must(!e.oom && e.len);
	for (; fz_step(&f); changed = true)
		fz_change(&f, fz_u8(&f), &e);
	if (kinds[kind].sample == head_sample && e.len >= OVERLAY_HEAD_LEN && !(len & 1))
		mend_head(&e);
	/* Of just this length, so that a look past the end shows. */
	copy = malloc(e.len);
	must(copy);
	memcpy(copy, e.buf, e.len);
	if (kinds[kind].json)
		again_json(copy, e.len, kinds[kind].json, changed);
	else
		check(kind, copy, e.len, changed);
	free(copy);
	enc_free(&e);
	return 0;
}
