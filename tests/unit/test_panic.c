/* SPDX-License-Identifier: Apache-2.0 */
/* test_panic.c - a panic is found in what a guest printed, and nothing else is taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "monitor/panic.h"

#define VFS "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"

static bool find(const char *text, char *out, size_t cap)
{
	memset(out, 0x5a, cap);
	return panic_find(text, strlen(text), out, cap);
}

static void a_panic_is_found(void **state)
{
	static const char *const texts[] = {
		VFS,
		VFS "\r\n",
		"first\r\n[    0.963111] " VFS "\r\n[    0.963200] CPU: 0 PID: 1 Comm: swapper/0\r\n",
		"[    1.0] Kernel panic - not syncing: another\r\n[   12.0] " VFS "\r\n",
		/* Cut where the buffer began. */
		"cut off line\n" VFS "\nmore\n",
	};
	char out[160];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_true(find(texts[i], out, sizeof(out)));
		assert_string_equal(out, VFS);
	}
}

static void other_lines_are_none(void **state)
{
	static const char *const texts[] = {
		"",
		"\n\n",
		"[",
		"[    1.5",
		"[    1.5]",
		"[    1.5] ",
		"all is well\r\n",
		"Kernel panic",
		"Kernel panic - not syncing:", /* Linux says why */
		"echo " VFS "\r\n",
		"[    1.2] ---[ end " VFS " ]---\r\n",
		"[module] " VFS "\r\n",
	};
	char out[160];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_false(find(texts[i], out, sizeof(out)));
		assert_int_equal(out[0], 0x5a);
	}
}

static void what_comes_out_is_harmless(void **state)
{
	char out[40];

	assert_true(find("Kernel panic - not syncing: \x1b[2J\x80\t\x01\"\n", out, sizeof(out)));
	assert_string_equal(out, "Kernel panic - not syncing: ?[2J???\"");
	assert_true(find(VFS, out, sizeof(out)));
	assert_int_equal(strlen(out), sizeof(out) - 1);
	assert_true(panic_find("Kernel panic - not syncing: a\0b\n", 32, out, sizeof(out)));
	assert_string_equal(out, "Kernel panic - not syncing: a?b");
}

static void last(const char *text, unsigned lines, size_t cap, const char *want)
{
	char *copy = malloc(strlen(text) + 1), *out = malloc(cap);

	/* Without a NUL after it: a sanitizer sees who reads on. */
	assert_non_null(copy);
	assert_non_null(out);
	memcpy(copy, text, strlen(text));
	panic_last_lines(copy, strlen(text), lines, out, cap);
	assert_string_equal(out, want);
	free(copy);
	free(out);
}

static void last_lines(void **state)
{
	last("", 3, 64, "");
	last("a", 3, 64, "a\n");
	last("a\r\nb\r\n", 3, 64, "a\nb\n");
	last("a\r\nb\r\nc\r\nd", 3, 64, "b\nc\nd\n");
	last("a\r\n\r\nb\n\n\nc\r\n\r\n", 2, 64, "b\nc\n");
	last("\n\n\n", 2, 64, "");
	last("a\nb\n", 0, 64, "");
	last("abcdef\nghijkl\n", 2, 10, "abcdef\ng\n");
	last("abcdef\nghijkl\n", 2, 8, "abcdef\n");
	last("abcdef\n", 2, 3, "a\n");
	last("abcdef\n", 2, 1, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_panic_is_found),
		cmocka_unit_test(other_lines_are_none),
		cmocka_unit_test(what_comes_out_is_harmless),
		cmocka_unit_test(last_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
