/*
 * The operator table and the cases of tests/ops: every row is complete, and every case computes what it says.
 *
 * A case file is named after its operator and holds cases of
 *
 *	## title
 *	opset 11                                  optional: the model's opset, to test old versions
 *	opset ai.onnx.ml 2                        optional: the same of another domain
 *	tolerance 1e-5                            optional: largest relative difference, else as the rows' `agree` says
 *	y = Softmax <axis = -1> (x)               one node or more, in the text form
 *	x = float[1,3] {1, 2, 3}                  a tensor for each input the nodes leave open
 *	y = float[1,3] {0.09, 0.24, 0.67}         what each output is; {...} for type and shape alone
 *	s = seq(float) {float {1}, float[2] {2, 3}}   likewise optional(float), optional(seq(float)), map(int64, float) {keys, values}
 *	! LINNET_ESHAPE axis 2 is not in          instead of outputs: the error, and a part of its message
 *
 * or, of inference alone,
 *
 *	y = Reshape (x, s)
 *	x : float[batch,seq,64]                   the type of an input; inputs given as tensors are constants
 *	s : int64[2] {batch, -1}                  with elements that are known
 *	y : float[batch,64*seq]                   the type of an output as it is printed, with elements when they are known
 *
 * Integers in tensors of narrow floats are numbers here, not bits. `test_ops Softmax ...` runs the files of these operators alone.
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/proto.h"
#include "graph/text.h"
#include "ops/base/str.h"
#include "runtime/runtime.h"

#define FOLDER "tests/ops"

static char **only; /* operators asked for on the command line */
static int nonly;

static int complaints;

static void __attribute__((format(printf, 1, 2))) complain(const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_error("%s\n", text);
	complaints++;
}

/* ---- The table ---- */

static const char *row_title(const struct op *op)
{
	static char t[200];

	snprintf(t, sizeof t, "%s%s%s, version %d", op->domain ? op->domain : "", op->domain ? "." : "", op->name, op->since);
	return t;
}

static void check_ios(const struct op *op, const struct op_io *io, const char *what)
{
	for (; io && io->name; io++) {
		if (io->type >= NTVAR || !op->types[io->type])
			complain("%s: %s \"%s\" has a type variable without types", row_title(op), what, io->name);
		if (io->flags & VARIADIC && io[1].name)
			complain("%s: variadic %s \"%s\" is not the last", row_title(op), what, io->name);
	}
}

static bool listed(char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], s))
			return true;
	return false;
}

/* Whether the nodes use what exists: values of formals or nodes before, operators with rows, attributes of the row. */
static void check_block(const struct op *op, const char *what, const Onnx__FunctionProto *f)
{
	char *known[512];
	size_t n = 0;

	for (size_t i = 0; i < f->n_input; i++)
		known[n++] = f->input[i];
	for (size_t i = 0; i < f->n_node; i++) {
		const Onnx__NodeProto *x = f->node[i];

		if (!op_newest(x->domain, x->op_type))
			complain("%s: %s uses %s, which has no row", row_title(op), what, x->op_type);
		for (size_t k = 0; k < x->n_input; k++)
			if (*x->input[k] && !listed(known, n, x->input[k]))
				complain("%s: %s uses \"%s\", which is no value", row_title(op), what, x->input[k]);
		for (size_t k = 0; k < x->n_attribute; k++)
			if (x->attribute[k]->ref_attr_name && op_attr_index(op, x->attribute[k]->ref_attr_name) < 0)
				complain("%s: %s refers to \"%s\", which is no attribute", row_title(op), what, x->attribute[k]->ref_attr_name);
		for (size_t k = 0; k < x->n_output && n < 512; k++)
			known[n++] = x->output[k];
	}
	for (size_t i = 0; i < f->n_output; i++)
		if (!(op->out[i].flags & OPTIONAL) && !listed(known, n, f->output[i]))
			complain("%s: %s does not give \"%s\"", row_title(op), what, f->output[i]);
}

/* The choices of a block are walked by answering the k-th question with bit k. */
struct answers {
	unsigned bits, asked;
	const struct op *op;
};

static bool answer(void *ctx, const char *name, const char *word)
{
	struct answers *a = ctx;
	int attr = op_attr_index(a->op, name);
	bool known = attr >= 0 && (!word || a->op->attr[attr].kind == ATTR_STRING);

	for (const struct op_io *io = a->op->in; io && io->name && !word; io++)
		known |= !strcmp(io->name, name);
	if (!known)
		complain("%s: ?%s%s%s asks for what it has not", row_title(a->op), name, word ? "=" : "", word ? word : "");
	return a->bits >> a->asked++ & 1;
}

static void check_text(const struct op *op, const char *what, const char *text)
{
	struct answers a = { .op = op };

	do {
		struct arena *arena = arena_new();
		struct linnet_error e = { 0 };
		Onnx__FunctionProto *f;

		a.asked = 0;
		if (text_parse_block(text, op, answer, &a, arena, &f, &e))
			complain("%s: %s: %s", row_title(op), what, e.message);
		else
			check_block(op, what, f);
		arena_free(arena);
	} while (++a.bits < 1u << a.asked && a.bits < 256);
}

