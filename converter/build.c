/* Building one attention's new form: inputs, parameters, states, and small pieces that several mechanisms share. */
#include "converter/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/template.h"
#include "ops/base/str.h"

void build_text(struct build *b, const char *text, const value_id *in, value_id *out)
{
	if (!b->p->code && !text)
		b->p->code = fail_mem(b->e);
	if (!b->p->code)
		b->p->code = template_apply(b->p, text, in, out, b->dt, b->hint, b->e);
}

value_id build_value(struct build *b, const char *text, const value_id *in)
{
	value_id out = 0;

	build_text(b, text, in, &out);
	return b->p->code ? 0 : out;
}

/* ---- Parameters ---- */

struct tensor *build_tensor(struct build *b, int rank, const int64_t *d)
{
	struct tensor *t = NULL;

	if (!b->p->code)
		b->p->code = tensor_new(b->p->arena, b->dt, rank, d, &t, b->e);
	return b->p->code ? NULL : t;
}

value_id build_param(struct build *b, const char *name, const struct tensor *t)
{
	const char *full = b->p->code ? NULL : arena_fmt(b->p->arena, "%u.%s", b->layer, name);

	if (!full && !b->p->code)
		b->p->code = fail_mem(b->e);
	if (full && given_weight(b->opt, full))
		t = given_weight(b->opt, full);
	return full && t ? patch_const(b->p, t, full) : 0;
}

value_id build_filled(struct build *b, const char *name, int rank, const int64_t *d, double x)
{
	struct tensor *t = build_tensor(b, rank, d);

	for (int64_t i = 0; t && i < t->n; i++)
		tensor_put(t, i, x);
	return build_param(b, name, t);
}

value_id build_identity(struct build *b, const char *name, int64_t heads, int64_t rows, int64_t columns)
{
	struct tensor *t = build_tensor(b, 3, (int64_t[]){ heads, rows, columns });

	for (int64_t i = 0; t && i < heads * columns; i++)
		tensor_put(t, (i / columns * rows + i % columns % rows) * columns + i % columns, 1);
	return build_param(b, name, t);
}

value_id build_drawn(struct build *b, const char *name, int rank, const int64_t *d)
{
	struct tensor *t = build_tensor(b, rank, d);
	struct rng r = { (b->opt->seed ? b->opt->seed : 1) * 1000003 + b->layer };

	for (int64_t i = 0; t && i < t->n; i++)
		tensor_put(t, i, (2 * rng_unit(&r) - 1) / sqrt((double)d[rank - 2]));
	return build_param(b, name, t);
}

value_id build_mask(struct build *b, const char *name, int64_t rows, int64_t columns, double (*at)(int64_t i, int64_t j, int64_t x), int64_t x)
{
	const char *full;
	struct tensor *t;
	uint32_t old;

	if (b->p->code)
		return 0;
	full = arena_fmt(b->p->arena, "%s.%lldx%lld.%lld", name, (long long)rows, (long long)columns, (long long)x);
	if (full && map_get(&b->g->names, full, &old) && b->g->value[old].kind == VALUE_CONST && b->g->value[old].type.dt == b->dt)
		return old;
	t = full ? build_tensor(b, 2, (int64_t[]){ rows, columns }) : NULL;
	for (int64_t i = 0; t && i < t->n; i++)
		tensor_put(t, i, at(i / columns, i % columns, x));
	if (!full && !b->p->code)
		b->p->code = fail_mem(b->e);
	return t ? patch_const(b->p, t, full) : 0;
}

/* ---- States ---- */

static enum dtype state_type(const struct build *b) { return b->opt->state ? b->opt->state : b->dt; }

static value_id cast_state(struct build *b, value_id v, enum dtype to)
{
	struct attr attr[] = { attr_int("to", to), { .name = NULL } };

	return v && state_type(b) != b->dt ? patch_node(b->p, "Cast", "state", PATCH_IN(v), 1, attr) : v;
}

