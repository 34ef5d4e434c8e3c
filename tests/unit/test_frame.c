/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame.c - frames between the agent in a guest and the host: whole, in pieces, and broken. */
#include "monitor/base/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/base/tree.h"

static struct frame_reader reader;
static int peer;

static int setup(void **state)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	reader.fd = fd[0];
	reader.have = 0;
	peer = fd[1];
	return 0;
}

static int teardown(void **state)
{
	close(reader.fd);
	if (peer >= 0)
		close(peer);
	return 0;
}

static void put(const void *p, size_t len)
{
	assert_int_equal(send(peer, p, len, 0), len);
}

static void hang_up(void)
{
	close(peer);
	peer = -1;
}

static void test_byte_by_byte(void **state)
{
	static const u8 bytes[] = {FR_ERROR, AGENT_VERSION, 0, 0, 3, 0, 0, 0, 'a', 0, 'b'};
	struct frame f;
	struct err e;

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			assert_int_equal(frame_read(&reader, &f, &e), 0);
			put(bytes + i, 1);
		}
		assert_int_equal(frame_read(&reader, &f, &e), 1);
		assert_int_equal(f.type, FR_ERROR);
		assert_int_equal(f.len, 3);
		assert_memory_equal(f.p, "a\0b", 4); /* and a NUL */
	}
}

static void *send_largest(void *arg)
{
	struct err e;

	assert_int_equal(frame_send(peer, FR_DATA, arg, FRAME_MAX, &e), 0);
	assert_int_equal(frame_send(peer, FR_UP, NULL, 0, &e), 0);
	return NULL;
}

static void test_largest_and_smallest(void **state)
{
	static u8 data[FRAME_MAX];
	pthread_t thread;
	struct frame f;
	struct err e;

	for (u32 i = 0; i < FRAME_MAX; i++)
		data[i] = (u8)(i * 7 >> 3);
	assert_int_equal(pthread_create(&thread, NULL, send_largest, data), 0);
	assert_int_equal(frame_wait(&reader, 5000, &f, &e), 0);
	assert_int_equal(f.len, FRAME_MAX);
	assert_memory_equal(f.p, data, FRAME_MAX);
	assert_int_equal(f.p[FRAME_MAX], 0);
	assert_int_equal(frame_wait(&reader, 5000, &f, &e), 0);
	assert_int_equal(f.type, FR_UP);
	assert_int_equal(f.len, 0);
	pthread_join(thread, NULL);
}

static void test_no_frames(void **state)
{
	static const struct {
		u8 head[FRAME_HEAD];
		const char *says;
	} cases[] = {
		{{1, 0, 0, 0, 0, 0, 0, 0}, "version 0"},
		{{1, 2, 0, 0, 0, 0, 0, 0}, "version 2"},
		{{1, 255, 0, 0, 0, 0, 0, 0}, "version 255"},
		{{1, 1, 1, 0, 0, 0, 0, 0}, "no frame"},
		{{1, 1, 0, 128, 0, 0, 0, 0}, "no frame"},
		{{1, 1, 0, 0, 1, 0, 2, 0}, "no frame"}, /* FRAME_MAX + 1 */
		{{1, 1, 0, 0, 0, 0, 0, 128}, "no frame"},
		{{1, 1, 0, 0, 255, 255, 255, 255}, "no frame"},
		{"GET / HT", "version"},
	};
	struct frame f = {.type = 77};
	struct err e;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		reader.have = 0;
		put(cases[i].head, FRAME_HEAD);
		assert_int_equal(frame_read(&reader, &f, &e), -EPROTO);
		assert_non_null(strstr(e.msg, cases[i].says));
		assert_int_equal(f.type, 77);
		/* And stays so, whatever follows. */
		assert_int_equal(frame_read(&reader, &f, &e), -EPROTO);
	}
}

static void test_ends(void **state)
{
	struct frame f;
	struct err e;
	u8 head[FRAME_HEAD];

	assert_int_equal(frame_wait(&reader, 20, &f, &e), -ETIMEDOUT);
	/* In the middle of a frame: after its head, with some of it. */
	frame_head(head, FR_STDIN, 5);
	put(head, sizeof(head));
	put("123", 3);
	assert_int_equal(frame_wait(&reader, 20, &f, &e), -ETIMEDOUT);
	hang_up();
	assert_int_equal(frame_wait(&reader, -1, &f, &e), -ECONNRESET);
	assert_int_equal(frame_send(reader.fd, FR_OK, NULL, 0, &e), -EPIPE);
}

static void test_texts(void **state)
{
	u8 bytes[] = {'a', 'b', 0, 0, 'c'};
	struct frame f = {.len = sizeof(bytes), .p = bytes};
	u32 at = 0;

	assert_string_equal(frame_text(&f, &at), "ab");
	assert_string_equal(frame_text(&f, &at), "");
	assert_null(frame_text(&f, &at)); /* it has no end */
	assert_int_equal(at, 4);
	at = 5;
	assert_null(frame_text(&f, &at));
	at = 6;
	assert_null(frame_text(&f, &at));
	f.len = 0;
	at = 0;
	assert_null(frame_text(&f, &at));
}

static void test_errors(void **state)
{
	u8 bytes[] = {127, 0, 0, 0, 'w', 'h', 'y', 0};
	struct frame f = {.type = FR_ERROR, .len = 7, .p = bytes};
	struct err e;
	u32 status = 0;

	assert_int_equal(frame_error(&f, &status, &e), -EREMOTEIO);
	assert_int_equal(status, 127);
	assert_string_equal(e.msg, "why");
	for (f.len = 0; f.len < 5; f.len++)
		assert_int_equal(frame_error(&f, NULL, &e), -EPROTO);
}

static void test_base_names(void **state)
{
	static const char *const cases[][2] = {
		{"a", "a"}, {"/a", "a"}, {"a/", "a"}, {"/x/y//", "y"}, {"a/b", "b"}, {"/", "."},
		{"", "."}, {".", "."}, {"..", "."}, {"a/.", "."}, {"a/..", "."}, {"...", "..."},
		{"a/..b", "..b"}, {"//", "."},
	};
	char name[16];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		tree_base(cases[i][0], name, sizeof(name));
		assert_string_equal(name, cases[i][1]);
	}
	tree_base("/a-name-that-is-too-long", name, sizeof(name));
	assert_string_equal(name, ".");
	tree_base("/fifteen-letters", name, sizeof(name));
	assert_string_equal(name, "fifteen-letters");
}

static void test_numbers(void **state)
{
	u8 p[8] = {0};

	le_put(p, 0x0102030405060708ull, 8);
	assert_memory_equal(p, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
	assert_int_equal(le_get(p, 8), 0x0102030405060708ull);
	assert_int_equal(le_get(p, 2), 0x0708);
	le_put(p, 0x1ffff, 2);
	assert_memory_equal(p, "\xff\xff\x06", 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_largest_and_smallest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_base_names),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
