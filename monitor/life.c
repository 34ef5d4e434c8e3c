/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.c - the life cycle of a machine: one table of legal edges, and what moves along them.
 *
 * Pausing is asynchronous: vm_pause() kicks the vCPUs, the last one to park posts EVENT_PARKED, and
 * the loop freezes the devices, so that a paused machine's memory does not change, and answers
 * whoever asked. The loop never waits for a vCPU, because a vCPU may be waiting for the loop.
 *
 * Stopping is asking first: a guest that has unmasked the power button's interrupt (acpi.c) has a
 * driver for it, and gets some time. Nobody can tell whether a program there cares. Guests without
 * ACPI never unmask it, so they are ended at once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "monitor/base/log.h"
#include "monitor/machine_int.h"
#include "monitor/panic.h"

#define CONSOLE_TAIL 16384u /* bytes in which a panic is looked for */
#define LAST_LINES   16u

static const char *const names[LIFE_COUNT] = {
#define X(id, name) [LIFE_##id] = name,
	LIFE_STATES(X)
#undef X
};

/* edges[from] has bit `to` for every legal step; any state may stop. */
#define TO(s) (1u << LIFE_##s)
static const u32 edges[LIFE_COUNT] = {
	[LIFE_NEW] = TO(CONFIGURED) | TO(STOPPED),
	[LIFE_CONFIGURED] = TO(RUNNING) | TO(STOPPED),
	[LIFE_RUNNING] = TO(PAUSED) | TO(STOPPED),
	[LIFE_PAUSED] = TO(RUNNING) | TO(SNAPSHOTTING) | TO(STOPPED),
	[LIFE_SNAPSHOTTING] = TO(PAUSED) | TO(STOPPED),
	[LIFE_STOPPED] = 0,
};

const char *life_name(enum life_state s)
{
	return s < LIFE_COUNT ? names[s] : "unknown";
}

bool life_is_name(const char *name)
{
	for (unsigned i = 0; name && i < LIFE_COUNT; i++)
		if (!strcmp(name, life_name((enum life_state)i)))
			return true;
	return false;
}

bool life_may(enum life_state from, enum life_state to)
{
	return from < LIFE_COUNT && to < LIFE_COUNT && (edges[from] & (1u << to));
}

void life_set(struct machine *m, enum life_state to)
{
	must(life_may(m->life, to));
	m->life = to;
}

static void answer(machine_done done, void *ctx, int code, const char *text)
{
	struct err e;

	if (code)
		err_set(&e, code, "%s", text);
	if (done)
		done(ctx, code ? &e : NULL);
}

void life_fail_waiters(struct machine *m, const char *why)
{
	unsigned n = m->pause_waiters;
	struct waiter w[WAITERS_MAX];

	memcpy(w, m->pause_waiter, sizeof(w));
	m->pause_waiters = 0;
	for (unsigned i = 0; i < n; i++)
		answer(w[i].done, w[i].ctx, -ESHUTDOWN, why);
}

void machine_pause(struct machine *m, machine_done done, void *ctx)
{
	if (m->life == LIFE_PAUSED) {
		answer(done, ctx, 0, NULL);
		return;
	}
	if (m->life != LIFE_RUNNING || m->stop_reason) {
		answer(done, ctx, -EBUSY, "the VM is not running");
		return;
	}
	if (m->pause_waiters == WAITERS_MAX) {
		answer(done, ctx, -EBUSY, "too many requests wait for this VM to pause");
		return;
	}
	m->pause_waiter[m->pause_waiters++] = (struct waiter){done, ctx};
	if (!m->pausing) {
		m->pausing = true;
		vm_pause(m->vm);
	}
}

void life_parked(struct machine *m)
{
	unsigned n = m->pause_waiters;
	struct waiter w[WAITERS_MAX];

	if (!m->pausing || m->life != LIFE_RUNNING)
		return;
	m->pausing = false;
	for (unsigned i = 0; i < m->device_count; i++)
		virtio_freeze(m->slot[i].dev);
	life_set(m, LIFE_PAUSED);
	log_line("paused");
	memcpy(w, m->pause_waiter, sizeof(w));
	m->pause_waiters = 0;
	for (unsigned i = 0; i < n; i++) {
		if (m->life == LIFE_RUNNING) /* an earlier one let it go on already */
			machine_pause(m, w[i].done, w[i].ctx);
		else
			answer(w[i].done, w[i].ctx, 0, NULL);
	}
}

void machine_resume(struct machine *m, machine_done done, void *ctx)
{
	if (m->life == LIFE_RUNNING && !m->pausing) {
		answer(done, ctx, 0, NULL);
		return;
	}
	if (m->life != LIFE_PAUSED || m->stop_reason) {
		answer(done, ctx, -EBUSY,
			m->pausing ? "the VM is just being paused" : "the VM is not paused");
		return;
	}
	life_set(m, LIFE_RUNNING);
	for (unsigned i = 0; i < m->device_count; i++)
		virtio_thaw(m->slot[i].dev);
	vm_resume(m->vm);
	log_line("resumed");
	answer(done, ctx, 0, NULL);
}

