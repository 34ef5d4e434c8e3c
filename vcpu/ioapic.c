/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ioapic.c - an 82093AA I/O APIC with 24 pins, every one of them edge-triggered.
 *
 * KVM keeps the local APICs; this is the other half of a split irqchip. A pin is a message: what
 * the guest writes into a redirection entry says what MSI an edge sends. Nothing of ours is
 * level-triggered, so there is no remote IRR and no EOI to wait for; a guest that programs "level"
 * reads it back and gets edges all the same. As on the real chip an edge on a masked pin is lost.
 *
 * Trust: every access comes from the guest. Only 32-bit accesses to the two registers that exist
 * do anything; others read as all ones and write nothing.
 */
#include "vcpu/vcpu_int.h"

#include <string.h>

#define REG_SELECT 0x00u
#define REG_WINDOW 0x10u

#define IDX_ID      0x00u
#define IDX_VERSION 0x01u
#define IDX_ARB     0x02u
#define IDX_RTE     0x10u

#define VERSION ((GSI_COUNT - 1) << 16 | 0x11u) /* no EOI register */

void ioapic_init(struct ioapic *io)
{
	pthread_mutex_init(&io->lock, NULL);
	io->id = 0;
	io->select = 0;
	for (unsigned i = 0; i < GSI_COUNT; i++)
		io->rte[i] = RTE_MASKED;
}

void ioapic_finish(struct ioapic *io)
{
	pthread_mutex_destroy(&io->lock);
}

static u32 window_read(const struct ioapic *io)
{
	unsigned pin = (io->select - IDX_RTE) / 2;
	u64 rte;

	switch (io->select) {
	case IDX_ID:
	case IDX_ARB:
		return io->id;
	case IDX_VERSION:
		return VERSION;
	}
	if (io->select < IDX_RTE || pin >= GSI_COUNT)
		return UINT32_MAX;
	rte = __atomic_load_n(&io->rte[pin], __ATOMIC_RELAXED);
	return io->select & 1 ? (u32)(rte >> 32) : (u32)rte;
}

/* Whether a pin sends something else now. */
static bool window_write(struct ioapic *io, u32 value)
{
	unsigned pin = (io->select - IDX_RTE) / 2;
	u64 rte, old;

	if (io->select == IDX_ID)
		io->id = value & IOAPIC_ID_MASK;
	if (io->select < IDX_RTE || pin >= GSI_COUNT)
		return false;
	rte = old = io->rte[pin];
	if (io->select & 1)
		rte = (rte & UINT32_MAX) | (u64)value << 32;
	else
		rte = (rte & ~(u64)UINT32_MAX) | value;
	rte &= RTE_WRITABLE;
	__atomic_store_n(&io->rte[pin], rte, __ATOMIC_RELEASE);
	return rte != old && !(rte & old & RTE_MASKED);
}

bool ioapic_mmio(struct ioapic *io, u64 off, u8 *data, unsigned len, bool write)
{
	bool changed = false;
	u32 value;

	if (len != sizeof(value) || (off != REG_SELECT && off != REG_WINDOW))
		return false;
	memcpy(&value, data, sizeof(value));
	pthread_mutex_lock(&io->lock);
	if (!write)
		value = off == REG_SELECT ? io->select : window_read(io);
	else if (off == REG_SELECT)
		io->select = (u8)value;
	else
		changed = window_write(io, value);
	pthread_mutex_unlock(&io->lock);
	if (!write)
		memcpy(data, &value, sizeof(value));
	return changed;
}

bool ioapic_masked(const struct ioapic *io, unsigned gsi)
{
	return __atomic_load_n(&io->rte[gsi], __ATOMIC_ACQUIRE) & RTE_MASKED;
}

bool ioapic_msi(const struct ioapic *io, unsigned gsi, struct kvm_irq_routing_msi *ret)
{
	u64 rte = __atomic_load_n(&io->rte[gsi], __ATOMIC_ACQUIRE);

	if (rte & RTE_MASKED)
		return false;
	*ret = (struct kvm_irq_routing_msi){
		/* Destination id and mode. */
		.address_lo = (u32)LAPIC_GPA | (u32)(rte >> 56) << 12 | (u32)(rte >> 11 & 1) << 2,
		/* Vector and delivery mode; trigger mode 0, an edge, whatever the guest set. */
		.data = (u32)(rte & 0x7ff),
	};
	return true;
}
