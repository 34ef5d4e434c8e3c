/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kcache.c - the kernel cache: entries, and which file has which.
 *
 * An entry KEY.vmlinux is the unpacked ELF file and then a trailer. KEY is a BLAKE2b hash of the
 * packed bytes, so a kernel somebody made cannot take the place of another one. Entries are
 * written under a temporary name and renamed when they are whole, so readers see all or nothing;
 * one process writes at a time (kcache_dir.c). An entry is never written again; one that is removed
 * lives on in the VMs that have it mapped.
 *
 * Checking an entry's checksum each time would cost more than mapping it, so it is done when there
 * is a reason. One is a new boot of the host: a crash can undo writes that a rename seemed to
 * follow, and syncing would cost more than unpacking. So the trailer has the boot id of the host.
 * The other is a file that was written since: it got its modification time from us, a whole number
 * of seconds in the past that the trailer repeats, and whoever writes a byte changes that. When it
 * was used last is in the access time. After the check the trailer and the time are made right.
 * This proves nothing against people: that those who are not us cannot write is what kcache_dir.c
 * looks after.
 *
 * Hashing the packed bytes means reading them. A record SOURCE.source says for a file's device,
 * inode, size and times which KEY it had; SOURCE is a hash of these. A file that is changed gets
 * another change time, which nobody can set; only while the clock has not ticked since the change
 * would a second one go unseen, so a file that changed a moment ago is not recorded.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/base/clock.h"
#include "monitor/base/crc32c.h"
#include "monitor/base/io.h"
#include "monitor/blake2b.h"
#include "monitor/kcache_int.h"

#define FORMAT    2u
#define CHUNK     (1u << 20)
#define FRESH_NS  2000000000ull /* a file changed less long ago may change again unseen */
#define NS_PER_S  1000000000ull
#define ENTRY_MIN 64u
#define STAMP_AGO 4u /* s; file systems tell times in steps of up to 2 s */

/* The end of an entry; at rest on the host that wrote it, so in its byte order. */
struct trailer {
	char magic[8];
	u32 format;
	u32 crc; /* of the ELF file */
	u64 len; /* of the ELF file */
	struct kcache_key key;
	u64 stamp;      /* the file's modification time, s */
	u8 boot_id[40]; /* as text */
};
_Static_assert(sizeof(struct trailer) == 104, "no padding");

/* What tells a file from every other one, and from itself after a change. */
struct source {
	u64 dev, ino, size;
	u64 mtime_ns, ctime_ns;
};

struct record {
	struct source source;
	struct kcache_key key;
	u32 format;
	u32 crc; /* of what comes before */
};
_Static_assert(sizeof(struct record) == 80, "no padding");

static const char magic[8] = {'K', 'E', 'L', 'V', 'I', 'N', 'K', 'C'};

/* Which boot of the host this is; false: it cannot be told. */
static bool get_boot_id(u8 out[40])
{
	_cleanup_fd_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(out, 0, 40);
	return fd >= 0 && read(fd, out, 36) == 36;
}

void kcache_key(const void *packed, size_t len, struct kcache_key *ret)
{
	blake2b(ret->byte, sizeof(ret->byte), packed, len);
}

/* ---- which file has which kernel ---- */

static u64 to_ns(struct timespec t)
{
	return (u64)t.tv_sec * NS_PER_S + (u64)t.tv_nsec;
}

static struct source source_of(const struct stat *st)
{
	return (struct source){.dev = st->st_dev, .ino = st->st_ino, .size = (u64)st->st_size,
		.mtime_ns = to_ns(st->st_mtim), .ctime_ns = to_ns(st->st_ctim)};
}

static void record_name(char *out, const struct source *s)
{
	u8 hash[RECORD_HASH_LEN];

	blake2b(hash, sizeof(hash), s, sizeof(*s));
	kcache_name(out, hash, sizeof(hash), RECORD_SUFFIX);
}

bool kcache_recall(int dir_fd, const struct stat *st, struct kcache_key *ret)
{
	struct source s = source_of(st);
	_cleanup_fd_ int fd = -1;
	char name[KCACHE_NAME_MAX];
	struct stat file;
	struct record r;

	record_name(name, &s);
	fd = kcache_open_file(dir_fd, name, O_RDONLY, sizeof(r), sizeof(r), &file);
	if (fd < 0 || io_read_at(fd, &r, sizeof(r), 0))
		return false;
	if (r.format != FORMAT || r.crc != crc32c(0, &r, offsetof(struct record, crc)) ||
		memcmp(&r.source, &s, sizeof(s)))
		return false;
	*ret = r.key;
	return true;
}