static void check_row(const struct op *op)
{
	if (op_newest(op->domain, op->name) == op && (!op->doc || !*op->doc))
		complain("%s: no doc", row_title(op));
	if (!op->out || !op->out[0].name)
		complain("%s: no outputs", row_title(op));
	check_ios(op, op->in, "input");
	check_ios(op, op->out, "output");
	for (const struct op_attr *a = op->attr; a && a->name; a++)
		if (a->kind == ATTR_NONE || op_attr_index(op, a->name) != a - op->attr)
			complain("%s: attribute \"%s\" has no kind or occurs twice", row_title(op), a->name);
	if (op->body)
		check_text(op, "body", op->body);
	if (op->lower)
		check_text(op, "lower", op->lower);
	/* other domains' operators may be known by shape alone: they are typed, shown and kept, but not run */
	if (!op_is_old(op) && !op->kernel && !(op->flags & OP_CONTROL) && !op_has_body(op) && !(op->domain && op->shape))
		complain("%s: neither kernel, body nor lower", row_title(op));
	if (op->kernel && !op->shape)
		complain("%s: a kernel without a shape function", row_title(op));
}

static void rows_are_complete(void **state)
{
	(void)state;
	complaints = 0;
	for (const struct op_family *const *f = op_families; *f; f++)
		for (int i = 0; i < (*f)->n; i++) {
			const struct op *op = &(*f)->op[i];

			check_row(op);
			if (op_find(op->domain, op->name, op->since) != op)
				complain("%s: op_find() finds another row", row_title(op));
			for (const struct op_family *const *g = op_families; *g; g++)
				for (int k = 0; k < (*g)->n; k++) {
					const struct op *other = &(*g)->op[k];

					if (other != op && other->since == op->since && !strcmp(other->name, op->name) &&
					    !strcmp(other->domain ? other->domain : "", op->domain ? op->domain : ""))
						complain("%s: two rows", row_title(op));
				}
		}
	assert_int_equal(complaints, 0);
}

/* "opset 11" or "opset ai.onnx.ml 2"; false for other lines. */
static bool read_opset(const char *line, char domain[64], int *opset)
{
	*domain = '\0';
	return sscanf(line, "opset %d", opset) == 1 || sscanf(line, "opset %63s %d", domain, opset) == 2;
}

/* Whether the operator's file exists and, for an old version, has a case in an opset of that version. */
static bool has_case(const struct op *op)
{
	bool newest = op_newest(op->domain, op->name) == op, found = newest;
	char path[300], line[2000], domain[64];
	int opset;
	FILE *f;

	snprintf(path, sizeof path, FOLDER "/%s.txt", op->name);
	f = fopen(path, "r");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof line, f))
		found = read_opset(line, domain, &opset) && op_find(domain, op->name, opset) == op;
	fclose(f);
	return found;
}

static void rows_have_cases(void **state)
{
	(void)state;
	complaints = 0;
	for (const struct op_family *const *f = op_families; *f; f++)
		for (int i = 0; i < (*f)->n; i++) {
			const struct op *op = &(*f)->op[i];

			if ((op->kernel || op_newest(op->domain, op->name) != op) && !has_case(op))
				complain("%s: no case in " FOLDER "/%s.txt", row_title(op), op->name);
		}
	assert_int_equal(complaints, 0);
}

/* ---- Cases ---- */

enum { MAX_CASE = 64 };

struct value_line {
	char *name;
	const char *text;
	const struct tensor *t; /* without data when only type and shape are told */
	bool any;
};

/* name : type, with elements or without */
struct type_line {
	const char *name, *type, *elements;
};

struct test_case {
	const char *file, *title;
	int line;
	struct arena *a;
	int opset, ml_opset;
	double tolerance; /* negative: as the rows say */
	char *node[MAX_CASE];
	int nnode;
	struct value_line value[MAX_CASE];
	int nvalue;
	struct type_line type[MAX_CASE];
	int ntype;
	const char *code, *message; /* of the error */
};

static const struct value_line *find_value(const struct test_case *c, const char *name)
{
	for (int i = 0; i < c->nvalue; i++)
		if (!strcmp(c->value[i].name, name))
			return &c->value[i];
	return NULL;
}

#define CASE_FAILS(c, fmt, ...) complain("%s:%d: %s: " fmt, (c)->file, (c)->line, (c)->title, __VA_ARGS__)

/* By the reference kernels of the rows; by other operators where rows have bodies; by a plan of fast kernels, where rows have those. */
enum way { BY_ROWS, BY_BODIES, BY_FAST };

/* How far two executions may be apart, relatively. Other ways than the rows' round more often. */
static double tolerance_of(const struct test_case *c, const struct graph *g, enum dtype dt, enum way way)
{
	double unit = dt == DT_FLOAT16 ? 0x1p-10 : dt == DT_BFLOAT16 ? 0x1p-7 : 1e-6;
	bool exact = true;

	if (c->tolerance >= 0)
		return c->tolerance;
	for (node_id n = 1; n < g->nnode; n++)
		exact &= g->node[n].dead || g->node[n].op->agree == AGREE_BITS;
	if (exact || dtype_class(dt) != CLASS_FLOAT || dtype_bits(dt) < 16)
		return 0;
	return way != BY_ROWS ? 16 * unit : unit;
}

