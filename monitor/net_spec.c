/* SPDX-License-Identifier: Apache-2.0 */
/* net_spec.c - networks: --net, their part of a snapshot, and Firecracker's NetworkInterface. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "monitor/dev_spec.h"
#include "virtio/net.h"

#define BURST_NS     100000000u
#define BURST_MAX_NS 3600000000000u
#define MAC_TEXT     18

static const char *const way_words[] = {"tap", "fd", "passt", "user", NULL};

static int find(const struct dev_spec *d, const char *id)
{
	for (unsigned i = 0; i < d->net_count; i++)
		if (strcmp(d->net[i].id, id) == 0)
			return (int)i;
	return -1;
}

/* The network that an option is about: a new one, or one of the snapshot. */
static int choose(struct dev_spec *d, const char *id, bool changes, struct net_spec **ret,
	struct err *e)
{
	char name[DEV_ID_MAX + 1];
	struct dev_choice c = {.what = "network", .id = id, .changes = changes,
		.count = d->net_count, .max = NETS_MAX};
	int r;

	snprintf(name, sizeof(name), "net%u", d->net_count);
	if (!id[0] && !changes)
		c.id = name;
	c.found = find(d, c.id);
	r = dev_choose(&c, e);
	if (r)
		return r;
	*ret = &d->net[changes ? (unsigned)c.found : d->net_count];
	if (!changes) {
		**ret = (struct net_spec){.fd = -1, .queues = 1};
		snprintf((*ret)->id, sizeof((*ret)->id), "%s", c.id);
	}
	return 0;
}

static int parse_mac(const char *text, u8 mac[6], struct err *e)
{
	unsigned v[6];
	int end = 0;

	if (strspn(text, "0123456789abcdefABCDEF:") != strlen(text) ||
		sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4],
			&v[5], &end) != 6 || text[end])
		return err_set(e, -EINVAL, "mac: \"%.40s\" is not like 02:00:00:00:00:01", text);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (u8)v[i];
	if (mac[0] & 1)
		return err_set(e, -EINVAL, "mac: %s is a group address", text);
	if (!(v[0] | v[1] | v[2] | v[3] | v[4] | v[5]))
		return err_set(e, -EINVAL, "mac: %s is no address", text);
	return 0;
}

static const char *mac_text(const u8 mac[6], char out[MAC_TEXT])
{
	snprintf(out, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
		mac[4], mac[5]);
	return out;
}

void mac_randomize(u8 mac[6])
{
	while (getrandom(mac, 6, 0) != 6)
		;
	mac[0] = (u8)((mac[0] & 0xfc) | 0x02);
}

/* tap=, fd=, passt= or user, exactly one. */
static int take_way(struct net_spec *s, const struct kv_field *f, const char *tap, u64 fd,
	bool user, const char *sock, bool changes, struct err *e)
{
	unsigned n = f[0].seen + f[1].seen + f[2].seen + (f[3].seen && user);
	int r = 0;

	if (n > 1 || (!n && !changes))
		return err_set(e, -EINVAL, "one of tap=, fd=, passt= and user, please");
	if (f[0].seen)
		r = dev_text_check(tap, "the name of the TAP", e);
	else if (f[2].seen)
		r = dev_text_check(sock, "the path of passt's socket", e);
	if (r || !n)
		return r;
	s->fd = -1;
	s->unnamed = NULL;
	s->way = f[0].seen ? NET_BY_TAP : f[1].seen ? NET_BY_FD : f[2].seen ? NET_BY_PASST
									   : NET_BY_USER;
	if (s->way == NET_BY_TAP)
		snprintf(s->tap, sizeof(s->tap), "%s", tap);
	if (s->way == NET_BY_FD)
		s->fd = (int)fd;
	if (s->way == NET_BY_PASST)
		snprintf(s->sock, sizeof(s->sock), "%s", sock);
	return 0;
}

