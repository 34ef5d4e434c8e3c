/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc.c - the interrupt chips and the timer of a PC, which KVM has itself: two 8259s, an I/O APIC,
 * an 8254. For guests that were built against them; ours does without.
 *
 * KVM_CREATE_IRQCHIP also makes the routing table such a machine wants: GSI n leads to pin n of the
 * I/O APIC, and below 16 to input n of the 8259s too. So an interrupt arrives whichever of the two
 * the guest programs, and the table is never set again. The PIT's line is GSI 0.
 *
 * Interrupts are KVM_IRQ_LINE, up and down, not irqfds: KVM leaves an irqfd that leads to a chip to
 * a worker thread. A guest that sleeps by vcpu_wait() would be woken before its interrupt is there,
 * see nothing, and sleep on in user space with the interrupt pending; and one could still be on its
 * way while a snapshot is taken. It is an edge; a guest that programs its pin as level may lose one
 * that comes before its EOI.
 *
 * The chips run on while the guest is paused. A tick of the PIT that falls between the reads of a
 * save may be in none of them; but loading a count starts it anew, so that the guest at worst waits
 * longer for a tick, or gets one too many.
 */
#include "vcpu/pc_int.h"

#include <errno.h>

#include "monitor/base/clock.h"

#define LVT_LINT0    0x350u /* in the local APIC page */
#define LVT_DELIVERY (7u << 8)
#define LVT_NMI      (4u << 8)

int pc_create(struct vm *vm, struct err *e)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

	if (kvm_call(vm->vm_fd, KVM_CREATE_IRQCHIP, NULL) < 0)
		return err_sys(e, errno, "KVM_CREATE_IRQCHIP");
	if (kvm_call(vm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(e, errno, "KVM_CREATE_PIT2");
	return 0;
}

void pc_pulse(struct vm *vm, unsigned gsi)
{
	struct kvm_irq_level up = {.irq = gsi, .level = 1}, down = {.irq = gsi};

	must(gsi < GSI_COUNT);
	/* One at a time: an edge on a line that another thread holds up would be none.
	 * syscalls[LV]: ioctl(KVM_IRQ_LINE) */
	pthread_mutex_lock(&vm->ioapic.lock);
	must(kvm_call(vm->vm_fd, KVM_IRQ_LINE, &up) == 0);
	must(kvm_call(vm->vm_fd, KVM_IRQ_LINE, &down) == 0);
	pthread_mutex_unlock(&vm->ioapic.lock);
}

bool pc_signal(struct vm *vm, unsigned gsi)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	/* syscalls[L]: ioctl(KVM_GET_IRQCHIP) */
	if (kvm_call(vm->vm_fd, KVM_GET_IRQCHIP, &chip) < 0 ||
		chip.chip.ioapic.redirtbl[gsi].fields.mask)
		return false;
	pc_pulse(vm, gsi);
	return true;
}

bool pc_ticks(struct vm *vm)
{
	struct kvm_pit_state2 pit;

	/* Whether a single shot was fired already, KVM does not tell.
	 * syscalls[V]: ioctl(KVM_GET_PIT2) */
	return kvm_call(vm->vm_fd, KVM_GET_PIT2, &pit) < 0 ||
		pit.channels[0].mode != PIT_MODE_NONE;
}

bool pc_wakes_halted(const struct kvm_lapic_state *lapic)
{
	u32 lvt = lapic_reg(lapic, LVT_LINT0);

	return !(lvt & LVT_MASKED) && (lvt & LVT_DELIVERY) == LVT_NMI;
}

int vm_save_pc(struct vm *vm, struct enc *out, struct err *e)
{
	struct kvm_irqchip chip[] = {{.chip_id = KVM_IRQCHIP_PIC_MASTER},
		{.chip_id = KVM_IRQCHIP_PIC_SLAVE}, {.chip_id = KVM_IRQCHIP_IOAPIC}};
	struct kvm_pit_state2 pit;
	struct pc_state s;
	s64 now = (s64)monotonic_ns();

	must(vm->chips == VM_CHIPS_PC);
	/* syscalls[L]: ioctl(KVM_GET_IRQCHIP), ioctl(KVM_GET_PIT2) */
	for (unsigned i = 0; i < ARRAY_SIZE(chip); i++)
		if (kvm_call(vm->vm_fd, KVM_GET_IRQCHIP, &chip[i]) < 0)
			return err_sys(e, errno, "KVM_GET_IRQCHIP");
	if (kvm_call(vm->vm_fd, KVM_GET_PIT2, &pit) < 0)
		return err_sys(e, errno, "KVM_GET_PIT2");
	s.pic[0] = chip[0].chip.pic;
	s.pic[1] = chip[1].chip.pic;
	s.ioapic = chip[2].chip.ioapic;
	for (unsigned i = 0; i < PIT_CHANNELS; i++) {
		s64 since = pit.channels[i].count_load_time;

		s.pit[i] = pit.channels[i];
		s.pit[i].count_load_time = since > 0 && since < now ? now - since : 0;
	}
	s.pit_flags = pit.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	pc_state_encode(&s, out);
	return out->oom ? err_sys(e, ENOMEM, "saving the interrupt chips") : 0;
}

int vm_load_pc(struct vm *vm, const void *data, size_t len, struct err *e)
{
	struct kvm_irqchip chip[] = {{.chip_id = KVM_IRQCHIP_PIC_MASTER},
		{.chip_id = KVM_IRQCHIP_PIC_SLAVE}, {.chip_id = KVM_IRQCHIP_IOAPIC}};
	struct kvm_pit_state2 pit = {.flags = 0};
	struct pc_state s;
	s64 now = (s64)monotonic_ns();
	int r = pc_state_decode(&s, data, len, e);

	must(vm->chips == VM_CHIPS_PC);
	if (r)
		return r;
	chip[0].chip.pic = s.pic[0];
	chip[1].chip.pic = s.pic[1];
	chip[2].chip.ioapic = s.ioapic;
	for (unsigned i = 0; i < PIT_CHANNELS; i++) {
		pit.channels[i] = s.pit[i];
		pit.channels[i].count_load_time = now - s.pit[i].count_load_time;
	}
	pit.flags = s.pit_flags;
	for (unsigned i = 0; i < ARRAY_SIZE(chip); i++)
		if (kvm_call(vm->vm_fd, KVM_SET_IRQCHIP, &chip[i]) < 0)
			return err_sys(e, errno, "KVM_SET_IRQCHIP");
	if (kvm_call(vm->vm_fd, KVM_SET_PIT2, &pit) < 0)
		return err_sys(e, errno, "KVM_SET_PIT2");
	return 0;
}

int vm_check_pc(const void *data, size_t len, struct err *e)
{
	struct pc_state s;

	return pc_state_decode(&s, data, len, e);
}
