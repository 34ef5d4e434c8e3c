/* SPDX-License-Identifier: Apache-2.0 */
/* dev_spec.c - what disks and networks have in common: ids, and what becomes of them in clones. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/dev_spec.h"

int dev_text_check(const char *text, const char *what, struct err *e)
{
	json_auto_t *j = json_string(text);

	return j ? 0 : err_set(e, -EINVAL, "%s is not valid UTF-8", what);
}

int dev_choose(struct dev_choice *c, struct err *e)
{
	if (c->id[0] && dev_id_check(c->id, e))
		return e->code;
	if (c->changes && c->found < 0 && !c->id[0] && c->count == 1)
		c->found = 0;
	if (c->changes && !c->count)
		return err_set(e, -EINVAL, "the snapshot has no %s", c->what);
	if (c->changes && c->found < 0)
		return c->id[0] ? err_set(e, -EINVAL, "the snapshot has no %s \"%s\"", c->what,
					  c->id)
				: err_set(e, -EINVAL, "the snapshot has %u %ss: say which by id=",
					  c->count, c->what);
	if (c->changes)
		return 0;
	if (c->count == c->max)
		return err_set(e, -EINVAL, "there can be %u %ss", c->max, c->what);
	if (c->found >= 0)
		return err_set(e, -EINVAL, "id \"%s\" is taken by another %s", c->id, c->what);
	return 0;
}

/* Whether @name has a "%d", and puts @number in its place. */
static bool put_number(char *name, size_t cap, unsigned number)
{
	char *mark = strstr(name, "%d");
	_cleanup_free_ char *rest = mark ? strdup(mark + 2) : NULL;

	if (!mark)
		return false;
	must(rest);
	snprintf(mark, cap - (size_t)(mark - name), "%u%s", number, rest);
	return true;
}

static int number_disk(struct disk_spec *s, unsigned number, struct err *e)
{
	if (s->overlay[0] && !put_number(s->overlay, sizeof(s->overlay), number))
		return err_set(e, -EINVAL,
			"--count makes many VMs, but overlay= of disk \"%s\" names one file: put "
			"%%d in its name, which becomes the number of the clone", s->id);
	if (!s->is_overlaid && !s->read_only)
		return err_set(e, -EINVAL,
			"--count makes many VMs, but disk \"%s\" can be written by one only: give "
			"it an overlay", s->id);
	return 0;
}

static int number_net(struct net_spec *s, unsigned number, struct err *e)
{
	bool ok = s->way == NET_BY_USER;

	if (s->way == NET_BY_TAP)
		ok = put_number(s->tap, sizeof(s->tap), number);
	if (s->way == NET_BY_PASST)
		ok = put_number(s->sock, sizeof(s->sock), number);
	if (s->random_mac)
		mac_randomize(s->mac);
	if (ok)
		return 0;
	return err_set(e, -EINVAL,
		"--count makes many VMs, but network \"%s\" is one: name it again with "
		"--net id=%s,tap=NAME%%d; %%d becomes the number of the clone", s->id, s->id);
}

int dev_spec_number(struct dev_spec *d, unsigned number, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < d->disk_count && !r; i++)
		r = number_disk(&d->disk[i], number, e);
	for (unsigned i = 0; i < d->net_count && !r; i++)
		r = number_net(&d->net[i], number, e);
	return r;
}