static bool close_to(double got, double want, double tolerance)
{
	if (isnan(got) || isnan(want))
		return isnan(got) && isnan(want);
	if (got == want || isinf(got) || isinf(want))
		return got == want;
	return fabs(got - want) <= tolerance * fmax(fabs(want), 1e-3);
}

static const char *shape_text(const struct tensor *t, struct arena *a)
{
	struct str s;

	str_init(&s, a);
	str_add(&s, dtype_name(t->dt));
	for (int i = 0; i < t->rank; i++)
		str_addf(&s, "%s%lld", i ? "," : "[", (long long)t->d[i]);
	str_add(&s, t->rank ? "]" : "");
	return str_done(&s);
}

static void compare(const struct test_case *c, const char *how, const char *name, const struct tensor *got, const struct tensor *want,
                    bool shape_only, double tolerance);

/* Values that are no tensors, member by member. */
static void compare_members(const struct test_case *c, const char *how, const char *name, const struct tensor *got,
                            const struct tensor *want, double tolerance)
{
	struct type type = { .kind = want->kind, .dt = want->dt, .key = want->key };
	char words[64];

	if (!got || got->kind != want->kind || got->dt != want->dt || got->key != want->key || got->n != want->n) {
		CASE_FAILS(c, "%s%s is another value than the expected %s of %lld members", how, name, kind_str(&type, words, sizeof words),
		           (long long)want->n);
		return;
	}
	for (int64_t i = 0; i < want->n; i++)
		compare(c, how, arena_fmt(c->a, "%s[%lld]", name, (long long)i), tensor_member(got, i), tensor_member(want, i), false,
		        tolerance);
}

static void compare(const struct test_case *c, const char *how, const char *name, const struct tensor *got, const struct tensor *want,
                    bool shape_only, double tolerance)
{
	bool same = got && got->kind == want->kind && got->dt == want->dt && got->rank == want->rank;

	if (want->kind != KIND_TENSOR) {
		compare_members(c, how, name, got, want, tolerance);
		return;
	}
	for (int i = 0; same && i < want->rank; i++)
		same = got->d[i] == want->d[i];
	if (!same) {
		CASE_FAILS(c, "%s%s is %s, expected %s", how, name, got ? shape_text(got, c->a) : "not computed", shape_text(want, c->a));
		return;
	}
	if (shape_only)
		return;
	if (want->dt == DT_STRING) {
		for (int64_t i = 0; i < want->n; i++) {
			const struct text *x = (const struct text *)got->data + i, *y = (const struct text *)want->data + i;

			if (x->n != y->n || (x->n && memcmp(x->p, y->p, x->n)))
				CASE_FAILS(c, "%s%s[%lld] is \"%.*s\", expected \"%.*s\"", how, name, (long long)i, (int)x->n, x->p,
				           (int)y->n, y->p);
		}
		return;
	}
	for (int64_t i = 0; i < want->n; i++) {
		if (dtype_in(want->dt, INTS | SET(BOOL))) {
			int64_t x = tensor_get_int(got, i), y = tensor_get_int(want, i);

			if (x != y) {
				CASE_FAILS(c, "%s%s[%lld] is %lld, expected %lld", how, name, (long long)i, (long long)x, (long long)y);
				return;
			}
		} else {
			double x = tensor_get(got, i), y = tensor_get(want, i);

			if (!close_to(x, y, tolerance)) {
				CASE_FAILS(c, "%s%s[%lld] is %.9g, expected %.9g", how, name, (long long)i, x, y);
				return;
			}
		}
	}
}

/* What inference knows of a value agrees with what it is. */
static void compare_inferred(const struct test_case *c, const char *how, const struct value *v, const struct tensor *t)
{
	if (v->type.dt != DT_UNDEFINED && v->type.dt != t->dt)
		CASE_FAILS(c, "%s\"%s\" is inferred as %s and computed as %s", how, v->name, dtype_name(v->type.dt), dtype_name(t->dt));
	if (v->type.dt != DT_UNDEFINED && v->type.kind != t->kind)
		CASE_FAILS(c, "%s\"%s\" is inferred as a value of another kind", how, v->name);
	for (int64_t i = 0; t->kind != KIND_TENSOR && t->kind != KIND_MAP && i < t->n; i++) {
		struct value member = *v;

		member.type.kind = kind_member(t->kind);
		compare_inferred(c, how, &member, tensor_member(t, i));
	}
	if (v->type.shape.rank < 0 || t->kind != KIND_TENSOR)
		return;
	if (v->type.shape.rank != t->rank) {
		CASE_FAILS(c, "%s\"%s\" is inferred with rank %d and computed with %d", how, v->name, v->type.shape.rank, t->rank);
		return;
	}
	for (int i = 0; i < t->rank; i++)
		if (dim_is_int(v->type.shape.d[i]) && v->type.shape.d[i] != t->d[i])
			CASE_FAILS(c, "%slength %d of \"%s\" is inferred as %lld and computed as %lld", how, i, v->name,
			           (long long)v->type.shape.d[i], (long long)t->d[i]);
}

