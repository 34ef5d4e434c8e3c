/* SPDX-License-Identifier: Apache-2.0 */
/* test_api.c - the routes of the API, over a real socket and a machine that is not there. */
#include "monitor/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/fake_machine.h"
#include "tests/lib/http_peer.h"
#include "tests/lib/tmpdir.h"

#define JSON_FAULT "An error occurred when deserializing the json body of a request: "

/* Whole requests, for clients other than the fixture's. */
#define PUT_SNAPSHOT(dir)                                                                          \
	"PUT /kelvin/snapshot HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"dir\":\"" dir "\"}"
#define PAUSE  "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
#define RESUME "PATCH /vm HTTP/1.1\r\nContent-Length: 19\r\n\r\n{\"state\":\"Resumed\"}"

struct fixture {
	struct machine m;
	struct api *api;
	struct sockaddr_un sa;
	socklen_t sa_len;
	int client;
	struct heard heard;
};

static int dial(const struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&f->sa, f->sa_len), 0);
	return fd;
}

static void setup(struct fixture *f, enum life_state life)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct err e;

	memset(f, 0, sizeof(*f));
	f->m.state = life;
	f->sa.sun_family = AF_UNIX;
	f->sa_len = sizeof(f->sa);
	/* A name of the kernel's choice, without a file. */
	assert_int_equal(bind(fd, (struct sockaddr *)&f->sa, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&f->sa, &f->sa_len), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(ring_create(&f->m.ring, 32, &e), 0);
	assert_int_equal(api_create(&f->api, &f->m, fd, &e), 0);
	f->client = dial(f);
}

static void teardown(struct fixture *f)
{
	api_destroy(&f->api);
	assert_null(f->api);
	ring_destroy(&f->m.ring);
	close(f->client);
}

static void say(struct fixture *f, int fd, const char *text)
{
	peer_send(f->m.ring, fd, text, strlen(text));
}

static void ask(struct fixture *f, const char *method, const char *path, const char *body)
{
	char request[HTTP_PEER_MAX];

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s",
		method, path, strlen(body), body);
	peer_ask(f->m.ring, f->client, request, 1, &f->heard);
}

static void assert_fault(const struct fixture *f, const char *text)
{
	char want[512];

	snprintf(want, sizeof(want), "{\"fault_message\":\"%s", text);
	if (f->heard.status != 400 || strncmp(f->heard.body, want, strlen(want)))
		fail_msg("wanted %s, got %s", want, f->heard.text);
}

static void assert_empty_204(const struct fixture *f)
{
	assert_string_equal(f->heard.text,
		"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n");
}

static void test_questions(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	ask(&f, "GET", "/", "");
	assert_int_equal(f.heard.status, 200);
	assert_non_null(strstr(f.heard.body, "\"app_name\":\"kelvin\""));
	ask(&f, "GET", "/version", "");
	assert_string_equal(f.heard.body, "{\"firecracker_version\":\"1.2.3\"}");
	ask(&f, "GET", "/vm/config", "");
	assert_string_equal(f.heard.body,
		"{\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128}}");
	ask(&f, "GET", "/machine-config", "");
	assert_string_equal(f.heard.body, "{\"vcpu_count\":1,\"mem_size_mib\":128}");
	ask(&f, "GET", "/machine-config/", "");
	assert_int_equal(f.heard.status, 200);
	ask(&f, "GET", "http://localhost/version", "");
	assert_int_equal(f.heard.status, 200);
	teardown(&f);
}

static void test_no_such_route(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	ask(&f, "PUT", "/foo", "{}");
	assert_fault(&f, "Invalid request method and/or path: PUT foo.\"}");
	ask(&f, "GET", "/foo/bar", "");
	assert_fault(&f, "Invalid request method and/or path: GET foo.\"}");
	ask(&f, "PUT", "/version", "{}");
	assert_fault(&f, "Invalid request method and/or path: PUT version.\"}");
	ask(&f, "GET", "/vm/../version", "");
	assert_fault(&f, "Invalid request method and/or path: GET vm.\"}");
	ask(&f, "GET", "/%2e%2e", "");
	assert_fault(&f, "Invalid request method and/or path: GET %2e%2e.\"}");
	ask(&f, "DELETE", "/", "");
	assert_fault(&f, "Invalid request method and/or path: DELETE .\"}");
	/* A fault is an answer like others: the connection goes on. */
	ask(&f, "GET", "/version", "");
	assert_int_equal(f.heard.status, 200);
	teardown(&f);
}

