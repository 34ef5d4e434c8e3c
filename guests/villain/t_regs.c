/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_regs.c - T01 to T08, T12 to T14, T17: registers and config space.
 *
 * Most of these do a thing to a live device that must be ignored, and then ask it to work on
 * without a reset.
 */
#include "villain.h"

#define R  1
#define W  2
#define RW 3

static const struct {
	u16 off;
	u8 access;
} regs[] = {
	{REG_MAGIC, R},
	{REG_VERSION, R},
	{REG_DEVICE_ID, R},
	{REG_VENDOR_ID, R},
	{REG_DEVICE_FEATURES, R},
	{REG_DEVICE_FEATURES_SEL, W},
	{REG_DRIVER_FEATURES, W},
	{REG_DRIVER_FEATURES_SEL, W},
	{REG_QUEUE_SEL, W},
	{REG_QUEUE_NUM_MAX, R},
	{REG_QUEUE_NUM, W},
	{REG_QUEUE_READY, RW},
	{REG_QUEUE_NOTIFY, W},
	{REG_INTERRUPT_STATUS, R},
	{REG_INTERRUPT_ACK, W},
	{REG_STATUS, RW},
	{REG_QUEUE_DESC, W},
	{REG_QUEUE_DESC + 4, W},
	{REG_QUEUE_AVAIL, W},
	{REG_QUEUE_AVAIL + 4, W},
	{REG_QUEUE_USED, W},
	{REG_QUEUE_USED + 4, W},
	{REG_SHM_SEL, W},
	{REG_SHM_LEN, R},
	{REG_SHM_LEN + 4, R},
	{REG_SHM_BASE, R},
	{REG_SHM_BASE + 4, R},
	{REG_CONFIG_GENERATION, R},
};
#define REGS (sizeof(regs) / sizeof(regs[0]))

/* ---- accesses of any width, by one instruction each ---- */

static u64 load(u64 at, unsigned width)
{
	u64 v = 0;

	switch (width) {
	case 1: __asm__ volatile("movb (%1), %b0" : "+q"(v) : "r"(at) : "memory"); break;
	case 2: __asm__ volatile("movw (%1), %w0" : "+r"(v) : "r"(at) : "memory"); break;
	case 4: v = kit_load32(at); break;
	default: __asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory");
	}
	return v;
}

static void store(u64 at, unsigned width, u64 v)
{
	switch (width) {
	case 1: __asm__ volatile("movb %b0, (%1)" : : "q"(v), "r"(at) : "memory"); break;
	case 2: __asm__ volatile("movw %w0, (%1)" : : "r"(v), "r"(at) : "memory"); break;
	case 4: kit_store32(at, (u32)v); break;
	default: kit_store64(at, v);
	}
}

/* Whether the device is live and as it was. */
static enum verdict works_on(struct scene *s)
{
	u32 status = reg_get(&s->dev, REG_STATUS);

	if (status != S_ALL_OK)
		complain("the status has become %x", status);
	else
		good(s);
	return PASS;
}

static enum verdict t01_widths(struct scene *s)
{
	static const u8 widths[] = {1, 2, 8};

	for (unsigned i = 0; i < REGS * 3; i++) {
		u64 at = s->dev.base_gpa + regs[i / 3].off;
		unsigned width = widths[i % 3];
		u64 v;

		if (s->arg == W) {
			store(at, width, 0);
			store(at, width, ~0ull);
			continue;
		}
		v = load(at, width);
		if (v)
			complain("register %x gives %lx to %u bytes", regs[i / 3].off, v, width);
	}
	return works_on(s);
}

static enum verdict t02_misaligned(struct scene *s)
{
	static const u8 widths[] = {1, 2, 4, 8};

	for (unsigned off = 0; off < REG_CONFIG; off++) {
		for (unsigned w = 0; off % 4 && w < 4; w++) {
			u64 at = s->dev.base_gpa + off;

			if (s->arg == W)
				store(at, widths[w], off & 1 ? ~0ull : 0);
			else if (off + widths[w] <= REG_CONFIG && load(at, widths[w]))
				complain("offset %x gives something to %u bytes", off, widths[w]);
		}
	}
	return works_on(s);
}

/* Across both ends of the window. What is there belongs to others, or to nobody. */
static enum verdict t02_window_ends(struct scene *s)
{
	static const u8 widths[] = {2, 4, 8};

	for (unsigned w = 0; w < 3; w++) {
		for (unsigned k = 1; k < widths[w]; k++) {
			load(s->dev.base_gpa + WINDOW - k, widths[w]);
			store(s->dev.base_gpa + WINDOW - k, widths[w], 0);
			load(s->dev.base_gpa - k, widths[w]);
		}
	}
	return works_on(s);
}