/* The head of the case's model, up to its inputs. */
static void add_head(struct str *s, const struct test_case *c)
{
	str_addf(s, "<ir_version: 13, opset_import: [\"\" : %d, \"ai.onnx.ml\" : %d, \"ai.onnx.preview.training\" : 1, "
	         "\"com.microsoft\" : 1, \"linnet\" : 1, \"ai.onnx.preview\" : 1]>\n\"case\" (", c->opset, c->ml_opset);
}

/* What the model says of its inputs. */
enum knowledge { KNOW_LENGTHS, KNOW_RANKS, KNOW_TYPES };

/* The case as a model: open names are graph inputs, all others outputs. */
static char *model_text(const struct test_case *c, enum knowledge k, const Onnx__GraphProto *nodes)
{
	char *open[MAX_CASE], *made[MAX_CASE];
	size_t nopen = 0, nmade = 0;
	struct str s;

	for (size_t i = 0; i < nodes->n_node; i++) {
		const Onnx__NodeProto *n = nodes->node[i];

		for (size_t j = 0; j < n->n_input; j++)
			if (*n->input[j] && !listed(made, nmade, n->input[j]) && !listed(open, nopen, n->input[j]) && nopen < MAX_CASE)
				open[nopen++] = n->input[j];
		for (size_t j = 0; j < n->n_output; j++)
			if (*n->output[j] && nmade < MAX_CASE)
				made[nmade++] = n->output[j];
	}
	str_init(&s, c->a);
	add_head(&s, c);
	for (size_t i = 0; i < nopen; i++) {
		const struct value_line *v = find_value(c, open[i]);

		if (!v) {
			CASE_FAILS(c, "no tensor is given for input %s", open[i]);
			return NULL;
		}
		str_add(&s, i ? ", " : "");
		if (v->t->kind != KIND_TENSOR) {
			struct type type = { .kind = v->t->kind, .dt = v->t->dt, .key = v->t->key };
			char words[64];

			kind_str(&type, words, sizeof words);
			str_addf(&s, "%.*s[]%s \"%s\"", (int)strcspn(words, ")"), words, strchr(words, ')'), open[i]);
			continue;
		}
		str_add(&s, dtype_name(v->t->dt));
		for (int d = 0; d < v->t->rank && k == KNOW_LENGTHS; d++)
			str_addf(&s, "%s%lld", d ? "," : "[", (long long)v->t->d[d]);
		for (int d = 0; d < v->t->rank && k == KNOW_RANKS; d++)
			str_addf(&s, "%s%s_%d", d ? "," : "[", open[i], d);
		str_addf(&s, "%s \"%s\"", k == KNOW_TYPES ? "[]" : v->t->rank ? "]" : "", open[i]);
	}
	str_add(&s, ") => (");
	for (size_t i = 0; i < nmade; i++)
		str_addf(&s, "%s\"%s\"", i ? ", " : "", made[i]);
	str_add(&s, ") {\n");
	for (int i = 0; i < c->nnode; i++)
		str_addf(&s, "%s\n", c->node[i]);
	str_add(&s, "}\n");
	return str_done(&s);
}

/* All values by the reference kernels, in order; value[v] for each. */
static enum linnet_code evaluate(const struct test_case *c, const struct graph *g, const struct tensor **value, struct linnet_error *e)
{
	node_id *order;
	uint32_t n;

	for (value_id v = 1; v < g->nvalue; v++) {
		if (g->value[v].kind == VALUE_CONST)
			value[v] = g->value[v].type.value;
		else if (g->value[v].kind == VALUE_INPUT)
			value[v] = find_value(c, g->value[v].name)->t;
	}
	TRY(graph_order(g, c->a, &order, &n, e));
	for (uint32_t i = 0; i < n; i++) {
		const struct node *x = &g->node[order[i]];
		const struct tensor *in[MAX_CASE] = { NULL };
		struct tensor *out[MAX_CASE] = { NULL };
		bool wanted[MAX_CASE] = { false };

		if (x->nin > MAX_CASE || x->nout > MAX_CASE)
			return fail(e, LINNET_ELIMIT, "too many inputs or outputs for a case");
		for (uint32_t k = 0; k < x->nin; k++)
			in[k] = x->in[k] ? value[x->in[k]] : NULL;
		for (uint32_t k = 0; k < x->nout; k++)
			wanted[k] = x->out[k] != 0;
		TRY(op_eval(x->op, x->attr, (int)x->nin, in, (int)x->nout, wanted, c->a, out, e));
		for (uint32_t k = 0; k < x->nout; k++)
			if (wanted[k])
				value[x->out[k]] = out[k];
	}
	return LINNET_OK;
}

struct kept {
	struct arena *a;
	const struct tensor **value;
	enum linnet_code code;
};

static int keep(void *ctx, const struct graph *g, value_id v, const struct tensor *t)
{
	struct kept *k = ctx;
	struct tensor *copy;

	(void)g;
	k->code = tensor_dup(k->a, t, &copy, NULL);
	if (k->code)
		return 1;
	k->value[v] = copy;
	return 0;
}

/* The same, with subgraphs, by a plan. */
static enum linnet_code evaluate_plan(const struct test_case *c, const struct graph *g, enum kernels kernels, const struct tensor **value,
                                      struct linnet_error *e)
{
	struct kept kept = { .a = c->a, .value = value };
	struct run_opt opt = { .kernels = kernels, .threads = 1, .watch = keep, .watch_ctx = &kept };
	const struct tensor *in[MAX_CASE] = { NULL };
	struct tensor *out[MAX_CASE] = { NULL };
	struct plan *p;
	enum linnet_code code;

