/* Finding the structure of a network: residual sums, what lies in them, and how they follow each other. */
#include "graph/blocks.h"

#include <stdlib.h>
#include <string.h>

const char *const block_words[BLOCK_KINDS] = { "model", "part", "layer", "group", "attention", "cross attention", "gated unit", "MLP", "token mixing", "convolution",
	                                       "recurrence", "attention and feed-forward", "experts", "residual", "nested", "embedding", "change",
	                                       "norm", "head", "shared", "step" };

enum { MAX_TERMS = 8, MAX_DEPTH = 16, MAX_PERIOD = 8, MAX_THROUGH = 16, MAX_BEHIND = 24 };

enum step { STEP_NONE, STEP_PROJECTION, STEP_CONV, STEP_NORM, STEP_ATTENTION, STEP_GLU, STEP_ACTIVATION, STEP_RECURRENCE, STEP_EXPERTS, STEP_POSITION,
	    STEP_LOOKUP };

/* A block while it is being found. */
struct draft {
	enum block_kind kind;
	value_id in, out, branch; /* branch: of a block that is no sum, where its result leaves it */
	node_id sum, unit;        /* the sum; without one the attention or gated unit it was found by */
	uint32_t place;           /* of out's producer in the order */
	bool post_norm;
	int terms;                /* of the sum */
	int parent, prev, part;   /* drafts and parts, from 1; 0: none */
	int depth;
	node_id *own;             /* nodes directly in it, in order */
	uint32_t nown;
};

struct part {
	int parent;               /* the draft it is nested in */
	int first, last, embedding, norm, lead; /* drafts */
	bool causal, crossed, attends;          /* attention in it is causal, takes another part's keys, is there */
	bool feeds;               /* another part takes keys from it */
};

struct maker {
	const struct graph *g;
	struct view w;
	struct arena *a;
	struct linnet_error *e;
	node_id *order;
	uint32_t n;
	uint32_t *place;          /* of nodes in the order */
	uint8_t *step;            /* of nodes, enum step */
	const struct attention_group **attention;
	const struct glu_group **glu;
	struct mixtures mixed;
	int *owner;               /* of nodes, drafts from 1; 0 */
	bool *main;               /* nodes on a way from a block's input to its output */
	bool *scores;             /* nodes that make scores and masks of attentions, or lengths alone: no sum of theirs is a block's */
	uint32_t *seen, *down;    /* stamps */
	uint32_t stamp;
	node_id *stack, *list;
	int64_t budget;           /* nodes that may yet be visited in search of sums */
	struct draft *draft;      /* from 1 */
	int ndraft, cap_draft;
	struct part *part;        /* from 1 */
	int npart, cap_part;
	int *memory;              /* of the first nmemory drafts: the part whose output a cross attention reads */
	int nmemory;
	int head, shared;
};

static bool is_op(const struct node *n, const char *domain, const char *name)
{
	return n->op->domain && !strcmp(n->op->domain, domain) && !strcmp(n->op->name, name);
}

static bool among(const char *s, const char *const *names)
{
	for (; *names; names++)
		if (!strcmp(s, *names))
			return true;
	return false;
}

static node_id producer(const struct graph *g, value_id v)
{
	return v && g->value[v].kind == VALUE_NODE ? g->value[v].producer : 0;
}

static bool is_real(const struct graph *g, value_id v)
{
	return v && (dtype_in(g->value[v].type.dt, FLOATS) || dtype_in(g->value[v].type.dt, SET(UINT8) | SET(INT8)));
}

/* ---- What nodes are ---- */

static bool is_skip_norm(const struct node *n)
{
	return is_op(n, "com.microsoft", "SkipLayerNormalization") || is_op(n, "com.microsoft", "SkipSimplifiedLayerNormalization") ||
	       is_op(n, "com.microsoft", "SkipGroupNorm");
}

static bool is_sum(const struct node *n)
{
	return node_is(n, "Add") || node_is(n, "Sum") || is_op(n, "com.microsoft", "QLinearAdd") || is_skip_norm(n);
}

/* The sum's operands among its inputs. */
static int operands(const struct node *n, value_id *v)
{
	int count = 0;

	for (uint32_t i = 0; i < n->nin && count < MAX_TERMS; i++) {
		const struct op_io *io = op_in(n->op, (int)i);

		if (!n->in[i] || !io)
			continue;
		if (is_skip_norm(n) ? among(io->name, (const char *const[]){ "input", "skip", "X", NULL })
		                    : node_is(n, "Add") || node_is(n, "Sum") || i == 0 || i == 3)
			v[count++] = n->in[i];
	}
	return count;
}

static enum step step_of(const struct graph *g, const struct node *n)
{
	static const char *const activations[] = { "Relu", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Swish", "HardSwish", "Elu", "Selu", "Celu", "LeakyRelu",
		                                   "PRelu", "Mish", "ThresholdedRelu", "Clip", "Tanh", "Sigmoid", "Softplus", "Erf", "QLinearSigmoid",
		                                   "QLinearLeakyRelu", "HardSigmoid", NULL };
	static const char *const recurrent[] = { "LSTM", "GRU", "RNN", "Scan", "Loop", "LinearAttention", "CausalConvWithState", "DynamicQuantizeLSTM",
		                                 NULL };
	static const char *const experts[] = { "MoE", "QMoE", NULL };
	static const char *const convs[] = { "Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "ConvInteger", "QLinearConv", "DeformConv", NULL };
	static const char *const lookups[] = { "Gather", "EmbedLayerNormalization", "QEmbedLayerNormalization", "GatherBlockQuantized", NULL };
	const char *name = n->op->name;

	if (node_is_glu(n))
		return STEP_GLU;
	if (node_norm(g, n) >= 0 || !strcmp(name, "InstanceNormalization") || !strcmp(name, "LpNormalization"))
		return STEP_NORM;
	if (among(name, convs) && n->nin > 1)
		return STEP_CONV;
	if (among(name, recurrent))
		return STEP_RECURRENCE;
	if (among(name, experts))
		return STEP_EXPERTS;
	if (is_projection(g, n))
		return STEP_PROJECTION;
	if (!strcmp(name, "RotaryEmbedding"))
		return STEP_POSITION;
	if (among(name, activations) && n->nout && is_real(g, n->out[0]))
		return STEP_ACTIVATION;
	if (among(name, lookups) && n->nout && dtype_in(g->value[n->out[0]].type.dt, FLOATS) && !value_is_weight(g, n->out[0]))
		for (uint32_t i = 0; i < n->nin; i++)
			if (value_is_weight(g, n->in[i]) && n->in[i] && g->value[n->in[i]].type.shape.rank == 2)
				return STEP_LOOKUP;
	return STEP_NONE;
}

/* Computes with weights, or mixes tokens: what makes a sum of it and its input a block. */
static bool is_core(enum step s)
{
	return s == STEP_PROJECTION || s == STEP_CONV || s == STEP_ATTENTION || s == STEP_GLU || s == STEP_RECURRENCE || s == STEP_EXPERTS;
}

static enum linnet_code classify(struct maker *m)
{
	TRY(graph_experts(&m->w, m->a, &m->mixed, m->e));
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];
		struct attention_group f;
		bool found;

		m->place[id] = i + 1;
		m->step[id] = (uint8_t)step_of(m->g, n);
		TRY(node_attention(&m->w, n, m->a, &found, &f, m->e));
		if (found) {
			m->step[id] = STEP_ATTENTION;
			m->attention[id] = arena_dup(m->a, &f, sizeof f);
			if (!m->attention[id])
				return fail_mem(m->e);
		} else if (m->step[id] == STEP_GLU) {
			struct glu_group unit;

			if (!node_glu(m->g, n, m->a, &unit))
				return fail_mem(m->e);
			m->glu[id] = arena_dup(m->a, &unit, sizeof unit);
			if (!m->glu[id])
				return fail_mem(m->e);
		}
	}
	return LINNET_OK;
}

/* Whether n is a softmax that stands for an attention that stays as it is. */
static bool is_kept(const struct maker *m, node_id id)
{
	const struct node *n = &m->g->node[id];

	return m->attention[id] && (node_is(n, "Softmax") || node_is(n, "Div") || is_op(n, "com.microsoft", "QLinearSoftmax"));
}

