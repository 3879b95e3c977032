/* Data for training: files, samples, their order. */
#include "train/data.h"

#include <string.h>

enum linnet_code data_new(struct train_data **out, struct linnet_error *e)
{
	struct arena *a = arena_new();

	*out = a ? NEW(a, 1, struct train_data) : NULL;
	if (!*out) {
		arena_free(a);
		return fail_mem(e);
	}
	**out = (struct train_data){ .arena = a, .epoch = -1 };
	return LINNET_OK;
}

void data_free(struct train_data *d)
{
	if (d)
		arena_free(d->arena);
}

static enum linnet_code add(struct train_data *d, const char *name, const struct tensor *t, struct linnet_error *e)
{
	if (data_array(d, name))
		return fail(e, LINNET_EUSAGE, "\"%s\" is given twice", name);
	if (!t->rank || !t->d[0])
		return fail(e, LINNET_ESHAPE, "\"%s\" has no samples along a first axis", name);
	if (d->narray && t->d[0] != d->array[0].t->d[0])
		return fail(e, LINNET_ESHAPE, "\"%s\" has %lld samples; \"%s\" has %lld", name, (long long)t->d[0], d->array[0].name,
		            (long long)d->array[0].t->d[0]);
	if (d->narray == d->cap) {
		struct named_tensor *more;

		d->cap = d->cap ? 2 * d->cap : 8;
		TRY_NEW(more, d->arena, d->cap);
		if (d->narray)
			memcpy(more, d->array, (size_t)d->narray * sizeof *more);
		d->array = more;
	}
	d->array[d->narray++] = (struct named_tensor){ arena_str(d->arena, name), t };
	return d->array[d->narray - 1].name ? LINNET_OK : fail_mem(e);
}

/* Integers of 16 bits without a header. */
static enum linnet_code raw_tokens(struct train_data *d, const char *file, struct linnet_error *e)
{
	struct bytes b;
	struct tensor *t;

	TRY(file_load(d->arena, file, (int64_t)1 << 40, &b, e));
	if (!b.n || b.n % 2)
		return fail(e, LINNET_EFORMAT, b.n ? "%zu bytes are no tokens of 16 bits" : "the file is empty", b.n);
	TRY(tensor_new(d->arena, DT_UINT16, 1, (int64_t[]){ (int64_t)(b.n / 2) }, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put_int(t, i, b.p[2 * i] | b.p[2 * i + 1] << 8);
	d->stream = t;
	return LINNET_OK;
}

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcmp(s + n - k, end);
}

static enum linnet_code add_file(struct train_data *d, const char *name, const char *file, struct linnet_error *e)
{
	struct named_tensor *list;
	int n;

	d->path = d->path ? d->path : arena_str(d->arena, file);
	if (!name && ends_in(file, ".bin"))
		return raw_tokens(d, file, e);
	TRY(data_load(file, DT_UNDEFINED, NULL, d->arena, &list, &n, e));
	if (!n)
		return fail(e, LINNET_EFORMAT, "the file holds no array");
	if (name)
		return n == 1 ? add(d, name, list[0].t, e) : fail(e, LINNET_EUSAGE, "there are %d arrays in the file; one was asked for", n);
	if (n == 1 && !*list[0].name) {
		if (list[0].t->rank != 1 || !dtype_in(list[0].t->dt, INTS))
			return fail(e, LINNET_ESHAPE, "a stream of tokens is integers along one axis; give NAME=FILE for what is an input's");
		if (!list[0].t->n)
			return fail(e, LINNET_EFORMAT, "the file holds no tokens");
		d->stream = list[0].t;
		return LINNET_OK;
	}
	for (int i = 0; i < n; i++)
		TRY(add(d, list[i].name, list[i].t, e));
	return LINNET_OK;
}

enum linnet_code data_add(struct train_data *d, const char *name, const char *file, struct linnet_error *e)
{
	if (d->stream || (d->narray && !name && ends_in(file, ".bin")))
		return err_file(e, fail(e, LINNET_EUSAGE, "a stream of tokens stands alone"), file);
	return err_file(e, add_file(d, name, file, e), file);
}

const struct tensor *data_array(const struct train_data *d, const char *name)
{
	for (int i = 0; i < d->narray; i++)
		if (!strcmp(d->array[i].name, name))
			return d->array[i].t;
	return NULL;
}

enum linnet_code data_samples(const struct train_data *d, int64_t length, int64_t *n, struct linnet_error *e)
{
	if (!d->stream && !d->narray)
		return fail(e, LINNET_EUSAGE, "there is no data");
	*n = d->stream ? (d->stream->n - 1) / length : d->array[0].t->d[0];
	if (*n < 1)
		return err_file(e, fail(e, LINNET_ESHAPE, "%lld tokens are fewer than a window of %lld and the one behind it", (long long)d->stream->n,
		                        (long long)length), d->path);
	return LINNET_OK;
}

/* The order of an epoch: Fisher and Yates. */
static enum linnet_code shuffle(struct train_data *d, uint64_t seed, int64_t epoch, int64_t n, struct linnet_error *e)
{
	struct rng r = { seed ^ (uint64_t)epoch * 0x9e3779b97f4a7c15u };

	if (d->norder != n)
		TRY_NEW(d->order, d->arena, n);
	for (int64_t i = 0; i < n; i++)
		d->order[i] = i;
	for (int64_t i = n - 1; i > 0; i--) {
		int64_t k = (int64_t)rng_below(&r, (uint64_t)i + 1), t = d->order[i];

		d->order[i] = d->order[k];
		d->order[k] = t;
	}
	d->norder = n;
	d->epoch = epoch;
	return LINNET_OK;
}

enum linnet_code data_sample(struct train_data *d, int64_t length, uint64_t seed, bool shuffled, int64_t i, int64_t *at,
                             struct linnet_error *e)
{
	int64_t n, epoch, spare;

	TRY(data_samples(d, length, &n, e));
	epoch = i / n;
	if (shuffled && (d->epoch != epoch || d->norder != n))
		TRY(shuffle(d, seed, epoch, n, e));
	*at = shuffled ? d->order[i % n] : i % n;
	if (!d->stream)
		return LINNET_OK;
	spare = d->stream->n - 1 - n * length;
	*at *= length;
	if (shuffled && spare)
		*at += (int64_t)((seed + (uint64_t)epoch * 0x9e3779b97f4a7c15u) % (uint64_t)(spare + 1));
	return LINNET_OK;
}
