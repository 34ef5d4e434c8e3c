/* SPDX-License-Identifier: Apache-2.0 */
/* test_vsock_connect.c - how connections are made: CONNECT lines, waiting, refusals, limits. */
#include "tests/lib/vsock_guest.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "virtio/vsock_int.h"

#define OP(name) VIRTIO_VSOCK_OP_##name
#define SHUT_S   VIRTIO_VSOCK_SHUTDOWN_SEND

static struct vg_pkt p;

static void test_guest_connects(void **state)
{
	struct vg g = {0};
	char got[5];
	int fd;

	vg_init(&g);
	vg_send(&g, 30, 40, OP(REQUEST), NULL, 0); /* nobody there */
	vg_expect(&g, &p, 30, 40, OP(RST));
	fd = vg_open_guest(&g, 30, 40);
	vg_send(&g, 30, 40, OP(RW), "there", 5);
	vg_read(&g, fd, got, 5);
	assert_memory_equal(got, "there", 5);
	vg_write(fd, "back", 4);
	vg_expect(&g, &p, 30, 40, OP(RW));
	assert_memory_equal(p.data, "back", 4);
	vg_send(&g, 30, 40, OP(CREDIT_REQUEST), NULL, 0);
	vg_expect(&g, &p, 30, 40, OP(CREDIT_UPDATE));
	assert_int_equal(p.h.fwd_cnt, 5);
	assert_int_equal(p.h.buf_alloc, VSOCK_TX_BUF_WIDE);
	close(fd);
	vg_finish(&g);
}

/* A service whose backlog is full gets a little time; then the guest is refused. */
static void test_guest_connects_to_busy_service(void **state)
{
	struct vg g = {0};
	int lfd, fd;

	vg_init(&g);
	lfd = vg_listen(&g, 40);
	assert_int_equal(listen(lfd, 0), 0);
	vg_send(&g, 1, 40, OP(REQUEST), NULL, 0);
	vg_expect(&g, &p, 1, 40, OP(RESPONSE));
	vg_send(&g, 2, 40, OP(REQUEST), NULL, 0);
	vg_run_ms(&g, 30);
	assert_false(vg_recv(&g, &p));
	fd = vg_accept(&g, lfd);
	vg_expect(&g, &p, 2, 40, OP(RESPONSE));
	close(fd);
	close(lfd);
	vg_finish(&g);
}

static void test_connect_lines(void **state)
{
	static const char *const good[] = {"CONNECT 5\n", "connect 5\n", "CoNnEcT 5 \r\n",
		"  CONNECT\t5\n", "CONNECT 00000000000000000000005\n", "CONNECT 5 END\n",
		"connect  5\tend \r\n"};
	static const char *const bad[] = {"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n",
		"CONNECT 5x\n", "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT5\n", "GET 5\n",
		"CONNECT 5 6\n", "CONNECT 5END\n", "CONNECT 5 ENDS\n", "CONNECT 5 END 5\n", "CONNECT END\n", "CONNECT 000000000000000000000005\n",
		"CONNECTCONNECTCONNECTCONNECTCONNECTCONNECT"};
	struct vg g = {0};
	int fd;

	vg_init(&g);
	for (u32 i = 0; i < ARRAY_SIZE(good); i++) {
		fd = vg_client(&g, good[i]);
		vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + i, OP(REQUEST));
		close(fd);
		vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + i, OP(RST));
	}
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = vg_client(&g, bad[i]);
		vg_read_end(&g, fd);
		close(fd);
	}
	fd = vg_client(&g, "");
	assert_int_equal(send(fd, "CONNECT 5\0 \n", 12, 0), 12);
	vg_read_end(&g, fd);
	close(fd);
	/* In pieces, and with payload right behind it, which must not be lost. */
	fd = vg_client(&g, "CON");
	vg_settle(&g);
	vg_write(fd, "NECT 4294", 9);
	vg_settle(&g);
	vg_write(fd, "967295\npayload", 14);
	VG_UNTIL(&g, vg_recv(&g, &p));
	vg_send(&g, UINT32_MAX, p.h.src_port, OP(RESPONSE), NULL, 0);
	vg_expect(&g, &p, UINT32_MAX, p.h.src_port, OP(RW));
	assert_int_equal(p.h.len, 7);
	assert_memory_equal(p.data, "payload", 7);
	close(fd);
	vg_finish(&g);
}

static void test_silent_client_is_closed(void **state)
{
	struct vg g = {0};
	u64 begin;
	int fd;

	vg_init(&g);
	begin = vg_now_ms();
	fd = vg_client(&g, "CONNECT");
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	vg_read_end(&g, fd);
	assert_true(vg_now_ms() - begin >= VSOCK_LINGER_MS - 10);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	close(fd);
	vg_finish(&g);
}

static void test_wait_for_driver(void **state)
{
	struct vg g = {.wait_ms = 1000};
	u64 begin;
	int fd, gone;

	vg_make(&g, NULL);
	gone = vg_client(&g, "CONNECT 5\n");
	fd = vg_client(&g, "CONNECT 6\n");
	vg_settle(&g);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	vg_driver(&g, 0);
	vg_settle(&g);
	/* At once, when there is a buffer, and without a timer. */
	begin = vg_now_ms();
	vg_add_rx(&g, 4);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST, OP(REQUEST));
	vg_expect(&g, &p, 6, VSOCK_PORT_FIRST + 1, OP(REQUEST));
	assert_true(vg_now_ms() - begin < 500);
	close(gone);
	close(fd);
	vg_finish(&g);
}