value_id build_past(struct build *b, const char *name, int rank, const int64_t *d)
{
	struct type t = { .dt = state_type(b), .shape = { .rank = rank } };
	const char *full = b->p->code ? NULL : arena_fmt(b->p->arena, "past_%s.%u", name, b->layer);
	int64_t numbers = 1;
	value_id past;

	for (int i = 1; i < rank; i++) {
		t.shape.d[i] = d[i];
		numbers *= d[i];
	}
	t.shape.d[0] = b->g->value[b->n->in[0]].type.shape.d[0];
	b->state_numbers += numbers;
	if (full && !b->state)
		b->state = full + strlen("past_");
	if (!full && !b->p->code)
		b->p->code = fail_mem(b->e);
	past = full ? patch_input(b->p, full, &t) : 0;
	return cast_state(b, past, b->dt);
}

void build_present(struct build *b, const char *name, value_id v)
{
	const char *full = b->p->code ? NULL : arena_fmt(b->p->arena, "present_%s.%u", name, b->layer);

	if (full && v)
		patch_output(b->p, cast_state(b, v, state_type(b)), full);
	else if (!b->p->code)
		b->p->code = fail_mem(b->e);
}

value_id build_first(struct build *b)
{
	struct type t = { .dt = DT_INT64, .shape = { .rank = 1, .d = { 1 } } };
	uint32_t old;

	if (!b->first && !build_steps(b))
		b->first = patch_ints(b->p, (int64_t[]){ 0 }, 1, "first");
	else if (!b->first && map_get(&b->g->names, "position", &old) && b->g->value[old].kind == VALUE_INPUT)
		b->first = old;
	else if (!b->first)
		b->first = patch_input(b->p, "position", &t);
	return b->first;
}

/* ---- Pieces ---- */

value_id build_repeat(struct build *b, value_id x, int64_t width)
{
	struct str t;

	if (b->R == 1)
		return x;
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,T,D] x) => (float[B,H,T,D] y) {\n"
	             "  axis = Constant <value_ints = [2]> ()\n"
	             "  x5 = Unsqueeze (x, axis)\n"
	             "  times = Constant <value_ints = [1, 1, %lld, 1, 1]> ()\n"
	             "  xr = Expand (x5, times)\n"
	             "  b = Shape <start = 0, end = 1> (x)\n"
	             "  h = Constant <value_ints = [%lld]> ()\n"
	             "  t = Shape <start = 2, end = 3> (x)\n"
	             "  d = Constant <value_ints = [%lld]> ()\n"
	             "  shape = Concat <axis = 0> (b, h, t, d)\n"
	             "  y = Reshape <allowzero = 1> (xr, shape) }",
	         (long long)b->R, (long long)b->H, (long long)width);
	return build_value(b, str_done(&t), BUILD_IN(x));
}

value_id build_turn(struct build *b, value_id x, value_id like)
{
	struct rope r;
	value_id in[8];
	struct attr attr[8];
	int n = 0;

	if (!rope_find(b->g, like, &r))
		return x;
	if (!r.node)
		return build_value(b, "(float[B,H,T,D] x, float[a,b,c,d] cos, float[e,f,g,h] sin) => (float[B,H,T,D] y) {\n"
		                      "  x1, x2 = Split <axis = -1, num_outputs = 2> (x)\n"
		                      "  n = Neg (x2)\n"
		                      "  r = Concat <axis = -1> (n, x1)\n"
		                      "  xc = Mul (x, cos)\n"
		                      "  rs = Mul (r, sin)\n"
		                      "  y = Add (xc, rs) }", BUILD_IN(x, r.cos, r.sin));
	for (uint32_t i = 0; i < r.node->nattr && n < 7; i++)
		if (attr_given(&r.node->attr[i]))
			attr[n++] = r.node->attr[i];
	attr[n] = (struct attr){ .name = NULL };
	for (uint32_t i = 0; i < r.node->nin && i < 8; i++)
		in[i] = i ? r.node->in[i] : x;
	return patch_op(b->p, r.node->op, b->hint, in, r.node->nin, 1, attr);
}

