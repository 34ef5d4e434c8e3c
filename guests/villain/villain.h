/* SPDX-License-Identifier: Apache-2.0 */
/*
 * villain.h - what the files of the villain guest share.
 *
 *   ../villain.c   command line, list, the frame around each case, verdicts
 *   raw.c          registers and rings by hand: nothing here is well-behaved unless a case is
 *   guard.c        the memory a device is given, with patterns around it
 *   scene.c        a well-formed request that cases deform, and what may come of it
 *   aim_*.c        the device models a case can be aimed at
 *   q_*.c t_*.c v_*.c b_*.c n_*.c   the cases, by the letter of their id
 *
 * A case is a function that does one thing to one device and says how the device took it. Whoever
 * sees something that must never happen calls complain(): the first complaint makes the verdict
 * "fail", whatever the function returns. There is one thread and one case in the life of a VM, so
 * nothing is freed and most state is in one struct scene.
 */
#ifndef VILLAIN_H
#define VILLAIN_H

#include "kit/virtio.h"

/* ---- verdicts ---- */

enum verdict {
	PASS,   /* the device took it as something valid, or as nothing */
	REJECT, /* it refused, by NEEDS_RESET or by not becoming ready; a reset mended it */
	WEDGED, /* it does not work any more, not even after a reset */
	FAIL,   /* it did what it must never do */
	SKIP,   /* this machine cannot play the case */
	VERDICTS
};

/* Notes what must never happen; the first one stays. Returns false. */
bool complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Whether somebody did. */
bool complained(void);
/* Notes why a case cannot be played here. Returns SKIP. */
enum verdict skip(const char *why);

/* ---- registers (virtio 1.2, 4.2.2) ---- */

#define REG_MAGIC               0x000
#define REG_VERSION             0x004
#define REG_DEVICE_ID           0x008
#define REG_VENDOR_ID           0x00c
#define REG_DEVICE_FEATURES     0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES     0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL           0x030
#define REG_QUEUE_NUM_MAX       0x034
#define REG_QUEUE_NUM           0x038
#define REG_QUEUE_READY         0x044
#define REG_QUEUE_NOTIFY        0x050
#define REG_INTERRUPT_STATUS    0x060
#define REG_INTERRUPT_ACK       0x064
#define REG_STATUS              0x070
#define REG_QUEUE_DESC          0x080
#define REG_QUEUE_AVAIL         0x090
#define REG_QUEUE_USED          0x0a0
#define REG_SHM_SEL             0x0ac
#define REG_SHM_LEN             0x0b0
#define REG_SHM_BASE            0x0b8
#define REG_CONFIG_GENERATION   0x0fc
#define REG_CONFIG              0x100
#define WINDOW                  0x1000

#define S_ACK         1
#define S_DRIVER      2
#define S_DRIVER_OK   4
#define S_FEATURES_OK 8
#define S_BROKEN      0x40 /* DEVICE_NEEDS_RESET */
#define S_FAILED      0x80
#define S_ALL_OK      (S_ACK | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK)

#define INT_USED   1
#define INT_CONFIG 2

#define F_INDIRECT  VIRTIO_F_INDIRECT
#define F_EVENT_IDX VIRTIO_F_EVENT_IDX
#define F_VERSION_1 VIRTIO_F_VERSION_1
#define F_RINGS     (F_INDIRECT | F_EVENT_IDX | F_VERSION_1)

#define D_NEXT     VIRTQ_NEXT /* desc.flags */
#define D_WRITE    VIRTQ_WRITE
#define D_INDIRECT VIRTQ_INDIRECT

/* ---- raw.c ---- */

#define QUEUES   4   /* of a device that we set up */
#define QUEUE_MAX 256 /* of a queue */

struct raw_avail {
	u16 flags, idx, ring[]; /* then used_event */
};

struct raw_used {
	u16 flags, idx;
	struct virtq_used ring[]; /* then avail_event, 16 bits */
};

struct raw_queue {
	u16 index, size;
	volatile struct virtq_desc *desc;
	volatile struct raw_avail *avail;
	volatile struct raw_used *used;
	u16 posted; /* our count: avail.idx unless a case lies */
	u16 seen;   /* used entries taken */
	u16 ahead;  /* used_event is kept at seen + ahead; 0: an interrupt for whatever comes */
	u8 out[QUEUE_MAX]; /* how often each head is with the device */
	/* What the device must not change: copies of what was written by raw_desc(), raw_post().
	 * A case that writes into the rings by itself says so by raw_tamper(). */
	bool tampered;
	struct virtq_desc desc_copy[QUEUE_MAX];
	u16 avail_copy[QUEUE_MAX];
};

