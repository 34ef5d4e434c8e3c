/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmio.c - the virtio-mmio transport: everything about a device that is not what it does.
 *
 * Theory of operation
 *
 * The driver's side is a window of registers, listed in mmio_regs.def. vCPU threads bring each
 * access here; the loop brings kicks (virtio_process()) and completions. One mutex a device keeps
 * them apart. Only InterruptStatus and InterruptACK, which a busy guest uses for each interrupt,
 * are one atomic word without the lock.
 *
 * Trust. Every access is hostile: any offset, width and value at any time. A register is looked up
 * by offset and width, then its column `when` says whether a write counts in the present state.
 * What does not count is ignored (reads give 0) and counted in stats.bad_accesses. So queue
 * addresses and sizes cannot change under a running queue: they are writable only before the queue
 * is ready, and are checked as a whole when it becomes ready.
 *
 * Status walks along the edges of status_edges[] and nowhere else. Bits come one at a time, in the
 * specification's order, and only a reset takes them away:
 *
 *	0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK      (the driver)
 *	FEATURES_OK, DRIVER_OK -> NEEDS_RESET                       (us: a ring we cannot use)
 *	any -> FAILED                                               (the driver gives up)
 *	any -> 0                                                    (reset)
 *
 * A ready queue is live from DRIVER_OK until a reset, FAILED or NEEDS_RESET. Not being live, it
 * pops nothing and pushes nowhere (queue.c), so a device model cannot touch a ring by mistake.
 *
 * Reset. The kernel may be reading or writing guest memory for us when the driver resets. The
 * reset stops the queues at once, tells the model (which asks the loop to cancel), then waits on
 * `idle` until io_count is 0, with the lock released so that the loop can complete. The status is
 * not 0 before that, and writes by other vCPUs are ignored meanwhile. epoch tells a completion
 * that its chain belongs to a life that is over.
 *
 * Saved state is explicit little-endian fields, and hostile when it comes back: every field is
 * checked on its own and against the status, and a contradiction is refused by the field's name.
 */
#include "virtio/device.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "monitor/base/arith.h"
#include "monitor/base/cleanup.h"

#define MAGIC     0x74726976u /* "virt" */
#define VERSION   2u
#define VENDOR    0x4e564c4bu /* "KLVN" */
#define INT_BITS  ((u32)(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG))
#define NO_REGION UINT32_MAX /* of a shared memory region that is not there */

#define S_ACK      VIRTIO_CONFIG_S_ACKNOWLEDGE
#define S_DRIVER   (S_ACK | VIRTIO_CONFIG_S_DRIVER)
#define S_FEATURES (S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define S_OK       (S_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)
#define S_FAILED   VIRTIO_CONFIG_S_FAILED
#define S_BROKEN   VIRTIO_CONFIG_S_NEEDS_RESET

enum reg {
#define REG(name, off, access, when) REG_##name,
#include "virtio/mmio_regs.def"
#undef REG
	REG_COUNT
};

enum access { R = 1, W = 2, RW = 3 };
enum when { NEVER, ALWAYS, FEATURES, QUEUES, READY };

static const struct {
	enum access access;
	enum when when;
} reg_info[REG_COUNT] = {
#define REG(name, off, access, when) [REG_##name] = {access, when},
#include "virtio/mmio_regs.def"
#undef REG
};

/* Register number + 1 by offset / 4; 0 where there is nothing. */
static const u8 reg_at[VIRTIO_MMIO_CONFIG / 4] = {
#define REG(name, off, access, when) [(off) / 4] = REG_##name + 1,
#include "virtio/mmio_regs.def"
#undef REG
};

/* What the driver may write into Status, besides 0 and what is there already. */
static const struct {
	u8 from, to;
} status_edges[] = {
	{0, S_ACK},
	{S_ACK, S_DRIVER},
	{S_DRIVER, S_FEATURES},
	{S_FEATURES, S_OK},
	{0, S_FAILED},
	{S_ACK, S_ACK | S_FAILED},
	{S_DRIVER, S_DRIVER | S_FAILED},
	{S_FEATURES, S_FEATURES | S_FAILED},
	{S_OK, S_OK | S_FAILED},
	{S_FEATURES | S_BROKEN, S_FEATURES | S_BROKEN | S_FAILED},
	{S_OK | S_BROKEN, S_OK | S_BROKEN | S_FAILED},
};

