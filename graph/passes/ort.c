/*
 * Words for what recognition found: SwiGLU and recurrences of ONNX (pass fuse), and for ONNX Runtime operators of com.microsoft (pass ort). These run
 * after the recognisers, and only when a model is written for them.
 */
#include <math.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/pass.h"

static const struct op *microsoft(const char *name) { return op_newest("com.microsoft", name); }

static const struct type *known(const struct view *w, value_id v) { return &w->g->value[v].type; }

static bool unused(const struct view *w, const struct node *n, uint32_t first)
{
	for (uint32_t i = first; i < n->nout; i++)
		if (n->out[i] && value_uses(w, n->out[i]))
			return false;
	return true;
}

static bool given(const struct node *n, uint32_t i) { return i < n->nin && n->in[i]; }

/* ---- Attention ---- */

enum { Q, K, V, MASK, PAST_K, PAST_V };

static bool is_swap(const struct node *n)
{
	static const int64_t swap[] = { 0, 2, 1, 3 };
	const struct attr *a = n ? node_attr(n, "perm") : NULL;

	return a && a->kind == ATTR_INTS && a->n == 4 && !memcmp(a->ints, swap, sizeof swap);
}

static value_id swapped(struct patch *p, value_id v, const char *hint)
{
	static const int64_t swap[] = { 0, 2, 1, 3 };
	struct attr perm[] = { attr_ints("perm", swap, 4), { .name = NULL } };

	return patch_node(p, "Transpose", hint, PATCH_IN(v), 1, perm);
}

static bool is_rows(const struct shape *r, dim batch, dim length, int64_t width)
{
	return r->rank == 3 && r->d[0] == batch && r->d[1] == length && r->d[2] == width;
}

/* Whether [B, H, L, D] was made of rows [B, L, H D], which are *from. */
static bool made_of_rows(const struct view *w, value_id v, value_id *from)
{
	const struct shape *s = &known(w, v)->shape;
	const struct node *n = value_node(w->g, v);

	if (s->d[1] != 1) {
		if (!n || !node_is(n, "Transpose") || !is_swap(n))
			return false;
		n = value_node(w->g, n->in[0]);
	}
	if (!n || !(node_is(n, "Reshape") || (s->d[1] == 1 && node_is(n, "Unsqueeze"))))
		return false;
	*from = n->in[0];
	return is_rows(&known(w, *from)->shape, s->d[0], s->d[2], s->d[1] * s->d[3]);
}

