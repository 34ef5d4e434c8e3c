/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_cp.c - kelvin cp: copy files and directories to or from a Linux guest that has the agent.
 *
 * Both sides use the same code for the tree (monitor/base/tree.h). What comes from a guest is not
 * trusted: nothing but DST and what is below it is written, and no set-user-id bit is kept.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/tree.h"
#include "monitor/guest.h"
#include "monitor/vm_verb.h"

#define REDRAW_NS 100000000ull

enum { OPT_JSON = 1, OPT_QUIET, OPT_TIMEOUT, OPT_WAIT };

static const struct opt_spec opts[] = {
	{"quiet", NULL, "no progress on a terminal", OPT_QUIET},
	{"timeout", "TIME", "how long the agent may take to accept (default 10s)", OPT_TIMEOUT},
	{"wait", "TIME", "try again for so long where there is no such VM,\nor no agent yet",
		OPT_WAIT},
	{"json", NULL, "print what was copied as an object", OPT_JSON},
};

static const struct opt_parser parser = {
	.verb = "cp",
	.usage = "cp [options] SRC ID:DST  |  cp [options] ID:SRC DST",
	.summary = "Copies a file, or a directory with all that is in it, into or out of the\n"
		   "Linux guest of VM ID, through the agent in it (see guests/linux). If DST\n"
		   "is a directory, the copy goes into it; SRC/. is what is in SRC. Modes,\n"
		   "times and symbolic links are kept, owners are not; devices, sockets and\n"
		   "pipes are left out. A file appears once it is complete, and takes the\n"
		   "place of one that was there. What was copied to a guest is on its disk.",
	.examples = "  kelvin cp app.tar web:/srv/\n"
		    "  kelvin cp web:/var/log logs\n"
		    "  kelvin cp site/. web:/srv/www               # what is in it\n"
		    "  kelvin cp ./a:b web:/tmp/ab                 # a name with a colon\n",
	.opts = opts,
	.opt_count = ARRAY_SIZE(opts),
};

struct copy {
	struct tree tree; /* first: the callbacks get back from it */
	struct frame_reader in;
	u8 request[2 * 4096 + 512];
	u64 drawn_ns;
	bool drawn; /* there is a progress line to be wiped */
};

/* ---- what people see ---- */

static void wipe_line(struct copy *c)
{
	if (c->drawn)
		fputs("\r\033[K", stderr);
	c->drawn = false;
}