static void test_a05_bodies(void **state)
{
	static const struct {
		const char *body, *fault;
	} cases[] = {
		{"", "Empty PATCH request."},
		{"{", JSON_FAULT},
		{"[]", JSON_FAULT "expected an object."},
		{"\"Paused\"", JSON_FAULT},
		{"{}", JSON_FAULT "missing field `state`."},
		{"{\"state\":null}", JSON_FAULT},
		{"{\"state\":1}",
			JSON_FAULT "invalid type for `state`"},
		{"{\"state\":\"paused\"}",
			JSON_FAULT "unknown variant `paused`"},
		{"{\"state\":\"Paused\",\"x\":1}",
			JSON_FAULT "unknown field `x`, expected `state`."},
		{"{\"state\":\"Paused\",\"state\":\"Paused\"}", JSON_FAULT},
		{"{\"state\":\"Paused\"} x", JSON_FAULT},
		{"{\"state\":NaN}", JSON_FAULT},
		{"{\"state\":1e400}", JSON_FAULT},
		{"{\"state\":18446744073709551616}", JSON_FAULT},
		{"{\"state\":\"\\ud800\"}", JSON_FAULT},
		{"{\"state\":\"a\\u0000b\"}", JSON_FAULT},
		{"\xef\xbb\xbf{\"state\":\"Paused\"}", JSON_FAULT},
		{"{\"state\":\"\xff\"}", JSON_FAULT},
		/* A name cut in the middle of a character must not make the answer invalid. */
		{"{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xc3\xa9\":1}",
			JSON_FAULT},
	};
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ask(&f, "PATCH", "/vm", cases[i].body);
		assert_fault(&f, cases[i].fault);
	}
	ask(&f, "GET", "/version", "{}");
	assert_fault(&f, "GET request cannot have a body.");
	assert_int_equal(f.m.pauses + f.m.resumes, 0);
	teardown(&f);
}

static void test_a05_depth(void **state)
{
	char body[HTTP_PEER_MAX / 2];
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	memset(body, '[', sizeof(body) - 1);
	body[sizeof(body) - 1] = 0;
	ask(&f, "PATCH", "/vm", body);
	assert_fault(&f, JSON_FAULT "maximum");
	teardown(&f);
}

/* Every route in every state: done, or refused with a reason, and never acted upon when refused. */
static void test_a07_routes_by_state(void **state)
{
	static const struct {
		const char *method, *path, *body;
		const char *allowed; /* one letter a state, in the order of LIFE_STATES */
	} routes[] = {
		{"GET", "/", "", "ncrpst"},
		{"GET", "/version", "", "ncrpst"},
		{"GET", "/vm/config", "", "ncrpst"},
		{"GET", "/machine-config", "", "ncrpst"},
		{"GET", "/kelvin/facts", "", "ncrpst"},
		{"GET", "/kelvin/snapshot", "", "ncrpst"},
		{"PATCH", "/vm", "{\"state\":\"Paused\"}", "rp"},
		{"PATCH", "/vm", "{\"state\":\"Resumed\"}", "rp"},
		{"PUT", "/snapshot/create", "{\"snapshot_path\":\"/nowhere/x\"}", "p"},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/nowhere/x\"}", "rp"},
		{"PUT", "/kelvin/stop", "{}", "crps"},
		{"PUT", "/kelvin/kill", "{}", "crps"},
	};
	struct fixture f;

	for (unsigned s = 0; s < LIFE_COUNT; s++) {
		for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
			bool allowed = strchr(routes[i].allowed, "ncrpst"[s]);

			setup(&f, s);
			ask(&f, routes[i].method, routes[i].path, routes[i].body);
			if ((f.heard.status < 300) != allowed)
				fail_msg("%s %s in state %s: %s", routes[i].method, routes[i].path,
					life_name(s), f.heard.text);
			if (!allowed) {
				assert_fault(&f, "");
				assert_int_equal(f.m.state, s);
				assert_int_equal(f.m.stops + f.m.pauses + f.m.snapshots, 0);
			}
			teardown(&f);
		}
	}
}