/* A product with a constant for each head: beside a softmax, a memory of keys or values. */
static bool is_memory(const struct maker *m, node_id id)
{
	const struct node *n = &m->g->node[id];

	return node_is(n, "MatMul") && m->step[id] == STEP_PROJECTION && m->g->value[n->in[1]].type.shape.rank > 2;
}

/* From masks and scores back to what computes with weights; and what only lengths are read of. */
static void mark_scores(struct maker *m)
{
	uint32_t top = 0;

	for (uint32_t i = m->n; i-- > 0;) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];
		bool data = false;

		for (uint32_t k = 0; k < n->nout && !data; k++)
			for (uint32_t u = n->out[k] ? m->w.uses.begin[n->out[k]] : 0; n->out[k] && u < m->w.uses.end[n->out[k]] && !data; u++) {
				node_id user = m->w.uses.use[u].node;

				data = !user || (!m->scores[user] && !(m->g->node[user].op->flags & OP_SHAPE_ONLY));
			}
		m->scores[id] = !data;
	}
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];

		for (uint32_t k = is_kept(m, id) ? 0 : 3; m->attention[id] && k < n->nin; k++) {
			const struct op_io *io = op_in(n->op, (int)k);
			node_id p = n->in[k] ? m->g->value[n->in[k]].producer : 0;

			if (p && m->g->value[n->in[k]].kind == VALUE_NODE && !m->scores[p] && (is_kept(m, id) || (io && (strstr(io->name, "mask") || strstr(io->name, "bias"))))) {
				m->scores[p] = true;
				m->stack[top++] = p;
			}
		}
	}
	while (top) {
		node_id id = m->stack[--top];
		const struct node *n = &m->g->node[id];

		if (is_memory(m, id))
			m->step[id] = STEP_NONE;
		if (is_core((enum step)m->step[id]) || m->step[id] == STEP_NORM || n->op->flags & OP_SHAPE_ONLY)
			continue;
		for (uint32_t i = 0; i < n->nin; i++) {
			node_id p = n->in[i] && m->g->value[n->in[i]].kind == VALUE_NODE ? m->g->value[n->in[i]].producer : 0;

			if (p && !m->scores[p]) {
				m->scores[p] = true;
				m->stack[top++] = p;
			}
		}
	}
}

/* ---- Walking ---- */

static uint32_t place_of(const struct maker *m, value_id v)
{
	return m->place[producer(m->g, v)]; /* 0 for inputs and constants */
}

/* v is value a, or another output of the node that makes a sum and its norm. */
static bool is_of(const struct maker *m, value_id v, value_id a)
{
	node_id p = producer(m->g, v);

	return v && (v == a || (p && p == producer(m->g, a) && is_skip_norm(&m->g->node[p])));
}

static int by_place(const void *a, const void *b)
{
	node_id x = *(const node_id *)a, y = *(const node_id *)b;

	return (x > y) - (x < y);
}

/* Nodes on ways from value a to node `to` (which is one of them), in order, to m->list. */
static uint32_t between(struct maker *m, value_id a, node_id to)
{
	uint32_t top = 0, nseen = 0, count = 0, low = place_of(m, a);

	m->stamp++;
	m->stack[top++] = to;
	m->seen[to] = m->stamp;
	while (top) {
		node_id id = m->stack[--top];
		const struct node *n = &m->g->node[id];

		m->list[nseen++] = m->place[id];
		if (--m->budget < 0)
			return 0;
		for (uint32_t i = 0; i < n->nin && !(n->op->flags & OP_SHAPE_ONLY); i++) {
			node_id p = producer(m->g, n->in[i]);

			if (p && m->place[p] > low && m->seen[p] != m->stamp) {
				m->seen[p] = m->stamp;
				m->stack[top++] = p;
			}
		}
	}
	qsort(m->list, nseen, sizeof *m->list, by_place);
	for (uint32_t i = 0; i < nseen; i++) {
		node_id id = m->order[m->list[i] - 1];
		const struct node *n = &m->g->node[id];
		bool down = false;

		for (uint32_t k = 0; k < n->nin && !down && !(n->op->flags & OP_SHAPE_ONLY); k++) {
			node_id p = producer(m->g, n->in[k]);

			down = is_of(m, n->in[k], a) || (p && m->down[p] == m->stamp);
		}
		if (down) {
			m->down[id] = m->stamp;
			m->list[count++] = id;
		}
	}
	return count && m->list[count - 1] == to ? count : 0;
}

/* The value v is made of by layout, casts and scaling alone. */
static value_id through(const struct maker *m, value_id v)
{
	static const char *const plain[] = { "Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten", "QuantizeLinear",
		                             "DequantizeLinear", "Dropout", NULL };

	for (int steps = 0; steps < MAX_THROUGH; steps++) {
		node_id p = producer(m->g, v);
		const struct node *n = &m->g->node[p];

		if (!p)
			break;
		if (among(n->op->name, plain))
			v = n->in[0];
		else if (node_is(n, "Mul") && (value_is_weight(m->g, n->in[0]) || value_is_weight(m->g, n->in[1])))
			v = n->in[value_is_weight(m->g, n->in[0])];
		else if (node_is(n, "Div") && value_is_weight(m->g, n->in[1]))
			v = n->in[0];
		else
			break;
	}
	return v;
}

/* ---- Blocks ---- */

static int draft_add(struct maker *m, enum block_kind kind)
{
	if (m->ndraft + 1 >= m->cap_draft) {
		int cap = m->cap_draft ? 2 * m->cap_draft : 64;
		struct draft *to = NEW(m->a, (size_t)cap, struct draft);

		if (!to)
			return 0;
		if (m->ndraft)
			memcpy(to, m->draft, (size_t)(m->ndraft + 1) * sizeof *to);
		m->draft = to;
		m->cap_draft = cap;
	}
	m->draft[++m->ndraft] = (struct draft){ .kind = kind };
	return m->ndraft;
}

/* Summands of node n; sums without other use are taken apart. */
static int terms_of(const struct maker *m, const struct node *n, value_id *term)
{
	value_id open[MAX_TERMS];
	int nopen = operands(n, open), count = 0;

	while (nopen) {
		value_id v = open[--nopen];
		node_id p = producer(m->g, v);

		if (p && node_is(&m->g->node[p], "Add") && value_uses(&m->w, v) == 1 && nopen + 2 < MAX_TERMS)
			nopen += operands(&m->g->node[p], open + nopen);
		else if (!value_is_weight(m->g, v) && count < MAX_TERMS)
			term[count++] = v;
	}
	return count;
}

static void sort_by_place(const struct maker *m, value_id *v, int n)
{
	for (int i = 1; i < n; i++)
		for (int k = i; k && place_of(m, v[k]) < place_of(m, v[k - 1]); k--) {
			value_id t = v[k];

			v[k] = v[k - 1];
			v[k - 1] = t;
		}
}

/* Where the stream goes on behind the sum. */
static value_id sum_output(const struct maker *m, const struct node *n, bool *normed)
{
	int sum = is_skip_norm(n) ? (is_op(n, "com.microsoft", "SkipGroupNorm") ? 1 : 3) : 0;

	*normed = false;
	if (!sum)
		return n->out[0];
	if ((int)n->nout > sum && n->out[sum] && value_uses(&m->w, n->out[sum]))
		return n->out[sum];
	*normed = true;
	return n->out[0];
}

/* A sum of a value and of something computed from it. */
static enum linnet_code find_sum(struct maker *m, node_id id)
{
	const struct node *n = &m->g->node[id];
	value_id term[MAX_TERMS], root[MAX_TERMS];
	int nterm, at = 0;
	uint32_t count = 0;

