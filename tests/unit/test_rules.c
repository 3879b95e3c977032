/*
 * Every exact rewrite is tested both ways. Its two sides are run in double precision by the reference kernels on drawn inputs and may differ by what
 * the rule says, each single application compared; and near misses, made of the same graphs by one change, either stay as they are or are
 * rewritten into what computes the same as they do.
 *
 * Rules stated as text are drawn from their text: ranks, lengths, parameters, which inputs are constants. Rules in code are drawn from the cases of
 * tests/passes/<pass>.txt. Each rule must have been applied and must have been refused.
 *
 *     test_rules [-n DRAWS] [RULE or PASS...]
 */
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/text.h"
#include "ops/base/rng.h"
#include "ops/base/str.h"
#include "validate/certify.h"

#define HEADER "<ir_version: 10, opset_import: [\"\": 28, \"com.microsoft\": 1]>\n"

enum { MAX_RULE = 200, MAX_PASS = 24 };

/* ---- What there is, and what became of it ---- */

struct tally {
	const struct pass *pass;
	const struct rule *rule; /* NULL: the pass's run() */
	int applied, refused;
};

static struct tally tally[MAX_RULE];
static int ntally;
static struct rng draw;
static char **only;
static int nonly, ndraw = 8, wrong;

static const char *title(const struct tally *t) { return t->rule ? t->rule->name : t->pass->name; }

static void list_rules(void)
{
	for (int i = 0; pass_at(i); i++) {
		const struct pass *p = pass_at(i);

		for (int k = p->run ? -1 : 0; k < p->nrule; k++)
			tally[ntally++] = (struct tally){ .pass = p, .rule = k < 0 ? NULL : &p->rule[k] };
	}
}

static bool asked(const struct tally *t)
{
	for (int i = 0; i < nonly; i++)
		if (!strcmp(only[i], title(t)) || !strcmp(only[i], t->pass->name))
			return true;
	return !nonly;
}

static int64_t below(int64_t n) { return (int64_t)rng_below(&draw, (uint64_t)n); }

/* ---- One application, compared ---- */

static enum linnet_code apply_once(const struct tally *t, struct graph *g, uint32_t *count, struct linnet_error *e)
{
	struct pass one = *t->pass;
	uint32_t left = 1;

	if (t->rule) {
		one.rule = t->rule;
		one.nrule = 1;
		one.run = NULL;
	} else {
		one.nrule = 0;
		one.rule = NULL;
	}
	return pass_run(&one, g, count, &left, e);
}

static const char *printed(struct linnet_model *m, const struct graph *g, struct arena *a)
{
	static const struct text_opt brief = { .brief = true };
	struct linnet_error e = { 0 };
	struct graph *copy;
	char *text;

	if (graph_copy(g, m->arena, &copy, &e))
		return "";
	m->graph = copy;
	return graph_export(m, 28, &e) || text_print_model(m, &brief, a, &text, &e) ? "" : text;
}

static void complain(const struct tally *t, const char *what, const struct graph *before, const struct graph *after, struct linnet_model *m)
{
	struct arena *a = arena_new();

	if (++wrong <= 12)
		print_error("%s: %s\nbefore\n%s\nafter\n%s\n", title(t), what, printed(m, before, a), printed(m, after, a));
	arena_free(a);
}

/* The rule at one place of m's graph, when it applies: whether it did; what differs is complained of. */
static bool check_once(struct tally *t, struct linnet_model *m, const char *how)
{
	struct linnet_error e = { 0 };
	struct graph *before, *after = m->graph;
	double most = 0, rel;
	char line[600], what[900];
	uint32_t count;

	if (graph_copy(after, m->arena, &before, &e) || apply_once(t, after, &count, &e) || (count && graph_verify(after, &e))) {
		snprintf(what, sizeof what, "%s: %s", how, linnet_error_line(&e, line, sizeof line));
		complain(t, what, before, after, m);
		m->graph = after;
		return false;
	}
	if (!count)
		return false;
	for (int drawn = 0; drawn < 2; drawn++) {
		uint64_t seed = (uint64_t)below(1 << 20) + 1;
		enum linnet_code code = drawn ? certify_compare_at(before, after, 2, seed, 0, &most, &rel, &e)
		                              : certify_compare(before, after, 2, seed, &most, &rel, &e);
		double may = t->rule ? t->rule->differs : t->pass->differs;

		if (code == LINNET_OK && fmin(most, rel) <= may)
			continue;
		if (code && code != LINNET_EINTERNAL) /* cannot be run with these lengths */
			break;
		snprintf(what, sizeof what, "%s: differs by %g, relative %g, of %g: %s", how, most, rel, may, linnet_error_line(&e, line, sizeof line));
		complain(t, what, before, after, m);
		break;
	}
	m->graph = after;
	return true;
}

