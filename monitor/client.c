/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c - see client.h
 *
 * One exchange is: send everything, read until the reply is complete. Sockets do not block; an
 * exchange waits in poll() until its deadline, many at a time where a verb asks many VMs.
 * Descriptors go with the first bytes (SCM_RIGHTS).
 * The reply is a VM's, which may be in its guest's hands, so it is bounded and parsed with
 * suspicion, too: all bytes of it count, whatever they are, and the deadline holds while they come.
 */
#include "monitor/client.h"

#include <errno.h>
#include <http_parser.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "monitor/base/bytes.h"
#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/vmfind.h"

#define ROOT_DIR   "/run/kelvin" /* root's, where nothing else is set */
#define REPLY_MAX  (256u << 10) /* bytes, with headers and what chunks are wrapped in */
#define VALUES_MAX 4096u        /* in it; 32 vCPUs and 15 devices make 1100 */
#define PATH_CAP   512u
#define BATCH      128u /* VMs asked at once */
#define BUSY_TRIES 100u /* of 5 ms, while a VM's backlog is full */

/* ---- names ---- */

/*
 * The place for root's VMs may be a link to one in /dev/shm (vmdir.c), and the link may have
 * outlived what it points to: what is there now need not be root's.
 */
static int check_root_dir(const char *path, struct err *e)
{
	static bool sound;
	struct stat st;

	if (sound || stat(path, &st))
		return 0;
	if (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return err_set(e, -EPERM,
			"%s can be written by others, so it is not used: remove it, or set "
			"KELVIN_RUN_DIR", path);
	sound = true;
	return 0;
}

int run_dir(char *out, size_t cap, struct err *e)
{
	const char *own = getenv("KELVIN_RUN_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (own && *own) {
		if (own[0] != '/')
			return err_set(e, -EINVAL,
				"KELVIN_RUN_DIR is \"%s\", which is not an absolute path", own);
		n = snprintf(out, cap, "%s", own);
	} else if (geteuid() == 0) {
		if (check_root_dir(ROOT_DIR, e))
			return -EPERM;
		n = snprintf(out, cap, ROOT_DIR);
	} else if (xdg && xdg[0] == '/') {
		n = snprintf(out, cap, "%s/kelvin", xdg);
	} else if (access("/run", W_OK) == 0) {
		/* In a directory of our own as root, without environment: a jailer's. */
		n = snprintf(out, cap, ROOT_DIR);
	} else {
		return err_set(e, -ENOENT,
			"no place for running VMs: set KELVIN_RUN_DIR (or XDG_RUNTIME_DIR)");
	}
	if (n < 0 || (size_t)n >= cap)
		return err_set(e, -ENAMETOOLONG,
			"the directory of running VMs has too long a name: set KELVIN_RUN_DIR");
	return 0;
}

int vm_id_check(const char *id, struct err *e)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t len = strlen(id);

	if (len < 1 || len > VM_ID_MAX || id[0] == '.' || id[0] == '-' ||
		strspn(id, letters) != len)
		return err_set(e, -EINVAL,
			"\"%.80s\" is not a VM id: 1 to %u letters, digits, '_', '.' and '-', not "
			"beginning with '.' or '-'",
			id, VM_ID_MAX);
	return 0;
}

int vm_path(char *out, size_t cap, const char *id, const char *name, struct err *e)
{
	char base[PATH_CAP];
	int n, r = vm_id_check(id, e);

	if (!r)
		r = run_dir(base, sizeof(base), e);
	if (r)
		return r;
	n = snprintf(out, cap, "%s/%s%s%s", base, id, name ? "/" : "", name ? name : "");
	if (n < 0 || (size_t)n >= cap)
		return err_set(e, -ENAMETOOLONG,
			"%s/%s%s%s is longer than %zu bytes: use a shorter id or KELVIN_RUN_DIR",
			base, id, name ? "/" : "", name ? name : "", cap - 1);
	return 0;
}

/* ---- connecting ---- */

