/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.c - see api.h
 *
 * Theory of operation. Up to CONNECTIONS_MAX connections sit in slots; http.c turns what they say
 * into requests, one at a time each. A request is looked up in api_routes.def, its body parsed, its
 * route's states compared with the VM's, and handed to a handler in api_vm.c. Handlers whose answer
 * takes time (pause, snapshot) keep the struct api_call: it is the only thing they hold, and it
 * forgets its slot when the API goes first.
 *
 * One timer ticks only while some limit on time runs, so an idle API costs nothing.
 *
 * Limits: 10 connections, HTTP_* in http.h, JSON depth 2048 (jansson's), no duplicate keys, no
 * unknown keys. Who may connect is decided by the socket's mode; who asked is logged.
 */
#include "monitor/api_int.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/log.h"
#include "monitor/http.h"
#include "monitor/kv.h"

#define CONNECTIONS_MAX 10u
#define TICK_NS         250000000ull
#define DRAIN_NS        100000000ull /* for replies, when the API ends */
#define NAME_SHOWN      64u          /* bytes of a path that are repeated to the client */

struct api_slot {
	struct api *api;
	struct http_conn *conn; /* NULL: free */
	struct api_call *call;  /* being answered */
	bool resumes;           /* api_resume_on_hangup() */
	struct ucred peer;
};

struct api {
	struct machine *machine;
	struct ring *ring;
	int listen_fd;
	struct ring_op accept_op, tick_op;
	struct ring_time tick_ts;
	bool accept_later; /* the host is short of something: with the next tick */
	bool closing;
	bool held;
	struct api_slot slot[CONNECTIONS_MAX];
};

struct route {
	const char *method, *path;
	api_handler handler;
	u32 states;
};

#define ANY   UINT32_MAX
#define IN(s) (1u << LIFE_##s)
static const struct route routes[] = {
#define ROUTE(method, path, handler, states) {#method, path, api_##handler, states},
#include "monitor/api_routes.def"
#undef ROUTE
};

static void accept_next(struct api *api);

/* ---- the timer ---- */

static void arm_tick(struct api *api)
{
	bool timed = api->accept_later;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		timed = timed || (api->slot[i].conn && http_timed(api->slot[i].conn));
	if (timed && !api->tick_op.busy && !api->closing)
		ring_timeout(api->ring, &api->tick_op, &api->tick_ts, TICK_NS);
}

static void on_tick(struct ring_op *op, int res)
{
	struct api *api = container_of(op, struct api, tick_op);

	if (api->closing)
		return;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (api->slot[i].conn)
			http_tick(api->slot[i].conn);
	if (api->accept_later)
		accept_next(api);
	arm_tick(api);
}

/* ---- answers ---- */

/* A client outside our pid namespace has no pid here: the kernel says 0. */
static void log_call(const struct api_call *c, const struct ucred *peer, unsigned status)
{
	char pid[24] = "";

	if (peer->pid)
		snprintf(pid, sizeof(pid), "pid %d, ", (int)peer->pid);
	log_line("api: %s %s from %suid %d: %u", c->method, c->path, pid, (int)peer->uid, status);
}

/* @text is taken over. */
static void finish_call(struct api_call *c, unsigned status, char *text)
{
	struct api_slot *slot = c->slot;

	if (slot) {
		slot->call = NULL;
		if (strcmp(c->method, "GET"))
			log_call(c, &slot->peer, status);
		http_reply(slot->conn, status, text);
	} else {
		free(text);
	}
	json_decref(c->body);
	json_decref(c->info);
	free(c->own_dir);
	for (unsigned i = 0; i < c->file_count; i++)
		fd_close(&c->file[i].fd);
	free(c);
}

/* {"fault_message": text}; what is not UTF-8 in it is made readable. */
static char *fault_json(char *text)
{
	json_t *j = json_pack("{s:s}", "fault_message", text);
	char *out;

	if (!j) {
		for (char *p = text; *p; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
		j = json_pack("{s:s}", "fault_message", text);
	}
	out = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return out;
}

void api_ok(struct api_call *c)
{
	finish_call(c, 204, NULL);
}

void api_answer(struct api_call *c, json_t *reply)
{
	char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

	json_decref(reply);
	if (text)
		finish_call(c, 200, text);
	else
		api_fault(c, "The answer cannot be written as JSON.");
}

void api_fault(struct api_call *c, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	finish_call(c, 400, fault_json(text));
}

void api_hold(struct api_call *c, bool held)
{
	if (c->slot)
		c->slot->api->held = held;
}

bool api_held(const struct api_call *c)
{
	return c->slot && c->slot->api->held;
}

void api_resume_on_hangup(struct api_call *c)
{
	if (c->slot)
		c->slot->resumes = true;
}

/* ---- bodies ---- */

#define FILES_UNASKED "The request came with file descriptors that nothing in it asks for."

static const struct api_field *find_field(const struct api_field *fields, unsigned n,
	const char *key)
{
	for (unsigned i = 0; i < n; i++)
		if (strcmp(fields[i].key, key) == 0)
			return &fields[i];
	return NULL;
}

/* "unknown field `x`, expected `a`" or "..., expected one of `a`, `b`" */
static void fault_unknown_field(struct api_call *c, const struct api_field *fields, unsigned n,
	const char *key)
{
	char list[256] = "";
	size_t used = 0;

	for (unsigned i = 0; i < n && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s`%s`",
			i ? ", " : (n > 1 ? "one of " : ""), fields[i].key);
	if (n)
		api_fault(c, API_JSON_ERROR "unknown field `%.64s`, expected %s.", key, list);
	else
		api_fault(c, API_JSON_ERROR "unknown field `%.64s`, there are no fields.", key);
}

/* A name for each descriptor, in their order; no name twice. */
static bool name_files(struct api_call *c, const json_t *names)
{
	size_t n = json_array_size(names);

	if (!json_is_array(names) || n != c->file_count)
		return false;
	for (size_t i = 0; i < n; i++) {
		c->file[i].name = json_string_value(json_array_get(names, i));
		if (!c->file[i].name)
			return false;
		for (size_t k = 0; k < i; k++)
			if (!strcmp(c->file[k].name, c->file[i].name))
				return false;
	}
	return true;
}

static bool take_field(struct api_call *c, const struct api_field *f, json_t *value)
{
	static const char *const kinds[] = {[FIELD_STRING] = " string", [FIELD_BOOL] = " boolean",
		[FIELD_OBJECT] = "n object", [FIELD_COUNT] = " number from 0 up",
		[FIELD_FILES] = " name for each file descriptor that came with the request"};

	if (json_is_null(value) && !f->required)
		return true;
	if (f->type == FIELD_STRING && json_is_string(value)) {
		*(const char **)f->out = json_string_value(value);
		return true;
	}
	if (f->type == FIELD_BOOL && json_is_boolean(value)) {
		*(bool *)f->out = json_is_true(value);
		return true;
	}
	if (f->type == FIELD_OBJECT && json_is_object(value)) {
		*(json_t **)f->out = value;
		return true;
	}
	if (f->type == FIELD_COUNT && json_is_integer(value) && json_integer_value(value) >= 0) {
		*(u64 *)f->out = (u64)json_integer_value(value);
		return true;
	}
	if (f->type == FIELD_FILES && name_files(c, value)) {
		*(bool *)f->out = true;
		return true;
	}
	api_fault(c, API_JSON_ERROR "invalid type for `%s`, expected a%s.", f->key, kinds[f->type]);
	return false;
}

bool api_fields(struct api_call *c, const struct api_field *fields, unsigned n)
{
	const char *key;
	json_t *value;

	json_object_foreach(c->body, key, value) {
		const struct api_field *f = find_field(fields, n, key);

		if (!f) {
			fault_unknown_field(c, fields, n, key);
			return false;
		}
		if (!take_field(c, f, value))
			return false;
	}
	for (unsigned i = 0; i < n; i++) {
		if (fields[i].required && !json_object_get(c->body, fields[i].key)) {
			api_fault(c, API_JSON_ERROR "missing field `%s`.", fields[i].key);
			return false;
		}
	}
	if (c->file_count && !c->file[0].name) {
		api_fault(c, FILES_UNASKED);
		return false;
	}
	return true;
}

/* ---- requests ---- */

/* The path a request means: "http://host/x" is "/x", and one trailing slash does not count. */
static void copy_path(char *out, size_t cap, const char *path)
{
	size_t len;

	if (strncmp(path, "http://", 7) == 0) {
		path = strchr(path + 7, '/');
		if (!path)
			path = "/";
	}
	snprintf(out, cap, "%s", path);
	len = strlen(out);
	if (len > 1 && out[len - 1] == '/')
		out[len - 1] = 0;
}

/* Whether @path is @route's; *@ret_id is what stands for its asterisk, or "". */
static bool path_matches(const char *route, const char *path, const char **ret_id)
{
	size_t n = strlen(route);

	*ret_id = "";
	if (n < 2 || route[n - 1] != '*')
		return strcmp(route, path) == 0;
	if (strncmp(route, path, n - 2) == 0 && !path[n - 2])
		return true; /* no id at all, which is told as such */
	*ret_id = path + n - 1;
	return strncmp(route, path, n - 1) == 0 && !strchr(*ret_id, '/');
}

static const struct route *find_route(const char *method, const char *path, const char **ret_id)
{
	for (unsigned i = 0; i < ARRAY_SIZE(routes); i++)
		if (strcmp(routes[i].method, method) == 0 &&
			path_matches(routes[i].path, path, ret_id))
			return &routes[i];
	return NULL;
}

/* False after a fault was sent. */
static bool take_id(struct api_call *c, const char *id)
{
	size_t n = strlen(id);

	if (c->path[strlen(c->path) - 1] != '*')
		return true;
	if (n && !dev_id_check(id, NULL)) {
		memcpy(c->id, id, n + 1);
		return true;
	}
	api_fault(c, n ? "API Resource IDs can only contain alphanumeric characters and "
			 "underscores."
		       : "The ID cannot be empty.");
	return false;
}

static void fault_no_route(struct api_call *c, const char *path)
{
	char name[NAME_SHOWN + 1];
	size_t n = 0;

	if (*path == '/')
		path++;
	/* Its first component; what is not plain text is not repeated. */
	for (; n < NAME_SHOWN && path[n] && path[n] != '/'; n++)
		name[n] = path[n] > 0x20 && path[n] < 0x7f ? path[n] : '?';
	name[n] = 0;
	api_fault(c, "Invalid request method and/or path: %s %s.", c->method, name);
}

static void fault_state(struct api_call *c, enum life_state s)
{
	if (s == LIFE_NEW || s == LIFE_CONFIGURED)
		api_fault(c,
			"The requested operation is not supported before starting the microVM.");
	else if (s == LIFE_STOPPED)
		api_fault(c, "The VM has ended.");
	else
		api_fault(c, "The VM is %s: try again when that is done.", life_name(s));
}

/* False after a fault was sent. */
static bool take_body(struct api_call *c, const struct http_request *r)
{
	bool is_get = strcmp(r->method, "GET") == 0;
	json_error_t error;

	if (is_get && r->body)
		api_fault(c, "GET request cannot have a body.");
	else if (is_get && c->file_count)
		api_fault(c, FILES_UNASKED);
	else if (!is_get && !r->body)
		api_fault(c, "Empty %s request.", r->method);
	else if (is_get)
		return true;
	else {
		c->body = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES, &error);
		if (c->body && json_is_object(c->body))
			return true;
		if (c->body)
			api_fault(c, API_JSON_ERROR "expected an object.");
		else
			api_fault(c, API_JSON_ERROR "%s at line %d column %d.", error.text,
				error.line, error.column);
	}
	return false;
}

static void on_request(void *ctx, struct http_conn *conn, const struct http_request *r)
{
	struct api_slot *slot = ctx;
	struct api *api = slot->api;
	enum life_state state = machine_state(api->machine);
	char path[HTTP_LINE_MAX + 1];
	const struct route *route;
	const char *route_id = "";
	struct api_call *c = api->closing ? NULL : calloc(1, sizeof(*c));

	if (!c) {
		http_close(conn);
		return;
	}
	copy_path(path, sizeof(path), r->path);
	route = find_route(r->method, path, &route_id);
	c->slot = slot;
	c->machine = api->machine;
	c->method = r->method;
	c->path = route ? route->path : "(no such path)";
	c->file_count = r->file_count;
	for (unsigned i = 0; i < r->file_count; i++)
		c->file[i].fd = fd_steal(&r->file[i]);
	slot->call = c;
	if (!route)
		fault_no_route(c, path);
	else if (!take_id(c, route_id) || !take_body(c, r))
		return;
	else if (!(route->states & (1u << state)))
		fault_state(c, state);
	else
		route->handler(c);
}

/* ---- connections ---- */

static void ignore(void *ctx, const struct err *err)
{
}

/* The client that was to end a paused VM will not. */
static void hung_up(struct api_slot *slot)
{
	struct api *api = slot->api;

	if (!slot->resumes || api->closing)
		return;
	slot->resumes = false;
	if (api->held || machine_state(api->machine) != LIFE_PAUSED)
		return;
	log_line("api: the client that was to end the VM is gone; the VM goes on");
	machine_resume(api->machine, ignore, NULL);
}

static void on_closed(void *ctx, struct http_conn *conn)
{
	struct api_slot *slot = ctx;

	hung_up(slot);

	if (slot->call)
		slot->call->slot = NULL;
	slot->call = NULL;
	slot->conn = NULL;
}

static void on_timed(void *ctx)
{
	const struct api_slot *slot = ctx;

	arm_tick(slot->api);
}

static const struct http_ops http_ops = {
	.request = on_request,
	.timed = on_timed,
	.closed = on_closed,
	.now_ns = monotonic_ns,
};

static void admit(struct api *api, int fd)
{
	socklen_t len = sizeof(struct ucred);
	struct api_slot *slot = NULL;
	struct err e;

	for (unsigned i = 0; i < CONNECTIONS_MAX && !slot; i++)
		if (!api->slot[i].conn)
			slot = &api->slot[i];
	if (!slot) {
		log_limited("api: too many connections");
		http_refuse(fd);
		return;
	}
	slot->peer = (struct ucred){0};
	/* syscalls[L]: getsockopt(SO_PEERCRED) */
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &slot->peer, &len);
	if (http_open(&slot->conn, api->ring, fd, &http_ops, slot, &e))
		log_limited("api: %s", e.msg);
}

