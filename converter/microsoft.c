/*
 * Attentions of ONNX Runtime's own domain as ONNX's Attention, before anything looks for attention: their heads are laid out one by one, biases and
 * rotation stand in front, padding is a mask, caches are inputs and outputs of it. What has no such form stays as it is.
 *
 * seqlens_k of GroupQueryAttention tells where padding behind the tokens begins; causal queries before it never see it, so it is not looked at.
 */
#include <math.h>
#include <string.h>

#include "converter/convert.h"
#include "graph/rewrite.h"

/* One of them, its operands as ONNX's Attention has them: [B, heads, length, width]; 0: not given. */
struct reading {
	const struct graph *g;
	const struct node *n;
	struct patch *p;
	int64_t heads, kv;
	value_id q, k, v, mask, past_k, past_v;
	bool causal;
	int64_t window;  /* tokens before the query's own; -1: all */
};

static value_id input(const struct reading *r, uint32_t i) { return i < r->n->nin ? r->n->in[i] : 0; }
static const struct type *given(const struct reading *r, uint32_t i) { return &r->g->value[input(r, i)].type; }
static int64_t number(const struct reading *r, const char *name) { return node_attr(r->n, name)->i; }

static bool any_of(const struct reading *r, const int *list)
{
	for (; *list >= 0; list++)
		if (input(r, (uint32_t)*list))
			return true;
	return false;
}

/* ---- Pieces ---- */

/* x [B, L, heads width] as [B, heads, L, width]. */
static value_id spread(struct reading *r, value_id x, int64_t heads, int64_t width)
{
	x = patch_node(r->p, "Reshape", "heads", PATCH_IN(x, patch_ints(r->p, (int64_t[]){ 0, 0, heads, width }, 4, "heads")), 1, NULL);
	return patch_node(r->p, "Transpose", "heads", PATCH_IN(x), 1, (struct attr[]){ attr_ints("perm", (int64_t[]){ 0, 2, 1, 3 }, 4), { .name = NULL } });
}

/* x cut in three along its last axis, which is `axis`. */
static void cut(struct reading *r, value_id x, int64_t axis, const int64_t width[3], value_id out[3])
{
	value_id first = patch_node(r->p, "Split", "parts", PATCH_IN(x, patch_ints(r->p, width, 3, "parts")), 3,
	                            (struct attr[]){ attr_int("axis", axis), { .name = NULL } });

	for (uint32_t i = 0; i < 3; i++)
		out[i] = first ? first + i : 0;
}

/* Padding, int32 [B, T], 0 where keys are hidden, and a bias, either of which may be 0, as one mask. */
static value_id masked(struct reading *r, value_id padding, value_id bias, enum dtype dt)
{
	value_id seen;

	if (!padding)
		return bias;
	seen = patch_node(r->p, "Cast", "seen", PATCH_IN(padding), 1, (struct attr[]){ attr_int("to", DT_BOOL), { .name = NULL } });
	seen = patch_node(r->p, "Unsqueeze", "seen", PATCH_IN(seen, patch_ints(r->p, (int64_t[]){ 1, 2 }, 2, "axes")), 1, NULL);
	return bias ? patch_node(r->p, "Where", "mask", PATCH_IN(seen, bias, patch_float(r->p, dt, -INFINITY, "hidden")), 1, NULL) : seen;
}

/* ---- Each operator; false: it has no such form ---- */

static bool read_multi_head(struct reading *r)
{
	enum { QUERY, KEY, VALUE, BIAS, PADDING, ATTENTION_BIAS, PAST_KEY, PAST_VALUE, PAST_LENGTH, BEAMS };
	const struct shape *q = &given(r, QUERY)->shape, *k, *v;
	value_id in[3] = { input(r, QUERY), input(r, KEY), input(r, VALUE) };
	int64_t N = number(r, "num_heads"), width[3];

	if (any_of(r, (const int[]){ PAST_LENGTH, BEAMS, -1 }) || !in[1] || !in[2] || q->rank != 3 || !dim_is_int(q->d[2]))
		return false;
	k = &given(r, KEY)->shape;
	v = &given(r, VALUE)->shape;
	if (k->rank != v->rank || (k->rank != 3 && k->rank != 4) || !dim_is_int(v->d[k->rank - 1]) || (input(r, PADDING) && given(r, PADDING)->shape.rank != 2))
		return false;
	r->causal = number(r, "unidirectional") != 0;
	if (r->causal && !input(r, PAST_KEY) && q->d[1] != k->d[k->rank - 2])
		return false; /* which the last query sees all of */
	width[0] = width[1] = q->d[2];
	width[2] = k->rank == 3 ? v->d[2] : v->d[3] * N;
	if (input(r, BIAS)) {
		value_id bias[3];

		cut(r, input(r, BIAS), 0, width, bias);
		for (int i = 0; i < (k->rank == 3 ? 3 : 1); i++)
			in[i] = patch_node(r->p, "Add", "projected", PATCH_IN(in[i], bias[i]), 1, NULL);
	}
	r->heads = r->kv = N;
	r->q = spread(r, in[0], N, width[0] / N);
	r->k = k->rank == 3 ? spread(r, in[1], N, width[1] / N) : in[1];
	r->v = k->rank == 3 ? spread(r, in[2], N, width[2] / N) : in[2];
	r->mask = masked(r, input(r, PADDING), input(r, ATTENTION_BIAS), given(r, QUERY)->dt);
	r->past_k = input(r, PAST_KEY);
	r->past_v = input(r, PAST_VALUE);
	return true;
}