void life_stop(struct machine *m, enum stop_reason why)
{
	if (m->stop_reason || m->life == LIFE_STOPPED)
		return;
	m->stop_reason = why;
	life_fail_waiters(m, "the VM is being stopped");
	vm_stop(m->vm);
}

void machine_stop(struct machine *m, const char *why)
{
	log_line("asked to end: %s", why);
	life_stop(m, strcmp(why, "kill") == 0 ? STOP_KILLED : STOP_ASKED);
}

void life_button_done(struct ring_op *op, int res)
{
	struct machine *m = container_of(op, struct machine, button_op);

	if (res != -ETIME || m->life == LIFE_STOPPED)
		return;
	log_line("the guest did not power off in time");
	life_stop(m, STOP_ASKED);
}

void machine_power_off(struct machine *m, u64 wait_ns)
{
	if (!wait_ns || m->life != LIFE_RUNNING || m->pausing || !vm_signal(m->vm, BUTTON_GSI)) {
		machine_stop(m, "stop");
		return;
	}
	log_line("pressed the power button, with %llu ms to power off",
		(unsigned long long)(wait_ns / 1000000));
	if (!m->button_op.busy) /* an earlier press had its limit set */
		ring_timeout(m->ring, &m->button_op, &m->button_ts, wait_ns);
}

/*
 * A kernel that panics reboots, faults or halts, as it was told to; what it was, it says before on
 * its console. So what looks there like a panic is one.
 */
void life_read_console(struct machine *m)
{
	char text[CONSOLE_TAIL];
	size_t len;

	if (!m->serial || m->end.why == GUEST_POWER_OFF)
		return;
	len = serial_tail(m->serial, text, sizeof(text));
	panic_last_lines(text, len, LAST_LINES, m->last_lines, sizeof(m->last_lines));
	if (!panic_find(text, len, m->panic, sizeof(m->panic)))
		return;
	if (m->end.why != GUEST_REBOOT && m->end.why != GUEST_TRIPLE_FAULT &&
		m->end.why != GUEST_HALTED)
		return;
	m->end.why = GUEST_PANIC;
	m->end.regs[0] = 0; /* of how it ended itself */
	snprintf(m->end.detail, sizeof(m->end.detail), "%s", m->panic);
}

/*
 * 128 + n for failures; n from 63 up stays clear of the signals that end processes. `kelvin run
 * --help` lists them. A reboot is no success: a kernel that panics unseen asks for one too.
 */
int life_exit_status(const struct machine *m)
{
	switch (m->end.why) {
	case GUEST_RUNS: return 1;
	case GUEST_POWER_OFF: return m->end.status & 0xff;
	case GUEST_REBOOT: return 191;
	case GUEST_TRIPLE_FAULT: return 193;
	case GUEST_HALTED: return 194;
	case GUEST_KVM_INTERNAL: return 195;
	case GUEST_FAIL_ENTRY: return 196;
	case GUEST_UNKNOWN_EXIT: return 197;
	case GUEST_RUN_ERROR: return 198;
	case GUEST_PANIC: return 199;
	case GUEST_STOPPED: break;
	}
	switch (m->stop_reason) {
	case STOP_SIGNAL: return 128 + m->stop_signal;
	case STOP_KILLED: return 137;
	case STOP_TIMEOUT: return 192;
	case STOP_NONE:
	case STOP_ASKED: break;
	}
	return 0;
}

static void describe_end(const struct machine *m, char *out, size_t cap)
{
	if (m->end.why == GUEST_POWER_OFF) {
		snprintf(out, cap, "the guest powered off with status %d", m->end.status);
	} else if (m->end.why != GUEST_STOPPED) {
		snprintf(out, cap, "%s%s%s", guest_end_text(m->end.why),
			m->end.detail[0] ? ": " : "", m->end.detail);
	} else if (m->stop_reason == STOP_SIGNAL) {
		snprintf(out, cap, "stopped by signal %d (%s)", m->stop_signal,
			strsignal(m->stop_signal));
	} else if (m->stop_reason == STOP_TIMEOUT) {
		snprintf(out, cap, "its --timeout of %llu ms passed",
			(unsigned long long)(m->spec->timeout_ns / 1000000));
	} else {
		snprintf(out, cap, "%s", m->stop_reason == STOP_KILLED ? "killed by the operator"
								       : "stopped by the operator");
	}
}

void life_describe_end(const struct machine *m, char *out, size_t cap)
{
	size_t n;

	describe_end(m, out, cap);
	n = strlen(out);
	if (!m->serial && (m->end.why == GUEST_REBOOT || m->end.why == GUEST_TRIPLE_FAULT))
		snprintf(out + n, cap - n, " (with --console it can say why)");
	else if (m->panic[0] && m->end.why != GUEST_PANIC)
		snprintf(out + n, cap - n, "; before, its console said \"%s\"", m->panic);
}
