/* SPDX-License-Identifier: Apache-2.0 */
/* queue_fixture.c - see queue_fixture.h */
#include "tests/lib/queue_fixture.h"

#include <stdlib.h>

int queue_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	must(f);
	guest_ram_init(&f->ram, LOW_LEN, HIGH_LEN);
	vqb_init(&f->b, &f->ram, RING_GPA, SIZE);
	f->q = (struct vq){.mem = &f->ram.mem, .size_max = VQ_SIZE_MAX, .indirect = true};
	vqb_attach(&f->b, &f->q);
	must(vq_enable(&f->q));
	*state = f;
	return 0;
}

int queue_teardown(void **state)
{
	struct fixture *f = *state;

	guest_ram_finish(&f->ram);
	free(f);
	return 0;
}

void fresh(struct fixture *f, u16 size)
{
	bool event_idx = f->q.event_idx, indirect = f->q.indirect;

	vqb_init(&f->b, &f->ram, RING_GPA, size);
	vq_reset(&f->q);
	f->q.event_idx = event_idx;
	f->q.indirect = indirect;
	vqb_attach(&f->b, &f->q);
	assert_true(vq_enable(&f->q));
}

enum vq_result offer(struct fixture *f, u16 head)
{
	vqb_offer(&f->b, head);
	vqb_publish(&f->b);
	return vq_pop(&f->q, &f->c);
}

void check_chain(const struct fixture *f)
{
	u64 out = 0, in = 0;

	must(f->c.out_count + f->c.in_count <= VQ_SIZE_MAX);
	for (unsigned i = 0; i < f->c.out_count + f->c.in_count; i++) {
		const u8 *p = f->c.iov[i].iov_base;
		bool inside = false;

		for (unsigned r = 0; r < f->ram.mem.region_count; r++) {
			const struct mem_region *reg = &f->ram.mem.region[r];

			inside |= p >= reg->hva && f->c.iov[i].iov_len <= reg->len &&
				p + f->c.iov[i].iov_len <= reg->hva + reg->len;
		}
		must(inside && f->c.iov[i].iov_len);
		*(i < f->c.out_count ? &out : &in) += f->c.iov[i].iov_len;
	}
	must(out == f->c.out_len && in == f->c.in_len);
}
