/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.c - what tells a guest who it is: a page of RAM at 0x5000, by plain loads, and ACPI's
 * generation GUID.
 *
 *   0x00 "KELVINID"   0x08 u32 layout (1)      0x0c u32 generation
 *   0x10 u64 wall clock, ns since 1970         0x20 16-byte VM id
 *   0x30 64 fresh random bytes                 0x70 u32 length, then operator text (--hint)
 *
 * Written before the first instruction of every boot, restore and clone, so that no guest ever
 * runs with the randomness of another. At restore only if the magic is still there: a guest may
 * have taken the page for something else.
 *
 * The GUID (acpi.c) is for kernels that were not built for us: Linux stirs it into its randomness.
 * It lies at the end of the page of ACPI's tables and is renewed while those begin as they were
 * made. Its interrupt is pending before the first instruction.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "monitor/acpi.h"
#include "monitor/base/bytes.h"
#include "monitor/machine_int.h"

#define MAGIC  "KELVINID"
#define LAYOUT 1u

static void fresh(void *p, size_t len)
{
	u8 *at = p;

	while (len) {
		ssize_t n = getrandom(at, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		must(n > 0); /* without randomness no clone may start */
		at += n;
		len -= (size_t)n;
	}
}

static void write_page(struct machine *m)
{
	u8 random[16 + 64], zero[8] = {0};
	struct enc page = {0};
	u32 hint_len = (u32)strlen(m->spec->hint);

	fresh(random, sizeof(random));
	memcpy(m->vm_uuid, random, 16);
	enc_bytes(&page, MAGIC, 8);
	enc_u32(&page, LAYOUT);
	enc_u32(&page, m->generation);
	enc_u64(&page, clock_ns(CLOCK_REALTIME));
	enc_bytes(&page, zero, 8);
	enc_bytes(&page, random, sizeof(random));
	enc_u32(&page, hint_len);
	enc_bytes(&page, m->spec->hint, hint_len);
	must(!page.oom);
	must(mem_write(m->mem, GPA_IDENTITY, page.buf, page.len));
	enc_free(&page);
}

static void write_guid(struct machine *m)
{
	u8 guid[ACPI_GENID_LEN];

	fresh(guid, sizeof(guid));
	must(mem_write(m->mem, GPA_ACPI + ACPI_GENID, guid, sizeof(guid)));
}

static void renew_guid(struct machine *m)
{
	char head[sizeof(ACPI_RSDP) - 1];

	if (!mem_read(m->mem, GPA_ACPI, head, sizeof(head)) ||
		memcmp(head, ACPI_RSDP, sizeof(head)) != 0)
		return;
	write_guid(m);
	vm_signal(m->vm, GENID_GSI); /* false: nobody there listens */
}

void identity_boot(struct machine *m)
{
	m->generation = 0;
	write_page(m);
	write_guid(m);
}

void identity_restore(struct machine *m)
{
	u8 head[16];
	struct dec d;

	renew_guid(m);
	if (!mem_read(m->mem, GPA_IDENTITY, head, sizeof(head)) || memcmp(head, MAGIC, 8) != 0) {
		fresh(m->vm_uuid, sizeof(m->vm_uuid));
		return;
	}
	d = dec_from(head + 8, 8);
	dec_u32(&d); /* layout: ours to choose */
	m->generation = dec_u32(&d) + 1;
	write_page(m);
}
