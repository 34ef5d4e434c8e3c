/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi - listens for what ACPI's event device tells, by the two interrupts behind it, without ACPI.
 * Rings ready, then does what the command line says:
 *
 *	how=button   powers off with 5 when the power button is pressed
 *	how=deaf     unmasks the button's interrupt, and then lets it be
 *	how=genid    waits for a generation of its own, by looking at the identity page without a rest.
 *	             Powers off with 0 if the generation GUID was another one and its interrupt had
 *	             come before that was seen; else with 1 (the same GUID) or 2 (no interrupt yet)
 */
#include "kit/irq.h"

#define BUTTON_GSI    21
#define GENID_GSI     22
#define GENID_GPA     0xe0ff0ull
#define GENID_LEN     16
#define VECTOR_BUTTON VECTOR_DEVICE
#define VECTOR_GENID  (VECTOR_DEVICE + 1)

static int button(void)
{
	while (!kit_irqs[VECTOR_BUTTON])
		kit_wait(KIT_FOREVER);
	return 5;
}

static __attribute__((noreturn)) int deaf(void)
{
	for (;;)
		kit_wait(KIT_FOREVER);
}

static int genid(void)
{
	const void *guid = (const void *)GENID_GPA;
	u8 before[GENID_LEN];

	memcpy(before, guid, sizeof(before));
	while (!kit_generation())
		;
	if (!kit_irqs[VECTOR_GENID])
		return 2;
	return memcmp(before, guid, sizeof(before)) == 0;
}

int kit_main(void)
{
	char how[8] = "";

	if (!kit_irq_init())
		return 3;
	kit_option("how", how, sizeof(how));
	kit_irq_device(GENID_GSI, VECTOR_GENID);
	kit_irq_device(BUTTON_GSI, VECTOR_BUTTON);
	kit_ready();
	if (memcmp(how, "genid", 6) == 0)
		return genid();
	return memcmp(how, "button", 7) == 0 ? button() : deaf();
}
