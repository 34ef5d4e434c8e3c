/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - a virtio device behind the virtio-mmio version 2 transport (virtio 1.2, 4.2).
 *
 * A device model embeds struct virtio_dev and provides const ops; the transport (mmio.c) does
 * negotiation, queue setup, interrupts and the 4 KiB register window for all of them.
 *
 * Threads: device state belongs to the loop thread. A vCPU thread enters only through
 * virtio_mmio_read()/virtio_mmio_write(), which take dev->lock, except for InterruptStatus and
 * InterruptACK, which are one atomic word and take no lock. The loop takes dev->lock around every
 * look at a queue. A vCPU may wait for the loop (in a reset, for I/O in flight); the loop never
 * waits for a vCPU while it holds a device lock.
 */
#ifndef KELVIN_VIRTIO_DEVICE_H
#define KELVIN_VIRTIO_DEVICE_H

#include <linux/virtio_ids.h> /* VIRTIO_ID_* */
#include <pthread.h>

#include "virtio/queue.h"
#include "virtio/ring.h"

#define VIRTIO_MMIO_WINDOW 0x1000u
#define VIRTIO_MMIO_NOTIFY 0x50u
#define VIRTIO_QUEUES_MAX  33u /* 16 pairs of a network device and its control queue */

/* Feature masks. The kernel's headers have VIRTIO_F_* as bit numbers. */
#define VIRTIO_MASK_INDIRECT_DESC (1ull << 28)
#define VIRTIO_MASK_EVENT_IDX     (1ull << 29)
#define VIRTIO_MASK_VERSION_1     (1ull << 32)

struct virtio_dev;

struct virtio_ops {
	const char *name;     /* "vsock": for logs and snapshot sections */
	u32 device_id;        /* VIRTIO_ID_* */
	/* A model's constructor may change both in struct virtio_dev, after virtio_init(). */
	unsigned queue_count; /* at most VIRTIO_QUEUES_MAX */
	u64 features;         /* besides VERSION_1, INDIRECT_DESC and EVENT_IDX, which all have */

	/* Copies @len bytes of config space at @off; the range is inside config_len. Under lock,
	 * vCPU thread. Mandatory when config_len is not 0. */
	void (*config_read)(struct virtio_dev *d, u32 off, void *dst, u32 len);
	/* The same for a write; optional: without it config space is read-only. */
	void (*config_write)(struct virtio_dev *d, u32 off, const void *src, u32 len);
	u32 config_len;

	/* The driver set DRIVER_OK; queues are live. Under lock, vCPU thread; must not block and
	 * must not touch the ring: use virtio_schedule(). Optional. */
	void (*activate)(struct virtio_dev *d);
	/* The driver reset the device. Under lock, vCPU thread: forget guest addresses, mark
	 * connections for closing, must not touch the ring. I/O on guest memory still in flight is
	 * waited for by the transport (virtio_io_begin/end) before the queues are forgotten.
	 * Optional. */
	void (*reset)(struct virtio_dev *d);
	/* Queues may have work, or virtio_schedule() was called. Loop thread, under lock. */
	void (*process)(struct virtio_dev *d);

	/* The device's own part of a snapshot; VM paused, loop thread, under lock. */
	void (*save)(struct virtio_dev *d, struct enc *out);
	/* @in is hostile. Called on a fresh device after the transport part was loaded. */
	int (*load)(struct virtio_dev *d, struct dec *in, struct err *e);
	/* Frees the device. The ring is gone or idle. */
	void (*destroy)(struct virtio_dev *d);
};

/* How a device reaches the VM: an interrupt line. May be called by any thread. */
struct virtio_irq {
	void (*raise)(void *ctx, unsigned line);
	void *ctx;
	unsigned line;
};

/* What happened to a device that an operator may want to count. Relaxed atomics. */
struct virtio_stats {
	u64 kicks, interrupts, resets, needs_reset, rejected_chains, bad_accesses;
};

struct virtio_dev {
	const struct virtio_ops *ops;
	const struct mem *mem;
	struct virtio_irq irq;
	unsigned queue_count; /* of this instance; fixed once the guest runs */
	u64 features;         /* the same */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* io_count fell to 0 */