static void count(u64 *stat)
{
	__atomic_fetch_add(stat, 1, __ATOMIC_RELAXED);
}

static u64 offered(const struct virtio_dev *d)
{
	return d->features | VIRTIO_MASK_VERSION_1 | VIRTIO_MASK_INDIRECT_DESC |
		VIRTIO_MASK_EVENT_IDX;
}

/* The selected queue, or NULL. */
static struct vq *selected(struct virtio_dev *d)
{
	return d->queue_sel < d->queue_count ? &d->queue[d->queue_sel] : NULL;
}

/* No ring is touched from here on. */
static void stop_queues(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->queue_count; i++)
		d->queue[i].live = false;
}

/* What the driver set up is gone; the device is as it was when it was made. */
static void forget(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->queue_count; i++)
		vq_reset(&d->queue[i]);
	d->status = 0;
	__atomic_store_n(&d->interrupt_status, 0, __ATOMIC_RELEASE);
	d->features_sel = d->driver_features_sel = d->queue_sel = 0;
	d->driver_features = 0;
	d->restored = false;
}

int virtio_init(struct virtio_dev *d, const struct virtio_ops *ops, const struct mem *mem,
	struct virtio_irq irq, struct err *e)
{
	must(ops->queue_count <= VIRTIO_QUEUES_MAX);
	must(ops->config_len <= VIRTIO_MMIO_WINDOW - VIRTIO_MMIO_CONFIG);
	must(ops->process && (!ops->config_len || ops->config_read));
	/* A blocking one: io_uring does not wait for descriptors that are O_NONBLOCK. */
	d->kick_fd = eventfd(0, EFD_CLOEXEC);
	if (d->kick_fd < 0)
		return err_sys(e, errno, "%s: cannot make an eventfd", ops->name);
	d->ops = ops;
	d->mem = mem;
	d->irq = irq;
	d->queue_count = ops->queue_count;
	d->features = ops->features;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		d->queue[i] = (struct vq){.mem = mem, .size_max = VQ_SIZE_MAX};
	must(!pthread_mutex_init(&d->lock, NULL));
	must(!pthread_cond_init(&d->idle, NULL));
	return 0;
}

void virtio_finish(struct virtio_dev *d)
{
	if (d->ring)
		ring_remove_watch(&d->watch);
	fd_close(&d->kick_fd);
	pthread_cond_destroy(&d->idle);
	pthread_mutex_destroy(&d->lock);
}

/* Interrupts. */

static void interrupt(struct virtio_dev *d, u32 bit)
{
	/* Also where the bit is set already: the line is edge-triggered, and a driver that acks
	 * after it looked at the ring would otherwise miss what we just added. */
	__atomic_fetch_or(&d->interrupt_status, bit, __ATOMIC_ACQ_REL);
	count(&d->stats.interrupts);
	d->irq.raise(d->irq.ctx, d->irq.line);
}

void virtio_used(struct virtio_dev *d, struct vq *q)
{
	if (vq_need_interrupt(q))
		interrupt(d, VIRTIO_MMIO_INT_VRING);
}

void virtio_used_soon(struct virtio_dev *d, struct vq *q)
{
	if (!d->ring) {
		virtio_used(d, q);
		return;
	}
	d->used_soon |= 1ull << (q - d->queue);
	ring_at_end(d->ring, &d->flush);
}

/* The turn is over: one interrupt for all it has used. */
static void flush(struct ring_task *t)
{
	struct virtio_dev *d = container_of(t, struct virtio_dev, flush);
	bool wanted = false;

	pthread_mutex_lock(&d->lock);
	for (; d->used_soon; d->used_soon &= d->used_soon - 1)
		wanted |= vq_need_interrupt(&d->queue[__builtin_ctzll(d->used_soon)]);
	if (wanted)
		interrupt(d, VIRTIO_MMIO_INT_VRING);
	pthread_mutex_unlock(&d->lock);
}