	if (g->nin > MAX_CASE || g->nout > MAX_CASE)
		return fail(e, LINNET_ELIMIT, "too many inputs or outputs for a case");
	for (uint32_t i = 0; i < g->nin; i++)
		in[i] = find_value(c, g->value[g->in[i]].name)->t;
	TRY(plan_new(g, &opt, &p, e));
	code = plan_run(p, in, out, e);
	for (uint32_t i = 0; i < g->nout && !code; i++) {
		keep(&kept, g, g->out[i], out[i]);
		tensor_release(out[i]);
	}
	plan_free(p);
	return code ? code : kept.code;
}

static bool has_subgraphs(const struct graph *g)
{
	for (node_id n = 1; n < g->nnode; n++)
		if (!g->node[n].dead && g->node[n].op->flags & OP_CONTROL)
			return true;
	return false;
}

/* Parse, import, evaluate, node by node or by a plan. BY_BODIES: with every node that has a body expanded. */
static enum linnet_code run_model(const struct test_case *c, struct linnet_model *m, const char *text, enum way way, bool by_plan,
                                  const struct tensor ***value, bool *expanded, struct linnet_error *e)
{
	TRY(text_parse(m, text, strlen(text), e));
	TRY(graph_import(m, e));
	*expanded = false;
	for (node_id n = 1, last = m->graph->nnode; way == BY_BODIES && n < last; n++)
		if (!m->graph->node[n].dead && op_has_body(m->graph->node[n].op)) {
			TRY(graph_expand(m->graph, n, e));
			*expanded = true;
		}
	if (*expanded)
		TRY(graph_infer(m->graph, e));
	TRY_NEW(*value, c->a, m->graph->nvalue);
	if (way == BY_FAST)
		return evaluate_plan(c, m->graph, KERNELS_FAST, *value, e);
	return by_plan || has_subgraphs(m->graph) ? evaluate_plan(c, m->graph, KERNELS_REFERENCE, *value, e)
	                                          : evaluate(c, m->graph, *value, e);
}

static void check_error(const struct test_case *c, const char *how, enum linnet_code code, const struct linnet_error *e)
{
	if (!code)
		CASE_FAILS(c, "%ssucceeds, expected LINNET_%s %s", how, c->code, c->message);
	else if (strcmp(linnet_code_name(code), c->code) || !strstr(e->message, c->message))
		CASE_FAILS(c, "%sfails with LINNET_%s %s, expected LINNET_%s %s", how, linnet_code_name(code), e->message, c->code, c->message);
}

static void run_once(const struct test_case *c, const Onnx__GraphProto *nodes, enum knowledge k, enum way way)
{
	static const char *const title[] = { "", "with lengths not known before: ", "with ranks not known before: " };
	static const char *const body_title[] = { "by its body: ", "by its body with lengths not known before: " };
	const char *how = way == BY_FAST ? "by fast kernels: " : way == BY_BODIES ? body_title[k] : title[k];
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	const char *text = model_text(c, k, nodes);
	const struct tensor **value;
	enum linnet_code code;
	bool expanded = false;
	double tolerance[DT_COUNT];

	assert_non_null(m);
	if (!text) {
		model_free(m);
		return;
	}
	code = run_model(c, m, text, way, k == KNOW_TYPES, &value, &expanded, &e);
	if (way == BY_BODIES && ((!code && !expanded) || (code == LINNET_EUNSUPPORTED && strstr(e.message, "in other operators")))) {
		model_free(m);
		return;
	}
	if (c->code) {
		check_error(c, how, code, &e);
	} else if (code) {
		CASE_FAILS(c, "%sLINNET_%s %s", how, linnet_code_name(code), e.message);
	} else {
		for (int t = 0; t < DT_COUNT; t++)
			tolerance[t] = tolerance_of(c, m->graph, (enum dtype)t, way);
		for (uint32_t i = 0; i < m->graph->nout; i++) {
			value_id v = m->graph->out[i];
			const struct value_line *want = find_value(c, m->graph->value[v].name);

			if (want)
				compare(c, how, want->name, value[v], want->t, want->any, tolerance[want->t->dt]);
		}
		for (value_id v = 1; v < m->graph->nvalue; v++)
			if (value[v])
				compare_inferred(c, how, &m->graph->value[v], value[v]);
	}
	model_free(m);
}

/* ---- Cases of inference ---- */

static const struct type_line *find_type(const struct test_case *c, const char *name)
{
	for (int i = 0; i < c->ntype; i++)
		if (!strcmp(c->type[i].name, name))
			return &c->type[i];
	return NULL;
}

/* The case as a model: inputs with a type are graph inputs, those with a tensor are added as inputs to become constants. */
static char *typed_text(const struct test_case *c, const Onnx__GraphProto *nodes)
{
	struct str s;

	str_init(&s, c->a);
	add_head(&s, c);
	for (int i = 0, n = 0; i < c->ntype; i++) {
		bool made = false;

		for (size_t k = 0; k < nodes->n_node; k++)
			made |= listed(nodes->node[k]->output, nodes->node[k]->n_output, c->type[i].name);
		if (!made)
			str_addf(&s, "%s%s %s", n++ ? ", " : "", c->type[i].type, c->type[i].name);
	}
	str_add(&s, ") => () {\n");
	for (int i = 0; i < c->nvalue; i++)
		str_addf(&s, "%s = Constant <value = %s> ()\n", c->value[i].name, c->value[i].text);
	for (int i = 0; i < c->nnode; i++)
		str_addf(&s, "%s\n", c->node[i]);
	str_add(&s, "}\n");
	return str_done(&s);
}