	if (!is_sum(n) || m->scores[id] || !n->nout || !is_real(m->g, n->out[0]) || m->g->value[n->out[0]].type.shape.rank < 2)
		return LINNET_OK;
	nterm = terms_of(m, n, term);
	for (int i = 0; i < nterm; i++)
		root[i] = through(m, term[i]);
	sort_by_place(m, root, nterm);
	for (int i = 0; i < nterm && nterm > 1 && !at; i++) {
		bool core = false;

		if (value_is_weight(m->g, root[i]))
			continue;
		count = between(m, root[i], id);
		for (uint32_t k = 0; k < count; k++)
			core = core || is_core((enum step)m->step[m->list[k]]);
		if (!core)
			continue;
		/* a sum taken apart was one with the same input: x + f(x), and then + g(x) */
		for (uint32_t k = 0; k < n->nin && !at; k++) {
			node_id p = producer(m->g, n->in[k]);
			int inner = p ? m->owner[p] : 0;

			if (inner && m->draft[inner].sum == p && m->draft[inner].in == root[i] && value_uses(&m->w, n->in[k]) == 1)
				at = inner;
		}
		if (!at)
			at = draft_add(m, BLOCK_OTHER);
		if (!at)
			return fail_mem(m->e);
		m->draft[at].in = root[i];
	}
	if (!at)
		return LINNET_OK;
	m->draft[at].sum = id;
	m->draft[at].out = sum_output(m, n, &m->draft[at].post_norm);
	m->draft[at].place = m->place[id];
	m->draft[at].terms = nterm;
	for (uint32_t k = 0; k < count; k++) {
		int inner = m->owner[m->list[k]];

		if (!inner) {
			m->owner[m->list[k]] = at;
			m->main[m->list[k]] = true;
		} else if (inner != at && m->draft[inner].sum == m->list[k] && !m->draft[inner].parent) {
			m->draft[inner].parent = at;
		}
	}
	return LINNET_OK;
}

/* The node of the product with values behind a softmax that stays; the node itself of other units. */
static node_id unit_end(struct maker *m, node_id id)
{
	const struct node *n = &m->g->node[id];
	value_id v = n->nout ? n->out[0] : 0;

	if (!is_kept(m, id))
		return id;
	for (int steps = 0; steps < MAX_BEHIND && v; steps++) {
		value_id next = 0;

		for (uint32_t i = m->w.uses.begin[v]; i < m->w.uses.end[v]; i++) {
			node_id u = m->w.uses.use[i].node;
			const char *name = m->g->node[u].op ? m->g->node[u].op->name : "";

			if (!u)
				continue;
			if (is_memory(m, u))
				m->step[u] = STEP_NONE;
			if (m->step[u] != STEP_PROJECTION && among(name, (const char *const[]){ "MatMul", "FusedMatMul", "QLinearMatMul", NULL }))
				return u;
			next = next || m->g->node[u].nout == 0 || (m->g->node[u].op->flags & OP_SHAPE_ONLY) ? next : m->g->node[u].out[0];
		}
		v = next;
	}
	return id;
}

/* Nodes from the unit back to the projections in front of it. *other: a block found already that shares some. */
static uint32_t unit_nodes(struct maker *m, node_id id, node_id end, int *other)
{
	uint32_t top = 0, count = 0;

	m->stamp++;
	m->stack[top++] = end;
	m->seen[end] = m->stamp;
	if (m->seen[id] != m->stamp) {
		m->seen[id] = m->stamp;
		m->stack[top++] = id;
	}
	while (top) {
		node_id at = m->stack[--top];
		const struct node *n = &m->g->node[at];
		uint32_t nin = at == end && end == id && m->step[id] == STEP_ATTENTION && n->nin > 3 ? 3 : n->nin;

		m->list[count++] = at;
		if (n->op->flags & OP_SHAPE_ONLY || (at != end && is_core((enum step)m->step[at]) && m->step[at] != STEP_ATTENTION))
			continue;
		for (uint32_t i = 0; i < nin; i++) {
			node_id p = producer(m->g, n->in[i]);

			if (!p || m->seen[p] == m->stamp || !is_real(m->g, n->in[i]) || m->step[p] == STEP_LOOKUP)
				continue;
			m->seen[p] = m->stamp;
			if (!m->owner[p])
				m->stack[top++] = p;
			else if (m->draft[m->owner[p]].unit && m->step[m->draft[m->owner[p]].unit] == m->step[id] &&
			         m->place[p] < m->place[m->draft[m->owner[p]].unit])
				*other = m->owner[p];
		}
	}
	return count;
}

/* The node that alone uses v's data; 0. */
static node_id only_user(const struct maker *m, value_id v)
{
	node_id found = 0;

	for (uint32_t i = v ? m->w.uses.begin[v] : 0; v && i < m->w.uses.end[v]; i++) {
		node_id user = m->w.uses.use[i].node;

		if (user && m->g->node[user].op->flags & OP_SHAPE_ONLY)
			continue;
		if (!user || found)
			return 0;
		found = user;
	}
	return found;
}

/* An attention or gated unit outside of sums, with the projections around it. */
static enum linnet_code find_unit(struct maker *m, node_id id)
{
	node_id end = unit_end(m, id), last = end;
	node_id user;
	bool done = false; /* behind the projection behind it */
	int at = 0;
	uint32_t count = unit_nodes(m, id, end, &at);
	value_id v;

	if (!at)
		at = draft_add(m, BLOCK_OTHER);
	if (!at)
		return fail_mem(m->e);
	for (uint32_t i = 0; i < count; i++) {
		m->owner[m->list[i]] = at;
		m->main[m->list[i]] = true;
	}
	v = m->g->node[end].out[0];
	while ((user = only_user(m, v)) != 0) {
		const struct node *n = &m->g->node[user];
		bool weighted = is_sum(n) && (value_is_weight(m->g, n->in[0]) || value_is_weight(m->g, n->in[1]));

		if (!n->nout || m->step[user] == STEP_NORM)
			break;
		if (done && !weighted && through(m, n->out[0]) == n->out[0])
			break;
		if (m->owner[user]) {
			struct draft *d = &m->draft[m->owner[user]];

			if (m->owner[user] == at || !d->unit || m->step[d->unit] != m->step[id])
				break;
			/* heads joined by what is another block's: one block */
			for (uint32_t i = 0; i < m->n; i++)
				if (m->owner[m->order[i]] == at)
					m->owner[m->order[i]] = m->owner[user];
			m->draft[at].kind = BLOCK_KINDS; /* gone */
			return LINNET_OK;
		}
		if (m->step[user] == STEP_ATTENTION || m->step[user] == STEP_GLU || (is_sum(n) && !weighted))
			break;
		m->owner[user] = at;
		m->main[user] = true;
		last = user;
		v = n->out[0];
		done = done || is_core((enum step)m->step[user]);
	}
	if (!m->draft[at].unit || m->place[last] > m->draft[at].place) {
		m->draft[at].out = m->g->node[last].out[0];
		m->draft[at].place = m->place[last];
	}
	if (!m->draft[at].unit)
		m->draft[at].unit = id;
	return LINNET_OK;
}

/* A mixture of experts outside of sums: what lies between what its router reads and its result. */
static enum linnet_code find_mixture(struct maker *m, const struct experts *x)
{
	const struct node *n = &m->g->node[x->chooser];
	node_id to = producer(m->g, x->out);
	value_id from = through(m, n->in[value_is_weight(m->g, n->in[0]) ? 1 : 0]);
	uint32_t count;
	int at;

	if (m->owner[x->first] || m->owner[x->chooser] || !to)
		return LINNET_OK;
	count = between(m, from, to);
	at = count ? draft_add(m, BLOCK_OTHER) : 0;
	if (count && !at)
		return fail_mem(m->e);
	for (uint32_t i = 0; i < count; i++) {
		m->owner[m->list[i]] = m->owner[m->list[i]] ? m->owner[m->list[i]] : at;
		m->main[m->list[i]] = true;
	}
	if (at) {
		m->draft[at].unit = x->first;
		m->draft[at].out = x->out;
		m->draft[at].place = m->place[to];
	}
	return LINNET_OK;
}

/* The mixture of experts in a block; NULL. */
static const struct experts *mixture_in(const struct maker *m, int at)
{
	for (int i = 0; i < m->mixed.n; i++)
		if (m->owner[m->mixed.list[i].first] == at)
			return &m->mixed.list[i];
	return NULL;
}