static bool defined(u32 off)
{
	for (unsigned i = 0; i < REGS; i++) {
		if (regs[i].off == off)
			return true;
	}
	return false;
}

static enum verdict t03_undefined(struct scene *s)
{
	for (u32 off = 0; off < REG_CONFIG; off += 4) {
		if (defined(off))
			continue;
		if (reg_get(&s->dev, off))
			complain("offset %x, where no register is, gives %x", off,
				reg_get(&s->dev, off));
		reg_set(&s->dev, off, 0);
		reg_set(&s->dev, off, 0xffffffff);
	}
	return works_on(s);
}

static enum verdict t04_direction(struct scene *s)
{
	for (unsigned i = 0; i < REGS; i++) {
		u32 off = regs[i].off, before;

		if (regs[i].access == W && reg_get(&s->dev, off))
			complain("register %x, for writing only, gives %x", off,
				reg_get(&s->dev, off));
		if (regs[i].access != R)
			continue;
		before = reg_get(&s->dev, off);
		reg_set(&s->dev, off, ~before);
		reg_set(&s->dev, off, 0);
		if (reg_get(&s->dev, off) != before)
			complain("register %x, for reading only, was written", off);
	}
	return works_on(s);
}

/* ---- T05-T08: queue registers ---- */

/* Writes @v to all registers of the selected queue but QueueReady. */
static void scribble(const struct raw_dev *d, u32 v)
{
	reg_set(d, REG_QUEUE_NUM, v);
	reg_set64(d, REG_QUEUE_DESC, (u64)v << 32 | v);
	reg_set64(d, REG_QUEUE_AVAIL, (u64)v << 32 | v);
	reg_set64(d, REG_QUEUE_USED, (u64)v << 32 | v);
}

/* Queues that do not exist, while queues are being set up and while they run. */
static enum verdict t05_selector(struct scene *s)
{
	const u32 none[] = {s->queues, 8, 0xff, 0xffff, 0x10000, 0x10000 | s->aim->queue,
		0x80000000 | s->aim->queue, 0xffffffff};
	struct raw_dev *d = &s->dev;

	if (s->arg && !raw_negotiate(d, s->aim->features | F_RINGS))
		return FAIL;
	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		reg_set(d, REG_QUEUE_SEL, none[i]);
		if (reg_get(d, REG_QUEUE_NUM_MAX) || reg_get(d, REG_QUEUE_READY))
			complain("there is a queue %x", none[i]);
		scribble(d, SIZE);
		reg_set(d, REG_QUEUE_READY, 1);
		if (reg_get(d, REG_QUEUE_READY))
			complain("queue %x can be made ready", none[i]);
	}
	if (s->arg) {
		guards_reset(d);
		s->q = &d->q[s->aim->queue];
		s->aim->start(s, SIZE);
	}
	return works_on(s);
}

/* Sets the deformed queue up with fresh rings, but no QueueReady. */
static struct raw_queue *half_ready(struct scene *s, bool size, bool addresses)
{
	struct raw_dev *d = &s->dev;
	struct raw_queue *q;

	if (!raw_negotiate(d, s->aim->features | F_RINGS))
		return NULL;
	guards_reset(d);
	q = raw_rings(d, s->aim->queue, SIZE);
	reg_set(d, REG_QUEUE_SEL, q->index);
	if (size)
		reg_set(d, REG_QUEUE_NUM, SIZE);
	if (addresses) {
		reg_set64(d, REG_QUEUE_DESC, (u64)q->desc);
		reg_set64(d, REG_QUEUE_AVAIL, (u64)q->avail);
		reg_set64(d, REG_QUEUE_USED, (u64)q->used);
	}
	return q;
}

/* Makes the selected queue ready, and says whether that was refused. */
static enum verdict try_ready(struct scene *s, const struct raw_queue *q)
{
	struct raw_dev *d = &s->dev;
	bool refused;

	reg_set(d, REG_QUEUE_READY, 1);
	refused = !reg_get(d, REG_QUEUE_READY) || reg_get(d, REG_STATUS) & (S_BROKEN | S_FAILED);
	raw_go(d);
	raw_kick(d, q);
	kit_wait(300000);
	if (q->used->idx)
		complain("used.idx moved in a queue with nothing in it");
	return refused ? REJECT : PASS;
}

/* arg is the size; with 0x100000000 added, a good size was set before. */
static enum verdict t06_size(struct scene *s)
{
	struct raw_queue *q = half_ready(s, s->arg >> 32, true);

	if (!q)
		return FAIL;
	reg_set(&s->dev, REG_QUEUE_NUM, (u32)s->arg);
	return try_ready(s, q);
}

