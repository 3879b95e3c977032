/*
 * Rules stated as text: whether a pattern lies at a node, and the patch that puts the replacement there.
 *
 * The pattern's graph is the text itself, read as a model's would be. A parameter @p stands in it as a number that no model has, and is found by
 * that; in the replacement's text it is the number that was met.
 */
#include <math.h>
#include <string.h>

#include "graph/template.h"
#include "ops/base/str.h"

enum { MAX_PARAM = 4, MAX_LETTER = 8, MAX_SWAP = 12 };

/* Parameter i is MARK + i: a float and an integer alike. */
#define MARK (-8388000)

struct pattern {
	const struct rule *rule;
	const struct graph *g;
	const node_id *order; /* users before producers: the pattern is walked from its outputs */
	uint32_t n;
	const uint32_t *uses;  /* by value: how many the pattern has */
	const char *param[MAX_PARAM];
	size_t len[MAX_PARAM];
	int nparam;
};

struct match {
	const struct view *w;
	const struct pattern *p;
	value_id *of;          /* of the pattern's values: the graph's, 0 while it is not met */
	double param[MAX_PARAM];
	bool met[MAX_PARAM];
	dim letter[MAX_LETTER][2];
	int nletter;
	enum dtype real;       /* what `float` stands for */
	bool swap[MAX_SWAP];   /* operands of the i-th commutative node tried are exchanged */
	int nswap, at;         /* chosen so far; the next one */
};

/* ---- The texts ---- */

static bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

static size_t word(const char *s)
{
	size_t n = 0;

	while (is_word(s[n]))
		n++;
	return n;
}

static int param_index(struct pattern *p, const char *s, size_t n, bool add)
{
	for (int i = 0; i < p->nparam; i++)
		if (p->len[i] == n && !memcmp(p->param[i], s, n))
			return i;
	if (!add || p->nparam == MAX_PARAM)
		return -1;
	p->param[p->nparam] = s;
	p->len[p->nparam] = n;
	return p->nparam++;
}

/* Text with numbers for the parameters; value: NULL for their marks. */
static enum linnet_code filled(struct pattern *p, const char *text, const double *value, struct str *out, struct linnet_error *e)
{
	for (const char *s = text; *s;) {
		size_t plain = strcspn(s, "@"), n;
		int i;

		str_addn(out, s, plain);
		s += plain;
		if (!*s)
			break;
		n = word(++s);
		i = param_index(p, s, n, !value);
		if (i < 0)
			return fail(e, LINNET_EINTERNAL, "rule %s: parameter @%.*s", p->rule->name, (int)n, s);
		if (value && value[i] == floor(value[i]) && fabs(value[i]) < 1e15)
			str_addf(out, "%.0f", value[i]);
		else if (value)
			str_addf(out, "%.17g", value[i]);
		else
			str_addf(out, "%d", MARK + i);
		s += n;
	}
	return LINNET_OK;
}

/* `from` up to its nodes' constants: inputs and outputs, which `to` has too. */
static size_t head_of(const char *from)
{
	const char *s = strstr(from, "=>");

	return s ? (size_t)(s - from) + strcspn(s, ")") + 1 : 0;
}

enum linnet_code rule_text(const struct rule *r, const char *from_or_to, const double *value, struct arena *a, char **text, struct linnet_error *e)
{
	struct pattern names = { .rule = r };
	struct str s, ignored;

	str_init(&ignored, a);
	str_init(&s, a);
	TRY(filled(&names, r->from, NULL, &ignored, e)); /* for the order of the parameters */
	if (from_or_to == r->to)
		str_addn(&s, r->from, head_of(r->from));
	TRY(filled(&names, from_or_to, value, &s, e));
	*text = str_done(&s);
	return *text ? LINNET_OK : fail_mem(e);
}

