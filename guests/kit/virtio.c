/* SPDX-License-Identifier: Apache-2.0 */
/* virtio.c - see virtio.h. Register and ring layout: virtio 1.2, 4.2.2 and 2.7. */
#include "virtio.h"

#define MMIO_MAGIC               0x000
#define MMIO_VERSION             0x004
#define MMIO_DEVICE_ID           0x008
#define MMIO_DEVICE_FEATURES     0x010
#define MMIO_DEVICE_FEATURES_SEL 0x014
#define MMIO_DRIVER_FEATURES     0x020
#define MMIO_DRIVER_FEATURES_SEL 0x024
#define MMIO_QUEUE_SEL           0x030
#define MMIO_QUEUE_NUM_MAX       0x034
#define MMIO_QUEUE_NUM           0x038
#define MMIO_QUEUE_READY         0x044
#define MMIO_QUEUE_NOTIFY        0x050
#define MMIO_INTERRUPT_STATUS    0x060
#define MMIO_INTERRUPT_ACK       0x064
#define MMIO_STATUS              0x070
#define MMIO_QUEUE_DESC          0x080
#define MMIO_QUEUE_AVAIL         0x090
#define MMIO_QUEUE_USED          0x0a0
#define MMIO_CONFIG_GENERATION   0x0fc
#define MMIO_CONFIG              0x100

#define MAGIC "virt"

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER      2
#define STATUS_DRIVER_OK   4
#define STATUS_FEATURES_OK 8
#define STATUS_NEEDS_RESET 64

#define CAUSE_CONFIG 2 /* of an interrupt */

static u32 get(const struct virtio_dev *d, u32 reg)
{
	return kit_load32(d->base_gpa + reg);
}

static void set(const struct virtio_dev *d, u32 reg, u32 value)
{
	kit_store32(d->base_gpa + reg, value);
}

static void set64(const struct virtio_dev *d, u32 reg, u64 value)
{
	set(d, reg, (u32)value);
	set(d, reg + 4, (u32)(value >> 32));
}

/* "4K@0xc0001000:5": false if it is not that. */
static bool parse_device(const char *s, struct virtio_dev *d)
{
	strtoul(s, &s, 0);
	if (*s++ != '@')
		return false;
	d->base_gpa = strtoul(s, &s, 0);
	if (*s++ != ':')
		return false;
	d->gsi = (u32)strtoul(s, NULL, 0);
	return true;
}

bool virtio_find_nth(struct virtio_dev *d, u32 device_id, unsigned n)
{
	static const char key[] = "virtio_mmio.device=";
	const size_t key_len = sizeof(key) - 1;
	const char *pos = NULL, *word;
	u32 magic;
	size_t len;

	memcpy(&magic, MAGIC, sizeof(magic));
	while ((word = kit_next_word(&pos, &len))) {
		if (len <= key_len || memcmp(word, key, key_len) != 0)
			continue;
		if (parse_device(word + key_len, d) && get(d, MMIO_MAGIC) == magic &&
			get(d, MMIO_VERSION) == 2 && get(d, MMIO_DEVICE_ID) == device_id &&
			n-- == 0)
			return true;
	}
	return false;
}

bool virtio_find(struct virtio_dev *d, u32 device_id)
{
	return virtio_find_nth(d, device_id, 0);
}

