/* SPDX-License-Identifier: Apache-2.0 */
/* test_memory.c - the gate at its edges, the backings, the scan and the iovec helpers. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/memory.h"
#include "tests/lib/tmpdir.h"

#define SIZE MEM_MIN_SIZE

static struct mem *make(u64 size, enum mem_backing backing)
{
	struct err e = {0};
	struct mem *m;

	if (mem_create(&m, size, backing, &e))
		fail_msg("%s", e.msg);
	return m;
}

static void test_layout(void **state)
{
	struct mem_region r[MEM_REGIONS];

	assert_int_equal(mem_layout(SIZE, r), 1);
	assert_int_equal(r[0].gpa, 0);
	assert_int_equal(r[0].len, SIZE);
	assert_int_equal(mem_layout(MEM_GAP_GPA, r), 1);
	assert_true(r[0].len == MEM_GAP_GPA);
	assert_int_equal(mem_layout(MEM_GAP_GPA + MEM_PAGE, r), 2);
	assert_true(r[0].len == MEM_GAP_GPA && r[0].file_off == 0);
	assert_true(r[1].gpa == MEM_HIGH_GPA && r[1].file_off == MEM_GAP_GPA);
	assert_int_equal(r[1].len, MEM_PAGE);
}

static void test_bad_sizes(void **state)
{
	const u64 size[] = {0, MEM_PAGE, SIZE - MEM_PAGE, SIZE + 1, SIZE + 2048,
		MEM_MAX_SIZE + MEM_PAGE, UINT64_MAX, UINT64_MAX - 4095};

	for (size_t i = 0; i < ARRAY_SIZE(size); i++) {
		struct mem *m = NULL;
		struct err e = {0};

		assert_int_equal(mem_create(&m, size[i], MEM_ANON, &e), -EINVAL);
		assert_null(m);
		assert_non_null(strstr(e.msg, "guest RAM of"));
	}
}

/* The gate in the last bytes of RAM, past it, and where address plus length wraps. */
static void test_gate_one_region(void **state)
{
	struct mem *m = make(SIZE, MEM_ANON);
	static const struct {
		u64 gpa, len;
		bool ok;
	} tab[] = {
		{0, 1, true},
		{0, SIZE, true},
		{0, SIZE + 1, false},
		{SIZE - 1, 1, true},
		{SIZE - 1, 2, false},
		{SIZE, 1, false},
		{0, 0, false},
		{SIZE - 1, 0, false},
		{SIZE, 0, false},
		{UINT64_MAX, 1, false},
		{UINT64_MAX, 2, false},
		{UINT64_MAX - 9, 10, false},
		{1, UINT64_MAX, false},
		{0, UINT64_MAX, false},
		{SIZE - 1, UINT64_MAX - SIZE + 2, false}, /* wraps to 0 */
		{MEM_HIGH_GPA, 1, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(tab); i++) {
		struct iovec iov = {.iov_base = NULL, .iov_len = 99};
		struct mem_span s = {.len = 99};
		u8 *p = mem_at(m, tab[i].gpa, tab[i].len);

		assert_int_equal(p != NULL, tab[i].ok);
		assert_int_equal(mem_iov(m, tab[i].gpa, tab[i].len, &iov), tab[i].ok);
		assert_int_equal(mem_span(m, tab[i].gpa, tab[i].len, &s), tab[i].ok);
		assert_int_equal(iov.iov_len, tab[i].ok ? tab[i].len : 99);
		assert_int_equal(s.len, tab[i].ok ? tab[i].len : 99);
		if (p) {
			p[0] = 1;
			p[tab[i].len - 1] = 1; /* mapped to its last byte */
		}
	}
	mem_destroy(&m);
	assert_null(m);
	mem_destroy(&m);
}

static void test_gate_two_regions(void **state)
{
	struct mem *m = make(MEM_GAP_GPA + SIZE, MEM_ANON);
	static const struct {
		u64 gpa, len;
		bool ok;
	} tab[] = {
		{MEM_GAP_GPA - 1, 1, true},
		{MEM_GAP_GPA - 1, 2, false}, /* into the hole */
		{MEM_GAP_GPA, 1, false},
		{MEM_HIGH_GPA - 1, 1, false},
		{MEM_HIGH_GPA - 1, 2, false}, /* out of the hole */
		{MEM_GAP_GPA - 1, MEM_HIGH_GPA - MEM_GAP_GPA + 2, false}, /* across it */
		{0, MEM_GAP_GPA, true},
		{0, MEM_GAP_GPA + SIZE, false},
		{MEM_HIGH_GPA, SIZE, true},
		{MEM_HIGH_GPA, SIZE + 1, false},
		{MEM_HIGH_GPA + SIZE - 1, 1, true},
		{MEM_HIGH_GPA + SIZE, 1, false},
		{MEM_HIGH_GPA, UINT64_MAX - MEM_HIGH_GPA + 1, false},
	};
	u32 v = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tab); i++)
		assert_int_equal(mem_at(m, tab[i].gpa, tab[i].len) != NULL, tab[i].ok);
	/* The same byte is not in both regions. */
	assert_true(mem_write(m, MEM_HIGH_GPA, "high", 4));
	assert_true(mem_write(m, MEM_GAP_GPA - 4, "low!", 4));
	assert_true(mem_read(m, MEM_HIGH_GPA, &v, 4));
	assert_memory_equal(&v, "high", 4);
	mem_destroy(&m);
}

