/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_hold.c - ranges of a disk that ops hold, so that those which would spoil each other wait.
 *
 * Some writes do more than the guest asked for: they read a block and write all of it back with a
 * part changed. Another write to that block in between would be undone. So such a hold is
 * exclusive: it shares its range with nobody. Plain writes, which share with each other, only take
 * part so that exclusive ones can see them.
 *
 * Who has to wait goes first when its turn comes: a new hold also waits for those that wait. As
 * long as nobody is exclusive, to take a hold is to put it on a list.
 */
#include "virtio/disk_int.h"

void hold_init(struct disk_ranges *r)
{
	TAILQ_INIT(&r->active);
	TAILQ_INIT(&r->waiting);
	r->exclusive = 0;
}

static bool in_the_way(const struct disk_hold *a, const struct disk_hold *b)
{
	return a->lo < b->hi && b->lo < a->hi && (a->exclusive || b->exclusive);
}

/* Whether @h can be held: nothing active, and nothing that waits ahead of it, is in its way. */
static bool is_free(const struct disk_ranges *r, const struct disk_hold *h)
{
	const struct disk_hold *o;

	TAILQ_FOREACH (o, &r->active, link)
		if (in_the_way(o, h))
			return false;
	TAILQ_FOREACH (o, &r->waiting, link) {
		if (o == h)
			break;
		if (in_the_way(o, h))
			return false;
	}
	return true;
}

bool hold_take(struct disk_ranges *r, struct disk_hold *h)
{
	must(!h->held);
	r->exclusive += h->exclusive;
	if (r->exclusive && !is_free(r, h)) {
		TAILQ_INSERT_TAIL(&r->waiting, h, link);
		return false;
	}
	TAILQ_INSERT_TAIL(&r->active, h, link);
	h->held = true;
	return true;
}

void hold_drop(struct disk_ranges *r, struct disk_hold *h)
{
	struct disk_hold *w, *next;

	if (!h->held)
		return;
	TAILQ_REMOVE(&r->active, h, link);
	h->held = false;
	r->exclusive -= h->exclusive;
	for (w = TAILQ_FIRST(&r->waiting); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (!is_free(r, w))
			continue;
		TAILQ_REMOVE(&r->waiting, w, link);
		TAILQ_INSERT_TAIL(&r->active, w, link);
		w->held = true;
		w->go(w);
	}
}