/* The stream's value a block outside of sums begins with. */
static value_id unit_input(const struct maker *m, int at)
{
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];

		if (m->owner[id] != at || !n->nin || n->op->flags & OP_SHAPE_ONLY)
			continue;
		for (uint32_t k = 0; k < n->nin; k++)
			if (n->in[k] && is_real(m->g, n->in[k]) && !value_is_weight(m->g, n->in[k]) && m->owner[producer(m->g, n->in[k])] != at)
				return n->in[k];
	}
	return 0;
}

/* ---- What blocks are ---- */

static bool turns_rows(const struct graph *g, const struct node *n)
{
	const struct attr *perm = node_attr(n, "perm");
	int rank = n->nin ? g->value[n->in[0]].type.shape.rank : 0;

	return node_is(n, "Transpose") && rank >= 2 && (perm->n == 0 || perm->ints[perm->n - 1] != rank - 1);
}

static enum block_kind kind_of(struct maker *m, int at)
{
	const struct draft *d = &m->draft[at];
	int self = 0, cross = 0, glu = 0, conv = 0, conv_behind = 0, projection = 0, recurrent = 0, active = 0, experts = 0, nested = 0;
	bool routed = false, beside = false;
	node_id last_glu = 0;
	bool turned = false, conv_first = false;

	for (int i = 1; i <= m->ndraft; i++)
		nested += m->draft[i].parent == at && m->draft[i].kind != BLOCK_KINDS;
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];

		if (m->owner[id] != at || !m->main[id])
			continue;
		switch ((enum step)m->step[id]) {
		case STEP_ATTENTION:
			if (!strcmp(m->attention[id]->kind, "cross"))
				cross++;
			else
				self++;
			break;
		case STEP_GLU:
			beside = beside || (glu && !between(m, m->g->node[last_glu].out[0], id));
			last_glu = id;
			glu++;
			break;
		case STEP_CONV:
			conv++;
			conv_behind += glu > 0;
			conv_first = conv_first || !projection;
			break;
		case STEP_PROJECTION:
			projection++;
			turned = turned || (node_is(n, "MatMul") && value_is_weight(m->g, n->in[0]));
			break;
		case STEP_RECURRENCE: recurrent++; break;
		case STEP_EXPERTS: experts++; break;
		case STEP_ACTIVATION:
			if (self + cross == 0 || strcmp(n->op->name, "Sigmoid") != 0)
				active++;
			break;
		default:
			routed = routed || node_is(n, "TopK");
			turned = turned || (!projection && turns_rows(m->g, n));
		}
	}
	if (nested)
		return BLOCK_NESTED;
	if (self || cross)
		return d->terms > 2 && (glu || active) ? BLOCK_PARALLEL : self ? BLOCK_ATTENTION : BLOCK_CROSS;
	if (mixture_in(m, at))
		return BLOCK_EXPERTS;
	if (recurrent)
		return BLOCK_RECURRENCE;
	if (experts || beside || (glu && routed))
		return BLOCK_EXPERTS;
	if (glu)
		return conv_behind > 1 ? BLOCK_CONV : BLOCK_GLU;
	if (conv && (conv_first || projection < 2))
		return BLOCK_CONV;
	if (projection > 1 && active)
		return turned ? BLOCK_MIXER : BLOCK_MLP;
	return BLOCK_OTHER;
}

static bool is_feed_forward(enum block_kind k)
{
	return k == BLOCK_GLU || k == BLOCK_MLP || k == BLOCK_EXPERTS;
}

static int compare_drafts(const void *a, const void *b)
{
	const struct draft *x = a, *y = b;

	return (x->place > y->place) - (x->place < y->place);
}

/* Drafts in order of where they end; owners and parents follow, those that are gone go. */
static enum linnet_code sort_drafts(struct maker *m)
{
	struct linnet_error *e = m->e;
	int *to, n = 0;
	struct draft *d = m->draft;

	TRY_NEW(to, m->a, (size_t)m->ndraft + 1);
	for (int i = 1; i <= m->ndraft; i++) {
		d[i].part = i; /* remembers the old number */
		if (d[i].kind != BLOCK_KINDS)
			d[++n] = d[i];
	}
	m->ndraft = n;
	if (n)
		qsort(d + 1, (size_t)n, sizeof *d, compare_drafts);
	for (int i = 1; i <= n; i++) {
		to[d[i].part] = i;
		d[i].part = 0;
	}
	for (int i = 1; i <= n; i++)
		d[i].parent = to[d[i].parent];
	for (node_id id = 1; id < m->g->nnode; id++)
		m->owner[id] = to[m->owner[id]];
	for (int i = n; i; i--) {
		while (d[i].parent && d[d[i].parent].depth >= MAX_DEPTH)
			d[i].parent = d[d[i].parent].parent;
		d[i].depth = d[i].parent ? d[d[i].parent].depth + 1 : 0;
	}
	return LINNET_OK;
}

/* ---- How blocks follow each other ---- */

static bool is_inside(const struct maker *m, int at, int outer)
{
	while (at && at != outer)
		at = m->draft[at].parent;
	return at == outer;
}

/* The last block, of the same parent when `parent` is not negative, that v is made of; 0. */
static int block_before(struct maker *m, value_id v, int parent, uint32_t place)
{
	uint32_t top = 0;
	int best = 0;

	m->stamp++;
	if (producer(m->g, v)) {
		m->stack[top++] = producer(m->g, v);
		m->seen[producer(m->g, v)] = m->stamp;
	}
	while (top) {
		node_id id = m->stack[--top];
		const struct node *n = &m->g->node[id];
		int o = m->owner[id];

		if (--m->budget < 0)
			return best;
		while (o && parent >= 0 && m->draft[o].parent != parent && m->draft[o].depth && !is_inside(m, parent, o))
			o = m->draft[o].parent;
		if (o && (parent < 0 || (m->draft[o].parent == parent && o != parent))) {
			if (m->draft[o].place < place && o > best)
				best = o;
			continue;
		}
		if (o && parent >= 0 && !is_inside(m, parent, o))
			continue;
		if (n->op->flags & OP_SHAPE_ONLY)
			continue;
		for (uint32_t i = 0; i < n->nin; i++) {
			node_id p = producer(m->g, n->in[i]);

			if (p && m->seen[p] != m->stamp) {
				m->seen[p] = m->stamp;
				m->stack[top++] = p;
			}
		}
	}
	return best;
}

static int part_add(struct maker *m, int parent, int first)
{
	if (m->npart + 1 >= m->cap_part) {
		int cap = m->cap_part ? 2 * m->cap_part : 16;
		struct part *to = NEW(m->a, (size_t)cap, struct part);

		if (!to)
			return 0;
		if (m->npart)
			memcpy(to, m->part, (size_t)(m->npart + 1) * sizeof *to);
		m->part = to;
		m->cap_part = cap;
	}
	m->part[++m->npart] = (struct part){ .parent = parent, .first = first };
	return m->npart;
}

/* Norms between a block and the next one belong to it; projections there are a change; what makes a first block's input is an embedding. */
static enum linnet_code claim_between(struct maker *m, int at)
{
	struct draft *d = &m->draft[at];
	node_id to = producer(m->g, d->in);
	uint32_t count;
	bool core = false;
	int owner = d->prev;

	if (!to || m->owner[to])
		return LINNET_OK;
	if (!d->prev) {
		if (d->parent) {
			m->owner[to] = d->parent;
			return LINNET_OK;
		}
		if (!producer(m->g, through(m, d->in))) {
			m->owner[to] = at;
			return LINNET_OK;
		}
		owner = draft_add(m, BLOCK_EMBEDDING);
		if (!owner)
			return fail_mem(m->e);
		m->owner[to] = owner;
		m->draft[owner].out = m->draft[at].in;
		m->part[m->draft[at].part].embedding = owner;
		return LINNET_OK;
	}
	count = between(m, m->draft[d->prev].out, to);
	for (uint32_t i = 0; i < count; i++)
		core = core || is_core((enum step)m->step[m->list[i]]);
	if (core) {
		owner = draft_add(m, BLOCK_CHANGE);
		if (!owner)
			return fail_mem(m->e);
		d = &m->draft[at];
		m->draft[owner].in = m->draft[d->prev].out;
		m->draft[owner].out = d->in;
		m->draft[owner].place = m->place[to];
		m->draft[owner].part = d->part;
		m->draft[owner].parent = d->parent;
	}
	for (uint32_t i = 0; i < count; i++)
		if (!m->owner[m->list[i]]) {
			m->owner[m->list[i]] = owner;
			if (!core && m->step[m->list[i]] == STEP_NORM)
				m->draft[owner].post_norm = true;
		}
	return LINNET_OK;
}