int rule_params(const struct rule *r)
{
	struct pattern names = { .rule = r };

	for (const char *s = strchr(r->from, '@'); s; s = strchr(s + 1, '@'))
		param_index(&names, s + 1, word(s + 1), true);
	return names.nparam;
}

enum linnet_code pattern_read(const struct rule *r, struct arena *a, struct pattern **out, struct linnet_error *e)
{
	struct pattern *p;
	struct graph *g;
	struct str s;
	node_id *order;
	uint32_t *uses;

	TRY_NEW(p, a, 1);
	*out = p;
	p->rule = r;
	str_init(&s, a);
	TRY(filled(p, r->from, NULL, &s, e));
	if (!str_done(&s))
		return fail_mem(e);
	TRY(template_parse(s.p, a, &g, e));
	TRY(graph_order(g, a, &order, &p->n, e));
	TRY_NEW(uses, a, g->nvalue);
	for (uint32_t i = 0; i < p->n; i++)
		for (uint32_t k = 0; k < g->node[order[i]].nin; k++)
			uses[g->node[order[i]].in[k]]++;
	p->g = g;
	p->order = order;
	p->uses = uses;
	return LINNET_OK;
}

/* ---- Matching ---- */

static bool meet_param(struct match *m, double mark, double found)
{
	int i = (int)(mark - MARK);

	if (!isfinite(found))
		return false;
	if (m->met[i])
		return m->param[i] == found;
	m->met[i] = true;
	m->param[i] = found;
	return true;
}

static bool is_mark(const struct match *m, double x) { return x >= MARK && x < MARK + m->p->nparam; }

static bool meet_number(struct match *m, double want, double found)
{
	if (is_mark(m, want))
		return meet_param(m, want, found);
	return want == found || fabs(want - found) <= m->p->rule->near * fabs(want);
}

static int64_t from_front(int64_t axis, int rank) { return axis < 0 ? axis + rank : axis; }

/* A constant: one number, which all elements are; or a list. rank: not 0 when it lists axes, which may be counted from either end. */
static bool meet_const(struct match *m, const struct tensor *want, value_id v, int rank)
{
	const struct tensor *t = value_const(m->w->g, v);
	double c;

	if (!t || (t->dt != want->dt && !(want->dt == DT_FLOAT && t->dt == m->real)))
		return false;
	if (want->rank == 0)
		return value_scalar(m->w->g, v, &c) && meet_number(m, tensor_get(want, 0), c);
	if (t->n != want->n || t->rank != want->rank)
		return false;
	for (int64_t i = 0; i < t->n; i++) {
		double a = tensor_get(want, i), b = tensor_get(t, i);

		if (rank) {
			a = is_mark(m, a) ? a : (double)from_front((int64_t)a, rank);
			b = (double)from_front((int64_t)b, rank);
		}
		if (!meet_number(m, a, b))
			return false;
	}
	return true;
}

static bool meet_type(struct match *m, const struct type *want, const struct type *found)
{
	dtype_set any = m->p->rule->types ? m->p->rule->types : FLOATS;

	if (found->kind != KIND_TENSOR || (want->dt != DT_FLOAT && want->dt != found->dt))
		return false;
	if (want->dt == DT_FLOAT && (!dtype_in(found->dt, any) || (m->real && m->real != found->dt)))
		return false;
	if (want->dt == DT_FLOAT)
		m->real = found->dt;
	if (want->shape.rank < 0)
		return true;
	if (want->shape.rank != found->shape.rank)
		return false;
	for (int i = 0; i < want->shape.rank; i++) {
		dim a = want->shape.d[i], b = found->shape.d[i];
		int k = 0;

		if (dim_is_int(a)) {
			if (a != b)
				return false;
			continue;
		}
		while (k < m->nletter && m->letter[k][0] != a)
			k++;
		if (k < m->nletter ? m->letter[k][1] != b : k == MAX_LETTER)
			return false;
		m->letter[k][0] = a;
		m->letter[k][1] = b;
		m->nletter += k == m->nletter;
	}
	return true;
}

