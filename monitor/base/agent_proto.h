/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_proto.h - what the agent in a Linux guest and the verbs exec and cp say to each other.
 *
 * The agent (guests/linux) listens on vsock port AGENT_PORT, which only root of the guest may
 * take, and talks to the host alone. A connection is one request and what belongs to it; both
 * directions are frames:
 *
 *	u8 type   u8 version   u16 0   u32 length   then so many bytes
 *
 * All numbers are little-endian. A frame with another version, a length above FRAME_MAX, or a type
 * that does not belong there ends the connection; where the agent still can it says so by FR_ERROR
 * first. The end of the stream means that the peer has vanished, never that all is well: what ends
 * in good order says so in a frame.
 *
 * A request starts with u64 wall: the host's clock, ns since 1970, 0 for "not said". An agent that
 * was restored since the last request steps the guest's clock to it, if it is off by more than
 * CLOCK_SLACK_NS. Text is terminated by NUL, and more than one follow each other.
 */
#ifndef KELVIN_BASE_AGENT_PROTO_H
#define KELVIN_BASE_AGENT_PROTO_H

#define AGENT_PORT     1023u
#define AGENT_VERSION  1u
#define FRAME_HEAD     8u
#define FRAME_MAX      131072u /* bytes after the head */
#define FRAME_DATA     65536u  /* bytes of a stream or a file in one frame, at most */
#define STDIN_WINDOW   262144u /* bytes of FR_STDIN that may be unacknowledged */
#define CLOCK_SLACK_NS 50000000ull

enum frame_type {
	/* Requests. All are answered by FR_OK or FR_ERROR. */
	FR_EXEC = 1, /* u64 wall, u32 EXEC_ flags, u16 rows, u16 columns, u16 argc, u16 envc,
		     * then user, directory ("" for the default), argc and envc texts */
	FR_PUT = 2,  /* u64 wall, destination, name of the source; then the host sends a tree, and
		     * a second FR_OK says that the guest has all of it on stable storage */
	FR_GET = 3,  /* u64 wall, path; a tree follows the FR_OK */
	FR_TIME = 4, /* u64 wall: set the clock, if it is off by more than CLOCK_SLACK_NS */
	FR_NET = 5,  /* u64 wall, lines as of --hint: address, gateway, mac, hostname, dns */
	FR_SYNC = 6, /* u64 wall: what was written is on stable storage */
	FR_INFO = 7, /* u64 wall; FR_OK carries lines "key=value" */

	FR_OK = 16,
	FR_ERROR = 17, /* u32 exit status for the verb, one line */
	FR_NOTE = 18,  /* one line for people */

	/* After the FR_OK of FR_EXEC. The agent ends by FR_EXIT. */
	FR_STDIN = 32,
	FR_STDIN_END = 33,
	FR_RESIZE = 34, /* u16 rows, u16 columns */
	FR_SIGNAL = 35, /* u32 number, for the command's process group */
	FR_STDOUT = 36,
	FR_STDERR = 37,
	FR_STDIN_ACK = 38, /* u32 bytes of FR_STDIN that were used up */
	FR_EXIT = 39,	  /* u32 status: 0..255, or 128 + the signal that ended the command */

	/* A tree: one file, or a directory with all that is in it. Names have no '/'. */
	FR_FILE = 48,	 /* u32 mode, s64 mtime in ns, u64 size as it was looked at, name */
	FR_DATA = 49,	 /* of the last FR_FILE */
	FR_FILE_END = 50, /* u64 bytes that were sent: how many the file has */
	FR_DIR = 51,	 /* u32 mode, s64 mtime, name: go into it */
	FR_UP = 52,	 /* back out of it */
	FR_LINK = 53,	 /* name, what it points to */
	FR_TREE_END = 54,
};

#define EXEC_TTY 1u /* a terminal; stderr comes by FR_STDOUT then */

#endif