static enum linnet_code link_blocks(struct maker *m)
{
	int n = m->ndraft;

	m->budget = 64 * (int64_t)m->n + 100000;
	for (int i = 1; i <= n; i++) {
		struct draft *d = &m->draft[i];

		d->prev = block_before(m, d->in, d->parent, d->place);
		d->part = d->prev ? m->draft[d->prev].part : part_add(m, d->parent, i);
		if (!d->part)
			return fail_mem(m->e);
		m->part[d->part].last = i;
	}
	for (int i = 1; i <= n; i++)
		TRY(claim_between(m, i));
	return LINNET_OK;
}

/* Which part's output a cross attention reads, and what parts are. */
static enum linnet_code find_roles(struct maker *m)
{
	struct linnet_error *e = m->e;
	TRY_NEW(m->memory, m->a, (size_t)m->ndraft + 1);
	m->nmemory = m->ndraft;

	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct attention_group *f = m->attention[id];
		int at = m->owner[id], before;
		struct part *p;

		if (!f || !at || !m->draft[at].part)
			continue;
		p = &m->part[m->draft[at].part];
		p->attends = true;
		p->causal = p->causal || f->causal;
		if (strcmp(f->kind, "cross") != 0 || m->g->node[id].nin < 2)
			continue;
		/* keys are made of another part's last value */
		for (uint32_t k = 1; k < m->g->node[id].nin && k < 3; k++) {
			value_id v = m->g->node[id].in[k];
			int own = m->draft[at].part;

			m->stamp++;
			before = 0;
			for (uint32_t steps = 0, top = (m->stack[0] = producer(m->g, v)) ? 1 : 0; top && steps < 400; steps++) {
				node_id q = m->stack[--top];
				const struct node *n = &m->g->node[q];
				int o = m->owner[q];

				if (o && o != at && m->draft[o].part && m->draft[o].part != own) {
					before = o > before ? o : before;
					continue;
				}
				if ((o && o != at) || n->op->flags & OP_SHAPE_ONLY)
					continue;
				for (uint32_t j = 0; j < n->nin && top + 1 < m->n; j++) {
					node_id r = producer(m->g, n->in[j]);

					if (r && m->seen[r] != m->stamp) {
						m->seen[r] = m->stamp;
						m->stack[top++] = r;
					}
				}
			}
			if (before) {
				m->memory[at] = m->draft[before].part;
				m->part[m->draft[before].part].feeds = true;
				p->crossed = true;
			}
		}
	}
	return LINNET_OK;
}

static const char *part_role(const struct part *p)
{
	if (p->crossed || (p->causal && !p->feeds))
		return "decoder";
	return p->feeds || p->attends ? "encoder" : "network";
}

/* ---- Nodes that are not on the way ---- */

/* What only one block uses is of that block, be it weights prepared, a mask or conditioning. */
static void sink(struct maker *m)
{
	for (uint32_t i = m->n; i-- > 0;) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];
		int owner = -1;

		for (uint32_t k = 0; k < n->nout && !m->owner[id]; k++)
			for (uint32_t u = n->out[k] ? m->w.uses.begin[n->out[k]] : 0; n->out[k] && u < m->w.uses.end[n->out[k]]; u++) {
				node_id user = m->w.uses.use[u].node;

				if (user)
					owner = owner == -1 || owner == m->owner[user] ? m->owner[user] : 0;
			}
		if (owner > 0)
			m->owner[id] = owner;
	}
}

/* A block of the part but the last has its norm behind the sum. */
static bool others_normed(const struct maker *m, int part)
{
	for (int i = 1; i <= m->nmemory; i++)
		if (m->draft[i].part == part && i != m->part[part].last && m->draft[i].post_norm)
			return true;
	return false;
}

/* Behind the last blocks: norms, then the head. Outputs made of what is inside a block are of that block. */
static enum linnet_code claim_ends(struct maker *m)
{
	struct linnet_error *e = m->e;
	int nblock = m->ndraft;
	bool *ends;

	for (int p = 1; p <= m->npart; p++) {
		value_id v = m->draft[m->part[p].last].out;

		for (int steps = 0; steps < MAX_THROUGH && v && !m->part[p].norm; steps++) {
			value_id next = 0;

			for (uint32_t u = m->w.uses.begin[v]; u < m->w.uses.end[v]; u++) {
				node_id user = m->w.uses.use[u].node;
				const struct node *n = &m->g->node[user];

				if (!user || m->owner[user] || m->w.uses.use[u].index)
					continue;
				if (m->step[user] == STEP_NORM && others_normed(m, p)) {
					m->owner[user] = m->part[p].last;
					m->draft[m->part[p].last].post_norm = true;
				} else if (m->step[user] == STEP_NORM) {
					int at = m->part[p].norm ? m->part[p].norm : draft_add(m, BLOCK_NORM);

					if (!at)
						return fail_mem(m->e);
					m->part[p].norm = at;
					m->owner[user] = at;
					m->draft[at].in = v;
					m->draft[at].out = n->out[0];
				} else if (n->nout && through(m, n->out[0]) != n->out[0] && !next) {
					next = n->out[0];
				}
			}
			v = next;
		}
	}
	m->head = draft_add(m, BLOCK_HEAD);
	m->shared = draft_add(m, BLOCK_SHARED);
	TRY_NEW(ends, m->a, m->g->nnode);
	for (uint32_t i = m->n; i-- > 0;) { /* leads to nothing but outputs */
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];

		ends[id] = !m->owner[id];
		for (uint32_t k = 0; k < n->nout && ends[id]; k++)
			for (uint32_t u = n->out[k] ? m->w.uses.begin[n->out[k]] : 0; n->out[k] && u < m->w.uses.end[n->out[k]]; u++)
				ends[id] = ends[id] && (!m->w.uses.use[u].node || ends[m->w.uses.use[u].node]);
	}
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];
		const struct node *n = &m->g->node[id];
		int inside = 0;

		if (!ends[id])
			continue;
		for (uint32_t k = 0; k < n->nin && !(n->op->flags & OP_SHAPE_ONLY); k++) {
			node_id p = producer(m->g, n->in[k]);
			int o = p ? m->owner[p] : 0;

			if (!o || (o <= nblock && is_of(m, n->in[k], m->draft[o].out)) || o == m->head || (o <= nblock && m->draft[o].post_norm && !m->main[p]) ||
			    m->draft[o].kind == BLOCK_NORM || m->draft[o].kind == BLOCK_EMBEDDING)
				inside = o ? -1 : inside;
			else if (!inside)
				inside = o;
		}
		m->owner[id] = inside > 0 ? inside : m->head;
	}
	sink(m);
	for (uint32_t i = 0; i < m->n; i++)
		if (!m->owner[m->order[i]])
			m->owner[m->order[i]] = m->shared;
	return LINNET_OK;
}

static enum linnet_code list_nodes(struct maker *m)
{
	struct linnet_error *e = m->e;
	node_id *room;
	uint32_t at = 0;

	TRY_NEW(room, m->a, (size_t)m->n + 1);
	for (uint32_t i = 0; i < m->n; i++)
		m->draft[m->owner[m->order[i]]].nown++;
	for (int i = 1; i <= m->ndraft; i++) {
		m->draft[i].own = room + at;
		at += m->draft[i].nown;
		m->draft[i].nown = 0;
	}
	for (uint32_t i = 0; i < m->n; i++) {
		struct draft *d = &m->draft[m->owner[m->order[i]]];

		d->own[d->nown++] = m->order[i];
	}
	return LINNET_OK;
}

/* ---- The tree ---- */

static struct block *block_new(struct maker *m, enum block_kind kind, const char *label)
{
	struct block *b = NEW(m->a, 1, struct block);

	if (b)
		*b = (struct block){ .kind = kind, .label = label, .name = "", .repeat = 1, .g = m->g };
	return b;
}