/* As channels: x [B, heads, T, width] to [B, heads width, T], and back. */
static const char into_channels[] = "(float[B,H,T,D] x) => (float[B,C,T] y) {\n"
                                    "  xt = Transpose <perm = [0, 1, 3, 2]> (x)\n"
                                    "  shape = Constant <value_ints = [0, %lld, -1]> ()\n"
                                    "  y = Reshape (xt, shape) }";
static const char from_channels[] = "(float[B,C,T] x) => (float[B,H,T,D] y) {\n"
                                    "  shape = Constant <value_ints = [0, %lld, %lld, -1]> ()\n"
                                    "  x4 = Reshape (x, shape)\n"
                                    "  y = Transpose <perm = [0, 1, 3, 2]> (x4) }";

/* Conv makes one token more, in front, which is cut off: it takes no window that reaches over everything. */
value_id build_conv(struct build *b, value_id x, int64_t heads, int64_t width, const char *name, int taps)
{
	int64_t C = heads * width;
	struct tensor *w = build_tensor(b, 3, (int64_t[]){ C, 1, taps });
	char title[40];
	value_id in[3], out[2] = { 0, 0 };
	struct str t;

	for (int64_t c = 0; w && c < C; c++)
		tensor_put(w, c * taps + taps - 1, 1);
	str_init(&t, b->scratch);
	str_addf(&t, into_channels, (long long)C);
	in[0] = build_value(b, str_done(&t), BUILD_IN(x));
	snprintf(title, sizeof title, "%s_conv", name);
	in[1] = build_param(b, title, w);
	str_init(&t, b->scratch);
	snprintf(title, sizeof title, "conv_%s", name);
	if (b->target == TARGET_ONNX || b->target == TARGET_ORT)
		str_addf(&t, "(float[B,C,T] x, float[C,1,N] w) => (float[B,C,T] y) { y, past = %sCausalConvWithState (x, w) ",
		         b->target == TARGET_ORT ? "com.microsoft." : "");
	else
		str_addf(&t, "(float[B,C,T] x, float[C,1,N] w%s) => (float[B,C,T] y%s) {\n"
		             "%s"
		             "  longer = Conv <group = %lld, pads = [%d, 0]> (%s, w)\n"
		             "  first = Constant <value_ints = [1]> ()\n"
		             "  to = Constant <value_ints = [9223372036854775807]> ()\n"
		             "  axis = Constant <value_ints = [2]> ()\n"
		             "  y = Slice (longer, first, to, axis)\n",
		         build_steps(b) ? ", float[B,C,P] past" : "", build_steps(b) ? ", float[B,C,P] present" : "",
		         build_steps(b) ? "  all = Concat <axis = 2> (past, x)\n" : "", (long long)C, build_steps(b) ? 1 : taps,
		         build_steps(b) ? "all" : "x");
	if (build_steps(b))
		str_addf(&t, "  from = Constant <value_ints = [%d]> ()\n"
		             "  present = Slice (all, from, to, axis)\n", 1 - taps);
	str_add(&t, "}");
	in[2] = build_steps(b) ? build_past(b, title, 3, (int64_t[]){ 0, C, taps - 1 }) : 0;
	build_text(b, str_done(&t), in, out);
	if (build_steps(b))
		build_present(b, title, out[1]);
	str_init(&t, b->scratch);
	str_addf(&t, from_channels, (long long)heads, (long long)width);
	return build_value(b, str_done(&t), out);
}

bool build_grid(const struct convert_opt *opt, dim tokens, int64_t *rows, int64_t *columns)
{
	if (!dim_is_int(tokens))
		return false;
	*rows = opt->rows;
	*columns = opt->columns;
	if (!opt->rows)
		*rows = *columns = (int64_t)(sqrt((double)tokens) + 0.5);
	return *rows * *columns == tokens;
}

