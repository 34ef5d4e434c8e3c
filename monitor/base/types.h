/* SPDX-License-Identifier: Apache-2.0 */
/* types.h - the short integer names and three macros used in every file. */
#ifndef KELVIN_BASE_TYPES_H
#define KELVIN_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The structure that holds @member, from a pointer to that member. */
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* A bug of ours: stays in release builds, names the place, ends the process. */
#define must(cond)                                                                                 \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			must_failed(#cond, __FILE__, __LINE__);                                    \
	} while (0)

_Noreturn void must_failed(const char *cond, const char *file, int line);

#endif
