/* SPDX-License-Identifier: Apache-2.0 */
/* test_vsock_end.c - how connections end: by halves, at once, slowly, and how the host learns. */
#include "tests/lib/vsock_guest.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"
#include "virtio/vsock_int.h"

#define OP(name)  VIRTIO_VSOCK_OP_##name
#define SHUT_R    VIRTIO_VSOCK_SHUTDOWN_RCV
#define SHUT_S    VIRTIO_VSOCK_SHUTDOWN_SEND

static struct vg_pkt p;

static void test_host_closes_half(void **state)
{
	struct vg g = {0};
	char got[5];
	u32 port;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_write(fd, "question", 8);
	shutdown(fd, SHUT_WR);
	vg_expect(&g, &p, 9, port, OP(RW));
	assert_int_equal(p.h.len, 8);
	vg_expect(&g, &p, 9, port, OP(SHUTDOWN));
	assert_int_equal(p.h.flags, SHUT_S);
	assert_int_equal(vg_run_ms(&g, 30), 0);
	/* The other half goes on, until the guest ends it. */
	vg_send(&g, 9, port, OP(RW), "reply", 5);
	vg_read(&g, fd, got, 5);
	assert_memory_equal(got, "reply", 5);
	vg_shutdown(&g, 9, port, SHUT_S);
	vg_expect(&g, &p, 9, port, OP(RST));
	vg_read_end(&g, fd);
	close(fd);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	vg_finish(&g);
}

static void test_guest_closes_half(void **state)
{
	struct vg g = {0};
	char got[8];
	u32 port;
	int fd;

	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_send(&g, 9, port, OP(RW), "question", 8);
	vg_shutdown(&g, 9, port, SHUT_S);
	vg_read(&g, fd, got, 8);
	vg_read_end(&g, fd);
	vg_write(fd, "reply", 5);
	vg_expect(&g, &p, 9, port, OP(RW));
	assert_memory_equal(p.data, "reply", 5);
	/* The host goes too: both halves are over. */
	close(fd);
	vg_expect(&g, &p, 9, port, OP(RST));
	vg_finish(&g);

	/* The guest stops reading only: the host cannot write any more, but reads on. */
	g = (struct vg){0};
	vg_init(&g);
	fd = vg_open_host(&g, 9, &port);
	vg_shutdown(&g, 9, port, SHUT_R);
	VG_UNTIL(&g, send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	vg_send(&g, 9, port, OP(RW), "question", 8);
	vg_read(&g, fd, got, 8);
	assert_int_equal(vg_run_ms(&g, 30), 0);
	vg_shutdown(&g, 9, port, SHUT_R | SHUT_S);
	vg_expect(&g, &p, 9, port, OP(RST));
	vg_read_end(&g, fd);
	close(fd);
	vg_finish(&g);
}

static void test_host_goes_away(void **state)
{
	struct vg g = {0};
	u64 begin;
	u32 port;
	int fd;

	vg_init(&g);
	/* The guest answers by closing too. */
	fd = vg_open_host(&g, 9, &port);
	vg_write(fd, "last", 4);
	close(fd);
	vg_expect(&g, &p, 9, port, OP(RW));
	vg_expect(&g, &p, 9, port, OP(SHUTDOWN));
	assert_int_equal(p.h.flags, SHUT_R | SHUT_S);
	vg_send(&g, 9, port, OP(RW), "too late", 8); /* swallowed */
	vg_shutdown(&g, 9, port, SHUT_R | SHUT_S);
	vg_expect(&g, &p, 9, port, OP(RST));
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	/* The guest does not answer. */
	fd = vg_open_host(&g, 9, &port);
	begin = vg_now_ms();
	close(fd);
	vg_expect(&g, &p, 9, port, OP(SHUTDOWN));
	vg_expect(&g, &p, 9, port, OP(RST));
	assert_in_range(vg_now_ms() - begin, VSOCK_LINGER_MS - 10, VSOCK_LINGER_MS + 1500);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	vg_finish(&g);
}

/* Reads the rest of a stream of @len bytes, of which @at came already, to its end. */
static void read_rest(struct vg *g, int fd, u32 at, u32 len)
{
	u64 end = vg_now_ms() + 5000;

	while (at < len) {
		u32 n = vg_drain(fd, at);

		at += n;
		if (!n)
			vg_turn(g);
		assert_true(vg_now_ms() < end);
	}
	vg_read_end(g, fd);
}

/* Past credit updates. */
static void expect_rst(struct vg *g)
{
	do
		VG_UNTIL(g, vg_recv(g, &p));
	while (p.h.op == OP(CREDIT_UPDATE));
	assert_int_equal(p.h.op, OP(RST));
}

/* The guest closes right after sending more than the socket takes: not a byte is lost. */
static void test_guest_closes_behind_data(void **state)
{
	struct vg g = {0};
	u32 sent;
	int fd;

	vg_init(&g);
	fd = vg_open_guest(&g, 30, 40);
	sent = vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 30, 40, SHUT_R | SHUT_S);
	read_rest(&g, fd, 0, sent);
	expect_rst(&g);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	close(fd);
	vg_finish(&g);
}

