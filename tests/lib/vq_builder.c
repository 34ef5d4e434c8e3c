/* SPDX-License-Identifier: Apache-2.0 */
/* vq_builder.c - see vq_builder.h */
#include "tests/lib/vq_builder.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/base/arith.h"

static void map_region(struct guest_ram *ram, u64 gpa, u64 len)
{
	unsigned i = ram->mem.region_count++;
	struct mem_region *r = &ram->mem.region[i];
	u8 *p;

	must(len && len % MEM_PAGE == 0);
	p = mmap(NULL, len + 2 * MEM_PAGE, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(p != MAP_FAILED);
	ram->guard[i] = p;
	*r = (struct mem_region){.gpa = gpa, .len = len, .hva = p + MEM_PAGE,
		.file_off = ram->mem.size};
	ram->mem.size += len;
	must(!ftruncate(ram->mem.fd, (off_t)ram->mem.size));
	p = mmap(r->hva, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ram->mem.fd,
		(off_t)r->file_off);
	must(p == r->hva);
}

void guest_ram_init(struct guest_ram *ram, u64 low_len, u64 high_len)
{
	*ram = (struct guest_ram){.mem.backing = MEM_MEMFD};
	ram->mem.fd = memfd_create("guest-ram", MFD_CLOEXEC);
	must(ram->mem.fd >= 0);
	map_region(ram, 0, low_len);
	if (high_len)
		map_region(ram, MEM_HIGH_GPA, high_len);
}

void guest_ram_finish(struct guest_ram *ram)
{
	for (unsigned i = 0; i < ram->mem.region_count; i++)
		munmap(ram->guard[i], ram->mem.region[i].len + 2 * MEM_PAGE);
	close(ram->mem.fd);
	*ram = (struct guest_ram){.mem.fd = -1};
}

void *guest_at(struct guest_ram *ram, u64 gpa, u64 len)
{
	void *p = mem_at(&ram->mem, gpa, len);

	must(p);
	return p;
}

void guest_write(struct guest_ram *ram, u64 gpa, const void *src, u64 len)
{
	memcpy(guest_at(ram, gpa, len), src, len);
}

void guest_read(struct guest_ram *ram, u64 gpa, void *dst, u64 len)
{
	memcpy(dst, guest_at(ram, gpa, len), len);
}

void guest_fill(struct guest_ram *ram, u64 gpa, u64 len, u8 byte)
{
	memset(guest_at(ram, gpa, len), byte, len);
}

bool guest_is(struct guest_ram *ram, u64 gpa, u64 len, u8 byte)
{
	const u8 *p = guest_at(ram, gpa, len);

	for (u64 i = 0; i < len; i++) {
		if (p[i] != byte)
			return false;
	}
	return true;
}

static void store16(const struct vqb *b, u64 gpa, u16 v)
{
	__atomic_store_n((u16 *)guest_at(b->ram, gpa, 2), v, __ATOMIC_RELEASE);
}

static u16 load16(const struct vqb *b, u64 gpa)
{
	return __atomic_load_n((u16 *)guest_at(b->ram, gpa, 2), __ATOMIC_ACQUIRE);
}

static u32 load32(const struct vqb *b, u64 gpa)
{
	return __atomic_load_n((u32 *)guest_at(b->ram, gpa, 4), __ATOMIC_RELAXED);
}

void vqb_init_at(struct vqb *b, struct guest_ram *ram, u64 desc_gpa, u64 avail_gpa, u64 used_gpa,
	u16 size)
{
	must(is_pow2(size) && size <= VQ_SIZE_MAX);
	memset(b, 0, offsetof(struct vqb, chain)); /* 128 KiB; chain_len says what counts */
	b->ram = ram;
	b->size = size;
	b->desc_gpa = desc_gpa;
	b->avail_gpa = avail_gpa;
	b->used_gpa = used_gpa;
	b->end_gpa = align_up(used_gpa + 6 + 8ull * size, MEM_PAGE);
	while (b->free_count < size) {
		b->free[b->free_count] = (u16)(size - 1 - b->free_count);
		b->free_count++;
	}
}

void vqb_init(struct vqb *b, struct guest_ram *ram, u64 gpa, u16 size)
{
	u64 avail_gpa = gpa + 16ull * size;
	u64 used_gpa = align_up(avail_gpa + 6 + 2ull * size, 4);

	must(gpa % MEM_PAGE == 0);
	vqb_init_at(b, ram, gpa, avail_gpa, used_gpa, size);
	guest_fill(ram, gpa, used_gpa + 6 + 8ull * size - gpa, 0);
}

void vqb_attach(const struct vqb *b, struct vq *q)
{
	q->mem = &b->ram->mem;
	q->size = b->size;
	q->desc_gpa = b->desc_gpa;
	q->avail_gpa = b->avail_gpa;
	q->used_gpa = b->used_gpa;
}

/* Word by word, so that a device that reads at the same time sees no torn field. */
static void write_desc(struct guest_ram *ram, u64 at_gpa, u64 gpa, u32 len, u16 flags, u16 next)
{
	struct vring_desc *d = guest_at(ram, at_gpa, sizeof(*d));

	__atomic_store_n(&d->addr, gpa, __ATOMIC_RELAXED);
	__atomic_store_n(&d->len, len, __ATOMIC_RELAXED);
	__atomic_store_n(&d->flags, flags, __ATOMIC_RELAXED);
	__atomic_store_n(&d->next, next, __ATOMIC_RELAXED);
}

void vqb_set_desc(struct vqb *b, u16 i, u64 gpa, u32 len, u16 flags, u16 next)
{
	write_desc(b->ram, b->desc_gpa + 16ull * i, gpa, len, flags, next);
}

void vqb_set_indirect(struct vqb *b, u64 table_gpa, u16 i, u64 gpa, u32 len, u16 flags, u16 next)
{
	write_desc(b->ram, table_gpa + 16ull * i, gpa, len, flags, next);
}

/* Takes @n free descriptors for a chain; the first is its head. */
static u16 take(struct vqb *b, u16 n)
{
	u16 head;

	must(n && n <= b->free_count);
	head = b->free[b->free_count - 1];
	b->chain_len[head] = n;
	for (u16 i = 0; i < n; i++)
		b->chain[head][i] = b->free[--b->free_count];
	return head;
}

u16 vqb_chain(struct vqb *b, const struct vqb_buf *buf, u16 n)
{
	u16 head = take(b, n);

	for (u16 i = 0; i < n; i++) {
		u16 flags = buf[i].device_writes ? VRING_DESC_F_WRITE : 0;
		u16 next = 0;

		if (i + 1 < n) {
			flags |= VRING_DESC_F_NEXT;
			next = b->chain[head][i + 1];
		}
		vqb_set_desc(b, b->chain[head][i], buf[i].gpa, buf[i].len, flags, next);
	}
	return head;
}

u16 vqb_chain_indirect(struct vqb *b, u64 table_gpa, const struct vqb_buf *buf, u16 n)
{
	u16 head = take(b, 1);

	must(n);
	for (u16 i = 0; i < n; i++) {
		u16 flags = buf[i].device_writes ? VRING_DESC_F_WRITE : 0;

		if (i + 1 < n)
			flags |= VRING_DESC_F_NEXT;
		vqb_set_indirect(b, table_gpa, i, buf[i].gpa, buf[i].len, flags, (u16)(i + 1));
	}
	vqb_set_desc(b, head, table_gpa, 16u * n, VRING_DESC_F_INDIRECT, 0);
	return head;
}

void vqb_set_avail_entry(struct vqb *b, u16 slot, u16 head)
{
	store16(b, b->avail_gpa + 4 + 2ull * slot, head);
}

void vqb_offer(struct vqb *b, u16 head)
{
	vqb_set_avail_entry(b, b->avail_idx % b->size, head);
	b->avail_idx++;
}

void vqb_publish(struct vqb *b)
{
	store16(b, b->avail_gpa + 2, b->avail_idx);
	/* A driver looks at avail_event, or the used flags, only after this is visible. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

u16 vqb_add(struct vqb *b, const struct vqb_buf *buf, u16 n)
{
	u16 head = vqb_chain(b, buf, n);

	vqb_offer(b, head);
	vqb_publish(b);
	return head;
}

u16 vqb_used_idx(const struct vqb *b)
{
	return load16(b, b->used_gpa + 2);
}

u16 vqb_used_waiting(const struct vqb *b)
{
	return (u16)(vqb_used_idx(b) - b->used_seen);
}

bool vqb_used(struct vqb *b, u16 *ret_head, u32 *ret_len)
{
	u64 elem_gpa = b->used_gpa + 4 + 8ull * (b->used_seen % b->size);
	u32 id;

	if (!vqb_used_waiting(b))
		return false;
	id = load32(b, elem_gpa);
	must(id < b->size);
	*ret_head = (u16)id;
	*ret_len = load32(b, elem_gpa + 4);
	b->used_seen++;
	for (u16 i = b->chain_len[id]; i--;)
		b->free[b->free_count++] = b->chain[id][i];
	b->chain_len[id] = 0;
	return true;
}

u16 vqb_used_flags(const struct vqb *b)
{
	return load16(b, b->used_gpa);
}

u16 vqb_avail_event(const struct vqb *b)
{
	return load16(b, b->used_gpa + 4 + 8ull * b->size);
}

void vqb_set_avail_idx(struct vqb *b, u16 idx)
{
	b->avail_idx = idx;
	vqb_publish(b);
}

void vqb_set_avail_flags(struct vqb *b, u16 flags)
{
	store16(b, b->avail_gpa, flags);
}

void vqb_set_used_event(struct vqb *b, u16 event)
{
	store16(b, b->avail_gpa + 4 + 2ull * b->size, event);
}

void vqb_set_used_idx(struct vqb *b, u16 idx)
{
	store16(b, b->used_gpa + 2, idx);
}

u32 drv_read(struct virtio_dev *d, u32 off)
{
	u32 v = 0;

	virtio_mmio_read(d, off, &v, sizeof(v));
	return v;
}

void drv_write(struct virtio_dev *d, u32 off, u32 value)
{
	virtio_mmio_write(d, off, &value, sizeof(value));
}

bool drv_negotiate(struct virtio_dev *d, u64 features)
{
	u32 status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

	drv_write(d, VIRTIO_MMIO_STATUS, 0);
	drv_write(d, VIRTIO_MMIO_STATUS, status);
	status |= VIRTIO_CONFIG_S_DRIVER;
	drv_write(d, VIRTIO_MMIO_STATUS, status);
	for (u32 i = 0; i < 2; i++) {
		drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		drv_write(d, VIRTIO_MMIO_DRIVER_FEATURES, (u32)(features >> (32 * i)));
	}
	status |= VIRTIO_CONFIG_S_FEATURES_OK;
	drv_write(d, VIRTIO_MMIO_STATUS, status);
	return drv_read(d, VIRTIO_MMIO_STATUS) == status;
}

bool drv_queue(struct virtio_dev *d, unsigned index, const struct vqb *b)
{
	drv_write(d, VIRTIO_MMIO_QUEUE_SEL, index);
	drv_write(d, VIRTIO_MMIO_QUEUE_NUM, b->size);
	drv_write(d, VIRTIO_MMIO_QUEUE_DESC_LOW, (u32)b->desc_gpa);
	drv_write(d, VIRTIO_MMIO_QUEUE_DESC_HIGH, (u32)(b->desc_gpa >> 32));
	drv_write(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (u32)b->avail_gpa);
	drv_write(d, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (u32)(b->avail_gpa >> 32));
	drv_write(d, VIRTIO_MMIO_QUEUE_USED_LOW, (u32)b->used_gpa);
	drv_write(d, VIRTIO_MMIO_QUEUE_USED_HIGH, (u32)(b->used_gpa >> 32));
	drv_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
	return drv_read(d, VIRTIO_MMIO_QUEUE_READY) == 1;
}

bool drv_start(struct virtio_dev *d)
{
	u32 status = drv_read(d, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK;

	drv_write(d, VIRTIO_MMIO_STATUS, status);
	return drv_read(d, VIRTIO_MMIO_STATUS) == status;
}

void drv_kick(struct virtio_dev *d, u32 index)
{
	drv_write(d, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

void drv_reset(struct virtio_dev *d)
{
	drv_write(d, VIRTIO_MMIO_STATUS, 0);
}
