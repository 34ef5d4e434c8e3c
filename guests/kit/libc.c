/* SPDX-License-Identifier: Apache-2.0 */
/* libc.c - memory, strings, numbers and formatted text. */
#include "kit.h"

void *memcpy(void *dst, const void *src, size_t len)
{
	void *d = dst;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(len) : : "memory");
	return dst;
}

void *memmove(void *dst, const void *src, size_t len)
{
	u8 *d = dst;
	const u8 *s = src;

	if ((u64)d - (u64)s >= len)
		return memcpy(dst, src, len);
	/* Byte by byte through a volatile pointer, or the compiler makes this a memmove(). */
	while (len-- > 0)
		((volatile u8 *)d)[len] = s[len];
	return dst;
}

void *memset(void *dst, int byte, size_t len)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(len) : "a"(byte) : "memory");
	return dst;
}

void *memchr(const void *mem, int byte, size_t len)
{
	const u8 *p = mem;

	for (size_t i = 0; i < len; i++) {
		if (p[i] == (u8)byte)
			return (void *)(u64)(p + i);
	}
	return NULL;
}

int memcmp(const void *a, const void *b, size_t len)
{
	const u8 *x = a, *y = b;

	for (size_t i = 0; i < len; i++) {
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	}
	return 0;
}

size_t strlen(const char *s)
{
	size_t len = 0;

	/* Volatile, or the compiler makes this a strlen(). */
	while (((const volatile char *)s)[len])
		len++;
	return len;
}

bool streq(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* The value of a digit in any base; 99 for other characters. */
static unsigned digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 32) >= 'a' && (c | 32) <= 'f')
		return (c | 32) - 'a' + 10;
	return 99;
}

u64 strtoul(const char *s, const char **end, int base)
{
	u64 value = 0;

	if ((base == 0 || base == 16) && s[0] == '0' && (s[1] | 32) == 'x' && digit(s[2]) < 16) {
		s += 2;
		base = 16;
	}
	if (base == 0)
		base = 10;
	while (digit(*s) < (unsigned)base)
		value = value * base + digit(*s++);
	switch (*s) {
	case 'G': value <<= 10; /* fallthrough */
	case 'M': value <<= 10; /* fallthrough */
	case 'K': value <<= 10; s++;
	}
	if (end)
		*end = s;
	return value;
}

/* Output of vsnprintf(): counts everything, keeps what fits. */
struct text {
	char *out;
	size_t cap, len;
};

static void put(struct text *t, char c)
{
	if (t->len + 1 < t->cap)
		t->out[t->len] = c;
	t->len++;
}

static void put_padded(struct text *t, const char *s, size_t len, size_t width, char pad)
{
	for (; width > len; width--)
		put(t, pad);
	for (size_t i = 0; i < len; i++)
		put(t, s[i]);
}

static void put_number(struct text *t, u64 value, unsigned base, bool negative, size_t width,
	char pad)
{
	char digits[24];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	if (negative)
		digits[--at] = '-';
	put_padded(t, digits + at, sizeof(digits) - at, width, pad);
}

/* One conversion, @fmt right after its '%'; returns what follows it. */
static const char *convert(struct text *t, const char *fmt, va_list *ap)
{
	char pad = ' ', c;
	size_t width = 0;
	bool is_long = false;
	const char *s;
	int64_t n;

	if (*fmt == '0')
		pad = *fmt++;
	while (digit(*fmt) < 10)
		width = width * 10 + digit(*fmt++);
	for (; *fmt == 'l' || *fmt == 'z'; fmt++)
		is_long = true;
	switch (*fmt) {
	case 'd':
		n = is_long ? va_arg(*ap, int64_t) : va_arg(*ap, int);
		put_number(t, n < 0 ? -(u64)n : (u64)n, 10, n < 0, width, pad);
		break;
	case 'u':
	case 'x':
		put_number(t, is_long ? va_arg(*ap, u64) : va_arg(*ap, u32), *fmt == 'x' ? 16 : 10,
			false, width, pad);
		break;
	case 's':
		s = va_arg(*ap, const char *);
		put_padded(t, s, strlen(s), width, ' ');
		break;
	case 'c':
		c = (char)va_arg(*ap, int);
		put_padded(t, &c, 1, width, ' ');
		break;
	case '\0':
		return fmt;
	default:
		put(t, *fmt);
	}
	return fmt + 1;
}

int vsnprintf(char *out, size_t cap, const char *fmt, va_list ap)
{
	struct text t = {.out = out, .cap = cap};
	va_list args;

	va_copy(args, ap);
	while (*fmt) {
		char c = *fmt++;

		if (c == '%')
			fmt = convert(&t, fmt, &args);
		else
			put(&t, c);
	}
	va_end(args);
	if (cap)
		out[t.len < cap ? t.len : cap - 1] = '\0';
	return (int)t.len;
}

int snprintf(char *out, size_t cap, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(out, cap, fmt, ap);
	va_end(ap);
	return len;
}
