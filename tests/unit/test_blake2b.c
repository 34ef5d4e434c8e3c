/* SPDX-License-Identifier: Apache-2.0 */
/* test_blake2b.c - the hash against values other programs give. */
#include "monitor/blake2b.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void assert_hash(const void *data, size_t len, size_t out_len, const char *want)
{
	char hex[129] = "";
	u8 out[64];

	blake2b(out, out_len, data, len);
	for (size_t i = 0; i < out_len; i++)
		snprintf(hex + 2 * i, 3, "%02x", out[i]);
	assert_string_equal(hex, want);
}

static void test_known_values(void **state)
{
	u8 bytes[1000];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (u8)i;
	/* RFC 7693, appendix A; the rest by Python's hashlib. */
	assert_hash("abc", 3, 64,
		"ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
		"7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923");
	assert_hash("", 0, 32,
		"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
	assert_hash(bytes, 127, 32,
		"f2fe67ff342e21b8f45e8f2e0bcd1d9243245d50ee6c78042e9c491388791c72");
	assert_hash(bytes, 128, 32,
		"c3582f71ebb2be66fa5dd750f80baae97554f3b015663c8be377cfcb2488c1d1");
	assert_hash(bytes, 129, 32,
		"f7f3c46ba2564ff4c4c162da1f5b605f9f1c4aa6a20652a9f9a337c1a2f5b9c9");
	assert_hash(bytes, 256, 32,
		"39a7eb9fedc19aabc83425c6755dd90e6f9d0c804964a1f4aaeea3b9fb599835");
	assert_hash(bytes, 1000, 16, "978a3f8b45508a42fe7f0f99caf2c423");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_values),
	};

	return cmocka_run_group_tests_name("blake2b", tests, NULL, NULL);
}
