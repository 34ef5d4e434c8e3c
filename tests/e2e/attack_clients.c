/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack_clients.c - answers the verbs that ask this VM, as root and outside of any jail, with
 * what they do not expect. Without filters. They take the thread: the VM answers nobody else. See
 * attack.h.
 */
#include "attack.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/keeper.h"

#define FDS_MAX 2048
#define HEAD(length)                                                                               \
	"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " length "\r\n\r\n"

static bool listens(int fd)
{
	socklen_t len = sizeof(int);
	int is = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len) == 0 && is;
}

/* Whoever comes hears @head once and @rest for ever, if there is any, and is never left. */
static const char *serve(const char *head, const char *rest)
{
	struct pollfd p[8];
	nfds_t n = 0;

	for (int fd = 3; fd < FDS_MAX && n < 8; fd++)
		if (listens(fd))
			p[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	while (n && poll(p, n, -1) > 0) {
		for (nfds_t i = 0; i < n; i++) {
			int fd = p[i].revents ? accept(p[i].fd, NULL, NULL) : -1;

			if (fd < 0)
				continue;
			send(fd, head, strlen(head), MSG_NOSIGNAL);
			while (rest && send(fd, rest, strlen(rest), MSG_NOSIGNAL) > 0)
				;
		}
	}
	errno = ENOTSOCK;
	return NULL;
}

static const char *silent(void)
{
	return serve("", NULL);
}

static const char *endless(void)
{
	return serve("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
}

static const char *endless_body(void)
{
	return serve(HEAD("18446744073709551615") "{\"id\": \"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

/* Each byte that counts as the answer's comes with what may be said about it, at length. */
static const char *endless_chunks(void)
{
	static char chunk[79000];

	memset(chunk, 'x', sizeof(chunk) - 1);
	memcpy(chunk, "1;", 2);
	memcpy(chunk + sizeof(chunk) - 6, "\r\n \r\n", 5);
	return serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk);
}

static const char *half(void)
{
	return serve(HEAD("100") "{\"id\":", NULL);
}

static const char *deep(void)
{
	return serve(HEAD("1000000"), "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
}

/* An answer that is whole. */
static const char *say(const char *json)
{
	char text[1024];

	snprintf(text, sizeof(text), HEAD("%zu") "%s", strlen(json), json);
	return serve(text, NULL);
}

#define ESC "\\u001b]0;typed by the guest\\u0007\\u001b[2J"

static const char *escapes(void)
{
	return say("{\"id\":\"" ESC "\",\"state\":\"" ESC "\",\"kernel\":\"" ESC "\",\"" ESC
		"\":\"" ESC "\",\"vcpus\":-1,\"memory\":-1,\"pid\":1,\"uptime_ms\":-1}");
}

static const char *escapes_in_error(void)
{
	char text[1024];

	snprintf(text, sizeof(text), "HTTP/1.1 400 Bad Request\r\nContent-Length: %zu\r\n\r\n%s",
		strlen("{\"fault_message\":\"" ESC "\"}"), "{\"fault_message\":\"" ESC "\"}");
	return serve(text, NULL);
}

static const char *wrong_types(void)
{
	return say("{\"id\":[],\"state\":{},\"vcpus\":\"x\",\"memory\":null,\"pid\":-1,"
		"\"threads\":7,\"devices\":\"y\",\"jail\":[]}");
}

/* Who is asked to end the VM that misbehaves ends another. */
static const char *another(void)
{
	char text[256];

	snprintf(text, sizeof(text),
		"{\"id\":\"prize\",\"state\":\"running\",\"pid\":%d,\"vcpus\":1}", prize.vm);
	return say(text);
}

static _Noreturn void stay(void)
{
	for (;;)
		poll(NULL, 0, 1000);
}

/* Lives on where all that says so is closed: its sockets, and its files. */
static const char *vanish(bool unlocks)
{
	struct stat st;

	for (int fd = 3; fd < FDS_MAX; fd++) {
		if (fstat(fd, &st) || !(S_ISSOCK(st.st_mode) || S_ISREG(st.st_mode)))
			continue;
		if (unlocks)
			flock(fd, LOCK_UN); /* of all who have it */
		close(fd);
	}
	stay();
}

static const char *ghost(void)
{
	return vanish(false);
}

static const char *ghost_that_unlocks(void)
{
	return vanish(true);
}

/* Whoever comes first, to any of its sockets. */
static int first_client(void)
{
	for (int fd = 3;; fd = fd < FDS_MAX ? fd + 1 : 3) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (listens(fd) && poll(&p, 1, 5) > 0)
			return accept(fd, NULL, NULL);
	}
}

/* Says that it ends, to who asks for that and to its keeper, and does not. */
static const char *ghost_that_leaves(void)
{
	static const char done[] = "HTTP/1.1 204 No Content\r\n\r\n";
	const struct keeper_msg bye = {KEEPER_BYE, 0};

	send(first_client(), done, sizeof(done) - 1, MSG_NOSIGNAL);
	send(attack_keeper_fd(), &bye, sizeof(bye), MSG_NOSIGNAL);
	stay();
}

const struct attack attacks_on_clients[] = {
	{"client-silent", silent},
	{"client-endless", endless},
	{"client-endless-body", endless_body},
	{"client-endless-chunks", endless_chunks},
	{"client-half", half},
	{"client-deep", deep},
	{"client-escapes", escapes},
	{"client-escapes-in-error", escapes_in_error},
	{"client-another", another},
	{"client-wrong-types", wrong_types},
	{"ghost", ghost},
	{"ghost-that-unlocks", ghost_that_unlocks},
	{"ghost-that-leaves", ghost_that_leaves},
	{NULL, NULL},
};
