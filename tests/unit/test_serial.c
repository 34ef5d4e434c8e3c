/* SPDX-License-Identifier: Apache-2.0 */
/* test_serial.c - the 16550: registers, bounded output (S01) and input (S02). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "monitor/serial.h"
#include "monitor/base/types.h"

struct rig {
	struct ring *ring;
	struct serial *serial;
	int out[2], in[2];
	unsigned wakes, irqs;
};

static void wake(void *ctx)
{
	((struct rig *)ctx)->wakes++;
}

static void raise_irq(void *ctx)
{
	((struct rig *)ctx)->irqs++;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct serial_host host = {.wake = wake, .raise = raise_irq, .ctx = r};
	struct err e;

	assert_non_null(r);
	assert_int_equal(pipe(r->out), 0);
	assert_int_equal(pipe(r->in), 0);
	assert_int_equal(ring_create(&r->ring, 8, &e), 0);
	host.out_fd = r->out[1];
	host.in_fd = r->in[0];
	assert_int_equal(serial_create(&r->serial, &host, r->ring, &e), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	ring_destroy(&r->ring);
	serial_destroy(&r->serial);
	for (int i = 0; i < 2; i++) {
		close(r->out[i]);
		close(r->in[i]);
	}
	free(r);
	return 0;
}

static void test_output_arrives(void **state)
{
	struct rig *r = *state;
	char got[16] = "";

	for (const char *p = "hello\n"; *p; p++)
		serial_write(r->serial, 0, (u8)*p);
	assert_true(r->wakes > 0);
	serial_flush(r->serial);
	ring_run(r->ring);
	assert_int_equal(read(r->out[0], got, sizeof(got) - 1), 6);
	assert_string_equal(got, "hello\n");
	assert_int_equal(serial_dropped(r->serial), 0);
}

/* Whether anybody took it or not, and across the end of the buffer. */
static void test_tail_is_what_was_printed_last(void **state)
{
	struct rig *r = *state;
	char got[8];

	assert_int_equal(serial_tail(r->serial, got, sizeof(got)), 0);
	serial_write(r->serial, 0, 'a');
	serial_write(r->serial, 0, 'b');
	assert_int_equal(serial_tail(r->serial, got, sizeof(got)), 2);
	assert_memory_equal(got, "ab", 2);
	for (unsigned i = 0; i < 65530; i++)
		serial_write(r->serial, 0, '.');
	serial_flush(r->serial);
	ring_run(r->ring);
	for (const char *p = "0123456789"; *p; p++)
		serial_write(r->serial, 0, (u8)*p);
	assert_int_equal(serial_tail(r->serial, got, sizeof(got)), sizeof(got));
	assert_memory_equal(got, "23456789", sizeof(got));
}

static void test_s01_end_does_not_wait_for_a_stuck_reader(void **state)
{
	struct rig *r = *state;
	static const char some[61440];

	assert_int_equal(write(r->out[1], some, sizeof(some)), sizeof(some));
	for (unsigned i = 0; i < 30000; i++)
		serial_write(r->serial, 0, 'x');
	alarm(10);
	serial_drain(r->serial); /* blocked for ever once */
	alarm(0);
}

static void test_s01_output_nobody_reads_is_dropped_and_counted(void **state)
{
	struct rig *r = *state;

	for (unsigned i = 0; i < 1000000; i++)
		serial_write(r->serial, 0, 'x');
	serial_flush(r->serial);
	assert_int_equal(serial_dropped(r->serial), 1000000 - 65536);
	assert_int_equal(serial_read(r->serial, 5) & 0x60, 0x60); /* the guest never waits */
}

static void test_s02_input_waits_for_the_guest(void **state)
{
	struct rig *r = *state;
	char flood[8192];
	unsigned got = 0;

	for (size_t i = 0; i < sizeof(flood); i++)
		flood[i] = (char)(i * 31);
	assert_int_equal(write(r->in[1], flood, sizeof(flood)), sizeof(flood));
	serial_write(r->serial, 1, 1); /* interrupt on data */
	serial_start(r->serial);
	for (int turn = 0; turn < 100 && got < sizeof(flood); turn++) {
		ring_poll_once(r->ring);
		while (serial_read(r->serial, 5) & 1) {
			u8 byte = serial_read(r->serial, 0);

			assert_int_equal(byte, (u8)flood[got]);
			got++;
		}
		serial_flush(r->serial);
	}
	assert_int_equal(got, sizeof(flood));
	assert_true(r->irqs > 0);
}

static void test_registers(void **state)
{
	struct rig *r = *state;

	serial_write(r->serial, 7, 0x5a);
	assert_int_equal(serial_read(r->serial, 7), 0x5a);
	serial_write(r->serial, 3, 0x80); /* divisor latch */
	serial_write(r->serial, 0, 12);
	serial_write(r->serial, 1, 34);
	assert_int_equal(serial_read(r->serial, 0), 12);
	assert_int_equal(serial_read(r->serial, 1), 34);
	serial_write(r->serial, 3, 3);
	assert_int_equal(serial_read(r->serial, 1), 0);
	serial_write(r->serial, 1, 2); /* transmitter-empty: raised at once, acknowledged by reading */
	assert_int_equal(r->irqs, 1);
	assert_int_equal(serial_read(r->serial, 2) & 0x0f, 2);
	assert_int_equal(serial_read(r->serial, 2) & 0x0f, 1);
}

static void test_state_survives_a_snapshot(void **state)
{
	struct rig *r = *state;
	struct enc out = {0};
	struct err e;

	serial_write(r->serial, 7, 0x77);
	serial_save(r->serial, &out);
	serial_write(r->serial, 7, 0);
	assert_int_equal(serial_load(r->serial, out.buf, out.len, &e), 0);
	assert_int_equal(serial_read(r->serial, 7), 0x77);
	for (size_t n = 0; n < out.len; n++)
		assert_true(serial_load(r->serial, out.buf, n, &e) < 0);
	enc_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: the end of another test's ring would interrupt a write that blocks. */
		cmocka_unit_test_setup_teardown(
			test_s01_end_does_not_wait_for_a_stuck_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_output_arrives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tail_is_what_was_printed_last, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_s01_output_nobody_reads_is_dropped_and_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_s02_input_waits_for_the_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state_survives_a_snapshot, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
