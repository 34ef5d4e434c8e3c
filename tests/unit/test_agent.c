/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent.c - what the agent in a Linux guest reads: requests, hints, users. Its files are taken
 * in whole, because what is to be tested is not called from elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "guests/linux/agent_exec.c"
#include "guests/linux/agent_net.c"
#include "guests/linux/agent_user.c"

static u8 bytes[FRAME_MAX + 1];

void serve_fail(int fd, u32 status, const struct err *e)
{
	fail_msg("not called here");
}

/* A request of these texts: user, directory, arguments, environment. */
static struct frame request(unsigned argc, unsigned envc, const char *text, u32 len)
{
	memset(bytes, 0, 20);
	le_put(bytes + 12, 30, 2);
	le_put(bytes + 14, 100, 2);
	le_put(bytes + 16, argc, 2);
	le_put(bytes + 18, envc, 2);
	memcpy(bytes + 20, text, len);
	bytes[20 + len] = 0;
	return (struct frame){FR_EXEC, 20 + len, bytes};
}

static void test_request(void **state)
{
	static const char text[] = "me\0/tmp\0ls\0-l\0\0A=1"; /* one argument is empty */
	struct frame f = request(3, 1, text, sizeof(text));
	struct err e;

	assert_int_equal(parse(&f, &req, &e), 0);
	assert_string_equal(req.user, "me");
	assert_string_equal(req.cwd, "/tmp");
	assert_string_equal(req.argv[1], "-l");
	assert_string_equal(req.argv[2], "");
	assert_null(req.argv[3]);
	assert_string_equal(env_get(&req, "A"), "1");
	assert_null(env_get(&req, "AB"));
	assert_null(req.env[1]);
	assert_int_equal(req.rows, 30);
	assert_int_equal(req.columns, 100);
	/* Cut anywhere, one more, counts that are not right: none of them. */
	for (u32 len = 0; len < f.len; len++)
		assert_int_equal(
			parse(&(struct frame){FR_EXEC, len, bytes}, &req, &e), -EPROTO);
	f = request(3, 1, "me\0/tmp\0ls\0-l\0\0A=1\0", sizeof(text) + 1);
	assert_int_equal(parse(&f, &req, &e), -EPROTO);
	for (unsigned argc = 0; argc < 65536; argc += argc < 8 ? 1 : 997) {
		f = request(argc, 1, text, sizeof(text));
		assert_int_equal(parse(&f, &req, &e), argc == 3 ? 0 : -EPROTO);
		f = request(3, argc, text, sizeof(text));
		assert_int_equal(parse(&f, &req, &e), argc == 1 ? 0 : -EPROTO);
	}
}

/* What every command gets fits behind as many variables as a request can have. */
static void test_request_of_most(void **state)
{
	static char text[3 * ARGS_MAX + 4];
	struct user u = {.home = "/h", .shell = "/s", .name = "n"};
	struct frame f;
	struct err e;
	u32 at = 2; /* no user, no directory */

	for (unsigned i = 0; i < 2 * ARGS_MAX; i++) {
		if (i < ARGS_MAX)
			text[at++] = 'x';
		text[at++] = 0;
	}
	f = request(ARGS_MAX, ARGS_MAX, text, at);
	assert_int_equal(parse(&f, &req, &e), 0);
	add_env(&req, &u);
	assert_int_equal(req.envc, ARGS_MAX + 5);
	assert_null(req.env[req.envc]);
	assert_string_equal(env_get(&req, "HOME"), "/h");
	f = request(ARGS_MAX + 1, 0, text, at);
	assert_int_equal(parse(&f, &req, &e), -EPROTO);
}

/* Frames of a running command, some of them good, with any length and content. */
static void test_any_frames(void **state)
{
	struct session *s = &session;
	u64 x = 1;

	memset(s, 0, sizeof(*s));
	s->exited = true; /* no signal is sent */
	s->in_fd = s->out_fd = s->err_fd = -1;
	for (unsigned i = 0; i < 200000; i++) {
		struct frame f = {.p = bytes};

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		f.type = (u8)(30 + (x >> 40) % 12);
		f.len = (u32)(x >> 33) % ((x >> 60) ? 8 : FRAME_MAX);
		take_frame(s, &f);
		assert_true(s->ring_len <= STDIN_WINDOW);
		if (i % 3 == 0)
			feed(s); /* there is nobody: all is used up */
		if (i % 1000 == 0)
			s->stdin_end = false;
	}
}

static void test_stdin_goes_round(void **state)
{
	struct session *s = &session;
	u8 got[1000];
	int fd[2];
	u32 sent = 0, read_ = 0;

	memset(s, 0, sizeof(*s));
	assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
	s->in_fd = fd[1];
	while (read_ < 3 * STDIN_WINDOW) {
		struct frame f = {FR_STDIN, 1 + sent % 5001, bytes};
		ssize_t n;

		if (f.len <= STDIN_WINDOW - s->ring_len) {
			for (u32 i = 0; i < f.len; i++)
				bytes[i] = (u8)((sent + i) * 131 >> 5);
			assert_true(take_frame(s, &f));
			sent += f.len;
		} else {
			assert_false(take_frame(s, &f)); /* beyond the window */
		}
		feed(s);
		n = read(fd[0], got, sizeof(got));
		for (ssize_t i = 0; i < n; i++, read_++)
			assert_int_equal(got[i], (u8)(read_ * 131 >> 5));
		assert_int_equal(s->ack + s->ring_len, sent);
	}
	close(fd[0]);
	close(fd[1]);
}

