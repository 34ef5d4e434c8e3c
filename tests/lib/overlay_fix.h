/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlay_fix.h - a cmocka fixture: a base image, an overlay over it, kernels that come and go.
 *
 * After a loss of power, what was on stable storage at the last sync is in the overlay file, and of
 * what was written later, a random part.
 */
#ifndef KELVIN_TESTS_OVERLAY_FIX_H
#define KELVIN_TESTS_OVERLAY_FIX_H

#include "tests/lib/disk_model.h"
#include "virtio/overlay_int.h"

#define OVERLAY_FIX_SECTORS 1003u /* no multiple of a cluster */
#define OVERLAY_FIX_LEN     (1u << 20)

struct overlay_fix {
	char *dir;
	char base[200], top[200], saved[200], boot[200];
	unsigned boots;
	struct disk_config cfg; /* base and top */
	struct ring *r;
	struct disk *d;
	struct disk_model *m;
	u8 *base_was;
	size_t base_len;
	/* What is on stable storage of the overlay file; shared with children. */
	struct {
		u64 len;
		u8 bytes[OVERLAY_FIX_LEN];
	} *safe;
};

int overlay_fix_setup(void **state);
int overlay_fix_teardown(void **state); /* the base must be what it was */
/* Another kernel was booted. */
void overlay_fix_boot(struct overlay_fix *f);
/* Opens f->cfg as f->d, for the model, too. */
void overlay_fix_open(struct overlay_fix *f);
/* Closes it as the end of the process does. */
void overlay_fix_kill(struct overlay_fix *f);
/*
 * Switches the power off and on again. One in @odds sectors that differ from what is on stable
 * storage is as it was there, or all of them with 1.
 */
void overlay_fix_power_off(struct overlay_fix *f, unsigned odds);
/* fake_ring's did(): keeps `safe` up to date. */
void overlay_fix_note(void *ctx, const struct fake_io *io);
void overlay_fix_save(struct overlay_fix *f, const char *name);
/* All of the disk; the caller frees it. */
u8 *overlay_fix_content(struct overlay_fix *f);

#endif