static void test_pause_and_resume(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	f.m.slow_pause = true;
	say(&f, f.client, PAUSE);
	peer_turn(f.m.ring, 20);
	assert_int_equal(f.m.pause_waiters, 1);
	fake_paused(&f.m);
	peer_hear(f.m.ring, f.client, 1, &f.heard);
	assert_empty_204(&f);
	ask(&f, "PATCH", "/vm", "{\"state\":\"Resumed\"}");
	assert_empty_204(&f);
	assert_int_equal(f.m.state, LIFE_RUNNING);
	f.m.slow_pause = false;
	f.m.pause_error = "it does not want to";
	ask(&f, "PATCH", "/vm", "{\"state\":\"Paused\"}");
	assert_fault(&f, "Cannot pause the VM: it does not want to\"}");
	teardown(&f);
}

static void test_a03_vanished_while_pausing(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	f.m.slow_pause = true;
	say(&f, f.client, PAUSE);
	peer_turn(f.m.ring, 20);
	assert_int_equal(f.m.pause_waiters, 1);
	close(f.client);
	peer_turn(f.m.ring, 20);
	fake_paused(&f.m);
	peer_turn(f.m.ring, 20);
	f.client = dial(&f);
	ask(&f, "GET", "/version", "");
	assert_int_equal(f.heard.status, 200);
	teardown(&f);
}

/* The VM ends while a request waits for it, and its answer comes after the API is gone. */
static void test_destroy_before_answer(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	f.m.slow_snapshot = true;
	say(&f, f.client, PUT_SNAPSHOT("/a/b"));
	peer_turn(f.m.ring, 20);
	assert_int_equal(f.m.snapshots, 1);
	api_destroy(&f.api);
	fake_written(&f.m);
	peer_hear(f.m.ring, f.client, 1, &f.heard);
	assert_true(f.heard.closed);
	assert_int_equal(f.heard.len, 0);
	teardown(&f);
}

static void test_stop_is_answered_first(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	say(&f, f.client, "PUT /kelvin/stop HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
	while (!f.m.stops)
		peer_turn(f.m.ring, 1);
	assert_string_equal(f.m.stop_why, "stop");
	assert_int_equal(f.m.stop_wait_ns, 10000000000ull);
	api_destroy(&f.api); /* the loop has ended */
	peer_hear(f.m.ring, f.client, 1, &f.heard);
	assert_empty_204(&f);
	teardown(&f);
	setup(&f, LIFE_PAUSED);
	ask(&f, "PUT", "/kelvin/kill", "{}");
	assert_empty_204(&f);
	assert_string_equal(f.m.stop_why, "kill");
	ask(&f, "PUT", "/kelvin/kill", "{\"now\":true}");
	assert_fault(&f, JSON_FAULT "unknown field `now`");
	assert_int_equal(f.m.stops, 1);
	teardown(&f);
}

static void test_stop_waits_as_long_as_asked(void **state)
{
	static const struct {
		const char *body;
		u64 ns;
	} good[] = {{"{\"wait_ms\":0}", 0}, {"{\"wait_ms\":1}", 1000000},
		{"{\"wait_ms\":null}", 10000000000ull},
		{"{\"wait_ms\":9223372036854775807}", INT32_MAX * 1000000ull}};
	static const char *const bad[] = {"{\"wait_ms\":-1}", "{\"wait_ms\":1.5}",
		"{\"wait_ms\":\"1\"}", "{\"wait_ms\":true}"};
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		ask(&f, "PUT", "/kelvin/stop", good[i].body);
		assert_empty_204(&f);
		assert_int_equal(f.m.stop_wait_ns, good[i].ns);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ask(&f, "PUT", "/kelvin/stop", bad[i]);
		assert_fault(&f, JSON_FAULT "invalid type for `wait_ms`, expected a number");
	}
	assert_int_equal(f.m.stops, ARRAY_SIZE(good));
	teardown(&f);
}