static void test_lines(void **state)
{
	static const char text[] = "address=10.0.0.2/24\nadd=short\n\n=x\nlast=one";
	char out[16];

	assert_true(text_line(text, sizeof(text) - 1, "address", out, sizeof(out)));
	assert_string_equal(out, "10.0.0.2/24");
	assert_true(text_line(text, sizeof(text) - 1, "add", out, sizeof(out)));
	assert_string_equal(out, "short");
	assert_true(text_line(text, sizeof(text) - 1, "last", out, sizeof(out)));
	assert_string_equal(out, "one");
	assert_false(text_line(text, sizeof(text) - 1, "addres", out, sizeof(out)));
	assert_false(text_line(text, sizeof(text) - 1, "one", out, sizeof(out)));
	assert_false(text_line(text, sizeof(text) - 1, "address", out, 11)); /* does not fit */
	assert_false(text_line(text, 0, "address", out, sizeof(out)));
	for (size_t n = 0; n < sizeof(text); n++)
		text_line(text, n, "last", out, sizeof(out));
}

static void test_addresses(void **state)
{
	static const char *const bad[] = {"", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/33",
		"1.2.3.4/", "1.2.3.4/x", "1..3.4", " 1.2.3.4", "1.2.3.4 ", "-1.2.3.4",
		"1.2.3.4/8/8", "99999999999.1.1.1", "a.b.c.d"};
	static const char *const bad_mac[] = {"", "02", "02:00:00:00:00", "02:00:00:00:00:0g",
		"02:00:00:00:00:00:", "0200:00:00:00:00", "02-00-00-00-00-00"};
	struct inet ip;
	u8 mac[6];
	int bits;

	assert_true(parse_ip("10.200.0.255/20", &ip, &bits));
	assert_memory_equal(ip.addr, "\x0a\xc8\x00\xff", 4);
	assert_int_equal(bits, 20);
	assert_true(parse_ip("1.2.3.4", &ip, &bits));
	assert_int_equal(bits, 32);
	assert_false(parse_ip("1.2.3.4/8", &ip, NULL)); /* where there are no bits */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(parse_ip(bad[i], &ip, &bits));
	assert_true(parse_mac("02:aB:00:ff:10:09", mac));
	assert_memory_equal(mac, "\x02\xab\x00\xff\x10\x09", 6);
	for (size_t i = 0; i < ARRAY_SIZE(bad_mac); i++)
		assert_false(parse_mac(bad_mac[i], mac));
}

static void test_users(void **state)
{
	static const char *const bad[] = {"", "x", "-1", "4294967295", "4294967296", "1x",
		"99999999999999999999"};
	char line[] = "a:b::d", many[] = "1:2:3:4:5:6:7:8";
	char *f[FIELDS];
	u32 id;

	assert_int_equal(split(line, f), 4);
	assert_string_equal(f[1], "b");
	assert_string_equal(f[2], "");
	assert_string_equal(f[6], "");
	assert_int_equal(split(many, f), FIELDS);
	assert_string_equal(f[6], "7");
	assert_true(parse_id("4294967294", &id));
	assert_int_equal(id, 4294967294u);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(parse_id(bad[i], &id));
	assert_true(is_member("a,bc,d", "bc"));
	assert_false(is_member("a,bcd,d", "bc"));
	assert_false(is_member("a,abc", "bc"));
	assert_true(is_member("", ""));
}

/* Lines of every length around those of the buffers; one that is too long counts as empty. */
static void test_long_lines(void **state)
{
	static struct lines l;
	static char text[3 * LINE_CAP];
	int fd[2];

	for (size_t n = LINE_CAP - 3; n < LINE_CAP + 3; n++) {
		assert_int_equal(pipe2(fd, 0), 0);
		memset(text, 'x', n);
		text[n] = '\n';
		memcpy(text + n + 1, "next\nlast", 9);
		assert_int_equal(write(fd[1], text, n + 10), n + 10);
		close(fd[1]);
		l.fd = fd[0];
		l.at = l.len = 0;
		assert_true(next_line(&l));
		assert_int_equal(strlen(l.line), n < LINE_CAP ? n : 0);
		assert_true(next_line(&l));
		assert_string_equal(l.line, "next");
		assert_true(next_line(&l));
		assert_string_equal(l.line, "last");
		assert_false(next_line(&l));
		close(fd[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_request_of_most),
		cmocka_unit_test(test_any_frames),
		cmocka_unit_test(test_stdin_goes_round),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_long_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
