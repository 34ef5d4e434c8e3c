/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader.c - bring a kernel, its initrd and its command line into guest RAM.
 *
 * The kernel file was understood before (kernel.c, elf.c). First everything is checked: whether
 * it fits, which boot protocol it speaks, the command line, the initrd and a place for it. Only
 * then is anything written. What can still fail is reading: a disk error, or a file somebody makes
 * shorter meanwhile.
 *
 * File bytes go from the page cache straight into guest RAM, or are mapped there, and pages nobody
 * needs are not touched: RAM of a new VM is zero, so a kernel's BSS is there already.
 */
#include "monitor/loader_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "monitor/base/arith.h"
#include "monitor/base/io.h"

/* Conventional memory ends where PCs had the extended BIOS data, BIOS and, now, the tables. */
#define GPA_BIOS GPA_MPTABLE
#define LINUX_CMDLINE 2047u /* COMMAND_LINE_SIZE of x86, less its NUL */

int read_exactly(int fd, const char *path, u64 off, void *dst, u64 len, struct err *e)
{
	int r = io_read_at(fd, dst, len, off);

	if (r == -ENODATA)
		return err_set(e, -EIO, "%s: became shorter while it was read", path);
	if (r)
		return err_sys(e, -r, "%s: cannot read %" PRIu64 " bytes at offset %#" PRIx64, path,
			len, off);
	return 0;
}

void put_table(const struct mem *m, u64 gpa, const void *src, u64 len)
{
	bool written = mem_write(m, gpa, src, len);

	must(written);
}

unsigned memory_map(const struct mem *m, struct map_entry out[MAP_ENTRIES_MAX])
{
	unsigned n = 0;

	out[n++] = (struct map_entry){0, GPA_IDENTITY, MAP_RAM};
	out[n++] = (struct map_entry){GPA_IDENTITY, MEM_PAGE, MAP_RESERVED};
	out[n++] = (struct map_entry){GPA_IDENTITY + MEM_PAGE,
		GPA_BIOS - GPA_IDENTITY - MEM_PAGE, MAP_RAM};
	out[n++] = (struct map_entry){GPA_BIOS, GPA_HIMEM - GPA_BIOS, MAP_RESERVED};
	out[n++] = (struct map_entry){GPA_HIMEM, m->region[0].len - GPA_HIMEM, MAP_RAM};
	if (m->region_count > 1)
		out[n++] = (struct map_entry){m->region[1].gpa, m->region[1].len, MAP_RAM};
	return n;
}

/*
 * What is too long for a kernel it cuts off, without a word. A bzImage says how much it reads; a
 * vmlinux does not, but all of Linux for x86 has had the same limit since 2008.
 */
static u32 cmdline_max(const struct kernel_info *k)
{
	u32 max = k->cmdline_max ? k->cmdline_max : k->has_linux ? LINUX_CMDLINE : CMDLINE_MAX - 1;

	return max < CMDLINE_MAX ? max : CMDLINE_MAX - 1;
}

static int check_cmdline(const struct kernel_info *k, const char *cmdline, struct err *e)
{
	size_t len = strlen(cmdline);
	u32 max = cmdline_max(k);

	if (len > max)
		return err_set(e, -E2BIG,
			"the kernel command line has %zu characters, with the words for devices; "
			"at most %u fit%s", len, max,
			max < CMDLINE_MAX - 1 ? " in this kernel" : "");
	for (size_t i = 0; i < len; i++) {
		u8 c = (u8)cmdline[i];

		if (c < 0x20 || c > 0x7e)
			return err_set(e, -EINVAL,
				"the kernel command line holds byte 0x%02x at position %zu; only "
				"printable ASCII characters are possible", c, i + 1);
	}
	return 0;
}

/* The highest free place for @len bytes between 1 MiB and the end of low RAM; 0: there is none. */
static u64 find_place(const struct kernel_image *img, const struct mem *m, u64 len)
{
	u64 end = m->region[0].len;

	len = align_up(len, MEM_PAGE);
	while (range_ok(GPA_HIMEM, len, end)) {
		u64 gpa = end - len, below = end;

		for (unsigned i = 0; i < img->seg_count; i++) {
			const struct kernel_seg *s = &img->seg[i];

			if (s->gpa < end && gpa < s->gpa + s->mem_len && s->gpa < below)
				below = align_down(s->gpa, MEM_PAGE);
		}
		if (below == end)
			return gpa;
		end = below;
	}
	return 0;
}

/* Says how much RAM would do, where more RAM is the answer. */
static int refuse_initrd(const struct kernel_image *img, const struct mem *m, const char *path,
	u64 len, struct err *e)
{
	u64 want_mib = mib_up(img->info.high) + mib_up(len);

	if (want_mib > MEM_GAP_GPA >> 20)
		return err_set(e, -ENOMEM,
			"%s: the initrd of %" PRIu64 " MiB does not fit below 3 GiB beside the "
			"kernel", path, mib_up(len));
	return err_set(e, -ENOMEM,
		"%s: the initrd of %" PRIu64 " MiB does not fit in %" PRIu64 " MiB of RAM beside "
		"the kernel; at least %" PRIu64 " MiB are needed, more where the guest unpacks it",
		path, mib_up(len), m->size >> 20, want_mib);
}

