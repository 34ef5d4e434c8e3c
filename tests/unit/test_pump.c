/* SPDX-License-Identifier: Apache-2.0 */
/* test_pump.c - what kelvin connect does with bytes: both ways, to the end, and no further. */
#include "monitor/pump.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BULK (8u << 20)

/* A pump in a thread of its own, and the other ends of its three descriptors. */
struct rig {
	int in, out, sock; /* the pump's */
	int feed, taken, peer; /* ours */
	pthread_t thread;
	bool lost;
	struct err e;
	int result;
};

static void *run(void *arg)
{
	struct rig *r = arg;

	r->result = pump(r->in, r->out, r->sock, &r->lost, &r->e);
	return NULL;
}

static void begin(struct rig *r)
{
	assert_int_equal(pthread_create(&r->thread, NULL, run, r), 0);
}

/* stdin and stdout are pipes. */
static void start(struct rig *r)
{
	int fd[2];

	*r = (struct rig){0};
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	r->in = fd[0];
	r->feed = fd[1];
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	r->out = fd[1];
	r->taken = fd[0];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	r->sock = fd[0];
	r->peer = fd[1];
}

/* Waits for its end, closes all. Returns what pump() did. */
static int finish(struct rig *r)
{
	int *fd[] = {&r->in, &r->out, &r->sock, &r->feed, &r->taken, &r->peer};

	assert_int_equal(pthread_join(r->thread, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		if (*fd[i] >= 0)
			close(*fd[i]);
	return r->result;
}

static void put(int fd, const void *data, size_t len)
{
	assert_int_equal(write(fd, data, len), len);
}

static void expect(int fd, const char *text)
{
	char got[64];
	size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		ssize_t k = read(fd, got + n, len - n);

		assert_true(k > 0);
		n += (size_t)k;
	}
	assert_memory_equal(got, text, len);
}

static void expect_end(int fd)
{
	char c;

	assert_int_equal(read(fd, &c, 1), 0);
}

static void end(int *fd)
{
	close(*fd);
	*fd = -1;
}

static void test_half_closes(void **state)
{
	struct rig r;

	/* Ours first: the answer comes after it. */
	start(&r);
	begin(&r);
	put(r.feed, "question", 8);
	expect(r.peer, "question");
	end(&r.feed);
	expect_end(r.peer);
	put(r.peer, "answer", 6);
	expect(r.taken, "answer");
	end(&r.peer);
	assert_int_equal(finish(&r), 0);
	assert_false(r.lost);
	/* Theirs first: we may go on. */
	start(&r);
	begin(&r);
	put(r.peer, "hello", 5);
	shutdown(r.peer, SHUT_WR);
	expect(r.taken, "hello");
	put(r.feed, "more", 4);
	expect(r.peer, "more");
	end(&r.feed);
	expect_end(r.peer);
	assert_int_equal(finish(&r), 0);
	assert_false(r.lost);
}

/* The peer is gone: what it said is passed on, and an idle stdin does not hold us. */
static void test_peer_closes(void **state)
{
	struct rig r;

	start(&r);
	put(r.peer, "last words", 10);
	end(&r.peer);
	begin(&r);
	expect(r.taken, "last words");
	assert_int_equal(finish(&r), 0);
	assert_false(r.lost);
}

static void test_peer_leaves_input_unread(void **state)
{
	static char data[100000];
	struct rig r;

	/* It lies in the socket. */
	start(&r);
	begin(&r);
	put(r.peer, "enough", 6);
	put(r.feed, data, 10);
	expect(r.taken, "enough");
	while (recv(r.peer, data, 10, MSG_PEEK) < 10)
		;
	end(&r.peer);
	assert_int_equal(finish(&r), 0);
	assert_true(r.lost);
	/* It does not even fit into that. */
	start(&r);
	begin(&r);
	fcntl(r.feed, F_SETFL, O_NONBLOCK);
	for (unsigned full = 0; full < 20; usleep(1000))
		full = write(r.feed, data, sizeof(data)) > 0 ? 0 : full + 1;
	end(&r.peer);
	assert_int_equal(finish(&r), 0);
	assert_true(r.lost);
}

/* Nobody reads stdout; the way to the peer goes on. @sock: stdout is a socket. */
static void slow_reader(bool sock)
{
	static char data[65536];
	size_t told = 0;
	struct rig r;
	int fd[2], flags;
	ssize_t n;

	start(&r);
	if (sock) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
		close(r.out);
		close(r.taken);
		r.out = fd[0];
		r.taken = fd[1];
	}
	flags = fcntl(r.out, F_GETFL);
	begin(&r);
	for (size_t sent = 0; sent < BULK; sent += 4096) {
		n = send(r.peer, data, sizeof(data), MSG_DONTWAIT);
		told += n > 0 ? (size_t)n : 0;
		put(r.feed, data, 4096);
		assert_int_equal(recv(r.peer, data, 4096, MSG_WAITALL), 4096);
	}
	assert_int_equal(fcntl(r.out, F_GETFL), flags); /* it may be shared */
	end(&r.peer);
	for (; told; told -= (size_t)n) {
		n = read(r.taken, data, sizeof(data));
		assert_true(n > 0);
	}
	assert_int_equal(finish(&r), 0);
}

