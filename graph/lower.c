/*
 * Making do with older opsets: the converse of what import does with old rows.
 *
 * A graph is in the newest operators. Each node whose row is not the one valid at the wanted opset takes that older row
 * where this says the same (constant inputs become the attributes they once were), or is replaced by its body, whose nodes are
 * treated likewise.
 */
#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

/* Bodies within bodies; more is a body that needs itself. */
enum { MAX_EXPANSION = 16, NCACHE = 64 };

struct lowering {
	const struct opset *opset;
	uint32_t nopset;
	struct arena *scratch;
	struct {
		const struct op *op, *row;
	} cache[NCACHE]; /* rows looked up before */
	bool own;      /* the file's own opsets, so what it has of onnxruntime's in ONNX's domain stays */
	char why[256]; /* what stands against the older row of the node at hand */
	const char *only;  /* not NULL: just the node whose first output has this name (these very bytes) is treated */
	const char *stuck; /* likewise, the node that could not be */
};

static bool version_of(const struct lowering *l, const struct op *op, int64_t *version)
{
	const char *domain = op->domain ? op->domain : "";

	for (uint32_t i = 0; i < l->nopset; i++)
		if (!strcmp(l->opset[i].domain, domain)) {
			*version = l->opset[i].version;
			return true;
		}
	*version = strcmp(domain, "linnet") ? OPSET_NEWEST : 0; /* ours are in no file */
	return !*version;
}

/* The row of op's operator at the wanted opset; NULL when it does not exist there. */
static const struct op *row_of(struct lowering *l, const struct op *op, int64_t version)
{
	size_t at = ((uintptr_t)op / sizeof *op) % NCACHE;

	if (l->cache[at].op != op) {
		l->cache[at].op = op;
		l->cache[at].row = op_find(op->domain, op->name, (int)(version < INT16_MAX ? version : INT16_MAX));
	}
	return l->cache[at].row;
}

/* Whether the node uses nothing of its row that came later than `version`. */
static bool uses_only(struct lowering *l, const struct node *n, int64_t version)
{
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->op->attr[i].since > version && !attr_is_default(&n->op->attr[i], &n->attr[i])) {
			snprintf(l->why, sizeof l->why, "attribute \"%s\" came with opset %d", n->op->attr[i].name, n->op->attr[i].since);
			return false;
		}
	for (uint32_t i = 0; i < n->nin - n->ncapture + n->nout; i++) {
		bool in = i < n->nin - n->ncapture;
		uint32_t k = in ? i : i - (n->nin - n->ncapture);
		const struct op_io *io = in ? op_in(n->op, (int)k) : op_out(n->op, (int)k);

		if (io && io->since > version && (in ? n->in[k] : n->out[k])) {
			snprintf(l->why, sizeof l->why, "%s \"%s\" came with opset %d", in ? "input" : "output", io->name, io->since);
			return false;
		}
	}
	return true;
}

/* Whether the element types of the node's inputs and outputs are among those its operator had at `version`. */
static bool types_fit(struct lowering *l, const struct graph *g, const struct node *n, int64_t version)
{
	uint32_t nin = n->nin - n->ncapture;

	for (uint32_t i = 0; i < nin + n->nout; i++) {
		bool out = i >= nin;
		int k = (int)(out ? i - nin : i), like, since;
		value_id v = out ? n->out[k] : n->in[k];
		const struct type *t = &g->value[v].type;
		char found[64];

		if (!v || t->dt == DT_UNDEFINED)
			continue;
		if (!k && op_type_gone(n->op, t->dt, (int)version)) {
			snprintf(l->why, sizeof l->why, "\"%s\" is %s, which the operator has no more since opset %d", g->value[v].name,
			         dtype_name(t->dt), op_type_gone(n->op, t->dt, (int)version));
			return false;
		}
		since = op_type_since(n->op, out, k, t->dt, (int)version);
		if (!since)
			since = op_kind_since(n->op, out, k, t->kind, (int)version);
		if (!since && op_alike_since(n->op, out, k, (int)version, &like) && g->value[n->in[like]].type.dt != t->dt)
			since = op_alike_since(n->op, out, k, (int)version, &like);
		if (!since)
			continue;
		snprintf(l->why, sizeof l->why, "%s \"%s\" is %s, which the operator has since opset %d", out ? "output" : "input",
		         g->value[v].name, kind_str(t, found, sizeof found), since);
		return false;
	}
	return true;
}