static void test_wait_for_listener(void **state)
{
	struct vg g = {.wait_ms = 1000};
	unsigned tries = 0;
	u64 begin;
	char got[3];
	int fd;

	vg_init(&g);
	fd = vg_client(&g, "CONNECT 5\n");
	for (begin = vg_now_ms(); vg_now_ms() - begin < 200; tries++) {
		vg_expect(&g, &p, 5, VSOCK_PORT_FIRST, OP(REQUEST));
		vg_send(&g, 5, VSOCK_PORT_FIRST, OP(RST), NULL, 0);
	}
	assert_in_range(tries, 4, 30); /* 1, 2, 4, 8, 16, 20, 20 ... ms apart */
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST, OP(REQUEST));
	vg_send(&g, 5, VSOCK_PORT_FIRST, OP(RESPONSE), NULL, 0);
	vg_read(&g, fd, got, 3);
	assert_memory_equal(got, "OK ", 3);
	close(fd);
	vg_finish(&g);
}

static void test_wait_ends(void **state)
{
	struct vg g = {.wait_ms = 100};
	u64 begin;
	int fd;

	vg_make(&g, NULL);
	begin = vg_now_ms();
	fd = vg_client(&g, "CONNECT 5\n");
	vg_read_end(&g, fd);
	assert_in_range(vg_now_ms() - begin, 99, 1000);
	close(fd);
	/* Refused again and again: the same. */
	vg_driver(&g, 64);
	begin = vg_now_ms();
	fd = vg_client(&g, "CONNECT 5\n");
	while (!vg_readable(fd)) {
		vg_turn(&g);
		if (vg_recv(&g, &p))
			vg_send(&g, 5, p.h.src_port, OP(RST), NULL, 0);
	}
	vg_read_end(&g, fd);
	assert_in_range(vg_now_ms() - begin, 99, 1000);
	close(fd);
	vg_finish(&g);

	/* No waiting at all. */
	g = (struct vg){0};
	vg_make(&g, NULL);
	begin = vg_now_ms();
	fd = vg_client(&g, "CONNECT 5\n");
	vg_read_end(&g, fd);
	close(fd);
	vg_driver(&g, 64);
	fd = vg_client(&g, "CONNECT 5\n");
	VG_UNTIL(&g, vg_recv(&g, &p));
	vg_send(&g, 5, p.h.src_port, OP(RST), NULL, 0);
	vg_read_end(&g, fd);
	assert_true(vg_now_ms() - begin < 500);
	close(fd);
	vg_finish(&g);
}

/* A client that leaves before it is answered is no connection for the guest to accept. */
static void test_client_leaves_early(void **state)
{
	struct vg g = {.wait_ms = 1000};
	char got[3];
	int fd;

	vg_make(&g, NULL);
	fd = vg_client(&g, "CONNECT 5\n");
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	close(fd);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	vg_driver(&g, 64);
	vg_expect_none(&g);
	fd = vg_client(&g, "CONNECT 5\n");
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 1, OP(REQUEST));
	close(fd);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 1, OP(RST));
	vg_send(&g, 5, VSOCK_PORT_FIRST + 1, OP(RESPONSE), NULL, 0);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 1, OP(RST));
	/* One that only has nothing more to say stays. */
	fd = vg_client(&g, "CONNECT 5\n");
	shutdown(fd, SHUT_WR);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 2, OP(REQUEST));
	vg_settle(&g);
	vg_send(&g, 5, VSOCK_PORT_FIRST + 2, OP(RESPONSE), NULL, 0);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 2, OP(SHUTDOWN));
	assert_int_equal(p.h.flags, SHUT_S);
	vg_read(&g, fd, got, 3);
	assert_memory_equal(got, "OK ", 3);
	close(fd);
	vg_finish(&g);
}

/* Accepting fails for a while: no spinning, and the client is served in the end. */
static void test_out_of_descriptors(void **state)
{
	struct vg g = {0};
	struct rlimit old, low;
	int fd[2], lowest;

	vg_make(&g, NULL);
	/* The listener may be one that does not block, too. */
	assert_int_equal(fcntl(container_of(g.dev, struct vsock, dev)->listen_fd, F_SETFL,
		O_NONBLOCK), 0);
	vg_driver(&g, 64);
	vg_settle(&g);
	fd[0] = vg_client(&g, "CONNECT 5\n");
	fd[1] = vg_client(&g, "CONNECT 5\n");
	/* One more is left. */
	lowest = dup(fd[0]);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)lowest + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST, OP(REQUEST));
	assert_in_range(vg_run_ms(&g, 100), 4, 30);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	/* A guest's connection needs one, too. */
	vg_send(&g, 1, 2, OP(REQUEST), NULL, 0);
	vg_expect(&g, &p, 1, 2, OP(RST));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	vg_expect(&g, &p, 5, VSOCK_PORT_FIRST + 1, OP(REQUEST));
	close(fd[0]);
	close(fd[1]);
	vg_finish(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_connects),
		cmocka_unit_test(test_guest_connects_to_busy_service),
		cmocka_unit_test(test_connect_lines),
		cmocka_unit_test(test_silent_client_is_closed),
		cmocka_unit_test(test_wait_for_driver),
		cmocka_unit_test(test_wait_for_listener),
		cmocka_unit_test(test_wait_ends),
		cmocka_unit_test(test_client_leaves_early),
		cmocka_unit_test(test_out_of_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