/* ---- Near misses ---- */

static value_id any_value(const struct graph *g)
{
	return g->nvalue > 1 ? (value_id)(1 + below(g->nvalue - 1)) : 0;
}

static bool change_constant(struct graph *g, value_id v)
{
	const struct tensor *t = g->value[v].type.value;
	struct tensor *x;
	int64_t i;

	if (g->value[v].kind != VALUE_CONST || !t->n || t->dt == DT_STRING || t->dt == DT_BOOL)
		return false;
	if (tensor_new(g->arena, t->dt, t->rank, t->d, &x, NULL))
		return false;
	memcpy(x->data, t->data, t->bytes);
	i = below(t->n);
	if (dtype_in(t->dt, INTS))
		tensor_put_int(x, i, (int64_t)((uint64_t)tensor_get_int(t, i) + (below(2) ? 1 : UINT64_MAX)));
	else
		tensor_put(x, i, tensor_get(t, i) * (below(2) ? 1.25 : -1) + (tensor_get(t, i) == 0));
	g->value[v].type.value = x;
	return true;
}

/* Operators that take each other's place. */
static bool change_operator(struct node *n)
{
	static const char *const like[][4] = { { "Add", "Sub", "Mul", "Max" }, { "Mul", "Div", "Add", "Min" }, { "Sub", "Add", "Mul", "Div" },
		                               { "Div", "Mul", "Sub", "Add" }, { "Max", "Min", "Add", "Mul" }, { "Min", "Max", "Add", "Mul" },
		                               { "Pow", "Mul", "Div", "Add" }, { "Exp", "Tanh", "Sigmoid", "Neg" }, { "Neg", "Abs", "Exp", "Identity" },
		                               { "Sqrt", "Abs", "Exp", "Reciprocal" }, { "Reciprocal", "Neg", "Sqrt", "Identity" },
		                               { "Sigmoid", "Tanh", "Relu", "Exp" }, { "Tanh", "Sigmoid", "Erf", "Neg" }, { "Erf", "Tanh", "Sigmoid", "Sin" },
		                               { "Relu", "Abs", "Sigmoid", "Neg" }, { "Cos", "Sin", "Tanh", "Neg" }, { "Sin", "Cos", "Tanh", "Neg" },
		                               { "Not", "Identity", "Not", "Identity" }, { "Abs", "Relu", "Neg", "Exp" }, { "Log", "Exp", "Neg", "Abs" },
		                               { "ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin" }, { "ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2" },
		                               { "ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean" } };

	for (size_t i = 0; i < sizeof like / sizeof *like; i++)
		if (node_is(n, like[i][0])) {
			const struct op *op = op_newest(NULL, like[i][1 + below(3)]);

			if (op_nattr(op) != op_nattr(n->op))
				return false;
			n->op = op;
			return true;
		}
	return false;
}

static bool change_attribute(struct graph *g, struct node *n)
{
	uint32_t at = n->nattr ? (uint32_t)below(n->nattr) : 0;
	struct attr *a = n->nattr ? &n->attr[at] : NULL;
	const struct op_attr *row = a ? &n->op->attr[at] : NULL;

	if (!a)
		return false;
	if (a->kind == ATTR_FLOAT) {
		a->f *= 1.5f;
	} else if (a->kind == ATTR_INT && strcmp(a->name, "to")) {
		a->i = a->i ? a->i + (below(2) ? 1 : -1) : 1;
	} else if (a->kind == ATTR_STRING && !strcmp(a->name, "approximate")) {
		*a = attr_string(a->name, a->s.n == 4 && !memcmp(a->s.p, "tanh", 4) ? "none" : "tanh");
	} else if (a->kind == ATTR_INTS && a->n > 1) {
		int64_t *ints = arena_dup(g->arena, a->ints, a->n * sizeof *ints), i = below((int64_t)a->n - 1), keep = ints[i];

		ints[i] = ints[i + 1];
		ints[i + 1] = keep;
		a->ints = ints;
	} else {
		return false;
	}
	a->given = true;
	return row->lo >= row->hi || ((double)a->i >= (double)row->lo && (double)a->i <= (double)row->hi);
}