static bool read_packed(struct reading *r)
{
	enum { INPUT, WEIGHTS, BIAS, PADDING, PAST, ATTENTION_BIAS, PAST_LENGTH };
	const struct shape *w = &given(r, WEIGHTS)->shape;
	const struct attr *sizes = node_attr(r->n, "qkv_hidden_sizes");
	int64_t N = number(r, "num_heads"), width[3];
	value_id x, part[3];

	if (any_of(r, (const int[]){ PAST, PAST_LENGTH, -1 }) || number(r, "do_rotary") || w->rank != 2 || !dim_is_int(w->d[1]) ||
	    (input(r, PADDING) && given(r, PADDING)->shape.rank != 2))
		return false;
	for (int i = 0; i < 3; i++)
		width[i] = sizes->given && sizes->n == 3 ? sizes->ints[i] : w->d[1] / 3;
	x = patch_node(r->p, "MatMul", "projected", PATCH_IN(input(r, INPUT), input(r, WEIGHTS)), 1, NULL);
	if (input(r, BIAS))
		x = patch_node(r->p, "Add", "projected", PATCH_IN(x, input(r, BIAS)), 1, NULL);
	cut(r, x, 2, width, part);
	r->causal = number(r, "unidirectional") != 0;
	r->heads = r->kv = N;
	r->q = spread(r, part[0], N, width[0] / N);
	r->k = spread(r, part[1], N, width[1] / N);
	r->v = spread(r, part[2], N, width[2] / N);
	r->mask = masked(r, input(r, PADDING), input(r, ATTENTION_BIAS), given(r, INPUT)->dt);
	return true;
}

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LAST, TOTAL, COS, SIN, POSITIONS, BIAS, SINK, K_SCALE, V_SCALE, Q_NORM, K_NORM, QUERIES };

/* Numbers of the tokens, [B, S], counted from the end of the past. */
static value_id positions(struct reading *r)
{
	value_id query = input(r, QUERY), one = patch_int(r->p, 1, "one"), first = patch_int(r->p, 0, "first"), end, row;
	value_id axes = patch_ints(r->p, (int64_t[]){ 0 }, 1, "axes");

	if (input(r, POSITIONS))
		return input(r, POSITIONS);
	if (input(r, PAST_KEY))
		first = patch_node(r->p, "Squeeze", "first", PATCH_IN(patch_lengths(r->p, input(r, PAST_KEY), 2, 3, "past"), axes), 1, NULL);
	end = patch_node(r->p, "Add", "end", PATCH_IN(first, patch_node(r->p, "Squeeze", "length", PATCH_IN(patch_lengths(r->p, query, 1, 2, "length"), axes), 1, NULL)), 1, NULL);
	row = patch_node(r->p, "Range", "positions", PATCH_IN(first, end, one), 1, NULL);
	return patch_node(r->p, "Expand", "positions", PATCH_IN(patch_node(r->p, "Unsqueeze", "positions", PATCH_IN(row, axes), 1, NULL),
	                                                        patch_lengths(r->p, query, 0, 2, "tokens")), 1, NULL);
}

static bool read_grouped(struct reading *r)
{
	const struct shape *q = &given(r, QUERY)->shape;
	int64_t N = number(r, "num_heads"), G = number(r, "kv_num_heads"), local = number(r, "local_window_size"), width[3], D;
	value_id in[3] = { input(r, QUERY), input(r, KEY), input(r, VALUE) };

	if (any_of(r, (const int[]){ SINK, K_SCALE, V_SCALE, Q_NORM, K_NORM, QUERIES, -1 }) || number(r, "sliding_window_cache") ||
	    number(r, "smooth_softmax") > 0 || q->rank != 3 || !dim_is_int(q->d[2]) || G <= 0 || N % G || (in[1] != 0) != (in[2] != 0))
		return false;
	D = q->d[2] / (in[1] ? N : N + 2 * G);
	if (!in[1]) {
		width[0] = N * D;
		width[1] = width[2] = G * D;
		cut(r, in[0], 2, width, in);
	}
	r->causal = number(r, "causal") != 0;
	r->window = local > 0 ? local - 1 : -1;
	r->heads = N;
	r->kv = G;
	r->q = spread(r, in[0], N, D);
	r->k = spread(r, in[1], G, D);
	r->v = spread(r, in[2], G, D);
	if (number(r, "do_rotary")) {
		const struct shape *c = &given(r, COS)->shape;
		value_id at = positions(r);
		struct attr attr[] = { attr_int("interleaved", number(r, "rotary_interleaved")), { .name = NULL }, { .name = NULL } };

		if (c->rank != 2 || !dim_is_int(c->d[1]))
			return false;
		if (2 * c->d[1] < D)
			attr[1] = attr_int("rotary_embedding_dim", 2 * c->d[1]);
		r->q = patch_node(r->p, "RotaryEmbedding", "turned", PATCH_IN(r->q, input(r, COS), input(r, SIN), at), 1, attr);
		r->k = patch_node(r->p, "RotaryEmbedding", "turned", PATCH_IN(r->k, input(r, COS), input(r, SIN), at), 1, attr);
	}
	r->mask = input(r, BIAS);
	r->past_k = input(r, PAST_KEY);
	r->past_v = input(r, PAST_VALUE);
	return true;
}

