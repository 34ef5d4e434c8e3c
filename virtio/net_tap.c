/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_tap.c - TAP devices: opening them, and telling them what the guest can take.
 *
 * Theory of operation
 *
 * A TAP is a network interface of the host whose frames come out of a descriptor, and the other way
 * round. With IFF_VNET_HDR each frame has a virtio header in front, of 12 bytes and little-endian
 * as we set it, so headers pass between guest and kernel without translation. With several queues
 * (IFF_MULTI_QUEUE) each has a descriptor, and the kernel keeps a flow on one of them.
 *
 * TUNSETOFFLOAD tells the kernel what it may leave to the guest: checksums and segmentation. It is
 * refused as a whole where the kernel does not know a bit, so what it knows is found out by trying,
 * most first. In the other direction the kernel takes all that a virtio header can say.
 *
 * None of these calls is for the guest: they run when a VM is made and on the loop thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "monitor/base/cleanup.h"
#include "virtio/net_int.h"

/* Linux 6.2; older headers lack them. */
#define F_USO4 0x20u
#define F_USO6 0x40u

#define TUN_PATH "/dev/net/tun"
#define RETRIES  200u
#define RETRY_NS 5000000

static const struct {
	u64 feature;
	unsigned flag;
} offloads[] = {
	{NET_F(GUEST_CSUM), TUN_F_CSUM},
	{NET_F(GUEST_TSO4), TUN_F_TSO4},
	{NET_F(GUEST_TSO6), TUN_F_TSO6},
	{1ull << NET_F_GUEST_USO4, F_USO4},
	{1ull << NET_F_GUEST_USO6, F_USO6},
};

static unsigned offload_flags(u64 features)
{
	unsigned flags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(offloads); i++)
		flags |= features & offloads[i].feature ? offloads[i].flag : 0;
	/* The kernel takes the two of them together or not at all. */
	if ((flags & (F_USO4 | F_USO6)) != (F_USO4 | F_USO6))
		flags &= ~(F_USO4 | F_USO6);
	return flags;
}

void net_tap_set_offloads(int fd, u64 features)
{
	/* It was tried when the TAP was opened. Not a TAP: there is nobody to tell.
	 * syscalls[LV]: ioctl(TUNSETOFFLOAD) */
	(void)!ioctl(fd, TUNSETOFFLOAD, (unsigned long)offload_flags(features));
}

bool net_tap_attach(int fd, bool attach)
{
	struct ifreq req = {.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	/* syscalls[LV]: ioctl(TUNSETQUEUE) */
	return ioctl(fd, TUNSETQUEUE, &req) == 0 || errno == ENOTTY;
}

/* What of NET_OFFLOADS the TAP can do. */
static u64 probe(int fd)
{
	const u64 host = NET_F(CSUM) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6);
	const u64 guest = NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6);
	const u64 uso = 1ull << NET_F_GUEST_USO4 | 1ull << NET_F_GUEST_USO6;
	u64 can = 0;

	if (!ioctl(fd, TUNSETOFFLOAD, (unsigned long)offload_flags(guest | uso)))
		can = host | guest | uso | 1ull << NET_F_HOST_USO;
	else if (!ioctl(fd, TUNSETOFFLOAD, (unsigned long)offload_flags(guest)))
		can = host | guest;
	net_tap_set_offloads(fd, 0);
	return can;
}

/* Asked with what is too short for a frame: else EINVAL. */
static bool lacks_nowait(int fd)
{
	u8 nothing = 0;

	return pwritev2(fd, &(struct iovec){&nothing, 1}, 1, -1, RWF_NOWAIT) < 0 &&
		errno == EOPNOTSUPP;
}

/* The header as we want it, and no waiting. */
static int set_up(struct net_backend *b, int fd, struct err *e)
{
	int size = NET_HDR, le = 1, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return err_sys(e, errno, "TAP %s", b->name);
	if (ioctl(fd, TUNSETVNETHDRSZ, &size))
		return err_sys(e, errno, "TAP %s: cannot have virtio headers of %d bytes", b->name,
			size);
	/* Fails where the kernel knows no other order than the processor's, which is this. */
	(void)!ioctl(fd, TUNSETVNETLE, &le);
	b->no_nowait = lacks_nowait(fd);
	return 0;
}

static int open_error(int errnum, struct err *e)
{
	if (errnum == ENOENT || errnum == ENODEV || errnum == ENXIO)
		return err_set(e, -errnum,
			"cannot use a TAP: there is no " TUN_PATH " (load the module tun; in a "
			"container, add the device)");
	if (errnum == EACCES || errnum == EPERM)
		return err_set(e, -errnum, "cannot use a TAP: not allowed to open " TUN_PATH);
	return err_sys(e, errnum, "cannot open " TUN_PATH);
}

/* The IFF_* of a TUN or TAP that is there; -1 where there is none of that name. */
static int flags_of(const char *name)
{
	_cleanup_fd_ int fd = -1;
	char path[96], buf[16] = "";

	snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
		return -1;
	return (int)strtol(buf, NULL, 16);
}