bool virtio_begin(struct virtio_dev *d, u64 features)
{
	u64 offered;

	set(d, MMIO_STATUS, 0);
	set(d, MMIO_STATUS, STATUS_ACKNOWLEDGE);
	set(d, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	set(d, MMIO_DEVICE_FEATURES_SEL, 1);
	offered = (u64)get(d, MMIO_DEVICE_FEATURES) << 32;
	set(d, MMIO_DEVICE_FEATURES_SEL, 0);
	offered |= get(d, MMIO_DEVICE_FEATURES);
	if (!kit_flag("noeventidx"))
		features |= VIRTIO_F_EVENT_IDX;
	d->features = offered & (features | VIRTIO_F_VERSION_1);
	set(d, MMIO_DRIVER_FEATURES_SEL, 0);
	set(d, MMIO_DRIVER_FEATURES, (u32)d->features);
	set(d, MMIO_DRIVER_FEATURES_SEL, 1);
	set(d, MMIO_DRIVER_FEATURES, (u32)(d->features >> 32));
	set(d, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	return (d->features & VIRTIO_F_VERSION_1) && (get(d, MMIO_STATUS) & STATUS_FEATURES_OK);
}

bool virtio_queue(struct virtio_dev *d, struct virtq *q, u16 index, void *mem, u16 size)
{
	u64 at = (u64)mem;

	set(d, MMIO_QUEUE_SEL, index);
	if (get(d, MMIO_QUEUE_NUM_MAX) < size)
		return false;
	memset(mem, 0, VIRTQ_BYTES(size));
	memset(q, 0, sizeof(*q));
	q->dev = d;
	q->index = index;
	q->size = size;
	q->desc = mem;
	q->avail = (volatile u16 *)(at + VIRTQ_DESC_BYTES(size));
	q->used = (volatile u16 *)(at + VIRTQ_DESC_BYTES(size) + VIRTQ_AVAIL_BYTES(size));
	q->avail[2 + size] = 0xffff; /* used_event: as far away as can be, until virtq_arm() */
	set(d, MMIO_QUEUE_NUM, size);
	set64(d, MMIO_QUEUE_DESC, (u64)q->desc);
	set64(d, MMIO_QUEUE_AVAIL, (u64)q->avail);
	set64(d, MMIO_QUEUE_USED, (u64)q->used);
	set(d, MMIO_QUEUE_READY, 1);
	return true;
}

void virtio_go(struct virtio_dev *d)
{
	set(d, MMIO_STATUS,
		STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

u8 virtio_config8(const struct virtio_dev *d, u32 off)
{
	return kit_load8(d->base_gpa + MMIO_CONFIG + off);
}

u16 virtio_config16(const struct virtio_dev *d, u32 off)
{
	return kit_load16(d->base_gpa + MMIO_CONFIG + off);
}

u32 virtio_config32(const struct virtio_dev *d, u32 off)
{
	return get(d, MMIO_CONFIG + off);
}

u64 virtio_config64(const struct virtio_dev *d, u32 off)
{
	u32 generation;
	u64 value;

	do {
		generation = get(d, MMIO_CONFIG_GENERATION);
		value = virtio_config32(d, off) | (u64)virtio_config32(d, off + 4) << 32;
	} while (get(d, MMIO_CONFIG_GENERATION) != generation);
	return value;
}

bool virtio_config_changed(const struct virtio_dev *d)
{
	if (!(get(d, MMIO_INTERRUPT_STATUS) & CAUSE_CONFIG))
		return false;
	set(d, MMIO_INTERRUPT_ACK, CAUSE_CONFIG);
	return true;
}

bool virtio_needs_reset(const struct virtio_dev *d)
{
	return get(d, MMIO_STATUS) & STATUS_NEEDS_RESET;
}

void virtio_ack(const struct virtio_dev *d)
{
	u32 causes = get(d, MMIO_INTERRUPT_STATUS);

	if (causes)
		set(d, MMIO_INTERRUPT_ACK, causes);
}

void virtq_fill(volatile struct virtq_desc *desc, const volatile void *mem, u32 len, u16 flags,
	u16 next)
{
	desc->addr = (u64)mem;
	desc->len = len;
	desc->flags = flags;
	desc->next = next;
}

void virtq_set(struct virtq *q, u16 i, const volatile void *mem, u32 len, u16 flags, u16 next)
{
	virtq_fill(&q->desc[i], mem, len, flags, next);
}

void virtq_offer(struct virtq *q, u16 head)
{
	q->avail[2 + (q->avail_next++ & (q->size - 1))] = head;
}

void virtq_kick(struct virtq *q)
{
	u16 old = q->avail_told, new = q->avail_next;
	bool wanted;

	if (new == old)
		return;
	__atomic_thread_fence(__ATOMIC_RELEASE); /* ring entries before the index */
	q->avail[1] = new;
	q->avail_told = new;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index before looking whether to notify */
	if (q->dev->features & VIRTIO_F_EVENT_IDX) {
		u16 avail_event = q->used[2 + q->size * 4];

		wanted = (u16)(new - avail_event - 1) < (u16)(new - old);
	} else {
		wanted = !(q->used[0] & 1);
	}
	if (wanted)
		set(q->dev, MMIO_QUEUE_NOTIFY, q->index);
}

bool virtq_take(struct virtq *q, u16 *head, u32 *len)
{
	const volatile struct virtq_used *e;

	if (q->used[1] == q->used_seen)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	e = (const volatile struct virtq_used *)(q->used + 2) + (q->used_seen++ & (q->size - 1));
	*head = (u16)e->id;
	*len = e->len;
	return true;
}

bool virtq_ready(const struct virtq *q)
{
	return q->used[1] != q->used_seen;
}

bool virtq_arm_after(struct virtq *q, u16 n)
{
	q->avail[2 + q->size] = (u16)(q->used_seen + n - 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the wish before the last look */
	return (u16)(q->used[1] - q->used_seen) >= n;
}

bool virtq_arm(struct virtq *q)
{
	return virtq_arm_after(q, 1);
}

void virtq_wait(struct virtq *const *queues, unsigned count)
{
	bool ready = false;

	for (;;) {
		for (unsigned i = 0; i < count; i++)
			ready |= virtq_ready(queues[i]);
		if (kit_look_again(ready)) {
			if (ready)
				return;
			continue;
		}
		for (unsigned i = 0; i < count; i++)
			ready |= virtq_arm(queues[i]);
		if (!ready)
			kit_wait(KIT_FOREVER);
	}
}