/* "float[batch,seq]", and what is known of the elements: "int64[2] {batch, 4}". */
static const char *described(struct linnet_model *m, const struct type *t)
{
	int64_t n = t->value ? t->value->n : t->sym ? (t->shape.rank ? t->shape.d[0] : 1) : 0;
	struct str s;

	str_init(&s, m->arena);
	str_add(&s, type_str(m->dims, t, m->arena));
	for (int64_t i = 0; i < n; i++) {
		str_add(&s, i ? ", " : " {");
		if (t->value && dtype_class(t->dt) == CLASS_FLOAT)
			str_addf(&s, "%g", tensor_get(t->value, i));
		else
			str_add(&s, dim_str(m->dims, t->value ? tensor_get_int(t->value, i) : t->sym[i], m->arena));
	}
	str_add(&s, n ? "}" : "");
	return str_done(&s);
}

/* "{batch, -1}" to an input's symbolic elements. */
static void set_elements(struct linnet_model *m, struct value *v, const char *elements)
{
	dim *sym = arena_get(m->arena, MAX_SYM, sizeof *sym);
	int n = 0;

	assert_non_null(sym);
	for (const char *p = elements + 1; *p && *p != '}'; n++) {
		size_t len = 0;
		char *word, *end;
		long long i;

		for (int depth = 0; p[len] && p[len] != '}' && (depth || p[len] != ','); len++)
			depth += (p[len] == '(') - (p[len] == ')');
		word = arena_strn(m->arena, p + strspn(p, " "), len - strspn(p, " "));
		assert_non_null(word);
		i = strtoll(word, &end, 10);
		sym[n] = *end ? dim_parse(m->dims, word) : i;
		p += len + (p[len] == ',');
	}
	v->type.sym = sym;
}

static void run_types(const struct test_case *c, const Onnx__GraphProto *nodes)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	const char *text = typed_text(c, nodes);
	enum linnet_code code;

	assert_non_null(m);
	assert_non_null(text);
	code = text_parse(m, text, strlen(text), &e);
	code = code ? code : graph_import(m, &e);
	for (value_id v = 1; !code && v < m->graph->nvalue; v++) {
		const struct type_line *t = find_type(c, m->graph->value[v].name);

		if (t && t->elements && m->graph->value[v].kind == VALUE_INPUT)
			set_elements(m, &m->graph->value[v], t->elements);
	}
	code = code ? code : graph_infer(m->graph, &e);
	if (c->code) {
		check_error(c, "", code, &e);
	} else if (code) {
		CASE_FAILS(c, "LINNET_%s %s", linnet_code_name(code), e.message);
	} else {
		for (value_id v = 1; v < m->graph->nvalue; v++) {
			const struct type_line *t = find_type(c, m->graph->value[v].name);
			const char *got, *want;

			if (!t || m->graph->value[v].kind == VALUE_INPUT)
				continue;
			got = described(m, &m->graph->value[v].type);
			want = arena_fmt(c->a, "%s%s%s", t->type, t->elements ? " " : "", t->elements ? t->elements : "");
			assert_true(got && want);
			if (strcmp(got, want))
				CASE_FAILS(c, "%s is %s, expected %s", t->name, got, want);
		}
	}
	model_free(m);
}

static void run_case(const struct test_case *c)
{
	struct linnet_error e = { 0 };
	Onnx__GraphProto *nodes;
	struct str s;
	const char *text;

	str_init(&s, c->a);
	str_add(&s, "{\n");
	for (int i = 0; i < c->nnode; i++)
		str_addf(&s, "%s\n", c->node[i]);
	str_add(&s, "}");
	text = str_done(&s);
	assert_non_null(text);
	if (text_parse_graph(text, c->a, &nodes, &e)) {
		CASE_FAILS(c, "%s", e.message);
		return;
	}
	for (int i = 0; i < c->nvalue; i++) {
		bool used = false;

		for (size_t n = 0; n < nodes->n_node; n++)
			used |= listed(nodes->node[n]->input, nodes->node[n]->n_input, c->value[i].name) ||
			        listed(nodes->node[n]->output, nodes->node[n]->n_output, c->value[i].name);
		if (!used)
			CASE_FAILS(c, "%s is no input or output of the nodes", c->value[i].name);
	}
	if (c->ntype) {
		run_types(c, nodes);
		return;
	}
	run_once(c, nodes, KNOW_LENGTHS, BY_ROWS);
	run_once(c, nodes, KNOW_RANKS, BY_ROWS);
	run_once(c, nodes, KNOW_TYPES, BY_ROWS);
	run_once(c, nodes, KNOW_LENGTHS, BY_FAST);
	if (c->code)
		return;
	run_once(c, nodes, KNOW_LENGTHS, BY_BODIES);
	run_once(c, nodes, KNOW_RANKS, BY_BODIES);
}

