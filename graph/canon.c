/* What a graph computes as a digest of its structure: equal digests, equal functions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"
#include "graph/sha1.h"
#include "ops/base/str.h"

typedef char digest[41];

struct canon {
	struct view w;
	digest *of;                    /* by value */
	const struct tensor **known;   /* contents, where they depend on no input */
	struct arena *s;
};

static enum linnet_code digest_graph(const struct graph *g, const digest *capture, const struct tensor *const *known, digest out,
                                     struct linnet_error *e);

static enum linnet_code seal(struct str *text, digest out, struct linnet_error *e)
{
	const char *s = str_done(text);

	if (!s)
		return fail_mem(e);
	sha1_hex(s, strlen(s), out);
	return LINNET_OK;
}

static void add_shape(struct str *text, const struct tensor *t)
{
	str_addf(text, "%s", dtype_name(t->dt));
	for (int i = 0; i < t->rank; i++)
		str_addf(text, ",%lld", (long long)t->d[i]);
}

static enum linnet_code digest_tensor(const struct tensor *t, struct arena *s, digest out, struct linnet_error *e)
{
	struct str text;
	digest data;

	str_init(&text, s);
	str_add(&text, "tensor ");
	add_shape(&text, t);
	if (t->dt == DT_STRING) {
		const struct text *p = t->data;

		for (int64_t i = 0; i < t->n; i++) {
			sha1_hex(p[i].p, p[i].n, data);
			str_addf(&text, " %s", data);
		}
	} else {
		sha1_hex(t->data, t->bytes, data);
		str_addf(&text, " %s", data);
	}
	return seal(&text, out, e);
}

/* A value whose elements inference knows in terms of lengths. */
static bool add_lengths(const struct canon *c, const struct type *t, struct str *text)
{
	dim d[MAX_SYM];
	int n = t->sym && !t->den ? type_elements(t, d) : -1;

	if (n < 0)
		return false;
	for (int i = 0; i < n; i++)
		if (d[i] == DIM_NONE)
			return false;
	str_addf(text, "lengths %s %d", dtype_name(t->dt), t->shape.rank);
	for (int i = 0; i < n; i++)
		str_addf(text, " %s;", dim_str(c->w.g->dims, d[i], c->s));
	return true;
}