/*
 * onnxruntime's optimizer writes operators of its own into ONNX's domain: SimplifiedLayerNormalization, and LayerNormalization before opset 17.
 * Models that have them run in onnxruntime, where they are faster than their bodies, but are not valid.
 */
static bool of_runtime(const struct op *op, int64_t version)
{
	return !op->domain && (!strcmp(op->name, "SimplifiedLayerNormalization") || (!strcmp(op->name, "LayerNormalization") && version < op->since));
}

/* One that stays as the file has it; rules' nodes have a trail. */
static bool stays(const struct lowering *l, const struct node *n, int64_t version)
{
	return l->own && !n->trail && of_runtime(n->op, version);
}

static const struct tensor *constant(const struct graph *g, value_id v) { return v ? g->value[v].type.value : NULL; }

static struct attr *attr_of(const struct node *n, const char *name)
{
	int i = op_attr_index(n->op, name);

	return i < 0 ? NULL : &n->attr[i];
}

/* ---- What rows cannot say ---- */

/* The node becomes one of another operator, with its first nin inputs. */
static enum linnet_code replace_op(struct graph *g, node_id id, const char *op, uint32_t nin, const struct attr *attr, size_t nattr,
                                   struct linnet_error *e)
{
	struct node *n = &g->node[id];

	n->op = op_newest(NULL, op);
	n->nin = nin;
	n->nattr = (uint32_t)op_nattr(n->op);
	return op_attrs(n->op, attr, nattr, g->arena, &n->attr, e);
}

/* Since opset 18 Split says how many equal pieces it makes; before, it did not say it and the pieces had to be equal. */
static enum linnet_code fix_split(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct attr *count = attr_of(n, "num_outputs");
	const struct type *t = n->nin ? &g->value[n->in[0]].type : NULL;
	int axis;

	(void)l;
	if (version >= 18 || !count || !attr_given(count) || !t || t->shape.rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_of(n, "axis")->i, t->shape.rank, &axis, e));
	if (!count->given || (count->i == n->nout && dim_divides(g->dims, count->i, t->shape.d[axis])))
		*count = (struct attr){ .name = count->name };
	return LINNET_OK;
}

/*
 * A 0 in the shape makes an empty tensor; before opset 14 it could not be said. Without allowzero the node is the same for
 * all other shapes, so only one that is known to hold a 0 stands against it.
 */
static enum linnet_code fix_reshape(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct attr *a = attr_of(n, "allowzero");
	dim d[MAX_SYM];
	int k = n->nin > 1 && n->in[1] ? type_elements(&g->value[n->in[1]].type, d) : -1;

	(void)l;
	(void)e;
	if (!a || version >= 14)
		return LINNET_OK;
	for (int i = 0; i < k; i++)
		if (!d[i])
			return LINNET_OK;
	*a = (struct attr){ .name = a->name, .kind = ATTR_INT };
	return LINNET_OK;
}

/* Before CastLike there was Cast, which says the type. */
static enum linnet_code fix_castlike(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	enum dtype dt = n->nin > 1 && n->in[1] ? g->value[n->in[1]].type.dt : DT_UNDEFINED;
	struct attr to = { .name = "to", .kind = ATTR_INT, .i = dt };

	(void)l;
	if (version >= 15 || dt == DT_UNDEFINED)
		return LINNET_OK;
	return replace_op(g, id, "Cast", 1, &to, 1, e);
}

/* With axes, noop_with_empty_axes says nothing; without them the node is the identity. */
static enum linnet_code fix_reduce(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct attr *noop = attr_of(n, "noop_with_empty_axes");
	const struct type *axes = n->nin > 1 && n->in[1] ? &g->value[n->in[1]].type : NULL;

	(void)l;
	if (version >= n->op->since || !noop || !noop->i || (axes && !axes->value))
		return LINNET_OK;
	if (axes && axes->value->n) {
		*noop = (struct attr){ .name = noop->name, .kind = ATTR_INT };
		return LINNET_OK;
	}
	return replace_op(g, id, "Identity", 1, NULL, 0, e);
}