/* What it means that nobody answers at a VM's socket. */
static int explain_absent(const char *id, struct err *e)
{
	enum vm_there there = vm_look(id, NULL);
	char dir[PATH_CAP];

	if (vm_path(dir, sizeof(dir), id, NULL, e))
		return e ? e->code : -EINVAL;
	if (there == VM_ABSENT)
		return err_set(e, -ENOENT, "no VM called \"%s\" (see kelvin ps)", id);
	if (there == VM_ENDED)
		return err_set(e, -ENOENT,
			"VM \"%s\" has ended: see %s/log (kelvin kill %s removes it)", id, dir, id);
	return err_set(e, -ECONNREFUSED, "VM \"%s\" is dead (kelvin kill %s removes what it left)",
		id, id);
}

pid_t client_peer(int fd)
{
	socklen_t len = sizeof(struct ucred);
	struct ucred peer = {0};

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ? 0 : peer.pid;
}

int client_connect(int *ret_fd, const char *id, const char *name, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = -1;
	int r = vm_path(sa.sun_path, sizeof(sa.sun_path), id, name, e);

	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, errno, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa))) {
		if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
			return explain_absent(id, e);
		if (errno == EAGAIN)
			return err_set(e, -EAGAIN, "VM \"%s\" has too many clients: try again", id);
		return err_sys(e, errno, "cannot reach VM \"%s\" at %s", id, sa.sun_path);
	}
	*ret_fd = fd_steal(&fd);
	return 0;
}

/* ---- one exchange ---- */

struct exchange {
	const char *id;
	int fd;
	char *out; /* the request */
	size_t out_off, out_len;
	const int *files; /* to go with it */
	unsigned file_count;
	http_parser parser;
	size_t in_len;   /* bytes of the reply, all of them */
	struct enc body; /* of it */
	bool complete;
};

static int on_body(http_parser *p, const char *at, size_t len)
{
	struct exchange *x = p->data;

	enc_bytes(&x->body, at, len);
	return x->body.oom;
}

static int on_message_complete(http_parser *p)
{
	struct exchange *x = p->data;

	x->complete = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings callbacks = {
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

/* The connection stays its owner's. */
static void exchange_finish(struct exchange *x)
{
	free(x->out);
	enc_free(&x->body);
	x->out = NULL;
}

static int compose(struct exchange *x, const char *method, const char *path, json_t *body,
	struct err *e)
{
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	int n;

	if (body && !text)
		return err_set(e, -EINVAL, "the request to VM \"%s\" is not valid UTF-8", x->id);
	if (text)
		n = asprintf(&x->out,
			"%s %s HTTP/1.1\r\nHost: kelvin\r\nContent-Type: application/json\r\n"
			"Content-Length: %zu\r\n\r\n%s",
			method, path, strlen(text), text);
	else
		n = asprintf(&x->out, "%s %s HTTP/1.1\r\nHost: kelvin\r\n\r\n", method, path);
	if (n < 0) {
		x->out = NULL;
		return err_sys(e, ENOMEM, "cannot ask VM \"%s\"", x->id);
	}
	x->out_len = (size_t)n;
	return 0;
}

int client_dial(int *ret_fd, const char *id, struct err *e)
{
	int r = client_connect(ret_fd, id, "api.sock", e);

	for (unsigned i = 0; r == -EAGAIN && i < BUSY_TRIES; i++) {
		poll(NULL, 0, 5);
		r = client_connect(ret_fd, id, "api.sock", e);
	}
	return r;
}

static int exchange_begin(struct exchange *x, int fd, const struct client_request *q, struct err *e)
{
	*x = (struct exchange){
		.id = q->id, .fd = fd, .files = q->files, .file_count = q->file_count};
	http_parser_init(&x->parser, HTTP_RESPONSE);
	x->parser.data = x;
	return compose(x, q->method, q->path, q->body, e);
}

static short exchange_wants(const struct exchange *x)
{
	return x->out_off < x->out_len ? POLLOUT : POLLIN;
}

static int exchange_read(struct exchange *x, struct err *e)
{
	char buf[16384];
	ssize_t n = recv(x->fd, buf, sizeof(buf), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return err_set(e, -EPIPE, "VM \"%s\" ended before it answered", x->id);
	x->in_len += (size_t)n;
	if (x->in_len > REPLY_MAX)
		return err_set(e, -EPROTO, "VM \"%s\" answers with more than %u KiB", x->id,
			REPLY_MAX >> 10);
	http_parser_execute(&x->parser, &callbacks, buf, (size_t)n);
	if (!x->complete && HTTP_PARSER_ERRNO(&x->parser) != HPE_OK)
		return err_set(e, -EPROTO, "VM \"%s\" answered something that is not HTTP: %s",
			x->id, http_errno_description(HTTP_PARSER_ERRNO(&x->parser)));
	return 0;
}

static ssize_t exchange_send(const struct exchange *x)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(CLIENT_FILES_MAX * sizeof(int))];
	} control = {0};
	size_t len = x->file_count * sizeof(int);
	struct iovec iov = {x->out + x->out_off, x->out_len - x->out_off};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	must(x->file_count <= CLIENT_FILES_MAX);
	if (x->file_count && !x->out_off) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(len);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(len);
		memcpy(CMSG_DATA(&control.head), x->files, len);
	}
	return sendmsg(x->fd, &msg, MSG_NOSIGNAL);
}