value_id build_image(struct build *b, value_id y)
{
	int64_t C = b->G * b->E, rows = 0, columns = 0;
	value_id conv;
	struct str t;

	build_grid(b->opt, b->g->value[b->n->in[0]].type.shape.d[2], &rows, &columns);
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,T,E] v, float[C,1,h,w] w) => (float[B,G,T,E] y) {\n"
	             "  vt = Transpose <perm = [0, 1, 3, 2]> (v)\n"
	             "  image = Constant <value_ints = [0, %lld, %lld, %lld]> ()\n"
	             "  vi = Reshape (vt, image)\n"
	             "  c = Conv <group = %lld, pads = [2, 2, 2, 2]> (vi, w)\n"
	             "  tokens = Constant <value_ints = [0, %lld, %lld, %lld]> ()\n"
	             "  ct = Reshape (c, tokens)\n"
	             "  y = Transpose <perm = [0, 1, 3, 2]> (ct) }",
	         (long long)C, (long long)rows, (long long)columns, (long long)C, (long long)b->G, (long long)b->E, (long long)(rows * columns));
	conv = build_value(b, str_done(&t), BUILD_IN(b->v, build_filled(b, "v_image", 4, (int64_t[]){ C, 1, 5, 5 }, 0)));
	return patch_node(b->p, "Add", b->hint, PATCH_IN(y, build_repeat(b, conv, b->E)), 1, NULL);
}

/* Added to mean squares under the root. */
#define NORM_EPSILON "1e-5"

value_id build_norm(struct build *b, value_id x, bool centred)
{
	struct str t;

	str_init(&t, b->scratch);
	str_add(&t, "(float[B,H,T,E] o) => (float[B,H,T,E] y) {\n"
	            "  last = Constant <value_ints = [-1]> ()\n");
	str_add(&t, centred ? "  mean = ReduceMean (o, last)\n  c = Sub (o, mean)\n" : "  c = Identity (o)\n");
	str_add(&t, "  square = Mul (c, c)\n"
	            "  m = ReduceMean (square, last)\n"
	            "  eps = Constant <value_float = " NORM_EPSILON "> ()\n"
	            "  me = Add (m, eps)\n"
	            "  root = Sqrt (me)\n"
	            "  y = Div (c, root) }");
	return build_value(b, str_done(&t), BUILD_IN(x));
}

/* ---- One attention ---- */

/* Options and mechanism say what q, k and v the mechanism works on. */
static void prepare(struct build *b)
{
	const struct convert_opt *o = b->opt;
	bool per_query = o->heads ? !strcmp(o->heads, "query") : b->m->per_query;
	bool alike = true; /* slopes of the query heads of one key head */
	int taps = o->conv ? o->conv : b->m->conv;
	struct rope q, k;

	rope_find(b->g, b->q, &q);
	rope_find(b->g, b->k, &k);
	b->turned_q = b->q;
	b->turned_k = b->k;
	b->turned_v = b->v;
	b->kv_heads = b->G;
	b->plain_k = k.x ? k.x : b->k;
	if (b->m->plain) {
		b->q = q.x ? q.x : b->q;
		b->k = b->plain_k;
	}
	for (int64_t h = 0; b->slope && h < b->H; h++)
		alike = alike && b->slope[h] == b->slope[h / b->R * b->R];
	alike = alike || (b->m->build && b->m->window); /* which keep no state but keys and values */
	if ((per_query || !alike) && b->R > 1) {
		b->k = build_repeat(b, b->k, b->D);
		b->v = build_repeat(b, b->v, b->E);
		b->plain_k = build_repeat(b, b->plain_k, b->D);
		b->G = b->H;
		b->R = 1;
	}
	if (taps > 1) { /* what is hidden counts as nothing */
		b->k = build_hide(b, b->k);
		b->v = build_hide(b, b->v);
		b->q = build_conv(b, b->q, b->H, b->D, "q", taps);
		b->k = build_conv(b, b->k, b->G, b->D, "k", taps);
		b->v = build_conv(b, b->v, b->G, b->E, "v", taps);
	}
}

