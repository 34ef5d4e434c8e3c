/* SPDX-License-Identifier: Apache-2.0 */
/* test_dev_spec.c - disks and networks: options, their JSON in snapshots, clones, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/dev_spec.h"

static struct dev_spec d; /* large */
static struct err e;

static int fresh(void **state)
{
	memset(&d, 0, sizeof(d));
	e = (struct err){0};
	return 0;
}

static void ok(int r)
{
	if (r)
		fail_msg("%s", e.msg);
}

static void says(int r, const char *text)
{
	assert_true(r < 0);
	if (!strstr(e.msg, text))
		fail_msg("\"%s\" is not in: %s", text, e.msg);
}

static void test_disks(void **state)
{
	ok(disk_option(&d, "path=/img", false, &e));
	ok(disk_option(&d, "path=/two,id=data,ro,sync=direct,ops=1000,bytes=10M,burst=1s", false,
		&e));
	ok(disk_option(&d, "path=/three,overlay=/o,sync=unsafe", false, &e));
	assert_int_equal(d.disk_count, 3);
	assert_string_equal(d.disk[0].id, "disk0");
	assert_string_equal(d.disk[0].path, "/img");
	assert_int_equal(d.disk[0].sync, DISK_WRITEBACK);
	assert_int_equal(d.disk[0].limit.ops.size, 0);
	assert_string_equal(d.disk[1].id, "data");
	assert_true(d.disk[1].read_only);
	assert_int_equal(d.disk[1].sync, DISK_DIRECT);
	assert_int_equal(d.disk[1].limit.ops.size, 1000);
	assert_int_equal(d.disk[1].limit.ops.refill_ns, 1000000000);
	assert_int_equal(d.disk[1].limit.bytes.size, 10 << 20);
	assert_true(d.disk[2].is_overlaid);
	assert_string_equal(d.disk[2].overlay, "/o");
}

static void test_disk_mistakes(void **state)
{
	says(disk_option(&d, "ro", false, &e), "path= is missing");
	says(disk_option(&d, "path=/a,id=a/b", false, &e), "id \"a/b\"");
	says(disk_option(&d, "path=/a,ro,overlay=/o", false, &e), "exclude each other");
	says(disk_option(&d, "path=/a,burst=1s", false, &e), "burst goes with");
	says(disk_option(&d, "path=/a,sync=never", false, &e), "writeback, unsafe or direct");
	says(disk_option(&d, "path=/\xff", false, &e), "UTF-8");
	assert_int_equal(d.disk_count, 0);
	ok(disk_option(&d, "path=/a,id=disk1", false, &e));
	says(disk_option(&d, "path=/b,id=disk1", false, &e), "is taken");
	says(disk_option(&d, "path=/b", false, &e), "is taken"); /* it would be disk1 */
	for (unsigned i = 1; i < DISKS_MAX; i++) {
		char text[32];

		snprintf(text, sizeof(text), "path=/x,id=x%u", i);
		ok(disk_option(&d, text, false, &e));
	}
	says(disk_option(&d, "path=/b,id=more", false, &e), "there can be 10");
}

static void test_disk_changes(void **state)
{
	says(disk_option(&d, "path=/b", true, &e), "the snapshot has no disk");
	says(disk_option(&d, "id=x,path=/b", true, &e), "the snapshot has no disk");
	says(net_option(&d, "tap=t", true, &e), "the snapshot has no network");
	ok(disk_option(&d, "path=/a,ops=5", false, &e));
	d.disk[0].has_identity = true;
	ok(disk_option(&d, "sync=direct", true, &e));
	assert_true(d.disk[0].has_identity);
	assert_string_equal(d.disk[0].path, "/a");
	ok(disk_option(&d, "id=disk0,path=/b", true, &e));
	assert_false(d.disk[0].has_identity);
	assert_string_equal(d.disk[0].path, "/b");
	assert_int_equal(d.disk[0].sync, DISK_DIRECT);
	assert_int_equal(d.disk[0].limit.ops.size, 1);
	says(disk_option(&d, "ro", true, &e), "stays writable");
	says(disk_option(&d, "id=other,path=/b", true, &e), "no disk \"other\"");
	ok(disk_option(&d, "path=/c", false, &e));
	says(disk_option(&d, "path=/b", true, &e), "has 2 disks: say which");
}