/* One change; false when this one cannot be made. */
static bool mutate(struct graph *g, struct linnet_error *e)
{
	struct node *n = g->nnode > 1 ? &g->node[1 + below(g->nnode - 1)] : NULL;
	value_id v = any_value(g);
	bool changed = false;

	if (!n || n->dead || !n->known || n->ncapture)
		return false;
	switch (below(6)) {
	case 0: changed = change_constant(g, v); break;
	case 1: changed = change_operator(n); break;
	case 2: changed = change_attribute(g, n); break;
	case 3:
		changed = g->value[v].kind == VALUE_NODE && g->value[v].producer && !graph_is_output(g, v) && !graph_add_output(g, v);
		break;
	case 4: /* operands exchanged */
		if (n->nin > 1 && n->in[0] != n->in[1] && n->in[0] && n->in[1]) {
			value_id keep = n->in[0];

			n->in[0] = n->in[1];
			n->in[1] = keep;
			changed = true;
		}
		break;
	default: /* another value in place of an operand: a graph input or one computed before */
		if (n->nin) {
			value_id *at = &n->in[below(n->nin)];

			changed = *at && v != *at && g->value[v].type.dt == g->value[*at].type.dt &&
			          g->value[v].type.shape.rank == g->value[*at].type.shape.rank &&
			          (g->value[v].kind != VALUE_NODE || (g->value[v].producer && &g->node[g->value[v].producer] < n));
			if (changed)
				*at = v;
		}
		break;
	}
	if (!changed)
		return false;
	for (node_id i = 1; i < g->nnode; i++)
		for (uint32_t k = 0; k < g->node[i].nout; k++)
			if (g->node[i].out[k])
				g->value[g->node[i].out[k]].type = (struct type){ .shape = { .rank = -1 } };
	return !graph_infer(g, e) && !graph_verify(g, e);
}

/* A copy of the model's graph with one change, in m; false when it took too long to find one. */
static bool near_miss(struct linnet_model *m, const struct graph *from)
{
	for (int tries = 0; tries < 50; tries++) {
		struct linnet_error e = { 0 };

		if (graph_copy(from, m->arena, &m->graph, &e))
			return false;
		if (mutate(m->graph, &e))
			return true;
	}
	return false;
}

/* ---- Rules as text ---- */

static double any_number(void)
{
	static const double pool[] = { 1, 2, 3, 4, 0, 0.5, 0.25, 1e-5, 1.702, 2, 3, 1 };

	return pool[below((int64_t)(sizeof pool / sizeof *pool))];
}

