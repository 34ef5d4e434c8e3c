/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_state.h - for targets that change a snapshot's state file: its checksums. */
#ifndef KELVIN_TESTS_FUZZ_STATE_H
#define KELVIN_TESTS_FUZZ_STATE_H

#include "monitor/base/bytes.h"

/* Writes as much of @v at @at as there is room for. */
void fz_put32(struct enc *e, size_t at, u32 v);
/* Makes every checksum right that can be found by following the lengths. */
void fz_mend_state(struct enc *e);

#endif