static void test_kelvin_snapshot(void **state)
{
	struct fixture f;

	/* Running: paused for it, and running again. */
	setup(&f, LIFE_RUNNING);
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\",\"force\":true}");
	assert_int_equal(f.heard.status, 200);
	assert_non_null(strstr(f.heard.body, "\"data_bytes\":4096"));
	assert_non_null(strstr(f.heard.body, "\"state\":\"running\""));
	assert_non_null(strstr(f.heard.body, "\"pause_us\":"));
	assert_string_equal(f.m.dir, "/a/b");
	assert_true(f.m.force);
	assert_int_equal(f.m.state, LIFE_RUNNING);
	/* Failed: running again, too. */
	f.m.snapshot_error = "no space";
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\",\"stop\":true}");
	assert_fault(&f, "Create snapshot error: no space\"}");
	assert_int_equal(f.m.state, LIFE_RUNNING);
	assert_int_equal(f.m.stops, 0);
	f.m.snapshot_error = NULL;
	/* And stopped. */
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\",\"stop\":true}");
	assert_int_equal(f.heard.status, 200);
	assert_non_null(strstr(f.heard.body, "\"state\":\"stopped\""));
	assert_int_equal(f.m.stops, 1);
	assert_false(f.m.force);
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"b\"}");
	assert_fault(&f, "Create snapshot error: \\\"b\\\" is not an absolute path");
	teardown(&f);
	/* Paused before: stays so. */
	setup(&f, LIFE_PAUSED);
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\"}");
	assert_non_null(strstr(f.heard.body, "\"state\":\"paused\""));
	assert_non_null(strstr(f.heard.body, "\"pause_us\":0"));
	assert_int_equal(f.m.resumes, 0);
	teardown(&f);
}

/* While one client's snapshot runs, others are told to wait, and nothing they say breaks it. */
static void test_a09_two_clients(void **state)
{
	struct heard other;
	struct fixture f;
	int second;

	setup(&f, LIFE_RUNNING);
	second = dial(&f);
	f.m.slow_pause = f.m.slow_snapshot = true;
	say(&f, f.client, PUT_SNAPSHOT("/a/b"));
	peer_turn(f.m.ring, 20);
	say(&f, second, PAUSE);
	peer_turn(f.m.ring, 20);
	assert_int_equal(f.m.pause_waiters, 2);
	fake_paused(&f.m);
	peer_hear(f.m.ring, second, 1, &other);
	assert_int_equal(other.status, 204);
	peer_ask(f.m.ring, second, RESUME, 1, &other);
	assert_int_equal(other.status, 400);
	assert_non_null(strstr(other.body, "The VM is snapshotting"));
	fake_written(&f.m);
	peer_hear(f.m.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 200);
	/* The second client was promised a paused VM. */
	assert_non_null(strstr(f.heard.body, "\"state\":\"paused\""));
	assert_int_equal(f.m.state, LIFE_PAUSED);
	assert_int_equal(f.m.resumes, 0);
	/* Once it lets go, snapshots resume again what they paused. */
	peer_ask(f.m.ring, second, RESUME, 1, &other);
	assert_int_equal(other.status, 204);
	f.m.slow_pause = f.m.slow_snapshot = false;
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\"}");
	assert_int_equal(f.m.state, LIFE_RUNNING);
	close(second);
	teardown(&f);
}