struct raw_dev {
	u64 base_gpa;
	u32 gsi;
	u64 offered, features;
	struct raw_queue q[QUEUES];
};

u32 reg_get(const struct raw_dev *d, u32 reg);
void reg_set(const struct raw_dev *d, u32 reg, u32 value);
void reg_set64(const struct raw_dev *d, u32 reg, u64 value);

/* Back to 0; false (and a complaint) if the device does not get there. */
bool raw_reset(struct raw_dev *d);
/* Reset, then up to FEATURES_OK with those of @want that are offered. False if the device says no;
 * raw_negotiate() complains then. */
bool raw_try(struct raw_dev *d, u64 want);
bool raw_negotiate(struct raw_dev *d, u64 want);
/* Lays out rings for queue @index in fresh memory; tells nobody. */
struct raw_queue *raw_rings(struct raw_dev *d, u16 index, u16 size);
/* Tells the device about them, and QueueReady = 1. */
void raw_ready(struct raw_dev *d, const struct raw_queue *q);
void raw_go(struct raw_dev *d);

void raw_desc(struct raw_queue *q, u16 i, u64 addr, u32 len, u16 flags, u16 next);
/* The case is about to write into @q's rings by hand. */
void raw_tamper(struct raw_queue *q);
/* Offers @head, index included. No kick. */
void raw_post(struct raw_queue *q, u16 head);
/* The next used entry; false where there is none. Complains about a head that is not with the
 * device, and gives it all the same. */
bool raw_take(struct raw_queue *q, u16 *head, u32 *len);
void raw_kick(const struct raw_dev *d, const struct raw_queue *q);
/* Kicks for what was posted since @before only if the device asks for it, as good drivers do. */
void raw_kick_politely(const struct raw_dev *d, const struct raw_queue *q, u16 before);
volatile u16 *raw_used_event(const struct raw_queue *q);

/* Whether INT_USED or INT_CONFIG is set within @ms. */
bool raw_interrupted(const struct raw_dev *d, u32 cause, unsigned ms);

enum event {
	NOTHING,
	USED,   /* a used entry is there to be taken */
	BROKEN, /* NEEDS_RESET */
};
/* Waits for the first of them, at most @ms (0: only looks). */
enum event raw_wait(struct raw_dev *d, const struct raw_queue *q, unsigned ms);

/* Of kit_cycles(), near enough: limits are an order of magnitude away from anything. */
#define TICKS_MS 3000000ull
#define SOON     2000       /* ms: for what must come */

/* ---- guard.c ---- */

#define FILL 0xa5 /* memory given to a device for writing holds this at first */

/* Memory the device may write; @align is a power of 2. Around it lies pattern. */
void *give(size_t len, size_t align);
/* The last @len bytes of RAM (below 3 GiB), at most a page, for the device to write. */
void *give_end(size_t len);
/* Memory the device may only read, with a copy of @content. */
void *show(const void *content, size_t len);
/* @mem, which show() gave, was changed by ourselves, or is the device's to change from now on. */
void show_again(void *mem);
void show_no_more(void *mem);
/* Complains if anything changed that must not. */
void guards_check(const struct raw_dev *d);
/* A new start: everything given so far is gone, with the queues of @d. The device must have been
 * reset: it may still write where it was told before. */
void guards_reset(struct raw_dev *d);
/* The first address behind RAM (of that below 3 GiB). */
u64 ram_end(void);

/* ---- what a case is aimed at ---- */

struct scene;

#define ON_BLK      1
#define ON_NET      2 /* its transmit queue */
#define ON_NET_RX   4
#define ON_VSOCK    8 /* its transmit queue */
#define ON_VSOCK_RX 16
#define ON_TX       (ON_BLK | ON_NET | ON_VSOCK)
#define ON_ALL      (ON_TX | ON_NET_RX | ON_VSOCK_RX)

