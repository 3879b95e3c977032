/*
 * Drawn calls of operators with what the reference kernels make of them, one JSON object a line, for comparing with other programs:
 * draw COUNT [NAME ...]: so many calls of every row, or of these operators' rows. The same seeds as the tests over drawn calls have.
 *
 * {"domain", "op", "since", "until": the last opset of the row's semantics (0: open), "attrs": {name: [field of AttributeProto, values]},
 *  "in": [tensor or null, ...], "out": the same, or null with "error"}; a tensor: [number of its element type, [lengths], bytes in hexadecimal or strings]
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/base/str.h"
#include "validate/gen_op.h"

static json_t *text_json(struct text t) { return json_stringn_nocheck(t.n ? t.p : "", t.n); }

static json_t *tensor_json(const struct tensor *t)
{
	json_t *dims = json_array(), *data;

	for (int i = 0; i < t->rank; i++)
		json_array_append_new(dims, json_integer(t->d[i]));
	if (t->dt == DT_STRING) {
		data = json_array();
		for (int64_t i = 0; i < t->n; i++)
			json_array_append_new(data, text_json(((const struct text *)t->data)[i]));
	} else {
		char *hex = malloc(2 * t->bytes + 1);

		if (!hex)
			abort();
		for (size_t i = 0; i < t->bytes; i++)
			snprintf(hex + 2 * i, 3, "%02x", ((const unsigned char *)t->data)[i]);
		hex[2 * t->bytes] = '\0';
		data = json_string(hex);
		free(hex);
	}
	return json_pack("[i, o, o]", (int)t->dt, dims, data);
}

static json_t *attr_json(const struct attr *a)
{
	static const char *const kind[] = { [ATTR_INT] = "i", [ATTR_FLOAT] = "f", [ATTR_STRING] = "s", [ATTR_TENSOR] = "t",
		                            [ATTR_INTS] = "ints", [ATTR_FLOATS] = "floats", [ATTR_STRINGS] = "strings" };
	json_t *list = json_array();

	for (size_t i = 0; i < a->n; i++)
		json_array_append_new(list, a->kind == ATTR_INTS ? json_integer(a->ints[i]) : a->kind == ATTR_FLOATS ? json_real(a->floats[i])
			: a->kind == ATTR_STRINGS ? text_json(a->strings[i]) : json_null());
	switch (a->kind) {
	case ATTR_INT: json_array_append_new(list, json_integer(a->i)); break;
	case ATTR_FLOAT: json_array_append_new(list, json_real(a->f)); break;
	case ATTR_STRING: json_array_append_new(list, text_json(a->s)); break;
	case ATTR_TENSOR: json_array_append_new(list, tensor_json(a->t)); break;
	default: break;
	}
	return json_pack("[s, o]", kind[a->kind], list);
}

/* The last opset before the next row of the operator. */
static int until(const struct op *op)
{
	int n = 0;

	for (const struct op_family *const *g = op_families; *g; g++)
		for (int i = 0; i < (*g)->n; i++) {
			const struct op *q = &(*g)->op[i];

			if (!strcmp(q->name, op->name) && !strcmp(q->domain ? q->domain : "", op->domain ? op->domain : "") && q->since > op->since &&
			    (!n || q->since - 1 < n))
				n = q->since - 1;
		}
	return n;
}

static bool all_tensors(const struct call *c, struct tensor *const *out)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->kind != KIND_TENSOR)
			return false;
	for (int i = 0; i < c->nout; i++)
		if (out[i] && out[i]->kind != KIND_TENSOR)
			return false;
	return true;
}

static void print_call(const struct call *c, struct tensor *const *out, const struct linnet_error *e)
{
	json_t *attrs = json_object(), *in = json_array(), *got = json_array(), *o;

	for (size_t i = 0; i < c->ngiven; i++)
		json_object_set_new(attrs, c->given[i].name, attr_json(&c->given[i]));
	for (int i = 0; i < c->nin; i++)
		json_array_append_new(in, c->in[i] ? tensor_json(c->in[i]) : json_null());
	for (int i = 0; i < c->nout; i++)
		json_array_append_new(got, out[i] ? tensor_json(out[i]) : json_null());
	o = json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:s?}", "domain", c->op->domain ? c->op->domain : "", "op", c->op->name, "since", c->op->since,
	              "until", until(c->op), "attrs", attrs, "in", in, "out", got, "error", e->code ? e->message : NULL);
	if (!o || json_dumpf(o, stdout, JSON_COMPACT))
		abort();
	putchar('\n');
	json_decref(o);
}

static void draw_row(const struct op *op, int count)
{
	/* half of the calls: those that everybody has kernels for */
	const dtype_set usual = SET(FLOAT) | SET(INT64) | SET(INT32) | SET(UINT8) | SET(INT8) | SET(BOOL) | SET(STRING);
	const dtype_set more = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) | SET(INT32) | SET(INT64) | SET(INT8) | SET(UINT8) | SET(BOOL) | SET(STRING);
	struct rng rng = { .state = (uint64_t)op->since };

	for (const char *s = op->name; *s; s++)
		rng.state = rng.state * 31 + (unsigned char)*s;
	for (int n = 0, tries = 0; n < count && tries < 40 * count; tries++) {
		struct call_opt opt = { .types = tries % 2 ? usual : more, .elements = 500, .extreme = tries % 8 == 7 };
		struct tensor *out[CALL_MAX] = { NULL };
		struct arena *a = arena_new();
		struct linnet_error e = { 0 };
		struct call c;

		if (a && !gen_call(op, &opt, &rng, a, &c, &e)) {
			e.code = op_eval(op, c.attr, c.nin, c.in, c.nout, c.wanted, a, out, &e);
			if (all_tensors(&c, out)) {
				print_call(&c, out, &e);
				n++;
			}
		}
		arena_free(a);
	}
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 0;

	if (count < 1) {
		fprintf(stderr, "draw COUNT [NAME ...]\n");
		return 1;
	}
	for (const struct op_family *const *g = op_families; *g; g++)
		for (int i = 0; i < (*g)->n; i++) {
			const struct op *op = &(*g)->op[i];
			bool asked = argc == 2;

			for (int k = 2; k < argc; k++)
				asked |= !strcmp(argv[k], op->name);
			if (asked && !op_is_old(op) && op->kernel && op->agree != AGREE_RANDOM)
				draw_row(op, count);
		}
	return 0;
}