static enum verdict t07_no_address(struct scene *s)
{
	struct raw_queue *q = half_ready(s, true, false);

	return q ? try_ready(s, q) : FAIL;
}

static enum verdict t07_no_size(struct scene *s)
{
	struct raw_queue *q = half_ready(s, false, true);

	return q ? try_ready(s, q) : FAIL;
}

static enum verdict t07_values(struct scene *s)
{
	static const u32 values[] = {2, 3, 0x100, 0x10000, 0x80000000, 0xffffffff};
	struct raw_dev *d = &s->dev;

	if (!half_ready(s, true, true))
		return FAIL;
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		reg_set(d, REG_QUEUE_READY, values[i]);
		if (reg_get(d, REG_QUEUE_READY) > 1)
			complain("QueueReady reads as %x", reg_get(d, REG_QUEUE_READY));
	}
	/* Again and again is as good as once. */
	reg_set(d, REG_QUEUE_READY, 1);
	reg_set(d, REG_QUEUE_READY, 1);
	reg_set(d, REG_QUEUE_READY, 0);
	if (!raw_negotiate(d, s->aim->features | F_RINGS))
		return FAIL;
	guards_reset(d);
	s->q = &d->q[s->aim->queue];
	s->aim->start(s, SIZE);
	return works_on(s);
}

/* A live queue: whatever is written must not move it. */
static enum verdict t08_live(struct scene *s)
{
	static const u32 values[] = {0, 1, 2, SIZE / 2, QUEUE_MAX, 0x8000, 0x10000, 0xffffffff};
	struct raw_dev *d = &s->dev;

	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		for (u32 k = 0; k < s->queues; k++) {
			reg_set(d, REG_QUEUE_SEL, k);
			scribble(d, values[i]);
			reg_set(d, REG_QUEUE_READY, values[i]);
			if (reg_get(d, REG_QUEUE_READY) != (k < QUEUES && d->q[k].size))
				complain("queue %u: QueueReady is %u", k,
					reg_get(d, REG_QUEUE_READY));
		}
		if (!good(s))
			return FAIL;
	}
	return works_on(s);
}

/* ---- T12-T14 ---- */

static enum verdict t12_features_sel(struct scene *s)
{
	struct raw_dev *d = &s->dev;

	reg_set(d, REG_STATUS, 0);
	reg_set(d, REG_STATUS, S_ACK);
	reg_set(d, REG_STATUS, S_ACK | S_DRIVER);
	for (u32 i = 1; i < 34; i++) {
		u32 sel = i == 1 ? 3 : i == 33 ? 0xffffffff : 1u << (i - 1);

		reg_set(d, REG_DEVICE_FEATURES_SEL, sel);
		if (reg_get(d, REG_DEVICE_FEATURES))
			complain("features of word %x: %x", sel, reg_get(d, REG_DEVICE_FEATURES));
		reg_set(d, REG_DRIVER_FEATURES_SEL, sel);
		reg_set(d, REG_DRIVER_FEATURES, 0xffffffff);
	}
	reg_set(d, REG_STATUS, S_ACK | S_DRIVER | S_FEATURES_OK);
	if (!(reg_get(d, REG_STATUS) & S_FEATURES_OK))
		complain("features of other words count");
	return PASS;
}

static enum verdict t13_ack(struct scene *s)
{
	struct raw_dev *d = &s->dev;

	if (!told_request(s, 0, 0, true))
		return FAIL;
	reg_set(d, REG_INTERRUPT_ACK, ~(u32)INT_USED);
	reg_set(d, REG_INTERRUPT_ACK, 0);
	if (!(reg_get(d, REG_INTERRUPT_STATUS) & INT_USED))
		complain("acknowledging other bits clears this one");
	reg_set(d, REG_INTERRUPT_ACK, 0xffffffff);
	if (reg_get(d, REG_INTERRUPT_STATUS))
		complain("InterruptStatus is %x after an acknowledge",
			reg_get(d, REG_INTERRUPT_STATUS));
	return works_on(s);
}

#define CONFIG_BYTES 72 /* more than any device has that we know */

static void read_config(const struct scene *s, u8 bytes[CONFIG_BYTES + 8])
{
	for (u32 i = 0; i < CONFIG_BYTES + 8; i++)
		bytes[i] = (u8)load(s->dev.base_gpa + REG_CONFIG + i, 1);
}

/* Any width at any offset gives what single bytes give. */
static enum verdict t14_read(struct scene *s)
{
	static const u8 widths[] = {2, 4, 8};
	u8 bytes[CONFIG_BYTES + 8];
	u32 generation = reg_get(&s->dev, REG_CONFIG_GENERATION);

