/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_spec.c - --cpu: a level by name, or a file in the form of Firecracker's cpu-config.
 *
 * Such a file says {"cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0x0", "flags": 1, "modifiers":
 * [{"register": "ebx", "bitmap": "0bxxxx...0xxx"}]}], "msr_modifiers": [{"addr": "0x10a", "bitmap":
 * "0b..."}], "kvm_capabilities": ["56", "!121"]}. A bitmap is read from its right end: 0 clears a
 * bit, 1 sets it, x (and what a short one leaves out) keeps it; underscores are for the eye. A
 * capability without "!" has to be there; one with it is one we need not look for, and we look for
 * none of them. `flags` says what KVM knows better, so it is only checked to be a number.
 *
 * What the masks mean is vcpu/cpu_template.c's to say; here they only become numbers.
 */
#include "monitor/cpu_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "monitor/base/cleanup.h"

#define FILE_LIMIT (1 << 20) /* bytes; real ones have some KB */
#define KVM_FLAGS  7         /* all there are for a leaf */

/* Digits of @base, all of @s, at most @max. */
static bool digits(const char *s, unsigned base, u64 max, u64 *ret)
{
	u64 v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned d = *s >= '0' && *s <= '9' ? (unsigned)(*s - '0')
			: (*s | 32) >= 'a' && (*s | 32) <= 'f' ? (unsigned)((*s | 32) - 'a') + 10
							       : 16;

		if (d >= base || __builtin_mul_overflow(v, base, &v) ||
		    __builtin_add_overflow(v, d, &v) || v > max)
			return false;
	}
	*ret = v;
	return true;
}

static bool number(const char *s, u32 *ret)
{
	u64 v;
	bool ok = s[0] == '0' && s[1] == 'x' ? digits(s + 2, 16, UINT32_MAX, &v)
		: s[0] == '0' && s[1] == 'b' ? digits(s + 2, 2, UINT32_MAX, &v)
					     : digits(s, 10, UINT32_MAX, &v);

	if (ok)
		*ret = (u32)v;
	return ok;
}

static int bitmap(const char *s, unsigned bits, u64 *ret_care, u64 *ret_value, struct err *e)
{
	u64 care = 0, value = 0;
	unsigned n = 0;

	if (strncmp(s, "0b", 2) != 0)
		return err_set(e, -EINVAL, "bitmap \"%.80s\" does not begin with 0b", s);
	for (const char *p = s + strlen(s) - 1; p > s + 1; p--) {
		if (*p == '_')
			continue;
		if (*p != '0' && *p != '1' && *p != 'x')
			return err_set(e, -EINVAL, "bitmap \"%.80s\": a '%c' is none of 0, 1, x", s,
				*p >= ' ' && *p <= '~' ? *p : '?');
		if (n == bits)
			return err_set(e, -EINVAL, "bitmap \"%.80s\" has more than %u bits", s,
				bits);
		care |= (u64)(*p != 'x') << n;
		value |= (u64)(*p == '1') << n;
		n++;
	}
	if (!n)
		return err_set(e, -EINVAL, "bitmap \"%.80s\" is empty", s);
	*ret_care = care;
	*ret_value = value;
	return 0;
}

/* ---- members ---- */

/* Refuses what is not in @known, whose last one is NULL. */
static int only(const json_t *j, const char *const *known, struct err *e)
{
	const char *key;
	json_t *v;

	if (!json_is_object(j))
		return err_set(e, -EINVAL, "is not an object");
	json_object_foreach((json_t *)j, key, v) {
		unsigned i = 0;

		while (known[i] && strcmp(known[i], key) != 0)
			i++;
		if (!known[i])
			return err_set(e, -EINVAL, "\"%.40s\" is not known here", key);
	}
	return 0;
}

static int text(const json_t *j, const char *key, const char **ret, struct err *e)
{
	*ret = json_string_value(json_object_get(j, key));
	return *ret ? 0 : err_set(e, -EINVAL, "%s is missing, or not a string", key);
}

static int text_number(const json_t *j, const char *key, u32 *ret, struct err *e)
{
	const char *s;
	int r = text(j, key, &s, e);

	if (!r && !number(s, ret))
		r = err_set(e, -EINVAL, "%s \"%.40s\" is not a number of 32 bits", key, s);
	return r;
}

/* The member @key as an array, empty where it is absent or null. */
static int list(const json_t *j, const char *key, const json_t **ret, struct err *e)
{
	*ret = json_object_get(j, key);
	if (*ret && !json_is_null(*ret) && !json_is_array(*ret))
		return err_set(e, -EINVAL, "%s is not an array", key);
	return 0;
}

typedef int (*take_fn)(struct cpu_template *t, const json_t *j, struct err *e);

static int each(struct cpu_template *t, const json_t *j, const char *key, size_t max, take_fn take,
	struct err *e)
{
	const json_t *items;
	int r = list(j, key, &items, e);

	if (!r && json_array_size(items) > max)
		r = err_set(e, -E2BIG, "%s: more than %zu", key, max);
	for (size_t i = 0; i < json_array_size(items) && !r; i++) {
		r = take(t, json_array_get(items, i), e);
		if (r)
			err_wrap(e, "%s[%zu]", key, i);
	}
	return r;
}

/* ---- the parts ---- */

