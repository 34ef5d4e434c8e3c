/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_mutate.c - changes an input record by record, so that what a change does not touch keeps
 * its meaning. Only in programs with libFuzzer.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

size_t LLVMFuzzerMutate(u8 *data, size_t len, size_t cap);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t cap, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const u8 *a, size_t a_len, const u8 *b, size_t b_len, u8 *out,
	size_t cap, unsigned seed);

static unsigned rnd(unsigned *seed, size_t below)
{
	*seed = *seed * 1103515245u + 12345u;
	return (*seed >> 8) % (unsigned)below;
}

/* A record of random bytes; half of them stay 0, which is the usual case of most decisions. */
static void fresh_record(u8 *rec, unsigned *seed)
{
	for (unsigned i = 0; i < FZ_REC; i++)
		rec[i] = rnd(seed, 2) ? (u8)rnd(seed, 256) : 0;
}

static size_t insert(u8 *data, size_t n, size_t max, unsigned *seed)
{
	size_t at = rnd(seed, n + 1);
	u8 rec[FZ_REC];

	if (n == max)
		return n;
	fresh_record(rec, seed);
	if (n && rnd(seed, 2))
		memcpy(rec, data + rnd(seed, n) * FZ_REC, FZ_REC);
	memmove(data + (at + 1) * FZ_REC, data + at * FZ_REC, (n - at) * FZ_REC);
	memcpy(data + at * FZ_REC, rec, FZ_REC);
	return n + 1;
}

static size_t drop(u8 *data, size_t n, unsigned *seed)
{
	size_t at = rnd(seed, n), count = 1 + rnd(seed, n - at < 8 ? n - at : 8);

	if (n <= count)
		return n;
	memmove(data + at * FZ_REC, data + (at + count) * FZ_REC, (n - at - count) * FZ_REC);
	return n - count;
}

static void swap(u8 *data, size_t n, unsigned *seed)
{
	u8 *a = data + rnd(seed, n) * FZ_REC, *b = data + rnd(seed, n) * FZ_REC, rec[FZ_REC];

	memcpy(rec, a, FZ_REC);
	memmove(a, b, FZ_REC);
	memcpy(b, rec, FZ_REC);
}

/* Lets libFuzzer, which knows what the code compares with, work on one record. */
static void within(u8 *data, size_t n, unsigned *seed)
{
	u8 *at = data + rnd(seed, n) * FZ_REC, rec[FZ_REC];
	size_t len;

	memcpy(rec, at, FZ_REC);
	if (rnd(seed, 3)) {
		rec[rnd(seed, FZ_REC)] = (u8)rnd(seed, 256);
	} else {
		len = LLVMFuzzerMutate(rec, FZ_REC, FZ_REC);
		memset(rec + len, 0, FZ_REC - len);
	}
	memcpy(at, rec, FZ_REC);
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t cap, unsigned seed)
{
	size_t n = len / FZ_REC, max = cap / FZ_REC;

	if (max > FZ_STEPS_MAX)
		max = FZ_STEPS_MAX;
	if (!max)
		return len;
	if (n > max)
		n = max;
	if (!n) {
		memset(data, 0, FZ_REC);
		n = 1;
	}
	for (unsigned times = 1 + rnd(&seed, 3); times--;) {
		switch (rnd(&seed, 8)) {
		case 0:
		case 1:
		case 2:
			n = insert(data, n, max, &seed);
			break;
		case 3:
			n = drop(data, n, &seed);
			break;
		case 4:
			swap(data, n, &seed);
			break;
		default:
			within(data, n, &seed);
		}
	}
	return n * FZ_REC;
}

/* A beginning of one input, then an end of another. */
size_t LLVMFuzzerCustomCrossOver(const u8 *a, size_t a_len, const u8 *b, size_t b_len, u8 *out,
	size_t cap, unsigned seed)
{
	size_t from_a = rnd(&seed, a_len / FZ_REC + 1) * FZ_REC;
	size_t skip_b = rnd(&seed, b_len / FZ_REC + 1) * FZ_REC;
	size_t from_b = b_len - skip_b;

	if (from_a > cap)
		from_a = cap / FZ_REC * FZ_REC;
	if (from_b > cap - from_a)
		from_b = cap - from_a;
	memcpy(out, a, from_a);
	memcpy(out + from_a, b + skip_b, from_b);
	return from_a + from_b;
}
