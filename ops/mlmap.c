/*
 * ai.onnx.ml: maps to tensors and back. A map is its keys and its values, two tensors of one dimension.
 *
 * Source: CastMap-1, DictVectorizer-1, ZipMap-1 of ai.onnx.ml. The texts leave open what shape CastMap gives ([1, n] here, as in
 * onnxruntime) and what stands where no key is (0 or the empty string). DictVectorizer gives one dimension, as its text and the reference
 * evaluator have it; onnxruntime gives [1, n].
 */
#include <stdlib.h>
#include <string.h>

#include "ops/kernel.h"

#define ML "ai.onnx.ml"

static enum linnet_code check_key(const struct shape_call *c, enum dtype want)
{
	enum dtype key = c->in[0]->key;

	if (key == want || key == DT_UNDEFINED)
		return LINNET_OK;
	return fail(c->e, LINNET_ETYPE, "the map's keys are %s; expected %s", dtype_name(key), dtype_name(want));
}

/* Which of two attributes is given: exactly one must be. */
static enum linnet_code one_list(const struct op *op, const struct attr *attr, const char *strings, const char *ints,
                                 const struct attr **list, struct linnet_error *e)
{
	const struct attr *s = attr_get(op, attr, strings), *i = attr_get(op, attr, ints);

	if (attr_given(s) == attr_given(i))
		return fail(e, LINNET_EATTR, "%s of \"%s\" and \"%s\" must be given", attr_given(s) ? "only one" : "one", strings, ints);
	*list = attr_given(s) ? s : i;
	return LINNET_OK;
}

static enum dtype list_type(const struct attr *list) { return list->kind == ATTR_STRINGS ? DT_STRING : DT_INT64; }

/* ---- CastMap ---- */

static bool is_word(const struct attr *a, const char *word)
{
	return strlen(word) == a->s.n && !memcmp(a->s.p, word, a->s.n);
}

static enum dtype cast_to(const struct op *op, const struct attr *attr)
{
	const struct attr *a = attr_get(op, attr, "cast_to");

	return is_word(a, "TO_FLOAT") ? DT_FLOAT : is_word(a, "TO_STRING") ? DT_STRING : DT_INT64;
}

static enum linnet_code cast_map_shape(struct shape_call *c)
{
	bool sparse = is_word(attr_get(c->op, c->attr, "map_form"), "SPARSE");
	const struct tensor *map = c->in[0]->value;
	dim n = map ? tensor_member(map, 0)->n : DIM_NONE;

	TRY(check_key(c, DT_INT64));
	c->out[0].dt = cast_to(c->op, c->attr);
	c->out[0].shape = (struct shape){ .rank = 2, .d = { 1, sparse ? attr_get(c->op, c->attr, "max_map")->i : n } };
	return LINNET_OK;
}

struct entry {
	int64_t key, at;
};

static int by_key(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : (x->at > y->at) - (x->at < y->at);
}

/* The values as Cast would have them. */
static enum linnet_code cast_values(struct kernel_call *c, const struct tensor *values, enum dtype to, struct tensor **out)
{
	const struct op *cast = op_newest(NULL, "Cast");
	const struct attr given = { .name = "to", .kind = ATTR_INT, .i = to };
	struct attr *attr;

	TRY(op_attrs(cast, &given, 1, c->scratch, &attr, c->e));
	return op_eval(cast, attr, 1, &values, 1, &(const bool){ true }, c->scratch, out, c->e);
}

static enum linnet_code cast_map_kernel(struct kernel_call *c)
{
	const struct tensor *keys = tensor_member(c->in[0], 0);
	bool sparse = is_word(attr_get(c->op, c->attr, "map_form"), "SPARSE");
	struct linnet_error *e = c->e;
	struct tensor *values;
	struct entry *entry;

	TRY(cast_values(c, tensor_member(c->in[0], 1), c->out[0]->dt, &values));
	TRY_NEW(entry, c->scratch, keys->n);
	for (int64_t i = 0; i < keys->n; i++)
		entry[i] = (struct entry){ tensor_get_int(keys, i), i };
	if (keys->n)
		qsort(entry, (size_t)keys->n, sizeof *entry, by_key);
	for (int64_t i = 0; i < c->out[0]->n && sparse; i++)
		element_zero(c->out[0], i);
	for (int64_t i = 0; i < keys->n; i++) {
		if (sparse && (entry[i].key < 0 || entry[i].key >= c->out[0]->n))
			return fail(e, LINNET_EVALUE, "key %lld is not in [0, %lld]", (long long)entry[i].key, (long long)c->out[0]->n - 1);
		element_copy(c->out[0], sparse ? entry[i].key : i, values, entry[i].at);
	}
	return LINNET_OK;
}

/* ---- DictVectorizer ---- */

static enum linnet_code vectorizer_shape(struct shape_call *c)
{
	const struct type *t = c->in[0];
	const struct attr *list;

	TRY(one_list(c->op, c->attr, "string_vocabulary", "int64_vocabulary", &list, c->e));
	TRY(check_key(c, list_type(list)));
	if (t->dt != DT_UNDEFINED && t->dt == t->key)
		return fail(c->e, LINNET_ETYPE, "a map from %s to %s is not admitted", dtype_name(t->key), dtype_name(t->dt));
	c->out[0].shape = (struct shape){ .rank = 1, .d = { (int64_t)list->n } };
	return LINNET_OK;
}

