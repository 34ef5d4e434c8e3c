/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack_keeper.c - lies to the keeper, which is outside of the jail. See attack.h.
 *
 * By write() where that does, since all threads may write. "GOT" means here that it was said: the
 * test looks at what came of it.
 */
#include "attack.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "monitor/keeper.h"

#define SAID "the keeper's ear"

static const char *say(u32 verb, s32 value)
{
	const struct keeper_msg m = {verb, value};

	return GOT_IF(write(attack_keeper_fd(), &m, sizeof(m)), SAID);
}

static const char *say_bytes(const void *bytes, size_t len)
{
	return GOT_IF(write(attack_keeper_fd(), bytes, len), SAID);
}

static const char *empty(void)
{
	return say_bytes("", 0);
}

static const char *short_one(void)
{
	return say_bytes("\1", 1);
}

static const char *huge(void)
{
	static char bytes[65536] = {KEEPER_DIAL};

	return say_bytes(bytes, sizeof(bytes));
}

static const char *unknown(void)
{
	return say(UINT32_MAX, 0);
}

static const char *answer(void)
{
	return say(KEEPER_DIALED, 0);
}

static const char *here_again(void)
{
	for (unsigned i = 0; i < 1000; i++)
		if (!say(KEEPER_HERE, (s32)i))
			return NULL;
	return SAID;
}

static const char *dial_zero(void)
{
	return say(KEEPER_DIAL, 0);
}

static const char *dial_last(void)
{
	return say(KEEPER_DIAL, -1);
}

static const char *dial_text(void)
{
	static const struct {
		struct keeper_msg m;
		char text[64];
	} m = {{KEEPER_DIAL, 1}, "/../../../etc/passwd"};

	return say_bytes(&m, sizeof(m));
}

/* Never listens to an answer. */
static const char *flood(void)
{
	for (unsigned i = 0; i < 20000; i++)
		if (!say(KEEPER_DIAL, (s32)i))
			return NULL;
	return SAID;
}

static const char *bye_twice(void)
{
	say(KEEPER_BYE, 1);
	return say(KEEPER_BYE, 1);
}

static const char *bye_dial(void)
{
	say(KEEPER_BYE, 0);
	return say(KEEPER_DIAL, 1);
}

static const char *bye_here(void)
{
	say(KEEPER_BYE, 0);
	return say(KEEPER_HERE, 0);
}

/* As much as fits, none of it JSON, all of it meant for a terminal. */
static const char *bye_text(size_t len)
{
	static struct {
		struct keeper_msg m;
		char text[65536];
	} m = {{KEEPER_BYE, 1}, ""};

	for (size_t i = 0; i < sizeof(m.text); i++)
		m.text[i] = "\x1b]0;\xff{\"\n%s%n"[i % 13];
	return say_bytes(&m, sizeof(m.m) + len);
}

static const char *bye_rubbish(void)
{
	return bye_text(KEEPER_TEXT_MAX);
}

static const char *bye_too_much(void)
{
	return bye_text(65536);
}

/* For whoever waits at a terminal for the VM to be ready. */
static const char *bye_escape(void)
{
	static const struct {
		struct keeper_msg m;
		char text[80];
	} m = {{KEEPER_BYE, 1}, "{\"text\": \"\\u001b]0;typed by the guest\\u0007\\n\\u001b[2J\"}"};
	const char *said = say_bytes(&m, sizeof(m));

	_exit(1);
	return said;
}

static const char *with_descriptors(void)
{
	struct keeper_msg m = {KEEPER_DIAL, 1};
	struct iovec iov = {&m, sizeof(m)};
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(200 * sizeof(int))];
	} control = {.hdr = {.cmsg_len = CMSG_LEN(200 * sizeof(int)), .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control)};
	int fds[200];

	for (unsigned i = 0; i < 200; i++)
		fds[i] = attack_keeper_fd();
	memcpy(CMSG_DATA(&control.hdr), fds, sizeof(fds));
	for (unsigned i = 0; i < 50; i++)
		if (sendmsg(attack_keeper_fd(), &msg, 0) < 0)
			return NULL;
	return SAID;
}

static const char *hang_up(void)
{
	close(attack_keeper_fd());
	return SAID;
}

const struct attack attacks_on_keeper[] = {
	{"keeper-empty", empty},
	{"keeper-short", short_one},
	{"keeper-huge", huge},
	{"keeper-unknown", unknown},
	{"keeper-answer", answer},
	{"keeper-here-again", here_again},
	{"keeper-dial-0", dial_zero},
	{"keeper-dial-last", dial_last},
	{"keeper-dial-text", dial_text},
	{"keeper-flood", flood},
	{"keeper-bye-twice", bye_twice},
	{"keeper-bye-dial", bye_dial},
	{"keeper-bye-here", bye_here},
	{"keeper-bye-rubbish", bye_rubbish},
	{"keeper-bye-too-much", bye_too_much},
	{"keeper-bye-escape", bye_escape},
	{"keeper-descriptors", with_descriptors},
	{"keeper-hang-up", hang_up},
	{NULL, NULL},
};