/* The same, and the host reads only when the guest has long given up; which costs nothing. */
static void test_guest_is_gone_before_the_host_reads(void **state)
{
	struct vg g = {0};
	u64 begin;
	u32 sent, other;
	int fd, again;

	vg_init(&g);
	fd = vg_open_guest(&g, 30, 40);
	sent = vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 30, 40, SHUT_R | SHUT_S);
	begin = vg_now_ms();
	expect_rst(&g);
	assert_in_range(vg_now_ms() - begin, VSOCK_LINGER_MS - 10, VSOCK_LINGER_MS + 900);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	assert_int_equal(vg_run_ms(&g, 50), 0);
	/* Its ports are free for others, who are not mixed up with it. */
	vg_send(&g, 30, 40, OP(RW), "x", 1);
	expect_rst(&g);
	again = vg_open_guest(&g, 30, 40);
	other = vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	read_rest(&g, fd, 0, sent);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	/* An RST after the end of the stream, with all that still to be read. */
	vg_shutdown(&g, 30, 40, SHUT_S);
	vg_send(&g, 30, 40, OP(RST), NULL, 0);
	vg_settle(&g);
	read_rest(&g, again, 0, other);
	vg_settle(&g);
	vg_expect_none(&g);
	assert_int_equal(vsock_conn_count(g.dev), 0);
	close(fd);
	close(again);
	vg_finish(&g);
}

/* Neither a reset of the driver nor the end of the VM cuts off a stream that has ended. */
static void test_ended_stream_outlives_the_guest(void **state)
{
	struct vg g = {0};
	u32 sent;
	int fd;

	vg_init(&g);
	fd = vg_open_guest(&g, 30, 40);
	sent = vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 30, 40, SHUT_S);
	vg_settle(&g);
	drv_reset(g.dev);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	vg_driver(&g, 64);
	vg_expect_none(&g);
	read_rest(&g, fd, 0, sent);
	close(fd);

	fd = vg_open_guest(&g, 30, 40);
	sent = vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 30, 40, SHUT_S);
	vg_settle(&g);
	assert_int_equal(vsock_conn_count(g.dev), 1);
	vsock_finish(g.dev);
	vg_finish(&g);
	for (u32 at = 0; at < sent;) {
		u32 n = vg_drain(fd, at);

		assert_true(n > 0);
		at += n;
	}
	assert_false(vg_drain(fd, sent));
	close(fd);
}

/* Those who only wait for a slow host make room where there is none. */
static void test_flushing_makes_room(void **state)
{
	struct vg g = {0};
	struct vsock *v;
	int fd, late;

	vg_init(&g);
	v = container_of(g.dev, struct vsock, dev);
	fd = vg_open_guest(&g, 30, 40);
	vg_fill(&g, 30, 40, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 30, 40, SHUT_S);
	vg_send(&g, 30, 40, OP(RST), NULL, 0);
	vg_settle(&g);
	v->count += VSOCK_CONNS_MAX - 1; /* as if all others were taken */
	late = vg_client(&g, "CONNECT 9\n");
	vg_read_end(&g, late);
	close(late);
	vg_settle(&g);
	assert_int_equal(v->count, VSOCK_CONNS_MAX - 1);
	late = vg_client(&g, "CONNECT 9\n");
	vg_expect(&g, &p, 9, VSOCK_PORT_FIRST, OP(REQUEST));
	v->count -= VSOCK_CONNS_MAX - 1;
	close(late);
	close(fd);
	vg_finish(&g);
}