int net_option(struct dev_spec *d, const char *text, bool changes, struct err *e)
{
	char id[DEV_ID_MAX + 2] = "", tap[IFNAMSIZ] = "", mac[32] = "";
	static char sock[PATH_MAX];
	u64 fd = 0, mtu = 0, queues = 1, burst_ns = BURST_NS;
	u64 rx_bytes = 0, tx_bytes = 0, rx_frames = 0, tx_frames = 0;
	bool user = false, spoof = false;
	struct kv_field f[] = {
		{.key = "tap", .type = KV_TEXT, .out = tap, .cap = sizeof(tap)},
		{.key = "fd", .type = KV_UINT, .out = &fd, .max = 1u << 20},
		{.key = "passt", .type = KV_TEXT, .out = sock, .cap = sizeof(sock)},
		{.key = "user", .type = KV_FLAG, .out = &user},
		{.key = "id", .type = KV_TEXT, .out = id, .cap = sizeof(id)},
		{.key = "mac", .type = KV_TEXT, .out = mac, .cap = sizeof(mac)},
		{.key = "mtu", .type = KV_UINT, .out = &mtu, .min = NET_MTU_MIN,
			.max = NET_MTU_MAX},
		{.key = "queues", .type = KV_UINT, .out = &queues, .min = 1,
			.max = NET_QUEUES_MAX},
		{.key = "spoof", .type = KV_FLAG, .out = &spoof},
		{.key = "rx-bytes", .type = KV_SIZE, .out = &rx_bytes, .min = 1},
		{.key = "tx-bytes", .type = KV_SIZE, .out = &tx_bytes, .min = 1},
		{.key = "rx-frames", .type = KV_UINT, .out = &rx_frames, .min = 1},
		{.key = "tx-frames", .type = KV_UINT, .out = &tx_frames, .min = 1},
		{.key = "burst", .type = KV_TIME, .out = &burst_ns, .min = 1,
			.max = BURST_MAX_NS},
	};
	struct net_spec *s = NULL;
	int r = kv_parse(text, f, ARRAY_SIZE(f), e);

	if (!r)
		r = choose(d, id, changes, &s, e);
	if (!r)
		r = take_way(s, f, tap, fd, user, sock, changes, e);
	if (r)
		return r;
	if (changes && (f[6].seen || f[7].seen))
		return err_set(e, -EINVAL, "mtu and queues cannot change: the guest knows them");
	s->random_mac = f[5].seen && strcmp(mac, "random") == 0;
	if (s->random_mac)
		mac_randomize(s->mac);
	else if (f[5].seen && (r = parse_mac(mac, s->mac, e)))
		return r;
	else if (!f[5].seen && !changes)
		mac_randomize(s->mac);
	s->has_mac |= f[5].seen;
	if (!changes) {
		s->mtu = (u16)mtu;
		s->queues = (unsigned)queues;
	}
	if (s->queues > 1 && s->way != NET_BY_TAP)
		return err_set(e, -EINVAL, "queues goes with tap");
	if (f[8].seen)
		s->allow_spoof = spoof;
	if (f[9].seen)
		s->rx.bytes = limit_of(rx_bytes, burst_ns);
	if (f[10].seen)
		s->tx.bytes = limit_of(tx_bytes, burst_ns);
	if (f[11].seen)
		s->rx.ops = limit_of(rx_frames, burst_ns);
	if (f[12].seen)
		s->tx.ops = limit_of(tx_frames, burst_ns);
	if (!changes)
		d->net_count++;
	return 0;
}

json_t *net_to_json(const struct net_spec *s)
{
	char mac[MAC_TEXT];

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:b, s:o, s:o}", "id", s->id, "way",
		way_words[s->way], "tap", s->tap, "sock", s->sock, "mac",
		mac_text(s->mac, mac), "mtu", (int)s->mtu, "queues", (int)s->queues, "spoof",
		s->allow_spoof, "rx", limit_to_json(&s->rx), "tx", limit_to_json(&s->tx));
}

int net_from_json(struct net_spec *s, json_t *j, struct err *e)
{
	const char *id, *way, *tap, *sock, *mac;
	int mtu, queues, spoof, r;
	json_error_t je;
	unsigned w = 0;

	*s = (struct net_spec){.fd = -1};
	if (json_unpack_ex(j, &je, 0, "{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:b}", "id", &id, "way",
		    &way, "tap", &tap, "sock", &sock, "mac", &mac, "mtu", &mtu, "queues", &queues,
		    "spoof", &spoof))
		return err_set(e, -EINVAL, "nets: %s", je.text);
	while (way_words[w] && strcmp(way_words[w], way))
		w++;
	r = dev_id_check(id, e);
	if (!r)
		r = parse_mac(mac, s->mac, e);
	if (r || !way_words[w] || strlen(tap) >= sizeof(s->tap) ||
		strlen(sock) >= sizeof(s->sock) || queues < 1 || queues > (int)NET_QUEUES_MAX ||
		(mtu && (mtu < (int)NET_MTU_MIN || mtu > (int)NET_MTU_MAX)))
		return r ? r : err_set(e, -EINVAL, "nets: %s makes no sense", id);
	snprintf(s->id, sizeof(s->id), "%s", id);
	s->way = w;
	snprintf(s->tap, sizeof(s->tap), "%s", tap);
	snprintf(s->sock, sizeof(s->sock), "%s", sock);
	s->mtu = (u16)mtu;
	s->queues = (unsigned)queues;
	s->allow_spoof = spoof;
	r = limit_from_json(&s->rx, json_object_get(j, "rx"), e);
	return r ? r : limit_from_json(&s->tx, json_object_get(j, "tx"), e);
}

json_t *net_to_interface(const struct net_spec *s)
{
	json_t *rx = limit_to_limiter(&s->rx), *tx = limit_to_limiter(&s->tx);
	char mac[MAC_TEXT];

	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "iface_id", s->id, "host_dev_name",
		s->way == NET_BY_TAP ? s->tap : way_words[s->way], "guest_mac",
		mac_text(s->mac, mac), "rx_rate_limiter", rx ? rx : json_null(),
		"tx_rate_limiter", tx ? tx : json_null());
}