/* Before opset 13 inputs that do not apply were given, as empty lists. */
static enum linnet_code fix_resize(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct tensor *t;
	value_id *in;

	if (version >= 13 || version < 11 || (n->nin > 2 && n->in[1] && n->in[2]))
		return LINNET_OK;
	TRY_NEW(in, g->arena, n->nin < 3 ? 3 : n->nin);
	memcpy(in, n->in, n->nin * sizeof *in);
	n->in = in;
	n->nin = n->nin < 3 ? 3 : n->nin;
	for (uint32_t i = 1; i < 3; i++) {
		value_id v;

		if (n->in[i])
			continue;
		TRY(tensor_new(g->arena, DT_FLOAT, 1, (int64_t[]){ 0 }, &t, e));
		v = graph_add_const(g, t, op_in(n->op, (int)i)->name);
		if (!v)
			return fail_mem(e);
		n->in[i] = v;
	}
	(void)l;
	return LINNET_OK;
}

/* Before opset 11 Gemm had to have C. */
static enum linnet_code fix_gemm(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	struct node *n = &g->node[id];
	value_id in[3] = { n->in[0], n->in[1] };
	struct tensor *t;

	(void)l;
	if (version >= 11 || (n->nin > 2 && n->in[2]) || g->value[in[0]].type.dt == DT_UNDEFINED)
		return LINNET_OK;
	TRY(tensor_new(g->arena, g->value[in[0]].type.dt, 1, (int64_t[]){ 1 }, &t, e));
	in[2] = graph_add_const(g, t, "C");
	n->in = arena_dup(g->arena, in, sizeof in);
	n->nin = 3;
	return in[2] && n->in ? LINNET_OK : fail_mem(e);
}

/* Max and Min of integers, before opset 12: a chain of comparisons. */
static enum linnet_code fix_extreme(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	const struct node n = g->node[id];
	const char *compare = node_is(&n, "Max") ? "Greater" : "Less";
	value_id best = n.in[0];

	if (version >= 12 || version < 9 || types_fit(l, g, &n, version) || dtype_class(g->value[n.out[0]].type.dt) == CLASS_FLOAT)
		return LINNET_OK;
	if (n.nin == 1)
		return replace_op(g, id, "Identity", 1, NULL, 0, e);
	for (uint32_t i = 1; i < n.nin; i++) {
		value_id in[] = { best, n.in[i] }, pick[] = { 0, best, n.in[i] }, out = i + 1 == n.nin ? n.out[0] : 0;
		node_id made;

		TRY(graph_add_node(g, op_newest(NULL, compare), n.name, in, 2, NULL, 1, NULL, 0, &made, e));
		g->node[made].origin = n.origin;
		TRY(graph_infer_node(g, made, e));
		pick[0] = g->node[made].out[0];
		TRY(graph_add_node(g, op_newest(NULL, "Where"), n.name, pick, 3, out ? &out : NULL, 1, NULL, 0, &made, e));
		g->node[made].origin = n.origin;
		TRY(graph_infer_node(g, made, e));
		best = g->node[made].out[0];
	}
	g->node[id].dead = true;
	return LINNET_OK;
}

/* The node becomes one of its operator's row of opset `since`; attribute `attr` has another value there, `without` is not there. */
static enum linnet_code take_old(struct graph *g, node_id id, int since, const char *attr, const char *value, const char *without,
                                 struct linnet_error *e)
{
	struct node *n = &g->node[id];
	struct attr *a;
	size_t count = 0;

	TRY_NEW(a, g->arena, n->nattr);
	for (uint32_t i = 0; i < n->nattr; i++) {
		if (!n->attr[i].given || !strcmp(n->attr[i].name, without))
			continue;
		a[count] = n->attr[i];
		if (!strcmp(a[count].name, attr))
			a[count].s = (struct text){ value, strlen(value) };
		count++;
	}
	n->op = op_find(n->op->domain, n->op->name, since);
	n->nattr = (uint32_t)op_nattr(n->op);
	return op_attrs(n->op, a, count, g->arena, &n->attr, e);
}

static bool attr_says(const struct attr *a, const char *word)
{
	return a && a->s.n == strlen(word) && !memcmp(a->s.p, word, a->s.n);
}

/* Before opset 20 GridSample was for two axes, and its modes had the names that go with them. */
static enum linnet_code fix_grid_sample(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	const struct node *n = &g->node[id];
	const struct attr *mode = attr_of(n, "mode");

	if (version >= 20 || version < 16 || g->value[n->in[0]].type.shape.rank != 4 || !types_fit(l, g, n, version))
		return LINNET_OK;
	return take_old(g, id, 16, "mode", attr_says(mode, "linear") ? "bilinear" : attr_says(mode, "cubic") ? "bicubic" : "nearest", "", e);
}

