/* SPDX-License-Identifier: Apache-2.0 */
/* test_client.c - names of VMs, requests to them, and what is said when they do not answer. */
#include "monitor/client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/tmpdir.h"

static void test_j01_ids(void **state)
{
	static const char *const good[] = {"a", "A-b_c.9", "_x", "0", "a..b"};
	static const char *const bad[] = {"", ".", "..", ".a", "-a", "a/b", "/", "a b", "a\nb",
		"\xc3\xa9", "../x"};
	char id[VM_ID_MAX + 2];
	struct err e;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(vm_id_check(good[i], &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(vm_id_check(bad[i], &e), -EINVAL);
	memset(id, 'a', sizeof(id));
	id[VM_ID_MAX + 1] = 0;
	assert_int_equal(vm_id_check(id, &e), -EINVAL);
	id[VM_ID_MAX] = 0;
	assert_int_equal(vm_id_check(id, &e), 0);
}

static void test_paths(void **state)
{
	char path[64];
	struct err e;

	setenv("KELVIN_RUN_DIR", "/r", 1);
	assert_int_equal(vm_path(path, sizeof(path), "web", "api.sock", &e), 0);
	assert_string_equal(path, "/r/web/api.sock");
	assert_int_equal(vm_path(path, sizeof(path), "web", NULL, &e), 0);
	assert_string_equal(path, "/r/web");
	/* It fits to the byte, or not at all. */
	assert_int_equal(vm_path(path, 16, "web", "api.sock", &e), 0);
	assert_int_equal(vm_path(path, 15, "web", "api.sock", &e), -ENAMETOOLONG);
	assert_int_equal(vm_path(path, sizeof(path), "../web", NULL, &e), -EINVAL);
	setenv("KELVIN_RUN_DIR", "relative", 1);
	assert_int_equal(run_dir(path, sizeof(path), &e), -EINVAL);
	unsetenv("KELVIN_RUN_DIR");
	setenv("XDG_RUNTIME_DIR", "/xdg", 1);
	assert_int_equal(run_dir(path, sizeof(path), &e), 0);
	assert_string_equal(path, geteuid() ? "/xdg/kelvin" : "/run/kelvin");
}

/* ---- VMs played by a child process ---- */

struct fixture {
	char *base;
	pid_t server;
};

static void setup(struct fixture *f)
{
	f->base = tmpdir_make();
	f->server = 0;
	setenv("KELVIN_RUN_DIR", f->base, 1);
}

static void stop_server(struct fixture *f)
{
	int status;

	if (!f->server)
		return;
	kill(f->server, SIGKILL);
	waitpid(f->server, &status, 0);
	f->server = 0;
}

static void teardown(struct fixture *f)
{
	stop_server(f);
	tmpdir_remove(f->base);
	free(f->base);
}

static void make_dir(const char *id)
{
	char path[256];

	assert_int_equal(vm_path(path, sizeof(path), id, NULL, NULL), 0);
	mkdir(path, 0700);
}

static int listen_at(const char *id)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	make_dir(id);
	assert_int_equal(vm_path(sa.sun_path, sizeof(sa.sun_path), id, "api.sock", NULL), 0);
	unlink(sa.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* Begins another process: true in that one, the other lets go of @fd. */
static bool in_server(struct fixture *f, int fd)
{
	f->server = fork();
	assert_true(f->server >= 0);
	if (f->server)
		close(fd);
	else
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return !f->server;
}

/* VM @id answers every request with @reply, @piece bytes at a time, and hangs up. NULL: hangs. */
static void serve(struct fixture *f, const char *id, const char *reply, size_t piece)
{
	int fd = listen_at(id);
	char request[4096];

	if (!in_server(f, fd))
		return;
	for (;;) {
		int c = accept(fd, NULL, NULL);

		if (recv(c, request, sizeof(request), 0) <= 0)
			_exit(1);
		if (!reply)
			pause();
		for (size_t at = 0; at < strlen(reply); at += piece) {
			size_t left = strlen(reply) - at;

			send(c, reply + at, left < piece ? left : piece, MSG_NOSIGNAL);
			usleep(200);
		}
		close(c);
	}
}

#define OK_REPLY                                                                                   \
	"HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}"

static void test_replies(void **state)
{
	static const struct {
		const char *reply;
		int code;
		const char *text; /* part of the message; for code 0 the reply's a */
	} cases[] = {
		{OK_REPLY, 0, "1"},
		{"HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n", 0, NULL},
		{"HTTP/1.1 400 \r\nContent-Length: 24\r\n\r\n{\"fault_message\":\"no!\"}  ",
			-EREMOTEIO, "VM \"x\": no!"},
		{"HTTP/1.1 503\r\nContent-Length: 18\r\n\r\n{ \"error\": \"full\"}", -EREMOTEIO,
			"VM \"x\": full"},
		{"HTTP/1.1 500 \r\nContent-Length: 3\r\n\r\n???", -EREMOTEIO, "status 500"},
		{"HTTP/1.1 200 \r\nContent-Length: 7\r\n\r\n{\"a\":", -EPIPE,
			"ended before it answered"},
		{"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n{{{", -EPROTO, "not JSON"},
		{"220 mail.example ESMTP\r\n", -EPROTO, "not HTTP"},
		{"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n", -EPIPE, "ended"},
	};
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		const char *want = cases[i / 2].text;
		json_t *reply = NULL;
		struct err e;
		int r;

		serve(&f, "x", cases[i / 2].reply, i % 2 ? 1 : 4096);
		r = client_call("x", "GET", "/", NULL, 5000, &reply, &e);
		if (r != cases[i / 2].code || (r && !strstr(e.msg, want)))
			fail_msg("case %zu: %d %s", i / 2, r, r ? e.msg : "");
		if (!r && want)
			assert_int_equal(json_integer_value(json_object_get(reply, "a")), 1);
		else
			assert_null(reply);
		json_decref(reply);
		stop_server(&f);
	}
	teardown(&f);
}

static void test_nobody_answers(void **state)
{
	struct fixture f;
	char path[256];
	struct err e;

	setup(&f);
	assert_int_equal(client_call("x", "GET", "/", NULL, 1000, NULL, &e), -ENOENT);
	assert_string_equal(e.msg, "no VM called \"x\" (see kelvin ps)");
	assert_int_equal(client_call("../x", "GET", "/", NULL, 1000, NULL, &e), -EINVAL);
	close(listen_at("x"));
	assert_int_equal(client_call("x", "GET", "/", NULL, 1000, NULL, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.msg, "VM \"x\" is dead (kelvin kill x removes what it left)"));
	assert_int_equal(vm_path(path, sizeof(path), "x", "exit.json", &e), 0);
	assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
	assert_int_equal(client_call("x", "GET", "/", NULL, 1000, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "VM \"x\" has ended"));
	unlink(path);
	serve(&f, "x", NULL, 1);
	assert_int_equal(client_call("x", "GET", "/", NULL, 50, NULL, &e), -ETIMEDOUT);
	assert_non_null(strstr(e.msg, "did not answer within 50 ms"));
	teardown(&f);
}

/* VM @id answers with @head, and then with @part for ever, with pauses. */
static void serve_endless(struct fixture *f, const char *id, const char *head, const char *part,
	size_t len, unsigned pause_us)
{
	int fd = listen_at(id), c;

	if (!in_server(f, fd))
		return;
	while ((c = accept(fd, NULL, NULL)) >= 0) {
		send(c, head, strlen(head), MSG_NOSIGNAL);
		while (send(c, part, len, MSG_NOSIGNAL) > 0)
			usleep(pause_us);
		close(c);
	}
	_exit(1);
}

#define CHUNKED "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"

/* A chunk of one byte, and what HTTP lets one say about it. */
static char *huge_chunk(size_t *ret_len)
{
	char *chunk = malloc(79000 + 8);

	memset(chunk, 'x', 79000);
	memcpy(chunk, "1;", 2);
	memcpy(chunk + 79000, "\r\n \r\n", 5);
	*ret_len = 79000 + 5;
	return chunk;
}

static u64 now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
}

/* Who never stops talking is not listened to for longer, nor for more, than who says nothing. */
static void test_endless_replies(void **state)
{
	static const char *const ids[] = {"x"};
	struct fixture f;
	json_t *reply;
	struct err e;
	size_t len;
	char *chunk = huge_chunk(&len);
	u64 begin;

	setup(&f);
	serve_endless(&f, "x", CHUNKED, "1\r\n \r\n", 6, 100);
	begin = now_ms();
	assert_int_equal(client_call("x", "GET", "/", NULL, 200, NULL, &e), -ETIMEDOUT);
	client_get_each(ids, 1, "/", 200, &reply, &e);
	assert_int_equal(e.code, -ETIMEDOUT);
	assert_true(now_ms() - begin < 5000);
	stop_server(&f);
	serve_endless(&f, "x", CHUNKED, chunk, len, 0);
	assert_int_equal(client_call("x", "GET", "/", NULL, 20000, NULL, &e), -EPROTO);
	assert_non_null(strstr(e.msg, "answers with more than"));
	client_get_each(ids, 1, "/", 20000, &reply, &e);
	assert_int_equal(e.code, -EPROTO);
	free(chunk);
	teardown(&f);
}

/* An array of @n values, as a whole reply, owned by the caller. */
static char *reply_of(const char *value, size_t n)
{
	size_t len = n * (strlen(value) + 1) + 1;
	char *text = malloc(len + 100), *p;

	p = text + sprintf(text, "HTTP/1.1 200 \r\nContent-Length: %zu\r\n\r\n[", len);
	for (size_t i = 0; i < n; i++)
		p += sprintf(p, "%s%c", value, i + 1 < n ? ',' : ']');
	return text;
}

/* Short text that makes many objects is refused, long text that makes few is not. */
static void test_replies_that_grow(void **state)
{
	static const struct {
		const char *value;
		size_t n;
		const char *text;
	} cases[] = {
		{"{}", 5000, "more than 4096 values"},
		{"{}", 87000, "more than 4096 values"},
		{"\"\\\"\",[0,[{\"\":0}]]", 1000, "more than 4096 values"},
		{"{}", 2000, NULL},
		{"\",,,,,:::::[[[[[\\\",,,,,,,,,,{\"", 4000, NULL},
		{"{\"\":\"0123456789012345678901234567890123456789012345678901234567890\"}", 5000,
			"more than 256 KiB"},
	};
	struct fixture f;

	setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = reply_of(cases[i].value, cases[i].n);
		json_t *reply = NULL;
		struct err e;
		int r;

		serve(&f, "x", text, 65536);
		r = client_call("x", "GET", "/", NULL, 5000, &reply, &e);
		if (r != (cases[i].text ? -EPROTO : 0) || (r && !strstr(e.msg, cases[i].text)))
			fail_msg("case %zu: %d %s", i, r, r ? e.msg : "");
		assert_int_equal(json_array_size(reply), r ? 0 : cases[i].n);
		json_decref(reply);
		stop_server(&f);
		free(text);
	}
	teardown(&f);
}