/* The position of a key in the vocabulary, -1 when it is not there. */
static int64_t find_word(const struct attr *list, const struct tensor *keys, int64_t i)
{
	const struct text *s = keys->dt == DT_STRING ? (const struct text *)keys->data + i : NULL;

	for (size_t k = 0; k < list->n; k++)
		if (s ? s->n == list->strings[k].n && (!s->n || !memcmp(s->p, list->strings[k].p, s->n))
		      : tensor_get_int(keys, i) == list->ints[k])
			return (int64_t)k;
	return -1;
}

static enum linnet_code vectorizer_kernel(struct kernel_call *c)
{
	const struct tensor *keys = tensor_member(c->in[0], 0), *values = tensor_member(c->in[0], 1);
	const struct attr *list;

	TRY(one_list(c->op, c->attr, "string_vocabulary", "int64_vocabulary", &list, c->e));
	for (int64_t i = 0; i < c->out[0]->n; i++)
		element_zero(c->out[0], i);
	for (int64_t i = 0; i < keys->n; i++) {
		int64_t at = find_word(list, keys, i);

		if (at < 0)
			return fail(c->e, LINNET_EVALUE, "key number %lld of the map is not in the vocabulary", (long long)i);
		element_copy(c->out[0], at, values, i);
	}
	return LINNET_OK;
}

/* ---- ZipMap ---- */

static enum linnet_code zip_map_shape(struct shape_call *c)
{
	const struct shape *s = &c->in[0]->shape;
	const struct attr *list;

	TRY(one_list(c->op, c->attr, "classlabels_strings", "classlabels_int64s", &list, c->e));
	c->out[0].dt = DT_FLOAT;
	c->out[0].key = list_type(list);
	TRY(rank_check(c, 0, 1, 2));
	return s->rank < 0 ? LINNET_OK : length_join(c, "numbers of columns and labels", s->d[s->rank - 1], (int64_t)list->n, NULL);
}

static enum linnet_code zip_map_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t rows = x->rank == 2 ? x->d[0] : 1, columns = x->d[x->rank - 1];
	struct tensor **map, **member, *keys;
	const struct attr *list;

	TRY(one_list(c->op, c->attr, "classlabels_strings", "classlabels_int64s", &list, c->e));
	TRY(tensor_wrap(c->scratch, list_type(list), 1, &columns,
	                list->kind == ATTR_STRINGS ? (const void *)list->strings : (const void *)list->ints, &keys, c->e));
	TRY(give_members(c, 0, rows, &map));
	for (int64_t i = 0; i < rows; i++) {
		TRY(members_new(c->scratch, KIND_MAP, x->dt, 2, &map[i], c->e));
		map[i]->key = keys->dt;
		member = map[i]->data;
		member[0] = keys;
		TRY(tensor_wrap(c->scratch, x->dt, 1, &columns, (const float *)x->data + i * columns, &member[1], c->e));
	}
	return LINNET_OK;
}

static const struct op rows[] = {
	{
		.domain = ML, .name = "CastMap", .since = 1,
		.doc = "A map's values as a row of a tensor: in the order of their keys, or each in the column its key says.",
		.in = IN({ "X", T, .kinds = KIND(MAP) }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "cast_to", .kind = ATTR_STRING, .s = "TO_FLOAT", .oneof = "TO_FLOAT|TO_STRING|TO_INT64" },
		              { .name = "map_form", .kind = ATTR_STRING, .s = "DENSE", .oneof = "DENSE|SPARSE" },
		              { .name = "max_map", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = INT32_MAX }),
		.types = { [T] = SET(FLOAT) | SET(STRING), [T1] = SET(FLOAT) | SET(STRING) | SET(INT64) },
		.agree = AGREE_BITS,
		.shape = cast_map_shape, .kernel = cast_map_kernel,
	},
	{
		.domain = ML, .name = "DictVectorizer", .since = 1,
		.doc = "A map's values, each where its key stands in the vocabulary, and zeros for words that are no keys.",
		.in = IN({ "X", T, .kinds = KIND(MAP) }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "string_vocabulary", .kind = ATTR_STRINGS, .flags = OPTIONAL },
		              { .name = "int64_vocabulary", .kind = ATTR_INTS, .flags = OPTIONAL }),
		.types = { [T] = SET(INT64) | SET(STRING) | SET(FLOAT) | SET(DOUBLE) },
		.agree = AGREE_BITS,
		.shape = vectorizer_shape, .kernel = vectorizer_kernel,
	},
	{
		.domain = ML, .name = "ZipMap", .since = 1,
		.doc = "A map for each row of the input: from the labels to what is in their columns.",
		.in = IN({ "X", T }),
		.out = OUT({ "Z", T, .kinds = KIND(SEQUENCE_MAP) }),
		.attr = ATTRS({ .name = "classlabels_strings", .kind = ATTR_STRINGS, .flags = OPTIONAL },
		              { .name = "classlabels_int64s", .kind = ATTR_INTS, .flags = OPTIONAL }),
		.types = { [T] = SET(FLOAT) },
		.agree = AGREE_BITS,
		.shape = zip_map_shape, .kernel = zip_map_kernel,
	},
};

const struct op_family mlmap_ops = FAMILY("mlmap", rows);