void kcache_learn(int dir_fd, const struct stat *st, const struct kcache_key *key)
{
	struct record r = {.source = source_of(st), .key = *key, .format = FORMAT};
	char temp[KCACHE_NAME_MAX], name[KCACHE_NAME_MAX];
	u64 now = clock_ns(CLOCK_REALTIME);
	_cleanup_fd_ int fd = -1, lock = -1;

	if (now < r.source.mtime_ns + FRESH_NS || now < r.source.ctime_ns + FRESH_NS)
		return;
	lock = kcache_lock(dir_fd);
	if (lock < 0)
		return;
	kcache_prune(dir_fd, 0);
	r.crc = crc32c(0, &r, offsetof(struct record, crc));
	record_name(name, &r.source);
	fd = kcache_temp(dir_fd, temp);
	if (fd >= 0)
		kcache_publish(dir_fd, temp, name, io_write(fd, &r, sizeof(r)) == 0);
}

/* ---- entries ---- */

static bool crc_matches(int fd, const struct trailer *t)
{
	_cleanup_free_ u8 *buf = malloc(CHUNK);
	u32 crc = 0;

	for (u64 at = 0; buf && at < t->len;) {
		size_t n = t->len - at < CHUNK ? (size_t)(t->len - at) : CHUNK;

		if (io_read_at(fd, buf, n, at))
			return false;
		crc = crc32c(crc, buf, n);
		at += n;
	}
	return buf && crc == t->crc;
}

static bool set_times(int fd, u64 stamp)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = (time_t)stamp}};

	return futimens(fd, t) == 0;
}

/* Notes that the entry in @fd was checked. Where that cannot be written, it is checked again. */
static void stamp(int dir_fd, const char *name, const struct stat *st, const struct trailer *t,
	const u8 boot_id[40])
{
	_cleanup_fd_ int fd = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat now;

	/* Another process may have put a new entry there meanwhile. */
	if (fd < 0 || fstat(fd, &now) || now.st_ino != st->st_ino || now.st_dev != st->st_dev)
		return;
	if (pwrite(fd, boot_id, sizeof(t->boot_id),
		    (off_t)(t->len + offsetof(struct trailer, boot_id))) == sizeof(t->boot_id))
		set_times(fd, t->stamp);
}

/* Whether the entry is whole. Where there is a reason to doubt that, all of it is read. */
static bool entry_good(int dir_fd, const char *name, int fd, const struct stat *st,
	const struct kcache_key *key)
{
	u64 size = (u64)st->st_size;
	struct trailer t;
	u8 boot_id[40];
	bool known = get_boot_id(boot_id);

	if (io_read_at(fd, &t, sizeof(t), size - sizeof(t)))
		return false;
	if (memcmp(t.magic, magic, sizeof(magic)) || t.format != FORMAT ||
		t.len != size - sizeof(t) || memcmp(&t.key, key, sizeof(*key)))
		return false;
	if (known && !memcmp(t.boot_id, boot_id, sizeof(boot_id)) &&
		to_ns(st->st_mtim) == t.stamp * NS_PER_S)
		return true;
	if (!crc_matches(fd, &t))
		return false;
	if (known)
		stamp(dir_fd, name, st, &t, boot_id);
	return true;
}

int kcache_get(int dir_fd, const struct kcache_key *key)
{
	const struct timespec used[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
	char name[KCACHE_NAME_MAX];
	_cleanup_fd_ int fd = -1;
	struct stat st;

	kcache_name(name, key->byte, sizeof(key->byte), KERNEL_SUFFIX);
	fd = kcache_open_file(dir_fd, name, O_RDONLY, ENTRY_MIN + sizeof(struct trailer),
		KCACHE_ENTRY_MAX + sizeof(struct trailer), &st);
	if (fd < 0)
		return -1;
	if (!entry_good(dir_fd, name, fd, &st, key)) {
		unlinkat(dir_fd, name, 0);
		return -1;
	}
	futimens(fd, used); /* when it was used last */
	return fd_steal(&fd);
}

bool kcache_put(int dir_fd, const struct kcache_key *key, const void *elf, u64 len)
{
	struct trailer t = {.format = FORMAT, .len = len, .key = *key};
	char temp[KCACHE_NAME_MAX], name[KCACHE_NAME_MAX];
	_cleanup_fd_ int fd = -1, lock = -1;
	bool ok;

	if (len < ENTRY_MIN || len > KCACHE_ENTRY_MAX)
		return false;
	lock = kcache_lock(dir_fd);
	if (lock < 0)
		return false;
	kcache_prune(dir_fd, len + sizeof(t));
	fd = kcache_temp(dir_fd, temp);
	if (fd < 0)
		return false;
	memcpy(t.magic, magic, sizeof(magic));
	t.crc = crc32c(0, elf, len);
	t.stamp = (clock_ns(CLOCK_REALTIME) / NS_PER_S - STAMP_AGO) & ~1ull;
	get_boot_id(t.boot_id);
	kcache_name(name, key->byte, sizeof(key->byte), KERNEL_SUFFIX);
	ok = !io_write(fd, elf, len) && !io_write(fd, &t, sizeof(t)) && set_times(fd, t.stamp);
	return kcache_publish(dir_fd, temp, name, ok);
}
