/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_fixture.h - a live queue of SIZE entries with its driver, for the tests of virtio/queue.c.
 *
 * RAM is 1 MiB at 0 and 1 MiB at 4 GiB, so there is an end of RAM at LOW_LEN, and a hole between.
 */
#ifndef KELVIN_TESTS_QUEUE_FIXTURE_H
#define KELVIN_TESTS_QUEUE_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/vq_builder.h"

#define LOW_LEN   0x100000u
#define HIGH_LEN  0x100000u
#define SIZE      8u
#define RING_GPA  0x1000u
#define TABLE_GPA 0x4000u
#define DATA_GPA  0x10000u

#define F_NEXT     VRING_DESC_F_NEXT
#define F_WRITE    VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT

struct fixture {
	struct guest_ram ram;
	struct vqb b;
	struct vq q;
	struct vq_chain c; /* what the last offer() popped */
};

/* For cmocka: *@state is a struct fixture, with INDIRECT negotiated and EVENT_IDX not. */
int queue_setup(void **state);
int queue_teardown(void **state);
#define QUEUE_TEST(name) cmocka_unit_test_setup_teardown(name, queue_setup, queue_teardown)

/* Starts over with empty rings of @size entries. */
void fresh(struct fixture *f, u16 size);
/* Shows @head to the device and pops. */
enum vq_result offer(struct fixture *f, u16 head);
/* That f->c is what the gate gives out, whatever the descriptors say by now. */
void check_chain(const struct fixture *f);

#endif