static int take_register(struct cpu_leaf_mask *m, const json_t *j, struct err *e)
{
	static const char *const known[] = {"register", "bitmap", NULL};
	static const char *const names[] = {"eax", "ebx", "ecx", "edx"};
	const char *name = NULL, *map = NULL;
	u64 care, value;
	int r = only(j, known, e);

	if (!r)
		r = text(j, "register", &name, e);
	if (!r)
		r = text(j, "bitmap", &map, e);
	if (!r)
		r = bitmap(map, 32, &care, &value, e);
	if (r)
		return r;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		if (m->care[i])
			return err_set(e, -EINVAL, "register %s comes twice", name);
		m->care[i] = (u32)care;
		m->value[i] = (u32)value;
		return 0;
	}
	return err_set(e, -EINVAL, "register \"%.20s\": eax, ebx, ecx or edx", name);
}

static int take_leaf(struct cpu_template *t, const json_t *j, struct err *e)
{
	static const char *const known[] = {"leaf", "subleaf", "flags", "modifiers", NULL};
	struct cpu_leaf_mask *m = &t->leaf[t->leaf_count];
	const json_t *flags = json_object_get(j, "flags"), *regs = NULL;
	int r = only(j, known, e);

	if (!r)
		r = text_number(j, "leaf", &m->leaf, e);
	if (!r)
		r = text_number(j, "subleaf", &m->sub, e);
	if (!r && (!json_is_integer(flags) || json_integer_value(flags) & ~KVM_FLAGS))
		r = err_set(e, -EINVAL, "flags is missing, or not a number from 0 to %d",
			KVM_FLAGS);
	if (!r)
		r = list(j, "modifiers", &regs, e);
	if (!r && !json_is_array(regs))
		r = err_set(e, -EINVAL, "modifiers is missing");
	for (size_t i = 0; i < json_array_size(regs) && !r; i++) {
		r = take_register(m, json_array_get(regs, i), e);
		if (r)
			err_wrap(e, "modifiers[%zu]", i);
	}
	t->leaf_count += !r;
	return r;
}

static int take_msr(struct cpu_template *t, const json_t *j, struct err *e)
{
	static const char *const known[] = {"addr", "bitmap", NULL};
	struct cpu_msr_mask *m = &t->msr[t->msr_count];
	const char *map;
	int r = only(j, known, e);

	if (!r)
		r = text_number(j, "addr", &m->index, e);
	if (!r)
		r = text(j, "bitmap", &map, e);
	if (!r)
		r = bitmap(map, 64, &m->care, &m->value, e);
	t->msr_count += !r;
	return r;
}

static int take_cap(struct cpu_template *t, const json_t *j, struct err *e)
{
	const char *s = json_string_value(j);
	bool unwanted = s && *s == '!';
	u32 cap;

	if (!s || !number(s + unwanted, &cap))
		return err_set(e, -EINVAL, "is not a capability's number, such as \"56\" or "
			"\"!56\"");
	if (!unwanted)
		t->cap[t->cap_count++] = cap;
	return 0;
}

static int refuse(struct cpu_template *t, const json_t *j, struct err *e)
{
	return err_set(e, -ENOTSUP, "is for arm, and this is x86-64");
}

int cpu_config_from_json(struct cpu_template *ret, const json_t *j, struct err *e)
{
	static const char *const known[] = {"kvm_capabilities", "cpuid_modifiers",
		"msr_modifiers", "reg_modifiers", "vcpu_features", NULL};
	struct cpu_template t = {.level = CPU_LEVEL_HOST};
	int r = only(j, known, e);

	if (!r)
		r = each(&t, j, "reg_modifiers", 1000, refuse, e);
	if (!r)
		r = each(&t, j, "vcpu_features", 1000, refuse, e);
	if (!r)
		r = each(&t, j, "cpuid_modifiers", CPU_LEAVES_MAX, take_leaf, e);
	if (!r)
		r = each(&t, j, "msr_modifiers", CPU_MSRS_MAX, take_msr, e);
	if (!r)
		r = each(&t, j, "kvm_capabilities", CPU_CAPS_MAX, take_cap, e);
	if (!r)
		*ret = t;
	return r;
}

/* ---- the option ---- */

static int from_file(struct cpu_template *ret, const char *path, struct err *e)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	json_auto_t *j = NULL;
	json_error_t je;
	struct stat st;

	if (fd < 0 && errno == ENOENT && !strpbrk(path, "/."))
		return err_set(e, -ENOENT, "\"%s\" is none of host, baseline-v2, baseline-v3, and "
			"no file", path);
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "cannot open %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_LIMIT)
		return err_set(e, -EINVAL, "%s is not a file of at most 1 MiB", path);
	j = json_loadfd(fd, JSON_REJECT_DUPLICATES, &je);
	if (!j)
		return err_set(e, -EINVAL, "%s is not JSON: line %d: %s", path, je.line, je.text);
	return cpu_config_from_json(ret, j, e) ? err_wrap(e, "%s", path) : 0;
}

int cpu_option(struct cpu_template *ret, const char *arg, struct err *e)
{
	static const struct {
		const char *name;
		enum cpu_level level;
	} levels[] = {
#define X(id, name) {name, CPU_LEVEL_##id},
		CPU_LEVELS(X)
#undef X
	};

	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++)
		if (strcmp(levels[i].name, arg) == 0) {
			*ret = (struct cpu_template){.level = levels[i].level};
			return 0;
		}
	return from_file(ret, arg, e);
}
