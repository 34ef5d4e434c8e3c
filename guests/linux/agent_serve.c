/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_serve.c - one connection: read its request, do it, answer.
 *
 * Runs in a process of its own, so it may block, and whatever goes wrong ends it and no other.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "monitor/base/tree.h"

#define REQUEST_MS 10000 /* for the whole request to arrive */
#define GOODBYE_MS 2000  /* for a peer that is still sending, */
#define GOODBYES   8192  /* and so many pieces */

static struct frame_reader in;
static struct tree tree;

void serve_fail(int fd, u32 status, const struct err *e)
{
	u8 p[4 + sizeof(e->msg)];
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	size_t len = strlen(e->msg);
	char junk[4096];

	le_put(p, status, 4);
	memcpy(p + 4, e->msg, len);
	if (frame_send(fd, FR_ERROR, p, (u32)(4 + len), NULL))
		return;
	/* A socket that is closed with something unread would take the message with it. */
	shutdown(fd, SHUT_WR);
	for (unsigned i = 0; i < GOODBYES && poll(&wait, 1, GOODBYE_MS) > 0; i++)
		if (recv(fd, junk, sizeof(junk), MSG_DONTWAIT) <= 0)
			break;
}

static int ok(void)
{
	return frame_send(in.fd, FR_OK, NULL, 0, NULL);
}

/* Everything that was written to the file system @path is on is on stable storage. */
static int sync_at(const char *path, struct err *e)
{
	char dir[4096];
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0) { /* perhaps a file its owner may not read */
		char name[256];

		tree_base(path, name, sizeof(name));
		snprintf(dir, sizeof(dir), "%s", path);
		dir[strlen(dir) > strlen(name) ? strlen(dir) - strlen(name) : 0] = 0;
		fd = open(dir[0] ? dir : ".", O_RDONLY | O_CLOEXEC);
	}
	r = fd < 0 || syncfs(fd) ? errno : 0;
	if (fd >= 0)
		close(fd);
	return r ? err_sys(e, r, "cannot sync %s", path) : 0;
}

static int put(const struct frame *f, struct err *e)
{
	static char dest[4096], base[256];
	u32 at = 8;
	const char *a = frame_text(f, &at), *b = a ? frame_text(f, &at) : NULL;
	int r;

	if (!b || strlen(a) >= sizeof(dest) || strlen(b) >= sizeof(base))
		return err_set(e, -EPROTO, "a request that makes no sense");
	snprintf(dest, sizeof(dest), "%s", a);
	snprintf(base, sizeof(base), "%s", b);
	tree.mode_mask = 07777;
	r = ok();
	if (!r)
		r = tree_recv(&tree, dest, base, e);
	if (!r)
		r = sync_at(dest, e);
	return r ? r : ok();
}

static int get(const struct frame *f, struct err *e)
{
	static char path[4096];
	u32 at = 8;
	const char *a = frame_text(f, &at);
	int r;

	if (!a || !*a || strlen(a) >= sizeof(path))
		return err_set(e, -EPROTO, "a request that makes no sense");
	snprintf(path, sizeof(path), "%s", a);
	r = ok();
	return r ? r : tree_send(&tree, path, e);
}

static int set_time(const struct frame *f, struct err *e)
{
	int r = clock_step(le_get(f->p, 8), false);

	return r < 0 ? err_sys(e, -r, "cannot set the guest's clock") : ok();
}

static int set_net(const struct frame *f, struct err *e)
{
	int r = net_apply((const char *)f->p + 8, f->len - 8, e);

	return r ? r : ok();
}

static int sync_all(void)
{
	sync();
	return ok();
}

static int info(void)
{
	char text[256];
	struct timespec ts;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	n = snprintf(text, sizeof(text), "version=%u\ngeneration=%u\nidentity=%s\nwall=%lu.%09lu\n",
		AGENT_VERSION, ident_generation(), ident_present() ? "yes" : "no",
		(unsigned long)ts.tv_sec, (unsigned long)ts.tv_nsec);
	return frame_send(in.fd, FR_OK, text, (u32)n, NULL);
}

static int request(const struct frame *f, struct err *e)
{
	switch (f->type) {
	case FR_EXEC: exec_serve(&in, f); return 0;
	case FR_PUT: return put(f, e);
	case FR_GET: return get(f, e);
	case FR_TIME: return set_time(f, e);
	case FR_NET: return set_net(f, e);
	case FR_SYNC: return sync_all();
	case FR_INFO: return info();
	default: return err_set(e, -EPROTO, "a request this agent does not know");
	}
}

void serve(int fd, bool step)
{
	struct frame f;
	struct err e = {0};
	sigset_t mask;
	int r;

	setsid();
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD); /* which agent_exec.c reads from a descriptor */
	sigprocmask(SIG_SETMASK, &mask, NULL);
	in.fd = fd;
	tree.in = &in;
	r = frame_wait(&in, REQUEST_MS, &f, &e);
	if (!r && f.len < 8)
		r = err_set(&e, -EPROTO, "a request that is too short");
	if (!r) {
		if (step)
			clock_step(le_get(f.p, 8), false);
		r = request(&f, &e);
	}
	if (r && r != -ECONNRESET && r != -EPIPE && e.code)
		serve_fail(fd, 1, &e);
	close(fd);
}