void virtio_config_changed(struct virtio_dev *d)
{
	d->config_generation++;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && !d->resetting)
		interrupt(d, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_fail(struct virtio_dev *d)
{
	if (d->resetting || (d->status != S_FEATURES && d->status != S_OK))
		return;
	d->status |= S_BROKEN;
	stop_queues(d);
	count(&d->stats.needs_reset);
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(d, VIRTIO_MMIO_INT_CONFIG);
}

/* The loop's side. */

bool virtio_live(const struct virtio_dev *d)
{
	return d->status == S_OK && !d->frozen && !d->resetting;
}

bool virtio_has(const struct virtio_dev *d, u64 f)
{
	return d->status & VIRTIO_CONFIG_S_FEATURES_OK && (d->driver_features & f) == f;
}

/* Makes the loop call virtio_process(), as a kick taken by the ioeventfd does. */
static void wake_loop(struct virtio_dev *d)
{
	u64 one = 1;

	/* Cannot block: the counter would have to stand at 2^64 - 2. syscalls[LV]: write */
	must(write(d->kick_fd, &one, sizeof(one)) == sizeof(one));
}

void virtio_schedule(struct virtio_dev *d)
{
	__atomic_store_n(&d->scheduled, true, __ATOMIC_RELEASE);
	wake_loop(d);
}

void virtio_process(struct virtio_dev *d)
{
	bool live, scheduled;

	pthread_mutex_lock(&d->lock);
	if (!d->frozen) {
		scheduled = __atomic_exchange_n(&d->scheduled, false, __ATOMIC_ACQ_REL);
		live = virtio_live(d);
		if (!scheduled)
			count(&d->stats.kicks);
		if (live && d->restored) {
			/* An interrupt under way when the VM was saved may be nowhere now. */
			d->restored = false;
			if (__atomic_load_n(&d->interrupt_status, __ATOMIC_ACQUIRE))
				d->irq.raise(d->irq.ctx, d->irq.line);
		}
		if (live || scheduled)
			d->ops->process(d);
	}
	pthread_mutex_unlock(&d->lock);
}

bool virtio_want_kick(struct virtio_dev *d, struct vq *q)
{
	if (d->ring)
		q->want = !vq_pending(q);
	return d->ring ? !q->want && q->live : vq_kicks_on(q);
}

void virtio_look_again(struct virtio_dev *d, struct vq *q)
{
	if (d->ring)
		q->want = true;
	else if (vq_kicks_on(q))
		virtio_schedule(d);
}

/*
 * Calls process() if a queue that the model waits for has something; with @arm the driver is asked
 * to kick for those that have not. The model must ask again: if it does not care any more, for a
 * queue that stays full, this must not go on for ever.
 */
static bool look_at_queues(struct virtio_dev *d, bool arm)
{
	bool found = false;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < d->queue_count && virtio_live(d); i++) {
		struct vq *q = &d->queue[i];

		if (!q->want || (arm && q->armed))
			continue;
		if (arm ? vq_kicks_on(q) : vq_pending(q)) {
			q->want = false;
			found = true;
		}
	}
	if (found)
		d->ops->process(d);
	pthread_mutex_unlock(&d->lock);
	return found;
}

static bool look(struct ring_watch *w)
{
	return look_at_queues(container_of(w, struct virtio_dev, watch), false);
}

static bool before_sleep(struct ring_watch *w)
{
	return look_at_queues(container_of(w, struct virtio_dev, watch), true);
}

void virtio_attach(struct virtio_dev *d, struct ring *ring)
{
	must(!d->ring);
	d->ring = ring;
	d->flush.run = flush;
	d->watch.look = look;
	d->watch.before_sleep = before_sleep;
	ring_add_watch(ring, &d->watch);
}

void virtio_freeze(struct virtio_dev *d)
{
	pthread_mutex_lock(&d->lock);
	d->frozen = true;
	pthread_mutex_unlock(&d->lock);
}

void virtio_thaw(struct virtio_dev *d)
{
	pthread_mutex_lock(&d->lock);
	d->frozen = false;
	pthread_mutex_unlock(&d->lock);
	virtio_schedule(d);
}

void virtio_io_begin(struct virtio_dev *d)
{
	d->io_count++;
}

void virtio_io_end(struct virtio_dev *d)
{
	must(d->io_count);
	if (!--d->io_count)
		pthread_cond_broadcast(&d->idle);
}

/* Status. */

static void reset(struct virtio_dev *d)
{
	d->resetting = true;
	d->epoch++;
	stop_queues(d);
	if (d->ops->reset)
		d->ops->reset(d);
	while (d->io_count)
		pthread_cond_wait(&d->idle, &d->lock);
	forget(d);
	d->resetting = false;
	count(&d->stats.resets);
}