static void test_refused_copies_touch_nothing(void **state)
{
	struct mem *m = make(SIZE, MEM_ANON);
	u8 buf[4] = {1, 2, 3, 4};

	assert_true(mem_write(m, SIZE - 4, buf, 4));
	assert_false(mem_write(m, SIZE - 2, "zzzz", 4));
	assert_false(mem_read(m, SIZE - 2, buf, 4));
	assert_memory_equal(buf, "\1\2\3\4", 4);
	assert_true(mem_read(m, SIZE - 4, buf, 4));
	assert_memory_equal(buf, "\1\2\3\4", 4);
	mem_destroy(&m);
}

static void test_span_words(void **state)
{
	struct mem *m = make(SIZE, MEM_ANON);
	struct mem_span s;
	u8 out[8];

	assert_true(mem_span(m, 4096, 16, &s));
	span_store16(s, 0, 0x1122);
	span_store16_release(s, 2, 0x3344);
	span_store32(s, 4, 0x55667788);
	assert_int_equal(span_load16(s, 0), 0x1122);
	assert_int_equal(span_load16_acquire(s, 2), 0x3344);
	assert_int_equal(span_load32(s, 4), 0x55667788);
	assert_true(span_load64(s, 0) == 0x5566778833441122ull);
	span_copy_out(s, 0, out, 8);
	assert_memory_equal(out, "\x22\x11\x44\x33\x88\x77\x66\x55", 8);
	assert_int_equal(span_load16(s, 14), 0);
	mem_destroy(&m);
}