/* Rooms of child lists are powers of two. */
static bool block_put(struct maker *m, struct block *b, struct block *child)
{
	if (!child)
		return false;
	if (!(b->nchild & (b->nchild - 1))) {
		struct block **to = NEW(m->a, b->nchild ? 2 * (size_t)b->nchild : 1, struct block *);

		if (!to)
			return false;
		if (b->nchild)
			memcpy(to, b->child, (size_t)b->nchild * sizeof *to);
		b->child = to;
	}
	b->child[b->nchild++] = child;
	return true;
}

enum { TO_QUERY = 1, TO_KEY = 2, TO_VALUE = 4, TO_GATE = 8, TO_LINEAR = 16 };

/* Mark, with bit, the projections in draft `at` in front of v. */
static void mark_source(struct maker *m, value_id v, int at, int bit, uint8_t *use)
{
	uint32_t top = 0;

	m->stamp++;
	if (producer(m->g, v))
		m->stack[top++] = producer(m->g, v);
	while (top) {
		node_id id = m->stack[--top];
		const struct node *n = &m->g->node[id];

		if (m->owner[id] != at || m->seen[id] == m->stamp)
			continue;
		m->seen[id] = m->stamp;
		if (is_core((enum step)m->step[id])) {
			use[id] |= (uint8_t)bit;
			continue;
		}
		for (uint32_t i = 0; i < n->nin && !(n->op->flags & OP_SHAPE_ONLY); i++)
			if (producer(m->g, n->in[i]) && top + 1 < m->n)
				m->stack[top++] = producer(m->g, n->in[i]);
	}
}

static const char *purpose(const struct maker *m, const struct draft *d, node_id id, const uint8_t *use, bool after_attention, bool after_glu)
{
	static const struct {
		int bits;
		const char *word;
	} words[] = { { TO_QUERY, "query" }, { TO_KEY, "key" }, { TO_VALUE, "value" }, { TO_QUERY | TO_KEY, "query and key" }, { TO_KEY | TO_VALUE, "key and value" },
		      { TO_QUERY | TO_VALUE, "query and value" }, { TO_QUERY | TO_KEY | TO_VALUE, "query, key and value" }, { TO_GATE, "gate" }, { TO_LINEAR, "up" },
		      { TO_GATE | TO_LINEAR, "gate and up" } };

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (use[id] == words[i].bits)
			return words[i].word;
	switch ((enum step)m->step[id]) {
	case STEP_PROJECTION:
	case STEP_CONV:
		return after_glu ? "down" : after_attention ? "output" : d->kind == BLOCK_MLP ? "projection" : m->step[id] == STEP_CONV ? "convolution" : "projection";
	case STEP_NORM: return "norm";
	case STEP_ATTENTION: return "attention";
	case STEP_GLU: return "gated unit";
	case STEP_ACTIVATION: return "activation";
	case STEP_RECURRENCE: return "recurrence";
	case STEP_EXPERTS: return "experts";
	case STEP_POSITION: return "rotation";
	case STEP_LOOKUP: return "lookup";
	default: return "";
	}
}

static int64_t parameters_of(struct maker *m, const struct node *n)
{
	int64_t count = 0;

	for (uint32_t i = 0; i < n->nin; i++) {
		value_id v = n->in[i];
		const struct tensor *t = v && m->g->value[v].kind == VALUE_CONST ? m->g->value[v].type.value : NULL;
		const struct op_io *io = op_in(n->op, (int)i);

		if (t && t->n > 1 && m->down[v] != m->stamp && dtype_class(t->dt) == CLASS_FLOAT) {
			m->down[v] = m->stamp;
			count += t->n;
		} else if (t && t->n > 1 && m->down[v] != m->stamp && dtype_in(t->dt, SET(INT8) | SET(UINT8) | SET(INT4) | SET(UINT4)) && io &&
		           !strstr(io->name, "zero_point")) {
			m->down[v] = m->stamp;
			count += !strcmp(n->op->name, "MatMulNBits") ? node_attr(n, "K")->i * node_attr(n, "N")->i : t->n;
		}
	}
	return count;
}

/* A block of draft `at`, with its steps. */
static struct block *block_of(struct maker *m, int at, uint8_t *use)
{
	const struct draft *d = &m->draft[at];
	struct block *b = block_new(m, d->kind, d->kind == BLOCK_PART ? "network" : "");
	bool attention = false, glu = false;
	int projections = 0, seen = 0;

	if (!b)
		return NULL;
	b->in = d->in;
	b->out = d->out;
	b->own = d->own;
	b->nown = d->nown;
	b->residual = d->sum != 0;
	b->post_norm = d->post_norm;
	b->experts = mixture_in(m, at);
	if (d->sum)
		b->name = m->g->node[d->sum].name;
	if (at <= m->nmemory && m->memory[at])
		b->label = arena_fmt(m->a, "keys of the %s", part_role(&m->part[m->memory[at]]));
	if (!b->label)
		return NULL;
	for (uint32_t i = 0; i < d->nown; i++) {
		const struct node *n = &m->g->node[d->own[i]];

		if (m->step[d->own[i]] == STEP_ATTENTION && n->nin > 1 && !node_is(n, "Softmax") && !node_is(n, "Div"))
			for (uint32_t k = 0; k < 3 && k < n->nin; k++)
				mark_source(m, n->in[k], at, TO_QUERY << k, use);
		if (m->step[d->own[i]] == STEP_GLU)
			for (uint32_t k = 0; k < 2 && k < n->nin; k++)
				mark_source(m, n->in[k], at, TO_GATE << k, use);
		projections += m->step[d->own[i]] == STEP_PROJECTION;
	}
	for (uint32_t i = 0; i < d->nown; i++) {
		node_id id = d->own[i];
		const struct node *n = &m->g->node[id];
		struct block *s;

		if (m->step[id] == STEP_NONE)
			continue;
		s = block_new(m, BLOCK_STEP, purpose(m, d, id, use, attention, glu));
		if (!s || !block_put(m, b, s))
			return NULL;
		if (d->kind == BLOCK_MLP && m->step[id] == STEP_PROJECTION)
			s->label = !seen++ ? "up" : seen == projections ? "down" : "projection";
		s->node = id;
		s->name = node_label(m->g, n);
		for (uint32_t k = 0; k < n->nin && !s->in; k++)
			s->in = n->in[k] && !value_is_weight(m->g, n->in[k]) ? n->in[k] : 0;
		s->out = n->nout ? n->out[0] : 0;
		s->attention = m->attention[id];
		s->glu = m->glu[id];
		s->nnode = 1;
		m->stamp++;
		s->parameters = parameters_of(m, n);
		attention = attention || m->attention[id];
		glu = glu || m->glu[id];
	}
	return b;
}

/* Where layers begin among the blocks of one part, in order: begins[i]. Returns how many blocks in front belong to none. */
static int cut_layers(const struct maker *m, const int *at, int n, bool *begins)
{
	bool any = false, pair = false, mixed = false;
	int lead = 0, first = -1, second = -1, third = -1;

	for (int i = 0; i < n; i++) {
		bool ff = is_feed_forward(m->draft[at[i]].kind), before = i && is_feed_forward(m->draft[at[i - 1]].kind);

		any = any || ff;
		pair = pair || (ff && before);
		mixed = mixed || (i && !ff && !before);
	}
	if (n && is_feed_forward(m->draft[at[0]].kind) && !pair && !mixed && n > 2) /* one in front, then mixers and feed-forwards in turn */
		lead = 1;
	for (int i = lead; i < n; i++) {
		enum block_kind k = m->draft[at[i]].kind, before = i > lead ? m->draft[at[i - 1]].kind : BLOCK_OTHER, head = m->draft[at[lead]].kind;

		if (i == lead || m->draft[at[i]].prev != at[i - 1])
			begins[i] = true;
		else if (k == BLOCK_CHANGE || before == BLOCK_CHANGE || k == BLOCK_PARALLEL || before == BLOCK_PARALLEL || k == BLOCK_NESTED || before == BLOCK_NESTED)
			begins[i] = true;
		else if (!any)
			begins[i] = k == head;
		else if (is_feed_forward(head))
			begins[i] = is_feed_forward(before) && is_feed_forward(k);
		else
			begins[i] = is_feed_forward(before) && !is_feed_forward(k);
	}
	/* the first one is as the second with something in front of it */
	for (int i = lead; i < n; i++)
		if (begins[i]) {
			if (first < 0)
				first = i;
			else if (second < 0)
				second = i;
			else if (third < 0)
				third = i;
		}
	if (second > 0) {
		int one = second - first, two = (third > 0 ? third : n) - second;
		bool alike = one > two;

		for (int i = 0; i < two && alike; i++)
			alike = m->draft[at[second - 1 - i]].kind == m->draft[at[second + two - 1 - i]].kind;
		if (alike) {
			begins[first] = false;
			lead = second - two;
			begins[lead] = true;
		}
	}
	return lead;
}