static double scale_of(const struct graph *g, const struct node *n)
{
	const struct attr *a = node_attr(n, "scale");

	return a->given ? a->f : 1 / sqrt((double)g->value[n->in[0]].type.shape.d[3]);
}

/* A node once more, of other inputs. */
static value_id copied(struct build *b, const struct node *m, const value_id *in)
{
	struct attr *attr = NEW(b->scratch, m->nattr + 1, struct attr);
	uint32_t n = 0;

	if (!attr) {
		b->p->code = fail_mem(b->e);
		return 0;
	}
	for (uint32_t k = 0; k < m->nattr; k++)
		if (attr_given(&m->attr[k]))
			attr[n++] = m->attr[k];
	return patch_op(b->p, m->op, OWN_MASK, in, m->nin, m->nout, attr);
}

/* v is made of data of inputs, none of which has an element for each token: what it counts it counts in the whole sequence. */
static bool counts_whole(const struct graph *g, value_id v, dim tokens, int depth, bool *data)
{
	const struct node *n = value_node(g, v);
	const struct shape *s = &g->value[v].type.shape;

	if (value_const(g, v) || (n && n->op->flags & OP_SHAPE_ONLY))
		return true;
	for (int i = 0; i < s->rank; i++)
		if (s->d[i] == tokens)
			return false;
	if (!n || !depth) {
		*data = *data || (g->value[v].kind == VALUE_INPUT && dtype_in(g->value[v].type.dt, INTS));
		return !n && s->rank >= 0;
	}
	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] && !counts_whole(g, n->in[i], tokens, depth - 1, data))
			return false;
	return true;
}

/* Where a comparison takes places of its own tokens to such numbers, those behind `first` are left of them. */
static void count_own(struct build *b, const struct node *m, value_id *in)
{
	static const char *const comparing[] = { "Less", "LessOrEqual", "Greater", "GreaterOrEqual", NULL };
	const struct graph *g = b->g;
	dim tokens = g->value[b->n->in[0]].type.shape.d[2];
	enum { DEEPEST = 16 };

	for (int k = 0; node_among(m, comparing) && k < 2; k++) {
		const struct shape *other = &g->value[m->in[1 - k]].type.shape;
		struct attr to[] = { attr_int("to", g->value[m->in[k]].type.dt), { .name = NULL } };
		bool data = false;

		if (counts_whole(g, m->in[k], tokens, DEEPEST, &data) && data && other->rank > 0 && other->d[other->rank - 1] == tokens)
			in[k] = patch_node(b->p, "Sub", OWN_MASK, PATCH_IN(in[k], patch_node(b->p, "Cast", OWN_MASK, PATCH_IN(build_first(b)), 1, to)), 1, NULL);
	}
}

/*
 * A step model sees a mask's keys from its own first token on, and position counting would shift what the mask is made of; so what counts
 * tokens for the mask is made again for it alone.
 */
static enum linnet_code pin(struct build *b, value_id *mask, struct linnet_error *e)
{
	const struct graph *g = b->g;
	node_id *order;
	value_id *again;
	bool *needed, counts = false;
	uint32_t n;

