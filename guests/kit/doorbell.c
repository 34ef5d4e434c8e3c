/* SPDX-License-Identifier: Apache-2.0 */
/* doorbell.c - ready, sleep, power off and identity; see doorbell.h. */
#include "kit.h"
#include "boot.h"

#define IDENTITY_PAGE ((const volatile struct identity *)IDENTITY)
#define SPINS         1000

static bool have_identity;
static u32 generation_seen; /* that ready was rung for */

void kit_doorbell_init(void)
{
	have_identity = kit_load32(IDENTITY) == IDENTITY_MAGIC_LO &&
			kit_load32(IDENTITY + 4) == IDENTITY_MAGIC_HI;
	generation_seen = kit_generation();
}

const volatile struct identity *kit_identity(void)
{
	return have_identity ? IDENTITY_PAGE : NULL;
}

uint32_t kit_generation(void)
{
	return have_identity ? IDENTITY_PAGE->generation : 0;
}

uint64_t kit_random_word(void)
{
	u64 word = 0;

	for (unsigned i = 0; have_identity && i < 8; i++)
		word |= (u64)IDENTITY_PAGE->random[i] << (8 * i);
	return word;
}

bool kit_hint(const char *name, char *value, size_t cap)
{
	const char *at = (const char *)(u64)IDENTITY_PAGE->hint, *end, *line_end;
	size_t name_len = strlen(name), len;

	if (!have_identity)
		return false;
	len = IDENTITY_PAGE->hint_len;
	if (len > sizeof(IDENTITY_PAGE->hint))
		len = sizeof(IDENTITY_PAGE->hint);
	for (end = at + len; at < end; at = line_end + 1) {
		line_end = memchr(at, '\n', (size_t)(end - at));
		if (!line_end)
			line_end = end;
		len = (size_t)(line_end - at);
		if (len <= name_len || memcmp(at, name, name_len) != 0 || at[name_len] != '=')
			continue;
		len -= name_len + 1;
		if (len > cap - 1)
			len = cap - 1;
		memcpy(value, at + name_len + 1, len);
		value[len] = '\0';
		return true;
	}
	return false;
}

void kit_ready(void)
{
	kit_store32(DOORBELL + DOORBELL_READY, READY_VALUE);
}

bool kit_check_generation(void)
{
	u32 now = kit_generation();

	if (now == generation_seen)
		return false;
	kit_ready();
	generation_seen = now;
	return true;
}

void kit_wait(uint64_t ns)
{
	if (kit_check_generation())
		return;
	if (have_identity) {
		kit_store64(DOORBELL + DOORBELL_WAIT, ns);
		kit_check_generation();
		return;
	}
	for (unsigned i = 0; i < SPINS; i++)
		kit_pause();
}

/* No IDT and then an exception: the one way off that every machine has. */
static void triple_fault(u64 arg, struct ring0_frame *frame)
{
	static const u8 none[10]; /* limit and base */

	(void)arg;
	(void)frame;
	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}

_Noreturn void kit_power(unsigned status)
{
	if (have_identity) {
		kit_store32(DOORBELL + DOORBELL_POWER, status);
	} else {
		kit_outb(DEBUG_EXIT_PORT, (u8)status);
		kit_ring0(triple_fault, 0);
	}
	for (;;)
		kit_pause();
}
