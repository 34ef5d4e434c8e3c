/* SPDX-License-Identifier: Apache-2.0 */
/*
 * villain - plays hostile cases against the devices it finds, one case a VM.
 *
 * Command line:
 *	case=Q05.size dev=blk|net|net-rx|vsock|vsock-rx
 *	list		prints all cases as JSON, one a line, and powers off with 0
 *	ip=A.B.C.D	of the host, on the network it shares with us (net)
 *	flood		the host sends frames all the time: any frame is an answer (net)
 *
 * A case is framed: the device must work before; then the case; then a reset, after which it must
 * work again; and in all that time memory must only have changed where the device was given
 * memory to write. Prints one line of JSON on the console, where there is one, and powers off with
 *	0  pass    the device took it as something valid, or as nothing
 *	10 reject  the device refused, and works again after a reset
 *	20 wedged  it does not work after a reset
 *	30 fail    it did what it must never do; "why" says what
 *	40 skip    there is no such device, or this machine cannot play the case
 *	2          no such case
 * "expect" says which of pass and reject a device that follows the catalogue ends with.
 */
#include "villain/villain.h"

static char why[160];

static const struct aim *const aims[] = {&aim_blk, &aim_net, &aim_net_rx, &aim_vsock,
	&aim_vsock_rx};
static const struct act *const acts[] = {acts_chain, acts_indirect, acts_ring, acts_place,
	acts_regs, acts_life, acts_packet, acts_flow, acts_request, acts_effect, acts_frames,
	acts_flood, acts_race};
static const char *const expect_names[] = {"pass", "reject", "either"};
static const char *const verdict_names[VERDICTS] = {"pass", "reject", "wedged", "fail", "skip"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

bool complain(const char *fmt, ...)
{
	va_list ap;

	if (why[0])
		return false;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

bool complained(void)
{
	return why[0];
}

enum verdict skip(const char *reason)
{
	snprintf(why, sizeof(why), "%s", reason);
	return SKIP;
}

static int list(void)
{
	for (unsigned t = 0; t < COUNT(acts); t++) {
		for (const struct act *a = acts[t]; a->id; a++) {
			const char *comma = "";

			kit_printf("{\"case\": \"%s\", \"on\": [", a->id);
			for (unsigned i = 0; i < COUNT(aims); i++) {
				if (!(a->on & aims[i]->bit))
					continue;
				kit_printf("%s\"%s\"", comma, aims[i]->name);
				comma = ", ";
			}
			kit_printf("], \"expect\": \"%s\", \"needs\": \"%s\"}\n",
				expect_names[a->expect], a->needs ? a->needs : "");
		}
	}
	return 0;
}

static const struct act *find_act(const char *id)
{
	for (unsigned t = 0; t < COUNT(acts); t++) {
		for (const struct act *a = acts[t]; a->id; a++) {
			if (streq(a->id, id))
				return a;
		}
	}
	return NULL;
}

static const struct aim *find_aim(const char *name)
{
	for (unsigned i = 0; i < COUNT(aims); i++) {
		if (streq(aims[i]->name, name))
			return aims[i];
	}
	return NULL;
}

/* The case between two proofs that the device works. */
static enum verdict play(struct scene *s, const struct act *a)
{
	struct virtio_dev found;
	enum verdict v;

	if (!virtio_find(&found, s->aim->device_id))
		return skip("there is no such device");
	s->dev.base_gpa = found.base_gpa;
	s->dev.gsi = found.gsi;
	guards_reset(&s->dev);
	count_queues(s);
	if (!start(s))
		return FAIL;
	if (s->aim->warm)
		s->aim->warm(s);
	if (!start(s) || !good(s) || !start(s))
		return FAIL;
	v = a->play(s);
	guards_check(&s->dev);
	if (complained())
		return v == SKIP ? SKIP : FAIL;
	if (!start(s) || !good(s) || !good(s))
		return WEDGED;
	guards_check(&s->dev);
	return complained() ? FAIL : v;
}

int kit_main(void)
{
	static struct scene s;
	char id[32] = "", dev[16] = "";
	const struct act *a;
	enum verdict v;

	if (kit_flag("list"))
		return list();
	kit_option("case", id, sizeof(id));
	kit_option("dev", dev, sizeof(dev));
	a = find_act(id);
	s.aim = find_aim(dev);
	if (!a || !s.aim || !(a->on & s.aim->bit)) {
		kit_printf("villain: no case \"%s\" for device \"%s\"\n", id, dev);
		return 2;
	}
	s.arg = a->arg;
	v = play(&s, a);
	kit_printf("{\"case\": \"%s\", \"dev\": \"%s\", \"verdict\": \"%s\", \"expect\": \"%s\", ",
		id, dev, verdict_names[v], expect_names[a->expect]);
	kit_printf("\"why\": \"%s\"}\n", why);
	return (int)v * 10;
}
