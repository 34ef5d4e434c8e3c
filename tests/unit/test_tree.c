/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_tree.c - trees by frames: what arrives is what was sent; and a sender that says anything at
 * all harms nothing but its destination.
 */
#include "monitor/base/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

#define ROUNDS 3000u

/* Two ends, and a directory: src, dst, and what neither may touch. */
struct rig {
	char *dir;
	char src[128], dst[128], safe[128];
	struct frame_reader in[2];
	struct tree tree[2]; /* [0] sends, [1] receives */
	struct err e;
	int result;
};

static struct rig rig;

static int setup(void **state)
{
	struct rig *r = &rig;
	int fd[2];

	r->dir = tmpdir_make();
	snprintf(r->src, sizeof(r->src), "%s/src", r->dir);
	snprintf(r->dst, sizeof(r->dst), "%s/dst", r->dir);
	snprintf(r->safe, sizeof(r->safe), "%s/safe", r->dir);
	file_write(r->safe, "safe", 4);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	for (int i = 0; i < 2; i++) {
		memset(&r->tree[i], 0, sizeof(r->tree[i]));
		r->in[i].fd = fd[i];
		r->in[i].have = 0;
		r->tree[i].in = &r->in[i];
		r->tree[i].mode_mask = 07777;
	}
	return 0;
}

static int teardown(void **state)
{
	for (int i = 0; i < 2; i++)
		if (rig.in[i].fd >= 0)
			close(rig.in[i].fd);
	tmpdir_remove(rig.dir);
	free(rig.dir);
	return 0;
}

static void *send_thread(void *arg)
{
	rig.result = tree_send(&rig.tree[0], rig.src, &rig.e);
	return NULL;
}

/* Sends src to dst. Returns what tree_recv() did. */
static int transfer(const char *base, struct err *e)
{
	pthread_t t;
	int r;

	assert_int_equal(pthread_create(&t, NULL, send_thread, NULL), 0);
	r = tree_recv(&rig.tree[1], rig.dst, base, e);
	assert_int_equal(pthread_join(t, NULL), 0);
	return r;
}

static void expect_file(const char *path, const void *data, size_t len, mode_t mode)
{
	struct stat st;
	size_t got;
	u8 *p = file_read(path, &got);

	assert_int_equal(got, len);
	assert_memory_equal(p, data, len);
	free(p);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | mode);
}

static void test_file(void **state)
{
	const struct timespec ts[2] = {{1, 2}, {-5, 999999999}}; /* before 1970 */
	static u8 data[3 * FRAME_DATA + 17];
	struct stat st;
	struct err e;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 31 >> 4);
	file_write(rig.src, data, sizeof(data));
	assert_int_equal(chmod(rig.src, 04640), 0);
	assert_int_equal(utimensat(AT_FDCWD, rig.src, ts, 0), 0);
	rig.tree[1].mode_mask = 0777;
	assert_int_equal(transfer("src", &e), 0);
	assert_int_equal(rig.result, 0);
	expect_file(rig.dst, data, sizeof(data), 0640);
	assert_int_equal(stat(rig.dst, &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, -5);
	assert_int_equal(st.st_mtim.tv_nsec, 999999999);
	assert_int_equal(rig.tree[1].bytes, sizeof(data));
	assert_int_equal(rig.tree[0].files + rig.tree[1].files, 2);
}

static void test_depth(void **state)
{
	char path[4096];
	struct err e;
	size_t at;

	/* As deep as it may be, and one more. */
	for (unsigned depth = TREE_DEPTH; depth <= TREE_DEPTH + 1; depth++) {
		at = (size_t)snprintf(path, sizeof(path), "%s", rig.src);
		for (unsigned i = 0; i < depth; i++) {
			assert_true(!mkdir(path, 0755) || errno == EEXIST);
			at += (size_t)snprintf(path + at, sizeof(path) - at, "/d");
		}
		if (depth > TREE_DEPTH) {
			assert_int_equal(tree_send(&rig.tree[0], rig.src, &e), -ELOOP);
		} else {
			assert_int_equal(transfer("src", &e), 0);
			assert_int_equal(rig.tree[1].dirs, TREE_DEPTH);
		}
	}
}