static void progress(struct tree *t, u64 done, u64 size)
{
	struct copy *c = container_of(t, struct copy, tree);
	u64 now = monotonic_ns();
	char a[32], b[32], name[48];
	size_t len = strlen(t->path);

	if (now - c->drawn_ns < REDRAW_NS)
		return;
	c->drawn_ns = now;
	c->drawn = true;
	snprintf(name, sizeof(name), "%s", len < sizeof(name) ? t->path : t->path + len - 40);
	for (char *p = name; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			*p = '?';
	fprintf(stderr, "\r\033[K%s  %s", name, show_size(done, a, sizeof(a)));
	if (size > done)
		fprintf(stderr, " of %s", show_size(size, b, sizeof(b)));
	fflush(stderr);
}

static void note(struct tree *t, const char *text)
{
	struct err e;

	wipe_line(container_of(t, struct copy, tree));
	err_set(&e, -EINVAL, "%s", text);
	fail(&e);
}

/* ---- the two ways ---- */

static int answer(struct copy *c, struct err *e)
{
	struct frame f;
	int r;

	do {
		r = frame_wait(&c->in, -1, &f, e);
		if (!r && f.type == FR_NOTE)
			note(&c->tree, (const char *)f.p);
	} while (!r && f.type == FR_NOTE);
	if (r)
		return r;
	if (f.type == FR_ERROR)
		return frame_error(&f, NULL, e);
	return f.type == FR_OK ? 0 : err_set(e, -EPROTO, "the agent said something unknown");
}

static int ask(struct copy *c, u8 type, const char *a, const char *b, struct err *e)
{
	u32 at = guest_request(c->request);
	int n = snprintf((char *)c->request + at, sizeof(c->request) - at, "%s%c%s", a, 0,
		b ? b : "");
	int r;

	/* One text has its end counted by the format, two do not. */
	if (n < 0 || (size_t)n + at + 1 > sizeof(c->request) || strlen(a) >= 4096)
		return err_set(e, -ENAMETOOLONG, "the path is too long: %s", a);
	r = frame_send(c->in.fd, type, c->request, at + (u32)n + (b != NULL), e);
	return r ? r : answer(c, e);
}

static int copy_in(struct copy *c, const char *src, const char *dst, struct err *e)
{
	char base[256];
	int r;

	if (access(src, R_OK))
		return err_sys(e, errno, "cannot read %s", src);
	tree_base(src, base, sizeof(base));
	r = ask(c, FR_PUT, dst, base, e);
	if (!r)
		r = tree_send(&c->tree, src, e);
	return r ? r : answer(c, e);
}

static int copy_out(struct copy *c, const char *src, const char *dst, struct err *e)
{
	char base[256];
	int r;

	tree_base(src, base, sizeof(base));
	r = ask(c, FR_GET, src, NULL, e);
	c->tree.mode_mask = 0777;
	return r ? r : tree_recv(&c->tree, dst, base, e);
}

/* ---- the verb ---- */

/* The path behind "ID:", with the id in @id; NULL for a local path. */
static const char *remote(const char *arg, char *id, size_t cap)
{
	size_t n = strcspn(arg, ":/");

	if (arg[n] != ':' || !n || n >= cap)
		return NULL;
	memcpy(id, arg, n);
	id[n] = 0;
	return arg + n + 1;
}

struct job {
	const char *src, *dst;
	char id[VM_ID_MAX + 2];
	bool in, json, quiet;
	u64 timeout_ns, wait_ns;
};

static int show_result(const struct tree *t)
{
	return show_json(json_pack("{s:I, s:I, s:I, s:I}", "files", (json_int_t)t->files,
		"directories", (json_int_t)t->dirs, "links", (json_int_t)t->links, "bytes",
		(json_int_t)t->bytes));
}

static int run(const struct job *j)
{
	_cleanup_free_ struct copy *c = calloc(1, sizeof(*c));
	_cleanup_fd_ int fd = -1;
	struct err e;
	int r;

	if (!c) {
		err_sys(&e, ENOMEM, "cannot make buffers");
		return fail(&e);
	}
	if (guest_agent(j->id, j->timeout_ns, j->wait_ns, &fd, &e))
		return fail(&e);
	c->in.fd = fd;
	c->tree.in = &c->in;
	c->tree.note = note;
	c->drawn_ns = monotonic_ns(); /* a quick copy shows none */
	if (!j->quiet && isatty(STDERR_FILENO))
		c->tree.progress = progress;
	r = j->in ? copy_in(c, j->src, j->dst, &e) : copy_out(c, j->src, j->dst, &e);
	wipe_line(c);
	if (r == -ECONNRESET || r == -EPIPE)
		err_set(&e, r, "the connection to VM \"%s\" was cut off", j->id);
	else if (r == -EREMOTEIO || r == -EPROTO)
		err_wrap(&e, "VM \"%s\"", j->id);
	if (r)
		return fail(&e);
	return j->json ? show_result(&c->tree) : 0;
}

static int take_option(const struct opt_parser *p, struct job *j, int id, const char *arg)
{
	struct err e;

	if (id == OPT_JSON)
		j->json = true;
	else if (id == OPT_QUIET)
		j->quiet = true;
	else if (parse_time(arg, id == OPT_WAIT ? &j->wait_ns : &j->timeout_ns, &e))
		return usage_error(p, "--%s: %s", id == OPT_WAIT ? "wait" : "timeout", e.msg);
	return 0;
}

int cmd_cp(int argc, char **argv)
{
	struct opt_parser p = parser;
	struct job j = {.timeout_ns = GUEST_TIMEOUT_NS};
	const char *arg, *from, *to;
	char other[sizeof(j.id)];
	int id;

	opt_begin(&p, argc, argv);
	while ((id = opt_next(&p, &arg)) > 0)
		if (take_option(&p, &j, id, arg))
			return 2;
	if (id < 0)
		return 2;
	if (argc - optind != 2)
		return usage_error(&p, "one source and one destination, please");
	from = remote(argv[optind], j.id, sizeof(j.id));
	to = remote(argv[optind + 1], from ? other : j.id, sizeof(other));
	if (!from == !to)
		return usage_error(&p,
			"one of SRC and DST must be ID:PATH, the other a local path");
	j.in = to != NULL;
	j.src = from ? from : argv[optind];
	j.dst = to ? to : argv[optind + 1];
	if (!*j.src || !*j.dst)
		return usage_error(&p, "there is no path behind \"%s:\"", j.id);
	return run(&j);
}
