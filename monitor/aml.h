/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml.h - a writer for the little of ACPI's machine language that describing devices takes.
 *
 * Section numbers are those of the ACPI specification 6.5. Any thread; nothing here can fail: what
 * does not fit sets `full`, and the caller asks once, at the end.
 */
#ifndef KELVIN_MONITOR_AML_H
#define KELVIN_MONITOR_AML_H

#include "monitor/base/types.h"

struct aml {
	u8 *buf; /* the caller's, of cap bytes */
	size_t cap, len;
	bool full; /* something did not fit: the content is not to be used */
};

/* Plain bytes, and numbers as they lie in tables: little-endian. */
void aml_bytes(struct aml *a, const void *src, size_t len);
void aml_raw(struct aml *a, u64 value, size_t len);

/*
 * Begins a term that carries its own length (20.2.4). Returns what aml_end() wants. Terms nest.
 */
size_t aml_scope(struct aml *a, const char name[4]);  /* Scope (NAME) */
size_t aml_device(struct aml *a, const char name[4]); /* Device (NAME) */
size_t aml_method(struct aml *a, const char name[4]); /* Method (NAME, 1): one argument */
size_t aml_if_arg(struct aml *a, u64 value);          /* If (Arg0 == value) {...}, in a method */
size_t aml_package(struct aml *a, u8 elements);       /* Package () {...} */
void aml_end(struct aml *a, size_t at);

/* Name (NAME, ...): the value is what is written next. */
void aml_name(struct aml *a, const char name[4]);

/* Notify (NAME, value), in a method. NAME is looked for in the scopes around. */
void aml_notify(struct aml *a, const char name[4], u8 value);

/* Values. */
void aml_int(struct aml *a, u64 value);
void aml_string(struct aml *a, const char *s); /* printable ASCII */
void aml_eisa_id(struct aml *a, const char id[7]); /* "PNP0501" (19.3.4) */
void aml_buffer(struct aml *a, const void *src, size_t len);

/* Resource descriptors (6.4), gathered and then given to aml_resources(). */
#define AML_CRS_MAX 64u
struct aml_crs {
	u8 buf[AML_CRS_MAX];
	size_t len;
};
void crs_memory(struct aml_crs *c, u32 gpa, u32 len);  /* Memory32Fixed, read and write */
void crs_ports(struct aml_crs *c, u16 port, u8 count); /* IO, 16-bit decode, fixed */
void crs_edge(struct aml_crs *c, u32 gsi); /* Interrupt: consumer, edge, active high, exclusive */
/* The buffer of a _CRS, with its end tag. */
void aml_resources(struct aml *a, const struct aml_crs *c);

#endif