/* More VMs than one batch; one answers, one hangs, the rest are dead. */
static void test_many_at_once(void **state)
{
	enum { COUNT = 200, GOOD = 3, HANGS = 150 };
	static char names[COUNT][8];
	static struct err errs[COUNT];
	const char *ids[COUNT];
	json_t *replies[COUNT];
	struct fixture f, hangs;

	setup(&f);
	hangs.server = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(names[i], sizeof(names[i]), "v%u", i);
		ids[i] = names[i];
		if (i == GOOD)
			serve(&f, ids[i], OK_REPLY, 1);
		else if (i == HANGS)
			serve(&hangs, ids[i], NULL, 1);
		else
			close(listen_at(ids[i]));
	}
	client_get_each(ids, COUNT, "/", 300, replies, errs);
	for (unsigned i = 0; i < COUNT; i++) {
		if (i == GOOD)
			assert_int_equal(json_integer_value(json_object_get(replies[i], "a")), 1);
		else
			assert_null(replies[i]);
		assert_int_equal(errs[i].code,
			i == GOOD ? 0 : i == HANGS ? -ETIMEDOUT : -ECONNREFUSED);
		json_decref(replies[i]);
	}
	stop_server(&hangs);
	teardown(&f);
}

/* Writes "seen" into each file that comes with a request, and answers; for every request. */
static void serve_files(struct fixture *f, const char *id)
{
	int fd = listen_at(id), c, file[16];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(file))];
	} control;
	char request[4096];

	if (!in_server(f, fd))
		return;
	c = accept(fd, NULL, NULL);
	for (;;) {
		struct iovec iov = {request, sizeof(request)};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			.msg_controllen = sizeof(control)};
		size_t n;

		if (recvmsg(c, &msg, 0) <= 0)
			_exit(1);
		n = msg.msg_controllen ? (control.head.cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		memcpy(file, CMSG_DATA(&control.head), n * sizeof(int));
		while (n)
			if (write(file[--n], "seen", 4) != 4)
				_exit(1);
		if (send(c, OK_REPLY, strlen(OK_REPLY), MSG_NOSIGNAL) < 0)
			_exit(1);
	}
}

static void test_files_go_along(void **state)
{
	struct client_request q = {.id = "x", .method = "GET", .path = "/", .timeout_ms = 5000};
	int sock, file[CLIENT_FILES_MAX];
	struct fixture f;
	struct stat st;
	struct err e;

	setup(&f);
	serve_files(&f, "x");
	for (unsigned i = 0; i < CLIENT_FILES_MAX; i++)
		file[i] = memfd_create("file", MFD_CLOEXEC);
	assert_int_equal(client_dial(&sock, "x", &e), 0);
	q.files = file;
	/* One connection, several requests: each file goes where it was sent, once. */
	for (q.file_count = 0; q.file_count <= CLIENT_FILES_MAX; q.file_count += 8)
		assert_int_equal(client_ask(sock, &q, NULL, &e), 0);
	for (unsigned i = 0; i < CLIENT_FILES_MAX; i++) {
		assert_int_equal(fstat(file[i], &st), 0);
		assert_int_equal(st.st_size, i < 8 ? 8 : 4);
		close(file[i]);
	}
	close(sock);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_j01_ids),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_nobody_answers),
		cmocka_unit_test(test_endless_replies),
		cmocka_unit_test(test_replies_that_grow),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_files_go_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