static void test_receiver_fails(void **state)
{
	struct err e;

	/* What it says reaches the sender, who is in the middle of a file that never ends. */
	file_write(rig.src, "", 0);
	assert_int_equal(truncate(rig.src, 1ll << 40), 0);
	assert_int_equal(frame_send(rig.in[1].fd, FR_ERROR, "\1\0\0\0full", 8, &e), 0);
	assert_int_equal(tree_send(&rig.tree[0], rig.src, &e), -EREMOTEIO);
	assert_string_equal(e.msg, "full");
	/* It just leaves. */
	close(rig.in[1].fd);
	rig.in[1].fd = -1;
	assert_true(tree_send(&rig.tree[0], rig.src, &e) < 0);
}

/* ---- a sender that says anything ---- */

static u64 seed;
static unsigned depth;

static u32 below(u32 n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(seed >> 33) % n;
}

static u32 put_name(u8 *p)
{
	static const char *const names[] = {"a", "b", "c", "d", "l", "a", "b", "..", ".", "",
		"../safe", "/etc/passwd", "a/b", "dst", "safe"};
	const char *name = names[below(below(16) ? 7 : ARRAY_SIZE(names))];
	u32 n = (u32)strlen(name) + 1;

	memcpy(p, name, n);
	return n;
}

static u32 put_target(u8 *p)
{
	static const char *const targets[] = {"..", "../safe", "/", "a", ".", "../.."};
	const char *t = targets[below(ARRAY_SIZE(targets))];
	u32 n = (u32)strlen(t) + 1;

	memcpy(p, t, n);
	return n;
}

/* One frame, mostly of a kind that fits. */
static void send_any(int fd)
{
	static const u8 types[] = {FR_FILE, FR_FILE, FR_DIR, FR_UP, FR_LINK, FR_NOTE, FR_DATA,
		FR_FILE_END, FR_TREE_END, FR_OK, FR_ERROR};
	u8 p[600] = {0}, type = types[below(below(40) ? 6 : ARRAY_SIZE(types))];
	u32 len = 0;

	if (type == FR_UP && depth == 1 && below(20))
		type = FR_DIR;
	depth += type == FR_DIR;
	depth -= type == FR_UP && depth;

	if (type == FR_FILE || type == FR_DIR) {
		le_put(p, below(2) ? 0755 : below(010000) | 0700, 4);
		le_put(p + 4, below(2) ? seed : 1, 8);
		len = type == FR_FILE ? 20 : 12;
		len += put_name(p + len);
	} else if (type == FR_LINK) {
		len = put_name(p);
		len += put_target(p + len);
	} else if (type == FR_DATA) {
		len = below(500);
	} else if (type == FR_FILE_END) {
		len = 8;
	}
	if (!below(100))
		len = below(len + 3);
	frame_send(fd, type, p, len, NULL);
	/* A file that is right, because few would be by chance. */
	if (type == FR_FILE && below(8)) {
		frame_send(fd, FR_DATA, "12345", 5, NULL);
		le_put(p, below(20) ? 5 : 4, 8);
		frame_send(fd, FR_FILE_END, p, 8, NULL);
	}
}

static void test_any_sender(void **state)
{
	unsigned fds, good = 0;
	struct err e;

	close(rig.in[1].fd); /* each round makes its own */
	fds = fd_count();
	for (unsigned i = 0; i < ROUNDS; i++) {
		int fd[2];
		bool dir = i % 2;

		seed = i;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
		depth = dir;
		if (dir) {
			mkdir(rig.dst, 0755);
			frame_send(fd[0], FR_DIR, "\355\1\0\0\0\0\0\0\0\0\0\0d", 14, &e);
		}
		for (unsigned k = below(16); k; k--)
			send_any(fd[0]);
		for (unsigned k = below(20) ? depth : below(4); k; k--)
			frame_send(fd[0], FR_UP, NULL, 0, &e);
		frame_send(fd[0], FR_TREE_END, NULL, 0, &e);
		shutdown(fd[0], SHUT_WR);
		rig.in[1] = (struct frame_reader){.fd = fd[1]};
		good += !tree_recv(&rig.tree[1], rig.dst, below(2) ? "." : "src", &e);
		close(fd[0]);
		close(fd[1]);
		rig.in[1].fd = -1;
		/* Nothing beside dst, nothing half made, nothing left open. */
		expect_file(rig.safe, "safe", 4, 0600);
		assert_in_range(dir_count(rig.dir, ""), 1, 2);
		assert_int_equal(dir_count(rig.dir, ".kelvin"), 0);
		assert_int_equal(fd_count(), fds);
		if (i % 8 == 7 && !access(rig.dst, F_OK))
			tmpdir_remove(rig.dst);
	}
	assert_true(good > ROUNDS / 10); /* or it was not much of a test */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_depth, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receiver_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_sender, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