static bool status_edge(u32 from, u32 to)
{
	for (size_t i = 0; i < ARRAY_SIZE(status_edges); i++) {
		if (status_edges[i].from == from && status_edges[i].to == to)
			return true;
	}
	return false;
}

/* From FEATURES_OK on the queues know what was negotiated. */
static void features_to_queues(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->queue_count; i++) {
		d->queue[i].event_idx = virtio_has(d, VIRTIO_MASK_EVENT_IDX);
		d->queue[i].indirect = virtio_has(d, VIRTIO_MASK_INDIRECT_DESC);
	}
}

/* DRIVER_OK. */
static void start(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->queue_count; i++) {
		struct vq *q = &d->queue[i];

		/* Checked before, but maybe by the process that saved us. */
		if (q->ready && !vq_enable(q)) {
			virtio_fail(d);
			return;
		}
	}
	if (d->ops->activate)
		d->ops->activate(d);
	/* Chains, and their kicks, may have come before. */
	virtio_schedule(d);
}

static void write_status(struct virtio_dev *d, u32 v)
{
	if (!v) {
		reset(d);
		return;
	}
	if (v == d->status)
		return;
	if (!status_edge(d->status, v)) {
		count(&d->stats.bad_accesses);
		return;
	}
	/* Leaving FEATURES_OK clear is how a device says no. VERSION_1 is not insisted on: drivers
	 * exist that never accept it, and this device behaves the same without. */
	if (v == S_FEATURES && d->driver_features & ~offered(d))
		return;
	d->status = v;
	if (v == S_FEATURES)
		features_to_queues(d);
	if (v & S_FAILED)
		stop_queues(d);
	if (v == S_OK)
		start(d);
}

/* Registers. */

static void set_low(u64 *v, u32 low)
{
	*v = (*v & ~(u64)UINT32_MAX) | low;
}

static void set_high(u64 *v, u32 high)
{
	*v = (*v & UINT32_MAX) | (u64)high << 32;
}

/* QueueReady; @q is in the state READY asks for. */
static void write_ready(struct virtio_dev *d, struct vq *q, u32 v)
{
	if (v > 1) {
		count(&d->stats.bad_accesses);
	} else if (!v) {
		q->ready = false;
	} else if (!q->ready) {
		/* Rings that we cannot use end the negotiation here, not at the first kick. */
		if (vq_enable(q)) {
			q->ready = true;
			q->live = false; /* until DRIVER_OK */
		} else {
			virtio_fail(d);
		}
	}
}

static bool write_counts(struct virtio_dev *d, enum when when)
{
	const struct vq *q = selected(d);

	switch (when) {
	case ALWAYS:
		return true;
	case FEATURES:
		return d->status == S_DRIVER;
	case QUEUES:
		return d->status == S_FEATURES && q && !q->ready;
	case READY:
		return d->status == S_FEATURES && q;
	case NEVER:
		break;
	}
	return false;
}

/* A write that counts in the present state. Under lock. */
static void write_reg(struct virtio_dev *d, enum reg r, u32 v)
{
	struct vq *q = selected(d);

	switch (r) {
	case REG_DEVICE_FEATURES_SEL:
		d->features_sel = v;
		break;
	case REG_DRIVER_FEATURES_SEL:
		d->driver_features_sel = v;
		break;
	case REG_DRIVER_FEATURES:
		if (d->driver_features_sel == 0)
			set_low(&d->driver_features, v);
		else if (d->driver_features_sel == 1)
			set_high(&d->driver_features, v);
		break;
	case REG_QUEUE_SEL:
		d->queue_sel = v;
		break;
	case REG_QUEUE_NUM:
		/* A size we do not do leaves the queue without one, and so never ready. */
		q->size = v <= q->size_max && is_pow2(v) ? (u16)v : 0;
		break;
	case REG_QUEUE_READY:
		write_ready(d, q, v);
		break;
	case REG_QUEUE_NOTIFY:
		if (v >= d->queue_count)
			count(&d->stats.bad_accesses);
		else
			wake_loop(d);
		break;
	case REG_STATUS:
		write_status(d, v);
		break;
	case REG_QUEUE_DESC_LOW:
		set_low(&q->desc_gpa, v);
		break;
	case REG_QUEUE_DESC_HIGH:
		set_high(&q->desc_gpa, v);
		break;
	case REG_QUEUE_DRIVER_LOW:
		set_low(&q->avail_gpa, v);
		break;
	case REG_QUEUE_DRIVER_HIGH:
		set_high(&q->avail_gpa, v);
		break;
	case REG_QUEUE_DEVICE_LOW:
		set_low(&q->used_gpa, v);
		break;
	case REG_QUEUE_DEVICE_HIGH:
		set_high(&q->used_gpa, v);
		break;
	default: /* SHM_SEL: there is no region to select */
		break;
	}
}