/* Two snapshots at once: one is written, the other is refused and does not resume the VM early. */
static void test_a09_two_snapshots(void **state)
{
	struct heard other;
	struct fixture f;
	int second;

	setup(&f, LIFE_RUNNING);
	second = dial(&f);
	f.m.slow_pause = f.m.slow_snapshot = true;
	say(&f, f.client, PUT_SNAPSHOT("/a/b"));
	peer_turn(f.m.ring, 20);
	say(&f, second, PUT_SNAPSHOT("/a/c"));
	peer_turn(f.m.ring, 20);
	fake_paused(&f.m);
	peer_hear(f.m.ring, second, 1, &other);
	assert_int_equal(other.status, 400);
	assert_int_equal(f.m.state, LIFE_SNAPSHOTTING);
	fake_written(&f.m);
	peer_hear(f.m.ring, f.client, 1, &f.heard);
	assert_int_equal(f.heard.status, 200);
	assert_int_equal(f.m.state, LIFE_RUNNING);
	assert_int_equal(f.m.snapshots, 1);
	close(second);
	teardown(&f);
}

static void test_snapshot_create(void **state)
{
	char dir[] = "/tmp/kelvin-api-XXXXXX", body[512], path[128];
	struct fixture f;
	FILE *file;

	assert_non_null(mkdtemp(dir));
	setup(&f, LIFE_PAUSED);
	snprintf(body, sizeof(body),
		"{\"snapshot_path\":\"%s/state\",\"mem_file_path\":\"%s/memory\","
		"\"snapshot_type\":\"Full\"}",
		dir, dir);
	ask(&f, "PUT", "/snapshot/create", body);
	assert_empty_204(&f);
	assert_string_equal(f.m.dir, dir);
	assert_true(f.m.force);
	/* A directory with anything else in it is not ours to replace. */
	snprintf(path, sizeof(path), "%s/thesis", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	ask(&f, "PUT", "/snapshot/create", body);
	assert_fault(&f, "Create snapshot error: /tmp/kelvin-api-");
	assert_int_equal(f.m.snapshots, 1);
	unlink(path);
	rmdir(dir);
	ask(&f, "PUT", "/snapshot/create",
		"{\"snapshot_path\":\"/a/snap\",\"mem_file_path\":\"/a/mem\"}");
	assert_fault(&f, "Create snapshot error: a snapshot is a directory here");
	ask(&f, "PUT", "/snapshot/create",
		"{\"snapshot_path\":\"/a/state\",\"mem_file_path\":\"/b/memory\"}");
	assert_fault(&f, "Create snapshot error: a snapshot is a directory here");
	ask(&f, "PUT", "/snapshot/create", "{\"snapshot_path\":\"a\"}");
	assert_fault(&f, "Create snapshot error: \\\"a\\\" is not an absolute path");
	ask(&f, "PUT", "/snapshot/create",
		"{\"snapshot_path\":\"/a/b\",\"snapshot_type\":\"Diff\"}");
	assert_fault(&f, "Create snapshot error: snapshot_type Diff is not supported");
	ask(&f, "PUT", "/snapshot/create",
		"{\"snapshot_path\":\"/a/b\",\"snapshot_type\":\"Half\"}");
	assert_fault(&f, JSON_FAULT);
	assert_int_equal(f.m.snapshots, 1);
	f.m.state = LIFE_RUNNING;
	ask(&f, "PUT", "/snapshot/create", "{\"snapshot_path\":\"/a/b\"}");
	assert_fault(&f, "Create snapshot error: save/restore unavailable while running");
	assert_int_equal(f.m.state, LIFE_RUNNING);
	teardown(&f);
}

static void test_a03_eleventh_connection(void **state)
{
	struct fixture f;
	int fd[10];

	setup(&f, LIFE_RUNNING);
	for (unsigned i = 0; i < 10; i++)
		fd[i] = dial(&f);
	peer_hear(f.m.ring, fd[9], 1, &f.heard);
	assert_string_equal(f.heard.text,
		"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
		"Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }");
	peer_hear(f.m.ring, fd[9], 2, &f.heard);
	assert_true(f.heard.closed);
	/* The others work, and one that goes makes room. */
	ask(&f, "GET", "/version", "");
	assert_int_equal(f.heard.status, 200);
	close(fd[0]);
	peer_turn(f.m.ring, 20);
	fd[0] = dial(&f);
	peer_ask(f.m.ring, fd[0], "GET /version HTTP/1.1\r\n\r\n", 1, &f.heard);
	assert_int_equal(f.heard.status, 200);
	for (unsigned i = 0; i < 10; i++)
		close(fd[i]);
	teardown(&f);
}

/* Clients that begin requests and say no more do not keep others out for ever. */
static void test_a03_stalled_clients_are_dropped(void **state)
{
	struct fixture f;
	int fd[9];

	setup(&f, LIFE_RUNNING);
	for (unsigned i = 0; i < 9; i++) {
		fd[i] = dial(&f);
		say(&f, fd[i], "GET /");
	}
	peer_turn(f.m.ring, 20);
	peer_hear(f.m.ring, fd[8], 1, &f.heard);
	assert_int_equal(f.heard.status, 408);
	for (unsigned i = 0; i < 9; i++)
		close(fd[i]);
	teardown(&f);
}

static void test_large_reply(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	f.m.reply_padding = 60000;
	ask(&f, "GET", "/kelvin/facts", "");
	assert_int_equal(f.heard.status, 200);
	assert_true(strlen(f.heard.body) > 60000);
	teardown(&f);
}

static void test_device_changes(void **state)
{
	struct fixture f;

	setup(&f, LIFE_RUNNING);
	ask(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"path_on_host\":\"/new\",\"rate_limiter\":"
		"{\"ops\":{\"size\":10,\"refill_time\":100}}}");
	assert_empty_204(&f);
	assert_int_equal(f.m.changes, 1);
	assert_string_equal(f.m.change_path, "/new");
	assert_int_equal(f.m.change_limit.ops.size, 10);
	ask(&f, "PATCH", "/network-interfaces/net0",
		"{\"iface_id\":\"net0\",\"rx_rate_limiter\":"
		"{\"bandwidth\":{\"size\":99,\"refill_time\":100}}}");
	assert_empty_204(&f);
	assert_int_equal(f.m.change_limit.bytes.size, 99);
	ask(&f, "PATCH", "/drives/disk0", "{\"drive_id\":\"other\"}");
	assert_fault(&f, "The id from the path [disk0] does not match the id from the body [other]!");
	ask(&f, "PATCH", "/drives/nope", "{\"drive_id\":\"nope\"}");
	assert_fault(&f, "Drive config error: Invalid device id");
	ask(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"path_on_host\":\"new\"}");
	assert_fault(&f, "Drive config error: \\\"new\\\" is not an absolute path");
	ask(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"rate_limiter\":{\"iops\":1}}");
	assert_fault(&f, JSON_FAULT "rate_limiter: unknown field `iops`");
	ask(&f, "PATCH", "/drives/disk0", "{\"drive_id\":\"disk0\",\"rate_limiter\":3}");
	assert_fault(&f, JSON_FAULT "invalid type for `rate_limiter`, expected an object.");
	ask(&f, "PATCH", "/drives/", "{}");
	assert_fault(&f, "The ID cannot be empty.");
	ask(&f, "PATCH", "/drives/a/b", "{}");
	assert_fault(&f, "Invalid request method and/or path: PATCH drives.");
	ask(&f, "PATCH", "/drives/a%2fb", "{}");
	assert_fault(&f, "API Resource IDs can only contain");
	assert_int_equal(f.m.changes, 2);
	teardown(&f);
}

/* ask() with @n descriptors. */
static void ask_with(struct fixture *f, const char *method, const char *path, const char *body,
	unsigned n)
{
	char request[1024];
	int len = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s",
		method, path, strlen(body), body);

	peer_send_files(f->client, request, (size_t)len, n);
	peer_hear(f->m.ring, f->client, 1, &f->heard);
}

