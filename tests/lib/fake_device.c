/* SPDX-License-Identifier: Apache-2.0 */
/* fake_device.c - see fake_device.h */
#include "tests/lib/fake_device.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static struct fake_device *fake(struct virtio_dev *d)
{
	return container_of(d, struct fake_device, d);
}

static void config_read(struct virtio_dev *d, u32 off, void *dst, u32 len)
{
	must(off + len <= FAKE_CONFIG_LEN);
	memcpy(dst, fake(d)->config + off, len);
}

static void config_write(struct virtio_dev *d, u32 off, const void *src, u32 len)
{
	must(off + len <= FAKE_CONFIG_LEN);
	if (off >= 8 && off + len <= 12)
		memcpy(fake(d)->config + off, src, len);
}

static void activate(struct virtio_dev *d)
{
	fake(d)->activated++;
}

static void reset(struct virtio_dev *d)
{
	fake(d)->resets++;
	/* The loop is to cancel what is in flight. */
	if (d->io_count)
		virtio_schedule(d);
}

static void one_chain(struct fake_device *f, struct vq *q, enum vq_result r)
{
	f->chains++;
	if (r == VQ_OK && f->on_chain)
		f->on_chain(f, q, &f->chain);
	if (r == VQ_OK && f->hold) {
		must(f->held_count < FAKE_HOLD_MAX);
		f->held[f->held_count].q = q;
		f->held[f->held_count].head = f->chain.head;
		f->held[f->held_count].epoch = f->d.epoch;
		f->held_count++;
		virtio_io_begin(&f->d);
		return;
	}
	vq_push(q, f->chain.head, r == VQ_OK ? f->chain.in_len : 0);
}

static void drain(struct fake_device *f, struct vq *q)
{
	unsigned n = 0;

	vq_kicks_off(q);
	for (; n < q->size; n++) {
		enum vq_result r = vq_pop(q, &f->chain);

		if (r == VQ_BAD) {
			virtio_fail(&f->d);
			return;
		}
		if (r == VQ_EMPTY)
			break;
		one_chain(f, q, r);
	}
	virtio_used(&f->d, q);
	if (virtio_want_kick(&f->d, q))
		virtio_schedule(&f->d);
}

static void process(struct virtio_dev *d)
{
	fake(d)->processed++;
	if (!virtio_live(d) || fake(d)->deaf)
		return;
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		drain(fake(d), &d->queue[i]);
}

static void save(struct virtio_dev *d, struct enc *out)
{
	enc_u32(out, fake(d)->state);
}

static int load(struct virtio_dev *d, struct dec *in, struct err *e)
{
	fake(d)->state = dec_u32(in);
	if (fake(d)->state >= 100)
		return err_set(e, -EINVAL, "state: %u", fake(d)->state);
	return 0;
}

static void raise_irq(void *ctx, unsigned line)
{
	struct fake_device *f = ctx;

	must(line == 7);
	__atomic_fetch_add(&f->raised, 1, __ATOMIC_RELAXED);
}

static const struct virtio_ops fake_ops = {
	.name = "fake",
	.device_id = 42,
	.queue_count = FAKE_QUEUES,
	.features = FAKE_FEATURES,
	.config_read = config_read,
	.config_write = config_write,
	.config_len = FAKE_CONFIG_LEN,
	.activate = activate,
	.reset = reset,
	.process = process,
	.save = save,
	.load = load,
};

void fake_init(struct fake_device *f, const struct mem *mem)
{
	memset(f, 0, sizeof(*f));
	for (unsigned i = 0; i < FAKE_CONFIG_LEN; i++)
		f->config[i] = (u8)(0xa0 + i);
	must(!virtio_init(&f->d, &fake_ops, mem,
		(struct virtio_irq){.raise = raise_irq, .ctx = f, .line = 7}, NULL));
}

void fake_finish(struct fake_device *f)
{
	virtio_finish(&f->d);
}

void fake_complete(struct fake_device *f)
{
	pthread_mutex_lock(&f->d.lock);
	while (f->held_count) {
		f->held_count--;
		if (f->held[f->held_count].epoch == f->d.epoch) {
			vq_push(f->held[f->held_count].q, f->held[f->held_count].head, 0);
			virtio_used(&f->d, f->held[f->held_count].q);
		}
		virtio_io_end(&f->d);
	}
	pthread_mutex_unlock(&f->d.lock);
}

bool fake_kicked(struct fake_device *f)
{
	struct pollfd p = {.fd = f->d.kick_fd, .events = POLLIN};
	u64 n;

	if (poll(&p, 1, 0) != 1)
		return false;
	must(read(f->d.kick_fd, &n, sizeof(n)) == sizeof(n));
	return true;
}

unsigned fake_loop(struct fake_device *f)
{
	unsigned turns = 0;

	while (fake_kicked(f)) {
		virtio_process(&f->d);
		turns++;
	}
	return turns;
}