/* Sends or reads what can be without waiting. */
static int exchange_step(struct exchange *x, struct err *e)
{
	ssize_t n;

	if (x->out_off == x->out_len)
		return exchange_read(x, e);
	n = exchange_send(x);
	if (n >= 0)
		x->out_off += (size_t)n;
	else if (errno == EPIPE || errno == ECONNRESET)
		x->out_off = x->out_len; /* what it had to say about that may be there to read */
	else if (errno != EAGAIN && errno != EINTR)
		return err_sys(e, errno, "cannot ask VM \"%s\"", x->id);
	return 0;
}

/* At most how many values there are in JSON text: each but the first has one of these before it. */
static size_t count_values(const u8 *text, size_t len)
{
	bool quoted = false;
	size_t n = 1;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '"')
			quoted = !quoted;
		else if (quoted)
			i += text[i] == '\\';
		else
			n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
	}
	return n;
}

/* The complete reply as JSON, or the error it is. */
static int exchange_result(const struct exchange *x, json_t **ret, struct err *e)
{
	unsigned status = x->parser.status_code;
	const char *fault = NULL;
	json_error_t error;
	json_t *j = NULL;

	/* A value of two bytes takes two hundred in memory, and ps holds the replies of all VMs. */
	if (count_values(x->body.buf, x->body.len) > VALUES_MAX)
		return err_set(e, -EPROTO, "VM \"%s\" answers with more than %u values", x->id,
			VALUES_MAX);
	if (x->body.len) {
		j = json_loadb((const char *)x->body.buf, x->body.len, JSON_REJECT_DUPLICATES,
			&error);
		if (!j && status < 400)
			return err_set(e, -EPROTO,
				"VM \"%s\" answered something that is not JSON: %s", x->id,
				error.text);
	}
	if (status >= 400) {
		fault = json_string_value(json_object_get(j, "fault_message"));
		if (!fault)
			fault = json_string_value(json_object_get(j, "error"));
		if (fault)
			err_set(e, -EREMOTEIO, "VM \"%s\": %.*s", x->id, (int)strcspn(fault, "\n"),
				fault);
		else
			err_set(e, -EREMOTEIO, "VM \"%s\" answered with status %u", x->id, status);
		json_decref(j);
		return -EREMOTEIO;
	}
	*ret = j;
	return 0;
}

/* ---- time ---- */

static u64 now_ms(void)
{
	return monotonic_ns() / 1000000;
}

/* What poll() is to wait for; 0 when the time is up. */
static int left_ms(u64 begin_ms, unsigned timeout_ms)
{
	u64 gone = now_ms() - begin_ms;

	if (!timeout_ms)
		return -1;
	return gone >= timeout_ms ? 0 : (int)(timeout_ms - gone);
}

static int timed_out(const struct exchange *x, unsigned timeout_ms, struct err *e)
{
	return err_set(e, -ETIMEDOUT,
		"VM \"%s\" did not answer within %u ms (kelvin kill %s ends it)", x->id, timeout_ms,
		x->id);
}