static bool put_parts(struct maker *m, struct block *to, int parent, uint8_t *use, int depth);

static struct block *full_block(struct maker *m, int at, uint8_t *use, int depth)
{
	struct block *b = block_of(m, at, use);

	if (!b || m->draft[at].kind != BLOCK_NESTED)
		return b;
	if (!put_parts(m, b, at, use, depth + 1))
		return NULL;
	for (int i = 1; i < b->nchild; i++) /* steps in front of layers and behind them */
		for (int k = i; k && place_of(m, b->child[k]->out) < place_of(m, b->child[k - 1]->out); k--) {
			struct block *t = b->child[k];

			b->child[k] = b->child[k - 1];
			b->child[k - 1] = t;
		}
	return b;
}

static bool put_layers(struct maker *m, struct block *to, int part, uint8_t *use, int depth)
{
	int *at = NEW(m->a, (size_t)m->ndraft + 1, int), n = 0, lead, number = 0;
	bool *begins = NEW(m->a, (size_t)m->ndraft + 1, bool);
	struct block *layer = NULL;

	if (!at || !begins)
		return false;
	for (int i = 1; i <= m->ndraft; i++)
		if (m->draft[i].part == part)
			at[n++] = i;
	for (int i = 1; i < n; i++) /* changes were found last */
		for (int k = i; k && m->draft[at[k]].place < m->draft[at[k - 1]].place; k--) {
			int t = at[k];

			at[k] = at[k - 1];
			at[k - 1] = t;
		}
	for (int i = 1; i < n; i++)
		if (m->draft[at[i - 1]].kind == BLOCK_CHANGE)
			m->draft[at[i]].prev = at[i - 1];
	lead = cut_layers(m, at, n, begins);
	for (int i = 0; i < n; i++) {
		struct block *b = full_block(m, at[i], use, depth);

		if (!b)
			return false;
		if (i < lead || b->kind == BLOCK_CHANGE) {
			if (!block_put(m, to, b))
				return false;
			layer = NULL;
			continue;
		}
		if (begins[i] || !layer) {
			layer = block_new(m, BLOCK_LAYER, "");
			if (!layer || !block_put(m, to, layer))
				return false;
			layer->number = ++number;
			layer->in = b->in;
		}
		layer->out = b->out;
		if (!block_put(m, layer, b))
			return false;
	}
	return true;
}

static bool put_parts(struct maker *m, struct block *to, int parent, uint8_t *use, int depth)
{
	for (int i = 0; i < 2 * m->npart; i++) { /* those that feed others first */
		int p = i % m->npart + 1;
		struct part *q = &m->part[p];
		struct block *b = to;

		if (q->parent != parent || q->feeds != (i < m->npart))
			continue;
		if (!parent) {
			b = block_new(m, BLOCK_PART, part_role(q));
			if (!b || !block_put(m, to, b))
				return false;
			b->in = m->draft[q->embedding ? q->embedding : q->first].in;
			b->out = m->draft[q->norm ? q->norm : q->last].out;
		}
		if ((q->embedding && !block_put(m, b, block_of(m, q->embedding, use))) || !put_layers(m, b, p, use, depth) ||
		    (q->norm && !block_put(m, b, block_of(m, q->norm, use))))
			return false;
	}
	return true;
}

/* ---- Sizes ---- */

static int64_t sum_below(struct maker *m, const struct block *b, uint32_t *nnode)
{
	int64_t n = 0;

	for (uint32_t i = 0; i < b->nown; i++)
		n += parameters_of(m, &m->g->node[b->own[i]]);
	*nnode += b->nown;
	for (int i = 0; i < b->nchild; i++)
		if (b->child[i]->g == m->g && b->child[i]->kind != BLOCK_STEP)
			n += sum_below(m, b->child[i], nnode);
	return n;
}

static void fill_sizes(struct maker *m, struct block *b)
{
	if (b->kind == BLOCK_STEP || b->g != m->g)
		return;
	m->stamp++;
	b->parameters = sum_below(m, b, &b->nnode);
	for (int i = 0; i < b->nchild; i++)
		fill_sizes(m, b->child[i]);
}

/* ---- Folding ---- */

static bool same_shape(const struct graph *g, value_id a, value_id b)
{
	const struct shape *s = &g->value[a].type.shape, *t = &g->value[b].type.shape;

	if (!a != !b || s->rank != t->rank)
		return false;
	for (int i = 0; i < s->rank; i++)
		if (s->d[i] != t->d[i] || s->d[i] == DIM_NONE)
			return false;
	return true;
}

static bool alike(const struct block *a, const struct block *b)
{
	if (a->kind != b->kind || strcmp(a->label, b->label) != 0 || a->nchild != b->nchild || a->repeat != b->repeat || a->residual != b->residual ||
	    a->post_norm != b->post_norm || a->parameters != b->parameters || !a->attention != !b->attention || !a->glu != !b->glu || a->g != b->g ||
	    !a->node != !b->node)
		return false;
	if (!a->experts != !b->experts || (a->experts && !experts_alike(a->experts, b->experts)))
		return false;
	if (a->attention && !attention_alike(a->attention, b->attention))
		return false;
	if (a->glu && (strcmp(a->glu->variant, b->glu->variant) != 0 || a->glu->alpha != b->glu->alpha || a->glu->fused_weight != b->glu->fused_weight))
		return false;
	if (a->node && (strcmp(a->g->node[a->node].op->name, b->g->node[b->node].op->name) != 0 || !same_shape(a->g, a->out, b->out)))
		return false;
	for (int i = 0; i < a->nchild; i++)
		if (!alike(a->child[i], b->child[i]))
			return false;
	return true;
}

/* Neighbours that are equal, one by one or in groups, become one. */
static bool fold_children(struct maker *m, struct block *b)
{
	int n = 0;

	for (int i = 0; i < b->nchild; i++)
		if (!fold_children(m, b->child[i]))
			return false;
	for (int i = 0; i < b->nchild;) {
		int best = 1, times = 1;
		struct block *first = b->child[i];

		for (int p = 1; p <= MAX_PERIOD && i + 2 * p <= b->nchild; p++) {
			int same = 0;

			while (i + p + same < b->nchild && alike(b->child[i + same], b->child[i + p + same]))
				same++;
			if ((same / p + 1) * p > best * times && same >= p) {
				best = p;
				times = same / p + 1;
			}
		}
		if (times > 1 && best > 1) {
			first = block_new(m, BLOCK_GROUP, "");
			if (!first)
				return false;
			for (int k = 0; k < best; k++)
				if (!block_put(m, first, b->child[i + k]))
					return false;
			first->in = b->child[i]->in;
		}
		if (times > 1) {
			int64_t parameters = 0;
			uint32_t nodes = 0;

			for (int k = 0; k < best; k++) {
				parameters += b->child[i + k]->parameters;
				nodes += b->child[i + k]->nnode;
			}
			first->parameters = parameters;
			first->nnode = nodes;
			first->repeat = times;
			first->out = b->child[i + best * times - 1]->out;
		}
		b->child[n++] = first;
		i += best * times;
	}
	b->nchild = n;
	return true;
}

/* ---- A graph ---- */

static enum linnet_code prepare(struct maker *m)
{
	struct linnet_error *e = m->e;
	size_t nnode = m->g->nnode, most = nnode > m->g->nvalue ? nnode : m->g->nvalue;