/* The rule's head with ranks and lengths drawn, some inputs made constants: (inputs) => (outputs) <constants ... */
static const char *drawn_text(const struct rule *r, struct arena *a)
{
	double value[8];
	int64_t letter[26], whole[4], rank = 1 + below(4);
	char *text;
	const char *s, *rest;
	struct str in, fixed;
	bool first = true, none = true;

	for (int i = 0; i < rule_params(r); i++)
		value[i] = any_number();
	for (int i = 0; i < 26; i++)
		letter[i] = 1 + below(4);
	for (int i = 0; i < rank; i++)
		whole[i] = 1 + below(4);
	if (rule_text(r, r->from, value, a, &text, NULL))
		return "";
	str_init(&in, a);
	str_init(&fixed, a);
	rest = strstr(text, "=>");
	for (s = text + 1; s < rest && *s != ')';) {
		size_t type = strcspn(s, "[)"), dims = strcspn(s + type, "]"), name = strcspn(s + type + dims + 1, ",)");
		bool constant = below(2) && !strncmp(s, "float", 5), squashed = !below(4);
		struct str shape;
		int64_t n = 1;

		str_init(&shape, a);
		for (const char *d = s + type + 1; d < s + type + dims; d++) {
			if (*d >= 'A' && *d <= 'Z') {
				n *= letter[*d - 'A'];
				str_addf(&shape, "%lld", (long long)letter[*d - 'A']);
			} else {
				str_addn(&shape, d, 1);
				if (*d >= '0' && *d <= '9')
					n *= *d - '0';
			}
		}
		for (int64_t i = squashed ? below(rank) : 0; dims == 1 && i < rank; i++) {
			int64_t length = squashed && below(2) ? 1 : whole[i];

			n *= length;
			str_addf(&shape, "%s%lld", shape.n ? "," : "", (long long)length);
		}
		str_addf(constant ? &fixed : &in, "%s%.*s[%s]%.*s", constant ? none ? "" : ", " : first ? "" : ", ", (int)type, s, str_done(&shape), (int)name,
		         s + type + dims + 1);
		if (constant) {
			str_add(&fixed, " = {");
			for (int64_t i = 0; i < n; i++)
				str_addf(&fixed, "%s%g", i ? ", " : "", 0.25 + (double)below(1000) / 1000);
			str_add(&fixed, "}");
		}
		first = first && constant;
		none = none && !constant;
		s += type + dims + 1 + name;
		while (*s == ',' || *s == ' ')
			s++;
	}
	s = rest + strcspn(rest, ")") + 1;
	while (*s == ' ' || *s == '\n')
		s++;
	return arena_fmt(a, HEADER "g (%s) %.*s <%s%s%s%s", str_done(&in), (int)(strcspn(rest, ")") + 1), rest, none ? "" : str_done(&fixed),
	                 *s == '<' && !none ? ", " : "", *s == '<' ? "" : ">", *s == '<' ? s + 1 : s);
}

static struct linnet_model *model_of(const char *text, struct linnet_error *e)
{
	struct linnet_model *m = model_new(NULL, e);

	if (m && !text_parse(m, text, strlen(text), e) && !graph_import(m, e))
		return m;
	model_free(m);
	return NULL;
}

static void try_near(struct tally *t, struct linnet_model *m, const struct graph *from, int n)
{
	while (n--)
		if (near_miss(m, from))
			t->refused += !check_once(t, m, "a near miss");
}

static void check_text(struct tally *t)
{
	struct linnet_error e = { 0 };
	char line[600];

	for (int tries = 0; tries < 4000 && t->applied < ndraw; tries++) {
		struct arena *a = arena_new();
		struct linnet_model *m;
		struct graph *from;

		e = (struct linnet_error){ 0 };
		m = model_of(drawn_text(t->rule, a), &e);
		if (m && !graph_copy(m->graph, m->arena, &from, &e) && check_once(t, m, "as drawn")) {
			t->applied++;
			try_near(t, m, from, 6);
		}
		model_free(m);
		arena_free(a);
	}
	if (t->applied < ndraw) {
		wrong++;
		print_error("%s: applied to %d of its own drawn patterns: %s\n", title(t), t->applied, linnet_error_line(&e, line, sizeof line));
	}
}

static void texts_agree(void **state)
{
	(void)state;
	wrong = 0;
	for (int i = 0; i < ntally; i++)
		if (tally[i].rule && tally[i].rule->from && asked(&tally[i]))
			check_text(&tally[i]);
	assert_int_equal(wrong, 0);
}

/* ---- Rules in code ---- */

/* All rules of the pass in turn, each application compared; which applied. */
static void run_case(const struct pass *p, struct linnet_model *m, const char *how, bool *applied)
{
	const struct pass *tidy = pass_find("tidy");
	bool again = true;

	for (int round = 0; again && round < 40; round++) {
		struct linnet_error e = { 0 };
		uint32_t tidied = 0;

		again = false;
		if (p != tidy && pass_run(tidy, m->graph, &tidied, NULL, &e))
			fail_msg("%s: tidy: %s", how, e.message);
		for (int i = 0; i < ntally; i++)
			if (tally[i].pass == p && check_once(&tally[i], m, how)) {
				applied[i] = true;
				again = tally[i].rule != NULL;
			}
	}
}