int client_ask(int fd, const struct client_request *q, json_t **ret_reply, struct err *e)
{
	unsigned limit = q->timeout_ms;
	u64 begin = now_ms();
	json_t *reply = NULL;
	struct exchange x;
	int r = exchange_begin(&x, fd, q, e);

	while (!r && !x.complete) {
		struct pollfd p = {.fd = x.fd, .events = exchange_wants(&x)};
		int left = left_ms(begin, limit);

		if (poll(&p, 1, left) > 0)
			r = exchange_step(&x, e);
		if (left == 0 && q->timeout_now)
			limit = q->timeout_now(q->ctx);
		if (!r && !x.complete && left == 0 && !left_ms(begin, limit))
			r = timed_out(&x, limit, e); /* even if there is more to read */
	}
	if (!r)
		r = exchange_result(&x, &reply, e);
	exchange_finish(&x);
	if (r)
		return r;
	if (ret_reply)
		*ret_reply = reply;
	else
		json_decref(reply);
	return 0;
}

int client_call(const char *id, const char *method, const char *path, json_t *body,
	unsigned timeout_ms, json_t **ret_reply, struct err *e)
{
	struct client_request q = {.id = id, .method = method, .path = path, .body = body,
		.timeout_ms = timeout_ms};
	_cleanup_fd_ int fd = -1;
	int r = client_dial(&fd, id, e);

	return r ? r : client_ask(fd, &q, ret_reply, e);
}

/* ---- many at once ---- */

static void end_exchange(struct exchange *x)
{
	exchange_finish(x);
	fd_close(&x->fd);
}

/* One poll() over all that still run, and a step for each that is ready. Returns how many run. */
static unsigned step_all(struct exchange *x, size_t n, int wait_ms, json_t **ret_reply,
	struct err *ret_err)
{
	struct pollfd p[BATCH];
	unsigned running = 0;

	for (size_t i = 0; i < n; i++) {
		p[i] = (struct pollfd){.fd = x[i].fd, .events = exchange_wants(&x[i])};
		running += x[i].fd >= 0;
	}
	if (!running || poll(p, n, wait_ms) <= 0)
		return running;
	for (size_t i = 0; i < n; i++) {
		int r;

		if (!p[i].revents)
			continue;
		r = exchange_step(&x[i], &ret_err[i]);
		if (!r && !x[i].complete)
			continue;
		if (!r)
			exchange_result(&x[i], &ret_reply[i], &ret_err[i]);
		end_exchange(&x[i]);
		running--;
	}
	return running;
}

/* x->fd is -1 where it fails. */
static void begin_get(struct exchange *x, const char *id, const char *path, struct err *e)
{
	struct client_request q = {.id = id, .method = "GET", .path = path};
	int fd = -1;

	*x = (struct exchange){.fd = -1};
	if (!client_dial(&fd, id, e) && exchange_begin(x, fd, &q, e))
		end_exchange(x);
}

static void get_batch(const char *const *ids, size_t n, const char *path, unsigned timeout_ms,
	json_t **ret_reply, struct err *ret_err)
{
	struct exchange *x = calloc(n, sizeof(*x));
	u64 begin = now_ms();
	int left;

	for (size_t i = 0; i < n; i++) {
		ret_reply[i] = NULL;
		ret_err[i].code = 0;
		if (!x)
			err_sys(&ret_err[i], ENOMEM, "cannot ask VM \"%s\"", ids[i]);
		else
			begin_get(&x[i], ids[i], path, &ret_err[i]);
	}
	if (!x)
		return;
	do {
		left = left_ms(begin, timeout_ms);
	} while (step_all(x, n, left, ret_reply, ret_err) && left);
	for (size_t i = 0; i < n; i++) {
		if (x[i].fd < 0)
			continue;
		timed_out(&x[i], timeout_ms, &ret_err[i]);
		end_exchange(&x[i]);
	}
	free(x);
}

void client_get_each(const char *const *ids, size_t n, const char *path, unsigned timeout_ms,
	json_t **ret_reply, struct err *ret_err)
{
	for (size_t at = 0; at < n; at += BATCH)
		get_batch(ids + at, n - at < BATCH ? n - at : BATCH, path, timeout_ms,
			ret_reply + at, ret_err + at);
}