/* Under lock. */
static u32 read_reg(struct virtio_dev *d, enum reg r)
{
	const struct vq *q = selected(d);

	switch (r) {
	case REG_MAGIC_VALUE:
		return MAGIC;
	case REG_VERSION:
		return VERSION;
	case REG_DEVICE_ID:
		return d->ops->device_id;
	case REG_VENDOR_ID:
		return VENDOR;
	case REG_DEVICE_FEATURES:
		return d->features_sel < 2 ? (u32)(offered(d) >> (32 * d->features_sel)) : 0;
	case REG_QUEUE_NUM_MAX:
		return q ? q->size_max : 0;
	case REG_QUEUE_READY:
		return q && q->ready;
	case REG_STATUS:
		return d->status;
	case REG_CONFIG_GENERATION:
		return d->config_generation;
	case REG_SHM_LEN_LOW:
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return NO_REGION;
	default:
		return 0;
	}
}

/* The register at @off for a @len byte access of kind @a; REG_COUNT where there is none. */
static enum reg find_reg(u64 off, unsigned len, enum access a)
{
	unsigned n;

	if (len != 4 || off % 4 || off >= VIRTIO_MMIO_CONFIG)
		return REG_COUNT;
	n = reg_at[off / 4];
	return n && reg_info[n - 1].access & a ? (enum reg)(n - 1) : REG_COUNT;
}

void virtio_mmio_read(struct virtio_dev *d, u64 off, void *data, unsigned len)
{
	enum reg r = find_reg(off, len, R);
	u32 v;

	memset(data, 0, len);
	if (r == REG_INTERRUPT_STATUS) {
		v = __atomic_load_n(&d->interrupt_status, __ATOMIC_ACQUIRE);
		memcpy(data, &v, sizeof(v));
	} else if (r != REG_COUNT) {
		pthread_mutex_lock(&d->lock);
		v = read_reg(d, r);
		pthread_mutex_unlock(&d->lock);
		memcpy(data, &v, sizeof(v));
	} else if (off >= VIRTIO_MMIO_CONFIG && off - VIRTIO_MMIO_CONFIG < d->ops->config_len) {
		u32 at = (u32)(off - VIRTIO_MMIO_CONFIG);
		u32 left = d->ops->config_len - at;

		pthread_mutex_lock(&d->lock);
		d->ops->config_read(d, at, data, len < left ? len : left);
		pthread_mutex_unlock(&d->lock);
	} else {
		count(&d->stats.bad_accesses);
	}
}

static void write_config(struct virtio_dev *d, u64 off, const void *data, unsigned len)
{
	pthread_mutex_lock(&d->lock);
	if (d->ops->config_write && range_ok(off, len, d->ops->config_len) && !d->resetting)
		d->ops->config_write(d, (u32)off, data, len);
	else
		count(&d->stats.bad_accesses);
	pthread_mutex_unlock(&d->lock);
}