/* ---- All of them ---- */

static const struct {
	const char *name;
	bool (*read)(struct reading *r);
	uint32_t scores; /* number of the output that are scores */
} known[] = { { "Attention", read_packed, 2 }, { "MultiHeadAttention", read_multi_head, 3 }, { "GroupQueryAttention", read_grouped, 3 } };

static enum linnet_code say(struct graph *g, struct reading *r, struct linnet_error *e)
{
	const struct node *n = r->n;
	const struct shape *out = &g->value[n->out[0]].type.shape;
	double scale = node_attr(n, "scale")->given ? node_attr(n, "scale")->f : 0;
	struct attr attr[5] = { { .name = NULL } };
	value_id in[] = { r->q, r->k, r->v, r->mask, r->past_k, r->past_v }, y;
	int k = 0;

	if (r->causal)
		attr[k++] = attr_int("is_causal", 1);
	if (scale > 0)
		attr[k++] = attr_float("scale", scale);
	if (r->window >= 0)
		attr[k++] = attr_int("left_window_size", r->window);
	if (!strcmp(n->op->name, "GroupQueryAttention") && node_attr(n, "softcap")->f > 0)
		attr[k++] = attr_float("softcap", node_attr(n, "softcap")->f);
	y = patch_op(r->p, op_find(NULL, "Attention", OPSET_NEWEST), *n->name ? n->name : "attention", in, r->past_k ? 6 : r->mask ? 4 : 3, r->past_k ? 3 : 1, attr);
	for (uint32_t i = 1; i < 3 && i < n->nout; i++)
		if (n->out[i])
			patch_replace(r->p, n->out[i], r->past_k ? y + i : i == 1 ? r->k : r->v);
	y = patch_node(r->p, "Transpose", "rows", PATCH_IN(y), 1, (struct attr[]){ attr_ints("perm", (int64_t[]){ 0, 2, 1, 3 }, 4), { .name = NULL } });
	patch_replace(r->p, n->out[0], patch_node(r->p, "Reshape", "rows", PATCH_IN(y, patch_ints(r->p, (int64_t[]){ 0, 0, out->d[2] }, 3, "rows")), 1, NULL));
	return patch_apply(g, r->p, "microsoft", e);
}

static enum linnet_code count_uses(const struct graph *g, struct arena *scratch, uint32_t **count, struct linnet_error *e)
{
	struct uses u;

	TRY_NEW(*count, scratch, g->nin + 1);
	TRY(graph_uses(g, scratch, &u, e));
	for (uint32_t i = 0; i < g->nin; i++)
		(*count)[i] = uses_of(&u, g->in[i]) > 0;
	return LINNET_OK;
}

enum linnet_code source_standard(struct graph *g, struct arena *scratch, struct linnet_error *e)
{
	uint32_t *before, *after, n = 0;
	bool any = false;

	TRY(count_uses(g, scratch, &before, e));
	for (node_id id = 1, last = g->nnode; id < last; id++) {
		const struct node *node = &g->node[id];
		struct patch p;
		struct reading r = { .g = g, .n = node, .p = &p, .window = -1 };

		if (node->dead || !node->known || !node->op->domain || strcmp(node->op->domain, "com.microsoft"))
			continue;
		for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
			const struct shape *out = &g->value[node->out[0]].type.shape;
			bool scores = known[i].scores < node->nout && node->out[known[i].scores];

			if (strcmp(node->op->name, known[i].name) || scores || out->rank != 3 || !dim_is_int(out->d[2]))
				continue;
			patch_init(&p, g, e);
			if (!known[i].read(&r))
				break;
			if (known[i].read == read_packed && node->nout > 1 && node->out[1])
				break;
			TRY(say(g, &r, e));
			any = true;
			break;
		}
	}
	if (!any)
		return LINNET_OK;
	TRY(graph_compact(g, scratch, e));
	TRY(count_uses(g, scratch, &after, e));
	for (uint32_t i = 0; i < g->nin; i++) /* lengths that nothing asks for any more */
		if (after[i] || !before[i]) {
			g->value[g->in[i]].index = n;
			g->in[n++] = g->in[i];
		}
	g->nin = n;
	return graph_compact(g, scratch, e);
}
