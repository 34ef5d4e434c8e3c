/* SPDX-License-Identifier: Apache-2.0 */
/* limit_spec.c - rate limits as options, as JSON of ours, and as Firecracker's RateLimiter. */
#include <errno.h>
#include <string.h>

#include "monitor/dev_spec.h"

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull

struct limit_rate limit_of(u64 rate, u64 burst_ns)
{
	struct limit_rate l = {0};
	unsigned __int128 size;

	if (!rate)
		return l;
	/* What can be saved up is the bucket: of one token at least, and of no more than JSON has
	 * numbers for. */
	size = (unsigned __int128)rate * burst_ns / NS_PER_S;
	l.size = !size ? 1 : size > INT64_MAX ? INT64_MAX : (u64)size;
	l.refill_ns = (u64)((unsigned __int128)l.size * NS_PER_S / rate);
	if (!l.refill_ns)
		l.refill_ns = 1;
	return l;
}

static json_t *rate_to_json(const struct limit_rate *r)
{
	return json_pack("{s:I, s:I, s:I}", "size", (json_int_t)r->size, "refill_ns",
		(json_int_t)r->refill_ns, "burst", (json_int_t)r->burst);
}

json_t *limit_to_json(const struct limit_config *l)
{
	return json_pack("{s:o, s:o}", "ops", rate_to_json(&l->ops), "bytes",
		rate_to_json(&l->bytes));
}

static int rate_from_json(struct limit_rate *r, json_t *j, struct err *e)
{
	json_int_t size, refill, burst;
	json_error_t je;

	if (json_unpack_ex(j, &je, 0, "{s:I, s:I, s:I}", "size", &size, "refill_ns", &refill,
		    "burst", &burst))
		return err_set(e, -EINVAL, "limit: %s", je.text);
	if (size < 0 || refill < 0 || burst < 0 || (size && !refill))
		return err_set(e, -EINVAL, "limit: no rate");
	*r = (struct limit_rate){(u64)size, (u64)refill, (u64)burst};
	return 0;
}

int limit_from_json(struct limit_config *l, json_t *j, struct err *e)
{
	int r = rate_from_json(&l->ops, json_object_get(j, "ops"), e);

	return r ? r : rate_from_json(&l->bytes, json_object_get(j, "bytes"), e);
}

static json_t *bucket(const struct limit_rate *r)
{
	json_t *j;

	if (!r->size)
		return json_null();
	j = json_pack("{s:I, s:I}", "size", (json_int_t)r->size, "refill_time",
		(json_int_t)((r->refill_ns + NS_PER_MS - 1) / NS_PER_MS));
	if (r->burst)
		json_object_set_new(j, "one_time_burst", json_integer((json_int_t)r->burst));
	return j;
}

json_t *limit_to_limiter(const struct limit_config *l)
{
	if (!l->ops.size && !l->bytes.size)
		return NULL;
	return json_pack("{s:o, s:o}", "bandwidth", bucket(&l->bytes), "ops", bucket(&l->ops));
}

static int rate_from_bucket(struct limit_rate *r, const json_t *limiter, const char *key,
	struct err *e)
{
	json_t *j = json_object_get(limiter, key);
	json_int_t size, refill, burst = 0;
	json_error_t je;

	*r = (struct limit_rate){0}; /* no limit */
	if (!j || json_is_null(j))
		return 0;
	if (json_unpack_ex(j, &je, JSON_STRICT, "{s:I, s:I, s?I}", "size", &size, "refill_time",
		    &refill, "one_time_burst", &burst))
		return err_set(e, -EINVAL, "%s: %s", key, je.text);
	if (size < 0 || refill < 0 || burst < 0 || refill > INT64_MAX / (json_int_t)NS_PER_MS)
		return err_set(e, -EINVAL, "%s: a number is out of range", key);
	if (size && refill) /* either 0: no limit */
		*r = (struct limit_rate){(u64)size, (u64)refill * NS_PER_MS, (u64)burst};
	return 0;
}

int limit_from_limiter(struct limit_config *l, const json_t *j, struct err *e)
{
	const char *key;
	json_t *value;
	int r;

	if (!j || json_is_null(j)) {
		*l = (struct limit_config){0};
		return 0;
	}
	if (!json_is_object(j))
		return err_set(e, -EINVAL, "expected an object");
	json_object_foreach((json_t *)(uintptr_t)j, key, value)
		if (strcmp(key, "bandwidth") && strcmp(key, "ops"))
			return err_set(e, -EINVAL,
				"unknown field `%.40s`, expected `bandwidth` or `ops`", key);
	r = rate_from_bucket(&l->bytes, j, "bandwidth", e);
	return r ? r : rate_from_bucket(&l->ops, j, "ops", e);
}