	read_config(s, bytes);
	for (u32 off = 0; off < CONFIG_BYTES; off++) {
		for (unsigned w = 0; w < 3; w++) {
			u64 v = load(s->dev.base_gpa + REG_CONFIG + off, widths[w]);

			if (memcmp(&v, bytes + off, widths[w]) != 0)
				complain("config at %u: %u bytes are not the bytes", off,
					widths[w]);
		}
	}
	for (u32 off = 0x400; off < WINDOW - 8; off += 0x1f7) {
		if (load(s->dev.base_gpa + off, 8))
			complain("there is config space at %x", off);
	}
	if (reg_get(&s->dev, REG_CONFIG_GENERATION) != generation)
		complain("ConfigGeneration moves");
	return works_on(s);
}

static enum verdict t14_write(struct scene *s)
{
	u8 before[CONFIG_BYTES + 8], after[CONFIG_BYTES + 8];

	read_config(s, before);
	for (u32 off = 0; off < CONFIG_BYTES; off++) {
		store(s->dev.base_gpa + REG_CONFIG + off, 1, (u8)~before[off]);
		store(s->dev.base_gpa + REG_CONFIG + off, 8, ~0ull);
	}
	read_config(s, after);
	if (memcmp(before, after, sizeof(before)) != 0)
		complain("config space was written");
	return works_on(s);
}

/* ---- T17: where nothing is ---- */

static enum verdict t17_memory(struct scene *s)
{
	static const u32 holes[] = {0xD0000000, 0xDFFFFFF8, 0xFED00000, 0xFFFFFFF8};

	for (unsigned n = 0; n < 200; n++) {
		for (unsigned i = 0; i < 4; i++) {
			unsigned width = 1u << (n % 4);
			u64 v = load(holes[i], width);

			if (v != ~0ull >> (64 - 8 * width))
				complain("%x, where nothing is, gives %lx", holes[i], v);
			store(holes[i], width, 0);
		}
	}
	return works_on(s);
}

static enum verdict t17_ports(struct scene *s)
{
	static const u16 ports[] = {0x60, 0x80, 0x2f8, 0x378, 0x510, 0xcf8, 0x1234, 0xffff};

	for (unsigned n = 0; n < 100; n++) {
		for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
			if (kit_inb(ports[i]) != 0xff)
				complain("port %x, where nothing is, answers", ports[i]);
			if (ports[i] != 0x80)
				kit_outb(ports[i], 0);
		}
	}
	return works_on(s);
}

const struct act acts_regs[] = {
	{"T01.read", ON_TX, WILL_PASS, t01_widths, R},
	{"T01.write", ON_TX, WILL_PASS, t01_widths, W},
	{"T02.read", ON_TX, WILL_PASS, t02_misaligned, R},
	{"T02.write", ON_TX, WILL_PASS, t02_misaligned, W},
	{"T02.ends", ON_TX, WILL_PASS, t02_window_ends},
	{"T03", ON_TX, WILL_PASS, t03_undefined},
	{"T04", ON_TX, WILL_PASS, t04_direction},
	{"T05", ON_TX, WILL_PASS, t05_selector, 1},
	{"T05.live", ON_TX, WILL_PASS, t05_selector, 0},
	{"T06.0", ON_TX, WILL_REJECT, t06_size, 0},
	{"T06.3", ON_TX, WILL_REJECT, t06_size, 3},
	{"T06.513", ON_TX, WILL_REJECT, t06_size, 513},
	{"T06.32768", ON_TX, WILL_REJECT, t06_size, 0x8000},
	{"T06.65536", ON_TX, WILL_REJECT, t06_size, 0x10000},
	{"T06.16bits", ON_TX, WILL_REJECT, t06_size, 0x10000 | SIZE},
	{"T06.max", ON_TX, WILL_REJECT, t06_size, 0xffffffff},
	{"T06.again", ON_TX, WILL_REJECT, t06_size, 1ull << 32 | 0x10000},
	{"T07.address", ON_TX, MAY_REJECT, t07_no_address},
	{"T07.size", ON_TX, WILL_REJECT, t07_no_size},
	{"T07.values", ON_TX, WILL_PASS, t07_values},
	{"T08", ON_TX, WILL_PASS, t08_live},
	{"T12", ON_TX, WILL_PASS, t12_features_sel},
	{"T13", ON_TX, WILL_PASS, t13_ack},
	{"T14.read", ON_TX, WILL_PASS, t14_read},
	{"T14.write", ON_TX, WILL_PASS, t14_write},
	{"T17.memory", ON_TX, WILL_PASS, t17_memory},
	{"T17.ports", ON_TX, WILL_PASS, t17_ports},
	{0},
};