/* Whether the child, which runs @f over a span of 16 bytes, ends as on a bug of ours. */
static bool dies(void (*f)(struct mem_span s))
{
	const struct rlimit no_core = {0, 0};
	struct mem *m = make(SIZE, MEM_ANON);
	struct mem_span s;
	int status;
	pid_t pid;

	assert_true(mem_span(m, 4096, 16, &s));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		close(2);
		f(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	mem_destroy(&m);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void past_end16(struct mem_span s)
{
	span_load16(s, 16);
}

static void across_end32(struct mem_span s)
{
	span_store32(s, 14, 0);
}

static void wrapping64(struct mem_span s)
{
	span_load64(s, UINT64_MAX - 7);
}

static void misaligned16(struct mem_span s)
{
	span_load16(s, 1);
}

static void long_copy(struct mem_span s)
{
	u8 out[17];

	span_copy_out(s, 0, out, sizeof(out));
}

static void in_bounds(struct mem_span s)
{
	span_load64(s, 8);
}

static void test_span_bugs_are_caught(void **state)
{
	assert_true(dies(past_end16));
	assert_true(dies(across_end32));
	assert_true(dies(wrapping64));
	assert_true(dies(misaligned16));
	assert_true(dies(long_copy));
	assert_false(dies(in_bounds));
}

/* A file of SIZE bytes, "file" at page 5, holes elsewhere. */
static int make_file(const char *dir)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/ram", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && !ftruncate(fd, SIZE));
	assert_int_equal(pwrite(fd, "file", 4, 5 * MEM_PAGE), 4);
	return fd;
}

static void test_map_file_is_private(void **state)
{
	char *dir = tmpdir_make();
	int fd = make_file(dir);
	struct mem *a, *b;
	struct err e = {0};
	char got[4];

	assert_int_equal(mem_map_file(&a, fd, SIZE, &e), 0);
	assert_int_equal(mem_map_file(&b, fd, SIZE, &e), 0);
	assert_true(mem_write(a, 5 * MEM_PAGE, "mine", 4));
	assert_true(mem_read(b, 5 * MEM_PAGE, got, 4));
	assert_memory_equal(got, "file", 4);
	assert_int_equal(pread(fd, got, 4, 5 * MEM_PAGE), 4);
	assert_memory_equal(got, "file", 4);
	/* It has a descriptor of its own. */
	assert_int_not_equal(a->fd, fd);
	close(fd);
	assert_true(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
	mem_destroy(&a);
	mem_destroy(&b);
	tmpdir_remove(dir);
	free(dir);
}

static void test_map_file_of_another_size(void **state)
{
	char *dir = tmpdir_make();
	int fd = make_file(dir);
	unsigned fds = fd_count();
	struct mem *m = NULL;
	struct err e = {0};

	assert_int_equal(mem_map_file(&m, fd, SIZE + MEM_PAGE, &e), -EINVAL);
	assert_int_equal(ftruncate(fd, SIZE + 1), 0);
	assert_int_equal(mem_map_file(&m, fd, SIZE, &e), -EINVAL);
	assert_int_equal(mem_map_file(&m, fd, SIZE + 1, &e), -EINVAL);
	assert_int_equal(ftruncate(fd, MEM_PAGE), 0);
	assert_int_equal(mem_map_file(&m, fd, MEM_PAGE, &e), -EINVAL);
	assert_int_equal(mem_map_file(&m, -1, SIZE, &e), -EBADF);
	assert_null(m);
	assert_int_equal(fd_count(), fds);
	close(fd);
	tmpdir_remove(dir);
	free(dir);
}

static bool named(const u8 *bitmap, u64 page)
{
	return bitmap[page / 8] >> (page % 8) & 1;
}

static unsigned count(const u8 *bitmap)
{
	unsigned n = 0;

	for (u64 page = 0; page < SIZE / MEM_PAGE; page++)
		n += named(bitmap, page);
	return n;
}

static void test_scan_anonymous(void **state)
{
	const enum mem_backing backing[] = {MEM_ANON, MEM_MEMFD};

	for (size_t i = 0; i < ARRAY_SIZE(backing); i++) {
		struct mem *m = make(SIZE, backing[i]);
		u8 bitmap[SIZE / MEM_PAGE / 8] = {0};
		struct err e = {0};

		assert_int_equal(mem_scan(m, bitmap, &e), 0);
		assert_int_equal(count(bitmap), 0);
		assert_true(mem_write(m, 0, "a", 1));
		assert_true(mem_write(m, 100 * MEM_PAGE + 17, "b", 1));
		assert_true(mem_write(m, SIZE - 1, "c", 1));
		assert_int_equal(mem_scan(m, bitmap, &e), 0);
		assert_true(named(bitmap, 0) && named(bitmap, 100));
		assert_true(named(bitmap, SIZE / MEM_PAGE - 1));
		assert_true(count(bitmap) < SIZE / MEM_PAGE); /* and not simply every page */
		mem_destroy(&m);
	}
}

/* A shared memfd that another mapping wrote: this process's page tables know nothing of it. */
static void test_scan_memfd_written_elsewhere(void **state)
{
	struct mem *m = make(SIZE, MEM_MEMFD);
	u8 bitmap[SIZE / MEM_PAGE / 8] = {0};
	struct err e = {0};

	assert_int_equal(pwrite(m->fd, "x", 1, 77 * MEM_PAGE), 1);
	assert_int_equal(mem_scan(m, bitmap, &e), 0);
	assert_true(named(bitmap, 77));
	assert_int_equal(count(bitmap), 1);
	mem_destroy(&m);
}

static void test_scan_file(void **state)
{
	char *dir = tmpdir_make();
	int fd = make_file(dir);
	u8 bitmap[SIZE / MEM_PAGE / 8] = {0};
	struct err e = {0};
	struct mem *m;

	assert_int_equal(mem_map_file(&m, fd, SIZE, &e), 0);
	assert_int_equal(mem_scan(m, bitmap, &e), 0);
	assert_true(named(bitmap, 5));
	assert_true(count(bitmap) < 64); /* the file's data, not its holes */
	assert_true(mem_write(m, 300 * MEM_PAGE, "x", 1));
	assert_int_equal(mem_scan(m, bitmap, &e), 0);
	assert_true(named(bitmap, 5) && named(bitmap, 300));
	mem_destroy(&m);
	close(fd);
	tmpdir_remove(dir);
	free(dir);
}

/* More pages than one read of the page map covers. */
static void test_scan_large(void **state)
{
	const u64 size = 96ull << 20, pages = size / MEM_PAGE;
	struct mem *m = make(size, MEM_ANON);
	u8 *bitmap = calloc(1, pages / 8);
	struct err e = {0};

	for (u64 page = 8191; page < pages; page += 8192)
		assert_true(mem_write(m, page * MEM_PAGE, "x", 1));
	assert_int_equal(mem_scan(m, bitmap, &e), 0);
	for (u64 page = 8191; page < pages; page += 8192)
		assert_true(named(bitmap, page));
	free(bitmap);
	mem_destroy(&m);
}

/* "abc", "", "defg", "h" in buffers of their own. */
struct list {
	char part[4][4];
	struct iovec iov[4];
};

static void list_init(struct list *l)
{
	static const char *const text[] = {"abc", "", "defg", "h"};

	for (size_t i = 0; i < ARRAY_SIZE(text); i++) {
		memcpy(l->part[i], text[i], strlen(text[i]));
		l->iov[i] = (struct iovec){.iov_base = l->part[i], .iov_len = strlen(text[i])};
	}
}

/* Every skip and length over the list, against plain string arithmetic. */
static void test_iov_copies(void **state)
{
	const char *all = "abcdefgh";

	for (size_t skip = 0; skip <= 10; skip++) {
		for (size_t len = 0; len <= 10; len++) {
			size_t want = skip >= 8 ? 0 : len < 8 - skip ? len : 8 - skip;
			char out[16], model[9] = "abcdefgh";
			struct iovec cut[4];
			struct list l;
			size_t n = 0;
			unsigned k;

			list_init(&l);
			memset(out, '.', sizeof(out));
			assert_int_equal(iov_to_host(l.iov, 4, skip, out, len), want);
			assert_memory_equal(out, all + (skip < 8 ? skip : 8), want);
			assert_int_equal(out[want], '.');

			k = iov_slice(l.iov, 4, skip, len, cut);
			assert_true(k <= 4);
			for (unsigned i = 0; i < k; i++) {
				assert_memory_equal(cut[i].iov_base, all + skip + n,
					cut[i].iov_len);
				n += cut[i].iov_len;
			}
			assert_int_equal(n, want);

			assert_int_equal(iov_from_host(l.iov, 4, skip, "0123456789", len), want);
			if (want)
				memcpy(model + skip, "0123456789", want);
			iov_to_host(l.iov, 4, 0, out, 8);
			assert_memory_equal(out, model, 8);
		}
	}
}

/* A memfd of 8 pages, page i full of i + 1. */
static int pages_memfd(void)
{
	int fd = memfd_create("pages", MFD_CLOEXEC);
	u8 page[MEM_PAGE];

	for (unsigned i = 0; i < 8; i++) {
		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	}
	return fd;
}

static void test_map_piece(void **state)
{
	const u64 gpa = 10 * MEM_PAGE;
	struct mem *m = make(SIZE, MEM_ANON);
	u8 bitmap[SIZE / MEM_PAGE / 8] = {0};
	struct err e = {0};
	int fd = pages_memfd();
	u8 b;

	assert_true(mem_map_piece(m, gpa, 3 * MEM_PAGE, fd, 2 * MEM_PAGE));
	/* Nobody touched the pages yet: the page map does not tell them. */
	assert_int_equal(mem_scan(m, bitmap, &e), 0);
	for (u64 p = 0; p < SIZE / MEM_PAGE; p++)
		assert_int_equal(named(bitmap, p), p >= 10 && p < 13);
	for (u64 p = 0; p < 3; p++) {
		assert_true(mem_read(m, gpa + p * MEM_PAGE + 5, &b, 1));
		assert_int_equal(b, p + 3);
	}
	assert_true(mem_read(m, gpa - 1, &b, 1));
	assert_int_equal(b, 0);
	assert_true(mem_read(m, gpa + 3 * MEM_PAGE, &b, 1));
	assert_int_equal(b, 0);
	assert_true(mem_write(m, gpa, "x", 1)); /* stays here */
	assert_int_equal(pread(fd, &b, 1, 2 * MEM_PAGE), 1);
	assert_int_equal(b, 3);
	close(fd); /* the mapping does not need it */
	assert_true(mem_read(m, gpa + MEM_PAGE, &b, 1));
	assert_int_equal(b, 4);
	mem_destroy(&m);
}

static void test_map_piece_refusals(void **state)
{
	struct mem *m = make(SIZE, MEM_ANON), *shared = make(SIZE, MEM_MEMFD);
	int fd = pages_memfd();

	assert_true(mem_write(m, 0, "a", 1));
	assert_false(mem_map_piece(shared, 0, MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, 1, MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, 0, MEM_PAGE + 1, fd, 0));
	assert_false(mem_map_piece(m, 0, MEM_PAGE, fd, 512));
	assert_false(mem_map_piece(m, 0, 0, fd, 0));
	assert_false(mem_map_piece(m, SIZE, MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, SIZE - MEM_PAGE, 2 * MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, 0 - (u64)MEM_PAGE, 2 * MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, 0, MEM_PAGE, -1, 0));
	assert_int_equal(m->piece_count, 0);
	assert_int_equal(*(u8 *)mem_at(m, 0, 1), 'a');
	for (u64 i = 0; i < MEM_PIECES; i++)
		assert_true(mem_map_piece(m, i * MEM_PAGE, MEM_PAGE, fd, 0));
	assert_false(mem_map_piece(m, MEM_PIECES * MEM_PAGE, MEM_PAGE, fd, 0));
	close(fd);
	mem_destroy(&m);
	mem_destroy(&shared);
}

/* How much of the mapping at @p is huge pages now, and whether they were asked for ("hg", "nh"). */
static u64 huge_bytes(const void *p, const char *flag, bool *ret_flagged)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long begin, end, kib;
	bool here = false;
	char line[512];
	u64 bytes = 0;

	assert_non_null(f);
	*ret_flagged = false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			here = (uintptr_t)p >= begin && (uintptr_t)p < end;
		else if (here && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			bytes = (u64)kib << 10;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			*ret_flagged = strstr(line, flag) != NULL;
	}
	fclose(f);
	return bytes;
}

/* Guest addresses and ours are multiples of a huge page together, in both regions. */
static void test_huge_pages_line_up(void **state)
{
	const u64 sizes[] = {SIZE, SIZE + MEM_PAGE, 8 * SIZE, MEM_GAP_GPA + 3 * MEM_PAGE};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct mem *m = make(sizes[i], MEM_ANON);

		for (unsigned k = 0; k < m->region_count; k++)
			assert_int_equal(((uintptr_t)m->region[k].hva - m->region[k].gpa) %
				MEM_HUGE_PAGE, 0);
		/* All of it is there, and nothing else is taken away with it. */
		*(u8 *)mem_at(m, 0, 1) = 1;
		*(u8 *)mem_at(m, m->region[m->region_count - 1].gpa +
			m->region[m->region_count - 1].len - 1, 1) = 1;
		mem_destroy(&m);
		assert_null(m);
	}
}

