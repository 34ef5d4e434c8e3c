/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.c - what answers at addresses that are not RAM: the doorbell page, the virtio-mmio windows,
 * with --console one 16550, in a pc a clock and a keyboard controller, and in the other machine
 * that controller's command to reset. Everything else reads as all ones and is counted.
 *
 * Runs on vCPU threads. The doorbell (stores; loads give 0):
 *   0x00 ready  1 to 4 bytes, 123: the guest is ready (Firecracker's boot timer stores one)
 *   0x04 power  4 bytes: end the VM with this exit status
 *   0x08 wait   8 bytes: sleep until a device interrupt, or so many nanoseconds; all ones: for ever
 *   0x10 ACPI   1 byte each: sleep control, sleep status, reset (acpi.h). Both power-off (with
 *               status 0) and reset end the VM: a microVM starts anew as a new process
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/acpi.h"
#include "monitor/base/log.h"
#include "monitor/machine_int.h"

#define DOORBELL_READY 0x00u
#define DOORBELL_POWER 0x04u
#define DOORBELL_WAIT  0x08u
#define READY_VALUE    123u

/*
 * Passes the first ready on from here, not from the loop: whoever waits for it measures how long a
 * start takes, and waking another thread would add to that. The message fits in a pipe's buffer.
 */
static void ready(struct machine *m)
{
	char line[160];
	int n;

	if (__atomic_exchange_n(&m->ready_rung, 1, __ATOMIC_ACQ_REL))
		return;
	m->time.ready_ns = since_start_ns();
	if (m->notify_fd >= 0) {
		if (m->notify_json)
			n = snprintf(line, sizeof(line),
				"{\"event\": \"ready\", \"id\": \"%s\", \"us\": %llu}\n",
				m->spec->id, (unsigned long long)(m->time.ready_ns / 1000));
		else
			n = snprintf(line, sizeof(line), "ready\n");
		if (write(m->notify_fd, line, (size_t)n) != n)
			m->notify_fd = -1; /* nobody waits any more */
	}
	machine_post(m, EVENT_READY);
}

/* ACPI's registers. False: nothing is known to be meant by that store. */
static bool acpi_store(struct vcpu *v, u64 reg, u64 value)
{
	if (reg == ACPI_REG_STATUS)
		return true; /* the guest clears what is never set */
	if (reg == ACPI_REG_SLEEP && value == ACPI_SLEEP_OFF)
		vcpu_power_off(v, 0);
	else if (reg == ACPI_REG_RESET && value == ACPI_RESET_VALUE)
		vcpu_reboot(v);
	else
		return false;
	return true;
}

static void doorbell(struct machine *m, struct vcpu *v, u64 off, const u8 *data, unsigned len)
{
	u64 value = 0;

	memcpy(&value, data, len); /* the guest and this host are both little-endian x86 */
	if (off == DOORBELL_READY && value == READY_VALUE)
		ready(m);
	else if (off == DOORBELL_POWER && len == 4)
		vcpu_power_off(v, (int)(value & 0xff));
	else if (off == DOORBELL_WAIT && (len == 8 || len == 4))
		vcpu_wait(v, value);
	else if (off < DOORBELL_ACPI || off >= DOORBELL_ACPI + ACPI_REGS || len != 1 ||
		!acpi_store(v, off - DOORBELL_ACPI, value))
		__atomic_fetch_add(&m->unmapped, 1, __ATOMIC_RELAXED);
}

void bus_mmio(void *ctx, struct vcpu *v, u64 gpa, u8 *data, unsigned len, bool write)
{
	struct machine *m = ctx;
	u64 off = gpa - DOORBELL_GPA;

	if (off < MEM_PAGE) {
		if (write)
			doorbell(m, v, off, data, len);
		else
			memset(data, 0, len);
		return;
	}
	off = gpa - VIRTIO_GPA;
	if (off / VIRTIO_MMIO_WINDOW < m->device_count) {
		struct virtio_dev *d = m->slot[off / VIRTIO_MMIO_WINDOW].dev;

		if (write)
			virtio_mmio_write(d, off % VIRTIO_MMIO_WINDOW, data, len);
		else
			virtio_mmio_read(d, off % VIRTIO_MMIO_WINDOW, data, len);
		return;
	}
	__atomic_fetch_add(&m->unmapped, 1, __ATOMIC_RELAXED);
}

/* One byte at a port that only a pc has. False: it is none of these. */
static bool pc_port(struct machine *m, struct vcpu *v, u16 port, u8 *data, bool write)
{
	bool reset = false, known = true;

	pthread_mutex_lock(&m->pc_lock);
	if (port - CMOS_PORT < CMOS_PORTS) {
		if (write)
			cmos_write(&m->cmos, (u16)(port - CMOS_PORT), *data);
		else
			*data = cmos_read(&m->cmos, (u16)(port - CMOS_PORT),
				clock_ns(CLOCK_REALTIME));
	} else if (port == I8042_DATA_PORT || port == I8042_COMMAND_PORT) {
		if (write)
			reset = i8042_write(&m->i8042, port, *data);
		else
			*data = i8042_read(&m->i8042, port);
	} else {
		known = false;
	}
	pthread_mutex_unlock(&m->pc_lock);
	if (reset)
		vcpu_reboot(v);
	return known;
}

void bus_pio(void *ctx, struct vcpu *v, u16 port, u8 *data, unsigned len, bool write)
{
	struct machine *m = ctx;

	if (m->serial && port >= SERIAL_PORT && port < SERIAL_PORT + SERIAL_PORTS) {
		if (len == 1 && write)
			serial_write(m->serial, (u16)(port - SERIAL_PORT), *data);
		else if (len == 1)
			*data = serial_read(m->serial, (u16)(port - SERIAL_PORT));
		return;
	}
	if (m->spec->kind == MACHINE_PC && len == 1 && pc_port(m, v, port, data, write))
		return;
	if (port == I8042_COMMAND_PORT && write && len == 1 && *data == I8042_RESET) {
		vcpu_reboot(v);
		return;
	}
	__atomic_fetch_add(&m->unmapped, 1, __ATOMIC_RELAXED);
}
