/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_net.c - give the first network card the address that the host says, and lo its own.
 *
 * IPv4, by the ioctls that every kernel has. A new address takes the place of the old one; with the
 * last address of a card its routes go, so that nothing of the machine this one was copied from is
 * left.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/route.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

#define CARDS_MAX 64

/* As netinet/in.h has it, which does not go with the kernel's headers. */
struct inet {
	u16 family, port;
	u8 addr[4], zero[8];
};

bool text_line(const char *text, size_t len, const char *name, char *out, size_t cap)
{
	size_t n = strlen(name);

	while (len) {
		const char *nl = memchr(text, '\n', len);
		size_t line = nl ? (size_t)(nl - text) : len;

		if (line > n && text[n] == '=' && !memcmp(text, name, n) && line - n - 1 < cap) {
			memcpy(out, text + n + 1, line - n - 1);
			out[line - n - 1] = 0;
			return true;
		}
		line += nl != NULL;
		text += line;
		len -= line;
	}
	return false;
}

/* A decimal number up to @max; *@p goes behind it. -1: there is none. */
static int number(const char **p, int max)
{
	int v = 0;

	if (**p < '0' || **p > '9')
		return -1;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		v = v * 10 + (**p - '0');
		if (v > max)
			return -1;
	}
	return v;
}

/* "A.B.C.D", with "/N" where @ret_bits is not NULL (32 without). */
static bool parse_ip(const char *s, struct inet *ret, int *ret_bits)
{
	*ret = (struct inet){.family = AF_INET};
	for (int i = 0; i < 4; i++) {
		int v = number(&s, 255);

		if (v < 0 || (i < 3 && *s++ != '.'))
			return false;
		ret->addr[i] = (u8)v;
	}
	if (ret_bits) {
		*ret_bits = 32;
		if (*s == '/') {
			s++;
			*ret_bits = number(&s, 32);
		}
		if (*ret_bits < 0)
			return false;
	}
	return !*s;
}

static bool parse_mac(const char *s, u8 mac[6])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 12; i++, s++) {
		const char *d = *s ? strchr(digits, *s | 32) : NULL;

		if (!d)
			return false;
		mac[i / 2] = (u8)(mac[i / 2] << 4 | (d - digits));
		if (i % 2 && i < 11 && *++s != ':')
			return false;
	}
	return !*s;
}

/* The first card that is no loopback. False: there is none. */
static bool first_card(int fd, struct ifreq *ifr)
{
	for (int i = 1; i <= CARDS_MAX; i++) {
		*ifr = (struct ifreq){.ifr_ifindex = i};
		if (!ioctl(fd, SIOCGIFNAME, ifr) && !ioctl(fd, SIOCGIFFLAGS, ifr) &&
			!(ifr->ifr_flags & IFF_LOOPBACK))
			return true;
	}
	return false;
}

static int up(int fd, struct ifreq *ifr, bool on)
{
	if (ioctl(fd, SIOCGIFFLAGS, ifr))
		return -1;
	ifr->ifr_flags = (short)(on ? ifr->ifr_flags | IFF_UP : ifr->ifr_flags & ~IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, ifr);
}

void net_lo_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0) {
		up(fd, &ifr, true);
		close(fd);
	}
}

static int set_mac(int fd, struct ifreq *ifr, const char *text)
{
	u8 mac[6] = {0};

	if (!parse_mac(text, mac))
		return -EINVAL;
	ifr->ifr_hwaddr.sa_family = 1; /* ARPHRD_ETHER */
	memcpy(ifr->ifr_hwaddr.sa_data, mac, 6);
	if (!ioctl(fd, SIOCSIFHWADDR, ifr))
		return 0;
	/* Some cards only take it while they are down. */
	up(fd, ifr, false);
	ifr->ifr_hwaddr.sa_family = 1;
	memcpy(ifr->ifr_hwaddr.sa_data, mac, 6);
	return ioctl(fd, SIOCSIFHWADDR, ifr) ? -errno : 0;
}

static int set_address(int fd, struct ifreq *ifr, const char *text)
{
	struct inet ip, mask = {.family = AF_INET};
	int bits;

	if (!parse_ip(text, &ip, &bits))
		return -EINVAL;
	for (int i = 0; i < bits; i++)
		mask.addr[i / 8] |= (u8)(0x80 >> i % 8);
	memcpy(&ifr->ifr_addr, &ip, sizeof(ip));
	if (ioctl(fd, SIOCSIFADDR, ifr))
		return -errno;
	memcpy(&ifr->ifr_netmask, &mask, sizeof(mask));
	if (ioctl(fd, SIOCSIFNETMASK, ifr) || up(fd, ifr, true))
		return -errno;
	return 0;
}

static int set_gateway(int fd, struct ifreq *ifr, const char *text)
{
	struct inet ip, any = {.family = AF_INET};
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = ifr->ifr_name};

	if (!parse_ip(text, &ip, NULL))
		return -EINVAL;
	memcpy(&route.rt_gateway, &ip, sizeof(ip));
	memcpy(&route.rt_dst, &any, sizeof(any));
	memcpy(&route.rt_genmask, &any, sizeof(any));
	return ioctl(fd, SIOCADDRT, &route) && errno != EEXIST ? -errno : 0;
}

static int set_mtu(int fd, struct ifreq *ifr, const char *text)
{
	ifr->ifr_mtu = number(&text, 65535);
	return *text || ifr->ifr_mtu < 68 ? -EINVAL : ioctl(fd, SIOCSIFMTU, ifr) ? -errno : 0;
}

static int set_dns(const char *server)
{
	char text[96];
	int n = snprintf(text, sizeof(text), "nameserver %s\n", server), r = 0;
	int fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	if (write(fd, text, (size_t)n) != n)
		r = -errno;
	close(fd);
	return r;
}

/* What is to be done with the card, in this order. */
static const struct {
	const char *key;
	int (*set)(int fd, struct ifreq *ifr, const char *text);
} card_keys[] = {
	{"mac", set_mac}, {"mtu", set_mtu}, {"address", set_address}, {"gateway", set_gateway},
};

static int apply_card(int fd, const char *text, size_t len, struct err *e)
{
	struct ifreq ifr;
	char value[64];
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(card_keys); i++) {
		if (!text_line(text, len, card_keys[i].key, value, sizeof(value)))
			continue;
		if (!first_card(fd, &ifr))
			return err_set(e, -ENODEV, "the guest has no network card");
		r = card_keys[i].set(fd, &ifr, value);
		if (r)
			return err_sys(e, -r, "cannot set %s to %s", card_keys[i].key, value);
	}
	return 0;
}

int net_apply(const char *text, size_t len, struct err *e)
{
	char value[65];
	int fd, r;

	if (text_line(text, len, "hostname", value, sizeof(value)) &&
		sethostname(value, strlen(value)))
		return err_sys(e, errno, "cannot set the host name to %s", value);
	if (text_line(text, len, "dns", value, sizeof(value)) && (r = set_dns(value)))
		return err_sys(e, -r, "cannot write /etc/resolv.conf");
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, errno, "the guest has no network");
	r = apply_card(fd, text, len, e);
	close(fd);
	return r;
}