void virtio_mmio_write(struct virtio_dev *d, u64 off, const void *data, unsigned len)
{
	enum reg r = find_reg(off, len, W);
	u32 v;

	if (off >= VIRTIO_MMIO_CONFIG) {
		write_config(d, off - VIRTIO_MMIO_CONFIG, data, len);
		return;
	}
	if (r == REG_COUNT) {
		count(&d->stats.bad_accesses);
		return;
	}
	memcpy(&v, data, sizeof(v));
	if (r == REG_INTERRUPT_ACK) {
		__atomic_fetch_and(&d->interrupt_status, ~v, __ATOMIC_ACQ_REL);
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (!d->resetting && write_counts(d, reg_info[r].when))
		write_reg(d, r, v);
	else
		count(&d->stats.bad_accesses);
	pthread_mutex_unlock(&d->lock);
}

/* Snapshot. */

void virtio_save(struct virtio_dev *d, struct enc *out)
{
	pthread_mutex_lock(&d->lock);
	must(!d->io_count && !d->resetting);
	enc_u32(out, d->ops->device_id);
	enc_u32(out, d->queue_count);
	enc_u32(out, d->status);
	enc_u32(out, __atomic_load_n(&d->interrupt_status, __ATOMIC_ACQUIRE));
	enc_u32(out, d->config_generation);
	enc_u32(out, d->features_sel);
	enc_u32(out, d->driver_features_sel);
	enc_u32(out, d->queue_sel);
	enc_u64(out, d->driver_features);
	for (unsigned i = 0; i < d->queue_count; i++)
		vq_save(&d->queue[i], out);
	if (d->ops->save)
		d->ops->save(d, out);
	pthread_mutex_unlock(&d->lock);
}

/* Whether the status is one that a device can be in. */
static bool status_legal(u32 status)
{
	if (status == 0 || status == (S_FEATURES | S_BROKEN) || status == (S_OK | S_BROKEN))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(status_edges); i++) {
		if (status_edges[i].to == status)
			return true;
	}
	return false;
}

/* The fields that are not queues. */
static int load_fields(struct virtio_dev *d, struct dec *in, struct err *e)
{
	u32 device_id = dec_u32(in), queue_count = dec_u32(in);

	d->status = dec_u32(in);
	d->interrupt_status = dec_u32(in);
	d->config_generation = dec_u32(in);
	d->features_sel = dec_u32(in);
	d->driver_features_sel = dec_u32(in);
	d->queue_sel = dec_u32(in);
	d->driver_features = dec_u64(in);
	if (in->bad)
		return err_set(e, -EINVAL, "ends too early");
	if (device_id != d->ops->device_id)
		return err_set(e, -EINVAL, "device_id: %u, not %u", device_id, d->ops->device_id);
	if (queue_count != d->queue_count)
		return err_set(e, -EINVAL, "queue_count: %u, not %u", queue_count,
			d->queue_count);
	if (!status_legal(d->status))
		return err_set(e, -EINVAL, "status: 0x%x is no state of a device", d->status);
	if (d->interrupt_status & ~INT_BITS)
		return err_set(e, -EINVAL, "interrupt_status: unknown bits in 0x%x",
			d->interrupt_status);
	if (d->status & VIRTIO_CONFIG_S_FEATURES_OK && d->driver_features & ~offered(d))
		return err_set(e, -EINVAL, "driver_features: 0x%llx are not offered",
			(unsigned long long)(d->driver_features & ~offered(d)));
	return 0;
}

/* A queue against the status it was saved with. */
static int check_queue(const struct virtio_dev *d, const struct vq *q, struct err *e)
{
	if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK) &&
		(q->ready || q->size || q->desc_gpa || q->avail_gpa || q->used_gpa))
		return err_set(e, -EINVAL, "ready: set up, but the status is 0x%x", d->status);
	if (q->live != (q->ready && d->status == S_OK))
		return err_set(e, -EINVAL, "live: %u, but ready is %u and the status 0x%x", q->live,
			q->ready, d->status);
	return 0;
}

static int load_all(struct virtio_dev *d, struct dec *in, struct err *e)
{
	int r = load_fields(d, in, e);

	if (r)
		return r;
	features_to_queues(d);
	for (unsigned i = 0; i < d->queue_count; i++) {
		r = vq_load(&d->queue[i], in, e);
		if (!r)
			r = check_queue(d, &d->queue[i], e);
		if (r) {
			err_wrap(e, "queue %u", i);
			return r;
		}
	}
	if (d->ops->load) {
		r = d->ops->load(d, in, e);
		if (r)
			return r;
	}
	if (!dec_done(in))
		return err_set(e, -EINVAL, "length: %s", in->bad ? "too short" : "bytes left over");
	d->restored = d->status == S_OK;
	return 0;
}

int virtio_load(struct virtio_dev *d, const void *data, size_t len, struct err *e)
{
	struct dec in = dec_from(data, len);
	int r;

	pthread_mutex_lock(&d->lock);
	must(!d->status && !d->io_count);
	r = load_all(d, &in, e);
	if (r) {
		forget(d);
		err_wrap(e, "%s", d->ops->name);
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}