static void test_set_huge(void **state)
{
	struct mem *m = make(8 * SIZE, MEM_ANON), *shared = make(SIZE, MEM_MEMFD);
	bool flagged;

	assert_false(mem_set_huge(shared, true));
	mem_destroy(&shared);
	if (!mem_set_huge(m, true)) { /* this kernel was built without */
		mem_destroy(&m);
		skip();
	}
	*(u8 *)mem_at(m, 5 * MEM_PAGE, 1) = 1;
	/* Whether there is a free huge page is the host's business. */
	assert_true(huge_bytes(m->region[0].hva, " hg", &flagged) <= MEM_HUGE_PAGE);
	assert_true(flagged);
	mem_destroy(&m);

	m = make(8 * SIZE, MEM_ANON);
	assert_true(mem_set_huge(m, false));
	*(u8 *)mem_at(m, 5 * MEM_PAGE, 1) = 1;
	assert_int_equal(huge_bytes(m->region[0].hva, " nh", &flagged), 0);
	assert_true(flagged);
	mem_destroy(&m);
}

/* How many pages of 2 MiB the host could still give. */
static u64 pool_free(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long n = 0, free_n = 0, reserved = 0;
	char line[128];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "HugePages_Free: %lu", &n) == 1)
			free_n = n;
		if (sscanf(line, "HugePages_Rsvd: %lu", &n) == 1)
			reserved = n;
	}
	fclose(f);
	return free_n - reserved;
}

