/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_int.h - one API call: between api.c, which finds its handler, and api_vm.c, the handlers.
 *
 * A handler answers exactly once, now or in a callback of the machine, with one of the functions
 * below; the call is gone after that. It need not care whether the client or the whole API is
 * still there.
 */
#ifndef KELVIN_MONITOR_API_INT_H
#define KELVIN_MONITOR_API_INT_H

#include "monitor/api.h"
#include "monitor/http.h"

struct api_slot;

#define API_ID_MAX 64u

struct api_call {
	struct api_slot *slot; /* whom to answer; NULL once the API is gone */
	struct machine *machine;
	json_t *body;         /* an object; NULL for GET */
	const char *method;   /* static */
	const char *path;     /* of the route; static */
	char id[API_ID_MAX + 1]; /* what stands for the route's asterisk */
	/* What came with the request, named by api_fields(); closed with the call. */
	struct handed_file file[HTTP_FILES_MAX];
	unsigned file_count;

	/* PUT /kelvin/snapshot and /snapshot/create, from callback to callback. */
	const char *dir; /* in body, or own_dir */
	char *own_dir;
	bool handed; /* it came with files */
	bool force, stop, was_running;
	bool pause_vm; /* PATCH /vm: which way */
	u64 pause_begun_ns, paused_ns;
	json_t *info;
	struct err err;
};

typedef void (*api_handler)(struct api_call *c);

#define ROUTE(method, path, handler, states) void api_##handler(struct api_call *c);
#include "monitor/api_routes.def"
#undef ROUTE

/* 204. */
void api_ok(struct api_call *c);
/* 200 with @reply, which is taken over; NULL (out of memory) becomes a fault. */
void api_answer(struct api_call *c, json_t *reply);
/* 400 {"fault_message": ...}. */
void api_fault(struct api_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Whether a client wants the VM to stay paused: set by PATCH /vm, and asked before a snapshot that
 * paused the VM by itself lets it go on.
 */
void api_hold(struct api_call *c, bool held);
bool api_held(const struct api_call *c);

/*
 * The VM is paused and its client is about to end it: it goes on if the client hangs up instead.
 */
void api_resume_on_hangup(struct api_call *c);

/* One member of a call's body. FIELD_FILES names the descriptors that came with the request. */
struct api_field {
	const char *key;
	enum { FIELD_STRING, FIELD_BOOL, FIELD_OBJECT, FIELD_COUNT, FIELD_FILES } type;
	bool required;
	void *out; /* const char **, bool *, json_t **, u64 *, or for FIELD_FILES a bool * that
		    * becomes true; left alone where absent or null */
};
/*
 * Reads the body, which may have no other keys, and must name all descriptors that came with it.
 * False after a fault was sent. Strings live as long as the call.
 */
bool api_fields(struct api_call *c, const struct api_field *fields, unsigned n);

#define API_JSON_ERROR "An error occurred when deserializing the json body of a request: "

#endif
