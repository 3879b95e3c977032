/* Data for training: files and folders, samples, their order. */
#include "train/data.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum linnet_code data_new(struct train_data **out, struct linnet_error *e)
{
	struct arena *a = arena_new();

	*out = a ? NEW(a, 1, struct train_data) : NULL;
	if (!*out) {
		arena_free(a);
		return fail_mem(e);
	}
	**out = (struct train_data){ .arena = a, .epoch = -1, .shards = 1 };
	return LINNET_OK;
}

void data_free(struct train_data *d)
{
	if (d)
		arena_free(d->arena);
}

/* ---- Series ---- */

static enum linnet_code append(struct train_data *d, struct series *s, const struct tensor *t, const char *path, struct linnet_error *e)
{
	s->part = arena_grow(d->arena, s->part, (uint32_t)s->npart, 1, &s->cap, sizeof *s->part);
	if (!s->part)
		return fail_mem(e);
	s->part[s->npart++] = (struct part){ t, s->n, path };
	s->n += t->d[0];
	return LINNET_OK;
}

const struct part *series_part(const struct series *s, int64_t i)
{
	int low = 0, high = s->npart - 1;

	while (low < high) {
		int mid = (low + high + 1) / 2;

		if (s->part[mid].from <= i)
			low = mid;
		else
			high = mid - 1;
	}
	return &s->part[low];
}

static enum linnet_code new_series(struct train_data *d, const char *name, struct series **out, struct linnet_error *e)
{
	d->array = arena_grow(d->arena, d->array, (uint32_t)d->narray, 1, &d->cap, sizeof *d->array);
	if (!d->array)
		return fail_mem(e);
	*out = &d->array[d->narray++];
	**out = (struct series){ .name = arena_str(d->arena, name) };
	return (*out)->name ? LINNET_OK : fail_mem(e);
}

const struct series *data_array(const struct train_data *d, const char *name)
{
	for (int i = 0; i < d->narray; i++)
		if (!strcmp(d->array[i].name, name))
			return &d->array[i];
	return NULL;
}

static enum linnet_code add_array(struct train_data *d, const char *name, const struct tensor *t, const char *path, struct linnet_error *e)
{
	struct series *s = NULL;

	if (!t->rank || !t->d[0])
		return fail(e, LINNET_ESHAPE, "\"%s\" has no samples along a first axis", name);
	for (int i = 0; i < d->narray; i++)
		if (!strcmp(d->array[i].name, name))
			s = &d->array[i];
	if (s) {
		const struct part *first = &s->part[0];

		if (t->dt != first->t->dt || t->rank != first->t->rank || memcmp(t->d + 1, first->t->d + 1, (size_t)(t->rank - 1) * sizeof *t->d))
			return fail(e, LINNET_ESHAPE, "samples of \"%s\" are of another type or shape than those in %s", name, first->path);
	} else {
		TRY(new_series(d, name, &s, e));
	}
	return append(d, s, t, path, e);
}

static enum linnet_code add_tokens(struct train_data *d, const struct tensor *t, const char *path, struct linnet_error *e)
{
	if (t->rank != 1 || !dtype_in(t->dt, INTS))
		return fail(e, LINNET_ESHAPE, "a stream of tokens is integers along one axis; give NAME=FILE for what is an input's");
	if (!t->n)
		return fail(e, LINNET_EFORMAT, "the file holds no tokens");
	return append(d, &d->stream, t, path, e);
}

/* ---- Files and folders ---- */

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcmp(s + n - k, end);
}

/* Integers of 16 bits without a header, where they lie. */
static enum linnet_code raw_tokens(struct train_data *d, const char *file, struct linnet_error *e)
{
	struct bytes b;
	struct tensor *t;

	TRY(file_load(d->arena, file, (int64_t)1 << 46, &b, e));
	if (!b.n || b.n % 2)
		return fail(e, LINNET_EFORMAT, b.n ? "%zu bytes are no tokens of 16 bits" : "the file is empty", b.n);
	TRY(tensor_wrap(d->arena, DT_UINT16, 1, (int64_t[]){ (int64_t)(b.n / 2) }, b.p, &t, e));
	return add_tokens(d, t, file, e);
}