/* ---- Case files ---- */

/* Brackets opened and not closed, outside quotes: such a line goes on on the next one. */
static int open_brackets(const char *s)
{
	bool quoted = false;
	int depth = 0;

	for (; *s; s++) {
		if (quoted && *s == '\\' && s[1])
			s++;
		else if (*s == '"')
			quoted = !quoted;
		else if (!quoted)
			depth += (strchr("([{", *s) != NULL) - (strchr(")]}", *s) != NULL);
	}
	return depth;
}

static size_t word_length(const char *s)
{
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
}

/* name = type ... */
static bool is_value(const char *s)
{
	size_t n = word_length(s);

	if (!n)
		return false;
	s += n;
	s += strspn(s, " \t");
	if (*s++ != '=')
		return false;
	s += strspn(s, " \t");
	return dtype_parse(s, word_length(s)) != DT_UNDEFINED || !strncmp(s, "seq(", 4) || !strncmp(s, "map(", 4) ||
	       !strncmp(s, "optional(", 9);
}

/* "seq(float)", "map(int64, float)", ...: what stands before the members. */
static bool kind_parse(const char *s, size_t n, struct type *t)
{
	static const enum type_kind kinds[] = { KIND_SEQUENCE, KIND_OPTIONAL, KIND_OPTIONAL_SEQUENCE, KIND_MAP, KIND_SEQUENCE_MAP };
	static const enum dtype keys[] = { DT_INT64, DT_STRING };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		for (int k = 0; k < 2; k++)
			for (int dt = 1; dt < DT_COUNT; dt++) {
				bool map = kinds[i] == KIND_MAP || kinds[i] == KIND_SEQUENCE_MAP;
				char words[64];

				*t = (struct type){ .kind = kinds[i], .dt = (enum dtype)dt, .key = map ? keys[k] : DT_UNDEFINED };
				kind_str(t, words, sizeof words);
				if (strlen(words) == n && !memcmp(words, s, n))
					return true;
			}
	return false;
}

/* Where the member that starts at s ends: at a comma or brace outside brackets and quotes. */
static const char *member_end(const char *s)
{
	bool quoted = false;
	int depth = 0;

	for (; *s && (quoted || depth || !strchr(",}", *s)); s++) {
		quoted ^= *s == '"' && s[-1] != '\\';
		depth += quoted ? 0 : (strchr("([{", *s) != NULL) - (strchr(")]}", *s) != NULL);
	}
	return s;
}

static bool parse_tensor(struct test_case *c, struct linnet_model *m, const char *text, struct tensor **out, bool *any);

static bool parse_members(struct test_case *c, struct linnet_model *m, const char *text, const char *open, struct tensor **out)
{
	size_t n = (size_t)(open - text);
	struct tensor *member[MAX_CASE];
	struct linnet_error e = { 0 };
	struct type type;
	int64_t count = 0;
	bool any;

	while (n && text[n - 1] == ' ')
		n--;
	if (!kind_parse(text, n, &type))
		return false;
	for (const char *p = open + 1 + strspn(open + 1, " "); *p && *p != '}' && count < MAX_CASE;) {
		const char *end = member_end(p), *one = arena_strn(m->arena, p, (size_t)(end - p));

		if (!one || !parse_tensor(c, m, one, &member[count++], &any))
			return false;
		p = end + (*end == ',');
		p += strspn(p, " ");
	}
	assert_int_equal(members_new(m->arena, type.kind, type.dt, count, out, &e), LINNET_OK);
	(*out)->key = type.key;
	memcpy((*out)->data, member, (size_t)count * sizeof *member);
	return true;
}

/* A value as text. any: a tensor without elements in it, to be compared by type and shape. */
static bool parse_tensor(struct test_case *c, struct linnet_model *m, const char *text, struct tensor **out, bool *any)
{
	const char *open = strchr(text, '{');
	struct linnet_error e = { 0 };
	Onnx__TensorProto *p;

	*any = false;
	text += strspn(text, " ");
	if (open && text[word_length(text)] == '(')
		return parse_members(c, m, text, open, out);
	if (text_parse_tensor(text, strlen(text), true, c->a, &p, &e)) {
		CASE_FAILS(c, "%s: %s", text, e.message);
		return false;
	}
	*any = !p->has_raw_data && !p->n_string_data && strstr(text, "...");
	if (*any)
		assert_int_equal(tensor_new(c->a, (enum dtype)p->data_type, (int)p->n_dims, p->dims, out, &e), LINNET_OK);
	else if (proto_tensor(m, p, out, &e)) {
		CASE_FAILS(c, "%s: %s", text, e.message);
		return false;
	}
	return true;
}

static bool add_value(struct test_case *c, struct linnet_model *m, char *s)
{
	struct value_line *v = &c->value[c->nvalue];
	struct tensor *t;
	const char *text = strchr(s, '=') + 1;

	if (c->nvalue == MAX_CASE) {
		CASE_FAILS(c, "more than %d tensors", MAX_CASE);
		return false;
	}
	v->name = arena_strn(c->a, s, word_length(s));
	v->text = text;
	if (!parse_tensor(c, m, text, &t, &v->any)) {
		CASE_FAILS(c, "%s is not given by%s", v->name, text);
		return false;
	}
	v->t = t;
	c->nvalue++;
	return true;
}