/* More than the pool has is refused as a whole, before anything is touched. */
static void test_pool_refusals(void **state)
{
	u64 room = pool_free();
	struct mem *m = NULL;
	struct err e = {0};

	assert_int_equal(mem_create(&m, SIZE + MEM_PAGE, MEM_HUGE, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "multiple of 2M"));
	assert_int_equal(mem_create(&m, (room + 1) * MEM_HUGE_PAGE, MEM_HUGE, &e), -ENOMEM);
	assert_non_null(strstr(e.msg, "/proc/sys/vm/nr_hugepages"));
	assert_null(m);
	assert_int_equal(pool_free(), room);
}

static void test_pool(void **state)
{
	u8 *bitmap, byte = 7;
	struct mem *m;

	if (pool_free() < 2)
		skip();
	m = make(2 * MEM_HUGE_PAGE, MEM_HUGE);
	bitmap = calloc(1, (size_t)(m->size / MEM_PAGE / 8));
	assert_int_equal((uintptr_t)m->region[0].hva % MEM_HUGE_PAGE, 0);
	assert_false(mem_set_huge(m, true));
	assert_false(mem_map_piece(m, 0, MEM_PAGE, 0, 0));
	assert_true(mem_write(m, MEM_HUGE_PAGE + 5 * MEM_PAGE, &byte, 1));
	assert_int_equal(mem_scan(m, bitmap, NULL), 0);
	assert_int_equal(bitmap[0], 0);
	assert_int_equal(bitmap[MEM_HUGE_PAGE / MEM_PAGE / 8], 0xff);
	free(bitmap);
	mem_destroy(&m);
}