static int attach_error(int errnum, const char *name, unsigned queues, struct err *e)
{
	int flags = flags_of(name);
	bool multi = flags >= 0 && flags & IFF_MULTI_QUEUE;

	if (errnum == EPERM)
		return err_set(e, -EPERM,
			"cannot use TAP %s: not allowed; be root, or let root make it with: ip "
			"tuntap add dev %s mode tap vnet_hdr%s user USER",
			name, name, queues > 1 ? " multi_queue" : "");
	if (errnum == EBUSY)
		return err_set(e, -EBUSY, "cannot use TAP %s: it is in use", name);
	if (errnum == E2BIG)
		return err_set(e, -E2BIG, "cannot use TAP %s: it has no %u queues left", name,
			queues);
	if (errnum == EINVAL && flags >= 0 && flags & IFF_TUN)
		return err_set(e, -EINVAL, "cannot use TAP %s: it is a TUN, which has no Ethernet",
			name);
	if (errnum == EINVAL && flags >= 0 && multi != (queues > 1))
		return err_set(e, -EINVAL,
			multi ? "cannot use TAP %s: it was made with multi_queue; use more queues "
				"than one, or make it without"
			      : "cannot use TAP %s with several queues: it was made without "
				"multi_queue",
			name);
	if (errnum == EINVAL && if_nametoindex(name))
		return err_set(e, -EINVAL, "cannot use TAP %s: the interface is no TAP", name);
	return err_sys(e, errnum, "cannot use TAP %s", name);
}

/*
 * A process that ended, or was killed, keeps its TAP for the moment that the kernel needs to end
 * its I/O, so that is worth waiting for.
 */
static int attach(int fd, struct ifreq *req)
{
	const struct timespec pause = {.tv_nsec = RETRY_NS};

	for (unsigned i = 0; ioctl(fd, TUNSETIFF, req); i++) {
		if (errno != EBUSY || i == RETRIES)
			return errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* One queue more of the TAP that @req names; the kernel completes the name. */
static int open_queue(struct net_backend *b, struct ifreq *req, unsigned queues, struct err *e)
{
	_cleanup_fd_ int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return open_error(errno, e);
	req->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (queues > 1)
		req->ifr_flags |= IFF_MULTI_QUEUE;
	r = attach(fd, req);
	if (r)
		return attach_error(r, b->name, queues, e);
	snprintf(b->name, sizeof(b->name), "%s", req->ifr_name);
	r = set_up(b, fd, e);
	if (r)
		return r;
	b->fds[b->fds_count++] = fd_steal(&fd);
	return 0;
}

/* Nobody else knows of an interface that we made, so nobody else switches it on. */
static void switch_on(const struct ifreq *tap)
{
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq req = *tap;

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &req))
		return;
	req.ifr_flags |= IFF_UP;
	(void)!ioctl(fd, SIOCSIFFLAGS, &req);
}

static bool name_ok(const char *name)
{
	return *name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/: \t\n") && strcmp(name, ".") &&
		strcmp(name, "..");
}

int net_tap_open(struct net_backend *ret, const char *name, unsigned queues, struct err *e)
{
	struct net_backend b = {.kind = NET_TAP};
	struct ifreq req = {0};
	bool was_there;
	int r = 0;

	if (!name_ok(name))
		return err_set(e, -EINVAL, "TAP %.20s: no name of an interface (1 to %d bytes)",
			name, IFNAMSIZ - 1);
	if (!queues || queues > NET_PAIRS_MAX)
		return err_set(e, -EINVAL, "TAP %s: %u queues; 1 to %u are possible", name, queues,
			NET_PAIRS_MAX);
	snprintf(b.name, sizeof(b.name), "%s", name);
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	was_there = if_nametoindex(name);
	for (unsigned i = 0; i < queues && !r; i++)
		r = open_queue(&b, &req, queues, e);
	if (r) {
		net_backend_close(&b);
		return r;
	}
	b.offloads = probe(b.fds[0]);
	if (!was_there)
		switch_on(&req);
	*ret = b;
	return 0;
}

/* TUNGETIFF does not tell: it uses the same bit for something else. */
static bool has_no_pi(const char *name)
{
	int flags = flags_of(name);

	return flags < 0 || flags & IFF_NO_PI;
}

int net_tap_from_fd(struct net_backend *ret, int fd, struct err *e)
{
	struct net_backend b = {.kind = NET_TAP, .fds_count = 1, .fds = {fd}};
	struct ifreq req = {0};
	int r = 0;

	if (ioctl(fd, TUNGETIFF, &req))
		r = err_set(e, -EINVAL, errno == EBADF ? "descriptor %d: is not open"
			: errno == EBADFD ? "descriptor %d: is attached to no TAP (TUNSETIFF)"
			: "descriptor %d: is no TAP", fd);
	else if (!(req.ifr_flags & IFF_TAP))
		r = err_set(e, -EINVAL, "descriptor %d: is a TUN, not a TAP", fd);
	else if (!(req.ifr_flags & IFF_VNET_HDR) || !has_no_pi(req.ifr_name))
		r = err_set(e, -EINVAL,
			"descriptor %d: TAP %s was opened without IFF_VNET_HDR and IFF_NO_PI", fd,
			req.ifr_name);
	snprintf(b.name, sizeof(b.name), "%s", req.ifr_name);
	if (!r)
		r = set_up(&b, fd, e);
	if (r) {
		net_backend_close(&b);
		return r;
	}
	b.offloads = probe(fd);
	*ret = b;
	return 0;
}

void net_backend_close(struct net_backend *b)
{
	for (unsigned i = 0; i < b->fds_count; i++)
		fd_close(&b->fds[i]);
	b->fds_count = 0;
}