static void test_disk_json(void **state)
{
	struct disk_spec s;
	json_t *j;

	ok(disk_option(&d, "path=/a,id=root,overlay=/o,bytes=1M", false, &e));
	d.disk[0].identity = (struct disk_identity){1, 2, 4096, UINT64_MAX};
	j = disk_to_json(&d.disk[0]);
	ok(disk_from_json(&s, j, &e));
	assert_string_equal(s.id, "root");
	assert_string_equal(s.path, "/a");
	assert_string_equal(s.overlay, "");
	assert_true(s.is_overlaid && s.has_identity);
	assert_memory_equal(&s.identity, &d.disk[0].identity, sizeof(s.identity));
	assert_memory_equal(&s.limit, &d.disk[0].limit, sizeof(s.limit));
	json_object_set_new(j, "id", json_string("../x"));
	says(disk_from_json(&s, j, &e), "id \"../x\"");
	json_object_set_new(j, "id", json_string("x"));
	json_object_set_new(j, "sync", json_string("often"));
	says(disk_from_json(&s, j, &e), "makes no sense");
	json_object_set_new(j, "sync", json_string("direct"));
	json_object_set_new(j, "ro", json_true());
	says(disk_from_json(&s, j, &e), "makes no sense");
	json_object_del(j, "ro");
	says(disk_from_json(&s, j, &e), "disks:");
	json_decref(j);
}

static bool known;
static const struct host_share share = {16 << 20, 2, false};

/* A snapshot's machine with one of each, and the text that vouches for it. */
static char *vouched(void)
{
	d = (struct dev_spec){0};
	ok(disk_option(&d, "path=/a,id=root,overlay=/o", false, &e));
	ok(disk_option(&d, "path=/b,id=data,ro", false, &e));
	ok(net_option(&d, "tap=tap0", false, &e));
	ok(net_option(&d, "user", false, &e));
	return dev_host_text(&d, &share);
}

static void vouch(const char *text, bool trusted)
{
	ok(dev_host_vouch(&d, &share, text, text ? strlen(text) : 0, trusted, &known, &e));
}

static void test_host_vouches_for_names(void **state)
{
	char *text = vouched();

	ok(dev_host_check(text, strlen(text), &e));
	vouch(text, true);
	for (unsigned i = 0; i < 2; i++)
		assert_true(!d.disk[i].unnamed && !d.net[i].unnamed);
	assert_string_equal(d.disk[1].path, "/b");
	/* Who took over the VM's process writes "machine", and not this. */
	snprintf(d.disk[0].path, PATH_MAX, "/dev/sda");
	snprintf(d.net[0].tap, IFNAMSIZ, "tap1");
	d.net[1].way = NET_BY_TAP;
	vouch(text, true);
	assert_non_null(strstr(d.disk[0].unnamed, "does not know"));
	assert_string_equal(d.disk[0].path, "");
	assert_null(d.disk[1].unnamed);
	assert_true(d.net[0].unnamed && d.net[1].unnamed);
	ok(disk_option(&d, "id=root,path=/c", true, &e));
	ok(net_option(&d, "id=net0,mac=random", true, &e));
	ok(net_option(&d, "id=net1,tap=x", true, &e));
	assert_true(!d.disk[0].unnamed && d.net[0].unnamed && !d.net[1].unnamed);
	free(text);
	text = vouched();
	snprintf(d.disk[0].id, sizeof(d.disk[0].id), "other");
	snprintf(d.net[1].id, sizeof(d.net[1].id), "other");
	vouch(text, true);
	assert_true(d.disk[0].unnamed && !d.net[0].unnamed && d.net[1].unnamed);
	free(text);
}

