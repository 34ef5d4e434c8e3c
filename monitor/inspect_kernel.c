/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_kernel.c - say what a kernel file is and how it would be booted. See vm_verb.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "monitor/base/cleanup.h"
#include "monitor/kcache.h"
#include "monitor/kind.h"
#include "monitor/loader.h"
#include "monitor/vm_verb.h"

static const char *pack_text(enum pack p)
{
	switch (p) {
	case PACK_GZIP: return "gzip";
	case PACK_XZ: return "xz";
	case PACK_LZ4_LEGACY:
	case PACK_LZ4: return "lz4";
	case PACK_ZSTD: return "zstd";
	case PACK_NONE:
	case PACK_UNKNOWN: break;
	}
	return "none";
}

static const char *kind_text(const struct kernel_info *k)
{
	if (k->has_kelvin)
		return "kit guest";
	return kernel_is_linux(k) ? "Linux" : "other";
}

static json_t *describe(const struct kernel_info *k, const char *path)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:s, s:s}", "kernel",
		path, "kind", kind_text(k), "machine", kind_name(kind_for_kernel(k)), "format",
		k->is_bzimage ? "bzImage" : "ELF64", "packed", pack_text(k->packed_as), "pvh",
		k->has_pvh, "pvh_entry", (json_int_t)k->pvh_entry,
		"elf_entry", (json_int_t)k->elf_entry, "low", (json_int_t)k->low, "high",
		(json_int_t)k->high, "cmdline", kernel_default_cmdline(k, false),
		"cmdline_console", kernel_default_cmdline(k, true));
}

static const char *or_none(const char *text)
{
	return text[0] ? text : "(none)";
}

static void print(const struct kernel_info *k, const char *path)
{
	show_line("kernel", "%s", path);
	show_line("kind", "%s, %s, packing: %s", kind_text(k), k->is_bzimage ? "bzImage" : "ELF64",
		pack_text(k->packed_as));
	show_line("machine", "%s", kind_name(kind_for_kernel(k)));
	if (k->has_pvh)
		show_line("entry", "PVH at %#llx (--boot linux64: %#llx)",
			(unsigned long long)k->pvh_entry, (unsigned long long)k->elf_entry);
	else
		show_line("entry", "Linux 64-bit at %#llx", (unsigned long long)k->elf_entry);
	show_line("loaded at", "%#llx to %#llx", (unsigned long long)k->low,
		(unsigned long long)k->high);
	show_line("default words", "%s", or_none(kernel_default_cmdline(k, false)));
	show_line("with --console", "%s", or_none(kernel_default_cmdline(k, true)));
}

int inspect_kernel(const char *path, bool json)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct kernel *k = NULL;
	struct err e;
	int r;

	if (fd < 0) {
		err_sys(&e, errno, "cannot open %s", path);
		return fail(&e);
	}
	/* Looking must not change anything, the cache included. */
	if (kernel_open(&k, fd, path, KCACHE_OFF, &e))
		return fail(&e);
	if (json) {
		r = show_json(describe(kernel_info(k), path));
	} else {
		print(kernel_info(k), path);
		r = show_end();
	}
	kernel_close(&k);
	return r;
}