/* [B, H, L, D], or rows already, as rows [B, L, H D]: where it came from, or turned. */
static value_id rows_of(const struct view *w, struct patch *p, value_id v)
{
	const struct node *turn = value_from(w->g, v, "Transpose");
	const struct shape *s = &known(w, v)->shape;
	value_id x = v;

	if (s->rank == 3 || made_of_rows(w, v, &x))
		return x;
	if (s->d[1] == 1)
		return patch_node(p, "Squeeze", "rows", PATCH_IN(v, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL);
	x = turn && is_swap(turn) ? turn->in[0] : swapped(p, v, "turned");
	return patch_node(p, "Reshape", "rows", PATCH_IN(x, patch_ints(p, (int64_t[]){ 0, 0, s->d[1] * s->d[3] }, 3, "shape")), 1, NULL);
}

/* The result, rows y [B, L, H E], takes the place of attention's output, or of the rows that are made of that. */
static void put_rows(const struct view *w, const struct node *n, struct patch *p, value_id y, int64_t heads, int64_t width)
{
	const struct shape *s = &known(w, n->out[0])->shape;
	const struct node *join = s->rank == 4 ? value_user(w, n->out[0], NULL) : NULL;
	uint32_t index = 0;
	value_id v;

	if (s->rank == 3) {
		patch_replace(p, n->out[0], y);
		return;
	}
	if (join && heads > 1)
		join = node_is(join, "Transpose") && is_swap(join) ? value_user(w, join->out[0], &index) : NULL;
	if (join && !index && (node_is(join, "Reshape") || node_is(join, "Squeeze")) &&
	    is_rows(&known(w, join->out[0])->shape, s->d[0], s->d[2], heads * width)) {
		patch_replace(p, join->out[0], y);
		return;
	}
	if (heads == 1) {
		v = patch_node(p, "Unsqueeze", n->name, PATCH_IN(y, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL);
	} else {
		v = patch_node(p, "Reshape", "heads", PATCH_IN(y, patch_ints(p, (int64_t[]){ 0, 0, heads, width }, 4, "shape")), 1, NULL);
		v = swapped(p, v, n->name);
	}
	patch_replace(p, n->out[0], v);
}

/* An attention that the operators of com.microsoft may say. */
struct heads {
	int64_t q, kv, width, value;
	dim batch, length, keys, past; /* keys: the new ones and those of the past; past 0: none */
	bool causal;
	bool square;                   /* as many queries as new keys */
	struct mask m;
};

/* Without what none of them says. */
static enum linnet_code read_heads(const struct view *w, const struct node *n, struct heads *h, bool *ok, struct linnet_error *e)
{
	const struct shape *q = &known(w, n->in[Q])->shape, *k = &known(w, n->in[K])->shape, *v = &known(w, n->in[V])->shape;
	const struct attr *precision = node_attr(n, "softmax_precision");
	bool rows = q->rank == 3;

	*ok = false;
	*h = (struct heads){ .causal = node_attr(n, "is_causal")->i };
	if (q->rank != k->rank || q->rank != v->rank || (q->rank != 4 && !rows) || given(n, 6) || !unused(w, n, 3) || known(w, n->in[Q])->dt != DT_FLOAT ||
	    (attr_given(precision) && precision->i != DT_FLOAT) || node_attr(n, "right_window_size")->i >= 0)
		return LINNET_OK;
	h->q = rows ? node_attr(n, "q_num_heads")->i : q->d[1];
	h->kv = rows ? node_attr(n, "kv_num_heads")->i : k->d[1];
	if (!dim_is_int(h->q) || !dim_is_int(h->kv) || h->q <= 0 || h->kv <= 0 || h->q % h->kv || (!rows && v->d[1] != h->kv) ||
	    !dim_is_int(q->d[q->rank - 1]) || !dim_is_int(v->d[v->rank - 1]))
		return LINNET_OK;
	h->width = rows ? q->d[2] / h->q : q->d[3];
	h->value = rows ? v->d[2] / h->kv : v->d[3];
	h->batch = q->d[0];
	h->length = q->d[q->rank - 2];
	h->keys = k->d[k->rank - 2];
	h->square = h->length == h->keys;
	if (k->d[0] != h->batch || v->d[0] != h->batch || v->d[v->rank - 2] != h->keys)
		return LINNET_OK;
	if (given(n, PAST_K)) {
		const struct shape *pk = &known(w, n->in[PAST_K])->shape, *pv = given(n, PAST_V) ? &known(w, n->in[PAST_V])->shape : NULL;

		if (!pv || pk->rank != 4 || pv->rank != 4 || pk->d[2] != pv->d[2])
			return LINNET_OK;
		h->past = pk->d[2];
		h->keys = dim_add(w->g->dims, h->past, h->keys);
	} else if (!unused(w, n, 1)) {
		return LINNET_OK;
	}
	if (given(n, MASK)) {
		TRY(mask_classify(w->g, n->in[MASK], &h->m, e));
		h->m.known = h->m.known && (!h->m.data || h->m.shut || known(w, n->in[MASK])->dt != DT_BOOL); /* other data may hide what these do not */
	}
	*ok = true;
	return LINNET_OK;
}

/* That of the queries, int64 [1]. */
static value_id length_of(const struct view *w, const struct node *n, struct patch *p)
{
	int64_t axis = known(w, n->in[Q])->shape.rank - 2;

	return patch_lengths(p, n->in[Q], axis, axis + 1, "length");
}

/* The mask v, of one row for all queries, as it is for each: onnxruntime does not broadcast it. */
static value_id repeat_mask(const struct view *w, const struct node *n, struct patch *p, value_id v, const char *hint)
{
	struct attr axis[] = { attr_int("axis", 0), { .name = NULL } };
	value_id shape = patch_node(p, "Concat", "shape", PATCH_IN(length_of(w, n, p), patch_ints(p, (int64_t[]){ 1 }, 1, "one")), 1, axis);

	return patch_node(p, "Expand", hint, PATCH_IN(v, shape), 1, NULL);
}

/* Some query may, for all that is known of the mask. */
static bool may_see_nothing(const struct view *w, const struct node *n, const struct heads *h)
{
	if (!given(n, MASK))
		return false;
	return h->m.known ? h->m.blind || (h->m.shut && h->m.data) : known(w, n->in[MASK])->dt == DT_BOOL;
}

/* The mask as onnxruntime wants it: additive, [B or 1, H or 1, L, S]. */
static value_id bias_of(const struct view *w, const struct node *n, const struct heads *h, struct patch *p, bool *ok)
{
	const struct type *t = given(n, MASK) ? known(w, n->in[MASK]) : NULL;
	const struct shape *s = t ? &t->shape : NULL;
	static const int64_t lead[] = { 0, 1 };
	value_id v = t ? n->in[MASK] : 0;

	*ok = !t || (s->rank >= 2 && s->rank <= 4 && s->d[s->rank - 1] == h->keys &&
	             (s->d[s->rank - 2] == h->length || s->d[s->rank - 2] == 1) &&
	             (s->rank == 2 || s->d[s->rank - 3] == 1 || !may_see_nothing(w, n, h))); /* heads apart: nothing could be blanked */
	if (!t || !*ok)
		return 0;
	if (t->dt == DT_BOOL)
		v = patch_node(p, "Where", "bias", PATCH_IN(v, patch_float(p, DT_FLOAT, 0, "visible"), patch_float(p, DT_FLOAT, -INFINITY, "hidden")), 1, NULL);
	if (s->rank < 4)
		v = patch_node(p, "Unsqueeze", "bias", PATCH_IN(v, patch_ints(p, lead, 4 - s->rank, "axes")), 1, NULL);
	if (s->d[s->rank - 2] != h->length)
		v = repeat_mask(w, n, p, v, "bias");
	return v;
}

/* ONNX's Attention takes a mask of one row for all queries; onnxruntime's wants as many as there are queries. */
static enum linnet_code mask_of_rows(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct shape *q = &known(w, n->in[Q])->shape, *m = given(n, MASK) ? &known(w, n->in[MASK])->shape : NULL;
	value_id in[6] = { 0 };

	(void)e;
	if (!m || m->rank < 1 || q->rank < 3 || (m->rank > 1 && (m->d[m->rank - 2] != 1 || q->d[q->rank - 2] == 1)))
		return LINNET_OK;
	for (uint32_t i = 0; i < 6 && i < n->nin; i++)
		in[i] = n->in[i];
	in[MASK] = repeat_mask(w, n, p, n->in[MASK], "mask");
	attention_again(p, n, in, (struct attr[]){ { .name = NULL } });
	return LINNET_OK;
}

static struct attr scale_attr(const struct node *n)
{
	const struct attr *a = node_attr(n, "scale");

	return attr_given(a) ? attr_float("scale", a->f) : (struct attr){ .name = NULL };
}

/*
 * What is_causal adds to a mask. A mask that hides the future itself needs nothing. Beside another one onnxruntime looks at the future where both together hide all that
 * a query would see: *ok is false unless every query sees something.
 */
static bool still_causal(const struct view *w, const struct node *n, const struct heads *h, bool *ok)
{
	const struct shape *s = given(n, MASK) ? &known(w, n->in[MASK])->shape : NULL;
	bool rows = s && s->rank > 1 && s->d[s->rank - 2] == h->length; /* else one row is every query's, and says nothing of places */
	bool within = rows && h->m.known && (h->past ? h->m.within_past : h->m.within);

	*ok = !h->causal || !s || within || (h->m.known && (rows ? h->m.shown : h->m.zero));
	return h->causal && !within;
}

/* Where the mask, as bias [B or 1, 1, L, S], hides every key, the result is 0, for which onnxruntime has no number: rows y [B, L, H E] with zeros there. */
static value_id blank_unseeing(const struct view *w, const struct node *n, const struct heads *h, struct patch *p, value_id bias, value_id y)
{
	value_id most;

	if (!may_see_nothing(w, n, h))
		return y;
	most = patch_node(p, "ReduceMax", "most", PATCH_IN(bias, patch_ints(p, (int64_t[]){ 3 }, 1, "axes")), 1, NULL);
	most = patch_node(p, "Squeeze", "most", PATCH_IN(most, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL);
	most = patch_node(p, "Equal", "unseeing", PATCH_IN(most, patch_float(p, DT_FLOAT, -INFINITY, "hidden")), 1, NULL);
	return patch_node(p, "Where", "seen", PATCH_IN(most, patch_float(p, DT_FLOAT, 0, "nothing"), y), 1, NULL);
}

static void put_caches(const struct node *n, struct patch *p, value_id y)
{
	for (uint32_t i = 1; i < 3 && i < n->nout; i++)
		if (n->out[i])
			patch_replace(p, n->out[i], y + i);
}

/* Heads of keys or values [B, Hkv, S, D], each `times` times: [B, H, S, D]. */
static value_id repeated(struct patch *p, value_id v, int64_t heads, int64_t times, int64_t width)
{
	v = patch_node(p, "Unsqueeze", "group", PATCH_IN(v, patch_ints(p, (int64_t[]){ 2 }, 1, "axes")), 1, NULL);
	v = patch_node(p, "Expand", "group", PATCH_IN(v, patch_ints(p, (int64_t[]){ 1, 1, times, 1, 1 }, 5, "shape")), 1, NULL);
	return patch_node(p, "Reshape", "repeated", PATCH_IN(v, patch_ints(p, (int64_t[]){ 0, heads * times, -1, width }, 4, "shape")), 1, NULL);
}

/* As many heads of keys as of queries; or fewer where GroupQueryAttention says it not, and no other operator of the opset. */
static enum linnet_code ort_multihead(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const char *const hint[] = { [K] = "key", [V] = "value" };
	struct attr attr[4] = { { .name = NULL } }, join[] = { attr_int("axis", 2), { .name = NULL } };
	value_id in[8] = { 0 }, all[6] = { 0 }, y, rows;
	struct heads h;
	bool ok, causal, grouped;
	int k = 0;

	TRY(read_heads(w, n, &h, &ok, e));
	if (!ok || node_attr(n, "softcap")->f != 0 || node_attr(n, "left_window_size")->i >= 0)
		return LINNET_OK;
	causal = still_causal(w, n, &h, &ok);
	grouped = h.q != h.kv;
	if (!ok || (causal && !h.square) || (h.past && h.value != h.width) ||
	    (grouped && (causal || h.value != h.width || known(w, n->in[K])->shape.rank != 4 || op_find(NULL, "Attention", w->g->opset ? w->g->opset : OPSET_NEWEST))))
		return LINNET_OK;
	in[5] = bias_of(w, n, &h, p, &ok);
	if (!ok)
		return LINNET_OK;
	in[0] = rows_of(w, p, n->in[Q]);
	for (int i = K; i <= V; i++) {
		all[i] = n->in[i];
		if (grouped && h.past)
			all[i] = patch_node(p, "Concat", hint[i], PATCH_IN(n->in[PAST_K + i - K], n->in[i]), 1, join);
		if (grouped)
			in[i] = repeated(p, all[i], h.kv, h.q / h.kv, h.width);
	}
	if (!grouped && known(w, n->in[K])->shape.rank == 4 && !h.past && h.value == h.width && (h.square || !causal) &&
	    !made_of_rows(w, n->in[K], &rows) && !made_of_rows(w, n->in[V], &rows)) {
		in[1] = n->in[K]; /* it reads heads as well as rows, when both are alike */
		in[2] = n->in[V];
	} else if (!grouped) {
		in[1] = rows_of(w, p, n->in[K]);
		in[2] = rows_of(w, p, n->in[V]);
		in[6] = h.past ? n->in[PAST_K] : 0;
		in[7] = h.past ? n->in[PAST_V] : 0;
	}
	attr[k++] = attr_int("num_heads", h.q);
	if (causal)
		attr[k++] = attr_int("unidirectional", 1);
	attr[k] = scale_attr(n);
	y = patch_op(p, microsoft("MultiHeadAttention"), n->name, in, in[7] ? 8 : in[5] ? 6 : 3, in[7] ? 3 : 1, attr);
	put_rows(w, n, p, blank_unseeing(w, n, &h, p, in[5], y), h.q, h.value);
	if (in[7])
		put_caches(n, p, y);
	for (uint32_t i = K; i <= V && grouped && h.past; i++)
		if (i < n->nout && n->out[i])
			patch_replace(p, n->out[i], all[i]);
	return LINNET_OK;
}

/*
 * Fewer heads of keys, a soft cap or a window. seqlens_k and total_sequence_length say of each batch entry that it is as long as the others: which
 * keys count is the mask's to say, because a padding mask may hide keys anywhere. With a past onnxruntime takes one sequence or one token at a time.
 */
static enum linnet_code ort_grouped(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct attr to[] = { attr_int("to", DT_INT32), { .name = NULL } }, attr[7] = { { .name = NULL } };
	value_id in[11] = { 0 }, total, last, y;
	double cap = node_attr(n, "softcap")->f;
	int64_t window = node_attr(n, "left_window_size")->i;
	struct heads h;
	bool ok, causal;
	int k = 0;

	TRY(read_heads(w, n, &h, &ok, e));
	if (!ok || h.value != h.width || h.width % 8 || (h.q == h.kv && cap == 0 && window < 0) || !h.square || (h.past && h.batch != 1 && h.length != 1))
		return LINNET_OK;
	causal = still_causal(w, n, &h, &ok);
	if (!ok || (window >= 0 && (!causal || (given(n, MASK) && !h.m.zero)))) /* what a mask shows may lie outside of the window */
		return LINNET_OK;
	in[10] = bias_of(w, n, &h, p, &ok);
	if (!ok)
		return LINNET_OK;
	for (int i = Q; i <= V; i++)
		in[i] = rows_of(w, p, n->in[i]);
	in[3] = h.past ? n->in[PAST_K] : 0;
	in[4] = h.past ? n->in[PAST_V] : 0;
	total = length_of(w, n, p);
	if (h.past)
		total = patch_node(p, "Add", "total", PATCH_IN(total, patch_lengths(p, n->in[PAST_K], 2, 3, "past")), 1, NULL);
	total = patch_node(p, "Cast", "total", PATCH_IN(total), 1, to);
	last = patch_node(p, "Sub", "last", PATCH_IN(total, patch_node(p, "Cast", "one", PATCH_IN(patch_int(p, 1, "one")), 1, to)), 1, NULL);
	in[5] = patch_node(p, "Expand", "lengths", PATCH_IN(last, patch_lengths(p, n->in[Q], 0, 1, "batch")), 1, NULL);
	in[6] = patch_node(p, "Squeeze", "total", PATCH_IN(total, patch_ints(p, (int64_t[]){ 0 }, 1, "axes")), 1, NULL);
	attr[k++] = attr_int("num_heads", h.q);
	attr[k++] = attr_int("kv_num_heads", h.kv);
	if (!causal)
		attr[k++] = attr_int("causal", 0);
	if (window >= 0)
		attr[k++] = attr_int("local_window_size", window + 1);
	if (cap > 0)
		attr[k++] = attr_float("softcap", cap);
	attr[k] = scale_attr(n);
	y = patch_op(p, microsoft("GroupQueryAttention"), n->name, in, in[10] ? 11 : 7, 3, attr);
	put_rows(w, n, p, blank_unseeing(w, n, &h, p, in[10], y), h.q, h.width);
	put_caches(n, p, y);
	return LINNET_OK;
}

static enum linnet_code ort_rotary(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct attr *names[] = { node_attr(n, "interleaved"), node_attr(n, "num_heads"), node_attr(n, "rotary_embedding_dim") };
	struct attr attr[4] = { { .name = NULL } };
	int k = 0;

	(void)e;
	if (!given(n, 3) || known(w, n->in[1])->shape.rank != 2 || known(w, n->in[3])->dt != DT_INT64 || known(w, n->in[0])->dt == DT_BFLOAT16)
		return LINNET_OK;
	for (int i = 0; i < 3; i++)
		if (names[i]->kind == ATTR_INT && names[i]->i)
			attr[k++] = attr_int(names[i]->name, names[i]->i);
	patch_replace(p, n->out[0], patch_op(p, microsoft("RotaryEmbedding"), n->name, PATCH_IN(n->in[0], n->in[3], n->in[1], n->in[2]), 1, attr));
	return LINNET_OK;
}

/* ---- Recurrences ---- */

/* The same node in the other domain, where both have what it says. */
static enum linnet_code in_domain(const struct view *w, const struct node *n, const struct op *to, struct patch *p)
{
	value_id in[8] = { 0 }, y;
	struct attr attr[16];
	int na = 0;

	if (!unused(w, n, 2) || n->nin > 8)
		return LINNET_OK;
	memcpy(in, n->in, n->nin * sizeof *in);
	for (uint32_t i = 0; i < n->nattr && na < 15; i++) {
		const struct op_attr *row = &n->op->attr[i];

		if (op_attr_index(to, row->name) >= 0) {
			if (n->attr[i].given)
				attr[na++] = n->attr[i];
		} else if (!attr_is_default(row, &n->attr[i])) {
			return LINNET_OK;
		}
	}
	attr[na] = (struct attr){ .name = NULL };
	y = patch_op(p, to, n->name, in, n->nin, 2, attr);
	patch_replace(p, n->out[0], y);
	if (n->nout > 1 && n->out[1])
		patch_replace(p, n->out[1], y + 1);
	return LINNET_OK;
}

static bool is_recurrence(const struct node *n, const char *domain)
{
	return (domain ? n->op->domain && !strcmp(n->op->domain, domain) : !n->op->domain) &&
	       (!strcmp(n->op->name, "LinearAttention") || !strcmp(n->op->name, "CausalConvWithState"));
}

static enum linnet_code ort_recurrence(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	return is_recurrence(n, NULL) ? in_domain(w, n, microsoft(n->op->name), p) : LINNET_OK;
}

static enum linnet_code fuse_recurrence(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	return is_recurrence(n, "com.microsoft") ? in_domain(w, n, op_newest(NULL, n->op->name), p) : LINNET_OK;
}

/* ---- Rules as text ---- */

static bool same_shape(const struct match *m) { return shape_equal(&match_type(m, "gate")->shape, &match_type(m, "up")->shape); }

static bool width_known(const struct match *m) { return dim_is_int(match_type(m, "w")->shape.d[0]); }

/* b [D] is added to the last axis of x [..., D]. */
static bool is_bias(const struct match *m)
{
	const struct shape *x = &match_type(m, "x")->shape, *b = &match_type(m, "b")->shape;

	return x->rank > 1 && x->d[x->rank - 1] == b->d[0] && dim_is_int(b->d[0]);
}

static const struct rule fuse_rules[] = {
	{ .name = "fuse/swiglu", .doc = "Swish(a) b becomes SwiGLU", .anchor = "Mul",
	  .from = "(float[] gate, float[] up) => (y) { s = Swish <alpha: float = @alpha> (gate)  y = Mul (s, up) }",
	  .to = "{ y = SwiGLU <alpha: float = @alpha> (gate, up) }", .guard = same_shape, .differs = 1e-5 },
	{ .name = "fuse/mask", .doc = "Attention's mask of one row is repeated for each query, as onnxruntime wants it", .anchor = "Attention", .apply = mask_of_rows,
	  .differs = 1e-12 },
	{ .name = "fuse/recurrence", .doc = "com.microsoft's LinearAttention and CausalConvWithState become ONNX's where they say no more", .apply = fuse_recurrence, .differs = 1e-5 },
};

static const struct rule ort_rules[] = {
	{ .name = "ort/grouped", .doc = "Attention with fewer heads of keys, a soft cap or a window becomes GroupQueryAttention", .anchor = "Attention", .apply = ort_grouped, .differs = 1e-5 },
	{ .name = "ort/multihead", .doc = "Attention, masked or cached too, becomes MultiHeadAttention", .anchor = "Attention", .apply = ort_multihead, .differs = 1e-5 },
	{ .name = "ort/mask", .doc = "Attention that stays ONNX's has its mask of one row repeated for each query", .anchor = "Attention", .apply = mask_of_rows, .differs = 1e-12 },
	{ .name = "ort/recurrence", .doc = "LinearAttention and CausalConvWithState become those of com.microsoft", .apply = ort_recurrence, .differs = 1e-5 },
	{ .name = "ort/rotary", .doc = "RotaryEmbedding by positions becomes that of com.microsoft", .anchor = "RotaryEmbedding", .apply = ort_rotary, .differs = 1e-5 },
	{ .name = "ort/skip-layer", .doc = "LayerNormalization of a sum becomes SkipLayerNormalization", .anchor = "LayerNormalization",
	  .from = "(float[B,T,D] a, float[B,T,D] b, float[D] w, float[D] c) => (y, s)\n"
	          "{ s = Add (a, b)  y = LayerNormalization <epsilon: float = @epsilon> (s, w, c) }",
	  .to = "{ y, mean, inverse, s = com.microsoft.SkipLayerNormalization <epsilon: float = @epsilon> (a, b, w, c) }",
	  .guard = width_known, .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/skip-layer-plain", .doc = "the same without a bias", .anchor = "LayerNormalization",
	  .from = "(float[B,T,D] a, float[B,T,D] b, float[D] w) => (y, s)\n"
	          "{ s = Add (a, b)  y = LayerNormalization <epsilon: float = @epsilon> (s, w) }",
	  .to = "{ y, mean, inverse, s = com.microsoft.SkipLayerNormalization <epsilon: float = @epsilon> (a, b, w) }",
	  .guard = width_known, .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/skip-rms", .doc = "RMSNormalization of a sum becomes SkipSimplifiedLayerNormalization", .anchor = "RMSNormalization",
	  .from = "(float[B,T,D] a, float[B,T,D] b, float[D] w) => (y, s)\n"
	          "{ s = Add (a, b)  y = RMSNormalization <epsilon: float = @epsilon> (s, w) }",
	  .to = "{ y, mean, inverse, s = com.microsoft.SkipSimplifiedLayerNormalization <epsilon: float = @epsilon> (a, b, w) }",
	  .guard = width_known, .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/gelu-bias", .doc = "Gelu of a sum with a row becomes BiasGelu", .anchor = "Gelu",
	  .from = "(float[] x, float[D] b) => (y) { s = Add (x, b)  y = Gelu (s) }",
	  .to = "{ y = com.microsoft.BiasGelu (x, b) }", .guard = is_bias, .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/gelu", .doc = "Gelu becomes Gelu of com.microsoft", .anchor = "Gelu",
	  .from = "(float[] x) => (y) { y = Gelu (x) }",
	  .to = "{ y = com.microsoft.Gelu (x) }", .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/fast-gelu-bias", .doc = "Gelu by tanh of a sum with a row becomes FastGelu", .anchor = "Gelu",
	  .from = "(float[] x, float[D] b) => (y) { s = Add (x, b)  y = Gelu <approximate = \"tanh\"> (s) }",
	  .to = "{ y = com.microsoft.FastGelu (x, b) }", .guard = is_bias, .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/fast-gelu", .doc = "Gelu by tanh becomes FastGelu", .anchor = "Gelu",
	  .from = "(float[] x) => (y) { y = Gelu <approximate = \"tanh\"> (x) }",
	  .to = "{ y = com.microsoft.FastGelu (x) }", .types = SET(FLOAT), .differs = 1e-5 },
	{ .name = "ort/quick-gelu", .doc = "Swish becomes QuickGelu", .anchor = "Swish",
	  .from = "(float[] x) => (y) { y = Swish <alpha: float = @alpha> (x) }",
	  .to = "{ y = com.microsoft.QuickGelu <alpha: float = @alpha> (x) }", .types = SET(FLOAT), .differs = 1e-5 },
};

const struct pass fuse_pass = { .name = "fuse", .doc = "Write gated units and recurrences in one operator", .kind = PASS_EXACT, PASS_RULES(fuse_rules) };
const struct pass ort_pass = { .name = "ort", .doc = "Write com.microsoft's operators", .kind = PASS_EXACT, PASS_RULES(ort_rules) };