	TRY_NEW(needed, b->scratch, g->nvalue);
	TRY_NEW(again, b->scratch, g->nvalue);
	TRY(graph_order(g, b->scratch, &order, &n, e));
	needed[*mask] = true;
	for (uint32_t i = n; i-- > 0;) {
		const struct node *m = &g->node[order[i]];
		bool use = false;

		for (uint32_t k = 0; k < m->nout; k++)
			use = use || (m->out[k] && needed[m->out[k]]);
		for (uint32_t k = 0; use && k < m->nin; k++)
			needed[m->in[k]] = true;
		counts = counts || (use && (node_is(m, "Range") || node_is(m, "Slice") || node_is(m, "CumSum")));
	}
	for (uint32_t i = 0; i < n && counts; i++) {
		const struct node *m = &g->node[order[i]];
		value_id *in, out;

		if (!m->known || m->op->flags & OP_CONTROL || !m->nout || !m->out[0] || !needed[m->out[0]])
			continue;
		TRY_NEW(in, b->scratch, m->nin + 1);
		for (uint32_t k = 0; k < m->nin; k++)
			in[k] = m->in[k] && again[m->in[k]] ? again[m->in[k]] : m->in[k];
		count_own(b, m, in);
		out = copied(b, m, in);
		for (uint32_t k = 0; k < m->nout; k++)
			again[m->out[k]] = m->out[k] ? out + k : 0;
	}
	*mask = again[*mask] ? again[*mask] : *mask;
	return b->p->code;
}

/* Whether each element of the only output is that of the inputs there. */
static bool by_element(const struct node *n)
{
	static const char *const names[] = { "Add", "And", "Cast", "Div", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min",
		                             "Mul", "Not", "Or", "Sub", "Where", "Xor", NULL };

	return node_among(n, names);
}

/*
 * What a mask says of each key as a row, so that no matrix of queries and keys is made: to the key's own query, which sees every key that is not
 * hidden, causal or through a window; or to the last query, of a mask that says the same to all.
 */
enum row { ROW_OWN, ROW_LAST };

/* One that is a row already, has none, or (of the own queries) is the same for all keys. */
static bool is_row(const struct shape *s, enum row which)
{
	return s->rank >= 0 && (s->rank < 2 || s->d[s->rank - 2] == 1 || (which == ROW_OWN && s->d[s->rank - 1] == 1));
}

/* Whether v comes element by element from rows: own queries cannot be picked from anything else. */
static bool of_rows(const struct build *b, value_id v, bool *done, int depth)
{
	const struct node *n = value_node(b->g, v);

	if (done[v] || is_row(&b->g->value[v].type.shape, ROW_OWN))
		return true;
	if (!n || !by_element(n) || depth >= 64)
		return false;
	for (uint32_t k = 0; k < n->nin; k++)
		if (!of_rows(b, n->in[k], done, depth + 1))
			return false;
	return done[v] = true;
}

/* done: rows that are made already. */
static value_id row_of(struct build *b, value_id v, enum row which, value_id *done, int depth)
{
	const struct shape *s = &b->g->value[v].type.shape;
	const struct node *n = value_node(b->g, v);
	bool row = is_row(s, which);
	value_id *in, leaf = v;

	if (done[v] || b->p->code)
		return done[v];
	if (!row && n && by_element(n) && depth < 64) {
		in = NEW(b->scratch, n->nin, value_id);
		if (!in)
			b->p->code = fail_mem(b->e);
		for (uint32_t k = 0; in && k < n->nin; k++)
			in[k] = row_of(b, n->in[k], which, done, depth + 1);
		return done[v] = in ? copied(b, n, in) : 0;
	}
	if (build_steps(b) && b->causal)
		b->p->code = pin(b, &leaf, b->e);
	if (!row) {
		leaf = patch_node(b->p, "Slice", OWN_MASK,
		                  PATCH_IN(leaf, patch_ints(b->p, (int64_t[]){ -1 }, 1, "last"), patch_ints(b->p, (int64_t[]){ INT64_MAX }, 1, "end"),
		                           patch_ints(b->p, (int64_t[]){ -2 }, 1, "axis")), 1, NULL);
	} else if (s->rank >= 2 && s->d[s->rank - 2] != 1) {
		int64_t perm[MAX_RANK];
		struct attr attr[] = { attr_ints("perm", perm, (size_t)s->rank), { .name = NULL } };

		for (int i = 0; i < s->rank; i++)
			perm[i] = i < s->rank - 2 ? i : 2 * s->rank - 3 - i;
		leaf = patch_node(b->p, "Transpose", OWN_MASK, PATCH_IN(leaf), 1, attr);
	}
	return done[v] = leaf;
}