static void test_iov_empty(void **state)
{
	struct iovec cut[1];
	char out[1];

	assert_int_equal(iov_to_host(NULL, 0, 0, out, 1), 0);
	assert_int_equal(iov_from_host(NULL, 0, 5, out, 1), 0);
	assert_int_equal(iov_slice(NULL, 0, 0, SIZE_MAX, cut), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_gate_one_region),
		cmocka_unit_test(test_gate_two_regions),
		cmocka_unit_test(test_refused_copies_touch_nothing),
		cmocka_unit_test(test_span_words),
		cmocka_unit_test(test_span_bugs_are_caught),
		cmocka_unit_test(test_map_file_is_private),
		cmocka_unit_test(test_map_file_of_another_size),
		cmocka_unit_test(test_scan_anonymous),
		cmocka_unit_test(test_scan_memfd_written_elsewhere),
		cmocka_unit_test(test_scan_file),
		cmocka_unit_test(test_scan_large),
		cmocka_unit_test(test_map_piece),
		cmocka_unit_test(test_map_piece_refusals),
		cmocka_unit_test(test_huge_pages_line_up),
		cmocka_unit_test(test_set_huge),
		cmocka_unit_test(test_pool_refusals),
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_iov_copies),
		cmocka_unit_test(test_iov_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