#define HANDED "{\"dir\":\"/a/b\",\"files\":[\"state\",\"memory\"]}"
#define HANDED_STOP "{\"dir\":\"/a/b\",\"files\":[\"state\",\"memory\"],\"stop\":true}"

static void test_snapshot_into_files(void **state)
{
	struct fixture f;
	unsigned fds;

	setup(&f, LIFE_RUNNING);
	ask(&f, "GET", "/kelvin/snapshot", "");
	assert_string_equal(f.heard.body, "{\"files\":[\"state\",\"memory\"]}");
	fds = fd_count();
	ask_with(&f, "PUT", "/kelvin/snapshot", HANDED, 2);
	assert_int_equal(f.heard.status, 200);
	assert_int_equal(f.m.handed, 2);
	assert_int_equal(f.m.state, LIFE_RUNNING);
	assert_int_equal(fd_count(), fds);
	f.m.pause_error = "no";
	ask_with(&f, "PUT", "/kelvin/snapshot", HANDED, 2);
	assert_fault(&f, "Create snapshot error: the VM does not pause: no");
	assert_int_equal(fd_count(), fds);
	teardown(&f);
}

/* What the body does not name, or names and does not bring, is refused; nothing is kept. */
static void test_a05_files_and_their_names(void **state)
{
	static const struct {
		const char *method, *path, *body;
		unsigned n;
		const char *fault;
	} cases[] = {
		{"PUT", "/kelvin/snapshot", HANDED, 1, JSON_FAULT "invalid type for `files`"},
		{"PUT", "/kelvin/snapshot", HANDED, 3, JSON_FAULT "invalid type for `files`"},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/a\",\"files\":[\"a\",\"a\"]}", 2, JSON_FAULT},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/a\",\"files\":[\"a\",1]}", 2, JSON_FAULT},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/a\",\"files\":\"a\"}", 1, JSON_FAULT},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/a\",\"files\":null}", 1, "The request came"},
		{"PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\"}", 1, "The request came with file"},
		{"PUT", "/kelvin/snapshot", "{", 1, JSON_FAULT},
		{"PUT", "/kelvin/nothing", "{}", 1, "Invalid request method"},
		{"PUT", "/kelvin/kill", "{}", 1, "The request came with file descriptors"},
		{"PATCH", "/vm", "{\"state\":\"Paused\"}", 1, "The request came with file"},
		{"PATCH", "/drives/a%", "{}", 1, "API Resource IDs"},
		{"GET", "/version", "", 1, "The request came with file descriptors"},
	};
	struct fixture f;
	unsigned fds;

	setup(&f, LIFE_RUNNING);
	ask(&f, "GET", "/version", "");
	fds = fd_count();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ask_with(&f, cases[i].method, cases[i].path, cases[i].body, cases[i].n);
		assert_fault(&f, cases[i].fault);
		assert_int_equal(fd_count(), fds);
	}
	ask(&f, "PUT", "/kelvin/snapshot", HANDED);
	assert_fault(&f, JSON_FAULT "invalid type for `files`");
	assert_int_equal(f.m.pauses + f.m.snapshots + f.m.stops, 0);
	teardown(&f);
}

