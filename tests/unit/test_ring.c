/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring.c - the ring against real descriptors, with queues so small that they overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "virtio/ring.h"

struct op {
	struct ring_op op;
	int res;
	unsigned runs;
};

static void done(struct ring_op *op, int res)
{
	struct op *o = container_of(op, struct op, op);

	assert_false(op->busy);
	o->res = res;
	o->runs++;
}

static struct ring *make(unsigned entries)
{
	struct ring *r = NULL;
	struct err e = {0};

	if (ring_create(&r, entries, &e))
		fail_msg("%s", e.msg);
	return r;
}

static void wait_for(struct ring *r, const struct op *o, unsigned runs)
{
	while (o->runs < runs)
		assert_int_equal(ring_run(r), 0);
	assert_int_equal(o->runs, runs);
}

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

static void test_stream_ops(void **state)
{
	struct ring *r = make(8);
	struct op a = {.op.done = done}, b = {.op.done = done};
	char buf[16] = "", more[16] = "";
	struct iovec out = {(void *)(uintptr_t)"lo", 2}, in = {more, sizeof(more)};
	struct msghdr out_msg = {.msg_iov = &out, .msg_iovlen = 1};
	struct msghdr in_msg = {.msg_iov = &in, .msg_iovlen = 1};
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	ring_poll(r, &a.op, s[0], POLLIN);
	assert_true(a.op.busy);
	assert_int_equal(ring_poll_once(r), 0);
	ring_send(r, &b.op, s[1], "hel", 3, 0);
	wait_for(r, &b, 1);
	assert_int_equal(b.res, 3);
	wait_for(r, &a, 1);
	assert_int_equal(a.res & POLLIN, POLLIN);
	ring_recv(r, &a.op, s[0], buf, sizeof(buf), MSG_DONTWAIT);
	wait_for(r, &a, 2);
	assert_int_equal(a.res, 3);
	assert_string_equal(buf, "hel");
	/* Nothing there: at once with MSG_DONTWAIT, later without. */
	ring_recvmsg(r, &a.op, s[0], &in_msg, MSG_DONTWAIT);
	wait_for(r, &a, 3);
	assert_int_equal(a.res, -EAGAIN);
	ring_recvmsg(r, &a.op, s[0], &in_msg, 0);
	assert_int_equal(ring_poll_once(r), 0);
	ring_sendmsg(r, &b.op, s[1], &out_msg, MSG_NOSIGNAL);
	wait_for(r, &a, 4);
	assert_int_equal(a.res, 2);
	assert_string_equal(more, "lo");
	ring_shutdown(r, &b.op, s[1], SHUT_WR);
	wait_for(r, &b, 3);
	assert_int_equal(b.res, 0);
	ring_recv(r, &a.op, s[0], buf, sizeof(buf), 0);
	wait_for(r, &a, 5);
	assert_int_equal(a.res, 0);
	close(s[0]);
	close(s[1]);
	ring_destroy(&r);
	assert_null(r);
}