/* Before opset 16 RoiAlign did not shift by half an element. */
static enum linnet_code fix_roi_align(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e)
{
	const struct node *n = &g->node[id];

	if (version >= 16 || version < 10 || !attr_says(attr_of(n, "coordinate_transformation_mode"), "output_half_pixel") ||
	    !types_fit(l, g, n, version))
		return LINNET_OK;
	return take_old(g, id, 10, "", "", "coordinate_transformation_mode", e);
}

static const struct {
	const char *op;
	enum linnet_code (*fix)(struct lowering *l, struct graph *g, node_id id, int64_t version, struct linnet_error *e);
} fixes[] = {
	{ "CastLike", fix_castlike }, { "Gemm", fix_gemm },       { "Max", fix_extreme },      { "Min", fix_extreme },
	{ "ReduceL1", fix_reduce },   { "ReduceL2", fix_reduce },  { "ReduceLogSum", fix_reduce }, { "ReduceLogSumExp", fix_reduce },
	{ "ReduceMax", fix_reduce },  { "ReduceMean", fix_reduce }, { "ReduceMin", fix_reduce },    { "ReduceProd", fix_reduce },
	{ "ReduceSum", fix_reduce },  { "ReduceSumSquare", fix_reduce },
	{ "Resize", fix_resize },     { "Split", fix_split },      { "GridSample", fix_grid_sample }, { "RoiAlign", fix_roi_align },
	{ "Reshape", fix_reshape },
};

/* ---- Other element types ---- */

/* Types that came late to many operators, and those that hold the same exactly. */
static const struct {
	enum dtype from, to;
} carriers[] = { { DT_BOOL, DT_INT32 }, { DT_BFLOAT16, DT_FLOAT } };

/* Whether input or output k of the node is of type `from` and has to be `to` at `version`. *ok is false when it cannot be. */
static bool is_carried(const struct graph *g, const struct node *n, bool out, uint32_t k, enum dtype from, enum dtype to, int64_t version, bool *ok)
{
	value_id v = out ? n->out[k] : n->in[k];
	const struct op_io *io = out ? op_out(n->op, (int)k) : op_in(n->op, (int)k);

	if (!v || !io || g->value[v].type.dt != from || !op_type_since(n->op, out, (int)k, from, (int)version))
		return false;
	*ok = *ok && g->value[v].type.kind == KIND_TENSOR && dtype_in(to, n->op->types[io->type]) && !op_type_since(n->op, out, (int)k, to, (int)version);
	return true;
}

static enum linnet_code add_cast(struct graph *g, const struct node *n, value_id v, enum dtype to, value_id *out, struct linnet_error *e)
{
	struct attr attr = { .name = "to", .kind = ATTR_INT, .i = to, .given = true };
	node_id made;

	TRY(graph_add_node(g, op_newest(NULL, "Cast"), n->name, &v, 1, *out ? out : NULL, 1, &attr, 1, &made, e));
	g->node[made].origin = n->origin;
	*out = g->node[made].out[0];
	return graph_infer_node(g, made, e);
}

/* The node between casts, where just an element type came later; *done is false where that does not help. */
static enum linnet_code carry(struct lowering *l, struct graph *g, node_id id, int64_t version, bool *done, struct linnet_error *e)
{
	const struct node n = g->node[id];
	value_id *in, *out;
	node_id made;