/* The mask as hiding needs it: as a row where that can be, and in a step model of the tokens given. */
static enum linnet_code own_mask(struct build *b, bool by_key, struct linnet_error *e)
{
	const struct shape *s = &b->g->value[b->mask].type.shape;
	value_id *done;
	bool *seen;

	TRY_NEW(done, b->scratch, b->g->nvalue);
	TRY_NEW(seen, b->scratch, b->g->nvalue);
	if (b->causal && s->rank >= 2 && s->d[s->rank - 2] == s->d[s->rank - 1] && of_rows(b, b->mask, seen, 0))
		b->own_mask = row_of(b, b->mask, ROW_OWN, done, 0);
	else if (by_key)
		b->own_mask = row_of(b, b->mask, ROW_LAST, done, 0);
	else if (b->causal && build_steps(b))
		TRY(pin(b, &b->own_mask, e));
	return b->p->code;
}

/* Of a mask that is a bias by head besides: which keys are seen. */
static value_id seen(struct build *b, value_id mask)
{
	static const char four[] = "(float[B,H,L,S] m) => (bool[B,h,L,S] seen) {\n"
	                           "  first = Constant <value_ints = [0]> ()\n"
	                           "  second = Constant <value_ints = [1]> ()\n"
	                           "  axis = Constant <value_ints = [-3]> ()\n"
	                           "  one = Slice (m, first, second, axis)\n"
	                           "  lowest = Constant <value_float = -1e4> ()\n"
	                           "  low = CastLike (lowest, m)\n"
	                           "  seen = Greater (one, low) }";
	static const char three[] = "(float[H,L,S] m) => (bool[h,L,S] seen) {\n"
	                            "  first = Constant <value_ints = [0]> ()\n"
	                            "  second = Constant <value_ints = [1]> ()\n"
	                            "  axis = Constant <value_ints = [-3]> ()\n"
	                            "  one = Slice (m, first, second, axis)\n"
	                            "  lowest = Constant <value_float = -1e4> ()\n"
	                            "  low = CastLike (lowest, m)\n"
	                            "  seen = Greater (one, low) }";

	return build_value(b, b->g->value[b->mask].type.shape.rank == 4 ? four : three, &mask);
}

/* Whether queries weigh keys by products of features alone, and softmax by logits alone. */
static bool has_weights(const struct build *b)
{
	return b->m->map && normaliser_of(b->opt) == NORM_RATIO && !fade_of(b->opt) && !b->opt->window && !b->m->window && !b->slope && !b->mask &&
	       b->softcap <= 0;
}

/* P = softmax(scale q k^T) and W = f(q) f(k)^T / its rows' sums, of what queries see; [B, H, T, S]. */
static void weights(struct build *b, value_id *soft, value_id *linear)
{
	value_id fq = linear_map(b, b->q, 'q', b->H), fk = build_repeat(b, linear_map(b, b->k, 'k', b->G), b->features);
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,D] q, float[B,H,S,D] k) => (float[B,H,T,S] p) {\n"
	             "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	             "  s = MatMul (q, kt)\n"
	             "  scale = Constant <value_float = %#.9g> ()\n"
	             "  x = Mul (s, scale)\n", b->scale);
	str_add(&t, b->causal ? "  t1 = Shape <start = 2, end = 3> (q)\n"
	                        "  t = Squeeze (t1)\n"
	                        "  zero = Constant <value_int = 0> ()\n"
	                        "  one = Constant <value_int = 1> ()\n"
	                        "  last = Constant <value_ints = [1]> ()\n"
	                        "  j = Range (zero, t, one)\n"
	                        "  i = Unsqueeze (j, last)\n"
	                        "  later = Greater (j, i)\n"
	                        "  low = Constant <value_float = -inf> ()\n"
	                        "  seen = Where (later, low, x)\n"
	                        "  p = Softmax <axis = -1> (seen) }" :
	                        "  p = Softmax <axis = -1> (x) }");
	*soft = build_value(b, str_done(&t), BUILD_IN(b->turned_q, build_repeat(b, b->turned_k, b->D)));
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,F] q, float[B,H,S,F] k) => (float[B,H,T,S] w) {\n"
	             "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	             "  a = MatMul (q, kt)\n"
	             "  seen = %s (a)\n"
	             "  last = Constant <value_ints = [-1]> ()\n"
	             "  sum = ReduceSum (seen, last)\n"
	             "  low = Constant <value_float = 1e-20> ()\n"
	             "  safe = Max (sum, low)\n"
	             "  w = Div (seen, safe) }", b->causal ? "Trilu <upper = 0>" : "Identity");
	*linear = build_value(b, str_done(&t), BUILD_IN(fq, fk));
}

