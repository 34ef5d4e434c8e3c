/* SPDX-License-Identifier: Apache-2.0 */
/* panic.c - see panic.h */
#include "monitor/panic.h"

#include <string.h>

#define PANIC "Kernel panic - not syncing: "

/* Copies the line at @p to @out; returns its length there. */
static size_t copy_line(const char *p, const char *end, char *out, size_t cap)
{
	size_t n = 0;

	for (; p < end && *p != '\n' && n + 1 < cap; p++) {
		if (*p == '\r')
			continue;
		out[n++] = *p >= 0x20 && *p < 0x7f ? *p : '?';
	}
	out[n] = 0;
	return n;
}

/* Past the time that Linux may print first: "[    1.234567] ". */
static const char *skip_time(const char *p, const char *end)
{
	const char *q = p;

	if (q == end || *q++ != '[')
		return p;
	while (q < end && ((*q >= '0' && *q <= '9') || *q == '.' || *q == ' '))
		q++;
	return end - q >= 2 && q[0] == ']' && q[1] == ' ' ? q + 2 : p;
}

bool panic_find(const char *text, size_t len, char *out, size_t cap)
{
	const char *end = text + len, *found = NULL;

	for (const char *p = text; p && p < end;) {
		const char *said = skip_time(p, end);

		if ((size_t)(end - said) >= sizeof(PANIC) - 1 &&
			memcmp(said, PANIC, sizeof(PANIC) - 1) == 0)
			found = said;
		p = memchr(p, '\n', (size_t)(end - p));
		p = p ? p + 1 : NULL;
	}
	if (found)
		copy_line(found, end, out, cap);
	return found;
}

static bool line_is_empty(const char *p, const char *end)
{
	return p == end || *p == '\n' || (*p == '\r' && p + 1 < end && p[1] == '\n');
}

void panic_last_lines(const char *text, size_t len, unsigned lines, char *out, size_t cap)
{
	const char *end = text + len, *from = end;
	size_t used = 0;

	while (from > text && lines) {
		do
			from--;
		while (from > text && from[-1] != '\n');
		lines -= !line_is_empty(from, end);
	}
	out[0] = 0;
	for (const char *p = from; p && p < end && used + 2 < cap;) {
		if (!line_is_empty(p, end)) {
			used += copy_line(p, end, out + used, cap - used - 1);
			out[used++] = '\n';
			out[used] = 0;
		}
		p = memchr(p, '\n', (size_t)(end - p));
		p = p ? p + 1 : NULL;
	}
}
