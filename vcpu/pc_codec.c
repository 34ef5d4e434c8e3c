/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc_codec.c - the state of KVM's PIC, I/O APIC and PIT as bytes, and back.
 *
 * Every field is written by itself, little-endian, in the order of the tables below. Each comes
 * with its largest value: what a guest cannot have brought about through the chips' ports is
 * refused by its name, because KVM itself takes these fields as they are.
 *
 * What checks beyond a maximum: the I/O APIC must lie where it always is, since KVM answers at
 * whatever address its state says; and bits that the chip does not have are 0.
 */
#include "vcpu/pc_int.h"

#include <errno.h>
#include <inttypes.h>

#define AGE_MAX     (1ull << 62)
#define COUNT_MAX   0x10000u /* 0 written means this */
#define PINS_MASK   ((1u << GSI_COUNT) - 1)
/* What a guest can write, and what the chip tells: delivery status, remote IRR. */
#define RTE_KNOWN   (RTE_WRITABLE | 1u << 12 | 1u << 14)
/* Pins that exist only as edges: timer, keyboard, cascade; clock, coprocessor. */
#define ELCR_MASTER 0xf8u
#define ELCR_SLAVE  0xdeu

/* X(field, largest) of an 8259, all bytes */
#define PIC_FIELDS(X)                                                                              \
	X(last_irr, 0xff) X(irr, 0xff) X(imr, 0xff) X(isr, 0xff) X(priority_add, 7)                \
	X(irq_base, 0xf8) X(read_reg_select, 1) X(poll, 1) X(special_mask, 1) X(init_state, 3)     \
	X(auto_eoi, 1) X(rotate_on_auto_eoi, 1) X(special_fully_nested_mode, 1) X(init4, 1)        \
	X(elcr, 0xff) X(elcr_mask, 0xff)

/* X(bits, field, largest) of a channel of the 8254 */
#define PIT_FIELDS(X)                                                                              \
	X(32, count, COUNT_MAX) X(16, latched_count, 0xffff) X(8, count_latched, 4)                \
	X(8, status_latched, 1) X(8, status, 0xff) X(8, read_state, 4) X(8, write_state, 4)        \
	X(8, write_latch, 0xff) X(8, rw_mode, 3) X(8, mode, 0xff) X(8, bcd, 1) X(8, gate, 1)

static int refuse(struct err *e, const char *chip, const char *field, u64 value)
{
	return err_set(e, -EINVAL, "saved interrupt chips: %s: %s is %#" PRIx64, chip, field,
		value);
}

void pc_state_encode(const struct pc_state *s, struct enc *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->pic); i++) {
#define X(f, max) enc_u8(out, s->pic[i].f);
		PIC_FIELDS(X)
#undef X
	}
	enc_u64(out, s->ioapic.base_address);
	enc_u32(out, s->ioapic.ioregsel);
	enc_u32(out, s->ioapic.id);
	enc_u32(out, s->ioapic.irr);
	for (unsigned i = 0; i < GSI_COUNT; i++)
		enc_u64(out, s->ioapic.redirtbl[i].bits);
	for (unsigned i = 0; i < PIT_CHANNELS; i++) {
#define X(bits, f, max) enc_u##bits(out, s->pit[i].f);
		PIT_FIELDS(X)
#undef X
		enc_u64(out, (u64)s->pit[i].count_load_time);
	}
	enc_u32(out, s->pit_flags);
}

static int decode_pic(struct kvm_pic_state *p, struct dec *d, bool slave, struct err *e)
{
	const char *name = slave ? "slave PIC" : "master PIC";
	u8 elcr_mask = slave ? ELCR_SLAVE : ELCR_MASTER;

	*p = (struct kvm_pic_state){0};
#define X(f, max) p->f = dec_u8(d);
	PIC_FIELDS(X)
#undef X
#define X(f, max)                                                                                  \
	if (p->f > (max))                                                                          \
		return refuse(e, name, #f, p->f);
	PIC_FIELDS(X)
#undef X
	if (p->irq_base & 7)
		return refuse(e, name, "irq_base", p->irq_base);
	if (!d->bad && p->elcr_mask != elcr_mask)
		return refuse(e, name, "elcr_mask", p->elcr_mask);
	if (p->elcr & ~p->elcr_mask)
		return refuse(e, name, "elcr", p->elcr);
	return 0;
}

static int decode_ioapic(struct kvm_ioapic_state *io, struct dec *d, struct err *e)
{
	*io = (struct kvm_ioapic_state){.base_address = dec_u64(d)};
	io->ioregsel = dec_u32(d);
	io->id = dec_u32(d);
	io->irr = dec_u32(d);
	for (unsigned i = 0; i < GSI_COUNT; i++) {
		io->redirtbl[i].bits = dec_u64(d);
		if (io->redirtbl[i].bits & ~RTE_KNOWN)
			return refuse(e, "IOAPIC", "a pin", io->redirtbl[i].bits);
	}
	if (!d->bad && io->base_address != IOAPIC_GPA)
		return refuse(e, "IOAPIC", "base_address", io->base_address);
	if (io->ioregsel > 0xff)
		return refuse(e, "IOAPIC", "ioregsel", io->ioregsel);
	if (io->id > 0xf)
		return refuse(e, "IOAPIC", "id", io->id);
	if (io->irr & ~PINS_MASK)
		return refuse(e, "IOAPIC", "irr", io->irr);
	return 0;
}

static int decode_pit(struct kvm_pit_channel_state *c, struct dec *d, struct err *e)
{
	u64 age_ns;

	*c = (struct kvm_pit_channel_state){0};
#define X(bits, f, max) c->f = dec_u##bits(d);
	PIT_FIELDS(X)
#undef X
	age_ns = dec_u64(d);
#define X(bits, f, max)                                                                            \
	if (c->f > (max))                                                                          \
		return refuse(e, "PIT", #f, c->f);
	PIT_FIELDS(X)
#undef X
	if (c->mode > 7 && c->mode != PIT_MODE_NONE)
		return refuse(e, "PIT", "mode", c->mode);
	if (age_ns > AGE_MAX)
		return refuse(e, "PIT", "the count's age", age_ns);
	c->count_load_time = (s64)age_ns;
	return 0;
}

int pc_state_decode(struct pc_state *s, const void *data, size_t len, struct err *e)
{
	struct dec d = dec_from(data, len);
	int r = decode_pic(&s->pic[0], &d, false, e);

	if (!r)
		r = decode_pic(&s->pic[1], &d, true, e);
	if (!r)
		r = decode_ioapic(&s->ioapic, &d, e);
	for (unsigned i = 0; i < PIT_CHANNELS && !r; i++)
		r = decode_pit(&s->pit[i], &d, e);
	if (r)
		return r;
	s->pit_flags = dec_u32(&d);
	if (s->pit_flags & ~(u32)KVM_PIT_FLAGS_SPEAKER_DATA_ON)
		return refuse(e, "PIT", "flags", s->pit_flags);
	return dec_done(&d) ? 0
			    : err_set(e, -EINVAL, "saved interrupt chips: wrong length %zu", len);
}