	TRY(graph_uses(m->g, m->a, &m->w.uses, e));
	TRY(graph_order(m->g, m->a, &m->order, &m->n, e));
	TRY_NEW(m->place, m->a, nnode);
	TRY_NEW(m->step, m->a, nnode);
	TRY_NEW(m->attention, m->a, nnode);
	TRY_NEW(m->glu, m->a, nnode);
	TRY_NEW(m->owner, m->a, nnode);
	TRY_NEW(m->main, m->a, nnode);
	TRY_NEW(m->scores, m->a, nnode);
	TRY_NEW(m->seen, m->a, most);
	TRY_NEW(m->down, m->a, most);
	TRY_NEW(m->stack, m->a, nnode + 1);
	TRY_NEW(m->list, m->a, nnode + 1);
	m->budget = 64 * (int64_t)m->n + 100000;
	if (!draft_add(m, BLOCK_OTHER)) /* makes the room; number 0 */
		return fail_mem(e);
	m->ndraft = 0;
	return LINNET_OK;
}

static enum linnet_code find_blocks(struct maker *m)
{
	static const char *const linear[] = { "LinearAttention", "CausalConvWithState", NULL };

	for (uint32_t i = 0; i < m->n; i++)
		TRY(find_sum(m, m->order[i]));
	for (int i = 0; i < m->mixed.n; i++)
		TRY(find_mixture(m, &m->mixed.list[i]));
	for (uint32_t i = 0; i < m->n; i++) {
		node_id id = m->order[i];

		if (!m->owner[id] && (m->step[id] == STEP_ATTENTION || m->step[id] == STEP_GLU || among(m->g->node[id].op->name, linear)))
			TRY(find_unit(m, id));
	}
	TRY(sort_drafts(m));
	for (int i = 1; i <= m->ndraft; i++) {
		m->draft[i].kind = kind_of(m, i);
		if (!m->draft[i].sum)
			m->draft[i].in = unit_input(m, i);
	}
	TRY(link_blocks(m));
	sink(m);
	TRY(find_roles(m));
	TRY(claim_ends(m));
	return list_nodes(m);
}

static enum linnet_code blocks_of(const struct graph *g, bool fold, int depth, struct arena *a, struct block **out, struct linnet_error *e);

/* Subgraphs with something in them. */
static enum linnet_code put_subgraphs(struct maker *m, bool fold, int depth, struct block *to)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct node *n = &m->g->node[m->order[i]];

		for (uint32_t k = 0; k < n->nattr; k++) {
			struct block *b;
			int attentions = 0, glus = 0;

			if (n->attr[k].kind != ATTR_GRAPH || depth >= MAX_DEPTH)
				continue;
			TRY(blocks_of(n->attr[k].g, fold, depth + 1, m->a, &b, m->e));
			block_units(b, &attentions, &glus);
			if (!attentions && !glus)
				continue;
			b->kind = BLOCK_PART;
			b->label = arena_fmt(m->a, "%s of %s", n->attr[k].name, node_label(m->g, n));
			if (!b->label || !block_put(m, to, b))
				return fail_mem(m->e);
		}
	}
	return LINNET_OK;
}

static enum linnet_code blocks_of(const struct graph *g, bool fold, int depth, struct arena *a, struct block **out, struct linnet_error *e)
{
	struct maker m = { .g = g, .w = { .g = g, .scratch = a }, .a = a, .e = e };
	struct block *top;
	uint8_t *use;

	TRY(prepare(&m));
	TRY(classify(&m));
	mark_scores(&m);
	TRY(find_blocks(&m));
	TRY_NEW(use, a, g->nnode);
	top = block_new(&m, BLOCK_MODEL, "");
	if (!top || !put_parts(&m, top, 0, use, 0))
		return fail_mem(e);
	if (!m.npart) {
		m.draft[m.head].kind = BLOCK_PART;
	}
	if ((m.draft[m.head].nown && !block_put(&m, top, block_of(&m, m.head, use))) ||
	    (m.draft[m.shared].nown && !block_put(&m, top, block_of(&m, m.shared, use))))
		return fail_mem(e);
	top->in = g->nin ? g->in[0] : 0;
	top->out = g->nout ? g->out[0] : 0;
	fill_sizes(&m, top);
	if (fold && !fold_children(&m, top))
		return fail_mem(e);
	*out = top;
	return put_subgraphs(&m, fold, depth, top);
}

enum linnet_code graph_blocks(const struct graph *g, bool fold, struct arena *a, struct block **out, struct linnet_error *e)
{
	return blocks_of(g, fold, 0, a, out, e);
}

int block_count(const struct block *b, enum block_kind kind)
{
	int n = b->kind == kind;

	for (int i = 0; i < b->nchild; i++)
		n += block_count(b->child[i], kind);
	return n * b->repeat;
}

void block_units(const struct block *b, int *attentions, int *glus)
{
	int a = b->attention != NULL, u = b->glu != NULL;

	for (int i = 0; i < b->nchild; i++)
		block_units(b->child[i], &a, &u);
	*attentions += a * b->repeat;
	*glus += u * b->repeat;
}

/* ---- In words ---- */

static const char *attention_text(const struct attention_group *f, struct arena *a)
{
	static const char *const kinds[][2] = { { "mha", "attention" }, { "gqa", "grouped-query attention" }, { "mqa", "multi-query attention" }, { "cross", "cross attention" },
		                                { "self", "attention" } };
	const char *kind = f->kind, *heads = "", *sizes = "", *window = "";

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(f->kind, kinds[i][0]))
			kind = kinds[i][1];
	if (f->heads > 0)
		heads = f->kv_heads == f->heads || f->kv_heads <= 0 ? arena_fmt(a, ", %lld head%s", (long long)f->heads, f->heads == 1 ? "" : "s")
		                                                    : arena_fmt(a, ", %lld/%lld heads", (long long)f->heads, (long long)f->kv_heads);
	if (f->head_dim > 0)
		sizes = arena_fmt(a, " of %lld", (long long)f->head_dim);
	if (f->window >= 0)
		window = arena_fmt(a, " %lld", (long long)f->window);
	if (!heads || !sizes || !window)
		return NULL;
	return arena_fmt(a, "%s%s%s%s%s%s%s%s%s%s%s%s%s%s", kind, heads, sizes, f->causal ? ", causal" : "", strcmp(f->mask, "none") ? ", " : "",
	                 strcmp(f->mask, "none") ? f->mask : "", window, f->padding ? ", padding" : "", f->softcap > 0 ? ", soft cap" : "",
	                 f->rope ? ", rotary" : "", f->qk_norm ? ", q/k norm" : "", f->kv_cache ? ", cache" : "", f->sink ? ", sink" : "",
	                 f->rewritable ? "" : ", stays");
}

static const char *length_text(const struct graph *g, value_id v, int at, struct arena *a)
{
	const struct shape *s = &g->value[v].type.shape;

	at = at < 0 ? s->rank + at : at;
	return v && at >= 0 && at < s->rank && s->d[at] != DIM_NONE ? dim_str(g->dims, s->d[at], a) : "?";
}

const char *block_text(const struct block *b, struct arena *a)
{
	const struct node *n = b->node ? &b->g->node[b->node] : NULL;
	enum step step = n ? step_of(b->g, n) : STEP_NONE;

	if (b->experts)
		return experts_text(b->experts, a);
	if (b->attention)
		return attention_text(b->attention, a);
	if (b->glu)
		return arena_fmt(a, "%s%s", b->glu->variant, b->glu->fused_weight ? ", one projection" : "");
	if (step == STEP_PROJECTION) {
		int at = node_is(n, "MatMul") && value_is_weight(b->g, n->in[0]) ? -2 : -1;

		return arena_fmt(a, "%s, %s to %s", n->op->name, length_text(b->g, b->in, at, a), length_text(b->g, b->out, at, a));
	}
	if (step == STEP_CONV) {
		const struct attr *kernel = node_attr(n, "kernel_shape");
		const char *size = "";

		for (size_t i = 0; i < kernel->n && size; i++)
			size = arena_fmt(a, "%s%s%lld", size, i ? "x" : " ", (long long)kernel->ints[i]);
		return size ? arena_fmt(a, "%s%s, %s to %s", n->op->name, size, length_text(b->g, b->in, 1, a), length_text(b->g, b->out, 1, a)) : NULL;
	}
	return n ? n->op->name : block_words[b->kind];
}