static void test_host_is_not_there_or_not_to_be_trusted(void **state)
{
	char *text = vouched();

	vouch(text, false);
	assert_non_null(strstr(d.disk[1].unnamed, "not yours alone"));
	assert_true(d.disk[0].unnamed && d.net[0].unnamed && d.net[1].unnamed);
	free(text);
	text = vouched();
	vouch(NULL, true);
	assert_non_null(strstr(d.disk[1].unnamed, "has no file host"));
	assert_true(d.disk[0].unnamed && d.net[0].unnamed && d.net[1].unnamed);
	free(text);
}

/* A base that clones share is not written because a snapshot says so. */
static void test_host_says_what_is_written(void **state)
{
	char *text = vouched();

	d.disk[1].read_only = false;
	says(dev_host_vouch(&d, &share, text, strlen(text), true, &known, &e),
		"\"data\": file host says otherwise");
	d.disk[1].read_only = true;
	d.disk[0].is_overlaid = false;
	says(dev_host_vouch(&d, &share, text, strlen(text), true, &known, &e),
		"\"root\": file host says otherwise");
	free(text);
}

/* Nor does a snapshot choose how much of the host its restore gets. */
static void test_host_says_what_there_is_of_it(void **state)
{
	static const struct {
		struct host_share share;
		const char *key;
	} forged[] = {
		{{17 << 20, 2, false}, "memory"},
		{{16 << 20, 3, false}, "vcpus"},
		{{16 << 20, 2, true}, "console"},
	};
	char *text = vouched();

	ok(dev_host_vouch(&d, &share, text, strlen(text), true, &known, &e));
	assert_true(known);
	for (size_t i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
		says(dev_host_vouch(&d, &forged[i].share, text, strlen(text), true, &known, &e),
			forged[i].key);
		ok(dev_host_vouch(&d, &forged[i].share, text, strlen(text), false, &known, &e));
		assert_false(known);
	}
	free(text);
	/* One from before does not say. */
	text = strdup("{\"disks\": [], \"nets\": []}");
	ok(dev_host_vouch(&d, &forged[0].share, text, strlen(text), true, &known, &e));
	assert_false(known);
	free(text);
}

static void test_host_forged(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "{}", "null", "1", "\xff", "{\"disks\": [], \"disks\": [], \"nets\": []}",
		"{\"disks\": [], \"nets\": {}}", "{\"disks\": 1, \"nets\": []}",
		"{\"disks\": [1], \"nets\": []}", "{\"disks\": [], \"nets\": [[]]}",
		"{\"disks\": [{\"id\": \"root\", \"path\": 1, \"ro\": false, \"overlay\": true}], "
		"\"nets\": []}",
		"{\"disks\": [{\"path\": \"/a\", \"ro\": false, \"overlay\": true}], \"nets\": []}",
		"{\"disks\": [], \"nets\": [{\"id\": \"net0\", \"way\": \"tap\", \"tap\": 1, "
		"\"sock\": \"\"}]}",
		"{\"disks\": [{\"id\": \"a\\u0000b\", \"path\": \"\", \"ro\": true, \"overlay\": true}], "
		"\"nets\": []}",
	};
	char *text = vouched();
	static char deep[100000];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		says(dev_host_check(bad[i], strlen(bad[i]), &e), "file host: ");
		says(dev_host_vouch(&d, &share, bad[i], strlen(bad[i]), true, &known, &e), "file host: ");
		says(dev_host_vouch(&d, &share, bad[i], strlen(bad[i]), false, &known, &e), "file host: ");
	}
	memset(deep, '[', sizeof(deep));
	says(dev_host_check(deep, sizeof(deep), &e), "file host: ");
	free(text);
}

