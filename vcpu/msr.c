/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msr.c - model-specific registers: which are saved, and which may be refused on load.
 *
 * Saved is what KVM lists (KVM_GET_MSR_INDEX_LIST) and lets us read on this vCPU; a register that
 * belongs to a feature our CPUID policy hides cannot be read and is left out.
 *
 * Loaded is only what KVM lists here, so that a file can never reach a register KVM did not mean
 * to be set. A register that KVM does not list (and that is not 0), or refuses to set (and that the
 * fresh vCPU does not hold already), stops the load with its number, unless it is in the table
 * `refusable`.
 */
#include "vcpu/vcpu_int.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

static const u32 refusable[] = {
	/* IA32_FEATURE_CONTROL: locks VMX and SGX, which no guest of ours has; PVM refuses it. */
	0x3a,
	/* IA32_PERF_CAPABILITIES: of a PMU that no guest of ours has, but that some KVMs read out
	 * all the same, each what its host offers. */
	0x345,
};

static bool is_refusable(u32 index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refusable); i++)
		if (refusable[i] == index)
			return true;
	return false;
}

int msr_list_get(int kvm_fd, struct msr_list *ret, struct err *e)
{
	_Static_assert(sizeof(struct kvm_msr_list) == sizeof(u32) &&
		offsetof(struct msr_list, index) == sizeof(u32), "laid out as KVM wants it");

	ret->count = MSR_MAX;
	/* syscalls[L]: ioctl(KVM_GET_MSR_INDEX_LIST) */
	if (kvm_call(kvm_fd, KVM_GET_MSR_INDEX_LIST, ret) < 0)
		return err_sys(e, errno, "KVM_GET_MSR_INDEX_LIST");
	return 0;
}

struct kvm_msr_entry *msr_find(struct msr_table *t, u32 index)
{
	for (u32 i = 0; i < t->head.nmsrs; i++)
		if (t->entry[i].index == index)
			return &t->entry[i];
	return NULL;
}

void msr_forget(struct msr_table *t, u32 index)
{
	struct kvm_msr_entry *m = msr_find(t, index);

	if (m)
		memmove(m, m + 1, (size_t)(&t->entry[t->head.nmsrs--] - (m + 1)) * sizeof(*m));
}

/* The TSC deadline is in guest TSC units, so it must be set after the TSC. */
static void deadline_last(struct msr_table *t)
{
	struct kvm_msr_entry *d = msr_find(t, MSR_TSC_DEADLINE), copy;
	size_t after;

	if (!d)
		return;
	copy = *d;
	after = (size_t)(&t->entry[t->head.nmsrs] - (d + 1));
	memmove(d, d + 1, after * sizeof(*d));
	d[after] = copy;
}

int msr_read_all(int vcpu_fd, const struct msr_list *list, struct msr_table *ret, struct err *e)
{
	struct msr_table t;
	u32 next = 0, kept = 0;

	while (next < list->count) {
		u32 want = list->count - next;
		int got;

		t.head = (struct kvm_msrs){.nmsrs = want};
		for (u32 i = 0; i < want; i++)
			t.entry[i] = (struct kvm_msr_entry){.index = list->index[next + i]};
		got = kvm_call(vcpu_fd, KVM_GET_MSRS, &t); /* syscalls[L]: ioctl(KVM_GET_MSRS) */
		if (got < 0)
			return err_sys(e, errno, "KVM_GET_MSRS");
		memcpy(&ret->entry[kept], t.entry, (size_t)got * sizeof(t.entry[0]));
		kept += (u32)got;
		next += (u32)got + 1; /* the one it stopped at does not exist on this vCPU */
	}
	ret->head = (struct kvm_msrs){.nmsrs = kept};
	deadline_last(ret);
	return 0;
}

int msr_check(struct msr_table *t, const struct msr_list *list, struct err *e)
{
	u32 at = 0, kept = 0;

	for (u32 i = 0; i < t->head.nmsrs; i++) {
		const struct kvm_msr_entry *m = &t->entry[i];
		u32 tried = 0;

		/* Both lists mostly have the same order: the next one is the one. */
		while (tried < list->count && list->index[at] != m->index) {
			at = at + 1 < list->count ? at + 1 : 0;
			tried++;
		}
		if (tried < list->count)
			t->entry[kept++] = *m;
		else if (m->data && !is_refusable(m->index))
			return err_set(e, -ENOTSUP, "the saved CPU has register 0x%x = 0x%llx, "
				"which KVM on this host does not have", m->index, m->data);
	}
	t->head.nmsrs = kept;
	return 0;
}

/* Whether the load may go on without @m, which KVM just refused. */
static bool may_refuse(int vcpu_fd, const struct kvm_msr_entry *m)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} now = {.head = {.nmsrs = 1}, .entry = {.index = m->index}};

	if (is_refusable(m->index))
		return true;
	if (!m->data)
		return kvm_call(vcpu_fd, KVM_GET_MSRS, &now) != 1 || !now.entry.data;
	return kvm_call(vcpu_fd, KVM_GET_MSRS, &now) == 1 && now.entry.data == m->data;
}

int msr_write_all(int vcpu_fd, struct msr_table *t, struct err *e)
{
	while (t->head.nmsrs) {
		u32 left = t->head.nmsrs;
		struct kvm_msr_entry m;
		int done = kvm_call(vcpu_fd, KVM_SET_MSRS, t);

		if (done < 0)
			return err_sys(e, errno, "KVM_SET_MSRS");
		if ((u32)done >= left)
			break;
		m = t->entry[done];
		if (!may_refuse(vcpu_fd, &m))
			return err_set(e, -ENOTSUP, "KVM on this host refuses to set register "
				"0x%x to 0x%llx", m.index, m.data);
		left -= (u32)done + 1;
		memmove(t->entry, &t->entry[done + 1], left * sizeof(t->entry[0]));
		t->head.nmsrs = left;
	}
	return 0;
}