	*done = false;
	TRY_NEW(in, l->scratch, n.nin);
	TRY_NEW(out, l->scratch, n.nout);
	for (size_t i = 0; i < sizeof carriers / sizeof *carriers && !*done; i++) {
		enum dtype from = carriers[i].from, to = carriers[i].to;
		bool ok = !n.ncapture && !(n.op->flags & OP_CONTROL) && !op_type_since(op_newest(NULL, "Cast"), false, 0, from, (int)version), any = false;

		for (uint32_t k = 0; k < n.nin; k++)
			any = is_carried(g, &n, false, k, from, to, version, &ok) || any;
		for (uint32_t k = 0; k < n.nout; k++)
			any = is_carried(g, &n, true, k, from, to, version, &ok) || any;
		if (!any || !ok)
			continue;
		memcpy(in, n.in, n.nin * sizeof *in);
		for (uint32_t k = 0; k < n.nin; k++)
			if (is_carried(g, &n, false, k, from, to, version, &ok)) {
				uint32_t first = 0; /* which reads the same value */

				while (n.in[first] != n.in[k])
					first++;
				in[k] = first < k ? in[first] : 0;
				if (!in[k])
					TRY(add_cast(g, &n, n.in[k], to, &in[k], e));
			}
		memcpy(out, n.out, n.nout * sizeof *out);
		for (uint32_t k = 0; k < n.nout; k++)
			if (is_carried(g, &n, true, k, from, to, version, &ok)) {
				out[k] = graph_add_value(g, VALUE_NODE, NULL, g->value[n.out[k]].name);
				if (!out[k])
					return fail_mem(e);
			}
		TRY(graph_add_node(g, n.op, n.name, in, n.nin, out, n.nout, n.attr, n.nattr, &made, e));
		g->node[made].attr = n.attr; /* what was left out still is */
		g->node[made].origin = n.origin;
		TRY(graph_infer_node(g, made, e));
		for (uint32_t k = 0; k < n.nout; k++)
			if (out[k] != n.out[k]) {
				value_id v = n.out[k];

				TRY(add_cast(g, &n, out[k], from, &v, e));
			}
		g->node[id].dead = true;
		*done = true;
	}
	return LINNET_OK;
}

/* ---- Older rows ---- */

/* The contents of a constant as the attribute it once was. */
static enum linnet_code to_attr(struct lowering *l, const struct op_attr *row, const struct tensor *t, struct arena *a,
                                struct attr *out, bool *ok, struct linnet_error *e)
{
	bool one = row->kind == ATTR_INT || row->kind == ATTR_FLOAT, whole = row->kind == ATTR_INT || row->kind == ATTR_INTS;
	int64_t *ints;
	float *floats;

	*ok = dtype_in(t->dt, whole ? INTS : FLOATS) && (one ? t->n == 1 : t->rank == 1);
	if (!*ok) {
		snprintf(l->why, sizeof l->why, "input \"%s\" does not fit the attribute it was then", row->name);
		return LINNET_OK;
	}
	TRY_NEW(ints, a, whole ? t->n : 0);
	TRY_NEW(floats, a, whole ? 0 : t->n);
	for (int64_t i = 0; i < t->n; i++)
		if (whole)
			ints[i] = tensor_get_int(t, i);
		else
			floats[i] = (float)tensor_get(t, i);
	*out = (struct attr){ .name = row->name, .kind = row->kind, .given = true, .n = (size_t)t->n, .ints = ints, .floats = floats };
	if (one) {
		out->n = 0;
		out->i = whole ? ints[0] : 0;
		out->f = whole ? 0 : (double)floats[0];
	}
	return LINNET_OK;
}

/* The attributes of a node as an older row has them; *ok is false when it cannot say them. */
static enum linnet_code old_attrs(struct lowering *l, struct graph *g, const struct node *n, const struct op *row, int64_t version,
                                  struct attr *attr, bool *ok, struct linnet_error *e)
{
	*ok = false;
	for (uint32_t i = 0; i < n->nattr; i++) {
		int at = op_attr_index(row, n->attr[i].name);

		if (at >= 0 && row->attr[at].since <= version) {
			attr[at] = n->attr[i];
			attr[at].given |= !attr_is_default(&row->attr[at], &attr[at]);
		} else if (!attr_is_default(&n->op->attr[i], &n->attr[i])) {
			snprintf(l->why, sizeof l->why, "attribute \"%s\" came later", n->attr[i].name);
			return LINNET_OK;
		}
	}
	for (int i = 0; row->attr && row->attr[i].name; i++) {
		const struct op_attr *a = &row->attr[i];
		value_id v = a->input && a->input < n->nin ? n->in[a->input] : 0;

		attr[i].name = a->name;
		if (!v)
			continue;
		if (!constant(g, v)) {
			snprintf(l->why, sizeof l->why, "input \"%s\" has to be constant there", op_in(n->op, a->input)->name);
			return LINNET_OK;
		}
		TRY(to_attr(l, a, constant(g, v), g->arena, &attr[i], ok, e));
		if (!*ok)
			return LINNET_OK;
	}
	*ok = true;
	return LINNET_OK;
}

