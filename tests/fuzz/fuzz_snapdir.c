/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_snapdir.c - a snapshot directory whose owner is hostile (H01 to H14): state, memory, the files
 * of disks and the host's own, on a real file system. The input says what is in a good one; then it
 * changes bytes of each file, cuts and lengthens them, and puts links, pipes and directories in their
 * places.
 *
 * Checked: a good one opens, maps and verifies; one whose memory or disk was changed may open, but
 * does not verify; a refusal has a reason; no descriptor stays open and nothing blocks.
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/base/crc32c.h"
#include "snapshot/snap_int.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_state.h"

#define CHUNKS_MAX 40u
#define DISK       "disk.disk0"
#define HOST_LEN   100u

static struct {
	char top[64];
	int fd;
	struct enc state;
	u64 size, data_bytes;
	u8 present[8], crc[CHUNKS_MAX * 4];
	unsigned crcs;
	bool has_disk;
	bool changed;
	bool only_bytes; /* of memory or the disk were changed, once: it does not verify */
} t;

static int drop(const char *path, const struct stat *st, int type, struct FTW *w)
{
	return remove(path);
}

static void clean(void)
{
	nftw(t.top, drop, 16, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	snprintf(t.top, sizeof(t.top), "%s/kelvin-fuzz-XXXXXX",
		access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	must(mkdtemp(t.top));
	t.fd = open(t.top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(t.fd >= 0);
	atexit(clean);
	return 0;
}

static void drop_file(const char *name)
{
	if (unlinkat(t.fd, name, 0))
		unlinkat(t.fd, name, AT_REMOVEDIR);
}

static int make_file(const char *name, u64 len)
{
	int fd;

	drop_file(name);
	fd = openat(t.fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd >= 0 && !ftruncate(fd, (off_t)len));
	return fd;
}

/* RAM of which few chunks hold data: one page of it each. */
static void make_memory(struct fz *f)
{
	u64 chunks = MEM_MIN_SIZE / SNAP_CHUNK + fz_below(f, 8);
	static u8 chunk[SNAP_CHUNK];
	int fd;

	t.size = chunks * SNAP_CHUNK - MEM_PAGE * (u64)(chunks > 32 ? fz_below(f, 16) : 0);
	fd = make_file(SNAP_MEMORY_FILE, t.size);
	memset(t.present, 0, sizeof(t.present));
	t.data_bytes = t.crcs = 0;
	for (u64 i = 0, last = snap_chunk_count(t.size); i < last && t.crcs < 3; i++) {
		u64 off = i * SNAP_CHUNK, len = t.size - off < SNAP_CHUNK ? t.size - off : SNAP_CHUNK;
		u32 crc;

		if (fz_u8(f) & 7)
			continue;
		memset(chunk, 0x40 + (int)i, MEM_PAGE);
		must(pwrite(fd, chunk, MEM_PAGE, (off_t)off) == MEM_PAGE);
		crc = crc32c(0, chunk, (size_t)len);
		for (unsigned k = 0; k < 4; k++)
			t.crc[4 * t.crcs + k] = (u8)(crc >> (8 * k));
		t.crcs++;
		t.present[i / 8] |= (u8)(1u << (i % 8));
		t.data_bytes += MEM_PAGE;
	}
	close(fd);
}

static void make_disk(struct fz *f, struct enc *files)
{
	struct snap_extra x = {.name = DISK, .size = 1 + fz_u16(f)};
	int fd = make_file(DISK, x.size);
	u8 byte = fz_u8(f);

	must(pwrite(fd, &byte, 1, (off_t)(x.size / 2)) == 1);
	must(!snap_extra_sum(fd, &x));
	close(fd);
	snap_encode_extra(files, &x, 1);
}

static void make(struct fz *f)
{
	struct enc map = {0}, files = {0};
	const struct snap_map m = {.size = t.size, .data_bytes = t.data_bytes,
		.chunk_count = snap_chunk_count(t.size), .present = t.present, .crc = t.crc,
		.crc_len = t.crcs * sizeof(u32)};

	drop_file(DISK);
	drop_file(SNAP_HOST_FILE);
	if (t.has_disk)
		close(make_file(SNAP_HOST_FILE, HOST_LEN));
	snap_encode_begin(&t.state);
	snap_encode_section(&t.state, "vm", 1, "hello", 5);
	if (t.has_disk) {
		make_disk(f, &files);
		snap_encode_section(&t.state, SNAP_EXTRA_TAG, SNAP_EXTRA_VERSION, files.buf,
			files.len);
	}
	snap_encode_map(&map, &m);
	snap_encode_section(&t.state, SNAP_MAP_TAG, SNAP_MAP_VERSION, map.buf, map.len);
	snap_encode_end(&t.state, 2u + t.has_disk, 12345);
	must(!t.state.oom && !map.oom && !files.oom);
	enc_free(&map);
	enc_free(&files);
}

/* A byte, or the length, of a file that is not the state. */
static void change_file(struct fz *f)
{
	const char *name = t.has_disk && fz_u8(f) & 1 ? DISK : SNAP_MEMORY_FILE;
	int fd = openat(t.fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	u8 byte = 0, was;
	off_t at;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size) {
		if (fd >= 0)
			close(fd);
		return;
	}
	at = fz_u32(f) % st.st_size;
	if (fz_u8(f) & 1) {
		must(pread(fd, &was, 1, at) == 1);
		byte = (u8)(was + 1 + fz_below(f, 255));
		must(pwrite(fd, &byte, 1, at) == 1);
	} else {
		must(!ftruncate(fd, fz_u8(f) & 1 ? at : st.st_size + 1 + at % 4096));
	}
	close(fd);
}

/* Something else in the place of a file. */
static void replace(struct fz *f)
{
	static const char *const names[] = {SNAP_STATE_FILE, SNAP_MEMORY_FILE, DISK,
		SNAP_HOST_FILE};
	const char *name = names[fz_below(f, 4)];

	drop_file(name);
	switch (fz_below(f, 4)) {
	case 0:
		must(!symlinkat(SNAP_MEMORY_FILE, t.fd, name));
		break;
	case 1:
		must(!mkfifoat(t.fd, name, 0600));
		break;
	case 2:
		must(!mkdirat(t.fd, name, 0700));
		break;
	default: /* nothing, or nothing in it */
		if (fz_u8(f) & 1)
			close(make_file(name, 0));
	}
}

static void write_state(void)
{
	int fd = make_file(SNAP_STATE_FILE, t.state.len);

	must(pwrite(fd, t.state.buf, t.state.len, 0) == (ssize_t)t.state.len);
	close(fd);
}

static void change(struct fz *f)
{
	u8 what = fz_u8(f), how;

	t.only_bytes = !t.changed && what % 4 == 2;
	t.changed = true;
	switch (what % 4) {
	case 0:
	case 1:
		how = fz_u8(f);
		fz_change(f, how, &t.state);
		if (!(how & 0x80))
			fz_mend_state(&t.state);
		write_state();
		break;
	case 2:
		change_file(f);
		break;
	default:
		replace(f);
	}
}

static void count(void *ctx, u64 done, u64 total)
{
	u64 *last = ctx;

	must(done > *last && done <= total);
	*last = done;
}

static void look(void)
{
	size_t host_len;
	u64 last = 0;
	struct err e = {0};
	struct mem *m;
	struct snap *s;
	int r = snap_open(&s, t.top, &e);

	fz_trace("open: %d %s", r, e.msg);
	must(!r == !e.msg[0] && (!r || t.changed));
	if (r)
		return;
	must(snap_mem_size(s) >= MEM_MIN_SIZE && snap_mem_data_bytes(s) <= snap_mem_size(s));
	must(snap_section_count(s) <= SNAP_SECTIONS_MAX && snap_trusted(s));
	for (unsigned i = 0; i < snap_section_count(s); i++)
		must(snap_section_at(s, i)->tag[0]);
	must(t.changed || snap_created_ns(s) == 12345);
	must(t.changed || !snap_has_file(s, DISK, NULL) == t.has_disk);
	must(t.changed || !!snap_host(s, &host_len) == t.has_disk);
	must(!snap_host(s, &host_len) == !host_len && host_len <= SNAP_HOST_MAX);
	must(!mem_map_file(&m, snap_mem_fd(s), snap_mem_size(s), &e));
	mem_destroy(&m);
	r = snap_verify(s, count, &last, &e);
	must(r || last == snap_mem_size(s));
	fz_trace("verify: %d %s", r, e.msg);
	must(!r == !e.msg[0] && (!r || t.changed) && !(!r && t.only_bytes));
	snap_close(&s);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
	int fd = dup(t.fd), again;
	struct fz f;

	must(fd >= 0 && !close(fd));
	t.changed = t.only_bytes = false;
	fz_begin(&f, data, len);
	fz_step(&f);
	t.has_disk = fz_u8(&f) & 1;
	make_memory(&f);
	make(&f);
	write_state();
	while (fz_step(&f))
		change(&f);
	look();
	enc_free(&t.state);
	again = dup(t.fd);
	must(again == fd && !close(again)); /* the lowest that is free, as before */
	return 0;
}
