/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_device.h - the smallest device model: three queues, 20 bytes of config, and hooks by which
 * a test decides what happens to a chain. Its process() is how a device should drain a queue: at
 * most one ring's worth a turn, then a new turn through virtio_schedule() (Q29).
 */
#ifndef KELVIN_TESTS_FAKE_DEVICE_H
#define KELVIN_TESTS_FAKE_DEVICE_H

#include "virtio/device.h"

#define FAKE_QUEUES     3u
#define FAKE_CONFIG_LEN 20u
#define FAKE_FEATURES   ((1ull << 0) | (1ull << 5) | (1ull << 35))
#define FAKE_HOLD_MAX   VQ_SIZE_MAX

struct fake_device {
	struct virtio_dev d;
	u8 config[FAKE_CONFIG_LEN]; /* the driver may write bytes 8 to 11 */
	u32 state;                  /* what save() writes and load() wants below 100 */
	unsigned activated, resets, processed, chains;
	unsigned raised; /* interrupts; atomic */
	bool deaf;       /* process() does nothing */
	/* Called for each chain, if not NULL, before it is pushed. */
	void (*on_chain)(struct fake_device *f, struct vq *q, struct vq_chain *c);
	/* Chains are held, as if the kernel worked on them, until fake_complete(). */
	bool hold;
	unsigned held_count;
	struct {
		struct vq *q;
		u16 head;
		u32 epoch;
	} held[FAKE_HOLD_MAX];
	struct vq_chain chain;
};

void fake_init(struct fake_device *f, const struct mem *mem);
void fake_finish(struct fake_device *f);
/* What the loop does when the I/O of all held chains is done. Takes the lock. */
void fake_complete(struct fake_device *f);
/* Whether the loop was woken since the last call; reads the eventfd empty. */
bool fake_kicked(struct fake_device *f);
/* Turns of the loop until nobody wakes it any more. Returns how many. */
unsigned fake_loop(struct fake_device *f);

#endif
