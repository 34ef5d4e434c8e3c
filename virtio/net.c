/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.c - the network device: how the transport, the timer and the operator drive it.
 *
 * Theory of operation
 *
 * Queues 2i and 2i+1 are pair i: frames to the guest (net_rx.c) and from it (net_tx.c), each pair
 * with a descriptor of the back end. The control queue (net_ctrl.c) comes last. A driver that does
 * not know of several pairs has one and finds the control queue at 2.
 *
 * What was negotiated decides how long headers are, what may be in them, and what the TAP is told
 * to send. The driver decides that on a vCPU thread; the TAP is told on the loop thread, because
 * its system calls may wait for other users of the host's network. In between (`configure`) no
 * queue is looked at. The same happens after a reset: then the TAP is told that nobody can take
 * anything special, and only its first queue gets frames.
 *
 * Trust. The guest is hostile: see net_tx.c for its frames. What it can make the host keep is
 * bounded by fixed arrays. The back end is trusted with the guest's frames, not with the monitor:
 * a stream that breaks its protocol is closed. When a back end fails, the link is down and the VM
 * goes on; frames of the guest are then dropped.
 *
 * Reset. Reads and writes end while they are submitted, so the transport never waits for long. The
 * buffers held become void at once, or when the last operation has ended (epoch). Polls stay where
 * they are: they do not touch guest memory, and tell the next driver's life the same.
 *
 * Snapshot. Frames under way are lost, as networks may lose them. A restored device tells its
 * driver that the configuration changed: that it is to announce its address, and that the link is
 * up again.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/base/clock.h"
#include "virtio/net_int.h"

#define CONFIG_LEN (offsetof(struct virtio_net_config, mtu) + sizeof(u16))
#define SAVED_LINK_UP  (1u << 0)
#define SAVED_ANNOUNCE (1u << 1)

bool net_may_run(const struct net *n)
{
	return n->started && !n->configure && virtio_live(&n->dev);
}

static void run_pairs(struct net *n)
{
	for (unsigned i = 0; i < n->pairs_used; i++) {
		net_tx_run(n->tx[i]);
		net_rx_run(n->rx[i]);
	}
}

/*
 * The timer: for what a rate limit holds up, at the earliest time that was asked for. While its
 * callback looks through the pairs they only ask; else each would end the timer of the one before.
 */

static void set_timer(struct net *n)
{
	u64 now_ns;

	if (n->timer_op.busy) {
		/* Too late? Its callback sets it again. */
		if (n->timer_at_ns > n->due_ns) {
			n->timer_at_ns = 0;
			ring_cancel(n->ring, &n->timer_op);
		}
		return;
	}
	now_ns = monotonic_ns();
	n->timer_at_ns = n->due_ns;
	ring_timeout(n->ring, &n->timer_op, &n->timer_ts,
		n->due_ns > now_ns ? n->due_ns - now_ns : 0);
}

static void timer_done(struct ring_op *op, int res)
{
	struct net *n = container_of(op, struct net, timer_op);

	pthread_mutex_lock(&n->dev.lock);
	if (n->due_ns <= monotonic_ns()) {
		n->due_ns = 0;
		n->in_timer = true;
		run_pairs(n);
		n->in_timer = false;
	}
	if (n->due_ns)
		set_timer(n);
	pthread_mutex_unlock(&n->dev.lock);
}

void net_timer(struct net *n, u64 due_ns)
{
	if (!n->due_ns || due_ns < n->due_ns)
		n->due_ns = due_ns;
	if (!n->in_timer)
		set_timer(n);
}

void net_link_down(struct net *n)
{
	if (!n->link_up)
		return;
	n->link_up = n->announce = false;
	virtio_config_changed(&n->dev);
}

/* What was negotiated. */

/* The offloads in use: a feature without the one it stands on does not count (5.1.3.1). */
static u64 negotiated(const struct net *n)
{
	u64 f = n->dev.status & VIRTIO_CONFIG_S_FEATURES_OK ? n->dev.driver_features : 0;

	f &= n->backend.offloads & NET_OFFLOADS;
	/* From the guest each frame says itself that it needs CSUM. */
	if (!(f & NET_F(GUEST_CSUM)))
		f &= ~(NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | 1ull << NET_F_GUEST_USO4 |
			1ull << NET_F_GUEST_USO6);
	return f;
}

bool net_set_pairs(struct net *n, unsigned pairs)
{
	bool ok = true;

	for (unsigned i = 1; i < n->pairs && n->backend.kind == NET_TAP; i++) {
		bool want = i < pairs;

		if (n->attached[i] == want)
			continue;
		if (net_tap_attach(n->backend.fds[i], want))
			n->attached[i] = want;
		else
			ok &= !want; /* one too many is not read, which is as good */
	}
	if (ok)
		n->pairs_used = pairs;
	return ok;
}

