/* SPDX-License-Identifier: Apache-2.0 */
/* test_bytes.c - what is encoded comes back, and a decoder never reads past the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/base/bytes.h"

static void test_round_trip(void **state)
{
	struct enc e = {0};
	struct dec d;
	char s[8];
	u8 raw[3];

	enc_u8(&e, 0x12);
	enc_u16(&e, 0x3456);
	enc_u32(&e, 0x789abcde);
	enc_u64(&e, 0x0123456789abcdefull);
	enc_bytes(&e, "xyz", 3);
	enc_str(&e, "name");
	enc_str(&e, "");
	assert_false(e.oom);
	assert_int_equal(e.len, 1 + 2 + 4 + 8 + 3 + 6 + 2);
	d = dec_from(e.buf, e.len);
	assert_int_equal(dec_u8(&d), 0x12);
	assert_int_equal(dec_u16(&d), 0x3456);
	assert_int_equal(dec_u32(&d), 0x789abcde);
	assert_true(dec_u64(&d) == 0x0123456789abcdefull);
	dec_bytes(&d, raw, sizeof(raw));
	assert_memory_equal(raw, "xyz", 3);
	dec_str(&d, s, sizeof(s));
	assert_string_equal(s, "name");
	assert_false(dec_done(&d));
	dec_str(&d, s, sizeof(s));
	assert_string_equal(s, "");
	assert_true(dec_done(&d));
	enc_free(&e);
	enc_free(&e);
	assert_null(e.buf);
}

static void test_little_endian(void **state)
{
	static const u8 want[] = {0x02, 0x01, 6, 5, 4, 3, 14, 13, 12, 11, 10, 9, 8, 7, 1, 0, 'a'};
	struct enc e = {0};

	enc_u16(&e, 0x0102);
	enc_u32(&e, 0x03040506);
	enc_u64(&e, 0x0708090a0b0c0d0eull);
	enc_str(&e, "a");
	assert_int_equal(e.len, sizeof(want));
	assert_memory_equal(e.buf, want, sizeof(want));
	enc_free(&e);
}

static void test_grows(void **state)
{
	struct enc e = {0};
	u8 *big = malloc(100000);

	memset(big, 0x5a, 100000);
	for (unsigned i = 0; i < 1000; i++)
		enc_u8(&e, (u8)i);
	enc_bytes(&e, big, 100000);
	enc_bytes(&e, NULL, 0);
	assert_int_equal(e.len, 101000);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(e.buf[i], (u8)i);
	assert_memory_equal(e.buf + 1000, big, 100000);
	free(big);
	enc_free(&e);
}

/* A decoder over @len heap bytes of 0xff: a sanitizer sees any read past them. */
static struct dec short_dec(u8 **buf, size_t len)
{
	*buf = malloc(len ? len : 1);
	memset(*buf, 0xff, len);
	return dec_from(*buf, len);
}

static void test_past_the_end_gives_zeros(void **state)
{
	for (size_t len = 0; len < 8; len++) {
		u8 *buf, out[8] = {1, 1, 1, 1, 1, 1, 1, 1};
		struct dec d = short_dec(&buf, len);

		assert_true(dec_u64(&d) == 0);
		assert_true(d.bad);
		/* It stays bad, even for what would fit. */
		assert_int_equal(dec_u8(&d), 0);
		dec_bytes(&d, out, sizeof(out));
		assert_memory_equal(out, "\0\0\0\0\0\0\0\0", 8);
		assert_false(dec_done(&d));
		free(buf);
	}
}

static void test_nothing_is_not_bad(void **state)
{
	struct dec d = dec_from(NULL, 0);

	assert_true(dec_done(&d));
	dec_bytes(&d, NULL, 0);
	assert_true(dec_done(&d));
	assert_int_equal(dec_u8(&d), 0);
	assert_false(dec_done(&d));
}

static void test_strings_that_do_not_fit(void **state)
{
	static const struct {
		const char *raw;
		size_t len, cap;
		bool ok;
	} tab[] = {
		{"\3\0abc", 5, 4, true},
		{"\3\0abc", 5, 3, false},  /* no room for the NUL */
		{"\3\0ab", 4, 16, false},  /* cut off */
		{"\3", 1, 16, false},      /* half a length */
		{"", 0, 16, false},
		{"\3\0a\0c", 5, 16, false}, /* a NUL inside */
		{"\xff\xff" "abc", 5, 16, false},
		{"\0\0", 2, 1, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(tab); i++) {
		char out[16] = "untouched";
		struct dec d = dec_from(tab[i].raw, tab[i].len);

		dec_str(&d, out, tab[i].cap);
		assert_int_equal(!d.bad, tab[i].ok);
		if (!tab[i].ok)
			assert_string_equal(out, "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_little_endian),
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_past_the_end_gives_zeros),
		cmocka_unit_test(test_nothing_is_not_bad),
		cmocka_unit_test(test_strings_that_do_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
