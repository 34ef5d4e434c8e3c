/* SPDX-License-Identifier: Apache-2.0 */
/* tables.h - tell a guest what machine it is in, in the places where kernels look. */
#ifndef KELVIN_MONITOR_TABLES_H
#define KELVIN_MONITOR_TABLES_H

struct kernel_info;
struct machine;

/* Writes the ACPI tables, for a pc the MP table, and for Linux what is at the reset vector, into
 * RAM. Before the VM first runs. */
void tables_write(const struct machine *m, const struct kernel_info *kernel);

#endif