static void test_connect_and_accept(void **state)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct ring *r = make(8);
	struct op a = {.op.done = done}, c = {.op.done = done};
	int lfd = socket(AF_UNIX, SOCK_STREAM, 0), cfd = socket(AF_UNIX, SOCK_STREAM, 0);

	/* An abstract address: no file to clean up. */
	snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "kelvin-test-ring-%d", (int)getpid());
	assert_int_equal(bind(lfd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(lfd, 1), 0);
	ring_accept(r, &a.op, lfd);
	ring_connect(r, &c.op, cfd, (struct sockaddr *)&sa, sizeof(sa));
	wait_for(r, &c, 1);
	assert_int_equal(c.res, 0);
	wait_for(r, &a, 1);
	assert_true(a.res >= 0);
	assert_int_equal(fcntl(a.res, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(a.res, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	close(a.res);
	close(lfd);
	close(cfd);
	ring_destroy(&r);
}

static void test_read_and_write(void **state)
{
	struct ring *r = make(8);
	struct op a = {.op.done = done}, b = {.op.done = done};
	int fd = eventfd(0, EFD_CLOEXEC);
	u64 in = 0, out = 5;

	ring_read(r, &a.op, fd, &in, sizeof(in));
	assert_int_equal(ring_poll_once(r), 0);
	ring_write(r, &b.op, fd, &out, sizeof(out));
	wait_for(r, &a, 1);
	assert_int_equal(a.res, 8);
	assert_int_equal(in, 5);
	wait_for(r, &b, 1);
	close(fd);
	ring_destroy(&r);
}

/* Done when it was asked for, heard of in the next turn, and never waiting. */
static void test_at_once(void **state)
{
	struct ring *r = make(4);
	struct op a = {.op.done = done}, b = {.op.done = done}, c = {.op.done = done};
	char buf[8] = "";
	struct iovec out[2] = {{(void *)(uintptr_t)"he", 2}, {(void *)(uintptr_t)"llo", 3}};
	struct iovec in[2] = {{buf, 2}, {buf + 2, 6}};
	int p[2];

	assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
	ring_readv_at_once(r, &a.op, p[0], in, 2);
	ring_writev_at_once(r, &b.op, p[1], out, 2);
	ring_readv_at_once(r, &c.op, p[0], in, 2);
	assert_string_equal(buf, "hello");
	assert_true(a.op.busy && !a.runs && !b.runs && !c.runs);
	assert_int_equal(ring_run(r), 0); /* does not sleep */
	assert_int_equal(a.res, -EAGAIN);
	assert_int_equal(b.res, 5);
	assert_int_equal(c.res, 5);
	assert_true(a.runs == 1 && b.runs == 1 && c.runs == 1);
	ring_writev_at_once(r, &b.op, p[0], out, 2);
	ring_cancel(r, &b.op); /* finds nothing */
	wait_for(r, &b, 2);
	assert_int_equal(b.res, -EBADF);
	close(p[0]);
	close(p[1]);
	ring_destroy(&r);
}

static void test_timeout_and_cancel(void **state)
{
	struct ring *r = make(8);
	struct op t = {.op.done = done}, p = {.op.done = done};
	struct ring_time ts;
	u64 begin_ns = now_ns();
	int fd = eventfd(0, EFD_CLOEXEC);

	ring_timeout(r, &t.op, &ts, 20000000);
	wait_for(r, &t, 1);
	assert_int_equal(t.res, -ETIME);
	assert_true(now_ns() - begin_ns >= 20000000);
	ring_timeout(r, &t.op, &ts, 3600ull * 1000000000);
	ring_poll(r, &p.op, fd, POLLIN);
	assert_int_equal(ring_poll_once(r), 0);
	ring_cancel(r, &t.op);
	ring_cancel(r, &p.op);
	wait_for(r, &t, 2);
	wait_for(r, &p, 1);
	assert_int_equal(t.res, -ECANCELED);
	assert_int_equal(p.res, -ECANCELED);
	/* Queued and cancelled before the kernel saw it; and cancelling what is not there. */
	ring_poll(r, &p.op, fd, POLLIN);
	ring_cancel(r, &p.op);
	ring_cancel(r, &t.op);
	wait_for(r, &p, 2);
	assert_int_equal(p.res, -ECANCELED);
	assert_int_equal(ring_poll_once(r), 0);
	close(fd);
	ring_destroy(&r);
}

/* 1000 operations through a ring of 4, queued in one go. */
static void test_full_queues(void **state)
{
	static struct op op[1000];
	struct ring *r = make(4);
	int fd = eventfd(1, EFD_CLOEXEC);
	unsigned runs = 0, turns = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(op); i++) {
		op[i] = (struct op){.op.done = done};
		ring_poll(r, &op[i].op, fd, POLLIN);
	}
	while (runs < ARRAY_SIZE(op) && turns++ < 2000) {
		assert_int_equal(ring_run(r), 0);
		runs = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(op); i++)
			runs += op[i].runs;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(op); i++) {
		assert_int_equal(op[i].runs, 1);
		assert_int_equal(op[i].res & POLLIN, POLLIN);
	}
	close(fd);
	ring_destroy(&r);
}

struct chain {
	struct ring_op op;
	struct ring *r;
	int fd;
	unsigned left;
	bool in_callback;
	struct op extra[16];
	unsigned extras;
};

/* Queues itself again, and another one, from within. */
static void again(struct ring_op *op, int res)
{
	struct chain *c = container_of(op, struct chain, op);

	assert_false(c->in_callback);
	c->in_callback = true;
	if (c->extras < ARRAY_SIZE(c->extra)) {
		c->extra[c->extras].op.done = done;
		ring_poll(c->r, &c->extra[c->extras++].op, c->fd, POLLIN);
	}
	if (--c->left)
		ring_poll(c->r, &c->op, c->fd, POLLIN);
	c->in_callback = false;
}

static void test_callbacks_queue_more(void **state)
{
	struct ring *r = make(2);
	struct chain c = {.op.done = again, .r = r, .fd = eventfd(1, EFD_CLOEXEC), .left = 100};

	ring_poll(r, &c.op, c.fd, POLLIN);
	assert_int_equal(c.left, 100); /* never from the function that queues */
	while (c.left)
		assert_int_equal(ring_run(r), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(c.extra); i++)
		wait_for(r, &c.extra[i], 1);
	close(c.fd);
	ring_destroy(&r);
}

static void on_alarm(int sig)
{
}

static void test_signal_is_no_error(void **state)
{
	struct sigaction sa = {.sa_handler = on_alarm}, old;
	struct itimerval tv = {.it_value.tv_usec = 20000};
	struct ring *r = make(4);
	struct op p = {.op.done = done};
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	ring_poll(r, &p.op, fd, POLLIN);
	assert_int_equal(ring_poll_once(r), 0);
	setitimer(ITIMER_REAL, &tv, NULL);
	assert_int_equal(ring_run(r), 0);
	assert_int_equal(p.runs, 0);
	sigaction(SIGALRM, &old, NULL);
	/* Destroyed with the operation in flight: its callback never runs. */
	ring_destroy(&r);
	assert_int_equal(p.runs, 0);
	assert_true(p.op.busy);
	close(fd);
	ring_destroy(&r); /* NULL is fine */
}

static void test_create_errors(void **state)
{
	struct ring *r = NULL;
	struct err e = {0};

	assert_int_equal(ring_create(&r, 0, &e), -EINVAL);
	assert_null(r);
	assert_non_null(strstr(e.msg, "io_uring"));
}

static void test_file_ops(void **state)
{
	struct ring *r = make(8);
	struct op a = {.op.done = done}, b = {.op.done = done};
	int fd = memfd_create("ring", MFD_CLOEXEC);
	char one[4] = "", two[4] = "";
	struct iovec v[2] = {{(void *)(uintptr_t)"ab", 2}, {(void *)(uintptr_t)"cd", 2}};

	assert_true(fd >= 0);
	for (int fixed = 0; fixed < 2; fixed++) {
		if (fixed)
			ring_fix_file(r, fd);
		a.runs = b.runs = 0;
		ring_writev(r, &a.op, fd, v, 2, 100, RWF_DSYNC);
		wait_for(r, &a, 1);
		assert_int_equal(a.res, 4);
		ring_pwrite(r, &a.op, fd, "xy", 2, 101, 0);
		wait_for(r, &a, 2);
		assert_int_equal(a.res, 2);
		ring_fdatasync(r, &a.op, fd);
		ring_pread(r, &b.op, fd, one, 4, 100);
		wait_for(r, &a, 3);
		wait_for(r, &b, 1);
		assert_int_equal(a.res, 0);
		assert_memory_equal(one, "axyd", 4);
		v[0] = (struct iovec){two, 1};
		v[1] = (struct iovec){one, 3};
		ring_readv(r, &b.op, fd, v, 2, 101, 0);
		wait_for(r, &b, 2);
		assert_int_equal(b.res, 3); /* the file ends */
		assert_memory_equal(two, "x", 1);
		assert_memory_equal(one, "yd", 2);
		ring_fallocate(r, &a.op, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 104);
		wait_for(r, &a, 4);
		assert_int_equal(a.res, 0);
		v[0] = (struct iovec){(void *)(uintptr_t)"ab", 2};
		v[1] = (struct iovec){(void *)(uintptr_t)"cd", 2};
	}
	ring_unfix_file(r, fd);
	ring_unfix_file(r, fd);
	close(fd);
	/* The number is used again for another file, which is the one that must be read. */
	assert_int_equal(memfd_create("other", MFD_CLOEXEC), fd);
	a.runs = 0;
	ring_pread(r, &a.op, fd, one, 4, 0);
	wait_for(r, &a, 1);
	assert_int_equal(a.res, 0);
	close(fd);
	ring_destroy(&r);
}

static void test_more_fixed_files_than_fit(void **state)
{
	struct ring *r = make(8);
	struct op a = {.op.done = done};
	int fd[200];
	char c;

	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = memfd_create("many", MFD_CLOEXEC);
		assert_int_equal(pwrite(fd[i], &i, 1, 0), 1);
		ring_fix_file(r, fd[i]);
		ring_fix_file(r, fd[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		ring_pread(r, &a.op, fd[i], &c, 1, 0);
		wait_for(r, &a, i + 1);
		assert_int_equal((u8)c, (u8)i);
		ring_unfix_file(r, fd[i]);
		close(fd[i]);
	}
	ring_destroy(&r);
}

static struct ring *again_ring;

struct watched {
	struct ring_watch w;
	unsigned looks, sleeps, work; /* work: how often there is some */
	bool late;                    /* it is found only on the way to sleep */
};

static bool look(struct ring_watch *w)
{
	struct watched *x = container_of(w, struct watched, w);

	x->looks++;
	return !x->late && x->work && x->work--;
}

static bool before_sleep(struct ring_watch *w)
{
	struct watched *x = container_of(w, struct watched, w);

	x->sleeps++;
	return x->work && x->work--;
}

static void test_asks_before_it_sleeps(void **state)
{
	struct ring *r = make(8);
	struct watched x = {.w = {.look = look, .before_sleep = before_sleep}, .work = 2};
	struct op a = {.op.done = done};
	struct ring_time ts;

	ring_add_watch(r, &x.w);
	/* Without a window it does not look, and with work it does not sleep. */
	assert_int_equal(ring_run(r), 0);
	assert_int_equal(ring_run(r), 0);
	assert_int_equal(x.sleeps, 2);
	assert_int_equal(x.looks, 0);
	/* What completes at once keeps it awake: nobody is asked to wake it. */
	ring_timeout(r, &a.op, &ts, 0);
	while (!a.runs)
		assert_int_equal(ring_run(r), 0);
	assert_true(x.sleeps <= 3);
	ring_remove_watch(&x.w);
	ring_remove_watch(&x.w);
	ring_add_watch(r, &x.w);
	ring_destroy(&r);
	ring_remove_watch(&x.w); /* the ring went first */
}

static void done_again(struct ring_op *op, int res)
{
	struct op *o = container_of(op, struct op, op);

	o->runs++;
	if (o->res)
		ring_nop(again_ring, op);
}

/* A loop that always has completions looks at what is watched all the same. */
static void test_looks_while_it_is_busy(void **state)
{
	struct ring *r = make(8);
	struct watched x = {.w = {.look = look, .before_sleep = before_sleep}, .work = 1000};
	struct op a = {.op.done = done_again, .res = 1};

	again_ring = r;
	ring_add_watch(r, &x.w);
	ring_nop(r, &a.op);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(ring_run(r), 0);
	assert_int_equal(a.runs, 100);
	assert_int_equal(x.looks, 100);
	assert_int_equal(x.sleeps, 0);
	ring_destroy(&r);
}

static void sleep_for(struct ring *r, u64 ns)
{
	struct op a = {.op.done = done};
	struct ring_time ts;

	ring_timeout(r, &a.op, &ts, ns);
	wait_for(r, &a, 1);
}

static void test_looks_only_where_it_pays(void **state)
{
	struct ring *r = make(8);
	struct watched x = {.w = {.look = look, .before_sleep = before_sleep}};
	struct ring_stats st;

	ring_add_watch(r, &x.w);
	ring_set_poll(r, 100000000);
	sleep_for(r, 1000000); /* short: looking would have paid */
	ring_stats(r, &st);
	assert_int_equal(st.polls, 0);
	x.work = 1;
	assert_int_equal(ring_run(r), 0);
	ring_stats(r, &st);
	assert_int_equal(st.polls, 1);
	assert_int_equal(st.poll_hits, 1);
	assert_true(x.looks >= 1);
	ring_set_poll(r, 1000);
	for (unsigned i = 0; i < 5; i++)
		sleep_for(r, 2000000); /* long: it does not */
	ring_stats(r, &st);
	assert_int_equal(st.polls, 1);
	assert_true(st.sleeps >= 6);
	ring_destroy(&r);
}

struct counted_task {
	struct ring_task task;
	struct op *op;
	unsigned runs;
};

static void run_task(struct ring_task *t)
{
	struct counted_task *c = container_of(t, struct counted_task, task);

	c->runs++;
	assert_true(c->op->runs == 3); /* all callbacks of the turn came first */
}

static struct counted_task *the_task;
static struct ring *task_ring;

static void done_with_task(struct ring_op *op, int res)
{
	the_task->op->runs++;
	ring_at_end(task_ring, &the_task->task);
}

static void test_tasks_run_once_a_turn(void **state)
{
	struct op sum = {0}, op[3] = {{.op.done = done_with_task}, {.op.done = done_with_task},
		{.op.done = done_with_task}};
	struct counted_task c = {.task.run = run_task, .op = &sum};
	struct ring *r = make(8);

	the_task = &c;
	task_ring = r;
	for (unsigned i = 0; i < 3; i++)
		ring_nop(r, &op[i].op); /* all end at once, which a read need not do */
	while (sum.runs < 3)
		assert_int_equal(ring_run(r), 0);
	assert_int_equal(c.runs, 1);
	assert_int_equal(ring_poll_once(r), 0);
	assert_int_equal(c.runs, 1);
	ring_destroy(&r);
}

static int submit_raw(struct io_uring *u)
{
	struct io_uring_cqe *cqe;
	int res;

	assert_int_equal(io_uring_submit_and_wait(u, 1), 1);
	assert_int_equal(io_uring_peek_cqe(u, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(u, cqe);
	return res;
}

/* What somebody who took over the process could ask the kernel for by way of the ring. */
static void test_restricted(void **state)
{
	struct ring *r = make(8);
	struct io_uring *u = (struct io_uring *)r; /* its first member */
	struct ring_stats st;
	char text[128];
	int fd = eventfd(0, EFD_CLOEXEC);

	ring_stats(r, &st);
	ring_describe(r, text, sizeof(text));
	if (!st.restricted) {
		assert_memory_equal(text, "unrestricted", 12);
		skip(); /* Linux older than 5.10 */
	}
	assert_memory_equal(text, "restricted", 10);
	io_uring_prep_openat(io_uring_get_sqe(u), AT_FDCWD, "/dev/null", O_RDONLY, 0);
	assert_int_equal(submit_raw(u), -EACCES);
	io_uring_prep_close(io_uring_get_sqe(u), fd);
	assert_int_equal(submit_raw(u), -EACCES);
	io_uring_prep_socket(io_uring_get_sqe(u), AF_INET, SOCK_STREAM, 0, 0);
	assert_int_equal(submit_raw(u), -EACCES);
	io_uring_prep_nop(io_uring_get_sqe(u));
	assert_int_equal(submit_raw(u), 0);
	/* Nor may it be given anything but descriptors. */
	assert_int_equal(io_uring_register_eventfd(u, fd), -EACCES);
	assert_int_equal(io_uring_unregister_files(u), -EACCES);
	ring_fix_file(r, fd);
	ring_unfix_file(r, fd);
	close(fd);
	ring_destroy(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream_ops),
		cmocka_unit_test(test_file_ops),
		cmocka_unit_test(test_more_fixed_files_than_fit),
		cmocka_unit_test(test_asks_before_it_sleeps),
		cmocka_unit_test(test_looks_while_it_is_busy),
		cmocka_unit_test(test_looks_only_where_it_pays),
		cmocka_unit_test(test_tasks_run_once_a_turn),
		cmocka_unit_test(test_connect_and_accept),
		cmocka_unit_test(test_read_and_write),
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_timeout_and_cancel),
		cmocka_unit_test(test_full_queues),
		cmocka_unit_test(test_callbacks_queue_more),
		cmocka_unit_test(test_signal_is_no_error),
		cmocka_unit_test(test_create_errors),
		cmocka_unit_test(test_restricted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