static void test_nets(void **state)
{
	ok(net_option(&d, "tap=tap0,queues=4,mac=02:00:00:aB:00:01,mtu=9000,spoof", false, &e));
	ok(net_option(&d, "fd=7,rx-bytes=1M,tx-frames=100", false, &e));
	ok(net_option(&d, "passt=/sock", false, &e));
	ok(net_option(&d, "user,id=u", false, &e));
	assert_int_equal(d.net_count, 4);
	assert_memory_equal(d.net[0].mac, "\x02\0\0\xab\0\x01", 6);
	assert_int_equal(d.net[0].queues, 4);
	assert_int_equal(d.net[0].mtu, 9000);
	assert_true(d.net[0].allow_spoof);
	assert_int_equal(d.net[1].way, NET_BY_FD);
	assert_int_equal(d.net[1].fd, 7);
	assert_int_equal(d.net[1].rx.bytes.size, (1 << 20) / 10);
	assert_int_equal(d.net[1].tx.ops.size, 10);
	assert_int_equal(d.net[1].mac[0] & 3, 2); /* local, and of one station */
	assert_int_equal(d.net[2].way, NET_BY_PASST);
	assert_int_equal(d.net[3].way, NET_BY_USER);
}

static void test_net_mistakes(void **state)
{
	says(net_option(&d, "mtu=1500", false, &e), "one of tap=, fd=, passt= and user");
	says(net_option(&d, "tap=t,user", false, &e), "one of tap=");
	says(net_option(&d, "tap=interfacenametoolong", false, &e), "longer than 15");
	says(net_option(&d, "tap=t,mac=1:2", false, &e), "is not like");
	says(net_option(&d, "tap=t,mac=01:00:00:00:00:00", false, &e), "group address");
	says(net_option(&d, "tap=t,mac=00:00:00:00:00:00", false, &e), "is no address");
	says(net_option(&d, "tap=t,mac=02:00:00:00:00:01x", false, &e), "is not like");
	says(net_option(&d, "tap=t,mtu=67", false, &e), "68 to 65535");
	says(net_option(&d, "tap=t\xff", false, &e), "UTF-8");
	says(net_option(&d, "passt=/\xc3(", false, &e), "UTF-8");
	says(net_option(&d, "user,queues=2", false, &e), "queues goes with tap");
	assert_int_equal(d.net_count, 0);
}

static void test_net_json_and_changes(void **state)
{
	struct net_spec s;
	json_t *j;

	ok(net_option(&d, "tap=tap0,mac=02:00:00:00:00:01,queues=2", false, &e));
	j = net_to_json(&d.net[0]);
	ok(net_from_json(&s, j, &e));
	assert_string_equal(s.tap, "tap0");
	assert_int_equal(s.queues, 2);
	assert_memory_equal(s.mac, d.net[0].mac, 6);
	json_object_set_new(j, "queues", json_integer(17));
	says(net_from_json(&s, j, &e), "makes no sense");
	json_decref(j);
	ok(net_option(&d, "tap=tap1,mac=random", true, &e));
	assert_string_equal(d.net[0].tap, "tap1");
	assert_true(d.net[0].has_mac);
	says(net_option(&d, "queues=3", true, &e), "cannot change");
	says(net_option(&d, "id=x,tap=t", true, &e), "no network \"x\"");
}

static void test_clones(void **state)
{
	struct dev_spec *n = calloc(1, sizeof(*n));

	ok(disk_option(&d, "path=/a,overlay=/o%d.img", false, &e));
	ok(net_option(&d, "tap=vm%d", false, &e));
	ok(net_option(&d, "user", false, &e));
	*n = d;
	ok(dev_spec_number(n, 12, &e));
	assert_string_equal(n->disk[0].overlay, "/o12.img");
	assert_string_equal(n->net[0].tap, "vm12");
	*n = d;
	snprintf(n->disk[0].overlay, sizeof(n->disk[0].overlay), "/o");
	says(dev_spec_number(n, 0, &e), "overlay= of disk \"disk0\"");
	*n = d;
	n->disk[0].overlay[0] = 0; /* private ones */
	ok(dev_spec_number(n, 0, &e));
	*n = d;
	n->disk[0].overlay[0] = 0;
	n->disk[0].is_overlaid = false;
	says(dev_spec_number(n, 0, &e), "give it an overlay");
	n->disk[0].read_only = true;
	ok(dev_spec_number(n, 0, &e));
	*n = d;
	snprintf(n->net[0].tap, sizeof(n->net[0].tap), "vm");
	says(dev_spec_number(n, 0, &e), "--net id=net0,tap=NAME%d");
	free(n);
}