	u32 status;            /* VIRTIO_CONFIG_S_* */
	u32 interrupt_status;  /* atomic */
	u32 config_generation;
	u32 features_sel, driver_features_sel, queue_sel;
	u64 driver_features;   /* as the driver wrote them; frozen by FEATURES_OK */
	struct vq queue[VIRTIO_QUEUES_MAX];
	bool frozen;           /* the VM is paused; see virtio_freeze() */
	bool resetting;        /* a reset waits for I/O in flight; all writes are ignored */
	bool restored;         /* loaded live, and process() has not run since */
	bool scheduled;        /* atomic: virtio_schedule() since process() last ran */
	unsigned io_count;     /* operations on guest memory the kernel has now */
	u64 used_soon;         /* bit n: virtio_used_soon() for queue n since the turn began */
	struct ring *ring;     /* which looks at us; NULL: none, see virtio_attach() */
	struct ring_watch watch;
	struct ring_task flush;
	u32 epoch;             /* counts resets: an op started in an older epoch is void */
	int kick_fd;           /* eventfd, owned: ioeventfd of QueueNotify, and virtio_schedule() */
	struct virtio_stats stats;
};

/* Fills the generic part. @d is zeroed; queues get size_max VQ_SIZE_MAX. */
int virtio_init(struct virtio_dev *d, const struct virtio_ops *ops, const struct mem *mem,
	struct virtio_irq irq, struct err *e);
void virtio_finish(struct virtio_dev *d);
/*
 * Lets @ring look at the queues while it is awake, and collects interrupts until the end of its
 * turns. Loop thread, before the guest runs. The ring must outlive the device's last process().
 * Without it everything works too, with a kick and an interrupt for each chain.
 */
void virtio_attach(struct virtio_dev *d, struct ring *ring);

/* The 4 KiB register window. vCPU threads. @off < VIRTIO_MMIO_WINDOW; any @len 1..8 (T01, T02). */
void virtio_mmio_read(struct virtio_dev *d, u64 off, void *data, unsigned len);
void virtio_mmio_write(struct virtio_dev *d, u64 off, const void *data, unsigned len);

/*
 * Takes the lock and runs ops->process if the device is live or something was scheduled, unless it
 * is frozen. Loop thread; the kick_fd has been read. process() may so run on a device that is not
 * live (to close what a reset left behind): its queues are then empty to it.
 */
void virtio_process(struct virtio_dev *d);

/* Makes the loop call process() soon. Any thread. */
void virtio_schedule(struct virtio_dev *d);

/*
 * While the VM is paused its memory must not change: a frozen device is not live (virtio_live() is
 * false, process() is not called), but keeps everything, connections too. Thawing schedules it.
 * Loop thread; both take the lock.
 */
void virtio_freeze(struct virtio_dev *d);
void virtio_thaw(struct virtio_dev *d);

/* DRIVER_OK, not NEEDS_RESET or FAILED, no reset under way, not frozen. Under lock. */
bool virtio_live(const struct virtio_dev *d);
/* Whether the driver accepted feature bit mask @f. Under lock. */
bool virtio_has(const struct virtio_dev *d, u64 f);

/* Interrupts for used buffers on @q, if the driver wants one. Under lock. */
void virtio_used(struct virtio_dev *d, struct vq *q);
/* The same at the end of this turn of the loop, once for all that is pushed until then. */
void virtio_used_soon(struct virtio_dev *d, struct vq *q);
/*
 * The model found @q empty and stops looking: process() is to be called when there is more. True
 * if there is more already, so look again. The driver is asked to kick only when the loop is about
 * to sleep; until then the loop looks by itself. Call vq_kicks_off() before a drain. Under lock.
 */
bool virtio_want_kick(struct virtio_dev *d, struct vq *q);
/*
 * The model leaves what there may be in @q for the next turn of the loop: process() is to be called
 * then, without a kick. Under lock.
 */
void virtio_look_again(struct virtio_dev *d, struct vq *q);
/* Config changed: bumps the generation, raises the config interrupt. Under lock. */
void virtio_config_changed(struct virtio_dev *d);
/* A ring is broken: NEEDS_RESET and a config interrupt; no ring access until reset. Under lock. */
void virtio_fail(struct virtio_dev *d);

/* Brackets I/O that the kernel does on guest memory. Under lock, loop thread. */
void virtio_io_begin(struct virtio_dev *d);
void virtio_io_end(struct virtio_dev *d);

/* Whole snapshot state of transport and device; takes the lock. VM paused, io_count 0. */
void virtio_save(struct virtio_dev *d, struct enc *out);
int virtio_load(struct virtio_dev *d, const void *data, size_t len, struct err *e);

#endif