/* With "stop" the VM waits for its client to end it, and goes on without one. */
static void test_paused_until_the_client_stops_it(void **state)
{
	struct heard other;
	struct fixture f;
	int second;

	for (unsigned held = 0; held < 2; held++) {
		setup(&f, LIFE_RUNNING);
		ask_with(&f, "PUT", "/kelvin/snapshot", HANDED_STOP, 2);
		assert_int_equal(f.heard.status, 200);
		assert_non_null(strstr(f.heard.body, "\"state\":\"paused\""));
		assert_int_equal(f.m.state, LIFE_PAUSED);
		assert_int_equal(f.m.stops, 0);
		second = dial(&f);
		peer_ask(f.m.ring, second, held ? PAUSE : "GET / HTTP/1.1\r\n\r\n", 1, &other);
		close(second);
		peer_turn(f.m.ring, 20);
		assert_int_equal(f.m.resumes, 0);
		close(f.client);
		peer_turn(f.m.ring, 20);
		/* Somebody else may have been promised a paused VM. */
		assert_int_equal(f.m.state, held ? LIFE_PAUSED : LIFE_RUNNING);
		f.client = dial(&f);
		teardown(&f);
	}
	setup(&f, LIFE_RUNNING);
	ask_with(&f, "PUT", "/kelvin/snapshot", HANDED_STOP, 2);
	ask(&f, "PUT", "/kelvin/stop", "{\"wait_ms\":0}");
	assert_empty_204(&f);
	assert_int_equal(f.m.stops, 1);
	teardown(&f);
	assert_int_equal(f.m.resumes, 0);
	/* A VM that was paused before stays so. */
	setup(&f, LIFE_PAUSED);
	ask_with(&f, "PUT", "/kelvin/snapshot", HANDED_STOP, 2);
	assert_int_equal(f.heard.status, 200);
	close(f.client);
	peer_turn(f.m.ring, 20);
	assert_int_equal(f.m.state, LIFE_PAUSED);
	f.client = dial(&f);
	teardown(&f);
}