static bool is_attr(const struct op *row, uint32_t input)
{
	for (const struct op_attr *a = row->attr; a && a->name; a++)
		if (a->input && a->input == input)
			return true;
	return false;
}

/* The inputs of a node as an older row has them. */
static bool old_inputs(struct lowering *l, struct node *n, const struct op *row, int64_t version)
{
	uint32_t nin = 0;

	for (uint32_t i = 0; i < n->nin; i++) {
		const struct op_io *io = op_in(row, (int)i);

		if (!n->in[i] || is_attr(row, i))
			continue;
		if (!io || io->since > version) {
			const struct op_io *mine = op_in(n->op, (int)i);

			snprintf(l->why, sizeof l->why, "input \"%s\" came later", mine ? mine->name : "");
			return false;
		}
		nin = i + 1;
	}
	for (uint32_t i = 0; i < nin; i++)
		if (is_attr(row, i))
			n->in[i] = 0;
	n->nin = nin;
	return true;
}

/* The node in the words of an older row, where that is possible. */
static enum linnet_code take_row(struct lowering *l, struct graph *g, node_id id, const struct op *row, int64_t version, bool *done,
                                 struct linnet_error *e)
{
	struct node *n = &g->node[id];
	const struct type **in;
	struct attr *attr;

	*done = false;
	TRY_NEW(in, l->scratch, n->nin);
	for (uint32_t i = 0; i < n->nin; i++)
		in[i] = n->in[i] ? &g->value[n->in[i]].type : NULL;
	if (n->ncapture || row->flags & OP_CONTROL || ((row->lower || row->write_lower) && !row->same) ||
	    (row->same && !row->same(n->op, n->attr, (int)n->nin, in))) {
		snprintf(l->why, sizeof l->why, "the version of opset %d computes something else", row->since);
		return LINNET_OK;
	}
	TRY_NEW(attr, g->arena, op_nattr(row));
	TRY(old_attrs(l, g, n, row, version, attr, done, e));
	*done = *done && old_inputs(l, n, row, version);
	if (!*done)
		return LINNET_OK;
	n->op = row;
	n->attr = attr;
	n->nattr = (uint32_t)op_nattr(row);
	return LINNET_OK;
}

/* ---- Bodies ---- */

static enum linnet_code lower_nodes(struct lowering *l, struct graph *g, node_id from, int depth, struct linnet_error *e);

static const char *first_output(const struct graph *g, const struct node *n)
{
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i])
			return g->value[n->out[i]].name;
	return "";
}

/* A node that inference has evaluated becomes constants. */
static void fold(struct graph *g, node_id id)
{
	struct node *n = &g->node[id];

	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && !g->value[n->out[i]].type.value)
			return;
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i]) {
			g->value[n->out[i]].kind = VALUE_CONST;
			g->value[n->out[i]].producer = 0;
			g->value[n->out[i]].origin = NULL;
		}
	n->dead = true;
}

static enum linnet_code expand(struct lowering *l, struct graph *g, node_id id, int depth, struct linnet_error *e)
{
	const struct node *n = &g->node[id];
	node_id first = g->nnode;

	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] && g->value[n->in[i]].type.kind != KIND_TENSOR)
			return fail(e, LINNET_EUNSUPPORTED, "input %u is no tensor, and the opset asked for does not have the operator as "
			            "it is", i);
	if (depth == MAX_EXPANSION)
		return fail(e, LINNET_EINTERNAL, "the operator's body needs the operator");
	TRY(graph_expand(g, id, e));
	for (node_id i = first; i < g->nnode; i++) {
		TRY(graph_infer_node(g, i, e));
		fold(g, i);
	}
	return lower_nodes(l, g, first, depth + 1, e);
}

static enum linnet_code lower_node(struct lowering *l, struct graph *g, node_id id, int depth, struct linnet_error *e)
{
	const struct op *op = g->node[id].op, *row;
	const char *domain = op->domain ? op->domain : "ai.onnx";
	node_id first = g->nnode;
	int64_t version;
	bool done;