static enum linnet_code add_file(struct train_data *d, const char *name, const char *file, struct linnet_error *e)
{
	struct named_tensor *list;
	struct bytes b;
	int n;

	if (!name && ends_in(file, ".bin"))
		return raw_tokens(d, file, e);
	TRY(file_load(d->arena, file, (int64_t)1 << 46, &b, e));
	if (!b.n)
		return fail(e, LINNET_EFORMAT, "the file is empty");
	if (b.n < 6 || (memcmp(b.p, "\x93NUMPY", 6) && memcmp(b.p, "PK", 2)))
		return fail(e, LINNET_EFORMAT, "neither an .npy nor an .npz file; tokens of 16 bits without header are in .bin files");
	TRY(data_load(file, DT_UNDEFINED, NULL, d->arena, &list, &n, e));
	if (!n)
		return fail(e, LINNET_EFORMAT, "the file holds no array");
	if (name)
		return n == 1 ? add_array(d, name, list[0].t, file, e) : fail(e, LINNET_EUSAGE, "there are %d arrays in the file; one was asked for", n);
	if (n == 1 && !*list[0].name)
		return add_tokens(d, list[0].t, file, e);
	for (int i = 0; i < n; i++) {
		if (list[i].t->rank && list[0].t->rank && list[i].t->d[0] != list[0].t->d[0])
			return fail(e, LINNET_ESHAPE, "\"%s\" has %lld samples; \"%s\" has %lld", list[i].name, (long long)list[i].t->d[0],
			            list[0].name, (long long)list[0].t->d[0]);
		TRY(add_array(d, list[i].name, list[i].t, file, e));
	}
	return LINNET_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The paths of a folder's files of data, sorted by the bytes of their names. */
static enum linnet_code list_folder(struct train_data *d, DIR *dir, const char *folder, const char ***out, int *n, struct linnet_error *e)
{
	const char **list = NULL;
	uint32_t cap = 0;

	*n = 0;
	for (struct dirent *x; (x = readdir(dir));) {
		if (*x->d_name == '.' || (!ends_in(x->d_name, ".npy") && !ends_in(x->d_name, ".npz") && !ends_in(x->d_name, ".bin")))
			continue;
		list = arena_grow(d->arena, list, (uint32_t)*n, 1, &cap, sizeof *list);
		if (!list)
			return fail_mem(e);
		list[*n] = arena_fmt(d->arena, "%s/%s", folder, x->d_name);
		if (!list[(*n)++])
			return fail_mem(e);
	}
	if (!*n)
		return fail(e, LINNET_EFORMAT, "the folder has no .npy, .npz or .bin file");
	qsort(list, (size_t)*n, sizeof *list, by_name);
	*out = list;
	return LINNET_OK;
}

static enum linnet_code add_one(struct train_data *d, const char *name, const char *file, struct linnet_error *e)
{
	TRY(add_file(d, name, file, e));
	return data_is_stream(d) && d->narray ? fail(e, LINNET_EUSAGE, "a stream of tokens stands alone") : LINNET_OK;
}

enum linnet_code data_add(struct train_data *d, const char *name, const char *file, struct linnet_error *e)
{
	const char *own = arena_str(d->arena, file), **list = &own;
	enum linnet_code code;
	struct stat st;
	int n = 1;