/* The pattern's value is to stand for v; nodes of it are looked at when their turn comes. */
static bool meet_value(struct match *m, value_id want, value_id v, int rank)
{
	const struct value *x = &m->p->g->value[want];

	if (!want || !v)
		return !want && !v;
	if (m->of[want])
		return m->of[want] == v;
	m->of[want] = v;
	if (x->kind == VALUE_CONST)
		return meet_const(m, x->type.value, v, rank);
	if (x->kind == VALUE_INPUT)
		return meet_type(m, &x->type, &m->w->g->value[v].type);
	return true;
}

static bool meet_attr(struct match *m, const struct attr *want, const struct attr *found, int rank)
{
	int64_t a = want->i, b = found->i;

	if (want->kind != found->kind)
		return false;
	switch (want->kind) {
	case ATTR_INT:
		if (!strcmp(want->name, "axis") && rank > 0)
			a = is_mark(m, (double)a) ? a : from_front(a, rank), b = from_front(b, rank);
		return is_mark(m, (double)a) ? meet_param(m, (double)a, (double)b) : a == b;
	case ATTR_FLOAT: return meet_number(m, want->f, found->f);
	case ATTR_STRING: return want->s.n == found->s.n && !memcmp(want->s.p, found->s.p, want->s.n);
	case ATTR_INTS: return want->n == found->n && !memcmp(want->ints, found->ints, want->n * sizeof *want->ints);
	default: return want->kind == ATTR_NONE;
	}
}

static bool commutes(const struct node *n)
{
	return (node_is(n, "Add") || node_is(n, "Mul") || node_is(n, "Max") || node_is(n, "Min") || node_is(n, "Sum")) && n->nin == 2;
}

/* Numbers that stand beside a value in elementwise operators must not be what gives the result its shape. */
static bool keeps_shape(const struct match *m, const struct node *want, const struct node *n)
{
	const struct graph *g = m->w->g;

	if (want->nin != 2 || !(commutes(want) || node_is(want, "Sub") || node_is(want, "Div") || node_is(want, "Pow")))
		return true;
	for (uint32_t i = 0; i < 2; i++)
		if (m->p->g->value[want->in[i]].kind == VALUE_CONST)
			for (uint32_t k = 0; k < 2; k++)
				if (m->of[want->in[i]] == n->in[k] && value_const(g, n->in[k])->rank &&
				    !shape_equal(&g->value[n->in[1 - k]].type.shape, &g->value[n->out[0]].type.shape))
					return false;
	return true;
}

static bool meet_node(struct match *m, const struct node *want)
{
	const struct graph *g = m->w->g;
	const struct node *n = NULL;
	bool swapped = false;
	int rank, axes;

	for (uint32_t i = 0; i < want->nout && !n; i++)
		n = want->out[i] && m->of[want->out[i]] ? value_node(g, m->of[want->out[i]]) : NULL;
	if (!n || n->op != want->op || n->nin < want->nin || n->ncapture || n->nout < want->nout)
		return false;
	rank = n->nin ? g->value[n->in[0]].type.shape.rank : 0;
	axes = rank > 0 && !strncmp(n->op->name, "Reduce", 6) ? rank : 0;
	for (uint32_t i = 0; i < n->nout; i++) {
		value_id v = i < want->nout ? want->out[i] : 0;

		if (v ? !meet_value(m, v, n->out[i], 0) : n->out[i] && value_uses(m->w, n->out[i]))
			return false;
	}
	if (commutes(want) && want->in[0] != want->in[1]) {
		if (m->at == m->nswap && m->nswap < MAX_SWAP)
			m->swap[m->nswap++] = false;
		swapped = m->at < m->nswap && m->swap[m->at++];
	}
	for (uint32_t i = 0; i < n->nin; i++)
		if (!meet_value(m, i < want->nin ? want->in[swapped ? 1 - i : i] : 0, n->in[i], axes))
			return false;
	for (uint32_t i = 0; i < n->nattr; i++)
		if (!meet_attr(m, &want->attr[i], &n->attr[i], rank))
			return false;
	return keeps_shape(m, want, n);
}