/* name : type {elements} */
static bool is_type(const char *s)
{
	size_t n = word_length(s);

	return n && s[n + strspn(s + n, " ")] == ':';
}

static bool add_type(struct test_case *c, char *s)
{
	struct type_line *t = &c->type[c->ntype];
	char *type = strchr(s, ':') + 1, *elements = strchr(type, '{'), *end;

	if (c->ntype == MAX_CASE) {
		CASE_FAILS(c, "more than %d types", MAX_CASE);
		return false;
	}
	type += strspn(type, " ");
	end = elements ? elements : type + strlen(type);
	while (end > type && end[-1] == ' ')
		end--;
	t->name = arena_strn(c->a, s, word_length(s));
	t->elements = elements;
	t->type = arena_strn(c->a, type, (size_t)(end - type));
	c->ntype++;
	return true;
}

static bool add_line(struct test_case *c, struct linnet_model *m, char *s)
{
	char *end, domain[64];
	int opset;

	if (*s == '!') {
		s += 1 + strspn(s + 1, " ");
		end = s + strcspn(s, " ");
		c->code = arena_strn(c->a, s, (size_t)(end - s));
		c->message = end + strspn(end, " ");
		if (strncmp(c->code, "LINNET_", 7)) {
			CASE_FAILS(c, "an error is written as ! LINNET_CODE message, not %s", s);
			return false;
		}
		c->code += 7;
	} else if (read_opset(s, domain, &opset)) {
		if (*domain && strcmp(domain, "ai.onnx.ml")) {
			CASE_FAILS(c, "opset of %s cannot be chosen", domain);
			return false;
		}
		*(*domain ? &c->ml_opset : &c->opset) = opset;
	} else if (!strncmp(s, "tolerance ", 10)) {
		c->tolerance = strtod(s + 10, NULL);
	} else if (is_value(s)) {
		return add_value(c, m, s);
	} else if (is_type(s)) {
		return add_type(c, s);
	} else if (c->nnode == MAX_CASE) {
		CASE_FAILS(c, "more than %d nodes", MAX_CASE);
		return false;
	} else {
		c->node[c->nnode++] = s;
	}
	return true;
}

/* One case: the lines from its title to the next. */
static char *run_lines(const char *path, char *p, int *line)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct test_case c = { .file = path, .line = *line, .opset = OPSET_NEWEST, .ml_opset = OPSET_NEWEST_ML, .tolerance = -1 };
	bool ok = true;

	assert_non_null(m);
	c.a = m->arena;
	while (*p) {
		char *s = p, *end = p + strcspn(p, "\n");

		if (!strncmp(p, "##", 2) && c.title)
			break;
		while (*s != '#' && *s != '!' && *end && ((void)(*end = '\0'), open_brackets(s) > 0)) {
			*end = '\n';
			end += 1 + strcspn(end + 1, "\n");
			++*line;
		}
		p = *end || end[1] ? end + 1 : end;
		if (*end)
			*end = '\0';
		++*line;
		if (!strncmp(s, "##", 2)) {
			c.title = s + 2 + strspn(s + 2, " ");
			c.line = *line - 1;
		} else if (*s && *s != '#') {
			ok = ok && add_line(&c, m, s);
		}
	}
	if (ok && c.title && c.nnode)
		run_case(&c);
	else if (ok)
		CASE_FAILS(&c, "%s", c.title ? "no node" : "no title");
	model_free(m);
	return p;
}

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *text, *p;
	long size;
	int line = 1;

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	rewind(f);
	text = calloc((size_t)size + 2, 1); /* two zeros: the end of the last line, and of the text */
	assert_non_null(text);
	assert_int_equal(fread(text, 1, (size_t)size, f), size);
	fclose(f);
	for (p = text; *p;)
		p = run_lines(path, p, &line);
	free(text);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void cases_hold(void **state)
{
	DIR *dir = opendir(FOLDER);
	char *path[1000];
	size_t n = 0;
	const struct dirent *entry;

	(void)state;
	assert_non_null(dir);
	complaints = 0;
	while ((entry = readdir(dir)) != NULL && n < 1000) {
		size_t len = strlen(entry->d_name);
		bool wanted = !nonly;

		if (len < 4 || strcmp(entry->d_name + len - 4, ".txt"))
			continue;
		for (int i = 0; i < nonly; i++)
			wanted |= strlen(only[i]) == len - 4 && !strncmp(only[i], entry->d_name, len - 4);
		if (!wanted)
			continue;
		path[n] = malloc(sizeof FOLDER + 1 + len);
		assert_non_null(path[n]);
		snprintf(path[n++], sizeof FOLDER + 1 + len, FOLDER "/%s", entry->d_name);
	}
	closedir(dir);
	qsort(path, n, sizeof *path, by_name);
	for (size_t i = 0; i < n; i++) {
		run_file(path[i]);
		free(path[i]);
	}
	assert_true(n > 0);
	assert_int_equal(complaints, 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_complete),
		cmocka_unit_test(rows_have_cases),
		cmocka_unit_test(cases_hold),
	};

	only = argv + 1;
	nonly = argc - 1;
	return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