enum linnet_code mechanism_apply(const struct graph *g, const struct node *n, const struct convert_opt *opt, uint32_t layer,
                                 struct patch *p, struct convert_item *item, struct linnet_error *e)
{
	const struct type *q = &g->value[n->in[0]].type;
	const struct shape *k = &g->value[n->in[1]].type.shape, *v = &g->value[n->in[2]].type.shape;
	struct build b = { .g = g, .n = n, .opt = opt, .m = opt->mechanism, .p = p, .e = e, .scratch = arena_new(),
	                   .hint = *n->name ? n->name : "attention", .layer = layer, .dt = q->dt, .target = opt->target, .H = q->shape.d[1],
	                   .G = k->d[1], .R = q->shape.d[1] / k->d[1], .D = q->shape.d[3], .E = v->d[3], .scale = scale_of(g, n),
	                   .causal = attention_causal(n), .softcap = node_attr(n, "softcap")->f, .q = n->in[0], .k = n->in[1], .v = n->in[2] };
	bool window, joint;
	value_id soft = n->out[0], y = 0;
	double *slope = NULL;
	bool hides = false;

	if (!b.scratch)
		return fail_mem(e);
	b.mask = n->nin > 3 ? n->in[3] : 0;
	if (b.mask && b.causal && !p->code)
		p->code = mask_slopes(g, b.mask, b.H, b.scratch, &slope, &hides, e);
	b.slope = slope;
	b.mask = slope && !hides ? 0 : b.mask;
	b.sloped_mask = hides && slope;
	b.own_mask = b.mask;
	if (b.mask && !p->code)
		p->code = own_mask(&b, item->by_key, e);
	if (b.sloped_mask)
		b.own_mask = seen(&b, b.own_mask);
	prepare(&b);
	window = opt->window || b.m->window;
	joint = window && !b.m->build && normaliser_of(opt) == NORM_RATIO && !fade_of(opt);
	item->weights = opt->beside == BESIDE_WEIGHTS && has_weights(&b);
	if (item->weights)
		weights(&b, &soft, &y);
	else if (b.m->build)
		b.m->build(&b, &y);
	else if (joint)
		build_joint(&b, &y);
	else if (!p->code)
		p->code = linear_build(&b, &y, e);
	if (b.m->image)
		y = build_image(&b, y);
	if (window && !joint && !b.m->window)
		y = build_mixed(&b, y);
	if (opt->beside) {
		patch_output(p, soft, arena_fmt(p->arena, "soft.%u", layer));
		patch_output(p, y, arena_fmt(p->arena, "linear.%u", layer));
	} else {
		patch_replace(p, n->out[0], y);
	}
	arena_free(b.scratch);
	item->features = b.features;
	item->state = target_has_states(opt->target) ? b.state : NULL;
	if (b.state_numbers)
		item->state_numbers = b.state_numbers;
	return p->code;
}