/* Values inside of the pattern have no other uses. */
static bool is_apart(const struct match *m)
{
	const struct graph *p = m->p->g;

	for (value_id v = 1; v < p->nvalue; v++)
		if (p->value[v].kind == VALUE_NODE && m->of[v] && !graph_is_output(p, v) && value_uses(m->w, m->of[v]) != m->p->uses[v])
			return false;
	return true;
}

/* One try, with the operands exchanged where m->swap says; those beyond are as they stand. */
static bool try_match(struct match *m, const struct node *n)
{
	const struct graph *p = m->p->g;

	memset(m->of, 0, p->nvalue * sizeof *m->of);
	memset(m->met, 0, sizeof m->met);
	m->nletter = m->at = 0;
	m->real = DT_UNDEFINED;
	if (!meet_value(m, p->out[0], n->out[0], 0))
		return false;
	for (uint32_t i = m->p->n; i-- > 0;)
		if (!meet_node(m, &p->node[m->p->order[i]]))
			return false;
	for (uint32_t i = 0; i < p->nin; i++)
		if (!m->of[p->in[i]])
			return false;
	return is_apart(m) && (!m->p->rule->guard || m->p->rule->guard(m));
}

/* All ways to exchange operands, the last one that was tried first. */
static bool find(struct match *m, const struct node *n)
{
	m->nswap = 0;
	while (!try_match(m, n)) {
		m->nswap = m->at;
		while (m->nswap && m->swap[m->nswap - 1])
			m->nswap--;
		if (!m->nswap)
			return false;
		m->swap[m->nswap - 1] = true;
	}
	return true;
}

/* ---- What guards ask ---- */

value_id match_value(const struct match *m, const char *name)
{
	const struct graph *p = m->p->g;

	for (value_id v = 1; v < p->nvalue; v++)
		if (m->of[v] && !strcmp(p->value[v].name, name))
			return m->of[v];
	return 0;
}

const struct type *match_type(const struct match *m, const char *name) { return &m->w->g->value[match_value(m, name)].type; }

double match_param(const struct match *m, const char *name)
{
	for (int i = 0; i < m->p->nparam; i++)
		if (m->p->len[i] == strlen(name) && !memcmp(m->p->param[i], name, m->p->len[i]))
			return m->param[i];
	return NAN;
}

const struct graph *match_graph(const struct match *m) { return m->w->g; }

/* ---- Replacing ---- */

enum linnet_code pattern_apply(const struct pattern *p, const struct view *w, const struct node *n, struct patch *patch, struct linnet_error *e)
{
	struct match m = { .w = w, .p = p };
	const struct graph *from = p->g;
	value_id *in, *out;
	char *text;

	if (!n->nout || !n->out[0] || n->op != from->node[p->order[p->n - 1]].op)
		return LINNET_OK;
	TRY_NEW(m.of, w->scratch, from->nvalue);
	if (!find(&m, n))
		return LINNET_OK;
	TRY_NEW(in, w->scratch, from->nin);
	TRY_NEW(out, w->scratch, from->nout);
	for (uint32_t i = 0; i < from->nin; i++)
		in[i] = m.of[from->in[i]];
	TRY(rule_text(p->rule, p->rule->to, m.param, w->scratch, &text, e));
	TRY(template_replace(patch, text, in, out, m.real ? m.real : DT_FLOAT, *n->name ? n->name : node_label(w->g, n), e));
	for (uint32_t i = 0; i < from->nout; i++)
		if (!i || value_uses(w, m.of[from->out[i]]) != p->uses[from->out[i]])
			patch_replace(patch, m.of[from->out[i]], out[i]);
	return LINNET_OK;
}