	for (uint32_t i = 0; i < g->node[id].nattr; i++)
		if (g->node[id].attr[i].kind == ATTR_GRAPH)
			TRY(lower_nodes(l, g->node[id].attr[i].g, 1, depth, e));
	if (!version_of(l, op, &version) || (l->only && !depth && first_output(g, &g->node[id]) != l->only))
		return LINNET_OK;
	if (!depth && stays(l, &g->node[id], version))
		return LINNET_OK;
	if (!g->node[id].known)
		return op->since == version ? LINNET_OK
		                            : fail(e, LINNET_EUNSUPPORTED, "the operator is unknown, so it stays at opset %d of %s; %lld was "
		                                   "asked for", op->since, domain, (long long)version);
	for (size_t i = 0; i < sizeof fixes / sizeof *fixes; i++)
		if (node_is(&g->node[id], fixes[i].op))
			TRY(fixes[i].fix(l, g, id, version, e));
	if (g->node[id].dead)
		return lower_nodes(l, g, first, depth + 1, e);
	*l->why = '\0';
	op = g->node[id].op;
	row = types_fit(l, g, &g->node[id], version) && !of_runtime(op, version) ? row_of(l, op, version) : NULL;
	if (row == op && uses_only(l, &g->node[id], version))
		return LINNET_OK;
	if (row && row != op) {
		TRY(take_row(l, g, id, row, version, &done, e));
		if (done)
			return LINNET_OK;
	}
	if (op_has_body(op))
		return expand(l, g, id, depth, e);
	if (!row) {
		TRY(carry(l, g, id, version, &done, e));
		if (done)
			return lower_nodes(l, g, first, depth + 1, e);
	}
	if (*l->why)
		return fail(e, LINNET_EUNSUPPORTED, "the node cannot be said at opset %lld of %s: %s", (long long)version, domain, l->why);
	return fail(e, LINNET_EUNSUPPORTED, "the operator needs opset %d of %s; %lld was asked for", op->since, domain,
	            (long long)version);
}

static enum linnet_code lower_nodes(struct lowering *l, struct graph *g, node_id from, int depth, struct linnet_error *e)
{
	node_id end = g->nnode; /* expand() sees to those it adds */

	for (node_id i = from; i < end; i++) {
		const char *name = node_label(g, &g->node[i]), *op = g->node[i].op->name;

		const char *out = first_output(g, &g->node[i]);
		enum linnet_code code = g->node[i].dead ? LINNET_OK : lower_node(l, g, i, depth, e);

		if (code && !depth && !l->stuck)
			l->stuck = out;
		TRY(err_node(e, code, name, op));
	}
	return LINNET_OK;
}

/* Bodies carry values by Identity; where that gives nothing a name it goes. */
static enum linnet_code drop_identities(struct graph *g, node_id from, struct arena *s, struct linnet_error *e)
{
	struct uses u;

	TRY(graph_uses(g, s, &u, e));
	for (node_id id = from; id < g->nnode; id++) {
		const struct node *n = &g->node[id];

		if (node_is(n, "Identity") && n->out[0] && !graph_is_output(g, n->out[0]))
			TRY(graph_replace(g, &u, n->out[0], n->in[0], e));
	}
	return LINNET_OK;
}

enum linnet_code graph_lower(struct graph *g, const struct opset *opset, uint32_t nopset, bool own, const char **stuck, struct linnet_error *e)
{
	struct lowering l = { .opset = opset, .nopset = nopset, .own = own, .scratch = arena_new() };
	node_id first = g->nnode;
	enum linnet_code code = l.scratch ? lower_nodes(&l, g, 1, 0, e) : fail_mem(e);

	if (!code)
		code = drop_identities(g, first, l.scratch, e);
	if (!code)
		code = graph_compact(g, l.scratch, e);
	arena_free(l.scratch);
	*stuck = l.stuck;
	return code;
}

static enum linnet_code can_say(const struct graph *g, const struct opset *opset, uint32_t nopset, const char *only, bool *can,
                                struct linnet_error *e)
{
	struct linnet_error ignored = { 0 };
	struct lowering l = { .opset = opset, .nopset = nopset, .scratch = arena_new(), .only = only };
	struct graph *copy;
	enum linnet_code code = l.scratch ? graph_copy(g, l.scratch, &copy, &ignored) : LINNET_EMEM;

	if (!code)
		code = lower_nodes(&l, copy, 1, 0, &ignored);
	*can = !code;
	arena_free(l.scratch);
	return code == LINNET_EMEM ? fail_mem(e) : LINNET_OK;
}