static bool has_anchor(const struct graph *g, const struct rule *r)
{
	for (node_id i = 1; i < g->nnode; i++)
		if (!g->node[i].dead && (!r->anchor || !strcmp(g->node[i].op->name, r->anchor)))
			return true;
	return false;
}

static void check_case(const struct pass *p, const char *s, size_t n)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	const char *body = strchr(s, '\n') + 1, *end = strstr(body, "\n=>"), *how = arena_fmt(a, "%.*s", (int)(body - 1 - s), s);
	struct linnet_model *m = model_of(arena_fmt(a, HEADER "%.*s", (int)(end - body), body), &e);
	bool applied[MAX_RULE] = { false };
	struct graph *from;
	char line[600];

	(void)n;
	if (m && (p == pass_find("fold") || p == &batch_pass)) /* what folds in float is not computed in double */
		assert_int_equal(graph_precision(m->graph, &(struct precision){ .from = SET(FLOAT), .to = DT_DOUBLE, .faithful = true }, &e), LINNET_OK);
	if (!m || graph_copy(m->graph, m->arena, &from, &e))
		fail_msg("%s: %s: %s", p->name, how, linnet_error_line(&e, line, sizeof line));
	run_case(p, m, how, applied);
	for (int i = 0; i < ntally; i++) {
		tally[i].applied += applied[i];
		if (!strncmp(end, "\n=> unchanged", 13) && tally[i].pass == p && (!tally[i].rule || has_anchor(from, tally[i].rule)))
			tally[i].refused++;
	}
	for (int k = 0; k < 3 * ndraw; k++) {
		bool now[MAX_RULE] = { false };

		if (!near_miss(m, from))
			continue;
		run_case(p, m, how, now);
		for (int i = 0; i < ntally; i++)
			tally[i].refused += applied[i] && !now[i];
	}
	model_free(m);
	arena_free(a);
}

static void check_pass(const struct pass *p)
{
	char path[100], *text = malloc(1 << 20), *s;
	FILE *file;
	size_t n;

	snprintf(path, sizeof path, "tests/passes/%s.txt", p->name);
	file = fopen(path, "r");
	if (!file || !text)
		fail_msg("%s is missing", path);
	n = fread(text, 1, (1 << 20) - 1, file);
	fclose(file);
	text[n] = '\0';
	for (s = strstr(text, "## "); s; s = strstr(s + 3, "\n## "))
		check_case(p, s, n);
	free(text);
}

static void cases_agree(void **state)
{
	(void)state;
	wrong = 0;
	for (int i = 0; pass_at(i); i++) {
		bool any = false;

		for (int k = 0; k < ntally; k++)
			any = any || (tally[k].pass == pass_at(i) && asked(&tally[k]));
		if (any)
			check_pass(pass_at(i));
	}
	assert_int_equal(wrong, 0);
}

/* A pattern of one node whose attributes are parameters: there is nothing to miss. */
static bool is_plain(const struct rule *r)
{
	const char *s = r && r->from ? strchr(r->from, '{') : NULL;
	int nodes = 0;

	for (; s && *s; s++)
		nodes += *s == '(';
	return nodes == 1;
}

static void all_were_met(void **state)
{
	int missing = 0;

	(void)state;
	for (int i = 0; i < ntally; i++)
		if (asked(&tally[i]) && (!tally[i].applied || (!tally[i].refused && !is_plain(tally[i].rule)))) {
			print_error("%s: applied %d times, refused %d times\n", title(&tally[i]), tally[i].applied, tally[i].refused);
			missing++;
		}
	assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(texts_agree), cmocka_unit_test(cases_agree), cmocka_unit_test(all_were_met) };

	only = argv + 1;
	nonly = argc - 1;
	if (nonly > 1 && !strcmp(only[0], "-n")) {
		ndraw = atoi(only[1]);
		only += 2;
		nonly -= 2;
	}
	draw.state = 6;
	list_rules();
	return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