static void test_a_jailed_vm_takes_no_paths(void **state)
{
	struct fixture f;

	setup(&f, LIFE_PAUSED);
	f.m.jailed = true;
	ask(&f, "PUT", "/snapshot/create", "{\"snapshot_path\":\"/a/b\"}");
	assert_fault(&f, "Create snapshot error: this VM is jailed and sees no files of the host: use "
		"kelvin snapshot, which hands it open files, or start it with --no-jail\"}");
	ask(&f, "PUT", "/kelvin/snapshot", "{\"dir\":\"/a/b\"}");
	assert_fault(&f, "Create snapshot error: this VM is jailed");
	assert_int_equal(f.m.snapshots, 0);
	ask_with(&f, "PUT", "/kelvin/snapshot", HANDED, 2);
	assert_int_equal(f.heard.status, 200);
	teardown(&f);
}

static void test_a_drive_from_an_open_file(void **state)
{
	struct fixture f;
	unsigned fds;

	setup(&f, LIFE_RUNNING);
	ask(&f, "GET", "/version", "");
	fds = fd_count();
	ask_with(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"path_on_host\":\"/n\",\"files\":[\"path_on_host\"]}", 1);
	assert_empty_204(&f);
	assert_int_equal(f.m.handed, 1);
	assert_string_equal(f.m.change_path, "/n");
	ask_with(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"path_on_host\":\"/n\",\"files\":[\"image\"]}", 1);
	assert_fault(&f, "Drive config error: the one file to hand over is `path_on_host`");
	ask_with(&f, "PATCH", "/drives/disk0",
		"{\"drive_id\":\"disk0\",\"files\":[\"path_on_host\"]}", 1);
	assert_fault(&f, "Drive config error: the one file to hand over is `path_on_host`");
	assert_int_equal(f.m.changes, 1);
	assert_int_equal(fd_count(), fds);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_changes),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_no_such_route),
		cmocka_unit_test(test_a05_bodies),
		cmocka_unit_test(test_a05_depth),
		cmocka_unit_test(test_a07_routes_by_state),
		cmocka_unit_test(test_pause_and_resume),
		cmocka_unit_test(test_a03_vanished_while_pausing),
		cmocka_unit_test(test_destroy_before_answer),
		cmocka_unit_test(test_stop_is_answered_first),
		cmocka_unit_test(test_stop_waits_as_long_as_asked),
		cmocka_unit_test(test_kelvin_snapshot),
		cmocka_unit_test(test_a09_two_clients),
		cmocka_unit_test(test_a09_two_snapshots),
		cmocka_unit_test(test_snapshot_create),
		cmocka_unit_test(test_a03_eleventh_connection),
		cmocka_unit_test(test_a03_stalled_clients_are_dropped),
		cmocka_unit_test(test_large_reply),
		cmocka_unit_test(test_snapshot_into_files),
		cmocka_unit_test(test_a05_files_and_their_names),
		cmocka_unit_test(test_paused_until_the_client_stops_it),
		cmocka_unit_test(test_a_jailed_vm_takes_no_paths),
		cmocka_unit_test(test_a_drive_from_an_open_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
