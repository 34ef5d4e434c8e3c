/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limit.c - see limit.h
 *
 * Theory of operation
 *
 * A bucket's level is exact: besides whole tokens it keeps the fraction of one that the time so
 * far has earned (`frac`, in 1/refill_ns of a token), so that neither many short steps nor one long
 * one give a token too many or too few. Products of two u64 are computed in 128 bits, whatever an
 * operator asks for.
 *
 * Tokens go first, the burst when they run out, debt last. So there is debt only where neither is
 * left, and what is earned pays it back before anything can be taken. A request of n tokens leaves
 * at most n - size of debt, so debt and a full bucket together always fit in a u64. Time that goes
 * backwards earns nothing until it is past where it was.
 */
#include "virtio/limit.h"

typedef unsigned __int128 u128;

static u64 min64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static void bucket_init(struct limit_bucket *b, const struct limit_rate *rate, u64 now_ns)
{
	must(rate->refill_ns || !rate->size);
	*b = (struct limit_bucket){
		.rate = *rate,
		.tokens = rate->size,
		.burst = rate->burst,
		.at_ns = now_ns,
	};
}

void limit_init(struct limit *l, const struct limit_config *cfg, u64 now_ns)
{
	bucket_init(&l->ops, &cfg->ops, now_ns);
	bucket_init(&l->bytes, &cfg->bytes, now_ns);
	l->throttled = 0;
}

bool limit_is_on(const struct limit *l)
{
	return l->ops.rate.size || l->bytes.rate.size;
}

/* Pays debt first; what the bucket cannot hold is lost. Returns what was lost. */
static u64 bucket_add(struct limit_bucket *b, u64 n)
{
	u64 paid = min64(n, b->debt), kept = min64(n - paid, b->rate.size - b->tokens);

	b->debt -= paid;
	b->tokens += kept;
	return n - paid - kept;
}

static void bucket_refill(struct limit_bucket *b, u64 now_ns)
{
	u128 earned;

	if (!b->rate.size || now_ns <= b->at_ns)
		return;
	earned = (u128)(now_ns - b->at_ns) * b->rate.size + b->frac;
	b->frac = (u64)(earned % b->rate.refill_ns);
	earned /= b->rate.refill_ns;
	b->at_ns = now_ns;
	bucket_add(b, earned > UINT64_MAX ? UINT64_MAX : (u64)earned);
	if (b->tokens == b->rate.size)
		b->frac = 0;
}

/* The tokens that must be there before @n can be taken: all, where it is more than there can be. */
static u64 bucket_need(const struct limit_bucket *b, u64 n)
{
	return n > b->burst ? min64(n - b->burst, b->rate.size) : 0;
}

static bool bucket_has(const struct limit_bucket *b, u64 n)
{
	return !b->rate.size || b->tokens >= bucket_need(b, n);
}

static void bucket_take(struct limit_bucket *b, u64 n)
{
	u64 part;

	if (!b->rate.size)
		return;
	part = min64(n, b->tokens);
	b->tokens -= part;
	n -= part;
	part = min64(n, b->burst);
	b->burst -= part;
	b->debt += n - part; /* and was 0, unless this is */
}

bool limit_take(struct limit *l, u64 bytes, u64 now_ns)
{
	bucket_refill(&l->ops, now_ns);
	bucket_refill(&l->bytes, now_ns);
	if (!bucket_has(&l->ops, 1) || !bucket_has(&l->bytes, bytes)) {
		l->throttled++;
		return false;
	}
	bucket_take(&l->ops, 1);
	bucket_take(&l->bytes, bytes);
	return true;
}

static void bucket_give_back(struct limit_bucket *b, u64 n)
{
	if (b->rate.size)
		b->burst += min64(bucket_add(b, n), b->rate.burst - b->burst);
}

void limit_give_back(struct limit *l, u64 bytes)
{
	bucket_give_back(&l->ops, 1);
	bucket_give_back(&l->bytes, bytes);
}

static u64 bucket_ready_ns(const struct limit_bucket *b, u64 n, u64 now_ns)
{
	u128 missing, wait_ns;

	if (bucket_has(b, n))
		return now_ns;
	missing = (u128)(b->debt + bucket_need(b, n) - b->tokens) * b->rate.refill_ns - b->frac;
	wait_ns = missing / b->rate.size + (missing % b->rate.size != 0);
	return wait_ns > UINT64_MAX - b->at_ns ? UINT64_MAX : b->at_ns + (u64)wait_ns;
}

u64 limit_ready_ns(const struct limit *l, u64 bytes, u64 now_ns)
{
	u64 ops_ns = bucket_ready_ns(&l->ops, 1, now_ns);
	u64 bytes_ns = bucket_ready_ns(&l->bytes, bytes, now_ns);

	return ops_ns > bytes_ns ? ops_ns : bytes_ns;
}
