/* SPDX-License-Identifier: Apache-2.0 */
/* net.h - what the parts of the net guest share: net.c has its command line. */
#ifndef GUESTS_NET_H
#define GUESTS_NET_H

#include "kit/inet.h"

/* The command line, with defaults filled in. */
struct net_options {
	char mode[16];
	u32 ip, peer;      /* ours and theirs, big endian */
	u8 peer_mac[6];
	bool have_peer_mac;
	u64 frames;        /* ~0: until stopped */
	u32 size, gso;
	u16 port;
	bool udp;
};
extern struct net_options opt;
extern struct net card;

/* Since boot. Bytes are of frames, without the device's header. */
struct net_counters {
	u64 frames, bytes;   /* that the mode is about: received to our address, or sent */
	u64 other;           /* received, none of that */
	u64 sent, sent_bytes;
	u64 dropped;         /* answers for which there was no room */
	u64 errors;          /* that make the exit status 1 */
	u64 first, last;     /* cycles at the first and the last frame of the mode */
	u64 announced;
};
extern struct net_counters seen;
/* Set by a mode that is done. */
extern bool finished;

/* A mode: each is called where it is there. */
struct net_mode {
	const char *name;
	bool sends; /* the frames it counts are those it sends */
	bool (*start)(void); /* false: it cannot be done; said why */
	/* A frame to our address; its kind and first bytes were looked at. */
	void (*frame)(const struct net_frame *f, enum inet_kind kind);
	/* Something to do besides frames that come; true if it did any. */
	bool (*step)(void);
	/* More fields for the result: ,"name":value each. */
	void (*report)(char *text, size_t cap);
};
extern const struct net_mode mode_tx;     /* net_tx.c */
extern const struct net_mode mode_verify; /* net_verify.c */

/* For modes that send: sleep until there is room, and not for ever. */
extern bool wants_room;
extern u64 wait_ns;

/* Sends and counts. */
void send_frame(unsigned pair, struct net_slot *s, u32 len);
/* Lines on vsock port 1024: net_serve.c. False if there is no vsock. */
bool serve_init(void);
/* Tells the network where we are. */
void announce(void);

#endif
