/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc_int.h - KVM's own PIC, I/O APIC and PIT as plain data, and as bytes of a snapshot.
 *
 * pc.c moves the data in and out of KVM, pc_codec.c checks and encodes it without KVM.
 */
#ifndef KELVIN_VCPU_PC_INT_H
#define KELVIN_VCPU_PC_INT_H

#include "vcpu/vcpu_int.h"

#define PIT_CHANNELS   3u
#define PIT_MODE_NONE  0xffu /* KVM's: not programmed since reset */
/* The kernel has it since 5.19. */
#ifndef KVM_PIT_FLAGS_SPEAKER_DATA_ON
#define KVM_PIT_FLAGS_SPEAKER_DATA_ON 0x00000002
#endif

struct pc_state {
	struct kvm_pic_state pic[2]; /* master, slave */
	struct kvm_ioapic_state ioapic;
	/* count_load_time is the age of the count here, ns; KVM's is a time of this host. */
	struct kvm_pit_channel_state pit[PIT_CHANNELS];
	u32 pit_flags;
};

void pc_state_encode(const struct pc_state *s, struct enc *out);
int pc_state_decode(struct pc_state *s, const void *data, size_t len, struct err *e);

#endif