	if (!own)
		return fail_mem(e);
	if (!stat(own, &st) && S_ISDIR(st.st_mode)) {
		DIR *dir = opendir(own);

		code = dir ? list_folder(d, dir, own, &list, &n, e) : fail(e, LINNET_EIO, "the folder cannot be read: %s", strerror(errno));
		if (dir)
			closedir(dir);
		if (code)
			return err_file(e, code, own);
	}
	for (int i = 0; i < n; i++)
		TRY(err_file(e, add_one(d, name, list[i], e), list[i]));
	return LINNET_OK;
}

enum linnet_code data_open(const char *const *file, int n, struct train_data **d, struct linnet_error *e)
{
	*d = NULL;
	if (n)
		TRY(data_new(d, e));
	for (int i = 0; i < n; i++) {
		const char *at = strchr(file[i], '=');
		const char *name = at ? arena_strn((*d)->arena, file[i], (size_t)(at - file[i])) : NULL;

		if (at && !name)
			return fail_mem(e);
		TRY(data_add(*d, name, at ? at + 1 : file[i], e));
	}
	return LINNET_OK;
}

/* ---- Samples ---- */

enum linnet_code data_shard(struct train_data *d, int64_t shard, int64_t shards, struct linnet_error *e)
{
	if (shards < 1 || shard < 0 || shard >= shards)
		return fail(e, LINNET_EUSAGE, "shard %lld of %lld: shards are counted from 0", (long long)shard, (long long)shards);
	d->shard = shard;
	d->shards = shards;
	return LINNET_OK;
}

enum linnet_code data_samples(const struct train_data *d, int64_t length, int64_t *n, struct linnet_error *e)
{
	if (!data_is_stream(d) && !d->narray)
		return fail(e, LINNET_EUSAGE, "there is no data");
	for (int i = 1; i < d->narray; i++)
		if (d->array[i].n != d->array[0].n)
			return fail(e, LINNET_ESHAPE, "\"%s\" has %lld samples; \"%s\" has %lld", d->array[i].name, (long long)d->array[i].n,
			            d->array[0].name, (long long)d->array[0].n);
	*n = data_is_stream(d) ? (d->stream.n - 1) / length : d->array[0].n;
	if (*n < 1)
		return err_file(e, fail(e, LINNET_ESHAPE, "%lld tokens are fewer than a window of %lld and the one behind it", (long long)d->stream.n,
		                        (long long)length), d->stream.part[0].path);
	if (*n < d->shards)
		return fail(e, LINNET_ESHAPE, "%lld samples cannot be cut into %lld shards", (long long)*n, (long long)d->shards);
	*n = (*n - d->shard + d->shards - 1) / d->shards;
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
	*at = (shuffled ? d->order[i % n] : i % n) * d->shards + d->shard;
	if (!data_is_stream(d))
		return LINNET_OK;
	spare = (d->stream.n - 1) % length;
	*at *= length;
	if (shuffled && spare)
		*at += (int64_t)((seed + (uint64_t)epoch * 0x9e3779b97f4a7c15u) % (uint64_t)(spare + 1));
	return LINNET_OK;
}

/* ---- Tokens ---- */

void data_tokens(const struct train_data *d, int64_t at, int64_t n, struct tensor *to, int64_t to_at)
{
	const struct part *p = series_part(&d->stream, at);

	for (int64_t i = 0; i < n; i++) {
		while (at + i - p->from >= p->t->n)
			p++;
		tensor_put_int(to, to_at + i, tensor_get_int(p->t, at + i - p->from));
	}
}

enum { BLOCK = 1 << 20 };

/* Whether all of n tokens from `at` on are in [0, vocabulary); those of 16 bits quickly. */
static bool all_in(const struct tensor *t, int64_t at, int64_t n, int64_t vocabulary)
{
	const uint16_t *x = (const uint16_t *)t->data + at;
	unsigned most = 0;

	if (t->dt != DT_UINT16 || (uintptr_t)t->data % 2) {
		for (int64_t i = 0; i < n; i++)
			if (tensor_get_int(t, at + i) < 0 || tensor_get_int(t, at + i) >= vocabulary)
				return false;
		return true;
	}
	for (int64_t i = 0; i < n; i++)
		most = x[i] > most ? x[i] : most;
	return most < vocabulary;
}

enum linnet_code data_check_tokens(const struct train_data *d, int64_t vocabulary, struct linnet_error *e)
{
	for (int k = 0; k < d->stream.npart; k++) {
		const struct part *p = &d->stream.part[k];
		size_t item = dtype_bits(p->t->dt) / 8;

		for (int64_t at = 0; at < p->t->n; at += BLOCK) {
			int64_t n = p->t->n - at < BLOCK ? p->t->n - at : BLOCK;

			if (!all_in(p->t, at, n, vocabulary)) {
				int64_t i = at;

				while (all_in(p->t, i, 1, vocabulary))
					i++;
				return err_file(e, fail(e, LINNET_EVALUE, "token %lld, number %lld, is beyond the vocabulary of %lld",
				                        (long long)tensor_get_int(p->t, i), (long long)i, (long long)vocabulary), p->path);
			}
			file_forget(d->arena, (const char *)p->t->data + (size_t)at * item, (size_t)n * item);
		}
	}
	return LINNET_OK;
}