struct aim {
	const char *name;
	u8 bit; /* ON_* */
	u32 device_id;
	u16 queue;       /* the one that cases deform */
	u64 features;    /* wanted, besides those of the rings */
	/* After FEATURES_OK: sets up all queues, the deformed one with @size, DRIVER_OK. */
	bool (*start)(struct scene *s, u16 size);
	/* Makes s->seg one well-formed request. */
	void (*request)(struct scene *s);
	/* Makes the device look at the queue: a kick, or something that it must report there. */
	void (*provoke)(struct scene *s);
	/* After the first start: waits until the host's side is ready, too. Optional. */
	void (*warm)(struct scene *s);
	/* The request in s->seg came back with @len bytes: is the answer right? Else complains. */
	bool (*answered)(struct scene *s, u32 len);
	/* Makes s->seg a well-formed request that costs the device little and has no answer. */
	void (*quick)(struct scene *s); /* of ON_TX */
	/* It came back though it was bad: did the device refuse it? Else complains. */
	bool (*refused)(struct scene *s, u32 len);
};

extern const struct aim aim_blk, aim_net, aim_net_rx, aim_vsock, aim_vsock_rx;

/* ---- scene.c ---- */

struct seg {
	u64 addr;
	u32 len;
	u16 flags; /* D_WRITE, and whatever a case adds */
};

#define SIZE      32         /* of the deformed queue, unless a case wants another */
#define GOOD_DESC (SIZE - 8) /* good requests use descriptors from here on */
#define SEGS      260

struct scene {
	const struct aim *aim;
	u64 arg; /* of the case */
	struct raw_dev dev;
	u16 queues;          /* of the device */
	struct raw_queue *q; /* that of the aim */
	struct seg seg[SEGS];
	unsigned segs;
	/* Of the aims. */
	u32 cid, port;
	u64 sectors, sector;
	volatile u8 *status;
	u8 mac[6];
};

/* Reset, negotiation with @features (as far as offered) and queues, up to DRIVER_OK. */
bool restart(struct scene *s, u16 size, u64 features);
/* The same as the device is started for a case. */
bool start(struct scene *s);
/* Counts the device's queues. */
void count_queues(struct scene *s);

/* Cuts the segments up until there are @count; false if they have too few bytes. */
bool split(struct scene *s, unsigned count);
/* Adds a segment at @at (0: in front). */
void insert(struct scene *s, unsigned at, u64 addr, u32 len, u16 flags);
/* Copies what the device wrote into the request's writable segments; returns how much. */
size_t gather(const struct scene *s, void *out, size_t cap);
/* Complains if something was written behind the first @len bytes. */
bool tail_untouched(const struct scene *s, size_t len);
/* Lays s->seg out as a chain in descriptors @first, @first + 1 ...; returns the last. */
u16 lay(struct scene *s, u16 first);
/* Lays s->seg out in an indirect table, in memory of its own; returns its address. */
volatile struct virtq_desc *lay_table(struct scene *s, unsigned entries);
/* Sets flags and next of descriptor @i, leaving the rest. */
void relink(struct raw_queue *q, u16 i, u16 flags, u16 next);

/* Waits for @head and checks the answer to the request in s->seg. */
bool finish(struct scene *s, u16 head);
/* One well-formed request, start to end. False, and a complaint, if it does not work. */
bool good(struct scene *s);
/* The same, after which the driver wants to be told (or not) as @flags and used_event say, which is
 * @ahead of the used entry to come; no other queue interrupts. The interrupt is waited for before
 * the entry is taken, so no second one comes; it is not acknowledged. */
bool told_request(struct scene *s, u16 ahead, u16 flags, bool want);

/*
 * The ends of most cases: what was posted is made known to the device, and then
 * must_break   it must go to NEEDS_RESET and leave the rings alone
 * must_refuse  @head must come back without having been carried out, and the device works on
 * must_work    @head must be carried out
 * may_break    any of these, in bounded time; what was posted comes back at most once
 */
enum verdict must_break(struct scene *s);
enum verdict must_refuse(struct scene *s, u16 head);
enum verdict must_work(struct scene *s, u16 head);
enum verdict may_break(struct scene *s);
/* The device says NEEDS_RESET: complains unless it tells the driver and keeps off its rings. */
enum verdict broken(struct scene *s);

/* ---- cases ---- */

enum expect { WILL_PASS, WILL_REJECT, MAY_REJECT };

struct act {
	const char *id; /* of the catalogue, then a dot and a word where there are several */
	u8 on;          /* ON_* */
	u8 expect;
	enum verdict (*play)(struct scene *s);
	u64 arg;
	const char *needs; /* what the host has to provide; NULL: nothing */
};

/* Each ends with an entry without id. */
extern const struct act acts_chain[], acts_indirect[], acts_ring[], acts_place[], acts_regs[],
	acts_life[], acts_packet[], acts_flow[], acts_request[], acts_effect[],
	acts_frames[], acts_flood[], acts_race[];

#endif
