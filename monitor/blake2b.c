/* SPDX-License-Identifier: Apache-2.0 */
/* blake2b.c - see blake2b.h. Names follow RFC 7693, section 3. */
#include "monitor/blake2b.h"

#include <string.h>

#define BLOCK_LEN 128u
#define ROUNDS    12u

static const u64 iv[8] = {
	0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull, 0xa54ff53a5f1d36f1ull,
	0x510e527fade682d1ull, 0x9b05688c2b3e6c1full, 0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull};

/* Which word of the message each step of a round takes; rounds 10 and 11 are 0 and 1 again. */
static const u8 sigma[10][16] = {
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	{14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
	{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
	{7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
	{9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
	{2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
	{12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
	{13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
	{6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
	{10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline u64 rotr(u64 v, unsigned n)
{
	return v >> n | v << (64 - n);
}

static inline __attribute__((always_inline)) void mix(u64 *v, unsigned a, unsigned b, unsigned c,
	unsigned d, u64 x, u64 y)
{
	v[a] += v[b] + x;
	v[d] = rotr(v[d] ^ v[a], 32);
	v[c] += v[d];
	v[b] = rotr(v[b] ^ v[c], 24);
	v[a] += v[b] + y;
	v[d] = rotr(v[d] ^ v[a], 16);
	v[c] += v[d];
	v[b] = rotr(v[b] ^ v[c], 63);
}

static inline __attribute__((always_inline)) void mix_round(u64 *v, const u64 *m, const u8 *s)
{
	mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
	mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
	mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
	mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
	mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
	mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
	mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
	mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
}

/* One block; @so_far is the bytes hashed with it, fewer than 2^64. */
static void compress(u64 h[8], const u8 *block, u64 so_far, bool last)
{
	u64 v[16], m[16];

	memcpy(m, block, sizeof(m)); /* the host is little-endian, as the hash is */
	memcpy(v, h, sizeof(iv));
	memcpy(v + 8, iv, sizeof(iv));
	v[12] ^= so_far;
	if (last)
		v[14] = ~v[14];
#pragma GCC unroll 12
	for (unsigned r = 0; r < ROUNDS; r++)
		mix_round(v, m, sigma[r % 10]);
	for (unsigned i = 0; i < 8; i++)
		h[i] ^= v[i] ^ v[i + 8];
}

void blake2b(u8 *out, size_t out_len, const void *data, size_t len)
{
	const u8 *p = (const u8 *)data;
	u8 last[BLOCK_LEN] = {0};
	u64 h[8], done = 0;

	must(out_len >= 1 && out_len <= sizeof(h));
	memcpy(h, iv, sizeof(h));
	h[0] ^= 0x01010000 ^ out_len; /* parameter block: no key, no tree */
	for (; len - done > BLOCK_LEN; p += BLOCK_LEN) {
		done += BLOCK_LEN;
		compress(h, p, done, false);
	}
	if (len > done)
		memcpy(last, p, len - done);
	compress(h, last, len, true);
	memcpy(out, h, out_len);
}