static void on_accept(struct ring_op *op, int res);

static void accept_next(struct api *api)
{
	api->accept_later = false;
	api->accept_op.done = on_accept;
	ring_accept(api->ring, &api->accept_op, api->listen_fd);
}

static void on_connectable(struct ring_op *op, int res)
{
	struct api *api = container_of(op, struct api, accept_op);

	if (!api->closing)
		accept_next(api);
}

static void on_accept(struct ring_op *op, int res)
{
	struct api *api = container_of(op, struct api, accept_op);

	if (api->closing) {
		if (res >= 0)
			fd_close(&res);
		return;
	}
	if (res >= 0)
		admit(api, res);
	if (res == -EAGAIN) { /* a kernel that does not wait on non-blocking sockets */
		op->done = on_connectable;
		ring_poll(api->ring, op, api->listen_fd, POLLIN);
	} else if (res >= 0 || res == -EINTR || res == -ECONNABORTED) {
		accept_next(api);
	} else { /* out of descriptors or memory: not in a busy loop */
		log_limited("api: cannot accept a connection: %s", strerror(-res));
		api->accept_later = true;
		arm_tick(api);
	}
}

/* ---- begin and end ---- */

int api_create(struct api **ret, struct machine *m, int listen_fd, struct err *e)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return err_sys(e, ENOMEM, "cannot serve the API");
	api->machine = m;
	api->ring = machine_ring(m);
	api->listen_fd = listen_fd;
	api->tick_op.done = on_tick;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		api->slot[i].api = api;
	accept_next(api);
	*ret = api;
	return 0;
}