static int place_initrd(const struct kernel_image *img, const struct mem *m,
	const struct load_request *req, struct boot_extras *x, struct err *e)
{
	struct stat st;

	if (fstat(req->initrd_fd, &st))
		return err_sys(e, errno, "%s: cannot look at the initrd", req->initrd_path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: the initrd is not a regular file",
			req->initrd_path);
	if (!st.st_size)
		return err_set(e, -EINVAL, "%s: the initrd is empty", req->initrd_path);
	x->initrd_len = (u64)st.st_size;
	if (x->initrd_len <= m->region[0].len)
		x->initrd_gpa = find_place(img, m, x->initrd_len);
	return x->initrd_gpa ? 0 : refuse_initrd(img, m, req->initrd_path, x->initrd_len, e);
}

static int choose_mode(const struct kernel *kernel, const struct load_request *req,
	enum boot_mode *ret, struct err *e)
{
	const struct kernel_info *k = &kernel->img.info;

	if (req->boot == BOOT_BY_PVH && !k->has_pvh)
		return err_set(e, -ENOEXEC,
			"%s: has no PVH entry point (ELF note \"Xen\", type 18)",
			kernel->path);
	if (k->has_pvh && req->boot != BOOT_BY_LINUX64) {
		*ret = BOOT_PVH;
		return 0;
	}
	if (!elf_has_code_at(&kernel->img, k->elf_entry))
		return err_set(e, -ENOEXEC,
			"%s: %sits ELF entry point %#" PRIx64
			" is not at the physical address of any loaded segment (%#" PRIx64
			" to %#" PRIx64 ")", kernel->path,
			k->has_pvh ? "" : "has no PVH entry point, and ", k->elf_entry, k->low,
			k->high);
	if (k->elf_entry >= (req->map_one_gib ? 1ull << 30 : MEM_HIGH_GPA))
		return err_set(e, -ENOEXEC, "%s: its entry point %#" PRIx64
			" is above %u GiB, which the boot page tables do not map", kernel->path,
			k->elf_entry, req->map_one_gib ? 1 : 4);
	*ret = BOOT_LINUX64;
	return 0;
}

static int read_into_ram(const struct mem *m, int fd, const char *path, u64 off, u64 gpa, u64 len,
	struct err *e)
{
	void *dst;

	if (!len)
		return 0;
	dst = mem_at(m, gpa, len);
	must(dst); /* checked by elf_check_fit() or placed by find_place() */
	return read_exactly(fd, path, off, dst, len, e);
}

/*
 * The whole pages of a segment are mapped where they lie in a file that cannot change, and alike in
 * the file and in RAM; what is left at its ends is read.
 */
static int load_segment(struct mem *m, const struct kernel *k, const struct kernel_seg *s,
	struct err *e)
{
	u64 from = align_up(s->gpa, MEM_PAGE) - s->gpa;
	u64 to = align_down(s->gpa + s->file_len, MEM_PAGE) - s->gpa;
	int r;

	if (!k->img.info.is_cached || s->gpa + s->file_len < s->gpa + from + MEM_PAGE ||
		!mem_map_piece(m, s->gpa + from, to - from, k->fd, s->file_off + from))
		return read_into_ram(m, k->fd, k->path, s->file_off, s->gpa, s->file_len, e);
	r = read_into_ram(m, k->fd, k->path, s->file_off, s->gpa, from, e);
	if (r)
		return r;
	return read_into_ram(m, k->fd, k->path, s->file_off + to, s->gpa + to, s->file_len - to,
		e);
}

int kernel_load(struct mem *m, const struct load_request *req, struct boot_regs *regs,
	struct err *e)
{
	struct boot_extras x = {.cmdline = req->cmdline, .rsdp_gpa = req->rsdp_gpa,
		.map_one_gib = req->map_one_gib};
	const struct kernel *k = req->kernel;
	enum boot_mode mode = BOOT_PVH;
	int r = choose_mode(k, req, &mode, e);

	if (!r)
		r = elf_check_fit(&k->img, m, k->path, e);
	if (!r)
		r = check_cmdline(&k->img.info, req->cmdline, e);
	if (!r && req->initrd_fd >= 0)
		r = place_initrd(&k->img, m, req, &x, e);

	for (unsigned i = 0; !r && i < k->img.seg_count; i++)
		r = load_segment(m, k, &k->img.seg[i], e);
	if (!r)
		r = read_into_ram(m, req->initrd_fd, req->initrd_path, 0, x.initrd_gpa,
			x.initrd_len, e);
	if (r)
		return r;
	if (x.cmdline[0])
		put_table(m, GPA_CMDLINE, x.cmdline, strlen(x.cmdline) + 1);
	if (mode == BOOT_PVH)
		pvh_setup(m, &k->img, &x, regs);
	else
		linux64_setup(m, &k->img, &x, regs);
	return 0;
}