enum linnet_code graph_lowest(const struct graph *g, const struct opset *opset, uint32_t nopset, const char *stuck, int *lowest,
                              struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct opset *list = a ? arena_dup(a, opset, nopset * sizeof *opset) : NULL, *onnx = NULL;

	enum linnet_code code = list ? LINNET_OK : fail_mem(e);

	*lowest = 0;
	for (uint32_t i = 0; list && i < nopset; i++)
		if (!*list[i].domain)
			onnx = &list[i];
	for (int v = onnx ? (int)onnx->version + 1 : OPSET_NEWEST + 1; !code && v <= OPSET_NEWEST && !*lowest; v++) {
		bool can = false;

		onnx->version = v;
		code = can_say(g, list, nopset, stuck, &can, e);
		*lowest = can ? v : 0;
	}
	arena_free(a);
	return code;
}

/* ---- Primitive operators ---- */

static enum linnet_code primitive_nodes(struct graph *g, node_id from, int depth, uint32_t *count, struct linnet_error *e)
{
	node_id end = g->nnode;

	for (node_id id = from; id < end; id++) {
		const struct node *n = &g->node[id];
		node_id first = g->nnode;

		for (uint32_t i = 0; !n->dead && i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				TRY(primitive_nodes(n->attr[i].g, 1, depth, count, e));
		if (n->dead || !n->known || !op_is_function(n->op))
			continue;
		if (node_is(n, "CastLike")) {
			TRY(fix_castlike(NULL, g, id, 0, e));
			TRY(graph_infer_node(g, id, e));
			fold(g, id);
			++*count;
			continue;
		}
		if (!op_has_body(n->op))
			continue;
		if (depth == MAX_EXPANSION)
			return err_node(e, fail(e, LINNET_EINTERNAL, "the operator's body needs the operator"), node_label(g, n), n->op->name);
		TRY(err_node(e, graph_expand(g, id, e), node_label(g, n), n->op->name));
		for (node_id i = first; i < g->nnode; i++) {
			TRY(graph_infer_node(g, i, e));
			fold(g, i);
		}
		++*count;
		TRY(primitive_nodes(g, first, depth + 1, count, e));
	}
	return LINNET_OK;
}

enum linnet_code graph_primitive(struct graph *g, uint32_t *count, struct linnet_error *e)
{
	struct arena *s = arena_new();
	node_id first = g->nnode;
	enum linnet_code code = s ? primitive_nodes(g, 1, 0, count, e) : fail_mem(e);

	if (!code)
		code = drop_identities(g, first, s, e);
	if (!code)
		code = graph_compact(g, s, e);
	arena_free(s);
	return code ? code : graph_infer(g, e);
}

/* Resize before opset 13 and Gemm before 11 look as if they fitted. */
static bool complete(const struct node *n, int64_t version)
{
	if (node_is(n, "Gemm"))
		return version >= 11 || (n->nin > 2 && n->in[2]);
	return version >= 13 || !node_is(n, "Resize") || (n->nin > 2 && n->in[1] && n->in[2]);
}

static bool fits(struct lowering *l, const struct graph *g)
{
	for (node_id i = 1; i < g->nnode; i++) {
		const struct node *n = &g->node[i];
		int64_t version;

		if (n->dead)
			continue;
		for (uint32_t j = 0; j < n->nattr; j++)
			if (n->attr[j].kind == ATTR_GRAPH && !fits(l, n->attr[j].g))
				return false;
		if (!version_of(l, n->op, &version) || stays(l, n, version))
			continue;
		if (of_runtime(n->op, version))
			return false;
		if (n->known ? row_of(l, n->op, version) != n->op || !uses_only(l, n, version) || !complete(n, version) ||
		                       !types_fit(l, g, n, version)
		             : n->op->since != version)
			return false;
	}
	return true;
}

bool graph_fits(const struct graph *g, const struct opset *opset, uint32_t nopset, bool own)
{
	struct lowering l = { .opset = opset, .nopset = nopset, .own = own };

	return fits(&l, g);
}

int graph_least_opset(const struct graph *g, int opset)
{
	int least = opset;

	for (node_id i = 1; i < g->nnode; i++) {
		const struct node *n = &g->node[i];

		if (n->dead)
			continue;
		for (uint32_t j = 0; j < n->nattr; j++)
			if (n->attr[j].kind == ATTR_GRAPH)
				least = graph_least_opset(n->attr[j].g, least);
		if (of_runtime(n->op, opset) && n->op->since > least)
			least = n->op->since;
	}
	return least;
}
