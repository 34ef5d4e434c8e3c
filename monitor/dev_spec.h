/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dev_spec.h - disks and networks as the operator asks for them: from the command line, from a
 * snapshot, and as JSON for the API and for the next snapshot. Plain data.
 *
 * disk_spec.c and net_spec.c fill them, host_spec.c says which names of a snapshot count, devices.c
 * makes devices of them.
 */
#ifndef KELVIN_MONITOR_DEV_SPEC_H
#define KELVIN_MONITOR_DEV_SPEC_H

#include <jansson.h>
#include <limits.h>
#include <net/if.h>

#include "monitor/kv.h"
#include "virtio/disk.h"
#include "virtio/limit.h"

#define DISKS_MAX     10u
#define NETS_MAX      5u
#define NET_QUEUES_MAX 16u

struct disk_spec {
	char id[DEV_ID_MAX + 1];
	char path[PATH_MAX];    /* of the image */
	char overlay[PATH_MAX]; /* empty: none, or a private one without a name (`is_overlaid`) */
	bool is_overlaid;
	bool moved; /* the image is a copy of the one that the overlay was made for */
	bool read_only;
	enum disk_sync sync;
	struct limit_config limit;
	/* Of a snapshot. */
	const char *unnamed; /* why its path does not count, so that there is none; or NULL */
	char saved_overlay[PATH_MAX]; /* the overlay in it; empty: none */
	bool has_identity;
	struct disk_identity identity; /* the image as it was; checked unless named again */
};

enum net_way { NET_BY_TAP, NET_BY_FD, NET_BY_PASST, NET_BY_USER };

struct net_spec {
	char id[DEV_ID_MAX + 1];
	enum net_way way;
	char tap[IFNAMSIZ];
	int fd;
	char sock[PATH_MAX]; /* of passt */
	u8 mac[6];
	bool has_mac;    /* the operator gave it */
	bool random_mac; /* ... as one for each clone */
	u16 mtu; /* 0: not told */
	unsigned queues;
	bool allow_spoof;
	struct limit_config rx, tx;
	const char *unnamed; /* why what a snapshot names does not count; or NULL */
};

struct dev_spec {
	struct disk_spec disk[DISKS_MAX];
	unsigned disk_count;
	struct net_spec net[NETS_MAX];
	unsigned net_count;
};

/*
 * One --disk or --net. Adds a device; with @changes (at a restore) it changes the one that has the
 * id, or the only one where no id is given.
 */
int disk_option(struct dev_spec *d, const char *text, bool changes, struct err *e);
int net_option(struct dev_spec *d, const char *text, bool changes, struct err *e);

/* For "machine" in a snapshot, and back. What comes back is hostile: see dev_host_vouch(). */
json_t *disk_to_json(const struct disk_spec *s);
int disk_from_json(struct disk_spec *s, json_t *j, struct err *e);
json_t *net_to_json(const struct net_spec *s);
int net_from_json(struct net_spec *s, json_t *j, struct err *e);

/* What a VM takes of its host besides devices. */
struct host_share {
	u64 memory; /* bytes of RAM */
	unsigned vcpus;
	bool console; /* stdin and stdout, in the foreground */
};
/* What @d and @share have of it, for a snapshot's file `host`; to be freed. NULL: no memory. */
char *dev_host_text(const struct dev_spec *d, const struct host_share *share);
/* Whether @text is such a text. -EINVAL where it is not. */
int dev_host_check(const void *text, size_t len, struct err *e);
/*
 * @d and @share are of a snapshot's "machine". Devices that the snapshot's `host` does not know as
 * well are marked as unnamed, and all of them where there is no @text (NULL) or the snapshot is not
 * @trusted. -EINVAL where @text is none, or contradicts what cannot be named again; *@ret_known:
 * it says all of that.
 */
int dev_host_vouch(struct dev_spec *d, const struct host_share *share, const void *text, size_t len,
	bool trusted, bool *ret_known, struct err *e);

/*
 * Clones of one command share no overlay, TAP or socket: "%d" in their names becomes @number.
 * -EINVAL, naming the option, where clones would meet in one that has no %d.
 */
int dev_spec_number(struct dev_spec *d, unsigned number, struct err *e);

/* Firecracker's Drive and NetworkInterface. */
json_t *disk_to_drive(const struct disk_spec *s);
json_t *net_to_interface(const struct net_spec *s);

/* @rate tokens a second, @burst_ns of which can be saved up; rate 0: no limit. */
struct limit_rate limit_of(u64 rate, u64 burst_ns);
json_t *limit_to_json(const struct limit_config *l);
int limit_from_json(struct limit_config *l, json_t *j, struct err *e);
/* Firecracker's RateLimiter; NULL where nothing is limited. And back: null is no limit. */
json_t *limit_to_limiter(const struct limit_config *l);
int limit_from_limiter(struct limit_config *l, const json_t *j, struct err *e);

/* ---- between the files of this header ---- */
/* Which device an option is about. */
struct dev_choice {
	const char *what, *id; /* "disk"; the option's id, or "" */
	bool changes;
	unsigned count, max;
	int found; /* index of the device with the id, or -1; dev_choose() may set it */
};
/* The API and snapshots, which speak JSON, must be able to tell it; @what begins the error. */
int dev_text_check(const char *text, const char *what, struct err *e);
/* Says why there is none. */
int dev_choose(struct dev_choice *c, struct err *e);
/* A locally administered address. */
void mac_randomize(u8 mac[6]);

#endif