static void configure(struct net *n)
{
	u64 f = negotiated(n);

	n->configure = false;
	n->features = f;
	n->merge = virtio_has(&n->dev, NET_F(MRG_RXBUF));
	/* A driver of the old kind has no num_buffers if it does not merge. */
	n->hdr_len = n->merge || virtio_has(&n->dev, VIRTIO_MASK_VERSION_1)
		? NET_HDR : sizeof(struct virtio_net_hdr);
	if (n->backend.kind == NET_TAP && n->told != f) {
		net_tap_set_offloads(n->backend.fds[0], f);
		n->told = f;
	}
	if (!net_set_pairs(n, n->pairs_used))
		net_set_pairs(n, 1);
}

/* Virtio. */

static u16 status(const struct net *n)
{
	return (u16)((n->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
		(n->announce ? VIRTIO_NET_S_ANNOUNCE : 0));
}

static void config_read(struct virtio_dev *d, u32 off, void *dst, u32 len)
{
	const struct net *n = net_of(d);
	struct virtio_net_config cfg = {
		.status = htole16(status(n)),
		.max_virtqueue_pairs = htole16((u16)n->pairs),
		.mtu = htole16(n->mtu),
	};

	memcpy(cfg.mac, n->mac, sizeof(cfg.mac));
	memcpy(dst, (const u8 *)&cfg + off, len);
}

static void activate(struct virtio_dev *d)
{
	net_of(d)->configure = true;
}

static void reset(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	n->configure = true;
	n->pairs_used = 1;
	n->announce = false;
	for (unsigned i = 0; i < n->pairs; i++) {
		net_rx_reset(n->rx[i]);
		net_tx_reset(n->tx[i]);
	}
	virtio_schedule(d);
}

static void process(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	if (n->started && n->configure)
		configure(n);
	if (!net_may_run(n))
		return;
	net_ctrl_run(n);
	run_pairs(n);
}

static void save(struct virtio_dev *d, struct enc *out)
{
	const struct net *n = net_of(d);

	enc_bytes(out, n->mac, sizeof(n->mac));
	enc_u16(out, n->mtu);
	enc_u16(out, (u16)n->pairs);
	enc_u16(out, (u16)n->pairs_used);
	enc_u8(out, (u8)((n->link_up ? SAVED_LINK_UP : 0) | (n->announce ? SAVED_ANNOUNCE : 0)));
}

/* Only buffers for frames to the guest may be in flight; see net_rx.c. */
static int check_queues(struct net *n, struct err *e)
{
	for (unsigned i = 0; i < n->dev.queue_count; i++) {
		unsigned count = n->dev.queue[i].in_flight_count;

		if (count && (i % 2 || i == n->dev.queue_count - 1))
			return err_set(e, -EINVAL, "in_flight: %u heads of queue %u", count, i);
		if (count)
			n->rx[i / 2]->recover = true;
	}
	return 0;
}

static int load(struct virtio_dev *d, struct dec *in, struct err *e)
{
	struct net *n = net_of(d);
	u16 mtu, pairs, pairs_used;
	u8 mac[6], flags;

	dec_bytes(in, mac, sizeof(mac));
	mtu = dec_u16(in);
	pairs = dec_u16(in);
	pairs_used = dec_u16(in);
	flags = dec_u8(in);
	if (in->bad)
		return err_set(e, -EINVAL, "ends too early");
	if (mac[0] & 1)
		return err_set(e, -EINVAL, "mac: %02x:... is of a group", mac[0]);
	if (mtu != n->mtu)
		return err_set(e, -EINVAL, "mtu: %u, not %u", mtu, n->mtu);
	if (pairs != n->pairs)
		return err_set(e, -EINVAL, "pairs: %u, not %u", pairs, n->pairs);
	if (!pairs_used || pairs_used > pairs || (pairs_used > 1 && !virtio_has(d, NET_F(MQ))))
		return err_set(e, -EINVAL, "pairs_used: %u of %u", pairs_used, pairs);
	if (flags & ~(SAVED_LINK_UP | SAVED_ANNOUNCE))
		return err_set(e, -EINVAL, "flags: unknown bits in 0x%x", flags);
	memcpy(n->mac, mac, sizeof(n->mac));
	n->pairs_used = pairs_used;
	n->restored = true;
	/* The host's bridges may have learned that the address is elsewhere. */
	n->announce = virtio_has(d, NET_F(GUEST_ANNOUNCE) | NET_F(CTRL_VQ) | NET_F(STATUS));
	return check_queues(n, e);
}

static void destroy(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	for (unsigned i = 0; i < n->pairs; i++) {
		net_rx_free(n->rx[i]);
		net_tx_free(n->tx[i]);
	}
	net_backend_close(&n->backend);
	virtio_finish(d);
	free(n);
}

static const struct virtio_ops net_ops = {
	.name = "net",
	.device_id = VIRTIO_ID_NET,
	.queue_count = 3,
	.features = NET_F(MAC) | NET_F(STATUS) | NET_F(MRG_RXBUF) | NET_F(CTRL_VQ) |
		NET_F(GUEST_ANNOUNCE),
	.config_read = config_read,
	.config_len = CONFIG_LEN,
	.activate = activate,
	.reset = reset,
	.process = process,
	.save = save,
	.load = load,
	.destroy = destroy,
};

/* Making one. */

static int check_config(const struct net_config *cfg, const struct net_backend *b, struct err *e)
{
	static const u8 zero[6];

	if (cfg->mac[0] & 1 || !memcmp(cfg->mac, zero, sizeof(zero)))
		return err_set(e, -EINVAL,
			"net %s: mac %02x:%02x:%02x:%02x:%02x:%02x is no address of one station",
			cfg->id, cfg->mac[0], cfg->mac[1], cfg->mac[2], cfg->mac[3], cfg->mac[4],
			cfg->mac[5]);
	if (cfg->mtu && cfg->mtu < NET_MTU_MIN)
		return err_set(e, -EINVAL, "net %s: mtu %u: must be from %u to %u", cfg->id,
			cfg->mtu, NET_MTU_MIN, NET_MTU_MAX);
	if (!cfg->pairs || cfg->pairs > b->fds_count)
		return err_set(e, -EINVAL, "net %s: %u queue pairs, but %s has %u queues", cfg->id,
			cfg->pairs, b->name, b->fds_count);
	return 0;
}

/* What depends on the back end and the operator. */
static void offer(struct net *n, const struct net_config *cfg)
{
	n->dev.features |= n->backend.offloads & NET_OFFLOADS;
	if (cfg->mtu)
		n->dev.features |= NET_F(MTU);
	if (cfg->pairs > 1)
		n->dev.features |= NET_F(MQ);
	if (cfg->allow_spoof)
		n->dev.features |= NET_F(CTRL_MAC_ADDR);
	n->dev.queue_count = 2 * cfg->pairs + 1;
}

static bool make_pairs(struct net *n)
{
	bool ok = true;

	for (unsigned i = 0; i < n->pairs; i++) {
		n->rx[i] = net_rx_new(n, i);
		n->tx[i] = net_tx_new(n, i);
		n->attached[i] = true;
		ok &= n->rx[i] && n->tx[i];
	}
	return ok;
}

int net_create(struct virtio_dev **ret, const struct net_config *cfg, struct net_backend *backend,
	struct ring *ring, const struct mem *mem, struct virtio_irq irq, struct err *e)
{
	struct net *n;
	int r = check_config(cfg, backend, e);

	if (r)
		return r;
	n = calloc(1, sizeof(*n));
	if (!n)
		return err_sys(e, ENOMEM, "net %s", cfg->id);
	r = virtio_init(&n->dev, &net_ops, mem, irq, e);
	if (r) {
		free(n);
		return r;
	}
	n->ring = ring;
	n->backend = *backend;
	n->pairs = cfg->pairs;
	n->pairs_used = 1;
	memcpy(n->mac, cfg->mac, sizeof(n->mac));
	n->mtu = cfg->mtu;
	n->allow_spoof = cfg->allow_spoof;
	n->link_up = true;
	n->timer_op.done = timer_done;
	limit_init(&n->rx_limit, &cfg->rx, monotonic_ns());
	limit_init(&n->tx_limit, &cfg->tx, monotonic_ns());
	offer(n, cfg);
	if (!make_pairs(n)) {
		n->backend.fds_count = 0; /* stays the caller's */
		destroy(&n->dev);
		return err_sys(e, ENOMEM, "net %s", cfg->id);
	}
	*ret = &n->dev;
	backend->fds_count = 0;
	return 0;
}

void net_start(struct virtio_dev *d)
{
	struct net *n = net_of(d);

	pthread_mutex_lock(&d->lock);
	n->started = n->configure = true;
	for (unsigned i = 0; i < n->pairs; i++)
		ring_fix_file(n->ring, n->backend.fds[i]);
	if (n->restored)
		virtio_config_changed(d);
	pthread_mutex_unlock(&d->lock);
	/* After a restore the queues may hold what nobody kicks for any more. */
	virtio_schedule(d);
}

void net_set_mac(struct virtio_dev *d, const u8 mac[6])
{
	memcpy(net_of(d)->mac, mac, sizeof(net_of(d)->mac));
}

void net_stats(const struct virtio_dev *d, struct net_stats *ret)
{
	const struct net *n = container_of(d, const struct net, dev);

	*ret = n->stats;
	ret->rx_throttled = n->rx_limit.throttled;
	ret->tx_throttled = n->tx_limit.throttled;
}

void net_set_limits(struct virtio_dev *d, const struct limit_config *rx,
	const struct limit_config *tx)
{
	struct net *n = net_of(d);

	pthread_mutex_lock(&d->lock);
	limit_init(&n->rx_limit, rx, monotonic_ns());
	limit_init(&n->tx_limit, tx, monotonic_ns());
	pthread_mutex_unlock(&d->lock);
	/* What waited for the old limit may be due now. */
	virtio_schedule(d);
}