bool api_busy(const struct api *api)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (api->slot[i].conn && http_busy(api->slot[i].conn))
			return true;
	return false;
}

/* Whether the kernel still holds anything of ours. */
static bool in_flight(const struct api *api)
{
	bool busy = api->accept_op.busy || api->tick_op.busy;

	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		busy = busy || api->slot[i].conn;
	return busy;
}

static void turn_ring_while(struct api *api, bool (*more)(const struct api *api))
{
	u64 begin = monotonic_ns();

	while (more(api) && monotonic_ns() - begin < DRAIN_NS)
		if (ring_poll_once(api->ring) <= 0)
			poll(NULL, 0, 1);
}

void api_destroy(struct api **ap)
{
	struct api *api = *ap;

	if (!api)
		return;
	*ap = NULL;
	turn_ring_while(api, api_busy);
	api->closing = true;
	if (api->accept_op.busy)
		ring_cancel(api->ring, &api->accept_op);
	if (api->tick_op.busy)
		ring_cancel(api->ring, &api->tick_op);
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		struct api_slot *slot = &api->slot[i];

		if (slot->call)
			slot->call->slot = NULL;
		slot->call = NULL;
		if (slot->conn)
			http_close(slot->conn);
	}
	turn_ring_while(api, in_flight);
	fd_close(&api->listen_fd);
	if (!in_flight(api))
		free(api); /* else the kernel may still write to it: it goes with the process */
}
