/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_kernel_fuzz.c - kernels with random bytes changed (hostile-cases L01).
 *
 * Each file either loads or is refused with one line; the sanitizers watch. The numbers come from a
 * fixed seed, so that a failure repeats; KELVIN_FUZZ_SEED and KELVIN_FUZZ_RUNS choose others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/bz_builder.h"
#include "tests/lib/load_case.h"
#include "tests/lib/pack.h"

#define RUNS 1000u

static const enum pack all[] = {PACK_GZIP, PACK_XZ, PACK_LZ4_LEGACY, PACK_LZ4, PACK_ZSTD};
static u64 seed;

static u32 rnd(u32 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 20) % below;
}

static u64 setting(const char *name, u64 otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Numbers that are good at breaking arithmetic. */
static u64 nasty(void)
{
	static const u64 v[] = {0, 1, 0x7f, 0x80, 0xff, 0x1000, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, INT64_MAX, 1ull << 63, UINT64_MAX, 0 - 0x1000ull, 0xc0000000};

	return v[rnd(ARRAY_SIZE(v))];
}

/* Changes a few bytes of the first @within, and sometimes the length. */
static size_t mutate(u8 *p, size_t len, size_t within)
{
	if (within > len)
		within = len;
	for (unsigned n = 1 + rnd(4); n; n--) {
		size_t at = rnd((u32)within);
		u64 v = nasty();
		size_t k = 1u << rnd(4);

		if (k > len - at)
			k = len - at;
		if (rnd(2))
			memcpy(p + at, &v, k);
		else
			p[at] ^= (u8)(1u << rnd(8));
	}
	return rnd(8) ? len : rnd((u32)len + 1);
}

/* Refused with one line that names the file, or loaded whole. */
static bool survives(const u8 *p, size_t len)
{
	struct result r;

	mem_destroy(&ram);
	assert_int_equal(mem_create(&ram, RAM, MEM_ANON, NULL), 0);
	r = load_bytes(p, len);
	if (!r.code)
		return true;
	assert_null(strchr(r.err.msg, '\n'));
	assert_int_equal(strncmp(r.err.msg, "guests/k: ", 10), 0);
	return false;
}

/* @good with changes in its first @within bytes, many times. Returns how many still loaded. */
static unsigned storm(const u8 *good, size_t len, size_t within, u64 runs)
{
	unsigned loaded = 0;

	for (u64 i = 0; i < runs; i++) {
		u8 *p = malloc(len);

		assert_non_null(p);
		memcpy(p, good, len);
		loaded += survives(p, mutate(p, len, within));
		free(p);
	}
	return loaded;
}

static void test_l01_elf_storm(void **state)
{
	struct elf_file elf = elf_default();
	u64 runs = setting("KELVIN_FUZZ_RUNS", RUNS);
	u8 image[ELF_FILE_LEN];
	unsigned loaded;

	elf_image(&elf, image);
	loaded = storm(image, sizeof(image), ELF_NOTE_OFF + 256, runs * 4);
	/* Both ends were reached. */
	assert_true(loaded && loaded < runs * 4);
}

static void test_l01_bzimage_header_storm(void **state)
{
	u64 runs = setting("KELVIN_FUZZ_RUNS", RUNS);
	struct bz_file f = bz_default(PACK_LZ4_LEGACY);
	unsigned loaded = storm(f.bytes + 0, f.len, 0x268, runs * 4);

	assert_true(loaded && loaded < runs * 4);
	free(f.bytes);
}

static void test_l01_payload_storm(void **state)
{
	u64 runs = setting("KELVIN_FUZZ_RUNS", RUNS);

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct bz_file f = bz_default(all[i]);
		const u8 *payload = f.bytes + BZ_SETUP_LEN + BZ_PAYLOAD;
		u32 len;

		memcpy(&len, f.bytes + 0x24c, 4);
		storm(payload, len, len, runs);
		storm(payload, len, 24, runs);
		free(f.bytes);
	}
}

/* What is inside is as hostile as what is outside: a broken ELF, packed well. */
static void test_l01_elf_inside_storm(void **state)
{
	u64 runs = setting("KELVIN_FUZZ_RUNS", RUNS);
	struct elf_file elf = elf_default();

	for (u64 i = 0; i < runs; i++) {
		u8 image[ELF_FILE_LEN];
		size_t len;
		u8 *p;

		elf_image(&elf, image);
		mutate(image, sizeof(image), ELF_NOTE_OFF + 256);
		p = pack(all[rnd(ARRAY_SIZE(all))], image, sizeof(image), &len);
		survives(p, len);
		free(p);
	}
}

static int group_setup(void **state)
{
	seed = setting("KELVIN_FUZZ_SEED", 0x6b656c76696eull) | 1;
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, ram_setup, ram_teardown)
	const struct CMUnitTest tests[] = {
		T(test_l01_elf_storm),
		T(test_l01_bzimage_header_storm),
		T(test_l01_payload_storm),
		T(test_l01_elf_inside_storm),
	};

	return cmocka_run_group_tests_name("kernel_fuzz", tests, group_setup, NULL);
}
