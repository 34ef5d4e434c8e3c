/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irq - the echo of port 1024 driven by interrupts: rings are looked at only after the counter
 * of the vsock device's interrupt has moved. A lost interrupt is a guest that does not answer.
 *
 * Answers: LINE count=N generation=G irqs=I timer=T, T the interrupts of the local APIC timer,
 * which is started once at boot.
 *
 * Command line: timeronly: only the timer; powers off with 0 if it came, 1 if not. For monitors
 * without vsock.
 */
#include "kit/irq.h"
#include "kit/vsock.h"

#define LINE_MAX    4096
#define TIMER_TICKS 100000 /* at most some milliseconds, whatever drives the timer */
#define WAIT_NS     20000000ull
#define TIMER_WAITS 500000u

static u32 count;

static void event(struct vsock_conn *c)
{
	char answer[LINE_MAX + 96];
	const char *line;
	size_t len, whole;

	while ((whole = vsock_line(c, &line, &len, LINE_MAX))) {
		int tail;

		memcpy(answer, line, len);
		tail = snprintf(answer + len, 96, " count=%u generation=%u irqs=%u timer=%u\n", count + 1,
			kit_generation(), kit_irqs[VECTOR_DEVICE], kit_irqs[VECTOR_TIMER]);
		if (!vsock_send_all(c, answer, len + (size_t)tail))
			return;
		count++;
		vsock_consume(c, whole);
	}
	if (vsock_eof(c))
		vsock_close(c);
}

/* Spins, because the timer is no device: it does not end kit_wait(). */
static bool timer_came(void)
{
	kit_irq_timer(TIMER_TICKS);
	for (u32 i = 0; i < TIMER_WAITS && kit_irqs[VECTOR_TIMER] == 0; i++)
		kit_pause();
	return kit_irqs[VECTOR_TIMER] != 0;
}

static void serve(void)
{
	u32 seen = kit_irqs[VECTOR_DEVICE];

	do {
		while (vsock_poll())
			;
	} while (vsock_arm());
	while (kit_irqs[VECTOR_DEVICE] == seen)
		kit_wait(KIT_FOREVER);
	virtio_ack(vsock_device());
}

int kit_main(void)
{
	bool timer;

	if (!kit_irq_init()) {
		kit_printf("irq: no x2APIC\n");
		return 3;
	}
	timer = timer_came();
	kit_printf("irq: timer %s\n", timer ? "came" : "did not come");
	if (kit_flag("timeronly"))
		return !timer;
	if (!vsock_init() || !vsock_listen(1024, &(struct vsock_ops){.event = event})) {
		kit_printf("irq: no vsock device\n");
		return 1;
	}
	kit_irq_device(vsock_device()->gsi, VECTOR_DEVICE);
	kit_ready();
	for (;;)
		serve();
}