static void test_slow_reader_of_a_pipe(void **state)
{
	slow_reader(false);
}

static void test_slow_reader_of_a_socket(void **state)
{
	slow_reader(true);
}

static unsigned char byte_at(size_t i)
{
	return (unsigned char)(i * 7 + (i >> 8) * 3 + (i >> 16));
}

static void write_all(int fd, const unsigned char *data, size_t len)
{
	for (ssize_t n; len; data += n, len -= (size_t)n) {
		n = write(fd, data, len);
		if (n <= 0)
			return;
	}
}

static void *feed(void *arg)
{
	static unsigned char data[BULK];
	struct rig *r = arg;

	for (size_t i = 0; i < BULK; i++)
		data[i] = byte_at(i);
	write_all(r->feed, data, BULK);
	end(&r->feed);
	return NULL;
}

static void *mirror(void *arg)
{
	static unsigned char data[70001];
	struct rig *r = arg;
	ssize_t n;

	while ((n = read(r->peer, data, sizeof(data))) > 0)
		write_all(r->peer, data, (size_t)n);
	end(&r->peer);
	return NULL;
}

/* All byte values, more than any buffer, through stdin, back by the peer, to stdout. */
static void test_bulk_both_ways(void **state)
{
	static unsigned char data[100000];
	pthread_t feeder, peer;
	struct rig r;
	ssize_t n;

	start(&r);
	begin(&r);
	assert_int_equal(pthread_create(&feeder, NULL, feed, &r), 0);
	assert_int_equal(pthread_create(&peer, NULL, mirror, &r), 0);
	for (size_t at = 0; at < BULK; at += (size_t)n) {
		n = read(r.taken, data, sizeof(data));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (data[i] != byte_at(at + (size_t)i))
				fail_msg("byte %zu is wrong", at + (size_t)i);
	}
	assert_int_equal(pthread_join(feeder, NULL), 0);
	assert_int_equal(pthread_join(peer, NULL), 0);
	assert_int_equal(finish(&r), 0);
	assert_false(r.lost);
}

static void expect_failure(struct rig *r, const char *says)
{
	assert_true(finish(r) < 0);
	assert_non_null(strstr(r->e.msg, says));
}

static void test_failures_are_named(void **state)
{
	struct rig r;

	start(&r);
	close(r.out);
	r.out = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_true(r.out >= 0);
	put(r.peer, "x", 1);
	begin(&r);
	expect_failure(&r, "cannot write stdout: No space left");
	start(&r);
	end(&r.taken);
	put(r.peer, "x", 1);
	begin(&r);
	expect_failure(&r, "cannot write stdout: Broken pipe");
	start(&r);
	close(r.in);
	r.in = open("/", O_RDONLY | O_CLOEXEC);
	begin(&r);
	expect_failure(&r, "cannot read stdin: Is a directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_closes),
		cmocka_unit_test(test_peer_closes),
		cmocka_unit_test(test_peer_leaves_input_unread),
		cmocka_unit_test(test_slow_reader_of_a_pipe),
		cmocka_unit_test(test_slow_reader_of_a_socket),
		cmocka_unit_test(test_bulk_both_ways),
		cmocka_unit_test(test_failures_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