static bool commutes(const struct node *n)
{
	static const char *const ops[] = { "Add", "Mul", "And", "Or", "Xor", "Max", "Min", "Sum", "Mean", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor" };

	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
		if (node_is(n, ops[i]))
			return true;
	return false;
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static enum linnet_code add_attr(struct canon *c, const struct node *n, const struct attr *a, uint32_t *capture, struct str *text,
                                 struct linnet_error *e)
{
	const struct tensor **known;
	digest d, *captured;

	str_addf(text, " %s=", a->name);
	switch (a->kind) {
	case ATTR_INT: str_addf(text, "%lld", (long long)a->i); break;
	case ATTR_FLOAT: str_addf(text, "%a", a->f); break;
	case ATTR_STRING:
		sha1_hex(a->s.p, a->s.n, d);
		str_add(text, d);
		break;
	case ATTR_INTS:
		for (size_t i = 0; i < a->n; i++)
			str_addf(text, "%lld,", (long long)a->ints[i]);
		break;
	case ATTR_FLOATS:
		for (size_t i = 0; i < a->n; i++)
			str_addf(text, "%a,", (double)a->floats[i]);
		break;
	case ATTR_STRINGS:
		for (size_t i = 0; i < a->n; i++) {
			sha1_hex(a->strings[i].p, a->strings[i].n, d);
			str_addf(text, "%s,", d);
		}
		break;
	case ATTR_TENSOR:
		TRY(digest_tensor(a->t, c->s, d, e));
		str_add(text, d);
		break;
	case ATTR_GRAPH:
		TRY_NEW(captured, c->s, a->g->ncapture);
		TRY_NEW(known, c->s, a->g->ncapture);
		for (uint32_t i = 0; i < a->g->ncapture; i++, ++*capture) {
			memcpy(captured[i], c->of[n->in[*capture]], sizeof *captured);
			known[i] = c->known[n->in[*capture]];
		}
		TRY(digest_graph(a->g, (const digest *)captured, known, d, e));
		str_add(text, d);
		break;
	case ATTR_TYPE: str_addf(text, "%d %d", (int)a->type->kind, (int)a->type->dt); break;
	default: str_addf(text, "%p", a->origin); break;
	}
	return LINNET_OK;
}

/* Contents of a node's outputs when all its inputs are known. */
static enum linnet_code evaluate(struct canon *c, const struct node *n, struct linnet_error *e)
{
	struct linnet_error quiet = { 0 };
	const struct tensor **in;
	struct tensor **out;
	bool *wanted;
	enum linnet_code code;

	if (!n->known || !n->op->kernel || n->op->flags & OP_CONTROL || n->op->agree == AGREE_RANDOM)
		return LINNET_OK;
	TRY_NEW(in, c->s, n->nin);
	TRY_NEW(out, c->s, n->nout);
	TRY_NEW(wanted, c->s, n->nout);
	for (uint32_t i = 0; i < n->nin; i++) {
		in[i] = c->known[n->in[i]];
		if (n->in[i] && !in[i])
			return LINNET_OK;
	}
	for (uint32_t i = 0; i < n->nout; i++)
		wanted[i] = n->out[i] != 0;
	code = op_eval(n->op, n->attr, (int)n->nin, in, (int)n->nout, wanted, c->s, out, &quiet);
	for (uint32_t i = 0; !code && i < n->nout; i++)
		if (wanted[i])
			c->known[n->out[i]] = out[i];
	return code == LINNET_EMEM ? fail_mem(e) : LINNET_OK;
}

static enum linnet_code digest_node(struct canon *c, const struct node *n, struct linnet_error *e)
{
	const struct graph *g = c->w.g;
	uint32_t nin = n->nin - n->ncapture, capture = nin;
	struct str text;
	digest *in, d;

	TRY(evaluate(c, n, e));
	TRY_NEW(in, c->s, nin);
	for (uint32_t i = 0; i < nin; i++)
		memcpy(in[i], n->in[i] ? c->of[n->in[i]] : "-", n->in[i] ? sizeof *in : 2);
	if (commutes(n))
		qsort(in, nin, sizeof *in, by_text);
	str_init(&text, c->s);
	str_addf(&text, "%s.%s.%d", n->op->domain ? n->op->domain : "", n->op->name, n->op->since);
	if (n->known && n->op->agree == AGREE_RANDOM)
		str_addf(&text, " %s", n->name);
	for (uint32_t i = 0; i < nin; i++)
		str_addf(&text, " %s", in[i]);
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind != ATTR_NONE)
			TRY(add_attr(c, n, &n->attr[i], &capture, &text, e));
	TRY(seal(&text, d, e));
	for (uint32_t i = 0; i < n->nout; i++) {
		value_id v = n->out[i], same;

		if (!v)
			continue;
		if (g->value[v].type.value && g->value[v].type.kind == KIND_TENSOR)
			c->known[v] = g->value[v].type.value;
		str_init(&text, c->s);
		if (c->known[v]) {
			TRY(digest_tensor(c->known[v], c->s, c->of[v], e));
			continue;
		}
		same = i ? 0 : node_copies(&c->w, n);
		if (same) {
			memcpy(c->of[v], c->of[same], sizeof *c->of);
			continue;
		}
		if (!add_lengths(c, &g->value[v].type, &text))
			str_addf(&text, "output %u of %s", i, d);
		TRY(seal(&text, c->of[v], e));
	}
	return LINNET_OK;
}

static enum linnet_code digest_all(struct canon *c, const digest *capture, const struct tensor *const *known, digest out, struct linnet_error *e)
{
	const struct graph *g = c->w.g;
	uint32_t nformal = g->nin - g->ncapture, n;
	node_id *order;
	struct str text;
	int depth = 0;

	for (const struct graph *o = g->outer; o; o = o->outer)
		depth++;
	TRY_NEW(c->of, c->s, g->nvalue);
	TRY_NEW(c->known, c->s, g->nvalue);
	TRY(graph_uses(g, c->s, &c->w.uses, e));
	TRY(graph_order(g, c->s, &order, &n, e));
	for (uint32_t i = 0; i < g->nin; i++) {
		value_id v = g->in[i];

		str_init(&text, c->s);
		if (g->outer)
			str_addf(&text, "formal %d %u", depth, i);
		else
			str_addf(&text, "input %s", g->value[v].name);
		if (i >= nformal) {
			memcpy(c->of[v], capture[i - nformal], sizeof *c->of);
			c->known[v] = known[i - nformal];
		} else {
			TRY(seal(&text, c->of[v], e));
		}
	}
	for (value_id v = 1; v < g->nvalue; v++)
		if (g->value[v].kind == VALUE_CONST) {
			c->known[v] = g->value[v].type.value;
			TRY(digest_tensor(c->known[v], c->s, c->of[v], e));
		}
	for (uint32_t i = 0; i < n; i++)
		TRY(digest_node(c, &g->node[order[i]], e));
	str_init(&text, c->s);
	for (uint32_t i = 0; i < g->nout; i++)
		str_addf(&text, "%s %s\n", g->outer ? "" : g->value[g->out[i]].name, c->of[g->out[i]]);
	return seal(&text, out, e);
}

static enum linnet_code digest_graph(const struct graph *g, const digest *capture, const struct tensor *const *known, digest out,
                                     struct linnet_error *e)
{
	struct canon c = { .w.g = g, .s = arena_new(), .w.scratch = NULL };
	enum linnet_code code;

	if (!c.s)
		return fail_mem(e);
	c.w.scratch = c.s;
	code = digest_all(&c, capture, known, out, e);
	arena_free(c.s);
	return code;
}

enum linnet_code graph_digest(const struct graph *g, char hex[41], struct linnet_error *e)
{
	return digest_graph(g, NULL, NULL, hex, e);
}