/* The largest an operator can ask for: they go through JSON, whose numbers are signed. */
static void test_huge_limits_are_saved(void **state)
{
	const u64 hour_ns = 3600000000000;
	struct limit_config l = {.ops = limit_of(UINT64_MAX, hour_ns),
		.bytes = limit_of(1ull << 63, 1000000000)}, back;
	json_t *j = limit_to_json(&l);

	assert_int_equal(l.ops.size, INT64_MAX);
	assert_int_equal(l.ops.refill_ns, 499999999); /* in half a second: the rate is right */
	assert_int_equal(l.bytes.size, INT64_MAX);
	ok(limit_from_json(&back, j, &e));
	assert_memory_equal(&l, &back, sizeof(l));
	json_decref(j);
}

static void test_limits(void **state)
{
	struct limit_config l;
	json_t *j;

	assert_int_equal(limit_of(0, 5).size, 0);
	assert_int_equal(limit_of(3, 100000000).size, 1); /* a third of a second each */
	assert_int_equal(limit_of(3, 100000000).refill_ns, 333333333);
	j = json_pack("{s:{s:i, s:i, s:i}, s:n}", "bandwidth", "size", 100, "refill_time", 20,
		"one_time_burst", 7, "ops");
	ok(limit_from_limiter(&l, j, &e));
	assert_int_equal(l.bytes.size, 100);
	assert_int_equal(l.bytes.refill_ns, 20000000);
	assert_int_equal(l.bytes.burst, 7);
	assert_int_equal(l.ops.size, 0);
	json_decref(j);
	j = limit_to_limiter(&l);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "bandwidth"),
				 "refill_time")), 20);
	json_object_set_new(j, "other", json_true());
	says(limit_from_limiter(&l, j, &e), "unknown field `other`");
	json_decref(j);
	j = json_pack("{s:{s:i, s:i}}", "ops", "size", -1, "refill_time", 20);
	says(limit_from_limiter(&l, j, &e), "ops: a number is out of range");
	json_decref(j);
	j = json_pack("{s:{s:i, s:i}}", "ops", "size", 0, "refill_time", 20);
	ok(limit_from_limiter(&l, j, &e)); /* switches it off */
	assert_int_equal(l.ops.size, 0);
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_disks, fresh),
		cmocka_unit_test_setup(test_disk_mistakes, fresh),
		cmocka_unit_test_setup(test_disk_changes, fresh),
		cmocka_unit_test_setup(test_disk_json, fresh),
		cmocka_unit_test_setup(test_host_vouches_for_names, fresh),
		cmocka_unit_test_setup(test_host_is_not_there_or_not_to_be_trusted, fresh),
		cmocka_unit_test_setup(test_host_says_what_is_written, fresh),
		cmocka_unit_test_setup(test_host_says_what_there_is_of_it, fresh),
		cmocka_unit_test_setup(test_host_forged, fresh),
		cmocka_unit_test_setup(test_nets, fresh),
		cmocka_unit_test_setup(test_net_mistakes, fresh),
		cmocka_unit_test_setup(test_net_json_and_changes, fresh),
		cmocka_unit_test_setup(test_clones, fresh),
		cmocka_unit_test_setup(test_huge_limits_are_saved, fresh),
		cmocka_unit_test_setup(test_limits, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