/* A client that asks for END: its socket, and *ret_end to learn how the stream ended. */
static int open_with_end(struct vg *g, u32 *ret_port, int *ret_end)
{
	char line[32], space[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {line, sizeof(line)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
		.msg_controllen = sizeof(space)};
	int fd = vg_client(g, "connect 9 End\n");
	ssize_t n = -1;

	VG_UNTIL(g, vg_recv(g, &p));
	*ret_port = p.h.src_port;
	vg_send(g, 9, *ret_port, OP(RESPONSE), NULL, 0);
	VG_UNTIL(g, (n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC)) > 0);
	assert_memory_equal(line, "OK ", 3);
	assert_int_equal(msg.msg_controllen, sizeof(space));
	memcpy(ret_end, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

static void expect_end(int fd, int end, bool good)
{
	char c;

	assert_int_equal(read(end, &c, 1), good); /* which does not wait: see the callers */
	if (good)
		assert_int_equal(c, 'C');
	close(end);
	close(fd);
}

static void test_end_is_told(void **state)
{
	struct vg g = {0};
	u32 port, sent;
	int fd, end;

	signal(SIGPIPE, SIG_IGN);
	vg_init(&g);
	/* Closed by the guest, with nothing left to send, and with much. */
	fd = open_with_end(&g, &port, &end);
	vg_shutdown(&g, 9, port, SHUT_R | SHUT_S);
	vg_read_end(&g, fd);
	expect_end(fd, end, true);
	vg_expect(&g, &p, 9, port, OP(RST));
	fd = open_with_end(&g, &port, &end);
	sent = vg_fill(&g, 9, port, VSOCK_TX_BUF_WIDE);
	vg_shutdown(&g, 9, port, SHUT_R | SHUT_S);
	vg_settle(&g);
	assert_false(vg_readable(end));
	read_rest(&g, fd, 0, sent);
	expect_end(fd, end, true);
	expect_rst(&g);
	/* By halves. */
	fd = open_with_end(&g, &port, &end);
	vg_shutdown(&g, 9, port, SHUT_S);
	vg_read_end(&g, fd);
	vg_write(fd, "more", 4);
	vg_expect(&g, &p, 9, port, OP(RW));
	vg_send(&g, 9, port, OP(RST), NULL, 0);
	expect_end(fd, end, true);
	/* The client does not care. */
	fd = open_with_end(&g, &port, &end);
	close(end);
	vg_shutdown(&g, 9, port, SHUT_S);
	vg_read_end(&g, fd);
	close(fd);
	vg_expect(&g, &p, 9, port, OP(RST));
	vg_finish(&g);
}

static void test_end_is_not_good(void **state)
{
	struct vg g = {0};
	unsigned before;
	u32 port;
	int fd, end;

	vg_init(&g);
	before = fd_count();
	/* An RST, a packet that breaks the rules, a reset of the driver, the end of the VM. */
	fd = open_with_end(&g, &port, &end);
	vg_send(&g, 9, port, OP(RST), NULL, 0);
	vg_read_end(&g, fd);
	expect_end(fd, end, false);
	fd = open_with_end(&g, &port, &end);
	vg_fill(&g, 9, port, VSOCK_TX_BUF_WIDE);
	vg_send(&g, 9, port, 99, NULL, 0);
	expect_rst(&g);
	vg_settle(&g);
	expect_end(fd, end, false);
	fd = open_with_end(&g, &port, &end);
	drv_reset(g.dev);
	vg_read_end(&g, fd);
	expect_end(fd, end, false);
	vg_driver(&g, 64);
	vg_settle(&g);
	assert_int_equal(fd_count(), before);
	fd = open_with_end(&g, &port, &end);
	vg_finish(&g);
	expect_end(fd, end, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_closes_half),
		cmocka_unit_test(test_guest_closes_half),
		cmocka_unit_test(test_host_goes_away),
		cmocka_unit_test(test_guest_closes_behind_data),
		cmocka_unit_test(test_guest_is_gone_before_the_host_reads),
		cmocka_unit_test(test_ended_stream_outlives_the_guest),
		cmocka_unit_test(test_flushing_makes_room),
		cmocka_unit_test(test_end_is_told),
		cmocka_unit_test(test_end_is_not_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
